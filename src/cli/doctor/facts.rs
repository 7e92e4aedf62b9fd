//! What is known of a host, as plain values. Where they come from is `read`'s matter, what they mean is `points`'.

use std::collections::BTreeMap;

/// The kernel settings that some point looks at.
pub(super) const SYSCTLS: [&str; 17] = [
    "fs.file-max",
    "fs.nr_open",
    "kernel.io_uring_disabled",
    "net.core.netdev_max_backlog",
    "net.core.rmem_max",
    "net.core.somaxconn",
    "net.core.wmem_max",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.tcp_abort_on_overflow",
    "net.ipv4.tcp_max_orphans",
    "net.ipv4.tcp_max_syn_backlog",
    "net.ipv4.tcp_mem",
    "net.ipv4.tcp_syncookies",
    "net.netfilter.nf_conntrack_buckets",
    "net.netfilter.nf_conntrack_count",
    "net.netfilter.nf_conntrack_max",
];

/// Everything that was found out about a host. `None` and absent: it could not be read.
#[derive(Clone, Debug, Default)]
pub(super) struct Facts {
    /// Values of [`SYSCTLS`], as they are written in `/proc/sys`.
    pub(super) sysctls: BTreeMap<&'static str, String>,
    /// Major and minor version of the kernel.
    pub(super) kernel: Option<(u32, u32)>,
    /// `MemTotal`.
    pub(super) memory_bytes: Option<u64>,
    /// Size of a page of memory, the unit of `tcp_mem`.
    pub(super) page_bytes: u64,
    /// CPUs that are online.
    pub(super) cpus: Option<usize>,
    /// Hard limit of open files; `u64::MAX` is "unlimited".
    pub(super) files_hard: Option<u64>,
    /// Hard limit of locked memory; `u64::MAX` is "unlimited".
    pub(super) memlock_bytes: Option<u64>,
    /// Whether a seccomp filter is on this process.
    pub(super) seccomp: Option<Seccomp>,
    /// What came of building a ring.
    pub(super) ring: Ring,
    /// What the cgroups on the way to the root allow.
    pub(super) cgroup: Cgroup,
    /// Network cards; the loopback and purely virtual devices are none.
    pub(super) cards: Vec<Card>,
    /// NUMA nodes with CPUs.
    pub(super) numa_nodes: Option<usize>,
    /// The clock that the kernel reads.
    pub(super) clock: Option<String>,
    /// The container runtime around this process.
    pub(super) container: Option<&'static str>,
    /// `ListenOverflows` of `/proc/net/netstat`, since boot, of this network namespace.
    pub(super) listen_overflows: Option<u64>,
    /// Packets that `/proc/net/softnet_stat` counts as dropped since boot.
    pub(super) backlog_drops: Option<u64>,
}

impl Facts {
    /// A setting that is one number; the first, where it is several.
    pub(super) fn number(&self, sysctl: &str) -> Option<u64> {
        self.numbers(sysctl).first().copied()
    }

    /// A setting that is several numbers. Empty if it is not there.
    pub(super) fn numbers(&self, sysctl: &str) -> Vec<u64> {
        let text = self.sysctls.get(sysctl).map_or("", String::as_str);
        text.split_whitespace().map_while(|word| word.parse().ok()).collect()
    }
}

/// `Seccomp:` of `/proc/self/status`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Seccomp {
    /// No filter.
    Off,
    /// A filter; what it allows is only known by trying.
    Filter,
}

/// Whether this process was given a ring.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Ring {
    /// The facts are of another host, or nobody asked.
    #[default]
    NotTried,
    /// It works.
    Works,
    /// Why it does not, with what to do.
    Refused(String),
}

/// Limits of control groups, the smallest on the way up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Cgroup {
    /// 1 or 2: which version has the memory controller.
    pub(super) version: Option<u8>,
    /// Bytes of memory. Version 2 counts socket buffers in it.
    pub(super) memory_bytes: Option<u64>,
    /// Version 1 only: bytes of TCP buffers.
    pub(super) tcp_bytes: Option<u64>,
    /// Hundredths of a CPU.
    pub(super) cpu_percent: Option<u64>,
}

/// A network card.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Card {
    /// As in `ip link`.
    pub(super) name: String,
    /// Receive queues.
    pub(super) rx_queues: usize,
    /// Receive queues whose packets are spread over CPUs by software (RPS).
    pub(super) rps_queues: usize,
    /// The NUMA node that it is attached to.
    pub(super) numa_node: Option<u32>,
    /// CPU lists that its interrupts may go to, one per interrupt.
    pub(super) irq_cpus: Vec<String>,
}
