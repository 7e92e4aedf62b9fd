//! The commands of the `pinion` binary: arguments in, text and an exit code out.
//!
//! `args` derives flags from the settings table; one file per command; `client` and `frames` are the gateway's own wire
//! code from the client's side; `admin` asks a running gateway over its admin port, `rpc` finds the way to its gRPC
//! port; `doctor` judges the host, `plan` computes what one needs, `route` says where users
//! belong; `proxy` is a process beside the gateway. Not here: what runs once a gateway is configured (`node`).
//!
//! Exit codes: 0 as asked, 1 it did not work out (each command says what), 2 the input was wrong; `doctor` has 3 and 4
//! as well.

mod admin;
mod args;
mod banner;
mod client;
mod dispatch;
mod doctor;
mod drain;
mod frames;
mod gateway;
mod listen;
mod orders;
mod output;
mod plan;
mod proxy;
mod push;
mod replay;
mod route;
mod rpc;
mod shards;
mod token;
mod trace;
mod version;
mod who;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::ArgMatches;

use crate::config::machine::Machine;
use crate::config::{self, Loaded, Sources};
use crate::node::StartFault;
use crate::shard::clock;

/// The input was wrong.
const EXIT_USAGE: u8 = 2;
/// It did not work out.
const EXIT_FAILED: u8 = 1;

/// Runs the command that the arguments (program name first) ask for.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let matches = match args::command().try_get_matches_from(arguments) {
        Ok(matches) => matches,
        Err(error) => return usage(&error),
    };
    match matches.subcommand() {
        None => gateway::run(&matches),
        Some(("gateway", matches)) => gateway::run(matches),
        Some(("check", matches)) => check(matches),
        Some(("token", matches)) => token::run(matches),
        Some(("listen", matches)) => listen::run(matches),
        Some(("proxy", matches)) => proxy::run(matches),
        Some(("push", matches)) => push::run(matches),
        Some(("replay", matches)) => replay::run(matches),
        Some(("dispatch", matches)) => dispatch::run(matches),
        Some(("route", matches)) => route::run(matches),
        Some(("who", matches)) => who::run(matches),
        Some(("trace", matches)) => trace::run(matches),
        Some(("shards", matches)) => shards::run(matches),
        Some(("reload", matches)) => orders::reload(matches),
        Some(("log-level", matches)) => orders::log_level(matches),
        Some(("drain", matches)) => drain::run(matches),
        Some(("adopt", matches)) => drain::adopt(matches),
        Some(("forget", matches)) => drain::forget(matches),
        Some(("doctor", matches)) => doctor::run(matches),
        Some(("plan", matches)) => plan::run(matches),
        // The parser knows no other command; an answer costs less than a proof.
        Some((other, _)) => fail(EXIT_USAGE, &format!("unknown command {other}")),
    }
}

/// Help, version and wrong usage. clap colours and words them; a closed stdout is no fault.
fn usage(error: &clap::Error) -> ExitCode {
    if let Err(e) = error.print()
        && e.kind() != std::io::ErrorKind::BrokenPipe
    {
        return fail(EXIT_FAILED, &format!("cannot print: {e}"));
    }
    u8::try_from(error.exit_code()).map_or(ExitCode::FAILURE, ExitCode::from)
}

/// `pinion check`.
fn check(matches: &ArgMatches) -> ExitCode {
    match load(matches) {
        Ok(loaded) => {
            if matches.get_flag(args::PRINT_CONFIG) {
                output::print(&loaded.print());
            }
            for line in loaded.taken() {
                output::line(&format!("openim: {line}"));
            }
            for note in &loaded.notes {
                output::line(&format!("note: {note}"));
            }
            for warning in &loaded.warnings {
                output::line(&format!("warning: {warning}"));
            }
            output::line("configuration is good");
            ExitCode::SUCCESS
        }
        Err(code) => code,
    }
}

/// Loads the configuration from everything that was given; says what is wrong and with which code to end.
fn load(matches: &ArgMatches) -> Result<Loaded, ExitCode> {
    load_from(&args::sources(matches))
}

/// As [`load`].
fn load_from(sources: &Sources) -> Result<Loaded, ExitCode> {
    let now = clock::now().unix;
    let loaded = config::load(sources, &Machine::probe(), now, draw_key);
    loaded.map_err(|faults| fail(EXIT_USAGE, &faults.to_string()))
}

/// Two numbers that nobody outside can guess: SipHash under keys that std draws from the system.
fn draw_key() -> [u64; 2] {
    use std::hash::BuildHasher;
    let state = std::hash::RandomState::new();
    [state.hash_one(1_u8), state.hash_one(2_u8)]
}

/// As [`fail`], of a process that is no gateway.
fn not_started(fault: &StartFault) -> ExitCode {
    match fault {
        StartFault::Input(why) => fail(EXIT_USAGE, why),
        StartFault::System(why) => fail(EXIT_FAILED, why),
    }
}

/// Says on standard error what is wrong and gives the code to end with.
fn fail(code: u8, text: &str) -> ExitCode {
    output::error_line(&format!("pinion: {text}"));
    ExitCode::from(code)
}
