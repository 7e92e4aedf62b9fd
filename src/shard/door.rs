//! What the accept loop, the head tasks and the shard's loop share: the handshakes that are open, the connections that
//! are ready for the hub, and the counts of both.
//!
//! All on one thread; no borrow lives across an await. What always holds: a connection that [`Admission`] counts is
//! given back exactly once, when its [`Place`] is dropped: with its [`Guest`], or by the loop at the socket's close.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;

use rustix::net::Shutdown;

use super::mailbox::ShardAddress;
use super::nudge::Nudge;
use super::pulse::Pulse;
use super::socket::Socket;
use crate::admission::{AddressPlace, AddressVerdict, Admission};
use crate::arena::Arena;
use crate::config::policy::ShardPolicy;
use crate::ids::{Ownership, ShardId, SlotId};
use crate::limits::{HAND_OVER_LANE_MAX, LISTEN_QUEUE_MAX};
use crate::metrics::{DESCRIPTIONS, Metric, Tally};
use crate::session::handshake::origin::Proxies;
use crate::session::handshake::{Login, Rules};
use crate::time::Mono;

/// What a door is built from.
#[derive(Debug)]
pub(super) struct DoorPlan {
    pub(super) me: ShardId,
    pub(super) ownership: Ownership,
    pub(super) shards: Vec<ShardAddress>,
    pub(super) admission: Arc<Admission>,
    pub(super) pulse: Arc<Pulse>,
    /// Another value counts for the next head.
    pub(super) rules: Cell<Rules>,
    /// Whose word about a client's address is believed.
    pub(super) proxies: Proxies,
    /// Another value counts for the next accept.
    pub(super) handshakes_max: Cell<usize>,
}

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Door {
    pub(super) plan: DoorPlan,
    handshakes: RefCell<Arena<Handshake>>,
    arrivals: RefCell<Vec<Arrival>>,
    counts: RefCell<Tally>,
    listener: RefCell<Option<Rc<Socket>>>,
    /// On addresses of other nodes, by the number that main gave.
    adopted: RefCell<BTreeMap<u16, Rc<Socket>>>,
    draining: Cell<bool>,
    /// Rung when a handshake ends: the accept loop may wait for room.
    room: Nudge,
    /// The shard's loop.
    nudge: Nudge,
}

/// A handshake as its deadline sees it.
#[derive(Debug)]
struct Handshake {
    socket: Rc<Socket>,
    deadline: Mono,
    stage: Stage,
}

/// What a handshake is doing, and so what its deadline does to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// Its head is read. At the deadline reading ends, but an answer is still written.
    Head,
    /// The deadline of its head has passed.
    Late,
    /// It was refused and gets some time to read its answer. At the deadline both directions are shut down.
    Lingering,
}

/// A connection whose arguments are good and whose user belongs to this shard.
#[derive(Debug)]
pub(super) struct Arrival {
    pub(super) guest: Guest,
    pub(super) login: Box<Login>,
}

/// A connection before the hub has it. Dropping it closes the socket and then gives its place back.
#[derive(Debug)]
pub(super) struct Guest {
    pub(super) socket: Rc<Socket>,
    pub(super) peer: SocketAddr,
    /// Where it comes from: the peer, or what a configured proxy says (port 0: it says none).
    pub(super) client: SocketAddr,
    /// Its place under the node's connection limit; `None`: it found the node full.
    pub(super) place: Option<Place>,
}

/// A place under the node's connection limit, and under that of an address; both are given back when it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    admission: Arc<Admission>,
    address: Option<AddressPlace>,
    passed_on: bool,
}

impl Place {
    /// Takes a place, or `None`: the node is full.
    pub(super) fn take(admission: &Arc<Admission>) -> Option<Self> {
        admission.enter().then(|| Self::taken_over(admission, None))
    }

    /// A place that another thread took and passed on.
    pub(super) fn taken_over(admission: &Arc<Admission>, address: Option<AddressPlace>) -> Self {
        Self { admission: Arc::clone(admission), address, passed_on: false }
    }

    /// Takes the place of an address as well, once. `false`: it has as many connections as it may.
    pub(super) fn enter_address(&mut self, address: IpAddr) -> bool {
        debug_assert!(self.address.is_none(), "an address is counted once");
        match self.admission.enter_address(address) {
            AddressVerdict::Free => true,
            AddressVerdict::Counted(place) => {
                self.address = Some(place);
                true
            }
            AddressVerdict::Full => false,
        }
    }

    /// The address's part of the place, for a hand-over.
    pub(super) fn address(&self) -> Option<AddressPlace> {
        self.address
    }

    /// From now on another thread gives the place back.
    pub(super) fn pass_on(mut self) {
        self.passed_on = true;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if !self.passed_on {
            self.address.into_iter().for_each(|place| self.admission.leave_address(place));
            self.admission.leave();
        }
    }
}

impl Door {
    /// Goes by other rules from now on. Heads that are being read are judged by them, too.
    pub(super) fn adopt(&self, policy: &ShardPolicy) {
        let rules = Rules { strictness: policy.strictness, ..self.plan.rules.get() };
        self.plan.rules.set(rules);
        self.plan.handshakes_max.set(policy.handshakes_max);
        self.room.ring();
    }

    /// A door without a listener. It rings `nudge` when somebody has arrived.
    pub(super) fn new(plan: DoorPlan, nudge: Nudge) -> Self {
        Self {
            plan,
            handshakes: RefCell::new(Arena::new(u32::MAX)),
            arrivals: RefCell::default(),
            counts: RefCell::default(),
            listener: RefCell::default(),
            adopted: RefCell::default(),
            draining: Cell::new(false),
            room: Nudge::default(),
            nudge,
        }
    }

    /// Watches over a handshake until [`Door::end`]. `None`: far more are open than can be; close it without a word.
    pub(super) fn begin(&self, socket: &Rc<Socket>, stage: Stage, deadline: Mono) -> Option<SlotId> {
        let mut handshakes = self.handshakes.borrow_mut();
        // The accept loop stops at the limit; what hand-overs and a drain add must end somewhere too.
        if handshakes.len() >= 2 * self.plan.handshakes_max.get() + ADDED_BY_DRAIN_MAX {
            return None;
        }
        let socket = Rc::clone(socket);
        handshakes.insert(Handshake { socket, deadline, stage }).ok()
    }

    /// Changes what the deadline means.
    pub(super) fn set_stage(&self, id: SlotId, stage: Stage, deadline: Mono) {
        if let Some(handshake) = self.handshakes.borrow_mut().get_mut(id) {
            handshake.stage = stage;
            handshake.deadline = deadline;
        }
    }

    /// What a handshake is doing; `Late` if it is not known any more.
    pub(super) fn stage(&self, id: SlotId) -> Stage {
        self.handshakes.borrow().get(id).map_or(Stage::Late, |handshake| handshake.stage)
    }

    /// The socket is closed or goes its way without us.
    pub(super) fn end(&self, id: SlotId) {
        self.handshakes.borrow_mut().remove(id);
        self.room.ring();
        self.nudge.ring(); // a drain may wait for this one
    }

    /// Ends what is overdue: the waits of the tasks end, which then do the rest.
    pub(super) fn expire(&self, now: Mono) {
        let mut handshakes = self.handshakes.borrow_mut();
        let overdue: Vec<SlotId> =
            handshakes.iter().filter(|(_, h)| h.deadline <= now).map(|(id, _)| id).collect();
        for id in overdue {
            let Some(handshake) = handshakes.get_mut(id) else {
                continue;
            };
            match handshake.stage {
                Stage::Head => {
                    handshake.stage = Stage::Late;
                    handshake.socket.shut_down(Shutdown::Read);
                }
                Stage::Late => {}
                Stage::Lingering => handshake.socket.shut_down(Shutdown::Both),
            }
        }
    }

    /// Handshakes that are open, lingering ones included.
    pub(super) fn handshakes(&self) -> usize {
        self.handshakes.borrow().len()
    }

    /// Whether another connection may be accepted.
    pub(super) fn has_room_now(&self) -> bool {
        self.handshakes() < self.plan.handshakes_max.get()
    }

    /// Waits until another connection may be accepted.
    pub(super) async fn has_room(&self) {
        if !self.has_room_now() {
            self.count(Metric::AcceptWaits);
        }
        while !self.has_room_now() {
            self.room.wait().await;
        }
    }

    /// Gives a connection to the loop.
    pub(super) fn arrive(&self, arrival: Arrival) {
        self.arrivals.borrow_mut().push(arrival);
        self.nudge.ring();
    }

    /// Who has arrived since the last time.
    pub(super) fn take_arrivals(&self) -> Vec<Arrival> {
        std::mem::take(&mut *self.arrivals.borrow_mut())
    }

    /// Puts a listener in the place of an earlier one, which is closed.
    pub(super) fn set_listener(&self, listener: Option<Rc<Socket>>) {
        if let Some(earlier) = self.listener.replace(listener) {
            earlier.shut_down(Shutdown::Both);
        }
    }

    /// The listener, for a last look at its queue.
    pub(super) fn listener(&self) -> Option<Rc<Socket>> {
        self.listener.borrow().clone()
    }

    /// Nobody is let in any more; heads that are being read get their 503 now.
    pub(super) fn begin_drain(&self) {
        self.draining.set(true);
        for (_, handshake) in self.handshakes.borrow().iter() {
            if handshake.stage == Stage::Head {
                handshake.socket.shut_down(Shutdown::Read);
            }
        }
    }

    /// The end of [`Door::begin_drain`].
    pub(super) fn end_drain(&self) {
        self.draining.set(false);
    }

    /// Keeps a listener beside its own, under a number; one that has the number already is given back.
    #[must_use]
    pub(super) fn adopt_listener(&self, number: u16, listener: Rc<Socket>) -> Option<Rc<Socket>> {
        self.adopted.borrow_mut().insert(number, listener)
    }

    /// Takes a listener out that was kept beside its own.
    #[must_use]
    pub(super) fn give_back(&self, number: u16) -> Option<Rc<Socket>> {
        self.adopted.borrow_mut().remove(&number)
    }

    /// Takes out all that were kept beside its own.
    #[must_use]
    pub(super) fn give_all_back(&self) -> BTreeMap<u16, Rc<Socket>> {
        self.adopted.take()
    }

    /// Whether nobody is let in any more.
    pub(super) fn is_draining(&self) -> bool {
        self.draining.get()
    }

    /// Counts an outcome.
    pub(super) fn count(&self, metric: Metric) {
        self.counts.borrow_mut().count(metric);
    }

    /// Adds what was counted since the last time.
    pub(super) fn move_counts(&self, tally: &mut Tally) {
        let counts = self.counts.take();
        for (metric, _) in DESCRIPTIONS {
            let n = counts.value(*metric);
            if n > 0 {
                tally.add(*metric, n);
            }
        }
    }
}

/// A drain takes the whole accept queue and the whole hand-over lane at once.
const ADDED_BY_DRAIN_MAX: usize = LISTEN_QUEUE_MAX + HAND_OVER_LANE_MAX;
