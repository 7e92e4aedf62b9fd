//! Who is let in, seen from outside: what refused clients are told, a storm of logins, and a gateway without
//! descriptors.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use pinion::pb::openim::sdkws::GetMaxSeqReq;
use rustix::process::{Resource, Rlimit, getrlimit, prlimit};

use crate::harness::{Client, DEADLINE, Gateway, Options, eventually, text_message};

const GET_NEWEST_SEQ: i32 = 1001;
const SEND_MSG: i32 = 1003;

fn try_login(gateway: &Gateway, user: &str) -> Result<Client, String> {
    Client::connect(gateway.websocket, user, 7, &gateway.token(user, 7), &Options::default())
}

fn outcome(gateway: &Gateway, label: &str) -> f64 {
    gateway.metrics().sum("pinion_handshakes_total", &[&format!("outcome=\"{label}\"")])
}

#[test]
fn every_limit_but_openims_own_answers_503_without_json_and_lets_in_later() {
    for (flag, value, label) in [
        ("--websocket-address-connections-max", "1", "address_limit"),
        ("--websocket-shard-connections-max", "1", "shard_limit"),
        ("--websocket-connections-max", "1", "connection_limit"),
    ] {
        let gateway = Gateway::start(&["--shards-count", "1", flag, value]);
        let inside = try_login(&gateway, "anna").unwrap();
        let refusal = try_login(&gateway, "boris").map(drop).unwrap_err();
        if label == "connection_limit" {
            assert!(refusal.starts_with("200 {\"errCode\":1601,"), "{refusal}");
        } else {
            assert!(refusal.starts_with("503 ") && !refusal.contains('{'), "{label}: {refusal}");
        }
        eventually(label, || (outcome(&gateway, label) >= 1.0).then_some(()));
        drop(inside);
        eventually("room for boris", || try_login(&gateway, "boris").ok());
    }
}

#[test]
fn a_storm_of_logins_is_spread_and_everybody_gets_in_before_the_deadline() {
    let storm = ["--login-spread-above-per-second", "1", "--login-spread-ms", "1s"];
    let gateway = Gateway::start(&[["--shards-count", "2"].as_slice(), &storm].concat());
    let start = Instant::now();
    let logins: Vec<Duration> = std::thread::scope(|scope| {
        let login = |n: usize| {
            let gateway = &gateway;
            scope.spawn(move || {
                drop(try_login(gateway, &format!("user{n}")).unwrap());
                start.elapsed()
            })
        };
        let logins: Vec<_> = (0..40).map(login).collect();
        logins.into_iter().map(|login| login.join().unwrap()).collect()
    });
    assert!(logins.iter().max() < Some(&DEADLINE), "{logins:?}");
    let late = logins.iter().filter(|at| **at > Duration::from_millis(300)).count();
    assert!(late >= 10, "38 are delayed by up to a second: {logins:?}");
    eventually("the delayed logins in /metrics", || {
        (gateway.metrics().sum("pinion_logins_delayed_total", &[]) >= 30.0).then_some(())
    });
}

/// Sets the soft limit of open files of a gateway.
fn limit_files(gateway: &Gateway, soft: Option<u64>) {
    let maximum = getrlimit(Resource::Nofile).maximum; // a child has its parent's
    let limit = Rlimit { current: soft.or(maximum), maximum };
    prlimit(Some(gateway.pid()), Resource::Nofile, limit).unwrap();
}

/// The limit under which a process can open so many more files. (A test's child inherits some with high numbers.)
fn limit_for(gateway: &Gateway, more: usize) -> u64 {
    let files = std::fs::read_dir(format!("/proc/{}/fd", gateway.pid().as_raw_nonzero())).unwrap();
    let used: BTreeSet<u64> = files.filter_map(|f| f.ok()?.file_name().to_str()?.parse().ok()).collect();
    (0..).filter(|fd| !used.contains(fd)).nth(more).unwrap()
}

/// What a client that only connects and asks gets within the deadline: the first bytes, or `None` at an end.
fn ask(gateway: &Gateway, wait: Duration) -> Option<(TcpStream, String)> {
    let mut socket = TcpStream::connect_timeout(&gateway.websocket, DEADLINE).unwrap();
    socket.write_all(b"GET /?silent").unwrap();
    socket.set_read_timeout(Some(wait)).unwrap();
    let mut start = [0; 12];
    match socket.read(&mut start) {
        Ok(n) => Some((socket, String::from_utf8_lossy(&start[..n]).into_owned())),
        Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => Some((socket, String::new())),
        Err(_) => None,
    }
}

/// Sends a message over connections that are there; its push must arrive.
fn talk(from: &mut Client, to: &mut Client, text: &str) {
    let reply = from.request(SEND_MSG, &text_message("anna", "boris", text));
    assert_eq!((reply.err_code, reply.err_msg.as_str()), (0, ""), "{text}");
    assert_eq!(to.pushed_text(), text);
}

#[test]
fn without_descriptors_clients_are_refused_and_those_inside_go_on() {
    let gateway = Gateway::start(&["--shards-count", "2"]);
    let (mut anna, mut boris) = (gateway.connect("anna", 7), gateway.connect("boris", 7));
    talk(&mut anna, &mut boris, "before");
    limit_files(&gateway, Some(limit_for(&gateway, 4)));
    // Fill what is left; handshakes that say nothing more keep their descriptor for ten seconds.
    let (mut silent, mut refused) = (Vec::new(), 0);
    let start = Instant::now();
    while refused < 5 {
        assert!(start.elapsed() < DEADLINE, "{refused} refused beside {}", silent.len());
        match ask(&gateway, Duration::from_millis(400)) {
            Some((_, answer)) if answer == "HTTP/1.1 503" => refused += 1,
            Some((socket, answer)) if answer.is_empty() => silent.push(socket),
            Some((_, other)) => panic!("{other:?}"),
            None => {} // reset after its answer was lost: it retries as well
        }
        talk(&mut anna, &mut boris, &format!("meanwhile {refused} {}", silent.len()));
    }
    let user_id = "anna".into();
    assert_eq!(anna.request(GET_NEWEST_SEQ, &GetMaxSeqReq { user_id }).err_code, 0);
    limit_files(&gateway, None);
    let rounds = start.elapsed().as_secs_f64() / 0.1 + 1.0;
    eventually("logins come back", || try_login(&gateway, "clara").ok());
    talk(&mut anna, &mut boris, "after");
    eventually("the count", || (outcome(&gateway, "no_descriptors") >= 5.0).then_some(()));
    let metrics = gateway.metrics();
    let pauses = metrics.sum("pinion_accept_pauses_total", &["cause=\"no_resources\""]);
    let errors = metrics.sum("pinion_accept_errors_total", &[]);
    assert!(pauses >= 1.0 && errors >= 1.0, "{pauses} pauses, {errors} errors");
    assert!(errors <= 2.0 * rounds, "each of two shards tries once in 100 ms and does not spin: {errors}");
    drop(silent);
}
