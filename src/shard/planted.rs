//! Faults planted into the loop of shard 0 (`--plant`), which `tests/it/churn` must find. Production, and every other
//! shard, runs with [`Faults::None`], where each method does nothing.
//!
//! [`Faults::Incident1`] has the structure of the incident, with its queue of 1000 lowered to [`UNREGISTER_MAX`]: a
//! connection that is closed goes to a bounded unregister queue, which the loop drains at the start of a turn. While it
//! is full, a connection that left by itself waits beside it (upstream: in a task of its own), but a kick is handled by
//! the loop, and the loop waits: for room in a queue that only it drains.
//!
//! [`Faults::SwappedQueues`] is what the half cure allows: the end of a connection whose register entry still waits
//! finds nothing to unregister and is forgotten; then the register takes effect.

use std::collections::VecDeque;

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};

use crate::config::PlantedFault;
use crate::hub::Hub;
use crate::ids::{ConnId, ShardId};
use crate::metrics::{Metric, Tally};
use crate::session::disconnect::Disconnect;

/// Capacity of the planted unregister queue.
const UNREGISTER_MAX: usize = 4;

/// What is planted in this shard.
pub(super) enum Faults {
    None,
    Incident1(Circle),
    SwappedQueues,
}

/// Both ends of one queue in the hands of one loop.
pub(super) struct Circle {
    sender: Sender<ConnId>,
    receiver: Receiver<ConnId>,
    waiting: VecDeque<ConnId>,
}

/// Who closes a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unregister {
    /// The loop, at once: nothing is planted.
    AtOnce,
    /// Whoever drains the planted queue.
    Queued,
    /// The planted queue is full, and the loop itself must put this one in: [`Faults::wait_for_room`].
    Full,
}

impl Faults {
    /// Builds what the flag asks for.
    pub(super) fn plant(shard: ShardId, fault: Option<PlantedFault>) -> Self {
        match fault.filter(|_| shard == ShardId(0)) {
            None => Self::None,
            Some(PlantedFault::SwappedQueues) => Self::SwappedQueues,
            Some(PlantedFault::Incident1) => {
                let (sender, receiver) = bounded(UNREGISTER_MAX);
                Self::Incident1(Circle { sender, receiver, waiting: VecDeque::new() })
            }
        }
    }

    /// Whether the end of a transport is forgotten.
    pub(super) fn forgets(&self, hub: &Hub, conn: ConnId) -> bool {
        let registers = || hub.user_of(conn).is_none() && hub.reason_of(conn).is_none();
        matches!(self, Self::SwappedQueues) && registers()
    }

    /// Decides who closes a connection.
    pub(super) fn unregister(&mut self, hub: &Hub, conn: ConnId) -> Unregister {
        let Self::Incident1(circle) = self else {
            return Unregister::AtOnce;
        };
        match circle.sender.try_send(conn) {
            Err(TrySendError::Full(_)) if hub.reason_of(conn) == Some(Disconnect::Kicked) => Unregister::Full,
            Err(TrySendError::Full(conn) | TrySendError::Disconnected(conn)) => {
                circle.waiting.push_back(conn);
                Unregister::Queued
            }
            Ok(()) => Unregister::Queued,
        }
    }

    /// The incident: never returns, since nobody but the caller makes room.
    pub(super) fn wait_for_room(&self, conn: ConnId) {
        if let Self::Incident1(circle) = self
            && circle.sender.send(conn).is_err()
        {
            tracing::error!(%conn, "the planted queue has lost its reader");
        }
    }

    /// Drains the planted queue.
    pub(super) fn drained(&mut self) -> Vec<ConnId> {
        let Self::Incident1(circle) = self else {
            return Vec::new();
        };
        let drained = circle.receiver.try_iter().collect();
        for conn in std::mem::take(&mut circle.waiting) {
            if circle.sender.try_send(conn).is_err() {
                circle.waiting.push_back(conn);
            }
        }
        drained
    }

    /// Whether the planted queue must be drained again.
    pub(super) fn has_work(&self) -> bool {
        matches!(self, Self::Incident1(circle) if !circle.receiver.is_empty())
    }

    /// Shows the planted queue as the unregister queue that it stands for.
    pub(super) fn show(&self, tally: &mut Tally) {
        if let Self::Incident1(circle) = self {
            tally.set(Metric::UnregisterDepth, circle.receiver.len() as u64);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::HubConfig;
    use crate::ids::SlotId;

    fn hub() -> Hub {
        Hub::new(HubConfig::for_shard(ShardId(0), 8))
    }

    fn conn(index: u32) -> ConnId {
        ConnId(SlotId { index, generation: 0 })
    }

    #[test]
    fn without_a_flag_nothing_is_different() {
        let (mut faults, hub) = (Faults::plant(ShardId(0), None), hub());
        assert_eq!(faults.unregister(&hub, conn(1)), Unregister::AtOnce);
        assert!(!faults.forgets(&hub, conn(1)) && !faults.has_work() && faults.drained().is_empty());
    }

    #[test]
    fn only_shard_0_is_planted() {
        assert!(matches!(Faults::plant(ShardId(1), Some(PlantedFault::Incident1)), Faults::None));
    }

    #[test]
    fn the_planted_queue_is_bounded_and_loses_nobody() {
        let (mut faults, hub) = (Faults::plant(ShardId(0), Some(PlantedFault::Incident1)), hub());
        for n in 0..10 {
            assert_eq!(faults.unregister(&hub, conn(n)), Unregister::Queued);
        }
        let mut drained = Vec::new();
        while faults.has_work() {
            let batch = faults.drained();
            assert!(batch.len() <= UNREGISTER_MAX);
            drained.extend(batch);
        }
        assert_eq!(drained, (0..10).map(conn).collect::<Vec<_>>());
    }
}
