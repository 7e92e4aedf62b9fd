//! A small gRPC client for one unary call, with a runtime of its own: what `pinion push` uses.
//!
//! Not here: name lookup (monoio's blocks the thread, so callers give addresses), retries, connection reuse.

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use h2::client::SendRequest;
use http::{HeaderMap, HeaderName, HeaderValue, Request};
use monoio::io::IntoPollIo;
use monoio::net::TcpStream;
use monoio::{LegacyDriver, RuntimeBuilder};

use super::stream::{CollectFault, collect, send_all};
use crate::limits::{H2_FRAME_BYTES, H2_HEADER_LIST_BYTES, H2_STREAM_WINDOW_BYTES};
use crate::wire::grpc::{Status, code, frame};

/// Why a call has no answer.
#[derive(Debug)]
pub enum CallError {
    /// Nobody listens there, or the network does not let us.
    Connect(SocketAddr, io::Error),
    /// The server answered with an error.
    Refused(Status),
    /// No answer in time.
    Deadline(u64),
    /// The address answers, but not as a gRPC server.
    Protocol(String),
    /// This machine gives us no runtime.
    Runtime(io::Error),
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connect(address, error) => write!(f, "cannot connect to {address}: {error}"),
            Self::Refused(status) => {
                write!(f, "refused with status {}: {}", status.code, status.message)?;
                match &status.cause {
                    Some(cause) if *cause != status.message => write!(f, " ({cause})"),
                    _ => Ok(()),
                }
            }
            Self::Deadline(ms) => write!(f, "no answer within {ms} ms"),
            Self::Protocol(text) => write!(f, "not a gRPC answer: {text}"),
            Self::Runtime(error) => write!(f, "cannot start: {error}"),
        }
    }
}

impl std::error::Error for CallError {}

impl From<h2::Error> for CallError {
    fn from(error: h2::Error) -> Self {
        Self::Protocol(error.to_string())
    }
}

/// Makes one call and blocks the thread until its answer, at most `deadline_ms`. Do not use it on a thread that runs
/// a runtime.
///
/// `path` is like `/package.Service/Method`; metadata keys are lower-case, values are printable ASCII.
///
/// # Errors
/// See [`CallError`].
pub fn call_once(
    address: SocketAddr,
    path: &str,
    metadata: &[(&str, &str)],
    message: Bytes,
    deadline_ms: u64,
) -> Result<Bytes, CallError> {
    let request = request(address, path, metadata, deadline_ms)?;
    // epoll everywhere: one short call gains nothing from a ring, and a sandbox may forbid one.
    let mut runtime =
        RuntimeBuilder::<LegacyDriver>::new().enable_timer().build().map_err(CallError::Runtime)?;
    runtime.block_on(async move {
        let deadline = Duration::from_millis(deadline_ms);
        match monoio::time::timeout(deadline, call(address, request, message)).await {
            Ok(result) => result,
            Err(_) => Err(CallError::Deadline(deadline_ms)),
        }
    })
}

fn request(
    address: SocketAddr,
    path: &str,
    metadata: &[(&str, &str)],
    deadline_ms: u64,
) -> Result<Request<()>, CallError> {
    let bad = |what: &str| CallError::Protocol(format!("{what} cannot be sent"));
    let mut request = Request::post(format!("http://{address}{path}")).body(()).map_err(|_| bad(path))?;
    let headers = request.headers_mut();
    headers.insert("content-type", HeaderValue::from_static("application/grpc"));
    headers.insert("te", HeaderValue::from_static("trailers"));
    // At most 8 digits.
    let timeout = format!("{}m", deadline_ms.min(99_999_999));
    headers.insert("grpc-timeout", HeaderValue::try_from(timeout).map_err(|_| bad("grpc-timeout"))?);
    for (key, value) in metadata {
        // Peers refuse anything else (spec 6.1).
        if !value.is_ascii() {
            return Err(bad(key));
        }
        let name = HeaderName::from_bytes(key.as_bytes()).map_err(|_| bad(key))?;
        headers.append(name, HeaderValue::from_str(value).map_err(|_| bad(key))?);
    }
    Ok(request)
}

async fn call(address: SocketAddr, request: Request<()>, message: Bytes) -> Result<Bytes, CallError> {
    let failed = |error| CallError::Connect(address, error);
    let stream = TcpStream::connect_addr(address).await.map_err(failed)?;
    stream.set_nodelay(true).map_err(failed)?;
    let (sender, connection) = h2::client::Builder::new()
        .enable_push(false)
        .initial_window_size(H2_STREAM_WINDOW_BYTES)
        .max_header_list_size(H2_HEADER_LIST_BYTES)
        .max_frame_size(H2_FRAME_BYTES)
        .handshake::<_, Bytes>(stream.into_poll_io().map_err(failed)?)
        .await?;
    monoio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "connection");
        }
    });
    exchange(sender, request, message).await
}

async fn exchange(
    sender: SendRequest<Bytes>,
    request: Request<()>,
    message: Bytes,
) -> Result<Bytes, CallError> {
    let too_long = || CallError::Protocol("the request is too long".to_owned());
    let framed = frame(&message).ok_or_else(too_long)?;
    let mut sender = sender.ready().await?;
    let (response, mut stream) = sender.send_request(request, false)?;
    // A server may refuse before it has read everything; then its answer counts, not our failure to send.
    let sent = send_all(&mut stream, framed).await.and_then(|()| stream.send_data(Bytes::new(), true));
    let response = match response.await {
        Ok(response) => response,
        Err(error) => {
            sent?;
            return Err(error.into());
        }
    };
    let (head, mut body) = response.into_parts();
    if let Some(status) = status(&head.headers) {
        return finish(status, Err(CallError::Protocol("no message".to_owned())));
    }
    if head.status != http::StatusCode::OK {
        return Err(CallError::Protocol(format!("HTTP status {}", head.status)));
    }
    let message = match collect(&mut body).await {
        Ok(message) => Ok(message),
        Err(CollectFault::Gone(error)) => return Err(error.into()),
        Err(CollectFault::Body(fault)) => Err(CallError::Protocol(format!("{fault:?}"))),
    };
    let trailers = poll_fn(|cx| body.poll_trailers(cx)).await?.unwrap_or_default();
    match status(&trailers) {
        Some(status) => finish(status, message),
        None => Err(CallError::Protocol("no grpc-status".to_owned())),
    }
}

/// The status decides; a message beside an error is not looked at.
fn finish(status: Status, message: Result<Bytes, CallError>) -> Result<Bytes, CallError> {
    if status.code == code::OK { message } else { Err(CallError::Refused(status)) }
}

fn status(headers: &HeaderMap) -> Option<Status> {
    let text = |name: &str| headers.get(name).and_then(|v| v.to_str().ok());
    let code = text("grpc-status")?.parse().ok()?;
    Some(Status::parse(code, text("grpc-message").unwrap_or_default(), text("grpc-status-details-bin")))
}
