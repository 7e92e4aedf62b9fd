//! The sum: from what is asked of a fleet to what each host needs. Pure.
//!
//! What always holds: each figure says what it is worth ([`Worth`]); bounds are never added to what is expected.

use super::slopes::{self, EngineSlopes};
use super::text::some;
use crate::cli::doctor::profile::{Profile, files_for_host, files_for_process, processes_for};
use crate::limits;

/// Part of a core that a thread may be busy on average: above it queues, and with them latencies, grow.
const BUSY_MAX: f64 = 0.6;
/// A page of TCP memory, for `tcp_mem`.
const PAGE_BYTES: u64 = 4096;
/// Shards of one rpc thread (architecture.md section 3).
const SHARDS_PER_RPC: u64 = 8;

/// What is asked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ask {
    /// Over all hosts.
    pub(super) connections: u64,
    pub(super) nodes: u64,
    pub(super) engine: EngineSlopes,
    /// Seconds between two pings of a client.
    pub(super) heartbeat_seconds: f64,
    /// Over all hosts and per second: logins, pushes, deliveries per push.
    pub(super) logins: f64,
    pub(super) pushes: f64,
    pub(super) fan_out: f64,
    /// Part of the clients that have stopped reading.
    pub(super) stalled: f64,
}

/// What a figure is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Worth {
    /// Within what was measured.
    Measured,
    /// A measured slope, beyond its last point.
    Extrapolated,
    /// The most that limits allow; reached only when everything goes wrong at once.
    Bound,
}

/// A figure of the plan.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Item {
    pub(super) name: &'static str,
    /// Bytes, or cores.
    pub(super) amount: f64,
    /// How it was computed.
    pub(super) from: String,
    pub(super) worth: Worth,
}

/// A kernel setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Sysctl {
    pub(super) key: &'static str,
    pub(super) value: String,
    pub(super) from: String,
}

/// What one host needs.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) connections: u64,
    pub(super) processes: u64,
    pub(super) shards: u64,
    pub(super) rpcs: u64,
    /// Expected memory.
    pub(super) memory: Vec<Item>,
    /// What comes on top in the worst case.
    pub(super) bounds: Vec<Item>,
    /// Expected work, in cores.
    pub(super) work: Vec<Item>,
    pub(super) files_per_process: u64,
    pub(super) sysctls: Vec<Sysctl>,
    /// Of `tuning/sysctl`.
    pub(super) profile: &'static str,
}

impl Plan {
    /// For one host of the fleet.
    pub(super) fn new(ask: &Ask) -> Self {
        let connections = ask.connections.div_ceil(ask.nodes);
        let processes = processes_for(connections);
        let work = work(ask, connections, processes);
        let (shard_work, rpc_work) = (total(&work[..3]), total(&work[3..]));
        let shards = threads(shard_work).max(processes);
        let rpcs = threads(rpc_work).max(shards.div_ceil(SHARDS_PER_RPC)).max(processes);
        Self {
            connections,
            processes,
            shards,
            rpcs,
            memory: memory(ask, (connections, processes, shards)),
            bounds: bounds(shards, rpcs),
            work,
            files_per_process: files_for_process(connections.div_ceil(processes)),
            sysctls: sysctls(connections),
            profile: Profile::for_connections(connections),
        }
    }
}

/// Adds up.
pub(super) fn total(items: &[Item]) -> f64 {
    items.iter().map(|item| item.amount).sum()
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a small count above 0")]
fn threads(cores: f64) -> u64 {
    (cores / BUSY_MAX).ceil() as u64
}

#[expect(clippy::cast_precision_loss, reason = "exact up to 2^53")]
fn float(count: u64) -> f64 {
    count as f64
}

fn worth(connections: u64, processes: u64) -> Worth {
    if connections.div_ceil(processes) <= slopes::CONNECTIONS_MEASURED_MAX {
        Worth::Measured
    } else {
        Worth::Extrapolated
    }
}

fn memory(ask: &Ask, (connections, processes, shards): (u64, u64, u64)) -> Vec<Item> {
    let worth = worth(connections, processes);
    let (user, kernel) = (ask.engine.user_bytes.value, slopes::KERNEL_BYTES.value);
    let stalled = float(connections) * ask.stalled;
    let fixed = float(processes) * slopes::PROCESS_BYTES.value
        + float(shards.saturating_sub(processes)) * slopes::SHARD_BYTES.value;
    vec![
        Item {
            name: "connections, user space",
            amount: float(connections) * user,
            from: format!("{connections} x {user} B ({} engine)", ask.engine.name),
            worth,
        },
        Item {
            name: "connections, kernel",
            amount: float(connections) * kernel,
            from: format!("{connections} x {kernel} B"),
            worth,
        },
        Item {
            name: "clients that do not read",
            amount: stalled * (slopes::STALLED_BYTES.value - kernel).max(0.0),
            from: format!("{:.1} % x {} B", ask.stalled * 100.0, slopes::STALLED_BYTES.value),
            worth,
        },
        Item {
            name: "processes and shards",
            amount: fixed,
            from: format!("{}, {}", some(processes, "process", "processes"), some(shards, "shard", "shards")),
            worth: Worth::Measured,
        },
    ]
}

fn bounds(shards: u64, rpcs: u64) -> Vec<Item> {
    let per = |name, threads: u64, kind: [&str; 2], bytes: usize| Item {
        name,
        amount: float(threads) * float(bytes as u64),
        from: format!("{} x {bytes} B", some(threads, kind[0], kind[1])),
        worth: Worth::Bound,
    };
    const SHARDS: [&str; 2] = ["shard", "shards"];
    vec![
        per("frames that wait for slow readers", shards, SHARDS, limits::SHARD_OUTBOX_BYTES_MAX),
        per("incomplete messages and waiting requests", shards, SHARDS, limits::SHARD_INBOUND_BYTES_MAX),
        per("messages held for absent users", shards, SHARDS, limits::HELD_BYTES),
        per("calls of the push API", rpcs, ["rpc thread", "rpc threads"], limits::RPC_HELD_BYTES),
    ]
}

/// Heartbeats, logins and further deliveries, which shards do; then pushes, which are mostly the rpc threads' work.
fn work(ask: &Ask, connections: u64, processes: u64) -> Vec<Item> {
    let nodes = float(ask.nodes);
    let worth = worth(connections, processes);
    let item = |name, rate: f64, us: f64| Item {
        name,
        amount: rate * us / 1e6,
        from: format!("{rate:.0}/s x {us} us"),
        worth,
    };
    let pushes = ask.pushes / nodes;
    vec![
        item("heartbeats", float(connections) / ask.heartbeat_seconds, slopes::HEARTBEAT_US.value),
        item("logins", ask.logins / nodes, slopes::LOGIN_US.value),
        item("further deliveries", pushes * (ask.fan_out - 1.0).max(0.0), slopes::DELIVERY_US.value),
        item("pushes", pushes, slopes::PUSH_US.value),
    ]
}

/// As `pinion doctor` and `tuning/sysctl` have them.
fn sysctls(connections: u64) -> Vec<Sysctl> {
    let one = |key, value: String, from: &str| Sysctl { key, value, from: from.to_owned() };
    let (process, host) = (files_for_process(connections), files_for_host(connections));
    vec![
        one(
            "fs.nr_open",
            process.max(1_048_576).to_string(),
            "files of one process; the kernel's default is 1048576",
        ),
        one("fs.file-max", host.to_string(), "files of all processes; only ever raised"),
        one(
            "net.ipv4.tcp_mem",
            format!("{} {} {}", connections * 3 / 2, connections * 2, connections * 3),
            &format!(
                "pages of {PAGE_BYTES} B: 1.5, 2 and 3 for each connection, if all send and receive at once"
            ),
        ),
        one(
            "net.core.somaxconn",
            limits::LISTEN_QUEUE_MAX.to_string(),
            "what the gateway listens with, per shard",
        ),
        one(
            "net.ipv4.tcp_max_syn_backlog",
            (2 * limits::LISTEN_QUEUE_MAX).to_string(),
            "twice that: a quarter is kept back when SYN cookies are off",
        ),
        one(
            "net.ipv4.tcp_max_orphans",
            connections.max(65_536).to_string(),
            "after a drain, all of them for a moment",
        ),
        one(
            "net.ipv4.tcp_max_tw_buckets",
            connections.max(65_536).to_string(),
            "whoever closes first keeps TIME-WAIT: in a drain the gateway",
        ),
        one(
            "net.netfilter.nf_conntrack_max",
            (connections + connections / 4).to_string(),
            "only where conntrack is on; better: notrack for the clients' port",
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(connections: u64) -> Ask {
        Ask {
            connections,
            nodes: 1,
            engine: slopes::ENGINES[0],
            heartbeat_seconds: 24.0,
            logins: 0.0,
            pushes: 0.0,
            fan_out: 1.0,
            stalled: 0.0,
        }
    }

    #[test]
    fn memory_grows_by_the_slopes_and_is_extrapolated_beyond_the_last_measured_point() {
        let (small, large) = (Plan::new(&ask(10_000)), Plan::new(&ask(20_000)));
        let grown = large.memory[0].amount - small.memory[0].amount;
        assert!((grown - 10_000.0 * slopes::ENGINES[0].user_bytes.value).abs() < 1.0, "{grown}");
        assert_eq!((small.memory[0].worth, large.memory[0].worth), (Worth::Measured, Worth::Extrapolated));
        assert!(small.bounds.iter().all(|item| item.worth == Worth::Bound));
    }

    #[test]
    fn a_fleet_is_divided_and_processes_are_added_above_their_limit() {
        let plan = Plan::new(&Ask { nodes: 4, ..ask(1_000_000) });
        assert_eq!(plan.connections, 250_000);
        assert_eq!(plan.processes, 250_000_u64.div_ceil(limits::CONNECTIONS_MAX.into()));
        assert!(plan.shards >= plan.processes && plan.rpcs >= plan.processes);
        let one = Plan::new(&ask(1));
        assert_eq!((one.processes, one.shards, one.rpcs), (1, 1, 1));
    }

    #[test]
    fn work_becomes_threads_that_are_busy_at_most_so_much() {
        let quiet = Plan::new(&ask(100_000));
        let busy = Plan::new(&Ask { pushes: 100_000.0, fan_out: 10.0, logins: 1_000.0, ..ask(100_000) });
        assert!(busy.shards > quiet.shards && busy.rpcs > quiet.rpcs, "{busy:?}");
        let shard_work = total(&busy.work[..3]);
        assert!(shard_work / float(busy.shards) <= BUSY_MAX, "{busy:?}");
        assert!(shard_work / (float(busy.shards) - 1.0) > BUSY_MAX, "no shard too many: {busy:?}");
    }

    #[test]
    fn stalled_readers_cost_what_was_measured() {
        let plan = Plan::new(&Ask { stalled: 0.5, ..ask(1_000) });
        let all = total(&plan.memory[1..3]);
        let want = 500.0 * slopes::KERNEL_BYTES.value + 500.0 * slopes::STALLED_BYTES.value;
        assert!((all - want).abs() < 1.0, "{all} {want}");
    }

    #[test]
    fn kernel_settings_hold_every_connection() {
        for connections in [1, 9_999, 100_000, 1_000_000, 10_000_000] {
            let plan = Plan::new(&ask(connections));
            let value = |key: &str| -> u64 {
                let found = plan.sysctls.iter().find(|sysctl| sysctl.key == key).unwrap();
                found.value.split(' ').next_back().unwrap().parse().unwrap()
            };
            assert!(value("fs.nr_open") >= plan.files_per_process, "{plan:?}");
            assert!(value("fs.file-max") > connections, "{plan:?}");
            assert!(value("net.ipv4.tcp_mem") >= 3 * connections, "{plan:?}");
            assert!(value("net.netfilter.nf_conntrack_max") >= connections, "{plan:?}");
        }
    }
}
