//! `pinion dispatch` among real gateways: who is handed out, who is not, and why.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::ops::{Deref, DerefMut};
use std::path::PathBuf;
use std::process::{Child, Command};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use pinion::cluster::members::MemberList;
use pinion::placement::Algorithm;
use rustix::process::Signal;

use crate::assign::{Answered, Asker};
use crate::harness::authority::{Authority, When};
use crate::harness::{Gateway, Process, eventually, metrics, pinion, run, texts};

/// A running dispatcher and the files it reads.
pub struct Dispatcher {
    process: Process,
    folder: tempfile::TempDir,
    pub assign: SocketAddr,
    pub http: SocketAddr,
}

impl Dispatcher {
    fn start(members: &str, rules: &str, flags: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in [("members", members), ("rules", rules)] {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
        let (members, rules) = (path("members"), path("rules"));
        let files = ["--members", &members, "--assign-rules", &rules];
        Self::spawned(Command::spawn, folder, &[&files[..], flags].concat())
    }

    /// Without a list: the flags say where the members are.
    pub fn start_watching(flags: &[&str]) -> Self {
        Self::start_watching_by(Command::spawn, flags)
    }

    /// As [`Dispatcher::start_watching`]; `spawn` may do something to the process.
    pub fn start_watching_by(
        spawn: impl FnOnce(&mut Command) -> std::io::Result<Child>,
        flags: &[&str],
    ) -> Self {
        Self::spawned(spawn, tempfile::tempdir().unwrap(), flags)
    }

    fn spawned(
        spawn: impl FnOnce(&mut Command) -> std::io::Result<Child>,
        folder: tempfile::TempDir,
        flags: &[&str],
    ) -> Self {
        let own = ["dispatch", "--assign-listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0"];
        let rates = ["--assign-address-requests-per-s", "0", "--assign-requests-per-s", "0"];
        let process = Process::start_by(spawn, &[&own[..], &rates, flags].concat());
        let (assign, http) = (process.banner_address("assign"), process.banner_address("http"));
        Self { process, folder, assign, http }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn ask(&self, query: &str) -> Answered {
        Asker::new(self.assign).ask("GET", &format!("/v1/assign?{query}"), "")
    }

    pub fn nodes(&self, user: &str) -> Vec<String> {
        self.ask(&format!("userID={user}")).nodes()
    }

    pub fn metric(&self, family: &str, label: &str) -> f64 {
        metrics(self.http).sum(family, &[label])
    }
}

impl Deref for Dispatcher {
    type Target = Process;

    fn deref(&self) -> &Process {
        &self.process
    }
}

impl DerefMut for Dispatcher {
    fn deref_mut(&mut self) -> &mut Process {
        &mut self.process
    }
}

fn gateway(name: &str, flags: &[&str]) -> Gateway {
    Gateway::start(&[&["--cluster-node-id", name], flags].concat())
}

fn member(name: &str, gateway: &Gateway, more: &str) -> String {
    format!("{name} ws=ws://{name}.it/ rpc={} {more}\n", gateway.grpc)
}

/// The nodes of a list in the order in which they would be a user's home.
fn ranked(list: &str, user: &str) -> Vec<String> {
    let view = MemberList::parse(list).unwrap().view();
    view.placement(&Algorithm::Rendezvous).ranked(user, 9).iter().map(ToString::to_string).collect()
}

#[test]
fn only_who_is_active_answers_and_takes_clients_is_handed_out() {
    let mut gateways = ["gw-0", "gw-1", "gw-2"].map(|name| gateway(name, &[]));
    let list = |states: [&str; 3]| -> String {
        let lines = (0..3).map(|n| member(&format!("gw-{n}"), &gateways[n], states[n]));
        lines.collect()
    };
    let all = list([""; 3]);
    let dispatcher = Dispatcher::start(&all, "", &["--assign-fallback", "ws://static.it/"]);
    assert!(
        dispatcher.banner.iter().any(|line| line.starts_with("members    3 in ")),
        "{:?}",
        dispatcher.banner
    );
    let want = ranked(&all, "u");
    assert_eq!(dispatcher.nodes("u"), want);
    // The list says that the home drains.
    let home = want[0][3..].parse::<usize>().unwrap();
    let mut states = [""; 3];
    for state in ["state=draining", "state=joining", "state=lost"] {
        states[home] = state;
        std::fs::write(dispatcher.file("members"), list(states)).unwrap();
        eventually(state, || (dispatcher.nodes("u") == want[1..]).then_some(()));
        std::fs::write(dispatcher.file("members"), &all).unwrap();
        eventually("its return", || (dispatcher.nodes("u") == want).then_some(()));
    }
    // A list that is wrong changes nothing.
    std::fs::write(dispatcher.file("members"), format!("{all}gw-0\ngw-9 weight=0\n")).unwrap();
    eventually("the complaint", || dispatcher.logs().contains("members: line 5: weight=0").then_some(()));
    assert!(dispatcher.logs().contains("members: line 4: gw-0 is listed already"));
    assert_eq!(dispatcher.nodes("u"), want);
    // One after the other dies.
    for (dead, name) in want.iter().enumerate() {
        let n = name[3..].parse::<usize>().unwrap();
        gateways[n].signal(Signal::KILL);
        gateways[n].wait();
        let left = if dead == 2 { vec!["ws://static.it/".to_owned()] } else { want[dead + 1..].to_vec() };
        eventually("the death to be seen", || (dispatcher.nodes("u") == left).then_some(()));
        let said = || dispatcher.logs().matches("does not answer").count();
        eventually("the warning", || (said() == dead + 1).then_some(()));
    }
    assert_eq!(dispatcher.ask("userID=u").json()["static"], true);
    let unreachable = || dispatcher.metric("pinion_assign_members", "unreachable");
    eventually("the count", || (unreachable() == 3.0).then_some(()));
    for (family, outcome, least) in
        [("polls", "failed", 9.0), ("polls", "answered", 1.0), ("answers", "static", 1.0)]
    {
        let count = || dispatcher.metric(&format!("pinion_assign_{family}_total"), outcome);
        eventually("a count", || (count() >= least).then_some(()));
    }
    assert_eq!(Asker::new(dispatcher.http).ask("GET", "/readyz", "").status, 200, "a static answer is one");
}

#[test]
fn a_full_node_goes_behind_and_comes_back() {
    let gateways = ["gw-0", "gw-1"].map(|name| gateway(name, &["--websocket-connections-max", "4"]));
    let list: String = (0..2).map(|n| member(&format!("gw-{n}"), &gateways[n], "")).collect();
    let dispatcher = Dispatcher::start(&list, "", &["--assign-load-max", "50"]);
    let want = ranked(&list, "u");
    assert_eq!(dispatcher.nodes("u"), want);
    let home = &gateways[want[0][3..].parse::<usize>().unwrap()];
    let clients = [home.connect("a", 1), home.connect("b", 1)];
    let moved: Vec<String> = want.iter().rev().cloned().collect();
    let found = eventually("the load to be seen", || {
        let found = dispatcher.ask("userID=u");
        (found.nodes() == moved).then_some(found)
    });
    assert_eq!(found.json()["home"], "full");
    drop(clients);
    eventually("room again", || (dispatcher.nodes("u") == want).then_some(()));
}

#[test]
fn rules_come_first_and_sighup_reads_them_again() {
    let list = "a ws=ws://a\nb ws=ws://b label.region=eu\nc ws=ws://c label.region=eu\n";
    let rules = "staff users=boss -> nodes=a\neu label.region=eu platform=Web -> label.region=eu\n";
    let dispatcher = Dispatcher::start(list, rules, &[]);
    for (query, rule, nodes) in [
        ("userID=boss&platformID=1", Some("staff"), 1),
        ("userID=u&platformID=5&label.region=eu", Some("eu"), 2),
        ("userID=u&platformID=1&label.region=eu", None, 3),
    ] {
        let found = dispatcher.ask(query);
        assert_eq!((found.json()["rule"].as_str(), found.nodes().len()), (rule, nodes), "{query}");
    }
    // What the command says is what clients get.
    let path = |name: &str| dispatcher.file(name).to_str().unwrap().to_owned();
    let (members, file) = (path("members"), path("rules"));
    let said = ["route", "where", "boss", "--members", &members, "--rules", &file];
    let (code, out, _) = texts(&run(pinion(&said)));
    assert!(code == 0 && out.contains("assign     ws://a, by rule staff"), "{out}");
    let hang_up = || dispatcher.signal(Signal::HUP);
    std::fs::write(dispatcher.file("rules"), "staff users=boss -> nodes=b\nno arrow\n").unwrap();
    hang_up();
    eventually("the complaint", || dispatcher.logs().contains("rules: line 2: ").then_some(()));
    assert_eq!(dispatcher.nodes("boss"), ["a"], "all stays as it was");
    std::fs::write(dispatcher.file("rules"), "staff users=boss -> nodes=b\n").unwrap();
    hang_up();
    eventually("the new rule", || (dispatcher.nodes("boss") == ["b"]).then_some(()));
}

#[test]
fn another_node_at_a_members_address_is_none_of_its_answers() {
    let other = gateway("gw-9", &[]);
    let list = member("gw-0", &other, "");
    let dispatcher = Dispatcher::start(&list, "", &[]);
    eventually("the mistake to be seen", || (dispatcher.ask("userID=u").status == 503).then_some(()));
    eventually("the reason", || dispatcher.logs().contains("gw-9 answers at its address").then_some(()));
    assert_eq!(Asker::new(dispatcher.http).ask("GET", "/readyz", "").status, 503);
}

#[test]
fn members_behind_a_token_are_asked_with_it() {
    const TOKEN: &str = "a-token-of-the-gateways";
    let there = gateway("gw-0", &["--rpc-token", TOKEN]);
    let list = member("gw-0", &there, "");
    let with = Dispatcher::start(&list, "", &["--rpc-token", TOKEN]);
    let without = Dispatcher::start(&list, "", &[]);
    eventually("the refusals", || (without.ask("userID=u").status == 503).then_some(()));
    assert_eq!(with.nodes("u"), ["gw-0"]);
    assert!(with.metric("pinion_assign_polls_total", "failed") == 0.0);
}

#[test]
fn it_ends_at_once_and_says_what_it_lacks() {
    let mut dispatcher = Dispatcher::start("a ws=ws://a\n", "", &[]);
    dispatcher.signal(Signal::TERM);
    assert!(dispatcher.wait().success());
    assert!(!dispatcher.logs().contains("did not end in time"), "it waits for nothing");
    let missing = dispatcher.file("nothing");
    let missing = missing.to_str().unwrap();
    let (listen, fallback) = (["--assign-listen", "127.0.0.1:0"], ["--assign-fallback", "ws://a"]);
    for (flags, part) in [
        (&["--members", missing][..], "needs assign.listen"),
        (&listen[..], "cluster.ws_url"),
        (&[&listen[..], &["--members", missing]].concat(), "No such file"),
    ] {
        let (code, _, err) =
            texts(&run(pinion(&[&["dispatch", "--http-listen", "127.0.0.1:0"], flags].concat())));
        assert!(code == 2 && err.contains(part), "{flags:?}: {code} {err}");
    }
    // Of a fault one is told, and not what follows from it.
    let unknown = [&["dispatch", "--cluster-source", "etdc"], &listen[..]].concat();
    let (code, _, err) = texts(&run(pinion(&unknown)));
    assert!(code == 2 && err.contains("1 fault") && err.contains("`etcd`"), "{code} {err}");
    // The help has what counts here; a node's other settings are taken all the same.
    let help = texts(&run(pinion(&["dispatch", "--help"]))).1;
    assert!(help.contains("--assign-fallback") && !help.contains("--websocket-port"), "{help}");
    // With something to hand out it starts, and takes the list when it comes.
    let dispatcher = Dispatcher::start("", "", &fallback);
    eventually("the warning", || dispatcher.logs().contains("answers are static").then_some(()));
    assert_eq!(dispatcher.nodes("u"), ["ws://a"]);
    std::fs::write(dispatcher.file("members"), "b ws=ws://b\n").unwrap();
    eventually("the list", || (dispatcher.nodes("u") == ["b"]).then_some(()));
}

/// Counts the connections that pass through it to an address.
fn counted(to: SocketAddr) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let count = Arc::<AtomicUsize>::default();
    let seen = Arc::clone(&count);
    std::thread::spawn(move || {
        for near in listener.incoming().map_while(Result::ok) {
            seen.fetch_add(1, Ordering::SeqCst);
            let Ok(far) = TcpStream::connect(to) else { continue };
            for (mut from, mut to) in
                [(near.try_clone().unwrap(), far.try_clone().unwrap()), (far.try_clone().unwrap(), near)]
            {
                std::thread::spawn(move || {
                    let _ = std::io::copy(&mut from, &mut to);
                    let _ = to.shutdown(std::net::Shutdown::Both);
                });
            }
        }
    });
    (address, count)
}

#[test]
fn a_member_is_asked_on_one_connection_until_that_ends() {
    let mut there = gateway("gw-0", &[]);
    let (rpc, count) = counted(there.grpc);
    let dispatcher = Dispatcher::start(&format!("gw-0 ws=ws://gw-0.it/ rpc={rpc}\n"), "", &[]);
    let answered = || dispatcher.metric("pinion_assign_polls_total", "answered");
    eventually("some answers", || (answered() >= 3.0).then_some(()));
    assert_eq!(count.load(Ordering::SeqCst), 1, "connections for {} answers", answered());
    // A reload asks anew, and nothing that was known is lost.
    dispatcher.signal(Signal::HUP);
    eventually("the reload", || dispatcher.logs().contains("configuration reloaded").then_some(()));
    eventually("its connection", || (count.load(Ordering::SeqCst) == 2).then_some(()));
    assert_eq!(dispatcher.nodes("u"), ["gw-0"]);
    there.signal(Signal::KILL);
    there.wait();
    eventually("its death to be seen", || (dispatcher.ask("userID=u").status == 503).then_some(()));
    let unreachable = || dispatcher.metric("pinion_assign_members", "unreachable");
    eventually("the count", || (unreachable() == 1.0).then_some(()));
}

#[test]
fn certificates_are_read_again_with_the_configuration() {
    let (authority, other) = (Authority::new("nodes", When::Now), Authority::new("others", When::Now));
    let files = tempfile::tempdir().unwrap();
    let folder = files.path();
    let (cert, key) = authority.write_pair(folder, "node", &["127.0.0.1"], When::Now);
    let node_ca = authority.write(folder, "node");
    let ca = other.write(folder, "believed");
    let text = |path: &std::path::Path| path.to_str().unwrap().to_owned();
    let pair = ["--rpc-tls-cert".to_owned(), text(&cert), "--rpc-tls-key".to_owned(), text(&key)];
    let flags = |ca: &std::path::Path| [&pair[..], &["--rpc-tls-client-ca".to_owned(), text(ca)]].concat();
    let (of_node, own) = (flags(&node_ca), flags(&ca));
    let there = gateway("gw-0", &of_node.iter().map(String::as_str).collect::<Vec<_>>());
    let dispatcher = Dispatcher::start(
        &member("gw-0", &there, ""),
        "",
        &own.iter().map(String::as_str).collect::<Vec<_>>(),
    );
    eventually("a certificate that is not believed", || {
        (dispatcher.metric("pinion_assign_members", "unreachable") == 1.0).then_some(())
    });
    std::fs::write(&ca, authority.pem()).unwrap();
    dispatcher.signal(Signal::HUP);
    eventually("the member", || (dispatcher.ask("userID=u").status == 200).then_some(()));
    // A file that is no good changes nothing.
    std::fs::write(&ca, "nonsense").unwrap();
    dispatcher.signal(Signal::HUP);
    eventually("the complaint", || dispatcher.logs().contains("configuration not reloaded").then_some(()));
    assert_eq!(dispatcher.nodes("u"), ["gw-0"]);
}
