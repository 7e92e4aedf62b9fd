//! The one reader of clocks. Everybody else takes `now`, so that a turn sees one moment and tests choose theirs.

use rustix::time::{ClockId, Timespec, clock_gettime};

use crate::time::{Mono, Now, UnixMs};

/// Reads both clocks. Monotonic time is `CLOCK_BOOTTIME`: it goes on while the machine is suspended, so deadlines
/// of peers that kept running are not missed after a resume.
pub fn now() -> Now {
    Now {
        mono: Mono(u64::try_from(milliseconds(clock_gettime(ClockId::Boottime))).unwrap_or(0)),
        unix: UnixMs(milliseconds(clock_gettime(ClockId::Realtime))),
    }
}

fn milliseconds(at: Timespec) -> i64 {
    at.tv_sec.saturating_mul(1_000).saturating_add(at.tv_nsec / 1_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_goes_forward_and_unix_time_is_of_this_century() {
        let first = now();
        std::thread::sleep(std::time::Duration::from_millis(3));
        let second = now();
        assert!(second.mono.since_ms(first.mono) >= 2, "{first:?} {second:?}");
        assert!(first.unix.0 > 1_577_836_800_000, "after 2020: {first:?}");
    }
}
