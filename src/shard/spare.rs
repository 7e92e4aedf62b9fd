//! The descriptor that a listener keeps back, so that it can say no when there are none left.
//!
//! Without it a client at the open-file limit waits in the kernel's queue for ever and learns nothing. With it the
//! spare is given up, one client is accepted in its place, told 503 and closed, and the spare is taken again. What
//! always holds: a round refuses a bounded number, and ends when a descriptor cannot be had even so.

use rustix::event::{EventfdFlags, eventfd};
use rustix::fd::{AsFd, OwnedFd};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, Shutdown, SocketFlags, accept_with};

use crate::wire::upgrade;

/// See the module's documentation.
#[derive(Debug)]
pub struct Spare(Option<OwnedFd>);

impl Spare {
    /// Takes a descriptor out of use; if there is none, [`Spare::refill`] tries again.
    pub fn reserve() -> Self {
        let mut spare = Self(None);
        spare.refill();
        spare
    }

    /// Takes a descriptor again if the spare is gone: another thread may have been faster.
    pub fn refill(&mut self) {
        if self.0.is_none() {
            self.0 = eventfd(0, EventfdFlags::CLOEXEC).ok();
        }
    }

    /// Tells those who wait at the listener that there is no room for them, at most `max`. Gives how many.
    pub fn refuse(&mut self, listener: impl AsFd, max: usize) -> usize {
        let mut refused = 0;
        while refused < max && self.0.take().is_some() {
            // The descriptor is free now, for this accept if no other thread takes it.
            let accepted = accept_with(&listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK);
            let told = accepted.map(say_busy);
            self.refill();
            if told.is_err() {
                break;
            }
            refused += 1;
        }
        refused
    }
}

/// 503 without JSON. The request is read first if it is there: closing over unread bytes would reset the connection and
/// take the answer away.
fn say_busy(socket: OwnedFd) {
    let mut scratch = [0; 4096];
    let request = rustix::net::recv(&socket, &mut scratch[..], RecvFlags::DONTWAIT);
    let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
    let answer = rustix::net::send(&socket, &upgrade::unavailable(), flags);
    let shut = rustix::net::shutdown(&socket, Shutdown::Write);
    tracing::trace!(?request, ?answer, ?shut, "refused with the spare descriptor");
}

/// Whether an accept failed for want of descriptors or memory, rather than because of one connection.
pub fn is_exhaustion(error: Errno) -> bool {
    matches!(error, Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn those_who_wait_are_told_503_up_to_a_number_and_the_spare_is_there_again() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let mut clients: Vec<TcpStream> = (0..3).map(|_| TcpStream::connect(address).unwrap()).collect();
        for client in &mut clients {
            client.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
        }
        let mut spare = Spare::reserve();
        assert_eq!(spare.refuse(&listener, 2), 2);
        assert_eq!(spare.refuse(&listener, 2), 1, "the last one, then nobody waits");
        for client in &mut clients {
            let mut answer = String::new();
            client.read_to_string(&mut answer).unwrap();
            assert!(answer.starts_with("HTTP/1.1 503 ") && !answer.contains('{'), "{answer}");
        }
        assert_eq!((spare.refuse(&listener, 2), spare.0.is_some()), (0, true));
    }

    #[test]
    fn only_want_of_descriptors_and_memory_is_exhaustion() {
        for (error, exhausted) in [
            (Errno::MFILE, true),
            (Errno::NFILE, true),
            (Errno::NOBUFS, true),
            (Errno::NOMEM, true),
            (Errno::CONNABORTED, false),
            (Errno::AGAIN, false),
            (Errno::INVAL, false),
        ] {
            assert_eq!(is_exhaustion(error), exhausted, "{error:?}");
        }
    }
}
