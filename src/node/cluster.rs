//! What `cluster.*` asks of the control thread: where the other nodes are found, and what this one says of itself.

use std::net::SocketAddr;

use super::openim::{etcd_servers, kubernetes};
use crate::config::cluster::MembershipSource;
use crate::config::{ClusterConfig, Config, OpenimConfig};
use crate::control::membership::lock::LockFile;
use crate::control::membership::{EtcdMembers, MembershipPlan, SourcePlan};
use crate::control::plan::CONFIRMATION;
use crate::placement::view::{Incarnation, Member};
use crate::shard::clock;

/// What the membership needs, and the lock that must be kept as long as the process runs.
pub(super) struct Membership {
    pub(super) plan: MembershipPlan,
    pub(super) lock: Option<LockFile>,
}

/// `None`: this node is alone. `grpc` is where it listens.
///
/// # Errors
/// What is missing in the configuration, or another process holds the lock; in words for the operator.
pub(super) fn membership(config: &Config, grpc: SocketAddr) -> Result<Option<Membership>, String> {
    let Some(source) = source(&config.cluster, &config.openim)? else { return Ok(None) };
    let cluster = &config.cluster;
    let Some(node_id) = cluster.node_id.clone() else {
        return Err("the host's name is no node id: set cluster.node_id".to_owned());
    };
    let now = clock::now().unix;
    let lock = cluster.lock_file.as_deref().map(|path| LockFile::take(path, &node_id, now)).transpose()?;
    let by_clock = Incarnation(u64::try_from(now.0).unwrap_or(0));
    let own = Member {
        incarnation: lock.as_ref().map_or(by_clock, LockFile::incarnation),
        weight: cluster.weight,
        ws_url: cluster.ws_url.clone(),
        rpc_addr: rpc_address(config, grpc),
        labels: cluster.labels.clone(),
        ..Member::new(node_id)
    };
    Ok(Some(Membership { plan: MembershipPlan { own: Some(own), source, confirmation: CONFIRMATION }, lock }))
}

/// Where the members are; `None`: `cluster.source` is none.
///
/// # Errors
/// What is missing in the configuration, in words for the operator.
pub(super) fn source(cluster: &ClusterConfig, openim: &OpenimConfig) -> Result<Option<SourcePlan>, String> {
    let lease_s = u32::try_from(cluster.lease_ms.div_ceil(1_000)).unwrap_or(u32::MAX);
    Ok(Some(match cluster.source {
        MembershipSource::None => return Ok(None),
        MembershipSource::Static => {
            let path = cluster.members.clone();
            SourcePlan::Listed(path.ok_or("cluster.source is static: name the list in cluster.members")?)
        }
        MembershipSource::Etcd => SourcePlan::Etcd(Box::new(EtcdMembers {
            servers: etcd_servers(openim)?,
            root: cluster.root.clone(),
            lease_s,
        })),
        MembershipSource::Kubernetes => {
            let selection = (cluster.selector.as_str(), lease_s);
            SourcePlan::Kubernetes(Box::new(kubernetes::members(&openim.discovery, selection)?))
        }
    }))
}

/// Where peers reach this node. A port that is open on all addresses is told with the one that OpenIM is told.
fn rpc_address(config: &Config, grpc: SocketAddr) -> String {
    let bound = match grpc.ip().is_unspecified() {
        true => SocketAddr::new(config.openim.discovery.register_ip, grpc.port()),
        false => grpc,
    };
    config.cluster.rpc_address.as_ref().map_or_else(|| bound.to_string(), ToString::to_string)
}
