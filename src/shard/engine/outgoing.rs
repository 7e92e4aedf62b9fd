//! What the kernel reads while a send is in flight: the frames, the list of their parts and the message header.
//!
//! What always holds: the records lie in one allocation and never move; what the kernel was told to read stays as it
//! is until the record's completion is taken. There are so many records and no more (`SENDS_IN_FLIGHT_MAX`).
#![expect(unsafe_code, reason = "a message header is a C structure of bare pointers")]

use io_uring::{opcode, squeue, types};

use crate::hub::SendBatch;
use crate::ids::ConnId;
use crate::limits::{SEND_BATCH_MAX, SENDS_IN_FLIGHT_MAX};
use crate::wire::frame::Frame;

/// All records of one ring.
pub(super) struct Outgoing {
    records: Box<[Record]>,
    free: Vec<u16>,
}

/// One send.
struct Record {
    /// Whose; `None`: the record is free.
    conn: Option<ConnId>,
    /// Held so that their bytes stay where they are.
    frames: Vec<Frame>,
    /// Instead of frames: encoded bytes.
    wire: Vec<u8>,
    /// Bytes that the kernel was offered.
    offered: usize,
    /// Points into `frames`. Not changed while the kernel may read it.
    parts: Vec<libc::iovec>,
    header: libc::msghdr,
}

/// A send that is over.
#[derive(Debug)]
pub(super) struct Done {
    pub(super) conn: ConnId,
    pub(super) offered: usize,
    /// The encoded bytes, if such were sent.
    pub(super) wire: Vec<u8>,
}

/// Never waits: a full socket says EAGAIN, and what is queued for it stays with the hub, where it can still grow,
/// expire or be the victim of a budget.
const FLAGS: i32 = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;

impl Outgoing {
    pub(super) fn new() -> Self {
        // SAFETY: all fields of a `msghdr` are numbers and pointers, for which zero is a value.
        let header: libc::msghdr = unsafe { std::mem::zeroed() };
        let record = || Record {
            conn: None,
            frames: Vec::new(),
            wire: Vec::new(),
            offered: 0,
            parts: Vec::new(),
            header,
        };
        Self {
            records: std::iter::repeat_with(record).take(usize::from(SENDS_IN_FLIGHT_MAX)).collect(),
            free: (0..SENDS_IN_FLIGHT_MAX).rev().collect(),
        }
    }

    pub(super) fn has_room(&self) -> bool {
        !self.free.is_empty()
    }

    /// Takes the frames of a batch and prepares their send on `fd`. What is beyond `SEND_BATCH_MAX` frames is left
    /// out. The number names the record; `None`: all are in flight.
    pub(super) fn frames(&mut self, fd: types::Fd, conn: ConnId, batch: &mut SendBatch) -> Option<Prepared> {
        let id = self.free.pop()?;
        let record = &mut self.records[usize::from(id)];
        record.conn = Some(conn);
        std::mem::swap(&mut record.frames, &mut batch.frames);
        let mut skip = std::mem::take(&mut batch.skip);
        let part =
            |frame| -> &[u8] { Frame::bytes(frame).get(std::mem::take(&mut skip)..).unwrap_or_default() };
        let entry = match record.frames.as_slice() {
            [frame] => {
                let bytes = std::iter::once(frame).map(part).next().unwrap_or_default();
                record.offered = bytes.len();
                send(fd, bytes)
            }
            frames => {
                record.parts.clear();
                record.parts.extend(frames.iter().take(SEND_BATCH_MAX).map(part).map(io_vector));
                record.offered = record.parts.iter().map(|part| part.iov_len).sum();
                record.header.msg_iov = record.parts.as_mut_ptr();
                record.header.msg_iovlen = record.parts.len();
                opcode::SendMsg::new(fd, &raw const record.header).flags(FLAGS.cast_unsigned()).build()
            }
        };
        Some(Prepared { id, entry })
    }

    /// As [`Outgoing::frames`] for encoded bytes from `start` on.
    pub(super) fn wire(
        &mut self,
        fd: types::Fd,
        conn: ConnId,
        wire: Vec<u8>,
        start: usize,
    ) -> Option<Prepared> {
        let id = self.free.pop()?;
        let record = &mut self.records[usize::from(id)];
        record.conn = Some(conn);
        record.wire = wire;
        let bytes = record.wire.get(start..).unwrap_or_default();
        record.offered = bytes.len();
        Some(Prepared { id, entry: send(fd, bytes) })
    }

    /// The kernel has done with a record.
    pub(super) fn finish(&mut self, id: u16) -> Done {
        let record = &mut self.records[usize::from(id)];
        let conn = record.conn.take().expect("a send completes once");
        record.frames.clear();
        self.free.push(id);
        Done { conn, offered: record.offered, wire: std::mem::take(&mut record.wire) }
    }

    /// Gives up the memory for good: the kernel may still read it.
    pub(super) fn leak(&mut self) {
        std::mem::forget(std::mem::take(&mut self.records));
        self.free.clear();
    }
}

/// A send that the kernel was not told of yet.
pub(super) struct Prepared {
    pub(super) id: u16,
    pub(super) entry: squeue::Entry,
}

fn send(fd: types::Fd, bytes: &[u8]) -> squeue::Entry {
    // A send takes at most 2 GiB in any case (send(2)); the rest would be asked for again.
    let len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    opcode::Send::new(fd, bytes.as_ptr(), len).flags(FLAGS).build()
}

fn io_vector(bytes: &[u8]) -> libc::iovec {
    // The kernel only reads; the type serves receiving too.
    libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() }
}
