//! The HTTP/1.1 head of a handshake and the answers to it (RFC 6455 section 4.2, spec 1.1 to 1.4).
//!
//! Not here: what the arguments in the target mean (`session::handshake`). A body, if the head announces one, is never
//! read: whatever the answer is, the connection closes or becomes a WebSocket.

use base64::Engine as _;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD};
use serde::{Deserialize, Serialize};
use sha1::{Digest, Sha1};

use crate::limits;

/// A parsed request head, reduced to what the gateway looks at. Owned, so that it can change shards.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// Path and query as sent. Begins with a slash.
    pub target: Box<str>,
    /// Header `compression` (spec 1.2).
    pub compression: Option<Box<str>>,
    /// All headers `X-Forwarded-For`, joined by commas: a proxy may add a line of its own behind the client's.
    pub forwarded_for: Option<Box<str>>,
    /// `Sec-WebSocket-Accept` to answer with, or why this is no upgrade; looked at only after the token check.
    pub upgrade: Result<AcceptKey, UpgradeFault>,
}

/// The 28 base64 characters of `Sec-WebSocket-Accept`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AcceptKey([u8; 20]);

/// Spec 1.1: checks in order, each with its status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum UpgradeFault {
    /// 400.
    NoConnectionUpgrade,
    /// 400.
    NoUpgradeWebsocket,
    /// 405.
    NotGet,
    /// 400.
    BadVersion,
    /// 400.
    BadKey,
}

/// Why bytes are no head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeadFault {
    /// Not HTTP/1.1: 400.
    Malformed,
    /// Above [`limits::HEAD_BYTES_MAX`] or [`limits::HEADERS_MAX`]: 431.
    TooLong,
}

impl HeadFault {
    /// For [`bad_head`].
    pub fn status(self) -> u16 {
        match self {
            Self::Malformed => 400,
            Self::TooLong => 431,
        }
    }
}

/// RFC 6455 section 1.3.
const ACCEPT_GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// Up to this many bytes an incomplete head is parsed again on each call, so that garbage is refused at once. Above,
/// only when its end is there: a head that trickles in byte by byte must not cost the square of its length.
const EAGER_BYTES_MAX: usize = 1024;

/// As Go decodes: bits after the last byte need not be zero.
const LENIENT_BASE64: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true),
);

impl AcceptKey {
    /// The answer to a `Sec-WebSocket-Key` (RFC 6455 section 4.2.2). The client side checks the 101 with it.
    pub fn answer_to(key: &[u8]) -> Self {
        Self(Sha1::new().chain_update(key).chain_update(ACCEPT_GUID).finalize().into())
    }

    /// The header's value.
    pub fn text(self) -> String {
        STANDARD.encode(self.0)
    }
}

/// Parses a head. `Ok(None)`: more bytes are needed. `Ok(Some((head, n)))`: the head took the first `n` bytes.
///
/// # Errors
/// See [`HeadFault`]. Also for HTTP/1.0 and for the preface of HTTP/2.
pub fn parse(bytes: &[u8]) -> Result<Option<(Head, usize)>, HeadFault> {
    let complete = bytes.len() <= EAGER_BYTES_MAX || has_blank_line(bytes);
    if !complete {
        return too_long_or_wait(bytes);
    }
    let mut headers = [httparse::EMPTY_HEADER; limits::HEADERS_MAX];
    let mut request = httparse::Request::new(&mut headers);
    let head_bytes = match request.parse(bytes) {
        Ok(httparse::Status::Complete(n)) => n,
        Ok(httparse::Status::Partial) => return too_long_or_wait(bytes),
        Err(httparse::Error::TooManyHeaders) => return Err(HeadFault::TooLong),
        Err(_) => return Err(HeadFault::Malformed),
    };
    if head_bytes > limits::HEAD_BYTES_MAX {
        return Err(HeadFault::TooLong);
    }
    let (Some(1), Some(method), Some(path)) = (request.version, request.method, request.path) else {
        return Err(HeadFault::Malformed);
    };
    let target = origin_form(path).ok_or(HeadFault::Malformed)?;
    let headers = Headers(request.headers);
    let head = Head {
        target,
        compression: headers.first("compression"),
        forwarded_for: headers.joined("x-forwarded-for"),
        upgrade: check_upgrade(method, &headers),
    };
    Ok(Some((head, head_bytes)))
}

fn too_long_or_wait<T>(bytes: &[u8]) -> Result<Option<T>, HeadFault> {
    if bytes.len() >= limits::HEAD_BYTES_MAX { Err(HeadFault::TooLong) } else { Ok(None) }
}

fn has_blank_line(bytes: &[u8]) -> bool {
    memchr::memmem::find(bytes, b"\n\r\n").is_some() || memchr::memmem::find(bytes, b"\n\n").is_some()
}

/// The target without `http://authority` in front. `None`: neither form of RFC 9112 section 3.2 that a gateway answers.
fn origin_form(target: &str) -> Option<Box<str>> {
    let local = match target.split_once("://") {
        Some((scheme, rest)) if scheme.bytes().all(|b| b.is_ascii_alphanumeric()) => {
            rest.find(['/', '?']).and_then(|at| rest.get(at..)).unwrap_or_default()
        }
        _ => target,
    };
    match local.as_bytes().first() {
        Some(b'/') => Some(local.into()),
        Some(b'?') => Some(format!("/{local}").into()),
        None if !target.is_empty() => Some("/".into()),
        _ => None,
    }
}

/// The checks of spec 1.1, in order.
fn check_upgrade(method: &str, headers: &Headers<'_, '_>) -> Result<AcceptKey, UpgradeFault> {
    if !headers.has_token("connection", "upgrade") {
        return Err(UpgradeFault::NoConnectionUpgrade);
    }
    if !headers.has_token("upgrade", "websocket") {
        return Err(UpgradeFault::NoUpgradeWebsocket);
    }
    if method != "GET" {
        return Err(UpgradeFault::NotGet);
    }
    if !headers.has_token("sec-websocket-version", "13") {
        return Err(UpgradeFault::BadVersion);
    }
    let key = headers.values("sec-websocket-key").next().unwrap_or_default().trim_ascii();
    match LENIENT_BASE64.decode(key) {
        Ok(nonce) if nonce.len() == 16 => Ok(AcceptKey::answer_to(key)),
        _ => Err(UpgradeFault::BadKey),
    }
}

struct Headers<'h, 'b>(&'h [httparse::Header<'b>]);

impl Headers<'_, '_> {
    fn values<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
        self.0.iter().filter(move |header| header.name.eq_ignore_ascii_case(name)).map(|header| header.value)
    }

    fn first(&self, name: &str) -> Option<Box<str>> {
        self.values(name).next().map(|value| String::from_utf8_lossy(value).into())
    }

    fn joined(&self, name: &str) -> Option<Box<str>> {
        let values: Vec<_> = self.values(name).map(String::from_utf8_lossy).collect();
        (!values.is_empty()).then(|| values.join(",").into())
    }

    /// Whether one of the comma-separated values is `token`.
    fn has_token(&self, name: &str, token: &str) -> bool {
        self.values(name)
            .flat_map(|value| value.split(|byte| *byte == b','))
            .any(|value| value.trim_ascii().eq_ignore_ascii_case(token.as_bytes()))
    }
}

/// The 101 response: exactly these three headers (spec 1.1).
pub fn switching(accept: AcceptKey) -> Vec<u8> {
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {}\r\n\r\n",
        accept.text()
    )
    .into_bytes()
}

/// The plain-text answer to a failed upgrade check (spec 1.1).
pub fn refused_upgrade(fault: UpgradeFault) -> Vec<u8> {
    let status = if fault == UpgradeFault::NotGet { 405 } else { 400 };
    plain(status, "Sec-Websocket-Version: 13\r\n")
}

/// HTTP 200 with OpenIM's JSON error body (spec 1.3).
pub fn refused(json: &str) -> Vec<u8> {
    let length = json.len();
    format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/json; charset=utf-8\r\nContent-Length: {length}\r\n\
         Connection: close\r\n\r\n{json}"
    )
    .into_bytes()
}

/// 503 without JSON: transient refusals (spec trap 1). `Connection: close`, `Retry-After: 1`.
pub fn unavailable() -> Vec<u8> {
    plain(503, "Retry-After: 1\r\n")
}

/// 400, 408 or 431 for a head that is malformed, too slow or too long.
pub fn bad_head(status: u16) -> Vec<u8> {
    plain(status, "")
}

/// 502 or 504 of a proxy whose gateways cannot be reached or do not answer. Without JSON, so that every SDK tries again
/// (spec trap 1).
pub fn bad_gateway(status: u16) -> Vec<u8> {
    plain(status, "Retry-After: 1\r\n")
}

/// 301 to the cleaned path (spec 1.1). `location` comes from a parsed target: it has no control characters.
pub fn moved(location: &str) -> Vec<u8> {
    plain(301, &format!("Location: {location}\r\n"))
}

/// An answer whose body is the status text and a line feed, as Go writes it.
fn plain(status: u16, headers: &str) -> Vec<u8> {
    let text = match status {
        301 => "Moved Permanently",
        400 => "Bad Request",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        431 => "Request Header Fields Too Large",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        _ => "Error",
    };
    let length = text.len() + 1;
    format!(
        "HTTP/1.1 {status} {text}\r\n{headers}Content-Type: text/plain; charset=utf-8\r\n\
         Content-Length: {length}\r\nConnection: close\r\n\r\n{text}\n"
    )
    .into_bytes()
}

#[cfg(test)]
mod tests;
