//! What the servers of this package share: their command line, their listener, and the dialect that all of them speak.
//!
//! The dialect: a WebSocket message that begins with [`ECHO`] comes back, one that begins with [`BROADCAST`] goes to
//! all other connections as it is, anything else is dropped. No per-message deflate, no subprotocols, one thread.
//! [`wire`] is for the two bounds only: the peers bring a WebSocket implementation of their own.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a bench fails by panicking and uses the real clock"
)]

pub mod wire;

use std::net::{Ipv4Addr, SocketAddr, TcpListener};

/// First byte of a message that comes back to its sender.
pub const ECHO: u8 = b'E';
/// First byte of a message that goes to all others.
pub const BROADCAST: u8 = b'B';
/// Connections that may wait to be accepted: a storm of handshakes is measured, not refused.
const BACKLOG: i32 = 4096;

/// The listener that the command line asks for (`--port N`, on loopback; 0 or nothing: a free one). Its address is
/// printed as `listening ADDRESS`.
///
/// # Panics
/// If the command line is anything else, or the port is taken.
pub fn listen() -> TcpListener {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let port: u16 = match arguments.as_slice() {
        [] => 0,
        [flag, port] if flag == "--port" => port.parse().expect("--port takes a number"),
        _ => panic!("usage: --port N"),
    };
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).expect("a free port");
    // The standard library listens with a backlog of 128; to listen again widens it.
    rustix::net::listen(&listener, BACKLOG).expect("a wider backlog");
    let address: SocketAddr = listener.local_addr().expect("the address of a listener");
    println!("listening {address}");
    listener
}
