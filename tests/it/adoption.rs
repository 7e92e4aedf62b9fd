//! Serving clients on the address of a dead node, by order: listeners, the hook, and what stands in the way.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use pinion::pb::openim::sdkws::GetMaxSeqReq;
use rustix::process::Signal;
use serde_json::Value;

use crate::drain::post;
use crate::harness::{Client, Gateway, Options, eventually, pinion, run, texts};

const GET_NEWEST_SEQ: i32 = 1001;

/// An address of the loopback net with a port that nobody has.
fn free(host: &str) -> SocketAddr {
    TcpListener::bind((host, 0)).unwrap().local_addr().unwrap()
}

fn start(address: SocketAddr, flags: &[&str]) -> Gateway {
    let adopt = format!("n2={address}");
    let base = ["--shards-count", "2", "--cluster-node-id", "n1", "--cluster-adopt", &adopt];
    Gateway::start(&[&base[..], flags].concat())
}

fn dial(gateway: &Gateway, address: SocketAddr, user: &str) -> Result<Client, String> {
    Client::connect(address, user, 1, &gateway.token(user, 1), &Options::default())
}

fn is_served(client: &mut Client, user: &str) {
    let request = GetMaxSeqReq { user_id: user.into() };
    assert_eq!(client.request(GET_NEWEST_SEQ, &request).err_code, 0);
}

fn held(gateway: &Gateway) -> Value {
    serde_json::from_str(&gateway.get("/v1/adopt").unwrap().1).unwrap()
}

fn hook(directory: &Path, script: &str) -> PathBuf {
    let path = directory.join("hook");
    std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path
}

#[test]
fn who_dials_a_dead_nodes_address_is_served_until_it_is_given_back_and_stays_then() {
    for engine in ["auto", "task"] {
        let directory = tempfile::tempdir().unwrap();
        let said = directory.path().join("said");
        let script = hook(directory.path(), &format!("echo \"$*\" >> {}", said.display()));
        let address = free("127.0.0.21");
        let flags = ["--shards-engine", engine, "--cluster-adopt-hook", script.to_str().unwrap()];
        let mut gateway = start(address, &flags);
        assert!(TcpStream::connect(address).is_err());
        let (status, body) = post(&gateway, "/v1/adopt?node=n2");
        assert_eq!(status, 200, "{body}");
        let users: Vec<String> = (0..6).map(|n| format!("u{n}")).collect();
        let mut clients: Vec<Client> =
            users.iter().map(|user| dial(&gateway, address, user).unwrap()).collect();
        clients.iter_mut().zip(&users).for_each(|(client, user)| is_served(client, user));
        assert_eq!(gateway.metrics().sum("pinion_adopted_addresses", &[]), 1.0);
        let told = |lines: &[&str]| {
            let want: Vec<String> = lines.iter().map(|verb| format!("{verb} n2 {address}\n")).collect();
            eventually("the hook", || {
                (std::fs::read_to_string(&said).unwrap_or_default() == want.concat()).then_some(())
            });
        };
        told(&["take"]);
        eventually("the hook's end", || (held(&gateway)["held"][0]["hook"] == "take").then_some(()));
        assert_eq!(held(&gateway)["held"][0]["serving"], true);

        assert_eq!(post(&gateway, "/v1/adopt/release?node=n2").0, 200);
        eventually("the listener to close", || TcpStream::connect(address).is_err().then_some(()));
        clients.iter_mut().zip(&users).for_each(|(client, user)| is_served(client, user));
        told(&["take", "give"]);
        eventually("nothing to be held", || {
            held(&gateway)["held"].as_array().unwrap().is_empty().then_some(())
        });

        // It is given back when the node ends, too, and the hook hears of it before the exit.
        assert_eq!(post(&gateway, "/v1/adopt?node=n2").0, 200);
        is_served(&mut dial(&gateway, address, "again").unwrap(), "again");
        told(&["take", "give", "take"]);
        gateway.signal(Signal::TERM);
        assert_eq!(gateway.wait().code(), Some(0));
        told(&["take", "give", "take", "give"]);
    }
}

#[test]
fn a_drain_gives_the_address_back_and_its_end_takes_it_again() {
    let address = free("127.0.0.22");
    let gateway = start(address, &[]);
    assert_eq!(post(&gateway, "/v1/adopt?node=n2").0, 200);
    eventually("the address", || TcpStream::connect(address).ok());
    assert_eq!(post(&gateway, "/v1/drain").0, 200);
    eventually("the listener to close", || TcpStream::connect(address).is_err().then_some(()));
    assert!(post(&gateway, "/v1/adopt?node=n2").1.contains("the gateway drains"));
    assert_eq!(post(&gateway, "/v1/drain/cancel").0, 200);
    is_served(&mut eventually("to be served again", || dial(&gateway, address, "u").ok()), "u");
}

#[test]
fn an_address_in_use_is_said_and_tried_again() {
    let taken = TcpListener::bind("127.0.0.23:0").unwrap();
    let address = taken.local_addr().unwrap();
    let gateway = start(address, &[]);
    let (status, why) = post(&gateway, "/v1/adopt?node=n2");
    assert_eq!(status, 400);
    assert!(
        why.contains(&format!("cannot listen on {address}")) && why.contains("tried again every"),
        "{why}"
    );
    assert_eq!(held(&gateway)["held"][0]["serving"], false);
    drop(taken);
    is_served(&mut eventually("the address", || dial(&gateway, address, "u").ok()), "u");
    assert!(gateway.metrics().sum("pinion_adoption_failures_total", &["step=\"listen\""]) >= 1.0);
}

#[test]
fn a_hook_that_hangs_or_fails_is_counted_tried_again_and_keeps_nobody_from_being_served() {
    let directory = tempfile::tempdir().unwrap();
    let mark = directory.path().join("mark");
    // First it hangs, then it fails, then it works.
    let script = format!(
        "n=$(cat {0} 2>/dev/null | wc -l); echo x >> {0}\n[ $n = 0 ] && sleep 3600\n[ $n = 1 ] && exit 7\nexit 0",
        mark.display()
    );
    let script = hook(directory.path(), &script);
    let address = free("127.0.0.24");
    let flags = ["--cluster-adopt-hook", script.to_str().unwrap(), "--cluster-adopt-hook-ms", "100"];
    let gateway = start(address, &flags);
    assert_eq!(post(&gateway, "/v1/adopt?node=n2").0, 200);
    is_served(&mut dial(&gateway, address, "u").unwrap(), "u");
    for line in ["did not end within 100 ms and was killed", "ended with exit status: 7"] {
        eventually(line, || gateway.logs().contains(line).then_some(()));
    }
    eventually("the hook to work", || (held(&gateway)["held"][0]["hook"] == "take").then_some(()));
    let failed =
        |gateway: &Gateway| gateway.metrics().sum("pinion_adoption_failures_total", &["step=\"hook\""]);
    eventually("the count", || (failed(&gateway) == 2.0).then_some(()));
    assert_eq!(held(&gateway)["held"][0].get("trouble"), None);
}

#[test]
fn only_listed_addresses_are_taken_and_the_command_says_which() {
    let address = free("127.0.0.25");
    let gateway = start(address, &[]);
    let http = gateway.http.to_string();
    let adopt = |arguments: &[&str]| texts(&run(pinion(&[&["adopt", "--http", &http], arguments].concat())));
    let (code, text, _) = adopt(&[]);
    assert_eq!(code, 0);
    assert!(text.contains(&format!("\"listed\":[\"n2={address}\"]")), "{text}");
    let (code, _, error) = adopt(&["n3"]);
    assert_eq!(code, 2);
    assert!(error.contains("no address of n3 is known"), "{error}");
    assert_eq!(adopt(&["n2"]).0, 0);
    is_served(&mut dial(&gateway, address, "u").unwrap(), "u");
    assert_eq!(adopt(&["n2", "--release"]).0, 0);
    eventually("the listener to close", || TcpStream::connect(address).is_err().then_some(()));
}

/// Who holds it may be a neighbour that has served this node's clients, or another program.
#[test]
fn a_node_that_returns_waits_for_its_own_address_but_not_for_ever() {
    let directory = tempfile::tempdir().unwrap();
    let (list, said) = (directory.path().join("members"), directory.path().join("said"));
    let rpc = free("127.0.0.26").to_string();
    // Nobody else is to be waited for.
    std::fs::write(&list, format!("placement rendezvous\nn2 rpc={rpc}\n")).unwrap();
    let taken = TcpListener::bind("127.0.0.26:0").unwrap();
    let address = taken.local_addr().unwrap();
    let (port, url) = (address.port().to_string(), format!("ws://{address}/"));
    let flags: Vec<&str> = [
        ["--websocket-address", "127.0.0.26"],
        ["--websocket-port", &port],
        ["--rpc-listen", &rpc],
        ["--http-listen", "127.0.0.1:0"],
        ["--cluster-source", "static"],
        ["--cluster-node-id", "n2"],
        ["--cluster-members", list.to_str().unwrap()],
        ["--cluster-ws-url", &url],
        ["--cluster-adopt", "members"],
    ]
    .concat();
    let (code, _, error) = texts(&run(pinion(&flags)));
    assert_eq!(code, 1, "{error}");
    let in_use = format!("cannot listen on {address} (websocket.port)");
    assert!(error.contains(&in_use) && error.contains("waiting until it is given back"), "{error}");

    let log = std::fs::File::create(&said).unwrap();
    std::thread::scope(|scope| {
        let start = scope.spawn(|| Gateway::start_by(|command| command.stderr(log).spawn(), &flags));
        eventually("it to wait", || {
            let text = std::fs::read_to_string(&said).unwrap();
            text.contains("waiting until it is given back").then_some(())
        });
        drop(taken);
        let gateway = start.join().unwrap();
        is_served(&mut dial(&gateway, address, "u").unwrap(), "u");
    });
}
