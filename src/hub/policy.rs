//! What of a hub's configuration may change while it runs.

use serde::{Deserialize, Serialize};

use super::Hub;
use super::login_policy::LoginPolicy;
use crate::session::meter::Rates;

/// See [`super::HubConfig`] for what each means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HubPolicy {
    /// Judges logins from now on; who is logged in stays.
    pub login_policy: LoginPolicy,
    /// Logins beyond it are refused from now on; who is logged in stays.
    pub user_connections_max: u32,
    /// See [`super::SpreadPlan`].
    pub spread_above_per_second: u32,
    /// See [`super::SpreadPlan`].
    pub spread_ms_max: u64,
    /// Looked at when the next frame is queued.
    pub outbox_bytes_max: usize,
    /// Looked at when the next frame is queued.
    pub outbox_frames_max: usize,
    /// What a connection asked for before counts against the new rates.
    pub rates: Rates,
    /// Counts for connections that come or leave from now on.
    #[serde(default)]
    pub names_connections: bool,
}

impl Hub {
    /// Goes by another policy from now on. Ends no session by itself.
    pub(super) fn adopt(&mut self, policy: &HubPolicy) {
        let config = &mut self.config;
        config.login_policy = policy.login_policy;
        config.user_connections_max = policy.user_connections_max;
        config.spread.above_per_second = policy.spread_above_per_second;
        config.spread.ms_max = policy.spread_ms_max;
        // The budget of the shard stays until a restart, and an outbox is never above it.
        config.outbox_bytes_max = policy.outbox_bytes_max.min(config.shard_outbox_bytes_max);
        config.outbox_frames_max = policy.outbox_frames_max;
        config.rates = policy.rates;
        config.names_connections = policy.names_connections;
        self.spread.adopt(config.spread);
    }
}
