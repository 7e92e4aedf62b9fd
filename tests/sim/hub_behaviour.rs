//! What one hub does, test by test: stale ids, pushes, kicks and the drain. Logins are in `login_behaviour`, requests
//! and deadlines in `request_behaviour`.

use std::collections::BTreeSet;

use bytes::Bytes;
use pinion::hub::mail::{DeviceOutcome, KickMail, ShardMail};
use pinion::hub::upstream::{UpstreamOutcome, UpstreamReply};
use pinion::hub::{Effect, Input, SendBatch};
use pinion::ids::{CallTicket, Platform, SlotId, Text};
use pinion::limits;
use pinion::pb::openim::sdkws::SetAppBackgroundStatusReq;
use prost::Message as _;

use crate::rig::{Rig, Seen, config, platform, reply, ticket};

fn kick(rig: &mut Rig, user: &str, on: Platform) {
    let mail = KickMail { ticket: ticket(7), platform: on, users: vec![Text::from(user)] };
    rig.input(Input::Mail(ShardMail::Kick(Box::new(mail))));
}

#[test]
fn a_stale_id_in_any_input_reaches_nobody() {
    type Feed = fn(&mut Rig, pinion::ids::ConnId, CallTicket);
    let feeds: [(&str, Feed); 8] = [
        ("transport closed", |rig, old, _| rig.input(Input::TransportClosed(old))),
        ("transport lost", |rig, old, _| rig.input(Input::TransportLost(old))),
        ("bytes", |rig, old, _| rig.ping(old, b"stale")),
        ("bad bytes", |rig, old, _| rig.bytes(old, vec![0xff; 9])),
        ("sent", |rig, old, _| rig.hub.sent(rig.now, old, 10)),
        ("fill", |rig, old, _| assert_eq!(rig.hub.fill(old, &mut SendBatch::default()), 0)),
        ("reply", |rig, _, ticket| {
            let outcome = UpstreamOutcome::Token { user: "a".into(), platform: 1 };
            rig.input(Input::UpstreamReply(UpstreamReply { ticket, outcome }));
        }),
        ("cancel", |rig, _, _| rig.input(Input::Mail(ShardMail::CancelPush(ticket(3))))),
    ];
    for (name, feed) in feeds {
        let mut rig = Rig::new(config());
        let old = rig.log_in("gone", Platform::IOS);
        rig.input(Input::TransportLost(old));
        rig.turn();
        rig.input(Input::TransportClosed(old));
        assert_eq!(rig.hub.connections(), 0);
        let new = rig.log_in("stranger", Platform::IOS);
        assert_eq!((old.index(), old == new), (new.index(), false), "the slot is reused");
        rig.push(1, 1, &["stranger"]);
        rig.turn();
        rig.effects.clear();
        let before = (rig.hub.trace_hash(), rig.hub.queued_bytes());
        let stale = CallTicket(SlotId { index: 0, generation: 0 });
        feed(&mut rig, old, stale);
        rig.turn();
        assert_eq!((rig.hub.trace_hash(), rig.hub.queued_bytes()), before, "{name}");
        assert_eq!(rig.effects, [], "{name}");
        assert_eq!(reply(&rig.read(new)).operation_id, "push-1", "{name}");
    }
}

#[test]
fn a_kick_frame_goes_before_the_close() {
    let mut rig = Rig::new(config());
    let conn = rig.log_in("u", Platform::IOS);
    rig.push(1, 1, &["u"]);
    rig.turn();
    kick(&mut rig, "u", Platform::IOS);
    assert!(!rig.is_registered("u"), "gone when the answer leaves");
    assert!(!rig.is_closed(conn));
    rig.turn();
    let seen = rig.read(conn);
    let ids: Vec<i32> = seen.iter().map(|s| if let Seen::Reply(r) = s { r.id } else { 0 }).collect();
    assert_eq!(ids, [2001, 2002], "what was queued before, then the kick");
    assert!(rig.is_closed(conn));
}

#[test]
fn a_kicked_client_that_does_not_read_is_closed_within_the_flush_deadline() {
    let mut rig = Rig::new(config());
    let conn = rig.log_in("u", Platform::IOS);
    kick(&mut rig, "u", Platform::IOS);
    rig.turn();
    rig.wait(limits::FLUSH_DEADLINE_MS - limits::TICK_MS);
    assert!(!rig.is_closed(conn));
    rig.wait(2 * limits::TICK_MS);
    assert!(rig.is_closed(conn));
    assert_eq!(rig.read_bytes(conn), [0u8; 0]);
    rig.input(Input::TransportClosed(conn));
    assert_eq!(rig.hub.connections(), 0);
}

#[test]
fn a_kick_on_another_platform_touches_nobody() {
    let mut rig = Rig::new(config());
    let conn = rig.log_in("u", Platform::IOS);
    kick(&mut rig, "u", Platform::WEB);
    rig.turn();
    assert!(rig.is_registered("u") && !rig.is_closed(conn));
}

#[test]
fn a_slow_consumer_is_closed_and_the_verdict_says_so() {
    let mut rig = Rig::new(config());
    let conn = rig.log_in("u", Platform::IOS);
    let most = u32::try_from(limits::OUTBOX_FRAMES_MAX).unwrap();
    for n in 0..=most {
        rig.push(n, 1, &["u"]);
        rig.turn();
    }
    let outcomes: Vec<DeviceOutcome> = rig.verdicts().iter().map(|(_, v)| v[0].devices[0].outcome).collect();
    let (last, others) = outcomes.split_last().unwrap();
    assert!(others.iter().all(|o| *o == DeviceOutcome::Queued));
    assert_eq!((*last, others.len()), (DeviceOutcome::Dropped, limits::OUTBOX_FRAMES_MAX));
    assert!(rig.is_closed(conn), "at once: a peer that does not read is not waited for");
    assert_eq!(rig.hub.queued_bytes(), 0);
}

#[test]
fn a_frame_above_the_read_limit_of_the_sdks_is_reported_and_not_sent() {
    // Spec trap 9.
    let mut rig = Rig::new(config());
    let conn = rig.log_in("u", Platform::IOS);
    rig.push_bytes((1, 1), &["u"], Bytes::from(vec![b'x'; limits::FRAME_SENT_BYTES_MAX]));
    rig.turn();
    assert_eq!(rig.verdicts()[0].1[0].devices[0].outcome, DeviceOutcome::TooLarge);
    assert!(!rig.is_closed(conn) && rig.read(conn).is_empty());
}

#[test]
fn background_state_stops_pushes_to_ios_only() {
    let mut rig = Rig::new(config());
    let request = |is_background| {
        let user_id = "u".into();
        let body = SetAppBackgroundStatusReq { user_id, is_background };
        body.encode_to_vec()
    };
    let conns = [Platform::IOS, Platform::ANDROID].map(|p| rig.log_in("u", p));
    for conn in conns {
        rig.request(conn, "u", (2004, "bg"), &request(true));
        let seen = rig.read(conn);
        assert_eq!((reply(&seen).id, reply(&seen).err_code, &reply(&seen).data), (2004, 0, &None));
    }
    assert!(rig.status("u")[0].devices.iter().all(|d| d.background));
    rig.push(1, 1, &["u"]);
    rig.turn();
    let outcomes: Vec<_> = rig.verdicts()[0].1[0].devices.iter().map(|d| d.outcome).collect();
    assert_eq!(outcomes, [DeviceOutcome::Background, DeviceOutcome::Queued]);
    assert_eq!(conns.map(|c| rig.read(c).len()), [0, 1]);
    rig.request(conns[0], "u", (2004, "fg"), &request(false));
    rig.read(conns[0]);
    rig.push(2, 1, &["u"]);
    rig.turn();
    assert_eq!(conns.map(|c| rig.read(c).len()), [1, 1]);
}

#[test]
fn a_large_push_does_not_hold_up_another_source() {
    let mut rig = Rig::new(config());
    rig.log_in("u", Platform::IOS);
    let many = vec!["nobody"; 10 * limits::PUSH_SLICE_MAX];
    rig.push(1, 1, &many);
    rig.push(2, 1, &["u"]);
    rig.push(3, 2, &["u"]);
    let mut order = Vec::new();
    for turn in 0..15 {
        rig.turn();
        order.extend(rig.verdicts().into_iter().map(|(n, v)| (n, v.len(), turn)));
    }
    let numbers: Vec<_> = order.iter().map(|(n, len, _)| (*n, *len)).collect();
    assert_eq!(numbers, [(3, 1), (1, many.len()), (2, 1)], "FIFO within a source only: {order:?}");
    assert!(order[0].2 <= 1, "the small push waits for one slice: {order:?}");
    assert!(order[1].2 >= 9, "one slice per turn: {order:?}");
}

#[test]
fn recipients_not_served_before_the_deadline_get_no_verdict() {
    let mut rig = Rig::new(config());
    let conn = rig.log_in("u", Platform::IOS);
    let many = [vec!["nobody"; limits::PUSH_SLICE_MAX], vec!["u"]].concat();
    rig.push(1, 1, &many);
    rig.turn();
    rig.now.mono = rig.now.mono.plus_ms(11_000);
    rig.turn();
    let verdicts = rig.verdicts();
    // An empty verdict for "u" would say that he is not here.
    assert_eq!((verdicts.len(), verdicts[0].1.len()), (1, limits::PUSH_SLICE_MAX));
    assert_eq!(rig.read(conn), []);
}

#[test]
fn a_drain_is_paced_answers_what_is_in_flight_and_says_going_away() {
    let mut rig = Rig::new(config());
    let users: Vec<String> = (0..20).map(|n| format!("u{n}")).collect();
    let conns: Vec<_> = users.iter().map(|u| rig.log_in(u, Platform::ANDROID)).collect();
    rig.request(conns[0], "u0", (1003, "in flight"), b"x");
    let call = rig.calls().pop().unwrap();
    rig.input(Input::Drain(rig.now.mono.plus_ms(3_000)));
    let mut gone = BTreeSet::new();
    let mut most_at_once = 0;
    let login = rig.arguments("late", Platform::IOS);
    assert_eq!(rig.accept(login), None, "nobody is let in");
    for _ in 0..19 {
        let before = gone.len();
        for conn in &conns[1..] {
            if rig.read(*conn) == [Seen::Close(Some(1001))] {
                gone.insert(*conn);
            }
        }
        most_at_once = most_at_once.max(gone.len() - before);
        rig.wait(limits::TICK_MS);
    }
    assert!(most_at_once <= 2, "{most_at_once} left at once");
    rig.answer(&call, UpstreamOutcome::Data(Bytes::from_static(b"ok")));
    let seen = rig.read(conns[0]);
    assert!(
        matches!(&seen[..], [Seen::Reply(r), Seen::Close(Some(1001))] if r.msg_incr == "in flight"),
        "{seen:?}"
    );
    rig.wait(1_500);
    for conn in conns {
        rig.read(conn);
        assert!(rig.is_closed(conn));
        rig.input(Input::TransportClosed(conn));
    }
    rig.turn();
    assert_eq!((rig.hub.connections(), rig.hub.queued_bytes()), (0, 0));
}

#[test]
fn a_drain_without_time_closes_everybody_at_once() {
    let mut rig = Rig::new(config());
    let conns: Vec<_> = (0..5).map(|n| rig.log_in(&format!("u{n}"), platform(2))).collect();
    rig.request(conns[0], "u0", (1003, "lost"), b"x");
    rig.input(Input::Drain(rig.now.mono));
    for conn in conns {
        assert_eq!(rig.read(conn), [Seen::Close(Some(1001))]);
        assert!(rig.is_closed(conn));
    }
}

#[test]
fn a_connection_is_closed_once_whatever_ends_it_again() {
    let mut rig = Rig::new(config());
    let conn = rig.log_in("u", Platform::IOS);
    kick(&mut rig, "u", Platform::IOS);
    rig.turn();
    rig.input(Input::TransportLost(conn));
    rig.input(Input::Drain(rig.now.mono));
    rig.wait(2 * limits::FLUSH_DEADLINE_MS);
    rig.input(Input::TransportClosed(conn));
    rig.input(Input::TransportClosed(conn));
    let closes = rig.effects.iter().filter(|e| matches!(e, Effect::Close(_))).count();
    assert_eq!((closes, rig.hub.connections()), (1, 0));
}
