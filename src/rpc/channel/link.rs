//! One HTTP/2 connection to an instance: what calls see of it ([`Link`]), and the task that drives it ([`Driver`]).
//!
//! What always holds: reads are within the thread's ration and judged, as on the server's side (`budget.rs`,
//! `conduct.rs`); with calls open, silence ends in a PING and then in the end of the connection; a connection that
//! takes no new calls finishes those it has and closes.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use h2::client::{Builder, Connection, ResponseFuture, SendRequest};
use h2::{Ping, PingPong, SendStream};
use http::Request;
use http::uri::Authority;
use monoio::io::IntoPollIo;
use monoio::net::TcpStream;
use monoio::time::Sleep;

use super::{ChannelLimits, Inner};
use crate::config::RpcLimits;
use crate::limits;
use crate::rpc::budget::{Budgeted, Verdict};
use crate::rpc::tls::Tcp;
use crate::shard::clock;
use crate::shard::nudge::Nudge;
use crate::time::Mono;

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Link {
    /// `:authority` of its calls.
    pub(super) authority: Authority,
    /// `None`: it takes no new calls.
    sender: RefCell<Option<SendRequest<Bytes>>>,
    open: Cell<usize>,
    room_max: Cell<usize>,
    answered: Cell<bool>,
    blamed: Cell<bool>,
    cause: RefCell<Option<Rc<str>>>,
}

impl Link {
    pub(super) fn new(authority: Authority, sender: Option<SendRequest<Bytes>>, room_max: usize) -> Self {
        Self {
            authority,
            sender: RefCell::new(sender),
            open: Cell::new(0),
            room_max: Cell::new(room_max),
            answered: Cell::new(false),
            blamed: Cell::new(false),
            cause: RefCell::default(),
        }
    }

    /// Whether one more call may be opened on it.
    pub(super) fn has_room(&self) -> bool {
        self.open.get() < self.room_max.get()
    }

    /// Counts a call.
    pub(super) fn enter(&self) {
        self.open.set(self.open.get() + 1);
    }

    /// A call is over.
    pub(super) fn leave(&self) {
        self.open.set(self.open.get() - 1);
    }

    /// A call got an answer: the connection was good for something.
    pub(super) fn note_answer(&self) {
        self.answered.set(true);
    }

    /// Whether its break is counted already: all its calls fail of it together.
    pub(super) fn take_blame(&self) -> bool {
        !self.blamed.replace(true)
    }

    /// Why it ended, if it did.
    pub(super) fn cause(&self) -> Option<Rc<str>> {
        self.cause.borrow().clone()
    }

    /// Opens a stream; `None`: it takes no new calls.
    pub(super) fn send(
        &self,
        request: Request<()>,
    ) -> Option<Result<(ResponseFuture, SendStream<Bytes>), h2::Error>> {
        // A clone forgets that the stream before is not open yet: h2 may keep as many as `room_max` in its queue.
        let mut sender = self.sender.borrow().clone()?;
        Some(sender.send_request(request, false))
    }

    /// Takes no new calls from now on.
    fn close(&self) {
        // Taken out first: dropping it wakes tasks.
        let sender = self.sender.borrow_mut().take();
        drop(sender);
    }

    /// Why no new call can be opened, if that is so: the peer said GOAWAY, or it is over.
    fn refusal(&self, cx: &mut Context<'_>) -> Option<String> {
        match self.sender.borrow_mut().as_mut()?.poll_ready(cx) {
            Poll::Ready(Err(error)) => Some(error.to_string()),
            _ => None,
        }
    }
}

/// How a connection stopped taking calls.
pub(super) enum Left {
    /// It is over.
    Dead,
    /// It finishes what it has.
    Leaving,
    /// Its instance is gone.
    Stopped,
}

/// Drives one connection.
pub(super) struct Driver {
    inner: Rc<Inner>,
    pub(super) link: Rc<Link>,
    connection: Connection<Budgeted<Tcp>, Bytes>,
    verdict: Verdict,
    pings: Option<PingPong>,
    heard: Rc<Cell<Mono>>,
    since: Mono,
    /// Since when calls have been open without a break, as far as this task saw.
    busy_since: Option<Mono>,
    /// When the PING was sent that nobody answered yet.
    pinged: Option<Mono>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Driver {
    /// Connects, and waits until the peer has said how many streams it takes.
    ///
    /// # Errors
    /// Why not, in words.
    pub(super) async fn connect(inner: &Rc<Inner>, address: SocketAddr) -> Result<Self, String> {
        let within_ms = inner.limits.connect_ms;
        // Dropped half-way, monoio cancels the connect and closes the socket when the kernel is done with it.
        match monoio::time::timeout(Duration::from_millis(within_ms), open(inner, address)).await {
            Ok(opened) => opened,
            Err(_) => Err(format!("no HTTP/2 connection within {within_ms} ms")),
        }
    }

    /// Whether the connection was worth having.
    pub(super) fn was_good(&self) -> bool {
        self.link.answered.get() || clock::now().mono.since_ms(self.since) >= self.inner.limits.steady_ms
    }

    /// Drives it while it takes calls, at most until `stop` rings. Then calls go elsewhere.
    pub(super) async fn serve(&mut self, stop: &Nudge) -> Left {
        let mut stop = pin!(stop.wait());
        let left = poll_fn(|cx| {
            if let Poll::Ready(cause) = self.poll_end(cx) {
                self.note_cause(&cause);
                return Poll::Ready(Left::Dead);
            }
            self.note_room();
            if let Some(cause) = self.link.refusal(cx) {
                self.note_cause(&cause);
                return Poll::Ready(Left::Leaving);
            }
            stop.as_mut().poll(cx).map(|()| Left::Stopped)
        })
        .await;
        self.link.close();
        left
    }

    /// Drives it until its calls are over; then it is closed, politely if the peer takes that soon.
    pub(super) async fn drain(mut self) {
        let mut farewell = None;
        poll_fn(|cx| {
            if let Poll::Ready(cause) = self.poll_end(cx) {
                self.note_cause(&cause);
                return Poll::Ready(());
            }
            if self.link.open.get() > 0 {
                return Poll::Pending;
            }
            farewell.get_or_insert_with(|| sleep_ms(limits::H2_FAREWELL_MS)).as_mut().poll(cx)
        })
        .await;
    }

    fn note_cause(&self, cause: &str) {
        self.link.cause.borrow_mut().get_or_insert_with(|| cause.into());
    }

    /// Takes over what the peer allows.
    fn note_room(&self) {
        let room_max = room(self.connection.max_concurrent_send_streams(), &self.inner.limits);
        if self.link.room_max.replace(room_max) < room_max {
            self.inner.change(|_, _| ());
        }
    }

    /// Does what there is to do; ready with the cause when the connection is over.
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<String> {
        let polled = Pin::new(&mut self.connection).poll(cx);
        if let Some(cut) = self.verdict.get() {
            return Poll::Ready(format!("cut off for its conduct: {cut:?}"));
        }
        match polled {
            Poll::Ready(Ok(())) => Poll::Ready("the connection was closed".to_owned()),
            Poll::Ready(Err(error)) => Poll::Ready(error.to_string()),
            Poll::Pending => self.poll_silence(cx),
        }
    }

    /// Keep-alive. An idle connection has no timer.
    fn poll_silence(&mut self, cx: &mut Context<'_>) -> Poll<String> {
        if self.link.open.get() == 0 {
            (self.busy_since, self.pinged, self.timer) = (None, None, None);
            return Poll::Pending;
        }
        let limits = self.inner.limits;
        loop {
            let now = clock::now().mono;
            let heard = self.heard.get().max(*self.busy_since.get_or_insert(now));
            let pong = self.pings.as_mut().is_some_and(|pings| pings.poll_pong(cx).is_ready());
            if pong || self.pinged.is_some_and(|at| heard > at) {
                // The timer waits for the end of the PING's patience, which may be later than the next PING.
                (self.pinged, self.timer) = (None, None);
            }
            let due = match self.pinged {
                Some(at) => at.plus_ms(limits.ping_ms),
                None => heard.plus_ms(limits.ping_after_ms),
            };
            if now >= due {
                if self.pinged.is_some() {
                    return Poll::Ready(format!("no answer to a PING within {} ms", limits.ping_ms));
                }
                self.pinged = Some(now);
                self.ping();
                continue;
            }
            let timer = self.timer.get_or_insert_with(|| sleep_ms(due.since_ms(now)));
            ready!(timer.as_mut().poll(cx));
            self.timer = None;
        }
    }

    fn ping(&mut self) {
        self.inner.state.borrow_mut().counts.pings += 1;
        if let Some(Err(error)) = self.pings.as_mut().map(|pings| pings.send_ping(Ping::opaque())) {
            // The one before has no answer yet, though the peer was heard.
            tracing::debug!(%error, "PING");
        }
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.inner.change(|state, _| state.counts.connections -= 1);
    }
}

fn sleep_ms(ms: u64) -> Pin<Box<Sleep>> {
    Box::pin(monoio::time::sleep(Duration::from_millis(ms)))
}

/// How many calls of ours a peer gets at once that allows so many streams.
fn room(streams: usize, own: &ChannelLimits) -> usize {
    let polite = streams.saturating_mul(limits::CHANNEL_STREAMS_PERCENT_MAX) / 100;
    polite.max(1).min(streams).min(own.streams_max)
}

async fn open(inner: &Rc<Inner>, address: SocketAddr) -> Result<Driver, String> {
    let in_words = |error: h2::Error| error.to_string();
    let stream = dial(address).await.map_err(|error| error.to_string())?;
    let stream = Budgeted::of_server(stream, Rc::clone(&inner.ration), &RpcLimits::DEFAULT);
    let (verdict, heard) = (stream.verdict(), stream.heard());
    let (sender, mut connection) = builder().handshake(stream).await.map_err(in_words)?;
    poll_fn(|cx| {
        let polled = Pin::new(&mut connection).poll(cx);
        if let Some(cut) = verdict.get() {
            return Poll::Ready(Err(format!("cut off for its conduct: {cut:?}")));
        }
        match polled {
            Poll::Ready(Err(error)) => Poll::Ready(Err(in_words(error))),
            Poll::Ready(Ok(())) => Poll::Ready(Err("the connection was closed".to_owned())),
            // 0 until its SETTINGS are here, see `builder`.
            Poll::Pending if connection.max_concurrent_send_streams() > 0 => Poll::Ready(Ok(())),
            Poll::Pending => Poll::Pending,
        }
    })
    .await?;
    let authority = Authority::try_from(address.to_string()).map_err(|error| error.to_string())?;
    let room_max = room(connection.max_concurrent_send_streams(), &inner.limits);
    inner.change(|state, _| state.counts.connections += 1);
    Ok(Driver {
        inner: Rc::clone(inner),
        link: Rc::new(Link::new(authority, Some(sender), room_max)),
        pings: connection.ping_pong(),
        connection,
        verdict,
        heard,
        since: clock::now().mono,
        busy_since: None,
        pinged: None,
        timer: None,
    })
}

async fn dial(address: SocketAddr) -> io::Result<Tcp> {
    let socket = TcpStream::connect_addr(address).await?;
    socket.set_nodelay(true)?;
    // For a peer that vanishes while no call is open; with calls open there are PINGs.
    let keep_alive = Some(Duration::from_millis(limits::KEEP_ALIVE_MS));
    socket.set_tcp_keepalive(keep_alive, keep_alive, None)?;
    socket.into_poll_io()
}

fn builder() -> Builder {
    let mut builder = Builder::new();
    builder
        .enable_push(false)
        .initial_max_send_streams(0)
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
