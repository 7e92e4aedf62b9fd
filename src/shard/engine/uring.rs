//! The own io_uring of a shard: operations on sockets go in, completions come out. monoio, which hosts the thread,
//! has a ring of its own; this one wakes it through an eventfd.
//!
//! What always holds: memory that the kernel was given (buffers, frames) is kept until the completion is taken, also
//! when the ring is dropped. An operation is identified by connection and generation, never by its descriptor. While
//! its owner is awake the ring does not write the eventfd ([`Uring::hush`]); it sleeps only after
//! [`Uring::prepare_sleep`] has seen that nothing waits. Not here: what an operation means (`ring.rs`).
//!
//! The ring is SINGLE_ISSUER | DEFER_TASKRUN: the kernel completes sends while they are submitted, and everything
//! else when we enter it and ask for that. TASKRUN_FLAG shows in shared memory when there is reason to.
#![expect(unsafe_code, reason = "entries of the submission queue point at memory")]

use std::collections::VecDeque;
use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::atomic::{Ordering, fence};
use std::time::Duration;

use io_uring::{IoUring, cqueue, opcode, squeue, types};
use rustix::io::Errno;

use super::outgoing::{Done, Outgoing, Prepared};
use super::pool::{Buffer, GROUP, Pool};
use crate::hub::SendBatch;
use crate::ids::{ConnId, SlotId};
use crate::limits::{OWN_RING_COMPLETIONS_MAX, OWN_RING_ENTRIES_MAX, RECEIVE_BUFFERS_MAX, RING_END_MS};

/// See the module's documentation.
pub(super) struct Uring {
    ring: IoUring,
    /// Freed by `drop`, unless the kernel may still use it.
    pool: ManuallyDrop<Pool>,
    outgoing: Outgoing,
    /// Completions that had to make room in the queue.
    reaped: VecDeque<cqueue::Entry>,
    /// Operations whose last completion has not been taken.
    in_flight: usize,
    hushed: bool,
}

/// What came of an operation.
#[derive(Debug)]
pub(super) enum Completion {
    /// Of a multishot receive. Without `more` it is over, whatever came.
    Received { conn: ConnId, outcome: Received, more: bool },
    /// A send is over; so many bytes have left.
    Sent { done: Done, outcome: Result<usize, Errno> },
    /// There may be room in the socket.
    Room(ConnId),
    /// A cancellation is over.
    Cancelled,
}

/// What a receive brought.
#[derive(Debug)]
pub(super) enum Received {
    Bytes(Buffer),
    /// The peer has closed its side.
    End,
    Failed(Errno),
}

/// Top bits of `user_data`: what the operation is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Receive = 1,
    Send = 2,
    Room = 3,
    Cancel = 4,
}

/// Connections have smaller numbers: the rest of the word is the kind.
const INDEX_BITS: u32 = 28;

impl std::fmt::Debug for Uring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Uring").field("in_flight", &self.in_flight).finish_non_exhaustive()
    }
}

impl Uring {
    /// A ring with its buffers that signals `eventfd`. Only this thread may use it.
    ///
    /// # Errors
    /// The kernel is older than 6.1 (EINVAL), a filter forbids it, or locked memory or descriptors are exhausted.
    pub(super) fn new(eventfd: BorrowedFd<'_>) -> io::Result<Self> {
        let ring: IoUring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_taskrun_flag()
            .setup_submit_all()
            .setup_cqsize(OWN_RING_COMPLETIONS_MAX)
            .dontfork()
            .build(OWN_RING_ENTRIES_MAX)?;
        let pool = ManuallyDrop::new(Pool::new()?);
        ring.submitter().register_eventfd(eventfd.as_raw_fd())?;
        let uring = Self {
            ring,
            pool,
            outgoing: Outgoing::new(),
            reaped: VecDeque::new(),
            in_flight: 0,
            hushed: false,
        };
        // SAFETY: the pool's entries are that many and live until the ring is closed (`drop`).
        unsafe {
            uring.ring.submitter().register_buf_ring_with_flags(
                uring.pool.address(),
                RECEIVE_BUFFERS_MAX,
                GROUP,
                0,
            )?;
        }
        Ok(uring)
    }

    /// Receives on a socket into the pool until the completion without `more`.
    pub(super) fn receive(&mut self, socket: BorrowedFd<'_>, conn: ConnId) {
        let entry = opcode::RecvMulti::new(types::Fd(socket.as_raw_fd()), GROUP).build();
        // SAFETY: the kernel writes to buffers of the pool only, which lives until nothing is in flight.
        unsafe { self.push(entry.user_data(user_data(Kind::Receive, conn))) }
    }

    /// Ends a receive early; its last completion says ECANCELED.
    pub(super) fn cancel_receive(&mut self, conn: ConnId) {
        let entry = opcode::AsyncCancel::new(user_data(Kind::Receive, conn)).build();
        // SAFETY: no memory is passed.
        unsafe { self.push(entry.user_data(user_data(Kind::Cancel, conn))) }
    }

    /// Says once when a socket has room to write, or is at its end.
    pub(super) fn await_room(&mut self, socket: BorrowedFd<'_>, conn: ConnId) {
        let events = u32::from(libc::POLLOUT.cast_unsigned());
        let entry = opcode::PollAdd::new(types::Fd(socket.as_raw_fd()), events).build();
        // SAFETY: no memory is passed.
        unsafe { self.push(entry.user_data(user_data(Kind::Room, conn))) }
    }

    /// Whether another send can be queued.
    pub(super) fn can_send(&self) -> bool {
        self.outgoing.has_room()
    }

    /// Queues one send for the frames of a batch, which are taken out of it. Only after [`Uring::can_send`].
    pub(super) fn send_frames(&mut self, socket: BorrowedFd<'_>, conn: ConnId, batch: &mut SendBatch) {
        let prepared = self.outgoing.frames(types::Fd(socket.as_raw_fd()), conn, batch);
        self.queue_send(prepared);
    }

    /// As [`Uring::send_frames`] for encoded bytes from `start` on; they come back with the completion.
    pub(super) fn send_wire(&mut self, socket: BorrowedFd<'_>, conn: ConnId, wire: Vec<u8>, start: usize) {
        let prepared = self.outgoing.wire(types::Fd(socket.as_raw_fd()), conn, wire, start);
        self.queue_send(prepared);
    }

    fn queue_send(&mut self, prepared: Option<Prepared>) {
        let Prepared { id, entry } = prepared.expect("`can_send` was asked before");
        // SAFETY: what the entry points at belongs to the record, which keeps it unchanged and in its place until its
        // completion is taken in `decode`, and for ever if the ring cannot be joined (`drop`).
        unsafe { self.push(entry.user_data(u64::from(id) | (Kind::Send as u64) << 60)) }
    }

    /// What was received into a buffer.
    pub(super) fn bytes(&mut self, buffer: &Buffer) -> &mut [u8] {
        self.pool.bytes(buffer)
    }

    /// The kernel may fill a buffer again.
    pub(super) fn give_back(&mut self, buffer: Buffer) {
        self.pool.give_back(buffer);
    }

    /// The next completion that is there.
    pub(super) fn next(&mut self) -> Option<Completion> {
        let entry = match self.reaped.pop_front() {
            Some(entry) => entry,
            None => self.ring.completion().next()?,
        };
        Some(self.decode(&entry))
    }

    /// Enters the kernel if it has deferred work for us. Returns whether completions are there.
    pub(super) fn run_deferred(&mut self) -> bool {
        let queue = self.ring.submission();
        let due = queue.taskrun() || queue.cq_overflow();
        drop(queue);
        if due {
            self.enter();
        }
        !self.reaped.is_empty() || !self.ring.completion().is_empty()
    }

    /// Submits everything that is queued, with one call of the kernel. Returns whether there was anything.
    pub(super) fn submit(&mut self) -> bool {
        let any = !self.ring.submission().is_empty();
        if any {
            self.enter();
        }
        any
    }

    /// The owner is awake: no eventfd is needed.
    pub(super) fn hush(&mut self) {
        if !self.hushed {
            self.ring.completion().disable_eventfd();
            self.hushed = true;
        }
    }

    /// The owner is about to sleep. `true`: the eventfd will tell of whatever comes. `false`: something is here.
    ///
    /// We write *eventfd wanted* and read *work is there*; the kernel does the opposite. The fence is our half. Its
    /// half is the atomic `or` that sets TASKRUN, a full barrier on x86. Elsewhere we ask the kernel itself, which
    /// has one where it queues work.
    pub(super) fn prepare_sleep(&mut self) -> bool {
        if self.hushed {
            self.ring.completion().enable_eventfd();
            self.hushed = false;
            fence(Ordering::SeqCst);
            if !cfg!(target_arch = "x86_64") {
                self.enter_for_events();
            }
        }
        let queue = self.ring.submission();
        let idle = queue.is_empty() && !queue.taskrun() && !queue.cq_overflow();
        drop(queue);
        idle && self.reaped.is_empty() && self.ring.completion().is_empty()
    }

    fn decode(&mut self, entry: &cqueue::Entry) -> Completion {
        let more = cqueue::more(entry.flags());
        if !more {
            self.in_flight -= 1;
        }
        let (data, result) = (entry.user_data(), entry.result());
        let outcome = usize::try_from(result).map_err(|_| Errno::from_raw_os_error(-result));
        let conn = conn_of(data);
        match data >> 60 {
            kind if kind == Kind::Receive as u64 => {
                let len = u32::try_from(result).unwrap_or(0);
                let buffer = cqueue::buffer_select(entry.flags()).map(|id| self.pool.take(id, len));
                let outcome = match (outcome, buffer) {
                    (Ok(1..), Some(buffer)) => Received::Bytes(buffer),
                    (outcome, unused) => {
                        unused.into_iter().for_each(|buffer| self.pool.give_back(buffer));
                        outcome.map_or_else(Received::Failed, |_| Received::End)
                    }
                };
                Completion::Received { conn, outcome, more }
            }
            kind if kind == Kind::Send as u64 => {
                let id = u16::try_from(data & u64::from(u16::MAX)).unwrap_or(u16::MAX);
                Completion::Sent { done: self.outgoing.finish(id), outcome }
            }
            kind if kind == Kind::Room as u64 => Completion::Room(conn),
            _ => Completion::Cancelled,
        }
    }

    /// # Safety
    /// What the entry points at stays valid until its last completion is taken, or until `drop` has joined it.
    unsafe fn push(&mut self, entry: squeue::Entry) {
        self.in_flight += 1;
        // SAFETY: promised by the caller.
        while unsafe { self.ring.submission().push(&entry) }.is_err() {
            self.enter();
            if self.ring.submission().is_full() {
                // The kernel takes nothing while completions have no room.
                self.reaped.extend(self.ring.completion());
            }
        }
    }

    /// Submits, and lets deferred work run if there is any.
    fn enter(&mut self) {
        let entered = self.ring.submit();
        check(entered);
    }

    fn enter_for_events(&mut self) {
        let flags = io_uring::EnterFlags::GETEVENTS.bits();
        // SAFETY: nothing is submitted and no argument is passed.
        let entered = unsafe { self.ring.submitter().enter::<libc::sigset_t>(0, 0, flags, None) };
        check(entered);
    }

    /// Cancels everything and waits until the kernel has let go of our memory.
    fn join(&mut self) -> io::Result<()> {
        let all = opcode::AsyncCancel2::new(types::CancelBuilder::any()).build();
        // SAFETY: no memory is passed.
        unsafe { self.push(all.user_data((Kind::Cancel as u64) << 60)) }
        let patience = types::Timespec::from(Duration::from_millis(RING_END_MS));
        let patience = types::SubmitArgs::new().timespec(&patience);
        loop {
            while let Some(completion) = self.next() {
                if let Completion::Received { outcome: Received::Bytes(buffer), .. } = completion {
                    self.give_back(buffer);
                }
            }
            if self.in_flight == 0 {
                return Ok(());
            }
            match self.ring.submitter().submit_with_args(1, &patience) {
                Err(error) if error.raw_os_error() != Some(libc::EINTR) => return Err(error),
                _ => {}
            }
        }
    }
}

impl Drop for Uring {
    fn drop(&mut self) {
        match self.join() {
            // SAFETY: not used after this; no operation is left, so the kernel does not touch the buffers.
            Ok(()) => unsafe { ManuallyDrop::drop(&mut self.pool) },
            Err(error) => {
                tracing::warn!(%error, in_flight = self.in_flight, "an io_uring could not be joined; its memory is lost");
                self.outgoing.leak();
            }
        }
    }
}

/// EBUSY and EAGAIN: completions have no room, or the kernel no memory, at the moment; what is queued stays queued.
fn check(entered: io::Result<usize>) {
    if let Err(error) = entered {
        let passing = [libc::EBUSY, libc::EAGAIN, libc::EINTR].map(Some).contains(&error.raw_os_error());
        assert!(passing, "our io_uring cannot be entered: {error}");
    }
}

fn user_data(kind: Kind, conn: ConnId) -> u64 {
    let SlotId { index, generation } = conn.0;
    assert!(index < 1 << INDEX_BITS, "{index} is no connection's number");
    (kind as u64) << 60 | u64::from(index) << 32 | u64::from(generation)
}

fn conn_of(user_data: u64) -> ConnId {
    let word = |n: u64| u32::try_from(n & u64::from(u32::MAX)).unwrap_or(u32::MAX);
    ConnId(SlotId { index: word(user_data >> 32) & ((1 << INDEX_BITS) - 1), generation: word(user_data) })
}
