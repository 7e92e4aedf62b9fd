//! A new configuration in a running gateway, by signal and by order: what counts at once, what waits for a restart,
//! and that a faulty file changes nothing.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};

use pinion::pb::openim::sdkws::GetMaxSeqReq;
use pinion::rpc::client::CallError;
use rustix::process::Signal;

use crate::harness::authority::{Authority, When};
use crate::harness::{Client, Frame, Gateway, Options, eventually, pinion, run, texts};

/// A configuration file that the test writes anew, and the gateway that was started with it.
struct Setup {
    gateway: Gateway,
    file: PathBuf,
    directory: tempfile::TempDir,
}

impl Setup {
    fn new(text: &str, flags: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("pinion.yaml");
        std::fs::write(&file, text).unwrap();
        let path = file.to_str().unwrap();
        let gateway = Gateway::start(&[&["--config", path], flags].concat());
        Self { gateway, file, directory }
    }

    fn write(&self, text: &str) {
        std::fs::write(&self.file, text).unwrap();
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    /// SIGHUP, and the end of the reload.
    fn hang_up(&self, outcome: &str) {
        let before = self.reloads(outcome);
        self.gateway.signal(Signal::HUP);
        eventually("the reload", || (self.reloads(outcome) > before).then_some(()));
    }

    fn reloads(&self, outcome: &str) -> f64 {
        self.gateway.metrics().sum("pinion_reloads_total", &[&format!("outcome=\"{outcome}\"")])
    }

    /// A command for the gateway: exit code, stdout, stderr.
    fn order(&self, arguments: &[&str]) -> (i32, String, String) {
        let http = self.gateway.http.to_string();
        texts(&run(pinion(&[arguments, &["--http", &http]].concat())))
    }

    fn logged(&self, part: &str) -> bool {
        eventually("the log", || self.gateway.logs().contains(part).then_some(true))
    }
}

/// Still served.
fn is_open(client: &mut Client, user: &str) {
    let reply = client.request(1001, &GetMaxSeqReq { user_id: user.into() });
    assert_eq!((reply.err_code, reply.err_msg.as_str()), (0, ""), "{user}");
}

#[test]
fn the_next_login_is_judged_by_the_new_policy_and_nobody_is_disconnected() {
    let setup = Setup::new("login.policy: 0\nlogin.connections_per_user_max: 3\n", &["--shards-count", "2"]);
    let gateway = &setup.gateway;
    let mut phones = [gateway.connect("alice", 1), gateway.connect("alice", 1)];
    let mut bob = gateway.connect("bob", 2);
    setup.write("login.policy: 1\nlogin.connections_per_user_max: 1\n");
    setup.hang_up("applied");
    phones.iter_mut().for_each(|phone| is_open(phone, "alice"));
    is_open(&mut bob, "bob");
    // Under the new policy a login ends the older ones of its platform.
    let mut newest = gateway.connect("alice", 1);
    for phone in &mut phones {
        assert!(matches!(phone.next(), Frame::Response(kicked) if kicked.id == 2002));
        phone.closed();
    }
    is_open(&mut newest, "alice");
    // And he may have one connection only: those of other platforms would be more.
    let token = gateway.token("bob", 5);
    let refused = Client::connect(gateway.websocket, "bob", 5, &token, &Options::default()).err();
    assert!(refused.is_some_and(|error| error.starts_with("503")));
    is_open(&mut bob, "bob");
    assert!(setup.logged("in force key=\"login.policy\" old=\"0\" new=\"1\""));
}

#[test]
fn what_needs_a_restart_is_named_with_both_values_and_no_secret() {
    let setup = Setup::new("auth.secret: the-first-secret\nrecord.bytes_max: 1MiB\n", &[]);
    setup.write(
        "auth.secret: the-second-secret\nrecord.bytes_max: 2MiB\nhttp.token: a-token-of-some-length\n\
         websocket.handshakes_max: 77\n",
    );
    let (code, out, err) = setup.order(&["reload"]);
    assert_eq!(code, 0, "{err}");
    for line in [
        "in force: websocket.handshakes_max: \"4096\" -> \"77\"",
        "in force: http.token: (changed)",
        "needs a restart: record.bytes_max: \"1048576\" -> \"2097152\"",
        "needs a restart: auth.secret: (changed)",
    ] {
        assert_eq!(out.lines().filter(|l| *l == line).count(), 1, "{line}\n{out}");
    }
    assert_eq!(out.lines().count(), 4, "{out}");
    eventually("the gauge", || {
        (setup.gateway.metrics().sum("pinion_settings_pending_restart", &[]) == 2.0).then_some(())
    });
    assert!(setup.logged("not in force: needs a restart"));
    // What waits is named each time, what counts once.
    let (code, out, _) = setup.order(&["reload", "--json"]);
    let changes: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, changes["applied"].as_array().unwrap().len()), (0, 0), "{out}");
    assert_eq!(changes["pending"].as_array().unwrap().len(), 2, "{out}");
    // As it was at the start: nothing waits any more.
    setup.write("auth.secret: the-first-secret\nrecord.bytes_max: 1MiB\n");
    setup.hang_up("applied");
    assert_eq!(setup.gateway.metrics().sum("pinion_settings_pending_restart", &[]), 0.0);
    for secret in ["the-first-secret", "the-second-secret", "a-token-of-some-length"] {
        assert!(!setup.gateway.logs().contains(secret), "{secret}");
    }
}

#[test]
fn a_port_that_changed_is_named() {
    // Not by a flag: flags are stronger than the file.
    let setup = Setup::new("http.listen: 127.0.0.1:0\n", &["--http-listen", "127.0.0.1:0"]);
    setup.write("rpc.connections_max: 7\nstall.abort_ms: 20s\nrpc.legacy_service: true\n");
    let (_, out, _) = setup.order(&["reload"]);
    assert!(out.contains("needs a restart: rpc.legacy_service: \"false\" -> \"true\""), "{out}");
    assert!(!out.contains("listen") && !out.contains("owner_key"), "flags and what was drawn stay: {out}");
    assert!(out.contains("in force: rpc.connections_max: \"1024\" -> \"7\""), "{out}");
}

#[test]
fn a_faulty_file_changes_nothing_and_is_named_with_its_line() {
    let setup = Setup::new("login.policy: 0\nwebsocket.send_buffer_bytes: 64KiB\n", &[]);
    let gateway = &setup.gateway;
    let mut phone = gateway.connect("alice", 1);
    let faulty = "login.policy: 1\nwebsocket.send_buffer_bytes: 1\nrequest.frames: 7\n";
    setup.write(faulty);
    setup.hang_up("refused");
    let place = |line: usize| format!("{}:{line}", setup.file.display());
    for part in
        [place(2), place(3), "expected a size from 4KiB to 16MiB".to_owned(), "unknown setting".to_owned()]
    {
        assert!(setup.logged(&part), "{part}");
    }
    let (code, out, err) = setup.order(&["reload"]);
    assert_eq!((code, out.as_str()), (2, ""));
    assert!(err.contains(&place(2)) && err.contains(&place(3)) && err.contains("2 faults"), "{err}");
    let _second = gateway.connect("alice", 1); // policy 0: it ends nobody
    is_open(&mut phone, "alice");
    std::fs::remove_file(&setup.file).unwrap();
    let (code, _, err) = setup.order(&["reload"]);
    assert!(code == 2 && err.contains("cannot be read"), "{err}");
    setup.write("login.policy: 0\nwebsocket.send_buffer_bytes: 64KiB\n");
    setup.hang_up("unchanged");
    is_open(&mut phone, "alice");
}

#[test]
fn grpc_callers_and_operators_are_judged_by_the_new_tokens_networks_and_certificates() {
    let authority = Authority::new("first", When::Now);
    let setup = Setup::new("rpc.token: the-first-token-of-grpc\n", &[]);
    let push = |token: &str| {
        let request = pinion::pb::openim::msggateway::KickUserOfflineReq {
            platform_id: 1,
            kick_user_id_list: vec!["nobody".into()],
        };
        let bearer = format!("Bearer {token}");
        let metadata = [("operationid", "op"), ("opuserid", "imAdmin"), ("authorization", bearer.as_str())];
        let answer = setup.gateway.call::<pinion::pb::openim::msggateway::KickUserOfflineResp>(
            "KickUserOffline",
            &metadata,
            &request,
        );
        match answer {
            Ok(_) => "ok".to_owned(),
            Err(CallError::Refused(status)) => format!("status {}", status.code),
            Err(_) => "no gRPC".to_owned(),
        }
    };
    assert_eq!((push("the-first-token-of-grpc").as_str(), push("another").as_str()), ("ok", "status 16"));
    setup.write("rpc.token: the-second-token-of-grpc\n");
    setup.hang_up("applied");
    assert_eq!(push("the-first-token-of-grpc"), "status 16");
    assert_eq!(push("the-second-token-of-grpc"), "ok");
    setup.write("rpc.allow: 192.0.2.0/24\n");
    setup.hang_up("applied");
    assert_eq!(push(""), "no gRPC", "this source is not allowed any more");
    let (cert, key) = authority.write_pair(setup.path(), "one", &["127.0.0.1"], When::Now);
    let text = format!("rpc.tls_cert: {}\nrpc.tls_key: {}\n", cert.display(), key.display());
    setup.write(&text);
    setup.hang_up("applied");
    assert_eq!(push(""), "no gRPC", "it asks for TLS now");
    let ca = authority.write(setup.path(), "ca");
    let by_tls = |ca: &Path| {
        let rpc = setup.gateway.grpc.to_string();
        let ca = ca.to_str().unwrap();
        let arguments = ["push", "--to", "u", "--text", "t", "--rpc", &rpc, "--rpc-ca", ca];
        texts(&run(pinion(&arguments)))
    };
    let (code, out, err) = by_tls(&ca);
    assert!(code <= 1 && !err.contains("certificate"), "{out}{err}");
    // Another certificate under the same path: the settings are as they were, the files are not.
    let other = Authority::new("second", When::Now);
    let (cert, key) = other.write_pair(setup.path(), "one", &["127.0.0.1"], When::Now);
    assert_eq!(text, format!("rpc.tls_cert: {}\nrpc.tls_key: {}\n", cert.display(), key.display()));
    setup.hang_up("unchanged");
    let (_, _, err) = by_tls(&ca);
    assert!(err.contains("certificate"), "{err}");
    let (code, out, err) = by_tls(&other.write(setup.path(), "other"));
    assert!(code <= 1 && !err.contains("certificate"), "{out}{err}");
}

#[test]
fn orders_are_posts_and_not_of_web_pages() {
    let setup = Setup::new("", &[]);
    let ask = |head: &str| {
        let mut socket = TcpStream::connect(setup.gateway.http).unwrap();
        write!(socket, "{head}\r\nHost: it\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").unwrap();
        let mut text = String::new();
        socket.read_to_string(&mut text).unwrap();
        text
    };
    let told = ask("GET /v1/reload HTTP/1.1");
    assert!(told.contains(" 405 ") && told.to_lowercase().contains("allow: post"), "{told}");
    let told = ask("POST /v1/reload HTTP/1.1\r\nOrigin: https://example.com");
    assert!(told.contains(" 403 "), "{told}");
    assert_eq!(setup.reloads("unchanged"), 0.0);
    assert!(ask("POST /v1/reload HTTP/1.1").contains(" 200 "));
    eventually("the count", || (setup.reloads("unchanged") == 1.0).then_some(()));
    assert!(ask("POST /v1/log-level HTTP/1.1").contains("400: which levels?"));
    assert!(ask("POST /v1/who?user=u HTTP/1.1").contains(" 405 "));
}

#[test]
fn log_levels_go_up_and_down_by_order_and_by_reload() {
    let setup = Setup::new("log.level: info\n", &[]);
    let says = "logging in";
    let login = |user: &str| drop(setup.gateway.connect(user, 1));
    login("first");
    assert_eq!(setup.order(&["log-level"]), (0, "info\n".into(), String::new()));
    let (code, out, err) = setup.order(&["log-level", "warn,pinion::shard=debug"]);
    assert_eq!((code, out.as_str()), (0, "warn,pinion::shard=debug\n"), "{err}");
    assert!(!setup.gateway.logs().contains(says));
    login("second");
    assert!(setup.logged(says));
    let (code, _, err) = setup.order(&["log-level", "info,pinion::shard=debg"]);
    assert!(code == 2 && err.contains("`pinion::shard=debg` is no log directive"), "{err}");
    assert_eq!(setup.order(&["log-level"]).1, "warn,pinion::shard=debug\n", "a bad one changes nothing");
    // The file says nothing new, and what it says counts again.
    setup.hang_up("unchanged");
    assert_eq!(setup.order(&["log-level"]).1, "info\n");
    setup.write("log.level: info,pinion::shard::run=debug\n");
    setup.hang_up("applied");
    let before = setup.gateway.logs().matches(says).count();
    login("third");
    eventually("the line", || (setup.gateway.logs().matches(says).count() > before).then_some(()));
}
