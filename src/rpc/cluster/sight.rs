//! How this node stands among others, in words for operators: what `/readyz` adds, and the JSON of `GET /v1/cluster`.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{Mesh, source_name};
use crate::cluster::protocol::Node;
use crate::config::cluster::{MembershipSource, PushMode};
use crate::limits::CLUSTER_CLASH_MS;
use crate::placement::Algorithm;
use crate::placement::view::{Incarnation, Member, MemberState, NodeId};
use crate::shard::clock;
use crate::time::Mono;

/// What it means that a node is not linked, and what to do; its name follows.
const MISSED: &str = "pushes are not complete; if it is dead for good: pinion forget ";

/// The answer to `GET /v1/cluster`. `pinion route diff http://A http://B` reads it: fields are added, never renamed or
/// taken out, and what is said below stays true.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(in crate::rpc) struct ClusterView {
    /// This node's id.
    node_id: NodeId,
    /// Of this process; 0: not registered yet.
    incarnation: u64,
    /// `static`, `etcd` or `kubernetes`.
    source: &'static str,
    /// `local` or `route`.
    push_mode: &'static str,
    /// Version of the members below; 0: none was read yet.
    epoch: u64,
    placement: PlacementView,
    /// Whether clients are accepted: the first barrier is passed.
    open: bool,
    /// Whether this node may say that a push is complete.
    fit: bool,
    /// Whether its lease holds.
    leased: bool,
    /// Whom the barrier waits for.
    waits_for: Vec<NodeId>,
    /// Nodes whose connections cannot be asked for now: pushes are not complete.
    unlinked: Vec<NodeId>,
    /// All members, by id.
    members: Vec<MemberView>,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
struct PlacementView {
    /// As in `cluster.placement`: `rendezvous` or `ring TEXT`.
    algorithm: String,
    /// With its version.
    version: &'static str,
    /// 16 hex digits; equal: users are placed alike.
    fingerprint: String,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
struct MemberView {
    /// `node_id`, `incarnation`, `first_epoch`, `registered_epoch`, `state` (`joining`, `active`, `draining`, `lost`),
    /// `weight`, `ws_url`, `rpc_addr`, `labels` (pairs).
    #[serde(flatten)]
    member: Member,
    /// The life that had a link with this node last; absent: none had. With a static list, which knows no lives, it is
    /// the one to name in `POST /v1/forget`.
    #[serde(skip_serializing_if = "Option::is_none")]
    greeted: Option<u64>,
    /// Whether the link to it is up; of this node itself: false.
    linked: bool,
    /// Why it is not, as it was last seen.
    #[serde(skip_serializing_if = "Option::is_none")]
    why_not: Option<String>,
}

impl Mesh {
    /// See [`ClusterView`].
    pub(in crate::rpc) fn view(&self) -> ClusterView {
        self.tick(); // so that "fit" is of now
        let now = clock::now().mono;
        let shared = &self.shared;
        let driver = shared.driver.borrow();
        let node = driver.node();
        let algorithm = &shared.config.placement;
        let linked: Vec<&NodeId> = node.into_iter().flat_map(Node::linked).collect();
        let refusals = shared.refusals.borrow();
        let member = |member: &Member| {
            let linked = linked.contains(&&member.node_id);
            let why_not = refusals.get(&member.node_id).filter(|_| !linked).cloned();
            let greeted = node.and_then(|node| node.greeted(&member.node_id)).map(|life| life.0);
            MemberView { member: member.clone(), greeted, linked, why_not }
        };
        ClusterView {
            node_id: shared.own.clone(),
            incarnation: node.map_or(0, |node| node.identity().incarnation.0),
            source: source_name(shared.config.source),
            push_mode: push_mode_name(shared.config.push_mode),
            epoch: node.map_or(0, |node| node.view().epoch().0),
            placement: PlacementView {
                algorithm: algorithm_text(algorithm),
                version: algorithm.name(),
                fingerprint: node.map_or_else(String::new, |node| node.placement().fingerprint().to_string()),
            },
            open: driver.opened(),
            fit: node.is_some_and(Node::fit),
            leased: node.is_some_and(|node| node.leased(now)),
            waits_for: node.into_iter().flat_map(Node::awaited).cloned().collect(),
            unlinked: node.map(Node::unlinked).unwrap_or_default(),
            members: node.into_iter().flat_map(|node| node.view().members()).map(member).collect(),
        }
    }

    /// Whether an operator's word that this life of a node has ended can be taken: pushes are complete without its
    /// clients then. What was said before may be said again.
    ///
    /// # Errors
    /// The node lives as far as is seen here, or there is no such life; in words for operators.
    pub(super) fn forgettable(&self, id: &NodeId, life: Incarnation) -> Result<(), String> {
        let shared = &self.shared;
        let driver = shared.driver.borrow();
        let Some(node) = driver.node() else {
            return Err("no members are known here yet; /readyz says what this node waits for".to_owned());
        };
        if *id == shared.own {
            return Err(format!("{id} is this node, which lives"));
        }
        let (listed, greeted) = (node.view().member(id).map(|member| member.incarnation), node.greeted(id));
        if greeted == Some(life) && node.linked().any(|linked| linked == id) {
            return Err(format!("{id} lives: this node is linked to it; end its process first"));
        }
        let runs =
            listed == Some(life) && node.view().member(id).is_some_and(|m| m.state != MemberState::Lost);
        let source = shared.config.source;
        if runs && source != MembershipSource::Static && node.leased(clock::now().mono) {
            return Err(format!(
                "{id} lives as far as {} knows, where its lease runs; if it is dead it is lost within \
                 cluster.lease_ms: say it then",
                source_name(source)
            ));
        }
        if [listed, greeted].contains(&Some(life)) || node.ended(id).is_some_and(|gone| gone >= life) {
            return Ok(());
        }
        Err(match greeted.or(listed) {
            Some(known) => format!(
                "{id} has incarnation {} here, not {}; look at GET /v1/cluster again",
                known.0, life.0
            ),
            None => {
                let others = node.view().members().iter().filter(|member| member.node_id != shared.own);
                let others: Vec<&str> = others.map(|member| member.node_id.as_str()).collect();
                format!("no node {id} is known here; the others are {}", others.join(", "))
            }
        })
    }

    /// Why clients are not accepted yet; `None`: they are.
    pub(in crate::rpc) fn waits(&self) -> Option<String> {
        let driver = self.shared.driver.borrow();
        if driver.opened() {
            return None;
        }
        let Some(node) = driver.node() else {
            let source = source_name(self.shared.config.source);
            let why = driver.trouble().map(|why| format!(": {why}")).unwrap_or_default();
            return Some(format!(
                "cluster: not registered with the members yet (cluster.source {source}){why}"
            ));
        };
        let refusals = self.shared.refusals.borrow();
        let named = |id: &NodeId| match refusals.get(id) {
            Some(why) => format!("{id} ({why})"),
            None => id.to_string(),
        };
        let awaited: Vec<String> = node.awaited().map(named).collect();
        Some(match awaited.as_slice() {
            [] => "cluster: waits for the list of members".to_owned(),
            _ => format!("cluster: waits for a link to {}", awaited.join(", ")),
        })
    }

    /// Why this node should get no new clients.
    pub(in crate::rpc) fn not_ready(&self) -> Option<String> {
        if let Some(why) = self.waits() {
            return Some(why + "\n");
        }
        self.tick();
        let now = clock::now().mono;
        let driver = self.shared.driver.borrow();
        let node = driver.node()?;
        if !node.leased(now) {
            let why = driver.trouble().map(|why| format!(": {why}")).unwrap_or_default();
            return Some(format!("cluster: the lease has ended; no push is called complete{why}\n"));
        }
        (!node.fit()).then(|| {
            let awaited: Vec<&str> = node.awaited().map(NodeId::as_str).collect();
            format!("cluster: not fit: registered anew and waits for {}\n", awaited.join(", "))
        })
    }

    /// What is not as it should be though clients are served: other nodes that cannot be asked, nodes that are not in
    /// this one's list, lists that differ, and what the source says.
    pub(in crate::rpc) fn remarks(&self) -> String {
        let shared = &self.shared;
        let driver = shared.driver.borrow();
        let mut lines: Vec<String> = driver.trouble().map(str::to_owned).into_iter().collect();
        let Some(node) = driver.node() else { return remark(lines) };
        let refusals = shared.refusals.borrow();
        lines.extend(node.unlinked().into_iter().map(|id| match refusals.get(&id) {
            Some(why) => format!("not linked to {id} ({why}): {MISSED}{id}"),
            None => format!("not linked to {id}: {MISSED}{id}"),
        }));
        lines.extend(recent_clashes(&shared.clashes.borrow(), clock::now().mono));
        let (lists, own) = (shared.config.source == MembershipSource::Static, node.placement().fingerprint());
        let said = shared.said.borrow();
        for id in node.linked() {
            if lists && node.view().member(id).is_none() {
                lines.push(format!(
                    "linked to {id}, which cluster.members of this node does not have: add its line"
                ));
            } else if let Some(other) = said.get(id).filter(|other| **other != own) {
                lines.push(format!(
                    "{id} places users by other members than this node ({other}, here {own}): each push asks it; if \
                     this stays, compare both: pinion route diff"
                ));
            }
        }
        remark(lines)
    }
}

/// Peers of which two processes were seen within `CLUSTER_CLASH_MS`, in words.
fn recent_clashes(clashes: &BTreeMap<NodeId, (String, Mono)>, now: Mono) -> Vec<String> {
    let recent = clashes.values().filter(|(_, at)| now.since_ms(*at) < CLUSTER_CLASH_MS);
    recent.map(|(why, _)| why.clone()).collect()
}

/// One line each, as in `/readyz`.
fn remark(lines: Vec<String>) -> String {
    lines.into_iter().map(|line| format!("cluster: {line}\n")).collect()
}

fn push_mode_name(mode: PushMode) -> &'static str {
    match mode {
        PushMode::Local => "local",
        PushMode::Route => "route",
    }
}

fn algorithm_text(algorithm: &Algorithm) -> String {
    match algorithm {
        Algorithm::Rendezvous => "rendezvous".to_owned(),
        Algorithm::OpenImRing(keys) => format!("ring {}", keys.text()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_processes_of_one_name_are_spoken_of_for_so_long() {
        let seen = |name: &str, at| (NodeId::new(name).unwrap(), (format!("two are named {name}"), Mono(at)));
        let clashes = BTreeMap::from([seen("a", 1_000), seen("b", 1_001)]);
        let said = |ms| recent_clashes(&clashes, Mono(1_000 + ms));
        assert_eq!(said(CLUSTER_CLASH_MS - 1), ["two are named a", "two are named b"]);
        assert_eq!(said(CLUSTER_CLASH_MS), ["two are named b"], "the other one was seen later");
        assert!(said(CLUSTER_CLASH_MS + 1).is_empty());
    }
}
