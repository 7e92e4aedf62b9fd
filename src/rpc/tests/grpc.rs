//! The push API as a well-behaved caller sees it.

use super::*;
use crate::pb::openim::msggateway::{
    GetUsersOnlineStatusReq, GetUsersOnlineStatusResp, KickUserOfflineReq, KickUserOfflineResp,
    MultiTerminalLoginCheckReq, MultiTerminalLoginCheckResp, OnlineBatchPushOneMsgReq,
    OnlineBatchPushOneMsgResp, SingleMsgToUserPlatform,
};
use crate::pb::openim::sdkws::MsgData;

pub(super) const PUSH: &str = "SuperGroupOnlineBatchPushOneMsg";

pub(super) fn push_request(users: &[&str]) -> OnlineBatchPushOneMsgReq {
    let msg_data = MsgData {
        send_id: "u9".into(),
        recv_id: "on1".into(),
        session_type: 1,
        content: Bytes::from_static(b"{}"),
        ..Default::default()
    };
    OnlineBatchPushOneMsgReq {
        msg_data: Some(msg_data),
        push_to_user_i_ds: users.iter().map(ToString::to_string).collect(),
    }
}

#[test]
fn a_push_has_one_result_per_requested_user_with_openims_codes() {
    on_each_driver(Shards::Answer, |node| {
        let users = ["on1", "off", "on2", "on3", "on1"];
        let answer: OnlineBatchPushOneMsgResp = node.call(PUSH, &push_request(&users)).unwrap();
        assert!(answer.single_push_result.iter().map(|r| r.user_id.as_str()).eq(users));
        let device = |result_code, recv_plat_form_id| SingleMsgToUserPlatform {
            result_code,
            recv_id: String::new(),
            recv_plat_form_id,
        };
        for result in answer.single_push_result {
            let on = is_on(&result.user_id);
            assert_eq!(result.online_push, on, "iOS was reached");
            assert_eq!(result.resp, if on { vec![device(0, 1), device(1603, 5)] } else { vec![] });
        }
        node.await_count(Metric::RpcPushOk, 1);
        assert_eq!(node.block.value(Metric::PushNotReached), 0);
    });
}

#[test]
fn large_requests_and_answers_pass_and_oversize_is_resource_exhausted() {
    on_each_driver(Shards::Answer, |node| {
        let users: Vec<String> = (0..50_000).map(|n| format!("on{n:060}")).collect();
        let users: Vec<&str> = users.iter().map(String::as_str).collect();
        let answer: OnlineBatchPushOneMsgResp = node.call(PUSH, &push_request(&users)).unwrap();
        assert_eq!(answer.single_push_result.len(), 50_000);

        let mut oversize = push_request(&["on1"]);
        let content = vec![b'x'; limits::GRPC_MESSAGE_BYTES_MAX];
        oversize.msg_data.as_mut().unwrap().content = content.into();
        let refused = node.call::<OnlineBatchPushOneMsgResp>(PUSH, &oversize).unwrap_err();
        assert_eq!((refused.code, refused.cause), (8, None));
        // The next caller is unaffected.
        assert!(node.call::<OnlineBatchPushOneMsgResp>(PUSH, &push_request(&["on1"])).is_ok());
    });
}

#[test]
fn kick_status_and_remote_login_answer() {
    on_each_driver(Shards::Answer, |node| {
        let kick = KickUserOfflineReq {
            platform_id: 5,
            kick_user_id_list: vec!["on1".into(), "on2".into(), "on3".into()],
        };
        node.call::<KickUserOfflineResp>("KickUserOffline", &kick).unwrap();

        let request = GetUsersOnlineStatusReq { user_i_ds: vec!["off".into(), "on1".into()] };
        let status: GetUsersOnlineStatusResp = node.call("GetUsersOnlineStatus", &request).unwrap();
        assert_eq!(status.success_result.len(), 1);
        let found = &status.success_result[0];
        assert_eq!((found.user_id.as_str(), found.status), ("on1", 1));
        assert_eq!(found.detail_platform_status.iter().map(|d| d.platform_id).collect::<Vec<_>>(), [1, 5]);
        assert_eq!(found.detail_platform_status[0].token, "t1");

        let login = MultiTerminalLoginCheckReq { user_id: "on1".into(), platform_id: 1, token: "t".into() };
        node.call::<MultiTerminalLoginCheckResp>("MultiTerminalLoginCheck", &login).unwrap();
    });
}

#[test]
fn refusals_carry_openims_codes_texts_and_causes() {
    on_each_driver(Shards::Answer, |node| {
        let push = push_request(&["on1"]);
        let call = |metadata: &[(&str, &str)]| {
            node.call_with::<OnlineBatchPushOneMsgResp>(PUSH, metadata, &push).map(|_| ())
        };
        assert_eq!(call(&[]), Err(Status::new(3, "operationID error")));
        assert_eq!(
            call(&[("operationid", "a"), ("operationid", "b")]),
            Err(Status::new(3, "operationID error"))
        );
        assert_eq!(
            call(&[("operationid", "a"), ("customheader", "x-need")]),
            Err(Status::new(3, "missing metadata key x-need"))
        );
        assert_eq!(call(&[("operationid", "")]), Ok(()));

        let empty = OnlineBatchPushOneMsgReq::default();
        let refused = node.call::<OnlineBatchPushOneMsgResp>(PUSH, &empty).unwrap_err();
        assert_eq!(refused, Status::openim(1001, "ArgsError", "MsgData is empty"));

        let request = GetUsersOnlineStatusReq { user_i_ds: vec!["on1".into()] };
        let status = |metadata: &[(&str, &str)]| {
            node.call_with::<GetUsersOnlineStatusResp>("GetUsersOnlineStatus", metadata, &request)
                .map(|s| s.success_result.len())
        };
        let denied = Status::openim(1002, "NoPermissionError", services::ADMINS_ONLY);
        assert_eq!(status(&[("operationid", "a")]), Err(denied.clone()));
        assert_eq!(status(&[("operationid", "a"), ("opuserid", "u1")]), Err(denied));
        let marker =
            [("operationid", "a"), ("customheader", "ctxImTempAdminKey"), ("ctximtempadminkey", "1")];
        assert_eq!(status(&marker), Ok(1));

        let refused = node.call::<OnlineBatchPushOneMsgResp>("Nothing", &empty).unwrap_err();
        assert_eq!(refused.code, 12);
        node.await_count(Metric::RpcOtherError, 1);
        node.await_count(Metric::RpcStatusError, 2);
    });
}

#[test]
fn a_body_that_is_no_protobuf_is_an_internal_error_and_counted() {
    on_each_driver(Shards::Answer, |node| {
        let path = format!("/openim.msggateway.msgGateway/{PUSH}");
        let metadata = [("operationid", "op")];
        let broken = Bytes::from_static(b"\x0a\xff");
        let outcome = call_once(node.grpc, &path, &metadata, broken, 60_000);
        assert!(matches!(outcome, Err(CallError::Refused(Status { code: 13, .. }))), "{outcome:?}");
        node.await_count(Metric::RpcBadRequest, 1);
    });
}

#[test]
fn a_push_is_answered_before_the_callers_deadline_even_if_no_shard_answers() {
    on_each_driver(Shards::Mute, |node| {
        let path = format!("/openim.msggateway.msgGateway/{PUSH}");
        let request = push_request(&["on1", "on2", "on3"]).encode_to_vec();
        let answer = call_once(node.grpc, &path, &[("operationid", "op")], request.into(), 1_000).unwrap();
        let answer = OnlineBatchPushOneMsgResp::decode(answer).unwrap();
        assert!(answer.single_push_result.iter().all(|r| r.resp.is_empty() && !r.online_push));
        node.await_count(Metric::PushNotReached, 3);
    });
}

#[test]
fn a_kick_that_no_shard_answers_ends_with_deadline_exceeded() {
    on_each_driver(Shards::Mute, |node| {
        let kick = KickUserOfflineReq { platform_id: 5, kick_user_id_list: vec!["on1".into()] };
        let path = "/openim.msggateway.msgGateway/KickUserOffline";
        let request = kick.encode_to_vec().into();
        let outcome = call_once(node.grpc, path, &[("operationid", "op")], request, 1_000);
        assert!(matches!(outcome, Err(CallError::Refused(Status { code: 4, .. }))), "{outcome:?}");
    });
}

#[test]
fn full_lanes_make_a_kick_unavailable_and_a_push_not_reached() {
    on_each_driver(Shards::Absent, |node| {
        for shard in &node.shards {
            while shard.control(Control::Stall(0)).is_ok() {}
            let news = || crate::hub::upstream::UserPlatforms { user: "u".into(), platforms: Vec::new() };
            while shard.push(ShardMail::PresenceNews(Box::new(news()))).is_ok() {}
        }
        let answer: OnlineBatchPushOneMsgResp =
            node.call(PUSH, &push_request(&["on1", "on2", "on3"])).unwrap();
        assert!(answer.single_push_result.iter().all(|r| r.resp.is_empty()));
        node.await_count(Metric::PushNotReached, 3);

        let kick = KickUserOfflineReq { platform_id: 5, kick_user_id_list: vec!["on1".into()] };
        let refused = node.call::<KickUserOfflineResp>("KickUserOffline", &kick).unwrap_err();
        assert_eq!((refused.code, refused.cause), (14, None));
    });
}

#[test]
fn nobody_listening_says_so() {
    // A port that was free a moment ago, on an address that nobody else uses.
    let listener = std::net::TcpListener::bind("127.0.0.12:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let outcome = call_once(address, "/a/b", &[], Bytes::new(), 60_000);
    let Err(error @ CallError::Connect(..)) = outcome else { panic!("{outcome:?}") };
    assert!(error.to_string().contains(&address.to_string()), "{error}");
}

#[test]
fn a_server_that_never_answers_costs_the_deadline() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let outcome = call_once(address, "/a/b", &[], Bytes::new(), 100);
    assert!(matches!(outcome, Err(CallError::Deadline(100))), "{outcome:?}");
}
