//! Login policies as clients, callers and the auth service see them: who is kicked by a login here, by a login on
//! another gateway and by the RPC; what is told upstream; and that nobody waits for anybody.

use pinion::hub::login_policy::LoginPolicy;
use pinion::hub::mail::{KickMail, RemoteLoginMail, ShardMail};
use pinion::hub::upstream::{CallMetadata, UpstreamCall, UpstreamRequest};
use pinion::hub::{Effect, HubConfig, Input};
use pinion::ids::{ConnId, Platform, Text};
use pinion::limits;
use pinion::metrics::Metric;

use crate::client::conflicts;
use crate::rig::{Rig, Seen, config, reply, ticket};

const POLICIES: [u8; 4] = [0, 1, 4, 5];

/// How a connection is made to leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// A login on this gateway.
    Login,
    /// `MultiTerminalLoginCheck`: a login on another one (spec 4.6).
    Remote,
    /// `KickUserOffline` (spec 4.5).
    Rpc,
}

fn rig(policy: u8) -> Rig {
    let login_policy = LoginPolicy::from_number(policy).unwrap();
    Rig::new(HubConfig { login_policy, ..config() })
}

/// Logs in with a token of choice, up to the moment before the turn that registers.
fn knock(rig: &mut Rig, on: Platform, token: &str) -> ConnId {
    let mut login = rig.arguments("u", on);
    login.token = token.into();
    let conn = rig.accept(login).unwrap();
    rig.answer_token("u", on.id());
    conn
}

fn log_in(rig: &mut Rig, on: Platform, token: &str) -> ConnId {
    let conn = knock(rig, on, token);
    rig.turn();
    rig.read(conn);
    conn
}

/// Somebody logs in, or is said to have logged in, or is kicked. Does not run a turn after a local login's.
fn make_leave(rig: &mut Rig, way: Way, on: Platform, token: &str) {
    match way {
        Way::Login => {
            log_in(rig, on, token);
        }
        Way::Remote => rig.input(Input::Mail(ShardMail::RemoteLogin(Box::new(RemoteLoginMail {
            ticket: ticket(8),
            operation_id: Text::from("remote"),
            user: Text::from("u"),
            platform: on,
            token: Text::from(token),
            judge: pinion::hub::mail::Judge::Shard,
        })))),
        Way::Rpc => rig.input(Input::Mail(ShardMail::Kick(Box::new(KickMail {
            ticket: ticket(7),
            platform: on,
            users: vec![Text::from("u")],
        })))),
    }
}

/// What upstream must be told after a login on `new` (spec 8.3), `kicked` connections having left.
fn told(policy: u8, new: Platform, kicked: usize) -> Option<UpstreamRequest> {
    let is_pc = matches!(new.id(), 3 | 4 | 7);
    match policy {
        1 => true,
        5 => !is_pc,
        _ => false,
    }
    .then(|| UpstreamRequest::InvalidateToken { preserved: "new".into(), user: "u".into(), platform: new })
    .or_else(|| {
        (policy == 4 && kicked > 0)
            .then(|| UpstreamRequest::KickTokens { tokens: vec!["old".into(); kicked] })
    })
}

/// Also spec trap 27: policy 5 asks to end the tokens of the new platform only, whatever else is kicked.
#[test]
fn each_policy_kicks_whom_it_says_here_and_from_afar() {
    for policy in POLICIES {
        for new in Platform::all() {
            for way in [Way::Login, Way::Remote] {
                let mut rig = rig(policy);
                // The same token everywhere: nobody has to leave yet (spec 8.3, P8 and newer).
                let there: Vec<_> = Platform::all().map(|on| (on, log_in(&mut rig, on, "old"))).collect();
                rig.calls();
                make_leave(&mut rig, way, new, "new");
                let name = format!("policy {policy}, {way:?} on {new:?}");
                let judge = LoginPolicy::from_number(policy).unwrap();
                let kicked: Vec<_> = there.iter().filter(|(on, _)| conflicts(judge, new, *on)).collect();
                let status = rig.status("u");
                let left = status[0].devices.iter().filter(|d| &*d.token == "old").count();
                assert_eq!(left, there.len() - kicked.len(), "{name}: gone when the call returns");
                let calls = rig.calls();
                let asked: Vec<_> = calls.iter().map(|call| call.request.clone()).collect();
                assert_eq!(asked, Vec::from_iter(told(policy, new, kicked.len())), "{name}");
                for call in &calls {
                    assert_eq!(call.ticket, None, "{name}: nobody waits for it");
                    let expected = match way {
                        Way::Remote => ("remote", "", 0),
                        _ => ("login", "u", 32),
                    };
                    let CallMetadata { operation_id, user, platform, connection_id } = &call.metadata;
                    assert_eq!((&**operation_id, &**user, connection_id.len()), expected, "{name}");
                    assert_eq!(*platform, new, "{name}");
                }
                rig.turn();
                for (on, conn) in &there {
                    let leaves = conflicts(judge, new, *on);
                    let seen = rig.read(*conn);
                    assert_eq!(seen.len(), usize::from(leaves), "{name}: {on:?} saw {seen:?}");
                    assert!(!leaves || reply(&seen).id == 2002, "{name}: {on:?} saw {seen:?}");
                    assert_eq!(rig.is_closed(*conn), leaves, "{name}: {on:?}");
                }
            }
        }
    }
}

/// Spec trap 26.
#[test]
fn the_same_token_kicks_nobody_and_is_preserved() {
    for policy in POLICIES {
        for new in Platform::all() {
            for way in [Way::Login, Way::Remote] {
                let mut rig = rig(policy);
                let there: Vec<_> = Platform::all().map(|on| log_in(&mut rig, on, "new")).collect();
                rig.calls();
                make_leave(&mut rig, way, new, "new");
                rig.turn();
                let asked: Vec<_> = rig.calls().into_iter().map(|call| call.request).collect();
                assert_eq!(
                    asked,
                    Vec::from_iter(told(policy, new, 0)),
                    "policy {policy}, {way:?} on {new:?}"
                );
                assert!(
                    there.iter().all(|conn| !rig.is_closed(*conn)),
                    "policy {policy}, {way:?} on {new:?}"
                );
            }
        }
    }
}

#[test]
fn in_3_5_a_login_here_ends_an_older_one_with_its_token_and_the_token_stays_good() {
    // Spec 8.3, S351; trap 26 is of the newer ones. From elsewhere it stays: the login may be our own.
    for (way, leaves) in [(Way::Login, true), (Way::Remote, false)] {
        let login_policy = LoginPolicy::OnePerPlatform;
        let mut rig = Rig::new(HubConfig { login_policy, kicks_same_token: true, ..config() });
        let older = log_in(&mut rig, Platform::IOS, "new");
        let another_platform = log_in(&mut rig, Platform::WEB, "new");
        rig.calls();
        make_leave(&mut rig, way, Platform::IOS, "new");
        rig.turn();
        let asked: Vec<_> = rig.calls().into_iter().map(|call| call.request).collect();
        assert_eq!(asked, Vec::from_iter(told(1, Platform::IOS, 0)), "{way:?}");
        let seen = rig.read(older);
        assert_eq!(seen.len(), usize::from(leaves), "{way:?}");
        assert!(!leaves || reply(&seen).id == 2002, "{way:?}: {seen:?}");
        assert_eq!((rig.is_closed(older), rig.is_closed(another_platform)), (leaves, false), "{way:?}");
    }
}

#[test]
fn a_user_without_connections_here_is_no_concern_of_the_policy() {
    for policy in POLICIES {
        for way in [Way::Login, Way::Remote] {
            let mut rig = rig(policy);
            make_leave(&mut rig, way, Platform::IOS, "new");
            assert_eq!(rig.calls(), [], "policy {policy}, {way:?}: upstream is asked nothing");
        }
    }
}

#[test]
fn a_kick_by_rpc_takes_all_of_one_platform_and_no_token() {
    for policy in POLICIES {
        let mut rig = rig(policy);
        let there: Vec<_> =
            [1, 1, 2, 9, 10, 11].map(|id| log_in(&mut rig, Platform::new(id).unwrap(), "t")).into();
        rig.calls();
        make_leave(&mut rig, Way::Rpc, Platform::IOS, "");
        rig.turn();
        let closed: Vec<bool> = there.iter().map(|conn| rig.read(*conn).len() == 1).collect();
        assert_eq!(closed, [true, true, false, false, false, false], "policy {policy}");
        assert_eq!(rig.calls(), [], "the auth service kicks tokens itself (spec 4.5)");
    }
}

#[test]
fn whoever_is_kicked_gets_the_frame_and_then_the_end_in_bounded_time() {
    // Spec trap 13: flushed before the close, whatever waits before it, and never later than the flush deadline.
    for way in [Way::Login, Way::Remote, Way::Rpc] {
        for reads in [true, false] {
            for backlog in [0, 20, limits::OUTBOX_FRAMES_MAX] {
                let mut rig = rig(1);
                let conn = log_in(&mut rig, Platform::IOS, "old");
                for n in 0..backlog {
                    rig.push(u32::try_from(n).unwrap(), 1, &["u"]);
                    rig.turn();
                }
                make_leave(&mut rig, way, Platform::IOS, "new");
                rig.turn();
                let name = format!("{way:?}, reads {reads}, {backlog} frames wait");
                assert!(!rig.is_closed(conn), "{name}: the frame is still to be flushed");
                if reads {
                    let seen = rig.read(conn);
                    let ids: Vec<i32> =
                        seen.iter().map(|s| if let Seen::Reply(r) = s { r.id } else { 0 }).collect();
                    assert_eq!(ids, [vec![2001; backlog], vec![2002]].concat(), "{name}");
                } else {
                    rig.wait(limits::FLUSH_DEADLINE_MS + limits::TICK_MS);
                    assert_eq!(rig.read(conn), [], "{name}");
                }
                assert!(rig.is_closed(conn), "{name}");
                rig.push(9_999, 1, &["u"]);
                rig.ping(conn, b"still there?");
                rig.input(Input::TransportClosed(conn));
                rig.turn();
                assert_eq!(rig.hub.connections(), usize::from(way == Way::Login), "{name}: its slot is free");
            }
        }
    }
}

#[test]
fn a_login_waits_for_nobody() {
    // Spec 8.6 (d): the kicked peers do not read, the auth service never answers, other logins hang in their token
    // check, and still the 101 is there after one turn.
    let mut rig = rig(1);
    let stuck: Vec<_> = (0..20).map(|_| log_in(&mut rig, Platform::IOS, "old")).collect();
    for n in 0..20 {
        let login = rig.arguments(&format!("waiting{n}"), Platform::WEB);
        rig.accept(login).unwrap();
    }
    rig.calls();
    let conn = knock(&mut rig, Platform::IOS, "new");
    rig.turn();
    assert!(matches!(&rig.read(conn)[..], [Seen::Http(head)] if head.starts_with("HTTP/1.1 101 ")));
    assert!(stuck.iter().all(|old| !rig.is_closed(*old)), "they wait for their flush, nobody for them");
    rig.request(conn, "u", (2004, "m"), b"");
    assert_eq!(reply(&rig.read(conn)).msg_incr, "m", "and it is served at once");
    assert_eq!(rig.status("u")[0].devices.len(), 1);
}

#[test]
fn logins_of_one_user_in_one_turn_are_decided_in_their_order() {
    let mut rig = rig(1);
    let conns: Vec<_> = ["a", "b", "c"].map(|token| knock(&mut rig, Platform::IOS, token)).into();
    rig.turn();
    assert_eq!(rig.status("u")[0].devices.iter().map(|d| &*d.token).collect::<Vec<_>>(), ["c"]);
    rig.turn();
    for conn in &conns[..2] {
        let seen = rig.read(*conn);
        let [Seen::Http(head), Seen::Reply(kick)] = &seen[..] else { panic!("{seen:?}") };
        assert!(head.starts_with("HTTP/1.1 101 ") && kick.id == 2002);
        assert!(rig.is_closed(*conn));
    }
    let counts =
        [Metric::HandshakeOk, Metric::Kicks, Metric::Registered, Metric::Users].map(|m| rig.value(m));
    assert_eq!(counts, [3, 2, 1, 1]);
}

#[test]
fn whatever_ends_a_connection_first_it_is_unregistered_once() {
    // Every order of two ends around a kick that is still queued: spec 8.6 (a), trap 25.
    type End = fn(&mut Rig, ConnId);
    let ends: [(&str, End); 6] = [
        ("kick", |rig, _| make_leave(rig, Way::Rpc, Platform::IOS, "")),
        ("lost", |rig, conn| rig.input(Input::TransportLost(conn))),
        ("closed", |rig, conn| rig.input(Input::TransportClosed(conn))),
        ("login", |rig, _| {
            knock(rig, Platform::IOS, "new");
        }),
        ("garbage", |rig, conn| rig.bytes(conn, vec![0xff; 4])),
        ("turn", |rig, _| rig.turn()),
    ];
    for (first_name, first) in ends {
        for (second_name, second) in ends {
            for (third_name, third) in ends {
                let mut rig = rig(1);
                let conn = log_in(&mut rig, Platform::IOS, "old");
                while rig.hub.next_presence().is_some() {}
                for end in [first, second, third] {
                    end(&mut rig, conn);
                }
                rig.input(Input::TransportLost(conn));
                rig.input(Input::TransportClosed(conn));
                rig.wait(limits::FLUSH_DEADLINE_MS + 2 * limits::TICK_MS);
                let newcomers = rig.effects.iter().filter_map(|e| match e {
                    Effect::Close(closed) if *closed != conn => Some(*closed),
                    _ => None,
                });
                for closed in newcomers.collect::<Vec<_>>() {
                    rig.input(Input::TransportClosed(closed));
                }
                rig.turn();
                let name = format!("{first_name}, {second_name}, {third_name}");
                let closes = rig.effects.iter().filter(|e| **e == Effect::Close(conn)).count();
                assert_eq!(closes, 1, "{name}");
                let here = rig.hub.roster();
                assert!(here.iter().all(|(there, _)| *there != conn), "{name}: {here:?}");
                let registered = rig.value(Metric::Registered);
                assert_eq!(
                    (registered, rig.hub.connections() as u64),
                    (here.len() as u64, registered),
                    "{name}"
                );
                assert_eq!(rig.value(Metric::Users), u64::from(registered > 0), "{name}");
            }
        }
    }
}

#[test]
fn trap_25_reconnects_two_tokens_and_kills_in_the_queue_leave_no_zombie() {
    // Spec trap 25 and 8.6: users who come back with the token they had, users who come with another, and logins that
    // are killed while they wait for the register.
    const USERS: usize = 100;
    const ROUNDS: usize = 7;
    let keeps_its_token = |user: usize| user.is_multiple_of(2);
    let gone = |rig: &mut Rig, conn| {
        rig.input(Input::TransportLost(conn));
        rig.input(Input::TransportClosed(conn));
    };
    let mut rig = Rig::new(HubConfig { connections_max: 1000, ..config() });
    let mut live: Vec<Vec<ConnId>> = vec![Vec::new(); USERS];
    for round in 0..ROUNDS {
        for (n, live) in live.iter_mut().enumerate() {
            let user = format!("u{n}");
            let mut login = rig.arguments(&user, Platform::IOS);
            if keeps_its_token(n) {
                login.token = "same".into();
            }
            let conn = rig.accept(login).unwrap();
            rig.answer_token(&user, Platform::IOS.id());
            if (n + round).is_multiple_of(3) {
                gone(&mut rig, conn);
            } else {
                live.push(conn);
            }
        }
        rig.turn();
        let there = |n: usize| if keeps_its_token(n) { live[n].len() } else { live[n].len().min(1) };
        let expected: usize = (0..USERS).map(there).sum();
        assert_eq!(
            rig.value(Metric::Registered),
            expected as u64,
            "round {round}: the same token kicks nobody"
        );
        // The older ones are found dead only now, kicked or not.
        for live in &mut live {
            for old in live.drain(..live.len().saturating_sub(1)) {
                gone(&mut rig, old);
            }
        }
        rig.turn();
        let users = live.iter().filter(|live| !live.is_empty()).count() as u64;
        let counts = [Metric::Registered, Metric::Users].map(|metric| rig.value(metric));
        assert_eq!((counts, rig.hub.connections() as u64), ([users; 2], users), "round {round}");
    }
    for conn in live.into_iter().flatten() {
        gone(&mut rig, conn);
    }
    rig.turn();
    let counts = [Metric::Registered, Metric::Users].map(|metric| rig.value(metric));
    assert_eq!((counts, rig.hub.connections()), ([0; 2], 0));
}

#[test]
fn a_login_here_is_told_elsewhere_if_there_is_an_elsewhere_and_one_from_afar_is_not_told_on() {
    for announces_logins in [false, true] {
        let mut rig = Rig::new(HubConfig { announces_logins, ..config() });
        rig.log_in("u", Platform::IOS);
        let told: Vec<_> = rig.calls().into_iter().filter(|call| call.ticket.is_none()).collect();
        let expected = UpstreamRequest::LoginElsewhere { token: "token-1".into() };
        assert_eq!(
            told.iter().map(|call| &call.request).collect::<Vec<_>>(),
            [&expected][..usize::from(announces_logins)]
        );
        for call in &told {
            let CallMetadata { operation_id, user, platform, connection_id } = &call.metadata;
            assert_eq!((&**operation_id, &**user, *platform), ("login", "u", Platform::IOS));
            assert_eq!(connection_id.len(), 32);
        }
        make_leave(&mut rig, Way::Remote, Platform::ANDROID, "other");
        rig.turn();
        let told_on = |call: &UpstreamCall| matches!(call.request, UpstreamRequest::LoginElsewhere { .. });
        assert!(!rig.calls().iter().any(told_on));
    }
}
