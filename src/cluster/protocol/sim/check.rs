//! The invariants about the state of two nodes (1 to 4), after each step.

use super::super::peer::Peer;
use super::world::World;

impl World {
    /// Looks at every pair of nodes.
    pub fn check(&mut self) {
        let now = self.now;
        // Invariants are about this moment; when a node last woke up is none of their business.
        let woke: Vec<_> =
            self.slots.iter().map(|slot| slot.host.as_ref().map(|host| host.node.now)).collect();
        for host in self.slots.iter_mut().filter_map(|slot| slot.host.as_mut()) {
            host.node.now = host.now(now);
        }
        let found = self
            .uncovered()
            .or_else(|| self.unaccounted())
            .or_else(|| self.void_in_use())
            .or_else(|| self.deleted());
        for (slot, woke) in self.slots.iter_mut().zip(woke) {
            if let (Some(host), Some(woke)) = (&mut slot.host, woke) {
                host.node.now = woke;
            }
        }
        if let Some(found) = found {
            self.truth.violated(found);
        }
        let doomed = self.doomed();
        self.truth.closes(&doomed);
    }

    /// 1: what a home believes to be covered, it knows.
    fn uncovered(&self) -> Option<String> {
        for home in self.running() {
            let node = self.node(home);
            for holder in self.running().into_iter().filter(|&holder| holder != home) {
                let host = self.host(holder);
                let Some(peer) =
                    node.peers.get(&host.id).filter(|peer| covered(node, peer, host.incarnation))
                else {
                    continue;
                };
                for (number, client) in host.registered() {
                    let here = node.is_home(&client.user);
                    if here && !peer.claims.all().any(|claim| claim.number == number) {
                        let (home, holder) = (&self.slots[home].id, &host.id);
                        return Some(format!("{home:?} covers {holder:?} without connection {number}"));
                    }
                }
            }
        }
        None
    }

    /// 2: whoever may say "complete" accounts for every node with a connection.
    fn unaccounted(&self) -> Option<String> {
        let doomed = self.doomed();
        for fit in self.running().into_iter().filter(|&i| self.node(i).fit()) {
            let accounted = self.node(fit).accounted();
            for holder in self.running().into_iter().filter(|&holder| holder != fit) {
                let host = self.host(holder);
                let known = accounted.contains(&host.id) || doomed.contains(&host.id);
                if host.registered().next().is_some() && !known {
                    let (fit_id, why) = (&self.slots[fit].id, self.explain(fit));
                    return Some(format!("{fit_id:?} is fit and does not account for {:?}; {why}", host.id));
                }
            }
        }
        None
    }

    /// 3: a promise that its holder calls void is used by nobody.
    fn void_in_use(&self) -> Option<String> {
        for holder in self.running() {
            for home in self.running().into_iter().filter(|&home| home != holder) {
                let (node, at) = (self.node(home), self.node(holder));
                let Some(believed) = node.peers.get(&self.slots[holder].id) else { continue };
                let Some(up) =
                    believed.up().filter(|_| covered(node, believed, self.host(holder).incarnation))
                else {
                    continue;
                };
                let promises = at.peers.get(&self.slots[home].id);
                let gone = promises.is_none_or(|peer| {
                    peer.promises.is_empty() && peer.up().is_none_or(|own| own.generation != up.generation)
                });
                if gone {
                    let (home, holder) = (&self.slots[home].id, &self.slots[holder].id);
                    return Some(format!("{home:?} uses a promise that {holder:?} calls void"));
                }
            }
        }
        None
    }

    /// 4: a record that is absent holds no connection.
    fn deleted(&self) -> Option<String> {
        let doomed = self.doomed();
        for i in self.running() {
            let host = self.host(i);
            let known = self.is_listed(host) || doomed.contains(&host.id);
            if !known && host.registered().next().is_some() {
                return Some(format!("{:?} has connections and no record", host.id));
            }
        }
        None
    }
}

fn covered(node: &super::super::Node, peer: &Peer, incarnation: crate::placement::view::Incarnation) -> bool {
    let this_life = peer.greeted.is_some_and(|greeting| greeting.incarnation == incarnation);
    this_life && node.covers(peer)
}
