//! What OpenIM 3.5 and 3.6 are told in other words than newer ones (spec 4.2 column PR42, 4.4): states and platforms
//! have names. Their push answer is in `push_answer.rs`, their errors in [`Dialect`](crate::wire::grpc::Dialect); their
//! requests, kicks and logins are the newer ones.

use crate::hub::mail::DeviceStatus;
use crate::ids::Text;
use crate::pb::open_im_server::msggateway as pb;
use crate::pb::open_im_server::msggateway::get_users_online_status_resp::{SuccessDetail, SuccessResult};

const ONLINE: &str = "online";

/// The answer to `GetUsersOnlineStatus`: only users with a connection are named.
pub(super) fn status_answer(found: Vec<(Text, Vec<DeviceStatus>)>) -> pb::GetUsersOnlineStatusResp {
    let here = found.into_iter().filter(|(_, devices)| !devices.is_empty());
    let success_result = here.map(|(user, devices)| SuccessResult {
        user_id: user.to_string(),
        status: ONLINE.to_owned(),
        detail_platform_status: devices.into_iter().map(detail).collect(),
    });
    pb::GetUsersOnlineStatusResp { success_result: success_result.collect(), failed_result: Vec::new() }
}

fn detail(device: DeviceStatus) -> SuccessDetail {
    SuccessDetail {
        platform: device.platform.name().to_owned(),
        status: ONLINE.to_owned(),
        conn_id: device.connection_id.into(),
        is_background: device.background,
        token: device.token.into(),
    }
}
