//! The admin HTTP/1.1 server: `/healthz`, `/readyz`, `/metrics` for everybody who reaches it, `/v1/*` for those who may
//! (`access.rs`). One request per connection.
//!
//! Trusted to be reachable by operators only (loopback unless told otherwise), yet bounded in connections, bytes and
//! time all the same.

use std::cell::RefCell;
use std::net::{SocketAddr, TcpListener as StdTcpListener};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, StatusCode, Version, header};
use monoio::io::sink::{Sink, SinkExt};
use monoio::io::stream::Stream;
use monoio::net::{TcpListener, TcpStream};
use monoio_http::common::response::Response;
use monoio_http::h1::codec::ServerCodec;
use monoio_http::h1::payload::{FixedPayload, Payload};
use prometheus_client::registry::Registry;

use super::access::{self, Denial};
use super::bearer::Bearer;
use super::bounded::{Bounded, Bounds, Excess};
use super::cluster::Mesh;
use super::exchange::Exchange;
use super::exposition;
use super::orders::Orders;
use super::readiness::Readiness;
use super::verbs::{self, Verb};
use crate::config::policy::RpcPolicy;
use crate::limits::{ACCEPT_PAUSE_MS, ADMIN_CONNECTIONS_MAX, ADMIN_REQUEST_BYTES, ADMIN_REQUEST_MS};
use crate::metrics::{Block, Metric};
use crate::shard::clock;
use crate::shard::turn::Turns;

/// What the endpoints answer from.
pub(super) struct Admin {
    pub(super) exchange: Exchange,
    pub(super) readiness: Readiness,
    pub(super) registry: Registry,
    /// The blocks with the value of their `shard` label.
    pub(super) blocks: Vec<(String, Arc<Block>)>,
    /// This node among others, if it is.
    pub(super) mesh: Option<Mesh>,
    /// `http.token`.
    pub(super) token: RefCell<Option<Bearer>>,
    /// For the main thread.
    pub(super) orders: Orders,
}

/// An answer: status, content type, body.
pub(super) type Answer = (StatusCode, &'static str, String);

pub(super) const TEXT: &str = "text/plain; charset=utf-8";
/// The query of `GET /readyz` by which a balancer asks for clients alone.
const FOR_CLIENTS: &str = "clients";

/// Accepts until the listener is shut down.
pub(super) async fn accept(listener: StdTcpListener, admin: Rc<Admin>, turns: Turns) {
    let listener = match TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::error!(%error, "the admin listener cannot be used");
            return;
        }
    };
    let places = Rc::new(()); // each connection holds a clone
    loop {
        match listener.accept().await {
            Ok((stream, peer)) if Rc::strong_count(&places) <= ADMIN_CONNECTIONS_MAX => {
                let (admin, place) = (Rc::clone(&admin), Rc::clone(&places));
                monoio::spawn(async move {
                    serve(stream, peer, &admin).await;
                    drop(place);
                });
            }
            Ok(_) => admin.exchange.count(Metric::HttpRefused),
            Err(_) if admin.exchange.draining().is_some() => return,
            Err(error) => {
                tracing::warn!(%error, "admin accept");
                monoio::time::sleep(Duration::from_millis(ACCEPT_PAUSE_MS)).await;
            }
        }
        turns.turn().await;
    }
}

/// One connection: one request, one answer, close.
async fn serve(stream: TcpStream, peer: SocketAddr, admin: &Admin) {
    let bounds = Bounds::new(ADMIN_REQUEST_BYTES, clock::now().mono.plus_ms(ADMIN_REQUEST_MS));
    let mut codec = ServerCodec::new(Bounded::new(stream, Rc::clone(&bounds)));
    let request = codec.next().await;
    let answer = match (&request, bounds.excess()) {
        (Some(Ok(request)), _) => {
            admin.exchange.count(Metric::HttpRequests);
            admin.answer(request, peer).await
        }
        (None, None) => return, // closed without a request
        (_, excess) => {
            admin.exchange.count(Metric::HttpRefused);
            let status = match excess {
                Some(Excess::TooLong) => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
                Some(Excess::TooSlow) => StatusCode::REQUEST_TIMEOUT,
                None => StatusCode::BAD_REQUEST,
            };
            (status, TEXT, format!("{status}\n"))
        }
    };
    bounds.extend(clock::now().mono.plus_ms(ADMIN_REQUEST_MS));
    let allowed = request.and_then(Result::ok).map_or("GET", |request| allowed(request.uri().path()));
    if let Err(error) = codec.send_and_flush(response(answer, allowed)).await {
        tracing::debug!(%error, "admin answer");
    }
    let closed: Result<(), _> = Sink::<Response>::close(&mut codec).await;
    if let Err(error) = closed {
        tracing::debug!(%error, "admin close");
    }
}

/// Methods of a path.
fn allowed(path: &str) -> &'static str {
    Verb::of(path).map_or("GET", Verb::methods)
}

fn response((status, content_type, body): Answer, allowed: &'static str) -> Response {
    let mut response = Response::new(Payload::Fixed(FixedPayload::new(Bytes::from(body))));
    *response.status_mut() = status;
    *response.version_mut() = Version::HTTP_11;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    match status {
        StatusCode::METHOD_NOT_ALLOWED => headers.insert(header::ALLOW, HeaderValue::from_static(allowed)),
        StatusCode::UNAUTHORIZED => {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"))
        }
        _ => None,
    };
    response
}

impl Admin {
    /// Goes by another policy from now on.
    pub(super) fn adopt(&self, policy: &RpcPolicy) {
        self.token.replace(policy.http_token.as_ref().map(Bearer::of));
    }

    async fn answer<B>(&self, request: &Request<B>, peer: SocketAddr) -> Answer {
        let path = request.uri().path();
        if path.starts_with("/v1/") {
            let sent = request.headers().get(header::AUTHORIZATION).map(HeaderValue::as_bytes);
            if let Err(denial) = access::judge(peer, sent, self.token.borrow().as_ref()) {
                return self.deny(peer, denial);
            }
        }
        let verb = Verb::of(path);
        let known = verb.is_some() || matches!(path, "/healthz" | "/readyz" | "/metrics");
        let methods = allowed(path);
        if known && !methods.split(", ").any(|method| method == request.method().as_str()) {
            return (StatusCode::METHOD_NOT_ALLOWED, TEXT, format!("only {methods}\n"));
        }
        if request.method() != Method::GET && request.headers().contains_key(header::ORIGIN) {
            // A page that an operator looks at is a caller on his machine.
            return (StatusCode::FORBIDDEN, TEXT, "403: orders are not taken from web pages\n".to_owned());
        }
        match verb {
            Some(verb) => {
                let query = request.uri().query().unwrap_or_default();
                verbs::answer(self, (verb, request.method()), query).await
            }
            None => self.state(path, request.uri().query()),
        }
    }

    fn deny(&self, peer: SocketAddr, denial: Denial) -> Answer {
        self.exchange.count(Metric::HttpDenied);
        tracing::warn!(%peer, ?denial, "an operator's verb was denied");
        let status = match denial {
            Denial::NoTokenSet => StatusCode::FORBIDDEN,
            Denial::WrongToken => StatusCode::UNAUTHORIZED,
        };
        (status, TEXT, denial.text().to_owned())
    }

    /// Why the node should get no new clients, or no calls either; `among_others` is the same of the cluster.
    fn not_ready(&self, among_others: Option<String>) -> Option<String> {
        let why = self.readiness.not_ready(clock::now().mono);
        // While the node starts both are said: it may be starting since it waits for others.
        let why = match (why, among_others) {
            (Some(why), Some(more)) => Some(why + &more),
            (why, more) => why.or(more),
        };
        why.or_else(|| self.exchange.lacks_upstream())
    }

    /// `GET /readyz`, for balancers. Asked with `?clients` it is 200 also without a lease, which all nodes lose at once
    /// when the source of the membership is away: each serves on, and nobody is to be turned away for it.
    fn ready(&self, query: Option<&str>) -> Answer {
        let mesh = self.mesh.as_ref();
        let lack = mesh.and_then(Mesh::not_ready);
        let is_lasting = query != Some(FOR_CLIENTS) || mesh.is_some_and(|mesh| mesh.waits().is_some());
        let (why, remark) = if is_lasting { (lack, None) } else { (None, lack) };
        match self.not_ready(why) {
            None => {
                let remarks = mesh.map(Mesh::remarks).unwrap_or_default();
                (StatusCode::OK, TEXT, "ready\n".to_owned() + &remark.unwrap_or_default() + &remarks)
            }
            Some(why) => (StatusCode::SERVICE_UNAVAILABLE, TEXT, why),
        }
    }

    /// What is open to everybody.
    fn state(&self, path: &str, query: Option<&str>) -> Answer {
        match path {
            "/healthz" => (StatusCode::OK, TEXT, "ok\n".to_owned()),
            "/readyz" => self.ready(query),
            "/metrics" => match exposition::text(&self.registry) {
                Ok(text) => (StatusCode::OK, exposition::CONTENT_TYPE, text),
                Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, TEXT, format!("{error}\n")),
            },
            _ => {
                let known = "/healthz, /readyz, /metrics, /v1/who, /v1/trace, /v1/shards, /v1/cluster, /v1/forget, \
                             /v1/reload, /v1/log-level, /v1/drain, /v1/drain/cancel, /v1/adopt, /v1/adopt/release";
                (StatusCode::NOT_FOUND, TEXT, format!("try one of {known}\n"))
            }
        }
    }
}
