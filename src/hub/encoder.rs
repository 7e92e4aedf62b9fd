//! Builds frames: really, or, in the replay of a recording without bodies, as zeros of the recorded length.

use std::collections::VecDeque;

use bytes::Bytes;

use super::record::Recorder;
use crate::wire::envelope::{Codec, Response, Variant};
use crate::wire::frame::{Frame, Opcode};

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct Encoder {
    pub(super) codec: Codec,
    /// Lengths of the frames to come, while a shape is replayed.
    replay: Option<VecDeque<usize>>,
}

impl Encoder {
    pub(super) fn replay(lengths: VecDeque<usize>) -> Self {
        Self { codec: Codec::default(), replay: Some(lengths) }
    }

    pub(super) fn envelope(
        &mut self,
        recorder: &mut Option<Recorder>,
        variant: Variant,
        response: &Response<'_>,
    ) -> Frame {
        match self.next_length() {
            Some(frame) => frame,
            None => note(recorder, self.codec.encode(variant, response)),
        }
    }

    pub(super) fn frame(&mut self, recorder: &mut Option<Recorder>, opcode: Opcode, payload: &[u8]) -> Frame {
        match self.next_length() {
            Some(frame) => frame,
            None => note(recorder, Frame::new(opcode, payload)),
        }
    }

    pub(super) fn raw(&mut self, recorder: &mut Option<Recorder>, bytes: &[u8]) -> Frame {
        match self.next_length() {
            Some(frame) => frame,
            None => note(recorder, Frame::raw(bytes)),
        }
    }

    /// A frame that the rpc thread built.
    pub(super) fn shared(&mut self, recorder: &mut Option<Recorder>, bytes: Bytes) -> Frame {
        match self.next_length() {
            Some(frame) => frame,
            None => note(recorder, Frame::shared(bytes)),
        }
    }

    fn next_length(&mut self) -> Option<Frame> {
        let length = self.replay.as_mut()?.pop_front().unwrap_or_default();
        Some(Frame::raw(&vec![0; length]))
    }
}

fn note(recorder: &mut Option<Recorder>, frame: Frame) -> Frame {
    if let Some(recorder) = recorder {
        recorder.encoded(frame.bytes().len());
    }
    frame
}
