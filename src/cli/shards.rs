//! `pinion shards`: all shards of a running gateway on one screen, refreshed each second.

use std::io::IsTerminal;
use std::process::ExitCode;

use clap::{Arg, ArgAction, ArgMatches, Command};

use super::admin::{self, Gateway, give_up, size, span, table};
use super::{output, who};
use crate::limits::SHARDS_REFRESH_MS;
use crate::rpc::inside::{NodeView, Pace, ShardView};

/// Cursor to the first place, and everything below it gone.
const CLEAR: &str = "\x1b[H\x1b[J";

/// The command line.
pub(super) fn command() -> Command {
    Command::new("shards")
        .about(
            "Show each shard: connections, queues with the age of the oldest, lanes, loop lag, what it does",
        )
        .arg(
            Arg::new("once")
                .long("once")
                .action(ArgAction::SetTrue)
                .help("Print one screen and end, instead of a new one each second"),
        )
        .arg(who::json().help("Print the gateway's JSON as it is, once"))
        .args(admin::arguments())
}

/// Runs the command: 0 as asked, 2 the gateway could not be asked.
pub(super) fn run(matches: &ArgMatches) -> ExitCode {
    let gateway = Gateway::of(matches);
    let json = matches.get_flag("json");
    let once = json || matches.get_flag("once");
    let clear = if once || !std::io::stdout().is_terminal() { "" } else { CLEAR };
    loop {
        let answer = gateway.get("/v1/shards");
        let text = match answer.and_then(|text| Ok((admin::parse::<NodeView>(&text)?, text))) {
            Ok((_, text)) if json => text,
            Ok((view, _)) => shown(&view),
            Err(failed) => return give_up(&failed),
        };
        if !output::print(&format!("{clear}{text}")) || once {
            return ExitCode::SUCCESS;
        }
        admin::pause(SHARDS_REFRESH_MS);
    }
}

fn shown(node: &NodeView) -> String {
    let users: u64 = node.shards.iter().map(|s| s.users).sum();
    let head = format!(
        "node {}: {} of {} connections, {users} users, {} shards\n",
        node.state,
        node.connections,
        node.connections_max,
        node.shards.len()
    );
    let heading = [
        "shard", "conns", "users", "heads", "outbox", "register", "kick", "unreg", "lanes", "calls", "lag",
        "max", "now",
    ];
    let rows: Vec<Vec<String>> = node.shards.iter().map(row).collect();
    let legend = "queues: entries/age of the oldest   lanes: replies control push hand-over (! = refused some)   \
                  lag: ms\n";
    head + &table(&heading, &rows) + legend
}

fn row(shard: &ShardView) -> Vec<String> {
    let queue = |name: &str| {
        let found = shard.queues.iter().find(|q| *q.queue == *name);
        found.map_or_else(String::new, |q| match q.depth {
            0 => "0".to_owned(),
            depth => format!("{depth}/{}", span(q.oldest_ms)),
        })
    };
    let lanes: Vec<String> = shard
        .lanes
        .iter()
        .map(|lane| format!("{}{}", lane.depth, if lane.refused > 0 { "!" } else { "" }))
        .collect();
    vec![
        shard.shard.to_string(),
        shard.connections.to_string(),
        shard.users.to_string(),
        shard.handshakes.to_string(),
        size(shard.outbox_bytes),
        queue("register"),
        queue("kick"),
        queue("unregister"),
        lanes.join(" "),
        shard.upstream_calls.to_string(),
        shard.loop_lag_ms.to_string(),
        shard.loop_lag_max_ms.to_string(),
        now(shard),
    ]
}

fn now(shard: &ShardView) -> String {
    let on = shard.connection.as_ref().map_or_else(String::new, |conn| format!(" of {conn}"));
    let (activity, ago) = (&shard.activity, span(shard.turned_ms_ago));
    match shard.pace {
        _ if shard.stalled => format!("STALLED for {ago} in {activity}{on}"),
        Pace::Starting => "starting".into(),
        Pace::Ended => "ended".into(),
        Pace::Working => format!("works on {activity}{on}"),
        Pace::Waiting => format!("waits; last {activity}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rpc::inside::{LaneView, QueueView};

    #[test]
    fn a_shard_is_one_line_that_fits_a_terminal() {
        let queue = |queue: &str, depth, oldest_ms| QueueView { queue: queue.into(), depth, oldest_ms };
        let lane = |lane: &str, depth, refused| LaneView { lane: lane.into(), depth, refused };
        let mut shard = ShardView {
            shard: 12,
            connections: 50_000,
            users: 49_000,
            handshakes: 120,
            sockets: 50_120,
            outbox_bytes: 3 << 20,
            upstream_calls: 12,
            pushes: 0,
            queues: vec![queue("register", 44, 1_250), queue("kick", 0, 0), queue("unregister", 3, 12)],
            lanes: vec![
                lane("replies", 3, 0),
                lane("control", 0, 9),
                lane("push", 7, 0),
                lane("hand_over", 0, 0),
            ],
            loop_lag_ms: 1,
            loop_lag_max_ms: 34,
            turned_ms_ago: 4_200,
            stalled: false,
            pace: Pace::Waiting,
            activity: "the ticker".into(),
            connection: Some("3.4".into()),
        };
        let node = |shard: &ShardView| NodeView {
            state: "ready".into(),
            connections: 50_000,
            connections_max: 100_000,
            shards: vec![shard.clone()],
        };
        let text = shown(&node(&shard));
        for part in
            ["node ready: 50000 of 100000", "44/1.2s", "3/12ms", "3 0! 7 0", "3.0M", "waits; last the ticker"]
        {
            assert!(text.contains(part), "{part}\n{text}");
        }
        let width = text.lines().map(|line| line.chars().count()).max().unwrap();
        assert!(width <= 120, "{width}\n{text}");
        shard.stalled = true;
        shard.pace = Pace::Working;
        assert!(shown(&node(&shard)).contains("STALLED for 4.2s in the ticker of 3.4"), "{text}");
    }
}
