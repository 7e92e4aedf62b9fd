//! From the time at which a call was due to the client that has read its frame, at half of the rate that a closed loop
//! reached just before, with all clients there and each push for another of them.
//!
//! Open loop: calls are made when they are due, whatever became of those before, and a late caller's lateness counts.

use std::sync::Arc;

use crate::load::{Load, Users, closed, open};
use crate::message::{OPENIM_PATH, Tag, Template};
use crate::report::Report;
use crate::stand::{Plan, Stand};

/// Runs it.
pub fn run(plan: &Plan) {
    let mut stand = Stand::start(plan, plan.connections, &[]);
    let template = Arc::new(Template::openim_to_one(plan.body, Tag::Load));
    let load = Load {
        in_flight: plan.in_flight,
        seconds: plan.seconds,
        users: Users { first: 0, count: plan.connections },
    };
    let title = format!("push latency at half load, {} connections", plan.connections);
    let mut report = Report::new(&title, &plan.gateway, &stand.gateway.engine);
    let warm_up = Load { seconds: plan.seconds / 4.0, ..load };
    let done = stand.runtime.block_on(closed(&stand.caller, OPENIM_PATH, &template, warm_up));
    stand.arrived(done.calls);
    stand.crowd.report();

    for _ in 0..plan.runs {
        let full = stand.runtime.block_on(closed(&stand.caller, OPENIM_PATH, &template, load));
        stand.arrived(full.calls);
        let busy = stand.crowd.report();

        let (window, rate) = (stand.open(), full.calls as f64 / full.wall_s / 2.0);
        let paced = stand.runtime.block_on(open(&stand.caller, &template, rate, load));
        stand.arrived(paced.calls);
        let used = stand.close(&window, paced.calls, 1);
        let seen = stand.crowd.report();
        assert!(plan.variant != "gob" || seen.load.count == paced.calls, "{seen:?}, {paced:?}");

        report.add("closed loop: pushes", "1/s", full.calls as f64 / full.wall_s);
        report.add("closed loop: p50", "us", busy.load.p50);
        report.add("closed loop: p99", "us", busy.load.p99);
        report.add("half load: pushes", "1/s", rate);
        report.add("half load: p50", "us", seen.load.p50);
        report.add("half load: p99", "us", seen.load.p99);
        report.add("half load: max", "us", seen.load.max);
        report.add("of it: the caller was late, max", "us", paced.late_max_us);
        used.report_cpu(&mut report, "us/push", paced.calls);
        used.report_work(&mut report, paced.calls);
    }
    report.print();
}
