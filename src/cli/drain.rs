//! `pinion drain`, `pinion adopt` and `pinion forget`: a running gateway among others. It empties itself or serves
//! again; it serves the addresses of a dead node or gives them back; it waits for a dead node no more.

use std::process::ExitCode;

use clap::{Arg, ArgAction, ArgMatches, Command};
use serde::Deserialize;

use super::admin::{self, Failed, Gateway, escaped, give_up, pause, span};
use super::{output, who};
use crate::limits::DRAIN_ASK_MS;
use crate::node::DrainView;

const DRAIN: &str = "/v1/drain";

/// The command line.
pub(super) fn command() -> Command {
    let flag = |name: &'static str| Arg::new(name).long(name).action(ArgAction::SetTrue);
    Command::new("drain")
        .about("Have the gateway refuse new clients and close its connections at a pace; it does not exit")
        .arg(
            flag("wait").help("Say how far it is until nobody is left (or somebody cancels it: exit code 1)"),
        )
        .arg(flag("status").conflicts_with("wait").help("Change nothing, only say how far it is"))
        .arg(flag("cancel").conflicts_with_all(["wait", "status"]).help("Serve clients again"))
        .arg(who::json())
        .args(admin::arguments())
}

/// The command line.
pub(super) fn adopt_command() -> Command {
    Command::new("adopt")
        .about("Have the gateway serve clients on the addresses of a dead node (cluster.adopt), or give them back")
        .arg(Arg::new("node").value_name("NODE").help("Whose addresses; without it they are only listed"))
        .arg(
            Arg::new("release")
                .long("release")
                .requires("node")
                .action(ArgAction::SetTrue)
                .help("Give them back; who came by them stays"),
        )
        .args(admin::arguments())
}

/// The command line.
pub(super) fn forget_command() -> Command {
    Command::new("forget")
        .about("Tell the gateway that another node of the cluster is dead for good: pushes are complete without it")
        .after_help(
            "With etcd and Kubernetes the others hear of it, and it is refused while the node's lease runs; with a\n\
             static list tell each gateway, and take the node's line off the list. Never say it of a node that may\n\
             live: pushes would miss its clients, and the answers would not say so.",
        )
        .arg(Arg::new("node").value_name("NODE").required(true).help("Its cluster.node_id"))
        .args(admin::arguments())
}

/// Runs `drain`: 0 as asked, 1 it was cancelled while we waited, 2 the gateway refuses or could not be asked.
pub(super) fn run(matches: &ArgMatches) -> ExitCode {
    let gateway = Gateway::of(matches);
    let answer = if matches.get_flag("status") {
        gateway.get(DRAIN)
    } else if matches.get_flag("cancel") {
        gateway.post(&format!("{DRAIN}/cancel"))
    } else {
        gateway.post(DRAIN)
    };
    let shown = answer.and_then(|text| show(matches, &text));
    match shown {
        Ok(view) if matches.get_flag("wait") => wait(matches, &gateway, view),
        Ok(_) => ExitCode::SUCCESS,
        Err(failed) => give_up(&failed),
    }
}

/// Runs `adopt`: 0 as asked, 2 the gateway refuses or could not be asked.
pub(super) fn adopt(matches: &ArgMatches) -> ExitCode {
    let gateway = Gateway::of(matches);
    let release = if matches.get_flag("release") { "/release" } else { "" };
    let answer = match matches.get_one::<String>("node") {
        Some(node) => gateway.post(&format!("/v1/adopt{release}?node={}", escaped(node))),
        None => gateway.get("/v1/adopt"),
    };
    admin::tell(answer)
}

/// Of `GET /v1/cluster`.
#[derive(Deserialize)]
struct Known {
    members: Vec<Life>,
}

#[derive(Deserialize)]
struct Life {
    node_id: String,
    incarnation: u64,
    greeted: Option<u64>,
}

/// Runs `forget`: 0 as asked, 2 the gateway refuses or could not be asked.
pub(super) fn forget(matches: &ArgMatches) -> ExitCode {
    let gateway = Gateway::of(matches);
    let node = matches.get_one::<String>("node").map(String::as_str).unwrap_or_default();
    let answer = gateway.ask("/v1/cluster").and_then(|known: Known| {
        // The gateway says whom it knows if there is no such node; lives begin at 1.
        let life = known.members.iter().find(|life| life.node_id == node);
        let life = life.map_or(0, |life| life.greeted.unwrap_or(life.incarnation));
        gateway.post(&format!("/v1/forget?node={}&incarnation={life}", escaped(node)))
    });
    admin::tell(answer)
}

fn wait(matches: &ArgMatches, gateway: &Gateway, first: DrainView) -> ExitCode {
    let mut view = first;
    while view.state == "draining" {
        pause(DRAIN_ASK_MS);
        match gateway.get(DRAIN).and_then(|text| show(matches, &text)) {
            Ok(next) => view = next,
            // Somebody ended the process meanwhile: nobody is left.
            Err(Failed::Unreachable(..)) => break,
            Err(failed) => return give_up(&failed),
        }
    }
    if view.state == "serving" { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn show(matches: &ArgMatches, text: &str) -> Result<DrainView, Failed> {
    let view = admin::parse(text)?;
    output::print(&if matches.get_flag("json") { text.to_owned() } else { line(&view) });
    Ok(view)
}

fn line(view: &DrainView) -> String {
    let DrainView { state, connections, evicted, evictions_per_s, rate_from, .. } = view;
    let mut text = format!("{state}: {connections} connections here");
    if view.left_ms.is_some() {
        text += &format!(", {evicted} closed in {}", span(view.running_ms));
    }
    if *evictions_per_s > 0 && *connections > 0 {
        text += &format!("; at most {evictions_per_s} per second ({rate_from})");
    }
    if let Some(left_ms) = view.left_ms.filter(|_| *connections > 0) {
        text += &format!("; about {} left", span(left_ms));
    }
    format!("{text}; waits for {}\n", view.waits_for)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drain_is_a_line() {
        let view = DrainView {
            state: "draining".into(),
            connections: 40,
            evicted: 60,
            evictions_per_s: 20,
            rate_from: "drain.evict_per_s".into(),
            running_ms: 4_000,
            left_ms: Some(2_000),
            waits_for: "the connections' turns".into(),
        };
        assert_eq!(
            line(&view),
            "draining: 40 connections here, 60 closed in 4.0s; at most 20 per second (drain.evict_per_s); \
             about 2.0s left; waits for the connections' turns\n"
        );
        let serving = DrainView { state: "serving".into(), left_ms: None, evictions_per_s: 0, ..view };
        assert_eq!(line(&serving), "serving: 40 connections here; waits for the connections' turns\n");
    }
}
