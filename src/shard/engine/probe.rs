//! Whether the ring engine can work here: a ring is really set up, and each of its operations really used.
//!
//! A kernel that knows the flags may still refuse what is built on them (filters, locked memory), so nothing is
//! concluded from version numbers. Floors: buffer rings 5.19, multishot receive 6.0, DEFER_TASKRUN 6.1.

use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::io::Errno;

use super::uring::{Completion, Received, Uring};
use crate::hub::SendBatch;
use crate::ids::{ConnId, SlotId};
use crate::wire::frame::Frame;

/// An answer of the kernel that takes longer is none.
const PATIENCE: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };

/// Tries everything that the ring engine needs, on a thread of its own.
///
/// # Errors
/// One line that says what is missing and what to do.
pub fn probe_ring_engine() -> Result<(), String> {
    let probe = std::thread::Builder::new().name("engine-probe".into()).spawn(probe);
    match probe.map(std::thread::JoinHandle::join) {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(_)) => Err("the probe of the ring engine did not survive; use shards.engine = task".into()),
        Err(error) => Err(format!("the probe of the ring engine has no thread: {error}")),
    }
}

fn probe() -> Result<(), String> {
    let step = |what: &'static str| move |error: io::Error| explain(what, &error);
    let bell = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK);
    let bell = bell.map_err(io::Error::from).map_err(step("an eventfd"))?;
    let mut ring =
        Uring::new(bell.as_fd()).map_err(step("a ring with DEFER_TASKRUN and a ring of buffers"))?;
    let (mut near, far) = UnixStream::pair().map_err(step("a pair of sockets"))?;
    let conn = ConnId(SlotId { index: 1, generation: 1 });
    ring.hush();
    ring.receive(far.as_fd(), conn);
    ring.submit();
    let sleeps = ring.prepare_sleep();
    for round in [b"one", b"two"] {
        near.write_all(round).map_err(step("a write"))?;
        if sleeps {
            let rung = poll(&mut [PollFd::new(&bell, PollFlags::IN)], Some(&PATIENCE));
            if rung.unwrap_or(0) == 0 {
                return Err(lacking("the eventfd of a ring is not written when something came"));
            }
        }
        ring.run_deferred();
        match ring.next() {
            Some(Completion::Received { outcome: Received::Bytes(buffer), more: true, .. }) => {
                let same = ring.bytes(&buffer) == round;
                ring.give_back(buffer);
                if !same {
                    return Err(lacking("a ring of buffers shows other bytes than were sent"));
                }
            }
            other => return Err(lacking(&format!("multishot receive does not go on: {other:?}"))),
        }
    }
    ring.send_frames(far.as_fd(), conn, &mut SendBatch { frames: vec![Frame::raw(b"back")], skip: 1 });
    ring.submit();
    if !matches!(ring.next(), Some(Completion::Sent { outcome: Ok(3), .. })) {
        return Err(lacking("a send does not complete while it is submitted"));
    }
    let mut back = [0; 3];
    near.read_exact(&mut back).map_err(step("a read"))?;
    if &back == b"ack" { Ok(()) } else { Err(lacking("a send sends other bytes than it was given")) }
}

fn lacking(what: &str) -> String {
    format!("{what}; use kernel 6.1 or newer")
}

fn explain(what: &str, error: &io::Error) -> String {
    let advice = match Errno::from_io_error(error) {
        Some(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => "use kernel 6.1 or newer",
        Some(Errno::PERM) => {
            "allow io_uring_setup, io_uring_enter and io_uring_register (seccomp, kernel.io_uring_disabled)"
        }
        Some(Errno::NOMEM) => "locked memory is exhausted: raise RLIMIT_MEMLOCK (ulimit -l)",
        Some(Errno::MFILE | Errno::NFILE) => "out of descriptors: raise RLIMIT_NOFILE (ulimit -n)",
        _ => "unexpected; shards.engine = task does the same work",
    };
    format!("the kernel refuses {what}: {error}; {advice}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_refusal_names_its_remedy_in_one_line() {
        for (errno, remedy) in [
            (Errno::INVAL, "kernel 6.1"),
            (Errno::PERM, "seccomp"),
            (Errno::NOMEM, "RLIMIT_MEMLOCK"),
            (Errno::MFILE, "RLIMIT_NOFILE"),
            (Errno::IO, "shards.engine = task"),
        ] {
            let line = explain("a ring", &errno.into());
            assert!(line.contains(remedy) && !line.contains('\n'), "{errno:?}: {line}");
        }
    }

    #[test]
    fn the_probe_ends_either_way() {
        if let Err(why) = probe_ring_engine() {
            assert!(why.contains(';'), "{why}");
        }
    }
}
