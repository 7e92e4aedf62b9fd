//! What operators may ask a proxy: `/metrics`, `/healthz`, `/readyz`. One request per connection, GET or HEAD.
//!
//! Served by the main thread between its waits, so nothing here may block. What always holds: visitors are bounded in
//! number, bytes and time.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;

use rustix::event::{PollFd, PollFlags};

use crate::limits::{ADMIN_REQUEST_BYTES, ADMIN_REQUEST_MS, HEADERS_MAX, PROXY_ADMIN_MAX};
use crate::metrics::proxy::{self, ProxyBlock, ProxyMetric, ProxyTally};
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
        let answer = |path: &str| answer(path, readiness, blocks);
        self.visitors.retain_mut(|visitor| visitor.deadline > now && visitor.serve(&answer) == State::Waits);
    }
}

impl Visitor {
    fn serve(&mut self, answer: &impl Fn(&str) -> (u16, String)) -> State {
        let mut scratch = [0; 4096];
        while self.answer.is_none() {
            match self.socket.read(&mut scratch) {
                Ok(0) => return State::Done,
                Ok(n) => self.received.extend_from_slice(scratch.get(..n).unwrap_or_default()),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return State::Waits,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return State::Done,
            }
            self.answer = judge(&self.received, answer);
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

/// The answer as bytes. `None`: the head is not complete.
fn judge(received: &[u8], answer: &impl Fn(&str) -> (u16, String)) -> Option<Vec<u8>> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut request = httparse::Request::new(&mut headers);
    match request.parse(received) {
        Ok(httparse::Status::Complete(_)) => {
            let path = request.path.unwrap_or_default().split('?').next().unwrap_or_default();
            Some(match request.method {
                Some("GET") => whole(answer(path)),
                // Load balancers ask so.
                Some("HEAD") => {
                    let (status, body) = answer(path);
                    head(status, body.len())
                }
                _ => whole((405, "only GET and HEAD\n".to_owned())),
            })
        }
        Ok(httparse::Status::Partial) if received.len() < ADMIN_REQUEST_BYTES => None,
        Ok(httparse::Status::Partial) => Some(whole((431, "too long\n".to_owned()))),
        Err(_) => Some(whole((400, "not HTTP\n".to_owned()))),
    }
}

fn answer(path: &str, readiness: Result<&str, &str>, blocks: Blocks<'_>) -> (u16, String) {
    match path {
        "/healthz" => (200, "ok\n".to_owned()),
        "/readyz" => match readiness {
            Ok(said) => (200, said.to_owned()),
            Err(why) => (503, why.to_owned()),
        },
        "/metrics" => (200, proxy::text(blocks.iter().map(|(name, block)| (name.clone(), &**block)))),
        _ => (404, "try one of /healthz, /readyz, /metrics\n".to_owned()),
    }
}

fn whole((status, body): (u16, String)) -> Vec<u8> {
    let mut bytes = head(status, body.len());
    bytes.extend_from_slice(body.as_bytes());
    bytes
}

fn head(status: u16, length: usize) -> Vec<u8> {
    let text = match status {
        200 => "OK",
        400 => "Bad Request",
        404 => "Not Found",
        405 => "Method Not Allowed",
        431 => "Request Header Fields Too Large",
        _ => "Service Unavailable",
    };
    format!(
        "HTTP/1.1 {status} {text}\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\n\
         Content-Length: {length}\r\nConnection: close\r\n\r\n"
    )
    .into_bytes()
}
