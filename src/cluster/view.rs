//! Who is in the cluster and where a user belongs, as one immutable version. Today a view has one member: this node.

use crate::ids::{Ownership, ShardId};

/// One version of the membership.
#[derive(Clone, Debug)]
pub struct View {
    ownership: Ownership,
}

/// Where a user belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// To this shard of this node.
    Here(ShardId),
}

impl View {
    /// A cluster of this node alone.
    pub fn of_one_node(ownership: Ownership) -> Self {
        Self { ownership }
    }

    /// Where `user` belongs.
    pub fn place(&self, user: &str) -> Place {
        Place::Here(self.ownership.owner(user))
    }

    /// The shards of this node.
    pub fn shards(&self) -> impl Iterator<Item = ShardId> + use<> {
        (0..self.ownership.shards()).map(ShardId)
    }
}
