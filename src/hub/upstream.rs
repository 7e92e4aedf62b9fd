//! Questions to OpenIM's services (or to the embedded backend, which answers the same questions) and their answers.
//!
//! A shard reserves the reply slot before it asks, so a reply always has room. The hub owns the deadline: a reply
//! that comes later finds a stale ticket and is dropped.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::cluster::TokenMarks;
use crate::ids::{CallTicket, Platform, ShardId};
use crate::time::Mono;

/// One question of one shard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpstreamCall {
    /// Where the reply goes.
    pub shard: ShardId,
    /// The reserved reply slot; `None` if nobody waits (token invalidation).
    pub ticket: Option<CallTicket>,
    /// After this the answer is of no use to anybody.
    pub deadline: Mono,
    /// What travels in the call's headers (spec 6.1).
    pub metadata: CallMetadata,
    /// The question.
    pub request: UpstreamRequest,
}

/// gRPC metadata of a call on behalf of a connection (spec 6.1).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallMetadata {
    /// `operationid`.
    pub operation_id: Box<str>,
    /// `opuserid`.
    pub user: Box<str>,
    /// `platform`. Whether a call shows it depends on the call and on the version (`backend::openim::calls`).
    pub platform: Platform,
    /// `connid`.
    pub connection_id: Box<str>,
}

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum UpstreamRequest {
    /// `auth.parseToken`. Answer: [`UpstreamOutcome::Token`].
    ParseToken {
        /// As the client sent it.
        token: Box<str>,
    },
    /// A client's request, its protobuf untouched. Answer: [`UpstreamOutcome::Data`].
    Forward {
        /// Which RPC.
        method: Method,
        /// The envelope's `Data`; for [`Method::SendMsg`] this is the bare `MsgData` (spec 3.1).
        data: Bytes,
    },
    /// `auth.invalidateToken` after a kick under policies 1 and 5. Nobody waits.
    InvalidateToken {
        /// The login that stays.
        preserved: Box<str>,
        /// Whose tokens.
        user: Box<str>,
        /// Of this platform.
        platform: Platform,
    },
    /// `auth.kickTokens` after a kick under policy 4. Nobody waits.
    KickTokens {
        /// Exactly these.
        tokens: Vec<Box<str>>,
    },
    /// The embedded backend of another node has ended tokens. Nobody waits; OpenIM's services are not asked.
    MarkTokens(TokenMarks),
    /// `msggateway.MultiTerminalLoginCheck` of every other gateway, after a login here (spec 4.6). Nobody waits.
    LoginElsewhere {
        /// The login's token.
        token: Box<str>,
    },
    /// `user.getUserStatus` for a presence subscription (2005). Answer: [`UpstreamOutcome::Statuses`].
    UserStatus {
        /// In the order of the answer, duplicates kept.
        users: Vec<Box<str>>,
    },
}

/// The RPC behind a request identifier (spec 3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Method {
    /// 1001, `/openim.msg.msg/GetMaxSeq`.
    GetMaxSeq,
    /// 1002, `/openim.msg.msg/PullMessageBySeqs`.
    PullMessageBySeqs,
    /// 1003, `/openim.msg.msg/SendMsg`.
    SendMsg,
    /// 1004, `/openim.msg.msg/SendMsg` with an empty request: always an error (spec trap 23).
    SendSignalMsg,
    /// 1005, `/openim.msg.msg/GetSeqMessage`.
    GetSeqMessage,
    /// 1006, `/openim.msg.msg/GetConversationsHasReadAndMaxSeq`.
    GetConversationsHasReadAndMaxSeq,
    /// 1007, `/openim.msg.msg/GetLastMessage`.
    GetLastMessage,
    /// 2003, `/openim.push.PushMsgService/DelUserPushToken`.
    DelUserPushToken,
}

/// The answer to one question.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpstreamReply {
    /// Of the question.
    pub ticket: CallTicket,
    /// What was answered.
    pub outcome: UpstreamOutcome,
}

/// What was answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum UpstreamOutcome {
    /// The token is good and names this user and platform id.
    Token {
        /// `UserID` claim.
        user: Box<str>,
        /// `PlatformID` claim.
        platform: i32,
    },
    /// The reply's protobuf, passed through as it came.
    Data(Bytes),
    /// Platforms of each asked user, in the order asked; empty = offline.
    Statuses(Vec<UserPlatforms>),
    /// Refused or failed.
    Failed(UpstreamError),
}

/// Where one user is online.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserPlatforms {
    /// The user.
    pub user: Box<str>,
    /// Platform ids; empty = offline.
    pub platforms: Vec<i32>,
}

/// An OpenIM error as the client will see it (spec 6.4, 7.5).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpstreamError {
    /// `errCode`.
    pub code: i32,
    /// `errMsg`.
    pub message: Box<str>,
    /// `errDlt`: shown at the handshake only. Never holds a token.
    pub detail: Box<str>,
}

impl UpstreamError {
    /// 500 `ServerInternalError` (spec 7.5).
    pub fn internal() -> Self {
        Self { code: 500, message: "ServerInternalError".into(), detail: "".into() }
    }

    /// 1001 `ArgsError` with a detail (spec 7.5).
    pub fn args(detail: &str) -> Self {
        Self { code: 1001, message: "ArgsError".into(), detail: detail.into() }
    }
}

/// What a user's connections on this shard look like now, after a change (spec 9.1). Level-triggered: it says what
/// is, and which platforms have gone since the last record.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PresenceRecord {
    /// The user.
    pub user: Box<str>,
    /// Platform ids of all remaining connections, with duplicates.
    pub online: Vec<i32>,
    /// Platform ids of removed connections.
    pub offline: Vec<i32>,
    /// Platform ids of logins since the last record, and where the newest of each was.
    pub logins: Vec<(i32, LoginPlace)>,
    /// For webhooks; `None` unless they are wanted.
    pub connections: Option<Box<ConnectionNews>>,
}

/// Where a user has logged in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LoginPlace {
    /// On this gateway.
    Here,
    /// On another one, which said so (spec 4.6).
    Elsewhere,
}

/// The connections behind a record.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectionNews {
    /// Those that there are, the newest last.
    pub here: Vec<ConnectionMark>,
    /// The newest of each platform that left.
    pub left: Vec<ConnectionMark>,
    /// Platform ids of those that were kicked, each kick once; at most `limits::KICKS_PER_RECORD_MAX`.
    pub kicked: Vec<i32>,
}

/// What webhooks say of a connection (spec 11.6).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectionMark {
    /// Its platform id.
    pub platform: i32,
    /// Its `connID`.
    pub connection_id: Box<str>,
    /// Whether its app is in the background (`isAppBackground`).
    pub background: bool,
}
