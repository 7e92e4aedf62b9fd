//! The world of the simulator: hosts, wire, source, time, and an adversary that chooses the next event from a seed.
//! What it breaks is in `faults`.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::super::frame::{Class, Generation};
use super::super::io::{Count, Input, Output, OwnRecord, Push};
use super::super::rules::Rules;
use super::super::{Fence, Node};
use super::host::{Deed, Host, SHARDS, TTL_MS};
use super::lists::Lists;
use super::source::Source;
use super::truth::Truth;
use super::wire::{Lane, Notice, Wire, name};
use crate::ids::Text;
use crate::limits::FENCE_CLOSE_MS;
use crate::placement::view::{Incarnation, MemberState, NodeId, View};
use crate::random::draw;

/// What the adversary is fond of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Profile {
    pub name: &'static str,
    pub nodes: u64,
    pub users: u64,
    /// Steps of a walk.
    pub steps: u64,
    /// Of 20 steps of time so many are long.
    pub long_jumps: u64,
    pub shards: Shards,
    pub members: Members,
    pub fence: Fence,
    /// Weights of the events, in the order of [`World::step`].
    pub weights: [u64; 20],
}

/// Where views come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Members {
    /// One source for all.
    Source,
    /// A list of each node (`lists`).
    Lists,
}

/// What stands for the shards of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shards {
    /// A few lines that do what shards must do.
    Model,
    /// The hubs of production.
    Hubs,
    /// The same, by these rules of logins.
    HubsBy(super::real::LoginRules),
}

/// Whether the peers of a process that ends will see their links end.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Peers {
    Notice,
    Unaware,
}

pub struct Slot {
    pub id: NodeId,
    pub host: Option<Host>,
    /// Of its last life.
    pub leased_until: u64,
    pub life: Incarnation,
}

pub struct World {
    state: u64,
    pub now: u64,
    pub profile: Profile,
    pub rules: Rules,
    pub source: Source,
    /// In place of the source, if there are any.
    pub lists: Option<Lists>,
    pub slots: Vec<Slot>,
    pub wire: Wire,
    pub truth: Truth,
    pub counts: BTreeMap<Count, u64>,
    /// What the adversary did, so that a walk can be asked whether it meant anything.
    pub deeds: BTreeMap<&'static str, u64>,
    next_ticket: u64,
    /// Login policy: all logins of a user conflict.
    pub conflicts: bool,
}

impl World {
    pub fn new(seed: u64, profile: Profile, rules: Rules) -> Self {
        let mut state = seed.wrapping_mul(0x5851_f42d_4c95_7f2d) ^ 0x1234_5678;
        let nodes = 2 + draw(&mut state) % (profile.nodes - 1);
        let slot = |i: u64| Slot {
            id: NodeId::new(&format!("n{i}")).unwrap(),
            host: None,
            leased_until: 0,
            life: Incarnation(0),
        };
        let mut world = Self {
            state,
            now: 100_000,
            profile,
            rules,
            source: Source::default(),
            lists: (profile.members == Members::Lists).then(|| Lists::new(usize::try_from(nodes).unwrap())),
            slots: (0..nodes).map(slot).collect(),
            wire: Wire::default(),
            truth: Truth::default(),
            counts: BTreeMap::new(),
            deeds: BTreeMap::new(),
            next_ticket: 1,
            conflicts: seed % 5 == 4,
        };
        let at_first = 1 + world.below(nodes);
        for i in 0..at_first {
            world.start(usize::try_from(i).unwrap());
        }
        if world.below(4) > 0 {
            world.rest(12);
        }
        world
    }

    pub fn below(&mut self, n: u64) -> u64 {
        draw(&mut self.state) % n.max(1)
    }

    /// The adversary did something worth counting.
    pub fn did(&mut self, what: &'static str) {
        *self.deeds.entry(what).or_default() += 1;
    }

    pub fn pick<T: Clone>(&mut self, from: &[T]) -> Option<T> {
        let at = self.below(from.len() as u64);
        from.get(usize::try_from(at).unwrap()).cloned()
    }

    pub fn index(&self, id: &NodeId) -> usize {
        self.slots.iter().position(|slot| slot.id == *id).unwrap()
    }

    pub fn running(&self) -> Vec<usize> {
        (0..self.slots.len()).filter(|&i| self.slots[i].host.is_some()).collect()
    }

    /// Processes that run, and neither sleep nor close their connections to end.
    pub fn awake(&self) -> Vec<usize> {
        self.running().into_iter().filter(|&i| self.is_awake(i)).collect()
    }

    pub fn is_awake(&self, i: usize) -> bool {
        let host = self.slots[i].host.as_ref();
        host.is_some_and(|host| host.asleep_until.is_none() && host.closing_until.is_none())
    }

    pub fn host_mut(&mut self, i: usize) -> &mut Host {
        self.slots[i].host.as_mut().unwrap()
    }

    pub fn host(&self, i: usize) -> &Host {
        self.slots[i].host.as_ref().unwrap()
    }

    pub fn node(&self, i: usize) -> &Node {
        &self.host(i).node
    }

    pub fn user(&mut self) -> Text {
        Text::from(format!("u{}", self.below(self.profile.users)))
    }

    // ---- events ----------------------------------------------------------------------------------------------

    /// The next event.
    pub fn step(&mut self) {
        let total = self.profile.weights.iter().sum();
        let mut at = self.below(total);
        let mut event = 0;
        while at >= self.profile.weights[event] {
            at -= self.profile.weights[event];
            event += 1;
        }
        match event {
            0 => self.deliver_some(),
            1 => self.shard_some(),
            2 => self.router_some(),
            3 => self.notice_some(),
            4 => self.view_some(),
            5 => self.dial_some(),
            6 => self.pass_time(),
            7 => self.login_some(),
            8 => self.close_some(),
            9 => self.push_some(),
            10 => self.break_some(),
            11 => self.crash_some(),
            12 => self.start_some(),
            13 => self.cut_some(),
            14 => self.lose_some(),
            15 => self.flip_some(),
            16 => self.leave_some(),
            17 => self.nap_some(),
            18 => self.split_some(),
            _ => self.hold_some(),
        }
    }

    fn deliver_some(&mut self) {
        let Some(lane) = self.pick(&self.ready()) else { return };
        for _ in 0..=self.below(3) {
            if self.slots[lane.1].host.is_none() || self.is_awake(lane.1) {
                self.deliver_from(lane);
            }
        }
    }

    /// Lanes whose next frame may arrive now.
    pub fn ready(&self) -> Vec<Lane> {
        let arrives = |&(from, to, _): &Lane| {
            !self.wire.blocked.contains(&(from, to)) && (self.slots[to].host.is_none() || self.is_awake(to))
        };
        self.wire.busy().into_iter().filter(arrives).collect()
    }

    /// Ends of links that may be noticed now.
    pub fn noticeable(&self) -> Vec<Notice> {
        let arrives = |&(to, from, _): &Notice| {
            !self.wire.blocked.contains(&(from, to)) && (self.slots[to].host.is_none() || self.is_awake(to))
        };
        self.wire.notices.iter().copied().filter(arrives).collect()
    }

    pub fn deliver_from(&mut self, lane: Lane) {
        let Some(frame) = self.wire.take(lane) else { return };
        let (from, to, _) = lane;
        if self.slots[to].host.is_some() {
            let from = self.slots[from].id.clone();
            self.feed(to, Input::Frame(from, frame));
        }
    }

    fn shard_some(&mut self) {
        let busy: Vec<(usize, usize)> = self.shards(Host::shard_busy);
        if let Some((i, shard)) = self.pick(&busy) {
            self.shard_step(i, shard);
        }
    }

    pub fn shards(&self, busy: impl Fn(&Host, usize) -> bool) -> Vec<(usize, usize)> {
        let all =
            self.awake().into_iter().flat_map(|i| (0..usize::from(SHARDS)).map(move |shard| (i, shard)));
        all.filter(|&(i, shard)| busy(self.host(i), shard)).collect()
    }

    pub fn shard_step(&mut self, i: usize, shard: usize) {
        let (now, coin) = (self.now, self.below(2));
        let deeds = self.host_mut(i).shard_step(shard, now, coin);
        self.note(i, deeds);
    }

    fn router_some(&mut self) {
        let busy: Vec<(usize, usize)> = self.shards(|host, shard| !host.shards[shard].outbox.is_empty());
        if let Some((i, shard)) = self.pick(&busy) {
            self.router_step(i, shard);
        }
    }

    pub fn router_step(&mut self, i: usize, shard: usize) {
        if let Some(input) = self.host_mut(i).shards[shard].outbox.pop_front() {
            self.feed(i, input);
        }
    }

    fn notice_some(&mut self) {
        if let Some(notice) = self.pick(&self.noticeable()) {
            self.notice(notice);
        }
    }

    pub fn notice(&mut self, notice: Notice) {
        self.wire.notices.remove(&notice);
        let (to, from, (dialler, count)) = notice;
        if self.slots[to].host.is_some() {
            let generation = Generation { dialler: Incarnation(dialler), count, acceptor: Incarnation(0) };
            self.feed(to, Input::Closed(self.slots[from].id.clone(), generation));
        }
    }

    fn view_some(&mut self) {
        let Some(i) = self.pick(&self.awake()) else { return };
        let oldest = self.host(i).viewed;
        let newer: Vec<View> =
            self.views_of(i).iter().filter(|view| view.epoch() > oldest).cloned().collect();
        let newest = newer.last().cloned().filter(|_| self.below(3) > 0);
        if let Some(view) = newest.or_else(|| self.pick(&newer)) {
            self.show(i, view);
        }
    }

    pub fn show(&mut self, i: usize, view: View) {
        self.meet_the_unlisted();
        self.host_mut(i).viewed = view.epoch();
        self.feed(i, Input::View(view));
    }

    fn dial_some(&mut self) {
        let pairs = self.undialled();
        if let Some((low, high)) = self.pick(&pairs) {
            self.dial(low, high);
        }
    }

    pub fn undialled(&self) -> Vec<(usize, usize)> {
        let running = self.running();
        let pairs = running.iter().flat_map(|&low| running.iter().map(move |&high| (low, high)));
        let down = |low: usize, high: usize| {
            let peer = self.node(low).peers.get(&self.slots[high].id);
            peer.is_none_or(|peer| matches!(peer.link, super::super::peer::Link::Down))
        };
        let pairs = pairs.filter(|&(low, high)| low < high && self.is_awake(low) && down(low, high));
        pairs.filter(|&(low, high)| self.are_acquainted(low, high)).collect()
    }

    pub fn dial(&mut self, low: usize, high: usize) {
        self.feed(low, Input::Opened(self.slots[high].id.clone()));
    }

    fn pass_time(&mut self) {
        let ms = match self.below(20) {
            0 => 1 + self.below(4_000),
            jump if jump < self.profile.long_jumps => 1 + self.below(1_000),
            _ => 1 + self.below(150),
        };
        self.advance(ms, 15);
    }

    /// Time passes; of 100 hosts so many are too late for their tick.
    pub fn advance(&mut self, ms: u64, late: u64) {
        self.meet_all();
        self.now += ms;
        self.end_naps();
        for i in self.awake() {
            self.tick_hubs(i);
            self.renew(i);
            let Some(host) = self.slots[i].host.as_ref().filter(|_| self.is_awake(i)) else { continue };
            let due = host.node.due().is_some_and(|due| due <= host.now(self.now).mono);
            if due && self.below(100) >= late {
                self.feed(i, Input::Tick);
            }
        }
    }

    pub fn renew(&mut self, i: usize) {
        let now = self.now;
        let host = self.slots[i].host.as_mut().unwrap();
        if self.lists.is_some() || host.cut_off || host.leased_until > now + TTL_MS * 6 / 10 {
            return;
        }
        host.leased_until = now + TTL_MS;
        let until = host.lease_end(now);
        let lapsed = host.node.lease.lapsed || host.now(now).mono >= host.node.lease.until;
        let record = self.source.records.get(&host.id);
        let own = match record.filter(|record| record.incarnation == host.incarnation) {
            None => OwnRecord::Gone,
            Some(own) if own.state == MemberState::Lost => OwnRecord::Lost,
            Some(_) => OwnRecord::Kept,
        };
        self.feed(i, if lapsed { Input::Regained { until, own } } else { Input::Lease(until) });
    }

    pub fn login_some(&mut self) {
        let open: Vec<usize> = self.awake().into_iter().filter(|&i| self.host(i).open).collect();
        let conns: usize = self.running().iter().map(|&i| self.host(i).conns.len()).sum();
        let Some(i) = self.pick(&open).filter(|_| conns < 5) else { return };
        let user = self.user();
        self.login(i, user);
    }

    pub fn login(&mut self, i: usize, user: Text) {
        let class = self.conflicts.then_some(Class(1));
        let now = self.now;
        let deeds = self.host_mut(i).login(user, class, now);
        self.note(i, deeds);
    }

    pub fn close_some(&mut self) {
        let Some(i) = self.pick(&self.running()) else { return };
        let numbers: Vec<u64> = self.host(i).conns.keys().copied().collect();
        if let Some(number) = self.pick(&numbers) {
            self.close(i, number);
        }
    }

    pub fn close(&mut self, i: usize, number: u64) {
        let now = self.now;
        let deeds = self.host_mut(i).close(number, now);
        self.note(i, deeds);
    }

    pub fn push_some(&mut self) {
        let Some(i) = self.pick(&self.awake()).filter(|_| self.truth.pushes.len() < 4) else { return };
        let mut users = vec![self.user()];
        if self.below(3) == 0 {
            users.push(self.user());
        }
        self.push(i, users);
    }

    pub fn push(&mut self, i: usize, users: Vec<Text>) -> u64 {
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        self.truth.accepted(ticket, i, &users);
        let payload = Bytes::copy_from_slice(&ticket.to_le_bytes());
        self.feed(i, Input::Push(Push { ticket, recipients: users, payload }));
        ticket
    }

    // ---- effects ---------------------------------------------------------------------------------------------

    pub fn feed(&mut self, i: usize, input: Input) {
        assert!(self.host(i).asleep_until.is_none(), "{i} sleeps");
        let host = self.slots[i].host.as_mut().unwrap();
        let outputs = host.node.handle(host.now(self.now), input);
        for output in outputs {
            self.effect(i, output);
        }
    }

    fn effect(&mut self, i: usize, output: Output) {
        let Some(host) = self.slots[i].host.as_mut() else { return };
        let (id, incarnation) = (host.id.clone(), host.incarnation);
        match output {
            Output::Send(to, frame) => {
                let to = self.index(&to);
                self.wire.send(i, to, frame);
                if let Some(cost) = self.wire.dearest.take_if(|cost| !cost.is_due(self.slots.len())) {
                    self.truth.violated(format!("a push costs too much: {cost:?}"));
                }
            }
            Output::Close(to, generation) => {
                let (to, keep) = (self.index(&to), usize::try_from(self.below(4)).unwrap());
                self.wire.close(i, to, name(generation), keep);
            }
            Output::Mail(mail) => host.post(mail),
            Output::Verdict { ticket, verdicts } => {
                let doomed = self.doomed();
                self.truth.judge(ticket, &verdicts, &doomed);
            }
            Output::Refused(ticket) => self.truth.refused(ticket),
            Output::Record(state) if self.lists.is_some() => drop(self.order_listed(i, state)),
            Output::Record(state) => self.source.record(&id, incarnation, state),
            Output::Register(state) => {
                if let Some(epoch) = self.source.register(&id, incarnation, state) {
                    self.feed(i, Input::Recorded(epoch));
                }
            }
            Output::Forget(id, incarnation, epoch) => {
                self.did("forgotten");
                self.source.forget(&id, (incarnation, epoch));
            }
            Output::Open => host.open = true,
            Output::Leave => {
                self.truth.leaves(i, host);
                self.stop(i, Peers::Notice);
                self.did("goodbye");
                if self.below(3) == 0 {
                    self.did("goodbye without deletion"); // it crashed
                } else {
                    self.source.delete(&id);
                }
            }
            Output::Fence(_) => {
                let within = self.below(FENCE_CLOSE_MS * 97 / 100);
                let until = self.now + within;
                let host = self.host_mut(i);
                (host.open, host.closing_until) = (false, Some(until));
                self.did("fence");
            }
            Output::Count(count) => *self.counts.entry(count).or_default() += 1,
        }
    }

    pub fn note(&mut self, i: usize, deeds: Vec<Deed>) {
        let host = self.slots[i].host.as_ref().unwrap();
        for deed in deeds {
            self.truth.note(host, deed);
        }
    }
}
