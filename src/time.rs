//! Time as the pure layers see it: two numbers that the caller took.
//!
//! Nothing here reads a clock; `shard::clock` does. Monotonic time decides every deadline; unix time only fills
//! fields of the protocol (connection id, token expiry, message times).

use serde::{Deserialize, Serialize};

/// Monotonic time in milliseconds since an arbitrary start of this process. Never goes backwards.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Mono(pub u64);

impl Mono {
    /// The moment `ms` milliseconds later; stops at the end of time instead of wrapping.
    pub fn plus_ms(self, ms: u64) -> Self {
        Self(self.0.saturating_add(ms))
    }

    /// Milliseconds from `earlier` to `self`; 0 if `earlier` is not earlier.
    pub fn since_ms(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// Milliseconds since the unix epoch (the wall clock: may step either way).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct UnixMs(pub i64);

/// One reading of both clocks, taken once a turn and handed down.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Now {
    /// For deadlines and ages.
    pub mono: Mono,
    /// For fields of the protocol.
    pub unix: UnixMs,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arithmetic_saturates_at_both_ends() {
        assert_eq!(Mono(u64::MAX).plus_ms(1), Mono(u64::MAX));
        assert_eq!(Mono(5).since_ms(Mono(9)), 0);
        assert_eq!(Mono(9).since_ms(Mono(5)), 4);
    }
}
