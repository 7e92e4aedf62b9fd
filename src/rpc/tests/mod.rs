//! An rpc thread over loopback, with shards played by one test thread: what callers and operators see.

mod admin;
mod channel;
mod channel_bounds;
mod channel_faults;
mod channel_links;
mod floods;
mod gate;
mod grpc;
mod hostile;
mod legacy;
mod openim;
mod peers;
mod peers_edges;
mod peers_hostile;
mod peers_tls;
mod push;
mod push_limits;
mod raw;
mod ring;
mod standard;
mod streaming;
mod upstream;
mod wire;

use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;

use bytes::Bytes;
use prost::Message;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::client::{CallError, call_once};
use super::*;
use crate::admission::NodeState;
use crate::config::{
    AuthConfig, Driver, LogConfig, RecordConfig, RecordMode, RpcConfig, ShardsConfig, WebsocketConfig,
};
use crate::control::plan::{ControlPlan, Discovery};
use crate::hub::follow::Page;
use crate::hub::mail::{
    DeviceOutcome, DeviceStatus, DeviceVerdict, Look, PushPart, RecipientVerdict, RpcOutcome, ShardMail,
    UserStatus,
};
use crate::hub::sight::{Sight, UserFacts};
use crate::ids::{Platform, RpcTicket, ShardId};
use crate::limits;
use crate::metrics::{Metric, Tally};
use crate::shard::NodeEvent;
use crate::shard::clock;
use crate::shard::mailbox::{Control, RpcAddress, RpcMail, ShardInbox, rpc_mailbox, shard_mailbox};
use crate::shard::news::node_news;
use crate::shard::thread::tests::on_each_of_the_drivers;
use crate::time::Mono;
use crate::wire::grpc::Status;

/// What the played shards do.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Shards {
    /// Every user whose id begins with `on` has an iOS and a Web connection.
    Answer,
    /// As `Answer`, but only shard 0 does.
    FirstAnswers,
    /// They do not run: mail piles up.
    Absent,
    /// Pushes and cancels are noted, nothing is answered.
    Mute,
}

impl Shards {
    fn answer(self, shard: ShardId) -> bool {
        self == Self::Answer || (self == Self::FirstAnswers && shard == ShardId(0))
    }
}

/// What a mute shard saw.
#[derive(Debug, PartialEq, Eq)]
enum Noted {
    Push(RpcTicket),
    Cancel(RpcTicket),
}

/// A running rpc thread.
struct Node {
    grpc: SocketAddr,
    http: SocketAddr,
    rpc: RpcAddress,
    block: Arc<Block>,
    pulses: Vec<Arc<Pulse>>,
    admission: Arc<Admission>,
    shards: Vec<ShardAddress>,
    noted: crossbeam_channel::Receiver<Noted>,
    /// Of absent shards.
    inboxes: Vec<ShardInbox>,
    threads: Vec<JoinHandle<()>>,
}

const SHARDS: u16 = 2;

impl Node {
    fn start(driver: DriverKind, behaviour: Shards) -> Self {
        Self::start_with(driver, behaviour, config())
    }

    fn start_with(driver: DriverKind, behaviour: Shards, config: Config) -> Self {
        let (rpc, inbox) = rpc_mailbox(SHARDS).unwrap();
        let (addresses, inboxes): (Vec<_>, Vec<_>) = (0..SHARDS).map(|_| shard_mailbox().unwrap()).unzip();
        let listen = || bind_listener("127.0.0.1:0".parse().unwrap()).unwrap();
        let (grpc, http) = (listen(), listen());
        let (events, news) = node_news(16).unwrap();
        let block = Arc::new(Block::default());
        let pulses: Vec<Arc<Pulse>> = (0..SHARDS).map(|_| Arc::default()).collect();
        let admission = Arc::new(Admission::new(10));
        let (note, noted) = crossbeam_channel::unbounded();
        let mut node = Self {
            grpc: grpc.local_addr().unwrap(),
            http: http.local_addr().unwrap(),
            rpc: rpc.clone(),
            block: Arc::clone(&block),
            pulses: pulses.clone(),
            admission: Arc::clone(&admission),
            shards: addresses.clone(),
            noted,
            inboxes: Vec::new(),
            threads: Vec::new(),
        };
        let start = RpcStart {
            id: RpcId(0),
            cpu: None,
            openim: (config.backend == crate::config::Backend::Openim).then(without_control),
            config: Arc::new(config),
            driver,
            inbox,
            shards: addresses,
            ownership: ownership(),
            admission,
            grpc,
            membership: None,
            http: Some(http),
            assign: None,
            block: Arc::clone(&block),
            blocks: vec![("0".to_owned(), clients()), ("rpc0".to_owned(), block)],
            pulses,
            dropped_log_lines: None,
            events,
        };
        node.threads.push(spawn(start).unwrap());
        if behaviour == Shards::Absent {
            node.inboxes = inboxes;
        } else {
            let player = std::thread::Builder::new().spawn(move || play(&inboxes, &rpc, behaviour, &note));
            node.threads.push(player.unwrap());
        }
        let first = news.recv_timeout(std::time::Duration::from_secs(60)).unwrap();
        assert!(matches!(first, NodeEvent::RpcReady(RpcId(0))), "{first:?}");
        node
    }

    /// A call with good metadata of an administrator.
    fn call<M: Message + Default>(&self, method: &str, request: &impl Message) -> Result<M, Status> {
        self.call_with(method, &[("operationid", "op"), ("opuserid", "imAdmin")], request)
    }

    fn call_with<M: Message + Default>(
        &self,
        method: &str,
        metadata: &[(&str, &str)],
        request: &impl Message,
    ) -> Result<M, Status> {
        self.call_path(&format!("/openim.msggateway.msgGateway/{method}"), metadata, request)
    }

    fn call_path<M: Message + Default>(
        &self,
        path: &str,
        metadata: &[(&str, &str)],
        request: &impl Message,
    ) -> Result<M, Status> {
        match call_once(self.grpc, path, metadata, request.encode_to_vec().into(), 60_000) {
            Ok(answer) => Ok(M::decode(answer).unwrap()),
            Err(CallError::Refused(status)) => Err(status),
            Err(other) => panic!("{path}: {other}"),
        }
    }

    /// Waits until a count of the rpc thread reaches a value.
    fn await_count(&self, metric: Metric, at_least: u64) {
        let start = clock::now().mono;
        while self.block.value(metric) < at_least {
            let waited = clock::now().mono.since_ms(start);
            assert!(waited < 60_000, "{metric:?} stays at {}", self.block.value(metric));
            std::thread::yield_now();
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        self.rpc.post(RpcMail::Drain(clock::now().mono.plus_ms(2_000))).unwrap();
        if self.inboxes.is_empty() {
            self.shards[0].control(Control::Drain(Mono(0))).unwrap();
        }
        for thread in self.threads.drain(..) {
            thread.join().unwrap();
        }
    }
}

/// A control thread that ends at once: its news come from the test.
fn without_control() -> UpstreamStart {
    let plan = ControlPlan {
        discovery: Discovery::Static(Vec::new()),
        redis: None,
        webhooks: None,
        membership: None,
        news: Box::new(|_| Ok(())),
        now: clock::now,
        block: Arc::default(),
    };
    let (control, _) = crate::control::spawn(plan).unwrap();
    UpstreamStart { own: "127.0.0.1:1".parse().unwrap(), control }
}

fn ownership() -> Ownership {
    Ownership::new([1, 2], SHARDS)
}

fn config() -> Config {
    Config {
        cluster: crate::config::ClusterConfig::default(),
        assign: crate::config::AssignConfig::default(),
        backend: crate::config::Backend::Embedded,
        openim: crate::config::OpenimConfig::default(),
        websocket: WebsocketConfig {
            address: "::".parse().unwrap(),
            port: 0,
            connections_max: 10,
            handshakes_max: 10,
            send_buffer_bytes: 32_768,
            receive_buffer_bytes: 32_768,
        },
        admission: crate::config::AdmissionConfig::default(),
        rpc: RpcConfig { legacy_service: true, ..RpcConfig::at("127.0.0.1:0".parse().unwrap()) },
        http_listen: "127.0.0.1:0".parse().unwrap(),
        http_token: None,
        shards: ShardsConfig {
            count: SHARDS,
            rpc_count: 1,
            pin: false,
            driver: Driver::Auto,
            engine: crate::config::Engine::Auto,
            huge_pages: false,
            owner_key: [1, 2],
        },
        auth: AuthConfig { secret: "openIM123".to_owned(), admin_users: vec!["imAdmin".to_owned()] },
        login_policy: 1,
        lenient: false,
        outbox_bytes_max: limits::OUTBOX_BYTES_MAX,
        outbox_frames_max: limits::OUTBOX_FRAMES_MAX,
        shard_outbox_bytes_max: limits::SHARD_OUTBOX_BYTES_MAX,
        rates: Default::default(),
        drain_deadline_ms: 1_000,
        drain_evict_per_s: None,
        stall_abort_ms: limits::STALL_ABORT_MS,
        record: RecordConfig { mode: RecordMode::Off, dir: ".".into(), bytes_max: 0 },
        log: LogConfig { level: "info".to_owned(), json: false, users: crate::config::UserNames::Plain },
        planted: Default::default(),
    }
}

/// What a shard publishes that has connections of two variants.
fn clients() -> Arc<Block> {
    let (mut tally, block) = (Tally::default(), Block::default());
    tally.set(Metric::RegisteredGob, 1);
    tally.set(Metric::RegisteredJsonGzip, 1);
    block.publish(&tally);
    Arc::new(block)
}

/// Plays all shards until the first of them is told to drain.
fn play(
    inboxes: &[ShardInbox],
    rpc: &RpcAddress,
    behaviour: Shards,
    note: &crossbeam_channel::Sender<Noted>,
) {
    let doorbells: Vec<_> = inboxes.iter().map(|i| i.doorbell_fd().unwrap()).collect();
    loop {
        for (shard, inbox) in (0u16..).map(ShardId).zip(inboxes) {
            while let Some(control) = inbox.next_control() {
                match control {
                    Control::Hub(ShardMail::CancelPush(ticket)) => note.send(Noted::Cancel(ticket)).unwrap(),
                    Control::Hub(mail) if behaviour.answer(shard) => answer(shard, &mail, rpc),
                    Control::Hub(_) => {}
                    _ => return,
                }
            }
            while let Some(mail) = inbox.next_push() {
                match &mail {
                    _ if behaviour.answer(shard) => answer(shard, &mail, rpc),
                    ShardMail::Push(push) => note.send(Noted::Push(push.ticket.unwrap())).unwrap(),
                    _ => {}
                }
            }
        }
        if inboxes.iter().all(ShardInbox::prepare_sleep) {
            let mut fds: Vec<_> = doorbells.iter().map(|d| PollFd::new(d, PollFlags::IN)).collect();
            let second = Timespec { tv_sec: 1, tv_nsec: 0 };
            poll(&mut fds, Some(&second)).unwrap();
        }
        inboxes.iter().for_each(ShardInbox::woken);
    }
}

fn is_on(user: &str) -> bool {
    user.starts_with("on")
}

fn devices(user: &str) -> Vec<Platform> {
    if is_on(user) { vec![Platform::IOS, Platform::WEB] } else { Vec::new() }
}

fn answer(shard: ShardId, mail: &ShardMail, rpc: &RpcAddress) {
    let (ticket, outcome) = match mail {
        ShardMail::Push(push) => {
            let Some(ticket) = push.ticket else { return };
            let device = |platform| DeviceVerdict {
                number: 0,
                platform,
                connection_id: [7; 16],
                outcome: if platform == Platform::IOS {
                    DeviceOutcome::Queued
                } else {
                    DeviceOutcome::Dropped
                },
            };
            let verdict = |r: &crate::hub::mail::Recipient| {
                RecipientVerdict::of_slot(r.slot, devices(&r.user).into_iter().map(device).collect())
            };
            let verdicts = push.audience.listed().iter().map(verdict).collect();
            (ticket, RpcOutcome::Push(PushPart::whole(verdicts)))
        }
        ShardMail::Kick(kick) => {
            let connections = u32::try_from(kick.users.iter().filter(|u| is_on(u)).count()).unwrap();
            (kick.ticket, RpcOutcome::Kicked { connections })
        }
        ShardMail::RemoteLogin(login) => (login.ticket, RpcOutcome::RemoteLogin),
        ShardMail::OnlineStatus(status) => {
            let device = |platform| DeviceStatus {
                platform,
                connection_id: "c1".into(),
                background: false,
                token: "t1".into(),
                time: 0,
            };
            let found = status.users.iter().filter(|r| is_on(&r.user)).map(|r| UserStatus {
                slot: r.slot,
                devices: devices(&r.user).into_iter().map(device).collect(),
            });
            (status.ticket, RpcOutcome::OnlineStatus(found.collect()))
        }
        ShardMail::Look(look) => (look.ticket, RpcOutcome::Sight(sight(shard, &look.user, look.look))),
        ShardMail::PresenceNews(_)
        | ShardMail::CancelPush(_)
        | ShardMail::Policy(_)
        | ShardMail::Cluster(_) => return,
    };
    let outcome = Box::new(outcome);
    rpc.post(RpcMail::Outcome { shard, ticket, outcome }).unwrap();
}

/// Users whose id begins with `on` are traced, others are not; the page echoes the question.
fn sight(shard: ShardId, user: &str, look: Look) -> Sight {
    match look {
        Look::Who => Sight::Who(UserFacts { user: user.into(), shard, connections: Vec::new(), left_out: 3 }),
        Look::Follow { for_ms } if is_on(user) => Sight::Page(Page { left_ms: for_ms, ..Page::default() }),
        Look::Page { cursor } if is_on(user) => Sight::Page(Page { next: cursor, ..Page::default() }),
        Look::Follow { .. } => Sight::TooMany,
        Look::Page { .. } => Sight::NotFollowed,
    }
}

/// Runs a test on every driver of this machine.
fn on_each_driver(behaviour: Shards, test: impl Fn(&Node) + Sync) {
    on_each_of_the_drivers(|driver| test(&Node::start(driver, behaviour)));
}
