//! `pinion doctor`: reads the host and says, point by point, whether it suits the planned connections.
//!
//! `read` collects [`facts::Facts`] below a root, `points` and `layout` judge them (pure), this file prints. It changes
//! nothing: what mends a point is printed for an operator to run. Exit codes: 0 ok or hint, 3 warn, 4 fail.

mod facts;
mod grade;
mod layout;
mod points;
pub(super) mod profile;
mod read;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::builder::PossibleValuesParser;
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use serde_json::json;

use self::facts::{Facts, Ring};
use self::grade::{Finding, Grade};
use self::profile::{PROFILES, Profile};
use super::{EXIT_FAILED, fail, output};
use crate::shard::probe_io_uring;

/// The command line.
pub(super) fn command() -> Command {
    Command::new("doctor")
        .about("Judge this host against the planned connections, one graded line per point; changes nothing")
        .after_help("Exit status: 0 all ok or hints, 3 a warning, 4 a failure.")
        .arg(
            Arg::new("profile")
                .long("profile")
                .value_name("PROFILE")
                .value_parser(PossibleValuesParser::new(PROFILES.map(|profile| profile.name)))
                .default_value(PROFILES[0].name)
                .help("How many connections are planned; the names of tuning/sysctl"),
        )
        .arg(Arg::new("json").long("json").action(ArgAction::SetTrue).help("Print one JSON object"))
        .arg(Arg::new("root").long("root").value_name("DIR").value_parser(value_parser!(PathBuf)).help(
            "Read proc/ and sys/ below this directory instead of this host's; io_uring is not tried then",
        ))
}

/// Runs the command.
pub(super) fn run(matches: &ArgMatches) -> ExitCode {
    let named = matches.get_one::<String>("profile").and_then(|name| Profile::named(name));
    let profile = named.unwrap_or(PROFILES[0]);
    let facts = match matches.get_one::<PathBuf>("root") {
        Some(root) => read::facts(root),
        None => Facts { ring: try_ring(), ..read::facts(Path::new("/")) },
    };
    let findings = points::judge(&facts, profile.connections);
    let worst = findings.iter().map(|finding| finding.verdict.grade).max().unwrap_or(Grade::Ok);
    let text = if matches.get_flag("json") {
        json_text(profile, worst, &findings)
    } else {
        plain_text(profile, worst, &findings)
    };
    if !output::print(&text) {
        return fail(EXIT_FAILED, "cannot print");
    }
    ExitCode::from(worst.exit_code())
}

/// What a gateway prints at its start: the failures for as many connections as it would let in. The ring is not tried
/// again: the banner says what came of that.
pub(super) fn failures(connections: u32) -> Vec<String> {
    failures_of(&read::facts(Path::new("/")), connections.into())
}

fn failures_of(facts: &Facts, connections: u64) -> Vec<String> {
    let findings = points::judge(facts, connections);
    let failed = findings.into_iter().filter(|finding| finding.verdict.grade == Grade::Fail);
    failed
        .map(|Finding { point, verdict }| {
            format!("{point}: {}; {}", verdict.text, verdict.fix.unwrap_or_default())
        })
        .collect()
}

fn try_ring() -> Ring {
    match probe_io_uring() {
        Ok(()) => Ring::Works,
        Err(why) => Ring::Refused(why),
    }
}

fn plain_text(profile: Profile, worst: Grade, findings: &[Finding]) -> String {
    let mut lines = vec![format!("profile {}: {} connections", profile.name, profile.connections)];
    for Finding { point, verdict } in findings {
        let fix = verdict.fix.as_ref().map(|fix| format!("  ->  {fix}")).unwrap_or_default();
        lines.push(format!("{:<5} {point:<18} {}{fix}", verdict.grade, verdict.text));
    }
    lines.push(format!("worst: {worst}"));
    lines.join("\n") + "\n"
}

fn json_text(profile: Profile, worst: Grade, findings: &[Finding]) -> String {
    let findings: Vec<_> = findings
        .iter()
        .map(|Finding { point, verdict }| {
            json!({"point": point, "grade": verdict.grade.name(), "text": verdict.text, "fix": verdict.fix})
        })
        .collect();
    let object = json!({
        "profile": profile.name,
        "connections": profile.connections,
        "worst": worst.name(),
        "findings": findings,
    });
    format!("{object}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_tells_failures_and_nothing_milder() {
        assert_eq!(failures_of(&Facts::default(), 100), Vec::<String>::new(), "unknown is no failure");
        let facts = Facts { files_hard: Some(1_024), kernel: Some((4, 19)), ..Facts::default() };
        let failures = failures_of(&facts, 100);
        assert_eq!(failures.len(), 1, "{failures:?}");
        assert!(
            failures[0].starts_with("open files: hard limit 1024, 1600 needed; LimitNOFILE=1600"),
            "{failures:?}"
        );
    }
}
