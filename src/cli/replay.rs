//! `pinion replay`: feeds a recording (`record.mode`) to a fresh hub and says whether this build decides the same.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Arg, ArgMatches, Command, value_parser};

use super::{EXIT_FAILED, EXIT_USAGE, fail, output};
use crate::hub::record::{self, ReplayError};

/// The command line.
pub(super) fn command() -> Command {
    Command::new("replay")
        .about("Feed a recording of a shard (record.mode) to this build and compare what it decides")
        .arg(
            Arg::new("file")
                .value_name("FILE")
                .required(true)
                .value_parser(value_parser!(PathBuf))
                .help("One of the shardN.jsonl files in record.dir"),
        )
}

/// Runs the command.
pub(super) fn run(matches: &ArgMatches) -> ExitCode {
    let Some(path) = matches.get_one::<PathBuf>("file") else {
        return fail(EXIT_USAGE, "which recording? pinion replay FILE"); // clap requires it
    };
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) => return fail(EXIT_USAGE, &format!("{}: {error}", path.display())),
    };
    match record::replay(&text) {
        Ok(replayed) => {
            let cut = if replayed.truncated { "; the recording was cut at record.bytes_max" } else { "" };
            output::line(&format!(
                "same decisions: trace {:016x}, compared at {} points{cut}",
                replayed.trace_hash, replayed.compared
            ));
            ExitCode::SUCCESS
        }
        Err(error @ ReplayError::Diverged { .. }) => fail(EXIT_FAILED, &error.to_string()),
        Err(error) => fail(EXIT_USAGE, &format!("{}: {error}", path.display())),
    }
}
