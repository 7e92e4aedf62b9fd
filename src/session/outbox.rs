//! Frames that wait for one connection, in order. Exists only while something waits: an idle session holds none.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::{NONE, Tick};
use crate::limits;
use crate::wire::frame::Frame;

/// Frames for one send; owned clones, so that an engine with completions can keep them while the kernel reads.
#[derive(Debug, Default)]
pub struct SendBatch {
    /// In order.
    pub frames: Vec<Frame>,
    /// Bytes of the first frame that were sent before.
    pub skip: usize,
}

/// The queue. `bytes` is what still has to be sent, the sent part of the first frame excluded.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Outbox {
    frames: VecDeque<Frame>,
    bytes: usize,
    sent_of_first: usize,
    /// Set when a send leaves something behind: when the socket last took a byte. Kept by the hub.
    pub stuck_since: Option<Tick>,
    /// Where it stands among the outboxes of the shard. Kept by the hub.
    pub place: Place,
}

/// A place in a list of outboxes of about one size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// Which list; `None`: in none.
    pub class: Option<u8>,
    /// Neighbours.
    pub prev: u32,
    /// See `prev`.
    pub next: u32,
}

impl Default for Place {
    fn default() -> Self {
        Self { class: None, prev: NONE, next: NONE }
    }
}

/// What one `sent` finished.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sent {
    /// Frames that left completely.
    pub frames: u64,
    /// Bytes taken off.
    pub bytes: usize,
}

impl Outbox {
    /// Adds a frame at the end.
    pub fn push(&mut self, frame: Frame) {
        self.bytes += frame.bytes().len();
        self.frames.push_back(frame);
    }

    /// Bytes still to be sent.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Frames waiting, a partly sent one included.
    pub fn frames(&self) -> usize {
        self.frames.len()
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// Clones the first frames into `batch`, within the limits of one send. Returns the bytes to send.
    pub fn fill(&self, batch: &mut SendBatch) -> usize {
        batch.frames.clear();
        batch.skip = self.sent_of_first;
        let mut bytes = 0;
        for frame in self.frames.iter().take(limits::SEND_BATCH_MAX) {
            if bytes > 0 && bytes + frame.bytes().len() > limits::SEND_BATCH_BYTES {
                break;
            }
            bytes += frame.bytes().len();
            batch.frames.push(frame.clone());
        }
        bytes.saturating_sub(self.sent_of_first)
    }

    /// Takes off what was sent. More than waits is a bug of the engine; the surplus is ignored.
    pub fn sent(&mut self, n: usize) -> Sent {
        let mut left = n.min(self.bytes);
        let mut sent = Sent { frames: 0, bytes: left };
        self.bytes -= left;
        while let Some(first) = self.frames.front() {
            let rest = first.bytes().len() - self.sent_of_first;
            if left < rest {
                self.sent_of_first += left;
                break;
            }
            left -= rest;
            self.sent_of_first = 0;
            self.frames.pop_front();
            sent.frames += 1;
        }
        sent
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outbox(sizes: &[usize]) -> Outbox {
        let mut outbox = Outbox::default();
        sizes.iter().for_each(|n| outbox.push(Frame::raw(&vec![7; *n])));
        outbox
    }

    #[test]
    fn any_split_of_the_sends_takes_off_each_byte_once() {
        for step in 1..=20 {
            let mut outbox = outbox(&[3, 10, 1, 6]);
            let (mut frames, mut bytes, mut batch) = (0, 0, SendBatch::default());
            while !outbox.is_empty() {
                let waiting = outbox.fill(&mut batch);
                assert_eq!(waiting, outbox.bytes());
                let sent = outbox.sent(step.min(waiting));
                frames += sent.frames;
                bytes += sent.bytes;
            }
            assert_eq!((frames, bytes, outbox.bytes()), (4, 20, 0), "step {step}");
        }
    }

    #[test]
    fn a_batch_ends_at_its_limits_but_holds_at_least_one_frame() {
        let mut batch = SendBatch::default();
        let big = limits::SEND_BATCH_BYTES + 1;
        assert_eq!(outbox(&[big, 5]).fill(&mut batch), big);
        assert_eq!(batch.frames.len(), 1);
        outbox(&vec![1; limits::SEND_BATCH_MAX + 9]).fill(&mut batch);
        assert_eq!(batch.frames.len(), limits::SEND_BATCH_MAX);
    }

    #[test]
    fn more_sent_than_waits_is_ignored() {
        let mut outbox = outbox(&[4]);
        assert_eq!(outbox.sent(9), Sent { frames: 1, bytes: 4 });
        assert!(outbox.is_empty());
    }
}
