//! What a shard tells its hub and its door at start: the node's configuration, cut to what they need.

use crate::config::cluster::MembershipSource;
use crate::config::policy::ShardPolicy;
use crate::config::{Backend, Config, PlantedPush};
use crate::hub::{HubConfig, SpreadPlan};
use crate::ids::ShardId;
use crate::limits;
use crate::session::handshake::Rules;
use crate::wire::compat::Compat;

/// The plan of one shard's hub.
pub(super) fn hub_config(shard: ShardId, config: &Config) -> HubConfig {
    let [a, b] = config.shards.owner_key;
    let policy = ShardPolicy::of(config).hub;
    let cluster = &config.cluster;
    let spread = SpreadPlan {
        above_per_second: policy.spread_above_per_second,
        ms_max: policy.spread_ms_max,
        // Recordings show it, so it is a hash of the key and not a part of it.
        seed: ahash::RandomState::with_seeds(a, b, 0x7370_7265, 0x6164).hash_one(shard.0),
    };
    HubConfig {
        shard,
        connections_max: config.admission.shard_connections_max,
        user_connections_max: policy.user_connections_max,
        spread,
        login_policy: policy.login_policy,
        outbox_bytes_max: policy.outbox_bytes_max,
        outbox_frames_max: policy.outbox_frames_max,
        shard_outbox_bytes_max: config.shard_outbox_bytes_max,
        rates: policy.rates,
        push_slice: match config.planted.push {
            None => limits::PUSH_SLICE_MAX,
            Some(PlantedPush::Unsliced) => usize::MAX,
        },
        announces_logins: config.backend == Backend::Openim,
        kicks_same_token: stands_in_for(config) == Compat::V35,
        names_connections: policy.names_connections,
        cluster: (cluster.source != MembershipSource::None).then(|| cluster.node_id.clone()).flatten(),
        hash_seed: a ^ b.rotate_left(32) ^ u64::from(shard.0),
    }
}

/// By which rules logins are judged.
pub(super) fn login_rules(config: &Config) -> Rules {
    Rules { compat: stands_in_for(config), strictness: ShardPolicy::of(config).strictness }
}

/// The embedded backend is as the newest OpenIM.
fn stands_in_for(config: &Config) -> Compat {
    match config.backend {
        Backend::Openim => config.openim.compat,
        Backend::Embedded => Compat::Main,
    }
}
