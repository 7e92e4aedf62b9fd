//! What decides the load: one [`Script`] per thread. `lua` makes one from a file, `builtin` is the one without.
//!
//! The engine calls it; it returns [`Operation`]s. Not here: how operations are carried out and timed.

use std::time::Duration;

/// What a connection does next.
#[derive(Clone, Debug, PartialEq)]
pub enum Operation {
    /// Sends this as one WebSocket message. Answered by the next message of the connection.
    Message { data: Vec<u8>, kind: MessageKind },
    /// Sends an envelope (OpenIM): `reqIdentifier` and its protobuf data; the rest is filled in. Answered by its reply.
    Request { identifier: i32, data: Vec<u8> },
    /// Sends a text message of so many bytes to a user (OpenIM 1003); the send time is inside. Answered by its reply;
    /// the receiver's delivery is timed as a push.
    Chat { to: String, bytes: usize },
    /// Pushes a message with the send time inside over gRPC. Answered by the call's answer. Deliveries are timed by
    /// whichever connection receives them.
    Push { users: Vec<String>, bytes: usize },
    /// `POST` with the send time wherever the body has [`MARK`], over one kept connection per thread (nchan's way to
    /// publish). Answered by a 2xx.
    Post { address: std::net::SocketAddr, path: String, body: Vec<u8> },
    /// Closes and logs in again. Answered by the 101 (OpenIM with `isMsgResp`: its first frame).
    Reconnect { how: Ending },
    /// Stops reading for so long, with a receive buffer of 64 KiB from then on: a slow reader. Answered when it reads
    /// again.
    Stall { milliseconds: u64 },
    /// Nothing this time: closed loop asks again after `delay`, or 100 ms without one.
    Idle,
}

/// How a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// A close frame, then the socket.
    Close,
    /// The socket alone, as a lost client does.
    Drop,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MessageKind {
    Text,
    Binary,
}

/// Replaced, wherever it stands in a message, a post or a script's payload, by [`MARK_PREFIX`] and 16 hexadecimal
/// digits: the time at which the operation was due, `CLOCK_MONOTONIC` in ns. Whoever receives the prefix takes the
/// latency from it (one delivery). As long as what replaces it.
pub const MARK: &[u8] = b"@@pinion-time@@------";
/// See [`MARK`].
pub const MARK_PREFIX: &[u8] = b"~due:";
const _: () = assert!(MARK.len() == MARK_PREFIX.len() + 16);

/// The connection a hook is called for.
#[derive(Clone, Debug)]
pub struct Conn<'a> {
    /// From 0, over all threads and processes.
    pub number: usize,
    /// Its user's name; empty without OpenIM.
    pub user: &'a str,
    /// How often it has been connected, from 1.
    pub login: u64,
}

/// Which hooks a script has: those it has not are not called.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hooks {
    pub connected: bool,
    pub request: bool,
    pub delay: bool,
    pub message: bool,
    pub response: bool,
    pub closed: bool,
}

/// One thread's script. Errors are for the user: file, line and what was wrong; the run ends with them. A hook
/// that [`Script::hooks`] denies is not called; those with a body here need not be written then.
pub trait Script {
    fn hooks(&self) -> Hooks;
    /// After each login. What it returns is sent at once and not timed.
    fn connected(&mut self, _conn: &Conn<'_>) -> Result<Vec<Operation>, String> {
        Ok(Vec::new())
    }
    /// What to do now.
    fn request(&mut self, conn: &Conn<'_>) -> Result<Operation, String>;
    /// Closed loop: pause before the next operation of this connection.
    fn delay(&mut self, _conn: &Conn<'_>) -> Result<Duration, String> {
        Ok(Duration::ZERO)
    }
    /// Each message that arrives and is not the answer to an operation; OpenIM: the push's or frame's envelope,
    /// decoded. What it returns is sent at once and not timed.
    fn message(&mut self, _conn: &Conn<'_>, _message: &Incoming<'_>) -> Result<Vec<Operation>, String> {
        Ok(Vec::new())
    }
    /// Each answer.
    fn response(&mut self, _conn: &Conn<'_>, _message: &Incoming<'_>) -> Result<(), String> {
        Ok(())
    }
    /// The connection ended by the server, or failed. `true`: log in again (the engine waits for `delay` first).
    fn closed(&mut self, conn: &Conn<'_>, code: u16, reason: &str) -> Result<bool, String>;
}

/// A message or answer as hooks see it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Incoming<'a> {
    /// OpenIM: `reqIdentifier`; else 0.
    pub identifier: i32,
    /// OpenIM: `errCode`; gRPC and HTTP: the status; else 0.
    pub code: i32,
    /// OpenIM: `errMsg`, else empty.
    pub error: &'a str,
    /// OpenIM: the data, inflated; else the message.
    pub data: &'a [u8],
}
