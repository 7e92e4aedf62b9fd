//! A channel against HTTP/2 servers of this test: who is asked, what is said, how it ends. Also the servers, for the
//! other tests of the channel.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use h2::server::SendResponse;
use h2::{Reason, RecvStream};
use http::{HeaderMap, Request, Response};
use monoio::io::IntoPollIo;

use super::*;
use crate::rpc::channel::{Call, Channel, ChannelLimits, ChannelPlan, Ration};
use crate::rpc::stream::send_all;
use crate::shard::nudge::Nudge;
use crate::shard::thread::block_on;
use crate::shard::turn::Turns;
use crate::wire::grpc::{CallFault, Retry};
use crate::wire::grpc::{TIMEOUT_MS_MAX, frame, parse_timeout};

pub(super) const SERVICE: &str = "openim.test.Service";
pub(super) const PATIENCE_MS: u64 = 60_000;

/// Answers with the request.
pub(super) const ECHO: &str = "/t/Echo";
/// As `ECHO`, once released.
pub(super) const HOLD: &str = "/t/Hold";
/// 1506 with details, and trailers only.
pub(super) const KICKED: &str = "/t/Kicked";
/// One byte more than a message may have.
pub(super) const HUGE: &str = "/t/Huge";
/// Resets the stream.
pub(super) const RESET: &str = "/t/Reset";
/// The connection's task stops for good, with its socket open.
pub(super) const FREEZE: &str = "/t/Freeze";
/// Headers of as many KiB as the request has bytes.
pub(super) const HEADERS: &str = "/t/Headers";
/// The HTTP status that the request names, and no gRPC.
pub(super) const HTTP: &str = "/t/Http";
/// The request as the answer's body as it is, with `grpc-status: 0`.
pub(super) const RAW: &str = "/t/Raw";
/// A message, and then the end of the stream.
pub(super) const NO_STATUS: &str = "/t/NoStatus";

/// A server of the test's own runtime.
#[derive(Default)]
pub(super) struct Upstream {
    /// Heads that came.
    pub(super) heads: RefCell<Vec<HeaderMap>>,
    /// Calls that were reset by the caller while they were held.
    pub(super) resets: RefCell<Vec<Reason>>,
    /// Connections, of which so many are open.
    pub(super) accepted: Cell<usize>,
    pub(super) open: Cell<usize>,
    /// Calls at once, and the most there were.
    calls: Cell<usize>,
    pub(super) calls_most: Cell<usize>,
    pub(super) released: Cell<bool>,
    /// So many of the next calls are refused, or break their connection.
    pub(super) refuse: Cell<usize>,
    pub(super) break_off: Cell<usize>,
    /// Per connection: what it does next, when it is rung.
    connections: RefCell<Vec<(Nudge, Rc<Cell<Order>>)>>,
}

#[derive(Clone, Copy, PartialEq)]
pub(super) enum Order {
    GoAway,
    Break,
}

impl Upstream {
    pub(super) fn seen(&self) -> usize {
        self.heads.borrow().len()
    }

    /// Tells all its connections.
    pub(super) fn order(&self, order: Order) {
        for (nudge, told) in self.connections.borrow_mut().drain(..) {
            told.set(order);
            nudge.ring();
        }
    }
}

/// Starts a server that allows so many streams per connection.
pub(super) fn upstream(streams: u32) -> (Rc<Upstream>, SocketAddr) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    serve_on(listener, streams)
}

pub(super) fn serve_on(listener: std::net::TcpListener, streams: u32) -> (Rc<Upstream>, SocketAddr) {
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    let listener = monoio::net::TcpListener::from_std(listener).unwrap();
    let upstream = Rc::new(Upstream::default());
    let server = Rc::clone(&upstream);
    monoio::spawn(async move {
        loop {
            let stream = listener.accept().await.unwrap().0.into_poll_io().unwrap();
            monoio::spawn(serve_connection(Rc::clone(&server), stream, streams));
        }
    });
    (upstream, address)
}

async fn serve_connection(server: Rc<Upstream>, stream: crate::rpc::tls::Tcp, streams: u32) {
    server.accepted.set(server.accepted.get() + 1);
    server.open.set(server.open.get() + 1);
    let mut builder = h2::server::Builder::new();
    builder
        .max_concurrent_streams(streams)
        .initial_window_size(1 << 20)
        .initial_connection_window_size(1 << 20);
    if let Ok(mut connection) = builder.handshake::<_, Bytes>(stream).await {
        let (nudge, told) = (Nudge::default(), Rc::new(Cell::new(Order::Break)));
        server.connections.borrow_mut().push((nudge.clone(), Rc::clone(&told)));
        let mut nudged = pin!(nudge.wait());
        let (mut rung, mut frozen) = (false, false);
        poll_fn(|cx| {
            while !frozen {
                if !rung && nudged.as_mut().poll(cx).is_ready() {
                    rung = true;
                    match told.get() {
                        Order::Break => return Poll::Ready(()),
                        Order::GoAway => connection.graceful_shutdown(),
                    }
                }
                let Poll::Ready(next) = connection.poll_accept(cx) else {
                    break;
                };
                let Some(Ok((request, respond))) = next else {
                    return Poll::Ready(());
                };
                frozen = request.uri().path() == FREEZE;
                let break_connection = take_one(&server.break_off);
                server.heads.borrow_mut().push(request.headers().clone());
                if break_connection {
                    return Poll::Ready(());
                }
                monoio::spawn(serve_call(Rc::clone(&server), request, respond));
            }
            Poll::Pending
        })
        .await;
    }
    server.open.set(server.open.get() - 1);
}

fn take_one(cell: &Cell<usize>) -> bool {
    let some = cell.get() > 0;
    cell.set(cell.get().saturating_sub(1));
    some
}

async fn serve_call(server: Rc<Upstream>, request: Request<RecvStream>, mut respond: SendResponse<Bytes>) {
    if take_one(&server.refuse) {
        return respond.send_reset(Reason::REFUSED_STREAM);
    }
    server.calls.set(server.calls.get() + 1);
    server.calls_most.set(server.calls_most.get().max(server.calls.get()));
    answer(&server, request, respond).await;
    server.calls.set(server.calls.get() - 1);
}

async fn answer(server: &Upstream, request: Request<RecvStream>, mut respond: SendResponse<Bytes>) {
    let (head, mut body) = request.into_parts();
    let mut bytes = Vec::new();
    while let Some(Ok(chunk)) = body.data().await {
        body.flow_control().release_capacity(chunk.len()).unwrap_or_default();
        bytes.extend_from_slice(&chunk);
    }
    if bytes.len() < 5 {
        return; // the caller left
    }
    // Without the prefix.
    let message = Bytes::from(bytes).slice(5..);
    let plain = Response::builder().header("content-type", "application/grpc");
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", 0.into());
    let out = match head.uri.path() {
        KICKED => {
            let status = kicked();
            let response = plain
                .header("grpc-status", status.code)
                .header("grpc-message", status.escaped_message())
                .header("grpc-status-details-bin", status.details_bin().unwrap());
            respond.send_response(response.body(()).unwrap(), true).unwrap();
            return;
        }
        RESET => return respond.send_reset(Reason::INTERNAL_ERROR),
        HTTP => {
            let status: u16 = std::str::from_utf8(&message).unwrap().parse().unwrap();
            respond.send_response(Response::builder().status(status).body(()).unwrap(), true).unwrap();
            return;
        }
        HOLD | FREEZE => {
            while !server.released.get() {
                let reset = poll_fn(|cx| Poll::Ready(respond.poll_reset(cx))).await;
                match reset {
                    Poll::Ready(Ok(reason)) => return server.resets.borrow_mut().push(reason),
                    Poll::Ready(Err(_)) => return,
                    Poll::Pending => monoio::time::sleep(Duration::from_millis(2)).await,
                }
            }
            frame(&message).unwrap()
        }
        HUGE => frame(&vec![0; limits::GRPC_MESSAGE_BYTES_MAX + 1]).unwrap(),
        RAW => message.clone(),
        _ => frame(&message).unwrap(),
    };
    let mut plain = plain;
    if head.uri.path() == HEADERS {
        for n in 0..message.len() {
            plain = plain.header(format!("x-{n}"), "x".repeat(1_000));
        }
    }
    if head.uri.path() == NO_STATUS {
        trailers.clear();
    }
    // The caller may have left.
    let Ok(mut stream) = respond.send_response(plain.body(()).unwrap(), false) else {
        return;
    };
    if send_all(&mut stream, out).await.is_ok() {
        stream.send_trailers(trailers).unwrap_or_default();
    }
}

/// Spec A.3, with a cause of its own.
pub(super) fn kicked() -> Status {
    Status::openim(1506, "TokenKickedError", "by another device: 50% ü")
}

/// Runs a test inside a runtime of each driver.
pub(super) fn on_each<F: Future<Output = ()>>(test: impl Fn(Turns) -> F + Sync) {
    on_each_of_the_drivers(|driver| {
        block_on(driver, |turns| async {
            let within = Duration::from_millis(2 * PATIENCE_MS);
            let ended = monoio::time::timeout(within, test(turns)).await;
            assert!(ended.is_ok(), "{driver:?}: it hangs");
        });
    });
}

/// Quick to come back, slow to give up.
pub(super) const LIMITS: ChannelLimits = ChannelLimits {
    connect_ms: PATIENCE_MS,
    ping_after_ms: PATIENCE_MS,
    backoff_least_ms: 1,
    backoff_ms: 20,
    ..ChannelLimits::DEFAULT
};

pub(super) fn channel(turns: Turns, limits: ChannelLimits, endpoints: &[SocketAddr]) -> Rc<Channel> {
    let plan = ChannelPlan { service: SERVICE.into(), seed: 7, limits };
    let channel = Channel::new(plan, Rc::new(Ration::new(turns)));
    channel.set_endpoints(endpoints);
    Rc::new(channel)
}

pub(super) fn call_to(path: &'static str) -> Call {
    Call {
        path,
        metadata: vec![("operationid", "op".into())],
        message: Bytes::from_static(b"hello"),
        deadline: in_ms(PATIENCE_MS),
        retry: Retry::Never,
    }
}

pub(super) fn in_ms(ms: u64) -> Mono {
    clock::now().mono.plus_ms(ms)
}

/// Waits for a condition.
pub(super) async fn until(what: &str, condition: impl Fn() -> bool) {
    let start = clock::now().mono;
    while !condition() {
        assert!(clock::now().mono.since_ms(start) < PATIENCE_MS, "not in time: {what}");
        monoio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// A call in a task of its own.
pub(super) fn start(
    channel: &Rc<Channel>,
    call: Call,
) -> impl Future<Output = Result<Bytes, CallFault>> + use<> {
    let channel = Rc::clone(channel);
    monoio::spawn(async move { channel.call(call).await })
}

pub(super) fn text_of(result: Result<Bytes, CallFault>) -> String {
    match result {
        Err(CallFault::Unavailable(text)) => text.into_string(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn calls_go_round_the_instances_and_say_what_grpc_wants() {
    on_each(|turns| async move {
        let servers: Vec<_> = (0..3).map(|_| upstream(100)).collect();
        let addresses: Vec<_> = servers.iter().map(|(_, address)| *address).collect();
        // Named twice is one instance.
        let channel = channel(turns, LIMITS, &[addresses[0], addresses[1], addresses[0], addresses[2]]);
        until("all are ready", || channel.counts().ready == 3).await;
        for _ in 0..9 {
            assert_eq!(channel.call(call_to(ECHO)).await, Ok(Bytes::from_static(b"hello")));
        }
        for (server, _) in &servers {
            assert_eq!((server.seen(), server.accepted.get()), (3, 1));
            let head = server.heads.borrow()[0].clone();
            let value = |key: &str| head.get(key).unwrap().to_str().unwrap().to_owned();
            assert_eq!((value("content-type"), value("te")), ("application/grpc".into(), "trailers".into()));
            let timeout = parse_timeout(&value("grpc-timeout")).unwrap();
            assert!((1..=PATIENCE_MS).contains(&timeout), "{timeout}");
        }
        let counts = channel.counts();
        assert_eq!((counts.calls, counts.answered, counts.in_flight, counts.held_bytes), (9, 9, 0, 0));
        assert_eq!((counts.instances, counts.connections, counts.connects), (3, 3, 3));
        drop(channel);
        until("all are closed", || servers.iter().all(|(server, _)| server.open.get() == 0)).await;
    });
}

#[test]
fn metadata_is_sent_as_it_is_or_not_at_all() {
    on_each(|turns| async move {
        let (server, address) = upstream(100);
        let channel = channel(turns, LIMITS, &[address]);
        for good in ["", "u 1", "100%25", "~!\"#", "p_1_2"] {
            let metadata = vec![("operationid", "op".into()), ("opuserid", good.into())];
            assert!(channel.call(Call { metadata, ..call_to(ECHO) }).await.is_ok(), "{good}");
            let head = server.heads.borrow().last().cloned().unwrap();
            assert_eq!(head.get("opuserid").unwrap(), good);
            assert_eq!(head.get("operationid").unwrap(), "op");
        }
        let seen = server.seen();
        for bad in ["\u{fc}", "a\n", "a\tb", "\u{7f}", "\u{65e5}\u{672c}"] {
            let metadata = vec![("operationid", "op".into()), ("opuserid", bad.into())];
            let refused = channel.call(Call { metadata, ..call_to(ECHO) }).await;
            assert_eq!(refused, Err(CallFault::Metadata("opuserid")), "{bad:?}");
        }
        assert_eq!((server.seen(), channel.counts().metadata), (seen, 5), "nothing was sent");
    });
}

#[test]
fn what_a_server_answers_comes_through() {
    on_each(|turns| async move {
        let (server, address) = upstream(100);
        let channel = channel(turns, LIMITS, &[address]);
        assert_eq!(channel.call(call_to(KICKED)).await, Err(CallFault::from(kicked())));
        // Path, request, and the status that gRPC makes of it.
        let table: [(&'static str, &'static [u8], i32); 12] = [
            (HTTP, b"400", 13),
            (HTTP, b"401", 16),
            (HTTP, b"404", 12),
            (HTTP, b"503", 14),
            (HTTP, b"500", 2),
            (NO_STATUS, b"x", 13),
            (RAW, b"", 13),
            (RAW, &[0, 0, 0, 0, 2, 1], 13),
            (RAW, &[1, 0, 0, 0, 1, 1], 13),
            (RAW, &[0, 0, 0, 0, 0, 0], 13),
            (RESET, b"", 13),
            (HEADERS, &[0; 20], 13),
        ];
        for (path, message, code) in table {
            let message = Bytes::from_static(message);
            match channel.call(Call { message, ..call_to(path) }).await {
                Err(CallFault::Status(status)) => assert_eq!(status.code, code, "{path} {status:?}"),
                other => panic!("{path}: {other:?}"),
            }
        }
        let counts = channel.counts();
        assert_eq!((counts.statuses, counts.retries, server.seen()), (13, 0, 13), "asked once each");
        assert_eq!(server.accepted.get(), 1, "none of it ends the connection");
        assert!(channel.call(call_to(ECHO)).await.is_ok());
    });
}

#[test]
fn a_call_ends_at_its_deadline_whatever_the_server_does() {
    on_each(|turns| async move {
        let (server, address) = upstream(100);
        let channel = channel(turns, LIMITS, &[address]);
        until("it is ready", || channel.counts().ready == 1).await;
        let started = clock::now().mono;
        let late = channel.call(Call { deadline: in_ms(500), ..call_to(HOLD) }).await;
        assert_eq!(late, Err(CallFault::Deadline));
        assert!(clock::now().mono.since_ms(started) >= 500, "not before");
        if server.seen() == 1 {
            until("the server is told", || server.resets.borrow().len() == 1).await;
            assert_eq!(server.resets.borrow()[0], Reason::CANCEL);
        }
        let seen = server.seen();
        for past in [Mono(0), started] {
            assert_eq!(
                channel.call(Call { deadline: past, ..call_to(ECHO) }).await,
                Err(CallFault::Deadline)
            );
        }
        assert_eq!(server.seen(), seen, "nothing is sent that is late already");
        // The end of time is as far away as gRPC can say.
        assert!(channel.call(Call { deadline: Mono(u64::MAX), ..call_to(ECHO) }).await.is_ok());
        let value = server.heads.borrow().last().unwrap().get("grpc-timeout").cloned().unwrap();
        assert_eq!(parse_timeout(value.to_str().unwrap()), Some(TIMEOUT_MS_MAX));
        assert_eq!(channel.counts().deadlines, 3);
    });
}

#[test]
fn a_call_that_is_dropped_is_cancelled_at_the_server() {
    on_each(|turns| async move {
        let (server, address) = upstream(100);
        let channel = channel(turns, LIMITS, &[address]);
        {
            let mut call = pin!(channel.call(call_to(HOLD)));
            let mut seen = pin!(until("it came", || server.seen() == 1));
            poll_fn(|cx| {
                assert!(call.as_mut().poll(cx).is_pending());
                seen.as_mut().poll(cx)
            })
            .await;
            assert_eq!(channel.counts().in_flight, 1);
        }
        assert_eq!((channel.counts().in_flight, channel.counts().cancelled), (0, 1));
        until("the server is told", || *server.resets.borrow() == [Reason::CANCEL]).await;
        assert!(channel.call(call_to(ECHO)).await.is_ok(), "and others go on");
        assert_eq!(server.accepted.get(), 1);
    });
}
