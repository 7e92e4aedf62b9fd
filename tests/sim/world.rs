//! A world: hubs, router, upstream and clients, moved by one event list in virtual time. Everything random comes from
//! the seed, so a seed is a film that can be watched again.
//!
//! Not here: what a shard does in a turn (`glue`), what clients do (`client`), what callers of the gRPC API do
//! (`caller`), what must hold (`checker`).

use std::collections::BTreeMap;

use pinion::hub::Hub;
use pinion::hub::mail::RpcOutcome;
use pinion::hub::record::{Mode, Recorder};
use pinion::hub::upstream::{UpstreamCall, UpstreamReply};
use pinion::ids::{ConnId, Ownership, RpcTicket};
use pinion::metrics::Metric;
use pinion::session::handshake::Login;
use pinion::time::{Mono, Now};
use pinion::wire::envelope::Codec;

use crate::caller::Caller;
use crate::checker::{Checker, Observed, Property, Violation};
use crate::client::Client;
use crate::freeze::Freezer;
use crate::glue::{Shard, Stale};
use crate::link::{Link, LinkId, Up};
use crate::plan::{PerMille, Plan};
use crate::planted::Plant;
use crate::upstream::Upstream;

/// How a seed is run.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Hubs are written out and read back at random moments.
    pub freeze: bool,
    /// A fault between hub and world.
    pub plant: Option<Plant>,
    /// Hubs record their inputs.
    pub record: Option<Mode>,
    /// Worlds of [`Plan::churn`] instead of [`Plan::draw`].
    pub churn: bool,
}

/// Everything that happens at a moment of its own.
#[derive(Debug)]
pub enum Event {
    /// A shard's loop runs.
    Turn(usize),
    /// A shard's ticker fires.
    Tick(usize),
    /// A client thinks about what to do.
    Client(usize),
    /// A client reads again.
    Resume(usize),
    /// A client reads from its socket.
    Read(LinkId),
    /// Something reaches the gateway's socket.
    Arrive(LinkId, Up),
    /// A head was read and judged by the accepting shard.
    Connect(LinkId, Box<Login>),
    /// A socket is closed and joined.
    Joined(usize, ConnId),
    /// A completion of a connection that is gone.
    Late(usize, ConnId, Stale),
    /// A question reaches upstream.
    Call(Box<UpstreamCall>),
    /// Its answer reaches the shard.
    Answer(usize, UpstreamReply),
    /// Somebody calls the gRPC API.
    Rpc,
    /// A shard's answer reaches the rpc thread.
    Outcome(usize, RpcTicket, Box<RpcOutcome>),
    /// The monotonic clock jumps (suspend) and the wall clock steps.
    Jump,
    /// SIGTERM.
    Drain,
}

/// What must have happened in some world, or the worlds prove little.
const SIGHTS: [(Metric, &str); 28] = [
    (Metric::CloseBudget, "CloseBudget"),
    (Metric::CloseDrain, "CloseDrain"),
    (Metric::CloseEnvelope, "CloseEnvelope"),
    (Metric::CloseKicked, "CloseKicked"),
    (Metric::CloseLogin, "CloseLogin"),
    (Metric::CloseLogout, "CloseLogout"),
    (Metric::CloseLost, "CloseLost"),
    (Metric::ClosePeer, "ClosePeer"),
    (Metric::CloseProtocol, "CloseProtocol"),
    (Metric::CloseRefused, "CloseRefused"),
    (Metric::CloseRequest, "CloseRequest"),
    (Metric::CloseSilent, "CloseSilent"),
    (Metric::CloseSlow, "CloseSlow"),
    (Metric::CloseText, "CloseText"),
    (Metric::CloseTooBig, "CloseTooBig"),
    (Metric::FramesExpired, "FramesExpired"),
    (Metric::HandshakeBad, "HandshakeBad"),
    (Metric::HandshakeGone, "HandshakeGone"),
    (Metric::HandshakeUpgrade, "HandshakeUpgrade"),
    (Metric::PresenceTips, "PresenceTips"),
    (Metric::PushBackground, "PushBackground"),
    (Metric::PushDropped, "PushDropped"),
    (Metric::PushExpired, "PushExpired"),
    (Metric::PushKicked, "PushKicked"),
    (Metric::PushNotHere, "PushNotHere"),
    (Metric::PushWritten, "PushWritten"),
    (Metric::UpstreamLate, "UpstreamLate"),
    (Metric::UpstreamTimeouts, "UpstreamTimeouts"),
];

/// What a run left behind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Events of each kind, by name.
    pub sights: BTreeMap<&'static str, u64>,
    /// Trace hashes of all hubs and what the clients saw.
    pub trace: u64,
    pub hub_traces: Vec<u64>,
    /// One per shard, if recorded.
    pub recordings: Vec<String>,
}

/// See the module's documentation.
pub struct World {
    pub plan: Plan,
    pub rng: fastrand::Rng,
    pub now: Now,
    /// Counts events: tells before from after within a millisecond.
    pub step: u64,
    pub ownership: Ownership,
    events: BTreeMap<(u64, u64), Event>,
    pub shards: Vec<Shard>,
    pub links: Vec<Link>,
    pub clients: Vec<Client>,
    pub caller: Caller,
    pub upstream: Upstream,
    pub checker: Checker,
    pub freezer: Option<Freezer>,
    pub plant: Option<Plant>,
    pub codec: Codec,
    pub observed: Observed,
    pub draining: bool,
    pub sights: BTreeMap<&'static str, u64>,
}

impl World {
    /// Sets a world up from its seed.
    pub fn new(seed: u64, options: Options) -> Self {
        let (plan, mut rng) = if options.churn { Plan::churn(seed) } else { Plan::draw(seed) };
        let ownership = Ownership::new([seed, 7], plan.shards);
        let shards = (0..plan.shards).map(|shard| {
            let config = plan.hub_config(shard);
            let mut hub = Hub::new(config.clone());
            if let Some(mode) = options.record {
                hub.record(Recorder::new(mode, &config, u64::MAX / 2));
            }
            Shard::new(hub)
        });
        let clients = (0..plan.clients).map(|n| Client::draw(n, &plan, &mut rng));
        let mut world = Self {
            now: plan.start,
            step: 0,
            events: BTreeMap::new(),
            shards: shards.collect(),
            links: Vec::new(),
            clients: clients.collect(),
            caller: Caller::new(ownership.clone()),
            upstream: Upstream::default(),
            checker: Checker::default(),
            freezer: options.freeze.then(|| Freezer::new(seed)),
            plant: options.plant,
            codec: Codec::default(),
            observed: Observed::new(),
            draining: false,
            sights: BTreeMap::new(),
            ownership,
            plan,
            rng,
        };
        for shard in 0..world.shards.len() {
            world.after(shard as u64, Event::Tick(shard));
        }
        for client in 0..world.clients.len() {
            let delay = world.rng.u64(0..300);
            world.after(delay, Event::Client(client));
        }
        world.after(20, Event::Rpc);
        let drain = world.plan.run_ms;
        world.after(drain, Event::Drain);
        world
    }

    /// Runs until nothing happens any more, or until something is wrong.
    pub fn run(mut self) -> Result<Report, Violation> {
        while let Some(((at, _), event)) = self.events.pop_first() {
            let mono = self.now.mono.0.max(at);
            let passed = i64::try_from(mono - self.now.mono.0).expect("small");
            self.now.mono = Mono(mono);
            self.now.unix.0 += passed;
            self.step += 1;
            self.checker.now_ms = mono - self.plan.start.mono.0;
            self.happen(event);
            if let Some(violation) = self.checker.violation.take() {
                return Err(violation);
            }
        }
        self.finish()
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Turn(shard) => self.turn(shard),
            Event::Tick(shard) => self.tick(shard),
            Event::Client(client) => self.client_acts(client),
            Event::Resume(client) => self.client_resumes(client),
            Event::Read(link) => self.client_reads(link),
            Event::Arrive(link, up) => self.arrive(link, up),
            Event::Connect(link, login) => self.connect(link, login),
            Event::Joined(shard, conn) => self.joined(shard, conn),
            Event::Late(shard, conn, stale) => self.late(shard, conn, stale),
            Event::Call(call) => self.upstream_asked(*call),
            Event::Answer(shard, reply) => self.answered(shard, reply),
            Event::Rpc => self.call_rpc(),
            Event::Outcome(shard, ticket, outcome) => self.rpc_outcome(shard, ticket, *outcome),
            Event::Jump => self.jump(),
            Event::Drain => self.drain(),
        }
    }

    /// Something will happen in `ms` milliseconds. Of two events at one moment the one noted first comes first.
    pub fn after(&mut self, ms: u64, event: Event) {
        let at = self.now.mono.0 + ms;
        self.at(at, event);
    }

    /// As [`World::after`], at a moment.
    pub fn at(&mut self, at: u64, event: Event) {
        // The step of the cause and the count of events make the key unique and its order reproducible.
        let tie = self.events.range((at, 0)..=(at, u64::MAX)).next_back().map_or(0, |((_, tie), _)| tie + 1);
        self.events.insert((at, tie), event);
    }

    /// True in `odds` of a thousand cases.
    pub fn chance(&mut self, odds: PerMille) -> bool {
        odds > 0 && self.rng.u32(0..1000) < odds
    }

    fn jump(&mut self) {
        let forward = [1_500, 12_000, 40_000, 200_000][self.rng.usize(0..4)];
        self.now.mono = self.now.mono.plus_ms(forward);
        self.now.unix.0 += self.rng.i64(-3_600_000..3_600_000);
        for link in &mut self.links {
            link.excuse("the clock jumped");
        }
    }

    fn drain(&mut self) {
        self.draining = true;
        for link in &mut self.links {
            link.excuse("drain");
        }
        let deadline = self.now.mono.plus_ms(self.plan.drain_ms);
        for shard in 0..self.shards.len() {
            self.shards[shard].drain = Some(deadline);
            self.shards[shard].drain_tick = self.shards[shard].ticks;
            self.wake(shard);
        }
    }

    /// Whether ticks and clients may stop: everything is drained and nobody waits.
    pub fn is_over(&self) -> bool {
        self.draining && self.shards.iter().all(Shard::is_empty) && self.caller.is_idle()
    }

    fn finish(mut self) -> Result<Report, Violation> {
        self.checker.drained();
        let registered = self.checker.all_left();
        for shard in &mut self.shards {
            let left = |metric| shard.hub.tally(self.now).value(metric);
            let gauges: Vec<_> = [
                Metric::Connections,
                Metric::Registered,
                Metric::Users,
                Metric::OutboxBytes,
                Metric::CallsInFlight,
                Metric::PushesOpen,
                Metric::PushesTracked,
                Metric::HeldMessages,
                Metric::HeldBytes,
                Metric::SubscriptionTargets,
                Metric::RegisterDepth,
                Metric::UnregisterDepth,
                Metric::KickDepth,
            ]
            .map(left)
            .to_vec();
            if gauges.iter().any(|n| *n != 0) {
                let text = format!("not empty after the drain: {gauges:?}");
                self.checker.fail(Property::Tables, text);
            }
        }
        if let Some(violation) = self.checker.violation.take() {
            return Err(violation);
        }
        self.sights.insert("pushes followed", self.checker.pushes.followed);
        self.sights.insert("registered", registered);
        for metric in SIGHTS {
            let count: u64 = self.shards.iter_mut().map(|s| s.hub.tally(self.now).value(metric.0)).sum();
            *self.sights.entry(metric.1).or_default() += count;
        }
        let hub_traces: Vec<u64> = self.shards.iter().map(|s| s.hub.trace_hash()).collect();
        hub_traces.iter().for_each(|trace| self.observed.fold(&trace.to_le_bytes()));
        let recording = |shard: &mut Shard| {
            shard.recording.extend(shard.hub.take_recording());
            String::from_utf8(std::mem::take(&mut shard.recording)).expect("a recording is text")
        };
        Ok(Report {
            trace: self.observed.0,
            hub_traces,
            recordings: self.shards.iter_mut().map(recording).collect(),
            sights: self.sights,
        })
    }

    /// Counts something that was seen to happen.
    pub fn saw(&mut self, what: &'static str) {
        *self.sights.entry(what).or_default() += 1;
    }
}
