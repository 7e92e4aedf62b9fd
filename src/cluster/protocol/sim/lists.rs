//! Members as files list them, in place of a source: each node has a file of its own. An operator edits the list, and
//! a reload reaches the nodes one after the other; until then their files differ.
//!
//! The adversary keeps to what lists rest on (routing-protocol.md A5, section 3): who is taken off has ended, and its
//! name is given again only when every file and every node has seen that; and of two nodes that run, one of which does
//! not list the other, the one that starts is reached by the other, or is told by it that it does not count it.

use super::super::frame::{Body, Hello, Known};
use super::super::io::{Input, Mail, Output};
use super::super::rules::{Rule, Rules};
use super::super::{Node, Stage, Views};
use super::edges;
use super::host::Host;
use super::world::World;
use crate::ids::Text;
use crate::placement::Fingerprint;
use crate::placement::view::{Epoch, Incarnation, Member, MemberState, NodeId, View, Weight};
use crate::time::Mono;

/// What the operator has written, and what has come of it.
#[derive(Default)]
pub struct Lists {
    /// Every list that there was; the last one is what the operator wants.
    edits: Vec<Vec<Member>>,
    /// By slot: the edit that its file has.
    files: Vec<usize>,
    /// Names that were taken off: to be given again when all have seen the edit.
    off: Vec<(NodeId, usize)>,
}

/// What becomes of nodes that have ended.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    ComeBack,
    AreTakenOff,
}

/// What a node has made of its file.
#[derive(Default)]
pub struct Listed {
    /// All views so far; the epoch counts them.
    views: Vec<View>,
    /// What the router has ordered for the own record.
    state: Option<MemberState>,
    /// Edit of the newest view.
    edit: usize,
}

impl Lists {
    pub fn new(slots: usize) -> Self {
        Self { edits: vec![Vec::new()], files: vec![0; slots], off: Vec::new() }
    }

    fn newest(&self) -> usize {
        self.edits.len() - 1
    }

    fn has(&self, edit: usize, id: &NodeId) -> bool {
        self.edits[edit].iter().any(|member| member.node_id == *id)
    }

    fn edit(&mut self, change: impl FnOnce(&mut Vec<Member>)) {
        let mut list = self.edits[self.newest()].clone();
        change(&mut list);
        self.edits.push(list);
    }
}

impl Host {
    /// The node reads its file, or its own state has changed.
    fn relist(&mut self, list: &[Member], edit: usize) {
        let state = self.listed.state.unwrap_or(MemberState::Joining);
        let own = |member: &Member| {
            let mut member = member.clone();
            if member.node_id == self.id {
                member.incarnation = self.incarnation;
                member.state = if member.state == MemberState::Draining { member.state } else { state };
            }
            member
        };
        let members = list.iter().map(own).collect();
        self.listed.edit = edit;
        let epoch = Epoch(self.listed.views.len() as u64 + 1);
        self.listed.views.push(View::new(epoch, members));
    }

    /// Whom it dials or asks to be dialled: those of its file, read or not, and those of whom greeted nodes know.
    fn knows(&self, other: &NodeId) -> bool {
        self.listed.views.last().is_some_and(|view| view.member(other).is_some())
            || self.node.acquaintances().any(|(_, Known { node, .. })| node == other)
    }

    fn lists(&self, other: &NodeId) -> bool {
        self.node.view().member(other).is_some()
    }
}

impl World {
    fn lists(&self) -> &Lists {
        self.lists.as_ref().expect("a walk of lists")
    }

    fn lists_mut(&mut self) -> &mut Lists {
        self.lists.as_mut().expect("a walk of lists")
    }

    /// Views that a node may be shown.
    pub fn views_of(&self, i: usize) -> &[View] {
        if self.lists.is_some() { &self.host(i).listed.views } else { &self.source.history }
    }

    /// Whether a name may run now: it is on the list, or may be put there.
    pub fn may_start(&self, i: usize) -> bool {
        let Some(lists) = &self.lists else { return true };
        let Some((_, edit)) = lists.off.iter().find(|(id, _)| *id == self.slots[i].id) else { return true };
        let seen = |i: usize| {
            let host = self.host(i);
            host.listed.edit >= *edit
                && host.listed.views.last().is_some_and(|v| v.epoch() == host.node.view().epoch())
        };
        lists.files.iter().all(|file| file >= edit) && self.running().into_iter().all(seen)
    }

    /// A process of lists starts: its file has it.
    pub fn start_listed(&mut self, i: usize, mut host: Host) {
        let id = host.id.clone();
        let lists = self.lists_mut();
        lists.off.retain(|(off, _)| *off != id);
        if !lists.has(lists.newest(), &id) {
            let mut member = Member::new(id.clone());
            member.state = MemberState::Active;
            lists.edit(|list| list.push(member));
        }
        if !lists.has(lists.files[i], &id) {
            lists.files[i] = lists.newest();
        }
        let (file, list) = (lists.files[i], lists.edits[lists.files[i]].clone());
        host.node = host.node.with_views(Views::OwnLists);
        (host.node.me.first_epoch, host.node.registered_epoch) = (Epoch(1), Epoch(1));
        host.node.lease.until = Mono(u64::MAX);
        host.viewed = Epoch(0);
        host.relist(&list, file);
        self.slots[i].host = Some(host);
    }

    /// Nothing is written anywhere but in the process itself.
    pub fn order_listed(&mut self, i: usize, state: MemberState) -> Epoch {
        let host = self.slots[i].host.as_mut().expect("it orders");
        host.listed.state = Some(state);
        let lists = self.lists.as_ref().expect("a walk of lists");
        host.relist(&lists.edits[host.listed.edit], host.listed.edit);
        host.listed.views.last().expect("just made").epoch()
    }

    /// The operator edits the list, or a reload reaches one node.
    pub fn list_some(&mut self) {
        match self.below(4) {
            0 => self.edit_some(),
            1 => self.take_off_some(),
            _ => {
                let i = usize::try_from(self.below(self.slots.len() as u64)).expect("a slot");
                let (file, newest) = (self.lists().files[i], self.lists().newest());
                let next = if self.below(2) == 0 { newest } else { newest.min(file + 1) };
                self.reload(i, next);
            }
        }
    }

    /// The file of a node is replaced, and read if the node runs.
    fn reload(&mut self, i: usize, edit: usize) {
        let id = self.slots[i].id.clone();
        let lists = self.lists.as_mut().expect("a walk of lists");
        if lists.files[i] >= edit || (self.slots[i].host.is_some() && !lists.has(edit, &id)) {
            return;
        }
        lists.files[i] = edit;
        if let Some(host) = &mut self.slots[i].host {
            host.relist(&lists.edits[edit], edit);
            self.did("reload");
        }
    }

    /// Another weight, or out of the placement and back.
    fn edit_some(&mut self) {
        let (n, how) = (self.below(8), self.below(3));
        self.lists_mut().edit(|list| {
            let at = usize::try_from(n).expect("small") % list.len().max(1);
            let Some(member) = list.get_mut(at) else { return };
            if how > 0 {
                let heavy = member.weight == Weight::default();
                member.weight = Weight::new(if heavy { 1 } else { 100 }).expect("a weight");
            } else if member.state == MemberState::Active {
                member.state = MemberState::Draining;
            } else {
                member.state = MemberState::Active;
            }
        });
        self.did("edit");
    }

    /// Whoever has ended may be taken off.
    fn take_off_some(&mut self) {
        let ended: Vec<usize> = (0..self.slots.len()).filter(|&i| self.slots[i].host.is_none()).collect();
        if let Some(i) = self.pick(&ended) {
            self.take_off(i);
        }
    }

    fn take_off(&mut self, i: usize) {
        let id = self.slots[i].id.clone();
        let lists = self.lists_mut();
        if !lists.has(lists.newest(), &id) {
            return;
        }
        lists.edit(|list| list.retain(|member| member.node_id != id));
        let edit = lists.newest();
        lists.off.push((id, edit));
        self.did("taken off");
    }

    /// Who dials: one of the two knows the other, and asks to be dialled if it has the higher id.
    pub fn are_acquainted(&self, a: usize, b: usize) -> bool {
        let knows = |a: usize, b: usize| self.host(a).knows(&self.slots[b].id);
        self.lists.is_none() || knows(a, b) || knows(b, a)
    }

    /// Before time passes: whoever starts meets those who do not list it, or whom it does not list; or it has asked
    /// to be dialled, and was told that it is not counted (A5).
    pub fn meet_all(&mut self) {
        if self.lists.is_none() {
            return;
        }
        let awake = self.awake();
        let pairs = awake.iter().flat_map(|&new| awake.iter().map(move |&other| (new, other)));
        for (new, other) in pairs.collect::<Vec<(usize, usize)>>() {
            if !self.may_meet(new, other) {
                continue;
            }
            let lists = |a: usize, b: usize| self.host(a).lists(&self.slots[b].id);
            if lists(new, other) && lists(other, new) {
                continue;
            }
            if new > other && lists(new, other) && self.below(2) == 0 {
                self.did("uncounted");
                let id = self.slots[other].id.clone();
                self.feed(new, Input::Uncounted(id));
            } else {
                self.meet(new, other);
            }
        }
    }

    /// Before a view is shown: whoever starts from a list without a node that runs was reached by that one. Nothing
    /// in the product waits for it (A5 asks it of the operator).
    pub fn meet_the_unlisted(&mut self) {
        if self.lists.is_none() {
            return;
        }
        for new in self.awake() {
            for other in self.awake() {
                if !self.may_meet(new, other) {
                    continue;
                }
                let id = &self.slots[other].id;
                if self.host(new).listed.views.last().is_none_or(|view| view.member(id).is_none()) {
                    self.did("met unlisted");
                    self.meet(new, other);
                }
            }
        }
    }

    /// Whether one is starting, and the other could reach it and has not.
    fn may_meet(&self, new: usize, other: usize) -> bool {
        let linked = |id: &NodeId| self.node(new).linked().any(|linked| linked == id);
        new != other
            && self.is_awake(new)
            && self.is_awake(other)
            && self.node(new).fit_epoch.is_none()
            && self.are_acquainted(new, other)
            && !linked(&self.slots[other].id)
    }

    /// What waits between the two arrives, and their link is up.
    fn meet(&mut self, a: usize, b: usize) {
        for round in 0..6 {
            let lanes: Vec<_> = self
                .wire
                .busy()
                .into_iter()
                .filter(|l| (l.0 == a && l.1 == b) || (l.0 == b && l.1 == a))
                .collect();
            for lane in lanes {
                while self.wire.lanes.contains_key(&lane) && self.is_awake(lane.1) {
                    self.deliver_from(lane);
                }
            }
            if round == 0 && self.is_awake(a.min(b)) && self.undialled().contains(&(a.min(b), a.max(b))) {
                self.dial(a.min(b), a.max(b));
            }
        }
    }

    /// At rest all have one list, nobody leaves, and the operator has said who has ended.
    pub fn agree(&mut self) {
        if self.lists.is_none() {
            return;
        }
        let drained: Vec<NodeId> = self.lists().edits[self.lists().newest()]
            .iter()
            .filter(|m| m.state == MemberState::Draining)
            .map(|m| m.node_id.clone())
            .collect();
        if drained.len() == self.lists().edits[self.lists().newest()].len() {
            self.lists_mut()
                .edit(|list| list.iter_mut().for_each(|member| member.state = MemberState::Active));
        }
        for i in 0..self.slots.len() {
            let newest = self.lists().newest();
            self.reload(i, newest);
        }
        // Everywhere: who starts may wait for one of whom it has only heard.
        let ended = self.slots.iter().filter(|slot| slot.host.is_none());
        let ended: Vec<_> = ended.map(|slot| (slot.id.clone(), slot.life)).collect();
        for i in self.awake() {
            if self.node(i).stage == Stage::Draining {
                self.feed(i, Input::Serve);
                self.host_mut(i).open = self.node(i).opened;
            }
            for (id, life) in ended.iter().cloned() {
                self.feed(i, Input::Forget(id, life));
            }
        }
    }

    /// Whether users have a home.
    pub fn somebody_is_home(&self) -> bool {
        let is_home = |member: &Member| member.state == MemberState::Active;
        match &self.lists {
            Some(lists) => lists.edits[lists.newest()].iter().any(is_home),
            None => self.source.records.values().any(is_home),
        }
    }

    /// At rest: who has ended comes back, or is taken off.
    pub fn end_of_lists(&mut self, ended: Ended) {
        for i in (0..self.slots.len()).filter(|&i| self.slots[i].host.is_none()).collect::<Vec<_>>() {
            let id = self.slots[i].id.clone();
            let listed = self.lists().has(self.lists().newest(), &id);
            if listed && ended == Ended::ComeBack {
                self.start(i);
            } else if listed {
                self.take_off(i);
            }
        }
        self.agree();
    }
}

/// A node `a` whose list has it and `b`, linked with that; `b` knows these.
fn linked(rules: Rules, knows: &[&str]) -> Node {
    let mut node = Node::with_rules(edges::identity(), Mono(u64::MAX), rules).with_views(Views::OwnLists);
    edges::show(&mut node, edges::view(1, &["a", "b"], 100));
    node.handle(edges::NOW, Input::Opened(edges::id("b")));
    let known =
        |name: &&str| Known { node: edges::id(name), incarnation: Incarnation(3), rpc_addr: Text::default() };
    edges::from_b(
        &mut node,
        Body::HelloAck(Hello {
            node: edges::id("b"),
            incarnation: Incarnation(1),
            first_epoch: Epoch(1),
            registered_epoch: Epoch(1),
            view_epoch: Epoch(1),
            fingerprint: Fingerprint(1),
            knows: knows.iter().map(known).collect(),
        }),
    );
    node
}

/// Whether a push to a user who is at home here is complete.
fn is_complete(node: &mut Node, ticket: u64) -> bool {
    let user = edges::homed(node, "a").remove(0);
    let out = edges::push(node, ticket, std::slice::from_ref(&user));
    let leg = out.iter().find_map(|output| match output {
        Output::Mail(Mail::Deliver { leg, .. }) => Some(*leg),
        _ => None,
    });
    let delivered =
        Input::Delivered { leg: leg.expect("a copy for the shards"), results: vec![(user, Vec::new())] };
    let out = node.handle(edges::NOW, delivered);
    let verdict = out.iter().find_map(|output| match output {
        Output::Verdict { verdicts, .. } => Some(verdicts[0].complete),
        _ => None,
    });
    verdict.expect("nobody else is asked")
}

/// The next process of that name need not wait for this node, if it does not reach it: it is listed here.
#[test]
fn a_listed_name_is_accounted_for_after_a_goodbye_until_the_operator_says_otherwise() {
    let verdicts = |rules| {
        let mut node = linked(rules, &[]);
        edges::from_b(&mut node, Body::Goodbye);
        let after_goodbye = is_complete(&mut node, 1);
        node.handle(edges::NOW, Input::Forget(edges::id("b"), Incarnation(1)));
        (after_goodbye, is_complete(&mut node, 2))
    };
    assert_eq!(verdicts(Rules::default()), (false, true));
    assert_eq!(verdicts(Rules::without(Rule::NamesStayAccounted)), (true, true));
}

#[test]
fn a_stranger_that_the_operator_has_forgotten_is_not_waited_for_after_the_next_view() {
    let mut node = linked(Rules::default(), &["c"]);
    assert_eq!(node.awaited().collect::<Vec<_>>(), [&edges::id("c")]);
    node.handle(edges::NOW, Input::Forget(edges::id("c"), Incarnation(3)));
    assert_eq!(node.awaited().count(), 0);
    edges::show(&mut node, edges::view(2, &["a", "b"], 1));
    assert_eq!(node.awaited().count(), 0, "b has named it, and nothing has changed since");
}
