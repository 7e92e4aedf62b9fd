//! What systemd is told (`Type=notify`, sd_notify(3)): ready, reloading, stopping, and that all shards turn.
//!
//! The watchdog is fed by the watcher of the heartbeats and only while every shard turns, so that systemd sees a shard
//! that is stuck and not only a process that is gone. Without `NOTIFY_SOCKET` nothing is sent. A message that cannot be
//! sent is a warning, once: the gateway serves its clients all the same.

use std::time::Duration;

use sd_notify::NotifyState;

use crate::time::Mono;

/// systemd, or whoever else speaks its protocol, if there is one.
#[derive(Debug)]
pub(super) struct Supervisor {
    /// Half of `WatchdogSec=`, as sd_watchdog_enabled(3) advises. `None`: no watchdog.
    interval_ms: Option<u64>,
    /// When the watchdog was fed last.
    fed: Option<Mono>,
    /// A message was lost and that was said.
    complained: bool,
}

impl Supervisor {
    /// Reads in the environment what it asks for.
    pub(super) fn from_env() -> Self {
        Self::new(sd_notify::watchdog_enabled())
    }

    fn new(watchdog: Option<Duration>) -> Self {
        let half_ms = |within: Duration| u64::try_from(within.as_millis() / 2).unwrap_or(u64::MAX);
        Self { interval_ms: watchdog.map(half_ms), fed: None, complained: false }
    }

    /// Clients are served.
    pub(super) fn ready(&mut self, status: &str) {
        self.tell(&[NotifyState::Ready, NotifyState::Status(status)]);
    }

    /// The configuration is read again; [`Supervisor::ready`] follows.
    pub(super) fn reloading(&mut self) {
        // systemd asks for both in one message: which reload this is the start of.
        match NotifyState::monotonic_usec_now() {
            Ok(now) => self.tell(&[NotifyState::Reloading, now]),
            Err(error) => tracing::warn!(%error, "systemd is not told of the reload"),
        }
    }

    /// A drain has begun.
    pub(super) fn stopping(&mut self) {
        self.tell(&[NotifyState::Stopping, NotifyState::Status("draining")]);
    }

    /// All shards turn at `now`; feeds the watchdog when it is time.
    pub(super) fn all_turn(&mut self, now: Mono) {
        if self.is_due(now) {
            self.fed = Some(now);
            self.tell(&[NotifyState::Watchdog]);
        }
    }

    /// When the watchdog is to be fed next; the end of time without one.
    pub(super) fn next_feed(&self, now: Mono) -> Mono {
        let next = |interval_ms| self.fed.map_or(now, |fed| fed.plus_ms(interval_ms));
        self.interval_ms.map_or(Mono(u64::MAX), next)
    }

    fn is_due(&self, now: Mono) -> bool {
        let due = |interval_ms| self.fed.is_none_or(|fed| now.since_ms(fed) >= interval_ms);
        self.interval_ms.is_some_and(due)
    }

    fn tell(&mut self, state: &[NotifyState<'_>]) {
        if let Err(error) = sd_notify::notify(state)
            && !std::mem::replace(&mut self.complained, true)
        {
            tracing::warn!(%error, "systemd could not be told (NOTIFY_SOCKET)");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_watchdog_is_fed_twice_in_its_time_and_not_without_one() {
        let mut supervisor = Supervisor::new(Some(Duration::from_secs(10)));
        for (now, due) in [(1_000, true), (5_999, false), (6_000, true), (6_100, false), (60_000, true)] {
            assert_eq!(supervisor.is_due(Mono(now)), due, "{now}");
            supervisor.all_turn(Mono(now));
            assert_eq!(supervisor.next_feed(Mono(now)) == Mono(now + 5_000), due, "{now}");
        }
        assert_eq!(Supervisor::new(None).next_feed(Mono(1_000)), Mono(u64::MAX));
        assert!(!Supervisor::new(None).is_due(Mono(1_000)));
    }
}
