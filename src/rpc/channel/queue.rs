//! Calls that wait for an instance: first come, first served. Pure.
//!
//! What always holds: a place is given to a certain call, never announced to all, so none overtakes and none is lost;
//! what was given and not taken is handed back by [`Queue::leave`].

use std::collections::BTreeMap;
use std::task::{Context, Poll, Waker};

use super::CallFault;
use super::rotation::{Grant, InstanceKey};

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct Queue {
    /// In the order of their tickets.
    waiting: BTreeMap<u64, Waiter>,
    given: BTreeMap<u64, Result<Grant, CallFault>>,
    last_ticket: u64,
}

#[derive(Debug)]
struct Waiter {
    avoid: Option<InstanceKey>,
    waker: Option<Waker>,
}

impl Queue {
    /// Calls without a place.
    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Joins at the end; gives the ticket to ask with. The call should rather not go to `avoid`.
    pub(super) fn join(&mut self, avoid: Option<InstanceKey>) -> u64 {
        self.last_ticket += 1;
        self.waiting.insert(self.last_ticket, Waiter { avoid, waker: None });
        self.last_ticket
    }

    /// Which instance the first one in the queue avoids; `None`: nobody waits.
    pub(super) fn first(&self) -> Option<Option<InstanceKey>> {
        self.waiting.first_key_value().map(|(_, waiter)| waiter.avoid)
    }

    /// Gives to the first one; its waker is to be called.
    pub(super) fn give(&mut self, what: Result<Grant, CallFault>) -> Option<Waker> {
        let (ticket, waiter) = self.waiting.pop_first()?;
        self.given.insert(ticket, what);
        waiter.waker
    }

    /// Asks for what was given to a ticket.
    pub(super) fn poll(&mut self, ticket: u64, cx: &mut Context<'_>) -> Poll<Result<Grant, CallFault>> {
        if let Some(given) = self.given.remove(&ticket) {
            return Poll::Ready(given);
        }
        if let Some(waiter) = self.waiting.get_mut(&ticket) {
            waiter.waker = Some(cx.waker().clone());
        }
        Poll::Pending
    }

    /// Gives a ticket back, with the place that it got and did not take.
    pub(super) fn leave(&mut self, ticket: u64) -> Option<Grant> {
        self.waiting.remove(&ticket);
        self.given.remove(&ticket).and_then(Result::ok)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_to_come_is_the_first_to_get_and_who_left_gets_nothing() {
        let mut queue = Queue::default();
        let cx = &mut Context::from_waker(Waker::noop());
        let [a, b, c] = [None, Some(InstanceKey(7)), None].map(|avoid| queue.join(avoid));
        assert!(queue.poll(a, cx).is_pending() && queue.poll(b, cx).is_pending());
        assert!(queue.leave(a).is_none(), "it had nothing");
        assert_eq!((queue.len(), queue.first()), (2, Some(Some(InstanceKey(7)))));
        assert!(queue.give(Err(CallFault::Overloaded)).is_some(), "the waker of b");
        assert!(queue.poll(c, cx).is_pending());
        assert!(matches!(queue.poll(b, cx), Poll::Ready(Err(CallFault::Overloaded))));
        assert!(queue.leave(b).is_none());
        assert!(queue.give(Err(CallFault::Deadline)).is_some());
        assert_eq!((queue.len(), queue.first()), (0, None));
        assert!(queue.give(Err(CallFault::Deadline)).is_none(), "nobody waits");
        assert!(queue.leave(c).is_none() && queue.given.is_empty(), "nothing is left behind");
    }
}
