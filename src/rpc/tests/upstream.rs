//! The embedded backend behind the shards' mail.

use super::*;
use crate::hub::upstream::{
    CallMetadata, Method, PresenceRecord, UpstreamCall, UpstreamOutcome, UpstreamRequest, UserPlatforms,
};
use crate::ids::{CallTicket, SlotId};
use crate::pb::openim::sdkws::MsgData;

/// Spec A.5: user `u1` on platform 1, expires in 2027.
pub(super) const TOKEN: &str = concat!(
    "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.",
    "eyJVc2VySUQiOiJ1MSIsIlBsYXRmb3JtSUQiOjEsImV4cCI6MTgwMDAwMDAwMCwiaWF0IjoxNzAwMDAwMDAwfQ.",
    "di_ejGECUyuK_JdnwMaTqPAtI6-afGebnLYJcHAh-S0"
);

pub(super) fn ask(node: &Node, shard: u16, request: UpstreamRequest) {
    let call = UpstreamCall {
        shard: ShardId(shard),
        ticket: Some(CallTicket(SlotId { index: 7, generation: u32::from(shard) })),
        deadline: clock::now().mono.plus_ms(60_000),
        metadata: CallMetadata {
            operation_id: "op".into(),
            user: "u1".into(),
            platform: Platform::IOS,
            connection_id: "c".into(),
        },
        request,
    };
    node.rpc.post(RpcMail::Call(Box::new(call))).unwrap();
}

pub(super) fn await_mail<T>(mut next: impl FnMut() -> Option<T>) -> T {
    let start = clock::now().mono;
    loop {
        if let Some(mail) = next() {
            return mail;
        }
        assert!(clock::now().mono.since_ms(start) < 60_000, "no mail came");
        std::thread::yield_now();
    }
}

#[test]
fn questions_are_answered_to_the_shard_that_asked() {
    on_each_driver(Shards::Absent, |node| {
        for shard in [0u16, 1] {
            ask(node, shard, UpstreamRequest::ParseToken { token: TOKEN.into() });
            let reply = await_mail(|| node.inboxes[usize::from(shard)].next_reply());
            assert_eq!(reply.ticket.0.generation, u32::from(shard));
            let token = UpstreamOutcome::Token { user: "u1".into(), platform: 1 };
            assert_eq!(reply.outcome, token);
        }
    });
}

#[test]
fn a_sent_message_is_pushed_to_the_owners_of_both_users_without_a_ticket() {
    on_each_driver(Shards::Absent, |node| {
        let ownership = Ownership::new([1, 2], SHARDS);
        let message = MsgData {
            send_id: "u1".into(),
            recv_id: "u2".into(),
            client_msg_id: "m1".into(),
            session_type: 1,
            content_type: 101,
            content: Bytes::from_static(b"{}"),
            ..Default::default()
        };
        let data = message.encode_to_vec().into();
        let method = Method::SendMsg;
        ask(node, 0, UpstreamRequest::Forward { method, data });
        let reply = await_mail(|| node.inboxes[0].next_reply());
        assert!(matches!(reply.outcome, UpstreamOutcome::Data(_)), "{reply:?}");
        let owner = usize::from(ownership.owner("u2").0);
        let ShardMail::Push(push) = await_mail(|| node.inboxes[owner].next_push()) else { panic!() };
        assert_eq!((push.ticket, &*push.body.conversation), (None, "si_u1_u2"));
        assert!(push.audience.listed().iter().any(|r| r.user.as_str() == "u2"));
    });
}

#[test]
fn presence_reaches_every_shard() {
    on_each_driver(Shards::Absent, |node| {
        let record =
            PresenceRecord { user: "u1".into(), online: vec![1], offline: Vec::new(), ..Default::default() };
        node.rpc.post(RpcMail::Presence(Box::new(record))).unwrap();
        for inbox in &node.inboxes {
            let news = UserPlatforms { user: "u1".into(), platforms: vec![1] };
            assert_eq!(await_mail(|| inbox.next_push()), ShardMail::PresenceNews(Box::new(news)));
        }
    });
}
