//! What is believed of the members: shown, logged and told. The same for every source.

use std::cell::{Cell, RefCell};
use std::time::Duration;

use super::MembershipNews;
use crate::cluster::acceptor::{Acceptance, Acceptor};
use crate::cluster::endpoints::Confirmation;
use crate::cluster::protocol::io::OwnRecord;
use crate::control::counts::Counts;
use crate::control::instances::recheck;
use crate::control::news::{Board, DiscoveryState};
use crate::metrics::Metric;
use crate::placement::view::{Epoch, Incarnation, Member, MemberState, View};
use crate::time::{Mono, Now};

/// See the module's documentation.
pub(super) struct Telling<'a> {
    acceptor: RefCell<Acceptor>,
    confirmation: Confirmation,
    /// Views of earlier epochs do not have this node's registration in them: they are not told.
    registered: Cell<Epoch>,
    lease_until: Cell<Mono>,
    /// What was told of it last.
    trouble: RefCell<Option<String>>,
    board: &'a Board,
    pub(super) counts: &'a Counts,
    pub(super) now: fn() -> Now,
}

impl<'a> Telling<'a> {
    pub(super) fn new(
        confirmation: Confirmation,
        board: &'a Board,
        counts: &'a Counts,
        now: fn() -> Now,
    ) -> Self {
        Self {
            acceptor: RefCell::new(Acceptor::new(confirmation)),
            confirmation,
            registered: Cell::default(),
            lease_until: Cell::default(),
            trouble: RefCell::default(),
            board,
            counts,
            now,
        }
    }

    /// Something keeps this node from its record or lease.
    pub(super) fn trouble(&self, what: String) {
        self.say_trouble(Some(what));
    }

    fn say_trouble(&self, what: Option<String>) {
        if *self.trouble.borrow() != what {
            self.trouble.replace(what.clone());
            self.board.membership(MembershipNews::Trouble(what));
        }
    }

    /// Whether another living process has this node's name.
    pub(super) fn name_taken(&self, by: Option<&str>) {
        let Some(by) = by else { return self.counts.set(Metric::NameTaken, 0) };
        self.counts.set(Metric::NameTaken, 1);
        let text = format!("cluster.node_id is taken: {by}");
        if self.trouble.borrow().as_ref() != Some(&text) {
            self.counts.count(Metric::NameClashes);
            tracing::error!("cluster: {text}");
        }
        self.trouble(text);
    }

    /// The own record is written. First, once.
    pub(super) fn joined(&self, incarnation: Incarnation, first_epoch: Epoch, lease_until: Mono) {
        self.registered.set(first_epoch);
        self.lease_until.set(lease_until);
        if lease_until != Mono(u64::MAX) {
            self.counts.lease(lease_until);
        }
        tracing::info!(%incarnation, epoch = %first_epoch, "cluster: this node has joined");
        self.name_taken(None);
        self.say_trouble(None);
        self.board.membership(MembershipNews::Joined { incarnation, first_epoch, lease_until });
    }

    /// The order to register is done.
    pub(super) fn recorded(&self, epoch: Epoch) {
        self.registered.set(self.registered.get().max(epoch));
        tracing::info!(%epoch, "cluster: this node's record is written back: it registers anew");
        self.board.membership(MembershipNews::Recorded(epoch));
    }

    /// Whether the lease holds, by this node's own clock.
    pub(super) fn is_leased(&self) -> bool {
        (self.now)().mono < self.lease_until.get()
    }

    /// The lease was renewed or taken anew, and then the own record was read.
    pub(super) fn leased(&self, until: Mono, own: OwnRecord) {
        if self.is_leased() {
            self.counts.count(Metric::LeaseRenewals);
        } else {
            self.counts.count(Metric::LeasesRegained);
            tracing::warn!(?own, "cluster: this node's lease had ended and is regained");
        }
        self.lease_until.set(until);
        self.counts.lease(until);
        if own != OwnRecord::Gone {
            self.say_trouble(None);
        }
        self.board.membership(MembershipNews::Regained { until, own });
    }

    /// The own record is found to be another's or gone, `by` whom: a later life has this node's name, or nobody.
    pub(super) fn note_replaced(&self, own: &Member, life: Incarnation, by: Option<&Member>) {
        let Some(by) = by else {
            return tracing::error!("cluster: this node's record is deleted: it ends");
        };
        self.name_taken(Some(&format!(
            "a later process of {} has registered, incarnation {} at {}; this one, incarnation {life} at {}, ends",
            own.node_id, by.incarnation, by.rpc_addr, own.rpc_addr
        )));
    }

    /// See [`Self::note_replaced`], which says it to operators.
    pub(super) fn replaced(&self) {
        let until = self.lease_until.get();
        self.board.membership(MembershipNews::Regained { until, own: OwnRecord::Gone });
    }

    /// The source is another one: the next view must be confirmed.
    pub(super) fn source_changed(&self) {
        self.counts.count(Metric::ViewsHeld);
        self.acceptor.borrow_mut().source_changed();
    }

    /// How fresh the members are, for who only looks on and has no lease to tell it by.
    pub(super) fn watched(&self, state: DiscoveryState) {
        self.board.discovery(state);
    }

    /// Whether a view waits for confirmation: observe again after [`Self::recheck`].
    pub(super) fn is_in_doubt(&self) -> bool {
        self.acceptor.borrow().is_in_doubt()
    }

    pub(super) fn recheck(&self) -> Duration {
        recheck(self.confirmation)
    }

    /// Shows what is there now to what is believed.
    pub(super) fn observe(&self, view: View) {
        if view.epoch() < self.registered.get() {
            return;
        }
        let (epoch, members) = (view.epoch(), view.members().len());
        match self.acceptor.borrow_mut().observe((self.now)().mono, view.clone()) {
            Acceptance::Unchanged | Acceptance::Stale => {}
            Acceptance::Held(suspicion) => {
                self.counts.count(Metric::ViewsHeld);
                tracing::warn!(
                    %epoch, members, ?suspicion,
                    "cluster: most members are gone at once; not believed before it is confirmed"
                );
            }
            Acceptance::Adopted => {
                self.show(&view);
                tracing::info!(%epoch, members, "cluster: members");
                self.board.membership(MembershipNews::View(view));
            }
        }
    }

    fn show(&self, view: &View) {
        for (state, metric) in [
            (MemberState::Joining, Metric::MembersJoining),
            (MemberState::Active, Metric::MembersActive),
            (MemberState::Draining, Metric::MembersDraining),
            (MemberState::Lost, Metric::MembersLost),
        ] {
            let count = view.members().iter().filter(|member| member.state == state).count();
            self.counts.set(metric, count as u64);
        }
        self.counts.set(Metric::ViewEpoch, view.epoch().0);
    }
}
