//! The requests of the push API: what prost decodes, the hand-written walk reads as the same.
//!
//! Input: one byte (which request), its body.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use pinion::cluster::batch::Batch;
use pinion::cluster::fields::Malformed;
use pinion::cluster::request::{KickRequest, LoginRequest, PushRequest, StatusRequest};
use pinion::pb::openim::msggateway as pb;
use prost::Message;

fuzz_target!(|data: &[u8]| {
    let [kind, body @ ..] = data else { return };
    let body = Bytes::copy_from_slice(body);
    match kind % 5 {
        0 => push(body),
        1 => {
            let theirs = pb::KickUserOfflineReq::decode(body.clone());
            same(theirs, KickRequest::decode(body), |theirs, ours| {
                if let Ok((platform, users)) = ours.check() {
                    assert_eq!(theirs.platform_id, platform.id());
                    assert!(theirs.kick_user_id_list.iter().eq(users.iter().map(|user| user.as_str())));
                }
            });
        }
        2 => {
            let theirs = pb::GetUsersOnlineStatusReq::decode(body.clone());
            same(theirs, StatusRequest::decode(body), |theirs, ours| {
                let users = ours.check().unwrap_or_default();
                assert!(theirs.user_i_ds.iter().eq(users.iter().map(|user| user.as_str())));
            });
        }
        4 => drop(Batch::decode(body).and_then(Batch::check)),
        _ => {
            let theirs = pb::MultiTerminalLoginCheckReq::decode(body.clone());
            same(theirs, LoginRequest::decode(body), |theirs, ours| {
                if let Ok((user, platform, token)) = ours.check() {
                    assert_eq!((user.as_str(), platform.id()), (&*theirs.user_id, theirs.platform_id));
                    assert_eq!(token.as_str(), theirs.token);
                }
            });
        }
    }
});

fn push(body: Bytes) {
    let theirs = pb::OnlineBatchPushOneMsgReq::decode(body.clone());
    same(theirs, PushRequest::decode(body), |theirs, ours| {
        assert!(theirs.push_to_user_i_ds.iter().eq(ours.users.iter().map(|user| user.as_str())));
        assert_eq!(theirs.msg_data.is_some(), ours.message.is_some());
        if let Some((bytes, facts)) = &ours.message {
            facts.conversation();
            let raw = pinion::pb::openim::sdkws::MsgData::decode(bytes.clone());
            assert_eq!(raw.ok(), theirs.msg_data, "the raw bytes are the message");
        }
        drop(ours.check());
    });
}

/// Both read it; or prost does not, and then nothing is promised but that nothing panics. We refuse wire types that
/// prost takes: groups, and a map entry that is no message.
fn same<T, O>(theirs: Result<T, prost::DecodeError>, ours: Result<O, Malformed>, check: impl FnOnce(T, O)) {
    match (theirs, ours) {
        (Ok(theirs), Ok(ours)) => check(theirs, ours),
        (Ok(_), Err(fault)) => assert_eq!(fault, Malformed::WireType, "prost reads it"),
        (Err(_), _) => {}
    }
}
