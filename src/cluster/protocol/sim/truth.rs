//! What is true, and whether a verdict says so: property P, and the invariants that concern deeds (4 to 7).

use std::collections::{BTreeMap, BTreeSet};

use super::super::frame::{Conn, Key, Verdict};
use super::host::{Deed, Host};
use crate::ids::Text;
use crate::placement::view::NodeId;

#[derive(Default)]
pub struct Truth {
    /// Registered and open.
    pub open: BTreeMap<Conn, Text>,
    pub pushes: BTreeMap<u64, Accepted>,
    /// Every delivery, to find a second.
    delivered: BTreeSet<(u64, Conn)>,
    keys: BTreeSet<Key>,
    /// Missed by a complete verdict since their node slept so long that it must close them.
    owed: Vec<(u64, Conn)>,
    pub violation: Option<String>,
    pub complete: u64,
    pub verdicts: u64,
}

/// A push without a verdict.
pub struct Accepted {
    at: usize,
    /// Connections of its recipients that were open when it was accepted.
    must_reach: Vec<(Text, Conn)>,
}

impl Truth {
    pub fn violated(&mut self, what: String) {
        self.violation.get_or_insert(what);
    }

    pub fn accepted(&mut self, ticket: u64, at: usize, users: &[Text]) {
        let concerned = self.open.iter().filter(|(_, user)| users.contains(user));
        let must_reach = concerned.map(|(conn, user)| (user.clone(), conn.clone())).collect();
        self.pushes.insert(ticket, Accepted { at, must_reach });
    }

    pub fn refused(&mut self, ticket: u64) {
        self.pushes.remove(&ticket);
    }

    /// P: who is called complete was reached on every connection that was open and still is. Nodes that slept too long
    /// close theirs: [`Truth::closes`].
    pub fn judge(&mut self, ticket: u64, verdicts: &[Verdict], doomed: &BTreeSet<NodeId>) {
        let Some(push) = self.pushes.remove(&ticket) else {
            return self.violated(format!("push {ticket} has two ends"));
        };
        for verdict in verdicts {
            self.verdicts += 1;
            self.complete += u64::from(verdict.complete);
            for (user, conn) in push.must_reach.iter().filter(|(user, _)| *user == verdict.user) {
                let open = self.open.contains_key(conn);
                let reached = self.delivered.contains(&(ticket, conn.clone()));
                if verdict.complete && open && !reached && doomed.contains(&conn.node) {
                    self.owed.push((ticket, conn.clone()));
                } else if verdict.complete && open && !reached {
                    self.violated(format!("push {ticket}: {user:?} is complete, but {conn:?} was missed"));
                }
            }
            for (conn, _) in &verdict.results {
                if !self.delivered.contains(&(ticket, conn.clone())) {
                    self.violated(format!("push {ticket}: {conn:?} is reported and was not reached"));
                }
            }
        }
    }

    /// Whoever slept too long has closed its connections once it is awake.
    pub fn closes(&mut self, doomed: &BTreeSet<NodeId>) {
        let stays = |(_, conn): &&(u64, Conn)| self.open.contains_key(conn) && !doomed.contains(&conn.node);
        if let Some((ticket, conn)) = self.owed.iter().find(stays) {
            let what = format!("push {ticket} was complete, but {conn:?} was missed and stays open");
            self.violated(what);
        }
        self.owed.retain(|(_, conn)| self.open.contains_key(conn));
    }

    pub fn note(&mut self, host: &Host, deed: Deed) {
        match deed {
            Deed::Opened(resident) => {
                self.keys.insert(resident.key);
                self.open.insert(host.conn(resident.number), resident.user);
            }
            Deed::Closed(number) => {
                self.open.remove(&host.conn(number));
            }
            Deed::Kicked { number, key, winner } => {
                if key >= winner || !self.keys.contains(&winner) {
                    self.violated(format!("connection {number} was kicked for {winner:?}"));
                }
            }
            Deed::Delivered { ticket, number } => {
                if !self.delivered.insert((ticket, host.conn(number))) {
                    self.violated(format!("push {ticket} was delivered twice to {:?}", host.conn(number)));
                }
            }
        }
    }

    /// The process has ended, and with it its connections and the pushes that it accepted.
    pub fn stopped(&mut self, i: usize, host: &Host) {
        self.open.retain(|conn, _| conn.node != host.id);
        self.pushes.retain(|_, push| push.at != i);
    }

    pub fn leaves(&mut self, i: usize, host: &Host) {
        if host.registered().next().is_some() {
            self.violated(format!("host {i} left with connections"));
        }
    }
}
