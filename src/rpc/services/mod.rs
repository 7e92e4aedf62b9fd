//! The services behind the gRPC port, one file each, and the table of what each path means.
//!
//! How a call is read, kept within its limits and ended is in `call.rs`. `openim.rs` is the service that OpenIM's own
//! callers use, in two dialects; `legacy.rs` is what the older one says differently.

mod health;
mod legacy;
mod node;
mod openim;
mod push;
mod push_answer;
mod reflection;

use std::fmt;
use std::rc::Rc;

use bytes::Bytes;

use super::call::{Call, End, Service, StreamCall};
use crate::config::RpcConfig;
use crate::config::cluster::MembershipSource;
use crate::limits::{CONTROL_DEADLINE_MS, PUSH_DEADLINE_MS, PUSH_SEND_MS};
use crate::metrics::Metric;
use crate::wire::grpc::{Dialect, Status, code};

#[cfg(test)]
pub(super) use openim::ADMINS_ONLY;

/// The calls that are served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Method {
    /// One message each way: see [`answer`].
    Unary(Unary),
    /// Any number of messages, at least one way: see [`stream`].
    Streaming(Streaming),
}

/// See [`Method::Unary`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unary {
    /// A call of OpenIM's `msgGateway`, and how its caller speaks.
    Openim(openim::Method, Dialect),
    /// gRPC's health service: open to whoever reaches the port, since it names nobody.
    HealthCheck,
    /// `pinion.v1.Push/Send`.
    Send,
    /// `pinion.v1.Node/Load`.
    Load,
}

/// See [`Method::Streaming`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Streaming {
    /// As [`Unary::HealthCheck`].
    HealthWatch,
    /// gRPC's server reflection, `v1` and `v1alpha`.
    Reflection,
    /// `pinion.v1.Push/Stream`.
    Push,
    /// `pinion.peer.v1.Peer/Link`: another node.
    Link,
}

/// How long a unary call may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Patience {
    /// If the caller names no deadline.
    pub(super) unasked_ms: u64,
    /// Whatever deadline it names.
    pub(super) most_ms: u64,
}

impl Patience {
    const fn fixed(ms: u64) -> Self {
        Self { unasked_ms: ms, most_ms: ms }
    }
}

/// The older of OpenIM's two services, served when asked for.
const LEGACY: &str = "OpenIMServer.msggateway.msgGateway";

/// What nodes of a cluster say to each other; no API, so it is listed nowhere.
const PEER: &str = "pinion.peer.v1.Peer";

/// A name and what it calls.
type Named = (&'static str, Method);

/// Services and their methods.
const ROUTES: &[(&str, &[Named])] = &[
    ("openim.msggateway.msgGateway", &openim_methods(Dialect::Openim)),
    (LEGACY, &openim_methods(Dialect::Legacy)),
    (
        "grpc.health.v1.Health",
        &[("Check", Method::Unary(Unary::HealthCheck)), ("Watch", Method::Streaming(Streaming::HealthWatch))],
    ),
    ("grpc.reflection.v1.ServerReflection", REFLECTION),
    ("grpc.reflection.v1alpha.ServerReflection", REFLECTION),
    (
        "pinion.v1.Push",
        &[("Stream", Method::Streaming(Streaming::Push)), ("Send", Method::Unary(Unary::Send))],
    ),
    ("pinion.v1.Node", &[("Load", Method::Unary(Unary::Load))]),
    (PEER, &[("Link", Method::Streaming(Streaming::Link))]),
];

const REFLECTION: &[Named] = &[("ServerReflectionInfo", Method::Streaming(Streaming::Reflection))];

/// Spec 4.1.
const fn openim_methods(dialect: Dialect) -> [Named; 6] {
    use openim::Method as M;
    const fn of(method: M, dialect: Dialect) -> Method {
        Method::Unary(Unary::Openim(method, dialect))
    }
    [
        ("SuperGroupOnlineBatchPushOneMsg", of(M::Push, dialect)),
        ("KickUserOffline", of(M::Kick, dialect)),
        ("GetUsersOnlineStatus", of(M::OnlineStatus, dialect)),
        ("MultiTerminalLoginCheck", of(M::RemoteLogin, dialect)),
        ("OnlinePushMsg", of(M::OnlinePush, dialect)),
        ("OnlineBatchPushOneMsg", of(M::BatchPush, dialect)),
    ]
}

/// Which services are offered.
#[derive(Clone, Copy, Debug)]
pub(super) struct Catalog {
    legacy: bool,
    peers: bool,
}

impl Catalog {
    /// As configured.
    pub(super) fn new(config: &RpcConfig, source: MembershipSource) -> Self {
        Self { legacy: config.legacy_service, peers: source != MembershipSource::None }
    }

    fn routes(self) -> impl Iterator<Item = &'static (&'static str, &'static [Named])> {
        let offered = move |name: &str| (self.legacy || name != LEGACY) && (self.peers || name != PEER);
        ROUTES.iter().filter(move |(name, _)| offered(name))
    }

    /// The full names of those that callers may know of.
    fn services(self) -> impl Iterator<Item = &'static str> {
        self.routes().map(|(name, _)| *name).filter(|name| *name != PEER)
    }

    /// What a path like `/package.Service/Method` calls; UNIMPLEMENTED in grpc-go's words.
    pub(super) fn method(self, path: &str) -> Result<Method, Status> {
        let unknown = |text: String| Status::new(code::UNIMPLEMENTED, text);
        let (service, name) = path
            .strip_prefix('/')
            .and_then(|p| p.rsplit_once('/'))
            .ok_or_else(|| unknown(format!("malformed method name: \"{path}\"")))?;
        let (_, methods) = self
            .routes()
            .find(|(known, _)| *known == service)
            .ok_or_else(|| unknown(format!("unknown service {service}")))?;
        methods
            .iter()
            .find(|(known, _)| *known == name)
            .map(|(_, method)| *method)
            .ok_or_else(|| unknown(format!("unknown method {name} for service {service}")))
    }
}

impl Method {
    /// What a call with OK, and one with any other status, is counted as.
    pub(super) fn counters(self) -> (Metric, Metric) {
        match self {
            Self::Unary(Unary::Openim(method, _)) => method.counters(),
            Self::Unary(Unary::Send) => (Metric::RpcSendOk, Metric::RpcSendError),
            Self::Streaming(Streaming::Push) => (Metric::RpcStreamOk, Metric::RpcStreamError),
            Self::Unary(Unary::HealthCheck | Unary::Load)
            | Self::Streaming(Streaming::HealthWatch | Streaming::Reflection | Streaming::Link) => {
                (Metric::RpcOtherOk, Metric::RpcOtherError)
            }
        }
    }

    /// The same under OpenIM's name, for the calls that OpenIM counts: its gateways do so since 3.8 (spec 11.4).
    pub(super) fn upstream_counters(self) -> Option<(Metric, Metric)> {
        match self {
            Self::Unary(Unary::Openim(method, Dialect::Openim)) => Some(method.upstream_counters()),
            _ => None,
        }
    }
}

impl Unary {
    /// How long it may take.
    pub(super) fn patience(self) -> Patience {
        match self {
            Self::Openim(openim::Method::Push, _) => Patience::fixed(PUSH_DEADLINE_MS),
            Self::Openim(..) | Self::HealthCheck | Self::Load => Patience::fixed(CONTROL_DEADLINE_MS),
            Self::Send => Patience { unasked_ms: PUSH_DEADLINE_MS, most_ms: PUSH_SEND_MS },
        }
    }
}

/// The framed answer to a unary call.
pub(super) async fn answer(service: &Rc<Service>, call: Call) -> Result<Bytes, Status> {
    match call.method {
        Unary::Openim(method, dialect) => {
            let answer = openim::answer(service, call, (method, dialect)).await;
            answer.map_err(|status| status.for_peers_of(dialect))
        }
        Unary::HealthCheck => health::check(service, call.message),
        Unary::Load => node::load(service, call.message),
        Unary::Send => push::send(service, call).await,
    }
}

/// Serves a call that streams, to its end. Dropped half-way: the caller is gone.
pub(super) async fn stream(service: &Rc<Service>, call: StreamCall) -> Result<(), End> {
    match call.method {
        Streaming::Push => push::stream(service, call).await,
        Streaming::HealthWatch => health::watch(service, call).await,
        Streaming::Reflection => reflection::serve(service, call).await,
        Streaming::Link => link(service, call).await,
    }
}

/// A peer that dialled us. Links are kept by thread 0; the kernel gives connections to any, so another try may get
/// there.
async fn link(service: &Rc<Service>, call: StreamCall) -> Result<(), End> {
    match service.links.get() {
        Some(links) => links.accept(call).await,
        None => {
            Err(Status::new(code::ABORTED, "another thread of this node keeps the links: dial again").into())
        }
    }
}

/// For a request that is no protobuf of its kind, in grpc-go's words.
fn undecodable(service: &Service, fault: impl fmt::Display) -> Status {
    service.exchange.count(Metric::RpcBadRequest);
    Status::new(code::INTERNAL, format!("grpc: error unmarshalling request: {fault}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEWER: Catalog = Catalog { legacy: false, peers: false };
    const BOTH: Catalog = Catalog { legacy: true, peers: false };

    #[test]
    fn trap_16_services_and_methods_are_told_apart_by_package_and_case() {
        // Spec trap 16.
        const PUSH: &str = "SuperGroupOnlineBatchPushOneMsg";
        let push = |dialect| Ok(Method::Unary(Unary::Openim(openim::Method::Push, dialect)));
        let no_service = |name: &str| Err(format!("unknown service {name}"));
        let older = no_service("OpenIMServer.msggateway.msgGateway");
        let newer = "openim.msggateway.msgGateway";
        for (catalog, path, expected) in [
            (NEWER, format!("/{newer}/{PUSH}"), push(Dialect::Openim)),
            (BOTH, format!("/{newer}/{PUSH}"), push(Dialect::Openim)),
            (BOTH, format!("/OpenIMServer.msggateway.msgGateway/{PUSH}"), push(Dialect::Legacy)),
            (NEWER, format!("/OpenIMServer.msggateway.msgGateway/{PUSH}"), older),
            (
                BOTH,
                format!("/OpenIM.msggateway.msgGateway/{PUSH}"),
                no_service("OpenIM.msggateway.msgGateway"),
            ),
            (
                BOTH,
                format!("/{newer}/superGroupOnlineBatchPushOneMsg"),
                Err(format!("unknown method superGroupOnlineBatchPushOneMsg for service {newer}")),
            ),
            (BOTH, format!("/{newer}/"), Err(format!("unknown method  for service {newer}"))),
            (BOTH, format!("/a/{newer}/{PUSH}"), no_service(&format!("a/{newer}"))),
            (BOTH, "/x".to_owned(), Err("malformed method name: \"/x\"".to_owned())),
            (BOTH, "/".to_owned(), Err("malformed method name: \"/\"".to_owned())),
            (BOTH, "//".to_owned(), no_service("")),
        ] {
            let found = catalog.method(&path);
            assert_eq!(found, expected.map_err(|text| Status::new(code::UNIMPLEMENTED, text)), "{path}");
        }
    }

    #[test]
    fn every_method_of_every_served_file_has_its_route() {
        // Reflection tells callers of the services in the files; those that are offered must be served whole.
        for (name, methods) in BOTH.routes() {
            let declared = reflection::methods_of(name);
            assert!(!declared.is_empty(), "{name} is in no file");
            let mut routed: Vec<&str> = methods.iter().map(|(method, _)| *method).collect();
            let mut declared: Vec<&str> = declared.iter().map(String::as_str).collect();
            routed.sort_unstable();
            declared.sort_unstable();
            assert_eq!(routed, declared, "{name}");
        }
    }
}
