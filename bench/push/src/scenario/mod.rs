//! One file per scenario. Each starts what it needs, warms up, measures `runs` times, and checks that gateway, clients
//! and caller agree on how many pushes there were.

pub mod fairness;
pub mod fanout;
pub mod idle;
pub mod latency;
pub mod smoke;
pub mod stream;
pub mod unary;

use crate::load::Done;
use crate::report::Report;
use crate::stand::Used;

/// The lines of one run of pushes beside the h2 echo: `bound` is what the echo did, `bound_us` its CPU per push, named
/// in `unit`.
fn report_beside_echo(
    report: &mut Report,
    (done, used): (&Done, &Used),
    bound: &Done,
    (unit, bound_us): (&'static str, f64),
) {
    let (rate, bound_rate) = (done.calls as f64 / done.wall_s, bound.calls as f64 / bound.wall_s);
    report.add("pushes", "1/s", rate);
    report.add("bound: h2 echo of the same sizes", "1/s", bound_rate);
    report.add("pushes / bound", "ratio", rate / bound_rate);
    report.add("pushes per core second of the gateway", "1/s", used.per_core_second(done.calls));
    used.report_cpu(report, "us/push", done.calls);
    report.add("bound: CPU of the echo", unit, bound_us);
    report.add("CPU / bound", "ratio", used.split.total() * 1e6 / done.calls as f64 / bound_us);
    used.report_work(report, done.calls);
}
