//! The bound for un-coalesced sends: one thread, epoll, one `recv` per wake-up, one `send` per frame and connection.
//!
//! No server that sends its frames one by one can be cheaper on the same sockets: there is no session, no queue and no
//! task here. A socket whose buffer is full is waited for, which no real server may do; the load reads, so it is rare.

#![allow(
    clippy::expect_used,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a bench fails by panicking and uses the real clock"
)]

use std::io::Write as _;
use std::net::{TcpListener, TcpStream};

use peers::wire::{FRAME_BYTES_MAX, To, Wire};
use rustix::event::epoll::{self, Event, EventData, EventFlags};
use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};

/// The listener's place in events; connections have their index.
const LISTENER: u64 = u64::MAX;
/// Accepted per wake-up, so that a storm does not starve those who are connected.
const ACCEPTS_PER_TURN: usize = 64;
const EVENTS_PER_TURN: usize = 1024;

struct Connection {
    socket: TcpStream,
    wire: Wire,
}

struct Server {
    epoll: std::os::fd::OwnedFd,
    listener: TcpListener,
    /// By index; gaps are in `free`.
    connections: Vec<Option<Connection>>,
    free: Vec<usize>,
}

fn main() {
    let listener = peers::listen();
    listener.set_nonblocking(true).expect("a listener that does not wait");
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).expect("an epoll");
    epoll::add(&epoll, &listener, EventData::new_u64(LISTENER), EventFlags::IN).expect("a watched listener");
    let mut server = Server { epoll, listener, connections: Vec::new(), free: Vec::new() };
    let mut events: Vec<Event> = Vec::with_capacity(EVENTS_PER_TURN);
    let mut scratch = vec![0; FRAME_BYTES_MAX];
    loop {
        events.clear();
        match epoll::wait(&server.epoll, rustix::buffer::spare_capacity(&mut events), None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(e) => panic!("epoll_wait: {e}"),
        }
        for event in &events {
            match event.data.u64() {
                LISTENER => server.accept(),
                index => server.serve(usize::try_from(index).expect("an index"), &mut scratch),
            }
        }
    }
}

impl Server {
    fn accept(&mut self) {
        for _ in 0..ACCEPTS_PER_TURN {
            let Ok((socket, _)) = self.listener.accept() else { return };
            socket.set_nodelay(true).expect("a TCP option");
            let index = self.free.pop().unwrap_or_else(|| {
                self.connections.push(None);
                self.connections.len() - 1
            });
            epoll::add(&self.epoll, &socket, EventData::new_u64(index as u64), EventFlags::IN)
                .expect("a watched connection");
            self.connections[index] = Some(Connection { socket, wire: Wire::default() });
        }
    }

    fn serve(&mut self, index: usize, scratch: &mut [u8]) {
        let Some(mut sender) = self.connections[index].take() else { return };
        let received = match recv(&sender.socket, &mut *scratch, RecvFlags::DONTWAIT) {
            Err(Errno::AGAIN | Errno::INTR) => {
                self.connections[index] = Some(sender);
                return;
            }
            Ok((_, received)) => received,
            Err(_) => 0,
        };
        let Connection { socket, wire } = &mut sender;
        let fed = wire.feed(&mut scratch[..received], |to, bytes| match to {
            // One that has gone is found by its own event.
            To::Sender => drop(socket.write_all(bytes)),
            To::Others => {
                for other in self.connections.iter_mut().flatten().filter(|other| other.wire.is_open()) {
                    drop(other.socket.write_all(bytes));
                }
            }
        });
        if received == 0 || fed.is_err() {
            self.free.push(index);
        } else {
            self.connections[index] = Some(sender);
        }
    }
}
