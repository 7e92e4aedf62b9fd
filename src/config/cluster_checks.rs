//! What `cluster.*` amounts to: the node's own name, and combinations that cannot work or are likely not meant.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;

use super::Config;
use super::cluster::{ClusterConfig, MembershipSource, PushMode};
use super::fault::{Fault, Origin};
use super::load::Judge;
use super::machine::Machine;
use super::member_file::MemberFile;
use super::openim::{POD_ENV, register_ip};
use crate::cluster::members::{Listed, MemberList};
use crate::placement::Algorithm;
use crate::placement::view::NodeId;

/// The variable that many manifests have the pod's name in; `MY_POD_NAME` is OpenIM's.
pub(super) const POD_NAME_ENV: &str = "POD_NAME";
const HOST_NAME: &str = "/proc/sys/kernel/hostname";

/// The host's name; empty where it cannot be read.
pub fn host_name() -> String {
    std::fs::read_to_string(HOST_NAME).unwrap_or_default().trim().to_owned()
}

/// Works out the node's own name, if it is left to `auto` and there are other nodes.
///
/// # Errors
/// It is no node id; what to do.
pub(super) fn fill_in(
    config: &mut Config,
    env: &[(String, String)],
    origins: &mut BTreeMap<&'static str, Origin>,
) -> Result<(), String> {
    if config.cluster.source == MembershipSource::None || config.cluster.node_id.is_some() {
        return Ok(());
    }
    let variable = |name: &str| {
        let found = env.iter().find(|(n, value)| n == name && !value.trim().is_empty());
        found.map(|(_, value)| (name.to_owned(), value.trim().to_owned()))
    };
    let (from, name) = variable(POD_ENV)
        .or_else(|| variable(POD_NAME_ENV))
        .unwrap_or_else(|| ("the host's name".to_owned(), host_name()));
    match NodeId::new(&name) {
        Ok(node_id) => {
            config.cluster.node_id = Some(node_id);
            origins.insert("cluster.node_id", Origin::Derived(from));
            Ok(())
        }
        Err(why) => Err(format!("{from} is {name:?}: {why}; give this node a name that it keeps")),
    }
}

/// Combinations that cannot work. None for a node that is alone.
pub(super) fn faults(judge: Judge<'_>, machine: &Machine) -> Vec<Fault> {
    let config = judge.config;
    let cluster = &config.cluster;
    let mut faults = Vec::new();
    if cluster.source == MembershipSource::None {
        return faults;
    }
    let reachable = cluster.rpc_address.is_some()
        || !config.rpc.listen.ip().is_unspecified()
        || !judge.is_silent("discovery.register_ip")
        || register_ip(None, &machine.interfaces).is_some();
    if !reachable {
        let why = "no interface that is up has an IPv4 address besides the loopback: say where the other nodes reach \
                   rpc.listen";
        faults.push(judge.fault("cluster.rpc_address", why, "10.0.0.7:10140"));
    }
    if cluster.source == MembershipSource::Static {
        const EXAMPLE: &str = "/etc/pinion/members";
        match &cluster.members {
            None => {
                let why = "cluster.source static needs the list of all nodes, this one included";
                faults.push(judge.fault("cluster.members", why, EXAMPLE));
            }
            Some(path) => {
                if let Err(why) =
                    MemberFile::new(path.clone(), None).read().and_then(|list| fits(config, &list))
                {
                    faults.push(judge.fault("cluster.members", &why, ""));
                }
            }
        }
    }
    faults
}

/// Whether the list has this node, and places users as it does.
fn fits(config: &Config, list: &MemberList) -> Result<(), String> {
    let cluster = &config.cluster;
    let is_own = |listed: &&Listed| Some(&listed.member.node_id) == cluster.node_id.as_ref();
    if !list.members.iter().any(|listed| is_own(&listed)) {
        let own = cluster.node_id.as_ref().map_or("", NodeId::as_str);
        let names: Vec<&str> = list.members.iter().map(|listed| listed.member.node_id.as_str()).collect();
        return Err(format!(
            "this node is {own} (cluster.node_id), and the list has {}: add a line for it",
            names.join(", ")
        ));
    }
    list.places_as(&cluster.placement)
}

/// What clients dial, as the others see it: of a list its line counts.
fn own_url(config: &Config) -> String {
    let ClusterConfig { source, members, node_id, ws_url, .. } = &config.cluster;
    let path = members.as_ref().filter(|_| *source == MembershipSource::Static);
    let list = path.and_then(|path| MemberFile::new(path.clone(), None).read().ok());
    let line = list.and_then(|list| {
        list.members.into_iter().find(|listed| Some(&listed.member.node_id) == node_id.as_ref())
    });
    line.map_or_else(|| ws_url.clone(), |listed| listed.member.ws_url)
}

/// What works and is likely not meant, one line each.
pub(super) fn warnings(config: &Config) -> Vec<String> {
    let cluster = &config.cluster;
    let mut warnings = Vec::new();
    let alone = cluster.source == MembershipSource::None;
    if alone && cluster.push_mode == PushMode::Route {
        warnings.push(
            "cluster.push_mode route: without cluster.source this node knows no other, and answers for its own \
             connections only: a user of another gateway is not reached"
                .to_owned(),
        );
    }
    if !alone && config.assign.listen.is_some() && own_url(config).is_empty() {
        let what = match cluster.source {
            MembershipSource::Static => "the line of this node in cluster.members has no ws=URL",
            _ => "cluster.ws_url is empty",
        };
        warnings.push(format!("{what}: assign.listen is on, and no client is ever sent to this node"));
    }
    if let Some(hook) = &cluster.adopt.hook {
        let why = match std::fs::metadata(hook) {
            _ if !cluster.adopt.is_on() => {
                Some("cluster.adopt names no address, so it is never run".to_owned())
            }
            Ok(file) if !file.is_file() || file.permissions().mode() & 0o111 == 0 => {
                Some("it is no program that can be run (chmod +x)".to_owned())
            }
            Ok(_) => None,
            Err(error) => Some(format!("{error}; no address would be moved to this host")),
        };
        warnings.extend(why.map(|why| format!("cluster.adopt_hook {}: {why}", hook.display())));
    }
    if let (Algorithm::OpenImRing(keys), Some(own)) = (&cluster.placement, &cluster.node_id) {
        let (hashed, members) = (keys.string(own), &config.openim.discovery.members);
        if !members.is_empty() && !members.contains(&hashed) {
            warnings.push(format!(
                "cluster.placement hashes this node as {hashed}, and OpenIM's push has {}: they place users \
                 differently",
                members.join(", ")
            ));
        }
    }
    warnings
}

#[cfg(test)]
#[path = "cluster_checks_tests.rs"]
mod tests;
