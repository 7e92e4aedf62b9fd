//! Threads and sockets of the shards.
//!
//! `run.rs` is the loop that owns hub and sockets; `engine` moves bytes; `listener.rs`, `acceptor.rs`, `welcome.rs`,
//! `door.rs`, `head.rs` and `spare.rs` let connections in; `mailbox.rs` is how threads meet; `thread.rs`, `turn.rs`,
//! `alarm.rs` and `clock.rs` serve rpc threads too.

mod above;
mod acceptor;
pub mod alarm;
mod atomics;
pub mod bell;
pub mod clock;
mod cluster;
mod door;
pub mod doorbell;
pub mod engine;
mod farewell;
mod head;
mod hub_plan;
mod listener;
pub mod mailbox;
pub mod names;
pub mod news;
pub mod nudge;
pub mod orders;
mod outcomes;
mod planted;
mod presence;
mod probe;
pub mod pulse;
mod recording;
mod rest;
mod rpc_mailbox;
mod run;
pub mod socket;
pub mod spare;
pub mod stall;
pub mod stall_trace;
pub mod thread;
pub mod transform;
pub mod turn;
mod welcome;

use std::sync::Arc;

use crate::admission::{Admission, AdmissionLimits};
use crate::backend::embedded::TokenCheck;
use crate::config::Config;
use crate::ids::{Ownership, ShardId};
use crate::metrics::Block;
use crate::placement::view::View;
pub use engine::{EngineKind, probe_ring_engine};
pub use listener::{Buffers, Turn, bind_adopted, bind_client_listener, bind_listener};
use mailbox::{RpcAddress, ShardAddress, ShardInbox};
pub use probe::probe_io_uring;
use pulse::Pulse;

/// What a shard thread is started with.
pub struct ShardStart {
    /// Its name.
    pub id: ShardId,
    /// The CPU to pin to; `None` = not pinned.
    pub cpu: Option<usize>,
    /// The node's configuration.
    pub config: Arc<Config>,
    /// Which monoio driver (already probed).
    pub driver: DriverKind,
    /// Which engine moves the bytes of clients (already probed).
    pub engine: EngineKind,
    /// Its mail.
    pub inbox: ShardInbox,
    /// All shards, itself included, by id: for hand-overs.
    pub shards: Vec<ShardAddress>,
    /// All rpc threads by id. Upstream calls and presence go to thread 0.
    pub rpcs: Vec<RpcAddress>,
    /// Answers what is asked about tokens, on the shard itself; `None`: this is asked of rpc thread 0 as well.
    pub tokens: Option<TokenCheck>,
    /// Who owns whom.
    pub ownership: Ownership,
    /// The node's connection count.
    pub admission: Arc<Admission>,
    /// Where it publishes its counts.
    pub block: Arc<Block>,
    /// Its heartbeat, watched by the main thread.
    pub pulse: Arc<Pulse>,
    /// News for the main thread.
    pub events: news::NodeNews,
}

/// The monoio driver a thread runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DriverKind {
    /// io_uring.
    IoUring,
    /// epoll.
    Epoll,
}

/// What a shard moves bytes with: its runtime's driver, and its engine beside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Base {
    /// Also that of the rpc threads.
    pub driver: DriverKind,
    /// Of shards only.
    pub engine: EngineKind,
}

/// News from threads to main. Bounded channel, sent with `try_send`.
#[derive(Debug)]
pub enum NodeEvent {
    /// The shard's loop runs (it does not listen yet; see `Control::Listen`).
    ShardReady(ShardId),
    /// The rpc thread serves.
    RpcReady(crate::ids::RpcId),
    /// After `Control::Drain`: the last connection of the shard is gone, its thread ends.
    ShardDrained(ShardId),
    /// An operator wants something, and waits for `MainNews::Answer`.
    Order {
        /// Goes back with the answer.
        ticket: u64,
        /// What.
        order: orders::Order,
    },
    /// In the cluster: clients may come.
    ClusterOpen,
    /// The members of the cluster as the router believes them now; whole, and the newest counts.
    View(Box<View>),
    /// A thread cannot go on.
    Failed(String),
}

impl std::fmt::Display for DriverKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::IoUring => "io_uring",
            Self::Epoll => "epoll",
        })
    }
}

/// What the node lets in, as configured.
pub fn admission_limits(config: &Config) -> AdmissionLimits {
    AdmissionLimits {
        connections_max: config.websocket.connections_max,
        address_connections_max: config.admission.address_connections_max,
        accepts_per_second_max: config.admission.accepts_per_second_max,
        key: config.shards.owner_key,
    }
}

/// Starts the thread. It says [`NodeEvent::ShardReady`] when its loop runs, and ends after `Control::Drain`.
///
/// # Errors
/// The system gives no thread.
pub fn spawn(start: ShardStart) -> std::io::Result<std::thread::JoinHandle<()>> {
    let seat = thread::Seat { name: format!("shard{}", start.id.0), cpu: start.cpu, driver: start.driver };
    thread::spawn_on(seat, start.events.clone(), move |turns| run::run(start, turns))
}

#[cfg(test)]
mod tests;
