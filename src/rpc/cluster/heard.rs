//! Whether the other nodes heard of a message too, in mode `local`, where OpenIM's push service is to ask every gateway
//! (issue 8, point 5): one that asks only one by hash misses users, and nobody else would notice.
//!
//! A node that has a message for users of other nodes asks their homes a little later whether it came to them. Of many
//! messages some are looked at. What always holds: at most `HEARD_MAX` messages are remembered, for `HEARD_MS`; there
//! is one question per `HEARD_LOOK_MS`.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use super::Mesh;
use super::payload::{Errand, message_id};
use crate::cluster::protocol::frame::{Device, Verdict};
use crate::cluster::router::PushResult;
use crate::hub::mail::{DeviceOutcome, DeviceVerdict};
use crate::ids::{Platform, Text};
use crate::limits::{HEARD_LOOK_MS, HEARD_MAX, HEARD_MS, HEARD_USERS_MAX, HEARD_WAIT_MS};
use crate::metrics::Metric;
use crate::shard::clock;
use crate::time::Mono;

/// Messages of the last seconds.
#[derive(Debug)]
pub(super) struct Heard {
    messages: BTreeSet<Text>,
    due: VecDeque<(Mono, Text)>,
    max: usize,
    /// No question before this.
    next_look: Mono,
}

impl Default for Heard {
    fn default() -> Self {
        Self::with_max(HEARD_MAX)
    }
}

impl Heard {
    fn with_max(max: usize) -> Self {
        Self { messages: BTreeSet::new(), due: VecDeque::new(), max, next_look: Mono(0) }
    }

    /// Returns how many were forgotten before their time.
    fn remember(&mut self, message: &Text, now: Mono) -> u64 {
        let mut early = 0;
        while let Some((since, _)) = self.due.front() {
            let age = now.since_ms(*since);
            if age < HEARD_MS && self.due.len() < self.max {
                break;
            }
            if let Some((_, oldest)) = self.due.pop_front() {
                self.messages.remove(&oldest);
            }
            early += u64::from(age < HEARD_MS);
        }
        if self.messages.insert(message.clone()) {
            self.due.push_back((now, message.clone()));
        }
        early
    }

    fn knows(&self, message: &Text) -> bool {
        self.messages.contains(message)
    }

    /// Whether it is time for another question.
    fn may_look(&mut self, now: Mono) -> bool {
        let may = now >= self.next_look;
        if may {
            self.next_look = now.plus_ms(HEARD_LOOK_MS);
        }
        may
    }
}

impl Mesh {
    /// Of a push in mode `local` that was answered so: some time later counts those who belong to another node and are
    /// not here, by whether their home heard of the message.
    pub(in crate::rpc) fn note_local_push(&self, msg_data: &bytes::Bytes, results: &[PushResult]) {
        let Some(message) = message_id(msg_data) else { return };
        let now = clock::now().mono;
        let mut heard = self.shared.heard.borrow_mut();
        self.shared.exchange.add(Metric::ClusterHeardForgotten, heard.remember(&message, now));
        let users = self.of_other_nodes(results);
        if users.is_empty() || !heard.may_look(now) {
            return;
        }
        drop(heard);
        let mesh = self.clone();
        monoio::spawn(async move {
            monoio::time::sleep(Duration::from_millis(HEARD_WAIT_MS)).await;
            let verdicts = mesh.start(users, &Errand::Heard(message)).verdicts().await;
            for metric in verdicts.iter().flatten().filter_map(judged) {
                mesh.shared.exchange.count(metric);
            }
        });
    }

    /// Those who are not here and belong to another node.
    fn of_other_nodes(&self, results: &[PushResult]) -> Vec<Text> {
        let driver = self.shared.driver.borrow();
        let Some(placement) = driver.node().map(|node| node.placement()) else { return Vec::new() };
        let absent = results.iter().filter(|result| result.devices.as_ref().is_some_and(Vec::is_empty));
        let elsewhere =
            |result: &&PushResult| placement.home(&result.user).is_some_and(|home| *home != self.shared.own);
        absent.filter(elsewhere).take(HEARD_USERS_MAX).map(|result| result.user.clone()).collect()
    }

    /// The answer to the question: for each user a device that is none, if the message came here, too.
    pub(super) fn heard_here(&self, message: &Text, users: Vec<Text>) -> Vec<(Text, Vec<(u64, Device)>)> {
        let knows = self.shared.heard.borrow().knows(message);
        let (platform, outcome) = (Platform::IOS, DeviceOutcome::Queued);
        let yes = DeviceVerdict { number: 0, platform, connection_id: [0; 16], outcome };
        let said = || if knows { vec![(0, yes.into())] } else { Vec::new() };
        users.into_iter().map(|user| (user, said())).collect()
    }
}

/// `None`: not all who could have heard of it were asked.
fn judged(verdict: &Verdict) -> Option<Metric> {
    match (verdict.results.is_empty(), verdict.complete) {
        (false, _) => Some(Metric::ClusterLocalShared),
        (true, true) => Some(Metric::ClusterLocalAlone),
        (true, false) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_messages_are_remembered_for_so_long() {
        let mut heard = Heard::with_max(2);
        let [a, b, c] = ["a", "b", "c"].map(Text::from);
        assert_eq!((heard.remember(&a, Mono(0)), heard.remember(&b, Mono(1))), (0, 0));
        assert!(heard.knows(&a) && heard.knows(&b));
        assert_eq!(heard.remember(&c, Mono(2)), 1, "counted");
        assert!(!heard.knows(&a) && heard.knows(&b) && heard.knows(&c), "the oldest of three goes");
        let mut heard = Heard::default();
        for (message, at) in [(&a, 0), (&b, HEARD_MS - 1), (&b, HEARD_MS - 1)] {
            assert_eq!(heard.remember(message, Mono(at)), 0);
        }
        assert!(heard.knows(&a));
        assert_eq!(heard.remember(&c, Mono(HEARD_MS)), 0, "in its time");
        assert!(!heard.knows(&a) && heard.knows(&b));
    }

    #[test]
    fn there_is_one_question_in_a_while() {
        let mut heard = Heard::default();
        let asked =
            [0, HEARD_LOOK_MS - 1, HEARD_LOOK_MS, HEARD_LOOK_MS + 1].map(|at| heard.may_look(Mono(at)));
        assert_eq!(asked, [true, false, true, false]);
    }
}
