//! The sockets of one shard, behind one face: bytes in, frames out, close.
//!
//! Two engines do it. `task.rs`: one lean task per connection waits for readiness, then the loop reads and sends.
//! `ring.rs`: an own io_uring with multishot receives into shared buffers and sends in batches. The interface is
//! shaped for completions: an engine hands in bytes and tells what was sent; nothing above it may assume that it can
//! read or write. Not here: accepting, and everything about sessions.
//!
//! A turn of the owner: [`Engine::serve`], then any number of [`Engine::flush`] and [`Engine::close`], then
//! [`Engine::submit`]. Only after that it may wait for the nudge.

mod outgoing;
mod pool;
mod probe;
mod ring;
mod task;
mod uring;

use std::io;
use std::os::fd::BorrowedFd;
use std::rc::Rc;

pub use probe::probe_ring_engine;
use ring::RingEngine;
use task::TaskEngine;

use super::nudge::Nudge;
use super::socket::Socket;
use super::transform::Transform;
use crate::hub::SendBatch;
use crate::ids::ConnId;

/// What is above an engine: the hub.
pub trait Upper {
    /// Received bytes, in order. May be changed in place.
    fn bytes(&mut self, conn: ConnId, bytes: &mut [u8]);
    /// The peer is gone; said once. The socket stays until [`Engine::close`].
    fn lost(&mut self, conn: ConnId);
    /// The last word about a connection: nothing is in flight, its descriptor is closed.
    fn closed(&mut self, conn: ConnId);
    /// Fills the batch with what is to be sent; 0 bytes: nothing.
    fn fill(&mut self, conn: ConnId, batch: &mut SendBatch) -> usize;
    /// Of the last fill so many bytes are on their way; the rest will be asked for again.
    fn sent(&mut self, conn: ConnId, bytes: usize);
}

/// Which engine moves the bytes of clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EngineKind {
    /// An own io_uring.
    Ring,
    /// A lean task per connection, on monoio's readiness.
    Task,
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Engine<T>(Kind<T>);

#[derive(Debug)]
enum Kind<T> {
    Ring(Box<RingEngine<T>>),
    Task(TaskEngine<T>),
}

/// What is the same for every connection of an engine, and what a connection is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Life {
    Open,
    /// The peer is gone and the hub was told.
    Lost,
    /// Shut down; what is in flight is being joined.
    Closing,
}

/// Encoded bytes that a socket did not take yet. Only behind a transform that does not pass through.
#[derive(Debug, Default)]
struct Encoded {
    wire: Vec<u8>,
    sent: usize,
    /// Bytes of frames that `wire` stands for.
    frames: usize,
}

impl<T: Transform> Engine<T> {
    /// An engine without sockets. It rings `nudge` when [`Engine::serve`] has something to do.
    ///
    /// # Errors
    /// The kernel refuses the ring (probe it first: [`probe_ring_engine`]), or the process is out of descriptors.
    pub fn new(kind: EngineKind, nudge: Nudge) -> io::Result<Self> {
        Ok(Self(match kind {
            EngineKind::Ring => Kind::Ring(Box::new(RingEngine::new(nudge)?)),
            EngineKind::Task => Kind::Task(TaskEngine::new(nudge)),
        }))
    }

    /// Takes over a socket under the id that the hub gave it, and waits for its bytes.
    ///
    /// # Panics
    /// The hub gave the id of a slot that is not closed yet, or somebody else holds the socket: a broken invariant of
    /// the shard.
    pub fn adopt(&mut self, conn: ConnId, socket: Rc<Socket>) {
        match &mut self.0 {
            Kind::Ring(ring) => ring.adopt(conn, socket),
            Kind::Task(task) => task.adopt(conn, socket),
        }
    }

    /// Serves what the sockets have for us, up to a budget. Returns whether more is waiting already.
    #[must_use = "what waits already does not ring the nudge"]
    pub fn serve(&mut self, upper: &mut impl Upper) -> bool {
        match &mut self.0 {
            Kind::Ring(ring) => ring.serve(upper),
            Kind::Task(task) => task.serve(upper),
        }
    }

    /// Sends what the hub has for a connection, at the latest with [`Engine::submit`]. While its socket is full this
    /// does nothing: what waits is sent when there is room.
    pub fn flush(&mut self, conn: ConnId, upper: &mut impl Upper) {
        match &mut self.0 {
            Kind::Ring(ring) => ring.flush(conn, upper),
            Kind::Task(task) => task.flush(conn, upper),
        }
    }

    /// Lets everything leave that was asked for in this turn, and tells what was sent. Returns whether something came
    /// meanwhile: then do not wait for the nudge.
    #[must_use = "what came meanwhile does not ring the nudge"]
    pub fn submit(&mut self, upper: &mut impl Upper) -> bool {
        match &mut self.0 {
            Kind::Ring(ring) => ring.submit(upper),
            Kind::Task(_) => false,
        }
    }

    /// First step of three: no more bytes either way, which ends what is in flight. That is joined, the descriptor is
    /// closed, and [`Upper::closed`] is said, at once if nothing is in flight.
    pub fn close(&mut self, conn: ConnId, upper: &mut impl Upper) {
        match &mut self.0 {
            Kind::Ring(ring) => ring.close(conn, upper),
            Kind::Task(task) => task.close(conn, upper),
        }
    }

    /// Hands in no more bytes of a connection, once those are handed in that the kernel has given up already, so that
    /// its peer finds the window closing. The peer's end may not be seen either.
    pub fn pause(&mut self, conn: ConnId) {
        match &mut self.0 {
            Kind::Ring(ring) => ring.pause(conn),
            Kind::Task(task) => task.pause(conn),
        }
    }

    /// Ends [`Engine::pause`]. What has come meanwhile is handed in by [`Engine::serve`].
    pub fn resume(&mut self, conn: ConnId) {
        match &mut self.0 {
            Kind::Ring(ring) => ring.resume(conn),
            Kind::Task(task) => task.resume(conn),
        }
    }

    /// The socket of a connection, for its options.
    pub fn socket(&self, conn: ConnId) -> Option<BorrowedFd<'_>> {
        match &self.0 {
            Kind::Ring(ring) => ring.socket(conn),
            Kind::Task(task) => task.socket(conn),
        }
    }

    /// Sockets that are not closed.
    pub fn sockets(&self) -> usize {
        match &self.0 {
            Kind::Ring(ring) => ring.sockets(),
            Kind::Task(task) => task.sockets(),
        }
    }

    /// Sends since the last time: calls of sendmsg, or operations of the ring.
    pub fn take_sends(&mut self) -> u64 {
        match &mut self.0 {
            Kind::Ring(ring) => ring.take_sends(),
            Kind::Task(task) => task.take_sends(),
        }
    }
}

impl std::fmt::Display for EngineKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Ring => "ring",
            Self::Task => "task",
        })
    }
}
