//! All sessions of one shard: registry, queues, login policy, dispatch, push, presence. Pure: takes `now`, values and
//! bytes; gives effects and frames.
//!
//! Call order of one turn: `input` / `accepted` / `bytes` for what came in, [`Hub::turn`] once, then drain
//! [`Hub::next_effect`] and [`Hub::next_flush`] (for each: [`Hub::fill`], send, [`Hub::sent`]). While
//! [`Hub::has_work`] the next turn must not wait.
#![deny(clippy::indexing_slicing, clippy::iter_over_hash_type, clippy::expect_used)]

pub mod conversation;
pub mod mail;
pub mod upstream;

use std::net::SocketAddr;

use crate::ids::{ConnId, RpcTicket, ShardId};
use crate::metrics::Tally;
use crate::session::handshake::Login;
use crate::time::{Mono, Now};
use crate::wire::frame::Frame;
use mail::{RpcOutcome, ShardMail};
use upstream::{PresenceRecord, UpstreamCall, UpstreamReply};

/// What a hub is told at start; plain numbers.
#[derive(Clone, Debug)]
pub struct HubConfig {
    /// Its own name, for the calls it makes.
    pub shard: ShardId,
    /// Slab bound.
    pub connections_max: u32,
    /// 0, 1, 4 or 5 (spec 8.2).
    pub login_policy: u8,
    /// See `limits::OUTBOX_BYTES_MAX`.
    pub outbox_bytes_max: usize,
    /// See `limits::OUTBOX_FRAMES_MAX`.
    pub outbox_frames_max: usize,
    /// See `limits::SHARD_OUTBOX_BYTES_MAX`.
    pub shard_outbox_bytes_max: usize,
    /// Keyed hashing of user ids: drawn at start, given in tests.
    pub hash_seed: u64,
}

/// A connection whose head was accepted, now on its owner shard.
#[derive(Clone, Debug)]
pub struct Accepted {
    /// TCP address of the client.
    pub peer: SocketAddr,
    /// Its arguments.
    pub login: Box<Login>,
}

/// Everything that can happen to a hub besides bytes.
#[derive(Debug)]
pub enum Input {
    /// The socket is closed and joined; nothing of it is in flight any more. Frees the slot.
    TransportClosed(ConnId),
    /// The peer is gone (EOF, reset) but the socket is still open. The session ends; answered by `Effect::Close`.
    TransportLost(ConnId),
    /// From an rpc thread.
    Mail(ShardMail),
    /// From upstream.
    UpstreamReply(UpstreamReply),
    /// At least every `limits::TICK_MS`.
    Tick,
    /// Close all sessions, paced, the rest at the deadline. `deadline <= now`: at once.
    Drain(Mono),
}

/// What the shard must do.
#[derive(Debug)]
pub enum Effect {
    /// Three-step close: shutdown, join in-flight operations, close the descriptor, then `Input::TransportClosed`.
    /// The outbox was flushed, or its deadline passed. Exactly once per connection.
    Close(ConnId),
    /// To the rpc thread (embedded or OpenIM).
    Call(Box<UpstreamCall>),
    /// To the rpc thread that asked.
    Reply(RpcTicket, Box<RpcOutcome>),
}

/// Frames for one send; owned clones, so that an engine with completions can keep them while the kernel reads.
#[derive(Debug, Default)]
pub struct SendBatch {
    /// In order.
    pub frames: Vec<Frame>,
    /// Bytes of the first frame that were sent before.
    pub skip: usize,
}

/// See the module's documentation. The real one is being written; this is its surface.
#[derive(Debug)]
pub struct Hub {
    config: HubConfig,
}

impl Hub {
    pub fn new(config: HubConfig) -> Self {
        Self { config }
    }
    /// Takes over a connection. `None`: the slab is full (answer 503, close).
    pub fn accepted(&mut self, now: Now, accepted: Accepted) -> Option<ConnId> {
        let _ = (now, accepted, &self.config);
        todo!()
    }
    /// Feeds one input.
    pub fn input(&mut self, now: Now, input: Input) {
        let _ = (now, input);
        todo!()
    }
    /// Feeds received bytes (unmasked in place). A stale id is ignored.
    pub fn bytes(&mut self, now: Now, conn: ConnId, bytes: &mut [u8]) {
        let _ = (now, conn, bytes);
        todo!()
    }
    /// Bounded work of one turn: queues (unregister, kicks, registers), push slices, waiting requests.
    pub fn turn(&mut self, now: Now) {
        let _ = now;
        todo!()
    }
    /// Work is left that needs no further input.
    pub fn has_work(&self) -> bool {
        todo!()
    }
    /// The next effect, in order.
    pub fn next_effect(&mut self) -> Option<Effect> {
        todo!()
    }
    /// The next connection that has something to send (each once until it has been filled again).
    pub fn next_flush(&mut self) -> Option<ConnId> {
        todo!()
    }
    /// Fills `batch` (cleared first) with waiting frames of `conn`; returns the bytes to send (0: nothing).
    pub fn fill(&mut self, conn: ConnId, batch: &mut SendBatch) -> usize {
        let _ = (conn, batch);
        todo!()
    }
    /// `n` bytes of the last fill were sent (0: the socket is full, the engine will come back when it is writable).
    pub fn sent(&mut self, now: Now, conn: ConnId, n: usize) {
        let _ = (now, conn, n);
        todo!()
    }
    /// The next presence record, computed when it is taken (a dirty set, not a queue of events).
    pub fn next_presence(&mut self) -> Option<PresenceRecord> {
        todo!()
    }
    /// Sessions not yet freed. Drained when 0.
    pub fn connections(&self) -> usize {
        todo!()
    }
    /// Updates the gauges and gives the counts.
    pub fn tally(&mut self, now: Now) -> &mut Tally {
        let _ = now;
        todo!()
    }
}
