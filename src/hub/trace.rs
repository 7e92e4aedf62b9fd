//! A running hash over everything observable that a hub does. Two hubs that were fed the same inputs have the same
//! hash; one differing decision changes it. Bodies and tokens do not enter it, only their effects and lengths.

use serde::{Deserialize, Serialize};

/// What is noted; the numbers are part of the hash.
#[derive(Clone, Copy, Debug)]
pub(super) enum Note {
    Accepted = 1,
    Registered = 2,
    Queued = 3,
    Ended = 4,
    Closed = 5,
    Called = 6,
    Verdict = 7,
    Presence = 8,
    Freed = 9,
    Expired = 10,
    Asked = 11,
    Keyed = 12,
    Switched = 13,
}

/// FNV-1a over 64-bit words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trace(u64);

impl Default for Trace {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Trace {
    pub(super) fn note(&mut self, note: Note, words: &[u64]) {
        self.fold(note as u64);
        words.iter().for_each(|word| self.fold(*word));
    }

    /// The hash so far.
    pub fn value(self) -> u64 {
        self.0
    }

    fn fold(&mut self, word: u64) {
        self.0 = (self.0 ^ word).wrapping_mul(0x0000_0100_0000_01b3);
    }
}
