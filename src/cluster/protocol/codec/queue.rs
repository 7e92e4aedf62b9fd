//! Frames on their way to a link: encoded when they come, many in one message.

use std::collections::VecDeque;

use bytes::{BufMut, Bytes, BytesMut};
use prost::Message;
use prost::encoding::message;

use super::write;
use crate::cluster::protocol::frame::{Frame, Generation};
use crate::limits::{
    LINK_ANSWER_BYTES_MAX, LINK_BATCH_BYTES, LINK_BATCH_FRAMES_MAX, LINK_MESSAGE_BYTES_MAX, LINK_QUEUE_BYTES,
    LINK_QUEUE_FRAMES, LINK_RECIPIENTS_MAX,
};
use crate::pb::pinion::peer as pb;
use crate::pb::pinion::peer::frame::Body as Word;
use crate::wire::grpc::PREFIX_BYTES;

/// One gRPC message with its prefix.
#[derive(Debug, PartialEq, Eq)]
pub struct Batch {
    /// As they are written.
    pub bytes: Bytes,
    /// How many are in it.
    pub frames: usize,
}

/// Why a frame was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unsent {
    /// [`LINK_QUEUE_BYTES`] or [`LINK_QUEUE_FRAMES`]: the link must end.
    Full,
    /// A question or a part of an answer beyond what one message holds. The asker waits in vain, and says so: silence
    /// is never "no connection there".
    TooLarge,
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub struct Queue {
    /// The last one still grows.
    batches: VecDeque<Open>,
    bytes: usize,
    frames: usize,
}

/// A message that may grow.
#[derive(Debug)]
struct Open {
    generation: Generation,
    bytes: BytesMut,
    /// Of its frames.
    counted_bytes: usize,
    frames: usize,
}

impl Queue {
    /// Takes a frame, whole or not at all.
    ///
    /// # Errors
    /// See [`Unsent`].
    pub fn push(&mut self, frame: Frame) -> Result<(), Unsent> {
        let generation = frame.generation;
        let words = write::words(frame);
        if words.iter().any(is_too_large) {
            return Err(Unsent::TooLarge);
        }
        let bytes: usize = words.iter().map(Message::encoded_len).sum();
        if self.bytes + bytes > LINK_QUEUE_BYTES || self.frames + words.len() > LINK_QUEUE_FRAMES {
            return Err(Unsent::Full);
        }
        for word in words {
            self.put(generation, &word);
        }
        Ok(())
    }

    fn put(&mut self, generation: Generation, word: &pb::Frame) {
        let length = message::encoded_len(FRAMES, word);
        let fits = |open: &Open| open.generation == generation && open.has_room(length);
        if !self.batches.back().is_some_and(fits) {
            self.batches.push_back(Open::new(generation, length));
        }
        if let Some(open) = self.batches.back_mut() {
            message::encode(FRAMES, word, &mut open.bytes);
            open.frames += 1;
            open.counted_bytes += length;
            self.frames += 1;
            self.bytes += length;
        }
    }

    /// The next message.
    pub fn pop(&mut self) -> Option<Batch> {
        let open = self.batches.pop_front()?;
        self.bytes -= open.counted_bytes;
        self.frames -= open.frames;
        Some(open.close())
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.batches.is_empty()
    }

    /// Bytes and frames that wait.
    pub fn depth(&self) -> (usize, usize) {
        (self.bytes, self.frames)
    }
}

/// Field number of `Batch.frames`, and of `Batch.generation`.
const FRAMES: u32 = 2;
const GENERATION: u32 = 1;

fn is_too_large(word: &pb::Frame) -> bool {
    let bytes = word.encoded_len();
    match &word.body {
        Some(Word::Route(copy) | Word::Deliver(copy) | Word::DeliverAgain(copy)) => {
            bytes > QUESTION_BYTES_MAX || copy.recipients.len() > LINK_RECIPIENTS_MAX
        }
        Some(Word::NotHome(_)) => bytes > QUESTION_BYTES_MAX,
        Some(Word::RouteReply(_) | Word::DeliverReply(_) | Word::Hello(_) | Word::HelloAck(_)) => {
            bytes > LINK_ANSWER_BYTES_MAX
        }
        _ => bytes > LINK_BATCH_BYTES,
    }
}

/// A message around it has at most so much more.
const QUESTION_BYTES_MAX: usize = LINK_MESSAGE_BYTES_MAX - 128;

impl Open {
    fn new(generation: Generation, length: usize) -> Self {
        let generation_word = write::generation(generation);
        let head = PREFIX_BYTES + message::encoded_len(GENERATION, &generation_word);
        let mut bytes = BytesMut::with_capacity(head + length);
        bytes.put_bytes(0, PREFIX_BYTES);
        message::encode(GENERATION, &generation_word, &mut bytes);
        Self { generation, bytes, counted_bytes: 0, frames: 0 }
    }

    fn has_room(&self, length: usize) -> bool {
        self.bytes.len() - PREFIX_BYTES + length <= LINK_BATCH_BYTES && self.frames < LINK_BATCH_FRAMES_MAX
    }

    fn close(mut self) -> Batch {
        let length = u32::try_from(self.bytes.len() - PREFIX_BYTES).unwrap_or(u32::MAX);
        if let Some(prefix) = self.bytes.get_mut(1..PREFIX_BYTES) {
            prefix.copy_from_slice(&length.to_be_bytes());
        }
        Batch { bytes: self.bytes.freeze(), frames: self.frames }
    }
}
