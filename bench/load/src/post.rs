//! Posts over HTTP/1.1: one kept connection, one request at a time, in their order; what comes meanwhile waits.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::rc::Rc;

use bytes::Bytes;
use monoio::io::{AsyncReadRent as _, AsyncWriteRentExt as _};
use monoio::net::TcpStream;
use pinion::shard::nudge::Nudge;

use crate::api::parse;
use crate::calls::{Caller, Outcome, Outcomes, POSTS_WAITING_MAX};

/// Of an answer at most.
const ANSWER_BYTES_MAX: usize = 1024 * 1024;
const READ_BYTES: usize = 4096;

/// See the module's documentation.
pub struct Poster {
    address: SocketAddr,
    queue: Rc<RefCell<VecDeque<(Caller, Vec<u8>)>>>,
    nudge: Nudge,
}

impl Poster {
    pub fn new(address: SocketAddr, outcomes: Outcomes) -> Self {
        let poster = Self { address, queue: Rc::default(), nudge: Nudge::default() };
        monoio::spawn(work(address, Rc::clone(&poster.queue), poster.nudge.clone(), outcomes));
        poster
    }

    /// `false`: too many wait.
    pub fn post(&self, caller: Caller, path: &str, body: &[u8]) -> bool {
        let mut queue = self.queue.borrow_mut();
        if queue.len() >= POSTS_WAITING_MAX {
            return false;
        }
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: {}\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\r\n",
            self.address,
            body.len()
        );
        queue.push_back((caller, [head.as_bytes(), body].concat()));
        self.nudge.ring();
        true
    }
}

async fn work(
    address: SocketAddr,
    queue: Rc<RefCell<VecDeque<(Caller, Vec<u8>)>>>,
    nudge: Nudge,
    outcomes: Outcomes,
) {
    let mut line = None;
    loop {
        let next = queue.borrow_mut().pop_front();
        let Some((caller, request)) = next else {
            nudge.wait().await;
            continue;
        };
        let outcome = match exchange(&mut line, address, request).await {
            Ok((status, body)) => Outcome::Answered {
                status: i32::from(status),
                good: (200..300).contains(&status),
                body: body.into(),
            },
            Err(why) => {
                line = None;
                Outcome::Lost(format!("{address}: {why}"))
            }
        };
        outcomes.say(caller, outcome);
    }
}

async fn exchange(
    line: &mut Option<TcpStream>,
    address: SocketAddr,
    request: Vec<u8>,
) -> Result<(u16, Vec<u8>), String> {
    let said = |error: std::io::Error| error.to_string();
    if line.is_none() {
        let socket = TcpStream::connect_addr(address).await.map_err(said)?;
        socket.set_nodelay(true).map_err(said)?;
        *line = Some(socket);
    }
    let socket = line.as_mut().ok_or("not connected")?;
    socket.write_all(Bytes::from(request)).await.0.map_err(said)?;
    let mut bytes = Vec::new();
    loop {
        let (read, chunk) = socket.read(Vec::with_capacity(READ_BYTES)).await;
        let n = read.map_err(said)?;
        bytes.extend_from_slice(&chunk[..n]);
        if let Some(answer) = parse(&bytes)? {
            return Ok(answer);
        }
        if n == 0 || bytes.len() > ANSWER_BYTES_MAX {
            return Err("the answer is cut short, or too long".to_owned());
        }
    }
}
