//! `pinion plan`: memory, cores and kernel settings for so many connections, computed from measured slopes.
//!
//! `slopes` is the table of what was measured, `sum` computes (pure), `text` prints. `bench/CAPACITY.md` carries the
//! plans for 100k, 1M and 10M connections; a test keeps it and the table together.

mod slopes;
mod sum;
mod text;

use std::process::ExitCode;

use clap::builder::PossibleValuesParser;
use clap::{Arg, ArgAction, ArgMatches, Command};

use self::slopes::ENGINES;
use self::sum::{Ask, Plan};
use super::{EXIT_FAILED, EXIT_USAGE, fail, output};

/// Connections of one host above which the sum says nothing useful: no host of today holds them.
const HOST_CONNECTIONS_MAX: u64 = 50_000_000;

/// The command line.
pub(super) fn command() -> Command {
    let option = |name: &'static str, value: &'static str, default: &'static str, help: &'static str| {
        Arg::new(name).long(name).value_name(value).default_value(default).help(help)
    };
    let rate = |name, default, help| option(name, "N", default, help).value_parser(rate);
    let share = |name, default, help| option(name, "PERCENT", default, help).value_parser(percent);
    Command::new("plan")
        .about("Compute memory, cores and kernel settings for so many connections, from measured slopes")
        .after_help(
            "Numbers take k and M. bench/CAPACITY.md: 100k, 1M and 10M, and what the figures are worth.",
        )
        .arg(
            Arg::new("connections")
                .long("connections")
                .value_name("N")
                .required(true)
                .value_parser(count)
                .help("Clients that are connected at once, over all nodes"),
        )
        .arg(option("nodes", "N", "1", "Hosts that share them").value_parser(count))
        .arg(
            Arg::new("engine")
                .long("engine")
                .value_parser(PossibleValuesParser::new(ENGINES.map(|engine| engine.name)))
                .default_value(ENGINES[0].name)
                .help("What moves bytes; the start line of a gateway names it"),
        )
        .arg(rate("heartbeat-seconds", "24", "Between two pings of a client"))
        .arg(rate("logins-per-second", "0", "Over all nodes. To be back in 5 minutes: connections / 300"))
        .arg(rate("pushes-per-second", "0", "Calls, over all nodes"))
        .arg(rate("fan-out", "1", "Connections that a push reaches"))
        .arg(share("stalled", "1", "Clients that have stopped reading, as on a train into a tunnel"))
        .arg(Arg::new("json").long("json").action(ArgAction::SetTrue).help("Print one JSON object"))
}

/// Runs the command.
pub(super) fn run(matches: &ArgMatches) -> ExitCode {
    let ask = match ask(matches) {
        Ok(ask) => ask,
        Err(why) => return fail(EXIT_USAGE, &why),
    };
    let plan = Plan::new(&ask);
    let text = if matches.get_flag("json") { text::json(&ask, &plan) } else { text::plain(&ask, &plan) };
    if output::print(&text) { ExitCode::SUCCESS } else { fail(EXIT_FAILED, "cannot print") }
}

fn ask(matches: &ArgMatches) -> Result<Ask, String> {
    let number = |name: &str| matches.get_one::<u64>(name).copied().unwrap_or(1);
    let rate = |name: &str| matches.get_one::<f64>(name).copied().unwrap_or_default();
    let engine = matches.get_one::<String>("engine");
    let ask = Ask {
        connections: number("connections"),
        nodes: number("nodes"),
        engine: ENGINES
            .into_iter()
            .find(|known| Some(known.name) == engine.map(String::as_str))
            .unwrap_or(ENGINES[0]),
        heartbeat_seconds: rate("heartbeat-seconds"),
        logins: rate("logins-per-second"),
        pushes: rate("pushes-per-second"),
        fan_out: rate("fan-out"),
        stalled: rate("stalled"),
    };
    if ask.heartbeat_seconds <= 0.0 {
        return Err("--heartbeat-seconds: must be above 0; OpenIM's clients ping every 24 s".to_owned());
    }
    let each = ask.connections.div_ceil(ask.nodes);
    if each > HOST_CONNECTIONS_MAX {
        return Err(format!(
            "{each} connections on each of {} hosts; this sum ends at \
             {HOST_CONNECTIONS_MAX} per host: give it more with --nodes {}",
            ask.nodes,
            ask.connections.div_ceil(HOST_CONNECTIONS_MAX)
        ));
    }
    Ok(ask)
}

/// `250000`, `100k`, `1M`.
fn count(text: &str) -> Result<u64, String> {
    let (digits, unit) = match text.strip_suffix(['k', 'K']) {
        Some(digits) => (digits, 1_000),
        None => text.strip_suffix(['m', 'M']).map_or((text, 1), |digits| (digits, 1_000_000)),
    };
    let number = digits.parse::<u64>().ok().and_then(|number| number.checked_mul(unit));
    number
        .filter(|number| (1..=1_000_000_000_000).contains(number))
        .ok_or_else(|| "expected a number above 0, like 250000, 100k or 1M".to_owned())
}

/// As [`count`], 0 and fractions too.
fn rate(text: &str) -> Result<f64, String> {
    if let Ok(number) = text.parse::<f64>() {
        return if number.is_finite() && (0.0..=1e9).contains(&number) {
            Ok(number)
        } else {
            Err("expected a number from 0 to a billion".to_owned())
        };
    }
    #[expect(clippy::cast_precision_loss, reason = "at most 10^12")]
    count(text).map(|number| number as f64)
}

fn percent(text: &str) -> Result<f64, String> {
    let number = text.strip_suffix('%').unwrap_or(text).parse::<f64>().ok();
    number
        .filter(|number| (0.0..=100.0).contains(number))
        .map(|number| number / 100.0)
        .ok_or_else(|| "expected 0 to 100".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/bench/CAPACITY.md");

    fn asked(arguments: &[&str]) -> Result<Ask, String> {
        let all = ["plan"].iter().chain(arguments);
        let matches = command().try_get_matches_from(all).map_err(|error| error.to_string())?;
        ask(&matches)
    }

    #[test]
    fn numbers_are_read_and_bad_ones_refused() {
        for (text, want) in [("1", Some(1)), ("100k", Some(100_000)), ("10M", Some(10_000_000))] {
            assert_eq!(asked(&["--connections", text]).ok().map(|ask| ask.connections), want, "{text}");
        }
        for (arguments, said) in [
            (&[][..], "--connections"),
            (&["--connections", "0"], "expected a number above 0"),
            (&["--connections", "many"], "expected a number above 0"),
            (&["--connections", "1", "--nodes", "0"], "expected a number above 0"),
            (&["--connections", "1", "--heartbeat-seconds", "0"], "must be above 0"),
            (&["--connections", "1", "--stalled", "101"], "expected 0 to 100"),
            (&["--connections", "1", "--pushes-per-second=-1"], "from 0 to a billion"),
            (&["--connections", "1", "--engine", "magic"], "ring"),
            (&["--connections", "100M"], "--nodes 2"),
        ] {
            let error = asked(arguments).unwrap_err();
            assert!(error.contains(said), "{arguments:?}: {error}");
        }
    }

    /// The blocks of the page that start with a command are what the command prints.
    #[test]
    fn the_page_on_capacity_has_what_the_table_gives() {
        let page = std::fs::read_to_string(PAGE).unwrap();
        let mut made = String::new();
        let mut rest = page.as_str();
        let mut plans = 0;
        while let Some((before, after)) = rest.split_once("```text\n$ pinion ") {
            let (line, after) = after.split_once('\n').unwrap();
            let (_, after) = after.split_once("```").unwrap();
            let arguments: Vec<&str> = line.split(' ').skip(1).collect();
            let ask = asked(&arguments).unwrap();
            made += &format!("{before}```text\n$ pinion {line}\n{}```", text::plain(&ask, &Plan::new(&ask)));
            rest = after;
            plans += 1;
        }
        made += rest;
        let (head, table) = made.split_once("<!-- slopes -->\n").unwrap();
        let (_, foot) = table.split_once("<!-- end -->").unwrap();
        made = format!("{head}<!-- slopes -->\n{}<!-- end -->{foot}", text::slopes());
        assert_eq!(plans, 3);
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(PAGE, &made).unwrap();
        } else {
            assert!(
                made == page,
                "bench/CAPACITY.md is not what the slopes give: UPDATE=1 cargo test --lib cli::plan"
            );
        }
    }
}
