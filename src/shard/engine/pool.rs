//! The buffers that the kernel receives into: one ring of provided buffers per own ring (`io_uring_register_buf_ring`).
//!
//! What always holds: a buffer is either the kernel's (listed in the ring), or somebody's who holds its one [`Buffer`],
//! which cannot be copied. The memory neither moves nor goes away while the pool lives. Not here: who receives.
#![expect(unsafe_code, reason = "memory that the kernel writes to, and a ring that it reads")]

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::io;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::types::BufRingEntry;

use crate::limits::{RECEIVE_BUFFER_BYTES, RECEIVE_BUFFERS_MAX};

/// The only group of buffers of a ring.
pub(super) const GROUP: u16 = 0;
/// The kernel wants the ring of entries at the start of a page.
const PAGE_BYTES: usize = 4096;
const ENTRIES: Layout = layout(RECEIVE_BUFFERS_MAX as usize * size_of::<BufRingEntry>());
const BYTES: Layout = layout(RECEIVE_BUFFERS_MAX as usize * RECEIVE_BUFFER_BYTES as usize);
const _: () = assert!(RECEIVE_BUFFERS_MAX.is_power_of_two() && RECEIVE_BUFFERS_MAX <= 1 << 15);

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Pool {
    entries: NonNull<BufRingEntry>,
    bytes: NonNull<u8>,
    /// Entries written so far; the kernel takes them up to here.
    tail: u16,
}

/// A buffer that the kernel has filled, until [`Pool::give_back`].
#[derive(Debug)]
#[must_use = "a buffer that is not given back is lost to the pool"]
pub(super) struct Buffer {
    id: u16,
    len: u32,
}

const fn layout(bytes: usize) -> Layout {
    match Layout::from_size_align(bytes, PAGE_BYTES) {
        Ok(layout) => layout,
        Err(_) => panic!("the sizes in limits.rs fit an address space"),
    }
}

fn allocate(layout: Layout) -> io::Result<NonNull<u8>> {
    // SAFETY: both layouts of this file have a size above zero (asserted by the limits being powers of two).
    NonNull::new(unsafe { alloc_zeroed(layout) }).ok_or_else(|| io::ErrorKind::OutOfMemory.into())
}

impl Pool {
    /// A pool all of whose buffers are listed for the kernel. To be registered under [`GROUP`].
    ///
    /// # Errors
    /// Out of memory.
    pub(super) fn new() -> io::Result<Self> {
        let entries: NonNull<BufRingEntry> = allocate(ENTRIES)?.cast();
        let bytes = allocate(BYTES).inspect_err(|_| {
            // SAFETY: allocated above with this layout, and given to nobody.
            unsafe { dealloc(entries.as_ptr().cast(), ENTRIES) }
        })?;
        let mut pool = Self { entries, bytes, tail: 0 };
        for id in 0..RECEIVE_BUFFERS_MAX {
            pool.list(id);
        }
        Ok(pool)
    }

    /// Where the ring of entries is, for the registration.
    pub(super) fn address(&self) -> u64 {
        self.entries.as_ptr() as u64
    }

    /// The buffer that a completion names, filled with `len` bytes. Call it once per such completion.
    pub(super) fn take(&self, id: u16, len: u32) -> Buffer {
        assert!(
            id < RECEIVE_BUFFERS_MAX && len <= RECEIVE_BUFFER_BYTES,
            "buffer {id} with {len} bytes is not ours"
        );
        Buffer { id, len }
    }

    /// What was received into a buffer.
    pub(super) fn bytes(&mut self, buffer: &Buffer) -> &mut [u8] {
        // SAFETY: `take` has checked that this part lies within the allocation, which is initialised (zeroed) and
        // borrowed through `self`. The kernel does not write to it: it is not listed while its `Buffer` lives.
        unsafe {
            let start = self.bytes.add(usize::from(buffer.id) * RECEIVE_BUFFER_BYTES as usize);
            std::slice::from_raw_parts_mut(start.as_ptr(), buffer.len as usize)
        }
    }

    /// The kernel may fill it again.
    pub(super) fn give_back(&mut self, buffer: Buffer) {
        self.list(buffer.id);
    }

    fn list(&mut self, id: u16) {
        let at = usize::from(self.tail & (RECEIVE_BUFFERS_MAX - 1));
        self.tail = self.tail.wrapping_add(1);
        // SAFETY: `at` is below the number of entries, so the entry lies in the zeroed allocation; the kernel reads
        // entries below the tail only, and this one is above it until the store. The tail is the `resv` field of
        // entry 0, two bytes that are aligned and written by nobody else (io_uring_register_buf_ring(2)).
        unsafe {
            let mut entry = self.entries.add(at);
            let start = self.bytes.add(usize::from(id) * RECEIVE_BUFFER_BYTES as usize);
            entry.as_mut().set_addr(start.as_ptr() as u64);
            entry.as_mut().set_len(RECEIVE_BUFFER_BYTES);
            entry.as_mut().set_bid(id);
            let tail = BufRingEntry::tail(self.entries.as_ptr()).cast_mut();
            AtomicU16::from_ptr(tail).store(self.tail, Ordering::Release);
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with these layouts. Whoever registered the pool drops it only when the kernel
        // uses it no more (`Uring`).
        unsafe {
            dealloc(self.entries.as_ptr().cast(), ENTRIES);
            dealloc(self.bytes.as_ptr(), BYTES);
        }
    }
}
