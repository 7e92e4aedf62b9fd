//! `online_change` and token states, from a real Redis.

use pinion::backend::openim::tokens::{Marking, Which};
use pinion::control::mailbox::Refused;
use pinion::control::tokens::{TokenAnswer, TokenFault, TokenOrder};
use pinion::ids::Platform;
use pinion::limits;
use pinion::metrics::Metric;
use pinion::time::Mono;
use rustix::process::Signal;

use super::servers::{Front, Redis};
use super::*;

pub(super) fn follow(plan: RedisPlan) -> Control {
    Control::start(|control| control.redis = Some(plan))
}

pub(super) fn change(payload: &str) -> News {
    News::OnlineChange { payload: payload.to_owned().into() }
}

/// What was told of the subscription.
fn changes(control: &Control) -> Vec<News> {
    let of_it =
        |news: &News| !matches!(news, News::Discovery(_) | News::Registration(_) | News::Endpoints { .. });
    control.told().into_iter().filter(of_it).collect()
}

#[test]
fn messages_come_as_they_are_and_in_order() {
    let redis = Redis::start();
    let control = follow(redis_plan(redis.0.address));
    control.await_count(&News::Resubscribed, 1);
    let mut publisher = redis.client();
    let payloads = ["5:u1", "1:5:u1", "u1", "", "no:thing that we look into:\u{1F600}"];
    for payload in payloads {
        assert_eq!(publisher.publish(payload), 1);
    }
    control.await_count(&change(payloads[4]), 1);
    let wanted: Vec<News> = [News::Resubscribed].into_iter().chain(payloads.map(change)).collect();
    assert_eq!(changes(&control), wanted);
    control.await_metric(Metric::OnlineChanges, payloads.len() as u64);
    assert_eq!(control.block.value(Metric::Subscribed), 1);
}

#[test]
fn each_gap_is_told() {
    let redis = Redis::start();
    let control = follow(redis_plan(redis.0.address));
    let mut publisher = redis.client();
    for times in 1..=3 {
        control.await_count(&News::Resubscribed, times);
        publisher.publish("5:u1");
        control.await_count(&change("5:u1"), times);
        publisher.call(&["CLIENT", "KILL", "TYPE", "pubsub"]);
        control.await_count(&News::SubscriptionLost, times);
    }
    control.await_count(&News::Resubscribed, 4);
    control.await_metric(Metric::Subscriptions, 4);
    control.await_metric(Metric::RedisFailures, 3);
}

#[test]
fn a_redis_that_is_away_at_start_is_awaited() {
    let front = Front::new();
    let control = follow(redis_plan(front.address));
    control.await_metric(Metric::RedisFailures, 2);
    assert!(!control.told().contains(&News::Resubscribed));
    let redis = Redis::start();
    front.open(redis.0.address);
    control.await_count(&News::Resubscribed, 1);
    front.cut();
    control.await_count(&News::SubscriptionLost, 1);
    let other = Redis::start();
    front.open(other.0.address);
    control.await_count(&News::Resubscribed, 2);
    assert_eq!(other.client().publish("5:u1"), 1);
    control.await_count(&change("5:u1"), 1);
}

#[test]
fn the_next_address_is_tried() {
    let (closed, redis) = (Front::new(), Redis::start());
    let addresses = vec![closed.address.to_string(), redis.0.address.to_string()];
    let control = follow(RedisPlan { addresses, ..redis_plan("") });
    control.await_count(&News::Resubscribed, 1);
    control.await_metric(Metric::RedisFailures, 1);
}

#[test]
fn a_password_is_given_where_it_is_asked_for() {
    let redis = Redis::start_with(&["--requirepass", "openIM123"]);
    let login = |username: &str, password: &str| {
        let (username, password) = (username.to_owned(), password.to_owned());
        follow(RedisPlan { username, password, ..redis_plan(redis.0.address) })
    };
    login("", "openIM123").await_count(&News::Resubscribed, 1);
    login("default", "openIM123").await_count(&News::Resubscribed, 1);
    for stranger in [login("", ""), login("", "wrong"), login("nobody", "openIM123")] {
        stranger.await_metric(Metric::RedisFailures, 2);
        assert!(!stranger.told().contains(&News::Resubscribed));
    }
}

#[test]
fn the_master_is_found_through_a_sentinel() {
    let redis = Redis::start();
    let sentinel = Redis::start_sentinel("mymaster", redis.0.address);
    let follow_master = |name: &str| {
        let topology = RedisTopology::Sentinels { master: name.to_owned() };
        follow(RedisPlan { topology, ..redis_plan(sentinel.0.address) })
    };
    let control = follow_master("mymaster");
    control.await_count(&News::Resubscribed, 1);
    // A sentinel that knows the master listens to some of its channels, but not to this one.
    assert_eq!(redis.client().publish("5:u1"), 1);
    control.await_count(&change("5:u1"), 1);
    let lost = follow_master("another");
    lost.await_metric(Metric::RedisFailures, 2);
}

/// A deadline that a test never meets.
fn later() -> Mono {
    clock::now().mono.plus_ms(600_000)
}

fn web() -> Platform {
    Platform::new(5).unwrap()
}

fn read(question: u64, user: &str, deadline: Mono) -> TokenOrder {
    TokenOrder::Read { question, user: user.into(), platform: web(), deadline }
}

fn kick(user: &str, which: Which) -> TokenOrder {
    let marking = Marking { user: user.into(), platform: web(), which };
    TokenOrder::Kick { marking, deadline: later() }
}

pub(super) fn kick_all_but(user: &str, token: &str) -> TokenOrder {
    kick(user, Which::AllBut(token.into()))
}

/// Asks, and waits for the answer.
pub(super) fn ask(control: &Control, question: u64, user: &str) -> Result<Vec<(String, i64)>, TokenFault> {
    control.address.tokens(read(question, user, later())).unwrap();
    answer(control, question).map(|mut states| {
        states.sort();
        states
    })
}

fn answer(control: &Control, wanted: u64) -> Result<Vec<(String, i64)>, TokenFault> {
    eventually(&format!("the answer to {wanted}"), || {
        control.told().into_iter().find_map(|news| match news {
            News::TokenStates(TokenAnswer { question, states }) if question == wanted => Some(states),
            _ => None,
        })
    })
}

fn tokens_only(redis: &Redis) -> Control {
    follow(RedisPlan { db: 3, subscription: Subscription::Off, ..redis_plan(redis.0.address) })
}

#[test]
fn token_states_are_read_and_kicked() {
    let redis = Redis::start();
    let mut client = redis.client();
    client.call(&["SELECT", "3"]);
    let key = "UID_PID_TOKEN_STATUS:u1:Web";
    client.call(&["HSET", key, "a", "0", "b", "0", "c", "3"]);
    client.call(&["EXPIRE", key, "1000"]);
    let control = tokens_only(&redis);
    let pairs =
        |pairs: &[(&str, i64)]| Ok(pairs.iter().map(|&(token, state)| (token.into(), state)).collect());
    assert_eq!(ask(&control, 1, "u1"), pairs(&[("a", 0), ("b", 0), ("c", 3)]));
    assert_eq!(ask(&control, 2, "u2"), pairs(&[]));
    for token in ["a", "elsewhere"] {
        control.address.tokens(kick("u1", Which::Only(token.into()))).unwrap();
    }
    control.address.tokens(kick("u2", Which::Only("a".into()))).unwrap();
    control.await_metric(Metric::TokenOrdersOk, 5);
    assert_eq!(ask(&control, 3, "u1"), pairs(&[("a", 2), ("b", 0), ("c", 3)]));
    control.address.tokens(kick_all_but("u1", "b")).unwrap();
    control.address.tokens(kick_all_but("u2", "b")).unwrap();
    control.await_metric(Metric::TokenOrdersOk, 8);
    assert_eq!(ask(&control, 4, "u1"), pairs(&[("a", 2), ("b", 0), ("c", 2)]));
    let left: i64 = client.call(&["TTL", key])[0].parse().unwrap();
    assert!((1..=1000).contains(&left), "the hash expires as before: {left}");
    assert_eq!(client.call(&["EXISTS", "UID_PID_TOKEN_STATUS:u2:Web"]), ["0"]);
    assert_eq!(control.block.value(Metric::Subscriptions), 0);
}

#[test]
fn what_cannot_be_answered_is_answered_as_a_failure() {
    let redis = Redis::start();
    let mut client = redis.client();
    client.call(&["SELECT", "3"]);
    client.call(&["SET", "UID_PID_TOKEN_STATUS:text:Web", "no hash"]);
    client.call(&["HSET", "UID_PID_TOKEN_STATUS:words:Web", "a", "normal"]);
    for n in 0..=limits::USER_TOKENS_MAX {
        client.call(&["HSET", "UID_PID_TOKEN_STATUS:many:Web", &n.to_string(), "0"]);
    }
    let control = tokens_only(&redis);
    assert_eq!(ask(&control, 1, "text"), Err(TokenFault::Failed));
    assert_eq!(ask(&control, 2, "words"), Err(TokenFault::Failed));
    assert_eq!(ask(&control, 3, "many"), Err(TokenFault::Failed));
    client.call(&["HDEL", "UID_PID_TOKEN_STATUS:many:Web", "0"]);
    assert_eq!(ask(&control, 4, "many").unwrap().len(), limits::USER_TOKENS_MAX);
    control.address.tokens(read(5, "u1", Mono(0))).unwrap();
    assert_eq!(answer(&control, 5), Err(TokenFault::Late));
    control.await_metric(Metric::TokenOrdersFailed, 3);
    control.await_metric(Metric::TokenOrdersLate, 1);
}

#[test]
fn a_redis_that_hangs_or_is_away_costs_the_question_only() {
    let (redis, front) = (Redis::start(), Front::new());
    let mut plan = redis_plan(front.address);
    plan.subscription = Subscription::Off;
    let control = follow(plan);
    assert_eq!(ask(&control, 1, "u1"), Err(TokenFault::Failed));
    front.open(redis.0.address);
    let mut question = 1;
    let mut answered = |what: &str| {
        eventually(what, || {
            question += 1;
            ask(&control, question, "u1").ok()
        });
    };
    answered("an answer");
    // The connection broke while it was idle.
    redis.client().call(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
    answered("an answer over another connection");
    redis.client().call(&["CLIENT", "PAUSE", "600000"]);
    let soon = clock::now().mono.plus_ms(200);
    control.address.tokens(read(9_001, "u1", soon)).unwrap();
    assert_eq!(answer(&control, 9_001), Err(TokenFault::Late));
}

#[test]
fn orders_beyond_the_queue_come_back() {
    let redis = Redis::start();
    redis.client().call(&["CLIENT", "PAUSE", "600000"]);
    let mut plan = redis_plan(redis.0.address);
    plan.subscription = Subscription::Off;
    let mut control = follow(plan);
    let deadline = later();
    let mut taken = 0;
    let came_back = loop {
        match control.address.tokens(read(taken, "u1", deadline)) {
            Ok(()) => taken += 1,
            Err(refused) => break refused,
        }
        // What Redis does not answer ends after a while and makes room.
        assert!(taken < 100 * limits::TOKEN_ORDERS_MAX as u64, "no limit");
    };
    assert_eq!(came_back, Refused::Full(read(taken, "u1", deadline)));
    assert!(taken >= limits::TOKEN_ORDERS_MAX as u64);
    control.await_metric(Metric::TokenOrdersRefused, 1);
    control.thread.take().unwrap().end(Leases::Leave, Duration::ZERO);
    let refused = control.address.tokens(read(1, "u1", Mono(0)));
    assert_eq!(refused, Err(Refused::Closed(read(1, "u1", Mono(0)))));
}

#[test]
fn what_was_taken_is_done_before_the_end() {
    let redis = Redis::start();
    let mut client = redis.client();
    client.call(&["SELECT", "3"]);
    let mut control = tokens_only(&redis);
    let users: Vec<String> = (0..200).map(|n| format!("u{n}")).collect();
    for user in &users {
        client.call(&["HSET", &format!("UID_PID_TOKEN_STATUS:{user}:Web"), "old", "0", "new", "0"]);
        control.address.tokens(kick_all_but(user, "new")).unwrap();
    }
    control.end(Leases::Revoke);
    for user in &users {
        let key = format!("UID_PID_TOKEN_STATUS:{user}:Web");
        assert_eq!(client.call(&["HMGET", &key, "old", "new"]), ["2", "0"], "{user}");
    }
    assert_eq!(control.block.value(Metric::TokenOrdersOk), users.len() as u64);
}

#[test]
fn without_redis_orders_come_back() {
    let control = Control::start(|_| {});
    let refused = eventually("the lane to close", || control.address.tokens(read(1, "u1", Mono(0))).err());
    assert!(matches!(refused, Refused::Closed(_)), "{refused:?}");
}

#[test]
fn a_subscription_that_fell_silent_is_made_anew() {
    let redis = Redis::start();
    let control = follow(redis_plan(redis.0.address));
    control.await_count(&News::Resubscribed, 1);
    redis.0.signal(Signal::STOP);
    control.await_count(&News::SubscriptionLost, 1);
    redis.0.signal(Signal::CONT);
    control.await_count(&News::Resubscribed, 2);
    assert!(redis.client().publish("5:u1") >= 1);
    control.await_count(&change("5:u1"), 1);
}
