//! The one way to give up a turn (platform.md rule 2).
//!
//! monoio has no fairness: a task that wakes itself, or that waits for something already readable, keeps the thread
//! and the others' input waits for ever. A turn lets everything else that is ready run, input and timers included.
//! It costs about 2 us, whatever the number of waiting tasks: one task per thread wakes them all.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use monoio::time::{Instant, Sleep};
use rustix::event::{EventfdFlags, eventfd};

use super::nudge::Nudge;
use super::socket::Socket;

/// Gives turns to the tasks of one thread. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Turns {
    shared: Rc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    /// Rounds of input that were looked at since somebody first asked.
    round: Cell<u64>,
    waiters: RefCell<Vec<Waker>>,
    wanted: Nudge,
}

impl Turns {
    /// Starts the thread's turn task. Call it once, inside the thread's runtime.
    ///
    /// # Errors
    /// The process is out of descriptors.
    pub fn start() -> io::Result<Self> {
        let bell = Bell::new()?;
        let turns = Self { shared: Rc::default() };
        monoio::spawn(give_turns(Rc::clone(&turns.shared), bell));
        Ok(turns)
    }

    /// Completes after all other ready tasks and all input that has arrived have had their turn.
    pub fn turn(&self) -> Turn {
        Turn { shared: Rc::clone(&self.shared), asked_in: None }
    }

    /// The round that is on: a number that changes whenever turns were given, for budgets of all tasks together.
    pub fn round(&self) -> u64 {
        self.shared.round.get()
    }
}

/// See [`Turns::turn`]. `Unpin`, so that hand-written `poll_read` code can keep one and poll it.
#[derive(Debug)]
#[must_use = "a turn is only given up when it is awaited"]
pub struct Turn {
    shared: Rc<Shared>,
    asked_in: Option<u64>,
}

impl Future for Turn {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let round = self.shared.round.get();
        if self.asked_in.is_some_and(|asked| asked != round) {
            return Poll::Ready(());
        }
        self.asked_in = Some(round);
        self.shared.waiters.borrow_mut().push(cx.waker().clone());
        self.shared.wanted.ring();
        Poll::Pending
    }
}

/// The turn task. The order matters: on epoll a wait for an eventfd that is already readable is a self-wake in
/// disguise, so the wait comes first and the write second.
async fn give_turns(shared: Rc<Shared>, bell: Bell) {
    let mut witness = Witness::armed();
    loop {
        shared.wanted.wait().await;
        if let Err(error) = bell.ring_while_waiting().await {
            // Must not become the busy loop that it is there to prevent.
            tracing::error!(%error, "the turn task cannot wait for its eventfd");
            monoio::time::sleep(Duration::from_millis(2)).await;
        }
        witness.look().await;
        shared.round.set(shared.round.get().wrapping_add(1));
        // Who asked until now is woken now. A ring of theirs would give the next turn before they had this one.
        shared.wanted.clear();
        let waiters = std::mem::take(&mut *shared.waiters.borrow_mut());
        for waiter in waiters {
            waiter.wake();
        }
    }
}

/// Sees to it that monoio parks now and then. Only there it serves timers and, on io_uring, streams of poll-io; and it
/// does not park as long as its rounds end with tasks left over, which many tasks that wake each other can keep up.
struct Witness(Pin<Box<Sleep>>);

impl Witness {
    fn armed() -> Self {
        Self(Box::pin(monoio::time::sleep(PARK_INTERVAL)))
    }

    /// Passes if the timer has fired. If it is overdue, waits for it: nobody has a turn meanwhile, so the tasks run
    /// out, and monoio parks.
    async fn look(&mut self) {
        let (now, timer) = (Instant::now(), &mut self.0);
        if now < timer.deadline() + PARK_INTERVAL {
            return;
        }
        timer.as_mut().await;
        timer.as_mut().reset(now + PARK_INTERVAL);
        // The first poll starts it.
        poll_fn(|cx| Poll::Ready(timer.as_mut().poll(cx).is_ready())).await;
    }
}

/// A timer of this length is seen to fire after at most twice as long, and the round that is on.
const PARK_INTERVAL: Duration = Duration::from_millis(2);

/// An eventfd.
struct Bell(Socket);

impl Bell {
    fn new() -> io::Result<Self> {
        let eventfd = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self(Socket::adopt_pollable(eventfd)?))
    }

    async fn ring_while_waiting(&self) -> io::Result<()> {
        let mut readable = pin!(self.0.readable());
        let early = poll_fn(|cx| Poll::Ready(readable.as_mut().poll(cx))).await;
        rustix::io::write(&self.0, &1u64.to_ne_bytes())?;
        if early.is_pending() {
            readable.await;
        }
        rustix::io::read(&self.0, &mut [0u8; 8])?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use monoio::io::IntoPollIo;
    use monoio::io::poll_io::AsyncReadExt;

    use super::*;
    use crate::shard::DriverKind;
    use crate::shard::thread::{block_on, tests::drivers};

    /// A task that never waits for anything but turns must not keep timers or sockets from being served.
    fn others_run_beside_a_busy_task(driver: DriverKind) {
        let (ticks, echoed, turns_taken) = block_on(driver, |turns| async move {
            let ticks = Rc::new(Cell::new(0u32));
            let ticker = Rc::clone(&ticks);
            monoio::spawn(async move {
                loop {
                    monoio::time::sleep(Duration::from_millis(2)).await;
                    ticker.set(ticker.get() + 1);
                }
            });
            let echoed = Rc::new(Cell::new(false));
            let done = Rc::clone(&echoed);
            let (mut near, far) = std::os::unix::net::UnixStream::pair().unwrap();
            near.set_nonblocking(true).unwrap();
            far.set_nonblocking(true).unwrap();
            let far = monoio::net::UnixStream::from_std(far).unwrap();
            monoio::spawn(async move {
                far.readable(false).await.unwrap();
                done.set(true);
            });
            let mut taken = 0u32;
            let start = crate::shard::clock::now().mono;
            while ticks.get() < 20 || taken <= 100 {
                turns.turn().await;
                taken += 1;
                if taken == 50 {
                    std::io::Write::write_all(&mut near, b"x").unwrap();
                }
                assert!(crate::shard::clock::now().mono.since_ms(start) < 60_000, "the ticker starves");
            }
            (ticks.get(), echoed.get(), taken)
        });
        assert!(echoed, "{driver:?}: {ticks} ticks, {turns_taken} turns");
    }

    #[test]
    fn timers_and_sockets_are_served_beside_a_task_that_takes_turns() {
        for driver in drivers() {
            others_run_beside_a_busy_task(driver);
        }
    }

    #[test]
    fn timers_and_polled_streams_are_served_beside_many_tasks_that_take_turns_and_start_others() {
        for driver in drivers() {
            block_on(driver, |turns| async move {
                for _ in 0..100 {
                    let turns = turns.clone();
                    monoio::spawn(async move {
                        loop {
                            turns.turn().await;
                            for _ in 0..5 {
                                monoio::spawn(async {});
                            }
                        }
                    });
                }
                let start = crate::shard::clock::now().mono;
                let in_time =
                    || assert!(crate::shard::clock::now().mono.since_ms(start) < 60_000, "{driver:?}");
                for _ in 0..20 {
                    let fired = Rc::new(Cell::new(false));
                    let sign = Rc::clone(&fired);
                    monoio::spawn(async move {
                        monoio::time::sleep(Duration::from_millis(2)).await;
                        sign.set(true);
                    });
                    let (mut near, far) = std::os::unix::net::UnixStream::pair().unwrap();
                    far.set_nonblocking(true).unwrap();
                    let mut far = monoio::net::UnixStream::from_std(far).unwrap().into_poll_io().unwrap();
                    let read = Rc::new(Cell::new(false));
                    let sign = Rc::clone(&read);
                    monoio::spawn(async move {
                        far.read_u8().await.unwrap();
                        sign.set(true);
                    });
                    turns.turn().await;
                    std::io::Write::write_all(&mut near, b"x").unwrap();
                    while !(fired.get() && read.get()) {
                        turns.turn().await;
                        in_time();
                    }
                }
            });
        }
    }

    #[test]
    fn one_round_wakes_all_who_wait() {
        for driver in drivers() {
            let order = block_on(driver, |turns| async move {
                let done = Rc::new(Cell::new(0));
                for _ in 0..10 {
                    let (turns, done) = (turns.clone(), Rc::clone(&done));
                    monoio::spawn(async move {
                        turns.turn().await;
                        done.set(done.get() + 1);
                    });
                }
                turns.turn().await;
                turns.turn().await;
                done.get()
            });
            assert_eq!(order, 10, "{driver:?}");
        }
    }
}
