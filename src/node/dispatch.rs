//! `pinion dispatch` as a process: its one thread, the file with the members, signals.
//!
//! The main thread looks at the file each second, and at the addresses of names now and then. What always holds: a
//! list that cannot be read or is wrong changes nothing; it is logged once.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;

use crossbeam_channel::TryRecvError;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use super::signals::Signals;
use super::supervisor::Supervisor;
use super::{Logging, bind_fault, choose_driver, claim, is_end, roster};
use crate::config::machine::Machine;
use crate::config::policy::RpcPolicy;
use crate::config::{self, Config, Sources};
use crate::limits::{
    DISPATCH_LOOK_MS, DISPATCH_LOOKUP_MS, DRAIN_GRACE_MS, NODE_EVENTS_MAX, START_DEADLINE_MS,
};
use crate::placement::view::View;
use crate::rpc::assign::dispatch::{DispatchStart, spawn};
use crate::rpc::assign::{self, AssignStart, Polling};
use crate::shard::mailbox::{RpcAddress, RpcMail, rpc_mailbox};
use crate::shard::news::{NodeInbox, node_news};
use crate::shard::orders::{MainNews, ReloadCounts};
use crate::shard::{NodeEvent, clock, probe_io_uring};
use crate::time::Mono;

/// A running dispatcher.
pub struct Dispatch {
    /// Where clients ask; the real port.
    pub assign: SocketAddr,
    /// Where operators look; the real port.
    pub http: SocketAddr,
    /// Members of the list; `None`: it could not be read.
    pub members: Option<usize>,
    /// Why members are not asked how full they are.
    pub silent: Option<&'static str>,
    config: Config,
    sources: Sources,
    signals: Signals,
    events: NodeInbox,
    address: RpcAddress,
    thread: JoinHandle<()>,
    list: Option<List>,
}

/// The file with the members.
struct List {
    path: PathBuf,
    /// What it said last, good or bad.
    said: Result<String, String>,
    /// What it said last that was good.
    view: Option<View>,
    looked_up: Mono,
}

impl List {
    /// A list that is wrong is an error only at the start.
    fn open(path: &Path) -> (Self, Result<(), String>) {
        let said = roster::read(path);
        let parsed = said.clone().and_then(|text| roster::parse(path, &text));
        let fault = parsed.as_ref().err().cloned();
        let list = Self { path: path.to_owned(), said, view: parsed.ok(), looked_up: clock::now().mono };
        (list, fault.map_or(Ok(()), Err))
    }

    /// Whether there is something new to tell.
    fn look(&mut self) -> bool {
        let said = roster::read(&self.path);
        let changed = said != self.said;
        if changed {
            match said.clone().and_then(|text| roster::parse(&self.path, &text)) {
                Ok(view) => self.view = Some(view),
                Err(why) => {
                    tracing::error!("the members stay as they were: {why}");
                    self.said = said;
                    return false;
                }
            }
            self.said = said;
        }
        let now = clock::now().mono;
        let due = changed || now.since_ms(self.looked_up) >= DISPATCH_LOOKUP_MS;
        if due {
            self.looked_up = now;
        }
        due && self.view.is_some()
    }
}

impl Dispatch {
    /// Starts everything; when it returns, clients are answered. `sources` say where `config` came from.
    ///
    /// # Errors
    /// What went wrong, in words for the operator.
    pub fn start(config: &Config, sources: Sources, logging: &Logging) -> Result<Self, String> {
        let signals =
            Signals::catch(&[SIGTERM, SIGINT, SIGHUP]).map_err(|e| format!("cannot catch signals: {e}"))?;
        let listen = config.assign.listen.ok_or(
            "pinion dispatch needs assign.listen, where clients ask; for example --assign-listen 0.0.0.0:10003",
        )?;
        let (list, fault) = config.cluster.members.as_deref().map(List::open).unzip();
        let has_fallback = !config.assign.policy.decision.fallback.is_empty();
        match (&list, fault.unwrap_or(Ok(()))) {
            (_, Err(why)) if has_fallback => tracing::error!("answers are static (assign.fallback): {why}"),
            (_, Err(why)) => return Err(why),
            (None, Ok(())) if !has_fallback => {
                return Err(
                    "pinion dispatch needs to know whom to hand out: --members FILE (cluster.members), \
                            or assign.fallback for a static answer"
                        .to_owned(),
                );
            }
            _ => {}
        }
        let (driver, _) = choose_driver(config.shards.driver, probe_io_uring)?;
        let bind = |key, address| {
            claim(address)
                .and_then(|()| assign::bind(address))
                .and_then(|listener| Ok((listener.local_addr()?, listener)))
                .map_err(|e| bind_fault(key, address, &e))
        };
        let (assign, listener) = bind("assign.listen", listen)?;
        let (http, operators) = bind("http.listen", config.http_listen)?;
        let mailbox = |e: std::io::Error| format!("cannot make a mailbox: {e}");
        let (address, inbox) = rpc_mailbox(0).map_err(mailbox)?;
        let (news, events) = node_news(NODE_EVENTS_MAX).map_err(mailbox)?;
        let polling = Polling::of(&config.rpc)?;
        let view = list.as_ref().and_then(|list| list.view.clone());
        let (members, silent) = (view.as_ref().map(|view| view.members().len()), polling.off());
        let start = DispatchStart {
            config: Arc::new(config.clone()),
            driver,
            inbox,
            assign: AssignStart { listener, roster: view.map(roster::looked_up), own: None, polling },
            http: operators,
            dropped_log_lines: logging.dropped(),
            events: news,
        };
        let thread = spawn(start).map_err(|e| format!("cannot start the dispatch thread: {e}"))?;
        let config = config.clone();
        let started =
            Self { assign, http, members, silent, config, sources, signals, events, address, thread, list };
        started.await_ready()?;
        Ok(started)
    }

    fn await_ready(&self) -> Result<(), String> {
        let deadline = clock::now().mono.plus_ms(START_DEADLINE_MS);
        loop {
            match self.events.try_recv() {
                Ok(NodeEvent::RpcReady(_)) => return Ok(()),
                Ok(NodeEvent::Failed(why)) => return Err(why),
                Ok(_) => {}
                Err(TryRecvError::Disconnected) => return Err("the dispatch thread ended".to_owned()),
                Err(TryRecvError::Empty) => {
                    let left = deadline.since_ms(clock::now().mono);
                    if left == 0 {
                        return Err(format!("not ready after {START_DEADLINE_MS} ms"));
                    }
                    self.signals.wait(&self.events, left);
                }
            }
        }
    }

    /// Watches the list until a signal asks for the end.
    ///
    /// # Errors
    /// The thread failed.
    pub fn run(mut self) -> Result<(), String> {
        let mut supervisor = Supervisor::from_env();
        supervisor.ready("answers GET /v1/assign");
        loop {
            match self.events.try_recv() {
                Ok(NodeEvent::Failed(why)) => return Err(why),
                Err(TryRecvError::Disconnected) => return Err("the dispatch thread ended".to_owned()),
                Ok(_) | Err(TryRecvError::Empty) => {}
            }
            let pending: Vec<i32> = self.signals.pending().collect();
            if pending.iter().copied().any(is_end) {
                supervisor.stopping();
                self.end();
                return Ok(());
            }
            if pending.contains(&SIGHUP) {
                self.reload();
            }
            if self.list.as_mut().is_some_and(List::look) {
                self.tell_members();
            }
            self.signals.wait(&self.events, DISPATCH_LOOK_MS);
        }
    }

    fn tell_members(&mut self) {
        let Some(list) = &mut self.list else { return };
        let Some(view) = list.view.clone() else { return };
        let news = MainNews::Members(Box::new(roster::looked_up(view)));
        if self.address.post(RpcMail::Main(Box::new(news))).is_err() {
            // Taken for news again at the next look.
            list.said = Err("not told".to_owned());
        }
    }

    /// Settings of the assign API take effect; which ones do not, a restart of this process shows at no cost.
    fn reload(&mut self) {
        let key = self.config.shards.owner_key;
        match config::load(&self.sources, &Machine::probe(), clock::now().unix, || key) {
            Ok(loaded) => {
                let counts = ReloadCounts::default();
                let policy = Box::new(RpcPolicy::of(&loaded.config));
                let news = MainNews::Reloaded { policy, counts };
                match self.address.post(RpcMail::Main(Box::new(news))) {
                    Ok(()) => tracing::info!("configuration reloaded"),
                    Err(_) => {
                        tracing::error!("configuration not reloaded: the thread takes no mail; try again")
                    }
                }
                self.config = loaded.config;
            }
            Err(faults) => tracing::error!("configuration not reloaded, all stays as it was: {faults}"),
        }
    }

    /// Clients are few milliseconds from their answer; whoever is cut asks another dispatcher.
    fn end(self) {
        let deadline = clock::now().mono.plus_ms(DRAIN_GRACE_MS);
        while self.address.post(RpcMail::Drain(deadline)).is_err() || !self.thread.is_finished() {
            if clock::now().mono > deadline {
                tracing::warn!("the dispatch thread did not end in time");
                return;
            }
            self.signals.wait(&self.events, 5);
        }
        if self.thread.join().is_err() {
            tracing::error!("the dispatch thread panicked");
        }
    }
}
