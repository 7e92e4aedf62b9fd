//! Tests of what OpenIM 3.5's user service is told: a call for each change.

use super::*;
use crate::pb::openim::user::SetUserStatusReq;

/// (user, status, platform) of each call that is made now; all are answered.
fn legacy_calls(presence: &mut Presence, now: u64) -> Vec<(String, i32, i32)> {
    let mut calls = Vec::new();
    while let Some(request) = presence.next_request(at(now)) {
        assert_eq!(request.method, UserMethod::SetUserStatus);
        presence.answered(Mono(now), request.id, Ok(Bytes::new()));
        let body = SetUserStatusReq::decode(request.body).unwrap();
        calls.push((body.user_id, body.status, body.platform_id));
    }
    calls
}

#[test]
fn who_may_have_come_from_elsewhere_is_told_once_more() {
    let mut presence = Presence::new(PresenceConfig::new(Compat::V35, PID, [1, 2]));
    let web = ("u".to_owned(), 1, 5);
    // The other gateways hear of a login before its record comes.
    presence.told_elsewhere(Mono(0), "u", Platform::WEB);
    presence.told_elsewhere(Mono(0), "w", Platform::IOS);
    presence.record(at(1), &record("u", &[5, 1], &[]));
    assert_eq!(legacy_calls(&mut presence, 1), [("u".to_owned(), 1, 1), web.clone()]);
    assert_eq!(legacy_calls(&mut presence, limits::PRESENCE_MOVED_MS - 1), []);
    assert_eq!(legacy_calls(&mut presence, limits::PRESENCE_MOVED_MS), [web], "one platform, once");
    assert_eq!(legacy_calls(&mut presence, 5_000_000), []);
    // Who has left is not brought back, and is not said to have left once more: he may be elsewhere.
    presence.told_elsewhere(Mono(5_000_000), "u", Platform::WEB);
    presence.record(at(5_000_001), &record("u", &[1], &[5]));
    assert_eq!(legacy_calls(&mut presence, 5_000_001), [("u".to_owned(), 0, 5)]);
    assert_eq!(legacy_calls(&mut presence, 6_000_000), []);
    // The newer ones hear what the others say.
    let mut newer = Presence::new(config());
    newer.told_elsewhere(Mono(0), "u", Platform::WEB);
    assert_eq!(newer.moves.pop(Mono(5_000_000)), None);
}

#[test]
fn each_change_is_a_call_of_its_own() {
    let mut presence = Presence::new(PresenceConfig::new(Compat::V35, PID, [1, 2]));
    presence.record(at(0), &record("u", &[1, 5], &[]));
    let (calls, call) = (legacy_calls, |status, platform| ("u".to_owned(), status, platform));
    assert_eq!(calls(&mut presence, 0), [call(1, 1), call(1, 5)]);
    presence.record(at(10), &record("u", &[5, 2], &[1]));
    assert_eq!(calls(&mut presence, 10), [call(0, 1), call(1, 2)]);
    presence.record(at(20), &record("u", &[5, 2, 2], &[]));
    presence.online_change(Mono(20), b"u");
    assert_eq!(calls(&mut presence, 5_000_000), [], "no repairs, no renewals");
    presence.record(at(5_000_000), &record("u", &[], &[2, 5]));
    assert_eq!(calls(&mut presence, 5_000_000), [call(0, 2), call(0, 5)]);
    assert_eq!(presence.reports.users.len(), 0);
}

#[test]
fn calls_in_flight_are_bounded() {
    let mut presence = Presence::new(PresenceConfig::new(Compat::V35, PID, [1, 2]));
    for n in 0..1_000 {
        presence.record(at(0), &record(&format!("u{n}"), &[5], &[]));
    }
    let calls = std::iter::from_fn(|| presence.next_request(at(0))).count();
    assert_eq!(calls, usize::from(limits::PRESENCE_LEGACY_LANES_MAX));
}
