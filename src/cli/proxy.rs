//! `pinion proxy`: what it is asked for and what it prints. The proxy itself is `node/proxy` and `rpc/proxy`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::builder::PossibleValuesParser;
use clap::{Arg, ArgMatches, Command, value_parser};

use super::{EXIT_FAILED, EXIT_USAGE, args, draw_key, fail, load_from, not_started, output, version};
use crate::cluster::members::Scheme;
use crate::config::levels::Levels;
use crate::config::machine::{Machine, raise_open_files, refuse_huge_pages};
use crate::config::{Config, LogConfig, SETTINGS, Sources, UserNames, layout};
use crate::limits;
use crate::node::Logging;
use crate::node::proxy::{Proxy, ProxyConfig, ProxyFacts};
use crate::rpc::proxy::Relay;
use crate::shard::Buffers;
use crate::wire::proxy::Version;

const ABOUT: &str = "Bring clients that know one address to the home nodes of their users";
const MORE: &str = "\
Reads the upgrade request of a client, finds the user's home among the members, connects, and hands the request over as
it came; the member's answer, errors included, goes back as it came, and so does everything after it, unparsed. A member
that cannot be reached is passed over: any node serves any user, the home is merely the cheapest.

Members come from etcd or Kubernetes with --cluster-source, as on the nodes and with the same settings; nothing is
written there. While that is away the last members it told of stand; before it has told of any, those of --members.

The member list has a line per member, as for `pinion route`: NODE ws=ws://HOST:PORT [weight=N] [state=STATE].
label.proxy=HOST:PORT is dialled instead of ws=, for members whose ws= is meant for clients. The file is read again when
it changes, and names are resolved again every 10 s; who is connected stays.

Example: two gateways, clients at port 10000, their addresses told to the gateways:
  printf 'gw-0 ws=ws://10.0.0.7:10001\\ngw-1 ws=ws://10.0.0.8:10001\\n' > members
  pinion proxy --listen 0.0.0.0:10000 --members members --proxy-protocol v2
  (and on each gateway: --websocket-proxies PROXY_ADDRESS --websocket-proxy-protocol required)

SIGTERM: nobody is accepted any more, pairs may stay until --drain-ms, then they are closed. A second one: now.
SIGHUP: read the member list at once. Refusals: 502 no member was reached, 504 a member says nothing, 503 a limit or a
drain; none of them has JSON, so every SDK tries again.";

/// The command line.
pub(super) fn command() -> Command {
    let command = Command::new("proxy")
        .about(ABOUT)
        .after_help(MORE)
        .arg(
            text("listen", "IP:PORT", "PINION_PROXY_LISTEN", "Where clients connect")
                .default_value("[::]:10000")
                .value_parser(value_parser!(SocketAddr)),
        )
        .arg(
            text(
                "members",
                "FILE",
                "PINION_PROXY_MEMBERS",
                "Member list; with --cluster-source: until that has told",
            )
            .value_parser(value_parser!(PathBuf)),
        )
        .arg(
            text(
                "placement",
                "NAME",
                "PINION_PROXY_PLACEMENT",
                "How users are placed, if the list does not say",
            )
            .value_parser(PossibleValuesParser::new(["rendezvous", "openim-ring"])),
        )
        .arg(
            text(
                "proxy-protocol",
                "VERSION",
                "PINION_PROXY_PROXY_PROTOCOL",
                "PROXY header towards the members",
            )
            .value_parser(PossibleValuesParser::new(["off", "v1", "v2"]))
            .default_value("off"),
        );
    let command = for_operators(bounds(command)).args(buffers()).args(times());
    args::with_some_settings(command, is_of_members)
}

/// The settings that say where the members are: the same as on the nodes.
fn is_of_members(key: &str) -> bool {
    const KEYS: [&str; 7] = [
        "cluster.source",
        "cluster.root",
        "cluster.selector",
        "cluster.lease_ms",
        "cluster.placement",
        "discovery.namespace",
        "discovery.service_account",
    ];
    KEYS.contains(&key) || key.starts_with("discovery.etcd_") && key != "discovery.etcd_root"
}

/// How bytes are moved, and for how many.
fn bounds(command: Command) -> Command {
    command
        .arg(
            text(
                "relay",
                "HOW",
                "PINION_PROXY_RELAY",
                "How bytes are moved; auto copies, and splices who sends much",
            )
            .value_parser(PossibleValuesParser::new(["auto", "splice", "copy"]))
            .default_value("auto"),
        )
        .arg(
            text("threads", "N", "PINION_PROXY_THREADS", "Threads, each with a listener [default: CPUs]")
                .value_parser(value_parser!(u64).range(1..=limits::PROXY_THREADS_MAX as u64)),
        )
        .arg(
            text(
                "pairs-max",
                "N",
                "PINION_PROXY_PAIRS_MAX",
                "Clients at once [default: what the open files allow]",
            )
            .value_parser(value_parser!(u32).range(1..)),
        )
        .arg(number(
            "address-pairs-max",
            "PINION_PROXY_ADDRESS_PAIRS_MAX",
            "Clients of one address; 0: any number",
            0,
        ))
}

/// Metrics and log.
fn for_operators(command: Command) -> Command {
    command
        .arg(
            text(
                "http-listen",
                "IP:PORT",
                "PINION_PROXY_HTTP_LISTEN",
                "Where /metrics, /healthz, /readyz are",
            )
            .default_value("127.0.0.1:10142")
            .value_parser(value_parser!(SocketAddr)),
        )
        .arg(
            text("log-level", "LEVEL", "PINION_PROXY_LOG_LEVEL", "Least severe lines that are logged")
                .default_value("info")
                .value_parser(|text: &str| {
                    Levels::parse(text).map(|l| l.text).map_err(|bad| bad.to_string())
                }),
        )
        .arg(
            text(
                "log-format",
                "FORMAT",
                "PINION_PROXY_LOG_FORMAT",
                "How lines are logged, on standard error",
            )
            .default_value("text")
            .value_parser(PossibleValuesParser::new(["text", "json"])),
        )
}

fn text(name: &'static str, value: &'static str, env: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).value_name(value).env(env).hide_env_values(true).help(help)
}

fn number(name: &'static str, env: &'static str, help: &'static str, default: u64) -> Arg {
    text(name, "N", env, help)
        .default_value(default.to_string())
        .value_parser(value_parser!(u64).range(..=u64::from(u32::MAX)))
}

fn buffers() -> [Arg; 2] {
    let size = |name, env, help| {
        text(name, "BYTES", env, help)
            .default_value("32768")
            .value_parser(value_parser!(u64).range(4096..=16 * 1024 * 1024))
    };
    [
        size(
            "send-buffer-bytes",
            "PINION_PROXY_SEND_BUFFER_BYTES",
            "SO_SNDBUF of all sockets (the kernel doubles it)",
        ),
        size(
            "receive-buffer-bytes",
            "PINION_PROXY_RECEIVE_BUFFER_BYTES",
            "SO_RCVBUF of all sockets (the kernel doubles it)",
        ),
    ]
}

fn times() -> [Arg; 5] {
    let time = |name, env, help, default: u64| number(name, env, help, default).value_name("MS");
    [
        time(
            "head-ms",
            "PINION_PROXY_HEAD_MS",
            "A request must be there after so long; later: 408",
            limits::HEAD_DEADLINE_MS,
        ),
        time(
            "connect-ms",
            "PINION_PROXY_CONNECT_MS",
            "A member must take the connection within; later: the next one",
            limits::PROXY_CONNECT_MS,
        ),
        time(
            "answer-ms",
            "PINION_PROXY_ANSWER_MS",
            "A member must answer within; later: 504",
            limits::PROXY_ANSWER_MS,
        ),
        time(
            "half-closed-ms",
            "PINION_PROXY_HALF_CLOSED_MS",
            "A pair of which one side has ended and that moves nothing is closed after",
            limits::PROXY_HALF_CLOSED_MS,
        ),
        time(
            "drain-ms",
            "PINION_PROXY_DRAIN_MS",
            "After SIGTERM pairs may stay so long",
            limits::PROXY_DRAIN_MS,
        ),
    ]
}

/// Runs the command.
pub(super) fn run(matches: &ArgMatches) -> ExitCode {
    let loaded = match load_from(&sources(matches)) {
        Ok(loaded) => loaded,
        Err(code) => return code,
    };
    let config = match config(matches, loaded.config) {
        Some(config) => config,
        None => return fail(EXIT_USAGE, "proxy: an argument is missing"), // clap has defaults for all
    };
    let word = |name: &str| matches.get_one::<String>(name).map(String::as_str).unwrap_or_default();
    let log = LogConfig {
        level: word("log-level").to_owned(),
        json: word("log-format") == "json",
        users: UserNames::Plain,
    };
    let logging = match Logging::start(&log) {
        Ok(logging) => logging,
        Err(why) => return fail(EXIT_FAILED, &why),
    };
    let files = match raise_open_files() {
        Ok(files) => files,
        Err(error) => return fail(EXIT_FAILED, &format!("cannot raise the open-file limit: {error}")),
    };
    if let Err(error) = refuse_huge_pages() {
        tracing::warn!(%error, "memory may come in huge pages");
    }
    let proxy = match Proxy::start(config.clone(), files, draw_key()) {
        Ok(proxy) => proxy,
        Err(fault) => return not_started(&fault),
    };
    output::print(&banner(&config, proxy.facts(), files));
    let ended = proxy.run();
    if ended.is_ok() {
        tracing::info!("drained; end");
    }
    drop(logging); // writes what is queued, within a bound
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => fail(EXIT_FAILED, &why),
    }
}

/// What is said of the members: flags over environment over `--config`. Other variables are none of its business, the
/// one that names a node's configuration among them.
fn sources(matches: &ArgMatches) -> Sources {
    let mut sources = args::sources(matches);
    let names: Vec<String> = SETTINGS
        .iter()
        .filter(|setting| is_of_members(setting.key))
        .map(|setting| setting.env_name())
        .collect();
    sources.env.retain(|(name, _)| names.contains(name) || !name.starts_with("PINION_"));
    sources.file = matches.get_one::<PathBuf>(args::CONFIG).cloned();
    args::of_no_node(sources)
}

fn config(matches: &ArgMatches, settings: Config) -> Option<ProxyConfig> {
    let number = |name: &str| matches.get_one::<u64>(name).copied();
    let size = |name: &str| number(name).and_then(|n| usize::try_from(n).ok());
    let word = |name: &str| matches.get_one::<String>(name).map(String::as_str);
    let threads = size("threads").unwrap_or_else(|| layout::cpus_usable(&Machine::probe()));
    Some(ProxyConfig {
        listen: *matches.get_one("listen")?,
        members: matches.get_one::<PathBuf>("members").cloned().or(settings.cluster.members.clone()),
        scheme: word("placement").map(|name| match name {
            "openim-ring" => Scheme::OpenImRing,
            _ => Scheme::Rendezvous,
        }),
        cluster: settings.cluster,
        openim: settings.openim,
        threads: threads.clamp(1, limits::PROXY_THREADS_MAX),
        pairs_max: matches.get_one("pairs-max").copied(),
        address_pairs_max: u32::try_from(number("address-pairs-max")?).ok()?,
        relay: match word("relay")? {
            "splice" => Relay::Splice,
            "copy" => Relay::Copy,
            _ => Relay::Auto,
        },
        header: match word("proxy-protocol")? {
            "v1" => Some(Version::V1),
            "v2" => Some(Version::V2),
            _ => None,
        },
        buffers: Buffers {
            send_bytes: size("send-buffer-bytes")?,
            receive_bytes: size("receive-buffer-bytes")?,
        },
        head_ms: number("head-ms")?,
        connect_ms: number("connect-ms")?,
        answer_ms: number("answer-ms")?,
        half_closed_ms: number("half-closed-ms")?,
        drain_ms: number("drain-ms")?,
        http_listen: *matches.get_one("http-listen")?,
    })
}

/// As of the gateway: the first word of a line names it, the last line is `ready`.
fn banner(config: &ProxyConfig, facts: &ProxyFacts, files: u64) -> String {
    let (members, known) = facts.members;
    let relay = match config.relay {
        Relay::Auto => format!("copy, splice for who fills {} KiB", limits::PROXY_BUFFER_BYTES / 1024),
        Relay::Splice => "splice".to_owned(),
        Relay::Copy => "copy".to_owned(),
    };
    let header = match config.header {
        Some(Version::V1) => "v1 to members",
        Some(Version::V2) => "v2 to members",
        None => "off: members see this proxy's address (--proxy-protocol)",
    };
    let of_address = match config.address_pairs_max {
        0 => "any number".to_owned(),
        n => n.to_string(),
    };
    let mut lines = vec![
        format!("pinion {} proxy", version::SHORT),
        format!("listen     ws://{}  ({} threads)", facts.listen, config.threads),
        format!("http       http://{}/readyz (also /healthz, /metrics)", facts.http),
        format!(
            "members    {members} in {}, {known} with an address; placement {}",
            facts.from, facts.placement
        ),
        format!("relay      {relay}"),
        format!("header     PROXY protocol {header}"),
        format!(
            "limits     {} pairs, {of_address} of one address; {} of {files} open files (2 a pair)",
            facts.pairs_max, facts.files_needed
        ),
        format!(
            "times      head {} ms, connect {} ms, answer {} ms, half closed {} ms, drain {} ms",
            config.head_ms, config.connect_ms, config.answer_ms, config.half_closed_ms, config.drain_ms
        ),
    ];
    if known < members {
        lines.push(format!("warning    {} members have no address yet: see the log", members - known));
    }
    lines.push("ready\n".to_owned());
    lines.join("\n")
}
