//! A WebSocket echo server over the gateway's own head, frame and message code, for conformance suites (Autobahn).
//!
//! `cargo run --release --example echo -- 127.0.0.1:0` prints `listening on ADDRESS` and serves until it is killed. The
//! limits are raised to what Autobahn sends; a thread per connection is good enough for a test peer.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test peer fails by panicking")]

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};

use pinion::wire::frame::{Frame, Opcode};
use pinion::wire::message::{Event, Inbound, ReadLimits};
use pinion::wire::upgrade;

/// Autobahn's largest message (9.1.6).
const MESSAGE_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Autobahn cuts 4 MiB into frames of 64 bytes (9.3.1).
const FRAGMENTS_MAX: u32 = 1 << 20;

fn main() -> io::Result<()> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:0".into());
    let listener = TcpListener::bind(address)?;
    println!("listening on {}", listener.local_addr()?);
    for socket in listener.incoming() {
        let socket = socket?;
        std::thread::spawn(move || {
            if let Err(error) = serve(socket) {
                eprintln!("connection: {error}");
            }
        });
    }
    Ok(())
}

/// One connection, from head to close.
fn serve(mut socket: TcpStream) -> io::Result<()> {
    socket.set_nodelay(true)?;
    let mut head = Vec::new();
    let mut buffer = vec![0; 256 * 1024];
    let accept = loop {
        let n = socket.read(&mut buffer)?;
        head.extend_from_slice(&buffer[..n]);
        match upgrade::parse(&head) {
            Ok(Some((parsed, _))) => break parsed.upgrade,
            Ok(None) if n > 0 => {}
            _ => return socket.write_all(&upgrade::bad_head(400)),
        }
    };
    match accept {
        Ok(accept) => socket.write_all(&upgrade::switching(accept))?,
        Err(fault) => return socket.write_all(&upgrade::refused_upgrade(fault)),
    }
    let limits = ReadLimits { check_utf8: true, ..ReadLimits::server(MESSAGE_BYTES_MAX, FRAGMENTS_MAX) };
    let mut inbound = Inbound::default();
    loop {
        let n = socket.read(&mut buffer)?;
        if n == 0 || !echo(&mut inbound, &mut buffer[..n], &limits, &mut socket)? {
            return Ok(());
        }
    }
}

/// Answers what was received. `false`: the connection is over.
fn echo(
    inbound: &mut Inbound,
    bytes: &mut [u8],
    limits: &ReadLimits,
    socket: &mut TcpStream,
) -> io::Result<bool> {
    let mut feed = inbound.feed(bytes, limits);
    loop {
        let (answer, goes_on) = match feed.next() {
            Ok(None) => return Ok(true),
            Ok(Some(Event::Message { text, payload })) => {
                let opcode = if text { Opcode::Text } else { Opcode::Binary };
                (Frame::new(opcode, payload), true)
            }
            Ok(Some(Event::Ping(payload))) => (Frame::new(Opcode::Pong, payload), true),
            Ok(Some(Event::Pong(_))) => continue,
            Ok(Some(Event::Close(code))) => (Frame::close(code, ""), false),
            Err(fault) => (Frame::close(Some(fault.close_code()), ""), false),
        };
        socket.write_all(answer.bytes())?;
        if !goes_on {
            return Ok(false);
        }
    }
}
