//! A TCP stream whose reader gives up the turn after a budget of bytes (platform.md rule 2).
//!
//! `h2` reads and processes frames for as long as there are bytes; a peer that sends tiny frames would keep the thread
//! for ever. What always holds: between two turns of the thread at most `H2_TURN_BYTES` are read from one connection.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use monoio::io::poll_io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::limits::H2_TURN_BYTES;
use crate::shard::turn::{Turn, Turns};

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Budgeted<S> {
    stream: S,
    turns: Turns,
    left_bytes: usize,
    /// Set while the budget is spent: the turn that brings the next one.
    turn: Option<Turn>,
}

impl<S> Budgeted<S> {
    pub(super) fn new(stream: S, turns: Turns) -> Self {
        Self { stream, turns, left_bytes: H2_TURN_BYTES, turn: None }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Budgeted<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if let Some(turn) = &mut this.turn {
            ready!(Pin::new(turn).poll(cx));
            this.turn = None;
            this.left_bytes = H2_TURN_BYTES;
        }
        let before = buf.filled().len();
        match Pin::new(&mut this.stream).poll_read(cx, buf) {
            Poll::Pending => {
                // Nothing to read: the task ends its turn anyway.
                this.left_bytes = H2_TURN_BYTES;
                Poll::Pending
            }
            Poll::Ready(result) => {
                this.left_bytes = this.left_bytes.saturating_sub(buf.filled().len() - before);
                if this.left_bytes == 0 {
                    this.turn = Some(this.turns.turn());
                }
                Poll::Ready(result)
            }
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Budgeted<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;
    use crate::shard::thread::{block_on, tests::drivers};

    /// Always has something to read.
    struct Endless;

    impl AsyncRead for Endless {
        fn poll_read(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            buf: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            let n = buf.remaining();
            buf.initialize_unfilled().fill(b'x');
            buf.advance(n);
            Poll::Ready(Ok(()))
        }
    }

    #[test]
    fn an_endless_sender_gets_its_budget_and_the_next_one_only_after_a_turn() {
        for driver in drivers() {
            block_on(driver, |turns| async move {
                let mut stream = Budgeted::new(Endless, turns);
                for round in 0..3 {
                    let mut read = 0;
                    poll_fn(|cx| {
                        let mut room = [0u8; 1000];
                        let mut buf = ReadBuf::new(&mut room);
                        while Pin::new(&mut stream).poll_read(cx, &mut buf).is_ready() {
                            read += buf.filled().len();
                            buf.clear();
                            assert!(read < H2_TURN_BYTES + 1000, "{driver:?} round {round}: no end");
                        }
                        // Pending within one poll: the budget is spent, and the turn wakes this task.
                        if read == 0 { Poll::Pending } else { Poll::Ready(()) }
                    })
                    .await;
                    assert!(read >= H2_TURN_BYTES, "{driver:?} round {round}: {read}");
                }
            });
        }
    }
}
