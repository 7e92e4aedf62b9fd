//! What the control thread is to do, as plain data. Names and keys that differ between OpenIM's versions come in as
//! text; nothing here knows a version.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use super::membership::MembershipPlan;
use super::news::NewsPost;
use crate::backend::openim::Service;
use crate::cluster::endpoints::Confirmation;
use crate::limits;
use crate::metrics::Block;
use crate::time::Now;

/// Everything that the thread needs to start.
pub struct ControlPlan {
    /// Where OpenIM's services are found.
    pub discovery: Discovery,
    /// `None`: nobody listens to `online_change`, and orders about tokens are refused.
    pub redis: Option<RedisPlan>,
    /// `None`: webhooks are dropped, until [`super::mailbox::ControlThread::set_webhooks`] says where they go.
    pub webhooks: Option<WebhookPlan>,
    /// `None`: this node is alone, and orders about records are refused.
    pub membership: Option<MembershipPlan>,
    /// Where news go. Called on the control thread; must not wait.
    pub news: NewsPost,
    /// The clock of the other threads (`shard::clock::now`): deadlines in orders are of it.
    pub now: fn() -> Now,
    /// Where the thread publishes its counts.
    pub block: Arc<Block>,
}

/// Where OpenIM's services are found.
pub enum Discovery {
    /// Nowhere: no service is called, and there are no news of any.
    None,
    /// A fixed list. News of it come once; a service that is not named gets none.
    Static(Vec<(Service, Vec<SocketAddr>)>),
    /// OpenIM's registry since 3.8 (spec 11.1).
    Etcd(Box<EtcdPlan>),
    /// The endpoints of services in Kubernetes: OpenIM since 3.8 (spec 11.1).
    Kubernetes(Box<KubernetesPlan>),
    /// Names that are looked up again and again: OpenIM 3.5 in Kubernetes (spec 10.3).
    Names(Box<NamesPlan>),
}

/// How Kubernetes is asked.
pub struct KubernetesPlan {
    /// The API server, `https://host:port`.
    pub server: String,
    /// The folder of the service account: `token`, which is read for each request, and `ca.crt`, which is read for each
    /// connection.
    pub account: PathBuf,
    /// Where the services are.
    pub namespace: String,
    /// The names of the services there, each service at most once, at least one.
    pub services: Vec<(Service, String)>,
    /// The name of the port that is called; a dash and a number may follow it.
    pub port_name: String,
    /// When a service that had instances is believed to have none.
    pub confirmation: Confirmation,
    /// Seconds, at least 1, after which the server is to end a watch, which is then made again; default
    /// [`WATCH_S`]. A server that is silent for longer is given up.
    pub watch_s: u32,
}

/// Which names are looked up.
pub struct NamesPlan {
    /// `host:port` each.
    pub services: Vec<(Service, Vec<String>)>,
    /// This node's own name, `host:port`: its addresses are no instances.
    pub own: Option<String>,
    /// Milliseconds from one round to the next; default `NAMES_ROUND_MS` of `limits`.
    pub round_ms: u64,
}

/// How etcd is used.
pub struct EtcdPlan {
    /// `host:port` or a URL with `http` or `https`; tried in turn. With `tls` a bare `host:port` means https.
    pub addresses: Vec<String>,
    /// First part of each key, without slashes at its ends; upstream's default is `openim`.
    pub root: String,
    /// The names under which services are registered (spec 11.1), each service at most once, at least one.
    pub services: Vec<(Service, String)>,
    /// `None`: etcd asks for no login.
    pub credentials: Option<Credentials>,
    /// Needed for https only. `None`: the system's certificate authorities, no certificate of our own.
    pub tls: Option<ClientTls>,
    /// When a service that had instances is believed to have none.
    pub confirmation: Confirmation,
    /// `None`: this node is not registered.
    pub registration: Option<RegistrationPlan>,
}

/// The servers of etcd, for the cluster's records.
#[derive(Debug)]
pub struct EtcdServers {
    /// See [`EtcdPlan::addresses`].
    pub addresses: Vec<String>,
    /// See [`EtcdPlan::credentials`].
    pub credentials: Option<Credentials>,
    /// See [`EtcdPlan::tls`].
    pub tls: Option<ClientTls>,
}

/// User name and password. Its `Debug` form shows neither.
#[derive(Clone)]
pub struct Credentials {
    /// User name.
    pub username: String,
    /// Password.
    pub password: String,
}

/// The caller's side of TLS, as PEM text.
#[derive(Clone, Default)]
pub struct ClientTls {
    /// Certificate authorities. `None`: the system's.
    pub authorities: Option<Vec<u8>>,
    /// Certificate chain and key of our own.
    pub identity: Option<(Vec<u8>, Vec<u8>)>,
    /// The name that the server's certificate must have. `None`: the host of the address.
    pub server_name: Option<String>,
}

/// How this node shows itself to OpenIM's services.
pub struct RegistrationPlan {
    /// The gateway service's name in the registry.
    pub service: String,
    /// Where this node's gRPC port is reached: the key's last part and the value (spec A.8).
    pub address: SocketAddr,
    /// Seconds that etcd keeps the key without a sign of life; upstream's are 30. etcd raises less than about 2.
    pub lease_s: u32,
    /// The key that OpenIM's Prometheus discovery reads.
    pub prometheus: Option<PrometheusPlan>,
}

/// Spec 11.4.
pub struct PrometheusPlan {
    /// The whole key.
    pub key: String,
    /// Where `/metrics` is answered.
    pub target: SocketAddr,
    /// Seconds; upstream's are 300.
    pub lease_s: u32,
}

/// How Redis is used.
pub struct RedisPlan {
    /// `host:port`; tried in turn. Which these are, `topology` says.
    pub addresses: Vec<String>,
    /// What stands behind the addresses.
    pub topology: RedisTopology,
    /// Empty: the default user.
    pub username: String,
    /// Empty: no login.
    pub password: String,
    /// Number of the database; 0 in a cluster.
    pub db: i64,
    /// Whether `online_change` is subscribed to.
    pub subscription: Subscription,
}

/// What Redis is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RedisTopology {
    /// One server; the addresses are names of it.
    Standalone,
    /// A Redis Cluster; the addresses are some of its nodes. What concerns a key goes to the node of its slot, and
    /// `online_change` is heard from any node: each hands it to all others.
    Cluster,
    /// The addresses are sentinels, which are asked who the master is.
    Sentinels {
        /// The master's name there.
        master: String,
    },
}

/// Whether `online_change` is subscribed to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subscription {
    /// Yes: OpenIM 3.8 and later.
    OnlineChange,
    /// No: OpenIM 3.5 has no such channel.
    Off,
}

/// How webhooks are sent.
pub struct WebhookPlan {
    /// `http://` or `https://`; `/<command>` is added.
    pub url: String,
    /// Certificate authorities as PEM, for https. `None`: the system's.
    pub authorities: Option<Vec<u8>>,
}

/// Why the thread did not start.
#[derive(Debug)]
pub enum ControlFault {
    /// No address at all.
    NoAddress {
        /// `etcd` or `Redis`.
        of: &'static str,
    },
    /// An address, name or URL that cannot be used.
    Address {
        /// Whose.
        of: &'static str,
        /// As it was given.
        given: String,
        /// What is wrong with it.
        why: String,
    },
    /// Certificates or keys that cannot be used.
    Tls {
        /// Whose.
        of: &'static str,
        /// What is wrong with them.
        why: String,
    },
    /// The list of members cannot be used: what is wrong with it.
    Members(String),
    /// The system gave no thread, descriptor or memory.
    System(io::Error),
}

/// The default of [`EtcdPlan::confirmation`].
pub const CONFIRMATION: Confirmation =
    Confirmation { observations: limits::ENDPOINTS_EMPTY_MAX, over_ms: limits::ENDPOINTS_EMPTY_MS };

/// The default of [`PrometheusPlan::lease_s`].
pub const PROMETHEUS_LEASE_S: u32 = seconds(limits::PROMETHEUS_LEASE_MS);

/// The default of [`RegistrationPlan::lease_s`].
pub const REGISTRATION_LEASE_S: u32 = seconds(limits::REGISTRATION_LEASE_MS);

/// The default of [`KubernetesPlan::watch_s`].
pub const WATCH_S: u32 = seconds(limits::KUBERNETES_WATCH_MS);

#[expect(clippy::cast_possible_truncation, reason = "minutes, not years")]
const fn seconds(ms: u64) -> u32 {
    (ms / 1_000) as u32
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials(..)")
    }
}

impl fmt::Debug for ClientTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClientTls(..)")
    }
}

impl fmt::Display for ControlFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoAddress { of } => write!(f, "{of} has no address: name at least one"),
            Self::Address { of, given, why } => write!(f, "{of}: `{given}` cannot be used: {why}"),
            Self::Tls { of, why } => write!(f, "{of}: certificates or key cannot be used: {why}"),
            Self::Members(why) => write!(f, "cluster.members: {why}"),
            Self::System(error) => write!(f, "the control thread cannot start: {error}"),
        }
    }
}

impl std::error::Error for ControlFault {}
