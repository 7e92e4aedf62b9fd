//! The gRPC server: accepts connections, speaks HTTP/2 with every limit set, starts a task per call.
//!
//! What a call does is in `call.rs`. What always holds: one task owns a connection; after the drain began it accepts
//! no new calls, finishes those it has, and ends.

use std::future::poll_fn;
use std::net::TcpListener as StdTcpListener;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use h2::server::{Builder, Connection};
use monoio::io::poll_io::{AsyncRead, AsyncWrite};
use monoio::net::{TcpListener, TcpStream};

use super::budget::Budgeted;
use super::call::{self, Service};
use super::exchange::ConnectionPlace;
use super::gate;
use crate::limits;
use crate::metrics::Metric;
use crate::shard::turn::Turns;

/// Accepts until the listener is shut down.
pub(super) async fn accept(listener: StdTcpListener, service: Rc<Service>, turns: Turns) {
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
            Ok((_, peer)) if !service.gate.lets_in(peer) => service.exchange.count(Metric::RpcForeign),
            Ok((stream, _peer)) => match service.exchange.enter_connection() {
                Some(place) => {
                    monoio::spawn(serve(stream, Rc::clone(&service), place, turns.clone()));
                }
                None => service.exchange.count(Metric::RpcRefused),
            },
            Err(_) if service.exchange.draining().is_some() => return,
            Err(error) => {
                tracing::warn!(%error, "gRPC accept");
                monoio::time::sleep(Duration::from_millis(limits::ACCEPT_PAUSE_MS)).await;
            }
        }
        turns.turn().await;
    }
}

/// One connection, from accept to close.
async fn serve(stream: TcpStream, service: Rc<Service>, place: ConnectionPlace, turns: Turns) {
    let Some(stream) = gate::open(&service, stream, &turns).await else {
        return;
    };
    let stream = Budgeted::new(stream, turns);
    let handshake = builder().handshake::<_, Bytes>(stream);
    match monoio::time::timeout(Duration::from_millis(limits::H2_HANDSHAKE_MS), handshake).await {
        Ok(Ok(connection)) => serve_calls(connection, service, place).await,
        Ok(Err(error)) => {
            service.exchange.count(Metric::RpcRefused);
            tracing::debug!(%error, "not an HTTP/2 preface");
        }
        Err(_) => service.exchange.count(Metric::RpcRefused),
    }
}

fn builder() -> Builder {
    let mut builder = h2::server::Builder::new();
    builder
        .max_concurrent_streams(limits::H2_STREAMS_MAX)
        .max_header_list_size(limits::H2_HEADER_LIST_BYTES)
        .initial_window_size(limits::H2_STREAM_WINDOW_BYTES)
        .initial_connection_window_size(limits::H2_CONNECTION_WINDOW_BYTES)
        .max_frame_size(limits::H2_FRAME_BYTES)
        .max_send_buffer_size(limits::H2_SEND_BUFFER_BYTES)
        .max_pending_accept_reset_streams(limits::H2_PENDING_RESETS_MAX)
        .max_local_error_reset_streams(Some(limits::H2_STREAM_ERRORS_MAX))
        .max_concurrent_reset_streams(limits::H2_RESET_STREAMS_MAX)
        .reset_stream_duration(Duration::from_millis(limits::H2_RESET_STREAM_MS));
    builder
}

async fn serve_calls<S>(mut connection: Connection<S, Bytes>, service: Rc<Service>, place: ConnectionPlace)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut leaving = false;
    loop {
        let next = poll_fn(|cx| {
            if !leaving && place.poll_draining(cx) {
                leaving = true;
                connection.graceful_shutdown();
            }
            connection.poll_accept(cx)
        });
        match next.await {
            Some(Ok((request, respond))) => call::start(&service, request, respond),
            Some(Err(error)) => {
                tracing::debug!(%error, "gRPC connection");
                break;
            }
            None => break,
        }
    }
}
