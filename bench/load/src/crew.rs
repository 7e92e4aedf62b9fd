//! The load threads of this process: started, fed with orders, and listened to.

use crossbeam_channel::{Receiver, Sender, unbounded};
use pinion::shard::engine::EngineKind;
use pinion::shard::{DriverKind, probe_io_uring, probe_ring_engine, thread as shard_thread};
use pinion_bench_kit::cpu::pin;

use crate::news::{News, Order, Part};
use crate::run::Scripts;
use crate::settings::{Driver, Protocol};
use crate::thread;
use crate::tokens::Purse;

/// What leads a run's threads, wherever they are.
pub struct Reins {
    /// One for each thread or process.
    pub orders: Vec<Sender<Order>>,
    /// With the number of the thread, from 0 here.
    pub news: Receiver<(usize, News)>,
    /// The processes whose CPU time is the load's own.
    pub pids: Vec<u32>,
    pub threads: usize,
}

impl Reins {
    pub fn tell(&self, order: Order) {
        for orders in &self.orders {
            // One that has ended needs none.
            let _ = orders.send(order);
        }
    }

    pub fn quit(&self) {
        self.tell(Order::Quit);
    }
}

/// Runs the threads of a part. `lead` runs on this thread beside them; when it returns, they are told to quit.
///
/// # Errors
/// No driver, or no threads.
pub fn with<T>(part: &Part, scripts: Scripts<'_>, lead: impl FnOnce(&Reins) -> T) -> Result<T, String> {
    let base = base(part.settings.driver)?;
    let (tell, news) = unbounded();
    std::thread::scope(|scope| {
        let mut reins =
            Reins { orders: Vec::new(), news, pids: vec![std::process::id()], threads: part.threads };
        for (n, part) in part.split(part.threads).into_iter().enumerate() {
            let (order, ordered) = unbounded();
            reins.orders.push(order);
            let tell = tell.clone();
            let name = format!("load{}", part.first_thread);
            let work = move || {
                if let Err(why) = run(part, base, scripts, ordered, &|news| tell_of(&tell, n, news)) {
                    tell_of(&tell, n, News::Failed(why));
                }
            };
            std::thread::Builder::new()
                .name(name)
                .spawn_scoped(scope, work)
                .map_err(|error| format!("no thread: {error}"))?;
        }
        let outcome = lead(&reins);
        reins.quit();
        Ok(outcome)
    })
}

fn tell_of(tell: &Sender<(usize, News)>, thread: usize, news: News) {
    // Nobody listens any more once the run has failed.
    let _ = tell.send((thread, news));
}

/// What the threads run on: as the gateway chooses for itself.
#[derive(Clone, Copy)]
struct Base {
    driver: DriverKind,
    engine: EngineKind,
}

fn base(asked: Driver) -> Result<Base, String> {
    let engine = || if probe_ring_engine().is_ok() { EngineKind::Ring } else { EngineKind::Task };
    match asked {
        Driver::Epoll => Ok(Base { driver: DriverKind::Epoll, engine: EngineKind::Task }),
        Driver::IoUring => probe_io_uring().map(|()| Base { driver: DriverKind::IoUring, engine: engine() }),
        Driver::Auto => base(Driver::IoUring).or_else(|_| base(Driver::Epoll)),
    }
}

fn run(
    part: Part,
    base: Base,
    scripts: Scripts<'_>,
    orders: Receiver<Order>,
    tell: &dyn Fn(News),
) -> Result<(), String> {
    let settings = &part.settings;
    if let Some(cpu) = settings.cpus.get(part.first_thread % settings.cpus.len().max(1)) {
        pin(&[*cpu]);
    }
    let script = scripts(settings, part.first_thread)?;
    let purse = match settings.protocol {
        Protocol::OpenIm { .. } => {
            Some(Purse::open(&settings.users, part.first_connection, part.connections)?)
        }
        Protocol::Raw => None,
    };
    let start = thread::Start { part, script, purse, orders, engine: base.engine };
    let ran = shard_thread::run(base.driver, |turns| thread::run(start, turns, tell));
    ran.and_then(|ran| ran).map_err(|error| format!("a load thread on {}: {error}", base.driver))
}
