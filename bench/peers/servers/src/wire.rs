//! The least of RFC 6455 that the bounds need: a handshake, frames in, frames out.
//!
//! Not here: sockets. What always holds: a [`Wire`] owns memory only while a head or frame is incomplete, and what it
//! gives out are whole frames of a server. Fragments and frames above [`FRAME_BYTES_MAX`] end the connection: no load
//! of ours sends them.

use base64::Engine as _;
use sha1::Digest as _;

use crate::{BROADCAST, ECHO};

/// The largest frame or request head that is taken.
pub const FRAME_BYTES_MAX: usize = 64 * 1024;
/// RFC 6455 section 1.3.
const ACCEPT_SALT: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

/// Who gets what came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum To {
    /// The connection that the bytes came from.
    Sender,
    /// All others that are past their handshake.
    Others,
}

/// The connection is over: a close frame, or something that this server does not speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended;

/// One connection's state between two reads.
#[derive(Debug, Default)]
pub struct Wire {
    open: bool,
    tail: Vec<u8>,
}

impl Wire {
    /// Whether the handshake is done.
    pub fn is_open(&self) -> bool {
        self.open
    }

    /// Takes received bytes and gives what is to be sent: an answer to the handshake, or one whole frame, each time.
    ///
    /// # Errors
    /// [`Ended`]: the caller sends what was given out so far, if it likes, and closes the socket.
    pub fn feed(&mut self, received: &mut [u8], mut give: impl FnMut(To, &[u8])) -> Result<(), Ended> {
        if self.tail.is_empty() {
            let used = self.take(received, &mut give)?;
            self.tail.extend_from_slice(&received[used..]);
        } else {
            let mut whole = std::mem::take(&mut self.tail);
            whole.extend_from_slice(received);
            let used = self.take(&mut whole, &mut give)?;
            if used < whole.len() {
                whole.drain(..used);
                self.tail = whole;
            }
        }
        if self.tail.len() > FRAME_BYTES_MAX { Err(Ended) } else { Ok(()) }
    }

    /// Returns how many bytes are done with.
    fn take(&mut self, bytes: &mut [u8], give: &mut impl FnMut(To, &[u8])) -> Result<usize, Ended> {
        let mut at = 0;
        if !self.open {
            let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else { return Ok(0) };
            at = end + 4;
            give(To::Sender, &switching_protocols(&bytes[..at]).ok_or(Ended)?);
            self.open = true;
        }
        let mut out = Vec::new();
        while let Some(frame) = Frame::parse(&mut bytes[at..])? {
            at += frame.len;
            let to = match (frame.opcode, frame.payload.first()) {
                (CLOSE, _) => return Err(Ended),
                (PING, _) => To::Sender,
                (PONG, _) => continue,
                (_, Some(&ECHO)) => To::Sender,
                (_, Some(&BROADCAST)) => To::Others,
                _ => continue,
            };
            let opcode = if frame.opcode == PING { PONG } else { frame.opcode };
            out.clear();
            write_frame(opcode, frame.payload, &mut out);
            give(to, &out);
        }
        Ok(at)
    }
}

struct Frame<'a> {
    opcode: u8,
    payload: &'a [u8],
    len: usize,
}

impl<'a> Frame<'a> {
    /// Unmasks in place. `None`: not all of it is there.
    fn parse(bytes: &'a mut [u8]) -> Result<Option<Self>, Ended> {
        let [first, second, ..] = *bytes else { return Ok(None) };
        if first & 0xf0 != 0x80 || second & 0x80 == 0 {
            return Err(Ended); // a fragment, an extension, or a frame without a mask
        }
        let (head, payload) = match (second & 0x7f, bytes.get(2..4)) {
            (127, _) => return Err(Ended),
            (126, Some(&[high, low])) => (4, usize::from(u16::from_be_bytes([high, low]))),
            (126, _) => return Ok(None),
            (short, _) => (2, usize::from(short)),
        };
        let len = head + 4 + payload;
        let Some(frame) = bytes.get_mut(..len) else { return Ok(None) };
        let (mask, payload) = frame[head..].split_at_mut(4);
        payload.iter_mut().zip(mask.iter().cycle()).for_each(|(byte, mask)| *byte ^= mask);
        Ok(Some(Self { opcode: first & 0x0f, payload, len }))
    }
}

/// Appends one unmasked frame.
fn write_frame(opcode: u8, payload: &[u8], out: &mut Vec<u8>) {
    out.push(0x80 | opcode);
    match u8::try_from(payload.len()) {
        Ok(short) if short < 126 => out.push(short),
        _ => {
            let len = u16::try_from(payload.len()).expect("a frame came in with 16 bits of length");
            out.push(126);
            out.extend_from_slice(&len.to_be_bytes());
        }
    }
    out.extend_from_slice(payload);
}

/// The answer to a request head, if it has a key.
fn switching_protocols(head: &[u8]) -> Option<Vec<u8>> {
    const NAME: &[u8] = b"sec-websocket-key:";
    let line = head
        .split(|&byte| byte == b'\n')
        .find(|line| line.get(..NAME.len()).is_some_and(|name| name.eq_ignore_ascii_case(NAME)))?;
    let accept = sha1::Sha1::new().chain_update(line[NAME.len()..].trim_ascii()).chain_update(ACCEPT_SALT);
    let accept = base64::engine::general_purpose::STANDARD.encode(accept.finalize());
    Some(
        format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: {accept}\r\n\r\n"
        )
        .into_bytes(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\nsec-websocket-KEY: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

    fn masked(opcode: u8, payload: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        write_frame(opcode, payload, &mut out);
        let head = out.len() - payload.len();
        out[1] |= 0x80;
        let mask = [1, 2, 3, 4];
        out.iter_mut().skip(head).zip(mask.iter().cycle()).for_each(|(byte, mask)| *byte ^= mask);
        out.splice(head..head, mask);
        out
    }

    #[test]
    fn any_split_gives_the_same_frames() {
        let long = [b"E".as_slice(), &[7; 300]].concat();
        let mut stream = HEAD.to_vec();
        for (opcode, payload) in [(1, b"Bab".as_slice()), (2, &long), (PING, b"p"), (1, b"zzz")] {
            stream.extend(masked(opcode, payload));
        }
        for step in [1, 3, 7, 128, stream.len()] {
            let (mut wire, mut got) = (Wire::default(), Vec::new());
            for part in stream.clone().chunks_mut(step) {
                wire.feed(part, |to, bytes| got.push((to, bytes.to_vec()))).unwrap();
            }
            assert!(
                got[0].1.windows(28).any(|w| w == b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="),
                "RFC 6455's own example"
            );
            let rest = [
                (To::Others, b"\x81\x03Bab".to_vec()),
                (To::Sender, [b"\x82\x7e\x01\x2d".as_slice(), &long].concat()),
                (To::Sender, b"\x8a\x01p".to_vec()),
            ];
            assert_eq!(got[1..], rest, "step {step}");
            assert!(wire.tail.is_empty() && wire.is_open());
        }
    }

    #[test]
    fn what_it_does_not_speak_ends_the_connection() {
        let endings = [masked(CLOSE, b""), b"\x81\x01E".to_vec(), b"\x01\x81".to_vec(), b"\x82\xff".to_vec()];
        for ending in endings {
            let mut wire = Wire { open: true, tail: Vec::new() };
            assert_eq!(wire.feed(&mut ending.clone(), |_, _| panic!("{ending:?}")), Err(Ended));
        }
        let mut wire = Wire::default();
        assert_eq!(wire.feed(&mut b"GET / HTTP/1.1\r\n\r\n".to_vec(), |_, _| {}), Err(Ended));
        assert_eq!(Wire::default().feed(&mut vec![b'x'; FRAME_BYTES_MAX + 1], |_, _| {}), Err(Ended));
    }
}
