//! `bench-push`: measures the push API of a real gateway over loopback; see `bench/README.md`.
//!
//! Four kinds of processes: the gateway (and the bounds that it is compared with) on some CPUs; the clients and this
//! one, which calls, on others. Not here: the general load generator (`bench/load`) and other servers (`bench/peers`).

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::let_underscore_must_use,
    clippy::cast_possible_truncation,
    missing_docs,
    unreachable_pub,
    reason = "a bench fails by panicking and uses the real clock; its figures are floats"
)]

mod bound;
mod child;
mod crowd;
mod frames;
mod gateway;
mod grpc;
mod load;
mod message;
mod pace;
mod report;
mod scenario;
mod stand;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};

use scenario::{fairness, fanout, idle, latency, smoke, stream, unary};
use stand::{FanOut, Plan};

fn main() -> ExitCode {
    let matches = command().get_matches();
    let Some((name, arguments)) = matches.subcommand() else {
        unreachable!("clap requires a command");
    };
    let number = |key: &str| *arguments.get_one::<usize>(key).expect("clap requires it");
    match name {
        "crowd" => {
            let target = *arguments.get_one::<SocketAddr>("target").expect("clap requires it");
            let variant = arguments.get_one::<String>("variant").expect("clap requires it").clone();
            crowd::run(&crowd::Options { target, count: number("count"), first: number("first"), variant });
            return ExitCode::SUCCESS;
        }
        "send-loop" => {
            bound::send_loop(number("count"), number("bytes"));
            return ExitCode::SUCCESS;
        }
        "echo" => return bound::echo(number("request"), number("answer")),
        _ => {}
    }
    gateway::end_with_the_bench();
    let plan = plan(arguments);
    pinion_bench_kit::cpu::pin(&plan.load_cpus);
    match name {
        "unary" => unary::run(&plan),
        "stream" => stream::run(&plan),
        "fanout" => fanout::run(&plan),
        "latency" => latency::run(&plan),
        "fairness" => fairness::run(&plan),
        "idle" => idle::run(&plan),
        _ => smoke::run(&plan),
    }
    ExitCode::SUCCESS
}

/// The runtime of a caller or an echo.
fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_io().build().expect("a runtime")
}

fn command() -> Command {
    let measured =
        |name: &'static str, about: &'static str| Command::new(name).about(about).args(arguments());
    let part = |name: &'static str| Command::new(name).hide(true);
    let value = |name: &'static str| Arg::new(name).long(name).required(true);
    let count = |name: &'static str| value(name).value_parser(value_parser!(usize));
    Command::new("bench-push")
        .about("Measures the push API of a gateway over loopback")
        .subcommand_required(true)
        .subcommand(measured("unary", "Unary pushes per second to one user or some, beside an h2 echo"))
        .subcommand(measured("stream", "Streaming pushes per second to one user, beside an h2 echo"))
        .subcommand(measured("fanout", "One message to all connections, beside a loop of send()"))
        .subcommand(measured("latency", "From call to client at half of the highest rate"))
        .subcommand(measured("fairness", "A single push beside a fan-out in a loop, sliced and unsliced"))
        .subcommand(measured("idle", "CPU of a gateway whose clients do nothing"))
        .subcommand(measured("smoke", "All of them for a moment; only the checks count"))
        .subcommand(
            part("crowd")
                .arg(value("target").value_parser(value_parser!(SocketAddr)))
                .args([count("count"), count("first")])
                .arg(value("variant")),
        )
        .subcommand(part("send-loop").args([count("count"), count("bytes")]))
        .subcommand(part("echo").args([count("request"), count("answer")]))
}

fn arguments() -> Vec<Arg> {
    let option = |name: &'static str, default: &'static str, help: &'static str| {
        Arg::new(name).long(name).default_value(default).help(help)
    };
    let number = |name, default, help| option(name, default, help).value_parser(value_parser!(usize));
    let cpus = |name, default, help| {
        option(name, default, help).value_parser(value_parser!(usize)).value_delimiter(',')
    };
    vec![
        option("gateway", "target/release/pinion", "The binary").value_parser(value_parser!(PathBuf)),
        Arg::new("flag")
            .long("flag")
            .action(ArgAction::Append)
            .allow_hyphen_values(true)
            .help("One more argument for the gateway, like --flag=--shards-driver=epoll; may come again"),
        cpus("server-cpus", "0", "CPUs of the gateway and of the bounds, joined by commas"),
        cpus("load-cpus", "1", "CPUs of clients and caller"),
        number("runs", "5", "Runs; the report has their min, median and max"),
        option("seconds", "2", "Length of each part of a run").value_parser(value_parser!(f64)),
        number("connections", "15000", "Clients, where there is more than one"),
        number("users", "1", "Users that `unary` pushes to in turn"),
        number("body", "100", "Bytes of a message's content"),
        option("variant", "gob", "How clients speak").value_parser(["gob", "gob-gzip", "json", "json-gzip"]),
        number("in-flight", "64", "Calls, or messages of a stream, that wait for their answer at once"),
        number("batch", "16", "Messages in one batch of a stream"),
        option(
            "fan-out",
            "listed",
            "listed: OpenIM's call, naming each; everybody: pinion.v1, to all local users",
        )
        .value_parser(["listed", "everybody"]),
    ]
}

fn plan(arguments: &ArgMatches) -> Plan {
    let number = |name: &str| *arguments.get_one::<usize>(name).expect("it has a default");
    let text = |name: &str| arguments.get_one::<String>(name).expect("it has a default").clone();
    let cpus = |name: &str| arguments.get_many(name).expect("it has a default").copied().collect();
    Plan {
        gateway: arguments.get_one::<PathBuf>("gateway").expect("it has a default").clone(),
        flags: arguments.get_many::<String>("flag").unwrap_or_default().cloned().collect(),
        server_cpus: cpus("server-cpus"),
        load_cpus: cpus("load-cpus"),
        runs: number("runs").max(1),
        seconds: *arguments.get_one::<f64>("seconds").expect("it has a default"),
        connections: number("connections").max(2),
        users: number("users").max(1),
        body: number("body"),
        variant: text("variant"),
        in_flight: number("in-flight").max(1),
        batch: number("batch").max(1),
        fan_out: match text("fan-out").as_str() {
            "everybody" => FanOut::Everybody,
            _ => FanOut::Listed,
        },
    }
}
