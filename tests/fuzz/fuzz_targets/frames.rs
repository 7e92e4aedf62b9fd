//! A frame stream: however it is cut, the same events and the same fault come out, and little is kept.
//!
//! Input: one byte of settings, three cuts, the stream.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pinion::wire::frame::{Frame, Opcode};
use pinion::wire::message::{Event, Fault, Inbound, ReadLimits, Role};

/// Small, so that the fuzzer reaches it.
const MESSAGE_BYTES_MAX: usize = 700;
const CONTROL_BYTES_MAX: usize = 125;

#[derive(Debug, PartialEq, Eq)]
enum Seen {
    Message { text: bool, payload: Vec<u8> },
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(Option<u16>),
}

impl From<Event<'_>> for Seen {
    fn from(event: Event<'_>) -> Self {
        match event {
            Event::Message { text, payload } => Self::Message { text, payload: payload.to_vec() },
            Event::Ping(payload) => Self::Ping(payload.to_vec()),
            Event::Pong(payload) => Self::Pong(payload.to_vec()),
            Event::Close(code) => Self::Close(code),
        }
    }
}

fuzz_target!(|data: &[u8]| {
    let [settings, a, b, c, stream @ ..] = data else { return };
    let role = if settings & 1 == 0 { Role::Server } else { Role::Client };
    let limits = ReadLimits {
        message_bytes_max: MESSAGE_BYTES_MAX,
        fragments_max: 4,
        role,
        check_utf8: settings & 2 != 0,
    };
    let whole = read(&[stream], &limits);
    assert_eq!(read(&pinion_fuzz::split(stream, &[*a, *b, *c]), &limits), whole);
    assert_eq!(read(&stream.chunks(1).collect::<Vec<_>>(), &limits), whole);
    for seen in whole.0 {
        answered(seen);
    }
});

/// The events, what ended them, and how many frames were seen.
fn read(pieces: &[&[u8]], limits: &ReadLimits) -> (Vec<Seen>, Option<Fault>, u64) {
    let (mut inbound, mut events, mut frames) = (Inbound::default(), Vec::new(), 0);
    for piece in pieces {
        let mut piece = piece.to_vec();
        let mut feed = inbound.feed(&mut piece, limits);
        let ended = loop {
            match feed.next() {
                Ok(Some(event)) => events.push(Seen::from(event)),
                Ok(None) => break None,
                Err(fault) => break Some(fault),
            }
            if let Some(Seen::Message { payload, .. }) = events.last() {
                assert!(payload.len() <= limits.message_bytes_max);
            }
        };
        frames += feed.frames();
        if ended.is_some() || matches!(events.last(), Some(Seen::Close(_))) {
            assert_eq!(inbound.held_bytes(), 0, "nothing is kept after the end");
            return (events, ended, frames);
        }
        assert!(inbound.held_bytes() <= MESSAGE_BYTES_MAX + CONTROL_BYTES_MAX);
    }
    (events, None, frames)
}

/// An event sent back as a frame of the gateway is read by a client as the same event.
fn answered(seen: Seen) {
    let frame = match &seen {
        Seen::Message { text: true, payload } => Frame::new(Opcode::Text, payload),
        Seen::Message { text: false, payload } => Frame::new(Opcode::Binary, payload),
        Seen::Ping(payload) => Frame::new(Opcode::Ping, payload),
        Seen::Pong(payload) => Frame::new(Opcode::Pong, payload),
        Seen::Close(code) => Frame::close(*code, ""),
    };
    let (events, fault, _) = read(&[frame.bytes()], &ReadLimits::client(MESSAGE_BYTES_MAX));
    assert_eq!((events, fault), (vec![seen], None));
}
