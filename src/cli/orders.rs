//! `pinion reload` and `pinion log-level`: orders to a running gateway.

use std::process::ExitCode;

use clap::{Arg, ArgMatches, Command};

use super::admin::{self, Gateway, escaped, give_up};
use super::{output, who};
use crate::config::reload::Changes;

/// The command line.
pub(super) fn reload_command() -> Command {
    Command::new("reload")
        .about("Have the gateway read its configuration again; says what counts now and what needs a restart")
        .arg(who::json())
        .args(admin::arguments())
}

/// The command line.
pub(super) fn log_level_command() -> Command {
    Command::new("log-level")
        .about("Say what the gateway logs, or change it until the next reload or start")
        .arg(
            Arg::new("directives")
                .value_name("DIRECTIVES")
                .value_parser(clap::builder::NonEmptyStringValueParser::new())
                .help("A level, and behind it exceptions, for example info,pinion::rpc=debug"),
        )
        .args(admin::arguments())
}

/// Runs `reload`: 0 the configuration was read, 2 it is faulty or the gateway could not be asked.
pub(super) fn reload(matches: &ArgMatches) -> ExitCode {
    let answer = Gateway::of(matches).post("/v1/reload");
    match answer.and_then(|text| Ok((admin::parse::<Changes>(&text)?, text))) {
        Ok((_, text)) if matches.get_flag("json") => output::print(&text),
        Ok((changes, _)) => output::print(&shown(&changes)),
        Err(failed) => return give_up(&failed),
    };
    ExitCode::SUCCESS
}

/// Runs `log-level`: 0 as asked, 2 a directive is bad or the gateway could not be asked.
pub(super) fn log_level(matches: &ArgMatches) -> ExitCode {
    let gateway = Gateway::of(matches);
    let answer = match matches.get_one::<String>("directives") {
        Some(text) => gateway.post(&format!("/v1/log-level?directives={}", escaped(text))),
        None => gateway.get("/v1/log-level"),
    };
    admin::tell(answer)
}

fn shown(changes: &Changes) -> String {
    let Changes { applied, pending, warnings } = changes;
    let lines = |head: &str, lines: Vec<String>| -> String {
        lines.into_iter().map(|line| format!("{head} {line}\n")).collect()
    };
    let texts = |changes: &[_]| changes.iter().map(ToString::to_string).collect::<Vec<_>>();
    let text = lines("in force:", texts(applied))
        + &lines("needs a restart:", texts(pending))
        + &lines("warning:", warnings.clone());
    if applied.is_empty() && pending.is_empty() { format!("nothing changed\n{text}") } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::reload::Change;

    #[test]
    fn each_change_is_a_line() {
        let change = |key: &str, values: Option<(&str, &str)>| Change {
            key: key.into(),
            values: values.map(|(old, new)| (old.into(), new.into())),
        };
        let changes = Changes {
            applied: vec![change("login.policy", Some(("1", "4"))), change("http.token", None)],
            pending: vec![change("websocket.port", Some(("1", "2")))],
            warnings: vec!["look out".into()],
        };
        let text = "in force: login.policy: \"1\" -> \"4\"\nin force: http.token: (changed)\n\
                    needs a restart: websocket.port: \"1\" -> \"2\"\nwarning: look out\n";
        assert_eq!(shown(&changes), text);
        assert_eq!(shown(&Changes::default()), "nothing changed\n");
    }
}
