//! An operator's drain of a running gateway: by HTTP and by `pinion drain`, with its way back and its end by signal.

use std::io::{Read, Write};
use std::net::TcpStream;

use pinion::pb::openim::sdkws::GetMaxSeqReq;
use rustix::process::Signal;
use serde_json::Value;
use tungstenite::Message;

use crate::harness::{Client, Frame, Gateway, eventually, pinion, run, texts};

const GET_NEWEST_SEQ: i32 = 1001;
const GOING_AWAY: u16 = 1001;

/// A POST on the admin port: status and body.
pub(crate) fn post(gateway: &Gateway, path: &str) -> (u16, String) {
    let mut socket = TcpStream::connect(gateway.http).unwrap();
    write!(socket, "POST {path} HTTP/1.1\r\nHost: it\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        .unwrap();
    let mut text = String::new();
    socket.read_to_string(&mut text).unwrap();
    let status = text.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap();
    (status, text.split_once("\r\n\r\n").unwrap().1.to_owned())
}

fn view(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|e| panic!("{e}: {text}"))
}

fn drain(gateway: &Gateway) -> Value {
    view(&gateway.get("/v1/drain").unwrap().1)
}

fn command(gateway: &Gateway, arguments: &[&str]) -> (i32, String, String) {
    let http = gateway.http.to_string();
    texts(&run(pinion(&[&["drain"], arguments, &["--http", &http]].concat())))
}

fn crowd(gateway: &Gateway, n: usize) -> Vec<Client> {
    (0..n).map(|n| gateway.connect(&format!("u{n}"), 1)).collect()
}

fn is_served(client: &mut Client, user: &str) {
    let request = GetMaxSeqReq { user_id: user.into() };
    assert_eq!(client.request(GET_NEWEST_SEQ, &request).err_code, 0);
}

fn engines() -> impl Iterator<Item = [&'static str; 2]> {
    ["auto", "task"].into_iter().map(|engine| ["--shards-engine", engine])
}

#[test]
fn a_drained_gateway_refuses_clients_says_1001_and_stays_until_it_is_told_to_serve_again() {
    for engine in engines() {
        let flags =
            ["--shards-count", "2", "--drain-evict-per-s", "1000", "--websocket-address", "127.0.0.12"];
        let gateway = Gateway::start(&[&flags[..], &engine].concat());
        let mut clients = crowd(&gateway, 8);
        assert_eq!(drain(&gateway)["state"], "serving");
        let (code, text, error) = command(&gateway, &["--wait"]);
        assert_eq!((code, error.as_str()), (0, ""));
        assert!(
            text.starts_with("draining: 8 connections here") && text.contains("\nempty: 0 conn"),
            "{text}"
        );
        for client in &mut clients {
            assert_eq!(client.closed(), Some(Some(GOING_AWAY)));
        }
        let seen = drain(&gateway);
        assert_eq!(
            (&seen["state"], &seen["evicted"], &seen["connections"]),
            (&"empty".into(), &8.into(), &0.into())
        );
        assert_eq!(seen["rate_from"], "drain.evict_per_s");
        assert_eq!(gateway.get("/readyz").unwrap(), (503, "draining\n".to_owned()));
        assert!(TcpStream::connect(gateway.websocket).is_err(), "still listening");
        let metrics = gateway.metrics();
        assert_eq!(metrics.sum("pinion_draining", &[]), 1.0);
        assert_eq!(metrics.sum("pinion_drain_evictions_per_second_limit", &[]), 1000.0);
        assert_eq!(metrics.sum("pinion_drain_evicted_total", &[]), 8.0);
        // Other orders are carried out meanwhile, and the same one again changes nothing.
        assert_eq!(post(&gateway, "/v1/reload").0, 200);
        assert_eq!(view(&post(&gateway, "/v1/drain").1)["state"], "empty");

        let (code, text, error) = command(&gateway, &["--cancel"]);
        assert_eq!((code, error.as_str()), (0, ""), "{text}");
        assert!(text.starts_with("serving: 0 connections here"), "{text}");
        assert_eq!(gateway.get("/readyz").unwrap().0, 200);
        let mut clients = crowd(&gateway, 6);
        clients.iter_mut().zip(0..).for_each(|(client, n)| is_served(client, &format!("u{n}")));
        eventually("the metric", || (gateway.metrics().sum("pinion_draining", &[]) == 0.0).then_some(()));
        let (status, why) = post(&gateway, "/v1/drain/cancel");
        assert_eq!((status, why.as_str()), (400, "400: the gateway does not drain\n"));
    }
}

#[test]
fn a_drain_that_is_cancelled_in_the_middle_keeps_who_is_left() {
    // At one in a second most are still here when it is cancelled.
    let gateway = Gateway::start(&["--shards-count", "2", "--drain-evict-per-s", "1"]);
    let mut clients = crowd(&gateway, 20);
    assert_eq!(post(&gateway, "/v1/drain").0, 200);
    let evicted = || drain(&gateway)["evicted"].as_u64().unwrap();
    eventually("the first to leave", || (evicted() > 0).then_some(()));
    assert_eq!(post(&gateway, "/v1/drain/cancel").0, 200);
    let registered = || gateway.metrics().sum("pinion_registered_connections", &[]);
    let left = eventually("the counts to agree", || {
        let gone = gateway.metrics().sum("pinion_closes_total", &["reason=\"drain\""]);
        (gone + registered() == 20.0).then_some(registered())
    });
    assert!(left > 10.0, "{left}");
    let mut newcomer = gateway.connect("newcomer", 1);
    is_served(&mut newcomer, "newcomer");
    let mut open = 0.0;
    for client in &mut clients {
        // Those who were told to go have the close frame before an answer to this.
        client.send_raw_unless_gone(Message::Ping(Default::default()));
        open += f64::from(u8::from(matches!(client.next(), Frame::Control)));
    }
    assert_eq!(open, left);
}

#[test]
fn a_request_in_flight_is_answered_before_its_client_leaves() {
    let flags = ["--shards-count", "1", "--drain-evict-per-s", "1000", "--plant-upstream", "slow:3000"];
    let gateway = Gateway::start(&flags);
    let mut client = gateway.connect("u0", 1);
    let asked = client.send(GET_NEWEST_SEQ, &GetMaxSeqReq::default());
    eventually("the request to be read", || {
        (gateway.metrics().sum("pinion_upstream_calls_in_flight", &[]) >= 1.0).then_some(())
    });
    assert_eq!(post(&gateway, "/v1/drain").0, 200);
    match client.next() {
        Frame::Response(reply) => assert_eq!(reply.msg_incr, asked),
        other => panic!("the reply is missing: {other:?}"),
    }
    assert_eq!(client.closed(), Some(Some(GOING_AWAY)));
}

#[test]
fn sigterm_in_a_drain_sets_the_deadline_and_the_next_one_means_now() {
    let flags = ["--shards-count", "2", "--drain-evict-per-s", "1", "--drain-deadline-ms", "600s"];
    let mut gateway = Gateway::start(&flags);
    let mut clients = crowd(&gateway, 30);
    assert_eq!(post(&gateway, "/v1/drain").0, 200);
    gateway.signal(Signal::TERM);
    let ending =
        eventually("the end to begin", || Some(drain(&gateway)).filter(|seen| seen["state"] == "ending"));
    assert!(ending["left_ms"].as_u64().unwrap() > 500_000, "{ending}");
    let (status, why) = post(&gateway, "/v1/drain/cancel");
    assert_eq!((status, why.as_str()), (400, "400: the gateway ends: SIGTERM cannot be taken back\n"));
    gateway.signal(Signal::TERM);
    for client in &mut clients {
        assert_eq!(client.closed(), Some(Some(GOING_AWAY)));
    }
    assert_eq!(gateway.wait().code(), Some(0));
}

#[test]
fn an_empty_gateway_ends_at_once_on_sigterm() {
    let mut gateway = Gateway::start(&["--shards-count", "2", "--drain-deadline-ms", "600s"]);
    assert_eq!(view(&post(&gateway, "/v1/drain").1)["connections"], 0);
    eventually("the log to say it", || gateway.logs().contains("empty; waiting for SIGTERM").then_some(()));
    gateway.signal(Signal::TERM);
    assert_eq!(gateway.wait().code(), Some(0));
}
