//! THE loop of a shard: the one task that owns the hub and the sockets.
//!
//! Each turn takes lanes, arrivals, readable sockets and the ticker, each with a budget, lets the hub work, then does
//! what the hub asks for. It waits only when nothing is left to do. Not here: what any of it means (the hub), how
//! bytes move (`engine`), who is let in (`acceptor.rs`, `welcome.rs`, `head.rs`), when nobody is (`run/leave.rs`).

mod leave;

use std::cell::Cell;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::above::Above;
use super::alarm::Alarm;
use super::cluster::ClusterPost;
use super::door::{Door, DoorPlan, Guest, Place};
use super::engine::Engine;
use super::farewell::Farewell;
use super::head::{self, No};
use super::hub_plan::{hub_config, login_rules};
use super::mailbox::{Control, HandOver, RpcAddress, RpcMail, ShardInbox};
use super::names::Names;
use super::news::NodeNews;
use super::nudge::Nudge;
use super::outcomes::Outcomes;
use super::planted::{Faults, Unregister};
use super::presence::{Haste, PresencePost};
use super::pulse::{Activity, Pulse};
use super::recording::Recording;
use super::rest::{Rest, Woken};
use super::socket::Socket;
use super::transform::Identity;
use super::turn::Turns;
use super::welcome::Welcome;
use super::{NodeEvent, ShardStart, clock};
use crate::admission::Admission;
use crate::backend::embedded::TokenCheck;
use crate::config::policy::ShardPolicy;
use crate::hub::mail::ShardMail;
use crate::hub::upstream::{UpstreamCall, UpstreamError, UpstreamOutcome, UpstreamReply};
use crate::hub::{Accepted, Effect, Hub, Input};
use crate::ids::{ConnId, ShardId};
use crate::limits::{EFFECT_BATCH_MAX, FLUSH_BATCH_MAX, LANE_BATCH_MAX, TICK_MS};
use crate::metrics::{Block, Metric};
use crate::session::handshake::Login;
use crate::session::handshake::origin::address_text;
use crate::time::{Mono, Now};

/// Whether the loop may wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pace {
    /// Work is left: give up the turn, then go on.
    Hurry,
    /// Nothing is left until something happens.
    Rest,
}

struct Loop {
    id: ShardId,
    hub: Hub,
    engine: Engine<Identity>,
    door: Rc<Door>,
    welcome: Welcome,
    inbox: ShardInbox,
    rpcs: Vec<RpcAddress>,
    /// See [`ShardStart::tokens`].
    tokens: Option<TokenCheck>,
    admission: Arc<Admission>,
    /// By connection: given back when its socket is closed.
    places: Vec<Option<Place>>,
    block: Arc<Block>,
    pulse: Arc<Pulse>,
    recording: Option<Recording>,
    turns: Turns,
    nudge: Nudge,
    alarm: Alarm,
    farewell: Farewell,
    now: Now,
    rest: Rest,
    /// What ended the last sleep, if this turn follows one.
    woken: Option<Woken>,
    /// The first turn from then on ticks ...
    next_tick: Mono,
    /// ... and a tick after this time is late.
    tick_due: Mono,
    /// Something may have happened that is not published.
    unpublished: bool,
    /// What rpc threads are told.
    outcomes: Outcomes,
    presence: PresencePost,
    cluster: ClusterPost,
    drain: Option<Mono>,
    turn_count: u64,
    /// Test switches.
    faults: Faults,
}

/// Runs a shard until it is drained. The thread's only main future.
pub(super) async fn run(start: ShardStart, turns: Turns) {
    let (id, events, pulse) = (start.id, start.events.clone(), Arc::clone(&start.pulse));
    let news = match Loop::new(start, turns) {
        Ok(mut shard) => {
            tell(&events, NodeEvent::ShardReady(id));
            shard.live().await;
            NodeEvent::ShardDrained(id)
        }
        Err(error) => NodeEvent::Failed(format!("shard {}: {error}", id.0)),
    };
    pulse.end();
    tell(&events, news);
}

fn tell(events: &NodeNews, news: NodeEvent) {
    if let Err(error) = events.try_send(news) {
        tracing::error!(%error, "main does not hear");
    }
}

impl Loop {
    fn new(start: ShardStart, turns: Turns) -> io::Result<Self> {
        let nudge = Nudge::default();
        let now = clock::now();
        let hub_config = hub_config(start.id, &start.config);
        let mut hub = Hub::new(hub_config.clone());
        let recording = Recording::start(start.id, &start.config, &hub_config, &mut hub)?;
        let door = Door::new(
            DoorPlan {
                me: start.id,
                ownership: start.ownership,
                shards: start.shards,
                admission: Arc::clone(&start.admission),
                pulse: Arc::clone(&start.pulse),
                proxies: start.config.admission.proxies.clone(),
                rules: Cell::new(login_rules(&start.config)),
                handshakes_max: Cell::new(start.config.websocket.handshakes_max),
            },
            nudge.clone(),
        );
        start.pulse.begin(now.mono);
        Ok(Self {
            id: start.id,
            hub,
            engine: Engine::new(start.engine, nudge.clone())?,
            door: Rc::new(door),
            welcome: Welcome::new(),
            farewell: Farewell {
                shard: start.id,
                names: Names { kind: start.config.log.users, key: start.config.shards.owner_key },
            },
            alarm: Alarm::start(start.inbox.doorbell_fd()?, nudge.clone())?,
            inbox: start.inbox,
            outcomes: Outcomes::new(start.id, start.rpcs.clone()),
            presence: PresencePost::new(start.rpcs.first().cloned()),
            cluster: ClusterPost::new(start.rpcs.first().cloned()),
            rpcs: start.rpcs,
            tokens: start.tokens,
            admission: start.admission,
            places: Vec::new(),
            block: start.block,
            pulse: start.pulse,
            recording,
            turns,
            nudge,
            now,
            rest: Rest::new(),
            woken: None,
            next_tick: now.mono.plus_ms(TICK_MS),
            tick_due: now.mono.plus_ms(TICK_MS),
            unpublished: true,
            drain: None,
            turn_count: 0,
            faults: Faults::plant(start.id, start.config.planted.fault),
        })
    }

    async fn live(&mut self) {
        loop {
            let pace = self.turn();
            if self.is_drained() {
                self.record();
                return self.publish();
            }
            self.woken = match pace {
                Pace::Hurry => self.give_turn().await,
                Pace::Rest => self.sleep().await,
            };
        }
    }

    /// One turn, in the order of architecture.md section 3.
    fn turn(&mut self) -> Pace {
        self.nudge.clear();
        self.now = clock::now();
        self.pulse.turn(self.now.mono);
        self.turn_count += 1;
        self.unpublished |= self.woken != Some(Woken::ByClock);
        for conn in self.faults.drained() {
            self.close_socket(conn);
        }
        self.outcomes.pass();
        self.read_replies();
        self.read_control();
        self.read_pushes();
        self.read_hand_overs();
        let (engine, mut above) = self.split();
        let mut more = engine.serve(&mut above);
        if self.engine.accepts() {
            more |= self.welcome.take_in(&self.door, &mut self.engine);
        }
        for arrival in self.door.take_arrivals() {
            self.admit(arrival.guest, arrival.login);
        }
        self.tick_if_due();
        self.run_effects(); // a login whose token is judged here registers in the turn that it came in
        self.pulse.enter(Activity::HubTurn, None);
        self.hub.turn(self.now);
        self.run_effects();
        self.flush();
        more |= self.submit();
        self.run_effects(); // a last frame that left closes its connection now, not after a wait
        more |= self.pass_presence() | self.cluster.pass(|| self.hub.next_news()) || self.faults.has_work();
        while let Some(ended) = self.hub.next_ended() {
            self.farewell.say(&ended);
        }
        if more || self.hub.has_work() { Pace::Hurry } else { Pace::Rest }
    }

    async fn give_turn(&self) -> Option<Woken> {
        self.turns.turn().await;
        None
    }

    /// The sleep protocol of the mailbox; tasks of this thread wake the loop by its nudge.
    async fn sleep(&mut self) -> Option<Woken> {
        if !self.inbox.prepare_sleep() {
            return self.give_turn().await; // mail: a lane was longer than its budget, or is not read at present
        }
        self.alarm.arm();
        self.pulse.park();
        self.tick_due = self.wake_at();
        let woken = self.rest.sleep(&self.nudge, self.tick_due).await;
        self.inbox.woken();
        Some(woken)
    }

    /// When the loop ticks if nothing wakes it. Traffic does before that: then the tick costs no wake-up of its own.
    fn wake_at(&self) -> Mono {
        let soon = self.next_tick;
        if !self.outcomes.is_empty()
            || !self.cluster.is_empty()
            || self.door.handshakes() > 0
            || self.recording.is_some()
        {
            return soon;
        }
        let hub = self.hub.rest_until(self.now.mono);
        let counts = soon.plus_ms(TICK_MS);
        if self.unpublished { hub.min(counts).max(soon) } else { hub.max(soon) }
    }

    fn read_replies(&mut self) {
        for _ in 0..LANE_BATCH_MAX {
            let Some(reply) = self.inbox.next_reply() else {
                return;
            };
            self.pulse.enter(Activity::Reply, None);
            self.hub.input(self.now, Input::UpstreamReply(reply));
        }
    }

    fn read_control(&mut self) {
        for _ in 0..LANE_BATCH_MAX {
            let Some(control) = self.inbox.next_control() else {
                return;
            };
            self.pulse.enter(Activity::Control, None);
            match control {
                Control::Hub(mail) => self.hub.input(self.now, Input::Mail(mail)),
                Control::Policy(policy) => self.adopt(&policy),
                Control::Stall(ms) => stall(&self.pulse, ms),
                other => self.open_or_close(other),
            }
        }
    }

    /// Goes by another policy from now on; ends no connection.
    fn adopt(&mut self, policy: &ShardPolicy) {
        self.hub.input(self.now, Input::Mail(ShardMail::Policy(Box::new(policy.hub))));
        self.door.adopt(policy);
        self.farewell.names.kind = policy.names;
    }

    fn read_pushes(&mut self) {
        for _ in 0..LANE_BATCH_MAX {
            if !self.hub.wants_push() {
                return;
            }
            let Some(mail) = self.inbox.next_push() else {
                return;
            };
            self.pulse.enter(Activity::Push, None);
            self.hub.input(self.now, Input::Mail(mail));
        }
    }

    fn read_hand_overs(&mut self) {
        for _ in 0..LANE_BATCH_MAX {
            let Some(HandOver { socket, peer, client, address, login }) = self.inbox.next_hand_over() else {
                return;
            };
            self.pulse.enter(Activity::HandOver, None);
            self.door.count(Metric::HandOversIn);
            let place = Some(Place::taken_over(&self.admission, address));
            match Socket::adopt_nonblocking(socket) {
                Ok(socket) => {
                    let socket = Rc::new(socket);
                    self.admit(Guest { socket, peer, client, place }, login);
                }
                Err(error) => {
                    tracing::warn!(%error, "a handed-over connection could not be taken");
                    self.door.count(Metric::HandshakeBusy);
                }
            }
        }
    }

    /// Gives a connection to the hub and its socket to the engine.
    fn admit(&mut self, guest: Guest, login: Box<Login>) {
        let client = (guest.client != guest.peer).then_some(guest.client);
        let accepted = Accepted { peer: guest.peer, client, login };
        match self.hub.accepted(self.now, accepted) {
            Some(conn) => {
                tracing::debug!(%conn, peer = %guest.peer, client = %address_text(guest.client), "logging in");
                self.engine.adopt(conn, guest.socket);
                if self.places.len() <= conn.index() {
                    self.places.resize_with(conn.index() + 1, || None);
                }
                self.places[conn.index()] = guest.place; // until `Above::closed`
            }
            None if self.door.is_draining() => head::refuse(&self.door, guest, No::busy()),
            None => head::refuse(&self.door, guest, No::over(Metric::HandshakeShardFull)),
        }
    }

    fn tick_if_due(&mut self) {
        let (now, due) = (self.now.mono, self.tick_due);
        if now < self.next_tick {
            return;
        }
        self.pulse.enter(Activity::Tick, None);
        self.next_tick = now.plus_ms(TICK_MS);
        self.tick_due = self.next_tick;
        // What this turn does after it, or what came with its waking, is published by a later one.
        self.unpublished = self.woken != Some(Woken::ByClock);
        self.hub.input(self.now, Input::Tick);
        self.door.expire(now);
        let tally = self.hub.tally(self.now);
        tally.set(Metric::LoopLagMs, now.since_ms(due));
        tally.raise(Metric::LoopLagMaxMs, now.since_ms(due));
        self.publish();
        self.record();
    }

    fn run_effects(&mut self) {
        self.pulse.enter(Activity::Effects, None);
        for _ in 0..EFFECT_BATCH_MAX {
            let Some(effect) = self.hub.next_effect() else {
                return; // what is beyond the budget is still listed in the hub, which then has work
            };
            match effect {
                Effect::Close(conn) => match self.faults.unregister(&self.hub, conn) {
                    Unregister::AtOnce => self.close_socket(conn),
                    Unregister::Queued => {}
                    Unregister::Full => {
                        self.publish(); // the last that is heard of this shard
                        self.pulse.enter(Activity::Effects, Some(conn));
                        self.faults.wait_for_room(conn);
                    }
                },
                Effect::Call(call) => self.call(call),
                Effect::Reply(ticket, outcome) => self.outcomes.say(ticket, outcome),
            }
        }
    }

    fn close_socket(&mut self, conn: ConnId) {
        let (engine, mut above) = self.split();
        engine.close(conn, &mut above);
    }

    /// What is about tokens is answered here, if this shard does that; the rest is asked. A lane that refuses a
    /// question answers it: the client gets its error now and not at the deadline.
    fn call(&mut self, call: Box<UpstreamCall>) {
        let (ticket, tokens) = (call.ticket, self.tokens.as_mut());
        let outcome =
            match tokens.and_then(|tokens| Some((tokens.answer(self.now.unix, &call.request)?, tokens))) {
                Some((outcome, tokens)) => {
                    tokens.take_marks().into_iter().for_each(|marks| self.hub.say_marks(marks));
                    outcome
                }
                None if self.rpcs.first().is_some_and(|rpc| rpc.post(RpcMail::Call(call)).is_ok()) => return,
                None => UpstreamOutcome::Failed(UpstreamError::internal()),
            };
        if let Some(ticket) = ticket {
            self.hub.input(self.now, Input::UpstreamReply(UpstreamReply { ticket, outcome }));
        }
    }

    /// What is beyond the budget is still listed in the hub, which then has work.
    fn flush(&mut self) {
        let (engine, mut above) = self.split();
        for _ in 0..FLUSH_BATCH_MAX {
            let Some(conn) = above.hub.next_flush() else {
                return;
            };
            above.pulse.enter(Activity::Send, Some(conn));
            engine.flush(conn, &mut above);
        }
    }

    /// Everything that was flushed leaves together. Returns whether something came meanwhile.
    fn submit(&mut self) -> bool {
        self.pulse.enter(Activity::Send, None);
        let (engine, mut above) = self.split();
        engine.submit(&mut above)
    }

    fn pass_presence(&mut self) -> bool {
        let haste = if self.drain.is_some() { Haste::AtOnce } else { Haste::Paced };
        self.presence.pass(self.now.mono, haste, || self.hub.next_presence())
    }

    fn publish(&mut self) {
        self.pulse.enter(Activity::Publish, None);
        let tally = self.hub.tally(self.now);
        self.door.move_counts(tally);
        self.inbox.publish(tally);
        self.faults.show(tally);
        let handshakes = self.door.handshakes();
        tally.set(Metric::HandshakesOpen, handshakes as u64);
        tally.set(Metric::Sockets, (self.engine.sockets() + handshakes) as u64);
        tally.set(Metric::Turns, self.turn_count);
        tally.add(Metric::Sends, self.engine.take_sends());
        self.block.publish(tally);
    }

    fn record(&mut self) {
        if let Some(recording) = &mut self.recording {
            recording.write(&mut self.hub);
        }
    }

    fn split(&mut self) -> (&mut Engine<Identity>, Above<'_>) {
        let above = Above {
            hub: &mut self.hub,
            places: &mut self.places,
            pulse: &self.pulse,
            now: self.now,
            faults: &self.faults,
        };
        (&mut self.engine, above)
    }
}

/// `--plant-stall`: what a bug would do, for the tests of the watcher. Whoever unparks the thread ends it early.
fn stall(pulse: &Pulse, ms: u64) {
    pulse.enter(Activity::Stall, None);
    std::thread::park_timeout(Duration::from_millis(ms));
}
