//! Who is here: the slab of sessions and the table of users, each user's connections linked through the slab in
//! registration order. The user id is stored once.
//!
//! What always holds (checked by [`super::audit`]): a session is in exactly one user's list if and only if its `user`
//! is set; a user exists if and only if its list is not empty.

use ahash::RandomState;
use hashbrown::HashTable;
use serde::{Deserialize, Serialize};

use crate::arena::Arena;
use crate::ids::{ConnId, SlotId};
use crate::session::{NONE, Phase, Session};
use crate::wire::envelope::Variant;

/// One user with at least one registered connection.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct User {
    pub(super) id: Box<str>,
    /// The connection that was registered first.
    pub(super) first: u32,
    last: u32,
    /// Connections in the list.
    pub(super) connections: u32,
    /// Counts the users that came before: a push to everybody that is served over many turns knows by it who came
    /// after the push, or came back.
    pub(super) number: u64,
}

/// See the module's documentation.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Registry {
    pub(super) sessions: Arena<Session>,
    users: Arena<User>,
    /// How many users ever came.
    came: u64,
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
            users: Arena::new(capacity),
            came: 0,
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
        for (key, user) in self.users.iter() {
            let hash = hasher.hash_one(&*user.id);
            self.index.insert_unique(hash, key.index, |_| hash);
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
        self.users.at(session.user).map(|user| &*user.id)
    }

    pub(super) fn find(&self, user: &str) -> Option<u32> {
        let hash = self.hasher().hash_one(user);
        self.index.find(hash, |key| self.users.at(*key).is_some_and(|u| &*u.id == user)).copied()
    }

    /// Connections of a user in registration order; none for an unknown user.
    pub(super) fn connections(&self, user: &str) -> Connections<'_> {
        let first = self.user(user).map_or(NONE, |u| u.first);
        Connections { sessions: &self.sessions, next: first }
    }

    /// A user with a registered connection.
    pub(super) fn user(&self, id: &str) -> Option<&User> {
        self.users.at(self.find(id)?)
    }

    /// The user at a position of the table; see [`Registry::user_positions`].
    pub(super) fn user_at(&self, position: u32) -> Option<&User> {
        self.users.at(position)
    }

    /// Where a walk over all users ends. It is in the order of the table, which a hub that was read back keeps.
    pub(super) fn user_positions(&self) -> u32 {
        self.users.positions()
    }

    /// How many users ever came: those with a smaller number were here before now.
    pub(super) fn came(&self) -> u64 {
        self.came
    }

    /// The first connection from `index` on, in the list of a user, that is alive.
    pub(super) fn next_open(&self, mut index: u32) -> Option<ConnId> {
        loop {
            let session = self.sessions.at(index)?;
            if session.phase == Phase::Open {
                return self.sessions.id_at(index).map(ConnId);
            }
            index = session.user_next;
        }
    }

    /// Adds a session at the end of its user's list.
    pub(super) fn link(&mut self, conn: ConnId, user: &str) {
        let Some(key) = self.find(user).or_else(|| self.insert_user(user)) else {
            return;
        };
        let Some(entry) = self.users.at_mut(key) else {
            return;
        };
        let last = entry.last;
        entry.last = conn.0.index;
        entry.connections += 1;
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
        let user = self.users.at_mut(key)?;
        user.connections -= 1;
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
        for (key, user) in self.users.iter() {
            let fail = |what: &str| Err(format!("user {:?}: {what}", user.id));
            let before = linked;
            if self.find(&user.id) != Some(key.index) {
                return fail("not found by its id");
            }
            let (mut prev, mut at) = (NONE, user.first);
            while let Some(session) = self.sessions.at(at) {
                linked += 1;
                if session.user != key.index || session.user_prev != prev || linked > registered {
                    return fail("its list is broken");
                }
                (prev, at) = (at, session.user_next);
            }
            if prev == NONE {
                return fail("has no connection");
            }
            if linked - before != user.connections as usize {
                return fail("counts other connections than it has");
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

    /// `None`: there are as many users as there may be connections, which the caller's connection prevents.
    fn insert_user(&mut self, id: &str) -> Option<u32> {
        let user = User { id: id.into(), first: NONE, last: NONE, connections: 0, number: self.came };
        let key = self.users.insert(user).ok()?.index;
        self.came += 1;
        let (hasher, users) = (self.hasher(), &self.users);
        let rehash = |key: &u32| users.at(*key).map_or(0, |user| hasher.hash_one(&*user.id));
        self.index.insert_unique(hasher.hash_one(id), key, rehash);
        Some(key)
    }

    fn remove_user(&mut self, key: u32, id: &str) {
        let hash = self.hasher().hash_one(id);
        if let Ok(entry) = self.index.find_entry(hash, |other| *other == key) {
            entry.remove();
        }
        if let Some(slot) = self.users.id_at(key) {
            self.users.remove(slot);
        }
    }

    fn hasher(&self) -> RandomState {
        RandomState::with_seeds(self.seed, !self.seed, 0x7573_6572, 0x7461_626c)
    }
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
