//! The membership of the cluster as one source has it (etcd, Kubernetes or a list), and this node's record in it
//! (routing-protocol.md sections 3 and 5.1). Decides nothing: the router on rpc thread 0 does.
//!
//! Call order: the thread writes the own record as joining and takes its lease, then says [`MembershipNews::Joined`]
//! once; from then on it tells what it sees, and does what it is ordered.
//!
//! Who is no member himself may look on: he writes nothing and has no lease.
//!
//! `listed` is a file, `etcd` keeps the own record and lease there and `etcd_watch` follows the others' (`etcd_txn`:
//! their words), `record` is the form of both; `kubernetes` keeps a `Lease` object there (`lease_object`); `telling` is
//! what is believed and told, `todo` what is ordered and not done, `lock` the file that keeps a second process from the
//! node's name on this host.

mod etcd;
mod etcd_txn;
mod etcd_watch;
mod kubernetes;
mod lease_object;
mod listed;
pub mod lock;
mod record;
mod telling;
mod todo;

use tokio::sync::{Notify, mpsc};

use self::etcd::Registrant;
use self::etcd_watch::{ClusterIds, Sight, Watcher};
use self::kubernetes::Pods;
use self::listed::List;
use self::record::Keys;
use self::telling::Telling;
use self::todo::Orders;
use super::counts::Counts;
use super::etcd::link::Dial;
use super::kubernetes::api::Dial as KubernetesDial;
use super::mailbox::Wanted;
use super::news::Board;
use super::plan::{ControlFault, EtcdServers};
use crate::cluster::endpoints::Confirmation;
use crate::cluster::protocol::io::OwnRecord;
use crate::placement::view::{Epoch, Incarnation, Member, MemberState, NodeId, View};
use crate::time::{Mono, Now};

/// What the thread is to do about the membership.
#[derive(Debug)]
pub struct MembershipPlan {
    /// This node: name, weight, addresses and labels. State and epochs are worked out; the incarnation counts with
    /// [`SourcePlan::Listed`] only. `None`: the members are only looked at. Nothing is written, nothing is ordered;
    /// the thread tells views and, as [`News::Discovery`](super::news::News::Discovery), how fresh they are.
    pub own: Option<Member>,
    /// Where the members are.
    pub source: SourcePlan,
    /// When a view is believed in which the active members are gone, or half of them; default
    /// [`super::plan::CONFIRMATION`].
    pub confirmation: Confirmation,
}

/// Where the members are.
#[derive(Debug)]
pub enum SourcePlan {
    /// A file in the format of `pinion route` (`cluster::members`), which is read again when it changes. Nobody is
    /// ever lost; the lease always holds.
    Listed(std::path::PathBuf),
    /// Records in etcd.
    Etcd(Box<EtcdMembers>),
    /// Pods and their `Lease` objects.
    Kubernetes(Box<KubernetesMembers>),
}

/// Pods and their `Lease` objects. The node's name must be its pod's.
#[derive(Debug)]
pub struct KubernetesMembers {
    /// See [`super::plan::KubernetesPlan::server`].
    pub server: String,
    /// See [`super::plan::KubernetesPlan::account`].
    pub account: std::path::PathBuf,
    /// Where the pods are.
    pub namespace: String,
    /// Which pods may be members, as a label selector.
    pub selector: String,
    /// Seconds that a lease holds without a renewal.
    pub lease_s: u32,
}

/// Records in etcd.
#[derive(Debug)]
pub struct EtcdMembers {
    /// The servers.
    pub servers: EtcdServers,
    /// First part of each key, without slashes at its ends.
    pub root: String,
    /// Seconds that a lease holds without a renewal. etcd raises less than about 2.
    pub lease_s: u32,
}

/// What the control thread tells of the membership. In order, and none lost; of several views that wait only the
/// newest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MembershipNews {
    /// The own record is written, as joining. First, once.
    Joined {
        /// This life.
        incarnation: Incarnation,
        /// Epoch of the write.
        first_epoch: Epoch,
        /// The lease holds until then (A4).
        lease_until: Mono,
    },
    /// The members, believed: `cluster/acceptor.rs` has decided. At an epoch of the own registration or later.
    View(View),
    /// The answer to [`MembershipOrder::Register`].
    Recorded(Epoch),
    /// A renewal succeeded; the lease holds until then, counted from its sending, times 0.99 (A4).
    Lease(Mono),
    /// The lease was renewed or regained, and then the own record was read. The sources say this and not
    /// [`MembershipNews::Lease`] wherever the reader may have seen the lease end: it took the last news late.
    Regained {
        /// See [`MembershipNews::Lease`].
        until: Mono,
        /// What became of the own record.
        own: OwnRecord,
    },
    /// What keeps this node from its record, its lease or the others', in words for the operator. `None`: nothing any
    /// more.
    Trouble(Option<String>),
}

/// What the router orders. Each is tried until it is done or pointless.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MembershipOrder {
    /// Write the own record in this state: the same registration.
    Record(MemberState),
    /// The own record is lost: write it back. A new registration, answered by [`MembershipNews::Recorded`].
    Register(MemberState),
    /// Delete the record of a lost node: of this life, and registered last at this epoch. `None`: by the word of the
    /// operator, however often it has registered.
    Forget(NodeId, Incarnation, Option<Epoch>),
    /// Delete the own record, give the lease back.
    Leave,
}

/// The source, checked.
enum Source {
    Listed(Box<List>),
    Etcd(Box<EtcdMembers>, Dial),
    Kubernetes(Box<KubernetesMembers>, KubernetesDial),
}

/// The plan, checked, as what can go to the thread.
pub(super) struct Membership {
    own: Option<Member>,
    source: Source,
    confirmation: Confirmation,
}

impl Membership {
    /// Checks the plan.
    pub(super) fn new(plan: MembershipPlan) -> Result<Self, ControlFault> {
        let MembershipPlan { own, source, confirmation } = plan;
        let source = match source {
            SourcePlan::Listed(path) => Source::Listed(Box::new(List::new(path, own.as_ref())?)),
            SourcePlan::Etcd(plan) => {
                let dial = Dial::members(&plan.servers, &plan.root)?;
                Source::Etcd(plan, dial)
            }
            SourcePlan::Kubernetes(plan) => {
                let dial = KubernetesDial::members(&plan)?;
                Source::Kubernetes(plan, dial)
            }
        };
        Ok(Self { own, source, confirmation })
    }

    /// Keeps the own record and tells of the others', until the end is wanted and the orders are done.
    pub(super) async fn run_until_end(
        self,
        orders: mpsc::Receiver<MembershipOrder>,
        (board, counts, now): (&Board, &Counts, fn() -> Now),
        wanted: Wanted,
    ) {
        let telling = Telling::new(self.confirmation, board, counts, now);
        let orders = Orders::new(orders, wanted);
        match (self.source, self.own) {
            (Source::Listed(list), _) => list.follow_until_end(&telling, orders).await,
            (Source::Kubernetes(plan, dial), Some(own)) => {
                Pods::new(&plan, own, &dial, &telling).serve_until_end(orders).await;
            }
            (Source::Kubernetes(plan, dial), None) => {
                kubernetes::look_on(&plan, &dial, &telling, orders).await;
            }
            (Source::Etcd(plan, dial), Some(own)) => {
                Registrant::new(&plan, own, &dial, &telling).serve_until_end(orders).await;
            }
            (Source::Etcd(plan, dial), None) => look_on(&plan, &dial, &telling, orders).await,
        }
    }
}

/// Tells of the records in etcd, until the end is wanted. Writes nothing.
async fn look_on(plan: &EtcdMembers, dial: &Dial, telling: &Telling<'_>, mut orders: Orders) {
    let (keys, source) = (Keys::new(&plan.root), ClusterIds::default());
    let sight = Sight { keys: &keys, dial, telling, lease_s: plan.lease_s, own: None, source: &source };
    let (mut watcher, look) = (Watcher::new(sight), Notify::new());
    let end = async {
        while !orders.are_over() {
            orders.more().await;
        }
    };
    tokio::select! {
        () = watcher.watch_always(&look) => {}
        () = end => {}
    }
}
