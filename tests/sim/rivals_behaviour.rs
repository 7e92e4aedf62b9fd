//! Logins of one user on several nodes, at one shard: who ends, and what the auth service is told by whom.

use pinion::hub::HubConfig;
use pinion::hub::cluster::{ClusterMail, ClusterNews, Key, Login};
use pinion::hub::login_policy::LoginPolicy;
use pinion::hub::record::{Mode, Recorder, replay};
use pinion::hub::upstream::UpstreamRequest;
use pinion::ids::{ConnId, Platform};
use pinion::session::disconnect::Disconnect;

use crate::claims_behaviour::{
    add, ask, at_home, at_home_with, judge, key, mail, name, news, node, number, register,
};
use crate::rig::{Rig, config};

/// Above every time of a test.
const LATER: u64 = u64::MAX - 9;

fn by(login_policy: LoginPolicy) -> Rig {
    at_home_with(HubConfig { login_policy, ..config() })
}

/// OpenIM 3.5.
fn old(login_policy: LoginPolicy) -> Rig {
    at_home_with(HubConfig { login_policy, kicks_same_token: true, ..config() })
}

fn log_in_with(rig: &mut Rig, user: &str, (on, token): (Platform, &str)) -> ConnId {
    let login = pinion::session::handshake::Login { token: token.into(), ..rig.arguments(user, on) };
    let conn = rig.accept(login).unwrap();
    rig.answer_token(user, on.id());
    rig.turn();
    rig.read(conn);
    conn
}

fn own_key(rig: &mut Rig, conn: ConnId) -> Key {
    let told = news(rig);
    let of = |news: &ClusterNews| match news {
        ClusterNews::Registered(resident) if resident.number == number(conn) => Some(resident.key.clone()),
        _ => None,
    };
    told.iter().find_map(of).unwrap_or_else(|| panic!("{told:?}"))
}

fn requests(rig: &mut Rig) -> Vec<UpstreamRequest> {
    rig.calls().into_iter().map(|call| call.request).collect()
}

fn preserved(token: &str, user: &str, platform: Platform) -> UpstreamRequest {
    UpstreamRequest::InvalidateToken { preserved: token.into(), user: user.into(), platform }
}

#[test]
fn a_login_elsewhere_spares_its_own_token_and_hears_of_it() {
    let mut rig = at_home();
    let conn = rig.log_in("u", Platform::IOS);
    news(&mut rig);
    mail(&mut rig, judge("u", 1, (key(LATER, "b"), name(1))));
    assert_eq!(
        news(&mut rig),
        [ClusterNews::Met(key(LATER, "b"))],
        "OpenIM makes the call when nobody was kicked, too"
    );
    assert!(rig.is_registered("u"));
    mail(&mut rig, judge("u", 1, (key(LATER + 1, "b"), None)));
    assert_eq!(news(&mut rig), [ClusterNews::Gone(number(conn)), ClusterNews::Met(key(LATER + 1, "b"))]);
    assert!(requests(&mut rig).is_empty());
}

#[test]
fn in_3_5_a_token_spares_nobody() {
    let mut rig = old(LoginPolicy::OnePerPlatform);
    let conn = rig.log_in("u", Platform::IOS);
    let told = news(&mut rig);
    assert!(matches!(&told[..], [ClusterNews::Registered(resident)] if resident.token.is_none()), "{told:?}");
    mail(&mut rig, judge("u", 1, (key(LATER, "b"), name(1))));
    assert_eq!(news(&mut rig), [ClusterNews::Gone(number(conn)), ClusterNews::Met(key(LATER, "b"))]);
    // Policy 4 is newer than 3.5.
    let mut rig = old(LoginPolicy::OnePerClass);
    rig.log_in("u", Platform::IOS);
    mail(&mut rig, judge("u", 32, (key(LATER, "b"), name(1))));
    assert!(rig.is_registered("u"));
}

#[test]
fn a_login_that_asks_names_its_token_only_where_it_may_matter() {
    let asked = |mut rig: Rig, on: Platform| -> Login {
        add(&mut rig, 2, &["b"]);
        rig.turn();
        news(&mut rig);
        let login = rig.arguments("u", on);
        rig.accept(login).unwrap();
        rig.answer_token("u", on.id());
        rig.turn();
        match news(&mut rig).remove(0) {
            ClusterNews::Login(login) => login,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(asked(at_home(), Platform::IOS).token, name(1));
    assert_eq!(asked(by(LoginPolicy::PcAndOther), Platform::WEB).token, name(1));
    let windows = Platform::new(3).unwrap();
    let pc = asked(by(LoginPolicy::PcAndOther), windows);
    assert_eq!((pc.class, pc.token), (None, None));
    assert_eq!(asked(by(LoginPolicy::KickNobody), Platform::IOS).token, None);
    assert_eq!(asked(old(LoginPolicy::OnePerPlatform), Platform::IOS).token, None);
}

#[test]
fn under_policy_4_the_node_of_the_older_connection_ends_its_token() {
    let mut rig = by(LoginPolicy::OnePerClass);
    let conn = rig.log_in("u", Platform::IOS);
    let older = own_key(&mut rig, conn);
    let winner = key(LATER, "b");
    let call = |rig: &mut Rig| {
        let calls = rig.calls();
        let [call] = &calls[..] else { panic!("{calls:?}") };
        assert_eq!(call.request, UpstreamRequest::KickTokens { tokens: vec!["token-1".into()] });
        assert_eq!((&*call.metadata.user, call.metadata.platform), ("u", Platform::IOS));
        assert!(!call.metadata.operation_id.is_empty() && call.ticket.is_none(), "{call:?}");
    };
    mail(&mut rig, ClusterMail::Kick { number: older.number, winner: winner.clone() });
    call(&mut rig);
    // Once, whoever says it again.
    mail(&mut rig, ClusterMail::Kick { number: older.number, winner: winner.clone() });
    mail(&mut rig, judge("u", 32, (winner, name(9))));
    rig.turn();
    assert!(requests(&mut rig).is_empty());
    assert_eq!(rig.hub.reason_of(conn), Some(Disconnect::Kicked));

    let mut rig = by(LoginPolicy::OnePerClass);
    let phone = rig.log_in("u", Platform::new(2).unwrap());
    news(&mut rig);
    let login = (key(LATER, "b"), name(9));
    mail(&mut rig, judge("u", 32, login));
    assert_eq!(news(&mut rig), [ClusterNews::Gone(number(phone))], "nobody needs to hear of it");
    assert_eq!(requests(&mut rig), [UpstreamRequest::KickTokens { tokens: vec!["token-1".into()] }]);
}

#[test]
fn a_login_that_met_others_elsewhere_ends_all_tokens_but_its_own_once() {
    for (policy, told) in [
        (LoginPolicy::KickNobody, 0),
        (LoginPolicy::OnePerPlatform, 1),
        (LoginPolicy::OnePerClass, 0),
        (LoginPolicy::PcAndOther, 1),
    ] {
        let mut rig = by(policy);
        let conn = rig.log_in("u", Platform::IOS);
        let own = own_key(&mut rig, conn);
        mail(&mut rig, ClusterMail::Met(Key { time: own.time + 1, ..own.clone() }));
        assert_eq!(requests(&mut rig), [], "of an earlier life of the number");
        mail(&mut rig, ClusterMail::Met(own.clone()));
        mail(&mut rig, ClusterMail::Met(own.clone()));
        let all = vec![preserved("token-1", "u", Platform::IOS); told];
        assert_eq!(requests(&mut rig), all, "{policy:?}");
        // The next login in that slot is another one.
        rig.input(pinion::hub::Input::TransportLost(conn));
        rig.turn();
        let conn = rig.log_in("u", Platform::IOS);
        let own = own_key(&mut rig, conn);
        mail(&mut rig, ClusterMail::Met(own));
        assert_eq!(requests(&mut rig).len(), told, "{policy:?}");
        rig.hub.audit().unwrap();
    }
}

#[test]
fn a_login_that_met_others_here_does_not_tell_again() {
    let mut rig = at_home();
    rig.log_in("u", Platform::IOS);
    let conn = rig.log_in("u", Platform::IOS);
    assert_eq!(requests(&mut rig), [preserved("token-2", "u", Platform::IOS)]);
    let own = own_key(&mut rig, conn);
    mail(&mut rig, ClusterMail::Met(own));
    assert_eq!(requests(&mut rig), []);
    // Nor does one that has lost meanwhile.
    let mut rig = at_home();
    let conn = rig.log_in("u", Platform::IOS);
    let own = own_key(&mut rig, conn);
    mail(&mut rig, ClusterMail::Kick { number: own.number, winner: key(LATER, "b") });
    mail(&mut rig, ClusterMail::Met(own));
    assert_eq!(requests(&mut rig), []);
}

#[test]
fn of_two_logins_that_asked_the_newer_tells_once_though_it_came_first() {
    let mut rig = Rig::new(HubConfig { cluster: Some(node("a")), ..config() });
    let conns = [ask(&mut rig, "u"), ask(&mut rig, "u")];
    register(&mut rig, conns[1], 11);
    let newer = own_key(&mut rig, conns[1]);
    register(&mut rig, conns[0], 10);
    assert_eq!(requests(&mut rig), [preserved("token-2", "u", Platform::IOS)]);
    mail(&mut rig, ClusterMail::Met(newer));
    assert_eq!(requests(&mut rig), []);
}

#[test]
fn under_policy_5_a_login_hears_of_pcs_as_well_and_a_pc_of_nobody() {
    let mut rig = by(LoginPolicy::PcAndOther);
    let windows = Platform::new(3).unwrap();
    rig.log_in("u", windows);
    news(&mut rig);
    mail(&mut rig, judge("u", 64, (key(LATER, "b"), name(9))));
    assert_eq!(news(&mut rig), [ClusterNews::Met(key(LATER, "b"))]);
    assert!(rig.is_registered("u"));
    // An older login hears of nobody newer, nor does one that a newer one of its class has ended.
    let mut rig = by(LoginPolicy::PcAndOther);
    rig.log_in("u", windows);
    let phone = rig.log_in("u", Platform::IOS);
    let newer = own_key(&mut rig, phone);
    mail(&mut rig, judge("u", 64, (key(newer.time - 1, "b"), name(9))));
    let told = news(&mut rig);
    assert!(matches!(&told[..], [ClusterNews::Registered(of)] if of.number == number(phone)), "{told:?}");
}

#[test]
fn a_recording_without_tokens_judges_as_the_hub_did() {
    let config = HubConfig { cluster: Some(node("a")), ..config() };
    let mut rig = Rig::new(config.clone());
    rig.hub.record(Recorder::new(Mode::Shape, &config, u64::MAX));
    add(&mut rig, 1, &["a"]);
    rig.turn();
    log_in_with(&mut rig, "u", (Platform::IOS, "secret-token"));
    let spared = Some(pinion::hub::cluster::TokenName::of("secret-token"));
    news(&mut rig);
    mail(&mut rig, judge("u", 1, (key(LATER, "b"), spared)));
    rig.turn();
    assert!(rig.is_registered("u"));
    let recording = String::from_utf8(rig.hub.take_recording()).unwrap();
    assert!(!recording.contains("secret-token"));
    assert_eq!(replay(&recording).unwrap().trace_hash, rig.hub.trace_hash());
    let mut last = rig;
    mail(&mut last, judge("u", 1, (key(LATER + 1, "b"), name(9))));
    last.turn();
    assert!(!last.is_registered("u"));
}

#[test]
fn a_login_elsewhere_that_its_home_judges_is_not_judged_here() {
    use pinion::hub::mail::{Judge, RemoteLoginMail, RpcOutcome, ShardMail};
    let mut rig = at_home();
    rig.log_in("u", Platform::IOS);
    for (judge, stays) in [(Judge::Home, true), (Judge::Shard, false)] {
        rig.input(pinion::hub::Input::Mail(ShardMail::RemoteLogin(Box::new(RemoteLoginMail {
            ticket: crate::rig::ticket(3),
            operation_id: "remote".into(),
            user: "u".into(),
            platform: Platform::IOS,
            token: "another".into(),
            judge,
        }))));
        assert!(matches!(rig.outcomes().pop(), Some((_, RpcOutcome::RemoteLogin))));
        assert_eq!((rig.is_registered("u"), requests(&mut rig).len()), (stays, usize::from(!stays)));
    }
}

#[test]
fn marks_of_another_nodes_backend_are_for_an_embedded_one() {
    use pinion::hub::cluster::{Marked, TokenMarks};
    let marks = || TokenMarks { user: "u".into(), platform: Platform::IOS, which: Marked::These(Vec::new()) };
    let mut rig = at_home();
    mail(&mut rig, ClusterMail::Marks(marks()));
    assert_eq!(requests(&mut rig), [UpstreamRequest::MarkTokens(marks())]);
    rig.hub.say_marks(marks());
    assert_eq!(news(&mut rig), [ClusterNews::Marks(marks())]);
    let mut rig = at_home_with(HubConfig { announces_logins: true, ..config() });
    mail(&mut rig, ClusterMail::Marks(marks()));
    assert_eq!(requests(&mut rig), [], "OpenIM's services know themselves");
}
