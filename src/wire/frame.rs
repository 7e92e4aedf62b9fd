//! One WebSocket frame (RFC 6455 section 5.2): how it is written, and how a header is read.
//!
//! Not here: joining fragments, limits and the rules between frames (`message`), masking (`mask`).

use std::rc::Rc;

use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::mask;

/// A complete frame as the gateway sends it: header and payload, unmasked, unfragmented. Cloning counts a
/// reference without an atomic; one frame serves all its recipients on a shard.
#[derive(Clone, Debug)]
pub struct Frame(Room);

/// Where the bytes are.
#[derive(Clone, Debug)]
enum Room {
    /// Of this thread.
    Own(Rc<[u8]>),
    /// Of several threads: their count of references is touched once here, however often the frame is cloned.
    Shared(Rc<Bytes>),
}

/// RFC 6455 section 5.2 opcodes that the gateway sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Opcode {
    /// 1: a UTF-8 message.
    Text,
    /// 2: a message of bytes.
    Binary,
    /// 8: the end.
    Close,
    /// 9: asks for a pong.
    Ping,
    /// 10: answers a ping.
    Pong,
}

/// FIN: the gateway never fragments.
const FIN: u8 = 0x80;
/// Set in the second byte of a masked frame.
const MASKED: u8 = 0x80;
/// Payload of a control frame at most (RFC 6455 section 5.5).
pub(super) const CONTROL_BYTES_MAX: u64 = 125;
/// Reason of a close frame at most: what 125 bytes leave beside the code.
const CLOSE_REASON_BYTES_MAX: usize = 123;

impl Opcode {
    fn bits(self) -> u8 {
        match self {
            Self::Text => 1,
            Self::Binary => 2,
            Self::Close => 8,
            Self::Ping => 9,
            Self::Pong => 10,
        }
    }
}

impl Frame {
    /// Builds a frame around a payload. The payload of a control frame has at most 125 bytes.
    pub fn new(opcode: Opcode, payload: &[u8]) -> Self {
        let length = LengthBytes::new(payload.len());
        let first = [FIN | opcode.bits(), length.short];
        let parts: [&[u8]; 3] = [&first, length.extended(), payload];
        // Filled in place: collecting a Vec first would copy the payload twice.
        let mut bytes: Rc<[u8]> = std::iter::repeat_n(0, parts.iter().map(|part| part.len()).sum()).collect();
        if let Some(mut rest) = Rc::get_mut(&mut bytes) {
            for part in parts {
                let Some((target, after)) = rest.split_at_mut_checked(part.len()) else {
                    break;
                };
                target.copy_from_slice(part);
                rest = after;
            }
        }
        Self(Room::Own(bytes))
    }

    /// A frame that another thread built for all shards ([`Frame::to_shared`]).
    pub fn shared(bytes: Bytes) -> Self {
        Self(Room::Shared(Rc::new(bytes)))
    }

    /// The bytes of a frame around a payload, for [`Frame::shared`].
    pub fn to_shared(opcode: Opcode, payload: &[u8]) -> Bytes {
        let length = LengthBytes::new(payload.len());
        [&[FIN | opcode.bits(), length.short], length.extended(), payload].concat().into()
    }

    /// A close frame; `None` = without code (RFC 6455 section 5.5.1), and then without reason. `reason` is cut to 123
    /// bytes at a character boundary.
    pub fn close(code: Option<u16>, reason: &str) -> Self {
        let Some(code) = code else {
            return Self::new(Opcode::Close, &[]);
        };
        let cut = reason.floor_char_boundary(CLOSE_REASON_BYTES_MAX);
        let mut payload = code.to_be_bytes().to_vec();
        payload.extend_from_slice(reason.get(..cut).unwrap_or_default().as_bytes());
        Self::new(Opcode::Close, &payload)
    }

    /// Bytes that are not a WebSocket frame (an HTTP response), so that they can wait in the same outbox.
    pub fn raw(bytes: &[u8]) -> Self {
        Self(Room::Own(Rc::from(bytes)))
    }

    /// Header and payload.
    pub fn bytes(&self) -> &[u8] {
        match &self.0 {
            Room::Own(bytes) => bytes,
            Room::Shared(bytes) => bytes,
        }
    }
}

impl PartialEq for Frame {
    fn eq(&self, other: &Self) -> bool {
        self.bytes() == other.bytes()
    }
}

impl Eq for Frame {}

impl Serialize for Frame {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.bytes().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Frame {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self(Room::Own(Rc::deserialize(deserializer)?)))
    }
}

/// Client side (`pinion listen`, tests): a masked frame.
pub fn masked(opcode: Opcode, payload: &[u8], key: [u8; 4]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(payload.len() + 14);
    write_masked(&mut frame, opcode, payload, key);
    frame
}

/// As [`masked`], appended to `out`.
pub fn write_masked(out: &mut Vec<u8>, opcode: Opcode, payload: &[u8], key: [u8; 4]) {
    let length = LengthBytes::new(payload.len());
    out.extend_from_slice(&[FIN | opcode.bits(), MASKED | length.short]);
    out.extend_from_slice(length.extended());
    out.extend_from_slice(&key);
    let start = out.len();
    out.extend_from_slice(payload);
    mask::apply(key, 0, out.get_mut(start..).unwrap_or_default());
}

/// The payload length in its shortest form (RFC 6455 section 5.2).
struct LengthBytes {
    /// The 7-bit field: the length itself, 126 or 127.
    short: u8,
    long: [u8; 8],
}

impl LengthBytes {
    fn new(length: usize) -> Self {
        // usize has at most 64 bits on every target that Rust knows.
        let long = u64::try_from(length).unwrap_or(u64::MAX).to_be_bytes();
        let [.., lowest] = long;
        let short = match length {
            0..=125 => lowest,
            126..=0xffff => 126,
            _ => 127,
        };
        Self { short, long }
    }

    fn extended(&self) -> &[u8] {
        let [.., two] = self.long.as_chunks::<2>().0 else {
            return &[];
        };
        match self.short {
            126 => two,
            127 => &self.long,
            _ => &[],
        }
    }
}

/// What a received frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Kind {
    /// More of the message that an earlier frame began.
    Continuation,
    Text,
    Binary,
    Close,
    Ping,
    Pong,
}

impl Kind {
    pub(super) fn is_control(self) -> bool {
        matches!(self, Self::Close | Self::Ping | Self::Pong)
    }
}

/// A received frame header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Header {
    pub(super) kind: Kind,
    pub(super) fin: bool,
    pub(super) key: Option<[u8; 4]>,
    pub(super) payload_bytes: u64,
}

/// Reads a header. `Ok(None)`: more bytes are needed. `Ok(Some((header, n)))`: it took the first `n` bytes.
///
/// A length in a longer form than needed is accepted, as upstream's library does.
///
/// # Errors
/// The RFC rule that the frame breaks, in words for the close frame.
pub(super) fn parse_header(bytes: &[u8]) -> Result<Option<(Header, usize)>, &'static str> {
    let &[first, second, ref rest @ ..] = bytes else {
        return Ok(None);
    };
    let (fin, masked, short) = (first & FIN != 0, second & MASKED != 0, second & !MASKED);
    if first & 0x70 != 0 {
        return Err("RSV bits set"); // no extension is ever negotiated
    }
    let kind = match first & 0x0f {
        0 => Kind::Continuation,
        1 => Kind::Text,
        2 => Kind::Binary,
        8 => Kind::Close,
        9 => Kind::Ping,
        10 => Kind::Pong,
        _ => return Err("bad opcode"),
    };
    if kind.is_control() && !fin {
        return Err("fragmented control frame");
    }
    if kind.is_control() && u64::from(short) > CONTROL_BYTES_MAX {
        return Err("control frame above 125 bytes");
    }
    let (payload_bytes, rest) = match short {
        126 => match rest.split_first_chunk() {
            Some((length, rest)) => (u64::from(u16::from_be_bytes(*length)), rest),
            None => return Ok(None),
        },
        127 => match rest.split_first_chunk() {
            Some((length, rest)) => (u64::from_be_bytes(*length), rest),
            None => return Ok(None),
        },
        _ => (u64::from(short), rest),
    };
    if payload_bytes >> 63 != 0 {
        return Err("payload length above 63 bits");
    }
    let (key, rest) = match (masked, rest.split_first_chunk()) {
        (false, _) => (None, rest),
        (true, Some((key, rest))) => (Some(*key), rest),
        (true, None) => return Ok(None),
    };
    let header = Header { kind, fin, key, payload_bytes };
    Ok(Some((header, bytes.len() - rest.len())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shared_frame_is_the_same_frame_and_costs_an_outbox_no_more() {
        for payload in [&b""[..], &[7; 126], &[7; 0x1_0000]] {
            let (own, shared) =
                (Frame::new(Opcode::Binary, payload), Frame::to_shared(Opcode::Binary, payload));
            let shared = Frame::shared(shared);
            assert_eq!(own, shared);
            let thawed: Frame = serde_json::from_str(&serde_json::to_string(&shared).unwrap()).unwrap();
            assert_eq!(thawed, own);
        }
        assert_eq!(size_of::<Frame>(), size_of::<Rc<[u8]>>());
    }

    #[test]
    fn lengths_have_their_shortest_form() {
        for (len, head) in [
            (0, &[0x82, 0][..]),
            (125, &[0x82, 125]),
            (126, &[0x82, 126, 0, 126]),
            (0xffff, &[0x82, 126, 0xff, 0xff]),
            (0x1_0000, &[0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0]),
        ] {
            let payload = vec![7; len];
            let frame = Frame::new(Opcode::Binary, &payload);
            let (got, body) = frame.bytes().split_at(head.len());
            assert_eq!((got, body), (head, &payload[..]));
            let (header, n) = parse_header(frame.bytes()).unwrap().unwrap();
            assert_eq!((n, header.payload_bytes), (head.len(), len as u64));
            assert_eq!((header.kind, header.fin, header.key), (Kind::Binary, true, None));
        }
    }

    #[test]
    fn frames_carry_their_opcode() {
        for (opcode, first) in [
            (Opcode::Text, 0x81),
            (Opcode::Binary, 0x82),
            (Opcode::Close, 0x88),
            (Opcode::Ping, 0x89),
            (Opcode::Pong, 0x8a),
        ] {
            assert_eq!(Frame::new(opcode, b"").bytes(), [first, 0]);
            assert_eq!(masked(opcode, b"ab", [1, 2, 3, 4]), [first, 0x82, 1, 2, 3, 4, b'a' ^ 1, b'b' ^ 2]);
        }
    }

    #[test]
    fn close_frames_have_code_and_a_reason_that_fits() {
        assert_eq!(Frame::close(None, "ignored").bytes(), [0x88, 0]);
        assert_eq!(Frame::close(Some(1001), "bye").bytes(), [0x88, 5, 0x03, 0xe9, b'b', b'y', b'e']);
        let long = "é".repeat(100);
        let frame = Frame::close(Some(1000), &long);
        assert_eq!(frame.bytes()[1], 124); // 2 + 61 characters of 2 bytes: 123 would cut one in half
        assert!(std::str::from_utf8(&frame.bytes()[4..]).is_ok());
    }

    #[test]
    fn bad_headers_are_refused_as_soon_as_they_show() {
        for (bytes, words) in [
            (&[0xc2, 0x80][..], "RSV bits set"),
            (&[0xa2, 0x80], "RSV bits set"),
            (&[0x92, 0x80], "RSV bits set"),
            (&[0x83, 0x80], "bad opcode"),
            (&[0x8b, 0x80], "bad opcode"),
            (&[0x09, 0x80], "fragmented control frame"),
            (&[0x89, 0xfe], "control frame above 125 bytes"),
            (&[0x88, 0xff], "control frame above 125 bytes"),
            (&[0x82, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0], "payload length above 63 bits"),
        ] {
            assert_eq!(parse_header(bytes), Err(words), "{bytes:02x?}");
        }
    }

    #[test]
    fn a_header_may_be_cut_anywhere() {
        for payload in [0, 126, 0x1_0000] {
            let whole = masked(Opcode::Binary, &vec![0; payload], [9, 8, 7, 6]);
            let header_bytes = whole.len() - payload;
            for cut in 0..header_bytes {
                assert_eq!(parse_header(&whole[..cut]), Ok(None), "{payload} bytes, cut {cut}");
            }
            let (header, n) = parse_header(&whole).unwrap().unwrap();
            assert_eq!((n, header.key), (header_bytes, Some([9, 8, 7, 6])));
        }
    }

    #[test]
    fn a_length_may_be_longer_than_needed() {
        let (header, n) = parse_header(&[0x82, 126, 0, 5]).unwrap().unwrap();
        assert_eq!((header.payload_bytes, n), (5, 4));
        let (header, n) = parse_header(&[0x82, 127, 0, 0, 0, 0, 0, 0, 0, 5]).unwrap().unwrap();
        assert_eq!((header.payload_bytes, n), (5, 10));
    }
}
