//! Callers that break HTTP/2, stop half-way or do not read: each has its defined end, and the next caller is answered.

use super::grpc::{PUSH, push_request};
use super::wire::{
    ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PING, PREFACE, PRIORITY, PUSH_PROMISE,
    Peer, RST_STREAM, SETTINGS, WINDOW_UPDATE, call_head, frame, literals,
};
use super::*;
use crate::config::RpcLimits;
use crate::pb::openim::msggateway::OnlineBatchPushOneMsgResp;
use crate::shard::thread::tests::{drivers, on_each_of_the_drivers};
use std::io::Write;

/// Error codes (RFC 9113 section 7).
const NO_ERROR: u32 = 0;
const PROTOCOL_ERROR: u32 = 1;
const FLOW_CONTROL_ERROR: u32 = 3;
const FRAME_SIZE_ERROR: u32 = 6;
const REFUSED_STREAM: u32 = 7;
const CANCEL: u32 = 8;
const ENHANCE_YOUR_CALM: u32 = 11;

fn start(driver: DriverKind, behaviour: Shards, limits: RpcLimits) -> Node {
    let mut config = config();
    config.rpc.limits = limits;
    Node::start_with(driver, behaviour, config)
}

/// An honest caller's push.
fn assert_served(node: &Node, after: &str) {
    let answer = node.call::<OnlineBatchPushOneMsgResp>(PUSH, &push_request(&["on1", "on2"]));
    assert_eq!(answer.map(|a| a.single_push_result.len()), Ok(2), "after {after}");
}

/// Opens a call and leaves its body open.
fn open(stream: u32) -> Vec<u8> {
    frame(HEADERS, END_HEADERS, stream, &call_head())
}

/// A header block that grows: one long field is put into the dynamic table, then named in one byte each.
fn hpack_bomb(times: usize) -> Vec<u8> {
    let mut block = b"\x40\x01x\x7f\xa1\x1e".to_vec(); // with incremental indexing; 4 000 = 127 + 0x21 + 0x1e * 128
    block.extend(std::iter::repeat_n(b'a', 4_000));
    block.extend(std::iter::repeat_n(0x80 | 62, times));
    block
}

#[test]
fn each_kind_of_flood_ends_its_connection_with_enhance_your_calm_and_is_counted() {
    let quiet = RpcLimits { control_frames_per_s: 10, resets_per_s: 10, ..RpcLimits::DEFAULT };
    let control = [
        ("PING", frame(PING, 0, 0, b"12345678")),
        ("PING acks", frame(PING, ACK, 0, b"12345678")),
        ("SETTINGS", frame(SETTINGS, 0, 0, &[])),
        ("SETTINGS, changing", frame(SETTINGS, 0, 0, b"\0\x04\0\0\xff\xff")),
        ("WINDOW_UPDATE of the connection", frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1])),
        ("WINDOW_UPDATE of a stream", frame(WINDOW_UPDATE, 0, 1, &[0, 0, 0, 1])),
        ("PRIORITY", frame(PRIORITY, 0, 3, &[0, 0, 0, 0, 16])),
        ("unknown types", frame(0xbb, 0xff, 7, b"x")),
        ("tiny DATA", frame(DATA, 0, 1, b"\0")),
        ("padded DATA", frame(DATA, 0x8, 1, b"\x05\0\0\0\0\0")),
    ];
    let resets = (0..).map(|n| 3 + 2 * n).take(400);
    let resets =
        resets.flat_map(|id| [open(id), frame(RST_STREAM, 0, id, &[0, 0, 0, 8])]).collect::<Vec<_>>();
    for driver in drivers() {
        let node = start(driver, Shards::Answer, quiet);
        for (cut, (name, frame)) in (1..).zip(&control) {
            let mut peer = Peer::connect(node.grpc);
            peer.write(&open(1));
            peer.write(&frame.repeat(500));
            assert_eq!(peer.closed(), Some(ENHANCE_YOUR_CALM), "{driver:?} {name}");
            node.await_count(Metric::RpcCutControl, cut);
            assert_served(&node, name);
        }
        let mut peer = Peer::connect(node.grpc);
        peer.write(&resets.concat());
        assert_eq!(peer.closed(), Some(ENHANCE_YOUR_CALM), "{driver:?} rapid reset");
        node.await_count(Metric::RpcCutResets, 1);
        assert_served(&node, "rapid reset");
    }
}

#[test]
fn a_caller_just_within_its_rates_stays() {
    let limits = RpcLimits { control_frames_per_s: 10, resets_per_s: 10, ..RpcLimits::DEFAULT };
    let node = start(DriverKind::Epoll, Shards::Answer, limits);
    let mut peer = Peer::connect(node.grpc);
    // The burst is 40: SETTINGS, the acknowledged SETTINGS and the last PING are in it. Work pays for four each.
    peer.write(&frame(PING, 0, 0, b"12345678").repeat(37));
    assert!(peer.is_served());
    for id in [1, 3, 5] {
        peer.write(&frame(HEADERS, END_HEADERS | END_STREAM, id, &call_head()));
        peer.write(&frame(PING, 0, 0, b"12345678").repeat(3));
        assert!(peer.is_served());
    }
    node.await_count(Metric::RpcPushError, 3);
    assert_eq!(node.block.value(Metric::RpcCutControl), 0);
}

#[test]
fn what_h2_itself_calls_too_much_ends_the_connection() {
    let head = call_head();
    let table = [
        ("a CONTINUATION flood", {
            let first = frame(HEADERS, 0, 1, &head);
            [first, frame(CONTINUATION, 0, 1, &[]).repeat(20)].concat()
        }),
        ("an HPACK bomb", frame(HEADERS, END_HEADERS, 1, &[head.clone(), hpack_bomb(100)].concat())),
        ("ten thousand fields", {
            let block = literals(&[("a", "b")]).repeat(3_000);
            let first = frame(HEADERS, 0, 1, &block);
            [first, frame(CONTINUATION, 0, 1, &block), frame(CONTINUATION, END_HEADERS, 1, &block)].concat()
        }),
        ("empty DATA", [open(1), frame(DATA, 0, 1, &[]).repeat(101)].concat()),
        ("streams that are refused for their error", {
            let bad = literals(&[(":method", "POST"), (":method", "POST")]);
            (0..1_025).flat_map(|n| frame(HEADERS, END_HEADERS, 1 + 2 * n, &bad)).collect()
        }),
    ];
    for driver in drivers() {
        let node = start(driver, Shards::Answer, RpcLimits::DEFAULT);
        for (cut, (name, bytes)) in (1..).zip(&table) {
            let mut peer = Peer::connect(node.grpc);
            peer.write(bytes);
            assert_eq!(peer.closed(), Some(ENHANCE_YOUR_CALM), "{driver:?} {name}");
            node.await_count(Metric::RpcCutExcess, cut);
            assert_served(&node, name);
        }
    }
}

#[test]
fn broken_rules_of_the_connection_end_it_with_their_code() {
    let ended = frame(HEADERS, END_HEADERS | END_STREAM, 1, &call_head());
    let table = [
        ("a frame too large", frame(DATA, 0, 1, &[0; 16_385]), FRAME_SIZE_ERROR),
        ("too much window", frame(WINDOW_UPDATE, 0, 0, &[0x7f, 255, 255, 255]), FLOW_CONTROL_ERROR),
        ("a PING of 7 bytes", frame(PING, 0, 0, b"1234567"), PROTOCOL_ERROR),
        ("a SETTINGS of 5 bytes", frame(SETTINGS, 0, 0, b"12345"), PROTOCOL_ERROR),
        ("a window above 2^31", frame(SETTINGS, 0, 0, b"\0\x04\x80\0\0\0"), PROTOCOL_ERROR),
        ("an empty WINDOW_UPDATE", frame(WINDOW_UPDATE, 0, 0, &[0; 4]), PROTOCOL_ERROR),
        ("HEADERS of stream 0", frame(HEADERS, END_HEADERS, 0, &call_head()), PROTOCOL_ERROR),
        ("an even stream", open(2), PROTOCOL_ERROR),
        ("a lower stream", [open(5), open(3)].concat(), PROTOCOL_ERROR),
        ("a stream again", ended.repeat(2), PROTOCOL_ERROR),
        ("DATA before HEADERS", frame(DATA, 0, 1, b"x"), PROTOCOL_ERROR),
        ("RST_STREAM before HEADERS", frame(RST_STREAM, 0, 9, &[0, 0, 0, 8]), PROTOCOL_ERROR),
        ("DATA after its stream", [ended, frame(DATA, 0, 1, b"x")].concat(), PROTOCOL_ERROR),
        ("a CONTINUATION of nothing", frame(CONTINUATION, END_HEADERS, 1, &[]), PROTOCOL_ERROR),
        ("HEADERS within HEADERS", frame(HEADERS, 0, 1, &[]).repeat(2), PROTOCOL_ERROR),
        (
            "a PUSH_PROMISE",
            [open(1), frame(PUSH_PROMISE, END_HEADERS, 1, &[0, 0, 0, 2])].concat(),
            PROTOCOL_ERROR,
        ),
        ("upper case", frame(HEADERS, END_HEADERS, 1, &literals(&[("Upper", "x")])), PROTOCOL_ERROR),
        ("no HPACK", frame(HEADERS, END_HEADERS, 1, &[0xff; 20]), PROTOCOL_ERROR),
    ];
    for driver in drivers() {
        let node = start(driver, Shards::Answer, RpcLimits::DEFAULT);
        for (cut, (name, bytes, code)) in (1..).zip(&table) {
            let mut peer = Peer::connect(node.grpc);
            peer.write(bytes);
            assert_eq!(peer.closed(), Some(*code), "{driver:?} {name}");
            node.await_count(Metric::RpcCutProtocol, cut);
        }
        assert_served(&node, "broken rules");
    }
}

#[test]
fn broken_rules_of_a_stream_end_that_stream_alone() {
    let limits = RpcLimits { streams_max: 3, ..RpcLimits::DEFAULT };
    let with = |field| [call_head(), literals(&[field])].concat();
    let table = [
        ("a second method", with((":method", "POST")), PROTOCOL_ERROR),
        ("a field of the connection", with(("connection", "close")), PROTOCOL_ERROR),
        ("another te", with(("te", "gzip")), PROTOCOL_ERROR),
        ("an answer's field", with((":status", "200")), PROTOCOL_ERROR),
    ];
    for driver in drivers() {
        let node = start(driver, Shards::Mute, limits);
        let mut peer = Peer::connect(node.grpc);
        let mut id = 1;
        for (name, block, code) in &table {
            peer.write(&frame(HEADERS, END_HEADERS, id, block));
            let outcome = peer.outcome(id);
            assert_eq!((outcome.kind, outcome.code()), (RST_STREAM, *code), "{driver:?} {name}");
            id += 2;
        }
        let length = with(("content-length", "5"));
        peer.write(&[frame(HEADERS, END_HEADERS, 11, &length), frame(DATA, 0, 11, b"123456")].concat());
        assert_eq!(peer.outcome(11).code(), PROTOCOL_ERROR, "a longer body than announced");
        peer.write(&[open(13), frame(WINDOW_UPDATE, 0, 13, &[0x7f, 255, 255, 255])].concat());
        assert_eq!(peer.outcome(13).code(), FLOW_CONTROL_ERROR, "too much window");
        // The limit is three: the fourth is refused, and there is a place once another is given up.
        peer.write(&[15, 17, 19, 21].map(open).concat());
        assert_eq!(peer.outcome(21).code(), REFUSED_STREAM, "{driver:?}");
        peer.write(&[frame(RST_STREAM, 0, 15, &[0, 0, 0, 8]), open(23)].concat());
        assert!(peer.is_served());
        node.await_count(Metric::RpcOpen, 3);
        assert_eq!(node.block.value(Metric::RpcCutProtocol), 0);
    }
}

#[test]
fn the_stream_above_the_default_limit_is_refused() {
    let node = start(DriverKind::Epoll, Shards::Mute, RpcLimits::DEFAULT);
    let mut peer = Peer::connect(node.grpc);
    peer.write(&(0..1_025).flat_map(|n| open(1 + 2 * n)).collect::<Vec<_>>());
    let refused = peer.find(|f| f.kind == RST_STREAM);
    assert_eq!((refused.stream, refused.code()), (1 + 2 * 1_024, REFUSED_STREAM));
    node.await_count(Metric::RpcOpen, 1_024);
}

#[test]
fn what_is_no_http2_is_closed_at_once_and_silence_at_its_deadline() {
    let hello = b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03 a client hello of TLS 1.3, cut";
    on_each_of_the_drivers(|driver| {
        let node = start(driver, Shards::Answer, RpcLimits::DEFAULT);
        let mut silent = [Peer::silent(node.grpc), Peer::silent(node.grpc)];
        silent[1].write(&PREFACE[..20]);
        for (refused, bytes) in (1..).zip([
            &b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"[..],
            hello,
            &[PREFACE[0]; 24],
            b"PRI * HTTP/3.0\r\n\r\n",
        ]) {
            let mut peer = Peer::silent(node.grpc);
            peer.write(bytes);
            peer.closed();
            node.await_count(Metric::RpcRefused, refused);
        }
        // Closed before its preface was complete.
        drop(Peer::silent(node.grpc));
        node.await_count(Metric::RpcRefused, 5);
        assert_served(&node, "no HTTP/2");
        for peer in &mut silent {
            peer.closed();
        }
        node.await_count(Metric::RpcRefusedLate, 2);
    });
}

#[test]
fn connections_have_a_limit_and_so_have_those_of_one_address() {
    let table = [
        (RpcLimits { connections_max: 3, ..RpcLimits::DEFAULT }, Metric::RpcRefusedFull),
        (RpcLimits { address_connections_max: 3, ..RpcLimits::DEFAULT }, Metric::RpcRefusedAddress),
    ];
    for driver in drivers() {
        for (limits, metric) in table {
            let node = start(driver, Shards::Answer, limits);
            let mut peers = [(); 3].map(|()| Peer::connect(node.grpc));
            assert!(peers.iter_mut().all(Peer::is_served));
            assert_eq!(Peer::connect(node.grpc).closed(), None, "{driver:?} {metric:?}");
            node.await_count(metric, 1);
            let [first, ..] = peers;
            drop(first);
            // Its place is free once the server has seen that it left.
            let start = clock::now().mono;
            while !Peer::connect(node.grpc).is_served() {
                assert!(clock::now().mono.since_ms(start) < 60_000, "the place does not come back");
            }
        }
    }
}

#[test]
fn a_caller_that_leaves_with_goaway_or_half_closes_gets_its_answers_or_cancels() {
    let whole = crate::wire::grpc::frame(&push_request(&["on1"]).encode_to_vec()).unwrap();
    let call = [open(1), frame(DATA, END_STREAM, 1, &whole)].concat();
    for driver in drivers() {
        let node = start(driver, Shards::Answer, RpcLimits::DEFAULT);
        let mut peer = Peer::connect(node.grpc);
        peer.write(&[call.clone(), frame(GOAWAY, 0, 0, &[0; 8])].concat());
        assert_eq!(peer.outcome(1).kind, HEADERS, "{driver:?}: what was asked before is answered");
        assert_eq!(peer.closed(), Some(NO_ERROR));
        // Half-closed TCP: nobody can be there to read HTTP/2 answers for long, so its calls end.
        let mute = start(driver, Shards::Mute, RpcLimits::DEFAULT);
        let mut peer = Peer::connect(mute.grpc);
        peer.write(&call);
        let noted = mute.noted.recv_timeout(std::time::Duration::from_secs(60));
        let Ok(Noted::Push(ticket)) = noted else { panic!("{noted:?}") };
        peer.0.shutdown(std::net::Shutdown::Write).unwrap();
        peer.closed();
        let noted = mute.noted.recv_timeout(std::time::Duration::from_secs(60));
        assert_eq!(noted, Ok(Noted::Cancel(ticket)), "{driver:?}");
        mute.await_count(Metric::RpcCancelled, 1);
    }
}

#[test]
fn a_caller_that_does_not_read_its_socket_is_cut_and_one_that_gives_no_window_loses_its_call() {
    let kick = crate::pb::openim::msggateway::KickUserOfflineReq {
        platform_id: 5,
        kick_user_id_list: vec!["on1".into()],
    };
    let kick_head = literals(&[
        (":method", "POST"),
        (":scheme", "http"),
        (":path", "/openim.msggateway.msgGateway/KickUserOffline"),
        ("content-type", "application/grpc"),
        ("operationid", "op"),
    ]);
    let body = crate::wire::grpc::frame(&kick.encode_to_vec()).unwrap();
    let rate = limits::H2_RATE_MAX; // so that it is not cut for its PINGs
    let limits = RpcLimits { send_deadline_ms: 300, control_frames_per_s: rate, ..RpcLimits::DEFAULT };
    on_each_of_the_drivers(|driver| {
        let node = start(driver, Shards::Answer, limits);
        let mut windowless = Peer::connect_with(node.grpc, b"\0\x04\0\0\0\0");
        windowless
            .write(&[frame(HEADERS, END_HEADERS, 1, &kick_head), frame(DATA, END_STREAM, 1, &body)].concat());
        // It asks and asks, and never reads: in the end its writes wait for ours.
        let mut deaf = Peer::connect(node.grpc);
        rustix::net::sockopt::set_socket_recv_buffer_size(&deaf.0, 4_096).unwrap();
        deaf.0.set_nonblocking(true).unwrap();
        let ping = frame(PING, 0, 0, b"12345678").repeat(100);
        let (begun, mut at) = (clock::now().mono, 0);
        while node.block.value(Metric::RpcCutStuck) == 0 {
            // A write may end inside a frame: the next one goes on there.
            at = (at + deaf.0.write(&ping[at..]).unwrap_or_default()) % ping.len();
            // For room, or for a look at the count.
            let mut room = [PollFd::new(&deaf.0, PollFlags::OUT)];
            poll(&mut room, Some(&Timespec { tv_sec: 0, tv_nsec: 10_000_000 })).unwrap();
            assert!(clock::now().mono.since_ms(begun) < 60_000, "{driver:?}: never cut");
        }
        assert_served(&node, "a deaf caller");
        let outcome = windowless.outcome(1);
        assert_eq!((outcome.kind, outcome.code()), (RST_STREAM, CANCEL), "{driver:?}");
        assert!(windowless.is_served(), "only its call is lost");
    });
}

#[test]
fn connections_that_wait_when_a_drain_begins_are_answered() {
    let whole = crate::wire::grpc::frame(&push_request(&["on1"]).encode_to_vec()).unwrap();
    let call = [PREFACE, &frame(SETTINGS, 0, 0, &[]), &open(1), &frame(DATA, END_STREAM, 1, &whole)].concat();
    for driver in drivers() {
        let node = start(driver, Shards::Answer, RpcLimits::DEFAULT);
        let mut peers: Vec<Peer> = (0..300).map(|_| Peer::silent(node.grpc)).collect();
        peers.iter_mut().for_each(|peer| peer.write(&call));
        node.rpc.post(RpcMail::Drain(clock::now().mono.plus_ms(60_000))).unwrap();
        for (n, peer) in peers.iter_mut().enumerate() {
            assert_eq!(peer.outcome(1).kind, HEADERS, "{driver:?} connection {n}");
        }
        node.await_count(Metric::RpcPushOk, 300);
    }
}
