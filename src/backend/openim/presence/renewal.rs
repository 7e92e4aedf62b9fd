//! When users who are online are told again, so that the user service does not forget them (spec 9.1, 9.2).
//!
//! No timer per user: a lane keeps its told users in the order in which they were told, so the first is always the
//! next one due. Those who were told together would fall due together: they are taken batch by batch, at a pace at
//! which all of them are through in time, and whoever reaches the latest age does not wait for the pace.

use crate::limits::{PRESENCE_HEAL_MS, PRESENCE_RENEW_LATEST_MS, PRESENCE_RENEW_MS};
use crate::time::Mono;

/// Ages of a user's last record, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RenewalTimes {
    /// From here on he may be told again.
    pub after_ms: u64,
    /// Here he is, whatever the pace. Above `after_ms`.
    pub latest_ms: u64,
    /// All are told again within this time after [`super::Presence::resubscribed`].
    pub heal_ms: u64,
}

impl RenewalTimes {
    /// Told again after so long, and at the latest after half as long again; never more than
    /// `PRESENCE_RENEW_LATEST_MS` less `PRESENCE_RENEW_MS` later, so that the user service does not forget in between.
    pub fn after(after_ms: u64) -> Self {
        let spread_ms = (after_ms / 2).min(PRESENCE_RENEW_LATEST_MS - PRESENCE_RENEW_MS);
        Self { after_ms, latest_ms: after_ms.saturating_add(spread_ms), heal_ms: PRESENCE_HEAL_MS }
    }
}

/// The pace of one lane.
#[derive(Debug)]
pub(super) struct Renewal {
    times: RenewalTimes,
    /// The next batch may be taken from here on.
    next: Mono,
    /// Users told until then are due, whatever their age.
    heal: Option<Mono>,
}

impl Renewal {
    pub(super) fn new(times: RenewalTimes) -> Self {
        Self { times, next: Mono(0), heal: None }
    }

    /// All who were told until now are to be told again.
    pub(super) fn heal(&mut self, now: Mono) {
        self.heal = Some(now);
        self.next = now;
    }

    /// Whether a user who was told then is due.
    pub(super) fn is_due(&self, now: Mono, told: Mono) -> bool {
        now.since_ms(told) >= self.times.after_ms || self.heal.is_some_and(|heal| told <= heal)
    }

    /// Whether a batch may be taken; `oldest` was told longest ago.
    pub(super) fn may_begin(&self, now: Mono, oldest: Mono) -> bool {
        self.is_due(now, oldest) && (now >= self.next || now.since_ms(oldest) >= self.times.latest_ms)
    }

    /// A batch of at most `batch_max` was taken out of so many users; `oldest` of the others was told then.
    pub(super) fn began(&mut self, now: Mono, (users, batch_max): (usize, usize), oldest: Option<Mono>) {
        let window_ms = match self.heal {
            Some(_) => self.times.heal_ms,
            None => self.times.latest_ms.saturating_sub(self.times.after_ms),
        };
        let batches = (users as u64).div_ceil(batch_max.max(1) as u64);
        self.next = now.plus_ms(window_ms / batches.max(1));
        if self.heal.is_some_and(|heal| oldest.is_none_or(|oldest| oldest > heal)) {
            self.heal = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMES: RenewalTimes = RenewalTimes { after_ms: 600, latest_ms: 900, heal_ms: 60 };

    #[test]
    fn the_pace_brings_all_through_between_the_two_ages() {
        let mut renewal = Renewal::new(TIMES);
        assert!(!renewal.may_begin(Mono(599), Mono(0)));
        assert!(renewal.may_begin(Mono(600), Mono(0)));
        // 1 000 users, 100 in a batch: ten batches in 300 ms.
        renewal.began(Mono(600), (1_000, 100), Some(Mono(0)));
        assert!(!renewal.may_begin(Mono(629), Mono(0)) && renewal.may_begin(Mono(630), Mono(0)));
        renewal.began(Mono(890), (100, 100), Some(Mono(0)));
        assert!(!renewal.may_begin(Mono(899), Mono(0)));
        assert!(renewal.may_begin(Mono(900), Mono(0)), "the latest age does not wait for the pace");
    }

    #[test]
    fn healing_makes_all_due_once_at_its_own_pace() {
        let mut renewal = Renewal::new(TIMES);
        renewal.heal(Mono(100));
        assert!(renewal.may_begin(Mono(100), Mono(100)) && !renewal.may_begin(Mono(100), Mono(101)));
        renewal.began(Mono(100), (200, 100), Some(Mono(50)));
        assert!(!renewal.may_begin(Mono(129), Mono(50)) && renewal.may_begin(Mono(130), Mono(50)));
        renewal.began(Mono(130), (200, 100), Some(Mono(101)));
        assert!(!renewal.is_due(Mono(500), Mono(99)), "it is over");
    }

    #[test]
    fn the_latest_age_follows_the_interval_and_stays_below_what_is_forgotten() {
        for (after_ms, latest_ms) in [(10_000, 15_000), (600_000, 900_000), (840_000, 1_140_000)] {
            assert_eq!(RenewalTimes::after(after_ms).latest_ms, latest_ms);
        }
    }
}
