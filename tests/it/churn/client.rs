//! A client of the churn: it never panics, for whatever the gateway does to it is a fact to be counted.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use pinion::pb::openim::sdkws::MsgData;
use pinion::wire::envelope::{Codec, Encoding, Request, Variant};
use prost::Message as _;
use rustix::net::sockopt;
use tungstenite::protocol::{Role, WebSocket};
use tungstenite::{Error, Message};

const SEND_MSG: i32 = 1003;
const PUSH: i32 = 2001;
const KICKED: i32 = 2002;
const VARIANT: Variant = Variant { encoding: Encoding::Gob, gzip: false };

/// A login whose head is sent.
pub struct Knock {
    stream: TcpStream,
    since: Instant,
    patience: Duration,
    user: String,
}

/// What became of a login.
pub enum Answer {
    In(Box<Connection>),
    /// By OpenIM's JSON: a token that a kick has invalidated.
    Refused,
    /// 503.
    Busy,
    /// The stream ended without an answer.
    Gone,
    /// No answer within the client's patience.
    Hung,
}

/// What became of a request.
pub enum Reply {
    Came(Duration),
    /// The connection was kicked or lost meanwhile.
    Gone,
    Hung,
}

/// How a client goes.
#[derive(Clone, Copy, Debug)]
pub enum Leave {
    CloseFrame,
    EndOfStream,
    Reset,
}

impl Knock {
    /// Connects and sends the head.
    pub fn new(
        address: SocketAddr,
        user: &str,
        (platform, token): (i64, &str),
        patience: Duration,
    ) -> std::io::Result<Self> {
        let since = Instant::now();
        let mut stream = TcpStream::connect_timeout(&address, patience)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(patience))?;
        stream.set_write_timeout(Some(patience))?;
        write!(
            stream,
            "GET /?sendID={user}&token={token}&platformID={platform}&operationID=churn&isBackground=false\
             &sdkType=go HTTP/1.1\r\nHost: it\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )?;
        Ok(Self { stream, since, patience, user: user.to_owned() })
    }

    /// Reads the answer to the login; how long it took since the connect began, at most `patience` in all.
    pub fn answer(mut self, patience: Duration) -> (Answer, Duration) {
        // Of a burst the later ones have waited while the first were read.
        let rest = patience.saturating_sub(self.since.elapsed()).max(Duration::from_millis(20));
        let mut read = Vec::new();
        if self.stream.set_read_timeout(Some(rest)).is_err() {
            return (Answer::Gone, self.since.elapsed());
        }
        let answer = loop {
            let mut buffer = [0; 1024];
            match self.stream.read(&mut buffer) {
                Ok(0) => break Answer::Gone,
                Ok(n) => read.extend(&buffer[..n]),
                Err(e) if is_timeout(&e) => break Answer::Hung,
                Err(_) => break Answer::Gone,
            }
            if let Some(end) = read.windows(4).position(|four| four == b"\r\n\r\n") {
                break match &read[..12] {
                    b"HTTP/1.1 101" => return self.enter(read.split_off(end + 4)),
                    b"HTTP/1.1 200" => Answer::Refused,
                    b"HTTP/1.1 503" => Answer::Busy,
                    other => panic!("{}", String::from_utf8_lossy(other)),
                };
            }
        };
        (answer, self.since.elapsed())
    }

    fn enter(self, rest: Vec<u8>) -> (Answer, Duration) {
        let took = self.since.elapsed();
        if self.stream.set_read_timeout(Some(self.patience)).is_err() {
            return (Answer::Gone, took);
        }
        let socket = WebSocket::from_partially_read(self.stream, rest, Role::Client, None);
        let (user, patience) = (self.user, self.patience);
        let connection =
            Connection { socket, codec: Codec::default(), user, patience, sent: 0, pushes: 0, kicked: false };
        (Answer::In(Box::new(connection)), took)
    }
}

/// A client that is logged in.
pub struct Connection {
    socket: WebSocket<TcpStream>,
    codec: Codec,
    user: String,
    patience: Duration,
    sent: u64,
    /// Pushes read.
    pub pushes: u64,
    /// The kick frame was read.
    pub kicked: bool,
}

impl Connection {
    /// Sends a message and reads until its reply, pushes of others included.
    pub fn send_msg(&mut self, to: &str) -> Reply {
        let since = Instant::now();
        self.sent += 1;
        let msg_incr = format!("{}_{}", self.user, self.sent);
        let message = MsgData {
            send_id: self.user.clone(),
            recv_id: to.into(),
            client_msg_id: format!("{msg_incr}-{:?}", self.socket.get_ref().local_addr()),
            session_type: 1,
            msg_from: 100,
            content_type: 101,
            content: b"{\"content\":\"churn\"}".to_vec().into(),
            ..MsgData::default()
        };
        let request = Request {
            id: SEND_MSG,
            send_id: self.user.as_str().into(),
            operation_id: "churn".into(),
            msg_incr: msg_incr.as_str().into(),
            data: message.encode_to_vec().into(),
        };
        let payload = self.codec.encode_request(VARIANT, &request);
        if self.socket.send(Message::Binary(payload.into())).is_err() {
            return Reply::Gone;
        }
        while since.elapsed() < self.patience {
            match self.socket.read() {
                Ok(Message::Binary(payload)) => {
                    let response = self.codec.decode_response(VARIANT, &payload).unwrap();
                    self.pushes += u64::from(response.id == PUSH);
                    self.kicked |= response.id == KICKED;
                    if response.id == SEND_MSG && response.msg_incr == msg_incr {
                        return Reply::Came(since.elapsed());
                    }
                }
                Ok(_) => {}
                Err(Error::Io(e)) if is_timeout(&e) => return Reply::Hung,
                Err(_) => return Reply::Gone,
            }
        }
        Reply::Hung
    }

    /// Ends the connection.
    pub fn leave(mut self, how: Leave) {
        match how {
            // It may be closed already: then there is nobody to tell.
            Leave::CloseFrame => drop(self.socket.close(None)),
            Leave::EndOfStream => {}
            Leave::Reset => {
                sockopt::set_socket_linger(self.socket.get_ref(), Some(Duration::ZERO)).unwrap();
            }
        }
    }
}

fn is_timeout(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}
