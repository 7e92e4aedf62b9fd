//! Hostile gRPC callers against the whole gateway: what WebSocket clients and honest callers see of them (nothing),
//! what operators see (counts, settings), and that a drain does not wait for them. Each kind of attack by itself is
//! in `src/rpc/tests`.

#[allow(dead_code, reason = "shared with src/rpc/tests, which use all of it")]
#[path = "../../src/rpc/tests/wire.rs"]
mod wire;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::harness::{DEADLINE, Gateway, eventually, pinion, run, texts};
use wire::{
    DATA, END_HEADERS, END_STREAM, HEADERS, PING, PREFACE, PRIORITY, Peer, RST_STREAM, SETTINGS,
    WINDOW_UPDATE, call_head, frame,
};

/// The HTTP/2 error.
const ENHANCE_YOUR_CALM: u32 = 11;

fn pings() -> Vec<u8> {
    frame(PING, 0, 0, b"12345678").repeat(2_000)
}

fn resets(n: u32) -> Vec<u8> {
    let call = |id| [frame(HEADERS, END_HEADERS, id, &call_head()), frame(RST_STREAM, 0, id, &[0, 0, 0, 8])];
    (0..200).flat_map(|i| call(1 + 2 * (200 * n + i)).concat()).collect()
}

/// Attacks until told to stop; a connection that is cut is followed by the next. Far above what is allowed, but not at
/// full speed: that is for `src/rpc/tests/floods.rs`, and here it would be a contest for the CPUs of a small machine.
fn attack(grpc: SocketAddr, stop: &AtomicBool, chunk: impl Fn(u32) -> Vec<u8>) {
    let mut flooder = Peer::connect(grpc).into_flooder();
    while !stop.load(Ordering::Relaxed) {
        match flooder.step(&chunk) {
            Some(_) => std::thread::sleep(Duration::from_millis(5)),
            None => flooder = Peer::connect(grpc).into_flooder(),
        }
    }
}

/// Sets a flag when it goes, also in a panic: a scope waits for its threads.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn clients_and_callers_go_on_while_floods_are_cut_and_counted() {
    // So low that an attacker is above them who gets a part of a slow CPU only.
    let rates = ["--rpc-control-frames-per-s", "500", "--rpc-resets-per-s", "50"];
    let gateway = Gateway::start(&[&["--shards-count", "2"], &rates[..]].concat());
    let mut clients: Vec<_> = (0..4).map(|n| gateway.connect(&format!("u{n}"), 1)).collect();
    let users: Vec<String> = (0..4).map(|n| format!("u{n}")).collect();
    let users: Vec<&str> = users.iter().map(String::as_str).collect();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let _stop = Stop(&stop);
        scope.spawn(|| attack(gateway.grpc, &stop, |_| pings()));
        scope.spawn(|| attack(gateway.grpc, &stop, resets));
        let begun = Instant::now();
        let mut round = 0;
        let cut = |reason: &str| gateway.metrics().sum("pinion_rpc_cut_total", &[reason]) >= 1.0;
        while round < 20 || !cut("control_frames") || !cut("resets") {
            assert!(begun.elapsed() < 3 * DEADLINE, "not cut after {round} rounds");
            round += 1;
            let text = format!("message {round}");
            let answer = gateway.push("boss", &users, &text);
            assert!(answer.single_push_result.iter().all(|result| result.online_push), "{answer:?}");
            for client in &mut clients {
                assert_eq!(client.pushed_text(), text);
            }
        }
    });
    eventually("the attackers' places", || {
        (gateway.metrics().sum("pinion_rpc_connections", &[]) == 0.0).then_some(())
    });
    let closes = gateway.metrics().sum("pinion_closes_total", &[]);
    assert!(closes < 1.0, "{closes} clients lost their connection");
}

#[test]
fn the_limits_of_callers_are_settings() {
    let flags = [
        ("--rpc-connections-max", "7", "rpc.connections_max", "7"),
        ("--rpc-address-connections-max", "2", "rpc.address_connections_max", "2"),
        ("--rpc-streams-max", "3", "rpc.streams_max", "3"),
        ("--rpc-header-list-bytes", "2KiB", "rpc.header_list_bytes", "2048"),
        ("--rpc-send-buffer-bytes", "32KiB", "rpc.send_buffer_bytes", "32768"),
        ("--rpc-send-deadline-ms", "5s", "rpc.send_deadline_ms", "5000"),
        ("--rpc-control-frames-per-s", "10", "rpc.control_frames_per_s", "10"),
        ("--rpc-resets-per-s", "11", "rpc.resets_per_s", "11"),
    ];
    let flat: Vec<&str> = flags.iter().flat_map(|(flag, value, ..)| [*flag, *value]).collect();
    let (code, shown, errors) = texts(&run(pinion(&[&flat[..], &["--print-config"]].concat())));
    assert_eq!(code, 0, "{errors}");
    for (.., key, value) in flags {
        let line =
            shown.lines().find(|line| line.starts_with(key)).unwrap_or_else(|| panic!("{key}: {shown}"));
        assert!(line.split_whitespace().any(|word| word == value), "{line}");
    }
    let gateway = Gateway::start(&[&flat[..], &["--shards-count", "1"]].concat());
    let mut peer = Peer::connect(gateway.grpc);
    let settings = peer.find(|f| f.kind == SETTINGS && f.flags == 0).payload;
    let announced = |id: u8, value: u32| {
        let entry = [&[0, id][..], &value.to_be_bytes()].concat();
        settings.chunks(6).any(|chunk| chunk == entry)
    };
    assert!(announced(3, 3) && announced(6, 2_048), "{settings:?}");
    let mut second = Peer::connect(gateway.grpc);
    assert!(second.is_served());
    assert_eq!(Peer::connect(gateway.grpc).closed(), None, "the third of one address");
    peer.write(&frame(PRIORITY, 0, 1, &[0, 0, 0, 0, 16]).repeat(500));
    assert_eq!(peer.closed(), Some(ENHANCE_YOUR_CALM));
    second.write(&resets(0));
    assert_eq!(second.closed(), Some(ENHANCE_YOUR_CALM));
    for reason in ["control_frames", "resets"] {
        eventually(reason, || {
            (gateway.metrics().sum("pinion_rpc_cut_total", &[reason]) == 1.0).then_some(())
        });
    }
    eventually("the refusal", || {
        let label = ["address_limit"];
        (gateway.metrics().sum("pinion_rpc_connections_refused_total", &label) == 1.0).then_some(())
    });
}

#[test]
fn a_drain_does_not_wait_for_hostile_callers() {
    let rates = ["--rpc-control-frames-per-s", "100000000", "--rpc-resets-per-s", "100000000"];
    let mut gateway =
        Gateway::start(&[&["--shards-count", "1", "--drain-deadline-ms", "2s"], &rates[..]].concat());
    let silent = Peer::silent(gateway.grpc);
    let mut halfway = Peer::silent(gateway.grpc);
    halfway.write(&PREFACE[..10]);
    let mut endless = Peer::connect_with(gateway.grpc, b"\0\x04\0\0\0\0");
    endless.write(&frame(HEADERS, END_HEADERS, 1, &call_head()));
    endless.write(&frame(DATA, 0, 1, b"\0\0\0\x01\0x"));
    assert!(endless.is_served());
    let mut unread = Peer::connect(gateway.grpc);
    unread.write(&frame(HEADERS, END_HEADERS | END_STREAM, 1, &call_head()));
    unread.write(&frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1]));
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let _stop = Stop(&stop);
        let mut flooders = [(); 2].map(|()| {
            let mut peer = Peer::connect(gateway.grpc);
            assert!(peer.is_served());
            peer.into_flooder()
        });
        let stop = &stop;
        scope.spawn(move || {
            while !stop.load(Ordering::Relaxed) && flooders.iter_mut().all(|f| f.step(|_| pings()).is_some())
            {
            }
        });
        gateway.signal(Signal::TERM);
        assert_eq!(gateway.wait().code(), Some(0));
    });
    drop((silent, halfway, endless, unread));
}
