//! Seeing inside a running gateway: `pinion who`, `trace` and `shards`, and who may ask.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Stdio;

use pinion::ids::{Ownership, ShardId};
use pinion::pb::openim::msggateway::{KickUserOfflineReq, KickUserOfflineResp};
use pinion::pb::openim::sdkws::GetMaxSeqReq;
use rustix::process::Signal;

use crate::harness::{
    DEADLINE, Elsewhere, Gateway, Killed, eventually, lines_of, own_address, pinion, run, texts,
};

const TOKEN: &str = "an-operators-token-of-some-length";

/// A command that asks this gateway: exit code, stdout, stderr.
fn ask(gateway: &Gateway, arguments: &[&str]) -> (i32, String, String) {
    let http = gateway.http.to_string();
    texts(&run(pinion(&[arguments, &["--http", &http]].concat())))
}

#[test]
fn who_shows_the_connections_of_a_user() {
    let gateway = Gateway::start(&["--shards-count", "2"]);
    let _phone = gateway.connect("alice", 1);
    let _desk = gateway.connect("alice", 7);
    let (code, out, err) = ask(&gateway, &["who", "alice"]);
    assert_eq!(code, 0, "{err}");
    assert!(out.starts_with("alice on shard ") && out.contains(": 2 connections\n"), "{out}");
    for part in ["platform", "IOS", "Linux", "127.0.0.1:", "open", "ago"] {
        assert!(out.contains(part), "no {part} in:\n{out}");
    }
    assert!(out.lines().all(|line| line.chars().count() <= 120), "{out}");
    let (code, out, _) = ask(&gateway, &["who", "alice", "--json"]);
    let facts: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, facts["connections"].as_array().unwrap().len()), (0, 2), "{out}");
    let (code, out, _) = ask(&gateway, &["who", "bob & co"]);
    assert_eq!(code, 1);
    assert!(out.starts_with("bob & co is not connected"), "{out}");
}

#[test]
fn a_trace_prints_what_happens_to_a_user() {
    let gateway = Gateway::start(&[]);
    let http = gateway.http.to_string();
    let mut command = pinion(&["trace", "alice", "--for", "60s", "--count", "8", "--http", &http]);
    let mut child = Killed(command.stdout(Stdio::piped()).spawn().unwrap());
    let lines = lines_of(child.0.stdout.take().unwrap());
    let next = || lines.recv_timeout(DEADLINE).unwrap();
    assert_eq!(next(), "tracing alice for 1m00s");
    let mut alice = gateway.connect("alice", 1);
    gateway.connect("bob", 1);
    alice.request(1001, &GetMaxSeqReq { user_id: "alice".into() });
    gateway.push("bob", &["alice"], "hello");
    let kick = KickUserOfflineReq { platform_id: 1, kick_user_id_list: vec!["alice".into()] };
    let metadata = [("operationid", "it-kick"), ("opuserid", "imAdmin")];
    gateway.call::<KickUserOfflineResp>("KickUserOffline", &metadata, &kick).unwrap();
    let told: Vec<String> = (0..8).map(|_| next()).collect();
    for (line, parts) in told.iter().zip([
        &["login", "IOS from 127.0.0.1:"][..],
        &["online"],
        &["request", "1001 GetMaxSeq"],
        &["answer", "1001 GetMaxSeq good"],
        &["push", "queued", "operation it-push"],
        &["kick"],
        &["over", "kicked (intended); the client stops"],
        &["closed"],
    ]) {
        assert!(parts.iter().all(|part| line.contains(part)), "no {parts:?} in {line:?} of {told:#?}");
    }
    let status = eventually("the end of the trace", || child.0.try_wait().unwrap());
    assert_eq!(status.code(), Some(0));
}

#[test]
fn a_trace_ends_with_its_time_even_if_nothing_happens() {
    let gateway = Gateway::start(&[]);
    let (code, out, err) = ask(&gateway, &["trace", "nobody", "--for", "300ms"]);
    assert_eq!((code, out.as_str()), (0, "tracing nobody for 300ms\n"), "{err}");
}

#[test]
fn shards_shows_all_shards_on_one_screen() {
    let gateway = Gateway::start(&["--shards-count", "2"]);
    let _client = gateway.connect("alice", 1);
    let screen = eventually("the connection to be counted", || {
        let (code, out, err) = ask(&gateway, &["shards", "--once"]);
        assert_eq!(code, 0, "{err}");
        out.starts_with("node ready: 1 of ").then_some(out).filter(|out| out.contains(" 1 users"))
    });
    let lines: Vec<&str> = screen.lines().collect();
    assert_eq!(lines.len(), 5, "head, heading, two shards, legend: {screen}");
    for part in ["register", "kick", "unreg", "lanes", "lag", "waits; last "] {
        assert!(screen.contains(part), "no {part} in:\n{screen}");
    }
    assert!(lines.iter().all(|line| line.chars().count() <= 120), "{screen}");
    let (code, out, _) = ask(&gateway, &["shards", "--json"]);
    let view: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, view["shards"].as_array().unwrap().len()), (0, 2));
}

#[test]
fn a_stalled_shard_is_seen_and_its_users_cost_a_clear_error() {
    let flags = [
        "--shards-count",
        "2",
        "--shards-owner-key",
        "1:2",
        "--plant-stall",
        "0:600000", // longer than the test
        "--stall-abort-ms",
        "900s",
    ];
    let gateway = Gateway::start(&flags);
    let ownership = Ownership::new([1, 2], 2);
    let user_of =
        |shard| (0..).map(|n| format!("u{n}")).find(|u| ownership.owner(u) == ShardId(shard)).unwrap();
    let _client = gateway.connect(&user_of(1), 1); // by then the signal is caught
    gateway.signal(Signal::USR2);
    let screen = eventually("the stall to be shown", || {
        let (_, out, _) = ask(&gateway, &["shards", "--once"]);
        out.contains("STALLED for ").then_some(out)
    });
    assert!(screen.contains("in the planted stall"), "{screen}");
    assert_eq!(screen.matches("STALLED").count(), 1, "the other one is well: {screen}");
    let (code, _, err) = ask(&gateway, &["who", &user_of(0)]);
    assert_eq!(code, 2);
    assert!(err.contains("did not answer within 5000 ms"), "{err}");
    assert_eq!(ask(&gateway, &["who", &user_of(1)]).0, 0, "the other shard answers");
}

#[test]
fn a_gateway_that_does_not_run_is_a_clear_error() {
    // A port that was free a moment ago, on an address that nobody else uses.
    let address = TcpListener::bind("127.0.0.10:0").unwrap().local_addr().unwrap().to_string();
    for command in [&["who", "a"][..], &["trace", "a"], &["shards"], &["shards", "--once"]] {
        let (code, out, err) = texts(&run(pinion(&[command, &["--http", &address]].concat())));
        assert_eq!((code, out.as_str()), (2, ""), "{command:?}");
        assert!(err.contains("no gateway answers on the admin port") && err.contains(&address), "{err}");
    }
}

/// Status and body of a GET from wherever this machine reaches the address from.
fn get(address: SocketAddr, path: &str, header: &str) -> (u16, String) {
    let mut socket = TcpStream::connect_timeout(&address, DEADLINE).unwrap();
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    write!(socket, "GET {path} HTTP/1.1\r\nHost: it\r\n{header}\r\n").unwrap();
    let mut text = String::new();
    socket.read_to_string(&mut text).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    (head[9..12].parse().unwrap(), body.to_owned())
}

const VERBS: [&str; 3] = ["/v1/who?user=a", "/v1/trace?user=a&for_ms=1", "/v1/shards"];
const OPEN: [&str; 3] = ["/healthz", "/readyz", "/metrics"];

#[test]
fn callers_at_a_foreign_address_need_the_token() {
    let Some(ip) = own_address() else {
        eprintln!("SKIPPED callers_at_a_foreign_address_need_the_token: no address but loopback");
        return;
    };
    let good = format!("Authorization: Bearer {TOKEN}\r\n");
    let bad = "Authorization: Bearer an-operators-token-of-some-lengtH\r\n".to_owned();
    for (token, header, want) in [
        ("", "", 403),
        ("", good.as_str(), 403),
        (TOKEN, "", 401),
        (TOKEN, bad.as_str(), 401),
        (TOKEN, good.as_str(), 200),
    ] {
        let gateway = Gateway::start(&["--http-listen", "0.0.0.0:0", "--http-token", token]);
        let foreign = SocketAddr::new(ip, gateway.http.port());
        for path in VERBS {
            let (status, body) = get(foreign, path, header);
            assert_eq!(status, want, "{path} token {token:?} header {header:?}: {body}");
            assert!(want == 200 || body.contains("Authorization: Bearer TOKEN"), "{body}");
            assert_eq!(get(([127, 0, 0, 1], foreign.port()).into(), path, "").0, 200, "{path} from loopback");
        }
        for path in OPEN {
            assert_eq!(get(foreign, path, "").0, 200, "{path} stays open");
        }
        let denied = if want == 200 { 0.0 } else { 3.0 };
        eventually("the count", || {
            (gateway.metrics().sum("pinion_http_denied_total", &[]) == denied).then_some(())
        });
        let mut command = pinion(&["who", "a", "--http", &foreign.to_string()]);
        command.env("PINION_HTTP_TOKEN", TOKEN);
        let (code, _, err) = texts(&run(command));
        assert_eq!(code, if token.is_empty() { 2 } else { 1 }, "{err}");
        assert!(!token.is_empty() || err.contains("callers on this machine only"), "{err}");
    }
}

#[test]
fn callers_in_another_network_namespace_need_the_token() {
    let Some(elsewhere) = Elsewhere::new(77) else {
        eprintln!("SKIPPED callers_in_another_network_namespace_need_the_token: not root, or no iproute2");
        return;
    };
    let gateway = Gateway::start(&["--http-listen", "0.0.0.0:0", "--http-token", TOKEN]);
    let address = format!("198.18.77.1:{}", gateway.http.port());
    // The cable needs a moment.
    let (code, _, err) = eventually("the way over there", || {
        let answer = elsewhere.run(&mut pinion(&["shards", "--once", "--http", &address]));
        (!answer.2.contains("no gateway answers")).then_some(answer)
    });
    assert_eq!(code, 2, "{err}");
    assert!(err.contains("refuses: 401"), "{err}");
    let mut with_token = pinion(&["shards", "--once", "--http", &address]);
    let (code, out, err) = elsewhere.run(with_token.env("PINION_HTTP_TOKEN", TOKEN));
    assert_eq!(code, 0, "{err}");
    assert!(out.starts_with("node ready"), "{out}");
    eventually("the refusal in /metrics", || {
        (gateway.metrics().sum("pinion_http_denied_total", &[]) == 1.0).then_some(())
    });
}
