//! The bounds: the least work that has the same bytes on the same kinds of sockets, in processes of their own.
//!
//! - [`SendLoop`]: one thread that sends one frame to each of N sockets with `send`, in a loop. No fan-out without
//!   batched system calls is cheaper.
//! - [`Echo`]: an h2 server that answers each request with so many bytes and looks at none of them.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::ExitCode;

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream};
use http::{HeaderMap, HeaderValue, Request, Response};

use crate::child::Child;
use crate::frames::binary_head;

fn address_of(line: &str) -> SocketAddr {
    line.parse().unwrap_or_else(|e| panic!("{line:?}: {e}"))
}

/// A process that sends in a loop.
pub struct SendLoop {
    child: Child,
    pub address: SocketAddr,
}

impl SendLoop {
    /// Starts it; it waits for so many connections. `frame_bytes` is a whole WebSocket frame.
    pub fn start(connections: usize, frame_bytes: usize, cpus: &[usize]) -> Self {
        let arguments =
            ["send-loop".to_owned(), format!("--count={connections}"), format!("--bytes={frame_bytes}")];
        let mut child = Child::start(&arguments, cpus);
        let address = address_of(&child.line());
        Self { child, address }
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.pid()
    }

    /// Sends one frame to each, and waits until the last `send` has returned.
    pub fn round(&mut self) {
        self.child.say("round");
        assert_eq!(self.child.line(), "sent");
    }
}

/// The process of a [`SendLoop`].
pub fn send_loop(connections: usize, frame_bytes: usize) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    println!("{}", listener.local_addr().expect("its address"));
    let sockets: Vec<TcpStream> = (0..connections)
        .map(|_| {
            let (socket, _) = listener.accept().expect("a client");
            // As the gateway's sockets.
            socket.set_nodelay(true).expect("a TCP option");
            rustix::net::sockopt::set_socket_send_buffer_size(&socket, 32 * 1024).expect("a socket option");
            socket
        })
        .collect();
    let payload = (0..=frame_bytes).rev().find(|n| binary_head(*n).len() + n == frame_bytes);
    let mut frame = binary_head(payload.expect("the length of a whole frame"));
    frame.resize(frame_bytes, b'x');
    let mut line = [0; 64];
    while std::io::stdin().read(&mut line).expect("the standard input") > 0 {
        sockets.iter().for_each(|mut socket| socket.write_all(&frame).expect("a client that reads"));
        println!("sent");
    }
}

/// A process that answers calls.
pub struct Echo {
    child: Child,
    pub address: SocketAddr,
}

impl Echo {
    /// Starts it: for each `request_bytes` that come in it answers `answer_bytes`.
    pub fn start(request_bytes: usize, answer_bytes: usize, cpus: &[usize]) -> Self {
        let arguments =
            ["echo".to_owned(), format!("--request={request_bytes}"), format!("--answer={answer_bytes}")];
        let mut child = Child::start(&arguments, cpus);
        let address = address_of(&child.line());
        Self { child, address }
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.pid()
    }
}

/// The process of an [`Echo`]. It ends when its input does.
pub fn echo(request_bytes: usize, answer_bytes: usize) -> ExitCode {
    let mut answer = vec![0; answer_bytes];
    let len = u32::try_from(answer_bytes.saturating_sub(5)).expect("an answer is below 8 MiB");
    answer[1..5].copy_from_slice(&len.to_be_bytes());
    let answer = Bytes::from(answer);
    drop(std::thread::Builder::new().spawn(|| {
        let ended = std::io::stdin().read(&mut [0; 64]).is_ok();
        std::process::exit(i32::from(!ended));
    }));
    crate::runtime().block_on(async move {
        let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
        println!("{}", listener.local_addr().expect("its address"));
        loop {
            let (socket, _) = listener.accept().await.expect("a caller");
            socket.set_nodelay(true).expect("a TCP option");
            drop(tokio::spawn(serve(socket, request_bytes, answer.clone())));
        }
    })
}

async fn serve(socket: tokio::net::TcpStream, request_bytes: usize, answer: Bytes) {
    let Ok(mut connection) = h2::server::Builder::new()
        .max_concurrent_streams(1024)
        .initial_window_size(256 * 1024)
        .initial_connection_window_size(1024 * 1024)
        .handshake::<_, Bytes>(socket)
        .await
    else {
        return;
    };
    while let Some(Ok((request, respond))) = connection.accept().await {
        drop(tokio::spawn(reply(request, respond, request_bytes, answer.clone())));
    }
}

async fn reply(
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    request_bytes: usize,
    answer: Bytes,
) -> Option<()> {
    let mut body = request.into_body();
    let mut stream = None;
    let mut received = 0;
    while let Some(data) = body.data().await {
        let data = data.ok()?;
        received += data.len();
        body.flow_control().release_capacity(data.len()).ok()?;
        while received >= request_bytes {
            received -= request_bytes;
            if stream.is_none() {
                let head = Response::builder().header("content-type", "application/grpc").body(()).ok()?;
                stream = Some(respond.send_response(head, false).ok()?);
            }
            stream.as_mut()?.send_data(answer.clone(), false).ok()?;
        }
    }
    let Some(mut stream) = stream else {
        respond.send_reset(Reason::PROTOCOL_ERROR);
        return None;
    };
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    stream.send_trailers(trailers).ok()
}
