//! The one clock: CLOCK_MONOTONIC, which all processes of a machine share, so that a time written into a message by
//! one process can be subtracted by another.

use rustix::time::{ClockId, clock_gettime};

/// Nanoseconds since boot.
pub fn now_ns() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    u64::try_from(time.tv_sec).unwrap_or_default() * 1_000_000_000
        + u64::try_from(time.tv_nsec).unwrap_or_default()
}

/// Seconds between two of them.
pub fn seconds(from_ns: u64, to_ns: u64) -> f64 {
    to_ns.saturating_sub(from_ns) as f64 / 1e9
}
