//! Upstream calls that wait for their reply. A slot here *is* the reserved place in the replies lane: it is freed by
//! the reply, never by the deadline, so the lane cannot overflow. The asked side answers every ticket exactly once.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use crate::arena::Arena;
use crate::ids::{CallTicket, ConnId};
use crate::limits;
use crate::time::Mono;

/// Deadlines kept, those of answered calls included.
const DEADLINES_MAX: usize = 2 * limits::CALLS_IN_FLIGHT_MAX as usize;

/// What a reply is for.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Pending {
    /// The token check of a login.
    Token,
    /// A client's request.
    Request { id: i32, msg_incr: Box<str>, operation_id: Box<str> },
}

#[derive(Debug, Serialize, Deserialize)]
struct Call {
    conn: ConnId,
    /// `None` once the deadline has answered in the reply's place.
    pending: Option<Pending>,
}

/// See the module's documentation.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Calls {
    calls: Arena<Call>,
    /// In order: every call has the same time to live. Calls that were answered leave when they come to the front, or
    /// when there are too many of them.
    deadlines: VecDeque<(Mono, CallTicket)>,
}

impl Calls {
    pub(super) fn new() -> Self {
        Self { calls: Arena::new(limits::CALLS_IN_FLIGHT_MAX), deadlines: VecDeque::new() }
    }

    /// Reserves a slot. `None`: all are taken.
    pub(super) fn open(&mut self, conn: ConnId, pending: Pending, deadline: Mono) -> Option<CallTicket> {
        let slot = self.calls.insert(Call { conn, pending: Some(pending) }).ok()?;
        if self.deadlines.len() >= DEADLINES_MAX {
            // At most half of them are open, so the next sweep is that many calls away.
            let calls = &self.calls;
            self.deadlines
                .retain(|(_, ticket)| calls.get(ticket.0).is_some_and(|call| call.pending.is_some()));
        }
        self.deadlines.push_back((deadline, CallTicket(slot)));
        Some(CallTicket(slot))
    }

    /// A reply came. `None`: unknown ticket, or its deadline has answered already.
    pub(super) fn reply(&mut self, ticket: CallTicket) -> Option<(ConnId, Pending)> {
        let call = self.calls.remove(ticket.0)?;
        Some((call.conn, call.pending?))
    }

    /// The next call whose deadline has passed. Its slot stays taken until the reply comes.
    pub(super) fn pop_expired(&mut self, now: Mono) -> Option<(ConnId, Pending)> {
        while let Some((deadline, ticket)) = self.deadlines.front().copied() {
            let answered = self.calls.get(ticket.0).is_none();
            if !answered && deadline > now {
                return None;
            }
            self.deadlines.pop_front();
            if let Some(call) = self.calls.get_mut(ticket.0)
                && let Some(pending) = call.pending.take()
            {
                return Some((call.conn, pending));
            }
        }
        None
    }

    pub(super) fn len(&self) -> usize {
        self.calls.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::SlotId;

    #[test]
    fn the_deadline_answers_once_and_the_slot_waits_for_the_reply() {
        let mut calls = Calls::new();
        let conn = ConnId(SlotId { index: 0, generation: 0 });
        let ticket = calls.open(conn, Pending::Token, Mono(10)).unwrap();
        assert!(calls.pop_expired(Mono(9)).is_none());
        assert!(calls.pop_expired(Mono(10)).is_some());
        assert!(calls.pop_expired(Mono(99)).is_none());
        assert_eq!(calls.len(), 1, "the place in the replies lane is still reserved");
        assert!(calls.reply(ticket).is_none(), "late");
        assert_eq!(calls.len(), 0);
        assert!(calls.reply(ticket).is_none(), "stale");
    }

    #[test]
    fn slots_end_at_the_capacity_of_the_replies_lane() {
        let mut calls = Calls::new();
        let conn = ConnId(SlotId { index: 0, generation: 0 });
        let opened = (0..limits::CALLS_IN_FLIGHT_MAX + 5)
            .filter_map(|_| calls.open(conn, Pending::Token, Mono(1)))
            .count();
        assert_eq!(opened, limits::CALLS_IN_FLIGHT_MAX as usize);
    }

    #[test]
    fn answered_calls_do_not_pile_up_behind_one_that_hangs() {
        let mut calls = Calls::new();
        let conn = ConnId(SlotId { index: 0, generation: 0 });
        calls.open(conn, Pending::Token, Mono(10)).unwrap();
        for _ in 0..3 * DEADLINES_MAX {
            let ticket = calls.open(conn, Pending::Token, Mono(11)).unwrap();
            assert!(calls.reply(ticket).is_some());
            assert!(calls.deadlines.len() <= DEADLINES_MAX);
        }
        assert!(calls.pop_expired(Mono(9)).is_none());
        assert!(calls.pop_expired(Mono(10)).is_some(), "the one that hangs is not forgotten");
    }
}
