//! The watcher of the shards' heartbeats, on the main thread.
//!
//! Not here: the heartbeat (`pulse.rs`), the backtrace (`stall_trace.rs`), the clock (the caller passes `now`). What
//! always holds: [`Watcher::check`] only looks and decides, [`Watcher::act`] only carries out; a stall is reported
//! once, its end once, an abort is asked for once.
//!
//! What is a stall: the stamp of a thread in its loop is older than `STALL_SUSPECT_MS`, whether it was turning or
//! parked. Parked is no excuse: each wait ends within `REST_MS`, and while the loop waits a task of a
//! connection on the same thread may be the one that does not come back. A watcher that was itself held up (a process
//! that was stopped, a machine that slept) knows nothing about others: it starts to count again.
//!
//! Call [`Watcher::round`] when [`Watcher::next_check`] says so, or earlier.

use std::fmt;
use std::sync::Arc;

use super::mailbox::{LaneDepths, ShardAddress};
use super::pulse::{Glimpse, Phase, Pulse};
use super::stall_trace;
use crate::ids::ShardId;
use crate::limits;
use crate::metrics::{Block, Metric, Stalled};
use crate::time::Mono;

/// One shard as the watcher sees it.
#[derive(Debug)]
pub struct Watched {
    /// Its name.
    pub shard: ShardId,
    /// Its heartbeat.
    pub pulse: Arc<Pulse>,
    /// Its published counts: read for the queues, written for [`Metric::Stalled`].
    pub block: Arc<Block>,
    /// Its mailbox, for the depths of its lanes.
    pub address: ShardAddress,
}

/// What the node does about a stall. Implemented by main.
pub trait StallResponse {
    /// Take the shard's listener out of the accept group (`shutdown(2)` on a duplicate of it), so that the kernel
    /// gives new connections to the other shards.
    fn leave_accept_group(&mut self, shard: ShardId);

    /// The shard turns again: give it a new listener (a listener that was shut down cannot be revived). Not when the
    /// node drains: a shard that ended after a stall is told like this too.
    fn rejoin_accept_group(&mut self, shard: ShardId);

    /// End the process for the supervisor to restart: flush the log within a bounded time, then
    /// `std::process::abort()`.
    fn abort(&mut self, shard: ShardId);
}

/// What a check found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// A shard stopped turning.
    Stalled(StallReport),
    /// A shard that was reported turns again.
    Recovered {
        /// Which.
        shard: ShardId,
        /// Since its last turn before the stall, in milliseconds.
        stalled_ms: u64,
    },
    /// A shard is stalled for longer than `stall.abort_ms`.
    Abort {
        /// Which.
        shard: ShardId,
        /// Since its last turn, in milliseconds.
        stalled_ms: u64,
    },
}

/// What a stalled shard was doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StallReport {
    /// Which.
    pub shard: ShardId,
    /// Since its last turn, in milliseconds. Mail in a lane waits for as long at most.
    pub stalled_ms: u64,
    /// Its last input.
    pub glimpse: Glimpse,
    /// Mail waiting now.
    pub lanes: LaneDepths,
    /// Name, entries and age of the oldest one in milliseconds, as the shard last published them.
    pub queues: [(&'static str, u64, u64); 3],
}

impl fmt::Display for StallReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { shard, stalled_ms, glimpse, lanes, queues } = self;
        write!(f, "shard {} has not turned for {stalled_ms} ms (turn {}, ", shard.0, glimpse.turns)?;
        write!(f, "kernel thread {}): last input: {}", glimpse.thread, glimpse.activity.text())?;
        if let Some(connection) = glimpse.connection {
            write!(f, " of connection {connection}")?;
        }
        if glimpse.phase == Phase::Parked {
            write!(f, ", its loop waits for events")?;
        }
        let LaneDepths { replies, control, push, hand_over } = lanes;
        write!(
            f,
            "; lanes: replies {replies}, control {control}, push {push}, hand-over {hand_over}; queues:"
        )?;
        for (name, depth, age_ms) in queues {
            write!(f, " {name} {depth} (oldest {} ms)", if *depth > 0 { age_ms + stalled_ms } else { 0 })?;
        }
        Ok(())
    }
}

/// How far the watcher is with a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    Turning,
    /// Reported; the last turn was then.
    Reported(Mono),
    /// Abort was asked for.
    Condemned(Mono),
}

/// Looks at all heartbeats.
#[derive(Debug)]
pub struct Watcher {
    watched: Vec<(Watched, Standing)>,
    abort_ms: u64,
    /// When the last check wanted the next one.
    next: Option<Mono>,
    /// Stamps count as at least this fresh: the end of the watcher's own last absence.
    back_since: Mono,
}

impl Watcher {
    /// Watches `shards`; asks for an abort after `abort_ms` (`stall.abort_ms`).
    pub fn new(shards: Vec<Watched>, abort_ms: u64) -> Self {
        let watched = shards.into_iter().map(|shard| (shard, Standing::Turning)).collect();
        Self { watched, abort_ms, next: None, back_since: Mono(0) }
    }

    /// Checks and acts.
    pub fn round(&mut self, now: Mono, response: &mut impl StallResponse) {
        for finding in self.check(now) {
            self.act(&finding, response);
        }
    }

    /// Whether no shard was stalled at the last check.
    pub fn all_turn(&self) -> bool {
        self.watched.iter().all(|(_, standing)| *standing == Standing::Turning)
    }

    /// Asks for an abort after another time from now on.
    pub fn set_abort_ms(&mut self, abort_ms: u64) {
        self.abort_ms = abort_ms;
    }

    /// What is new since the last check. Changes nothing but the watcher's own notes.
    pub fn check(&mut self, now: Mono) -> Vec<Finding> {
        // Held up for half of what it waits for, the watcher cannot tell a stalled shard from a stopped process.
        if self.next.is_some_and(|next| now.since_ms(next) > limits::STALL_SUSPECT_MS / 2) {
            self.back_since = now;
        }
        let (abort_ms, back_since) = (self.abort_ms, self.back_since);
        let mut findings = Vec::new();
        for (shard, standing) in &mut self.watched {
            let glimpse = shard.pulse.glimpse();
            let alive = matches!(glimpse.phase, Phase::Turning | Phase::Parked);
            let stalled_ms = now.since_ms(glimpse.stamp);
            let overdue = alive && now.since_ms(glimpse.stamp.max(back_since)) > limits::STALL_SUSPECT_MS;
            match *standing {
                Standing::Turning if overdue => {
                    *standing = Standing::Reported(glimpse.stamp);
                    findings.push(Finding::Stalled(report(shard, glimpse, stalled_ms)));
                }
                // A stalled shard counts as turning again when it has turned, and not when the watcher was away.
                Standing::Reported(last) | Standing::Condemned(last) if !alive || glimpse.stamp > last => {
                    *standing = Standing::Turning;
                    let stalled_ms = glimpse.stamp.since_ms(last);
                    findings.push(Finding::Recovered { shard: shard.shard, stalled_ms });
                }
                Standing::Reported(last) if overdue && stalled_ms > abort_ms => {
                    *standing = Standing::Condemned(last);
                    findings.push(Finding::Abort { shard: shard.shard, stalled_ms });
                }
                _ => {}
            }
        }
        self.next = Some(self.next_check(now));
        findings
    }

    /// When to look again: while a shard is stalled soon, else when the one that turned first may become overdue.
    pub fn next_check(&self, now: Mono) -> Mono {
        if !self.all_turn() {
            return now.plus_ms(limits::STALL_WATCH_MS);
        }
        let glimpses = self.watched.iter().map(|(shard, _)| shard.pulse.glimpse());
        let alive = glimpses.filter(|seen| matches!(seen.phase, Phase::Turning | Phase::Parked));
        let oldest = alive.map(|seen| seen.stamp.max(self.back_since)).min().unwrap_or(now);
        oldest.plus_ms(limits::STALL_SUSPECT_MS + 1).max(now.plus_ms(1))
    }

    /// Says and does what a finding calls for: first the metric and the listener, then the slow part, the backtrace.
    pub fn act(&self, finding: &Finding, response: &mut impl StallResponse) {
        match finding {
            Finding::Stalled(report) => {
                self.show(report.shard, Stalled::Yes);
                response.leave_accept_group(report.shard);
                tracing::error!("{report}; its listener leaves the accept group");
                match stall_trace::trace(report.glimpse.thread) {
                    Ok(lines) => tracing::error!("shard {} is in:{lines}", report.shard.0),
                    Err(why) => tracing::error!("shard {}: no backtrace: {why}", report.shard.0),
                }
            }
            Finding::Recovered { shard, stalled_ms } => {
                self.show(*shard, Stalled::No);
                tracing::warn!("shard {} turns again after {stalled_ms} ms", shard.0);
                response.rejoin_accept_group(*shard);
            }
            Finding::Abort { shard, stalled_ms } => {
                tracing::error!("shard {} has not turned for {stalled_ms} ms: aborting", shard.0);
                response.abort(*shard);
            }
        }
    }

    fn show(&self, shard: ShardId, stalled: Stalled) {
        for (watched, _) in self.watched.iter().filter(|(watched, _)| watched.shard == shard) {
            watched.block.set_stalled(stalled);
        }
    }
}

fn report(watched: &Watched, glimpse: Glimpse, stalled_ms: u64) -> StallReport {
    let queue = |name, depth, age| (name, watched.block.value(depth), watched.block.value(age));
    StallReport {
        shard: watched.shard,
        stalled_ms,
        glimpse,
        lanes: watched.address.depths(),
        queues: [
            queue("register", Metric::RegisterDepth, Metric::RegisterAge),
            queue("unregister", Metric::UnregisterDepth, Metric::UnregisterAge),
            queue("kick", Metric::KickDepth, Metric::KickAge),
        ],
    }
}

#[cfg(test)]
#[path = "stall_tests.rs"]
mod tests;
