//! Every scenario for a moment with few clients: only the checks count, the figures mean nothing. For CI.

use super::{fairness, fanout, idle, latency, stream, unary};
use crate::stand::{FanOut, Plan};

type Scenario = fn(&Plan);

/// A failed check has ended the bench before the last line.
pub fn run(plan: &Plan) {
    let small = Plan { runs: 1, seconds: 0.3, connections: plan.connections.min(200), ..plan.clone() };
    let two = Plan {
        server_cpus: plan.server_cpus.iter().chain(&plan.load_cpus).copied().collect(),
        ..small.clone()
    };
    let gzip = Plan { variant: "gob-gzip".into(), body: 4_000, users: 50, ..small.clone() };
    let json = Plan { variant: "json".into(), ..small.clone() };
    let everybody = Plan { fan_out: FanOut::Everybody, ..two.clone() };
    let large = Plan { body: 100 * 1024, connections: 20, ..two.clone() };
    let all: [(Scenario, &Plan); 10] = [
        (unary::run, &small),
        (unary::run, &gzip),
        (stream::run, &small),
        (fanout::run, &two),
        (fanout::run, &json),
        (fanout::run, &everybody),
        (fanout::run, &large),
        (latency::run, &small),
        (fairness::run, &small),
        (idle::run, &small),
    ];
    for (scenario, plan) in all {
        scenario(plan);
    }
    println!("bench-smoke: {} passed, 0 failed", all.len());
}
