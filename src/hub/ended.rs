//! What is said about a session once it is over. The hub writes the record when the slot becomes free, so it is
//! complete and comes once; the shard takes it and logs it. Bounded: records that nobody takes are dropped and counted.

use std::net::SocketAddr;

use super::Hub;
use crate::ids::{ConnId, Platform};
use crate::limits;
use crate::metrics::Metric;
use crate::session::disconnect::Disconnect;
use crate::session::ledger::LastFrame;
use crate::session::{Credentials, Session, Tick};
use crate::time::Now;

/// See the module's documentation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// The connection.
    pub conn: ConnId,
    /// OpenIM's name of it: `connid` in calls and verdicts.
    pub connection_id: Box<str>,
    /// Of its login; empty once the login was good: it is not kept.
    pub operation_id: Box<str>,
    /// Its user; for a login that was refused, the user that it claimed to be.
    pub user: Box<str>,
    /// Its platform.
    pub platform: Platform,
    /// Address of the client: the peer's, or what a believed proxy says (port 0: not known).
    pub peer: SocketAddr,
    /// Why it ended.
    pub reason: Disconnect,
    /// From accept to closed, in milliseconds.
    pub age_ms: u64,
    /// Bytes received after the handshake.
    pub bytes_in: u64,
    /// Bytes given to the socket.
    pub bytes_out: u64,
    /// Bytes that still waited.
    pub bytes_unsent: u32,
    /// What the client sent last.
    pub last_frame: LastFrame,
    /// How long ago that was (or the accept), in milliseconds.
    pub heard_ms: u64,
}

impl Hub {
    /// The next session that is over, oldest first.
    pub fn next_ended(&mut self) -> Option<Ended> {
        self.ended.pop_front()
    }

    pub(super) fn note_ended(&mut self, now: Now, conn: ConnId, session: Session) {
        if self.ended.len() >= limits::ENDED_MAX {
            return self.tally.count(Metric::EndedDropped);
        }
        let (tick, ledger) = (Tick::of(now.mono), &session.ledger);
        let connection_id = session.connection_id_hex();
        let (user, operation_id) = match session.credentials {
            Credentials::Login(login) => (login.user, login.operation_id),
            Credentials::Departed(departed) => (departed.user, "".into()),
            Credentials::Identity(_) => Default::default(), // not before it left its user's list
        };
        self.ended.push_back(Ended {
            conn,
            connection_id,
            operation_id,
            user,
            platform: session.platform,
            peer: ledger.peer(),
            reason: session.reason.unwrap_or(Disconnect::Internal), // every freed session has one, see `audit`
            age_ms: tick.since_ms(ledger.since),
            bytes_in: ledger.bytes_in,
            bytes_out: ledger.bytes_out,
            bytes_unsent: ledger.bytes_unsent,
            last_frame: ledger.last_frame,
            heard_ms: tick.since_ms(session.heard),
        });
    }
}
