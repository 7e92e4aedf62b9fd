//! What a thread asks of servers beside its connections: pushes over gRPC, posts over HTTP/1.1. One kept connection per
//! thread and address; what became of a call is noted for the thread's loop.
//!
//! Not here: deadlines. A call that is not answered in time is an error of the operation that made it.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::rc::Rc;

use bytes::Bytes;
use pinion::shard::nudge::Nudge;

use crate::{post, push};

/// Posts that wait at most; what is more is refused.
pub const POSTS_WAITING_MAX: usize = 65_536;

/// Who waits for a call: a connection of the thread, and its operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caller {
    pub connection: usize,
    pub operation: u32,
}

/// What became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// gRPC's or HTTP's status, and the answer.
    Answered { status: i32, good: bool, body: Bytes },
    /// No connection, or it broke.
    Lost(String),
}

/// Outcomes on their way to the loop.
#[derive(Clone, Default)]
pub struct Outcomes {
    list: Rc<RefCell<Vec<(Caller, Outcome)>>>,
    nudge: Nudge,
}

impl Outcomes {
    pub fn say(&self, caller: Caller, outcome: Outcome) {
        self.list.borrow_mut().push((caller, outcome));
        self.nudge.ring();
    }

    pub fn take(&self) -> Vec<(Caller, Outcome)> {
        std::mem::take(&mut *self.list.borrow_mut())
    }
}

/// A thread's callers.
pub struct Calls {
    outcomes: Outcomes,
    push: Option<push::Pusher>,
    posts: BTreeMap<SocketAddr, post::Poster>,
}

impl Calls {
    /// Nothing is connected until it is needed. `push`: a gateway's gRPC port and its token.
    pub fn new(push: Option<(SocketAddr, Option<String>)>, nudge: Nudge) -> Self {
        let outcomes = Outcomes { nudge, ..Outcomes::default() };
        let push = push.map(|(address, token)| push::Pusher::new(address, token, outcomes.clone()));
        Self { outcomes, push, posts: BTreeMap::new() }
    }

    /// What has been answered since the last time.
    pub fn take(&self) -> Vec<(Caller, Outcome)> {
        self.outcomes.take()
    }

    /// Pushes. `false`: no address for pushes was given.
    pub fn push(&self, caller: Caller, message: &[u8]) -> bool {
        match &self.push {
            Some(push) => {
                push.call(caller, message);
                true
            }
            None => false,
        }
    }

    pub fn post(&mut self, caller: Caller, address: SocketAddr, path: &str, body: &[u8]) {
        let outcomes = &self.outcomes;
        let poster =
            self.posts.entry(address).or_insert_with(|| post::Poster::new(address, outcomes.clone()));
        if !poster.post(caller, path, body) {
            outcomes.say(caller, Outcome::Lost(format!("{POSTS_WAITING_MAX} posts wait already")));
        }
    }
}
