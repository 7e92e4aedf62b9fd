//! Tests of the watcher: its decisions in virtual time, and the backtrace of a thread that really does not come back.
#![expect(clippy::disallowed_methods, reason = "a test with real threads waits in real time")]

use std::hint::black_box;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::super::DriverKind;
use super::super::mailbox::shard_mailbox;
use super::super::pulse::Activity;
use super::*;
use crate::ids::{ConnId, SlotId};
use crate::metrics::Tally;

const ABORT_MS: u64 = 5_000;

/// A shard whose heart beats on the test's command, and its watcher.
fn watch() -> (Arc<Pulse>, Arc<Block>, Watcher) {
    let (pulse, block) = (Arc::new(Pulse::default()), Arc::new(Block::default()));
    // The inbox is dropped: nobody posts here.
    let (address, _) = shard_mailbox().unwrap();
    let watched =
        Watched { shard: ShardId(1), pulse: Arc::clone(&pulse), block: Arc::clone(&block), address };
    (pulse, block, Watcher::new(vec![watched], ABORT_MS))
}

/// All findings of checks every `STALL_WATCH_MS` in `from..to`.
fn checks(watcher: &mut Watcher, from: u64, to: u64) -> Vec<(u64, Finding)> {
    let step = usize::try_from(limits::STALL_WATCH_MS).unwrap();
    let at =
        |now| watcher.check(Mono(now)).into_iter().map(move |finding| (now, finding)).collect::<Vec<_>>();
    (from..to).step_by(step).flat_map(at).collect()
}

#[derive(Default)]
struct Responses(Vec<String>);

impl StallResponse for Responses {
    fn leave_accept_group(&mut self, shard: ShardId) {
        self.0.push(format!("leave {}", shard.0));
    }
    fn rejoin_accept_group(&mut self, shard: ShardId) {
        self.0.push(format!("rejoin {}", shard.0));
    }
    fn abort(&mut self, shard: ShardId) {
        self.0.push(format!("abort {}", shard.0));
    }
}

#[test]
fn a_shard_that_turns_is_never_reported() {
    let (pulse, _, mut watcher) = watch();
    assert_eq!(checks(&mut watcher, 0, 10_000), [], "not started yet");
    pulse.begin(Mono(10_000));
    for now in (10_000..20_000).step_by(100) {
        pulse.turn(Mono(now));
        pulse.park();
        assert_eq!(watcher.check(Mono(now + 90)), []);
    }
    pulse.end();
    assert_eq!(checks(&mut watcher, 20_000, 40_000), [], "ended");
}

#[test]
fn a_stalled_shard_is_known_in_time_with_what_it_did() {
    for parked in [false, true] {
        let (pulse, block, mut watcher) = watch();
        let mut tally = Tally::default();
        tally.set(Metric::KickDepth, 3);
        tally.set(Metric::KickAge, 40);
        block.publish(&tally);
        pulse.begin(Mono(1_000));
        pulse.turn(Mono(1_050));
        pulse.enter(Activity::Bytes, Some(ConnId(SlotId { index: 7, generation: 9 })));
        if parked {
            pulse.park();
        }
        let findings = checks(&mut watcher, 1_000, 1_050 + limits::STALL_REPORT_MS);
        let [(_, Finding::Stalled(report))] = findings.as_slice() else { panic!("{findings:?}") };
        let text = report.to_string();
        for part in ["shard 1 ", "bytes of a client of connection 7.9", "kick 3 (oldest ", "lanes: replies 0"]
        {
            assert!(text.contains(part), "{part:?} is missing in {text:?}");
        }
        assert_eq!(text.contains("waits for events"), parked);
    }
}

#[test]
fn recovery_is_told_once_and_a_second_stall_is_told_again() {
    let (pulse, _, mut watcher) = watch();
    pulse.begin(Mono(0));
    assert_eq!(checks(&mut watcher, 0, 2_000).len(), 1);
    pulse.turn(Mono(2_000));
    let shard = ShardId(1);
    assert_eq!(
        checks(&mut watcher, 2_000, 2_500),
        [(2_000, Finding::Recovered { shard, stalled_ms: 2_000 })]
    );
    let again = checks(&mut watcher, 2_500, 4_000);
    assert!(matches!(again.as_slice(), [(_, Finding::Stalled(_))]), "{again:?}");
}

#[test]
fn the_second_limit_asks_for_an_abort_once() {
    let (pulse, _, mut watcher) = watch();
    pulse.begin(Mono(0));
    let findings = checks(&mut watcher, 0, 4 * ABORT_MS);
    let [(_, Finding::Stalled(_)), (at, Finding::Abort { .. })] = findings.as_slice() else {
        panic!("{findings:?}")
    };
    assert!((ABORT_MS..=ABORT_MS + 2 * limits::STALL_WATCH_MS).contains(at), "{at}");
}

#[test]
fn a_watcher_that_was_away_does_not_blame_the_shards() {
    let (pulse, _, mut watcher) = watch();
    pulse.begin(Mono(0));
    assert_eq!(watcher.check(Mono(0)), []);
    assert_eq!(watcher.check(Mono(60_000)), [], "the whole process was stopped");
    pulse.turn(Mono(60_010));
    assert_eq!(checks(&mut watcher, 60_100, 60_700), []);
    assert_eq!(checks(&mut watcher, 60_700, 62_000).len(), 1, "and is on its guard again");
}

#[test]
fn findings_lead_to_metric_listener_and_abort() {
    let (_, block, watcher) = watch();
    let (shard, stalled_ms) = (ShardId(1), 1);
    let report = StallReport {
        shard,
        stalled_ms,
        glimpse: Pulse::default().glimpse(), // it has not begun: no backtrace, and the report goes on without
        lanes: LaneDepths::default(),
        queues: [("register", 0, 0); 3],
    };
    let mut responses = Responses::default();
    watcher.act(&Finding::Stalled(report), &mut responses);
    assert_eq!(block.value(Metric::Stalled), 1);
    watcher.act(&Finding::Recovered { shard, stalled_ms }, &mut responses);
    assert_eq!(block.value(Metric::Stalled), 0);
    watcher.act(&Finding::Abort { shard, stalled_ms }, &mut responses);
    assert_eq!(responses.0, ["leave 1", "rejoin 1", "abort 1"]);
}

/// Long enough for any machine; only a failure waits for it.
const PATIENCE: Duration = Duration::from_secs(60);

/// Asks for a backtrace, again if another test holds the one request that can be open or the thread is kept waiting.
fn ask(thread: i32) -> Result<String, String> {
    let begin = Instant::now();
    loop {
        let answer = stall_trace::trace(thread);
        match answer {
            Err(why) if is_passing(&why) && begin.elapsed() < PATIENCE => thread::yield_now(),
            _ => return answer,
        }
    }
}

fn is_passing(why: &str) -> bool {
    ["still open", " within "].iter().any(|part| why.contains(part))
}

#[inline(never)]
fn spins_in_a_place_with_a_name(pulse: &Pulse, stop: &AtomicBool) {
    pulse.begin(Mono(0));
    while !black_box(stop).load(Ordering::Relaxed) {
        std::hint::spin_loop();
    }
}

#[test]
fn the_backtrace_of_a_busy_loop_names_its_function() {
    stall_trace::install().unwrap();
    let (pulse, stop) = (Pulse::default(), AtomicBool::new(false));
    let traces = thread::scope(|scope| {
        let spin = || spins_in_a_place_with_a_name(&pulse, &stop);
        let thread = thread::Builder::new().spawn_scoped(scope, spin).unwrap();
        while pulse.glimpse().phase == Phase::Unborn {
            thread::yield_now();
        }
        let traces = [(); 3].map(|()| ask(pulse.glimpse().thread));
        stop.store(true, Ordering::Relaxed);
        thread.join().unwrap();
        traces
    });
    for trace in traces {
        let trace = trace.unwrap();
        assert!(trace.contains("spins_in_a_place_with_a_name"), "{trace}");
        assert!(!trace.contains("store_frames"), "the signal's own frames are left out: {trace}");
    }
    let gone = ask(i32::MAX).unwrap_err();
    assert!(gone.contains("no signal could be sent"), "{gone}");
}

/// Ticks on a monoio runtime of `driver` until `stop`; false if there is no such driver here.
fn ticks_on_monoio(driver: DriverKind, pulse: &Pulse, stop: &AtomicBool) -> bool {
    async fn ticks(pulse: &Pulse, stop: &AtomicBool) {
        pulse.begin(Mono(0));
        while !stop.load(Ordering::Relaxed) {
            pulse.turn(Mono(0));
            monoio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    match driver {
        DriverKind::IoUring => monoio::RuntimeBuilder::<monoio::IoUringDriver>::new()
            .enable_timer()
            .build()
            .map(|mut runtime| runtime.block_on(ticks(pulse, stop))),
        DriverKind::Epoll => monoio::RuntimeBuilder::<monoio::LegacyDriver>::new()
            .enable_timer()
            .build()
            .map(|mut runtime| runtime.block_on(ticks(pulse, stop))),
    }
    .is_ok()
}

/// The signal interrupts the wait in the kernel (EINTR); the runtime must go on.
#[test]
fn monoio_survives_being_asked_for_a_backtrace() {
    stall_trace::install().unwrap();
    for driver in [DriverKind::Epoll, DriverKind::IoUring] {
        let (pulse, stop) = (Pulse::default(), AtomicBool::new(false));
        thread::scope(|scope| {
            let run = || ticks_on_monoio(driver, &pulse, &stop);
            let thread = thread::Builder::new().spawn_scoped(scope, run).unwrap();
            while pulse.glimpse().turns == 0 && !thread.is_finished() {
                thread::yield_now();
            }
            let mut survived = 0;
            while survived < 20 && !thread.is_finished() {
                let (before, begin) = (pulse.glimpse(), Instant::now());
                if ask(before.thread).is_err() {
                    break;
                }
                while pulse.glimpse().turns == before.turns && begin.elapsed() < PATIENCE {
                    thread::yield_now();
                }
                if pulse.glimpse().turns == before.turns {
                    break;
                }
                survived += 1;
            }
            stop.store(true, Ordering::Relaxed);
            let ran = thread.join().unwrap();
            assert!(ran || driver == DriverKind::IoUring, "epoll is always there; io_uring may be denied");
        });
    }
}
