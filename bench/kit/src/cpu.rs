//! Where CPU time went: per thread of a process from `/proc`, and what everybody else on the machine took meanwhile.
//!
//! What always holds: a thread's total is exact (`schedstat`, nanoseconds). Its split into user and system time is the
//! kernel's (`stat`, ticks of 10 ms, scaled), so differences of well below a second are coarse. What runs in an
//! interrupt on behalf of a send (the receiving half of loopback) counts as system time of the sender.

use std::collections::BTreeMap;
use std::fs;

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// Seconds of CPU time.
#[derive(Clone, Copy, Debug, Default)]
pub struct Seconds {
    pub user: f64,
    pub system: f64,
}

impl Seconds {
    /// Both.
    pub fn total(self) -> f64 {
        self.user + self.system
    }

    fn add(&mut self, other: Self) {
        self.user += other.user;
        self.system += other.system;
    }
}

/// CPU time of a process, by what its threads do. Threads are told apart by their names (`rpc0`, `shard1`).
#[derive(Clone, Copy, Debug, Default)]
pub struct Split {
    pub rpc: Seconds,
    pub shards: Seconds,
    /// Main, log writer, workers of io_uring.
    pub rest: Seconds,
}

impl Split {
    /// All threads.
    pub fn total(self) -> f64 {
        self.rpc.total() + self.shards.total() + self.rest.total()
    }
}

#[derive(Clone, Debug, Default)]
struct Thread {
    name: String,
    user_ticks: u64,
    system_ticks: u64,
    run_ns: u64,
}

/// The clocks of a process's threads at one moment.
#[derive(Clone, Debug, Default)]
pub struct Clocks(BTreeMap<u32, Thread>);

impl Clocks {
    /// Reads them. A thread that ends meanwhile is left out.
    pub fn of(pid: u32) -> Self {
        let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else {
            return Self::default();
        };
        let tids = tasks.flatten().filter_map(|task| task.file_name().to_str()?.parse().ok());
        Self(tids.filter_map(|tid| Some((tid, thread(pid, tid)?))).collect())
    }

    /// What was used since `before`.
    pub fn since(&self, before: &Self) -> Split {
        let mut split = Split::default();
        for (tid, now) in &self.0 {
            let then = before.0.get(tid).cloned().unwrap_or_default();
            let ticks = |now: u64, then: u64| now.saturating_sub(then) as f64;
            let user = ticks(now.user_ticks, then.user_ticks);
            let system = ticks(now.system_ticks, then.system_ticks);
            let total = ticks(now.run_ns, then.run_ns) / 1e9;
            let share = if user + system > 0.0 { user / (user + system) } else { 0.5 };
            let seconds = Seconds { user: total * share, system: total * (1.0 - share) };
            match now.name.trim_end_matches(|c: char| c.is_ascii_digit()) {
                "rpc" => split.rpc.add(seconds),
                "shard" => split.shards.add(seconds),
                _ => split.rest.add(seconds),
            }
        }
        split
    }
}

fn thread(pid: u32, tid: u32) -> Option<Thread> {
    let read = |file: &str| fs::read_to_string(format!("/proc/{pid}/task/{tid}/{file}")).ok();
    let stat = read("stat")?;
    // The name stands in brackets and may hold anything; after it utime and stime are the 12th and 13th field.
    let (head, tail) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = tail.split_whitespace().collect();
    Some(Thread {
        name: head.split_once('(')?.1.to_owned(),
        user_ticks: fields.get(11)?.parse().ok()?,
        system_ticks: fields.get(12)?.parse().ok()?,
        run_ns: read("schedstat")?.split_whitespace().next()?.parse().ok()?,
    })
}

/// Busy CPU seconds of the whole machine since boot.
pub fn machine_busy() -> f64 {
    let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
    let fields: Vec<f64> = stat
        .lines()
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .skip(1)
        .filter_map(|field| field.parse().ok())
        .collect();
    // user nice system idle iowait irq softirq steal; ticks of 10 ms.
    fields.iter().take(8).enumerate().filter(|(i, _)| !matches!(i, 3 | 4)).map(|(_, v)| v / 100.0).sum()
}

/// Runs `work` with this thread, and so the children that it starts, on these CPUs.
pub fn on_cpus<T>(cpus: &[usize], work: impl FnOnce() -> T) -> T {
    let before = sched_getaffinity(None).expect("the CPU set of this thread");
    pin(cpus);
    let result = work();
    sched_setaffinity(None, &before).expect("what was allowed before");
    result
}

/// Pins this thread. CPUs that the machine does not have are refused by the kernel.
pub fn pin(cpus: &[usize]) {
    let mut set = CpuSet::new();
    cpus.iter().for_each(|&cpu| set.set(cpu));
    sched_setaffinity(None, &set).unwrap_or_else(|e| panic!("CPUs {cpus:?}: {e}"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_of_this_thread_is_seen_and_split() {
        let pid = std::process::id();
        let (before, busy) = (Clocks::of(pid), machine_busy());
        let mut sum = 0u64;
        let split = loop {
            (0..1_000_000u64).for_each(|n| sum = std::hint::black_box(sum.wrapping_add(n)));
            let split = Clocks::of(pid).since(&before);
            if split.total() > 0.2 {
                break split;
            }
        };
        assert!(split.rest.user > split.rest.system, "{split:?}");
        assert!(machine_busy() > busy);
    }
}
