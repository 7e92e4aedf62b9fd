//! Copies of a push and their answers: as its home (P2 to P4), or from all nodes (P5).
//!
//! What always holds: "complete" is set by a node that was fit when it decided whom to ask, and only if every node
//! asked has answered; silence never counts as "no connection there".

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;

use super::Node;
use super::frame::{Answer, Attempt, Body, Conn, Copy, Device, Generation, PushId, Verdict};
use super::holder::Asker;
use super::io::Count;
use super::peer::Peer;
use super::rules::Rule;
use crate::ids::Text;
use crate::limits::{HOLD_MS, LEGS_MAX};
use crate::placement::view::NodeId;
use crate::time::Mono;

/// Questions that wait for answers.
#[derive(Debug, Default)]
pub(super) struct Gathers {
    open: BTreeMap<u64, Gather>,
    /// When they are given up; the oldest first.
    due: VecDeque<(Mono, u64)>,
}

#[derive(Debug)]
struct Gather {
    sink: Sink,
    slots: BTreeMap<Text, Slot>,
}

/// What is asked.
#[derive(Clone, Debug)]
pub(super) struct Question {
    pub(super) push: PushId,
    pub(super) recipients: Vec<Text>,
    pub(super) payload: Bytes,
}

/// Who wants the verdicts.
#[derive(Clone, Debug)]
pub(super) enum Sink {
    /// The push that arrived here; this node is the home.
    Entry(u64),
    /// The push that arrived here; all nodes were asked.
    All(u64),
    /// A peer that routed it here.
    Peer { peer: NodeId, generation: Generation, leg: u64 },
}

/// One recipient.
#[derive(Debug, Default)]
struct Slot {
    fit: bool,
    results: BTreeMap<Conn, Device>,
    awaited: BTreeSet<NodeId>,
    unaccounted: BTreeSet<NodeId>,
}

impl Gathers {
    pub(super) fn due(&self) -> Option<Mono> {
        self.due.front().map(|(at, _)| *at)
    }
}

impl Slot {
    fn verdict(self, user: Text) -> Verdict {
        let complete = self.fit && self.unaccounted.is_empty();
        let (results, unaccounted) =
            (self.results.into_iter().collect(), self.unaccounted.into_iter().collect());
        Verdict { user, results, complete, unaccounted }
    }
}

impl Node {
    /// A peer takes this node for the home of these recipients (P2).
    pub(super) fn routed(&mut self, from: &NodeId, copy: Copy) {
        let Copy { leg, push, recipients, payload } = copy;
        let Some(generation) = self.peers.get(from).and_then(Peer::up).map(|up| up.generation) else {
            return;
        };
        let (recipients, foreign): (Vec<Text>, Vec<Text>) =
            recipients.into_iter().partition(|user| self.is_home(user));
        self.turn_away(from, leg, foreign);
        if !recipients.is_empty() {
            let sink = Sink::Peer { peer: from.clone(), generation, leg };
            self.gather_at_home(sink, Question { push, recipients, payload });
        }
    }

    /// The home's step (P3): who must be asked is decided here, at once, by what is known now.
    pub(super) fn gather_at_home(&mut self, sink: Sink, question: Question) {
        let accounted = self.accounted();
        let names_all = self.rules.hold(Rule::HomeAccounts);
        self.gather(sink, question, Attempt::First, |node, user, slot| {
            for id in &accounted {
                match node.peers.get(id).filter(|peer| peer.up().is_some()) {
                    Some(peer) if node.must_ask(peer, user) => slot.awaited.insert(id.clone()),
                    None if names_all => slot.unaccounted.insert(id.clone()),
                    _ => false,
                };
            }
        });
    }

    /// Asks every accounted node (P5).
    pub(super) fn gather_from_all(&mut self, sink: Sink, question: Question, attempt: Attempt) {
        let accounted = self.accounted();
        self.gather(sink, question, attempt, |node, _, slot| {
            for id in &accounted {
                match node.peers.get(id).and_then(Peer::up) {
                    Some(_) => slot.awaited.insert(id.clone()),
                    None => slot.unaccounted.insert(id.clone()),
                };
            }
        });
    }

    fn gather(
        &mut self,
        sink: Sink,
        question: Question,
        attempt: Attempt,
        targets: impl Fn(&Self, &Text, &mut Slot),
    ) {
        let me = self.me.node_id.clone();
        let fit = self.fit();
        let full = self.gathers.open.len() >= LEGS_MAX;
        if full {
            self.count(Count::LegsFull);
        }
        let Question { push, recipients, payload } = question;
        let mut slots = BTreeMap::new();
        let mut copies: BTreeMap<NodeId, Vec<Text>> = BTreeMap::new();
        for user in recipients {
            let mut slot = Slot { fit, ..Slot::default() };
            if full {
                slot.unaccounted.insert(me.clone());
            } else {
                targets(self, &user, &mut slot);
                slot.awaited.insert(me.clone());
            }
            for node in &slot.awaited {
                copies.entry(node.clone()).or_default().push(user.clone());
            }
            slots.insert(user, slot);
        }
        let leg = self.leg();
        self.gathers.open.insert(leg, Gather { sink, slots });
        self.gathers.due.push_back((self.now.mono.plus_ms(HOLD_MS), leg));
        let own = copies.remove(&me);
        for (node, recipients) in copies {
            let copy = Copy { leg, push: push.clone(), recipients, payload: payload.clone() };
            self.send(&node, Body::Deliver { copy, attempt });
        }
        if let Some(recipients) = own {
            self.deliver(Asker::Gather(leg), Question { push, recipients, payload }, attempt);
        }
        self.end_if_answered(leg);
    }

    /// Answers of a holder, which may be this node.
    pub(super) fn deliver_replied(&mut self, from: &NodeId, leg: u64, answers: Vec<(Text, Answer)>) {
        let Some(gather) = self.gathers.open.get_mut(&leg) else { return };
        for (user, answer) in answers {
            let Some(slot) = gather.slots.get_mut(&user) else { continue };
            if !slot.awaited.remove(from) {
                continue;
            }
            match answer {
                Answer::Known(results) => slot.results.extend(results),
                Answer::Unknown => {
                    slot.unaccounted.insert(from.clone());
                }
            }
        }
        self.end_if_answered(leg);
    }

    /// Answers that cannot come any more (P4).
    pub(super) fn copies_lost(&mut self, peer: &NodeId) {
        let legs: Vec<u64> = self.gathers.open.keys().copied().collect();
        for leg in legs {
            self.give_up(leg, |node| node == peer);
        }
    }

    pub(super) fn expire_gathers(&mut self) {
        while self.gathers.due().is_some_and(|at| at <= self.now.mono) {
            if let Some((_, leg)) = self.gathers.due.pop_front() {
                self.give_up(leg, |_| true);
            }
        }
    }

    /// No longer waits for those nodes: they are named.
    fn give_up(&mut self, leg: u64, whom: impl Fn(&NodeId) -> bool) {
        let Some(gather) = self.gathers.open.get_mut(&leg) else { return };
        for slot in gather.slots.values_mut() {
            let (given_up, awaited) =
                std::mem::take(&mut slot.awaited).into_iter().partition(|node| whom(node));
            slot.awaited = awaited;
            if self.rules.hold(Rule::SilenceIsNotAbsence) {
                slot.unaccounted.extend::<BTreeSet<NodeId>>(given_up);
            }
        }
        self.end_if_answered(leg);
    }

    fn end_if_answered(&mut self, leg: u64) {
        let answered = |gather: &Gather| gather.slots.values().all(|slot| slot.awaited.is_empty());
        if !self.gathers.open.get(&leg).is_some_and(answered) {
            return;
        }
        let Some(Gather { sink, slots }) = self.gathers.open.remove(&leg) else { return };
        let verdicts: Vec<Verdict> = slots.into_iter().map(|(user, slot)| slot.verdict(user)).collect();
        match sink {
            Sink::Entry(push) => self.finish(push, verdicts),
            Sink::All(push) => {
                let users: Vec<Text> = verdicts.iter().map(|verdict| verdict.user.clone()).collect();
                self.finish(push, verdicts);
                for user in users {
                    self.leave_slow(&user);
                }
            }
            Sink::Peer { peer, generation, leg } => {
                if self.peers.get(&peer).and_then(Peer::up).is_some_and(|up| up.generation == generation) {
                    self.send(&peer, Body::RouteReply { leg, verdicts });
                }
            }
        }
    }
}
