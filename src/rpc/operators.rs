//! What `pinion dispatch` and `pinion proxy` say to operators and load balancers: `/healthz`, `/readyz`, `/metrics`, by
//! GET or HEAD.
//!
//! Bytes and values, no sockets: a dispatcher has the assign API's `door` for them, a proxy, whose threads have no
//! runtime, its main thread (`node/proxy/admin`). Not here: a gateway's `admin`, which takes orders as well.

use super::assign::head::{self, Head, HeadFault, Method};
use super::assign::reply::{self, Part, Reply, Status, Then};

/// The counts of a process: content type and text, or why there are none.
pub type Metrics = Result<(&'static str, String), String>;

/// The answer to all that has come, after which the connection ends. `None`: the head is not complete. `readiness` is
/// a line about the process; `Err`: no client should come.
pub fn judge(
    received: &[u8],
    readiness: Result<&str, &str>,
    metrics: impl FnOnce() -> Metrics,
) -> Option<Vec<u8>> {
    let (reply, part) = match head::parse(received).transpose()? {
        Ok((head, _)) => (answer(&head, readiness, metrics), Part::of(head.method)),
        Err(fault) => (refuse(fault), Part::Whole),
    };
    Some(reply.bytes(part, Then::Close))
}

/// To a request; as [`judge`].
pub(super) fn answer(head: &Head, readiness: Result<&str, &str>, metrics: impl FnOnce() -> Metrics) -> Reply {
    if !matches!(head.method, Method::Get | Method::Head) {
        return text(reply::METHOD_NOT_ALLOWED, "only GET and HEAD\n").with("Allow: GET, HEAD\r\n");
    }
    match head.path() {
        "/healthz" => text(reply::OK, "ok\n"),
        "/readyz" => match readiness {
            Ok(said) => text(reply::OK, said),
            Err(why) => text(reply::UNAVAILABLE, why),
        },
        "/metrics" => match metrics() {
            Ok((content_type, counts)) => Reply { content_type, ..text(reply::OK, &counts) },
            Err(why) => text(reply::UNAVAILABLE, &format!("{why}\n")),
        },
        _ => text(reply::NOT_FOUND, "try one of /healthz, /readyz, /metrics\n"),
    }
}

/// To what is no request.
pub(super) fn refuse(fault: HeadFault) -> Reply {
    let status = match fault {
        HeadFault::Malformed => reply::BAD_REQUEST,
        HeadFault::TooLong => reply::HEAD_TOO_LARGE,
        HeadFault::TooSlow => reply::REQUEST_TIMEOUT,
    };
    text(status, &format!("{} {}\n", status.0, status.1))
}

fn text(status: Status, body: &str) -> Reply {
    let headers = "Cache-Control: no-store\r\n".to_owned();
    Reply { status, content_type: "text/plain; charset=utf-8", body: body.to_owned(), headers }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::ASSIGN_HEAD_BYTES;

    #[test]
    fn each_request_has_its_answer() {
        let long = format!("GET / HTTP/1.1\r\nX: {}", "x".repeat(ASSIGN_HEAD_BYTES));
        for (received, status, end) in [
            ("GET /healthz HTTP/1.1\r\n\r\n", "200 OK", "\r\n\r\nok\n"),
            ("HEAD /healthz HTTP/1.1\r\n\r\n", "200 OK", "\r\n\r\n"),
            ("GET /readyz?now HTTP/1.1\r\n\r\n", "503 Service Unavailable", "\r\n\r\ndraining\n"),
            ("GET /metrics HTTP/1.0\r\n\r\n", "200 OK", "\r\n\r\na 1\n"),
            ("GET / HTTP/1.1\r\n\r\n", "404 Not Found", "/metrics\n"),
            ("POST /readyz HTTP/1.1\r\n\r\n", "405 Method Not Allowed", "only GET and HEAD\n"),
            ("\x16\x03\x01", "400 Bad Request", "400 Bad Request\n"),
            (&long, "431 Request Header Fields Too Large", "Large\n"),
        ] {
            let answer = judge(received.as_bytes(), Err("draining\n"), || Ok(("text/x", "a 1\n".to_owned())));
            let answer = String::from_utf8(answer.unwrap()).unwrap();
            assert!(
                answer.starts_with(&format!("HTTP/1.1 {status}\r\n")) && answer.ends_with(end),
                "{answer}"
            );
            assert!(answer.contains("Connection: close\r\n"), "{answer}");
            assert_eq!(answer.contains("text/x"), received.contains("/metrics "), "{answer}");
        }
        assert_eq!(judge(b"GET /healthz HTTP/1.1\r\n", Ok(""), || Err(String::new())), None);
        let failed = judge(b"GET /metrics HTTP/1.1\r\n\r\n", Ok(""), || Err("no room".to_owned())).unwrap();
        assert!(failed.starts_with(b"HTTP/1.1 503 ") && failed.ends_with(b"\r\n\r\nno room\n"));
    }
}
