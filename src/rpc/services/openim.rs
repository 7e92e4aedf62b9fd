//! What each call of `openim.msggateway.msgGateway` does (spec 4.3 to 4.6): decode, metadata, check, ask the shards,
//! put the answer together.

use bytes::Bytes;

use crate::cluster::fields::Malformed;
use crate::cluster::request::{KickRequest, LoginRequest, PushRequest, StatusRequest};
use crate::cluster::router::{Outcome, Push, PushResult, RemoteLogin, To};
use crate::hub::mail::{DeviceOutcome, DeviceStatus, DeviceVerdict, PushBody, PushRules};
use crate::ids::Text;
use crate::metrics::Metric;
use crate::pb::openim::msggateway as pb;
use crate::rpc::call::{Call, Service};
use crate::rpc::metadata::Metadata;
use crate::rpc::stream::encode;
use crate::wire::grpc::{Status, code};

/// Upstream's words (spec 4.4).
pub(in crate::rpc) const ADMINS_ONLY: &str = "only app manager";

pub(super) async fn push(service: &Service, call: Call) -> Result<Bytes, Status> {
    let request = PushRequest::decode(call.message).map_err(|fault| undecodable(service, fault))?;
    let metadata = Metadata::read(&call.headers)?;
    let (msg_data, facts, users) = request.check().map_err(Status::args)?;
    let push = Push {
        source: service.exchange.source(),
        body: PushBody {
            operation_id: metadata.operation_id,
            conversation: facts.conversation(),
            msg_data,
            frames: None,
        },
        to: To::Users(users),
        rules: PushRules::default(),
        deadline: call.deadline,
    };
    match service.exchange.ask(|router| router.push(push))?.await {
        Outcome::Push(results) => encode(&pb::OnlineBatchPushOneMsgResp {
            single_push_result: results.into_iter().map(push_result).collect(),
        }),
        other => Err(failed(&other)),
    }
}

/// Spec 4.3: a user that is not here, or was not reached, has an empty result.
fn push_result(result: PushResult) -> pb::SingleMsgToUserResults {
    let devices = result.devices.unwrap_or_default();
    let reached_phone = |d: &DeviceVerdict| result_code(d.outcome) == 0 && d.platform.is_phone();
    pb::SingleMsgToUserResults {
        user_id: result.user.to_string(),
        online_push: devices.iter().any(reached_phone),
        resp: devices.into_iter().map(device_result).collect(),
    }
}

fn device_result(verdict: DeviceVerdict) -> pb::SingleMsgToUserPlatform {
    pb::SingleMsgToUserPlatform {
        result_code: result_code(verdict.outcome),
        recv_id: String::new(),
        recv_plat_form_id: verdict.platform.id(),
    }
}

/// Spec 4.3.
fn result_code(outcome: DeviceOutcome) -> i64 {
    match outcome {
        DeviceOutcome::Written | DeviceOutcome::Queued => 0,
        DeviceOutcome::Background => 1604,
        DeviceOutcome::Dropped | DeviceOutcome::Kicked | DeviceOutcome::Expired | DeviceOutcome::TooLarge => {
            1603
        }
    }
}

pub(super) async fn kick(service: &Service, call: Call) -> Result<Bytes, Status> {
    let request = KickRequest::decode(call.message).map_err(|fault| undecodable(service, fault))?;
    Metadata::read(&call.headers)?;
    let (platform, users) = request.check().map_err(Status::args)?;
    match service.exchange.ask(|router| router.kick(call.deadline, platform, &users))?.await {
        Outcome::Kicked(_) => encode(&pb::KickUserOfflineResp {}),
        other => Err(failed(&other)),
    }
}

pub(super) async fn online_status(service: &Service, call: Call) -> Result<Bytes, Status> {
    let request = StatusRequest::decode(call.message).map_err(|fault| undecodable(service, fault))?;
    let metadata = Metadata::read(&call.headers)?;
    let users = request.check().map_err(Status::args)?;
    if !is_admin(service, &metadata) {
        return Err(Status::openim(code::NO_PERMISSION, "NoPermissionError", ADMINS_ONLY));
    }
    match service.exchange.ask(|router| router.online_status(call.deadline, &users))?.await {
        Outcome::OnlineStatus(found) => encode(&pb::GetUsersOnlineStatusResp {
            success_result: found.into_iter().filter_map(status_result).collect(),
            failed_result: Vec::new(),
        }),
        other => Err(failed(&other)),
    }
}

/// Spec 4.4 and 6.2: P16's rule or MAIN's marker. The port is taken on trust (spec trap 24).
fn is_admin(service: &Service, metadata: &Metadata) -> bool {
    let listed = |user: &Text| service.admins.iter().any(|admin| admin == user.as_str());
    metadata.temp_admin || metadata.user.as_ref().is_some_and(listed)
}

/// Only users with a connection are named.
fn status_result(
    (user, devices): (Text, Vec<DeviceStatus>),
) -> Option<pb::get_users_online_status_resp::SuccessResult> {
    let detail = |device: DeviceStatus| pb::get_users_online_status_resp::SuccessDetail {
        platform_id: device.platform.id(),
        conn_id: device.connection_id.into(),
        is_background: device.background,
        token: device.token.into(),
    };
    (!devices.is_empty()).then(|| pb::get_users_online_status_resp::SuccessResult {
        user_id: user.to_string(),
        status: 1,
        detail_platform_status: devices.into_iter().map(detail).collect(),
    })
}

pub(super) async fn remote_login(service: &Service, call: Call) -> Result<Bytes, Status> {
    let request = LoginRequest::decode(call.message).map_err(|fault| undecodable(service, fault))?;
    let metadata = Metadata::read(&call.headers)?;
    let (user, platform, token) = request.check().map_err(Status::args)?;
    let login = RemoteLogin { operation_id: metadata.operation_id, user, platform, token };
    match service.exchange.ask(|router| router.remote_login(call.deadline, login))?.await {
        Outcome::RemoteLogin => encode(&pb::MultiTerminalLoginCheckResp {}),
        other => Err(failed(&other)),
    }
}

fn undecodable(service: &Service, fault: Malformed) -> Status {
    service.exchange.count(Metric::RpcBadRequest);
    let code = match fault {
        Malformed::TooMany => code::RESOURCE_EXHAUSTED,
        _ => code::INTERNAL,
    };
    Status::new(code, format!("grpc: error unmarshalling request: {}", fault.text()))
}

fn failed(outcome: &Outcome) -> Status {
    match outcome {
        Outcome::Refused => Status::new(code::UNAVAILABLE, "a shard is overloaded; try again"),
        Outcome::Expired => Status::new(code::DEADLINE_EXCEEDED, "a shard did not answer in time"),
        // The router checks that an answer is of the kind that was asked for.
        _ => Status::openim(500, "ServerInternalError", ""),
    }
}
