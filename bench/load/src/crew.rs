//! The load threads of this process: started, fed with orders, and listened to.

use crossbeam_channel::{Receiver, Sender, unbounded};
use pinion::shard::{DriverKind, probe_io_uring, thread as shard_thread};
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
    let driver = driver(part.settings.driver)?;
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
                if let Err(why) = run(part, driver, scripts, ordered, &|news| tell_of(&tell, n, news)) {
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

fn driver(asked: Driver) -> Result<DriverKind, String> {
    match asked {
        Driver::Epoll => Ok(DriverKind::Epoll),
        Driver::IoUring => probe_io_uring().map(|()| DriverKind::IoUring),
        Driver::Auto => Ok(probe_io_uring().map_or(DriverKind::Epoll, |()| DriverKind::IoUring)),
    }
}

fn run(
    part: Part,
    driver: DriverKind,
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
    let start = thread::Start { part, script, purse, orders };
    let ran = shard_thread::run(driver, |turns| thread::run(start, turns, tell));
    ran.and_then(|ran| ran).map_err(|error| format!("a load thread on {driver}: {error}"))
}
