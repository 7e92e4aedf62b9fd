//! Behaviour of [`Inbound`]: rules of RFC 6455, limits, and that the cut of the stream never matters.

use proptest::prelude::*;

use super::*;
use crate::wire::frame::{Frame, Opcode, masked};

/// An event that owns its payload.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Seen {
    Text(Vec<u8>),
    Binary(Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(Option<u16>),
}

impl From<Event<'_>> for Seen {
    fn from(event: Event<'_>) -> Self {
        match event {
            Event::Message { text: true, payload } => Self::Text(payload.to_vec()),
            Event::Message { text: false, payload } => Self::Binary(payload.to_vec()),
            Event::Ping(payload) => Self::Ping(payload.to_vec()),
            Event::Pong(payload) => Self::Pong(payload.to_vec()),
            Event::Close(code) => Self::Close(code),
        }
    }
}

/// Feeds the pieces; gives the events until the end or the fault.
fn read(inbound: &mut Inbound, pieces: &[&[u8]], limits: &ReadLimits) -> (Vec<Seen>, Option<Fault>) {
    let mut seen = Vec::new();
    for piece in pieces {
        let mut piece = piece.to_vec();
        let mut feed = inbound.feed(&mut piece, limits);
        loop {
            match feed.next() {
                Ok(Some(event)) => {
                    let last = matches!(event, Event::Close(_));
                    seen.push(event.into());
                    if last {
                        return (seen, None);
                    }
                }
                Ok(None) => break,
                Err(fault) => return (seen, Some(fault)),
            }
        }
    }
    (seen, None)
}

fn read_all(bytes: &[u8], limits: &ReadLimits) -> (Vec<Seen>, Option<Fault>) {
    read(&mut Inbound::default(), &[bytes], limits)
}

/// A masked frame with any first byte.
fn raw(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = masked(Opcode::Binary, payload, [0xa1, 2, 0x7c, 99]);
    frame[0] = first;
    frame
}

const LIMITS: ReadLimits =
    ReadLimits { message_bytes_max: 300, fragments_max: 4, role: Role::Server, check_utf8: false };

#[test]
fn sizes_stay_small() {
    assert_eq!(size_of::<Inbound>(), 8, "an idle connection owns one pointer");
    assert!(size_of::<Fault>() <= 32);
}

#[test]
fn events_of_whole_frames() {
    for (bytes, expected) in [
        (raw(0x82, b"abc"), Seen::Binary(b"abc".to_vec())),
        (raw(0x81, b"\xff"), Seen::Text(b"\xff".to_vec())), // text is not checked
        (raw(0x82, b""), Seen::Binary(vec![])),
        (raw(0x82, &[5; 300]), Seen::Binary(vec![5; 300])),
        (raw(0x89, b"17"), Seen::Ping(b"17".to_vec())),
        (raw(0x8a, b""), Seen::Pong(vec![])),
        (raw(0x88, b""), Seen::Close(None)),
        (raw(0x88, b"\x0b\xb9Actively close"), Seen::Close(Some(3001))),
    ] {
        assert_eq!(read_all(&bytes, &LIMITS), (vec![expected], None), "{bytes:02x?}");
    }
}

#[test]
fn faults_are_named_with_their_close_code() {
    let unmasked = Frame::new(Opcode::Binary, b"x").bytes().to_vec();
    let long = |len: u64| [&[0x82, 0xff][..], &len.to_be_bytes(), &[0; 4]].concat();
    for (bytes, code) in [
        (raw(0x83, b""), 1002),
        (raw(0xc2, b""), 1002),
        (unmasked, 1002),
        (raw(0x09, b""), 1002),
        (raw(0x89, &[0; 126]), 1002),
        (raw(0x80, b"x"), 1002),
        ([raw(0x02, b"x"), raw(0x82, b"y")].concat(), 1002),
        ([raw(0x02, b"x"), raw(0x80, b"y"), raw(0x80, b"z")].concat(), 1002),
        (long(1 << 63), 1002),
        (long((1 << 63) - 1), 1009),
        (long(301), 1009),
        ([raw(0x02, &[0; 200]), raw(0x80, &[0; 101])].concat(), 1009),
        ([raw(0x02, b""), raw(0, b""), raw(0, b""), raw(0, b""), raw(0, b"")].concat(), 1008),
        (raw(0x88, b"\x03"), 1002),
        (raw(0x88, b"\x03\xe8\xff"), 1002),
    ] {
        let (_, fault) = read_all(&bytes, &LIMITS);
        assert_eq!(fault.map(Fault::close_code), Some(code), "{bytes:02x?}");
    }
}

#[test]
fn close_codes_are_those_a_peer_may_send() {
    let valid = |code: u16| read_all(&raw(0x88, &code.to_be_bytes()), &LIMITS).1.is_none();
    for code in [1000, 1001, 1002, 1003, 1007, 1011, 1013, 3000, 3001, 4999] {
        assert!(valid(code), "{code}");
    }
    for code in [0, 999, 1004, 1005, 1006, 1014, 1015, 2000, 2999, 5000, 65535] {
        assert!(!valid(code), "{code}");
    }
}

#[test]
fn control_frames_pass_between_fragments() {
    let bytes = [raw(0x01, b"ab"), raw(0x89, b"p"), raw(0x00, b"cd"), raw(0x8a, b"q"), raw(0x80, b"ef")];
    let expected = vec![Seen::Ping(b"p".to_vec()), Seen::Pong(b"q".to_vec()), Seen::Text(b"abcdef".to_vec())];
    assert_eq!(read_all(&bytes.concat(), &LIMITS), (expected, None));
}

#[test]
fn a_limit_counts_all_fragments_and_is_exact() {
    let exact = [raw(0x02, &[1; 100]), raw(0, &[2; 100]), raw(0x80, &[3; 100])].concat();
    assert_eq!(read_all(&exact, &LIMITS).1, None);
    let full = [raw(0x02, b""), raw(0, b""), raw(0, b""), raw(0x80, b"x")].concat();
    assert_eq!(read_all(&full, &LIMITS).0, [Seen::Binary(b"x".to_vec())]);
    // The next message starts counting anew.
    let twice = [full.clone(), full].concat();
    assert_eq!(read_all(&twice, &LIMITS).0.len(), 2);
}

#[test]
fn a_message_too_big_is_refused_by_its_header_alone() {
    let mut inbound = Inbound::default();
    let header = [0x82, 0xfe, 0x01, 0x2d, 0, 0, 0, 0]; // 301 bytes, none of them here
    assert_eq!(read(&mut inbound, &[&header], &LIMITS), (vec![], Some(Fault::TooBig)));
    assert_eq!(inbound.held_bytes(), 0);
}

#[test]
fn what_is_kept_is_the_tail_and_it_is_freed() {
    let mut inbound = Inbound::default();
    let message = raw(0x82, &[9; 200]);
    read(&mut inbound, &[&message, &message[..50]], &LIMITS);
    assert_eq!(inbound.held_bytes(), 50 - 8);
    read(&mut inbound, &[&message[50..]], &LIMITS);
    assert!(inbound.0.is_none());
    read(&mut inbound, &[&message[..3]], &LIMITS);
    assert_eq!(inbound.held_bytes(), 3);
}

#[test]
fn a_whole_message_is_lent_from_the_input() {
    let mut bytes = raw(0x82, b"abc");
    let range = bytes.as_ptr_range();
    let mut inbound = Inbound::default();
    let mut feed = inbound.feed(&mut bytes, &LIMITS);
    let Ok(Some(Event::Message { payload, .. })) = feed.next() else { panic!("no message") };
    assert!(range.contains(&payload.as_ptr()));
    assert_eq!(feed.next(), Ok(None));
    assert_eq!(feed.frames(), 1);
}

#[test]
fn nothing_after_a_close_or_a_fault_is_read() {
    let mut bytes = [raw(0x88, b""), raw(0x82, b"late")].concat();
    let mut inbound = Inbound::default();
    let mut feed = inbound.feed(&mut bytes, &LIMITS);
    assert_eq!(feed.next(), Ok(Some(Event::Close(None))));
    assert_eq!(feed.next(), Ok(None));

    let mut bytes = [raw(0x83, b""), raw(0x82, b"late")].concat();
    let mut feed = inbound.feed(&mut bytes, &LIMITS);
    assert_eq!(feed.next(), Err(Fault::Protocol("bad opcode")));
    assert_eq!(feed.next(), Err(Fault::Protocol("bad opcode")));
}

#[test]
fn a_client_reads_unmasked_frames_only() {
    let limits = ReadLimits::client(1000);
    let frame = Frame::new(Opcode::Binary, b"abc");
    assert_eq!(read_all(frame.bytes(), &limits), (vec![Seen::Binary(b"abc".to_vec())], None));
    assert_eq!(read_all(&raw(0x82, b"x"), &limits).1.map(Fault::close_code), Some(1002));
}

#[test]
fn text_is_checked_when_asked_for() {
    let limits = ReadLimits { check_utf8: true, ..LIMITS };
    let split = [raw(0x01, b"\xc3"), raw(0x80, b"\xa9")].concat();
    assert_eq!(read_all(&split, &limits), (vec![Seen::Text("é".into())], None));
    let fault = read_all(&raw(0x81, b"\xc3"), &limits).1;
    assert_eq!(fault.map(Fault::close_code), Some(1007));
    assert_eq!(read_all(&raw(0x82, b"\xc3"), &limits).1, None);
}

#[test]
fn text_that_cannot_become_utf8_is_refused_before_its_end() {
    let limits = ReadLimits { check_utf8: true, ..LIMITS };
    let above_unicode = [raw(0x01, "κόσμε".as_bytes()), raw(0x00, b"\xf4\x90")].concat();
    let in_a_frame = raw(0x81, b"ab\xf4\x90 and more")[..6 + 4].to_vec();
    for bytes in [above_unicode, in_a_frame] {
        assert_eq!(read_all(&bytes, &limits), (vec![], Some(Fault::NotUtf8)), "{bytes:02x?}");
        assert_eq!(read_all(&bytes, &LIMITS), (vec![], None), "the gateway does not look");
        let before = &bytes[..bytes.len() - 1];
        assert_eq!(read_all(before, &limits), (vec![], None), "a character may still come");
    }
    // A character over three frames, and the next message starts anew.
    let split = [raw(0x01, b"a\xe2"), raw(0x00, b"\x82"), raw(0x80, b"\xac"), raw(0x01, b"b")].concat();
    assert_eq!(read_all(&split, &limits), (vec![Seen::Text("a€".into())], None));
}

#[test]
fn a_frozen_reader_goes_on_where_it_was() {
    let bytes = [raw(0x02, b"ab"), raw(0x80, b"cdef")].concat();
    for cut in 0..bytes.len() {
        let mut inbound = Inbound::default();
        let (mut seen, _) = read(&mut inbound, &[&bytes[..cut]], &LIMITS);
        let frozen = serde_json::to_string(&inbound).unwrap();
        let mut thawed: Inbound = serde_json::from_str(&frozen).unwrap();
        seen.extend(read(&mut thawed, &[&bytes[cut..]], &LIMITS).0);
        assert_eq!(seen, [Seen::Binary(b"abcdef".to_vec())], "cut {cut}");
    }
}

/// A frame of a stream that is mostly valid.
fn any_frame() -> impl Strategy<Value = Vec<u8>> {
    let first = prop_oneof![
        8 => prop::sample::select(vec![0x82u8, 0x81, 0x89, 0x8a, 0x02, 0x01, 0x00, 0x80]),
        1 => prop::sample::select(vec![0x88u8, 0xc2, 0x83]),
    ];
    (first, prop::collection::vec(any::<u8>(), 0..140)).prop_map(|(first, payload)| raw(first, &payload))
}

proptest! {
    #[test]
    fn any_split_gives_the_same_events(
        frames in prop::collection::vec(any_frame(), 0..8),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
        check_utf8 in any::<bool>(),
    ) {
        let bytes = frames.concat();
        let limits = ReadLimits { check_utf8, ..LIMITS };
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
        cuts.extend([0, bytes.len()]);
        cuts.sort_unstable();
        let pieces: Vec<&[u8]> = cuts.windows(2).map(|cut| &bytes[cut[0]..cut[1]]).collect();
        prop_assert_eq!(read(&mut Inbound::default(), &pieces, &limits), read_all(&bytes, &limits));
        let bytewise: Vec<&[u8]> = bytes.chunks(1).collect();
        prop_assert_eq!(read(&mut Inbound::default(), &bytewise, &limits), read_all(&bytes, &limits));
    }

    #[test]
    fn random_bytes_never_panic_and_keep_little(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        let mut inbound = Inbound::default();
        read(&mut inbound, &[&bytes], &LIMITS);
        prop_assert!(inbound.held_bytes() <= LIMITS.message_bytes_max + 125);
    }

    #[test]
    fn a_message_survives_any_fragmentation(
        message in prop::collection::vec(any::<u8>(), 0..300),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..=3),
    ) {
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(message.len() + 1)).collect();
        cuts.extend([0, message.len()]);
        cuts.sort_unstable();
        let last = cuts.len() - 2;
        let fragment = |(n, cut): (usize, &[usize])| {
            raw(if n == 0 { 2 } else { 0 } | if n == last { 0x80 } else { 0 }, &message[cut[0]..cut[1]])
        };
        let bytes = cuts.windows(2).enumerate().map(fragment).collect::<Vec<_>>().concat();
        prop_assert_eq!(read_all(&bytes, &LIMITS), (vec![Seen::Binary(message)], None));
    }
}
