//! What the node's router (`cluster/protocol`, on rpc thread 0) and the shards tell each other: by which placements a
//! shard may register users by itself, logins that ask, kicks decided elsewhere (routing-protocol.md sections 5.3, 5.4
//! and 7). Plain data. A node that is alone sends none of it.

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::ids::{ConnId, Platform, ShardId, Text};
use crate::placement::Placement;
use crate::placement::view::{Epoch, NodeId};

/// Bits of [`ConnNumber`] for the slot of the connection, and below them for its generation.
const INDEX_BITS: u32 = 24;
const GENERATION_BITS: u32 = 28;
const GENERATION: u64 = (1 << GENERATION_BITS) - 1;

/// Names a connection of this node to other nodes. Not used again before a slot was taken 2^28 times.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ConnNumber(pub u64);

impl ConnNumber {
    /// Names no connection.
    const NONE: Self = Self(u64::MAX);

    /// `None`: more than 4096 shards, or than 2^24 connections on one.
    pub fn new(shard: ShardId, conn: ConnId) -> Option<Self> {
        let fits =
            u64::from(shard.0) < 1 << (64 - INDEX_BITS - GENERATION_BITS) && conn.0.index < 1 << INDEX_BITS;
        let generation = u64::from(conn.0.generation) & GENERATION;
        let number = u64::from(shard.0) << (INDEX_BITS + GENERATION_BITS)
            | u64::from(conn.0.index) << GENERATION_BITS
            | generation;
        fits.then_some(Self(number))
    }

    /// As [`ConnNumber::new`], for what leaves the hub: the greatest number where that gives nothing, which no
    /// configuration allows (`limits::SHARDS_MAX`, `limits::CONNECTIONS_MAX`).
    pub fn of(shard: ShardId, conn: ConnId) -> u64 {
        Self::new(shard, conn).unwrap_or(Self::NONE).0
    }

    /// Whose connection it is.
    pub fn shard(self) -> ShardId {
        ShardId((self.0 >> (INDEX_BITS + GENERATION_BITS)) as u16)
    }

    /// Whether it names this connection of that shard.
    pub fn names(self, shard: ShardId, conn: ConnId) -> bool {
        Self::new(shard, conn) == Some(self)
    }

    /// The slot of the connection on its shard.
    #[expect(clippy::cast_possible_truncation, reason = "masked to 24 bits")]
    pub fn index(self) -> u32 {
        (self.0 >> GENERATION_BITS) as u32 & ((1 << INDEX_BITS) - 1)
    }
}

/// Names a login's token to other nodes, which need to know only whether two are the same: the first 8 bytes, read
/// big-endian, of SHA-256 over `TokenName::DOMAIN` and the token's text. Fixed by the protocol between nodes.
///
/// Two tokens of one user with the same name (2^-64 for each pair) would be taken for one: the older connection would
/// stay. From a name nobody gets a token: each ends with a signature of 32 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct TokenName(pub u64);

impl TokenName {
    /// Hashed before the token, so that the name is good for nothing else.
    const DOMAIN: &[u8] = b"pinion.peer token\0";

    /// The name of this token.
    pub fn of(token: &str) -> Self {
        let hash = Sha256::new().chain_update(Self::DOMAIN).chain_update(token.as_bytes()).finalize();
        Self(u64::from_be_bytes(hash.first_chunk().copied().unwrap_or_default())) // 32 bytes have 8
    }

    /// Whether a connection with token `older` stays beside a newer login with token `newer`. Of a login whose rules
    /// spare nobody there is no name.
    pub fn spares(older: Option<Self>, newer: Option<Self>) -> bool {
        older.is_some() && older == newer
    }
}

/// Connections of a user conflict with those of the same class (login policy).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Class(pub u8);

/// Which login is newer: compared in this order, fixed at registration, never computed anew.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Key {
    /// Milliseconds, given by the home.
    pub time: u64,
    /// The holder.
    pub node: NodeId,
    /// The holder's number of the connection.
    pub number: u64,
}

/// Names a token among those that the embedded backend knows: 16 bytes of a SHA-1 (`backend::embedded`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct TokenDigest(pub [u8; 16]);

/// Tokens of a user that a login has ended, for the embedded backends of the other nodes: each keeps its own marks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenMarks {
    /// Whose.
    pub user: Text,
    /// Of this platform.
    pub platform: Platform,
    /// Which of them.
    pub which: Marked,
}

/// See [`TokenMarks`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Marked {
    /// All that a node has seen, but this one. Whoever has seen others tells which (`These`).
    AllBut(TokenDigest),
    /// These, whether a node has seen them or not.
    These(Vec<TokenDigest>),
}

/// A login that asks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Login {
    /// See [`ConnNumber`].
    pub number: u64,
    /// Who.
    pub user: Text,
    /// For the login policy.
    pub class: Option<Class>,
    /// Spares older connections with the same; `None`: ends them, too.
    pub token: Option<TokenName>,
}

/// A registered connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resident {
    /// See [`ConnNumber`].
    pub number: u64,
    /// Who.
    pub user: Text,
    /// For the login policy.
    pub class: Option<Class>,
    /// As in [`Login::token`].
    pub token: Option<TokenName>,
    /// Fixed at registration.
    pub key: Key,
}

/// To a shard, on its control lane, which is FIFO.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ClusterMail {
    /// Act by this placement, too; answered by [`ClusterNews::Switched`].
    Add {
        /// Of the view it comes from.
        epoch: Epoch,
        /// Where users belong.
        placement: Placement,
    },
    /// Of the placements added only this one is left.
    Only(Epoch),
    /// Register the connection that asked, then write its 101, then say [`ClusterNews::Registered`].
    Register {
        /// See [`ConnNumber`].
        number: u64,
        /// Of the login.
        key: Key,
    },
    /// Refuse the login: this node cannot serve it now.
    Refuse(u64),
    /// End this connection if it is open and its key is smaller than the winner's.
    Kick {
        /// See [`ConnNumber`].
        number: u64,
        /// The key that stays.
        winner: Key,
    },
    /// A login of this user and class has this key: end those of a smaller key and another token, and say
    /// [`ClusterNews::Registered`] again for one of a greater key. If it met older ones, say [`ClusterNews::Met`].
    Judge {
        /// Who.
        user: Text,
        /// Conflicts within it only.
        class: Class,
        /// Of the login.
        key: Key,
        /// Of the login.
        token: Option<TokenName>,
    },
    /// The login that has this key met older connections of its user on other nodes: tell the auth service, if the
    /// policy says so and it was not told of this login before.
    Met(Key),
    /// Logins of residents get times above this from now on (K1).
    Floor(u64),
    /// Another node's embedded backend has ended tokens.
    Marks(TokenMarks),
}

/// From a shard to rpc thread 0, in order and none lost.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ClusterNews {
    /// The answer to [`ClusterMail::Add`]: residents whose home under that placement is another node.
    Switched {
        /// Who answers.
        shard: ShardId,
        /// Of the placement.
        epoch: Epoch,
        /// In no order.
        residents: Vec<Resident>,
    },
    /// A login whose user is not at home here under every placement in force. Answered by [`ClusterMail::Register`] or
    /// [`ClusterMail::Refuse`].
    Login(Login),
    /// Registered: after [`ClusterMail::Register`], or by the shard itself.
    Registered(Resident),
    /// A connection has ended: one that asked, or one that was told of.
    Gone(u64),
    /// The login that has this key met older connections of its user here ([`super::login_policy::hears_of`]).
    Met(Key),
    /// The embedded backend of this shard has ended tokens: every other node hears of it.
    Marks(TokenMarks),
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::SlotId;

    #[test]
    fn a_token_has_one_name_on_every_node_and_no_name_spares_nobody() {
        // As sha256sum says of the domain and the text.
        assert_eq!(TokenName::of("token-1"), TokenName(0x1b3d_4288_38df_7b8f));
        let (one, two) = (Some(TokenName::of("token-1")), Some(TokenName::of("token-2")));
        assert!(TokenName::spares(one, one) && !TokenName::spares(one, two));
        assert!(
            !TokenName::spares(one, None) && !TokenName::spares(None, one) && !TokenName::spares(None, None)
        );
    }

    #[test]
    fn a_number_names_one_connection() {
        let conn = |index, generation| ConnId(SlotId { index, generation });
        let (shard, last) = (ShardId(4095), conn((1 << 24) - 1, u32::MAX));
        let number = ConnNumber::new(shard, last).unwrap();
        assert_eq!((number.shard(), number.index()), (shard, (1 << 24) - 1));
        assert!(number.names(shard, last) && !number.names(ShardId(0), last));
        assert!(!number.names(shard, conn((1 << 24) - 1, 0)) && !number.names(shard, conn(0, u32::MAX)));
        assert_eq!(ConnNumber::new(ShardId(4096), last), None);
        assert_eq!(ConnNumber::new(shard, conn(1 << 24, 0)), None);
    }
}
