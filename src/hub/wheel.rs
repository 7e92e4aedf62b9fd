//! Coarse timers: one per session, in buckets linked through the slab. An idle connection owns no timer task and no
//! allocation; a frame that arrives does not touch the wheel (the session is looked at when its bucket comes up).

use serde::{Deserialize, Serialize};

use crate::arena::Arena;
use crate::ids::ConnId;
use crate::limits;
use crate::session::{NONE, Session, Tick, TimerLink};

/// Buckets of one tick each: a power of two above the longest deadline.
const BUCKETS_MAX: u32 = 512;
const _: () = assert!((limits::READ_DEADLINE_MS + limits::REST_MS) / limits::TICK_MS < BUCKETS_MAX as u64);

/// See the module's documentation. `cursor` is the first tick whose bucket was not emptied yet.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Wheel {
    heads: Vec<u32>,
    cursor: Tick,
}

impl Wheel {
    pub(super) fn new() -> Self {
        Self { heads: vec![NONE; BUCKETS_MAX as usize], cursor: Tick(0) }
    }

    /// (Re)arms a session's timer; a time in the past fires at the next tick.
    pub(super) fn arm(&mut self, sessions: &mut Arena<Session>, index: u32, at: Tick) {
        self.disarm(sessions, index);
        let at = Tick(at.0.clamp(self.cursor.0, self.cursor.0.saturating_add(BUCKETS_MAX - 1)));
        let Some(head) = self.heads.get_mut((at.0 % BUCKETS_MAX) as usize) else {
            return;
        };
        let next = *head;
        let Some(session) = sessions.at_mut(index) else {
            return;
        };
        session.timer = TimerLink { prev: NONE, next, at };
        *head = index;
        if let Some(neighbour) = sessions.at_mut(next) {
            neighbour.timer.prev = index;
        }
    }

    /// Takes a session's timer out of the wheel.
    pub(super) fn disarm(&mut self, sessions: &mut Arena<Session>, index: u32) {
        let Some(session) = sessions.at_mut(index) else {
            return;
        };
        if !session.timer.is_armed() {
            return;
        }
        let TimerLink { prev, next, at } = std::mem::replace(&mut session.timer, TimerLink::UNARMED);
        if let Some(neighbour) = sessions.at_mut(next) {
            neighbour.timer.prev = prev;
        }
        if let Some(neighbour) = sessions.at_mut(prev) {
            neighbour.timer.next = next;
        } else if let Some(head) = self.heads.get_mut((at.0 % BUCKETS_MAX) as usize) {
            *head = next;
        }
    }

    /// The first tick up to `latest` at which a timer may come; `None`: none does.
    pub(super) fn next_due(&self, latest: Tick) -> Option<Tick> {
        let armed =
            |tick: &u32| self.heads.get((tick % BUCKETS_MAX) as usize).is_some_and(|head| *head != NONE);
        (self.cursor.0..=latest.0).take(BUCKETS_MAX as usize).find(armed).map(Tick)
    }

    /// The next session whose timer has come, disarmed. Call until `None`.
    pub(super) fn pop_due(&mut self, sessions: &mut Arena<Session>, now: Tick) -> Option<ConnId> {
        // After a jump of the clock (suspend) one round over the buckets sees every timer.
        if now.0.saturating_sub(self.cursor.0) > BUCKETS_MAX {
            self.cursor = Tick(now.0 - BUCKETS_MAX);
        }
        while self.cursor <= now {
            let head = self.heads.get((self.cursor.0 % BUCKETS_MAX) as usize).copied().unwrap_or(NONE);
            if let Some(id) = sessions.id_at(head) {
                self.disarm(sessions, head);
                return Some(ConnId(id));
            }
            self.cursor = Tick(self.cursor.0 + 1);
        }
        None
    }
}
