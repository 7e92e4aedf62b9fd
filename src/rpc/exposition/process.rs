//! `process_*`, as Prometheus's own clients name them (spec 11.4): read from `/proc` at each scrape, a few KiB that
//! no disk is asked for.
//!
//! What always holds: a figure that cannot be read is left out, never 0.

use std::fmt;
use std::fs;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use rustix::process::{Resource, getrlimit};
use rustix::time::{ClockId, clock_gettime};

/// Linux tells user space times in hundredths of a second, whatever it counts in itself (`USER_HZ`).
const TICKS_PER_SECOND: f64 = 100.0;

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Process {
    start_seconds: Option<f64>,
}

impl Process {
    pub(super) fn new() -> Self {
        Self { start_seconds: start_seconds() }
    }
}

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        let cpu = clock_gettime(ClockId::ProcessCPUTime);
        let (name, help) = ("process_cpu_seconds", "User and system CPU time in seconds.");
        let mut counter = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        let seconds = cpu.tv_sec as f64 + cpu.tv_nsec as f64 / 1e9;
        counter.encode_counter::<NoLabelSet, f64, u64>(&seconds, None)?;
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let files = getrlimit(Resource::Nofile).current;
        for (name, help, value) in [
            ("process_start_time_seconds", "Start, in seconds since the epoch.", self.start_seconds),
            ("process_virtual_memory_bytes", "Virtual memory in bytes.", bytes(&status, "VmSize:")),
            ("process_resident_memory_bytes", "Resident memory in bytes.", bytes(&status, "VmRSS:")),
            ("process_open_fds", "Open file descriptors.", open_files()),
            ("process_max_fds", "The limit of open file descriptors.", files.map(|most| most as f64)),
        ] {
            if let Some(value) = value {
                let mut gauge = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
                gauge.encode_gauge(&value)?;
            }
        }
        Ok(())
    }
}

/// A line of `/proc/self/status`, which are in KiB.
fn bytes(status: &str, name: &str) -> Option<f64> {
    let kib: f64 =
        status.lines().find_map(|line| line.strip_prefix(name))?.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kib * 1024.0)
}

fn start_seconds() -> Option<f64> {
    let machine = fs::read_to_string("/proc/stat").ok()?;
    let booted: f64 = machine.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()?;
    Some(booted + start_ticks(&fs::read_to_string("/proc/self/stat").ok()?)? / TICKS_PER_SECOND)
}

/// Field 22 of proc(5)'s list, of which the second is a name in brackets that may hold anything.
fn start_ticks(stat: &str) -> Option<f64> {
    const AFTER_THE_NAME: usize = 22 - 3;
    stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(AFTER_THE_NAME)?.parse().ok()
}

/// Linux 6.2 and newer tell the count as the size of the folder; older ones say 0, and to count by listing would cost
/// a gateway with many clients too much.
fn open_files() -> Option<f64> {
    let count = fs::metadata("/proc/self/fd").ok()?.len();
    (count > 0).then_some(count as f64)
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use prometheus_client::registry::Registry;

    use super::*;
    use crate::shard::clock;

    fn scraped() -> impl Fn(&str) -> Option<f64> {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(Process::new()));
        let text = super::super::text(&registry).unwrap();
        move |name| {
            let prefix = format!("{name} ");
            text.lines().find_map(|line| line.strip_prefix(&prefix)).map(|value| value.parse().unwrap())
        }
    }

    #[test]
    fn what_the_kernel_says_of_this_process_is_shown() {
        let first = scraped();
        let held: Vec<File> = (0..16).map(|_| File::open("/proc/self/stat").unwrap()).collect();
        let second = scraped();
        let cpu = "process_cpu_seconds_total";
        assert!(first(cpu).unwrap() > 0.0 && second(cpu) >= first(cpu));
        let now_seconds = clock::now().unix.0 as f64 / 1e3;
        let age = now_seconds - first("process_start_time_seconds").unwrap();
        assert!((-2.0..86_400.0).contains(&age), "started {age} s ago");
        let (virtual_bytes, resident) =
            (first("process_virtual_memory_bytes"), first("process_resident_memory_bytes"));
        assert!(virtual_bytes > resident && resident > Some(100_000.0), "{virtual_bytes:?} {resident:?}");
        if let Some(open) = second("process_open_fds") {
            assert!(open >= held.len() as f64 && Some(open) <= second("process_max_fds"), "{open}");
        }
    }

    #[test]
    fn a_name_with_brackets_and_blanks_shifts_no_field() {
        let stat = "7 (a) 9 (b) S 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 2200 23";
        assert_eq!(start_ticks(stat), Some(2200.0));
        assert_eq!(start_ticks("7 (a) S 4"), None);
    }
}
