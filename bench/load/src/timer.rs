//! One timer per thread, exact to the kernel's slack of 50 us: monoio's own counts in milliseconds, which would make
//! every operation of an open loop late.

use std::cell::Cell;
use std::io;
use std::rc::Rc;

use pinion::shard::nudge::Nudge;
use pinion::shard::socket::Socket;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};

/// Rings a bell when its time has come.
pub struct Timer {
    fd: Rc<Socket>,
    /// When it will ring; `u64::MAX`: it has rung.
    armed_ns: Rc<Cell<u64>>,
}

impl Timer {
    /// Call it inside the thread's runtime.
    ///
    /// # Errors
    /// The process is out of descriptors.
    pub fn start(nudge: Nudge) -> io::Result<Self> {
        let fd = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK)?;
        let fd = Rc::new(Socket::adopt_pollable(fd)?);
        let timer = Self { fd: Rc::clone(&fd), armed_ns: Rc::new(Cell::new(u64::MAX)) };
        let armed_ns = Rc::clone(&timer.armed_ns);
        monoio::spawn(async move {
            loop {
                fd.readable().await;
                // Nothing to read: it was set anew meanwhile.
                if rustix::io::read(&*fd, &mut [0u8; 8]).is_ok() {
                    armed_ns.set(u64::MAX);
                    nudge.ring();
                }
            }
        });
        Ok(timer)
    }

    /// Rings at this time (`CLOCK_MONOTONIC`) or earlier, if it was to ring earlier.
    ///
    /// # Errors
    /// Of the kernel; none is expected.
    pub fn arm(&self, at_ns: u64) -> io::Result<()> {
        if at_ns >= self.armed_ns.get() {
            return Ok(());
        }
        let at_ns = at_ns.max(1); // zero would disarm it
        let at = Timespec {
            tv_sec: i64::try_from(at_ns / 1_000_000_000).unwrap_or(i64::MAX),
            tv_nsec: (at_ns % 1_000_000_000) as i64,
        };
        let once = Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value: at };
        timerfd_settime(&*self.fd, TimerfdTimerFlags::ABSTIME, &once)?;
        self.armed_ns.set(at_ns);
        Ok(())
    }
}
