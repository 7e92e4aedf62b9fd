//! What a login goes through on its owner shard: token check, refusals in each form, policy, register with its 101.

use pinion::hub::Input;
use pinion::hub::upstream::{UpstreamError, UpstreamOutcome, UpstreamRequest};
use pinion::ids::Platform;
use pinion::limits;
use pinion::session::handshake::SUCCESS_JSON;
use pinion::wire::upgrade::UpgradeFault;

use crate::rig::{Rig, Seen, config, reply};

#[test]
fn register_and_101_and_first_frame_happen_in_one_call() {
    for wants_response in [false, true] {
        let mut rig = Rig::new(config());
        let mut login = rig.arguments("u", Platform::IOS);
        login.wants_response = wants_response;
        let conn = rig.accept(login).unwrap();
        rig.answer_token("u", 1);
        assert_eq!(rig.read(conn), [], "waits in the register queue");
        assert!(!rig.is_registered("u"));
        rig.turn();
        assert!(rig.is_registered("u"));
        let seen = rig.read(conn);
        assert!(matches!(&seen[0], Seen::Http(head) if head.starts_with("HTTP/1.1 101 ")), "{seen:?}");
        let expected: &[Seen] = if wants_response { &[Seen::Text(SUCCESS_JSON.into())] } else { &[] };
        assert_eq!(&seen[1..], expected);
    }
}

/// What a refused client gets.
#[derive(Debug)]
enum Form {
    /// HTTP 200 with JSON, or 101 and the JSON as text frame if asked for.
    Json(&'static str),
    /// This status, whatever was asked for, and no JSON.
    Plain(&'static str),
}

#[test]
fn each_refusal_has_its_form() {
    // Spec traps 1 and 4: JSON by HTTP 200 or as the first text frame; transient trouble is 503 without JSON.
    let failed = |code, message: &str, detail: &str| {
        UpstreamOutcome::Failed(UpstreamError { code, message: message.into(), detail: detail.into() })
    };
    let token = |user: &str, platform| UpstreamOutcome::Token { user: user.into(), platform };
    let bad_version = Err(UpgradeFault::BadVersion);
    let cases = [
        (
            failed(1501, "TokenExpiredError", "old <token>"),
            None,
            Form::Json(r#"{"errCode":1501,"errMsg":"TokenExpiredError","errDlt":"old \u003ctoken\u003e"}"#),
        ),
        (
            token("v", 1),
            None,
            Form::Json(r#"{"errCode":1502,"errMsg":"TokenInvalidError","errDlt":"token uid v != userID u"}"#),
        ),
        (
            token("u", 5),
            None,
            Form::Json(
                r#"{"errCode":1502,"errMsg":"TokenInvalidError","errDlt":"token platform 5 != platformID 1"}"#,
            ),
        ),
        (failed(500, "ServerInternalError", ""), None, Form::Plain("503")),
        (failed(14, "connection refused", ""), None, Form::Plain("503")),
        (token("u", 1), Some(bad_version), Form::Plain("400")),
    ];
    for (outcome, upgrade, form) in cases {
        for wants_response in [false, true] {
            let mut rig = Rig::new(config());
            let mut login = rig.arguments("u", Platform::IOS);
            login.wants_response = wants_response;
            login.upgrade = upgrade.unwrap_or(login.upgrade);
            let conn = rig.accept(login).unwrap();
            let call = rig.calls().pop().unwrap();
            rig.answer(&call, outcome.clone());
            rig.turn();
            let seen = rig.read(conn);
            let fits = match (&form, wants_response, &seen[..]) {
                (Form::Json(json), false, [Seen::Http(http)]) => {
                    http.starts_with("HTTP/1.1 200 ") && http.ends_with(json)
                }
                (Form::Json(json), true, [Seen::Http(http), Seen::Text(text)]) => {
                    http.starts_with("HTTP/1.1 101 ") && text == json
                }
                (Form::Plain(status), _, [Seen::Http(http)]) => {
                    http.starts_with(&format!("HTTP/1.1 {status} ")) && !http.contains('{')
                }
                _ => false,
            };
            assert!(fits, "{form:?}, isMsgResp {wants_response}: {seen:?}");
            assert!(rig.is_closed(conn), "no close frame, then the close: {form:?}");
            assert!(!rig.is_registered("u"));
        }
    }
}

#[test]
fn of_several_faults_the_earlier_check_answers() {
    // Spec 1.3 steps 4 to 6: the auth service's word, then its user, then its platform, then the upgrade.
    let failed = UpstreamError { code: 1506, message: "TokenKickedError".into(), detail: "".into() };
    let token = |user: &str, platform| UpstreamOutcome::Token { user: user.into(), platform };
    let (other_user, other_platform) = ("token uid v != userID u", "token platform 2 != platformID 1");
    let cases = [
        ("4 before 6", UpstreamOutcome::Failed(failed), false, "TokenKickedError"),
        ("5a before 5b", token("v", 2), true, other_user),
        ("5a before 6", token("v", 1), false, other_user),
        ("5b before 6", token("u", 2), false, other_platform),
        ("5a before 5b and 6", token("v", 2), false, other_user),
    ];
    for (name, outcome, upgrade_is_good, expected) in cases {
        for wants_response in [false, true] {
            let mut rig = Rig::new(config());
            let mut login = rig.arguments("u", Platform::IOS);
            login.wants_response = wants_response;
            if !upgrade_is_good {
                login.upgrade = Err(UpgradeFault::NotGet);
            }
            let conn = rig.accept(login).unwrap();
            let call = rig.calls().pop().unwrap();
            rig.answer(&call, outcome.clone());
            let seen = rig.read(conn);
            let fits = match (wants_response, upgrade_is_good, &seen[..]) {
                (false, _, [Seen::Http(http)]) => http.contains(expected),
                (true, true, [Seen::Http(_), Seen::Text(text)]) => text.contains(expected),
                // A frame was asked for, but there is no way to send one: upstream's upgrade error stays.
                (true, false, [Seen::Http(http)]) => http.starts_with("HTTP/1.1 405 "),
                _ => false,
            };
            assert!(fits, "{name}, isMsgResp {wants_response}: {seen:?}");
            assert!(rig.is_closed(conn) && !rig.is_registered("u"), "{name}");
        }
    }
}

#[test]
fn the_token_check_carries_the_metadata_of_the_handshake() {
    let mut rig = Rig::new(config());
    let login = rig.arguments("u", Platform::WEB);
    rig.accept(login).unwrap();
    let call = rig.calls().pop().unwrap();
    assert_eq!(call.request, UpstreamRequest::ParseToken { token: "token-1".into() });
    assert_eq!((&*call.metadata.operation_id, &*call.metadata.user), ("login", "u"));
    assert_eq!((call.metadata.platform, call.metadata.connection_id.len()), (Platform::WEB, 32));
    assert_eq!(call.deadline, rig.now.mono.plus_ms(limits::UPSTREAM_DEADLINE_MS));
}

#[test]
fn a_login_that_waits_too_long_is_turned_away_and_its_reply_comes_too_late() {
    let mut rig = Rig::new(config());
    let login = rig.arguments("u", Platform::IOS);
    let conn = rig.accept(login).unwrap();
    let call = rig.calls().pop().unwrap();
    rig.wait(limits::LOGIN_DEADLINE_MS - limits::TICK_MS);
    assert_eq!(rig.read(conn), []);
    rig.wait(2 * limits::TICK_MS);
    assert!(matches!(&rig.read(conn)[..], [Seen::Http(head)] if head.starts_with("HTTP/1.1 503 ")));
    assert!(rig.is_closed(conn));
    let outcome = UpstreamOutcome::Token { user: "u".into(), platform: 1 };
    rig.answer(&call, outcome);
    rig.turn();
    assert!(!rig.is_registered("u"));
}

#[test]
fn a_client_that_leaves_while_it_waits_is_never_registered() {
    // At each moment between accept and register: the connection ends, its register entry is skipped, its slot freed.
    for moment in 0..3 {
        let mut rig = Rig::new(config());
        let login = rig.arguments("u", Platform::IOS);
        let conn = rig.accept(login).unwrap();
        let call = rig.calls().pop().unwrap();
        let outcome = UpstreamOutcome::Token { user: "u".into(), platform: 1 };
        if moment == 0 {
            rig.input(Input::TransportLost(conn));
        }
        rig.answer(&call, outcome);
        if moment == 1 {
            rig.input(Input::TransportLost(conn));
        }
        if moment == 2 {
            rig.input(Input::TransportClosed(conn));
        }
        rig.turn();
        assert!(rig.is_closed(conn) && !rig.is_registered("u"), "moment {moment}");
        rig.input(Input::TransportClosed(conn));
        assert_eq!(rig.hub.connections(), 0, "moment {moment}");
    }
}

#[test]
fn the_second_login_of_a_platform_kicks_the_first_and_invalidates_its_token() {
    let mut rig = Rig::new(config());
    let first = rig.log_in("u", Platform::IOS);
    let second = rig.log_in("u", Platform::IOS);
    rig.turn();
    assert_eq!(reply(&rig.read(first)).id, 2002);
    assert!(rig.is_closed(first) && !rig.is_closed(second));
    let calls = rig.calls();
    assert!(
        matches!(&calls[..], [c] if c.ticket.is_none()
            && matches!(&c.request, UpstreamRequest::InvalidateToken { preserved, .. } if &**preserved == "token-2")),
        "{calls:?}"
    );
    assert_eq!(rig.status("u")[0].devices.len(), 1);
}

/// Spec trap 26.
#[test]
fn the_same_token_may_be_there_twice() {
    let mut rig = Rig::new(config());
    let login = rig.arguments("u", Platform::IOS);
    for _ in 0..2 {
        rig.accept(login.clone()).unwrap();
        rig.answer_token("u", 1);
        rig.turn();
    }
    assert_eq!(rig.status("u")[0].devices.len(), 2);
}

#[test]
fn a_full_slab_lets_nobody_in_until_somebody_leaves() {
    let mut rig = Rig::new(pinion::hub::HubConfig { connections_max: 1, ..config() });
    let conn = rig.log_in("u", Platform::IOS);
    let login = rig.arguments("v", Platform::IOS);
    assert_eq!(rig.accept(login), None);
    rig.input(Input::TransportClosed(conn));
    rig.turn();
    rig.log_in("v", Platform::IOS);
}

#[test]
fn bytes_before_the_101_end_the_connection() {
    for token_is_checked in [false, true] {
        let mut rig = Rig::new(config());
        let login = rig.arguments("u", Platform::IOS);
        let conn = rig.accept(login).unwrap();
        if token_is_checked {
            rig.answer_token("u", 1);
        }
        rig.ping(conn, b"too early");
        assert!(rig.is_closed(conn), "token checked: {token_is_checked}");
        rig.turn();
        assert_eq!(rig.read(conn), []);
        assert!(!rig.is_registered("u"));
    }
}

/// A threshold of one login per second and a bound that is longer than a login may take.
fn stormy(ms_max: u64) -> pinion::hub::HubConfig {
    let spread = pinion::hub::SpreadPlan { above_per_second: 1, ms_max, seed: 3 };
    pinion::hub::HubConfig { spread, ..config() }
}

/// Logins that all come in one millisecond, their tokens checked. Gives the connections.
fn storm(rig: &mut Rig, logins: usize) -> Vec<pinion::ids::ConnId> {
    let enter = |n| {
        let login = rig.arguments(&format!("u{n}"), Platform::IOS);
        let conn = rig.accept(login).unwrap();
        rig.answer_token(&format!("u{n}"), 1);
        conn
    };
    (0..logins).map(enter).collect()
}

#[test]
fn a_storm_of_logins_is_spread_over_the_bound_and_everybody_gets_in() {
    let mut rig = Rig::new(stormy(2_000));
    let conns = storm(&mut rig, 60);
    rig.turn();
    assert!(rig.is_registered("u0"), "the first one waits for nobody");
    let mut there = Vec::new();
    for _ in 0..21 {
        rig.wait(limits::TICK_MS);
        there.push((0..60).filter(|n| rig.is_registered(&format!("u{n}"))).count());
    }
    assert_eq!(there.last(), Some(&60), "{there:?}");
    let steps: Vec<usize> = there.windows(2).map(|w| w[1] - w[0]).collect();
    assert!(steps.iter().all(|step| *step <= 15), "no tick takes them all: {there:?}");
    assert!(conns.iter().all(|conn| !rig.is_closed(*conn)));
}

#[test]
fn no_login_is_spread_beyond_its_deadline() {
    let mut rig = Rig::new(stormy(60_000));
    let conns = storm(&mut rig, 60);
    rig.wait(limits::LOGIN_DEADLINE_MS - limits::SPREAD_MARGIN_MS + 2 * limits::TICK_MS);
    for (n, conn) in conns.into_iter().enumerate() {
        assert!(rig.is_registered(&format!("u{n}")) && !rig.is_closed(conn), "u{n}");
    }
}

#[test]
fn whoever_waits_in_a_storm_can_leave_and_is_drained_and_may_not_talk() {
    for end in 0..3 {
        let mut rig = Rig::new(stormy(60_000));
        let conn = storm(&mut rig, 60)[50];
        rig.turn();
        assert!(!rig.is_registered("u50"));
        match end {
            0 => rig.input(Input::TransportLost(conn)),
            1 => rig.ping(conn, b"too early"),
            _ => rig.input(Input::Drain(rig.now.mono.plus_ms(5_000))),
        }
        if end == 2 {
            assert!(matches!(&rig.read(conn)[..], [Seen::Http(head)] if head.starts_with("HTTP/1.1 503 ")));
        }
        assert!(rig.is_closed(conn), "end {end}");
        rig.wait(limits::LOGIN_DEADLINE_MS + limits::TICK_MS);
        assert!(!rig.is_registered("u50"), "end {end}");
    }
}

#[test]
fn a_user_with_all_his_connections_gets_503_unless_the_login_ends_one_of_them() {
    let mut rig = Rig::new(pinion::hub::HubConfig { user_connections_max: 2, ..config() });
    rig.log_in("u", Platform::IOS);
    rig.log_in("u", Platform::WEB);
    rig.log_in("v", Platform::ANDROID);
    let login = rig.arguments("u", Platform::ANDROID);
    let third = rig.accept(login).unwrap();
    rig.answer_token("u", 2);
    rig.turn();
    assert!(matches!(&rig.read(third)[..], [Seen::Http(head)] if head.starts_with("HTTP/1.1 503 ")));
    assert!(rig.is_closed(third));
    // The second iOS login kicks the first: there is room for it.
    rig.log_in("u", Platform::IOS);
    assert_eq!(rig.status("u")[0].devices.len(), 2);
}
