//! The source of the membership: records, their history, nothing of its own will.

use std::collections::BTreeMap;

use crate::placement::view::{Epoch, Incarnation, Member, MemberState, NodeId, View, Weight};

#[derive(Default)]
pub struct Source {
    epoch: u64,
    pub records: BTreeMap<NodeId, Member>,
    pub history: Vec<View>,
}

impl Source {
    fn written(&mut self) -> Epoch {
        self.history.push(View::new(Epoch(self.epoch), self.records.values().cloned().collect()));
        Epoch(self.epoch)
    }

    /// A new life: its incarnation is the epoch of the write.
    pub fn join(&mut self, id: &NodeId) -> Epoch {
        self.epoch += 1;
        let epoch = Epoch(self.epoch);
        let mut member = Member::new(id.clone());
        member.incarnation = Incarnation(self.epoch);
        member.first_epoch = epoch;
        member.registered_epoch = epoch;
        member.state = MemberState::Joining;
        self.records.insert(id.clone(), member);
        self.written()
    }

    fn own(&mut self, id: &NodeId, incarnation: Incarnation) -> Option<&mut Member> {
        self.records.get_mut(id).filter(|member| member.incarnation == incarnation)
    }

    /// The same registration in another state; refused if the record is lost.
    pub fn record(&mut self, id: &NodeId, incarnation: Incarnation, state: MemberState) {
        let Some(own) = self.own(id, incarnation) else { return };
        if own.state == MemberState::Lost || own.state == state {
            return;
        }
        own.state = state;
        self.epoch += 1;
        self.written();
    }

    /// A new registration of a record that was lost.
    pub fn register(&mut self, id: &NodeId, incarnation: Incarnation, state: MemberState) -> Option<Epoch> {
        let next = Epoch(self.epoch + 1);
        let own = self.own(id, incarnation)?;
        own.state = state;
        own.registered_epoch = next;
        self.epoch += 1;
        Some(self.written())
    }

    pub fn lose(&mut self, id: &NodeId) {
        if let Some(member) = self.records.get_mut(id).filter(|member| member.state != MemberState::Lost) {
            member.state = MemberState::Lost;
            self.epoch += 1;
            self.written();
        }
    }

    pub fn delete(&mut self, id: &NodeId) {
        if self.records.remove(id).is_some() {
            self.epoch += 1;
            self.written();
        }
    }

    /// A transaction: only the record of that life and registration, and only if it is lost.
    pub fn forget(&mut self, id: &NodeId, (incarnation, registered): (Incarnation, Epoch)) {
        let is_meant =
            |own: &mut Member| own.state == MemberState::Lost && own.registered_epoch == registered;
        if self.own(id, incarnation).is_some_and(is_meant) {
            self.delete(id);
        }
    }

    /// The operator moves users: another weight, or out of the placement and back.
    pub fn flip(&mut self, id: &NodeId, how: u64) {
        let Some(member) = self.records.get_mut(id) else { return };
        match (how, member.state) {
            (0, _) => {
                member.weight = Weight::new(if member.weight == Weight::default() { 1 } else { 100 }).unwrap()
            }
            (_, MemberState::Active) => member.state = MemberState::Draining,
            (_, MemberState::Draining) => member.state = MemberState::Active,
            _ => return,
        }
        self.epoch += 1;
        self.written();
    }

    pub fn newest(&self) -> Option<&View> {
        self.history.last()
    }
}
