//! One connection of a load thread: where it is in its life, what waits to be sent, and which operations wait for an
//! answer. One that only holds owns no memory beside its entry.

use std::collections::VecDeque;

use pinion::hub::SendBatch;
use pinion::ids::{ConnId, SlotId};
use pinion::limits::SEND_BATCH_MAX;
use pinion::wire::frame::Frame;
use pinion::wire::message::Inbound;

/// What may wait to be sent on one connection; an operation that finds more is an error of the kind `write`.
const OUTBOX_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Operations without answer on one connection; one more is an error of the kind `write`.
const PENDING_MAX: usize = 65_536;

/// Where a connection is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum State {
    /// No socket; waits to be connected, or is not to be.
    #[default]
    Down,
    /// Connecting, or waiting for the 101.
    Handshake,
    /// Waiting for the first frame, which says how the login ended (spec 1.4).
    FirstFrame,
    Open,
    /// The socket is being closed.
    Closing,
}

/// An operation that waits for its answer.
#[derive(Clone, Copy, Debug)]
pub struct Pending {
    pub id: u32,
    pub waits_for: Awaited,
    /// Its time is over: the answer is still to be known as its answer, and counts nothing.
    pub expired: bool,
    /// Which of the connection's rounds of a closed loop goes on with its answer.
    pub round: u32,
    pub due_ns: u64,
    pub sent_ns: u64,
}

/// What answers an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Awaited {
    /// The next message.
    Message,
    /// The envelope with its id.
    Reply,
    /// An answer to a call beside the connection.
    Call,
    /// The next login.
    Login,
    /// The end of a pause.
    Pause,
}

/// See the module's documentation.
#[derive(Default)]
pub struct Conn {
    /// Of [`ConnId`]: which socket this is, counted over its life.
    pub generation: u32,
    pub state: State,
    /// How often it was logged in.
    pub logins: u32,
    /// Attempts in a row that failed.
    pub failures: u8,
    /// Whether the connecting phase is done with it.
    pub settled: bool,
    /// OpenIM told it to go.
    pub kicked: bool,
    /// Something was offered to the socket, and it has not taken any of it.
    pub offered: bool,
    /// The socket took something: it is connected.
    pub reached: bool,
    /// Close it once everything is sent.
    pub last_words: bool,
    /// Of the closed loop; see [`Pending::round`].
    pub round: u32,
    /// When this attempt to connect began.
    pub since_ns: u64,
    /// When to connect again once the socket is closed; `None`: not at all.
    pub again_ns: Option<u64>,
    pub inbound: Inbound,
    work: Option<Box<Work>>,
}

#[derive(Default)]
struct Work {
    out: VecDeque<Frame>,
    out_bytes: usize,
    /// Of the first in `out`.
    sent: usize,
    pending: VecDeque<Pending>,
    /// An answer to the handshake that is not complete.
    head: Vec<u8>,
}

impl Conn {
    pub fn id(&self, index: usize) -> ConnId {
        ConnId(SlotId { index: index as u32, generation: self.generation })
    }

    /// Queues a frame. `false`: too much waits.
    pub fn queue(&mut self, frame: Frame) -> bool {
        let work = self.work.get_or_insert_default();
        let bytes = frame.bytes().len();
        if work.out_bytes + bytes > OUTBOX_BYTES_MAX {
            return false;
        }
        work.out_bytes += bytes;
        work.out.push_back(frame);
        true
    }

    /// Whether something waits to be sent.
    pub fn has_output(&self) -> bool {
        self.work.as_ref().is_some_and(|work| !work.out.is_empty())
    }

    pub fn fill(&mut self, batch: &mut SendBatch) -> usize {
        batch.frames.clear();
        let Some(work) = &self.work else { return 0 };
        batch.skip = work.sent;
        batch.frames.extend(work.out.iter().take(SEND_BATCH_MAX).cloned());
        let bytes: usize = batch.frames.iter().map(|frame| frame.bytes().len()).sum();
        bytes.saturating_sub(work.sent)
    }

    pub fn sent(&mut self, bytes: usize) {
        let Some(work) = &mut self.work else { return };
        work.sent += bytes;
        while let Some(length) = work.out.front().map(|frame| frame.bytes().len())
            && work.sent >= length
        {
            work.sent -= length;
            work.out_bytes -= length;
            work.out.pop_front();
        }
    }

    /// Notes an operation. `false`: too many wait.
    pub fn expect(&mut self, pending: Pending) -> bool {
        let work = self.work.get_or_insert_default();
        let room = work.pending.len() < PENDING_MAX;
        if room {
            work.pending.push_back(pending);
        }
        room
    }

    /// The operation with this id.
    pub fn answered(&mut self, id: u32) -> Option<Pending> {
        let pending = &mut self.work.as_mut()?.pending;
        let at = pending.iter().position(|p| p.id == id)?;
        pending.remove(at)
    }

    /// The oldest operation that waits for this.
    pub fn first(&mut self, awaited: Awaited) -> Option<Pending> {
        let pending = &mut self.work.as_mut()?.pending;
        let at = pending.iter().position(|p| p.waits_for == awaited)?;
        pending.remove(at)
    }

    /// Marks operations that were sent before `sent_ns` as expired; gives those.
    pub fn expire(&mut self, sent_before_ns: u64) -> Vec<Pending> {
        let Some(work) = &mut self.work else { return Vec::new() };
        let overdue =
            |p: &&mut Pending| !p.expired && p.waits_for != Awaited::Pause && p.sent_ns < sent_before_ns;
        let expired = work.pending.iter_mut().filter(overdue).map(|p| {
            p.expired = true;
            *p
        });
        expired.collect()
    }

    /// Whether an operation is neither answered nor given up.
    pub fn is_waiting(&self) -> bool {
        self.work.as_ref().is_some_and(|work| work.pending.iter().any(|p| !p.expired))
    }

    /// The socket is gone, and with it what was sent or was to be sent on it. Calls and logins go on.
    pub fn forget_socket(&mut self) {
        self.inbound = Inbound::default();
        (self.offered, self.reached, self.last_words) = (false, false, false);
        if let Some(work) = &mut self.work {
            (work.out, work.out_bytes, work.sent) = (VecDeque::new(), 0, 0);
            work.head = Vec::new();
            work.pending.retain(|p| matches!(p.waits_for, Awaited::Call | Awaited::Login));
        }
        self.tidy();
    }

    /// Bytes of the handshake's answer so far, these included.
    pub fn add_to_head(&mut self, bytes: &[u8]) -> Vec<u8> {
        let work = self.work.get_or_insert_default();
        work.head.extend_from_slice(bytes);
        std::mem::take(&mut work.head)
    }

    pub fn keep_head(&mut self, head: Vec<u8>) {
        self.work.get_or_insert_default().head = head;
    }

    /// Frees what is empty.
    pub fn tidy(&mut self) {
        self.work.take_if(|work| work.out.is_empty() && work.pending.is_empty() && work.head.is_empty());
    }
}
