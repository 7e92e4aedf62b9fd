//! A WebSocket client over a blocking socket, for `pinion listen`: the project's own wire code from the other side.
//!
//! Not here: what frames mean (`frames`), when to reconnect (`listen`).

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

use crate::limits::{CLIENT_CONNECT_MS, FRAME_SENT_BYTES_MAX, HEAD_BYTES_MAX, SCRATCH_BYTES};
use crate::wire::frame::{self, Opcode};
use crate::wire::message::{Event, Inbound, ReadLimits};
use crate::wire::upgrade::AcceptKey;

/// How long a read waits before it gives the caller a chance to ping.
const READ_TICK: Duration = Duration::from_millis(500);
/// Mask and key need not be secret here: masking protects proxies from browsers' scripts (RFC 6455 section 10.3), and
/// nothing that this client sends is chosen by a stranger.
const MASK: [u8; 4] = *b"pini";
const KEY: [u8; 16] = *b"pinion listener!";

/// What one read brought.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Got {
    /// A data message.
    Message {
        /// Opcode 1; otherwise binary.
        text: bool,
        /// Whole.
        payload: Vec<u8>,
    },
    /// The gateway pinged; the pong has been sent.
    Ping,
    /// The gateway answered a ping.
    Pong,
    /// The gateway closes with this code; nothing follows.
    Close(Option<u16>),
}

/// Why there is no connection.
#[derive(Debug)]
pub(super) enum Refused {
    /// The gateway answered with OpenIM's JSON error (spec 1.3).
    Json {
        /// `errCode`.
        code: i64,
        /// The whole body.
        body: String,
    },
    /// Anything else, in words.
    Other(String),
}

/// Where a URL of the form `ws://host:port` points.
pub(super) fn host_of(url: &str) -> Result<&str, String> {
    let rest = url.strip_prefix("ws://").ok_or_else(|| {
        format!("{url:?}: expected ws://HOST:PORT (TLS ends in front of the gateway), for example ws://127.0.0.1:10001")
    })?;
    let host = rest.trim_end_matches('/');
    if host.is_empty() || host.contains(['/', '?', '#', '@']) || host.chars().any(char::is_whitespace) {
        return Err(format!("{url:?}: expected ws://HOST:PORT without a path"));
    }
    Ok(host)
}

/// An open connection.
pub(super) struct Client {
    socket: TcpStream,
    inbound: Inbound,
    scratch: Box<[u8]>,
    /// Bytes that came behind the 101.
    early: Vec<u8>,
}

impl Client {
    /// Connects and upgrades.
    pub(super) fn connect(host: &str, target: &str) -> Result<Self, Refused> {
        let other = |e: std::io::Error| Refused::Other(e.to_string());
        let socket = dial(host).map_err(Refused::Other)?;
        socket.set_nodelay(true).map_err(other)?;
        socket.set_read_timeout(Some(Duration::from_millis(CLIENT_CONNECT_MS))).map_err(other)?;
        socket.set_write_timeout(Some(Duration::from_millis(CLIENT_CONNECT_MS))).map_err(other)?;
        let key = BASE64_STANDARD.encode(KEY);
        let head = format!(
            "GET {target} HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n"
        );
        (&socket).write_all(head.as_bytes()).map_err(other)?;
        let early = read_answer(&socket, &AcceptKey::answer_to(key.as_bytes()).text())?;
        socket.set_read_timeout(Some(READ_TICK)).map_err(other)?;
        Ok(Self {
            socket,
            inbound: Inbound::default(),
            scratch: vec![0; SCRATCH_BYTES].into_boxed_slice(),
            early,
        })
    }

    /// Waits a short while for frames and adds them to `got`. Answers pings. An error ends the connection.
    pub(super) fn read(&mut self, got: &mut Vec<Got>) -> Result<(), String> {
        let mut early = std::mem::take(&mut self.early);
        let input = if early.is_empty() {
            match self.socket.read(&mut self.scratch) {
                Ok(0) => return Err("the gateway closed the connection".into()),
                Ok(n) => self.scratch.get_mut(..n).unwrap_or_default(),
                Err(e) if is_tick(&e) => return Ok(()),
                Err(e) => return Err(e.to_string()),
            }
        } else {
            early.as_mut_slice()
        };
        // The SDKs' own read limit: what is larger would not reach a user either.
        let limits = ReadLimits::client(FRAME_SENT_BYTES_MAX);
        let mut feed = self.inbound.feed(input, &limits);
        let mut pongs = Vec::new();
        while let Some(event) = feed.next().map_err(|fault| fault.reason().to_owned())? {
            got.push(match event {
                Event::Message { text, payload } => Got::Message { text, payload: payload.to_vec() },
                Event::Ping(payload) => {
                    pongs.push(frame::masked(Opcode::Pong, payload, MASK));
                    Got::Ping
                }
                Event::Pong(_) => Got::Pong,
                Event::Close(code) => Got::Close(code),
            });
        }
        pongs.iter().try_for_each(|pong| self.write(pong))
    }

    /// Sends a ping; any answer keeps the read deadline of the gateway and ours.
    pub(super) fn ping(&mut self) -> Result<(), String> {
        self.write(&frame::masked(Opcode::Ping, b"pinion", MASK))
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), String> {
        self.socket.write_all(bytes).map_err(|e| e.to_string())
    }
}

fn is_tick(e: &std::io::Error) -> bool {
    matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted)
}

/// Connects to the first address of a host that answers.
pub(super) fn dial(host: &str) -> Result<TcpStream, String> {
    let addresses: Vec<SocketAddr> = host.to_socket_addrs().map_err(|e| format!("{host}: {e}"))?.collect();
    let mut last = format!("{host}: no address");
    for address in addresses {
        match TcpStream::connect_timeout(&address, Duration::from_millis(CLIENT_CONNECT_MS)) {
            Ok(socket) => return Ok(socket),
            Err(e) => last = format!("{address}: {e}"),
        }
    }
    Err(last)
}

/// Reads the answer to the upgrade; returns what came behind it.
fn read_answer(mut socket: &TcpStream, accept: &str) -> Result<Vec<u8>, Refused> {
    let mut bytes = Vec::new();
    loop {
        let mut headers = [httparse::EMPTY_HEADER; 32];
        let mut answer = httparse::Response::new(&mut headers);
        let parsed =
            answer.parse(&bytes).map_err(|e| Refused::Other(format!("the answer is not HTTP: {e}")))?;
        if let httparse::Status::Complete(n) = parsed {
            let rest = bytes.get(n..).unwrap_or_default().to_vec();
            if answer.code != Some(101) {
                let status = format!("{} {}", answer.code.unwrap_or(0), answer.reason.unwrap_or(""));
                return Err(refusal(socket, rest, &status));
            }
            let confirmed = answer
                .headers
                .iter()
                .any(|h| h.name.eq_ignore_ascii_case("sec-websocket-accept") && h.value == accept.as_bytes());
            return if confirmed {
                Ok(rest)
            } else {
                Err(Refused::Other("the answer does not belong to our key".into()))
            };
        }
        if bytes.len() > HEAD_BYTES_MAX {
            return Err(Refused::Other("the answer's head is too long".into()));
        }
        let mut chunk = [0; 4096];
        match socket.read(&mut chunk) {
            Ok(0) => return Err(Refused::Other("closed before the upgrade was answered".into())),
            Ok(n) => bytes.extend_from_slice(chunk.get(..n).unwrap_or_default()),
            Err(e) => return Err(Refused::Other(format!("no answer to the upgrade: {e}"))),
        }
    }
}

/// What an answer other than 101 says. The gateway closes after it, so its body ends with the stream.
fn refusal(socket: &TcpStream, mut body: Vec<u8>, status: &str) -> Refused {
    let room = u64::try_from(HEAD_BYTES_MAX).unwrap_or(u64::MAX);
    if let Err(e) = socket.take(room).read_to_end(&mut body) {
        tracing::debug!("the body ended early: {e}");
    }
    let body = String::from_utf8_lossy(&body).trim().to_owned();
    let json = serde_json::from_str::<serde_json::Value>(&body);
    match json.iter().find_map(|json| json.get("errCode")?.as_i64()) {
        Some(code) => Refused::Json { code, body },
        None => Refused::Other(format!("{status} {body}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_name_a_host_and_nothing_else() {
        for (url, want) in [
            ("ws://127.0.0.1:10001", Some("127.0.0.1:10001")),
            ("ws://[::1]:10001/", Some("[::1]:10001")),
            ("wss://a:1", None),
            ("127.0.0.1:10001", None),
            ("ws://", None),
            ("ws://a:1/path", None),
            ("ws://a:1 b", None),
        ] {
            assert_eq!(host_of(url).ok(), want, "{url}");
        }
    }
}
