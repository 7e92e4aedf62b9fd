//! All sessions of one shard: registry, queues, login policy, dispatch, push, presence. Pure: takes `now`, values and
//! bytes; gives effects and frames.
//!
//! Call order of one turn: `input` / `accepted` / `bytes` for what came in, [`Hub::turn`] once, then drain
//! [`Hub::next_effect`] and [`Hub::next_flush`] (for each: [`Hub::fill`], send, [`Hub::sent`]). While
//! [`Hub::has_work`] the next turn must not wait.
//!
//! What always holds: a session ends once, with one reason; `Effect::Close` comes once for each connection; a slot is
//! freed only when its socket is joined and no queue holds it; nothing here waits. All state is plain data: it can be
//! written out and read back (serde) and nothing observable changes.
#![deny(clippy::indexing_slicing, clippy::iter_over_hash_type, clippy::expect_used)]

mod audit;
mod backlogs;
mod calls;
mod claims;
pub mod cluster;
pub mod conversation;
mod crowd;
mod dispatch;
pub mod drain;
mod encoder;
pub mod ended;
pub mod follow;
mod held;
mod lifecycle;
mod login;
pub mod login_policy;
pub mod mail;
mod mailroom;
mod plan;
pub mod policy;
mod presence;
mod push;
pub mod push_frame;
mod push_queue;
mod queues;
pub mod record;
mod registry;
mod rivals;
pub mod sight;
mod subscriptions;
pub mod trace;
pub mod upstream;
mod verdicts;
mod wheel;

use std::collections::VecDeque;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

pub use crate::session::outbox::SendBatch;
pub use crowd::SpreadPlan;
pub use plan::HubConfig;

use crate::ids::{ConnId, RpcTicket};
use crate::limits;
use crate::metrics::{Metric, Tally};
use crate::session::disconnect::Disconnect;
use crate::session::handshake::Login;
use crate::session::meter::Resource;
use crate::session::{Phase, Tick};
use crate::time::{Mono, Now};
use crate::wire::envelope::Variant;
use crate::wire::message::ReadLimits;
use backlogs::Backlogs;
use calls::Calls;
use claims::Claims;
use crowd::Spread;
use dispatch::Decoded;
use drain::{Leaving, Pace};
use encoder::Encoder;
use ended::Ended;
use follow::Follow;
use held::Held;
use mail::{RpcOutcome, ShardMail};
use presence::Presence;
use push_queue::Pushes;
use queues::{Kind, Queues};
use record::Recorder;
use registry::Registry;
use subscriptions::Subscriptions;
use trace::{Note, Trace};
use upstream::{PresenceRecord, UpstreamCall, UpstreamReply};
use verdicts::Verdicts;
use wheel::Wheel;

/// A connection whose head was accepted, now on its owner shard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accepted {
    /// TCP address of the peer.
    pub peer: SocketAddr,
    /// The client, if the peer is a believed proxy that has named him (port 0: not known). He is shown to operators;
    /// OpenIM's name of the connection is made of the peer (spec 1.2).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<SocketAddr>,
    /// Its arguments.
    pub login: Box<Login>,
}

/// Everything that can happen to a hub besides bytes and new connections.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Input {
    /// The socket is closed and joined; nothing of it is in flight any more. Frees the slot.
    TransportClosed(ConnId),
    /// The peer is gone (EOF, reset) but the socket is still open. The session ends; answered by `Effect::Close`.
    TransportLost(ConnId),
    /// From an rpc thread.
    Mail(ShardMail),
    /// From upstream.
    UpstreamReply(UpstreamReply),
    /// At the latest when [`Hub::rest_until`] said, and every `limits::TICK_MS` while there are other inputs.
    Tick,
    /// Close all sessions, paced, the rest at the deadline. `deadline <= now`: at once.
    Drain(Mono),
    /// Let nobody in and close sessions at this pace, without a deadline.
    Evict(Pace),
    /// The end of [`Input::Evict`]: logins are served again, and who is still here stays.
    Serve,
}

/// What the shard must do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Effect {
    /// Three-step close: shutdown, join in-flight operations, close the descriptor, then `Input::TransportClosed`.
    /// The outbox was flushed, or its deadline passed. Exactly once per connection.
    Close(ConnId),
    /// To the rpc thread (embedded or OpenIM).
    Call(Box<UpstreamCall>),
    /// To the rpc thread that asked.
    Reply(RpcTicket, Box<RpcOutcome>),
}

/// See the module's documentation.
#[derive(Debug, Serialize, Deserialize)]
pub struct Hub {
    config: HubConfig,
    registry: Registry,
    queues: Queues,
    wheel: Wheel,
    /// The tick up to which timers are served, while some are left.
    timers_due: Option<Tick>,
    backlogs: Backlogs,
    calls: Calls,
    pushes: Pushes,
    verdicts: Verdicts,
    held: Held,
    presence: Presence,
    subscriptions: Subscriptions,
    spread: Spread,
    /// `None`: the node is alone.
    #[serde(default)]
    claims: Option<Box<Claims>>,
    effects: VecDeque<Effect>,
    flush: VecDeque<ConnId>,
    drain: Option<Leaving>,
    trace: Trace,
    follow: Follow,
    #[serde(skip)]
    ended: VecDeque<Ended>,
    #[serde(skip)]
    encoder: Encoder,
    #[serde(skip)]
    tally: Tally,
    #[serde(skip)]
    recorder: Option<Recorder>,
}

impl Hub {
    /// An empty hub.
    pub fn new(config: HubConfig) -> Self {
        Self {
            registry: Registry::new(config.connections_max, config.hash_seed),
            queues: Queues::new(),
            wheel: Wheel::new(),
            timers_due: None,
            backlogs: Backlogs::new(config.shard_outbox_bytes_max),
            calls: Calls::new(),
            pushes: Pushes::new(),
            verdicts: Verdicts::new(),
            held: Held::new(),
            presence: Presence::new(config.connections_max),
            subscriptions: Subscriptions::default(),
            spread: Spread::new(config.spread),
            claims: config.cluster.clone().map(|me| Box::new(Claims::new(me, config.shard))),
            effects: VecDeque::new(),
            flush: VecDeque::new(),
            drain: None,
            trace: Trace::default(),
            follow: Follow::default(),
            ended: VecDeque::new(),
            encoder: Encoder::default(),
            tally: Tally::default(),
            recorder: None,
            config,
        }
    }

    /// Takes over a connection and asks for its token. `None`: the slab is full, or the node drains (answer 503).
    pub fn accepted(&mut self, now: Now, accepted: Accepted) -> Option<ConnId> {
        if let Some(recorder) = &mut self.recorder {
            recorder.accepted(now, &accepted);
        }
        self.begin_login(now, accepted)
    }

    /// Feeds one input. A stale id in it is ignored.
    pub fn input(&mut self, now: Now, input: Input) {
        if let Some(recorder) = &mut self.recorder {
            recorder.input(now, &input);
        }
        match input {
            Input::TransportClosed(conn) => self.transport_closed(now, conn),
            Input::TransportLost(conn) => self.transport_lost(now, conn),
            Input::Mail(mail) => self.mail(now, mail),
            Input::UpstreamReply(reply) => self.reply(now, reply),
            Input::Tick => self.tick(now),
            Input::Drain(deadline) => self.begin_drain(now, Leaving::By(deadline)),
            Input::Evict(pace) => self.begin_drain(now, Leaving::at(now.mono, pace)),
            Input::Serve => self.drain = None,
        }
    }

    /// Feeds received bytes (they are unmasked in place). A stale id, or a session that is over, is ignored; bytes
    /// before the 101 end the session.
    pub fn bytes(&mut self, now: Now, conn: ConnId, bytes: &mut [u8]) {
        if let Some(recorder) = &mut self.recorder {
            recorder.bytes(now, conn, bytes);
        }
        let Some(session) = self.registry.sessions.get_mut(conn.0) else {
            return;
        };
        match session.phase {
            Phase::Open => {}
            // Before its 101 a client may not send (spec 1.1).
            Phase::LoggingIn | Phase::Spread | Phase::Registering | Phase::Claiming => {
                return self.decoded(now, conn, Decoded::Fault(Disconnect::ProtocolError));
            }
            Phase::Closing | Phase::Closed => return,
        }
        let (rates, tick, received) = (self.config.rates, Tick::of(now.mono), bytes.len() as u64);
        self.tally.add(Metric::BytesIn, received);
        session.ledger.bytes_in += received;
        if !session.ledger.meter.take(tick, &rates, Resource::Bytes, received) {
            return self.decoded(now, conn, Decoded::Fault(Disconnect::ByteRate));
        }
        let held = session.inbound_bytes();
        self.registry.inbound_bytes -= session.inbound.held_bytes();
        let (mut inbound, variant) = (std::mem::take(&mut session.inbound), session.variant);
        let limits = ReadLimits::server(limits::MESSAGE_BYTES_MAX, limits::FRAGMENTS_MAX);
        let mut feed = inbound.feed(bytes, &limits);
        loop {
            match feed.next() {
                Ok(Some(event)) => {
                    let decoded = dispatch::decode(&mut self.encoder.codec, variant, event);
                    let decoded = self.meter_inflated(tick, conn, decoded);
                    self.decoded(now, conn, decoded);
                }
                Ok(None) => break,
                Err(fault) => self.decoded(now, conn, Decoded::from(fault)),
            }
            if self.registry.session(conn).is_none_or(|s| s.phase != Phase::Open) {
                break;
            }
        }
        let frames = feed.frames();
        self.tally.add(Metric::FramesIn, frames);
        let Some(session) = self.registry.sessions.get_mut(conn.0).filter(|s| s.phase == Phase::Open) else {
            return;
        };
        self.registry.inbound_bytes += inbound.held_bytes();
        session.inbound = inbound;
        if !session.ledger.meter.take(tick, &rates, Resource::Frames, frames) {
            self.decoded(now, conn, Decoded::Fault(Disconnect::FrameRate));
        } else if self.registry.inbound_bytes > limits::SHARD_INBOUND_BYTES_MAX
            && session.inbound_bytes() > held
        {
            self.decoded(now, conn, Decoded::Fault(Disconnect::ShardBudget));
        }
    }

    /// Charges a connection for what its message was inflated to. More than its rate: the message is not looked at.
    fn meter_inflated(&mut self, tick: Tick, conn: ConnId, decoded: Decoded) -> Decoded {
        let inflated = self.encoder.codec.inflated_bytes();
        let session = self.registry.session_mut(conn).filter(|_| inflated > 0);
        let fits = session.is_none_or(|session| {
            session.ledger.meter.take(tick, &self.config.rates, Resource::Inflated, inflated as u64)
        });
        if fits { decoded } else { Decoded::Fault(Disconnect::InflatedRate) }
    }

    /// Bounded work of one turn: queues (unregister, kicks, registers), timers, then one slice of pushes.
    pub fn turn(&mut self, now: Now) {
        if let Some(recorder) = &mut self.recorder {
            recorder.turn(now);
        }
        for kind in [Kind::Unregister, Kind::Kick, Kind::Register] {
            for _ in 0..limits::QUEUE_BATCH_MAX {
                let Some(conn) = self.queues.pop(&mut self.registry.sessions, kind) else {
                    break;
                };
                match kind {
                    Kind::Unregister => self.unregister(conn),
                    Kind::Kick => self.kick(now, conn),
                    Kind::Register => self.take_login(now, conn),
                }
                self.free_if_done(now, conn);
            }
        }
        self.switch_slice();
        self.serve_timers(now);
        self.push_slice(now);
    }

    /// Work is left that needs no further input.
    pub fn has_work(&self) -> bool {
        !self.queues.is_empty()
            || self.pushes.has_work()
            || self.verdicts.has_work()
            || self.timers_due.is_some()
            || self.claims.as_ref().is_some_and(|claims| claims.has_work())
            || !self.flush.is_empty()
            || !self.effects.is_empty()
    }

    /// When the next [`Input::Tick`] is due if nothing else comes: in a tick while something waits that has a deadline
    /// of its own, else with the first timer of a session, and after `limits::REST_MS` at the latest.
    pub fn rest_until(&self, now: Mono) -> Mono {
        let (soon, latest) = (now.plus_ms(limits::TICK_MS), now.plus_ms(limits::REST_MS));
        let waits = self.empties()
            || self.calls.len() > 0
            || self.held.len() > 0
            || self.verdicts.tracked() > 0
            || !self.presence.is_empty();
        if waits {
            return soon;
        }
        self.wheel.next_due(Tick::of(latest)).map_or(latest, |tick| tick.start().clamp(soon, latest))
    }

    /// Whether the push lane may be read: `false` while `limits::PUSHES_OPEN_MAX` pushes are open.
    pub fn wants_push(&self) -> bool {
        self.pushes.has_room()
    }

    /// The next effect, in order.
    pub fn next_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// The next connection that has something to send; each once, until something new is queued for it.
    pub fn next_flush(&mut self) -> Option<ConnId> {
        while let Some(conn) = self.flush.pop_front() {
            if let Some(session) = self.registry.session_mut(conn) {
                session.flush_listed = false;
                if session.phase < Phase::Closed && session.outbox.is_some() {
                    return Some(conn);
                }
            }
        }
        None
    }

    /// Fills `batch` (cleared first) with waiting frames of `conn`; returns the bytes to send (0: nothing).
    pub fn fill(&mut self, conn: ConnId, batch: &mut SendBatch) -> usize {
        batch.frames.clear();
        let session = self.registry.session_mut(conn).filter(|s| s.phase < Phase::Closed);
        session.and_then(|s| s.outbox.as_mut()).map_or(0, |outbox| outbox.fill(batch))
    }

    /// `n` bytes of the last fill were sent (0: the socket is full; the engine fills again when it is writable).
    pub fn sent(&mut self, now: Now, conn: ConnId, n: usize) {
        if let Some(recorder) = &mut self.recorder {
            recorder.sent(now, conn, n);
        }
        self.outbox_sent(now, conn, n);
    }

    /// The next presence record, computed when it is taken (a dirty set, not a queue of events).
    pub fn next_presence(&mut self) -> Option<PresenceRecord> {
        let mut record = self.presence.pop()?;
        if let Some(recorder) = &mut self.recorder {
            recorder.presence();
        }
        let sessions = || self.registry.connections(&record.user).map(|(_, session)| session);
        record.online = sessions().map(|session| session.platform.id()).collect();
        if self.config.names_connections {
            let here = sessions().map(presence::mark).collect();
            record.connections.get_or_insert_default().here = here;
        }
        self.trace.note(Note::Presence, &[record.online.len() as u64, record.offline.len() as u64]);
        Some(record)
    }

    /// Sessions not yet freed. Drained when 0.
    pub fn connections(&self) -> usize {
        self.registry.sessions.len()
    }

    /// The user of a connection, for logs and the stall report.
    pub fn user_of(&self, conn: ConnId) -> Option<&str> {
        self.registry.user_of(self.registry.session(conn)?)
    }

    /// Why a connection ends, once it does.
    pub fn reason_of(&self, conn: ConnId) -> Option<Disconnect> {
        self.registry.session(conn)?.reason
    }

    /// Hash of everything observable so far; see [`trace`].
    pub fn trace_hash(&self) -> u64 {
        self.trace.value()
    }

    /// Rebuilds what is derived after the hub was read back (serde).
    pub fn rebuild(&mut self) {
        self.registry.rebuild();
    }

    /// Starts recording inputs; see [`record`].
    pub fn record(&mut self, recorder: Recorder) {
        self.recorder = Some(recorder);
    }

    /// Lines recorded since the last call.
    pub fn take_recording(&mut self) -> Vec<u8> {
        let trace = self.trace.value();
        self.recorder.as_mut().map(|recorder| recorder.take(trace)).unwrap_or_default()
    }

    /// Updates the gauges and gives the counts.
    pub fn tally(&mut self, now: Now) -> &mut Tally {
        use Metric as M;
        let tick = Tick::of(now.mono);
        let (registry, queues, tally) = (&self.registry, &self.queues, &mut self.tally);
        tally.set(M::Connections, registry.sessions.len() as u64);
        tally.set(M::Registered, registry.registered() as u64);
        for variant in Variant::all() {
            tally.set(push_frame::registered_gauge(variant), registry.registered_as(variant) as u64);
        }
        tally.set(M::Users, registry.users() as u64);
        tally.set(M::OutboxBytes, registry.outbox_bytes as u64);
        tally.set(M::InboundBytes, registry.inbound_bytes as u64);
        tally.set(M::CallsInFlight, self.calls.len() as u64);
        tally.set(M::PushesOpen, self.pushes.len() as u64);
        tally.set(M::PushesTracked, self.verdicts.tracked().into());
        tally.set(M::HeldMessages, self.held.len() as u64);
        tally.set(M::HeldBytes, self.held.bytes() as u64);
        tally.set(M::SubscriptionTargets, self.subscriptions.targets() as u64);
        tally.set(M::PresenceForgotten, self.presence.forgotten);
        tally.set(M::WebhooksForgotten, self.presence.kicks_forgotten);
        let claims = self.claims.as_ref();
        tally.set(M::LoginsClaiming, claims.map_or(0, |claims| claims.asking() as u64));
        tally.set(M::ClusterNewsWaiting, claims.map_or(0, |claims| claims.waiting() as u64));
        for (kind, depth, age, high) in [
            (Kind::Unregister, M::UnregisterDepth, M::UnregisterAge, M::UnregisterHigh),
            (Kind::Kick, M::KickDepth, M::KickAge, M::KickHigh),
            (Kind::Register, M::RegisterDepth, M::RegisterAge, M::RegisterHigh),
        ] {
            tally.set(depth, queues.len(kind) as u64);
            tally.set(age, queues.age_ms(kind, tick));
            tally.set(high, queues.high_water(kind) as u64);
        }
        tally
    }
}
