//! The register, unregister and kick queues: at most one entry per connection in each, as a mark in the session says.
//!
//! Why they cannot freeze (incident 1): a queue is never longer than the slab, so putting an entry in never waits;
//! the shard that puts entries in is the one that takes them out, in bounded batches each turn, unregister first, then
//! kicks, then registers; and no step of taking one out waits for anything. An entry whose connection has died
//! meanwhile is skipped by whoever takes it out. The entries stand here rather than in the sessions, most of which
//! are in no queue; after a storm their memory is given back.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use crate::arena::Arena;
use crate::ids::ConnId;
use crate::session::{Session, Tick};

/// Which queue; the order is the order of draining.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Unregister,
    Kick,
    Register,
}

/// Entries that an empty queue keeps room for.
const KEPT_MAX: usize = 64;

/// One queue.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Queue {
    /// Oldest first, with when it was put in.
    entries: VecDeque<(ConnId, Tick)>,
    high_water: usize,
}

/// All three.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Queues {
    queues: [Queue; 3],
}

impl Queues {
    pub(super) fn new() -> Self {
        Self { queues: Default::default() }
    }

    /// Puts a connection in, unless it is in already.
    pub(super) fn push(&mut self, sessions: &mut Arena<Session>, kind: Kind, conn: ConnId, now: Tick) {
        let session = sessions.get_mut(conn.0);
        let Some(queued) = session.and_then(|s| s.queued.get_mut(kind as usize)).filter(|queued| !**queued)
        else {
            return;
        };
        *queued = true;
        let queue = self.queue_mut(kind);
        queue.entries.push_back((conn, now));
        queue.high_water = queue.high_water.max(queue.entries.len());
    }

    /// Takes the oldest connection out.
    pub(super) fn pop(&mut self, sessions: &mut Arena<Session>, kind: Kind) -> Option<ConnId> {
        let queue = self.queue_mut(kind);
        let (conn, _) = queue.entries.pop_front()?;
        if queue.entries.is_empty() {
            queue.entries.shrink_to(KEPT_MAX);
        }
        // A session is not freed before all queues have let go of it: its mark is there.
        if let Some(queued) = sessions.get_mut(conn.0).and_then(|s| s.queued.get_mut(kind as usize)) {
            *queued = false;
        }
        Some(conn)
    }

    pub(super) fn len(&self, kind: Kind) -> usize {
        self.queue(kind).entries.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queues.iter().all(|queue| queue.entries.is_empty())
    }

    pub(super) fn high_water(&self, kind: Kind) -> usize {
        self.queue(kind).high_water
    }

    /// Age of the oldest entry in milliseconds; 0 if there is none.
    pub(super) fn age_ms(&self, kind: Kind, now: Tick) -> u64 {
        self.queue(kind).entries.front().map_or(0, |(_, since)| now.since_ms(*since))
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
    session.queued.contains(&true)
}
