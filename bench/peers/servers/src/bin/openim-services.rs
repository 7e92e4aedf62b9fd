//! OpenIM's services as small and fast as they can be: the far side of what a gateway with `backend: openim` does.
//!
//! ```text
//! openim-services [--delay-ms N] [--port N]      serves; prints `listening ADDRESS`
//! openim-services --call ADDRESS --seconds N --in-flight N      a bare h2 client: GetMaxSeq in a closed loop
//! ```
//!
//! The server answers `parseToken` after the delay with what the token says of itself (nothing is verified), and at
//! once `getUserStatus`, `setUserOnlineStatus`, `SendMsg` and `GetMaxSeq`, each with a small reply. Every line on its
//! standard input is answered by one line of JSON with the calls so far by method; it ends when its input does.
//!
//! The client is a bound: what a call costs a caller that only makes it. It prints calls, seconds and CPU seconds.
//!
//! What always holds: one thread; a call is counted before it is answered.

#![allow(
    clippy::expect_used,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a bench fails by panicking and uses the real clock"
)]

use std::io::{BufRead as _, Write as _};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::{BufMut as _, Bytes, BytesMut};
use h2::RecvStream;
use h2::client::SendRequest;
use h2::server::SendResponse;
use http::{HeaderMap, HeaderValue, Request, Response};
use pinion::pb::openim::auth::{ParseTokenReq, ParseTokenResp};
use pinion::pb::openim::msg::SendMsgResp;
use pinion::pb::openim::sdkws::{GetMaxSeqReq, GetMaxSeqResp};
use pinion::pb::openim::user::GetUserStatusResp;
use prost::Message;

/// What is answered, by the last part of the path.
const METHODS: [&str; 5] = ["parseToken", "getUserStatus", "setUserOnlineStatus", "SendMsg", "GetMaxSeq"];
/// Calls of each, and of any other.
static CALLS: [AtomicU64; METHODS.len() + 1] = [const { AtomicU64::new(0) }; METHODS.len() + 1];
/// As much as a gateway's channel may have in flight.
const STREAMS: u32 = 4_096;
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 4 * 1024 * 1024;
const UNIMPLEMENTED: &str = "12";
const UNAUTHENTICATED: &str = "16";

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let mut options = Options::default();
    for pair in arguments.chunks(2) {
        let [flag, value] = pair else { panic!("{pair:?}: a flag and its value") };
        let number = || value.parse().unwrap_or_else(|_| panic!("{flag} takes a number, not {value}"));
        match flag.as_str() {
            "--delay-ms" => options.delay = Duration::from_millis(number()),
            "--port" => options.port = number().try_into().expect("a port is below 65536"),
            "--call" => options.call = Some(value.parse().expect("--call takes host:port")),
            "--seconds" => options.seconds = number(),
            "--in-flight" => options.in_flight = number(),
            _ => panic!("{flag} is none of --delay-ms --port --call --seconds --in-flight"),
        }
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    tokio::task::LocalSet::new().block_on(&runtime, async move {
        match options.call {
            Some(address) => call(address, options.seconds, options.in_flight).await,
            None => listen(options.port, options.delay).await,
        }
    });
}

#[derive(Default)]
struct Options {
    delay: Duration,
    port: u16,
    call: Option<SocketAddr>,
    seconds: u64,
    in_flight: u64,
}

async fn listen(port: u16, delay: Duration) {
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", port)).await.expect("a free port");
    println!("listening {}", listener.local_addr().expect("its address"));
    drop(std::thread::Builder::new().spawn(tell_counts).expect("a thread"));
    loop {
        let (socket, _) = listener.accept().await.expect("a caller");
        socket.set_nodelay(true).expect("a TCP option");
        drop(tokio::task::spawn_local(serve(socket, delay)));
    }
}

/// A line for each line; the end of the process with the end of its input.
fn tell_counts() {
    for _ in std::io::stdin().lock().lines().map_while(Result::ok) {
        let names = METHODS.iter().chain(&["other"]);
        let pairs = names.zip(&CALLS).map(|(name, n)| format!("\"{name}\": {}", n.load(Ordering::Relaxed)));
        println!("{{{}}}", pairs.collect::<Vec<_>>().join(", "));
        std::io::stdout().flush().expect("a reader of the counts");
    }
    std::process::exit(0);
}

async fn serve(socket: tokio::net::TcpStream, delay: Duration) {
    let handshake = h2::server::Builder::new()
        .max_concurrent_streams(STREAMS)
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .handshake::<_, Bytes>(socket);
    let Ok(mut connection) = handshake.await else { return };
    while let Some(Ok((request, respond))) = connection.accept().await {
        drop(tokio::task::spawn_local(answer(request, respond, delay)));
    }
}

/// A caller that has gone gets nothing.
async fn answer(
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    delay: Duration,
) -> Option<()> {
    let method = request.uri().path().rsplit('/').next().unwrap_or_default().to_owned();
    let known = METHODS.iter().position(|name| *name == method).unwrap_or(METHODS.len());
    let message = read(request.into_body()).await?;
    CALLS[known].fetch_add(1, Ordering::Relaxed);
    let reply = match method.as_str() {
        "parseToken" => {
            if !delay.is_zero() {
                tokio::time::sleep(delay).await;
            }
            token_of(message).map(|claims| framed(&claims)).ok_or(UNAUTHENTICATED)
        }
        "getUserStatus" => Ok(framed(&GetUserStatusResp::default())),
        "setUserOnlineStatus" => Ok(framed(&())),
        "SendMsg" => {
            let (server_msg_id, client_msg_id) = ("a".repeat(32), "b".repeat(32));
            Ok(framed(&SendMsgResp {
                server_msg_id,
                client_msg_id,
                send_time: 1_800_000_000_000,
                modify: None,
            }))
        }
        "GetMaxSeq" => {
            let mut reply = GetMaxSeqResp::default();
            reply.max_seqs.insert("si_000001_000002".to_owned(), 7);
            reply.min_seqs.insert("si_000001_000002".to_owned(), 1);
            Ok(framed(&reply))
        }
        _ => Err(UNIMPLEMENTED),
    };
    let head = Response::builder().header("content-type", "application/grpc").body(()).ok()?;
    let mut stream = respond.send_response(head, false).ok()?;
    let status = match reply {
        Ok(reply) => {
            stream.send_data(reply, false).ok()?;
            "0"
        }
        Err(status) => status,
    };
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static(status));
    stream.send_trailers(trailers).ok()
}

/// The message of a call without its prefix.
async fn read(mut body: RecvStream) -> Option<Bytes> {
    let mut message = BytesMut::new();
    while let Some(data) = body.data().await {
        let data = data.ok()?;
        body.flow_control().release_capacity(data.len()).ok()?;
        message.extend_from_slice(&data);
    }
    (message.len() >= 5).then(|| message.freeze().slice(5..))
}

fn framed(message: &impl Message) -> Bytes {
    let len = message.encoded_len();
    let mut out = BytesMut::with_capacity(5 + len);
    out.put_u8(0);
    out.put_u32(u32::try_from(len).expect("a small message"));
    message.encode(&mut out).expect("room for it");
    out.freeze()
}

/// What the claims of a token say; whoever signed it.
fn token_of(message: Bytes) -> Option<ParseTokenResp> {
    let token = ParseTokenReq::decode(message).ok()?.token;
    let claims = URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?).ok()?;
    let claims = std::str::from_utf8(&claims).ok()?;
    let after = |key: &str| claims.split_once(&format!("\"{key}\":")).map(|(_, rest)| rest);
    let number = |key: &str| after(key)?.split([',', '}']).next()?.trim().parse::<i64>().ok();
    Some(ParseTokenResp {
        user_id: after("UserID")?.split('"').nth(1)?.to_owned(),
        platform_id: i32::try_from(number("PlatformID")?).ok()?,
        expire_time_seconds: number("exp")?,
    })
}

/// So many callers, each with one call after the other.
async fn call(address: SocketAddr, seconds: u64, in_flight: u64) {
    let socket = tokio::net::TcpStream::connect(address).await.expect("a server");
    socket.set_nodelay(true).expect("a TCP option");
    let (sender, connection) = h2::client::Builder::new()
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .handshake::<_, Bytes>(socket)
        .await
        .expect("a server of HTTP/2");
    drop(tokio::task::spawn_local(async move { drop(connection.await) }));
    let message = framed(&GetMaxSeqReq { user_id: "load000001".to_owned() });
    let (began, cpu) = (Instant::now(), cpu_seconds());
    let until = began + Duration::from_secs(seconds.max(1));
    let callers: Vec<_> = (0..in_flight.max(1))
        .map(|_| tokio::task::spawn_local(caller(sender.clone(), address, message.clone(), until)))
        .collect();
    let mut calls = 0;
    for caller in callers {
        calls += caller.await.expect("a caller that ends");
    }
    let (seconds, cpu) = (began.elapsed().as_secs_f64(), cpu_seconds() - cpu);
    println!("{{\"calls\": {calls}, \"seconds\": {seconds:.6}, \"cpu_seconds\": {cpu:.6}}}");
}

/// Makes calls until the time is over, and counts them.
async fn caller(sender: SendRequest<Bytes>, address: SocketAddr, message: Bytes, until: Instant) -> u64 {
    let mut calls = 0;
    while Instant::now() < until {
        one_call(sender.clone(), address, message.clone()).await.expect("an answer");
        calls += 1;
    }
    calls
}

/// The head has what a gateway's has.
async fn one_call(sender: SendRequest<Bytes>, address: SocketAddr, message: Bytes) -> Result<(), h2::Error> {
    let mut sender = sender.ready().await?;
    let request = Request::builder()
        .method("POST")
        .uri(format!("http://{address}/openim.msg.msg/GetMaxSeq"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("grpc-timeout", "10000m")
        .header("operationid", "bench-000001")
        .header("opuserid", "load000001")
        .header("platform", "IOS")
        .header("connid", "0123456789abcdef0123456789abcdef")
        .body(())
        .expect("a request");
    let (response, mut stream) = sender.send_request(request, false)?;
    stream.send_data(message, true)?;
    let mut body = response.await?.into_body();
    while let Some(data) = body.data().await {
        let len = data?.len();
        body.flow_control().release_capacity(len)?;
    }
    body.trailers().await.map(drop)
}

/// Of this process.
fn cpu_seconds() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}
