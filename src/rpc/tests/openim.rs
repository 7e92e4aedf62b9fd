//! OpenIM's service, rule by rule of the wire specification (sections 4 and 6, traps 17 to 24).

use super::grpc::{PUSH, push_request};
use super::*;
use crate::pb::openim::msggateway::{
    GetUsersOnlineStatusReq, GetUsersOnlineStatusResp, KickUserOfflineReq, KickUserOfflineResp,
    MultiTerminalLoginCheckReq, MultiTerminalLoginCheckResp, OnlineBatchPushOneMsgReq,
    OnlineBatchPushOneMsgResp, OnlinePushMsgReq, OnlinePushMsgResp,
};

const OPERATION: (&str, &str) = ("operationid", "op");

fn kick(platform_id: i32, users: &[&str]) -> KickUserOfflineReq {
    KickUserOfflineReq { platform_id, kick_user_id_list: users.iter().map(ToString::to_string).collect() }
}

fn status_of(users: &[&str]) -> GetUsersOnlineStatusReq {
    GetUsersOnlineStatusReq { user_i_ds: users.iter().map(ToString::to_string).collect() }
}

fn login(user: &str, platform_id: i32, token: &str) -> MultiTerminalLoginCheckReq {
    MultiTerminalLoginCheckReq { user_id: user.into(), platform_id, token: token.into() }
}

/// Calls a method with bytes; gives the code, the message and the cause of the refusal.
fn refusal(node: &Node, method: &str, metadata: &[(&str, &str)], body: Vec<u8>) -> (i32, String, String) {
    let path = format!("/openim.msggateway.msgGateway/{method}");
    match call_once(node.grpc, &path, metadata, body.into(), 60_000) {
        Err(CallError::Refused(status)) => (status.code, status.message, status.cause.unwrap_or_default()),
        other => panic!("{method}: {other:?}"),
    }
}

#[test]
fn request_checks_have_upstreams_texts_for_every_method() {
    // Spec 4.2. The texts of MsgData's own rules are in cluster/request_tests.rs.
    let no_user = push_request(&[]).encode_to_vec();
    let one = |user: &str| {
        let msg_data = push_request(&[]).msg_data;
        OnlinePushMsgReq { msg_data, push_to_user_id: user.to_owned() }.encode_to_vec()
    };
    let rows: Vec<(&str, Vec<u8>, &str)> = vec![
        (PUSH, Vec::new(), "MsgData is empty"),
        (PUSH, no_user.clone(), "PushToUserIDs is empty"),
        ("OnlineBatchPushOneMsg", Vec::new(), "MsgData is empty"),
        ("OnlineBatchPushOneMsg", no_user.clone(), "PushToUserIDs is empty"),
        ("OnlinePushMsg", Vec::new(), "MsgData is empty"),
        ("OnlinePushMsg", no_user, "PushToUserID is empty"),
        ("OnlinePushMsg", one(""), "PushToUserID is empty"),
        ("GetUsersOnlineStatus", Vec::new(), "UserIDs is empty"),
        ("KickUserOffline", Vec::new(), "PlatformID is invalid"),
        ("KickUserOffline", kick(9, &[]).encode_to_vec(), "KickUserIDList is empty"),
        ("MultiTerminalLoginCheck", Vec::new(), "PlatformID is invalid"),
        ("MultiTerminalLoginCheck", login("", 9, "").encode_to_vec(), "UserID is empty"),
        ("MultiTerminalLoginCheck", login("u", 9, "").encode_to_vec(), "token is empty"),
    ];
    on_each_driver(Shards::Answer, |node| {
        for (method, body, text) in &rows {
            let got = refusal(node, method, &[OPERATION], body.clone());
            assert_eq!(got, (1001, "ArgsError".to_owned(), (*text).to_owned()), "{method}");
        }
    });
}

#[test]
fn of_several_faults_the_first_in_upstreams_order_counts() {
    // Spec 6.3: decoding, metadata, request check, the method's own rules.
    on_each_driver(Shards::Answer, |node| {
        let method = "GetUsersOnlineStatus";
        let code = |metadata: &[(&str, &str)], body: &[u8]| refusal(node, method, metadata, body.to_vec()).0;
        assert_eq!(code(&[], b"\x0a\xff"), 13);
        assert_eq!(code(&[], b""), 3);
        assert_eq!(code(&[OPERATION], b""), 1001);
        assert_eq!(code(&[OPERATION], &status_of(&["on1"]).encode_to_vec()), 1002);
        // The methods that nobody implements are checked all the same.
        for method in ["OnlinePushMsg", "OnlineBatchPushOneMsg"] {
            let code =
                |metadata: &[(&str, &str)], body: &[u8]| refusal(node, method, metadata, body.to_vec()).0;
            assert_eq!((code(&[], b"\x0a\xff"), code(&[], b""), code(&[OPERATION], b"")), (13, 3, 1001));
        }
    });
}

#[test]
fn trap_17_codes_above_16_and_their_details_survive() {
    // Spec trap 17: what a caller reads back is what was meant, cause and all.
    on_each_driver(Shards::Answer, |node| {
        let refused = node.call_with::<KickUserOfflineResp>("KickUserOffline", &[OPERATION], &kick(0, &[]));
        assert_eq!(refused, Err(Status::args("PlatformID is invalid")));
        let request = status_of(&["on1"]);
        let refused =
            node.call_with::<GetUsersOnlineStatusResp>("GetUsersOnlineStatus", &[OPERATION], &request);
        assert_eq!(refused, Err(Status::openim(1002, "NoPermissionError", services::ADMINS_ONLY)));
    });
}

#[test]
fn trap_18_a_call_of_ours_carries_no_bytes_but_ascii() {
    // Spec trap 18, the sending side: refused here, before anything is sent. (The port does not even exist.)
    let nowhere = "127.0.0.1:1".parse().unwrap();
    for (key, value) in [("operationid", "ü"), ("operationid", "a\nb"), ("opuserid", "用户")] {
        let outcome = call_once(nowhere, "/a/b", &[OPERATION, (key, value)], Bytes::new(), 5_000);
        assert!(matches!(&outcome, Err(CallError::Protocol(text)) if text.contains(key)), "{outcome:?}");
    }
}

#[test]
fn trap_19_both_kick_methods_reject_platforms_10_and_11() {
    // Spec trap 19.
    on_each_driver(Shards::Answer, |node| {
        for platform in [-1, 0, 1, 9, 10, 11, 12, i32::MAX] {
            let expected =
                if (1..=9).contains(&platform) { Ok(()) } else { Err(Status::args("PlatformID is invalid")) };
            let kicked = node.call::<KickUserOfflineResp>("KickUserOffline", &kick(platform, &["on1"]));
            assert_eq!(kicked.map(|_| ()), expected, "{platform}");
            let request = login("on1", platform, "t");
            let checked = node.call::<MultiTerminalLoginCheckResp>("MultiTerminalLoginCheck", &request);
            assert_eq!(checked.map(|_| ()), expected, "{platform}");
        }
    });
}

#[test]
fn trap_22_two_methods_are_unimplemented() {
    // Spec trap 22: OpenIM 3.5 ends its process here.
    on_each_driver(Shards::Answer, |node| {
        for package in ["openim", "OpenIMServer"] {
            let path = |method: &str| format!("/{package}.msggateway.msgGateway/{method}");
            let unimplemented =
                |method: &str| Err(Status::new(12, format!("method {method} not implemented")));
            let msg_data = push_request(&[]).msg_data;
            let request = OnlinePushMsgReq { msg_data, push_to_user_id: "on1".into() };
            let answer = node.call_path::<OnlinePushMsgResp>(&path("OnlinePushMsg"), &[OPERATION], &request);
            assert_eq!(answer.map(drop), unimplemented("OnlinePushMsg"), "{package}");

            let batch = path("OnlineBatchPushOneMsg");
            let answer =
                node.call_path::<OnlineBatchPushOneMsgResp>(&batch, &[OPERATION], &push_request(&["on1"]));
            assert_eq!(answer.map(drop), unimplemented("OnlineBatchPushOneMsg"), "{package}");
        }
        node.await_count(Metric::RpcOtherError, 4);
        assert!(node.noted.is_empty());
    });
}

#[test]
fn trap_24_an_administrator_is_who_says_so() {
    // Spec trap 24, 4.4 and 6.2: P16's user id or MAIN's marker, both taken on trust. What comes back has live tokens.
    let marker = [("customheader", "ctxImTempAdminKey"), ("ctximtempadminkey", "1")];
    let rows: [(&[(&str, &str)], bool); 8] = [
        (&[], false),
        (&[("opuserid", "u1")], false),
        (&[("opuserid", "imadmin")], false),
        (&[("opuserid", "imAdmin")], true),
        (&[("opuserid", "imAdmin"), ("opuserid", "imAdmin")], false),
        (&marker, true),
        (&marker[1..], false),
        (&[("opuserid", "u1"), marker[0], marker[1]], true),
    ];
    on_each_driver(Shards::Answer, |node| {
        for (metadata, admin) in rows {
            let metadata = [&[OPERATION], metadata].concat();
            let answer = node.call_with::<GetUsersOnlineStatusResp>(
                "GetUsersOnlineStatus",
                &metadata,
                &status_of(&["on1"]),
            );
            let token = answer.map(|a| a.success_result[0].detail_platform_status[0].token.clone());
            let denied = Status::openim(1002, "NoPermissionError", services::ADMINS_ONLY);
            assert_eq!(token, if admin { Ok("t1".to_owned()) } else { Err(denied) }, "{metadata:?}");
        }
    });
}

#[test]
fn online_status_names_users_with_a_connection_in_the_order_asked_duplicates_too() {
    // Spec 4.4.
    on_each_driver(Shards::Answer, |node| {
        let asked = status_of(&["on3", "off", "on1", "on3", "on2"]);
        let answer: GetUsersOnlineStatusResp = node.call("GetUsersOnlineStatus", &asked).unwrap();
        assert!(answer.failed_result.is_empty());
        let found: Vec<_> = answer.success_result.iter().map(|r| (r.user_id.as_str(), r.status)).collect();
        assert_eq!(found, [("on3", 1), ("on1", 1), ("on3", 1), ("on2", 1)]);
        for result in &answer.success_result {
            let details: Vec<_> = result
                .detail_platform_status
                .iter()
                .map(|d| (d.platform_id, d.conn_id.as_str(), d.is_background, d.token.as_str()))
                .collect();
            assert_eq!(details, [(1, "c1", false, "t1"), (5, "c1", false, "t1")]);
        }
    });
}

#[test]
fn messages_of_8_388_608_bytes_pass_both_ways_and_one_byte_more_does_not() {
    // Spec 4.7. A row of a user who is not here is the user id and four bytes.
    let fits = |extra: usize| {
        let mut users: Vec<String> = (0..131_072).map(|n| format!("off{n:057}")).collect();
        users[0].extend(std::iter::repeat_n('x', extra));
        push_request(&users.iter().map(String::as_str).collect::<Vec<_>>())
    };
    let of_length = |length: usize| {
        let mut request = push_request(&["on1"]);
        let with_content = |request: &mut OnlineBatchPushOneMsgReq, bytes: usize| {
            request.msg_data.as_mut().unwrap().content = vec![b'x'; bytes].into();
        };
        // From here on the lengths of the two lengths around the content do not change.
        with_content(&mut request, 8_000_000);
        let rest = request.encoded_len() - 8_000_000;
        with_content(&mut request, length - rest);
        assert_eq!(request.encoded_len(), length);
        request
    };
    let push = |node: &Node, request: &OnlineBatchPushOneMsgReq| {
        let answer = node.call::<OnlineBatchPushOneMsgResp>(PUSH, request);
        answer.map(|a| a.encoded_len()).map_err(|s| (s.code, s.message))
    };
    on_each_driver(Shards::Answer, |node| {
        assert!(push(node, &of_length(8_388_608)).is_ok());
        let text = "grpc: received message larger than max (8388609 vs. 8388608)".to_owned();
        assert_eq!(push(node, &of_length(8_388_609)), Err((8, text)));
        assert_eq!(push(node, &fits(0)), Ok(8_388_608));
        let text = "grpc: trying to send message larger than max (8388609 vs. 8388608)".to_owned();
        assert_eq!(push(node, &fits(1)), Err((8, text)));
    });
}

#[test]
fn at_the_deadline_a_push_answers_what_is_there() {
    // Spec 4.3: OK, with empty results for the rest.
    on_each_driver(Shards::FirstAnswers, |node| {
        let users = ["on1", "on2", "on3", "on4", "on5", "on6"];
        let of_first = |user: &str| ownership().owner(user) == ShardId(0);
        assert!(users.iter().any(|u| of_first(u)) && !users.iter().all(|u| of_first(u)));
        let path = format!("/openim.msggateway.msgGateway/{PUSH}");
        let request = push_request(&users).encode_to_vec();
        let answer = call_once(node.grpc, &path, &[OPERATION], request.into(), 1_000).unwrap();
        let results = OnlineBatchPushOneMsgResp::decode(answer).unwrap().single_push_result;
        assert!(results.iter().map(|r| r.user_id.as_str()).eq(users));
        for result in results {
            let known = of_first(&result.user_id);
            assert_eq!((result.resp.len(), result.online_push), if known { (2, true) } else { (0, false) });
        }
        let missing = users.iter().filter(|u| !of_first(u)).count() as u64;
        node.await_count(Metric::PushNotReached, missing);
        node.await_count(Metric::RpcPushOk, 1);
    });
}
