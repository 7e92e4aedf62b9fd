//! Recording a shard's inputs and replaying them with `pinion replay`.

use std::os::unix::fs::PermissionsExt;

use pinion::pb::openim::sdkws::GetMaxSeqReq;
use rustix::process::Signal;

use crate::harness::{Gateway, eventually, pinion, run, texts};

/// Runs a gateway that records, with a login, a request, a push and a kick, and gives the recording.
fn record(mode: &str, dir: &std::path::Path) -> (String, String) {
    let dir_text = dir.display().to_string();
    let file = dir.join("pinion.yaml");
    std::fs::write(&file, "login.policy: 0\n").unwrap();
    let config = file.display().to_string();
    let flags =
        ["--config", &config, "--shards-count", "1", "--record-mode", mode, "--record-dir", &dir_text];
    let mut gateway = Gateway::start(&flags);
    // Under the first policy nobody would be kicked below: a replay must change it, too.
    std::fs::write(&file, "login.policy: 1\n").unwrap();
    gateway.signal(Signal::HUP);
    eventually("the reload", || gateway.logs().contains("configuration reloaded").then_some(()));
    let token = gateway.token("alice", 1);
    let options = crate::harness::Options::default();
    let mut alice = crate::harness::Client::connect(gateway.websocket, "alice", 1, &token, &options).unwrap();
    let user_id = "alice".into();
    assert_eq!(alice.request(1001, &GetMaxSeqReq { user_id }).err_code, 0);
    gateway.push("system", &["alice"], "a very private text");
    assert_eq!(alice.pushed_text(), "a very private text");
    gateway.connect("alice", 1);
    alice.closed();
    gateway.signal(Signal::TERM);
    assert!(gateway.wait().success());
    let file = dir.join("shard0.jsonl");
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    (std::fs::read_to_string(file).unwrap(), token)
}

#[test]
fn a_recording_replays_to_the_same_decisions_and_a_changed_one_does_not() {
    for mode in ["shape", "full"] {
        let dir = tempfile::tempdir().unwrap();
        let (text, token) = record(mode, dir.path());
        let keeps_secrets = !text.contains("very private") && !text.contains(&token);
        assert_eq!(keeps_secrets, mode == "shape");
        let replay = |text: &str| {
            let file = dir.path().join("replayed.jsonl");
            std::fs::write(&file, text).unwrap();
            texts(&run(pinion(&["replay", &file.display().to_string()])))
        };
        let (code, out, err) = replay(&text);
        assert_eq!(code, 0, "{mode}: {err}");
        assert!(out.starts_with("same decisions: trace "), "{out}");
        let without_logins: Vec<&str> = text.lines().filter(|line| !line.contains("\"Accepted\"")).collect();
        let (code, _, err) = replay(&without_logins.join("\n"));
        assert_eq!(code, 1, "{mode}: {err}");
        assert!(err.contains("the replay differs from the recording"), "{err}");
        let (code, _, err) = replay("{\"Start\":");
        assert_eq!(code, 2, "{err}");
        assert!(err.contains("line 1 is no recorded entry"), "{err}");
    }
}

#[test]
fn a_recording_ends_at_its_limit_and_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let dir_text = dir.path().display().to_string();
    let flags = [
        "--shards-count",
        "1",
        "--record-mode",
        "full",
        "--record-dir",
        &dir_text,
        "--record-bytes-max",
        "64KiB",
    ];
    let mut gateway = Gateway::start(&flags);
    for _ in 0..200 {
        gateway.push("system", &["nobody"], &"x".repeat(1000));
    }
    gateway.signal(Signal::TERM);
    assert!(gateway.wait().success());
    let file = dir.path().join("shard0.jsonl");
    let size = std::fs::metadata(&file).unwrap().len();
    assert!((32_000..70_000).contains(&size), "{size} bytes");
    let (code, out, err) = texts(&run(pinion(&["replay", &file.display().to_string()])));
    assert_eq!(code, 0, "{err}");
    assert!(out.contains("cut at record.bytes_max"), "{out}");
}
