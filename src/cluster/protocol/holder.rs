//! Deliveries to the connections of this node, each (push, recipient) once (P7).

use std::collections::{BTreeMap, VecDeque};

use super::Node;
use super::frame::{Answer, Attempt, Body, Copy, Device, Generation, PushId};
use super::gather::Question;
use super::io::{Count, Mail};
use super::peer::Peer;
use super::rules::Rule;
use super::seen::Look;
use crate::ids::Text;
use crate::limits::{LEGS_MAX, SEEN_MS};
use crate::placement::view::NodeId;
use crate::time::Mono;

/// Deliveries that the shards have not answered.
#[derive(Debug, Default)]
pub(super) struct Locals {
    open: BTreeMap<u64, Local>,
    /// When they are forgotten; the oldest first. Whoever asked has given up long before.
    due: VecDeque<(Mono, u64)>,
}

#[derive(Debug)]
struct Local {
    push: PushId,
    asker: Asker,
}

/// Who wants the answers.
#[derive(Clone, Debug)]
pub(super) enum Asker {
    /// A question of this node.
    Gather(u64),
    /// A peer's.
    Peer { peer: NodeId, generation: Generation, leg: u64 },
}

impl Locals {
    pub(super) fn due(&self) -> Option<Mono> {
        self.due.front().map(|(at, _)| *at)
    }
}

impl Node {
    /// A copy from the home or the entry node. It is never forwarded.
    pub(super) fn deliver_for(&mut self, from: &NodeId, copy: Copy, attempt: Attempt) {
        let Some(generation) = self.peers.get(from).and_then(Peer::up).map(|up| up.generation) else {
            return;
        };
        let Copy { leg, push, recipients, payload } = copy;
        let asker = Asker::Peer { peer: from.clone(), generation, leg };
        self.deliver(asker, Question { push, recipients, payload }, attempt);
    }

    /// Delivers what was not delivered before, and answers the rest from memory.
    pub(super) fn deliver(&mut self, asker: Asker, question: Question, attempt: Attempt) {
        let Question { push, recipients, payload } = question;
        let full = self.locals.open.len() >= LEGS_MAX;
        if full {
            self.count(Count::LegsFull);
        }
        let (mut answers, mut fresh) = (Vec::new(), Vec::new());
        for user in recipients {
            if full {
                answers.push((user, Answer::Unknown));
                continue;
            }
            match self.look(&push, &user, attempt) {
                Look::Answer(answer) => answers.push((user, answer)),
                Look::Full => {
                    self.count(Count::SeenFull);
                    answers.push((user, Answer::Unknown));
                }
                Look::New => fresh.push(user),
                Look::NewEvicting => {
                    self.count(Count::SeenEvicted);
                    fresh.push(user);
                }
            }
        }
        if !fresh.is_empty() {
            let leg = self.leg();
            self.locals.open.insert(leg, Local { push: push.clone(), asker: asker.clone() });
            self.locals.due.push_back((self.now.mono.plus_ms(SEEN_MS), leg));
            self.mail(Mail::Deliver { leg, push, recipients: fresh, payload });
        }
        if !answers.is_empty() {
            self.answer(asker, answers);
        }
    }

    fn look(&mut self, push: &PushId, user: &Text, attempt: Attempt) -> Look {
        if self.rules.hold(Rule::Dedupe) {
            self.seen.look(push, user, attempt, self.now.mono)
        } else {
            Look::New
        }
    }

    /// The shards have answered.
    pub(super) fn delivered(&mut self, leg: u64, results: Vec<(Text, Vec<(u64, Device)>)>) {
        let Some(Local { push, asker }) = self.locals.open.remove(&leg) else { return };
        let mut answers = Vec::with_capacity(results.len());
        for (user, results) in results {
            let results: Vec<_> =
                results.into_iter().map(|(number, device)| (self.conn(number), device)).collect();
            self.seen.done(&push, &user, &results);
            answers.push((user, Answer::Known(results)));
        }
        self.answer(asker, answers);
    }

    fn answer(&mut self, asker: Asker, answers: Vec<(Text, Answer)>) {
        match asker {
            Asker::Gather(leg) => {
                let me = self.me.node_id.clone();
                self.deliver_replied(&me, leg, answers);
            }
            Asker::Peer { peer, generation, leg } => {
                if self.peers.get(&peer).and_then(Peer::up).is_some_and(|up| up.generation == generation) {
                    self.send(&peer, Body::DeliverReply { leg, answers });
                }
            }
        }
    }

    pub(super) fn expire_locals(&mut self) {
        while self.locals.due().is_some_and(|at| at <= self.now.mono) {
            if let Some((_, leg)) = self.locals.due.pop_front() {
                self.locals.open.remove(&leg);
            }
        }
    }
}
