//! One unary gRPC call on an HTTP/2 connection, client side: its head, its message out, its answer in.
//!
//! For the one-shot client of the command line (`client.rs`) and the channels to OpenIM's services (`channel/`). Not
//! here: connections, deadlines, retries, and what an answer means to who asked.

use std::future::poll_fn;

use bytes::Bytes;
use h2::client::ResponseFuture;
use h2::{RecvStream, SendStream};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};

use crate::limits::GRPC_MESSAGE_BYTES_MAX;
use crate::wire::grpc::{BodyFault, BodyMessage, Messages, Status, code, is_printable, timeout_value};

/// Keys of few values.
const FEW_VALUES: [&str; 1] = ["platform"];

/// The head of a call: what gRPC asks for, and metadata. Keys are lower-case.
///
/// Values that differ from call to call are never indexed (RFC 7541 6.2.3): indexed, each would push older ones out
/// of HPACK's table of 4 KiB at both ends, and no later call would find it there. 6 % of the CPU of a forwarded
/// request was such upkeep of the table (profile of `bench/openim.py forwarded`).
///
/// # Errors
/// The key whose value is not printable ASCII (spec 6.1: peers refuse it), or which is no key.
pub(super) fn headers<'a>(
    metadata: impl IntoIterator<Item = (&'a str, &'a str)>,
) -> Result<HeaderMap, &'a str> {
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert(header::TE, HeaderValue::from_static("trailers"));
    for (key, value) in metadata {
        let name = HeaderName::from_bytes(key.as_bytes());
        let value = HeaderValue::from_str(value).ok().filter(|_| is_printable(value));
        let (Ok(name), Some(mut value)) = (name, value) else {
            return Err(key);
        };
        value.set_sensitive(!FEW_VALUES.contains(&key));
        headers.append(name, value);
    }
    Ok(headers)
}

/// Puts the deadline into a head.
pub(super) fn set_timeout(headers: &mut HeaderMap, ms: u64) {
    // Digits and a letter are a value.
    if let Ok(value) = HeaderValue::try_from(timeout_value(ms)) {
        headers.insert("grpc-timeout", value);
    }
}

/// What a server said to a call.
#[derive(Debug)]
pub(super) enum Answer {
    /// OK, with its message.
    Message(Bytes),
    /// Another status. A message beside it is not looked at.
    Refused(Status),
    /// No `grpc-status`, and this HTTP status instead of 200.
    Http(StatusCode),
    /// OK without one message within the limit.
    Bad(BodyFault),
    /// It ended without a `grpc-status`.
    NoStatus,
    /// `keep` said no.
    TooMuch,
}

/// Sends the one message (behind its prefix) on a stream whose head is sent, and reads the answer. `keep` is asked
/// before so many more bytes of it are kept.
///
/// # Cancel safety
/// Dropped, the stream is reset.
pub(super) async fn exchange(
    response: ResponseFuture,
    mut stream: SendStream<Bytes>,
    framed: Bytes,
    keep: impl FnMut(usize) -> bool,
) -> Result<Answer, h2::Error> {
    // It is in memory as a whole, so h2 may as well hold it until the server's window takes it. That it cannot be
    // sent any more is no failure yet: a server may refuse before it has read everything, and its answer says more.
    if let Err(error) = stream.send_data(framed, true) {
        tracing::debug!(%error, "a request is not sent whole");
    }
    receive(response, keep).await
}

async fn receive(response: ResponseFuture, keep: impl FnMut(usize) -> bool) -> Result<Answer, h2::Error> {
    let (head, mut body) = response.await?.into_parts();
    if let Some(status) = status(&head.headers) {
        return Ok(finish(status, Answer::Bad(BodyFault::Truncated)));
    }
    if head.status != StatusCode::OK {
        return Ok(Answer::Http(head.status));
    }
    let message = match collect(&mut body, keep).await? {
        // Behind these the trailers are next.
        found @ (Answer::Message(_) | Answer::Bad(BodyFault::Truncated)) => found,
        other => return Ok(other),
    };
    let trailers = poll_fn(|cx| body.poll_trailers(cx)).await?.unwrap_or_default();
    Ok(status(&trailers).map_or(Answer::NoStatus, |status| finish(status, message)))
}

/// Collects the one message of an answer.
async fn collect(body: &mut RecvStream, mut keep: impl FnMut(usize) -> bool) -> Result<Answer, h2::Error> {
    let mut messages = Messages::new(GRPC_MESSAGE_BYTES_MAX);
    let mut only = None;
    while let Some(chunk) = body.data().await {
        let chunk = chunk?;
        body.flow_control().release_capacity(chunk.len())?;
        if !keep(chunk.len()) {
            return Ok(Answer::TooMuch);
        }
        messages.push(chunk);
        if only.is_none() {
            only = match messages.take() {
                Ok(message) => message,
                Err(fault) => return Ok(Answer::Bad(fault)),
            };
        }
        if only.is_some() && messages.held_bytes() > 0 {
            return Ok(Answer::Bad(BodyFault::Trailing));
        }
    }
    Ok(match only {
        Some(BodyMessage { compressed: false, bytes }) => Answer::Message(bytes),
        Some(_) => Answer::Bad(BodyFault::Compressed),
        None => Answer::Bad(BodyFault::Truncated),
    })
}

/// The status decides.
fn finish(status: Status, message: Answer) -> Answer {
    if status.code == code::OK { message } else { Answer::Refused(status) }
}

/// The status that a head or trailers name.
pub(super) fn status(headers: &HeaderMap) -> Option<Status> {
    let text = |name: &str| headers.get(name).and_then(|v| v.to_str().ok());
    let code = text("grpc-status")?.parse().ok()?;
    Some(Status::parse(code, text("grpc-message").unwrap_or_default(), text("grpc-status-details-bin")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_values_that_calls_share_are_indexed() {
        let keys = ["operationid", "opuserid", "platform", "connid"];
        let mut head = headers(keys.map(|key| (key, "x"))).unwrap();
        set_timeout(&mut head, 10_000);
        let indexed: Vec<_> =
            head.iter().filter(|(_, value)| !value.is_sensitive()).map(|(key, _)| key.as_str()).collect();
        assert_eq!(indexed, ["content-type", "te", "platform", "grpc-timeout"]);
    }
}
