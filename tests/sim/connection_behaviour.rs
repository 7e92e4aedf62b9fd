//! The life of one connection as its client sees it (spec 1.5 to 1.7): what keeps it alive, how large a message may be,
//! and how each end looks on the wire. What requests get is in `envelope_behaviour` and `request_behaviour`.

use bytes::Bytes;
use pinion::hub::upstream::UpstreamOutcome;
use pinion::hub::{HubConfig, Input};
use pinion::ids::{ConnId, Platform};
use pinion::limits;
use pinion::metrics::Metric;
use pinion::session::disconnect::Disconnect;
use pinion::session::handshake::Refusal;
use pinion::wire::envelope::{Codec, Encoding, Request, Variant};

use crate::frames::{masked_frame, next_frame};
use crate::freeze::thaw;
use crate::rig::{PLAIN_JSON, Rig, Seen, config, reply};

const KEY: [u8; 4] = [9, 8, 7, 6];

fn request(send_id: &str, id: i32) -> Request {
    Request {
        id,
        send_id: send_id.into(),
        operation_id: "o".into(),
        msg_incr: "m".into(),
        data: Bytes::new(),
    }
}

fn envelope(variant: Variant, request: &Request) -> Vec<u8> {
    Codec::default().encode_request(variant, request)
}

fn log_in_as(rig: &mut Rig, variant: Variant) -> ConnId {
    let mut login = rig.arguments("u", Platform::IOS);
    login.variant = variant;
    let conn = rig.accept(login).unwrap();
    rig.answer_token("u", 1);
    rig.turn();
    rig.read_bytes(conn);
    conn
}

/// A gob or JSON request of `len` bytes, by padding.
fn sized(variant: Variant, len: usize) -> Vec<u8> {
    let mut bytes = match variant.encoding {
        Encoding::Json => envelope(variant, &request("u", 1001)),
        Encoding::Gob => {
            let data = vec![b'x'; len - 200].into();
            envelope(variant, &Request { data, ..request("u", 1001) })
        }
    };
    // JSON may end in space, and what follows a gob value is ignored.
    bytes.resize(len, b' ');
    bytes
}

#[test]
fn every_complete_frame_renews_the_read_deadline_and_nothing_else_does() {
    // Spec 1.5, MAIN's column. A pong counts (trap 11), solicited or not.
    let binary = envelope(PLAIN_JSON, &request("u", 2004));
    let half = masked_frame(0x82, &binary, KEY)[..20].to_vec();
    let cases: [(&str, Vec<u8>, bool); 8] = [
        ("binary", masked_frame(0x82, &binary, KEY), true),
        ("text ping", masked_frame(0x81, br#"{"type":"ping"}"#, KEY), true),
        ("text pong", masked_frame(0x81, br#"{"type":"pong"}"#, KEY), true),
        ("ping", masked_frame(0x89, b"1", KEY), true),
        ("pong", masked_frame(0x8a, b"", KEY), true),
        (
            "two fragments",
            [masked_frame(0x02, &binary[..5], KEY), masked_frame(0x80, &binary[5..], KEY)].concat(),
            true,
        ),
        ("half a frame", half, false),
        ("the first of two fragments", masked_frame(0x02, &binary[..5], KEY), false),
    ];
    for (name, bytes, renews) in cases {
        for platform in [Platform::IOS, Platform::WEB] {
            let mut rig = Rig::new(config());
            let conn = rig.log_in("u", platform);
            rig.wait(limits::READ_DEADLINE_MS - 1_000);
            rig.bytes(conn, bytes.clone());
            // What the gateway sends is no sign of life of the client.
            rig.push(1, 1, &["u"]);
            rig.wait(2_000);
            assert_eq!(rig.is_closed(conn), !renews, "{name} on {platform:?}");
            if renews {
                rig.wait(limits::READ_DEADLINE_MS + limits::REST_MS);
                assert!(rig.is_closed(conn), "{name} on {platform:?}: renewed once, not for ever");
            }
            assert!(
                !rig.read(conn).iter().any(|seen| matches!(seen, Seen::Close(_))),
                "{name}: a bare close"
            );
        }
    }
}

#[test]
fn the_message_limit_is_exact_and_counts_wire_bytes_of_all_fragments() {
    // Spec 1.5, trap 8: 51 200 bytes as they come, compressed or not; one more is 1009 with an empty reason.
    assert_eq!(limits::MESSAGE_BYTES_MAX, 51_200);
    let gob = Variant { encoding: Encoding::Gob, gzip: false };
    for variant in [gob, PLAIN_JSON] {
        for (len, fits) in [(51_200, true), (51_201, false)] {
            let message = sized(variant, len);
            let whole = masked_frame(0x82, &message, KEY);
            let (a, b) = message.split_at(30_000);
            let (b, c) = b.split_at(100);
            let fragments =
                [masked_frame(0x02, a, KEY), masked_frame(0x00, b, KEY), masked_frame(0x80, c, KEY)].concat();
            for (name, bytes) in [("whole", whole), ("fragments", fragments)] {
                let mut rig = Rig::new(config());
                let conn = log_in_as(&mut rig, variant);
                rig.bytes(conn, bytes);
                assert_eq!(rig.calls().len(), usize::from(fits), "{variant:?} {name} of {len}");
                let sent = rig.read_bytes(conn);
                let close: &[u8] = if fits { &[] } else { &[0x88, 2, 0x03, 0xf1] };
                assert_eq!(sent, close, "{variant:?} {name} of {len}");
                assert_eq!(rig.is_closed(conn), !fits);
            }
        }
    }
}

#[test]
fn a_small_message_may_inflate_up_to_our_own_limit() {
    // Trap 8: legitimate requests grow to several hundred KB; above the cap the connection closes without a frame.
    for encoding in [Encoding::Gob, Encoding::Json] {
        for (len, fits) in
            [(500_000, true), (limits::INFLATED_BYTES_MAX, true), (limits::INFLATED_BYTES_MAX + 1, false)]
        {
            let plain = match encoding {
                Encoding::Json => {
                    let mut json = envelope(PLAIN_JSON, &request("u", 1001));
                    json.resize(len, b' ');
                    json
                }
                Encoding::Gob => {
                    // What follows the value is ignored (spec 2.2), but it is inflated.
                    let mut gob = envelope(Variant { encoding, gzip: false }, &request("u", 1001));
                    gob.resize(len, 0);
                    gob
                }
            };
            let mut writer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
            std::io::Write::write_all(&mut writer, &plain).unwrap();
            let packed = writer.finish().unwrap();
            assert!(packed.len() < limits::MESSAGE_BYTES_MAX);
            let mut rig = Rig::new(config());
            let conn = log_in_as(&mut rig, Variant { encoding, gzip: true });
            rig.bytes(conn, masked_frame(0x82, &packed, KEY));
            assert_eq!(
                (rig.calls().len(), rig.is_closed(conn)),
                (usize::from(fits), !fits),
                "{encoding:?} {len}"
            );
            assert_eq!(rig.value(Metric::CloseInflated), u64::from(!fits));
            assert_eq!(rig.read_bytes(conn), [0; 0], "{encoding:?} {len}");
        }
    }
}

#[test]
fn each_end_looks_as_the_specification_says_and_comes_in_bounded_time() {
    // Spec 1.7: most are a bare close; only breaches of the protocol, the size limit and the peer's close have a frame.
    let text = |bytes: &[u8]| masked_frame(0x81, bytes, KEY);
    let json = |bytes: &[u8]| masked_frame(0x82, bytes, KEY);
    let ask = |user: &str, id: i32| json(&envelope(PLAIN_JSON, &request(user, id)));
    let fragments = [masked_frame(0x02, b"", KEY), masked_frame(0x00, b"", KEY).repeat(5_000)].concat();
    type Case<'a> = (&'a str, Vec<u8>, Option<&'a [u8]>, Metric);
    let cases: [Case<'_>; 19] = [
        ("no JSON", json(b"no json"), None, Metric::CloseEnvelope),
        ("an empty message", json(b""), None, Metric::CloseEnvelope),
        ("bad text", text(b"hello"), None, Metric::CloseText),
        ("a text of another type", text(br#"{"type":"hello"}"#), None, Metric::CloseText),
        ("unknown request", ask("u", 4711), None, Metric::CloseRequest),
        ("the push frame", ask("u", 2001), None, Metric::CloseRequest),
        ("the kick frame", ask("u", 2002), None, Metric::CloseRequest),
        ("data error", ask("u", 3001), None, Metric::CloseRequest),
        ("another sender", ask("v", 1001), None, Metric::CloseSender),
        ("no sender", ask("", 1001), None, Metric::CloseSender),
        ("reserved bit", masked_frame(0xc2, b"", KEY), Some(b"\x03\xeaRSV bits set"), Metric::CloseProtocol),
        ("opcode 3", masked_frame(0x83, b"", KEY), Some(b"\x03\xeabad opcode"), Metric::CloseProtocol),
        ("unmasked", vec![0x82, 0], Some(b"\x03\xeaclient frame not masked"), Metric::CloseProtocol),
        (
            "bad close code",
            masked_frame(0x88, b"\x03\xed", KEY),
            Some(b"\x03\xeabad close code"),
            Metric::CloseProtocol,
        ),
        (
            "cut ping",
            masked_frame(0x09, b"", KEY),
            Some(b"\x03\xeafragmented control frame"),
            Metric::CloseProtocol,
        ),
        ("too many fragments", fragments, Some(b"\x03\xf0too many fragments"), Metric::CloseFragments),
        ("too big", vec![0x82, 0xfe, 0xff, 0xff, 1, 2, 3, 4], Some(b"\x03\xf1"), Metric::CloseTooBig),
        ("close 3001", masked_frame(0x88, b"\x0b\xb9bye", KEY), Some(b"\x0b\xb9"), Metric::ClosePeer),
        ("close without code", masked_frame(0x88, b"", KEY), Some(b""), Metric::ClosePeer),
    ];
    for (name, bytes, close, metric) in cases {
        for reads in [true, false] {
            let mut rig = Rig::new(config());
            let conn = rig.log_in("u", Platform::IOS);
            rig.bytes(conn, bytes.clone());
            assert_eq!(rig.value(metric), 1, "{name}");
            assert_eq!(rig.is_closed(conn), close.is_none(), "{name}: a bare close waits for nothing");
            if reads {
                let sent = rig.read_bytes(conn);
                let frame = next_frame(&sent).map(|frame| (frame.opcode, frame.payload, frame.len));
                assert_eq!(frame, close.map(|close| (8, close, sent.len())), "{name}: {sent:02x?}");
            } else {
                rig.wait(limits::FLUSH_DEADLINE_MS + limits::TICK_MS);
            }
            assert!(rig.is_closed(conn), "{name}, reads {reads}");
            rig.turn();
            assert!(!rig.is_registered("u"), "{name}");
        }
    }
}

fn captures() -> serde_json::Value {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vectors/openim-handshake.json");
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

#[test]
fn captured_control_frames_are_answered_and_keep_the_connection() {
    let file = captures();
    let frames = file["control_frames"].as_array().unwrap();
    assert!(frames.len() >= 4);
    for frame in frames {
        let mut rig = Rig::new(config());
        let conn = rig.log_in("u", Platform::WEB);
        rig.wait(20_000);
        let payload = unhex(frame["payload_hex"].as_str().unwrap());
        let is_ping = frame["opcode"] == "ping";
        rig.bytes(conn, masked_frame(if is_ping { 0x89 } else { 0x8a }, &payload, KEY));
        let expected = if is_ping { vec![Seen::Pong(payload)] } else { vec![] };
        assert_eq!(rig.read(conn), expected, "{frame}");
        rig.wait(20_000);
        assert!(!rig.is_closed(conn), "{frame} is a sign of life");
    }
}

#[test]
fn captured_closes_end_the_session_and_are_echoed() {
    let file = captures();
    let closes = file["close"].as_array().unwrap();
    assert!(closes.len() >= 10);
    for close in closes {
        let mut rig = Rig::new(config());
        let conn = rig.log_in("u", Platform::WEB);
        let code = u16::try_from(close["code_seen_by_gateway"].as_u64().unwrap()).unwrap();
        let reason = close["reason"].as_str().unwrap();
        let (expected, metric) = match code {
            // No close frame at all, RFC 6455 section 7.1.5.
            1006 => {
                rig.input(Input::TransportLost(conn));
                (vec![], Metric::CloseLost)
            }
            // A close frame without a code.
            1005 => {
                rig.bytes(conn, masked_frame(0x88, b"", KEY));
                (vec![Seen::Close(None)], Metric::ClosePeer)
            }
            code => {
                let payload = [&code.to_be_bytes(), reason.as_bytes()].concat();
                rig.bytes(conn, masked_frame(0x88, &payload, KEY));
                (vec![Seen::Close(Some(code))], Metric::ClosePeer)
            }
        };
        assert_eq!(rig.read(conn), expected, "{close}");
        assert!(rig.is_closed(conn), "{close}");
        assert_eq!(rig.value(metric), 1, "{close}");
        rig.turn();
        assert!(!rig.is_registered("u"));
    }
}

#[test]
fn captured_refusals_are_what_a_refused_client_reads() {
    let file = captures();
    for rejection in file["rejections"].as_array().unwrap() {
        let body = &rejection["body"];
        let of = |key: &str| body[key].as_str().unwrap();
        let refusal = Refusal {
            code: i32::try_from(body["errCode"].as_i64().unwrap()).unwrap(),
            message: of("errMsg").into(),
            detail: of("errDlt").into(),
        };
        let read: serde_json::Value = serde_json::from_str(&refusal.json()).unwrap();
        assert_eq!(read, *body);
        let in_band = rejection["how"].as_str().unwrap().starts_with("101");
        let mut rig = Rig::new(config());
        let mut login = rig.arguments("u", Platform::WEB);
        login.wants_response = in_band;
        let conn = rig.accept(login).unwrap();
        let call = rig.calls().pop().unwrap();
        let Refusal { code, message, detail } = refusal.clone();
        rig.answer(
            &call,
            UpstreamOutcome::Failed(pinion::hub::upstream::UpstreamError { code, message, detail }),
        );
        match &rig.read(conn)[..] {
            [Seen::Http(http)] => assert!(!in_band && http.ends_with(&refusal.json()), "{http}"),
            [Seen::Http(_), Seen::Text(text)] => assert!(in_band && *text == refusal.json(), "{text}"),
            other => panic!("{other:?}"),
        }
        assert!(rig.is_closed(conn), "and no close frame");
    }
}

#[test]
fn text_frames_come_only_where_clients_expect_them() {
    // Trap 5: an unsolicited text frame kills clients silently. A Web client that is pinged, pushed to, answered and
    // kicked never sees one but the pong it asked for.
    let mut rig = Rig::new(config());
    let conn = rig.log_in("u", Platform::WEB);
    rig.wait(limits::WEB_PING_INTERVAL_MS + limits::REST_MS);
    rig.push(1, 1, &["u"]);
    rig.turn();
    rig.request(conn, "u", (2004, "m"), b"");
    rig.bytes(conn, masked_frame(0x81, br#"{"type":"pong","body":1}"#, KEY));
    rig.bytes(conn, masked_frame(0x81, br#"{"type":"ping","body":"op"}"#, KEY));
    rig.log_in("u", Platform::WEB);
    rig.turn();
    let seen = rig.read(conn);
    let texts: Vec<&Seen> = seen.iter().filter(|seen| matches!(seen, Seen::Text(_))).collect();
    assert_eq!(texts, [&Seen::Text(r#"{"type":"pong","body":"op"}"#.into())]);
    let ids = seen.iter().filter_map(|seen| if let Seen::Reply(r) = seen { Some(r.id) } else { None });
    assert!(ids.eq([2001, 2004, 2002]), "{seen:?}");
}

#[test]
fn a_flushed_end_keeps_what_was_queued_before_it() {
    // Trap 13 for the logout: pushes and replies that wait go out first, then the reply, then the end.
    for reads in [true, false] {
        let mut rig = Rig::new(config());
        let conn = rig.log_in("u", Platform::IOS);
        rig.push(1, 1, &["u"]);
        rig.turn();
        rig.request(conn, "u", (2003, "bye"), b"");
        let call = rig.calls().pop().unwrap();
        rig.answer(&call, UpstreamOutcome::Data(Bytes::new()));
        assert!(!rig.is_closed(conn));
        if reads {
            let seen = rig.read(conn);
            assert_eq!(reply(&seen[..1]).id, 2001);
            assert_eq!(reply(&seen[1..]).msg_incr, "bye");
        } else {
            rig.wait(limits::FLUSH_DEADLINE_MS + limits::TICK_MS);
        }
        assert!(rig.is_closed(conn), "reads {reads}");
    }
}

#[test]
fn a_crowd_that_falls_silent_together_is_ended_in_more_than_one_turn() {
    let crowd = limits::TIMER_BATCH_MAX as u64 + 20;
    let mut rig = Rig::new(HubConfig { connections_max: 1_000, ..config() });
    for n in 0..crowd {
        rig.log_in(&format!("u{n}"), Platform::IOS);
    }
    let ended = |rig: &mut Rig| rig.value(Disconnect::ReadDeadline.terms().metric);
    rig.now.mono = rig.now.mono.plus_ms(limits::READ_DEADLINE_MS + limits::TICK_MS + limits::REST_MS);
    rig.input(Input::Tick);
    assert_eq!(ended(&mut rig), limits::TIMER_BATCH_MAX as u64);
    rig.hub = thaw(&rig.hub);
    assert!(rig.hub.has_work());
    rig.turn();
    assert_eq!(ended(&mut rig), 20); // the tally is not written out
}
