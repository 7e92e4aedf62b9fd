//! Pushes to one user over one `pinion.v1.Push/Stream`, in batches, beside an echo of the same sizes on one h2 stream.

use super::report_beside_echo;
use crate::bound::Echo;
use crate::grpc::{Caller, Stream};
use crate::load::{self, Load, Users};
use crate::message::{Template, user};
use crate::report::Report;
use crate::stand::{Plan, Stand};
use pinion_bench_kit::cpu::Clocks;

/// Message ids come again after so many windows: long after they were resolved.
const WINDOWS_OF_IDS: usize = 4;

/// Runs it.
pub fn run(plan: &Plan) {
    let mut stand = Stand::start(plan, 1, &[]);
    let batch = plan.batch.min(plan.in_flight);
    let batches: Vec<Template> = (0..(WINDOWS_OF_IDS * plan.in_flight).div_ceil(batch))
        .map(|n| Template::pinion((n * batch) as u64..((n + 1) * batch) as u64, user(0), plan.body))
        .collect();
    // Ids are varints: a middle one stands for all.
    let request_bytes = batches[batches.len() / 2].len();
    let load = Load { in_flight: plan.in_flight, seconds: plan.seconds, users: Users { first: 0, count: 1 } };
    let warm_up = Load { seconds: plan.seconds / 4.0, ..load };
    let mut report = Report::new("streaming pushes to one user", &plan.gateway, &stand.gateway.engine);

    let verdicts = async |stream: &mut Stream| stream.finished().await;
    let done = stand.runtime.block_on(load::stream(&stand.caller, &batches, batch, warm_up, verdicts));
    stand.arrived(done.calls);
    let sent = usize::try_from(done.calls).expect("messages");
    let answer_bytes = done.answer_bytes * batch / sent;
    let echo = Echo::start(request_bytes, answer_bytes, &plan.server_cpus);
    let echo_caller = stand.runtime.block_on(Caller::connect(echo.address));
    // All requests of one size: the echo counts bytes.
    let same = vec![batches[batches.len() / 2].clone()];

    for _ in 0..plan.runs {
        let window = stand.open();
        let done = stand.runtime.block_on(load::stream(&stand.caller, &batches, batch, load, verdicts));
        stand.arrived(done.calls);
        let used = stand.close(&window, done.calls, 1);

        let before = Clocks::of(echo.pid());
        let echoes = async |stream: &mut Stream| {
            stream.next().await;
            batch
        };
        let bound = stand.runtime.block_on(load::stream(&echo_caller, &same, batch, load, echoes));
        let bound_us = Clocks::of(echo.pid()).since(&before).total() * 1e6 / bound.calls as f64;

        report_beside_echo(&mut report, (&done, &used), &bound, ("us/push", bound_us));
    }
    let seen = stand.crowd.report();
    assert_eq!(seen.frames, stand.pushed(), "frames that the client got");
    println!(
        "sizes     batch of {batch} messages {request_bytes} B, its verdicts {answer_bytes} B, frame {} B; \
         {} messages in flight",
        seen.bytes / seen.frames,
        plan.in_flight
    );
    report.print();
}
