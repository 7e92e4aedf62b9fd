//! What one hub says about pushes, at the edge of each rule: written, queued, dropped, kicked, expired, not here; held
//! messages; slices; parts; cancels.

use bytes::Bytes;
use pinion::hub::mail::{
    Audience, DeviceOutcome, KickMail, PushMail, PushPart, PushRules, RecipientVerdict, Report, RpcOutcome,
    ShardMail, SharedFrames, Totals, Who,
};
use pinion::hub::push_frame::shared_frame;
use pinion::hub::{HubConfig, Input, SendBatch};
use pinion::ids::{ConnId, Platform, RpcTicket, Text};
use pinion::limits;
use pinion::metrics::Metric;
use pinion::wire::envelope::{Codec, Variant};

use crate::freeze::thaw;
use crate::rig::{PLAIN_JSON, Rig, Seen, config, platform, ticket};

const EACH: PushRules = PushRules { report: Report::Each, only_if_online: false, expires: None };
const TOTALS: PushRules = PushRules { report: Report::Totals, ..EACH };

/// As `EACH`, worthless after some time.
fn for_ms(rig: &Rig, ms: u64) -> PushRules {
    PushRules { expires: Some(rig.now.mono.plus_ms(ms)), ..EACH }
}

fn send(rig: &mut Rig, number: u32, users: &[&str], rules: PushRules) {
    let mail = rig.push_mail(number, users, rules);
    give(rig, mail);
}

fn give(rig: &mut Rig, mail: PushMail) {
    rig.input(Input::Mail(ShardMail::Push(Box::new(mail))));
}

fn cancel(rig: &mut Rig, number: u32) {
    rig.input(Input::Mail(ShardMail::CancelPush(ticket(number))));
}

/// Parts told since the last look.
fn parts(rig: &mut Rig) -> Vec<(u32, PushPart)> {
    let part = |(ticket, outcome): (RpcTicket, RpcOutcome)| match outcome {
        RpcOutcome::Push(part) => Some((ticket.slot.index, part)),
        _ => None,
    };
    rig.outcomes().into_iter().filter_map(part).collect()
}

/// The one part that was told, which is the last: outcomes of its devices by recipient.
fn told(rig: &mut Rig) -> Vec<Vec<DeviceOutcome>> {
    let parts = parts(rig);
    let [(_, part)] = &parts[..] else { panic!("not one part: {parts:?}") };
    assert!(part.last);
    outcomes(&part.verdicts)
}

fn outcomes(verdicts: &[RecipientVerdict]) -> Vec<Vec<DeviceOutcome>> {
    verdicts.iter().map(|v| v.devices.iter().map(|d| d.outcome).collect()).collect()
}

/// The socket takes so many bytes and no more.
fn socket_takes(rig: &mut Rig, conn: ConnId, n: usize) {
    let filled = rig.hub.fill(conn, &mut SendBatch::default());
    rig.hub.sent(rig.now, conn, n.min(filled));
    rig.hub.audit().unwrap();
    rig.turn();
}

#[test]
fn written_is_said_with_the_last_byte_and_not_before() {
    let mut rig = Rig::new(config());
    let conn = rig.log_in("u", Platform::IOS);
    send(&mut rig, 1, &["u"], EACH);
    rig.turn();
    let bytes = rig.hub.queued_bytes();
    socket_takes(&mut rig, conn, bytes - 1);
    assert_eq!(parts(&mut rig), []);
    assert_eq!(rig.value(Metric::PushesTracked), 1);
    socket_takes(&mut rig, conn, 1);
    let parts = parts(&mut rig);
    let [(1, part)] = &parts[..] else { panic!("{parts:?}") };
    assert_eq!((outcomes(&part.verdicts), part.last), (vec![vec![DeviceOutcome::Written]], true));
    assert_eq!(part.totals, Totals { users: 1, written: 1, ..Totals::default() });
    assert_eq!((rig.value(Metric::PushWritten), rig.value(Metric::PushesTracked)), (1, 0));
}

#[test]
fn what_waits_at_the_deadline_is_queued_and_stops_nobody_meanwhile() {
    let mut rig = Rig::new(config());
    let slow = rig.log_in("slow", Platform::IOS);
    let quick = rig.log_in("quick", Platform::IOS);
    send(&mut rig, 1, &["slow", "quick", "gone"], EACH);
    rig.turn();
    socket_takes(&mut rig, slow, 1);
    assert_eq!(rig.pushes(quick), ["push-1"]);
    send(&mut rig, 2, &["quick"], EACH); // of the same source
    rig.turn();
    assert_eq!(rig.pushes(quick), ["push-2"]);
    rig.turn();
    let so_far = parts(&mut rig);
    assert!(so_far.iter().all(|(number, part)| part.last == (*number == 2)), "{so_far:?}");
    let early: Vec<_> =
        so_far.iter().filter(|(n, _)| *n == 1).flat_map(|(_, p)| outcomes(&p.verdicts)).collect();
    assert_eq!(early, [vec![], vec![DeviceOutcome::Written]], "as they become known");
    rig.wait(10_000 - limits::TICK_MS);
    assert_eq!(parts(&mut rig), []);
    rig.wait(limits::TICK_MS);
    let last = parts(&mut rig);
    assert_eq!(outcomes(&last[0].1.verdicts), [[DeviceOutcome::Queued]]);
    let totals = Totals { users: 3, written: 1, queued: 1, not_here: 1, ..Totals::default() };
    assert_eq!((last[0].1.totals, last.len()), (totals, 1));
}

#[test]
fn an_outbox_that_overflows_drops_what_was_in_it() {
    let mut rig = Rig::new(HubConfig { outbox_frames_max: 2, ..config() });
    let conn = rig.log_in("u", Platform::IOS);
    for number in 1..=2 {
        send(&mut rig, number, &["u"], EACH);
        rig.turn();
        socket_takes(&mut rig, conn, 1);
    }
    assert_eq!(parts(&mut rig), []);
    send(&mut rig, 3, &["u"], EACH);
    rig.turn();
    assert!(rig.is_closed(conn));
    let all = parts(&mut rig);
    let dropped = |(_, part): &(u32, PushPart)| outcomes(&part.verdicts) == [[DeviceOutcome::Dropped]];
    assert!(all.len() == 3 && all.iter().all(dropped), "{all:?}");
}

#[test]
fn the_end_of_a_connection_says_what_became_of_the_unsent() {
    type End = fn(&mut Rig, ConnId);
    let kick: End = |rig, _| {
        let mail = KickMail { ticket: ticket(7), platform: Platform::IOS, users: vec![Text::from("u")] };
        rig.input(Input::Mail(ShardMail::Kick(Box::new(mail))));
    };
    let newer: End = |rig, _| {
        rig.log_in("u", Platform::IOS);
    };
    let lost: End = |rig, conn| rig.input(Input::TransportLost(conn));
    for (name, end, outcome) in [
        ("kick", kick, DeviceOutcome::Kicked),
        ("newer login", newer, DeviceOutcome::Kicked),
        ("lost", lost, DeviceOutcome::Dropped),
    ] {
        let mut rig = Rig::new(config());
        let conn = rig.log_in("u", Platform::IOS);
        send(&mut rig, 1, &["u"], EACH);
        rig.turn();
        socket_takes(&mut rig, conn, 5);
        end(&mut rig, conn);
        rig.turn();
        rig.wait(limits::FLUSH_DEADLINE_MS + limits::TICK_MS);
        assert!(rig.is_closed(conn), "{name}");
        assert_eq!(told(&mut rig), [[outcome]], "{name}");
    }
}

#[test]
fn a_kicked_connection_that_still_takes_the_frame_has_it() {
    let mut rig = Rig::new(config());
    let conn = rig.log_in("u", Platform::IOS);
    send(&mut rig, 1, &["u"], EACH);
    rig.turn();
    let mail = KickMail { ticket: ticket(7), platform: Platform::IOS, users: vec![Text::from("u")] };
    rig.input(Input::Mail(ShardMail::Kick(Box::new(mail))));
    rig.turn();
    assert_eq!(rig.pushes(conn), ["push-1", ""], "the push, then the kick");
    assert_eq!(told(&mut rig), [[DeviceOutcome::Written]]);
}

#[test]
fn a_frame_expires_unless_its_first_byte_is_sent() {
    for (taken, expires) in [(0, true), (1, false)] {
        let mut rig = Rig::new(config());
        let conn = rig.log_in("u", Platform::IOS);
        let rules = for_ms(&rig, 1_000);
        send(&mut rig, 1, &["u"], rules);
        rig.turn();
        socket_takes(&mut rig, conn, taken);
        send(&mut rig, 2, &["u"], EACH);
        rig.wait(1_000 - limits::TICK_MS);
        assert_eq!(parts(&mut rig), [], "not before its time");
        rig.wait(limits::TICK_MS);
        assert_eq!(parts(&mut rig).len(), usize::from(expires));
        assert_eq!(rig.value(Metric::FramesExpired), u64::from(expires));
        let rest = rig.read_bytes(conn);
        assert!(!rest.is_empty());
        assert_eq!(parts(&mut rig).len(), 2 - usize::from(expires));
        assert_eq!(rig.value(Metric::PushWritten), 2 - u64::from(expires));
    }
}

#[test]
fn a_frame_expires_for_openim_too_and_an_outbox_may_be_empty_after_it() {
    let mut rig = Rig::new(config());
    let conn = rig.log_in("u", Platform::IOS);
    let rules = PushRules { report: Report::Queued, ..for_ms(&rig, 500) };
    send(&mut rig, 1, &["u", "absent"], rules);
    rig.turn();
    assert_eq!(told(&mut rig), [vec![DeviceOutcome::Queued], vec![]]);
    socket_takes(&mut rig, conn, 0);
    rig.wait(500);
    assert_eq!((rig.hub.queued_bytes(), rig.value(Metric::FramesExpired)), (0, 1));
    rig.log_in("absent", Platform::IOS);
    assert_eq!(rig.value(Metric::HeldMessages), 0, "it was reported as not here");
}

#[test]
fn only_if_online_means_that_the_last_send_took_everything() {
    let mut rig = Rig::new(config());
    let conn = rig.log_in("u", Platform::IOS);
    let rules = PushRules { only_if_online: true, ..for_ms(&rig, 5_000) };
    send(&mut rig, 1, &["u"], EACH);
    send(&mut rig, 2, &["u", "absent"], rules); // behind a frame that was not offered to the socket yet
    rig.turn();
    socket_takes(&mut rig, conn, 1);
    send(&mut rig, 3, &["u"], rules);
    rig.turn();
    let only = parts(&mut rig).into_iter().find(|(number, _)| *number == 3).unwrap().1;
    assert_eq!((outcomes(&only.verdicts), only.last), (vec![vec![DeviceOutcome::Dropped]], true));
    assert_eq!(rig.value(Metric::HeldMessages), 0, "nobody is waited for");
    rig.read_bytes(conn);
    let rest: Vec<_> = parts(&mut rig).into_iter().flat_map(|(_, part)| outcomes(&part.verdicts)).collect();
    assert_eq!(rest, [[DeviceOutcome::Written], [DeviceOutcome::Written]]);
    send(&mut rig, 4, &["u"], rules);
    rig.turn();
    assert_eq!(rig.pushes(conn), ["push-4"]);
}

#[test]
fn an_absent_user_gets_what_was_held_behind_the_first_frame_of_his_login() {
    let mut rig = Rig::new(config());
    for number in 1..=3 {
        let rules = for_ms(&rig, 5_000);
        send(&mut rig, number, &["late"], rules);
        rig.turn();
    }
    assert_eq!((parts(&mut rig), rig.value(Metric::HeldMessages)), (vec![], 3));
    cancel(&mut rig, 2);
    assert_eq!(rig.value(Metric::HeldMessages), 2);
    rig.hub = thaw(&rig.hub);
    let login =
        pinion::session::handshake::Login { wants_response: true, ..rig.arguments("late", platform(1)) };
    let conn = rig.accept(login).unwrap();
    rig.answer_token("late", 1);
    rig.turn();
    let seen = rig.read(conn);
    let [Seen::Http(_), Seen::Text(_), Seen::Reply(first), Seen::Reply(second)] = &seen[..] else {
        panic!("{seen:?}");
    };
    assert_eq!((&*first.operation_id, &*second.operation_id), ("push-1", "push-3"));
    let told = parts(&mut rig);
    let written = |(_, part): &(u32, PushPart)| outcomes(&part.verdicts) == [[DeviceOutcome::Written]];
    assert!(told.len() == 2 && told.iter().all(written), "{told:?}");
    assert_eq!((rig.value(Metric::HeldMessages), rig.value(Metric::HeldBytes)), (0, 0));
    let again = rig.log_in("late", platform(2));
    assert_eq!(rig.pushes(again).len(), 0, "once");
}

#[test]
fn a_held_message_expires_at_its_time() {
    for report in [Report::Each, Report::Totals] {
        let mut rig = Rig::new(config());
        let rules = PushRules { report, ..for_ms(&rig, 1_000) };
        send(&mut rig, 1, &["late"], rules);
        rig.wait(1_000 - limits::TICK_MS);
        assert_eq!(parts(&mut rig), []);
        rig.wait(limits::TICK_MS);
        let parts = parts(&mut rig);
        let [(1, part)] = &parts[..] else { panic!("{parts:?}") };
        assert_eq!(part.totals, Totals { users: 1, expired: 1, ..Totals::default() });
        assert_eq!(part.verdicts.iter().filter(|v| v.expired).count(), usize::from(report == Report::Each));
        let conn = rig.log_in("late", Platform::IOS);
        assert!(rig.read_bytes(conn).is_empty());
    }
}

#[test]
fn held_messages_are_bounded_for_a_user_in_number_and_in_bytes() {
    let mut rig = Rig::new(config());
    for number in 0..=limits::HELD_USER_MAX as u32 {
        let rules = for_ms(&rig, 5_000);
        send(&mut rig, number, &["late"], rules);
        rig.turn();
        let refused = number as usize == limits::HELD_USER_MAX;
        assert_eq!(parts(&mut rig).len(), usize::from(refused), "{number}");
    }
    assert_eq!(rig.value(Metric::HeldRefused), 1);
    let half = limits::HELD_USER_BYTES / 2;
    for (number, bytes, held) in [(100, half - 100, true), (101, half - 100, true), (102, 1_000, false)] {
        let rules = for_ms(&rig, 5_000);
        let mut mail = rig.push_mail(number, &["large"], rules);
        mail.body.msg_data = Bytes::from(vec![b'x'; bytes]);
        give(&mut rig, mail);
        rig.turn();
        assert_eq!(parts(&mut rig).is_empty(), held, "{number}");
    }
    for (user, got) in [("late", limits::HELD_USER_MAX), ("large", 2)] {
        let login = rig.arguments(user, Platform::IOS);
        let conn = rig.accept(login).unwrap();
        rig.answer_token(user, Platform::IOS.id());
        rig.turn();
        assert_eq!((rig.pushes(conn).len(), rig.is_closed(conn)), (got, false));
    }
}

#[test]
fn held_messages_are_bounded_for_a_shard() {
    let mut rig = Rig::new(config());
    let users: Vec<String> =
        (0..limits::HELD_BYTES / limits::HELD_USER_BYTES + 1).map(|n| format!("late{n}")).collect();
    let names: Vec<&str> = users.iter().map(|user| &**user).collect();
    let mut mail = rig.push_mail(1, &names, TOTALS);
    mail.rules.expires = Some(rig.now.mono.plus_ms(1_000));
    mail.body.msg_data = Bytes::from(vec![b'x'; limits::HELD_USER_BYTES - 100]);
    give(&mut rig, mail);
    rig.turn();
    let held = users.len() as u64 - 1;
    assert_eq!((rig.value(Metric::HeldMessages), rig.value(Metric::HeldRefused)), (held, 1));
    rig.wait(1_000);
    assert_eq!(rig.value(Metric::HeldBytes), 0);
    let [(_, part)] = &parts(&mut rig)[..] else { panic!("one part") };
    let totals = Totals { users: users.len() as u32, expired: held as u32, not_here: 1, ..Totals::default() };
    assert_eq!(part.totals, totals);
}

#[test]
fn a_drain_waits_for_nobody_who_was_held_for() {
    let mut rig = Rig::new(config());
    let rules = for_ms(&rig, 5_000);
    send(&mut rig, 1, &["late"], rules);
    rig.turn();
    let deadline = rig.now.mono.plus_ms(5_000);
    rig.input(Input::Drain(deadline));
    assert_eq!(told(&mut rig), [vec![]]);
    send(&mut rig, 2, &["late"], rules);
    rig.turn();
    assert_eq!(told(&mut rig), [vec![]]);
    assert!(!rig.hub.has_work());
}

#[test]
fn everybody_is_each_user_who_was_there_once() {
    let mut rig = Rig::new(HubConfig { connections_max: 400, ..config() });
    let users: Vec<String> = (0..limits::PUSH_SLICE_MAX + 10).map(|n| format!("u{n}")).collect();
    let conns: Vec<ConnId> = users.iter().map(|user| rig.log_in(user, platform(1))).collect();
    rig.log_in("u3", platform(2));
    let mut mail = rig.push_mail(1, &[], EACH);
    mail.audience = Audience::Everybody;
    give(&mut rig, mail);
    rig.turn();
    rig.hub = thaw(&rig.hub);
    // u0 was served; he leaves and comes back while others wait for their turn. A stranger comes.
    assert_eq!(rig.pushes(conns[0]), ["push-1"]);
    rig.input(Input::TransportLost(conns[0]));
    rig.turn();
    for new in ["u0", "stranger"] {
        let conn = rig.log_in(new, platform(1));
        assert_eq!(rig.pushes(conn).len(), 0, "{new}");
    }
    for conn in &conns[1..] {
        assert_eq!(rig.pushes(*conn), ["push-1"]);
    }
    rig.wait(10_000);
    let mut named = Vec::new();
    for (_, part) in parts(&mut rig) {
        for verdict in part.verdicts {
            let Who::User(user) = verdict.who else { panic!("a slot") };
            named.push((user.to_string(), verdict.devices.len()));
        }
    }
    named.sort();
    let mut expected: Vec<_> = users.iter().map(|u| (u.clone(), 1 + usize::from(u == "u3"))).collect();
    expected.sort();
    assert_eq!(named, expected);
}

#[test]
fn a_slice_counts_connections_and_divides_no_user() {
    let policy = pinion::hub::login_policy::LoginPolicy::KickNobody;
    let mut rig = Rig::new(HubConfig { push_slice: 4, login_policy: policy, ..config() });
    for (user, connections) in [("a", 3), ("b", 2), ("c", 6), ("d", 1)] {
        for _ in 0..connections {
            rig.log_in(user, platform(1));
        }
    }
    send(&mut rig, 1, &["a", "gone", "b", "c", "d"], TOTALS);
    let mut served = Vec::new();
    for _ in 0..4 {
        rig.turn();
        let value = rig.value(Metric::PushesOpen);
        served.push((rig.hub.queued_bytes(), value));
    }
    let frame = served[0].0 / 3;
    let expected = [3, 5, 11, 12].map(|connections| connections * frame);
    assert_eq!(served.iter().map(|(bytes, _)| *bytes).collect::<Vec<_>>(), expected);
    assert_eq!(served.iter().map(|(_, open)| *open).collect::<Vec<_>>(), [1, 1, 1, 0]);
}

#[test]
fn parts_are_bounded_and_totals_have_no_verdicts() {
    for rules in [EACH, TOTALS] {
        let mut rig = Rig::new(config());
        let conn = rig.log_in("u", Platform::IOS);
        let users: Vec<String> = (0..1_000).map(|n| format!("absent{n}")).collect();
        let mut names: Vec<&str> = users.iter().map(|user| &**user).collect();
        names.push("u");
        send(&mut rig, 1, &names, rules);
        (0..20).for_each(|_| rig.turn());
        rig.read_bytes(conn);
        let parts = parts(&mut rig);
        let sizes: Vec<usize> = parts.iter().map(|(_, part)| part.verdicts.len()).collect();
        assert!(sizes.iter().all(|size| *size <= limits::PUSH_PART_MAX), "{sizes:?}");
        assert_eq!(sizes.iter().sum::<usize>(), if rules == EACH { 1_001 } else { 0 });
        let last = parts.iter().filter(|(_, part)| part.last).count();
        let (_, part) = parts.last().unwrap();
        assert_eq!((last, part.last, part.totals.users, part.totals.written), (1, true, 1_001, 1));
    }
}

#[test]
fn a_cancelled_push_is_forgotten_but_what_is_queued_goes_out() {
    let mut rig = Rig::new(config());
    let conn = rig.log_in("u", Platform::IOS);
    let users = [vec!["u"; 3], vec!["nobody"; limits::PUSH_SLICE_MAX], vec!["u"]].concat();
    send(&mut rig, 1, &users, EACH);
    rig.turn();
    cancel(&mut rig, 1);
    rig.turn();
    assert_eq!((rig.value(Metric::PushesOpen), rig.value(Metric::PushesTracked)), (0, 0));
    assert_eq!(rig.pushes(conn).len(), 3);
    rig.wait(11_000);
    assert_eq!(parts(&mut rig), []);
}

#[test]
fn above_the_bound_of_tracked_pushes_what_is_open_is_queued_at_once() {
    let mut rig = Rig::new(HubConfig { outbox_frames_max: 10_000, ..config() });
    let conn = rig.log_in("u", Platform::IOS);
    for number in 0..=limits::PUSHES_TRACKED_MAX {
        let mail = rig.push_mail(number, &["u"], EACH);
        rig.hub.input(rig.now, Input::Mail(ShardMail::Push(Box::new(mail)))); // unaudited: there are many
        rig.hub.turn(rig.now);
    }
    (0..2).for_each(|_| rig.turn());
    assert_eq!(rig.value(Metric::PushesTracked), u64::from(limits::PUSHES_TRACKED_MAX));
    assert_eq!(told(&mut rig), [[DeviceOutcome::Queued]]);
    assert_eq!(rig.value(Metric::PushesUntracked), 1);
    let mut batch = SendBatch::default();
    while let n @ 1.. = rig.hub.fill(conn, &mut batch) {
        rig.hub.sent(rig.now, conn, n);
    }
    assert_eq!(rig.value(Metric::PushWritten), u64::from(limits::PUSHES_TRACKED_MAX));
}

#[test]
fn a_shared_frame_is_sent_as_it_is_and_a_missing_variant_is_built() {
    for variant in [PLAIN_JSON, Variant { gzip: true, ..PLAIN_JSON }] {
        let mut rig = Rig::new(config());
        let conn = rig.log_in("u", Platform::IOS);
        let mut mail = rig.push_mail(1, &["u"], EACH);
        mail.body.msg_data = Bytes::from(vec![b'x'; 20_000]);
        let mut frames = SharedFrames::default();
        let frame = shared_frame(&mut Codec::default(), variant, &mail.body);
        frames[variant.index()] = Some(frame);
        mail.body.frames = Some(std::sync::Arc::new(frames));
        let expected = shared_frame(&mut Codec::default(), PLAIN_JSON, &mail.body);
        give(&mut rig, mail);
        rig.turn();
        assert_eq!(rig.read_bytes(conn), expected);
        assert_eq!(rig.value(Metric::Encodes), u64::from(variant != PLAIN_JSON));
    }
}
