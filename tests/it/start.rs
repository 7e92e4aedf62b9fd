//! Starting: the banner, the two lines it prints, ports, drivers, readiness.

use std::io::Write;
use std::net::TcpListener;
use std::process::{Command, Stdio};

use crate::harness::{Gateway, Killed, eventually, lines_of, pinion, run, texts};

/// The banner's line with this command in it.
fn trial_line<'a>(gateway: &'a Gateway, command: &str) -> &'a str {
    let line = gateway.banner.iter().find(|line| line.contains(command));
    line.unwrap_or_else(|| panic!("no {command:?} in {:#?}", gateway.banner))
}

#[test]
fn the_two_printed_lines_make_a_push_visible() {
    let gateway = Gateway::start(&["--shards-count", "2"]);
    // `exec`, so that the child is the program itself and not a shell around it.
    let shell = |line: &str| {
        let mut command = Command::new("sh");
        command.args(["-c", &format!("exec {}", line.trim())]).stdin(Stdio::null());
        command
    };
    let listen = format!("{} --count 1", trial_line(&gateway, " listen --token "));
    let mut listener = Killed(shell(&listen).stdout(Stdio::piped()).spawn().unwrap());
    let lines = lines_of(listener.0.stdout.take().unwrap());
    let connected = lines.recv_timeout(crate::harness::DEADLINE).unwrap();
    assert!(connected.contains("connected to"), "{connected}");
    let (code, out, err) = texts(&run(shell(trial_line(&gateway, " push --to "))));
    assert_eq!((code, out.as_str()), (0, "alice: reached on Linux\n"), "{err}");
    let status = eventually("the listener's end", || listener.0.try_wait().unwrap());
    assert!(status.success());
    let rest: Vec<String> = lines.iter().collect();
    assert!(rest.iter().any(|line| line.contains("frame 2001 Push")), "{rest:#?}");
    assert!(
        rest.iter().any(|line| line.contains("conversation si_alice_pinion from pinion to alice")
            && line.contains("text \"hello\"")),
        "{rest:#?}"
    );
}

#[test]
fn a_push_to_somebody_offline_ends_with_1() {
    let gateway = Gateway::start(&["--shards-count", "1"]);
    let rpc = gateway.grpc.to_string();
    let (code, out, err) = texts(&run(pinion(&["push", "--to", "bob,carol", "--text", "t", "--rpc", &rpc])));
    assert_eq!(code, 1, "{err}");
    assert_eq!(out, "bob: not connected\ncarol: not connected\n");
}

#[test]
fn a_refused_token_ends_the_listener() {
    let gateway = Gateway::start(&["--shards-count", "1"]);
    let (_, token, _) =
        texts(&run(pinion(&["token", "--user", "u", "--platform", "1", "--auth-secret", "other"])));
    let url = format!("ws://{}", gateway.websocket);
    let (code, _, err) = texts(&run(pinion(&["listen", "--token", token.trim(), "--url", &url])));
    assert_eq!(code, 1, "{err}");
    assert!(err.contains("\"errCode\":1505"), "{err}");
}

#[test]
fn the_banner_names_engine_threads_limits_and_backend() {
    let gateway = Gateway::start(&["--shards-count", "2", "--outbox-frames-max", "100"]);
    let text = gateway.banner.join("\n");
    for part in [
        "shard 0 ",
        "shard 1 ",
        "rpc 0 ",
        "open files",
        "outbox.frames_max",
        "flag --outbox-frames-max",
        "the development backend",
        "warning    auth.secret is OpenIM's default",
    ] {
        assert!(text.contains(part), "no {part:?} in:\n{text}");
    }
    let engine = gateway.banner_line("engine");
    assert!(engine.contains("io_uring") || engine.contains("epoll"), "{engine}");
}

#[test]
fn a_secret_of_ones_own_is_not_warned_about() {
    let gateway = Gateway::start(&["--shards-count", "1", "--auth-secret", "sesame"]);
    assert!(!gateway.banner.iter().any(|line| line.starts_with("warning")), "{:#?}", gateway.banner);
}

#[test]
fn a_port_in_use_is_a_clear_error() {
    let gateway = Gateway::start(&["--shards-count", "1"]);
    let port = gateway.websocket.port().to_string();
    let (grpc, http) = (gateway.grpc.to_string(), gateway.http.to_string());
    for (flag, value, key) in [
        ("--websocket-port", &port, "websocket.port"),
        ("--rpc-listen", &grpc, "rpc.listen"),
        ("--http-listen", &http, "http.listen"),
    ] {
        let mut flags = vec!["--websocket-address", "127.0.0.1"];
        for (other, free) in
            [("--websocket-port", "0"), ("--rpc-listen", "127.0.0.1:0"), ("--http-listen", "127.0.0.1:0")]
        {
            flags.extend([other, if other == flag { value } else { free }]);
        }
        let (code, out, err) = texts(&run(pinion(&flags)));
        assert_eq!((code, out.as_str()), (1, ""), "{err}");
        assert!(err.contains("cannot listen on") && err.contains(&format!("set {key}")), "{err}");
    }
}

#[test]
fn readyz_says_ready_once_the_banner_is_out() {
    let gateway = Gateway::start(&["--shards-count", "1"]);
    assert_eq!(gateway.get("/readyz").unwrap().0, 200);
    assert_eq!(gateway.get("/healthz").unwrap().0, 200);
    assert!(gateway.metrics().has("pinion_log_lines_dropped_total"));
}

#[test]
fn both_address_families_reach_a_dual_stack_listener() {
    if TcpListener::bind("[::1]:0").is_err() {
        return; // no IPv6 here
    }
    let gateway = Gateway::start(&["--shards-count", "1", "--websocket-address", "::"]);
    for host in ["127.0.0.1", "[::1]"] {
        let address = format!("{host}:{}", gateway.websocket.port()).parse().unwrap();
        let token = gateway.token("u", 1);
        crate::harness::Client::connect(address, "u", 1, &token, &Default::default()).unwrap();
    }
}

#[test]
fn a_log_that_nobody_reads_stops_nothing() {
    // The pipe behind the gateway's standard error is full from the start: the first line blocks the log's writer.
    let (reader, mut writer) = std::io::pipe().unwrap();
    rustix::io::ioctl_fionbio(&writer, true).unwrap();
    while writer.write(&[b'x'; 4096]).is_ok() {}
    rustix::io::ioctl_fionbio(&writer, false).unwrap();
    let mut gateway = Gateway::start_by(
        |command| command.stderr(writer).spawn(),
        &["--shards-count", "2", "--log-level", "trace"],
    );
    let mut clients: Vec<_> = (0..20).map(|n| gateway.connect(&format!("u{n}"), 1)).collect();
    gateway.push("a", &["u7"], "still here");
    assert_eq!(clients[7].pushed_text(), "still here");
    assert_eq!(gateway.get("/healthz").unwrap().0, 200);
    drop(clients);
    gateway.signal(rustix::process::Signal::TERM);
    assert_eq!(gateway.wait().code(), Some(0));
    drop(reader);
}

#[test]
fn without_io_uring_the_gateway_says_why_and_runs_on_epoll() {
    if std::env::var("PINION_TEST_DRIVER").is_ok_and(|driver| driver != "auto") {
        return; // the driver is not the gateway's choice in this run
    }
    let gateway = Gateway::start_by(crate::harness::spawn_without_io_uring, &["--shards-count", "1"]);
    let engine = gateway.banner_line("engine");
    assert!(engine.contains("epoll (no io_uring: ") && engine.contains("seccomp"), "{engine}");
    let mut client = gateway.connect("u", 1);
    gateway.push("a", &["u"], "over epoll");
    assert_eq!(client.pushed_text(), "over epoll");
}

#[test]
fn a_gateway_that_must_have_io_uring_refuses_to_start_without() {
    let mut command = pinion(&[
        "--shards-driver",
        "io_uring",
        "--websocket-port",
        "0",
        "--rpc-listen",
        "127.0.0.1:0",
        "--http-listen",
        "127.0.0.1:0",
    ]);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = crate::harness::spawn_without_io_uring(&mut command).unwrap();
    let (code, _, err) = texts(&child.wait_with_output().unwrap());
    assert_eq!(code, 1);
    assert!(err.contains("shards.driver is io_uring, but"), "{err}");
}

#[test]
fn the_banner_names_the_engine_and_one_that_is_impossible_is_refused() {
    let task = Gateway::start(&["--shards-count", "1", "--shards-engine", "task"]);
    let engine = task.banner_line("engine");
    assert!(engine.contains("task (asked for by shards.engine) on "), "{engine}");
    let mut command =
        pinion(&["--shards-engine", "ring", "--shards-driver", "epoll", "--websocket-port", "0"]);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = crate::harness::spawn_without_io_uring(&mut command).unwrap();
    let (code, _, err) = texts(&child.wait_with_output().unwrap());
    assert_eq!(code, 1);
    assert!(err.contains("shards.engine is ring, but") && err.contains("seccomp"), "{err}");
}
