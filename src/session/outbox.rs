//! Frames that wait for one connection, in order. Exists only while something waits: an idle session holds none.
//!
//! A frame may be tagged: somebody wants to hear what becomes of it, or it is worthless after some time. Tags stand in
//! a list of their own, so that frames without one, which is most, cost nothing more.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::{NONE, Tick};
use crate::ids::SlotId;
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

/// What is known about a frame beside its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tag {
    /// Who wants to hear what becomes of it.
    pub verdict: Option<VerdictRef>,
    /// From this tick on it is taken out again, unless its first byte is sent.
    pub expires: Option<Tick>,
}

/// Names a verdict that is open, for the hub; stale as soon as nobody waits for it any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerdictRef {
    /// The push.
    pub push: SlotId,
    /// Its recipient; [`NONE`] if only the sum over all is asked for.
    pub user: u32,
    /// Which of the recipient's devices.
    pub device: u32,
}

/// A tag with its place.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Mark {
    /// The frame, counted from the first that this outbox ever held.
    frame: u64,
    tag: Tag,
}

/// The queue. `bytes` is what still has to be sent, the sent part of the first frame excluded.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Outbox {
    frames: VecDeque<Frame>,
    bytes: usize,
    sent_of_first: usize,
    /// Frames that left. The first in `frames` has this number.
    left: u64,
    /// In the order of their frames; those whose frame has left are taken by [`Outbox::next_written`].
    marks: VecDeque<Mark>,
    /// Frames at the head that an engine may hold: handed out by `fill`, and `sent` was not said yet.
    handed: usize,
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

    /// Tags the frame that was added last.
    pub fn tag_last(&mut self, tag: Tag) {
        let frame = self.left + (self.frames.len() as u64).saturating_sub(1);
        self.marks.push_back(Mark { frame, tag });
    }

    /// The next tagged frame that was sent to its last byte, in order. To be asked until `None` after each `sent`.
    pub fn next_written(&mut self) -> Option<Tag> {
        let left = self.left;
        self.marks.pop_front_if(|mark| mark.frame < left).map(|mark| mark.tag)
    }

    /// The tags of the frames that are here, in order.
    pub fn tags(&self) -> impl Iterator<Item = Tag> {
        self.marks.iter().map(|mark| mark.tag)
    }

    /// When the next frame is to be taken out. Changes with each `sent`, since it may then be out of reach or in it.
    pub fn next_expiry(&self) -> Option<Tick> {
        let begun = self.begun();
        self.marks.iter().filter(|mark| mark.frame >= begun).filter_map(|mark| mark.tag.expires).min()
    }

    /// The first frame of which no engine has seen a byte.
    fn begun(&self) -> u64 {
        self.left + self.handed.max(usize::from(self.sent_of_first > 0)) as u64
    }

    /// Takes out one frame that is worthless by now and of which no engine has seen a byte; the first such. Gives its
    /// tag and its size in bytes.
    pub fn expire(&mut self, now: Tick) -> Option<(Tag, usize)> {
        let begun = self.begun();
        let due = |mark: &Mark| mark.frame >= begun && mark.tag.expires.is_some_and(|at| at <= now);
        let at = self.marks.iter().position(due)?;
        let mark = self.marks.remove(at)?;
        let frame = self.frames.remove(usize::try_from(mark.frame - self.left).ok()?)?;
        self.marks.iter_mut().skip(at).for_each(|later| later.frame -= 1);
        self.bytes -= frame.bytes().len();
        Some((mark.tag, frame.bytes().len()))
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
    pub fn fill(&mut self, batch: &mut SendBatch) -> usize {
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
        self.handed = batch.frames.len();
        bytes.saturating_sub(self.sent_of_first)
    }

    /// Takes off what was sent. More than waits is a bug of the engine; the surplus is ignored.
    pub fn sent(&mut self, n: usize) -> Sent {
        let mut left = n.min(self.bytes);
        let mut sent = Sent { frames: 0, bytes: left };
        self.bytes -= left;
        self.handed = 0;
        while let Some(first) = self.frames.front() {
            let rest = first.bytes().len() - self.sent_of_first;
            if left < rest {
                self.sent_of_first += left;
                break;
            }
            left -= rest;
            self.sent_of_first = 0;
            self.frames.pop_front();
            self.left += 1;
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

    fn tag(user: u32, expires: Option<u32>) -> Tag {
        let push = SlotId { index: 0, generation: 0 };
        Tag { verdict: Some(VerdictRef { push, user, device: 0 }), expires: expires.map(Tick) }
    }

    #[test]
    fn a_tag_is_given_back_when_the_last_byte_of_its_frame_is_sent() {
        let mut outbox = outbox(&[3]);
        outbox.tag_last(tag(1, None));
        outbox.push(Frame::raw(b"plain"));
        outbox.push(Frame::raw(b"tagged"));
        outbox.tag_last(tag(2, None));
        for (n, told) in [(2, None), (1, Some(tag(1, None))), (5, None), (5, None), (1, Some(tag(2, None)))] {
            outbox.sent(n);
            assert_eq!(outbox.next_written(), told);
            assert_eq!(outbox.next_written(), None);
        }
    }

    #[test]
    fn a_frame_expires_at_its_tick_unless_its_first_byte_is_sent_or_it_is_on_its_way() {
        let mut outbox = outbox(&[]);
        for user in 1..=4 {
            outbox.push(Frame::raw(&[7; 10]));
            outbox.tag_last(tag(user, (user != 3).then_some(5)));
        }
        outbox.fill(&mut SendBatch::default());
        assert_eq!(outbox.expire(Tick(5)), None, "an engine holds them all");
        outbox.sent(1);
        assert_eq!((outbox.expire(Tick(4)), outbox.next_expiry()), (None, Some(Tick(5))));
        assert_eq!(outbox.expire(Tick(5)), Some((tag(2, Some(5)), 10)), "the first has begun");
        assert_eq!(outbox.expire(Tick(5)), Some((tag(4, Some(5)), 10)));
        assert_eq!((outbox.expire(Tick(9)), outbox.next_expiry(), outbox.bytes()), (None, None, 19));
        outbox.sent(19);
        assert_eq!(outbox.next_written(), Some(tag(1, Some(5))));
        assert_eq!(outbox.next_written(), Some(tag(3, None)));
        assert_eq!((outbox.next_written(), outbox.is_empty()), (None, true));
    }
}
