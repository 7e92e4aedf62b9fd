//! The heads of HTTP/2 frames in a byte stream, wherever it is cut (RFC 9113 section 4.1).
//!
//! For whoever wants to know what a peer sends without taking part: nothing is decoded, checked or kept. What always
//! holds: the same bytes give the same heads however they are split, and the walker's size does not depend on them.

/// "PRI * HTTP/2.0", the first bytes of a client (RFC 9113 section 3.4).
pub const PREFACE_BYTES: u32 = 24;
/// Length, type, flags and stream id.
pub const HEAD_BYTES: usize = 9;

/// Types of frames that somebody here asks about (RFC 9113 section 6).
pub mod kind {
    /// Bytes of a body.
    pub const DATA: u8 = 0;
    /// Opens a stream, or ends it with trailers.
    pub const HEADERS: u8 = 1;
    /// The peer gives up a stream.
    pub const RST_STREAM: u8 = 3;
}

/// Flags of DATA frames (RFC 9113 section 6.1).
pub mod flag {
    /// The last frame of its stream.
    pub const END_STREAM: u8 = 0x1;
    /// Part of the payload is padding.
    pub const PADDED: u8 = 0x8;
}

/// What the head of a frame says, but for its stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHead {
    /// See [`kind`].
    pub kind: u8,
    /// See [`flag`].
    pub flags: u8,
    /// Bytes that follow the head, below 2^24.
    pub payload_bytes: u32,
}

/// Where a stream of bytes stands between its frames.
#[derive(Debug)]
pub struct Walker {
    /// Bytes until the next head: of the preface or of a payload.
    skip: u32,
    head: [u8; HEAD_BYTES],
    have: usize,
}

impl Walker {
    /// At the start of what a client sends.
    pub fn before_preface() -> Self {
        Self { skip: PREFACE_BYTES, head: [0; HEAD_BYTES], have: 0 }
    }

    /// At the start of what a server sends: it has no preface but its SETTINGS.
    pub fn before_frames() -> Self {
        Self { skip: 0, head: [0; HEAD_BYTES], have: 0 }
    }

    /// Walks over bytes; `seen` gets each head that is complete with them.
    pub fn walk(&mut self, mut bytes: &[u8], mut seen: impl FnMut(FrameHead)) {
        while !bytes.is_empty() {
            let skipped = usize::try_from(self.skip).unwrap_or(usize::MAX).min(bytes.len());
            self.skip -= u32::try_from(skipped).unwrap_or(self.skip);
            bytes = bytes.get(skipped..).unwrap_or_default();
            let (part, rest) = bytes.split_at(bytes.len().min(HEAD_BYTES - self.have));
            for (slot, byte) in self.head.iter_mut().skip(self.have).zip(part) {
                *slot = *byte;
            }
            self.have += part.len();
            bytes = rest;
            if self.have == HEAD_BYTES {
                let [high, middle, low, kind, flags, ..] = self.head;
                self.skip = u32::from_be_bytes([0, high, middle, low]);
                self.have = 0;
                seen(FrameHead { kind, flags, payload_bytes: self.skip });
            }
        }
    }

    /// Bytes that can follow before the next head begins.
    pub fn bytes_to_head(&self) -> usize {
        usize::try_from(self.skip).unwrap_or(usize::MAX)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn heads(walker: &mut Walker, bytes: &[u8]) -> Vec<FrameHead> {
        let mut heads = Vec::new();
        walker.walk(bytes, |head| heads.push(head));
        heads
    }

    /// Preface and frames, as a client sends them.
    fn stream(frames: &[(u8, u8, u16)]) -> Vec<u8> {
        let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        for (kind, flags, length) in frames {
            bytes.extend([0]);
            bytes.extend(length.to_be_bytes());
            bytes.extend([*kind, *flags, 0, 0, 0, 1]);
            bytes.extend(std::iter::repeat_n(0xff, usize::from(*length)));
        }
        bytes
    }

    #[test]
    fn a_head_is_seen_when_its_last_byte_is_there() {
        let bytes = stream(&[(4, 0, 0), (0, 1, 3)]);
        let mut walker = Walker::before_preface();
        assert_eq!(heads(&mut walker, &bytes[..32]), []);
        assert_eq!(walker.bytes_to_head(), 0, "inside a head");
        assert_eq!(heads(&mut walker, &bytes[32..33]), [FrameHead { kind: 4, flags: 0, payload_bytes: 0 }]);
        assert_eq!(heads(&mut walker, &bytes[33..42]), [FrameHead { kind: 0, flags: 1, payload_bytes: 3 }]);
        assert_eq!(walker.bytes_to_head(), 3);
    }

    #[test]
    fn a_server_begins_with_a_frame() {
        let settings = FrameHead { kind: 4, flags: 0, payload_bytes: 0 };
        assert_eq!(heads(&mut Walker::before_frames(), &stream(&[(4, 0, 0)])[24..]), [settings]);
    }

    #[test]
    fn the_longest_frame_is_passed_over_whole() {
        let mut walker = Walker::before_preface();
        let mut bytes = stream(&[]);
        bytes.extend([0xff, 0xff, 0xff, 0xbb, 0, 0, 0, 0, 0]);
        let seen = heads(&mut walker, &bytes);
        assert_eq!(seen, [FrameHead { kind: 0xbb, flags: 0, payload_bytes: 0xff_ffff }]);
        assert_eq!(heads(&mut walker, &vec![0; 0xff_ffff]), []);
        assert_eq!(heads(&mut walker, &[0; HEAD_BYTES]).len(), 1);
    }

    proptest! {
        #[test]
        fn any_split_gives_the_same_heads(
            frames in prop::collection::vec((any::<u8>(), any::<u8>(), 0u16..60), 0..30),
            cuts in prop::collection::vec(1usize..40, 1..40),
        ) {
            let bytes = stream(&frames);
            let expected: Vec<FrameHead> = frames
                .iter()
                .map(|&(kind, flags, length)| FrameHead { kind, flags, payload_bytes: length.into() })
                .collect();
            prop_assert_eq!(&heads(&mut Walker::before_preface(), &bytes), &expected);
            let (mut walker, mut rest, mut seen) = (Walker::before_preface(), bytes.as_slice(), Vec::new());
            for cut in cuts.iter().cycle() {
                let (piece, after) = rest.split_at((*cut).min(rest.len()));
                seen.extend(heads(&mut walker, piece));
                rest = after;
                if rest.is_empty() {
                    break;
                }
            }
            prop_assert_eq!(seen, expected);
        }

        #[test]
        fn no_input_stops_the_walker(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            heads(&mut Walker::before_preface(), &bytes);
        }
    }
}
