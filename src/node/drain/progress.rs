//! How far a drain is: what operators read at `/v1/drain`, and what the log says of it now and then.

use serde::{Deserialize, Serialize};

use crate::limits::DRAIN_LOG_MS;
use crate::time::Mono;

/// Evictions per second, and where the number comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::node) struct Rate {
    pub(in crate::node) per_s: u32,
    pub(in crate::node) from: String,
}

/// The answer of `/v1/drain`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrainView {
    /// `serving`; `draining` and then `empty`, by an operator's order; `ending`, after SIGTERM.
    pub state: String,
    /// Clients that are still here, those that are being refused included.
    pub connections: u32,
    /// Sessions that this drain has ended.
    pub evicted: u64,
    /// At most so many are ended per second; 0 while there is a deadline instead, or no drain.
    pub evictions_per_s: u32,
    /// Where that number comes from.
    pub rate_from: String,
    /// Milliseconds since it began.
    pub running_ms: u64,
    /// Milliseconds until the node is empty, at this rate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub left_ms: Option<u64>,
    /// What happens next, in words.
    pub waits_for: String,
}

/// A drain.
#[derive(Debug)]
pub(in crate::node) struct Drain {
    since: Mono,
    evicted_before: u64,
    /// By then all are gone; `None`: an operator's drain.
    pub(in crate::node) deadline: Option<Mono>,
    pub(in crate::node) rate: Rate,
    /// The node has left OpenIM's discovery.
    pub(in crate::node) withdrawn: bool,
    next_line: Mono,
    said_empty: bool,
    /// When the count of evictions grew last.
    moved: (u64, Mono),
}

/// What is counted outside.
#[derive(Clone, Copy, Debug)]
pub(in crate::node) struct Counts {
    pub(in crate::node) connections: u32,
    /// Since the node started.
    pub(in crate::node) evicted: u64,
}

impl Drain {
    /// It begins.
    pub(in crate::node) fn new(now: Mono, counts: Counts, rate: Rate) -> Self {
        Self {
            since: now,
            evicted_before: counts.evicted,
            deadline: None,
            rate,
            withdrawn: false,
            next_line: now.plus_ms(DRAIN_LOG_MS),
            said_empty: false,
            moved: (counts.evicted, now),
        }
    }

    /// For `/v1/drain`.
    pub(in crate::node) fn view(&self, now: Mono, counts: Counts) -> DrainView {
        let left = counts.connections;
        let state = match self.deadline {
            Some(_) => "ending",
            None if left == 0 => "empty",
            None => "draining",
        };
        let paced = self.deadline.is_none();
        let rate_ms = u64::from(left).saturating_mul(1_000).div_ceil(u64::from(self.rate.per_s.max(1)));
        let deadline_ms = self.deadline.map(|deadline| deadline.since_ms(now));
        DrainView {
            state: state.to_owned(),
            connections: left,
            evicted: counts.evicted.saturating_sub(self.evicted_before),
            evictions_per_s: if paced { self.rate.per_s } else { 0 },
            rate_from: if paced { self.rate.from.clone() } else { "the deadline".to_owned() },
            running_ms: now.since_ms(self.since),
            left_ms: Some(deadline_ms.unwrap_or(rate_ms)),
            waits_for: self.waits_for(now, left).to_owned(),
        }
    }

    fn waits_for(&self, now: Mono, left: u32) -> &'static str {
        // A second for the interval of the smallest rate, and what a start takes.
        let stands = now.since_ms(self.moved.1) > 3_000;
        match (self.deadline, left) {
            (Some(_), 0) => "the last words to the services, then the exit",
            (Some(_), _) => "the connections' turns; who is left at the deadline leaves then",
            (None, 0) => "nothing; end the process, or cancel the drain",
            (None, _) if stands => "requests in flight; their connections leave when they are answered",
            (None, _) => "the connections' turns",
        }
    }

    /// Says in the log how far it is, now and then, and once when the node is empty.
    pub(in crate::node) fn report(&mut self, now: Mono, counts: Counts) {
        if counts.evicted != self.moved.0 {
            self.moved = (counts.evicted, now);
        }
        let empty = counts.connections == 0 && self.deadline.is_none();
        if empty {
            if !std::mem::replace(&mut self.said_empty, true) {
                let DrainView { evicted, running_ms, .. } = self.view(now, counts);
                tracing::info!(evicted, running_ms, "empty; waiting for SIGTERM, or to serve again");
            }
            return;
        }
        self.said_empty = false;
        if now >= self.next_line {
            self.next_line = now.plus_ms(DRAIN_LOG_MS);
            let DrainView { state, connections, evicted, evictions_per_s, left_ms, .. } =
                self.view(now, counts);
            tracing::info!(state, connections, evicted, evictions_per_s, left_ms, "drain");
        }
    }
}

impl DrainView {
    /// Of a node that serves.
    pub(in crate::node) fn serving(connections: u32) -> Self {
        Self {
            state: "serving".to_owned(),
            connections,
            evicted: 0,
            evictions_per_s: 0,
            rate_from: String::new(),
            running_ms: 0,
            left_ms: None,
            waits_for: "nothing".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drain_says_what_is_left_and_what_it_waits_for() {
        let rate = Rate { per_s: 50, from: "drain.evict_per_s".into() };
        let counts = |connections, evicted| Counts { connections, evicted };
        let mut drain = Drain::new(Mono(1_000), counts(210, 7), rate);
        let view = drain.view(Mono(3_000), counts(110, 107));
        assert_eq!((view.state.as_str(), view.evicted, view.running_ms), ("draining", 100, 2_000));
        assert_eq!((view.evictions_per_s, view.left_ms), (50, Some(2_200)));
        drain.report(Mono(3_000), counts(110, 107));
        assert_eq!(drain.view(Mono(5_000), counts(110, 107)).waits_for, "the connections' turns");
        let stands = drain.view(Mono(6_001), counts(1, 107));
        assert!(stands.waits_for.starts_with("requests in flight"), "{}", stands.waits_for);
        let empty = drain.view(Mono(6_001), counts(0, 117));
        assert_eq!((empty.state.as_str(), empty.left_ms), ("empty", Some(0)));
        drain.deadline = Some(Mono(9_000));
        let ending = drain.view(Mono(6_000), counts(5, 112));
        assert_eq!(
            (ending.state.as_str(), ending.left_ms, ending.evictions_per_s),
            ("ending", Some(3_000), 0)
        );
    }
}
