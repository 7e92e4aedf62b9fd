//! The configuration: text to a checked value, once. A `Config` is valid by construction.
//!
//! `settings` is the one table that everything derives from; `sources` collects texts from file (`yaml`), environment
//! and flags; `load` turns them into a [`Config`] or into every [`Fault`] at once; `machine` reads what the machine
//! allows and `layout` decides threads and CPUs from it; `tls` and `pem` read certificates. `policy` is what may change
//! while the gateway runs, `reload` what a new configuration changes; `cluster` has what several nodes need, `openim`
//! has what `backend: openim` needs, and reads OpenIM's own configuration folder;
//! `text_file` reads lists and rules. No command line is parsed here (that is `cli`).

pub mod assign;
#[cfg(test)]
#[path = "../../tests/it/harness/authority.rs"]
pub(crate) mod authority;
pub mod cluster;
mod cluster_checks;
mod fault;
pub mod layout;
pub mod levels;
mod load;
pub mod machine;
pub mod member_file;
pub mod openim;
pub mod peer_tls;
pub mod pem;
mod planted;
pub mod policy;
pub mod reload;
mod settings;
mod sources;
pub mod text_file;
pub mod tls;
mod value;
mod yaml;

pub use assign::{AssignConfig, AssignPolicy, Origins};
pub use cluster::{ClusterConfig, MembershipSource};
pub use cluster_checks::host_name;
pub use fault::{Fault, Faults, Origin};
use load::Judge;
pub use load::{Loaded, load, text_of};
pub use openim::{
    Backend, DiscoveryConfig, DiscoveryKind, EtcdConfig, NAMESPACE_ENV, OpenimConfig, POD_ENV, PerService,
    PresenceConfig, RedisConfig, RedisMode, UpstreamConfig, WebhookConfig, WebhooksConfig,
};
pub use planted::{Planted, PlantedFault, PlantedPush, PlantedUpstream};
pub use settings::{DEFAULT_SECRET, Reload, SETTINGS, Setting, Visibility, setting};
pub use sources::{CONFIG_ENV, Sources};
pub use value::{Endpoint, Secret, Token};

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use crate::limits;
use crate::session::handshake::origin::{Network, Proxies};
use crate::session::meter::Rates;
use tls::Tls;

/// Everything an operator can set, checked and with defaults filled in. Immutable; shared as `Arc<Config>`.
#[derive(Clone, Debug)]
pub struct Config {
    /// `backend`, default embedded.
    pub backend: Backend,
    /// What counts with `backend: openim` only.
    pub openim: OpenimConfig,
    /// `cluster.*`: this node among others.
    pub cluster: ClusterConfig,
    /// `assign.*`: telling clients which node to dial.
    pub assign: AssignConfig,
    /// `websocket.*`: what clients reach.
    pub websocket: WebsocketConfig,
    /// What is let in besides `websocket.connections_max`.
    pub admission: AdmissionConfig,
    /// `rpc.*`.
    pub rpc: RpcConfig,
    /// `http.listen`: admin HTTP, default 127.0.0.1:12140. Port 0 = any free port.
    pub http_listen: SocketAddr,
    /// `http.token`: what `/v1/*` asks of callers from other machines; `None`: they are refused.
    pub http_token: Option<Token>,
    /// `shards.*`.
    pub shards: ShardsConfig,
    /// `auth.*`.
    pub auth: AuthConfig,
    /// `login.policy`: 0, 1, 4 or 5 (spec 8.2), default 1.
    pub login_policy: u8,
    /// `login.lenient`: accept missing `operationID`/`isBackground` (spec 1.2), default false.
    pub lenient: bool,
    /// `outbox.bytes_max`, default `limits::OUTBOX_BYTES_MAX`.
    pub outbox_bytes_max: usize,
    /// `outbox.frames_max`, default `limits::OUTBOX_FRAMES_MAX`.
    pub outbox_frames_max: usize,
    /// `outbox.shard_bytes_max`, default `limits::SHARD_OUTBOX_BYTES_MAX`.
    pub shard_outbox_bytes_max: usize,
    /// `requests.*`: what one connection may ask for per second.
    pub rates: Rates,
    /// `drain.deadline_ms`, default `limits::DRAIN_DEADLINE_MS`.
    pub drain_deadline_ms: u64,
    /// `drain.evict_per_s`, default `None`: worked out from what the other members accept.
    pub drain_evict_per_s: Option<u32>,
    /// `stall.abort_ms`, default `limits::STALL_ABORT_MS`.
    pub stall_abort_ms: u64,
    /// `record.*`.
    pub record: RecordConfig,
    /// `log.*`.
    pub log: LogConfig,
    /// Test switches; no setting.
    pub planted: Planted,
}

/// `websocket.*`.
#[derive(Clone, Debug)]
pub struct WebsocketConfig {
    /// `websocket.address`, default `::` (dual stack).
    pub address: IpAddr,
    /// `websocket.port`, default 10001; 0 = any free port.
    pub port: u16,
    /// `websocket.connections_max`: configured, or what the open-file limit allows less a reserve. Per node.
    pub connections_max: u32,
    /// `websocket.handshakes_max` per shard, default `limits::HANDSHAKES_MAX`.
    pub handshakes_max: usize,
    /// `websocket.send_buffer_bytes`: SO_SNDBUF, default 32 KiB.
    pub send_buffer_bytes: usize,
    /// `websocket.receive_buffer_bytes`: SO_RCVBUF, default 32 KiB.
    pub receive_buffer_bytes: usize,
}

/// Limits of what is let in. Each refusal is a 503 without JSON.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdmissionConfig {
    /// `websocket.shard_connections_max`, default: as many as the node may have.
    pub shard_connections_max: u32,
    /// `websocket.address_connections_max`, default 0 = any number.
    pub address_connections_max: u32,
    /// `websocket.accepts_per_second_max` of the node, default `limits::ACCEPTS_PER_SECOND_MAX`; 0 = any number.
    pub accepts_per_second_max: u32,
    /// `websocket.proxies` and `websocket.proxy_protocol`, default: nobody is believed.
    pub proxies: Proxies,
    /// `login.connections_per_user_max`, default `limits::USER_CONNECTIONS_MAX`.
    pub user_connections_max: u32,
    /// `login.spread_ms`, default `limits::SPREAD_MS`; 0 = off.
    pub spread_ms: u64,
    /// `login.spread_above_per_second` of a shard, default `limits::LOGINS_UNSPREAD_MAX`.
    pub spread_above_per_second: u32,
}

impl Default for AdmissionConfig {
    fn default() -> Self {
        Self {
            shard_connections_max: limits::CONNECTIONS_MAX,
            address_connections_max: 0,
            accepts_per_second_max: limits::ACCEPTS_PER_SECOND_MAX,
            proxies: Proxies::NONE,
            user_connections_max: limits::USER_CONNECTIONS_MAX,
            spread_ms: limits::SPREAD_MS,
            spread_above_per_second: limits::LOGINS_UNSPREAD_MAX,
        }
    }
}

/// `rpc.*`: the gRPC port.
#[derive(Clone, Debug)]
pub struct RpcConfig {
    /// `rpc.listen`, default 127.0.0.1:10140. Port 0 = any free port.
    pub listen: SocketAddr,
    /// `rpc.legacy_service`: also serve `OpenIMServer.msggateway.msgGateway` (OpenIM 3.5 and 3.6), default false.
    pub legacy_service: bool,
    /// What callers may take.
    pub limits: RpcLimits,
    /// `rpc.allow`: sources that may connect; none = all, the default.
    pub allow: Vec<Network>,
    /// `rpc.token`: what calls must carry; default none.
    pub token: Option<Token>,
    /// `rpc.tls_cert`: PEM, the gateway's certificate first; default none: no TLS.
    pub tls_cert: Option<PathBuf>,
    /// `rpc.tls_key`: PEM, the key of that certificate.
    pub tls_key: Option<PathBuf>,
    /// `rpc.tls_client_ca`: PEM, who signs the certificates that callers must show; default none: they need not.
    pub tls_client_ca: Option<PathBuf>,
    /// What the three files say.
    pub tls: Option<Tls>,
}

impl RpcConfig {
    /// All defaults but the address.
    pub fn at(listen: SocketAddr) -> Self {
        Self {
            listen,
            legacy_service: false,
            allow: Vec::new(),
            token: None,
            tls_cert: None,
            tls_key: None,
            tls_client_ca: None,
            tls: None,
            limits: RpcLimits::DEFAULT,
        }
    }

    /// Whether callers from other machines are asked for nothing. TLS without a client CA asks them for nothing.
    pub fn is_exposed(&self) -> bool {
        let asks = !self.allow.is_empty() || self.token.is_some() || self.tls_client_ca.is_some();
        !self.listen.ip().to_canonical().is_loopback() && !asks
    }
}

/// `rpc.*`: what callers may take of one rpc thread. What happens above: the limit of the same name in `limits.rs`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RpcLimits {
    /// `rpc.connections_max`, default `limits::RPC_CONNECTIONS_MAX`.
    pub connections_max: usize,
    /// `rpc.address_connections_max`, default `limits::RPC_ADDRESS_CONNECTIONS_MAX`; 0 = any number.
    pub address_connections_max: usize,
    /// `rpc.streams_max` of a connection, default `limits::H2_STREAMS_MAX`.
    pub streams_max: u32,
    /// `rpc.header_list_bytes` of a request, default `limits::H2_HEADER_LIST_BYTES`.
    pub header_list_bytes: u32,
    /// `rpc.send_buffer_bytes` of a stream, default `limits::H2_SEND_BUFFER_BYTES`.
    pub send_buffer_bytes: usize,
    /// `rpc.send_deadline_ms`, default `limits::H2_SEND_DEADLINE_MS`.
    pub send_deadline_ms: u64,
    /// `rpc.control_frames_per_s` of a connection, default `limits::H2_CONTROL_FRAMES_PER_S_MAX`.
    pub control_frames_per_s: u32,
    /// `rpc.resets_per_s` of a connection, default `limits::H2_RESETS_PER_S_MAX`.
    pub resets_per_s: u32,
}

impl RpcLimits {
    /// What holds unless an operator says otherwise.
    pub const DEFAULT: Self = Self {
        connections_max: limits::RPC_CONNECTIONS_MAX,
        address_connections_max: limits::RPC_ADDRESS_CONNECTIONS_MAX,
        streams_max: limits::H2_STREAMS_MAX,
        header_list_bytes: limits::H2_HEADER_LIST_BYTES,
        send_buffer_bytes: limits::H2_SEND_BUFFER_BYTES,
        send_deadline_ms: limits::H2_SEND_DEADLINE_MS,
        control_frames_per_s: limits::H2_CONTROL_FRAMES_PER_S_MAX,
        resets_per_s: limits::H2_RESETS_PER_S_MAX,
    };
}

/// `shards.*`.
#[derive(Clone, Debug)]
pub struct ShardsConfig {
    /// `shards.count`, default: min(CPU set, cgroup quota) less the rpc threads from 4 CPUs up.
    pub count: u16,
    /// rpc threads: 1 per 8 shards, at least 1.
    pub rpc_count: u16,
    /// `shards.pin`, default true: pin shard i to the i-th CPU of the set.
    pub pin: bool,
    /// `shards.driver`.
    pub driver: Driver,
    /// `shards.engine`.
    pub engine: Engine,
    /// `shards.huge_pages`, default false: memory in pages of 2 MiB.
    pub huge_pages: bool,
    /// `shards.owner_key`: two 64-bit numbers; random unless given (tests).
    pub owner_key: [u64; 2],
}

/// `shards.engine`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    /// The own ring if the driver is io_uring and the kernel has what it needs, else tasks.
    Auto,
    /// The own ring, or do not start.
    Ring,
    /// A lean task per connection.
    Task,
}

/// `shards.driver`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Driver {
    /// io_uring if the kernel lets us, else epoll.
    Auto,
    /// io_uring or refuse to start.
    IoUring,
    /// epoll.
    Epoll,
}

/// `auth.*`.
#[derive(Clone, Debug)]
pub struct AuthConfig {
    /// `auth.secret`: HS256 key of the tokens, default `openIM123` (spec 7.1), with a warning.
    pub secret: String,
    /// `auth.admin_users`: may ask `GetUsersOnlineStatus`, default `imAdmin`.
    pub admin_users: Vec<String>,
}

/// `record.*`.
#[derive(Clone, Debug)]
pub struct RecordConfig {
    /// `record.mode`.
    pub mode: RecordMode,
    /// `record.dir`: one file per shard, mode 0600.
    pub dir: PathBuf,
    /// `record.bytes_max` per shard.
    pub bytes_max: u64,
}

/// `record.mode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordMode {
    /// Nothing is recorded (default).
    Off,
    /// What decoding and token check yielded: no bodies, no tokens.
    Shape,
    /// Raw bytes, tokens included.
    Full,
}

/// `log.*`.
#[derive(Clone, Debug)]
pub struct LogConfig {
    /// `log.level`, as [`levels::Levels`] reads it; default info.
    pub level: String,
    /// `log.format`: `text` (default) or `json`.
    pub json: bool,
    /// `log.users`: `plain` (default) or `hashed`.
    pub users: UserNames,
}

/// `log.users`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UserNames {
    /// As they are.
    Plain,
    /// As a keyed hash: lines of one user can be found, the user cannot be read.
    Hashed,
}
