//! One call: read its head, let the service answer, send the answer or the status.
//!
//! Order of the checks as in grpc-go with OpenIM's interceptors (spec 6.3): head, body, decoding, metadata, request
//! check, the call itself. What always holds: a call ends with an answer, a status or a reset, within its deadline; a
//! caller that gave up stops its work.

use std::cell::{OnceCell, RefCell};
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream};
use http::{HeaderMap, HeaderValue, Request, Response, header};

use super::cluster::Mesh;
use super::exchange::{CallPlace, DrainWatch, Exchange};
use super::gate::{self, Gate};
use super::metadata::{CallHead, Refusal};
use super::peers::Links;
use super::readiness::Readiness;
use super::services::{self, Catalog, Method, Streaming, Unary};
use super::stream::{Inbound, Outbound, send_all};
use crate::config::policy::RpcPolicy;
use crate::limits::STREAM_SEND_DEADLINE_MS;
use crate::metrics::{Block, Metric};
use crate::shard::clock;
use crate::shard::turn::Turns;
use crate::time::Mono;
use crate::wire::grpc::{Dialect, Status, code};

/// What calls work with.
pub(super) struct Service {
    /// The thread's state.
    pub(super) exchange: Exchange,
    /// For work that would hold up the thread.
    pub(super) turns: Turns,
    /// What all threads publish.
    pub(super) blocks: Vec<(String, Arc<Block>)>,
    /// Which services are offered.
    pub(super) catalog: Catalog,
    /// What may change while it runs. Taken out for one step at a time.
    pub(super) live: RefCell<Rc<Live>>,
    /// `cluster.node_id`; empty: none.
    pub(super) node_id: String,
    /// What the health service answers from.
    pub(super) readiness: Readiness,
    /// On thread 0 of a node among others.
    pub(super) mesh: OnceCell<Mesh>,
    /// The mesh's, for peers that dial us.
    pub(super) links: OnceCell<Links>,
}

/// What of a [`Service`] may change while it runs.
pub(super) struct Live {
    /// Who may connect and call.
    pub(super) gate: Gate,
    /// `auth.admin_users`.
    pub(super) admins: Vec<String>,
}

impl Live {
    /// As configured.
    pub(super) fn of(policy: &RpcPolicy) -> Self {
        Self { gate: Gate::of(policy), admins: policy.admins.clone() }
    }
}

impl Service {
    /// What is in force now.
    pub(super) fn live(&self) -> Rc<Live> {
        Rc::clone(&self.live.borrow())
    }
}

/// How a call ended early.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum End {
    /// With a status.
    Refused(Status),
    /// The caller is gone; there is nobody to tell.
    Gone,
    /// The caller takes no byte of what it asked for.
    TooSlow,
}

impl From<Status> for End {
    fn from(status: Status) -> Self {
        Self::Refused(status)
    }
}

/// A unary call whose message is there.
pub(super) struct Call {
    pub(super) method: Unary,
    pub(super) headers: HeaderMap,
    pub(super) message: Bytes,
    /// When the shards' answers are due.
    pub(super) deadline: Mono,
}

/// A call whose messages come and go one by one. Its deadline, a reset and the end of the connection drop whatever
/// works on it; of the drain it hears through `drain`.
pub(super) struct StreamCall {
    pub(super) method: Streaming,
    pub(super) headers: HeaderMap,
    pub(super) inbound: Inbound,
    pub(super) outbound: Outbound,
    pub(super) drain: DrainWatch,
}

/// Starts the task of a call, or refuses it at once.
pub(super) fn start(service: &Rc<Service>, request: Request<RecvStream>, mut respond: SendResponse<Bytes>) {
    match service.exchange.enter_call() {
        Some(place) => {
            monoio::spawn(serve(Rc::clone(service), place, request, respond));
        }
        None => {
            service.exchange.count(Metric::RpcOtherError);
            let status = Status::new(code::UNAVAILABLE, "too many calls are open");
            send_refusal(&mut respond, &status.into());
        }
    }
}

async fn serve(
    service: Rc<Service>,
    _place: CallPlace,
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
) {
    let (parts, body) = request.into_parts();
    match gate::judge(&service, &parts).and_then(|()| CallHead::read(&parts, service.catalog)) {
        Ok(head) => match head.method {
            Method::Unary(method) => {
                let request = UnaryRequest { method, head, headers: parts.headers, body };
                serve_unary(&service, request, &mut respond).await;
            }
            Method::Streaming(method) => {
                let inbound = Inbound::new(&service, body, head.coding);
                // Boxed: it is many times the size of a unary call, which every call would have to be otherwise.
                let opening = (method, head, parts.headers);
                Box::pin(serve_stream(&service, opening, inbound, respond)).await;
            }
        },
        Err(refusal) => {
            service.exchange.count(Metric::RpcOtherError);
            send_refusal(&mut respond, &refusal);
        }
    }
}

fn count_end<T>(service: &Service, method: Method, end: &Result<T, End>) {
    let (ok, error) = method.counters();
    service.exchange.count(match end {
        Ok(_) => ok,
        Err(End::Refused(_)) => error,
        Err(End::Gone) => Metric::RpcCancelled,
        Err(End::TooSlow) => Metric::RpcTooSlow,
    });
    if let Some((ok, error)) = method.upstream_counters() {
        service.exchange.count(if end.is_ok() { ok } else { error });
    }
}

struct UnaryRequest {
    method: Unary,
    head: CallHead,
    headers: HeaderMap,
    body: RecvStream,
}

async fn serve_unary(service: &Rc<Service>, request: UnaryRequest, respond: &mut SendResponse<Bytes>) {
    let method = request.head.method;
    let mut held = service.exchange.hold_nothing();
    let answered = answer(service, request, respond).await;
    let end = answered.and_then(|(framed, limit_ms)| {
        held.grow(framed.len())?;
        Ok((framed, limit_ms))
    });
    count_end(service, method, &end);
    match end {
        Ok((framed, limit_ms)) => send_message(respond, framed, limit_ms).await,
        Err(End::Refused(status)) => send_refusal(respond, &status.into()),
        Err(End::Gone | End::TooSlow) => respond.send_reset(Reason::CANCEL),
    }
}

/// The framed answer, and how long it may take to send.
async fn answer(
    service: &Rc<Service>,
    request: UnaryRequest,
    respond: &mut SendResponse<Bytes>,
) -> Result<(Bytes, u64), End> {
    let UnaryRequest { method, head, headers, body } = request;
    let patience = method.patience();
    let budget = head.budget_ms(patience);
    let deadline = clock::now().mono.plus_ms(budget);
    let mut inbound = Inbound::new(service, body, head.coding);
    let message = match monoio::time::timeout(Duration::from_millis(budget), inbound.only()).await {
        Ok(message) => message?,
        Err(_) => {
            return Err(Status::new(code::DEADLINE_EXCEEDED, "the request did not arrive in time").into());
        }
    };
    let call = Call { method, headers, message: message.bytes, deadline };
    let framed = unless_gone(respond, pin!(services::answer(service, call))).await??;
    // The verdicts are in; what is left is the peer's window.
    Ok((framed, patience.unasked_ms))
}

/// Runs `work` unless the caller resets the stream or its connection ends; then `work` is dropped, which cancels it.
async fn unless_gone<T>(
    respond: &mut SendResponse<Bytes>,
    mut work: Pin<&mut impl Future<Output = T>>,
) -> Result<T, End> {
    poll_fn(|cx| {
        if let Poll::Ready(result) = work.as_mut().poll(cx) {
            return Poll::Ready(Ok(result));
        }
        match respond.poll_reset(cx) {
            Poll::Ready(_) => Poll::Ready(Err(End::Gone)),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

async fn send_message(respond: &mut SendResponse<Bytes>, framed: Bytes, limit_ms: u64) {
    let mut stream = match respond.send_response(ok_response(), false) {
        Ok(stream) => stream,
        Err(error) => return tracing::debug!(%error, "answer"),
    };
    match monoio::time::timeout(Duration::from_millis(limit_ms), send_all(&mut stream, framed)).await {
        Ok(Ok(())) => {
            if let Err(error) = stream.send_trailers(status_headers(&OK)) {
                tracing::debug!(%error, "trailers");
            }
        }
        Ok(Err(error)) => tracing::debug!(%error, "answer"),
        Err(_) => stream.send_reset(Reason::CANCEL), // a peer that gives no window
    }
}

/// The response headers go out at once: some clients (tonic) send no message before they have them.
async fn serve_stream(
    service: &Rc<Service>,
    (method, head, headers): (Streaming, CallHead, HeaderMap),
    inbound: Inbound,
    mut respond: SendResponse<Bytes>,
) {
    let outbound = match respond.send_response(ok_response(), false) {
        Ok(stream) => Outbound::new(stream, STREAM_SEND_DEADLINE_MS),
        Err(error) => return tracing::debug!(%error, "response"),
    };
    let drain = service.exchange.watch_drain();
    let call = StreamCall { method, headers, inbound, outbound: outbound.clone(), drain };
    let served = pin!(services::stream(service, call));
    let work = outbound.unless_gone(served);
    let end = match head.timeout_ms {
        None => work.await,
        Some(ms) => monoio::time::timeout(Duration::from_millis(ms), work).await.unwrap_or_else(|_| {
            Err(Status::new(code::DEADLINE_EXCEEDED, "context deadline exceeded").into())
        }),
    };
    count_end(service, head.method, &end);
    match end {
        Ok(()) => outbound.finish(status_headers(&OK)),
        Err(End::Refused(status)) => outbound.finish(status_headers(&status)),
        Err(End::Gone | End::TooSlow) => outbound.reset(),
    }
}

const OK: Status = Status { code: code::OK, message: String::new(), cause: None, dialect: Dialect::Openim };

fn ok_response() -> Response<()> {
    let mut response = Response::new(());
    grpc_headers(response.headers_mut());
    response
}

/// A trailers-only response (spec 6.4).
fn send_refusal(respond: &mut SendResponse<Bytes>, refusal: &Refusal) {
    let mut response = ok_response();
    *response.status_mut() = refusal.http;
    response.headers_mut().extend(status_headers(&refusal.status));
    if let Err(error) = respond.send_response(response, true) {
        tracing::debug!(%error, "status");
    }
}

fn status_headers(status: &Status) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert("grpc-status", HeaderValue::from(status.code));
    let message = (status.code != code::OK).then(|| status.escaped_message());
    let texts = [("grpc-message", message), ("grpc-status-details-bin", status.details_bin())];
    for (name, text) in texts {
        // Escaped and base64 text are always header values.
        if let Some(Ok(value)) = text.map(HeaderValue::try_from) {
            headers.insert(name, value);
        }
    }
    headers
}

fn grpc_headers(headers: &mut HeaderMap) {
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert("grpc-accept-encoding", HeaderValue::from_static("identity,gzip"));
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The task of what `_of` starts, in bytes.
    fn task_bytes<A, B, C, D, F: Future>(_of: impl Fn(A, B, C, D) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn the_task_of_a_call_is_small() {
        // `RPC_CALLS_MAX` of them may be open at once.
        let bytes = task_bytes(serve);
        println!("a call is a task of {bytes} bytes");
        assert!(bytes <= 6 * 1024, "{bytes} bytes");
    }
}
