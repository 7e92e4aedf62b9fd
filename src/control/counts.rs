//! The counts of the control thread: plain memory, published to its block now and then.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use crate::metrics::{Block, Metric, Tally};

/// Shared by the tasks of the thread. Cheap to clone.
#[derive(Clone)]
pub(super) struct Counts {
    tally: Rc<RefCell<Tally>>,
    block: Arc<Block>,
}

impl Counts {
    pub(super) fn new(block: Arc<Block>) -> Self {
        Self { tally: Rc::default(), block }
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

    pub(super) fn publish(&self) {
        self.block.publish(&self.tally.borrow());
    }
}
