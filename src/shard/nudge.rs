//! A wake-up between tasks of one thread: many ring, one waits.
//!
//! What always holds: a ring before the wait ends the wait at once; rings are not counted.

use std::cell::Cell;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

/// Cheap to clone; all clones are the same bell. `!Send` by its `Rc`.
#[derive(Clone, Debug, Default)]
pub struct Nudge {
    state: Rc<State>,
}

#[derive(Default)]
struct State {
    rung: Cell<bool>,
    waiter: Cell<Option<Waker>>,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Nudge").field("rung", &self.rung.get()).finish()
    }
}

impl Nudge {
    /// Ends the wait of the one who waits, now or later.
    pub fn ring(&self) {
        self.state.rung.set(true);
        if let Some(waiter) = self.state.waiter.take() {
            waiter.wake();
        }
    }

    /// Forgets earlier rings: for one who is about to look at everything anyway.
    pub fn clear(&self) {
        self.state.rung.set(false);
    }

    /// Waits for a ring. One waiter at a time: a second one takes the first one's place.
    ///
    /// # Cancel safety
    /// A ring that was not waited for stays.
    pub async fn wait(&self) {
        std::future::poll_fn(|cx| self.poll_wait(cx)).await;
    }

    pub(super) fn poll_wait(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.state.rung.replace(false) {
            return Poll::Ready(());
        }
        self.state.waiter.set(Some(cx.waker().clone()));
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ring_before_or_during_the_wait_ends_it_once() {
        let nudge = Nudge::default();
        let cx = &mut Context::from_waker(Waker::noop());
        nudge.ring();
        nudge.ring();
        assert!(nudge.poll_wait(cx).is_ready(), "rung before");
        assert!(nudge.poll_wait(cx).is_pending(), "two rings are one");
        nudge.clone().ring();
        assert!(nudge.poll_wait(cx).is_ready(), "rung during");
        nudge.ring();
        nudge.clear();
        assert!(nudge.poll_wait(cx).is_pending(), "cleared");
    }
}
