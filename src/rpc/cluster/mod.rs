//! This node among others: the router (`cluster::protocol`) on rpc thread 0, and what it is wired to.
//!
//! `driver` takes events one by one and carries out what the router says; `hands` is what it can do here, `waiting`
//! what full lanes gave back; `local` carries out copies at this node, `doubles` knows messages that came twice,
//! `heard` those that should have come to all; `entry` brings pushes, kicks and questions of callers on their way,
//! `payload` is what travels; `sight` says to operators how the node stands.
//!
//! With a cluster a node has one rpc thread, so all callers and peers are heard here. What always holds: events are
//! taken in the order in which they came, an event that comes while another is taken waits; no borrow is held while
//! something is waited for.

mod doubles;
mod driver;
pub(super) mod entry;
#[cfg(test)]
mod fixtures;
mod hands;
mod heard;
mod local;
mod payload;
pub(super) mod sight;
mod waiting;

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::rc::{Rc, Weak};
use std::time::Duration;

use super::exchange::Exchange;
use super::peers::{LinkEvent, Links};
use crate::cluster::protocol;
use crate::cluster::protocol::frame::{Body, Frame, Verdict};
use crate::cluster::protocol::io::Input;
use crate::config::cluster::{ClusterConfig, FenceMode, MembershipSource, PushMode};
use crate::control::mailbox::ControlAddress;
use crate::control::membership::MembershipNews;
use crate::hub::cluster::ClusterNews;
use crate::ids::Ownership;
use crate::limits::{BEAT_MS, CLUSTER_SAY_MS};
use crate::metrics::{Metric, Tally};
use crate::placement::Fingerprint;
use crate::placement::view::{Incarnation, NodeId};
use crate::shard::clock;
use crate::shard::mailbox::ShardAddress;
use crate::shard::news::NodeNews;
use crate::shard::nudge::Nudge;
use crate::shard::orders::Standing;
use crate::time::Mono;
use doubles::Doubles;
use driver::{Driver, Event, LocalCopy, Own};
use hands::NodeHands;
use heard::Heard;

/// See the module's documentation. Clones are the same mesh.
#[derive(Clone)]
pub(super) struct Mesh {
    shared: Rc<Shared>,
}

struct Shared {
    own: NodeId,
    config: ClusterConfig,
    exchange: Exchange,
    links: Links,
    driver: RefCell<Driver<NodeHands>>,
    events: RefCell<VecDeque<Event>>,
    /// Somebody takes the events already.
    busy: Cell<bool>,
    board: Rc<Board>,
    doubles: RefCell<Doubles>,
    heard: RefCell<Heard>,
    /// Ends the ticker's sleep.
    stirred: Nudge,
    /// Until when it sleeps.
    asleep_until: Cell<Mono>,
    tickets: Cell<u64>,
    /// Why peers are not linked, as the links said last.
    refusals: RefCell<BTreeMap<NodeId, String>>,
    /// Peers of which two processes were seen, and when last.
    clashes: RefCell<BTreeMap<NodeId, (String, Mono)>>,
    /// By what placement peers go, as they said last.
    said: RefCell<BTreeMap<NodeId, Fingerprint>>,
}

/// What the driver puts down for others to take.
#[derive(Default)]
struct Board {
    /// To be carried out here.
    copies: RefCell<VecDeque<LocalCopy>>,
    /// Pushes that somebody waits for.
    pushes: RefCell<BTreeMap<u64, Rc<entry::Answer>>>,
}

/// What a mesh is made of.
pub(super) struct MeshPlan<'a> {
    /// `cluster.*`; the source is not none.
    pub(super) config: &'a ClusterConfig,
    /// `cluster.node_id`.
    pub(super) own: NodeId,
    pub(super) exchange: Exchange,
    pub(super) shards: Vec<ShardAddress>,
    pub(super) ownership: Ownership,
    pub(super) control: ControlAddress,
    pub(super) events: NodeNews,
}

impl Mesh {
    /// A node that has not registered yet. `link` makes its links, which are heard through the function it is given.
    pub(super) fn new(plan: MeshPlan<'_>, link: impl FnOnce(Rc<dyn Fn(LinkEvent)>) -> Links) -> Self {
        let MeshPlan { config, own, exchange, shards, ownership, control, events } = plan;
        let fence = match config.fence {
            FenceMode::Report => protocol::Fence::Report,
            FenceMode::Strict => protocol::Fence::Strict,
        };
        let count = u16::try_from(shards.len()).unwrap_or(u16::MAX);
        let views = match config.source {
            MembershipSource::Static => protocol::Views::OwnLists,
            _ => protocol::Views::Ordered,
        };
        let algorithm = config.placement.clone();
        let me = Own { node_id: own.clone(), shards: count, algorithm, fence, views };
        let board = Rc::new(Board::default());
        let shared = Rc::new_cyclic(|weak: &Weak<Shared>| {
            let ear = weak.clone();
            let links = link(Rc::new(move |event| {
                if let Some(shared) = ear.upgrade() {
                    Self { shared }.hear(event);
                }
            }));
            let hands = NodeHands {
                exchange: exchange.clone(),
                links: links.clone(),
                shards,
                ownership,
                control,
                events,
                board: Rc::clone(&board),
                own: own.clone(),
            };
            Shared {
                own,
                config: config.clone(),
                exchange,
                links,
                driver: RefCell::new(Driver::new(me, hands)),
                events: RefCell::default(),
                busy: Cell::new(false),
                board,
                doubles: RefCell::default(),
                heard: RefCell::default(),
                stirred: Nudge::default(),
                asleep_until: Cell::new(Mono(0)),
                tickets: Cell::new(0),
                refusals: RefCell::default(),
                clashes: RefCell::default(),
                said: RefCell::default(),
            }
        });
        let mesh = Self { shared };
        monoio::spawn(mesh.clone().tick_always());
        mesh
    }

    /// The links, for peers that dial us.
    pub(super) fn links(&self) -> &Links {
        &self.shared.links
    }

    /// `cluster.push_mode`.
    pub(super) fn push_mode(&self) -> PushMode {
        self.shared.config.push_mode
    }

    /// A shard tells.
    pub(super) fn shard(&self, news: ClusterNews) {
        self.take(Event::Shard(news));
    }

    /// The source of the membership tells.
    pub(super) fn membership(&self, news: MembershipNews) {
        self.take(Event::Membership(news));
    }

    /// Whether this node wants users.
    pub(super) fn stand(&self, standing: Standing) {
        self.input(match standing {
            Standing::Serving => Input::Serve,
            Standing::Draining => Input::Drain,
        });
    }

    /// The operator says that this life of a node has ended.
    ///
    /// # Errors
    /// It cannot be so, or is not known; what to do. Nothing has changed.
    pub(super) fn forget(&self, node: NodeId, incarnation: Incarnation) -> Result<(), String> {
        self.forgettable(&node, incarnation)?;
        tracing::warn!(%node, incarnation = incarnation.0, "forgotten: an operator says that it is dead");
        self.take(Event::Forget(node, incarnation));
        Ok(())
    }

    /// The thread ends; every connection of the node is gone by now.
    pub(super) fn leave(&self) {
        self.input(Input::Emptied);
        self.shared.links.end();
    }

    fn hear(&self, event: LinkEvent) {
        match event {
            LinkEvent::Opened(peer) => self.input(Input::Opened(peer)),
            LinkEvent::Frame(peer, frame) => {
                self.look_at(&peer, &frame);
                self.input(Input::Frame(peer, frame));
            }
            LinkEvent::Uncounted(peer) => self.input(Input::Uncounted(peer)),
            LinkEvent::Closed(peer, generation) => self.input(Input::Closed(peer, generation)),
            LinkEvent::Refused { peer, why } => {
                let said = self.shared.refusals.borrow_mut().insert(peer.clone(), why.clone());
                if said.is_none_or(|said| said != why) {
                    tracing::warn!(%peer, why, "no link");
                }
            }
        }
    }

    /// What operators are to know of a frame; the router knows by itself.
    fn look_at(&self, peer: &NodeId, frame: &Frame) {
        let shared = &self.shared;
        let hello = match &frame.body {
            Body::Declare { fingerprint, .. } => {
                shared.said.borrow_mut().insert(peer.clone(), *fingerprint);
                return;
            }
            Body::Hello(hello) | Body::HelloAck(hello) => hello,
            _ => return,
        };
        shared.said.borrow_mut().insert(peer.clone(), hello.fingerprint);
        let driver = shared.driver.borrow();
        let met = driver.node().and_then(|node| node.greeted(peer));
        let Some(met) = met.filter(|met| *met > hello.incarnation) else { return };
        let own_word = hello.knows.iter().find(|known| known.node == *peer);
        let at = own_word.map(|known| format!(" (at {})", known.rpc_addr.as_str())).unwrap_or_default();
        let why = format!(
            "two processes are named {peer}: incarnation {met} was linked, and now the earlier {}{at} asks for a link; \
             end that one, or give it a cluster.node_id of its own (or etcd was restored: restart this node)",
            hello.incarnation
        );
        shared.exchange.count(Metric::NameClashes);
        shared.links.deny(peer, frame.generation, &why);
        let said = shared.clashes.borrow_mut().insert(peer.clone(), (why.clone(), clock::now().mono));
        if said.is_none_or(|(said, _)| said != why) {
            tracing::error!(%peer, why, "no link");
        }
    }

    fn input(&self, input: Input) {
        self.take(Event::Router(input));
    }

    /// Takes an event, or leaves it to the one who is taking events already.
    fn take(&self, event: Event) {
        let shared = &self.shared;
        shared.events.borrow_mut().push_back(event);
        if shared.busy.replace(true) {
            return;
        }
        while let Some(event) = self.next_event() {
            shared.driver.borrow_mut().take(event);
            self.carry_out_copies();
        }
        shared.busy.set(false);
        self.rouse();
    }

    fn next_event(&self) -> Option<Event> {
        self.shared.events.borrow_mut().pop_front()
    }

    fn carry_out_copies(&self) {
        loop {
            let copy = self.shared.board.copies.borrow_mut().pop_front();
            let Some(copy) = copy else { return };
            self.carry_out(copy);
        }
    }

    /// Wakes the ticker if it would sleep for too long.
    fn rouse(&self) {
        let due = self.shared.driver.borrow().due();
        if due.is_some_and(|due| due < self.shared.asleep_until.get()) {
            self.shared.stirred.ring();
        }
    }

    async fn tick_always(self) {
        let shared = &self.shared;
        let mut said = Mono(0);
        loop {
            let now = clock::now().mono;
            // At least with each beat, so that what operators are told is fresh.
            let latest = now.plus_ms(BEAT_MS);
            let due = shared.driver.borrow().due().map_or(latest, |due| due.min(latest));
            shared.asleep_until.set(due);
            let left = Duration::from_millis(due.since_ms(now).max(1));
            // Roused or not: it is looked at what is due.
            drop(monoio::time::timeout(left, shared.stirred.wait()).await);
            let now = clock::now().mono;
            let due = shared.driver.borrow().due().is_some_and(|due| due <= now);
            if due || now >= latest {
                self.tick();
            }
            if now.since_ms(said) >= CLUSTER_SAY_MS {
                said = now;
                self.say_what_is_awaited();
            }
        }
    }

    fn tick(&self) {
        self.take(Event::Tick);
    }

    /// A start that waits says for whom.
    fn say_what_is_awaited(&self) {
        if let Some(why) = self.waits() {
            tracing::warn!(why, "clients are not accepted yet");
        }
    }

    /// Writes counts that are levels.
    pub(super) fn publish(&self, tally: &mut Tally) {
        let driver = self.shared.driver.borrow();
        let node = driver.node();
        let fit = node.is_some_and(protocol::Node::fit);
        tally.set(Metric::ClusterFit, u64::from(fit));
        tally.set(Metric::ClusterLinked, node.map_or(0, |node| node.linked().count() as u64));
        tally.set(Metric::ClusterUnlinked, node.map_or(0, |node| node.unlinked().len() as u64));
        tally.set(Metric::ClusterMailWaiting, driver.waiting() as u64);
        tally.set(Metric::ClusterPushesOpen, self.shared.board.pushes.borrow().len() as u64);
        self.shared.links.publish(tally);
    }
}

/// What a source is called, as in the configuration.
pub(super) fn source_name(source: MembershipSource) -> &'static str {
    match source {
        MembershipSource::None => "none",
        MembershipSource::Static => "static",
        MembershipSource::Etcd => "etcd",
        MembershipSource::Kubernetes => "kubernetes",
    }
}

/// A verdict for nobody: the push was refused.
type Verdicts = Option<Vec<Verdict>>;
