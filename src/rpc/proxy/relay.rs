//! Moves the bytes of one direction of a pair, without looking at them.
//!
//! Small amounts are copied through the thread's one buffer: a receive and a send, which for a WebSocket frame of
//! usual size costs less than two splices. Who fills the buffer is served by splice through a pipe from there on. What
//! a slow side does not take is held for the pair, in memory or in the pipe, and the other side is not read until it is
//! gone. What always holds: an idle pair owns neither; a direction holds at most `PROXY_BUFFER_BYTES` or one pipe.
//!
//! The sockets are watched edge-triggered: [`Mover::pump`] stops only where the kernel will tell more, or says
//! [`Progress::More`].

use std::os::fd::BorrowedFd;

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, Shutdown, recv, send};
use rustix::pipe::{SpliceFlags, splice};

use super::Relay;
use super::pipes::{Pipe, Pipes};
use crate::limits::{PROXY_BUFFER_BYTES, PROXY_SPLICE_BYTES, PROXY_TURN_BYTES};
use crate::metrics::proxy::{ProxyMetric, ProxyTally};

/// One direction of a pair.
#[derive(Debug, Default)]
pub(super) struct Flow {
    held: Option<Box<Held>>,
    /// The source has ended.
    ended: bool,
    /// ... and the sink was told.
    shut: bool,
}

/// What the sink has not taken yet.
#[derive(Debug)]
enum Held {
    /// The bytes from a position.
    Memory(Box<[u8]>, usize),
    /// So many bytes.
    Pipe(Pipe, usize),
}

/// Where a pump stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// The source has no more for now.
    Idle,
    /// The sink is slow.
    Blocked,
    /// It has had its turn; there may be more.
    More,
    /// The source has ended, everything is delivered, and the sink was told.
    Ended,
    /// One of the two is broken.
    Broken(Errno),
}

/// What a pump did.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pumped {
    /// Where it stopped.
    pub(super) progress: Progress,
    /// Bytes that the source gave.
    pub(super) bytes: usize,
}

/// Whether more may come than what a short read gave: the source has ended or is broken, and a read must find out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hint {
    /// A read that does not fill the buffer has emptied the socket.
    Data,
    /// Read to the end.
    End,
}

/// What all pairs of a thread move their bytes with.
#[derive(Debug)]
pub(super) struct Mover {
    buffer: Box<[u8]>,
    pub(super) pipes: Pipes,
    relay: Relay,
}

impl Flow {
    /// A direction whose first bytes are there already.
    pub(super) fn hold(&mut self, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.held = Some(Box::new(Held::Memory(bytes.into(), 0)));
        }
    }

    /// Whether the sink was slow.
    pub(super) fn is_held(&self) -> bool {
        self.held.is_some()
    }

    /// Bytes that wait for the sink.
    pub(super) fn held_bytes(&self) -> usize {
        self.held.as_deref().map_or(0, |held| match held {
            Held::Memory(bytes, from) => bytes.len() - from,
            Held::Pipe(_, left) => *left,
        })
    }

    /// Whether everything is over: delivered, and the end told.
    pub(super) fn is_over(&self) -> bool {
        self.shut
    }
}

impl Held {
    /// Sends once; gives how many bytes are left.
    fn send(&mut self, to: BorrowedFd<'_>) -> Result<usize, Errno> {
        match self {
            Self::Memory(bytes, from) => {
                *from += send_now(to, bytes.get(*from..).unwrap_or_default())?;
                Ok(bytes.len().saturating_sub(*from))
            }
            Self::Pipe(pipe, left) => {
                *left = left.saturating_sub(splice(&pipe.read, None, to, None, *left, flags())?);
                Ok(*left)
            }
        }
    }
}

impl Mover {
    pub(super) fn new(relay: Relay) -> Self {
        Self { buffer: vec![0; PROXY_BUFFER_BYTES].into(), pipes: Pipes::default(), relay }
    }

    /// The pair is closed: what it holds is given up.
    pub(super) fn forget(&mut self, flow: Flow) {
        if let Some(Held::Pipe(pipe, _)) = flow.held.map(|held| *held) {
            self.pipes.discard(pipe);
        }
    }

    /// Moves what is there, until the source has no more, the sink takes no more, or the turn is over.
    pub(super) fn pump(
        &mut self,
        flow: &mut Flow,
        (from, to): (BorrowedFd<'_>, BorrowedFd<'_>),
        hint: Hint,
        tally: &mut ProxyTally,
    ) -> Pumped {
        let mut bytes = 0;
        let mut bulk = self.relay == Relay::Splice;
        let progress = loop {
            match self.flush(flow, to) {
                Ok(true) => {}
                Ok(false) => break Progress::Blocked,
                Err(error) => break Progress::Broken(error),
            }
            if flow.ended {
                if !flow.shut {
                    flow.shut = true;
                    if let Err(error) = rustix::net::shutdown(to, Shutdown::Write) {
                        break Progress::Broken(error);
                    }
                }
                break Progress::Ended;
            }
            if bytes >= PROXY_TURN_BYTES {
                break Progress::More;
            }
            let moved = if bulk { self.by_pipe(flow, from, tally) } else { None };
            let moved = moved.unwrap_or_else(|| self.by_copy(flow, (from, to), tally));
            match moved {
                Ok(0) => flow.ended = true,
                Ok(n) => {
                    bytes += n;
                    let filled = n >= self.buffer.len();
                    if flow.held.is_none() && !filled && hint == Hint::Data && !bulk {
                        break Progress::Idle;
                    }
                    bulk |= filled && self.relay == Relay::Auto;
                }
                Err(Errno::AGAIN) => break Progress::Idle,
                Err(Errno::INTR) => {}
                Err(error) => break Progress::Broken(error),
            }
        };
        Pumped { progress, bytes }
    }

    /// Gives the sink what is held. `false`: it does not take all of it.
    fn flush(&mut self, flow: &mut Flow, to: BorrowedFd<'_>) -> Result<bool, Errno> {
        let Some(held) = flow.held.as_deref_mut() else {
            return Ok(true);
        };
        loop {
            match held.send(to) {
                Ok(0) => break,
                Ok(_) | Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        if let Some(Held::Pipe(pipe, _)) = flow.held.take().map(|held| *held) {
            self.pipes.give(pipe);
        }
        Ok(true)
    }

    /// Fills a pipe. `None`: there is none, or these sockets cannot be spliced; copy instead.
    fn by_pipe(
        &mut self,
        flow: &mut Flow,
        from: BorrowedFd<'_>,
        tally: &mut ProxyTally,
    ) -> Option<Result<usize, Errno>> {
        let Some(pipe) = self.pipes.take() else {
            tally.count(ProxyMetric::NoPipe);
            return None;
        };
        match splice(from, None, &pipe.write, None, PROXY_SPLICE_BYTES, flags()) {
            Ok(n) if n > 0 => {
                tally.count(ProxyMetric::Splices);
                flow.held = Some(Box::new(Held::Pipe(pipe, n)));
                Some(Ok(n))
            }
            Err(Errno::INVAL) => {
                self.pipes.give(pipe);
                self.relay = Relay::Copy;
                tracing::warn!("splice does not work here; bytes are copied from now on");
                None
            }
            other => {
                self.pipes.give(pipe);
                Some(other)
            }
        }
    }

    /// Receives into the buffer and sends at once; holds what the sink does not take.
    fn by_copy(
        &mut self,
        flow: &mut Flow,
        (from, to): (BorrowedFd<'_>, BorrowedFd<'_>),
        tally: &mut ProxyTally,
    ) -> Result<usize, Errno> {
        let (_, n) = recv(from, &mut self.buffer[..], RecvFlags::DONTWAIT)?;
        if n == 0 {
            return Ok(0);
        }
        tally.count(ProxyMetric::Copies);
        let bytes = self.buffer.get(..n).unwrap_or_default();
        let sent = match send_now(to, bytes) {
            Ok(sent) => sent,
            Err(Errno::AGAIN | Errno::INTR) => 0,
            Err(error) => return Err(error),
        };
        flow.hold(bytes.get(sent..).unwrap_or_default());
        Ok(n)
    }
}

/// What the socket takes without waiting.
pub(super) fn send_now(to: BorrowedFd<'_>, bytes: &[u8]) -> Result<usize, Errno> {
    send(to, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL)
}

fn flags() -> SpliceFlags {
    SpliceFlags::NONBLOCK | SpliceFlags::MOVE
}

#[cfg(test)]
#[path = "relay_tests.rs"]
mod tests;
