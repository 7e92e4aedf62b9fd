//! Raw WebSocket messages.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::time::{Duration, Instant};

use super::echo::{Echo, STALL, spawn};
use super::{HOLD, Play, doing, play, settings};
use crate::script::{Ending, Hooks, MARK, MessageKind, Operation};
use crate::settings::{Driver, Settings};

/// Messages with their time.
pub fn echo() -> Play {
    doing(|_| Operation::Message { data: [b"hello ", MARK].concat(), kind: MessageKind::Text })
}

fn at(address: SocketAddr, connections: usize) -> Settings {
    let mut settings = settings(connections);
    settings.targets[0].address = address;
    settings
}

#[test]
fn a_closed_loop_counts_what_the_server_counts_on_both_drivers() {
    for driver in [Driver::Epoll, Driver::Auto] {
        let server = Echo::start();
        let asked =
            Settings { threads: 2, driver, ping: Some(Duration::from_millis(50)), ..at(server.address, 20) };
        let outcome = play(&asked, echo).unwrap();
        let tally = &outcome.tally;
        assert_eq!((tally.logins, server.connections(), outcome.open), (20, 20, 20));
        assert!(tally.begun >= 20, "{tally:?}");
        assert_eq!((tally.answered, tally.deliveries), (tally.begun, tally.begun));
        assert_eq!(
            (tally.messages_out, tally.messages_in, server.messages()),
            (tally.begun, tally.begun, tally.begun)
        );
        assert_eq!(tally.errors.total(), 0, "{:?}", tally.errors);
        assert_eq!(
            (tally.raw.0.len(), tally.delivery.0.len(), tally.login_latency.0.len()),
            (tally.begun, tally.begun, 20)
        );
        assert!(tally.bytes_out >= tally.begun * 33 && outcome.own_cpu_seconds > 0.0, "{outcome:?}");
    }
}

#[test]
fn large_messages_come_back_whole() {
    let server = Echo::start();
    let big = || doing(|_| Operation::Message { data: vec![7; 300_000], kind: MessageKind::Binary });
    let outcome = play(&at(server.address, 3), big).unwrap();
    assert_eq!((outcome.tally.answered, outcome.tally.errors.total()), (outcome.tally.begun, 0));
    assert!(outcome.tally.bytes_in > 300_000);
}

#[test]
fn an_open_loop_keeps_its_schedule_and_a_stall_shows_in_all_that_was_due_meanwhile() {
    let server = Echo::start();
    server.stall_once();
    let asked = Settings { rate: Some(200.0), duration: Duration::from_secs(1), ..at(server.address, 1) };
    let outcome = play(&asked, echo).unwrap();
    let tally = &outcome.tally;
    assert_eq!((tally.begun, tally.answered), (200, 200), "one operation for each place of the schedule");
    assert_eq!(tally.lateness.0.len(), 200);
    // 100 operations were due in the stall; those of its first 400 ms waited for more than 100.
    let slow = tally.latency.0.count_between(100_000_000, u64::MAX);
    assert!(slow >= 70, "{slow} of {STALL:?}");
}

#[test]
fn a_closed_loop_is_corrected_for_what_a_stall_kept_from_being_sent() {
    let server = Echo::start();
    server.stall_once();
    let asked = Settings { duration: Duration::from_secs(1), ..at(server.address, 1) };
    let tally = play(&asked, echo).unwrap().tally;
    let slow = |latencies: &crate::tally::Latencies| latencies.0.count_between(100_000_000, u64::MAX);
    assert!(slow(&tally.raw) >= 1);
    assert!(
        slow(&tally.latency) >= 10 * slow(&tally.raw).min(3),
        "{} and {}",
        slow(&tally.latency),
        slow(&tally.raw)
    );
}

#[test]
fn clients_that_come_back_are_counted() {
    let server = Echo::start();
    let close = || doing(|_| Operation::Reconnect { how: Ending::Close });
    let lose = || doing(|_| Operation::Reconnect { how: Ending::Drop });
    let first = play(&at(server.address, 5), close).unwrap().tally;
    let second = play(&at(server.address, 5), lose).unwrap().tally;
    for tally in [&first, &second] {
        assert!(tally.answered >= 5, "{tally:?}");
        assert_eq!(
            (tally.answered, tally.logins, tally.errors.total()),
            (tally.begun, tally.begun + 5, 0),
            "{tally:?}"
        );
    }
    assert_eq!(server.connections(), first.logins + second.logins);
}

#[test]
fn two_processes_share_a_run() {
    let server = Echo::start();
    let asked = Settings { processes: Some(2), threads: 2, ..at(server.address, 10) };
    let outcome = play(&asked, echo).unwrap();
    assert_eq!((outcome.processes, outcome.open, outcome.tally.logins), (2, 10, 10));
    assert!(outcome.tally.begun >= 10 && outcome.own_cpu_seconds > 0.0, "{outcome:?}");
    assert_eq!((outcome.tally.answered, server.messages()), (outcome.tally.begun, outcome.tally.begun));
}

#[test]
fn nobody_there_is_a_refusal_that_says_so() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let text = play(&at(free, 2), echo).unwrap_err().to_string();
    assert!(text.contains(&format!("none of 2 connections to {free} was made")), "{text}");
}

#[test]
fn a_server_that_is_no_websocket_server_is_told_by_its_answer() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    spawn(move || {
        for socket in listener.incoming() {
            let mut socket = socket.unwrap();
            let read = socket.read(&mut [0; 4096]);
            let answer = b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno";
            drop(read.and_then(|_| socket.write_all(answer)));
        }
    });
    let text = play(&at(address, 1), echo).unwrap_err().to_string();
    assert!(text.contains("answered with 404"), "{text}");
}

#[test]
fn a_server_that_never_answers_costs_a_timeout() {
    let server = Echo::start();
    server.stall_once();
    let asked = Settings { timeout: Duration::from_millis(100), ..at(server.address, 1) };
    let tally = play(&asked, echo).unwrap().tally;
    assert!(tally.errors.timeout >= 1, "{tally:?}");
}

#[test]
fn a_connection_that_is_closed_comes_back_if_the_script_says_so() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    spawn(move || {
        let mut first = tungstenite::accept(listener.accept().unwrap().0).unwrap();
        let code = tungstenite::protocol::CloseFrame { code: 4001.into(), reason: "".into() };
        first.close(Some(code)).unwrap();
        while first.read().is_ok() {}
        let mut second = tungstenite::accept(listener.accept().unwrap().0).unwrap();
        while second.read().is_ok() {}
    });
    let back =
        || Play { hooks: Hooks { closed: true, ..Hooks::default() }, closed: |code| code == 4001, ..HOLD };
    let asked = Settings { duration: Duration::from_secs(2), ..at(address, 1) };
    let outcome = play(&asked, back).unwrap();
    assert_eq!((outcome.tally.logins, outcome.open), (2, 1), "{outcome:?}");
    assert_eq!(outcome.tally.errors.closed, [(4001, 1)].into());
}

#[test]
fn a_slow_reader_holds_the_server_up_and_then_reads_on() {
    const BYTES: usize = 8 << 20;
    const PAUSE_MS: u64 = 700;
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (tell, told) = std::sync::mpsc::channel();
    spawn(move || {
        let mut socket = tungstenite::accept(listener.accept().unwrap().0).unwrap();
        // The pause begins with the login; some of it may have passed by now.
        let start = Instant::now();
        for _ in 0..BYTES >> 20 {
            if socket.send(tungstenite::Message::Binary(vec![0; 1 << 20].into())).is_err() {
                return;
            }
        }
        tell.send(start.elapsed()).unwrap();
        while socket.read().is_ok() {}
    });
    let slow = || Play {
        hooks: Hooks { connected: true, ..Hooks::default() },
        connected: |_| vec![Operation::Stall { milliseconds: PAUSE_MS }],
        ..HOLD
    };
    let asked = Settings { duration: Duration::from_secs(8), ..at(address, 1) };
    let outcome = play(&asked, slow).unwrap();
    let took = told.recv_timeout(Duration::from_secs(20)).unwrap();
    assert!(took >= Duration::from_millis(PAUSE_MS / 2), "{took:?}");
    assert_eq!(outcome.tally.errors.total(), 0, "{:?}", outcome.tally.errors);
}

#[test]
fn an_error_of_the_script_ends_the_run() {
    let server = Echo::start();
    let pushing = || doing(|_| Operation::Push { users: Vec::new(), bytes: 1 });
    let text = play(&at(server.address, 1), pushing).unwrap_err().to_string();
    assert!(text.contains("no gRPC port was given"), "{text}");
    let asked = at(server.address, 1);
    let text = crate::run::run(&asked, &|_, _| Err("x.lua:3: no".to_owned()), &mut |_| {}).unwrap_err();
    assert_eq!(text.why, "x.lua:3: no");
}
