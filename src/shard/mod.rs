//! Threads and sockets of the shards.

mod atomics;
pub mod bell;
pub mod doorbell;
pub mod mailbox;
pub mod pulse;
mod rpc_mailbox;
pub mod stall;
pub mod stall_trace;

use std::sync::Arc;

use crate::admission::Admission;
use crate::config::Config;
use crate::ids::{Ownership, ShardId};
use crate::metrics::Block;
use mailbox::{RpcAddress, ShardAddress, ShardInbox};
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
    /// Its mail.
    pub inbox: ShardInbox,
    /// All shards, itself included, by id: for hand-overs.
    pub shards: Vec<ShardAddress>,
    /// All rpc threads by id. Upstream calls and presence go to thread 0.
    pub rpcs: Vec<RpcAddress>,
    /// Who owns whom.
    pub ownership: Ownership,
    /// The node's connection count.
    pub admission: Arc<Admission>,
    /// Where it publishes its counts.
    pub block: Arc<Block>,
    /// Its heartbeat, watched by the main thread.
    pub pulse: Arc<Pulse>,
    /// News for the main thread.
    pub events: crossbeam_channel::Sender<NodeEvent>,
}

/// The monoio driver a thread runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DriverKind {
    /// io_uring.
    IoUring,
    /// epoll.
    Epoll,
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
    /// A thread cannot go on.
    Failed(String),
}

/// Starts the thread.
pub fn spawn(start: ShardStart) -> std::io::Result<std::thread::JoinHandle<()>> {
    let _ = start;
    todo!()
}

/// Builds the SO_REUSEPORT listener of one shard (dual stack when the address is `::`), with the socket options that
/// accepted sockets inherit. Called by main once shards and backend are ready; handed over by `Control::Listen`.
pub fn bind_listener(config: &Config, port: u16) -> std::io::Result<std::net::TcpListener> {
    let _ = (config, port);
    todo!()
}

/// Tries io_uring once. `Err` says in one line why not and what to do.
pub fn probe_io_uring() -> Result<(), String> {
    todo!()
}
