//! The client's own view of WebSocket frames, written from RFC 6455 and not from `wire`: what reads the gateway's bytes
//! must not share the gateway's mistakes.

use pinion::wire::mask;

/// A frame at the head of some bytes.
pub struct Found<'a> {
    pub opcode: u8,
    pub payload: &'a [u8],
    /// Header and payload.
    pub len: usize,
    /// FIN set, no RSV bit, not masked: all that a gateway may send.
    pub plain: bool,
}

/// The first frame of `bytes`; `None` while it is not complete.
pub fn next_frame(bytes: &[u8]) -> Option<Found<'_>> {
    let (first, second) = (*bytes.first()?, *bytes.get(1)?);
    let (start, length) = match second & 0x7f {
        126 => (4, u64::from(u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?))),
        127 => (10, u64::from_be_bytes(bytes.get(2..10)?.try_into().ok()?)),
        short => (2, u64::from(short)),
    };
    let len = start + usize::try_from(length).ok()?;
    Some(Found {
        opcode: first & 0x0f,
        payload: bytes.get(start..len)?,
        len,
        plain: first & 0xf0 == 0x80 && second & 0x80 == 0,
    })
}

/// A masked frame; `head` is its first byte.
pub fn masked_frame(head: u8, payload: &[u8], key: [u8; 4]) -> Vec<u8> {
    let mut bytes = vec![head];
    match payload.len() {
        n @ 0..=125 => bytes.push(0x80 | u8::try_from(n).expect("short")),
        n @ 126..=0xffff => {
            bytes.push(0xfe);
            bytes.extend(u16::try_from(n).expect("two bytes").to_be_bytes());
        }
        n => {
            bytes.push(0xff);
            bytes.extend((n as u64).to_be_bytes());
        }
    }
    bytes.extend(key);
    let from = bytes.len();
    bytes.extend(payload);
    mask::apply(key, 0, &mut bytes[from..]);
    bytes
}
