//! Bodies of 4 MiB and at the limit, plain and compressed, and many calls at once.

use prost::Message;
use tokio::task::JoinSet;
use tonic::Code;

use super::api::{admin, openim, push, with_gateway};
use super::pb::openim::msggateway::GetUsersOnlineStatusReq;

const OLD_BODY_BYTES: usize = 4 * 1024 * 1024;
const BODY_BYTES: usize = 8_388_608;
const MANY: usize = 1_000;

/// A request of exactly so many bytes: users of which nobody has heard.
fn status_request(bytes: usize) -> GetUsersOnlineStatusReq {
    // Tag, two bytes of length, name.
    let names = (0..(bytes - 8_000) / 4_003).map(|n| format!("{n:04000}"));
    let mut request = GetUsersOnlineStatusReq { user_i_ds: names.collect() };
    let left = bytes - request.encoded_len();
    request.user_i_ds.push("x".repeat(left - 3));
    assert_eq!(request.encoded_len(), bytes);
    request
}

#[test]
fn bodies_up_to_the_limit_are_taken_plain_and_compressed() {
    with_gateway(|_gateway, plain| async move {
        let gzip = plain.gzip();
        for (name, mut api) in [("plain", plain), ("gzip", gzip)] {
            for bytes in [OLD_BODY_BYTES, BODY_BYTES] {
                let answer = api.openim.get_users_online_status(admin(status_request(bytes))).await;
                assert!(answer.is_ok(), "{name} {bytes}: {answer:?}");
            }
            let refused =
                api.openim.get_users_online_status(admin(status_request(BODY_BYTES + 1))).await.unwrap_err();
            assert_eq!(refused.code(), Code::ResourceExhausted, "{name}: {refused}");
        }
    });
}

#[test]
fn an_answer_above_4_mib_arrives() {
    with_gateway(|_gateway, mut api| async move {
        let users = status_request(OLD_BODY_BYTES).user_i_ds;
        let mut request = push(&["nobody"], "x");
        request.push_to_user_i_ds.clone_from(&users);
        let answer =
            api.openim.super_group_online_batch_push_one_msg(openim(request)).await.unwrap().into_inner();
        assert!(answer.encoded_len() > OLD_BODY_BYTES);
        let mut named: Vec<_> = answer.single_push_result.into_iter().map(|r| r.user_id).collect();
        named.sort();
        assert_eq!(named, users);
    });
}

#[test]
fn a_thousand_calls_at_once_are_answered() {
    with_gateway(|gateway, api| async move {
        let mut calls = JoinSet::new();
        for _ in 0..MANY {
            let mut openim_client = api.openim.clone();
            calls.spawn(async move {
                let request = openim(push(&["nobody"], "x"));
                openim_client.super_group_online_batch_push_one_msg(request).await.map(drop)
            });
        }
        for outcome in calls.join_all().await {
            outcome.unwrap();
        }
        gateway.settles("pinion_rpc_connections", 1).await;
    });
}
