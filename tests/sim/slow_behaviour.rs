//! What one hub does with clients that take too little or ask for too much, and what it says about them at their end.

use bytes::Bytes;
use pinion::hub::mail::DeviceOutcome;
use pinion::hub::{HubConfig, Input, SendBatch};
use pinion::ids::{ConnId, Platform};
use pinion::limits;
use pinion::metrics::Metric;
use pinion::session::disconnect::Disconnect;
use pinion::session::handshake::Login;
use pinion::session::ledger::LastFrame;
use pinion::session::meter::Rates;
use pinion::wire::envelope::{Codec, Encoding, Request, Variant};

use crate::frames::masked_frame;
use crate::rig::{Rig, Seen, config, reply};

const KEY: [u8; 4] = [1, 2, 3, 4];

/// A push of about `bytes` to one user; whether it was queued.
fn push(rig: &mut Rig, number: u32, user: &str, bytes: usize) -> bool {
    rig.push_bytes((number, 1), &[user], Bytes::from(vec![b'x'; bytes]));
    rig.turn();
    rig.verdicts()[0].1[0].devices.first().is_some_and(|d| d.outcome == DeviceOutcome::Queued)
}

/// The socket takes so many bytes and no more.
fn socket_takes(rig: &mut Rig, conn: ConnId, n: usize) {
    let filled = rig.hub.fill(conn, &mut SendBatch::default());
    rig.hub.sent(rig.now, conn, n.min(filled));
    rig.hub.audit().unwrap();
}

fn count(rig: &mut Rig, metric: Metric) -> u64 {
    rig.hub.tally(rig.now).value(metric)
}

fn joined(rig: &mut Rig, conn: ConnId) {
    rig.input(Input::TransportClosed(conn));
    rig.turn();
}

#[test]
fn an_outbox_is_full_at_its_limits_and_not_before() {
    // Ten pongs of 100 bytes are ten frames of 102.
    for (bytes_max, frames_max, closed) in
        [(1_020, 10, false), (1_019, 10, true), (1_020, 9, true), (1_021, 11, false)]
    {
        let limits = HubConfig { outbox_bytes_max: bytes_max, outbox_frames_max: frames_max, ..config() };
        let mut rig = Rig::new(limits);
        let conn = rig.log_in("u", Platform::IOS);
        (0..9).for_each(|_| rig.ping(conn, &[b'p'; 100]));
        assert!(!rig.is_closed(conn));
        rig.ping(conn, &[b'p'; 100]);
        assert_eq!(rig.is_closed(conn), closed, "{bytes_max} {frames_max}");
        assert_eq!(rig.hub.queued_bytes(), if closed { 0 } else { 1_020 });
        assert_eq!(count(&mut rig, Metric::CloseSlow), u64::from(closed));
    }
}

#[test]
fn a_client_that_pings_but_never_reads_is_closed_at_the_send_deadline() {
    let mut rig = Rig::new(config());
    let conn = rig.log_in("u", Platform::IOS);
    assert!(push(&mut rig, 1, "u", 1_000));
    socket_takes(&mut rig, conn, 10);
    let mut waited = 0;
    while waited < limits::SEND_DEADLINE_MS - limits::TICK_MS {
        rig.ping(conn, b"alive");
        rig.wait(1_900.min(limits::SEND_DEADLINE_MS - limits::TICK_MS - waited));
        socket_takes(&mut rig, conn, 0);
        waited = rig.now.mono.0 - 5_000;
    }
    assert!(!rig.is_closed(conn));
    rig.wait(2 * limits::TICK_MS);
    assert!(rig.is_closed(conn) && !rig.is_registered("u"));
    assert_eq!((count(&mut rig, Metric::CloseStuck), rig.hub.queued_bytes()), (1, 0));
}

#[test]
fn a_byte_that_moves_puts_the_send_deadline_off_and_an_empty_outbox_ends_it() {
    let mut rig = Rig::new(config());
    let conn = rig.log_in("u", Platform::IOS);
    assert!(push(&mut rig, 1, "u", 1_000));
    socket_takes(&mut rig, conn, 10);
    for _ in 0..4 {
        rig.wait(limits::SEND_DEADLINE_MS - limits::TICK_MS);
        rig.ping(conn, b"");
        socket_takes(&mut rig, conn, 1);
    }
    assert!(!rig.is_closed(conn), "slow, but it reads");
    rig.read_bytes(conn);
    for _ in 0..4 {
        rig.ping(conn, b"");
        rig.read_bytes(conn);
        rig.wait(limits::SEND_DEADLINE_MS);
    }
    assert!(!rig.is_closed(conn), "nothing waits");
}

#[test]
fn the_victim_of_the_shards_budget_is_the_largest_outbox_and_not_the_frame_at_hand() {
    let mut rig = Rig::new(HubConfig { shard_outbox_bytes_max: 1_500_000, ..config() });
    let names = ["small", "middle", "large", "other"];
    let conns = names.map(|name| rig.log_in(name, Platform::IOS));
    let reader = rig.log_in("reader", Platform::IOS);
    for (name, size) in names.iter().zip([30_000, 200_000, 650_000, 90_000]) {
        assert!(push(&mut rig, 1, name, size));
    }
    let mut pushes = 0;
    while count(&mut rig, Metric::CloseBudget) == 0 {
        pushes += 1;
        assert!(push(&mut rig, 2, "reader", 40_000), "it has done nothing wrong");
    }
    assert!((2..10).contains(&pushes), "{pushes}");
    assert_eq!(conns.map(|c| rig.is_closed(c)), [false, false, true, false]);
    assert_eq!(rig.read(reader).len(), pushes, "and it gets them all");
    // Now the one at hand is the largest itself.
    assert!(push(&mut rig, 3, "other", 600_000));
    assert!(!push(&mut rig, 4, "other", 600_000));
    assert_eq!(conns.map(|c| rig.is_closed(c)), [false, false, true, true]);
    assert!(!rig.is_closed(reader));
    assert_eq!(count(&mut rig, Metric::CloseBudget), 2);
}

#[test]
fn one_that_is_flushing_makes_room_too() {
    let mut rig = Rig::new(HubConfig { shard_outbox_bytes_max: 1_500_000, ..config() });
    let leaving = rig.log_in("leaving", Platform::IOS);
    let reader = rig.log_in("reader", Platform::IOS);
    assert!(push(&mut rig, 1, "leaving", 750_000));
    rig.request(leaving, "leaving", (2003, "bye"), b"");
    let call = rig.calls().pop().unwrap();
    rig.answer(&call, pinion::hub::upstream::UpstreamOutcome::Data(Bytes::new()));
    assert!(!rig.is_closed(leaving), "it gets its frames, for a second");
    assert!(push(&mut rig, 2, "reader", 600_000));
    assert!(rig.is_closed(leaving) && !rig.is_closed(reader));
    assert_eq!(count(&mut rig, Metric::CloseBudget), 0, "it had its reason already");
}

fn rates() -> Rates {
    Rates { frames: 10, bytes: 100_000, inflated: 1 << 20, calls: 5 }
}

#[test]
fn a_client_above_its_rates_is_closed_with_the_reason() {
    let gzip = Variant { encoding: Encoding::Json, gzip: true };
    let big = Request { id: 1001, send_id: "u".into(), data: vec![0; 700_000].into(), ..Request::default() };
    let big = Codec::default().encode_request(gzip, &big);
    let send = (limits::REQUEST_BURST_MS / 1000) as usize;
    for (reason, metric, frame, fits) in [
        (Disconnect::FrameRate, Metric::CloseFrameRate, masked_frame(0x8a, b"", KEY), 10 * send),
        (Disconnect::ByteRate, Metric::CloseByteRate, masked_frame(0x8a, &[7; 120], KEY), 10 * send),
        (Disconnect::InflatedRate, Metric::CloseInflatedRate, masked_frame(0x82, &big, KEY), send),
    ] {
        let mut rates = rates();
        if reason == Disconnect::ByteRate {
            rates.bytes = u32::try_from(frame.len() * 10).unwrap();
            rates.frames = 1_000;
        }
        let mut rig = Rig::new(HubConfig { rates, ..config() });
        let variant = if reason == Disconnect::InflatedRate { gzip } else { crate::rig::PLAIN_JSON };
        let login = Login { variant, ..rig.arguments("u", Platform::IOS) };
        let conn = rig.accept(login).unwrap();
        rig.answer_token("u", Platform::IOS.id());
        rig.turn();
        rig.read(conn);
        for n in 0..fits {
            rig.bytes(conn, frame.clone());
            assert_eq!(count(&mut rig, metric), 0, "{reason:?} after {n} of {fits}");
            rig.calls();
        }
        rig.bytes(conn, frame.clone());
        assert_eq!(count(&mut rig, metric), 1, "{reason:?}");
        let seen = rig.read(conn);
        assert!(matches!(seen[..], [Seen::Close(Some(1008))]), "{reason:?}: {seen:?}");
        assert!(rig.is_closed(conn));
    }
}

#[test]
fn a_client_that_keeps_to_its_rates_stays() {
    let mut rig = Rig::new(HubConfig { rates: rates(), ..config() });
    let conn = rig.log_in("u", Platform::IOS);
    for _ in 0..60 {
        (0..10).for_each(|_| rig.ping(conn, b"x"));
        rig.read(conn);
        rig.wait(1_000);
    }
    assert!(!rig.is_closed(conn));
}

#[test]
fn too_many_upstream_calls_are_answered_with_an_error_and_harm_nothing_else() {
    let mut rig = Rig::new(HubConfig { rates: Rates { calls: 2, ..Rates::default() }, ..config() });
    let conn = rig.log_in("u", Platform::IOS);
    for n in 0..8 {
        rig.request(conn, "u", (1001, &format!("ok{n}")), b"x");
        assert_eq!(rig.calls().len(), 1, "{n}");
    }
    rig.request(conn, "u", (1001, "too many"), b"x");
    let seen = rig.read(conn);
    let answer = reply(&seen);
    assert_eq!(
        (answer.err_code, &*answer.err_msg, &*answer.msg_incr),
        (500, "too many requests", "too many")
    );
    assert_eq!((rig.calls().len(), count(&mut rig, Metric::RequestsThrottled)), (0, 1));
    rig.ping(conn, b"still here");
    assert_eq!(rig.read(conn), [Seen::Pong(b"still here".into())]);
    rig.wait(500);
    rig.request(conn, "u", (1001, "again"), b"x");
    assert_eq!(count(&mut rig, Metric::RequestsThrottled), 1, "half a second gives one back");
}

#[test]
fn bytes_of_half_messages_are_counted_bounded_and_given_back() {
    let mut rig = Rig::new(HubConfig { connections_max: 2_000, ..config() });
    let half = &masked_frame(0x82, &[0; limits::MESSAGE_BYTES_MAX], KEY)[..limits::MESSAGE_BYTES_MAX];
    let mut conns = Vec::new();
    while count(&mut rig, Metric::CloseBudget) == 0 {
        let conn = rig.log_in(&format!("u{}", conns.len()), Platform::IOS);
        rig.hub.bytes(rig.now, conn, &mut half.to_vec());
        conns.push(conn);
        let held = usize::try_from(count(&mut rig, Metric::InboundBytes)).unwrap();
        assert!(held <= limits::SHARD_INBOUND_BYTES_MAX, "{held}");
    }
    let last = conns.pop().unwrap();
    rig.turn();
    assert!(rig.is_closed(last), "whoever sends the next one");
    assert!(!conns.iter().any(|c| rig.is_closed(*c)));
    for conn in conns {
        rig.hub.input(rig.now, Input::TransportLost(conn));
    }
    rig.turn();
    assert_eq!(count(&mut rig, Metric::InboundBytes), 0);
}

#[test]
fn each_end_is_told_once_and_completely() {
    let mut rig = Rig::new(config());
    let conn = rig.log_in("u", Platform::IOS);
    rig.wait(3_000);
    rig.ping(conn, b"12345");
    rig.read(conn);
    assert!(push(&mut rig, 1, "u", 1_000));
    let unsent = rig.hub.queued_bytes();
    rig.wait(700);
    rig.input(Input::TransportLost(conn));
    rig.turn();
    assert_eq!(rig.hub.next_ended(), None, "its socket is not closed yet");
    joined(&mut rig, conn);
    let ended = rig.hub.next_ended().unwrap();
    assert_eq!(rig.hub.next_ended(), None);
    assert_eq!((ended.conn, &*ended.user, ended.platform), (conn, "u", Platform::IOS));
    assert_eq!((ended.reason, ended.age_ms, ended.heard_ms), (Disconnect::TransportLost, 3_700, 700));
    assert_eq!((ended.last_frame, ended.bytes_in), (LastFrame::Ping, 11));
    assert!(ended.bytes_out > 100, "the 101 and a pong: {ended:?}");
    assert_eq!((ended.bytes_unsent as usize, ended.peer.ip().to_string()), (unsent, "10.0.0.1".to_owned()));
}

#[test]
fn a_kicked_one_and_a_refused_login_are_told_with_their_user() {
    let mut rig = Rig::new(config());
    let first = rig.log_in("u", Platform::IOS);
    rig.log_in("u", Platform::IOS);
    rig.turn();
    rig.read(first);
    joined(&mut rig, first);
    let ended = rig.hub.next_ended().unwrap();
    assert_eq!((ended.conn, &*ended.user, ended.reason), (first, "u", Disconnect::Kicked));
    let login = rig.arguments("claimed", Platform::IOS);
    let refused = rig.accept(login).unwrap();
    rig.answer_token("another", Platform::IOS.id());
    rig.read(refused);
    joined(&mut rig, refused);
    let ended = rig.hub.next_ended().unwrap();
    assert_eq!((&*ended.user, ended.reason), ("claimed", Disconnect::LoginRefused));
}

#[test]
fn ends_that_nobody_takes_are_dropped_and_counted() {
    let mut rig = Rig::new(config());
    for n in 0..limits::ENDED_MAX + 3 {
        let login = rig.arguments("u", Platform::IOS);
        let conn = rig.hub.accepted(
            rig.now,
            pinion::hub::Accepted { peer: ([10, 0, 0, 1], 9).into(), client: None, login: Box::new(login) },
        );
        rig.hub.input(rig.now, Input::TransportClosed(conn.unwrap()));
        while rig.hub.next_effect().is_some() {}
        if n % 4_000 == 0 {
            rig.wait(limits::UPSTREAM_DEADLINE_MS + 100); // free no reply slot, but let deadlines pass
        }
    }
    assert_eq!(count(&mut rig, Metric::EndedDropped), 3);
    assert_eq!(std::iter::from_fn(|| rig.hub.next_ended()).count(), limits::ENDED_MAX);
}
