//! Operators of a proxy, one request per connection; what they may ask is `rpc/operators`.
//!
//! Served by the main thread between its waits, so nothing here may block. What always holds: visitors are bounded in
//! number, bytes and time.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;

use rustix::event::{PollFd, PollFlags};

use crate::limits::{ADMIN_REQUEST_MS, PROXY_ADMIN_MAX};
use crate::metrics::proxy::{self, ProxyBlock, ProxyMetric, ProxyTally};
use crate::rpc::operators;
use crate::time::Mono;

/// See the module's documentation.
pub(super) struct Admin {
    listener: TcpListener,
    address: SocketAddr,
    visitors: Vec<Visitor>,
    tally: ProxyTally,
    block: Arc<ProxyBlock>,
}

struct Visitor {
    socket: TcpStream,
    deadline: Mono,
    received: Vec<u8>,
    /// What is left of the answer; `None`: the request is not complete.
    answer: Option<Vec<u8>>,
}

/// Whether a visitor is done with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Waits,
    Done,
}

/// The counts of all threads by name.
type Blocks<'a> = &'a [(String, Arc<ProxyBlock>)];

impl Admin {
    pub(super) fn bind(address: SocketAddr) -> std::io::Result<Self> {
        let listener = TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let (tally, block) = Default::default();
        Ok(Self { listener, address, visitors: Vec::new(), tally, block })
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Counts of the main thread.
    pub(super) fn block(&self) -> &Arc<ProxyBlock> {
        &self.block
    }

    /// What main is to wait for.
    pub(super) fn waits(&self) -> impl Iterator<Item = PollFd<'_>> {
        let visitors = self.visitors.iter().map(|visitor| {
            let flags = if visitor.answer.is_some() { PollFlags::OUT } else { PollFlags::IN };
            PollFd::new(&visitor.socket, flags)
        });
        visitors.chain([PollFd::new(&self.listener, PollFlags::IN)])
    }

    /// Serves who is there.
    pub(super) fn serve(&mut self, now: Mono, readiness: Result<&str, &str>, blocks: Blocks<'_>) {
        for _ in 0..PROXY_ADMIN_MAX {
            match self.listener.accept() {
                Ok((socket, _)) => {
                    let has_room = self.visitors.len() < PROXY_ADMIN_MAX;
                    if !has_room {
                        self.tally.count(ProxyMetric::AdminFull);
                        self.block.publish(&self.tally);
                    }
                    if has_room && socket.set_nonblocking(true).is_ok() {
                        let deadline = now.plus_ms(ADMIN_REQUEST_MS);
                        self.visitors.push(Visitor { socket, deadline, received: Vec::new(), answer: None });
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => {
                    tracing::warn!(%error, "admin accept");
                    break;
                }
            }
        }
        let metrics = || {
            Ok((
                proxy::CONTENT_TYPE,
                proxy::text(blocks.iter().map(|(name, block)| (name.clone(), &**block))),
            ))
        };
        let answer = |received: &[u8]| operators::judge(received, readiness, metrics);
        self.visitors.retain_mut(|visitor| visitor.deadline > now && visitor.serve(&answer) == State::Waits);
    }
}

impl Visitor {
    fn serve(&mut self, answer: &impl Fn(&[u8]) -> Option<Vec<u8>>) -> State {
        let mut scratch = [0; 4096];
        while self.answer.is_none() {
            match self.socket.read(&mut scratch) {
                Ok(0) => return State::Done,
                Ok(n) => self.received.extend_from_slice(scratch.get(..n).unwrap_or_default()),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return State::Waits,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return State::Done,
            }
            self.answer = answer(&self.received);
        }
        let Some(left) = &mut self.answer else {
            return State::Waits;
        };
        while !left.is_empty() {
            match self.socket.write(left) {
                Ok(0) => return State::Done,
                Ok(n) => drop(left.drain(..n)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return State::Waits,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return State::Done,
            }
        }
        State::Done
    }
}
