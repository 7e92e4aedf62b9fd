//! What this node has delivered, so that another copy of a push delivers nothing (P7, routing-protocol.md section 9).
//!
//! The key is (push, recipient): a retry may share some recipients only. Nothing is forgotten silently: while something
//! young was evicted, a repeated push that is not found is answered "unknown".

use std::collections::{BTreeMap, VecDeque};

use super::frame::{Answer, Attempt, Conn, Device, PushId};
use crate::ids::Text;
use crate::limits::{SEEN_MAX, SEEN_MS, SEEN_PINNED_MAX};
use crate::time::Mono;

/// The table of one node.
#[derive(Debug)]
pub(super) struct Seen {
    /// With the time of the copy that made it: a ring may still name an earlier one.
    entries: BTreeMap<(PushId, Text), (Mono, State)>,
    ring: VecDeque<(Mono, PushId, Text)>,
    /// Made by repeated pushes; the first copy may still come.
    pinned: VecDeque<(Mono, PushId, Text)>,
    evicted_until: Mono,
    max: usize,
    pinned_max: usize,
}

#[derive(Debug)]
enum State {
    /// The shards have it.
    Pending,
    Done(Vec<(Conn, Device)>),
}

/// What to do with a copy.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Look {
    /// Deliver it; it is remembered as pending.
    New,
    /// Deliver it; something younger than [`SEEN_MS`] was forgotten for it.
    NewEvicting,
    /// Deliver nothing: it could not be remembered, so it is answered "unknown".
    Full,
    /// Deliver nothing: answer this.
    Answer(Answer),
}

impl Default for Seen {
    fn default() -> Self {
        Self::with_limits(SEEN_MAX, SEEN_PINNED_MAX)
    }
}

impl Seen {
    fn with_limits(max: usize, pinned_max: usize) -> Self {
        Self {
            entries: BTreeMap::new(),
            ring: VecDeque::new(),
            pinned: VecDeque::new(),
            evicted_until: Mono(0),
            max,
            pinned_max,
        }
    }

    /// Looks a copy up, and remembers it if it is new.
    pub(super) fn look(&mut self, push: &PushId, user: &Text, attempt: Attempt, now: Mono) -> Look {
        self.expire(now);
        let key = (push.clone(), user.clone());
        match self.entries.get(&key) {
            Some((_, State::Done(results))) => return Look::Answer(Answer::Known(results.clone())),
            Some((_, State::Pending)) => return Look::Answer(Answer::Unknown),
            None => {}
        }
        let entry = (now, key.0.clone(), key.1.clone());
        let mut look = Look::New;
        match attempt {
            Attempt::Second if now < self.evicted_until => return Look::Answer(Answer::Unknown),
            Attempt::Second if self.pinned.len() >= self.pinned_max => return Look::Full,
            Attempt::Second => self.pinned.push_back(entry),
            Attempt::First => {
                if self.ring.len() >= self.max {
                    look = self.evict();
                }
                self.ring.push_back(entry);
            }
        }
        self.entries.insert(key, (now, State::Pending));
        look
    }

    fn evict(&mut self) -> Look {
        let Some((at, push, user)) = self.ring.pop_front() else { return Look::New };
        if !remove(&mut self.entries, at, (push, user)) {
            return Look::New;
        }
        self.evicted_until = self.evicted_until.max(at.plus_ms(SEEN_MS));
        Look::NewEvicting
    }

    /// The shards have answered. Recipients without a connection here are forgotten, and so are answers with tokens:
    /// those were questions, which may be asked twice, and no copy of a token stays behind.
    pub(super) fn done(&mut self, push: &PushId, user: &Text, results: &[(Conn, Device)]) {
        let key = (push.clone(), user.clone());
        if results.is_empty() || results.iter().any(|(_, device)| device.token.is_some()) {
            self.entries.remove(&key);
        } else if let Some(state) = self.entries.get_mut(&key) {
            state.1 = State::Done(results.to_vec());
        }
    }

    /// Forgets what no copy can ask for any more.
    pub(super) fn expire(&mut self, now: Mono) {
        for ring in [&mut self.ring, &mut self.pinned] {
            while let Some((at, _, _)) = ring.front() {
                if now.since_ms(*at) < SEEN_MS {
                    break;
                }
                if let Some((at, push, user)) = ring.pop_front() {
                    remove(&mut self.entries, at, (push, user));
                }
            }
        }
    }
}

/// Removes the entry that was made at `at`. Returns whether it was still there.
fn remove(entries: &mut BTreeMap<(PushId, Text), (Mono, State)>, at: Mono, key: (PushId, Text)) -> bool {
    let made_then = entries.get(&key).is_some_and(|(made, _)| *made == at);
    made_then && entries.remove(&key).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::protocol::frame::Token;
    use crate::hub::mail::{DeviceOutcome, DeviceVerdict};
    use crate::ids::Platform;
    use crate::placement::view::{Incarnation, NodeId};

    fn push(number: u64) -> PushId {
        PushId { node: NodeId::new("a").unwrap(), incarnation: Incarnation(1), number }
    }

    fn results() -> Vec<(Conn, Device)> {
        let conn = Conn { node: NodeId::new("b").unwrap(), incarnation: Incarnation(1), number: 7 };
        let verdict = DeviceVerdict {
            number: 0,
            platform: Platform::IOS,
            connection_id: [0; 16],
            outcome: DeviceOutcome::Written,
        };
        vec![(conn, verdict.into())]
    }

    #[test]
    fn a_copy_gets_the_stored_result() {
        let mut seen = Seen::default();
        let user = Text::from("u");
        assert_eq!(seen.look(&push(1), &user, Attempt::First, Mono(0)), Look::New);
        assert_eq!(seen.look(&push(1), &user, Attempt::Second, Mono(1)), Look::Answer(Answer::Unknown));
        seen.done(&push(1), &user, &results());
        let stored = Look::Answer(Answer::Known(results()));
        assert_eq!(seen.look(&push(1), &user, Attempt::Second, Mono(SEEN_MS - 1)), stored);
        assert_eq!(seen.look(&push(1), &Text::from("v"), Attempt::Second, Mono(2)), Look::New);
        assert_eq!(seen.look(&push(1), &user, Attempt::Second, Mono(SEEN_MS)), Look::New);
    }

    #[test]
    fn who_had_no_connection_is_not_remembered() {
        let mut seen = Seen::default();
        let user = Text::from("u");
        assert_eq!(seen.look(&push(1), &user, Attempt::First, Mono(0)), Look::New);
        seen.done(&push(1), &user, &[]);
        assert_eq!(seen.look(&push(1), &user, Attempt::First, Mono(1)), Look::New);
    }

    #[test]
    fn an_answer_with_tokens_is_not_remembered() {
        let mut seen = Seen::default();
        let user = Text::from("u");
        assert_eq!(seen.look(&push(1), &user, Attempt::First, Mono(0)), Look::New);
        let mut results = results();
        results[0].1.token = Some(Token("secret".into()));
        assert!(!format!("{results:?}").contains("secret"));
        seen.done(&push(1), &user, &results);
        assert!(seen.entries.is_empty());
        assert_eq!(seen.look(&push(1), &user, Attempt::First, Mono(1)), Look::New);
    }

    #[test]
    fn at_the_limit_the_oldest_goes_and_repeated_pushes_are_unknown_for_its_time() {
        let mut seen = Seen::with_limits(2, 1);
        let user = Text::from("u");
        for number in 0..2 {
            assert_eq!(seen.look(&push(number), &user, Attempt::First, Mono(number)), Look::New);
        }
        assert_eq!(seen.look(&push(2), &user, Attempt::First, Mono(2)), Look::NewEvicting);
        assert_eq!(seen.look(&push(9), &user, Attempt::Second, Mono(3)), Look::Answer(Answer::Unknown));
        assert_eq!(seen.look(&push(9), &user, Attempt::Second, Mono(SEEN_MS)), Look::New);
        let full = seen.look(&push(10), &user, Attempt::Second, Mono(SEEN_MS));
        assert_eq!(full, Look::Full, "the pinned area is full");
        assert_eq!(
            seen.look(&push(11), &user, Attempt::First, Mono(SEEN_MS + 2)),
            Look::New,
            "it has its own room"
        );
    }
}
