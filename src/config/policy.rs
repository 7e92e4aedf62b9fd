//! What of a configuration may change while the gateway runs, cut by who takes it. At start and after each reload the
//! threads get the same values, so that there is one way for a setting to take effect.
//!
//! What always holds: exactly the settings that are marked [`Reload::Live`](super::Reload::Live) are in here; a test
//! changes each of them.

use std::path::PathBuf;

use super::peer_tls::PeerTls;
use super::{AssignPolicy, Backend, Config, RpcConfig, RpcLimits, Tls, Token, UserNames, WebhooksConfig};
use crate::hub::login_policy::LoginPolicy;
use crate::hub::policy::HubPolicy;
use crate::session::handshake::Strictness;
use crate::session::handshake::origin::Network;

/// What a shard goes by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardPolicy {
    /// For its hub.
    pub hub: HubPolicy,
    /// `login.lenient`.
    pub strictness: Strictness,
    /// `websocket.handshakes_max`.
    pub handshakes_max: usize,
    /// `log.users`.
    pub names: UserNames,
}

impl ShardPolicy {
    /// As configured.
    pub fn of(config: &Config) -> Self {
        Self {
            hub: HubPolicy {
                // A `Config` is valid by construction; 1 is OpenIM's default.
                login_policy: LoginPolicy::from_number(config.login_policy)
                    .unwrap_or(LoginPolicy::OnePerPlatform),
                user_connections_max: config.admission.user_connections_max,
                spread_above_per_second: config.admission.spread_above_per_second,
                spread_ms_max: config.admission.spread_ms,
                outbox_bytes_max: config.outbox_bytes_max,
                outbox_frames_max: config.outbox_frames_max,
                rates: config.rates,
                names_connections: config.backend == Backend::Openim && config.openim.webhooks.any(),
            },
            strictness: if config.lenient { Strictness::Lenient } else { Strictness::Strict },
            handshakes_max: config.websocket.handshakes_max,
            names: config.log.users,
        }
    }
}

/// What an rpc thread goes by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RpcPolicy {
    /// `rpc.*_max` and the like. They count for connections that come after them.
    pub limits: RpcLimits,
    /// `rpc.allow`.
    pub allow: Vec<Network>,
    /// `rpc.token`.
    pub token: Option<Token>,
    /// What the files of `rpc.tls_*` say.
    pub tls: Option<Tls>,
    /// What the files of `cluster.peer_*` and `rpc.tls_*` say: for new links to other nodes; thread 0 only.
    pub peer_tls: Option<PeerTls>,
    /// `auth.admin_users`.
    pub admins: Vec<String>,
    /// `http.token`.
    pub http_token: Option<Token>,
    /// Which webhooks are sent. Where they go is the control thread's business.
    pub webhooks: WebhooksConfig,
    /// `upstream.deadline_ms`.
    pub upstream_deadline_ms: u64,
    /// `log.users`.
    pub names: UserNames,
    /// `assign.*`; thread 0 only.
    pub assign: AssignPolicy,
    /// The files behind `tls`, for the assign API's calls to other nodes; they are read again with each reload.
    pub tls_files: TlsFiles,
}

impl RpcPolicy {
    /// As configured.
    pub fn of(config: &Config) -> Self {
        Self {
            limits: config.rpc.limits,
            allow: config.rpc.allow.clone(),
            token: config.rpc.token.clone(),
            tls: config.rpc.tls.clone(),
            peer_tls: config.cluster.peer_tls.clone(),
            admins: config.auth.admin_users.clone(),
            http_token: config.http_token.clone(),
            webhooks: config.openim.webhooks.clone(),
            upstream_deadline_ms: config.openim.upstream.deadline_ms,
            names: config.log.users,
            assign: config.assign.policy.clone(),
            tls_files: TlsFiles::of(&config.rpc),
        }
    }
}

/// What the node's own calls to others show and believe: the files of `rpc.tls_*`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsFiles {
    /// `rpc.tls_cert` and `rpc.tls_key`, if both are set.
    pub own: Option<(PathBuf, PathBuf)>,
    /// `rpc.tls_client_ca`.
    pub authority: Option<PathBuf>,
}

impl TlsFiles {
    /// As configured.
    pub fn of(rpc: &RpcConfig) -> Self {
        Self { own: rpc.tls_cert.clone().zip(rpc.tls_key.clone()), authority: rpc.tls_client_ca.clone() }
    }
}

/// What belongs to the node and to none of these threads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodePolicy {
    /// `websocket.connections_max`. A node that holds more keeps them.
    pub connections_max: u32,
    /// `websocket.accepts_per_second_max`.
    pub accepts_per_second_max: u32,
    /// `drain.deadline_ms`.
    pub drain_deadline_ms: u64,
    /// `drain.evict_per_s`.
    pub drain_evict_per_s: Option<u32>,
    /// `stall.abort_ms`.
    pub stall_abort_ms: u64,
    /// `log.level`.
    pub log_level: String,
}

impl NodePolicy {
    /// As configured.
    pub fn of(config: &Config) -> Self {
        Self {
            connections_max: config.websocket.connections_max,
            accepts_per_second_max: config.admission.accepts_per_second_max,
            drain_deadline_ms: config.drain_deadline_ms,
            drain_evict_per_s: config.drain_evict_per_s,
            stall_abort_ms: config.stall_abort_ms,
            log_level: config.log.level.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::settings::Draft;
    use super::super::{Reload, SETTINGS, Setting};
    use super::*;

    fn draft() -> Draft {
        let mut draft = Draft::blank();
        for setting in SETTINGS {
            (setting.apply)(&mut draft, setting.default).unwrap();
        }
        draft
    }

    /// With what is worked out later as the setting itself says it.
    fn policies(mut draft: Draft) -> (ShardPolicy, RpcPolicy, NodePolicy) {
        draft.config.websocket.connections_max = draft.connections_max.unwrap_or_default();
        let config = &draft.config;
        (ShardPolicy::of(config), RpcPolicy::of(config), NodePolicy::of(config))
    }

    /// What a setting that is not at its default may be, among them something for each.
    const TEXTS: [&str; 16] = [
        "7",
        "77",
        "7s",
        "64KiB",
        "3MiB",
        "true",
        "false",
        "4",
        "someone",
        "127.0.0.1",
        "127.0.0.1:7",
        "off",
        "task",
        "epoll",
        "77s",
        "5MiB",
    ];

    /// All defaults but for one setting.
    fn changed(setting: &Setting) -> Option<Draft> {
        [setting.example].into_iter().chain(TEXTS).filter(|text| *text != setting.default).find_map(|text| {
            let mut draft = draft();
            (setting.apply)(&mut draft, text).map(|()| draft)
        })
    }

    #[test]
    fn what_reloads_is_in_a_policy_and_nothing_else_is() {
        for setting in SETTINGS {
            // Their value is a path; what the file says is in the policy (`tests/it/reload.rs`).
            if setting.key.starts_with("rpc.tls_") || setting.key.starts_with("cluster.peer_") {
                continue;
            }
            let changed = changed(setting).unwrap_or_else(|| panic!("{}: nothing to try", setting.key));
            let differs = policies(changed) != policies(draft());
            assert_eq!(differs, setting.reload == Reload::Live, "{}", setting.key);
        }
    }
}
