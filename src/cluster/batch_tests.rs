//! Tests of the batch decoder: against prost, rule by rule, and at its limits.

use bytes::{BufMut, BytesMut};
use proptest::prelude::*;
use prost::Message;

use super::*;
use crate::pb::openim::sdkws::MsgData;
use crate::pb::pinion::v1::{AllLocalUsers, PushBatch, PushMessage, UserList, push_message::To as PbTo};

fn msg_data() -> MsgData {
    MsgData {
        send_id: "a".into(),
        recv_id: "b".into(),
        session_type: 1,
        content_type: 101,
        content: Bytes::from_static(b"{}"),
        ..MsgData::default()
    }
}

fn to_users(users: &[&str]) -> Option<PbTo> {
    Some(PbTo::Users(UserList { user_ids: users.iter().map(ToString::to_string).collect() }))
}

fn message() -> PushMessage {
    PushMessage {
        id: 7,
        msg_data: msg_data().encode_to_vec().into(),
        to: to_users(&["u1"]),
        ..PushMessage::default()
    }
}

fn decode(messages: Vec<PushMessage>) -> Result<Vec<BatchMessage>, BatchFault> {
    Batch::decode(PushBatch { messages }.encode_to_vec().into())?.check()
}

#[test]
fn all_fields_arrive_and_the_data_is_a_slice_of_the_request() {
    let sent = PushMessage {
        operation_id: "op".into(),
        to: Some(PbTo::AllLocalUsers(AllLocalUsers {})),
        only_if_online: true,
        expire_after_ms: 60_000,
        report: 1,
        ..message()
    };
    let body = Bytes::from(PushBatch { messages: vec![message(), sent.clone()] }.encode_to_vec());
    let batch = Batch::decode(body.clone()).unwrap();
    assert_eq!(batch.users(), 1);
    let messages = batch.check().unwrap();
    let [first, second] = &messages[..] else { panic!("{messages:?}") };
    let To::Users(users) = &first.to else { panic!() };
    assert_eq!((first.id, users[0].as_str(), first.report), (7, "u1", Report::Each));
    assert_eq!((first.only_if_online, first.expire_after_ms), (false, 0));
    assert!(matches!(second.to, To::AllLocal));
    assert_eq!((second.operation_id.as_str(), second.report), ("op", Report::Totals));
    assert_eq!((second.only_if_online, second.expire_after_ms), (true, 60_000));
    assert_eq!((second.msg_data.clone(), &*second.facts.conversation()), (sent.msg_data, "si_a_b"));
    assert!(body.as_ptr_range().contains(&second.msg_data.as_ptr()), "copied");
}

#[test]
fn each_rule_has_its_text_and_names_the_message() {
    let with = |change: &dyn Fn(&mut PushMessage)| {
        let mut message = message();
        change(&mut message);
        message
    };
    let data = |change: &dyn Fn(&mut MsgData)| {
        let mut data = msg_data();
        change(&mut data);
        PushMessage { msg_data: data.encode_to_vec().into(), ..message() }
    };
    let table = [
        (with(&|m| m.msg_data = Bytes::new()), "sendID is empty"),
        (with(&|m| m.msg_data = Bytes::from_static(b"\x0a\x05a")), "msg_data: unexpected end of the message"),
        (
            with(&|m| m.msg_data = Bytes::from_static(b"\x0a\x01\xff")),
            "msg_data: a string field contains invalid UTF-8",
        ),
        (data(&|d| d.content = Bytes::new()), "content is empty"),
        (
            data(&|d| d.content_type = 1400),
            "notification msg must have correct session type and content type",
        ),
        (with(&|m| m.to = None), "to is not set"),
        (with(&|m| m.to = to_users(&[])), "users is empty"),
        (with(&|m| m.expire_after_ms = 60_001), "expire_after_ms is above 60000"),
        (with(&|m| m.report = 2), "report is unknown"),
    ];
    for (bad, text) in table {
        let fault = decode(vec![message(), bad]).unwrap_err();
        assert_eq!(fault.text(), format!("messages[1] (id 7): {text}"));
    }
    assert_eq!(decode(Vec::new()).unwrap_err(), BatchFault::Empty);
}

#[test]
fn the_last_member_of_a_oneof_counts_and_lists_are_merged() {
    let one = UserList { user_ids: vec!["u1".into()] }.encode_to_vec();
    let two = UserList { user_ids: vec!["u2".into()] }.encode_to_vec();
    let users = |fields: &[(u8, &[u8])]| {
        let mut body = BytesMut::from(&PushMessage { to: None, ..message() }.encode_to_vec()[..]);
        for (number, value) in fields {
            body.put_u8(number << 3 | 2);
            body.put_u8(u8::try_from(value.len()).unwrap());
            body.put_slice(value);
        }
        let mut batch = BytesMut::new();
        batch.put_u8(1 << 3 | 2);
        batch.put_u8(u8::try_from(body.len()).unwrap());
        batch.put_slice(&body);
        match Batch::decode(batch.freeze()).unwrap().check().unwrap().remove(0).to {
            To::Users(users) => users.iter().map(|u| u.as_str().to_owned()).collect(),
            To::AllLocal => vec!["*".to_owned()],
        }
    };
    assert_eq!(users(&[(4, &one), (4, &two)]), ["u1", "u2"]);
    assert_eq!(users(&[(4, &one), (5, b""), (4, &two)]), ["u2"]);
    assert_eq!(users(&[(4, &one), (5, b"")]), ["*"]);
}

#[test]
fn messages_and_users_are_counted_over_the_batch() {
    assert_eq!(decode(vec![message(); PUSH_BATCH_MAX]).map(|m| m.len()), Ok(PUSH_BATCH_MAX));
    assert_eq!(decode(vec![message(); PUSH_BATCH_MAX + 1]).unwrap_err(), BatchFault::TooManyMessages);

    let half = |users| PushMessage { to: to_users(&vec![""; users]), ..message() };
    let most = RPC_USERS_MAX / 2;
    assert!(decode(vec![half(most), half(most)]).is_ok());
    assert_eq!(decode(vec![half(most), half(most + 1)]).unwrap_err(), BatchFault::TooManyUsers);
}

#[test]
fn what_is_no_batch_is_malformed() {
    let table: [(&'static [u8], Malformed); 6] = [
        (b"\x0a\x05", Malformed::Truncated),
        (b"\x08\x01", Malformed::WireType),
        (b"\x0a\x02\x0a\x00", Malformed::WireType),    // id as bytes
        (b"\x0a\x03\x1a\x01\xff", Malformed::NotUtf8), // operation_id
        (b"\x0a\x05\x22\x03\x0a\x01\xff", Malformed::NotUtf8), // a user
        (b"\x0a\x03\x2a\x01\x0b", Malformed::WireType), // inside all_local_users
    ];
    for (body, fault) in table {
        let got = Batch::decode(Bytes::from_static(body));
        assert_eq!(got.map(|_| ()), Err(BatchFault::Malformed(fault)), "{body:?}");
    }
}

proptest! {
    /// What prost refuses is refused, and what both take is the same.
    #[test]
    fn decoding_agrees_with_prost(
        mut body in prop::collection::vec(any::<u8>(), 0..60),
        good in any::<bool>(),
        at in any::<prop::sample::Index>(),
        with in any::<u8>(),
    ) {
        if good {
            body = PushBatch { messages: vec![message(), message()] }.encode_to_vec();
            let at = at.index(body.len());
            body[at] = with;
        }
        let ours = Batch::decode(body.clone().into());
        let Ok(theirs) = PushBatch::decode(body.as_slice()) else {
            prop_assert!(ours.is_err(), "{:?}", ours);
            return Ok(());
        };
        // prost skips groups and 5-byte tags that nobody sends; we refuse them.
        let Ok(ours) = ours else { return Ok(()) };
        prop_assert_eq!(ours.messages.len(), theirs.messages.len());
        for (ours, theirs) in ours.messages.iter().zip(&theirs.messages) {
            prop_assert_eq!(ours.id, theirs.id);
            prop_assert_eq!(&ours.msg_data, &theirs.msg_data);
            prop_assert_eq!(ours.operation_id.as_str(), theirs.operation_id.as_str());
            prop_assert_eq!(ours.only_if_online, theirs.only_if_online);
            prop_assert_eq!(ours.expire_after_ms, u64::from(theirs.expire_after_ms));
            let same = match (&ours.to, &theirs.to) {
                (None, None) | (Some(Named::AllLocal), Some(PbTo::AllLocalUsers(_))) => true,
                (Some(Named::Users(ours)), Some(PbTo::Users(theirs))) => {
                    ours.iter().map(Text::as_str).eq(theirs.user_ids.iter().map(String::as_str))
                }
                _ => false,
            };
            prop_assert!(same, "{:?} {:?}", ours.to, theirs.to);
        }
    }
}
