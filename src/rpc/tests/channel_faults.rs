//! A channel whose instances refuse, break, hang or misbehave: what is tried again, and who is left alone.

use std::io::{Read, Write};
use std::net::TcpStream;

use super::channel::*;
use super::*;
use crate::rpc::channel::{Call, ChannelLimits};
use crate::wire::grpc::{CallFault, Retry};

#[test]
fn a_refused_call_is_tried_once_more_elsewhere_even_if_it_must_not_be_carried_out_twice() {
    on_each(|turns| async move {
        let ((first, a), (second, b)) = (upstream(100), upstream(100));
        let channel = channel(turns, LIMITS, &[a, b]);
        until("both are ready", || channel.counts().ready == 2).await;
        first.refuse.set(1);
        second.refuse.set(1);
        assert!(text_of(channel.call(call_to(ECHO)).await).starts_with(SERVICE), "refused by both");
        assert_eq!((first.seen(), second.seen(), channel.counts().retries), (1, 1, 1), "and no third time");
        first.refuse.set(1);
        second.refuse.set(0);
        assert!(channel.call(call_to(ECHO)).await.is_ok());
        assert!(channel.call(call_to(ECHO)).await.is_ok());
        assert_eq!((first.refuse.get(), channel.counts().retries, channel.counts().breaker_opens), (0, 2, 0));
    });
}

#[test]
fn a_single_instance_that_refused_is_asked_again() {
    on_each(|turns| async move {
        let (server, address) = upstream(100);
        let channel = channel(turns, LIMITS, &[address]);
        server.refuse.set(1);
        assert!(channel.call(call_to(ECHO)).await.is_ok());
        assert_eq!((server.seen(), server.accepted.get()), (2, 1));
    });
}

#[test]
fn after_a_broken_connection_only_a_safe_call_is_tried_again_and_only_once() {
    // Instances that break off, and attempts and outcome of a call of each kind.
    for (breaking, retry, attempts, answered) in
        [(1, Retry::Safe, 2, true), (1, Retry::Never, 1, false), (3, Retry::Safe, 2, false)]
    {
        on_each(|turns| async move {
            let servers: Vec<_> = (0..3).map(|_| upstream(100)).collect();
            let addresses: Vec<_> = servers.iter().map(|(_, address)| *address).collect();
            let channel = channel(turns, LIMITS, &addresses);
            until("all are ready", || channel.counts().ready == 3).await;
            servers.iter().take(breaking).for_each(|(server, _)| server.break_off.set(1));
            let result = channel.call(Call { retry, ..call_to(ECHO) }).await;
            let seen: usize = servers.iter().map(|(server, _)| server.seen()).sum();
            assert_eq!((result.is_ok(), seen), (answered, attempts), "{retry:?} {result:?}");
            if !answered {
                let text = text_of(result);
                assert!(text.starts_with(&format!("{SERVICE}: 127.0.0.1:")), "{text}");
            }
            let counts = channel.counts();
            assert_eq!((counts.retries, counts.unavailable), (attempts as u64 - 1, u64::from(!answered)));
            until("all are ready again", || channel.counts().ready == 3).await;
        });
    }
}

#[test]
fn all_calls_of_a_connection_that_breaks_fail_and_count_once_against_its_instance() {
    on_each(|turns| async move {
        let (server, address) = upstream(100);
        let limits = ChannelLimits { failures_max: 2, cool_down_ms: PATIENCE_MS, ..LIMITS };
        let channel = channel(turns, limits, &[address]);
        let calls: Vec<_> = (0..20).map(|_| start(&channel, call_to(HOLD))).collect();
        until("all are open", || server.seen() == 20).await;
        server.order(Order::Break);
        for call in calls {
            text_of(call.await);
        }
        assert_eq!(channel.counts().breaker_opens, 0, "as one failure");
        // The first short connection is forgiven: this one waits for the next.
        assert!(channel.call(call_to(ECHO)).await.is_ok());
        assert_eq!(server.accepted.get(), 2);
    });
}

#[test]
fn an_instance_that_hangs_is_left_alone_and_a_probe_brings_it_back() {
    on_each(|turns| async move {
        let (server, address) = upstream(100);
        let limits = ChannelLimits { failures_max: 3, cool_down_ms: 100, ..LIMITS };
        let channel = channel(turns, limits, &[address]);
        until("it is ready", || channel.counts().ready == 1).await;
        let start_at = clock::now().mono;
        while channel.counts().breaker_opens == 0 {
            let late = channel.call(Call { deadline: in_ms(20), ..call_to(HOLD) }).await;
            assert!(matches!(late, Err(CallFault::Deadline)), "{late:?}");
            assert!(clock::now().mono.since_ms(start_at) < PATIENCE_MS, "it never opens");
        }
        // The cool-down is over; the first one who comes is the probe, and the only one.
        until("it may be probed", || channel.counts().ready == 1).await;
        let seen = server.seen();
        let probe = start(&channel, call_to(HOLD));
        until("the probe came", || server.seen() == seen + 1).await;
        let text = text_of(channel.call(call_to(ECHO)).await);
        assert!(text.contains(SERVICE) && text.contains("its last 3 calls failed"), "{text}");
        assert_eq!(server.seen(), seen + 1, "nobody else is asked");
        server.released.set(true);
        assert!(probe.await.is_ok());
        for _ in 0..3 {
            assert!(channel.call(call_to(ECHO)).await.is_ok());
        }
        assert_eq!(server.accepted.get(), 1, "the connection was good all along");
    });
}

#[test]
fn calls_pass_by_an_instance_that_is_out() {
    on_each(|turns| async move {
        let ((bad, a), (good, b)) = (upstream(100), upstream(100));
        let limits = ChannelLimits { failures_max: 1, cool_down_ms: 2 * PATIENCE_MS, ..LIMITS };
        let channel = channel(turns, limits, &[a, b]);
        until("both are ready", || channel.counts().ready == 2).await;
        bad.break_off.set(1);
        text_of(channel.call(call_to(ECHO)).await);
        assert_eq!((channel.counts().breaker_opens, channel.counts().ready), (1, 1));
        for _ in 0..4 {
            assert!(channel.call(call_to(ECHO)).await.is_ok());
        }
        assert_eq!((bad.seen(), good.seen()), (1, 4));
        // A new snapshot without it and with it again is a new beginning.
        channel.set_endpoints(&[b]);
        channel.set_endpoints(&[a, b]);
        until("both are ready", || channel.counts().ready == 2).await;
    });
}

#[test]
fn without_instances_calls_fail_at_once_and_say_so() {
    on_each(|turns| async move {
        let channel = channel(turns, LIMITS, &[]);
        let text = text_of(channel.call(call_to(ECHO)).await);
        assert_eq!(text, "openim.test.Service: no instance is known");
        assert_eq!(channel.call(call_to(ECHO)).await.unwrap_err().into_status().code, 14);
    });
}

#[test]
fn an_instance_that_says_nothing_or_no_http2_is_given_up() {
    on_each(|turns| async move {
        let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let limits = ChannelLimits { connect_ms: 50, ..LIMITS };
        let mute = channel(turns.clone(), limits, &[silent.local_addr().unwrap()]);
        let text = text_of(mute.call(call_to(ECHO)).await);
        assert!(text.contains("no HTTP/2 connection within 50 ms"), "{text}");

        let web = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = web.local_addr().unwrap();
        let server = std::thread::Builder::new().spawn(move || {
            let (mut stream, _) = web.accept().unwrap();
            stream.write_all(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n").unwrap();
            stream.read_to_end(&mut Vec::new()).unwrap_or_default();
        });
        let channel = channel(turns, LIMITS, &[address]);
        let text = text_of(channel.call(call_to(ECHO)).await);
        assert!(text.contains(SERVICE), "{text}");
        drop(channel);
        server.unwrap().join().unwrap();
    });
}

/// A peer that says its SETTINGS and then what `after` writes for as long as it may; what comes in is thrown away.
fn raw_peer(after: &'static [u8]) -> (SocketAddr, std::thread::JoinHandle<()>) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let peer = std::thread::Builder::new().spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        drop(listener);
        let mut reader: TcpStream = stream.try_clone().unwrap();
        let reading = std::thread::Builder::new()
            .spawn(move || while matches!(reader.read(&mut [0; 65_536]), Ok(1..)) {});
        let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
        stream.write_all(&settings).unwrap();
        let many: Vec<u8> = after.iter().copied().cycle().take(after.len() * 1_000).collect();
        while stream.write_all(&many).is_ok() {}
        reading.unwrap().join().unwrap();
    });
    (address, peer.unwrap())
}

#[test]
fn a_peer_that_floods_is_cut_off_and_others_are_served_meanwhile() {
    const PING: &[u8] = b"\0\0\x08\x06\0\0\0\0\0........";
    const SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];
    const UNKNOWN: &[u8] = &[0, 0, 1, 0xbb, 0, 0, 0, 0, 0, 7];
    for frame in [PING, SETTINGS, UNKNOWN] {
        on_each(|turns| async move {
            let (good, address) = upstream(100);
            let (flooder, peer) = raw_peer(frame);
            let beside = channel(turns.clone(), LIMITS, &[address]);
            let flooded = channel(turns, LIMITS, &[flooder]);
            let call = start(&flooded, call_to(ECHO));
            while flooded.counts().connects + flooded.counts().connect_failures == 0 {
                assert!(beside.call(call_to(ECHO)).await.is_ok());
            }
            let text = text_of(call.await);
            assert!(text.contains("cut off for its conduct: ControlFrames"), "{text}");
            until("its connection is closed", || peer.is_finished()).await;
            assert!(beside.call(call_to(ECHO)).await.is_ok() && good.accepted.get() == 1);
            drop(flooded);
        });
    }
}

#[test]
fn a_peer_whose_headers_are_far_too_large_loses_its_connection() {
    on_each(|turns| async move {
        let (server, address) = upstream(100);
        let channel = channel(turns, LIMITS, &[address]);
        let message = Bytes::from_static(&[0; 200]);
        text_of(channel.call(Call { message, ..call_to(HEADERS) }).await);
        assert!(channel.call(call_to(ECHO)).await.is_ok());
        assert_eq!(server.accepted.get(), 2);
    });
}
