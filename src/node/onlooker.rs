//! The members of a cluster for who is none of them (`pinion dispatch`, `pinion proxy`): a control thread that watches
//! etcd or Kubernetes and writes nothing there.
//!
//! Not here: lists in files, which their readers look at themselves, and what is done with the members. What always
//! holds: no record, no lease; a source that is away at the start is as one that goes away later.

use std::sync::Arc;
use std::time::Duration;

use super::cluster;
use crate::config::cluster::MembershipSource;
use crate::config::{ClusterConfig, OpenimConfig};
use crate::control;
use crate::control::mailbox::{ControlThread, Leases};
use crate::control::membership::MembershipPlan;
use crate::control::news::NewsPost;
use crate::control::plan::{CONFIRMATION, ControlPlan, Discovery};
use crate::limits::DRAIN_GRACE_MS;
use crate::metrics::Block;
use crate::shard::clock;

/// See the module's documentation.
pub(super) struct Onlooker(ControlThread);

impl Onlooker {
    /// Starts it, if `cluster.source` is etcd or Kubernetes. `post` gets `News::Membership` with views and
    /// `News::Discovery`.
    ///
    /// # Errors
    /// What cannot be carried out whatever the source answers, in words for the operator.
    pub(super) fn start(
        (cluster, openim): (&ClusterConfig, &OpenimConfig),
        post: NewsPost,
        block: Arc<Block>,
    ) -> Result<Option<Self>, String> {
        if !is_watched(cluster) {
            return Ok(None);
        }
        let Some(source) = cluster::source(cluster, openim)? else { return Ok(None) };
        let plan = ControlPlan {
            discovery: Discovery::None,
            redis: None,
            webhooks: None,
            membership: Some(MembershipPlan { own: None, source, confirmation: CONFIRMATION }),
            news: post,
            now: clock::now,
            block,
        };
        let (_, thread) = control::spawn(plan).map_err(|fault| fault.to_string())?;
        Ok(Some(Self(thread)))
    }

    /// Ends it. There is nothing to give back.
    pub(super) fn end(self) {
        self.0.end(Leases::Leave, Duration::from_millis(DRAIN_GRACE_MS));
    }
}

/// Whether the members come from a source that tells of changes, and not from a list.
pub(super) fn is_watched(cluster: &ClusterConfig) -> bool {
    matches!(cluster.source, MembershipSource::Etcd | MembershipSource::Kubernetes)
}

/// Where the members are, in a line for operators.
pub(super) fn place(cluster: &ClusterConfig, openim: &OpenimConfig) -> String {
    let etcd = &openim.discovery.etcd;
    let addresses: Vec<String> = etcd.addresses.iter().map(ToString::to_string).collect();
    match cluster.source {
        MembershipSource::Kubernetes => format!("pods of {} in Kubernetes", cluster.selector),
        _ => format!("etcd at {}, below {}", addresses.join(", "), cluster.root),
    }
}
