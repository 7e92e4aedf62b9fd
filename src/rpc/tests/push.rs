//! `pinion.v1.Push` as a well-behaved caller sees it.

use super::raw::connect;
use super::streaming::*;
use super::*;
use crate::hub::mail::{Audience, Report, Totals, Who};
use crate::pb::pinion::v1::{self as pb, AllLocalUsers, Outcome, PushMessage, PushVerdicts};
use crate::shard::thread::block_on;
use pb::push_message::To as PbTo;

/// Users of both shards, two of the first.
fn users() -> [String; 3] {
    let ownership = Ownership::new([1, 2], SHARDS);
    let of = |shard: u16, nth: usize| {
        let mut users = (0..).map(|n| format!("u{n}")).filter(|u| ownership.owner(u) == ShardId(shard));
        users.nth(nth).unwrap()
    };
    [of(0, 0), of(0, 1), of(1, 0)]
}

fn device(outcome: Outcome, platform: Platform) -> pb::DeviceVerdict {
    pb::DeviceVerdict {
        platform_id: platform.id(),
        connection_id: Bytes::from_static(&[7; 16]),
        outcome: outcome.into(),
    }
}

fn user(user_id: &str, devices: Vec<pb::DeviceVerdict>, outcome: Outcome) -> pb::UserVerdict {
    pb::UserVerdict { user_id: user_id.to_owned(), devices, outcome: outcome.into(), ..Default::default() }
}

#[test]
fn a_stream_answers_each_message_and_ends_with_ok_after_the_half_close() {
    on_each_driver(Shards::Answer, |node| {
        block_on(DriverKind::Epoll, |_| async {
            let mut sender = connect(node.grpc).await;
            let mut caller = Caller::start(&mut sender, &[]).await;
            let ids: Vec<u64> = (0..600).collect();
            // Several batches in one piece, and more messages than may be in hand.
            let batches = ids.chunks(200).map(|ids| ids.iter().map(|id| message(*id, &["on1", "off"])));
            let bytes: Vec<u8> = batches.flat_map(|b| framed(b.collect())).collect();
            caller.push_bytes(bytes.into()).await;
            caller.half_close();
            let devices =
                || vec![device(Outcome::Queued, Platform::IOS), device(Outcome::Dropped, Platform::WEB)];
            let (mut said, mut lasts) = (std::collections::BTreeSet::new(), 0);
            while let Some(verdict) = caller.next().await {
                lasts += usize::from(verdict.last);
                for found in verdict.users {
                    let expected = match &*found.user_id {
                        "on1" => user("on1", devices(), Outcome::Unspecified),
                        _ => user("off", Vec::new(), Outcome::NotHere),
                    };
                    assert_eq!(found, expected);
                    assert!(said.insert((verdict.id, found.user_id)));
                }
            }
            assert_eq!((said.len(), lasts), (2 * ids.len(), ids.len()));
            assert_eq!(caller.status().await, (0, String::new()));
        });
        node.await_count(Metric::RpcStreamOk, 1);
        node.await_count(Metric::RpcStreamWaitsHand, 1);
    });
}

#[test]
fn messages_of_a_stream_reach_each_shard_in_order_with_their_options_and_their_bytes() {
    on_each_driver(Shards::Absent, |node| {
        block_on(DriverKind::Epoll, |_| async {
            let [a, _, c] = users();
            let mut sender = connect(node.grpc).await;
            let mut caller = Caller::start(&mut sender, &[]).await;
            let plain = PushMessage { operation_id: "op1".into(), ..message(1, &[&a, &c]) };
            let optioned = PushMessage {
                only_if_online: true,
                expire_after_ms: 30_000,
                report: pb::Report::Totals.into(),
                ..message(2, &[&a])
            };
            caller.push(vec![plain.clone(), optioned]).await;
            caller.push(vec![message(3, &[&a])]).await;
            let mails = [node.taken(0).await, node.taken(0).await, node.taken(0).await];
            let other = node.taken(1).await;
            assert!(mails.iter().chain([&other]).all(|m| m.source == other.source), "one source");
            assert_eq!(mails[0].ticket, other.ticket);
            assert_eq!(mails[0].body.msg_data, plain.msg_data);
            assert_eq!((&*mails[0].body.operation_id, &*mails[0].body.conversation), ("op1", "si_on1_u9"));
            assert_eq!((mails[0].rules.report, mails[0].rules.expires), (Report::Each, None));
            let rules = mails[1].rules;
            let expires = rules.expires.unwrap();
            assert!(rules.only_if_online && rules.report == Report::Totals);
            assert!(mails[1].deadline >= expires, "a message that may wait so long has its verdict then");
            assert!(expires > mails[0].deadline && mails[0].deadline > clock::now().mono);
            assert_eq!(mails[2].audience.listed()[0].user.as_str(), a);
            caller.outgoing.send_reset(h2::Reason::CANCEL);
            assert_eq!(Some(node.cancelled(ShardId(1)).await), other.ticket);
        });
        node.await_count(Metric::RpcCancelled, 1);
    });
}

#[test]
fn verdicts_come_in_parts_and_the_last_one_has_the_sums_of_all_shards() {
    on_each_driver(Shards::Absent, |node| {
        block_on(DriverKind::Epoll, |_| async {
            let [a, b, c] = users();
            let mut sender = connect(node.grpc).await;
            let mut caller = Caller::start(&mut sender, &[]).await;
            caller.push(vec![message(9, &[&c, &a, &b])]).await;
            let (first, second) = (node.taken(0).await, node.taken(1).await);
            let ticket = first.ticket.unwrap();
            let slots: Vec<u32> = first.audience.listed().iter().map(|r| r.slot).collect();
            assert_eq!(slots, [1, 2]);

            let part = PushPart { verdicts: vec![written(2)], ..PushPart::default() };
            node.say(ShardId(0), ticket, part);
            let on_web = || vec![device(Outcome::Written, Platform::WEB)];
            let verdict = caller.next().await.unwrap();
            assert_eq!(verdict.users, [user(&b, on_web(), Outcome::Unspecified)]);
            assert_eq!((verdict.id, verdict.last, verdict.totals), (9, false, None));

            let expired = RecipientVerdict { expired: true, ..RecipientVerdict::of_slot(1, Vec::new()) };
            let totals = Totals { users: 2, written: 1, expired: 1, ..Totals::default() };
            node.say(ShardId(0), ticket, PushPart { verdicts: vec![expired], totals, last: true });
            let verdict = caller.next().await.unwrap();
            assert_eq!(verdict.users, [user(&a, Vec::new(), Outcome::Expired)]);
            assert!(!verdict.last);

            node.say_written(ShardId(1), &second);
            let verdict = caller.next().await.unwrap();
            assert_eq!(verdict.users, [user(&c, on_web(), Outcome::Unspecified)]);
            let totals = pb::Totals { users: 3, written: 2, expired: 1, ..pb::Totals::default() };
            assert_eq!((verdict.last, verdict.totals), (true, Some(totals)));
            caller.half_close();
            assert_eq!(caller.status().await.0, 0);
        });
    });
}

#[test]
fn a_message_to_everybody_goes_to_all_shards_and_names_whom_it_reached() {
    on_each_driver(Shards::Absent, |node| {
        block_on(DriverKind::Epoll, |_| async {
            let mut sender = connect(node.grpc).await;
            let mut caller = Caller::start(&mut sender, &[]).await;
            let to = Some(PbTo::AllLocalUsers(AllLocalUsers {}));
            let totals = pb::Report::Totals.into();
            caller.push(vec![PushMessage { to: to.clone(), ..message(1, &[]) }]).await;
            caller.push(vec![PushMessage { to, report: totals, ..message(2, &[]) }]).await;
            for (shard, name) in [(0, "x"), (1, "y")] {
                let mail = node.taken(shard).await;
                assert_eq!(mail.audience, Audience::Everybody);
                let verdict = RecipientVerdict { who: Who::User(name.into()), ..written(0) };
                let totals = Totals { users: 1, written: 1, ..Totals::default() };
                let ticket = mail.ticket.unwrap();
                node.say(ShardId(shard), ticket, PushPart { verdicts: vec![verdict], totals, last: true });
            }
            let (x, y) = (caller.next().await.unwrap(), caller.next().await.unwrap());
            assert_eq!((x.users[0].user_id.as_str(), y.users[0].user_id.as_str()), ("x", "y"));
            assert_eq!((x.last, y.last, y.totals.map(|t| t.written)), (false, true, Some(2)));

            for shard in [0, 1] {
                let mail = node.taken(shard).await;
                let totals = Totals { users: 5, queued: 4, too_large: 1, ..Totals::default() };
                let part = PushPart { verdicts: Vec::new(), totals, last: true };
                node.say(ShardId(shard), mail.ticket.unwrap(), part);
            }
            let verdict = caller.next().await.unwrap();
            let totals = pb::Totals { users: 10, queued: 8, too_large: 2, ..pb::Totals::default() };
            assert_eq!((verdict.users, verdict.last, verdict.totals), (Vec::new(), true, Some(totals)));
        });
    });
}

#[test]
fn verdicts_that_are_ready_together_leave_together_and_long_ones_are_split() {
    on_each_driver(Shards::Answer, |node| {
        block_on(DriverKind::Epoll, |_| async {
            let names: Vec<String> = (0..40_000).map(|n| format!("on{n:098}")).collect();
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            let mut sender = connect(node.grpc).await;
            let mut caller = Caller::start(&mut sender, &[]).await;
            caller.push(vec![message(1, &names), message(2, &["on1"])]).await;
            caller.half_close();
            let (mut seen, mut messages, mut lasts) = (Vec::new(), 0, Vec::new());
            while let Some(message) = caller.next_message().await {
                messages += 1;
                assert!(message.encoded_len() < 2 * limits::PUSH_VERDICTS_BYTES);
                for verdict in message.verdicts {
                    seen.extend(verdict.users.into_iter().map(|u| u.user_id).filter(|_| verdict.id == 1));
                    lasts.extend(verdict.last.then_some(verdict.id));
                }
            }
            assert!((6..30).contains(&messages), "{messages}");
            seen.sort();
            assert!(seen == names);
            lasts.sort_unstable();
            assert_eq!(lasts, [1, 2]);
        });
    });
}

#[test]
fn large_frames_are_built_once_for_all_shards_and_only_as_connections_need_them() {
    on_each_driver(Shards::Absent, |node| {
        block_on(DriverKind::Epoll, |_| async {
            let [a, _, c] = users();
            let sized = |id, bytes: usize| {
                let content: Vec<u8> = (0..bytes).map(|_| fastrand::u8(..)).collect();
                let mut data = message(id, &[]).msg_data.to_vec();
                prost::encoding::bytes::encode(12, &content, &mut data);
                PushMessage { msg_data: data.into(), ..message(id, &[&a, &c]) }
            };
            let mut sender = connect(node.grpc).await;
            let mut caller = Caller::start(&mut sender, &[]).await;
            caller.push(vec![sized(1, 100_000), sized(2, 1_000), sized(3, 2_000_000)]).await;
            let frames_of = async |bytes: usize| {
                let (first, second) = (node.taken(0).await, node.taken(1).await);
                assert!(first.body.msg_data.len() > bytes && first.body.msg_data.len() < bytes + 100);
                let (first, second) = (first.body.frames, second.body.frames);
                assert_eq!(first.as_ref().map(Arc::as_ptr), second.as_ref().map(Arc::as_ptr), "built twice");
                first.map(|frames| frames.each_ref().map(|f| f.as_ref().map_or(0, Bytes::len)))
            };
            // Gob, gob with gzip, JSON, JSON with gzip: this node has connections of the first and the last.
            let [gob, none, nothing, json_gzip] = frames_of(100_000).await.unwrap();
            assert_eq!((none, nothing), (0, 0));
            assert!((100_000..100_500).contains(&gob) && (90_000..140_000).contains(&json_gzip));
            assert_eq!(frames_of(1_000).await, None, "a small one is built by its shard");
            let over =
                limits::FRAME_SENT_BYTES_MAX..limits::FRAME_SENT_BYTES_MAX + 4 * limits::SHARED_STEP_BYTES;
            let [gob, _, _, json_gzip] = frames_of(2_000_000).await.unwrap();
            assert!(over.contains(&gob) && over.contains(&json_gzip), "{gob} {json_gzip}");
        });
        node.await_count(Metric::SharedEncodes, 4);
    });
}

/// A unary call, with or without compression.
fn send(node: &Node, metadata: &[(&str, &str)], message: Vec<u8>, ms: u64) -> Result<PushVerdicts, Status> {
    match call_once(node.grpc, SEND, metadata, message.into(), ms) {
        Ok(answer) => Ok(PushVerdicts::decode(answer).unwrap()),
        Err(CallError::Refused(status)) => Err(status),
        Err(other) => panic!("{other}"),
    }
}

#[test]
fn send_answers_one_verdict_per_message_in_their_order() {
    on_each_driver(Shards::Answer, |node| {
        let messages: Vec<_> = (0..1_024).map(|id| message(1_000 - id % 7, &["on1", "off", "on2"])).collect();
        let ids: Vec<u64> = messages.iter().map(|m| m.id).collect();
        let batch = pb::PushBatch { messages }.encode_to_vec();
        let answer = send(node, &[], batch, 60_000).unwrap();
        assert!(answer.verdicts.iter().map(|v| v.id).eq(ids));
        assert!(answer.verdicts.iter().all(|v| v.last && v.users.len() == 3 && v.totals.is_some()));

        let broken = pb::PushBatch { messages: vec![message(1, &["on1"]), message(2, &[])] };
        let refused = send(node, &[], broken.encode_to_vec(), 60_000).unwrap_err();
        assert_eq!(refused, Status::new(3, "messages[1] (id 2): users is empty"));
        node.await_count(Metric::RpcSendOk, 1);
        node.await_count(Metric::RpcSendError, 1);
    });
}

#[test]
fn send_answers_before_the_callers_deadline_with_what_is_known() {
    on_each_driver(Shards::Mute, |node| {
        let batch = pb::PushBatch { messages: vec![message(5, &["a", "b"]), message(6, &["c"])] };
        let answer = send(node, &[], batch.encode_to_vec(), 1_000).unwrap();
        let missing = |name| user(name, Vec::new(), Outcome::NotReached);
        assert_eq!(answer.verdicts[0].users, [missing("a"), missing("b")]);
        assert_eq!(answer.verdicts[1].users, [missing("c")]);
        assert!(answer.verdicts.iter().all(|v| v.last));
        assert_eq!(answer.verdicts[0].totals.map(|t| t.not_reached), Some(2));
        node.await_count(Metric::PushNotReached, 3);
    });
}

#[test]
fn verdicts_that_do_not_fit_one_answer_end_send_with_resource_exhausted() {
    on_each_driver(Shards::Answer, |node| {
        let names: Vec<String> = (0..100_000).map(|n| format!("on{n:066}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let send = |report: pb::Report| {
            let messages = vec![PushMessage { report: report.into(), ..message(1, &names) }];
            send(node, &[], pb::PushBatch { messages }.encode_to_vec(), 60_000)
        };
        assert_eq!(send(pb::Report::Each).map_err(|s| s.code), Err(8));
        // The next one is unaffected.
        let few = pb::PushBatch { messages: vec![message(1, &["on1"])] };
        assert!(super::push::send(node, &[], few.encode_to_vec(), 60_000).is_ok());
    });
}
