//! Bodies of HTTP/2 streams as gRPC messages, one by one: reading within our window, sending within the peer's.
//!
//! What always holds: window is given back to a caller when the message that used it is asked past, so one whose
//! messages are not taken is stopped with at most a window of bytes and one message here; what is held is accounted
//! for; a caller that takes nothing for `STREAM_SEND_DEADLINE_MS` is given up. No message is packed when it is sent.

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use h2::{Reason, RecvStream, SendStream};
use http::HeaderMap;
use prost::Message;

use super::call::{End, Service};
use super::exchange::{DrainWatch, Held};
use super::metadata::Coding;
use crate::limits::GRPC_MESSAGE_BYTES_MAX;
use crate::metrics::Metric;
use crate::wire::grpc::{BodyFault, BodyMessage, Gunzip, Messages, PREFIX_BYTES, Status, code};

/// How much of `bytes` the peer's window has room for, at least one.
fn poll_room(
    stream: &mut SendStream<Bytes>,
    cx: &mut Context<'_>,
    bytes: usize,
) -> Poll<Result<usize, h2::Error>> {
    stream.reserve_capacity(bytes);
    // Room that is there already is not announced by `poll_capacity`.
    if stream.capacity() > 0 {
        return Poll::Ready(Ok(stream.capacity().min(bytes)));
    }
    match ready!(stream.poll_capacity(cx)) {
        Some(room) => Poll::Ready(room.map(|room| room.min(bytes))),
        None => Poll::Ready(Err(h2::Error::from(Reason::CANCEL))),
    }
}

/// Sends all bytes as the peer gives room. Nothing is queued beyond its window.
///
/// # Cancel safety
/// Dropped half-way, the stream is left unfinished; reset it.
pub(super) async fn send_all(stream: &mut SendStream<Bytes>, mut bytes: Bytes) -> Result<(), h2::Error> {
    while !bytes.is_empty() {
        let room = poll_fn(|cx| poll_room(stream, cx, bytes.len())).await?;
        stream.send_data(bytes.split_to(room), false)?;
    }
    Ok(())
}

/// Encodes an answer behind its prefix.
pub(super) fn encode(message: &impl Message) -> Result<Bytes, Status> {
    // Encoding fails for want of room only, and a `BytesMut` grows.
    framed(message.encoded_len(), |out| message.encode_raw(out))
}

/// A message of so many bytes, which `write` appends, behind its prefix.
pub(super) fn framed(length: usize, write: impl FnOnce(&mut BytesMut)) -> Result<Bytes, Status> {
    let (true, Ok(prefix)) = (length <= GRPC_MESSAGE_BYTES_MAX, u32::try_from(length)) else {
        return Err(Status::new(
            code::RESOURCE_EXHAUSTED,
            format!("grpc: trying to send message larger than max ({length} vs. {GRPC_MESSAGE_BYTES_MAX})"),
        ));
    };
    let mut bytes = BytesMut::with_capacity(PREFIX_BYTES + length);
    bytes.put_u8(0);
    bytes.put_u32(prefix);
    write(&mut bytes);
    Ok(bytes.freeze())
}

/// One message of a caller, unpacked.
pub(super) struct Received {
    /// The message.
    pub(super) bytes: Bytes,
    /// The account of its bytes: keep it for as long as they are kept.
    pub(super) held: Held,
}

/// What a caller sends.
pub(super) struct Inbound {
    service: Rc<Service>,
    body: RecvStream,
    coding: Coding,
    messages: Messages,
    /// Of what is in `messages`.
    held: Held,
    /// Taken from the body, window not given back yet.
    owed_bytes: usize,
}

impl Inbound {
    pub(super) fn new(service: &Rc<Service>, body: RecvStream, coding: Coding) -> Self {
        let (service, held) = (Rc::clone(service), service.exchange.hold_nothing());
        Self { service, body, coding, messages: Messages::new(GRPC_MESSAGE_BYTES_MAX), held, owed_bytes: 0 }
    }

    /// The bytes as they come; nothing was read yet.
    pub(super) fn into_body(self) -> RecvStream {
        self.body
    }

    /// The next message; `None`: the caller has half-closed. Asking says that the message before it is done with.
    ///
    /// # Cancel safety
    /// Dropped while a packed message is unpacked, that message is lost; otherwise nothing.
    pub(super) async fn next(&mut self) -> Result<Option<Received>, End> {
        self.give_window()?;
        loop {
            let before = self.messages.held_bytes();
            if let Some(message) = self.messages.take().map_err(|fault| self.bad(fault))? {
                let held = self.held.split(before - self.messages.held_bytes());
                return self.unpack(message, held).await.map(Some);
            }
            self.give_window()?;
            match self.body.data().await {
                Some(chunk) => self.take(chunk.map_err(gone)?)?,
                None if self.messages.held_bytes() > 0 => return Err(self.bad(BodyFault::Truncated)),
                None => return Ok(None),
            }
        }
    }

    /// The one message of a unary call.
    pub(super) async fn only(&mut self) -> Result<Received, End> {
        let Some(message) = self.next().await? else {
            return Err(self.bad(BodyFault::Truncated));
        };
        self.give_window()?;
        loop {
            if self.messages.held_bytes() > 0 {
                return Err(self.bad(BodyFault::Trailing));
            }
            match self.body.data().await {
                Some(chunk) => self.take(chunk.map_err(gone)?)?,
                None => return Ok(message),
            }
        }
    }

    fn take(&mut self, chunk: Bytes) -> Result<(), End> {
        self.owed_bytes += chunk.len();
        self.held.grow(chunk.len())?;
        self.messages.push(chunk);
        Ok(())
    }

    fn give_window(&mut self) -> Result<(), End> {
        let owed = std::mem::take(&mut self.owed_bytes);
        self.body.flow_control().release_capacity(owed).map_err(gone)
    }

    async fn unpack(&self, message: BodyMessage, mut held: Held) -> Result<Received, End> {
        if !message.compressed {
            return Ok(Received { bytes: message.bytes, held });
        }
        if self.coding == Coding::Identity {
            return Err(self.bad(BodyFault::Compressed));
        }
        let mut gunzip = Gunzip::new(message.bytes, GRPC_MESSAGE_BYTES_MAX);
        loop {
            let before = gunzip.plain_bytes();
            if let Some(bytes) = gunzip.step().map_err(|fault| self.bad(fault))? {
                held.grow(bytes.len() - before)?;
                return Ok(Received { bytes, held });
            }
            held.grow(gunzip.plain_bytes() - before)?;
            self.service.turns.turn().await;
        }
    }

    fn bad(&self, fault: BodyFault) -> End {
        self.service.exchange.count(Metric::RpcBadRequest);
        fault.status(GRPC_MESSAGE_BYTES_MAX).into()
    }
}

fn gone(error: h2::Error) -> End {
    tracing::debug!(%error, "a caller left");
    End::Gone
}

/// What a caller is sent. Clones send on the same stream.
#[derive(Clone)]
pub(super) struct Outbound {
    stream: Rc<RefCell<SendStream<Bytes>>>,
    /// A caller that takes nothing for so long is given up.
    stall_ms: u64,
}

impl Outbound {
    pub(super) fn new(stream: SendStream<Bytes>, stall_ms: u64) -> Self {
        Self { stream: Rc::new(RefCell::new(stream)), stall_ms }
    }

    /// Sends one message, as the caller's window allows.
    ///
    /// # Cancel safety
    /// Dropped half-way, the stream is left inside a message; it can only be reset.
    pub(super) async fn send(&self, message: &impl Message) -> Result<(), End> {
        self.send_framed(encode(message)?).await
    }

    /// As [`Outbound::send`], of messages that have their prefix.
    pub(super) async fn send_framed(&self, mut framed: Bytes) -> Result<(), End> {
        while !framed.is_empty() {
            let room = self.room(framed.len()).await?;
            self.stream.borrow_mut().send_data(framed.split_to(room), false).map_err(gone)?;
        }
        Ok(())
    }

    /// The same stream with another patience.
    pub(super) fn with_stall(&self, stall_ms: u64) -> Self {
        Self { stream: Rc::clone(&self.stream), stall_ms }
    }

    /// Sends no more; the other direction stays open.
    pub(super) fn half_close(&self) {
        if let Err(error) = self.stream.borrow_mut().send_data(Bytes::new(), true) {
            tracing::debug!(%error, "half-close");
        }
    }

    async fn room(&self, bytes: usize) -> Result<usize, End> {
        let mut stalled = pin!(monoio::time::sleep(Duration::from_millis(self.stall_ms)));
        poll_fn(|cx| {
            if let Poll::Ready(room) = poll_room(&mut self.stream.borrow_mut(), cx, bytes) {
                return Poll::Ready(room.map_err(gone));
            }
            stalled.as_mut().poll(cx).map(|()| Err(End::TooSlow))
        })
        .await
    }

    /// Ends the stream with trailers.
    pub(super) fn finish(&self, trailers: HeaderMap) {
        if let Err(error) = self.stream.borrow_mut().send_trailers(trailers) {
            tracing::debug!(%error, "trailers");
        }
    }

    /// Cuts the stream.
    pub(super) fn reset(&self) {
        self.stream.borrow_mut().send_reset(Reason::CANCEL);
    }

    /// Runs `work` unless the caller resets the stream or its connection ends; then `work` is dropped.
    pub(super) async fn unless_gone<T>(
        &self,
        mut work: Pin<&mut impl Future<Output = Result<T, End>>>,
    ) -> Result<T, End> {
        poll_fn(|cx| {
            if let Poll::Ready(result) = work.as_mut().poll(cx) {
                return Poll::Ready(result);
            }
            self.stream.borrow_mut().poll_reset(cx).map(|_| Err(End::Gone))
        })
        .await
    }
}

/// Runs `work`, or says UNAVAILABLE when the thread begins to drain; then `work` is dropped.
pub(super) async fn unless_draining<T>(
    drain: &DrainWatch,
    work: impl Future<Output = Result<T, End>>,
) -> Result<T, End> {
    let mut work = pin!(work);
    poll_fn(|cx| {
        if drain.poll(cx).is_ready() {
            return Poll::Ready(Err(Status::new(code::UNAVAILABLE, "the node is leaving").into()));
        }
        work.as_mut().poll(cx)
    })
    .await
}

#[cfg(test)]
mod tests {
    use http::{Request, Response};
    use monoio::io::IntoPollIo;
    use monoio::net::{TcpListener, TcpStream};

    use super::*;
    use crate::pb::pinion::v1::{MessageVerdict, PushVerdicts, UserVerdict};
    use crate::shard::thread::{block_on, tests::on_each_of_the_drivers};

    /// Three times as long as the caller below lets it wait.
    const STALL_MS: u64 = 1_500;

    /// A server's end of a stream whose caller reads nothing, and the caller's.
    async fn stalled() -> (Outbound, RecvStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let client = TcpStream::connect_addr(address).await.unwrap().into_poll_io().unwrap();
        let server = listener.accept().await.unwrap().0.into_poll_io().unwrap();
        let (answered, answer) = std::sync::mpsc::channel();
        monoio::spawn(async move {
            let mut server = h2::server::handshake(server).await.unwrap();
            while let Some(Ok((_, mut respond))) = server.accept().await {
                answered.send(respond.send_response(Response::new(()), false).unwrap()).unwrap();
            }
        });
        let (sender, connection) = h2::client::handshake(client).await.unwrap();
        monoio::spawn(async move { connection.await.unwrap_or_default() });
        let mut sender = sender.ready().await.unwrap();
        let (response, _) = sender.send_request(Request::post("http://x/").body(()).unwrap(), true).unwrap();
        let body = response.await.unwrap().into_body();
        (Outbound::new(answer.recv().unwrap(), STALL_MS), body)
    }

    #[test]
    fn a_caller_that_takes_nothing_is_given_up_and_one_that_takes_a_little_is_not() {
        on_each_of_the_drivers(|driver| {
            block_on(driver, |_| async {
                let (outbound, mut body) = stalled().await;
                let users = vec![UserVerdict { user_id: "u".repeat(1_000), ..UserVerdict::default() }; 40];
                let message =
                    PushVerdicts { verdicts: vec![MessageVerdict { users, ..MessageVerdict::default() }] };
                // The caller's window takes one.
                assert_eq!(outbound.send(&message).await, Ok(()), "{driver:?}");
                let reader = monoio::spawn(async move {
                    for _ in 0..5 {
                        monoio::time::sleep(Duration::from_millis(STALL_MS / 3)).await;
                        let chunk = body.data().await.unwrap().unwrap();
                        body.flow_control().release_capacity(chunk.len()).unwrap();
                    }
                    body
                });
                let start = crate::shard::clock::now().mono;
                let mut sent = 0;
                let end = loop {
                    match outbound.send(&message).await {
                        Ok(()) => sent += 1,
                        Err(end) => break end,
                    }
                };
                assert_eq!(end, End::TooSlow, "{driver:?}");
                assert!(
                    sent > 0 && crate::shard::clock::now().mono.since_ms(start) >= STALL_MS * 5 / 3,
                    "{driver:?}: {sent}"
                );
                drop(reader.await);
            });
        });
    }
}
