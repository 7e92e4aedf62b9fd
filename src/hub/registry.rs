//! Who is here: the slab of sessions and the table of users, each user's connections linked through the slab in
//! registration order. The user id is stored once.
//!
//! What always holds (checked by [`super::audit`]): a session is in exactly one user's list if and only if its `user`
//! is set; a user exists if and only if its list is not empty.

use ahash::RandomState;
use hashbrown::HashTable;
use serde::{Deserialize, Serialize};
use slab::Slab;

use crate::arena::Arena;
use crate::ids::{ConnId, SlotId};
use crate::session::{NONE, Session};
use crate::wire::envelope::Variant;

/// One user with at least one registered connection.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct User {
    pub(super) id: Box<str>,
    first: u32,
    last: u32,
}

/// See the module's documentation.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Registry {
    pub(super) sessions: Arena<Session>,
    users: Slab<User>,
    seed: u64,
    /// Positions in `users` by hash of the id: derived, so it is rebuilt rather than written out.
    #[serde(skip)]
    index: HashTable<u32>,
    /// Registered sessions by [`Variant::index`].
    registered: [usize; Variant::COUNT],
    /// Bytes waiting in all outboxes.
    pub(super) outbox_bytes: usize,
    /// Bytes of incomplete messages and of waiting requests.
    pub(super) inbound_bytes: usize,
}

impl Registry {
    pub(super) fn new(capacity: u32, seed: u64) -> Self {
        Self {
            sessions: Arena::new(capacity),
            users: Slab::new(),
            seed,
            index: HashTable::new(),
            registered: [0; Variant::COUNT],
            outbox_bytes: 0,
            inbound_bytes: 0,
        }
    }

    /// Rebuilds what is derived, after the state was read back.
    pub(super) fn rebuild(&mut self) {
        let hasher = self.hasher();
        self.index = HashTable::with_capacity(self.users.len());
        for (key, user) in &self.users {
            let hash = hasher.hash_one(&*user.id);
            self.index.insert_unique(hash, narrow(key), |_| hash);
        }
    }

    pub(super) fn session(&self, conn: ConnId) -> Option<&Session> {
        self.sessions.get(conn.0)
    }

    pub(super) fn session_mut(&mut self, conn: ConnId) -> Option<&mut Session> {
        self.sessions.get_mut(conn.0)
    }

    /// The id of the user that a session is registered under.
    pub(super) fn user_of(&self, session: &Session) -> Option<&str> {
        self.users.get(session.user as usize).map(|user| &*user.id)
    }

    pub(super) fn find(&self, user: &str) -> Option<u32> {
        let hash = self.hasher().hash_one(user);
        self.index.find(hash, |key| self.users.get(*key as usize).is_some_and(|u| &*u.id == user)).copied()
    }

    /// Connections of a user in registration order; none for an unknown user.
    pub(super) fn connections(&self, user: &str) -> Connections<'_> {
        let first = self.find(user).and_then(|key| self.users.get(key as usize)).map_or(NONE, |u| u.first);
        Connections { sessions: &self.sessions, next: first }
    }

    /// Adds a session at the end of its user's list.
    pub(super) fn link(&mut self, conn: ConnId, user: &str) {
        let key = self.find(user).unwrap_or_else(|| self.insert_user(user));
        let Some(entry) = self.users.get_mut(key as usize) else {
            return;
        };
        let last = entry.last;
        entry.last = conn.0.index;
        if last == NONE {
            entry.first = conn.0.index;
        } else if let Some(session) = self.sessions.at_mut(last) {
            session.user_next = conn.0.index;
        }
        if let Some(session) = self.sessions.get_mut(conn.0) {
            assert!(!session.is_registered(), "a session is registered twice (spec 8.6 a)");
            session.user = key;
            session.user_prev = last;
            session.user_next = NONE;
            if let Some(count) = self.registered.get_mut(session.variant.index()) {
                *count += 1;
            }
        }
    }

    /// Takes a session out of its user's list. Returns the user's id, or `None` if it was in no list.
    pub(super) fn unlink(&mut self, conn: ConnId) -> Option<Box<str>> {
        let session = self.sessions.get_mut(conn.0).filter(|s| s.is_registered())?;
        let (key, prev, next) = (session.user, session.user_prev, session.user_next);
        (session.user, session.user_prev, session.user_next) = (NONE, NONE, NONE);
        if let Some(count) = self.registered.get_mut(session.variant.index()) {
            *count -= 1;
        }
        if let Some(before) = self.sessions.at_mut(prev) {
            before.user_next = next;
        }
        if let Some(after) = self.sessions.at_mut(next) {
            after.user_prev = prev;
        }
        let user = self.users.get_mut(key as usize)?;
        if prev == NONE {
            user.first = next;
        }
        if next == NONE {
            user.last = prev;
        }
        let (id, gone) = (user.id.clone(), user.first == NONE);
        if gone {
            self.remove_user(key, &id);
        }
        Some(id)
    }

    /// Looks for a disagreement between the users, their index and the lists through the slab; see [`super::audit`].
    pub(super) fn audit(&self) -> Result<(), String> {
        let (mut linked, registered) = (0, self.registered());
        for (key, user) in &self.users {
            let fail = |what: &str| Err(format!("user {:?}: {what}", user.id));
            if self.find(&user.id) != Some(narrow(key)) {
                return fail("not found by its id");
            }
            let (mut prev, mut at) = (NONE, user.first);
            while let Some(session) = self.sessions.at(at) {
                linked += 1;
                if session.user != narrow(key) || session.user_prev != prev || linked > registered {
                    return fail("its list is broken");
                }
                (prev, at) = (at, session.user_next);
            }
            if prev == NONE {
                return fail("has no connection");
            }
            if user.last != prev {
                return fail("its list ends elsewhere");
            }
        }
        if (self.index.len(), linked) != (self.users.len(), registered) {
            let (indexed, users) = (self.index.len(), self.users.len());
            return Err(format!("{indexed} of {users} users are indexed, {linked} of {registered} linked"));
        }
        Ok(())
    }

    pub(super) fn registered(&self) -> usize {
        self.registered.iter().sum()
    }

    /// Those of one variant.
    pub(super) fn registered_as(&self, variant: Variant) -> usize {
        self.registered.get(variant.index()).copied().unwrap_or_default()
    }

    pub(super) fn users(&self) -> usize {
        self.users.len()
    }

    fn insert_user(&mut self, id: &str) -> u32 {
        let key = narrow(self.users.insert(User { id: id.into(), first: NONE, last: NONE }));
        let (hasher, users) = (self.hasher(), &self.users);
        let rehash = |key: &u32| users.get(*key as usize).map_or(0, |user| hasher.hash_one(&*user.id));
        self.index.insert_unique(hasher.hash_one(id), key, rehash);
        key
    }

    fn remove_user(&mut self, key: u32, id: &str) {
        let hash = self.hasher().hash_one(id);
        if let Ok(entry) = self.index.find_entry(hash, |other| *other == key) {
            entry.remove();
        }
        self.users.try_remove(key as usize);
    }

    fn hasher(&self) -> RandomState {
        RandomState::with_seeds(self.seed, !self.seed, 0x7573_6572, 0x7461_626c)
    }
}

/// Slab keys are bounded by the arena's `u32` capacity.
fn narrow(key: usize) -> u32 {
    u32::try_from(key).unwrap_or(NONE)
}

/// Walks the connections of one user.
pub(super) struct Connections<'a> {
    sessions: &'a Arena<Session>,
    next: u32,
}

impl<'a> Iterator for Connections<'a> {
    type Item = (ConnId, &'a Session);

    fn next(&mut self) -> Option<Self::Item> {
        let id: SlotId = self.sessions.id_at(self.next)?;
        let session = self.sessions.at(self.next)?;
        self.next = session.user_next;
        Some((ConnId(id), session))
    }
}
