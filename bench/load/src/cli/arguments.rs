//! The table of options.

use std::path::PathBuf;

use clap::{Arg, ArgAction, Command, value_parser};

use super::units;

const ABOUT: &str = "Loads a WebSocket server: OpenIM clients, raw messages, pushes over gRPC. Options are wrk's where wrk \
                     has them.";
const EXAMPLES: &str = "\
Examples:
  pinion-bench -t2 -c10k -d30s --latency ws://127.0.0.1:10001             hold 10 000 OpenIM connections
  pinion-bench -c1k -R5k -s bench/scripts/push.lua --push 127.0.0.1:10140 ws://127.0.0.1:10001
                                                                         5 000 pushes per second, latency to the client
  pinion-bench --raw -c100 -s bench/scripts/echo.lua ws://127.0.0.1:9000  raw echo, any server
  pinion-bench -c2k -s bench/scripts/churn.lua --secret @secret ws://gateway:10001
                                                                         does this gateway freeze under login churn?

Numbers take k and M, times ms, s, m and h. bench/README.md explains scripts, reports and JSON.";

/// All options.
pub fn command() -> Command {
    Command::new("pinion-bench")
        .version(env!("CARGO_PKG_VERSION"))
        .about(ABOUT)
        .after_help(EXAMPLES)
        .args(load())
        .args(clients())
        .args(output())
        .arg(
            Arg::new("url")
                .required(true)
                .num_args(1..)
                .help("ws://HOST:PORT[/PATH]; connections take several in turn"),
        )
        .arg(Arg::new("arguments").last(true).num_args(0..).help("After --: arguments of the script"))
}

fn option(name: &'static str, value: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).value_name(value).help(help)
}

fn load() -> Vec<Arg> {
    let seconds = |name, value, help| option(name, value, help).value_parser(units::duration);
    vec![
        option("threads", "N", "Threads that hold connections")
            .short('t')
            .value_parser(units::count)
            .default_value("1"),
        option("connections", "N", "Connections, over all threads")
            .short('c')
            .value_parser(units::count)
            .default_value("10"),
        seconds("duration", "T", "How long to measure, once all are connected")
            .short('d')
            .default_value("10s"),
        option("script", "FILE", "Lua script with wrk's hooks and ours")
            .short('s')
            .value_parser(value_parser!(PathBuf)),
        option("header", "H", "\"Name: value\" for each handshake; may come again")
            .short('H')
            .action(ArgAction::Append),
        seconds("timeout", "T", "An operation without an answer is an error after this").default_value("10s"),
        option(
            "rate",
            "N",
            "Operations per second at fixed times (open loop). Without: each connection's next one \
                             follows its last answer",
        )
        .short('R')
        .value_parser(units::rate),
        option("ramp", "N", "New connections per second while connecting").value_parser(units::rate),
        option("connecting", "N", "Handshakes in flight per thread")
            .value_parser(units::count)
            .default_value("64"),
        seconds("ping", "T", "Heartbeat of each connection, spread evenly; 0: none. OpenIM's clients: 24s")
            .default_value("24s"),
        option(
            "sources",
            "ADDR[-ADDR],..",
            "Addresses to connect from, in turn; loopback targets get some of \
                                             127.0.0.0/8 by themselves",
        )
        .value_delimiter(','),
        option(
            "processes",
            "N",
            "Processes that share the load; default: as many as the file limit asks for",
        )
        .value_parser(units::count),
        option("cpus", "N,..", "CPUs of the load threads, in turn")
            .value_delimiter(',')
            .value_parser(value_parser!(usize)),
        option("driver", "NAME", "What waits for sockets")
            .value_parser(["auto", "io_uring", "epoll"])
            .default_value("auto"),
    ]
}

fn clients() -> Vec<Arg> {
    let secret = |name, variable, help| option(name, "TEXT|@FILE", help).env(variable).hide_env_values(true);
    vec![
        Arg::new("raw")
            .long("raw")
            .action(ArgAction::SetTrue)
            .help("WebSocket messages as scripts make them, no OpenIM"),
        option("encoding", "NAME", "How OpenIM clients speak; default gob, as the native SDKs")
            .value_parser(["gob", "json"]),
        Arg::new("gzip").long("gzip").action(ArgAction::SetTrue).help("OpenIM clients ask for compression"),
        secret("secret", "PINION_BENCH_SECRET", "OpenIM's secret; tokens are made here")
            .default_value("openIM123")
            .hide_default_value(true),
        option("tokens", "FILE", "Tokens from a file of lines USER [PLATFORM] TOKEN")
            .value_parser(value_parser!(PathBuf)),
        option("api", "URL", "Tokens from OpenIM's HTTP API, like http://127.0.0.1:10002"),
        secret("api-secret", "PINION_BENCH_API_SECRET", "The API's secret"),
        Arg::new("register")
            .long("register")
            .action(ArgAction::SetTrue)
            .requires("api")
            .help("Register the users at the API before"),
        option("user-prefix", "TEXT", "Users are called this and a number of six digits").default_value("u"),
        option("first-user", "N", "The number of the first user")
            .value_parser(units::index)
            .default_value("0"),
        option("per-user", "N", "Connections per user, on a platform each")
            .value_parser(units::count)
            .default_value("1"),
        option("platform", "N", "OpenIM's number of the (first) platform")
            .value_parser(value_parser!(i32).range(1..=9))
            .default_value("1"),
        option("push", "HOST:PORT", "A gateway's gRPC port, for scripts that push"),
        secret("push-token", "PINION_BENCH_PUSH_TOKEN", "The gateway's rpc.token"),
    ]
}

fn output() -> Vec<Arg> {
    let flag = |name: &'static str, help: &'static str| {
        Arg::new(name).long(name).action(ArgAction::SetTrue).help(help)
    };
    vec![
        flag("latency", "Print the whole latency distribution").short('l'),
        flag("quiet", "No progress while it runs").short('q'),
        option("json", "FILE", "All figures as JSON; - : to the standard output, without the report")
            .value_parser(value_parser!(PathBuf)),
        option("plot", "DIR", "Latency, rate and connections as SVG files")
            .value_parser(value_parser!(PathBuf)),
        option("server-pid", "PID,..", "Processes whose CPU time and memory are reported")
            .value_delimiter(',')
            .value_parser(value_parser!(u32).range(1..)),
    ]
}
