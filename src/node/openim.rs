//! What `backend: openim` and `cluster.source` add to a node: the control thread, made from the configuration.

pub(super) mod kubernetes;

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use super::cluster;
use crate::backend::openim::Service;
use crate::config::{
    Backend, Config, DiscoveryConfig, DiscoveryKind, Endpoint, OpenimConfig, RedisConfig, RedisMode,
};
use crate::control;
use crate::control::mailbox::{ControlAddress, ControlThread};
use crate::control::membership::lock::LockFile;
use crate::control::news::{News, NewsPost};
use crate::control::plan::{
    CONFIRMATION, ClientTls, ControlPlan, Credentials, Discovery, EtcdPlan, EtcdServers, PROMETHEUS_LEASE_S,
    PrometheusPlan, RedisPlan, RedisTopology, RegistrationPlan, Subscription, WebhookPlan,
};
use crate::metrics::Block;
use crate::shard::clock;
use crate::shard::mailbox::{RpcAddress, RpcMail};
use crate::wire::compat::Compat;

/// The control thread of a node, for its owner, and how rpc threads reach it.
pub(super) struct Control {
    pub(super) thread: ControlThread,
    pub(super) address: ControlAddress,
    /// Where others reach this node's gRPC port.
    pub(super) own: SocketAddr,
    /// Keeps a second process from this node's name until this one ends.
    _lock: Option<LockFile>,
}

/// Starts it, if OpenIM's services are to answer, or the node is among others. `grpc` and `http` are where this node
/// listens.
///
/// # Errors
/// What cannot be carried out, in words for the operator.
pub(super) fn start(
    config: &Config,
    (grpc, http): (SocketAddr, SocketAddr),
    rpc: RpcAddress,
    block: Arc<Block>,
) -> Result<Option<Control>, String> {
    let among_others = cluster::membership(config, grpc)?;
    if config.backend != Backend::Openim && among_others.is_none() {
        return Ok(None);
    }
    let openim = &config.openim;
    let ip = openim.discovery.register_ip;
    let own = SocketAddr::new(ip, grpc.port());
    let (membership, lock) = among_others.map(|found| (found.plan, found.lock)).unzip();
    let plan = ControlPlan {
        discovery: match config.backend {
            Backend::Openim => discovery(openim, own, SocketAddr::new(ip, http.port()))?,
            Backend::Embedded => Discovery::None,
        },
        redis: (config.backend == Backend::Openim).then(|| redis(openim)),
        webhooks: webhooks(config)?,
        membership,
        news: news_to(rpc),
        now: clock::now,
        block,
    };
    let (address, thread) = control::spawn(plan).map_err(|fault| fault.to_string())?;
    Ok(Some(Control { thread, address, own, _lock: lock.flatten() }))
}

/// Hands news to an rpc thread.
pub(super) fn news_to(rpc: RpcAddress) -> NewsPost {
    Box::new(move |news: News| {
        rpc.post(RpcMail::News(Box::new(news))).map_err(|mail| match mail {
            RpcMail::News(news) => *news,
            _ => News::SubscriptionLost, // only its own kind of mail comes back
        })
    })
}

/// Where webhooks go, if any is sent.
///
/// # Errors
/// `webhooks.ca` cannot be read, in words for the operator.
pub(super) fn webhooks(config: &Config) -> Result<Option<WebhookPlan>, String> {
    let hooks = &config.openim.webhooks;
    if !hooks.any() {
        return Ok(None);
    }
    let authorities = hooks.ca.as_deref().map(read).transpose()?;
    Ok(Some(WebhookPlan { url: hooks.url.clone(), authorities }))
}

fn discovery(config: &OpenimConfig, own: SocketAddr, metrics: SocketAddr) -> Result<Discovery, String> {
    let discovery = &config.discovery;
    match discovery.kind {
        DiscoveryKind::Etcd => Ok(Discovery::Etcd(Box::new(etcd(config, own, metrics)?))),
        DiscoveryKind::Static => fixed(discovery).map(Discovery::Static),
        DiscoveryKind::Kubernetes if config.compat == Compat::V35 => {
            Ok(Discovery::Names(Box::new(kubernetes::names(discovery))))
        }
        DiscoveryKind::Kubernetes => Ok(Discovery::Kubernetes(Box::new(kubernetes::endpoints(discovery)?))),
    }
}

/// Names are looked up once: who wants addresses that change uses a registry.
fn fixed(discovery: &DiscoveryConfig) -> Result<Vec<(Service, Vec<SocketAddr>)>, String> {
    let mut services = Vec::new();
    for service in Service::ALL {
        let mut addresses = Vec::new();
        for Endpoint { host, port } in discovery.fixed.of(service) {
            let found = std::net::ToSocketAddrs::to_socket_addrs(&(host.as_str(), *port))
                .map_err(|error| format!("discovery.static_*: {host}:{port} has no address: {error}"))?;
            addresses.extend(found.take(1));
        }
        services.push((service, addresses));
    }
    Ok(services)
}

/// The servers of etcd, for OpenIM's registry and for the records of the cluster.
///
/// # Errors
/// A file of `discovery.etcd_*` cannot be read, in words for the operator.
pub(super) fn etcd_servers(config: &OpenimConfig) -> Result<EtcdServers, String> {
    let etcd = &config.discovery.etcd;
    let credentials = (!etcd.username.is_empty()).then(|| Credentials {
        username: etcd.username.clone(),
        password: etcd.password.secret().to_owned(),
    });
    let tls = match etcd.tls() {
        false => None,
        true => Some(ClientTls {
            authorities: etcd.ca.as_deref().map(read).transpose()?,
            identity: match (&etcd.cert, &etcd.key) {
                (Some(cert), Some(key)) => Some((read(cert)?, read(key)?)),
                _ => None,
            },
            server_name: None,
        }),
    };
    let addresses = etcd.addresses.iter().map(ToString::to_string).collect();
    Ok(EtcdServers { addresses, credentials, tls })
}

fn etcd(config: &OpenimConfig, own: SocketAddr, metrics: SocketAddr) -> Result<EtcdPlan, String> {
    let DiscoveryConfig { etcd, names, lease_s, .. } = &config.discovery;
    let EtcdServers { addresses, credentials, tls } = etcd_servers(config)?;
    let prometheus = config.discovery.metrics.then(|| PrometheusPlan {
        key: config.metrics_key(),
        target: metrics,
        lease_s: PROMETHEUS_LEASE_S,
    });
    Ok(EtcdPlan {
        addresses,
        root: etcd.root.clone(),
        services: Service::ALL.iter().map(|service| (*service, names.of(*service).clone())).collect(),
        credentials,
        tls,
        confirmation: CONFIRMATION,
        registration: Some(RegistrationPlan {
            service: names.gateway.clone(),
            address: own,
            lease_s: *lease_s,
            prometheus,
        }),
    })
}

fn redis(config: &OpenimConfig) -> RedisPlan {
    let RedisConfig { mode, addresses, username, password, db, master_name, sentinel_addresses } =
        &config.redis;
    let (nodes, topology) = match mode {
        RedisMode::Standalone => (addresses, RedisTopology::Standalone),
        RedisMode::Cluster => (addresses, RedisTopology::Cluster),
        RedisMode::Sentinel => (sentinel_addresses, RedisTopology::Sentinels { master: master_name.clone() }),
    };
    RedisPlan {
        addresses: nodes.iter().map(ToString::to_string).collect(),
        topology,
        username: username.clone(),
        password: password.secret().to_owned(),
        db: i64::from(*db),
        subscription: match config.compat {
            Compat::V35 => Subscription::Off,
            Compat::Patch16 | Compat::Main => Subscription::OnlineChange,
        },
    }
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    fs::read(path).map_err(|error| format!("{}: {error}", path.display()))
}
