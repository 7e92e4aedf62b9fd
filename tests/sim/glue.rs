//! One shard around its hub: lanes, sockets, turns. It does what the production loop does, with the same order and
//! budgets, and gives the checker a look at everything that passes.

use std::collections::{BTreeMap, VecDeque};

use md5::{Digest as _, Md5};
use pinion::hub::mail::{KickMail, OnlineStatusMail, Recipient, ShardMail};
use pinion::hub::upstream::UpstreamReply;
use pinion::hub::{Accepted, Effect, Hub, Input, SendBatch};
use pinion::ids::{ConnId, RpcId, RpcTicket, SlotId};
use pinion::limits;
use pinion::session::handshake::Login;
use pinion::time::Mono;
use pinion::wire::frame::{Opcode, masked};
use pinion::wire::upgrade;

use crate::checker::Property;
use crate::link::{LinkId, Up};
use crate::planted::{self, Circle, Plant};
use crate::world::{Event, World};

/// The rpc thread that does not exist: answers to it are for the checker.
const PROBE: RpcId = RpcId(99);

/// Body of the text ping that arrives late for a connection that is gone.
pub const STALE_PING: &str = r#"{"type":"ping","body":"stale"}"#;

/// A completion that comes after its connection was freed.
#[derive(Clone, Copy, Debug)]
pub enum Stale {
    Bytes,
    Lost,
    Closed,
    Sent(usize),
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Shard {
    pub hub: Hub,
    pub replies: VecDeque<UpstreamReply>,
    pub control: VecDeque<ShardMail>,
    pub push: VecDeque<ShardMail>,
    pub hand_over: VecDeque<(LinkId, Box<Login>)>,
    pub ready: VecDeque<LinkId>,
    /// Sockets by connection, from accept until joined.
    pub sockets: BTreeMap<ConnId, LinkId>,
    /// The connection that was given a position last.
    pub latest: BTreeMap<u32, ConnId>,
    pub ticks: u64,
    tick_due: bool,
    turn_due: bool,
    pub drain: Option<Mono>,
    pub drain_tick: u64,
    pub recording: Vec<u8>,
    /// Ticks of the ticker since the last turn.
    pub unserved: u64,
    /// When the last answer that it gave arrives.
    pub said_until: u64,
    /// Planted: the queue of incident 1.
    pub circle: Circle,
}

impl Shard {
    /// A shard that has nothing to do.
    pub fn new(hub: Hub) -> Self {
        Self {
            hub,
            replies: VecDeque::new(),
            control: VecDeque::new(),
            push: VecDeque::new(),
            hand_over: VecDeque::new(),
            ready: VecDeque::new(),
            sockets: BTreeMap::new(),
            latest: BTreeMap::new(),
            ticks: 0,
            tick_due: false,
            turn_due: false,
            drain: None,
            drain_tick: 0,
            recording: Vec::new(),
            unserved: 0,
            said_until: 0,
            circle: Circle::default(),
        }
    }

    fn mail_waits(&self) -> bool {
        let lanes = !self.replies.is_empty() || !self.control.is_empty() || !self.hand_over.is_empty();
        lanes || !self.push.is_empty()
    }

    /// No connection, no mail, nothing to do.
    pub fn is_empty(&self) -> bool {
        self.hub.connections() == 0 && self.sockets.is_empty() && !self.mail_waits() && !self.hub.has_work()
    }
}

impl World {
    /// The shard's loop will run soon.
    pub fn wake(&mut self, shard: usize) {
        if std::mem::replace(&mut self.shards[shard].turn_due, true) {
            return;
        }
        let slow = self.plan.slow_turns;
        let delay = if self.chance(slow) { self.rng.u64(20..250) } else { self.rng.u64(0..3) };
        self.after(delay, Event::Turn(shard));
    }

    /// The ticker; it stops when the world is over.
    pub fn tick(&mut self, shard: usize) {
        self.shards[shard].tick_due = true;
        self.shards[shard].unserved += 1;
        self.check_turning(shard);
        self.wake(shard);
        if !self.is_over() {
            let delay = limits::TICK_MS + self.rng.u64(0..10);
            self.after(delay, Event::Tick(shard));
        }
    }

    /// One turn.
    pub fn turn(&mut self, shard: usize) {
        self.shards[shard].turn_due = false;
        if self.shards[shard].circle.waits() {
            return;
        }
        self.shards[shard].unserved = 0;
        self.drain_circle(shard);
        self.take_lanes(shard);
        self.serve_ready(shard);
        if std::mem::take(&mut self.shards[shard].tick_due) {
            self.input(shard, Input::Tick);
            self.ticked(shard);
        }
        if let Some(deadline) = self.shards[shard].drain.take() {
            self.input(shard, Input::Drain(deadline));
        }
        self.maybe_freeze(shard);
        let depths = self.depths(shard);
        self.watched(shard, |hub, now| hub.turn(now));
        self.take_effects(shard);
        if self.shards[shard].circle.waits() {
            return;
        }
        while let Some(conn) = self.shards[shard].hub.next_flush() {
            self.flush(shard, conn);
        }
        self.take_presence(shard);
        self.audit(shard);
        self.check_invariants(shard, depths);
        self.maybe_freeze(shard);
        let state = &self.shards[shard];
        if state.hub.has_work() || state.mail_waits() || !state.ready.is_empty() || !state.circle.is_empty() {
            self.wake(shard);
        }
    }

    /// Feeds one input, and freezes now and then.
    pub fn input(&mut self, shard: usize, input: Input) {
        self.maybe_freeze(shard);
        self.watched(shard, |hub, now| hub.input(now, input));
    }

    /// The id that the glue passes on. With the planted fault it forgets the generation.
    fn id(&self, shard: usize, conn: ConnId) -> ConnId {
        match self.plant {
            Some(Plant::GenerationIgnored) => {
                self.shards[shard].latest.get(&conn.0.index).copied().unwrap_or(conn)
            }
            _ => conn,
        }
    }

    fn take_lanes(&mut self, shard: usize) {
        let batch = self.rng.usize(1..=limits::LANE_BATCH_MAX);
        if self.shards[shard].replies.len() > limits::CALLS_IN_FLIGHT_MAX as usize {
            self.checker.fail(Property::Tables, "the replies lane overflowed".into());
        }
        for _ in 0..batch {
            let Some(reply) = self.shards[shard].replies.pop_front() else {
                break;
            };
            self.input(shard, Input::UpstreamReply(reply));
        }
        for _ in 0..batch {
            let Some(mail) = self.shards[shard].control.pop_front() else {
                break;
            };
            let kick = if let ShardMail::Kick(kick) = &mail { Some(kick.clone()) } else { None };
            self.input(shard, Input::Mail(mail));
            if let Some(kick) = kick {
                self.probe(shard, &kick);
            }
        }
        for _ in 0..batch {
            if !self.shards[shard].hub.wants_push() {
                break;
            }
            let Some(mail) = self.shards[shard].push.pop_front() else {
                break;
            };
            self.input(shard, Input::Mail(mail));
        }
        for _ in 0..batch {
            let Some((link, login)) = self.shards[shard].hand_over.pop_front() else {
                break;
            };
            self.accept(shard, link, login);
        }
    }

    /// Asks who is there right after a kick: no login can lie between the two.
    fn probe(&mut self, shard: usize, kick: &KickMail) {
        let ticket = RpcTicket {
            rpc: PROBE,
            slot: SlotId { index: u32::try_from(kick.platform.id()).expect("1 to 11"), generation: 0 },
        };
        let recipient = |user: &pinion::ids::Text| Recipient { slot: 0, user: user.clone() };
        let users = kick.users.iter().map(recipient).collect();
        let mail = ShardMail::OnlineStatus(Box::new(OnlineStatusMail { ticket, users }));
        self.input(shard, Input::Mail(mail));
    }

    fn accept(&mut self, shard: usize, link: LinkId, login: Box<Login>) {
        let peer = self.links[link].peer;
        let Some(conn) = self.shards[shard].hub.accepted(self.now, Accepted { peer, client: None, login })
        else {
            return self.turn_away(link);
        };
        self.checker.accepted(shard, conn);
        let state = &mut self.shards[shard];
        state.sockets.insert(conn, link);
        state.latest.insert(conn.0.index, conn);
        self.links[link].conn = Some(conn);
        self.links[link].connection_id = Md5::digest(format!("{peer}_{}", self.now.unix.0)).into();
        self.links[link].accepted_tick = state.ticks;
        if !self.links[link].inbox.is_empty() {
            state.ready.push_back(link);
        }
        self.audit(shard);
    }

    /// 503 without a hub: the slab or the lane is full, or the node drains.
    pub fn turn_away(&mut self, link: LinkId) {
        self.links[link].down.extend(upgrade::unavailable());
        self.links[link].fin = true;
        self.schedule_read(link);
    }

    fn serve_ready(&mut self, shard: usize) {
        for _ in 0..self.shards[shard].ready.len().min(limits::READY_BATCH_MAX) {
            let Some(link) = self.shards[shard].ready.pop_front() else {
                break;
            };
            let Some(conn) = self.links[link].conn else {
                continue;
            };
            for _ in 0..limits::READS_PER_TURN_MAX {
                let Some(up) = self.links[link].inbox.pop_front() else {
                    break;
                };
                self.received(shard, (link, conn), up);
            }
            if self.links[link].blocked && self.links[link].down.len() < self.links[link].room {
                self.flush(shard, conn);
            }
            if !self.links[link].inbox.is_empty() {
                self.shards[shard].ready.push_back(link);
            }
        }
    }

    fn received(&mut self, shard: usize, (link, conn): (LinkId, ConnId), up: Up) {
        match up {
            Up::Bytes(mut bytes) => {
                if bytes.len() > 1 && self.rng.u8(0..5) == 0 {
                    let rest = bytes.split_off(self.rng.usize(1..bytes.len()));
                    self.links[link].inbox.push_front(Up::Bytes(rest));
                }
                self.maybe_freeze(shard);
                let conn = self.id(shard, conn);
                self.watched(shard, |hub, now| hub.bytes(now, conn, &mut bytes));
            }
            Up::Gone => {
                let ticks = self.shards[shard].ticks;
                self.links[link].lost_tick.get_or_insert(ticks);
                // The planted fault is the one of incident 1: whoever unregisters looks the connection up, does not
                // find it because its register entry still waits, and forgets it.
                let too_early = !self.links[link].answered;
                if self.plant == Some(Plant::UnregisterFirst) && too_early {
                    return;
                }
                self.input(shard, Input::TransportLost(conn));
            }
        }
    }

    fn ticked(&mut self, shard: usize) {
        self.shards[shard].ticks += 1;
        let ticks = self.shards[shard].ticks;
        self.checker.tick(shard, ticks, &self.links);
        self.check_requests(shard, ticks);
        let drain_ticks = self.plan.drain_ms / limits::TICK_MS + 10 + 60;
        let state = &mut self.shards[shard];
        if self.draining && state.hub.connections() > 0 && ticks > state.drain_tick + drain_ticks {
            let text = format!("shard {shard} is not drained: {} left", state.hub.connections());
            self.checker.fail(Property::Tables, text);
        }
        let recorded = state.hub.take_recording();
        state.recording.extend(recorded);
    }

    fn take_effects(&mut self, shard: usize) {
        while let Some(effect) = self.shards[shard].hub.next_effect() {
            match effect {
                Effect::Close(conn) if self.plant == Some(Plant::Incident1) => {
                    self.unregister_in_circle(shard, conn);
                    if self.shards[shard].circle.waits() {
                        return;
                    }
                }
                Effect::Close(conn) => self.close(shard, conn),
                Effect::Call(call) => {
                    self.check_call(&call);
                    let delay = self.rng.u64(0..20);
                    self.after(delay, Event::Call(call));
                }
                Effect::Reply(ticket, outcome) if ticket.rpc == PROBE => {
                    let platform = pinion::ids::Platform::new(ticket.slot.index.into()).expect("as sent");
                    self.checker.after_kick(platform, &outcome);
                }
                Effect::Reply(ticket, outcome) => self.shard_says(shard, ticket, outcome),
            }
        }
    }

    pub fn close(&mut self, shard: usize, conn: ConnId) {
        let Some(&link) = self.shards[shard].sockets.get(&conn) else {
            return self.checker.fail(Property::CloseOnce, format!("{conn} has no socket to close"));
        };
        self.checker.closed(shard, conn, &self.links[link]);
        let state = &mut self.links[link];
        (state.closed, state.fin, state.blocked) = (true, true, false);
        self.schedule_read(link);
        if self.rng.u8(0..3) == 0 {
            return self.joined(shard, conn); // nothing was in flight: all three steps at once
        }
        let delay = self.rng.u64(0..200);
        self.after(delay, Event::Joined(shard, conn));
    }

    /// The socket is closed and nothing of it is in flight; sometimes a completion is reported too late all the same.
    pub fn joined(&mut self, shard: usize, conn: ConnId) {
        self.shards[shard].sockets.remove(&conn);
        if self.plant == Some(Plant::CloseForgotten) && self.rng.u8(0..10) == 0 {
            return;
        }
        self.input(shard, Input::TransportClosed(conn));
        let late = self.plan.late;
        while self.chance(late.min(700)) {
            let kind = [Stale::Bytes, Stale::Lost, Stale::Closed, Stale::Sent(50)][self.rng.usize(0..4)];
            let delay = self.rng.u64(1..3_000);
            self.after(delay, Event::Late(shard, conn, kind));
        }
        self.wake(shard);
    }

    /// A completion of a connection that is gone.
    pub fn late(&mut self, shard: usize, conn: ConnId, stale: Stale) {
        let conn = self.id(shard, conn);
        match stale {
            Stale::Bytes => {
                let mut bytes = masked(Opcode::Text, STALE_PING.as_bytes(), [1, 2, 3, 4]);
                self.shards[shard].hub.bytes(self.now, conn, &mut bytes);
            }
            Stale::Lost => self.input(shard, Input::TransportLost(conn)),
            Stale::Closed => self.input(shard, Input::TransportClosed(conn)),
            Stale::Sent(n) => self.shards[shard].hub.sent(self.now, conn, n),
        }
        self.audit(shard);
        self.wake(shard);
    }

    /// Gives the socket what it takes of the connection's waiting frames.
    fn flush(&mut self, shard: usize, conn: ConnId) {
        let mut batch = SendBatch::default();
        let filled = self.shards[shard].hub.fill(conn, &mut batch);
        let Some(&link) = self.shards[shard].sockets.get(&conn) else {
            return;
        };
        if filled == 0 {
            self.links[link].blocked = false;
            return;
        }
        let state = &self.links[link];
        let room = state.room.saturating_sub(state.down.len());
        // The kernel takes what a peer that was reset never gets, but of a half-open one no more than fits.
        let endless = state.gone && state.vanished_tick.is_none();
        let mut n = if endless { filled } else { filled.min(room) };
        if self.rng.u8(0..6) == 0 {
            n = self.rng.usize(0..=n);
        }
        let frames = planted::keep_frames(self, (link, n == filled), &batch);
        let stream = frames.iter().flat_map(|f| f.iter().copied()).take(n);
        let state = &mut self.links[link];
        state.answered = true;
        state.blocked = n < filled;
        if !endless {
            state.down.extend(stream);
        }
        if state.blocked && state.down.len() < state.room {
            self.shards[shard].ready.push_back(link);
            self.wake(shard);
        }
        self.maybe_freeze(shard);
        self.shards[shard].hub.sent(self.now, conn, n);
        self.schedule_read(link);
    }

    fn take_presence(&mut self, shard: usize) {
        for _ in 0..self.rng.usize(0..4) {
            let Some(record) = self.shards[shard].hub.next_presence() else {
                break;
            };
            let news = self.upstream.presence(&record);
            for other in 0..self.shards.len() {
                self.post(other, ShardMail::PresenceNews(Box::new(news.clone())));
            }
        }
    }

    /// Puts mail into a lane of a shard, or gives it back: the lane is full.
    pub fn post(&mut self, shard: usize, mail: ShardMail) -> Option<ShardMail> {
        let (push_max, control_max) = (self.plan.push_lane_max, self.plan.control_lane_max);
        let state = &mut self.shards[shard];
        let (lane, capacity) = match mail {
            ShardMail::Push(_) | ShardMail::PresenceNews(_) => (&mut state.push, push_max),
            _ => (&mut state.control, control_max),
        };
        if lane.len() >= capacity {
            self.saw("lane overflows");
            return Some(mail);
        }
        lane.push_back(mail);
        self.wake(shard);
        None
    }

    /// A head was judged; the connection goes to its owner.
    pub fn connect(&mut self, link: LinkId, login: Box<Login>) {
        let shard = self.links[link].shard;
        if self.shards[shard].hand_over.len() >= self.plan.hand_over_lane_max {
            self.saw("hand-over overflows");
            return self.turn_away(link);
        }
        self.shards[shard].hand_over.push_back((link, login));
        self.wake(shard);
    }

    /// Bytes or the end of the stream reach the gateway's socket.
    pub fn arrive(&mut self, link: LinkId, up: Up) {
        if self.links[link].closed {
            return;
        }
        if self.links[link].vanished_tick.is_some() {
            // Sent before it vanished: the last sign of life.
            self.links[link].vanished_tick = Some(self.shards[self.links[link].shard].ticks);
        }
        self.links[link].inbox.push_back(up);
        let shard = self.links[link].shard;
        self.shards[shard].ready.push_back(link);
        self.wake(shard);
    }

    /// A reply takes the slot that was reserved for it.
    pub fn answered(&mut self, shard: usize, reply: UpstreamReply) {
        self.upstream.replied(shard, reply.ticket);
        self.shards[shard].replies.push_back(reply);
        self.wake(shard);
    }

    pub fn audit(&mut self, shard: usize) {
        let hub = &self.shards[shard].hub;
        if let Err(text) = hub.audit() {
            self.checker.fail(Property::Tables, text);
        }
        if hub.queued_bytes() > hub.queued_bytes_bound() {
            let text = format!("{} bytes queued, bound {}", hub.queued_bytes(), hub.queued_bytes_bound());
            self.checker.fail(Property::QueuedBytes, text);
        }
    }
}
