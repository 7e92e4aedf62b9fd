//! Where a user's home is: a function of his id and the active members of a view, the same on every node.
//!
//! Two algorithms: weighted rendezvous hashing over node ids (`rendezvous`, the default), and the ring of OpenIM 3.5
//! (`ring`) for fleets where its push or proxy still decides. What is hashed for a node is its id, or for the ring the
//! string that [`RingKeys`] makes of it; where a node is dialled is another matter and stands in the view. What always
//! holds: two placements with equal fingerprints place every user alike.

pub mod rendezvous;
pub mod ring;
pub mod view;

use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use rendezvous::{Key, Score};
use ring::Ring;
use view::{NodeId, View, Weight};

/// How users are placed. All nodes of a cluster must use the same.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Algorithm {
    /// Weighted rendezvous hashing of user id and node id.
    #[default]
    Rendezvous,
    /// OpenIM's ring over the strings that these rules make. Weights do not count.
    OpenImRing(RingKeys),
}

/// The string that stands for a node in OpenIM's ring: a text with `{node_id}` once.
///
/// An unmodified push hashes `{node_id}.RELEASE-openim-msggateway-headless.NAMESPACE.svc.cluster.local:88`, an
/// unmodified proxy the same without `:88` (spec 10.4); node ids are the pods' names there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RingKeys {
    before: String,
    after: String,
}

/// 64 bits that two nodes compare to know that they place alike.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Fingerprint(pub u64);

/// Homes under one algorithm and one set of active members. Written out as these two.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "(Algorithm, Vec<(NodeId, Weight)>)", into = "(Algorithm, Vec<(NodeId, Weight)>)")]
pub struct Placement {
    algorithm: Algorithm,
    fingerprint: Fingerprint,
    /// By node id; for the ring in the order in which they were added to it.
    seats: Vec<Seat>,
    ring: Option<Ring>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Seat {
    node_id: NodeId,
    key: Key,
    weight: Weight,
}

impl From<(Algorithm, Vec<(NodeId, Weight)>)> for Placement {
    fn from((algorithm, nodes): (Algorithm, Vec<(NodeId, Weight)>)) -> Self {
        Self::of(nodes, &algorithm)
    }
}

impl From<Placement> for (Algorithm, Vec<(NodeId, Weight)>) {
    fn from(placement: Placement) -> Self {
        let nodes = placement.seats.into_iter().map(|seat| (seat.node_id, seat.weight)).collect();
        (placement.algorithm, nodes)
    }
}

impl Placement {
    /// Homes among the active members of `view`.
    pub fn new(view: &View, algorithm: &Algorithm) -> Self {
        Self::of(view.active().map(|member| (member.node_id.clone(), member.weight)).collect(), algorithm)
    }

    /// Homes among these nodes, in any order, each once.
    pub fn of(mut nodes: Vec<(NodeId, Weight)>, algorithm: &Algorithm) -> Self {
        nodes.sort_unstable();
        let fingerprint = algorithm.fingerprint(&nodes);
        let seat =
            |(node_id, weight): (NodeId, Weight)| Seat { key: Key::new(node_id.as_str()), node_id, weight };
        let mut seats: Vec<Seat> = nodes.into_iter().map(seat).collect();
        let ring = match algorithm {
            Algorithm::Rendezvous => None,
            Algorithm::OpenImRing(keys) => {
                // OpenIM adds pod 2 before pod 10, and of equal points the last one counts.
                seats.sort_by(|a, b| {
                    (a.node_id.as_str().len(), &a.node_id).cmp(&(b.node_id.as_str().len(), &b.node_id))
                });
                let strings: Vec<String> = seats.iter().map(|seat| keys.string(&seat.node_id)).collect();
                Some(Ring::new(strings.iter().map(String::as_str)))
            }
        };
        Self { algorithm: algorithm.clone(), fingerprint, seats, ring }
    }

    /// What identifies it.
    pub fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    /// The nodes in it.
    pub fn nodes(&self) -> impl Iterator<Item = &NodeId> {
        self.seats.iter().map(|seat| &seat.node_id)
    }

    /// The node that `user` belongs to; `None`: no member is active.
    pub fn home(&self, user: &str) -> Option<&NodeId> {
        let seat = match &self.ring {
            Some(ring) => self.seats.get(ring.owner(user)?),
            None => {
                let user = Key::new(user);
                let scored = self.seats.iter().map(|seat| (Score::new(user, seat.key, seat.weight), seat));
                // Of equal scores the first stays: the smaller id.
                scored
                    .reduce(|best, next| if next.0.order(best.0).is_lt() { next } else { best })
                    .map(|(_, s)| s)
            }
        };
        seat.map(|seat| &seat.node_id)
    }

    /// The home and who would be it without those before, at most `n` nodes in all.
    pub fn ranked(&self, user: &str, n: usize) -> Vec<&NodeId> {
        if let Some(ring) = &self.ring {
            let seats = ring.ranked(user, n).into_iter().filter_map(|number| self.seats.get(number));
            return seats.map(|seat| &seat.node_id).collect();
        }
        let user = Key::new(user);
        let mut scored: Vec<(Score, &NodeId)> =
            self.seats.iter().map(|seat| (Score::new(user, seat.key, seat.weight), &seat.node_id)).collect();
        scored.sort_by(|a, b| a.0.order(b.0).then_with(|| a.1.cmp(b.1)));
        scored.into_iter().take(n).map(|(_, node_id)| node_id).collect()
    }

    /// The at most `n` nodes that come after the home, in the order in which they would be it.
    pub fn alternatives(&self, user: &str, n: usize) -> Vec<&NodeId> {
        let mut ranked = self.ranked(user, n.saturating_add(1));
        if !ranked.is_empty() {
            ranked.remove(0);
        }
        ranked
    }
}

impl View {
    /// Homes among the active members.
    pub fn placement(&self, algorithm: &Algorithm) -> Placement {
        Placement::new(self, algorithm)
    }
}

impl Algorithm {
    /// Name and version: a change of either places users anew.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Rendezvous => "rendezvous/1",
            Self::OpenImRing(_) => "openim-ring/1",
        }
    }

    /// The first 8 bytes, most significant first, of the SHA-256 of these lines, each ended by a line feed:
    /// `pinion-placement NAME/VERSION`; for the ring `key TEXT`, its key rule with `{node_id}`; for each active node in
    /// the order of the ids, byte by byte, `NODE_ID WEIGHT`. Nothing else (routing-protocol.md section 3).
    fn fingerprint(&self, nodes: &[(NodeId, Weight)]) -> Fingerprint {
        let mut text = format!("pinion-placement {}\n", self.name());
        if let Self::OpenImRing(keys) = self {
            text += &format!("key {keys}\n");
        }
        for (node_id, weight) in nodes {
            text += &format!("{node_id} {}\n", weight.value());
        }
        let digest: [u8; 32] = Sha256::digest(text.as_bytes()).into();
        let [a, b, c, d, e, f, g, h, ..] = digest;
        Fingerprint(u64::from_be_bytes([a, b, c, d, e, f, g, h]))
    }
}

impl RingKeys {
    /// What stands for the node's id in the text.
    pub const NODE_ID: &'static str = "{node_id}";

    /// Reads the text. `None`: `{node_id}` is not in it exactly once, or a line ends in it.
    pub fn parse(text: &str) -> Option<Self> {
        let (before, after) = text.split_once(Self::NODE_ID)?;
        let once = !after.contains(Self::NODE_ID) && !text.contains(['\n', '\r']);
        once.then(|| Self { before: before.to_owned(), after: after.to_owned() })
    }

    /// What [`RingKeys::parse`] reads.
    pub fn text(&self) -> String {
        format!("{}{}{}", self.before, Self::NODE_ID, self.after)
    }

    /// The string of a node.
    pub fn string(&self, node_id: &NodeId) -> String {
        format!("{}{node_id}{}", self.before, self.after)
    }
}

impl fmt::Display for RingKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}{}", self.before, Self::NODE_ID, self.after)
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

#[cfg(test)]
#[path = "placement_tests.rs"]
mod tests;
