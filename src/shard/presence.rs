//! Presence on its way to rpc thread 0: what has changed leaves in batches, with a pause between two of them.
//!
//! The first change after a quiet time leaves at once. In a storm of logins the thread would be woken for each of them,
//! and would wake this one with the news, which cost more CPU than the records do: what changes within the pause
//! leaves together, in the first turn after it, which is the next tick at the latest. Meanwhile it is in the hub's set,
//! where a user has one place however often he comes and goes.
//!
//! Not here: what a record says (the hub). What always holds: a record that was taken out of the hub is posted, or kept
//! until it can be.

use super::mailbox::{RpcAddress, RpcMail};
use crate::hub::upstream::PresenceRecord;
use crate::limits::{LANE_BATCH_MAX, PRESENCE_PAUSE_MS};
use crate::time::Mono;

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct PresencePost {
    /// `None`: nobody is told.
    rpc: Option<RpcAddress>,
    /// The rpc thread did not take it.
    kept: Option<Box<PresenceRecord>>,
    /// The end of the pause.
    not_before: Mono,
}

/// Whether there is time for a pause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Haste {
    /// There is.
    Paced,
    /// The shard is about to end.
    AtOnce,
}

impl PresencePost {
    pub(super) fn new(rpc: Option<RpcAddress>) -> Self {
        Self { rpc, kept: None, not_before: Mono(0) }
    }

    /// Posts the records that `source` gives, while there is room. Returns whether the budget ended it.
    pub(super) fn pass(
        &mut self,
        now: Mono,
        haste: Haste,
        mut source: impl FnMut() -> Option<PresenceRecord>,
    ) -> bool {
        let Some(rpc) = self.rpc.as_ref().filter(|_| now >= self.not_before || haste == Haste::AtOnce) else {
            return false;
        };
        for posted in 0..LANE_BATCH_MAX {
            let room = rpc.presence_has_room();
            let next = || self.kept.take().or_else(|| source().map(Box::new));
            let Some(record) = room.then(next).flatten() else {
                if posted > 0 {
                    self.not_before = now.plus_ms(PRESENCE_PAUSE_MS);
                }
                return false;
            };
            if let Err(RpcMail::Presence(record)) = rpc.post(RpcMail::Presence(record)) {
                self.kept = Some(record); // another shard was faster, or the thread has ended
                return false;
            }
        }
        true
    }

    /// Nothing is kept here.
    pub(super) fn is_empty(&self) -> bool {
        self.kept.is_none()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;
    use crate::limits::PRESENCE_LANE_MAX;
    use crate::shard::mailbox::{RpcInbox, rpc_mailbox};

    fn records(users: std::ops::Range<usize>) -> VecDeque<PresenceRecord> {
        let record = |user: usize| PresenceRecord {
            user: user.to_string().into(),
            online: vec![],
            offline: vec![],
            ..Default::default()
        };
        users.map(record).collect()
    }

    fn posted(inbox: &RpcInbox) -> Vec<Box<str>> {
        let mails = std::iter::from_fn(|| inbox.next());
        let users = mails.map(|mail| match mail {
            RpcMail::Presence(record) => record.user,
            other => panic!("{other:?}"),
        });
        users.collect()
    }

    #[test]
    fn the_first_change_leaves_at_once_and_the_next_after_the_pause() {
        let (rpc, inbox) = rpc_mailbox(1).unwrap();
        let mut post = PresencePost::new(Some(rpc));
        let mut dirty = VecDeque::new();
        let table = [
            (1_000, Haste::Paced, 0), // nothing to say begins no pause
            (1_000, Haste::Paced, 1),
            (1_000 + PRESENCE_PAUSE_MS - 1, Haste::Paced, 0),
            (1_000 + PRESENCE_PAUSE_MS, Haste::Paced, 2),
            (1_000 + PRESENCE_PAUSE_MS, Haste::AtOnce, 1),
        ];
        for (step, (now, haste, expected)) in table.into_iter().enumerate() {
            assert!(!post.pass(Mono(now), haste, || dirty.pop_front()));
            assert_eq!(posted(&inbox).len(), expected, "step {step}");
            dirty.extend(records(step..step + 1));
        }
    }

    #[test]
    fn a_budget_ends_a_batch_and_no_pause_follows_before_its_last_record() {
        let (rpc, inbox) = rpc_mailbox(1).unwrap();
        let mut post = PresencePost::new(Some(rpc));
        let mut dirty = records(0..LANE_BATCH_MAX + 1);
        assert!(post.pass(Mono(5), Haste::Paced, || dirty.pop_front()));
        assert!(!post.pass(Mono(5), Haste::Paced, || dirty.pop_front()));
        assert_eq!(posted(&inbox).len(), LANE_BATCH_MAX + 1);
    }

    #[test]
    fn a_record_without_room_stays_where_it_is_or_is_kept_and_goes_first() {
        let (rpc, inbox) = rpc_mailbox(1).unwrap();
        let mut post = PresencePost::new(Some(rpc));
        let mut dirty = records(0..PRESENCE_LANE_MAX + 2);
        while post.pass(Mono(5), Haste::AtOnce, || dirty.pop_front()) {}
        assert_eq!((dirty.len(), post.is_empty()), (2, true), "the hub has them still");
        post.kept = dirty.pop_front().map(Box::new); // as when another shard was faster
        assert_eq!(posted(&inbox).len(), PRESENCE_LANE_MAX);
        assert!(!post.pass(Mono(5), Haste::AtOnce, || dirty.pop_front()));
        let last = [PRESENCE_LANE_MAX, PRESENCE_LANE_MAX + 1].map(|user| Box::<str>::from(user.to_string()));
        assert_eq!(posted(&inbox), last);
        drop(inbox);
        let mut dirty = records(0..1);
        assert!(!post.pass(Mono(5), Haste::AtOnce, || dirty.pop_front()));
        assert!(!post.is_empty(), "its thread has ended: kept");
    }
}
