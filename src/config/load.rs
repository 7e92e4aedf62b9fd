//! From sources and machine to a [`Config`]: parse every text once, fill in what was left open, check values against
//! each other and against the machine. Reports every fault, not the first.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use super::cluster::MembershipSource;
use super::cluster_checks;
use super::fault::{Fault, Faults, Origin};
use super::layout::{self, Counts};
use super::machine::Machine;
use super::openim::combine;
use super::peer_tls::PeerTls;
use super::settings::{AUTO, Draft, SETTINGS, Setting, Visibility, setting};
use super::sources::{self, Given, Sources};
use super::tls::TlsFault;
use super::{Config, RecordMode, assign, tls};
use crate::limits::{CONNECTIONS_MAX, FILES_RESERVED_MAX};
use crate::session::handshake::origin::ProxyHeader;
use crate::time::UnixMs;

/// A configuration that is good, and where each value came from.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The values.
    pub config: Config,
    /// What works and is likely not what the operator wants, one line each.
    pub warnings: Vec<String>,
    /// What OpenIM's folder says that does not count here, one line each.
    pub notes: Vec<String>,
    /// By key; every setting has one.
    origins: BTreeMap<&'static str, Origin>,
}

impl Loaded {
    /// Where the value of a setting came from.
    pub fn origin(&self, key: &str) -> &Origin {
        self.origins.get(key).unwrap_or(&Origin::Default)
    }

    /// What was taken from OpenIM's folder or from the variables that override it, one line each, secrets hidden.
    pub fn taken(&self) -> Vec<String> {
        let taken = SETTINGS.iter().filter(|s| self.origin(s.key).is_openims());
        let line = |s: &Setting| format!("{} = {}  ({})", s.key, s.shown(&self.config), self.origin(s.key));
        taken.map(line).collect()
    }

    /// A file that sets what is in force, with the source of each value behind it.
    pub fn print(&self) -> String {
        let lines = SETTINGS.iter().map(|s| {
            let value = s.shown(&self.config);
            let plain = s.visibility == Visibility::Public || value.is_empty();
            let value = if plain { quoted(&value) } else { value };
            format!("{}: {value}  # {}\n", s.key, self.origin(s.key))
        });
        lines.collect()
    }
}

/// Quotes what YAML would not read back as the same text.
fn quoted(value: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-./".contains(c);
    if value.starts_with(|c: char| c.is_ascii_alphanumeric()) && value.chars().all(plain) {
        value.to_owned()
    } else {
        format!("{value:?}")
    }
}

/// The text that was given for one setting, for commands that need no more: flag over environment over file.
///
/// # Errors
/// What is wrong with the sources; the text itself is not judged.
pub fn text_of(key: &str, sources: &Sources) -> Result<Option<String>, Faults> {
    let mut faults = Vec::new();
    let mut given = sources::collect(sources, &mut faults).texts;
    if faults.is_empty() { Ok(given.remove(key).map(|(text, _)| text)) } else { Err(Faults(faults)) }
}

/// Judges combinations: what the settings amount to, and who said so.
#[derive(Clone, Copy)]
pub(super) struct Judge<'a> {
    pub(super) config: &'a Config,
    origins: &'a BTreeMap<&'static str, Origin>,
}

impl Judge<'_> {
    /// A fault of one setting.
    pub(super) fn fault(&self, key: &'static str, expected: &str, example: &str) -> Fault {
        Fault {
            key: key.into(),
            value: setting(key).map(|s| s.shown(self.config)),
            origin: self.origins.get(key).cloned().unwrap_or(Origin::Default),
            expected: expected.to_owned(),
            example: example.to_owned(),
        }
    }

    /// Whether nobody gave the setting.
    pub(super) fn is_silent(&self, key: &str) -> bool {
        self.origins.get(key).is_none_or(|origin| !origin.is_given())
    }
}

/// Loads the configuration. `now` judges certificates; `draw` gives two random numbers for `shards.owner_key`.
///
/// # Errors
/// All that is wrong, at once.
pub fn load(
    sources: &Sources,
    machine: &Machine,
    now: UnixMs,
    draw: impl FnOnce() -> [u64; 2],
) -> Result<Loaded, Faults> {
    let mut faults = Vec::new();
    let sources::Collected { texts: given, notes } = sources::collect(sources, &mut faults);
    let mut draft = Draft::blank();
    let mut origins = BTreeMap::new();
    for setting in SETTINGS {
        let (text, origin) = match given.get(setting.key) {
            Some((text, origin)) => (text.as_str(), origin.clone()),
            None => (setting.default, Origin::Default),
        };
        if (setting.apply)(&mut draft, text).is_none() {
            faults.push(Fault {
                key: setting.key.into(),
                value: Some(shown(setting.visibility, text)),
                origin: origin.clone(),
                expected: format!("expected {}", setting.expected),
                example: setting.example.into(),
            });
        }
        origins.insert(setting.key, origin);
    }
    fill_in(&mut draft, machine, &given, &mut origins);
    combine::fill_in(&mut draft, machine, &mut origins);
    let named = cluster_checks::fill_in(&mut draft.config, &sources.env, &mut origins);
    draft.config.shards.owner_key = draft.owner_key.unwrap_or_else(draw);
    // Values that did not parse would give follow-up faults about values that nobody wrote.
    let sound = |key: &str| !faults.iter().any(|f: &Fault| f.key == key);
    let mut warnings = exposure(&draft.config);
    warnings.extend(combine::warnings(&draft.config));
    let listed_rules = assign::load(&mut draft.config, &origins);
    let judge = Judge { config: &draft.config, origins: &origins };
    let mut cross = cross_faults(judge, machine);
    match named {
        Ok(()) => cross.extend(cluster_checks::faults(judge, machine)),
        Err(why) => cross.push(judge.fault("cluster.node_id", &why, "gateway-0")),
    }
    // Whether there is anything to hand out depends on it.
    let is_known = |fault: &Fault| fault.key != "assign.listen" || sound("cluster.source");
    cross.extend(listed_rules.into_iter().filter(is_known));
    // What everything else of it depends on.
    if ["backend", "compat", "discovery.kind"].into_iter().all(sound) {
        cross.extend(combine::faults(judge, machine));
        match combine::ring(&draft.config, &sources.env) {
            Ok(members) => draft.config.openim.discovery.members = members,
            Err(found) => cross.extend(found),
        }
    }
    warnings.extend(cluster_checks::warnings(&draft.config));
    if let Err(found) = read_tls(&mut draft.config, now, &mut warnings) {
        let judge = Judge { config: &draft.config, origins: &origins };
        let example = |key| setting(key).map(|s| s.example).unwrap_or_default();
        cross.extend(found.iter().map(|(key, text)| judge.fault(key, text, example(key))));
    }
    let cross: Vec<Fault> = cross.into_iter().filter(|fault| sound(&fault.key)).collect();
    faults.extend(cross);
    if faults.is_empty() {
        Ok(Loaded { config: draft.config, warnings, notes, origins })
    } else {
        Err(Faults(faults))
    }
}

/// Reads the certificates of the gRPC port, and then those of links to other nodes, if there are others.
fn read_tls(config: &mut Config, now: UnixMs, warnings: &mut Vec<String>) -> Result<(), Vec<TlsFault>> {
    config.rpc.tls = tls::load(&config.rpc, now, warnings)?;
    if config.cluster.source != MembershipSource::None {
        config.cluster.peer_tls = PeerTls::of(config).map_err(|fault| vec![fault])?;
    }
    Ok(())
}

/// A gRPC port that asks nobody for anything (spec 13, trap 24).
fn exposure(config: &Config) -> Vec<String> {
    let text = format!(
        "rpc.listen {}: anybody who reaches this port can push to every user, kick them and read their live login \
         tokens. One of these ends it: rpc.allow (source networks), rpc.tls_client_ca (client certificates), rpc.token",
        config.rpc.listen
    );
    config.rpc.is_exposed().then_some(text).into_iter().collect()
}

fn shown(visibility: Visibility, text: &str) -> String {
    match visibility {
        Visibility::Public => text.to_owned(),
        Visibility::Secret if text.is_empty() => String::new(),
        Visibility::Secret => "(hidden)".into(),
    }
}

/// Works out what was left to `auto`.
fn fill_in(
    draft: &mut Draft,
    machine: &Machine,
    given: &Given,
    origins: &mut BTreeMap<&'static str, Origin>,
) {
    let Counts { shards, rpcs } = layout::counts(machine, draft.shards, draft.rpcs);
    let room = connections_room(machine).min(u64::from(CONNECTIONS_MAX));
    let room = u32::try_from(room).unwrap_or(CONNECTIONS_MAX);
    let config = &mut draft.config;
    config.shards.count = shards;
    config.shards.rpc_count = rpcs;
    config.shards.pin = draft.pin.unwrap_or_else(|| layout::pins_by_default(machine));
    config.websocket.connections_max = draft.connections_max.unwrap_or(room);
    config.admission.shard_connections_max =
        draft.shard_connections_max.unwrap_or(config.websocket.connections_max);
    let cpus = format!("{} CPUs in the set, {}", machine.cpus.len(), quota_text(machine));
    let files = if room < CONNECTIONS_MAX {
        format!("open-file limit {} less a reserve of {FILES_RESERVED_MAX}", machine.files_max)
    } else {
        "OpenIM's; the open-file limit allows more".to_owned()
    };
    for (key, from) in [
        ("websocket.connections_max", files),
        ("websocket.shard_connections_max", "websocket.connections_max".to_owned()),
        ("shards.count", cpus),
        ("shards.rpc_count", "one per 8 shards".to_owned()),
        ("shards.pin", quota_text(machine)),
        ("shards.owner_key", "drawn at start".to_owned()),
    ] {
        let open = given.get(key).is_none_or(|(text, _)| text == AUTO || text == "random");
        if open {
            origins.insert(key, Origin::Derived(from));
        }
    }
}

fn quota_text(machine: &Machine) -> String {
    match machine.quota {
        Some(quota) => format!("cgroup quota of {quota} CPUs"),
        None => "no cgroup quota".to_owned(),
    }
}

/// How many connections the open-file limit allows beside the reserve.
fn connections_room(machine: &Machine) -> u64 {
    machine.files_max.saturating_sub(FILES_RESERVED_MAX)
}

/// Faults that no single value has.
fn cross_faults(judge: Judge<'_>, machine: &Machine) -> Vec<Fault> {
    let config = judge.config;
    let fault = |key: &'static str, expected: String, example: String| judge.fault(key, &expected, &example);
    let mut faults = Vec::new();
    let (asked, room) = (u64::from(config.websocket.connections_max), connections_room(machine));
    if asked > room || asked == 0 {
        let needed = asked.max(1) + FILES_RESERVED_MAX;
        let expected = format!(
            "the open-file limit of {} allows {room} connections beside a reserve of {FILES_RESERVED_MAX} files; \
             raise the hard limit to {needed} (ulimit -Hn, LimitNOFILE= of systemd) or ask for less",
            machine.files_max
        );
        let example = if room > 0 { room.to_string() } else { String::new() };
        faults.push(fault("websocket.connections_max", expected, example));
    }
    if config.shard_outbox_bytes_max < config.outbox_bytes_max {
        let expected = format!("must not be below outbox.bytes_max ({})", config.outbox_bytes_max);
        faults.push(fault("outbox.shard_bytes_max", expected, "256MiB".into()));
    }
    if config.record.mode != RecordMode::Off && !config.record.dir.is_dir() {
        let expected = "not a directory; create it, readable by the gateway's user only".to_owned();
        faults.push(fault("record.dir", expected, "/var/lib/pinion/recordings".into()));
    }
    let proxies = &config.admission.proxies;
    if proxies.header == ProxyHeader::Required && proxies.networks.is_empty() {
        let expected = "needs websocket.proxies: nobody else's PROXY header is believed".to_owned();
        faults.push(fault("websocket.proxy_protocol", expected, "off".into()));
    }
    let websocket = SocketAddr::new(config.websocket.address, config.websocket.port);
    let mut listeners = vec![
        ("websocket.port", websocket),
        ("rpc.listen", config.rpc.listen),
        ("http.listen", config.http_listen),
    ];
    listeners.extend(config.assign.listen.map(|listen| ("assign.listen", listen)));
    for (n, (key, address)) in listeners.iter().enumerate() {
        if let Some((other, _)) = listeners.iter().take(n).find(|(_, other)| overlap(*other, *address)) {
            let free = setting(key).map(|s| s.default.to_owned()).unwrap_or_default();
            faults.push(fault(key, format!("{other} uses this port already; choose another"), free));
        }
    }
    faults
}

/// Whether two listeners would meet on a port. `::` takes IPv4 as well.
fn overlap(a: SocketAddr, b: SocketAddr) -> bool {
    let takes_all = |ip: IpAddr| ip.is_unspecified();
    a.port() == b.port() && a.port() != 0 && (a.ip() == b.ip() || takes_all(a.ip()) || takes_all(b.ip()))
}

#[cfg(test)]
#[path = "load_tests.rs"]
mod tests;
