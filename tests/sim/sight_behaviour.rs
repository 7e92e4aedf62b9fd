//! What operators see of one user, and that looking changes nothing: who is there, what happened to him.

use pinion::hub::Input;
use pinion::hub::follow::{Page, What};
use pinion::hub::mail::{KickMail, Look, LookMail, RpcOutcome, ShardMail};
use pinion::hub::record::{Mode, Recorder, replay};
use pinion::hub::sight::{Sight, UserFacts};
use pinion::hub::upstream::{UpstreamError, UpstreamOutcome};
use pinion::ids::{Platform, Text};
use pinion::limits;
use pinion::pb::openim::sdkws::SubUserOnlineStatus;
use pinion::session::Phase;
use prost::Message as _;

use crate::freeze::thaw;
use crate::rig::{Rig, config, ticket};

fn look(rig: &mut Rig, user: &str, look: Look) -> Sight {
    rig.outcomes();
    let mail = LookMail { ticket: ticket(77), user: Text::from(user), look };
    rig.input(Input::Mail(ShardMail::Look(Box::new(mail))));
    match &rig.outcomes()[..] {
        [(to, RpcOutcome::Sight(sight))] if *to == ticket(77) => sight.clone(),
        other => panic!("not one answer: {other:?}"),
    }
}

fn who(rig: &mut Rig, user: &str) -> UserFacts {
    match look(rig, user, Look::Who) {
        Sight::Who(facts) => facts,
        other => panic!("{other:?}"),
    }
}

fn page(rig: &mut Rig, user: &str, ask: Look) -> Page {
    match look(rig, user, ask) {
        Sight::Page(page) => page,
        other => panic!("{other:?}"),
    }
}

/// The names of events, with the connection they concern.
fn names(page: &Page) -> Vec<String> {
    let name = |what: &What| serde_json::to_value(what).unwrap()["event"].as_str().unwrap().to_owned();
    let connection = |c: &Option<Box<str>>| c.as_deref().unwrap_or("-").to_owned();
    page.events.iter().map(|e| format!("{} {}", connection(&e.connection), name(&e.what))).collect()
}

#[test]
fn who_shows_each_connection_with_what_waits_for_it() {
    let mut rig = Rig::new(config());
    let phone = rig.log_in("u", Platform::IOS);
    rig.wait(5_000);
    let web = rig.log_in("u", Platform::WEB);
    rig.log_in("other", Platform::IOS);
    let watch = SubUserOnlineStatus { subscribe_user_id: vec!["a".into(), "b".into()], ..Default::default() };
    rig.request(web, "u", (2005, "s"), &watch.encode_to_vec());
    for n in 0..3 {
        rig.request(phone, "u", (1003, &format!("m{n}")), b"x");
    }
    rig.push(1, 1, &["u"]);
    rig.turn();
    let late = rig.arguments("u", Platform::ANDROID);
    let late = rig.accept(late).unwrap();
    let facts = who(&mut rig, "u");
    assert_eq!((&*facts.user, facts.shard.0, facts.left_out), ("u", 0, 0));
    let [on_phone, on_web, logging_in] = &facts.connections[..] else { panic!("{facts:?}") };
    assert_eq!(
        (&*on_phone.id, on_phone.platform, on_phone.phase),
        (&*phone.to_string(), Platform::IOS, Phase::Open)
    );
    assert_eq!(on_phone.peer, "10.0.0.1:1".parse().unwrap());
    assert_eq!((on_phone.age_ms, on_phone.silent_ms), (5_000, 0));
    assert_eq!((on_phone.requests_in_flight, on_phone.requests_waiting), (1, 2), "SendMsg one by one");
    assert!(on_phone.queued_bytes > 0 && on_phone.queued_frames == 1, "{on_phone:?}");
    assert_eq!((on_web.subscriptions, on_web.age_ms, on_web.requests_in_flight), (2, 0, 1));
    assert_eq!((&*logging_in.id, logging_in.phase), (&*late.to_string(), Phase::LoggingIn));
    assert_eq!(who(&mut rig, "nobody").connections, []);
    let text = serde_json::to_string(&facts).unwrap();
    assert!(!text.contains("token-"), "a token is shown: {text}");
}

#[test]
fn who_is_bounded_and_says_what_it_left_out() {
    let mut config = config();
    config.login_policy = pinion::hub::login_policy::LoginPolicy::from_number(0).unwrap();
    config.connections_max = 1_000;
    config.user_connections_max = 1_000;
    let mut rig = Rig::new(config);
    for _ in 0..limits::WHO_CONNECTIONS_MAX + 5 {
        rig.log_in("u", Platform::IOS);
    }
    let facts = who(&mut rig, "u");
    assert_eq!((facts.connections.len(), facts.left_out), (limits::WHO_CONNECTIONS_MAX, 5));
}

#[test]
fn a_trace_tells_the_story_of_a_user_from_login_to_close() {
    let mut rig = Rig::new(config());
    let old = rig.log_in("u", Platform::IOS);
    let start = page(&mut rig, "u", Look::Follow { for_ms: 60_000 });
    assert_eq!((start.events.len(), start.next, start.left_ms), (0, 0, 60_000));
    rig.request(old, "u", (1001, "m"), b"secret body");
    let asked = rig.calls();
    rig.answer(&asked[0], UpstreamOutcome::Failed(UpstreamError::args("no")));
    rig.push(1, 1, &["u", "stranger"]);
    rig.turn();
    let new = rig.log_in("u", Platform::IOS);
    rig.turn();
    rig.read(old);
    rig.input(Input::TransportClosed(old));
    rig.log_in("stranger", Platform::IOS);
    let bad = rig.arguments("u", Platform::WEB);
    let bad = rig.accept(bad).unwrap();
    let check = rig.calls().pop().unwrap();
    let expired = UpstreamError { code: 1501, message: "TokenExpiredError".into(), detail: "".into() };
    rig.answer(&check, UpstreamOutcome::Failed(expired));
    let kick = KickMail { ticket: ticket(7), platform: Platform::IOS, users: vec![Text::from("u")] };
    rig.input(Input::Mail(ShardMail::Kick(Box::new(kick))));
    rig.turn();
    rig.push(2, 1, &["u"]);
    rig.turn();
    let story = page(&mut rig, "u", Look::Page { cursor: start.next });
    let expected = [
        format!("{old} request"),
        format!("{old} answer"),
        format!("{old} push"),
        format!("{new} login"),
        format!("{old} kicked"),
        format!("{new} online"),
        format!("{old} over"),
        format!("{old} closed"),
        format!("{bad} login"),
        format!("{bad} refused"),
        format!("{bad} over"),
        format!("{new} kicked"),
        format!("{new} over"),
        "- push_not_here".to_owned(),
    ];
    let mut told = names(&story);
    // Whether the old connection is told to leave before or after the new one is in is the policy's business.
    told[4..6].sort_by_key(|line| line != &expected[4]);
    assert_eq!(told, expected, "{story:#?}");
    let reasons = story.events.iter().filter_map(|e| match &e.what {
        What::Over { reason } => Some(&**reason),
        _ => None,
    });
    assert!(reasons.eq(["kicked", "login_refused", "kicked"]));
    let text = serde_json::to_string(&story).unwrap();
    assert!(!text.contains("secret body") && !text.contains("token-"), "{text}");
    assert_eq!(
        serde_json::from_str::<Page>(&text).unwrap(),
        story,
        "what the gateway says the command reads"
    );
}

#[test]
fn a_trace_ends_with_its_time_and_is_forgotten_after_a_grace() {
    let mut rig = Rig::new(config());
    let conn = rig.log_in("u", Platform::IOS);
    assert_eq!(look(&mut rig, "u", Look::Page { cursor: 0 }), Sight::NotFollowed);
    page(&mut rig, "u", Look::Follow { for_ms: 1_000 });
    rig.push(1, 1, &["u"]);
    rig.turn();
    rig.wait(1_000);
    rig.push(2, 1, &["u"]);
    rig.turn();
    let over = page(&mut rig, "u", Look::Page { cursor: 0 });
    assert_eq!((names(&over), over.left_ms), (vec![format!("{conn} push")], 0), "the second came too late");
    rig.ping(conn, b"");
    rig.wait(limits::TRACE_GRACE_MS);
    assert_eq!(look(&mut rig, "u", Look::Page { cursor: 0 }), Sight::NotFollowed);
    for n in 0..limits::TRACES_MAX {
        page(&mut rig, &format!("v{n}"), Look::Follow { for_ms: 1_000 });
    }
    assert_eq!(look(&mut rig, "u", Look::Follow { for_ms: 1_000 }), Sight::TooMany);
}

/// A talk with logins, kicks, requests and pushes; `watch` looks on after each round.
fn talk(mut watch: impl FnMut(&mut Rig, u32)) -> Rig {
    let mut rig = Rig::new(config());
    watch(&mut rig, 0);
    for n in 1..=5 {
        let conn = rig.log_in("u", Platform::IOS);
        rig.request(conn, "u", (1001, "m"), b"x");
        rig.push(n, 1, &["u", "v"]);
        rig.turn();
        watch(&mut rig, n);
    }
    rig
}

#[test]
fn looking_changes_no_decision_and_survives_a_freeze() {
    let alone = talk(|_, _| {});
    let mut watched = talk(|rig, round| {
        if round == 0 {
            page(rig, "u", Look::Follow { for_ms: 60_000 });
        }
        who(rig, "u");
        page(rig, "u", Look::Page { cursor: 0 });
        if round == 3 {
            rig.hub = thaw(&rig.hub);
        }
    });
    assert_eq!(alone.hub.trace_hash(), watched.hub.trace_hash());
    let story = page(&mut watched, "u", Look::Page { cursor: 0 });
    assert_eq!(names(&story).iter().filter(|name| name.ends_with(" online")).count(), 5, "{story:?}");
}

#[test]
fn a_recording_with_looks_in_it_replays() {
    let mut rig = Rig::new(config());
    rig.hub.record(Recorder::new(Mode::Shape, &config(), u64::MAX / 2));
    page(&mut rig, "u", Look::Follow { for_ms: 60_000 });
    let conn = rig.log_in("u", Platform::IOS);
    rig.request(conn, "u", (1001, "m"), b"x");
    who(&mut rig, "u");
    let text = String::from_utf8(rig.hub.take_recording()).unwrap();
    assert_eq!(replay(&text).map(|r| r.trace_hash), Ok(rig.hub.trace_hash()));
}
