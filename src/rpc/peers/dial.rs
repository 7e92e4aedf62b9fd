//! A peer that this node dials: attempts, pauses between them, and the link while it stands.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use h2::client::{Builder, Connection};
use http::{HeaderMap, Request};
use monoio::io::IntoPollIo;
use monoio::net::TcpStream;

use super::counts::Count;
use super::target::{Duty, Target};
use super::transport::{Ended, Reader, Transport};
use super::{AT, FROM, Inner, LinkEvent, PATH, Place, TO, Trust};
use crate::config::RpcLimits;
use crate::limits;
use crate::rpc::budget::{Budgeted, Verdict};
use crate::rpc::channel::backoff::Backoff;
use crate::rpc::stream::Outbound;
use crate::rpc::tls::{self, MaybeTls};
use crate::rpc::unary;
use crate::shard::clock;
use crate::wire::grpc::{Status, code};

/// Why an attempt gave no link.
pub(super) struct Missed {
    pub(super) why: String,
    /// With which status the peer answered, if it did.
    pub(super) code: Option<i32>,
}

/// Keeps a link to a peer, or makes one, until it is stopped.
pub(super) async fn keep(inner: Rc<Inner>, target: Rc<Target>) {
    let mut backoff =
        Backoff::new(limits::LINK_BACKOFF_LEAST_MS, limits::LINK_BACKOFF_MS, inner.seed(&target.peer));
    while !target.is_stopped() {
        match attempt(&inner, &target, &inner.counts.dials).await {
            Ok(_) if target.is_stopped() => return,
            Ok(wire) => {
                target.note(None);
                let since = clock::now().mono;
                link(&inner, &target, wire).await;
                if clock::now().mono.since_ms(since) >= limits::LINK_STEADY_MS {
                    backoff.reset();
                }
            }
            Err(Missed { why, .. }) => {
                inner.refuse(&target.peer, &why);
                target.note(Some(why));
            }
        }
        if target.duty() == Duty::Once {
            return target.stop();
        }
        target.pause(backoff.pause_ms()).await;
    }
}

/// One attempt: again and again without a pause while it meets other threads of the peer.
pub(super) async fn attempt(inner: &Inner, target: &Target, count: &Count) -> Result<Wire, Missed> {
    let within = Duration::from_millis(limits::LINK_CONNECT_MS);
    for _ in 0..limits::LINK_SEATS_MAX {
        count.add(1);
        let opened = monoio::time::timeout(within, open(inner, target)).await;
        let late = || Err(target.missed_by(&format!("no link within {} ms", within.as_millis())));
        match opened.unwrap_or_else(|_| late()) {
            Err(missed) if missed.code == Some(code::ABORTED) => inner.plan.turns.turn().await,
            opened => return opened,
        }
    }
    Err(target.missed_by("its thread that keeps links was not reached: is it a Pinion node?"))
}

/// A stream that the peer lets in, and the connection below it.
pub(super) struct Wire {
    connection: Connection<Budgeted<MaybeTls>, Bytes>,
    verdict: Verdict,
    out: Outbound,
    reader: Reader,
}

/// The link while it stands.
async fn link(inner: &Rc<Inner>, target: &Target, wire: Wire) {
    let Wire { mut connection, verdict, out, mut reader } = wire;
    let place = Place::new(inner, Transport::new(target.peer.clone()));
    let transport = &place.transport;
    inner.counts.opened.add(1);
    inner.tell(LinkEvent::Opened(target.peer.clone()));
    let ended = drive(&mut connection, &verdict, transport.carry(inner, &mut reader, &out)).await;
    inner.note_end(&target.peer, &ended.unwrap_or_else(Ended::Gone));
    // Said and closed: the peer need not find out by silence.
    drop(place);
    out.half_close();
    let farewell = drive(&mut connection, &verdict, reader.drain());
    let within = Duration::from_millis(limits::H2_FAREWELL_MS);
    if monoio::time::timeout(within, farewell).await.is_err() {
        tracing::debug!(peer = %target.peer, "it does not end the stream with us");
    }
}

async fn open(inner: &Inner, target: &Target) -> Result<Wire, Missed> {
    let refused = |text: String| target.missed_by(&text);
    let (address, host) = target.place(inner).await.map_err(refused)?;
    let socket = TcpStream::connect_addr(address).await;
    let socket = socket.and_then(|socket| socket.set_nodelay(true).and_then(|()| socket.into_poll_io()));
    let socket = socket.map_err(|error| refused(format!("cannot connect: {error}")))?;
    let trust = inner.trust.borrow().clone();
    let (scheme, stream) = match &trust.tls {
        None => ("http", MaybeTls::Plain(socket)),
        Some(tls) => {
            let name = tls.name.clone().unwrap_or(host);
            let stream = tls::connect(tls.config.clone(), name, socket).await;
            ("https", stream.map_err(|error| refused(format!("TLS: {error}: see cluster.peer_ca")))?)
        }
    };
    let stream = Budgeted::of_server(stream, Rc::clone(&inner.plan.ration), &RpcLimits::DEFAULT);
    let verdict = stream.verdict();
    let mut request = Request::post(format!("{scheme}://{}{PATH}", target.address))
        .body(())
        .map_err(|error| refused(error.to_string()))?;
    *request.headers_mut() =
        head(inner, target, &trust).map_err(|key| refused(format!("{key} cannot be sent")))?;
    let shaken = builder().handshake(stream).await;
    let (sender, mut connection) = shaken.map_err(|error| refused(error.to_string()))?;
    let calling = call(sender, request);
    match drive(&mut connection, &verdict, calling).await.map_err(|why| refused(closed(&why)))? {
        Ok((out, reader)) => Ok(Wire { connection, verdict, out, reader }),
        Err(Ended::Refused(status)) => Err(Missed { code: Some(status.code), ..refused(remedy(&status)) }),
        Err(Ended::Gone(why) | Ended::Fault(_, why)) => Err(refused(closed(&why))),
        Err(other) => Err(refused(format!("{other:?}"))),
    }
}

/// What may be behind an end without a status.
fn closed(why: &str) -> String {
    format!(
        "{why}: is this machine in its rpc.allow, do both or neither have rpc.tls_*, and did its rpc.tls_client_ca \
         sign our rpc.tls_cert?"
    )
}

/// What the operator is told of a status.
pub(super) fn remedy(status: &Status) -> String {
    let Status { code, message, .. } = status;
    match *code {
        code::UNAUTHENTICATED => format!("{message}; give all nodes of the cluster the same rpc.token"),
        code::UNIMPLEMENTED => format!("{message}; is its cluster.source none, or is it an older release?"),
        _ => format!("status {code}: {message}"),
    }
}

fn head(inner: &Inner, target: &Target, trust: &Trust) -> Result<HeaderMap, String> {
    let bearer = trust.token.as_ref().map(|token| format!("Bearer {}", token.secret()));
    let ids = [(FROM, inner.plan.own.as_str()), (TO, target.peer.as_str())];
    let token = bearer.as_deref().map(|bearer| ("authorization", bearer));
    // Who has the higher id asks to be dialled, and where.
    let at = inner.at.borrow();
    let asks = (target.peer < inner.plan.own && !at.is_empty()).then_some((AT, at.as_str()));
    unary::headers(ids.into_iter().chain(asks).chain(token)).map_err(str::to_owned)
}

/// Opens the stream, and waits until the peer says to come in.
async fn call(
    sender: h2::client::SendRequest<Bytes>,
    request: Request<()>,
) -> Result<(Outbound, Reader), Ended> {
    let gone = |error: h2::Error| Ended::Gone(error.to_string());
    let mut sender = sender.ready().await.map_err(gone)?;
    let (response, stream) = sender.send_request(request, false).map_err(gone)?;
    let (head, body) = response.await.map_err(gone)?.into_parts();
    if let Some(status) = unary::status(&head.headers) {
        return Err(Ended::Refused(status));
    }
    if !head.status.is_success() {
        return Err(Ended::Gone(format!("HTTP status {}", head.status)));
    }
    let mut reader = Reader::new(body);
    if !reader.next().await?.is_empty() {
        return Err(Ended::Gone("it does not answer as a node".to_owned()));
    }
    Ok((Outbound::new(stream, limits::LINK_STALL_MS), reader))
}

/// Polls a connection while work on it goes on. What breaks it is the error, if the work does not say more.
async fn drive<T>(
    connection: &mut Connection<Budgeted<MaybeTls>, Bytes>,
    verdict: &Verdict,
    work: impl Future<Output = T>,
) -> Result<T, String> {
    let mut work = pin!(work);
    poll_fn(|cx| {
        let polled = Pin::new(&mut *connection).poll(cx);
        if let Poll::Ready(done) = work.as_mut().poll(cx) {
            return Poll::Ready(Ok(done));
        }
        if let Some(cut) = verdict.get() {
            return Poll::Ready(Err(format!("cut off for its conduct: {cut:?}")));
        }
        polled.map(|end| match end {
            Ok(()) => Err("the connection was closed".to_owned()),
            Err(error) => Err(error.to_string()),
        })
    })
    .await
}

fn builder() -> Builder {
    let mut builder = Builder::new();
    builder
        .enable_push(false)
        .initial_window_size(limits::H2_STREAM_WINDOW_BYTES)
        .initial_connection_window_size(limits::H2_CONNECTION_WINDOW_BYTES)
        .max_frame_size(limits::H2_FRAME_BYTES)
        .max_header_list_size(limits::H2_HEADER_LIST_BYTES)
        .max_send_buffer_size(limits::H2_SEND_BUFFER_BYTES)
        .data_frame_budget(limits::H2_SMALL_DATA_BYTES)
        .max_local_error_reset_streams(Some(limits::H2_STREAM_ERRORS_MAX))
        .max_concurrent_reset_streams(limits::H2_RESET_STREAMS_MAX)
        .reset_stream_duration(Duration::from_millis(limits::H2_RESET_STREAM_MS));
    builder
}
