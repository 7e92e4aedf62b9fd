//! The services behind the gRPC port, one file each, and the table of what each path means.
//!
//! How a call is read, kept within its limits and ended is in `call.rs`.

mod openim;
mod push;

use std::rc::Rc;

use bytes::Bytes;

use super::call::{Call, End, Service, StreamCall};
use crate::limits::{CONTROL_DEADLINE_MS, PUSH_DEADLINE_MS, PUSH_SEND_MS};
use crate::metrics::Metric;
use crate::wire::grpc::{Status, code};

#[cfg(test)]
pub(super) use openim::ADMINS_ONLY;

/// The calls that are served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Method {
    /// One message each way: see [`answer`].
    Unary(Unary),
    /// Any number of messages, at least one way: see [`stream`].
    Streaming(Streaming),
}

/// See [`Method::Unary`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unary {
    /// OpenIM's `SuperGroupOnlineBatchPushOneMsg`.
    Push,
    /// OpenIM's `KickUserOffline`.
    Kick,
    /// OpenIM's `GetUsersOnlineStatus`.
    OnlineStatus,
    /// OpenIM's `MultiTerminalLoginCheck`.
    RemoteLogin,
    /// `pinion.v1.Push/Send`.
    Send,
}

/// See [`Method::Streaming`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Streaming {
    /// `pinion.v1.Push/Stream`.
    Push,
}

/// How long a unary call may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Patience {
    /// If the caller names no deadline.
    pub(super) unasked_ms: u64,
    /// Whatever deadline it names.
    pub(super) most_ms: u64,
}

impl Patience {
    const fn fixed(ms: u64) -> Self {
        Self { unasked_ms: ms, most_ms: ms }
    }
}

/// Services and their methods; `None`: declared and served by nobody.
const ROUTES: &[(&str, &[(&str, Option<Method>)])] = &[
    (
        "openim.msggateway.msgGateway",
        &[
            ("SuperGroupOnlineBatchPushOneMsg", Some(Method::Unary(Unary::Push))),
            ("KickUserOffline", Some(Method::Unary(Unary::Kick))),
            ("GetUsersOnlineStatus", Some(Method::Unary(Unary::OnlineStatus))),
            ("MultiTerminalLoginCheck", Some(Method::Unary(Unary::RemoteLogin))),
            // Spec 4.1, trap 22.
            ("OnlinePushMsg", None),
            ("OnlineBatchPushOneMsg", None),
        ],
    ),
    (
        "pinion.v1.Push",
        &[("Stream", Some(Method::Streaming(Streaming::Push))), ("Send", Some(Method::Unary(Unary::Send)))],
    ),
];

/// What a path like `/package.Service/Method` calls; UNIMPLEMENTED in grpc-go's words.
pub(super) fn method(path: &str) -> Result<Method, Status> {
    let unknown = |text: String| Status::new(code::UNIMPLEMENTED, text);
    let (service, name) = path
        .strip_prefix('/')
        .and_then(|p| p.rsplit_once('/'))
        .ok_or_else(|| unknown(format!("malformed method name: \"{path}\"")))?;
    let (_, methods) = ROUTES
        .iter()
        .find(|(known, _)| *known == service)
        .ok_or_else(|| unknown(format!("unknown service {service}")))?;
    let (_, method) = methods
        .iter()
        .find(|(known, _)| *known == name)
        .ok_or_else(|| unknown(format!("unknown method {name} for service {service}")))?;
    method.ok_or_else(|| unknown(format!("method {name} not implemented")))
}

impl Method {
    /// What a call with OK, and one with any other status, is counted as.
    pub(super) fn counters(self) -> (Metric, Metric) {
        match self {
            Self::Unary(Unary::Push) => (Metric::RpcPushOk, Metric::RpcPushError),
            Self::Unary(Unary::Kick) => (Metric::RpcKickOk, Metric::RpcKickError),
            Self::Unary(Unary::OnlineStatus) => (Metric::RpcStatusOk, Metric::RpcStatusError),
            Self::Unary(Unary::RemoteLogin) => (Metric::RpcLoginOk, Metric::RpcLoginError),
            Self::Unary(Unary::Send) => (Metric::RpcSendOk, Metric::RpcSendError),
            Self::Streaming(Streaming::Push) => (Metric::RpcStreamOk, Metric::RpcStreamError),
        }
    }
}

impl Unary {
    /// How long it may take.
    pub(super) fn patience(self) -> Patience {
        match self {
            Self::Push => Patience::fixed(PUSH_DEADLINE_MS),
            Self::Kick | Self::OnlineStatus | Self::RemoteLogin => Patience::fixed(CONTROL_DEADLINE_MS),
            Self::Send => Patience { unasked_ms: PUSH_DEADLINE_MS, most_ms: PUSH_SEND_MS },
        }
    }
}

/// The framed answer to a unary call.
pub(super) async fn answer(service: &Rc<Service>, call: Call) -> Result<Bytes, Status> {
    match call.method {
        Unary::Push => openim::push(service, call).await,
        Unary::Kick => openim::kick(service, call).await,
        Unary::OnlineStatus => openim::online_status(service, call).await,
        Unary::RemoteLogin => openim::remote_login(service, call).await,
        Unary::Send => push::send(service, call).await,
    }
}

/// Serves a call that streams, to its end. Dropped half-way: the caller is gone.
pub(super) async fn stream(service: &Rc<Service>, call: StreamCall) -> Result<(), End> {
    match call.method {
        Streaming::Push => push::stream(service, call).await,
    }
}
