//! `OpenIMServer.msggateway.msgGateway`: what OpenIM 3.5 and 3.6 see (spec trap 16, 4.2 column PR42, 4.3 column S351).

use super::grpc::{PUSH, push_request};
use super::*;
use crate::pb::open_im_server::msggateway as pb;
use crate::wire::grpc::Dialect;

const METADATA: [(&str, &str); 2] = [("operationid", "op"), ("opuserid", "imAdmin")];

fn call<M: Message + Default>(
    node: &Node,
    method: &str,
    metadata: &[(&str, &str)],
    request: &impl Message,
) -> Result<M, Status> {
    node.call_path(&format!("/OpenIMServer.msggateway.msgGateway/{method}"), metadata, request)
}

#[test]
fn a_push_lists_phones_and_failures_with_the_user_id() {
    on_each_driver(Shards::Answer, |node| {
        let users = ["on2", "off", "on1", "on2"];
        let answer: pb::OnlineBatchPushOneMsgResp =
            call(node, PUSH, &METADATA, &push_request(&users)).unwrap();
        assert!(answer.single_push_result.iter().map(|r| r.user_id.as_str()).eq(users), "list order");
        for result in answer.single_push_result {
            let devices: Vec<_> = result
                .resp
                .iter()
                .map(|d| (d.result_code, d.recv_id.as_str(), d.recv_plat_form_id))
                .collect();
            let user = result.user_id.as_str();
            // iOS was reached, the outbox of Web overflowed.
            let expected = if is_on(user) { vec![(0, user, 1), (-2, user, 5)] } else { Vec::new() };
            assert_eq!((devices, result.online_push), (expected, is_on(user)));
        }
        node.await_count(Metric::RpcPushOk, 1);
    });
}

#[test]
fn states_and_platforms_have_names() {
    on_each_driver(Shards::Answer, |node| {
        let request = pb::GetUsersOnlineStatusReq { user_i_ds: vec!["off".into(), "on1".into()] };
        let answer: pb::GetUsersOnlineStatusResp =
            call(node, "GetUsersOnlineStatus", &METADATA, &request).unwrap();
        let detail = |platform: &str| pb::get_users_online_status_resp::SuccessDetail {
            platform: platform.into(),
            status: "online".into(),
            conn_id: "c1".into(),
            is_background: false,
            token: "t1".into(),
        };
        let expected = pb::get_users_online_status_resp::SuccessResult {
            user_id: "on1".into(),
            status: "online".into(),
            detail_platform_status: vec![detail("IOS"), detail("Web")],
        };
        assert_eq!((answer.success_result, answer.failed_result.len()), (vec![expected], 0));
    });
}

#[test]
fn kicks_and_logins_answer() {
    on_each_driver(Shards::Answer, |node| {
        let kick = pb::KickUserOfflineReq { platform_id: 5, kick_user_id_list: vec!["on1".into()] };
        assert!(call::<pb::KickUserOfflineResp>(node, "KickUserOffline", &METADATA, &kick).is_ok());
        let login =
            pb::MultiTerminalLoginCheckReq { user_id: "on1".into(), platform_id: 1, token: "t".into() };
        let answer =
            call::<pb::MultiTerminalLoginCheckResp>(node, "MultiTerminalLoginCheck", &METADATA, &login);
        assert!(answer.is_ok());
    });
}

#[test]
fn errors_name_the_older_package_and_the_operation_id_must_not_be_empty() {
    on_each_driver(Shards::Answer, |node| {
        let request = pb::GetUsersOnlineStatusReq { user_i_ds: vec!["on1".into()] };
        let status = |metadata: &[(&str, &str)], request: &pb::GetUsersOnlineStatusReq| {
            call::<pb::GetUsersOnlineStatusResp>(node, "GetUsersOnlineStatus", metadata, request).unwrap_err()
        };
        let older = |status: Status| status.for_peers_of(Dialect::Legacy);
        let empty = pb::GetUsersOnlineStatusReq::default();
        assert_eq!(status(&METADATA, &empty), older(Status::args("UserIDs is empty")));
        let denied = Status::openim(1002, "NoPermissionError", services::ADMINS_ONLY);
        assert_eq!(status(&METADATA[..1], &request), older(denied));
        for metadata in [&[][..], &[("operationid", "")], &[("operationid", "a"), ("operationid", "b")]] {
            assert_eq!(status(metadata, &request), Status::new(3, "operationID error"), "{metadata:?}");
        }
    });
}
