//! The loop of a thread: waits for sockets, orders and deadlines, and gives each pair its turn.
//!
//! What always holds: nothing here waits but the one `epoll_wait`; each turn takes a bounded number of events, accepts
//! and bytes per pair; a closed pair gives back its place, its pipes and its descriptors. Sockets are watched
//! edge-triggered from accept to close, so an idle pair is never touched.

use std::collections::VecDeque;
use std::io;
use std::net::TcpListener;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::io::Errno;
use rustix::net::sockopt;

use super::deadlines::{Deadlines, Due};
use super::opening::Avoided;
use super::pair::{NEVER, Pair, Place, Side, Stage, of_token};
use super::relay::{Hint, Mover, Progress};
use super::routes::Routes;
use super::{Inbox, Order, Plan, ThreadStart};
use crate::arena::Arena;
use crate::ids::SlotId;
use crate::limits::{PROXY_EVENTS_MAX, PROXY_OPENINGS_MAX, PROXY_PUBLISH_MS};
use crate::metrics::proxy::{ProxyBlock, ProxyMetric, ProxyTally};
use crate::shard::clock;
use crate::shard::spare::Spare;
use crate::time::Mono;
use crate::wire::upgrade;

/// How sockets of pairs are watched.
pub(super) const ET: EventFlags =
    EventFlags::IN.union(EventFlags::OUT).union(EventFlags::RDHUP).union(EventFlags::ET);
const LISTENER: u64 = u64::MAX;
const BELL: u64 = u64::MAX - 1;

/// Whether a socket has ended, or is broken.
fn hint_of(flags: EventFlags) -> Hint {
    let ended = flags.intersects(EventFlags::RDHUP | EventFlags::HUP | EventFlags::ERR);
    if ended { Hint::End } else { Hint::Data }
}

/// One thread.
pub(super) struct Run {
    pub(super) plan: Arc<Plan>,
    pub(super) routes: Arc<Routes>,
    pub(super) pairs: Arena<Pair>,
    pub(super) avoided: Avoided,
    pub(super) tally: ProxyTally,
    pub(super) epoll: OwnedFd,
    /// Of this turn.
    pub(super) now: Mono,
    pub(super) mover: Mover,
    pub(super) listener: Option<TcpListener>,
    inbox: Inbox,
    block: Arc<ProxyBlock>,
    pub(super) spare: Spare,
    /// Somebody may wait at the listener, and from when on he is looked for.
    pub(super) accept_from: Option<Mono>,
    pub(super) openings: usize,
    pub(super) lingering: usize,
    /// With stale ones: what counts is the deadline in the pair.
    pub(super) deadlines: Deadlines,
    /// Pairs that have more to move.
    ready: VecDeque<SlotId>,
    published: Mono,
    pub(super) is_published: bool,
    pub(super) draining: Option<Mono>,
}

impl Run {
    pub(super) fn new(start: ThreadStart, inbox: Inbox, block: Arc<ProxyBlock>) -> io::Result<Self> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        epoll::add(&epoll, &start.listener, EventData::new_u64(LISTENER), EventFlags::IN | EventFlags::ET)?;
        epoll::add(&epoll, &*inbox.bell, EventData::new_u64(BELL), EventFlags::IN)?;
        let now = clock::now().mono;
        Ok(Self {
            mover: Mover::new(start.plan.relay),
            plan: start.plan,
            routes: start.routes,
            pairs: Arena::new(u32::MAX),
            avoided: Avoided::default(),
            tally: ProxyTally::default(),
            epoll,
            now,
            listener: Some(start.listener),
            inbox,
            block,
            spare: Spare::reserve(),
            accept_from: Some(now),
            openings: 0,
            lingering: 0,
            deadlines: Deadlines::default(),
            ready: VecDeque::new(),
            published: now,
            is_published: false,
            draining: None,
        })
    }

    /// Until it was told to drain and nobody is left.
    pub(super) fn run(mut self) {
        let mut events = Vec::with_capacity(PROXY_EVENTS_MAX);
        while self.draining.is_none() || !self.pairs.is_empty() {
            let timeout = self.timeout();
            match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut events), timeout.as_ref()) {
                Ok(_) | Err(Errno::INTR) => {}
                // The descriptor is ours and the buffer is valid: nothing else can be wrong.
                Err(error) => panic!("epoll_wait: {error}"),
            }
            self.now = clock::now().mono;
            for event in events.drain(..) {
                self.handle(event);
            }
            self.expire();
            self.serve_ready();
            self.accept();
            self.publish();
        }
        self.is_published = false;
        self.published = Mono(0);
        self.publish();
    }

    /// How long the kernel may keep us; `None`: until something happens.
    fn timeout(&mut self) -> Option<Timespec> {
        let pairs = &self.pairs;
        let counts = |id, at| pairs.get(id).is_some_and(|pair| pair.deadline == at);
        let mut at = self.deadlines.next(counts);
        if !self.ready.is_empty() {
            at = self.now;
        }
        if !self.is_published {
            at = at.min(self.published.plus_ms(PROXY_PUBLISH_MS));
        }
        if let Some(from) = self.accept_from
            && self.openings < PROXY_OPENINGS_MAX
        {
            at = at.min(from);
        }
        (at != NEVER).then(|| {
            let wait = Duration::from_millis(at.since_ms(self.now));
            Timespec {
                tv_sec: i64::try_from(wait.as_secs()).unwrap_or(i64::MAX),
                tv_nsec: wait.subsec_nanos().into(),
            }
        })
    }

    fn handle(&mut self, event: Event) {
        let (data, flags) = (event.data.u64(), event.flags);
        match data {
            LISTENER => self.accept_from = self.accept_from.or(Some(self.now)),
            BELL => self.obey(),
            _ => {
                let (index, side, is) = of_token(data);
                if let Some(id) = self.pairs.id_at(index).filter(|id| is(*id)) {
                    self.is_published = false;
                    self.news_of(id, side, flags);
                }
            }
        }
    }

    fn news_of(&mut self, id: SlotId, side: Side, flags: EventFlags) {
        let Some(stage) = self.pairs.get(id).map(|pair| pair.stage) else {
            return;
        };
        let broken = flags.intersects(EventFlags::HUP | EventFlags::ERR);
        match (stage, side) {
            (Stage::Head, _) => self.read_head(id),
            (Stage::Dialling, Side::Member) => self.dialled(id),
            (Stage::Dialling | Stage::Answer, Side::Client) if broken => {
                self.give_up(id, ProxyMetric::ClientGone)
            }
            (Stage::Dialling | Stage::Answer, Side::Client) => {}
            (Stage::Answer, Side::Member) => {
                if self.pairs.get(id).is_some_and(|pair| pair.up.is_held()) {
                    self.pump(id, Side::Client, Hint::Data);
                }
                self.look_at_answer(id, hint_of(flags));
            }
            (Stage::Open | Stage::HalfClosed, _) => self.serve(id, side, flags),
            (Stage::Lingering, _) => self.discard(id),
        }
    }

    /// One of the two sockets of a pair is readable, writable, or has ended.
    fn serve(&mut self, id: SlotId, side: Side, flags: EventFlags) {
        let broken = flags.intersects(EventFlags::HUP | EventFlags::ERR);
        let hint = hint_of(flags);
        if flags.contains(EventFlags::IN) || hint == Hint::End {
            self.pump(id, side, hint);
        }
        let other = if side == Side::Client { Side::Member } else { Side::Client };
        let waits = |pair: &Pair| if side == Side::Client { pair.down.is_held() } else { pair.up.is_held() };
        if self.pairs.get(id).is_some_and(|pair| broken || waits(pair)) {
            self.pump(id, other, Hint::End);
        }
    }

    /// The pair has just been opened, or has more to move.
    pub(super) fn pump_both(&mut self, id: SlotId) {
        self.pump(id, Side::Member, Hint::End);
        self.pump(id, Side::Client, Hint::End);
    }

    /// Moves what one side has to the other.
    fn pump(&mut self, id: SlotId, from: Side, hint: Hint) {
        let Some(pair) = self.pairs.get_mut(id) else {
            return;
        };
        let Some(member) = &pair.member else {
            return;
        };
        let (flow, ends, bytes, slow) = match from {
            Side::Client => (
                &mut pair.up,
                (pair.client.as_fd(), member.as_fd()),
                ProxyMetric::BytesUp,
                ProxyMetric::SlowMember,
            ),
            Side::Member => (
                &mut pair.down,
                (member.as_fd(), pair.client.as_fd()),
                ProxyMetric::BytesDown,
                ProxyMetric::SlowClient,
            ),
        };
        let was_held = flow.is_held();
        let pumped = self.mover.pump(flow, ends, hint, &mut self.tally);
        pair.moved |= pumped.bytes > 0 || was_held && !flow.is_held();
        self.tally.add(bytes, pumped.bytes as u64);
        match pumped.progress {
            Progress::Idle => {}
            Progress::Blocked if was_held && pumped.bytes == 0 => {}
            Progress::Blocked => self.tally.count(slow),
            Progress::More => {
                if !std::mem::replace(&mut pair.queued, true) {
                    self.ready.push_back(id);
                }
            }
            Progress::Ended => self.one_side_ended(id),
            Progress::Broken(error) => {
                tracing::trace!(?from, %error, "a side of a pair is broken");
                self.reset(id);
            }
        }
    }

    fn one_side_ended(&mut self, id: SlotId) {
        let Some(pair) = self.pairs.get_mut(id) else {
            return;
        };
        if pair.up.is_over() && pair.down.is_over() {
            self.tally.count(ProxyMetric::EndedClosed);
            return self.remove(id);
        }
        if pair.stage == Stage::Open {
            pair.stage = Stage::HalfClosed;
            self.set_deadline(id, self.now.plus_ms(self.plan.half_closed_ms));
        }
    }

    /// One side is broken: the other one gets a reset as well, so that it does not take the end for a good one.
    fn reset(&mut self, id: SlotId) {
        let Some(pair) = self.pairs.get(id) else {
            return;
        };
        for socket in [Some(&pair.client), pair.member.as_ref()].into_iter().flatten() {
            if let Err(error) = sockopt::set_socket_linger(socket, Some(Duration::ZERO)) {
                tracing::trace!(%error, "linger");
            }
        }
        self.tally.count(ProxyMetric::EndedReset);
        self.remove(id);
    }

    fn serve_ready(&mut self) {
        for _ in 0..self.ready.len() {
            let Some(id) = self.ready.pop_front() else {
                return;
            };
            if let Some(pair) = self.pairs.get_mut(id) {
                pair.queued = false;
                self.pump_both(id);
            }
        }
    }

    /// Ends an opening without a word.
    pub(super) fn give_up(&mut self, id: SlotId, outcome: ProxyMetric) {
        self.tally.count(outcome);
        self.remove(id);
    }

    pub(super) fn remove(&mut self, id: SlotId) {
        let Some(pair) = self.pairs.remove(id) else {
            return;
        };
        match pair.stage {
            Stage::Head | Stage::Dialling | Stage::Answer => self.openings -= 1,
            Stage::Lingering => self.lingering -= 1,
            Stage::Open | Stage::HalfClosed => {}
        }
        self.is_published = false;
        self.give_back(pair.place);
        self.mover.forget(pair.up);
        self.mover.forget(pair.down);
    }

    pub(super) fn give_back(&mut self, place: Place) {
        match place {
            Place::None => return,
            Place::Taken => {}
            Place::OfAddress(address) => self.plan.admission.leave_address(address),
        }
        self.plan.admission.leave();
    }

    /// [`NEVER`]: there is none any more.
    pub(super) fn set_deadline(&mut self, id: SlotId, at: Mono) {
        let Some(pair) = self.pairs.get_mut(id) else {
            return;
        };
        pair.deadline = at;
        pair.moved = false;
        if at != NEVER {
            self.deadlines.set(at, Due::Pair(id.index, id.generation));
        }
    }

    fn expire(&mut self) {
        while let Some((at, due)) = self.deadlines.pop(self.now) {
            let Due::Pair(index, generation) = due else { continue };
            let id = SlotId { index, generation };
            if self.pairs.get(id).is_some_and(|pair| pair.deadline == at) {
                self.is_published = false;
                self.overdue(id);
            }
        }
        if self.draining.is_some_and(|deadline| deadline <= self.now) {
            self.close_all();
        }
    }

    fn overdue(&mut self, id: SlotId) {
        let Some(pair) = self.pairs.get(id) else {
            return;
        };
        match pair.stage {
            Stage::Head => self.refuse(id, ProxyMetric::HeadTooSlow, &upgrade::bad_head(408)),
            Stage::Dialling => self.dial_timed_out(id),
            Stage::Answer => self.answer_timed_out(id),
            Stage::HalfClosed if pair.moved => {
                self.set_deadline(id, self.now.plus_ms(self.plan.half_closed_ms));
            }
            Stage::HalfClosed => {
                self.tally.count(ProxyMetric::EndedHalfClosed);
                self.remove(id);
            }
            Stage::Lingering => self.remove(id),
            Stage::Open => {}
        }
    }

    fn obey(&mut self) {
        self.inbox.bell.silence();
        while let Ok(order) = self.inbox.orders.try_recv() {
            self.is_published = false;
            match order {
                Order::Route(routes) => {
                    self.avoided.keep(&routes);
                    self.routes = routes;
                }
                Order::Drain(deadline) => self.drain(deadline),
            }
        }
    }

    fn close_all(&mut self) {
        let all: Vec<SlotId> = self.pairs.iter().map(|(id, _)| id).collect();
        for id in all {
            if self.pairs.get(id).is_some_and(|pair| pair.stage != Stage::Lingering) {
                self.tally.count(ProxyMetric::EndedDrain);
            }
            self.remove(id);
        }
    }

    /// Shows the counts, at most every `PROXY_PUBLISH_MS`. Levels are derived from the table that they describe.
    fn publish(&mut self) {
        if self.is_published || self.now.since_ms(self.published) < PROXY_PUBLISH_MS {
            return;
        }
        let (mut open, mut half, mut held) = (0, 0, 0);
        for (_, pair) in self.pairs.iter() {
            open += u64::from(matches!(pair.stage, Stage::Open | Stage::HalfClosed));
            half += u64::from(pair.stage == Stage::HalfClosed);
            held += pair.up.held_bytes() + pair.down.held_bytes();
        }
        for (metric, value) in [
            (ProxyMetric::Pairs, open),
            (ProxyMetric::HalfClosed, half),
            (ProxyMetric::HeldBytes, held as u64),
            (ProxyMetric::Openings, self.openings as u64),
            (ProxyMetric::Lingering, self.lingering as u64),
            (ProxyMetric::PipesUsed, self.mover.pipes.used() as u64),
            (ProxyMetric::MembersAvoided, self.avoided.len() as u64),
        ] {
            self.tally.set(metric, value);
        }
        self.block.publish(&self.tally);
        (self.published, self.is_published) = (self.now, true);
    }
}
