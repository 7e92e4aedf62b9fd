//! `cluster.*`: this node among others (routing-protocol.md).

use std::path::PathBuf;

use super::value::Endpoint;
use crate::placement::Algorithm;
use crate::placement::view::{NodeId, Weight};

/// Where the members of the cluster are found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MembershipSource {
    /// This node is alone.
    #[default]
    None,
    /// A file with a list (`cluster.members`, the format of `pinion route`).
    Static,
    /// Records in etcd (`discovery.etcd_*`), below `cluster.root`.
    Etcd,
    /// Pods of a selector and their Lease objects.
    Kubernetes,
}

/// What a node does that has no lease and misses a peer (routing-protocol.md section 14).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FenceMode {
    /// It says so; verdicts are not complete.
    #[default]
    Report,
    /// It closes its connections.
    Strict,
}

/// How OpenIM's push service calls gateways.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PushMode {
    /// It asks every node (etcd; OpenIM main): each answers for its own connections.
    #[default]
    Local,
    /// It asks one node by hash (OpenIM 3.5.1 to patch.16 on Kubernetes): that node reaches the user wherever he is.
    Route,
}

/// `cluster.*`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClusterConfig {
    /// `cluster.source`, default none.
    pub source: MembershipSource,
    /// `cluster.node_id`, default the host's name. `None` only where `source` is none and the host's name is no id.
    pub node_id: Option<NodeId>,
    /// `cluster.weight`, default 100.
    pub weight: Weight,
    /// `cluster.labels`: `name=value` pairs for the rules of the assign API, default none.
    pub labels: Vec<(String, String)>,
    /// `cluster.ws_url`: what clients dial; default empty: this node is not handed out.
    pub ws_url: String,
    /// `cluster.rpc_address`: where peers reach `rpc.listen`; `None`: the address and port of `rpc.listen`.
    pub rpc_address: Option<Endpoint>,
    /// `cluster.placement`: `rendezvous` or `ring TEXT` with `{node_id}` in it; default rendezvous.
    pub placement: Algorithm,
    /// `cluster.members`: the file of `source: static`.
    pub members: Option<PathBuf>,
    /// `cluster.root`: first part of every key in etcd, default `pinion`.
    pub root: String,
    /// `cluster.selector`: label selector of the pods of `source: kubernetes`, default `app=pinion`.
    pub selector: String,
    /// `cluster.lease_ms`, default `limits::LEASE_MS`.
    pub lease_ms: u64,
    /// `cluster.fence`, default report.
    pub fence: FenceMode,
    /// `cluster.lock_file`: what keeps two processes from running under one node id; `None`: nothing does.
    pub lock_file: Option<PathBuf>,
    /// `cluster.push_mode`, default local.
    pub push_mode: PushMode,
}
