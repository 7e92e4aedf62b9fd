//! The head of a request to the assign listener, and what it asks. Pure: bytes to values.

use percent_encoding::percent_decode_str;

use crate::ids::Platform;
use crate::limits::{ASSIGN_HEAD_BYTES, ASSIGN_HEADERS_MAX};

/// A request without a body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::rpc) struct Head {
    pub(in crate::rpc) method: Method,
    /// Path and query, as sent.
    pub(super) target: String,
    /// Of the page that asks.
    pub(super) origin: Option<String>,
    /// What a proxy says of the client.
    pub(super) forwarded_for: Option<String>,
    /// Whether the connection may be used again.
    pub(super) persists: bool,
    /// A body comes, which nobody reads.
    pub(super) has_body: bool,
}

/// Those that mean something here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::rpc) enum Method {
    Get,
    Head,
    Options,
    Other,
}

/// Why a head is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::rpc) enum HeadFault {
    /// It is no HTTP/1.
    Malformed,
    /// More bytes or lines than are read.
    TooLong,
    /// It does not come.
    TooSlow,
}

/// A head and its length; `None`: not all of it is there.
pub(in crate::rpc) fn parse(received: &[u8]) -> Result<Option<(Head, usize)>, HeadFault> {
    let mut lines = [httparse::EMPTY_HEADER; ASSIGN_HEADERS_MAX];
    let mut request = httparse::Request::new(&mut lines);
    let length = match request.parse(received) {
        Ok(httparse::Status::Complete(length)) if length <= ASSIGN_HEAD_BYTES => length,
        Ok(httparse::Status::Partial) if received.len() < ASSIGN_HEAD_BYTES => return Ok(None),
        Ok(_) | Err(httparse::Error::TooManyHeaders) => return Err(HeadFault::TooLong),
        Err(_) => return Err(HeadFault::Malformed),
    };
    let text = |name: &str| {
        let found = request.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name))?;
        std::str::from_utf8(found.value).ok().map(|text| text.trim().to_owned())
    };
    let closes = text("connection")
        .is_some_and(|value| value.split(',').any(|option| option.trim().eq_ignore_ascii_case("close")));
    let method = match request.method {
        Some("GET") => Method::Get,
        Some("HEAD") => Method::Head,
        Some("OPTIONS") => Method::Options,
        _ => Method::Other,
    };
    let has_body =
        text("transfer-encoding").is_some() || text("content-length").is_some_and(|length| length != "0");
    let head = Head {
        method,
        target: without_authority(request.path.unwrap_or_default()).to_owned(),
        origin: text("origin"),
        forwarded_for: text("x-forwarded-for"),
        persists: request.version == Some(1) && !closes && !has_body,
        has_body,
    };
    Ok(Some((head, length)))
}

/// A proxy may be sent `http://host/path` and hand it on (RFC 9112, 3.2.2).
fn without_authority(target: &str) -> &str {
    let Some((_, rest)) = target.split_once("://").filter(|_| !target.starts_with('/')) else {
        return target;
    };
    rest.find('/').and_then(|at| rest.get(at..)).unwrap_or("/")
}

impl Head {
    /// Without the query.
    pub(in crate::rpc) fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or_default()
    }
}

/// What a client asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Question {
    pub(super) user: String,
    pub(super) platform: Option<Platform>,
    pub(super) labels: Vec<(String, String)>,
}

impl Question {
    /// Of `userID=U&platformID=P&label.NAME=VALUE`; other arguments are for others. Of two with one name the first
    /// counts. `+` stands for itself, as in the handshake.
    ///
    /// # Errors
    /// What is wrong with it, and what to write.
    pub(super) fn of(target: &str) -> Result<Self, String> {
        let query = target.split_once('?').map(|(_, query)| query).unwrap_or_default();
        let (mut user, mut platform, mut labels) = (None, None, Vec::new());
        for pair in query.split('&') {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let decoded = || {
                let text = percent_decode_str(value).decode_utf8();
                text.map(std::borrow::Cow::into_owned).map_err(|_| format!("{name}: not UTF-8"))
            };
            match name {
                "userID" if user.is_none() => user = Some(decoded()?),
                "platformID" if platform.is_none() && !value.is_empty() => {
                    let found = value.parse().ok().and_then(Platform::new);
                    platform = Some(found.ok_or_else(|| {
                        "platformID: expected one of OpenIM's platforms, 1 to 11".to_owned()
                    })?);
                }
                _ => {
                    let label = name.strip_prefix("label.").filter(|label| !label.is_empty());
                    labels.extend(
                        label.map(|label| Ok::<_, String>((label.to_owned(), decoded()?))).transpose()?,
                    );
                }
            }
        }
        match user.filter(|user| !user.is_empty()) {
            Some(user) => Ok(Self { user, platform, labels }),
            None => Err("userID: expected, as in /v1/assign?userID=U&platformID=P".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(text: &str) -> Result<Option<(Head, usize)>, HeadFault> {
        parse(text.as_bytes())
    }

    #[test]
    fn heads_are_read_however_they_are_cut() {
        let text = "GET /v1/assign?userID=u HTTP/1.1\r\nHost:a\r\nORIGIN: https://x\r\nx-forwarded-for:1.2.3.4\r\n\r\n";
        for end in 0..text.len() {
            assert_eq!(head(&text[..end]), Ok(None), "{end}");
        }
        let (found, length) = head(&format!("{text}GET")).unwrap().unwrap();
        assert_eq!(length, text.len());
        assert_eq!((found.method, found.path()), (Method::Get, "/v1/assign"));
        assert_eq!(
            (found.origin.as_deref(), found.forwarded_for.as_deref()),
            (Some("https://x"), Some("1.2.3.4"))
        );
        assert!(found.persists && !found.has_body);
    }

    #[test]
    fn what_ends_the_connection() {
        for (text, persists, has_body) in [
            ("GET / HTTP/1.1\r\n\r\n", true, false),
            ("GET / HTTP/1.0\r\n\r\n", false, false),
            ("GET / HTTP/1.1\r\nConnection: foo, Close\r\n\r\n", false, false),
            ("GET / HTTP/1.1\r\nContent-Length: 0\r\n\r\n", true, false),
            ("GET / HTTP/1.1\r\nContent-Length: 5\r\n\r\n", false, true),
            ("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", false, true),
        ] {
            let (found, _) = head(text).unwrap().unwrap();
            assert_eq!((found.persists, found.has_body), (persists, has_body), "{text}");
        }
    }

    #[test]
    fn a_head_has_its_limit_of_bytes_and_lines_and_has_to_be_http() {
        let line = "GET / HTTP/1.1\r\nA: ";
        let fill = |bytes: usize| format!("{line}{}\r\n\r\n", "x".repeat(bytes - line.len() - 4));
        assert!(head(&fill(ASSIGN_HEAD_BYTES)).unwrap().is_some());
        assert_eq!(head(&fill(ASSIGN_HEAD_BYTES + 1)), Err(HeadFault::TooLong));
        assert_eq!(head(&fill(ASSIGN_HEAD_BYTES + 4)[..ASSIGN_HEAD_BYTES]), Err(HeadFault::TooLong));
        let lines = |count: usize| format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(count));
        assert!(head(&lines(ASSIGN_HEADERS_MAX)).unwrap().is_some());
        assert_eq!(head(&lines(ASSIGN_HEADERS_MAX + 1)), Err(HeadFault::TooLong));
        for text in
            ["\u{1}\r\n\r\n", "GET\r\n\r\n", "GET / HTTP/2.0\r\n\r\n", "GET / HTTP/1.1\r\nb a d\r\n\r\n"]
        {
            assert_eq!(head(text), Err(HeadFault::Malformed), "{text:?}");
        }
    }

    #[test]
    fn a_target_with_a_host_is_its_path() {
        for (target, want) in [
            ("http://a:1/v1/assign?x=y", "/v1/assign?x=y"),
            ("http://a", "/"),
            ("/go?to=http://b/c", "/go?to=http://b/c"),
            ("*", "*"),
        ] {
            assert_eq!(without_authority(target), want);
        }
    }

    #[test]
    fn questions() {
        let labels = vec![("region".to_owned(), "eu".to_owned()), ("tenant".to_owned(), "a b".to_owned())];
        let target =
            "/v1/assign?token=t&userID=%C3%A4+1&platformID=5&label.region=eu&label.tenant=a%20b&userID=z";
        let want = Question { user: "ä+1".to_owned(), platform: Platform::new(5), labels };
        assert_eq!(Question::of(target), Ok(want));
        assert_eq!(Question::of("/v1/assign?userID=u&platformID=").unwrap().platform, None);
        for bad in [
            "/v1/assign",
            "/v1/assign?userID=",
            "/v1/assign?userid=u",
            "/v1/assign?userID=%ff",
            "/v1/assign?userID=u&platformID=0",
            "/v1/assign?userID=u&platformID=12",
            "/v1/assign?userID=u&platformID=Web",
            "/v1/assign?userID=u&label.a=%ff",
        ] {
            assert!(Question::of(bad).is_err(), "{bad}");
        }
    }
}
