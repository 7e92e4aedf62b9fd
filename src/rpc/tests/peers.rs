//! Links between nodes of one runtime, over loopback and the real gRPC server; the router is played: it says Hello and
//! answers it.

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use super::channel::until;
use super::peers_hostile::refusal_of;
use super::*;
use crate::cluster::protocol::frame::{Body, Claim, Copy, Frame, Generation, Hello, PushId};
use crate::cluster::router::Router;
use crate::config::cluster::MembershipSource;
use crate::config::peer_tls::PeerTls;
use crate::config::policy::RpcPolicy;
use crate::config::{RpcLimits, Token};
use crate::placement::Fingerprint;
use crate::placement::view::{Epoch, Incarnation, NodeId, View};
use crate::rpc::budget::Ration;
use crate::rpc::call::{Live, Service};
use crate::rpc::exchange::{Backend, Exchange};
use crate::rpc::peers::{LinkEvent, Links, LinksPlan};
use crate::rpc::readiness::Readiness;
use crate::rpc::server::{self, Server};
use crate::rpc::services::Catalog;
use crate::shard::thread::block_on;
use crate::shard::turn::Turns;

/// A node: its links behind a gRPC port, and a played router.
pub(super) struct Peer {
    pub(super) id: NodeId,
    pub(super) address: SocketAddr,
    pub(super) links: Links,
    service: Rc<Service>,
    pub(super) heard: Rc<RefCell<Vec<LinkEvent>>>,
    /// Names that it had looked up.
    pub(super) asked: Rc<RefCell<Vec<String>>>,
    /// Of the link that is up, by peer.
    pub(super) up: Rc<RefCell<BTreeMap<NodeId, Generation>>>,
}

pub(super) fn id(name: &str) -> NodeId {
    NodeId::new(name).unwrap()
}

fn hello(node: &NodeId) -> Hello {
    Hello {
        node: node.clone(),
        incarnation: Incarnation(1),
        first_epoch: Epoch(1),
        registered_epoch: Epoch(1),
        view_epoch: Epoch(1),
        fingerprint: Fingerprint(7),
        knows: Vec::new(),
    }
}

pub(super) fn service(config: &Config, turns: &Turns) -> Rc<Service> {
    let router = Router::new(RpcId(0), View::of_one_node(ownership()), limits::RPC_CALLS_MAX);
    Rc::new(Service {
        exchange: Exchange::new(router, Vec::new(), Backend::None, 0),
        turns: turns.clone(),
        blocks: Vec::new(),
        catalog: Catalog::new(&config.rpc, MembershipSource::Static),
        live: RefCell::new(Rc::new(Live::of(&RpcPolicy::of(config)))),
        readiness: Readiness { admission: Arc::new(Admission::new(10)), pulses: Vec::new() },
        node_id: String::new(),
        mesh: OnceCell::new(),
        links: OnceCell::new(),
    })
}

/// What a router does about transports: it opens generations, and answers the peer's.
fn play(id: &NodeId, links: &Rc<OnceCell<Links>>, peer: &Peer) -> Rc<dyn Fn(LinkEvent)> {
    let (id, links, heard, up) = (id.clone(), Rc::clone(links), Rc::clone(&peer.heard), Rc::clone(&peer.up));
    let dialled = Cell::new(0);
    Rc::new(move |event| {
        heard.borrow_mut().push(event.clone());
        let links = links.get().unwrap();
        match event {
            LinkEvent::Opened(to) => {
                dialled.set(dialled.get() + 1);
                let generation =
                    Generation { dialler: Incarnation(1), count: dialled.get(), acceptor: Incarnation(0) };
                links.send(&to, Frame { generation, seen: 0, body: Body::Hello(hello(&id)) });
            }
            LinkEvent::Frame(from, Frame { generation, body: Body::Hello(_), .. }) => {
                let generation = Generation { acceptor: Incarnation(1), ..generation };
                links.send(&from, Frame { generation, seen: 0, body: Body::HelloAck(hello(&id)) });
                up.borrow_mut().insert(from, generation);
            }
            LinkEvent::Frame(from, Frame { generation, body: Body::HelloAck(_), .. }) => {
                up.borrow_mut().insert(from, generation);
            }
            LinkEvent::Closed(from, generation) => {
                let mut up = up.borrow_mut();
                if up.get(&from).is_some_and(|now| now.is_same_transport(&generation)) {
                    up.remove(&from);
                }
            }
            _ => {}
        }
    })
}

impl Peer {
    pub(super) fn start(name: &str, turns: &Turns) -> Self {
        Self::start_with(name, turns, &config(), "127.0.0.1:0".parse().unwrap())
    }

    pub(super) fn start_with(name: &str, turns: &Turns, config: &Config, listen: SocketAddr) -> Self {
        let listener = bind_listener(listen).unwrap();
        let service = service(config, turns);
        let ration = Rc::new(Ration::new(turns.clone()));
        let cell = Rc::new(OnceCell::new());
        let mut peer = Self {
            id: id(name),
            address: listener.local_addr().unwrap(),
            links: Links::new(LinksPlan {
                own: id(name),
                token: None,
                tls: None,
                turns: turns.clone(),
                ration: Rc::clone(&ration),
                look_up: Rc::new(|_| false),
                hear: Rc::new(|_| ()),
            }),
            service: Rc::clone(&service),
            heard: Rc::default(),
            asked: Rc::default(),
            up: Rc::default(),
        };
        let (tls, asked) = (PeerTls::of(config).unwrap(), Rc::clone(&peer.asked));
        peer.links = Links::new(LinksPlan {
            own: id(name),
            token: config.rpc.token.clone(),
            tls,
            turns: turns.clone(),
            ration: Rc::clone(&ration),
            look_up: Rc::new(move |name| {
                asked.borrow_mut().push(name.to_owned());
                true
            }),
            hear: play(&peer.id, &cell, &peer),
        });
        assert!(cell.set(peer.links.clone()).is_ok() && service.links.set(peer.links.clone()).is_ok());
        let server = Server::new(service, RpcLimits::DEFAULT, turns.clone(), ration);
        server.adopt(&RpcPolicy { limits: RpcLimits::DEFAULT, ..RpcPolicy::of(config) });
        monoio::spawn(server::accept(listener, server));
        peer
    }

    pub(super) fn dial(&self, peers: &[&Self]) {
        self.links.dial(peers.iter().map(|peer| (peer.id.clone(), peer.address.to_string())).collect());
    }

    pub(super) fn send(&self, to: &Self, body: Body) {
        let generation = *self.up.borrow().get(&to.id).expect("a link is up");
        self.links.send(&to.id, Frame { generation, seen: 0, body });
    }

    /// What came from a peer beside greetings, in order.
    pub(super) fn bodies(&self, from: &Self) -> Vec<Body> {
        let of = |event: &LinkEvent| match event {
            LinkEvent::Frame(peer, Frame { body, .. })
                if *peer == from.id && !matches!(body, Body::Hello(_) | Body::HelloAck(_)) =>
            {
                Some(body.clone())
            }
            _ => None,
        };
        self.heard.borrow().iter().filter_map(of).collect()
    }

    pub(super) fn count_of(&self, metric: Metric) -> u64 {
        let mut tally = Tally::default();
        self.links.publish(&mut tally);
        tally.value(metric)
    }

    pub(super) fn refusals(&self) -> Vec<String> {
        let of = |event: &LinkEvent| match event {
            LinkEvent::Refused { why, .. } => Some(why.clone()),
            _ => None,
        };
        self.heard.borrow().iter().filter_map(of).collect()
    }

    pub(super) fn closed(&self) -> usize {
        self.heard.borrow().iter().filter(|event| matches!(event, LinkEvent::Closed(..))).count()
    }

    pub(super) async fn until_refused(&self, text: &str) {
        until(text, || self.refusals().iter().any(|why| why.contains(text))).await;
    }
}

pub(super) async fn until_up(a: &Peer, b: &Peer) {
    let up = |one: &Peer, other: &Peer| one.up.borrow().contains_key(&other.id) && one.links.up() >= 1;
    until("the link is up", || up(a, b) && up(b, a)).await;
}

pub(super) fn on_each(test: impl AsyncFn(Turns) + Sync) {
    on_each_of_the_drivers(|driver| block_on(driver, |turns| test(turns)));
}

pub(super) fn beats(n: std::ops::Range<u64>) -> Vec<Body> {
    n.map(Body::Beat).collect()
}

pub(super) fn large(bytes: usize) -> Body {
    let push = PushId { node: id("a"), incarnation: Incarnation(1), number: 1 };
    Body::Route(Copy { leg: 1, push, recipients: vec!["u".into()], payload: vec![7; bytes].into() })
}

#[test]
fn frames_of_all_sizes_come_in_order_both_ways() {
    on_each(async |turns: Turns| {
        let (a, b) = (Peer::start("a", &turns), Peer::start("b", &turns));
        a.dial(&[&b]);
        b.dial(&[&a]); // a dials: the lower id
        until_up(&a, &b).await;
        let claim = |number| Claim { number, user: "user".into(), class: None, token: None, key: None };
        let mut said: Vec<Body> = (0..5_000).map(|number| Body::Claim(claim(number))).collect();
        said.push(large(3_000_000));
        said.extend(beats(1..100));
        for body in &said {
            a.send(&b, body.clone());
            b.send(&a, body.clone());
        }
        until("all is there", || b.bodies(&a).len() >= said.len() && a.bodies(&b).len() >= said.len()).await;
        assert!(b.bodies(&a) == said && a.bodies(&b) == said);
        let opened = |peer: &Peer| peer.count_of(Metric::PeerOpened);
        assert_eq!((opened(&a), opened(&b), a.closed(), b.closed()), (1, 0, 0, 0), "one stream");
        for metric in [Metric::PeerFramesIn, Metric::PeerFramesOut] {
            assert_eq!(a.count_of(metric), said.len() as u64 + 1, "{metric:?}");
        }
        assert!(a.count_of(Metric::PeerBytesOut) > 3_000_000 && b.count_of(Metric::PeerBytesIn) > 3_000_000);
        assert_eq!(a.count_of(Metric::PeerQueuedBytes), 0);
    });
}

#[test]
fn a_link_that_either_side_closes_is_told_once_to_both_and_made_anew() {
    on_each(async |turns: Turns| {
        let (a, b) = (Peer::start("a", &turns), Peer::start("b", &turns));
        a.dial(&[&b]);
        for (round, (closer, other)) in [(&a, &b), (&b, &a), (&a, &b)].into_iter().enumerate() {
            until_up(&a, &b).await;
            let generation = closer.up.borrow()[&other.id];
            let stale = Generation { count: generation.count + 100, ..generation };
            closer.links.close(&other.id, stale);
            closer.links.close(&other.id, generation);
            until("both are told", || a.closed() == round + 1 && b.closed() == round + 1).await;
            closer.links.send(&other.id, Frame { generation, seen: 0, body: Body::Beat(666) });
        }
        until_up(&a, &b).await;
        assert!(!a.bodies(&b).contains(&Body::Beat(666)) && !b.bodies(&a).contains(&Body::Beat(666)));
        assert_eq!(a.count_of(Metric::PeerOpened), 4);
        // Who is no target any more is let go, and stays so.
        a.dial(&[]);
        until("it is let go", || a.links.up() == 0 && b.links.up() == 0).await;
        assert_eq!(a.count_of(Metric::PeerOpened), 4);
    });
}

#[test]
fn a_peer_that_dies_is_dialled_until_it_is_back() {
    on_each(async |turns: Turns| {
        // A peer whose connections all break: a relay in between that the test cuts.
        let (a, b) = (Peer::start("a", &turns), Peer::start("b", &turns));
        let relay = Relay::start(b.address);
        a.links.dial([(b.id.clone(), relay.address.to_string())].into());
        until_up(&a, &b).await;
        relay.cut();
        until("both are told", || a.closed() == 1 && b.closed() == 1).await;
        a.until_refused("cannot connect").await;
        let refused = a.count_of(Metric::PeerRefused);
        until("it tries on", || a.count_of(Metric::PeerRefused) > refused).await;
        relay.resume();
        until_up(&a, &b).await;
        a.send(&b, Body::Beat(1));
        until("it carries again", || b.bodies(&a) == beats(1..2)).await;
    });
}

#[test]
fn a_link_for_which_too_much_waits_is_ended_and_counted() {
    on_each(async |turns: Turns| {
        let (a, b) = (Peer::start("a", &turns), Peer::start("b", &turns));
        a.dial(&[&b]);
        until_up(&a, &b).await;
        // In one turn of the thread nothing can leave.
        for _ in 0..limits::LINK_QUEUE_BYTES / 8_000_000 {
            a.send(&b, large(8_000_000));
        }
        assert_eq!(a.links.up(), 1, "so much may wait");
        a.send(&b, large(8_000_000));
        assert_eq!(a.links.up(), 0);
        until("it is ended", || a.closed() == 1 && b.closed() == 1).await;
        assert_eq!(a.count_of(Metric::PeerOverflows), 1);
        until_up(&a, &b).await;
        a.send(&b, large(limits::LINK_MESSAGE_BYTES_MAX));
        a.send(&b, Body::Beat(1));
        until("the link stands", || b.bodies(&a).last() == Some(&Body::Beat(1))).await;
        assert_eq!(
            (a.count_of(Metric::PeerTooLarge), a.closed()),
            (1, 1),
            "one that is too large is left out"
        );
    });
}

#[test]
fn who_is_not_the_one_meant_is_refused_and_both_are_told_why() {
    on_each(async |turns: Turns| {
        let (a, b) = (Peer::start("a", &turns), Peer::start("b", &turns));
        let at_b = b.address.to_string();
        a.links.dial([(id("c"), at_b.clone()), (id("d"), "node example:1".to_owned())].into());
        a.until_refused("this node is b, not c").await;
        b.until_refused("this node is b, not c").await;
        a.until_refused("node example:1: it has no address HOST:PORT: set its cluster.rpc_address").await;
        assert!(a.up.borrow().is_empty() && b.up.borrow().is_empty());
        let open = |from: &'static str, to: &'static str| refusal_of(b.address, from, to, Vec::new());
        let (code, text) = open("b", "b").await;
        assert!(code == 9 && text.contains("two nodes are named b"), "{code} {text}");
        let (code, text) = open("c", "b").await;
        assert!(code == 9 && text.contains("b dials c"), "{code} {text}");
        let (code, text) = open("-", "b").await;
        assert!(code == 3 && text.contains("pinion-from"), "{code} {text}");
    });
}

#[test]
fn a_node_without_the_token_has_no_link_and_is_told_what_to_do() {
    on_each(async |turns: Turns| {
        let token = |text: &str| {
            let mut config = config();
            config.rpc.token = Token::parse(text);
            config
        };
        let any = "127.0.0.1:0".parse().unwrap();
        let b = Peer::start_with("b", &turns, &token("0123456789abcdef"), any);
        let (a, wrong) = (Peer::start("a", &turns), token("0123456789abcdeg"));
        let aa = Peer::start_with("aa", &turns, &wrong, any);
        a.dial(&[&b]);
        aa.dial(&[&b]);
        a.until_refused("give all nodes of the cluster the same rpc.token").await;
        aa.until_refused("give all nodes of the cluster the same rpc.token").await;
        assert!(b.heard.borrow().is_empty(), "its router hears nothing of them");
        aa.links.adopt(Token::parse("0123456789abcdef"), None);
        until_up(&aa, &b).await;
        // Links that stand go on, whatever counts for new ones.
        aa.links.adopt(Token::parse("fedcba9876543210"), None);
        aa.send(&b, Body::Beat(1));
        until("it carries", || b.bodies(&aa) == [Body::Beat(1)]).await;
        assert!(a.up.borrow().is_empty() && a.count_of(Metric::PeerRefused) > 0);
    });
}

#[test]
fn a_thread_that_keeps_no_links_sends_the_dialler_to_another() {
    on_each(async |turns: Turns| {
        let a = Peer::start("a", &turns);
        // Its thread 1: the same port, no links.
        let first = Peer::start("b", &turns);
        let listener = bind_listener(first.address).unwrap();
        let ration = Rc::new(Ration::new(turns.clone()));
        let server = Server::new(service(&config(), &turns), RpcLimits::DEFAULT, turns.clone(), ration);
        monoio::spawn(server::accept(listener, server));
        for round in 1..20 {
            a.dial(&[&first]);
            until_up(&a, &first).await;
            a.dial(&[]);
            until("it is let go", || a.closed() == round && first.closed() == round).await;
        }
        assert!(a.refusals().is_empty(), "{:?}", a.refusals());
        let (dials, opened) = (a.count_of(Metric::PeerDials), a.count_of(Metric::PeerOpened));
        assert!(dials > opened, "{dials} attempts for {opened} links: none met thread 1 in 19 rounds");
    });
}

#[test]
fn the_end_sends_what_waits_and_tells_nothing_more() {
    on_each(async |turns: Turns| {
        let (a, b) = (Peer::start("a", &turns), Peer::start("b", &turns));
        a.dial(&[&b]);
        until_up(&a, &b).await;
        a.send(&b, large(1_000_000));
        a.send(&b, Body::Goodbye);
        a.links.end();
        a.links.ended().await;
        until("all came", || b.bodies(&a).last() == Some(&Body::Goodbye)).await;
        until("it is over", || b.closed() == 1 && b.links.up() == 0).await;
        assert_eq!(a.closed(), 0, "who ended it is told nothing");
        a.dial(&[&b]);
        let (code, text) = refusal_of(a.address, "0", "a", Vec::new()).await;
        assert!(code == 14 && text.contains("leaving"), "{code} {text}");
        assert_eq!(a.count_of(Metric::PeerOpened), 1);
    });
}

#[test]
fn a_drain_of_the_thread_flushes_and_ends_links_that_came_in() {
    on_each(async |turns: Turns| {
        let (a, b) = (Peer::start("a", &turns), Peer::start("b", &turns));
        a.dial(&[&b]);
        until_up(&a, &b).await;
        b.send(&a, Body::Goodbye);
        b.service.exchange.mail(RpcMail::Drain(clock::now().mono.plus_ms(60_000)));
        until("it is ended", || a.closed() == 1 && !b.service.exchange.has_connections()).await;
        assert_eq!(a.bodies(&b), [Body::Goodbye]);
    });
}

/// Moves bytes between a node that dials and one that is dialled, until it is cut.
struct Relay {
    address: SocketAddr,
    thread: Option<JoinHandle<()>>,
    say: crossbeam_channel::Sender<bool>,
}

impl Relay {
    fn start(to: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (say, said) = crossbeam_channel::unbounded();
        let thread = std::thread::Builder::new().spawn(move || relay(listener, to, &said)).unwrap();
        Self { address, thread: Some(thread), say }
    }

    /// Breaks what is open, and listens no more.
    fn cut(&self) {
        self.say.send(false).unwrap();
    }

    /// Listens again.
    fn resume(&self) {
        self.say.send(true).unwrap();
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        let (other, _) = crossbeam_channel::unbounded();
        drop(std::mem::replace(&mut self.say, other));
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

fn relay(listener: TcpListener, to: SocketAddr, said: &crossbeam_channel::Receiver<bool>) {
    use std::net::{Shutdown, TcpStream};
    let address = listener.local_addr().unwrap();
    let mut listener = Some(listener);
    let mut open: Vec<TcpStream> = Vec::new();
    let copy = |mut from: TcpStream, mut into: TcpStream| {
        std::thread::Builder::new()
            .spawn(move || {
                std::io::copy(&mut from, &mut into).unwrap_or_default();
                into.shutdown(Shutdown::Both).unwrap_or_default();
            })
            .unwrap();
    };
    loop {
        if let Some(listener) = &listener {
            listener.set_nonblocking(true).unwrap();
            if let Ok((near, _)) = listener.accept() {
                near.set_nonblocking(false).unwrap();
                let far = TcpStream::connect(to).unwrap();
                copy(near.try_clone().unwrap(), far.try_clone().unwrap());
                copy(far.try_clone().unwrap(), near.try_clone().unwrap());
                open.extend([near, far]);
            }
        }
        match said.recv_timeout(Duration::from_millis(5)) {
            Ok(true) => listener = Some(bind_listener(address).unwrap()),
            Ok(false) | Err(crossbeam_channel::RecvTimeoutError::Disconnected) => {
                listener = None;
                for stream in open.drain(..) {
                    stream.shutdown(Shutdown::Both).unwrap_or_default();
                }
                if said.is_empty() && said.recv_timeout(Duration::ZERO).is_err_and(|e| e.is_disconnected()) {
                    return;
                }
            }
            Err(crossbeam_channel::RecvTimeoutError::Timeout) => {}
        }
    }
}
