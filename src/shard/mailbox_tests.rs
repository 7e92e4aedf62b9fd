//! Tests of a shard's mailbox: the edge of each lane, and the doorbell between real threads.

use std::net::{IpAddr, Ipv4Addr};
use std::thread;

use bytes::Bytes;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::*;
use crate::hub::upstream::UpstreamOutcome;
use crate::ids::{CallTicket, Platform, RpcId, RpcTicket, SlotId};
use crate::wire::envelope::{Encoding, Variant};
use crate::wire::upgrade::UpgradeFault;

fn slot(index: usize) -> SlotId {
    SlotId { index: u32::try_from(index).unwrap(), generation: 7 }
}

fn reply(index: usize) -> UpstreamReply {
    UpstreamReply { ticket: CallTicket(slot(index)), outcome: UpstreamOutcome::Data(Bytes::new()) }
}

fn mail(index: usize) -> ShardMail {
    ShardMail::CancelPush(RpcTicket { rpc: RpcId(0), slot: slot(index) })
}

/// A hand-over of one socket of a loopback pair; `index` travels as the client's port.
fn hand_over(socket: &TcpStream, index: usize) -> HandOver {
    let login = Login {
        user: "u".into(),
        token: "t".into(),
        platform: Platform::WEB,
        operation_id: "o".into(),
        variant: Variant { encoding: Encoding::Json, gzip: false },
        wants_response: false,
        forwarded_for: None,
        upgrade: Err(UpgradeFault::NoUpgradeWebsocket),
    };
    let port = u16::try_from(index).unwrap();
    HandOver {
        socket: socket.try_clone().unwrap(),
        peer: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port),
        client: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port),
        address: None,
        login: Box::new(login),
    }
}

fn is_readable(fd: &OwnedFd, wait: &Timespec) -> bool {
    poll(&mut [PollFd::new(fd, PollFlags::IN)], Some(wait)).unwrap() == 1
}

const AT_ONCE: Timespec = Timespec { tv_sec: 0, tv_nsec: 0 };
const LONG: Timespec = Timespec { tv_sec: 20, tv_nsec: 0 };

/// What the shard would show of a metric.
fn shown(inbox: &ShardInbox, metric: Metric) -> u64 {
    let mut tally = Tally::default();
    inbox.publish(&mut tally);
    tally.value(metric)
}

#[test]
fn a_full_replies_lane_drops_and_counts_and_keeps_the_order() {
    let (address, inbox) = shard_mailbox().unwrap();
    let max = limits::CALLS_IN_FLIGHT_MAX as usize;
    (0..max).for_each(|n| address.reply(reply(n)));
    assert_eq!((address.depths().replies, shown(&inbox, Metric::LaneRepliesFull)), (max, 0));
    address.reply(reply(max));
    assert_eq!(shown(&inbox, Metric::LaneRepliesFull), 1);
    for n in 0..max {
        assert_eq!(inbox.next_reply(), Some(reply(n)));
    }
    assert_eq!(inbox.next_reply(), None);
    address.reply(reply(1));
    assert_eq!(inbox.next_reply(), Some(reply(1)), "there is room again");
}

#[test]
fn a_full_control_lane_gives_the_mail_back_and_counts() {
    let (address, inbox) = shard_mailbox().unwrap();
    for n in 0..limits::CONTROL_LANE_MAX {
        address.control(Control::Hub(mail(n))).unwrap();
    }
    let refused = address.control(Control::Drain(Mono(9)));
    assert!(matches!(refused, Err(Control::Drain(Mono(9)))), "{refused:?}");
    assert_eq!(shown(&inbox, Metric::LaneControlFull), 1);
    assert_eq!(shown(&inbox, Metric::LaneControlDepth), limits::CONTROL_LANE_MAX as u64);
    for n in 0..limits::CONTROL_LANE_MAX {
        assert!(matches!(inbox.next_control(), Some(Control::Hub(got)) if got == mail(n)));
    }
    address.control(Control::Stall(1)).unwrap();
}

#[test]
fn a_full_push_lane_gives_the_mail_back_and_counts() {
    let (address, inbox) = shard_mailbox().unwrap();
    for n in 0..limits::PUSH_LANE_MAX {
        address.push(mail(n)).unwrap();
    }
    assert_eq!(address.push(mail(77)), Err(mail(77)));
    assert_eq!(shown(&inbox, Metric::LanePushFull), 1);
    assert_eq!(inbox.next_push(), Some(mail(0)));
    address.push(mail(78)).unwrap();
    assert_eq!(inbox.depths(), LaneDepths { push: limits::PUSH_LANE_MAX, ..LaneDepths::default() });
}

#[test]
fn a_full_hand_over_lane_gives_the_socket_back_and_counts() {
    let (address, inbox) = shard_mailbox().unwrap();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let socket = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let mut taken = 0;
    while taken < limits::HAND_OVER_LANE_MAX {
        address.hand_over(hand_over(&socket, taken)).unwrap();
        taken += 1;
    }
    let refused = address.hand_over(hand_over(&socket, taken)).unwrap_err();
    assert_eq!(usize::from(refused.peer.port()), taken);
    assert_eq!(shown(&inbox, Metric::LaneHandOverFull), 1);
    for n in 0..taken {
        assert_eq!(usize::from(inbox.next_hand_over().unwrap().peer.port()), n);
    }
    assert_eq!(shown(&inbox, Metric::LaneHandOverDepth), 0);
}

#[test]
fn mail_to_a_shard_that_has_ended_comes_back() {
    let (address, inbox) = shard_mailbox().unwrap();
    address.push(mail(1)).unwrap();
    drop(inbox);
    assert_eq!(address.push(mail(2)), Err(mail(2)));
}

#[test]
fn the_bell_rings_once_per_sleep_and_not_for_an_awake_reader() {
    let (address, inbox) = shard_mailbox().unwrap();
    let fd = inbox.doorbell_fd().unwrap();
    address.push(mail(1)).unwrap();
    assert!(!is_readable(&fd, &AT_ONCE), "the reader is awake");
    assert!(!inbox.prepare_sleep(), "mail waits");
    assert_eq!(inbox.next_push(), Some(mail(1)));
    assert!(inbox.prepare_sleep());
    address.push(mail(2)).unwrap();
    address.reply(reply(3));
    assert!(is_readable(&fd, &AT_ONCE));
    inbox.woken();
    assert!(!is_readable(&fd, &AT_ONCE), "one wake-up makes it silent");
    address.push(mail(4)).unwrap();
    assert!(!is_readable(&fd, &AT_ONCE), "the reader is awake again");
}

#[test]
fn a_flood_from_two_threads_loses_nothing_and_keeps_the_order_of_each() {
    const MAILS: usize = 100_000;
    let (address, inbox) = shard_mailbox().unwrap();
    let fd = inbox.doorbell_fd().unwrap();
    let senders: Vec<_> = (0..2_u16)
        .map(|sender| {
            let address = address.clone();
            let flood = move || {
                for n in 0..MAILS {
                    let ticket = RpcTicket { rpc: RpcId(sender), slot: slot(n) };
                    let mut mail = ShardMail::CancelPush(ticket);
                    while let Err(back) = address.push(mail) {
                        mail = back;
                        thread::yield_now();
                    }
                    if n % 64 == 0 {
                        thread::yield_now(); // let the reader fall asleep now and then
                    }
                }
            };
            thread::Builder::new().spawn(flood).unwrap()
        })
        .collect();
    let (mut expected, mut sleeps) = ([0; 2], 0);
    while expected != [MAILS; 2] {
        for _ in 0..limits::LANE_BATCH_MAX {
            let Some(ShardMail::CancelPush(ticket)) = inbox.next_push() else {
                break;
            };
            let next = &mut expected[usize::from(ticket.rpc.0)];
            assert_eq!(ticket.slot, slot(*next));
            *next += 1;
        }
        if inbox.prepare_sleep() {
            if expected != [MAILS; 2] {
                assert!(is_readable(&fd, &LONG), "a wake-up was lost at {expected:?}");
            }
            inbox.woken();
            sleeps += 1;
        }
    }
    senders.into_iter().for_each(|sender| sender.join().unwrap());
    assert!(inbox.is_empty());
    assert!(sleeps > 0, "the flood never let the reader sleep, so the doorbell was not tested");
}
