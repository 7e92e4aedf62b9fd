//! TLS on gRPC connections, both sides: rustls over monoio's polled sockets.
//!
//! Not here: certificates (`config::tls`, `config::pem`) and who may connect (`gate`). `tokio_rustls` brings no
//! runtime: it works on the io traits that monoio's `poll-io` shares with tokio. What always holds: between two turns
//! of the thread it does the work of one handshake read at most, whatever the number of callers, and of
//! `TLS_TURN_BYTES` of one open connection. So neither a flood of handshakes nor one of empty records or key updates
//! keeps the mailbox waiting.

use std::cell::Cell;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use monoio::io::IntoPollIo;
use monoio::io::poll_io::{AsyncRead, AsyncWrite, ReadBuf};
use monoio::net::TcpStream;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ServerConfig};
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};

use crate::config::tls::ALPN_H2;
use crate::limits::TLS_TURN_BYTES;
use crate::shard::turn::{Turn, Turns};

/// A socket as h2 and rustls read it.
pub(super) type Tcp = <TcpStream as IntoPollIo>::PollIo;

/// A connection with or without TLS, `T` being what TLS runs over.
pub(super) enum MaybeTls<T = Tcp> {
    /// The bytes as they are.
    Plain(Tcp),
    /// Behind a finished handshake.
    Tls(Box<TlsStream<T>>),
}

/// The gateway's side. One per rpc thread.
pub(super) struct Acceptor {
    config: Arc<ServerConfig>,
    pace: Pace,
}

impl Acceptor {
    pub(super) fn new(config: Arc<ServerConfig>) -> Self {
        Self { config, pace: Pace::default() }
    }

    /// Does the handshake, client certificate included. The caller of this sets the deadline.
    pub(super) async fn accept(&self, stream: Tcp, turns: &Turns) -> io::Result<MaybeTls<Paced>> {
        let paced = Paced::new(stream, turns.clone(), self.pace.clone());
        let stream = TlsAcceptor::from(Arc::clone(&self.config)).accept(paced).await?;
        let mut stream = TlsStream::Server(stream);
        let (paced, session) = stream.get_mut();
        if session.alpn_protocol() != Some(ALPN_H2) {
            return Err(io::Error::other("the caller did not ask for h2 by ALPN"));
        }
        paced.handshakes = None;
        Ok(MaybeTls::Tls(Box::new(stream)))
    }
}

/// A caller's side.
pub(super) async fn connect(
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
    stream: Tcp,
) -> io::Result<MaybeTls> {
    let stream = TlsConnector::from(config).connect(name, stream).await?;
    Ok(MaybeTls::Tls(Box::new(TlsStream::Client(stream))))
}

/// The turn in which a handshake of this thread was last read from.
#[derive(Clone, Debug, Default)]
struct Pace(Rc<Cell<Option<u64>>>);

/// What TLS reads from: see the module's documentation.
pub(super) struct Paced {
    stream: Tcp,
    turns: Turns,
    /// Set during the handshake.
    handshakes: Option<Pace>,
    left_bytes: usize,
    /// Set while it waits for the next turn.
    turn: Option<Turn>,
}

impl Paced {
    fn new(stream: Tcp, turns: Turns, pace: Pace) -> Self {
        Self { stream, turns, handshakes: Some(pace), left_bytes: TLS_TURN_BYTES, turn: None }
    }

    /// Whether there was enough for this turn.
    fn is_spent(&self) -> bool {
        let now = self.turns.round();
        self.left_bytes == 0 || self.handshakes.as_ref().is_some_and(|Pace(last)| last.get() == Some(now))
    }
}

impl AsyncRead for Paced {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            if let Some(turn) = &mut this.turn {
                ready!(Pin::new(turn).poll(cx));
                this.turn = None;
                this.left_bytes = TLS_TURN_BYTES;
            }
            if !this.is_spent() {
                break;
            }
            this.turn = Some(this.turns.turn());
        }
        let before = buf.filled().len();
        let outcome = Pin::new(&mut this.stream).poll_read(cx, buf);
        if outcome.is_pending() {
            // Nothing to read: the task ends its turn anyway.
            this.left_bytes = TLS_TURN_BYTES;
            return Poll::Pending;
        }
        this.left_bytes = this.left_bytes.saturating_sub(buf.filled().len() - before);
        if let Some(Pace(last)) = &this.handshakes {
            last.set(Some(this.turns.round()));
        }
        outcome
    }
}

impl AsyncWrite for Paced {
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

/// Calls a method of whichever stream there is.
macro_rules! either {
    ($self:ident, $cx:ident => $method:ident($($argument:expr)?)) => {
        match $self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).$method($cx $(, $argument)?),
            Self::Tls(stream) => Pin::new(stream.as_mut()).$method($cx $(, $argument)?),
        }
    };
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncRead for MaybeTls<T> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        either!(self, cx => poll_read(buf))
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncWrite for MaybeTls<T> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        either!(self, cx => poll_write(buf))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        either!(self, cx => poll_write_vectored(bufs))
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(stream) => stream.is_write_vectored(),
            Self::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self, cx => poll_flush())
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self, cx => poll_shutdown())
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::io::Write;
    use std::net::{TcpListener, TcpStream as StdTcpStream};
    use std::time::Duration;

    use super::*;
    use crate::shard::thread::{block_on, tests::drivers};

    /// A connection with these bytes on their way to us, and its other end.
    fn with_input(bytes: &[u8]) -> (Tcp, StdTcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut far = StdTcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (near, _) = listener.accept().unwrap();
        near.set_nonblocking(true).unwrap();
        far.set_nonblocking(true).unwrap();
        far.write_all(bytes).unwrap();
        (TcpStream::from_std(near).unwrap().into_poll_io().unwrap(), far)
    }

    fn read(stream: &mut Paced, cx: &mut Context<'_>) -> usize {
        let mut room = [0; 4096];
        let mut buf = ReadBuf::new(&mut room);
        match Pin::new(stream).poll_read(cx, &mut buf) {
            Poll::Ready(Ok(())) => buf.filled().len(),
            Poll::Ready(Err(error)) => panic!("{error}"),
            Poll::Pending => 0,
        }
    }

    #[test]
    fn one_handshake_of_the_thread_is_read_from_in_a_turn() {
        for driver in drivers() {
            block_on(driver, |turns| async move {
                let pace = Pace::default();
                let mut ends = Vec::new();
                let mut streams = Vec::new();
                for _ in 0..4 {
                    let (near, far) = with_input(b"hello");
                    ends.push(far);
                    streams.push(Paced::new(near, turns.clone(), pace.clone()));
                }
                monoio::time::sleep(Duration::from_millis(20)).await; // all of it has arrived
                let mut heard = [0; 4];
                let mut rounds = 0;
                poll_fn(|cx| {
                    let bytes: Vec<usize> = streams.iter_mut().map(|stream| read(stream, cx)).collect();
                    rounds += 1;
                    assert!(
                        bytes.iter().filter(|n| **n > 0).count() <= 1,
                        "{driver:?}: {bytes:?} in one turn"
                    );
                    heard.iter_mut().zip(bytes).for_each(|(all, n)| *all += n);
                    if heard == [5; 4] { Poll::Ready(()) } else { Poll::Pending }
                })
                .await;
                assert!(rounds >= 4, "{driver:?}: {rounds}");
            });
        }
    }

    #[test]
    fn an_open_connection_reads_its_budget_and_the_next_one_only_after_a_turn() {
        for driver in drivers() {
            block_on(driver, |turns| async move {
                let (near, mut far) = with_input(b"");
                let mut stream = Paced::new(near, turns, Pace::default());
                stream.handshakes = None;
                for round in 0..3 {
                    let mut total = 0;
                    poll_fn(|cx| {
                        // As much as the socket takes; more than a budget is there at the latest in the second try.
                        while far.write(&[b'x'; 4096]).is_ok() {}
                        let mut now = 0;
                        loop {
                            match read(&mut stream, cx) {
                                0 => break,
                                n => now += n,
                            }
                        }
                        assert!(now < TLS_TURN_BYTES + 4096, "{driver:?} round {round}: {now} in one turn");
                        total += now;
                        if total < TLS_TURN_BYTES { Poll::Pending } else { Poll::Ready(()) }
                    })
                    .await;
                }
            });
        }
    }
}
