//! Who is in the cluster, as one immutable version: identities, states, weights, addresses (routing-protocol.md 3).
//!
//! A node is known by its `node_id`; addresses are attributes and are never hashed. Where a user belongs follows from
//! the active members (`placement`); whether a view may be acted on at once is `acceptor`'s question; who reads the
//! source (etcd, Kubernetes, a list) is in `control`. What always holds: the members of a view are in the order of
//! their ids, each id once.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::ids::{Ownership, ShardId, Text};
use crate::limits::{NODE_ID_BYTES, WEIGHT_MAX};

/// The stable name of a node: a pod's name, or what the operator gave. Cloning copies no bytes.
///
/// ASCII letters, digits, `-`, `_` and `.`, the first a letter or digit; at most [`NODE_ID_BYTES`] bytes. So it fits
/// an etcd key, a metric's label and a line of text as it is.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct NodeId(Text);

/// Why a text is no [`NodeId`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadNodeId {
    /// Nothing there.
    Empty,
    /// So many bytes.
    TooLong(usize),
    /// Starts with this character.
    Start(char),
    /// Contains this character.
    Character(char),
}

/// One life of a node. A higher one of the same id is later, and the lower is dead.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Incarnation(pub u64);

/// The version of a view: totally ordered within one source (etcd: the revision).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Epoch(pub u64);

/// A node's share of the users, relative to the others': 1 to [`WEIGHT_MAX`], default 100.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct Weight(u16);

/// What a member is doing. The columns are those of routing-protocol.md section 3.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MemberState {
    /// Has not passed its barrier: accounted, not in placement, not fit.
    Joining,
    /// In placement, accounted, may be fit.
    Active,
    /// Leaves: accounted, may be fit, not in placement.
    Draining,
    /// Its lease ended and nothing proves that it is empty: accounted, not in placement, not fit.
    Lost,
}

/// A node as the membership has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Who it is.
    pub node_id: NodeId,
    /// Which life.
    pub incarnation: Incarnation,
    /// The first epoch with this incarnation.
    pub first_epoch: Epoch,
    /// The epoch of its newest registration.
    pub registered_epoch: Epoch,
    /// What it is doing.
    pub state: MemberState,
    /// Its share of the users.
    pub weight: Weight,
    /// What clients dial: the URL that the assign API hands out. Empty: it hands out none.
    #[serde(default)]
    pub ws_url: String,
    /// What peers dial, `HOST:PORT`. Empty: unknown.
    #[serde(default)]
    pub rpc_addr: String,
    /// `name=value` pairs that rules of the assign API ask for (`region=eu`), in order.
    #[serde(default)]
    pub labels: Vec<(String, String)>,
}

/// One version of the membership.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct View {
    epoch: Epoch,
    members: Vec<Member>,
}

impl View {
    /// The members in any order. Of two records of one id the higher incarnation counts.
    pub fn new(epoch: Epoch, mut members: Vec<Member>) -> Self {
        members.sort_by(|a, b| (&a.node_id, b.incarnation).cmp(&(&b.node_id, a.incarnation)));
        members.dedup_by(|later, kept| later.node_id == kept.node_id);
        Self { epoch, members }
    }

    /// The users of a node and its shards: what the router knows today.
    pub fn of_one_node(ownership: Ownership) -> Local {
        Local { ownership }
    }

    /// Which version.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// All members in any state, by node id.
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// The member of that name.
    pub fn member(&self, node_id: &NodeId) -> Option<&Member> {
        let at = self.members.binary_search_by(|member| member.node_id.cmp(node_id)).ok()?;
        self.members.get(at)
    }

    /// The members in placement, by node id.
    pub fn active(&self) -> impl Iterator<Item = &Member> {
        self.members.iter().filter(|member| member.state == MemberState::Active)
    }
}

impl Member {
    /// An active member of default weight without addresses, in its first life.
    pub fn new(node_id: NodeId) -> Self {
        Self {
            node_id,
            incarnation: Incarnation(1),
            first_epoch: Epoch(1),
            registered_epoch: Epoch(1),
            state: MemberState::Active,
            weight: Weight::default(),
            ws_url: String::new(),
            rpc_addr: String::new(),
            labels: Vec::new(),
        }
    }

    /// Whether it carries this label.
    pub fn has_label(&self, name: &str, value: &str) -> bool {
        self.labels.iter().any(|(n, v)| n == name && v == value)
    }
}

impl NodeId {
    /// Checks the text.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn new(text: &str) -> Result<Self, BadNodeId> {
        let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        match text.chars().next() {
            None => return Err(BadNodeId::Empty),
            Some(first) if !first.is_ascii_alphanumeric() => return Err(BadNodeId::Start(first)),
            Some(_) => {}
        }
        if let Some(other) = text.chars().find(|&c| !good(c)) {
            return Err(BadNodeId::Character(other));
        }
        if text.len() > NODE_ID_BYTES {
            return Err(BadNodeId::TooLong(text.len()));
        }
        Ok(Self(Text::from(text)))
    }

    /// As text.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

impl TryFrom<String> for NodeId {
    type Error = BadNodeId;

    fn try_from(text: String) -> Result<Self, BadNodeId> {
        Self::new(&text)
    }
}

impl From<NodeId> for String {
    fn from(node_id: NodeId) -> Self {
        node_id.as_str().to_owned()
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for BadNodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("a node id has at least one character"),
            Self::TooLong(bytes) => {
                write!(f, "a node id has at most {NODE_ID_BYTES} bytes, this one {bytes}")
            }
            Self::Start(c) => write!(f, "a node id starts with a letter or digit, not with {c:?}"),
            Self::Character(c) => {
                write!(f, "a node id has letters, digits, '-', '_' and '.', not {c:?}")?;
                if *c == ':' { f.write_str("; an address is no identity") } else { Ok(()) }
            }
        }
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Weight {
    /// `None` outside 1..=[`WEIGHT_MAX`].
    pub fn new(weight: u32) -> Option<Self> {
        u16::try_from(weight).ok().filter(|weight| (1..=WEIGHT_MAX).contains(weight)).map(Self)
    }

    /// As a number.
    pub fn value(self) -> u16 {
        self.0
    }
}

impl Default for Weight {
    fn default() -> Self {
        Self(100)
    }
}

impl TryFrom<u32> for Weight {
    type Error = String;

    fn try_from(weight: u32) -> Result<Self, String> {
        Self::new(weight).ok_or_else(|| format!("a weight is from 1 to {WEIGHT_MAX}"))
    }
}

impl From<Weight> for u32 {
    fn from(weight: Weight) -> Self {
        Self::from(weight.0)
    }
}

impl MemberState {
    /// All four.
    pub const ALL: [Self; 4] = [Self::Joining, Self::Active, Self::Draining, Self::Lost];

    /// The word for it in records, files and messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Joining => "joining",
            Self::Active => "active",
            Self::Draining => "draining",
            Self::Lost => "lost",
        }
    }
}

/// The users of this node and the shards that own them.
#[derive(Clone, Debug)]
pub struct Local {
    ownership: Ownership,
}

/// Where a user belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// To this shard of this node.
    Here(ShardId),
}

impl Local {
    /// Where `user` belongs.
    pub fn place(&self, user: &str) -> Place {
        Place::Here(self.ownership.owner(user))
    }

    /// The shards of this node.
    pub fn shards(&self) -> impl Iterator<Item = ShardId> + use<> {
        (0..self.ownership.shards()).map(ShardId)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn node_ids_are_names_and_no_addresses() {
        let longest = "n".repeat(NODE_ID_BYTES);
        for good in ["a", "node-1", "g_7.eu", "0", &longest] {
            assert_eq!(NodeId::new(good).unwrap().as_str(), good);
        }
        for (bad, why) in [
            ("", BadNodeId::Empty),
            ("-a", BadNodeId::Start('-')),
            ("ä", BadNodeId::Start('ä')),
            ("10.0.0.7:88", BadNodeId::Character(':')),
            ("a b", BadNodeId::Character(' ')),
            ("nodes/a", BadNodeId::Character('/')),
            (&(longest.clone() + "n"), BadNodeId::TooLong(NODE_ID_BYTES + 1)),
        ] {
            assert_eq!(NodeId::new(bad), Err(why), "{bad}");
        }
        assert!(BadNodeId::Character(':').to_string().ends_with("an address is no identity"));
    }

    #[test]
    fn weights_are_1_to_10_000() {
        assert_eq!([0, 1, 10_000, 10_001].map(|w| Weight::new(w).is_some()), [false, true, true, false]);
        assert_eq!(Weight::default().value(), 100);
    }

    #[test]
    fn a_view_is_in_order_and_has_each_node_once_in_its_last_life() {
        let of = |name: &str, incarnation| Member {
            incarnation: Incarnation(incarnation),
            ..Member::new(NodeId::new(name).unwrap())
        };
        let view = View::new(Epoch(7), vec![of("b", 1), of("a", 3), of("b", 4), of("a", 2), of("c", 1)]);
        let seen: Vec<_> = view.members().iter().map(|m| (m.node_id.as_str(), m.incarnation.0)).collect();
        assert_eq!((view.epoch(), seen), (Epoch(7), vec![("a", 3), ("b", 4), ("c", 1)]));
        let find = |name: &str| view.member(&NodeId::new(name).unwrap()).map(|m| m.incarnation.0);
        assert_eq!([find("a"), find("b"), find("d")], [Some(3), Some(4), None]);
    }

    #[test]
    fn a_record_survives_json_and_a_bad_one_is_refused() {
        let mut member = Member::new(NodeId::new("n1").unwrap());
        member.state = MemberState::Draining;
        member.labels = vec![("region".into(), "eu".into())];
        let text = serde_json::to_string(&member).unwrap();
        assert!(text.contains(r#""state":"draining""#) && text.contains(r#""weight":100"#), "{text}");
        assert_eq!(serde_json::from_str::<Member>(&text).unwrap(), member);
        for (good, bad) in [(r#""n1""#, r#""n:1""#), (":100", ":0"), ("draining", "idle")] {
            assert!(serde_json::from_str::<Member>(&text.replace(good, bad)).is_err(), "{bad}");
        }
    }
}
