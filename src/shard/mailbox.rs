//! The mailbox of a shard: four bounded lanes and one doorbell.
//!
//! Not here: the wake-up protocol (`doorbell.rs`), the mailbox of an rpc thread (`rpc_mailbox.rs`, re-exported), and
//! how many mails are taken in a turn (the loop's business). What always holds: nobody waits here, neither the sender
//! nor the reader; a lane keeps the order of each sender; what a lane refuses is counted in the mailbox by the sender
//! and published by the reader.
//!
//! A crossbeam lane is allocated and touched when it is built: 8 bytes per slot beside the mail. A shard's mailbox
//! takes 512 KiB (replies) + 32 KiB (control) + 96 KiB (push) + 56 KiB (hand-over), about 0.7 MiB. The mails are kept
//! small by boxes; the asserts below hold that. One caveat of crossbeam: a reader that meets a slot which its sender
//! has taken but not yet filled spins until that sender runs again.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};

use super::bell::EventBell;
use super::doorbell::{Doorbell, Inlet, Outlet};
use crate::admission::AddressPlace;
use crate::config::policy::ShardPolicy;
use crate::hub::drain::Pace;
use crate::hub::mail::ShardMail;
use crate::hub::upstream::UpstreamReply;
use crate::limits;
use crate::metrics::{Metric, Tally};
use crate::session::handshake::Login;
use crate::time::Mono;

pub use super::rpc_mailbox::{RpcAddress, RpcInbox, RpcMail, rpc_mailbox};

/// The control lane of a shard.
#[derive(Debug)]
pub enum Control {
    /// For the hub.
    Hub(ShardMail),
    /// Start accepting on this listener.
    Listen(TcpListener),
    /// Stop accepting (accept until EAGAIN first), answer what is in flight, close all by the deadline, then end.
    Drain(Mono),
    /// Stop accepting likewise, and close connections at this pace; there is no deadline, and the thread goes on.
    Evict(Pace),
    /// The end of [`Control::Evict`]: the next [`Control::Listen`] lets clients in again.
    Serve,
    /// Accept on this listener, too: the address of another node, known by this number.
    Adopt(u16, TcpListener),
    /// The end of [`Control::Adopt`]: the listener is closed, after who waits in its queue was let in.
    GiveBack(u16),
    /// Go by this from now on.
    Policy(Box<ShardPolicy>),
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
    /// Where the client is, which a proxy may have told (port 0: not known).
    pub client: SocketAddr,
    /// The place of that address under its limit; the receiver gives it back.
    pub address: Option<AddressPlace>,
    /// Its arguments.
    pub login: Box<Login>,
}

// A lane holds its mails by value, so a large one is paid for by every slot.
const _: () = assert!(size_of::<UpstreamReply>() <= 64);
const _: () = assert!(size_of::<Control>() <= 32);
const _: () = assert!(size_of::<ShardMail>() <= 16);
const _: () = assert!(size_of::<HandOver>() <= 88);

/// Mails waiting in each lane of a shard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LaneDepths {
    /// Replies to the shard's upstream calls.
    pub replies: usize,
    /// Kicks, views, drain.
    pub control: usize,
    /// Pushes.
    pub push: usize,
    /// Connections from other shards.
    pub hand_over: usize,
}

/// How others reach a shard. Cheap to clone. Never blocks.
#[derive(Clone, Debug)]
pub struct ShardAddress {
    post: Arc<ShardPost>,
}

/// A shard's own end. Dropping it drops what waits; later mail comes back to its sender.
#[derive(Debug)]
pub struct ShardInbox {
    replies: Receiver<UpstreamReply>,
    control: Receiver<Control>,
    push: Receiver<ShardMail>,
    hand_over: Receiver<HandOver>,
    post: Arc<ShardPost>,
}

/// What senders and reader share.
#[derive(Debug)]
struct ShardPost {
    replies: Sender<UpstreamReply>,
    control: Sender<Control>,
    push: Sender<ShardMail>,
    hand_over: Sender<HandOver>,
    doorbell: Doorbell<EventBell>,
    /// Mails that each lane did not take: counted by the senders, published by the reader.
    refused: Refused,
}

#[derive(Debug, Default)]
struct Refused {
    replies: AtomicU64,
    control: AtomicU64,
    push: AtomicU64,
    hand_over: AtomicU64,
}

/// Builds both ends for a shard.
///
/// # Errors
/// The process is out of descriptors.
pub fn shard_mailbox() -> io::Result<(ShardAddress, ShardInbox)> {
    let (reply_sender, replies) = bounded(limits::CALLS_IN_FLIGHT_MAX as usize);
    let (control_sender, control) = bounded(limits::CONTROL_LANE_MAX);
    let (push_sender, push) = bounded(limits::PUSH_LANE_MAX);
    let (hand_over_sender, hand_over) = bounded(limits::HAND_OVER_LANE_MAX);
    let post = Arc::new(ShardPost {
        replies: reply_sender,
        control: control_sender,
        push: push_sender,
        hand_over: hand_over_sender,
        doorbell: Doorbell::new(EventBell::new()?),
        refused: Refused::default(),
    });
    let address = ShardAddress { post: Arc::clone(&post) };
    Ok((address, ShardInbox { replies, control, push, hand_over, post }))
}

impl ShardAddress {
    /// Replies lane. The asking shard reserved the slot and keeps it until the reply comes, however late, so there is
    /// room unless a ticket is answered twice. Such a surplus is dropped and counted: it can only be a repetition.
    pub fn reply(&self, reply: UpstreamReply) {
        if self.post.doorbell.send(&self.post.replies, reply).is_err() {
            count(&self.post.refused.replies);
        }
    }

    /// Control lane. Full: the mail comes back (UNAVAILABLE for the caller).
    pub fn control(&self, control: Control) -> Result<(), Control> {
        let post = &self.post;
        post.doorbell.send(&post.control, control).inspect_err(|_| count(&post.refused.control))
    }

    /// Push lane. Full: the mail comes back (not reached).
    pub fn push(&self, mail: ShardMail) -> Result<(), ShardMail> {
        let post = &self.post;
        post.doorbell.send(&post.push, mail).inspect_err(|_| count(&post.refused.push))
    }

    /// Hand-over lane. Full: the socket comes back (503).
    pub fn hand_over(&self, hand_over: HandOver) -> Result<(), Box<HandOver>> {
        let post = &self.post;
        let sent = post.doorbell.send(&post.hand_over, hand_over);
        sent.inspect_err(|_| count(&post.refused.hand_over)).map_err(Box::new)
    }

    /// Mails waiting in each lane, as seen from outside: for the watcher of a shard that cannot say it itself.
    pub fn depths(&self) -> LaneDepths {
        LaneDepths {
            replies: self.post.replies.len(),
            control: self.post.control.len(),
            push: self.post.push.len(),
            hand_over: self.post.hand_over.len(),
        }
    }
}

/// The loop reads the lanes in the order of these functions, each with its own budget per turn.
impl ShardInbox {
    /// The oldest reply.
    pub fn next_reply(&self) -> Option<UpstreamReply> {
        next(&self.replies)
    }

    /// The oldest control mail.
    pub fn next_control(&self) -> Option<Control> {
        next(&self.control)
    }

    /// The oldest push.
    pub fn next_push(&self) -> Option<ShardMail> {
        next(&self.push)
    }

    /// The oldest handed-over connection.
    pub fn next_hand_over(&self) -> Option<HandOver> {
        next(&self.hand_over)
    }

    /// Announces sleep. `true`: nothing waits, poll the doorbell now, then call [`ShardInbox::woken`]. `false`: mail
    /// waits; the shard is still awake. Read all lanes first, since mail left in one always gives `false`.
    #[must_use]
    pub fn prepare_sleep(&self) -> bool {
        self.post.doorbell.prepare_sleep(self)
    }

    /// Call it after every wait, whatever ended it: senders stop ringing, and the doorbell is unreadable again. A
    /// doorbell left readable would turn the next wait into a busy loop (platform.md rule 2).
    pub fn woken(&self) {
        self.post.doorbell.woken();
        self.post.doorbell.bell().silence();
    }

    /// A descriptor of the doorbell's eventfd, to be owned by the runtime and polled for readability (never read from:
    /// [`ShardInbox::woken`] does that). Take it once.
    ///
    /// # Errors
    /// The process is out of descriptors.
    pub fn doorbell_fd(&self) -> io::Result<OwnedFd> {
        self.post.doorbell.bell().descriptor()
    }

    /// Mails waiting in each lane.
    pub fn depths(&self) -> LaneDepths {
        LaneDepths {
            replies: self.replies.len(),
            control: self.control.len(),
            push: self.push.len(),
            hand_over: self.hand_over.len(),
        }
    }

    /// Writes the depths of the lanes and what they refused into the shard's counts.
    pub fn publish(&self, tally: &mut Tally) {
        let (depths, refused) = (self.depths(), &self.post.refused);
        tally.set(Metric::LaneRepliesDepth, depths.replies as u64);
        tally.set(Metric::LaneControlDepth, depths.control as u64);
        tally.set(Metric::LanePushDepth, depths.push as u64);
        tally.set(Metric::LaneHandOverDepth, depths.hand_over as u64);
        tally.set(Metric::LaneRepliesFull, refused.replies.load(Ordering::Relaxed));
        tally.set(Metric::LaneControlFull, refused.control.load(Ordering::Relaxed));
        tally.set(Metric::LanePushFull, refused.push.load(Ordering::Relaxed));
        tally.set(Metric::LaneHandOverFull, refused.hand_over.load(Ordering::Relaxed));
    }
}

impl Inlet for ShardInbox {
    fn is_empty(&self) -> bool {
        self.replies.is_empty()
            && self.control.is_empty()
            && self.push.is_empty()
            && self.hand_over.is_empty()
    }
}

impl<T> Outlet for Sender<T> {
    type Mail = T;

    fn push(&self, mail: T) -> Result<(), T> {
        self.try_send(mail).map_err(TrySendError::into_inner)
    }
}

/// One more mail was refused.
pub(super) fn count(refused: &AtomicU64) {
    refused.fetch_add(1, Ordering::Relaxed);
}

/// The oldest mail of a lane. The inbox holds a sender of each lane, so "empty" is the only other answer.
pub(super) fn next<T>(lane: &Receiver<T>) -> Option<T> {
    lane.try_recv().ok()
}

#[cfg(test)]
#[path = "mailbox_tests.rs"]
mod tests;
