//! Whole gateways and a real etcd where something is wrong with who they are, or with what etcd is.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Stdio};

use super::servers::{Etcd, Front};
use crate::harness::{Gateway, eventually, pinion};

/// An address that nobody listens at now.
fn free() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

fn flags(etcd: &str) -> Vec<String> {
    let pairs = [
        ("--cluster-source", "etcd"),
        ("--cluster-node-id", "gw-0"),
        ("--cluster-lease-ms", "3s"),
        ("--discovery-etcd-addresses", etcd),
        ("--shards-count", "1"),
    ];
    pairs.iter().flat_map(|(flag, value)| [(*flag).to_owned(), (*value).to_owned()]).collect()
}

fn start(etcd: &str, more: &[&str]) -> Gateway {
    let flags = flags(etcd);
    let flags: Vec<&str> = flags.iter().map(String::as_str).chain(more.iter().copied()).collect();
    Gateway::start(&flags)
}

/// A gateway that need not become ready.
struct Waiting {
    child: Child,
    http: SocketAddr,
}

impl Waiting {
    fn start(etcd: &str) -> Self {
        let (http, flags) = (free(), flags(etcd));
        let listen =
            ["--websocket-address", "127.0.0.1", "--websocket-port", "0", "--rpc-listen", "127.0.0.1:0"];
        let mut command = pinion(&flags.iter().map(String::as_str).chain(listen).collect::<Vec<_>>());
        command.args(["--http-listen", &http.to_string()]).stdout(Stdio::null()).stderr(Stdio::null());
        Self { child: command.spawn().unwrap(), http }
    }

    fn readyz(&self) -> Option<String> {
        let mut socket = TcpStream::connect(self.http).ok()?;
        write!(socket, "GET /readyz HTTP/1.1\r\nHost: it\r\nConnection: close\r\n\r\n").ok()?;
        let mut text = String::new();
        socket.read_to_string(&mut text).ok()?;
        Some(text)
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

fn await_readyz(gateway: &Gateway, status: u16, part: &str) -> String {
    eventually(&format!("{status}, {part:?}"), || {
        let (is, text) = gateway.get("/readyz").unwrap();
        (is == status && text.contains(part)).then_some(text)
    })
}

#[test]
fn a_second_gateway_of_a_name_is_not_ready_names_both_and_takes_over_from_a_dead_one() {
    let etcd = Etcd::start();
    let address = etcd.0.address.to_string();
    let first = start(&address, &[]);
    await_readyz(&first, 200, "ready\n");
    let second = Waiting::start(&address);
    let said = eventually("what is wrong", || second.readyz().filter(|text| text.contains("is taken")));
    assert!(said.starts_with("HTTP/1.1 503 ") && said.contains(&format!(" at {};", first.grpc)), "{said}");
    await_readyz(&first, 200, "ready\n");
    drop(first);
    eventually("the place of the first one", || {
        second.readyz().filter(|text| text.starts_with("HTTP/1.1 200 ") && text.ends_with("ready\n"))
    });
}

#[test]
fn a_gateway_whose_etcd_is_replaced_says_what_to_do_and_serves_on() {
    let (etcd, other) = (Etcd::start(), Etcd::start());
    let front = Front::new();
    front.open(etcd.0.address);
    let (address, listen) = (front.address.to_string(), free().to_string());
    let gateway = start(&address, &["--rpc-listen", &listen]);
    await_readyz(&gateway, 200, "ready\n");
    let mut client = gateway.connect("alice", 1);
    front.cut();
    front.open(other.0.address);
    let said = await_readyz(&gateway, 503, "etcd is another cluster than the one this node registered in");
    assert!(said.contains("the lease has ended") && said.contains("tuning/cluster.md"), "{said}");
    assert_eq!(gateway.metrics().sum("pinion_cluster_source_foreign", &[]), 1.0);
    assert!(gateway.logs().contains("restart the nodes one after the other"), "{}", gateway.logs());
    gateway.push("bob", &["alice"], "still here");
    assert_eq!(client.pushed_text(), "still here");
    assert_eq!(other.get("pinion/nodes/gw-0"), None, "nothing is written there");
    // Started again, it belongs to the other one.
    drop(gateway);
    let gateway = start(&address, &["--rpc-listen", &listen]);
    await_readyz(&gateway, 200, "ready\n");
    assert!(other.get("pinion/nodes/gw-0").is_some());
}
