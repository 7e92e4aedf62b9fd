//! Gzip members (RFC 1952) around envelopes: one per frame out, one or more in (spec 2.4).
//!
//! The deflate and inflate states are made once and reused: to make one costs more than to compress a small message.

use flate2::{Compress, Compression, Crc, Decompress, FlushCompress, FlushDecompress, Status};

use super::EnvelopeFault;
use crate::limits;

/// Magic, deflate, no flags, no time, no XFL, unknown OS: what Go writes.
pub(super) const HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];
/// Largest stored block (RFC 1951 section 3.2.4).
const STORED_BLOCK_BYTES: usize = 0xffff;
/// Room made at a time for output.
const STEP_BYTES: usize = 4096;

// Flags of a header (RFC 1952 section 2.3.1).
const FHCRC: u8 = 2;
const FEXTRA: u8 = 4;
const FNAME: u8 = 8;
const FCOMMENT: u8 = 16;

/// The reused states.
#[derive(Debug, Default)]
pub(super) struct Gzip {
    deflate: Option<Compress>,
    inflate: Option<Decompress>,
}

impl Gzip {
    /// Appends `plain` as one member.
    pub(super) fn pack(&mut self, plain: &[u8], out: &mut Vec<u8>) {
        out.extend_from_slice(&HEADER);
        let body = out.len();
        if plain.len() <= limits::GZIP_STORED_BYTES || !self.deflate(plain, out) {
            out.truncate(body);
            store(plain, out);
        }
        out.extend_from_slice(&checksum(plain));
    }

    /// False: the compressor failed. (It has no reason to; what it wrote is then replaced.)
    fn deflate(&mut self, plain: &[u8], out: &mut Vec<u8>) -> bool {
        let level = Compression::new(1);
        let state = self.deflate.get_or_insert_with(|| Compress::new(level, false));
        state.reset();
        loop {
            out.reserve(STEP_BYTES + plain.len() / 4);
            let before = (state.total_in(), state.total_out());
            let rest =
                usize::try_from(state.total_in()).ok().and_then(|n| plain.get(n..)).unwrap_or_default();
            match state.compress_vec(rest, out, FlushCompress::Finish) {
                Ok(Status::StreamEnd) => return true,
                Ok(_) if (state.total_in(), state.total_out()) != before => {}
                _ => return false,
            }
        }
    }

    /// Appends what the members in `packed` hold, at most `bytes_max` bytes.
    pub(super) fn unpack(
        &mut self,
        packed: &[u8],
        bytes_max: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), EnvelopeFault> {
        let mut rest = packed;
        for _ in 0..limits::GZIP_MEMBERS_MAX {
            let body = skip_header(rest).ok_or(EnvelopeFault::Gzip)?;
            let start = out.len();
            let trailer = self.inflate(body, bytes_max, out)?;
            let (sum, after) = trailer.split_first_chunk::<8>().ok_or(EnvelopeFault::Gzip)?;
            if *sum != checksum(out.get(start..).unwrap_or_default()) {
                return Err(EnvelopeFault::Gzip);
            }
            if after.is_empty() {
                return Ok(());
            }
            rest = after;
        }
        Err(EnvelopeFault::Gzip)
    }

    /// Inflates one deflate stream; gives what follows it.
    fn inflate<'a>(
        &mut self,
        packed: &'a [u8],
        bytes_max: usize,
        out: &mut Vec<u8>,
    ) -> Result<&'a [u8], EnvelopeFault> {
        let state = self.inflate.get_or_insert_with(|| Decompress::new(false));
        state.reset(false);
        loop {
            // Doubles up to the limit, so that a bomb stops close behind it.
            out.reserve_exact(out.len().max(STEP_BYTES).min(bytes_max.saturating_sub(out.len()) + 1));
            let before = (state.total_in(), state.total_out());
            let rest = after_input(state, packed);
            let status =
                state.decompress_vec(rest, out, FlushDecompress::None).map_err(|_| EnvelopeFault::Gzip)?;
            if out.len() > bytes_max {
                return Err(EnvelopeFault::InflatedTooBig);
            }
            if status == Status::StreamEnd {
                return Ok(after_input(state, packed));
            }
            if (state.total_in(), state.total_out()) == before {
                return Err(EnvelopeFault::Gzip); // no progress with room to write: the input ends too early
            }
        }
    }
}

fn after_input<'a>(state: &Decompress, packed: &'a [u8]) -> &'a [u8] {
    usize::try_from(state.total_in()).ok().and_then(|n| packed.get(n..)).unwrap_or_default()
}

/// CRC-32 and length, as the trailer has them.
fn checksum(plain: &[u8]) -> [u8; 8] {
    let mut crc = Crc::new();
    crc.update(plain);
    let [a, b, c, d] = crc.sum().to_le_bytes();
    let [e, f, g, h] = crc.amount().to_le_bytes();
    [a, b, c, d, e, f, g, h]
}

/// Appends stored blocks.
fn store(plain: &[u8], out: &mut Vec<u8>) {
    let mut rest = plain;
    loop {
        let (block, after) = rest.split_at_checked(STORED_BLOCK_BYTES).unwrap_or((rest, &[]));
        let length = u16::try_from(block.len()).unwrap_or(u16::MAX); // cut to that above
        out.push(u8::from(after.is_empty())); // BFINAL, BTYPE 00
        out.extend_from_slice(&length.to_le_bytes());
        out.extend_from_slice(&(!length).to_le_bytes());
        out.extend_from_slice(block);
        if after.is_empty() {
            return;
        }
        rest = after;
    }
}

/// What follows a member's header; `None` if it is none.
fn skip_header(packed: &[u8]) -> Option<&[u8]> {
    let (&[0x1f, 0x8b, 8, flags, ..], mut rest) = packed.split_first_chunk::<10>()? else {
        return None;
    };
    if flags & FEXTRA != 0 {
        let (length, after) = rest.split_first_chunk::<2>()?;
        rest = after.get(usize::from(u16::from_le_bytes(*length))..)?;
    }
    for flag in [FNAME, FCOMMENT] {
        if flags & flag != 0 {
            let end = memchr::memchr(0, rest)?;
            rest = rest.get(end + 1..)?;
        }
    }
    if flags & FHCRC != 0 {
        let mut crc = Crc::new();
        crc.update(packed.get(..packed.len() - rest.len())?);
        let [low, high, ..] = crc.sum().to_le_bytes();
        let (sum, after) = rest.split_first_chunk::<2>()?;
        if *sum != [low, high] {
            return None;
        }
        rest = after;
    }
    Some(rest)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use flate2::GzBuilder;
    use proptest::prelude::*;

    use super::*;

    fn pack(plain: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        Gzip::default().pack(plain, &mut out);
        out
    }

    fn unpack(packed: &[u8], bytes_max: usize) -> Result<Vec<u8>, EnvelopeFault> {
        let mut out = Vec::new();
        Gzip::default().unpack(packed, bytes_max, &mut out).map(|()| out)
    }

    fn samples() -> Vec<Vec<u8>> {
        let mut random = fastrand::Rng::with_seed(7);
        let mut samples = vec![vec![], vec![1], vec![b'a'; 1024], vec![b'a'; 1025], vec![0; 300_000]];
        samples.extend([300, 70_000, 300_000].map(|n| (0..n).map(|_| random.u8(..)).collect()));
        samples
    }

    #[test]
    fn members_are_read_by_others_and_back() {
        let mut reused = Gzip::default();
        for plain in samples() {
            let packed = pack(&plain);
            let mut other = Vec::new();
            flate2::read::GzDecoder::new(&packed[..]).read_to_end(&mut other).unwrap();
            assert!(other == plain);
            assert!(unpack(&packed, plain.len()).unwrap() == plain);
            let mut again = Vec::new();
            reused.pack(&plain, &mut again);
            assert!(again == packed, "a reused state gives the same bytes as a fresh one");
            let mut back = Vec::new();
            reused.unpack(&again, plain.len(), &mut back).unwrap();
            assert!(back == plain);
        }
    }

    #[test]
    fn stored_blocks_hold_what_does_not_fit_one() {
        for len in [0, 1, 0xffff, 0x1_0000, 0x2_0001] {
            let plain = vec![3; len];
            let mut packed = HEADER.to_vec();
            store(&plain, &mut packed);
            packed.extend_from_slice(&checksum(&plain));
            assert!(unpack(&packed, len).unwrap() == plain, "{len}");
        }
    }

    #[test]
    fn the_limit_is_exact_and_stops_a_bomb() {
        let bomb = pack(&vec![0; 400_000]);
        let mut out = Vec::new();
        let fault = Gzip::default().unpack(&bomb, 100_000, &mut out);
        assert_eq!(fault, Err(EnvelopeFault::InflatedTooBig));
        assert!(out.capacity() <= 100_001, "{}", out.capacity());
        assert!(unpack(&pack(&[0; 1000]), 1000).is_ok());
        assert_eq!(unpack(&pack(&[0; 1001]), 1000), Err(EnvelopeFault::InflatedTooBig));
        let two = [pack(&[0; 600]), pack(&[0; 600])].concat();
        assert_eq!(unpack(&two, 1000), Err(EnvelopeFault::InflatedTooBig), "counted over all members");
    }

    #[test]
    fn members_may_follow_each_other_up_to_a_limit() {
        let two = [pack(b"ab"), pack(&[b'c'; 500])].concat();
        assert_eq!(unpack(&two, 1000).unwrap().len(), 502);
        assert!(unpack(&pack(b"").repeat(limits::GZIP_MEMBERS_MAX), 0).is_ok());
        assert_eq!(unpack(&pack(b"").repeat(limits::GZIP_MEMBERS_MAX + 1), 0), Err(EnvelopeFault::Gzip));
    }

    #[test]
    fn optional_header_fields_are_skipped() {
        let mut writer = GzBuilder::new()
            .filename("name")
            .comment("comment")
            .extra(vec![1, 2, 3])
            .mtime(99)
            .write(Vec::new(), Compression::fast());
        writer.write_all(b"hello").unwrap();
        let mut packed = writer.finish().unwrap();
        assert_eq!(unpack(&packed, 5).unwrap(), b"hello");

        // With FHCRC: the same header, flagged and summed.
        packed[3] |= FHCRC;
        let header_bytes = 10 + 2 + 3 + b"name\0comment\0".len();
        let mut crc = Crc::new();
        crc.update(&packed[..header_bytes]);
        let sum = crc.sum().to_le_bytes();
        packed.splice(header_bytes..header_bytes, [sum[0], sum[1]]);
        assert_eq!(unpack(&packed, 5).unwrap(), b"hello");
        packed[header_bytes] ^= 1;
        assert_eq!(unpack(&packed, 5), Err(EnvelopeFault::Gzip));
    }

    #[test]
    fn anything_but_whole_members_is_a_fault() {
        let good = pack(&[b'x'; 500]);
        for cut in 0..good.len() {
            assert_eq!(unpack(&good[..cut], 1000), Err(EnvelopeFault::Gzip), "cut {cut}");
        }
        for at in [0, 1, 2, good.len() - 8, good.len() - 1] {
            let mut bad = good.clone();
            bad[at] ^= 0x40;
            assert_eq!(unpack(&bad, 1000), Err(EnvelopeFault::Gzip), "byte {at}");
        }
        assert_eq!(unpack(&[&good[..], b"x"].concat(), 1000), Err(EnvelopeFault::Gzip), "trailing garbage");
    }

    proptest! {
        #[test]
        fn random_bodies_never_panic(body in prop::collection::vec(any::<u8>(), 0..300)) {
            let packed = [&HEADER[..], &body].concat();
            if let Ok(plain) = unpack(&packed, 1000) {
                prop_assert!(plain.len() <= 1000);
            }
        }
    }
}
