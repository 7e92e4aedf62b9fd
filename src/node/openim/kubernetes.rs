//! What the control thread is told about Kubernetes: the API server and the service account of this pod, or, for OpenIM
//! 3.5, the names of services and gateways.

use std::env;
use std::fs;

use crate::backend::openim::Service;
use crate::config::{DiscoveryConfig, NAMESPACE_ENV, POD_ENV};
use crate::control::membership::KubernetesMembers;
use crate::control::plan::{CONFIRMATION, KubernetesPlan, NamesPlan, WATCH_S};
use crate::limits::NAMES_ROUND_MS;

/// The variables that the kubelet sets in every pod.
const SERVER_ENV: [&str; 2] = ["KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT"];

/// OpenIM since 3.8.
///
/// # Errors
/// This is no pod, or one without a service account.
pub(super) fn endpoints(config: &DiscoveryConfig) -> Result<KubernetesPlan, String> {
    Ok(KubernetesPlan {
        server: server("discovery.kind")?,
        account: config.service_account.clone(),
        namespace: namespace(config)?,
        services: Service::ALL.iter().map(|s| (*s, config.names.of(*s).clone())).collect(),
        port_name: config.port_name.clone(),
        confirmation: CONFIRMATION,
        watch_s: WATCH_S,
    })
}

/// The pods of `cluster.source: kubernetes`, with a lease of so many seconds.
///
/// # Errors
/// As [`endpoints`].
pub(in crate::node) fn members(
    config: &DiscoveryConfig,
    (selector, lease_s): (&str, u32),
) -> Result<KubernetesMembers, String> {
    Ok(KubernetesMembers {
        server: server("cluster.source")?,
        account: config.service_account.clone(),
        namespace: namespace(config)?,
        selector: selector.to_owned(),
        lease_s,
    })
}

/// The API server, which `setting` wants.
fn server(setting: &str) -> Result<String, String> {
    let variable = |name: &'static str| {
        let value = env::var(name).ok().filter(|value| !value.is_empty());
        value.ok_or_else(|| {
            format!("{setting} kubernetes: {name} is not set, so this is no pod; there use etcd or static")
        })
    };
    let [host, port] = SERVER_ENV.map(variable);
    Ok(url(&host?, &port?))
}

fn url(host: &str, port: &str) -> String {
    if host.contains(':') { format!("https://[{host}]:{port}") } else { format!("https://{host}:{port}") }
}

/// What was configured, else the pod's own.
fn namespace(config: &DiscoveryConfig) -> Result<String, String> {
    let own = || env::var(NAMESPACE_ENV).ok().filter(|name| !name.is_empty());
    if let Some(name) = config.namespace.clone().or_else(own) {
        return Ok(name);
    }
    let path = config.service_account.join("namespace");
    let read = fs::read_to_string(&path).map(|name| name.trim().to_owned());
    read.map_err(|error| {
        format!(
            "discovery.namespace and {NAMESPACE_ENV} are not set, and the pod's own cannot be read: {}: {error}",
            path.display()
        )
    })
}

/// OpenIM 3.5 (spec 10.3): services are called by their names, whose addresses are those of the cluster. All gateways
/// are behind one name, that of their headless service, also those beyond the count of the ring.
pub(super) fn names(config: &DiscoveryConfig) -> NamesPlan {
    let pod = env::var(POD_ENV).unwrap_or_default();
    let is_own = |member: &&String| member.split_once('.').is_some_and(|(name, _)| name == pod.trim());
    let headless = config.members.first().and_then(|member| Some(member.split_once('.')?.1.to_owned()));
    let services = Service::ALL.iter().map(|service| match service {
        Service::Gateway => (*service, headless.iter().cloned().collect()),
        service => (*service, vec![config.names.of(*service).clone()]),
    });
    NamesPlan {
        services: services.collect(),
        own: config.members.iter().find(is_own).cloned(),
        round_ms: NAMES_ROUND_MS,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::OpenimConfig;

    #[test]
    fn a_url_has_brackets_around_an_address_of_ipv6() {
        assert_eq!(url("10.96.0.1", "443"), "https://10.96.0.1:443");
        assert_eq!(url("fd00::1", "6443"), "https://[fd00::1]:6443");
    }

    #[test]
    fn gateways_of_35_are_behind_their_headless_service() {
        let mut config = OpenimConfig::default().discovery;
        config.members = (0..2).map(|i| format!("r-gw-{i}.r-gw-headless.im.svc.cluster.local:88")).collect();
        config.names.auth = "r-auth:80".into();
        let plan = names(&config);
        assert_eq!(plan.services.len(), 5);
        for (service, wanted) in
            [(Service::Auth, "r-auth:80"), (Service::Gateway, "r-gw-headless.im.svc.cluster.local:88")]
        {
            let found = plan.services.iter().find(|(of, _)| *of == service).unwrap();
            assert_eq!(found.1, [wanted]);
        }
    }

    #[test]
    fn a_namespace_is_configured_or_that_of_the_account() {
        let folder = tempfile::TempDir::new().unwrap();
        let mut config = OpenimConfig::default().discovery;
        config.service_account = folder.path().to_owned();
        assert!(namespace(&config).unwrap_err().contains("/namespace: No such file"));
        fs::write(folder.path().join("namespace"), "im\n").unwrap();
        assert_eq!(namespace(&config).unwrap(), "im");
        config.namespace = Some("other".into());
        assert_eq!(namespace(&config).unwrap(), "other");
    }
}
