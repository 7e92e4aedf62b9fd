//! What depends on several settings at once with `backend: openim`: defaults that follow from `compat` and from the
//! machine, combinations that cannot work and combinations that likely are a mistake. Pure but for the TLS files.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use super::super::fault::{Fault, Origin};
use super::super::machine::Machine;
use super::super::pem;
use super::super::settings::Draft;
use super::super::value::{Endpoint, label};
use super::super::{Config, Judge};
use super::{Backend, DiscoveryKind, PerService, RedisMode, members, register_ip};
use crate::backend::openim::Service;
use crate::wire::compat::Compat;

/// Works out what was left to `auto`, and what `compat` decides.
pub(in crate::config) fn fill_in(
    draft: &mut Draft,
    machine: &Machine,
    origins: &mut BTreeMap<&'static str, Origin>,
) {
    let config = &mut draft.config;
    let compat = config.openim.compat;
    let defaults = PerService::names(compat);
    let (given, names) = (&draft.names, &mut config.openim.discovery.names);
    let mut derive = |key: &'static str, from: String| origins.insert(key, Origin::Derived(from));
    for (key, given, default, name) in [
        ("discovery.service_auth", &given.auth, defaults.auth, &mut names.auth),
        ("discovery.service_user", &given.user, defaults.user, &mut names.user),
        ("discovery.service_msg", &given.msg, defaults.msg, &mut names.msg),
        ("discovery.service_push", &given.push, defaults.push, &mut names.push),
        ("discovery.service_gateway", &given.gateway, defaults.gateway, &mut names.gateway),
    ] {
        if given.is_none() {
            derive(key, format!("OpenIM's name, compat {}", name_of(compat)));
        }
        *name = given.clone().unwrap_or(default);
    }
    let listen = config.rpc.listen.ip();
    let bound = (!listen.is_unspecified()).then_some(listen);
    if draft.register_ip.is_none() {
        let from = if bound.is_some() { "the address of rpc.listen" } else { "the interfaces that are up" };
        derive("discovery.register_ip", from.to_owned());
    }
    let ip = register_ip(draft.register_ip.or(bound), &machine.interfaces);
    config.openim.discovery.register_ip = ip.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
    let silent = origins.get("rpc.legacy_service").is_none_or(|origin| !origin.is_given());
    if config.backend == Backend::Openim && compat == Compat::V35 && silent {
        config.rpc.legacy_service = true;
        origins.insert("rpc.legacy_service", Origin::Derived("compat is v3.5".to_owned()));
    }
}

fn name_of(compat: Compat) -> &'static str {
    Compat::NAMES.iter().find(|(_, c)| *c == compat).map(|(name, _)| *name).unwrap_or_default()
}

/// The ring of OpenIM 3.5 on Kubernetes; nothing elsewhere. `env` has the variables of this process.
///
/// # Errors
/// All that is wrong with those variables.
pub(in crate::config) fn ring(config: &Config, env: &[(String, String)]) -> Result<Vec<String>, Vec<Fault>> {
    let openim = &config.openim;
    let wanted = config.backend == Backend::Openim
        && openim.compat == Compat::V35
        && openim.discovery.kind == DiscoveryKind::Kubernetes;
    if wanted { members(env, &openim.discovery.names.gateway) } else { Ok(Vec::new()) }
}

/// Combinations that cannot work. None with another backend.
pub(in crate::config) fn faults(judge: Judge<'_>, machine: &Machine) -> Vec<Fault> {
    if judge.config.backend != Backend::Openim {
        return Vec::new();
    }
    let mut faults = discovery(judge, machine);
    faults.extend(etcd_tls(judge));
    let openim = &judge.config.openim;
    let redis = &openim.redis;
    if redis.mode == RedisMode::Cluster && redis.db != 0 {
        faults.push(judge.fault("redis.db", "a cluster has database 0 only", "0"));
    }
    if redis.mode == RedisMode::Sentinel {
        let why = "needed with redis.mode sentinel";
        if redis.master_name.is_empty() {
            faults.push(judge.fault("redis.master_name", why, "redis-master"));
        }
        if redis.sentinel_addresses.is_empty() {
            faults.push(judge.fault("redis.sentinel_addresses", why, "sentinel-0:26379"));
        }
    }
    let hooks = &openim.webhooks;
    let enabled = [("online", hooks.online), ("offline", hooks.offline), ("kick_off", hooks.kick_off)];
    if let Some((name, _)) = enabled.iter().find(|(_, hook)| hook.enabled)
        && hooks.url.is_empty()
    {
        let why = format!("needed with webhooks.{name}: nobody knows where to send it");
        faults.push(judge.fault("webhooks.url", &why, "http://127.0.0.1:10006/callbackExample"));
    }
    if let Some(Err(why)) = hooks.ca.as_deref().map(pem::trusted) {
        faults.push(judge.fault("webhooks.ca", &why, ""));
    }
    faults
}

fn discovery(judge: Judge<'_>, machine: &Machine) -> Vec<Fault> {
    let mut faults = Vec::new();
    let (compat, discovery) = (judge.config.openim.compat, &judge.config.openim.discovery);
    if compat == Compat::V35 && discovery.kind == DiscoveryKind::Etcd {
        let why = "OpenIM 3.5 knows zookeeper and Kubernetes, not etcd: use kubernetes, or static with the services' \
                   addresses";
        faults.push(judge.fault("discovery.kind", why, "static"));
    }
    if discovery.kind == DiscoveryKind::Static {
        for (key, addresses) in [
            ("discovery.static_auth", &discovery.fixed.auth),
            ("discovery.static_user", &discovery.fixed.user),
            ("discovery.static_msg", &discovery.fixed.msg),
            ("discovery.static_push", &discovery.fixed.push),
        ] {
            if addresses.is_empty() {
                faults.push(judge.fault(key, "needed with discovery.kind static", "10.0.0.1:10200"));
            }
        }
    }
    if compat == Compat::V35 && discovery.kind == DiscoveryKind::Kubernetes {
        let names = &discovery.names;
        for (key, name) in [
            ("discovery.service_auth", &names.auth),
            ("discovery.service_user", &names.user),
            ("discovery.service_msg", &names.msg),
            ("discovery.service_push", &names.push),
        ] {
            if Endpoint::parse(name).is_none() {
                let why = "with compat v3.5 in Kubernetes a service is called by its name and port, as OpenIM's chart \
                           has it in rpcRegisterName";
                faults.push(judge.fault(key, why, "openimserver-openim-rpc-auth:80"));
            }
        }
    }
    let found = judge.config.rpc.listen.ip().is_unspecified()
        && judge.is_silent("discovery.register_ip")
        && register_ip(None, &machine.interfaces).is_none();
    if discovery.kind == DiscoveryKind::Etcd && found {
        let why = "no interface that is up has an IPv4 address besides the loopback: say where others reach the gRPC \
                   port";
        faults.push(judge.fault("discovery.register_ip", why, "10.0.0.2"));
    }
    if discovery.metrics && discovery.kind != DiscoveryKind::Etcd {
        faults.push(judge.fault(
            "discovery.metrics",
            "needs discovery.kind etcd: only etcd is told",
            "false",
        ));
    }
    faults
}

fn etcd_tls(judge: Judge<'_>) -> Vec<Fault> {
    let discovery = &judge.config.openim.discovery;
    if discovery.kind != DiscoveryKind::Etcd {
        return Vec::new();
    }
    let etcd = &discovery.etcd;
    let mut faults = Vec::new();
    let mut add = |key: &'static str, why: &str| faults.push(judge.fault(key, why, ""));
    match (etcd.tls(), &etcd.cert, &etcd.key) {
        (_, Some(_), None) => {
            add("discovery.etcd_key", "needed beside discovery.etcd_cert: the key of that certificate")
        }
        (_, None, Some(_)) => {
            add("discovery.etcd_cert", "needed beside discovery.etcd_key: the certificate of that key")
        }
        (false, Some(_), Some(_)) => {
            add(
                "discovery.etcd_ca",
                "needed beside discovery.etcd_cert, or addresses with https://: certificates are shown over TLS only",
            );
        }
        _ => {}
    }
    if let Some(Err(why)) = etcd.ca.as_deref().map(pem::trusted) {
        add("discovery.etcd_ca", &why);
    }
    if let Some(Err(why)) = etcd.cert.as_deref().map(pem::certificates) {
        add("discovery.etcd_cert", &why);
    }
    if let Some(Err(why)) = etcd.key.as_deref().map(pem::private_key) {
        add("discovery.etcd_key", &why);
    }
    faults
}

/// Combinations that work and likely are not what the operator wants.
pub(in crate::config) fn warnings(config: &Config) -> Vec<String> {
    if config.backend != Backend::Openim {
        return Vec::new();
    }
    let mut warnings = Vec::new();
    let discovery = &config.openim.discovery;
    let etcd = discovery.kind == DiscoveryKind::Etcd;
    if etcd && discovery.register_ip.to_canonical().is_loopback() {
        warnings.push(format!(
            "discovery.register_ip is {}: OpenIM's services on other machines will not reach this gateway",
            discovery.register_ip
        ));
    } else if etcd && config.rpc.listen.ip().to_canonical().is_loopback() {
        warnings.push(format!(
            "rpc.listen is {}, and {} is registered: nobody will reach this gateway there",
            config.rpc.listen, discovery.register_ip
        ));
    }
    if discovery.kind == DiscoveryKind::Kubernetes && config.openim.compat != Compat::V35 {
        let impossible = |service: &&Service| label(discovery.names.of(**service)).is_none();
        warnings.extend(Service::ALL.iter().filter(impossible).map(|service| {
            let name = discovery.names.of(*service);
            format!(
                "{service:?} is called {name}, which no Service of Kubernetes can be: set discovery.service_*"
            )
        }));
    }
    if etcd && discovery.etcd.username.is_empty() && !discovery.etcd.password.is_empty() {
        warnings.push("discovery.etcd_password is not used: discovery.etcd_username is empty".to_owned());
    }
    warnings
}

#[cfg(test)]
#[path = "combine_tests.rs"]
mod tests;
