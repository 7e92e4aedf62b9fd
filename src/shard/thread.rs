//! How a thread of the node is set up: named, pinned, with its monoio runtime built on the thread that runs it.
//!
//! Used by shards and rpc threads alike. Nothing of what the thread does is here.

use std::future::Future;
use std::io;
use std::thread::JoinHandle;

use monoio::{FusionRuntime, IoUringDriver, LegacyDriver, RuntimeBuilder};
use rustix::thread::CpuSet;

use super::news::NodeNews;
use super::turn::Turns;
use super::{DriverKind, NodeEvent};
use crate::limits::RING_ENTRIES_MAX;

/// What a thread gets before it does anything.
#[derive(Clone, Debug)]
pub struct Seat {
    /// Shown by `top -H`; the kernel keeps 15 bytes.
    pub name: String,
    /// The CPU to pin to; `None` = not pinned.
    pub cpu: Option<usize>,
    /// Which monoio driver (already probed).
    pub driver: DriverKind,
}

/// Starts a thread that runs the future which `make` builds on it, then ends. A thread that cannot be set up says so
/// as [`NodeEvent::Failed`]; one that cannot be pinned runs unpinned with a warning.
///
/// # Errors
/// The system gives no thread.
pub fn spawn_on<M, F>(seat: Seat, events: NodeNews, make: M) -> io::Result<JoinHandle<()>>
where
    M: FnOnce(Turns) -> F + Send + 'static,
    F: Future<Output = ()> + 'static,
{
    std::thread::Builder::new().name(seat.name.clone()).spawn(move || {
        if let Some(cpu) = seat.cpu
            && let Err(error) = pin_to(cpu)
        {
            tracing::warn!(thread = seat.name, cpu, %error, "thread runs unpinned");
        }
        if let Err(error) = run(seat.driver, make) {
            let news = NodeEvent::Failed(format!("thread {}: no {} runtime: {error}", seat.name, seat.driver));
            if events.try_send(news).is_err() {
                tracing::error!(thread = seat.name, %error, "the thread cannot start, and main does not listen");
            }
        }
    })
}

/// Runs a future with the thread's turns on a runtime of this thread.
///
/// # Errors
/// The kernel refuses the ring, the epoll instance or an eventfd.
pub fn run<M, F>(driver: DriverKind, make: M) -> io::Result<F::Output>
where
    M: FnOnce(Turns) -> F,
    F: Future,
{
    runtime(driver)?.block_on(async move {
        let turns = Turns::start()?;
        Ok(make(turns).await)
    })
}

type Runtime = FusionRuntime<monoio::time::TimeDriver<IoUringDriver>, monoio::time::TimeDriver<LegacyDriver>>;

fn runtime(driver: DriverKind) -> io::Result<Runtime> {
    // Ring flags: none. SINGLE_ISSUER + DEFER_TASKRUN starve input while tasks stay runnable (platform.md rule 7).
    Ok(match driver {
        DriverKind::IoUring => RuntimeBuilder::<IoUringDriver>::new()
            .with_entries(RING_ENTRIES_MAX)
            .enable_timer()
            .build()?
            .into(),
        DriverKind::Epoll => RuntimeBuilder::<LegacyDriver>::new()
            .with_entries(RING_ENTRIES_MAX)
            .enable_timer()
            .build()?
            .into(),
    })
}

fn pin_to(cpu: usize) -> io::Result<()> {
    if cpu >= CpuSet::MAX_CPU {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    }
    let mut set = CpuSet::new();
    set.set(cpu);
    Ok(rustix::thread::sched_setaffinity(None, &set)?)
}

/// As [`run`], for tests.
#[cfg(test)]
pub(crate) fn block_on<M, F>(driver: DriverKind, make: M) -> F::Output
where
    M: FnOnce(Turns) -> F,
    F: Future,
{
    run(driver, make).unwrap()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::shard::news::node_news;
    use crate::shard::{Base, EngineKind};

    /// Every driver that this machine lets us use.
    pub(crate) fn drivers() -> Vec<DriverKind> {
        let mut drivers = vec![DriverKind::Epoll];
        match crate::shard::probe_io_uring() {
            Ok(()) => drivers.push(DriverKind::IoUring),
            Err(why) => println!("SKIPPED on io_uring: {why}"),
        }
        drivers
    }

    /// Every engine on every driver that this machine lets us use and that a node would choose.
    pub(crate) fn bases() -> Vec<Base> {
        let mut bases: Vec<Base> =
            drivers().into_iter().map(|driver| Base { driver, engine: EngineKind::Task }).collect();
        match crate::shard::probe_ring_engine() {
            Ok(()) => bases.push(Base { driver: DriverKind::IoUring, engine: EngineKind::Ring }),
            Err(why) => println!("SKIPPED on the ring engine: {why}"),
        }
        bases
    }

    /// Runs a test on every driver of this machine, side by side: most of a test's time is waiting.
    pub(crate) fn on_each_of_the_drivers(test: impl Fn(DriverKind) + Sync) {
        std::thread::scope(|scope| {
            for driver in drivers() {
                let test = &test;
                scope.spawn(move || test(driver));
            }
        });
    }

    #[test]
    fn the_thread_is_named_and_pinned_and_its_future_runs() {
        for driver in drivers() {
            let cpu = (0..CpuSet::MAX_CPU)
                .find(|cpu| rustix::thread::sched_getaffinity(None).unwrap().is_set(*cpu))
                .unwrap();
            let (events, news) = node_news(1).unwrap();
            let (say, said) = crossbeam_channel::bounded(1);
            let seat = Seat { name: "shard7".into(), cpu: Some(cpu), driver };
            let thread = spawn_on(seat, events, move |turns| async move {
                turns.turn().await;
                let set = rustix::thread::sched_getaffinity(None).unwrap();
                let name = std::thread::current().name().map(str::to_owned);
                say.send((name, set.count(), set.is_set(cpu))).unwrap();
            });
            thread.unwrap().join().unwrap();
            assert_eq!(said.try_recv().unwrap(), (Some("shard7".to_owned()), 1, true));
            assert!(news.try_recv().is_err(), "nothing failed");
        }
    }

    #[test]
    fn a_cpu_that_does_not_exist_is_no_reason_to_stop() {
        assert!(pin_to(CpuSet::MAX_CPU - 1).is_err());
        assert!(pin_to(usize::MAX).is_err());
    }
}
