//! The table of points: a pure function each, from facts and a plan to a verdict.
//!
//! `tests/it/doctor.rs` shows the grades on prepared hosts; the sources of the numbers are in `tuning/sysctl`.
//! What the machine's layout says (cards, nodes, clock, containers) is in `layout`.

use super::facts::{Facts, Ring, Seccomp};
use super::grade::{Finding, Verdict};
use super::layout;
use super::profile::{Profile, files_for_host, files_for_process, processes_for};
use crate::limits;

/// Kernel memory of an idle TCP connection, measured at 4 to 4.7 KiB, and what the gateway keeps beside it.
const IDLE_BYTES: u64 = 6 * 1024;
/// The same with one frame in flight each way, a page of buffer each, and something for the rest of the host.
const BUSY_BYTES: u64 = 14 * 1024;
/// The ports that the gateway listens on unless told otherwise.
const PORTS: [u64; 3] = [10_001, 10_140, 12_140];

type Judge = fn(&Facts, u64) -> Verdict;

/// Each point once, in the order of the output. The number is that of the planned connections.
const POINTS: [(&str, Judge); 22] = [
    ("gateway limit", gateway_limit),
    ("open files", open_files),
    ("files of the host", host_files),
    ("listen backlog", listen_backlog),
    ("listen overflows", listen_overflows),
    ("syn backlog", syn_backlog),
    ("socket buffers", socket_buffers),
    ("tcp memory", tcp_memory),
    ("orphans", orphans),
    ("packet backlog", packet_backlog),
    ("conntrack", conntrack),
    ("ephemeral ports", ephemeral_ports),
    ("memory", memory),
    ("cgroup memory", layout::cgroup_memory),
    ("cgroup cpu", layout::cgroup_cpu),
    ("locked memory", memlock),
    ("io_uring", io_uring),
    ("engine", engine),
    ("network cards", layout::cards),
    ("numa", layout::numa),
    ("clock", layout::clock),
    ("container", layout::container),
];

/// Judges every point.
pub(super) fn judge(facts: &Facts, connections: u64) -> Vec<Finding> {
    let finding =
        |(point, judge): (&'static str, Judge)| Finding { point, verdict: judge(facts, connections) };
    POINTS.into_iter().map(finding).collect()
}

/// The command that applies a whole profile.
fn tune(connections: u64) -> String {
    format!("scripts/tune.sh {}", Profile::for_connections(connections))
}

/// Bytes that so many connections take when idle and when busy.
pub(super) const fn memory_for(connections: u64) -> (u64, u64) {
    (connections * IDLE_BYTES, connections * BUSY_BYTES)
}

/// Whole mebibytes.
pub(super) const fn mib(bytes: u64) -> u64 {
    bytes >> 20
}

fn gateway_limit(_: &Facts, connections: u64) -> Verdict {
    let said = format!("one process of this build holds up to {} connections", limits::CONNECTIONS_MAX);
    match processes_for(connections) {
        1 => Verdict::ok(said),
        processes => {
            Verdict::warn(said, format!("run {processes} gateways, each on a port or an address of its own"))
        }
    }
}

fn open_files(facts: &Facts, connections: u64) -> Verdict {
    let need = files_for_process(connections);
    match facts.files_hard {
        Some(hard) if hard >= need => Verdict::ok(match hard {
            u64::MAX => "unlimited".to_owned(),
            _ => format!("hard limit {hard}, {need} needed"),
        }),
        Some(hard) => Verdict::fail(
            format!("hard limit {hard}, {need} needed"),
            format!("LimitNOFILE={need} in the unit, or ulimit -Hn {need} as root"),
        ),
        None => Verdict::unknown("the limit of open files", "/proc/self/limits"),
    }
}

fn host_files(facts: &Facts, connections: u64) -> Verdict {
    let (one, all) = (files_for_process(connections), files_for_host(connections));
    let (Some(process), Some(host)) = (facts.number("fs.nr_open"), facts.number("fs.file-max")) else {
        return Verdict::unknown("what the host allows", "/proc/sys/fs/nr_open");
    };
    if process < one {
        return Verdict::fail(
            format!("fs.nr_open {process} caps every process, {one} needed"),
            format!("sysctl -w fs.nr_open={}", one.next_power_of_two()),
        );
    }
    if host < all {
        return Verdict::fail(
            format!("fs.file-max {host} is for all processes together, {all} needed"),
            format!("sysctl -w fs.file-max={}", all.next_power_of_two()),
        );
    }
    Verdict::ok(format!("fs.nr_open {process}, fs.file-max {host}"))
}

fn listen_backlog(facts: &Facts, _: u64) -> Verdict {
    let asked = limits::LISTEN_QUEUE_MAX as u64;
    match facts.number("net.core.somaxconn") {
        Some(most) if most >= asked => {
            Verdict::ok(format!("net.core.somaxconn {most}, the gateway asks for {asked} per shard"))
        }
        Some(most) => Verdict::warn(
            format!("net.core.somaxconn {most} cuts the {asked} per shard: in a storm SYNs are dropped"),
            format!("sysctl -w net.core.somaxconn={asked}, then restart the gateway"),
        ),
        None => Verdict::unknown("net.core.somaxconn", "/proc/sys/net/core/somaxconn"),
    }
}

fn listen_overflows(facts: &Facts, _: u64) -> Verdict {
    match facts.listen_overflows {
        Some(0) => Verdict::ok("none since boot"),
        Some(count) => Verdict::hint(
            format!("{count} connections met a full accept queue since boot, of whatever program"),
            "nstat -az TcpExtListenOverflows; ss -ltn",
        ),
        None => Verdict::unknown("ListenOverflows", "/proc/net/netstat"),
    }
}

/// With SYN cookies on (the default) the kernel does not use this number to drop: cookies take over.
fn syn_backlog(facts: &Facts, connections: u64) -> Verdict {
    let (Some(most), Some(cookies)) =
        (facts.number("net.ipv4.tcp_max_syn_backlog"), facts.number("net.ipv4.tcp_syncookies"))
    else {
        return Verdict::unknown("the SYN backlog", "/proc/sys/net/ipv4/tcp_max_syn_backlog");
    };
    let asked = limits::LISTEN_QUEUE_MAX as u64;
    match (cookies, most) {
        (0, most) if most < asked => Verdict::warn(
            format!("net.ipv4.tcp_max_syn_backlog {most} and no SYN cookies: a storm is dropped"),
            format!("sysctl -w net.ipv4.tcp_syncookies=1 net.ipv4.tcp_max_syn_backlog={asked}"),
        ),
        (2, _) => Verdict::warn(
            "net.ipv4.tcp_syncookies 2 answers every SYN with a cookie, for tests only",
            "sysctl -w net.ipv4.tcp_syncookies=1",
        ),
        (_, most) if most < asked => Verdict::hint(
            format!("net.ipv4.tcp_max_syn_backlog {most}, below the {asked} that the gateway listens with"),
            tune(connections),
        ),
        _ => Verdict::ok(format!("net.ipv4.tcp_max_syn_backlog {most}, SYN cookies {cookies}")),
    }
}

/// SO_SNDBUF and SO_RCVBUF of the gateway, 32 KiB by default, are cut to these.
fn socket_buffers(facts: &Facts, _: u64) -> Verdict {
    let asked = 32 * 1024;
    for key in ["net.core.wmem_max", "net.core.rmem_max"] {
        match facts.number(key) {
            Some(most) if most < asked => {
                return Verdict::warn(
                    format!("{key} {most} cuts the {asked} that the gateway asks for"),
                    format!("sysctl -w {key}=212992"),
                );
            }
            Some(_) => {}
            None => return Verdict::unknown(key, "/proc/sys/net/core/"),
        }
    }
    Verdict::ok(format!("net.core.wmem_max and rmem_max allow {asked}"))
}

/// A socket with anything queued holds at least one page in each direction.
fn tcp_memory(facts: &Facts, connections: u64) -> Verdict {
    let pages = facts.numbers("net.ipv4.tcp_mem");
    let [_, pressure, most] = pages[..] else {
        return Verdict::unknown("net.ipv4.tcp_mem", "/proc/sys/net/ipv4/tcp_mem");
    };
    let said = format!("net.ipv4.tcp_mem: pressure at {pressure} pages, end at {most}");
    let wanted = format!(
        "sysctl -w net.ipv4.tcp_mem=\"{} {} {}\" (pages of {} bytes, of the host's memory)",
        connections * 3 / 2,
        connections * 2,
        connections * 3,
        facts.page_bytes
    );
    if most < connections {
        return Verdict::fail(format!("{said}; one page for each of {connections} does not fit"), wanted);
    }
    if pressure < connections * 2 {
        let text = format!("{said}; a page each way for {connections} is {}", connections * 2);
        return Verdict::warn(text, wanted);
    }
    Verdict::ok(said)
}

fn orphans(facts: &Facts, connections: u64) -> Verdict {
    match facts.number("net.ipv4.tcp_max_orphans") {
        // A drain closes all connections within seconds, and FIN_WAIT_2 lasts up to a minute.
        Some(most) if most < connections => Verdict::hint(
            format!("net.ipv4.tcp_max_orphans {most}: a drain of {connections} ends in resets beyond it"),
            tune(connections),
        ),
        Some(most) => Verdict::ok(format!("net.ipv4.tcp_max_orphans {most}")),
        None => Verdict::unknown("net.ipv4.tcp_max_orphans", "/proc/sys/net/ipv4/tcp_max_orphans"),
    }
}

fn packet_backlog(facts: &Facts, _: u64) -> Verdict {
    let Some(most) = facts.number("net.core.netdev_max_backlog") else {
        return Verdict::unknown("net.core.netdev_max_backlog", "/proc/sys/net/core/netdev_max_backlog");
    };
    match facts.backlog_drops {
        Some(drops) if drops > 0 => Verdict::hint(
            format!("{drops} packets were dropped before the network stack since boot (limit {most})"),
            format!("sysctl -w net.core.netdev_max_backlog={}", most * 4),
        ),
        _ => Verdict::ok(format!("net.core.netdev_max_backlog {most}, no drops")),
    }
}

fn conntrack(facts: &Facts, connections: u64) -> Verdict {
    let Some(most) = facts.number("net.netfilter.nf_conntrack_max") else {
        return Verdict::ok("off");
    };
    let need = connections + connections / 4;
    if most < need {
        return Verdict::fail(
            format!("on, with room for {most} flows; {need} needed, and above it new ones are dropped"),
            format!("sysctl -w net.netfilter.nf_conntrack_max={need}, or exempt the port: {}", notrack()),
        );
    }
    Verdict::hint(
        format!("on, with room for {most} flows: it costs memory and time per packet"),
        format!("exempt the port: {}", notrack()),
    )
}

fn notrack() -> String {
    format!("nft add rule inet raw prerouting tcp dport {} notrack (and output, sport)", PORTS[0])
}

fn ephemeral_ports(facts: &Facts, _: u64) -> Verdict {
    let range = facts.numbers("net.ipv4.ip_local_port_range");
    let [first, last] = range[..] else {
        return Verdict::unknown("the range of local ports", "/proc/sys/net/ipv4/ip_local_port_range");
    };
    let reserved = facts.sysctls.get("net.ipv4.ip_local_reserved_ports").map_or("", String::as_str);
    let is_reserved = |port: u64| {
        reserved.split(',').any(|part| {
            let (from, to) = part.split_once('-').unwrap_or((part, part));
            from.parse().is_ok_and(|from: u64| from <= port) && to.parse().is_ok_and(|to: u64| port <= to)
        })
    };
    let taken: Vec<String> = PORTS
        .iter()
        .filter(|port| (first..=last).contains(*port) && !is_reserved(**port))
        .map(u64::to_string)
        .collect();
    if !taken.is_empty() {
        let taken = taken.join(",");
        return Verdict::warn(
            format!("{first} to {last} holds {taken}: an outgoing connection may take a port of the gateway"),
            format!("sysctl -w net.ipv4.ip_local_reserved_ports={taken}"),
        );
    }
    Verdict::ok(format!("{first} to {last}; only outgoing connections use them, clients do not"))
}

fn memory(facts: &Facts, connections: u64) -> Verdict {
    let (idle, busy) = memory_for(connections);
    let Some(has) = facts.memory_bytes else {
        return Verdict::unknown("the size of memory", "/proc/meminfo");
    };
    let said = format!(
        "{} MiB; {connections} connections take about {} idle and {} busy",
        mib(has),
        mib(idle),
        mib(busy)
    );
    let fix = "plan fewer connections here, or more memory";
    match has {
        _ if has < idle => Verdict::fail(said, fix),
        _ if has < busy => Verdict::warn(said, fix),
        _ => Verdict::ok(said),
    }
}

/// Since 5.12 the rings are charged to the memory cgroup instead.
fn memlock(facts: &Facts, _: u64) -> Verdict {
    match (facts.memlock_bytes, facts.kernel) {
        (_, Some(kernel)) if kernel >= (5, 12) => Verdict::ok("rings do not count from kernel 5.12 on"),
        (Some(hard), _) if hard >= 64 << 20 => Verdict::ok(format!("{} MiB", mib(hard))),
        (Some(hard), _) => Verdict::warn(
            format!("{} KiB; before kernel 5.12 rings count as locked memory", hard >> 10),
            "LimitMEMLOCK=infinity in the unit",
        ),
        (None, _) => Verdict::unknown("the limit of locked memory", "/proc/self/limits"),
    }
}

fn io_uring(facts: &Facts, _: u64) -> Verdict {
    let then = "the gateway runs on epoll";
    match (&facts.ring, facts.number("kernel.io_uring_disabled"), facts.seccomp) {
        (Ring::Works, ..) => Verdict::ok("a ring was built and used"),
        (Ring::Refused(why), ..) => Verdict::warn(then, why.clone()),
        (Ring::NotTried, Some(mode @ 1..), _) => Verdict::warn(
            format!("kernel.io_uring_disabled {mode}: {then}"),
            "sysctl -w kernel.io_uring_disabled=0",
        ),
        (Ring::NotTried, _, Some(Seccomp::Filter)) => Verdict::hint(
            "a seccomp filter is on; Docker's and containerd's own forbid io_uring",
            "--security-opt seccomp=tuning/kubernetes/seccomp-io-uring.json",
        ),
        (Ring::NotTried, ..) => Verdict::ok("not switched off"),
    }
}

/// Floors of what an engine of its own would use; monoio's ring needs less.
fn engine(facts: &Facts, _: u64) -> Verdict {
    let Some(kernel @ (major, minor)) = facts.kernel else {
        return Verdict::unknown("the kernel's version", "/proc/sys/kernel/osrelease");
    };
    let said = format!("kernel {major}.{minor}");
    let fix = "install kernel 6.1 or newer (Debian 12 has it)";
    match kernel {
        (0..=4, _) | (5, 0..=9) => Verdict::warn(format!("{said}: too old for io_uring, epoll only"), fix),
        (5, 10..=18) => {
            Verdict::hint(format!("{said}: no buffer rings (5.19), no multishot recv (6.0)"), fix)
        }
        (5, _) | (6, 0) => Verdict::hint(format!("{said}: no deferred task work (6.1)"), fix),
        _ => Verdict::ok(said),
    }
}
