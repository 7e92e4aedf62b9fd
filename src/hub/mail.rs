//! Mail between the rpc threads and the shards: plain data, moved, never shared.
//!
//! A verdict slot is reserved (an [`RpcTicket`]) before a mail that wants an answer is sent.

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::hub::cluster::ClusterMail;
use crate::hub::policy::HubPolicy;
use crate::hub::sight::Sight;
use crate::hub::upstream::UserPlatforms;
use crate::ids::{Platform, RpcTicket, SourceId, Text};
use crate::time::Mono;
use crate::wire::envelope::Variant;

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
    /// Control lane: what the hub goes by from now on.
    Policy(Box<HubPolicy>),
    /// Control lane: from the node's router.
    Cluster(Box<ClusterMail>),
}

impl ShardMail {
    /// Where its answer goes, if it has one.
    pub fn ticket(&self) -> Option<RpcTicket> {
        match self {
            Self::Push(push) => push.ticket,
            Self::Kick(kick) => Some(kick.ticket),
            Self::RemoteLogin(login) => Some(login.ticket),
            Self::OnlineStatus(status) => Some(status.ticket),
            Self::Look(look) => Some(look.ticket),
            Self::PresenceNews(_) | Self::CancelPush(_) | Self::Policy(_) | Self::Cluster(_) => None,
        }
    }
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
    /// To whom.
    pub audience: Audience,
    /// How, and what is reported when.
    pub rules: PushRules,
}

/// Who gets a push, as one shard sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Audience {
    /// These users, in the order of the request, duplicates kept.
    Listed(Vec<Recipient>),
    /// Every user with a connection on this shard when the push is taken up.
    Everybody,
}

impl Audience {
    /// The listed users; none for [`Audience::Everybody`].
    pub fn listed(&self) -> &[Recipient] {
        match self {
            Self::Listed(recipients) => recipients,
            Self::Everybody => &[],
        }
    }

    /// Both are lists of that many entries, or neither is a list.
    pub(super) fn is_as_long_as(&self, other: &Self) -> bool {
        matches!(self, Self::Everybody) == matches!(other, Self::Everybody)
            && self.listed().len() == other.listed().len()
    }

    /// The user in a place of the list.
    pub(super) fn user_at(&self, place: u32) -> Option<&Text> {
        self.listed().get(place as usize).map(|recipient| &recipient.user)
    }
}

/// The options of a push (`pinion.v1.PushMessage`). The default is OpenIM's push.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PushRules {
    /// What is answered, and when a verdict is final.
    pub report: Report,
    /// Do not queue behind what a send has left behind, and do not wait for an absent user.
    pub only_if_online: bool,
    /// A frame that is not written by then is taken out of its outbox again, and an absent user is waited for until
    /// then, unless `only_if_online`, or [`Report::Queued`] or nobody wants the verdict. `None`: no limit for the
    /// former, no waiting for the latter.
    pub expires: Option<Mono>,
}

/// Which verdicts a push wants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Report {
    /// One verdict per recipient, final when the frame is in the outbox; all in one answer (OpenIM).
    #[default]
    Queued,
    /// One verdict per recipient, final when the kernel has the frame or never will; in parts as they become known.
    Each,
    /// As `Each`, but only the totals are answered.
    Totals,
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
    /// Frames by [`Variant::index`] that the rpc thread built because they are large (`SHARED_FRAME_BYTES`); a variant
    /// that is missing is built by the shard.
    pub frames: Option<Arc<SharedFrames>>,
}

/// Large frames, built once for all shards.
pub type SharedFrames = [Option<Bytes>; Variant::COUNT];

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
    /// Who judges it.
    #[serde(default)]
    pub judge: Judge,
}

/// Who applies the login policy to a login elsewhere.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Judge {
    /// The shard that hears of it.
    #[default]
    Shard,
    /// The user's home: it was at a node of this cluster, whose nodes tell each other (routing-protocol.md section 7).
    /// If the shard did so as well, the auth service would be told twice.
    Home,
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
    /// To [`ShardMail::Push`].
    Push(PushPart),
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

/// Verdicts of one push that became final. Recipients without one in any part were not reached (deadline, cancel).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PushPart {
    /// Empty for [`Report::Totals`].
    pub verdicts: Vec<RecipientVerdict>,
    /// With the last part: over all parts of this shard.
    pub totals: Totals,
    /// No more parts come from this shard. [`Report::Queued`] has one part only.
    pub last: bool,
}

/// What became of one user.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecipientVerdict {
    /// Which.
    pub who: Who,
    /// One per connection of the user, in registration order; empty if the user has none here.
    pub devices: Vec<DeviceVerdict>,
    /// Nobody came within [`PushRules::expires`]; only with no devices.
    pub expired: bool,
}

impl PushPart {
    /// The only part of an answer.
    pub fn whole(verdicts: Vec<RecipientVerdict>) -> Self {
        Self { verdicts, totals: Totals::default(), last: true }
    }
}

impl RecipientVerdict {
    /// Of a listed user.
    pub fn of_slot(slot: u32, devices: Vec<DeviceVerdict>) -> Self {
        Self { who: Who::Slot(slot), devices, expired: false }
    }
}

/// Names a user in a verdict.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Who {
    /// [`Recipient::slot`] of a listed user.
    Slot(u32),
    /// A user of [`Audience::Everybody`].
    User(Text),
}

/// How many devices, and where noted users, met with each outcome.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// Users that were looked at.
    pub users: u32,
    /// Devices.
    pub written: u32,
    /// Devices.
    pub queued: u32,
    /// Devices.
    pub dropped: u32,
    /// Devices.
    pub kicked: u32,
    /// Devices, and users that did not come in time.
    pub expired: u32,
    /// Users.
    pub not_here: u32,
    /// Devices.
    pub background: u32,
    /// Devices.
    pub too_large: u32,
    /// Shards that did not get through all users of a push to everybody.
    pub cut_short: u32,
}

impl Totals {
    /// Counts a device.
    pub fn count(&mut self, outcome: DeviceOutcome) {
        let sum = match outcome {
            DeviceOutcome::Written => &mut self.written,
            DeviceOutcome::Queued => &mut self.queued,
            DeviceOutcome::Dropped => &mut self.dropped,
            DeviceOutcome::Kicked => &mut self.kicked,
            DeviceOutcome::Expired => &mut self.expired,
            DeviceOutcome::TooLarge => &mut self.too_large,
            DeviceOutcome::Background => &mut self.background,
        };
        *sum = sum.saturating_add(1);
    }

    /// Adds another shard's.
    pub fn add(&mut self, other: Self) {
        let pairs = [
            (&mut self.users, other.users),
            (&mut self.written, other.written),
            (&mut self.queued, other.queued),
            (&mut self.dropped, other.dropped),
            (&mut self.kicked, other.kicked),
            (&mut self.expired, other.expired),
            (&mut self.not_here, other.not_here),
            (&mut self.background, other.background),
            (&mut self.too_large, other.too_large),
            (&mut self.cut_short, other.cut_short),
        ];
        for (sum, more) in pairs {
            *sum = sum.saturating_add(more);
        }
    }
}

/// What became of the push on one connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceVerdict {
    /// Names the connection to other nodes: [`super::cluster::ConnNumber`].
    #[serde(default)]
    pub number: u64,
    /// Of the connection.
    pub platform: Platform,
    /// MD5 as in [`DeviceStatus::connection_id`].
    pub connection_id: [u8; 16],
    /// What happened.
    pub outcome: DeviceOutcome,
}

/// What happened to a push on one connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DeviceOutcome {
    /// The kernel has all its bytes. OpenIM result code 0.
    Written,
    /// In the outbox, in order. OpenIM result code 0.
    Queued,
    /// The outbox overflowed, or was not empty for a push that may not wait, or the connection ended first. OpenIM
    /// result code 1603.
    Dropped,
    /// The connection was kicked first. OpenIM result code 1603.
    Kicked,
    /// Taken out of the outbox again: [`PushRules::expires`]. OpenIM result code 1603.
    Expired,
    /// The frame is above the SDKs' read limit: not sent. OpenIM result code 1603.
    TooLarge,
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
    /// When it logged in, by the order of all nodes ([`super::cluster::Key::time`]); 0: this node is alone.
    #[serde(default)]
    pub time: u64,
}
