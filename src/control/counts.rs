//! The counts of the control thread: plain memory, published to its block now and then.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use crate::metrics::{Block, Metric, Tally};
use crate::time::{Mono, Now};

/// Shared by the tasks of the thread. Cheap to clone.
#[derive(Clone)]
pub(super) struct Counts {
    tally: Rc<RefCell<Tally>>,
    block: Arc<Block>,
    now: fn() -> Now,
    /// When the registry was watched last, or the start.
    watched: Rc<Cell<Mono>>,
    /// Until when this node's lease in the cluster holds.
    leased: Rc<Cell<Mono>>,
}

impl Counts {
    pub(super) fn new(block: Arc<Block>, now: fn() -> Now) -> Self {
        Self {
            tally: Rc::default(),
            block,
            now,
            watched: Rc::new(Cell::new(now().mono)),
            leased: Rc::default(),
        }
    }

    pub(super) fn count(&self, metric: Metric) {
        self.add(metric, 1);
    }

    pub(super) fn add(&self, metric: Metric, n: u64) {
        self.tally.borrow_mut().add(metric, n);
    }

    pub(super) fn set(&self, metric: Metric, value: u64) {
        self.tally.borrow_mut().set(metric, value);
    }

    /// Until when this node's lease in the cluster holds.
    pub(super) fn lease(&self, until: Mono) {
        self.leased.set(until);
    }

    pub(super) fn publish(&self) {
        let (mut tally, now) = (self.tally.borrow_mut(), (self.now)().mono);
        if tally.value(Metric::DiscoveryCurrent) == 1 {
            self.watched.set(now);
        }
        tally.set(Metric::DiscoveryAge, now.since_ms(self.watched.get()));
        tally.set(Metric::LeaseLeft, self.leased.get().since_ms(now));
        self.block.publish(&tally);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::UnixMs;

    thread_local! {
        static NOW: Cell<u64> = const { Cell::new(0) };
    }

    fn now() -> Now {
        Now { mono: Mono(NOW.get()), unix: UnixMs(0) }
    }

    #[test]
    fn what_is_believed_ages_while_nobody_watches() {
        let block: Arc<Block> = Arc::default();
        let counts = Counts::new(Arc::clone(&block), now);
        let table = [
            (1_000, 0, 1_000),
            (2_000, 1, 0),
            (9_000, 1, 0),
            (9_500, 0, 500),
            (20_000, 0, 11_000),
            (21_000, 1, 0),
        ];
        for (at, is_watched, age) in table {
            NOW.set(at);
            counts.set(Metric::DiscoveryCurrent, is_watched);
            counts.publish();
            assert_eq!(block.value(Metric::DiscoveryAge), age, "at {at}");
        }
    }
}
