//! A gRPC channel: calls from one rpc thread to the instances of one upstream service (spec 5.1, 6.5).
//!
//! ```text
//! call -> Entry (bounds, deadline) -> Queue (if nobody has room) -> Rotation (who) -> Link (a stream) -> answer
//!                                                                      ^ keeper: connects, drives, connects again
//! ```
//!
//! As grpc-go with `round_robin` and without wait-for-ready: plain text, one HTTP/2 connection per instance, made as
//! soon as the instance is known; a call that finds no instance fails at once with 14. What OpenIM's clients lack is
//! added: every call has a deadline and ends there whatever the peer does, everything is bounded, an instance that
//! answers nobody is left alone for a while.
//!
//! Not here: which service and which instances (who owns the channel knows), messages and their encoding, metrics
//! (see [`ChannelCounts`]).
//!
//! What always holds: no task of a channel is left when it is dropped and its connections have said goodbye; a call
//! whose future is dropped resets its stream; nothing is sent more than twice, and nothing more than once that may
//! have been carried out unless it is [`Retry::Safe`].

mod attempt;
pub(super) mod backoff;
mod breaker;
mod counts;
mod fault;
mod keeper;
mod link;
mod queue;
mod rotation;

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::task::Waker;

use bytes::Bytes;

use crate::limits;
use crate::shard::clock;
use crate::time::Mono;
use crate::wire::grpc::{CallFault, Retry};
use attempt::Entry;
use breaker::Rule;
use queue::Queue;
use rotation::{Pick, Rotation};

pub use super::budget::Ration;
pub use counts::ChannelCounts;

/// What a channel is made with.
#[derive(Clone, Debug)]
pub struct ChannelPlan {
    /// The service, as errors and the log name it: `openim.auth.Auth`.
    pub service: Box<str>,
    /// Of the jitter of reconnects; differs between threads and services.
    pub seed: u64,
    /// [`ChannelLimits::DEFAULT`], but for tests.
    pub limits: ChannelLimits,
}

/// The bounds of a channel. What happens at each stands with its default in `limits`.
#[derive(Clone, Copy, Debug)]
pub struct ChannelLimits {
    /// Default `CHANNEL_CALLS_MAX`.
    pub calls_max: usize,
    /// Default `CHANNEL_WAITING_MAX`.
    pub waiting_max: usize,
    /// Default `CHANNEL_HELD_BYTES`.
    pub held_bytes: usize,
    /// Default `CHANNEL_STREAMS_MAX`.
    pub streams_max: usize,
    /// Default `CHANNEL_CONNECT_MS`.
    pub connect_ms: u64,
    /// Default `CHANNEL_PING_AFTER_MS`.
    pub ping_after_ms: u64,
    /// Default `CHANNEL_PING_MS`.
    pub ping_ms: u64,
    /// Default `CHANNEL_BACKOFF_LEAST_MS`.
    pub backoff_least_ms: u64,
    /// Default `CHANNEL_BACKOFF_MS`.
    pub backoff_ms: u64,
    /// Default `CHANNEL_STEADY_MS`.
    pub steady_ms: u64,
    /// Default `CHANNEL_FAILURES_MAX`.
    pub failures_max: u32,
    /// Default `CHANNEL_COOL_DOWN_MS`.
    pub cool_down_ms: u64,
}

impl ChannelLimits {
    /// What holds in production.
    pub const DEFAULT: Self = Self {
        calls_max: limits::CHANNEL_CALLS_MAX,
        waiting_max: limits::CHANNEL_WAITING_MAX,
        held_bytes: limits::CHANNEL_HELD_BYTES,
        streams_max: limits::CHANNEL_STREAMS_MAX,
        connect_ms: limits::CHANNEL_CONNECT_MS,
        ping_after_ms: limits::CHANNEL_PING_AFTER_MS,
        ping_ms: limits::CHANNEL_PING_MS,
        backoff_least_ms: limits::CHANNEL_BACKOFF_LEAST_MS,
        backoff_ms: limits::CHANNEL_BACKOFF_MS,
        steady_ms: limits::CHANNEL_STEADY_MS,
        failures_max: limits::CHANNEL_FAILURES_MAX,
        cool_down_ms: limits::CHANNEL_COOL_DOWN_MS,
    };
}

/// One unary call.
#[derive(Clone, Debug)]
pub struct Call {
    /// `/package.Service/Method`.
    pub path: &'static str,
    /// Keys in lower case; values are sent as they are, so only printable ASCII can be (spec 6.1).
    pub metadata: Vec<(&'static str, Box<str>)>,
    /// The encoded request, at most `GRPC_MESSAGE_BYTES_MAX`; longer: status 8, nothing is sent.
    pub message: Bytes,
    /// When it ends at the latest, by the clock of `shard::clock`; past: [`CallFault::Deadline`] at once. The server is
    /// told. At most some 27 hours away, which is what `grpc-timeout` can say.
    pub deadline: Mono,
    /// Whether a second attempt is allowed after a broken connection.
    pub retry: Retry,
}

/// See the module's documentation. It lives on the thread that made it, inside that thread's runtime.
pub struct Channel {
    inner: Rc<Inner>,
}

/// What calls and keepers share.
struct Inner {
    service: Box<str>,
    seed: u64,
    limits: ChannelLimits,
    ration: Rc<Ration>,
    state: RefCell<State>,
}

struct State {
    rotation: Rotation,
    queue: Queue,
    /// Without the numbers that [`Channel::counts`] puts in.
    counts: ChannelCounts,
}

impl Channel {
    /// A channel without instances. `ration` is what the connections of the thread may read in a turn, together.
    pub fn new(plan: ChannelPlan, ration: Rc<Ration>) -> Self {
        let ChannelPlan { service, seed, limits } = plan;
        let rule = Rule { failures_max: limits.failures_max, cool_down_ms: limits.cool_down_ms };
        let state = State {
            rotation: Rotation::new(rule),
            queue: Queue::default(),
            counts: ChannelCounts::default(),
        };
        Self { inner: Rc::new(Inner { service, seed, limits, ration, state: RefCell::new(state) }) }
    }

    /// Takes a new snapshot of the instances, whole. Those that are new are connected to; those that stay keep their
    /// connection; those that are gone get no new calls, finish what they have, and are closed. At most
    /// `CHANNEL_INSTANCES_MAX` are taken.
    pub fn set_endpoints(&self, addresses: &[SocketAddr]) {
        let taken = &addresses[..addresses.len().min(limits::CHANNEL_INSTANCES_MAX)];
        if taken.len() < addresses.len() {
            let (service, left_out) = (&self.inner.service, addresses.len() - taken.len());
            tracing::warn!(%service, left_out, "more instances than a channel takes");
        }
        let (joined, gone) = self.inner.change(|state, _| state.rotation.replace(taken));
        for stop in gone {
            stop.ring();
        }
        for instance in joined {
            monoio::spawn(keeper::keep(Rc::clone(&self.inner), instance));
        }
    }

    /// Makes a call.
    ///
    /// # Errors
    /// See [`CallFault`].
    ///
    /// # Cancel safety
    /// Dropped, the call is cancelled: its stream is reset, its place is free. It may have been carried out.
    pub async fn call(&self, call: Call) -> Result<Bytes, CallFault> {
        let entry = Entry::new(&self.inner, &call)?;
        let result = entry.run(&call).await;
        entry.finish(result)
    }

    /// Its counts, as of now.
    pub fn counts(&self) -> ChannelCounts {
        let state = self.inner.state.borrow();
        ChannelCounts {
            ready: state.rotation.ready_len(clock::now().mono),
            instances: state.rotation.len(),
            waiting: state.queue.len(),
            ..state.counts
        }
    }
}

impl Drop for Channel {
    /// Ends its tasks; no call is open, since each borrows the channel.
    fn drop(&mut self) {
        self.set_endpoints(&[]);
    }
}

impl Inner {
    /// Changes the state, and gives places that became free to those who wait for them.
    fn change<T>(&self, change: impl FnOnce(&mut State, Mono) -> T) -> T {
        let now = clock::now().mono;
        let mut state = self.state.borrow_mut();
        let result = change(&mut state, now);
        let mut wakers: Vec<Waker> = Vec::new();
        while let Some(avoid) = state.queue.first() {
            let given = match state.rotation.pick(now, avoid) {
                Pick::Go(grant) => Ok(grant),
                Pick::Out => Err(self.outage(&state)),
                Pick::Wait => break,
            };
            wakers.extend(state.queue.give(given));
        }
        drop(state);
        wakers.into_iter().for_each(Waker::wake);
        result
    }

    fn outage(&self, state: &State) -> CallFault {
        CallFault::Unavailable(format!("{}: {}", self.service, state.rotation.outage()).into())
    }
}
