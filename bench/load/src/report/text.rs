//! The report that a wrk user reads at sight: wrk's lines in wrk's order, then ours.

use std::fmt::Write as _;

use super::units::{count, per, size, time};
use crate::cli::Output;
use crate::settings::{Protocol, Settings};
use crate::tally::{Errors, Latencies, Outcome, Second, ServerUse};

/// Percentiles of a printed distribution.
const PERCENTILES: [f64; 7] = [50.0, 75.0, 90.0, 99.0, 99.9, 99.99, 100.0];
/// An open loop whose operations left later than this is no open loop any more.
const LATENESS_NS_MAX: u64 = 10_000_000;
/// Above this part of its threads' time the generator may be what is measured.
const BUSY_MAX: f64 = 0.9;

/// The first lines, before anything is connected.
pub fn head(settings: &Settings, output: &Output) -> String {
    let seconds = settings.duration.as_secs_f64();
    let others = match settings.targets.len() {
        0 | 1 => String::new(),
        n => format!(" and {} more", n - 1),
    };
    let rate = settings.rate.map_or_else(String::new, |rate| format!(" at {} operations/s", count(rate)));
    format!(
        "Running {} test @ {}{others}\n  {} threads and {} connections{rate}\n",
        if seconds >= 1.0 && seconds.fract() == 0.0 {
            format!("{seconds}s")
        } else {
            format!("{:.2}s", seconds)
        },
        output.url,
        settings.threads,
        settings.connections,
    )
}

/// All the rest.
pub fn body(settings: &Settings, output: &Output, outcome: &Outcome) -> String {
    let mut text = String::new();
    write_to(&mut text, settings, output, outcome).expect("a String takes all");
    text
}

fn write_to(out: &mut String, settings: &Settings, output: &Output, outcome: &Outcome) -> std::fmt::Result {
    let tally = &outcome.tally;
    if tally.begun > 0 {
        thread_stats(out, settings, outcome)?;
        if output.latency {
            distribution(out, "Latency", &tally.latency)?;
        }
    }
    if tally.deliveries > 0 && output.latency {
        distribution(out, "Delivery", &tally.delivery)?;
    }
    writeln!(
        out,
        "  {} messages in {:.2}s, {} read",
        tally.messages_in,
        outcome.seconds,
        size(tally.bytes_in as f64)
    )?;
    socket_errors(out, &tally.errors)?;
    writeln!(out, "Messages/sec: {:>10.2}", per(tally.messages_in as f64, outcome.seconds))?;
    writeln!(out, "Transfer/sec: {:>10}", size(per(tally.bytes_in as f64, outcome.seconds)))?;
    if tally.begun > 0 {
        writeln!(out, "Requests/sec: {:>10.2}", per(tally.answered as f64, outcome.seconds))?;
    }
    ours(out, settings, outcome)?;
    warnings(out, settings, outcome)
}

/// wrk's table. Its rate per thread is taken from the seconds of the run.
fn thread_stats(out: &mut String, settings: &Settings, outcome: &Outcome) -> std::fmt::Result {
    let tally = &outcome.tally;
    writeln!(out, "  Thread Stats   Avg      Stdev     Max   +/- Stdev")?;
    let (mean, stdev) = (tally.latency.0.mean(), tally.latency.0.stdev());
    let within = |low: f64, high: f64| {
        let near = tally.latency.0.count_between(low.max(0.0) as u64, high as u64);
        100.0 * per(near as f64, tally.latency.0.len() as f64)
    };
    writeln!(
        out,
        "    Latency   {:>8} {:>8} {:>8} {:>8.2}%",
        time(mean),
        time(stdev),
        time(tally.latency.0.max() as f64),
        within(mean - stdev, mean + stdev)
    )?;
    let threads = settings.threads as f64;
    let rates: Vec<f64> = whole_seconds(outcome).map(|second| second.answered as f64 / threads).collect();
    let n = rates.len().max(1) as f64;
    let mean = rates.iter().sum::<f64>() / n;
    let stdev = (rates.iter().map(|rate| (rate - mean).powi(2)).sum::<f64>() / n).sqrt();
    let near = rates.iter().filter(|rate| (*rate - mean).abs() <= stdev).count() as f64;
    writeln!(
        out,
        "    Req/Sec   {:>8} {:>8} {:>8} {:>8.2}%",
        count(mean),
        count(stdev),
        count(rates.iter().copied().fold(0.0, f64::max)),
        100.0 * near / n
    )
}

/// Seconds of the measured time, without the last one, which is cut.
fn whole_seconds(outcome: &Outcome) -> impl Iterator<Item = &Second> {
    let from = outcome.timeline.iter().position(|second| second.answered > 0).unwrap_or_default();
    let all = &outcome.timeline[from..];
    all.iter().take(if all.len() > 1 { all.len() - 1 } else { 1 })
}

fn distribution(out: &mut String, name: &str, latencies: &Latencies) -> std::fmt::Result {
    writeln!(
        out,
        "  {name} Distribution (HdrHistogram - {})",
        if name == "Latency" { "corrected" } else { "from due to received" }
    )?;
    for percentile in PERCENTILES {
        let value = latencies.0.value_at_percentile(percentile) as f64;
        writeln!(out, "  {percentile:>7.3}% {:>9}", time(value))?;
    }
    Ok(())
}

fn socket_errors(out: &mut String, errors: &Errors) -> std::fmt::Result {
    if errors.connect + errors.read + errors.write + errors.timeout > 0 {
        writeln!(
            out,
            "  Socket errors: connect {}, read {}, write {}, timeout {}",
            errors.connect, errors.read, errors.write, errors.timeout
        )?;
    }
    let kinds = |out: &mut String, name: &str, kinds: Vec<(String, u64)>| {
        if kinds.is_empty() {
            return Ok(());
        }
        let list: Vec<String> = kinds.into_iter().map(|(kind, n)| format!("{kind} {n}")).collect();
        writeln!(out, "  {name}: {}", list.join(", "))
    };
    kinds(out, "Refused handshakes", errors.handshake.clone().into_iter().collect())?;
    let codes = errors.closed.iter().map(|(code, n)| (code.to_string(), *n)).collect();
    kinds(out, "Closed by the server", codes)?;
    kinds(out, "Error answers", errors.answer.clone().into_iter().collect())?;
    if errors.protocol > 0 {
        writeln!(out, "  Protocol errors: {}", errors.protocol)?;
    }
    Ok(())
}

fn ours(out: &mut String, settings: &Settings, outcome: &Outcome) -> std::fmt::Result {
    let tally = &outcome.tally;
    writeln!(out)?;
    let name = if settings.protocol == Protocol::Raw { "Handshakes" } else { "Logins" };
    let login = &tally.login_latency.0;
    writeln!(
        out,
        "{name:<12} {} in {:.2}s ({:.0}/s), p50 {}, p99 {}; open at the end {}",
        tally.logins,
        outcome.connect_seconds,
        per(tally.logins as f64, outcome.connect_seconds),
        time(login.value_at_quantile(0.5) as f64),
        time(login.value_at_quantile(0.99) as f64),
        outcome.open
    )?;
    if tally.deliveries > 0 {
        let delivery = &tally.delivery.0;
        writeln!(
            out,
            "Deliveries   {} ({:.0}/s), p50 {}, p99 {}, max {}",
            tally.deliveries,
            per(tally.deliveries as f64, outcome.seconds),
            time(delivery.value_at_quantile(0.5) as f64),
            time(delivery.value_at_quantile(0.99) as f64),
            time(delivery.max() as f64)
        )?;
    }
    if tally.kicked > 0 {
        writeln!(out, "Kicked       {}", tally.kicked)?;
    }
    if let Some(server) = &outcome.server {
        server_lines(out, outcome, server)?;
    }
    let messages = (tally.messages_in + tally.messages_out) as f64;
    writeln!(
        out,
        "Generator    {:.2} s CPU ({:.2} us per message), {} process{}",
        outcome.own_cpu_seconds,
        per(outcome.own_cpu_seconds * 1e6, messages),
        outcome.processes,
        if outcome.processes == 1 { "" } else { "es" }
    )
}

fn server_lines(out: &mut String, outcome: &Outcome, server: &ServerUse) -> std::fmt::Result {
    let tally = &outcome.tally;
    if let Some(connecting) = &outcome.server_connecting {
        writeln!(
            out,
            "Server CPU   {:.2} s while connecting ({:.1} us per login)",
            connecting.cpu_seconds,
            per(connecting.cpu_seconds * 1e6, outcome.open as f64)
        )?;
    }
    let work = tally.answered.max(tally.deliveries);
    let each = match work {
        0 => format!(
            "{:.0} us/s per 1000 connections",
            per(server.cpu_seconds * 1e9, outcome.seconds * outcome.open as f64)
        ),
        _ => format!("{:.2} us per operation", per(server.cpu_seconds * 1e6, work as f64)),
    };
    writeln!(
        out,
        "Server CPU   {:.2} s measured (user {:.2}, system {:.2}), {each}",
        server.cpu_seconds, server.user_seconds, server.system_seconds
    )?;
    let grown = |before: u64, now: u64| per(now as f64 - before as f64, outcome.open as f64);
    writeln!(
        out,
        "Memory       {:.0} B user per connection; the machine's kernel {:.0} B (buffers {:.0}, slabs {:.0})",
        grown(server.memory_before_bytes, server.memory_bytes),
        grown(
            server.socket_memory_before_bytes + server.slab_before_bytes,
            server.socket_memory_bytes + server.slab_bytes
        ),
        grown(server.socket_memory_before_bytes, server.socket_memory_bytes),
        grown(server.slab_before_bytes, server.slab_bytes)
    )
}

/// What makes figures of the generator's out of figures of the server's.
fn warnings(out: &mut String, settings: &Settings, outcome: &Outcome) -> std::fmt::Result {
    let late = outcome.tally.lateness.0.value_at_quantile(0.99);
    if settings.rate.is_some() && late > LATENESS_NS_MAX {
        writeln!(
            out,
            "Warning: one in 100 operations left {} late or more. The generator could not hold the rate; lower -R, or \
             give it more threads (-t) and CPUs.",
            time(late as f64)
        )?;
    }
    let busy = per(outcome.own_cpu_seconds, outcome.seconds * settings.threads as f64);
    if busy > BUSY_MAX {
        writeln!(
            out,
            "Warning: the generator's threads were busy {:.0} % of the time: the figures may be its own.",
            busy * 100.0
        )?;
    }
    Ok(())
}
