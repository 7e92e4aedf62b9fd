//! Tests of the gather: who answers, who does not, who answers too late.

use bytes::Bytes;

use super::*;
use crate::hub::mail::{DeviceOutcome, Judge, PushPart, RecipientVerdict, UserStatus};
use crate::ids::Ownership;
use crate::placement::view::View;

const DEADLINE: Mono = Mono(1_000);

fn router(calls_max: u32) -> Router {
    let view = View::of_one_node(Ownership::new([1, 2], 3));
    Router::new(RpcId(0), view, calls_max)
}

fn push(users: &[&str]) -> Push {
    Push {
        source: SourceId(7),
        body: PushBody {
            operation_id: "op".into(),
            conversation: "si_a_b".into(),
            msg_data: Bytes::from_static(b"m"),
            frames: None,
        },
        to: To::Users(users.iter().map(|u| Text::from(*u)).collect()),
        rules: PushRules::default(),
        deadline: DEADLINE,
    }
}

/// Users that between them cover all three shards, the first two on one shard.
fn users() -> [String; 4] {
    let ownership = Ownership::new([1, 2], 3);
    let on = |shard: u16, nth: usize| {
        let mut users = (0..).map(|n| format!("u{n}")).filter(|u| ownership.owner(u) == ShardId(shard));
        users.nth(nth).unwrap()
    };
    [on(0, 0), on(0, 1), on(1, 0), on(2, 0)]
}

fn as_strs(users: &[String]) -> Vec<&str> {
    users.iter().map(String::as_str).collect()
}

fn queued() -> Vec<DeviceVerdict> {
    vec![DeviceVerdict {
        number: 0,
        platform: Platform::IOS,
        connection_id: [0; 16],
        outcome: DeviceOutcome::Queued,
    }]
}

/// What a shard answers that has every user connected once.
fn answer(mail: &ShardMail) -> RpcOutcome {
    let ShardMail::Push(mail) = mail else { panic!("{mail:?}") };
    let verdict = |r: &Recipient| RecipientVerdict::of_slot(r.slot, queued());
    RpcOutcome::Push(PushPart::whole(mail.audience.listed().iter().map(verdict).collect()))
}

fn results(finished: Option<Progress>) -> Vec<(String, bool)> {
    let Some(Progress { outcome: Outcome::Push(results), .. }) = finished else { panic!("{finished:?}") };
    results.into_iter().map(|r| (r.user.to_string(), r.devices.is_some())).collect()
}

#[test]
fn a_push_is_one_mail_per_owning_shard_and_one_result_per_requested_user_in_order() {
    let mut router = router(4);
    let [a, b, c, d] = users();
    // Requested out of order, with a duplicate.
    let requested = [&d, &a, &c, &a, &b].map(String::as_str);
    let (ticket, mails) = router.push(push(&requested)).unwrap();
    assert_eq!(mails.iter().map(|(s, _)| s.0).collect::<Vec<_>>(), [0, 1, 2]);
    assert_eq!(router.posted(ticket), None);
    let mut finished = None;
    for (shard, mail) in mails.iter().rev() {
        assert_eq!(finished, None);
        finished = router.outcome(*shard, ticket, answer(mail));
    }
    assert_eq!(results(finished), requested.map(|u| (u.to_owned(), true)));
    assert_eq!((router.open(), router.due.len()), (0, 0));
}

#[test]
fn shards_without_recipients_get_no_mail() {
    let mut router = router(4);
    let [a, b, ..] = users();
    let (_, mails) = router.push(push(&[&a, &b])).unwrap();
    assert_eq!(mails.len(), 1);
    let (ticket, mails) = router.push(push(&[])).unwrap();
    assert!(mails.is_empty());
    assert_eq!(results(router.posted(ticket)), []);
}

#[test]
fn a_full_lane_makes_its_recipients_not_reached_and_does_not_hold_up_the_rest() {
    let mut router = router(4);
    let all = users();
    let (ticket, mails) = router.push(push(&as_strs(&all))).unwrap();
    router.not_posted(mails[0].0, &mails[0].1);
    assert_eq!(router.posted(ticket), None);
    router.outcome(mails[1].0, ticket, answer(&mails[1].1));
    let finished = router.outcome(mails[2].0, ticket, answer(&mails[2].1));
    assert_eq!(
        results(finished).into_iter().map(|(_, reached)| reached).collect::<Vec<_>>(),
        [false, false, true, true]
    );
    assert_eq!(router.tally().value(Metric::PushNotReached), 2);
}

#[test]
fn when_every_lane_is_full_the_push_is_over_at_once() {
    let mut router = router(4);
    let (ticket, mails) = router.push(push(&as_strs(&users()))).unwrap();
    for (shard, mail) in &mails {
        router.not_posted(*shard, mail);
    }
    assert!(results(router.posted(ticket)).iter().all(|(_, reached)| !reached));
    assert_eq!(router.tally().value(Metric::PushNotReached), 4);
}

#[test]
fn a_missing_shard_costs_its_recipients_and_its_late_answer_is_dropped_and_counted() {
    let mut router = router(4);
    let (ticket, mails) = router.push(push(&as_strs(&users()))).unwrap();
    router.outcome(mails[0].0, ticket, answer(&mails[0].1));
    router.outcome(mails[2].0, ticket, answer(&mails[2].1));
    assert_eq!(router.expire(Mono(999)), []);
    let mut finished = router.expire(DEADLINE);
    assert_eq!(finished.len(), 1);
    assert_eq!(
        results(finished.pop()).into_iter().map(|(_, reached)| reached).collect::<Vec<_>>(),
        [true, true, false, true]
    );
    // The slot is reused before the late answer comes.
    let (next, _) = router.push(push(&as_strs(&users()))).unwrap();
    assert_eq!(next.slot.index, ticket.slot.index);
    assert_eq!(router.outcome(mails[1].0, ticket, answer(&mails[1].1)), None);
    assert_eq!(router.tally().value(Metric::RpcLate), 1);
    assert_eq!(router.tally().value(Metric::PushNotReached), 1);
}

#[test]
fn an_answer_that_nobody_asked_for_changes_nothing() {
    let mut router = router(4);
    let [a, ..] = users();
    let (ticket, mails) = router.push(push(&[&a])).unwrap();
    let foreign = RpcTicket { rpc: RpcId(1), slot: ticket.slot };
    let cases = [
        (ShardId(2), ticket, answer(&mails[0].1)), // a shard that was not asked
        (ShardId(0), ticket, RpcOutcome::RemoteLogin), // another kind
        (ShardId(0), foreign, answer(&mails[0].1)), // another rpc thread's ticket
    ];
    for (shard, ticket, outcome) in cases {
        assert_eq!(router.outcome(shard, ticket, outcome), None);
    }
    assert_eq!(router.tally().value(Metric::RpcLate), 3);
    assert!(router.outcome(ShardId(0), ticket, answer(&mails[0].1)).is_some());
}

#[test]
fn a_cancelled_push_tells_the_shards_that_still_work_on_it() {
    let mut router = router(4);
    let (ticket, mails) = router.push(push(&as_strs(&users()))).unwrap();
    router.outcome(mails[1].0, ticket, answer(&mails[1].1));
    assert_eq!(
        router.cancel(ticket),
        [(ShardId(0), ShardMail::CancelPush(ticket)), (ShardId(2), ShardMail::CancelPush(ticket))]
    );
    assert_eq!(router.cancel(ticket), [], "only once");
    assert_eq!(router.outcome(mails[0].0, ticket, answer(&mails[0].1)), None);
    assert_eq!(router.expire(DEADLINE), []);
}

#[test]
fn a_full_table_refuses_and_sends_nothing() {
    let mut router = router(1);
    let [a, ..] = users();
    let user = Text::from(a.as_str());
    let (ticket, _) = router.push(push(&[&a])).unwrap();
    assert_eq!(router.push(push(&[&a])), Err(Busy));
    assert_eq!(router.kick(DEADLINE, Platform::WEB, std::slice::from_ref(&user)), Err(Busy));
    router.cancel(ticket);
    assert!(router.online_status(DEADLINE, &[user]).is_ok());
}

#[test]
fn a_kick_adds_up_and_is_refused_as_a_whole_when_a_lane_is_full() {
    let mut router = router(4);
    let users = users().map(Text::from);
    let (ticket, mails) = router.kick(DEADLINE, Platform::WEB, &users).unwrap();
    let mut finished = None;
    for (shard, _) in &mails {
        finished = router.outcome(*shard, ticket, RpcOutcome::Kicked { connections: 2 });
    }
    assert_eq!(finished.map(|f| f.outcome), Some(Outcome::Kicked(6)));

    let (ticket, mails) = router.kick(DEADLINE, Platform::WEB, &users).unwrap();
    router.not_posted(mails[1].0, &mails[1].1);
    assert_eq!(router.posted(ticket).map(|f| f.outcome), Some(Outcome::Refused));
    assert_eq!(router.outcome(mails[0].0, ticket, RpcOutcome::Kicked { connections: 1 }), None);

    let (_, _) = router.kick(DEADLINE, Platform::WEB, &users).unwrap();
    let expired = router.expire(DEADLINE);
    assert_eq!(expired.into_iter().map(|f| f.outcome).collect::<Vec<_>>(), [Outcome::Expired]);
}

#[test]
fn online_status_keeps_the_order_of_the_request() {
    let mut router = router(4);
    let users = users().map(Text::from);
    let (ticket, mails) = router.online_status(DEADLINE, &users).unwrap();
    let mut finished = None;
    for (shard, mail) in mails.iter().rev() {
        let ShardMail::OnlineStatus(mail) = mail else { panic!() };
        let device = DeviceStatus {
            platform: Platform::WEB,
            connection_id: "c".into(),
            background: false,
            token: "t".into(),
            time: 0,
        };
        // Shard 1 has nobody connected.
        let known = mail.users.iter().filter(|_| *shard != ShardId(1));
        let statuses = known.map(|r| UserStatus { slot: r.slot, devices: vec![device.clone()] });
        finished = router.outcome(*shard, ticket, RpcOutcome::OnlineStatus(statuses.collect()));
    }
    let Some(Outcome::OnlineStatus(found)) = finished.map(|f| f.outcome) else { panic!() };
    assert!(found.iter().map(|(u, _)| u).eq(&users));
    assert_eq!(found.iter().map(|(_, d)| d.len()).collect::<Vec<_>>(), [1, 1, 0, 1]);
}

#[test]
fn a_remote_login_goes_to_the_owner_alone() {
    let mut router = router(4);
    let [.., d] = users();
    let login = RemoteLogin {
        operation_id: "op".into(),
        user: d.as_str().into(),
        platform: Platform::WEB,
        token: "t".into(),
        judge: Judge::Shard,
    };
    let (ticket, mails) = router.remote_login(DEADLINE, login).unwrap();
    assert_eq!(mails.len(), 1);
    assert_eq!(mails[0].0, ShardId(2));
    let finished = router.outcome(ShardId(2), ticket, RpcOutcome::RemoteLogin);
    assert_eq!(finished.map(|f| f.outcome), Some(Outcome::RemoteLogin));
}

#[test]
fn a_push_that_nobody_waits_for_takes_no_slot() {
    let mut router = router(0);
    let mails = router.push_unwaited(&push(&as_strs(&users())));
    assert_eq!(mails.len(), 3);
    let ShardMail::Push(mail) = &mails[0].1 else { panic!() };
    assert_eq!((mail.ticket, mail.audience.listed().len()), (None, 2));
    router.not_posted(mails[0].0, &mails[0].1);
    assert_eq!(router.tally().value(Metric::PushNotReached), 2);
}

#[test]
fn an_operators_question_goes_to_the_owner_alone_and_ends_as_any_other_call() {
    let user = &users()[2];
    let ask = |router: &mut Router| {
        let (ticket, mails) = router.look(DEADLINE, Text::from(user.as_str()), Look::Who).unwrap();
        let [(ShardId(1), mail @ ShardMail::Look(look))] = &mails[..] else { panic!("{mails:?}") };
        assert_eq!((look.ticket, look.user.as_str(), look.look), (ticket, user.as_str(), Look::Who));
        (ticket, mail.clone())
    };
    let sight = || RpcOutcome::Sight(Sight::NotFollowed);
    let mut router = router(1);
    let (ticket, _) = ask(&mut router);
    assert_eq!(router.posted(ticket), None);
    assert_eq!(router.outcome(ShardId(0), ticket, sight()), None, "not asked");
    assert_eq!(router.outcome(ShardId(1), ticket, RpcOutcome::RemoteLogin), None, "another kind");
    let outcome = Outcome::Sight(Sight::NotFollowed);
    assert_eq!(router.outcome(ShardId(1), ticket, sight()), Some(Progress { ticket, outcome }));
    let (ticket, mail) = ask(&mut router);
    router.not_posted(ShardId(1), &mail);
    assert_eq!(router.posted(ticket), Some(Progress { ticket, outcome: Outcome::Refused }));
    let (ticket, _) = ask(&mut router);
    assert_eq!(router.posted(ticket), None);
    assert_eq!(router.expire(DEADLINE), [Progress { ticket, outcome: Outcome::Expired }]);
    assert_eq!(router.outcome(ShardId(1), ticket, sight()), None, "late");
}

#[test]
fn a_push_in_parts_that_is_given_up_says_what_is_there_and_cancels_the_rest() {
    let mut router = router(4);
    let asked = Push {
        rules: PushRules { report: Report::Each, ..PushRules::default() },
        ..push(&as_strs(&users()))
    };
    let (ticket, mails) = router.push(asked).unwrap();
    let part = |slot, last| {
        let verdicts = vec![RecipientVerdict::of_slot(slot, queued())];
        let totals = Totals { users: 1, queued: 1, ..Totals::default() };
        RpcOutcome::Push(PushPart { verdicts, totals, last })
    };
    let news = router.outcome(mails[0].0, ticket, part(0, false)).unwrap();
    let Outcome::Part(first) = news.outcome else { panic!() };
    assert_eq!((first.results.len(), first.last), (1, false));
    router.outcome(mails[1].0, ticket, part(2, true)).unwrap();

    let (progress, cancels) = router.give_up(ticket).unwrap();
    let shards = [mails[0].0, mails[2].0];
    assert!(cancels.into_iter().eq(shards.map(|shard| (shard, ShardMail::CancelPush(ticket)))));
    let Outcome::Part(last) = progress.outcome else { panic!() };
    assert!(last.last && last.results.iter().all(|r| r.devices.is_none()));
    assert_eq!((last.results.len(), last.not_reached, last.totals.queued), (2, 2, 1));
    assert_eq!(router.give_up(ticket), None, "only once");
    assert_eq!((router.open(), router.due.len()), (0, 0));
}
