//! Every method of OpenIM's service, its metadata rules and its errors.

use std::time::Duration;

use tonic::{Code, Request};

use super::api::{Api, batch, details, openim, push, with_gateway};
use super::gateway::eventually;
use super::pb::openim::msggateway::{
    GetUsersOnlineStatusReq, KickUserOfflineReq, MultiTerminalLoginCheckReq, OnlinePushMsgReq,
};

const LINUX: i32 = 7;

#[test]
fn every_method_is_answered() {
    with_gateway(|gateway, mut api| async move {
        let listener = gateway.listen("anna");
        api.online("anna").await;
        assert_eq!(api.platforms("anna").await, [LINUX]);
        assert_eq!(api.platforms("nobody").await, [0; 0]);

        let request = openim(push(&["anna", "nobody"], "hello"));
        let answer = api.openim.super_group_online_batch_push_one_msg(request).await.unwrap().into_inner();
        let mut results: Vec<_> =
            answer.single_push_result.into_iter().map(|r| (r.user_id, r.resp.len())).collect();
        results.sort();
        assert_eq!(results, [("anna".to_owned(), 1), ("nobody".to_owned(), 0)]);
        eventually("the push", || listener.texts().contains(&"hello".to_owned()).then_some(())).await;

        let login =
            MultiTerminalLoginCheckReq { user_id: "nobody".into(), platform_id: LINUX, token: "t".into() };
        api.openim.multi_terminal_login_check(openim(login)).await.unwrap();

        let kick = KickUserOfflineReq { platform_id: LINUX, kick_user_id_list: vec!["anna".into()] };
        api.openim.kick_user_offline(openim(kick)).await.unwrap();
        eventually("the kick", || listener.saw("frame 2002").then_some(())).await;

        let single = OnlinePushMsgReq { msg_data: push(&["a"], "x").msg_data, push_to_user_id: "a".into() };
        let refused = api.openim.online_push_msg(openim(single)).await.unwrap_err();
        assert_eq!(
            (refused.code(), refused.message()),
            (Code::Unimplemented, "method OnlinePushMsg not implemented")
        );
        let refused = api.openim.online_batch_push_one_msg(openim(push(&["a"], "x"))).await.unwrap_err();
        assert_eq!(refused.code(), Code::Unimplemented);
    });
}

/// Spec 6.4, "Rust note": the code of an OpenIM error is on the wire and in the details, not in `tonic::Status`.
#[test]
fn codes_above_16_are_on_the_wire_though_tonic_folds_them() {
    with_gateway(|_gateway, mut api| async move {
        let kick = KickUserOfflineReq { platform_id: 10, kick_user_id_list: vec!["a".into()] };
        let refused = api.openim.kick_user_offline(openim(kick)).await.unwrap_err();
        assert_eq!((refused.code(), refused.message()), (Code::Unknown, "ArgsError"));
        assert_eq!(api.raw_status().as_deref(), Some("1001"));
        assert_eq!(details(&refused), (1001, "ArgsError".to_owned(), "PlatformID is invalid".to_owned()));

        let status = GetUsersOnlineStatusReq { user_i_ds: vec!["a".into()] };
        let refused = api.openim.get_users_online_status(openim(status)).await.unwrap_err();
        assert_eq!((refused.code(), api.raw_status().as_deref()), (Code::Unknown, Some("1002")));
        let cause = "only app manager".to_owned();
        assert_eq!(details(&refused), (1002, "NoPermissionError".to_owned(), cause));
    });
}

#[test]
fn exactly_one_operationid_is_wanted() {
    with_gateway(|_gateway, mut api| async move {
        let mut two = openim(push(&["a"], "x"));
        two.metadata_mut().append("operationid", "again".parse().unwrap());
        for request in [Request::new(push(&["a"], "x")), two] {
            let refused = api.openim.super_group_online_batch_push_one_msg(request).await.unwrap_err();
            assert_eq!((refused.code(), refused.message()), (Code::InvalidArgument, "operationID error"));
            assert!(refused.details().is_empty());
        }
    });
}

#[test]
fn an_answer_comes_before_the_callers_deadline() {
    with_gateway(|_gateway, mut api| async move {
        let mut request = Request::new(batch(1, "nobody", "x", 60_000));
        request.set_timeout(Duration::from_secs(20));
        let answer = api.pinion.send(request).await.unwrap().into_inner();
        assert_eq!(answer.verdicts.iter().map(|v| (v.id, v.last)).collect::<Vec<_>>(), [(1, true)]);

        let mut hasty = Request::new(batch(1, "nobody", "x", 60_000));
        hasty.set_timeout(Duration::from_millis(1));
        // tonic's own timer, the gateway's and its answer race; what must not be is a wait for `nobody`.
        if let Err(refused) = api.pinion.send(hasty).await {
            assert!(matches!(refused.code(), Code::Cancelled | Code::DeadlineExceeded), "{refused}");
        }
    });
}

#[test]
fn a_dropped_call_is_cancelled_at_the_gateway() {
    with_gateway(|gateway, api: Api| async move {
        let mut pinion = api.pinion.clone();
        let call = tokio::spawn(async move { pinion.send(batch(1, "nobody", "x", 60_000)).await });
        gateway.settles("pinion_rpc_calls_in_flight", 1).await;
        call.abort();
        gateway.settles("pinion_rpc_calls_in_flight", 0).await;
        gateway.settles("pinion_rpc_cancelled_total", 1).await;
    });
}
