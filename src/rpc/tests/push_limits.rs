//! `pinion.v1.Push` at its limits, with callers that break rules or leave, and compressed requests.

use std::io::Write;
use std::pin::pin;
use std::time::Duration;

use bytes::{BufMut, BytesMut};
use flate2::Compression;
use flate2::write::GzEncoder;

use super::raw::connect;
use super::streaming::*;
use super::*;
use crate::hub::upstream::UserPlatforms;
use crate::pb::pinion::v1::{Outcome, PushBatch, PushMessage, UserVerdict};
use crate::rpc::stream::send_all;
use crate::shard::thread::block_on;

#[test]
fn ten_thousand_messages_to_mute_shards_are_stopped_by_flow_control_with_256_in_hand() {
    on_each_driver(Shards::Absent, |node| {
        block_on(DriverKind::Epoll, |_| async {
            let mut sender = connect(node.grpc).await;
            let mut caller = Caller::start(&mut sender, &[]).await;
            let numbered = |id| PushMessage { operation_id: format!("{id:0100}"), ..message(id, &["on1"]) };
            let bytes: Vec<u8> = (0..10_000).flat_map(|id| framed(vec![numbered(id)])).collect();
            let total = bytes.len();
            let mut outgoing = Bytes::from(bytes);
            // What the windows take goes; then the caller is stopped.
            let mut stuck = 0;
            while stuck < 20 {
                let before = outgoing.len();
                caller.outgoing.reserve_capacity(outgoing.len());
                monoio::time::sleep(Duration::from_millis(10)).await;
                let room = caller.outgoing.capacity().min(outgoing.len());
                if room > 0 {
                    caller.outgoing.send_data(outgoing.split_to(room), false).unwrap();
                }
                stuck = if outgoing.len() == before { stuck + 1 } else { 0 };
            }
            let taken = total - outgoing.len();
            assert!(taken < 600 * 1024 && outgoing.len() > 200 * 1024, "{taken} of {total}");
            node.await_count(Metric::RpcPushesInHand, 256);
            let depths: usize = node.shards.iter().map(|s| s.depths().push).sum();
            assert_eq!((depths, node.block.value(Metric::RpcPushesInHand)), (256, 256));

            // Once the shards answer, all of it goes through, in order.
            let Caller { outgoing: mut stream, mut incoming } = caller;
            monoio::spawn(async move {
                send_all(&mut stream, outgoing).await.unwrap();
                stream.send_data(Bytes::new(), true).unwrap();
            });
            let ended = monoio::spawn(async move {
                while incoming.next().await.is_some() {}
                incoming.status().await
            });
            for id in 0..10_000 {
                let (shard, mail) = node.taken_by_any().await;
                assert_eq!(mail.body.operation_id.as_str(), format!("{id:0100}"));
                node.say_written(shard, &mail);
            }
            assert_eq!(ended.await.0, 0);
        });
        node.await_count(Metric::RpcStreamOk, 1);
    });
}

#[test]
fn a_caller_that_does_not_read_verdicts_is_stopped_like_one_whose_shards_are_mute() {
    on_each_driver(Shards::Answer, |node| {
        block_on(DriverKind::Epoll, |_| async {
            let mut sender = connect(node.grpc).await;
            let mut caller = Caller::start(&mut sender, &[]).await;
            // Each verdict has 1 000 users: the caller's window is soon full of them.
            let names: Vec<String> = (0..1_000).map(|n| format!("on{n:030}")).collect();
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            let bytes: Vec<u8> = (0..1_000).flat_map(|id| framed(vec![message(id, &names)])).collect();
            let mut sent = pin!(send_all(&mut caller.outgoing, bytes.into()));
            let start = clock::now().mono;
            while node.block.value(Metric::RpcStreamWaitsHand) == 0 {
                let tick = Duration::from_millis(20);
                assert!(monoio::time::timeout(tick, sent.as_mut()).await.is_err(), "not stopped");
                assert!(clock::now().mono.since_ms(start) < 60_000, "its messages are still taken");
            }
            // Another call on another connection is served meanwhile.
            let mut other = Caller::start(&mut connect(node.grpc).await, &[]).await;
            other.push(vec![message(1, &["on1"])]).await;
            assert!(other.next().await.unwrap().last);
        });
        node.await_count(Metric::RpcCancelled, 1);
    });
}

#[test]
fn a_stream_is_not_read_on_while_the_lane_of_an_owner_is_full() {
    on_each_driver(Shards::Absent, |node| {
        block_on(DriverKind::Epoll, |_| async {
            let news = || UserPlatforms { user: "u".into(), platforms: Vec::new() };
            for shard in &node.shards {
                for _ in 0..limits::PUSH_STREAM_LANE_MAX {
                    shard.push(ShardMail::PresenceNews(Box::new(news()))).unwrap();
                }
            }
            let mut sender = connect(node.grpc).await;
            let mut caller = Caller::start(&mut sender, &[]).await;
            caller.push(vec![message(1, &["on1"]), message(2, &["on1"])]).await;
            until(|| (node.block.value(Metric::RpcStreamWaitsShard) == 1).then_some(())).await;
            assert_eq!(node.block.value(Metric::RpcPushesInHand), 0);
            for inbox in &node.inboxes {
                for _ in 0..limits::PUSH_STREAM_LANE_MAX {
                    assert!(matches!(inbox.next_push(), Some(ShardMail::PresenceNews(_))));
                }
            }
            for _ in 0..2 {
                let (shard, mail) = node.taken_by_any().await;
                node.say_written(shard, &mail);
                assert!(caller.next().await.unwrap().last);
            }
        });
    });
}

#[test]
fn a_broken_batch_ends_the_stream_after_the_verdicts_of_those_before_it() {
    on_each_driver(Shards::Absent, |node| {
        block_on(DriverKind::Epoll, |_| async {
            let too_late = PushMessage { expire_after_ms: 60_001, ..message(8, &["on1"]) };
            let no_batch = Bytes::from_static(b"\0\0\0\0\x02\x0a\x09");
            let many = vec![message(1, &["on1"]); limits::PUSH_BATCH_MAX + 1];
            let table = [
                (
                    framed(vec![message(7, &["on1"]), too_late]),
                    3,
                    "messages[1] (id 8): expire_after_ms is above 60000",
                ),
                (framed(Vec::new()), 3, "messages is empty"),
                (framed(many), 8, "a batch has at most 1024 messages"),
                (no_batch, 13, "grpc: error unmarshalling request: unexpected end of the message"),
                (
                    Bytes::from_static(b"\0\xff\xff\xff\xff"),
                    8,
                    "grpc: received message larger than max (4294967295 vs. 8388608)",
                ),
            ];
            let mut sender = connect(node.grpc).await;
            for (bad, code, text) in table {
                let mut caller = Caller::start(&mut sender, &[]).await;
                caller.push(vec![message(1, &["on1"])]).await;
                caller.push_bytes(bad).await;
                let (shard, mail) = node.taken_by_any().await;
                monoio::time::sleep(Duration::from_millis(20)).await;
                assert!(node.shards.iter().all(|s| s.depths().push == 0), "nothing of the bad batch");
                node.say_written(shard, &mail);
                assert!(caller.next().await.unwrap().last);
                assert_eq!(caller.status().await, (code, text.to_owned()));
            }
        });
        node.await_count(Metric::RpcStreamError, 5);
        node.await_count(Metric::RpcBadRequest, 2);
    });
}

#[test]
fn a_reset_and_a_passed_deadline_cancel_what_is_in_hand() {
    on_each_driver(Shards::Absent, |node| {
        block_on(DriverKind::Epoll, |_| async {
            let mut sender = connect(node.grpc).await;
            let mut caller = Caller::start(&mut sender, &[]).await;
            caller.push(vec![message(1, &["on1"]), message(2, &["on1"])]).await;
            caller.half_close();
            let (shard, first) = node.taken_by_any().await;
            let (_, second) = node.taken_by_any().await;
            node.say_written(shard, &first);
            assert!(caller.next().await.unwrap().last);
            caller.outgoing.send_reset(h2::Reason::CANCEL);
            assert_eq!(Some(node.cancelled(shard).await), second.ticket);

            let mut caller = Caller::start(&mut sender, &[("grpc-timeout", "5S")]).await;
            caller.push(vec![message(3, &["on1"])]).await;
            let (_, mail) = node.taken_by_any().await;
            assert_eq!(Some(node.cancelled(shard).await), mail.ticket);
            assert_eq!(caller.status().await.0, 4);
        });
        node.await_count(Metric::RpcCancelled, 1);
        node.await_count(Metric::RpcStreamError, 1);
        until_idle(node);
    });
}

/// All tickets are given back.
fn until_idle(node: &Node) {
    let start = clock::now().mono;
    while node.block.value(Metric::RpcPushesInHand) + node.block.value(Metric::RpcOpen) > 0 {
        assert!(clock::now().mono.since_ms(start) < 60_000, "something is left");
        std::thread::yield_now();
    }
}

#[test]
fn a_drain_finishes_what_is_in_hand_and_says_unavailable() {
    on_each_driver(Shards::Absent, |node| {
        block_on(DriverKind::Epoll, |_| async {
            let mut sender = connect(node.grpc).await;
            let mut caller = Caller::start(&mut sender, &[]).await;
            caller.push(vec![message(1, &["on1"]), message(2, &["on1"])]).await;
            let (shard, first) = node.taken_by_any().await;
            let (_, second) = node.taken_by_any().await;
            node.rpc.post(RpcMail::Drain(clock::now().mono.plus_ms(5_000))).unwrap();
            node.say_written(shard, &first);
            assert!(caller.next().await.unwrap().last);
            // Of the second nothing is heard: shortly before the drain's deadline that is its verdict.
            let verdict = caller.next().await.unwrap();
            let missing = UserVerdict {
                user_id: "on1".into(),
                devices: Vec::new(),
                outcome: Outcome::NotReached.into(),
                ..UserVerdict::default()
            };
            assert_eq!((verdict.id, verdict.users, verdict.last), (2, vec![missing], true));
            assert_eq!(Some(node.cancelled(shard).await), second.ticket);
            assert_eq!(caller.status().await, (14, "the node is leaving".to_owned()));
        });
    });
}

fn pack(plain: &[u8]) -> Bytes {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::new(6));
    encoder.write_all(plain).unwrap();
    let packed = encoder.finish().unwrap();
    let mut framed = BytesMut::new();
    framed.put_u8(1);
    framed.put_u32(u32::try_from(packed.len()).unwrap());
    framed.put_slice(&packed);
    framed.freeze()
}

#[test]
fn compressed_messages_are_taken_and_bombs_are_not() {
    on_each_driver(Shards::Answer, |node| {
        block_on(DriverKind::Epoll, |_| async {
            const GZIP: &[(&str, &str)] = &[("grpc-encoding", "gzip")];
            let batch = |id| PushBatch { messages: vec![message(id, &["on1"])] }.encode_to_vec();
            let mut sender = connect(node.grpc).await;
            let mut caller = Caller::start(&mut sender, GZIP).await;
            caller
                .push_bytes(
                    [pack(&batch(1)), framed(vec![message(2, &["on1"])]), pack(&batch(3))].concat().into(),
                )
                .await;
            for _ in 0..3 {
                assert!(caller.next().await.unwrap().last);
            }
            // 8 MiB of plain bytes are allowed, and one more is not.
            let largest = |over: usize| {
                let mut plain = batch(4);
                let filler = limits::GRPC_MESSAGE_BYTES_MAX - plain.len() - 5 + over;
                prost::encoding::bytes::encode(99, &vec![0u8; filler - 1], &mut plain);
                plain
            };
            let plain = largest(0);
            assert_eq!(plain.len(), limits::GRPC_MESSAGE_BYTES_MAX);
            caller.push_bytes(pack(&plain)).await;
            assert!(caller.next().await.unwrap().last);
            caller.push_bytes(pack(&largest(1))).await;
            assert_eq!(
                caller.status().await,
                (8, "grpc: message after decompression larger than max (8388608)".to_owned())
            );
            let garbage = Bytes::from_static(b"\x01\0\0\0\x03abc");
            let table = [
                (GZIP, garbage.clone(), 13, "grpc: failed to decompress the received message: not gzip"),
                (&[], garbage, 13, "grpc: compressed flag set with identity or empty encoding"),
                (GZIP, Bytes::from_static(b"\x02\0\0\0\0"), 13, "grpc: received unexpected payload format 2"),
            ];
            for (headers, bytes, code, text) in table {
                let mut caller = Caller::start(&mut sender, headers).await;
                caller.push_bytes(bytes).await;
                assert_eq!(caller.status().await, (code, text.to_owned()));
            }
        });
    });
}
