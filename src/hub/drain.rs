//! How a shard empties itself: by a deadline (the node ends), or at a pace (an operator's order, which may be taken
//! back). Logins are refused meanwhile with a 503 that clients retry.
//!
//! What always holds for a pace: all shards of the node together evict at most as many as allowed in any second,
//! wherever it starts and however late ticks are; what a late tick missed is not caught up on. A request in flight is
//! answered before its session goes.

use serde::{Deserialize, Serialize};

use super::Hub;
use crate::ids::ConnId;
use crate::limits;
use crate::metrics::Metric;
use crate::session::disconnect::Disconnect;
use crate::session::{Phase, Session};
use crate::time::{Mono, Now};

/// When one shard may evict a session: at `first_us`, and then every so many microseconds. The shards of a node have
/// the same interval and take turns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pace {
    /// Counted from `start`.
    first_us: u64,
    every_us: u64,
    start: Mono,
}

impl Pace {
    /// The part of shard `n` of so many, which from `start` on evict at most `per_s` (at least 1) sessions together in
    /// any second.
    pub fn share(start: Mono, per_s: u32, (n, shards): (u16, u16)) -> Self {
        // What is due leaves in the next tick: a second sees what was due in a second and a tick.
        let second_us = (1_000 + limits::TICK_MS) * 1_000;
        let apart_us = second_us.div_ceil(u64::from(per_s.max(1)));
        Self { first_us: u64::from(n) * apart_us, every_us: u64::from(shards.max(1)) * apart_us, start }
    }

    /// Evictions due after `from`, up to `to`.
    fn due(self, from: Mono, to: Mono) -> u64 {
        let until = |at: Mono| {
            let us = at.since_ms(self.start).saturating_mul(1_000);
            let begun = at >= self.start && us >= self.first_us;
            if begun { (us - self.first_us) / self.every_us + 1 } else { 0 }
        };
        until(to).saturating_sub(until(from))
    }
}

/// How the sessions leave.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Leaving {
    /// All by then.
    By(Mono),
    /// Whenever it is one's turn.
    At(Walk),
}

/// A walk through the table of sessions, again and again, in steps that are far from each other: those who came
/// together, and now would all dial again together, sit side by side there. It needs no list of whom it has seen.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Walk {
    pace: Pace,
    /// When it was looked at last.
    seen: Mono,
    position: u32,
    /// Positions looked at since the last eviction.
    barren: u32,
    /// Since then all that is left has requests in flight.
    busy_since: Option<Mono>,
}

impl Leaving {
    pub(super) fn at(now: Mono, pace: Pace) -> Self {
        Self::At(Walk { pace, seen: now, position: 0, barren: 0, busy_since: None })
    }
}

impl Walk {
    /// The next position of so many.
    fn step(&mut self, positions: u32) -> u32 {
        let stride = stride(positions);
        let next = (u64::from(self.position) + u64::from(stride)) % u64::from(positions.max(1));
        self.position = u32::try_from(next).unwrap_or_default(); // below a u32
        self.position
    }
}

/// About 0.618 of `positions`, without a common divisor: such steps meet every position before one comes again, and
/// each falls into the widest gap that the ones before have left.
fn stride(positions: u32) -> u32 {
    let golden = u64::from(positions) * 618 / 1_000;
    let mut stride = u32::try_from(golden).unwrap_or(1).max(1);
    while gcd(stride, positions) != 1 {
        stride += 1; // 1 more than `positions` has none, so this ends
    }
    stride
}

fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}

impl Hub {
    pub(super) fn begin_drain(&mut self, now: Now, leaving: Leaving) {
        self.drain = Some(leaving);
        self.give_up_held();
        let logging_in: Vec<ConnId> = self.select(|s| s.phase < Phase::Open);
        for conn in logging_in {
            self.tally.count(Metric::HandshakeBusy);
            self.refuse_busy(now, conn, Disconnect::Drain);
        }
        self.drain_step(now);
    }

    /// Whether somebody is to leave, by and by.
    pub(super) fn empties(&self) -> bool {
        match self.drain {
            None => false,
            Some(Leaving::By(_)) => true,
            Some(Leaving::At(_)) => self.registry.sessions.len() > 0,
        }
    }

    /// Evicts those whose turn it is by now.
    pub(super) fn drain_step(&mut self, now: Now) {
        match self.drain.take() {
            None => {}
            Some(Leaving::By(deadline)) => {
                self.evict_by(now, deadline);
                self.drain = Some(Leaving::By(deadline));
            }
            Some(Leaving::At(mut walk)) => {
                self.evict_at(now, &mut walk);
                self.drain = Some(Leaving::At(walk));
            }
        }
    }

    /// This tick's share: remaining sessions over remaining ticks. A session with requests in flight is marked and
    /// leaves with its last reply; at the deadline (less the time to flush) everybody leaves.
    fn evict_by(&mut self, now: Now, deadline: Mono) {
        let left_ms = deadline.since_ms(now.mono).saturating_sub(limits::FLUSH_DEADLINE_MS);
        let open = self.select(may_leave);
        let ticks = usize::try_from(left_ms / limits::TICK_MS).unwrap_or(usize::MAX);
        let share = if ticks == 0 { open.len() } else { open.len().div_ceil(ticks) };
        let mut evicted = 0;
        for conn in open {
            if evicted >= share {
                break;
            }
            let Some(session) = self.registry.session_mut(conn) else {
                continue;
            };
            if ticks > 0 && session.requests.is_some() {
                session.draining = true;
                continue;
            }
            evicted += 1;
            self.send_away(now, conn);
        }
    }

    /// As many as were due since the last look, but not more than one tick's. A session with requests in flight is
    /// passed by, and met again in the next round.
    fn evict_at(&mut self, now: Now, walk: &mut Walk) {
        let tick_ago = Mono(now.mono.0.saturating_sub(limits::TICK_MS));
        let due = walk.pace.due(walk.seen.max(tick_ago), now.mono);
        walk.seen = now.mono;
        let positions = self.registry.sessions.positions();
        let mut looks = positions.min(limits::DRAIN_LOOKS_MAX);
        let mut evicted = 0;
        while evicted < due && looks > 0 {
            looks -= 1;
            let position = walk.step(positions);
            walk.barren = walk.barren.saturating_add(1);
            let sessions = &self.registry.sessions;
            let Some(session) = sessions.at(position).filter(|session| may_leave(session)) else {
                continue;
            };
            let patient =
                walk.busy_since.is_none_or(|since| now.mono.since_ms(since) < limits::DRAIN_BUSY_MS);
            if session.requests.is_some() && patient {
                continue;
            }
            if session.requests.is_none() {
                walk.busy_since = None;
            }
            evicted += 1;
            walk.barren = 0;
            if let Some(id) = sessions.id_at(position) {
                self.send_away(now, ConnId(id));
            }
        }
        if walk.barren >= positions {
            walk.busy_since.get_or_insert(now.mono);
        }
    }

    /// Ends a session because the node empties itself.
    pub(super) fn send_away(&mut self, now: Now, conn: ConnId) {
        self.tally.count(Metric::DrainEvicted);
        self.end(now, conn, Disconnect::Drain);
    }

    fn select(&self, wanted: impl Fn(&Session) -> bool) -> Vec<ConnId> {
        self.registry.sessions.iter().filter(|(_, s)| wanted(s)).map(|(id, _)| ConnId(id)).collect()
    }
}

/// Whoever waits in the kick queue is on his way out already, with a kick frame.
fn may_leave(session: &Session) -> bool {
    session.phase == Phase::Open && session.is_registered()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shards_of_a_node_keep_to_its_rate_in_every_second_however_late_their_ticks_are() {
        for (per_s, shards) in [(1, 1), (1, 4), (7, 3), (50, 4), (500, 2), (20_000, 8)] {
            let start = Mono(10_000);
            let mut evicted = vec![0_u64; 12_000]; // by millisecond
            let mut random = 0x2545_f491_4f6c_dd1d_u64;
            for n in 0..shards {
                let pace = Pace::share(start, per_s, (n, shards));
                let (mut seen, mut now) = (Mono(9_000), Mono(9_000 + u64::from(n) * 13));
                while now.0 < 20_900 {
                    let tick_ago = Mono(now.0 - limits::TICK_MS);
                    evicted[usize::try_from(now.0 - 9_000).unwrap()] += pace.due(seen.max(tick_ago), now);
                    seen = now;
                    random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    let late = [0, 3, 40, 0, 700][usize::try_from(random >> 61).unwrap() % 5];
                    now = now.plus_ms(limits::TICK_MS + late);
                }
            }
            let mut second: u64 = evicted[..1_000].iter().sum();
            assert_eq!(second, 0, "before the start");
            for end in 1_000..evicted.len() {
                second = second + evicted[end] - evicted[end - 1_000];
                assert!(second <= u64::from(per_s), "{second} of {per_s} on {shards} shards until {end}");
            }
        }
    }

    #[test]
    fn with_ticks_in_time_the_rate_is_reached_but_for_a_tenth() {
        for (per_s, shards) in [(10_u32, 1_u16), (100, 4), (5_000, 3)] {
            let due: u64 = (0..shards)
                .map(|n| {
                    let pace = Pace::share(Mono(0), per_s, (n, shards));
                    (1..=100).map(|tick| pace.due(Mono((tick - 1) * 100), Mono(tick * 100))).sum::<u64>()
                })
                .sum();
            let (least, most) = (u64::from(per_s) * 10 * 10 / 11 - 1, u64::from(per_s) * 10);
            assert!((least..=most).contains(&due), "{due} of {most} on {shards} shards");
        }
    }

    #[test]
    fn a_walk_meets_everybody_once_a_round_and_neighbours_far_apart() {
        for positions in [256, 512, 768, 3_584, 65_536] {
            let mut walk = Walk {
                pace: Pace::share(Mono(0), 1, (0, 1)),
                seen: Mono(0),
                position: 0,
                barren: 0,
                busy_since: None,
            };
            let met: Vec<u32> = (0..positions).map(|_| walk.step(positions)).collect();
            let distinct: std::collections::BTreeSet<u32> = met.iter().copied().collect();
            assert_eq!(distinct.len(), met.len(), "{positions}");
            assert!(met.windows(2).all(|pair| pair[0].abs_diff(pair[1]) > positions / 4), "{positions}");
        }
        assert_eq!([0, 1, 2].map(|positions| gcd(stride(positions), positions)), [1, 1, 1]);
    }
}
