//! The hub as the engine sees it: takes bytes, gives frames, hears of ends. Only glue; the loop lends it what it needs
//! for one call of the engine.

use super::door::Place;
use super::engine::Upper;
use super::planted::Faults;
use super::pulse::{Activity, Pulse};
use crate::hub::{Hub, Input, SendBatch};
use crate::ids::ConnId;
use crate::time::Now;

/// See the module's documentation.
pub(super) struct Above<'a> {
    pub(super) hub: &'a mut Hub,
    pub(super) places: &'a mut Vec<Option<Place>>,
    pub(super) pulse: &'a Pulse,
    pub(super) now: Now,
    pub(super) faults: &'a Faults,
}

impl Upper for Above<'_> {
    fn bytes(&mut self, conn: ConnId, bytes: &mut [u8]) {
        self.pulse.enter(Activity::Bytes, Some(conn));
        tracing::trace!(%conn, bytes = bytes.len(), "received");
        self.hub.bytes(self.now, conn, bytes);
    }

    fn lost(&mut self, conn: ConnId) {
        self.pulse.enter(Activity::Lost, Some(conn));
        tracing::trace!(%conn, "transport lost");
        if self.faults.forgets(self.hub, conn) {
            return;
        }
        self.hub.input(self.now, Input::TransportLost(conn));
    }

    fn closed(&mut self, conn: ConnId) {
        self.pulse.enter(Activity::Lost, Some(conn));
        tracing::trace!(%conn, "closed");
        drop(self.places.get_mut(conn.index()).and_then(Option::take));
        self.hub.input(self.now, Input::TransportClosed(conn));
    }

    fn fill(&mut self, conn: ConnId, batch: &mut SendBatch) -> usize {
        self.hub.fill(conn, batch)
    }

    fn sent(&mut self, conn: ConnId, bytes: usize) {
        tracing::trace!(%conn, bytes, "sent");
        self.hub.sent(self.now, conn, bytes);
    }
}
