//! What a run's threads are told, and what they tell. Both travel between processes as lines of JSON.

use serde::{Deserialize, Serialize};

use crate::settings::Settings;
use crate::tally::{Latencies, Second, Tally};

/// One process's part of a run, or one thread's part of that.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Part {
    pub settings: Settings,
    /// Of the whole run.
    pub first_thread: usize,
    pub threads: usize,
    pub first_connection: usize,
    pub connections: usize,
    /// When the run began; seconds are counted from here. `CLOCK_MONOTONIC`, ns.
    pub epoch_ns: u64,
}

impl Part {
    /// Cuts it into so many, as even as can be.
    pub fn split(&self, parts: usize) -> Vec<Self> {
        let share = |n: usize, total: usize| (total * n / parts, total * (n + 1) / parts);
        let part = |n| {
            let (connection, next_connection) = share(n, self.connections);
            let (thread, next_thread) = share(n, self.threads);
            Self {
                first_thread: self.first_thread + thread,
                threads: (next_thread - thread).max(1),
                first_connection: self.first_connection + connection,
                connections: next_connection - connection,
                ..self.clone()
            }
        };
        (0..parts).map(part).collect()
    }

    /// Its part of something that belongs to all connections.
    pub fn share_of(&self, total: f64) -> f64 {
        total * self.connections as f64 / self.settings.connections.max(1) as f64
    }
}

/// To all threads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Order {
    /// The measured time begins then.
    Go { at_ns: u64 },
    /// End; connections are dropped.
    Quit,
}

/// From a thread.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum News {
    /// All its connections are open, or have been given up.
    Connected { open: usize, at_ns: u64, why_not: Option<String> },
    /// A second is over: the `number`th from the epoch. `latency` is of its deliveries, or if there were none, of its
    /// answers.
    Second { number: u64, second: Second, latency: Latencies },
    /// The measured time is over, and what was sent in it has been answered, delivered or given up.
    Done { tally: Box<Tally>, open: usize, last_ns: u64 },
    /// It cannot go on; for the user.
    Failed(String),
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::settings;

    #[test]
    fn parts_are_even_and_leave_nothing_out() {
        let settings = Settings { threads: 2, ..settings(100) };
        let whole = Part {
            settings,
            first_thread: 0,
            threads: 2,
            first_connection: 0,
            connections: 100,
            epoch_ns: 0,
        };
        for count in [1, 2, 3, 7] {
            let parts = whole.split(count);
            let mut next = 0;
            for part in &parts {
                assert_eq!(part.first_connection, next);
                assert!(part.threads >= 1 && (100 / count..=100 / count + 1).contains(&part.connections));
                next += part.connections;
            }
            assert_eq!(next, 100);
            let rates: f64 = parts.iter().map(|part| part.share_of(1000.0)).sum();
            assert!((rates - 1000.0).abs() < 1e-6);
        }
    }
}
