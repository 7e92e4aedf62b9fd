//! Reads [`Facts`] below a root directory: `/` for this host, or a prepared tree of `proc/` and `sys/`.
//!
//! Nothing is judged here, and nothing fails: what is not there stays unknown.

use std::fs;
use std::path::{Path, PathBuf};

use super::facts::{Card, Cgroup, Facts, Ring, SYSCTLS, Seccomp};

/// Reads everything but the ring, which must be tried.
pub(super) fn facts(root: &Path) -> Facts {
    let status = text(root, "proc/self/status").unwrap_or_default();
    let mut facts = Facts {
        kernel: text(root, "proc/sys/kernel/osrelease").and_then(|release| version(&release)),
        memory_bytes: memory(root),
        page_bytes: page_bytes(root),
        cpus: text(root, "sys/devices/system/cpu/online").map(|list| cpu_count(&list)),
        files_hard: limit(root, "Max open files"),
        memlock_bytes: limit(root, "Max locked memory"),
        seccomp: after(&status, "Seccomp:").map(|mode| match mode.trim() {
            "0" => Seccomp::Off,
            _ => Seccomp::Filter,
        }),
        ring: Ring::NotTried,
        cgroup: cgroup(root),
        numa_nodes: text(root, "sys/devices/system/node/has_cpu").map(|list| cpu_count(&list)),
        clock: text(root, "sys/devices/system/clocksource/clocksource0/current_clocksource"),
        container: container(root),
        listen_overflows: counter(root, "proc/net/netstat", "ListenOverflows"),
        backlog_drops: backlog_drops(root),
        ..Facts::default()
    };
    let values = SYSCTLS.iter().filter_map(|key| Some((*key, text(root, &sysctl_path(key))?)));
    facts.sysctls = values.collect();
    facts.cards = cards(root);
    facts
}

/// Where a setting is. (No key of ours has a dot within a component, as names of interfaces can.)
fn sysctl_path(key: &str) -> String {
    format!("proc/sys/{}", key.replace('.', "/"))
}

/// A file without the white space around it.
fn text(root: &Path, path: &str) -> Option<String> {
    Some(fs::read_to_string(root.join(path)).ok()?.trim().to_owned())
}

/// What follows `key` on its line.
fn after<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.strip_prefix(key))
}

/// The first two numbers of a release such as `6.1.0-18-amd64`.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map_while(|part| part.parse().ok());
    Some((numbers.next()?, numbers.next()?))
}

fn memory(root: &Path) -> Option<u64> {
    let text = text(root, "proc/meminfo")?;
    let kib: u64 = after(&text, "MemTotal:")?.split_whitespace().next()?.parse().ok()?;
    Some(kib * 1024)
}

/// `KernelPageSize` of the first mapping; 4 KiB where that is not told.
fn page_bytes(root: &Path) -> u64 {
    let kib = || -> Option<u64> {
        let text = text(root, "proc/self/smaps")?;
        after(&text, "KernelPageSize:")?.split_whitespace().next()?.parse().ok()
    };
    kib().unwrap_or(4) * 1024
}

/// The hard limit in `proc/self/limits`: name, soft, hard, unit, in columns.
fn limit(root: &Path, name: &str) -> Option<u64> {
    let text = text(root, "proc/self/limits")?;
    match after(&text, name)?.split_whitespace().nth(1)? {
        "unlimited" => Some(u64::MAX),
        number => number.parse().ok(),
    }
}

/// How many numbers a list such as `0-3,8` has.
fn cpu_count(list: &str) -> usize {
    let length = |part: &str| -> Option<usize> {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (usize, usize) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
        Some(last.saturating_sub(first) + 1)
    };
    list.split(',').filter_map(length).sum()
}

/// `TcpExt: names..` over `TcpExt: numbers..`.
fn counter(root: &Path, path: &str, name: &str) -> Option<u64> {
    let text = text(root, path)?;
    let mut lines = text.lines();
    while let (Some(names), Some(values)) = (lines.next(), lines.next()) {
        let pair = names.split_whitespace().zip(values.split_whitespace()).find(|(n, _)| *n == name);
        if let Some((_, value)) = pair {
            return value.parse().ok();
        }
    }
    None
}

/// The second column, in hexadecimal, of each CPU's line.
fn backlog_drops(root: &Path) -> Option<u64> {
    let text = text(root, "proc/net/softnet_stat")?;
    let column = |line: &str| u64::from_str_radix(line.split_whitespace().nth(1)?, 16).ok();
    Some(text.lines().filter_map(column).sum())
}

fn container(root: &Path) -> Option<&'static str> {
    let environment = fs::read(root.join("proc/self/environ")).unwrap_or_default();
    let has = |prefix: &[u8]| environment.split(|byte| *byte == 0).any(|entry| entry.starts_with(prefix));
    let cgroups = text(root, "proc/1/cgroup").unwrap_or_default();
    if has(b"KUBERNETES_SERVICE_HOST=") || cgroups.contains("kubepods") {
        return Some("Kubernetes");
    }
    if root.join(".dockerenv").exists() || cgroups.contains("/docker") {
        return Some("Docker");
    }
    if root.join("run/.containerenv").exists() {
        return Some("Podman");
    }
    has(b"container=").then_some("a container")
}

/// Both versions can be mounted at once; the memory controller is in one of them.
fn cgroup(root: &Path) -> Cgroup {
    let mut found = Cgroup::default();
    let lines = text(root, "proc/self/cgroup").unwrap_or_default();
    let base = root.join("sys/fs/cgroup");
    for line in lines.lines() {
        // `hierarchy:controllers:path`; version 2 has no controllers.
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else { continue };
        let has = |name: &str| controllers.split(',').any(|controller| controller == name);
        if controllers.is_empty() {
            let smallest = |file: &str, read: fn(&str) -> Option<u64>| smallest(&base, path, file, read);
            if base.join("cgroup.controllers").exists() {
                found.version = found.version.or(Some(2));
            }
            found.memory_bytes = found.memory_bytes.or(smallest("memory.max", bytes));
            found.cpu_percent = found.cpu_percent.or(smallest("cpu.max", cpu_percent));
        } else if has("memory") {
            let directory = base.join("memory");
            found.version = Some(1);
            found.memory_bytes = smallest(&directory, path, "memory.limit_in_bytes", bytes);
            found.tcp_bytes = smallest(&directory, path, "memory.kmem.tcp.limit_in_bytes", bytes);
        }
        if has("cpu") {
            found.cpu_percent = quota_v1(&base.join("cpu"), path).or(found.cpu_percent);
        }
    }
    found
}

/// The smallest value on the way up. In a container the path may name what only the host has; the mount's root counts.
fn smallest(base: &Path, path: &str, file: &str, read: fn(&str) -> Option<u64>) -> Option<u64> {
    let above = Path::new(path.trim_start_matches('/')).ancestors();
    above.filter_map(|directory| read(&fs::read_to_string(base.join(directory).join(file)).ok()?)).min()
}

/// Version 1 says "no limit" by a number near 2^63, version 2 by `max`.
fn bytes(text: &str) -> Option<u64> {
    text.trim().parse().ok().filter(|bytes| *bytes < 1 << 60)
}

fn cpu_percent(text: &str) -> Option<u64> {
    let (quota, period) = text.trim().split_once(' ')?;
    let (quota, period): (u64, u64) = (quota.parse().ok()?, period.parse().ok()?);
    (quota * 100).checked_div(period)
}

fn quota_v1(base: &Path, path: &str) -> Option<u64> {
    let quota = smallest(base, path, "cpu.cfs_quota_us", bytes)?;
    (quota * 100).checked_div(smallest(base, path, "cpu.cfs_period_us", bytes)?)
}

/// Devices with hardware, or a hypervisor's, behind them.
fn cards(root: &Path) -> Vec<Card> {
    let mut names = entries(&root.join("sys/class/net"));
    names.sort();
    let interrupts = fs::read_to_string(root.join("proc/interrupts")).unwrap_or_default();
    names.into_iter().filter_map(|name| card(root, name, &interrupts)).collect()
}

fn card(root: &Path, name: String, interrupts: &str) -> Option<Card> {
    let directory = root.join("sys/class/net").join(&name);
    let device = directory.join("device");
    device.exists().then_some(())?;
    let queues = entries(&directory.join("queues"));
    let rx: Vec<_> = queues.iter().filter(|queue| queue.starts_with("rx-")).collect();
    // All zeros and commas: off.
    let spreads = |queue: &&&String| {
        let mask = fs::read_to_string(directory.join("queues").join(queue).join("rps_cpus"));
        mask.is_ok_and(|mask| mask.trim().chars().any(|c| !"0,".contains(c)))
    };
    // Interrupts carry the card's name (`eth0-TxRx-1`), or with virtio that of its device (`virtio1-input.0`).
    let target = fs::canonicalize(&device).ok();
    let hardware = target.as_deref().and_then(Path::file_name).map(|n| n.to_string_lossy().into_owned());
    let ours = |line: &str| {
        let mut words = line.split_whitespace().flat_map(|word| word.split([',', '@']));
        let is = |word: &str, name: &str| {
            word.strip_prefix(name).is_some_and(|rest| !rest.starts_with(|c: char| c.is_ascii_digit()))
        };
        words.any(|word| is(word, &name) || hardware.as_deref().is_some_and(|h| is(word, h)))
    };
    let lines = interrupts.lines().filter(|line| ours(line));
    let irqs = lines.filter_map(|line| line.split(':').next()?.trim().parse::<u32>().ok());
    let irq_cpus = irqs.filter_map(|irq| text(root, &format!("proc/irq/{irq}/smp_affinity_list")));
    Some(Card {
        rx_queues: rx.len(),
        rps_queues: rx.iter().filter(spreads).count(),
        // -1: the machine has only one node, or does not tell.
        numa_node: fs::read_to_string(device.join("numa_node")).ok().and_then(|n| n.trim().parse().ok()),
        irq_cpus: irq_cpus.collect(),
        name,
    })
}

fn entries(directory: &PathBuf) -> Vec<String> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_have_two_numbers() {
        for (release, want) in [
            ("6.18.44-fc-v445", Some((6, 18))),
            ("5.10.0-28-amd64", Some((5, 10))),
            ("6.1", Some((6, 1))),
            ("linux", None),
            ("", None),
        ] {
            assert_eq!(version(release), want, "{release}");
        }
    }

    #[test]
    fn lists_are_counted() {
        for (list, want) in [("0", 1), ("0-3", 4), ("0-3,8,10-11", 7), ("", 0), ("x", 0)] {
            assert_eq!(cpu_count(list), want, "{list}");
        }
    }

    #[test]
    fn no_limit_is_none_in_both_versions() {
        for (text, want) in [("max\n", None), ("9223372036854771712\n", None), ("1048576\n", Some(1_048_576))]
        {
            assert_eq!(bytes(text), want, "{text}");
        }
        assert_eq!(cpu_percent("max 100000"), None);
        assert_eq!(cpu_percent("150000 100000"), Some(150));
    }

    #[test]
    fn an_empty_root_yields_nothing_and_does_not_fail() {
        let root = tempfile::tempdir().unwrap();
        let facts = facts(root.path());
        assert!(facts.sysctls.is_empty() && facts.kernel.is_none() && facts.cards.is_empty(), "{facts:?}");
        assert_eq!(facts.page_bytes, 4096);
    }
}
