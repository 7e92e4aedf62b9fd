//! Load through the gRPC port: closed loop (the next call when one is answered) for rates, open loop (calls when they
//! are due, answered or not) for latencies.

use std::sync::Arc;

use tokio::sync::Semaphore;

use crate::grpc::{Caller, Stream};
use crate::message::{STREAM_PATH, Template, user};
use crate::pace::Pace;
use pinion_bench_kit::clock::{now_ns, seconds};

/// Calls of an open loop that may be unanswered. More: the gateway does not keep up, and the bench says so.
const UNANSWERED_MAX: usize = 10_000;

/// Whom a call is for.
#[derive(Clone, Copy, Debug)]
pub struct Users {
    pub first: usize,
    pub count: usize,
}

impl Users {
    /// A walk over all of them that jumps, so that neighbours in time are none in memory.
    fn nth(self, n: u64) -> String {
        let at = n.wrapping_mul(7_919) % self.count as u64;
        user(self.first + usize::try_from(at).expect("below a usize"))
    }
}

/// What a loop came to.
#[derive(Clone, Copy, Debug, Default)]
pub struct Done {
    pub calls: u64,
    pub wall_s: f64,
    /// Bytes of all answers.
    pub answer_bytes: usize,
}

/// Keeps so many calls in flight for so long.
pub async fn closed(caller: &Caller, path: &'static str, template: &Arc<Template>, load: Load) -> Done {
    let start_ns = now_ns();
    let callers = (0..load.in_flight as u64).map(|n| {
        let (caller, template) = (caller.clone(), Arc::clone(template));
        tokio::spawn(async move {
            let mut done = Done::default();
            while seconds(start_ns, now_ns()) < load.seconds {
                let to = load.users.nth(n + done.calls * load.in_flight as u64);
                done.answer_bytes += caller.unary(path, template.framed(now_ns(), &to)).await;
                done.calls += 1;
            }
            done
        })
    });
    let mut sum = Done::default();
    for caller in callers.collect::<Vec<_>>() {
        let done = caller.await.expect("no call panics without an abort");
        sum.calls += done.calls;
        sum.answer_bytes += done.answer_bytes;
    }
    Done { wall_s: seconds(start_ns, now_ns()), ..sum }
}

/// How much, for how long, to whom.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    pub in_flight: usize,
    pub seconds: f64,
    pub users: Users,
}

/// What an open loop came to.
#[derive(Clone, Copy, Debug)]
pub struct Paced {
    pub calls: u64,
    /// How late the caller itself was at worst. It is part of the latencies.
    pub late_max_us: f64,
}

/// Calls at this rate for so long, each when it is due, and waits for all answers.
pub async fn open(caller: &Caller, template: &Arc<Template>, rate: f64, load: Load) -> Paced {
    let unanswered = Arc::new(Semaphore::new(UNANSWERED_MAX));
    let mut pace = Pace::start(rate, load.seconds);
    let mut paced = Paced { calls: 0, late_max_us: 0.0 };
    while let Some(due_ns) = pace.due().await {
        let permit = Arc::clone(&unanswered).try_acquire_owned();
        let permit = permit
            .unwrap_or_else(|_| panic!("{UNANSWERED_MAX} calls wait: the gateway cannot do {rate:.0}/s"));
        let framed = template.framed(due_ns, &load.users.nth(paced.calls));
        let caller = caller.clone();
        paced.calls += 1;
        paced.late_max_us = paced.late_max_us.max(seconds(due_ns, now_ns()) * 1e6);
        drop(tokio::spawn(async move {
            caller.unary(crate::message::OPENIM_PATH, framed).await;
            drop(permit);
        }));
    }
    let all = u32::try_from(UNANSWERED_MAX).expect("a small number");
    drop(unanswered.acquire_many(all).await.expect("it is never closed"));
    paced
}

/// Keeps so many messages unresolved on one stream for so long, sent in batches. `finished` reads one answer and says
/// how many messages it finishes.
pub async fn stream(
    caller: &Caller,
    batches: &[Template],
    batch: usize,
    load: Load,
    finished: impl AsyncFn(&mut Stream) -> usize,
) -> Done {
    let start_ns = now_ns();
    let mut stream = caller.stream(STREAM_PATH).await;
    let (mut sent, mut done) = (0usize, 0usize);
    loop {
        while sent + batch <= done + load.in_flight && seconds(start_ns, now_ns()) < load.seconds {
            stream.send(batches[(sent / batch) % batches.len()].framed(now_ns(), ""));
            sent += batch;
        }
        if sent == done {
            break;
        }
        done += finished(&mut stream).await;
    }
    Done { calls: sent as u64, wall_s: seconds(start_ns, now_ns()), answer_bytes: stream.received() }
}
