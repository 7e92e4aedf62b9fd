//! The bell of a thread's doorbell: an eventfd.
//!
//! What always holds: `ring` and `silence` never wait. The descriptor is closed with its last owner, never earlier.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{EventfdFlags, eventfd};
use rustix::io::Errno;

use super::doorbell::Bell;

/// An eventfd that becomes readable when it is rung.
#[derive(Debug)]
pub struct EventBell {
    fd: OwnedFd,
}

impl EventBell {
    /// A silent bell.
    ///
    /// # Errors
    /// The process is out of descriptors.
    pub fn new() -> io::Result<Self> {
        let fd = eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?;
        Ok(Self { fd })
    }

    /// A second descriptor of the same eventfd, for the reader to poll. The runtime may own and close it.
    ///
    /// # Errors
    /// The process is out of descriptors.
    pub fn descriptor(&self) -> io::Result<OwnedFd> {
        self.fd.try_clone()
    }

    /// Makes it unreadable again. Silent already: nothing happens.
    pub fn silence(&self) {
        let mut count = [0; 8];
        let result = rustix::io::read(&self.fd, &mut count);
        assert!(matches!(result, Ok(8) | Err(Errno::AGAIN)), "an eventfd cannot fail to be read: {result:?}");
    }
}

impl AsFd for EventBell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Bell for EventBell {
    fn ring(&self) {
        let result = rustix::io::write(&self.fd, &1_u64.to_ne_bytes());
        // EAGAIN: the count is at its end, so it is readable, which is all that a ring must achieve.
        assert!(
            matches!(result, Ok(8) | Err(Errno::AGAIN)),
            "an eventfd cannot fail to be written: {result:?}"
        );
    }
}
