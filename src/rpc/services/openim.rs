//! OpenIM's `msgGateway` (spec 4.1 to 4.6), for callers of either dialect: decode, metadata, request check, ask the
//! shards, put the answer together.
//!
//! What always holds: the checks come in upstream's order (spec 6.3), so a request with several faults gets upstream's
//! error.

use bytes::Bytes;

use super::{legacy, push_answer};
use crate::cluster::fields::Malformed;
use crate::cluster::request::{KickRequest, LoginRequest, OnePushRequest, PushRequest, StatusRequest};
use crate::cluster::router::{Outcome, Push, PushResult, RemoteLogin, To};
use crate::config::cluster::PushMode;
use crate::hub::mail::{DeviceOutcome, DeviceStatus, DeviceVerdict, Judge, PushBody, PushRules};
use crate::ids::Text;
use crate::metrics::Metric;
use crate::pb::openim::msggateway as pb;
use crate::pb::openim::msggateway::get_users_online_status_resp::{SuccessDetail, SuccessResult};
use crate::rpc::call::{Call, Service};
use crate::rpc::cluster::Mesh;
use crate::rpc::frames;
use crate::rpc::metadata::{Metadata, NODE_KEY};
use crate::rpc::stream::encode;
use crate::wire::grpc::{Dialect, Status, code};

/// The calls of the service (spec 4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::rpc) enum Method {
    /// `SuperGroupOnlineBatchPushOneMsg`.
    Push,
    /// `KickUserOffline`.
    Kick,
    /// `GetUsersOnlineStatus`.
    OnlineStatus,
    /// `MultiTerminalLoginCheck`.
    RemoteLogin,
    /// `OnlinePushMsg`: checked like the others, and then served by nobody.
    OnlinePush,
    /// `OnlineBatchPushOneMsg`: as `OnlinePush`.
    BatchPush,
}

impl Method {
    /// What a call with OK, and one with any other status, is counted as.
    pub(super) fn counters(self) -> (Metric, Metric) {
        match self {
            Self::Push => (Metric::RpcPushOk, Metric::RpcPushError),
            Self::Kick => (Metric::RpcKickOk, Metric::RpcKickError),
            Self::OnlineStatus => (Metric::RpcStatusOk, Metric::RpcStatusError),
            Self::RemoteLogin => (Metric::RpcLoginOk, Metric::RpcLoginError),
            Self::OnlinePush | Self::BatchPush => (Metric::RpcOtherOk, Metric::RpcOtherError),
        }
    }

    /// The same in `rpc_count`, where a call that its caller gave up is an error (spec 11.4).
    pub(super) fn upstream_counters(self) -> (Metric, Metric) {
        match self {
            Self::Push => (Metric::CountPushOk, Metric::CountPushError),
            Self::Kick => (Metric::CountKickOk, Metric::CountKickError),
            Self::OnlineStatus => (Metric::CountStatusOk, Metric::CountStatusError),
            Self::RemoteLogin => (Metric::CountLoginOk, Metric::CountLoginError),
            Self::OnlinePush => (Metric::CountOnePushOk, Metric::CountOnePushError),
            Self::BatchPush => (Metric::CountBatchPushOk, Metric::CountBatchPushError),
        }
    }
}

/// Upstream's words (spec 4.4).
pub(in crate::rpc) const ADMINS_ONLY: &str = "only app manager";

/// The framed answer to a call.
pub(super) async fn answer(
    service: &Service,
    call: Call,
    (method, dialect): (Method, Dialect),
) -> Result<Bytes, Status> {
    match method {
        Method::Push => push(service, call, dialect).await,
        Method::Kick => kick(service, call, dialect).await,
        Method::OnlineStatus => online_status(service, call, dialect).await,
        Method::RemoteLogin => remote_login(service, call, dialect).await,
        Method::OnlinePush => {
            let request = OnePushRequest::decode(call.message).map_err(|f| undecodable(service, f))?;
            Metadata::read(&call.headers, dialect)?;
            request.check().map_err(Status::args)?;
            Err(not_implemented("OnlinePushMsg"))
        }
        Method::BatchPush => {
            let request = PushRequest::decode(call.message).map_err(|f| undecodable(service, f))?;
            Metadata::read(&call.headers, dialect)?;
            request.check().map_err(Status::args)?;
            Err(not_implemented("OnlineBatchPushOneMsg"))
        }
    }
}

/// Defined by OpenIM and served by nobody; OpenIM 3.5 ends its process (spec 4.1, trap 22).
fn not_implemented(method: &str) -> Status {
    Status::new(code::UNIMPLEMENTED, format!("method {method} not implemented"))
}

/// Spec 4.3. At the deadline or when a shard is too busy it is answered all the same: with what is known by then.
async fn push(service: &Service, call: Call, dialect: Dialect) -> Result<Bytes, Status> {
    let request = PushRequest::decode(call.message).map_err(|f| undecodable(service, f))?;
    let metadata = Metadata::read(&call.headers, dialect)?;
    let (msg_data, facts, users) = request.check().map_err(Status::args)?;
    let said = tracing::enabled!(tracing::Level::DEBUG).then(|| metadata.operation_id.clone());
    let mut body = PushBody {
        operation_id: metadata.operation_id,
        conversation: facts.conversation(),
        msg_data,
        frames: None,
    };
    let routes = routes(service);
    if routes.is_none() {
        frames::share(service, &mut body).await;
    }
    let message = body.msg_data.clone();
    let push = Push {
        source: service.exchange.source(),
        body,
        to: To::Users(users.clone()),
        rules: PushRules::default(),
        deadline: call.deadline,
    };
    let results = match routes {
        Some(mesh) => mesh.push_once(users, push).await?,
        None => match service.exchange.ask(|router| router.push(push))?.await {
            Outcome::Push(results) => results,
            other => return Err(failed(&other)),
        },
    };
    if let (None, Some(mesh)) = (routes, service.mesh.get()) {
        mesh.note_local_push(&message, &results);
    }
    said.into_iter().for_each(|operation_id| say_undelivered(&operation_id, &results));
    push_answer::encode(&results, dialect)
}

/// The way to the other nodes, if OpenIM's services ask one gateway for users of all (`cluster.push_mode`).
fn routes(service: &Service) -> Option<&Mesh> {
    service.mesh.get().filter(|mesh| mesh.push_mode() == PushMode::Route)
}

/// One line for a push that did not get into the outbox of each user that it was for.
fn say_undelivered(operation_id: &str, results: &[PushResult]) {
    let (mut not_reached, mut not_here, mut not_taken) = (0, 0, 0);
    for result in results {
        match result.devices.as_deref() {
            None => not_reached += 1,
            Some([]) => not_here += 1,
            Some(devices) => {
                let taken = |device: &DeviceVerdict| {
                    matches!(device.outcome, DeviceOutcome::Written | DeviceOutcome::Queued)
                };
                not_taken += u64::from(!devices.iter().any(taken));
            }
        }
    }
    if not_reached + not_here + not_taken > 0 {
        let users = results.len();
        tracing::debug!(operation_id, users, not_reached, not_here, not_taken, "push not delivered to all");
    }
}

/// Spec 4.5.
async fn kick(service: &Service, call: Call, dialect: Dialect) -> Result<Bytes, Status> {
    let request = KickRequest::decode(call.message).map_err(|f| undecodable(service, f))?;
    let metadata = Metadata::read(&call.headers, dialect)?;
    let (platform, users) = request.check().map_err(Status::args)?;
    if let Some(mesh) = routes(service) {
        let count = users.len();
        let kicked = mesh.kick(users, platform).await;
        let (operation_id, platform) = (metadata.operation_id.as_str(), platform.name());
        tracing::info!(operation_id, platform, users = count, ?kicked, "users kicked on all nodes");
        return kicked.and_then(|()| encode(&pb::KickUserOfflineResp {}));
    }
    match service.exchange.ask(|router| router.kick(call.deadline, platform, &users))?.await {
        Outcome::Kicked(connections) => {
            let (operation_id, platform) = (metadata.operation_id.as_str(), platform.name());
            tracing::info!(operation_id, platform, users = users.len(), connections, "users kicked");
            encode(&pb::KickUserOfflineResp {})
        }
        other => Err(failed(&other)),
    }
}

/// Spec 4.4. It hands out live tokens to whoever claims to be an administrator (trap 24).
async fn online_status(service: &Service, call: Call, dialect: Dialect) -> Result<Bytes, Status> {
    let request = StatusRequest::decode(call.message).map_err(|f| undecodable(service, f))?;
    let metadata = Metadata::read(&call.headers, dialect)?;
    let users = request.check().map_err(Status::args)?;
    if !is_admin(service, &metadata) {
        return Err(Status::openim(code::NO_PERMISSION, "NoPermissionError", ADMINS_ONLY));
    }
    let found = match routes(service) {
        Some(mesh) => mesh.online_status(users).await?,
        None => match service.exchange.ask(|router| router.online_status(call.deadline, &users))?.await {
            Outcome::OnlineStatus(found) => found,
            other => return Err(failed(&other)),
        },
    };
    match dialect {
        Dialect::Openim => encode(&status_answer(found)),
        Dialect::Legacy => encode(&legacy::status_answer(found)),
    }
}

/// Spec 4.4 and 6.2: P16's rule or MAIN's marker. The port is taken on trust (spec trap 24).
fn is_admin(service: &Service, metadata: &Metadata) -> bool {
    let live = service.live();
    let listed = |user: &Text| live.admins.iter().any(|admin| admin == user.as_str());
    metadata.temp_admin || metadata.user.as_ref().is_some_and(listed)
}

/// Only users with a connection are named.
fn status_answer(found: Vec<(Text, Vec<DeviceStatus>)>) -> pb::GetUsersOnlineStatusResp {
    let detail = |device: DeviceStatus| SuccessDetail {
        platform_id: device.platform.id(),
        conn_id: device.connection_id.into(),
        is_background: device.background,
        token: device.token.into(),
    };
    let here = found.into_iter().filter(|(_, devices)| !devices.is_empty());
    let success_result = here.map(|(user, devices)| SuccessResult {
        user_id: user.to_string(),
        status: 1,
        detail_platform_status: devices.into_iter().map(detail).collect(),
    });
    pb::GetUsersOnlineStatusResp { success_result: success_result.collect(), failed_result: Vec::new() }
}

/// Spec 4.6. A login at a node of this cluster is judged by its home, while that can be reached.
async fn remote_login(service: &Service, call: Call, dialect: Dialect) -> Result<Bytes, Status> {
    let request = LoginRequest::decode(call.message).map_err(|f| undecodable(service, f))?;
    let metadata = Metadata::read(&call.headers, dialect)?;
    let (user, platform, token) = request.check().map_err(Status::args)?;
    let teller = call.headers.get(NODE_KEY).and_then(|node| node.to_str().ok());
    let judged = |node: &str| service.mesh.get().is_some_and(|mesh| mesh.judges_logins(node, &user));
    let judge = if teller.is_some_and(judged) { Judge::Home } else { Judge::Shard };
    let login = RemoteLogin { operation_id: metadata.operation_id, user, platform, token, judge };
    match service.exchange.ask(|router| router.remote_login(call.deadline, login))?.await {
        Outcome::RemoteLogin => encode(&pb::MultiTerminalLoginCheckResp {}),
        other => Err(failed(&other)),
    }
}

fn undecodable(service: &Service, fault: Malformed) -> Status {
    let status = super::undecodable(service, fault.text());
    match fault {
        Malformed::TooMany => Status { code: code::RESOURCE_EXHAUSTED, ..status },
        _ => status,
    }
}

fn failed(outcome: &Outcome) -> Status {
    match outcome {
        Outcome::Refused => Status::new(code::UNAVAILABLE, "a shard is overloaded; try again"),
        Outcome::Expired => Status::new(code::DEADLINE_EXCEEDED, "a shard did not answer in time"),
        // The router checks that an answer is of the kind that was asked for.
        _ => Status::openim(500, "ServerInternalError", ""),
    }
}
