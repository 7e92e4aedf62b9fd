//! What a hub is told at start.

use serde::{Deserialize, Serialize};

use super::SpreadPlan;
use super::login_policy::LoginPolicy;
use crate::ids::ShardId;
use crate::limits;
use crate::placement::view::NodeId;
use crate::session::meter::Rates;

/// What a hub is told at start; plain numbers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HubConfig {
    /// Its own name, for the calls it makes.
    pub shard: ShardId,
    /// Slab bound.
    pub connections_max: u32,
    /// See [`LoginPolicy`].
    pub login_policy: LoginPolicy,
    /// See `limits::OUTBOX_BYTES_MAX`.
    pub outbox_bytes_max: usize,
    /// See `limits::OUTBOX_FRAMES_MAX`.
    pub outbox_frames_max: usize,
    /// See `limits::SHARD_OUTBOX_BYTES_MAX`.
    pub shard_outbox_bytes_max: usize,
    /// Connections of one user. More: 503 before register.
    pub user_connections_max: u32,
    /// What happens to a storm of logins.
    pub spread: SpreadPlan,
    /// What one connection may ask for.
    #[serde(default)]
    pub rates: Rates,
    /// Connections served with pushes in one turn; at least 1.
    #[serde(default = "default_push_slice")]
    pub push_slice: usize,
    /// Whether the other gateways are told of logins here ([`super::upstream::UpstreamRequest::LoginElsewhere`]).
    #[serde(default)]
    pub announces_logins: bool,
    /// Whether a login here ends older ones with its own token, too, where the policy says so: 3.5 (spec 8.3).
    #[serde(default)]
    pub kicks_same_token: bool,
    /// Whether presence records name connections ([`super::upstream::ConnectionNews`]).
    #[serde(default)]
    pub names_connections: bool,
    /// Keyed hashing of user ids: drawn at start, given in tests.
    pub hash_seed: u64,
    /// This node's name among others, whose router this shard asks (`cluster`). `None`: it is alone.
    #[serde(default)]
    pub cluster: Option<NodeId>,
}

impl HubConfig {
    /// The limits of production, a fixed hash and a node that is alone: what tests and benches start from.
    pub fn for_shard(shard: ShardId, connections_max: u32) -> Self {
        Self {
            shard,
            connections_max,
            login_policy: LoginPolicy::OnePerPlatform,
            outbox_bytes_max: limits::OUTBOX_BYTES_MAX,
            outbox_frames_max: limits::OUTBOX_FRAMES_MAX,
            shard_outbox_bytes_max: limits::SHARD_OUTBOX_BYTES_MAX,
            user_connections_max: limits::USER_CONNECTIONS_MAX,
            spread: SpreadPlan {
                above_per_second: limits::LOGINS_UNSPREAD_MAX,
                ms_max: limits::SPREAD_MS,
                seed: 2,
            },
            rates: Rates::default(),
            push_slice: default_push_slice(),
            announces_logins: false,
            kicks_same_token: false,
            names_connections: false,
            hash_seed: 1,
            cluster: None,
        }
    }
}

fn default_push_slice() -> usize {
    limits::PUSH_SLICE_MAX
}
