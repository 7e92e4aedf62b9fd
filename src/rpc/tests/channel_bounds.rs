//! The bounds of a channel: streams, calls, those that wait, bytes, the size of a message.

use super::channel::*;
use super::*;
use crate::limits::GRPC_MESSAGE_BYTES_MAX;
use crate::rpc::channel::{Call, ChannelLimits};
use crate::wire::grpc::CallFault;

fn with_bytes(path: &'static str, bytes: usize) -> Call {
    Call { message: vec![b'x'; bytes].into(), ..call_to(path) }
}

#[test]
fn no_more_calls_are_open_than_the_peer_allows_and_the_rest_waits_its_turn() {
    // What the peer allows, and what we use of it: nine tenths, at least one.
    for (streams, used) in [(1, 1), (2, 1), (10, 9)] {
        on_each(|turns| async move {
            let (server, address) = upstream(streams);
            let channel = channel(turns, LIMITS, &[address]);
            let held: Vec<_> = (0..used).map(|_| start(&channel, call_to(HOLD))).collect();
            until("the connection is full", || server.seen() == used).await;
            let waiting: Vec<_> = (0..20).map(|_| start(&channel, call_to(ECHO))).collect();
            until("the rest waits", || channel.counts().waiting == 20).await;
            server.released.set(true);
            for call in held.into_iter().chain(waiting) {
                assert_eq!(call.await, Ok(Bytes::from_static(b"hello")), "{streams}");
            }
            assert!(server.calls_most.get() <= used, "{} of {used}", server.calls_most.get());
            let counts = channel.counts();
            assert_eq!((counts.retries, counts.waiting, counts.in_flight), (0, 0, 0), "none was refused");
            assert_eq!((counts.answered, server.accepted.get()), (used as u64 + 20, 1));
        });
    }
}

#[test]
fn our_own_limit_of_streams_holds_where_the_peer_has_none() {
    on_each(|turns| async move {
        let (server, address) = upstream(u32::MAX);
        let channel = channel(turns, ChannelLimits { streams_max: 3, ..LIMITS }, &[address]);
        let calls: Vec<_> = (0..9).map(|_| start(&channel, call_to(HOLD))).collect();
        until("three are open", || server.seen() == 3 && channel.counts().waiting == 6).await;
        server.released.set(true);
        for call in calls {
            assert!(call.await.is_ok());
        }
        assert_eq!(server.calls_most.get(), 3);
    });
}

#[test]
fn calls_and_those_that_wait_are_refused_at_once_above_their_limits() {
    on_each(|turns| async move {
        let (server, address) = upstream(1);
        let limits = ChannelLimits { calls_max: 4, waiting_max: 2, ..LIMITS };
        let channel = channel(turns, limits, &[address]);
        let mut calls = vec![start(&channel, call_to(HOLD))];
        until("one is open", || server.seen() == 1).await;
        calls.extend((0..2).map(|_| start(&channel, call_to(ECHO))));
        until("two wait", || channel.counts().waiting == 2).await;
        assert_eq!(channel.call(call_to(ECHO)).await, Err(CallFault::Overloaded), "no place to wait");
        // One that waits leaves at its deadline, and its place is free.
        let late = channel.counts().deadlines;
        assert_eq!(late, 0);
        server.released.set(true);
        for call in calls.drain(..) {
            assert!(call.await.is_ok());
        }
        server.released.set(false);

        let (second, other) = upstream(100);
        channel.set_endpoints(&[other]);
        until("it is ready", || channel.counts().ready == 1).await;
        calls.extend((0..4).map(|_| start(&channel, call_to(HOLD))));
        until("four are open", || second.seen() == 4).await;
        assert_eq!(channel.call(call_to(ECHO)).await, Err(CallFault::Overloaded), "a fifth");
        second.released.set(true);
        for call in calls {
            assert!(call.await.is_ok());
        }
        assert!(channel.call(call_to(ECHO)).await.is_ok());
        assert_eq!((channel.counts().overloaded, channel.counts().in_flight), (2, 0));
    });
}

#[test]
fn a_call_that_waits_leaves_at_its_deadline_or_when_it_is_dropped() {
    on_each(|turns| async move {
        let (server, address) = upstream(1);
        let channel = channel(turns, LIMITS, &[address]);
        let held = start(&channel, call_to(HOLD));
        until("one is open", || server.seen() == 1).await;
        let late = channel.call(Call { deadline: in_ms(30), ..call_to(ECHO) }).await;
        assert_eq!((late, channel.counts().waiting), (Err(CallFault::Deadline), 0));
        let dropped =
            monoio::time::timeout(std::time::Duration::from_millis(30), channel.call(call_to(ECHO)));
        assert!(dropped.await.is_err());
        assert_eq!((channel.counts().waiting, channel.counts().cancelled), (0, 1));
        server.released.set(true);
        assert!(held.await.is_ok());
        assert!(channel.call(call_to(ECHO)).await.is_ok());
        assert_eq!((server.seen(), channel.counts().breaker_opens), (2, 0), "the instance is not to blame");
    });
}

#[test]
fn messages_of_the_greatest_size_pass_both_ways_and_greater_ones_do_not() {
    on_each(|turns| async move {
        let (server, address) = upstream(100);
        let channel = channel(turns, LIMITS, &[address]);
        let call = with_bytes(ECHO, GRPC_MESSAGE_BYTES_MAX);
        let sent = call.message.clone();
        assert!(channel.call(call).await == Ok(sent), "it comes back whole");
        let seen = server.seen();
        for (path, bytes) in [(ECHO, GRPC_MESSAGE_BYTES_MAX + 1), (HUGE, 1)] {
            match channel.call(with_bytes(path, bytes)).await {
                Err(CallFault::Status(status)) => assert_eq!(status.code, 8, "{path}: {status:?}"),
                other => panic!("{path}: {:?}", other.map(|message| message.len())),
            }
        }
        assert_eq!(server.seen(), seen + 1, "only the small request was sent");
        assert!(channel.call(call_to(ECHO)).await.is_ok());
        assert_eq!((channel.counts().held_bytes, server.accepted.get()), (0, 1));
    });
}

#[test]
fn what_calls_hold_together_is_bounded_on_the_way_out_and_back() {
    on_each(|turns| async move {
        let (server, address) = upstream(100);
        let channel = channel(turns, ChannelLimits { held_bytes: 1_000, ..LIMITS }, &[address]);
        let held = start(&channel, with_bytes(HOLD, 400));
        until("it is open", || server.seen() == 1).await;
        assert_eq!(channel.counts().held_bytes, 400);
        assert_eq!(
            channel.call(with_bytes(ECHO, 601)).await,
            Err(CallFault::Overloaded),
            "a request too much"
        );
        assert_eq!(server.seen(), 1, "it is not sent");
        assert_eq!(
            channel.call(with_bytes(ECHO, 300)).await,
            Err(CallFault::Overloaded),
            "an answer too much"
        );
        // Its answer has a prefix of five bytes.
        assert!(channel.call(with_bytes(ECHO, 297)).await.is_ok());
        server.released.set(true);
        assert!(held.await.is_ok());
        assert_eq!(channel.counts().held_bytes, 0);
    });
}
