//! The settings of a node among others; the sixth part of the table.

use super::{AUTO, Reload, Setting, Visibility, auto, name_of, named, path, path_text};
use crate::cluster::adoption::Claim;
use crate::config::cluster::{AdoptConfig, FenceMode, MembershipSource, PushMode};
use crate::config::value::{Endpoint, millis, number, optional, word};
use crate::limits;
use crate::placement::view::{NodeId, Weight};
use crate::placement::{Algorithm, RingKeys};

const SOURCES: [(&str, MembershipSource); 4] = [
    ("none", MembershipSource::None),
    ("static", MembershipSource::Static),
    ("etcd", MembershipSource::Etcd),
    ("kubernetes", MembershipSource::Kubernetes),
];
const FENCES: [(&str, FenceMode); 2] = [("report", FenceMode::Report), ("strict", FenceMode::Strict)];
const PUSH_MODES: [(&str, PushMode); 2] = [("local", PushMode::Local), ("route", PushMode::Route)];
const RENDEZVOUS: &str = "rendezvous";
const RING: &str = "ring ";

fn algorithm(text: &str) -> Option<Algorithm> {
    if text == RENDEZVOUS {
        return Some(Algorithm::Rendezvous);
    }
    RingKeys::parse(text.strip_prefix(RING)?).map(Algorithm::OpenImRing)
}

fn algorithm_text(algorithm: &Algorithm) -> String {
    match algorithm {
        Algorithm::Rendezvous => RENDEZVOUS.to_owned(),
        Algorithm::OpenImRing(keys) => format!("{RING}{}", keys.text()),
    }
}

fn labels(text: &str) -> Option<Vec<(String, String)>> {
    let label = |text: &str| {
        let (name, value) = text.trim().split_once('=')?;
        Some((word(name)?, word(value)?))
    };
    if text.is_empty() { Some(Vec::new()) } else { text.split(',').map(label).collect() }
}

fn labels_text(labels: &[(String, String)]) -> String {
    labels.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(",")
}

fn ws_url(text: &str) -> Option<String> {
    let url = text.starts_with("ws://") || text.starts_with("wss://");
    if text.is_empty() { Some(String::new()) } else { word(text).filter(|_| url) }
}

const MEMBERS: &str = "members";

/// The addresses, and whether members' own count, too.
fn claims(text: &str) -> Option<(Vec<Claim>, bool)> {
    let items: Vec<&str> =
        if text.is_empty() { Vec::new() } else { text.split(',').map(str::trim).collect() };
    let claim = |item: &&str| {
        let (node, address) = item.split_once('=')?;
        Some(Claim { node: NodeId::new(node.trim()).ok()?, address: address.trim().parse().ok()? })
    };
    let listed = items.iter().filter(|item| **item != MEMBERS).map(claim).collect::<Option<Vec<_>>>()?;
    (listed.len() <= limits::ADOPT_ADDRESSES_MAX).then(|| (listed, items.contains(&MEMBERS)))
}

fn claims_text(adopt: &AdoptConfig) -> String {
    let listed = adopt.listed.iter().map(|claim| format!("{}={}", claim.node, claim.address));
    let members = adopt.members.then(|| MEMBERS.to_owned());
    listed.chain(members).collect::<Vec<_>>().join(",")
}

/// What counts once `cluster.source` is not none.
pub(super) const CLUSTER: &[Setting] = &[
    setting!(
        "cluster.source",
        "none",
        "`none`, `static`, `etcd` or `kubernetes`",
        "etcd",
        "Where the other nodes are found; none: this node is alone",
        |d, t| d.config.cluster.source = named(t, &SOURCES)?,
        |c| name_of(c.cluster.source, &SOURCES)
    ),
    setting!(
        "cluster.node_id",
        AUTO,
        "`auto` or letters, digits, `-`, `_` and `.`, at most 253 characters",
        "gateway-0",
        "The stable name of this node; auto: the host's name (in Kubernetes the pod's)",
        |d, t| d.config.cluster.node_id = auto(t, |t| NodeId::new(t).ok())?,
        |c| c.cluster.node_id.as_ref().map_or(AUTO, NodeId::as_str)
    ),
    setting!(
        "cluster.weight",
        "100",
        "a number from 1 to 10000",
        "100",
        "This node's share of the users, relative to the others'",
        |d, t| d.config.cluster.weight = Weight::new(number(t, 1..=u32::from(limits::WEIGHT_MAX))?)?,
        |c| c.cluster.weight.value()
    ),
    setting!(
        "cluster.labels",
        "",
        "nothing, or name=value pairs joined by commas",
        "region=eu,canary=no",
        "What rules of the assign API may ask for",
        |d, t| d.config.cluster.labels = labels(t)?,
        |c| labels_text(&c.cluster.labels)
    ),
    setting!(
        "cluster.ws_url",
        "",
        "a URL with ws:// or wss://, or nothing",
        "wss://gateway-0.example.com/",
        "What clients dial to reach this node; nothing: it is not handed out",
        |d, t| d.config.cluster.ws_url = ws_url(t)?,
        |c| c.cluster.ws_url
    ),
    setting!(
        "cluster.rpc_address",
        AUTO,
        "`auto` or host:port, for an IPv6 address [address]:port",
        "gateway-0.gateway.default.svc.cluster.local:10140",
        "Where the other nodes reach rpc.listen; a name is looked up at each dial; auto: the address it is bound to",
        |d, t| d.config.cluster.rpc_address = auto(t, Endpoint::parse)?,
        |c| c.cluster.rpc_address.as_ref().map_or_else(|| AUTO.to_owned(), Endpoint::to_string)
    ),
    setting!(
        "cluster.peer_ca",
        "",
        "the path of a file, or nothing",
        "/etc/pinion/nodes-ca.pem",
        "Who signed the other nodes' rpc.tls_cert, in PEM form; nothing: rpc.tls_client_ca; read at each reload, for \
         links made after it",
        |d, t| d.config.cluster.peer_ca = optional(t, path)?,
        |c| path_text(c.cluster.peer_ca.as_ref()),
        Live
    ),
    setting!(
        "cluster.peer_name",
        "",
        "a name of a host, or nothing",
        "pinion.internal",
        "The name that each node's rpc.tls_cert has; nothing: the host or address of its cluster.rpc_address",
        |d, t| d.config.cluster.peer_name = optional(t, word)?,
        |c| c.cluster.peer_name.clone().unwrap_or_default(),
        Live
    ),
    setting!(
        "cluster.placement",
        "rendezvous",
        "`rendezvous`, or `ring` and a text with {node_id} in it",
        "ring {node_id}.RELEASE-openim-msggateway-headless.default.svc.cluster.local:88",
        "How users are placed; the same on every node",
        |d, t| d.config.cluster.placement = algorithm(t)?,
        |c| algorithm_text(&c.cluster.placement)
    ),
    setting!(
        "cluster.members",
        "",
        "the path of a file, or nothing",
        "/etc/pinion/members",
        "The list of cluster.source static, in the format of `pinion route`",
        |d, t| d.config.cluster.members = optional(t, path)?,
        |c| path_text(c.cluster.members.as_ref())
    ),
    setting!(
        "cluster.root",
        "pinion",
        "at most 255 visible ASCII characters without blanks",
        "pinion",
        "First part of every key of the cluster in etcd (discovery.etcd_*)",
        |d, t| d.config.cluster.root = word(t.trim_matches('/'))?,
        |c| c.cluster.root
    ),
    setting!(
        "cluster.selector",
        "app=pinion",
        "a label selector without blanks",
        "app=pinion",
        "Which pods are members, with cluster.source kubernetes",
        |d, t| d.config.cluster.selector = word(t)?,
        |c| c.cluster.selector
    ),
    setting!(
        "cluster.lease_ms",
        "10s",
        "a time from 3s to 300s (plain number = milliseconds)",
        "10s",
        "A node that does not renew its record for so long is lost",
        |d, t| d.config.cluster.lease_ms = millis(t, limits::LEASE_LEAST_MS..=limits::LEASE_LONGEST_MS)?,
        |c| c.cluster.lease_ms
    ),
    setting!(
        "cluster.fence",
        "report",
        "`report` or `strict`",
        "strict",
        "What a node does that can renew nothing and misses a peer; strict: it closes its connections",
        |d, t| d.config.cluster.fence = named(t, &FENCES)?,
        |c| name_of(c.cluster.fence, &FENCES)
    ),
    setting!(
        "cluster.lock_file",
        "",
        "the path of a file, or nothing",
        "/run/pinion/gateway-0.lock",
        "Locked while the node runs, so that no second process runs under its name on this host",
        |d, t| d.config.cluster.lock_file = optional(t, path)?,
        |c| path_text(c.cluster.lock_file.as_ref())
    ),
    setting!(
        "cluster.push_mode",
        "local",
        "`local` or `route`",
        "route",
        "How OpenIM's push calls: local: every node (etcd, main); route: one node by hash (3.5.1 to patch.16 on Kubernetes)",
        |d, t| d.config.cluster.push_mode = named(t, &PUSH_MODES)?,
        |c| name_of(c.cluster.push_mode, &PUSH_MODES)
    ),
    setting!(
        "cluster.adopt",
        "",
        "nothing, or node_id=ip:port items and the word `members` joined by commas, 64 at most",
        "gateway-1=10.0.0.8:10001,gateway-2=10.0.0.9:10001",
        "Addresses of other nodes that one survivor serves while their node is dead; members: those in cluster.ws_url",
        |d, t| (d.config.cluster.adopt.listed, d.config.cluster.adopt.members) = claims(t)?,
        |c| claims_text(&c.cluster.adopt)
    ),
    setting!(
        "cluster.adopt_hook",
        "",
        "the path of a program, or nothing",
        "/etc/pinion/adopt",
        "Run as `HOOK take|give NODE IP:PORT` when an address is taken over or given back, to move it to this host",
        |d, t| d.config.cluster.adopt.hook = optional(t, path)?,
        |c| path_text(c.cluster.adopt.hook.as_ref())
    ),
    setting!(
        "cluster.adopt_hook_ms",
        "10s",
        "a time from 100 to 300s (plain number = milliseconds)",
        "10s",
        "The hook takes longer: it is killed, and tried again",
        |d, t| d.config.cluster.adopt.hook_ms = millis(t, 100..=300_000)?,
        |c| c.cluster.adopt.hook_ms
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_addresses_may_be_adopted() {
        let listed =
            |n: usize| (0..n).map(|n| format!("gw-{n}=10.0.0.{n}:10001")).collect::<Vec<_>>().join(",");
        let most = claims(&(listed(limits::ADOPT_ADDRESSES_MAX) + ",members")).unwrap();
        assert_eq!((most.0.len(), most.1), (limits::ADOPT_ADDRESSES_MAX, true));
        assert!(claims(&listed(limits::ADOPT_ADDRESSES_MAX + 1)).is_none());
    }
}
