//! How long to wait before the next attempt to connect: doubling, with jitter. Pure.

use crate::limits::CHANNEL_JITTER_PERCENT_MAX;
use crate::random;

/// The pauses of one instance.
#[derive(Debug)]
pub(in crate::rpc) struct Backoff {
    least_ms: u64,
    most_ms: u64,
    /// Of the next pause, before jitter.
    next_ms: u64,
    random: u64,
}

impl Backoff {
    pub(in crate::rpc) fn new(least_ms: u64, most_ms: u64, seed: u64) -> Self {
        let least_ms = least_ms.max(1);
        Self { least_ms, most_ms, next_ms: least_ms, random: seed }
    }

    /// Whether there was no pause since the beginning, or since the last good connection.
    pub(in crate::rpc) fn is_fresh(&self) -> bool {
        self.next_ms == self.least_ms
    }

    /// The next pause: at least 1 ms, at most `most_ms` and its jitter.
    pub(in crate::rpc) fn pause_ms(&mut self) -> u64 {
        let pause_ms = self.next_ms.min(self.most_ms);
        self.next_ms = pause_ms.saturating_mul(2);
        let spread_ms = pause_ms.saturating_mul(CHANNEL_JITTER_PERCENT_MAX) / 100;
        let jitter_ms = random::draw(&mut self.random) % (2 * spread_ms + 1);
        (pause_ms - spread_ms + jitter_ms).max(1)
    }

    /// A connection was good: begin anew.
    pub(in crate::rpc) fn reset(&mut self) {
        self.next_ms = self.least_ms;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_most_with_a_fifth_of_jitter_and_begin_anew() {
        let mut backoff = Backoff::new(100, 1_000, 7);
        assert!(backoff.is_fresh());
        for base in [100, 200, 400, 800, 1_000, 1_000] {
            let pause = backoff.pause_ms();
            assert!((base - base / 5..=base + base / 5).contains(&pause), "{base}: {pause}");
        }
        assert!(!backoff.is_fresh());
        backoff.reset();
        assert!(backoff.is_fresh());
        assert!((80..=120).contains(&backoff.pause_ms()));
        assert!(Backoff::new(0, 0, 1).pause_ms() > 0, "never a busy loop");
    }

    #[test]
    fn one_seed_gives_the_same_pauses_and_seeds_differ() {
        let pauses = |seed| {
            let mut backoff = Backoff::new(1_000, 1_000_000, seed);
            [(); 8].map(|()| backoff.pause_ms())
        };
        assert_eq!(pauses(3), pauses(3));
        assert_ne!(pauses(3), pauses(4));
    }
}
