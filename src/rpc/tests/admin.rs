//! The admin endpoints, and what becomes of requests that are too long, too slow or malformed.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use super::*;

/// Sends bytes and reads until the server closes.
fn send(node: &Node, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(node.http).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    // The server may close before it has read everything.
    let written = stream.write_all(request);
    let mut answer = Vec::new();
    let read = stream.read_to_end(&mut answer);
    assert!(!answer.is_empty(), "{written:?} {read:?}");
    String::from_utf8(answer).unwrap()
}

pub(super) fn get(node: &Node, path: &str) -> (String, String) {
    let answer = send(node, format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n").as_bytes());
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.to_owned(), body.to_owned())
}

fn status(answer: &str) -> &str {
    answer.split(' ').nth(1).unwrap()
}

#[test]
fn endpoints_answer_and_others_are_refused() {
    on_each_driver(Shards::Absent, |node| {
        let (head, body) = get(node, "/healthz");
        assert_eq!((status(&head), body.as_str()), ("200", "ok\n"));
        assert!(head.contains("connection: close"), "{head}");
        assert_eq!(status(&get(node, "/nothing").0), "404");
        let posted = send(node, b"POST /healthz HTTP/1.1\r\ncontent-length: 2\r\n\r\nab");
        assert_eq!(status(&posted), "405");
        let (head, body) = get(node, "/metrics?x=1");
        assert_eq!(status(&head), "200");
        assert!(head.contains("application/openmetrics-text"), "{head}");
        assert!(body.contains("pinion_http_requests_total{shard=\"rpc0\"}"), "{body}");
        assert!(body.ends_with("# EOF\n"));
        node.await_count(Metric::HttpRequests, 4);
    });
}

#[test]
fn readyz_follows_the_state_of_the_node_and_the_pulse_of_its_shards() {
    on_each_driver(Shards::Absent, |node| {
        let ready = || {
            let (head, body) = get(node, "/readyz");
            (status(&head).to_owned(), body)
        };
        assert_eq!(ready(), ("503".to_owned(), "starting\n".to_owned()));
        node.admission.set_state(NodeState::Ready);
        assert_eq!(ready(), ("200".to_owned(), "ready\n".to_owned()));
        let long_ago = Mono(clock::now().mono.0.saturating_sub(3_000));
        node.pulses[1].begin(long_ago);
        let (code, why) = ready();
        assert_eq!(code, "503");
        assert!(why.starts_with("shard 1 stalled for "), "{why}");
        node.pulses[1].turn(clock::now().mono);
        assert_eq!(ready().0, "200");
        node.admission.set_state(NodeState::Draining);
        assert_eq!(ready(), ("503".to_owned(), "draining\n".to_owned()));
    });
}

#[test]
fn too_long_and_malformed_requests_are_refused_and_counted() {
    on_each_driver(Shards::Absent, |node| {
        let long = format!("GET / HTTP/1.1\r\nx: {}", "y".repeat(limits::ADMIN_REQUEST_BYTES));
        assert_eq!(status(&send(node, long.as_bytes())), "431");
        assert_eq!(status(&send(node, b"\0\0\0\r\n\r\n")), "400");
        node.await_count(Metric::HttpRefused, 2);
        assert_eq!(get(node, "/healthz").1, "ok\n", "the next one is unaffected");
    });
}

#[test]
fn a_request_that_does_not_arrive_is_refused_at_its_deadline() {
    let drivers = crate::shard::thread::tests::drivers();
    std::thread::scope(|scope| {
        for driver in drivers {
            scope.spawn(move || {
                let node = Node::start(driver, Shards::Absent);
                let start = clock::now().mono;
                assert_eq!(status(&send(&node, b"GET /healthz HT")), "408", "{driver:?}");
                let waited = clock::now().mono.since_ms(start);
                assert!(waited >= limits::ADMIN_REQUEST_MS - 100, "{driver:?}: after {waited} ms");
                node.await_count(Metric::HttpRefused, 1);
            });
        }
    });
}

#[test]
fn connections_above_the_limit_are_closed_and_places_come_back() {
    on_each_driver(Shards::Absent, |node| {
        let idle: Vec<_> =
            (0..limits::ADMIN_CONNECTIONS_MAX).map(|_| TcpStream::connect(node.http).unwrap()).collect();
        let mut refused = TcpStream::connect(node.http).unwrap();
        refused.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        assert_eq!(refused.read(&mut [0; 1]).unwrap_or_default(), 0);
        node.await_count(Metric::HttpRefused, 1);
        drop(idle);
        let start = clock::now().mono;
        loop {
            // The places come back when the server has seen the ends.
            let mut stream = TcpStream::connect(node.http).unwrap();
            let mut answer = String::new();
            let sent = stream.write_all(b"GET /healthz HTTP/1.1\r\n\r\n");
            if sent.and_then(|()| stream.read_to_string(&mut answer)).is_ok_and(|n| n > 0) {
                break;
            }
            assert!(clock::now().mono.since_ms(start) < 60_000, "places do not come back");
        }
    });
}

#[test]
fn operators_ask_the_owner_shard_about_a_user() {
    on_each_driver(Shards::Answer, |node| {
        for (path, code, part) in [
            ("/v1/who?user=on1", "200", "{\"user\":\"on1\",\"shard\":"),
            ("/v1/who?user=%61%20b", "200", "\"user\":\"a b\""),
            ("/v1/who?user=x", "200", "\"left_out\":3"),
            ("/v1/who", "400", "which user?"),
            ("/v1/who?user=%ff", "400", "not UTF-8"),
            ("/v1/trace?user=on1&for_ms=30000", "200", "\"left_ms\":30000"),
            ("/v1/trace?user=on1&cursor=7", "200", "\"next\":7"),
            ("/v1/trace?user=on1&for_ms=600001", "400", "from 1 to 600000"),
            ("/v1/trace?user=on1", "400", "cursor=N"),
            ("/v1/trace?user=off&cursor=7", "404", "not traced"),
            ("/v1/trace?user=off&for_ms=9", "503", "traces 8 users already"),
            ("/v1/shards", "200", "\"shards\":[{\"shard\":0,"),
            ("/v1/nothing", "404", "/v1/who"),
        ] {
            let (head, body) = get(node, path);
            assert_eq!(status(&head), code, "{path}: {body}");
            assert!(body.contains(part), "{path}: {body}");
        }
        let posted = send(node, b"POST /v1/who?user=a HTTP/1.1\r\ncontent-length: 0\r\n\r\n");
        assert_eq!(status(&posted), "405");
    });
}

#[test]
fn a_shard_that_does_not_answer_costs_an_operator_the_deadline_and_shows_in_the_view_of_all() {
    let drivers = crate::shard::thread::tests::drivers();
    std::thread::scope(|scope| {
        for driver in drivers {
            scope.spawn(move || {
                let node = Node::start(driver, Shards::Absent);
                let (head, body) = get(&node, "/v1/who?user=a");
                assert_eq!(status(&head), "504", "{driver:?}: {body}");
                assert!(body.contains("/v1/shards"), "{body}");
                let (_, body) = get(&node, "/v1/shards");
                let view: inside::NodeView = serde_json::from_str(&body).unwrap();
                assert_eq!((&*view.state, view.shards.len()), ("starting", usize::from(SHARDS)));
                let waiting: usize = view.shards.iter().map(|s| s.lanes[1].depth).sum();
                assert_eq!(waiting, 1, "the question lies in the control lane: {body}");
                for shard in node.shards.iter() {
                    while shard.control(Control::Hub(ShardMail::CancelPush(ticket()))).is_ok() {}
                }
                let (head, body) = get(&node, "/v1/who?user=a");
                assert_eq!((status(&head), body.contains("lane")), ("503", true), "{body}");
            });
        }
    });
}

fn ticket() -> RpcTicket {
    RpcTicket { rpc: RpcId(0), slot: crate::ids::SlotId { index: 0, generation: 0 } }
}
