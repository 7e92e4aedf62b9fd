//! One node: builds mailboxes, listeners and threads, watches them, and takes them down.
//!
//! `threads` starts them and waits until they are ready, `openim` makes the control thread of `backend: openim`;
//! `drain` empties the node and ends them; `adopt` serves addresses of dead nodes, and `hook` moves them; `cluster`
//! waits for the other nodes at the start, `roster` is who they are for the assign API; `reload` changes what may
//! change meanwhile; `logging` is the process's log; `supervisor` tells systemd, `signals` is what main sleeps on.
//! `dispatch` and `proxy` are the main threads of other processes, `onlooker` is how these see the members. Everything
//! here runs on the main thread, which is the only one that may block. Not here: what the threads do (`shard`, `rpc`),
//! and what is printed (`cli`).

mod adopt;
mod cluster;
pub mod dispatch;
mod drain;
mod hook;
mod logging;
mod onlooker;
mod openim;
pub mod proxy;
mod reload;
mod roster;
mod signals;
mod supervisor;
mod threads;
mod watch;

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread::JoinHandle;

use crossbeam_channel::TryRecvError;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR2};

use self::adopt::Adopting;
use self::drain::Drain;
pub use self::drain::DrainView;
pub use self::logging::Logging;
use self::reload::Reload;
use self::signals::Signals;
use self::supervisor::Supervisor;
use crate::admission::{Admission, NodeState};
use crate::config::layout::Layout;
use crate::config::machine::Machine;
use crate::config::{Config, Driver, Engine, Sources};
use crate::ids::ShardId;
use crate::metrics::Block;
use crate::placement::view::View;
use crate::shard::mailbox::{Control, RpcAddress, ShardAddress};
use crate::shard::news::NodeInbox;
use crate::shard::orders::NodeLevels;
use crate::shard::stall::Watcher;
use crate::shard::{Base, DriverKind, EngineKind, NodeEvent, probe_io_uring, probe_ring_engine, stall_trace};

/// What a started node turned out to be, for the banner.
#[derive(Clone, Debug)]
pub struct Facts {
    /// Where clients connect; the real port.
    pub websocket: SocketAddr,
    /// Where gRPC listens; the real port.
    pub grpc: SocketAddr,
    /// Where admin HTTP listens; the real port.
    pub http: SocketAddr,
    /// Where clients ask which node to dial; the real port. `None`: nowhere.
    pub assign: Option<SocketAddr>,
    /// What waits for sockets.
    pub driver: DriverKind,
    /// Why that one, in words.
    pub driver_reason: String,
    /// What moves the bytes of clients.
    pub engine: EngineKind,
    /// Why that one, in words.
    pub engine_reason: String,
    /// Which thread runs where.
    pub layout: Layout,
}

/// Why a node ended other than by a drain.
#[derive(Debug)]
pub enum Failure {
    /// In words for the operator.
    Said(String),
    /// This shard does not turn any more: abort, for the supervisor to restart.
    Stalled(ShardId),
}

/// Why there is no dispatcher, or no proxy.
#[derive(Debug)]
pub enum StartFault {
    /// The input is wrong.
    Input(String),
    /// The system says no.
    System(String),
}

impl From<String> for StartFault {
    fn from(why: String) -> Self {
        Self::System(why)
    }
}

/// A shard, seen from the main thread.
struct Shard {
    address: ShardAddress,
    /// The shard's own listener once more, to take it out of the accept group when the shard cannot.
    listener: Option<TcpListener>,
    /// Likewise those on other nodes' addresses, by number.
    adopted: BTreeMap<u16, TcpListener>,
    /// What it is to hear, in order, and has not yet: its control lane was full.
    untold: VecDeque<Control>,
    thread: JoinHandle<()>,
}

/// An rpc thread, seen from the main thread.
struct Rpc {
    address: RpcAddress,
    thread: JoinHandle<()>,
}

/// A running node.
pub struct Node {
    facts: Facts,
    config: Arc<Config>,
    admission: Arc<Admission>,
    shards: Vec<Shard>,
    rpcs: Vec<Rpc>,
    events: NodeInbox,
    /// With `backend: openim` only.
    control: Option<openim::Control>,
    signals: Signals,
    /// Out only while it reports.
    watcher: Option<Watcher>,
    supervisor: Supervisor,
    reload: Reload,
    /// The shards' counts.
    blocks: Vec<Arc<Block>>,
    /// The members of the cluster, as told last.
    view: Option<Box<View>>,
    /// The assign API has not heard of them.
    members_untold: bool,
    /// Their names, on the way to it.
    lookup: roster::LookUp,
    /// While the node empties itself.
    drain: Option<Drain>,
    adopting: Adopting,
    /// What rpc thread 0 knows.
    told: NodeLevels,
    /// The shard that stalled for longer than `stall.abort_ms`.
    condemned: Option<ShardId>,
    planted: Option<PlantedStall>,
    /// The planted stall was asked for and not yet ended.
    stalls: bool,
}

/// A test switch.
#[derive(Clone, Copy, Debug)]
pub struct PlantedStall {
    /// Which shard stops turning.
    pub shard: u16,
    /// For how long, unless it is ended before.
    pub milliseconds: u64,
}

impl Node {
    /// Starts everything; when it returns, clients are served. `sources` say where `config` came from: a reload reads
    /// them again.
    ///
    /// # Errors
    /// What went wrong, in words for the operator. Threads that run already end with the process.
    pub fn start(config: &Config, sources: Sources, logging: &Logging) -> Result<Self, String> {
        // First of all, so that a signal during the start is not lost and the default action does not cut it short.
        let mut signals =
            Signals::catch(&[SIGTERM, SIGINT, SIGHUP]).map_err(|e| format!("cannot catch signals: {e}"))?;
        stall_trace::install().map_err(|e| format!("cannot prepare backtraces of stalled shards: {e}"))?;
        let (driver, driver_reason) = choose_driver(config.shards.driver, probe_io_uring)?;
        let (engine, engine_reason) = choose_engine(config.shards.engine, driver, probe_ring_engine)?;
        let machine = Machine::probe();
        let given = config;
        let mut config = config.clone();
        config.websocket.address = claim_websocket(&config)?;
        let reload = Reload::new(given, sources, machine.clone(), logging);
        let ended = || signals.pending().any(is_end);
        let started =
            threads::start(Arc::new(config), &machine, Base { driver, engine }, logging.dropped(), ended)?;
        let mut adopting = Adopting::new(&started.config.cluster);
        started.view.iter().for_each(|view| adopting.see(view));
        let stall_abort_ms = started.config.stall_abort_ms;
        let facts = Facts {
            websocket: started.websocket,
            grpc: started.grpc,
            http: started.http,
            assign: started.assign,
            driver,
            driver_reason,
            engine,
            engine_reason,
            layout: started.layout,
        };
        Ok(Self {
            facts,
            config: started.config,
            admission: started.admission,
            shards: started.shards,
            rpcs: started.rpcs,
            events: started.events,
            control: started.control,
            signals,
            watcher: Some(Watcher::new(started.watched, stall_abort_ms)),
            supervisor: Supervisor::from_env(),
            reload,
            blocks: started.blocks,
            members_untold: started.view.is_some(),
            lookup: roster::LookUp::default(),
            view: started.view,
            drain: None,
            adopting,
            told: NodeLevels::default(),
            condemned: None,
            planted: None,
            stalls: false,
        })
    }

    /// What the node turned out to be.
    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    /// From now on SIGUSR2 stalls a shard, and the next one ends the stall (tests). Without this call the signal ends
    /// the process.
    ///
    /// # Errors
    /// There is no such shard, or the signal cannot be caught.
    pub fn plant(&mut self, stall: PlantedStall) -> Result<(), String> {
        if self.shards.len() <= usize::from(stall.shard) {
            return Err(format!("there is no shard {}", stall.shard));
        }
        self.planted = Some(stall);
        self.signals.add(SIGUSR2).map_err(|e| format!("cannot catch SIGUSR2: {e}"))
    }

    /// Begins the planted stall; the second time ends it.
    fn stall(&mut self) {
        let Some(stall) = self.planted else { return };
        let Some(shard) = self.shards.get(usize::from(stall.shard)) else { return };
        if self.stalls {
            shard.thread.thread().unpark();
        } else if shard.address.control(Control::Stall(stall.milliseconds)).is_err() {
            tracing::error!(?stall, "the stall could not be planted: the shard's control lane is full");
        }
        self.stalls = !self.stalls;
    }

    /// Watches the threads until a signal asks for the end, then drains.
    ///
    /// # Errors
    /// A thread failed, or the node could not be drained in time.
    pub fn run(mut self) -> Result<(), Failure> {
        self.supervisor.ready(&self.status());
        loop {
            self.take_news()?;
            let pause_ms = self.watch()?.min(self.tell_policies()).min(self.tend());
            let signals: Vec<i32> = self.signals.pending().collect();
            if signals.contains(&SIGUSR2) {
                self.stall();
            }
            if let Some(signal) = signals.iter().find(|signal| is_end(**signal)) {
                let deadline_ms = self.reload.policy().drain_deadline_ms;
                tracing::info!(signal, deadline_ms, "draining");
                return self.drain();
            }
            if signals.contains(&SIGHUP) {
                // What came of it is in the log; nobody waits for an answer.
                drop(self.reload());
                continue;
            }
            self.signals.wait(&self.events, pause_ms);
        }
    }

    fn take_news(&mut self) -> Result<(), Failure> {
        loop {
            match self.events.try_recv() {
                Ok(NodeEvent::Failed(why)) => return Err(Failure::Said(why)),
                Ok(NodeEvent::Order { ticket, order }) => self.order(ticket, order),
                Ok(NodeEvent::View(view)) => self.see(view),
                Ok(event) => tracing::debug!(?event, "unexpected news"),
                Err(TryRecvError::Empty) => return Ok(()),
                Err(TryRecvError::Disconnected) => {
                    return Err(Failure::Said("all threads have ended".into()));
                }
            }
        }
    }

    /// What main does beside watching. Returns after how many milliseconds to do it again.
    fn tend(&mut self) -> u64 {
        let adoption_ms = self.tend_adoption();
        self.tend_drain().min(adoption_ms).min(self.tell_view())
    }

    /// Takes the cluster's members, as the router has them now.
    fn see(&mut self, view: Box<View>) {
        self.adopting.see(&view);
        self.view = Some(view);
        self.members_untold = true;
    }

    /// One line for systemd.
    fn status(&self) -> String {
        let pending = match self.reload.pending() {
            0 => String::new(),
            n => format!(", {n} settings wait for a restart"),
        };
        let doing = if self.drain.is_some() { "draining: no new clients" } else { "clients" };
        format!("{doing} on {}, {} shards{pending}", self.facts.websocket, self.shards.len())
    }
}

/// Whether a signal asks for the end.
fn is_end(signal: i32) -> bool {
    ![SIGUSR2, SIGHUP].contains(&signal)
}

/// Decides on the driver, and says why.
fn choose_driver(
    wanted: Driver,
    probe: impl FnOnce() -> Result<(), String>,
) -> Result<(DriverKind, String), String> {
    match wanted {
        Driver::Epoll => Ok((DriverKind::Epoll, "asked for by shards.driver".into())),
        Driver::IoUring => match probe() {
            Ok(()) => Ok((DriverKind::IoUring, "asked for by shards.driver".into())),
            Err(why) => Err(format!("shards.driver is io_uring, but {why}")),
        },
        Driver::Auto => match probe() {
            Ok(()) => Ok((DriverKind::IoUring, "the kernel allows it".into())),
            Err(why) => Ok((DriverKind::Epoll, format!("no io_uring: {why}"))),
        },
    }
}

/// Decides on the engine, and says why.
fn choose_engine(
    wanted: Engine,
    driver: DriverKind,
    probe: impl FnOnce() -> Result<(), String>,
) -> Result<(EngineKind, String), String> {
    match (wanted, driver) {
        (Engine::Task, _) => Ok((EngineKind::Task, "asked for by shards.engine".into())),
        (Engine::Ring, _) => match probe() {
            Ok(()) => Ok((EngineKind::Ring, "asked for by shards.engine".into())),
            Err(why) => Err(format!("shards.engine is ring, but {why}")),
        },
        (Engine::Auto, DriverKind::Epoll) => Ok((EngineKind::Task, "the driver is epoll".into())),
        (Engine::Auto, DriverKind::IoUring) => match probe() {
            Ok(()) => Ok((EngineKind::Ring, "the kernel has what it needs".into())),
            Err(why) => Ok((EngineKind::Task, format!("no own ring: {why}"))),
        },
    }
}

/// Makes sure that nobody else listens on an address. SO_REUSEPORT, which the threads' listeners use, would let a
/// second gateway of the same user join in silence, and the kernel would then deal clients out between the two.
fn claim(address: SocketAddr) -> std::io::Result<()> {
    if address.port() == 0 {
        return Ok(()); // the kernel gives a port that nobody uses
    }
    TcpListener::bind(address).map(drop)
}

/// As [`claim`], for the clients' port; gives the address to use: without IPv6, `::` means all of IPv4. Who listens
/// there may be another node that has taken the address over: it hears of this one later, and is waited for then
/// (`threads`).
fn claim_websocket(config: &Config) -> Result<IpAddr, String> {
    let address = SocketAddr::new(config.websocket.address, config.websocket.port);
    let unspecified = IpAddr::from([0_u16; 8]);
    let bound = claim(address).map(|()| address.ip()).or_else(|e| {
        let no_ipv6 = rustix::io::Errno::from_io_error(&e).is_some_and(|errno| {
            [rustix::io::Errno::AFNOSUPPORT, rustix::io::Errno::ADDRNOTAVAIL].contains(&errno)
        });
        if address.ip() == unspecified && no_ipv6 {
            let address = SocketAddr::from(([0, 0, 0, 0], address.port()));
            claim(address).map(|()| address.ip())
        } else if e.kind() == std::io::ErrorKind::AddrInUse && config.cluster.is_adopted() {
            Ok(address.ip())
        } else {
            Err(e)
        }
    });
    bound.map_err(|e| bind_fault("websocket.port", address, &e))
}

/// What an operator reads when a port is taken.
fn bind_fault(key: &str, address: SocketAddr, error: &std::io::Error) -> String {
    let remedy = match error.kind() {
        std::io::ErrorKind::AddrInUse => {
            format!(
                "; another program, perhaps another gateway, listens there: end it, or set {key} to a free one"
            )
        }
        std::io::ErrorKind::PermissionDenied => format!("; ports below 1024 need a capability: set {key}"),
        _ => String::new(),
    };
    format!("cannot listen on {address} ({key}): {error}{remedy}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_driver_follows_wish_and_probe() {
        let broken = || Err("seccomp".to_owned());
        let works = || Ok(());
        let kind = |result: Result<(DriverKind, String), String>| result.map(|(kind, _)| kind);
        assert_eq!(kind(choose_driver(Driver::Auto, works)), Ok(DriverKind::IoUring));
        assert_eq!(kind(choose_driver(Driver::Epoll, works)), Ok(DriverKind::Epoll));
        let (kind, why) = choose_driver(Driver::Auto, broken).unwrap();
        assert_eq!((kind, why.as_str()), (DriverKind::Epoll, "no io_uring: seccomp"));
        let error = choose_driver(Driver::IoUring, broken).unwrap_err();
        assert!(error.contains("shards.driver is io_uring, but seccomp"), "{error}");
    }

    #[test]
    fn the_engine_follows_wish_driver_and_probe() {
        let broken = || Err("old kernel".to_owned());
        let works = || Ok(());
        let (uring, epoll) = (DriverKind::IoUring, DriverKind::Epoll);
        let kind = |result: Result<(EngineKind, String), String>| result.unwrap().0;
        assert_eq!(kind(choose_engine(Engine::Auto, uring, works)), EngineKind::Ring);
        assert_eq!(kind(choose_engine(Engine::Auto, epoll, works)), EngineKind::Task);
        assert_eq!(kind(choose_engine(Engine::Ring, epoll, works)), EngineKind::Ring);
        assert_eq!(kind(choose_engine(Engine::Task, uring, works)), EngineKind::Task);
        let (kind, why) = choose_engine(Engine::Auto, uring, broken).unwrap();
        assert_eq!((kind, why.as_str()), (EngineKind::Task, "no own ring: old kernel"));
        let error = choose_engine(Engine::Ring, uring, broken).unwrap_err();
        assert_eq!(error, "shards.engine is ring, but old kernel");
    }

    #[test]
    fn a_port_in_use_is_refused_with_the_setting_that_mends_it() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        let error = claim(address).unwrap_err();
        let text = bind_fault("http.listen", address, &error);
        assert!(text.contains("set http.listen to a free one"), "{text}");
        assert!(claim(SocketAddr::from(([127, 0, 0, 1], 0))).is_ok());
    }
}
