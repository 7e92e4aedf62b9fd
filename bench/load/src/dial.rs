//! Opening a socket without waiting for it: the answer comes as readiness.
#![expect(unsafe_code, reason = "rustix has no IP_BIND_ADDRESS_NO_PORT")]

use std::io;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::os::fd::{AsRawFd as _, OwnedFd};

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, connect, ipproto, socket_with, sockopt};

/// Begins to connect, from this address if one is given; which port is decided together with the peer, so that one
/// source address has all its ports for each of several peers (`IP_BIND_ADDRESS_NO_PORT`).
///
/// # Errors
/// At once: no descriptor, no port, or an answer that needed no waiting.
pub fn dial(target: SocketAddr, source: Option<IpAddr>) -> io::Result<TcpStream> {
    let family = if target.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = socket_with(family, SocketType::STREAM, flags, Some(ipproto::TCP))?;
    sockopt::set_tcp_nodelay(&socket, true)?;
    if let Some(source) = source {
        bind_without_port(&socket, source)?;
    }
    match connect(&socket, &target) {
        Ok(()) | Err(Errno::INPROGRESS) => Ok(TcpStream::from(socket)),
        Err(error) => Err(error.into()),
    }
}

fn bind_without_port(socket: &OwnedFd, source: IpAddr) -> io::Result<()> {
    let on: libc::c_int = 1;
    // SAFETY: the descriptor is open for as long as it is borrowed, and the kernel reads `size_of::<c_int>()` bytes
    // behind the pointer, which `on` has.
    let set = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_IP,
            libc::IP_BIND_ADDRESS_NO_PORT,
            std::ptr::from_ref(&on).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if set != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(bind(socket, &SocketAddr::new(source, 0))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_comes_from_the_address_that_was_asked_for() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let dialed = dial(listener.local_addr().unwrap(), Some("127.0.0.9".parse().unwrap())).unwrap();
        let (_, peer) = listener.accept().unwrap();
        assert_eq!(peer.ip(), IpAddr::from([127, 0, 0, 9]));
        assert_eq!(dialed.local_addr().unwrap(), peer);
    }
}
