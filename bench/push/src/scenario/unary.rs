//! Unary pushes to one user, or some in turn, closed loop, beside a bare h2 echo of the same sizes: what the gateway
//! adds to HTTP/2.

use std::sync::Arc;

use super::report_beside_echo;
use crate::bound::Echo;
use crate::grpc::Caller;
use crate::load::{Load, Users, closed};
use crate::message::{OPENIM_PATH, Tag, Template};
use crate::report::Report;
use crate::stand::{Plan, Stand};
use pinion_bench_kit::cpu::Clocks;

/// Runs it.
pub fn run(plan: &Plan) {
    let mut stand = Stand::start(plan, plan.users, &[]);
    let template = Arc::new(Template::openim_to_one(plan.body, Tag::Load));
    let load = Load {
        in_flight: plan.in_flight,
        seconds: plan.seconds,
        users: Users { first: 0, count: plan.users },
    };
    let warm_up = Load { seconds: plan.seconds / 4.0, ..load };
    let title = format!("unary pushes to {} user(s)", plan.users);
    let mut report = Report::new(&title, &plan.gateway, &stand.gateway.engine);

    let done = stand.runtime.block_on(closed(&stand.caller, OPENIM_PATH, &template, warm_up));
    let answer_bytes = done.answer_bytes / usize::try_from(done.calls).expect("calls");
    stand.arrived(done.calls);
    let echo = Echo::start(template.len(), answer_bytes, &plan.server_cpus);
    let echo_caller = stand.runtime.block_on(Caller::connect(echo.address));
    stand.runtime.block_on(closed(&echo_caller, OPENIM_PATH, &template, warm_up));

    for _ in 0..plan.runs {
        let window = stand.open();
        let done = stand.runtime.block_on(closed(&stand.caller, OPENIM_PATH, &template, load));
        stand.arrived(done.calls);
        let used = stand.close(&window, done.calls, 1);

        let before = Clocks::of(echo.pid());
        let bound = stand.runtime.block_on(closed(&echo_caller, OPENIM_PATH, &template, load));
        let bound_us = Clocks::of(echo.pid()).since(&before).total() * 1e6 / bound.calls as f64;

        report_beside_echo(&mut report, (&done, &used), &bound, ("us/call", bound_us));
    }
    let seen = stand.crowd.report();
    assert_eq!(seen.frames, stand.pushed(), "frames that the clients got");
    println!(
        "sizes     request {} B, answer {answer_bytes} B, frame {} B; {} in flight on one connection",
        template.len(),
        seen.bytes / seen.frames,
        plan.in_flight
    );
    report.print();
}
