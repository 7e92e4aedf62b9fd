//! The driver with hands that note what they are given.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

use super::*;
use crate::cluster::protocol::io::Push;
use crate::hub::cluster::{Key, Login, Resident};
use crate::hub::mail::DeviceOutcome;
use crate::ids::{ConnId, Platform, SlotId};
use crate::placement::view::{Epoch, Incarnation, Member, MemberState};
use crate::rpc::cluster::fixtures::device;
use crate::time::UnixMs;

/// What one driver has done. A lane that is `shut` takes nothing.
#[derive(Default)]
struct Done {
    frames: VecDeque<(NodeId, Frame)>,
    mails: Vec<(ShardId, ClusterMail)>,
    orders: Vec<MembershipOrder>,
    copies: Vec<LocalCopy>,
    verdicts: Vec<(u64, Option<Vec<Verdict>>)>,
    counts: Vec<Metric>,
    dialled: BTreeMap<NodeId, String>,
    closed: Vec<NodeId>,
    opened: bool,
    fenced: bool,
    shut: bool,
    now: Mono,
}

#[derive(Clone, Default)]
struct FakeHands(Rc<RefCell<Done>>);

impl Hands for FakeHands {
    fn now(&self) -> Now {
        let mono = self.0.borrow().now;
        Now { mono, unix: UnixMs(1_000_000) }
    }
    fn send(&mut self, to: &NodeId, frame: Frame) {
        self.0.borrow_mut().frames.push_back((to.clone(), frame));
    }
    fn close(&mut self, peer: &NodeId, _: Generation) {
        self.0.borrow_mut().closed.push(peer.clone());
    }
    fn members(&mut self, _: &View) {}
    fn dial(&mut self, targets: BTreeMap<NodeId, String>) {
        self.0.borrow_mut().dialled = targets;
    }
    fn mail(&mut self, shard: ShardId, mail: ClusterMail) -> Result<(), ClusterMail> {
        let mut done = self.0.borrow_mut();
        if done.shut {
            return Err(mail);
        }
        done.mails.push((shard, mail));
        Ok(())
    }
    fn owner(&self, user: &str) -> ShardId {
        ShardId(u16::from(!user.len().is_multiple_of(2)))
    }
    fn order(&mut self, order: MembershipOrder) -> Result<(), MembershipOrder> {
        let mut done = self.0.borrow_mut();
        if done.shut {
            return Err(order);
        }
        done.orders.push(order);
        Ok(())
    }
    fn deliver(&mut self, copy: LocalCopy) {
        self.0.borrow_mut().copies.push(copy);
    }
    fn verdict(&mut self, ticket: u64, verdicts: Option<Vec<Verdict>>) {
        self.0.borrow_mut().verdicts.push((ticket, verdicts));
    }
    fn open(&mut self) {
        self.0.borrow_mut().opened = true;
    }
    fn fence(&mut self, _: Reason) {
        self.0.borrow_mut().fenced = true;
    }
    fn count(&mut self, metric: Metric) {
        self.0.borrow_mut().counts.push(metric);
    }
}

const SHARDS: u16 = 2;

/// Drivers with a wire between them and shards that do as they are told.
struct World {
    ids: Vec<NodeId>,
    drivers: Vec<Driver<FakeHands>>,
    done: Vec<Rc<RefCell<Done>>>,
}

fn id(name: &str) -> NodeId {
    NodeId::new(name).unwrap()
}

impl World {
    fn new(names: &[&str]) -> Self {
        let ids: Vec<NodeId> = names.iter().map(|name| id(name)).collect();
        let hands: Vec<FakeHands> = ids.iter().map(|_| FakeHands::default()).collect();
        let driver = |(own, hands): (&NodeId, &FakeHands)| {
            let me = Own {
                node_id: own.clone(),
                shards: SHARDS,
                algorithm: Algorithm::Rendezvous,
                fence: Fence::Report,
                views: Views::Ordered,
            };
            Driver::new(me, hands.clone())
        };
        let drivers = ids.iter().zip(&hands).map(driver).collect();
        Self { ids, drivers, done: hands.into_iter().map(|hands| hands.0).collect() }
    }

    fn at(&self, name: &str) -> usize {
        self.ids.iter().position(|own| *own == id(name)).unwrap()
    }

    fn take(&mut self, name: &str, event: Event) {
        let at = self.at(name);
        self.drivers[at].take(event);
        self.settle();
    }

    fn view(&mut self, epoch: u64, states: &[(&str, MemberState)]) {
        let member = |(name, state): &(&str, MemberState)| Member { state: *state, ..Member::new(id(name)) };
        let view = View::new(Epoch(epoch), states.iter().map(member).collect());
        for name in self.ids.clone() {
            self.take(name.as_str(), Event::Membership(MembershipNews::View(view.clone())));
        }
    }

    /// All registered, linked, active.
    fn start(&mut self) {
        for name in self.ids.clone() {
            let (incarnation, first_epoch) = (Incarnation(1), Epoch(1));
            let joined = MembershipNews::Joined { incarnation, first_epoch, lease_until: Mono(u64::MAX) };
            self.take(name.as_str(), Event::Membership(joined));
        }
        let ids = self.ids.clone();
        let names: Vec<&str> = ids.iter().map(NodeId::as_str).collect();
        let states = |state| names.iter().map(|name| (*name, state)).collect::<Vec<_>>();
        self.view(1, &states(MemberState::Joining));
        for (at, dialler) in names.iter().enumerate() {
            for other in &names[at + 1..] {
                self.take(dialler, Event::Router(Input::Opened(id(other))));
            }
        }
        assert!(self.done.iter().all(|done| done.borrow().opened));
        self.view(2, &states(MemberState::Active));
    }

    /// Moves frames and answers for the shards until nothing moves.
    fn settle(&mut self) {
        loop {
            let mut moved = false;
            for from in 0..self.ids.len() {
                let frames = std::mem::take(&mut self.done[from].borrow_mut().frames);
                for (to, frame) in frames {
                    moved = true;
                    let (to, own) = (self.at(to.as_str()), self.ids[from].clone());
                    self.drivers[to].take(Event::Router(Input::Frame(own, frame)));
                }
                let mails = std::mem::take(&mut self.done[from].borrow_mut().mails);
                for (shard, mail) in mails {
                    moved = true;
                    self.shard(from, shard, mail);
                }
            }
            if !moved {
                return;
            }
        }
    }

    fn shard(&mut self, at: usize, shard: ShardId, mail: ClusterMail) {
        let news = match mail {
            ClusterMail::Add { epoch, .. } => ClusterNews::Switched { shard, epoch, residents: Vec::new() },
            ClusterMail::Register { number, key } => {
                assert_eq!(ConnNumber(number).shard(), shard);
                ClusterNews::Registered(Resident { number, user: stray(), class: None, token: None, key })
            }
            _ => return,
        };
        self.drivers[at].take(Event::Shard(news));
    }

    fn verdict(&self, name: &str) -> Verdict {
        let verdicts = self.done[self.at(name)].borrow_mut().verdicts.pop().unwrap().1.unwrap();
        assert_eq!(verdicts.len(), 1);
        verdicts[0].clone()
    }

    /// Answers every copy that waits there, with these connections.
    fn deliver(&mut self, name: &str, reached: &[u64]) -> usize {
        let at = self.at(name);
        let copies = std::mem::take(&mut self.done[at].borrow_mut().copies);
        let count = copies.len();
        for LocalCopy { leg, recipients, .. } in copies {
            let devices = |_: &Text| {
                let device = |number: &u64| device(*number, Platform::IOS, DeviceOutcome::Written).remove(0);
                reached.iter().map(device).collect::<Vec<_>>()
            };
            let results = recipients.iter().map(|user| (user.clone(), devices(user))).collect();
            self.take(name, Event::Router(Input::Delivered { leg, results }));
        }
        count
    }
}

/// A user whose home is b, of a and b.
fn stray() -> Text {
    let placement = View::new(Epoch(1), ["a", "b"].map(|name| Member::new(id(name))).into());
    let placement = placement.placement(&Algorithm::Rendezvous);
    let mut users = (0..).map(|n| format!("u{n}"));
    Text::from(users.find(|user| placement.home(user) == Some(&id("b"))).unwrap().as_str())
}

fn number(shard: u16, index: u32) -> u64 {
    ConnNumber::new(ShardId(shard), ConnId(SlotId { index, generation: 1 })).unwrap().0
}

fn push(ticket: u64, user: &Text) -> Event {
    let recipients = vec![user.clone()];
    Event::Router(Input::Push(Push { ticket, recipients, payload: Bytes::from_static(b"x") }))
}

#[test]
fn a_push_at_one_node_reaches_a_stray_at_another_once_and_is_complete() {
    let mut world = World::new(&["a", "b"]);
    world.start();
    let stray_at_a = number(1, 7);
    world.take(
        "a",
        Event::Shard(ClusterNews::Login(Login {
            number: stray_at_a,
            user: stray(),
            class: None,
            token: None,
        })),
    );
    for entry in ["a", "b"] {
        world.take(entry, push(1, &stray()));
        assert_eq!((world.deliver("b", &[]), world.deliver("a", &[stray_at_a])), (1, 1), "{entry}");
        let verdict = world.verdict(entry);
        assert!(verdict.complete, "{verdict:?}");
        let reached: Vec<(&str, u64)> =
            verdict.results.iter().map(|(conn, _)| (conn.node.as_str(), conn.number)).collect();
        assert_eq!(reached, [("a", stray_at_a)]);
    }
}

#[test]
fn a_copy_that_nobody_answers_for_is_not_taken_for_absence() {
    let mut world = World::new(&["a", "b"]);
    world.start();
    world.take("b", push(1, &stray()));
    let copy = world.done[world.at("b")].borrow_mut().copies.pop().unwrap();
    // The shard said nothing of anybody.
    world.take("b", Event::Router(Input::Delivered { leg: copy.leg, results: Vec::new() }));
    let at = world.at("b");
    world.done[at].borrow_mut().now = Mono(crate::limits::HOLD_MS);
    world.take("b", Event::Tick);
    let verdict = world.verdict("b");
    assert_eq!((verdict.complete, verdict.unaccounted), (false, vec![id("b")]));
}

#[test]
fn mail_that_met_a_full_lane_arrives_in_order() {
    let mut world = World::new(&["a", "b"]);
    world.start();
    let at = world.at("a");
    world.done[at].borrow_mut().shut = true;
    for index in 0..3 {
        let login = Login { number: number(0, index), user: stray(), class: None, token: None };
        world.take("a", Event::Shard(ClusterNews::Login(login)));
    }
    assert_eq!(world.drivers[at].waiting(), 3);
    assert!(world.drivers[at].due().is_some());
    assert!(world.done[at].borrow().counts.contains(&Metric::ClusterMailWaited));
    world.done[at].borrow_mut().shut = false;
    world.drivers[at].take(Event::Tick);
    let registered: Vec<u64> = world.done[at]
        .borrow()
        .mails
        .iter()
        .filter_map(|(_, mail)| match mail {
            ClusterMail::Register { number, .. } => Some(*number),
            _ => None,
        })
        .collect();
    assert_eq!(registered, [number(0, 0), number(0, 1), number(0, 2)]);
    assert_eq!(world.drivers[at].waiting(), 0);
}

#[test]
fn before_the_node_has_registered_logins_and_pushes_are_refused() {
    let mut world = World::new(&["a"]);
    world.drivers[0].take(Event::Shard(ClusterNews::Login(Login {
        number: 5,
        user: stray(),
        class: None,
        token: None,
    })));
    world.drivers[0].take(push(9, &stray()));
    // A peer that has read the record before this node heard that it is written dials again.
    let generation = Generation { dialler: Incarnation(1), count: 1, acceptor: Incarnation(0) };
    let frame = Frame { generation, seen: 0, body: crate::cluster::protocol::frame::Body::Beat(1) };
    world.drivers[0].take(Event::Router(Input::Frame(id("b"), frame)));
    let done = world.done[0].borrow();
    assert_eq!(done.mails, [(ShardId(0), ClusterMail::Refuse(5))]);
    assert_eq!((&done.verdicts[..], &done.closed[..]), (&[(9, None)][..], &[id("b")][..]));
}

#[test]
fn shards_hear_of_times_that_other_nodes_gave() {
    let mut world = World::new(&["a", "b"]);
    world.start();
    let later = Key { time: 5_000_000, node: id("a"), number: 3 };
    let resident = Resident { number: 3, user: stray(), class: None, token: None, key: later };
    world.drivers[0].take(Event::Shard(ClusterNews::Registered(resident)));
    world.drivers[0].take(Event::Tick);
    let floors: Vec<(ShardId, ClusterMail)> = world.done[0].borrow().mails.clone();
    assert_eq!(floors, [0, 1].map(|shard| (ShardId(shard), ClusterMail::Floor(5_000_000))));
    // Once.
    world.drivers[0].take(Event::Tick);
    assert_eq!(world.done[0].borrow().mails.len(), 2);
}

#[test]
fn a_dead_node_that_an_operator_forgets_is_not_named_any_more() {
    let mut world = World::new(&["a", "b"]);
    world.start();
    let lost = Event::Router(Input::Closed(
        id("a"),
        Generation { dialler: Incarnation(1), count: 1, acceptor: Incarnation(1) },
    ));
    world.take("b", lost);
    world.take("b", push(1, &stray()));
    world.deliver("b", &[]);
    let verdict = world.verdict("b");
    assert_eq!((verdict.complete, verdict.unaccounted), (false, vec![id("a")]));
    world.take("b", Event::Forget(id("a"), Incarnation(1)));
    world.take("b", push(2, &stray()));
    world.deliver("b", &[]);
    assert!(world.verdict("b").complete);
    let order = MembershipOrder::Forget(id("a"), Incarnation(1), None);
    assert!(world.done[1].borrow().orders.contains(&order));
}

#[test]
fn a_listed_node_that_cannot_be_reached_delays_a_start_and_does_not_stop_it() {
    let mut world = World::new(&["a"]);
    world.drivers[0].me.views = Views::OwnLists;
    let (incarnation, first_epoch) = (Incarnation(9), Epoch(1));
    let joined = MembershipNews::Joined { incarnation, first_epoch, lease_until: Mono(u64::MAX) };
    world.take("a", Event::Membership(joined));
    let own = Member { incarnation, state: MemberState::Joining, ..Member::new(id("a")) };
    let list = |epoch, state| {
        let own = Member { state, ..own.clone() };
        View::new(Epoch(epoch), vec![own, Member::new(id("b"))])
    };
    world.take("a", Event::Membership(MembershipNews::View(list(1, MemberState::Joining))));
    for (at, opened) in [(crate::limits::LIST_BARRIER_MS - 1, false), (crate::limits::LIST_BARRIER_MS, true)]
    {
        world.done[0].borrow_mut().now = Mono(at);
        world.take("a", Event::Tick);
        assert_eq!(world.done[0].borrow().opened, opened, "{at}");
    }
    world.take("a", Event::Membership(MembershipNews::View(list(2, MemberState::Active))));
    world.take("a", push(1, &stray()));
    world.deliver("a", &[]);
    let verdict = world.verdict("a");
    assert_eq!((verdict.complete, verdict.unaccounted), (false, vec![id("b")]));
}

/// Then it would not count this node, and its verdicts would be false (A5).
#[test]
fn a_listed_node_that_lives_and_does_not_list_this_one_is_waited_for() {
    let mut world = World::new(&["c"]);
    world.drivers[0].me.views = Views::OwnLists;
    let (incarnation, first_epoch) = (Incarnation(9), Epoch(1));
    let joined = MembershipNews::Joined { incarnation, first_epoch, lease_until: Mono(u64::MAX) };
    world.take("c", Event::Membership(joined));
    let own = Member { incarnation, state: MemberState::Joining, ..Member::new(id("c")) };
    let view = View::new(Epoch(1), vec![own, Member::new(id("b"))]);
    world.take("c", Event::Membership(MembershipNews::View(view)));
    let patience = crate::limits::LIST_BARRIER_MS;
    let mut at = |now, uncounted: bool| {
        world.done[0].borrow_mut().now = Mono(now);
        if uncounted {
            world.take("c", Event::Router(Input::Uncounted(id("b"))));
        }
        world.take("c", Event::Tick);
        world.done[0].borrow().opened
    };
    assert!(!at(patience - 1, true));
    assert!(!at(patience, false) && !at(2 * patience - 2, false), "it lives");
    assert!(at(2 * patience - 1, false), "it is as silent as a dead one");
}

#[test]
fn a_drain_and_its_end_are_written_to_the_own_record() {
    let mut world = World::new(&["a", "b"]);
    world.start();
    let before = world.done[0].borrow().orders.len();
    for input in [Input::Drain, Input::Drain, Input::Serve, Input::Serve] {
        world.take("a", Event::Router(input));
    }
    let states = [MemberState::Draining, MemberState::Active].map(MembershipOrder::Record);
    assert_eq!(world.done[0].borrow().orders[before..], states);
}
