//! `pinion who USER`: the user's connections on a running gateway.

use std::process::ExitCode;

use clap::{Arg, ArgAction, ArgMatches, Command};

use super::admin::{self, Gateway, escaped, give_up, size, span, table};
use super::{EXIT_FAILED, output};
use crate::hub::sight::{ConnectionFacts, UserFacts};
use crate::session::Phase;
use crate::session::handshake::origin::address_text;

/// The command line.
pub(super) fn command() -> Command {
    Command::new("who")
        .about("Show the connections of a user: where they are, how old, what waits for them")
        .arg(user())
        .arg(json())
        .args(admin::arguments())
}

/// The user that a command is about.
pub(super) fn user() -> Arg {
    Arg::new("user")
        .value_name("USER")
        .required(true)
        .value_parser(clap::builder::NonEmptyStringValueParser::new())
        .help("User id")
}

/// `--json`.
pub(super) fn json() -> Arg {
    Arg::new("json").long("json").action(ArgAction::SetTrue).help("Print the gateway's JSON as it is")
}

/// Runs the command: 0 there are connections, 1 there are none, 2 the gateway could not be asked.
pub(super) fn run(matches: &ArgMatches) -> ExitCode {
    let user = matches.get_one::<String>("user").map(String::as_str).unwrap_or_default();
    let answer = Gateway::of(matches).get(&format!("/v1/who?user={}", escaped(user)));
    let parsed = answer.and_then(|text| Ok((admin::parse::<UserFacts>(&text)?, text)));
    let (facts, text) = match parsed {
        Ok(parsed) => parsed,
        Err(failed) => return give_up(&failed),
    };
    output::print(&if matches.get_flag("json") { text } else { shown(&facts) });
    if facts.connections.is_empty() { ExitCode::from(EXIT_FAILED) } else { ExitCode::SUCCESS }
}

fn shown(facts: &UserFacts) -> String {
    let (user, shard) = (&facts.user, facts.shard.0);
    let count = facts.connections.len() + facts.left_out;
    let head = match count {
        0 => return format!("{user} is not connected (shard {shard} would hold it)\n"),
        1 => format!("{user} on shard {shard}: 1 connection\n"),
        n => format!("{user} on shard {shard}: {n} connections\n"),
    };
    let rows: Vec<Vec<String>> = facts.connections.iter().map(row).collect();
    let heading = ["id", "platform", "address", "state", "age", "heard", "queued", "requests", "watches"];
    let mut text = head + &table(&heading, &rows);
    if facts.left_out > 0 {
        text += &format!("and {} more\n", facts.left_out);
    }
    text
}

fn row(c: &ConnectionFacts) -> Vec<String> {
    let state = match c.phase {
        Phase::LoggingIn => "token check",
        Phase::Spread => "spread",
        Phase::Registering => "registering",
        Phase::Claiming => "claiming",
        Phase::Open if c.background => "background",
        Phase::Open => "open",
        Phase::Closing => "closing",
        Phase::Closed => "closed",
    };
    let bytes = size(u64::try_from(c.queued_bytes).unwrap_or(u64::MAX));
    let queued = if c.queued_frames == 0 { "0".into() } else { format!("{bytes} in {}", c.queued_frames) };
    let waiting = c.requests_waiting;
    let requests = if waiting == 0 {
        c.requests_in_flight.to_string()
    } else {
        format!("{}+{waiting}", c.requests_in_flight)
    };
    vec![
        c.id.to_string(),
        c.platform.name().to_owned(),
        address_text(c.peer).to_string(),
        state.to_owned(),
        span(c.age_ms),
        format!("{} ago", span(c.silent_ms)),
        queued,
        requests,
        c.subscriptions.to_string(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{Platform, ShardId};

    #[test]
    fn a_line_per_connection_fits_a_terminal() {
        let connection = ConnectionFacts {
            id: "12345.678901".into(),
            connection_id: "0123456789abcdef0123456789abcdef".into(),
            platform: Platform::new(11).unwrap(),
            peer: "[2001:db8:aaaa:bbbb:cccc:dddd:eeee:ffff]:65535".parse().unwrap(),
            phase: Phase::LoggingIn,
            age_ms: 3_600_000,
            silent_ms: 29_900,
            queued_bytes: 2 << 20,
            queued_frames: 256,
            requests_in_flight: 8,
            requests_waiting: 21,
            subscriptions: 4096,
            background: false,
            login_time: None,
        };
        let facts =
            UserFacts { user: "u".into(), shard: ShardId(3), connections: vec![connection], left_out: 0 };
        let text = shown(&facts);
        assert!(text.starts_with("u on shard 3: 1 connection\n"), "{text}");
        for part in ["HarmonyOS", "token check", "1h00m", "29.9s ago", "2.0M in 256", "8+21", "4096"] {
            assert!(text.contains(part), "{part}: {text}");
        }
        let width = text.lines().map(|l| l.chars().count()).max().unwrap();
        assert!(width <= 140, "{width}: even with the longest address\n{text}");
        let none = UserFacts { connections: Vec::new(), ..facts };
        assert_eq!(shown(&none), "u is not connected (shard 3 would hold it)\n");
    }
}
