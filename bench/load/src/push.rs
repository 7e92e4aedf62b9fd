//! Pushes over gRPC: OpenIM's own entry for all chats, so that a foreign gateway understands it too.
//!
//! One HTTP/2 connection per thread, made when the first push needs it and again after it broke. How many calls are on
//! it at once is the server's to say; the rest wait inside `h2`.

use std::cell::RefCell;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::rc::Rc;

use bytes::{Bytes, BytesMut};
use h2::client::SendRequest;
use http::{HeaderMap, Request};
use monoio::io::IntoPollIo as _;
use monoio::net::TcpStream;
use pinion::wire::grpc;

use crate::calls::{Caller, Outcome, Outcomes};

const PATH: &str = "/openim.msggateway.msgGateway/SuperGroupOnlineBatchPushOneMsg";
/// gRPC's status for an answer that has none.
const UNKNOWN: i32 = 2;
/// Windows that never hold the server back.
const WINDOW_BYTES: u32 = 4 * 1024 * 1024;

/// See the module's documentation. Clones share the connection.
#[derive(Clone)]
pub struct Pusher(Rc<Shared>);

struct Shared {
    address: SocketAddr,
    token: Option<String>,
    outcomes: Outcomes,
    line: RefCell<Line>,
}

enum Line {
    Down,
    /// Being made; these calls wait for it.
    Rising(Vec<(Caller, Bytes)>),
    Up(SendRequest<Bytes>),
}

impl Pusher {
    pub fn new(address: SocketAddr, token: Option<String>, outcomes: Outcomes) -> Self {
        Self(Rc::new(Shared { address, token, outcomes, line: RefCell::new(Line::Down) }))
    }

    /// Makes a call; its outcome is said later.
    pub fn call(&self, caller: Caller, message: &[u8]) {
        let Some(framed) = grpc::frame(message) else {
            return self.0.outcomes.say(caller, Outcome::Lost("a push above 4 GiB".to_owned()));
        };
        let mut line = self.0.line.borrow_mut();
        match &mut *line {
            Line::Up(sender) => self.send(sender.clone(), caller, framed),
            Line::Rising(waiting) => waiting.push((caller, framed)),
            Line::Down => {
                *line = Line::Rising(vec![(caller, framed)]);
                monoio::spawn(self.clone().rise());
            }
        }
    }

    async fn rise(self) {
        let connected = connect(self.0.address).await;
        let waiting = match std::mem::replace(&mut *self.0.line.borrow_mut(), Line::Down) {
            Line::Rising(waiting) => waiting,
            Line::Down | Line::Up(_) => Vec::new(),
        };
        let (sender, connection) = match connected {
            Ok(line) => line,
            Err(why) => {
                for (caller, _) in waiting {
                    self.0.outcomes.say(caller, Outcome::Lost(format!("{}: {why}", self.0.address)));
                }
                return;
            }
        };
        *self.0.line.borrow_mut() = Line::Up(sender.clone());
        for (caller, framed) in waiting {
            self.send(sender.clone(), caller, framed);
        }
        // Calls on it hear of its end by themselves.
        let _ = connection.await;
        *self.0.line.borrow_mut() = Line::Down;
    }

    fn send(&self, sender: SendRequest<Bytes>, caller: Caller, framed: Bytes) {
        let shared = Rc::clone(&self.0);
        monoio::spawn(async move {
            let outcome = match exchange(&shared, sender, framed).await {
                Ok((status, body)) => Outcome::Answered { status, good: status == 0, body },
                Err(error) => Outcome::Lost(error.to_string()),
            };
            shared.outcomes.say(caller, outcome);
        });
    }
}

type Connection = h2::client::Connection<monoio::net::tcp::stream_poll::TcpStreamPoll, Bytes>;

async fn connect(address: SocketAddr) -> Result<(SendRequest<Bytes>, Connection), String> {
    let socket = TcpStream::connect_addr(address).await.map_err(|error| error.to_string())?;
    let socket = socket.set_nodelay(true).and_then(|()| socket.into_poll_io());
    let socket = socket.map_err(|error| error.to_string())?;
    let mut builder = h2::client::Builder::new();
    builder.enable_push(false).initial_window_size(WINDOW_BYTES).initial_connection_window_size(WINDOW_BYTES);
    builder.handshake(socket).await.map_err(|error| error.to_string())
}

/// gRPC's status and the message of the answer.
async fn exchange(
    shared: &Shared,
    sender: SendRequest<Bytes>,
    framed: Bytes,
) -> Result<(i32, Bytes), h2::Error> {
    let mut sender = sender.ready().await?;
    let (response, mut stream) = sender.send_request(request(shared), false)?;
    // Queued inside h2 and sent as the server gives room.
    stream.send_data(framed, true)?;
    let (head, mut body) = response.await?.into_parts();
    if head.status != 200 {
        return Ok((i32::from(head.status.as_u16()), Bytes::new()));
    }
    if let Some(status) = status_of(&head.headers) {
        return Ok((status, Bytes::new()));
    }
    let mut message = BytesMut::new();
    while let Some(data) = body.data().await {
        let data = data?;
        body.flow_control().release_capacity(data.len())?;
        message.extend_from_slice(&data);
    }
    let trailers = poll_fn(|cx| body.poll_trailers(cx)).await?.unwrap_or_default();
    let mut message = message.freeze();
    let prefix = message.len().min(5);
    Ok((status_of(&trailers).unwrap_or(UNKNOWN), message.split_off(prefix)))
}

/// Operation id and caller are what OpenIM's gateway asks for (spec 6.1).
fn request(shared: &Shared) -> Request<()> {
    let mut request = Request::post(format!("http://{}{PATH}", shared.address))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("operationid", "bench")
        .header("opuserid", "imAdmin");
    if let Some(token) = &shared.token {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    request.body(()).expect("an address, a constant path, and a token that `run` has looked at")
}

fn status_of(headers: &HeaderMap) -> Option<i32> {
    headers.get("grpc-status")?.to_str().ok()?.parse().ok()
}
