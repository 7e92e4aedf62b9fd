//! An operator's drain: its pace in virtual time, requests in flight, the way back, and the deadline that ends it.

use std::collections::BTreeSet;

use bytes::Bytes;
use pinion::hub::drain::Pace;
use pinion::hub::upstream::{UpstreamCall, UpstreamOutcome};
use pinion::hub::{HubConfig, Input};
use pinion::ids::{ConnId, Platform};
use pinion::limits;
use pinion::metrics::Metric;
use pinion::time::Mono;

use crate::rig::{Rig, Seen, config};

/// So many users, each with a connection.
fn crowd(n: usize) -> (Rig, Vec<ConnId>) {
    let mut rig = Rig::new(HubConfig { connections_max: 1_000, ..config() });
    let conns = (0..n).map(|n| rig.log_in(&format!("u{n}"), Platform::ANDROID)).collect();
    (rig, conns)
}

/// Those of `conns` that were told to go since the last look, with their sockets closed.
fn gone(rig: &mut Rig, conns: &mut Vec<ConnId>) -> Vec<ConnId> {
    let left: Vec<ConnId> =
        conns.iter().copied().filter(|conn| rig.read(*conn) == [Seen::Close(Some(1001))]).collect();
    conns.retain(|conn| !left.contains(conn));
    for conn in &left {
        assert!(rig.is_closed(*conn));
        rig.input(Input::TransportClosed(*conn));
    }
    rig.turn();
    left
}

/// As [`gone`], looked at after each tick of so many milliseconds.
fn gone_within(rig: &mut Rig, conns: &mut Vec<ConnId>, ms: u64) -> usize {
    let mut n = 0;
    for _ in 0..ms / limits::TICK_MS {
        rig.wait(limits::TICK_MS);
        n += gone(rig, conns).len();
    }
    n
}

fn asks(rig: &mut Rig, conn: ConnId, user: &str, name: &str) -> UpstreamCall {
    rig.request(conn, user, (1001, name), b"x");
    rig.calls().pop().expect("the service is asked")
}

#[test]
fn a_paced_drain_keeps_to_its_rate_in_every_second_and_empties_the_hub() {
    let (mut rig, mut conns) = crowd(300);
    let start = rig.now.mono.plus_ms(limits::DRAIN_LEAD_MS);
    rig.input(Input::Evict(Pace::share(start, 40, (0, 1))));
    let mut left: Vec<Mono> = Vec::new();
    let mut order = Vec::new();
    // Ticks are late now and then, once by far.
    for late in [0, 0, 3, 60, 0, 900, 0, 1, 0, 0].into_iter().cycle().take(400) {
        rig.now.mono = rig.now.mono.plus_ms(late);
        rig.wait(limits::TICK_MS);
        let now = rig.now.mono;
        for conn in gone(&mut rig, &mut conns) {
            left.push(now);
            order.push(conn.index());
        }
        let second = left.iter().filter(|at| now.since_ms(**at) < 1_000).count();
        assert!(second <= 40, "{second} in the second before {now:?}");
        if conns.is_empty() {
            break;
        }
    }
    assert_eq!((left.len(), rig.hub.connections(), rig.hub.queued_bytes()), (300, 0, 0));
    assert!(left[0] >= start, "others hear of it before the first leaves");
    assert_eq!(rig.value(Metric::DrainEvicted), 300);
    let neighbours = order.windows(2).filter(|pair| pair[0].abs_diff(pair[1]) == 1).count();
    assert!(neighbours < 10, "{neighbours} pairs of neighbours left behind each other");
}

#[test]
fn requests_in_flight_are_answered_before_their_connections_leave() {
    let (mut rig, mut conns) = crowd(10);
    let busy = conns[3];
    let call = asks(&mut rig, busy, "u3", "in flight");
    rig.input(Input::Evict(Pace::share(rig.now.mono, 1_000, (0, 1))));
    assert_eq!(gone_within(&mut rig, &mut conns, 3_000), 9);
    assert_eq!(conns, [busy]);
    rig.answer(&call, UpstreamOutcome::Data(Bytes::from_static(b"ok")));
    rig.wait(3 * limits::TICK_MS);
    let seen = rig.read(busy);
    assert!(
        matches!(&seen[..], [Seen::Reply(r), Seen::Close(Some(1001))] if r.msg_incr == "in flight"),
        "{seen:?}"
    );
}

#[test]
fn who_always_asks_leaves_in_the_end_all_the_same() {
    let (mut rig, conns) = crowd(1);
    let (conn, began) = (conns[0], rig.now.mono);
    rig.input(Input::Evict(Pace::share(began, 10, (0, 1))));
    let mut open: Option<UpstreamCall> = None;
    for n in 0.. {
        assert!(rig.now.mono.since_ms(began) < limits::DRAIN_BUSY_MS + 10_000, "it stays for ever");
        // The next is there before the last is answered.
        let next = asks(&mut rig, conn, "u0", &format!("r{n}"));
        if let Some(call) = open.replace(next) {
            rig.answer(&call, UpstreamOutcome::Data(Bytes::new()));
        }
        rig.wait(limits::TICK_MS);
        if rig.read(conn).contains(&Seen::Close(Some(1001))) {
            break;
        }
    }
    assert!(rig.now.mono.since_ms(began) >= limits::DRAIN_BUSY_MS, "it was not given the time");
}

#[test]
fn a_drain_that_is_cancelled_in_the_middle_leaves_nothing_behind() {
    let (mut rig, mut conns) = crowd(50);
    rig.input(Input::Evict(Pace::share(rig.now.mono, 50, (0, 1))));
    let login = rig.arguments("late", Platform::IOS);
    assert_eq!(rig.accept(login), None, "nobody is let in");
    let left = gone_within(&mut rig, &mut conns, 500);
    assert!((15..=25).contains(&left), "{left}");
    rig.input(Input::Serve);
    rig.wait(5_000);
    assert_eq!(gone(&mut rig, &mut conns), []);
    // As if nothing had been: logins, requests, and another drain.
    let late = rig.log_in("late", Platform::IOS);
    conns.push(late);
    let call = asks(&mut rig, late, "late", "served");
    rig.answer(&call, UpstreamOutcome::Data(Bytes::from_static(b"ok")));
    assert!(matches!(&rig.read(late)[..], [Seen::Reply(r)] if r.msg_incr == "served"));
    rig.input(Input::Evict(Pace::share(rig.now.mono, 500, (0, 1))));
    rig.wait(1_000);
    gone(&mut rig, &mut conns);
    assert_eq!((conns.len(), rig.hub.connections(), rig.hub.queued_bytes()), (0, 0, 0));
}

#[test]
fn a_deadline_in_a_paced_drain_wins() {
    let (mut rig, mut conns) = crowd(100);
    // At this pace it would take 100 seconds.
    rig.input(Input::Evict(Pace::share(rig.now.mono, 1, (0, 1))));
    rig.wait(2_000);
    assert!(gone(&mut rig, &mut conns).len() <= 2);
    let busy = conns[0];
    let user = rig.hub.user_of(busy).unwrap().to_owned();
    asks(&mut rig, busy, &user, "never answered");
    let left_ms = 5_000;
    rig.input(Input::Drain(rig.now.mono.plus_ms(left_ms)));
    let mut most = 0;
    for _ in 0..left_ms / limits::TICK_MS - 10 {
        most = most.max(gone(&mut rig, &mut conns).len());
        rig.wait(limits::TICK_MS);
    }
    assert!(most <= 4, "{most} left at once");
    gone_within(&mut rig, &mut conns, limits::FLUSH_DEADLINE_MS);
    assert_eq!(conns, [], "at the deadline all are gone, and who is not answered, too");
}

#[test]
fn shards_of_a_node_share_the_rate_and_take_turns() {
    let shards: u16 = 4;
    let mut rigs: Vec<_> = (0..shards).map(|_| crowd(100)).collect();
    let start = rigs[0].0.now.mono;
    let now = rigs.iter().map(|(rig, _)| rig.now.mono).max().unwrap();
    for (n, (rig, _)) in (0..).zip(&mut rigs) {
        rig.now.mono = now;
        rig.input(Input::Evict(Pace::share(start.max(now), 30, (n, shards))));
    }
    let mut left: Vec<(Mono, usize)> = Vec::new();
    while left.len() < 300 {
        for (n, (rig, conns)) in rigs.iter_mut().enumerate() {
            rig.wait(limits::TICK_MS);
            let at = rig.now.mono;
            left.extend(gone(rig, conns).into_iter().map(|_| (at, n)));
        }
        let now = rigs[0].0.now.mono;
        let second = left.iter().filter(|(at, _)| now.since_ms(*at) < 1_000).count();
        assert!(second <= 30, "{second} in a second");
    }
    let per_shard: BTreeSet<usize> =
        (0..usize::from(shards)).map(|n| left.iter().filter(|(_, at)| *at == n).count()).collect();
    assert!(per_shard.last().unwrap() - per_shard.first().unwrap() <= 2, "{per_shard:?}");
}
