//! gRPC and admin HTTP on the rpc threads.
//!
//! `run` is the life of a thread; `exchange` its state; `server`, `call`, `metadata` and `services` the push API,
//! `frames` its large frames; `gate` who may use it (`tls`, `bearer`); `upstream` answers the shards' questions from
//! the embedded backend, `openim` has OpenIM's services answer them, over `channel`;
//! `admin` is HTTP for operators, `verbs` what they may ask there, `access` who may, `inside` the view of all shards;
//! `client` makes one call from the command line, `channel` calls OpenIM's services, `unary` is what both say and hear;
//! `cluster` is this node among others, `peers` the links to them, `assign` tells clients where to go;
//! `budget`, `conduct`, `bounded` and `stream` keep peers within limits. No user state is here: the shards own users.
//! `proxy` is a process of its own: `pinion proxy`; `operators` what it and `pinion dispatch` say of themselves.

mod access;
mod admin;
pub mod assign;
mod bearer;
mod bounded;
mod budget;
mod call;
pub mod channel;
pub mod client;
mod cluster;
mod conduct;
mod exchange;
mod exposition;
mod frames;
mod gate;
pub mod inside;
mod metadata;
mod openim;
pub mod operators;
mod orders;
pub mod peers;
mod planted;
pub mod proxy;
mod readiness;
mod run;
mod server;
mod services;
mod stream;
mod tls;
mod unary;
mod upstream;
mod verbs;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, listen, socket_with, sockopt};
use tracing_appender::non_blocking::ErrorCounter;

use crate::admission::Admission;
use crate::config::Config;
use crate::control::mailbox::ControlAddress;
use crate::ids::{Ownership, RpcId};
use crate::limits::{KEEP_ALIVE_MS, LISTEN_QUEUE_MAX, TCP_USER_TIMEOUT_MS};
use crate::metrics::Block;
use crate::shard::DriverKind;
use crate::shard::mailbox::{RpcInbox, ShardAddress};
use crate::shard::news::NodeNews;
use crate::shard::pulse::Pulse;
use crate::shard::thread::{Seat, spawn_on};

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
    /// How OpenIM's services are reached, if they are to answer; thread 0 only.
    pub openim: Option<UpstreamStart>,
    /// How the source of the membership is reached, with `cluster.source`; thread 0 only.
    pub membership: Option<ControlAddress>,
    /// The admin HTTP listener; thread 0 only.
    pub http: Option<TcpListener>,
    /// The assign API; thread 0 only, and only if it is configured.
    pub assign: Option<assign::AssignStart>,
    /// Where it publishes its own counts.
    pub block: Arc<Block>,
    /// The blocks of all threads, with the value of their `shard` label ("0", "1", .. and "rpc0", ..), for `/metrics`.
    pub blocks: Vec<(String, Arc<Block>)>,
    /// The heartbeats of the shards by id, for `/readyz`.
    pub pulses: Vec<Arc<Pulse>>,
    /// How many lines the log writer dropped, for `/metrics`; `None` if there is no such writer.
    pub dropped_log_lines: Option<ErrorCounter>,
    /// News for the main thread.
    pub events: NodeNews,
}

/// What an rpc thread needs for `backend: openim`.
#[derive(Clone, Debug)]
pub struct UpstreamStart {
    /// Where other gateways reach this one's gRPC port.
    pub own: SocketAddr,
    /// The control thread.
    pub control: ControlAddress,
}

/// Starts the thread. It says [`NodeEvent::RpcReady`](crate::shard::NodeEvent::RpcReady) when it serves, and ends after
/// `RpcMail::Drain`.
///
/// # Errors
/// The system gives no thread. Later failures come as [`NodeEvent::Failed`](crate::shard::NodeEvent::Failed).
pub fn spawn(start: RpcStart) -> io::Result<JoinHandle<()>> {
    let seat = Seat { name: format!("rpc{}", start.id.0), cpu: start.cpu, driver: start.driver };
    let events = start.events.clone();
    spawn_on(seat, events, |turns| run::run(start, turns))
}

/// Builds a SO_REUSEPORT listener for gRPC or HTTP, dual stack when the address is `::`.
///
/// # Errors
/// The address is in use, is not ours, or its port needs a privilege.
pub fn bind_listener(address: SocketAddr) -> io::Result<TcpListener> {
    let family = match address {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(family, SocketType::STREAM, flags, None)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    sockopt::set_socket_reuseport(&socket, true)?;
    if address.is_ipv6() {
        sockopt::set_ipv6_v6only(&socket, !address.ip().is_unspecified())?;
    }
    // Inherited by accepted sockets: a peer that vanished must not keep its place for ever.
    sockopt::set_socket_keepalive(&socket, true)?;
    sockopt::set_tcp_keepidle(&socket, Duration::from_millis(KEEP_ALIVE_MS))?;
    sockopt::set_tcp_keepintvl(&socket, Duration::from_millis(KEEP_ALIVE_MS))?;
    sockopt::set_tcp_user_timeout(&socket, TCP_USER_TIMEOUT_MS)?;
    sockopt::set_tcp_nodelay(&socket, true)?;
    bind(&socket, &address)?;
    listen(&socket, i32::try_from(LISTEN_QUEUE_MAX).unwrap_or(i32::MAX))?;
    Ok(TcpListener::from(socket))
}

#[cfg(test)]
mod tests;
