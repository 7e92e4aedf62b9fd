//! Inflates one gzip message step by step, so that its owner can give up its turn in between.
//!
//! What always holds: a step reads and writes at most `GUNZIP_STEP_BYTES`, and what is kept ends one step behind the
//! limit, whatever the bytes claim. One member only: that is what gRPC's libraries send.

use bytes::{Buf, Bytes};
use flate2::{Decompress, FlushDecompress, Status};

use super::BodyFault;
use crate::limits::GUNZIP_STEP_BYTES;

/// Window bits of gzip: the largest, which every compressor stays within.
const WINDOW_BITS: u8 = 15;

/// See the module's documentation.
#[derive(Debug)]
pub struct Gunzip {
    state: Decompress,
    packed: Bytes,
    plain: Vec<u8>,
    limit: usize,
}

impl Gunzip {
    /// For a message that holds at most `limit` bytes.
    pub fn new(packed: Bytes, limit: usize) -> Self {
        Self { state: Decompress::new_gzip(WINDOW_BITS), packed, plain: Vec::new(), limit }
    }

    /// Goes on by one step. `Ok(None)`: there is more to do.
    ///
    /// # Errors
    /// [`BodyFault::Gzip`] and [`BodyFault::InflatedTooBig`]; call it no more then.
    pub fn step(&mut self) -> Result<Option<Bytes>, BodyFault> {
        let input = self.packed.get(..GUNZIP_STEP_BYTES).unwrap_or(&self.packed);
        // Only the spare capacity is filled: one step.
        let mut step = Vec::with_capacity(GUNZIP_STEP_BYTES);
        let before = self.state.total_in();
        let status = self
            .state
            .decompress_vec(input, &mut step, FlushDecompress::None)
            .map_err(|_| BodyFault::Gzip)?;
        let read = usize::try_from(self.state.total_in() - before).map_err(|_| BodyFault::Gzip)?;
        self.packed.advance(read);
        self.plain.extend_from_slice(&step);
        if self.plain.len() > self.limit {
            return Err(BodyFault::InflatedTooBig);
        }
        match status {
            Status::StreamEnd if self.packed.is_empty() => Ok(Some(std::mem::take(&mut self.plain).into())),
            Status::StreamEnd => Err(BodyFault::Gzip),
            // No progress with room to write: the input ends too early.
            _ if read == 0 && step.is_empty() => Err(BodyFault::Gzip),
            _ => Ok(None),
        }
    }

    /// Bytes inflated so far.
    pub fn plain_bytes(&self) -> usize {
        self.plain.len()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use flate2::Compression;
    use flate2::write::GzEncoder;

    fn pack(plain: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::new(6));
        encoder.write_all(plain).unwrap();
        encoder.finish().unwrap()
    }

    /// The outcome, and in how many steps.
    fn unpack(packed: &[u8], limit: usize) -> (Result<Bytes, BodyFault>, usize) {
        let mut gunzip = Gunzip::new(Bytes::copy_from_slice(packed), limit);
        for steps in 1.. {
            let before = gunzip.plain_bytes();
            let outcome = gunzip.step();
            assert!(gunzip.plain_bytes() <= before + GUNZIP_STEP_BYTES);
            match outcome {
                Ok(None) => {}
                Ok(Some(plain)) => return (Ok(plain), steps),
                Err(fault) => return (Err(fault), steps),
            }
        }
        unreachable!()
    }

    #[test]
    fn what_was_packed_comes_back() {
        let noise: Vec<u8> =
            (0..300_000u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
        for plain in [&b""[..], b"x", &[7; 1_000_000], &noise] {
            let (outcome, _) = unpack(&pack(plain), plain.len());
            assert_eq!(outcome.as_deref(), Ok(plain));
        }
    }

    #[test]
    fn a_bomb_stops_one_step_behind_the_limit_and_many_steps_before_the_end() {
        let bomb = pack(&vec![0; 32 * 1024 * 1024]);
        assert!(bomb.len() < 64 * 1024, "{}", bomb.len());
        let limit = 1024 * 1024;
        let (outcome, steps) = unpack(&bomb, limit);
        assert_eq!(outcome, Err(BodyFault::InflatedTooBig));
        assert_eq!(steps, limit / GUNZIP_STEP_BYTES + 1);
    }

    #[test]
    fn empty_blocks_without_end_take_a_step_for_each_piece_of_input() {
        let mut packed = b"\x1f\x8b\x08\0\0\0\0\0\0\xff".to_vec();
        packed.extend(b"\0\0\0\xff\xff".repeat(200_000));
        let (outcome, steps) = unpack(&packed, 10);
        assert_eq!(outcome, Err(BodyFault::Gzip), "it never ends");
        assert!(steps >= packed.len() / GUNZIP_STEP_BYTES, "{steps}");
    }

    #[test]
    fn what_is_not_one_member_is_refused() {
        let packed = pack(b"hello");
        let mut wrong_sum = packed.clone();
        wrong_sum[packed.len() - 6] ^= 1;
        let table: [(&str, Vec<u8>); 6] = [
            ("nothing", Vec::new()),
            ("garbage", b"hello, this is no gzip".to_vec()),
            ("cut", packed[..packed.len() - 1].to_vec()),
            ("bytes behind it", [&packed[..], b"x"].concat()),
            ("two members", packed.repeat(2)),
            ("wrong checksum", wrong_sum),
        ];
        for (what, packed) in table {
            assert_eq!(unpack(&packed, 100).0, Err(BodyFault::Gzip), "{what}");
        }
    }
}
