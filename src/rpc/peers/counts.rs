//! What links count.

use std::cell::Cell;

use crate::metrics::{Metric, Tally};

/// Only grows.
#[derive(Debug, Default)]
pub(super) struct Count(Cell<u64>);

impl Count {
    pub(super) fn add(&self, n: usize) {
        self.0.set(self.0.get().wrapping_add(n as u64));
    }
}

/// Of all links of the node.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) dials: Count,
    pub(super) knocks: Count,
    pub(super) opened: Count,
    pub(super) refused: Count,
    pub(super) frames_in: Count,
    pub(super) frames_out: Count,
    pub(super) bytes_in: Count,
    pub(super) bytes_out: Count,
    /// Links ended since too much waited for them.
    pub(super) overflows: Count,
    /// Links ended since the peer took nothing.
    pub(super) stalls: Count,
    /// Links ended since the peer sent what cannot be read.
    pub(super) faults: Count,
    pub(super) too_large: Count,
}

impl Counts {
    pub(super) fn publish(&self, tally: &mut Tally) {
        let all = [
            (Metric::PeerDials, &self.dials),
            (Metric::PeerKnocks, &self.knocks),
            (Metric::PeerOpened, &self.opened),
            (Metric::PeerRefused, &self.refused),
            (Metric::PeerFramesIn, &self.frames_in),
            (Metric::PeerFramesOut, &self.frames_out),
            (Metric::PeerBytesIn, &self.bytes_in),
            (Metric::PeerBytesOut, &self.bytes_out),
            (Metric::PeerOverflows, &self.overflows),
            (Metric::PeerStalls, &self.stalls),
            (Metric::PeerFaults, &self.faults),
            (Metric::PeerTooLarge, &self.too_large),
        ];
        for (metric, count) in all {
            tally.set(metric, count.0.get());
        }
    }
}
