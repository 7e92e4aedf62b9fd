//! Who watches whose presence (request 2005, spec 3.5). A subscription dies with its connection.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::ids::ConnId;
use crate::limits;
use crate::session::Session;

/// Watched user to watching connections, ordered by id, so that every run sends in the same order.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Subscriptions {
    watchers: BTreeMap<Box<str>, BTreeSet<ConnId>>,
}

impl Subscriptions {
    /// Adds; `false`: the connection watches as many users as it may.
    #[must_use]
    pub(super) fn add(&mut self, session: &mut Session, conn: ConnId, target: &str) -> bool {
        let watches = session.watches.get_or_insert_default();
        if watches.contains(target) {
            return true;
        }
        if watches.len() >= limits::SUBSCRIPTIONS_MAX {
            return false;
        }
        watches.insert(target.into());
        self.watchers.entry(target.into()).or_default().insert(conn);
        true
    }

    /// Removes one.
    pub(super) fn remove(&mut self, session: &mut Session, conn: ConnId, target: &str) {
        if let Some(watches) = &mut session.watches {
            watches.remove(target);
            if watches.is_empty() {
                session.watches = None;
            }
        }
        self.forget(conn, target);
    }

    /// Removes all of a connection that ends.
    pub(super) fn remove_all(&mut self, session: &mut Session, conn: ConnId) {
        for target in session.watches.take().into_iter().flat_map(|watches| *watches) {
            self.forget(conn, &target);
        }
    }

    /// Who watches `target`.
    pub(super) fn watchers(&self, target: &str) -> Vec<ConnId> {
        self.watchers.get(target).into_iter().flatten().copied().collect()
    }

    /// Watched users.
    pub(super) fn targets(&self) -> usize {
        self.watchers.len()
    }

    fn forget(&mut self, conn: ConnId, target: &str) {
        if let Some(watchers) = self.watchers.get_mut(target) {
            watchers.remove(&conn);
            if watchers.is_empty() {
                self.watchers.remove(target);
            }
        }
    }
}
