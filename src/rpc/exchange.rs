//! All state of an rpc thread in one place: the router, who waits for an answer, what is open and what it holds.
//!
//! Handles are cheap clones of one `Rc<RefCell<..>>`. What always holds: no borrow outlives a method, no method awaits,
//! and wakers are called after the borrow has ended.

mod places;
mod tray;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use slab::Slab;

use super::openim::Openim;
use super::upstream::{Embedded, Work};
use crate::cluster::router::{Busy, Mails, Outcome, Progress, Router};
use crate::config::policy::RpcPolicy;
use crate::hub::mail::ShardMail;
use crate::hub::upstream::{UpstreamReply, UserPlatforms};
use crate::ids::{RpcTicket, ShardId, SourceId};
use crate::limits::{DRAIN_VERDICTS_MS, RPC_IDLE_TICK_MS, RPC_REST_MS, RPC_TICK_MS};
use crate::metrics::{Block, Metric, Tally};
use crate::shard::clock;
use crate::shard::mailbox::{Control, LaneDepths, RpcInbox, RpcMail, ShardAddress};
use crate::shard::nudge::Nudge;
use crate::shard::orders::{NodeLevels, ReloadCounts, Standing};
use crate::time::Mono;
use crate::wire::grpc::{Status, code};

pub(super) use places::{CallPlace, ConnectionPlace, DrainWatch, Held};
pub(super) use tray::Tray;
use tray::{Pile, Unanswered};

/// See the module's documentation.
#[derive(Clone)]
pub(super) struct Exchange {
    state: Rc<RefCell<State>>,
    /// Rung when there may be something to keep time of.
    roused: Nudge,
    stir: Rc<Cell<Stir>>,
}

/// Whether something happened that is to be published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stir {
    /// Something did since the last tick.
    Stirred,
    /// Nothing did.
    Calm,
    /// Nothing did, and the ticker sleeps for long: who stirs wakes it.
    Asleep,
}

struct State {
    router: Router,
    shards: Vec<ShardAddress>,
    answers: BTreeMap<RpcTicket, Answer>,
    trays: Slab<Pile>,
    /// Tickets of all trays.
    tray_tickets: usize,
    /// Pushes of trays that are on their way between nodes.
    routed: BTreeMap<RpcTicket, Unanswered>,
    routed_count: u64,
    backend: Backend,
    /// Open connections and streaming calls; each leaves its waker here to hear of the drain.
    drain_watches: Slab<Option<Waker>>,
    connections_open: usize,
    calls_open: u32,
    held_bytes: usize,
    next_source: u64,
    drain: Option<Mono>,
}

/// Who answers what shards ask this thread.
pub(super) enum Backend {
    /// Nobody: shards ask thread 0 only.
    None,
    /// This thread, at once.
    Embedded(Box<Embedded>),
    /// OpenIM's services, later.
    Openim(Openim),
}

enum Answer {
    Awaited(Option<Waker>),
    Here(Outcome),
    /// Goes to this tray, part by part.
    Tray(usize),
}

impl Exchange {
    /// A backend on rpc thread 0 only.
    pub(super) fn new(
        router: Router,
        shards: Vec<ShardAddress>,
        backend: Backend,
        first_source: u64,
    ) -> Self {
        let state = State {
            router,
            shards,
            answers: BTreeMap::new(),
            trays: Slab::new(),
            tray_tickets: 0,
            routed: BTreeMap::new(),
            routed_count: 0,
            backend,
            drain_watches: Slab::new(),
            connections_open: 0,
            calls_open: 0,
            held_bytes: 0,
            next_source: first_source,
            drain: None,
        };
        let stir = Rc::new(Cell::new(Stir::Stirred));
        Self { state: Rc::new(RefCell::new(state)), roused: Nudge::default(), stir }
    }

    /// Adds one to a counter.
    pub(super) fn count(&self, metric: Metric) {
        self.add(metric, 1);
    }

    /// Adds to a counter; nothing is nothing.
    pub(super) fn add(&self, metric: Metric, n: u64) {
        if n > 0 {
            self.state.borrow_mut().router.tally().add(metric, n);
            self.stir();
        }
    }

    /// Sets a gauge.
    pub(super) fn show(&self, metric: Metric, value: u64) {
        self.state.borrow_mut().router.tally().set(metric, value);
        self.stir();
    }

    /// Something happens that is to be published soon.
    fn stir(&self) {
        if self.stir.replace(Stir::Stirred) == Stir::Asleep {
            self.roused.ring();
        }
    }

    /// A name for the pushes of one unary call.
    pub(super) fn source(&self) -> SourceId {
        let mut state = self.state.borrow_mut();
        state.next_source += 1;
        SourceId(state.next_source)
    }

    /// Starts a call: `start` asks the router, the mail is posted, and the answer is awaited.
    pub(super) fn ask(
        &self,
        start: impl FnOnce(&mut Router) -> Result<(RpcTicket, Mails), Busy>,
    ) -> Result<Waiting, Status> {
        self.stir.set(Stir::Stirred);
        self.roused.ring();
        let mut state = self.state.borrow_mut();
        let (ticket, mails) = start(&mut state.router)
            .map_err(|Busy| Status::new(code::UNAVAILABLE, "too many calls are waiting for the shards"))?;
        state.answers.insert(ticket, Answer::Awaited(None));
        state.post(mails);
        let finished = state.router.posted(ticket);
        let waker = finished.and_then(|f| state.finish(f));
        drop(state);
        wake(waker);
        Ok(Waiting { exchange: self.clone(), ticket })
    }

    /// Takes one mail of this thread.
    pub(super) fn mail(&self, mail: RpcMail) {
        self.stir.set(Stir::Stirred);
        if !matches!(mail, RpcMail::Outcome { .. }) {
            self.roused.ring();
        }
        let mut state = self.state.borrow_mut();
        let mut wakers = Vec::new();
        // Only the backend asks for the time: the answers to pushes, which are most mails, do without the clock.
        match mail {
            RpcMail::Outcome { shard, ticket, outcome } => {
                let finished = state.router.outcome(shard, ticket, *outcome);
                wakers.extend(finished.and_then(|f| state.finish(f)));
            }
            RpcMail::Call(call) => {
                let work = match &mut state.backend {
                    Backend::Embedded(embedded) => embedded.call(clock::now(), &call),
                    Backend::None => Work::no_backend(&call),
                    Backend::Openim(openim) => {
                        let openim = openim.clone();
                        drop(state);
                        return openim.call(self, *call);
                    }
                };
                state.do_work(call.shard, work);
            }
            RpcMail::Presence(record) => {
                let owner = state.router.owner(&record.user);
                match &mut state.backend {
                    Backend::Embedded(embedded) => {
                        let work = embedded.presence(clock::now(), &record, owner);
                        state.do_work(owner, work);
                    }
                    Backend::None => {}
                    Backend::Openim(openim) => {
                        let openim = openim.clone();
                        drop(state);
                        return openim.presence(self, &record);
                    }
                }
            }
            RpcMail::News(news) => {
                drop(state);
                if let Some(openim) = self.openim() {
                    openim.news(self, *news);
                }
                return;
            }
            RpcMail::Cluster(_) => {} // nobody sends it yet
            RpcMail::Main(_) => {}    // the thread's reader keeps it (`run.rs`)
            RpcMail::Drain(deadline) => {
                state.drain = Some(deadline);
                if let Backend::Openim(openim) = &state.backend {
                    openim.final_offline(deadline);
                }
                wakers.extend(state.drain_watches.iter_mut().filter_map(|(_, waker)| waker.take()));
            }
        }
        drop(state);
        wake(wakers);
    }

    /// Ends the calls whose deadline has come.
    pub(super) fn expire(&self, now: Mono) {
        let mut state = self.state.borrow_mut();
        let finished = state.router.expire(now);
        let mut wakers: Vec<Waker> = finished.into_iter().filter_map(|f| state.finish(f)).collect();
        if state.drain.is_some_and(|deadline| now.plus_ms(DRAIN_VERDICTS_MS) >= deadline) {
            wakers.extend(state.give_up_trays());
        }
        while let Some((asker, work)) = state.next_late() {
            state.do_work(asker, work);
        }
        drop(state);
        wake(wakers);
        if let Some(openim) = self.openim() {
            openim.go_on(self);
        }
    }

    /// Goes by another policy from now on.
    pub(super) fn adopt(&self, policy: &RpcPolicy) {
        if let Some(openim) = self.openim() {
            openim.adopt(policy);
        }
    }

    /// Shows what came of reloads.
    pub(super) fn show_reloads(&self, counts: &ReloadCounts) {
        let mut state = self.state.borrow_mut();
        let tally = state.router.tally();
        tally.set(Metric::ReloadsApplied, counts.applied);
        tally.set(Metric::ReloadsUnchanged, counts.unchanged);
        tally.set(Metric::ReloadsRefused, counts.refused);
        tally.set(Metric::SettingsPending, counts.pending);
    }

    /// Shows what the main thread says of the node.
    pub(super) fn show_levels(&self, levels: &NodeLevels) {
        let mut state = self.state.borrow_mut();
        let tally = state.router.tally();
        tally.set(Metric::Draining, u64::from(levels.standing == Standing::Draining));
        tally.set(Metric::DrainRate, levels.evict_per_s.into());
        tally.set(Metric::AdoptedAddresses, levels.adopted);
        tally.set(Metric::AdoptionsFailed, levels.adoptions_failed);
        tally.set(Metric::AdoptionHooksFailed, levels.hooks_failed);
    }

    fn openim(&self) -> Option<Openim> {
        match &self.state.borrow().backend {
            Backend::Openim(openim) => Some(openim.clone()),
            Backend::None | Backend::Embedded(_) => None,
        }
    }

    /// Answers what a shard asked.
    pub(super) fn reply(&self, shard: ShardId, reply: UpstreamReply) {
        if let Some(address) = self.state.borrow().shards.get(usize::from(shard.0)) {
            address.reply(reply);
        }
    }

    /// Tells all shards where a user is online.
    pub(super) fn tell_everybody(&self, news: &UserPlatforms) {
        self.state.borrow_mut().tell_everybody(news);
    }

    /// Why the node should get no new clients, though it runs: nobody could answer them.
    pub(super) fn lacks_upstream(&self) -> Option<String> {
        self.openim()?.lacks()
    }

    /// Users of whom the backend was not told all, which the end of the thread should wait for.
    pub(super) fn untold(&self) -> usize {
        self.openim().map_or(0, |openim| openim.untold())
    }

    /// For counts of other parts of the thread.
    pub(super) fn tally(&self, write: impl FnOnce(&mut Tally)) {
        write(self.state.borrow_mut().router.tally());
    }

    /// Publishes the counts of the thread.
    pub(super) fn publish(&self, inbox: &RpcInbox, block: &Block) {
        let mut state = self.state.borrow_mut();
        let State { router, backend, connections_open, calls_open, tray_tickets, .. } = &mut *state;
        let tally = router.tally();
        tally.set(Metric::RpcConnections, *connections_open as u64);
        tally.set(Metric::RpcOpen, u64::from(*calls_open));
        tally.set(Metric::RpcPushesInHand, *tray_tickets as u64);
        match backend {
            Backend::Embedded(embedded) => embedded.publish(tally),
            Backend::Openim(openim) => openim.publish(tally),
            Backend::None => {}
        }
        inbox.publish(tally);
        block.publish(tally);
    }

    /// Mails waiting for each shard, by id.
    pub(super) fn lane_depths(&self) -> Vec<LaneDepths> {
        self.state.borrow().shards.iter().map(ShardAddress::depths).collect()
    }

    /// Waits for the next time to look at deadlines and counts: soon, while something has a deadline here.
    pub(super) async fn tick(&self) {
        if self.state.borrow().keeps_time() {
            return monoio::time::sleep(Duration::from_millis(RPC_TICK_MS)).await;
        }
        self.roused.clear();
        let rests = self.stir.get() == Stir::Calm && self.openim().is_none();
        self.stir.set(if rests { Stir::Asleep } else { Stir::Calm });
        let wait_ms = if rests { RPC_REST_MS } else { RPC_IDLE_TICK_MS };
        // Roused or not: the next tick sees what there is.
        drop(monoio::time::timeout(Duration::from_millis(wait_ms), self.roused.wait()).await);
    }

    /// The deadline of the drain, once it has begun.
    pub(super) fn draining(&self) -> Option<Mono> {
        self.state.borrow().drain
    }

    /// Whether a connection is open.
    pub(super) fn has_connections(&self) -> bool {
        self.state.borrow().connections_open > 0
    }
}

impl State {
    /// Whether something here has a deadline.
    fn keeps_time(&self) -> bool {
        let late = matches!(&self.backend, Backend::Embedded(embedded) if embedded.owes());
        late || !self.answers.is_empty() || !self.trays.is_empty() || self.drain.is_some()
    }

    /// Posts mail; what a lane refuses goes back to the router.
    fn post(&mut self, mails: Mails) {
        for (shard, mail) in mails {
            let Some(address) = self.shards.get(usize::from(shard.0)) else {
                self.router.not_posted(shard, &mail);
                continue;
            };
            let refused = match mail {
                ShardMail::Push(_) | ShardMail::PresenceNews(_) => address.push(mail).err(),
                _ => match address.control(Control::Hub(mail)) {
                    Err(Control::Hub(mail)) => Some(mail),
                    _ => None,
                },
            };
            if let Some(mail) = refused {
                self.router.not_posted(shard, &mail);
            }
        }
    }

    /// Keeps the outcome for the one who waits, if somebody still does.
    fn finish(&mut self, progress: Progress) -> Option<Waker> {
        let answer = self.answers.get_mut(&progress.ticket)?;
        if let Answer::Tray(key) = *answer {
            return self.put_in_tray(key, progress);
        }
        match std::mem::replace(answer, Answer::Here(progress.outcome)) {
            Answer::Awaited(waker) => waker,
            Answer::Here(_) | Answer::Tray(_) => None,
        }
    }

    /// Carries out what the backend asks for.
    fn do_work(&mut self, asker: ShardId, work: Work) {
        if let (Some(reply), Some(address)) = (work.reply, self.shards.get(usize::from(asker.0))) {
            address.reply(reply);
        }
        for push in work.pushes {
            let mails = self.router.push_unwaited(&push);
            self.post(mails);
        }
        if let Some(news) = work.news {
            self.tell_everybody(&news);
        }
    }

    fn tell_everybody(&mut self, news: &UserPlatforms) {
        let mail = |shard| (shard, ShardMail::PresenceNews(Box::new(news.clone())));
        let shards = u16::try_from(self.shards.len()).unwrap_or(u16::MAX);
        self.post((0..shards).map(ShardId).map(mail).collect());
    }

    fn next_late(&mut self) -> Option<(ShardId, Work)> {
        match &mut self.backend {
            Backend::Embedded(embedded) => embedded.next_late(clock::now()),
            Backend::None | Backend::Openim(_) => None,
        }
    }
}

fn wake(wakers: impl IntoIterator<Item = Waker>) {
    for waker in wakers {
        waker.wake();
    }
}

/// The answer to a call. Dropped before it came: the call is cancelled.
pub(super) struct Waiting {
    exchange: Exchange,
    ticket: RpcTicket,
}

impl Future for Waiting {
    type Output = Outcome;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Outcome> {
        let mut state = self.exchange.state.borrow_mut();
        match state.answers.remove(&self.ticket) {
            Some(Answer::Here(outcome)) => Poll::Ready(outcome),
            Some(Answer::Awaited(_)) => {
                let answer = Answer::Awaited(Some(cx.waker().clone()));
                state.answers.insert(self.ticket, answer);
                Poll::Pending
            }
            // A ticket is waited for in one way only, and not after its answer was given out.
            Some(Answer::Tray(_)) | None => Poll::Pending,
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let mut state = self.exchange.state.borrow_mut();
        if let Some(Answer::Awaited(_)) = state.answers.remove(&self.ticket) {
            let mails = state.router.cancel(self.ticket);
            state.post(mails);
        }
    }
}
