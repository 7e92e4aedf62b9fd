//! gRPC and admin HTTP on the rpc threads.

use std::net::TcpListener;
use std::sync::Arc;

use crate::admission::Admission;
use crate::config::Config;
use crate::ids::{Ownership, RpcId};
use crate::metrics::Block;
use crate::shard::mailbox::{RpcInbox, ShardAddress};
use crate::shard::{DriverKind, NodeEvent};

/// What an rpc thread is started with.
pub struct RpcStart {
    /// Its name. Thread 0 runs the backend and the admin HTTP.
    pub id: RpcId,
    /// The CPU to pin to; `None` = not pinned.
    pub cpu: Option<usize>,
    /// The node's configuration.
    pub config: Arc<Config>,
    /// Which monoio driver (already probed).
    pub driver: DriverKind,
    /// Its mail.
    pub inbox: RpcInbox,
    /// All shards by id.
    pub shards: Vec<ShardAddress>,
    /// Who owns whom.
    pub ownership: Ownership,
    /// The node's state, for `/readyz`.
    pub admission: Arc<Admission>,
    /// The gRPC listener (SO_REUSEPORT).
    pub grpc: TcpListener,
    /// The admin HTTP listener; thread 0 only.
    pub http: Option<TcpListener>,
    /// Where it publishes its own counts.
    pub block: Arc<Block>,
    /// The blocks of all threads, with the value of their `shard` label ("0", "1", .. and "rpc0", ..), for `/metrics`.
    pub blocks: Vec<(String, Arc<Block>)>,
    /// News for the main thread.
    pub events: crossbeam_channel::Sender<NodeEvent>,
}

/// Starts the thread.
pub fn spawn(start: RpcStart) -> std::io::Result<std::thread::JoinHandle<()>> {
    let _ = start;
    todo!()
}

/// Builds a SO_REUSEPORT listener for gRPC or HTTP.
pub fn bind_listener(address: std::net::SocketAddr) -> std::io::Result<TcpListener> {
    let _ = address;
    todo!()
}
