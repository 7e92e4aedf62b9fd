//! What the machine allows: CPUs, cgroup quota, open files. Read once at start and handed on as plain numbers, so that
//! everything decided from it is a pure function of [`Machine`].

use std::path::Path;

use super::openim::{Interface, interfaces};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Facts about the machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Machine {
    /// The CPUs that this process may run on, ascending; at least one.
    pub cpus: Vec<usize>,
    /// CPUs' worth of time that the cgroup grants, rounded down (a thread too many would be throttled), at least 1.
    pub quota: Option<usize>,
    /// Most files that this process may open: the hard limit.
    pub files_max: u64,
    /// The IPv4 addresses of its network interfaces, in the kernel's order.
    pub interfaces: Vec<Interface>,
}

impl Machine {
    /// Asks the kernel. What cannot be read counts as "no limit", except that there is always one CPU.
    pub fn probe() -> Self {
        let cgroups = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        Self {
            cpus: cpu_set(),
            quota: quota(Path::new("/sys/fs/cgroup"), &cgroups),
            files_max: getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX),
            interfaces: interfaces(),
        }
    }
}

/// Memory comes in pages of 4 KiB from here on, whatever the allocator advises. An idle connection is some hundred
/// bytes: with pages of 2 MiB a process of 16 000 of them took 52 MB instead of 28 (bench/MEMORY.md).
///
/// # Errors
/// The kernel is older than 3.15, or a filter forbids it.
pub fn refuse_huge_pages() -> std::io::Result<()> {
    Ok(rustix::thread::disable_transparent_huge_pages(true)?)
}

/// Raises the soft limit of open files to the hard one and returns it.
///
/// # Errors
/// The kernel's answer; the soft limit is then as before.
pub fn raise_open_files() -> std::io::Result<u64> {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })?;
    Ok(limit.maximum.unwrap_or(u64::MAX))
}

fn cpu_set() -> Vec<usize> {
    let Ok(set) = rustix::thread::sched_getaffinity(None) else {
        return vec![0];
    };
    let cpus: Vec<usize> = (0..rustix::thread::CpuSet::MAX_CPU).filter(|&cpu| set.is_set(cpu)).collect();
    if cpus.is_empty() { vec![0] } else { cpus }
}

/// The smallest quota on the way from this process's cgroup up to the root, for either cgroup version.
fn quota(root: &Path, cgroups: &str) -> Option<usize> {
    let mut smallest: Option<usize> = None;
    for line in cgroups.lines() {
        // `hierarchy:controllers:path`; version 2 has no controllers.
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else {
            continue;
        };
        let (base, read): (_, fn(&Path) -> Option<usize>) = if controllers.is_empty() {
            (root.to_path_buf(), quota_v2)
        } else if controllers.split(',').any(|c| c == "cpu") {
            // Mounted under the controllers' names, `cpu` being a link to it where they are joined.
            (root.join("cpu"), quota_v1)
        } else {
            continue;
        };
        // In a container the path may name directories that only the host has; those yield nothing, the mount's
        // root does.
        for directory in Path::new(path.trim_start_matches('/')).ancestors() {
            smallest = [smallest, read(&base.join(directory))].into_iter().flatten().min();
        }
    }
    smallest
}

fn quota_v2(directory: &Path) -> Option<usize> {
    let text = std::fs::read_to_string(directory.join("cpu.max")).ok()?;
    let (quota, period) = text.trim().split_once(' ')?;
    whole_cpus(quota, period)
}

fn quota_v1(directory: &Path) -> Option<usize> {
    let quota = std::fs::read_to_string(directory.join("cpu.cfs_quota_us")).ok()?;
    let period = std::fs::read_to_string(directory.join("cpu.cfs_period_us")).ok()?;
    whole_cpus(quota.trim(), period.trim())
}

/// "max" and -1 mean no quota: neither is an unsigned number.
fn whole_cpus(quota: &str, period: &str) -> Option<usize> {
    let (quota, period): (usize, usize) = (quota.parse().ok()?, period.parse().ok()?);
    Some(quota.checked_div(period)?.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(root: &Path, path: &str, text: &str) {
        let path = root.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    #[test]
    fn the_smallest_quota_on_the_way_up_counts() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        write(root, "a/cpu.max", "400000 100000\n");
        write(root, "a/b/cpu.max", "max 100000\n");
        write(root, "c/cpu.max", "150000 100000\n");
        write(root, "d/cpu.max", "50000 100000\n");
        write(root, "cpu/k/cpu.cfs_quota_us", "300000\n");
        write(root, "cpu/k/cpu.cfs_period_us", "100000\n");
        write(root, "cpu/free/cpu.cfs_quota_us", "-1\n");
        write(root, "cpu/free/cpu.cfs_period_us", "100000\n");
        for (cgroups, want) in [
            ("0::/a/b\n", Some(4)),
            ("0::/c\n", Some(1)),
            ("0::/d\n", Some(1)),
            ("0::/only/on/the/host\n", None),
            ("4:cpu,cpuacct:/k\n1:name=systemd:/k\n", Some(3)),
            ("4:cpu,cpuacct:/free\n", None),
            ("4:cpuset:/k\n", None),
            ("nonsense\n", None),
            ("", None),
        ] {
            assert_eq!(quota(root, cgroups), want, "{cgroups:?}");
        }
    }

    #[test]
    fn this_machine_has_a_cpu_and_can_open_files() {
        let machine = Machine::probe();
        assert!(!machine.cpus.is_empty() && machine.files_max > 0, "{machine:?}");
    }
}
