//! A single push to one user while all others get one message in a loop: how long it takes, with nothing beside it,
//! with the fan-out served in slices, and with a gateway that serves each push to its end (`--plant-push unsliced`).
//!
//! The one user is a process of its own, so that he is not behind the others in a reader's queue.

use std::process::Command;
use std::sync::Arc;

use crate::crowd::{Crowd, Latency};
use crate::grpc::Caller;
use crate::load::{Load, Users, open};
use crate::message::{OPENIM_PATH, Tag, Template, user};
use crate::report::Report;
use crate::stand::{Plan, Stand, crowd_options};
use pinion_bench_kit::clock::{now_ns, seconds};

/// Single pushes per second: few enough not to be the load.
const PROBES_PER_S: f64 = 200.0;
/// The switch of the gateway that serves each push to its end before the next.
const UNSLICED: [&str; 2] = ["--plant-push", "unsliced"];

/// A gateway, the one user, and what they came to.
struct Side {
    /// A connection of his own caller.
    caller: Caller,
    one: Crowd,
    probed: u64,
    stand: Stand,
}

/// Runs it.
pub fn run(plan: &Plan) {
    let mut sliced = Side::start(plan, &[]);
    let mut unsliced = has_switch(plan).then(|| Side::start(plan, &UNSLICED));
    let title = format!("one push beside a fan-out to {} connections in a loop", plan.connections);
    let mut report = Report::new(&title, &plan.gateway, &sliced.stand.gateway.engine);
    if unsliced.is_none() {
        println!("this gateway has no {}: the figure beside is missing", UNSLICED.join(" "));
    }
    sliced.measure(plan, Fanout::Running);
    for _ in 0..plan.runs {
        let (alone, _) = sliced.measure(plan, Fanout::Resting);
        report.add("alone: p50", "us", alone.p50);
        report.add("alone: p99", "us", alone.p99);
        report.add("alone: max", "us", alone.max);
        let (beside, rounds) = sliced.measure(plan, Fanout::Running);
        report.add("sliced: p50", "us", beside.p50);
        report.add("sliced: p99", "us", beside.p99);
        report.add("sliced: max", "us", beside.max);
        report.add("sliced: fan-outs", "1/s", rounds);
        if let Some(unsliced) = &mut unsliced {
            let (worse, rounds) = unsliced.measure(plan, Fanout::Running);
            report.add("unsliced: p50", "us", worse.p50);
            report.add("unsliced: p99", "us", worse.p99);
            report.add("unsliced: max", "us", worse.max);
            report.add("unsliced: fan-outs", "1/s", rounds);
            report.add("p99 unsliced / sliced", "ratio", worse.p99 / beside.p99);
        }
    }
    report.print();
}

/// Whether the gateway knows the switch: asked to print its configuration with it, it says no by an exit code.
fn has_switch(plan: &Plan) -> bool {
    let output = Command::new(&plan.gateway).args(UNSLICED).arg("--print-config").output();
    output.is_ok_and(|output| output.status.success())
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Fanout {
    Running,
    Resting,
}

impl Side {
    fn start(plan: &Plan, flags: &[&str]) -> Self {
        let stand = Stand::start(plan, plan.connections, flags);
        let one = Crowd::start(&crowd_options(plan, &stand.gateway, plan.connections, 1), &plan.load_cpus);
        let caller = stand.runtime.block_on(Caller::connect(stand.gateway.grpc));
        Self { caller, one, probed: 0, stand }
    }

    /// Pushes to the one user at his pace; gives the latencies and the fan-outs per second.
    fn measure(&mut self, plan: &Plan, fanout: Fanout) -> (Latency, f64) {
        let users = (0..plan.connections).map(user).collect();
        let all = Template::openim(users, plan.body, Tag::Load);
        let probe = Arc::new(Template::openim_to_one(plan.body, Tag::Probe));
        let load =
            Load { in_flight: 1, seconds: plan.seconds, users: Users { first: plan.connections, count: 1 } };
        let (start_ns, length_s) = (now_ns(), plan.seconds);
        let (loop_caller, caller) = (self.stand.caller.clone(), self.caller.clone());
        let (paced, rounds) = self.stand.runtime.block_on(async move {
            let fan_outs = tokio::spawn(async move {
                let mut rounds = 0u64;
                while fanout == Fanout::Running && seconds(start_ns, now_ns()) < length_s {
                    loop_caller.unary(OPENIM_PATH, all.framed(now_ns(), "")).await;
                    rounds += 1;
                }
                rounds
            });
            let paced = open(&caller, &probe, PROBES_PER_S, load).await;
            (paced, fan_outs.await.expect("no call panics without an abort"))
        });
        self.probed += paced.calls;
        self.stand.arrived(rounds * plan.connections as u64);
        self.one.until(self.probed);
        let seen = self.one.report();
        assert_eq!(seen.probe.count, paced.calls, "pushes that the one user got");
        (seen.probe, rounds as f64 / plan.seconds)
    }
}
