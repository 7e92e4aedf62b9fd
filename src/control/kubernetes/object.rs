//! What the API server of Kubernetes says about one `Endpoints` object. Pure. Fields that are not named here say
//! nothing to us.

use std::net::{IpAddr, SocketAddr};

use serde::Deserialize;

use crate::limits::SERVICE_ENDPOINTS_MAX;

/// The answer to a list.
#[derive(Debug, Deserialize)]
pub(super) struct List {
    #[serde(default)]
    pub(super) metadata: Metadata,
    #[serde(default)]
    items: Option<Vec<Endpoints>>,
}

/// One event of a watch. Of an object that was deleted comes its last state, with the version of its deletion.
#[derive(Debug, Deserialize)]
#[serde(tag = "type", content = "object", rename_all = "UPPERCASE")]
pub(super) enum Event {
    Added(Endpoints),
    Modified(Endpoints),
    Deleted(Endpoints),
    /// Nothing happened up to this version.
    Bookmark(Endpoints),
    Error(Status),
}

/// Why a request or a watch failed.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Status {
    pub(super) code: u16,
    pub(super) message: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Metadata {
    name: String,
    /// To be compared for equality only.
    #[serde(rename = "resourceVersion")]
    pub(super) resource_version: String,
}

/// The instances of a service.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Endpoints {
    pub(super) metadata: Metadata,
    subsets: Option<Vec<Subset>>,
}

/// Each address has each port. Those that are not ready are in a list of their own.
#[derive(Debug, Deserialize)]
struct Subset {
    addresses: Option<Vec<Address>>,
    ports: Option<Vec<Port>>,
}

#[derive(Debug, Deserialize)]
struct Address {
    ip: String,
}

#[derive(Debug, Deserialize)]
struct Port {
    #[serde(default)]
    name: String,
    port: u16,
    protocol: Option<String>,
}

/// What can be called of a service.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    /// At most `SERVICE_ENDPOINTS_MAX`.
    pub(super) addresses: Vec<SocketAddr>,
    /// Ready addresses that are none, have no such port, or are too many.
    pub(super) ignored: usize,
}

impl List {
    /// The object of that name; `None`: there is none.
    pub(super) fn object(&self, name: &str) -> Option<&Endpoints> {
        self.items.iter().flatten().find(|endpoints| endpoints.metadata.name == name)
    }
}

impl Endpoints {
    /// The ready addresses, with the port of that name.
    pub(super) fn found(&self, port_name: &str) -> Found {
        let mut found = Found::default();
        for subset in self.subsets.iter().flatten() {
            let ports = subset.ports.as_deref().unwrap_or_default();
            let port = port(ports, port_name);
            for address in subset.addresses.iter().flatten() {
                match (address.ip.parse::<IpAddr>(), port) {
                    (Ok(ip), Some(port)) if found.addresses.len() < SERVICE_ENDPOINTS_MAX => {
                        found.addresses.push(SocketAddr::new(ip, port));
                    }
                    _ => found.ignored = found.ignored.saturating_add(1),
                }
            }
        }
        found
    }

    /// The names of all ports, for the operator.
    pub(super) fn port_names(&self) -> Vec<&str> {
        let ports = self.subsets.iter().flatten().flat_map(|subset| subset.ports.iter().flatten());
        let mut names: Vec<&str> = ports.map(|port| port.name.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        names
    }
}

/// The port of exactly that name, as OpenIM wants it; else the one whose name is followed by a dash and a number, as
/// OpenIM's own manifests call it (spec 11.1), if there is only one.
fn port(ports: &[Port], name: &str) -> Option<u16> {
    let mut tcp = ports.iter().filter(|port| port.protocol.as_deref().is_none_or(|p| p == "TCP"));
    if let Some(exact) = tcp.clone().find(|port| port.name == name) {
        return Some(exact.port);
    }
    let is_numbered = |port: &&Port| {
        let number = port.name.strip_prefix(name).and_then(|rest| rest.strip_prefix('-'));
        number.is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
    };
    let numbered = tcp.find(is_numbered)?;
    tcp.find(is_numbered).is_none().then_some(numbered.port)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(subsets: &str, port_name: &str, wanted: &[&str], ignored: usize) {
        let text = format!(r#"{{"kind":"Endpoints","metadata":{{"name":"auth"}},"subsets":{subsets}}}"#);
        let endpoints: Endpoints = serde_json::from_str(&text).unwrap();
        let addresses = wanted.iter().map(|address| address.parse().unwrap()).collect();
        assert_eq!(endpoints.found(port_name), Found { addresses, ignored }, "{subsets}");
    }

    #[test]
    fn ready_addresses_with_the_port_of_the_name_are_found() {
        let two = r#"[{"addresses":[{"ip":"10.0.0.7","targetRef":{"kind":"Pod"}},{"ip":"fd00::7"}],
            "notReadyAddresses":[{"ip":"10.0.0.8"}],
            "ports":[{"name":"prometheus","port":9,"protocol":"TCP"},{"name":"grpc","port":7,"protocol":"TCP"}]}]"#;
        check(two, "grpc", &["10.0.0.7:7", "[fd00::7]:7"], 0);
        check(two, "prometheus", &["10.0.0.7:9", "[fd00::7]:9"], 0);
        check(two, "http", &[], 2);
        check("null", "grpc", &[], 0);
        check("[]", "grpc", &[], 0);
        check(
            r#"[{"notReadyAddresses":[{"ip":"10.0.0.8"}],"ports":[{"name":"grpc","port":7}]}]"#,
            "grpc",
            &[],
            0,
        );
        check(r#"[{"addresses":[{"ip":"10.0.0.7"}],"ports":null}]"#, "grpc", &[], 1);
        let subsets = r#"[{"addresses":[{"ip":"10.0.0.7"}],"ports":[{"name":"grpc","port":7}]},
            {"addresses":[{"ip":"10.0.0.8"},{"ip":"host"}],"ports":[{"name":"grpc","port":8}]}]"#;
        check(subsets, "grpc", &["10.0.0.7:7", "10.0.0.8:8"], 1);
    }

    #[test]
    fn a_port_is_the_exact_one_or_the_only_numbered_one() {
        for (ports, wanted) in [
            (r#"[{"name":"grpc-10320","port":1}]"#, Some(1)),
            (r#"[{"name":"grpc-10320","port":1},{"name":"grpc","port":2}]"#, Some(2)),
            (r#"[{"name":"grpc-1","port":1},{"name":"grpc-2","port":2}]"#, None),
            (r#"[{"name":"grpc-1","port":1},{"name":"prometheus-2","port":2}]"#, Some(1)),
            (r#"[{"name":"grpc-web","port":1}]"#, None),
            (r#"[{"name":"grpc-","port":1}]"#, None),
            (r#"[{"name":"grpcx","port":1}]"#, None),
            (r#"[{"name":"grpc","port":1,"protocol":"UDP"}]"#, None),
            (r#"[{"port":1}]"#, None),
            ("[]", None),
        ] {
            let ports: Vec<Port> = serde_json::from_str(ports).unwrap();
            assert_eq!(port(&ports, "grpc"), wanted, "{ports:?}");
        }
    }

    #[test]
    fn as_many_as_are_kept_are_taken_and_the_rest_is_counted() {
        let ips = |n: usize| {
            (0..n).map(|i| format!(r#"{{"ip":"10.0.{}.{}"}}"#, i / 256, i % 256)).collect::<Vec<_>>()
        };
        for (n, ignored) in [(SERVICE_ENDPOINTS_MAX, 0), (SERVICE_ENDPOINTS_MAX + 1, 1)] {
            let ips = ips(n).join(",");
            let text =
                format!(r#"{{"subsets":[{{"addresses":[{ips}],"ports":[{{"name":"grpc","port":7}}]}}]}}"#);
            let found = serde_json::from_str::<Endpoints>(&text).unwrap().found("grpc");
            assert_eq!((found.addresses.len(), found.ignored), (SERVICE_ENDPOINTS_MAX, ignored));
        }
    }

    #[test]
    fn lists_and_events_are_read() {
        let list = r#"{"kind":"EndpointsList","metadata":{"resourceVersion":"42"},"items":[
            {"metadata":{"name":"other"}},{"metadata":{"name":"auth","resourceVersion":"41"}}]}"#;
        let list: List = serde_json::from_str(list).unwrap();
        assert_eq!(list.metadata.resource_version, "42");
        assert!(list.object("auth").is_some() && list.object("msg").is_none());
        let none: List =
            serde_json::from_str(r#"{"metadata":{"resourceVersion":"1"},"items":null}"#).unwrap();
        assert!(none.object("auth").is_none());
        let object = r#"{"metadata":{"name":"auth","resourceVersion":"43"}}"#;
        for (kind, is) in [
            ("ADDED", matches::<0> as fn(&Event) -> bool),
            ("MODIFIED", matches::<1>),
            ("DELETED", matches::<2>),
            ("BOOKMARK", matches::<3>),
        ] {
            let event: Event =
                serde_json::from_str(&format!(r#"{{"type":"{kind}","object":{object}}}"#)).unwrap();
            assert!(is(&event), "{event:?}");
        }
        let gone = r#"{"type":"ERROR","object":{"kind":"Status","code":410,"reason":"Expired","message":"too old"}}"#;
        let Event::Error(status) = serde_json::from_str(gone).unwrap() else { panic!("{gone}") };
        assert_eq!((status.code, status.message.as_str()), (410, "too old"));
        for bad in ["", "{}", r#"{"type":"NEW","object":{}}"#, r#"{"type":"ADDED"}"#, "null"] {
            assert!(serde_json::from_str::<Event>(bad).is_err(), "{bad}");
        }
    }

    fn matches<const N: usize>(event: &Event) -> bool {
        let n = match event {
            Event::Added(_) => 0,
            Event::Modified(_) => 1,
            Event::Deleted(_) => 2,
            Event::Bookmark(_) => 3,
            Event::Error(_) => 4,
        };
        n == N
    }
}
