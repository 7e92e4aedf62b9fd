//! Where users are online: the union of what the shards last said (spec 9, without Redis and its expiry).
//!
//! What always holds: records are level-triggered, so a shard's newest record of a user replaces its older ones;
//! a user without connections has no entry, so the size follows the connections of the node. A user costs two
//! allocations, his id and one short list: there is one of them for each connection, or nearly.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::hub::upstream::{PresenceRecord, UserPlatforms};
use crate::ids::ShardId;

/// See the module's documentation.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Presence {
    /// Where a user is online, by shard and platform: sorted, each pair once, never empty.
    users: BTreeMap<Box<str>, Box<[(ShardId, i32)]>>,
}

impl Presence {
    /// Takes a record in. `Some`: the user's platforms on this node changed, and these they are now.
    pub(super) fn record(&mut self, record: &PresenceRecord, from: ShardId) -> Option<UserPlatforms> {
        let before = self.platforms(&record.user);
        let others = self.users.get(&record.user).into_iter().flatten().filter(|(shard, _)| *shard != from);
        let here = record.online.iter().map(|platform| (from, *platform));
        let online = sorted(others.copied().chain(here).collect());
        if online.is_empty() {
            self.users.remove(&record.user);
        } else {
            self.users.insert(record.user.clone(), online.into());
        }
        let after = self.status(&record.user);
        (after.platforms != before).then_some(after)
    }

    /// Sorted and without duplicates; empty = offline.
    pub(super) fn status(&self, user: &str) -> UserPlatforms {
        UserPlatforms { user: user.into(), platforms: self.platforms(user) }
    }

    fn platforms(&self, user: &str) -> Vec<i32> {
        let online = self.users.get(user).into_iter().flatten();
        sorted(online.map(|(_, platform)| *platform).collect())
    }
}

/// In order, each once. The lists are short: no set is faster.
fn sorted<T: Ord>(mut list: Vec<T>) -> Vec<T> {
    list.sort_unstable();
    list.dedup();
    list
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn news_come_only_when_the_union_over_shards_changes() {
        let mut presence = Presence::default();
        /// Shard, what it says is online, what subscribers hear.
        type Row = (u16, &'static [i32], Option<&'static [i32]>);
        let table: [Row; 8] = [
            (0, &[], None),
            (0, &[5, 1, 5], Some(&[1, 5])),
            (0, &[1, 5], None),
            (1, &[5], None),
            (0, &[1], None), // 5 is still on shard 1
            (1, &[], Some(&[1])),
            (0, &[], Some(&[])),
            (0, &[], None),
        ];
        for (step, (shard, online, news)) in table.into_iter().enumerate() {
            let record = PresenceRecord {
                user: "u".into(),
                online: online.to_vec(),
                offline: vec![],
                ..Default::default()
            };
            let got = presence.record(&record, ShardId(shard));
            assert_eq!(got.map(|n| n.platforms), news.map(<[i32]>::to_vec), "step {step}");
        }
        assert_eq!(presence, Presence::default(), "nothing is left of offline users");
    }
}
