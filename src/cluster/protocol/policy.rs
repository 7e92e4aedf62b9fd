//! Login policy across nodes (routing-protocol.md section 7): the home gives each login its time, judges completed
//! logins, ends exactly the connections that lost, and lets the newest login hear that it met others.
//!
//! One clock for all users (a hybrid logical clock) stands for the floor of each: times given here only grow, and grow
//! past every key heard of. That is K1 with a larger floor, and nothing to keep per user.
//!
//! Of two connections in one class the older loses, unless both have the same token name. Who was told to end may be
//! told again, and who met others may hear of it again: the shards obey once.

use super::Node;
use super::frame::{Body, Class, Key, TokenMarks, TokenName};
use super::io::{Mail, Resident};
use crate::hub::login_policy::hears_of;
use crate::ids::Text;
use crate::placement::view::NodeId;

/// A completed login in a class.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Judged {
    pub(super) class: Class,
    pub(super) key: Key,
    pub(super) token: Option<TokenName>,
}

impl Judged {
    /// Whether this login ends the other.
    fn ends(&self, other: &Self) -> bool {
        self.class == other.class && self.key > other.key && !TokenName::spares(other.token, self.token)
    }
}

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
            let (key, token) = (resident.key.clone(), resident.token);
            self.judge(&resident.user, &Judged { class, key, token });
        }
    }

    /// A completed login of `user`: of its class those stay that no newer one ends (K2, K3).
    pub(super) fn judge(&mut self, user: &Text, login: &Judged) {
        let rivals = self.claimed_rivals(user, login.class);
        let others = || rivals.iter().map(|(_, rival)| rival);
        let newest = others().chain([login]).max_by_key(|judged| &judged.key).unwrap_or(login);
        for (node, rival) in &rivals {
            let winner =
                others().chain([login]).filter(|judged| judged.ends(rival)).map(|judged| &judged.key).max();
            if let Some(winner) = winner.cloned() {
                self.send(node, Body::Kick { number: rival.key.number, winner });
            }
        }
        // The shard judges the residents: by this login, and by the newest, which may have come before they did.
        self.mail_judge(user, login);
        if newest.key != login.key {
            self.mail_judge(user, newest);
        }
        if self.met_claimed(user, newest) {
            self.say_met(&newest.key);
        }
    }

    /// Completed logins of that class that are claimed here.
    fn claimed_rivals(&self, user: &Text, class: Class) -> Vec<(NodeId, Judged)> {
        let judged = |(node, claim): (&NodeId, &super::frame::Claim)| {
            let key = claim.key.clone().filter(|_| claim.class == Some(class))?;
            Some((node.clone(), Judged { class, key, token: claim.token }))
        };
        let claims =
            self.peers.iter().flat_map(|(node, peer)| peer.claims.of_user(user).map(move |c| (node, c)));
        claims.filter_map(judged).collect()
    }

    /// Whether older connections are claimed here of which this login must hear.
    fn met_claimed(&self, user: &Text, login: &Judged) -> bool {
        let mut claims = self.peers.values().flat_map(|peer| peer.claims.of_user(user));
        claims.any(|claim| {
            claim.key.as_ref().is_some_and(|key| *key < login.key) && hears_of(login.class, claim.class)
        })
    }

    fn mail_judge(&mut self, user: &Text, login: &Judged) {
        let Judged { class, key, token } = login.clone();
        self.mail(Mail::Judge { user: user.clone(), class, key, token });
    }

    /// The login of this key met others: its node tells the auth service.
    pub(super) fn say_met(&mut self, key: &Key) {
        if key.node == self.me.node_id {
            self.met(key);
        } else {
            self.send(&key.node.clone(), Body::Met(key.clone()));
        }
    }

    /// A login of this node met others.
    pub(super) fn met(&mut self, key: &Key) {
        if key.node == self.me.node_id {
            self.mail(Mail::Met(key.clone()));
        }
    }

    /// Tokens have ended here: every node hears of it that can.
    pub(super) fn say_marks(&mut self, marks: &TokenMarks) {
        for peer in self.linked_ids() {
            self.send(&peer, Body::Marks(marks.clone()));
        }
    }

    /// Tokens have ended at a peer.
    pub(super) fn take_marks(&mut self, marks: TokenMarks) {
        self.mail(Mail::Marks(marks));
    }

    /// A home says that this connection lost. The shard compares the keys.
    pub(super) fn kick_own(&mut self, number: u64, winner: Key) {
        self.mail(Mail::Kick { number, winner });
    }
}
