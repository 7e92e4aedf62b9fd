//! What a started gateway prints: where it is, what it runs on, what bounds it, and two lines to try it with.
//!
//! The harness of `tests/it` and CI read it: the first word of a line names it, the two lines can be run as they
//! stand, and the last line is `ready`.

use std::net::{IpAddr, SocketAddr};

use super::{doctor, version};
use crate::backend::token;
use crate::config::cluster::{MembershipSource, PushMode};
use crate::config::{
    Backend, Config, DEFAULT_SECRET, DiscoveryKind, Endpoint, Loaded, RedisConfig, RedisMode, RpcConfig,
    setting,
};
use crate::ids::Platform;
use crate::limits;
use crate::node::Facts;
use crate::shard::{DriverKind, clock};

/// The user of the two lines.
const TRIAL_USER: &str = "alice";
/// How long the printed token is good.
const TRIAL_TTL_S: i64 = 86_400;
/// Settings shown as limits.
const LIMITS: [&str; 14] = [
    "websocket.connections_max",
    "websocket.shard_connections_max",
    "websocket.address_connections_max",
    "websocket.accepts_per_second_max",
    "login.connections_per_user_max",
    "login.spread_above_per_second",
    "websocket.handshakes_max",
    "websocket.send_buffer_bytes",
    "websocket.receive_buffer_bytes",
    "outbox.frames_max",
    "outbox.bytes_max",
    "outbox.shard_bytes_max",
    "drain.deadline_ms",
    "stall.abort_ms",
];

/// The whole banner. `files` is the open-file limit in force.
pub(super) fn text(loaded: &Loaded, facts: &Facts, files: u64) -> String {
    let mut lines = vec![format!("pinion {}", version::SHORT)];
    lines.extend(addresses(facts));
    lines.extend(facts.assign.map(|assign| super::dispatch::line(&loaded.config, assign)));
    lines.push(engine(facts));
    lines.push(threads(facts));
    lines.extend(limits_in_force(loaded, files));
    lines.extend(cluster(&loaded.config));
    lines.extend(backend(&loaded.config));
    lines.extend(loaded.taken().iter().map(|line| format!("openim     {line}")));
    lines.extend(loaded.notes.iter().map(|note| format!("note       {note}")));
    if loaded.config.auth.secret == DEFAULT_SECRET {
        lines.push(format!(
            "warning    auth.secret is OpenIM's default ({DEFAULT_SECRET}), which everybody knows: anyone can \
             make tokens. Set {} or auth.secret in the file.",
            setting("auth.secret").map(|s| s.env_name()).unwrap_or_default()
        ));
    }
    lines.extend(loaded.warnings.iter().map(|warning| format!("warning    {warning}")));
    let failures = doctor::failures(loaded.config.websocket.connections_max);
    lines.extend(failures.iter().map(|failure| format!("warning    this host: {failure} (pinion doctor)")));
    if loaded.config.planted.is_some() {
        lines.push(format!(
            "warning    a fault is planted, this gateway is for tests: {:?}",
            loaded.config.planted
        ));
    }
    // A token made here is not known to OpenIM's auth service.
    if loaded.config.backend == Backend::Embedded {
        lines.extend(trial(&loaded.config, facts));
    }
    lines.push("ready".into());
    lines.push(String::new());
    lines.join("\n")
}

/// An address that can be dialled from this machine: "all addresses" is none.
pub(super) fn reachable(address: SocketAddr) -> SocketAddr {
    match address.ip() {
        ip if !ip.is_unspecified() => address,
        // Dual stack: IPv4 works, and needs no brackets.
        IpAddr::V4(_) | IpAddr::V6(_) => SocketAddr::from(([127, 0, 0, 1], address.port())),
    }
}

fn addresses(facts: &Facts) -> [String; 3] {
    let all = |address: SocketAddr| match address.ip() {
        ip if !ip.is_unspecified() => String::new(),
        IpAddr::V4(_) => "  (all IPv4 addresses)".into(),
        IpAddr::V6(_) => "  (all addresses, IPv4 and IPv6)".into(),
    };
    [
        format!("websocket  ws://{}{}", reachable(facts.websocket), all(facts.websocket)),
        format!("grpc       {}{}", reachable(facts.grpc), all(facts.grpc)),
        format!(
            "http       http://{}/readyz{} (also /healthz, /metrics)",
            reachable(facts.http),
            all(facts.http)
        ),
    ]
}

fn engine(facts: &Facts) -> String {
    let name = match facts.driver {
        DriverKind::IoUring => "io_uring",
        DriverKind::Epoll => "epoll",
    };
    format!("engine     {} ({}) on {name} ({})", facts.engine, facts.engine_reason, facts.driver_reason)
}

fn threads(facts: &Facts) -> String {
    let place = |kind: &str, n: usize, cpu: Option<usize>| match cpu {
        Some(cpu) => format!("{kind} {n} on CPU {cpu}"),
        None => format!("{kind} {n} not pinned"),
    };
    let shards = facts.layout.shards.iter().enumerate().map(|(n, cpu)| place("shard", n, *cpu));
    let rpcs = facts.layout.rpcs.iter().enumerate().map(|(n, cpu)| place("rpc", n, *cpu));
    let all: Vec<_> = shards.chain(rpcs).collect();
    format!("threads    {}; main and log not pinned", all.join(", "))
}

fn limits_in_force(loaded: &Loaded, files: u64) -> Vec<String> {
    let mut lines = vec!["limits".to_owned()];
    lines.push(format!("  {:<32} {files:>11}  rlimit: soft limit raised to the hard one", "open files"));
    lines.push(format!(
        "  {:<32} {:>11}  fixed by OpenIM",
        "message bytes from a client",
        limits::MESSAGE_BYTES_MAX
    ));
    lines.extend(LIMITS.iter().map(|key| {
        let value = setting(key).map(|s| s.shown(&loaded.config)).unwrap_or_default();
        format!("  {key:<32} {value:>11}  {}", loaded.origin(key))
    }));
    lines
}

/// This node among others: who it is, how users are placed, and whom OpenIM's push service asks.
fn cluster(config: &Config) -> Option<String> {
    let source = config.cluster.source;
    let asked = match config.cluster.push_mode {
        PushMode::Local => {
            "local: OpenIM's push service asks every gateway, each answers for its own connections"
        }
        PushMode::Route => {
            "route: OpenIM's push service asks one gateway, which reaches users wherever they are"
        }
    };
    let shown = |key: &str| setting(key).map(|s| s.shown(config)).unwrap_or_default();
    (source != MembershipSource::None).then(|| {
        format!(
            "cluster    node {}, members from {}, placement {}; push_mode {asked}",
            shown("cluster.node_id"),
            shown("cluster.source"),
            shown("cluster.placement")
        )
    })
}

fn backend(config: &Config) -> Vec<String> {
    match config.backend {
        Backend::Embedded => vec![
            "backend    embedded: the development backend. It speaks for OpenIM's services from memory; messages,"
                .into(),
            format!(
                "           tokens and presence are gone at exit. It keeps {} messages per conversation, {} MiB and {} \
                 conversations in all.",
                limits::EMBEDDED_HISTORY_MAX,
                limits::EMBEDDED_HISTORY_BYTES >> 20,
                limits::EMBEDDED_CONVERSATIONS_MAX
            ),
        ],
        Backend::Openim => {
            let shown = |key: &str| setting(key).map(|s| s.shown(config)).unwrap_or_default();
            vec![
                format!("backend    openim: OpenIM's services, compat {}, {}", shown("compat"), found(config)),
                format!("           redis {}, {}", shown("redis.mode"), redis(&config.openim.redis)),
            ]
        }
    }
}

/// Where services are found and as what others find this gateway.
fn found(config: &Config) -> String {
    let discovery = &config.openim.discovery;
    let list =
        |endpoints: &[Endpoint]| endpoints.iter().map(Endpoint::to_string).collect::<Vec<_>>().join(", ");
    let name = &discovery.names.gateway;
    match discovery.kind {
        DiscoveryKind::Etcd => format!(
            "found by etcd at {} below {}; registered as {name} at {}",
            list(&discovery.etcd.addresses),
            discovery.etcd.root,
            discovery.register_ip
        ),
        DiscoveryKind::Kubernetes if discovery.members.is_empty() => {
            let namespace = discovery.namespace.as_deref().unwrap_or("of this pod");
            format!("found by Kubernetes in namespace {namespace}; others find it as {name}")
        }
        DiscoveryKind::Kubernetes => {
            format!("found by their names in Kubernetes; one of {} gateways", discovery.members.len())
        }
        DiscoveryKind::Static => {
            let others = discovery.fixed.gateway.len();
            format!("found by static addresses; {others} other gateways are known; registered nowhere")
        }
    }
}

fn redis(redis: &RedisConfig) -> String {
    let (what, endpoints) = match redis.mode {
        RedisMode::Sentinel => {
            (format!("master {} by sentinels at ", redis.master_name), &redis.sentinel_addresses)
        }
        RedisMode::Standalone | RedisMode::Cluster => ("at ".to_owned(), &redis.addresses),
    };
    let endpoints: Vec<String> = endpoints.iter().map(Endpoint::to_string).collect();
    format!("{what}{}, database {}", endpoints.join(", "), redis.db)
}

/// Two lines that make a push visible.
fn trial(config: &Config, facts: &Facts) -> Vec<String> {
    let program = std::env::current_exe().map_or_else(|_| "pinion".into(), |path| path.display().to_string());
    let program = shell_word(&program);
    // A desktop platform: phones and browsers have rules of their own about background and pings.
    let platform = Platform::all().find(|p| p.name() == "Linux").unwrap_or(Platform::WEB);
    let now = clock::now().unix;
    match token::issue(&config.auth.secret, TRIAL_USER, platform, now, TRIAL_TTL_S) {
        Ok(token) => vec![
            format!("try it     as {TRIAL_USER} in one terminal, the push in another:"),
            format!("  {program} listen --token {token} --url ws://{}", reachable(facts.websocket)),
            format!(
                "  {program} push --to {TRIAL_USER} --text hello --rpc {}{}",
                reachable(facts.grpc),
                shown_to_gateway(&config.rpc)
            ),
        ],
        Err(fault) => vec![format!("warning    no trial token could be made: {fault:?}")],
    }
}

/// What the push has to show besides; placeholders, since the gateway does not know its callers' files.
fn shown_to_gateway(rpc: &RpcConfig) -> String {
    let parts = [
        (rpc.tls.is_some(), " --rpc-ca CA.pem"),
        (rpc.tls_client_ca.is_some(), " --rpc-cert CERT.pem --rpc-key KEY.pem"),
        (rpc.token.is_some(), "  # with PINION_RPC_TOKEN set"),
    ];
    parts.into_iter().filter_map(|(wanted, text)| wanted.then_some(text)).collect()
}

/// Quotes a word for a shell if it has to be.
fn shell_word(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+:@%".contains(c);
    if word.chars().all(plain) { word.to_owned() } else { format!("'{}'", word.replace('\'', r"'\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Sources;
    use crate::config::machine::Machine;
    use crate::time::UnixMs;

    #[test]
    fn the_backend_says_where_services_are_and_hides_passwords() {
        let machine = Machine { cpus: vec![0], quota: None, files_max: 20_000, interfaces: Vec::new() };
        let lines = |flags: &[(&'static str, &str)]| {
            let mut all = vec![("backend", "openim".to_owned()), ("redis.password", "hunter2".to_owned())];
            all.extend(flags.iter().map(|(key, text)| (*key, text.to_string())));
            let sources = Sources { flags: all, ..Sources::default() };
            let loaded = crate::config::load(&sources, &machine, UnixMs(0), || [1, 2]).unwrap();
            backend(&loaded.config).join("\n")
        };
        let fixed = [
            ("discovery.kind", "static"),
            ("discovery.static_auth", "a:1"),
            ("discovery.static_user", "u:1"),
            ("discovery.static_msg", "m:1"),
            ("discovery.static_push", "p:1"),
            ("discovery.static_gateways", "g:1,h:1"),
            ("redis.mode", "sentinel"),
            ("redis.master_name", "main-redis"),
            ("redis.sentinel_addresses", "s:1,t:2"),
        ];
        for (flags, parts) in [
            (
                &[("compat", "patch16"), ("discovery.etcd_addresses", "e:1,f:2")][..],
                &[
                    "compat patch16, found by etcd at e:1, f:2 below openim; registered as messageGateway at 127.0.0.1",
                ][..],
            ),
            (&[("redis.db", "3")], &["redis standalone, at localhost:16379, database 3"]),
            (
                &[("discovery.kind", "kubernetes"), ("discovery.namespace", "im")],
                &["found by Kubernetes in namespace im; others find it as messagegateway-rpc-service"],
            ),
            (
                &fixed,
                &["2 other gateways are known", "redis sentinel, master main-redis by sentinels at s:1, t:2"],
            ),
        ] {
            let text = lines(flags);
            assert!(parts.iter().all(|part| text.contains(part)), "{parts:?} in\n{text}");
            assert!(!text.contains("hunter2"), "{text}");
        }
    }

    #[test]
    fn words_survive_a_shell() {
        for (word, want) in
            [("/usr/bin/pinion", "/usr/bin/pinion"), ("/a b/pinion", "'/a b/pinion'"), ("it's", r"'it'\''s'")]
        {
            assert_eq!(shell_word(word), want);
        }
    }

    #[test]
    fn addresses_can_be_dialled() {
        for (bound, want) in [
            ("[::]:1", "127.0.0.1:1"),
            ("0.0.0.0:1", "127.0.0.1:1"),
            ("10.0.0.1:1", "10.0.0.1:1"),
            ("[::1]:1", "[::1]:1"),
        ] {
            assert_eq!(reachable(bound.parse().unwrap()).to_string(), want);
        }
    }
}
