//! Routing between nodes: the directory of stray connections and the way of a push, as one pure state machine per
//! node (routing-protocol.md sections 2 to 9).
//!
//! Call order: [`Node::handle`] with each [`Input`], at a `now` read after the input was in hand; it returns the
//! [`Output`]s in the order in which they must happen. [`Input::Tick`] at [`Node::due`] or a little later; a late tick
//! costs time, never a push.
//!
//! `link` is the life of the links; `strays` the holder's side of the directory and the logins that wait; `home` the
//! home's side; `member` views, barrier, lease and fence; `entry` a push where it arrived, `reroute` one that came to
//! another node than its home; `gather` the copies and their answers; `holder` deliveries here, each once (`seen`);
//! `order` the order of one user's pushes; `policy` who is kicked. `frame` and `io` are the words, `rules` what tests
//! may take out, `sim` the simulator.
//!
//! `codec` is their form on the wire. Not here: sockets, clocks, the shards, the source of the membership. What always
//! holds is section 8 of the specification; `sim` asserts it after each step.

pub mod codec;
mod entry;
pub mod frame;
mod gather;
mod holder;
mod home;
pub mod io;
mod link;
mod member;
mod order;
mod peer;
pub mod placed;
mod policy;
mod reroute;
mod rules;
mod seen;
#[cfg(test)]
mod sim;
mod strays;

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use crate::placement::view::{Epoch, Incarnation, NodeId, View};
use crate::placement::{Algorithm, Fingerprint};
use crate::time::{Mono, Now};
use entry::Entries;
use frame::{Body, Conn, Frame, PushId};
use gather::Gathers;
use holder::Locals;
use io::{Count, Input, Mail, Output};
use order::Order;
use peer::Peer;
use placed::Placed;
use rules::{Rule, Rules};
use seen::Seen;
use strays::Strays;

/// Whether a node without a lease that misses a peer closes its connections (routing-protocol.md sections 12.3, 14).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fence {
    /// Never: verdicts stay "not complete" until the source is back or the operator says `forget`.
    #[default]
    Report,
    /// After [`crate::limits::FENCE_MS`]; then others forget it by themselves.
    Strict,
}

/// Where views come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Views {
    /// One source orders them for all nodes (etcd, Kubernetes): epochs of two nodes compare.
    #[default]
    Ordered,
    /// Each node has a list of its own: epochs of two nodes say nothing to each other, and nobody is ever lost.
    OwnLists,
}

/// Who a node is, fixed for its life.
#[derive(Clone, Debug)]
pub struct Identity {
    /// Its stable name.
    pub node_id: NodeId,
    /// This life.
    pub incarnation: Incarnation,
    /// Epoch at which this life registered first.
    pub first_epoch: Epoch,
    /// Shards of this node.
    pub shards: u16,
    /// How users are placed; the same on every node.
    pub algorithm: Algorithm,
    /// See [`Fence`].
    pub fence: Fence,
}

/// The router of one node.
#[derive(Debug)]
pub struct Node {
    me: Identity,
    views: Views,
    rules: Rules,
    now: Now,
    out: Vec<Output>,
    registered_epoch: Epoch,
    /// The view that decides, with its placement; none before the first was adopted.
    view: View,
    placement: Rc<Placed>,
    /// Epoch of the view with which that placement came.
    placed_epoch: Epoch,
    /// A newer view that shards are still switching to.
    next: Option<Switch>,
    /// Shards may still act by a placement other than the present one.
    untrimmed: bool,
    lease: Lease,
    /// Epoch of the view at which the barrier was last passed in the present registration.
    fit_epoch: Option<Epoch>,
    /// [`Output::Register`] is not answered yet.
    registering: bool,
    stage: Stage,
    /// When the first view came.
    joined_at: Option<Mono>,
    peers: BTreeMap<NodeId, Peer>,
    strays: Strays,
    seen: Seen,
    entries: Entries,
    gathers: Gathers,
    locals: Locals,
    order: Order,
    /// The listener was opened: the barrier was passed once.
    opened: bool,
    ticked: Mono,
    /// Attempts to dial anybody: a peer that was forgotten meanwhile must not see a number again.
    dials: u64,
    /// Counts questions, pushes.
    legs: u64,
    /// The greatest time given to a login, or heard of (K1, for all users at once: a hybrid logical clock).
    floor: u64,
}

/// A view on its way to the shards.
#[derive(Debug)]
struct Switch {
    view: View,
    placement: Rc<Placed>,
    waits_for: BTreeSet<u16>,
}

/// The lease of the own record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Lease {
    until: Mono,
    /// It has ended, and nobody has looked at the own record since.
    lapsed: bool,
}

/// The life of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    /// Before the first barrier.
    Joining,
    /// The listener is open.
    Serving,
    /// Out of placement by its own will.
    Draining,
    /// Fenced or gone: does nothing more.
    Ended,
}

impl Node {
    /// A node that has written its record as joining, at `identity.first_epoch`, and has its lease.
    pub fn new(identity: Identity, lease_until: Mono) -> Self {
        Self::with_rules(identity, lease_until, Rules::default())
    }

    pub(self) fn with_rules(identity: Identity, lease_until: Mono, rules: Rules) -> Self {
        let view = View::default();
        Self {
            placement: Rc::new(Placed::new(&view, &identity, rules)),
            placed_epoch: view.epoch(),
            view,
            registered_epoch: identity.first_epoch,
            rules,
            now: Now::default(),
            out: Vec::new(),
            next: None,
            untrimmed: false,
            lease: Lease { until: lease_until, lapsed: false },
            fit_epoch: None,
            registering: false,
            stage: Stage::Joining,
            joined_at: None,
            peers: BTreeMap::new(),
            strays: Strays::default(),
            seen: Seen::default(),
            entries: Entries::default(),
            gathers: Gathers::default(),
            locals: Locals::default(),
            order: Order::default(),
            opened: false,
            ticked: Mono(0),
            dials: 0,
            legs: 0,
            floor: 0,
            me: identity,
            views: Views::default(),
        }
    }

    /// The same node, before its first event, with views from there.
    #[must_use]
    pub fn with_views(mut self, views: Views) -> Self {
        self.views = views;
        self
    }

    /// Takes one event. The outputs happen in their order.
    pub fn handle(&mut self, now: Now, input: Input) -> Vec<Output> {
        self.now = now;
        if self.stage != Stage::Ended {
            self.fence_if_isolated();
        }
        if self.stage != Stage::Ended {
            self.expire_links();
            self.take(input);
            self.settle();
        }
        std::mem::take(&mut self.out)
    }

    fn take(&mut self, input: Input) {
        match input {
            Input::Tick => self.tick(),
            Input::View(view) => self.learn(view),
            Input::Recorded(epoch) => self.recorded(epoch),
            Input::Lease(until) => self.renewed(until),
            Input::Regained { until, own } => self.regained(until, own),
            Input::Opened(peer) => self.opened(peer),
            Input::Frame(peer, frame) => self.frame(peer, frame),
            Input::Closed(peer, generation) => self.closed(&peer, generation),
            Input::Uncounted(peer) => self.uncounted(peer),
            Input::Switched { shard, epoch, residents } => self.switched(shard, epoch, residents),
            Input::Login(login) => self.login(login),
            Input::Registered(resident) => self.registered(resident),
            Input::Gone(number) => self.gone(number),
            Input::Met(key) => self.say_met(&key),
            Input::Marks(marks) => self.say_marks(&marks),
            Input::Push(push) => self.accept(push),
            Input::Delivered { leg, results } => self.delivered(leg, results),
            Input::Forget(node, incarnation) => self.forgotten(&node, incarnation),
            Input::Drain => self.drain(),
            Input::Serve => self.serve(),
            Input::Emptied => self.emptied(),
        }
    }

    fn tick(&mut self) {
        self.ticked = self.now.mono;
        self.beat();
        self.end_lagging_links();
        self.forget_the_gone();
        self.expire_routes();
        self.expire_gathers();
        self.expire_locals();
        self.expire_order();
        let now = self.now.mono;
        self.seen.expire(now);
    }

    /// What may have become possible by any event.
    fn settle(&mut self) {
        self.void_promises();
        self.trim();
        self.pass_barrier();
        self.let_go();
    }

    /// Whether this node may say "complete" now.
    pub fn fit(&self) -> bool {
        let leased = !self.lease.lapsed && self.now.mono < self.lease.until;
        self.fit_epoch.is_some() && (leased || !self.rules.hold(Rule::CompleteWhileLeased))
    }

    /// The view that decides here.
    pub fn view(&self) -> &View {
        &self.view
    }

    /// The placement that decides here.
    pub fn placement(&self) -> &Placed {
        &self.placement
    }

    /// Peers with a link that is up.
    pub fn linked(&self) -> impl Iterator<Item = &NodeId> {
        self.peers.iter().filter(|(_, peer)| peer.up().is_some()).map(|(id, _)| id)
    }

    /// Members that the barrier waits for: a join that waits says for whom.
    pub fn awaited(&self) -> impl Iterator<Item = &NodeId> {
        self.ungreeted().map(|member| &member.node_id).chain(self.strangers().map(|known| &known.node))
    }

    /// Accounted members without a link: as long as there are any, pushes whose home is here are not complete.
    pub fn unlinked(&self) -> Vec<NodeId> {
        let linked = |id: &NodeId| self.peers.get(id).is_some_and(|peer| peer.up().is_some());
        self.accounted().into_iter().filter(|id| !linked(id)).collect()
    }

    /// Who this node is.
    pub fn identity(&self) -> &Identity {
        &self.me
    }

    /// Whether the own lease holds at `now`.
    pub fn leased(&self, now: Mono) -> bool {
        !self.lease.lapsed && now < self.lease.until
    }

    /// The greatest time given to a login, or heard of: residents' logins get later ones (K1).
    pub fn floor(&self) -> u64 {
        if self.rules.hold(Rule::FloorKept) { self.floor } else { 0 }
    }

    /// The life of a node that had a link with this one last.
    pub fn greeted(&self, node: &NodeId) -> Option<Incarnation> {
        self.peers.get(node)?.greeted.map(|greeting| greeting.incarnation)
    }

    /// Lives of a node up to this one are known to have ended.
    pub fn ended(&self, node: &NodeId) -> Option<Incarnation> {
        self.peers.get(node)?.gone
    }

    fn fingerprint(&self) -> Fingerprint {
        self.placement.fingerprint()
    }

    fn is_home(&self, user: &str) -> bool {
        self.placement.home(user) == Some(&self.me.node_id)
    }

    fn conn(&self, number: u64) -> Conn {
        Conn::of(&self.me.node_id, self.me.incarnation, number)
    }

    fn push_id(&self, number: u64) -> PushId {
        PushId { node: self.me.node_id.clone(), incarnation: self.me.incarnation, number }
    }

    fn leg(&mut self) -> u64 {
        self.legs += 1;
        self.legs
    }

    /// Sends to a peer whose link is up; else nothing.
    fn send(&mut self, to: &NodeId, body: Body) {
        let Some(up) = self.peers.get(to).and_then(Peer::up) else { return };
        let frame = Frame { generation: up.generation, seen: up.heard, body };
        self.out.push(Output::Send(to.clone(), frame));
    }

    fn mail(&mut self, mail: Mail) {
        self.out.push(Output::Mail(mail));
    }

    fn count(&mut self, count: Count) {
        self.out.push(Output::Count(count));
    }

    fn linked_ids(&self) -> Vec<NodeId> {
        self.linked().cloned().collect()
    }
}
