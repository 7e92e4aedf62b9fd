//! What the assign listener answers, as bytes: JSON bodies, and the headers for browsers and caches.
//!
//! A good answer, field by field:
//!
//! ```text
//! nodes[]     where to dial, best first: the user's home, then at most two alternatives
//!   url       what to dial; put the login's arguments behind it
//!   node      the node's id; null in a static answer
//! ttl_ms      the answer may be kept for so long; ask again before a connect that comes later
//! backoff     before attempt n (from 0) wait min(cap_ms, base_ms * factor^n), less up to `jitter` of it at random
//! rule        the rule that decided; null: none did
//! home        first: nodes[0] is the user's home; full: the home is nearly full and comes later; elsewhere: a rule
//!             leaves the home out, or it is not known
//! static      true: out of assign.fallback, since no member is known or none answers
//! ```
//!
//! An error has `error` (a word for programs) and `message` (a sentence for people).

use serde::Serialize;

use super::head::Method;
use crate::cluster::assign::{Assignment, Decided, Home};
use crate::config::Origins;
use crate::placement::view::NodeId;

/// An answer before its headers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::rpc) struct Reply {
    pub(in crate::rpc) status: Status,
    pub(in crate::rpc) content_type: &'static str,
    pub(in crate::rpc) body: String,
    /// Whole lines, without those that all answers have.
    pub(in crate::rpc) headers: String,
}

/// What of an answer is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::rpc) enum Part {
    /// Head and body.
    Whole,
    /// The answer to a HEAD: the headers that a GET would get.
    Head,
}

impl Part {
    /// What a request by this method gets.
    pub(in crate::rpc) fn of(method: Method) -> Self {
        if method == Method::Head { Self::Head } else { Self::Whole }
    }
}

/// What becomes of the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::rpc) enum Then {
    /// It stays for the next request.
    Stay,
    /// It is closed.
    Close,
}

/// Code and reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::rpc) struct Status(pub(in crate::rpc) u16, pub(in crate::rpc) &'static str);

pub(in crate::rpc) const OK: Status = Status(200, "OK");
pub(super) const NO_CONTENT: Status = Status(204, "No Content");
pub(in crate::rpc) const BAD_REQUEST: Status = Status(400, "Bad Request");
pub(in crate::rpc) const NOT_FOUND: Status = Status(404, "Not Found");
pub(in crate::rpc) const METHOD_NOT_ALLOWED: Status = Status(405, "Method Not Allowed");
pub(in crate::rpc) const REQUEST_TIMEOUT: Status = Status(408, "Request Timeout");
pub(super) const TOO_MANY_REQUESTS: Status = Status(429, "Too Many Requests");
pub(in crate::rpc) const HEAD_TOO_LARGE: Status = Status(431, "Request Header Fields Too Large");
pub(in crate::rpc) const UNAVAILABLE: Status = Status(503, "Service Unavailable");

const JSON: &str = "application/json";
const NO_STORE: &str = "Cache-Control: no-store\r\n";

#[derive(Serialize)]
struct Answer<'a> {
    nodes: Vec<Node<'a>>,
    ttl_ms: u64,
    backoff: Backoff,
    rule: Option<&'a str>,
    home: &'static str,
    #[serde(rename = "static")]
    is_static: bool,
}

#[derive(Serialize)]
struct Node<'a> {
    url: &'a str,
    node: Option<&'a str>,
}

#[derive(Serialize)]
struct Backoff {
    base_ms: u64,
    cap_ms: u64,
    factor: f64,
    jitter: f64,
}

#[derive(Serialize)]
struct Error<'a> {
    error: &'a str,
    message: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after_ms: Option<u64>,
}

impl Reply {
    /// Where to go.
    pub(super) fn assigned(found: &Assignment<'_>) -> Self {
        let answer = Answer {
            nodes: found
                .choices
                .iter()
                .map(|choice| Node { url: choice.url, node: choice.node_id.map(NodeId::as_str) })
                .collect(),
            ttl_ms: found.ttl_ms,
            backoff: Backoff {
                base_ms: found.backoff.first_ms,
                cap_ms: found.backoff.most_ms.max(found.backoff.first_ms),
                factor: f64::from(found.backoff.factor_percent) / 100.0,
                jitter: f64::from(found.backoff.jitter_percent) / 100.0,
            },
            rule: match found.decided {
                Decided::Rule(name) => Some(name),
                Decided::Placement | Decided::Fallback => None,
            },
            home: match found.home {
                Home::First => "first",
                Home::Full => "full",
                Home::Elsewhere => "elsewhere",
            },
            is_static: found.decided == Decided::Fallback,
        };
        // Whole seconds, rounded down: a cache must not keep it for longer than a client may.
        let headers = format!("Cache-Control: public, max-age={}\r\n", found.ttl_ms / 1_000);
        Self { status: OK, content_type: JSON, body: json(&answer), headers }
    }

    /// Why not; the client is to change what it asks.
    pub(super) fn refused(status: Status, error: &str, message: &str) -> Self {
        let body = json(&Error { error, message, retry_after_ms: None });
        Self { status, content_type: JSON, body, headers: NO_STORE.to_owned() }
    }

    /// Why not; the same may be asked again after so long.
    pub(super) fn later(status: Status, error: &str, message: &str, after_ms: u64) -> Self {
        let body = json(&Error { error, message, retry_after_ms: Some(after_ms) });
        let seconds = after_ms.div_ceil(1_000).max(1);
        let headers = format!("{NO_STORE}Retry-After: {seconds}\r\n");
        Self { status, content_type: JSON, body, headers }
    }

    /// Adds whole header lines.
    pub(in crate::rpc) fn with(mut self, lines: &str) -> Self {
        self.headers += lines;
        self
    }

    /// On the wire.
    pub(in crate::rpc) fn bytes(&self, part: Part, then: Then) -> Vec<u8> {
        let Status(code, reason) = self.status;
        let mut text = format!("HTTP/1.1 {code} {reason}\r\n");
        if self.status != NO_CONTENT {
            text +=
                &format!("Content-Type: {}\r\nContent-Length: {}\r\n", self.content_type, self.body.len());
        }
        text += &self.headers;
        if then == Then::Close {
            text += "Connection: close\r\n";
        }
        text += "\r\n";
        if part == Part::Whole {
            text += &self.body;
        }
        text.into_bytes()
    }
}

/// Names and numbers: it cannot fail, and an empty body would say so.
fn json(body: &impl Serialize) -> String {
    serde_json::to_string(body).map(|text| text + "\n").unwrap_or_default()
}

/// The headers by which browsers let a page of `origin` read an answer.
pub(super) fn cors(origins: &Origins, origin: Option<&str>) -> String {
    const SHOWN: &str = "Access-Control-Expose-Headers: Retry-After\r\n";
    match origins {
        Origins::None => String::new(),
        Origins::Any => format!("Access-Control-Allow-Origin: *\r\n{SHOWN}"),
        // A cache must not hand one site's answer to another's pages.
        Origins::Listed(listed) => {
            match origin.and_then(|origin| listed.iter().find(|known| *known == origin)) {
                Some(origin) => format!("Vary: Origin\r\nAccess-Control-Allow-Origin: {origin}\r\n{SHOWN}"),
                None => "Vary: Origin\r\n".to_owned(),
            }
        }
    }
}

/// The answer to a browser that asks first. Pages that may not read answers get none of the headers.
pub(super) fn preflight(cors: &str) -> Reply {
    let allowed = cors.contains("Access-Control-Allow-Origin");
    let methods = "Access-Control-Allow-Methods: GET, HEAD\r\nAccess-Control-Allow-Headers: *\r\n\
                   Access-Control-Max-Age: 86400\r\n";
    let headers = format!("Allow: GET, HEAD, OPTIONS\r\n{}", if allowed { methods } else { "" });
    Reply { status: NO_CONTENT, content_type: JSON, body: String::new(), headers }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::assign::Backoff as Given;
    use crate::cluster::assign::Choice;

    #[test]
    fn an_answer_has_all_its_fields() {
        let node = NodeId::new("gw-0").unwrap();
        let found = Assignment {
            choices: vec![
                Choice { url: "ws://a", node_id: Some(&node) },
                Choice { url: "ws://b", node_id: None },
            ],
            decided: Decided::Rule("acme"),
            home: Home::Full,
            passed_over: Vec::new(),
            ttl_ms: 1_999,
            backoff: Given { first_ms: 70_000, most_ms: 60_000, factor_percent: 150, jitter_percent: 50 },
        };
        let reply = Reply::assigned(&found);
        assert_eq!(
            reply.body,
            concat!(
                r#"{"nodes":[{"url":"ws://a","node":"gw-0"},{"url":"ws://b","node":null}],"ttl_ms":1999,"#,
                r#""backoff":{"base_ms":70000,"cap_ms":70000,"factor":1.5,"jitter":0.5},"#,
                r#""rule":"acme","home":"full","static":false}"#,
                "\n"
            )
        );
        assert_eq!(reply.headers, "Cache-Control: public, max-age=1\r\n");
        let whole = String::from_utf8(reply.bytes(Part::Whole, Then::Stay)).unwrap();
        assert!(whole.contains(&format!("Content-Length: {}\r\n", reply.body.len())), "{whole}");
        assert!(whole.ends_with(&reply.body) && !whole.contains("Connection"));
        let head = String::from_utf8(reply.bytes(Part::Head, Then::Close)).unwrap();
        assert!(head.ends_with("Connection: close\r\n\r\n") && head.contains("Content-Length: "), "{head}");
    }

    #[test]
    fn a_later_answer_says_when_in_whole_seconds_and_at_least_one() {
        for (ms, seconds) in [(1, 1), (1_000, 1), (1_001, 2)] {
            let reply = Reply::later(TOO_MANY_REQUESTS, "rate", "slower", ms);
            assert!(reply.headers.contains(&format!("Retry-After: {seconds}\r\n")), "{ms}");
            assert!(
                reply.headers.contains("no-store")
                    && reply.body.contains(&format!("\"retry_after_ms\":{ms}"))
            );
        }
    }

    #[test]
    fn pages_of_listed_sites_may_read() {
        let listed = Origins::Listed(vec!["https://a".into(), "https://b".into()]);
        for (origins, origin, want) in [
            (&Origins::Any, None, Some("*")),
            (&Origins::Any, Some("https://x"), Some("*")),
            (&Origins::None, Some("https://a"), None),
            (&listed, Some("https://b"), Some("https://b")),
            (&listed, Some("https://b.evil"), None),
            (&listed, None, None),
        ] {
            let headers = cors(origins, origin);
            let line = want.map(|want| format!("Access-Control-Allow-Origin: {want}\r\n"));
            assert_eq!(headers.contains("Allow-Origin"), want.is_some(), "{origin:?}");
            assert!(line.is_none_or(|line| headers.contains(&line)), "{headers}");
            assert_eq!(headers.contains("Vary"), matches!(origins, Origins::Listed(_)));
            assert_eq!(preflight(&headers).headers.contains("Allow-Methods"), want.is_some());
        }
    }
}
