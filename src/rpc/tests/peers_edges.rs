//! Links at their edges: names as addresses, nodes that only one side knows, limits, and who may not connect.

use std::net::TcpListener;
use std::rc::Rc;

use super::channel::until;
use super::peers::{Peer, beats, id, on_each, service, until_up};
use super::peers_hostile::refusal_of;
use super::*;
use crate::config::RpcLimits;
use crate::control::lookup::NameAnswer;
use crate::limits::{LINK_GUESTS_MAX, LINK_PEERS_MAX, LINK_SEATS_MAX, LINK_TRANSPORTS_MAX};
use crate::rpc::budget::Ration;
use crate::rpc::peers::LinkEvent;
use crate::rpc::server::{self, Server};
use crate::shard::turn::Turns;

/// An address that nobody listens at.
fn nowhere() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

fn dial(from: &Peer, targets: &[(&str, String)]) {
    from.links.dial(targets.iter().map(|(peer, at)| (id(peer), at.clone())).collect());
}

#[test]
fn a_name_is_looked_up_at_each_attempt_and_its_addresses_take_turns() {
    on_each(async |turns: Turns| {
        let (a, b) = (Peer::start("a", &turns), Peer::start("b", &turns));
        const NAME: &str = "gw-1.gw.default.svc.cluster.local:10140";
        let answer = |found| a.links.looked_up(&NameAnswer { name: NAME.to_owned(), found });
        let asked = async |n: usize| until("a look-up", || a.asked.borrow().len() == n).await;
        dial(&a, &[("b", NAME.to_owned())]);
        asked(1).await;
        a.links.looked_up(&NameAnswer { name: "other:1".into(), found: Ok(vec![b.address]) });
        answer(Err("no such name".to_owned()));
        a.until_refused(&format!("{NAME}: the name cannot be looked up: no such name")).await;
        let both = || Ok(vec![nowhere(), b.address]);
        asked(2).await;
        answer(both());
        a.until_refused(&format!("{NAME}: cannot connect")).await;
        asked(3).await;
        answer(both());
        until_up(&a, &b).await;
        // The pod has moved: what was found for the last link does not count for the next one.
        b.links.close(&a.id, b.up.borrow()[&a.id]);
        until("it is down", || a.closed() == 1).await;
        asked(4).await;
        answer(Ok(vec![b.address]));
        until_up(&a, &b).await;
        assert!(a.asked.borrow().iter().all(|name| name == NAME));
        assert!(a.count_of(Metric::PeerRefused) >= 2);
    });
}

#[test]
fn a_node_that_the_dialler_does_not_know_asks_and_is_dialled() {
    on_each(async |turns: Turns| {
        let (b, c) = (Peer::start("b", &turns), Peer::start("c", &turns));
        let at_c = c.address.to_string();
        dial(&c, &[("b", b.address.to_string()), ("c", at_c.clone())]);
        until_up(&b, &c).await;
        c.until_refused("b has no address of c among its members").await;
        assert!(c.heard.borrow().contains(&LinkEvent::Uncounted(b.id.clone())));
        assert_eq!((b.count_of(Metric::PeerOpened), c.count_of(Metric::PeerOpened)), (1, 0));
        assert!(c.count_of(Metric::PeerKnocks) > 0 && b.refusals().is_empty());
        // Now it is a member: the link stays, and is made anew when it ends.
        dial(&b, &[("c", at_c)]);
        b.send(&c, beats(1..2).remove(0));
        until("it carries", || c.bodies(&b) == beats(1..2)).await;
        assert_eq!(b.closed() + c.closed(), 0);
        c.links.close(&b.id, c.up.borrow()[&b.id]);
        until("it is down", || b.closed() == 1).await;
        until_up(&b, &c).await;
        dial(&b, &[]);
        until("it is let go", || b.closed() == 2).await;
    });
}

#[test]
fn a_node_that_cannot_be_reached_at_its_listed_address_is_told_which_that_is() {
    on_each(async |turns: Turns| {
        let (b, c) = (Peer::start("b", &turns), Peer::start("c", &turns));
        let wrong = nowhere();
        dial(&b, &[("c", wrong.to_string())]);
        dial(&c, &[("b", b.address.to_string()), ("c", c.address.to_string())]);
        c.until_refused(&format!("b dials c at {wrong}; the last attempt: {wrong}: cannot connect")).await;
        assert_eq!((b.links.up(), c.links.up()), (0, 0), "the list counts, not who asks");
        assert!(!c.heard.borrow().contains(&LinkEvent::Uncounted(b.id.clone())), "b counts it");
        // Who names no address that can be dialled is told so, and nothing is dialled.
        let d = Peer::start("d", &turns);
        dial(&d, &[("b", b.address.to_string()), ("d", "d".to_owned())]);
        d.until_refused("is no HOST:PORT").await;
        // Nobody to ask: it is said what is missing.
        dial(&d, &[("b", String::new()), ("e", String::new())]);
        d.until_refused("it has no address HOST:PORT").await;
    });
}

#[test]
fn who_dialled_and_is_denied_is_told_why() {
    on_each(async |turns: Turns| {
        let (a, b) = (Peer::start("a", &turns), Peer::start("b", &turns));
        a.dial(&[&b]);
        until_up(&a, &b).await;
        b.links.deny(&a.id, b.up.borrow()[&a.id], "two processes are named a");
        until("both hear", || a.closed() == 1 && b.closed() == 1).await;
        a.until_refused("status 9: two processes are named a").await;
        b.until_refused("two processes are named a").await;
    });
}

#[test]
fn a_peer_that_says_no_hello_is_cut() {
    on_each(async |turns: Turns| {
        let b = Peer::start("b", &turns);
        let (code, text) = refusal_of(b.address, "a", "b", Vec::new()).await;
        assert!(code == 4 && text.contains("no Hello came in time"), "{code} {text}");
        assert_eq!((b.closed(), b.links.up()), (0, 0), "a router hears nothing of it");
        assert_eq!(b.count_of(Metric::PeerFaults), 1);
    });
}

#[test]
fn peers_and_transports_of_one_peer_are_bounded() {
    on_each(async |turns: Turns| {
        let b = Peer::start("b", &turns);
        let name = |n: usize| id(&format!("a{n:04}"));
        let mut seats: Vec<_> = (0..LINK_PEERS_MAX - 1).map(|n| b.links.seat(name(n))).collect();
        let a = Peer::start("a", &turns);
        a.dial(&[&b]);
        until_up(&a, &b).await;
        let (code, text) = refusal_of(b.address, "aa", "b", Vec::new()).await;
        assert!(code == 8 && text.contains(&format!("of {LINK_PEERS_MAX} nodes")), "{code} {text}");
        // Who is there already may come again, up to its own limit.
        seats.extend((1..LINK_TRANSPORTS_MAX).map(|_| b.links.seat(name(0))));
        let (code, text) = refusal_of(b.address, name(0).as_str(), "b", Vec::new()).await;
        assert!(code == 8 && text.contains(&format!("{LINK_TRANSPORTS_MAX} links of")), "{code} {text}");
        seats.clear();
        let aa = Peer::start("aa", &turns);
        aa.dial(&[&b]);
        until_up(&aa, &b).await;
    });
}

#[test]
fn nodes_that_ask_to_be_dialled_are_bounded() {
    on_each(async |turns: Turns| {
        let b = Peer::start("b", &turns);
        let name = |n: usize| id(&format!("c{n:04}"));
        // Their names are never looked up: all are being dialled.
        for n in 0..LINK_GUESTS_MAX {
            let status = b.links.knocked(&name(n), "c.example:1");
            assert!(status.code == 5 && status.message.contains("b dials c"), "{n}: {status:?}");
        }
        assert_eq!(b.count_of(Metric::PeerRefused), 0);
        let one_more = b.links.knocked(&id("d"), "d.example:1");
        assert_eq!(b.count_of(Metric::PeerRefused), 1);
        assert!(one_more.code == 8 && one_more.message.contains("too many such nodes"), "{one_more:?}");
        assert_eq!(b.links.knocked(&name(0), "c.example:1").code, 5, "who is there already stays");
        // The attempts have ended in vain: there is room.
        until("room", || b.links.knocked(&id("d"), "d.example:1").code == 5).await;
    });
}

#[test]
fn a_dialler_that_meets_only_threads_without_links_gives_up_and_pauses() {
    on_each(async |turns: Turns| {
        let listener = bind_listener("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = listener.local_addr().unwrap();
        let ration = Rc::new(Ration::new(turns.clone()));
        let server = Server::new(service(&config(), &turns), RpcLimits::DEFAULT, turns.clone(), ration);
        monoio::spawn(server::accept(listener, server));
        let a = Peer::start("a", &turns);
        dial(&a, &[("b", address.to_string())]);
        a.until_refused("its thread that keeps links was not reached").await;
        let dials = a.count_of(Metric::PeerDials);
        assert_eq!((dials, a.refusals().len()), (u64::from(LINK_SEATS_MAX), 1), "then a pause");
    });
}

#[test]
fn a_peer_outside_of_rpc_allow_has_no_link_and_is_told_where_to_look() {
    on_each(async |turns: Turns| {
        let mut config = config();
        config.rpc.allow = vec![crate::session::handshake::origin::Network::parse("10.0.0.0/8").unwrap()];
        let b = Peer::start_with("b", &turns, &config, "127.0.0.1:0".parse().unwrap());
        let a = Peer::start("a", &turns);
        a.dial(&[&b]);
        a.until_refused("is this machine in its rpc.allow").await;
        assert!(a.up.borrow().is_empty() && b.heard.borrow().is_empty());
    });
}
