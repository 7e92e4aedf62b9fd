//! The connections of a channel: made, kept alive, drained, made again.

use std::cell::Cell;
use std::net::{SocketAddr, TcpListener};
use std::rc::Rc;

use rustix::net::{AddressFamily, SocketType, bind, listen, socket};

use super::channel::*;
use super::*;
use crate::rpc::channel::ChannelLimits;
use crate::wire::grpc::CallFault;

#[test]
fn a_connection_that_is_told_to_go_finishes_its_calls_while_new_ones_go_to_the_next() {
    on_each(|turns| async move {
        let (server, address) = upstream(100);
        let channel = channel(turns, LIMITS, &[address]);
        let held: Vec<_> = (0..3).map(|_| start(&channel, call_to(HOLD))).collect();
        until("all are open", || server.seen() == 3).await;
        server.order(Order::GoAway);
        until("the next connection is there", || channel.counts().connects == 2).await;
        for _ in 0..5 {
            assert!(channel.call(call_to(ECHO)).await.is_ok());
        }
        assert_eq!((server.open.get(), channel.counts().connections), (2, 2));
        server.released.set(true);
        for call in held {
            assert!(call.await.is_ok());
        }
        until("the old one is closed", || server.open.get() == 1 && channel.counts().connections == 1).await;
        assert_eq!((channel.counts().unavailable, channel.counts().retries), (0, 0));
    });
}

#[test]
fn calls_go_on_while_servers_tell_their_connections_to_go_again_and_again() {
    on_each(|turns| async move {
        let ((first, a), (second, b)) = (upstream(100), upstream(100));
        let channel = channel(turns, LIMITS, &[a, b]);
        let callers: Vec<_> = (0..4)
            .map(|_| {
                let channel = Rc::clone(&channel);
                monoio::spawn(async move {
                    for _ in 0..100 {
                        assert_eq!(channel.call(call_to(ECHO)).await, Ok(Bytes::from_static(b"hello")));
                    }
                })
            })
            .collect();
        for round in 0..6 {
            let seen = first.seen() + second.seen();
            until("some calls", || {
                first.seen() + second.seen() >= seen + 20 || channel.counts().answered == 400
            })
            .await;
            [&first, &second][round % 2].order(Order::GoAway);
        }
        for caller in callers {
            caller.await;
        }
        assert_eq!(channel.counts().answered, 400);
    });
}

#[test]
fn endpoints_are_replaced_under_load_without_losing_a_call() {
    on_each(|turns| async move {
        let servers: Vec<_> = (0..3).map(|_| upstream(100)).collect();
        let at = |n: usize| servers[n].1;
        let channel = channel(turns, LIMITS, &[at(0), at(1)]);
        let stop = Rc::new(Cell::new(false));
        let callers: Vec<_> = (0..8)
            .map(|_| {
                let (channel, stop) = (Rc::clone(&channel), Rc::clone(&stop));
                monoio::spawn(async move {
                    let mut calls = 0u64;
                    while !stop.get() {
                        assert_eq!(channel.call(call_to(ECHO)).await, Ok(Bytes::from_static(b"hello")));
                        calls += 1;
                    }
                    calls
                })
            })
            .collect();
        let held = start(&channel, call_to(HOLD));
        let snapshots: [&[SocketAddr]; 6] =
            [&[at(1), at(2)], &[at(2)], &[at(0), at(2)], &[at(0)], &[at(0), at(1), at(2)], &[at(2)]];
        for snapshot in snapshots {
            let before = channel.counts().answered;
            channel.set_endpoints(snapshot);
            until("calls go on", || channel.counts().answered >= before + 50).await;
        }
        stop.set(true);
        let mut calls = 0;
        for caller in callers {
            calls += caller.await;
        }
        servers.iter().for_each(|(server, _)| server.released.set(true));
        assert!(held.await.is_ok(), "its instance is long gone");
        let counts = channel.counts();
        assert_eq!((counts.answered, counts.retries, counts.instances), (calls + 1, 0, 1));
        until("only the last is connected", || {
            servers.iter().map(|(server, _)| server.open.get()).eq([0, 0, 1])
        })
        .await;
    });
}

#[test]
fn an_instance_that_is_gone_gets_no_new_call_and_those_who_wait_hear_that_nobody_is_left() {
    on_each(|turns| async move {
        let (server, address) = upstream(1);
        let channel = channel(turns, LIMITS, &[address]);
        let held = start(&channel, call_to(HOLD));
        until("one is open", || server.seen() == 1).await;
        let waiting: Vec<_> = (0..3).map(|_| start(&channel, call_to(ECHO))).collect();
        until("three wait", || channel.counts().waiting == 3).await;
        channel.set_endpoints(&[]);
        for call in waiting {
            assert!(text_of(call.await).ends_with("no instance is known"));
        }
        text_of(channel.call(call_to(ECHO)).await);
        server.released.set(true);
        assert!(held.await.is_ok());
        until("it is closed", || server.open.get() == 0 && channel.counts().connections == 0).await;
        assert_eq!(server.seen(), 1);
    });
}

#[test]
fn a_dead_connection_is_noticed_by_its_silence_and_replaced() {
    on_each(|turns| async move {
        let (server, address) = upstream(100);
        let limits = ChannelLimits { ping_after_ms: 20, ping_ms: 50, ..LIMITS };
        let channel = channel(turns, limits, &[address]);
        until("it is ready", || channel.counts().ready == 1).await;
        // Frozen from its call on: it reads no frame any more, so it answers no PING.
        let text = text_of(channel.call(call_to(FREEZE)).await);
        assert!(text.contains("no answer to a PING within 50 ms"), "{text}");
        until("the next connection", || server.accepted.get() >= 2).await;
        until("it is ready", || channel.counts().ready == 1).await;
        assert!(channel.counts().pings >= 1);
    });
}

#[test]
fn a_server_that_takes_its_time_is_pinged_and_kept_and_an_idle_one_is_left_in_peace() {
    on_each(|turns| async move {
        let (server, address) = upstream(100);
        let limits = ChannelLimits { ping_after_ms: 5, ping_ms: PATIENCE_MS, ..LIMITS };
        let channel = channel(turns, limits, &[address]);
        let held = start(&channel, call_to(HOLD));
        // The next PING goes out only when the one before is answered.
        until("three PINGs", || channel.counts().pings >= 3).await;
        server.released.set(true);
        assert!(held.await.is_ok());
        let pings = channel.counts().pings;
        monoio::time::sleep(std::time::Duration::from_millis(50)).await;
        assert_eq!(channel.counts().pings, pings, "no call is open");
        assert_eq!((server.accepted.get(), channel.counts().connects), (1, 1));
    });
}

#[test]
fn an_instance_that_comes_up_late_is_found_and_until_then_calls_fail_with_the_cause() {
    on_each(|turns| async move {
        // Bound, so that the port is ours, but not listening: refused.
        let down = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
        bind(&down, &"127.0.0.1:0".parse::<SocketAddr>().unwrap()).unwrap();
        let down = TcpListener::from(down);
        let address = down.local_addr().unwrap();
        let channel = channel(turns, LIMITS, &[address]);
        for _ in 0..3 {
            let text = text_of(channel.call(call_to(ECHO)).await);
            assert!(text.contains(&format!("{SERVICE}: no instance can be asked; {address}")), "{text}");
            assert!(text.contains("refused"), "{text}");
        }
        until("it is tried again and again", || channel.counts().connect_failures >= 4).await;
        listen(&down, 16).unwrap();
        let (server, _) = serve_on(down, 100);
        until("it is found", || channel.counts().ready == 1).await;
        assert!(channel.call(call_to(ECHO)).await.is_ok());
        assert_eq!(server.accepted.get(), 1);
    });
}

#[test]
fn after_a_good_connection_the_next_is_made_at_once() {
    // From when on a connection is good by its age, and the calls it answers: both rows make it good.
    for (steady_ms, answers) in [(0, 0), (u64::MAX, 1)] {
        on_each(|turns| async move {
            let (server, address) = upstream(100);
            let (backoff_least_ms, backoff_ms) = (10 * PATIENCE_MS, 10 * PATIENCE_MS);
            let limits = ChannelLimits { steady_ms, backoff_least_ms, backoff_ms, ..LIMITS };
            let channel = channel(turns, limits, &[address]);
            for connection in 1..4 {
                until("it is connected", || server.accepted.get() == connection).await;
                until("it is ready", || channel.counts().ready == 1).await;
                for _ in 0..answers {
                    assert!(channel.call(call_to(ECHO)).await.is_ok());
                }
                server.order(Order::Break);
            }
        });
    }
}

#[test]
fn no_more_instances_are_taken_than_the_limit() {
    on_each(|turns| async move {
        // Nobody listens there: what this machine has of 127.0.0.0/8, at a port of ours that is closed again.
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let addresses: Vec<SocketAddr> =
            (0..2).flat_map(|c| (0..=255).map(move |d| SocketAddr::from(([127, 9, c, d], port)))).collect();
        let channel = channel(turns, LIMITS, &addresses[..=limits::CHANNEL_INSTANCES_MAX]);
        assert_eq!(channel.counts().instances, limits::CHANNEL_INSTANCES_MAX);
        channel.set_endpoints(&addresses[1..=limits::CHANNEL_INSTANCES_MAX]);
        assert_eq!(channel.counts().instances, limits::CHANNEL_INSTANCES_MAX);
        text_of(channel.call(call_to(ECHO)).await);
    });
}

#[test]
fn a_call_refused_by_goaway_goes_to_another_instance() {
    on_each(|turns| async move {
        // It says GOAWAY with last stream 0 to whoever calls it.
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let leaving = listener.local_addr().unwrap();
        let peer = std::thread::Builder::new().spawn(move || {
            use std::io::{Read, Write};
            let (mut stream, _) = listener.accept().unwrap();
            drop(listener);
            stream.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).unwrap();
            let (mut read, mut heads) = (Vec::new(), 0);
            // HEADERS of the call.
            while heads == 0 {
                let mut some = [0; 4_096];
                let n = stream.read(&mut some).unwrap();
                assert!(n > 0, "it hung up");
                read.extend_from_slice(&some[..n]);
                let mut walker = crate::wire::h2::Walker::before_preface();
                walker.walk(&read, |head| heads += usize::from(head.kind == crate::wire::h2::kind::HEADERS));
            }
            stream.write_all(&[0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]).unwrap();
            stream.read_to_end(&mut read).unwrap_or_default();
        });
        let (server, address) = upstream(100);
        let channel = channel(turns, LIMITS, &[leaving, address]);
        until("both are ready", || channel.counts().ready == 2).await;
        for _ in 0..3 {
            assert!(channel.call(call_to(ECHO)).await.is_ok(), "though it must not be carried out twice");
        }
        assert_eq!((server.seen(), channel.counts().retries), (3, 1));
        peer.unwrap().join().unwrap();
        let late = channel.call(crate::rpc::channel::Call { deadline: Mono(1), ..call_to(ECHO) }).await;
        assert_eq!(late, Err(CallFault::Deadline));
    });
}
