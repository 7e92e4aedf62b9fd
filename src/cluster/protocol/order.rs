//! The order of one user's pushes at their entry node (routing-protocol.md section 14): while an earlier push goes to
//! all nodes, later ones wait, bounded in number and time. Past a bound they go, and a counter says so.

use std::collections::{BTreeMap, VecDeque};

use super::Node;
use super::io::Count;
use crate::ids::Text;
use crate::limits::{ORDER_WAIT_MS, ORDER_WAITING_MAX};
use crate::time::Mono;

/// Users with a push that goes to all nodes.
#[derive(Debug, Default)]
pub(super) struct Order {
    users: BTreeMap<Text, Held>,
    /// Recipients that wait.
    waiting: usize,
}

#[derive(Debug, Default)]
struct Held {
    /// Pushes that go to all nodes.
    slow: u32,
    /// Later pushes and since when they wait, in their order.
    waiting: VecDeque<(u64, Mono)>,
}

impl Order {
    pub(super) fn due(&self) -> Option<Mono> {
        let oldest = self.users.values().filter_map(|held| held.waiting.front());
        oldest.map(|(_, since)| since.plus_ms(ORDER_WAIT_MS)).min()
    }

    fn pop(&mut self, user: &Text) -> Option<u64> {
        let (push, _) = self.users.get_mut(user)?.waiting.pop_front()?;
        self.waiting -= 1;
        Some(push)
    }

    fn forget_if_idle(&mut self, user: &Text) {
        if self.users.get(user).is_some_and(|held| held.slow == 0 && held.waiting.is_empty()) {
            self.users.remove(user);
        }
    }
}

impl Node {
    /// Whether this push to `user` waits for an earlier one.
    pub(super) fn must_wait(&mut self, user: &Text, push: u64) -> bool {
        let Some(held) = self.order.users.get_mut(user) else { return false };
        if self.order.waiting >= ORDER_WAITING_MAX {
            self.count(Count::OutOfOrder);
            return false;
        }
        held.waiting.push_back((push, self.now.mono));
        self.order.waiting += 1;
        true
    }

    pub(super) fn enter_slow(&mut self, user: &Text) {
        self.order.users.entry(user.clone()).or_default().slow += 1;
    }

    /// A push to all nodes has ended: what waited goes on, until one goes to all nodes again.
    pub(super) fn leave_slow(&mut self, user: &Text) {
        if let Some(held) = self.order.users.get_mut(user) {
            held.slow = held.slow.saturating_sub(1);
        }
        while self.order.users.get(user).is_some_and(|held| held.slow == 0) {
            let Some(push) = self.order.pop(user) else { break };
            self.dispatch(push, vec![user.clone()]);
        }
        self.order.forget_if_idle(user);
    }

    /// Pushes that have waited for too long.
    pub(super) fn expire_order(&mut self) {
        let now = self.now.mono;
        let late = |held: &Held| {
            held.waiting.front().is_some_and(|(_, since)| now.since_ms(*since) >= ORDER_WAIT_MS)
        };
        let users: Vec<Text> =
            self.order.users.iter().filter(|(_, held)| late(held)).map(|(user, _)| user.clone()).collect();
        for user in users {
            while self.order.users.get(&user).is_some_and(late) {
                let Some(push) = self.order.pop(&user) else { break };
                self.count(Count::OutOfOrder);
                self.dispatch(push, vec![user.clone()]);
            }
        }
    }
}
