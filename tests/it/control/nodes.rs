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

const OWN: [&str; 2] = ["--cluster-node-id", "gw-0"];

fn flags(etcd: &str) -> Vec<String> {
    let pairs = [
        ("--cluster-source", "etcd"),
        ("--cluster-lease-ms", "3s"),
        ("--cluster-push-mode", "route"),
        ("--discovery-etcd-addresses", etcd),
        ("--shards-count", "1"),
    ];
    pairs.iter().flat_map(|(flag, value)| [(*flag).to_owned(), (*value).to_owned()]).collect()
}

fn start(etcd: &str, more: &[&str]) -> Gateway {
    let flags = flags(etcd);
    let named = if more.contains(&"--cluster-node-id") { &[][..] } else { &OWN[..] };
    let flags = flags.iter().map(String::as_str).chain(named.iter().copied()).chain(more.iter().copied());
    Gateway::start(&flags.collect::<Vec<_>>())
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
        command
            .args(OWN)
            .args(["--http-listen", &http.to_string()])
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        Self { child: command.spawn().unwrap(), http }
    }

    fn readyz(&self) -> Option<String> {
        self.get("/readyz")
    }

    fn get(&self, path: &str) -> Option<String> {
        let mut socket = TcpStream::connect(self.http).ok()?;
        write!(socket, "GET {path} HTTP/1.1\r\nHost: it\r\nConnection: close\r\n\r\n").ok()?;
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
    assert!(second.get("/readyz?clients").is_some_and(|text| text.starts_with("HTTP/1.1 503 ")));
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
    // A balancer must not turn clients away for it.
    let (status, text) = gateway.get("/readyz?clients").unwrap();
    assert!(status == 200 && text.starts_with("ready\ncluster: the lease has ended"), "{status} {text}");
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

/// The procedure of `tuning/cluster.md`, with a store that has what the former one had, at higher revisions.
#[test]
fn nodes_are_restarted_one_after_the_other_into_a_restored_etcd() {
    let (etcd, restored) = (Etcd::start(), Etcd::start());
    let front = Front::new();
    front.open(etcd.0.address);
    let address = front.address.to_string();
    let listens = [free().to_string(), free().to_string()];
    let start = |n: usize| {
        let name = ["gw-0", "gw-1"][n];
        start(&address, &["--cluster-node-id", name, "--rpc-listen", &listens[n]])
    };
    let (former, other) = (start(0), start(1));
    for gateway in [&former, &other] {
        await_readyz(gateway, 200, "ready\n");
    }
    let mut client = other.connect("alice", 1);
    let records = ["pinion/nodes/gw-0", "pinion/nodes/gw-1"].map(|key| {
        // From then on the record names its revisions, and can be written elsewhere.
        let active =
            || etcd.get(key).map(|(record, _)| record).filter(|record| record.contains("\"active\""));
        (key, eventually("an active node", active))
    });
    (0..100).for_each(|n| restored.put("bump", &n.to_string()));
    for (key, record) in &records {
        restored.put(key, record);
    }
    front.cut();
    front.open(restored.0.address);
    for gateway in [&former, &other] {
        await_readyz(gateway, 503, "etcd is another cluster");
    }
    drop(former);
    let again = start(0);
    await_readyz(&again, 200, "ready\n");
    eventually("a link to one of the last store", || {
        (again.metrics().sum("pinion_peer_links", &[]) == 1.0).then_some(())
    });
    again.push("bob", &["alice"], "from the one to the other");
    assert_eq!(client.pushed_text(), "from the one to the other");
    drop(other);
    let other = start(1);
    for gateway in [&again, &other] {
        let text = await_readyz(gateway, 200, "ready\n");
        assert_eq!(
            (text.as_str(), gateway.metrics().sum("pinion_cluster_source_foreign", &[])),
            ("ready\n", 0.0)
        );
    }
}
