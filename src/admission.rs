//! What the node lets in: one fixed table of relaxed atomics, touched at connect, at close and at state changes only.

use std::sync::atomic::{AtomicU32, Ordering};

/// Counts connections of the whole node against its limit, and says what the node is doing.
#[derive(Debug)]
pub struct Admission {
    open: AtomicU32,
    connections_max: u32,
    state: AtomicU32,
}

/// What `/readyz` answers from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeState {
    /// Not listening yet.
    Starting,
    /// Serving.
    Ready,
    /// Leaving.
    Draining,
}

impl Admission {
    /// A node that is starting and holds nothing.
    pub fn new(connections_max: u32) -> Self {
        Self { open: AtomicU32::new(0), connections_max, state: AtomicU32::new(0) }
    }

    /// Takes a place for a connection; `false`: the node is full (errCode 1601, spec 1.3 check 1).
    #[must_use]
    pub fn enter(&self) -> bool {
        let before = self.open.fetch_add(1, Ordering::Relaxed);
        if before < self.connections_max {
            return true;
        }
        self.open.fetch_sub(1, Ordering::Relaxed);
        false
    }

    /// Gives a place back.
    pub fn leave(&self) {
        let before = self.open.fetch_sub(1, Ordering::Relaxed);
        assert!(before > 0, "a place was given back twice");
    }

    /// Places taken.
    pub fn open(&self) -> u32 {
        self.open.load(Ordering::Relaxed)
    }

    /// Places there are.
    pub fn connections_max(&self) -> u32 {
        self.connections_max
    }

    /// Announces a new state. Called by the main thread only.
    pub fn set_state(&self, state: NodeState) {
        self.state.store(state as u32, Ordering::Relaxed);
    }

    /// What the node is doing.
    pub fn state(&self) -> NodeState {
        match self.state.load(Ordering::Relaxed) {
            0 => NodeState::Starting,
            1 => NodeState::Ready,
            _ => NodeState::Draining,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_holds_at_its_edge_and_places_come_back() {
        let admission = Admission::new(2);
        assert!(admission.enter() && admission.enter());
        assert!(!admission.enter());
        admission.leave();
        assert!(admission.enter());
        assert_eq!(admission.open(), 2);
    }

    #[test]
    fn states_are_told_apart() {
        let admission = Admission::new(1);
        for state in [NodeState::Starting, NodeState::Ready, NodeState::Draining] {
            admission.set_state(state);
            assert_eq!(admission.state(), state);
        }
    }
}
