//! `pinion token`: a login token, signed with the configured secret (spec 7.1).

use std::process::ExitCode;

use clap::ArgMatches;

use super::{EXIT_FAILED, fail, load, output};
use crate::backend::token;
use crate::ids::Platform;
use crate::shard::clock;

const SECONDS_PER_DAY: i64 = 86_400;

/// Runs the command.
pub(super) fn run(matches: &ArgMatches) -> ExitCode {
    let loaded = match load(matches) {
        Ok(loaded) => loaded,
        Err(code) => return code,
    };
    let (Some(user), Some(&platform), Some(&days)) = (
        matches.get_one::<String>("user"),
        matches.get_one::<Platform>("platform"),
        matches.get_one::<u32>("ttl"),
    ) else {
        return fail(EXIT_FAILED, "an argument is missing"); // clap requires or defaults all three
    };
    let ttl_s = i64::from(days) * SECONDS_PER_DAY;
    match token::issue(&loaded.config.auth.secret, user, platform, clock::now().unix, ttl_s) {
        Ok(token) => {
            output::line(&token);
            ExitCode::SUCCESS
        }
        Err(fault) => fail(EXIT_FAILED, &format!("no token could be made: {fault:?}")),
    }
}
