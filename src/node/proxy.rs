//! The main thread of `pinion proxy`: starts the threads, waits for signals and operators, drains.
//!
//! `admin` answers operators. A thread beside this one looks at the members (`rpc/proxy/members`); where they are in
//! etcd or Kubernetes, the control thread tells it (`onlooker`). Not here: what
//! is printed and asked for (`cli/proxy`).

mod admin;

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use self::admin::Admin;
use super::onlooker::{self, Onlooker};
use super::signals::Signals;
use super::{StartFault, bind_fault};
use crate::admission::{Admission, AdmissionLimits};
use crate::cluster::members::Scheme;
use crate::config::{ClusterConfig, OpenimConfig};
use crate::control::news::{News, NewsPost};
use crate::limits::{
    DRAIN_GRACE_MS, PROXY_LINGERING_MAX, PROXY_NEWS_MAX, PROXY_PIPES_MAX, PROXY_PROCESS_FILES_MAX,
    PROXY_REREAD_MS, PROXY_THREAD_FILES_MAX,
};
use crate::metrics::proxy::{ProxyBlock, ProxyMetric};
use crate::rpc::proxy::members::{Source, Watcher};
use crate::rpc::proxy::routes::Routes;
use crate::rpc::proxy::{Order, Plan, ProxyThread, Relay, ThreadStart};
use crate::shard::{Buffers, bind_client_listener, clock};
use crate::time::Mono;
use crate::wire::proxy::Version;

/// What the operator asked for.
#[derive(Clone, Debug)]
pub struct ProxyConfig {
    /// Where clients connect; port 0: any free one.
    pub listen: SocketAddr,
    /// The member list.
    pub members: Option<PathBuf>,
    /// How it places, if it does not say.
    pub scheme: Option<Scheme>,
    /// Whether and how the members are watched.
    pub cluster: ClusterConfig,
    /// Of this where etcd or Kubernetes is.
    pub openim: OpenimConfig,
    /// Threads with a listener each.
    pub threads: usize,
    /// `None`: as many as the open files allow.
    pub pairs_max: Option<u32>,
    /// Pairs of one address; 0: any number.
    pub address_pairs_max: u32,
    /// How bytes are moved.
    pub relay: Relay,
    /// PROXY header towards the members.
    pub header: Option<Version>,
    /// Of all sockets.
    pub buffers: Buffers,
    /// The request head must be there after so long.
    pub head_ms: u64,
    /// A member must take the connection within so long.
    pub connect_ms: u64,
    /// ... and begin to answer within so long.
    pub answer_ms: u64,
    /// A pair of which one side has ended and that moves nothing is closed after so long.
    pub half_closed_ms: u64,
    /// After SIGTERM pairs may stay so long.
    pub drain_ms: u64,
    /// Where operators are answered; port 0: any free one.
    pub http_listen: SocketAddr,
}

/// What a started proxy turned out to be, for the banner.
#[derive(Clone, Debug)]
pub struct ProxyFacts {
    /// Where clients connect; the real port.
    pub listen: SocketAddr,
    /// Where operators are answered; the real port.
    pub http: SocketAddr,
    /// Pairs at once.
    pub pairs_max: u32,
    /// Descriptors that this takes at most.
    pub files_needed: u64,
    /// How users are placed.
    pub placement: String,
    /// Where the members come from.
    pub from: String,
    /// Members in placement, and how many of them have an address.
    pub members: (usize, usize),
}

/// A running proxy.
pub struct Proxy {
    config: ProxyConfig,
    facts: ProxyFacts,
    threads: Arc<[ProxyThread]>,
    lists: Arc<ProxyBlock>,
    watcher: std::thread::Thread,
    onlooker: Option<Onlooker>,
    signals: Signals,
    admin: Admin,
}

/// Descriptors beside those of the pairs.
fn files_beside(threads: usize) -> u64 {
    let of_thread = PROXY_THREAD_FILES_MAX + (2 * PROXY_PIPES_MAX + PROXY_LINGERING_MAX) as u64;
    threads as u64 * of_thread + PROXY_PROCESS_FILES_MAX
}

/// How many pairs there may be, and the descriptors for that: two sockets for each.
///
/// # Errors
/// The limit of open files is too low for them; what to do.
fn pairs_for(config: &ProxyConfig, files: u64) -> Result<(u32, u64), String> {
    let beside = files_beside(config.threads);
    let fits = u32::try_from(files.saturating_sub(beside) / 2).unwrap_or(u32::MAX);
    let pairs = config.pairs_max.unwrap_or(fits);
    let needed = u64::from(pairs) * 2 + beside;
    if pairs == 0 || pairs > fits {
        let wanted = needed.max(beside + 2);
        return Err(format!(
            "{pairs} pairs take {wanted} open files, the limit is {files}; raise it (ulimit -Hn, LimitNOFILE=), or \
             lower --pairs-max to {fits} or --threads"
        ));
    }
    Ok((pairs, needed))
}

impl Proxy {
    /// Reads the member list, binds, starts the threads. `files` is the limit of open files in force.
    ///
    /// # Errors
    /// See [`StartFault`].
    pub fn start(config: ProxyConfig, files: u64, key: [u64; 2]) -> Result<Self, StartFault> {
        let system = |what: &str| {
            let what = what.to_owned();
            move |error: std::io::Error| StartFault::System(format!("{what}: {error}"))
        };
        let (pairs_max, files_needed) = pairs_for(&config, files).map_err(StartFault::Input)?;
        let (source, from) = source(&config)?;
        let (watcher, routes) = Watcher::start(source, clock::now().mono).map_err(StartFault::Input)?;
        let signals = Signals::catch(&[SIGTERM, SIGINT, SIGHUP]).map_err(system("signals"))?;
        let taken = |flag: &'static str, address: SocketAddr| {
            move |error: std::io::Error| StartFault::System(bind_fault(flag, address, &error))
        };
        let admin = Admin::bind(config.http_listen).map_err(taken("--http-listen", config.http_listen))?;
        let (listeners, listen) = listeners(&config).map_err(taken("--listen", config.listen))?;
        let plan = Arc::new(Plan {
            admission: Admission::with(AdmissionLimits {
                connections_max: pairs_max,
                address_connections_max: config.address_pairs_max,
                accepts_per_second_max: 0,
                key,
            }),
            relay: config.relay,
            header: config.header,
            buffers: config.buffers,
            head_ms: config.head_ms,
            connect_ms: config.connect_ms,
            answer_ms: config.answer_ms,
            half_closed_ms: config.half_closed_ms,
        });
        let members = routes.size();
        let routes = Arc::new(routes);
        let threads = listeners.into_iter().enumerate().map(|(number, listener)| {
            let (routes, plan) = (Arc::clone(&routes), Arc::clone(&plan));
            ProxyThread::start(ThreadStart { number, listener, routes, plan })
        });
        let threads: Arc<[ProxyThread]> =
            threads.collect::<std::io::Result<Vec<_>>>().map_err(system("threads"))?.into();
        let (placement, lists) = (watcher.placement().to_owned(), Arc::clone(&watcher.block));
        let told = Arc::clone(&threads);
        let (news, heard) = bounded(PROXY_NEWS_MAX);
        let thread = std::thread::Builder::new().name("members".to_owned());
        let thread = thread.spawn(move || watch(watcher, &heard, &told)).map_err(system("threads"))?;
        let watcher = thread.thread().clone();
        let post = news_to(news, watcher.clone());
        let onlooker = Onlooker::start((&config.cluster, &config.openim), post, Arc::default());
        let onlooker = onlooker.map_err(StartFault::Input)?;
        let http = admin.address();
        let facts = ProxyFacts { listen, http, pairs_max, files_needed, placement, from, members };
        Ok(Self { config, facts, threads, lists, watcher, onlooker, signals, admin })
    }

    /// What it turned out to be.
    pub fn facts(&self) -> &ProxyFacts {
        &self.facts
    }

    /// Serves until a signal, then drains.
    ///
    /// # Errors
    /// Threads did not end in time.
    pub fn run(mut self) -> Result<(), String> {
        let mut deadline: Option<Mono> = None;
        let mut untold: Vec<usize> = Vec::new();
        let mut said = Mono(0);
        loop {
            let rest = if deadline.is_some() { DRAIN_LOOK_MS } else { REST_MS };
            self.signals.wait_beside(self.admin.waits(), rest);
            let now = clock::now().mono;
            let signals: Vec<i32> = self.signals.pending().collect();
            for signal in signals {
                if signal == SIGHUP {
                    self.watcher.unpark();
                } else {
                    let at = if deadline.is_some() { now } else { now.plus_ms(self.config.drain_ms) };
                    tracing::info!(
                        pairs = self.sum(ProxyMetric::Pairs),
                        at_most_ms = at.since_ms(now),
                        "draining"
                    );
                    deadline = Some(at);
                    untold = (0..self.threads.len()).collect();
                }
            }
            let readiness = self.readiness(deadline);
            let blocks = self.blocks();
            self.admin.serve(now, readiness, &blocks);
            let Some(at) = deadline else { continue };
            untold.retain(|n| {
                self.threads.get(*n).is_some_and(|thread| thread.tell(Order::Drain(at)).is_err())
            });
            if self.threads.iter().all(ProxyThread::has_ended) {
                self.onlooker.into_iter().for_each(Onlooker::end);
                return Ok(());
            }
            if now.since_ms(at) > DRAIN_GRACE_MS {
                return Err("threads did not end in time".to_owned());
            }
            if now.since_ms(said) >= DRAIN_WORD_MS {
                said = now;
                tracing::info!(pairs = self.sum(ProxyMetric::Pairs), left_ms = at.since_ms(now), "draining");
            }
        }
    }

    fn sum(&self, metric: ProxyMetric) -> u64 {
        self.threads.iter().map(|thread| thread.block.value(metric)).sum()
    }

    fn blocks(&self) -> Vec<(String, Arc<ProxyBlock>)> {
        let threads = self.threads.iter().enumerate();
        let mut all: Vec<_> =
            threads.map(|(number, thread)| (number.to_string(), Arc::clone(&thread.block))).collect();
        all.push(("members".to_owned(), Arc::clone(&self.lists)));
        all.push(("main".to_owned(), Arc::clone(self.admin.block())));
        all
    }

    /// Whether new clients should come, and what there is to say about it.
    fn readiness(&self, deadline: Option<Mono>) -> Result<&'static str, &'static str> {
        let is_current = self.lists.value(ProxyMetric::MembersCurrent) == 1;
        match self.lists.value(ProxyMetric::Members) {
            _ if deadline.is_some() => Err("draining\n"),
            0 => Err("no member is known\n"),
            _ if is_current => Ok("ready\n"),
            _ => Ok("ready, but the members are not known as they are now: the last known ones stand\n"),
        }
    }
}

/// Main looks so often whether anything needs it, beside what wakes it.
const REST_MS: u64 = 1_000;
/// ... and in a drain, where nothing tells it that a thread has ended.
const DRAIN_LOOK_MS: u64 = 20;
/// In a drain the number of pairs is logged so often.
const DRAIN_WORD_MS: u64 = 5_000;

/// One listener for each thread, all on one port.
fn listeners(config: &ProxyConfig) -> std::io::Result<(Vec<TcpListener>, SocketAddr)> {
    let first = bind_client_listener(config.listen, config.buffers)?;
    let address = first.local_addr()?;
    let same = SocketAddr::new(config.listen.ip(), address.port());
    let mut all = vec![first];
    for _ in 1..config.threads {
        all.push(bind_client_listener(same, config.buffers)?);
    }
    Ok((all, address))
}

/// Hands news to who looks at the members, and wakes him.
fn news_to(news: Sender<Box<News>>, watcher: std::thread::Thread) -> NewsPost {
    Box::new(move |told| {
        let posted = news.try_send(Box::new(told)).map_err(|back| *back.into_inner());
        watcher.unpark();
        posted
    })
}

/// Where the members come from, and that in words.
fn source(config: &ProxyConfig) -> Result<(Source, String), StartFault> {
    let is_watched = onlooker::is_watched(&config.cluster);
    let place = || onlooker::place(&config.cluster, &config.openim);
    let list = config.members.as_ref().map(|path| path.display().to_string());
    let from = match (is_watched, list) {
        (true, Some(list)) => format!("{list} until there are others in {}", place()),
        (true, None) => place(),
        (false, Some(list)) => list,
        (false, None) => {
            let what = "to whom are clients brought? --members FILE, or --cluster-source etcd or kubernetes";
            return Err(StartFault::Input(what.to_owned()));
        }
    };
    let placed = Scheme::of(&config.cluster.placement);
    if is_watched && let Some(scheme) = config.scheme.filter(|scheme| *scheme != placed) {
        let what = format!(
            "--placement {} is how --members places, and --cluster-placement says {}: users would have other homes \
             once --cluster-source has told; leave --placement out, or give both the same",
            scheme.name(),
            config.cluster.placement.name()
        );
        return Err(StartFault::Input(what));
    }
    let list = config.members.clone().map(|path| (path, config.scheme));
    let watched = is_watched.then(|| config.cluster.placement.clone());
    Ok((Source { list, watched }, from))
}

/// Looks at the members until the process ends, and tells the threads.
fn watch(mut watcher: Watcher, news: &Receiver<Box<News>>, threads: &[ProxyThread]) {
    let mut routes: Option<Arc<Routes>> = None;
    let mut untold: Vec<usize> = Vec::new();
    loop {
        std::thread::park_timeout(Duration::from_millis(PROXY_REREAD_MS));
        let now = || clock::now().mono;
        let heard = news.try_iter().filter_map(|news| watcher.hear(*news, now())).last();
        if let Some(new) = watcher.look(now()).or(heard) {
            routes = Some(Arc::new(new));
            untold = (0..threads.len()).collect();
        }
        if let Some(routes) = &routes {
            let tell = |thread: &ProxyThread| thread.tell(Order::Route(Arc::clone(routes)));
            untold.retain(|n| threads.get(*n).is_some_and(|thread| tell(thread).is_err()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(pairs_max: Option<u32>) -> ProxyConfig {
        let nowhere: SocketAddr = "127.0.0.1:0".parse().unwrap();
        ProxyConfig {
            listen: nowhere,
            members: None,
            scheme: None,
            cluster: ClusterConfig::default(),
            openim: OpenimConfig::default(),
            threads: 2,
            pairs_max,
            address_pairs_max: 0,
            relay: Relay::Auto,
            header: None,
            buffers: Buffers { send_bytes: 0, receive_bytes: 0 },
            head_ms: 1,
            connect_ms: 1,
            answer_ms: 1,
            half_closed_ms: 1,
            drain_ms: 1,
            http_listen: nowhere,
        }
    }

    #[test]
    fn two_sockets_a_pair_beside_what_the_threads_need() {
        let beside = files_beside(2);
        assert_eq!(pairs_for(&config(None), beside + 21), Ok((10, beside + 20)));
        assert_eq!(pairs_for(&config(Some(10)), beside + 20), Ok((10, beside + 20)));
        let why = pairs_for(&config(Some(11)), beside + 21).unwrap_err();
        assert!(
            why.contains(&format!("take {} open files, the limit is {}", beside + 22, beside + 21)),
            "{why}"
        );
        assert!(why.contains("--pairs-max to 10"), "{why}");
        assert!(pairs_for(&config(None), beside + 1).is_err());
    }
}
