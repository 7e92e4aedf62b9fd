//! Mail between the rpc threads and the shards: plain data, moved, never shared.
//!
//! A verdict slot is reserved (an [`RpcTicket`]) before a mail that wants an answer is sent.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::hub::sight::Sight;
use crate::hub::upstream::UserPlatforms;
use crate::ids::{Platform, RpcTicket, SourceId, Text};
use crate::time::Mono;

/// What an rpc thread sends to a shard. Replies to upstream calls travel on a lane of their own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ShardMail {
    /// Push lane.
    Push(Box<PushMail>),
    /// Push lane: where users are online now, for local subscribers (2005). Nobody waits.
    PresenceNews(Box<UserPlatforms>),
    /// Control lane: the caller is gone; recipients not served yet are not served.
    CancelPush(RpcTicket),
    /// Control lane.
    Kick(Box<KickMail>),
    /// Control lane.
    RemoteLogin(Box<RemoteLoginMail>),
    /// Control lane.
    OnlineStatus(Box<OnlineStatusMail>),
    /// Control lane.
    Look(Box<LookMail>),
}

/// One push to those of its recipients that this shard owns.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PushMail {
    /// Where the verdict goes; `None` if nobody waits (the embedded backend's own pushes).
    pub ticket: Option<RpcTicket>,
    /// Pushes of one source stay in order.
    pub source: SourceId,
    /// Recipients not served until then get no verdict: they were not reached.
    pub deadline: Mono,
    /// What is pushed.
    pub body: PushBody,
    /// To whom, in the order of the request, duplicates kept.
    pub recipients: Vec<Recipient>,
}

/// What is pushed: `MsgData` stays the raw bytes of the request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PushBody {
    /// Metadata of the push RPC, echoed in the frame (spec 3.3).
    pub operation_id: Text,
    /// The conversation key of the frame (spec 3.3); empty for unknown session types.
    pub conversation: Box<str>,
    /// The serialized `sdkws.MsgData`.
    pub msg_data: Bytes,
}

impl PushBody {
    /// Keys that begin with `n_` travel in `notificationMsgs` (spec 3.3).
    pub fn is_notification(&self) -> bool {
        self.conversation.starts_with("n_")
    }
}

/// One requested user of a push.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recipient {
    /// Position in the request: the verdict names it, not the user.
    pub slot: u32,
    /// The user.
    pub user: Text,
}

/// `KickUserOffline` for the users that this shard owns (spec 4.5).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KickMail {
    /// Where the answer goes: when it is there, no matching connection is registered any more.
    pub ticket: RpcTicket,
    /// On this platform.
    pub platform: Platform,
    /// Whose connections.
    pub users: Vec<Text>,
}

/// `MultiTerminalLoginCheck` (spec 4.6): the user logged in on another gateway.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemoteLoginMail {
    /// Where the answer goes.
    pub ticket: RpcTicket,
    /// Metadata of the RPC, for calls made on its behalf.
    pub operation_id: Text,
    /// Who logged in.
    pub user: Text,
    /// Where.
    pub platform: Platform,
    /// With which token: connections with the same one are not kicked.
    pub token: Text,
}

/// `GetUsersOnlineStatus` for the users that this shard owns (spec 4.4).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OnlineStatusMail {
    /// Where the answer goes.
    pub ticket: RpcTicket,
    /// Which users, with their position in the request.
    pub users: Vec<Recipient>,
}

/// An operator's question about a user that this shard owns.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LookMail {
    /// Where the answer goes.
    pub ticket: RpcTicket,
    /// Whom it is about.
    pub user: Text,
    /// The question.
    pub look: Look,
}

/// What an operator asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Look {
    /// Which connections there are.
    Who,
    /// Note events from now on.
    Follow {
        /// For so long.
        for_ms: u64,
    },
    /// Which events were noted.
    Page {
        /// From this one on; what the last answer gave as `next`.
        cursor: u64,
    },
}

/// What a shard answers to an rpc thread.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RpcOutcome {
    /// To [`ShardMail::Push`]: one verdict for each recipient that was served; the others were not reached (deadline,
    /// cancel).
    Push(Vec<RecipientVerdict>),
    /// To [`ShardMail::Kick`]: how many connections were ended.
    Kicked {
        /// Connections.
        connections: u32,
    },
    /// To [`ShardMail::RemoteLogin`].
    RemoteLogin,
    /// To [`ShardMail::OnlineStatus`]: only users with at least one connection.
    OnlineStatus(Vec<UserStatus>),
    /// To [`ShardMail::Look`].
    Sight(Sight),
}

/// What became of one requested user.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecipientVerdict {
    /// [`Recipient::slot`].
    pub slot: u32,
    /// One per connection of the user, in registration order; empty if the user has none here.
    pub devices: Vec<DeviceVerdict>,
}

/// What became of the push on one connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceVerdict {
    /// Of the connection.
    pub platform: Platform,
    /// What happened.
    pub outcome: DeviceOutcome,
}

/// What happened to a push on one connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DeviceOutcome {
    /// In the outbox, in order. OpenIM result code 0.
    Queued,
    /// The outbox overflowed, or the frame is above the SDKs' read limit. OpenIM result code 1603.
    Dropped,
    /// iOS in the background: not sent (spec 4.3). OpenIM result code 1604.
    Background,
}

/// Connections of one user (spec 4.4).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserStatus {
    /// [`Recipient::slot`].
    pub slot: u32,
    /// One per connection, in registration order.
    pub devices: Vec<DeviceStatus>,
}

/// One connection in a [`UserStatus`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceStatus {
    /// Its platform.
    pub platform: Platform,
    /// Lower-case hex MD5 (spec 1.2).
    pub connection_id: Box<str>,
    /// Set by request 2004.
    pub background: bool,
    /// The token it logged in with.
    pub token: Box<str>,
}
