//! Ending: SIGTERM drains, answers what is in flight, says goodbye with a close frame and exits 0 in time.

use std::net::TcpStream;

use pinion::pb::openim::sdkws::GetMaxSeqReq;
use rustix::process::Signal;

use crate::harness::{Frame, Gateway, eventually};

const GET_NEWEST_SEQ: i32 = 1001;
const GOING_AWAY: u16 = 1001;

#[test]
fn sigterm_answers_what_is_in_flight_then_closes_with_1001_and_exits_0() {
    for signal in [Signal::TERM, Signal::INT] {
        // The address is its own, so that nobody else can listen there afterwards.
        let mut gateway = Gateway::start(&[
            "--shards-count",
            "2",
            "--websocket-address",
            "127.0.0.11",
            "--drain-deadline-ms",
            "600s",
            "--plant-upstream",
            "slow:300",
        ]);
        let mut clients: Vec<_> = (0..6).map(|n| gateway.connect(&format!("u{n}"), 1)).collect();
        let asked: Vec<_> =
            clients.iter_mut().map(|client| client.send(GET_NEWEST_SEQ, &GetMaxSeqReq::default())).collect();
        eventually("the requests to be read", || {
            let frames = gateway.metrics().sum("pinion_frames_total", &["direction=\"in\""]);
            (frames >= asked.len() as f64).then_some(())
        });
        gateway.signal(signal);
        for (client, msg_incr) in clients.iter_mut().zip(asked) {
            match client.next() {
                Frame::Response(reply) => assert_eq!(reply.msg_incr, msg_incr),
                other => panic!("the reply is missing: {other:?}"),
            }
            assert_eq!(client.closed(), Some(Some(GOING_AWAY)));
        }
        assert_eq!(gateway.wait().code(), Some(0));
        assert!(TcpStream::connect(gateway.websocket).is_err(), "still listening");
    }
}

#[test]
fn an_idle_gateway_ends_long_before_its_drain_deadline() {
    let mut gateway = Gateway::start(&["--shards-count", "2", "--drain-deadline-ms", "600s"]);
    gateway.signal(Signal::TERM);
    assert_eq!(gateway.wait().code(), Some(0));
}

#[test]
fn readyz_turns_away_while_the_gateway_drains() {
    // One client leaves in a tick of 100 ms: the drain lasts long enough to be seen.
    let mut gateway = Gateway::start(&["--shards-count", "1", "--drain-deadline-ms", "600s"]);
    let mut clients: Vec<_> = (0..50).map(|n| gateway.connect(&format!("u{n}"), 1)).collect();
    assert_eq!(gateway.get("/readyz").unwrap().0, 200);
    gateway.signal(Signal::TERM);
    let (status, body) = eventually("/readyz to turn away", || {
        gateway.get("/readyz").ok().filter(|(status, _)| *status != 200)
    });
    assert_eq!(status, 503, "{body}");
    for client in &mut clients {
        assert_eq!(client.closed(), Some(Some(GOING_AWAY)));
    }
    assert_eq!(gateway.wait().code(), Some(0));
}

#[test]
fn a_second_signal_means_now() {
    let mut gateway = Gateway::start(&["--shards-count", "1", "--drain-deadline-ms", "600s"]);
    let clients: Vec<_> = (0..4).map(|n| gateway.connect(&format!("u{n}"), 1)).collect();
    gateway.signal(Signal::TERM);
    eventually("the drain to begin", || gateway.logs().contains("draining").then_some(()));
    gateway.signal(Signal::TERM);
    assert_eq!(gateway.wait().code(), Some(0));
    drop(clients);
}
