//! What a gateway costs whose clients do nothing: without any input, and with a ping of each client every 24 s, as
//! OpenIM's SDKs send them.

use std::thread::sleep;
use std::time::Duration;

use crate::report::Report;
use crate::stand::{Plan, Stand};

/// OpenIM's interval.
const PING_MS: u64 = 24_000;
/// Before each measurement every client pings within this time, so that none is taken for dead (30 s) in it ...
const ROUND_MS: u64 = 1_000;
/// ... since it is no longer than this.
const MEASURED_MAX_S: f64 = 10.0;

/// Runs it.
pub fn run(plan: &Plan) {
    let mut stand = Stand::start(plan, plan.connections, &[]);
    let title = format!("{} idle connections", plan.connections);
    let mut report = Report::new(&title, &plan.gateway, &stand.gateway.engine);
    for _ in 0..plan.runs {
        for (ping_ms, name) in [(0, "silent: CPU"), (PING_MS, "a ping per 24 s: CPU")] {
            stand.crowd.pings(ROUND_MS);
            sleep(Duration::from_millis(ROUND_MS + ROUND_MS / 2));
            stand.crowd.pings(ping_ms);
            // What is measured is a steady state.
            sleep(Duration::from_secs_f64(plan.seconds.min(1.0)));
            let window = stand.open();
            sleep(Duration::from_secs_f64(plan.seconds.min(MEASURED_MAX_S)));
            let used = stand.close(&window, 0, 1);
            let percent = 100.0 * used.split.total() / used.wall_s;
            report.add(name, "% of core", percent);
            if ping_ms > 0 {
                let us = used.split.total() * 1e6 / used.wall_s / plan.connections as f64;
                report.add("a ping per 24 s: CPU per connection", "us/s", us);
            }
        }
    }
    report.print();
}
