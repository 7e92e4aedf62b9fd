//! The threads of `pinion proxy`: bring a client that knows one address to his home node, and move the bytes of both.
//!
//! Each thread has its own listener (SO_REUSEPORT), its own epoll and its own pairs; `run` is its loop, `pair` what
//! it knows of a client, `deadlines` when it looks at one, `door` who is let in, `opening` the way from accept to the
//! answer of a member, `relay` and `pipes` move bytes, `routes` says which members serve a user in which order,
//! `members` keeps that up to date from a list, or by what the control thread tells. Epoll and not io_uring: readiness
//! is all that a mover of bytes needs, an idle pair then costs no operation in flight and no task, and it is the same
//! where io_uring is denied. Nothing is parsed behind the head of the request.
//!
//! Not here: signals, operators and the order of the start (`node/proxy`).

mod deadlines;
mod door;
pub mod members;
mod opening;
mod pair;
mod pipes;
mod relay;
pub mod routes;
mod run;

use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, Sender, bounded};

use self::routes::Routes;
use crate::admission::Admission;
use crate::limits::PROXY_ORDERS_MAX;
use crate::metrics::proxy::ProxyBlock;
use crate::shard::Buffers;
use crate::shard::bell::EventBell;
use crate::shard::doorbell::Bell as _;
use crate::time::Mono;
use crate::wire::proxy::Version;

/// How bytes are moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Relay {
    /// By copying, and by splice for who fills the buffer.
    Auto,
    /// Always through a pipe.
    Splice,
    /// Always through the buffer.
    Copy,
}

/// What all threads go by.
#[derive(Debug)]
pub struct Plan {
    /// Pairs of the process and of an address.
    pub admission: Admission,
    /// How bytes are moved.
    pub relay: Relay,
    /// What a member is told about the client before the head.
    pub header: Option<Version>,
    /// Of all sockets.
    pub buffers: Buffers,
    /// The request head must be there after so long.
    pub head_ms: u64,
    /// A member must take the connection within so long.
    pub connect_ms: u64,
    /// ... and say something within so long.
    pub answer_ms: u64,
    /// A pair of which one side has ended is closed when it moves nothing for so long.
    pub half_closed_ms: u64,
}

/// What a thread is told.
#[derive(Debug)]
pub enum Order {
    /// Serve by these from now on; who is connected stays.
    Route(Arc<Routes>),
    /// Accept nobody any more; close who is left at this moment. May come again with an earlier one.
    Drain(Mono),
}

/// What a thread is started with.
#[derive(Debug)]
pub struct ThreadStart {
    /// From 0.
    pub number: usize,
    /// Its listener.
    pub listener: TcpListener,
    /// The first routes.
    pub routes: Arc<Routes>,
    /// What all go by.
    pub plan: Arc<Plan>,
}

/// A thread that runs. It ends when it was told to drain and has no client left.
#[derive(Debug)]
pub struct ProxyThread {
    orders: Sender<Order>,
    bell: Arc<EventBell>,
    /// What it counts.
    pub block: Arc<ProxyBlock>,
    thread: JoinHandle<()>,
}

/// The thread's end of its orders.
#[derive(Debug)]
struct Inbox {
    orders: Receiver<Order>,
    bell: Arc<EventBell>,
}

impl ProxyThread {
    /// Starts a thread.
    ///
    /// # Errors
    /// The system gives no thread or no descriptors.
    pub fn start(start: ThreadStart) -> io::Result<Self> {
        let (orders, inbox) = bounded(PROXY_ORDERS_MAX);
        let bell = Arc::new(EventBell::new()?);
        let block = Arc::new(ProxyBlock::default());
        let inbox = Inbox { orders: inbox, bell: Arc::clone(&bell) };
        let name = format!("proxy-{}", start.number);
        let run = run::Run::new(start, inbox, Arc::clone(&block))?;
        let thread = std::thread::Builder::new().name(name).spawn(move || run.run())?;
        Ok(Self { orders, bell, block, thread })
    }

    /// Tells it something.
    ///
    /// # Errors
    /// The order: too many wait. Try again.
    pub fn tell(&self, order: Order) -> Result<(), Order> {
        self.orders.try_send(order).map_err(crossbeam_channel::TrySendError::into_inner)?;
        self.bell.ring();
        Ok(())
    }

    /// Whether it has ended.
    pub fn has_ended(&self) -> bool {
        self.thread.is_finished()
    }
}
