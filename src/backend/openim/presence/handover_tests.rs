//! Tests of users who log in on another gateway: whether their leaving here is told, rule by rule. Every order of two
//! gateways' events is in `moves_tests.rs`.

use super::*;
use crate::hub::upstream::LoginPlace::{self, Elsewhere, Here};
use crate::limits::{PRESENCE_FLUSH_MS, PRESENCE_STEADY_MS};
use crate::pb::openim::user::SetUserOnlineStatusReq;

const LINUX: i32 = 7;
const WEB: i32 = 5;

fn at(ms: u64) -> Now {
    Now { mono: Mono(ms), unix: UnixMs(0) }
}

/// Somebody who came at 0 on both platforms, was told of, and now it is `ms`.
fn told_of(ms: u64) -> (Presence, u64) {
    let mut presence = Presence::new(PresenceConfig::new(Compat::Patch16, 1, [1, 2]));
    change(&mut presence, 0, (&[LINUX, WEB], &[]), &[(LINUX, Here), (WEB, Here)]);
    assert_eq!(told(&mut presence, PRESENCE_FLUSH_MS), [(vec![WEB, LINUX], vec![])]);
    (presence, PRESENCE_FLUSH_MS + ms)
}

fn change(
    presence: &mut Presence,
    now: u64,
    (online, offline): (&[i32], &[i32]),
    logins: &[(i32, LoginPlace)],
) {
    let record = PresenceRecord {
        user: "u".into(),
        online: online.to_vec(),
        offline: offline.to_vec(),
        logins: logins.to_vec(),
        connections: None,
    };
    presence.record(at(now), &record);
}

/// What is told then, online and offline, and answered.
fn told(presence: &mut Presence, now: u64) -> Vec<(Vec<i32>, Vec<i32>)> {
    let mut told = Vec::new();
    while let Some(request) = presence.next_request(at(now)) {
        let body = SetUserOnlineStatusReq::decode(request.body).unwrap();
        told.extend(body.status.into_iter().map(|status| (status.online, status.offline)));
        presence.answered(Mono(now), request.id, Ok(Bytes::new()));
    }
    while presence.next_news().is_some() {}
    told
}

#[test]
fn a_kick_by_a_login_elsewhere_is_not_told_if_the_last_word_is_old_enough() {
    for (age, offline) in [(PRESENCE_STEADY_MS - 1, vec![LINUX]), (PRESENCE_STEADY_MS, vec![])] {
        let (mut presence, now) = told_of(age);
        change(&mut presence, now, (&[WEB], &[LINUX]), &[(LINUX, Elsewhere)]);
        assert_eq!(told(&mut presence, now + PRESENCE_FLUSH_MS), [(vec![WEB], offline.clone())]);
        assert_eq!(presence.reports.counts.handed_over, u64::from(offline.is_empty()));
    }
}

#[test]
fn only_the_platform_of_the_login_is_handed_over() {
    // Policy 5: the login of a phone elsewhere ends the pad here.
    let (mut presence, now) = told_of(PRESENCE_STEADY_MS);
    change(&mut presence, now, (&[], &[LINUX, WEB]), &[(LINUX, Elsewhere)]);
    assert_eq!(told(&mut presence, now + PRESENCE_FLUSH_MS), [(vec![], vec![WEB])]);
    assert_eq!((presence.untold(), presence.reports.users.len()), (0, 0));
}

#[test]
fn who_left_before_the_news_came_is_handed_over_while_it_is_not_told() {
    let (mut presence, now) = told_of(PRESENCE_STEADY_MS);
    change(&mut presence, now, (&[], &[LINUX, WEB]), &[]);
    change(&mut presence, now + 100, (&[], &[]), &[(LINUX, Elsewhere)]);
    change(&mut presence, now + 200, (&[], &[]), &[(WEB, Elsewhere)]);
    assert_eq!(told(&mut presence, now + 2 * PRESENCE_FLUSH_MS), []);
    assert_eq!((presence.untold(), presence.reports.users.len()), (0, 0), "nothing is left of him");
    // In flight it is too late.
    let (mut presence, now) = told_of(PRESENCE_STEADY_MS);
    change(&mut presence, now, (&[WEB], &[LINUX]), &[]);
    let request = presence.next_request(at(now + PRESENCE_FLUSH_MS)).expect("the leaving");
    change(&mut presence, now + PRESENCE_FLUSH_MS, (&[], &[WEB]), &[(WEB, Elsewhere)]);
    presence.answered(Mono(now + PRESENCE_FLUSH_MS), request.id, Ok(Bytes::new()));
    assert_eq!(told(&mut presence, now + 2 * PRESENCE_FLUSH_MS), [(vec![], vec![WEB])]);
}

/// Spec trap 26: a login with the same token ends nobody; the older connection dies later.
#[test]
fn who_stays_after_a_login_elsewhere_is_handed_over_when_he_leaves_unless_he_was_missed_since() {
    type Between = fn(&mut Presence, u64);
    let table: [(&str, Between, bool); 6] = [
        ("nothing", |_, _| {}, true),
        ("another platform is missed", |presence, now| presence.online_change(Mono(now), b"7:u"), true),
        ("he is missed", |presence, now| presence.online_change(Mono(now), b"5:u"), false),
        (
            "he comes back",
            |presence, now| change(presence, now, (&[LINUX, WEB], &[]), &[(LINUX, Here)]),
            false,
        ),
        ("messages may be lost", |presence, _| presence.subscription_lost(), false),
        ("messages were lost", |presence, now| presence.resubscribed(Mono(now)), false),
    ];
    for (name, between, is_handed_over) in table {
        let (mut presence, now) = told_of(PRESENCE_STEADY_MS);
        change(&mut presence, now, (&[LINUX, WEB], &[]), &[(LINUX, Elsewhere)]);
        assert_eq!(told(&mut presence, now + PRESENCE_FLUSH_MS), [], "{name}: nothing has changed here");
        between(&mut presence, now);
        told(&mut presence, now + 2 * PRESENCE_FLUSH_MS);
        let now = now + 2 * PRESENCE_FLUSH_MS + PRESENCE_STEADY_MS;
        change(&mut presence, now, (&[WEB], &[LINUX]), &[]);
        let offline = if is_handed_over { vec![] } else { vec![LINUX] };
        assert_eq!(told(&mut presence, now + PRESENCE_FLUSH_MS), [(vec![WEB], offline)], "{name}");
    }
}

/// Until the repair nobody pushes to him: it does not wait for a full batch, nor does what was to be told anyway.
#[test]
fn a_repair_is_told_without_delay() {
    let (mut presence, now) = told_of(100);
    presence.online_change(Mono(now), b"5:u");
    assert_eq!(told(&mut presence, now), [(vec![WEB, LINUX], vec![])]);
    // Once more within the settling time: not at once.
    presence.online_change(Mono(now), b"5:u");
    assert_eq!(told(&mut presence, now + PRESENCE_FLUSH_MS), []);
    // A new login begins anew. It is told at once if somebody says that he is not there.
    change(&mut presence, now, (&[LINUX, WEB], &[]), &[(LINUX, Here)]);
    assert_eq!(told(&mut presence, now), []);
    presence.online_change(Mono(now), b"u");
    assert_eq!(told(&mut presence, now), [(vec![WEB, LINUX], vec![])]);
}
