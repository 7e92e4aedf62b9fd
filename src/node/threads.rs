//! The start: mailboxes first, then rpc threads and shards, and the clients' listeners only when all of them run.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::RecvTimeoutError;
use tracing_appender::non_blocking::ErrorCounter;

use super::{NodeState, Rpc, Shard, bind_fault, claim};
use super::{openim, roster};
use crate::admission::Admission;
use crate::backend::embedded::TokenCheck;
use crate::config::cluster::MembershipSource;
use crate::config::layout::{Counts, Layout, Pinning, layout};
use crate::config::machine::Machine;
use crate::config::policy::TlsFiles;
use crate::config::{Backend, Config};
use crate::ids::{Ownership, RpcId, ShardId};
use crate::limits::{ADOPT_RETURN_MS, NODE_EVENTS_MAX, STALL_WATCH_MS, START_DEADLINE_MS};
use crate::metrics::Block;
use crate::placement::view::View;
use crate::rpc::assign::{self, AssignStart, Polling};
use crate::rpc::{self, RpcStart, UpstreamStart};
use crate::shard::mailbox::{
    Control, RpcAddress, RpcInbox, ShardAddress, ShardInbox, rpc_mailbox, shard_mailbox,
};
use crate::shard::news::{NodeInbox, NodeNews, node_news};
use crate::shard::pulse::Pulse;
use crate::shard::stall::Watched;
use crate::shard::{self, Base, DriverKind, EngineKind, NodeEvent, ShardStart, clock};

/// Everything that runs.
pub(super) struct Started {
    pub(super) config: Arc<Config>,
    pub(super) admission: Arc<Admission>,
    pub(super) layout: Layout,
    pub(super) websocket: SocketAddr,
    pub(super) grpc: SocketAddr,
    pub(super) http: SocketAddr,
    pub(super) assign: Option<SocketAddr>,
    pub(super) shards: Vec<Shard>,
    pub(super) rpcs: Vec<Rpc>,
    pub(super) events: NodeInbox,
    /// With `backend: openim` only.
    pub(super) control: Option<openim::Control>,
    pub(super) watched: Vec<Watched>,
    /// The members of the cluster, if they are known already.
    pub(super) view: Option<Box<View>>,
    /// Of the shards.
    pub(super) blocks: Vec<Arc<Block>>,
}

/// What all threads are given alike.
struct Common {
    config: Arc<Config>,
    driver: DriverKind,
    engine: EngineKind,
    layout: Layout,
    ownership: Ownership,
    admission: Arc<Admission>,
    shard_addresses: Vec<ShardAddress>,
    rpc_addresses: Vec<RpcAddress>,
    shard_blocks: Vec<Arc<Block>>,
    rpc_blocks: Vec<Arc<Block>>,
    control_block: Arc<Block>,
    pulses: Vec<Arc<Pulse>>,
    dropped_log_lines: ErrorCounter,
    events: NodeNews,
}

/// Starts all threads and waits until they serve; among others also until these know of this node, or `ended` says that
/// somebody does not want to wait.
pub(super) fn start(
    config: Arc<Config>,
    machine: &Machine,
    base: Base,
    dropped_log_lines: ErrorCounter,
    mut ended: impl FnMut() -> bool,
) -> Result<Started, String> {
    let (common, shard_inboxes, rpc_inboxes, events) = prepare(config, machine, base, dropped_log_lines)?;
    let Serving { rpcs, grpc, http, assign, control } = start_rpcs(&common, rpc_inboxes)?;
    let mut shards = start_shards(&common, shard_inboxes)?;
    let mut early = await_ready(&events, shards.len() + rpcs.len())?;
    if common.is_clustered() {
        let mut hear = |early: &mut Early| hear(&events, early, &mut ended);
        await_cluster(&mut early, &mut hear)?;
        if common.config.cluster.is_adopted() {
            await_address(&common.config, &mut early, &mut hear)?;
        }
    }
    let view = early.view;
    let websocket = listen(&common, &mut shards)?;
    let watched = common.watched();
    common.admission.set_state(NodeState::Ready);
    if let Some(control) = &control {
        control.thread.register();
    }
    Ok(Started {
        blocks: common.shard_blocks,
        view,
        config: common.config,
        admission: common.admission,
        layout: common.layout,
        websocket,
        grpc,
        http,
        assign,
        shards,
        rpcs,
        events,
        control,
        watched,
    })
}

/// The rpc threads, where they listen, and the control thread.
struct Serving {
    rpcs: Vec<Rpc>,
    grpc: SocketAddr,
    http: SocketAddr,
    assign: Option<SocketAddr>,
    control: Option<openim::Control>,
}

type Prepared = (Common, Vec<ShardInbox>, Vec<RpcInbox>, NodeInbox);

fn prepare(
    config: Arc<Config>,
    machine: &Machine,
    base: Base,
    dropped_log_lines: ErrorCounter,
) -> Result<Prepared, String> {
    let counts = Counts { shards: config.shards.count, rpcs: rpc_threads(&config) };
    let pinning = if config.shards.pin { Pinning::On } else { Pinning::Off };
    let mailbox = |e: std::io::Error| format!("cannot make a mailbox: {e}");
    let (mut shard_addresses, mut shard_inboxes) = (Vec::new(), Vec::new());
    for _ in 0..counts.shards {
        let (address, inbox) = shard_mailbox().map_err(mailbox)?;
        shard_addresses.push(address);
        shard_inboxes.push(inbox);
    }
    let (mut rpc_addresses, mut rpc_inboxes) = (Vec::new(), Vec::new());
    for _ in 0..counts.rpcs {
        let (address, inbox) = rpc_mailbox(counts.shards).map_err(mailbox)?;
        rpc_addresses.push(address);
        rpc_inboxes.push(inbox);
    }
    let (events, news) = node_news(NODE_EVENTS_MAX).map_err(mailbox)?;
    let common = Common {
        driver: base.driver,
        engine: base.engine,
        layout: layout(machine, counts, pinning),
        ownership: Ownership::new(config.shards.owner_key, counts.shards),
        admission: Arc::new(Admission::with(shard::admission_limits(&config))),
        shard_addresses,
        rpc_addresses,
        shard_blocks: (0..counts.shards).map(|_| Arc::default()).collect(),
        control_block: Arc::default(),
        rpc_blocks: (0..counts.rpcs).map(|_| Arc::default()).collect(),
        pulses: (0..counts.shards).map(|_| Arc::default()).collect(),
        dropped_log_lines,
        events,
        config,
    };
    Ok((common, shard_inboxes, rpc_inboxes, news))
}

/// Among others there is one: the router between nodes is one, and all pushes and peers go through it.
fn rpc_threads(config: &Config) -> u16 {
    let asked = config.shards.rpc_count;
    if config.cluster.source == MembershipSource::None || asked == 1 {
        return asked;
    }
    tracing::info!(
        asked,
        "shards.rpc_count counts for a node that is alone: in a cluster there is one rpc thread"
    );
    1
}

impl Common {
    /// The blocks of all threads, with the value of their `shard` label.
    fn blocks(&self) -> Vec<(String, Arc<Block>)> {
        let shards = self.shard_blocks.iter().enumerate().map(|(n, block)| (n.to_string(), block));
        let rpcs = self.rpc_blocks.iter().enumerate().map(|(n, block)| (format!("rpc{n}"), block));
        let control = (self.config.backend == Backend::Openim || self.is_clustered())
            .then(|| ("control".to_owned(), &self.control_block));
        shards.chain(rpcs).chain(control).map(|(label, block)| (label, Arc::clone(block))).collect()
    }

    /// Whether there may be other nodes.
    fn is_clustered(&self) -> bool {
        self.config.cluster.source != MembershipSource::None
    }

    /// The shards as the stall watcher sees them.
    fn watched(&self) -> Vec<Watched> {
        let parts = self.pulses.iter().zip(&self.shard_blocks).zip(&self.shard_addresses);
        let watched = parts.zip(0..).map(|(((pulse, block), address), shard)| Watched {
            shard: ShardId(shard),
            pulse: Arc::clone(pulse),
            block: Arc::clone(block),
            address: address.clone(),
        });
        watched.collect()
    }
}

/// Starts the rpc threads; gives the addresses of gRPC and HTTP as bound.
fn start_rpcs(common: &Common, inboxes: Vec<RpcInbox>) -> Result<Serving, String> {
    let bind = |key, address| {
        claim(address)
            .and_then(|()| rpc::bind_listener(address))
            .and_then(|listener| Ok((listener.local_addr()?, listener)))
            .map_err(|e| bind_fault(key, address, &e))
    };
    // The first bind decides what port 0 means.
    let (grpc, first) = bind("rpc.listen", common.config.rpc.listen)?;
    let (http, admin) = bind("http.listen", common.config.http_listen)?;
    let control = match common.rpc_addresses.first() {
        Some(rpc) => {
            openim::start(&common.config, (grpc, http), rpc.clone(), Arc::clone(&common.control_block))?
        }
        None => None,
    };
    let (assign, mut assign_start) = start_assign(common)?.unzip();
    let (mut first, mut admin) = (Some(first), Some(admin));
    let mut rpcs = Vec::new();
    for (n, inbox) in inboxes.into_iter().enumerate() {
        let listener = match first.take() {
            Some(listener) => listener,
            None => rpc::bind_listener(grpc).map_err(|e| bind_fault("rpc.listen", grpc, &e))?,
        };
        let start = RpcStart {
            id: RpcId(u16::try_from(n).unwrap_or(u16::MAX)), // as many as a u16 count
            cpu: common.layout.rpcs.get(n).copied().flatten(),
            config: Arc::clone(&common.config),
            driver: common.driver,
            inbox,
            shards: common.shard_addresses.clone(),
            ownership: common.ownership.clone(),
            admission: Arc::clone(&common.admission),
            grpc: listener,
            membership: control.as_ref().filter(|_| common.is_clustered()).map(|c| c.address.clone()),
            openim: control
                .as_ref()
                .filter(|_| common.config.backend == Backend::Openim)
                .map(|c| UpstreamStart { own: c.own, control: c.address.clone() }),
            http: admin.take(), // thread 0 only
            assign: assign_start.take(),
            block: common.rpc_blocks.get(n).cloned().unwrap_or_default(),
            blocks: common.blocks(),
            pulses: common.pulses.clone(),
            dropped_log_lines: Some(common.dropped_log_lines.clone()),
            events: common.events.clone(),
        };
        let thread = rpc::spawn(start).map_err(|e| format!("cannot start rpc thread {n}: {e}"))?;
        let address = common.rpc_addresses.get(n).cloned();
        rpcs.extend(address.map(|address| Rpc { address, thread }));
    }
    Ok(Serving { rpcs, grpc, http, assign, control })
}

/// The assign API of rpc thread 0, and where it listens, if it is configured.
fn start_assign(common: &Common) -> Result<Option<(SocketAddr, AssignStart)>, String> {
    let Some(address) = common.config.assign.listen else { return Ok(None) };
    let fault = |e| bind_fault("assign.listen", address, &e);
    let listener = claim(address).and_then(|()| assign::bind(address)).map_err(fault)?;
    let bound = listener.local_addr().map_err(fault)?;
    let roster = roster::of(&common.config)?;
    let rpc = &common.config.rpc;
    let polling = Polling::of(rpc.token.clone(), &TlsFiles::of(rpc))?;
    Ok(Some((bound, AssignStart { listener, roster, own: roster::own_id(&common.config), polling })))
}

fn start_shards(common: &Common, inboxes: Vec<ShardInbox>) -> Result<Vec<Shard>, String> {
    let mut shards = Vec::new();
    for (n, inbox) in inboxes.into_iter().enumerate() {
        let pulse = common.pulses.get(n).cloned().unwrap_or_default();
        let block = common.shard_blocks.get(n).cloned().unwrap_or_default();
        let start = ShardStart {
            id: ShardId(u16::try_from(n).unwrap_or(u16::MAX)), // as many as a u16 count
            cpu: common.layout.shards.get(n).copied().flatten(),
            config: Arc::clone(&common.config),
            driver: common.driver,
            engine: common.engine,
            inbox,
            shards: common.shard_addresses.clone(),
            rpcs: common.rpc_addresses.clone(),
            tokens: token_check(&common.config),
            ownership: common.ownership.clone(),
            admission: Arc::clone(&common.admission),
            block,
            pulse,
            events: common.events.clone(),
        };
        let thread = shard::spawn(start).map_err(|e| format!("cannot start shard {n}: {e}"))?;
        let address = common.shard_addresses.get(n).cloned();
        shards.extend(address.map(|address| Shard {
            address,
            listener: None,
            adopted: BTreeMap::new(),
            untold: VecDeque::new(),
            thread,
        }));
    }
    Ok(shards)
}

/// A shard's own check of tokens, unless OpenIM's services are asked. A planted upstream is late with them, too: it
/// must be asked.
fn token_check(config: &Config) -> Option<TokenCheck> {
    let own = config.backend == Backend::Embedded && config.planted.upstream.is_none();
    let check = || TokenCheck::new(&config.auth.secret);
    let among_others = config.cluster.source != MembershipSource::None;
    own.then(|| if among_others { check().among_others() } else { check() })
}

/// What the router says of the cluster while the node starts.
#[derive(Default)]
struct Early {
    /// Clients may come.
    open: bool,
    /// The members, as told last.
    view: Option<Box<View>>,
}

/// Waits until so many threads have said that they run.
fn await_ready(events: &NodeInbox, threads: usize) -> Result<Early, String> {
    let deadline = clock::now().mono.plus_ms(START_DEADLINE_MS);
    let (mut ready, mut early) = (0, Early::default());
    while ready < threads {
        let left = Duration::from_millis(deadline.since_ms(clock::now().mono));
        match events.recv_timeout(left) {
            Ok(NodeEvent::ShardReady(_) | NodeEvent::RpcReady(_)) => ready += 1,
            Ok(NodeEvent::Failed(why)) => return Err(why),
            Ok(NodeEvent::ClusterOpen) => early.open = true,
            Ok(NodeEvent::Order { .. }) => {} // whoever ordered it hears nothing and asks again
            Ok(NodeEvent::View(newest)) => early.view = Some(newest),
            Ok(NodeEvent::ShardDrained(shard)) => return Err(format!("shard {} ended early", shard.0)),
            Err(RecvTimeoutError::Disconnected) => return Err("the threads ended".into()),
            Err(RecvTimeoutError::Timeout) => {
                return Err(format!(
                    "{} of {threads} threads were not ready after {START_DEADLINE_MS} ms",
                    threads - ready
                ));
            }
        }
    }
    Ok(early)
}

/// One turn of a wait for other nodes; an error ends the start.
fn hear(events: &NodeInbox, early: &mut Early, mut ended: impl FnMut() -> bool) -> Result<(), String> {
    if ended() {
        return Err("ended while it waited for the other nodes of the cluster".into());
    }
    match events.recv_timeout(Duration::from_millis(STALL_WATCH_MS)) {
        Ok(NodeEvent::ClusterOpen) => early.open = true,
        Ok(NodeEvent::View(newest)) => early.view = Some(newest),
        Ok(NodeEvent::Failed(why)) => return Err(why),
        Ok(_) | Err(RecvTimeoutError::Timeout) => {}
        Err(RecvTimeoutError::Disconnected) => return Err("the threads ended".into()),
    }
    Ok(())
}

/// Waits until the node has met the other members (M5): before that a push could be called complete by a node that does
/// not know of this one. It may take as long as they need; `/readyz` and the log say for whom it waits.
fn await_cluster(
    early: &mut Early,
    hear: &mut impl FnMut(&mut Early) -> Result<(), String>,
) -> Result<(), String> {
    while !early.open {
        hear(early)?;
    }
    Ok(())
}

/// A node of this host that has served this node's clients gives their address back when it hears that this one is
/// here. Until then SO_REUSEPORT would deal clients out between the two.
fn await_address(
    config: &Config,
    early: &mut Early,
    hear: &mut impl FnMut(&mut Early) -> Result<(), String>,
) -> Result<(), String> {
    let address = SocketAddr::new(config.websocket.address, config.websocket.port);
    let begun = clock::now().mono;
    let mut said = false;
    while let Err(fault) = claim(address) {
        let in_use = fault.kind() == std::io::ErrorKind::AddrInUse;
        if !in_use || clock::now().mono.since_ms(begun) > ADOPT_RETURN_MS {
            return Err(bind_fault("websocket.port", address, &fault));
        }
        if !std::mem::replace(&mut said, true) {
            tracing::info!(%address, "somebody listens on this node's address; waiting until it is given back");
        }
        hear(early)?;
    }
    Ok(())
}

/// Binds a listener per shard and hands it over; from now on clients are accepted.
fn listen(common: &Common, shards: &mut [Shard]) -> Result<SocketAddr, String> {
    let mut address = SocketAddr::new(common.config.websocket.address, common.config.websocket.port);
    for shard in shards {
        let fault = |e: std::io::Error| bind_fault("websocket.port", address, &e);
        let listener = shard::bind_listener(&common.config, address.port()).map_err(fault)?;
        let bound = listener.local_addr().map_err(fault)?;
        shard.listener = Some(listener.try_clone().map_err(fault)?);
        let sent = shard.address.control(Control::Listen(listener));
        sent.map_err(|_| "a shard's control lane is full at start".to_owned())?;
        address.set_port(bound.port());
    }
    Ok(address)
}
