//! Login policy across nodes (routing-protocol.md section 7): the home gives each login its time, judges completed
//! logins, and ends exactly the connections that lost.
//!
//! One clock for all users (a hybrid logical clock) stands for the floor of each: times given here only grow, and grow
//! past every key heard of. That is K1 with a larger floor, and nothing to keep per user.

use super::Node;
use super::frame::{Body, Class, Key};
use super::io::{Mail, Resident};
use crate::ids::Text;
use crate::placement::view::NodeId;

impl Node {
    /// The time of a login: unix milliseconds, or the next after the greatest so far.
    pub(super) fn login_time(&mut self) -> u64 {
        let clock = u64::try_from(self.now.unix.0).unwrap_or(0);
        self.floor = clock.max(self.floor() + 1);
        self.floor
    }

    /// A connection registered here may end others of its user, or be ended by one that is claimed here.
    pub(super) fn judge_resident(&mut self, resident: &Resident) {
        let claimed = |user| self.peers.values().any(|peer| peer.claims.has_user(user));
        if let Some(class) = resident.class.filter(|_| claimed(&resident.user)) {
            self.judge(&resident.user, class, resident.key.clone());
        }
    }

    /// A completed login of `user` has this key: of its class only the greatest key stays (K2, K3).
    pub(super) fn judge(&mut self, user: &Text, class: Class, key: Key) {
        let mut rivals: Vec<(NodeId, u64, Key)> = Vec::new();
        for (node, peer) in &self.peers {
            let same = peer.claims.of_user(user).filter(|claim| claim.class == Some(class));
            rivals.extend(same.filter_map(|claim| Some((node.clone(), claim.number, claim.key.clone()?))));
        }
        let winner = rivals.iter().map(|(_, _, key)| key).chain([&key]).max().cloned().unwrap_or(key);
        for (node, number, key) in rivals {
            if key < winner {
                self.send(&node, Body::Kick { number, winner: winner.clone() });
            }
        }
        self.mail(Mail::Judge { user: user.clone(), class, key: winner });
    }

    /// A home says that this connection lost. The shard compares the keys.
    pub(super) fn kick_own(&mut self, number: u64, winner: Key) {
        self.mail(Mail::Kick { number, winner });
    }
}
