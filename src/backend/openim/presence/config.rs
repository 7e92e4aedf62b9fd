//! The numbers of presence. A test shortens them; production takes [`PresenceConfig::new`].

use super::renewal::RenewalTimes;
use crate::limits;
use crate::wire::compat::Compat;

/// How presence is told and asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PresenceConfig {
    /// Decides between `setUserOnlineStatus` and 3.5's `setUserStatus`.
    pub compat: Compat,
    /// Process id: part of the operation ids (spec 9.1).
    pub pid: u32,
    /// Of the hash that spreads users over lanes, and start of the random numbers of the backoff.
    pub key: [u64; 2],
    /// Which changes webhooks tell.
    pub webhooks: Webhooks,
    /// How records are told.
    pub reports: ReportTimes,
    /// How statuses are asked for and kept.
    pub statuses: StatusTimes,
}

/// Which changes webhooks tell (spec 11.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Webhooks {
    /// None are made.
    Off,
    /// Each change once.
    Changes,
    /// As upstream: "online" again with each renewal (spec trap 31).
    ChangesAndRenewals,
}

/// How records are told to the user service. Milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReportTimes {
    /// Requests in flight at once, 1 to 255; a user always goes through the same lane.
    pub lanes: u8,
    /// Users in one request, at least 1. OpenIM 3.5: 1, whatever stands here.
    pub batch_max: usize,
    /// The longest that a change waits for others.
    pub flush_ms: u64,
    /// A request without an answer has failed then.
    pub deadline_ms: u64,
    /// The first wait after a failure; the half of it is random.
    pub backoff_first_ms: u64,
    /// The longest wait.
    pub backoff_ms: u64,
    /// See [`limits::PRESENCE_SETTLE_MS`].
    pub settle_ms: u64,
    /// See [`limits::PRESENCE_STEADY_MS`].
    pub steady_ms: u64,
    /// See [`limits::PRESENCE_DEPARTED_MAX`].
    pub departed_max: usize,
    /// When users who stay are told again. Not used with OpenIM 3.5, whose hash has no score per user (spec 9.6).
    pub renewal: RenewalTimes,
}

/// How statuses are asked for and kept. Milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StatusTimes {
    /// Users kept, at least 1.
    pub entries_max: u32,
    /// A status is believed so long.
    pub fresh_ms: u64,
    /// A failure is.
    pub failed_ms: u64,
    /// Users in one request, at least 1.
    pub batch_max: usize,
    /// Requests in flight at once.
    pub calls_max: usize,
    /// A request without an answer has failed then.
    pub deadline_ms: u64,
    /// Users in waiting questions. More: refused.
    pub waiting_max: usize,
    /// After a gap in `online_change` a batch of users is asked for so often.
    pub resync_ms: u64,
}

impl PresenceConfig {
    /// The numbers of `limits.rs`.
    pub fn new(compat: Compat, pid: u32, key: [u64; 2]) -> Self {
        let lanes = if compat == Compat::V35 {
            limits::PRESENCE_LEGACY_LANES_MAX
        } else {
            limits::PRESENCE_LANES_MAX
        };
        let reports = ReportTimes {
            lanes,
            batch_max: limits::PRESENCE_BATCH_MAX,
            flush_ms: limits::PRESENCE_FLUSH_MS,
            deadline_ms: limits::PRESENCE_DEADLINE_MS,
            backoff_first_ms: limits::PRESENCE_BACKOFF_FIRST_MS,
            backoff_ms: limits::PRESENCE_BACKOFF_MS,
            settle_ms: limits::PRESENCE_SETTLE_MS,
            steady_ms: limits::PRESENCE_STEADY_MS,
            departed_max: limits::PRESENCE_DEPARTED_MAX,
            renewal: RenewalTimes::after(limits::PRESENCE_RENEW_MS),
        };
        let statuses = StatusTimes {
            entries_max: limits::STATUS_ENTRIES_MAX,
            fresh_ms: limits::STATUS_FRESH_MS,
            failed_ms: limits::STATUS_FAILED_MS,
            batch_max: limits::STATUS_BATCH_MAX,
            calls_max: limits::STATUS_CALLS_MAX,
            deadline_ms: limits::STATUS_DEADLINE_MS,
            waiting_max: limits::STATUS_WAITING_MAX,
            resync_ms: limits::STATUS_RESYNC_MS,
        };
        Self { compat, pid, key, webhooks: Webhooks::Off, reports, statuses }
    }
}
