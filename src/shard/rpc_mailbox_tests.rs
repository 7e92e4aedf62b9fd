//! Tests of an rpc thread's mailbox: the order and the edge of each lane.

use super::*;
use crate::control::news::News;
use crate::hub::cluster::ClusterNews;
use crate::hub::upstream::{CallMetadata, UpstreamRequest};
use crate::ids::{CallTicket, Platform, RpcId, SlotId};

fn slot(index: usize) -> SlotId {
    SlotId { index: u32::try_from(index).unwrap(), generation: 1 }
}

fn call(ticket: Option<usize>) -> RpcMail {
    RpcMail::Call(Box::new(UpstreamCall {
        shard: ShardId(0),
        ticket: ticket.map(|n| CallTicket(slot(n))),
        deadline: Mono(1),
        metadata: CallMetadata {
            operation_id: "o".into(),
            user: "u".into(),
            platform: Platform::WEB,
            connection_id: "c".into(),
        },
        request: UpstreamRequest::ParseToken { token: "t".into() },
    }))
}

fn outcome(index: usize) -> RpcMail {
    RpcMail::Outcome {
        shard: ShardId(0),
        ticket: RpcTicket { rpc: RpcId(0), slot: slot(index) },
        outcome: Box::new(RpcOutcome::RemoteLogin),
    }
}

fn presence() -> RpcMail {
    RpcMail::Presence(Box::new(PresenceRecord {
        user: "u".into(),
        online: vec![1],
        offline: vec![],
        ..Default::default()
    }))
}

fn cluster() -> RpcMail {
    RpcMail::Cluster(Box::new(ClusterNews::Gone(1)))
}

/// One letter per kind of mail.
fn letter(mail: &RpcMail) -> char {
    match mail {
        RpcMail::Drain(_) => 'd',
        RpcMail::Main(_) => 'm',
        RpcMail::Outcome { .. } => 'o',
        RpcMail::Cluster(_) => 'k',
        RpcMail::Call(call) if call.ticket.is_some() => 'c',
        RpcMail::Call(_) => 'n',
        RpcMail::News(_) => 'w',
        RpcMail::Presence(_) => 'p',
    }
}

#[test]
fn lanes_are_read_in_their_order_and_each_in_its_own() {
    let (address, inbox) = rpc_mailbox(1).unwrap();
    for mail in [
        presence(),
        RpcMail::News(Box::new(News::Resubscribed)),
        call(None),
        call(Some(1)),
        cluster(),
        outcome(1),
        outcome(2),
        RpcMail::Drain(Mono(1)),
        call(Some(2)),
    ] {
        address.post(mail).unwrap();
    }
    assert_eq!(inbox.depth(), 9);
    let mails: Vec<_> = std::iter::from_fn(|| inbox.next()).collect();
    assert_eq!(mails.iter().map(letter).collect::<String>(), "dookccnwp");
    let slots: Vec<_> = mails
        .iter()
        .filter_map(|mail| match mail {
            RpcMail::Outcome { ticket, .. } => Some(ticket.slot.index),
            RpcMail::Call(call) => call.ticket.map(|ticket| ticket.0.index),
            _ => None,
        })
        .collect();
    assert_eq!(slots, [1, 2, 1, 2]);
}

/// What is posted by number, how many of it fit for two shards, and how many refusals are counted.
type Edge = (fn(usize) -> RpcMail, usize, u64);

#[test]
fn each_lane_holds_what_its_limit_says_and_gives_back_one_more() {
    let edges: [Edge; 7] = [
        (|_| RpcMail::Drain(Mono(1)), limits::RPC_CONTROL_LANE_MAX, 1),
        (outcome, 2 * limits::RPC_CALLS_MAX as usize, 0),
        (|_| cluster(), limits::CLUSTER_LANE_MAX, 0),
        (|n| call(Some(n)), 2 * limits::CALLS_IN_FLIGHT_MAX as usize, 1),
        (|_| call(None), limits::NOTICE_LANE_MAX, 1),
        (|_| RpcMail::News(Box::new(News::Resubscribed)), limits::NEWS_LANE_MAX, 0),
        (|_| presence(), limits::PRESENCE_LANE_MAX, 0),
    ];
    for (mail, fits, counted) in edges {
        let (address, inbox) = rpc_mailbox(2).unwrap();
        let kind = letter(&mail(0));
        for n in 0..fits {
            assert!(address.post(mail(n)).is_ok(), "{kind}: {n} of {fits}");
        }
        let back = address.post(mail(fits)).unwrap_err();
        assert_eq!(letter(&back), kind);
        assert_eq!(address.presence_has_room(), kind != 'p');
        let mut tally = Tally::default();
        inbox.publish(&mut tally);
        assert_eq!(tally.value(Metric::LaneRpcFull), counted, "{kind}");
        assert!(inbox.next().is_some());
        assert!(address.post(mail(0)).is_ok(), "{kind}: there is room again");
    }
}

#[test]
fn the_reader_is_rung_for_mail_in_any_lane() {
    for mail in [RpcMail::Drain(Mono(1)), outcome(0), call(Some(0)), call(None), cluster(), presence()] {
        let (address, inbox) = rpc_mailbox(1).unwrap();
        let kind = letter(&mail);
        let fd = inbox.doorbell_fd().unwrap();
        let mut count = [0; 8];
        assert!(inbox.prepare_sleep());
        address.post(mail).unwrap();
        assert_eq!(rustix::io::read(&fd, &mut count), Ok(8), "{kind}");
        inbox.woken();
        assert!(!inbox.prepare_sleep(), "{kind} waits");
        assert!(inbox.next().is_some() && inbox.prepare_sleep());
    }
}
