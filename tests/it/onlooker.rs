//! `pinion dispatch` and `pinion proxy` with members in a real etcd: whom they hand out and bring to, and what stands
//! while etcd is away.

use std::io::{Read, Write};
use std::process::Command;

use pinion::placement::view::{Member, MemberState, NodeId};

use crate::assign::Asker;
use crate::assign_dispatch::Dispatcher;
use crate::control::servers::{Etcd, Front};
use crate::harness::authority::{Authority, When};
use crate::harness::proxy::{Proxy, Puppet, SWITCH, head};
use crate::harness::{ApiServer, Client, Gateway, NAMESPACE, Options, eventually};

fn record(etcd: &Etcd, name: &str, url: &str, state: MemberState) {
    let member = Member { state, ws_url: url.to_owned(), ..Member::new(NodeId::new(name).unwrap()) };
    etcd.put(&format!("prod/nodes/{name}"), &serde_json::to_string(&member).unwrap());
    etcd.put(&format!("prod/live/{name}/1"), "alive");
}

const SOURCE: [&str; 6] = ["--cluster-source", "etcd", "--cluster-root", "prod", "--cluster-lease-ms", "3s"];

#[test]
fn dispatch_hands_out_who_is_active_in_etcd_and_goes_on_without_it() {
    let (etcd, front) = (Etcd::start(), Front::new());
    let address = front.address.to_string();
    let at = ["--discovery-etcd-addresses", &address, "--assign-fallback", "ws://static.it/"];
    let dispatcher = Dispatcher::start_watching(&[&SOURCE[..], &at].concat());
    let line = |word: &str| dispatcher.banner.iter().find(|line| line.starts_with(word)).cloned();
    assert!(line("watches").unwrap().contains(&format!("etcd at {address}, below prod")));
    let ready = || {
        let found = Asker::new(dispatcher.http).ask("GET", "/readyz", "");
        (found.status, found.body)
    };
    // Nothing was ever heard: the static answer.
    assert_eq!(dispatcher.ask("userID=u").json()["static"], true);
    eventually("the log", || dispatcher.logs().contains("the members are not watched").then_some(()));
    assert!(ready().1.contains("nothing was ever heard of the members"), "{:?}", ready());
    assert_eq!(dispatcher.metric("pinion_discovery_current", ""), 0.0);
    for (name, state) in
        [("a", MemberState::Active), ("b", MemberState::Draining), ("c", MemberState::Active)]
    {
        record(&etcd, name, &format!("ws://{name}.it/"), state);
    }
    front.open(etcd.0.address);
    let mut of_all: Vec<String> = eventually("the members", || {
        let nodes = dispatcher.nodes("u");
        (nodes.len() == 2 && !nodes[0].starts_with("ws")).then_some(nodes)
    });
    of_all.sort_unstable();
    assert_eq!(of_all, ["a", "c"], "who drains is not handed out");
    eventually("readiness", || (ready() == (200, "ready\n".to_owned())).then_some(()));
    eventually("the gauge", || (dispatcher.metric("pinion_discovery_current", "") == 1.0).then_some(()));
    record(&etcd, "a", "ws://a.it/", MemberState::Draining);
    record(&etcd, "b", "ws://b.it/", MemberState::Active);
    eventually("another view", || {
        let mut nodes = dispatcher.nodes("u");
        nodes.sort_unstable();
        (nodes == ["b", "c"]).then_some(())
    });
    // A dead one, which nobody has written down.
    etcd.delete("prod/live/b/1");
    eventually("the death", || (dispatcher.nodes("u") == ["c"]).then_some(()));
    // etcd is away: the last view stands, and it is said.
    front.cut();
    eventually("the word", || ready().1.contains("the members are not watched").then_some(()));
    assert_eq!((ready().0, dispatcher.nodes("u")), (200, vec!["c".to_owned()]));
    eventually("the gauge", || (dispatcher.metric("pinion_discovery_current", "") == 0.0).then_some(()));
    assert!(dispatcher.metric("pinion_cluster_source_failures_total", "") >= 1.0);
    front.open(etcd.0.address);
    eventually("readiness", || (ready() == (200, "ready\n".to_owned())).then_some(()));
}

#[test]
fn dispatch_logs_in_at_etcd_and_a_list_counts_until_it_has_told() {
    const PASSWORD: &str = "pw";
    let etcd = Etcd::start();
    record(&etcd, "a", "ws://a.it/", MemberState::Active);
    etcd.require_login(PASSWORD);
    let front = Front::new();
    let files = tempfile::tempdir().unwrap();
    let list = files.path().join("members");
    std::fs::write(&list, "listed ws=ws://listed.it/\n").unwrap();
    let address = front.address.to_string();
    let at = ["--discovery-etcd-addresses", &address, "--members", list.to_str().unwrap()];
    let login = ["--discovery-etcd-username", "root", "--discovery-etcd-password", PASSWORD];
    let dispatcher = Dispatcher::start_watching(&[&SOURCE[..], &at, &login].concat());
    assert_eq!(dispatcher.nodes("u"), ["listed"]);
    std::fs::write(&list, "other ws=ws://other.it/\n").unwrap();
    eventually("the list, read again", || (dispatcher.nodes("u") == ["other"]).then_some(()));
    front.open(etcd.0.address);
    eventually("etcd's members", || (dispatcher.nodes("u") == ["a"]).then_some(()));
}

#[test]
fn etcd_is_watched_over_tls_and_only_if_it_is_believed() {
    let (authority, other) = (Authority::new("etcd", When::Now), Authority::new("other", When::Now));
    let files = tempfile::tempdir().unwrap();
    let (certificate, key) = authority.write_pair(files.path(), "etcd", &["127.0.0.1"], When::Now);
    let etcd = Etcd::start_tls(&certificate, &key);
    let address = format!("https://{}", etcd.0.address);
    for (authority, is_believed) in [(&authority, true), (&other, false)] {
        let ca = authority.write(files.path(), "believed");
        let at = ["--discovery-etcd-addresses", &address, "--discovery-etcd-ca", ca.to_str().unwrap()];
        let dispatcher = Dispatcher::start_watching(&[&SOURCE[..], &at].concat());
        let watched = || dispatcher.metric("pinion_discovery_current", "") == 1.0;
        let failures = || dispatcher.metric("pinion_cluster_source_failures_total", "");
        eventually("its verdict", || (watched() || failures() >= 2.0).then_some(()));
        assert_eq!(watched(), is_believed, "{}", dispatcher.logs());
    }
}

#[test]
fn pods_with_a_lease_are_handed_out_and_brought_to() {
    let server = ApiServer::start();
    let spawn = |command: &mut Command| {
        command
            .env("KUBERNETES_SERVICE_HOST", server.address.ip().to_string())
            .env("KUBERNETES_SERVICE_PORT", server.address.port().to_string())
            .spawn()
    };
    let account = server.account().to_str().unwrap();
    let source = [
        &["--cluster-source", "kubernetes", "--cluster-lease-ms", "3s"][..],
        &["--discovery-service-account", account, "--discovery-namespace", NAMESPACE],
    ]
    .concat();
    let dispatcher = Dispatcher::start_watching_by(spawn, &source);
    let proxy = Proxy::start_watching_by(spawn, &source);
    assert_eq!(dispatcher.ask("userID=u").status, 503);
    assert_eq!(proxy.get("/readyz").0, 503);
    server.set_pod("gw-0", "u-0", "app=pinion");
    // Clients get a name; the proxy dials what the label says.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string();
    let label = format!("proxy=127.0.0.1:{port}");
    let own = ["--cluster-node-id", "gw-0", "--cluster-ws-url", "wss://gw-0.it/", "--cluster-labels", &label];
    let at = ["--websocket-address", "127.0.0.1", "--websocket-port", &port];
    let gateway = Gateway::start_by(spawn, &[&source[..], &own, &at].concat());
    eventually("the node", || {
        let found = dispatcher.ask("userID=u");
        (found.status == 200 && found.nodes() == ["gw-0"]).then_some(())
    });
    eventually("the node", || (proxy.get("/readyz") == (200, "ready\n".to_owned())).then_some(()));
    let token = gateway.token("u", 1);
    Client::connect(proxy.listen, "u", 1, &token, &Options::default()).unwrap();
    let leases = |name: &str| server.lease(name).is_some();
    assert!(leases("pinion-gw-0") && !leases("pinion-none"), "lookers have none");
}

#[test]
fn the_proxy_brings_clients_to_who_is_active_in_etcd_and_goes_on_without_it() {
    let (etcd, front) = (Etcd::start(), Front::new());
    let (one, two) = (Puppet::new(), Puppet::new());
    let address = front.address.to_string();
    let at = ["--discovery-etcd-addresses", &address];
    let proxy = Proxy::start_watching(&[&SOURCE[..], &at].concat());
    assert!(
        proxy.banner_line("members").contains(&format!("0 in etcd at {address}, below prod")),
        "{:?}",
        proxy.banner
    );
    assert_eq!(proxy.get("/readyz"), (503, "no member is known\n".to_owned()));
    assert!(proxy.exchange(head("u").as_bytes()).starts_with("HTTP/1.1 502 "));
    let url = |member: &Puppet| format!("ws://{}/", member.address());
    record(&etcd, "one", &url(&one), MemberState::Active);
    record(&etcd, "two", &url(&two), MemberState::Draining);
    front.open(etcd.0.address);
    eventually("the members", || (proxy.get("/readyz") == (200, "ready\n".to_owned())).then_some(()));
    for _ in 0..4 {
        drop(one.pair(&proxy));
    }
    // The other one takes over; whoever is connected stays.
    let (mut client, mut member) = one.pair(&proxy);
    record(&etcd, "two", &url(&two), MemberState::Active);
    record(&etcd, "one", &url(&one), MemberState::Draining);
    eventually("a client of the other", || {
        let mut client = proxy.knock("u");
        let called = Puppet::first_called(&[&one, &two]);
        let (mut socket, _) = [&one, &two][called].take();
        socket.write_all(SWITCH).unwrap();
        client.read_exact(&mut vec![0; SWITCH.len()]).unwrap();
        (called == 1).then_some(())
    });
    member.write_all(b"still").unwrap();
    let mut heard = [0; 5];
    client.read_exact(&mut heard).unwrap();
    assert_eq!(&heard, b"still");
    front.cut();
    proxy.until_level("members_current", 0.0);
    let (status, said) = proxy.get("/readyz");
    assert!(status == 200 && said.contains("the last known ones stand"), "{said}");
    drop(two.pair(&proxy));
    front.open(etcd.0.address);
    proxy.until_level("members_current", 1.0);
}
