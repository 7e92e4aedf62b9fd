//! `cluster.*`: this node among others (routing-protocol.md).

use std::path::PathBuf;

use super::peer_tls::PeerTls;
use super::value::Endpoint;
use crate::cluster::adoption::{self, Claim};
use crate::limits;
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
    /// What the files of `rpc.tls_*` and `cluster.peer_*` say; `None`: nodes speak plain HTTP/2, or there are none.
    pub peer_tls: Option<PeerTls>,
    /// `cluster.peer_ca`: who signed the certificates of the other nodes' `rpc.tls_cert`; `None`: `rpc.tls_client_ca`.
    pub peer_ca: Option<PathBuf>,
    /// `cluster.peer_name`: the name that each of those certificates has; `None`: the host or address that is dialled.
    pub peer_name: Option<String>,
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
    /// `cluster.adopt*`.
    pub adopt: AdoptConfig,
}

/// `cluster.adopt*`: addresses of dead nodes that this one takes over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdoptConfig {
    /// `cluster.adopt`: `node_id=ip:port` items, default none.
    pub listed: Vec<Claim>,
    /// The item `members` of `cluster.adopt`: addresses in the members' `ws_url` count as if they were listed.
    pub members: bool,
    /// `cluster.adopt_hook`: run when an address is taken or given; default none.
    pub hook: Option<PathBuf>,
    /// `cluster.adopt_hook_ms`, default `limits::ADOPT_HOOK_MS`.
    pub hook_ms: u64,
}

impl Default for AdoptConfig {
    fn default() -> Self {
        Self { listed: Vec::new(), members: false, hook: None, hook_ms: limits::ADOPT_HOOK_MS }
    }
}

impl AdoptConfig {
    /// Whether any address may be taken over.
    pub fn is_on(&self) -> bool {
        self.members || !self.listed.is_empty()
    }
}

impl ClusterConfig {
    /// Whether another node may serve this node's clients while it is away, perhaps on the same host.
    pub fn is_adopted(&self) -> bool {
        self.source != MembershipSource::None && self.adopt.is_on()
    }

    /// What happens to clients that know only one address while its node is dead, if it should be said at start.
    pub fn stranded(&self) -> Option<String> {
        let url = &self.ws_url;
        let named = !url.is_empty() && adoption::address_of(url).is_none();
        if self.source == MembershipSource::None || self.adopt.is_on() || named {
            return None;
        }
        let dial = if url.is_empty() { "this node's address" } else { url.as_str() };
        Some(format!(
            "clients that know only {dial} are not served while this node is down: no node takes it over \
             (cluster.adopt), and it is no name that could be moved (cluster.ws_url)"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_that_nobody_would_serve_are_named_at_start() {
        let of = |source, url: &str, listed: &[(&str, &str)]| {
            let claim = |&(node, address): &(&str, &str)| Claim {
                node: NodeId::new(node).unwrap(),
                address: address.parse().unwrap(),
            };
            let adopt = AdoptConfig { listed: listed.iter().map(claim).collect(), ..AdoptConfig::default() };
            ClusterConfig { source, ws_url: url.into(), adopt, ..ClusterConfig::default() }.stranded()
        };
        let etcd = MembershipSource::Etcd;
        assert_eq!(of(MembershipSource::None, "", &[]), None);
        assert_eq!(of(etcd, "wss://gateway-0.example.com/", &[]), None);
        assert_eq!(of(etcd, "ws://10.0.0.1:10001", &[("b", "10.0.0.2:10001")]), None);
        assert!(of(etcd, "", &[]).unwrap().contains("know only this node's address are not served"));
        assert!(of(etcd, "ws://10.0.0.1:10001", &[]).unwrap().contains("know only ws://10.0.0.1:10001"));
    }
}
