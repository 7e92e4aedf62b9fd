//! Which users' presence must be told upstream: a dirty set, not a queue of events (spec 9.1, field-notes.md S8).
//!
//! A user is in it at most once however often he comes and goes; the record is computed when there is room to send
//! it, so it says what is true then. `offline` collects the platforms that left since the last record.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};

/// Users that may be dirty per place in the slab; beyond it (upstream hangs while users churn) the oldest record is
/// forgotten and counted.
const DIRTY_PER_CONNECTION_MAX: usize = 4;

/// See the module's documentation.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Presence {
    order: VecDeque<Box<str>>,
    offline: BTreeMap<Box<str>, Vec<i32>>,
    capacity: usize,
    pub(super) forgotten: u64,
}

impl Presence {
    pub(super) fn new(connections_max: u32) -> Self {
        let capacity = (connections_max as usize).saturating_mul(DIRTY_PER_CONNECTION_MAX);
        Self { order: VecDeque::new(), offline: BTreeMap::new(), capacity, forgotten: 0 }
    }

    /// A connection came (`left` = `None`) or left.
    pub(super) fn mark(&mut self, user: &str, left: Option<i32>) {
        if !self.offline.contains_key(user) {
            if self.order.len() >= self.capacity
                && let Some(oldest) = self.order.pop_front()
            {
                self.offline.remove(&oldest);
                self.forgotten += 1;
            }
            self.order.push_back(user.into());
            self.offline.insert(user.into(), Vec::new());
        }
        if let (Some(platform), Some(offline)) = (left, self.offline.get_mut(user))
            && !offline.contains(&platform)
        {
            offline.push(platform);
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    /// The user that has been dirty for longest, and which platforms left.
    pub(super) fn pop(&mut self) -> Option<(Box<str>, Vec<i32>)> {
        let user = self.order.pop_front()?;
        let offline = self.offline.remove(&user).unwrap_or_default();
        Some((user, offline))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_dirty_once_and_keeps_what_left() {
        let mut presence = Presence::new(10);
        presence.mark("u1", None);
        presence.mark("u1", Some(5));
        presence.mark("u2", None);
        presence.mark("u1", Some(5));
        assert_eq!(presence.pop(), Some(("u1".into(), vec![5])));
        assert_eq!(presence.pop(), Some(("u2".into(), vec![])));
        assert_eq!(presence.pop(), None);
    }

    #[test]
    fn the_set_is_bounded_and_counts_what_it_forgets() {
        let mut presence = Presence::new(1);
        (0..6).for_each(|n| presence.mark(&format!("u{n}"), None));
        assert_eq!(presence.forgotten, 2);
        assert_eq!(presence.pop().map(|(user, _)| user).as_deref(), Some("u2"));
    }
}
