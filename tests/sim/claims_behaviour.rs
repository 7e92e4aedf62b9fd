//! What a shard does in a cluster: which logins ask, what becomes of them, answers to new placements, kicks by key.

use pinion::hub::cluster::{Class, ClusterMail, ClusterNews, ConnNumber, Key, Resident, TokenName};
use pinion::hub::login_policy::LoginPolicy;
use pinion::hub::mail::{Look, LookMail, RpcOutcome, ShardMail};
use pinion::hub::record::{Mode, Recorder, replay};
use pinion::hub::sight::{ConnectionFacts, Sight};
use pinion::hub::{Hub, HubConfig, Input};
use pinion::ids::{ConnId, Platform, ShardId, Text};
use pinion::limits;
use pinion::metrics::Metric;
use pinion::placement::view::{Epoch, NodeId, Weight};
use pinion::placement::{Algorithm, Placement};
use pinion::session::Phase;
use pinion::session::disconnect::Disconnect;
use pinion::time::Mono;

use crate::rig::{Rig, Seen, config, platform, ticket};

const BUSY: &str = "HTTP/1.1 503 ";

pub fn node(name: &str) -> NodeId {
    NodeId::new(name).unwrap()
}

fn placement(nodes: &[&str]) -> Placement {
    Placement::of(nodes.iter().map(|name| (node(name), Weight::default())).collect(), &Algorithm::default())
}

/// A shard of node `a`.
fn member() -> Rig {
    Rig::new(HubConfig { cluster: Some(node("a")), ..config() })
}

/// In force: only `a`, so everybody is at home.
pub fn at_home() -> Rig {
    at_home_with(config())
}

/// As [`at_home`], by other rules.
pub fn at_home_with(config: HubConfig) -> Rig {
    let mut rig = Rig::new(HubConfig { cluster: Some(node("a")), ..config });
    add(&mut rig, 1, &["a"]);
    rig.turn();
    assert!(matches!(&news(&mut rig)[..], [ClusterNews::Switched { residents, .. }] if residents.is_empty()));
    rig
}

pub fn mail(rig: &mut Rig, mail: ClusterMail) {
    rig.input(Input::Mail(ShardMail::Cluster(Box::new(mail))));
}

pub fn add(rig: &mut Rig, epoch: u64, nodes: &[&str]) {
    mail(rig, ClusterMail::Add { epoch: Epoch(epoch), placement: placement(nodes) });
}

pub fn news(rig: &mut Rig) -> Vec<ClusterNews> {
    std::iter::from_fn(|| rig.hub.next_news()).collect()
}

pub fn number(conn: ConnId) -> u64 {
    ConnNumber::of(ShardId(0), conn)
}

pub fn key(time: u64, name: &str) -> Key {
    Key { time, node: node(name), number: 1 }
}

/// A login whose turn has come; what became of it is for the test to see.
fn arrive(rig: &mut Rig, user: &str, on: Platform) -> ConnId {
    let login = rig.arguments(user, on);
    let conn = rig.accept(login).unwrap();
    rig.answer_token(user, on.id());
    rig.turn();
    conn
}

/// A login that asks, on iOS; the question is read.
pub fn ask(rig: &mut Rig, user: &str) -> ConnId {
    let conn = arrive(rig, user, Platform::IOS);
    assert_eq!(rig.read(conn), [], "no answer before the router's");
    let asked = news(rig);
    let [ClusterNews::Login(login)] = &asked[..] else { panic!("{asked:?}") };
    assert_eq!((login.number, login.user.as_str(), login.class), (number(conn), user, Some(Class(1))));
    conn
}

pub fn register(rig: &mut Rig, conn: ConnId, time: u64) {
    let key = Key { time, node: node("a"), number: number(conn) };
    mail(rig, ClusterMail::Register { number: number(conn), key });
}

fn head(rig: &mut Rig, conn: ConnId) -> String {
    match rig.read(conn).into_iter().next() {
        Some(Seen::Http(head)) => head,
        other => panic!("{other:?}"),
    }
}

/// The rig's `login`th, on iOS.
fn resident(conn: ConnId, user: &str, (time, login): (u64, u64)) -> Resident {
    let key = Key { time, node: node("a"), number: number(conn) };
    let (class, token) = (Some(Class(1)), name(login));
    Resident { number: number(conn), user: Text::from(user), class, token, key }
}

/// What other nodes call the token of the rig's `login`th login.
pub fn name(login: u64) -> Option<TokenName> {
    Some(TokenName::of(&format!("token-{login}")))
}

/// What a home says of a login at another node.
pub fn judge(user: &str, class: u8, (key, token): (Key, Option<TokenName>)) -> ClusterMail {
    ClusterMail::Judge { user: Text::from(user), class: Class(class), key, token }
}

fn facts(rig: &mut Rig, user: &str) -> Vec<ConnectionFacts> {
    let look = LookMail { ticket: ticket(9), user: Text::from(user), look: Look::Who };
    rig.input(Input::Mail(ShardMail::Look(Box::new(look))));
    match rig.outcomes().pop() {
        Some((_, RpcOutcome::Sight(Sight::Who(facts)))) => facts.connections,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_node_alone_asks_nobody_and_tells_nobody() {
    let mut rig = Rig::new(config());
    add(&mut rig, 1, &["b"]);
    let conn = rig.log_in("u", Platform::IOS);
    mail(&mut rig, ClusterMail::Kick { number: number(conn), winner: key(u64::MAX, "b") });
    rig.input(Input::TransportLost(conn));
    rig.turn();
    assert_eq!((news(&mut rig), rig.hub.is_silent()), (vec![], true));
}

#[test]
fn a_login_asks_unless_it_is_at_home_under_every_placement_in_force() {
    let mut rig = member();
    let first = ask(&mut rig, "u"); // none in force yet
    register(&mut rig, first, 7);
    assert!(head(&mut rig, first).starts_with("HTTP/1.1 101 "));
    assert_eq!(news(&mut rig), [ClusterNews::Registered(resident(first, "u", (7, 1)))]);
    add(&mut rig, 1, &["a"]);
    rig.turn();
    news(&mut rig);
    rig.log_in("v", Platform::IOS);
    add(&mut rig, 2, &["b"]);
    rig.turn();
    news(&mut rig);
    ask(&mut rig, "w");

    let mut rig = at_home();
    add(&mut rig, 2, &["b"]);
    rig.turn();
    news(&mut rig);
    ask(&mut rig, "u");
    mail(&mut rig, ClusterMail::Only(Epoch(1)));
    rig.log_in("v", Platform::IOS);
    mail(&mut rig, ClusterMail::Only(Epoch(2)));
    news(&mut rig);
    ask(&mut rig, "w");
}

#[test]
fn add_and_register_are_served_in_their_order_and_the_answer_has_who_was_there() {
    let mut rig = at_home();
    let before = rig.log_in("u", Platform::IOS);
    add(&mut rig, 2, &["b"]);
    let asking = arrive(&mut rig, "v", Platform::IOS); // in the turn of the answer, yet after the placement
    let told = news(&mut rig);
    let time = rig.now.unix.0 as u64;
    let [
        ClusterNews::Registered(first),
        ClusterNews::Login(login),
        ClusterNews::Switched { shard, epoch, residents },
    ] = &told[..]
    else {
        panic!("{told:?}")
    };
    assert_eq!(
        (*shard, *epoch, &residents[..]),
        (ShardId(0), Epoch(2), &[resident(before, "u", (time, 1))][..])
    );
    assert_eq!((first, login.number), (&residents[0], number(asking)));
    register(&mut rig, asking, time + 5);
    add(&mut rig, 3, &["c"]);
    rig.turn();
    let told = news(&mut rig);
    let [ClusterNews::Registered(_), ClusterNews::Switched { residents, .. }] = &told[..] else {
        panic!("{told:?}")
    };
    assert_eq!(residents.len(), 2);
}

#[test]
fn the_answer_of_a_large_shard_takes_turns_and_misses_nobody() {
    let slice = limits::SWITCH_SLICE_MAX as usize;
    let users = 2 * slice + 10;
    let mut rig =
        Rig::new(HubConfig { cluster: Some(node("a")), connections_max: 2 * users as u32, ..config() });
    add(&mut rig, 1, &["a"]);
    rig.turn();
    let mut conns = Vec::new();
    for user in 0..users {
        let user = format!("u{user}");
        let login = rig.arguments(&user, Platform::IOS);
        conns.push(rig.accept(login).unwrap());
        let call = rig.calls().pop().unwrap();
        rig.hub.input(
            rig.now,
            Input::UpstreamReply(pinion::hub::upstream::UpstreamReply {
                ticket: call.ticket.unwrap(),
                outcome: pinion::hub::upstream::UpstreamOutcome::Token { user: user.into(), platform: 1 },
            }),
        );
        rig.hub.turn(rig.now);
        while rig.hub.next_flush().is_some() {}
    }
    rig.wait(2_500); // some were spread
    while rig.hub.next_flush().is_some() {}
    news(&mut rig);
    add(&mut rig, 2, &["b"]);
    assert!(rig.hub.has_work());
    rig.turn();
    assert_eq!(news(&mut rig), [], "the first slice is not the answer");
    let late = arrive(&mut rig, "late", Platform::IOS);
    assert!(matches!(&news(&mut rig)[..], [ClusterNews::Login(_)]), "whoever comes meanwhile asks");
    rig.input(Input::TransportLost(conns[0]));
    register(&mut rig, late, 1);
    rig.turn();
    let mut told = news(&mut rig);
    while rig.hub.has_work() {
        rig.turn();
        told.extend(news(&mut rig));
    }
    let [ClusterNews::Registered(_), ClusterNews::Switched { residents, .. }, ClusterNews::Gone(gone)] =
        &told[..]
    else {
        panic!("{} news", told.len())
    };
    assert_eq!(*gone, number(conns[0]), "its end is told after the answer that it is in");
    let mut named: Vec<u64> = residents.iter().map(|resident| resident.number).collect();
    let mut all: Vec<u64> = conns.iter().copied().chain([late]).map(number).collect();
    named.sort_unstable();
    all.sort_unstable();
    assert_eq!(named, all);
}

#[test]
fn more_placements_than_are_kept_make_every_login_ask() {
    let mut rig = at_home();
    for epoch in 2..=limits::PLACEMENTS_MAX as u64 {
        add(&mut rig, epoch, &["a"]);
    }
    rig.log_in("u", Platform::IOS);
    assert_eq!(rig.value(Metric::ClusterPlacementsFull), 0);
    add(&mut rig, 1_000, &["a"]);
    assert_eq!(rig.value(Metric::ClusterPlacementsFull), 1);
    while rig.hub.has_work() {
        rig.turn();
    }
    news(&mut rig);
    ask(&mut rig, "v");
    mail(&mut rig, ClusterMail::Only(Epoch(1_000)));
    rig.log_in("w", Platform::IOS);
}

#[test]
fn a_login_that_waits_can_leave_be_refused_and_miss_its_deadline() {
    let mut rig = member();
    let gone = |conn| vec![ClusterNews::Gone(number(conn))];

    let left = ask(&mut rig, "u");
    rig.input(Input::TransportLost(left));
    assert_eq!(news(&mut rig), gone(left));
    register(&mut rig, left, 5); // too late
    rig.input(Input::TransportClosed(left));
    register(&mut rig, left, 5); // the slot is free
    let next = ask(&mut rig, "u");
    assert_eq!(next.0.index, left.0.index, "the slot is used again");
    register(&mut rig, left, 5);
    assert_eq!(rig.read(next), [], "the number names the former connection");

    mail(&mut rig, ClusterMail::Refuse(number(next)));
    assert!(head(&mut rig, next).starts_with(BUSY));
    assert_eq!((news(&mut rig), rig.value(Metric::HandshakeBusy)), (gone(next), 1));

    let late = ask(&mut rig, "u");
    assert_eq!(rig.value(Metric::LoginsClaiming), 1);
    rig.wait(limits::LOGIN_DEADLINE_MS + limits::TICK_MS);
    assert!(head(&mut rig, late).starts_with(BUSY));
    assert_eq!(news(&mut rig), gone(late));
    assert_eq!(rig.hub.reason_of(late), Some(Disconnect::LoginTimeout));

    let early = ask(&mut rig, "u");
    rig.bytes(early, vec![0x89, 0x80, 1, 2, 3, 4]);
    assert_eq!((news(&mut rig), rig.hub.reason_of(early)), (gone(early), Some(Disconnect::ProtocolError)));

    let drained = ask(&mut rig, "u");
    rig.input(Input::Drain(Mono(0)));
    assert!(head(&mut rig, drained).starts_with(BUSY));
    assert_eq!(news(&mut rig), gone(drained));
    assert_eq!(rig.value(Metric::LoginsClaiming), 0);
}

#[test]
fn a_user_who_became_full_meanwhile_is_refused() {
    let mut rig = Rig::new(HubConfig {
        user_connections_max: 1,
        login_policy: LoginPolicy::KickNobody,
        cluster: Some(node("a")),
        ..config()
    });
    let conns = [(); 2].map(|()| arrive(&mut rig, "u", Platform::IOS));
    news(&mut rig);
    conns.into_iter().for_each(|conn| register(&mut rig, conn, 5));
    assert!(head(&mut rig, conns[0]).starts_with("HTTP/1.1 101 "));
    assert!(head(&mut rig, conns[1]).starts_with(BUSY));
    let told = news(&mut rig);
    assert!(
        matches!(&told[..], [ClusterNews::Registered(_), ClusterNews::Gone(n)] if *n == number(conns[1]))
    );
}

#[test]
fn a_kick_ends_the_connection_that_it_names_if_its_key_is_smaller() {
    let mut rig = at_home();
    let conn = rig.log_in("u", Platform::IOS);
    let time = rig.now.unix.0 as u64;
    news(&mut rig);
    let kick = |number, winner| ClusterMail::Kick { number, winner };
    mail(&mut rig, kick(number(conn), key(time - 1, "b")));
    mail(&mut rig, kick(number(conn) + 1, key(u64::MAX, "b")));
    rig.turn();
    assert_eq!((rig.read(conn), news(&mut rig)), (vec![], vec![]));
    mail(&mut rig, kick(number(conn), key(time, "b"))); // node b is after node a
    assert_eq!(news(&mut rig), [ClusterNews::Gone(number(conn))]);
    assert_eq!(rig.status("u"), [], "out of the user's list at once");
    rig.turn();
    assert!(matches!(&rig.read(conn)[..], [Seen::Reply(reply)] if reply.id == 2002));
    assert_eq!((rig.hub.reason_of(conn), rig.value(Metric::Kicks)), (Some(Disconnect::Kicked), 1));
    assert!(rig.calls().is_empty(), "the node of the winner tells the auth service");
}

#[test]
fn a_judgement_ends_smaller_keys_of_its_class_and_names_greater_ones() {
    let mut rig = at_home();
    let (phone, web) = (rig.log_in("u", Platform::IOS), rig.log_in("u", Platform::WEB));
    let time = rig.now.unix.0 as u64;
    news(&mut rig);
    mail(&mut rig, judge("u", 1, (key(time - 1, "b"), name(9))));
    assert_eq!(news(&mut rig), [ClusterNews::Registered(resident(phone, "u", (time, 1)))]);
    mail(&mut rig, judge("u", 3, (key(u64::MAX - 5, "b"), name(9))));
    assert_eq!(news(&mut rig), []);
    let newer = key(time + 9, "b");
    mail(&mut rig, judge("u", 1, (newer.clone(), name(9))));
    assert_eq!(news(&mut rig), [ClusterNews::Gone(number(phone)), ClusterNews::Met(newer)]);
    assert!(
        rig.calls().is_empty(),
        "the node of the login tells the auth service: it has the token that stays"
    );
    assert_eq!(rig.status("u")[0].devices.len(), 1);
    assert_eq!(rig.hub.reason_of(web), None);
}

#[test]
fn residents_get_times_above_the_floor_and_above_each_other() {
    let mut rig = at_home();
    let time = rig.now.unix.0 as u64;
    let mut given = |floor: Option<ClusterMail>, user: &str| {
        floor.into_iter().for_each(|floor| mail(&mut rig, floor));
        let conn = rig.log_in(user, platform(2));
        let told = news(&mut rig);
        let [.., ClusterNews::Registered(Resident { key, number: named, .. })] = &told[..] else {
            panic!("{told:?}")
        };
        assert_eq!((*named, key.number, &key.node), (number(conn), number(conn), &node("a")));
        key.time
    };
    assert_eq!(given(None, "u"), time);
    assert_eq!(given(None, "v"), time + 1);
    assert_eq!(given(Some(ClusterMail::Floor(time + 40)), "w"), time + 41);
    assert_eq!(given(Some(ClusterMail::Floor(3)), "x"), time + 42);
    let judged = judge("y", 2, (key(time + 60, "b"), None));
    assert_eq!(given(Some(judged), "y"), time + 61);
}

#[test]
fn of_two_logins_that_asked_the_greater_key_stays_whatever_their_order() {
    for order in [[0, 1], [1, 0]] {
        let mut rig = member();
        let conns = [ask(&mut rig, "u"), ask(&mut rig, "u")];
        for place in order {
            register(&mut rig, conns[place], 10 + place as u64);
            assert!(head(&mut rig, conns[place]).starts_with("HTTP/1.1 101 "));
        }
        rig.turn();
        assert_eq!(rig.hub.reason_of(conns[0]), Some(Disconnect::Kicked));
        assert_eq!(rig.hub.reason_of(conns[1]), None);
        let told = news(&mut rig);
        assert!(told.contains(&ClusterNews::Gone(number(conns[0]))), "{told:?}");
        let calls = rig.calls();
        let preserved: Vec<_> = calls.iter().map(|call| format!("{:?}", call.request)).collect();
        assert_eq!(preserved.len(), 1);
        assert!(preserved[0].contains("token-2"), "the newer one's token stays good: {preserved:?}");
    }
}

#[test]
fn operators_see_who_waits_and_the_time_of_a_login() {
    let mut rig = member();
    let conn = ask(&mut rig, "u");
    let seen = facts(&mut rig, "u");
    assert_eq!((seen[0].phase, seen[0].login_time), (Phase::Claiming, None));
    register(&mut rig, conn, 77);
    let seen = facts(&mut rig, "u");
    assert_eq!((seen[0].phase, seen[0].login_time), (Phase::Open, Some(77)));
}

#[test]
fn a_router_that_does_not_listen_stops_new_logins() {
    let mut rig = at_home();
    let conn = rig.log_in("u", Platform::IOS);
    let judge = judge("u", 1, (key(1, "b"), None));
    while rig.value(Metric::ClusterNewsWaiting) < limits::CLUSTER_NEWS_MAX as u64 {
        rig.hub.input(rig.now, Input::Mail(ShardMail::Cluster(Box::new(judge.clone()))));
    }
    let refused = arrive(&mut rig, "v", Platform::IOS);
    assert!(head(&mut rig, refused).starts_with(BUSY));
    assert_eq!(rig.value(Metric::HandshakeBusy), 1);
    rig.input(Input::TransportLost(conn));
    rig.turn();
    assert_eq!(news(&mut rig).len(), limits::CLUSTER_NEWS_MAX + 1, "what must be told waits all the same");
    rig.log_in("v", Platform::IOS);
}

#[test]
fn a_hub_that_was_read_back_and_a_replay_go_on_alike() {
    let mut rig = member();
    rig.hub.record(Recorder::new(Mode::Shape, &HubConfig { cluster: Some(node("a")), ..config() }, u64::MAX));
    add(&mut rig, 1, &["a", "b"]);
    let asking =
        (0..).map(|n| format!("u{n}")).find(|user| placement(&["a", "b"]).home(user) == Some(&node("b")));
    let asking = asking.unwrap();
    rig.turn();
    news(&mut rig);
    let conn = ask(&mut rig, &asking);
    let recording = String::from_utf8(rig.hub.take_recording()).unwrap();
    assert_eq!(replay(&recording).unwrap().trace_hash, rig.hub.trace_hash());
    add(&mut rig, 2, &["b"]);
    let mut copy: Hub = serde_json::from_str(&serde_json::to_string(&rig.hub).unwrap()).unwrap();
    copy.rebuild();
    copy.audit().unwrap();
    let key = Key { time: 9, node: node("a"), number: number(conn) };
    let go = Input::Mail(ShardMail::Cluster(Box::new(ClusterMail::Register { number: number(conn), key })));
    let told = [&mut rig.hub, &mut copy].map(|hub| {
        hub.input(rig.now, go.clone());
        hub.turn(rig.now);
        (std::iter::from_fn(|| hub.next_news()).collect::<Vec<_>>(), hub.trace_hash())
    });
    assert_eq!(told[0], told[1]);
    assert_eq!(told[0].0.len(), 2);
}
