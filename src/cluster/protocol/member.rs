//! Membership as the router sees it: views and the shards' switch, who is accounted for, the barrier, the lease, fence
//! and forget (M2 to M11, S1).

use std::collections::BTreeSet;
use std::rc::Rc;

use super::frame::Known;
use super::io::{Count, Mail, Output, OwnRecord, Reason, Resident};
use super::peer::{Link, Peer};
use super::placed::Placed;
use super::rules::Rule;
use super::{Fence, Lease, Node, Stage, Switch, Views};
use crate::ids::{ShardId, Text};
use crate::limits::{FENCE_MS, GONE_LOST_MS, GONE_MS, LAST_GONE_MS, LAST_MS, LIST_BARRIER_MS};
use crate::placement::view::{Epoch, Incarnation, Member, MemberState, NodeId, View};
use crate::time::Mono;

impl Node {
    /// A view from the source. Only a newer one counts; some may be missed.
    pub(super) fn learn(&mut self, view: View) {
        let newest = self.next.as_ref().map_or(self.view.epoch(), |next| next.view.epoch());
        if view.epoch() <= newest {
            return;
        }
        self.joined_at.get_or_insert(self.now.mono);
        self.look_at_own_record(&view);
        if self.stage == Stage::Ended {
            return;
        }
        self.end_former_lives(&view);
        let placement = Rc::new(Placed::new(&view, &self.me, self.rules));
        if placement.fingerprint() == self.fingerprint() {
            self.next = None;
            return self.adopt(view, placement);
        }
        self.untrimmed = true;
        self.mail(Mail::Add(view.epoch(), Placed::clone(&placement)));
        if !self.rules.hold(Rule::ShardsFirst) {
            return self.adopt(view, placement);
        }
        self.next = Some(Switch { view, placement, waits_for: (0..self.me.shards).collect() });
    }

    fn look_at_own_record(&mut self, view: &View) {
        if view.epoch() < self.registered_epoch || self.registering {
            return;
        }
        match view.member(&self.me.node_id) {
            Some(own) if own.incarnation == self.me.incarnation => {
                if own.state == MemberState::Lost {
                    self.fit_epoch = None;
                    if !self.lease.lapsed && self.now.mono < self.lease.until {
                        self.register();
                    }
                }
            }
            Some(own) if own.incarnation < self.me.incarnation => {}
            _ => self.fence(Reason::Replaced),
        }
    }

    /// A higher incarnation, and a deleted record, prove that the earlier life is gone (M6, M10).
    fn end_former_lives(&mut self, view: &View) {
        let mut gone = Vec::new();
        let one_life = self.rules.hold(Rule::GreetingPerIncarnation);
        for (id, peer) in &self.peers {
            let Some(greeting) = peer.greeted else { continue };
            match view.member(id) {
                Some(member) if one_life && member.incarnation > greeting.incarnation => {
                    gone.push((id.clone(), Incarnation(member.incarnation.0 - 1)));
                }
                None if self.is_proof(id, greeting.registered_epoch, view) => {
                    gone.push((id.clone(), greeting.incarnation))
                }
                _ => {}
            }
        }
        for (id, incarnation) in gone {
            self.proven_gone(&id, incarnation);
        }
    }

    /// Whether a view that does not have that node says that it is gone. A list says so of those that it had.
    fn is_proof(&self, node: &NodeId, registered: Epoch, view: &View) -> bool {
        match self.views {
            Views::Ordered => registered <= view.epoch(),
            Views::OwnLists => self.view.member(node).is_some(),
        }
    }

    /// That life of a node has ended and holds no connection.
    pub(super) fn proven_gone(&mut self, node: &NodeId, incarnation: Incarnation) {
        let peer = self.peers.entry(node.clone()).or_default();
        peer.gone = peer.gone.max(Some(incarnation));
        if peer.greeted.is_some_and(|greeting| greeting.incarnation > incarnation) {
            return;
        }
        self.end_link(node);
        if let Some(peer) = self.peers.get_mut(node) {
            peer.greeted = None;
            peer.promises.clear();
            peer.void_at = None;
            peer.drop_claims();
        }
        self.strays.recheck = true;
    }

    /// The operator says that it has ended, and under lists also that nobody comes back under its name out of reach.
    pub(super) fn forgotten(&mut self, node: &NodeId, incarnation: Incarnation) {
        let peer = self.peers.entry(node.clone()).or_default();
        peer.forgotten = peer.forgotten.max(Some(incarnation));
        self.proven_gone(node, incarnation);
    }

    /// A peer says goodbye.
    pub(super) fn proven_gone_by_itself(&mut self, from: &NodeId) {
        if let Some(greeting) = self.peers.get(from).and_then(|peer| peer.greeted) {
            self.proven_gone(from, greeting.incarnation);
        }
    }

    /// A shard acts by that placement too.
    pub(super) fn switched(&mut self, shard: ShardId, epoch: Epoch, residents: Vec<Resident>) {
        self.add_residents(residents);
        let Some(next) = self.next.as_mut().filter(|next| next.view.epoch() == epoch) else { return };
        next.waits_for.remove(&shard.0);
        if !next.waits_for.is_empty() {
            return;
        }
        if let Some(Switch { view, placement, .. }) = self.next.take() {
            self.adopt(view, placement);
        }
    }

    /// From here on that view decides. What peers have claimed and promised is theirs and stays (M3).
    fn adopt(&mut self, view: View, placement: Rc<Placed>) {
        let moved = placement.fingerprint() != self.fingerprint();
        if moved {
            self.placed_epoch = view.epoch();
            self.placement = placement;
        }
        self.view = view;
        self.note_the_lost();
        if !self.rules.hold(Rule::NoPruning) {
            let (me, placement) = (&self.me.node_id, &self.placement);
            for peer in self.peers.values_mut() {
                peer.claims.retain(|claim| placement.home(&claim.user) == Some(me));
            }
        }
        for peer in self.linked_ids() {
            if moved || self.peers.get(&peer).is_some_and(|peer| peer.promised == 0) {
                self.promise(&peer);
            }
        }
        // Under lists: who has ended, and is named by others all the same, is not to be waited for again.
        let knows = self.peers.values().flat_map(|peer| &peer.knows);
        let named: BTreeSet<NodeId> = knows.map(|known| known.node.clone()).collect();
        self.peers.retain(|id, peer| {
            let linked = peer.greeted.is_some() || !matches!(peer.link, Link::Down);
            linked || self.view.member(id).is_some() || (peer.gone.is_some() && named.contains(id))
        });
        self.strays.recheck = true;
    }

    /// Since when records are lost, as this node sees it (M10).
    fn note_the_lost(&mut self) {
        let lost = |member: &&Member| member.state == MemberState::Lost;
        let lives: Vec<_> =
            self.others().filter(lost).map(|member| (member.node_id.clone(), member.incarnation)).collect();
        for (id, peer) in &mut self.peers {
            let still = |life: &(Incarnation, Mono)| lives.contains(&(id.clone(), life.0));
            peer.lost = peer.lost.filter(still);
        }
        for (id, incarnation) in lives {
            self.peers.entry(id).or_default().lost.get_or_insert((incarnation, self.now.mono));
        }
    }

    /// Nodes that must have answered, promised or be proven empty before this node says "complete" (M4).
    pub(super) fn accounted(&self) -> Vec<NodeId> {
        let mut accounted: Vec<NodeId> =
            self.others().filter(|m| self.must_account(m)).map(|m| m.node_id.clone()).collect();
        if self.rules.hold(Rule::NewcomersAccounted) {
            let newer = |registered| self.views == Views::OwnLists || registered > self.view.epoch();
            let newcomer = |id: &NodeId, peer: &Peer| {
                self.view.member(id).is_none()
                    && peer.greeted.is_some_and(|greeting| newer(greeting.registered_epoch))
            };
            accounted
                .extend(self.peers.iter().filter(|(id, peer)| newcomer(id, peer)).map(|(id, _)| id.clone()));
        }
        accounted
    }

    fn must_account(&self, member: &Member) -> bool {
        let peer = self.peers.get(&member.node_id);
        if member.state == MemberState::Lost && !self.rules.hold(Rule::LostAccounted) {
            return false;
        }
        let greeted = peer.and_then(|peer| peer.greeted).is_some_and(|g| g.incarnation >= member.incarnation);
        if greeted {
            return true;
        }
        let gone = peer.and_then(|peer| peer.gone).filter(|gone| *gone >= member.incarnation);
        // A list knows of names, not of lives: the next one need not wait for this node if it does not reach it.
        let by_word = gone <= peer.and_then(|peer| peer.forgotten);
        let names_stay = self.views == Views::OwnLists && self.rules.hold(Rule::NamesStayAccounted);
        let gone = gone.is_some() && (by_word || !names_stay);
        let later = self.fit_epoch.is_some_and(|fit| member.first_epoch > fit);
        let cannot_have_passed =
            self.views == Views::Ordered && (later || !self.rules.hold(Rule::ExactNewcomer));
        !gone && !cannot_have_passed
    }

    fn others(&self) -> impl Iterator<Item = &Member> {
        self.view.members().iter().filter(|member| member.node_id != self.me.node_id)
    }

    /// Members that may say "complete" and have not recorded this node yet (M5).
    pub(super) fn ungreeted(&self) -> impl Iterator<Item = &Member> {
        let rules = self.rules;
        self.others().filter(move |member| {
            let matters = match member.state {
                MemberState::Lost => false,
                MemberState::Active => rules.hold(Rule::JoinBarrier),
                _ => rules.hold(Rule::JoinBarrier) && rules.hold(Rule::DrainingGreeted),
            };
            let one_life = rules.hold(Rule::GreetingPerIncarnation);
            let peer = self.peers.get(&member.node_id);
            let greeted = peer.and_then(|peer| peer.greeted).filter(|greeting| greeting.mutual);
            let counts = greeted.is_some_and(|g| !one_life || g.incarnation >= member.incarnation);
            let gone = peer.and_then(|peer| peer.gone).is_some_and(|gone| gone >= member.incarnation);
            matters && !counts && !gone
        })
    }

    /// Under lists: nodes that this one does not list, by the word of greeted ones, themselves included; who says it
    /// comes first. To be dialled as long as they live, whatever their ids: they may not know of this node.
    pub fn acquaintances(&self) -> impl Iterator<Item = (&NodeId, &Known)> {
        let closed = self.views == Views::OwnLists && self.rules.hold(Rule::GreetingsClosed);
        let greeters = self.peers.iter().filter(move |(_, peer)| closed && peer.greeted.is_some());
        let said = greeters.flat_map(|(who, peer)| peer.knows.iter().map(move |known| (who, known)));
        said.filter(|(_, known)| {
            let peer = self.peers.get(&known.node);
            let gone = peer.and_then(|peer| peer.gone).is_some_and(|gone| gone >= known.incarnation);
            known.node != self.me.node_id && self.view.member(&known.node).is_none() && !gone
        })
    }

    /// Under lists: those that a greeted node counts, and that this node has not greeted and does not list (M5).
    pub fn strangers(&self) -> impl Iterator<Item = &Known> {
        let by_others = self.acquaintances().filter(|(who, known)| **who != known.node);
        by_others.map(|(_, known)| known).filter(|known| {
            let peer = self.peers.get(&known.node);
            let greeted = peer.and_then(|peer| peer.greeted).filter(|greeting| greeting.mutual);
            greeted.is_none_or(|greeting| greeting.incarnation < known.incarnation)
        })
    }

    /// Under lists: whom this node counts, for those that greet it; and itself, so that all learn where it is.
    pub(super) fn known(&self) -> Vec<Known> {
        if self.views == Views::Ordered {
            return Vec::new();
        }
        let heard =
            |node: &NodeId| self.peers.values().flat_map(|p| &p.knows).find(|known| known.node == *node);
        let known = |node: NodeId| {
            let listed = self.view.member(&node);
            let greeted = self.peers.get(&node).and_then(|peer| peer.greeted).map(|g| g.incarnation);
            let rpc_addr = listed.map(|member| Text::from(member.rpc_addr.as_str()));
            Known {
                incarnation: greeted.or(listed.map(|member| member.incarnation)).unwrap_or_default(),
                rpc_addr: rpc_addr
                    .or_else(|| heard(&node).map(|known| known.rpc_addr.clone()))
                    .unwrap_or_default(),
                node,
            }
        };
        let listed = self.view.member(&self.me.node_id);
        let own = listed.map(|own| Known {
            node: own.node_id.clone(),
            incarnation: self.me.incarnation,
            rpc_addr: Text::from(own.rpc_addr.as_str()),
        });
        own.into_iter().chain(self.accounted().into_iter().map(known)).collect()
    }

    /// Whether the barrier waits for somebody (M5). Under lists a listed node that cannot be reached does not stop a
    /// start: it lists this node as well, so it accounts for it without having met it (A5). Nobody else does, and none
    /// that says otherwise.
    fn waits_for_others(&self) -> bool {
        let recent = |since: Mono| self.now.mono.since_ms(since) < LIST_BARRIER_MS;
        let all = self.views == Views::Ordered || self.joined_at.is_none_or(recent);
        let uncounting = |member: &Member| {
            let peer = self.peers.get(&member.node_id);
            peer.and_then(|peer| peer.uncounting).is_some_and(recent)
        };
        let listed = self.ungreeted().any(|member| all || uncounting(member));
        listed || self.strangers().next().is_some()
    }

    /// A peer without a link says that it does not count this node.
    pub(super) fn uncounted(&mut self, by: NodeId) {
        self.peers.entry(by).or_default().uncounting = Some(self.now.mono);
    }

    pub(super) fn pass_barrier(&mut self) {
        let leased = !self.lease.lapsed && self.now.mono < self.lease.until;
        let own = self.view.member(&self.me.node_id);
        let listed =
            own.is_some_and(|own| own.incarnation == self.me.incarnation && own.state != MemberState::Lost);
        let current = self.view.epoch() >= self.registered_epoch && !self.registering && listed;
        let passed = self.fit_epoch == Some(self.view.epoch());
        if self.stage == Stage::Ended || passed || !leased || !current || self.waits_for_others() {
            return;
        }
        self.fit_epoch = Some(self.view.epoch());
        if self.stage == Stage::Joining {
            self.stage = Stage::Serving;
            self.opened = true;
            self.out.push(Output::Record(MemberState::Active));
            self.out.push(Output::Open);
        }
    }

    /// A renewal that came in time. One that came later renews nothing: the own record must be read first.
    pub(super) fn renewed(&mut self, until: Mono) {
        if self.lease.lapsed || self.now.mono >= self.lease.until {
            self.lease.lapsed = true;
            return self.count(Count::LateRenewal);
        }
        self.lease.until = self.lease.until.max(until);
    }

    /// The lease is back (M8).
    pub(super) fn regained(&mut self, until: Mono, own: OwnRecord) {
        self.lease = Lease { until, lapsed: false };
        match own {
            OwnRecord::Kept => {}
            OwnRecord::Lost => self.register(),
            OwnRecord::Gone => self.fence(Reason::Replaced),
        }
    }

    /// Writes the lost record back: a new registration, which must pass the barrier again.
    fn register(&mut self) {
        self.fit_epoch = None;
        self.registering = true;
        self.out.push(Output::Register(match self.stage {
            Stage::Joining => MemberState::Joining,
            Stage::Draining => MemberState::Draining,
            Stage::Serving | Stage::Ended => MemberState::Active,
        }));
    }

    pub(super) fn recorded(&mut self, epoch: Epoch) {
        self.registered_epoch = self.registered_epoch.max(epoch);
        self.registering = false;
    }

    pub(super) fn drain(&mut self) {
        if matches!(self.stage, Stage::Joining | Stage::Serving) {
            self.stage = Stage::Draining;
            self.out.push(Output::Record(MemberState::Draining));
        }
    }

    /// An operator's drain is taken back. The record says so; users come back with the view that has it. A node that
    /// was told to drain before it had passed its barrier has yet to pass it.
    pub(super) fn serve(&mut self) {
        if self.stage != Stage::Draining {
            return;
        }
        let (stage, state) = match self.opened {
            true => (Stage::Serving, MemberState::Active),
            false => (Stage::Joining, MemberState::Joining),
        };
        self.stage = stage;
        self.out.push(Output::Record(state));
    }

    /// No connection is left and none can come (M11). Nobody acknowledges the goodbye, and nobody has to: a peer ends
    /// the link on it. One that is lost costs verdicts that are not complete until the deletion of the record says the
    /// same; under lists, until the operator does.
    pub(super) fn emptied(&mut self) {
        for peer in self.linked_ids() {
            self.send(&peer, super::frame::Body::Goodbye);
        }
        self.out.push(Output::Leave);
        self.stage = Stage::Ended;
    }

    fn fence(&mut self, reason: Reason) {
        self.stage = Stage::Ended;
        self.out.push(Output::Fence(reason));
    }

    /// `fence = strict`: without a lease and with a greeted peer silent for too long, or without one for very long,
    /// whatever the peers do (M9).
    pub(super) fn fence_if_isolated(&mut self) {
        let now = self.now.mono;
        if self.me.fence == Fence::Report || (!self.lease.lapsed && now < self.lease.until) {
            return;
        }
        if !self.rules.hold(Rule::FencesItself) {
            return;
        }
        let silent = |peer: &Peer| {
            peer.greeted.is_some() && peer.contact.is_some_and(|at| now.since_ms(at) >= FENCE_MS)
        };
        let last = now.since_ms(self.lease.until) >= LAST_MS;
        if last || self.peers.values().any(silent) {
            self.fence(Reason::Isolated);
        }
    }

    /// `fence = strict`: lost nodes that have fenced themselves by now (M10). One whose link was down for long while it
    /// still had its lease fences only when that ends: it gets the time to close its connections.
    pub(super) fn forget_the_gone(&mut self) {
        if self.me.fence == Fence::Report || !self.fit() {
            return;
        }
        let (now, rules) = (self.now.mono, self.rules);
        let empty = |member: &&Member| {
            let peer = self.peers.get(&member.node_id);
            let counted_us = peer
                .and_then(|peer| peer.greeted)
                .is_some_and(|greeting| greeting.incarnation == member.incarnation && greeting.echoed);
            let down = peer.and_then(|peer| peer.down_since).is_some_and(|at| now.since_ms(at) >= GONE_MS);
            let seen_lost = peer.and_then(|peer| peer.lost).map(|(_, since)| now.since_ms(since));
            let long_lost = seen_lost.is_some_and(|ms| ms >= LAST_GONE_MS);
            let closed =
                seen_lost.is_some_and(|ms| ms >= GONE_LOST_MS) || !rules.hold(Rule::ForgetAfterClose);
            let proven = counted_us && down && closed || long_lost;
            member.state == MemberState::Lost && (proven || !rules.hold(Rule::ForgetOnlyEmpty))
        };
        let forget = |m: &Member| Output::Forget(m.node_id.clone(), m.incarnation, m.registered_epoch);
        let empty: Vec<Output> = self.others().filter(empty).map(forget).collect();
        self.out.extend(empty);
    }
}
