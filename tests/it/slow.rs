//! Clients that log in and never read while pushes flow: what the gateway and the kernel hold for them stays within the
//! bound that follows from the configuration, and each end is told.
//!
//! `cargo test --test it -- --ignored five_thousand --nocapture` prints the figures of 5 000 of them.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use pinion::limits;
use rustix::net::{AddressFamily, SocketType, sockopt};
use rustix::process::Signal;
use tungstenite::Message;

use crate::harness::{DEADLINE, Gateway, eventually};

/// Receive buffer of a client: small, since its memory is on the same machine.
const CLIENT_BUFFER: usize = 4 * 1024;
/// What the kernel may add to the buffer of one socket: it lets in the packet that crosses the limit (at most 64 KiB
/// in one piece on loopback).
const KERNEL_OVERSHOOT: usize = 64 * 1024;
/// What a connection costs beside its buffers: session, ledger, user, slot of the engine, tasks, and what the kernel's
/// own records cost in the gateway (nothing: they are not part of its RSS).
const CONNECTION_BYTES: usize = 4 * 1024;
/// What the allocator may hold beyond what is in use: a part of it, and a fixed amount for threads and scratch buffers.
const ALLOCATOR_PART: usize = 4;
const ALLOCATOR_BYTES: usize = 64 << 20;

/// How large a trial is.
struct Trial {
    readers: usize,
    shard_budget: usize,
    /// Bytes of each message that is pushed.
    message: usize,
    pushes: usize,
    /// Recipients of one push: with one, no frame is shared, which is the worst case.
    together: usize,
}

/// Logs in and reads no more than the 101.
pub fn log_in_and_stall(gateway: &Gateway, user: &str) -> TcpStream {
    let fd = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    sockopt::set_socket_recv_buffer_size(&fd, CLIENT_BUFFER).unwrap();
    rustix::net::connect(&fd, &gateway.websocket).unwrap();
    let mut socket = TcpStream::from(fd);
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    let token = gateway.token(user, 1);
    let head = format!(
        "GET /?sendID={user}&token={token}&platformID=1&operationID=it&isBackground=false HTTP/1.1\r\nHost: it\r\n\
         Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    socket.write_all(head.as_bytes()).unwrap();
    let mut status = [0; 12];
    socket.read_exact(&mut status).unwrap();
    assert_eq!(&status, b"HTTP/1.1 101", "{}", gateway.logs());
    socket
}

/// A value in KiB from `/proc/PID/status`, as bytes.
fn process_bytes(gateway: &Gateway, key: &str) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{}/status", gateway.id())).unwrap();
    let line = status.lines().find(|line| line.starts_with(key)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 1024
}

/// Memory of all TCP sockets of this network namespace: both ends of each connection.
fn kernel_bytes() -> usize {
    let text = std::fs::read_to_string("/proc/net/sockstat").unwrap();
    let line = text.lines().find(|line| line.starts_with("TCP:")).unwrap();
    let words: Vec<&str> = line.split_whitespace().collect();
    let at = words.iter().position(|word| *word == "mem").unwrap();
    words[at + 1].parse::<usize>().unwrap() * 4096
}

fn descriptors(gateway: &Gateway) -> usize {
    let links = std::fs::read_dir(format!("/proc/{}/fd", gateway.id())).unwrap();
    links.filter(|entry| entry.as_ref().is_ok_and(|e| is_socket(&e.path()))).count()
}

fn is_socket(link: &std::path::Path) -> bool {
    std::fs::read_link(link).is_ok_and(|to| to.to_string_lossy().starts_with("socket:"))
}

/// The sum of a gauge over all shards.
fn gauge(gateway: &Gateway, family: &str) -> usize {
    whole(gateway.metrics().sum(family, &[]))
}

/// A count: exact in an `f64`.
fn whole(count: f64) -> usize {
    format!("{count:.0}").parse().unwrap()
}

fn mib(bytes: usize) -> String {
    format!("{}.{} MiB", bytes >> 20, ((bytes & 0xf_ffff) * 10) >> 20)
}

/// Clients that ping, so that only their not reading ends them.
struct Stalled {
    users: Vec<String>,
    sockets: Vec<TcpStream>,
    pinged: Instant,
}

impl Stalled {
    fn log_in(gateway: &Gateway, count: usize) -> Self {
        let users = (0..count).map(|n| format!("stalled{n}")).collect();
        let mut stalled = Self { users, sockets: Vec::new(), pinged: Instant::now() };
        for n in 0..count {
            stalled.sockets.push(log_in_and_stall(gateway, &stalled.users[n]));
            stalled.ping();
        }
        stalled
    }

    fn ping(&mut self) {
        if self.pinged.elapsed().as_secs() >= 5 {
            self.pinged = Instant::now();
            for socket in &mut self.sockets {
                let _ = socket.write_all(&[0x89, 0x80, 1, 2, 3, 4]); // may be closed already
            }
        }
    }
}

/// The most that was seen.
#[derive(Default)]
struct Peaks {
    kernel: usize,
    queued: usize,
    calls: usize,
}

fn push_to_all(gateway: &Gateway, stalled: &mut Stalled, trial: &Trial, idle_kernel: usize) -> Peaks {
    let text = "x".repeat(trial.message);
    let mut peaks = Peaks::default();
    for _ in 0..trial.pushes {
        for group in 0..trial.readers / trial.together {
            let users = &stalled.users[group * trial.together..][..trial.together];
            let names: Vec<&str> = users.iter().map(String::as_str).collect();
            gateway.push("system", &names, &text);
            peaks.calls += 1;
            if group % 16 == 0 {
                stalled.ping();
                peaks.kernel = peaks.kernel.max(kernel_bytes().saturating_sub(idle_kernel));
                peaks.queued = peaks.queued.max(gauge(gateway, "pinion_outbox_bytes"));
            }
        }
    }
    peaks
}

fn stay_within_the_bound(trial: &Trial) {
    const SHARDS: usize = 2;
    let budget = trial.shard_budget.to_string();
    let gateway = Gateway::start(&["--shards-count", "2", "--outbox-shard-bytes-max", &budget]);
    let (idle_sockets, idle_kernel) = (descriptors(&gateway), kernel_bytes());
    let idle = process_bytes(&gateway, "VmRSS:");
    let started = Instant::now();
    let mut stalled = Stalled::log_in(&gateway, trial.readers);
    let logged_in = process_bytes(&gateway, "VmRSS:");
    println!("{} readers logged in after {:?}", trial.readers, started.elapsed());
    eventually("descriptors, sockets, sessions and handshakes to agree", || {
        let known = gauge(&gateway, "pinion_connections") + gauge(&gateway, "pinion_handshakes_in_flight");
        let held = [descriptors(&gateway) - idle_sockets, gauge(&gateway, "pinion_sockets"), known];
        (held == [trial.readers; 3]).then_some(())
    });
    let peaks = push_to_all(&gateway, &mut stalled, trial, idle_kernel);
    let resident = process_bytes(&gateway, "VmHWM:");
    // The kernel doubles what it is asked for.
    let ours = 2 * (32 + 32) * 1024 + KERNEL_OVERSHOOT;
    let kernel_bound = trial.readers * (ours + 2 * CLIENT_BUFFER + KERNEL_OVERSHOOT);
    let queued_bound = SHARDS * trial.shard_budget;
    let live = queued_bound + trial.readers * CONNECTION_BYTES;
    let bound = idle + live + live / ALLOCATOR_PART + ALLOCATOR_BYTES;
    println!("{} pushes of {} bytes, {} together", peaks.calls, trial.message, trial.together);
    println!("resident: {} idle, {} logged in", mib(idle), mib(logged_in));
    println!("resident: {} at most; bound {}", mib(resident), mib(bound));
    println!("queued:   {} at most; bound {}", mib(peaks.queued), mib(queued_bound));
    println!("kernel:   {} at most, both ends; bound {}", mib(peaks.kernel), mib(kernel_bound));
    let metrics = gateway.metrics();
    let closes = |reason: &str| metrics.sum("pinion_closes_total", &[&format!("reason={reason:?}")]);
    for reason in ["slow_consumer", "shard_budget", "send_deadline"] {
        println!("closed:   {} {reason}", closes(reason));
    }
    assert!(peaks.queued <= queued_bound, "the budget does not hold");
    assert!(peaks.queued > trial.shard_budget / 2, "too little was queued to prove anything");
    assert!(closes("shard_budget") > 0.0, "the budget was not reached");
    assert!(resident <= bound, "the process holds more than its bound");
    assert!(peaks.kernel <= kernel_bound, "the kernel holds more than its bound");
    are_gone_in_the_end(&gateway, idle_sockets);
    eventually("the line of each end, written or counted as dropped", || {
        let dropped = gauge(&gateway, "pinion_log_lines_dropped_total");
        (ends(&gateway).len() + dropped >= trial.readers).then_some(())
    });
    drop(stalled);
}

/// None of them let go, and all of them are gone in bounded time.
fn are_gone_in_the_end(gateway: &Gateway, idle_sockets: usize) {
    let started = Instant::now();
    let most = Duration::from_millis(limits::READ_DEADLINE_MS + limits::SEND_DEADLINE_MS) + DEADLINE;
    while gauge(gateway, "pinion_sockets") > 0 {
        assert!(started.elapsed() < most, "stalled readers are kept for ever");
        std::thread::sleep(Duration::from_millis(100));
    }
    println!("the last one was gone {:?} after the last push", started.elapsed());
    // A session is freed after its socket.
    eventually("no sessions and nothing queued", || {
        let levels = ["pinion_outbox_bytes", "pinion_connections"].map(|level| gauge(gateway, level));
        (levels == [0, 0]).then_some(())
    });
    eventually("all descriptors to be closed", || (descriptors(gateway) == idle_sockets).then_some(()));
}

#[test]
fn three_hundred_stalled_readers_stay_within_the_bound_and_are_gone_in_the_end() {
    stay_within_the_bound(&Trial {
        readers: 300,
        shard_budget: 8 << 20,
        message: 100_000,
        pushes: 2,
        together: 1,
    });
}

#[test]
#[ignore = "takes a minute and 10 000 descriptors; see the head of the file"]
fn five_thousand_stalled_readers_stay_within_the_bound_and_are_gone_in_the_end() {
    stay_within_the_bound(&Trial {
        readers: 5_000,
        shard_budget: 64 << 20,
        message: 100_000,
        pushes: 1,
        together: 5,
    });
}

/// The lines about ended sessions so far.
fn ends(gateway: &Gateway) -> Vec<String> {
    gateway.logs().lines().filter(|line| line.contains("session over")).map(str::to_owned).collect()
}

#[test]
fn each_end_is_logged_once_with_all_that_is_asked_for_and_no_name_if_so_configured() {
    for (users, shown) in [("plain", true), ("hashed", false)] {
        let flags = ["--shards-count", "1", "--log-level", "debug", "--log-users", users];
        let mut gateway = Gateway::start(&flags);
        let mut alice = gateway.connect("alice-in-the-log", 1);
        alice.send_raw(Message::text("no ping"));
        alice.closed();
        let lines = eventually("the line", || Some(ends(&gateway)).filter(|lines| !lines.is_empty()));
        let line = &lines[0];
        assert_eq!(line.contains("alice-in-the-log"), shown, "{line}");
        assert_eq!(gateway.logs().contains("alice-in-the-log"), shown, "{}", gateway.logs());
        for part in [
            "INFO",
            "conn=",
            "user=",
            "platform=",
            "peer=127.0.0.1:",
            "reason=\"bad_text_frame\"",
            "fault=Client",
            "age_ms=",
            "bytes_in=13",
            "bytes_out=",
            "bytes_unsent=0",
            "last_frame=\"fault\"",
            "heard_ms=",
            "client_next=",
        ] {
            assert!(line.contains(part), "no {part} in {line}");
        }
        let bob = gateway.connect("bob", 1);
        gateway.signal(Signal::TERM);
        assert!(gateway.wait().success());
        drop(bob);
        let lines = eventually("the second line", || Some(ends(&gateway)).filter(|lines| lines.len() > 1));
        assert_eq!(lines.len(), 2, "{lines:?}");
        assert!(lines[1].contains("reason=\"drain\"") && lines[1].contains("DEBUG"), "{}", lines[1]);
    }
}

#[test]
fn a_client_above_its_rates_is_closed_with_a_code_and_the_next_one_is_served() {
    let gateway = Gateway::start(&["--shards-count", "1", "--requests-frames-per-s", "10"]);
    let mut client = gateway.connect("eager", 1);
    for _ in 0..200 {
        client.send_raw_unless_gone(Message::Ping(Vec::new().into()));
    }
    client.closed();
    let counted = || gateway.metrics().sum("pinion_closes_total", &["reason=\"frame_rate\""]) == 1.0;
    eventually("the count", || counted().then_some(()));
    gateway.connect("patient", 1);
}
