//! Checks that the tables of a hub agree with each other (architecture.md section 9, property 4). For the simulator
//! and tests; production never needs it.

use super::{Hub, Kind};
use crate::ids::ConnId;
use crate::session::{Phase, Session};

impl Hub {
    /// Returns the first disagreement found.
    ///
    /// # Errors
    /// A sentence that names the tables and the numbers.
    pub fn audit(&self) -> Result<(), String> {
        let sessions = || self.registry.sessions.iter().map(|(_, session)| session);
        let sum = |value: &dyn Fn(&Session) -> usize| sessions().map(value).sum::<usize>();
        expect("outbox bytes", sum(&|s| s.outbox_bytes()), self.registry.outbox_bytes)?;
        expect("registered", sum(&|s| s.is_registered().into()), self.registry.registered())?;
        self.registry.audit()?;
        for kind in [Kind::Unregister, Kind::Kick, Kind::Register] {
            let queued = sum(&|s| s.queues.get(kind as usize).is_some_and(|link| link.queued).into());
            expect(&format!("{kind:?} queue"), queued, self.queues.len(kind))?;
        }
        for (id, session) in self.registry.sessions.iter() {
            let fail = |what: &str| Err(format!("session {}.{}: {what}", id.index, id.generation));
            if (session.phase < Phase::Closed) != session.timer.at.is_some() {
                return fail("its timer does not match its phase");
            }
            if session.phase == Phase::Closed && session.outbox.is_some() {
                return fail("closed with a full outbox");
            }
            if session.outbox.as_ref().is_some_and(|outbox| outbox.is_empty()) {
                return fail("holds an empty outbox");
            }
            if session.reason.is_some() != (session.phase >= Phase::Closing) {
                return fail("its reason does not match its phase");
            }
            if let Some(user) = self.registry.user_of(session)
                && !self.registry.connections(user).any(|(conn, _)| conn.0 == id)
            {
                return fail("not in the list of its user");
            }
        }
        Ok(())
    }

    /// Every registered connection with its user, in the order of the slab.
    pub fn roster(&self) -> Vec<(ConnId, Box<str>)> {
        let entry = |(id, session)| Some((ConnId(id), self.registry.user_of(session)?.into()));
        self.registry.sessions.iter().filter_map(entry).collect()
    }

    /// Bytes that the limits allow this hub to hold for its clients (property 5).
    pub fn queued_bytes_bound(&self) -> usize {
        // Each session may end with one more frame than its limit: the kick or the close frame.
        let last_frames = self.registry.sessions.len() * crate::limits::MESSAGE_BYTES_MAX;
        self.config.shard_outbox_bytes_max + last_frames
    }

    /// Bytes that wait in outboxes.
    pub fn queued_bytes(&self) -> usize {
        self.registry.outbox_bytes
    }
}

fn expect(what: &str, found: usize, counted: usize) -> Result<(), String> {
    if found == counted {
        Ok(())
    } else {
        Err(format!("{what}: the tables hold {found}, the counter says {counted}"))
    }
}
