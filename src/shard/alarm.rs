//! Turns a doorbell's eventfd into a nudge for the thread's loop, which waits for its own tasks at the same time.
//!
//! What always holds: the eventfd is waited for at most once per [`Alarm::arm`]. A second wait before the loop has
//! silenced the bell would complete at once and, on epoll, never let another task run (platform.md rule 2).

use std::cell::Cell;
use std::io;
use std::rc::Rc;

use rustix::fd::OwnedFd;

use super::nudge::Nudge;
use super::socket::Socket;

/// Waits for a doorbell on behalf of a loop.
#[derive(Debug)]
pub struct Alarm {
    armed: Rc<Cell<bool>>,
    rearm: Nudge,
}

impl Alarm {
    /// Starts the task that waits for `doorbell` and rings `nudge`. It waits for nothing before it is armed.
    ///
    /// # Errors
    /// epoll does not take the eventfd.
    pub fn start(doorbell: OwnedFd, nudge: Nudge) -> io::Result<Self> {
        let bell = Socket::adopt_pollable(doorbell)?;
        let (armed, rearm) = (Rc::new(Cell::new(false)), Nudge::default());
        let alarm = Self { armed: Rc::clone(&armed), rearm: rearm.clone() };
        monoio::spawn(async move {
            loop {
                rearm.wait().await;
                bell.readable().await;
                armed.set(false);
                nudge.ring();
            }
        });
        Ok(alarm)
    }

    /// Call it before each sleep, after the inbox's `prepare_sleep`. A wait that has not ended yet goes on.
    pub fn arm(&self) {
        if !self.armed.replace(true) {
            self.rearm.ring();
        }
    }
}
