//! While a flood runs and is never cut, mail of the rpc thread is handled and other callers are answered: the budget of
//! a turn alone must see to that, and a held thread would never answer. With `--nocapture` each flood's rate and the
//! mailbox's delay are printed (not judged: they depend on the machine); how long each runs is `PINION_FLOOD_MS`
//! (default 300):
//!
//! `PINION_FLOOD_MS=3000 cargo test --lib --release -- rpc::tests::floods --nocapture`

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use monoio::time::Instant;

use super::upstream::{TOKEN, ask, await_mail};
use super::wire::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, HEADERS, PING, PRIORITY, Peer, RST_STREAM, SETTINGS,
    WINDOW_UPDATE, call_head, frame, literals,
};
use super::*;
use crate::config::RpcLimits;
use crate::hub::upstream::UpstreamRequest;
use crate::pb::openim::msggateway::OnlineBatchPushOneMsgResp;

/// One kind of flood.
struct Flood {
    name: &'static str,
    connections: u32,
    /// Frames of a chunk.
    frames: u32,
    /// The n-th chunk of a connection.
    chunk: fn(u32) -> Vec<u8>,
}

/// Chunks are some tens of KiB.
const FRAMES: u32 = 2_000;
const CALLS: u32 = 200;

fn control(kind: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    frame(kind, 0, stream, payload).repeat(FRAMES as usize)
}

/// A stream is opened first, and stays open.
fn on_a_stream(n: u32, frames: Vec<u8>) -> Vec<u8> {
    if n > 0 { frames } else { [frame(HEADERS, END_HEADERS, 1, &call_head()), frames].concat() }
}

/// Calls with ids that go on from chunk to chunk.
fn calls(n: u32, call: impl Fn(u32) -> Vec<u8>) -> Vec<u8> {
    (0..CALLS).flat_map(|i| call(1 + 2 * (n * CALLS + i))).collect()
}

const FLOODS: [Flood; 13] = [
    Flood { name: "nothing", connections: 0, frames: 0, chunk: |_| Vec::new() },
    Flood { name: "PING", connections: 1, frames: FRAMES, chunk: |_| control(PING, 0, b"12345678") },
    Flood {
        name: "PING, 64 connections",
        connections: 64,
        frames: FRAMES,
        chunk: |_| control(PING, 0, b"12345678"),
    },
    Flood { name: "SETTINGS", connections: 1, frames: FRAMES, chunk: |_| control(SETTINGS, 0, &[]) },
    Flood {
        name: "WINDOW_UPDATE of the connection",
        connections: 1,
        frames: FRAMES,
        chunk: |_| control(WINDOW_UPDATE, 0, &[0, 0, 0, 1]),
    },
    Flood {
        name: "WINDOW_UPDATE of a stream",
        connections: 1,
        frames: FRAMES,
        chunk: |n| on_a_stream(n, control(WINDOW_UPDATE, 1, &[0, 0, 0, 1])),
    },
    Flood {
        name: "PRIORITY",
        connections: 1,
        frames: FRAMES,
        chunk: |_| control(PRIORITY, 1, &[0, 0, 0, 0, 16]),
    },
    Flood { name: "unknown types", connections: 1, frames: FRAMES, chunk: |_| control(0xbb, 0, &[]) },
    Flood {
        name: "empty DATA",
        connections: 1,
        frames: FRAMES,
        chunk: |n| on_a_stream(n, control(DATA, 1, &[])),
    },
    Flood {
        name: "rapid reset",
        connections: 1,
        frames: 2 * CALLS,
        chunk: |n| {
            let head = call_head();
            calls(n, |id| {
                [frame(HEADERS, END_HEADERS, id, &head), frame(RST_STREAM, 0, id, &[0, 0, 0, 8])].concat()
            })
        },
    },
    Flood {
        name: "refused HEADERS",
        connections: 1,
        frames: CALLS,
        chunk: |n| {
            let head = literals(&[(":method", "POST"), (":scheme", "http"), (":path", "/")]);
            calls(n, |id| frame(HEADERS, END_HEADERS | END_STREAM, id, &head))
        },
    },
    Flood {
        name: "refused HEADERS, 64 connections",
        connections: 64,
        frames: CALLS,
        chunk: |n| {
            let head = literals(&[(":method", "POST"), (":scheme", "http"), (":path", "/")]);
            calls(n, |id| frame(HEADERS, END_HEADERS | END_STREAM, id, &head))
        },
    },
    Flood {
        name: "CONTINUATION",
        connections: 1,
        frames: FRAMES,
        chunk: |n| {
            let more = frame(CONTINUATION, 0, 1, &[]).repeat(FRAMES as usize);
            if n > 0 { more } else { [frame(HEADERS, 0, 1, &call_head()), more].concat() }
        },
    },
];

#[test]
fn mail_is_handled_and_calls_are_answered_whatever_floods_come() {
    let for_ms = std::env::var("PINION_FLOOD_MS").map_or(300, |ms| ms.parse().unwrap());
    let only = std::env::var("PINION_FLOOD").ok();
    // So that a flood goes on.
    let limits = RpcLimits {
        control_frames_per_s: limits::H2_RATE_MAX,
        resets_per_s: limits::H2_RATE_MAX,
        ..RpcLimits::DEFAULT
    };
    for driver in crate::shard::thread::tests::drivers() {
        for flood in FLOODS.iter().filter(|flood| only.as_ref().is_none_or(|only| flood.name.contains(only)))
        {
            let mut config = config();
            config.rpc.limits = limits;
            let node = Node::start_with(driver, Shards::Absent, config);
            let (frames, delays) = run(&node, flood, Duration::from_millis(for_ms));
            let ms = |time: Duration| time.as_secs_f64() * 1e3;
            let mut own: Vec<_> = delays.iter().map(|(delay, cpu)| ms(delay.saturating_sub(*cpu))).collect();
            let mut delays: Vec<_> = delays.into_iter().map(|(delay, _)| ms(delay)).collect();
            own.sort_unstable_by(f64::total_cmp);
            delays.sort_unstable_by(f64::total_cmp);
            let at = |percent: usize| delays[(delays.len() - 1) * percent / 100];
            println!(
                "{driver:?} {:<32} {:>9.0} frames/s; {} mails: median {:.2} ms, p99 {:.2} ms, max {:.2} ms, \
                 max less preemption {:.2} ms",
                flood.name,
                frames as f64 * 1e3 / for_ms as f64,
                delays.len(),
                at(50),
                at(99),
                at(100),
                own[own.len() - 1],
            );
        }
    }
}

/// Tells a thread to stop when it goes, also in a panic: a scope waits for its threads.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Frames offered, and the delays of mail meanwhile with what of it the thread waited for a CPU.
fn run(node: &Node, flood: &Flood, time: Duration) -> (u64, Vec<(Duration, Duration)>) {
    let stop = AtomicBool::new(false);
    let (thread, mut delays) = (newest_rpc_thread(), Vec::new());
    let frames = std::thread::scope(|scope| {
        let flooder = scope.spawn(|| send(node, flood, &stop));
        let stop = Stop(&stop);
        let begun = Instant::now();
        while begun.elapsed() < time || delays.is_empty() {
            let (before, posted) = (waited_for_a_cpu(&thread), Instant::now());
            ask(node, 0, UpstreamRequest::ParseToken { token: TOKEN.into() });
            await_mail(|| node.inboxes[0].next_reply());
            let preempted = waited_for_a_cpu(&thread).saturating_sub(before); // of a thread that has ended: nothing
            delays.push((posted.elapsed(), preempted));
            std::thread::sleep(Duration::from_millis(2)); // a pace, not a synchronisation
        }
        let refused = node.call::<OnlineBatchPushOneMsgResp>("Nothing", &super::grpc::push_request(&["on1"]));
        assert_eq!(refused.map_err(|status| status.code), Err(12), "{}: another caller", flood.name);
        drop(stop);
        flooder.join().unwrap()
    });
    (frames, delays)
}

/// Its folder under `/proc`; of several tests at once it may be another one's, which only makes the figure wrong.
fn newest_rpc_thread() -> PathBuf {
    let threads = std::fs::read_dir("/proc/self/task").unwrap().map(|thread| thread.unwrap().path());
    let name = |thread: &PathBuf| std::fs::read_to_string(thread.join("comm")).unwrap_or_default();
    let id = |thread: &PathBuf| thread.file_name().unwrap().to_string_lossy().parse::<u32>().unwrap();
    threads.filter(|thread| name(thread).trim() == "rpc0").max_by_key(id).unwrap()
}

/// How long a thread was runnable and did not run, since its start (proc(5), `schedstat`).
fn waited_for_a_cpu(thread: &Path) -> Duration {
    let text = std::fs::read_to_string(thread.join("schedstat")).unwrap_or_default();
    Duration::from_nanos(text.split(' ').nth(1).map_or(0, |ns| ns.parse().unwrap()))
}

/// Floods on all connections from one thread, so that the flooder takes no more of the machine than the flooded.
fn send(node: &Node, flood: &Flood, stop: &AtomicBool) -> u64 {
    let mut flooders: Vec<_> =
        (0..flood.connections).map(|_| Peer::connect(node.grpc).into_flooder()).collect();
    let mut chunks = 0;
    while !stop.load(Ordering::Relaxed) {
        let mut sent = 0;
        for flooder in &mut flooders {
            match flooder.step(flood.chunk) {
                Some(n) => sent += n,
                // Where h2 itself cuts a connection the next one takes its place.
                None => {
                    chunks += flooder.chunks;
                    *flooder = Peer::connect(node.grpc).into_flooder();
                }
            }
        }
        if sent == 0 {
            std::thread::sleep(Duration::from_micros(200));
        }
    }
    chunks += flooders.iter().map(|flooder| flooder.chunks).sum::<u32>();
    u64::from(chunks) * u64::from(flood.frames)
}
