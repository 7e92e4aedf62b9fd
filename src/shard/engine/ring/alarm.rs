//! Wakes the loop when the own ring has something: an eventfd that the ring writes and monoio polls.
//!
//! What always holds: the task that polls ends with its engine.

use std::cell::Cell;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::rc::Rc;

use rustix::event::{EventfdFlags, eventfd};

use crate::shard::nudge::Nudge;
use crate::shard::socket::Socket;

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct RingAlarm {
    shared: Rc<Shared>,
}

#[derive(Debug)]
struct Shared {
    eventfd: Socket,
    ended: Cell<bool>,
}

impl RingAlarm {
    pub(super) fn new() -> io::Result<Self> {
        let eventfd = Socket::adopt_pollable(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?)?;
        Ok(Self { shared: Rc::new(Shared { eventfd, ended: Cell::new(false) }) })
    }

    /// Rings `nudge` whenever the eventfd was written.
    pub(super) fn start(&self, nudge: Nudge) {
        let shared = Rc::clone(&self.shared);
        monoio::spawn(async move {
            loop {
                shared.eventfd.readable().await;
                if shared.ended.get() {
                    return;
                }
                // Silent again before the next wait: on epoll a wait for what is readable is a self-wake.
                let silenced = rustix::io::read(&shared.eventfd, &mut [0_u8; 8]);
                tracing::trace!(?silenced, "the ring has something");
                nudge.ring();
            }
        });
    }
}

impl AsFd for RingAlarm {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.shared.eventfd.as_fd()
    }
}

impl Drop for RingAlarm {
    fn drop(&mut self) {
        self.shared.ended.set(true);
        let woken = rustix::io::write(&self.shared.eventfd, &1_u64.to_ne_bytes());
        tracing::trace!(?woken, "the ring's alarm ends");
    }
}
