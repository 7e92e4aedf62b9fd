//! How long to wait before the next attempt: doubling up to a limit, the half of it drawn by lot, so that the nodes of
//! a cluster do not come back to a restarted server in step.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use crate::limits::{CONTROL_BACKOFF_LONGEST_MS, CONTROL_BACKOFF_MS, CONTROL_STEADY_MS};

/// The attempts of one task.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    /// Failures in a row.
    failures: u32,
    /// Keys drawn from the system: nobody needs to be kept from guessing, but no two nodes may agree.
    lot: RandomState,
}

impl Backoff {
    /// A connection that lived so long has failed: the wait until the next.
    pub(super) fn next(&mut self, lived: Duration) -> Duration {
        if lived >= Duration::from_millis(CONTROL_STEADY_MS) {
            self.failures = 0;
        }
        let doubled = CONTROL_BACKOFF_MS.saturating_mul(1 << self.failures.min(16));
        let whole = doubled.min(CONTROL_BACKOFF_LONGEST_MS);
        self.failures = self.failures.saturating_add(1);
        let drawn = self.lot.hash_one(self.failures) % (whole / 2 + 1);
        Duration::from_millis(whole - whole / 2 + drawn)
    }

    /// Whether the last failure was the first of a row: worth a line in the log.
    pub(super) fn is_first(&self) -> bool {
        self.failures <= 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_limit_and_keep_half() {
        let mut backoff = Backoff::default();
        let mut whole = CONTROL_BACKOFF_MS;
        for n in 0..40 {
            let wait = u64::try_from(backoff.next(Duration::ZERO).as_millis()).unwrap();
            assert!((whole / 2..=whole).contains(&wait), "wait {n}: {wait} of {whole}");
            assert_eq!(backoff.is_first(), n == 0);
            whole = (whole * 2).min(CONTROL_BACKOFF_LONGEST_MS);
        }
    }

    #[test]
    fn a_steady_connection_begins_the_waits_anew() {
        let mut backoff = Backoff::default();
        for _ in 0..10 {
            backoff.next(Duration::from_millis(CONTROL_STEADY_MS - 1));
        }
        assert!(backoff.next(Duration::ZERO) >= Duration::from_millis(CONTROL_BACKOFF_LONGEST_MS / 2));
        let wait = backoff.next(Duration::from_millis(CONTROL_STEADY_MS));
        assert!(wait <= Duration::from_millis(CONTROL_BACKOFF_MS), "{wait:?}");
        assert!(backoff.is_first());
    }

    #[test]
    fn two_tasks_do_not_wait_in_step() {
        let (mut one, mut other) = (Backoff::default(), Backoff::default());
        let differ = (0..40).any(|_| one.next(Duration::ZERO) != other.next(Duration::ZERO));
        assert!(differ);
    }
}
