//! Tests of the answers for subscribers: who is asked for, how often, and what an answer is worth.

use super::*;
use crate::hub::upstream::UpstreamOutcome;
use crate::ids::{CallTicket, SlotId};
use crate::limits;
use crate::pb::openim::user::OnlineStatus;

fn at(ms: u64) -> Now {
    Now { mono: Mono(ms), unix: UnixMs(0) }
}

fn presence() -> Presence {
    let mut config = PresenceConfig::new(Compat::Main, 7, [1, 2]);
    config.statuses.entries_max = 4;
    config.statuses.waiting_max = 8;
    config.statuses.batch_max = 3;
    config.statuses.calls_max = 2;
    Presence::new(config)
}

fn ask(presence: &mut Presence, ms: u64, number: u32, users: &[&str]) {
    let ticket = CallTicket(SlotId { index: number, generation: 0 });
    let users = users.iter().map(|user| Box::from(*user)).collect();
    presence.ask(Mono(ms), Question { shard: ShardId(3), ticket, deadline: Mono(ms + 10_000), users });
}

/// User and platforms.
type Status = (&'static str, &'static [i32]);

/// Which question, and what it is told: statuses or an error code.
type Reply = (u32, Result<Vec<(String, Vec<i32>)>, i32>);

/// The next reply: which question, and what it says.
fn reply(presence: &mut Presence) -> Option<Reply> {
    let (shard, reply) = presence.next_reply()?;
    assert_eq!(shard, ShardId(3));
    let outcome = match reply.outcome {
        UpstreamOutcome::Statuses(statuses) => {
            Ok(statuses.into_iter().map(|s| (String::from(s.user), s.platforms)).collect())
        }
        UpstreamOutcome::Failed(error) => Err(error.code),
        other => panic!("{other:?}"),
    };
    Some((reply.ticket.0.index, outcome))
}

fn says(number: u32, statuses: &[Status]) -> Option<Reply> {
    let status = |(user, platforms): &Status| (String::from(*user), platforms.to_vec());
    Some((number, Ok(statuses.iter().map(status).collect())))
}

fn users(request: &Request) -> Vec<String> {
    assert_eq!(request.method, UserMethod::GetUserStatus);
    GetUserStatusReq::decode(request.body.clone()).unwrap().user_i_ds
}

fn answer(presence: &mut Presence, ms: u64, request: &Request, statuses: &[Status]) {
    let status = |(user, platforms): &Status| OnlineStatus {
        user_id: String::from(*user),
        status: i32::from(!platforms.is_empty()),
        platform_i_ds: platforms.to_vec(),
    };
    let body = GetUserStatusResp { status_list: statuses.iter().map(status).collect() };
    presence.answered(Mono(ms), request.id, Ok(body.encode_to_vec().into()));
}

fn news(presence: &mut Presence) -> Vec<(String, Vec<i32>)> {
    std::iter::from_fn(|| presence.next_news()).map(|news| (news.user.into(), news.platforms)).collect()
}

#[test]
fn an_answer_has_the_order_and_the_duplicates_of_its_question() {
    let mut presence = presence();
    ask(&mut presence, 0, 1, &["b", "a", "b"]);
    assert_eq!(reply(&mut presence), None);
    let request = presence.next_request(at(0)).unwrap();
    assert_eq!((users(&request), &*request.operation_id), (vec!["b".into(), "a".into()], "p_7_1"));
    answer(&mut presence, 10, &request, &[("a", &[1, 5]), ("stranger", &[1])]);
    assert_eq!(reply(&mut presence), says(1, &[("b", &[]), ("a", &[1, 5]), ("b", &[])]));
    ask(&mut presence, 11, 2, &["a"]);
    ask(&mut presence, 11, 3, &[]);
    assert_eq!(reply(&mut presence), says(2, &[("a", &[1, 5])]));
    assert_eq!(reply(&mut presence), says(3, &[]));
    assert_eq!((presence.next_request(at(11)), presence.next_reply()), (None, None));
    let counts = presence.statuses.counts;
    assert_eq!((counts.hits, counts.misses, counts.expired), (1, 3, 0));
}

#[test]
fn questions_for_one_user_at_one_time_ask_once() {
    let mut presence = presence();
    ask(&mut presence, 0, 1, &["a"]);
    ask(&mut presence, 0, 2, &["a", "b"]);
    let request = presence.next_request(at(0)).unwrap();
    ask(&mut presence, 1, 3, &["b"]);
    assert_eq!((users(&request).len(), presence.next_request(at(1))), (2, None));
    answer(&mut presence, 2, &request, &[("a", &[5]), ("b", &[1])]);
    assert_eq!(reply(&mut presence), says(1, &[("a", &[5])]));
    assert_eq!(reply(&mut presence), says(2, &[("a", &[5]), ("b", &[1])]));
    assert_eq!(reply(&mut presence), says(3, &[("b", &[1])]));
    assert_eq!(presence.statuses.waiting(), 0);
}

#[test]
fn requests_are_bounded_in_size_and_number() {
    let mut presence = presence();
    ask(&mut presence, 0, 1, &["a", "b", "c", "d", "e", "f", "g"]);
    let first = presence.next_request(at(0)).unwrap();
    let second = presence.next_request(at(0)).unwrap();
    assert_eq!((users(&first).len(), users(&second).len(), presence.next_request(at(0))), (3, 3, None));
    answer(&mut presence, 1, &second, &[]);
    let third = presence.next_request(at(1)).unwrap();
    assert_eq!(users(&third), ["g"]);
    answer(&mut presence, 1, &third, &[("g", &[5])]);
    answer(&mut presence, 1, &first, &[("c", &[1])]);
    let all: [Status; 7] =
        [("a", &[]), ("b", &[]), ("c", &[1]), ("d", &[]), ("e", &[]), ("f", &[]), ("g", &[5])];
    // The cache has room for four of the seven; the answer has all.
    assert_eq!(reply(&mut presence), says(1, &all));
    assert_eq!((presence.statuses.len(), presence.statuses.counts.evictions), (4, 3));
}

#[test]
fn a_status_is_believed_for_a_quarter_of_an_hour_and_a_failure_for_three_seconds() {
    let mut presence = presence();
    ask(&mut presence, 0, 1, &["a"]);
    let request = presence.next_request(at(0)).unwrap();
    answer(&mut presence, 0, &request, &[("a", &[5])]);
    ask(&mut presence, limits::STATUS_FRESH_MS - 1, 2, &["a"]);
    ask(&mut presence, limits::STATUS_FRESH_MS, 3, &["a"]);
    assert_eq!(reply(&mut presence), says(1, &[("a", &[5])]));
    assert_eq!(reply(&mut presence), says(2, &[("a", &[5])]));
    assert_eq!((reply(&mut presence), presence.statuses.counts.expired), (None, 1));

    let now = limits::STATUS_FRESH_MS;
    let request = presence.next_request(at(now)).unwrap();
    let error = UpstreamError { code: 1004, message: "RecordNotFoundError".into(), detail: "".into() };
    presence.answered(Mono(now), request.id, Err(RequestFault::Refused(error)));
    assert_eq!(reply(&mut presence), Some((3, Err(1004))));
    ask(&mut presence, now + limits::STATUS_FAILED_MS - 1, 4, &["b", "a"]);
    assert_eq!(reply(&mut presence), Some((4, Err(500))));
    assert_eq!(presence.next_request(at(now + limits::STATUS_FAILED_MS - 1)), None);
    ask(&mut presence, now + limits::STATUS_FAILED_MS, 5, &["a"]);
    assert!(presence.next_request(at(now + limits::STATUS_FAILED_MS)).is_some());
}

#[test]
fn what_cannot_be_read_or_does_not_come_is_a_failure() {
    let mut presence = presence();
    ask(&mut presence, 0, 1, &["a"]);
    let request = presence.next_request(at(0)).unwrap();
    presence.answered(Mono(1), request.id, Ok(Bytes::from_static(b"\xff")));
    assert_eq!(reply(&mut presence), Some((1, Err(500))));
    ask(&mut presence, 10_000, 2, &["b"]);
    let request = presence.next_request(at(10_000)).unwrap();
    let deadline = 10_000 + limits::STATUS_DEADLINE_MS;
    assert_eq!((presence.next_request(at(deadline - 1)), reply(&mut presence)), (None, None));
    assert_eq!((presence.next_request(at(deadline)), reply(&mut presence)), (None, Some((2, Err(500)))));
    answer(&mut presence, deadline, &request, &[("b", &[5])]);
    assert_eq!((reply(&mut presence), presence.statuses.counts.failed), (None, 2));
}

#[test]
fn the_user_asked_for_longest_ago_makes_room() {
    let mut presence = presence();
    for (number, user) in ["a", "b", "c", "d"].into_iter().enumerate() {
        ask(&mut presence, 0, u32::try_from(number).unwrap(), &[user]);
        let request = presence.next_request(at(0)).unwrap();
        answer(&mut presence, 0, &request, &[]);
    }
    ask(&mut presence, 1, 5, &["a"]);
    ask(&mut presence, 1, 6, &["e"]);
    let request = presence.next_request(at(1)).unwrap();
    answer(&mut presence, 1, &request, &[]);
    let cached = |presence: &Presence| ["a", "b", "c", "d", "e"].map(|u| presence.statuses.has(u));
    assert_eq!(cached(&presence), [true, false, true, true, true]);
}

#[test]
fn news_reach_watchers_always_and_the_cache_only_where_there_is_an_entry() {
    let mut presence = presence();
    presence.online_change(Mono(0), b"5:a");
    assert_eq!((news(&mut presence), presence.statuses.len()), (vec![("a".into(), vec![5])], 0));
    ask(&mut presence, 0, 1, &["a"]);
    let request = presence.next_request(at(0)).unwrap();
    // News are newer than an answer that is on its way.
    presence.online_change(Mono(1), b"1:5:a");
    assert_eq!(reply(&mut presence), says(1, &[("a", &[1, 5])]));
    answer(&mut presence, 2, &request, &[("a", &[5])]);
    presence.online_change(Mono(3), b"2:a");
    ask(&mut presence, 4, 2, &["a"]);
    assert_eq!(reply(&mut presence), says(2, &[("a", &[2])]));
    assert_eq!(news(&mut presence), [("a".into(), vec![1, 5]), ("a".into(), vec![2])]);
    // They also reach a question that has not left yet.
    ask(&mut presence, 5, 3, &["b"]);
    presence.online_change(Mono(5), b"b");
    assert_eq!((reply(&mut presence), presence.next_request(at(5))), (says(3, &[("b", &[])]), None));
}

#[test]
fn questions_beyond_the_limit_are_refused_and_late_ones_are_dropped() {
    let mut presence = presence();
    ask(&mut presence, 0, 1, &["a", "b", "c", "d", "e", "f", "g", "a"]);
    assert_eq!(reply(&mut presence), None, "at the limit");
    ask(&mut presence, 0, 2, &["h"]);
    assert_eq!((reply(&mut presence), presence.statuses.counts.refused), (Some((2, Err(500))), 1));
    assert_eq!(presence.next_request(at(10_000)), None, "the shard has given up: nobody is asked for");
    assert_eq!((presence.statuses.waiting(), reply(&mut presence)), (0, None));
    ask(&mut presence, 10_000, 3, &["h"]);
    assert!(presence.next_request(at(10_000)).is_some());
}

#[test]
fn lists_of_gone_questions_do_not_grow() {
    let mut presence = presence();
    ask(&mut presence, 0, 1, &["other"]);
    ask(&mut presence, 0, 1, &["other2", "a"]);
    let mut flights: Vec<Request> = Vec::new();
    for round in 0..1_000 {
        let now = round * 10_000;
        ask(&mut presence, now, 2, &["a", "a", "b"]);
        flights.extend(presence.next_request(at(now)));
        assert!(presence.statuses.lists() <= 64, "{}", presence.statuses.lists());
    }
}

#[test]
fn after_a_gap_what_is_cached_is_asked_for_anew_at_a_pace_and_differences_are_news() {
    let mut presence = presence();
    ask(&mut presence, 0, 1, &["a", "b", "c", "d"]);
    while let Some(request) = presence.next_request(at(0)) {
        answer(&mut presence, 0, &request, &[("a", &[5]), ("b", &[1])]);
    }
    assert!(reply(&mut presence).is_some());
    presence.resubscribed(Mono(1_000));
    // What was cached before the gap is not believed.
    ask(&mut presence, 1_000, 2, &["a"]);
    assert_eq!(reply(&mut presence), None);
    let request = presence.next_request(at(1_000)).unwrap();
    assert_eq!(users(&request), ["a"], "questions go first");
    answer(&mut presence, 1_000, &request, &[("a", &[5])]);
    assert_eq!(reply(&mut presence), says(2, &[("a", &[5])]));
    let first = presence.next_request(at(1_000)).unwrap();
    assert_eq!((users(&first).len(), presence.next_request(at(1_000))), (3, None));
    // It fails, so it is tried again.
    presence.answered(Mono(1_000), first.id, Err(RequestFault::Unknown));
    let again = (1_000..60_000).step_by(20).find_map(|ms| Some((ms, presence.next_request(at(ms))?)));
    let (ms, request) = again.unwrap();
    assert!(ms >= 1_000 + limits::STATUS_FAILED_MS);
    answer(&mut presence, ms, &request, &[("b", &[2])]);
    assert_eq!(news(&mut presence), [("b".into(), vec![2])], "only what has changed");
    assert!((ms..ms + 60_000).step_by(20).all(|ms| presence.next_request(at(ms)).is_none()), "it is over");
    ask(&mut presence, ms + 1, 3, &["a", "b", "c", "d"]);
    assert_eq!(reply(&mut presence), says(3, &[("a", &[5]), ("b", &[2]), ("c", &[]), ("d", &[])]));
}

#[test]
fn a_large_cache_is_asked_for_anew_in_steps() {
    let mut config = PresenceConfig::new(Compat::Main, 7, [1, 2]);
    config.statuses.entries_max = 5_000;
    let mut presence = Presence::new(config);
    let names: Vec<String> = (0..5_000).map(|n| format!("u{n}")).collect();
    ask(&mut presence, 0, 1, &names.iter().map(|n| &**n).collect::<Vec<_>>());
    while let Some(request) = presence.next_request(at(0)) {
        answer(&mut presence, 0, &request, &[]);
    }
    presence.resubscribed(Mono(1_000));
    let mut asked = std::collections::BTreeSet::new();
    for ms in (1_000..20_000).step_by(20) {
        while let Some(request) = presence.next_request(at(ms)) {
            answer(&mut presence, ms, &request, &[]);
            asked.extend(users(&request));
        }
        // One batch per step.
        let steps = usize::try_from((ms - 1_000) / limits::STATUS_RESYNC_MS).unwrap() + 1;
        assert!(asked.len() <= steps * limits::STATUS_BATCH_MAX, "{} at {ms}", asked.len());
    }
    assert_eq!((asked.len(), news(&mut presence)), (5_000, vec![]));
}

/// Whatever comes in whatever order: a question has one reply or its deadline, and nothing is left over.
#[test]
fn each_question_is_answered_once_or_dropped_at_its_deadline() {
    for seed in 0..20 {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut presence = presence();
        let mut flights: Vec<Request> = Vec::new();
        let mut open: BTreeMap<u32, u64> = BTreeMap::new();
        let name = |random: &mut fastrand::Rng| ["a", "b", "c", "d", "e", "f", "g"][random.usize(..7)];
        for number in 0..3_000 {
            let now = u64::from(number) * 100;
            match random.u8(..20) {
                0..9 if number < 2_800 => {
                    let users: Vec<&str> = (0..random.usize(..4)).map(|_| name(&mut random)).collect();
                    ask(&mut presence, now, number, &users);
                    open.insert(number, now + 10_000);
                }
                9..12 => presence.online_change(Mono(now), name(&mut random).as_bytes()),
                12 => presence.resubscribed(Mono(now)),
                13..17 if !flights.is_empty() => {
                    let request = flights.swap_remove(random.usize(..flights.len()));
                    if random.u8(..3) > 0 {
                        answer(&mut presence, now, &request, &[("a", &[1]), ("b", &[5])]);
                    } else {
                        presence.answered(Mono(now), request.id, Err(RequestFault::Unknown));
                    }
                }
                _ => {}
            }
            flights.extend(std::iter::from_fn(|| presence.next_request(at(now))));
            open.retain(|_, deadline| *deadline > now);
            while let Some((number, _)) = reply(&mut presence) {
                assert!(open.remove(&number).is_some(), "seed {seed}: {number} answered again or too late");
            }
            assert!(presence.statuses.len() <= 4 && presence.statuses.waiting() <= 8);
        }
        assert_eq!((open.len(), presence.statuses.waiting(), presence.statuses.lists()), (0, 0, 0));
    }
}
