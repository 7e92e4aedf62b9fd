//! What `/v1/shards` and `pinion shards` show: the node and each of its shards on one screen.
//!
//! Made from the counts that the shards publish each tick, from their lanes and from their heartbeats, without asking
//! them: so it is there for a shard that answers nobody any more.

use serde::{Deserialize, Serialize};

use crate::admission::{Admission, NodeState};
use crate::limits::STALL_REPORT_MS;
use crate::metrics::{Block, Metric};
use crate::shard::mailbox::LaneDepths;
use crate::shard::pulse::{Phase, Pulse};
use crate::time::Mono;

/// The node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeView {
    /// `starting`, `ready` or `draining`.
    pub state: Box<str>,
    /// Places taken of the connection limit.
    pub connections: u32,
    /// The connection limit.
    pub connections_max: u32,
    /// By id.
    pub shards: Vec<ShardView>,
}

/// One shard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShardView {
    /// Its id.
    pub shard: u16,
    /// Sessions known: registered, logging in or closing.
    pub connections: u64,
    /// Distinct users with a registered connection.
    pub users: u64,
    /// Connections whose request head is being read.
    pub handshakes: u64,
    /// Client descriptors held.
    pub sockets: u64,
    /// Bytes that wait for clients.
    pub outbox_bytes: u64,
    /// Upstream calls that wait for their reply.
    pub upstream_calls: u64,
    /// Pushes taken and not finished.
    pub pushes: u64,
    /// Register, kick, unregister.
    pub queues: Vec<QueueView>,
    /// Replies, control, push, hand-over.
    pub lanes: Vec<LaneView>,
    /// How late the last tick came.
    pub loop_lag_ms: u64,
    /// How late the latest tick since start came.
    pub loop_lag_max_ms: u64,
    /// Since its last turn.
    pub turned_ms_ago: u64,
    /// Whether that is too long.
    pub stalled: bool,
    /// What it does now.
    pub pace: Pace,
    /// What it works on, or worked on last.
    pub activity: Box<str>,
    /// The connection that this concerns.
    pub connection: Option<Box<str>>,
}

/// What a shard does now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pace {
    /// Not in its loop yet.
    Starting,
    /// On its activity.
    Working,
    /// For events: nothing is left to do.
    Waiting,
    /// It left its loop.
    Ended,
}

/// One of the hub's queues.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueView {
    /// As in the metrics.
    pub queue: Box<str>,
    /// Entries.
    pub depth: u64,
    /// Age of the oldest entry.
    pub oldest_ms: u64,
}

/// One lane of the mailbox.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaneView {
    /// As in the metrics.
    pub lane: Box<str>,
    /// Mails waiting now.
    pub depth: usize,
    /// Mails refused since start because it was full.
    pub refused: u64,
}

/// The node without its shards.
pub(super) fn node(admission: &Admission) -> NodeView {
    let state = match admission.state() {
        NodeState::Starting => "starting",
        NodeState::Ready => "ready",
        NodeState::Draining => "draining",
    };
    NodeView {
        state: state.into(),
        connections: admission.open(),
        connections_max: admission.connections_max(),
        shards: Vec::new(),
    }
}

/// One shard, as its traces show it.
pub(super) fn shard(id: u16, now: Mono, block: &Block, pulse: &Pulse, lanes: LaneDepths) -> ShardView {
    let seen = pulse.glimpse();
    let silence = now.since_ms(seen.stamp);
    let pace = match seen.phase {
        Phase::Unborn => Pace::Starting,
        Phase::Turning => Pace::Working,
        Phase::Parked => Pace::Waiting,
        Phase::Ended => Pace::Ended,
    };
    let turns = matches!(pace, Pace::Working | Pace::Waiting);
    let stalled = turns && silence > STALL_REPORT_MS;
    // A stalled shard publishes nothing: what waited then has waited all the while.
    let unseen = if stalled { silence } else { 0 };
    let queue = |name: &str, depth, age| {
        let depth = block.value(depth);
        let oldest_ms = if depth > 0 { block.value(age) + unseen } else { 0 };
        QueueView { queue: name.into(), depth, oldest_ms }
    };
    let lane =
        |name: &str, depth, refused| LaneView { lane: name.into(), depth, refused: block.value(refused) };
    ShardView {
        shard: id,
        connections: block.value(Metric::Connections),
        users: block.value(Metric::Users),
        handshakes: block.value(Metric::HandshakesOpen),
        sockets: block.value(Metric::Sockets),
        outbox_bytes: block.value(Metric::OutboxBytes),
        upstream_calls: block.value(Metric::CallsInFlight),
        pushes: block.value(Metric::PushesOpen),
        queues: vec![
            queue("register", Metric::RegisterDepth, Metric::RegisterAge),
            queue("kick", Metric::KickDepth, Metric::KickAge),
            queue("unregister", Metric::UnregisterDepth, Metric::UnregisterAge),
        ],
        lanes: vec![
            lane("replies", lanes.replies, Metric::LaneRepliesFull),
            lane("control", lanes.control, Metric::LaneControlFull),
            lane("push", lanes.push, Metric::LanePushFull),
            lane("hand_over", lanes.hand_over, Metric::LaneHandOverFull),
        ],
        loop_lag_ms: block.value(Metric::LoopLagMs),
        loop_lag_max_ms: block.value(Metric::LoopLagMaxMs),
        turned_ms_ago: if turns { silence } else { 0 },
        stalled,
        pace,
        activity: seen.activity.text().into(),
        connection: seen.connection.map(|conn| conn.to_string().into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{ConnId, SlotId};
    use crate::metrics::Tally;
    use crate::shard::pulse::Activity;

    #[test]
    fn a_stalled_shard_is_shown_with_what_it_does_and_ages_that_go_on() {
        let (block, pulse, mut tally) = (Block::default(), Pulse::default(), Tally::default());
        let lanes = LaneDepths { control: 3, ..LaneDepths::default() };
        assert_eq!(shard(0, Mono(9_000), &block, &pulse, lanes).pace, Pace::Starting);
        tally.set(Metric::RegisterDepth, 5);
        tally.set(Metric::RegisterAge, 200);
        tally.set(Metric::KickAge, 700); // without an entry an age says nothing
        block.publish(&tally);
        pulse.begin(Mono(1_000));
        pulse.turn(Mono(1_000));
        pulse.enter(Activity::Bytes, Some(ConnId(SlotId { index: 3, generation: 4 })));
        let healthy = shard(0, Mono(1_500), &block, &pulse, lanes);
        assert_eq!((healthy.stalled, healthy.queues[0].oldest_ms), (false, 200));
        let stuck = shard(7, Mono(4_000), &block, &pulse, lanes);
        assert_eq!(
            (stuck.shard, stuck.stalled, stuck.turned_ms_ago, stuck.pace),
            (7, true, 3_000, Pace::Working)
        );
        assert_eq!(
            (stuck.queues[0].depth, stuck.queues[0].oldest_ms, stuck.queues[1].oldest_ms),
            (5, 3_200, 0)
        );
        assert_eq!((&*stuck.activity, stuck.connection.as_deref()), ("bytes of a client", Some("3.4")));
        assert_eq!((&*stuck.lanes[1].lane, stuck.lanes[1].depth), ("control", 3));
        pulse.end();
        let gone = shard(0, Mono(9_000), &block, &pulse, lanes);
        assert_eq!((gone.pace, gone.stalled, gone.turned_ms_ago), (Pace::Ended, false, 0));
    }
}
