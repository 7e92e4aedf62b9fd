//! Messages that wait for users without a connection, until one logs in or they are worthless ([`PushRules::expires`]).
//!
//! Bounded in number and bytes, for the shard and for a user; beyond that a user counts as not here. Nothing is looked
//! up while nothing is held. What always holds: a message reaches the first connection that comes, once, behind the
//! first frame of its login and in order of arrival; a user who was reported as not here does not get it.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::Hub;
use super::mail::{PushBody, PushRules};
use super::push_queue::Offer;
use super::verdicts::Looked;
use crate::arena::Arena;
use crate::ids::{ConnId, SlotId};
use crate::limits::{HELD_BYTES, HELD_MAX, HELD_USER_BYTES, HELD_USER_MAX};
use crate::metrics::Metric;
use crate::session::outbox::VerdictRef;
use crate::session::{NONE, Phase};
use crate::time::{Mono, Now};

/// See the module's documentation.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Held {
    waits: Arena<Wait>,
    lines: BTreeMap<Rc<str>, Line>,
    due: BTreeSet<(Mono, SlotId)>,
    bytes: usize,
}

/// A message that waits, shared by all who wait for it.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Message {
    body: PushBody,
    rules: PushRules,
    expires: Mono,
}

/// One message for one user.
#[derive(Debug, Serialize, Deserialize)]
struct Wait {
    user: Rc<str>,
    message: Rc<Message>,
    verdict: VerdictRef,
    prev: u32,
    next: u32,
}

/// What waits for one user, in order of arrival.
#[derive(Debug, Serialize, Deserialize)]
struct Line {
    first: u32,
    last: u32,
    len: usize,
    bytes: usize,
}

impl Message {
    /// A copy: the bytes of a push are a slice of the whole request, which must not be kept for a minute.
    pub(super) fn copy(body: &PushBody, rules: PushRules, expires: Mono) -> Rc<Self> {
        let body = PushBody {
            operation_id: body.operation_id.as_str().into(),
            conversation: body.conversation.clone(),
            msg_data: Bytes::copy_from_slice(&body.msg_data),
            frames: None,
        };
        Rc::new(Self { body, rules, expires })
    }

    fn bytes(&self) -> usize {
        self.body.msg_data.len() + self.body.conversation.len() + self.body.operation_id.len()
    }
}

impl Held {
    pub(super) fn new() -> Self {
        Self { waits: Arena::new(HELD_MAX), lines: BTreeMap::new(), due: BTreeSet::new(), bytes: 0 }
    }

    /// Whether there is room for one more message for a user.
    pub(super) fn has_room(&self, user: &str, body: &PushBody) -> bool {
        let bytes = body.msg_data.len() + body.conversation.len() + body.operation_id.len();
        let (len, held) = self.lines.get(user).map_or((0, 0), |line| (line.len, line.bytes));
        self.waits.len() < HELD_MAX as usize
            && self.bytes + bytes <= HELD_BYTES
            && len < HELD_USER_MAX
            && held + bytes <= HELD_USER_BYTES
    }

    /// Puts a message at the end of a user's line; [`Held::has_room`] was asked.
    pub(super) fn put(&mut self, user: &str, message: Rc<Message>, verdict: VerdictRef) {
        let (bytes, expires) = (message.bytes(), message.expires);
        let user: Rc<str> =
            self.lines.get_key_value(user).map_or_else(|| user.into(), |(user, _)| user.clone());
        let last = self.lines.get(&user).map_or(NONE, |line| line.last);
        let wait = Wait { user: Rc::clone(&user), message, verdict, prev: last, next: NONE };
        let Ok(slot) = self.waits.insert(wait) else { return };
        if let Some(before) = self.waits.at_mut(last) {
            before.next = slot.index;
        }
        let line = self.lines.entry(user).or_insert(Line { first: slot.index, last: NONE, len: 0, bytes: 0 });
        line.last = slot.index;
        line.len += 1;
        line.bytes += bytes;
        self.bytes += bytes;
        self.due.insert((expires, slot));
    }

    fn remove(&mut self, slot: SlotId) -> Option<Wait> {
        let wait = self.waits.remove(slot)?;
        let bytes = wait.message.bytes();
        self.due.remove(&(wait.message.expires, slot));
        self.bytes -= bytes;
        if let Some(before) = self.waits.at_mut(wait.prev) {
            before.next = wait.next;
        }
        if let Some(after) = self.waits.at_mut(wait.next) {
            after.prev = wait.prev;
        }
        if let Some(line) = self.lines.get_mut(&wait.user) {
            line.len -= 1;
            line.bytes -= bytes;
            if wait.prev == NONE {
                line.first = wait.next;
            }
            if wait.next == NONE {
                line.last = wait.prev;
            }
            if line.len == 0 {
                self.lines.remove(&wait.user);
            }
        }
        Some(wait)
    }

    /// Takes the oldest message for a user.
    fn take(&mut self, user: &str) -> Option<Wait> {
        let slot = self.waits.id_at(self.lines.get(user)?.first)?;
        self.remove(slot)
    }

    /// Takes the message that is worthless first, if it is by `now`.
    fn take_due(&mut self, now: Mono) -> Option<Wait> {
        let (_, slot) = self.due.first().copied().filter(|(at, _)| *at <= now)?;
        self.remove(slot)
    }

    /// Forgets the recipients of a push. (A scan: rare, and bounded.)
    pub(super) fn drop_push(&mut self, push: SlotId) {
        let of_push = |(_, wait): &(SlotId, &Wait)| wait.verdict.push == push;
        let slots: Vec<SlotId> = self.waits.iter().filter(of_push).map(|(slot, _)| slot).collect();
        for slot in slots {
            self.remove(slot);
        }
    }

    pub(super) fn len(&self) -> usize {
        self.waits.len()
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Looks for a disagreement; see [`super::audit`].
    pub(super) fn audit(&self) -> Result<(), String> {
        let mut found = (0, 0);
        for (user, line) in &self.lines {
            let (mut at, mut prev, mut sum) = (line.first, NONE, (0, 0));
            while let Some(wait) = self.waits.at(at).filter(|_| sum.0 <= line.len) {
                if wait.prev != prev || wait.user != *user {
                    return Err(format!("the line of {user:?} is broken"));
                }
                sum = (sum.0 + 1, sum.1 + wait.message.bytes());
                (prev, at) = (at, wait.next);
            }
            if sum != (line.len, line.bytes) || prev != line.last || line.len == 0 {
                return Err(format!("{sum:?} wait for {user:?}, counted {line:?}"));
            }
            found = (found.0 + sum.0, found.1 + sum.1);
        }
        if found != (self.waits.len(), self.bytes) || self.due.len() != self.waits.len() {
            return Err(format!("{found:?} wait, counted {} and {} bytes", self.waits.len(), self.bytes));
        }
        Ok(())
    }
}

impl Hub {
    /// What waited for the user of a connection that was just registered.
    pub(super) fn deliver_held(&mut self, now: Now, conn: ConnId) {
        if self.held.len() == 0 {
            return;
        }
        let open = self.registry.session(conn).filter(|session| session.phase == Phase::Open);
        let Some(user) = open.and_then(|session| self.registry.user_of(session)) else {
            return;
        };
        let user = Box::<str>::from(user);
        while let Some(wait) = self.held.take(&user) {
            self.verdicts.let_go(wait.verdict);
            let looked = if wait.message.expires <= now.mono {
                Looked::Expired // its tick has not come yet
            } else {
                let mut frames = Default::default();
                let (body, rules) = (&wait.message.body, wait.message.rules);
                self.offer(now, conn, Some(wait.verdict), &mut Offer { body, rules, frames: &mut frames });
                Looked::HasDevices
            };
            self.verdicts.looked(&mut self.tally, wait.verdict, looked);
        }
        self.tell_urgent();
    }

    /// Lets a push wait for an absent user. `false`: too much waits, or nobody can come any more.
    pub(super) fn hold(&mut self, user: &str, message: impl FnOnce() -> Rc<Message>, of: Wanted<'_>) -> bool {
        if self.drain.is_some() {
            return false;
        }
        if !self.held.has_room(user, of.body) {
            self.tally.count(Metric::HeldRefused);
            return false;
        }
        self.verdicts.hold(of.verdict);
        self.held.put(user, message(), of.verdict);
        true
    }

    /// Messages that nobody came for in time.
    pub(super) fn expire_held(&mut self, now: Mono) {
        while let Some(wait) = self.held.take_due(now) {
            self.verdicts.let_go(wait.verdict);
            self.verdicts.looked(&mut self.tally, wait.verdict, Looked::Expired);
        }
        self.tell_urgent();
    }

    /// The node leaves: nobody will log in here any more.
    pub(super) fn give_up_held(&mut self) {
        while let Some(wait) = self.held.take_due(Mono(u64::MAX)) {
            self.verdicts.let_go(wait.verdict);
            self.verdicts.looked(&mut self.tally, wait.verdict, Looked::NotHere);
        }
        self.tell_urgent();
    }
}

/// A message that is to wait, and who wants to hear of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted<'a> {
    pub(super) body: &'a PushBody,
    pub(super) verdict: VerdictRef,
}
