//! One stream between two nodes, whoever dialled: what waits to be sent, and the loop that carries frames both ways.
//!
//! What always holds: frames leave and arrive in order; a message that cannot be read ends the stream; nothing is
//! borrowed while the driver is told something, so it may send and close at once.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use h2::RecvStream;

use super::{Inner, LinkEvent};
use crate::cluster::protocol::codec::{self, CodecFault, Queue, Unsent};
use crate::cluster::protocol::frame::{Body, Frame, Generation};
use crate::limits::{LINK_FLUSH_MS, LINK_MESSAGE_BYTES_MAX, LINK_TURN_FRAMES_MAX};
use crate::placement::view::NodeId;
use crate::rpc::call::End;
use crate::rpc::stream::Outbound;
use crate::rpc::unary;
use crate::shard::nudge::Nudge;
use crate::wire::grpc::{BodyFault, Messages, Status, code};

/// What this node wants of a transport.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wish {
    Stay,
    /// Send what waits, then end.
    Flush,
    /// End.
    Close,
    /// End: too much waits.
    Overflow,
    /// End, and say why.
    Deny,
}

/// How a transport ended.
#[derive(Debug)]
pub(super) enum Ended {
    /// This node wanted it.
    Closed,
    /// The peer or the network ended it.
    Gone(String),
    /// The peer ended it with a status.
    Refused(Status),
    /// The peer sent what cannot be read, or must not be said.
    Fault(i32, String),
    /// Too much waited.
    Overflow,
    /// The peer took nothing.
    Stalled,
}

/// See the module's documentation.
pub(super) struct Transport {
    pub(super) peer: NodeId,
    /// Of the Hello, once it was said.
    generation: Cell<Option<Generation>>,
    /// Both sides have said Hello.
    greeted: Cell<bool>,
    queue: RefCell<Queue>,
    queued: Nudge,
    wish: Cell<Wish>,
    /// Why, of [`Wish::Deny`].
    why: RefCell<String>,
    wished: Nudge,
}

impl Transport {
    pub(super) fn new(peer: NodeId) -> Rc<Self> {
        Rc::new(Self {
            peer,
            generation: Cell::new(None),
            greeted: Cell::new(false),
            queue: RefCell::default(),
            queued: Nudge::default(),
            wish: Cell::new(Wish::Stay),
            why: RefCell::default(),
            wished: Nudge::default(),
        })
    }

    pub(super) fn generation(&self) -> Option<Generation> {
        self.generation.get()
    }

    /// Whether frames of that generation belong to it.
    pub(super) fn carries(&self, generation: &Generation) -> bool {
        self.generation.get().is_some_and(|own| own.is_same_transport(generation))
    }

    pub(super) fn is_up(&self) -> bool {
        self.greeted.get() && self.stays()
    }

    pub(super) fn stays(&self) -> bool {
        self.wish.get() == Wish::Stay
    }

    pub(super) fn queued_bytes(&self) -> usize {
        self.queue.borrow().depth().0
    }

    /// Takes a frame for the peer; its first Hello names the generation.
    pub(super) fn send(&self, inner: &Inner, frame: Frame) {
        if !self.stays() {
            return;
        }
        match frame.body {
            Body::Hello(_) if self.generation.get().is_none() => self.generation.set(Some(frame.generation)),
            Body::HelloAck(_) => self.greeted.set(true),
            _ => {}
        }
        let pushed = self.queue.borrow_mut().push(frame);
        match pushed {
            Ok(()) => self.queued.ring(),
            Err(Unsent::TooLarge) => {
                inner.counts.too_large.add(1);
                tracing::warn!(peer = %self.peer, "a push is too large for the link between two nodes: not sent there");
            }
            Err(Unsent::Full) => self.want(Wish::Overflow),
        }
    }

    /// Sends what waits and ends.
    pub(super) fn flush(&self) {
        self.want(Wish::Flush);
    }

    /// Ends.
    pub(super) fn close(&self) {
        self.want(Wish::Close);
    }

    /// Ends, and tells the peer why, if it dialled.
    pub(super) fn deny(&self, why: &str) {
        why.clone_into(&mut self.why.borrow_mut());
        self.want(Wish::Deny);
    }

    fn want(&self, wish: Wish) {
        if matches!(self.wish.get(), Wish::Stay | Wish::Flush) {
            self.wish.set(wish);
            self.wished.ring();
            self.queued.ring();
        }
    }

    /// Ends when this node wants it.
    async fn wanted(&self) -> Ended {
        loop {
            match self.wish.get() {
                Wish::Stay => self.wished.wait().await,
                Wish::Close => return Ended::Closed,
                Wish::Overflow => return Ended::Overflow,
                Wish::Deny => return Ended::Fault(code::FAILED_PRECONDITION, self.why.take()),
                Wish::Flush => {
                    let wait = self.wished.wait();
                    // In time or not: the loop looks again, or it is over.
                    if monoio::time::timeout(Duration::from_millis(LINK_FLUSH_MS), wait).await.is_err() {
                        return Ended::Closed;
                    }
                }
            }
        }
    }

    async fn write(&self, inner: &Inner, out: &Outbound) -> Ended {
        loop {
            let batch = self.queue.borrow_mut().pop();
            let Some(batch) = batch else {
                if self.wish.get() == Wish::Flush {
                    return Ended::Closed;
                }
                self.queued.wait().await;
                continue;
            };
            let bytes = batch.bytes.len();
            match out.send_framed(batch.bytes).await {
                Ok(()) => {}
                Err(End::TooSlow) => return Ended::Stalled,
                Err(End::Gone) => return Ended::Gone("the stream was cut".to_owned()),
                Err(End::Refused(status)) => return Ended::Fault(status.code, status.message),
            }
            inner.counts.frames_out.add(batch.frames);
            inner.counts.bytes_out.add(bytes);
        }
    }

    /// Hands frames on until the stream ends.
    async fn read(&self, inner: &Inner, reader: &mut Reader) -> Ended {
        loop {
            let message = match reader.next().await {
                Ok(message) => message,
                Err(ended) => return ended,
            };
            if let Err(ended) = self.take(inner, message).await {
                return ended;
            }
        }
    }

    /// Hands on the frames of one message.
    pub(super) async fn take(&self, inner: &Inner, message: Bytes) -> Result<(), Ended> {
        let bytes = message.len();
        let frames = codec::decode(message).map_err(fault)?;
        inner.counts.bytes_in.add(bytes);
        inner.counts.frames_in.add(frames.len());
        for (n, frame) in frames.into_iter().enumerate() {
            if !self.stays() {
                return Ok(());
            }
            self.judge(&frame)?;
            inner.tell(LinkEvent::Frame(self.peer.clone(), frame));
            if n % LINK_TURN_FRAMES_MAX == LINK_TURN_FRAMES_MAX - 1 {
                inner.plan.turns.turn().await;
            }
        }
        Ok(())
    }

    /// The first frame that comes to who was dialled is a Hello; all are of one generation.
    fn judge(&self, frame: &Frame) -> Result<(), Ended> {
        let rule = |text: &str| Err(Ended::Fault(code::INVALID_ARGUMENT, text.to_owned()));
        match (&frame.body, self.generation.get()) {
            (Body::Hello(_), None) => self.generation.set(Some(frame.generation)),
            (_, None) => return rule("the first frame of a link is a Hello"),
            (body, Some(own)) if own.is_same_transport(&frame.generation) => {
                if matches!(body, Body::HelloAck(_)) {
                    self.greeted.set(true);
                }
            }
            _ => return rule("a frame of another generation than its link's"),
        }
        Ok(())
    }

    /// Carries frames both ways until the transport ends.
    pub(super) async fn carry(&self, inner: &Inner, reader: &mut Reader, out: &Outbound) -> Ended {
        let mut reading = pin!(self.read(inner, reader));
        let mut writing = pin!(self.write(inner, out));
        let mut wanted = pin!(self.wanted());
        // Written first: an answer to what was read leaves in this turn, since the nudge wakes the task again.
        poll_fn(|cx| {
            if let Poll::Ready(ended) = wanted.as_mut().poll(cx) {
                return Poll::Ready(ended);
            }
            if let Poll::Ready(ended) = writing.as_mut().poll(cx) {
                return Poll::Ready(ended);
            }
            reading.as_mut().poll(cx)
        })
        .await
    }
}

fn fault(fault: CodecFault) -> Ended {
    let status = match fault {
        CodecFault::Version(_) => code::FAILED_PRECONDITION,
        _ => code::INVALID_ARGUMENT,
    };
    Ended::Fault(status, fault.to_string())
}

/// The messages that a peer sends.
pub(super) struct Reader {
    body: RecvStream,
    messages: Messages,
    /// Taken from the body, window not given back yet.
    owed_bytes: usize,
}

impl Reader {
    pub(super) fn new(body: RecvStream) -> Self {
        Self { body, messages: Messages::new(LINK_MESSAGE_BYTES_MAX), owed_bytes: 0 }
    }

    /// The next message. Asking gives back the window that earlier ones used.
    pub(super) async fn next(&mut self) -> Result<Bytes, Ended> {
        let gone = |error: h2::Error| Ended::Gone(error.to_string());
        loop {
            let bad = |fault: BodyFault| {
                Ended::Fault(code::INVALID_ARGUMENT, fault.status(LINK_MESSAGE_BYTES_MAX).message)
            };
            match self.messages.take().map_err(bad)? {
                Some(message) if message.compressed => return Err(bad(BodyFault::Compressed)),
                Some(message) => return Ok(message.bytes),
                None => {}
            }
            let owed = std::mem::take(&mut self.owed_bytes);
            self.body.flow_control().release_capacity(owed).map_err(gone)?;
            match self.body.data().await {
                Some(chunk) => {
                    let chunk = chunk.map_err(gone)?;
                    self.owed_bytes += chunk.len();
                    self.messages.push(chunk);
                }
                None => return Err(self.end().await),
            }
        }
    }

    /// Reads on to the end, and takes nothing of it.
    pub(super) async fn drain(&mut self) {
        while self.next().await.is_ok() {}
    }

    /// The peer has half-closed.
    async fn end(&mut self) -> Ended {
        let trailers = poll_fn(|cx| self.body.poll_trailers(cx)).await;
        match trailers.ok().flatten().and_then(|trailers| unary::status(&trailers)) {
            Some(status) if status.code != code::OK => Ended::Refused(status),
            _ => Ended::Gone("the peer ended the stream".to_owned()),
        }
    }
}
