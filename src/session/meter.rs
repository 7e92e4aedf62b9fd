//! How much one client may ask for: four token buckets, refilled in coarse ticks.
//!
//! What always holds: the arithmetic is whole numbers and does not depend on how often a bucket is looked at, so a
//! replay that looks at one bucket alone decides the same. Not here: what happens to a client that asks for more
//! (`hub`).

use serde::{Deserialize, Serialize};

use super::Tick;
use crate::limits;

/// What is metered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Resource {
    /// WebSocket frames received, control frames included.
    Frames,
    /// Bytes received.
    Bytes,
    /// Bytes that gzip gave for what was received.
    Inflated,
    /// Requests that need an answer from upstream.
    Calls,
}

/// What a client may have of each resource per second, and in a burst what it has in `limits::REQUEST_BURST_MS`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rates {
    /// `requests.frames_per_s`.
    pub frames: u32,
    /// `requests.bytes_per_s`.
    pub bytes: u32,
    /// `requests.inflated_bytes_per_s`.
    pub inflated: u32,
    /// `requests.calls_per_s`.
    pub calls: u32,
}

impl Default for Rates {
    fn default() -> Self {
        Self {
            frames: limits::REQUEST_FRAMES_PER_S_MAX,
            bytes: limits::REQUEST_BYTES_PER_S_MAX,
            inflated: limits::REQUEST_INFLATED_BYTES_PER_S_MAX,
            calls: limits::REQUEST_CALLS_PER_S_MAX,
        }
    }
}

impl Rates {
    fn of(&self, resource: Resource) -> u32 {
        match resource {
            Resource::Frames => self.frames,
            Resource::Bytes => self.bytes,
            Resource::Inflated => self.inflated,
            Resource::Calls => self.calls,
        }
    }
}

/// Ticks of one second: levels are kept in these parts, so that each tick gives back a whole number.
const TICKS_PER_S: u64 = 1000 / limits::TICK_MS;
const _: () = assert!(TICKS_PER_S * limits::TICK_MS == 1000, "a second is a whole number of ticks");

/// The buckets of one connection: what was used and not given back yet, in parts of one unit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Meter {
    refilled: Tick,
    used: [u32; 4],
}

impl Meter {
    /// Takes an amount. `false`: there is not so much, and nothing is taken.
    #[must_use]
    pub fn take(&mut self, tick: Tick, rates: &Rates, resource: Resource, amount: u64) -> bool {
        self.refill(tick, rates);
        let Some(used) = self.used.get_mut(resource as usize) else {
            return false;
        };
        let room = u64::from(rates.of(resource)) * (limits::REQUEST_BURST_MS / limits::TICK_MS);
        let level = u64::from(*used).saturating_add(amount.saturating_mul(TICKS_PER_S));
        if level > room {
            return false;
        }
        *used = u32::try_from(level).unwrap_or(u32::MAX); // the settings keep `room` below 2^32
        true
    }

    fn refill(&mut self, tick: Tick, rates: &Rates) {
        let ticks = tick.0.saturating_sub(self.refilled.0);
        self.refilled = self.refilled.max(tick);
        for (used, resource) in
            self.used.iter_mut().zip([Resource::Frames, Resource::Bytes, Resource::Inflated, Resource::Calls])
        {
            *used = used.saturating_sub(rates.of(resource).saturating_mul(ticks));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATES: Rates = Rates { frames: 3, bytes: 1_000, inflated: 7, calls: 1 };

    #[test]
    fn a_burst_ends_at_its_edge_and_time_gives_it_back() {
        for (resource, rate) in
            [(Resource::Frames, 3), (Resource::Bytes, 1_000), (Resource::Inflated, 7), (Resource::Calls, 1)]
        {
            let (mut meter, burst) = (Meter::default(), rate * limits::REQUEST_BURST_MS / 1000);
            assert!(meter.take(Tick(9), &RATES, resource, burst), "{resource:?}");
            assert!(!meter.take(Tick(9), &RATES, resource, 1), "{resource:?}");
            let second = Tick(9).after_ms(1_000);
            assert!(!meter.take(second, &RATES, resource, rate + 1), "{resource:?}");
            assert!(meter.take(second, &RATES, resource, rate), "{resource:?}");
            assert!(!meter.take(second, &RATES, resource, 1), "{resource:?}");
            let later = second.after_ms(3_600_000);
            assert!(!meter.take(later, &RATES, resource, burst + 1), "never more than a burst");
            assert!(meter.take(later, &RATES, resource, burst));
        }
    }

    #[test]
    fn how_often_a_bucket_is_looked_at_changes_nothing() {
        let (mut often, mut once) = (Meter::default(), Meter::default());
        assert!(often.take(Tick(0), &RATES, Resource::Frames, 12));
        assert!(once.take(Tick(0), &RATES, Resource::Frames, 12));
        for tick in 1..=33 {
            assert!(often.take(Tick(tick), &RATES, Resource::Bytes, 1));
        }
        for meter in [&mut often, &mut once] {
            assert!(!meter.take(Tick(33), &RATES, Resource::Frames, 10), "3.3 s give back 9.9");
            assert!(meter.take(Tick(33), &RATES, Resource::Frames, 9));
        }
    }

    #[test]
    fn a_clock_that_stands_or_a_huge_amount_does_no_harm() {
        let mut meter = Meter::default();
        assert!(!meter.take(Tick(u32::MAX), &RATES, Resource::Bytes, u64::MAX));
        assert!(meter.take(Tick(0), &RATES, Resource::Bytes, 4_000));
        assert!(!meter.take(Tick(u32::MAX), &RATES, Resource::Bytes, 1), "the past gives nothing back");
    }
}
