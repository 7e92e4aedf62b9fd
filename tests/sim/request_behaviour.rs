//! What one hub does with what clients send: requests in order, pings, deadlines, and what ends a connection.

use bytes::Bytes;
use pinion::hub::Input;
use pinion::hub::mail::ShardMail;
use pinion::hub::upstream::{Method, UpstreamError, UpstreamOutcome, UpstreamRequest, UserPlatforms};
use pinion::ids::Platform;
use pinion::limits;
use pinion::pb::openim::sdkws::{SubUserOnlineStatus, SubUserOnlineStatusTips};
use prost::Message as _;

use crate::frames::masked_frame;
use crate::rig::{Rig, Seen, config, reply};

#[test]
fn the_read_deadline_is_thirty_seconds_after_the_last_frame() {
    let mut rig = Rig::new(config());
    let conn = rig.log_in("u", Platform::IOS);
    rig.wait(20_000);
    rig.ping(conn, b"x");
    rig.wait(limits::READ_DEADLINE_MS - limits::TICK_MS);
    assert!(!rig.is_closed(conn));
    rig.wait(limits::TICK_MS + limits::REST_MS);
    assert!(rig.is_closed(conn));
    assert!(!rig.is_registered("u"));
}

#[test]
fn a_hub_that_is_ticked_only_when_it_asks_keeps_its_deadlines() {
    let (tick, rest) = (limits::TICK_MS, limits::REST_MS);
    // Silence: seldom looked at, found within a rest.
    let mut rig = Rig::new(config());
    assert_eq!(rig.doze(100 * rest), 100, "nobody is here");
    let conn = rig.log_in("u", Platform::IOS);
    let ticks = rig.doze(limits::READ_DEADLINE_MS - tick);
    assert!(ticks <= limits::READ_DEADLINE_MS / rest + 1, "{ticks}");
    assert!(!rig.is_closed(conn));
    rig.doze(tick + rest);
    assert!(rig.is_closed(conn));
    // A call, a login that nobody answers, a last frame that nobody takes: to the tick.
    let mut rig = Rig::new(config());
    let conn = rig.log_in("u", Platform::IOS);
    rig.request(conn, "u", (1001, "one"), b"x");
    rig.doze(1);
    assert_eq!(rig.hub.rest_until(rig.now.mono), rig.now.mono.plus_ms(tick), "a call is open");
    let mut rig = Rig::new(config());
    let conn = rig.log_in("u", Platform::IOS);
    rig.doze(10 * rest + 1);
    rig.push(1, 1, &["u"]);
    rig.turn();
    rig.request(conn, "u", (2003, "bye"), b"");
    let call = rig.calls().pop().unwrap();
    rig.answer(&call, UpstreamOutcome::Data(Bytes::new()));
    let ticks = rig.doze(limits::FLUSH_DEADLINE_MS - tick);
    assert!(ticks <= limits::FLUSH_DEADLINE_MS / rest + 2, "{ticks}");
    assert!(!rig.is_closed(conn));
    rig.doze(2 * tick);
    assert!(rig.is_closed(conn));
}

#[test]
fn half_a_frame_does_not_move_the_read_deadline() {
    let mut rig = Rig::new(config());
    let conn = rig.log_in("u", Platform::IOS);
    for byte in masked_frame(0x82, &[0; 300], [1, 2, 3, 4]) {
        rig.bytes(conn, vec![byte]);
        rig.wait(limits::TICK_MS);
    }
    assert!(rig.is_closed(conn), "30.8 s, one byte at a time");
}

#[test]
fn only_web_clients_are_pinged_every_27_seconds() {
    // 81 seconds in all, kept alive by pongs alone: spec trap 11.
    let mut rig = Rig::new(config());
    let conns: Vec<_> = Platform::all().map(|p| (p, rig.log_in("u", p))).collect();
    for _ in 0..3 {
        rig.wait(limits::WEB_PING_INTERVAL_MS - limits::TICK_MS);
        assert!(conns.iter().all(|(_, c)| rig.read(*c).is_empty()));
        // To the tick that all heartbeats of the shard are looked at in.
        rig.wait(limits::TICK_MS);
        while rig.now.mono.0 % limits::REST_MS >= limits::TICK_MS {
            rig.wait(limits::TICK_MS);
        }
        for (on, conn) in &conns {
            let expected: &[Seen] = if *on == Platform::WEB { &[Seen::Ping] } else { &[] };
            assert_eq!(rig.read(*conn), expected, "{on:?}");
            rig.bytes(*conn, masked_frame(0x8a, b"", [1, 2, 3, 4])); // a pong counts as a sign of life
        }
    }
}

#[test]
fn pings_get_the_pong_they_ask_for() {
    let mut rig = Rig::new(config());
    let conn = rig.log_in("u", Platform::IOS);
    rig.ping(conn, b"12345");
    rig.bytes(conn, masked_frame(0x81, br#"{"type":"ping"}"#, [1, 2, 3, 4]));
    let pong = Seen::Text(r#"{"type":"pong","body":null}"#.into());
    assert_eq!(rig.read(conn), [Seen::Pong(b"12345".into()), pong]);
}

#[test]
fn a_logout_is_answered_then_closed_whatever_the_service_says() {
    for outcome in [UpstreamOutcome::Data(Bytes::new()), UpstreamOutcome::Failed(UpstreamError::args("no"))] {
        let mut rig = Rig::new(config());
        let conn = rig.log_in("u", Platform::IOS);
        rig.request(conn, "u", (2003, "bye"), b"");
        let call = rig.calls().pop().unwrap();
        rig.answer(&call, outcome);
        rig.turn();
        let seen = rig.read(conn);
        assert_eq!((reply(&seen).id, &*reply(&seen).msg_incr), (2003, "bye"));
        assert!(rig.is_closed(conn) && !rig.is_registered("u"));
    }
}

#[test]
fn a_presence_subscription_answers_with_the_state_and_then_tells_news() {
    let mut rig = Rig::new(config());
    let conn = rig.log_in("u", Platform::IOS);
    let watch = |add: &[&str], remove: &[&str]| {
        let owned = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect();
        let (subscribe_user_id, unsubscribe_user_id) = (owned(add), owned(remove));
        SubUserOnlineStatus { subscribe_user_id, unsubscribe_user_id }.encode_to_vec()
    };
    let online = |platforms: &[i32]| UserPlatforms { user: "v".into(), platforms: platforms.into() };
    rig.request(conn, "u", (2005, "sub"), &watch(&["v"], &[]));
    let call = rig.calls().pop().unwrap();
    assert_eq!(call.request, UpstreamRequest::UserStatus { users: vec!["v".into()] });
    rig.answer(&call, UpstreamOutcome::Statuses(vec![online(&[1])]));
    let told = |seen: &[Seen]| {
        let data = reply(seen).data.clone().unwrap();
        SubUserOnlineStatusTips::decode(data).unwrap().subscribers[0].online_platform_i_ds.clone()
    };
    assert_eq!(told(&rig.read(conn)), [1]);
    rig.input(Input::Mail(ShardMail::PresenceNews(Box::new(online(&[1, 5])))));
    assert_eq!(told(&rig.read(conn)), [1, 5]);
    rig.request(conn, "u", (2005, "unsub"), &watch(&[], &["v"]));
    assert_eq!(reply(&rig.read(conn)).msg_incr, "unsub");
    rig.input(Input::Mail(ShardMail::PresenceNews(Box::new(online(&[])))));
    assert_eq!(rig.read(conn), []);
}

#[test]
fn sends_go_one_at_a_time_and_in_order_while_others_pass() {
    // Spec trap 14.
    let mut rig = Rig::new(config());
    let conn = rig.log_in("u", Platform::IOS);
    for name in ["s1", "s2", "s3"] {
        rig.request(conn, "u", (1003, name), name.as_bytes());
    }
    rig.request(conn, "u", (1001, "seq"), b"seq");
    let methods: Vec<_> = rig.calls().into_iter().map(|c| (c.request.clone(), c)).collect();
    let asked = |r: &UpstreamRequest| {
        if let UpstreamRequest::Forward { method, .. } = r { Some(*method) } else { None }
    };
    assert_eq!(
        methods.iter().map(|(r, _)| asked(r)).collect::<Vec<_>>(),
        [Some(Method::SendMsg), Some(Method::GetMaxSeq)]
    );
    let mut call = methods[0].1.clone();
    for name in ["s1", "s2", "s3"] {
        rig.answer(&call, UpstreamOutcome::Data(Bytes::from_static(b"ok")));
        assert_eq!(reply(&rig.read(conn)).msg_incr, name);
        if let Some(next) = rig.calls().pop() {
            call = next;
        }
    }
}

#[test]
fn waiting_requests_that_fail_at_once_do_not_hold_up_those_behind() {
    let mut rig = Rig::new(config());
    let conn = rig.log_in("u", Platform::IOS);
    for n in 0..limits::REQUESTS_IN_FLIGHT_MAX {
        rig.request(conn, "u", (1001, &format!("flying{n}")), b"x");
    }
    for n in 0..100 {
        rig.request(conn, "u", (2005, &format!("bad{n}")), b"\xff\xff");
    }
    rig.request(conn, "u", (1001, "last"), b"x");
    let calls = rig.calls();
    assert_eq!(calls.len(), usize::from(limits::REQUESTS_IN_FLIGHT_MAX));
    rig.answer(&calls[0], UpstreamOutcome::Data(Bytes::new()));
    assert_eq!(rig.read(conn).len(), 1 + 100);
    let next = rig.calls();
    assert_eq!(next.len(), 1);
    rig.answer(&next[0], UpstreamOutcome::Data(Bytes::new()));
    assert_eq!(reply(&rig.read(conn)).msg_incr, "last");
}

#[test]
fn a_hung_upstream_stops_neither_pings_nor_pushes_and_is_answered_for() {
    let mut rig = Rig::new(config());
    let conn = rig.log_in("u", Platform::IOS);
    rig.request(conn, "u", (1003, "hangs"), b"x");
    let call = rig.calls().pop().unwrap();
    rig.ping(conn, b"alive?");
    rig.push(1, 1, &["u"]);
    rig.turn();
    assert_eq!(rig.read(conn).len(), 2);
    rig.wait(limits::UPSTREAM_DEADLINE_MS + limits::TICK_MS);
    let seen = rig.read(conn);
    assert_eq!((&*reply(&seen).msg_incr, reply(&seen).err_code), ("hangs", 500));
    rig.answer(&call, UpstreamOutcome::Data(Bytes::new()));
    assert_eq!(rig.read(conn), [], "the late reply is dropped");
}

#[test]
fn requests_that_end_a_connection_do_so_without_an_answer() {
    for (name, id, sender) in
        [("unknown", 4711, "u"), ("server's own", 2001, "u"), ("of another user", 1001, "v")]
    {
        let mut rig = Rig::new(config());
        let conn = rig.log_in("u", Platform::IOS);
        rig.request(conn, sender, (id, "x"), b"");
        assert!(rig.is_closed(conn), "{name}");
        assert_eq!(rig.read(conn), [], "{name}");
    }
}

#[test]
fn frames_that_break_the_protocol_are_answered_with_the_right_close_code() {
    let key = [1, 2, 3, 4];
    for (name, bytes, code) in [
        ("reserved bits", masked_frame(0xc2, b"x", key), Some(1002)),
        ("unmasked", vec![0x82, 1, b'x'], Some(1002)),
        ("too big", vec![0x82, 0xfe, 0xff, 0xff, 1, 2, 3, 4], Some(1009)),
        ("close", masked_frame(0x88, &3001u16.to_be_bytes(), key), Some(3001)),
        ("close without code", masked_frame(0x88, b"", key), None),
    ] {
        let mut rig = Rig::new(config());
        let conn = rig.log_in("u", Platform::IOS);
        rig.bytes(conn, [bytes, masked_frame(0x89, b"after", key)].concat());
        rig.turn();
        assert_eq!(rig.read(conn), [Seen::Close(code)], "{name}");
        assert!(rig.is_closed(conn), "{name}");
    }
}

/// A request that is asked upstream, as JSON of exactly so many bytes.
fn padded_request(len: usize) -> Vec<u8> {
    let mut json = br#"{"reqIdentifier":1001,"sendID":"u","msgIncr":"1","data":""#.to_vec();
    json.extend(br#""}"#);
    json.resize(len, b' ');
    json
}

/// The frames of one binary message in pieces of `size` bytes.
fn fragments(message: &[u8], size: usize) -> Vec<u8> {
    let last = message.len().div_ceil(size) - 1;
    let frame = |(n, piece): (usize, &[u8])| {
        let head = if n == 0 { 2 } else { 0 } | if n == last { 0x80 } else { 0 };
        masked_frame(head, piece, [1, 2, 3, 4])
    };
    message.chunks(size).enumerate().flat_map(frame).collect()
}

#[test]
fn fragments_and_their_total_are_bounded_exactly() {
    let (bytes_max, fragments_max) = (limits::MESSAGE_BYTES_MAX, limits::FRAGMENTS_MAX as usize);
    for (name, stream, expected) in [
        ("as many bytes as allowed, in one frame", fragments(&padded_request(bytes_max), bytes_max), Ok(())),
        ("as many bytes as allowed, in many", fragments(&padded_request(bytes_max), 1_000), Ok(())),
        ("one byte more, in one", fragments(&padded_request(bytes_max + 1), bytes_max + 1), Err(1009)),
        (
            "one byte more, in a last fragment",
            fragments(&padded_request(bytes_max + 1), bytes_max),
            Err(1009),
        ),
        ("one byte more, in many", fragments(&padded_request(bytes_max + 1), 1_000), Err(1009)),
        ("as many fragments as allowed", fragments(&padded_request(fragments_max), 1), Ok(())),
        ("one fragment more", fragments(&padded_request(fragments_max + 1), 1), Err(1008)),
    ] {
        let mut rig = Rig::new(config());
        let conn = rig.log_in("u", Platform::IOS);
        for piece in stream.chunks(1_400) {
            rig.bytes(conn, piece.to_vec());
        }
        rig.turn();
        match expected {
            Ok(()) => {
                assert_eq!(rig.calls().len(), 1, "{name}");
                assert_eq!(rig.read(conn), [], "{name}");
            }
            Err(code) => {
                assert_eq!(rig.calls().len(), 0, "{name}");
                assert_eq!(rig.read(conn), [Seen::Close(Some(code))], "{name}");
                assert!(rig.is_closed(conn), "{name}");
            }
        }
    }
}
