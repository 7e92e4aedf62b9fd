//! The ring engine: an own io_uring beside monoio's. Receives are multishot into the shard's shared buffers; all sends
//! of a turn leave with one call of the kernel.
//!
//! What always holds:
//! - A slot is occupied until its operations are joined and its descriptor is closed, so neither ids nor descriptor
//!   numbers are confused; every operation carries the generation and a stale id finds nothing.
//! - At most one receive, one send and one wait for room per connection. While one of the latter two is in flight
//!   nothing else is sent.
//! - An idle connection is its slot and an armed receive in the kernel. It owns no buffer and no task.
//! - A turn takes a bounded number of completions and bytes; a buffer is given back as soon as the hub has read it.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;

use rustix::io::Errno;
use rustix::net::Shutdown;

use super::uring::{Completion, Received, Uring};
use super::{Encoded, Life, Upper};
use crate::hub::SendBatch;
use crate::ids::ConnId;
use crate::limits::{
    READS_PER_TURN_MAX, READY_BATCH_MAX, RECEIVE_BUFFER_BYTES, RECEIVE_BUFFERS_MAX, SCRATCH_BYTES,
};
use crate::shard::nudge::Nudge;
use crate::shard::socket::Socket;
use crate::shard::transform::{Identity, Transform};
use alarm::RingAlarm;

mod alarm;

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct RingEngine<T> {
    slots: Vec<Option<Slot<T>>>,
    sockets: usize,
    uring: Uring,
    /// Wakes the loop. Dropped after the ring that writes to it.
    _alarm: RingAlarm,
    /// Came while sends were looked for.
    held: VecDeque<Completion>,
    /// Receives that ended because all buffers were in use.
    starved: VecDeque<ConnId>,
    /// Found as many sends in flight as there can be.
    unsent: VecDeque<ConnId>,
    accepts: Accepts,
    batch: SendBatch,
    /// Sends since [`RingEngine::take_sends`].
    sends: u64,
}

/// The accept of the shard's listener.
#[derive(Debug, Default)]
struct Accepts {
    /// Which listener, counted from 1.
    listener: u32,
    /// Whether its multishot accept is in flight.
    armed: bool,
    /// What came and was not asked for yet.
    come: VecDeque<Result<OwnedFd, Errno>>,
}

/// All that a connection costs in this engine.
#[derive(Debug)]
struct Slot<T> {
    generation: u32,
    socket: OwnedFd,
    flight: Flight,
    life: Life,
    transform: T,
    /// Only behind a transform that does not pass through.
    encoded: Option<Box<Encoded>>,
}

const _: () = assert!(size_of::<Option<Slot<Identity>>>() <= 24, "an idle connection is small");

/// What the kernel has of a connection, and what it is not to have.
#[derive(Clone, Copy, Debug, Default)]
struct Flight {
    receive: bool,
    send: bool,
    room: bool,
    /// Nothing is to be received.
    paused: bool,
}

impl Flight {
    fn is_over(self) -> bool {
        !(self.receive || self.send || self.room)
    }
}

impl<T: Transform> RingEngine<T> {
    pub(super) fn new(nudge: Nudge) -> io::Result<Self> {
        let alarm = RingAlarm::new()?;
        let uring = Uring::new(alarm.as_fd())?;
        alarm.start(nudge);
        Ok(Self {
            slots: Vec::new(),
            sockets: 0,
            uring,
            _alarm: alarm,
            held: VecDeque::new(),
            starved: VecDeque::new(),
            unsent: VecDeque::new(),
            accepts: Accepts::default(),
            batch: SendBatch::default(),
            sends: 0,
        })
    }

    pub(super) fn adopt(&mut self, conn: ConnId, socket: Rc<Socket>) {
        if self.slots.len() <= conn.index() {
            self.slots.resize_with(conn.index() + 1, || None);
        }
        let slot = &mut self.slots[conn.index()];
        assert!(slot.is_none(), "connection {conn} was accepted over an open socket");
        let socket = Rc::try_unwrap(socket).expect("the handshake is over: the engine is the only owner");
        *slot = Some(Slot {
            generation: conn.0.generation,
            socket: socket.release().into(),
            flight: Flight::default(),
            life: Life::Open,
            transform: T::default(),
            encoded: None,
        });
        self.sockets += 1;
        self.receive(conn);
    }

    pub(super) fn serve(&mut self, upper: &mut impl Upper) -> bool {
        self.uring.hush();
        let (mut completions, mut bytes) = (READY_BATCH_MAX, READS_PER_TURN_MAX * SCRATCH_BYTES);
        // One more completion may bring a whole buffer.
        while completions > 0 && bytes >= RECEIVE_BUFFER_BYTES as usize {
            let Some(completion) = self.held.pop_front().or_else(|| self.uring.next()) else {
                if self.uring.run_deferred() {
                    continue;
                }
                break;
            };
            completions -= 1;
            bytes = bytes.saturating_sub(self.complete(completion, upper));
        }
        // Once per turn: what is starved again waits for the next one, so this is no storm.
        for _ in 0..self.starved.len().min(usize::from(RECEIVE_BUFFERS_MAX)) {
            if let Some(conn) = self.starved.pop_front() {
                self.receive_again(conn);
            }
        }
        completions == 0 || bytes < RECEIVE_BUFFER_BYTES as usize || !self.starved.is_empty()
    }

    pub(super) fn flush(&mut self, conn: ConnId, upper: &mut impl Upper) {
        let Some(slot) = self.slot(conn) else { return };
        if slot.flight.send || slot.flight.room || slot.life != Life::Open {
            return;
        }
        if !self.uring.can_send() {
            self.unsent.push_back(conn);
        } else if T::PASSES_THROUGH {
            self.flush_frames(conn, upper);
        } else {
            self.flush_encoded(conn, upper);
        }
    }

    /// The kernel completes sends while it takes them: this is where they are told, in the turn they were asked for.
    pub(super) fn submit(&mut self, upper: &mut impl Upper) -> bool {
        while self.uring.submit() {
            while let Some(completion) = self.uring.next() {
                match completion {
                    Completion::Sent { .. } => drop(self.complete(completion, upper)),
                    other => self.held.push_back(other),
                }
            }
            for _ in 0..self.unsent.len() {
                if let Some(conn) = self.unsent.pop_front() {
                    self.flush(conn, upper);
                }
            }
        }
        !self.uring.prepare_sleep() || !self.held.is_empty() || !self.unsent.is_empty()
    }

    pub(super) fn close(&mut self, conn: ConnId, upper: &mut impl Upper) {
        let Some(slot) = self.slot(conn) else { return };
        if slot.life == Life::Closing {
            return;
        }
        slot.life = Life::Closing;
        if let Err(error) = rustix::net::shutdown(&slot.socket, Shutdown::Both) {
            tracing::trace!(%conn, %error, "shutdown"); // the peer is gone already
        }
        self.finish_close(conn, upper);
    }

    pub(super) fn accept_from_another(&mut self) {
        self.accepts.listener = self.accepts.listener.wrapping_add(1);
        self.accepts.armed = false;
        // How the accept of the earlier listener ended is no news of this one.
        self.accepts.come.retain(Result::is_ok);
    }

    pub(super) fn accept(&mut self, listener: BorrowedFd<'_>) {
        if !std::mem::replace(&mut self.accepts.armed, true) {
            self.uring.accept(listener, self.accepts.listener);
        }
    }

    pub(super) fn pause_accept(&mut self) {
        if self.accepts.armed {
            self.uring.cancel_accept(self.accepts.listener);
        }
    }

    pub(super) fn next_accepted(&mut self) -> Option<Result<OwnedFd, Errno>> {
        self.accepts.come.pop_front()
    }

    pub(super) fn pause(&mut self, conn: ConnId) {
        let Some(slot) = slot_of(&mut self.slots, conn) else { return };
        slot.flight.paused = true;
        if slot.flight.receive {
            self.uring.cancel_receive(conn);
        }
    }

    pub(super) fn resume(&mut self, conn: ConnId) {
        if let Some(slot) = self.slot(conn) {
            slot.flight.paused = false;
            self.receive_again(conn);
        }
    }

    pub(super) fn socket(&self, conn: ConnId) -> Option<BorrowedFd<'_>> {
        let slot = self.slots.get(conn.index())?.as_ref()?;
        (slot.generation == conn.0.generation).then(|| slot.socket.as_fd())
    }

    pub(super) fn sockets(&self) -> usize {
        self.sockets
    }

    pub(super) fn take_sends(&mut self) -> u64 {
        std::mem::take(&mut self.sends)
    }

    fn slot(&mut self, conn: ConnId) -> Option<&mut Slot<T>> {
        slot_of(&mut self.slots, conn)
    }

    /// Acts on a completion; gives the bytes that came with it.
    fn complete(&mut self, completion: Completion, upper: &mut impl Upper) -> usize {
        match completion {
            Completion::Received { conn, outcome, more } => {
                if let (false, Some(slot)) = (more, self.slot(conn)) {
                    slot.flight.receive = false;
                }
                let bytes = self.received(conn, outcome, upper);
                self.after_receive(conn, upper);
                return bytes;
            }
            Completion::Sent { done, outcome } => {
                let Some(slot) = slot_of(&mut self.slots, done.conn) else { return 0 };
                slot.flight.send = false;
                if let Some(encoded) = &mut slot.encoded {
                    encoded.wire = done.wire;
                }
                self.sent(done.conn, done.offered, outcome, upper);
            }
            Completion::Room(conn) => {
                let Some(slot) = self.slot(conn) else { return 0 };
                slot.flight.room = false;
                match slot.life {
                    Life::Open => self.flush(conn, upper),
                    Life::Lost => {}
                    Life::Closing => self.finish_close(conn, upper),
                }
            }
            Completion::Accepted { listener, outcome, more } => {
                let current = listener == self.accepts.listener;
                self.accepts.armed &= more || !current;
                if current || outcome.is_ok() {
                    self.accepts.come.push_back(outcome);
                }
            }
            Completion::Cancelled => {}
        }
        0
    }

    fn received(&mut self, conn: ConnId, outcome: Received, upper: &mut impl Upper) -> usize {
        match outcome {
            Received::Bytes(buffer) => {
                let bytes = self.uring.bytes(&buffer);
                let received = bytes.len();
                let open = slot_of(&mut self.slots, conn).filter(|slot| slot.life == Life::Open);
                let understood = open.map(|slot| slot.transform.inbound(bytes));
                if let Some(Ok(n)) = understood {
                    upper.bytes(conn, &mut bytes[..n]);
                }
                self.uring.give_back(buffer);
                if let Some(Err(_)) = understood {
                    self.lose(conn, upper);
                }
                return received;
            }
            Received::End => self.lose(conn, upper),
            Received::Failed(Errno::NOBUFS) => self.starved.push_back(conn),
            // Cancelled by a pause; or it is closing, and nobody asks.
            Received::Failed(Errno::AGAIN | Errno::INTR | Errno::CANCELED) => {}
            Received::Failed(_) => self.lose(conn, upper),
        }
        0
    }

    /// What is left to do about the receive of a connection: arm it again, end it, or be done with it.
    fn after_receive(&mut self, conn: ConnId, upper: &mut impl Upper) {
        let starved = self.starved.back() == Some(&conn);
        let Some(slot) = self.slot(conn) else { return };
        match (slot.life, slot.flight.receive) {
            (Life::Open, true) => {}
            (Life::Open, false) if starved || slot.flight.paused => {}
            (Life::Open, false) => self.receive(conn),
            // A peer that goes on sending could keep it alive for ever.
            (Life::Lost | Life::Closing, true) => self.uring.cancel_receive(conn),
            (Life::Lost, false) => {}
            (Life::Closing, false) => self.finish_close(conn, upper),
        }
    }

    fn receive(&mut self, conn: ConnId) {
        let Some(slot) = slot_of(&mut self.slots, conn) else { return };
        slot.flight.receive = true;
        self.uring.receive(slot.socket.as_fd(), conn);
    }

    fn receive_again(&mut self, conn: ConnId) {
        if self
            .slot(conn)
            .is_some_and(|slot| slot.life == Life::Open && !slot.flight.receive && !slot.flight.paused)
        {
            self.receive(conn);
        }
    }

    fn await_room(&mut self, conn: ConnId) {
        let Some(slot) = slot_of(&mut self.slots, conn) else { return };
        slot.flight.room = true;
        self.uring.await_room(slot.socket.as_fd(), conn);
    }

    fn sent(&mut self, conn: ConnId, offered: usize, outcome: Result<usize, Errno>, upper: &mut impl Upper) {
        let Some(slot) = self.slot(conn) else { return };
        match slot.life {
            Life::Open => {}
            Life::Lost => return,
            Life::Closing => return self.finish_close(conn, upper),
        }
        let sent = match outcome {
            Ok(n) => n,
            Err(Errno::AGAIN | Errno::INTR) => 0,
            Err(_) => return self.lose(conn, upper),
        };
        let frames = match &mut slot.encoded {
            None => Some(sent),
            Some(encoded) => {
                encoded.sent += sent;
                (sent == offered).then_some(encoded.frames)
            }
        };
        if sent < offered {
            self.await_room(conn);
        } else {
            slot.encoded = None;
        }
        if let Some(frames) = frames {
            upper.sent(conn, frames);
        }
    }

    /// Second and third step of a close: once nothing is in flight, dropping the slot closes the descriptor.
    fn finish_close(&mut self, conn: ConnId, upper: &mut impl Upper) {
        if self.slot(conn).is_none_or(|slot| !slot.flight.is_over()) {
            return;
        }
        self.slots[conn.index()] = None;
        self.sockets -= 1;
        upper.closed(conn);
    }

    fn lose(&mut self, conn: ConnId, upper: &mut impl Upper) {
        let Some(slot) = self.slot(conn) else { return };
        if slot.life == Life::Open {
            slot.life = Life::Lost;
            upper.lost(conn);
        }
    }

    fn flush_frames(&mut self, conn: ConnId, upper: &mut impl Upper) {
        if upper.fill(conn, &mut self.batch) == 0 {
            return;
        }
        let Some(slot) = slot_of(&mut self.slots, conn) else { return };
        slot.flight.send = true;
        self.sends += 1;
        self.uring.send_frames(slot.socket.as_fd(), conn, &mut self.batch);
    }

    /// As `flush_frames` with a copy: what was encoded once cannot be asked for again, so it waits here until the
    /// socket has taken all of it, and only then the hub hears that its frames were sent.
    fn flush_encoded(&mut self, conn: ConnId, upper: &mut impl Upper) {
        let Some(slot) = slot_of(&mut self.slots, conn) else { return };
        let encoded = slot.encoded.get_or_insert_default();
        if encoded.wire.is_empty() {
            encoded.frames = upper.fill(conn, &mut self.batch);
            let mut skip = self.batch.skip;
            for frame in self.batch.frames.drain(..) {
                slot.transform.outbound(frame.bytes().get(skip..).unwrap_or_default(), &mut encoded.wire);
                skip = 0;
            }
        }
        if encoded.wire.len() <= encoded.sent {
            slot.encoded = None;
            return;
        }
        slot.flight.send = true;
        self.sends += 1;
        let wire = std::mem::take(&mut encoded.wire);
        self.uring.send_wire(slot.socket.as_fd(), conn, wire, encoded.sent);
    }
}

/// Not a method of the engine: its ring and batch are borrowed beside the slot.
fn slot_of<T>(slots: &mut [Option<Slot<T>>], conn: ConnId) -> Option<&mut Slot<T>> {
    slots.get_mut(conn.index())?.as_mut().filter(|slot| slot.generation == conn.0.generation)
}
