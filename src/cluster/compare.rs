//! What two member lists make of the same users, and what a change of one list would do. Pure: `pinion route` prints.
//!
//! Two sides that route by different lists look for a user at different nodes. With OpenIM's ring that is incident 2:
//! the push asks a gateway that does not have him. Between Pinion's nodes it costs a message, since the node that is
//! asked knows the home or asks everybody (routing-protocol.md P2, P5).

use std::collections::BTreeMap;
use std::fmt;

use super::members::{Listed, MemberList, Scheme};
use crate::placement::view::{MemberState, NodeId};

/// How differently two lists route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Users compared.
    pub users: usize,
    /// Of them at another node in the second list.
    pub elsewhere: usize,
    /// Why that can be; empty: the lists place alike.
    pub reasons: Vec<Reason>,
}

/// Something in which two lists differ and which moves users. The first value is that of the first list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// They place by different algorithms.
    Scheme(Scheme, Scheme),
    /// They have so many active members.
    Count(usize, usize),
    /// So many nodes are hashed with a port in one list only; an example of both strings.
    Port {
        /// Nodes.
        nodes: usize,
        /// In the first list.
        first: String,
        /// In the second.
        second: String,
    },
    /// So many nodes are hashed as different strings; an example of both.
    String {
        /// Nodes.
        nodes: usize,
        /// In the first list.
        first: String,
        /// In the second.
        second: String,
    },
    /// The weights of this node.
    Weight(NodeId, u16, u16),
    /// The states of this node, one of which is not in placement.
    State(NodeId, MemberState, MemberState),
    /// Only the first list has it.
    OnlyFirst(NodeId),
    /// Only the second list has it.
    OnlySecond(NodeId),
}

/// What a change of the members does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rehearsal {
    /// Users looked at.
    pub users: usize,
    /// Of them with another home afterwards.
    pub moved: usize,
    /// By node, those of both lists.
    pub loads: BTreeMap<NodeId, NodeLoad>,
}

/// Users of one node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NodeLoad {
    /// At home there before.
    pub before: usize,
    /// At home there afterwards.
    pub after: usize,
    /// Of those, who come from elsewhere.
    pub arriving: usize,
}

impl Difference {
    /// Compares where `users` are.
    pub fn of<U: AsRef<str>>(
        first: &MemberList,
        second: &MemberList,
        users: impl Iterator<Item = U>,
    ) -> Self {
        let (a, b) = (first.homes(), second.homes());
        let (mut count, mut elsewhere) = (0, 0);
        for user in users {
            count += 1;
            elsewhere += usize::from(a.home(user.as_ref()) != b.home(user.as_ref()));
        }
        Self { users: count, elsewhere, reasons: reasons(first, second) }
    }

    /// The share of users that are elsewhere, 0 to 1; 0 if there are none.
    pub fn share(&self) -> f64 {
        share(self.elsewhere, self.users)
    }
}

impl Rehearsal {
    /// What becomes of `users` when `before` is replaced by `after`.
    pub fn of<U: AsRef<str>>(
        before: &MemberList,
        after: &MemberList,
        users: impl Iterator<Item = U>,
    ) -> Self {
        let (was, will) = (before.homes(), after.homes());
        let nodes = before.active().chain(after.active()).map(|listed| listed.member.node_id.clone());
        let mut loads: BTreeMap<NodeId, NodeLoad> = nodes.map(|node| (node, NodeLoad::default())).collect();
        let (mut count, mut moved) = (0, 0);
        for user in users {
            count += 1;
            let (from, to) = (was.home(user.as_ref()), will.home(user.as_ref()));
            moved += usize::from(from != to);
            if let Some(load) = from.and_then(|node| loads.get_mut(node)) {
                load.before += 1;
            }
            if let Some(load) = to.and_then(|node| loads.get_mut(node)) {
                load.after += 1;
                load.arriving += usize::from(from != to);
            }
        }
        Self { users: count, moved, loads }
    }

    /// The node with most users afterwards, and how many times the mean of all nodes that is.
    pub fn peak(&self) -> Option<(&NodeId, f64)> {
        let staying = self.loads.values().filter(|load| load.after > 0).count();
        let (node, load) = self.loads.iter().max_by_key(|(_, load)| load.after)?;
        (staying > 0).then(|| (node, share(load.after.saturating_mul(staying), self.users)))
    }
}

/// A part of a whole, 0 if that is nothing.
#[expect(clippy::cast_precision_loss, reason = "counts of users are far below 2^52")]
pub fn share(part: usize, whole: usize) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

fn reasons(first: &MemberList, second: &MemberList) -> Vec<Reason> {
    let mut reasons = Vec::new();
    if first.scheme != second.scheme {
        reasons.push(Reason::Scheme(first.scheme, second.scheme));
    }
    let (count, other_count) = (first.active().count(), second.active().count());
    if count != other_count {
        reasons.push(Reason::Count(count, other_count));
    }
    let by_node = |list: &MemberList| -> BTreeMap<NodeId, Listed> {
        list.members.iter().map(|listed| (listed.member.node_id.clone(), listed.clone())).collect()
    };
    let (a, b) = (by_node(first), by_node(second));
    if first.scheme == Scheme::OpenImRing && second.scheme == Scheme::OpenImRing {
        reasons.extend(strings(&a, &b));
    }
    for (node, listed) in &a {
        match b.get(node) {
            Some(other) => reasons.extend(attributes(listed, other, first.scheme)),
            None if listed.is_active() => reasons.push(Reason::OnlyFirst(node.clone())),
            None => {}
        }
    }
    let added = b.iter().filter(|(node, listed)| listed.is_active() && !a.contains_key(*node));
    reasons.extend(added.map(|(node, _)| Reason::OnlySecond(node.clone())));
    reasons
}

/// Weight and state of a node in both lists.
fn attributes(a: &Listed, b: &Listed, scheme: Scheme) -> Vec<Reason> {
    let node = || a.member.node_id.clone();
    let mut reasons = Vec::new();
    if a.is_active() != b.is_active() {
        reasons.push(Reason::State(node(), a.member.state, b.member.state));
    }
    if scheme == Scheme::Rendezvous && a.member.weight != b.member.weight {
        reasons.push(Reason::Weight(node(), a.member.weight.value(), b.member.weight.value()));
    }
    reasons
}

/// The nodes whose hashed strings differ, in two groups with an example each.
fn strings(a: &BTreeMap<NodeId, Listed>, b: &BTreeMap<NodeId, Listed>) -> Vec<Reason> {
    let both =
        a.iter().filter_map(|(node, listed)| Some((listed.hashed.as_str(), b.get(node)?.hashed.as_str())));
    let port_only = |(first, second): &(&str, &str)| {
        let rest = first.strip_prefix(second).or_else(|| second.strip_prefix(first));
        rest.is_some_and(|rest| rest.starts_with(':'))
    };
    let (ports, others): (Vec<_>, Vec<_>) =
        both.filter(|(first, second)| first != second).partition(port_only);
    let example = |found: &[(&str, &str)]| {
        found.first().map(|&(first, second)| (found.len(), first.to_owned(), second.to_owned()))
    };
    let ports = example(&ports).map(|(nodes, first, second)| Reason::Port { nodes, first, second });
    let others = example(&others).map(|(nodes, first, second)| Reason::String { nodes, first, second });
    ports.into_iter().chain(others).collect()
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Scheme(a, b) => write!(f, "A places by {}, B by {}", a.name(), b.name()),
            Self::Count(a, b) => {
                write!(
                    f,
                    "A counts {a} active members, B {b}: a replica count that differs, or one side that is stale"
                )
            }
            Self::Port { nodes, first, second } => {
                write!(f, "{nodes} nodes are hashed with a port on one side only: A {first}, B {second}")
            }
            Self::String { nodes, first, second } => {
                write!(f, "{nodes} nodes are hashed as different strings: A {first}, B {second}")
            }
            Self::Weight(node, a, b) => write!(f, "{node} weighs {a} in A, {b} in B"),
            Self::State(node, a, b) => write!(f, "{node} is {} in A, {} in B", a.name(), b.name()),
            Self::OnlyFirst(node) => write!(f, "{node} is only in A"),
            Self::OnlySecond(node) => write!(f, "{node} is only in B"),
        }
    }
}

#[cfg(test)]
#[path = "compare_tests.rs"]
mod tests;
