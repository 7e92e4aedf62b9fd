//! `pinion dispatch`: tells clients which gateway to dial, without being one.

use std::net::SocketAddr;
use std::process::ExitCode;

use clap::{ArgMatches, Command};

use super::banner::reachable;
use super::{args, load_from, not_started, output, version};
use crate::config::machine::raise_open_files;
use crate::config::{Config, Loaded, SETTINGS, Sources};
use crate::node::dispatch::Dispatch;
use crate::node::{Logging, StartFault};

const ABOUT: &str = "\
Tell clients which gateway to dial (the assign API), without being one.

Clients ask `GET /v1/assign?userID=U&platformID=P` on assign.listen and get JSON: the user's home and up to two
alternatives, how long to keep the answer, and how to wait when a connection is lost. A gateway with assign.listen set
answers the same; run this where the gateways cannot be reached by HTTP, or should not be.

Members come from a list, looked at each second, one gateway per line:
    gw-0 ws=wss://gw-0.example.com/ rpc=10.0.0.7:10140 label.region=eu
`ws` is what clients dial, `rpc` where this process asks each two seconds how full it is (its rpc.listen; set the same
rpc.token and rpc.tls_* here as there). One that misses three answers, drains or is not ready is not handed out.
When none is left, or the list cannot be read, the answer is assign.fallback, marked as static.

With --cluster-source etcd or kubernetes members come from there, as on the nodes and with the same settings. Nothing is
written there. While it is away the last members it told of stand; before it has told of any, those of the list.";

const EXAMPLE: &str = "\
Example:
    pinion dispatch --assign-listen 0.0.0.0:10003 --members /etc/pinion/members \\
        --assign-rules /etc/pinion/assign.rules --assign-fallback wss://gw-0.example.com/

These settings count: http.listen is where /healthz, /readyz and /metrics are, rpc.token and rpc.tls_* are shown to the
members, websocket.proxies may say X-Forwarded-For. All others of a node's file may be there and do not count.
SIGHUP reads rules, settings of assign.* and files of rpc.tls_* again.
`pinion route where USER --members FILE --rules FILE` says what would be answered and which rule decides.
Clients: tuning/assign.md.";

/// The command line.
pub(super) fn command() -> Command {
    let command = args::with_settings(Command::new("dispatch"));
    let others = SETTINGS.iter().map(|setting| setting.key).filter(|key| !counts(key));
    others
        .fold(command, |command, key| command.mut_arg(key, |flag| flag.hide(true)))
        .about("Tell clients which gateway to dial (the assign API), without being one")
        .long_about(ABOUT)
        .after_long_help(EXAMPLE)
        .arg(args::print_config())
}

/// Whether a setting counts here. Those of a node that do not are taken and have no line in the help.
fn counts(key: &str) -> bool {
    const KEYS: [&str; 12] = [
        "cluster.members",
        "cluster.source",
        "cluster.root",
        "cluster.selector",
        "cluster.lease_ms",
        "cluster.placement",
        "discovery.namespace",
        "discovery.service_account",
        "http.listen",
        "rpc.token",
        "shards.driver",
        "websocket.proxies",
    ];
    let prefixes = ["assign.", "log.", "rpc.tls_", "discovery.etcd_"];
    KEYS.contains(&key)
        || key != "discovery.etcd_root" && prefixes.iter().any(|prefix| key.starts_with(prefix))
}

/// Runs the command.
pub(super) fn run(matches: &ArgMatches) -> ExitCode {
    let sources = args::of_no_node(args::sources(matches));
    let loaded = match load_from(&sources) {
        Ok(loaded) => loaded,
        Err(code) => return code,
    };
    if matches.get_flag(args::PRINT_CONFIG) {
        output::print(&loaded.print());
        return ExitCode::SUCCESS;
    }
    match serve(&loaded, sources) {
        Ok(()) => ExitCode::SUCCESS,
        Err(fault) => not_started(&fault),
    }
}

fn serve(loaded: &Loaded, sources: Sources) -> Result<(), StartFault> {
    raise_open_files().map_err(|e| format!("cannot raise the open-file limit: {e}"))?;
    let logging = Logging::start(&loaded.config.log)?;
    let dispatch = Dispatch::start(&loaded.config, sources, &logging)?;
    output::print(&banner(&loaded.config, &dispatch));
    let ended = dispatch.run();
    match &ended {
        Ok(()) => tracing::info!("end"),
        Err(why) => tracing::error!("{why}"),
    }
    drop(logging); // writes what is queued, within a bound
    ended.map_err(StartFault::System)
}

fn banner(config: &Config, dispatch: &Dispatch) -> String {
    let list = config.cluster.members.as_ref().map(|path| path.display().to_string());
    let members = match (list, dispatch.members) {
        (Some(list), Some(count)) if dispatch.watched.is_some() => {
            format!("{count} in {list} until there are others")
        }
        (Some(list), Some(count)) => format!("{count} in {list}, looked at each second"),
        (Some(list), None) => format!("{list} cannot be used: answers are static"),
        (None, _) if dispatch.watched.is_some() => "watched".to_owned(),
        (None, _) => "none listed: answers are static".to_owned(),
    };
    let mut lines = vec![
        format!("pinion dispatch {}", version::SHORT),
        line(config, dispatch.assign),
        format!("http       http://{}/readyz (also /healthz, /metrics)", reachable(dispatch.http)),
        format!("members    {members}"),
    ];
    lines.extend(dispatch.watched.as_ref().map(|place| format!("watches    {place}")));
    lines.extend(
        dispatch.silent.map(|why| format!("warning    members are not asked how full they are: {why}")),
    );
    lines.push("ready".to_owned());
    lines.push(String::new());
    lines.join("\n")
}

/// The line of a banner that says where clients ask, and by what they are answered.
pub(super) fn line(config: &Config, address: SocketAddr) -> String {
    let decision = &config.assign.policy.decision;
    let rules = match &config.assign.policy.rules_file {
        Some(path) => format!("{} rules from {}", decision.rules.len(), path.display()),
        None => "no rules".to_owned(),
    };
    let fallback = match decision.fallback.len() {
        0 => "no static answer".to_owned(),
        count => format!("a static answer of {count}"),
    };
    format!("assign     http://{}/v1/assign  ({rules}, {fallback})", reachable(address))
}
