//! What is known of the members beside the view: who answers, who takes clients, how full each is. Pure.
//!
//! A member is asked now and then (`rpc/assign/poll`); what came of it is told here. What always holds: a member that
//! was never asked, or not often enough in vain, is taken to be there (the membership says so); one that said that it
//! takes no clients is believed at once; one good answer makes up for all that were missed.

use std::collections::BTreeMap;

use crate::limits::ASSIGN_MISSES_MAX;
use crate::placement::view::{NodeId, View};

/// What a member said of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Told {
    /// Connections it holds.
    pub connections: u32,
    /// Connections it may hold; 0: it does not say.
    pub connections_max: u32,
    /// Whether it takes new clients: neither starting, nor draining, nor stalled.
    pub takes: Takes,
}

/// Whether a member takes new clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Takes {
    /// It does.
    Clients,
    /// It leaves, or is not ready.
    Nobody,
}

#[derive(Clone, Copy, Debug, Default)]
struct Standing {
    /// Answers missed in a row.
    misses: u32,
    told: Option<Told>,
}

/// See the module's documentation.
#[derive(Clone, Debug, Default)]
pub struct Standings(BTreeMap<NodeId, Standing>);

/// How many members are what.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Handed out.
    pub open: u64,
    /// Active, but they do not answer.
    pub unreachable: u64,
    /// Not handed out for another reason: draining, joining, lost, not ready, or without an address for clients.
    pub closed: u64,
}

impl Standings {
    /// A member has answered.
    pub fn heard(&mut self, node_id: &NodeId, told: Told) {
        self.0.insert(node_id.clone(), Standing { misses: 0, told: Some(told) });
    }

    /// A member has not answered. `true`: it is unreachable from now on.
    pub fn missed(&mut self, node_id: &NodeId) -> bool {
        let standing = self.0.entry(node_id.clone()).or_default();
        standing.misses = standing.misses.saturating_add(1);
        standing.misses == ASSIGN_MISSES_MAX
    }

    /// Forgets who is not in `view` any more.
    pub fn keep(&mut self, view: &View) {
        self.0.retain(|node_id, _| view.member(node_id).is_some());
    }

    /// Whether it has been asked often enough in vain.
    pub fn is_unreachable(&self, node_id: &NodeId) -> bool {
        self.0.get(node_id).is_some_and(|standing| standing.misses >= ASSIGN_MISSES_MAX)
    }

    /// Whether clients may be sent to it, as far as this knows.
    pub fn takes(&self, node_id: &NodeId) -> bool {
        let Some(standing) = self.0.get(node_id) else { return true };
        let closed = standing.told.is_some_and(|told| told.takes == Takes::Nobody);
        standing.misses < ASSIGN_MISSES_MAX && !closed
    }

    /// Thousandths of what it can hold that are in use; `None`: not known.
    pub fn load_permille(&self, node_id: &NodeId) -> Option<u16> {
        let told = self.0.get(node_id)?.told?;
        let permille = (u64::from(told.connections) * 1_000).checked_div(u64::from(told.connections_max))?;
        Some(u16::try_from(permille).unwrap_or(u16::MAX))
    }

    /// The members of a view by what becomes of them.
    pub fn counts(&self, view: &View) -> Counts {
        let mut counts = Counts::default();
        for member in view.members() {
            let active = view.active().any(|other| other.node_id == member.node_id);
            let counter = if !active || member.ws_url.is_empty() {
                &mut counts.closed
            } else if self.is_unreachable(&member.node_id) {
                &mut counts.unreachable
            } else if self.takes(&member.node_id) {
                &mut counts.open
            } else {
                &mut counts.closed
            };
            *counter += 1;
        }
        counts
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::placement::view::{Epoch, Member, MemberState};

    fn id(name: &str) -> NodeId {
        NodeId::new(name).unwrap()
    }

    fn told(connections: u32, connections_max: u32) -> Told {
        Told { connections, connections_max, takes: Takes::Clients }
    }

    #[test]
    fn three_misses_in_a_row_and_no_fewer_make_a_member_unreachable() {
        let (mut standings, node) = (Standings::default(), id("a"));
        assert!(standings.takes(&node), "never asked");
        for _ in 1..ASSIGN_MISSES_MAX {
            assert!(!standings.missed(&node));
            assert!(standings.takes(&node));
        }
        standings.heard(&node, told(1, 10));
        for n in 1..=ASSIGN_MISSES_MAX {
            assert_eq!(standings.missed(&node), n == ASSIGN_MISSES_MAX, "told once");
        }
        assert!(!standings.missed(&node), "not told again");
        assert!(!standings.takes(&node) && standings.is_unreachable(&node));
        standings.heard(&node, told(1, 10));
        assert!(standings.takes(&node), "one answer makes up for it");
    }

    #[test]
    fn a_member_that_takes_nobody_is_believed_at_once() {
        let (mut standings, node) = (Standings::default(), id("a"));
        standings.heard(&node, Told { takes: Takes::Nobody, ..told(1, 10) });
        assert!(!standings.takes(&node) && !standings.is_unreachable(&node));
    }

    #[test]
    fn loads_are_thousandths_and_unknown_without_a_limit() {
        let mut standings = Standings::default();
        for (connections, max, want) in [
            (0, 10, Some(0)),
            (1, 3, Some(333)),
            (10, 10, Some(1000)),
            (u32::MAX, 1, Some(u16::MAX)),
            (5, 0, None),
        ] {
            standings.heard(&id("a"), told(connections, max));
            assert_eq!(standings.load_permille(&id("a")), want, "{connections} of {max}");
        }
        assert_eq!(standings.load_permille(&id("b")), None);
    }

    #[test]
    fn members_are_counted_once_each_and_forgotten_with_the_view() {
        let member =
            |name: &str, state| Member { state, ws_url: format!("ws://{name}"), ..Member::new(id(name)) };
        let view = View::new(
            Epoch(1),
            vec![
                member("a", MemberState::Active),
                member("b", MemberState::Active),
                member("c", MemberState::Draining),
                Member { ws_url: String::new(), ..member("d", MemberState::Active) },
                member("e", MemberState::Active),
            ],
        );
        let mut standings = Standings::default();
        for _ in 0..ASSIGN_MISSES_MAX {
            standings.missed(&id("b"));
        }
        standings.heard(&id("e"), Told { takes: Takes::Nobody, ..told(1, 10) });
        assert_eq!(standings.counts(&view), Counts { open: 1, unreachable: 1, closed: 3 });
        standings.keep(&View::new(Epoch(2), vec![member("a", MemberState::Active)]));
        assert!(standings.takes(&id("b")), "forgotten");
    }
}
