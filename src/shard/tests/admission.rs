//! What is let in: limits per address, per shard, per second, and whose word about an address is believed.

use std::io::Write;

use super::node::{Node, await_that, connect, exchange, head, login, read_to_end};
use crate::metrics::Metric;
use crate::session::handshake::origin::{Network, ProxyHeader};
use crate::shard::thread::tests::bases;

fn refused_without_json(answer: &str) {
    assert!(answer.starts_with("HTTP/1.1 503 ") && !answer.contains('{'), "{answer}");
}

/// A login's head with more headers.
fn head_with(user: &str, headers: &str) -> String {
    head(user).replace("Host: x\r\n", &format!("Host: x\r\n{headers}"))
}

#[test]
fn an_address_has_its_limit_until_one_of_its_connections_is_gone() {
    for base in bases() {
        let node = Node::start(base, |config| config.admission.address_connections_max = 2);
        // One stays where it was accepted, one is handed over: both are counted, and come back.
        let here = login(node.ports[0], &node.user_of(0, 0));
        let there = login(node.ports[0], &node.user_of(1, 0));
        refused_without_json(&exchange(node.ports[1], head(&node.user_of(1, 1)).as_bytes()));
        node.await_metric(Metric::HandshakeAddressFull, 1);
        assert_eq!(node.admission.open(), 2, "{base:?}: a refused connection takes no place");
        drop(there);
        await_that("the handed-over one's place is free", || node.admission.open() == 1);
        let next = login(node.ports[1], &node.user_of(1, 2));
        refused_without_json(&exchange(node.ports[0], head("u").as_bytes()));
        drop((here, next));
        await_that("both places are free", || node.admission.open() == 0);
        drop(login(node.ports[0], &node.user_of(0, 3)));
        node.await_metric(Metric::Sockets, 0);
        node.drain(0);
    }
}

#[test]
fn more_connections_in_a_second_than_may_be_get_503_and_later_ones_come_in() {
    for base in bases() {
        let node = Node::start(base, |config| config.admission.accepts_per_second_max = 2);
        let first = login(node.ports[0], &node.user_of(0, 0));
        let answers: Vec<String> =
            (0..6).map(|_| exchange(node.ports[0], b"GET / HTTP/1.1\r\n\r\n")).collect();
        let refused: Vec<&String> = answers.iter().filter(|a| a.starts_with("HTTP/1.1 503 ")).collect();
        assert!(!refused.is_empty(), "{base:?}: {answers:?}");
        refused.into_iter().for_each(|answer| refused_without_json(answer));
        await_that("the counter", || node.metric(Metric::HandshakeTooFast) > 0);
        await_that("a second later there is room", || {
            let mut stream = connect(node.ports[0]);
            stream.write_all(head(&node.user_of(1, 0)).as_bytes()).unwrap();
            let mut start = [0; 12];
            std::io::Read::read_exact(&mut stream, &mut start).unwrap();
            &start == b"HTTP/1.1 101"
        });
        drop(first);
        node.drain(0);
    }
}

#[test]
fn a_full_shard_answers_503_and_the_other_lets_in() {
    for base in bases() {
        let node = Node::start(base, |config| config.admission.shard_connections_max = 1);
        let _inside = login(node.ports[0], &node.user_of(1, 0));
        refused_without_json(&exchange(node.ports[0], head(&node.user_of(1, 1)).as_bytes()));
        node.await_metric(Metric::HandshakeShardFull, 1);
        let _other = login(node.ports[0], &node.user_of(0, 0));
        node.drain(0);
    }
}

#[test]
fn a_user_has_his_limit() {
    for base in bases() {
        let node = Node::start(base, |config| {
            config.admission.user_connections_max = 2;
        });
        let user = node.user_of(1, 0);
        // The token is the same each time, so that no login kicks another.
        let _first = login(node.ports[0], &user);
        let _second = login(node.ports[1], &user);
        refused_without_json(&exchange(node.ports[0], head(&user).as_bytes()));
        node.await_metric(Metric::HandshakeUserFull, 1);
        node.await_metric(Metric::Registered, 2);
        node.drain(0);
    }
}

#[test]
fn a_proxys_clients_are_counted_by_their_own_addresses_and_a_strangers_words_are_not() {
    for base in bases() {
        for (trusted, second_fits) in [("127.0.0.0/8", true), ("10.0.0.0/8", false)] {
            let node = Node::start(base, |config| {
                config.admission.address_connections_max = 1;
                config.admission.proxies.networks = vec![Network::parse(trusted).unwrap()];
            });
            let enter = |address: &str| {
                let mut stream = connect(node.ports[0]);
                let headers = format!("X-Forwarded-For: 6.6.6.6\r\nX-Forwarded-For: {address}\r\n");
                stream.write_all(head_with(&node.user_of(1, 0), &headers).as_bytes()).unwrap();
                let mut start = [0; 12];
                std::io::Read::read_exact(&mut stream, &mut start).unwrap();
                (stream, &start == b"HTTP/1.1 101")
            };
            let (_first, fits) = enter("203.0.113.1");
            assert!(fits, "{base:?} {trusted}");
            let (_second, fits) = enter("203.0.113.2");
            assert_eq!(fits, second_fits, "{base:?} {trusted}");
            let (_third, fits) = enter("203.0.113.1");
            assert!(!fits, "{base:?} {trusted}: the first one's address is full");
            node.drain(0);
        }
    }
}

#[test]
fn a_proxy_header_is_read_from_proxies_only_and_a_bad_one_is_closed() {
    for base in bases() {
        let node = Node::start(base, |config| {
            config.admission.address_connections_max = 1;
            config.admission.proxies.networks = vec![Network::parse("127.0.0.1").unwrap()];
            config.admission.proxies.header = ProxyHeader::Required;
        });
        let request = head(&node.user_of(1, 0));
        let version_1 = |address: &str| format!("PROXY TCP4 {address} 127.0.0.1 5 6\r\n").into_bytes();
        let version_2 =
            b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c\xcb\x00\x71\x09\x7f\0\0\x01\0\x05\0\x06".to_vec();
        let local = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0".to_vec();
        let mut inside = Vec::new();
        for header in [version_1("203.0.113.1"), version_2.clone(), local.clone(), local] {
            let mut stream = connect(node.ports[0]);
            // In two parts, the second with the end of the header.
            let bytes = [header.as_slice(), request.as_bytes()].concat();
            stream.write_all(&bytes[..header.len() - 1]).unwrap();
            stream.write_all(&bytes[header.len() - 1..]).unwrap();
            let mut start = [0; 12];
            std::io::Read::read_exact(&mut stream, &mut start).unwrap();
            assert_eq!(&start, b"HTTP/1.1 101", "{base:?} {header:02x?}");
            inside.push(stream);
        }
        for header in [version_1("203.0.113.1"), version_2] {
            refused_without_json(&exchange(node.ports[0], &[header.as_slice(), request.as_bytes()].concat()));
        }
        for (n, bytes) in (1..).zip([request.as_bytes(), b"PROXY TCP4 nonsense\r\n".as_slice()]) {
            let mut stream = connect(node.ports[0]);
            stream.write_all(bytes).unwrap();
            assert_eq!(read_to_end(&mut stream), "", "{base:?}: closed without a word");
            node.await_metric(Metric::HandshakeProxy, n);
        }
        drop(inside);
        node.drain(0);
    }
    for base in bases() {
        let node = Node::start(base, |_| {});
        let forged = [b"PROXY TCP4 1.2.3.4 127.0.0.1 5 6\r\n".as_slice(), head("u").as_bytes()].concat();
        let answer = exchange(node.ports[0], &forged);
        assert!(answer.starts_with("HTTP/1.1 400 "), "{base:?}: a stranger's: {answer}");
        node.await_metric(Metric::HandshakeBad, 1);
        node.drain(0);
    }
}
