//! The mailbox of an rpc thread: what shards answer and ask. Some lanes and one doorbell, as for a shard.
//!
//! Not here: how many mails are taken in a turn. What always holds: nobody waits here; a lane keeps the order of each
//! sender. The lanes, in the order in which they are read:
//!
//! - *control*: drain, and news of the main thread. Full: the mail comes back.
//! - *outcomes*: verdicts. A call takes its ticket (at most `RPC_CALLS_MAX` of one thread) before it is mailed, so
//!   `RPC_CALLS_MAX` slots per shard hold one answer to every open call. Pushes that are answered in parts may need
//!   more: the mail comes back, and its shard keeps it until there is room (`outcomes.rs`).
//! - *cluster*: what shards tell the node's router; read by thread 0. Full: the news come back, and their shard keeps
//!   them, in order (`cluster.rs`). Nobody sends any while the node is alone.
//! - *calls*: questions with a reply slot. A shard has at most `CALLS_IN_FLIGHT_MAX` of them, so as many slots per
//!   shard hold them all.
//! - *notices*: calls for which nobody waits (token invalidation). Full: the mail comes back, to be dropped.
//! - *news*: of the control thread, read by thread 0. Full: they come back, and the control thread keeps them.
//! - *presence*: full: the record comes back; ask [`RpcAddress::presence_has_room`] before taking one out of the hub.
//!
//! A question's slot is kept until its reply has come, so the second proof holds.
//!
//! Memory, per shard that is served: 512 KiB of outcomes (24 + 8 bytes each) and 128 KiB of calls (8 + 8 bytes), once
//! per rpc thread; beside it about 150 KiB. Calls and presence go to rpc thread 0 only, but all threads are alike.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam_channel::{Receiver, Sender, bounded};

use super::bell::EventBell;
use super::doorbell::{Doorbell, Inlet};
use super::mailbox::{count, next};
use super::orders::MainNews;
use crate::control::news::News;
use crate::hub::cluster::ClusterNews;
use crate::hub::mail::RpcOutcome;
use crate::hub::upstream::{PresenceRecord, UpstreamCall};
use crate::ids::{RpcTicket, ShardId};
use crate::limits;
use crate::metrics::{Metric, Tally};
use crate::time::Mono;

/// Mail for an rpc thread.
#[derive(Debug)]
pub enum RpcMail {
    /// A question of a shard (its reply slot is reserved, or nobody waits).
    Call(Box<UpstreamCall>),
    /// A verdict for a ticket (its slot is reserved).
    Outcome {
        /// Who answers.
        shard: ShardId,
        /// What is answered.
        ticket: RpcTicket,
        /// The answer.
        outcome: Box<RpcOutcome>,
    },
    /// What a shard tells the node's router (the shard keeps it until there is room).
    Cluster(Box<ClusterNews>),
    /// Presence of a user changed (the shard keeps it dirty until there is room).
    Presence(Box<PresenceRecord>),
    /// What the control thread tells.
    News(Box<News>),
    /// From the main thread.
    Main(Box<MainNews>),
    /// End: GOAWAY, finish open calls until the deadline, then end the thread.
    Drain(Mono),
}

/// [`RpcMail::Outcome`] as it lies in its lane.
#[derive(Debug)]
struct Verdict {
    shard: ShardId,
    ticket: RpcTicket,
    outcome: Box<RpcOutcome>,
}

const _: () = assert!(size_of::<RpcMail>() <= 32);
const _: () = assert!(size_of::<Verdict>() <= 24);

/// What the main thread sends.
#[derive(Debug)]
enum FromMain {
    News(Box<MainNews>),
    Drain(Mono),
}

/// How shards and main reach an rpc thread. Cheap to clone. Never blocks.
#[derive(Clone, Debug)]
pub struct RpcAddress {
    post: Arc<RpcPost>,
}

/// An rpc thread's own end. Dropping it drops what waits; later mail comes back to its sender.
#[derive(Debug)]
pub struct RpcInbox {
    control: Receiver<FromMain>,
    outcomes: Receiver<Verdict>,
    cluster: Receiver<Box<ClusterNews>>,
    calls: Receiver<Box<UpstreamCall>>,
    notices: Receiver<Box<UpstreamCall>>,
    news: Receiver<Box<News>>,
    presence: Receiver<Box<PresenceRecord>>,
    post: Arc<RpcPost>,
}

/// What senders and reader share.
#[derive(Debug)]
struct RpcPost {
    control: Sender<FromMain>,
    outcomes: Sender<Verdict>,
    cluster: Sender<Box<ClusterNews>>,
    calls: Sender<Box<UpstreamCall>>,
    notices: Sender<Box<UpstreamCall>>,
    news: Sender<Box<News>>,
    presence: Sender<Box<PresenceRecord>>,
    doorbell: Doorbell<EventBell>,
    /// Mails refused and lost; not among them what its shard keeps: presence, outcomes, news for the router.
    refused: AtomicU64,
}

/// Builds both ends for an rpc thread that serves `shards` shards.
///
/// # Errors
/// The process is out of descriptors.
pub fn rpc_mailbox(shards: u16) -> io::Result<(RpcAddress, RpcInbox)> {
    let shards = usize::from(shards);
    let (control_sender, control) = bounded(limits::RPC_CONTROL_LANE_MAX);
    let (outcome_sender, outcomes) = bounded(shards * limits::RPC_CALLS_MAX as usize);
    let (cluster_sender, cluster) = bounded(limits::CLUSTER_LANE_MAX);
    let (call_sender, calls) = bounded(shards * limits::CALLS_IN_FLIGHT_MAX as usize);
    let (notice_sender, notices) = bounded(limits::NOTICE_LANE_MAX);
    let (news_sender, news) = bounded(limits::NEWS_LANE_MAX);
    let (presence_sender, presence) = bounded(limits::PRESENCE_LANE_MAX);
    let post = Arc::new(RpcPost {
        control: control_sender,
        outcomes: outcome_sender,
        cluster: cluster_sender,
        calls: call_sender,
        notices: notice_sender,
        news: news_sender,
        presence: presence_sender,
        doorbell: Doorbell::new(EventBell::new()?),
        refused: AtomicU64::new(0),
    });
    let address = RpcAddress { post: Arc::clone(&post) };
    Ok((address, RpcInbox { control, outcomes, cluster, calls, notices, news, presence, post }))
}

impl RpcAddress {
    /// Posts to the lane that the kind of mail belongs to.
    ///
    /// # Errors
    /// The mail, if its lane is full or the thread has ended. What the sender does with it: the module's
    /// documentation. Never waits.
    pub fn post(&self, mail: RpcMail) -> Result<(), RpcMail> {
        let post = &self.post;
        let bell = &post.doorbell;
        let sent = match mail {
            RpcMail::Outcome { shard, ticket, outcome } => {
                return bell.send(&post.outcomes, Verdict { shard, ticket, outcome }).map_err(RpcMail::from);
            }
            RpcMail::Cluster(news) => return bell.send(&post.cluster, news).map_err(RpcMail::Cluster),
            RpcMail::Presence(record) => {
                return bell.send(&post.presence, record).map_err(RpcMail::Presence);
            }
            RpcMail::News(news) => return bell.send(&post.news, news).map_err(RpcMail::News),
            RpcMail::Main(news) => bell.send(&post.control, FromMain::News(news)).map_err(RpcMail::from),
            RpcMail::Drain(deadline) => {
                bell.send(&post.control, FromMain::Drain(deadline)).map_err(RpcMail::from)
            }
            RpcMail::Call(call) => {
                let lane = if call.ticket.is_some() { &post.calls } else { &post.notices };
                bell.send(lane, call).map_err(RpcMail::Call)
            }
        };
        sent.inspect_err(|_| count(&post.refused))
    }

    /// An outcome came back and is given up.
    pub fn count_lost(&self) {
        count(&self.post.refused);
    }

    /// Whether a presence record would be taken now. Another shard may be faster: keep a record that comes back.
    pub fn presence_has_room(&self) -> bool {
        !self.post.presence.is_full()
    }
}

impl RpcInbox {
    /// The oldest mail of the first lane that has one; the order of the lanes is in the module's documentation. How
    /// many are taken before other work gets its turn is the caller's business.
    pub fn next(&self) -> Option<RpcMail> {
        let control = || next(&self.control).map(RpcMail::from);
        control()
            .or_else(|| next(&self.outcomes).map(RpcMail::from))
            .or_else(|| next(&self.cluster).map(RpcMail::Cluster))
            .or_else(|| next(&self.calls).map(RpcMail::Call))
            .or_else(|| next(&self.notices).map(RpcMail::Call))
            .or_else(|| next(&self.news).map(RpcMail::News))
            .or_else(|| next(&self.presence).map(RpcMail::Presence))
    }

    /// As [`super::mailbox::ShardInbox::prepare_sleep`].
    #[must_use]
    pub fn prepare_sleep(&self) -> bool {
        self.post.doorbell.prepare_sleep(self)
    }

    /// As [`super::mailbox::ShardInbox::woken`].
    pub fn woken(&self) {
        self.post.doorbell.woken();
        self.post.doorbell.bell().silence();
    }

    /// As [`super::mailbox::ShardInbox::doorbell_fd`].
    ///
    /// # Errors
    /// The process is out of descriptors.
    pub fn doorbell_fd(&self) -> io::Result<OwnedFd> {
        self.post.doorbell.bell().descriptor()
    }

    /// Mails waiting, over all lanes.
    pub fn depth(&self) -> usize {
        self.control.len()
            + self.outcomes.len()
            + self.cluster.len()
            + self.calls.len()
            + self.notices.len()
            + self.news.len()
            + self.presence.len()
    }

    /// Writes what the lanes refused into the thread's counts.
    pub fn publish(&self, tally: &mut Tally) {
        tally.set(Metric::LaneRpcFull, self.post.refused.load(Ordering::Relaxed));
    }
}

impl Inlet for RpcInbox {
    fn is_empty(&self) -> bool {
        self.control.is_empty()
            && self.outcomes.is_empty()
            && self.cluster.is_empty()
            && self.calls.is_empty()
            && self.notices.is_empty()
            && self.news.is_empty()
            && self.presence.is_empty()
    }
}

impl From<Verdict> for RpcMail {
    fn from(verdict: Verdict) -> Self {
        let Verdict { shard, ticket, outcome } = verdict;
        Self::Outcome { shard, ticket, outcome }
    }
}

impl From<FromMain> for RpcMail {
    fn from(mail: FromMain) -> Self {
        match mail {
            FromMain::News(news) => Self::Main(news),
            FromMain::Drain(deadline) => Self::Drain(deadline),
        }
    }
}

#[cfg(test)]
#[path = "rpc_mailbox_tests.rs"]
mod tests;
