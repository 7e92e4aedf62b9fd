//! Links to the other nodes, below the router (`cluster::protocol`): one gRPC stream per pair (routing-protocol.md
//! section 5), on rpc thread 0.
//!
//! `transport` is one stream, `dial` keeps those to higher ids (`target`: where they are), `accept` serves those of
//! lower ids, and `knock` asks lower ids that are silent to dial. What is said is the router's business
//! (`cluster::protocol::link`), how it is written the codec's. What always holds: a transport that carried a Hello is
//! reported closed exactly once; frames of a transport come in order, none is lost but by its end; what waits for one
//! peer is bounded. Not here: who the peers are.
//!
//! Connections of peers come to any rpc thread, since the kernel spreads them; a thread other than 0 refuses the call,
//! and the dialler tries again at once, from another port.

mod accept;
mod counts;
mod dial;
mod knock;
mod target;
mod transport;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;

use super::budget::Ration;
use super::call::{End, StreamCall};
use crate::cluster::protocol::frame::{Body, Frame, Generation};
use crate::config::Token;
use crate::config::peer_tls::PeerTls;
use crate::control::lookup::NameAnswer;
use crate::metrics::{Metric, Tally};
use crate::placement::view::NodeId;
use crate::random;
use crate::shard::clock;
use crate::shard::nudge::Nudge;
use crate::shard::turn::Turns;
use counts::Counts;
use target::{Duty, Target};
use transport::Transport;

/// The call.
const PATH: &str = "/pinion.peer.v1.Peer/Link";
/// Metadata: who dials, and whom it means.
const FROM: &str = "pinion-from";
const TO: &str = "pinion-to";
/// Metadata of a knock: where who calls wants to be dialled.
const AT: &str = "pinion-at";

/// What the router's driver hears. It reads the clock after it has the event in hand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkEvent {
    /// A transport that this node dialled is open: send a Hello.
    Opened(NodeId),
    /// From a transport of that peer; its first is a Hello or the answer to one.
    Frame(NodeId, Frame),
    /// The transport of that generation has ended. `acceptor` may be zero: see [`Generation::is_same_transport`].
    Closed(NodeId, Generation),
    /// That peer lives, and says that it has no address of this node among its members; it dials this node, as asked.
    Uncounted(NodeId),
    /// No link, and why: for the log and the operator. It is dialled again all the same.
    Refused {
        /// With whom.
        peer: NodeId,
        /// Why not, and what to do about it.
        why: String,
    },
}

/// What links are made of.
pub struct LinksPlan {
    /// This node.
    pub own: NodeId,
    /// `rpc.token`: shown to peers.
    pub token: Option<Token>,
    /// How the other nodes' ports are believed; `None`: plain HTTP/2.
    pub tls: Option<PeerTls>,
    /// The thread's.
    pub turns: Turns,
    /// What the connections of the thread read in a turn.
    pub ration: Rc<Ration>,
    /// Has `HOST:PORT` looked up, for [`Links::looked_up`]; `false`: there is no room, and no answer comes.
    pub look_up: Rc<dyn Fn(&str) -> bool>,
    /// Takes the events, in order. It may call [`Links`] at once.
    pub hear: Rc<dyn Fn(LinkEvent)>,
}

/// Whom peers believe, and whom this node believes.
#[derive(Clone)]
struct Trust {
    token: Option<Token>,
    tls: Option<PeerTls>,
}

/// See the module's documentation. Clones are the same links.
#[derive(Clone)]
pub struct Links {
    inner: Rc<Inner>,
}

struct Inner {
    plan: LinksPlan,
    /// Of the next link.
    trust: RefCell<Trust>,
    /// Where peers reach this node; empty: not known.
    at: RefCell<String>,
    targets: RefCell<BTreeMap<NodeId, Rc<Target>>>,
    /// Nodes that asked to be dialled and are no targets; at most [`crate::limits::LINK_GUESTS_MAX`].
    guests: RefCell<BTreeMap<NodeId, Rc<Target>>>,
    /// Open streams; a peer has none or more, the newest last.
    transports: RefCell<BTreeMap<NodeId, Vec<Rc<Transport>>>>,
    ended: Cell<bool>,
    /// Rung when a transport has left.
    left: Nudge,
    counts: Counts,
}

impl Links {
    /// No links yet.
    pub fn new(plan: LinksPlan) -> Self {
        let (targets, guests, transports) = Default::default();
        let inner = Inner {
            trust: RefCell::new(Trust { token: plan.token.clone(), tls: plan.tls.clone() }),
            plan,
            at: RefCell::default(),
            targets,
            guests,
            transports,
            ended: Cell::new(false),
            left: Nudge::default(),
            counts: Counts::default(),
        };
        Self { inner: Rc::new(inner) }
    }

    /// Shows something else to peers that are dialled from now on, and believes other ones: the configuration was read
    /// again. Links that stand go on: each side has shown the other what counted then.
    pub fn adopt(&self, token: Option<Token>, tls: Option<PeerTls>) {
        self.inner.trust.replace(Trust { token, tls });
    }

    /// Whom to keep linked, and where (`HOST:PORT`): the whole set; links to those that are missing, or now elsewhere,
    /// are closed. Ids above the own one are dialled, those below it asked to dial. The own id's is where peers reach
    /// this node.
    pub fn dial(&self, mut targets: BTreeMap<NodeId, String>) {
        let inner = &self.inner;
        if inner.ended.get() {
            return;
        }
        inner.at.replace(targets.remove(&inner.plan.own).unwrap_or_default());
        let mut present = inner.targets.borrow_mut();
        present.retain(|peer, target| {
            let stays = targets.get(peer) == Some(&target.address);
            if !stays {
                target.stop();
                // Who dialled this node comes from where it likes.
                if *peer > inner.plan.own {
                    inner.of_peer(peer).iter().for_each(|transport| transport.close());
                }
            }
            stays
        });
        for (peer, address) in targets {
            present.entry(peer.clone()).or_insert_with(|| inner.target(peer, address));
        }
    }

    /// What came of [`LinksPlan::look_up`].
    pub fn looked_up(&self, answer: &NameAnswer) {
        let inner = &self.inner;
        inner
            .targets
            .borrow()
            .values()
            .chain(inner.guests.borrow().values())
            .for_each(|t| t.looked_up(answer));
    }

    /// Sends on the transport of the frame's generation; nothing if it has ended.
    pub fn send(&self, to: &NodeId, frame: Frame) {
        let of_peer = self.inner.of_peer(to);
        let opens = matches!(frame.body, Body::Hello(_));
        let known = of_peer.iter().find(|transport| transport.carries(&frame.generation));
        let fresh = || of_peer.iter().rfind(|transport| opens && transport.generation().is_none());
        if let Some(transport) = known.or_else(fresh) {
            transport.send(&self.inner, frame);
        }
    }

    /// Ends the transport of that generation. What waits for it is dropped.
    pub fn close(&self, peer: &NodeId, generation: Generation) {
        let of_peer = self.inner.of_peer(peer);
        of_peer.iter().filter(|transport| transport.carries(&generation)).for_each(|one| one.close());
    }

    /// The same, and tells the peer why not, if it dialled.
    pub fn deny(&self, peer: &NodeId, generation: Generation, why: &str) {
        let of_peer = self.inner.of_peer(peer);
        of_peer.iter().filter(|transport| transport.carries(&generation)).for_each(|one| one.deny(why));
    }

    /// Sends what is queued, within [`crate::limits::LINK_FLUSH_MS`], and ends all links; none is made any more, and
    /// nothing more is told.
    pub fn end(&self) {
        self.inner.end();
    }

    /// Waits until all have ended, after [`Links::end`].
    pub async fn ended(&self) {
        while !self.inner.transports.borrow().is_empty() {
            self.inner.left.wait().await;
        }
    }

    /// Peers with a link on which both sides have said Hello.
    pub fn up(&self) -> usize {
        self.inner.transports.borrow().values().filter(|of_peer| of_peer.iter().any(|t| t.is_up())).count()
    }

    /// Writes the counts of the links.
    pub fn publish(&self, tally: &mut Tally) {
        self.inner.counts.publish(tally);
        let transports = self.inner.transports.borrow();
        let queued: usize = transports.values().flatten().map(|transport| transport.queued_bytes()).sum();
        drop(transports);
        tally.set(Metric::PeerLinks, self.up() as u64);
        tally.set(Metric::PeerQueuedBytes, queued as u64);
    }

    /// What a knock is answered, for tests of the limits.
    #[cfg(test)]
    pub(super) fn knocked(&self, from: &NodeId, at: &str) -> crate::wire::grpc::Status {
        self.inner.knocked(from, at)
    }

    /// Takes a peer's place as a transport does, for tests of the limits.
    #[cfg(test)]
    pub(super) fn seat(&self, peer: NodeId) -> Box<dyn std::any::Any> {
        Box::new(Place::new(&self.inner, Transport::new(peer)))
    }

    /// Serves a peer that dialled us, to the end of its stream.
    pub(super) async fn accept(&self, call: StreamCall) -> Result<(), End> {
        accept::serve(&self.inner, call).await
    }
}

impl Inner {
    fn of_peer(&self, peer: &NodeId) -> Vec<Rc<Transport>> {
        self.transports.borrow().get(peer).cloned().unwrap_or_default()
    }

    /// Peers with a transport, and the transports of this one.
    fn load(&self, peer: &NodeId) -> (usize, usize) {
        let transports = self.transports.borrow();
        (transports.len(), transports.get(peer).map_or(0, Vec::len))
    }

    fn tell(&self, event: LinkEvent) {
        if !self.ended.get() {
            (self.plan.hear)(event);
        }
    }

    /// Keeps a link with a peer from now on.
    fn target(self: &Rc<Self>, peer: NodeId, address: String) -> Rc<Target> {
        // Whom it has asked in already stays.
        let guest = self.guests.borrow_mut().remove(&peer);
        if let Some(guest) = guest.filter(|guest| !guest.is_stopped() && guest.address == address) {
            guest.keep();
            return guest;
        }
        let dials = peer > self.plan.own;
        let target = Target::new(peer, address, Duty::Keep);
        match dials {
            true => drop(monoio::spawn(dial::keep(Rc::clone(self), Rc::clone(&target)))),
            false => drop(monoio::spawn(knock::keep(Rc::clone(self), Rc::clone(&target)))),
        }
        target
    }

    fn end(&self) {
        self.ended.set(true);
        let targets = std::mem::take(&mut *self.targets.borrow_mut());
        let guests = std::mem::take(&mut *self.guests.borrow_mut());
        targets.into_values().chain(guests.into_values()).for_each(|target| target.stop());
        let all: Vec<_> = self.transports.borrow().values().flatten().cloned().collect();
        all.iter().for_each(|transport| transport.flush());
    }

    /// Nodes that start together must not dial together: pauses differ by who dials whom, and when.
    fn seed(&self, peer: &NodeId) -> u64 {
        let names = self.plan.own.as_str().bytes().chain(peer.as_str().bytes());
        names.fold(clock::now().mono.0, |mut seed, byte| {
            seed ^= u64::from(byte);
            random::draw(&mut seed)
        })
    }
}

/// A transport's place among the others. Given back when dropped, however that comes: then the end is told.
struct Place {
    inner: Rc<Inner>,
    transport: Rc<Transport>,
}

impl Place {
    fn new(inner: &Rc<Inner>, transport: Rc<Transport>) -> Self {
        let mut transports = inner.transports.borrow_mut();
        transports.entry(transport.peer.clone()).or_default().push(Rc::clone(&transport));
        drop(transports);
        Self { inner: Rc::clone(inner), transport }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Self { inner, transport } = self;
        let mut transports = inner.transports.borrow_mut();
        if let Some(of_peer) = transports.get_mut(&transport.peer) {
            of_peer.retain(|other| !Rc::ptr_eq(other, transport));
            if of_peer.is_empty() {
                transports.remove(&transport.peer);
            }
        }
        drop(transports);
        transport.close();
        inner.left.ring();
        if let Some(generation) = transport.generation() {
            inner.tell(LinkEvent::Closed(transport.peer.clone(), generation));
        }
    }
}
