//! A socket in the hands of one thread: waits for readiness, lends its descriptor, and is handed over.
//!
//! What always holds: the descriptor lives as long as its [`Socket`], and a socket changes threads only when nothing
//! of it is in flight.
#![expect(unsafe_code, reason = "monoio's streams lend and return their descriptor as a bare number only")]

use std::io;
use std::net::{SocketAddr, TcpStream as StdTcpStream};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd};

use monoio::net::TcpStream;
use rustix::net::Shutdown;

/// A TCP socket (or another pollable descriptor), non-blocking, registered with the runtime of this thread.
#[derive(Debug)]
pub struct Socket {
    stream: TcpStream,
}

impl Socket {
    /// Takes a socket into this thread's runtime.
    ///
    /// # Errors
    /// epoll does not take it (out of memory, or of its watch limit). The socket is closed.
    pub fn adopt(socket: StdTcpStream) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        Ok(Self { stream: TcpStream::from_std(socket)? })
    }

    /// As [`Socket::adopt`] for a socket that does not block already, which saves a call.
    ///
    /// # Errors
    /// As [`Socket::adopt`].
    pub(super) fn adopt_nonblocking(socket: StdTcpStream) -> io::Result<Self> {
        Ok(Self { stream: TcpStream::from_std(socket)? })
    }

    /// As [`Socket::adopt`] for a listener or an eventfd: their readiness is waited for in the same way.
    ///
    /// # Errors
    /// As [`Socket::adopt`].
    pub fn adopt_pollable(fd: OwnedFd) -> io::Result<Self> {
        Self::adopt(StdTcpStream::from(fd))
    }

    /// Takes the socket out of this thread's runtime, for another thread.
    ///
    /// # Panics
    /// A wait for readiness is in flight. Taking `self` by value shows that none borrows it; monoio joins an awaited
    /// wait before it completes.
    pub fn release(self) -> StdTcpStream {
        let fd = self.stream.into_raw_fd();
        // SAFETY: `into_raw_fd` gave up the ownership of this open descriptor (it panics if an operation still holds
        // it), so nobody else closes it.
        unsafe { StdTcpStream::from_raw_fd(fd) }
    }

    /// Completes when there is something to read, an end or an error included. May be wrong; `recv` tells.
    pub async fn readable(&self) {
        if let Err(error) = self.stream.readable(false).await {
            tracing::trace!(%error, "readiness wait");
        }
    }

    /// Completes when there is room to write, or an error. May be wrong; `send` tells.
    pub async fn writable(&self) {
        if let Err(error) = self.stream.writable(false).await {
            tracing::trace!(%error, "readiness wait");
        }
    }

    /// Shuts down one or both directions, which ends waits for readiness. A peer that is gone already is fine.
    pub fn shut_down(&self, how: Shutdown) {
        if let Err(error) = rustix::net::shutdown(self, how) {
            tracing::trace!(%error, "shutdown");
        }
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: `self.stream` owns the descriptor and closes it only when dropped or released, both of which the
        // borrow of `self` outlasts.
        unsafe { BorrowedFd::borrow_raw(self.stream.as_raw_fd()) }
    }
}

/// Has the kernel keep the connections of a listener to itself until their first bytes are there, for so long at
/// most: rounded up to seconds, and then to the next SYN-ACK (1, 3, 7 ...). Call it before listen.
///
/// # Errors
/// It is no TCP socket.
pub(super) fn defer_accept(listener: BorrowedFd<'_>, ms: u64) -> io::Result<()> {
    const SIZE: libc::socklen_t = 4;
    const _: () = assert!(size_of::<libc::c_int>() == SIZE as usize);
    let seconds = libc::c_int::try_from(ms.div_ceil(1_000)).unwrap_or(libc::c_int::MAX);
    // SAFETY: the option's value is an int, which is valid for its length during the call and is only read.
    let result = unsafe {
        libc::setsockopt(
            listener.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_DEFER_ACCEPT,
            (&raw const seconds).cast(),
            SIZE,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The address as people write it: an IPv4 client of a dual-stack listener is shown as IPv4.
pub fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}
