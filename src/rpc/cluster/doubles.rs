//! Messages of OpenIM's push service that came to more than one node in mode `route`: whoever had one is not sent it
//! again (issue 8, point 5), at the node where his connections are.
//!
//! It happens when the push service asks every gateway while `cluster.push_mode` is `route`, when two of its instances
//! hash differently, and when it tries again after an error. What always holds: what is remembered is forgotten after
//! `DOUBLE_MS`, or earlier, the oldest first, when there is more than `DOUBLES_MAX`.

use std::collections::{BTreeMap, VecDeque};

use crate::hub::mail::DeviceVerdict;
use crate::ids::Text;
use crate::limits::{DOUBLE_MS, DOUBLES_MAX};
use crate::time::Mono;

/// What became of a message for one user: on his connections by number.
pub(super) type Reached = Vec<(u64, DeviceVerdict)>;

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Doubles {
    entries: BTreeMap<(Text, Text), Entry>,
    due: VecDeque<(Mono, (Text, Text))>,
    max: usize,
    /// Forgotten before their time, and not told yet.
    early: u64,
}

#[derive(Debug)]
struct Entry {
    since: Mono,
    /// `None`: on its way.
    reached: Option<Reached>,
}

/// Whether a user is to get a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Once {
    /// Yes: it is new, or it did not reach him.
    Send,
    /// He had it already.
    Had(Reached),
    /// It is on its way to him; what becomes of it is not known yet.
    OnItsWay,
}

impl Default for Doubles {
    fn default() -> Self {
        Self::with_max(DOUBLES_MAX)
    }
}

impl Doubles {
    fn with_max(max: usize) -> Self {
        Self { entries: BTreeMap::new(), due: VecDeque::new(), max, early: 0 }
    }

    /// Looks a message up for a user, and remembers it if it is to be sent.
    pub(super) fn look(&mut self, message: &Text, user: &Text, now: Mono) -> Once {
        self.forget(now);
        let key = (message.clone(), user.clone());
        match self.entries.get(&key) {
            Some(Entry { reached: Some(reached), .. }) => return Once::Had(reached.clone()),
            Some(Entry { reached: None, .. }) => return Once::OnItsWay,
            None => {}
        }
        if self.due.len() >= self.max {
            self.forget_oldest(now);
        }
        self.entries.insert(key.clone(), Entry { since: now, reached: None });
        self.due.push_back((now, key));
        Once::Send
    }

    /// What became of it. A user who was not reached may get it again; `None`: nothing is known, so he may not.
    pub(super) fn done(&mut self, message: &Text, user: &Text, reached: Option<&Reached>) {
        let key = (message.clone(), user.clone());
        match reached {
            Some(reached) if reached.is_empty() => {
                self.entries.remove(&key);
            }
            reached => {
                if let Some(entry) = self.entries.get_mut(&key) {
                    entry.reached = reached.cloned();
                }
            }
        }
    }

    /// What became of a message for a user; nothing, if he was not reached. `None`: not known yet.
    pub(super) fn known(&self, message: &Text, user: &Text) -> Option<Reached> {
        match self.entries.get(&(message.clone(), user.clone())) {
            Some(entry) => entry.reached.clone(),
            None => Some(Reached::new()),
        }
    }

    fn forget(&mut self, now: Mono) {
        while self.due.front().is_some_and(|(since, _)| now.since_ms(*since) >= DOUBLE_MS) {
            self.forget_oldest(now);
        }
    }

    fn forget_oldest(&mut self, now: Mono) {
        let Some((since, key)) = self.due.pop_front() else { return };
        // A later life of the same key has a line of its own.
        if self.entries.get(&key).is_some_and(|entry| entry.since == since) {
            self.entries.remove(&key);
            self.early += u64::from(now.since_ms(since) < DOUBLE_MS);
        }
    }

    /// How many were forgotten before their time since this was asked last.
    pub(super) fn take_early(&mut self) -> u64 {
        std::mem::take(&mut self.early)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::mail::DeviceOutcome;
    use crate::ids::Platform;

    fn reached() -> Reached {
        let device = crate::rpc::cluster::fixtures::device(5, Platform::IOS, DeviceOutcome::Queued);
        device.into_iter().map(|(number, device)| (number, device.verdict)).collect()
    }

    #[test]
    fn who_had_a_message_is_not_sent_it_again_for_a_while() {
        let (message, user) = (Text::from("m"), Text::from("u"));
        let mut doubles = Doubles::default();
        assert_eq!(doubles.look(&message, &user, Mono(0)), Once::Send);
        assert_eq!(doubles.look(&message, &user, Mono(1)), Once::OnItsWay);
        doubles.done(&message, &user, Some(&reached()));
        assert_eq!(doubles.look(&message, &user, Mono(DOUBLE_MS - 1)), Once::Had(reached()));
        assert_eq!(doubles.look(&message, &Text::from("v"), Mono(2)), Once::Send);
        assert_eq!(doubles.look(&Text::from("n"), &user, Mono(2)), Once::Send);
        assert_eq!(doubles.look(&message, &user, Mono(DOUBLE_MS)), Once::Send);
    }

    #[test]
    fn who_was_not_here_gets_it_when_it_comes_again_and_the_unknown_does_not() {
        let (message, user) = (Text::from("m"), Text::from("u"));
        let mut doubles = Doubles::default();
        assert_eq!(doubles.look(&message, &user, Mono(0)), Once::Send);
        doubles.done(&message, &user, Some(&Vec::new()));
        assert_eq!(doubles.look(&message, &user, Mono(1)), Once::Send);
        doubles.done(&message, &user, None);
        assert_eq!(doubles.look(&message, &user, Mono(2)), Once::OnItsWay);
        // The line of its first life ends, not the second.
        assert_eq!(doubles.look(&message, &user, Mono(DOUBLE_MS)), Once::OnItsWay);
    }

    #[test]
    fn at_the_limit_the_oldest_is_forgotten() {
        let user = Text::from("u");
        let mut doubles = Doubles::with_max(2);
        for (at, message) in (0..).zip(["a", "b", "c"]) {
            assert_eq!(doubles.take_early(), 0, "{message}");
            assert_eq!(doubles.look(&message.into(), &user, Mono(at)), Once::Send);
        }
        assert_eq!(doubles.take_early(), 1, "c needs the room of a");
        assert_eq!(doubles.look(&"c".into(), &user, Mono(4)), Once::OnItsWay);
        assert_eq!(doubles.look(&"a".into(), &user, Mono(4)), Once::Send);
        assert_eq!(doubles.take_early(), 1, "and a that of b");
        assert_eq!(doubles.look(&"d".into(), &user, Mono(DOUBLE_MS + 4)), Once::Send);
        assert_eq!(doubles.take_early(), 0, "what is forgotten in its time is not early");
    }
}
