//! The assign API as clients meet it on a gateway: each status, CORS, caching, keep-alive, and each limit at its edge.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};

use pinion::limits::{ASSIGN_BURST_MS, ASSIGN_HEAD_BYTES, ASSIGN_REQUESTS_MAX};
use rustix::net::sockopt;
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::harness::{DEADLINE, Gateway, eventually, pinion, run, texts};

/// A connection to an assign listener.
pub struct Asker {
    stream: BufReader<TcpStream>,
}

/// What came back.
#[derive(Debug)]
pub struct Answered {
    pub status: u16,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: String,
}

impl Answered {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }

    /// The nodes in order; of a static answer the URLs.
    pub fn nodes(&self) -> Vec<String> {
        let name = |node: &Value| node["node"].as_str().or(node["url"].as_str()).unwrap().to_owned();
        self.json()["nodes"].as_array().unwrap_or_else(|| panic!("{self:?}")).iter().map(name).collect()
    }
}

impl Asker {
    pub fn new(address: SocketAddr) -> Self {
        let stream = TcpStream::connect_timeout(&address, DEADLINE).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        Self { stream: BufReader::new(stream) }
    }

    pub fn send(&mut self, text: &str) {
        self.stream.get_mut().write_all(text.as_bytes()).unwrap();
    }

    /// Reads one answer; `method` decides whether it has a body.
    pub fn read(&mut self, method: &str) -> Answered {
        let mut line = String::new();
        self.stream.read_line(&mut line).unwrap();
        let status = line.split(' ').nth(1).and_then(|code| code.parse().ok());
        let mut answered = Answered {
            status: status.unwrap_or_else(|| panic!("no status: {line:?}")),
            headers: Vec::new(),
            body: String::new(),
        };
        loop {
            let mut line = String::new();
            self.stream.read_line(&mut line).unwrap();
            let Some((name, value)) = line.trim_end().split_once(": ") else { break };
            answered.headers.push((name.to_lowercase(), value.to_owned()));
        }
        let length = answered.header("content-length").map_or(0, |length| length.parse().unwrap());
        let mut body = vec![0; if method == "HEAD" { 0 } else { length }];
        self.stream.read_exact(&mut body).unwrap();
        answered.body = String::from_utf8(body).unwrap();
        answered
    }

    pub fn ask(&mut self, method: &str, target: &str, headers: &str) -> Answered {
        self.send(&format!("{method} {target} HTTP/1.1\r\nHost: it\r\n{headers}\r\n"));
        self.read(method)
    }

    /// Waits for the end of the connection.
    pub fn closed(&mut self) {
        let mut rest = Vec::new();
        match self.stream.read_to_end(&mut rest) {
            Ok(_) => assert!(rest.is_empty(), "{}", String::from_utf8_lossy(&rest)),
            Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset),
        }
    }
}

/// A gateway that hands out itself.
fn start(flags: &[&str]) -> (Gateway, SocketAddr) {
    let own =
        ["--assign-listen", "127.0.0.1:0", "--cluster-node-id", "gw-0", "--cluster-ws-url", "ws://gw-0.it/"];
    let gateway = Gateway::start(&[&own, flags].concat());
    let address = gateway.banner_address("assign");
    (gateway, address)
}

fn answers(gateway: &Gateway, outcome: &str) -> f64 {
    gateway.metrics().sum("pinion_assign_answers_total", &[&format!("outcome=\"{outcome}\"")])
}

const ASK: &str = "/v1/assign?userID=alice&platformID=1";

#[test]
fn a_gateway_alone_hands_out_itself() {
    let (gateway, address) = start(&["--assign-ttl-ms", "7s", "--assign-jitter-percent", "25"]);
    let mut asker = Asker::new(address);
    let found = asker.ask("GET", ASK, "");
    assert_eq!(found.status, 200);
    assert_eq!(
        found.json(),
        json!({
            "nodes": [{"url": "ws://gw-0.it/", "node": "gw-0"}],
            "ttl_ms": 7_000,
            "backoff": {"base_ms": 1_000, "cap_ms": 60_000, "factor": 2.0, "jitter": 0.25},
            "rule": null,
            "home": "first",
            "static": false,
        })
    );
    assert_eq!(found.header("cache-control"), Some("public, max-age=7"));
    assert_eq!(found.header("content-type"), Some("application/json"));
    // On the same connection: a HEAD has the headers and no body, and the connection goes on.
    let head = asker.ask("HEAD", ASK, "");
    assert_eq!((head.status, head.header("content-length")), (200, found.header("content-length")));
    assert_eq!(asker.ask("GET", ASK, "").status, 200);
    eventually("the counts", || (answers(&gateway, "placed") == 3.0).then_some(()));
    let open = |gateway: &Gateway| gateway.metrics().sum("pinion_assign_connections", &[]);
    eventually("a connection", || (open(&gateway) == 1.0).then_some(()));
    drop(asker);
    eventually("its end", || (open(&gateway) == 0.0).then_some(()));
    assert_eq!(gateway.metrics().sum("pinion_assign_members", &["handed_out"]), 1.0);
    // Clients do not reach the admin port here, nor what it answers.
    for path in ["/metrics", "/readyz", "/v1/shards"] {
        assert_eq!(Asker::new(address).ask("GET", path, "").status, 404, "{path}");
    }
}

#[test]
fn what_is_asked_wrongly_is_said_as_json() {
    let (gateway, address) = start(&[]);
    for (method, target, status, error) in [
        ("GET", "/v1/assign", 400, "bad_argument"),
        ("GET", "/v1/assign?userID=", 400, "bad_argument"),
        ("GET", "/v1/assign?userID=u&platformID=99", 400, "bad_argument"),
        ("GET", "/v1/assign/?userID=u", 404, "not_found"),
        ("GET", "/", 404, "not_found"),
        ("DELETE", ASK, 405, "wrong_method"),
        ("POST", ASK, 405, "wrong_method"),
    ] {
        let mut asker = Asker::new(address);
        let found = asker.ask(method, target, "");
        assert_eq!(
            (found.status, found.json()["error"].as_str()),
            (status, Some(error)),
            "{method} {target}"
        );
        assert_eq!(found.header("cache-control"), Some("no-store"));
        assert_eq!(found.header("allow").is_some(), status == 405);
        assert_eq!(asker.ask("GET", ASK, "").status, 200, "the connection goes on");
    }
    let mut asker = Asker::new(address);
    asker.send("GET /v1/assign?userID=u HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc");
    let found = asker.read("GET");
    assert_eq!((found.status, found.header("connection")), (400, Some("close")));
    asker.closed();
    let mut asker = Asker::new(address);
    asker.send("hello\r\n\r\n");
    assert_eq!(asker.read("GET").status, 400);
    asker.closed();
    eventually("the counts", || {
        let seen = ["bad_request", "not_found", "wrong_method"].map(|outcome| answers(&gateway, outcome));
        (seen == [5.0, 2.0, 2.0]).then_some(())
    });
}

#[test]
fn a_head_is_bounded_in_bytes_and_time_and_an_answer_in_time() {
    let (gateway, address) = start(&["--assign-address-requests-per-s", "0", "--assign-requests-per-s", "0"]);
    let line = format!("GET {ASK} HTTP/1.1\r\nA: ");
    let head = |bytes: usize| format!("{line}{}\r\n\r\n", "x".repeat(bytes - line.len() - 4));
    let mut asker = Asker::new(address);
    asker.send(&head(ASSIGN_HEAD_BYTES));
    assert_eq!(asker.read("GET").status, 200);
    asker.send(&head(ASSIGN_HEAD_BYTES + 1));
    let found = asker.read("GET");
    assert_eq!((found.status, found.json()["error"].as_str()), (431, Some("head_too_long")));
    asker.closed();
    let mut idle = Asker::new(address);
    assert_eq!(idle.ask("GET", ASK, "").status, 200);
    let mut slow = Asker::new(address);
    slow.send("GET /v1/assign?userID=u HTTP/1.1\r\nHost:");
    // Meanwhile one that asks and asks and reads nothing.
    let mut deaf = Asker::new(address);
    sockopt::set_socket_recv_buffer_size(deaf.stream.get_ref(), 4096).unwrap();
    let many = format!("GET {ASK} HTTP/1.1\r\n\r\n").repeat(ASSIGN_REQUESTS_MAX);
    deaf.stream.get_ref().set_write_timeout(Some(DEADLINE)).unwrap();
    let _ = deaf.stream.get_mut().write_all(many.as_bytes()); // it may be cut in the middle of it
    let cut = || gateway.metrics().sum("pinion_assign_connections_cut_total", &[]);
    eventually("the deaf one's end", || (cut() == 1.0).then_some(()));
    let found = slow.read("GET");
    assert_eq!((found.status, found.json()["error"].as_str()), (408, Some("head_too_slow")));
    slow.closed();
    assert_eq!(Asker::new(address).ask("GET", ASK, "").status, 200, "others are served as before");
    idle.closed();
    eventually("the counts", || {
        let seen = ["head_too_long", "head_too_slow"].map(|outcome| answers(&gateway, outcome));
        (seen == [1.0, 1.0]).then_some(())
    });
}

#[test]
fn a_connection_has_so_many_requests_and_pipelines_them() {
    let (_gateway, address) =
        start(&["--assign-address-requests-per-s", "0", "--assign-requests-per-s", "0"]);
    let mut asker = Asker::new(address);
    for number in 1..=ASSIGN_REQUESTS_MAX / 100 {
        asker.send(&format!("GET {ASK} HTTP/1.1\r\n\r\n").repeat(100));
        for n in 1..=100 {
            let found = asker.read("GET");
            let last = number * 100 + n - 100 == ASSIGN_REQUESTS_MAX;
            assert_eq!((found.status, found.header("connection").is_some()), (200, last));
        }
    }
    asker.closed();
    let mut asker = Asker::new(address);
    asker.send(&format!("GET {ASK} HTTP/1.0\r\n\r\n"));
    assert_eq!(asker.read("GET").header("connection"), Some("close"));
    asker.closed();
}

#[test]
fn an_address_has_its_burst_and_is_then_told_when_to_come_again() {
    let (gateway, address) = start(&["--assign-address-requests-per-s", "1"]);
    let mut asker = Asker::new(address);
    let burst = usize::try_from(ASSIGN_BURST_MS / 1_000).unwrap();
    // While it asks, time gives back a little.
    let statuses: Vec<u16> = (0..3 * burst).map(|_| asker.ask("GET", ASK, "").status).collect();
    assert!(statuses[..burst].iter().all(|status| *status == 200), "{statuses:?}");
    let found = eventually("a refusal", || {
        let found = asker.ask("GET", ASK, "Origin: https://x\r\n");
        (found.status == 429).then_some(found)
    });
    assert_eq!(
        (found.json()["error"].as_str(), found.header("retry-after")),
        (Some("address_rate"), Some("1"))
    );
    assert_eq!(found.header("access-control-allow-origin"), Some("*"), "pages may read it");
    assert_eq!(found.header("cache-control"), Some("no-store"));
    eventually("the count", || (answers(&gateway, "address_rate") >= 1.0).then_some(()));
    eventually("its next turn", || (asker.ask("GET", ASK, "").status == 200).then_some(()));
}

#[test]
fn all_together_have_a_limit_and_a_believed_proxy_names_its_clients() {
    let flags = ["--assign-address-requests-per-s", "1", "--assign-requests-per-s", "3"];
    let (gateway, address) = start(&[&flags[..], &["--websocket-proxies", "127.0.0.1"]].concat());
    let mut asker = Asker::new(address);
    let mut errors = std::collections::BTreeSet::new();
    eventually("both limits", || {
        for n in 0..8 {
            let found = asker.ask("GET", ASK, &format!("X-Forwarded-For: 192.0.2.{n}\r\n"));
            if found.status == 429 {
                errors.insert(found.json()["error"].as_str().unwrap().to_owned());
            }
        }
        let found = asker.ask("GET", ASK, "X-Forwarded-For: 192.0.2.1\r\n");
        (found.status == 429 && errors.contains("rate")).then_some(())
    });
    eventually("the count", || (answers(&gateway, "rate") >= 1.0).then_some(()));
}

#[test]
fn pages_of_allowed_sites_may_read() {
    let (gateway, address) = start(&["--assign-allow-origin", "https://a.it,https://b.it"]);
    let mut asker = Asker::new(address);
    for (origin, want) in [("https://b.it", Some("https://b.it")), ("https://c.it", None)] {
        let headers = format!("Origin: {origin}\r\n");
        let found = asker.ask("GET", ASK, &headers);
        assert_eq!((found.status, found.header("access-control-allow-origin")), (200, want));
        assert_eq!(found.header("vary"), Some("Origin"));
        let preflight =
            asker.ask("OPTIONS", ASK, &format!("{headers}Access-Control-Request-Method: GET\r\n"));
        assert_eq!((preflight.status, preflight.header("access-control-allow-origin")), (204, want));
        assert_eq!(preflight.header("access-control-allow-methods"), want.map(|_| "GET, HEAD"));
        assert_eq!(preflight.header("access-control-max-age"), want.map(|_| "86400"), "asked once a day");
        assert_eq!(
            asker.ask("GET", "/x", &headers).header("access-control-allow-origin"),
            want,
            "errors too"
        );
    }
    eventually("the count", || (answers(&gateway, "preflight") == 2.0).then_some(()));
}

/// Issue 8, point 6. What it does is run by `tests/clients`.
#[test]
fn the_example_client_has_sixty_lines() {
    let client = include_str!("../clients/assign/client.js");
    assert!(client.lines().count() <= 60 && client.lines().all(|line| line.chars().count() <= 130));
}

#[test]
fn without_a_member_the_answer_is_static_or_503() {
    let folder = tempfile::tempdir().unwrap();
    let members = folder.path().join("members");
    std::fs::write(&members, "a ws=ws://a.it/ state=draining\nb\n").unwrap();
    let listen = ["--assign-listen", "127.0.0.1:0", "--members", members.to_str().unwrap()];
    let gateway = Gateway::start(&[&listen[..], &["--assign-fallback", "ws://x.it/,ws://y.it/"]].concat());
    let found = Asker::new(gateway.banner_address("assign")).ask("GET", ASK, "");
    let answer = found.json();
    assert_eq!((found.status, &answer["static"], &answer["home"]), (200, &json!(true), &json!("elsewhere")));
    assert_eq!((&answer["nodes"][0]["node"], answer["nodes"].as_array().unwrap().len()), (&Value::Null, 2));
    assert_eq!(
        (&answer["ttl_ms"], found.header("cache-control")),
        (&json!(5_000), Some("public, max-age=5"))
    );
    drop(gateway);
    let gateway = Gateway::start(&listen);
    let mut asker = Asker::new(gateway.banner_address("assign"));
    let found = asker.ask("GET", ASK, "");
    assert_eq!((found.status, found.json()["error"].as_str()), (503, Some("no_node")));
    assert_eq!((found.header("retry-after"), found.header("cache-control")), (Some("5"), Some("no-store")));
    eventually("the count", || (answers(&gateway, "nobody") == 1.0).then_some(()));
    assert_eq!(gateway.metrics().sum("pinion_assign_members", &["closed"]), 2.0);
    // The list is read again with the configuration.
    std::fs::write(&members, "a ws=ws://a.it/\nb\n").unwrap();
    gateway.signal(Signal::HUP);
    eventually("the list", || (asker.ask("GET", ASK, "").status == 200).then_some(()));
}

#[test]
fn a_static_cluster_with_openims_ring_is_handed_out_too() {
    let folder = tempfile::tempdir().unwrap();
    let members = folder.path().join("members");
    std::fs::write(&members, "placement openim-ring\ngw-0:88 node=gw-0 ws=ws://gw-0.it/\n").unwrap();
    let list = ["--members", members.to_str().unwrap(), "--assign-listen", "127.0.0.1:0"];
    let node = ["--cluster-source", "static", "--cluster-node-id", "gw-0"];
    let gateway = Gateway::start(&[&list[..], &node, &["--cluster-placement", "ring {node_id}:88"]].concat());
    let mut asker = Asker::new(gateway.banner_address("assign"));
    let found =
        eventually("the node", || Some(asker.ask("GET", ASK, "")).filter(|found| found.status == 200));
    assert_eq!(found.json()["nodes"][0], json!({"url": "ws://gw-0.it/", "node": "gw-0"}));
    assert!(!gateway.logs().contains("no client is ever sent"), "the list says where it is dialled");
    // Another ring than the nodes'.
    let (code, _, err) =
        texts(&run(pinion(&[&["dispatch", "--http-listen", "127.0.0.1:0"], &list[..]].concat())));
    assert!(code == 2 && err.contains("cluster.placement is rendezvous: take that line out"), "{code} {err}");
}

#[test]
fn all_that_is_wrong_with_the_configuration_is_said_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let rules = folder.path().join("rules");
    std::fs::write(&rules, "good -> nodes=a\nno arrow\n\nbad share=0% -> nodes=a\ngood -> nodes=b\n")
        .unwrap();
    let path = rules.to_str().unwrap();
    let flags =
        ["check", "--assign-listen", "127.0.0.1:12140", "--assign-load-max", "101", "--assign-rules", path];
    let (code, _, err) = texts(&run(pinion(&flags)));
    assert_eq!(code, 2);
    for part in
        ["rules: line 2: ", "rules: line 4: ", "rules: line 5: ", "assign.load_max", "uses this port already"]
    {
        assert!(err.contains(part), "no {part:?} in:\n{err}");
    }
    let (code, _, err) = texts(&run(pinion(&["check", "--assign-listen", "127.0.0.1:0"])));
    assert!(code == 2 && err.contains("cluster.ws_url"), "{err}");
}
