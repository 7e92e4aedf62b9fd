//! Which addresses of other nodes this node should serve: those of nodes that are dead, so that clients that know only
//! such an address reach somebody (issue "Several nodes", point 7).
//!
//! Views and orders in, a set of addresses out; the main thread makes it true (`node/adopt.rs`). Every node that has
//! the same view and the same list comes to the same answer: the active member that stands first in the rendezvous
//! order of the dead node's id takes all its addresses. What always holds: an address of a member that is active,
//! joining or draining is held by an order only, and nothing is held while this node empties itself.
#![deny(clippy::indexing_slicing, clippy::iter_over_hash_type, clippy::expect_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use crate::limits::ADOPT_ABSENT_MS;
use crate::placement::rendezvous::{Key, Score};
use crate::placement::view::{Incarnation, Member, MemberState, NodeId, View};
use crate::time::Mono;

/// An address that clients of a node know.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Claim {
    /// Whose it is.
    pub node: NodeId,
    /// What its clients dial.
    pub address: SocketAddr,
}

/// What an operator has said of a node, until it comes back in a new life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Said {
    takes: bool,
    /// The life that the view had of it then.
    life: Option<Incarnation>,
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub struct Adoption {
    me: Option<NodeId>,
    /// `cluster.adopt`.
    listed: Vec<Claim>,
    /// Whether members' own addresses count, too.
    members: bool,
    /// Addresses that members had in the last view with them.
    learned: BTreeMap<NodeId, SocketAddr>,
    /// Listed or learned nodes that the view lacks, and since when.
    absent: BTreeMap<NodeId, Mono>,
    said: BTreeMap<NodeId, Said>,
    view: Option<View>,
}

impl Adoption {
    /// For this node. `members`: an address in a member's `ws_url` counts as if it were listed.
    pub fn new(me: Option<NodeId>, listed: Vec<Claim>, members: bool) -> Self {
        Self { me, listed, members, ..Self::default() }
    }

    /// Takes a view.
    pub fn see(&mut self, now: Mono, view: View) {
        for member in view.members() {
            if let Some(address) = address_of(&member.ws_url).filter(|_| self.members) {
                self.learned.insert(member.node_id.clone(), address);
            }
        }
        let first = self.view.is_none();
        self.said.retain(|node, said| {
            let Some(member) = view.member(node) else { return true };
            match said.life {
                Some(life) => member.incarnation <= life,
                // It was not there when the order came, so this life is new; but not if there was no view to look at.
                None => {
                    said.life = Some(member.incarnation);
                    first || member.state == MemberState::Lost
                }
            }
        });
        let known: BTreeSet<NodeId> = self.nodes().cloned().collect();
        self.absent.retain(|node, _| known.contains(node) && view.member(node).is_none());
        for node in known {
            if view.member(&node).is_none() {
                self.absent.entry(node).or_insert(now);
            }
        }
        self.view = Some(view);
    }

    /// An operator's order to take over what is known of a node. Stands until [`Adoption::release`], or until the
    /// node is seen in a new life.
    ///
    /// # Errors
    /// It is this node, or no address of it is known.
    pub fn take(&mut self, node: &NodeId) -> Result<(), String> {
        self.say(node, true)
    }

    /// An operator's order not to hold them, until [`Adoption::take`], or until the node is seen in a new life.
    ///
    /// # Errors
    /// As [`Adoption::take`].
    pub fn release(&mut self, node: &NodeId) -> Result<(), String> {
        self.say(node, false)
    }

    fn say(&mut self, node: &NodeId, takes: bool) -> Result<(), String> {
        if self.me.as_ref() == Some(node) {
            return Err(format!("{node} is this node: its addresses are its own"));
        }
        if self.claims().all(|claim| claim.node != *node) {
            let known: BTreeSet<&str> = self.nodes().map(NodeId::as_str).collect();
            let known = known.into_iter().collect::<Vec<_>>().join(", ");
            return Err(match known.as_str() {
                "" => "no address of another node is known: set cluster.adopt".to_owned(),
                known => {
                    format!("no address of {node} is known (cluster.adopt); of these there is one: {known}")
                }
            });
        }
        let life = self.view.as_ref().and_then(|view| view.member(node)).map(|member| member.incarnation);
        self.said.insert(node.clone(), Said { takes, life });
        Ok(())
    }

    /// The addresses that may be taken over, known by now.
    pub fn claims(&self) -> impl Iterator<Item = Claim> {
        let learned =
            self.learned.iter().map(|(node, address)| Claim { node: node.clone(), address: *address });
        let mine = |claim: &Claim| self.me.as_ref() == Some(&claim.node);
        self.listed.iter().cloned().chain(learned).filter(move |claim| !mine(claim))
    }

    /// The addresses to hold now.
    pub fn held(&self, now: Mono) -> BTreeSet<Claim> {
        self.claims().filter(|claim| self.holds(now, &claim.node)).collect()
    }

    /// When [`Adoption::held`] may change without anything being told. `None`: never.
    pub fn next(&self, now: Mono) -> Option<Mono> {
        let ripe = self.absent.values().map(|since| since.plus_ms(ADOPT_ABSENT_MS));
        ripe.filter(|at| *at > now).min()
    }

    fn holds(&self, now: Mono, node: &NodeId) -> bool {
        if let Some(said) = self.said.get(node) {
            return said.takes;
        }
        let Some(view) = &self.view else { return false };
        let dead = match view.member(node) {
            Some(member) => member.state == MemberState::Lost,
            None => {
                let since = self.absent.get(node);
                since.is_some_and(|since| now.since_ms(*since) >= ADOPT_ABSENT_MS)
            }
        };
        dead && self.me.is_some() && heir(view, node) == self.me.as_ref()
    }

    fn nodes(&self) -> impl Iterator<Item = &NodeId> {
        self.listed.iter().map(|claim| &claim.node).chain(self.learned.keys())
    }
}

/// The active member that takes a node's addresses over: the first in the rendezvous order of its id.
pub fn heir<'v>(view: &'v View, node: &NodeId) -> Option<&'v NodeId> {
    let dead = Key::new(node.as_str());
    let score = |member: &Member| Score::new(dead, Key::new(member.node_id.as_str()), member.weight);
    let others = view.active().filter(|member| member.node_id != *node);
    let first = others.min_by(|a, b| score(a).order(score(b)).then_with(|| a.node_id.cmp(&b.node_id)));
    first.map(|member| &member.node_id)
}

/// The address in a URL of a member, if it is one and no name: `ws://IP[:PORT]/...`, `wss://` likewise.
pub fn address_of(ws_url: &str) -> Option<SocketAddr> {
    let (rest, port) = match ws_url.strip_prefix("ws://") {
        Some(rest) => (rest, 80),
        None => (ws_url.strip_prefix("wss://")?, 443),
    };
    let host = rest.split(['/', '?', '#']).next()?;
    let without_port = || host.trim_start_matches('[').trim_end_matches(']').parse().ok();
    host.parse().ok().or_else(|| Some(SocketAddr::new(without_port()?, port)))
}

#[cfg(test)]
#[path = "adoption_tests.rs"]
mod tests;
