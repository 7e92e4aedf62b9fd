//! A small blocking client: tungstenite for RFC 6455, so that the gateway is not judged by its own frame code, and the
//! project's codec for envelopes (which is checked against captured vectors elsewhere).

use std::collections::VecDeque;
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use pinion::pb::openim::sdkws::{MsgData, PushMessages};
use pinion::wire::envelope::{Codec, Encoding, OwnedResponse, Request, Variant};
use prost::Message as _;
use tungstenite::protocol::WebSocket;
use tungstenite::{Error, HandshakeError, Message};

use super::DEADLINE;

/// A text message of a one-to-one conversation, as an SDK sends it (1003).
pub fn text_message(from: &str, to: &str, text: &str) -> MsgData {
    MsgData {
        send_id: from.into(),
        recv_id: to.into(),
        client_msg_id: format!("{from}-{to}-{text}"),
        session_type: 1,
        msg_from: 100,
        content_type: 101,
        content: format!("{{\"content\":{text:?}}}").into(),
        ..MsgData::default()
    }
}

/// How a login differs from the plain one.
#[derive(Clone, Debug)]
pub struct Options {
    /// `sdkType` and `compression`.
    pub variant: Variant,
    /// More query arguments, each beginning with `&`.
    pub extra: String,
}

impl Default for Options {
    fn default() -> Self {
        Self { variant: Variant { encoding: Encoding::Gob, gzip: false }, extra: String::new() }
    }
}

/// What the gateway sent.
#[derive(Debug)]
pub enum Frame {
    /// A reply or a push.
    Response(OwnedResponse),
    /// A text message.
    Text(String),
    /// A ping or pong.
    Control,
    /// A close frame with its code.
    Close(Option<u16>),
    /// The end of the stream, and why.
    Gone(String),
}

/// Whoever says nothing for 30 s is closed; a client that reads pings this often, as the SDKs do.
const PING_INTERVAL: Duration = Duration::from_secs(5);
/// In our pings, so that their pongs are not taken for anything else.
const PING: &[u8] = b"harness";

/// A logged-in client.
pub struct Client {
    socket: WebSocket<TcpStream>,
    codec: Codec,
    variant: Variant,
    user: String,
    sent: u64,
    pinged: Instant,
    /// Read while waiting for something else.
    waiting: VecDeque<Frame>,
}

impl Client {
    /// Connects and upgrades. The error is the HTTP answer's status and body, or what else went wrong.
    pub fn connect(
        address: SocketAddr,
        user: &str,
        platform: i64,
        token: &str,
        options: &Options,
    ) -> Result<Self, String> {
        let variant = options.variant;
        let sdk = if variant.encoding == Encoding::Json { "js" } else { "go" };
        let gzip = if variant.gzip { "&compression=gzip" } else { "" };
        let url = format!(
            "ws://{address}/?sendID={user}&token={token}&platformID={platform}&operationID=it&isBackground=false\
             &sdkType={sdk}{gzip}{}",
            options.extra
        );
        let stream = TcpStream::connect_timeout(&address, DEADLINE).map_err(|e| e.to_string())?;
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream.set_nodelay(true).unwrap();
        let socket = match tungstenite::client(url, stream) {
            Ok((socket, _)) => socket,
            Err(HandshakeError::Failure(Error::Http(answer))) => {
                let body = answer.body().as_deref().unwrap_or_default();
                return Err(format!("{} {}", answer.status().as_u16(), String::from_utf8_lossy(body)));
            }
            Err(e) => return Err(e.to_string()),
        };
        Ok(Self {
            socket,
            codec: Codec::default(),
            variant,
            user: user.to_owned(),
            sent: 0,
            pinged: Instant::now(),
            waiting: VecDeque::new(),
        })
    }

    /// Sends a request; returns its `MsgIncr`.
    pub fn send(&mut self, id: i32, data: &impl prost::Message) -> String {
        self.sent += 1;
        let msg_incr = format!("{}_{}", self.user, self.sent);
        let request = Request {
            id,
            send_id: self.user.as_str().into(),
            operation_id: format!("op-{}", self.sent).into(),
            msg_incr: msg_incr.as_str().into(),
            data: data.encode_to_vec().into(),
        };
        let payload = self.codec.encode_request(self.variant, &request);
        self.socket.send(Message::Binary(payload.into())).unwrap();
        msg_incr
    }

    /// Sends a request and waits for its reply; what else comes is kept.
    pub fn request(&mut self, id: i32, data: &impl prost::Message) -> OwnedResponse {
        let msg_incr = self.send(id, data);
        self.until(|frame| match frame {
            Frame::Response(response) if response.msg_incr == msg_incr => Ok(response),
            other => Err(other),
        })
    }

    /// Waits for a push; what else comes is kept.
    pub fn push(&mut self) -> PushMessages {
        let response = self.until(|frame| match frame {
            Frame::Response(response) if response.id == 2001 => Ok(response),
            other => Err(other),
        });
        PushMessages::decode(response.data.unwrap_or_default()).unwrap()
    }

    /// Waits for the text of the next pushed text message of somebody else. (A sender's own message is pushed to all
    /// its devices.)
    pub fn pushed_text(&mut self) -> String {
        loop {
            let push = self.push();
            let message = &push.msgs.values().next().unwrap().msgs[0];
            if message.send_id != self.user {
                let content: serde_json::Value = serde_json::from_slice(&message.content).unwrap();
                return content["content"].as_str().unwrap().to_owned();
            }
        }
    }

    /// The next frame, in order.
    pub fn next(&mut self) -> Frame {
        self.waiting.pop_front().unwrap_or_else(|| self.read())
    }

    /// Reads to the end; gives the close frame's code, or `None` without such a frame.
    pub fn closed(&mut self) -> Option<Option<u16>> {
        let mut code = None;
        loop {
            match self.next() {
                Frame::Close(sent) => code = Some(sent),
                Frame::Gone(_) => return code,
                Frame::Response(_) | Frame::Text(_) | Frame::Control => {}
            }
        }
    }

    /// Sends any message.
    pub fn send_raw(&mut self, message: Message) {
        self.socket.send(message).unwrap();
    }

    /// As [`Client::send_raw`], to a gateway that may have closed.
    pub fn send_raw_unless_gone(&mut self, message: Message) {
        let _ = self.socket.send(message);
    }

    fn until<T>(&mut self, mut wanted: impl FnMut(Frame) -> Result<T, Frame>) -> T {
        let start = Instant::now();
        let mut kept = VecDeque::new();
        loop {
            match wanted(self.next()) {
                Ok(found) => {
                    kept.append(&mut self.waiting);
                    self.waiting = kept;
                    return found;
                }
                Err(Frame::Gone(why)) => panic!("{} lost its connection: {why}; before: {kept:?}", self.user),
                Err(other) => kept.push_back(other),
            }
            assert!(start.elapsed() < DEADLINE, "{} waited in vain; got {kept:?}", self.user);
        }
    }

    fn read(&mut self) -> Frame {
        if self.pinged.elapsed() > PING_INTERVAL {
            self.pinged = Instant::now();
            self.send_raw_unless_gone(Message::Ping(PING.into()));
        }
        match self.socket.read() {
            Ok(Message::Pong(payload)) if payload == PING => self.read(),
            Ok(Message::Binary(payload)) => {
                let decoded = self.codec.decode_response(self.variant, &payload);
                Frame::Response(decoded.unwrap_or_else(|e| panic!("{e:?}: {payload:02x?}")))
            }
            Ok(Message::Text(text)) => Frame::Text(text.as_str().to_owned()),
            Ok(Message::Close(frame)) => Frame::Close(frame.map(|frame| frame.code.into())),
            Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_)) => Frame::Control,
            Err(e) => Frame::Gone(e.to_string()),
        }
    }
}
