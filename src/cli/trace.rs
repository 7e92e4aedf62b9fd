//! `pinion trace USER`: what happens to a user from now on, for a while.
//!
//! The gateway notes the events (`hub::follow`) and this command reads them in pages. It may end at any time: the
//! gateway stops noting by itself.

use std::process::ExitCode;

use clap::{Arg, ArgMatches, Command, value_parser};

use super::admin::{self, Failed, Gateway, escaped, give_up, span};
use super::{output, who};
use crate::hub::follow::{Event, Page, What};
use crate::hub::mail::DeviceOutcome;
use crate::limits::{TRACE_FOR_MS, TRACE_POLL_MS};
use crate::session::disconnect::{Disconnect, Fault};
use crate::session::handshake::origin::address_text;
use crate::shard::clock;
use crate::time::UnixMs;

/// The command line.
pub(super) fn command() -> Command {
    Command::new("trace")
        .about("Print what happens to a user: logins, requests, pushes, kicks, closes with their reason")
        .arg(who::user())
        .arg(
            Arg::new("for")
                .long("for")
                .value_name("TIME")
                .default_value("30s")
                .value_parser(time)
                .help("For so long, for example 30s or 5m"),
        )
        .arg(
            Arg::new("count")
                .long("count")
                .value_name("N")
                .default_value("1000")
                .value_parser(value_parser!(u64).range(1..))
                .help("End after so many events"),
        )
        .args(admin::arguments())
}

/// A time in milliseconds, within the gateway's limit.
fn time(text: &str) -> Result<u64, String> {
    let units = [("ms", 1), ("s", 1_000), ("m", 60_000)];
    let split = units.iter().find_map(|(unit, factor)| Some((text.strip_suffix(unit)?, factor)));
    let ms = split.and_then(|(digits, factor)| digits.parse::<u64>().ok()?.checked_mul(*factor));
    ms.filter(|ms| (1..=TRACE_FOR_MS).contains(ms))
        .ok_or_else(|| format!("expected a time up to {}, for example 30s or 5m", span(TRACE_FOR_MS)))
}

/// Runs the command: 0 the time or the count is up, 2 the gateway could not be asked.
pub(super) fn run(matches: &ArgMatches) -> ExitCode {
    match follow(matches) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failed) => give_up(&failed),
    }
}

fn follow(matches: &ArgMatches) -> Result<(), Failed> {
    let user = matches.get_one::<String>("user").map(String::as_str).unwrap_or_default();
    let for_ms = matches.get_one::<u64>("for").copied().unwrap_or_default();
    let mut left = matches.get_one::<u64>("count").copied().unwrap_or_default();
    let gateway = Gateway::of(matches);
    let path = format!("/v1/trace?user={}", escaped(user));
    let deadline = clock::now().mono.plus_ms(for_ms);
    let mut page: Page = gateway.ask(&format!("{path}&for_ms={for_ms}"))?;
    if !output::line(&format!("tracing {user} for {}", span(for_ms))) {
        return Ok(());
    }
    loop {
        // Asked before the time was up, so that the last page holds all of it.
        let last = page.left_ms == 0 || (clock::now().mono >= deadline && page.events.is_empty());
        if page.missed > 0
            && !output::line(&format!("... {} events were lost: too many at once", page.missed))
        {
            return Ok(());
        }
        for event in &page.events {
            if !output::line(&shown(event)) {
                return Ok(()); // nobody reads any more
            }
            left -= 1;
            if left == 0 {
                return Ok(());
            }
        }
        if last {
            return Ok(());
        }
        if page.events.is_empty() {
            admin::pause(TRACE_POLL_MS);
        }
        page = gateway.ask(&format!("{path}&cursor={}", page.next))?;
    }
}

fn shown(event: &Event) -> String {
    let connection = event.connection.as_deref().unwrap_or("-");
    let (name, rest) = told(&event.what);
    format!("{}  {connection:<8}  {name:<8}  {rest}", time_of_day(event.at)).trim_end().to_owned()
}

/// The name of an event and what there is to say.
fn told(what: &What) -> (&'static str, String) {
    match what {
        What::Login { peer, platform } => {
            ("login", format!("{} from {}", platform.name(), address_text(*peer)))
        }
        What::Refused { code, message } => ("refused", format!("{code} {message}")),
        What::Online => ("online", String::new()),
        What::Request { id, operation_id, bytes } => {
            ("request", format!("{id} {} ({bytes} bytes, operation {operation_id})", meaning(*id)))
        }
        What::Answer { id, operation_id, code: 0 } => {
            ("answer", format!("{id} {} good (operation {operation_id})", meaning(*id)))
        }
        What::Answer { id, operation_id, code } => {
            ("answer", format!("{id} {} error {code} (operation {operation_id})", meaning(*id)))
        }
        What::Push { operation_id, outcome, bytes } => {
            let outcome = match outcome {
                DeviceOutcome::Queued => "queued",
                DeviceOutcome::Written => "written",
                DeviceOutcome::Dropped => "dropped",
                DeviceOutcome::Kicked => "not sent, kicked",
                DeviceOutcome::Expired => "expired",
                DeviceOutcome::TooLarge => "not sent, above 1 MiB",
                DeviceOutcome::Background => "not sent, in the background",
            };
            ("push", format!("{outcome} ({bytes} bytes, operation {operation_id})"))
        }
        What::PushNotHere { operation_id } => ("push", format!("not connected (operation {operation_id})")),
        What::Kicked => ("kick", "must leave; the kick frame follows".into()),
        What::Over { reason } => ("over", over(reason)),
        What::Closed => ("closed", String::new()),
    }
}

/// The reason of a close, with its row of the table of reasons.
fn over(label: &str) -> String {
    let Some(reason) = Disconnect::ALL.iter().find(|reason| reason.terms().label == label) else {
        return label.to_owned();
    };
    let terms = reason.terms();
    let fault = match terms.fault {
        Fault::Client => "the client or its network",
        Fault::Node => "this node or what it depends on",
        Fault::None => "intended",
    };
    format!("{label} ({fault}); the client {}", terms.client_next)
}

/// What a request identifier stands for (spec 3.1).
fn meaning(id: i32) -> &'static str {
    match id {
        1001 => "GetMaxSeq",
        1002 => "PullMessageBySeqs",
        1003 => "SendMsg",
        1004 => "SendSignalMsg",
        1005 => "GetSeqMessage",
        1006 => "GetConversationsHasReadAndMaxSeq",
        1007 => "GetLastMessage",
        2003 => "Logout",
        2004 => "SetBackground",
        2005 => "Subscribe",
        _ => "unknown",
    }
}

/// `hh:mm:ss.mmm`, UTC.
fn time_of_day(at: UnixMs) -> String {
    let ms = at.0.rem_euclid(86_400_000);
    format!("{:02}:{:02}:{:02}.{:03}", ms / 3_600_000, ms / 60_000 % 60, ms / 1_000 % 60, ms % 1_000)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Platform;

    #[test]
    fn times_have_units_and_a_limit() {
        for (text, want) in [
            ("250ms", Some(250)),
            ("30s", Some(30_000)),
            ("10m", Some(600_000)),
            ("11m", None),
            ("0s", None),
            ("30", None),
            ("s", None),
            ("-1s", None),
            ("99999999999999999999m", None),
        ] {
            assert_eq!(time(text).ok(), want, "{text}");
        }
    }

    #[test]
    fn events_are_lines_that_say_what_happened() {
        let event = |what, connection: Option<&str>| {
            shown(&Event { at: UnixMs(86_400_000 + 3_723_004), connection: connection.map(Into::into), what })
        };
        let op = || "op".into();
        for (what, want) in [
            (
                What::Login { peer: "127.0.0.1:9".parse().unwrap(), platform: Platform::WEB },
                "01:02:03.004  3.1       login     Web from 127.0.0.1:9",
            ),
            (What::Online, "01:02:03.004  3.1       online"),
            (
                What::Request { id: 1003, operation_id: op(), bytes: 7 },
                "01:02:03.004  3.1       request   1003 SendMsg (7 bytes, operation op)",
            ),
            (
                What::Answer { id: 1003, operation_id: op(), code: 500 },
                "01:02:03.004  3.1       answer    1003 SendMsg error 500 (operation op)",
            ),
            (
                What::Over { reason: "slow_consumer".into() },
                "01:02:03.004  3.1       over      slow_consumer (the client or its network); the client reconnects \
                 with backoff",
            ),
            (What::Over { reason: "new".into() }, "01:02:03.004  3.1       over      new"),
        ] {
            assert_eq!(event(what, Some("3.1")), want);
        }
        assert_eq!(
            event(What::PushNotHere { operation_id: op() }, None),
            "01:02:03.004  -         push      not connected (operation op)"
        );
    }
}
