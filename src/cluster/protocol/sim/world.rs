//! The world of the simulator: hosts, wire, source, time, and an adversary that chooses the next event from a seed.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::super::frame::{Class, Generation};
use super::super::io::{Count, Input, Output, OwnRecord, Push};
use super::super::rules::Rules;
use super::super::{Node, Stage};
use super::host::{Deed, Host, SHARDS, TTL_MS};
use super::source::Source;
use super::truth::Truth;
use super::wire::{Lane, Wire, name};
use crate::ids::Text;
use crate::placement::view::{Epoch, Incarnation, MemberState, NodeId, View};
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
    /// Weights of the events, in the order of [`World::step`].
    pub weights: [u64; 17],
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
}

pub struct World {
    state: u64,
    pub now: u64,
    pub profile: Profile,
    pub rules: Rules,
    pub source: Source,
    pub slots: Vec<Slot>,
    pub wire: Wire,
    pub truth: Truth,
    pub counts: BTreeMap<Count, u64>,
    next_ticket: u64,
    /// Login policy: all logins of a user conflict.
    pub conflicts: bool,
}

impl World {
    pub fn new(seed: u64, profile: Profile, rules: Rules) -> Self {
        let mut state = seed.wrapping_mul(0x5851_f42d_4c95_7f2d) ^ 0x1234_5678;
        let nodes = 2 + draw(&mut state) % (profile.nodes - 1);
        let slot = |i: u64| Slot { id: NodeId::new(&format!("n{i}")).unwrap(), host: None, leased_until: 0 };
        let mut world = Self {
            state,
            now: 100_000,
            profile,
            rules,
            source: Source::default(),
            slots: (0..nodes).map(slot).collect(),
            wire: Wire::default(),
            truth: Truth::default(),
            counts: BTreeMap::new(),
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

    fn pick<T: Clone>(&mut self, from: &[T]) -> Option<T> {
        let at = self.below(from.len() as u64);
        from.get(usize::try_from(at).unwrap()).cloned()
    }

    pub fn index(&self, id: &NodeId) -> usize {
        self.slots.iter().position(|slot| slot.id == *id).unwrap()
    }

    pub fn running(&self) -> Vec<usize> {
        (0..self.slots.len()).filter(|&i| self.slots[i].host.is_some()).collect()
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
            _ => self.leave_some(),
        }
    }

    fn deliver_some(&mut self) {
        let Some(lane) = self.pick(&self.wire.busy()) else { return };
        for _ in 0..=self.below(3) {
            self.deliver_from(lane);
        }
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
            self.running().into_iter().flat_map(|i| (0..usize::from(SHARDS)).map(move |shard| (i, shard)));
        all.filter(|&(i, shard)| busy(self.host(i), shard)).collect()
    }

    pub fn shard_step(&mut self, i: usize, shard: usize) {
        let now = self.now;
        let deeds = self.slots[i].host.as_mut().unwrap().shard_step(shard, now);
        self.note(i, deeds);
    }

    fn router_some(&mut self) {
        let busy: Vec<(usize, usize)> = self.shards(|host, shard| !host.shards[shard].outbox.is_empty());
        if let Some((i, shard)) = self.pick(&busy) {
            self.router_step(i, shard);
        }
    }

    pub fn router_step(&mut self, i: usize, shard: usize) {
        if let Some(input) = self.slots[i].host.as_mut().unwrap().shards[shard].outbox.pop_front() {
            self.feed(i, input);
        }
    }

    fn notice_some(&mut self) {
        let notices: Vec<_> = self.wire.notices.iter().copied().collect();
        if let Some(notice) = self.pick(&notices) {
            self.notice(notice);
        }
    }

    pub fn notice(&mut self, notice: (usize, usize, (u64, u64))) {
        self.wire.notices.remove(&notice);
        let (to, from, (dialler, count)) = notice;
        if self.slots[to].host.is_some() {
            let generation = Generation { dialler: Incarnation(dialler), count, acceptor: Incarnation(0) };
            self.feed(to, Input::Closed(self.slots[from].id.clone(), generation));
        }
    }

    fn view_some(&mut self) {
        let Some(i) = self.pick(&self.running()) else { return };
        let oldest = self.host(i).viewed.max(Epoch(self.host(i).incarnation.0 - 1));
        let newer: Vec<View> =
            self.source.history.iter().filter(|view| view.epoch() > oldest).cloned().collect();
        let newest = newer.last().cloned().filter(|_| self.below(3) > 0);
        if let Some(view) = newest.or_else(|| self.pick(&newer)) {
            self.show(i, view);
        }
    }

    pub fn show(&mut self, i: usize, view: View) {
        self.slots[i].host.as_mut().unwrap().viewed = view.epoch();
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
        pairs.filter(|&(low, high)| low < high && down(low, high)).collect()
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
        self.now += ms;
        for i in self.running() {
            self.tick_hubs(i);
            self.renew(i);
            let Some(host) = &self.slots[i].host else { continue };
            let due = host.node.due().is_some_and(|due| due <= host.now(self.now).mono);
            if due && self.below(100) >= late {
                self.feed(i, Input::Tick);
            }
        }
    }

    fn renew(&mut self, i: usize) {
        let now = self.now;
        let host = self.slots[i].host.as_mut().unwrap();
        if host.cut_off || host.leased_until > now + TTL_MS * 6 / 10 {
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

    fn login_some(&mut self) {
        let open: Vec<usize> = self.running().into_iter().filter(|&i| self.host(i).open).collect();
        let conns: usize = self.running().iter().map(|&i| self.host(i).conns.len()).sum();
        let Some(i) = self.pick(&open).filter(|_| conns < 5) else { return };
        let user = self.user();
        self.login(i, user);
    }

    pub fn login(&mut self, i: usize, user: Text) {
        let class = self.conflicts.then_some(Class(1));
        let now = self.now;
        let deeds = self.slots[i].host.as_mut().unwrap().login(user, class, now);
        self.note(i, deeds);
    }

    fn close_some(&mut self) {
        let Some(i) = self.pick(&self.running()) else { return };
        let numbers: Vec<u64> = self.host(i).conns.keys().copied().collect();
        if let Some(number) = self.pick(&numbers) {
            let now = self.now;
            let deeds = self.slots[i].host.as_mut().unwrap().close(number, now);
            self.note(i, deeds);
        }
    }

    fn push_some(&mut self) {
        let Some(i) = self.pick(&self.running()).filter(|_| self.truth.pushes.len() < 4) else { return };
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

    pub fn break_some(&mut self) {
        let lanes: Vec<(usize, usize, (u64, u64))> = self.links();
        if let Some((a, b, generation)) = self.pick(&lanes) {
            let keep = usize::try_from(self.below(4)).unwrap();
            self.wire.close(a, b, generation, keep);
            self.wire.notices.insert((a, b, generation));
        }
    }

    /// Generations that are up at the first of the two.
    fn links(&self) -> Vec<(usize, usize, (u64, u64))> {
        let mut links = Vec::new();
        for a in self.running() {
            for (id, peer) in &self.node(a).peers {
                links.extend(peer.up().map(|up| (a, self.index(id), name(up.generation))));
            }
        }
        links
    }

    fn crash_some(&mut self) {
        if let Some(i) = self.pick(&self.running()).filter(|_| self.running().len() > 1) {
            let told = if self.below(10) < 7 { Peers::Notice } else { Peers::Unaware };
            self.stop(i, told);
        }
    }

    /// The process ends; its peers hear of it, or not.
    pub fn stop(&mut self, i: usize, peers: Peers) {
        let ended: Vec<_> = self.links().into_iter().filter(|(a, _, _)| *a == i).collect();
        let Some(host) = self.slots[i].host.take() else { return };
        self.slots[i].leased_until = host.leased_until;
        self.truth.stopped(i, &host);
        for (a, b, generation) in ended {
            let keep = usize::try_from(self.below(4)).unwrap();
            self.wire.close(a, b, generation, keep);
            if peers == Peers::Unaware {
                self.wire.notices.remove(&(b, a, generation));
            }
        }
        self.wire.lanes.retain(|(_, to, _), _| *to != i);
        self.wire.notices.retain(|(to, _, _)| *to != i);
    }

    fn start_some(&mut self) {
        let down: Vec<usize> = (0..self.slots.len()).filter(|&i| self.slots[i].host.is_none()).collect();
        if let Some(i) = self.pick(&down) {
            self.start(i);
        }
    }

    pub fn start(&mut self, i: usize) {
        let id = self.slots[i].id.clone();
        let epoch = self.source.join(&id);
        let clock = (self.below(1_000_000), 9_901 + self.below(199));
        let mut host = Host::new(id, epoch, self.rules, || clock, self.now);
        host.viewed = Epoch(epoch.0 - 1);
        if let Some(rules) = self.login_rules() {
            host.take_hubs(rules, Some(host.id.clone()));
        }
        self.slots[i].host = Some(host);
    }

    fn cut_some(&mut self) {
        if let Some(i) = self.pick(&self.running()) {
            let host = self.slots[i].host.as_mut().unwrap();
            host.cut_off = !host.cut_off;
        }
    }

    /// Whoever watches the source writes what has expired; what is dead for certain may be forgotten.
    fn lose_some(&mut self) {
        let Some(i) = self.pick(&(0..self.slots.len()).collect::<Vec<_>>()) else { return };
        let id = self.slots[i].id.clone();
        let until = self.slots[i].host.as_ref().map_or(self.slots[i].leased_until, |host| host.leased_until);
        let lost = self.source.records.get(&id).is_some_and(|record| record.state == MemberState::Lost);
        if self.slots[i].host.is_none() && lost {
            self.source.delete(&id);
        } else if self.now >= until {
            self.source.lose(&id);
        }
    }

    pub fn flip_some(&mut self) {
        let ids: Vec<NodeId> = self.source.records.keys().cloned().collect();
        if let Some(id) = self.pick(&ids) {
            let how = self.below(2);
            self.source.flip(&id, how);
        }
    }

    fn leave_some(&mut self) {
        let Some(i) = self.pick(&self.running()).filter(|_| self.running().len() > 1) else { return };
        if self.node(i).stage == Stage::Draining {
            if self.host(i).conns.is_empty() {
                self.feed(i, Input::Emptied);
            }
        } else if self.below(3) == 0 {
            self.slots[i].host.as_mut().unwrap().open = false;
            self.feed(i, Input::Drain);
        }
    }

    // ---- effects ---------------------------------------------------------------------------------------------

    pub fn feed(&mut self, i: usize, input: Input) {
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
            }
            Output::Close(to, generation) => {
                let (to, keep) = (self.index(&to), usize::try_from(self.below(4)).unwrap());
                self.wire.close(i, to, name(generation), keep);
            }
            Output::Mail(mail) => host.post(mail),
            Output::Verdict { ticket, verdicts } => self.truth.judge(ticket, &verdicts),
            Output::Refused(ticket) => self.truth.refused(ticket),
            Output::Record(state) => self.source.record(&id, incarnation, state),
            Output::Register(state) => {
                if let Some(epoch) = self.source.register(&id, incarnation, state) {
                    self.feed(i, Input::Recorded(epoch));
                }
            }
            Output::Forget(id, _) => self.source.delete(&id),
            Output::Open => host.open = true,
            Output::Leave => {
                self.truth.leaves(i, host);
                self.stop(i, Peers::Notice);
                self.source.delete(&id);
            }
            Output::Fence(_) => self.stop(i, Peers::Notice),
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
