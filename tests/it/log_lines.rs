//! What is in the log and what is not: connection, user and operation as fields, and no token or secret of anybody.

use pinion::pb::openim::msggateway::{KickUserOfflineReq, KickUserOfflineResp};
use rustix::process::Signal;

use crate::harness::{Client, Gateway, Options, eventually};

/// Lines as JSON values.
fn lines(gateway: &Gateway) -> Vec<serde_json::Value> {
    // The last one may not be whole yet.
    gateway.logs().lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

/// The fields of the line with this message in which `key` is `value`.
fn line(gateway: &Gateway, message: &str, (key, value): (&str, &str)) -> serde_json::Value {
    eventually(message, || {
        let all = lines(gateway).into_iter().map(|line| line["fields"].clone());
        all.into_iter().find(|fields| fields["message"] == message && fields[key] == value)
    })
}

fn kick(gateway: &Gateway, user: &str, bearer: &str) {
    let kick = KickUserOfflineReq { platform_id: 1, kick_user_id_list: vec![user.into()] };
    let metadata = [("operationid", "op-of-the-kick"), ("opuserid", "imAdmin"), ("authorization", bearer)];
    gateway.call::<KickUserOfflineResp>("KickUserOffline", &metadata, &kick).unwrap();
}

#[test]
fn lines_about_a_connection_or_call_have_its_names_as_fields() {
    let gateway = Gateway::start(&["--log-format", "json", "--log-level", "debug"]);
    let bad = Client::connect(gateway.websocket, "mallory", 1, "no-token", &Options::default());
    assert!(bad.is_err());
    let refused = line(&gateway, "session over", ("user", "mallory"));
    for (key, value) in [("reason", "login_refused"), ("operation_id", "it"), ("platform", "IOS")] {
        assert_eq!(refused[key], value, "{refused}");
    }
    let mut alice = gateway.connect("alice", 1);
    kick(&gateway, "alice", "");
    let order = line(&gateway, "users kicked", ("operation_id", "op-of-the-kick"));
    assert_eq!((&order["users"], &order["connections"]), (&1.into(), &1.into()), "{order}");
    while !matches!(alice.next(), crate::harness::Frame::Gone(_)) {}
    let kicked = line(&gateway, "session over", ("user", "alice"));
    assert_eq!(kicked["reason"], "kicked", "{kicked}");
    for key in ["conn", "connection_id", "peer"] {
        assert!(kicked[key].as_str().is_some_and(|text| !text.is_empty()), "{key}: {kicked}");
    }
    gateway.push("system", &["alice", "bob"], "nobody is here");
    let push = line(&gateway, "push not delivered to all", ("operation_id", "it-push"));
    assert_eq!((&push["users"], &push["not_here"]), (&2.into(), &2.into()), "{push}");
}

#[test]
fn no_token_and_no_secret_is_ever_logged() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("pinion.yaml");
    let write = |n: usize| {
        let text = format!(
            "http.token: http-token-number-{n}\nrpc.token: grpc-token-number-{n}\nrecord.bytes_max: {n}MiB\n\
             auth.secret: openIM123{}\n",
            ["", "-but-another-one"][n - 1]
        );
        std::fs::write(&file, text).unwrap();
    };
    write(1);
    let level = "trace,h2=trace,hyper=trace,rustls=trace,monoio=trace,tungstenite=trace";
    let gateway =
        Gateway::start(&["--config", file.to_str().unwrap(), "--log-level", level, "--shards-count", "2"]);
    // Good, bad, of another, kicked by a login, kicked by a call.
    let (first, second) = (gateway.token("alice", 1), gateway.token("alice", 1));
    let login =
        |user: &str, token: &str| Client::connect(gateway.websocket, user, 1, token, &Options::default());
    let _older = login("alice", &first).unwrap();
    let newer = login("alice", &second).unwrap();
    let broken = format!("{first}broken");
    for (user, token) in [("alice", broken.as_str()), ("bob", &first), ("alice", &first)] {
        assert!(login(user, token).is_err(), "{user}");
    }
    kick(&gateway, "alice", "Bearer grpc-token-number-1");
    drop(newer);
    let mut carol = gateway.connect("carol", 1);
    let pushed = pinion::pb::openim::msggateway::GetUsersOnlineStatusReq { user_i_ds: vec!["carol".into()] };
    let metadata =
        [("operationid", "op"), ("opuserid", "imAdmin"), ("authorization", "Bearer grpc-token-number-1")];
    let status: pinion::pb::openim::msggateway::GetUsersOnlineStatusResp =
        gateway.call("GetUsersOnlineStatus", &metadata, &pushed).unwrap();
    let carols = status.success_result[0].detail_platform_status[0].token.clone();
    assert!(!carols.is_empty());
    let wrong = [
        ("operationid", "op"),
        ("opuserid", "imAdmin"),
        ("authorization", "Bearer a-wrong-token-of-a-caller"),
    ];
    let refused: Result<KickUserOfflineResp, _> =
        gateway.call("KickUserOffline", &wrong, &KickUserOfflineReq::default());
    assert!(refused.is_err());
    write(2);
    gateway.signal(Signal::HUP);
    eventually("the reload", || gateway.logs().contains("configuration reloaded").then_some(()));
    carol.request(1001, &pinion::pb::openim::sdkws::GetMaxSeqReq { user_id: "carol".into() });
    eventually("the ends", || (gateway.logs().matches("session over").count() >= 4).then_some(()));
    assert_eq!(gateway.metrics().sum("pinion_log_lines_dropped_total", &[]), 0.0, "lines are missing here");
    let logs = gateway.logs();
    assert!(logs.contains("TRACE"), "{logs}");
    let secrets = [
        first.as_str(),
        &second,
        &broken,
        &carols,
        "http-token-number-",
        "grpc-token-number-",
        "a-wrong-token-of-a-caller",
        "openIM123",
    ];
    for secret in secrets {
        // A part would be enough to know it by: the signature of a token is its last third.
        let tail = &secret[secret.len() * 2 / 3..];
        for part in [secret, tail].into_iter().filter(|part| part.len() > 8) {
            let line = logs.lines().find(|line| line.contains(part));
            assert_eq!(line, None, "{part:?} is in the log");
        }
    }
}
