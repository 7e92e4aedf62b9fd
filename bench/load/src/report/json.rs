//! All figures of a run as JSON. `bench/README.md` documents the fields; a field changes its meaning only with
//! [`VERSION`].

use serde::Serialize;
use serde_json::{Value, json};

use crate::settings::{Driver, Encoding, Protocol, Settings};
use crate::tally::{Latencies, Outcome};

/// Of the format.
pub const VERSION: u32 = 1;

const PERCENTILES: [(&str, f64); 8] = [
    ("p50", 50.0),
    ("p75", 75.0),
    ("p90", 90.0),
    ("p99", 99.0),
    ("p99_9", 99.9),
    ("p99_99", 99.99),
    ("min", 0.0),
    ("max", 100.0),
];

/// The document. Without secrets.
pub fn document(settings: &Settings, outcome: &Outcome) -> Value {
    let tally = &outcome.tally;
    json!({
        "version": VERSION,
        "settings": settings_of(settings),
        "connect_seconds": outcome.connect_seconds,
        "seconds": outcome.seconds,
        "open": outcome.open,
        "processes": outcome.processes,
        "logins": tally.logins,
        "login_latency_ns": latencies(&tally.login_latency),
        "begun": tally.begun,
        "answered": tally.answered,
        "latency_ns": latencies(&tally.latency),
        "raw_latency_ns": latencies(&tally.raw),
        "deliveries": tally.deliveries,
        "delivery_ns": latencies(&tally.delivery),
        "messages_in": tally.messages_in,
        "messages_out": tally.messages_out,
        "bytes_in": tally.bytes_in,
        "bytes_out": tally.bytes_out,
        "kicked": tally.kicked,
        "errors": tally.errors,
        "lateness_ns": latencies(&tally.lateness),
        "server": outcome.server,
        "server_connecting": outcome.server_connecting,
        "own_cpu_seconds": outcome.own_cpu_seconds,
        "own_connect_cpu_seconds": outcome.own_connect_cpu_seconds,
        "timeline": outcome.timeline,
    })
}

#[derive(Serialize)]
struct Bucket {
    up_to_ns: u64,
    count: u64,
}

/// Count, mean, percentiles and every bucket that is not empty.
fn latencies(latencies: &Latencies) -> Value {
    let histogram = &latencies.0;
    let buckets: Vec<Bucket> = histogram
        .iter_recorded()
        .map(|value| Bucket { up_to_ns: value.value_iterated_to(), count: value.count_at_value() })
        .collect();
    let mut all = json!({
        "count": histogram.len(),
        "mean": histogram.mean(),
        "stdev": histogram.stdev(),
        "buckets": buckets,
    });
    for (name, percentile) in PERCENTILES {
        all[name] = histogram.value_at_percentile(percentile).into();
    }
    all
}

fn settings_of(settings: &Settings) -> Value {
    let protocol = match settings.protocol {
        Protocol::Raw => "raw",
        Protocol::OpenIm { encoding: Encoding::Gob, gzip: false } => "openim-gob",
        Protocol::OpenIm { encoding: Encoding::Gob, gzip: true } => "openim-gob-gzip",
        Protocol::OpenIm { encoding: Encoding::Json, gzip: false } => "openim-json",
        Protocol::OpenIm { encoding: Encoding::Json, gzip: true } => "openim-json-gzip",
    };
    let driver = match settings.driver {
        Driver::Auto => "auto",
        Driver::IoUring => "io_uring",
        Driver::Epoll => "epoll",
    };
    let targets: Vec<String> =
        settings.targets.iter().map(|target| format!("ws://{}{}", target.address, target.path)).collect();
    json!({
        "targets": targets,
        "threads": settings.threads,
        "connections": settings.connections,
        "duration_seconds": settings.duration.as_secs_f64(),
        "rate": settings.rate,
        "timeout_seconds": settings.timeout.as_secs_f64(),
        "ping_seconds": settings.ping.map(|every| every.as_secs_f64()),
        "protocol": protocol,
        "driver": driver,
        "script": settings.script,
        "script_arguments": settings.script_arguments,
    })
}
