//! Bad input at each door of a running gateway: the defined answer, a counter, and the next client unaffected.
//! (A bad configuration: `commands.rs`. Heads that are too slow: `src/shard/tests`, with a chosen clock.)

use std::io::{Read, Write};
use std::net::TcpStream;

use flate2::Compression;
use flate2::write::GzEncoder;
use pinion::limits;
use pinion::pb::openim::msggateway::{KickUserOfflineReq, KickUserOfflineResp};
use pinion::pb::openim::sdkws::GetMaxSeqReq;
use pinion::rpc::client::{CallError, call_once};
use pinion::wire::envelope::{Encoding, Variant};
use tungstenite::Message;
use tungstenite::protocol::frame::Frame;
use tungstenite::protocol::frame::coding::{Data, OpCode};

use crate::harness::{CALL_DEADLINE_MS, Client, DEADLINE, Frame as Received, Gateway, Options, eventually};

fn gateway() -> Gateway {
    Gateway::start(&["--shards-count", "2"])
}

/// Waits until a counter has reached a value.
fn counted(gateway: &Gateway, family: &str, label: &str, at_least: f64) {
    let reached = || (gateway.metrics().sum(family, &[label]) >= at_least).then_some(());
    eventually(&format!("{family}{{{label}}} {at_least}"), reached);
}

/// Logs in, asks and is answered: the gateway is well.
fn is_well(gateway: &Gateway) {
    let mut client = gateway.connect("wellwisher", 7);
    let user_id = "wellwisher".into();
    assert_eq!(client.request(1001, &GetMaxSeqReq { user_id }).err_code, 0);
}

/// Sends raw bytes to the WebSocket port and reads the answer to its end.
fn raw(gateway: &Gateway, bytes: &[u8]) -> String {
    let mut socket = TcpStream::connect_timeout(&gateway.websocket, DEADLINE).unwrap();
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    // The gateway may have closed before all of it was sent.
    let _ = socket.write_all(bytes);
    let mut answer = Vec::new();
    // A reset after the answer is as good as an end.
    let _ = socket.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

#[test]
fn heads_that_are_no_heads() {
    let gateway = gateway();
    let long = [b"GET / HTTP/1.1\r\nX: ".as_slice(), &vec![b'x'; 64 * 1024]].concat();
    for (bytes, status, outcome) in [
        (long.as_slice(), "431", "head_too_long"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".as_slice(), "400", "bad_head"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".as_slice(), "400", "bad_head"),
    ] {
        let answer = raw(&gateway, bytes);
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{outcome}: {answer:?}");
        counted(&gateway, "pinion_handshakes_total", &format!("outcome=\"{outcome}\""), 1.0);
    }
    is_well(&gateway);
}

#[test]
fn frames_and_envelopes_that_are_none() {
    let gateway = gateway();
    let gzip = |bytes: &[u8]| {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    };
    let bomb = gzip(&vec![0; 8 * 1024 * 1024]);
    assert!(bomb.len() < 51_200, "the bomb passes the wire limit");
    let plain = Variant { encoding: Encoding::Gob, gzip: false };
    let zipped = Variant { gzip: true, ..plain };
    let json = Variant { encoding: Encoding::Json, gzip: false };
    let binary = |bytes: Vec<u8>| Message::Binary(bytes.into());
    let cases: [(Variant, Message, &str, Option<u16>); 8] = [
        (plain, binary(vec![0xff; 40]), "bad_envelope", None),
        (plain, binary(Vec::new()), "bad_envelope", None),
        (json, binary(b"{\"reqIdentifier\":1e3}".to_vec()), "bad_envelope", None),
        (zipped, binary(b"no gzip".to_vec()), "bad_envelope", None),
        (zipped, binary(bomb), "inflated_too_big", None),
        (plain, binary(vec![0; 51_201]), "message_too_big", Some(1009)),
        (plain, Message::text("hello"), "bad_text_frame", None),
        (json, binary(br#"{"reqIdentifier":4242,"sendID":"eve"}"#.to_vec()), "unknown_request", None),
    ];
    let mut bystander = gateway.connect("bystander", 2);
    for (variant, message, reason, code) in cases {
        let before = gateway.metrics().sum("pinion_closes_total", &[&format!("reason=\"{reason}\"")]);
        let options = Options { variant, ..Options::default() };
        let mut eve = gateway.connect_with("eve", 1, &options);
        eve.send_raw(message);
        assert_eq!(eve.closed(), code.map(Some), "{reason}");
        counted(&gateway, "pinion_closes_total", &format!("reason=\"{reason}\""), before + 1.0);
    }
    gateway.push("system", &["bystander"], "still here");
    assert_eq!(bystander.pushed_text(), "still here");
    is_well(&gateway);
}

#[test]
fn bytes_that_are_no_websocket_frame() {
    let gateway = gateway();
    let mut eve = raw_login(&gateway, "eve");
    // RSV bits set, unmasked: RFC 6455 section 5.2.
    eve.write_all(&[0xf2, 0x01, 0x00]).unwrap();
    let mut answer = Vec::new();
    let _ = eve.read_to_end(&mut answer);
    assert_eq!(answer.first(), Some(&0x88), "a close frame: {answer:02x?}");
    assert_eq!(answer.get(2..4), Some(1002_u16.to_be_bytes().as_slice()), "{answer:02x?}");
    counted(&gateway, "pinion_closes_total", "reason=\"protocol_error\"", 1.0);
    is_well(&gateway);
}

/// Sends a binary message in fragments of `size` bytes, as far as the gateway takes them.
fn send_in_fragments(client: &mut Client, message: &[u8], size: usize) {
    let last = message.len().div_ceil(size) - 1;
    for (n, piece) in message.chunks(size).enumerate() {
        let data = if n == 0 { Data::Binary } else { Data::Continue };
        client.send_raw(Message::Frame(Frame::message(piece.to_vec(), OpCode::Data(data), n == last)));
    }
}

#[test]
fn fragments_and_their_total_are_bounded() {
    let gateway = gateway();
    let options =
        Options { variant: Variant { encoding: Encoding::Json, gzip: false }, ..Options::default() };
    let padded = |len: usize| {
        let mut json = br#"{"reqIdentifier":1001,"sendID":"eve","msgIncr":"1","data":"CgNldmU="}"#.to_vec();
        json.resize(len, b' ');
        json
    };
    let (bytes_max, fragments_max) = (limits::MESSAGE_BYTES_MAX, limits::FRAGMENTS_MAX as usize);
    let mut eve = gateway.connect_with("eve", 1, &options);
    for (len, size) in [(bytes_max, bytes_max), (bytes_max, 999), (fragments_max, 1)] {
        send_in_fragments(&mut eve, &padded(len), size);
        let answer = eve.next();
        assert!(matches!(&answer, Received::Response(r) if r.err_code == 0), "{len} by {size}: {answer:?}");
    }
    for (len, size, reason, code) in [
        (bytes_max + 1, bytes_max, "message_too_big", 1009),
        (fragments_max + 1, 1, "too_many_fragments", 1008),
    ] {
        let mut eve = gateway.connect_with("eve", 1, &options);
        send_in_fragments(&mut eve, &padded(len), size);
        assert_eq!(eve.closed(), Some(Some(code)), "{reason}");
        counted(&gateway, "pinion_closes_total", &format!("reason=\"{reason}\""), 1.0);
    }
    is_well(&gateway);
}

/// Logs in by hand, so that anything can be sent afterwards.
fn raw_login(gateway: &Gateway, user: &str) -> TcpStream {
    let token = gateway.token(user, 1);
    let mut socket = TcpStream::connect_timeout(&gateway.websocket, DEADLINE).unwrap();
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    write!(
        socket,
        "GET /?sendID={user}&token={token}&platformID=1&operationID=it&isBackground=false HTTP/1.1\r\nHost: it\r\n\
         Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    .unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        socket.read_exact(&mut byte).unwrap();
        head.extend(byte);
    }
    assert!(head.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&head));
    socket
}

#[test]
fn tokens_and_arguments_that_are_refused() {
    let gateway = gateway();
    let connect = |user: &str, token: &str| {
        let refused = Client::connect(gateway.websocket, user, 1, token, &Options::default()).map(drop);
        refused.expect_err("refused")
    };
    let good = gateway.token("alice", 1);
    for (user, token, code) in [
        ("alice", "nonsense", 1503),
        ("alice", &format!("{}x", &good[..good.len() - 1]), 1505),
        ("mallory", &good, 1502),
    ] {
        let answer = connect(user, token);
        assert!(answer.contains(&format!("\"errCode\":{code}")), "{user}: {answer}");
        assert!(!answer.contains(&good), "tokens are not echoed: {answer}");
    }
    assert!(connect("", &good).contains("sendID is empty"));
    counted(&gateway, "pinion_handshakes_total", "outcome=\"token_refused\"", 3.0);
    counted(&gateway, "pinion_handshakes_total", "outcome=\"bad_arguments\"", 1.0);
    is_well(&gateway);
}

#[test]
fn grpc_bodies_that_cannot_be_decoded() {
    let gateway = gateway();
    let path = "/openim.msggateway.msgGateway/SuperGroupOnlineBatchPushOneMsg";
    let metadata = [("operationid", "it")];
    let call = |body: &'static [u8]| call_once(gateway.grpc, path, &metadata, body.into(), CALL_DEADLINE_MS);
    let status = |answer: Result<_, CallError>| match answer {
        Err(CallError::Refused(status)) => (status.code, status.message),
        other => panic!("no status: {other:?}"),
    };
    let (code, _) = status(call(b"\x0a\xff\xff\xff\xff\x0f").map(drop));
    assert_eq!(code, 13, "as grpc-go answers to bytes that are no protobuf");
    counted(&gateway, "pinion_rpc_bad_requests_total", "", 1.0);
    let (code, message) = status(call(b"").map(drop));
    assert_eq!((code, message.as_str()), (1001, "ArgsError"));
    let request = KickUserOfflineReq { platform_id: 10, kick_user_id_list: vec!["alice".into()] };
    let kick = gateway.call::<KickUserOfflineResp>("KickUserOffline", &metadata, &request);
    assert_eq!(status(kick.map(drop)).0, 1001, "platform 10 is refused, as upstream does (spec trap 19)");
    let unknown = gateway.call::<KickUserOfflineResp>("KickUserOffline", &[], &request);
    assert_eq!(status(unknown.map(drop)).0, 3, "operationid is missing");
    is_well(&gateway);
}
