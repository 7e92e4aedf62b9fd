//! Round trips of all frames, what is refused, and the limits at their edges.

use bytes::{BufMut, Bytes, BytesMut};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use prost::Message;

use super::*;
use crate::cluster::protocol::frame::{
    Answer, Attempt, Body, Claim, Class, Conn, Copy, Device, Frame, Generation, Hello, Key, Known, Marked,
    PushId, Seat, Token, TokenDigest, TokenMarks, TokenName, Verdict,
};
use crate::hub::mail::{DeviceOutcome, DeviceVerdict};
use crate::ids::{Platform, Text};
use crate::limits::{
    LINK_ANSWER_BYTES_MAX, LINK_BATCH_BYTES, LINK_BATCH_FRAMES_MAX, LINK_KNOWS_MAX, LINK_MESSAGE_BYTES_MAX,
    LINK_QUEUE_BYTES, LINK_QUEUE_FRAMES_MAX, LINK_RECIPIENTS_MAX,
};
use crate::pb::pinion::peer as pb;
use crate::pb::pinion::peer::frame::Body as Word;
use crate::placement::Fingerprint;
use crate::placement::view::{Epoch, Incarnation, NodeId};
use crate::wire::grpc::PREFIX_BYTES;

const GENERATION: Generation = Generation { dialler: Incarnation(7), count: 3, acceptor: Incarnation(9) };

fn frame(body: Body) -> Frame {
    Frame { generation: GENERATION, seen: 5, body }
}

/// What a link would carry.
fn messages(frames: impl IntoIterator<Item = Frame>) -> Vec<Bytes> {
    let mut queue = Queue::default();
    for frame in frames {
        queue.push(frame).unwrap();
    }
    std::iter::from_fn(|| queue.pop()).map(|batch| batch.bytes.slice(PREFIX_BYTES..)).collect()
}

fn through(frames: Vec<Frame>) -> Vec<Frame> {
    messages(frames).into_iter().flat_map(|message| decode(message).unwrap()).collect()
}

fn id() -> impl Strategy<Value = NodeId> {
    "[a-z0-9][a-z0-9._-]{0,12}".prop_map(|text| NodeId::new(&text).unwrap())
}

fn text() -> impl Strategy<Value = Text> {
    ".{0,12}".prop_map(Text::from)
}

fn key() -> impl Strategy<Value = Key> {
    (any::<u64>(), id(), any::<u64>()).prop_map(|(time, node, number)| Key { time, node, number })
}

fn result() -> impl Strategy<Value = (Conn, Device)> {
    use DeviceOutcome as D;
    let outcome =
        [D::Written, D::Queued, D::Dropped, D::Kicked, D::Expired, D::TooLarge, D::Background].map(Just);
    let outcome = proptest::sample::select(outcome.map(|Just(outcome)| outcome).to_vec());
    let conn = (id(), any::<u64>(), any::<u64>()).prop_map(|(node, incarnation, number)| Conn {
        node,
        incarnation: Incarnation(incarnation),
        number,
    });
    let device = (1_i64..=11, any::<[u8; 16]>(), outcome).prop_map(|(platform, connection_id, outcome)| {
        DeviceVerdict { number: 0, platform: Platform::new(platform).unwrap(), connection_id, outcome }
    });
    // A verdict's number is its connection's: it is not written twice.
    (conn, device, option::of(".{0,9}")).prop_map(|(conn, device, token)| {
        let verdict = DeviceVerdict { number: conn.number, ..device };
        (conn, Device { verdict, token: token.map(|token| Token(token.into())) })
    })
}

fn marks() -> impl Strategy<Value = TokenMarks> {
    let digest = || any::<[u8; 16]>().prop_map(TokenDigest);
    let which = prop_oneof![digest().prop_map(Marked::AllBut), vec(digest(), 0..3).prop_map(Marked::These)];
    (text(), 1_i64..=11, which).prop_map(|(user, platform, which)| {
        let platform = Platform::new(platform).unwrap();
        TokenMarks { user, platform, which }
    })
}

fn hello() -> impl Strategy<Value = Hello> {
    let known = (id(), any::<u64>(), text()).prop_map(|(node, incarnation, rpc_addr)| Known {
        node,
        incarnation: Incarnation(incarnation),
        rpc_addr,
    });
    (id(), any::<[u64; 5]>(), vec(known, 0..4)).prop_map(|(node, [a, b, c, d, e], knows)| Hello {
        node,
        incarnation: Incarnation(a),
        first_epoch: Epoch(b),
        registered_epoch: Epoch(c),
        view_epoch: Epoch(d),
        fingerprint: Fingerprint(e),
        knows,
    })
}

fn copy() -> impl Strategy<Value = Copy> {
    let push = (id(), any::<u64>(), any::<u64>()).prop_map(|(node, incarnation, number)| PushId {
        node,
        incarnation: Incarnation(incarnation),
        number,
    });
    (any::<u64>(), push, vec(text(), 0..4), vec(any::<u8>(), 0..64))
        .prop_map(|(leg, push, recipients, payload)| Copy { leg, push, recipients, payload: payload.into() })
}

fn body() -> impl Strategy<Value = Body> {
    let token = option::of(any::<u64>());
    let claim = (any::<u64>(), text(), option::of(any::<u8>()), token, option::of(key())).prop_map(
        |(number, user, class, token, key)| {
            let (class, token) = (class.map(Class), token.map(TokenName));
            Claim { number, user, class, token, key }
        },
    );
    let verdict = (text(), vec(result(), 0..3), any::<bool>(), vec(id(), 0..3))
        .prop_map(|(user, results, complete, unaccounted)| Verdict { user, results, complete, unaccounted });
    let answer = prop_oneof![Just(Answer::Unknown), vec(result(), 0..3).prop_map(Answer::Known)];
    let n = any::<u64>;
    prop_oneof![
        hello().prop_map(Body::Hello),
        hello().prop_map(Body::HelloAck),
        n().prop_map(Body::Beat),
        claim.prop_map(Body::Claim),
        (n(), n()).prop_map(|(number, time)| Body::ClaimAck { number, time }),
        (n(), key()).prop_map(|(number, key)| Body::Confirm { number, key }),
        n().prop_map(Body::Unclaim),
        (n(), n()).prop_map(|(number, f)| Body::Declare { number, fingerprint: Fingerprint(f) }),
        n().prop_map(Body::DeclareAck),
        copy().prop_map(Body::Route),
        (n(), vec(verdict, 0..3)).prop_map(|(leg, verdicts)| Body::RouteReply { leg, verdicts }),
        (n(), vec(text(), 0..3), n(), option::of(id())).prop_map(|(leg, recipients, epoch, home)| {
            Body::NotHome { leg, recipients, seat: Seat { epoch: Epoch(epoch), home } }
        }),
        (copy(), any::<bool>()).prop_map(|(copy, again)| Body::Deliver {
            copy,
            attempt: if again { Attempt::Second } else { Attempt::First },
        }),
        (n(), vec((text(), answer), 0..3)).prop_map(|(leg, answers)| Body::DeliverReply { leg, answers }),
        (n(), key()).prop_map(|(number, winner)| Body::Kick { number, winner }),
        key().prop_map(Body::Met),
        marks().prop_map(Body::Marks),
        Just(Body::Goodbye),
    ]
}

fn frames() -> impl Strategy<Value = Vec<Frame>> {
    let generation = (0_u64..2, 0_u64..2, 0_u64..2).prop_map(|(dialler, count, acceptor)| Generation {
        dialler: Incarnation(dialler),
        count,
        acceptor: Incarnation(acceptor),
    });
    let one = (generation, any::<u64>(), body());
    vec(one.prop_map(|(generation, seen, body)| Frame { generation, seen, body }), 1..12)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn frames_come_out_as_they_went_in_and_in_order(frames in frames()) {
        prop_assert_eq!(through(frames.clone()), frames);
    }

    #[test]
    fn a_message_cut_or_bent_is_a_fault_or_other_frames(
        frames in frames(), cut in any::<prop::sample::Index>(), bent in any::<(prop::sample::Index, u8)>()
    ) {
        for message in messages(frames) {
            drop(decode(message.slice(..cut.index(message.len()))));
            let mut other = message.to_vec();
            let at = bent.0.index(other.len());
            other[at] ^= bent.1;
            drop(decode(other.into()));
        }
    }

    #[test]
    fn any_bytes_are_a_fault_or_frames(bytes in vec(any::<u8>(), 0..256)) {
        drop(decode(bytes.into()));
    }
}

fn of_words(frames: &[pb::Frame]) -> Bytes {
    let generation = pb::Generation { dialler: 1, count: 1, acceptor: 1 };
    pb::Batch { generation: Some(generation), frames: frames.to_vec() }.encode_to_vec().into()
}

fn said(body: Word) -> Result<Vec<Frame>, CodecFault> {
    decode(of_words(&[pb::Frame { seen: 0, body: Some(body) }]))
}

#[test]
fn what_breaks_a_rule_of_the_file_is_named() {
    let rule = |body| match said(body) {
        Err(CodecFault::Rule(text)) => text,
        other => panic!("{other:?}"),
    };
    let key = |node: &str| Some(pb::Key { time: 1, node: node.to_owned(), number: 1 });
    assert_eq!(rule(Word::Confirm(pb::Confirm { number: 1, key: None })), "no key where one must be");
    assert_eq!(rule(Word::Kick(pb::Kick { number: 1, winner: key("") })), "no node id where one must be");
    let claim = pb::Claim { class: Some(256), ..Default::default() };
    assert_eq!(rule(Word::Claim(claim)), "a class above 255");
    assert_eq!(rule(Word::Route(pb::Copy::default())), "a copy without the name of its push");
    let answer = |unknown, results| pb::DeliverReply {
        leg: 1,
        answers: vec![pb::Answer { user: "u".to_owned(), unknown, results }],
    };
    let device =
        pb::Device { platform: 1, connection_id: Bytes::from_static(&[0; 16]), outcome: 1, token: None };
    let result = |device| vec![pb::Result { node: "a".to_owned(), incarnation: 1, number: 1, device }];
    let of = |device| rule(Word::DeliverReply(answer(false, result(device))));
    assert!(said(Word::DeliverReply(answer(false, result(Some(device.clone()))))).is_ok());
    assert_eq!(of(None), "a result without a device");
    assert_eq!(of(Some(pb::Device { outcome: 0, ..device.clone() })), "an unknown outcome");
    assert_eq!(of(Some(pb::Device { outcome: 99, ..device.clone() })), "an unknown outcome");
    assert_eq!(of(Some(pb::Device { platform: 12, ..device.clone() })), "no platform");
    let short = pb::Device { connection_id: Bytes::from_static(b"short"), ..device.clone() };
    assert_eq!(of(Some(short)), "a connection id is 16 bytes");
    let torn = rule(Word::DeliverReply(answer(true, result(Some(device)))));
    assert_eq!(torn, "an unknown answer with results");
    let digest = || Bytes::from_static(&[0; 16]);
    let marks = |platform, preserved, ended| {
        rule(Word::Marks(pb::Marks { user: "u".to_owned(), platform, preserved, ended }))
    };
    assert_eq!(marks(1, Some(digest()), vec![digest()]), "marks of both kinds at once");
    assert_eq!(marks(1, None, vec![Bytes::from_static(b"short")]), "a token's digest is 16 bytes");
    assert_eq!(marks(0, Some(digest()), vec![]), "no platform");
    assert!(matches!(decode(of_words(&[])), Err(CodecFault::Rule("a message without a frame"))));
    assert!(matches!(decode(Bytes::new()), Err(CodecFault::Rule("no generation"))));
    let silent = of_words(&[pb::Frame { seen: 1, body: None }]);
    assert!(matches!(decode(silent), Err(CodecFault::Rule("a frame that says nothing known here"))));
}

#[test]
fn a_hello_of_another_version_is_refused_by_both_numbers() {
    for version in [0, VERSION - 1, VERSION + 1, u32::MAX] {
        let fault = said(Word::Hello(pb::Hello { version, ..Default::default() })).unwrap_err();
        assert_eq!(fault, CodecFault::Version(version), "before anything else of it is looked at");
        let text = fault.to_string();
        assert!(text.contains(&format!("version {version} ")) && text.contains("version 2:"), "{text}");
    }
}

#[test]
fn small_frames_share_messages_up_to_the_limits_of_one() {
    let claims = |n: u64| {
        (0..n).map(|number| {
            frame(Body::Claim(Claim { number, user: "u".into(), class: None, token: None, key: None }))
        })
    };
    let sizes: Vec<usize> = messages(claims(30_000)).iter().map(Bytes::len).collect();
    assert!(sizes.len() < 30 && sizes.iter().all(|bytes| *bytes <= LINK_BATCH_BYTES), "{sizes:?}");
    assert!(through(claims(30_000).collect()).into_iter().eq(claims(30_000)), "in order");
    // Two bytes of words each: the count is what ends a message.
    let beats: Vec<Frame> = vec![frame(Body::Goodbye); LINK_BATCH_FRAMES_MAX + 1];
    let counts: Vec<usize> = messages(beats).into_iter().map(|m| decode(m).unwrap().len()).collect();
    assert_eq!(counts, [LINK_BATCH_FRAMES_MAX, 1]);
    let many = of_words(&vec![pb::Frame { seen: 0, body: Some(Word::Beat(0)) }; LINK_BATCH_FRAMES_MAX + 1]);
    assert!(matches!(decode(many), Err(CodecFault::Rule("more frames in one message than are taken"))));
}

fn route(recipients: Vec<Text>, payload: usize) -> Frame {
    let push = PushId { node: NodeId::new("a").unwrap(), incarnation: Incarnation(1), number: 1 };
    frame(Body::Route(Copy { leg: 1, push, recipients, payload: vec![7; payload].into() }))
}

#[test]
fn the_largest_push_fits_and_one_beyond_it_is_not_sent() {
    let mut queue = Queue::default();
    let largest = route(vec!["u".into()], LINK_MESSAGE_BYTES_MAX - 256);
    assert_eq!(through(vec![largest.clone()]), [largest]);
    assert_eq!(queue.push(route(vec!["u".into()], LINK_MESSAGE_BYTES_MAX - 64)), Err(Unsent::TooLarge));
    let users = |n| vec![Text::from("u"); n];
    let crowd = route(users(LINK_RECIPIENTS_MAX), 1);
    assert_eq!(through(vec![crowd.clone()]), [crowd]);
    assert_eq!(queue.push(route(users(LINK_RECIPIENTS_MAX + 1), 1)), Err(Unsent::TooLarge));
    assert!(queue.is_empty() && queue.depth() == (0, 0), "nothing of it stays");
    let recipients = vec![String::new(); LINK_RECIPIENTS_MAX + 1];
    let not_home = pb::NotHome { leg: 1, recipients, ..pb::NotHome::default() };
    assert_eq!(said(Word::NotHome(not_home)), Err(CodecFault::Rule("too many recipients")));
    let claim = pb::Claim { user: "u".repeat(LINK_BATCH_BYTES), ..Default::default() };
    assert_eq!(said(Word::Claim(claim)), Err(CodecFault::Rule("larger than such a frame may be")));
}

#[test]
fn long_answers_come_in_parts_that_name_each_recipient_once() {
    let device = DeviceVerdict {
        number: 1,
        platform: Platform::IOS,
        connection_id: [1; 16],
        outcome: DeviceOutcome::Written,
    };
    let conn = Conn { node: NodeId::new("node-1").unwrap(), incarnation: Incarnation(1), number: 1 };
    let verdict = |n: usize, connections| Verdict {
        user: Text::from(format!("user{n:05}")),
        results: vec![(conn.clone(), device.into()); connections],
        complete: true,
        unaccounted: Vec::new(),
    };
    let all: Vec<Verdict> = (0..5_000).map(|n| verdict(n, 2)).collect();
    let parts = through(vec![frame(Body::RouteReply { leg: 4, verdicts: all.clone() })]);
    let mut verdicts = Vec::new();
    for part in &parts {
        let Body::RouteReply { leg: 4, verdicts: part } = &part.body else { panic!("{part:?}") };
        verdicts.extend(part.iter().cloned());
    }
    assert!(parts.len() > 5 && verdicts == all, "{} parts", parts.len());
    let one = |connections| frame(Body::RouteReply { leg: 4, verdicts: vec![verdict(1, connections)] });
    assert_eq!(through(vec![one(10_000)]), [one(10_000)], "{LINK_ANSWER_BYTES_MAX}: one user is not cut");
    assert_eq!(Queue::default().push(one(40_000)), Err(Unsent::TooLarge));
}

#[test]
fn a_hello_names_as_many_nodes_as_it_may() {
    let known = Known {
        node: NodeId::new(&"n".repeat(60)).unwrap(),
        incarnation: Incarnation(1),
        rpc_addr: "h:1".into(),
    };
    let hello = |n| Hello {
        node: NodeId::new("a").unwrap(),
        incarnation: Incarnation(1),
        first_epoch: Epoch(1),
        registered_epoch: Epoch(1),
        view_epoch: Epoch(1),
        fingerprint: Fingerprint(1),
        knows: vec![known.clone(); n],
    };
    let largest = frame(Body::Hello(hello(LINK_KNOWS_MAX)));
    assert_eq!(through(vec![frame(Body::Hello(hello(LINK_KNOWS_MAX + 1)))]), [largest]);
    let word = pb::Known { node: "a".to_owned(), incarnation: 1, rpc_addr: String::new() };
    let knows = vec![word; LINK_KNOWS_MAX + 1];
    let more = pb::Hello { version: VERSION, node: "a".to_owned(), knows, ..Default::default() };
    assert_eq!(said(Word::Hello(more)), Err(CodecFault::Rule("a Hello names too many nodes")));
}

#[test]
fn a_full_queue_takes_nothing_more_until_it_is_emptied() {
    let mut queue = Queue::default();
    let large = || route(vec!["u".into()], 1024 * 1024);
    let pushed = (0..100).take_while(|_| queue.push(large()).is_ok()).count();
    assert!((60..=64).contains(&pushed), "{pushed} of a MiB");
    assert_eq!(queue.push(large()), Err(Unsent::Full));
    assert!(queue.depth().0 <= LINK_QUEUE_BYTES);
    drop(queue.pop());
    assert_eq!(queue.push(large()), Ok(()));
    let mut queue = Queue::default();
    for _ in 0..LINK_QUEUE_FRAMES_MAX {
        queue.push(frame(Body::Beat(1))).unwrap();
    }
    assert_eq!(queue.push(frame(Body::Beat(1))), Err(Unsent::Full));
    while queue.pop().is_some() {}
    assert_eq!(queue.depth(), (0, 0));
}

#[test]
fn hostile_messages_are_refused_for_what_they_would_cost() {
    // A field number with a huge length, deep nonsense, lists of empty entries.
    let mut empty = BytesMut::new();
    empty.put_bytes(0x12, 1);
    empty.put_u8(0);
    let entries = empty.repeat(LINK_BATCH_FRAMES_MAX + 1);
    for bytes in [
        Bytes::from_static(&[0x12, 0xff, 0xff, 0xff, 0xff, 0x0f]),
        Bytes::from_static(&[0x0a, 0x02, 0x08]),
        Bytes::from_static(&[0xff; 32]),
        Bytes::from_static(&[0x0b, 0x0c]),
        entries.into(),
    ] {
        assert!(decode(bytes.clone()).is_err(), "{bytes:?}");
    }
    let reply = pb::RouteReply { leg: 1, verdicts: vec![pb::Verdict::default(); LINK_ANSWER_BYTES_MAX] };
    assert_eq!(said(Word::RouteReply(reply)), Err(CodecFault::Rule("larger than such a frame may be")));
}
