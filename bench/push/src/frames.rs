//! WebSocket frames from a server, cut out of a byte stream. Counts what is too large to keep.
//!
//! Not here: masks (a server sends none), fragments and the meaning of payloads. The bench is not a judge of frames:
//! that is what the tests are for; anything unexpected is an error.

/// Larger frames are counted without being kept: their payload is not shown.
const HELD_BYTES_MAX: usize = 64 * 1024;
/// Opcodes.
pub const TEXT: u8 = 1;
pub const BINARY: u8 = 2;
pub const CLOSE: u8 = 8;
pub const PING: u8 = 9;

/// What is left of the stream of one connection between two reads. Owns nothing while no frame is incomplete.
#[derive(Debug, Default)]
pub struct Frames {
    tail: Vec<u8>,
    /// Of a frame too large to keep: its opcode and the bytes still to come.
    rest: Option<(u8, usize)>,
}

impl Frames {
    /// Takes received bytes and gives each frame that is complete now, as opcode and payload (empty if it was too
    /// large to keep).
    pub fn feed(&mut self, bytes: &[u8], mut each: impl FnMut(u8, &[u8])) {
        if self.tail.is_empty() {
            let used = self.cut(bytes, &mut each);
            self.tail.extend_from_slice(&bytes[used..]);
        } else {
            let mut whole = std::mem::take(&mut self.tail);
            whole.extend_from_slice(bytes);
            let used = self.cut(&whole, &mut each);
            if used < whole.len() {
                whole.drain(..used);
                self.tail = whole;
            }
        }
    }

    /// Returns how many bytes are done with.
    fn cut(&mut self, bytes: &[u8], each: &mut impl FnMut(u8, &[u8])) -> usize {
        let mut at = 0;
        if let Some((opcode, left)) = self.rest {
            at = left.min(bytes.len());
            self.rest = (left > at).then_some((opcode, left - at));
            if self.rest.is_none() {
                each(opcode, &[]);
            }
        }
        while let Some((opcode, head, payload)) = head(&bytes[at..]) {
            let total = head + payload;
            if let Some(frame) = bytes.get(at..at + total) {
                each(opcode, &frame[head..]);
                at += total;
            } else if total > HELD_BYTES_MAX {
                self.rest = Some((opcode, total - (bytes.len() - at)));
                return bytes.len();
            } else {
                break;
            }
        }
        at
    }
}

/// Opcode, length of the head and length of the payload, if the head is complete.
fn head(bytes: &[u8]) -> Option<(u8, usize, usize)> {
    let opcode = bytes.first()? & 0x0f;
    let (head, payload) = match bytes.get(1)? & 0x7f {
        126 => (4, u64::from(u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?))),
        127 => (10, u64::from_be_bytes(bytes.get(2..10)?.try_into().ok()?)),
        short => (2, u64::from(short)),
    };
    Some((opcode, head, usize::try_from(payload).ok()?))
}

/// The head of an unmasked binary frame.
pub fn binary_head(payload: usize) -> Vec<u8> {
    let mut out = vec![0x80 | BINARY];
    match (u8::try_from(payload), u16::try_from(payload)) {
        (Ok(short), _) if short < 126 => out.push(short),
        (_, Ok(middle)) => {
            out.push(126);
            out.extend_from_slice(&middle.to_be_bytes());
        }
        _ => {
            out.push(127);
            out.extend_from_slice(&(payload as u64).to_be_bytes());
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_split_of_the_bytes_gives_the_same_frames() {
        let sizes = [0, 5, 125, 126, 70_000, 3, 65_535, 65_536, 1];
        let mut stream = Vec::new();
        for size in sizes {
            stream.extend(binary_head(size));
            stream.resize(stream.len() + size, 7);
        }
        for step in [1, 2, 9, 1000, 65_000, 70_011, stream.len()] {
            let (mut frames, mut got) = (Frames::default(), Vec::new());
            for part in stream.chunks(step) {
                frames.feed(part, |opcode, payload| got.push((opcode, payload.len())));
            }
            assert_eq!(got.len(), sizes.len(), "step {step}");
            for ((opcode, len), size) in got.into_iter().zip(sizes) {
                assert!(opcode == BINARY && (len == size || (len == 0 && size > HELD_BYTES_MAX - 10)));
            }
            assert!(frames.tail.is_empty() && frames.rest.is_none());
        }
    }
}
