//! The stream under the admin HTTP codec: bounded in bytes and in time (platform.md rule 20).
//!
//! `monoio-http` buffers a head of any length and waits for it for ever. What always holds here: after `byte_limit`
//! bytes or at the deadline a read or write fails, and the operation was cancelled and awaited, never just dropped.
#![expect(unsafe_code, reason = "monoio-http splits its stream, and `Split` is an unsafe trait")]

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use monoio::BufResult;
use monoio::buf::{IoBuf, IoBufMut, IoVecBuf, IoVecBufMut};
use monoio::io::{
    AsyncReadRent, AsyncWriteRent, CancelableAsyncReadRent, CancelableAsyncWriteRent, Canceller, Split,
};
use monoio::net::TcpStream;

use crate::shard::clock;
use crate::time::Mono;

/// Why a stream was cut off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Excess {
    /// More bytes than allowed.
    TooLong,
    /// The deadline passed.
    TooSlow,
}

/// Shared between a stream and the task that owns it: what is left, and what went wrong.
#[derive(Debug)]
pub(super) struct Bounds {
    left_bytes: Cell<usize>,
    deadline: Cell<Mono>,
    excess: Cell<Option<Excess>>,
}

impl Bounds {
    pub(super) fn new(byte_limit: usize, deadline: Mono) -> Rc<Self> {
        Rc::new(Self {
            left_bytes: Cell::new(byte_limit),
            deadline: Cell::new(deadline),
            excess: Cell::new(None),
        })
    }

    /// What went wrong, if the bounds were overstepped.
    pub(super) fn excess(&self) -> Option<Excess> {
        self.excess.get()
    }

    /// Sets a new deadline, for the answer.
    pub(super) fn extend(&self, deadline: Mono) {
        self.deadline.set(deadline);
    }

    fn overstep(&self, excess: Excess) -> io::Error {
        self.excess.set(Some(excess));
        io::Error::from(match excess {
            Excess::TooLong => io::ErrorKind::FileTooLarge,
            Excess::TooSlow => io::ErrorKind::TimedOut,
        })
    }

    /// Awaits an operation; at the deadline it is cancelled through its canceller and then awaited all the same,
    /// because the kernel may still use its buffer.
    async fn within<B>(
        &self,
        canceller: Canceller,
        operation: impl Future<Output = BufResult<usize, B>>,
    ) -> BufResult<usize, B> {
        let mut operation = pin!(operation);
        let left = self.deadline.get().since_ms(clock::now().mono);
        let mut alarm = pin!(monoio::time::sleep(Duration::from_millis(left)));
        let in_time = poll_fn(|cx| {
            if let Poll::Ready(result) = operation.as_mut().poll(cx) {
                return Poll::Ready(Some(result));
            }
            alarm.as_mut().poll(cx).map(|()| None)
        });
        match in_time.await {
            Some(result) => result,
            None => {
                canceller.cancel();
                let (_, buffer) = operation.await;
                (Err(self.overstep(Excess::TooSlow)), buffer)
            }
        }
    }

    fn count_read<B>(&self, (result, buffer): BufResult<usize, B>) -> BufResult<usize, B> {
        let result = result.and_then(|n| match self.left_bytes.get().checked_sub(n) {
            Some(left) => {
                self.left_bytes.set(left);
                Ok(n)
            }
            None => Err(self.overstep(Excess::TooLong)),
        });
        (result, buffer)
    }
}

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Bounded {
    stream: TcpStream,
    bounds: Rc<Bounds>,
}

impl Bounded {
    pub(super) fn new(stream: TcpStream, bounds: Rc<Bounds>) -> Self {
        Self { stream, bounds }
    }
}

impl AsyncReadRent for Bounded {
    async fn read<T: IoBufMut>(&mut self, buf: T) -> BufResult<usize, T> {
        let canceller = Canceller::new();
        let read = self.stream.cancelable_read(buf, canceller.handle());
        self.bounds.count_read(self.bounds.within(canceller, read).await)
    }

    async fn readv<T: IoVecBufMut>(&mut self, buf: T) -> BufResult<usize, T> {
        let canceller = Canceller::new();
        let read = self.stream.cancelable_readv(buf, canceller.handle());
        self.bounds.count_read(self.bounds.within(canceller, read).await)
    }
}

impl AsyncWriteRent for Bounded {
    async fn write<T: IoBuf>(&mut self, buf: T) -> BufResult<usize, T> {
        let canceller = Canceller::new();
        let write = self.stream.cancelable_write(buf, canceller.handle());
        self.bounds.within(canceller, write).await
    }

    async fn writev<T: IoVecBuf>(&mut self, buf: T) -> BufResult<usize, T> {
        let canceller = Canceller::new();
        let write = self.stream.cancelable_writev(buf, canceller.handle());
        self.bounds.within(canceller, write).await
    }

    async fn flush(&mut self) -> io::Result<()> {
        self.stream.flush().await
    }

    async fn shutdown(&mut self) -> io::Result<()> {
        self.stream.shutdown().await
    }
}

// SAFETY: `Split` promises that a read and a write of the two halves do not disturb each other. `Bounded` adds to the
// `TcpStream`, which is `Split`, only `Cell`s of one thread. The halves never run at the same time either: the one task
// that holds both (`admin::serve`) reads a request to its end, then writes the answer, so the two `&mut Bounded` that
// monoio makes from them do not overlap in time.
unsafe impl Split for Bounded {}
