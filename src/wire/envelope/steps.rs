//! A large envelope, built step by step, so that its thread can serve others in between.
//!
//! The bytes are not always those of [`super::Codec::encode`] (a compressor may cut its blocks elsewhere), but they mean
//! the same. What always holds: a step compresses at most `SHARED_STEP_BYTES`; a frame above the SDKs' read
//! limit is not built further than that limit.

use bytes::Bytes;
use flate2::{Compress, Compression, Crc, FlushCompress, Status};

use super::gzip::HEADER;
use super::{Encoding, Response, Variant, gob, json};
use crate::limits::{FRAME_SENT_BYTES_MAX, SHARED_STEP_BYTES};
use crate::wire::frame::{Frame, Opcode};

/// How far a frame is.
#[derive(Debug)]
pub enum Step {
    /// There is more to do.
    More,
    /// A complete frame, or more bytes than [`FRAME_SENT_BYTES_MAX`] of one that is not worth completing.
    Done(Bytes),
    /// The compressor failed; it has no reason to.
    Failed,
}

/// See the module's documentation.
#[derive(Debug)]
pub struct FrameSteps {
    plain: Vec<u8>,
    packing: Option<Packing>,
}

#[derive(Debug)]
struct Packing {
    state: Compress,
    sum: Crc,
    packed: Vec<u8>,
    /// How much of `plain` is in.
    taken: usize,
}

impl FrameSteps {
    /// Encodes what is not compressed, in one go: copying is fast.
    pub fn new(variant: Variant, response: &Response<'_>) -> Self {
        let data = response.data.unwrap_or_default().len();
        if !variant.gzip && least_bytes(variant.encoding, data) > FRAME_SENT_BYTES_MAX {
            return Self { plain: vec![0; FRAME_SENT_BYTES_MAX + 1], packing: None };
        }
        let plain = match variant.encoding {
            Encoding::Gob => {
                let mut plain = Vec::with_capacity(data + response.operation_id.len() + 256);
                gob::encode_response(&mut plain, response);
                plain
            }
            Encoding::Json => {
                let mut text = String::with_capacity(data / 3 * 4 + response.operation_id.len() + 256);
                json::encode_response(&mut text, response);
                text.into_bytes()
            }
        };
        let packing = variant.gzip.then(|| Packing {
            state: Compress::new(Compression::new(1), false),
            sum: Crc::new(),
            packed: HEADER.to_vec(),
            taken: 0,
        });
        Self { plain, packing }
    }

    /// Goes on by one step; not after [`Step::Done`] or [`Step::Failed`].
    pub fn step(&mut self) -> Step {
        let Some(packing) = &mut self.packing else {
            return Step::Done(Frame::to_shared(Opcode::Binary, &self.plain));
        };
        match packing.step(&self.plain) {
            Some(Status::StreamEnd) => {
                packing.packed.extend_from_slice(&packing.sum.sum().to_le_bytes());
                packing.packed.extend_from_slice(&packing.sum.amount().to_le_bytes());
            }
            Some(_) if packing.packed.len() > FRAME_SENT_BYTES_MAX => {}
            Some(_) => return Step::More,
            None => return Step::Failed,
        }
        Step::Done(Frame::to_shared(Opcode::Binary, &packing.packed))
    }
}

impl Packing {
    /// `None`: no progress.
    fn step(&mut self, plain: &[u8]) -> Option<Status> {
        let rest = plain.get(self.taken..).unwrap_or_default();
        let (input, flush) = match rest.split_at_checked(SHARED_STEP_BYTES) {
            Some((input, _)) => (input, FlushCompress::None),
            None => (rest, FlushCompress::Finish),
        };
        // Room for input that does not compress: stored blocks and what is left of the step before.
        self.packed.reserve(2 * SHARED_STEP_BYTES);
        let before = (self.state.total_in(), self.state.total_out());
        let status = self.state.compress_vec(input, &mut self.packed, flush).ok()?;
        let after = (self.state.total_in(), self.state.total_out());
        let read = usize::try_from(after.0 - before.0).ok()?;
        self.sum.update(input.get(..read)?);
        self.taken += read;
        (after != before || status == Status::StreamEnd).then_some(status)
    }
}

/// An envelope around so many bytes has at least this length.
fn least_bytes(encoding: Encoding, data: usize) -> usize {
    match encoding {
        Encoding::Gob => data,
        Encoding::Json => data / 3 * 4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::envelope::Codec;

    /// The frame, and in how many steps.
    fn build(variant: Variant, data: &[u8]) -> (Bytes, usize) {
        let response = Response { id: 2001, operation_id: "op", data: Some(data), ..Response::default() };
        let mut build = FrameSteps::new(variant, &response);
        for steps in 1.. {
            match build.step() {
                Step::More => {}
                Step::Done(frame) => return (frame, steps),
                Step::Failed => panic!("{variant:?}"),
            }
        }
        unreachable!()
    }

    fn noise(bytes: usize) -> Vec<u8> {
        let mut random = fastrand::Rng::with_seed(7);
        (0..bytes).map(|_| random.u8(..)).collect()
    }

    #[test]
    fn what_was_built_is_what_a_client_reads() {
        let text: Vec<u8> = b"some words that come again, ".repeat(10_000);
        for data in [&b""[..], &noise(100_000), &noise(SHARED_STEP_BYTES), &text, &[0; 1_500_000]] {
            for variant in Variant::all() {
                let (frame, _) = build(variant, data);
                if frame.len() > FRAME_SENT_BYTES_MAX {
                    assert!(!variant.gzip && data.len() > 1_000_000, "{variant:?}");
                    continue;
                }
                if !variant.gzip {
                    let response =
                        Response { id: 2001, operation_id: "op", data: Some(data), ..Response::default() };
                    assert_eq!(frame, Codec::default().encode(variant, &response).bytes());
                }
                // A binary frame of up to 64 KiB has 4 bytes of header, a larger one 10.
                let payload = frame.slice(
                    if frame[1] == 127 {
                        10
                    } else if frame[1] == 126 {
                        4
                    } else {
                        2
                    }..,
                );
                let response = Codec::default().decode_response(variant, &payload).unwrap();
                assert_eq!((response.id, &*response.operation_id), (2001, "op"));
                assert_eq!(response.data.unwrap_or_default(), data, "{variant:?}");
            }
        }
    }

    #[test]
    fn a_frame_that_nobody_reads_is_not_built_to_its_end() {
        let data = noise(8 * 1024 * 1024);
        for variant in Variant::all() {
            let (frame, steps) = build(variant, &data);
            let over = frame.len() - FRAME_SENT_BYTES_MAX;
            assert!(over > 0 && over <= 3 * SHARED_STEP_BYTES, "{variant:?}: {over}");
            // Base64 compresses to three quarters of itself.
            assert!(steps <= 2 * FRAME_SENT_BYTES_MAX / SHARED_STEP_BYTES, "{variant:?}: {steps}");
        }
    }

    #[test]
    fn large_data_that_compresses_is_sent_and_takes_its_steps() {
        let data = vec![7; 8 * 1024 * 1024];
        for variant in Variant::all().filter(|variant| variant.gzip) {
            let (frame, steps) = build(variant, &data);
            assert!(frame.len() < FRAME_SENT_BYTES_MAX && steps > data.len() / SHARED_STEP_BYTES, "{steps}");
        }
    }
}
