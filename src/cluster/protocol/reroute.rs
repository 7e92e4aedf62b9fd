//! A push that was routed to a node which is not the home: what that node says, and the one further question that it is
//! worth (P2, and the end of P5 in routing-protocol.md section 5.5).
//!
//! Routing to any node is safe, since who is not the home in its own view says so and delivers nothing. What always
//! holds: a recipient is routed at most twice; whatever comes of the second question, all nodes are asked after it or
//! nobody is. Cost: two messages more than in quiet state, in place of two for each other node.

use std::collections::BTreeMap;

use super::entry::Way;
use super::frame::{Attempt, Body, Seat};
use super::peer::Peer;
use super::{Node, Views};
use crate::ids::Text;
use crate::placement::view::NodeId;

impl Node {
    /// Says that these are not at home here, and where they are: one frame for each home.
    pub(super) fn turn_away(&mut self, from: &NodeId, leg: u64, recipients: Vec<Text>) {
        let mut seats: BTreeMap<Option<NodeId>, Vec<Text>> = BTreeMap::new();
        for user in recipients {
            seats.entry(self.placement.home(&user).cloned()).or_default().push(user);
        }
        let epoch = self.view.epoch();
        for (home, recipients) in seats {
            self.send(from, Body::NotHome { leg, recipients, seat: Seat { epoch, home } });
        }
    }

    /// That node is not their home in its own view, and has delivered nothing to them.
    pub(super) fn not_home(&mut self, from: &NodeId, leg: u64, mut recipients: Vec<Text>, seat: &Seat) {
        let Some(route) = self.entries.routes.get_mut(&leg).filter(|route| route.home == *from) else {
            return;
        };
        recipients.retain(|user| route.recipients.remove(user));
        let (push, way) = (route.push, route.way);
        if route.recipients.is_empty() {
            self.entries.routes.remove(&leg);
        }
        if !self.may_compose(push) {
            self.give_up_on(push, from, &recipients);
            return self.end_way(way, recipients);
        }
        let mut homes: BTreeMap<Option<NodeId>, Vec<Text>> = BTreeMap::new();
        for user in &recipients {
            let home = if way == Way::First { self.other_home(from, seat, user) } else { None };
            homes.entry(home).or_default().push(user.clone());
        }
        for (home, recipients) in homes {
            match home {
                Some(home) => self.route(push, home, recipients, Way::Again),
                None => self.ask_all(push, recipients, Attempt::First),
            }
        }
        self.end_way(way, recipients);
    }

    /// A linked node that is worth a further question: the home in the newer of the two views, if the node asked is not
    /// it. Lists of two nodes cannot be compared.
    fn other_home(&self, asked: &NodeId, seat: &Seat, user: &str) -> Option<NodeId> {
        if self.views == Views::OwnLists {
            return None;
        }
        let newer = seat.epoch > self.view.epoch();
        let home = if newer { seat.home.as_ref() } else { self.placement.home(user) };
        let linked = |home: &NodeId| self.peers.get(home).and_then(Peer::up).is_some();
        home.filter(|home| *home != asked && linked(home)).cloned()
    }
}
