//! Behaviour of the whole backend: calls in, replies and pushes out; real requests of real clients among them.

mod captures;
mod pull;

use super::*;
use crate::backend::token;
use crate::hub::upstream::CallMetadata;
use crate::ids::{CallTicket, Platform, SlotId};
use crate::limits;
use crate::pb::openim::msg::{SendMsgReq, SendMsgResp};
use crate::pb::openim::sdkws::{MsgData, PullMsgs};
use crate::time::Mono;

const SECRET: &str = "openIM123";
const TICKET: CallTicket = CallTicket(SlotId { index: 3, generation: 4 });

fn now() -> Now {
    Now { mono: Mono(1), unix: UnixMs(1_750_000_000_000) }
}

fn backend(history: HistoryLimits) -> Embedded {
    Embedded::new(EmbeddedConfig { secret: SECRET.into(), history })
}

fn question(user: &str, request: UpstreamRequest) -> UpstreamCall {
    UpstreamCall {
        shard: ShardId(0),
        ticket: Some(TICKET),
        deadline: Mono(u64::MAX),
        metadata: CallMetadata {
            operation_id: "op".into(),
            user: user.into(),
            platform: Platform::WEB,
            connection_id: "c".into(),
        },
        request,
    }
}

fn ask(backend: &mut Embedded, user: &str, request: UpstreamRequest) -> UpstreamOutcome {
    let answer = backend.call(now(), &question(user, request));
    let reply = answer.reply.unwrap();
    assert_eq!(reply.ticket, TICKET);
    reply.outcome
}

fn forward(
    backend: &mut Embedded,
    user: &str,
    method: Method,
    data: Vec<u8>,
) -> (UpstreamOutcome, Vec<BackendPush>) {
    let data = data.into();
    let answer = backend.call(now(), &question(user, UpstreamRequest::Forward { method, data }));
    (answer.reply.unwrap().outcome, answer.pushes)
}

fn reply<T: Message + Default>(
    backend: &mut Embedded,
    user: &str,
    method: Method,
    request: &impl Message,
) -> T {
    let (outcome, pushes) = forward(backend, user, method, request.encode_to_vec());
    assert_eq!(pushes, []);
    data(outcome)
}

fn data<T: Message + Default>(outcome: UpstreamOutcome) -> T {
    match outcome {
        UpstreamOutcome::Data(bytes) => T::decode(bytes).unwrap(),
        other => panic!("no data: {other:?}"),
    }
}

fn code(outcome: &UpstreamOutcome) -> i32 {
    match outcome {
        UpstreamOutcome::Failed(error) => error.code,
        other => panic!("no error: {other:?}"),
    }
}

fn message(send: &str, recv: &str, text: &str) -> MsgData {
    MsgData {
        send_id: send.into(),
        recv_id: recv.into(),
        client_msg_id: format!("client {text}"),
        session_type: 1,
        content_type: 101,
        content: text.to_owned().into(),
        status: 1,
        ..MsgData::default()
    }
}

/// Sends, and gives the pushed message back.
fn send_ok(backend: &mut Embedded, message: &MsgData) -> (SendMsgResp, BackendPush) {
    let (outcome, mut pushes) = forward(backend, &message.send_id, Method::SendMsg, message.encode_to_vec());
    let resp = data(outcome);
    assert_eq!(pushes.len(), 1);
    (resp, pushes.remove(0))
}

fn options(pairs: &[(&str, bool)]) -> std::collections::BTreeMap<String, bool> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), *value)).collect()
}

/// Ten messages of "b" to "a", of which 3..=10 are kept.
fn trimmed() -> Embedded {
    let mut backend = backend(HistoryLimits { history_max: 8, pull_max: 5, ..HistoryLimits::default() });
    for n in 1..=10 {
        send_ok(&mut backend, &message("b", "a", &n.to_string()));
    }
    backend
}

fn users(push: &BackendPush) -> Vec<&str> {
    push.users.iter().map(Text::as_str).collect()
}

fn seqs(part: &PullMsgs) -> Vec<i64> {
    part.msgs.iter().map(|m| m.seq).collect()
}

#[test]
fn a_sent_message_is_numbered_answered_and_pushed_to_both() {
    let mut backend = backend(HistoryLimits::default());
    let (resp, push) = send_ok(&mut backend, &message("b", "a", "one"));
    let pushed = MsgData::decode(push.msg_data.clone()).unwrap();
    assert_eq!(
        resp,
        SendMsgResp {
            server_msg_id: pushed.server_msg_id.clone(),
            client_msg_id: "client one".into(),
            send_time: now().unix.0,
            modify: None
        }
    );
    assert_eq!(
        pushed,
        MsgData {
            server_msg_id: resp.server_msg_id.clone(),
            send_time: now().unix.0,
            seq: 1,
            status: 2,
            ..message("b", "a", "one")
        }
    );
    assert_eq!(users(&push), ["a", "b"]);
    assert_eq!((&*push.conversation, push.operation_id.as_str()), ("si_a_b", "op"));
    let (second, push) = send_ok(&mut backend, &message("a", "b", "two"));
    assert_eq!(MsgData::decode(push.msg_data).unwrap().seq, 2);
    assert_ne!(second.server_msg_id, resp.server_msg_id);
    assert_eq!(backend.messages(), 2);
}

#[test]
fn options_decide_who_is_pushed_and_what_is_kept() {
    type Options = &'static [(&'static str, bool)];
    type Recipients = &'static [&'static str];
    let table: [(&str, &str, Options, Recipients, &str, i64); 6] = [
        ("a", "b", &[], &["b", "a"], "si_a_b", 1),
        ("a", "b", &[("senderSync", true)], &["b", "a"], "si_a_b", 1),
        ("a", "b", &[("senderSync", false)], &["b"], "si_a_b", 1),
        ("a", "a", &[], &["a"], "si_a_a", 1),
        ("a", "b", &[("history", false)], &["b", "a"], "si_a_b", 0),
        ("a", "b", &[("isNotNotification", false)], &["b", "a"], "n_a_b", 1),
    ];
    for (send, recv, pairs, recipients, conversation, seq) in table {
        let mut backend = backend(HistoryLimits::default());
        let sent = MsgData { options: options(pairs), seq: 77, ..message(send, recv, "x") };
        let (_, push) = send_ok(&mut backend, &sent);
        assert_eq!(users(&push), recipients, "{pairs:?}");
        assert_eq!(&*push.conversation, conversation, "{pairs:?}");
        assert_eq!(MsgData::decode(push.msg_data).unwrap().seq, seq, "{pairs:?}");
        assert_eq!(backend.messages(), usize::from(seq > 0), "{pairs:?}");
    }
}

#[test]
fn refused_messages_leave_no_trace() {
    let base = message("a", "b", "x");
    let id = |length| "i".repeat(length);
    let table = [
        (MsgData { send_id: "b".into(), ..base.clone() }, 1002),
        (MsgData { recv_id: String::new(), ..base.clone() }, 1001),
        (MsgData { content: Bytes::new(), ..base.clone() }, 1001),
        (MsgData { session_type: 3, group_id: "g".into(), ..base.clone() }, 1001),
        (MsgData { session_type: 4, ..base.clone() }, 1001),
        (MsgData { recv_id: id(limits::EMBEDDED_USER_ID_BYTES + 1), ..base.clone() }, 1001),
        (MsgData { ex: id(limits::EMBEDDED_MESSAGE_BYTES), ..base.clone() }, 1001),
    ];
    let mut backend = backend(HistoryLimits::default());
    for (message, expected) in table {
        let (outcome, pushes) = forward(&mut backend, "a", Method::SendMsg, message.encode_to_vec());
        assert_eq!((code(&outcome), pushes), (expected, vec![]), "{message:?}");
    }
    let (outcome, _) = forward(&mut backend, "a", Method::SendSignalMsg, base.encode_to_vec());
    assert_eq!(outcome, UpstreamOutcome::Failed(UpstreamError::args("MsgData is empty")));
    assert_eq!(*backend.state(), State::default());
    let long = MsgData { recv_id: id(limits::EMBEDDED_USER_ID_BYTES), ..base };
    send_ok(&mut backend, &long);
}

#[test]
fn trap_23_request_1004_never_succeeds() {
    // Spec trap 23: not even with a message that 1003 accepts.
    let mut backend = trimmed();
    let request = SendMsgReq { msg_data: Some(message("a", "b", "x")) };
    for data in [Vec::new(), b"\xff".to_vec(), request.encode_to_vec()] {
        let (outcome, pushes) = forward(&mut backend, "a", Method::SendSignalMsg, data);
        assert_eq!((code(&outcome), pushes.len()), (1001, 0), "{outcome:?}");
    }
    send_ok(&mut backend, &message("a", "b", "x"));
}

#[test]
fn every_method_refuses_garbage_and_foreign_data() {
    let all = [
        (Method::GetMaxSeq, Some(1002)),
        (Method::PullMessageBySeqs, Some(1002)),
        (Method::SendMsg, Some(1002)),
        (Method::SendSignalMsg, None),
        (Method::GetSeqMessage, Some(1002)),
        (Method::GetConversationsHasReadAndMaxSeq, Some(1002)),
        (Method::GetLastMessage, Some(1002)),
        (Method::DelUserPushToken, None),
    ];
    let mut backend = backend(HistoryLimits::default());
    for (method, foreign) in all {
        // Field 1, two bytes announced, one there.
        let (outcome, _) = forward(&mut backend, "a", method, vec![0x0a, 2, b'x']);
        let expected = if method == Method::SendSignalMsg { 1001 } else { 500 };
        assert_eq!(code(&outcome), expected, "{method:?}");
        if let Some(foreign) = foreign {
            // In every one of these messages field 1 is the user id.
            let (outcome, _) = forward(&mut backend, "a", method, vec![0x0a, 1, b'z']);
            assert_eq!(code(&outcome), foreign, "{method:?}");
        }
    }
    let (outcome, _) = forward(&mut backend, "a", Method::DelUserPushToken, vec![]);
    assert_eq!(outcome, UpstreamOutcome::Data(Bytes::new()));
}

#[test]
fn tokens_log_in_until_a_kick_ends_them() {
    let mut backend = backend(HistoryLimits::default());
    let unix = now().unix;
    let token = |n: i64| token::issue(SECRET, "u", Platform::WEB, unix, 100 + n).unwrap();
    let parse = |token: String| UpstreamRequest::ParseToken { token: token.into() };
    let good = UpstreamOutcome::Token { user: "u".into(), platform: 5 };
    for n in 0..3 {
        assert_eq!(ask(&mut backend, "", parse(token(n))), good);
    }
    let invalidate = UpstreamRequest::InvalidateToken {
        preserved: token(1).into(),
        user: "u".into(),
        platform: Platform::WEB,
    };
    let unasked = UpstreamCall { ticket: None, ..question("u", invalidate) };
    assert_eq!(backend.call(now(), &unasked), Answer { reply: None, pushes: vec![] });
    assert_eq!(code(&ask(&mut backend, "", parse(token(0)))), 1506);
    assert_eq!(ask(&mut backend, "", parse(token(1))), good);
    let kick =
        UpstreamRequest::KickTokens { tokens: vec!["not a token".into(), token(1).into(), token(7).into()] };
    ask(&mut backend, "u", kick);
    for n in [1, 2, 7] {
        assert_eq!(code(&ask(&mut backend, "", parse(token(n)))), 1506);
    }
    assert_eq!(ask(&mut backend, "", parse(token(8))), good);
    assert_eq!(code(&ask(&mut backend, "", parse("x".into()))), 1503);
}

#[test]
fn statuses_come_in_the_order_asked_with_duplicates() {
    let mut backend = backend(HistoryLimits::default());
    let record =
        PresenceRecord { user: "b".into(), online: vec![7, 5], offline: vec![], ..Default::default() };
    assert!(backend.presence(now(), &record, ShardId(1)).is_some());
    let users = ["a", "b", "b"].map(Box::from).to_vec();
    let platforms =
        |user: &str, platforms: &[i32]| UserPlatforms { user: user.into(), platforms: platforms.to_vec() };
    assert_eq!(
        ask(&mut backend, "a", UpstreamRequest::UserStatus { users }),
        UpstreamOutcome::Statuses(vec![
            platforms("a", &[]),
            platforms("b", &[5, 7]),
            platforms("b", &[5, 7])
        ])
    );
}

#[test]
fn a_state_that_was_written_out_and_read_back_goes_on_the_same() {
    let mut first = trimmed();
    let record = PresenceRecord { user: "b".into(), online: vec![7], offline: vec![], ..Default::default() };
    first.presence(now(), &record, ShardId(1));
    let token = token::issue(SECRET, "u", Platform::WEB, now().unix, 100).unwrap();
    ask(&mut first, "", UpstreamRequest::ParseToken { token: token.into() });
    let text = serde_json::to_string(first.state()).unwrap();
    assert!(!text.contains(SECRET));
    let state: State = serde_json::from_str(&text).unwrap();
    assert_eq!(state, *first.state());
    let mut second = Embedded::with_state(first.config.clone(), state);
    let next = message("a", "b", "next");
    assert_eq!(send_ok(&mut first, &next), send_ok(&mut second, &next));
    assert_eq!(first.state(), second.state());
}

#[test]
fn debug_output_hides_the_secret() {
    assert!(!format!("{:?}", backend(HistoryLimits::default())).contains(SECRET));
}
