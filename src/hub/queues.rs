//! The register, unregister and kick queues: linked through the slab, at most one entry per connection in each.
//!
//! Why they cannot freeze (incident 1): an entry costs no memory that could run out, so putting one in never waits;
//! the shard that puts entries in is the one that takes them out, in bounded batches each turn, unregister first, then
//! kicks, then registers; and no step of taking one out waits for anything. An entry whose connection has died
//! meanwhile is skipped by whoever takes it out.

use serde::{Deserialize, Serialize};

use crate::arena::Arena;
use crate::ids::ConnId;
use crate::session::{NONE, Session, Tick};

/// Which queue; the order is the order of draining.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Unregister,
    Kick,
    Register,
}

/// One queue.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Queue {
    head: u32,
    tail: u32,
    len: usize,
    high_water: usize,
}

/// All three.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Queues {
    queues: [Queue; 3],
}

impl Queues {
    pub(super) fn new() -> Self {
        let empty = || Queue { head: NONE, tail: NONE, len: 0, high_water: 0 };
        Self { queues: [empty(), empty(), empty()] }
    }

    /// Puts a connection in, unless it is in already.
    pub(super) fn push(&mut self, sessions: &mut Arena<Session>, kind: Kind, conn: ConnId, now: Tick) {
        let (slot, queue) = (kind as usize, self.queue_mut(kind));
        let Some(link) = sessions.get_mut(conn.0).and_then(|s| s.queues.get_mut(slot)) else {
            return;
        };
        if link.queued {
            return;
        }
        *link = crate::session::QueueLink { next: NONE, since: now, queued: true };
        let tail = queue.tail;
        queue.tail = conn.0.index;
        if tail == NONE {
            queue.head = conn.0.index;
        } else if let Some(link) = sessions.at_mut(tail).and_then(|s| s.queues.get_mut(slot)) {
            link.next = conn.0.index;
        }
        queue.len += 1;
        queue.high_water = queue.high_water.max(queue.len);
    }

    /// Takes the oldest connection out.
    pub(super) fn pop(&mut self, sessions: &mut Arena<Session>, kind: Kind) -> Option<ConnId> {
        let (slot, queue) = (kind as usize, self.queue_mut(kind));
        let id = sessions.id_at(queue.head)?;
        let link = sessions.get_mut(id)?.queues.get_mut(slot)?;
        link.queued = false;
        queue.head = link.next;
        link.next = NONE;
        if queue.head == NONE {
            queue.tail = NONE;
        }
        queue.len -= 1;
        Some(ConnId(id))
    }

    pub(super) fn len(&self, kind: Kind) -> usize {
        self.queue(kind).len
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queues.iter().all(|queue| queue.len == 0)
    }

    pub(super) fn high_water(&self, kind: Kind) -> usize {
        self.queue(kind).high_water
    }

    /// Age of the oldest entry in milliseconds; 0 if there is none.
    pub(super) fn age_ms(&self, sessions: &Arena<Session>, kind: Kind, now: Tick) -> u64 {
        let head = sessions.at(self.queue(kind).head);
        head.and_then(|s| s.queues.get(kind as usize)).map_or(0, |link| now.since_ms(link.since))
    }

    fn queue(&self, kind: Kind) -> &Queue {
        let [unregister, kick, register] = &self.queues;
        match kind {
            Kind::Unregister => unregister,
            Kind::Kick => kick,
            Kind::Register => register,
        }
    }

    fn queue_mut(&mut self, kind: Kind) -> &mut Queue {
        let [unregister, kick, register] = &mut self.queues;
        match kind {
            Kind::Unregister => unregister,
            Kind::Kick => kick,
            Kind::Register => register,
        }
    }
}

/// Whether any queue holds the session.
pub(super) fn is_queued(session: &Session) -> bool {
    session.queues.iter().any(|link| link.queued)
}
