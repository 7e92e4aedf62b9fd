//! Mail to shards and orders to the control thread whose lane was full, until there is room.
//!
//! What always holds: per shard the order of its mail; at most `CLUSTER_MAIL_WAITING_MAX` mails, placements apart. What
//! is above goes, and is counted: a login that is not answered ends at its deadline, an older connection that is not
//! ended is judged again when its link comes up anew. Placements always have room: a shard without one would answer
//! for users that are not its own. There are as many as views of another placement that a shard has not read.

use std::collections::{BTreeMap, VecDeque};

use crate::control::membership::MembershipOrder;
use crate::hub::cluster::ClusterMail;
use crate::ids::ShardId;
use crate::limits::CLUSTER_MAIL_WAITING_MAX;

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    mails: BTreeMap<ShardId, VecDeque<ClusterMail>>,
    count: usize,
    orders: VecDeque<MembershipOrder>,
}

/// The mail is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Full;

impl Waiting {
    /// Mails and orders that wait.
    pub(super) fn len(&self) -> usize {
        self.count + self.orders.len()
    }

    /// Whether mail to that shard must wait behind other mail.
    pub(super) fn holds_back(&self, shard: ShardId) -> bool {
        self.mails.contains_key(&shard)
    }

    /// Keeps a mail.
    pub(super) fn keep(&mut self, shard: ShardId, mail: ClusterMail) -> Result<(), Full> {
        let placement = matches!(mail, ClusterMail::Add { .. } | ClusterMail::Only(_));
        if self.count >= CLUSTER_MAIL_WAITING_MAX && !placement {
            return Err(Full);
        }
        self.count += 1;
        self.mails.entry(shard).or_default().push_back(mail);
        Ok(())
    }

    /// Sends what `send` takes.
    pub(super) fn retry(&mut self, mut send: impl FnMut(ShardId, ClusterMail) -> Result<(), ClusterMail>) {
        let count = &mut self.count;
        self.mails.retain(|shard, mails| {
            while let Some(mail) = mails.pop_front() {
                if let Err(mail) = send(*shard, mail) {
                    mails.push_front(mail);
                    return true;
                }
                *count -= 1;
            }
            false
        });
    }

    /// Whether an order must wait behind others.
    pub(super) fn holds_orders(&self) -> bool {
        !self.orders.is_empty()
    }

    /// Keeps an order. What the own record shall say is a level: only the newest counts.
    pub(super) fn keep_order(&mut self, order: MembershipOrder) {
        let level = |order: &MembershipOrder| matches!(order, MembershipOrder::Record(_));
        if level(&order) {
            self.orders.retain(|kept| !level(kept));
        }
        if !self.orders.contains(&order) {
            self.orders.push_back(order);
        }
    }

    /// Hands over what `send` takes.
    pub(super) fn retry_orders(
        &mut self,
        mut send: impl FnMut(MembershipOrder) -> Result<(), MembershipOrder>,
    ) {
        while let Some(order) = self.orders.pop_front() {
            if let Err(order) = send(order) {
                return self.orders.push_front(order);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::placement::view::{Epoch, MemberState};

    #[test]
    fn mail_keeps_its_order_and_placements_always_have_room() {
        let mut waiting = Waiting::default();
        for number in 0..CLUSTER_MAIL_WAITING_MAX as u64 {
            waiting.keep(ShardId(0), ClusterMail::Refuse(number)).unwrap();
        }
        assert_eq!(waiting.keep(ShardId(1), ClusterMail::Refuse(7)), Err(Full));
        assert_eq!(waiting.keep(ShardId(0), ClusterMail::Only(Epoch(3))), Ok(()));
        assert!(waiting.holds_back(ShardId(0)) && !waiting.holds_back(ShardId(1)));
        let mut sent = Vec::new();
        // Room for two.
        waiting.retry(|_, mail| {
            if sent.len() == 2 {
                return Err(mail);
            }
            sent.push(mail);
            Ok(())
        });
        assert_eq!(sent, [ClusterMail::Refuse(0), ClusterMail::Refuse(1)]);
        assert_eq!(waiting.len(), CLUSTER_MAIL_WAITING_MAX - 1);
        waiting.retry(|_, mail| {
            sent.push(mail);
            Ok(())
        });
        assert_eq!(sent.last(), Some(&ClusterMail::Only(Epoch(3))));
        assert_eq!((waiting.len(), waiting.holds_back(ShardId(0))), (0, false));
    }

    #[test]
    fn of_the_own_state_only_the_newest_is_ordered() {
        let mut waiting = Waiting::default();
        waiting.keep_order(MembershipOrder::Record(MemberState::Active));
        waiting.keep_order(MembershipOrder::Leave);
        waiting.keep_order(MembershipOrder::Record(MemberState::Draining));
        let mut sent = Vec::new();
        waiting.retry_orders(|order| {
            sent.push(order);
            Ok(())
        });
        assert_eq!(sent, [MembershipOrder::Leave, MembershipOrder::Record(MemberState::Draining)]);
    }
}
