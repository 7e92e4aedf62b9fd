//! The messages of a gRPC body, however it is cut (gRPC over HTTP/2, "Length-Prefixed-Message").
//!
//! What always holds: at most one message above the limit is announced before the fault is known, and what is kept is
//! what has come, whatever length a peer announces. A message within one chunk is a slice of it.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::{Status, code};

/// Compressed flag and length.
pub const PREFIX_BYTES: usize = 5;

/// Prefixes one message. `None` if its length does not fit the prefix.
pub fn frame(message: &[u8]) -> Option<Bytes> {
    let length = u32::try_from(message.len()).ok()?;
    let mut bytes = BytesMut::with_capacity(PREFIX_BYTES + message.len());
    bytes.put_u8(0);
    bytes.put_u32(length);
    bytes.put_slice(message);
    Some(bytes.freeze())
}

/// Why a body cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyFault {
    /// The compressed flag is set, and no compression was named.
    Compressed,
    /// The flag is neither 0 nor 1.
    Flag(u8),
    /// The prefix announces so many bytes: more than the limit.
    TooBig(usize),
    /// More bytes than the limit come out of the compressed ones.
    InflatedTooBig,
    /// The compressed bytes are not gzip.
    Gzip,
    /// The body ended before the message did.
    Truncated,
    /// Bytes follow the one message of a unary call.
    Trailing,
}

impl BodyFault {
    /// As a server answers it (texts of grpc-go).
    pub fn status(self, limit: usize) -> Status {
        let text = match self {
            Self::Compressed => "grpc: compressed flag set with identity or empty encoding".to_owned(),
            Self::Flag(flag) => format!("grpc: received unexpected payload format {flag}"),
            Self::TooBig(size) => format!("grpc: received message larger than max ({size} vs. {limit})"),
            Self::InflatedTooBig => format!("grpc: message after decompression larger than max ({limit})"),
            Self::Gzip => "grpc: failed to decompress the received message: not gzip".to_owned(),
            Self::Truncated => "grpc: body ended inside a message".to_owned(),
            Self::Trailing => "grpc: a unary call carries one message".to_owned(),
        };
        let code = match self {
            Self::TooBig(_) | Self::InflatedTooBig => code::RESOURCE_EXHAUSTED,
            _ => code::INTERNAL,
        };
        Status::new(code, text)
    }
}

/// One message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// As its flag says.
    pub compressed: bool,
    /// Without the prefix.
    pub bytes: Bytes,
}

/// Takes chunks, gives messages. After a fault it is of no more use.
#[derive(Debug)]
pub struct Messages {
    limit: usize,
    held: Held,
}

#[derive(Debug)]
enum Held {
    /// At most one chunk so far: the usual case, which copies nothing.
    One(Bytes),
    Many(BytesMut),
}

impl Held {
    fn as_slice(&self) -> &[u8] {
        match self {
            Self::One(bytes) => bytes,
            Self::Many(bytes) => bytes,
        }
    }
}

impl Messages {
    /// For messages of at most `limit` bytes each.
    pub fn new(limit: usize) -> Self {
        Self { limit, held: Held::One(Bytes::new()) }
    }

    /// Takes the next chunk of the body.
    pub fn push(&mut self, chunk: Bytes) {
        self.held = match std::mem::replace(&mut self.held, Held::One(Bytes::new())) {
            held if held.as_slice().is_empty() => Held::One(chunk),
            Held::One(first) => {
                let mut many = BytesMut::with_capacity(first.len() + chunk.len());
                many.put_slice(&first);
                many.put_slice(&chunk);
                Held::Many(many)
            }
            Held::Many(mut many) => {
                many.put_slice(&chunk);
                Held::Many(many)
            }
        };
    }

    /// The next message, if it is complete.
    ///
    /// # Errors
    /// [`BodyFault::Flag`] and [`BodyFault::TooBig`], as soon as the prefix is there.
    pub fn next(&mut self) -> Result<Option<Message>, BodyFault> {
        let (flag, length) = match prefix(self.held.as_slice()) {
            None => return Ok(None),
            Some((flag, _)) if flag > 1 => return Err(BodyFault::Flag(flag)),
            Some((_, length)) if length > self.limit => return Err(BodyFault::TooBig(length)),
            Some(prefix) => prefix,
        };
        if self.held_bytes() < PREFIX_BYTES + length {
            return Ok(None);
        }
        let bytes = match &mut self.held {
            Held::One(held) => {
                held.advance(PREFIX_BYTES);
                held.split_to(length)
            }
            Held::Many(held) => {
                held.advance(PREFIX_BYTES);
                held.split_to(length).freeze()
            }
        };
        Ok(Some(Message { compressed: flag == 1, bytes }))
    }

    /// Bytes that were pushed and not given out.
    pub fn held_bytes(&self) -> usize {
        self.held.as_slice().len()
    }
}

/// The compressed flag and the announced length, once they are there.
fn prefix(bytes: &[u8]) -> Option<(u8, usize)> {
    let (&flag, rest) = bytes.split_first()?;
    let length = u32::from_be_bytes(*rest.first_chunk::<4>()?);
    Some((flag, usize::try_from(length).unwrap_or(usize::MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn prefixes_have_their_outcome_as_soon_as_they_are_there() {
        let message = |compressed, bytes| Ok(Some(Message { compressed, bytes: Bytes::from_static(bytes) }));
        type Row = (&'static [u8], Result<Option<Message>, BodyFault>, usize);
        let table: [Row; 9] = [
            (b"\0\0\0\0\x02ab", message(false, b"ab"), 0),
            (b"\x01\0\0\0\x02ab", message(true, b"ab"), 0),
            (b"\0\0\0\0\0", message(false, b""), 0),
            (b"\0\0\0\0\x02abc", message(false, b"ab"), 1),
            (b"", Ok(None), 0),
            (b"\0\0\0\0", Ok(None), 4),
            (b"\0\0\0\0\x02a", Ok(None), 6),
            (b"\x02\0\0\0\0", Err(BodyFault::Flag(2)), 5),
            (b"\0\0\0\0\x05", Err(BodyFault::TooBig(5)), 5),
        ];
        for (body, expected, left) in table {
            let mut messages = Messages::new(4);
            messages.push(Bytes::from_static(body));
            assert_eq!((messages.next(), messages.held_bytes()), (expected, left), "{body:?}");
        }
    }

    proptest! {
        #[test]
        fn any_cut_of_a_body_gives_the_same_messages(
            sent in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..60), 0..8),
            cut in 1usize..40,
        ) {
            let body: Vec<u8> = sent.iter().flat_map(|m| frame(m).expect("short")).collect();
            let mut messages = Messages::new(60);
            let mut got = Vec::new();
            for chunk in body.chunks(cut) {
                messages.push(Bytes::copy_from_slice(chunk));
                while let Some(message) = messages.next().expect("within the limit") {
                    prop_assert!(!message.compressed);
                    got.push(message.bytes);
                }
            }
            prop_assert_eq!(messages.held_bytes(), 0);
            prop_assert_eq!(got, sent);
        }
    }
}
