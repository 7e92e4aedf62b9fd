//! The one table of settings, in parts by topic. File keys, environment names, flags, `--help`, `--print-config` and
//! every message about a bad value are derived from it; adding a setting is adding an entry to its topic's part and a
//! field to [`Config`].
//!
//! What always holds: defaults are text and go through the same parser as what operators write.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use super::value::{bytes, names};
use super::{
    AdmissionConfig, AssignConfig, AuthConfig, Backend, ClusterConfig, Config, Driver, Engine, LogConfig,
    OpenimConfig, PerService, RecordConfig, RecordMode, RpcConfig, ShardsConfig, UserNames, WebsocketConfig,
};
use crate::session::handshake::origin::Network;
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

fn path(text: &str) -> Option<PathBuf> {
    Some(PathBuf::from(text))
}

fn path_text(path: Option<&PathBuf>) -> String {
    path.map(|path| path.display().to_string()).unwrap_or_default()
}

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
mod node;
mod openim;
mod rpc;
mod upstream;
mod websocket;

const TABLES: &[&[Setting]] = &[
    websocket::WEBSOCKET,
    rpc::RPC,
    node::NODE,
    openim::OPENIM,
    upstream::UPSTREAM,
    cluster::CLUSTER,
    assign::ASSIGN,
];

/// Every setting, in the order of `--help` and `--print-config`.
pub static SETTINGS: &[Setting] = &joined::<{ rows(TABLES) }>(TABLES);

const fn rows(tables: &[&[Setting]]) -> usize {
    let (mut rows, mut table) = (0, 0);
    while table < tables.len() {
        rows += tables[table].len();
        table += 1;
    }
    rows
}

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

// The table's texts and limits.rs name the same defaults; `every_default_and_example_is_accepted` compares them.

#[cfg(test)]
#[path = "settings_tests.rs"]
mod tests;
