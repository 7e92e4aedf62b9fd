//! Joins a client's byte stream into messages, wherever it is cut.

/// The reading half of one connection. One pointer while idle.
#[derive(Debug, Default, serde::Serialize, serde::Deserialize)]
pub struct Inbound(Option<Box<Partial>>);

#[derive(Debug, Default, serde::Serialize, serde::Deserialize)]
struct Partial {}

/// What a client sent.
#[derive(Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// A complete data message (all fragments joined, unmasked).
    Message {
        text: bool,
        payload: &'a [u8],
    },
    Ping(&'a [u8]),
    Pong(&'a [u8]),
    /// A valid close frame; `None` = no code.
    Close(Option<u16>),
}

/// Why the stream cannot be read on. Nothing after it is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// RFC 6455 violation: close 1002 with this reason.
    Protocol(&'static str),
    /// Message above `message_bytes_max`: close 1009, empty reason.
    TooBig,
    /// Close 1008.
    TooManyFragments,
}

/// Limits of one message.
#[derive(Clone, Copy, Debug)]
pub struct ReadLimits {
    pub message_bytes_max: usize,
    pub fragments_max: u32,
}

impl Inbound {
    /// Starts on freshly received bytes (they are unmasked in place). Pull events with [`Feed::next`] until it
    /// returns `Ok(None)`: everything was consumed and the tail of a partial frame is kept here.
    pub fn feed<'a>(&'a mut self, input: &'a mut [u8], limits: &'a ReadLimits) -> Feed<'a> {
        let _ = (input, limits);
        todo!()
    }
    /// Bytes kept for a partial message.
    pub fn held_bytes(&self) -> usize {
        todo!()
    }
}

/// A pass over received bytes.
#[derive(Debug)]
pub struct Feed<'a> {
    pub(crate) x: &'a (),
}

impl Feed<'_> {
    /// The next event. (Lending: drop the event before asking again.)
    pub fn next(&mut self) -> Result<Option<Event<'_>>, Fault> {
        todo!()
    }
    /// Frames seen so far in this pass, data and control.
    pub fn frames(&self) -> u64 {
        todo!()
    }
}
