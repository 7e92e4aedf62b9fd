//! Whether a gRPC connection sends work or noise: two token buckets over the frames that it sends.
//!
//! h2 answers a PING, a SETTINGS or a reset by itself, before anybody is asked. So frames are judged where the bytes
//! come in: HEADERS and DATA are work, and pay for the control frames that honest stacks send along with them; what
//! control frames come beyond has a rate, and resets have one of their own, since each makes work void.
//! Not here: what happens to who exceeds them (`server.rs`).

use crate::config::RpcLimits;
use crate::limits::{
    H2_BURST_MS, H2_CALL_COST_BYTES, H2_CONTROL_EARNED_BYTES, H2_CONTROL_PER_WORK_MAX, H2_DATA_LEAST_BYTES,
    H2_FRAME_COST_BYTES,
};
use crate::metrics::Metric;
use crate::time::Mono;
use crate::wire::h2::{FrameHead, flag, kind};

/// Why a connection is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cut {
    /// More control frames than `rpc.control_frames_per_s`.
    ControlFrames,
    /// More RST_STREAM frames than `rpc.resets_per_s`.
    Resets,
    /// Its socket took nothing for `rpc.send_deadline_ms`.
    Stuck,
}

impl Cut {
    /// The counter of this reason.
    pub(super) fn metric(self) -> Metric {
        match self {
            Self::ControlFrames => Metric::RpcCutControl,
            Self::Resets => Metric::RpcCutResets,
            Self::Stuck => Metric::RpcCutStuck,
        }
    }
}

/// What came in one read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sent {
    /// HEADERS, and DATA that carries something.
    work: u64,
    control: u64,
    resets: u64,
    /// What these frames cost besides their bytes.
    pub(super) cost_bytes: usize,
}

impl Sent {
    /// Counts one frame.
    pub(super) fn add(&mut self, head: FrameHead) {
        self.cost_bytes += H2_FRAME_COST_BYTES;
        match head.kind {
            kind::HEADERS => {
                self.work += 1;
                self.cost_bytes += H2_CALL_COST_BYTES;
            }
            kind::DATA if is_work(head) => self.work += 1,
            kind::RST_STREAM => self.resets += 1,
            _ => self.control += 1,
        }
    }
}

/// Padding carries nothing; no gRPC stack sends it.
fn is_work(data: FrameHead) -> bool {
    let padded = data.flags & flag::PADDED != 0;
    let last = data.flags & flag::END_STREAM != 0;
    last || (data.payload_bytes >= H2_DATA_LEAST_BYTES && !padded)
}

/// The buckets of one connection.
#[derive(Debug)]
pub(super) struct Conduct {
    control: Bucket,
    resets: Bucket,
}

impl Conduct {
    /// Full buckets.
    pub(super) fn new(limits: &RpcLimits) -> Self {
        Self { control: Bucket::new(limits.control_frames_per_s), resets: Bucket::new(limits.resets_per_s) }
    }

    /// Judges what came in one read.
    pub(super) fn judge(&mut self, now: Mono, sent: Sent) -> Result<(), Cut> {
        self.control.earn(sent.work * H2_CONTROL_PER_WORK_MAX * FRAME);
        if !self.control.take(now, sent.control) {
            return Err(Cut::ControlFrames);
        }
        if self.resets.take(now, sent.resets) { Ok(()) } else { Err(Cut::Resets) }
    }

    /// The peer took bytes of ours.
    pub(super) fn wrote(&mut self, bytes: usize) {
        self.control.earn(u64::try_from(bytes).unwrap_or(u64::MAX) * (FRAME / H2_CONTROL_EARNED_BYTES));
    }
}

/// Levels are kept in thousandths of a frame: what a rate per second gives back in a millisecond.
const FRAME: u64 = 1_000;
const _: () = assert!(FRAME.is_multiple_of(H2_CONTROL_EARNED_BYTES), "a byte earns a whole number of parts");

/// What was used and not given back yet.
#[derive(Debug)]
struct Bucket {
    per_s: u64,
    used: u64,
    refilled: Mono,
}

impl Bucket {
    fn new(per_s: u32) -> Self {
        Self { per_s: per_s.into(), used: 0, refilled: Mono(0) }
    }

    fn earn(&mut self, parts: u64) {
        self.used = self.used.saturating_sub(parts);
    }

    /// Takes so many frames; `false`: there are not so many.
    fn take(&mut self, now: Mono, frames: u64) -> bool {
        if frames == 0 {
            return true;
        }
        self.earn(now.since_ms(self.refilled).saturating_mul(self.per_s));
        self.refilled = self.refilled.max(now);
        self.used = self.used.saturating_add(frames * FRAME);
        self.used <= self.per_s * H2_BURST_MS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: RpcLimits = RpcLimits { control_frames_per_s: 100, resets_per_s: 10, ..RpcLimits::DEFAULT };
    const START: Mono = Mono(5_000);

    fn frames(kind: u8, flags: u8, payload_bytes: u32, count: usize) -> Sent {
        let mut sent = Sent::default();
        (0..count).for_each(|_| sent.add(FrameHead { kind, flags, payload_bytes }));
        sent
    }

    #[test]
    fn each_kind_of_noise_is_cut_one_frame_above_its_burst() {
        // Type, flags, length, burst, reason.
        let table = [
            (6, 0, 8, 400, Cut::ControlFrames),
            (4, 0, 0, 400, Cut::ControlFrames),
            (8, 0, 4, 400, Cut::ControlFrames),
            (2, 0, 5, 400, Cut::ControlFrames),
            (9, 0, 1, 400, Cut::ControlFrames),
            (0xbb, 0, 16_000, 400, Cut::ControlFrames),
            (kind::DATA, 0, 0, 400, Cut::ControlFrames),
            (kind::DATA, 0, 4, 400, Cut::ControlFrames),
            (kind::DATA, flag::PADDED, 255, 400, Cut::ControlFrames),
            (kind::RST_STREAM, 0, 4, 40, Cut::Resets),
        ];
        for (kind, flags, length, burst, reason) in table {
            let mut conduct = Conduct::new(&LIMITS);
            let mut judge = |at, count| conduct.judge(at, frames(kind, flags, length, count));
            assert_eq!(judge(START, burst), Ok(()), "{kind} {length}");
            let second = START.plus_ms(1_000);
            assert_eq!(judge(second, burst / 4), Ok(()), "{kind}: a second gives back a second's worth");
            assert_eq!(judge(second, 1), Err(reason), "{kind} {length}");
            assert_eq!(judge(second.plus_ms(3_600_000), burst), Ok(()), "an hour gives back all");
            assert_eq!(judge(second.plus_ms(3_600_000), 1), Err(reason), "and no more");
        }
    }

    #[test]
    fn work_pays_for_the_control_frames_along_with_it_but_not_for_resets() {
        let work = [
            frames(kind::HEADERS, 0, 40, 100),
            frames(kind::DATA, 0, 5, 100),
            frames(kind::DATA, flag::END_STREAM, 0, 100),
        ];
        for work in work {
            let mut conduct = Conduct::new(&LIMITS);
            for _ in 0..1_000 {
                assert_eq!(conduct.judge(START, frames(8, 0, 4, 400)), Ok(()));
                assert_eq!(conduct.judge(START, work), Ok(()), "work is never too much");
            }
            assert_eq!(conduct.judge(START, frames(8, 0, 4, 401)), Err(Cut::ControlFrames));

            let mut conduct = Conduct::new(&LIMITS);
            assert_eq!(conduct.judge(START, frames(kind::RST_STREAM, 0, 4, 40)), Ok(()));
            assert_eq!(conduct.judge(START, work), Ok(()));
            assert_eq!(conduct.judge(START, frames(kind::RST_STREAM, 0, 4, 1)), Err(Cut::Resets));
        }
    }

    #[test]
    fn a_caller_that_reads_large_answers_may_send_its_window_updates() {
        let mut conduct = Conduct::new(&LIMITS);
        for _ in 0..10_000 {
            assert_eq!(conduct.judge(START, frames(8, 0, 4, 2)), Ok(()));
            assert_eq!(conduct.judge(START, frames(6, 0, 8, 1)), Ok(()));
            conduct.wrote(16_384);
        }
        // A PING is answered with as many bytes as it has; that must not pay for it.
        let mut conduct = Conduct::new(&LIMITS);
        let cut_after = (0..).find(|_| {
            conduct.wrote(17);
            conduct.judge(START, frames(6, 0, 8, 1)).is_err()
        });
        assert!(cut_after.is_some_and(|n| n < 410), "{cut_after:?}");
    }

    #[test]
    fn the_default_bursts_hold_what_honest_callers_do_at_worst() {
        let mut conduct = Conduct::new(&RpcLimits::DEFAULT);
        // All streams cancelled at once, ten times over, within one millisecond.
        assert_eq!(conduct.judge(START, frames(kind::RST_STREAM, 0, 4, 10_240)), Ok(()));
        // A clock that stands still does no harm.
        assert_eq!(conduct.judge(Mono(0), frames(8, 0, 4, 10_000)), Ok(()));
    }
}
