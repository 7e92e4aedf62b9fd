//! What a gateway needs to know when OpenIM's services answer (`backend: openim`): which version, where they are, how
//! this gateway becomes known to them, Redis, webhooks.
//!
//! `folder` reads OpenIM's own configuration folder (`files`, `keys`, `ports`) into texts of our settings, so that they
//! pass the same judge as all others; `combine` fills in what depends on several settings and judges combinations;
//! `register` finds the address that is registered, `members` the gateways of OpenIM 3.5 on Kubernetes.
//!
//! Not here: sockets, clients of etcd or Redis (`control`), and what the services are asked (`backend::openim`).

pub(super) mod combine;
mod files;
pub(super) mod folder;
mod keys;
mod members;
mod ports;
mod register;
#[cfg(test)]
mod tests;

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

pub(super) use members::REPLICAS_ENV;
pub use members::members;
pub use members::{NAMESPACE_ENV, POD_ENV};
pub use register::{Interface, interfaces, register_ip};

use super::value::{Endpoint, Secret};
use crate::backend::openim::Service;
use crate::limits;
use crate::wire::compat::Compat;

/// Where the kubelet puts the service account of a pod. OpenIM main looks for it as well (spec 11.1).
pub(super) const SERVICE_ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// `backend`: who answers what clients ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// This process, from memory: for development (default).
    Embedded,
    /// OpenIM's services.
    Openim,
}

impl Backend {
    /// As `backend` in the configuration writes them.
    pub(super) const NAMES: [(&'static str, Self); 2] =
        [("embedded", Self::Embedded), ("openim", Self::Openim)];
}

/// All settings that count with `backend: openim` only. With another backend it holds what was set, unjudged in
/// combination.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenimConfig {
    /// `compat`, default main; worked out from the folder's layout if one is given.
    pub compat: Compat,
    /// `discovery.*`.
    pub discovery: DiscoveryConfig,
    /// `redis.*`.
    pub redis: RedisConfig,
    /// `webhooks.*`.
    pub webhooks: WebhooksConfig,
    /// `presence.*`.
    pub presence: PresenceConfig,
    /// `upstream.*`.
    pub upstream: UpstreamConfig,
    /// `openim.config_dir`: the folder that was read; `None`: none.
    pub config_dir: Option<PathBuf>,
    /// `openim.index`: which element of OpenIM's port lists is ours, and the last part of the key under which metrics
    /// are found; from 0, default 0.
    pub index: u16,
}

/// `discovery.*`: how services are found, and how they find this gateway (spec 11.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiscoveryConfig {
    /// `discovery.kind`, default etcd. The settings of the other kinds do not count.
    pub kind: DiscoveryKind,
    /// `discovery.etcd_*`.
    pub etcd: EtcdConfig,
    /// `discovery.namespace` of Kubernetes; `None` (default): the one of this pod.
    pub namespace: Option<String>,
    /// `discovery.port_name`: the name that an endpoint's port must have, default `grpc` (spec trap 34); a dash and a
    /// number may follow it there.
    pub port_name: String,
    /// `discovery.service_account`: the folder with `token` and `ca.crt`, default where the kubelet puts it.
    pub service_account: PathBuf,
    /// `discovery.gateways_differ_ms`, default [`limits::GATEWAYS_DIFFER_MS`]. Counts with `members` only.
    pub gateways_differ_ms: u64,
    /// `discovery.static_*`. With kind static each service but the other gateways has at least one.
    pub fixed: PerService<Vec<Endpoint>>,
    /// `discovery.service_*`, default by `compat` (spec 11.1).
    pub names: PerService<String>,
    /// OpenIM 3.5 on Kubernetes: the gateways as members of the ring, with port, by ordinal (spec 10.4). Empty with
    /// everything else.
    pub members: Vec<String>,
    /// `discovery.register_ip`: where others reach our gRPC port.
    pub register_ip: IpAddr,
    /// `discovery.lease_s`: seconds, from 5 to 3600, default 30 (spec 11.1): after so long without a
    /// word from us we are out of etcd.
    pub lease_s: u32,
    /// `discovery.metrics`: whether the address of our metrics is told to etcd (spec 11.4), default false.
    pub metrics: bool,
}

/// `discovery.kind`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiscoveryKind {
    /// Keys under a lease.
    Etcd,
    /// Endpoints of services; OpenIM 3.5: names of services, and the headless service of a stateful set.
    Kubernetes,
    /// Lists in the configuration.
    Static,
}

impl DiscoveryKind {
    /// As `discovery.kind` in the configuration writes them.
    pub(super) const NAMES: [(&'static str, Self); 3] =
        [("etcd", Self::Etcd), ("kubernetes", Self::Kubernetes), ("static", Self::Static)];
}

/// `discovery.etcd_*`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EtcdConfig {
    /// `discovery.etcd_addresses`, at least one, default localhost:12379.
    pub addresses: Vec<Endpoint>,
    /// Whether they were given with `https://`.
    pub https: bool,
    /// `discovery.etcd_root`: the first part of every key, without slashes at its ends, default `openim`.
    pub root: String,
    /// `discovery.etcd_username`; empty: etcd asks nobody for a name.
    pub username: String,
    /// `discovery.etcd_password`; counts beside a username.
    pub password: Secret,
    /// `discovery.etcd_ca`: PEM, who signs etcd's certificates; `None`: whom the system trusts.
    pub ca: Option<PathBuf>,
    /// `discovery.etcd_cert`: PEM, what we show etcd; never without `key` and TLS.
    pub cert: Option<PathBuf>,
    /// `discovery.etcd_key`: PEM, its key; never without `cert`.
    pub key: Option<PathBuf>,
}

impl EtcdConfig {
    /// Whether etcd is asked over TLS: its addresses say so, or we know who signs its certificates.
    pub fn tls(&self) -> bool {
        self.https || self.ca.is_some()
    }
}

/// One value for each service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PerService<T> {
    /// Auth.
    pub auth: T,
    /// User.
    pub user: T,
    /// Msg.
    pub msg: T,
    /// Push.
    pub push: T,
    /// The gateways, this one among them.
    pub gateway: T,
}

impl<T> PerService<T> {
    /// The value of a service.
    pub fn of(&self, service: Service) -> &T {
        match service {
            Service::Auth => &self.auth,
            Service::User => &self.user,
            Service::Msg => &self.msg,
            Service::Push => &self.push,
            Service::Gateway => &self.gateway,
        }
    }
}

impl PerService<String> {
    /// The names under which a version of OpenIM registers its services (spec 11.1).
    pub fn names(compat: Compat) -> Self {
        let [auth, user, msg, push, gateway] = match compat {
            Compat::V35 => ["Auth", "User", "Msg", "Push", "MessageGateway"],
            Compat::Patch16 => ["auth", "user", "msg", "push", "messageGateway"],
            Compat::Main => [
                "auth-rpc-service",
                "user-rpc-service",
                "msg-rpc-service",
                "push-rpc-service",
                "messagegateway-rpc-service",
            ],
        }
        .map(str::to_owned);
        Self { auth, user, msg, push, gateway }
    }
}

/// `redis.*`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedisConfig {
    /// `redis.mode`, default standalone.
    pub mode: RedisMode,
    /// `redis.addresses`: of the server, or of some nodes of the cluster; at least one, default localhost:16379. Do not
    /// count with sentinels.
    pub addresses: Vec<Endpoint>,
    /// `redis.username`; empty: the default user.
    pub username: String,
    /// `redis.password`; empty: none.
    pub password: Secret,
    /// `redis.db`: the database, default 0; 0 with a cluster.
    pub db: u16,
    /// `redis.master_name`: not empty with sentinels.
    pub master_name: String,
    /// `redis.sentinel_addresses`: at least one with sentinels.
    pub sentinel_addresses: Vec<Endpoint>,
}

/// `redis.mode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RedisMode {
    /// One server.
    Standalone,
    /// Redis Cluster.
    Cluster,
    /// One server, found by asking sentinels.
    Sentinel,
}

impl RedisMode {
    /// As `redis.mode` in the configuration writes them.
    pub(super) const NAMES: [(&'static str, Self); 3] =
        [("standalone", Self::Standalone), ("cluster", Self::Cluster), ("sentinel", Self::Sentinel)];
}

/// `webhooks.*` (spec 11.6).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebhooksConfig {
    /// `webhooks.url`: `http://` or `https://`, no slash at its end; not empty if one of them is enabled.
    pub url: String,
    /// `webhooks.ca`: PEM, who signs the receiver's certificate; `None`: whom the system trusts.
    pub ca: Option<PathBuf>,
    /// `webhooks.renewals`: whether "online" is sent again with each renewal, as OpenIM does (spec trap 31), default
    /// true.
    pub renewals: bool,
    /// `webhooks.online*`.
    pub online: WebhookConfig,
    /// `webhooks.offline*`.
    pub offline: WebhookConfig,
    /// `webhooks.kick_off*`.
    pub kick_off: WebhookConfig,
}

impl WebhooksConfig {
    /// Whether one of them is sent.
    pub fn any(&self) -> bool {
        [self.online, self.offline, self.kick_off].iter().any(|hook| hook.enabled)
    }
}

/// One webhook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WebhookConfig {
    /// Whether it is sent, default false.
    pub enabled: bool,
    /// Milliseconds until its answer is given up, at most [`limits::WEBHOOK_TIMEOUT_MS_MAX`], default
    /// [`limits::WEBHOOK_TIMEOUT_MS`].
    pub timeout_ms: u64,
}

/// `presence.*` (spec 9.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PresenceConfig {
    /// `presence.renewal_ms`, default [`limits::PRESENCE_RENEW_MS`].
    pub renewal_ms: u64,
    /// `presence.batch_wait_ms`, default [`limits::PRESENCE_FLUSH_MS`].
    pub batch_wait_ms: u64,
}

/// `upstream.*`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UpstreamConfig {
    /// `upstream.deadline_ms` of one call, default [`limits::UPSTREAM_DEADLINE_MS`].
    pub deadline_ms: u64,
    /// `upstream.in_flight_max`: calls of one rpc thread that wait for one service, default
    /// [`limits::CHANNEL_CALLS_MAX`].
    pub in_flight_max: usize,
}

impl OpenimConfig {
    /// The key of etcd below which OpenIM looks for the address of our metrics (spec 11.4).
    pub fn metrics_key(&self) -> String {
        let index = self.index;
        match self.compat {
            // Whatever the root and the names are.
            Compat::V35 | Compat::Patch16 => format!("openim/prometheus_discovery/messageGateway/{index}"),
            Compat::Main => {
                let DiscoveryConfig { etcd, names, .. } = &self.discovery;
                format!("{}/prometheus_discovery/{}/{index}", etcd.root, names.gateway)
            }
        }
    }
}

impl Default for OpenimConfig {
    /// The defaults of the settings, with the names of `main` and the loopback address registered.
    fn default() -> Self {
        let here = |port| vec![Endpoint { host: "localhost".to_owned(), port }];
        let webhook = WebhookConfig { enabled: false, timeout_ms: limits::WEBHOOK_TIMEOUT_MS };
        Self {
            compat: Compat::Main,
            discovery: DiscoveryConfig {
                kind: DiscoveryKind::Etcd,
                etcd: EtcdConfig {
                    addresses: here(12_379),
                    https: false,
                    root: "openim".to_owned(),
                    username: String::new(),
                    password: Secret::default(),
                    ca: None,
                    cert: None,
                    key: None,
                },
                namespace: None,
                port_name: "grpc".to_owned(),
                service_account: PathBuf::from(SERVICE_ACCOUNT),
                gateways_differ_ms: limits::GATEWAYS_DIFFER_MS,
                fixed: PerService::default(),
                names: PerService::names(Compat::Main),
                members: Vec::new(),
                register_ip: IpAddr::V4(Ipv4Addr::LOCALHOST),
                lease_s: 30,
                metrics: false,
            },
            redis: RedisConfig {
                mode: RedisMode::Standalone,
                addresses: here(16_379),
                username: String::new(),
                password: Secret::default(),
                db: 0,
                master_name: String::new(),
                sentinel_addresses: Vec::new(),
            },
            webhooks: WebhooksConfig {
                url: String::new(),
                ca: None,
                renewals: true,
                online: webhook,
                offline: webhook,
                kick_off: webhook,
            },
            presence: PresenceConfig {
                renewal_ms: limits::PRESENCE_RENEW_MS,
                batch_wait_ms: limits::PRESENCE_FLUSH_MS,
            },
            upstream: UpstreamConfig {
                deadline_ms: limits::UPSTREAM_DEADLINE_MS,
                in_flight_max: limits::CHANNEL_CALLS_MAX,
            },
            config_dir: None,
            index: 0,
        }
    }
}
