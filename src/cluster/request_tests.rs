//! Tests of the hand-written decoders against prost, and of the request checks.

use std::collections::BTreeMap;

use proptest::prelude::*;
use prost::Message;

use super::*;
use crate::pb::openim::msggateway::{
    GetUsersOnlineStatusReq, KickUserOfflineReq, MultiTerminalLoginCheckReq, OnlineBatchPushOneMsgReq,
};
use crate::pb::openim::sdkws::MsgData;

fn message() -> MsgData {
    MsgData {
        send_id: "u2".into(),
        recv_id: "u1".into(),
        session_type: 1,
        content_type: 101,
        content: Bytes::from_static(b"{}"),
        ..Default::default()
    }
}

fn push(msg_data: Option<MsgData>, users: &[&str]) -> Bytes {
    let request = OnlineBatchPushOneMsgReq {
        msg_data,
        push_to_user_i_ds: users.iter().map(ToString::to_string).collect(),
    };
    request.encode_to_vec().into()
}

fn check(msg_data: Option<MsgData>, users: &[&str]) -> Result<Box<str>, &'static str> {
    let request = PushRequest::decode(push(msg_data, users)).expect("decodes");
    request.check().map(|(_, facts, _)| facts.conversation())
}

#[test]
fn push_checks_speak_upstreams_words_in_upstreams_order() {
    let with = |change: fn(&mut MsgData)| {
        let mut message = message();
        change(&mut message);
        Some(message)
    };
    let mismatch = "notification msg must have correct session type and content type";
    let table = [
        (None, vec!["u1"], Err("MsgData is empty")),
        (Some(MsgData::default()), vec![], Err("sendID is empty")),
        (with(|m| m.content = Bytes::new()), vec![], Err("content is empty")),
        (with(|m| m.session_type = 4), vec![], Err(mismatch)),
        (with(|m| m.content_type = 1400), vec![], Err(mismatch)),
        (with(|_| {}), vec![], Err("PushToUserIDs is empty")),
        (with(|_| {}), vec!["u1"], Ok("si_u1_u2")),
        (with(|m| (m.session_type, m.content_type) = (4, 1400)), vec!["u1"], Ok("sn_u1_u2")),
    ];
    for (msg_data, users, expected) in table {
        assert_eq!(check(msg_data, &users), expected.map(Into::into));
    }
}

#[test]
fn the_option_decides_chat_or_notification_and_missing_means_chat() {
    for (options, key) in [
        (vec![], "si_u1_u2"),
        (vec![("isNotNotification", true)], "si_u1_u2"),
        (vec![("isNotNotification", false)], "n_u1_u2"),
        (vec![("history", false)], "si_u1_u2"),
    ] {
        let mut message = message();
        message.options = options.iter().map(|(k, v)| (k.to_string(), *v)).collect::<BTreeMap<_, _>>();
        assert_eq!(check(Some(message), &["u1"]).as_deref(), Ok(key), "{options:?}");
    }
}

#[test]
fn a_message_field_that_comes_twice_is_merged() {
    let mut body = push(Some(message()), &["u1"]).to_vec();
    let second = MsgData { group_id: "g1".into(), session_type: 3, ..Default::default() };
    body.extend_from_slice(&push(Some(second), &["u1"]));
    let (raw, facts, users) = PushRequest::decode(body.into()).expect("decodes").check().expect("passes");
    assert_eq!(facts.conversation().as_ref(), "sg_g1");
    assert_eq!(MsgData::decode(raw).expect("decodes").send_id, "u2");
    assert_eq!(users.len(), 2, "duplicates are kept");
}

#[test]
fn message_bytes_and_users_are_slices_of_the_request() {
    let body = push(Some(message()), &["u1", "u2"]);
    let range = body.as_ptr_range();
    let (raw, _, users) = PushRequest::decode(body.clone()).expect("decodes").check().expect("passes");
    assert!(range.contains(&raw.as_ptr()));
    assert!(users.iter().all(|u| range.contains(&u.as_ptr())));
}

#[test]
fn wrong_wire_types_and_bad_text_in_the_message_are_refused() {
    let table: [(&[u8], Malformed); 7] = [
        (b"\x08\x01", Malformed::WireType),              // sendID as varint
        (b"\x98\x01\x00", Malformed::WireType), // options as varint: prost takes it (found by fuzzing)
        (b"\x4a\x00", Malformed::WireType),     // sessionType as bytes
        (b"\x0a\x01\xff", Malformed::NotUtf8),  // sendID
        (b"\x3a\x01\xff", Malformed::NotUtf8),  // senderNickname, which is only passed on
        (b"\x9a\x01\x02\x0a\x05", Malformed::Truncated), // an option cut short
        (b"\x62\x05ab", Malformed::Truncated),  // content
    ];
    for (msg_data, fault) in table {
        assert_eq!(MessageFacts::read(&Bytes::from_static(msg_data)), Err(fault), "{msg_data:?}");
    }
}

#[test]
fn a_list_above_its_limit_is_refused() {
    let body: Vec<u8> = b"\x12\x00".repeat(RPC_USERS_MAX + 1);
    assert_eq!(PushRequest::decode(body.into()), Err(Malformed::TooMany));
}

#[test]
fn kick_status_and_login_checks_follow_the_table() {
    let kick = |platform_id, users: &[&str]| {
        let request = KickUserOfflineReq {
            platform_id,
            kick_user_id_list: users.iter().map(ToString::to_string).collect(),
        };
        KickRequest::decode(request.encode_to_vec().into()).expect("decodes").check()
    };
    assert_eq!(kick(5, &["u1"]).map(|(p, u)| (p.id(), u.len())), Ok((5, 1)));
    for platform in [0, 10, 11, 12, -1] {
        assert_eq!(kick(platform, &["u1"]), Err("PlatformID is invalid"), "{platform}");
    }
    assert_eq!(kick(9, &[]), Err("KickUserIDList is empty"));

    let status = |users: &[&str]| {
        let request = GetUsersOnlineStatusReq { user_i_ds: users.iter().map(ToString::to_string).collect() };
        StatusRequest::decode(request.encode_to_vec().into()).expect("decodes").check()
    };
    assert_eq!(status(&[]), Err("UserIDs is empty"));
    assert_eq!(status(&["u1", "u1"]).map(|u| u.len()), Ok(2));

    let login = |user: &str, platform_id, token: &str| {
        let request = MultiTerminalLoginCheckReq { user_id: user.into(), platform_id, token: token.into() };
        LoginRequest::decode(request.encode_to_vec().into()).expect("decodes").check()
    };
    assert_eq!(login("", 10, ""), Err("PlatformID is invalid"));
    assert_eq!(login("", 1, ""), Err("UserID is empty"));
    assert_eq!(login("u1", 1, ""), Err("token is empty"));
    assert!(login("u1", 1, "t").is_ok());
}

proptest! {
    #[test]
    fn decoding_agrees_with_prost(
        (send, recv, group) in ("[a-z]{0,4}", "[a-z]{0,4}", "\\PC{0,3}"),
        (session_type, content_type, seq) in (any::<i32>(), any::<i32>(), any::<i64>()),
        content in prop::collection::vec(any::<u8>(), 0..20),
        options in prop::collection::btree_map("isNotNotification|history|x", any::<bool>(), 0..3),
        users in prop::collection::vec("\\PC{0,5}", 0..5),
    ) {
        let msg_data = MsgData {
            send_id: send.clone(), recv_id: recv.clone(), group_id: group.clone(), session_type, content_type, seq,
            content: content.clone().into(), options: options.clone(), is_read: true,
            at_user_id_list: users.clone(), ex: group.clone(), ..Default::default()
        };
        let request = OnlineBatchPushOneMsgReq { msg_data: Some(msg_data.clone()), push_to_user_i_ds: users.clone() };
        let got = PushRequest::decode(request.encode_to_vec().into()).expect("prost's encoding decodes");
        let (raw, facts) = got.message.expect("present");
        prop_assert_eq!(MsgData::decode(raw).expect("decodes"), msg_data);
        prop_assert_eq!(facts, MessageFacts {
            sender: send.into(), receiver: recv.into(), group: group.into(), session_type, content_type,
            has_content: !content.is_empty(),
            is_notification: options.get("isNotNotification") == Some(&false),
        });
        prop_assert!(got.users.iter().map(|u| u.as_str()).eq(users.iter().map(String::as_str)));
    }

    #[test]
    fn a_truncated_request_is_what_prost_says_it_is(
        users in prop::collection::vec("[a-z]{0,5}", 0..4),
        cut in any::<prop::sample::Index>(),
    ) {
        let request = OnlineBatchPushOneMsgReq { msg_data: Some(message()), push_to_user_i_ds: users };
        let bytes = request.encode_to_vec();
        let cut = Bytes::copy_from_slice(&bytes[..cut.index(bytes.len())]);
        prop_assert_eq!(PushRequest::decode(cut.clone()).is_ok(), OnlineBatchPushOneMsgReq::decode(cut).is_ok());
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let bytes = Bytes::from(bytes);
        let outcomes = [
            PushRequest::decode(bytes.clone()).is_ok(), KickRequest::decode(bytes.clone()).is_ok(),
            StatusRequest::decode(bytes.clone()).is_ok(), LoginRequest::decode(bytes).is_ok(),
        ];
        prop_assert!(outcomes.len() == 4);
    }
}
