//! What the router has ordered and what of it is not done yet. Bounded: one state of the own record, one life of each
//! node to forget, and whether to leave.

use std::collections::BTreeMap;

use tokio::sync::mpsc;

use super::MembershipOrder;
use crate::control::mailbox::Wanted;
use crate::placement::view::{Epoch, Incarnation, MemberState, NodeId};

/// Whether a write of the own record is a new registration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Registration {
    /// It goes on as it is.
    Same,
    /// It begins anew, and the router waits for its epoch.
    New,
}

/// Orders that are not done.
#[derive(Debug, Default)]
pub(super) struct Todo {
    /// The state that the own record is to have.
    pub(super) own: Option<(MemberState, Registration)>,
    /// By node, the highest incarnation named.
    /// See [`MembershipOrder::Forget`].
    pub(super) forget: BTreeMap<NodeId, (Incarnation, Option<Epoch>)>,
    pub(super) leave: bool,
}

/// Where they come from.
pub(super) struct Orders {
    lane: mpsc::Receiver<MembershipOrder>,
    /// Nobody can order anything any more.
    closed: bool,
    wanted: Wanted,
    pub(super) todo: Todo,
    ending: bool,
}

impl Todo {
    /// A later state replaces an earlier one; a registration that is owed stays owed.
    fn take(&mut self, order: MembershipOrder) {
        match order {
            MembershipOrder::Record(state) => {
                let registration = self.own.map_or(Registration::Same, |(_, registration)| registration);
                self.own = Some((state, registration));
            }
            MembershipOrder::Register(state) => self.own = Some((state, Registration::New)),
            MembershipOrder::Forget(node_id, incarnation, registered) => {
                let named = self.forget.entry(node_id).or_insert((incarnation, registered));
                // Of the later life; the operator's word says more than an epoch.
                let says_more = |(_, of): (Incarnation, Option<Epoch>)| of.is_some() && registered > of;
                if incarnation > named.0
                    || incarnation == named.0 && (registered.is_none() || says_more(*named))
                {
                    *named = (incarnation, registered);
                }
            }
            MembershipOrder::Leave => self.leave = true,
        }
    }

    fn is_empty(&self) -> bool {
        self.own.is_none() && self.forget.is_empty() && !self.leave
    }
}

impl Orders {
    pub(super) fn new(lane: mpsc::Receiver<MembershipOrder>, wanted: Wanted) -> Self {
        Self { lane, closed: false, wanted, todo: Todo::default(), ending: false }
    }

    /// Whether the thread is to end and nothing ordered is left.
    pub(super) fn are_over(&self) -> bool {
        self.ending && self.todo.is_empty()
    }

    /// Waits for an order or the end, and takes all orders that are there.
    ///
    /// # Cancel safety
    /// Dropped while it waits, it loses nothing.
    pub(super) async fn more(&mut self) {
        tokio::select! {
            biased;
            order = self.lane.recv(), if !self.closed => match order {
                Some(order) => self.todo.take(order),
                None => self.closed = true,
            },
            _ = self.wanted.end(), if !self.ending => self.ending = true,
            else => std::future::pending().await,
        }
        while let Ok(order) = self.lane.try_recv() {
            self.todo.take(order);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn later_orders_replace_earlier_ones_and_a_registration_stays_owed() {
        let mut todo = Todo::default();
        assert!(todo.is_empty());
        let gw = |name: &str| NodeId::new(name).unwrap();
        for order in [
            MembershipOrder::Record(MemberState::Active),
            MembershipOrder::Register(MemberState::Active),
            MembershipOrder::Record(MemberState::Draining),
            MembershipOrder::Forget(gw("a"), Incarnation(7), Some(Epoch(8))),
            MembershipOrder::Forget(gw("a"), Incarnation(7), Some(Epoch(9))),
            MembershipOrder::Forget(gw("a"), Incarnation(5), None),
            MembershipOrder::Forget(gw("b"), Incarnation(1), None),
            MembershipOrder::Forget(gw("b"), Incarnation(1), Some(Epoch(3))),
            MembershipOrder::Forget(gw("c"), Incarnation(1), Some(Epoch(3))),
            MembershipOrder::Forget(gw("c"), Incarnation(1), None),
            MembershipOrder::Leave,
        ] {
            todo.take(order);
        }
        assert_eq!(todo.own, Some((MemberState::Draining, Registration::New)));
        let forget = [("a", 7, Some(Epoch(9))), ("b", 1, None), ("c", 1, None)];
        assert_eq!(todo.forget, forget.map(|(name, life, of)| (gw(name), (Incarnation(life), of))).into());
        assert!(todo.leave && !todo.is_empty());
    }
}
