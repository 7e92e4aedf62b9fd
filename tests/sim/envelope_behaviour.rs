//! What requests get (spec 2.1, 2.4, 3.1 to 3.5, 6.4), field by field, in each of the four variants.

use bytes::Bytes;
use pinion::hub::Input;
use pinion::hub::mail::{KickMail, ShardMail};
use pinion::hub::upstream::{Method, UpstreamError, UpstreamOutcome, UpstreamRequest, UserPlatforms};
use pinion::ids::{ConnId, Platform, Text};
use pinion::limits;
use pinion::metrics::Metric;
use pinion::pb::openim::sdkws::{PushMessages, SubUserOnlineStatus, SubUserOnlineStatusTips};
use pinion::wire::envelope::{Codec, OwnedResponse, Request, Variant};
use prost::Message as _;

use crate::frames::{masked_frame, next_frame};
use crate::rig::{PLAIN_JSON, Rig, Seen, config, reply, ticket};

/// Every request that clients may send; the first eight are forwarded.
const REQUESTS: [(i32, Option<Method>); 10] = [
    (1001, Some(Method::GetMaxSeq)),
    (1002, Some(Method::PullMessageBySeqs)),
    (1003, Some(Method::SendMsg)),
    (1004, Some(Method::SendSignalMsg)),
    (1005, Some(Method::GetSeqMessage)),
    (1006, Some(Method::GetConversationsHasReadAndMaxSeq)),
    (1007, Some(Method::GetLastMessage)),
    (2003, Some(Method::DelUserPushToken)),
    (2004, None),
    (2005, None),
];

fn send(rig: &mut Rig, conn: ConnId, request: &Request) {
    let payload = Codec::default().encode_request(PLAIN_JSON, request);
    rig.bytes(conn, masked_frame(0x82, &payload, [1, 2, 3, 4]));
}

fn request(id: i32) -> Request {
    Request { id, send_id: "u".into(), operation_id: "op".into(), msg_incr: "m".into(), data: Bytes::new() }
}

fn watch(add: &[&str], remove: &[&str]) -> Bytes {
    let owned = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect();
    let body = SubUserOnlineStatus { subscribe_user_id: owned(add), unsubscribe_user_id: owned(remove) };
    body.encode_to_vec().into()
}

fn ok(data: &'static [u8]) -> UpstreamOutcome {
    UpstreamOutcome::Data(Bytes::from_static(data))
}

#[test]
fn each_request_reaches_its_method_with_its_metadata_and_untouched_data() {
    for (id, method) in REQUESTS {
        let mut rig = Rig::new(config());
        let conn = rig.log_in("u", Platform::ANDROID);
        // 2005 is decoded here; for the others any bytes, also such as are no protobuf.
        let data = if id == 2005 { watch(&["v"], &[]) } else { Bytes::from_static(b"\xff\x00any") };
        send(&mut rig, conn, &Request { data: data.clone(), ..request(id) });
        let calls = rig.calls();
        let expected = match (id, method) {
            (_, Some(method)) => vec![UpstreamRequest::Forward { method, data }],
            (2005, None) => vec![UpstreamRequest::UserStatus { users: vec!["v".into()] }],
            _ => vec![],
        };
        assert_eq!(calls.iter().map(|call| call.request.clone()).collect::<Vec<_>>(), expected, "{id}");
        for call in &calls {
            assert_eq!(
                (&*call.metadata.operation_id, &*call.metadata.user),
                ("op", "u"),
                "{id}: spec 3.2 rule 4"
            );
            assert_eq!(call.metadata.platform, Platform::ANDROID, "{id}");
            assert_eq!(call.metadata.connection_id.len(), 32, "{id}");
            assert_eq!(call.deadline, rig.now.mono.plus_ms(limits::UPSTREAM_DEADLINE_MS), "{id}");
        }
    }
}

#[test]
fn trap_15_empty_strings_are_legal_but_for_four_requests() {
    // Trap 15 and spec 3.2 rule 6: 1002, 1005, 1006 and 2004 want all strings; the others want none.
    for (id, method) in REQUESTS {
        for (operation_id, msg_incr) in [("", "m"), ("op", ""), ("", "")] {
            let mut rig = Rig::new(config());
            let conn = rig.log_in("u", Platform::IOS);
            let data = if id == 2005 { watch(&["v"], &[]) } else { Bytes::new() };
            let request =
                Request { operation_id: operation_id.into(), msg_incr: msg_incr.into(), data, ..request(id) };
            send(&mut rig, conn, &request);
            let name = format!("{id} with operationID {operation_id:?} and msgIncr {msg_incr:?}");
            let refused = matches!(id, 1002 | 1005 | 1006 | 2004);
            let calls = rig.calls();
            assert_eq!(calls.len(), usize::from(!refused && (method.is_some() || id == 2005)), "{name}");
            if refused {
                let seen = rig.read(conn);
                let got = reply(&seen);
                assert_eq!((got.id, got.err_code, &*got.err_msg), (id, 500, "ServerInternalError"), "{name}");
                assert_eq!((&*got.msg_incr, &*got.operation_id), (msg_incr, operation_id), "{name}: echoed");
            }
            assert!(!rig.is_closed(conn), "{name}");
        }
    }
}

#[test]
fn data_is_null_on_errors_and_for_2004_and_empty_otherwise() {
    // Trap 7, and spec 3.2 rule 3: code and message as upstream said, its detail never.
    let failure = || {
        UpstreamOutcome::Failed(UpstreamError { code: 1302, message: "Blocked".into(), detail: "x".into() })
    };
    for (id, method) in REQUESTS {
        for outcome in [ok(b""), ok(b"\x0a\x01"), failure()] {
            let mut rig = Rig::new(config());
            let conn = rig.log_in("u", Platform::IOS);
            let data = if id == 2005 { watch(&["v"], &[]) } else { Bytes::new() };
            send(&mut rig, conn, &Request { data, ..request(id) });
            if let Some(call) = rig.calls().pop() {
                rig.answer(&call, outcome.clone());
            }
            let raw = rig.read_bytes(conn);
            let json = String::from_utf8(next_frame(&raw).unwrap().payload.to_vec()).unwrap();
            let (code, message, data) = match (&outcome, method) {
                (_, None) if id == 2004 => (0, "", "null"),
                (UpstreamOutcome::Failed(_), _) => (1302, "Blocked", "null"),
                (UpstreamOutcome::Data(data), _) => {
                    (0, "", if data.is_empty() { "\"\"" } else { "\"CgE=\"" })
                }
                _ => panic!("no such outcome"),
            };
            assert_eq!(
                json,
                format!(
                    "{{\"reqIdentifier\":{id},\"msgIncr\":\"m\",\"operationID\":\"op\",\
                     \"errCode\":{code},\"errMsg\":\"{message}\",\"data\":{data}}}"
                ),
                "{outcome:?}"
            );
            assert_eq!(rig.is_closed(conn), id == 2003, "only a logout closes, whatever came of it");
        }
    }
}

#[test]
fn undecodable_protobuf_is_an_error_and_the_connection_stays() {
    // Spec 3.2 rule 7, for what is decoded here. The services decode the rest, see `backend/embedded/tests.rs`.
    for id in [2004, 2005] {
        let mut rig = Rig::new(config());
        let conn = rig.log_in("u", Platform::IOS);
        send(&mut rig, conn, &Request { data: Bytes::from_static(b"\xff\xff"), ..request(id) });
        let seen = rig.read(conn);
        assert_eq!((reply(&seen).id, reply(&seen).err_code), (id, 500));
        assert_eq!((&*reply(&seen).err_msg, &reply(&seen).data), ("ServerInternalError", &None));
        assert!(!rig.is_closed(conn) && rig.is_registered("u"));
    }
}

#[test]
fn of_several_faults_in_one_request_the_first_check_answers() {
    // Spec 3.2 rule 1: gunzip, envelope, SendID, identifier, fields. Each pair, the earlier wins.
    type Spoil = fn(&mut Request);
    let faults: [(Metric, Spoil); 3] = [
        (Metric::CloseSender, |request| request.send_id = "v".into()),
        (Metric::CloseRequest, |request| request.id = 4711),
        (Metric::RequestsFailed, |request| {
            (request.id, request.msg_incr) = (if request.id == 4711 { 4711 } else { 1002 }, "".into());
        }),
    ];
    for (at, (first, spoil_first)) in faults.iter().enumerate() {
        for (second, spoil_second) in &faults[at..] {
            let mut rig = Rig::new(config());
            let conn = rig.log_in("u", Platform::IOS);
            let mut spoiled = request(1001);
            spoil_first(&mut spoiled);
            spoil_second(&mut spoiled);
            send(&mut rig, conn, &spoiled);
            let counts = faults.map(|(metric, _)| rig.value(metric));
            let expected = faults.map(|(metric, _)| u64::from(metric as usize == *first as usize));
            assert_eq!(counts, expected, "{first:?} and {second:?}");
        }
        // Before all of them comes the envelope: cut it anywhere and only that is seen.
        let mut rig = Rig::new(config());
        let conn = rig.log_in("u", Platform::IOS);
        let mut spoiled = request(1001);
        spoil_first(&mut spoiled);
        let payload = Codec::default().encode_request(PLAIN_JSON, &spoiled);
        rig.bytes(conn, masked_frame(0x82, &payload[..payload.len() - 1], [1, 2, 3, 4]));
        assert_eq!((rig.value(Metric::CloseEnvelope), rig.value(*first)), (1, 0), "{first:?}");
    }
}

/// Everything that a client of a variant was sent, decoded as that variant and nothing else.
fn frames(rig: &mut Rig, conn: ConnId, variant: Variant) -> Vec<OwnedResponse> {
    let stream = rig.read_bytes(conn);
    let (mut rest, mut found) = (&stream[..], Vec::new());
    while let Some(frame) = next_frame(rest) {
        assert_eq!(frame.opcode, 2, "trap 3: JSON clients get binary frames, too");
        found.push(Codec::default().decode_response(variant, frame.payload).unwrap());
        rest = &rest[frame.len..];
    }
    assert!(rest.is_empty());
    found
}

#[test]
fn every_binary_frame_speaks_the_negotiated_variant() {
    // Trap 12: gzip once negotiated is for replies, pushes, presence tips and the kick alike.
    for variant in Variant::all() {
        let mut rig = Rig::new(config());
        let mut login = rig.arguments("u", Platform::IOS);
        (login.variant, login.wants_response) = (variant, true);
        let conn = rig.accept(login).unwrap();
        rig.answer_token("u", 1);
        rig.turn();
        let greeting = rig.read(conn);
        assert!(
            matches!(&greeting[1..], [Seen::Text(_)]),
            "the first frame is text in every variant: {greeting:?}"
        );
        let codec = |request: &Request| Codec::default().encode_request(variant, request);
        let data = watch(&["v"], &[]);
        rig.bytes(conn, masked_frame(0x82, &codec(&Request { data, ..request(2005) }), [1; 4]));
        let call = rig.calls().pop().unwrap();
        rig.answer(&call, UpstreamOutcome::Statuses(vec![]));
        let news = UserPlatforms { user: "v".into(), platforms: vec![1, 5] };
        rig.input(Input::Mail(ShardMail::PresenceNews(Box::new(news))));
        rig.push(7, 1, &["u"]);
        rig.turn();
        let mail = KickMail { ticket: ticket(1), platform: Platform::IOS, users: vec![Text::from("u")] };
        rig.input(Input::Mail(ShardMail::Kick(Box::new(mail))));
        rig.turn();
        let seen = frames(&mut rig, conn, variant);
        let fields: Vec<_> =
            seen.iter().map(|r| (r.id, &*r.msg_incr, &*r.operation_id, r.err_code, &*r.err_msg)).collect();
        // Spec 3.3: pushes carry the operation id of their RPC, tips and kicks nothing.
        assert_eq!(
            fields,
            [
                (2005, "m", "op", 0, ""),
                (2005, "", "", 0, ""),
                (2001, "", "push-7", 0, ""),
                (2002, "", "", 0, "")
            ]
        );
        let push = PushMessages::decode(seen[2].data.clone().unwrap()).unwrap();
        assert_eq!((push.msgs.len(), push.notification_msgs.len()), (1, 0), "one conversation, one message");
        let pulled = &push.msgs["si_a_b"];
        assert_eq!((pulled.msgs.len(), pulled.is_end, pulled.end_seq), (1, false, 0));
        assert_eq!(seen[3].data, None);
    }
}

#[test]
fn what_was_not_negotiated_closes_the_connection() {
    // Spec 2.4: gzip is mandatory both ways once negotiated, and unknown otherwise.
    for (mine, theirs) in Variant::all().flat_map(|a| Variant::all().map(move |b| (a, b))) {
        let mut rig = Rig::new(config());
        let mut login = rig.arguments("u", Platform::IOS);
        login.variant = mine;
        let conn = rig.accept(login).unwrap();
        rig.answer_token("u", 1);
        rig.turn();
        rig.read_bytes(conn);
        let payload = Codec::default().encode_request(theirs, &request(1001));
        rig.bytes(conn, masked_frame(0x82, &payload, [1; 4]));
        assert_eq!(
            (rig.calls().len(), rig.is_closed(conn)),
            (usize::from(mine == theirs), mine != theirs),
            "{mine:?} {theirs:?}"
        );
        assert_eq!(rig.read_bytes(conn), [0; 0]);
    }
}

#[test]
fn a_hung_upstream_stops_neither_pings_nor_other_replies() {
    // Trap 10, and trap 14: everything of this connection hangs but one, which is answered, as are all pings.
    let mut rig = Rig::new(config());
    let conn = rig.log_in("u", Platform::IOS);
    for n in 0..limits::REQUESTS_IN_FLIGHT_MAX - 1 {
        send(
            &mut rig,
            conn,
            &Request { msg_incr: format!("hangs{n}").into(), ..request(1003 + 2 * i32::from(n > 0)) },
        );
    }
    send(&mut rig, conn, &request(1001));
    let call = rig.calls().pop().unwrap();
    for n in 0..9u8 {
        rig.ping(conn, &[n]);
        rig.wait(1_000);
        assert_eq!(rig.read(conn), [Seen::Pong(vec![n])]);
    }
    send(&mut rig, conn, &Request { msg_incr: "local".into(), ..request(2004) });
    assert_eq!(reply(&rig.read(conn)).msg_incr, "local");
    rig.answer(&call, ok(b""));
    assert_eq!(reply(&rig.read(conn)).msg_incr, "m");
    // At the deadline each of those that hang is answered for, once.
    rig.wait(limits::UPSTREAM_DEADLINE_MS);
    let seen = rig.read(conn);
    assert_eq!(seen.len(), usize::from(limits::REQUESTS_IN_FLIGHT_MAX) - 1);
    assert!(
        seen.iter().all(|s| matches!(s, Seen::Reply(r) if r.err_code == 500 && r.data.is_none())),
        "{seen:?}"
    );
    assert!(!rig.is_closed(conn));
}

#[test]
fn a_logout_waits_for_the_sends_before_it_and_ends_those_behind() {
    // Upstream serves one request after the other, so it sends what was asked for before the logout, and nothing after.
    let mut rig = Rig::new(config());
    let conn = rig.log_in("u", Platform::IOS);
    for (id, name) in [(1003, "s1"), (1003, "s2"), (2003, "bye"), (1003, "s3")] {
        send(&mut rig, conn, &Request { msg_incr: name.into(), ..request(id) });
    }
    for name in ["s1", "s2", "bye"] {
        let calls = rig.calls();
        assert_eq!(calls.len(), 1, "before {name}: one at a time");
        assert_eq!(rig.read(conn), [], "before {name}");
        rig.answer(&calls[0], ok(b""));
        assert_eq!(reply(&rig.read(conn)).msg_incr, name);
    }
    assert!(rig.is_closed(conn));
    assert_eq!(rig.calls(), []);
}

#[test]
fn a_logout_closes_also_when_it_cannot_be_asked() {
    let mut rig = Rig::new(pinion::hub::HubConfig { connections_max: 20_000, ..config() });
    let conn = rig.log_in("u", Platform::IOS);
    // Token checks that never come back take every reply slot.
    for n in 0..limits::CALLS_IN_FLIGHT_MAX {
        let login = rig.arguments(&format!("w{n}"), Platform::WEB);
        rig.hub.accepted(
            rig.now,
            pinion::hub::Accepted { peer: ([10, 0, 0, 2], 9).into(), client: None, login: Box::new(login) },
        );
    }
    send(&mut rig, conn, &request(1001));
    let seen = rig.read(conn);
    assert_eq!((reply(&seen).id, reply(&seen).err_code), (1001, 500));
    assert!(!rig.is_closed(conn));
    send(&mut rig, conn, &request(2003));
    let seen = rig.read(conn);
    assert_eq!((reply(&seen).id, reply(&seen).err_code), (2003, 500));
    assert!(rig.is_closed(conn), "spec 3.2 rule 8");
}

#[test]
fn a_presence_subscription_answers_for_what_it_adds() {
    // Spec 3.5: removes first, then adds; the answer has one element per added id, with duplicates, in their order.
    for (add, remove, asked, watches) in [
        (&["v", "w", "v"][..], &[][..], Some(&["v", "w", "v"][..]), &["v", "w"][..]),
        (&["v"], &["v", "old"], Some(&["v"]), &["v"]),
        (&[], &["old"], None, &[]),
        (&[], &["nobody"], None, &["old"]),
        (&[], &[], None, &["old"]),
    ] {
        for fails in [false, true] {
            let mut rig = Rig::new(config());
            let conn = rig.log_in("u", Platform::IOS);
            send(&mut rig, conn, &Request { data: watch(&["old"], &[]), ..request(2005) });
            let call = rig.calls().pop().unwrap();
            rig.answer(&call, UpstreamOutcome::Statuses(vec![]));
            rig.read(conn);
            send(&mut rig, conn, &Request { data: watch(add, remove), ..request(2005) });
            let name = format!("add {add:?}, remove {remove:?}, fails {fails}");
            let online = |user: &str, platforms: &[i32]| UserPlatforms {
                user: user.into(),
                platforms: platforms.into(),
            };
            let calls = rig.calls();
            assert_eq!(calls.len(), usize::from(asked.is_some()), "{name}: nothing added, nothing asked");
            if let (Some(asked), [call]) = (asked, &calls[..]) {
                let users: Vec<Box<str>> = asked.iter().map(|user| (*user).into()).collect();
                assert_eq!(call.request, UpstreamRequest::UserStatus { users }, "{name}");
                let statuses = asked.iter().zip(1..).map(|(user, n)| online(user, &[n])).collect();
                let failed = UpstreamOutcome::Failed(UpstreamError::internal());
                rig.answer(call, if fails { failed } else { UpstreamOutcome::Statuses(statuses) });
            }
            let seen = rig.read(conn);
            if fails && asked.is_some() {
                assert_eq!((reply(&seen).err_code, &reply(&seen).data), (500, &None), "{name}");
            } else {
                let tips = SubUserOnlineStatusTips::decode(reply(&seen).data.clone().unwrap()).unwrap();
                let users: Vec<&str> = tips.subscribers.iter().map(|element| &*element.user_id).collect();
                assert_eq!(users, asked.unwrap_or_default(), "{name}");
            }
            // Even if the lookup failed the subscriptions stay.
            let expected: Vec<&str> = match (add, remove) {
                ([_, _, _], _) => [watches, &["old"]].concat(),
                _ => watches.to_vec(),
            };
            for user in ["v", "w", "old", "nobody"] {
                let news = ShardMail::PresenceNews(Box::new(online(user, &[1])));
                rig.input(Input::Mail(news));
                assert_eq!(rig.read(conn).len(), usize::from(expected.contains(&user)), "{name}: {user}");
            }
        }
    }
}

#[test]
fn replies_too_large_for_the_sdks_become_an_error() {
    // Trap 9: the SDK reads 1 MiB per frame and would otherwise drop, come back and ask again, for ever.
    for (len, code) in [(700_000, 0), (limits::FRAME_SENT_BYTES_MAX, 500)] {
        let mut rig = Rig::new(config());
        let conn = rig.log_in("u", Platform::IOS);
        send(&mut rig, conn, &request(1002));
        let call = rig.calls().pop().unwrap();
        rig.answer(&call, UpstreamOutcome::Data(vec![0; len].into()));
        let seen = rig.read(conn);
        assert_eq!((reply(&seen).err_code, reply(&seen).data.is_some()), (code, code == 0), "{len}");
        assert!(!rig.is_closed(conn));
    }
}
