//! The listener that clients reach: one per shard, all on one port.
//!
//! Options that accepted sockets must have are set here once: Linux lets them inherit (platform.md section 4 row 19).

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::time::Duration;

use rustix::fd::{AsFd, OwnedFd};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, ipproto, sockopt};

use super::socket::defer_accept;
use crate::config::Config;
use crate::limits::{DEFER_ACCEPT_MS, KEEP_ALIVE_MS, LISTEN_QUEUE_MAX, TCP_USER_TIMEOUT_MS};

/// Builds the SO_REUSEPORT listener of one shard (dual stack when the address is `::`), with the socket options that
/// accepted sockets inherit. Called by main once shards and backend are ready; handed over by `Control::Listen`.
///
/// # Errors
/// The address is not ours, or the port is taken by a socket of another user or without SO_REUSEPORT.
pub fn bind_listener(config: &Config, port: u16) -> io::Result<TcpListener> {
    bind_client_listener(SocketAddr::new(config.websocket.address, port), buffers(config))
}

fn buffers(config: &Config) -> Buffers {
    Buffers {
        send_bytes: config.websocket.send_buffer_bytes,
        receive_bytes: config.websocket.receive_buffer_bytes,
    }
}

/// Socket buffers as they are asked for; the kernel doubles them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Buffers {
    /// SO_SNDBUF.
    pub send_bytes: usize,
    /// SO_RCVBUF.
    pub receive_bytes: usize,
}

/// As [`bind_listener`], for whoever else takes clients.
///
/// # Errors
/// As [`bind_listener`].
pub fn bind_client_listener(address: SocketAddr, buffers: Buffers) -> io::Result<TcpListener> {
    match bind(address, buffers, Whose::Ours) {
        // A kernel without IPv6 still serves "any address".
        Err(Errno::AFNOSUPPORT) if address.is_ipv6() && address.ip().is_unspecified() => Ok(bind(
            SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), address.port()),
            buffers,
            Whose::Ours,
        )?
        .into()),
        other => Ok(other?.into()),
    }
}

/// As [`bind_listener`], on an address of another node, which this host need not have yet (`IP_FREEBIND`). For the
/// first shard it is made sure that nobody listens there: SO_REUSEPORT would join another gateway in silence.
///
/// # Errors
/// Somebody listens there, or ports below 1024 are not allowed.
pub fn bind_adopted(config: &Config, address: SocketAddr, turn: Turn) -> io::Result<TcpListener> {
    if turn == Turn::First {
        let fd = socket(address, Whose::Another)?;
        sockopt::set_socket_reuseaddr(&fd, true)?;
        rustix::net::bind(&fd, &address)?; // fails beside any socket that listens
    }
    Ok(bind(address, buffers(config), Whose::Another)?.into())
}

/// Which of a node's shards a listener is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// The first.
    First,
    /// Another.
    Later,
}

/// Whose address is bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Whose {
    Ours,
    /// It may come to this host later.
    Another,
}

fn socket(address: SocketAddr, whose: Whose) -> Result<OwnedFd, Errno> {
    let family = if address.is_ipv6() { AddressFamily::INET6 } else { AddressFamily::INET };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let fd = rustix::net::socket_with(family, SocketType::STREAM, flags, Some(ipproto::TCP))?;
    match whose {
        Whose::Ours => {}
        Whose::Another if address.is_ipv6() => sockopt::set_ipv6_freebind(&fd, true)?,
        Whose::Another => sockopt::set_ip_freebind(&fd, true)?,
    }
    Ok(fd)
}

fn bind(address: SocketAddr, buffers: Buffers, whose: Whose) -> Result<OwnedFd, Errno> {
    let fd = socket(address, whose)?;
    sockopt::set_socket_reuseaddr(&fd, true)?;
    sockopt::set_socket_reuseport(&fd, true)?;
    if address.is_ipv6() {
        sockopt::set_ipv6_v6only(&fd, !address.ip().is_unspecified())?;
    }
    // Before listen: the receive buffer decides the window scale that is offered to clients.
    sockopt::set_socket_send_buffer_size(&fd, buffers.send_bytes)?;
    sockopt::set_socket_recv_buffer_size(&fd, buffers.receive_bytes)?;
    sockopt::set_tcp_nodelay(&fd, true)?;
    sockopt::set_socket_keepalive(&fd, true)?;
    sockopt::set_tcp_keepidle(&fd, Duration::from_millis(KEEP_ALIVE_MS))?;
    sockopt::set_tcp_keepintvl(&fd, Duration::from_millis(KEEP_ALIVE_MS))?;
    sockopt::set_tcp_user_timeout(&fd, TCP_USER_TIMEOUT_MS)?;
    // A client's head comes right behind its connection. To be woken by the connection and then wait for the head, in a
    // task of its own, costs as much again as to find it there. Without the option it would work as well.
    if let Err(error) = defer_accept(fd.as_fd(), DEFER_ACCEPT_MS) {
        tracing::debug!(%error, "TCP_DEFER_ACCEPT");
    }
    rustix::net::bind(&fd, &address)?;
    rustix::net::listen(&fd, i32::try_from(LISTEN_QUEUE_MAX).unwrap_or(i32::MAX))?;
    Ok(fd)
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;

    use super::*;
    use crate::shard::socket::canonical;

    #[test]
    fn any_address_takes_ipv4_and_ipv6_and_shows_ipv4_as_such() {
        let config = crate::shard::tests::config();
        let listener = bind_listener(&config, 0).unwrap();
        let port = listener.local_addr().unwrap().port();
        listener.set_nonblocking(false).unwrap();
        for client in ["127.0.0.1", "::1"] {
            let client: IpAddr = client.parse().unwrap();
            let Ok(near) = TcpStream::connect((client, port)) else {
                assert!(client.is_ipv6(), "IPv4 must work");
                println!("SKIPPED: no IPv6 on this machine");
                continue;
            };
            let (_, peer) = listener.accept().unwrap();
            assert_eq!(canonical(peer), near.local_addr().unwrap());
            assert_eq!(canonical(peer).is_ipv4(), client.is_ipv4());
        }
    }

    #[test]
    fn accepted_sockets_inherit_the_options() {
        let config = crate::shard::tests::config();
        let listener = bind_listener(&config, 0).unwrap();
        listener.set_nonblocking(false).unwrap();
        let port = listener.local_addr().unwrap().port();
        let _near = TcpStream::connect(("127.0.0.1", port)).unwrap();
        let (far, _) = listener.accept().unwrap();
        assert!(far.nodelay().unwrap());
        assert!(sockopt::socket_keepalive(&far).unwrap());
        assert_eq!(sockopt::tcp_keepidle(&far).unwrap().as_millis(), u128::from(KEEP_ALIVE_MS));
        assert_eq!(sockopt::tcp_user_timeout(&far).unwrap(), TCP_USER_TIMEOUT_MS);
        // The kernel doubles what it is asked for, to pay for its own records.
        assert_eq!(sockopt::socket_send_buffer_size(&far).unwrap(), 2 * config.websocket.send_buffer_bytes);
    }

    #[test]
    fn an_address_that_this_host_lacks_is_listened_on_and_one_in_use_is_not() {
        let config = crate::shard::tests::config();
        // Documentation addresses (RFC 5737, RFC 3849): nobody has them.
        for lacking in ["192.0.2.7:0", "[2001:db8::7]:0"] {
            let lacking: SocketAddr = lacking.parse().unwrap();
            match bind_adopted(&config, lacking, Turn::First) {
                Ok(listener) => {
                    let bound = listener.local_addr().unwrap();
                    assert_eq!(bound.ip(), lacking.ip());
                    bind_adopted(&config, bound, Turn::Later).unwrap();
                    let again = bind_adopted(&config, bound, Turn::First).unwrap_err();
                    assert_eq!(again.kind(), io::ErrorKind::AddrInUse);
                }
                Err(error) => {
                    assert!(lacking.is_ipv6(), "{error}");
                    println!("SKIPPED: no IPv6 on this machine ({error})");
                }
            }
        }
    }

    #[test]
    fn several_shards_share_a_port() {
        let config = crate::shard::tests::config();
        let first = bind_listener(&config, 0).unwrap();
        let port = first.local_addr().unwrap().port();
        let second = bind_listener(&config, port).unwrap();
        assert_eq!(second.local_addr().unwrap().port(), port);
    }
}
