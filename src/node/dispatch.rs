//! `pinion dispatch` as a process: its one thread, the members, signals.
//!
//! The main thread looks at the list each second, and at the addresses of names now and then; members in etcd or
//! Kubernetes come from the control thread (`onlooker`), and the list counts until there are any. What always holds: a
//! list that cannot be read or is wrong changes nothing; it is logged once.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;

use crossbeam_channel::TryRecvError;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use super::onlooker::{self, Onlooker};
use super::signals::Signals;
use super::supervisor::Supervisor;
use super::{Logging, StartFault, bind_fault, choose_driver, claim, is_end, openim, roster};
use crate::config::machine::Machine;
use crate::config::member_file::MemberFile;
use crate::config::policy::{RpcPolicy, TlsFiles};
use crate::config::{self, Config, Sources};
use crate::limits::{
    DISPATCH_LOOK_MS, DISPATCH_LOOKUP_MS, DRAIN_GRACE_MS, NODE_EVENTS_MAX, START_DEADLINE_MS,
};
use crate::metrics::Block;
use crate::placement::Algorithm;
use crate::placement::view::View;
use crate::rpc::assign::dispatch::{DispatchStart, spawn};
use crate::rpc::assign::{self, AssignStart, Polling};
use crate::shard::mailbox::{RpcAddress, RpcMail, rpc_mailbox};
use crate::shard::news::{NodeInbox, node_news};
use crate::shard::orders::{MainNews, ReloadCounts};
use crate::shard::{NodeEvent, clock, probe_io_uring};
use crate::time::Mono;

/// Where clients ask, and the list of members if there is one.
fn asked(config: &Config) -> Result<(SocketAddr, Option<List>), String> {
    let listen = config.assign.listen.ok_or(
        "dispatch needs assign.listen, where clients ask; for example --assign-listen 0.0.0.0:10003",
    )?;
    let (list, fault) = {
        let placement = &config.cluster.placement;
        config.cluster.members.as_deref().map(|path| List::open(path, placement)).unzip()
    };
    let has_fallback = !config.assign.policy.decision.fallback.is_empty();
    match (&list, fault.unwrap_or(Ok(()))) {
        (_, Err(why)) if has_fallback => tracing::error!("answers are static (assign.fallback): {why}"),
        (_, Err(why)) => return Err(why),
        (None, Ok(())) if !has_fallback && !onlooker::is_watched(&config.cluster) => {
            return Err("dispatch needs to know whom to hand out: --members FILE (cluster.members), \
                        --cluster-source etcd, or assign.fallback for a static answer"
                .to_owned());
        }
        _ => {}
    }
    Ok((listen, list))
}

/// A running dispatcher.
pub struct Dispatch {
    /// Where clients ask; the real port.
    pub assign: SocketAddr,
    /// Where operators look; the real port.
    pub http: SocketAddr,
    /// Members of the list; `None`: it could not be read.
    pub members: Option<usize>,
    /// Where the members are watched, if they are in no list.
    pub watched: Option<String>,
    /// Why members are not asked how full they are.
    pub silent: Option<&'static str>,
    config: Config,
    sources: Sources,
    signals: Signals,
    events: NodeInbox,
    address: RpcAddress,
    thread: JoinHandle<()>,
    list: Option<List>,
    onlooker: Option<Onlooker>,
}

/// The list of members.
struct List {
    file: MemberFile,
    path: PathBuf,
    placement: Algorithm,
    /// What it said last that was good.
    view: Option<View>,
    looked_up: Mono,
}

impl List {
    /// A list that is wrong is an error only at the start.
    fn open(path: &Path, placement: &Algorithm) -> (Self, Result<(), String>) {
        let mut list = Self {
            file: MemberFile::new(path.to_owned(), None),
            path: path.to_owned(),
            placement: placement.clone(),
            view: None,
            looked_up: clock::now().mono,
        };
        let said = list.read().unwrap_or(Ok(()));
        (list, said)
    }

    /// `None`: it says what it said last.
    fn read(&mut self) -> Option<Result<(), String>> {
        let said = self.file.look()?.and_then(|list| roster::judged((&self.path, list), &self.placement));
        Some(said.map(|view| self.view = Some(view)))
    }

    /// Whether there is something new to tell.
    fn look(&mut self) -> bool {
        let changed = match self.read() {
            Some(Err(why)) => {
                tracing::error!("the members stay as they were: {why}");
                return false;
            }
            said => said.is_some(),
        };
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
    pub fn start(config: &Config, sources: Sources, logging: &Logging) -> Result<Self, StartFault> {
        let signals =
            Signals::catch(&[SIGTERM, SIGINT, SIGHUP]).map_err(|e| format!("cannot catch signals: {e}"))?;
        let (listen, list) = asked(config).map_err(StartFault::Input)?;
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
        let control: Arc<Block> = Arc::default();
        let (membership, post) = ((&config.cluster, &config.openim), openim::news_to(address.clone()));
        let onlooker = Onlooker::start(membership, post, Arc::clone(&control))?;
        let polling = Polling::of(config.rpc.token.clone(), &TlsFiles::of(&config.rpc))?;
        let view = list.as_ref().and_then(|list| list.view.clone());
        let watched = onlooker.as_ref().map(|_| onlooker::place(&config.cluster, &config.openim));
        let (members, silent) = (view.as_ref().map(|view| view.members().len()), polling.off());
        let start = DispatchStart {
            config: Arc::new(config.clone()),
            driver,
            inbox,
            source: onlooker.is_some().then_some(control),
            assign: AssignStart { listener, roster: view.map(roster::looked_up), own: None, polling },
            http: operators,
            dropped_log_lines: logging.dropped(),
            events: news,
        };
        let thread = spawn(start).map_err(|e| format!("cannot start the dispatch thread: {e}"))?;
        let config = config.clone();
        let started = Self {
            assign,
            http,
            members,
            watched,
            silent,
            config,
            sources,
            signals,
            events,
            address,
            thread,
            list,
            onlooker,
        };
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
            list.file.forget(); // news again at the next look
        }
    }

    /// Settings of the assign API, its rules, and files of `rpc.tls_*` take effect, and nobody is cut; which ones do
    /// not, a restart of this process shows at no cost.
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
        self.onlooker.into_iter().for_each(Onlooker::end);
        let deadline = clock::now().mono.plus_ms(DRAIN_GRACE_MS);
        let mut is_told = false;
        while !self.thread.is_finished() {
            is_told = is_told || self.address.post(RpcMail::Drain(deadline)).is_ok();
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
