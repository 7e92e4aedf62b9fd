//! The bound for io_uring: one thread, multishot accept and receive into a ring of buffers, all sends of a turn
//! submitted with one system call.
//!
//! What always holds: a frame's bytes stay where they are until the last send of them has completed. Sends of one
//! connection are submitted in order and complete in order as long as its socket takes them at once, as it does while
//! the load reads; no real server may rely on that.
#![expect(unsafe_code, reason = "memory and file descriptors that the kernel uses while we do not hold them")]
#![allow(
    clippy::expect_used,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a bench fails by panicking and uses the real clock"
)]

use std::alloc::{Layout, alloc_zeroed};
use std::net::TcpStream;
use std::os::fd::{AsRawFd as _, FromRawFd as _, RawFd};
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::types::{BufRingEntry, Fd};
use io_uring::{IoUring, cqueue, opcode, squeue};
use peers::wire::{To, Wire};

const SUBMISSIONS: u32 = 4096;
/// Above the sends of one round to all connections that a process may have.
const COMPLETIONS: u32 = 65_536;
const BUFFERS: u16 = 1024;
const BUFFER_BYTES: u32 = 4096;
const PAGE_BYTES: usize = 4096;
const GROUP: u16 = 0;

/// What a completion is of: the highest byte of its user data. The rest is an index.
const ACCEPT: u64 = 0;
const RECEIVE: u64 = 1;
const SEND: u64 = 2;
const KIND_SHIFT: u32 = 56;

struct Connection {
    socket: TcpStream,
    wire: Wire,
}

/// A frame on its way to `left` sockets.
struct Sending {
    bytes: Box<[u8]>,
    left: usize,
}

struct Server {
    ring: IoUring,
    buffers: Buffers,
    listener: RawFd,
    connections: Vec<Option<Connection>>,
    free_connections: Vec<usize>,
    sending: Vec<Sending>,
    free_sending: Vec<usize>,
}

fn main() {
    let listener = peers::listen();
    let ring = IoUring::builder()
        .setup_single_issuer()
        .setup_defer_taskrun()
        .setup_cqsize(COMPLETIONS)
        .build(SUBMISSIONS)
        .expect("a ring with deferred task work: Linux 6.1");
    let buffers = Buffers::new();
    // SAFETY: `Buffers` is never freed, and has so many entries.
    unsafe { ring.submitter().register_buf_ring_with_flags(buffers.entries as u64, BUFFERS, GROUP, 0) }
        .expect("a ring of buffers");
    let mut server = Server {
        ring,
        buffers,
        listener: listener.as_raw_fd(),
        connections: Vec::new(),
        free_connections: Vec::new(),
        sending: Vec::new(),
        free_sending: Vec::new(),
    };
    server.arm_accept();
    let mut completions = Vec::new();
    loop {
        match server.ring.submit_and_wait(1) {
            Err(e) if e.kind() != std::io::ErrorKind::Interrupted && e.raw_os_error() != Some(EBUSY) => {
                panic!("io_uring_enter: {e}")
            }
            _ => {}
        }
        completions.clear();
        completions.extend(server.ring.completion());
        for completion in &completions {
            server.complete(completion);
        }
    }
}

/// More completions wait than the queue holds: they are taken, and the submission comes again.
const EBUSY: i32 = 16;

impl Server {
    fn complete(&mut self, completion: &cqueue::Entry) {
        let index = usize::try_from(completion.user_data() & ((1 << KIND_SHIFT) - 1)).expect("an index");
        match completion.user_data() >> KIND_SHIFT {
            ACCEPT => {
                if let Ok(1..) = u32::try_from(completion.result()) {
                    self.accepted(completion.result());
                }
                if !cqueue::more(completion.flags()) {
                    self.arm_accept();
                }
            }
            RECEIVE => self.received(index, completion),
            _ => self.sent(index),
        }
    }

    fn accepted(&mut self, fd: RawFd) {
        // SAFETY: the kernel has just made this descriptor for us, and nobody else has it.
        let socket = unsafe { TcpStream::from_raw_fd(fd) };
        socket.set_nodelay(true).expect("a TCP option");
        let index = self.free_connections.pop().unwrap_or_else(|| {
            self.connections.push(None);
            self.connections.len() - 1
        });
        self.connections[index] = Some(Connection { socket, wire: Wire::default() });
        self.arm_receive(index);
    }

    fn received(&mut self, index: usize, completion: &cqueue::Entry) {
        let received = usize::try_from(completion.result()).unwrap_or_default();
        let buffer = cqueue::buffer_select(completion.flags());
        let Some(mut sender) = self.connections[index].take() else { return };
        let mut outgoing = Vec::new();
        let fed = buffer.map_or(Ok(()), |id| {
            let bytes = self.buffers.filled(id, received);
            let fed = sender.wire.feed(bytes, |to, frame| outgoing.push((to, Box::from(frame))));
            self.buffers.give_back(id);
            fed
        });
        let fd = sender.socket.as_raw_fd();
        for (to, frame) in outgoing {
            match to {
                To::Sender => self.send(frame, &[fd]),
                To::Others => self.send(frame, &self.others()),
            }
        }
        // ENOBUFS ends a multishot receive though the connection goes on.
        let starved = completion.result() == -ENOBUFS;
        let ended = (received == 0 && !starved) || fed.is_err();
        let armed = cqueue::more(completion.flags());
        if ended && !armed {
            // What was pushed for this descriptor must reach the kernel before it is closed.
            self.submit();
            self.free_connections.push(index);
            return;
        }
        if ended {
            // An armed receive holds the socket open in the kernel: shut down, it completes once more, with nothing.
            self.submit();
            drop(sender.socket.shutdown(std::net::Shutdown::Both));
        }
        self.connections[index] = Some(sender);
        if !armed {
            self.arm_receive(index);
        }
    }

    /// The sender is not among them: `received` has taken it out.
    fn others(&self) -> Vec<RawFd> {
        let open = self.connections.iter().flatten().filter(|connection| connection.wire.is_open());
        open.map(|connection| connection.socket.as_raw_fd()).collect()
    }

    fn send(&mut self, bytes: Box<[u8]>, to: &[RawFd]) {
        if to.is_empty() {
            return;
        }
        let (start, len) = (bytes.as_ptr(), u32::try_from(bytes.len()).expect("a frame is below 64 KiB"));
        let sending = Sending { bytes, left: to.len() };
        let slot = if let Some(slot) = self.free_sending.pop() {
            self.sending[slot] = sending;
            slot
        } else {
            self.sending.push(sending);
            self.sending.len() - 1
        };
        for &fd in to {
            let entry = opcode::Send::new(Fd(fd), start, len).flags(MSG_NOSIGNAL | MSG_WAITALL).build();
            self.push(&entry.user_data(SEND << KIND_SHIFT | slot as u64));
        }
    }

    /// A receiver that has gone is found by its own receive.
    fn sent(&mut self, slot: usize) {
        self.sending[slot].left -= 1;
        if self.sending[slot].left == 0 {
            self.sending[slot].bytes = Box::default();
            self.free_sending.push(slot);
        }
    }

    fn arm_accept(&mut self) {
        self.push(&opcode::AcceptMulti::new(Fd(self.listener)).build().user_data(ACCEPT << KIND_SHIFT));
    }

    fn arm_receive(&mut self, index: usize) {
        let Some(connection) = &self.connections[index] else { return };
        let entry = opcode::RecvMulti::new(Fd(connection.socket.as_raw_fd()), GROUP).build();
        self.push(&entry.user_data(RECEIVE << KIND_SHIFT | index as u64));
    }

    fn push(&mut self, entry: &squeue::Entry) {
        // SAFETY: sends point into `sending`, whose bytes stay until they complete; receives use `buffers`, which
        // stay for ever.
        while unsafe { self.ring.submission().push(entry) }.is_err() {
            self.submit();
        }
    }

    fn submit(&mut self) {
        if let Err(e) = self.ring.submit() {
            assert_eq!(e.raw_os_error(), Some(EBUSY), "io_uring_enter: {e}");
        }
    }
}

const ENOBUFS: i32 = 105;
const MSG_NOSIGNAL: i32 = 0x4000;
const MSG_WAITALL: i32 = 0x100;

/// The buffers that the kernel receives into, for the life of the process.
struct Buffers {
    entries: *mut BufRingEntry,
    bytes: *mut u8,
    tail: u16,
}

impl Buffers {
    fn new() -> Self {
        let allocate = |bytes| {
            let layout = Layout::from_size_align(bytes, PAGE_BYTES).expect("a layout of constants");
            // SAFETY: the sizes below are not zero.
            let start = unsafe { alloc_zeroed(layout) };
            assert!(!start.is_null(), "no memory");
            start
        };
        let entries = allocate(usize::from(BUFFERS) * size_of::<BufRingEntry>()).cast();
        let bytes = allocate(usize::from(BUFFERS) * BUFFER_BYTES as usize);
        let mut buffers = Self { entries, bytes, tail: 0 };
        (0..BUFFERS).for_each(|id| buffers.give_back(id));
        buffers
    }

    /// What was received into a buffer that a completion named.
    fn filled(&mut self, id: u16, len: usize) -> &mut [u8] {
        assert!(id < BUFFERS && len <= BUFFER_BYTES as usize);
        // SAFETY: in bounds by the line above, initialised (zeroed), borrowed through `self`; the kernel does not
        // write to it until `give_back`.
        unsafe {
            std::slice::from_raw_parts_mut(self.bytes.add(usize::from(id) * BUFFER_BYTES as usize), len)
        }
    }

    /// Lists a buffer for the kernel again.
    fn give_back(&mut self, id: u16) {
        assert!(id < BUFFERS);
        // SAFETY: both offsets are in bounds; the kernel reads an entry only after the tail has passed it, and the tail
        // is the 16 bits at `BufRingEntry::tail` of the first entry, shared with the kernel alone.
        unsafe {
            let entry = &mut *self.entries.add(usize::from(self.tail % BUFFERS));
            entry.set_addr(self.bytes.add(usize::from(id) * BUFFER_BYTES as usize) as u64);
            entry.set_len(BUFFER_BYTES);
            entry.set_bid(id);
            self.tail = self.tail.wrapping_add(1);
            let shared = BufRingEntry::tail(self.entries).cast_mut();
            AtomicU16::from_ptr(shared).store(self.tail, Ordering::Release);
        }
    }
}
