//! `pinion trace`: the events of a few users, noted for a bounded time so that an operator can read them.
//!
//! Not here: the running hash that replays are compared by (`trace.rs`); nothing noted here enters it, and no decision
//! depends on it. What always holds: while nobody is followed a note costs one comparison; at most `TRACES_MAX` users
//! are followed, with at most `TRACE_EVENTS_MAX` events each, and all of it is gone `TRACE_GRACE_MS` after its time is
//! up. Events carry no bodies and no tokens.

use std::collections::{BTreeSet, VecDeque};
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::mail::DeviceOutcome;
use crate::ids::{ConnId, Platform};
use crate::limits::{TRACE_EVENTS_MAX, TRACE_GRACE_MS, TRACE_PAGE_MAX, TRACE_TEXT_BYTES, TRACES_MAX};
use crate::time::{Mono, Now, UnixMs};

/// One thing that happened to a user.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// When.
    pub at: UnixMs,
    /// The connection as [`ConnId`] writes itself; `None`: it concerns the user as a whole.
    pub connection: Option<Box<str>>,
    /// What.
    #[serde(flatten)]
    pub what: What,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum What {
    /// A login with good arguments reached the owner shard; its token is being checked.
    Login {
        /// Where from; behind a believed proxy the client (port 0: not known).
        peer: SocketAddr,
        /// On which platform.
        platform: Platform,
    },
    /// The token check refused it.
    Refused {
        /// `errCode`.
        code: i32,
        /// `errMsg`.
        message: Box<str>,
    },
    /// Registered; the 101 is queued.
    Online,
    /// A request of the client.
    Request {
        /// `reqIdentifier`.
        id: i32,
        /// As the client sent it, cut.
        operation_id: Box<str>,
        /// Of its data.
        bytes: usize,
    },
    /// The answer to a request was queued.
    Answer {
        /// `reqIdentifier`.
        id: i32,
        /// As the client sent it, cut.
        operation_id: Box<str>,
        /// `errCode`; 0 = good.
        code: i32,
    },
    /// A push for this connection.
    Push {
        /// Of the push call, cut.
        operation_id: Box<str>,
        /// What became of it.
        outcome: DeviceOutcome,
        /// Of the message.
        bytes: usize,
    },
    /// A push found no connection of the user.
    PushNotHere {
        /// Of the push call, cut.
        operation_id: Box<str>,
    },
    /// It was decided that the connection must leave; the kick frame follows.
    Kicked,
    /// The session is over.
    Over {
        /// Label of the reason (see `session::disconnect`).
        reason: Box<str>,
    },
    /// The socket is closed.
    Closed,
}

/// Cuts a text that a peer chose, at a character's end.
pub(super) fn cut(text: &str) -> Box<str> {
    let end = (0..=TRACE_TEXT_BYTES.min(text.len())).rev().find(|at| text.is_char_boundary(*at));
    text.get(..end.unwrap_or_default()).unwrap_or_default().into()
}

/// Events from a cursor on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Page {
    /// In order.
    pub events: Vec<Event>,
    /// The cursor to ask with next.
    pub next: u64,
    /// Events between the cursor and the first one here that were lost, because more came than are kept.
    pub missed: u64,
    /// Until when events are noted; 0: the time is up, and nothing follows what is here.
    pub left_ms: u64,
}

/// No more users can be followed now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TooMany;

#[derive(Debug, Serialize, Deserialize)]
struct Followed {
    user: Box<str>,
    until: Mono,
    /// Its connections: at a kick a session leaves the user's list, but its story goes on.
    connections: BTreeSet<ConnId>,
    /// Number of the oldest event that is kept.
    first: u64,
    events: VecDeque<Event>,
}

/// See the module's documentation.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Follow {
    users: Vec<Followed>,
}

impl Follow {
    /// Follows a user, or goes on following until `until` if that is later. Gives the cursor of what comes next.
    pub(super) fn start(
        &mut self,
        now: Mono,
        user: &str,
        until: Mono,
        connections: impl Iterator<Item = ConnId>,
    ) -> Result<u64, TooMany> {
        self.expire(now);
        if let Some(followed) = self.users.iter_mut().find(|f| *f.user == *user) {
            followed.until = followed.until.max(until);
            followed.connections.extend(connections);
            return Ok(followed.end());
        }
        if self.users.len() >= TRACES_MAX {
            return Err(TooMany);
        }
        self.users.push(Followed {
            user: user.into(),
            until,
            connections: connections.collect(),
            first: 0,
            events: VecDeque::new(),
        });
        Ok(0)
    }

    /// What was noted from a cursor on. `None`: the user is not followed.
    pub(super) fn page(&self, now: Mono, user: &str, cursor: u64) -> Option<Page> {
        let followed = self.users.iter().find(|f| *f.user == *user)?;
        let from = cursor.clamp(followed.first, followed.end());
        let skip = usize::try_from(from - followed.first).unwrap_or(usize::MAX);
        let events: Vec<Event> = followed.events.iter().skip(skip).take(TRACE_PAGE_MAX).cloned().collect();
        let next = from + events.len() as u64;
        // Until all is read there is more to come, whatever the clock says.
        let left_ms = followed.until.since_ms(now).max(u64::from(next < followed.end()));
        Some(Page { events, next, missed: from.saturating_sub(cursor), left_ms })
    }

    /// A connection of this user begins.
    pub(super) fn begins(&mut self, user: &str, conn: ConnId) {
        if let Some(followed) = self.users.iter_mut().find(|f| *f.user == *user) {
            followed.connections.insert(conn);
        }
    }

    /// A connection is no more.
    pub(super) fn ends(&mut self, conn: ConnId) {
        for followed in &mut self.users {
            followed.connections.remove(&conn);
        }
    }

    /// Notes what happened to a connection, if its user is followed.
    pub(super) fn note(&mut self, now: Now, conn: ConnId, what: impl FnOnce() -> What) {
        if self.users.is_empty() {
            return;
        }
        if let Some(followed) = self.users.iter_mut().find(|f| f.connections.contains(&conn)) {
            followed.add(now, Some(conn), what);
        }
    }

    /// Notes what happened to a user as a whole.
    pub(super) fn note_user(&mut self, now: Now, user: &str, what: impl FnOnce() -> What) {
        if let Some(followed) = self.users.iter_mut().find(|f| *f.user == *user) {
            followed.add(now, None, what);
        }
    }

    /// Forgets users whose time was up a while ago.
    pub(super) fn expire(&mut self, now: Mono) {
        self.users.retain(|f| f.until.plus_ms(TRACE_GRACE_MS) > now);
    }
}

impl Followed {
    fn end(&self) -> u64 {
        self.first + self.events.len() as u64
    }

    fn add(&mut self, now: Now, conn: Option<ConnId>, what: impl FnOnce() -> What) {
        if self.until <= now.mono {
            return;
        }
        if self.events.len() >= TRACE_EVENTS_MAX {
            self.events.pop_front();
            self.first += 1;
        }
        let connection = conn.map(|conn| conn.to_string().into());
        self.events.push_back(Event { at: now.unix, connection, what: what() });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::SlotId;

    fn conn(index: u32) -> ConnId {
        ConnId(SlotId { index, generation: 1 })
    }

    fn at(ms: u64) -> Now {
        Now { mono: Mono(ms), unix: UnixMs(5) }
    }

    #[test]
    fn only_connections_of_a_followed_user_are_noted_and_only_in_its_time() {
        let mut follow = Follow::default();
        follow.note(at(0), conn(1), || panic!("nobody is followed"));
        assert_eq!(follow.start(Mono(0), "a", Mono(100), [conn(1)].into_iter()), Ok(0));
        follow.begins("a", conn(2));
        follow.begins("b", conn(3));
        for n in 1..=3 {
            follow.note(at(10), conn(n), || What::Online);
        }
        follow.ends(conn(1));
        follow.note(at(20), conn(1), || What::Closed);
        follow.note(at(100), conn(2), || What::Closed);
        let page = follow.page(Mono(30), "a", 0).unwrap();
        let connections: Vec<_> = page.events.iter().map(|e| e.connection.as_deref().unwrap()).collect();
        assert_eq!((connections, page.next, page.missed, page.left_ms), (vec!["1.1", "2.1"], 2, 0, 70));
        assert_eq!(follow.page(Mono(30), "b", 0), None);
    }

    #[test]
    fn the_ring_is_bounded_and_says_what_it_lost() {
        let mut follow = Follow::default();
        follow.start(Mono(0), "a", Mono(100), std::iter::once(conn(1))).unwrap();
        for _ in 0..TRACE_EVENTS_MAX + 7 {
            follow.note(at(1), conn(1), || What::Online);
        }
        let page = follow.page(Mono(1), "a", 3).unwrap();
        assert_eq!(
            (page.events.len(), page.missed, page.next),
            (TRACE_PAGE_MAX, 4, 7 + TRACE_PAGE_MAX as u64)
        );
        let mut cursor = 0;
        loop {
            let page = follow.page(Mono(200), "a", cursor).unwrap();
            cursor = page.next;
            if page.left_ms == 0 {
                break;
            }
        }
        assert_eq!(
            cursor,
            TRACE_EVENTS_MAX as u64 + 7,
            "all that is kept is read before it says that it is over"
        );
        assert_eq!(follow.page(Mono(1), "a", u64::MAX).unwrap().next, cursor, "a cursor from nowhere");
    }

    #[test]
    fn users_beyond_the_limit_are_refused_until_one_expires() {
        let mut follow = Follow::default();
        for n in 0..TRACES_MAX {
            follow.start(Mono(0), &n.to_string(), Mono(100), std::iter::empty()).unwrap();
        }
        assert_eq!(follow.start(Mono(1), "late", Mono(9), std::iter::empty()), Err(TooMany));
        assert_eq!(follow.start(Mono(1), "0", Mono(9_000), std::iter::empty()), Ok(0), "already followed");
        follow.expire(Mono(100 + TRACE_GRACE_MS));
        assert!(follow.page(Mono(0), "1", 0).is_none() && follow.page(Mono(0), "0", 0).is_some());
        assert_eq!(follow.start(Mono(101), "late", Mono(999), std::iter::empty()), Ok(0));
    }

    #[test]
    fn texts_of_peers_are_cut_at_a_character() {
        assert_eq!(&*cut("short"), "short");
        let long = cut(&"ü".repeat(TRACE_TEXT_BYTES));
        assert!(long.len() <= TRACE_TEXT_BYTES && long.chars().all(|c| c == 'ü') && long.len() > 60);
    }
}
