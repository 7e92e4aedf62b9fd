//! Pushes that wait together leave together: what a turn sends, and what stays in order all the same.

use std::collections::BTreeMap;

use pinion::hub::mail::{Audience, PushMail, ShardMail};
use pinion::hub::{HubConfig, Input};
use pinion::ids::{ConnId, Platform};
use pinion::limits::{PUSH_SLICE_MAX, PUSHES_TOGETHER_MAX};
use pinion::metrics::Metric;
use pinion::pb::openim::sdkws::SetAppBackgroundStatusReq;
use prost::Message;

use crate::freeze::thaw;
use crate::rig::{Rig, config, platform};

fn give(rig: &mut Rig, mail: PushMail) {
    rig.input(Input::Mail(ShardMail::Push(Box::new(mail))));
}

fn names(count: usize) -> Vec<String> {
    (0..count).map(|n| format!("u{n}")).collect()
}

fn crowd(rig: &mut Rig, users: &[String]) -> Vec<ConnId> {
    users.iter().map(|user| rig.log_in(user, Platform::IOS)).collect()
}

/// One turn, and who sends in it. The sockets take everything.
fn sends(rig: &mut Rig, got: &mut BTreeMap<ConnId, Vec<String>>) -> usize {
    let listed = rig.turn_listing();
    for conn in &listed {
        got.entry(*conn).or_default().extend(rig.pushes(*conn));
    }
    listed.len()
}

/// Turns until nothing is left. How many sends, and how many turns.
fn run(rig: &mut Rig, got: &mut BTreeMap<ConnId, Vec<String>>) -> (usize, usize) {
    let (mut total, mut turns) = (0, 0);
    while rig.hub.has_work() {
        let sent = sends(rig, got);
        assert!(sent <= PUSH_SLICE_MAX, "{sent} sends in a turn");
        (total, turns) = (total + sent, turns + 1);
        assert!(turns < 10_000);
    }
    (total, turns)
}

#[test]
fn pushes_of_many_callers_to_the_same_users_leave_in_one_send_each() {
    let mut rig = Rig::new(HubConfig { connections_max: 400, ..config() });
    let users = names(3 * PUSH_SLICE_MAX);
    let conns = crowd(&mut rig, &users);
    let list: Vec<&str> = users.iter().map(|user| &**user).collect();
    for number in 0..PUSHES_TOGETHER_MAX {
        rig.push(number as u32, number as u64, &list);
    }
    let mut got = BTreeMap::new();
    assert_eq!(run(&mut rig, &mut got), (conns.len(), 3));
    for conn in conns {
        assert_eq!(got[&conn].len(), PUSHES_TOGETHER_MAX);
    }
    assert_eq!(rig.verdicts().len(), PUSHES_TOGETHER_MAX);
}

#[test]
fn a_push_that_comes_later_joins_those_under_way_and_goes_round() {
    let mut rig = Rig::new(HubConfig { connections_max: 400, ..config() });
    let users = names(4 * PUSH_SLICE_MAX);
    let conns = crowd(&mut rig, &users);
    let list: Vec<&str> = users.iter().map(|user| &**user).collect();
    let mut got = BTreeMap::new();
    let mut sent = 0;
    for number in 0..3 {
        rig.push(number as u32, number as u64, &list);
        sent += sends(&mut rig, &mut got);
        rig.hub = thaw(&rig.hub);
    }
    let (rest, _) = run(&mut rig, &mut got);
    // Three alone would be 12 slices; the first goes through 4, and the others finish what they missed together.
    assert_eq!(sent + rest, 6 * PUSH_SLICE_MAX);
    for conn in conns {
        let mut pushes = got[&conn].clone();
        pushes.sort();
        assert_eq!(pushes, ["push-0", "push-1", "push-2"]);
    }
}

#[test]
fn pushes_of_one_caller_leave_together_in_their_order() {
    let mut rig = Rig::new(HubConfig { connections_max: 400, ..config() });
    let users = names(2 * PUSH_SLICE_MAX);
    let conns = crowd(&mut rig, &users);
    let list: Vec<&str> = users.iter().map(|user| &**user).collect();
    // One more than may leave together.
    let count = PUSHES_TOGETHER_MAX + 1;
    let expected: Vec<String> = (0..count).map(|number| format!("push-{number}")).collect();
    for number in 0..count {
        rig.push(number as u32, 1, &list);
    }
    let mut got = BTreeMap::new();
    let (sent, _) = run(&mut rig, &mut got);
    assert_eq!(sent, 2 * conns.len(), "16 together, and the last");
    for conn in conns {
        assert_eq!(got[&conn], expected);
    }
    assert_eq!(rig.verdicts().len(), count);
}

#[test]
fn who_rides_along_does_not_make_another_wait() {
    let mut rig = Rig::new(HubConfig { connections_max: 400, ..config() });
    let users = names(3 * PUSH_SLICE_MAX);
    crowd(&mut rig, &users);
    let alone = rig.log_in("alone", Platform::IOS);
    let list: Vec<&str> = users.iter().map(|user| &**user).collect();
    for number in 0..8 {
        rig.push(number as u32, number as u64, &list);
    }
    rig.push(99, 99, &["alone"]);
    let mut got = BTreeMap::new();
    let mut turns = 0;
    while !got.contains_key(&alone) {
        sends(&mut rig, &mut got);
        turns += 1;
    }
    assert!(turns <= 9, "one slice for each that was there before: {turns}");
    run(&mut rig, &mut got);
    assert_eq!(got[&alone], ["push-99"]);
}

#[test]
fn absent_users_and_iphones_in_the_background_do_not_part_those_who_walk_together() {
    let mut rig = Rig::new(HubConfig { connections_max: 400, ..config() });
    let users = names(2 * PUSH_SLICE_MAX);
    let conns = crowd(&mut rig, &users);
    let away = SetAppBackgroundStatusReq { user_id: users[10].clone(), is_background: true };
    rig.request(conns[10], &users[10], (2004, "away"), &away.encode_to_vec());
    assert_eq!(rig.read(conns[10]).len(), 1);
    let mut list: Vec<&str> = users.iter().map(|user| &**user).collect();
    (0..40).for_each(|n| list.insert(3 * n, "nobody"));
    for number in 0..4 {
        rig.push(number, number.into(), &list);
    }
    let mut got = BTreeMap::new();
    let (sent, _) = run(&mut rig, &mut got);
    assert_eq!(sent, conns.len() - 1);
    assert_eq!(got.len(), conns.len() - 1);
}

/// A mix of callers, lists, arrivals and leavings, from a seed: each push reaches each connection of a listed user as
/// often as he is listed, in the order of its caller, whatever leaves together.
#[test]
fn any_mix_reaches_everyone_in_the_order_of_each_caller() {
    for seed in 0..300 {
        mix(seed);
    }
}

fn mix(seed: u64) {
    let mut random = fastrand::Rng::with_seed(seed);
    let slice = random.usize(1..12);
    let mut rig = Rig::new(HubConfig { push_slice: slice, ..config() });
    let users = names(20);
    let mut conns = BTreeMap::new();
    for user in &users[..15] {
        conns.insert(user.clone(), vec![rig.log_in(user, platform(1))]);
    }
    conns.get_mut("u3").unwrap().push(rig.log_in("u3", platform(2)));
    // Few lists, so that pushes meet; one to everybody.
    let lists: Vec<Vec<String>> = (0..3)
        .map(|_| {
            let mut list = users.clone();
            random.shuffle(&mut list);
            list.truncate(random.usize(1..=list.len()));
            list
        })
        .collect();
    let (mut expected, mut got) = (BTreeMap::<ConnId, BTreeMap<u64, Vec<String>>>::new(), BTreeMap::new());
    for number in 0..40u32 {
        let (source, list) = (random.u64(0..5), random.usize(0..=lists.len()));
        let listed: Vec<&str> = match lists.get(list) {
            Some(list) => list.iter().map(|user| &**user).collect(),
            None => users.iter().map(|user| &**user).collect(),
        };
        let mut mail = rig.push_mail(number, &listed, Default::default());
        mail.source = pinion::ids::SourceId(source);
        if list == lists.len() {
            mail.audience = Audience::Everybody;
        }
        give(&mut rig, mail);
        for conn in listed.iter().filter_map(|user| conns.get(*user)).flatten() {
            let pushes = expected.entry(*conn).or_default().entry(source).or_default();
            pushes.push(format!("push-{number}"));
        }
        for _ in 0..random.usize(0..3) {
            sends(&mut rig, &mut got);
        }
        if random.u8(0..10) == 0 {
            rig.hub = thaw(&rig.hub);
        }
    }
    while rig.hub.has_work() {
        sends(&mut rig, &mut got);
    }
    assert_eq!(rig.value(Metric::PushesOpen), 0);
    for (conn, by_source) in expected {
        let got = got.remove(&conn).unwrap_or_default();
        assert_eq!(got.len(), by_source.values().map(Vec::len).sum::<usize>(), "seed {seed}, {conn}");
        for (source, pushes) in by_source {
            let of_source: Vec<&String> = got.iter().filter(|push| pushes.contains(push)).collect();
            assert_eq!(of_source, pushes.iter().collect::<Vec<_>>(), "seed {seed}, {conn}, source {source}");
        }
    }
}
