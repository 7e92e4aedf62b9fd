//! The gRPC server: accepts connections, speaks HTTP/2 with every limit set, starts a task per call.
//!
//! What a call does is in `call.rs`. What always holds: one task owns a connection; after the drain began it accepts
//! no new calls, finishes those it has, and ends; a caller that breaks a rule loses its connection, and nobody else
//! notices. Dead peers are the kernel's business: keep-alive probes and TCP_USER_TIMEOUT, set on the listener.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::net::{IpAddr, SocketAddr, TcpListener as StdTcpListener};
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use h2::server::{Builder, Connection, SendResponse};
use h2::{Reason, RecvStream};
use http::Request;
use monoio::io::poll_io::{AsyncRead, AsyncWrite};
use monoio::net::{TcpListener, TcpStream};
use rustix::net::{SocketFlags, acceptfrom_with};

use super::budget::{Budgeted, Ration, Verdict};
use super::call::{self, Live, Service};
use super::conduct::Cut;
use super::exchange::ConnectionPlace;
use super::gate;
use crate::config::RpcLimits;
use crate::config::policy::RpcPolicy;
use crate::limits;
use crate::metrics::Metric;
use crate::shard::turn::Turns;

/// What all gRPC connections of a thread share.
pub(super) struct Server {
    service: Rc<Service>,
    /// Other limits count for the next connection.
    limits: Cell<RpcLimits>,
    turns: Turns,
    ration: Rc<Ration>,
    /// Open connections by source; at most as many entries as connections.
    addresses: RefCell<BTreeMap<IpAddr, usize>>,
}

impl Server {
    /// `ration` is what all connections of the thread may read in a turn.
    pub(super) fn new(service: Rc<Service>, limits: RpcLimits, turns: Turns, ration: Rc<Ration>) -> Rc<Self> {
        Rc::new(Self { service, limits: Cell::new(limits), turns, ration, addresses: RefCell::default() })
    }

    /// Goes by another policy from now on: who may connect and call, and for new connections what they may take.
    pub(super) fn adopt(&self, policy: &RpcPolicy) {
        self.limits.set(policy.limits);
        self.service.live.replace(Rc::new(Live::of(policy)));
    }

    fn count(&self, metric: Metric) {
        self.service.exchange.count(metric);
    }
}

/// Accepts until the listener is shut down.
pub(super) async fn accept(listener: StdTcpListener, server: Rc<Server>) {
    let listener = match TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::error!(%error, "the gRPC listener cannot be used");
            return;
        }
    };
    loop {
        // Not in a `select!`: monoio 0.2.4 would lose an accepted socket (platform.md rule 8).
        match listener.accept().await {
            Ok((stream, peer)) => receive(&server, stream, peer),
            Err(_) if server.service.exchange.draining().is_some() => return,
            Err(error) => {
                tracing::warn!(%error, "gRPC accept");
                monoio::time::sleep(Duration::from_millis(limits::ACCEPT_PAUSE_MS)).await;
            }
        }
        server.turns.turn().await;
    }
}

/// Takes in who is in the kernel's queue already: closing the listener would reset them.
pub(super) fn accept_waiting(listener: &StdTcpListener, server: &Rc<Server>) {
    for _ in 0..limits::LISTEN_QUEUE_MAX {
        let Ok((socket, peer)) = acceptfrom_with(listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)
        else {
            return; // nobody waits
        };
        let peer = peer.and_then(|peer| SocketAddr::try_from(peer).ok());
        match (TcpStream::from_std(socket.into()), peer) {
            (Ok(stream), Some(peer)) => receive(server, stream, peer),
            _ => server.count(Metric::RpcRefused),
        }
    }
}

/// Serves a connection, or closes it at once.
fn receive(server: &Rc<Server>, stream: TcpStream, peer: SocketAddr) {
    if !server.service.live().gate.lets_in(peer) {
        return server.count(Metric::RpcForeign);
    }
    let Some(place) = server.service.exchange.enter_connection(server.limits.get().connections_max) else {
        return server.count(Metric::RpcRefusedFull);
    };
    match AddressPlace::enter(server, peer.ip().to_canonical()) {
        Some(address) => {
            monoio::spawn(serve(stream, place, address));
        }
        None => server.count(Metric::RpcRefusedAddress),
    }
}

/// A place among the connections of an address; given back when dropped.
struct AddressPlace {
    server: Rc<Server>,
    address: IpAddr,
}

impl AddressPlace {
    /// `None`: the address has as many as it may.
    fn enter(server: &Rc<Server>, address: IpAddr) -> Option<Self> {
        let most = server.limits.get().address_connections_max;
        let mut addresses = server.addresses.borrow_mut();
        let open = addresses.entry(address).or_default();
        if most > 0 && *open >= most {
            return None;
        }
        *open += 1;
        Some(Self { server: Rc::clone(server), address })
    }
}

impl Drop for AddressPlace {
    fn drop(&mut self) {
        let mut addresses = self.server.addresses.borrow_mut();
        if let Some(open) = addresses.get_mut(&self.address) {
            *open -= 1;
            if *open == 0 {
                addresses.remove(&self.address);
            }
        }
    }
}

/// One connection, from accept to close.
async fn serve(stream: TcpStream, place: ConnectionPlace, address: AddressPlace) {
    let server = &address.server;
    let Some(stream) = gate::open(&server.service, stream, &server.turns).await else {
        return;
    };
    let limits_now = server.limits.get();
    let stream = Budgeted::new(stream, Rc::clone(&server.ration), &limits_now);
    let verdict = stream.verdict();
    let handshake = builder(&limits_now).handshake::<_, Bytes>(stream);
    match monoio::time::timeout(Duration::from_millis(limits::H2_HANDSHAKE_MS), handshake).await {
        Ok(Ok(mut connection)) => {
            let end = serve_calls(&mut connection, server, &place, &verdict).await;
            judge_end(connection, &address, end).await;
        }
        Ok(Err(error)) => {
            server.count(Metric::RpcRefused);
            tracing::debug!(%error, "not an HTTP/2 preface");
        }
        Err(_) => server.count(Metric::RpcRefusedLate),
    }
}

fn builder(limits: &RpcLimits) -> Builder {
    let mut builder = h2::server::Builder::new();
    builder
        .max_concurrent_streams(limits.streams_max)
        .max_header_list_size(limits.header_list_bytes)
        .initial_window_size(limits::H2_STREAM_WINDOW_BYTES)
        .initial_connection_window_size(limits::H2_CONNECTION_WINDOW_BYTES)
        .max_frame_size(limits::H2_FRAME_BYTES)
        .max_send_buffer_size(limits.send_buffer_bytes)
        .data_frame_budget(limits::H2_SMALL_DATA_BYTES)
        .max_pending_accept_reset_streams(limits::H2_PENDING_RESETS_MAX)
        .max_local_error_reset_streams(Some(limits::H2_STREAM_ERRORS_MAX))
        .max_concurrent_reset_streams(limits::H2_RESET_STREAMS_MAX)
        .reset_stream_duration(Duration::from_millis(limits::H2_RESET_STREAM_MS));
    builder
}

/// How a connection ended.
enum End {
    /// The peer closed it, or we did after a drain.
    Closed,
    /// The socket failed, or h2 told the peer to go.
    Failed(h2::Error),
    /// It broke a rule of ours.
    Cut(Cut),
}

type Incoming = (Request<RecvStream>, SendResponse<Bytes>);

async fn serve_calls<S>(
    connection: &mut Connection<S, Bytes>,
    server: &Server,
    place: &ConnectionPlace,
    verdict: &Verdict,
) -> End
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut leaving = false;
    loop {
        let next = poll_fn(|cx| -> Poll<Result<Incoming, End>> {
            if !leaving && place.poll_draining(cx) {
                leaving = true;
                connection.graceful_shutdown();
            }
            let polled = connection.poll_accept(cx);
            if let Some(cut) = verdict.get() {
                return Poll::Ready(Err(End::Cut(cut)));
            }
            polled.map(|next| match next {
                Some(Ok(incoming)) => Ok(incoming),
                Some(Err(error)) => Err(End::Failed(error)),
                None => Err(End::Closed),
            })
        });
        match next.await {
            Ok((request, respond)) => call::start(&server.service, request, respond),
            Err(end) => return end,
        }
    }
}

/// Counts the end, and tells a peer that is cut why.
async fn judge_end<S>(mut connection: Connection<S, Bytes>, address: &AddressPlace, end: End)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let AddressPlace { server, address } = address;
    match end {
        End::Closed => {}
        End::Failed(error) => {
            tracing::debug!(%address, %error, "gRPC connection");
            match error.reason() {
                Some(Reason::ENHANCE_YOUR_CALM) if error.is_library() => server.count(Metric::RpcCutExcess),
                Some(_) if error.is_library() => server.count(Metric::RpcCutProtocol),
                _ => {}
            }
        }
        End::Cut(cut) => {
            server.count(cut.metric());
            tracing::warn!(%address, ?cut, "a gRPC connection is cut");
            if cut != Cut::Stuck {
                connection.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM);
                let farewell = poll_fn(|cx| connection.poll_closed(cx));
                let within = Duration::from_millis(limits::H2_FAREWELL_MS);
                if !matches!(monoio::time::timeout(within, farewell).await, Ok(Ok(()))) {
                    tracing::debug!(%address, "it does not take our GOAWAY");
                }
            }
        }
    }
}
