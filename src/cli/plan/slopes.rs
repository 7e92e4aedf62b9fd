//! What one connection, login, heartbeat and delivery cost: the figures that `pinion plan` computes with.
//!
//! Measured, each with its command, on one machine on one day; see `bench/CAPACITY.md` for the whole story. After a new
//! measurement change the figures here and run `UPDATE=1 cargo test --lib cli::plan`, which rewrites the page. What
//! always holds: nothing here is a guess; what could not be measured is not here.

/// Where and when.
pub(super) const MEASURED: &str =
    "2 shared cores, kernel 6.18, loopback, one shard on a core of its own; 2026-11-21; bench/RESULTS.md";
/// The largest number of connections of one process that was measured. Above: extrapolated.
pub(super) const CONNECTIONS_MEASURED_MAX: u64 = 18_000;

/// A measured figure.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slope {
    /// What of.
    pub(super) name: &'static str,
    pub(super) value: f64,
    pub(super) unit: &'static str,
    /// How it was measured.
    pub(super) command: &'static str,
}

/// What connections cost on one connection engine.
#[derive(Clone, Copy, Debug)]
pub(super) struct EngineSlopes {
    /// As `shards.engine` and `shards.driver` name it.
    pub(super) name: &'static str,
    /// Private memory of the process per idle, logged-in connection.
    pub(super) user_bytes: Slope,
}

/// By engine; the first is the default.
pub(super) const ENGINES: [EngineSlopes; 2] = [
    EngineSlopes { name: "ring", user_bytes: user_bytes(627.0) },
    EngineSlopes { name: "task", user_bytes: user_bytes(1_062.0) },
];

const fn user_bytes(value: f64) -> Slope {
    Slope { name: "user memory per idle connection", value, unit: "B", command: "bench/compare/run.sh" }
}

/// Kernel memory of an idle, established connection: socket, file, inode, dentry, and its share of hash tables.
pub(super) const KERNEL_BYTES: Slope = Slope {
    name: "kernel memory per idle connection",
    value: 5_146.0,
    unit: "B",
    command: "bench/compare/run.sh",
};
/// Kernel memory of a connection whose client has stopped reading, at the default `websocket.send_buffer_bytes`.
pub(super) const STALLED_BYTES: Slope = Slope {
    name: "kernel memory per connection that does not read",
    value: 115_000.0,
    unit: "B",
    command: "platform notes, 19",
};
/// A process without connections, with one shard.
pub(super) const PROCESS_BYTES: Slope = Slope {
    name: "a process without connections",
    value: 18.4e6,
    unit: "B",
    command: "bench/compare/run.sh",
};
/// Ring buffers and tables of one shard more.
pub(super) const SHARD_BYTES: Slope =
    Slope { name: "one shard more", value: 2.2e6, unit: "B", command: "bench/compare/run.sh growth" };
/// CPU of a ping and its pong.
pub(super) const HEARTBEAT_US: Slope =
    Slope { name: "CPU per heartbeat", value: 6.7, unit: "us", command: "bench/compare/run.sh growth" };
/// CPU of a login: accept, head, token checked here, 101, register. Not of its close.
pub(super) const LOGIN_US: Slope =
    Slope { name: "CPU per login", value: 13.7, unit: "us", command: "bench/compare/run.sh" };
/// CPU of a push to one user by OpenIM's unary call, gRPC and delivery together.
pub(super) const PUSH_US: Slope =
    Slope { name: "CPU per push to one connection", value: 12.8, unit: "us", command: "bench-push unary" };
/// CPU of one delivery more of the same push.
pub(super) const DELIVERY_US: Slope = Slope {
    name: "CPU per further delivery of a push",
    value: 3.9,
    unit: "us",
    command: "bench/compare/run.sh",
};

/// All but those of the engines, for the page.
pub(super) const COMMON: [Slope; 8] =
    [KERNEL_BYTES, STALLED_BYTES, PROCESS_BYTES, SHARD_BYTES, HEARTBEAT_US, LOGIN_US, PUSH_US, DELIVERY_US];
