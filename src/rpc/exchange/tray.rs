//! The news of a caller that has many pushes at once: one tray for all their parts, in the order in which they come.
//!
//! What always holds: a tray holds no more than was asked, since it is asked for through it; a ticket leaves the tray
//! with its last part, or when the tray is dropped, which cancels the push.

use std::collections::{BTreeSet, VecDeque};
use std::task::{Context, Poll, Waker};

use super::{Answer, Exchange, State, wake};
use crate::cluster::router::{Busy, Cover, Outcome, Progress, Push, PushResult, ResultPart, To};
use crate::hub::mail::Report;
use crate::ids::{RpcId, RpcTicket, SlotId, Text};
use crate::limits::{PUSH_STREAM_LANE_MAX, PUSH_STREAM_TICKETS_MAX};
use crate::shard::mailbox::ShardAddress;

/// See [`State::next_routed`].
const NO_THREAD: RpcId = RpcId(u16::MAX);

/// What waits in one tray.
#[derive(Default)]
pub(super) struct Pile {
    news: VecDeque<(RpcTicket, ResultPart)>,
    /// Pushes whose last part has not come.
    open: BTreeSet<RpcTicket>,
    waker: Option<Waker>,
}

/// See the module's documentation.
pub(in crate::rpc) struct Tray {
    exchange: Exchange,
    key: usize,
}

impl Exchange {
    /// An empty tray.
    pub(in crate::rpc) fn tray(&self) -> Tray {
        let key = self.state.borrow_mut().trays.insert(Pile::default());
        Tray { exchange: self.clone(), key }
    }
}

impl Tray {
    /// Whether there is a ticket, and room in the push lanes, for a push to these users.
    pub(in crate::rpc) fn has_room(&self, to: &To) -> bool {
        let state = self.exchange.state.borrow();
        state.tray_tickets < PUSH_STREAM_TICKETS_MAX && !state.is_crowded(to)
    }

    /// Starts a push, whether there is room or not: what a lane does not take is not reached.
    pub(in crate::rpc) fn push(&self, push: Push) -> Result<RpcTicket, Busy> {
        let mut state = self.exchange.state.borrow_mut();
        let (ticket, mails) = state.router.push(push)?;
        state.answers.insert(ticket, Answer::Tray(self.key));
        state.tray_tickets += 1;
        if let Some(pile) = state.trays.get_mut(self.key) {
            pile.open.insert(ticket);
        }
        state.post(mails);
        let finished = state.router.posted(ticket);
        let waker = finished.and_then(|f| state.finish(f));
        drop(state);
        wake(waker);
        Ok(ticket)
    }

    /// A ticket for a push that the node's router sends on; [`Exchange::routed`] brings its one part.
    pub(in crate::rpc) fn reserve(&self, users: Vec<Text>, report: Report) -> RpcTicket {
        let mut state = self.exchange.state.borrow_mut();
        let ticket = state.next_routed();
        state.answers.insert(ticket, Answer::Tray(self.key));
        state.routed.insert(ticket, Unanswered { users, report });
        state.tray_tickets += 1;
        if let Some(pile) = state.trays.get_mut(self.key) {
            pile.open.insert(ticket);
        }
        ticket
    }

    /// Ready when there are news; until then the task is woken when they come.
    pub(in crate::rpc) fn poll_news(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.exchange.state.borrow_mut();
        match state.trays.get_mut(self.key) {
            Some(pile) if pile.news.is_empty() => {
                pile.waker = Some(cx.waker().clone());
                Poll::Pending
            }
            _ => Poll::Ready(()),
        }
    }

    /// The oldest news.
    pub(in crate::rpc) fn next(&self) -> Option<(RpcTicket, ResultPart)> {
        self.exchange.state.borrow_mut().trays.get_mut(self.key)?.news.pop_front()
    }

    /// Ends all its pushes now; their last parts are news.
    pub(in crate::rpc) fn give_up(&self) {
        self.exchange.state.borrow_mut().give_up_tray(self.key);
    }
}

/// What is said of a routed push that is given up: nobody is reached, as far as is known.
pub(super) struct Unanswered {
    users: Vec<Text>,
    report: Report,
}

impl Unanswered {
    fn part(self) -> ResultPart {
        let count = u32::try_from(self.users.len()).unwrap_or(u32::MAX);
        let mut part =
            ResultPart { not_reached: count, not_complete: count, last: true, ..ResultPart::default() };
        if self.report != Report::Totals {
            part.covers = vec![Cover::default(); self.users.len()];
            let result = |user| PushResult { user, devices: None, expired: false };
            part.results = self.users.into_iter().map(result).collect();
        }
        part
    }
}

impl Exchange {
    /// A push that was routed is over. One that was given up, or whose caller is gone, is dropped.
    pub(in crate::rpc) fn routed(&self, ticket: RpcTicket, part: ResultPart) {
        let mut state = self.state.borrow_mut();
        state.routed.remove(&ticket);
        let waker = state.finish(Progress { ticket, outcome: Outcome::Part(part) });
        drop(state);
        wake(waker);
    }
}

impl Drop for Tray {
    fn drop(&mut self) {
        let mut state = self.exchange.state.borrow_mut();
        let Some(pile) = state.trays.try_remove(self.key) else { return };
        for ticket in pile.open {
            state.answers.remove(&ticket);
            state.tray_tickets -= 1;
            if state.routed.remove(&ticket).is_none() {
                let mails = state.router.cancel(ticket);
                state.post(mails);
            }
        }
        drop(state);
        drop(pile.waker); // after the borrow
    }
}

impl State {
    /// Whether the push lane of an owner is too full for one more from a tray.
    fn is_crowded(&self, to: &To) -> bool {
        let crowded = |shard: &ShardAddress| shard.depths().push >= PUSH_STREAM_LANE_MAX;
        match to {
            To::Users(users) if users.len() < self.shards.len() => {
                let owners = users.iter().map(|user| usize::from(self.router.owner(user).0));
                owners.filter_map(|owner| self.shards.get(owner)).any(crowded)
            }
            // So many that every shard is an owner, as good as certainly.
            _ => self.shards.iter().any(crowded),
        }
    }

    /// Takes news of a push of this tray.
    pub(super) fn put_in_tray(&mut self, key: usize, progress: Progress) -> Option<Waker> {
        let Progress { ticket, outcome } = progress;
        let part = match outcome {
            Outcome::Part(part) => part,
            // A push in parts ends with a part; should it not, nothing is known of anybody.
            _ => ResultPart { last: true, ..ResultPart::default() },
        };
        let pile = self.trays.get_mut(key)?;
        if part.last {
            pile.open.remove(&ticket);
            self.answers.remove(&ticket);
            self.tray_tickets -= 1;
        }
        pile.news.push_back((ticket, part));
        pile.waker.take()
    }

    fn give_up_tray(&mut self, key: usize) -> Option<Waker> {
        let open: Vec<RpcTicket> = self.trays.get(key)?.open.iter().copied().collect();
        let mut waker = None;
        for ticket in open {
            if let Some(unanswered) = self.routed.remove(&ticket) {
                let progress = Progress { ticket, outcome: Outcome::Part(unanswered.part()) };
                waker = self.finish(progress).or(waker);
            } else if let Some((progress, mails)) = self.router.give_up(ticket) {
                self.post(mails);
                waker = self.finish(progress).or(waker);
            }
        }
        waker
    }

    /// Names a routed push: no thread has that id, so no call is meant.
    fn next_routed(&mut self) -> RpcTicket {
        self.routed_count += 1;
        let (high, low) = (self.routed_count >> 32, self.routed_count & u64::from(u32::MAX));
        let half = |number| u32::try_from(number).unwrap_or_default(); // 32 bits each
        RpcTicket { rpc: NO_THREAD, slot: SlotId { index: half(low), generation: half(high) } }
    }

    /// Ends the pushes of all trays now.
    pub(super) fn give_up_trays(&mut self) -> Vec<Waker> {
        let keys: Vec<usize> = self.trays.iter().map(|(key, _)| key).collect();
        keys.into_iter().filter_map(|key| self.give_up_tray(key)).collect()
    }
}
