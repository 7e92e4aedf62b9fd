//! A small node for tests: real shards with real hubs, and a thread that stands for the rpc side. It accepts every
//! token of the form `user:platform` and keeps the verdicts.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Receiver, bounded};
use tungstenite::WebSocket;
use tungstenite::client::IntoClientRequest;

use crate::admission::Admission;
use crate::config::Config;
use crate::hub::mail::RpcOutcome;
use crate::hub::upstream::{UpstreamError, UpstreamOutcome, UpstreamReply, UpstreamRequest};
use crate::ids::{Ownership, RpcId, RpcTicket, ShardId, SlotId};
use crate::metrics::{Block, Metric};
use crate::shard::clock;
use crate::shard::mailbox::{Control, RpcInbox, RpcMail, ShardAddress, rpc_mailbox, shard_mailbox};
use crate::shard::news::{NodeInbox, node_news};
use crate::shard::pulse::Pulse;
use crate::shard::{Base, NodeEvent, ShardStart, admission_limits, bind_listener, spawn};

pub(super) const SHARDS: u16 = 2;

/// Ends its rpc thread when dropped; the shards end with the test process, or by [`Node::drain`].
pub(super) struct Node {
    pub(super) shards: Vec<ShardAddress>,
    pub(super) blocks: Vec<Arc<Block>>,
    /// One port per shard, so that a test chooses who accepts.
    pub(super) ports: Vec<u16>,
    pub(super) admission: Arc<Admission>,
    pub(super) ownership: Ownership,
    pub(super) verdicts: Receiver<RpcOutcome>,
    events: NodeInbox,
    threads: Vec<JoinHandle<()>>,
    stop: Arc<AtomicBool>,
}

impl Node {
    pub(super) fn start(base: Base, change: impl FnOnce(&mut Config)) -> Self {
        let mut config = super::config();
        change(&mut config);
        let config = Arc::new(config);
        let ownership = Ownership::new(config.shards.owner_key, SHARDS);
        let admission = Arc::new(Admission::with(admission_limits(&config)));
        let (rpc, rpc_inbox) = rpc_mailbox(SHARDS).unwrap();
        let (event_sender, events) = node_news(64).unwrap();
        let (shards, inboxes): (Vec<_>, Vec<_>) = (0..SHARDS).map(|_| shard_mailbox().unwrap()).unzip();
        let blocks: Vec<Arc<Block>> = (0..SHARDS).map(|_| Arc::default()).collect();
        let mut threads = Vec::new();
        for (n, inbox) in inboxes.into_iter().enumerate() {
            threads.push(
                spawn(ShardStart {
                    id: ShardId(u16::try_from(n).unwrap()),
                    cpu: None,
                    config: Arc::clone(&config),
                    driver: base.driver,
                    engine: base.engine,
                    inbox,
                    shards: shards.clone(),
                    rpcs: vec![rpc.clone()],
                    tokens: None, // the stand-in has its own idea of a token
                    ownership: ownership.clone(),
                    admission: Arc::clone(&admission),
                    block: Arc::clone(&blocks[n]),
                    pulse: Arc::new(Pulse::default()),
                    events: event_sender.clone(),
                })
                .unwrap(),
            );
        }
        for _ in 0..SHARDS {
            let event = events.recv_timeout(Duration::from_secs(60)).unwrap();
            assert!(matches!(event, NodeEvent::ShardReady(_)), "{event:?}");
        }
        let mut ports = Vec::new();
        for shard in &shards {
            let listener = bind_listener(&config, 0).unwrap();
            ports.push(listener.local_addr().unwrap().port());
            shard.control(Control::Listen(listener)).unwrap();
        }
        let stop = Arc::new(AtomicBool::new(false));
        let verdicts = answer_calls(rpc_inbox, shards.clone(), Arc::clone(&stop));
        Self { shards, blocks, ports, admission, ownership, verdicts, events, threads, stop }
    }

    /// The n-th user that this shard owns.
    pub(super) fn user_of(&self, shard: u16, n: usize) -> String {
        (0..)
            .map(|i| format!("u{i}"))
            .filter(|user| self.ownership.owner(user) == ShardId(shard))
            .nth(n)
            .unwrap()
    }

    /// Sums a metric over the shards.
    pub(super) fn metric(&self, metric: Metric) -> u64 {
        self.blocks.iter().map(|block| block.value(metric)).sum()
    }

    /// Waits until a metric has this value: shards publish once a tick.
    pub(super) fn await_metric(&self, metric: Metric, value: u64) {
        await_that(&format!("{metric:?} = {value}"), || self.metric(metric) == value);
    }

    /// Ends the stall of a shard that was told to [`Control::Stall`].
    pub(super) fn end_stall(&self, shard: usize) {
        self.threads[shard].thread().unpark();
    }

    /// Drains all shards and joins them.
    pub(super) fn drain(mut self, ms: u64) {
        for shard in &self.shards {
            let deadline = clock::now().mono.plus_ms(ms);
            shard.control(Control::Drain(deadline)).unwrap();
        }
        for _ in 0..SHARDS {
            let event = self.events.recv_timeout(Duration::from_secs(60)).unwrap();
            assert!(matches!(event, NodeEvent::ShardDrained(_)), "{event:?}");
        }
        for thread in self.threads.drain(..) {
            thread.join().unwrap();
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// A ticket for mails of tests; the stand-in does not look at it.
pub(super) fn ticket() -> RpcTicket {
    RpcTicket { rpc: RpcId(0), slot: SlotId { index: 0, generation: 0 } }
}

/// Waits for a condition, a minute at most.
pub(super) fn await_that(what: &str, condition: impl Fn() -> bool) {
    let start = clock::now().mono;
    while !condition() {
        assert!(clock::now().mono.since_ms(start) < 60_000, "still not so: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn answer_calls(inbox: RpcInbox, shards: Vec<ShardAddress>, stop: Arc<AtomicBool>) -> Receiver<RpcOutcome> {
    let (sender, receiver) = bounded(1024);
    let body = move || {
        while !stop.load(Ordering::Relaxed) {
            match inbox.next() {
                Some(RpcMail::Call(call)) => {
                    let Some(ticket) = call.ticket else { continue };
                    let outcome = match &call.request {
                        UpstreamRequest::ParseToken { token } => claims(token),
                        _ => UpstreamOutcome::Failed(UpstreamError::internal()),
                    };
                    shards[usize::from(call.shard.0)].reply(UpstreamReply { ticket, outcome });
                }
                Some(RpcMail::Outcome { outcome, .. }) => sender.try_send(*outcome).unwrap(),
                Some(_) => {}
                None => std::thread::sleep(Duration::from_millis(1)),
            }
        }
    };
    drop(std::thread::Builder::new().name("rpc-stand-in".into()).spawn(body).unwrap());
    receiver
}

fn claims(token: &str) -> UpstreamOutcome {
    match token.split_once(':').and_then(|(user, platform)| Some((user, platform.parse().ok()?))) {
        Some((user, platform)) => UpstreamOutcome::Token { user: user.into(), platform },
        None => UpstreamOutcome::Failed(UpstreamError {
            code: 1503,
            message: "TokenMalformedError".into(),
            detail: "".into(),
        }),
    }
}

/// The target of a login of platform 7 (Linux: no server pings).
pub(super) fn target(user: &str) -> String {
    format!("/?sendID={user}&token={user}:7&platformID=7&operationID=op&isBackground=false")
}

/// Logs in and proves by a ping that the session is open.
pub(super) fn login(port: u16, user: &str) -> WebSocket<TcpStream> {
    let stream = connect(port);
    let request = format!("ws://127.0.0.1:{port}{}", target(user)).into_client_request().unwrap();
    let (mut socket, _) = tungstenite::client(request, stream).unwrap();
    socket.send(tungstenite::Message::Ping("are you there".into())).unwrap();
    loop {
        match socket.read().unwrap() {
            tungstenite::Message::Pong(payload) => {
                assert_eq!(payload, "are you there".as_bytes());
                return socket;
            }
            other => assert!(other.is_binary(), "{other:?}"),
        }
    }
}

pub(super) fn connect(port: u16) -> TcpStream {
    let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    stream
}

/// A login's head as raw bytes.
pub(super) fn head(user: &str) -> String {
    format!(
        "GET {} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        target(user)
    )
}

/// Sends bytes and returns all that comes back until the other side closes.
pub(super) fn exchange(port: u16, request: &[u8]) -> String {
    let mut stream = connect(port);
    stream.write_all(request).unwrap();
    read_to_end(&mut stream)
}

/// What comes until an end or a reset.
pub(super) fn read_to_end(stream: &mut TcpStream) -> String {
    let (mut all, mut chunk) = (Vec::new(), [0; 4096]);
    loop {
        match stream.read(&mut chunk) {
            Ok(0) => break,
            Ok(n) => all.extend_from_slice(&chunk[..n]),
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => break,
            Err(error) => panic!("{error} after {:?}", String::from_utf8_lossy(&all)),
        }
    }
    String::from_utf8_lossy(&all).into_owned()
}
