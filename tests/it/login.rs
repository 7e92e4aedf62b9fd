//! Logging in, talking, being pushed to and being kicked, over loopback and across shards.

use std::io::{Read, Write};
use std::net::TcpStream;

use pinion::pb::openim::msg::SendMsgResp;
use pinion::pb::openim::sdkws::{GetMaxSeqReq, GetMaxSeqResp};
use pinion::wire::envelope::{Encoding, Variant};
use prost::Message as _;
use tungstenite::Message;

use crate::harness::{Client, Frame, Gateway, Options, eventually, text_message};

const GET_NEWEST_SEQ: i32 = 1001;
const SEND_MSG: i32 = 1003;
const KICKED: i32 = 2002;

#[test]
fn each_encoding_logs_in_sends_receives_and_syncs() {
    let gateway = Gateway::start(&["--shards-count", "2"]);
    let mut bob = gateway.connect("bob", 2);
    for (encoding, gzip) in
        [(Encoding::Gob, false), (Encoding::Gob, true), (Encoding::Json, false), (Encoding::Json, true)]
    {
        let options = Options { variant: Variant { encoding, gzip }, ..Options::default() };
        let text = format!("{encoding:?} {gzip}");
        let mut alice = gateway.connect_with("alice", 1, &options);
        let reply = alice.request(SEND_MSG, &text_message("alice", "bob", &text));
        assert_eq!((reply.err_code, reply.err_msg.as_str()), (0, ""), "{text}");
        let sent = SendMsgResp::decode(reply.data.unwrap()).unwrap();
        assert!(!sent.server_msg_id.is_empty() && sent.send_time > 0, "{sent:?}");
        assert_eq!(bob.pushed_text(), text);
        let reply = bob.request(SEND_MSG, &text_message("bob", "alice", &text));
        assert_eq!(reply.err_code, 0, "{}", reply.err_msg);
        assert_eq!(alice.pushed_text(), text);
        let user_id = "alice".into();
        let reply = alice.request(GET_NEWEST_SEQ, &GetMaxSeqReq { user_id });
        let seqs = GetMaxSeqResp::decode(reply.data.unwrap()).unwrap();
        assert!(seqs.max_seqs["si_alice_bob"] >= 2, "{seqs:?}");
    }
}

#[test]
fn users_of_both_shards_are_reached_wherever_they_were_accepted() {
    let gateway = Gateway::start(&["--shards-count", "2"]);
    let users: Vec<String> = (0..24).map(|n| format!("user{n}")).collect();
    let mut clients: Vec<_> = users.iter().map(|user| gateway.connect(user, 1)).collect();
    let names: Vec<&str> = users.iter().map(String::as_str).collect();
    let answer = gateway.push("system", &names, "to all");
    assert_eq!(answer.single_push_result.len(), users.len());
    for (result, user) in answer.single_push_result.iter().zip(&users) {
        assert_eq!((&result.user_id, result.online_push), (user, true));
        assert_eq!(result.resp.iter().map(|device| device.result_code).collect::<Vec<_>>(), [0]);
    }
    for client in &mut clients {
        assert_eq!(client.pushed_text(), "to all");
    }
    // 24 connections, each with an even chance to be accepted by the wrong shard.
    eventually("the counts of hand-overs and users", || {
        let metrics = gateway.metrics();
        let moved = |direction: &str| metrics.sum("pinion_hand_overs_total", &[direction]);
        let users: Vec<f64> = ["shard=\"0\"", "shard=\"1\""]
            .iter()
            .map(|shard| metrics.sum("pinion_users", &[shard]))
            .collect();
        let done = moved("out") > 0.0 && moved("out") == moved("in") && users[0] > 0.0 && users[1] > 0.0;
        (done && users[0] + users[1] == 24.0).then_some(())
    });
}

#[test]
fn a_second_login_of_user_and_platform_kicks_the_first() {
    let gateway = Gateway::start(&["--shards-count", "2"]);
    let mut first = gateway.connect("alice", 1);
    let mut elsewhere = gateway.connect("alice", 7);
    let mut second = gateway.connect("alice", 1);
    match first.next() {
        Frame::Response(frame) => assert_eq!(frame.id, KICKED),
        other => panic!("no kick: {other:?}"),
    }
    first.closed();
    gateway.push("system", &["alice"], "after");
    assert_eq!((second.pushed_text(), elsewhere.pushed_text()), ("after".into(), "after".into()));
}

#[test]
fn heartbeats_in_text_are_answered_and_the_first_frame_is_told_when_asked_for() {
    let gateway = Gateway::start(&["--shards-count", "2"]);
    let options = Options { extra: "&isMsgResp=true".into(), ..Options::default() };
    let mut client = gateway.connect_with("alice", 5, &options);
    let text = |frame| match frame {
        Frame::Text(text) => text,
        other => panic!("no text: {other:?}"),
    };
    assert_eq!(text(client.next()), r#"{"errCode":0,"errMsg":"","errDlt":""}"#);
    client.send_raw(Message::text(r#"{"type":"ping"}"#));
    assert_eq!(text(client.next()), r#"{"type":"pong","body":null}"#);
}

#[test]
fn a_bad_login_is_refused_counted_and_harms_nobody() {
    let gateway = Gateway::start(&["--shards-count", "2"]);
    let login = |user: &str, token: &str| {
        let options = Options::default();
        Client::connect(gateway.websocket, user, 1, token, &options).map(|_| ()).unwrap_err()
    };
    let good = gateway.token("alice", 1);
    for (user, token, outcome, part) in [
        ("alice", "nonsense", "token_refused", "200 {\"errCode\":1503,"),
        ("bob", good.as_str(), "token_refused", "200 {\"errCode\":1502,"),
        ("", good.as_str(), "bad_arguments", "200 {\"errCode\":1602,"),
    ] {
        let label = format!("outcome=\"{outcome}\"");
        let count = || gateway.metrics().sum("pinion_handshakes_total", &[&label]);
        let before = count();
        let refusal = login(user, token);
        assert!(refusal.starts_with(part), "{refusal}");
        eventually("the count", || (count() > before).then_some(()));
        gateway.connect("carol", 1);
    }
}

#[test]
fn a_head_without_end_is_refused_with_431() {
    let gateway = Gateway::start(&["--shards-count", "1"]);
    let mut socket = TcpStream::connect(gateway.websocket).unwrap();
    socket.set_read_timeout(Some(crate::harness::DEADLINE)).unwrap();
    let head = format!("GET /?x={} HTTP/1.1\r\n", "y".repeat(64 * 1024));
    // The gateway may have closed before all of it was sent.
    let _ = socket.write_all(head.as_bytes());
    let mut answer = [0; 12];
    socket.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"HTTP/1.1 431");
    gateway.connect("alice", 1);
}

#[test]
fn missing_arguments_are_refused_unless_the_gateway_is_lenient() {
    // Spec 1.2, trap 2: some third-party clients leave out `isBackground` and `operationID`.
    for (flags, lenient) in
        [(&["--shards-count", "1"][..], false), (&["--shards-count", "1", "--login-lenient", "true"], true)]
    {
        let gateway = Gateway::start(flags);
        let token = gateway.token("alice", 1);
        for (extra, detail) in [("", "invalid syntax"), ("&isBackground=0", "operationID is empty")] {
            let mut socket = TcpStream::connect(gateway.websocket).unwrap();
            socket.set_read_timeout(Some(crate::harness::DEADLINE)).unwrap();
            write!(
                socket,
                "GET /?sendID=alice&token={token}&platformID=1{extra} HTTP/1.1\r\nHost: it\r\nConnection: Upgrade\r\n\
                 Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                 Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
            )
            .unwrap();
            // A refusal ends with the connection, a login does not.
            let (mut answer, mut chunk) = (Vec::new(), [0; 4096]);
            while !answer.windows(4).any(|four| four == b"\r\n\r\n") || !lenient {
                match socket.read(&mut chunk).unwrap() {
                    0 => break,
                    n => answer.extend(&chunk[..n]),
                }
            }
            let answer = String::from_utf8_lossy(&answer);
            let expected = if lenient { "101" } else { "200" };
            assert!(answer.starts_with(&format!("HTTP/1.1 {expected} ")), "{extra}: {answer}");
            assert_eq!(answer.contains(detail), !lenient, "{extra}: {answer}");
        }
    }
}
