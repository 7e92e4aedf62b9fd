//! One message to all clients with one call, the next when all have it, beside a bare loop of `send` over as many
//! sockets with frames of the same size.

use crate::bound::SendLoop;
use crate::crowd::{Crowd, Options};
use crate::message::{OPENIM_PATH, SEND_PATH, Tag, Template, user};
use crate::report::Report;
use crate::stand::{FanOut, Plan, Stand};
use pinion_bench_kit::clock::{now_ns, seconds};
use pinion_bench_kit::cpu::Clocks;

/// Runs it.
pub fn run(plan: &Plan) {
    let recipients = plan.connections as u64;
    let mut stand = Stand::start(plan, plan.connections, &[]);
    let (path, template) = match plan.fan_out {
        FanOut::Listed => {
            let users = (0..plan.connections).map(user).collect();
            (OPENIM_PATH, Template::openim(users, plan.body, Tag::Load))
        }
        FanOut::Everybody => (SEND_PATH, Template::pinion_to_all(plan.body)),
    };
    let title = format!("fan-out of one message to {recipients} connections");
    let mut report = Report::new(&title, &plan.gateway, &stand.gateway.engine);

    // Warm-up; it shows how long a frame is.
    stand.runtime.block_on(stand.caller.unary(path, template.framed(now_ns(), "")));
    stand.arrived(recipients);
    let frame_bytes = usize::try_from(stand.crowd.report().bytes / recipients).expect("a length");
    let mut bound = Bound::start(plan, frame_bytes);

    for _ in 0..plan.runs {
        let window = stand.open();
        let (start_ns, mut rounds, mut answered_s, mut arrived_s) = (now_ns(), 0u64, 0.0, 0.0);
        while rounds == 0 || seconds(start_ns, now_ns()) < plan.seconds {
            let due_ns = now_ns();
            stand.runtime.block_on(stand.caller.unary(path, template.framed(due_ns, "")));
            answered_s += seconds(due_ns, now_ns());
            rounds += 1;
            arrived_s += seconds(due_ns, stand.arrived(recipients));
        }
        let used = stand.close(&window, rounds, recipients);
        let seen = stand.crowd.report();
        let (bound_s, bound_us) = bound.measure(plan);

        let sent = (rounds * recipients) as f64;
        report.add("deliveries", "1/s", sent / arrived_s);
        report.add("bound: loop of send()", "1/s", recipients as f64 / bound_s);
        report.add("deliveries / bound", "ratio", sent / arrived_s * bound_s / recipients as f64);
        report.add(
            "deliveries per core second of the gateway",
            "1/s",
            used.per_core_second(rounds * recipients),
        );
        used.report_cpu(&mut report, "us/deliv", rounds * recipients);
        report.add("bound: CPU of the loop", "us/send", bound_us);
        report.add("bound / CPU", "ratio", bound_us * sent / 1e6 / used.split.total());
        report.add("call to last client", "ms", arrived_s * 1e3 / rounds as f64);
        report.add("call to its answer", "ms", answered_s * 1e3 / rounds as f64);
        if seen.load.count > 0 {
            report.add("call to a client, median", "ms", seen.load.p50 / 1e3);
        }
        used.report_work(&mut report, rounds * recipients);
    }
    assert_eq!(stand.crowd.report().frames, stand.pushed(), "frames that the clients got");
    println!("sizes     request {} B, frame {frame_bytes} B", template.len());
    report.print();
}

/// The loop and its readers, who end first.
struct Bound {
    readers: Crowd,
    sender: SendLoop,
    expected: u64,
}

impl Bound {
    fn start(plan: &Plan, frame_bytes: usize) -> Self {
        let sender = SendLoop::start(plan.connections, frame_bytes, &plan.server_cpus[..1]);
        let options =
            Options { target: sender.address, count: plan.connections, first: 0, variant: "plain".into() };
        let readers = Crowd::start(&options, &plan.load_cpus);
        let mut bound = Self { readers, sender, expected: 0 };
        bound.round(plan.connections);
        bound
    }

    fn round(&mut self, connections: usize) -> f64 {
        let start_ns = now_ns();
        self.sender.round();
        self.expected += connections as u64;
        seconds(start_ns, self.readers.until(self.expected))
    }

    /// Seconds per round until the last reader has it, and CPU microseconds per send.
    fn measure(&mut self, plan: &Plan) -> (f64, f64) {
        let before = Clocks::of(self.sender.pid());
        let (start_ns, mut rounds, mut wall_s) = (now_ns(), 0u64, 0.0);
        while rounds == 0 || seconds(start_ns, now_ns()) < plan.seconds {
            wall_s += self.round(plan.connections);
            rounds += 1;
        }
        let used_s = Clocks::of(self.sender.pid()).since(&before).total();
        (wall_s / rounds as f64, used_s * 1e6 / (rounds * plan.connections as u64) as f64)
    }
}
