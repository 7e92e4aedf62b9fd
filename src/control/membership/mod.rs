//! The membership of the cluster as one source has it (etcd, Kubernetes or a list), and this node's record in it
//! (routing-protocol.md sections 3 and 5.1). Decides nothing: the router on rpc thread 0 does.
//!
//! Call order: the thread writes the own record as joining and takes its lease, then says [`MembershipNews::Joined`]
//! once; from then on it tells what it sees, and does what it is ordered.

use crate::cluster::protocol::io::OwnRecord;
use crate::placement::view::{Epoch, Incarnation, MemberState, NodeId, View};
use crate::time::Mono;

/// What the control thread tells of the membership. In order, and none lost; of several views that wait only the
/// newest.
#[derive(Clone, Debug)]
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
    /// The lease was regained after it had ended, and then the own record was read.
    Regained {
        /// See [`MembershipNews::Lease`].
        until: Mono,
        /// What became of the own record.
        own: OwnRecord,
    },
}

/// What the router orders. Each is tried until it is done or pointless.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MembershipOrder {
    /// Write the own record in this state: the same registration.
    Record(MemberState),
    /// The own record is lost: write it back. A new registration, answered by [`MembershipNews::Recorded`].
    Register(MemberState),
    /// Delete the record of a lost node.
    Forget(NodeId, Incarnation),
    /// Delete the own record, give the lease back.
    Leave,
}
