//! System calls of a shard per frame, by engine, and of a thread of the proxy per message: counted from outside, by
//! `strace` on that thread alone.
//!
//! The shard is held in a planted stall while the frames come, so that they all wait when it turns again: the count
//! does not depend on who of client and shard is faster. Without `strace`, or where it may not attach, this prints
//! SKIPPED.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use tungstenite::Message;

use crate::harness::proxy::{Proxy, Puppet};
use crate::harness::{Client, Gateway, eventually};

/// Clients, and so frames: not so many that the first are silent for too long while a slow machine logs in the last.
const FRAMES: usize = 300;

/// What was counted, by name.
type Calls = BTreeMap<String, usize>;

/// `strace` on one thread.
struct Counter {
    strace: Child,
    report: tempfile::NamedTempFile,
}

impl Counter {
    /// Attached when it returns; `None`: not on this machine.
    fn attach(thread: u32) -> Option<Self> {
        let report = tempfile::NamedTempFile::new().unwrap();
        let mut command = Command::new("strace");
        command.args(["-c", "-U", "calls,name", "-o"]).arg(report.path()).args(["-p", &thread.to_string()]);
        let spawned = command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn();
        let Ok(mut strace) = spawned.inspect_err(|error| println!("SKIPPED: strace: {error}")) else {
            return None;
        };
        let mut said = String::new();
        BufReader::new(strace.stderr.take().unwrap()).read_line(&mut said).unwrap();
        if !said.contains("attached") {
            println!("SKIPPED: {said}");
            strace.wait().unwrap();
            return None;
        }
        Some(Self { strace, report })
    }

    /// Detaches; gives the calls since it was attached.
    fn end(mut self) -> Calls {
        kill_process(Pid::from_child(&self.strace), Signal::INT).unwrap();
        self.strace.wait().unwrap();
        let text = std::fs::read_to_string(self.report.path()).unwrap();
        let line = |line: &str| {
            let (calls, name) = line.trim().split_once(char::is_whitespace)?;
            Some((name.trim().to_owned(), calls.parse().ok()?))
        };
        text.lines().filter_map(line).filter(|(name, _)| name != "total").collect()
    }
}

/// The thread with this name.
fn thread_of(process: u32, name: &str) -> u32 {
    let tasks = std::fs::read_dir(format!("/proc/{process}/task")).unwrap();
    let named = |task: &std::fs::DirEntry| {
        std::fs::read_to_string(task.path().join("comm")).is_ok_and(|comm| comm.trim() == name)
    };
    let task = tasks.map(Result::unwrap).find(named).unwrap();
    task.file_name().to_str().unwrap().parse().unwrap()
}

fn frames_in(gateway: &Gateway) -> f64 {
    gateway.metrics().sum("pinion_frames_total", &["direction=\"in\""])
}

/// Holds the shard until `work` is done.
fn while_it_stalls(gateway: &Gateway, work: impl FnOnce()) {
    gateway.signal(Signal::USR2);
    eventually("the shard to stall", || {
        (gateway.metrics().sum("pinion_shard_stalled", &["shard=\"0\""]) > 0.0).then_some(())
    });
    work();
    gateway.signal(Signal::USR2);
    eventually("the shard to turn again", || {
        (gateway.metrics().sum("pinion_shard_stalled", &["shard=\"0\""]) == 0.0).then_some(())
    });
}

/// Calls for so many frames received, and sent.
fn count(engine: &str, driver: &str) -> Option<(Calls, Calls)> {
    let gateway = Gateway::start(&[
        "--shards-count",
        "1",
        "--shards-engine",
        engine,
        "--shards-driver",
        driver,
        "--plant-stall",
        "0:600000", // it is ended before
        "--stall-abort-ms",
        "900s",
        "--websocket-connections-max",
        "2000",
    ]);
    let names: Vec<String> = (0..FRAMES).map(|n| format!("u{n}")).collect();
    let mut clients: Vec<Client> = names.iter().map(|name| gateway.connect(name, 7)).collect();
    let shard = thread_of(gateway.id(), "shard0");
    let counter = Counter::attach(shard)?;
    let before = frames_in(&gateway);
    while_it_stalls(&gateway, || {
        // A pong that nobody asked for has no answer: these frames are received and nothing is sent.
        clients.iter_mut().for_each(|client| client.send_raw(Message::Pong("x".into())));
    });
    eventually("all frames", || (frames_in(&gateway) >= before + FRAMES as f64).then_some(()));
    let received = counter.end();
    let counter = Counter::attach(shard)?;
    let everybody: Vec<&str> = names.iter().map(String::as_str).collect();
    gateway.push("sender", &everybody, "to all");
    for client in &mut clients {
        assert_eq!(client.pushed_text(), "to all");
    }
    Some((received, counter.end()))
}

/// Calls of these kinds.
fn sum(calls: &Calls, names: &[&str]) -> usize {
    names.iter().filter_map(|name| calls.get(*name)).sum()
}

const RECEIVES: [&str; 2] = ["recvfrom", "recvmsg"];
const SENDS: [&str; 2] = ["sendto", "sendmsg"];

/// Ticks and wake-ups while the clients read are part of the totals, so these are printed and the kinds are asserted.
#[test]
fn the_ring_engine_makes_no_call_per_frame_and_the_task_engine_one() {
    for (engine, driver) in [("ring", "io_uring"), ("task", "io_uring"), ("task", "epoll")] {
        if driver == "io_uring"
            && let Err(why) = pinion::shard::probe_ring_engine()
        {
            println!("SKIPPED: {why}");
            continue;
        }
        let Some((received, sent)) = count(engine, driver) else { return };
        for (what, calls) in [("received", &received), ("sent", &sent)] {
            let total: usize = calls.values().sum();
            println!("{engine} on {driver}: {total} calls for {FRAMES} frames {what}: {calls:?}");
        }
        let per_frame = (sum(&received, &RECEIVES) >= FRAMES, sum(&sent, &SENDS) >= FRAMES);
        let expected = engine == "task";
        assert_eq!(per_frame, (expected, expected), "{engine} on {driver}: {received:?} {sent:?}");
    }
}

/// A message waits for the one before it, so no two are moved at once. Waits are printed only: some are for the counts
/// that are published as time goes by.
#[test]
fn the_proxy_makes_one_receive_and_one_send_per_message_and_no_other_move() {
    const PAIRS: usize = 10;
    const ROUNDS: usize = 20;
    const MESSAGES: usize = 2 * PAIRS * ROUNDS;
    let member = Puppet::new();
    let proxy = Proxy::start(&member.line("a"), &["--threads", "1"]);
    let pairs: Vec<_> = (0..PAIRS).map(|_| member.pair(&proxy)).collect();
    proxy.until_level("pairs", PAIRS as f64); // what an opening reads is behind us
    let Some(counter) = Counter::attach(thread_of(proxy.id(), "proxy-0")) else { return };
    for _ in 0..ROUNDS {
        for (client, far) in &pairs {
            for (mut from, mut to) in [(client, far), (far, client)] {
                let mut came = [0; 100];
                from.write_all(&[7; 100]).unwrap();
                to.read_exact(&mut came).unwrap();
            }
        }
    }
    proxy.until("moves_total", "copy", (MESSAGES + PAIRS) as f64); // with the answers that opened them
    let calls = counter.end();
    println!("proxy: {calls:?} for {MESSAGES} messages");
    assert_eq!((sum(&calls, &RECEIVES), sum(&calls, &SENDS)), (MESSAGES, MESSAGES), "{calls:?}");
    assert_eq!(sum(&calls, &["splice", "read", "write", "readv", "writev", "epoll_ctl"]), 0, "{calls:?}");
}
