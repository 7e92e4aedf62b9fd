//! `pinion proxy` before real gateways: where logins land, what clients are told, and what members learn of them.

use std::io::Write;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};

use pinion::cluster::members::MemberList;
use pinion::wire::proxy::{Source, parse};
use rustix::net::{AddressFamily, SocketType, bind, connect, socket};
use rustix::process::Signal;

use crate::harness::proxy::{Proxy, Puppet, SWITCH, ask, head};
use crate::harness::{
    Client, DEADLINE, Gateway, Options, eventually, pinion, run, spawn_without_io_uring, texts,
};

fn members(gateways: &[&Gateway]) -> String {
    let line = |(n, gateway): (usize, &&Gateway)| format!("gw-{n} ws=ws://{}\n", gateway.websocket);
    gateways.iter().enumerate().map(line).collect()
}

fn login(proxy: &Proxy, gateway: &Gateway, user: &str) -> Client {
    Client::connect(proxy.listen, user, 1, &gateway.token(user, 1), &Options::default())
        .unwrap_or_else(|e| panic!("{user}: {e}\n{}", proxy.logs()))
}

/// Users that belong to each of two gateways.
fn users(list: &str, per_node: usize) -> [Vec<String>; 2] {
    let homes = MemberList::parse(list).unwrap().homes();
    ["gw-0", "gw-1"].map(|node| {
        let all = (0..).map(|n| format!("user{n}"));
        all.filter(|user| homes.home(user).unwrap().as_str() == node).take(per_node).collect()
    })
}

#[test]
fn a_login_lands_at_its_home_and_messages_of_any_size_go_both_ways() {
    let gateways = [Gateway::start(&["--shards-count", "1"]), Gateway::start(&["--shards-count", "1"])];
    let list = members(&gateways.each_ref());
    for relay in ["auto", "splice", "copy"] {
        let proxy = Proxy::start(&list, &["--relay", relay]);
        for (gateway, users) in gateways.iter().zip(users(&list, 4)) {
            for user in &users {
                let mut client = login(&proxy, gateway, user);
                for text in ["short".to_owned(), "long".repeat(60_000)] {
                    let answer = gateway.push("somebody", &[user], &text);
                    assert!(
                        answer.single_push_result.iter().any(|one| one.online_push),
                        "{user} is not at home"
                    );
                    assert!(client.pushed_text() == text);
                }
            }
        }
        proxy.until("dials_total", "outcome=\"home\"", 8.0);
        assert_eq!(proxy.metrics().sum("pinion_proxy_dials_total", &["alternative"]), 0.0);
        proxy.until_level("pairs", 0.0);
    }
}

#[test]
fn answers_to_bad_logins_come_as_the_gateway_gives_them() {
    let gateway = Gateway::start(&["--shards-count", "1"]);
    let proxy = Proxy::start(&members(&[&gateway]), &[]);
    let upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                   Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    for (target, headers) in [
        ("/?sendID=u&token=bad&platformID=1&operationID=o&isBackground=false", upgrade),
        ("/?sendID=u&token=bad&platformID=x&operationID=o&isBackground=false", upgrade),
        ("/?token=bad&platformID=1&operationID=o&isBackground=false", upgrade),
        ("/a/../b?sendID=u", upgrade),
        ("/", upgrade),
        ("/?v=e30", "\r\n"),
    ] {
        let request = format!("GET {target} HTTP/1.1\r\nHost: it\r\n{headers}");
        let (direct, relayed) =
            (ask(gateway.websocket, request.as_bytes()), proxy.exchange(request.as_bytes()));
        assert_eq!(direct, relayed, "{target}");
        assert!(direct.starts_with("HTTP/1.1 ") && direct.len() > 50, "{direct}");
    }
    proxy.until("handshakes_total", "refused_by_member", 6.0);
}

#[test]
fn a_dead_home_is_passed_over_and_its_clients_see_the_end() {
    let mut gateways = [Gateway::start(&["--shards-count", "1"]), Gateway::start(&["--shards-count", "1"])];
    let list = members(&gateways.each_ref());
    let proxy = Proxy::start(&list, &["--threads", "1"]);
    let [_, ours] = users(&list, 3);
    let mut client = login(&proxy, &gateways[1], &ours[0]);
    gateways[1].signal(Signal::KILL);
    gateways[1].wait();
    assert_eq!(client.closed(), None, "the end of the stream, without a close frame");
    for user in &ours {
        let mut client = login(&proxy, &gateways[0], user);
        gateways[0].push("somebody", &[user], "elsewhere");
        assert_eq!(client.pushed_text(), "elsewhere");
    }
    let count = |label: &str| proxy.metrics().sum("pinion_proxy_dials_total", &[label]);
    proxy.until("dials_total", "alternative", 3.0);
    assert!((1.0..=3.0).contains(&count("refused")), "it is not tried each time: {}", count("refused"));
    assert!(proxy.logs().contains("gw-1"), "the log names the member");
    gateways[0].signal(Signal::KILL);
    gateways[0].wait();
    let none = "thread=\"0\",outcome=\"no_member_reached\"} 0\n";
    // The kernel may take back the listeners of a ring a moment after its process has ended: until then a dial ends
    // without an answer, which is a 502 as well.
    eventually("no member is reached", || {
        let answer = proxy.exchange(head("u").as_bytes());
        let is_refused = answer.starts_with("HTTP/1.1 502 Bad Gateway\r\nRetry-After: 1\r\n");
        assert!(is_refused && !answer.contains('{'), "{answer}");
        (!proxy.get("/metrics").1.contains(none)).then_some(())
    });
}

#[test]
fn a_gateway_that_requires_the_header_takes_it() {
    for version in ["v1", "v2"] {
        let gateway = Gateway::start(&[
            "--shards-count",
            "1",
            "--websocket-proxies",
            "127.0.0.1",
            "--websocket-proxy-protocol",
            "required",
        ]);
        let proxy = Proxy::start(&members(&[&gateway]), &["--proxy-protocol", version]);
        let token = gateway.token("u", 1);
        let mut client = from("127.0.0.9", proxy.listen);
        let head = head("u").replace(
            "sendID=u",
            &format!("sendID=u&token={token}&platformID=1&operationID=o&isBackground=false"),
        );
        client.write_all(head.as_bytes()).unwrap();
        // A gateway that requires the header lets nobody in without one; its bytes are looked at below.
        let who = eventually("the login", || {
            let who = gateway.get("/v1/who?user=u").unwrap().1;
            who.contains("connection_id").then_some(who)
        });
        let own = client.local_addr().unwrap().to_string();
        assert!(who.contains(&format!("\"peer\":\"{own}\"")), "not {own}: {who}");
        drop(client);
        let peer = format!("peer={own}");
        eventually("the last line", || {
            gateway.logs().lines().any(|l| l.contains("session over") && l.contains(&peer)).then_some(())
        });
    }
}

/// Operators see the client and not the proxy, whichever shard the user belongs to.
#[test]
fn a_client_behind_a_proxy_of_http_is_shown_by_his_own_address() {
    let gateway = Gateway::start(&["--shards-count", "2", "--websocket-proxies", "127.0.0.1"]);
    for (n, (named, shown, log)) in [
        ("192.0.2.7", "192.0.2.7:0", "peer=192.0.2.7 "),
        ("192.0.2.7:99", "192.0.2.7:99", "peer=192.0.2.7:99 "),
        ("[2001:db8::9]:99", "[2001:db8::9]:99", "peer=[2001:db8::9]:99 "),
    ]
    .into_iter()
    .cycle()
    .take(12)
    .enumerate()
    {
        let user = format!("user{n}");
        let token = gateway.token(&user, 1);
        let mut client = from("127.0.0.1", gateway.websocket);
        let head = head(&user)
            .replace(
                &format!("sendID={user}"),
                &format!("sendID={user}&token={token}&platformID=1&operationID=o&isBackground=false"),
            )
            .replace("Host: it", &format!("Host: it\r\nX-Forwarded-For: {named}"));
        client.write_all(head.as_bytes()).unwrap();
        let who = eventually("the login", || {
            let who = gateway.get(&format!("/v1/who?user={user}")).unwrap().1;
            who.contains("connection_id").then_some(who)
        });
        assert!(who.contains(&format!("\"peer\":\"{shown}\"")), "not {shown}: {who}");
        drop(client);
        let user = format!("user={user} ");
        eventually("the last line", || {
            let logs = gateway.logs();
            let over = logs.lines().find(|l| l.contains("session over") && l.contains(&user))?;
            assert!(over.contains(log), "no {log}: {over}");
            Some(())
        });
    }
    assert!(gateway.metrics().sum("pinion_hand_overs_total", &["in"]) > 0.0, "every user was at home");
}

/// A connection from this address of the loopback interface.
fn from(source: &str, to: SocketAddr) -> TcpStream {
    let fd = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    let source: IpAddr = source.parse().unwrap();
    bind(&fd, &SocketAddr::new(source, 0)).unwrap();
    connect(&fd, &to).unwrap();
    let socket = TcpStream::from(fd);
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    socket
}

/// Spec trap 38: the whole query goes on.
#[test]
fn the_head_is_forwarded_as_it_came_behind_the_header() {
    let member = Puppet::new();
    for version in ["v1", "v2", "off"] {
        let proxy = Proxy::start(&member.line("a"), &["--proxy-protocol", version]);
        let mut client = from("127.0.0.7", proxy.listen);
        let head = head("u").replace("Host: it", "host:  IT \r\nX-Odd: \u{e9}\r\nx-forwarded-for: 1.2.3.4");
        for piece in head.as_bytes().chunks(7) {
            client.write_all(piece).unwrap();
        }
        let (mut socket, mut came) = member.take();
        if version != "off" {
            let (source, n) = parse(&came).unwrap().unwrap();
            assert_eq!(source, Source::Client(client.local_addr().unwrap()));
            came.drain(..n);
        }
        assert_eq!(String::from_utf8(came).unwrap(), head);
        socket.write_all(SWITCH).unwrap();
    }
}

#[test]
fn it_runs_where_io_uring_is_denied() {
    let gateway = Gateway::start(&["--shards-count", "1"]);
    let proxy = Proxy::start_by(spawn_without_io_uring, &members(&[&gateway]), &[]);
    let mut client = login(&proxy, &gateway, "u");
    gateway.push("a", &["u"], "here");
    assert_eq!(client.pushed_text(), "here");
}

#[test]
fn another_member_list_counts_for_the_next_and_a_bad_one_changes_nothing() {
    let (one, two) = (Puppet::new(), Puppet::new());
    let proxy = Proxy::start(&one.line("a"), &[]);
    assert!(
        proxy.banner_line("members").contains("1 in ")
            && proxy.banner_line("members").contains("placement rendezvous")
    );
    let (_client, _member) = one.pair(&proxy);
    proxy.set_members("nonsense here");
    proxy.until("member_lists_total", "refused", 1.0);
    drop(one.pair(&proxy));
    proxy.set_members(&two.line("b"));
    proxy.until("member_lists_total", "taken", 1.0);
    // The threads were told before or after the count: whoever comes to the old one is let go.
    drop(one);
    drop(two.pair(&proxy));
    proxy.until("pairs", "", 1.0);
}

#[test]
fn wrong_input_is_named_and_the_start_line_says_the_limits() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m");
    let here = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = here.local_addr().unwrap().to_string();
    let start = |text: &str, flags: &[&str]| {
        std::fs::write(&path, text).unwrap();
        let listen: &[&str] = if flags.contains(&"--listen") { &[] } else { &["--listen", "127.0.0.1:0"] };
        let all = [&["proxy", "--members", path.to_str().unwrap()][..], listen].concat();
        texts(&run(pinion(&[&all[..], flags].concat())))
    };
    for (text, flags, part) in [
        ("a\n", &[][..], "label.proxy=HOST:PORT"),
        ("a ws=ws://x:1\nb weight=0", &[], "line 2: weight=0"),
        ("a ws=ws://127.0.0.1:1", &["--pairs-max", "4000000000"], "LimitNOFILE"),
        (
            "a ws=ws://127.0.0.1:1",
            &["--cluster-source", "etcd", "--placement", "openim-ring"],
            "--cluster-placement says rendezvous",
        ),
        ("a ws=ws://127.0.0.1:1", &["--http-listen", "203.0.113.1:1"], "203.0.113.1:1 (--http-listen)"),
        ("a ws=ws://127.0.0.1:1", &["--http-listen", &taken], "set --http-listen to a free one"),
        ("a ws=ws://127.0.0.1:1", &["--http-listen", "127.0.0.1:0", "--listen", &taken], "set --listen to"),
    ] {
        let (code, out, err) = start(text, flags);
        assert!(code == if part.contains("listen") { 1 } else { 2 } && out.is_empty(), "{code} {out} {err}");
        assert!(err.contains(part), "no {part}: {err}");
    }
    let (code, _, err) = texts(&run(pinion(&["proxy", "--listen", "127.0.0.1:0"])));
    assert!(code == 2 && err.contains("--members FILE, or --cluster-source etcd"), "{err}");
    let mut strange = pinion(&["proxy", "--listen", "127.0.0.1:0"]);
    strange.env("PINION_CLUSTER_SOURCE", "zookeeper").env("PINION_RPC_LISTEN", "nonsense");
    let (code, _, err) = texts(&run(strange));
    assert!(code == 2 && err.contains("PINION_CLUSTER_SOURCE") && !err.contains("nonsense"), "{err}");
    // The nodes' own configuration: of a static cluster it has the list.
    std::fs::write(&path, "a ws=ws://127.0.0.1:1\n").unwrap();
    let file = dir.path().join("nodes.yaml");
    let text = format!("cluster.source: static\ncluster.members: {}\ncluster.node_id: a\n", path.display());
    std::fs::write(&file, text).unwrap();
    let proxy = Proxy::start_watching(&["--config", file.to_str().unwrap()]);
    assert!(proxy.banner_line("members").contains("1 in "), "{:?}", proxy.banner);
    let proxy = Proxy::start("a ws=ws://127.0.0.1:1", &["--pairs-max", "50", "--relay", "copy"]);
    let limits = proxy.banner_line("limits");
    assert!(
        limits.contains(" 50 pairs, any number of one address; ") && limits.contains("open files"),
        "{limits}"
    );
    assert!(proxy.banner_line("relay").ends_with("copy"));
    let help = texts(&run(pinion(&["proxy", "--help"]))).1;
    assert!(help.contains("pinion proxy --listen 0.0.0.0:10000 --members members"), "{help}");
    for (path, want) in [("/healthz", 200), ("/readyz", 200), ("/nothing", 404)] {
        assert_eq!(proxy.get(path).0, want, "{path}");
    }
}
