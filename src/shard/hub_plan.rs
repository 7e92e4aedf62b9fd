//! What a shard tells its hub and its door at start: the node's configuration, cut to what they need.

use crate::config::{Backend, Config, PlantedPush};
use crate::hub::login_policy::LoginPolicy;
use crate::hub::{HubConfig, SpreadPlan};
use crate::ids::ShardId;
use crate::limits;
use crate::session::handshake::{Rules, Strictness};
use crate::wire::compat::Compat;

/// The plan of one shard's hub.
pub(super) fn hub_config(shard: ShardId, config: &Config) -> HubConfig {
    let [a, b] = config.shards.owner_key;
    let spread = SpreadPlan {
        above_per_second: config.admission.spread_above_per_second,
        ms_max: config.admission.spread_ms,
        // Recordings show it, so it is a hash of the key and not a part of it.
        seed: ahash::RandomState::with_seeds(a, b, 0x7370_7265, 0x6164).hash_one(shard.0),
    };
    HubConfig {
        shard,
        connections_max: config.admission.shard_connections_max,
        user_connections_max: config.admission.user_connections_max,
        spread,
        // A `Config` is valid by construction; 1 is OpenIM's default.
        login_policy: LoginPolicy::from_number(config.login_policy).unwrap_or(LoginPolicy::OnePerPlatform),
        outbox_bytes_max: config.outbox_bytes_max,
        outbox_frames_max: config.outbox_frames_max,
        shard_outbox_bytes_max: config.shard_outbox_bytes_max,
        rates: config.rates,
        push_slice: match config.planted.push {
            None => limits::PUSH_SLICE_MAX,
            Some(PlantedPush::Unsliced) => usize::MAX,
        },
        announces_logins: config.backend == Backend::Openim,
        names_connections: config.backend == Backend::Openim && config.openim.webhooks.any(),
        hash_seed: a ^ b.rotate_left(32) ^ u64::from(shard.0),
    }
}

/// By which rules logins are judged: those of the newest OpenIM.
pub(super) fn login_rules(config: &Config) -> Rules {
    let strictness = if config.lenient { Strictness::Lenient } else { Strictness::Strict };
    let compat = match config.backend {
        Backend::Openim => config.openim.compat,
        Backend::Embedded => Compat::Main,
    };
    Rules { compat, strictness }
}
