//! Tests of what is told to the user service: when, in which order, how often; `legacy`: OpenIM 3.5's.

mod legacy;

use super::*;
use crate::hub::upstream::ConnectionNews;
use crate::limits;
use crate::pb::openim::user::{SetUserOnlineStatusReq, UserOnlineStatus};

const PID: u32 = 7;

fn config() -> PresenceConfig {
    let mut config = PresenceConfig::new(Compat::Patch16, PID, [1, 2]);
    config.reports.lanes = 1;
    config
}

fn at(ms: u64) -> Now {
    Now { mono: Mono(ms), unix: UnixMs(i64::try_from(ms).unwrap()) }
}

fn record(user: &str, online: &[i32], offline: &[i32]) -> PresenceRecord {
    PresenceRecord {
        user: user.into(),
        online: online.to_vec(),
        offline: offline.to_vec(),
        ..Default::default()
    }
}

/// What a request says: user, online, offline.
type Line = (String, Vec<i32>, Vec<i32>);

fn line(user: &str, online: &[i32], offline: &[i32]) -> Line {
    (user.to_owned(), online.to_vec(), offline.to_vec())
}

fn lines(request: &Request) -> Vec<Line> {
    let body = SetUserOnlineStatusReq::decode(request.body.clone()).unwrap();
    body.status.into_iter().map(|s| (s.user_id, s.online, s.offline)).collect()
}

/// Takes the request that is due and says that it was carried out.
fn tell(presence: &mut Presence, ms: u64) -> Vec<Line> {
    let request = presence.next_request(at(ms)).expect("something to tell");
    presence.answered(Mono(ms), request.id, Ok(Bytes::new()));
    lines(&request)
}

fn refused() -> RequestFault {
    RequestFault::Refused(UpstreamError::internal())
}

#[test]
fn bytes_are_those_of_the_vector() {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    // Spec A.7.
    let status = UserOnlineStatus {
        user_id: "u1".into(),
        conn_id: String::new(),
        online: vec![5, 5],
        offline: vec![1],
    };
    let request = SetUserOnlineStatusReq { status: vec![status] };
    assert_eq!(hex(&request.encode_to_vec()), "0a0b0a0275311a020505220101");
    // The same by way of a record: platforms are a set.
    let mut presence = Presence::new(config());
    presence.record(at(0), &record("u1", &[5, 5], &[1]));
    let request = presence.next_request(at(1_000)).unwrap();
    assert_eq!(hex(&request.body), "0a0a0a0275311a0105220101");
    assert_eq!((request.method, &*request.operation_id), (UserMethod::SetUserOnlineStatus, "p_7_1"));
    assert_eq!(request.deadline, Mono(1_000 + limits::PRESENCE_DEADLINE_MS));
}

#[test]
fn a_change_waits_a_second_or_for_a_full_batch() {
    let mut presence = Presence::new(config());
    presence.record(at(5), &record("u0", &[5], &[]));
    assert_eq!(presence.next_request(at(1_004)), None);
    assert_eq!(tell(&mut presence, 1_005), [line("u0", &[5], &[])]);
    for n in 1..limits::PRESENCE_BATCH_MAX {
        presence.record(at(2_000), &record(&format!("u{n}"), &[1], &[]));
    }
    assert_eq!(presence.next_request(at(2_000)), None);
    presence.record(at(2_001), &record("one more", &[1], &[]));
    presence.record(at(2_001), &record("too many", &[1], &[]));
    let request = presence.next_request(at(2_001)).unwrap();
    assert_eq!((lines(&request).len(), &*request.operation_id), (limits::PRESENCE_BATCH_MAX, "p_7_2"));
    assert_eq!(presence.next_request(at(3_000)), None, "the lane has its request in flight");
    presence.answered(Mono(3_000), request.id, Ok(Bytes::new()));
    assert_eq!(presence.next_request(at(3_000)), None);
    assert_eq!(tell(&mut presence, 3_001), [line("too many", &[1], &[])]);
    assert_eq!((presence.untold(), presence.reports.online()), (0, 102));
}

#[test]
fn lanes_are_in_flight_side_by_side_and_a_user_keeps_his() {
    let mut config = config();
    config.reports.lanes = 4;
    let mut presence = Presence::new(config);
    let users: Vec<String> = (0..40).map(|n| format!("u{n}")).collect();
    users.iter().for_each(|user| presence.record(at(0), &record(user, &[1], &[])));
    let first: Vec<Request> = std::iter::from_fn(|| presence.next_request(at(1_000))).collect();
    assert_eq!((first.len(), first.iter().map(|r| lines(r).len()).sum::<usize>()), (4, 40));
    users.iter().for_each(|user| presence.record(at(1_000), &record(user, &[5], &[1])));
    assert_eq!(presence.next_request(at(2_000)), None, "everybody is in flight");
    presence.answered(Mono(2_000), first[2].id, Ok(Bytes::new()));
    let again = presence.next_request(at(3_000)).unwrap();
    let told = |request: &Request| lines(request).into_iter().map(|(user, ..)| user).collect::<Vec<_>>();
    assert_eq!(told(&again), told(&first[2]));
}

#[test]
fn what_was_told_in_vain_is_merged_under_what_came_meanwhile() {
    /// Before; in flight meanwhile; what is told at last.
    type Row = (&'static [i32], &'static [i32], &'static [(&'static [i32], &'static [i32])], Line);
    let table: [Row; 6] = [
        (&[5], &[], &[], line("u", &[5], &[])),
        (&[5], &[1], &[], line("u", &[5], &[1])),
        (&[5], &[1], &[(&[5, 1], &[])], line("u", &[1, 5], &[])),
        (&[5], &[1], &[(&[], &[5])], line("u", &[], &[1, 5])),
        (&[5], &[1], &[(&[], &[5]), (&[5], &[]), (&[2], &[5])], line("u", &[2], &[1, 5])),
        (&[], &[5], &[(&[5], &[])], line("u", &[5], &[])),
    ];
    for fault in [refused(), RequestFault::Unknown] {
        for (online, offline, meanwhile, expected) in &table {
            let mut presence = Presence::new(config());
            presence.record(at(0), &record("u", online, offline));
            let request = presence.next_request(at(1_000)).unwrap();
            for (online, offline) in *meanwhile {
                presence.record(at(1_500), &record("u", online, offline));
            }
            assert_eq!(presence.next_request(at(2_500)), None);
            presence.answered(Mono(2_500), request.id, Err(fault.clone()));
            assert_eq!(presence.next_request(at(2_500)), None, "it backs off");
            assert_eq!(tell(&mut presence, 4_000), std::slice::from_ref(expected), "{fault:?}");
        }
    }
}

#[test]
fn a_request_without_an_answer_ends_at_its_deadline_and_its_late_answer_is_counted() {
    let mut presence = Presence::new(config());
    presence.record(at(0), &record("u", &[], &[5]));
    let request = presence.next_request(at(1_000)).unwrap();
    let end = 1_000 + limits::PRESENCE_DEADLINE_MS;
    assert_eq!(presence.next_request(at(end - 1)), None);
    assert_eq!((presence.next_request(at(end)), presence.reports.counts.unknown), (None, 1));
    presence.answered(Mono(end), request.id, Ok(Bytes::new()));
    assert_eq!((presence.reports.counts.late, presence.untold()), (1, 1));
    let retry = end + limits::PRESENCE_BACKOFF_FIRST_MS;
    assert_eq!(tell(&mut presence, retry), [line("u", &[], &[5])]);
    // The first request may still be carried out: what followed it is told once more.
    assert_eq!(presence.next_request(at(retry + limits::PRESENCE_SETTLE_MS - 1)), None);
    assert_eq!(presence.next_request(at(retry + limits::PRESENCE_SETTLE_MS)), None);
    let echo = retry + limits::PRESENCE_SETTLE_MS + limits::PRESENCE_FLUSH_MS;
    assert_eq!(tell(&mut presence, echo), [line("u", &[], &[5])]);
    assert_eq!((presence.untold(), presence.reports.users.len()), (0, 0));
}

#[test]
fn waits_after_failures_double_up_to_the_longest_and_are_random_by_half() {
    let mut presence = Presence::new(config());
    presence.record(at(0), &record("u", &[5], &[]));
    let mut now = 1_000;
    let mut most = limits::PRESENCE_BACKOFF_FIRST_MS;
    for _ in 0..12 {
        let request = presence.next_request(at(now)).expect("the longest wait is over");
        presence.answered(Mono(now), request.id, Err(refused()));
        assert_eq!(presence.next_request(at(now + most / 2 - 1)), None);
        now += most;
        most = (most * 2).min(limits::PRESENCE_BACKOFF_MS);
    }
    assert_eq!(tell(&mut presence, now).len(), 1);
}

/// The user service stops at the first user that it refuses (spec 5.2): he must not keep the others from being told.
#[test]
fn a_user_who_is_refused_keeps_nobody_waiting_for_ever() {
    let mut presence = Presence::new(config());
    for n in 0..100 {
        presence.record(at(0), &record(&format!("u{n}"), &[5], &[]));
    }
    let mut told = std::collections::BTreeSet::new();
    for tick in 0..200 {
        let now = tick * 500;
        while let Some(request) = presence.next_request(at(now)) {
            let lines = lines(&request);
            let poison = lines.iter().position(|(user, ..)| user == "u70");
            told.extend(lines.into_iter().take(poison.unwrap_or(100)).map(|(user, ..)| user));
            let answer = if poison.is_some() { Err(refused()) } else { Ok(Bytes::new()) };
            presence.answered(Mono(now), request.id, answer);
        }
    }
    assert_eq!((told.len(), presence.untold()), (99, 1));
}

#[test]
fn renewals_are_spread_and_never_too_late() {
    let mut presence = Presence::new(config());
    let mut told: BTreeMap<String, u64> = BTreeMap::new();
    for n in 0..2_000 {
        presence.record(at(0), &record(&format!("u{n}"), &[5], &[]));
    }
    let mut per_minute: BTreeMap<u64, usize> = BTreeMap::new();
    let mut longest = 0;
    for now in (0..4 * 3_600_000).step_by(1_000) {
        while let Some(request) = presence.next_request(at(now)) {
            presence.answered(Mono(now), request.id, Ok(Bytes::new()));
            for (user, online, offline) in lines(&request) {
                assert_eq!((online, offline), (vec![5], vec![]), "online only");
                let before = told.insert(user, now).unwrap_or(now);
                longest = longest.max(now - before);
                assert!(before == now || now - before >= limits::PRESENCE_RENEW_MS);
                *per_minute.entry(now / 60_000).or_default() += 1;
            }
        }
    }
    assert_eq!(told.len(), 2_000);
    assert!(longest < 1_200_000 && longest > 0, "{longest} ms between two records");
    // All at once at first; 2 000 in 5 minutes from then on, in batches of 100.
    let most = per_minute.iter().filter(|(minute, _)| **minute > 1).map(|(_, users)| *users).max();
    assert!(most.is_some_and(|most| most <= 500), "{most:?} in one minute");
    assert!(presence.reports.counts.renewals >= 2_000 * 15);
}

#[test]
fn a_repair_is_made_at_once_and_then_at_its_rate() {
    let mut presence = Presence::new(config());
    presence.record(at(0), &record("u", &[1, 5], &[]));
    presence.online_change(Mono(1), b"u");
    assert_eq!(presence.reports.counts.repairs, 0, "it will be told anyway");
    tell(&mut presence, 1_000);
    for message in ["1:5:u", "5:7:1:u", "other", "1:other", "5:u:", "x:u"] {
        presence.online_change(Mono(2_000), message.as_bytes());
    }
    assert_eq!((presence.reports.counts.repairs, presence.invalid, presence.untold()), (0, 2, 0));
    // Two gateways that contradict each other with each message.
    let mut requests = 0;
    for now in (2_000..62_000).step_by(100) {
        presence.online_change(Mono(now), b"1:u");
        while let Some(request) = presence.next_request(at(now)) {
            assert_eq!(lines(&request), [line("u", &[1, 5], &[])]);
            presence.answered(Mono(now), request.id, Ok(Bytes::new()));
            requests += 1;
        }
    }
    assert!((6..=12).contains(&requests), "{requests} in a minute");
    while presence.next_news().is_some() {}
}

#[test]
fn a_second_repair_waits_but_is_not_lost() {
    // It comes when all is told, or while the first one is in flight.
    for answered in [3_000, 5_000] {
        let mut presence = Presence::new(config());
        presence.record(at(0), &record("u", &[5], &[]));
        tell(&mut presence, 1_000);
        presence.online_change(Mono(2_000), b"u");
        let request = presence.next_request(at(3_000)).unwrap();
        if answered < 4_000 {
            presence.answered(Mono(answered), request.id, Ok(Bytes::new()));
        }
        presence.online_change(Mono(4_000), b"u");
        if answered > 4_000 {
            presence.answered(Mono(answered), request.id, Ok(Bytes::new()));
        }
        let told = answered.max(4_000) + limits::PRESENCE_SETTLE_MS + limits::PRESENCE_FLUSH_MS;
        assert!((5_000..told).step_by(100).all(|now| presence.next_request(at(now)).is_none()));
        assert_eq!(tell(&mut presence, told), [line("u", &[5], &[])]);
        assert_eq!(presence.untold(), 0);
    }
}

#[test]
fn a_repair_during_the_flight_is_told_after_it() {
    let mut presence = Presence::new(config());
    presence.record(at(0), &record("u", &[5], &[]));
    let request = presence.next_request(at(1_000)).unwrap();
    presence.online_change(Mono(1_100), b"u");
    presence.answered(Mono(1_200), request.id, Ok(Bytes::new()));
    assert_eq!(tell(&mut presence, 2_200), [line("u", &[5], &[])]);
    assert_eq!(presence.next_request(at(60_000)), None);
}

#[test]
fn after_a_gap_in_the_messages_everybody_here_is_told_again_spread_over_time() {
    let mut presence = Presence::new(config());
    for n in 0..1_000 {
        presence.record(at(0), &record(&format!("u{n}"), &[5], &[]));
    }
    (0..10).for_each(|_| drop(tell(&mut presence, 1_000)));
    presence.resubscribed(Mono(100_000));
    let mut times = Vec::new();
    let mut healed = std::collections::BTreeSet::new();
    for now in (100_000..300_000).step_by(1_000) {
        while let Some(request) = presence.next_request(at(now)) {
            presence.answered(Mono(now + 1), request.id, Ok(Bytes::new()));
            healed.extend(lines(&request).into_iter().map(|(user, ..)| user));
            times.push(now - 100_000);
        }
    }
    // Ten batches in a minute.
    assert_eq!(times, (0..10).map(|n| n * 6_000).collect::<Vec<_>>());
    assert_eq!((healed.len(), presence.untold()), (1_000, 0));
}

#[test]
fn those_who_left_are_remembered_up_to_the_limit() {
    let mut config = config();
    config.reports.departed_max = 3;
    let mut presence = Presence::new(config);
    let users = ["a", "b", "c", "d", "e"];
    users.iter().for_each(|user| presence.record(at(0), &record(user, &[5], &[])));
    tell(&mut presence, 1_000);
    users.iter().for_each(|user| presence.record(at(2_000), &record(user, &[], &[5])));
    assert_eq!((presence.reports.counts.forgotten, presence.untold()), (2, 3));
    let told = tell(&mut presence, 3_000);
    assert_eq!(told, ["a", "b", "c"].map(|user| line(user, &[], &[5])));
    assert_eq!(presence.reports.users.len(), 0);
}

/// Spec trap 32.
#[test]
fn the_end_takes_everybody_offline_without_delay() {
    let mut config = config();
    config.webhooks = Webhooks::Changes;
    let mut presence = Presence::new(config);
    presence.record(at(0), &record("told", &[1, 5], &[]));
    tell(&mut presence, 1_000);
    presence.record(at(1_500), &record("untold", &[2], &[]));
    presence.record(at(1_500), &record("moving", &[2], &[3]));
    let in_flight = presence.next_request(at(2_500)).unwrap();
    while presence.next_webhook().is_some() {}
    presence.final_offline(at(2_600), Mono(10_000));
    let left: Vec<_> = std::iter::from_fn(|| presence.next_webhook()).map(|e| (e.kind, e.platform)).collect();
    assert_eq!(left, [1, 5, 2, 2].map(|platform| (WebhookKind::Offline, platform)));
    assert_eq!(presence.untold(), 3);
    // A record that the end has overtaken.
    presence.record(at(2_600), &record("overtaken", &[5], &[]));
    presence.answered(Mono(2_600), in_flight.id, Err(refused()));
    let wait = 2_600 + limits::PRESENCE_BACKOFF_FIRST_MS;
    let mut told = Vec::new();
    while presence.untold() > 0 {
        told.extend(tell(&mut presence, wait));
    }
    told.sort();
    let expected =
        [("moving", vec![2, 3]), ("overtaken", vec![5]), ("told", vec![1, 5]), ("untold", vec![2])];
    assert_eq!(told, expected.map(|(user, offline)| line(user, &[], &offline)));
    assert_eq!((presence.reports.users.len(), presence.next_webhook()), (0, None));
}

#[test]
fn the_end_gives_up_at_its_deadline() {
    let mut presence = Presence::new(config());
    presence.record(at(0), &record("u", &[5], &[]));
    presence.final_offline(at(0), Mono(1_000));
    let request = presence.next_request(at(0)).unwrap();
    presence.answered(Mono(999), request.id, Err(refused()));
    assert_eq!((presence.next_request(at(1_000)), presence.untold()), (None, 1));
}

/// Spec trap 31.
#[test]
fn webhooks_tell_each_change_once_and_renewals_only_if_asked_to() {
    for (webhooks, renewed) in [(Webhooks::Off, 0), (Webhooks::Changes, 0), (Webhooks::ChangesAndRenewals, 2)]
    {
        let mut presence = Presence::new(PresenceConfig { webhooks, ..config() });
        let mark = |(platform, id): &(i32, &str)| ConnectionMark {
            platform: *platform,
            connection_id: (*id).into(),
            background: *platform == 5,
        };
        let named = |record, here: &[(i32, &str)], left: &[(i32, &str)], kicked: &[i32]| PresenceRecord {
            connections: Some(Box::new(ConnectionNews {
                here: here.iter().map(mark).collect(),
                left: left.iter().map(mark).collect(),
                kicked: kicked.to_vec(),
            })),
            ..record
        };
        let came = named(record("u", &[1, 5, 5], &[2]), &[(5, "old"), (5, "new")], &[], &[]);
        presence.record(at(9), &came);
        presence.record(at(10), &named(record("u", &[1, 5], &[5]), &[(5, "new")], &[(5, "old")], &[]));
        let kicked = named(record("u", &[1, 2], &[5]), &[(2, "two")], &[(5, "new")], &[5, 5]);
        presence.record(at(11), &kicked);
        let mut hooks = || -> Vec<(WebhookKind, i32, String, bool)> {
            let events = std::iter::from_fn(|| presence.next_webhook());
            events.map(|e| (e.kind, e.platform, e.connection_id.into(), e.background)).collect()
        };
        let expected = [
            (WebhookKind::Online, 1, String::new(), false),
            (WebhookKind::Online, 5, "new".to_owned(), true),
            (WebhookKind::KickOff, 5, String::new(), false),
            (WebhookKind::KickOff, 5, String::new(), false),
            (WebhookKind::Offline, 5, "new".to_owned(), true),
            (WebhookKind::Online, 2, "two".to_owned(), false),
        ];
        let all = if webhooks == Webhooks::Off { 0 } else { expected.len() };
        assert_eq!(hooks(), expected[..all]);
        tell(&mut presence, 1_010);
        tell_all(&mut presence, 1_000_000);
        let events: Vec<_> = std::iter::from_fn(|| presence.next_webhook()).map(|e| e.platform).collect();
        assert_eq!(events, [1, 2][..renewed]);
    }
}

/// Lets the seconds until then pass.
fn tell_all(presence: &mut Presence, until: u64) {
    for now in (2_000..=until).step_by(1_000) {
        while let Some(request) = presence.next_request(at(now)) {
            presence.answered(Mono(now), request.id, Ok(Bytes::new()));
        }
    }
}

/// As the slots of [`crate::arena::Arena`].
#[expect(dead_code, reason = "only its size is of interest")]
enum Slot<T> {
    Free { next: u32 },
    Used { generation: u32, value: T },
}

#[test]
fn a_user_costs_what_the_module_says() {
    assert_eq!(size_of::<Slot<lane::User>>(), 64);
    assert_eq!(size_of::<Slot<statuses::Entry>>(), 48);
    assert!(size_of::<Request>() <= 96, "{}", size_of::<Request>());
}

#[test]
fn what_was_done_can_be_seen() {
    let mut presence = Presence::new(config());
    presence.record(at(0), &record("u", &[5], &[]));
    presence.record(at(0), &record("v", &[5], &[]));
    tell(&mut presence, 1_000);
    presence.record(at(1_001), &record("w", &[5], &[]));
    presence.online_change(Mono(1_001), b":");
    let mut tally = Tally::default();
    presence.publish(&mut tally);
    let shown = [
        Metric::PresenceOnline,
        Metric::PresenceUntold,
        Metric::PresenceDone,
        Metric::PresenceRefused,
        Metric::OnlineChangeInvalid,
    ];
    assert_eq!(shown.map(|metric| tally.value(metric)), [3, 1, 1, 0, 1]);
}
