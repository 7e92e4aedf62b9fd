//! The commands that end by themselves: what they print and how they end.

use crate::harness::{pinion, run, texts};

fn temp_file(text: &str) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), text).unwrap();
    file
}

#[test]
fn version_prints_build_facts() {
    let (code, out, _) = texts(&run(pinion(&["--version"])));
    assert_eq!(code, 0);
    for fact in ["pinion 0.", "commit:", "profile:", "target:", "rustc:"] {
        assert!(out.contains(fact), "no {fact} in {out}");
    }
}

#[test]
fn print_config_shows_each_value_with_its_source() {
    let file = temp_file("websocket:\n  port: 7001\nlogin.policy: 4\nlog.level: warn\n");
    let path = file.path().to_str().unwrap();
    let mut command = pinion(&["--config", path, "--print-config", "--log-level", "debug"]);
    command.env("PINION_LOGIN_POLICY", "5");
    let (code, out, err) = texts(&run(command));
    assert_eq!(code, 0, "{err}");
    for line in [
        &format!("websocket.port: 7001  # file {path}:2\n"),
        "login.policy: 5  # env PINION_LOGIN_POLICY\n",
        "log.level: debug  # flag --log-level\n",
        "rpc.listen: \"127.0.0.1:10140\"  # default\n",
        "http.listen: \"127.0.0.1:12140\"  # default\n",
        "auth.secret: (set)  # default\n",
    ] {
        assert!(out.contains(line), "no {line:?} in:\n{out}");
    }
    assert!(!out.contains("openIM123"));
}

#[test]
fn openims_ports_are_the_default() {
    let (code, out, _) = texts(&run(pinion(&["--print-config"])));
    assert_eq!(code, 0);
    assert!(out.contains("websocket.port: 10001  # default\n"), "{out}");
}

#[test]
fn the_file_can_be_named_by_the_environment() {
    let file = temp_file("websocket.port: 7002\n");
    let mut command = pinion(&["--print-config"]);
    command.env("PINION_CONFIG", file.path());
    let (code, out, err) = texts(&run(command));
    assert_eq!(code, 0, "{err}");
    assert!(out.contains("websocket.port: 7002"), "{out}");
}

#[test]
fn check_judges_and_prints_every_fault() {
    let (code, out, _) = texts(&run(pinion(&["check"])));
    assert_eq!((code, out.as_str()), (0, "configuration is good\n"));

    let file = temp_file("websocket: {port: 70000, prot: 1}\nlogin.policy: 3\n");
    let mut command = pinion(&["check", "--config", file.path().to_str().unwrap(), "--shards-count", "0"]);
    command.env("PINION_LOG_LEVL", "info");
    let (code, out, err) = texts(&run(command));
    assert_eq!((code, out.as_str()), (2, ""), "{err}");
    for part in [
        "5 faults",
        "websocket.port = \"70000\"",
        "expected a port from 0 to 65535",
        "for example: 10001",
        "websocket.prot",
        "did you mean websocket.port?",
        "login.policy = \"3\"",
        "expected 0, 1, 4 or 5",
        "shards.count = \"0\"  (flag --shards-count)",
        "PINION_LOG_LEVL",
        "did you mean PINION_LOG_LEVEL?",
    ] {
        assert!(err.contains(part), "no {part:?} in:\n{err}");
    }
}

#[test]
fn a_faulty_configuration_stops_the_start() {
    let (code, _, err) = texts(&run(pinion(&["--websocket-port", "x", "--shards-driver", "kqueue"])));
    assert_eq!(code, 2);
    assert!(err.contains("2 faults in the configuration"), "{err}");
}

#[test]
fn wrong_usage_ends_with_2_and_says_what_is_right() {
    for (arguments, part) in [
        (&["--websocket-prot", "1"][..], "--websocket-port"),
        (&["tokn"], "token"),
        (&["token", "--user", "u", "--platform", "tv"], "1 IOS, 2 Android"),
        (&["listen", "--token", "nonsense"], "pinion token --user"),
        (&["push", "--to", "a,,b", "--text", "t"], "for example alice,bob"),
        (&["push", "--to", "a", "--text", "t", "--rpc", "nowhere"], "--rpc"),
        (&["--plant-stall", "x"], "0:5000"),
    ] {
        let (code, _, err) = texts(&run(pinion(arguments)));
        assert_eq!(code, 2, "{arguments:?}: {err}");
        assert!(err.contains(part), "{arguments:?}: no {part:?} in:\n{err}");
    }
}

#[test]
fn a_push_to_nobody_listening_is_an_error() {
    // A port that was free a moment ago, on an address that nobody else uses.
    let port = std::net::TcpListener::bind("127.0.0.9:0").unwrap().local_addr().unwrap();
    let (code, _, err) =
        texts(&run(pinion(&["push", "--to", "a", "--text", "t", "--rpc", &port.to_string()])));
    assert_eq!(code, 2, "{err}");
    assert!(err.contains("cannot connect"), "{err}");
}

#[test]
fn a_token_is_made_with_the_configured_secret() {
    let mut command = pinion(&["token", "--user", "u1", "--platform", "web", "--ttl", "2"]);
    command.env("PINION_AUTH_SECRET", "sesame");
    let (code, out, err) = texts(&run(command));
    assert_eq!(code, 0, "{err}");
    let now = pinion::shard::clock::now().unix;
    let claims = pinion::backend::token::verify("sesame", out.trim(), now).unwrap();
    assert_eq!((&*claims.user, claims.platform), ("u1", 5));
    let left_s = claims.expires_s.unwrap() - now.0 / 1000;
    assert!((2 * 86_400 - 60..=2 * 86_400).contains(&left_s), "{left_s}");
}

#[test]
fn a_closed_stdout_is_no_crash() {
    let mut command = pinion(&["--print-config"]);
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let status = command.stdout(writer).status().unwrap();
    assert_eq!(status.code(), Some(0));
}
