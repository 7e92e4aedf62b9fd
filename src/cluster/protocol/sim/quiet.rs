//! Rest: nothing breaks any more, everything arrives. Then the directory is the truth, and a push costs little (8).

use std::collections::BTreeSet;

use super::super::frame::{Conn, Key};
use super::super::io::Count;
use super::lists::Ended;
use super::world::World;
use crate::ids::Text;

impl World {
    /// So many quarters of a second without a fault.
    pub fn rest(&mut self, quarters: u64) {
        for _ in 0..quarters {
            self.wire.blocked.clear();
            let now = self.now;
            for host in self.slots.iter_mut().filter_map(|slot| slot.host.as_mut()) {
                host.cut_off = false;
                host.asleep_until = host.asleep_until.map(|until| until.min(now));
            }
            self.end_naps();
            for i in self.awake() {
                let newest = self.views_of(i).last().cloned().unwrap();
                if self.host(i).viewed < newest.epoch() {
                    self.show(i, newest);
                }
            }
            for (low, high) in self.undialled() {
                if self.is_awake(low) && self.slots[high].host.is_some() {
                    self.dial(low, high);
                }
            }
            self.drain_all();
            self.advance(250, 0);
            self.drain_all();
        }
    }

    /// Until nothing is under way.
    pub fn drain_all(&mut self) {
        loop {
            let (notices, lanes) = (self.noticeable(), self.ready());
            let shards =
                self.shards(|host, shard| host.shard_busy(shard) || !host.shards[shard].outbox.is_empty());
            if notices.is_empty() && lanes.is_empty() && shards.is_empty() {
                return;
            }
            for notice in notices {
                self.notice(notice);
            }
            for lane in lanes {
                if self.slots[lane.1].host.is_none() || self.is_awake(lane.1) {
                    self.deliver_from(lane);
                }
            }
            for (i, shard) in shards {
                if self.is_awake(i) {
                    self.shard_step(i, shard);
                }
                if self.is_awake(i) {
                    self.router_step(i, shard);
                }
            }
        }
    }

    /// Everything comes to rest; the dead are forgotten or come back.
    pub fn come_to_rest(&mut self) {
        self.rest(12); // who must fence, does
        let back = self.below(2) == 0;
        if self.lists.is_some() {
            self.end_of_lists(if back { Ended::ComeBack } else { Ended::AreTakenOff });
        }
        for i in 0..self.slots.len() {
            let ended = self.slots[i].host.is_none() && self.source.records.contains_key(&self.slots[i].id);
            if ended && self.lists.is_none() {
                if back {
                    self.start(i);
                } else {
                    let id = self.slots[i].id.clone();
                    self.source.delete(&id);
                }
            }
        }
        self.rest(56);
        self.check();
        self.check_directory();
        if self.somebody_is_home() {
            self.check_pushes();
            self.check_policy();
            self.check_newest();
        }
        self.end_hubs();
    }

    fn check_directory(&mut self) {
        for i in self.running() {
            let node = self.node(i);
            if node.strays.waiting() > 0 {
                return self.truth.violated(format!("a login waits at {:?}", self.slots[i].id));
            }
            if !node.fit() {
                let what = format!("{:?} is not fit at rest: {}", self.slots[i].id, self.explain(i));
                return self.truth.violated(what);
            }
            for holder in self.running().into_iter().filter(|&holder| holder != i) {
                let host = self.host(holder);
                let here = host.registered().filter(|(_, client)| node.is_home(&client.user));
                let truth: BTreeSet<u64> = here.map(|(number, _)| number).collect();
                let peer = node.peers.get(&host.id);
                let claimed: BTreeSet<u64> =
                    peer.into_iter().flat_map(|peer| peer.claims.all()).map(|claim| claim.number).collect();
                if truth != claimed || !peer.is_some_and(|peer| node.covers(peer)) {
                    let (home, holder) = (&self.slots[i].id, &host.id);
                    let what = format!(
                        "{home:?} knows {claimed:?} of {holder:?}, true is {truth:?}; {}",
                        self.explain(i)
                    );
                    return self.truth.violated(what);
                }
            }
        }
    }

    /// Why a node is not what it should be at rest.
    pub fn explain(&self, i: usize) -> String {
        let node = self.node(i);
        let state = |i: usize| {
            let (host, node) = (self.host(i), self.node(i));
            let (own, now) = (node.view.member(&host.id).map(|own| own.state), host.now(self.now).mono);
            format!(
                "{:?} {:?} own {own:?} at {:?}, registered {:?}, lease {:?} at {now:?}, fit {:?}, closing {:?}",
                host.id,
                node.stage,
                node.view.epoch(),
                node.registered_epoch,
                node.lease,
                node.fit_epoch,
                host.closing_until
            )
        };
        let states: Vec<String> = self.running().into_iter().map(state).collect();
        let awaited: Vec<_> = node.awaited().collect();
        let links: Vec<String> = node
            .peers
            .iter()
            .map(|(id, p)| {
                format!("{id:?} {:?} gone {:?} cover {:?} {:?}", p.greeted, p.gone, p.cover, p.link)
            })
            .collect();
        format!("waits for {awaited:?}, registering {}; {states:#?}; links {links:#?}", node.registering)
    }

    fn check_pushes(&mut self) {
        for i in self.running() {
            for n in 0..self.profile.users {
                let user = Text::from(format!("u{n}"));
                let all = self.counts.get(&Count::PushAll).copied();
                let complete = self.truth.complete;
                self.wire.push_frames = 0;
                self.push(i, vec![user.clone()]);
                self.drain_all();
                let holders: BTreeSet<_> = self
                    .truth
                    .open
                    .iter()
                    .filter(|(_, of)| **of == user)
                    .map(|(conn, _)| &conn.node)
                    .collect();
                let most = 2 + 2 * holders.len();
                if self.truth.complete != complete + 1 {
                    return self
                        .truth
                        .violated(format!("at rest a push at {:?} is not complete", self.slots[i].id));
                }
                if self.counts.get(&Count::PushAll).copied() != all || self.wire.push_frames > most {
                    let cost = self.wire.push_frames;
                    return self
                        .truth
                        .violated(format!("at rest a push costs {cost} frames, at most {most}"));
                }
            }
        }
    }

    /// Of each user exactly the newest login is left.
    fn check_policy(&mut self) {
        if !self.conflicts {
            return;
        }
        let mut open: Vec<(Text, Conn, Key)> = Vec::new();
        for i in self.running() {
            let host = self.host(i);
            let conns =
                host.registered().map(|(n, c)| (c.user.clone(), host.conn(n), c.key.clone().unwrap()));
            open.extend(conns);
        }
        let users: BTreeSet<&Text> = open.iter().map(|(user, _, _)| user).collect();
        if users.len() != open.len() {
            self.truth.violated(format!("at rest too many logins are left: {open:?}"));
        }
    }

    /// Whatever the clocks of the nodes show, and wherever the logins before were: the newest is left (K1).
    fn check_newest(&mut self) {
        let open: Vec<usize> =
            self.awake().into_iter().filter(|&i| self.host(i).open && self.conflicts).collect();
        for i in open {
            let user = Text::from("u0");
            self.advance(250, 0);
            self.drain_all();
            self.login(i, user.clone());
            self.drain_all();
            let left: Vec<&Conn> =
                self.truth.open.iter().filter(|(_, of)| **of == user).map(|(conn, _)| conn).collect();
            if left.len() != 1 || left.iter().any(|conn| conn.node != self.slots[i].id) {
                let what = format!("after a login at {:?} these are left: {left:?}", self.slots[i].id);
                return self.truth.violated(what);
            }
        }
    }
}
