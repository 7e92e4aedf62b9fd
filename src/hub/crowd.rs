//! Crowds at the door: a storm of logins is spread over time (clients reconnect without jitter, and each 101 is
//! followed by a full sync), and a user who has all the connections that one may have gets no more.
//!
//! A leaky bucket measures the rate of logins. While it stays below the threshold nobody waits. Above, a login whose
//! token is good waits a random time before it enters the register queue: at most as long as the excess takes at the
//! threshold's rate, never beyond the configured bound, and never so long that it would miss its deadline.
//!
//! What always holds: the random numbers come from a generator in this state, so a replay and a hub that was read back
//! wait the same times. Whoever waits is in no queue and is refused, lost and drained like any other login.

use serde::{Deserialize, Serialize};

use super::login::NewLogin;
use super::login_policy::{self, Existing};
use super::upstream::LoginPlace;
use super::{Hub, Kind};
use crate::ids::ConnId;
use crate::limits;
use crate::metrics::Metric;
use crate::random;
use crate::session::{Credentials, Phase, Session, Tick};
use crate::time::{Mono, Now};

/// What spreading is told at start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpreadPlan {
    /// Logins per second, and at once after a quiet second, that nobody waits for. At least 1.
    pub above_per_second: u32,
    /// The longest delay; 0: none.
    pub ms_max: u64,
    /// Start of the random numbers. It is part of recordings, so it must tell nothing about other keys.
    pub seed: u64,
}

/// See the module's documentation.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Spread {
    plan: SpreadPlan,
    /// Content of the bucket at `at`, in thousandths of a login.
    level: u64,
    at: Mono,
    random: u64,
}

impl Spread {
    pub(super) fn new(plan: SpreadPlan) -> Self {
        Self { plan, level: 0, at: Mono(0), random: plan.seed }
    }

    /// Goes by another plan; what the bucket holds and the random numbers stay.
    pub(super) fn adopt(&mut self, plan: SpreadPlan) {
        self.plan = plan;
    }

    /// Counts a login; gives the milliseconds that it waits.
    pub(super) fn delay_ms(&mut self, now: Mono) -> u64 {
        if self.plan.ms_max == 0 {
            return 0;
        }
        // So many thousandths leak in a millisecond, and so many logins are free at once.
        let rate = u64::from(self.plan.above_per_second.max(1));
        let leaked = now.since_ms(self.at).saturating_mul(rate);
        // The cap: a storm that is over must not delay those who come after it.
        let cap = rate.saturating_mul(self.plan.ms_max.saturating_add(1_000));
        self.level = self.level.saturating_sub(leaked).saturating_add(1_000).min(cap);
        self.at = self.at.max(now);
        let window = (self.level.saturating_sub(rate * 1_000) / rate).min(self.plan.ms_max);
        if window == 0 { 0 } else { 1 + random::draw(&mut self.random) % window }
    }
}

impl Hub {
    /// Lets a login whose token is good go on to the register queue: at once, or in a storm after a random time.
    pub(super) fn let_register(&mut self, now: Now, conn: ConnId) {
        let (tick, delay_ms) = (Tick::of(now.mono), self.spread.delay_ms(now.mono));
        let Some(session) = self.registry.session_mut(conn) else {
            return;
        };
        let latest = session.heard.after_ms(limits::LOGIN_DEADLINE_MS - limits::SPREAD_MARGIN_MS);
        let until = tick.after_ms(delay_ms).min(latest);
        if until <= tick {
            return self.queue_register(now, conn);
        }
        session.phase = Phase::Spread;
        session.deadline = until;
        self.tally.count(Metric::LoginsDelayed);
        self.rearm(conn);
    }

    /// Puts a login whose token is good in the register queue, with the deadline that it had from the start.
    pub(super) fn queue_register(&mut self, now: Now, conn: ConnId) {
        let Some(session) = self.registry.session_mut(conn) else {
            return;
        };
        session.phase = Phase::Registering;
        session.deadline = session.heard.after_ms(limits::LOGIN_DEADLINE_MS);
        self.queues.push(&mut self.registry.sessions, Kind::Register, conn, Tick::of(now.mono));
    }

    /// Whether the user of a login in the register queue has as many connections as one may have, not counting those
    /// that it ends.
    pub(super) fn user_is_full(&self, conn: ConnId) -> bool {
        let max = self.config.user_connections_max as usize;
        let Some(session) = self.registry.session(conn).filter(|s| s.phase == Phase::Registering) else {
            return false;
        };
        let Credentials::Login(login) = &session.credentials else {
            return false;
        };
        if self.registry.connections(&login.user).take(max).count() < max {
            return false;
        }
        let (user, token, place) = (&*login.user, &*login.token, LoginPlace::Here);
        let new = NewLogin { user, platform: session.platform, token, place };
        let existing =
            |s: &Session| Existing { platform: s.platform, spared: self.spares(&s.token(user), &new) };
        let there: Vec<Existing> = self.registry.connections(user).map(|(_, s)| existing(s)).collect();
        let verdict = login_policy::decide(self.config.login_policy, session.platform, &there);
        there.len() - verdict.kicked.len() >= max
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spread(above_per_second: u32, ms_max: u64) -> Spread {
        Spread::new(SpreadPlan { above_per_second, ms_max, seed: 7 })
    }

    #[test]
    fn normal_rates_see_no_delay() {
        let mut spread = spread(100, 2_000);
        // A quiet second's worth at once, then the threshold's rate for a minute.
        assert!((0..100).all(|_| spread.delay_ms(Mono(5_000)) == 0));
        assert!((1..6_000).all(|n| spread.delay_ms(Mono(5_000 + 10 * n)) == 0));
    }

    #[test]
    fn a_storm_is_spread_over_the_time_its_excess_takes_and_never_beyond_the_bound() {
        let mut spread = spread(100, 2_000);
        let delays: Vec<u64> = (0..1_000).map(|_| spread.delay_ms(Mono(5_000))).collect();
        assert!(delays[..100].iter().all(|ms| *ms == 0));
        assert!(delays[100..150].iter().all(|ms| *ms <= 500), "50 too many: half a second");
        assert!(delays.iter().all(|ms| *ms <= 2_000));
        // Each quarter of the bound gets its share of the 700 that came when the bucket was full.
        for quarter in 0..4_u64 {
            let range = quarter * 500 + 1..=(quarter + 1) * 500;
            let share = delays[300..].iter().filter(|ms| range.contains(ms)).count();
            assert!((120..=230).contains(&share), "{quarter}: {share} of 700");
        }
        // The storm is over: three seconds later nobody waits.
        assert_eq!(spread.delay_ms(Mono(8_100)), 0);
    }

    #[test]
    fn it_can_be_turned_off_and_survives_clocks_at_their_ends() {
        let mut off = spread(1, 0);
        assert!((0..1_000).all(|_| off.delay_ms(Mono(1)) == 0));
        let mut odd = spread(u32::MAX, u64::MAX);
        for now in [u64::MAX, 0, 1, u64::MAX] {
            odd.delay_ms(Mono(now));
        }
    }

    #[test]
    fn the_same_state_draws_the_same_delays() {
        let mut first = spread(1, 1_000);
        assert!((0..50).any(|_| first.delay_ms(Mono(1)) > 0));
        let written = serde_json::to_string(&first).unwrap();
        let mut second: Spread = serde_json::from_str(&written).unwrap();
        assert!((0..50).all(|_| first.delay_ms(Mono(2)) == second.delay_ms(Mono(2))));
    }
}
