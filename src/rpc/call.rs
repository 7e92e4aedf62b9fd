//! One unary call: collect the body, let the service answer, send the answer or the status.
//!
//! Order of the checks as in grpc-go with OpenIM's interceptors (spec 6.3): head, body, decoding, metadata, request
//! check, the call itself. What always holds: a call ends with an answer, a status or a reset, within its deadline; a
//! caller that gave up stops its work.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream};
use http::{HeaderMap, HeaderValue, Request, Response, header};

use super::exchange::{CallPlace, Exchange};
use super::gate::{self, Gate};
use super::metadata::{CallHead, Method, Refusal};
use super::services;
use super::stream::{CollectFault, collect, send_all};
use crate::limits::{CONTROL_DEADLINE_MS, GRPC_MESSAGE_BYTES_MAX, PUSH_DEADLINE_MS};
use crate::metrics::Metric;
use crate::shard::clock;
use crate::time::Mono;
use crate::wire::grpc::{Status, code};

/// What calls work with.
pub(super) struct Service {
    /// The thread's state.
    pub(super) exchange: Exchange,
    /// `auth.admin_users`.
    pub(super) admins: Vec<String>,
    /// Who may connect and call.
    pub(super) gate: Gate,
}

/// How a call ended early.
#[derive(Debug)]
pub(super) enum End {
    /// With a status.
    Refused(Refusal),
    /// The caller is gone; there is nobody to tell.
    Gone,
}

impl From<Status> for End {
    fn from(status: Status) -> Self {
        Self::Refused(status.into())
    }
}

/// A call whose body is there.
pub(super) struct Call {
    pub(super) method: Method,
    pub(super) headers: HeaderMap,
    pub(super) message: Bytes,
    /// When the shards' answers are due.
    pub(super) deadline: Mono,
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
    mut place: CallPlace,
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
) {
    let (head, body) = request.into_parts();
    let call = gate::judge(&service, &head).and_then(|()| CallHead::read(&head));
    let method = call.as_ref().ok().map(|c| c.method);
    let outcome = match call {
        Ok(call) => answer(&service, &mut place, (call, head.headers, body), &mut respond).await,
        Err(refusal) => Err(End::Refused(refusal)),
    };
    let metric = match (&outcome, method) {
        (Err(End::Gone), _) => Metric::RpcCancelled,
        (Ok(_), Some(method)) => counters(method).0,
        (Err(_), Some(method)) => counters(method).1,
        (_, None) => Metric::RpcOtherError,
    };
    service.exchange.count(metric);
    match outcome {
        Ok((message, deadline)) => send_message(&mut respond, message, deadline).await,
        Err(End::Refused(refusal)) => send_refusal(&mut respond, &refusal),
        Err(End::Gone) => respond.send_reset(Reason::CANCEL),
    }
}

fn counters(method: Method) -> (Metric, Metric) {
    match method {
        Method::Push => (Metric::RpcPushOk, Metric::RpcPushError),
        Method::Kick => (Metric::RpcKickOk, Metric::RpcKickError),
        Method::OnlineStatus => (Metric::RpcStatusOk, Metric::RpcStatusError),
        Method::RemoteLogin => (Metric::RpcLoginOk, Metric::RpcLoginError),
    }
}

/// The framed answer, and until when it may be sent.
async fn answer(
    service: &Rc<Service>,
    place: &mut CallPlace,
    (head, headers, mut body): (CallHead, HeaderMap, RecvStream),
    respond: &mut SendResponse<Bytes>,
) -> Result<(Bytes, Mono), End> {
    let limit_ms = match head.method {
        Method::Push => PUSH_DEADLINE_MS,
        _ => CONTROL_DEADLINE_MS,
    };
    let budget = head.budget_ms(limit_ms);
    let deadline = clock::now().mono.plus_ms(budget);
    let collected = collect(&mut body, |bytes| place.hold(bytes));
    let message = match monoio::time::timeout(Duration::from_millis(budget), collected).await {
        Ok(Ok(message)) => message,
        Ok(Err(fault)) => return Err(collect_end(service, fault)),
        Err(_) => {
            return Err(Status::new(code::DEADLINE_EXCEEDED, "the request did not arrive in time").into());
        }
    };
    let call = Call { method: head.method, headers, message, deadline };
    let framed = unless_gone(respond, services::answer(service, call)).await??;
    place.hold(framed.len())?;
    // The verdicts are in; what is left is the peer's window.
    Ok((framed, clock::now().mono.plus_ms(limit_ms)))
}

fn collect_end(service: &Service, fault: CollectFault) -> End {
    match fault {
        CollectFault::Body(fault) => {
            service.exchange.count(Metric::RpcBadRequest);
            fault.status(GRPC_MESSAGE_BYTES_MAX).into()
        }
        CollectFault::Held(status) => status.into(),
        CollectFault::Gone(error) => {
            tracing::debug!(%error, "a caller left before its request was complete");
            End::Gone
        }
    }
}

/// Runs `work` unless the caller resets the stream or its connection ends; then `work` is dropped, which cancels it.
async fn unless_gone<T>(respond: &mut SendResponse<Bytes>, work: impl Future<Output = T>) -> Result<T, End> {
    let mut work = pin!(work);
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

async fn send_message(respond: &mut SendResponse<Bytes>, framed: Bytes, deadline: Mono) {
    let mut response = Response::new(());
    grpc_headers(response.headers_mut());
    let mut stream = match respond.send_response(response, false) {
        Ok(stream) => stream,
        Err(error) => return tracing::debug!(%error, "answer"),
    };
    let left = Duration::from_millis(deadline.since_ms(clock::now().mono));
    match monoio::time::timeout(left, send_all(&mut stream, framed)).await {
        Ok(Ok(())) => {
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", HeaderValue::from_static("0"));
            if let Err(error) = stream.send_trailers(trailers) {
                tracing::debug!(%error, "trailers");
            }
        }
        Ok(Err(error)) => tracing::debug!(%error, "answer"),
        Err(_) => stream.send_reset(Reason::CANCEL), // a peer that gives no window
    }
}

/// A trailers-only response (spec 6.4).
fn send_refusal(respond: &mut SendResponse<Bytes>, refusal: &Refusal) {
    let mut response = Response::new(());
    *response.status_mut() = refusal.http;
    let headers = response.headers_mut();
    grpc_headers(headers);
    headers.insert("grpc-status", HeaderValue::from(refusal.status.code));
    let texts = [
        ("grpc-message", Some(refusal.status.escaped_message())),
        ("grpc-status-details-bin", refusal.status.details_bin()),
    ];
    for (name, text) in texts {
        // Escaped and base64 text are always header values.
        if let Some(Ok(value)) = text.map(HeaderValue::try_from) {
            headers.insert(name, value);
        }
    }
    if let Err(error) = respond.send_response(response, true) {
        tracing::debug!(%error, "status");
    }
}

fn grpc_headers(headers: &mut HeaderMap) {
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert("grpc-accept-encoding", HeaderValue::from_static("identity"));
}
