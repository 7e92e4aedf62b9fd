//! How long nodes with very many users take to settle after a change (issue "Several nodes", show 5): the routers and
//! the words of production, in virtual time. What a router does takes the processor time that it takes here; links
//! have the delay and the bandwidth of a data centre, the source tells within 50 ms, clients come back within seconds.
//!
//! Not a test: it measures. `cargo test --release -p pinion --lib -- --ignored --nocapture --exact
//! cluster::protocol::sim::settle::changes::time_to_settle` prints a table in Markdown; `PINION_SETTLE_USERS` (100 000)
//! and `PINION_SETTLE_NODES` (3, 5 and 10) say how many. A small run of it is a test.

mod changes;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use rustix::time::{ClockId, clock_gettime};

use super::super::codec::{Queue, decode};
use super::super::frame::{Body, Class, Device, Generation, Key};
use super::super::io::{Input, Mail, Output, Resident};
use super::super::peer::Link;
use super::super::placed::Placed;
use super::super::{Fence, Identity, Node};
use super::source::Source;
use crate::hub::mail::{DeviceOutcome, DeviceVerdict};
use crate::ids::{Platform, ShardId, Text};
use crate::placement::Algorithm;
use crate::placement::view::{Epoch, Incarnation, NodeId};
use crate::random::draw;
use crate::time::{Mono, Now, UnixMs};
use crate::wire::grpc::PREFIX_BYTES;

const SHARDS: u16 = 4;
const MS: u64 = 1_000;
const SECOND: u64 = 1_000 * MS;
/// Lease of the source.
const TTL: u64 = 10 * SECOND;
/// 1 Gbit/s, bytes in a microsecond.
const BANDWIDTH: u64 = 125;

/// Where clients are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Clients {
    /// At their home: the assign API sends them there.
    AtHome,
    /// Anywhere: a load balancer that knows nothing.
    Anywhere,
}

/// Whether pushes look for missed connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pushes {
    Go,
    Rest,
}

enum Event {
    Message { from: usize, to: usize, bytes: Bytes },
    Input(usize, Input),
    Login(Text),
}

struct Client {
    at: usize,
    number: u64,
    /// Since its 101.
    key: Option<Key>,
}

struct Station {
    id: NodeId,
    node: Option<Node>,
    incarnation: u64,
    conns: BTreeMap<u64, Text>,
    next_conn: u64,
    queues: BTreeMap<usize, Queue>,
    in_force: Vec<(Epoch, Placed)>,
    busy_until: u64,
    wire_free: u64,
    cpu: u64,
    longest: u64,
    open: bool,
}

/// What has been seen since the change.
#[derive(Default)]
struct Seen {
    frames: u64,
    bytes: u64,
    pushes: u64,
    not_complete: u64,
    last_not_complete: u64,
}

struct Sim {
    state: u64,
    now: u64,
    seq: u64,
    events: BTreeMap<(u64, u64), Event>,
    stations: Vec<Station>,
    arrived: BTreeMap<(usize, usize), u64>,
    source: Source,
    clients: Clients,
    /// So often a push to a user drawn by lot, at a node drawn by lot.
    push_every: u64,
    users: BTreeMap<Text, Client>,
    names: Vec<Text>,
    pushes: BTreeMap<u64, (u64, Option<(usize, u64)>)>,
    next_ticket: u64,
    seen: Seen,
}

impl Sim {
    fn new(nodes: usize, users: usize, clients: Clients, push_every: u64) -> Self {
        let station = |i: usize| Station {
            id: NodeId::new(&format!("node-{i}")).unwrap(),
            node: None,
            incarnation: 0,
            conns: BTreeMap::new(),
            next_conn: 1,
            queues: BTreeMap::new(),
            in_force: Vec::new(),
            busy_until: 0,
            wire_free: 0,
            cpu: 0,
            longest: 0,
            open: false,
        };
        let mut sim = Self {
            state: 7,
            now: SECOND,
            seq: 0,
            events: BTreeMap::new(),
            stations: (0..=nodes).map(station).collect(),
            arrived: BTreeMap::new(),
            source: Source::default(),
            clients,
            push_every,
            users: BTreeMap::new(),
            names: (0..users).map(|n| Text::from(format!("{n:010}"))).collect(),
            pushes: BTreeMap::new(),
            next_ticket: 1,
            seen: Seen::default(),
        };
        for i in 0..nodes {
            sim.start(i);
        }
        sim.run(5 * SECOND, Pushes::Rest);
        for user in sim.names.clone() {
            let within = sim.below(10 * SECOND);
            sim.at(within, Event::Login(user));
        }
        sim.run(15 * SECOND, Pushes::Rest);
        assert!(
            sim.is_quiet() && sim.users.values().all(|client| client.key.is_some()),
            "it begins in peace"
        );
        sim
    }

    fn below(&mut self, n: u64) -> u64 {
        draw(&mut self.state) % n.max(1)
    }

    fn at(&mut self, after: u64, event: Event) {
        self.seq += 1;
        self.events.insert((self.now + after, self.seq), event);
    }

    fn running(&self) -> Vec<usize> {
        (0..self.stations.len()).filter(|&i| self.stations[i].node.is_some()).collect()
    }

    fn node(&self, i: usize) -> &Node {
        self.stations[i].node.as_ref().unwrap()
    }

    fn start(&mut self, i: usize) {
        let epoch = self.source.join(&self.stations[i].id);
        let identity = Identity {
            node_id: self.stations[i].id.clone(),
            incarnation: Incarnation(epoch.0),
            first_epoch: epoch,
            shards: SHARDS,
            algorithm: Algorithm::default(),
            fence: Fence::Strict,
        };
        self.stations[i].incarnation = epoch.0;
        self.stations[i].node = Some(Node::new(identity, Mono(u64::MAX / 2)));
        self.tell();
    }

    /// The newest view, to everybody within 50 ms.
    fn tell(&mut self) {
        let Some(view) = self.source.newest().cloned() else { return };
        for i in self.running() {
            let after = 2 * MS + self.below(48 * MS);
            self.at(after, Event::Input(i, Input::View(view.clone())));
        }
    }

    // ---- time ------------------------------------------------------------------------------------------------

    /// So much time passes, with a look around every 10 ms. Returns when it was quiet first and stayed so.
    fn run(&mut self, time: u64, pushes: Pushes) -> Option<u64> {
        let end = self.now + time;
        let (mut look, mut push, mut quiet) = (self.now, self.now, None);
        while self.now < end {
            let next = self.events.first_key_value().map_or(end, |((at, _), _)| *at);
            let next = next.min(look).min(if pushes == Pushes::Go { push } else { end }).min(end);
            self.now = self.now.max(next);
            if self.now >= look {
                look = self.now + 10 * MS;
                self.look_around();
                quiet = if self.is_quiet() { quiet.or(Some(self.now)) } else { None };
            }
            if pushes == Pushes::Go && self.now >= push {
                push = self.now + self.push_every;
                self.push();
            }
            while let Some(entry) = self.events.first_entry().filter(|entry| entry.key().0 <= self.now) {
                let event = entry.remove();
                self.take(event);
            }
        }
        quiet
    }

    /// Timers, and links that must be dialled.
    fn look_around(&mut self) {
        for i in self.running() {
            let now = self.clock(i);
            if self.node(i).due().is_some_and(|due| due <= now.mono) {
                self.feed(i, Input::Tick);
            }
            for high in self.running().into_iter().filter(|&high| high > i) {
                let peer =
                    self.stations[i].node.as_ref().and_then(|node| node.peers.get(&self.stations[high].id));
                if peer.is_none_or(|peer| matches!(peer.link, Link::Down)) {
                    self.feed(i, Input::Opened(self.stations[high].id.clone()));
                }
            }
        }
    }

    /// Its clock, when it gets to what comes now.
    fn clock(&self, i: usize) -> Now {
        let ms = self.now.max(self.stations[i].busy_until) / MS;
        Now { mono: Mono(ms), unix: UnixMs(i64::try_from(ms).unwrap()) }
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::Message { from, to, bytes } => {
                if self.stations[to].node.is_none() {
                    return;
                }
                let began = worked();
                let frames = decode(bytes.slice(PREFIX_BYTES..)).unwrap();
                let work = frames.iter().map(|frame| work_of(&frame.body)).max();
                self.spend(to, began, work.unwrap_or(Work::Push));
                for frame in frames {
                    let from = self.stations[from].id.clone();
                    self.feed(to, Input::Frame(from, frame));
                }
            }
            Event::Input(i, input) => self.feed(i, input),
            Event::Login(user) => self.login(user),
        }
    }

    fn spend(&mut self, i: usize, began: u64, work: Work) {
        let micros = (worked() - began).div_ceil(1_000);
        let station = &mut self.stations[i];
        station.busy_until = station.busy_until.max(self.now) + micros;
        if work == Work::Directory {
            station.cpu += micros;
            station.longest = station.longest.max(micros);
        }
    }

    fn feed(&mut self, i: usize, input: Input) {
        let now = self.clock(i);
        let work = match &input {
            Input::Push(_) | Input::Delivered { .. } => Work::Push,
            Input::Frame(_, frame) => work_of(&frame.body),
            _ => Work::Directory,
        };
        let began = worked();
        let Some(node) = self.stations[i].node.as_mut() else { return };
        let outputs = node.handle(now, input);
        let mut rest = Vec::new();
        let mut towards = BTreeSet::new();
        for output in outputs {
            match output {
                Output::Send(to, frame) => {
                    let to = self.stations.iter().position(|station| station.id == to).unwrap();
                    towards.insert(to);
                    let directory =
                        work_of(&frame.body) == Work::Directory && !matches!(frame.body, Body::Beat(_));
                    let queue = self.stations[i].queues.entry(to).or_default();
                    let before = queue.depth().0;
                    queue.push(frame).expect("the queue of a link holds what a change makes");
                    if directory {
                        self.seen.frames += 1;
                        self.seen.bytes += (queue.depth().0 - before) as u64;
                    }
                }
                other => rest.push(other),
            }
        }
        let mut batches = VecDeque::new();
        for to in towards {
            let queue = self.stations[i].queues.entry(to).or_default();
            batches.extend(std::iter::from_fn(|| queue.pop()).map(|batch| (to, batch.bytes)));
        }
        self.spend(i, began, work);
        for (to, bytes) in batches {
            self.transmit(i, to, bytes);
        }
        for output in rest {
            self.effect(i, output);
        }
    }

    fn transmit(&mut self, from: usize, to: usize, bytes: Bytes) {
        let station = &mut self.stations[from];
        let begins = station.wire_free.max(station.busy_until).max(self.now);
        station.wire_free = begins + bytes.len() as u64 / BANDWIDTH;
        let delay = 150 + draw(&mut self.state) % 400;
        let last = self.arrived.entry((from, to)).or_default();
        *last = (station.wire_free + delay).max(*last);
        let after = *last - self.now;
        self.at(after, Event::Message { from, to, bytes });
    }

    // ---- effects ---------------------------------------------------------------------------------------------

    fn effect(&mut self, i: usize, output: Output) {
        let (id, life) = (self.stations[i].id.clone(), Incarnation(self.stations[i].incarnation));
        match output {
            Output::Close(to, generation) => self.closed(i, &to, generation),
            Output::Mail(mail) => self.mail(i, mail),
            Output::Verdict { ticket, verdicts } => self.verdict(ticket, &verdicts),
            Output::Record(state) => {
                self.source.record(&id, life, state);
                self.tell();
            }
            Output::Forget(id, life, epoch) => {
                self.source.forget(&id, (life, epoch));
                self.tell();
            }
            Output::Leave => {
                self.source.delete(&id);
                self.stations[i].node = None;
                self.tell();
            }
            Output::Open => self.stations[i].open = true,
            Output::Count(_) | Output::Send(..) => {}
            Output::Refused(_) | Output::Register(_) | Output::Fence(_) => panic!("{output:?}"),
        }
    }

    fn closed(&mut self, from: usize, to: &NodeId, generation: Generation) {
        let to = self.stations.iter().position(|station| station.id == *to).unwrap();
        let from = self.stations[from].id.clone();
        self.at(MS, Event::Input(to, Input::Closed(from, generation)));
    }

    fn mail(&mut self, i: usize, mail: Mail) {
        let busy = self.stations[i].busy_until.saturating_sub(self.now);
        match mail {
            Mail::Add(epoch, placed) => self.switch(i, epoch, placed),
            Mail::Only(epoch) => self.stations[i].in_force.retain(|(of, _)| *of == epoch),
            Mail::Register(number, key) => {
                let Some(user) = self.stations[i].conns.get(&number).cloned() else { return };
                let resident = self.registered(i, number, user, key);
                self.at(busy + 30, Event::Input(i, Input::Registered(resident)));
            }
            Mail::Deliver { leg, recipients, .. } => {
                let results =
                    recipients.into_iter().map(|user| (user.clone(), self.reached(i, &user))).collect();
                self.at(busy + 50, Event::Input(i, Input::Delivered { leg, results }));
            }
            Mail::Refuse(number) => {
                if let Some(user) = self.stations[i].conns.remove(&number) {
                    self.users.remove(&user);
                    self.at(SECOND, Event::Login(user));
                }
            }
            Mail::Kick { .. } | Mail::Judge { .. } | Mail::Met(_) | Mail::Marks(_) => {}
        }
    }

    /// The shards go on by both, and answer; they do so side by side.
    fn switch(&mut self, i: usize, epoch: Epoch, placed: Placed) {
        let began = worked();
        let mut answers: Vec<Vec<Resident>> = (0..SHARDS).map(|_| Vec::new()).collect();
        for (number, user) in &self.stations[i].conns {
            let Some(key) = self.users.get(user).and_then(|client| client.key.clone()) else { continue };
            if placed.home(user) != Some(&self.stations[i].id) {
                let shard = usize::try_from(number % u64::from(SHARDS)).unwrap();
                let (number, user, class) = (*number, user.clone(), Some(Class(1)));
                let resident = Resident { number, user, class, token: None, key };
                answers[shard].push(resident);
            }
        }
        self.stations[i].in_force.push((epoch, placed));
        let after = (worked() - began) / 1_000 / u64::from(SHARDS) + 100;
        for (shard, residents) in answers.into_iter().enumerate() {
            let shard = ShardId(u16::try_from(shard).unwrap());
            self.at(after, Event::Input(i, Input::Switched { shard, epoch, residents }));
        }
    }

    fn reached(&self, i: usize, user: &Text) -> Vec<(u64, Device)> {
        let device = |number| DeviceVerdict {
            number,
            platform: Platform::IOS,
            connection_id: [0; 16],
            outcome: DeviceOutcome::Queued,
        };
        let here = self.users.get(user).filter(|client| client.at == i && client.key.is_some());
        here.map(|client| (client.number, device(client.number).into())).into_iter().collect()
    }
}

/// Nanoseconds that this thread has worked.
fn worked() -> u64 {
    let spent = clock_gettime(ClockId::ThreadCPUTime);
    u64::try_from(spent.tv_sec).unwrap() * 1_000_000_000 + u64::try_from(spent.tv_nsec).unwrap()
}

/// For what a router works: the pushes that look for missed connections are not what is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Work {
    Push,
    Directory,
}

fn work_of(body: &Body) -> Work {
    match body {
        Body::Route(_)
        | Body::RouteReply { .. }
        | Body::NotHome { .. }
        | Body::Deliver { .. }
        | Body::DeliverReply { .. } => Work::Push,
        _ => Work::Directory,
    }
}
