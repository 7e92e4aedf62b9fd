//! Points about how the machine is laid out: control groups, cards, nodes, clock, containers.

use super::facts::{Card, Facts};
use super::grade::Verdict;
use super::points::{memory_for, mib};

/// Clocks that are read without a trap into the kernel or the hypervisor.
const FAST_CLOCKS: [&str; 5] = ["tsc", "kvm-clock", "arch_sys_counter", "hyperv_clocksource_tsc_page", "xen"];

/// Socket buffers count: in version 2 as `sock` of `memory.stat`, in version 1 if `kmem.tcp` has a limit.
pub(super) fn cgroup_memory(facts: &Facts, connections: u64) -> Verdict {
    let (idle, busy) = memory_for(connections);
    let group = &facts.cgroup;
    if let Some(tcp) = group.tcp_bytes.filter(|tcp| *tcp < busy - idle) {
        return Verdict::warn(
            format!(
                "memory.kmem.tcp.limit_in_bytes is {} MiB; busy buffers take {}",
                mib(tcp),
                mib(busy - idle)
            ),
            "raise memory.kmem.tcp.limit_in_bytes of the group",
        );
    }
    let Some(most) = group.memory_bytes else {
        return Verdict::ok("no limit");
    };
    let said = format!(
        "{} MiB, kernel socket memory included; {connections} connections take about {} idle and {} busy",
        mib(most),
        mib(idle),
        mib(busy)
    );
    let fix = format!(
        "MemoryMax={}M in the unit, or limits.memory: {}Mi of the pod",
        mib(busy) + 512,
        mib(busy) + 512
    );
    match most {
        _ if most < idle => Verdict::fail(said, fix),
        _ if most < busy => Verdict::warn(said, fix),
        _ => Verdict::ok(said),
    }
}

/// A quota that is no whole number of CPUs is throttled in the middle of a turn.
pub(super) fn cgroup_cpu(facts: &Facts, _: u64) -> Verdict {
    let Some(percent) = facts.cgroup.cpu_percent else {
        return Verdict::ok("no quota");
    };
    let said = format!("a quota of {}.{:02} CPUs", percent / 100, percent % 100);
    if percent < 100 {
        return Verdict::warn(
            format!("{said}: the one shard is throttled for a part of each period"),
            "give it whole CPUs: AllowedCPUs= in the unit, or equal whole cpu requests and limits of the pod",
        );
    }
    Verdict::hint(
        format!("{said}: shards are not pinned under a quota"),
        "prefer a CPU set: AllowedCPUs= in the unit, or the kubelet's static CPU policy",
    )
}

/// Queues, and which CPUs serve them.
pub(super) fn cards(facts: &Facts, _: u64) -> Verdict {
    if facts.cards.is_empty() {
        return Verdict::ok("none in this network namespace");
    }
    let Some(cpus) = facts.cpus else {
        return Verdict::unknown("the number of CPUs", "/sys/devices/system/cpu/online");
    };
    let narrow = |card: &&Card| card.rx_queues < cpus && card.rps_queues == 0;
    if let Some(card) = facts.cards.iter().find(narrow) {
        let (name, queues) = (&card.name, card.rx_queues);
        return Verdict::hint(
            format!("{name} has {queues} receive queues for {cpus} CPUs, and RPS is off"),
            format!("ethtool -l {name}; ethtool -L {name} combined {cpus}, or RPS (tuning/CORES.md)"),
        );
    }
    let bunched = |card: &&Card| {
        let mut lists = card.irq_cpus.iter();
        let one = lists.next().is_some_and(|first| first.parse::<u32>().is_ok() && lists.all(|l| l == first));
        one && card.irq_cpus.len() > 1
    };
    if let Some(card) = facts.cards.iter().find(bunched) {
        let cpu = card.irq_cpus.first().map_or("", String::as_str);
        return Verdict::warn(
            format!("all {} interrupts of {} go to CPU {cpu}", card.irq_cpus.len(), card.name),
            "spread them: irqbalance, or /proc/irq/N/smp_affinity_list (tuning/CORES.md)",
        );
    }
    let names: Vec<_> =
        facts.cards.iter().map(|c| format!("{} with {} queues", c.name, c.rx_queues)).collect();
    Verdict::ok(format!("{} for {cpus} CPUs", names.join(", ")))
}

/// More than one node: a shard far from the card pays for each packet.
pub(super) fn numa(facts: &Facts, _: u64) -> Verdict {
    match facts.numa_nodes {
        Some(0 | 1) => Verdict::ok("one node"),
        Some(nodes) => {
            let near: Vec<_> =
                facts.cards.iter().filter_map(|c| Some(format!("{} on {}", c.name, c.numa_node?))).collect();
            let near = if near.is_empty() { "no card tells its node".to_owned() } else { near.join(", ") };
            Verdict::hint(
                format!("{nodes} nodes; {near}"),
                "one gateway per node: numactl --cpunodebind=N --membind=N (tuning/CORES.md)",
            )
        }
        None => Verdict::unknown("the NUMA layout", "/sys/devices/system/node/has_cpu"),
    }
}

/// Each turn reads the clock.
pub(super) fn clock(facts: &Facts, _: u64) -> Verdict {
    match facts.clock.as_deref() {
        Some(clock) if FAST_CLOCKS.contains(&clock) => Verdict::ok(clock),
        Some(clock) => Verdict::warn(
            format!("{clock}: each reading is a trap; the kernel distrusts the CPU's own counter"),
            "dmesg | grep -i tsc; /sys/devices/system/clocksource/clocksource0/available_clocksource",
        ),
        None => {
            Verdict::unknown("the clock", "/sys/devices/system/clocksource/clocksource0/current_clocksource")
        }
    }
}

/// In a container the settings of the host are not ours to change.
pub(super) fn container(facts: &Facts, _: u64) -> Verdict {
    match facts.container {
        None => Verdict::ok("none seen"),
        Some("Kubernetes") => Verdict::hint(
            "Kubernetes: a pod cannot set the host's settings, with hostNetwork not even those of net",
            "kubectl apply -f tuning/kubernetes/node-tuning.yaml",
        ),
        Some(runtime) => Verdict::hint(
            format!("{runtime}: its bridge is another hop, with conntrack"),
            "--network host, and tune the host itself",
        ),
    }
}
