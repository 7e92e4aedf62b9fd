//! The HTTP/1.1 head of a handshake and the answers to it (RFC 6455 section 4.2, spec 1.1 to 1.4).

/// A parsed request head, reduced to what the gateway looks at. Owned, so that it can change shards.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// Path and query as sent.
    pub target: Box<str>,
    /// Header `compression` (spec 1.2).
    pub compression: Option<Box<str>>,
    /// Header `X-Forwarded-For`.
    pub forwarded_for: Option<Box<str>>,
    /// `Sec-WebSocket-Accept` to answer with, or why this is no upgrade; looked at only after the token check.
    pub upgrade: Result<AcceptKey, UpgradeFault>,
}

/// The 28 base64 characters of `Sec-WebSocket-Accept`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct AcceptKey([u8; 20]);

/// Spec 1.1: checks in order, each with its status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum UpgradeFault {
    NoConnectionUpgrade,
    NoUpgradeWebsocket,
    NotGet,
    BadVersion,
    BadKey,
}

/// Why bytes are no head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeadFault {
    Malformed,
    TooLong,
}

/// Parses a head. `Ok(None)`: more bytes are needed. `Ok(Some((head, n)))`: the head took the first `n` bytes.
pub fn parse(bytes: &[u8]) -> Result<Option<(Head, usize)>, HeadFault> {
    let _ = bytes;
    todo!()
}

/// The 101 response.
pub fn switching(accept: AcceptKey) -> Vec<u8> {
    let _ = accept;
    todo!()
}
/// The plain-text answer to a failed upgrade check (spec 1.1).
pub fn refused_upgrade(fault: UpgradeFault) -> Vec<u8> {
    let _ = fault;
    todo!()
}
/// HTTP 200 with OpenIM's JSON error body (spec 1.3).
pub fn refused(json: &str) -> Vec<u8> {
    let _ = json;
    todo!()
}
/// 503 without JSON: transient refusals (spec trap 1). `Connection: close`, `Retry-After: 1`.
pub fn unavailable() -> Vec<u8> {
    todo!()
}
/// 400, 408 or 431 for a head that is malformed, too slow or too long.
pub fn bad_head(status: u16) -> Vec<u8> {
    let _ = status;
    todo!()
}
