//! What is asked of OpenIM's services: the path, the metadata and the message of each call (spec 3.1, 5.1, 6.1).
//!
//! What always holds: a call carries `operationid` exactly once, also when it is empty; every value is printable ASCII,
//! since a call with another would not leave a Go process either. Not here: what the answers mean (`answers`), the
//! tokens of 3.5, which are no calls (`tokens`), and when presence is told (`presence`).
//!
//! `customheader` is never carried on (spec 6.2): no call is made within another one. The one job that a call leaves
//! behind, the login policy of a login elsewhere, has the metadata that spec 6.1 gives it.

use bytes::{BufMut as _, Bytes, BytesMut};
use prost::encoding::{self, WireType};

use super::Service;
use super::answers::Expect;
use crate::hub::upstream::{CallMetadata, Method, UpstreamCall, UpstreamRequest};
use crate::ids::Platform;
use crate::pb::openim::auth::{InvalidateTokenReq, KickTokensReq, ParseTokenReq};
use crate::pb::openim::msggateway::MultiTerminalLoginCheckReq;
use crate::wire::compat::Compat;
use crate::wire::grpc::{CallFault, Dialect, Retry, code, is_printable};

/// A call, ready to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// Whose channel it takes.
    pub service: Service,
    /// `:path`. Services tell methods apart by the case of their first letter (spec trap 16).
    pub path: &'static str,
    /// Keys in lower case, each once; values of printable ASCII, perhaps empty.
    pub metadata: Vec<(&'static str, Box<str>)>,
    /// The protobuf, without gRPC's prefix.
    pub message: Bytes,
    /// Whether a channel may send it again.
    pub retry: Retry,
    /// How to read the answer.
    pub expect: Expect,
}

/// A method of the user service, as the gateway calls it on its own account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UserMethod {
    /// Where users are online here, and where they no longer are. 3.8 and newer.
    SetUserOnlineStatus,
    /// A user came or left on one platform. 3.5.
    SetUserStatus,
    /// Where users are online.
    GetUserStatus,
}

/// A method under both of its names.
#[derive(Clone, Copy)]
struct Rpc {
    service: Service,
    /// 3.7 and newer.
    openim: &'static str,
    /// 3.5 and 3.6.
    legacy: &'static str,
}

macro_rules! rpc {
    ($service:ident, $path:literal) => {
        Rpc {
            service: Service::$service,
            openim: concat!("/openim.", $path),
            legacy: concat!("/OpenIMServer.", $path),
        }
    };
}

const PARSE_TOKEN: Rpc = rpc!(Auth, "auth.Auth/parseToken");
const INVALIDATE_TOKEN: Rpc = rpc!(Auth, "auth.Auth/invalidateToken");
const KICK_TOKENS: Rpc = rpc!(Auth, "auth.Auth/kickTokens");
const SET_USER_ONLINE_STATUS: Rpc = rpc!(User, "user.user/setUserOnlineStatus");
const SET_USER_STATUS: Rpc = rpc!(User, "user.user/setUserStatus");
const GET_USER_STATUS: Rpc = rpc!(User, "user.user/getUserStatus");
const MULTI_TERMINAL_LOGIN_CHECK: Rpc = rpc!(Gateway, "msggateway.msgGateway/MultiTerminalLoginCheck");

impl Rpc {
    fn path(self, compat: Compat) -> &'static str {
        match compat.dialect() {
            Dialect::Openim => self.openim,
            Dialect::Legacy => self.legacy,
        }
    }

    /// Behind a request identifier (spec 3.1). Requests that a version does not know are asked all the same: its
    /// service says `UNIMPLEMENTED`, and so will the reply. (Its gateway would close the connection.)
    fn of(method: Method) -> Self {
        match method {
            Method::GetMaxSeq => rpc!(Msg, "msg.msg/GetMaxSeq"),
            Method::PullMessageBySeqs => rpc!(Msg, "msg.msg/PullMessageBySeqs"),
            Method::SendMsg | Method::SendSignalMsg => rpc!(Msg, "msg.msg/SendMsg"),
            Method::GetSeqMessage => rpc!(Msg, "msg.msg/GetSeqMessage"),
            Method::GetConversationsHasReadAndMaxSeq => rpc!(Msg, "msg.msg/GetConversationsHasReadAndMaxSeq"),
            Method::GetLastMessage => rpc!(Msg, "msg.msg/GetLastMessage"),
            Method::DelUserPushToken => rpc!(Push, "push.PushMsgService/DelUserPushToken"),
        }
    }
}

/// The call that a shard's question becomes.
///
/// # Errors
/// [`CallFault::Metadata`]: a value that no header can have. [`CallFault::Status`] with `UNIMPLEMENTED`: 3.5 has no
/// call that ends tokens, see [`super::tokens`], and statuses are asked for by [`super::presence`]. Either is to be
/// read like the fault of a call that was made.
pub fn question(compat: Compat, call: &UpstreamCall) -> Result<Question, CallFault> {
    let (rpc, message, retry, expect) = match &call.request {
        UpstreamRequest::ParseToken { token } => {
            let message = encoded(&ParseTokenReq { token: token.to_string() });
            (PARSE_TOKEN, message, Retry::Safe, Expect::Token { token: token.clone() })
        }
        UpstreamRequest::Forward { method, data } => {
            (Rpc::of(*method), message_of(*method, data), retry_of(*method), Expect::Data)
        }
        UpstreamRequest::InvalidateToken { .. } | UpstreamRequest::KickTokens { .. }
            if compat == Compat::V35 =>
        {
            return Err(no_call("OpenIM 3.5 has no call for this: its gateway marks the tokens in Redis"));
        }
        UpstreamRequest::InvalidateToken { preserved, user, platform } => {
            let message = encoded(&InvalidateTokenReq {
                preserved_token: preserved.to_string(),
                user_id: user.to_string(),
                platform_id: platform.id(),
            });
            // A second one would end the tokens that were issued since the first.
            (INVALIDATE_TOKEN, message, Retry::Never, Expect::Data)
        }
        UpstreamRequest::KickTokens { tokens } => {
            let tokens = tokens.iter().map(ToString::to_string).collect();
            (KICK_TOKENS, encoded(&KickTokensReq { tokens }), Retry::Safe, Expect::Data)
        }
        UpstreamRequest::LoginElsewhere { token } => return login_check(compat, &call.metadata, token),
        UpstreamRequest::MarkTokens(_) => {
            return Err(no_call("marks of tokens are what nodes with the embedded backend tell each other"));
        }
        UpstreamRequest::UserStatus { .. } => {
            return Err(no_call("presence asks where users are online, for many questions at once"));
        }
    };
    let platform = match call.request {
        UpstreamRequest::ParseToken { .. } => platform_at_login(compat, &call.metadata),
        _ => Some(call.metadata.platform),
    };
    let metadata = of_connection(&call.metadata, platform)?;
    Ok(Question { service: rpc.service, path: rpc.path(compat), metadata, message, retry, expect })
}

/// Tells another gateway of a login here (spec 4.6). `login` is what the login's own calls carry.
///
/// Upstream's gateways refuse it for platforms 10 and 11 (spec trap 19); it is asked all the same.
///
/// # Errors
/// As [`question`].
pub fn login_check(compat: Compat, login: &CallMetadata, token: &str) -> Result<Question, CallFault> {
    let mut metadata = of_connection(login, platform_at_login(compat, login))?;
    if compat == Compat::V35 && login.operation_id.is_empty() {
        // Its clients may leave it out, and its gateways refuse an empty one: the login would end nobody there.
        metadata
            .iter_mut()
            .filter(|(key, _)| *key == "operationid")
            .for_each(|(_, id)| *id = login.connection_id.clone());
    }
    let message = MultiTerminalLoginCheckReq {
        user_id: login.user.to_string(),
        platform_id: login.platform.id(),
        token: token.to_owned(),
    };
    Ok(Question {
        service: MULTI_TERMINAL_LOGIN_CHECK.service,
        path: MULTI_TERMINAL_LOGIN_CHECK.path(compat),
        metadata,
        message: encoded(&message),
        // A late repetition would kick whoever logged in since.
        retry: Retry::Never,
        expect: Expect::Data,
    })
}

/// A call that no connection asked for: `operationid` is all its metadata (spec 6.1).
///
/// `operation_id` is `p_<process id>_<counter>`, as [`own_operation_id`] makes it. States that are set twice out of
/// order would be wrong ones, so that only questions are asked again.
pub fn own_call(compat: Compat, method: UserMethod, operation_id: Box<str>, message: Bytes) -> Question {
    let (rpc, retry) = match method {
        UserMethod::SetUserOnlineStatus => (SET_USER_ONLINE_STATUS, Retry::Never),
        UserMethod::SetUserStatus => (SET_USER_STATUS, Retry::Never),
        UserMethod::GetUserStatus => (GET_USER_STATUS, Retry::Safe),
    };
    Question {
        service: rpc.service,
        path: rpc.path(compat),
        metadata: vec![("operationid", operation_id)],
        message,
        retry,
        expect: Expect::Data,
    }
}

/// The trace id of the gateway's `counter`th call on its own account, counted from 1 (spec 9.1).
pub fn own_operation_id(process_id: u32, counter: u64) -> Box<str> {
    format!("p_{process_id}_{counter}").into()
}

/// Since patch.14 the platform is held as a number where the login's own calls are made, and only strings are sent.
fn platform_at_login(compat: Compat, login: &CallMetadata) -> Option<Platform> {
    match compat {
        Compat::V35 => Some(login.platform),
        Compat::Patch16 | Compat::Main => None,
    }
}

/// Empty values are sent: they are values.
fn of_connection(
    metadata: &CallMetadata,
    platform: Option<Platform>,
) -> Result<Vec<(&'static str, Box<str>)>, CallFault> {
    let mut pairs = vec![("operationid", metadata.operation_id.clone()), ("opuserid", metadata.user.clone())];
    pairs.extend(platform.map(|platform| ("platform", platform.name().into())));
    pairs.push(("connid", metadata.connection_id.clone()));
    match pairs.iter().find(|(_, value)| !is_printable(value)) {
        // Escaped, the server would see another id.
        Some((key, _)) => Err(CallFault::Metadata(key)),
        None => Ok(pairs),
    }
}

fn no_call(why: &str) -> CallFault {
    CallFault::status(code::UNIMPLEMENTED, why)
}

/// The request of a client, never decoded here.
fn message_of(method: Method, data: &Bytes) -> Bytes {
    match method {
        Method::SendMsg => in_send_msg_req(data),
        // Upstream's gateway forgets to fill the request in (spec trap 23).
        Method::SendSignalMsg => Bytes::new(),
        _ => data.clone(),
    }
}

/// `SendMsgReq` with the client's `MsgData` as its only field, number 3 (spec 3.4).
fn in_send_msg_req(msg_data: &Bytes) -> Bytes {
    let mut message = BytesMut::with_capacity(msg_data.len() + 6); // key, and a length of at most five bytes
    encoding::encode_key(3, WireType::LengthDelimited, &mut message);
    encoding::encode_varint(msg_data.len() as u64, &mut message);
    message.put_slice(msg_data);
    message.freeze()
}

fn retry_of(method: Method) -> Retry {
    match method {
        Method::GetMaxSeq
        | Method::PullMessageBySeqs
        | Method::GetSeqMessage
        | Method::GetConversationsHasReadAndMaxSeq
        | Method::GetLastMessage => Retry::Safe,
        // A second DelUserPushToken would delete what a new login has set since.
        Method::SendMsg | Method::SendSignalMsg | Method::DelUserPushToken => Retry::Never,
    }
}

fn encoded(message: &impl prost::Message) -> Bytes {
    message.encode_to_vec().into()
}

#[cfg(test)]
#[path = "calls_tests.rs"]
mod tests;
