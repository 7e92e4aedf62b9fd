//! The holder's side of the directory: connections whose home is another node, logins that wait for a claim's ack,
//! promises to homes (C1 to C5, L5, M3).

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use super::frame::{Body, Claim, Class, Key, TokenName};
use super::io::{Count, Login, Mail, Resident};
use super::peer::{Peer, Promise};
use super::rules::Rule;
use super::{Node, Stage};
use crate::ids::Text;
use crate::limits::{PROMISES_MAX, VOID_MS};
use crate::placement::view::NodeId;
use crate::time::Mono;

/// Connections of this node that are, or were, claimed elsewhere, and logins that ask.
#[derive(Debug, Default)]
pub(super) struct Strays {
    all: BTreeMap<u64, Stray>,
    asking: BTreeSet<u64>,
    /// A promise has ended or a link changed: logins that wait may go.
    pub(super) recheck: bool,
}

/// One of them.
#[derive(Debug)]
struct Stray {
    user: Text,
    class: Option<Class>,
    token: Option<TokenName>,
    /// Since the shard was told to register it.
    key: Option<Key>,
    phase: Phase,
    /// Peers with which it is claimed in the present generation.
    claims: BTreeMap<NodeId, Claimed>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Asking,
    /// The shard was told to register it.
    Told,
    Registered,
}

/// A claim of the present generation.
#[derive(Clone, Copy, Debug)]
struct Claimed {
    sent_at: Mono,
    /// The time that the home gave.
    acked: Option<u64>,
}

impl Strays {
    /// The claims of that link have ended with it.
    pub(super) fn link_down(&mut self, peer: &NodeId) {
        for stray in self.all.values_mut() {
            stray.claims.remove(peer);
        }
    }

    #[cfg(test)]
    pub(super) fn waiting(&self) -> usize {
        self.asking.len()
    }
}

impl Stray {
    fn new(user: Text, class: Option<Class>, token: Option<TokenName>) -> Self {
        Self { user, class, token, key: None, phase: Phase::Asking, claims: BTreeMap::new() }
    }

    fn claim(&self, number: u64) -> Claim {
        let key = self.key.clone().filter(|_| self.phase == Phase::Registered);
        Claim { number, user: self.user.clone(), class: self.class, token: self.token, key }
    }
}

impl Node {
    /// A login that its shard may not complete by itself.
    pub(super) fn login(&mut self, login: Login) {
        let serves = matches!(self.stage, Stage::Serving | Stage::Draining);
        let leased = self.now.mono < self.lease.until;
        if !serves || (!leased && self.linked().next().is_none()) {
            return self.mail(Mail::Refuse(login.number));
        }
        let number = login.number;
        self.strays.all.insert(number, Stray::new(login.user.clone(), login.class, login.token));
        self.strays.asking.insert(number);
        let promised = self.rules.hold(Rule::ClaimsForPromised);
        let home = self.placement.home(&login.user).cloned();
        let concerned = |id: &NodeId, peer: &Peer| {
            peer.up().is_some()
                && (home.as_ref() == Some(id) || (promised && peer.relies_on(id, &login.user)))
        };
        let homes: Vec<NodeId> =
            self.peers.iter().filter(|(id, peer)| concerned(id, peer)).map(|(id, _)| id.clone()).collect();
        for home in homes {
            self.claim_with(&home, number);
        }
        self.try_go(number);
    }

    fn claim_with(&mut self, home: &NodeId, number: u64) {
        let sent_at = self.now.mono;
        let Some(stray) = self.strays.all.get_mut(&number) else { return };
        stray.claims.insert(home.clone(), Claimed { sent_at, acked: None });
        let claim = stray.claim(number);
        self.send(home, Body::Claim(claim));
    }

    pub(super) fn claim_acked(&mut self, from: &NodeId, number: u64, time: u64) {
        let claim = self.strays.all.get_mut(&number).and_then(|stray| stray.claims.get_mut(from));
        if let Some(claim) = claim {
            claim.acked = Some(time);
            self.try_go(number);
        }
    }

    /// Homes whose ack a login of this user needs (C2).
    fn needs(&self, user: &str) -> impl Iterator<Item = &NodeId> {
        let ack = self.rules.hold(Rule::AckBeforeGo);
        let promised = self.rules.hold(Rule::ClaimsForPromised);
        let home = self.placement.home(user);
        self.peers
            .iter()
            .filter(move |(id, peer)| ack && peer.relies_on(id, user) && (promised || home == Some(id)))
            .map(|(id, _)| id)
    }

    /// Lets the login go if every home that may be relying on it has acked (C3).
    fn try_go(&mut self, number: u64) {
        let Some(stray) = self.strays.all.get(&number).filter(|stray| stray.phase == Phase::Asking) else {
            return;
        };
        let acked = |home: &NodeId| stray.claims.get(home).is_some_and(|claim| claim.acked.is_some());
        if !self.needs(&stray.user).all(acked) {
            return;
        }
        let given = stray.claims.values().filter_map(|claim| claim.acked).max();
        let unclaimed = stray.claims.is_empty() && !self.is_home(&stray.user);
        let time = match given {
            Some(time) => time,
            None => self.login_time(),
        };
        let key = Key { time, node: self.me.node_id.clone(), number };
        if let Some(stray) = self.strays.all.get_mut(&number) {
            stray.phase = Phase::Told;
            stray.key = Some(key.clone());
        }
        self.strays.asking.remove(&number);
        if unclaimed {
            self.count(Count::Unclaimed);
        }
        self.mail(Mail::Register(number, key));
    }

    /// Looks again at every login that waits, if a promise has ended since.
    pub(super) fn let_go(&mut self) {
        if !std::mem::take(&mut self.strays.recheck) {
            return;
        }
        let asking: Vec<u64> = self.strays.asking.iter().copied().collect();
        for number in asking {
            self.try_go(number);
        }
    }

    /// A shard has registered a connection.
    pub(super) fn registered(&mut self, resident: Resident) {
        self.floor = self.floor.max(resident.key.time);
        let Some(stray) = self.strays.all.get_mut(&resident.number) else {
            return self.judge_resident(&resident);
        };
        stray.phase = Phase::Registered;
        stray.key = Some(resident.key.clone());
        let homes: Vec<NodeId> = stray.claims.keys().cloned().collect();
        for home in homes {
            self.send(&home, Body::Confirm { number: resident.number, key: resident.key.clone() });
        }
        self.judge_resident(&resident);
    }

    /// A connection has ended.
    pub(super) fn gone(&mut self, number: u64) {
        self.strays.asking.remove(&number);
        let Some(stray) = self.strays.all.remove(&number) else { return };
        for home in stray.claims.keys() {
            self.send(home, Body::Unclaim(number));
        }
    }

    /// Residents who belong elsewhere under a placement that shards now act by.
    pub(super) fn add_residents(&mut self, residents: Vec<Resident>) {
        for Resident { number, user, class, token, key } in residents {
            self.strays.all.entry(number).or_insert_with(|| Stray {
                key: Some(key),
                phase: Phase::Registered,
                ..Stray::new(user, class, token)
            });
        }
    }

    /// Claims all that belongs to `home` under the present placement, then promises it (M3, L1).
    pub(super) fn promise(&mut self, home: &NodeId) {
        let belongs = |stray: &Stray| {
            !stray.claims.contains_key(home) && self.placement.home(&stray.user) == Some(home)
        };
        let numbers: Vec<u64> =
            self.strays.all.iter().filter(|(_, stray)| belongs(stray)).map(|(number, _)| *number).collect();
        for number in numbers {
            self.claim_with(home, number);
        }
        let placement = Rc::clone(&self.placement);
        let fingerprint = placement.fingerprint();
        let Some(peer) = self.peers.get_mut(home) else { return };
        if !self.rules.hold(Rule::PromisesAcked) {
            peer.promises.clear();
        }
        peer.promised += 1;
        let number = peer.promised;
        peer.promises.push(Promise { number, placement });
        let lags = peer.promises.len() > PROMISES_MAX;
        self.send(home, Body::Declare { number, fingerprint });
        if lags {
            self.count(Count::LaggingLink);
            self.end_link(home);
        }
        self.strays.recheck = true;
    }

    /// The home has replaced every promise before `number`.
    pub(super) fn declare_acked(&mut self, from: &NodeId, number: u64) {
        let Some(peer) = self.peers.get_mut(from) else { return };
        peer.promises.retain(|promise| promise.number >= number);
        self.strays.recheck = true;
        self.unclaim_what_left(from);
    }

    /// Takes back claims of connections that belong to `home` under no promise any more.
    fn unclaim_what_left(&mut self, home: &NodeId) {
        let Some(peer) = self.peers.get(home) else { return };
        let left = |stray: &Stray| stray.claims.contains_key(home) && !peer.relies_on(home, &stray.user);
        let numbers: Vec<u64> =
            self.strays.all.iter().filter(|(_, stray)| left(stray)).map(|(number, _)| *number).collect();
        for number in numbers {
            if let Some(stray) = self.strays.all.get_mut(&number) {
                stray.claims.remove(home);
            }
            self.send(home, Body::Unclaim(number));
        }
    }

    /// Promises whose home can no longer be using them (L5).
    pub(super) fn void_promises(&mut self) {
        let now = self.now.mono;
        for peer in self.peers.values_mut() {
            if peer.void_at.is_some_and(|at| at <= now) {
                peer.void_at = None;
                peer.promises.clear();
                self.strays.recheck = true;
            }
        }
    }

    /// Once every promise in force is for the present placement, the shards need no other (S2).
    pub(super) fn trim(&mut self) {
        let present = self.fingerprint();
        let mut promises = self.peers.values().flat_map(|peer| &peer.promises);
        if self.untrimmed
            && self.next.is_none()
            && (promises.all(|promise| promise.placement.fingerprint() == present)
                || !self.rules.hold(Rule::TrimAfterAck))
        {
            self.untrimmed = false;
            self.mail(Mail::Only(self.placed_epoch));
        }
    }

    /// Links on which a login's ack has stayed out for too long (C4).
    pub(super) fn end_lagging_links(&mut self) {
        let now = self.now.mono;
        let mut lagging = BTreeSet::new();
        for stray in self.strays.asking.iter().filter_map(|number| self.strays.all.get(number)) {
            let late = |claim: &Claimed| claim.acked.is_none() && now.since_ms(claim.sent_at) >= VOID_MS;
            lagging.extend(stray.claims.iter().filter(|(_, claim)| late(claim)).map(|(id, _)| id.clone()));
        }
        for home in lagging {
            self.count(Count::LaggingLink);
            self.end_link(&home);
        }
    }
}
