//! `pinion proxy` at each of its limits: openings, attempts, times, refused clients, operators; and members that answer
//! badly or not at all.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use pinion::limits::{PROXY_ADMIN_MAX, PROXY_ATTEMPTS_MAX, PROXY_LINGERING_MAX, PROXY_OPENINGS_MAX};
use rustix::net::sockopt::set_socket_linger;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, connect, listen, socket, socket_with};

use crate::harness::proxy::{Proxy, Puppet, SWITCH, head};
use crate::harness::{DEADLINE, eventually};

/// An address where nobody listens.
fn nobody() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// A listener that takes nobody any more: its queue is full, so the kernel drops who comes.
struct FullListener {
    listener: TcpListener,
    _queued: Vec<std::os::fd::OwnedFd>,
}

impl FullListener {
    fn new() -> Self {
        let fd = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
        bind(&fd, &SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        listen(&fd, 0).unwrap();
        let listener = TcpListener::from(fd);
        let address = listener.local_addr().unwrap();
        let dial = || {
            let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
            let fd = socket_with(AddressFamily::INET, SocketType::STREAM, flags, None).unwrap();
            let _ = connect(&fd, &address); // in progress, or there
            fd
        };
        Self { listener, _queued: (0..4).map(|_| dial()).collect() }
    }

    fn line(&self, node: &str) -> String {
        format!("{node} ws=ws://{}\n", self.listener.local_addr().unwrap())
    }
}

/// A user whose homes are in this order, as far as it is named.
fn user(list: &str, wanted: &[&str]) -> String {
    let homes = pinion::cluster::members::MemberList::parse(list).unwrap().homes();
    let fits = |user: &String| {
        homes.ranked(user, wanted.len()).iter().zip(wanted).all(|(node, want)| node.as_str() == *want)
    };
    (0..).map(|n| format!("u{n}")).find(fits).unwrap()
}

#[test]
fn so_many_members_are_tried_and_no_more() {
    let dead = |n: usize| format!("dead-{n} ws=ws://{}\n", nobody());
    let all: String = (0..=PROXY_ATTEMPTS_MAX + 1).map(dead).collect();
    let proxy = Proxy::start(&all, &["--threads", "1"]);
    let answer = proxy.exchange(head("u").as_bytes());
    assert!(answer.starts_with("HTTP/1.1 502 ") && !answer.contains('{'), "{answer}");
    proxy.until("handshakes_total", "no_member_reached", 1.0);
    let refused = proxy.metrics().sum("pinion_proxy_dials_total", &["refused"]);
    assert_eq!(refused, PROXY_ATTEMPTS_MAX as f64);
    // The last of these attempts may be the one that works.
    let good = Puppet::new();
    let dead: Vec<String> = (1..PROXY_ATTEMPTS_MAX).map(dead).collect();
    let list = dead.concat() + &good.line("good");
    let names: Vec<&str> = dead.iter().map(|line| line.split(' ').next().unwrap()).collect();
    let user = user(&list, &names);
    let proxy = Proxy::start(&list, &["--threads", "1"]);
    let mut client = proxy.knock(&user);
    good.take().0.write_all(SWITCH).unwrap();
    client.read_exact(&mut vec![0; SWITCH.len()]).unwrap();
    proxy.until("dials_total", "refused", (PROXY_ATTEMPTS_MAX - 1) as f64);
    proxy.until("dials_total", "alternative", 1.0);
}

#[test]
fn a_member_whose_queue_is_full_is_passed_over_in_time() {
    let (full, good) = (FullListener::new(), Puppet::new());
    let list = full.line("full") + &good.line("good");
    let user = user(&list, &["full"]);
    let proxy = Proxy::start(&list, &["--connect-ms", "300", "--threads", "1"]);
    let mut client = proxy.knock(&user);
    good.take().0.write_all(SWITCH).unwrap();
    client.read_exact(&mut vec![0; SWITCH.len()]).unwrap();
    proxy.until("dials_total", "timeout", 1.0);
    // With nobody else the client is told, and told to come again.
    let proxy = Proxy::start(&full.line("full"), &["--connect-ms", "300"]);
    let answer = proxy.exchange(head("u").as_bytes());
    assert!(answer.starts_with("HTTP/1.1 502 ") && answer.contains("Retry-After: 1\r\n"), "{answer}");
    proxy.until("handshakes_total", "no_member_reached", 1.0);
}

#[test]
fn so_many_handshakes_are_open_and_the_next_client_waits_in_the_queue() {
    let member = Puppet::new();
    let proxy = Proxy::start(&member.line("a"), &["--threads", "1", "--head-ms", "60000"]);
    let mut silent: Vec<TcpStream> = (0..PROXY_OPENINGS_MAX).map(|_| proxy.dial()).collect();
    proxy.until_level("handshakes_in_flight", PROXY_OPENINGS_MAX as f64);
    let mut next = proxy.knock("u");
    proxy.until("accept_waits_total", "", 1.0);
    assert_eq!(proxy.metrics().sum("pinion_proxy_accepts_total", &[]), PROXY_OPENINGS_MAX as f64);
    drop(silent.pop());
    member.take().0.write_all(SWITCH).unwrap();
    next.read_exact(&mut vec![0; SWITCH.len()]).unwrap();
    drop(silent);
    proxy.until("handshakes_total", "client_gone", PROXY_OPENINGS_MAX as f64);
    proxy.until_level("handshakes_in_flight", 0.0);
}

#[test]
fn so_many_refused_clients_may_linger_and_their_descriptors_come_back() {
    let member = Puppet::new();
    let proxy = Proxy::start(&member.line("a"), &["--threads", "1", "--pairs-max", "1"]);
    let _pair = member.pair(&proxy);
    let before = proxy.descriptors();
    // They neither read nor close.
    let refused: Vec<TcpStream> = (0..PROXY_LINGERING_MAX + 50).map(|_| proxy.dial()).collect();
    proxy.until("handshakes_total", "pairs_limit", refused.len() as f64);
    let lingering = proxy.metrics().sum("pinion_proxy_lingering", &[]);
    assert!(lingering <= PROXY_LINGERING_MAX as f64, "{lingering}");
    // Each lingers for a while at most: others take their places until there is none.
    let mut more = Vec::new();
    eventually("one who may not linger", || {
        more.extend((0..PROXY_LINGERING_MAX + 1).map(|_| proxy.dial()));
        (proxy.metrics().sum("pinion_proxy_answers_cut_total", &[]) > 0.0).then_some(())
    });
    drop(more);
    let told = refused.into_iter().map(|mut client| {
        let mut answer = String::new();
        client.read_to_string(&mut answer).unwrap();
        answer
    });
    assert!(told.into_iter().all(|answer| answer.starts_with("HTTP/1.1 503 ")), "each is told");
    proxy.until_level("lingering", 0.0);
    eventually("closed descriptors", || (proxy.descriptors() <= before).then_some(()));
}

#[test]
fn so_many_operators_are_served_at_once() {
    let proxy = Proxy::start("a ws=ws://127.0.0.1:1", &[]);
    let visit = || {
        let socket = TcpStream::connect_timeout(&proxy.http, DEADLINE).unwrap();
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
        socket
    };
    let mut silent: Vec<TcpStream> = (0..PROXY_ADMIN_MAX).map(|_| visit()).collect();
    // Closed at accept; nothing is read, so it may be a reset.
    let mut one_more = visit();
    let _ = one_more.write_all(b"GET /healthz HTTP/1.1\r\n\r\n");
    assert!(matches!(one_more.read(&mut [0; 1]), Ok(0) | Err(_)));
    drop(silent.pop());
    // A load balancer's HEAD has no body.
    eventually("a place", || {
        let mut operator = visit();
        let _ = operator.write_all(b"HEAD /healthz HTTP/1.1\r\n\r\n");
        let mut answer = String::new();
        let _ = operator.read_to_string(&mut answer);
        (answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("\r\n\r\n")).then_some(())
    });
    assert_eq!(proxy.get("/healthz"), (200, "ok\n".to_owned()));
    assert!(proxy.metrics().sum("pinion_proxy_operators_refused_total", &[]) >= 1.0);
}

#[test]
fn an_answer_that_is_no_upgrade_comes_as_the_member_gave_it() {
    let member = Puppet::new();
    let body = format!("{{\"errCode\":1501,\"errMsg\":\"{}\"}}", "no ".repeat(60_000));
    let answers = [
        format!(
            "HTTP/1.1 401 Unauthorized\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        ),
        "HTTP/1.0 503 Later\r\nRetry-After: 7\r\nX-Odd:  two blanks\r\n\r\n".to_owned(),
        "HTTP/1.1 302 Found\r\nLocation: ws://elsewhere/\r\n\r\n".to_owned(),
    ];
    for relay in ["auto", "splice", "copy"] {
        let proxy = Proxy::start(&member.line("a"), &["--relay", relay]);
        for answer in &answers {
            let mut client = proxy.knock("u");
            let (mut socket, _) = member.take();
            let (start, rest) = answer.split_at(5);
            socket.write_all(start.as_bytes()).unwrap();
            socket.write_all(rest.as_bytes()).unwrap();
            drop(socket);
            let mut heard = String::new();
            client.read_to_string(&mut heard).unwrap();
            assert!(heard == *answer, "{relay}: {} bytes of {}", heard.len(), answer.len());
        }
        proxy.until("handshakes_total", "refused_by_member", answers.len() as f64);
        proxy.until_level("pairs", 0.0);
    }
}

#[test]
fn a_member_that_dies_in_the_middle_of_its_head() {
    let member = Puppet::new();
    let proxy = Proxy::start(&member.line("a"), &["--threads", "1"]);
    // Within the status nothing can be said for it: 502, at once.
    for (n, part) in ["", "H", "HTTP/1.1 10"].into_iter().enumerate() {
        let mut client = proxy.knock("u");
        let (mut socket, _) = member.take();
        socket.write_all(part.as_bytes()).unwrap();
        socket.shutdown(Shutdown::Write).unwrap();
        let mut heard = String::new();
        client.read_to_string(&mut heard).unwrap();
        assert!(heard.starts_with("HTTP/1.1 502 "), "{part:?}: {heard}");
        proxy.until("handshakes_total", "closed_without_answer", (n + 1) as f64);
    }
    // Behind it the client gets what there was, and the end.
    let part = "HTTP/1.1 101 Switching Protocols\r\nUpgra";
    let mut client = proxy.knock("u");
    let (mut socket, _) = member.take();
    socket.write_all(part.as_bytes()).unwrap();
    drop(socket);
    let mut heard = String::new();
    client.read_to_string(&mut heard).unwrap();
    assert_eq!(heard, part);
    drop(client);
    // Broken, and not ended: a reset is passed on as one.
    let mut client = proxy.knock("u");
    let (mut socket, _) = member.take();
    socket.write_all(part.as_bytes()).unwrap();
    client.read_exact(&mut vec![0; part.len()]).unwrap();
    set_socket_linger(&socket, Some(Duration::ZERO)).unwrap();
    drop(socket);
    assert_eq!(client.read(&mut [0; 1]).unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
    proxy.until_level("pairs", 0.0);
}

#[test]
fn a_client_that_has_ended_its_side_still_gets_the_answer() {
    let member = Puppet::new();
    let proxy = Proxy::start(&member.line("a"), &[]);
    let mut client = proxy.knock("u");
    client.write_all(b"early words").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    let (mut socket, _) = member.take();
    socket.write_all(SWITCH).unwrap();
    socket.write_all(b"push").unwrap();
    let mut heard = Vec::new();
    socket.read_to_end(&mut heard).unwrap();
    assert_eq!(heard, b"early words");
    drop(socket);
    heard.clear();
    client.read_to_end(&mut heard).unwrap();
    assert_eq!(heard, [SWITCH, b"push"].concat());
    proxy.until("pairs_ended_total", "closed", 1.0);
}
