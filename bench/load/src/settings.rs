//! What a run is asked to do, checked. The command line makes it; nothing here is text any more.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// One run. Serialised to hand it to the processes that share it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Settings {
    /// Where clients connect, in turn. Names are resolved before.
    pub targets: Vec<Target>,
    /// `-t`: threads that hold connections, over all processes.
    pub threads: usize,
    /// `-c`: connections, over all threads.
    pub connections: usize,
    /// `-d`: how long is measured, after all connections are up.
    pub duration: Duration,
    /// `-R`: operations per second over all connections, at fixed times (open loop). `None`: each connection's next
    /// operation begins when the last one is answered and the script's `delay` is over (closed loop).
    pub rate: Option<f64>,
    /// `--timeout`: an operation without its answer is an error of the kind `timeout` after this.
    pub timeout: Duration,
    /// `-H`: headers of the handshake.
    pub headers: Vec<(String, String)>,
    pub protocol: Protocol,
    /// OpenIM only.
    pub users: Users,
    /// Where pushes go: a gateway's gRPC port. `None`: the script may not push.
    pub push: Option<SocketAddr>,
    /// `Authorization: Bearer` of pushes.
    pub push_token: Option<String>,
    /// `--ramp`: new connections per second over all threads while connecting. `None`: as fast as they come, at most
    /// `connecting` at once.
    pub ramp: Option<f64>,
    /// Handshakes in flight per thread.
    pub connecting: usize,
    /// Source addresses to connect from, in turn (`--sources 127.0.0.2-127.0.0.9`). Empty: the system's choice, and for
    /// loopback targets as many of 127.0.0.0/8 as ports ask for.
    pub sources: Vec<std::net::IpAddr>,
    /// Heartbeat of each connection: a ping of the protocol's (spec 1.9), spread evenly. `None`: none.
    pub ping: Option<Duration>,
    /// `--processes`. `None`: as many as the file limit asks for.
    pub processes: Option<usize>,
    /// Processes whose CPU time and memory the report shows (server under test; several for a pair).
    pub server_pids: Vec<u32>,
    /// CPUs of the load threads. Empty: not pinned.
    pub cpus: Vec<usize>,
    /// The Lua script and its arguments (what follows `--` on the command line). `None`: the built-in: a connection
    /// that only holds, or echoes for [`Protocol::Raw`].
    pub script: Option<PathBuf>,
    pub script_arguments: Vec<String>,
    /// `io_uring` or `epoll` for the load threads.
    pub driver: Driver,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    pub address: SocketAddr,
    /// For the `Host` header.
    pub host: String,
    /// With query. OpenIM's arguments are added to it.
    pub path: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Protocol {
    /// OpenIM's login, envelopes, kicks and pushes (spec 1-3).
    OpenIm { encoding: Encoding, gzip: bool },
    /// WebSocket messages as the script makes them. An operation's answer is the next message of its connection.
    Raw,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Encoding {
    /// The native SDKs'.
    Gob,
    /// The JavaScript SDK's.
    Json,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Driver {
    /// io_uring if the kernel lets us, else epoll.
    Auto,
    IoUring,
    Epoll,
}

/// Who logs in. The user of connection `n` (from 0, over all processes) has the number `first + n / per_user` and the
/// name `prefix` + that number with at least six digits.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Users {
    pub prefix: String,
    pub first: usize,
    /// Connections per user: on platforms `platform`, `platform + 1`, ...
    pub per_user: usize,
    pub platform: i32,
    /// On so many platforms, and then from `platform` on again: fewer than `per_user`, and a user's connections kick
    /// each other. 0: as many as `per_user`.
    pub platforms: usize,
    pub tokens: Tokens,
}

/// Where tokens come from.
#[derive(Clone, Serialize, Deserialize)]
pub enum Tokens {
    /// Made here from OpenIM's secret (spec 7.1).
    Secret(String),
    /// A file with lines `USER PLATFORM TOKEN`, or `USER TOKEN` for any platform.
    File(PathBuf),
    /// `POST /auth/get_user_token` of OpenIM's API (`/user/user_register` before, where `register`).
    Api { url: String, secret: String, register: bool },
}

impl std::fmt::Debug for Tokens {
    /// Without the secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Secret(_) => "Secret",
            Self::File(_) => "File",
            Self::Api { .. } => "Api",
        })
    }
}
