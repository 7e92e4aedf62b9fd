//! `pinion.v1.Push` with real connections behind it: what callers are told is what became of the messages.

use pinion::limits;
use pinion::pb::openim::msggateway::{KickUserOfflineReq, KickUserOfflineResp};
use pinion::pb::openim::sdkws::MsgData;
use pinion::pb::pinion::v1::{AllLocalUsers, Outcome, PushMessage, UserVerdict, push_message::To};
use pinion::rpc::client::call_once;
use pinion::wire::envelope::Variant;
use prost::Message;

use crate::harness::{
    CALL_DEADLINE_MS, Client, Gateway, Options, PushStream, eventually, push_message, text_message,
};
use crate::slow::log_in_and_stall;

fn log_in(gateway: &Gateway, user: &str, platform: i64, variant: Variant) -> Client {
    let token = gateway.token(user, platform);
    let options = Options { variant, ..Options::default() };
    Client::connect(gateway.websocket, user, platform, &token, &options).unwrap()
}

/// What became of it on the user's devices; without devices, of the user.
fn outcomes(verdict: &UserVerdict) -> Vec<Outcome> {
    if verdict.devices.is_empty() {
        return vec![verdict.outcome()];
    }
    assert!(verdict.devices.iter().all(|d| d.connection_id.len() == 16));
    verdict.devices.iter().map(|d| d.outcome()).collect()
}

fn at_least(gateway: &Gateway, family: &str, value: f64) {
    eventually(family, || (gateway.metrics().sum(family, &[]) >= value).then_some(()));
}

#[test]
fn a_stream_reaches_clients_in_order_and_tells_what_was_written() {
    let gateway = Gateway::start(&["--shards-count", "2"]);
    let variant = Options::default().variant;
    let users = ["u1", "u2", "u3", "u4"];
    let mut clients: Vec<Client> = users.iter().map(|user| log_in(&gateway, user, 1, variant)).collect();
    let mut stream = PushStream::open(gateway.grpc);
    for round in 0..10u64 {
        let ids = round * 50..(round + 1) * 50;
        stream.push(
            ids.map(|id| push_message(id, &["u1", "u2", "u3", "u4", "absent"], &format!("{id}"))).collect(),
        );
    }
    let mut seen = std::collections::BTreeMap::new();
    while seen.len() < 500 * 5 {
        for verdict in stream.next().map(|v| v.users.into_iter().map(move |u| (v.id, u))).unwrap() {
            let expected = if verdict.1.user_id == "absent" { Outcome::NotHere } else { Outcome::Written };
            assert_eq!(outcomes(&verdict.1), [expected]);
            assert!(seen.insert((verdict.0, verdict.1.user_id), ()).is_none(), "told twice");
        }
    }
    for client in &mut clients {
        for id in 0..500 {
            assert_eq!(client.pushed_text(), id.to_string());
        }
    }
    stream.finish();
}

#[test]
fn everybody_here_gets_a_message_for_all_and_an_absent_user_one_that_waits_for_him() {
    let gateway = Gateway::start(&["--shards-count", "2"]);
    let variant = Options::default().variant;
    let users = ["u1", "u2", "u3"];
    let mut clients: Vec<Client> = users.iter().map(|user| log_in(&gateway, user, 1, variant)).collect();
    let mut stream = PushStream::open(gateway.grpc);

    let to = Some(To::AllLocalUsers(AllLocalUsers {}));
    stream.push(vec![PushMessage { to, ..push_message(1, &[], "all") }]);
    let mut reached = stream.answer(1);
    reached.sort_by(|a, b| a.user_id.cmp(&b.user_id));
    assert!(reached.iter().map(|u| u.user_id.as_str()).eq(users));
    assert!(reached.iter().all(|u| outcomes(u) == [Outcome::Written]));
    assert!(clients.iter_mut().all(|client| client.pushed_text() == "all"));

    // Whoever must be here now is not waited for.
    let now =
        PushMessage { only_if_online: true, expire_after_ms: 60_000, ..push_message(2, &["later"], "now") };
    stream.push(vec![now]);
    assert_eq!(outcomes(&stream.answer(2)[0]), [Outcome::NotHere]);

    let waiting = |id, ms| PushMessage { expire_after_ms: ms, ..push_message(id, &["later"], "waited") };
    stream.push(vec![waiting(3, 300)]);
    assert_eq!(outcomes(&stream.answer(3)[0]), [Outcome::Expired]);
    stream.push(vec![waiting(4, 60_000)]);
    at_least(&gateway, "pinion_held_messages", 1.0);
    let mut later = log_in(&gateway, "later", 2, variant);
    assert_eq!(later.pushed_text(), "waited");
    let verdict = stream.answer(4);
    assert_eq!((outcomes(&verdict[0]), verdict[0].devices[0].platform_id), (vec![Outcome::Written], 2));
    stream.finish();
}

#[test]
fn large_messages_reach_all_variants_and_those_above_the_read_limit_are_reported() {
    let gateway = Gateway::start(&["--shards-count", "2"]);
    // Platforms that may be online together.
    let mut clients: Vec<(Variant, Client)> = Variant::all()
        .zip(["u1", "u2", "u3", "u4"])
        .map(|(variant, user)| (variant, log_in(&gateway, user, 5, variant)))
        .collect();
    at_least(&gateway, "pinion_sessions", 4.0);
    let mut stream = PushStream::open(gateway.grpc);
    let mut random = fastrand::Rng::with_seed(1);
    let noise =
        |bytes: usize, random: &mut fastrand::Rng| -> Vec<u8> { (0..bytes).map(|_| random.u8(..)).collect() };
    // Content, and whether it is sent plain and packed.
    let table = [
        (noise(100 * 1024, &mut random), true, true),
        (vec![b' '; 2 << 20], false, true),
        (noise(2 << 20, &mut random), false, false),
    ];
    for (id, (content, plain, packed)) in (1..).zip(table) {
        let data = MsgData { content: content.clone().into(), ..text_message("sender", "u1", "") };
        let message = PushMessage {
            msg_data: data.encode_to_vec().into(),
            ..push_message(id, &["u1", "u2", "u3", "u4"], "")
        };
        stream.push(vec![message]);
        let mut verdicts = stream.answer(id);
        verdicts.sort_by(|a, b| a.user_id.cmp(&b.user_id));
        for (verdict, (variant, client)) in verdicts.iter().zip(&mut clients) {
            let sent = if variant.gzip { packed } else { plain };
            let expected = if sent { Outcome::Written } else { Outcome::TooLarge };
            assert_eq!(outcomes(verdict), [expected], "{id} {variant:?}");
            if sent {
                let push = client.push();
                assert!(push.msgs.values().next().unwrap().msgs[0].content == content, "{id} {variant:?}");
            }
        }
    }
    stream.finish();
    at_least(&gateway, "pinion_shared_encodes_total", 12.0);
}

#[test]
fn what_a_stalled_client_does_not_get_is_told_when_it_is_known() {
    let gateway = Gateway::start(&["--shards-count", "1"]);
    let text = "x".repeat(16 * 1024 - 200);
    let mut stream = PushStream::open(gateway.grpc);
    let mut told = |user: &str, messages: u64, expire_after_ms: u32| {
        // Not before: whoever is silent for long is closed.
        let _stalled = log_in_and_stall(&gateway, user);
        let batch =
            (0..messages).map(|id| PushMessage { expire_after_ms, ..push_message(id, &[user], &text) });
        stream.push(batch.collect());
        if user == "kicked" {
            // What the kernel did not take is in the outbox (nobody else's is); a kick overtakes what is not there yet.
            at_least(&gateway, "pinion_outbox_bytes", 50.0 * 16_384.0);
            let request = KickUserOfflineReq { platform_id: 1, kick_user_id_list: vec![user.into()] };
            let path = "/openim.msggateway.msgGateway/KickUserOffline";
            let metadata = [("operationid", "it")];
            let answer =
                call_once(gateway.grpc, path, &metadata, request.encode_to_vec().into(), CALL_DEADLINE_MS);
            KickUserOfflineResp::decode(answer.unwrap()).unwrap();
        }
        let verdicts: Vec<_> = (0..messages).map(|_| stream.next().unwrap()).collect();
        assert!(verdicts.iter().all(|v| v.last && v.users.len() == 1));
        verdicts.iter().flat_map(|v| outcomes(&v.users[0])).collect::<Vec<_>>()
    };
    let too_many = limits::OUTBOX_BYTES_MAX as u64 / (16 * 1024) + 60;
    let table = [
        ("kicked", 60, 0, Outcome::Kicked),
        ("late", 60, 700, Outcome::Expired),
        ("slow", too_many, 0, Outcome::Dropped),
    ];
    for (user, messages, expire_after_ms, expected) in table {
        let outcomes = told(user, messages, expire_after_ms);
        // The kernel took the first; one may be in it in part, and after the end of the connection nobody is here.
        let found = outcomes.iter().filter(|o| **o == expected).count();
        assert!(found >= 40, "{user}: {outcomes:?}");
    }
    stream.finish();
}
