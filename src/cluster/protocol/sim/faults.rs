//! What the adversary breaks: processes that crash, sleep, leave or are cut off from the source, links that break,
//! stand still in one direction or both, and long times of that.

use std::collections::BTreeSet;

use super::super::io::Input;
use super::super::{Fence, Stage};
use super::host::Host;
use super::wire::name;
use super::world::{Peers, World};
use crate::limits::FENCE_CLOSE_MS;
use crate::placement::view::{Epoch, MemberState, NodeId};

/// A process that woke has closed what it must by then, if it must.
const WAKING_MS: u64 = FENCE_CLOSE_MS + 500;

impl World {
    pub fn break_some(&mut self) {
        let lanes: Vec<(usize, usize, (u64, u64))> = self.links();
        if let Some((a, b, generation)) = self.pick(&lanes) {
            let keep = usize::try_from(self.below(4)).unwrap();
            self.wire.close(a, b, generation, keep);
            self.wire.notices.insert((a, b, generation));
        }
    }

    /// Generations that are up at the first of the two.
    fn links(&self) -> Vec<(usize, usize, (u64, u64))> {
        let mut links = Vec::new();
        for a in self.running() {
            for (id, peer) in &self.node(a).peers {
                links.extend(peer.up().map(|up| (a, self.index(id), name(up.generation))));
            }
        }
        links
    }

    pub fn crash_some(&mut self) {
        if let Some(i) = self.pick(&self.running()).filter(|_| self.running().len() > 1) {
            let told = if self.below(10) < 7 { Peers::Notice } else { Peers::Unaware };
            self.stop(i, told);
        }
    }

    /// The process ends; its peers hear of it, or not.
    pub fn stop(&mut self, i: usize, peers: Peers) {
        let ended: Vec<_> = self.links().into_iter().filter(|(a, _, _)| *a == i).collect();
        let Some(host) = self.slots[i].host.take() else { return };
        self.slots[i].leased_until = host.leased_until;
        self.truth.stopped(i, &host);
        for (a, b, generation) in ended {
            let keep = usize::try_from(self.below(4)).unwrap();
            self.wire.close(a, b, generation, keep);
            if peers == Peers::Unaware {
                self.wire.notices.remove(&(b, a, generation));
            }
        }
        self.wire.lanes.retain(|(_, to, _), _| *to != i);
        self.wire.notices.retain(|(to, _, _)| *to != i);
    }

    pub fn start_some(&mut self) {
        let down: Vec<usize> = (0..self.slots.len()).filter(|&i| self.slots[i].host.is_none()).collect();
        if let Some(i) = self.pick(&down) {
            self.start(i);
        }
    }

    pub fn start(&mut self, i: usize) {
        if !self.may_start(i) {
            return;
        }
        let id = self.slots[i].id.clone();
        let epoch = self.source.join(&id);
        let clock = (self.below(1_000_000), 9_901 + self.below(199), self.profile.fence);
        let mut host = Host::new(id, epoch, self.rules, || clock, self.now);
        host.viewed = Epoch(epoch.0 - 1);
        if let Some(rules) = self.login_rules() {
            host.take_hubs(rules, Some(host.id.clone()));
        }
        self.slots[i].life = host.incarnation;
        match self.lists {
            Some(_) => self.start_listed(i, host),
            None => self.slots[i].host = Some(host),
        }
    }

    pub fn cut_some(&mut self) {
        if let Some(i) = self.pick(&self.running()) {
            let host = self.host_mut(i);
            host.cut_off = !host.cut_off;
        }
    }

    /// Whoever watches the source writes what has expired; what is dead for certain may be forgotten.
    pub fn lose_some(&mut self) {
        let Some(i) = self.pick(&(0..self.slots.len()).collect::<Vec<_>>()) else { return };
        self.lose(i);
    }

    /// What the watchers of the source see of this slot.
    fn lose(&mut self, i: usize) {
        if self.lists.is_some() {
            return; // nobody watches anybody
        }
        let id = self.slots[i].id.clone();
        let until = self.slots[i].host.as_ref().map_or(self.slots[i].leased_until, |host| host.leased_until);
        let lost = self.source.records.get(&id).is_some_and(|record| record.state == MemberState::Lost);
        if self.slots[i].host.is_none() && lost && self.profile.fence == Fence::Report {
            self.source.delete(&id); // an operator's word
        } else if self.now >= until {
            self.source.lose(&id);
        }
    }

    pub fn flip_some(&mut self) {
        if self.lists.is_some() {
            return self.list_some();
        }
        let ids: Vec<NodeId> = self.source.records.keys().cloned().collect();
        if let Some(id) = self.pick(&ids) {
            let how = self.below(2);
            self.source.flip(&id, how);
        }
    }

    pub fn leave_some(&mut self) {
        let Some(i) = self.pick(&self.awake()).filter(|_| self.running().len() > 1) else { return };
        if self.node(i).stage == Stage::Draining {
            let numbers: Vec<u64> = self.host(i).conns.keys().copied().collect();
            match self.pick(&numbers) {
                _ if self.below(6) == 0 => {
                    self.feed(i, Input::Serve);
                    self.host_mut(i).open = self.node(i).opened;
                }
                Some(number) => self.close(i, number),
                None => self.feed(i, Input::Emptied),
            }
        } else if self.below(3) == 0 {
            self.host_mut(i).open = false;
            self.feed(i, Input::Drain);
        }
    }

    /// A process stops, and goes on later with everything that came meanwhile.
    pub fn nap_some(&mut self) {
        if let Some(i) = self.pick(&self.awake()) {
            let ms = if self.below(3) == 0 { 1_000 + self.below(9_000) } else { 10_000 + self.below(50_000) };
            self.host_mut(i).asleep_until = Some(self.now + ms);
            self.did("nap");
        }
    }

    /// Those whose time has come: the awake go on, the fenced have closed everything and end.
    pub fn end_naps(&mut self) {
        for i in self.running() {
            let now = self.now;
            let host = self.host_mut(i);
            if host.closing_until.is_some_and(|until| until <= now) {
                self.stop(i, Peers::Notice);
            } else if host.asleep_until.is_some_and(|until| until <= now) {
                (host.asleep_until, host.woke_at) = (None, Some(now));
                self.wake(i);
            }
        }
    }

    /// In any order: what stands in its mail, the renewal of its lease, its timer.
    fn wake(&mut self, i: usize) {
        for _ in 0..self.below(4) {
            let lanes: Vec<_> = self.ready().into_iter().filter(|lane| lane.1 == i).collect();
            if let Some(lane) = self.pick(&lanes) {
                self.deliver_from(lane);
            }
        }
        if self.is_awake(i) && self.below(2) == 0 {
            self.renew(i);
        }
        if self.is_awake(i) {
            self.feed(i, Input::Tick);
        }
    }

    /// Nodes whose record was deleted while they slept, and who have not had the time to see it: nobody accounts for
    /// them, and their connections do not stay open (routing-protocol.md 12.9).
    pub fn doomed(&self) -> BTreeSet<NodeId> {
        let doomed = |host: &&Host| {
            let waking = host.woke_at.is_some_and(|at| self.now < at + WAKING_MS);
            (host.asleep_until.is_some() || waking) && !self.is_listed(host)
        };
        self.slots.iter().filter_map(|slot| slot.host.as_ref()).filter(doomed).map(|h| h.id.clone()).collect()
    }

    /// Whether the source has the record of this life. Lists know of no lives.
    pub fn is_listed(&self, host: &Host) -> bool {
        let own = self.source.records.get(&host.id);
        self.lists.is_some() || own.is_some_and(|own| own.incarnation == host.incarnation)
    }

    /// Frames between two nodes, or from and to one, stand; or all go again.
    pub fn split_some(&mut self) {
        if !self.wire.blocked.is_empty() && self.below(3) > 0 {
            return self.wire.blocked.clear();
        }
        let all: Vec<usize> = (0..self.slots.len()).collect();
        let (Some(a), Some(b)) = (self.pick(&all), self.pick(&all)) else { return };
        let others = if self.below(3) == 0 { all } else { vec![b] };
        let ways = self.below(4);
        for other in others.into_iter().filter(|other| *other != a) {
            if ways != 0 {
                self.wire.blocked.insert((a, other));
            }
            if ways != 1 {
                self.wire.blocked.insert((other, a));
            }
        }
        self.did("split");
        if ways < 2 {
            self.did("one way");
        }
    }

    /// A long time with the same faults, in which everything else works.
    pub fn hold_some(&mut self) {
        if self.below(3) > 0 {
            self.split_some();
        }
        if self.below(2) == 0 {
            self.nap_some();
        }
        if self.below(2) == 0 {
            self.cut_some();
        }
        self.did("hold");
        for _ in 0..20 + self.below(120) {
            self.hold();
            self.check();
            if self.truth.violation.is_some() {
                return;
            }
        }
        if self.below(3) > 0 {
            self.wire.blocked.clear();
            self.running().into_iter().for_each(|i| self.host_mut(i).cut_off = false);
        }
    }

    fn hold(&mut self) {
        for i in self.awake() {
            let newest = self.views_of(i).last().cloned().unwrap();
            if self.host(i).viewed < newest.epoch() && self.below(2) == 0 {
                self.show(i, newest);
            }
        }
        for (low, high) in self.undialled() {
            if self.is_awake(low) && self.below(3) > 0 {
                self.dial(low, high);
            }
        }
        self.drain_all();
        match self.below(8) {
            0 => self.login_some(),
            1 => self.close_some(),
            2 => self.push_some(),
            _ => {}
        }
        let ms = 150 + self.below(500);
        self.advance(ms, 10);
        self.drain_all();
        if self.below(2) == 0 {
            (0..self.slots.len()).for_each(|i| self.lose(i));
        }
    }
}
