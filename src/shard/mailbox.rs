//! Bounded mailboxes between threads: crossbeam channels plus an eventfd doorbell.

use std::net::{SocketAddr, TcpListener, TcpStream};

use crate::hub::mail::{RpcOutcome, ShardMail};
use crate::hub::upstream::{PresenceRecord, UpstreamCall, UpstreamReply};
use crate::ids::{RpcTicket, ShardId};
use crate::session::handshake::Login;
use crate::time::Mono;

/// The control lane of a shard.
#[derive(Debug)]
pub enum Control {
    /// For the hub.
    Hub(ShardMail),
    /// Start accepting on this listener.
    Listen(TcpListener),
    /// Stop accepting (accept until EAGAIN first), answer what is in flight, close all by the deadline, then end.
    Drain(Mono),
    /// Test switch (`--plant-stall`): busy-loop for so many milliseconds.
    Stall(u64),
}

/// A connection that changes shards before its 101, when nothing is in flight.
#[derive(Debug)]
pub struct HandOver {
    /// The socket.
    pub socket: TcpStream,
    /// TCP address of the client.
    pub peer: SocketAddr,
    /// Its arguments.
    pub login: Box<Login>,
}

/// Mail for an rpc thread.
#[derive(Debug)]
pub enum RpcMail {
    /// A question of a shard (its reply slot is reserved).
    Call(Box<UpstreamCall>),
    /// A verdict for a ticket (its slot is reserved).
    Outcome {
        shard: ShardId,
        ticket: RpcTicket,
        outcome: Box<RpcOutcome>,
    },
    /// Presence of a user changed (the shard keeps it dirty until there is room).
    Presence(Box<PresenceRecord>),
    /// End: GOAWAY, finish open calls until the deadline, then end the thread.
    Drain(Mono),
}

/// How others reach a shard. Cheap to clone. Never blocks.
#[derive(Clone, Debug)]
pub struct ShardAddress {}

/// A shard's own end.
#[derive(Debug)]
pub struct ShardInbox {}

/// How shards and main reach an rpc thread. Cheap to clone. Never blocks.
#[derive(Clone, Debug)]
pub struct RpcAddress {}

/// An rpc thread's own end.
#[derive(Debug)]
pub struct RpcInbox {}

/// Builds both ends for a shard.
pub fn shard_mailbox() -> std::io::Result<(ShardAddress, ShardInbox)> {
    todo!()
}
/// Builds both ends for an rpc thread that serves `shards` shards.
pub fn rpc_mailbox(shards: u16) -> std::io::Result<(RpcAddress, RpcInbox)> {
    let _ = shards;
    todo!()
}

impl ShardAddress {
    /// Replies lane. The asking shard reserved the slot, so there is room; a full lane is a broken invariant (assert).
    pub fn reply(&self, reply: UpstreamReply) {
        let _ = reply;
        todo!()
    }
    /// Control lane. Full: the mail comes back (UNAVAILABLE for the caller).
    pub fn control(&self, control: Control) -> Result<(), Control> {
        let _ = control;
        todo!()
    }
    /// Push lane. Full: the mail comes back (not reached).
    pub fn push(&self, mail: ShardMail) -> Result<(), ShardMail> {
        let _ = mail;
        todo!()
    }
    /// Hand-over lane. Full: the socket comes back (503).
    pub fn hand_over(&self, hand_over: HandOver) -> Result<(), Box<HandOver>> {
        let _ = hand_over;
        todo!()
    }
}

impl RpcAddress {
    /// Posts to the lane that the kind of mail belongs to (outcomes never overflow: the slot is reserved).
    pub fn post(&self, mail: RpcMail) -> Result<(), RpcMail> {
        let _ = mail;
        todo!()
    }
}
