//! The task engine: one lean task per connection waits for readiness and notes its id; the loop reads, sends and
//! closes. It runs on both drivers of monoio.
//!
//! What always holds:
//! - A slot is occupied until its waits are joined and its descriptor is closed, so neither ids nor descriptor
//!   numbers are confused; every entry of a list carries its generation and a stale one finds nothing.
//! - At most one read wait and one write wait per connection. While a write wait lives nothing is sent.
//! - An idle connection owns no buffer: its task, its slot and a shared pointer are all there is.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::IoSlice;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::rc::Rc;

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendFlags, Shutdown};

use super::{Encoded, Life, Upper};
use crate::hub::SendBatch;
use crate::ids::ConnId;
use crate::limits::{READS_PER_TURN_MAX, READY_BATCH_MAX, SCRATCH_BYTES, SEND_BATCH_MAX};
use crate::shard::nudge::Nudge;
use crate::shard::socket::Socket;
use crate::shard::transform::Transform;

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct TaskEngine<T> {
    slots: Vec<Option<Slot<T>>>,
    sockets: usize,
    /// Readable, in order of arrival; served a batch per turn.
    ready: VecDeque<ConnId>,
    signals: Rc<Signals>,
    /// The one buffer that all connections are read into.
    scratch: Box<[u8]>,
    batch: SendBatch,
    /// Calls of sendmsg since [`TaskEngine::take_sends`].
    sends: u64,
}

#[derive(Debug)]
struct Slot<T> {
    generation: u32,
    waits: Waits,
    life: Life,
    reading: Reading,
    socket: Rc<Socket>,
    transform: T,
    /// Encoded bytes that the socket did not take yet. Only behind a transform that does not pass through.
    encoded: Option<Box<Encoded>>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Waits {
    read: bool,
    write: bool,
}

/// Whether received bytes are handed in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reading {
    On,
    Paused,
    /// Paused, and there is something to read.
    Missed,
}

/// Where the wait tasks leave their notes for the loop.
#[derive(Debug, Default)]
struct Signals {
    readable: RefCell<Vec<ConnId>>,
    writable: RefCell<Vec<ConnId>>,
    nudge: Nudge,
}

/// What one attempt to send came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sent {
    /// The socket took so many bytes.
    Bytes(usize),
    /// The peer is gone.
    Lost,
}

impl<T: Transform> TaskEngine<T> {
    pub(super) fn new(nudge: Nudge) -> Self {
        Self {
            slots: Vec::new(),
            sockets: 0,
            ready: VecDeque::new(),
            signals: Rc::new(Signals { nudge, ..Signals::default() }),
            scratch: vec![0; SCRATCH_BYTES].into_boxed_slice(),
            batch: SendBatch::default(),
            sends: 0,
        }
    }

    pub(super) fn adopt(&mut self, conn: ConnId, socket: Rc<Socket>) {
        if self.slots.len() <= conn.index() {
            self.slots.resize_with(conn.index() + 1, || None);
        }
        let slot = &mut self.slots[conn.index()];
        assert!(slot.is_none(), "connection {conn} was accepted over an open socket");
        *slot = Some(Slot {
            generation: conn.0.generation,
            waits: Waits::default(),
            life: Life::Open,
            reading: Reading::On,
            socket,
            transform: T::default(),
            encoded: None,
        });
        self.sockets += 1;
        self.wait_for_bytes(conn);
    }

    /// At most a batch of readable sockets, and all that became writable.
    pub(super) fn serve(&mut self, upper: &mut impl Upper) -> bool {
        let writable = std::mem::take(&mut *self.signals.writable.borrow_mut());
        for conn in writable {
            self.write_wait_ended(conn, upper);
        }
        let readable = std::mem::take(&mut *self.signals.readable.borrow_mut());
        for conn in readable {
            self.read_wait_ended(conn, upper);
        }
        for _ in 0..self.ready.len().min(READY_BATCH_MAX) {
            if let Some(conn) = self.ready.pop_front() {
                self.read(conn, upper);
            }
        }
        !self.ready.is_empty()
    }

    pub(super) fn flush(&mut self, conn: ConnId, upper: &mut impl Upper) {
        let Some(slot) = self.slot(conn) else { return };
        if slot.waits.write || slot.life != Life::Open {
            return;
        }
        if T::PASSES_THROUGH {
            self.flush_frames(conn, upper);
        } else {
            self.flush_encoded(conn, upper);
        }
    }

    pub(super) fn close(&mut self, conn: ConnId, upper: &mut impl Upper) {
        let Some(slot) = self.slot(conn) else { return };
        if slot.life == Life::Closing {
            return;
        }
        slot.life = Life::Closing;
        slot.socket.shut_down(Shutdown::Both);
        self.finish_close(conn, upper);
    }

    pub(super) fn pause(&mut self, conn: ConnId) {
        if let Some(slot) = self.slot(conn).filter(|slot| slot.reading == Reading::On) {
            slot.reading = Reading::Paused;
        }
    }

    pub(super) fn resume(&mut self, conn: ConnId) {
        let Some(slot) = self.slot(conn) else { return };
        if std::mem::replace(&mut slot.reading, Reading::On) == Reading::Missed {
            self.ready.push_back(conn);
            self.signals.nudge.ring();
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
        self.slots.get_mut(conn.index())?.as_mut().filter(|slot| slot.generation == conn.0.generation)
    }

    /// The lean task: a wait and a note.
    fn wait_for_bytes(&mut self, conn: ConnId) {
        let signals = Rc::clone(&self.signals);
        let Some(slot) = self.slot(conn) else { return };
        slot.waits.read = true;
        let socket = Rc::clone(&slot.socket);
        monoio::spawn(async move {
            socket.readable().await;
            drop(socket);
            signals.readable.borrow_mut().push(conn);
            signals.nudge.ring();
        });
    }

    /// The temporary task of a full socket.
    fn wait_for_room(&mut self, conn: ConnId) {
        let signals = Rc::clone(&self.signals);
        let Some(slot) = self.slot(conn) else { return };
        slot.waits.write = true;
        let socket = Rc::clone(&slot.socket);
        monoio::spawn(async move {
            socket.writable().await;
            drop(socket);
            signals.writable.borrow_mut().push(conn);
            signals.nudge.ring();
        });
    }

    fn read_wait_ended(&mut self, conn: ConnId, upper: &mut impl Upper) {
        let Some(slot) = self.slot(conn) else { return };
        slot.waits.read = false;
        match slot.life {
            Life::Open => self.ready.push_back(conn),
            Life::Lost => {}
            Life::Closing => self.finish_close(conn, upper),
        }
    }

    fn write_wait_ended(&mut self, conn: ConnId, upper: &mut impl Upper) {
        let Some(slot) = self.slot(conn) else { return };
        slot.waits.write = false;
        match slot.life {
            Life::Open => self.flush(conn, upper),
            Life::Lost => {}
            Life::Closing => self.finish_close(conn, upper),
        }
    }

    /// Second and third step of a close: once the waits are joined nobody else holds the socket, and dropping it
    /// closes the descriptor.
    fn finish_close(&mut self, conn: ConnId, upper: &mut impl Upper) {
        let Some(slot) = self.slot(conn) else { return };
        if slot.waits.read || slot.waits.write {
            return;
        }
        assert_eq!(Rc::strong_count(&slot.socket), 1, "a joined wait of {conn} holds its socket");
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

    fn read(&mut self, conn: ConnId, upper: &mut impl Upper) {
        for _ in 0..READS_PER_TURN_MAX {
            // Not `self.slot`: the scratch buffer is borrowed beside the slot.
            let Some(Some(slot)) = self.slots.get_mut(conn.index()) else {
                return;
            };
            if slot.generation != conn.0.generation || slot.life != Life::Open {
                return;
            }
            if slot.reading != Reading::On {
                slot.reading = Reading::Missed;
                return;
            }
            let received = match rustix::net::recv(&*slot.socket, &mut self.scratch[..], RecvFlags::DONTWAIT)
            {
                Ok((_, 0)) => return self.lose(conn, upper),
                Ok((_, n)) => n,
                Err(Errno::AGAIN) => return self.wait_for_bytes(conn),
                Err(Errno::INTR) => continue,
                Err(_) => return self.lose(conn, upper),
            };
            match slot.transform.inbound(&mut self.scratch[..received]) {
                Ok(n) => upper.bytes(conn, &mut self.scratch[..n]),
                Err(_) => return self.lose(conn, upper),
            }
            if received < self.scratch.len() {
                // Drained, or nearly: a wait for what is already there costs less than a read that finds nothing.
                return self.wait_for_bytes(conn);
            }
        }
        self.ready.push_back(conn);
    }

    fn flush_frames(&mut self, conn: ConnId, upper: &mut impl Upper) {
        let offered = upper.fill(conn, &mut self.batch);
        if offered == 0 {
            return;
        }
        let Some(Some(slot)) = self.slots.get(conn.index()) else {
            return;
        };
        let sent = send_batch(&slot.socket, &self.batch);
        self.sends += 1;
        self.batch.frames.clear(); // frames are shared: let go of them before the next connection's
        match sent {
            Sent::Bytes(n) => {
                upper.sent(conn, n);
                if n < offered {
                    self.wait_for_room(conn);
                }
            }
            Sent::Lost => self.lose(conn, upper),
        }
    }

    /// As `flush_frames` with a copy: what was encoded once cannot be asked for again, so it waits here until the
    /// socket has taken all of it, and only then the hub hears that its frames were sent.
    fn flush_encoded(&mut self, conn: ConnId, upper: &mut impl Upper) {
        let Some(Some(slot)) = self.slots.get_mut(conn.index()) else {
            return;
        };
        let encoded = slot.encoded.get_or_insert_default();
        if encoded.wire.is_empty() {
            encoded.frames = upper.fill(conn, &mut self.batch);
            let mut skip = self.batch.skip;
            for frame in self.batch.frames.drain(..) {
                slot.transform.outbound(frame.bytes().get(skip..).unwrap_or_default(), &mut encoded.wire);
                skip = 0;
            }
        }
        let rest = encoded.wire.get(encoded.sent..).unwrap_or_default();
        if rest.is_empty() {
            slot.encoded = None;
            return;
        }
        self.sends += 1;
        match send(&slot.socket, &[IoSlice::new(rest)]) {
            Sent::Bytes(n) if n == rest.len() => {
                let frames = encoded.frames;
                slot.encoded = None;
                upper.sent(conn, frames);
            }
            Sent::Bytes(n) => {
                encoded.sent += n;
                self.wait_for_room(conn);
            }
            Sent::Lost => self.lose(conn, upper),
        }
    }
}

/// Sends a batch in one call. What is beyond `SEND_BATCH_MAX` frames is left for the next one.
fn send_batch(socket: &Socket, batch: &SendBatch) -> Sent {
    let mut slices = [IoSlice::new(&[]); SEND_BATCH_MAX];
    let mut skip = batch.skip;
    for (slice, frame) in slices.iter_mut().zip(&batch.frames) {
        *slice = IoSlice::new(frame.bytes().get(skip..).unwrap_or_default());
        skip = 0;
    }
    let count = batch.frames.len().min(SEND_BATCH_MAX);
    send(socket, &slices[..count])
}

fn send(socket: &Socket, slices: &[IoSlice<'_>]) -> Sent {
    let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
    loop {
        match rustix::net::sendmsg(socket, slices, &mut SendAncillaryBuffer::default(), flags) {
            Ok(n) => return Sent::Bytes(n),
            Err(Errno::AGAIN) => return Sent::Bytes(0),
            Err(Errno::INTR) => {}
            Err(_) => return Sent::Lost,
        }
    }
}
