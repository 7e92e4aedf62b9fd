//! Which users' presence must be told upstream: a dirty set, not a queue of events (spec 9.1, field-notes.md S8).
//!
//! A user is in it at most once however often he comes and goes; the record is computed when there is room to send
//! it, so it says what is true then. What cannot be seen then is collected: which platforms left since the last record,
//! where the newest login of each was, and for webhooks the connections that left or were kicked.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};

use super::upstream::{ConnectionMark, ConnectionNews, LoginPlace, PresenceRecord};
use crate::limits::KICKS_PER_RECORD_MAX;
use crate::session::Session;

/// Users that may be dirty per place in the slab; beyond it (upstream hangs while users churn) the oldest record is
/// forgotten and counted.
const DIRTY_PER_CONNECTION_MAX: usize = 4;

/// See the module's documentation.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Presence {
    order: VecDeque<Box<str>>,
    dirty: BTreeMap<Box<str>, Dirty>,
    capacity: usize,
    pub(super) forgotten: u64,
    /// Kicks of which no webhook will tell.
    pub(super) kicks_forgotten: u64,
}

/// What has happened to a user since his last record. Each list has a platform at most once.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Dirty {
    offline: Vec<i32>,
    logins: Vec<(i32, LoginPlace)>,
    connections: Option<Box<ConnectionNews>>,
}

impl Presence {
    pub(super) fn new(connections_max: u32) -> Self {
        let capacity = (connections_max as usize).saturating_mul(DIRTY_PER_CONNECTION_MAX);
        Self { order: VecDeque::new(), dirty: BTreeMap::new(), capacity, forgotten: 0, kicks_forgotten: 0 }
    }

    /// A connection was registered.
    pub(super) fn came(&mut self, user: &str, platform: i32) {
        self.login(user, (platform, LoginPlace::Here));
    }

    /// Another gateway says that he has logged in there.
    pub(super) fn elsewhere(&mut self, user: &str, platform: i32) {
        self.login(user, (platform, LoginPlace::Elsewhere));
    }

    /// A connection left. `mark`: webhooks want to know which.
    pub(super) fn left(&mut self, user: &str, platform: i32, mark: Option<ConnectionMark>) {
        let dirty = self.dirty(user);
        if !dirty.offline.contains(&platform) {
            dirty.offline.push(platform);
        }
        if let Some(mark) = mark {
            let left = &mut dirty.connections.get_or_insert_default().left;
            left.retain(|before| before.platform != platform);
            left.push(mark);
        }
    }

    /// A connection was kicked, and webhooks want to know.
    pub(super) fn kicked(&mut self, user: &str, platform: i32) {
        let kicked = &mut self.dirty(user).connections.get_or_insert_default().kicked;
        if kicked.len() < KICKS_PER_RECORD_MAX {
            kicked.push(platform);
        } else {
            self.kicks_forgotten += 1;
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    /// The record of the user that has been dirty for longest, without the connections that there are.
    pub(super) fn pop(&mut self) -> Option<PresenceRecord> {
        let user = self.order.pop_front()?;
        let Dirty { offline, logins, connections } = self.dirty.remove(&user).unwrap_or_default();
        Some(PresenceRecord { user, online: Vec::new(), offline, logins, connections })
    }

    fn login(&mut self, user: &str, (platform, place): (i32, LoginPlace)) {
        let logins = &mut self.dirty(user).logins;
        match logins.iter_mut().find(|(other, _)| *other == platform) {
            Some((_, newest)) => *newest = place,
            None => logins.push((platform, place)),
        }
    }

    fn dirty(&mut self, user: &str) -> &mut Dirty {
        if !self.dirty.contains_key(user) {
            if self.order.len() >= self.capacity
                && let Some(oldest) = self.order.pop_front()
            {
                self.dirty.remove(&oldest);
                self.forgotten += 1;
            }
            self.order.push_back(user.into());
        }
        self.dirty.entry(user.into()).or_default()
    }
}

/// What webhooks say of a connection.
pub(super) fn mark(session: &Session) -> ConnectionMark {
    let (platform, background) = (session.platform.id(), session.background);
    ConnectionMark { platform, connection_id: session.connection_id_hex(), background }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_dirty_once_and_keeps_what_left() {
        let mut presence = Presence::new(10);
        presence.came("u1", 5);
        presence.left("u1", 5, None);
        presence.came("u2", 1);
        presence.left("u1", 5, None);
        let first = presence.pop().unwrap();
        assert_eq!((&*first.user, first.offline, first.connections), ("u1", vec![5], None));
        assert_eq!(presence.pop().map(|record| (record.user, record.offline)), Some(("u2".into(), vec![])));
        assert_eq!(presence.pop(), None);
    }

    #[test]
    fn of_each_platform_the_newest_login_counts() {
        let mut presence = Presence::new(10);
        presence.came("u", 5);
        presence.elsewhere("u", 5);
        presence.elsewhere("u", 1);
        presence.came("u", 1);
        let logins = presence.pop().map(|record| record.logins);
        assert_eq!(logins, Some(vec![(5, LoginPlace::Elsewhere), (1, LoginPlace::Here)]));
    }

    #[test]
    fn of_each_platform_the_newest_connection_that_left_is_named_and_kicks_are_bounded() {
        let mark =
            |platform, id: &str| ConnectionMark { platform, connection_id: id.into(), background: false };
        let mut presence = Presence::new(10);
        presence.left("u", 5, Some(mark(5, "old")));
        presence.left("u", 1, Some(mark(1, "other")));
        presence.left("u", 5, Some(mark(5, "new")));
        (0..=KICKS_PER_RECORD_MAX).for_each(|_| presence.kicked("u", 5));
        let news = presence.pop().and_then(|record| record.connections).unwrap();
        assert_eq!(news.left, [mark(1, "other"), mark(5, "new")]);
        assert_eq!((news.kicked.len(), presence.kicks_forgotten), (KICKS_PER_RECORD_MAX, 1));
    }

    #[test]
    fn the_set_is_bounded_and_counts_what_it_forgets() {
        let mut presence = Presence::new(1);
        (0..6).for_each(|n| presence.came(&format!("u{n}"), 1));
        assert_eq!(presence.forgotten, 2);
        assert_eq!(presence.pop().map(|record| record.user).as_deref(), Some("u2"));
    }
}
