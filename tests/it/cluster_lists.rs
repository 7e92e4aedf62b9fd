//! Gateways whose lists of each other differ, that are named and not numbered, and that are given another token while
//! they run.

use std::net::TcpListener;
use std::path::{Path, PathBuf};

use pinion::pb::pinion::v1::{PushBatch, PushVerdicts};
use pinion::placement::Algorithm;
use pinion::placement::view::{Epoch, Member, NodeId, View};
use pinion::rpc::client::call_once;
use prost::Message;
use rustix::process::Signal;

use crate::harness::{CALL_DEADLINE_MS, Gateway, eventually, push_message};

/// Ports and lists of gateways that start later.
struct Places {
    folder: tempfile::TempDir,
    ports: Vec<(&'static str, u16)>,
}

impl Places {
    fn of(names: &[&'static str]) -> Self {
        let port = |name: &&'static str| {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            (*name, listener.local_addr().unwrap().port())
        };
        Self { folder: tempfile::tempdir().unwrap(), ports: names.iter().map(port).collect() }
    }

    fn port(&self, name: &str) -> u16 {
        self.ports.iter().find(|(node, _)| *node == name).unwrap().1
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes the list of a node; peers are dialled by a name.
    fn list(&self, name: &str, members: &[&str]) {
        let line = |name: &&str| format!("{name} rpc=localhost:{}\n", self.port(name));
        std::fs::write(self.file(name), members.iter().map(line).collect::<String>()).unwrap();
    }

    fn start(&self, name: &str, more: &[&str]) -> Gateway {
        self.start_as(name, name, more)
    }

    /// At the place of one node, by the name of another.
    fn start_as(&self, place: &str, name: &str, more: &[&str]) -> Gateway {
        let (listen, list) = (format!("127.0.0.1:{}", self.port(place)), self.file(place));
        let own = ["--shards-count", "1", "--rpc-listen", &listen, "--cluster-source", "static"];
        let of = ["--cluster-node-id", name, "--cluster-members", list.to_str().unwrap()];
        Gateway::start(&[&own[..], &of, more].concat())
    }

    /// Side by side: they wait for each other.
    fn start_all(&self, more: impl Fn(&str) -> Vec<String> + Sync) -> Vec<Gateway> {
        let more = &more;
        std::thread::scope(|scope| {
            let start = |(name, _): &(&'static str, u16)| {
                let name = *name;
                scope.spawn(move || {
                    let more = more(name);
                    self.start(name, &more.iter().map(String::as_str).collect::<Vec<_>>())
                })
            };
            let starts: Vec<_> = self.ports.iter().map(start).collect();
            starts.into_iter().map(|start| start.join().unwrap()).collect()
        })
    }
}

/// Waits until `/readyz` says 200 and these words, or nothing but that it is ready.
fn await_ready(gateway: &Gateway, words: &str) {
    eventually(&format!("ready, {words:?}"), || {
        let (status, text) = gateway.get("/readyz").unwrap();
        let said = if words.is_empty() { text == "ready\n" } else { text.contains(words) };
        (status == 200 && said).then_some(())
    });
}

fn count(gateway: &Gateway, metric: &str) -> f64 {
    gateway.metrics().sum(metric, &[])
}

/// Whether the verdict about a user is complete, and what reached him.
fn send(gateway: &Gateway, user: &str) -> (Option<bool>, usize) {
    let batch = PushBatch { messages: vec![push_message(1, &[user], "hello")] };
    let message = batch.encode_to_vec().into();
    let answer = call_once(gateway.grpc, "/pinion.v1.Push/Send", &[], message, CALL_DEADLINE_MS).unwrap();
    let verdicts = PushVerdicts::decode(answer).unwrap().verdicts;
    (verdicts[0].users[0].complete, verdicts[0].users[0].devices.len())
}

/// It has the higher id, so the other one would have to dial it, and does not know of it.
#[test]
fn a_node_that_the_other_does_not_list_joins_and_both_say_what_is_missing() {
    let places = Places::of(&["b", "c"]);
    places.list("b", &["b"]);
    places.list("c", &["b", "c"]);
    let b = places.start("b", &[]);
    await_ready(&b, "");
    let c = places.start("c", &[]);
    await_ready(&c, "b places users by other members than this node");
    await_ready(&b, "linked to c, which cluster.members of this node does not have: add its line");
    let members = ["b", "c"].map(|name| Member::new(NodeId::new(name).unwrap())).to_vec();
    let placement = View::new(Epoch(1), members).placement(&Algorithm::Rendezvous);
    let at_c = |user: &String| placement.home(user).is_some_and(|home| home.as_str() == "c");
    let user = (0..).map(|n| format!("u{n}")).find(at_c).unwrap();
    let _client = c.connect(&user, 1);
    assert_eq!((send(&b, &user), send(&c, &user)), ((Some(true), 1), (Some(true), 1)));
    assert!(count(&c, "pinion_peer_knocks_total") >= 1.0);
    places.list("b", &["b", "c"]);
    await_ready(&b, "");
    await_ready(&c, "");
    assert_eq!(send(&b, &user), (Some(true), 1));
}

/// Two that list a third one and not each other (routing-protocol.md D3): they meet, and the link stays.
#[test]
fn nodes_that_know_of_each_other_by_a_third_one_are_linked_and_stay_so() {
    let places = Places::of(&["a", "b", "c"]);
    places.list("a", &["a"]);
    places.list("b", &["a", "b"]);
    places.list("c", &["a", "c"]);
    let gateways = places.start_all(|_| Vec::new());
    let [a, b, c] = &gateways[..] else { unreachable!() };
    await_ready(b, "linked to c, which");
    await_ready(c, "linked to b, which");
    await_ready(a, "linked to b, which");
    await_ready(a, "linked to c, which");
    let opened = |gateway| count(gateway, "pinion_peer_opened_total");
    // Who has the lower id dials.
    let once = eventually("links", || {
        let opened = [a, b, c].map(opened);
        (opened[0] >= 2.0 && opened[1] >= 1.0).then_some(opened)
    });
    assert_eq!(once[2], 0.0);
    let frames = count(b, "pinion_peer_frames_total");
    // Several beats of both peers, there and back.
    eventually("beats", || (count(b, "pinion_peer_frames_total") >= frames + 16.0).then_some(()));
    assert_eq!([a, b, c].map(opened), once, "no link was made anew");
    for gateway in [a, b, c] {
        assert_eq!(count(gateway, "pinion_peer_links"), 2.0);
        eventually("complete", || (send(gateway, "nobody").0 == Some(true)).then_some(()));
    }
}

fn configure(file: &Path, token: &str) {
    std::fs::write(file, format!("rpc.token: {token}\n")).unwrap();
}

/// A token that is changed by a reload counts for links that are made after it; those that stand go on.
#[test]
fn links_follow_a_reloaded_token() {
    const TOKENS: [&str; 2] = ["0123456789abcdef", "fedcba9876543210"];
    let places = Places::of(&["a", "b"]);
    places.list("a", &["a", "b"]);
    places.list("b", &["a", "b"]);
    let file = |name: &str| places.file(&format!("{name}.yaml"));
    let more = |name: &str| vec!["--config".to_owned(), file(name).display().to_string()];
    configure(&file("a"), TOKENS[0]);
    configure(&file("b"), TOKENS[0]);
    let mut gateways = places.start_all(more);
    for gateway in &gateways {
        await_ready(gateway, "");
    }
    let a = gateways.remove(0);
    let opened = || count(&a, "pinion_peer_opened_total");
    let before = eventually("a link", || Some(opened()).filter(|opened| *opened >= 1.0));
    for (name, gateway) in [("a", &a), ("b", &gateways[0])] {
        configure(&file(name), TOKENS[1]);
        gateway.signal(Signal::HUP);
        eventually("the reload", || {
            (gateway.metrics().sum("pinion_reloads_total", &["outcome=\"applied\""]) > 0.0).then_some(())
        });
        await_ready(gateway, "");
    }
    assert_eq!(opened(), before, "the link that stands goes on");
    drop(gateways);
    await_ready(&a, "not linked to b");
    let b = places.start("b", &more("b").iter().map(String::as_str).collect::<Vec<_>>());
    await_ready(&b, "");
    await_ready(&a, "");
    eventually("another link", || (opened() > before).then_some(()));
}

/// Two processes of one name: the others link the later one, and the earlier one is told why it has no link.
#[test]
fn the_earlier_of_two_processes_of_a_name_is_denied_and_all_say_so() {
    let places = Places::of(&["b", "c", "copy"]);
    places.list("b", &["b", "c"]);
    places.list("c", &["b", "c"]);
    let copied = format!("b rpc=localhost:{}\nc rpc=localhost:{}\n", places.port("copy"), places.port("c"));
    std::fs::write(places.file("copy"), copied).unwrap();
    let (b, c) = std::thread::scope(|scope| {
        let b = scope.spawn(|| places.start("b", &[]));
        let c = scope.spawn(|| places.start("c", &[]));
        (b.join().unwrap(), c.join().unwrap())
    });
    await_ready(&b, "");
    await_ready(&c, "");
    let copy = places.start_as("copy", "b", &[]);
    await_ready(&copy, "");
    await_ready(&c, "two processes are named b: incarnation ");
    await_ready(&b, "not linked to c (status 9: two processes are named b: ");
    let text = c.get("/readyz").unwrap().1;
    assert!(text.contains(&format!("(at localhost:{})", places.port("b"))), "{text}");
    eventually("counted", || (count(&c, "pinion_cluster_name_clashes_total") >= 1.0).then_some(()));
}
