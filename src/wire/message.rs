//! Joins a peer's byte stream into messages, wherever it is cut.
//!
//! A message that lies whole in the received bytes is unmasked there and lent, without a copy. Otherwise only what is
//! needed later is kept, in one box that is freed as soon as it is empty: an idle connection owns one null pointer.
//! A message above the limit is refused when a header declares it, before anything of it is kept.
//!
//! Not here: what a message means (`envelope`, `text`), deadlines, and what is answered (`session`).

use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::frame::{self, Header, Kind};
use super::mask;
use crate::limits;

/// The reading half of one connection. One pointer while idle.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Inbound(Option<Box<Partial>>);

/// What is kept of an incomplete frame or message. Never vacant.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Partial {
    /// Without `frame`: the first bytes of a header (below 14). With one: the payload so far of that control frame.
    small: Vec<u8>,
    /// The frame whose payload is not complete.
    frame: Option<Open>,
    /// Payload so far of the data message, unmasked, over all its fragments.
    message: Vec<u8>,
    /// Of a text message under `check_utf8`: how many bytes of `message` are whole characters.
    checked: usize,
    /// The kind of the fragmented message whose last fragment has not come.
    started: Option<Kind>,
    /// Fragments of that message so far.
    fragments: u32,
}

/// A frame whose header was read.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Open {
    header: Header,
    payload_bytes: usize,
    /// Payload bytes that were read.
    seen: usize,
}

/// What a peer sent.
#[derive(Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// A complete data message (all fragments joined, unmasked).
    Message {
        /// Opcode 1; otherwise binary.
        text: bool,
        /// Unchecked bytes, even of a text message, but for [`ReadLimits::check_utf8`].
        payload: &'a [u8],
    },
    /// To be answered with a pong of the same payload.
    Ping(&'a [u8]),
    /// Solicited or not.
    Pong(&'a [u8]),
    /// A valid close frame; `None` = no code. Nothing after it is read.
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
    /// A text message is not UTF-8, and the limits ask for it: close 1007.
    NotUtf8,
}

/// Which end of the connection reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Every frame must be masked.
    Server,
    /// No frame may be masked (RFC 6455 section 5.1).
    Client,
}

/// Limits of one message.
#[derive(Clone, Copy, Debug)]
pub struct ReadLimits {
    /// Wire bytes of one data message over all its fragments. More: [`Fault::TooBig`].
    pub message_bytes_max: usize,
    /// Frames of one data message. More: [`Fault::TooManyFragments`].
    pub fragments_max: u32,
    /// Who reads.
    pub role: Role,
    /// Checks that text messages are UTF-8, and refuses one as soon as its bytes so far cannot become UTF-8 any more.
    /// The gateway does not (spec 1.7); conformance tests want it.
    pub check_utf8: bool,
}

impl Default for ReadLimits {
    /// A gateway with the defaults of [`limits`].
    fn default() -> Self {
        Self::server(limits::MESSAGE_BYTES_MAX, limits::FRAGMENTS_MAX)
    }
}

impl ReadLimits {
    /// What a gateway reads with.
    pub fn server(message_bytes_max: usize, fragments_max: u32) -> Self {
        Self { message_bytes_max, fragments_max, role: Role::Server, check_utf8: false }
    }

    /// What a client reads with (`pinion listen`, tests).
    pub fn client(message_bytes_max: usize) -> Self {
        Self {
            message_bytes_max,
            fragments_max: limits::FRAGMENTS_MAX,
            role: Role::Client,
            check_utf8: false,
        }
    }
}

impl Fault {
    /// The code of the close frame to send.
    pub fn close_code(self) -> u16 {
        match self {
            Self::Protocol(_) => 1002,
            Self::NotUtf8 => 1007,
            Self::TooManyFragments => 1008,
            Self::TooBig => 1009,
        }
    }

    /// The reason of the close frame to send. Empty for a message that is too big, as upstream (spec 1.5).
    pub fn reason(self) -> &'static str {
        match self {
            Self::Protocol(words) => words,
            Self::NotUtf8 => "text is not UTF-8",
            Self::TooManyFragments => "too many fragments",
            Self::TooBig => "",
        }
    }
}

impl Inbound {
    /// Starts on freshly received bytes (they are unmasked in place). Pull events with [`Feed::next`] until it
    /// returns `Ok(None)`: everything was consumed and the tail of a partial frame is kept here. To stop earlier
    /// loses the rest of `input`: only for a connection that is not read on.
    pub fn feed<'a>(&'a mut self, input: &'a mut [u8], limits: &'a ReadLimits) -> Feed<'a> {
        Feed { inbound: self, input, at: 0, limits, frames: 0, held: Vec::new(), fault: None }
    }

    /// Bytes kept for a partial message.
    pub fn held_bytes(&self) -> usize {
        self.0.as_deref().map_or(0, |partial| partial.small.len() + partial.message.len())
    }

    fn partial(&mut self) -> &mut Partial {
        self.0.get_or_insert_default()
    }

    /// Frees the box when nothing is in it.
    fn tidy(&mut self) {
        self.0.take_if(|partial| partial.is_vacant());
    }
}

impl Partial {
    fn is_vacant(&self) -> bool {
        self.frame.is_none() && self.started.is_none() && self.small.is_empty() && self.message.is_empty()
    }
}

/// A pass over received bytes.
#[derive(Debug)]
pub struct Feed<'a> {
    inbound: &'a mut Inbound,
    input: &'a mut [u8],
    /// Bytes of `input` that were consumed.
    at: usize,
    limits: &'a ReadLimits,
    frames: u64,
    /// What the last event lent when it was not in `input`.
    held: Vec<u8>,
    fault: Option<Fault>,
}

/// An event before it borrows.
struct Found {
    kind: Kind,
    /// Where the payload is in `input`; `None`: in `held`.
    place: Option<Range<usize>>,
}

impl Feed<'_> {
    /// The next event. (Lending: drop the event before asking again.)
    ///
    /// # Errors
    /// The fault that ends this stream; asked again, the same.
    #[expect(clippy::should_implement_trait, reason = "lending: an iterator's items cannot borrow from it")]
    pub fn next(&mut self) -> Result<Option<Event<'_>>, Fault> {
        if let Some(fault) = self.fault {
            return Err(fault);
        }
        let found = self.step().and_then(|found| {
            let Some(found) = found else { return Ok(None) };
            let code = self.check_payload(&found)?;
            Ok(Some((found, code)))
        });
        match found {
            Ok(None) => Ok(None),
            Ok(Some((found, code))) => {
                if found.kind == Kind::Close {
                    self.stop();
                }
                let payload = payload_of(&found, self.input, &self.held);
                Ok(Some(match found.kind {
                    Kind::Text | Kind::Binary | Kind::Continuation => {
                        Event::Message { text: found.kind == Kind::Text, payload }
                    }
                    Kind::Ping => Event::Ping(payload),
                    Kind::Pong => Event::Pong(payload),
                    Kind::Close => Event::Close(code),
                }))
            }
            Err(fault) => {
                self.fault = Some(fault);
                self.stop();
                Err(fault)
            }
        }
    }

    /// Frames seen so far in this pass, data and control.
    pub fn frames(&self) -> u64 {
        self.frames
    }

    /// Nothing that follows is looked at, and nothing is kept.
    fn stop(&mut self) {
        self.at = self.input.len();
        self.inbound.0 = None;
    }

    /// Reads on until an event is complete or the input is used up.
    fn step(&mut self) -> Result<Option<Found>, Fault> {
        self.held = Vec::new();
        loop {
            let open = match self.inbound.0.as_deref().and_then(|partial| partial.frame) {
                Some(open) => open,
                None => {
                    let Some(header) = self.read_header()? else {
                        return Ok(None);
                    };
                    self.frames += 1;
                    let open = self.admit(header)?;
                    if let Some(found) = self.whole(open) {
                        self.inbound.tidy();
                        return Ok(Some(found));
                    }
                    open
                }
            };
            let complete = self.absorb(open);
            self.check_text(open.header)?;
            if !complete {
                return Ok(None);
            }
            if let Some(found) = self.complete(open.header) {
                return Ok(Some(found));
            }
        }
    }

    /// Takes a header from the input, together with what was kept of it. `None`: the rest has yet to come.
    fn read_header(&mut self) -> Result<Option<Header>, Fault> {
        let rest = self.input.get(self.at..).unwrap_or_default();
        if let Some(partial) = self.inbound.0.as_deref_mut().filter(|partial| !partial.small.is_empty()) {
            // A header has at most 14 bytes, so joining byte by byte costs nothing worth saving.
            for byte in rest {
                partial.small.push(*byte);
                self.at += 1;
                if let Some((header, _)) = frame::parse_header(&partial.small).map_err(Fault::Protocol)? {
                    partial.small = Vec::new();
                    return Ok(Some(header));
                }
            }
            return Ok(None);
        }
        match frame::parse_header(rest).map_err(Fault::Protocol)? {
            Some((header, n)) => {
                self.at += n;
                Ok(Some(header))
            }
            None if rest.is_empty() => Ok(None),
            None => {
                self.inbound.partial().small.extend_from_slice(rest);
                self.at = self.input.len();
                Ok(None)
            }
        }
    }

    /// The rules between frames, and the limits.
    fn admit(&mut self, header: Header) -> Result<Open, Fault> {
        match (self.limits.role, header.key) {
            (Role::Server, None) => return Err(Fault::Protocol("client frame not masked")),
            (Role::Client, Some(_)) => return Err(Fault::Protocol("server frame masked")),
            _ => {}
        }
        let payload_bytes = usize::try_from(header.payload_bytes).map_err(|_| Fault::TooBig)?;
        let open = Open { header, payload_bytes, seen: 0 };
        if header.kind.is_control() {
            return Ok(open);
        }
        let (started, fragments, message_bytes) = match self.inbound.0.as_deref() {
            Some(partial) => (partial.started.is_some(), partial.fragments, partial.message.len()),
            None => (false, 0, 0),
        };
        match (started, header.kind) {
            (true, Kind::Continuation) | (false, Kind::Text | Kind::Binary) => {}
            (false, _) => return Err(Fault::Protocol("continuation of no message")),
            (true, _) => return Err(Fault::Protocol("new message before the end of the last one")),
        }
        if payload_bytes > self.limits.message_bytes_max.saturating_sub(message_bytes) {
            return Err(Fault::TooBig);
        }
        if fragments >= self.limits.fragments_max {
            return Err(Fault::TooManyFragments);
        }
        Ok(open)
    }

    /// The event of a frame that needs nothing kept and lies whole in the input.
    fn whole(&mut self, open: Open) -> Option<Found> {
        let Header { kind, fin, key, .. } = open.header;
        if !fin || kind == Kind::Continuation {
            return None; // a control frame always has FIN
        }
        let place = self.at..self.at.checked_add(open.payload_bytes)?;
        let payload = self.input.get_mut(place.clone())?;
        if let Some(key) = key {
            mask::apply(key, 0, payload);
        }
        self.at = place.end;
        Some(Found { kind, place: Some(place) })
    }

    /// Moves what the input has of a frame's payload to where it is kept. True: the frame is complete.
    fn absorb(&mut self, mut open: Open) -> bool {
        let rest = self.input.get_mut(self.at..).unwrap_or_default();
        let take = rest.len().min(open.payload_bytes - open.seen);
        let payload = rest.get_mut(..take).unwrap_or_default();
        if let Some(key) = open.header.key {
            mask::apply(key, open.seen, payload);
        }
        let partial = self.inbound.partial();
        let kept = if open.header.kind.is_control() { &mut partial.small } else { &mut partial.message };
        kept.extend_from_slice(payload);
        self.at += take;
        open.seen += take;
        partial.frame = Some(open);
        open.seen == open.payload_bytes
    }

    /// What is here of a text message, up to a character whose rest may still come.
    fn check_text(&mut self, header: Header) -> Result<(), Fault> {
        if !self.limits.check_utf8 || header.kind.is_control() {
            return Ok(());
        }
        let partial = self.inbound.partial();
        if partial.started.unwrap_or(header.kind) != Kind::Text {
            return Ok(());
        }
        match std::str::from_utf8(partial.message.get(partial.checked..).unwrap_or_default()) {
            Ok(_) => partial.checked = partial.message.len(),
            Err(cut) if cut.error_len().is_none() => partial.checked += cut.valid_up_to(),
            Err(_) => return Err(Fault::NotUtf8),
        }
        Ok(())
    }

    /// Ends the frame that was absorbed: the event, unless more fragments must come.
    fn complete(&mut self, header: Header) -> Option<Found> {
        let partial = self.inbound.partial();
        partial.frame = None;
        let kind = if header.kind.is_control() {
            self.held = std::mem::take(&mut partial.small);
            header.kind
        } else {
            let kind = partial.started.unwrap_or(header.kind);
            if !header.fin {
                partial.started = Some(kind);
                partial.fragments += 1;
                return None;
            }
            partial.started = None;
            partial.fragments = 0;
            partial.checked = 0;
            self.held = std::mem::take(&mut partial.message);
            kind
        };
        self.inbound.tidy();
        Some(Found { kind, place: None })
    }

    /// The rules about payloads. Returns the code of a close frame.
    fn check_payload(&self, found: &Found) -> Result<Option<u16>, Fault> {
        let payload = payload_of(found, self.input, &self.held);
        match found.kind {
            Kind::Close => close_code(payload),
            Kind::Text if self.limits.check_utf8 && std::str::from_utf8(payload).is_err() => {
                Err(Fault::NotUtf8)
            }
            _ => Ok(None),
        }
    }
}

fn payload_of<'a>(found: &Found, input: &'a [u8], held: &'a [u8]) -> &'a [u8] {
    match &found.place {
        Some(place) => input.get(place.clone()).unwrap_or_default(),
        None => held,
    }
}

/// The code in a close frame's payload (RFC 6455 section 5.5.1, spec 1.7).
fn close_code(payload: &[u8]) -> Result<Option<u16>, Fault> {
    let (code, reason) = match payload {
        [] => return Ok(None),
        [_] => return Err(Fault::Protocol("close payload of one byte")),
        [high, low, reason @ ..] => (u16::from_be_bytes([*high, *low]), reason),
    };
    if !matches!(code, 1000..=1003 | 1007..=1013 | 3000..=4999) {
        return Err(Fault::Protocol("bad close code"));
    }
    if std::str::from_utf8(reason).is_err() {
        return Err(Fault::Protocol("close reason is not UTF-8"));
    }
    Ok(Some(code))
}

#[cfg(test)]
mod tests;
