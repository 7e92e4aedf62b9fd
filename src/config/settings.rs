//! The one table of settings. File keys, environment names, flags, `--help`, `--print-config` and every message about a
//! bad value are derived from it; adding a setting is adding an entry here and a field to [`Config`].
//!
//! What always holds: defaults are text and go through the same parser as what operators write.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use super::levels::Levels;
use super::value::{Token, boolean, bytes, key_pair, millis, names, number, optional};
use super::{
    AdmissionConfig, AssignConfig, AuthConfig, Backend, ClusterConfig, Config, Driver, Engine, LogConfig,
    OpenimConfig, PerService, RecordConfig, RecordMode, RpcConfig, ShardsConfig, UserNames, WebsocketConfig,
};
use crate::limits;
use crate::session::handshake::origin::{Network, ProxyHeader};
use crate::session::meter::Rates;

/// The default of settings that are worked out from the machine.
pub(super) const AUTO: &str = "auto";
/// The default of `auth.secret`, known to everybody (spec 7.1); a gateway that runs with it warns.
pub const DEFAULT_SECRET: &str = "openIM123";

/// One setting.
#[derive(Clone, Copy)]
pub struct Setting {
    /// As in the file, for example `websocket.port`.
    pub key: &'static str,
    /// One sentence for `--help`.
    pub doc: &'static str,
    /// As text.
    pub default: &'static str,
    /// Completes "expected ...".
    pub expected: &'static str,
    /// A good value.
    pub example: &'static str,
    /// Whether the value may be shown.
    pub visibility: Visibility,
    /// When another value counts.
    pub reload: Reload,
    /// Parses and stores; `None`: not what was expected.
    pub(super) apply: fn(&mut Draft, &str) -> Option<()>,
    /// The value in force.
    pub(super) show: fn(&Config) -> String,
}

/// Whether a value may be shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Visibility {
    /// In `--print-config`, the banner and in faults.
    Public,
    /// Never; shown as `(set)`, unless there is none.
    Secret,
}

/// When another value of a setting counts, once the configuration is read again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reload {
    /// At once, see [`super::policy`].
    Live,
    /// After a restart: the gateway goes on with the old one and says so.
    Restart,
}

impl Setting {
    /// `PINION_WEBSOCKET_PORT`.
    pub fn env_name(&self) -> String {
        format!("PINION_{}", self.key.replace('.', "_").to_uppercase())
    }

    /// `websocket-port`, without dashes in front.
    pub fn flag_name(&self) -> String {
        self.key.replace(['.', '_'], "-")
    }

    /// What `--print-config` shows.
    pub fn shown(&self, config: &Config) -> String {
        match self.visibility {
            Visibility::Public => (self.show)(config),
            Visibility::Secret if (self.show)(config).is_empty() => String::new(),
            Visibility::Secret => "(set)".into(),
        }
    }
}

/// The setting of a key.
pub fn setting(key: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|s| s.key == key)
}

/// A configuration in the making: what is left open is worked out once all texts are in.
pub(super) struct Draft {
    pub(super) config: Config,
    pub(super) connections_max: Option<u32>,
    pub(super) shard_connections_max: Option<u32>,
    pub(super) shards: Option<u16>,
    pub(super) rpcs: Option<u16>,
    pub(super) pin: Option<bool>,
    pub(super) owner_key: Option<[u64; 2]>,
    /// `discovery.service_*`.
    pub(super) names: PerService<Option<String>>,
    pub(super) register_ip: Option<IpAddr>,
}

impl Draft {
    /// Holds no defaults: every field is overwritten by the table's.
    pub(super) fn blank() -> Self {
        let nowhere = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
        let config = Config {
            backend: Backend::Embedded,
            openim: OpenimConfig::default(),
            cluster: ClusterConfig::default(),
            assign: AssignConfig::default(),
            websocket: WebsocketConfig {
                address: nowhere.ip(),
                port: 0,
                connections_max: 0,
                handshakes_max: 0,
                send_buffer_bytes: 0,
                receive_buffer_bytes: 0,
            },
            admission: AdmissionConfig::default(),
            rpc: RpcConfig::at(nowhere),
            http_listen: nowhere,
            http_token: None,
            shards: ShardsConfig {
                count: 0,
                rpc_count: 0,
                pin: false,
                huge_pages: false,
                driver: Driver::Auto,
                engine: Engine::Auto,
                owner_key: [0; 2],
            },
            auth: AuthConfig { secret: String::new(), admin_users: Vec::new() },
            login_policy: 0,
            lenient: false,
            outbox_bytes_max: 0,
            outbox_frames_max: 0,
            shard_outbox_bytes_max: 0,
            rates: Rates { frames: 0, bytes: 0, inflated: 0, calls: 0 },
            drain_deadline_ms: 0,
            drain_evict_per_s: None,
            stall_abort_ms: 0,
            record: RecordConfig { mode: RecordMode::Off, dir: PathBuf::new(), bytes_max: 0 },
            log: LogConfig { level: String::new(), json: false, users: UserNames::Plain },
            planted: super::Planted::default(),
        };
        Self {
            config,
            connections_max: None,
            shard_connections_max: None,
            shards: None,
            rpcs: None,
            pin: None,
            owner_key: None,
            names: PerService::default(),
            register_ip: None,
        }
    }
}

/// `auto` leaves a value open; anything else must parse.
fn auto<T>(text: &str, parse: impl Fn(&str) -> Option<T>) -> Option<Option<T>> {
    if text == AUTO { Some(None) } else { parse(text).map(Some) }
}

fn rate(text: &str, least: u32) -> Option<u32> {
    u32::try_from(bytes(text, u64::from(least)..=u64::from(limits::REQUEST_RATE_MAX))?).ok()
}

fn size(text: &str, least: usize, most: usize) -> Option<usize> {
    let range = u64::try_from(least).ok()?..=u64::try_from(most).ok()?;
    usize::try_from(bytes(text, range)?).ok()
}

/// A number from a table of names.
fn named<T: Copy>(text: &str, table: &[(&str, T)]) -> Option<T> {
    table.iter().find(|(name, _)| *name == text).map(|(_, value)| *value)
}

/// The word for an empty list, or at most so many networks between commas.
fn networks(text: &str, empty: &str, most: usize) -> Option<Vec<Network>> {
    if text == empty {
        return Some(Vec::new());
    }
    let networks: Option<Vec<Network>> = names(text)?.iter().map(|name| Network::parse(name)).collect();
    networks.filter(|networks| networks.len() <= most)
}

fn networks_text(networks: &[Network], empty: &str) -> String {
    let networks: Vec<String> = networks.iter().map(Network::to_string).collect();
    if networks.is_empty() { empty.to_owned() } else { networks.join(",") }
}

/// The word for no `websocket.proxies`.
const NO_PROXIES: &str = "none";
/// The word for no `rpc.allow`.
const ANY_SOURCE: &str = "any";

fn path(text: &str) -> Option<PathBuf> {
    Some(PathBuf::from(text))
}

fn path_text(path: Option<&PathBuf>) -> String {
    path.map(|path| path.display().to_string()).unwrap_or_default()
}

const PROXY_HEADERS: [(&str, ProxyHeader); 2] =
    [("off", ProxyHeader::Off), ("required", ProxyHeader::Required)];
const ENGINES: [(&str, Engine); 3] = [("auto", Engine::Auto), ("ring", Engine::Ring), ("task", Engine::Task)];
const DRIVERS: [(&str, Driver); 3] =
    [("auto", Driver::Auto), ("io_uring", Driver::IoUring), ("epoll", Driver::Epoll)];
const RECORD_MODES: [(&str, RecordMode); 3] =
    [("off", RecordMode::Off), ("shape", RecordMode::Shape), ("full", RecordMode::Full)];
const LOG_USERS: [(&str, UserNames); 2] = [("plain", UserNames::Plain), ("hashed", UserNames::Hashed)];
const LOG_FORMATS: [(&str, bool); 2] = [("text", false), ("json", true)];

fn name_of<T: PartialEq + Copy>(value: T, table: &[(&str, T)]) -> String {
    let name = table.iter().find(|(_, v)| *v == value).map(|(name, _)| *name);
    name.unwrap_or_default().to_owned()
}

/// Builds an entry: key, doc, default, expected, example, how it is stored, how it is shown; `Secret` if it is one,
/// `Live` if another value counts without a restart.
macro_rules! setting {
    ($key:literal, $default:expr, $expected:expr, $example:literal, $doc:literal,
     |$draft:ident, $text:ident| $apply:expr, |$config:ident| $show:expr $(, $mark:ident)*) => {
        Setting {
            key: $key,
            doc: $doc,
            default: $default,
            expected: $expected,
            example: $example,
            visibility: setting!(@visibility $($mark)*),
            reload: setting!(@reload $($mark)*),
            apply: |$draft, $text| {
                $apply;
                Some(())
            },
            show: |$config| $show.to_string(),
        }
    };
    (@visibility Secret $($mark:ident)*) => { Visibility::Secret };
    (@visibility $($mark:ident)*) => { Visibility::Public };
    (@reload Live) => { Reload::Live };
    (@reload Secret Live) => { Reload::Live };
    (@reload $($mark:ident)*) => { Reload::Restart };
}

mod assign;
mod cluster;
mod openim;

/// Every setting, in the order of `--help` and `--print-config`.
pub static SETTINGS: &[Setting] = &joined::<
    { GATEWAY.len() + openim::OPENIM.len() + cluster::CLUSTER.len() + assign::ASSIGN.len() },
>(&[GATEWAY, openim::OPENIM, cluster::CLUSTER, assign::ASSIGN]);

/// Tables as one, which has as many entries as they together.
const fn joined<const N: usize>(tables: &[&[Setting]]) -> [Setting; N] {
    let mut all = [tables[0][0]; N];
    let (mut n, mut table, mut row) = (0, 0, 0);
    while n < N {
        if row == tables[table].len() {
            (table, row) = (table + 1, 0);
        }
        all[n] = tables[table][row];
        (n, row) = (n + 1, row + 1);
    }
    all
}

/// What counts with every backend.
const GATEWAY: &[Setting] = &[
    setting!(
        "backend",
        "embedded",
        "`embedded` or `openim`",
        "openim",
        "Who answers clients: embedded = this process, for development; openim = OpenIM's services",
        |d, t| d.config.backend = named(t, &Backend::NAMES)?,
        |c| name_of(c.backend, &Backend::NAMES)
    ),
    setting!(
        "websocket.address",
        "::",
        "an IP address (:: = all, IPv4 included)",
        "0.0.0.0",
        "Address that clients reach",
        |d, t| d.config.websocket.address = t.parse::<IpAddr>().ok()?,
        |c| c.websocket.address
    ),
    setting!(
        "websocket.port",
        "10001",
        "a port from 0 to 65535 (0 = any free one)",
        "10001",
        "Port that clients reach",
        |d, t| d.config.websocket.port = number(t, 0..=u16::MAX)?,
        |c| c.websocket.port
    ),
    setting!(
        "websocket.connections_max",
        AUTO,
        "`auto` or a number from 1 to 4000000",
        "50000",
        "Most client connections of the node; auto = 100000, or what the open-file limit allows less a reserve",
        |d, t| d.connections_max = auto(t, |t| number(t, 1..=4_000_000))?,
        |c| c.websocket.connections_max,
        Live
    ),
    setting!(
        "websocket.shard_connections_max",
        AUTO,
        "`auto` or a number from 1 to 4000000",
        "30000",
        "Most client connections of a shard, more get 503; auto = websocket.connections_max",
        |d, t| d.shard_connections_max = auto(t, |t| number(t, 1..=4_000_000))?,
        |c| c.admission.shard_connections_max
    ),
    setting!(
        "websocket.address_connections_max",
        "0",
        "a number from 0 to 4000000 (0 = any number)",
        "1000",
        "Most connections of one address (an IPv6 /64 is one), more get 503; set websocket.proxies if there are any",
        |d, t| d.config.admission.address_connections_max = number(t, 0..=4_000_000)?,
        |c| c.admission.address_connections_max
    ),
    setting!(
        "websocket.accepts_per_second_max",
        "20000",
        "a number from 0 to 1000000 (0 = any number)",
        "5000",
        "Connections that the node accepts per second; more get 503",
        |d, t| d.config.admission.accepts_per_second_max = number(t, 0..=1_000_000)?,
        |c| c.admission.accepts_per_second_max,
        Live
    ),
    setting!(
        "websocket.proxies",
        "none",
        "`none` or at most 256 networks joined by commas, like 10.0.0.0/8",
        "10.0.0.0/8,192.0.2.4",
        "Proxies whose X-Forwarded-For is believed; nobody else's is looked at",
        |d, t| d.config.admission.proxies.networks = networks(t, NO_PROXIES, limits::PROXY_NETWORKS_MAX)?,
        |c| networks_text(&c.admission.proxies.networks, NO_PROXIES)
    ),
    setting!(
        "websocket.proxy_protocol",
        "off",
        "`off` or `required`",
        "required",
        "required = connections of websocket.proxies begin with a PROXY header (v1 or v2), or are closed",
        |d, t| d.config.admission.proxies.header = named(t, &PROXY_HEADERS)?,
        |c| name_of(c.admission.proxies.header, &PROXY_HEADERS)
    ),
    setting!(
        "websocket.handshakes_max",
        "4096",
        "a number from 1 to 100000",
        "4096",
        "Request heads that a shard reads at once; more wait to be accepted",
        |d, t| d.config.websocket.handshakes_max = number(t, 1..=100_000)?,
        |c| c.websocket.handshakes_max,
        Live
    ),
    setting!(
        "websocket.send_buffer_bytes",
        "32KiB",
        "a size from 4KiB to 16MiB",
        "32KiB",
        "SO_SNDBUF of client sockets (the kernel doubles it)",
        |d, t| d.config.websocket.send_buffer_bytes = size(t, 4 << 10, 16 << 20)?,
        |c| c.websocket.send_buffer_bytes
    ),
    setting!(
        "websocket.receive_buffer_bytes",
        "32KiB",
        "a size from 4KiB to 16MiB",
        "32KiB",
        "SO_RCVBUF of client sockets (the kernel doubles it)",
        |d, t| d.config.websocket.receive_buffer_bytes = size(t, 4 << 10, 16 << 20)?,
        |c| c.websocket.receive_buffer_bytes
    ),
    setting!(
        "rpc.listen",
        "127.0.0.1:10140",
        "an IP address and port (port 0 = any free one)",
        "127.0.0.1:10140",
        "Where gRPC listens; anybody who reaches it may push, kick and read tokens unless rpc.allow, rpc.token or \
         rpc.tls_client_ca says otherwise",
        |d, t| d.config.rpc.listen = t.parse().ok()?,
        |c| c.rpc.listen
    ),
    setting!(
        "rpc.legacy_service",
        "false",
        "`true` or `false`",
        "true",
        "Also serve the push API under its name in OpenIM 3.5 and 3.6",
        |d, t| d.config.rpc.legacy_service = boolean(t)?,
        |c| c.rpc.legacy_service
    ),
    setting!(
        "rpc.connections_max",
        "1024",
        "a number from 1 to 100000",
        "256",
        "gRPC connections of an rpc thread; more are closed",
        |d, t| d.config.rpc.limits.connections_max = number(t, 1..=100_000)?,
        |c| c.rpc.limits.connections_max,
        Live
    ),
    setting!(
        "rpc.address_connections_max",
        "512",
        "a number from 0 to 100000 (0 = any number)",
        "64",
        "gRPC connections of one source address and rpc thread; more are closed",
        |d, t| d.config.rpc.limits.address_connections_max = number(t, 0..=100_000)?,
        |c| c.rpc.limits.address_connections_max,
        Live
    ),
    setting!(
        "rpc.streams_max",
        "1024",
        "a number from 1 to 65536",
        "256",
        "Calls that one gRPC connection has open; more are refused with REFUSED_STREAM",
        |d, t| d.config.rpc.limits.streams_max = number(t, 1..=65_536)?,
        |c| c.rpc.limits.streams_max,
        Live
    ),
    setting!(
        "rpc.header_list_bytes",
        "16KiB",
        "a size from 1KiB to 1MiB",
        "32KiB",
        "Metadata of one gRPC call; more gets HTTP status 431",
        |d, t| d.config.rpc.limits.header_list_bytes = u32::try_from(size(t, 1 << 10, 1 << 20)?).ok()?,
        |c| c.rpc.limits.header_list_bytes,
        Live
    ),
    setting!(
        "rpc.send_buffer_bytes",
        "64KiB",
        "a size from 16KiB to 16MiB",
        "256KiB",
        "Bytes of an answer buffered for a gRPC caller that does not read",
        |d, t| d.config.rpc.limits.send_buffer_bytes = size(t, 16 << 10, 16 << 20)?,
        |c| c.rpc.limits.send_buffer_bytes,
        Live
    ),
    setting!(
        "rpc.send_deadline_ms",
        "20s",
        "a time from 100ms to 600s",
        "5s",
        "A gRPC connection that takes no byte of what waits for it for so long is closed",
        |d, t| d.config.rpc.limits.send_deadline_ms = millis(t, 100..=600_000)?,
        |c| c.rpc.limits.send_deadline_ms,
        Live
    ),
    setting!(
        "rpc.control_frames_per_s",
        "20000",
        "a number from 10 to 100000000",
        "5000",
        "HTTP/2 frames of a gRPC connection that are no work (PING, SETTINGS ..); beyond a burst it is closed",
        |d, t| d.config.rpc.limits.control_frames_per_s = number(t, 10..=limits::H2_RATE_MAX)?,
        |c| c.rpc.limits.control_frames_per_s,
        Live
    ),
    setting!(
        "rpc.resets_per_s",
        "5000",
        "a number from 10 to 100000000",
        "1000",
        "Calls that a gRPC connection cancels; beyond a burst it is closed",
        |d, t| d.config.rpc.limits.resets_per_s = number(t, 10..=limits::H2_RATE_MAX)?,
        |c| c.rpc.limits.resets_per_s,
        Live
    ),
    setting!(
        "rpc.allow",
        ANY_SOURCE,
        "`any` or at most 256 networks joined by commas, like 10.0.0.0/8",
        "10.0.0.0/8,2001:db8::/32",
        "Who may connect to the gRPC port; others are cut before a byte is read",
        |d, t| d.config.rpc.allow = networks(t, ANY_SOURCE, limits::RPC_NETWORKS_MAX)?,
        |c| networks_text(&c.rpc.allow, ANY_SOURCE),
        Live
    ),
    setting!(
        "rpc.token",
        "",
        "16 to 512 visible ASCII characters without blanks, or nothing",
        "0123456789abcdef",
        "What gRPC callers, other nodes among them, must send as bearer token (health checks need none); readable on the \
         way without TLS; a reload counts for calls and links after it",
        |d, t| d.config.rpc.token = optional(t, Token::parse)?,
        |c| c.rpc.token.as_ref().map(Token::secret).unwrap_or_default(),
        Secret,
        Live
    ),
    setting!(
        "rpc.tls_cert",
        "",
        "the path of a PEM file, or nothing",
        "/etc/pinion/tls.crt",
        "The gateway's certificate, then those between it and its CA; gRPC is then served over TLS only",
        |d, t| d.config.rpc.tls_cert = optional(t, path)?,
        |c| path_text(c.rpc.tls_cert.as_ref()),
        Live
    ),
    setting!(
        "rpc.tls_key",
        "",
        "the path of a PEM file, or nothing",
        "/etc/pinion/tls.key",
        "The private key of rpc.tls_cert, not encrypted; the files are read at start and at each reload",
        |d, t| d.config.rpc.tls_key = optional(t, path)?,
        |c| path_text(c.rpc.tls_key.as_ref()),
        Live
    ),
    setting!(
        "rpc.tls_client_ca",
        "",
        "the path of a PEM file, or nothing",
        "/etc/pinion/clients-ca.crt",
        "gRPC callers must show a certificate signed by one of these CAs; empty: none is asked for",
        |d, t| d.config.rpc.tls_client_ca = optional(t, path)?,
        |c| path_text(c.rpc.tls_client_ca.as_ref()),
        Live
    ),
    setting!(
        "http.listen",
        "127.0.0.1:12140",
        "an IP address and port (port 0 = any free one)",
        "127.0.0.1:12140",
        "Where health and metrics are served",
        |d, t| d.config.http_listen = t.parse().ok()?,
        |c| c.http_listen
    ),
    setting!(
        "http.token",
        "",
        "16 to 512 visible ASCII characters without blanks, or nothing",
        "0123456789abcdef",
        "What callers from other machines send as bearer token to ask /v1/*; without one they are refused",
        |d, t| d.config.http_token = optional(t, Token::parse)?,
        |c| c.http_token.as_ref().map(Token::secret).unwrap_or_default(),
        Secret,
        Live
    ),
    setting!(
        "shards.count",
        AUTO,
        "`auto` or a number from 1 to 1024",
        "4",
        "Shard threads; auto = one per CPU, less the rpc threads from 4 CPUs up",
        |d, t| d.shards = auto(t, |t| number(t, 1..=1024))?,
        |c| c.shards.count
    ),
    setting!(
        "shards.rpc_count",
        AUTO,
        "`auto` or a number from 1 to 128",
        "1",
        "rpc threads; auto = one per 8 shards",
        |d, t| d.rpcs = auto(t, |t| number(t, 1..=128))?,
        |c| c.shards.rpc_count
    ),
    setting!(
        "shards.pin",
        AUTO,
        "`auto`, `true` or `false`",
        "true",
        "Pin shard i to the i-th CPU of the set; auto = unless a cgroup quota is smaller than the set",
        |d, t| d.pin = auto(t, boolean)?,
        |c| c.shards.pin
    ),
    setting!(
        "shards.huge_pages",
        "false",
        "`true` or `false`",
        "true",
        "Let memory come in transparent huge pages of 2 MiB: tens of MiB more, fewer misses of the address cache",
        |d, t| d.config.shards.huge_pages = boolean(t)?,
        |c| c.shards.huge_pages
    ),
    setting!(
        "shards.driver",
        "auto",
        "`auto`, `io_uring` or `epoll`",
        "auto",
        "What waits for sockets; auto = io_uring if the kernel lets us, else epoll",
        |d, t| d.config.shards.driver = named(t, &DRIVERS)?,
        |c| name_of(c.shards.driver, &DRIVERS)
    ),
    setting!(
        "shards.engine",
        "auto",
        "`auto`, `ring` or `task`",
        "task",
        "What moves the bytes of clients: an own io_uring or a task per connection; auto = ring where the driver and kernel allow it",
        |d, t| d.config.shards.engine = named(t, &ENGINES)?,
        |c| name_of(c.shards.engine, &ENGINES)
    ),
    setting!(
        "shards.owner_key",
        "random",
        "`random` or two hexadecimal numbers of 64 bits joined by a colon",
        "1f:2e",
        "Key of the hash that gives users to shards; give it in tests only",
        |d, t| d.owner_key = if t == "random" { None } else { Some(key_pair(t)?) },
        |c| format!("{:x}:{:x}", c.shards.owner_key[0], c.shards.owner_key[1]),
        Secret
    ),
    setting!(
        "auth.secret",
        DEFAULT_SECRET,
        "a secret that is not empty",
        "the `secret` of OpenIM's share.yml",
        "Key that tokens are signed with; prefer file or environment, flags show in the process list",
        |d, t| d.config.auth.secret = (!t.is_empty()).then(|| t.to_owned())?,
        |c| c.auth.secret,
        Secret
    ),
    setting!(
        "auth.admin_users",
        "imAdmin",
        "user ids joined by commas",
        "imAdmin",
        "Who may ask for the online status of users over gRPC",
        |d, t| d.config.auth.admin_users = names(t)?,
        |c| c.auth.admin_users.join(","),
        Live
    ),
    setting!(
        "login.policy",
        "1",
        "0, 1, 4 or 5",
        "1",
        "Which older logins a login ends (OpenIM's multiLogin.policy)",
        |d, t| d.config.login_policy = named(t, &[("0", 0), ("1", 1), ("4", 4), ("5", 5)])?,
        |c| c.login_policy,
        Live
    ),
    setting!(
        "login.lenient",
        "false",
        "`true` or `false`",
        "false",
        "Accept logins without operationID and isBackground, as OpenIM did up to 3.8.3-patch.13",
        |d, t| d.config.lenient = boolean(t)?,
        |c| c.lenient,
        Live
    ),
    setting!(
        "login.connections_per_user_max",
        "64",
        "a number from 1 to 100000",
        "64",
        "Most connections of one user that a login leaves; more get 503",
        |d, t| d.config.admission.user_connections_max = number(t, 1..=100_000)?,
        |c| c.admission.user_connections_max,
        Live
    ),
    setting!(
        "login.spread_ms",
        "2s",
        "a time from 0 to 5s (0 = off; plain number = milliseconds)",
        "2s",
        "In a storm of logins a 101 waits a random time, at most this",
        |d, t| d.config.admission.spread_ms = millis(t, 0..=5_000)?,
        |c| c.admission.spread_ms,
        Live
    ),
    setting!(
        "login.spread_above_per_second",
        "2000",
        "a number from 1 to 1000000",
        "2000",
        "Logins per second and shard that are no storm",
        |d, t| d.config.admission.spread_above_per_second = number(t, 1..=1_000_000)?,
        |c| c.admission.spread_above_per_second,
        Live
    ),
    setting!(
        "outbox.bytes_max",
        "2MiB",
        "a size from 1025KiB to 64MiB",
        "2MiB",
        "Bytes that may wait for one connection; more: it is closed as a slow consumer",
        |d, t| d.config.outbox_bytes_max = size(t, limits::FRAME_SENT_BYTES_MAX + 1024, 64 << 20)?,
        |c| c.outbox_bytes_max,
        Live
    ),
    setting!(
        "outbox.frames_max",
        "256",
        "a number from 16 to 65536",
        "256",
        "Frames that may wait for one connection; more: it is closed as a slow consumer",
        |d, t| d.config.outbox_frames_max = number(t, 16..=65_536)?,
        |c| c.outbox_frames_max,
        Live
    ),
    setting!(
        "outbox.shard_bytes_max",
        "256MiB",
        "a size from 4MiB to 64GiB",
        "256MiB",
        "Bytes that may wait for all connections of a shard",
        |d, t| d.config.shard_outbox_bytes_max = size(t, 4 << 20, 64 << 30)?,
        |c| c.shard_outbox_bytes_max
    ),
    setting!(
        "requests.frames_per_s",
        "2000",
        "a number from 10 to 1000000",
        "1000",
        "Frames of one connection per second, 4 seconds' worth in a burst; more: it is closed",
        |d, t| d.config.rates.frames = number(t, 10..=1_000_000)?,
        |c| c.rates.frames,
        Live
    ),
    setting!(
        "requests.bytes_per_s",
        "4MiB",
        "a size from 64KiB to 64MiB",
        "4MiB",
        "Bytes from one connection per second, 4 seconds' worth in a burst; more: it is closed",
        |d, t| d.config.rates.bytes = rate(t, 64 << 10)?,
        |c| c.rates.bytes,
        Live
    ),
    setting!(
        "requests.inflated_bytes_per_s",
        "16MiB",
        "a size from 1MiB to 64MiB",
        "16MiB",
        "As requests.bytes_per_s, after gunzip",
        |d, t| d.config.rates.inflated = rate(t, 1 << 20)?,
        |c| c.rates.inflated,
        Live
    ),
    setting!(
        "requests.calls_per_s",
        "500",
        "a number from 1 to 1000000",
        "500",
        "Requests of one connection that upstream must answer, per second; more get an error at once",
        |d, t| d.config.rates.calls = number(t, 1..=1_000_000)?,
        |c| c.rates.calls,
        Live
    ),
    setting!(
        "drain.deadline_ms",
        "10s",
        "a time from 0 to 3600s (plain number = milliseconds)",
        "10s",
        "After SIGTERM all connections are closed within this time",
        |d, t| d.config.drain_deadline_ms = millis(t, 0..=3_600_000)?,
        |c| c.drain_deadline_ms,
        Live
    ),
    setting!(
        "drain.evict_per_s",
        AUTO,
        "`auto` or a number from 1 to 100000",
        "200",
        "At most so many connections are closed per second by POST /v1/drain; auto: half of what the other members \
         accept, 500 where none is known",
        |d, t| d.config.drain_evict_per_s = auto(t, |t| number(t, 1..=limits::DRAIN_EVICT_PER_S_MAX))?,
        |c| c.drain_evict_per_s.map_or_else(|| AUTO.to_owned(), |n| n.to_string()),
        Live
    ),
    setting!(
        "stall.abort_ms",
        "15s",
        "a time from 2s to 3600s (plain number = milliseconds)",
        "15s",
        "A shard that does not turn for so long ends the process, for the supervisor to restart",
        |d, t| d.config.stall_abort_ms = millis(t, 2 * limits::STALL_REPORT_MS..=3_600_000)?,
        |c| c.stall_abort_ms,
        Live
    ),
    setting!(
        "record.mode",
        "off",
        "`off`, `shape` or `full`",
        "shape",
        "Record the inputs of shards; shape: no bodies, no tokens; full: raw bytes, tokens included",
        |d, t| d.config.record.mode = named(t, &RECORD_MODES)?,
        |c| name_of(c.record.mode, &RECORD_MODES)
    ),
    setting!(
        "record.dir",
        "recordings",
        "the path of a directory",
        "/var/lib/pinion/recordings",
        "Where recordings go, one file per shard, readable by the owner only",
        |d, t| d.config.record.dir = (!t.is_empty()).then(|| t.into())?,
        |c| c.record.dir.display()
    ),
    setting!(
        "record.bytes_max",
        "256MiB",
        "a size from 64KiB to 1024GiB",
        "256MiB",
        "A shard's recording stops there",
        |d, t| d.config.record.bytes_max = bytes(t, 64 << 10..=1 << 40)?,
        |c| c.record.bytes_max
    ),
    setting!(
        "log.level",
        "info",
        "`off`, `error`, `warn`, `info`, `debug` or `trace`; behind it, joined by commas, exceptions like pinion::rpc=debug",
        "info,pinion::rpc=debug",
        "Least severe lines that are logged",
        |d, t| d.config.log.level = Levels::parse(t).ok()?.text,
        |c| c.log.level,
        Live
    ),
    setting!(
        "log.format",
        "text",
        "`text` or `json`",
        "json",
        "How lines are logged, on standard error",
        |d, t| d.config.log.json = named(t, &LOG_FORMATS)?,
        |c| name_of(c.log.json, &LOG_FORMATS)
    ),
    setting!(
        "log.users",
        "plain",
        "`plain` or `hashed`",
        "hashed",
        "How users appear in the log; hashed: with a key drawn at start",
        |d, t| d.config.log.users = named(t, &LOG_USERS)?,
        |c| name_of(c.log.users, &LOG_USERS),
        Live
    ),
];

// The table's texts and limits.rs name the same defaults; `every_default_and_example_is_accepted` compares them.

#[cfg(test)]
#[path = "settings_tests.rs"]
mod tests;
