//! The settings that say which OpenIM it is and where its services are; the fourth part of the table.

use std::net::IpAddr;

use super::{AUTO, Reload, Setting, Visibility, auto, name_of, named, path, path_text};
use crate::config::openim::{DiscoveryKind, EtcdConfig, SERVICE_ACCOUNT};
use crate::config::value::{Endpoint, Secret, boolean, label, millis, number, optional, word};
use crate::limits;
use crate::wire::compat::Compat;

/// What completes "expected ...".
pub(super) const ENDPOINTS_OR_NONE: &str = "nothing, or host:port, several joined by commas";
const SERVICE: &str = "`auto` or the name without blanks and slashes";
pub(super) const PEM: &str = "the path of a PEM file, or nothing";
pub(super) const TEXT: &str = "at most 255 visible ASCII characters without blanks, or nothing";
/// What makes an address of etcd one for TLS.
const HTTPS: &str = "https://";
pub(super) const SWITCH: &str = "`true` or `false`";

/// The name of a service: the last part of a key of etcd, or a name of DNS with or without a port.
fn service(text: &str) -> Option<String> {
    word(text).filter(|name| !name.contains('/'))
}

/// A text that may be empty.
pub(super) fn text_or_none(text: &str) -> Option<String> {
    if text.is_empty() { Some(String::new()) } else { word(text) }
}

/// etcd's addresses are URLs to its own clients, so people write the scheme: all of them `https://`, or none.
fn etcd_addresses(text: &str) -> Option<(Vec<Endpoint>, bool)> {
    let https = text.trim_start().starts_with(HTTPS);
    let bare = |address: &str| {
        let address = address.trim();
        let plain = || Some(address.strip_prefix("http://").unwrap_or(address));
        if https { address.strip_prefix(HTTPS) } else { plain() }.map(str::to_owned)
    };
    let bare: Option<Vec<String>> = text.split(',').map(bare).collect();
    Some((Endpoint::list(&bare?.join(","))?, https))
}

fn etcd_addresses_text(etcd: &EtcdConfig) -> String {
    let scheme = if etcd.https { HTTPS } else { "" };
    etcd.addresses.iter().map(|address| format!("{scheme}{address}")).collect::<Vec<_>>().join(",")
}

/// `compat`, `openim.*` and `discovery.*`: they count with `backend: openim` only.
pub(super) const OPENIM: &[Setting] = &[
    setting!(
        "compat",
        "main",
        "`v3.5`, `patch16` or `main`",
        "patch16",
        "Which OpenIM this gateway stands in for; worked out from openim.config_dir if that is given",
        |d, t| d.config.openim.compat = named(t, &Compat::NAMES)?,
        |c| name_of(c.openim.compat, &Compat::NAMES)
    ),
    setting!(
        "openim.config_dir",
        "",
        "the path of a directory, or nothing",
        "/etc/openim",
        "OpenIM's configuration folder; what it says is weaker than all settings of Pinion, and asks for backend openim",
        |d, t| d.config.openim.config_dir = optional(t, path)?,
        |c| path_text(c.openim.config_dir.as_ref())
    ),
    setting!(
        "openim.index",
        "0",
        "a number from 0 to 1023",
        "1",
        "Which element of the port lists in that folder is ours",
        |d, t| d.config.openim.index = number(t, 0..=limits::OPENIM_INDEX_MAX - 1)?,
        |c| c.openim.index
    ),
    setting!(
        "discovery.kind",
        "etcd",
        "`etcd`, `kubernetes` or `static` (zookeeper and standalone are not supported: give static addresses)",
        "static",
        "How OpenIM's services are found",
        |d, t| d.config.openim.discovery.kind = named(t, &DiscoveryKind::NAMES)?,
        |c| name_of(c.openim.discovery.kind, &DiscoveryKind::NAMES)
    ),
    setting!(
        "discovery.etcd_addresses",
        "localhost:12379",
        "at least one host:port, several joined by commas, either all of them behind https:// or none",
        "etcd-0:2379,etcd-1:2379",
        "Where etcd is",
        |d, t| {
            let etcd = &mut d.config.openim.discovery.etcd;
            (etcd.addresses, etcd.https) = etcd_addresses(t)?;
        },
        |c| etcd_addresses_text(&c.openim.discovery.etcd)
    ),
    setting!(
        "discovery.etcd_root",
        "openim",
        "at most 255 visible ASCII characters without blanks",
        "openim",
        "First part of every key in etcd (OpenIM's etcd.rootDirectory)",
        |d, t| d.config.openim.discovery.etcd.root = word(t.trim_matches('/'))?,
        |c| c.openim.discovery.etcd.root
    ),
    setting!(
        "discovery.etcd_username",
        "",
        TEXT,
        "gateway",
        "User of etcd",
        |d, t| d.config.openim.discovery.etcd.username = text_or_none(t)?,
        |c| c.openim.discovery.etcd.username
    ),
    setting!(
        "discovery.etcd_password",
        "",
        "a password, or nothing",
        "the user's password",
        "Password of that user",
        |d, t| d.config.openim.discovery.etcd.password = Secret::new(t),
        |c| c.openim.discovery.etcd.password.secret(),
        Secret
    ),
    setting!(
        "discovery.etcd_ca",
        "",
        PEM,
        "/etc/pinion/etcd-ca.crt",
        "Who signs etcd's certificates; etcd is then asked over TLS only; nothing: whom the system trusts",
        |d, t| d.config.openim.discovery.etcd.ca = optional(t, path)?,
        |c| path_text(c.openim.discovery.etcd.ca.as_ref())
    ),
    setting!(
        "discovery.etcd_cert",
        "",
        PEM,
        "/etc/pinion/etcd.crt",
        "Certificate that is shown to etcd; needs discovery.etcd_key, and TLS",
        |d, t| d.config.openim.discovery.etcd.cert = optional(t, path)?,
        |c| path_text(c.openim.discovery.etcd.cert.as_ref())
    ),
    setting!(
        "discovery.etcd_key",
        "",
        PEM,
        "/etc/pinion/etcd.key",
        "Private key of discovery.etcd_cert, not encrypted",
        |d, t| d.config.openim.discovery.etcd.key = optional(t, path)?,
        |c| path_text(c.openim.discovery.etcd.key.as_ref())
    ),
    setting!(
        "discovery.namespace",
        "",
        "a name of Kubernetes (lower-case letters, digits and dashes), or nothing: the pod's own",
        "openim",
        "Namespace of OpenIM's services in Kubernetes",
        |d, t| d.config.openim.discovery.namespace = optional(t, label)?,
        |c| c.openim.discovery.namespace.clone().unwrap_or_default()
    ),
    setting!(
        "discovery.port_name",
        "grpc",
        "a name of Kubernetes: lower-case letters, digits and dashes",
        "grpc-10140",
        "Name that the gRPC port of a service has in Kubernetes; grpc stands for grpc-10320 too",
        |d, t| d.config.openim.discovery.port_name = label(t)?,
        |c| c.openim.discovery.port_name
    ),
    setting!(
        "discovery.service_account",
        SERVICE_ACCOUNT,
        "a folder",
        "/run/secrets/gateway",
        "Folder with the token (read again for each request) and ca.crt of the pod's service account",
        |d, t| d.config.openim.discovery.service_account = path(t)?,
        |c| c.openim.discovery.service_account.display()
    ),
    setting!(
        "discovery.gateways_differ_ms",
        "60s",
        "a time from 0 to 3600s (plain number = milliseconds)",
        "120s",
        "OpenIM 3.5 in Kubernetes: not ready after other than MY_MSGGATEWAY_REPLICACOUNT gateways answer this long",
        |d, t| d.config.openim.discovery.gateways_differ_ms = millis(t, 0..=3_600_000)?,
        |c| c.openim.discovery.gateways_differ_ms
    ),
    setting!(
        "discovery.static_auth",
        "",
        ENDPOINTS_OR_NONE,
        "10.0.0.1:10200",
        "Addresses of the auth service with discovery.kind static",
        |d, t| d.config.openim.discovery.fixed.auth = Endpoint::list_or_none(t)?,
        |c| Endpoint::listed(&c.openim.discovery.fixed.auth)
    ),
    setting!(
        "discovery.static_user",
        "",
        ENDPOINTS_OR_NONE,
        "10.0.0.1:10320",
        "Addresses of the user service with discovery.kind static",
        |d, t| d.config.openim.discovery.fixed.user = Endpoint::list_or_none(t)?,
        |c| Endpoint::listed(&c.openim.discovery.fixed.user)
    ),
    setting!(
        "discovery.static_msg",
        "",
        ENDPOINTS_OR_NONE,
        "10.0.0.1:10280",
        "Addresses of the msg service with discovery.kind static",
        |d, t| d.config.openim.discovery.fixed.msg = Endpoint::list_or_none(t)?,
        |c| Endpoint::listed(&c.openim.discovery.fixed.msg)
    ),
    setting!(
        "discovery.static_push",
        "",
        ENDPOINTS_OR_NONE,
        "10.0.0.1:10170",
        "Addresses of the push service with discovery.kind static",
        |d, t| d.config.openim.discovery.fixed.push = Endpoint::list_or_none(t)?,
        |c| Endpoint::listed(&c.openim.discovery.fixed.push)
    ),
    setting!(
        "discovery.static_gateways",
        "",
        ENDPOINTS_OR_NONE,
        "10.0.0.2:10140",
        "gRPC addresses of the other gateways with discovery.kind static; nothing: this one is alone",
        |d, t| d.config.openim.discovery.fixed.gateway = Endpoint::list_or_none(t)?,
        |c| Endpoint::listed(&c.openim.discovery.fixed.gateway)
    ),
    setting!(
        "discovery.service_auth",
        AUTO,
        SERVICE,
        "auth-rpc-service",
        "Name of the auth service; auto = as the OpenIM of `compat` registers it",
        |d, t| d.names.auth = auto(t, service)?,
        |c| c.openim.discovery.names.auth
    ),
    setting!(
        "discovery.service_user",
        AUTO,
        SERVICE,
        "user-rpc-service",
        "Name of the user service; auto as above",
        |d, t| d.names.user = auto(t, service)?,
        |c| c.openim.discovery.names.user
    ),
    setting!(
        "discovery.service_msg",
        AUTO,
        SERVICE,
        "msg-rpc-service",
        "Name of the msg service; auto as above",
        |d, t| d.names.msg = auto(t, service)?,
        |c| c.openim.discovery.names.msg
    ),
    setting!(
        "discovery.service_push",
        AUTO,
        SERVICE,
        "push-rpc-service",
        "Name of the push service; auto as above",
        |d, t| d.names.push = auto(t, service)?,
        |c| c.openim.discovery.names.push
    ),
    setting!(
        "discovery.service_gateway",
        AUTO,
        SERVICE,
        "messagegateway-rpc-service",
        "Name under which this gateway and the others are registered; auto as above",
        |d, t| d.names.gateway = auto(t, service)?,
        |c| c.openim.discovery.names.gateway
    ),
    setting!(
        "discovery.register_ip",
        AUTO,
        "`auto` or an IP address",
        "10.0.0.2",
        "Where others reach our gRPC port; auto = that of rpc.listen, or the first IPv4 address of an interface that is \
         up, private ones first",
        |d, t| d.register_ip = auto(t, |t| t.parse::<IpAddr>().ok().filter(|ip| !ip.is_unspecified()))?,
        |c| c.openim.discovery.register_ip
    ),
    setting!(
        "discovery.lease_s",
        "30",
        "seconds from 5 to 3600",
        "30",
        "A gateway that is gone without a word is out of etcd after so long",
        |d, t| d.config.openim.discovery.lease_s = number(t, 5..=3_600)?,
        |c| c.openim.discovery.lease_s
    ),
    setting!(
        "discovery.metrics",
        "false",
        SWITCH,
        "true",
        "Tell etcd where our metrics are, as OpenIM does for ports that it chose itself",
        |d, t| d.config.openim.discovery.metrics = boolean(t)?,
        |c| c.openim.discovery.metrics
    ),
];
