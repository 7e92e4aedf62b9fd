//! Who may use the gRPC port: source networks (`rpc.allow`), client certificates (`rpc.tls_client_ca`) and a token
//! (`rpc.token`). Each is optional; OpenIM's own callers can do neither TLS nor tokens, so for them there is the first.
//!
//! What always holds: a source that is not allowed is cut before a byte is read or written; without a good handshake
//! no byte of HTTP/2 is; without the token no body is read and nothing is said about methods. Health checks need no
//! token: orchestrators have none to send.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use http::{header, request};
use monoio::io::IntoPollIo;
use monoio::net::TcpStream;

use super::bearer::{Bearer, Sent};
use super::call::Service;
use super::metadata::Refusal;
use super::tls::{Acceptor, MaybeTls, Paced};
use crate::config::policy::RpcPolicy;
use crate::limits::H2_HANDSHAKE_MS;
use crate::metrics::Metric;
use crate::session::handshake::origin::Network;
use crate::shard::turn::Turns;
use crate::wire::grpc::{Status, code};

/// Calls to this service need no token.
const HEALTH: &str = "/grpc.health.v1.Health/";

/// What is asked of callers. One per rpc thread, and another one after each reload.
pub(super) struct Gate {
    /// None: all.
    allow: Vec<Network>,
    tls: Option<Acceptor>,
    token: Option<Bearer>,
}

impl Gate {
    /// As configured.
    pub(super) fn of(policy: &RpcPolicy) -> Self {
        Self {
            allow: policy.allow.clone(),
            tls: policy.tls.clone().map(|tls| Acceptor::new(tls.0)),
            token: policy.token.as_ref().map(Bearer::of),
        }
    }

    /// Whether a source may connect. An IPv4 address that a dual-stack listener shows as IPv6 is an IPv4 address.
    pub(super) fn lets_in(&self, peer: SocketAddr) -> bool {
        let address = peer.ip().to_canonical();
        self.allow.is_empty() || self.allow.iter().any(|network| network.contains(address))
    }

    fn sent(&self, head: &request::Parts) -> Sent {
        let Some(token) = &self.token else {
            return Sent::Right;
        };
        let mut headers = head.headers.get_all(header::AUTHORIZATION).iter();
        match (headers.next(), headers.next()) {
            (Some(header), None) => token.judge(Some(header.as_bytes())),
            (Some(_), Some(_)) => Sent::Wrong,
            (None, _) => Sent::Nothing,
        }
    }
}

/// Does the TLS handshake, if there is TLS. `None`: the connection is over, and counted.
pub(super) async fn open(service: &Service, stream: TcpStream, turns: &Turns) -> Option<MaybeTls<Paced>> {
    let stream = match stream.into_poll_io() {
        Ok(stream) => stream,
        Err(error) => {
            tracing::warn!(%error, "a gRPC connection cannot be polled");
            return None;
        }
    };
    let live = service.live();
    let Some(acceptor) = &live.gate.tls else {
        return Some(MaybeTls::Plain(stream));
    };
    let deadline = Duration::from_millis(H2_HANDSHAKE_MS);
    let outcome = match monoio::time::timeout(deadline, acceptor.accept(stream, turns)).await {
        Ok(outcome) => outcome,
        Err(_) => Err(io::ErrorKind::TimedOut.into()),
    };
    outcome
        .inspect_err(|error| {
            service.exchange.count(Metric::RpcTlsFailed);
            tracing::debug!(%error, "TLS handshake on the gRPC port");
        })
        .ok()
}

/// Judges the head of a call by its token.
pub(super) fn judge(service: &Service, head: &request::Parts) -> Result<(), Refusal> {
    let text = match service.live().gate.sent(head) {
        Sent::Right => return Ok(()),
        _ if head.uri.path().starts_with(HEALTH) => return Ok(()),
        Sent::Nothing => {
            "this gateway asks for a token: send the metadata `authorization: Bearer TOKEN` (its rpc.token)"
        }
        Sent::Wrong => "the token in `authorization: Bearer TOKEN` is not this gateway's rpc.token",
    };
    service.exchange.count(Metric::RpcUnauthenticated);
    Err(Status::new(code::UNAUTHENTICATED, text).into())
}
