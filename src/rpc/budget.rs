//! A stream whose reader gives up the turn after a budget, and which is cut when its peer floods or does not read.
//!
//! `h2` reads and processes frames for as long as there are bytes; a peer that sends tiny frames would keep the thread
//! for ever (platform.md rule 2). What always holds: between two turns of the thread reads of one connection cost at
//! most `H2_TURN_BYTES`, those of all at most `H2_THREAD_TURN_BYTES` and `H2_TURN_LEAST_BYTES` of each. A connection
//! that is cut reads nothing more; whoever drives it looks at its [`Verdict`].

use std::cell::Cell;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use monoio::io::poll_io::{AsyncRead, AsyncWrite, ReadBuf};
use monoio::time::Sleep;

use super::conduct::{Conduct, Cut, Sent};
use crate::config::RpcLimits;
use crate::limits::{H2_FRAME_COST_BYTES, H2_THREAD_TURN_BYTES, H2_TURN_BYTES, H2_TURN_LEAST_BYTES};
use crate::shard::clock;
use crate::shard::turn::{Turn, Turns};
use crate::time::Mono;
use crate::wire::h2::{HEAD_BYTES, Walker};

/// What the connections of a thread may read in one of its turns. One for all that share the thread.
#[derive(Debug)]
pub struct Ration {
    turns: Turns,
    round: Cell<u64>,
    left_bytes: Cell<usize>,
    /// Connections that read in this round, and in the last one.
    readers: Cell<usize>,
    readers_before: Cell<usize>,
}

impl Ration {
    /// A full one.
    pub fn new(turns: Turns) -> Self {
        let round = Cell::new(turns.round());
        let (readers, readers_before) = (Cell::new(0), Cell::new(0));
        Self { turns, round, left_bytes: Cell::new(H2_THREAD_TURN_BYTES), readers, readers_before }
    }

    /// The round that is on.
    fn round(&self) -> u64 {
        let round = self.turns.round();
        if self.round.replace(round) != round {
            self.left_bytes.set(H2_THREAD_TURN_BYTES);
            self.readers_before.set(self.readers.take());
        }
        round
    }

    /// What one more reader may have: an even share, if as many come as in the last round.
    fn enter(&self) -> usize {
        self.readers.set(self.readers.get() + 1);
        let share = H2_THREAD_TURN_BYTES / self.readers_before.get().max(1);
        share.clamp(H2_TURN_LEAST_BYTES, H2_TURN_BYTES)
    }

    fn spend(&self, bytes: usize) {
        self.left_bytes.set(self.left_bytes.get().saturating_sub(bytes));
    }
}

/// Why a connection was cut, once it is. Shared by the stream and by whoever drives it.
pub(super) type Verdict = Rc<Cell<Option<Cut>>>;

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Budgeted<S> {
    stream: S,
    ration: Rc<Ration>,
    walker: Walker,
    conduct: Conduct,
    verdict: Verdict,
    /// When the peer was last heard.
    heard: Rc<Cell<Mono>>,
    /// The round that `share_bytes` and `spent_bytes` are of.
    round: Option<u64>,
    share_bytes: usize,
    spent_bytes: usize,
    /// Bytes and cost of the last read.
    last: (usize, usize),
    /// Set while the budget is spent: the turn that brings the next one.
    turn: Option<Turn>,
    send_deadline: Duration,
    /// Set while the socket takes nothing.
    stuck: Option<Pin<Box<Sleep>>>,
}

impl<S> Budgeted<S> {
    /// `stream` carries plain HTTP/2 of a client from its first byte.
    pub(super) fn new(stream: S, ration: Rc<Ration>, limits: &RpcLimits) -> Self {
        Self::walked(stream, ration, limits, Walker::before_preface())
    }

    /// `stream` carries plain HTTP/2 of a server from its first byte.
    pub(super) fn of_server(stream: S, ration: Rc<Ration>, limits: &RpcLimits) -> Self {
        Self::walked(stream, ration, limits, Walker::before_frames())
    }

    fn walked(stream: S, ration: Rc<Ration>, limits: &RpcLimits, walker: Walker) -> Self {
        Self {
            stream,
            ration,
            walker,
            conduct: Conduct::new(limits),
            verdict: Verdict::default(),
            heard: Rc::default(),
            round: None,
            share_bytes: 0,
            spent_bytes: 0,
            last: (1, 1),
            turn: None,
            send_deadline: Duration::from_millis(limits.send_deadline_ms),
            stuck: None,
        }
    }

    /// Where a cut will stand.
    pub(super) fn verdict(&self) -> Verdict {
        Rc::clone(&self.verdict)
    }

    /// Where the time stands at which the peer was last heard; 0 before it was.
    pub(super) fn heard(&self) -> Rc<Cell<Mono>> {
        Rc::clone(&self.heard)
    }

    /// What may still be spent in this round.
    fn allowance(&mut self) -> usize {
        let round = Some(self.ration.round());
        if self.round != round {
            (self.round, self.spent_bytes, self.share_bytes) = (round, 0, self.ration.enter());
        }
        let least = H2_TURN_LEAST_BYTES.saturating_sub(self.spent_bytes);
        self.share_bytes.saturating_sub(self.spent_bytes).min(self.ration.left_bytes.get().max(least))
    }

    /// So many bytes cost at most so much, or little more: after the payload that is under way there may be nothing
    /// but heads, and what comes is likely as dense as what came last.
    fn room(&self, allowance: usize) -> usize {
        let payload = self.walker.bytes_to_head();
        let heads = match allowance.checked_sub(payload) {
            Some(rest) => payload + rest / (HEAD_BYTES + H2_FRAME_COST_BYTES) * HEAD_BYTES,
            None => allowance,
        };
        let (bytes, cost) = self.last;
        heads.min(allowance.saturating_mul(bytes) / cost.max(1)).max(HEAD_BYTES)
    }

    /// Accounts for what was read, and judges it.
    fn came(&mut self, bytes: &[u8]) {
        let mut sent = Sent::default();
        self.walker.walk(bytes, |head| sent.add(head));
        let cost = bytes.len() + sent.cost_bytes;
        self.last = (bytes.len(), cost);
        self.spent_bytes += cost;
        self.ration.spend(cost);
        let now = clock::now().mono;
        self.heard.set(now);
        if let Err(cut) = self.conduct.judge(now, sent) {
            self.verdict.set(Some(cut));
        }
    }

    /// Lets a send pass, and ends the connection when none did for `send_deadline`.
    fn watched<T>(&mut self, cx: &mut Context<'_>, sent: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if sent.is_ready() {
            self.stuck = None;
            return sent;
        }
        let deadline = self.send_deadline;
        let stuck = self.stuck.get_or_insert_with(|| Box::pin(monoio::time::sleep(deadline)));
        ready!(stuck.as_mut().poll(cx));
        self.verdict.set(Some(Cut::Stuck));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }

    fn wrote(&mut self, sent: &Poll<io::Result<usize>>) {
        if let Poll::Ready(Ok(bytes)) = sent {
            self.conduct.wrote(*bytes);
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Budgeted<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let allowance = loop {
            if this.verdict.get().is_some() {
                return Poll::Pending; // its driver looks at the verdict after each poll
            }
            if let Some(turn) = &mut this.turn {
                ready!(Pin::new(turn).poll(cx));
                this.turn = None;
            }
            match this.allowance() {
                0 => this.turn = Some(this.ration.turns.turn()),
                allowance => break allowance,
            }
        };
        let most = this.room(allowance).min(buf.remaining());
        let mut part = ReadBuf::new(buf.initialize_unfilled_to(most));
        ready!(Pin::new(&mut this.stream).poll_read(cx, &mut part))?;
        let read = part.filled();
        this.came(read);
        let read = read.len();
        buf.advance(read);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Budgeted<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let sent = Pin::new(&mut this.stream).poll_write(cx, buf);
        this.wrote(&sent);
        this.watched(cx, sent)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let sent = Pin::new(&mut this.stream).poll_write_vectored(cx, bufs);
        this.wrote(&sent);
        this.watched(cx, sent)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let flushed = Pin::new(&mut this.stream).poll_flush(cx);
        this.watched(cx, flushed)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;
    use crate::limits::H2_CALL_COST_BYTES;
    use crate::shard::DriverKind;
    use crate::shard::thread::{block_on, tests::drivers};

    /// Always has something to read: the preface, then one frame again and again. Takes nothing.
    struct Endless {
        frame: &'static [u8],
        at: usize,
    }

    const PING: &[u8] = b"\0\0\x08\x06\0\0\0\0\0........";
    const HEADERS: &[u8] = b"\0\0\x04\x01\x05\0\0\0\x01....";
    const DATA: &[u8] = &{
        let mut frame = [0; 9 + 16_384];
        frame[1] = 0x40;
        frame
    };

    impl Endless {
        fn of(frame: &'static [u8], ration: &Rc<Ration>) -> Budgeted<Self> {
            Budgeted::new(Self { frame, at: 0 }, Rc::clone(ration), &QUIET)
        }
    }

    /// Nothing is judged.
    const QUIET: RpcLimits = RpcLimits {
        control_frames_per_s: crate::limits::H2_RATE_MAX,
        resets_per_s: crate::limits::H2_RATE_MAX,
        ..RpcLimits::DEFAULT
    };

    impl AsyncRead for Endless {
        fn poll_read(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            buf: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            let stream = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".iter().chain(self.frame.iter().cycle());
            let skip = if self.at < 24 { self.at } else { 24 + (self.at - 24) % self.frame.len() };
            let bytes: Vec<u8> = stream.skip(skip).take(buf.remaining()).copied().collect();
            buf.put_slice(&bytes);
            self.at += bytes.len();
            Poll::Ready(Ok(()))
        }
    }

    impl AsyncWrite for Endless {
        fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, _: &[u8]) -> Poll<io::Result<usize>> {
            Poll::Pending
        }
        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    /// Reads of many streams until none gives more: bytes of each. Waits for a turn if the first gives none.
    async fn round_of_reads(streams: &mut [Budgeted<Endless>]) -> Vec<usize> {
        poll_fn(|cx| {
            let mut read = vec![0; streams.len()];
            for (stream, read) in streams.iter_mut().zip(&mut read) {
                let mut room = [0u8; 20_000];
                let mut buf = ReadBuf::new(&mut room);
                while Pin::new(&mut *stream).poll_read(cx, &mut buf).is_ready() {
                    *read += buf.filled().len();
                    buf.clear();
                    assert!(*read < 1 << 20, "no end");
                }
            }
            if read.iter().all(|n| *n == 0) { Poll::Pending } else { Poll::Ready(read) }
        })
        .await
    }

    #[test]
    fn an_endless_sender_gets_its_budget_and_the_next_one_only_after_a_turn() {
        // A frame, and how many of them are worth a turn.
        let table = [
            (PING, H2_TURN_BYTES / (PING.len() + H2_FRAME_COST_BYTES)),
            (HEADERS, H2_TURN_BYTES / (HEADERS.len() + H2_FRAME_COST_BYTES + H2_CALL_COST_BYTES)),
            (DATA, H2_TURN_BYTES / (DATA.len() + H2_FRAME_COST_BYTES)),
        ];
        for driver in drivers() {
            for (frame, worth) in table {
                block_on(driver, |turns| async move {
                    let ration = Rc::new(Ration::new(turns));
                    let mut stream = [Endless::of(frame, &ration)];
                    for round in 0..3 {
                        let frames = round_of_reads(&mut stream).await[0] / frame.len();
                        // The first read does not know yet that they are HEADERS.
                        let most = worth + if round == 0 { 8_200 / frame.len() } else { worth / 4 };
                        assert!(
                            (worth..=most).contains(&frames),
                            "{driver:?} round {round}: {frames} {worth}"
                        );
                    }
                });
            }
        }
    }

    #[test]
    fn many_endless_senders_share_a_turn_and_none_starves() {
        block_on(DriverKind::Epoll, |turns| async move {
            let ration = Rc::new(Ration::new(turns));
            let mut streams: Vec<_> = (0..512).map(|_| Endless::of(PING, &ration)).collect();
            let frame_cost = PING.len() + H2_FRAME_COST_BYTES;
            for round in 0..6 {
                let frames = round_of_reads(&mut streams).await.into_iter().map(|n| n / PING.len());
                let frames: Vec<usize> = frames.collect();
                assert!(frames.iter().all(|n| *n > 0), "round {round}: one starves: {frames:?}");
                let cost = frames.iter().sum::<usize>() * frame_cost;
                // Each may overshoot by its last read.
                let most = H2_THREAD_TURN_BYTES + 512 * 2 * H2_TURN_LEAST_BYTES + H2_TURN_BYTES;
                assert!(cost <= most, "round {round}: {cost} {most}");
                if round > 0 {
                    let (least, largest) = (frames.iter().min().unwrap(), frames.iter().max().unwrap());
                    assert!(largest <= &(least * 8), "shares are even: {least} {largest}");
                }
            }
        });
    }

    #[test]
    fn a_flood_is_read_up_to_its_burst_and_then_no_more() {
        block_on(DriverKind::Epoll, |turns| async move {
            let limits = RpcLimits { control_frames_per_s: 1_000, ..RpcLimits::DEFAULT };
            let flood = Endless { frame: PING, at: 0 };
            let mut stream = [Budgeted::new(flood, Rc::new(Ration::new(turns)), &limits)];
            let verdict = stream[0].verdict();
            let mut frames = 0;
            while verdict.get().is_none() {
                frames += round_of_reads(&mut stream).await[0] / PING.len();
                assert!(frames < 100_000, "never cut");
            }
            assert_eq!(verdict.get(), Some(Cut::ControlFrames));
            assert!(frames > 4_000, "{frames}");
            let mut room = [0u8; 100];
            let waker = std::task::Waker::noop();
            let again = Pin::new(&mut stream[0])
                .poll_read(&mut Context::from_waker(waker), &mut ReadBuf::new(&mut room));
            assert!(again.is_pending());
        });
    }

    #[test]
    fn a_socket_that_takes_nothing_is_given_up_after_the_deadline() {
        for driver in drivers() {
            block_on(driver, |turns| async move {
                let limits = RpcLimits { send_deadline_ms: 30, ..RpcLimits::DEFAULT };
                let peer = Endless { frame: PING, at: 0 };
                let mut stream = Budgeted::new(peer, Rc::new(Ration::new(turns)), &limits);
                let start = clock::now().mono;
                let failed = poll_fn(|cx| Pin::new(&mut stream).poll_write(cx, b"x")).await.unwrap_err();
                assert_eq!(failed.kind(), io::ErrorKind::TimedOut);
                assert_eq!(stream.verdict().get(), Some(Cut::Stuck));
                assert!(clock::now().mono.since_ms(start) >= 29);
            });
        }
    }
}
