//! `pinion proxy` at its limits and at the end of pairs, with a member that does as the test says.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use rustix::net::sockopt::set_socket_linger;
use rustix::process::Signal;

use crate::harness::eventually;
use crate::harness::proxy::{Proxy, Puppet, SWITCH, head};

/// Writes until nothing is taken any more for a while and the proxy says that it has stopped reading.
fn fill(socket: &mut TcpStream, proxy: &Proxy, slow: &str) -> usize {
    socket.set_nonblocking(true).unwrap();
    let mut sent = 0;
    let block: Vec<u8> = (0..251).collect();
    eventually("a full pair", || {
        let before = sent;
        loop {
            let from = sent % block.len();
            match socket.write(&block[from..]) {
                Ok(n) => sent += n,
                Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                Err(e) => panic!("{e}"),
            }
            assert!(sent < 64 << 20, "nothing stops the writer");
        }
        let stopped = proxy.metrics().sum("pinion_proxy_stops_total", &[slow]) >= 1.0;
        (stopped && sent == before).then_some(())
    });
    socket.set_nonblocking(false).unwrap();
    sent
}

#[test]
fn a_slow_side_stops_the_other_and_holds_a_bounded_amount() {
    for relay in ["auto", "splice", "copy"] {
        let member = Puppet::new();
        let proxy = Proxy::start(&member.line("a"), &["--relay", relay, "--threads", "1"]);
        for slow in ["client", "member"] {
            let (client, socket) = member.pair(&proxy);
            let (mut reader, mut writer) = if slow == "client" { (client, socket) } else { (socket, client) };
            let sent = fill(&mut writer, &proxy, &format!("slow=\"{slow}\""));
            let held = proxy.metrics().sum("pinion_proxy_held_bytes", &[]);
            assert!((1.0..=65_536.0).contains(&held), "{relay}, {slow}: {held} held of {sent}");
            writer.shutdown(Shutdown::Write).unwrap();
            let mut all = Vec::new();
            reader.read_to_end(&mut all).unwrap();
            assert!(
                all.len() == sent && all.iter().zip((0..251).cycle()).all(|(a, b)| *a == b),
                "{relay}, {slow}"
            );
            proxy.until_level("held_bytes", 0.0);
            proxy.until_level("pipes", 0.0);
        }
        proxy.until_level("pairs", 0.0);
    }
}

#[test]
fn an_end_passes_on_and_the_other_way_stays_open() {
    let member = Puppet::new();
    let proxy = Proxy::start(&member.line("a"), &[]);
    let (mut client, mut socket) = member.pair(&proxy);
    client.write_all(b"last words").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    let mut heard = String::new();
    socket.read_to_string(&mut heard).unwrap();
    assert_eq!(heard, "last words");
    proxy.until_level("half_closed_pairs", 1.0);
    socket.write_all(b"answer").unwrap();
    drop(socket);
    heard.clear();
    client.read_to_string(&mut heard).unwrap();
    assert_eq!(heard, "answer");
    proxy.until("pairs_ended_total", "closed", 1.0);
    proxy.until_level("pairs", 0.0);
}

#[test]
fn a_half_that_moves_nothing_is_closed() {
    let member = Puppet::new();
    let proxy = Proxy::start(&member.line("a"), &["--half-closed-ms", "200"]);
    let (mut client, socket) = member.pair(&proxy);
    socket.shutdown(Shutdown::Write).unwrap();
    assert_eq!(client.read(&mut [0; 9]).unwrap(), 0);
    proxy.until("pairs_ended_total", "half_closed_too_long", 1.0);
    proxy.until_level("pairs", 0.0);
}

#[test]
fn a_reset_passes_on() {
    let member = Puppet::new();
    let proxy = Proxy::start(&member.line("a"), &[]);
    for by_client in [true, false] {
        let (client, socket) = member.pair(&proxy);
        let (breaks, mut sees) = if by_client { (client, socket) } else { (socket, client) };
        set_socket_linger(&breaks, Some(Duration::ZERO)).unwrap();
        drop(breaks);
        assert_eq!(sees.read(&mut [0; 9]).unwrap_err().kind(), ErrorKind::ConnectionReset);
    }
    proxy.until("pairs_ended_total", "reset", 2.0);
    proxy.until_level("pairs", 0.0);
}

#[test]
fn heads_are_bounded_in_bytes_and_time() {
    let member = Puppet::new();
    let proxy = Proxy::start(&member.line("a"), &["--head-ms", "300"]);
    for (bytes, status) in [
        (b"\x16\x03\x01 this is TLS".to_vec(), "400 Bad Request"),
        (format!("GET / HTTP/1.1\r\nX: {}", "x".repeat(16_384)).into_bytes(), "431 "),
        (b"GET / HT".to_vec(), "408 "),
    ] {
        let answer = proxy.exchange(&bytes);
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{answer}");
    }
    for outcome in ["bad_head", "head_too_long", "head_too_slow"] {
        proxy.until("handshakes_total", outcome, 1.0);
    }
    // One byte below the limit is still taken.
    let long = head("u").replace("Host: it", &format!("Host: {}", "x".repeat(16_384 - head("u").len() + 2)));
    assert_eq!(long.len(), 16_384);
    let mut client = proxy.dial();
    client.write_all(long.as_bytes()).unwrap();
    assert_eq!(member.take().1.len(), long.len());
}

#[test]
fn pairs_are_limited_in_all_and_by_address() {
    let member = Puppet::new();
    for (flags, outcome) in
        [(["--pairs-max", "2"], "pairs_limit"), (["--address-pairs-max", "2"], "address_limit")]
    {
        let proxy = Proxy::start(&member.line("a"), &flags);
        let (one, _two) = (member.pair(&proxy), member.pair(&proxy));
        let answer = proxy.exchange(head("u").as_bytes());
        assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("Retry-After: 1\r\n"), "{answer}");
        proxy.until("handshakes_total", outcome, 1.0);
        drop(one);
        proxy.until_level("pairs", 1.0);
        drop(member.pair(&proxy));
    }
}

#[test]
fn a_member_that_says_nothing_is_504_and_then_avoided() {
    let (mute, good) = (Puppet::new(), Puppet::new());
    let list = mute.line("a") + &good.line("b");
    let homes = pinion::cluster::members::MemberList::parse(&list).unwrap().homes();
    let user = (0..).map(|n| format!("u{n}")).find(|u| homes.home(u).unwrap().as_str() == "a").unwrap();
    let proxy = Proxy::start(&list, &["--answer-ms", "300", "--threads", "1"]);
    let mut client = proxy.knock(&user);
    let _mute = mute.take();
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 504 Gateway Timeout\r\nRetry-After: 1\r\n"), "{answer}");
    proxy.until("handshakes_total", "no_answer", 1.0);
    // Its next try goes to the other one; a third one may try the mute one again.
    let mut client = proxy.knock(&user);
    let (mut socket, _) = good.take();
    socket.write_all(SWITCH).unwrap();
    client.read_exact(&mut vec![0; SWITCH.len()]).unwrap();
    proxy.until("dials_total", "alternative", 1.0);
}

#[test]
fn a_member_that_closes_instead_of_answering_is_502() {
    let member = Puppet::new();
    let proxy = Proxy::start(&member.line("a"), &[]);
    let mut client = proxy.knock("u");
    drop(member.take());
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 502 "), "{answer}");
    proxy.until("handshakes_total", "closed_without_answer", 1.0);
}

#[test]
fn a_drain_lets_pairs_be_and_a_second_signal_ends_them() {
    let member = Puppet::new();
    let mut proxy = Proxy::start(&member.line("a"), &[]);
    let (mut client, mut socket) = member.pair(&proxy);
    let mut reading = proxy.dial();
    reading.write_all(b"GET / HTTP/1.1\r\n").unwrap();
    proxy.until_level("handshakes_in_flight", 1.0);
    proxy.signal(Signal::TERM);
    let mut answer = String::new();
    reading.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    eventually("no listener", || TcpStream::connect(proxy.listen).is_err().then_some(()));
    assert_eq!(proxy.get("/readyz"), (503, "draining\n".to_owned()));
    socket.write_all(b"still").unwrap();
    let mut heard = [0; 5];
    client.read_exact(&mut heard).unwrap();
    assert_eq!(&heard, b"still");
    proxy.signal(Signal::TERM);
    assert!(proxy.wait().success());
    assert!(matches!(client.read(&mut heard), Ok(0) | Err(_)));
}

#[test]
fn a_drain_ends_at_its_deadline_and_with_the_last_pair() {
    let member = Puppet::new();
    for (flags, leaves) in [(["--drain-ms", "300"], false), (["--drain-ms", "3600000"], true)] {
        let mut proxy = Proxy::start(&member.line("a"), &flags);
        let pair = member.pair(&proxy);
        proxy.signal(Signal::INT);
        let kept = (!leaves).then_some(pair);
        assert!(proxy.wait().success());
        drop(kept);
    }
}

#[test]
fn an_open_pair_is_two_descriptors_and_gives_them_back() {
    let member = Puppet::new();
    let proxy = Proxy::start(&member.line("a"), &["--threads", "1"]);
    let before = proxy.descriptors(); // before operators come, who have some, too
    let pairs: Vec<_> = (0..20).map(|_| member.pair(&proxy)).collect();
    eventually("two of each", || (proxy.descriptors() == before + 40).then_some(()));
    drop(pairs);
    eventually("closed descriptors", || (proxy.descriptors() == before).then_some(()));
}
