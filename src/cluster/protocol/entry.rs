//! A push at the node where it arrived: to the homes, else to all nodes (P1, P5, P6), and its verdicts (P8). What a
//! node says that is not the home is in `reroute`.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::frame::{Attempt, Body, Copy, Verdict};
use super::gather::{Question, Sink};
use super::io::{Count, Output, Push};
use super::peer::Peer;
use super::{Fence, Node};
use crate::ids::Text;
use crate::limits::{BEAT_MS, LEGS_MAX, PUSH_COMPOSE_MS, ROUTE_MS};
use crate::placement::view::NodeId;
use crate::time::Mono;

/// Pushes that arrived here and are not finished.
#[derive(Debug, Default)]
pub(super) struct Entries {
    pushes: BTreeMap<u64, Entry>,
    /// Questions to homes.
    pub(super) routes: BTreeMap<u64, Route>,
    /// When they are given up.
    due: BTreeSet<(Mono, u64)>,
}

#[derive(Debug)]
struct Entry {
    ticket: u64,
    accepted: Mono,
    payload: Bytes,
    /// Recipients without a verdict.
    open: usize,
    verdicts: Vec<Verdict>,
}

#[derive(Debug)]
pub(super) struct Route {
    pub(super) push: u64,
    pub(super) home: NodeId,
    /// Not answered yet.
    pub(super) recipients: BTreeSet<Text>,
    pub(super) way: Way,
}

/// How a question came to its home.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    First,
    /// After another node said that it is not the home.
    Again,
}

impl Entries {
    pub(super) fn due(&self) -> Option<Mono> {
        self.due.first().map(|(at, _)| *at)
    }
}

impl Node {
    /// A push has arrived (P1).
    pub(super) fn accept(&mut self, push: Push) {
        if self.entries.pushes.len() >= LEGS_MAX {
            self.count(Count::LegsFull);
            return self.out.push(Output::Refused(push.ticket));
        }
        let recipients: BTreeSet<Text> = push.recipients.into_iter().collect();
        let number = self.leg();
        let accepted = self.now.mono;
        let entry = Entry {
            ticket: push.ticket,
            accepted,
            payload: push.payload,
            open: recipients.len(),
            verdicts: Vec::new(),
        };
        self.entries.pushes.insert(number, entry);
        let free = recipients.into_iter().filter(|user| !self.must_wait(user, number)).collect();
        self.dispatch(number, free);
        self.finish(number, Vec::new());
    }

    /// Sends a push on its way to these recipients, now.
    pub(super) fn dispatch(&mut self, push: u64, recipients: Vec<Text>) {
        let mut all = Vec::new();
        let mut own = Vec::new();
        let mut homes: BTreeMap<NodeId, Vec<Text>> = BTreeMap::new();
        for user in recipients {
            match self.placement.home(&user) {
                Some(home) if *home == self.me.node_id => own.push(user),
                Some(home) if self.peers.get(home).is_some_and(|peer| peer.up().is_some()) => {
                    homes.entry(home.clone()).or_default().push(user);
                }
                _ => all.push(user),
            }
        }
        for (home, recipients) in homes {
            self.route(push, home, recipients, Way::First);
        }
        if let Some(question) = self.question(push, own) {
            self.gather_at_home(Sink::Entry(push), question);
        }
        self.ask_all(push, all, Attempt::First);
    }

    /// What is asked about these recipients; none if there are none, or the push is over.
    fn question(&self, push: u64, recipients: Vec<Text>) -> Option<Question> {
        let entry = self.entries.pushes.get(&push).filter(|_| !recipients.is_empty())?;
        Some(Question { push: self.push_id(push), recipients, payload: entry.payload.clone() })
    }

    /// Asks a home.
    pub(super) fn route(&mut self, push: u64, home: NodeId, recipients: Vec<Text>, way: Way) {
        let Some(question) = self.question(push, recipients) else { return };
        let leg = self.leg();
        for user in &question.recipients {
            if way == Way::Again {
                self.enter_slow(user);
            }
            self.count(if way == Way::Again { Count::PushAgain } else { Count::PushHome });
        }
        let due = self.now.mono.plus_ms(ROUTE_MS);
        let latest = self.compose_until(push).filter(|_| way == Way::Again);
        self.entries.due.insert((latest.map_or(due, |latest| due.min(latest)), leg));
        let recipients = question.recipients.iter().cloned().collect();
        self.entries.routes.insert(leg, Route { push, home: home.clone(), recipients, way });
        let Question { push, recipients, payload } = question;
        self.send(&home, Body::Route(Copy { leg, push, recipients, payload }));
    }

    /// Asks every accounted node (P5), if it is not too late for another copy.
    pub(super) fn ask_all(&mut self, push: u64, recipients: Vec<Text>, attempt: Attempt) {
        let Some(question) = self.question(push, recipients) else { return };
        for user in &question.recipients {
            self.enter_slow(user);
            self.count(match attempt {
                Attempt::First => Count::PushAll,
                Attempt::Second => Count::PushSecond,
            });
        }
        self.gather_from_all(Sink::All(push), question, attempt);
    }

    /// The home has answered for these.
    pub(super) fn route_replied(&mut self, from: &NodeId, leg: u64, mut verdicts: Vec<Verdict>) {
        let Some(route) = self.entries.routes.get_mut(&leg).filter(|route| route.home == *from) else {
            return;
        };
        verdicts.retain(|verdict| route.recipients.remove(&verdict.user));
        let (push, way) = (route.push, route.way);
        if route.recipients.is_empty() {
            self.entries.routes.remove(&leg);
        }
        let users = verdicts.iter().map(|verdict| verdict.user.clone()).collect();
        self.finish(push, verdicts);
        self.end_way(way, users);
    }

    /// Pushes that waited for one that went to a second home may go.
    pub(super) fn end_way(&mut self, way: Way, users: Vec<Text>) {
        for user in users.into_iter().filter(|_| way == Way::Again) {
            self.leave_slow(&user);
        }
    }

    /// Questions to a home whose link has ended.
    pub(super) fn routes_lost(&mut self, home: &NodeId) {
        let lost = self.entries.routes.iter().filter(|(_, route)| route.home == *home);
        let lost: Vec<u64> = lost.map(|(leg, _)| *leg).collect();
        for leg in lost {
            self.outcome_unknown(leg);
        }
    }

    pub(super) fn expire_routes(&mut self) {
        while self.entries.due().is_some_and(|at| at <= self.now.mono) {
            if let Some((_, leg)) = self.entries.due.pop_first() {
                self.outcome_unknown(leg);
            }
        }
    }

    /// A home was asked and nobody knows what it did (P6): ask all, as a second copy, or give up.
    fn outcome_unknown(&mut self, leg: u64) {
        let Some(Route { push, home, recipients, way }) = self.entries.routes.remove(&leg) else { return };
        let recipients: Vec<Text> = recipients.into_iter().collect();
        if self.may_compose(push) {
            self.ask_all(push, recipients.clone(), Attempt::Second);
        } else {
            self.give_up_on(push, &home, &recipients);
        }
        self.end_way(way, recipients);
    }

    /// It is too late to ask anybody else.
    pub(super) fn give_up_on(&mut self, push: u64, home: &NodeId, recipients: &[Text]) {
        let named = |user: &Text| {
            let (user, results) = (user.clone(), Vec::new());
            Verdict { user, results, complete: false, unaccounted: vec![home.clone()] }
        };
        self.finish(push, recipients.iter().map(named).collect());
    }

    /// Until when copies of a push are composed.
    fn compose_until(&self, push: u64) -> Option<Mono> {
        Some(self.entries.pushes.get(&push)?.accepted.plus_ms(PUSH_COMPOSE_MS))
    }

    pub(super) fn may_compose(&self, push: u64) -> bool {
        self.compose_until(push).is_some_and(|until| self.now.mono <= until)
    }

    /// Takes verdicts of a push; with the last one the push ends.
    pub(super) fn finish(&mut self, push: u64, verdicts: Vec<Verdict>) {
        for verdict in verdicts.iter().filter(|verdict| !verdict.complete) {
            self.count(if verdict.unaccounted.is_empty() { Count::NotFit } else { Count::NoAnswer });
        }
        let Some(entry) = self.entries.pushes.get_mut(&push) else { return };
        entry.open = entry.open.saturating_sub(verdicts.len());
        entry.verdicts.extend(verdicts);
        if entry.open > 0 {
            return;
        }
        if let Some(Entry { ticket, mut verdicts, .. }) = self.entries.pushes.remove(&push) {
            verdicts.sort_by(|a, b| a.user.cmp(&b.user));
            self.out.push(Output::Verdict { ticket, verdicts });
        }
    }

    /// When the next tick is due; `None`: no event is waited for.
    pub fn due(&self) -> Option<Mono> {
        let beats = self.peers.values().filter_map(Peer::due);
        let legs = [self.entries.due(), self.gathers.due(), self.locals.due(), self.order.due()];
        // Since the last tick, not the last event: a node that hears much and is linked with nobody gets one too.
        let fence = (self.me.fence == Fence::Strict).then(|| self.ticked.plus_ms(BEAT_MS));
        beats.chain(legs.into_iter().flatten()).chain(fence).min()
    }
}
