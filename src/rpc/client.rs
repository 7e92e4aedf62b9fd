//! A small gRPC client for one unary call, with a runtime of its own: what `pinion push` uses, so its errors name that
//! command's flags.
//!
//! The assign API asks the same members again and again, on connections that it keeps (`Kept`). Not here: name lookup
//! (monoio's blocks the thread, so callers give addresses), retries.

use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use h2::client::SendRequest;
use http::{HeaderMap, HeaderValue, Request, header};
use monoio::io::IntoPollIo;
use monoio::net::TcpStream;
use monoio::{LegacyDriver, RuntimeBuilder};
use rustls::pki_types::ServerName;
use rustls::{AlertDescription, CertificateError, ClientConfig};

use super::tls::{self, MaybeTls};
use super::unary::{self, Answer};
use crate::config::Token;
use crate::config::peer_tls::client_config;
use crate::limits::{
    CALL_GRACE_MS, GRPC_MESSAGE_BYTES_MAX, H2_FRAME_BYTES, H2_HEADER_LIST_BYTES, H2_STREAM_WINDOW_BYTES,
};
use crate::wire::grpc::{Status, frame};

/// Where a call goes, and what it shows there.
#[derive(Clone)]
pub struct Target {
    /// Tried in their order until one can be connected to.
    pub addresses: Vec<SocketAddr>,
    /// `None`: plain HTTP/2.
    pub tls: Option<TlsIdentity>,
    /// The gateway's `rpc.token`.
    pub token: Option<Token>,
}

/// Whom a caller believes, and who it is.
#[derive(Clone)]
pub struct TlsIdentity {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
}

impl TlsIdentity {
    /// Reads PEM files: the CA that signed the gateway's certificate, and our own certificate and key if we have
    /// one. `host` is the name or address that the gateway's certificate must have.
    ///
    /// # Errors
    /// Which file is no good, and why; or that `host` is no name.
    pub fn read(host: &str, ca: &Path, own: Option<(&Path, &Path)>) -> Result<Self, String> {
        let config = client_config(ca, own)?;
        Ok(Self { config: Arc::new(config), name: server_name(host)? })
    }

    /// The same towards a gateway whose certificate must be for another host.
    ///
    /// # Errors
    /// `host` is no name.
    pub(super) fn named(&self, host: &str) -> Result<Self, String> {
        Ok(Self { config: Arc::clone(&self.config), name: server_name(host)? })
    }
}

fn server_name(host: &str) -> Result<ServerName<'static>, String> {
    ServerName::try_from(host.to_owned()).map_err(|_| format!("{host:?} is no name of a host"))
}

/// Why a call has no answer.
#[derive(Debug)]
pub enum CallError {
    /// Nobody listens there, or the network does not let us.
    Connect(SocketAddr, io::Error),
    /// The connection was closed before the call was answered; with what it may be.
    Closed(SocketAddr, &'static str),
    /// One side does not believe the other.
    Tls(SocketAddr, String),
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
            Self::Closed(address, why) => write!(
                f,
                "{address} closed the connection without an answer: is this machine in the gateway's rpc.allow? {why} \
                 It may also be ending or out of connections"
            ),
            Self::Tls(address, text) => write!(f, "TLS with {address}: {text}"),
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

const CLOSED_PLAIN: &str = "Does it speak TLS (then name its CA with --rpc-ca)?";
/// A complaint about our certificate is lost if the close overtakes it.
const CLOSED_TLS: &str = "Does its rpc.tls_client_ca accept our certificate (--rpc-cert, --rpc-key)?";

impl CallError {
    /// Of an HTTP/2 connection to this address; `closed` is what to ask if it just ended.
    fn of(address: SocketAddr, closed: &'static str, error: &h2::Error) -> Self {
        match alert(&error.to_string()) {
            Some(text) => Self::Tls(address, text.to_owned()),
            None if error.is_io() => Self::Closed(address, closed),
            None => Self::Protocol(error.to_string()),
        }
    }
}

/// What the gateway's complaint about us means. With TLS 1.3 it comes when our handshake is over, and `h2` hands on
/// its text only.
fn alert(text: &str) -> Option<&'static str> {
    const REFUSED: &str = "the gateway does not accept our certificate (--rpc-cert): its rpc.tls_client_ca did not \
                           sign it, or it has expired";
    let table = [
        (
            AlertDescription::CertificateRequired,
            "the gateway wants a client certificate: give one with --rpc-cert and --rpc-key",
        ),
        (AlertDescription::UnknownCA, REFUSED),
        (AlertDescription::CertificateExpired, REFUSED),
        (AlertDescription::BadCertificate, REFUSED),
        (AlertDescription::DecryptError, REFUSED),
    ];
    let found = |alert| text.contains(&rustls::Error::AlertReceived(alert).to_string());
    table.into_iter().find_map(|(alert, text)| found(alert).then_some(text))
}

/// Why a handshake failed, in words.
fn handshake_fault(address: SocketAddr, error: &io::Error) -> CallError {
    let fault = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    let text = match fault {
        Some(rustls::Error::InvalidCertificate(fault)) => match fault {
            CertificateError::UnknownIssuer => {
                "the gateway's certificate is not signed by the CA in --rpc-ca".to_owned()
            }
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                format!("the gateway's certificate is for another name than the one in --rpc: {fault}")
            }
            _ => format!("the gateway's certificate is not good: {fault}"),
        },
        Some(rustls::Error::InvalidMessage(_)) => {
            "it does not speak TLS: leave out --rpc-ca, or is this another port?".to_owned()
        }
        Some(fault) => alert(&fault.to_string()).map_or_else(|| fault.to_string(), str::to_owned),
        None => return CallError::Closed(address, CLOSED_TLS),
    };
    CallError::Tls(address, text)
}

impl Target {
    /// Plain HTTP/2 without a token.
    pub fn plain(address: SocketAddr) -> Self {
        Self { addresses: vec![address], tls: None, token: None }
    }

    /// Makes one call and blocks the thread until its answer, at most `deadline_ms` and [`CALL_GRACE_MS`]: the server
    /// is told the deadline, and its verdict needs a moment to arrive. Do not use it on a thread that runs a runtime.
    ///
    /// `path` is like `/package.Service/Method`; metadata keys are lower-case, values are printable ASCII.
    ///
    /// # Errors
    /// See [`CallError`].
    pub fn call(
        &self,
        path: &str,
        metadata: &[(&str, &str)],
        message: Bytes,
        deadline_ms: u64,
    ) -> Result<Bytes, CallError> {
        // epoll everywhere: one short call gains nothing from a ring, and a sandbox may forbid one.
        let mut runtime =
            RuntimeBuilder::<LegacyDriver>::new().enable_timer().build().map_err(CallError::Runtime)?;
        let headers = self.headers(metadata, deadline_ms)?;
        let patience_ms = deadline_ms.saturating_add(CALL_GRACE_MS);
        let called = runtime.block_on(self.called(path, headers, message, patience_ms));
        called.map_err(|error| match error {
            CallError::Deadline(_) => CallError::Deadline(deadline_ms),
            error => error,
        })
    }

    /// Connects for more than one call, on a thread that runs a runtime. A task drives the connection until it breaks
    /// or what is returned is dropped.
    ///
    /// # Cancel safety
    /// Dropped, the connection is closed.
    pub(super) async fn keep(&self, within_ms: u64) -> Result<Kept, CallError> {
        let connected = async {
            let (address, stream) = self.connect().await?;
            let (closed, handshake) = handshake(address, stream).await?;
            Ok((address, closed, handshake))
        };
        let (address, closed, (sender, connection)) = within(within_ms, connected).await?;
        monoio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%address, %error, "a kept connection broke");
            }
        });
        Ok(Kept { address, closed, sender })
    }

    async fn called(
        &self,
        path: &str,
        headers: HeaderMap,
        message: Bytes,
        patience_ms: u64,
    ) -> Result<Bytes, CallError> {
        let called = async {
            let (address, stream) = self.connect().await?;
            let request = self.request(address, path, headers)?;
            exchange(address, stream, request, message).await
        };
        within(patience_ms, called).await
    }

    async fn connect(&self) -> Result<(SocketAddr, MaybeTls), CallError> {
        let mut last = CallError::Protocol("no address is given".to_owned());
        for &address in &self.addresses {
            let socket = TcpStream::connect_addr(address).await;
            match socket.and_then(|socket| socket.set_nodelay(true).and_then(|()| socket.into_poll_io())) {
                Ok(socket) => {
                    let Some(TlsIdentity { config, name }) = self.tls.clone() else {
                        return Ok((address, MaybeTls::Plain(socket)));
                    };
                    let stream = tls::connect(config, name, socket).await;
                    return stream.map(|s| (address, s)).map_err(|error| handshake_fault(address, &error));
                }
                Err(error) => last = CallError::Connect(address, error),
            }
        }
        Err(last)
    }

    /// What is wrong with them is known before anything is sent.
    fn headers(&self, metadata: &[(&str, &str)], deadline_ms: u64) -> Result<HeaderMap, CallError> {
        let mut headers = unary::headers(metadata.iter().copied()).map_err(bad)?;
        unary::set_timeout(&mut headers, deadline_ms);
        if let Some(token) = &self.token {
            let mut value =
                HeaderValue::try_from(format!("Bearer {}", token.secret())).map_err(|_| bad("the token"))?;
            value.set_sensitive(true);
            headers.insert(header::AUTHORIZATION, value);
        }
        Ok(headers)
    }

    fn request(&self, address: SocketAddr, path: &str, headers: HeaderMap) -> Result<Request<()>, CallError> {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        let mut request =
            Request::post(format!("{scheme}://{address}{path}")).body(()).map_err(|_| bad(path))?;
        *request.headers_mut() = headers;
        Ok(request)
    }
}

/// A connection that more than one call is made on.
pub(super) struct Kept {
    address: SocketAddr,
    closed: &'static str,
    sender: SendRequest<Bytes>,
}

impl Kept {
    /// Makes a call; `target` is where this connection leads.
    ///
    /// # Cancel safety
    /// Dropped, the call is cancelled; it may have been carried out.
    pub(super) async fn ask(
        &self,
        target: &Target,
        path: &str,
        message: &Bytes,
        deadline_ms: u64,
    ) -> Result<Bytes, CallError> {
        let request = target.request(self.address, path, target.headers(&[], deadline_ms)?)?;
        let framed = frame(message).ok_or_else(too_long)?;
        let answered = async {
            let failed = |error| CallError::of(self.address, self.closed, &error);
            answer(self.sender.clone(), request, framed).await.map_err(failed)?
        };
        within(deadline_ms, answered).await
    }
}

async fn within<T>(ms: u64, work: impl Future<Output = Result<T, CallError>>) -> Result<T, CallError> {
    let ended = monoio::time::timeout(Duration::from_millis(ms), work).await;
    ended.unwrap_or(Err(CallError::Deadline(ms)))
}

/// [`Target::call`] on a plain address.
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
    Target::plain(address).call(path, metadata, message, deadline_ms)
}

fn bad(what: &str) -> CallError {
    CallError::Protocol(format!("{what} cannot be sent"))
}

/// The call on its connection.
async fn exchange(
    address: SocketAddr,
    stream: MaybeTls,
    request: Request<()>,
    message: Bytes,
) -> Result<Bytes, CallError> {
    let (closed, (sender, connection)) = handshake(address, stream).await?;
    let framed = frame(&message).ok_or_else(too_long)?;
    match drive(connection, answer(sender, request, framed)).await {
        Ok(answer) => answer,
        Err(error) => Err(CallError::of(address, closed, &error)),
    }
}

fn too_long() -> CallError {
    CallError::Protocol("the request is too long".to_owned())
}

/// Both ends of an HTTP/2 connection.
type Http2 = (SendRequest<Bytes>, h2::client::Connection<MaybeTls, Bytes>);

/// Begins HTTP/2; beside it what to ask if the connection just ends.
async fn handshake(address: SocketAddr, stream: MaybeTls) -> Result<(&'static str, Http2), CallError> {
    let closed = if matches!(stream, MaybeTls::Tls(_)) { CLOSED_TLS } else { CLOSED_PLAIN };
    let begun = h2::client::Builder::new()
        .enable_push(false)
        .initial_window_size(H2_STREAM_WINDOW_BYTES)
        .max_header_list_size(H2_HEADER_LIST_BYTES)
        .max_frame_size(H2_FRAME_BYTES)
        .handshake::<_, Bytes>(stream)
        .await;
    begun.map(|http2| (closed, http2)).map_err(|error| CallError::of(address, closed, &error))
}

/// Polls a connection until the call on it is over. What broke the connection says more than what the call sees of it.
async fn drive<T>(
    connection: impl Future<Output = Result<(), h2::Error>>,
    call: impl Future<Output = Result<T, h2::Error>>,
) -> Result<T, h2::Error> {
    let (mut connection, mut call) = (pin!(connection), pin!(call));
    let mut over = false;
    poll_fn(|cx| {
        let mut broken = None;
        let mut poll_connection = |cx: &mut Context<'_>, broken: &mut Option<h2::Error>| {
            if !over && let Poll::Ready(end) = connection.as_mut().poll(cx) {
                over = true;
                *broken = end.err();
            }
        };
        poll_connection(cx, &mut broken);
        let answer = call.as_mut().poll(cx);
        if matches!(answer, Poll::Ready(Err(_))) {
            poll_connection(cx, &mut broken);
        }
        match (answer, broken) {
            (Poll::Ready(Ok(answer)), _) => Poll::Ready(Ok(answer)),
            (_, Some(error)) => Poll::Ready(Err(error)),
            (answer, None) => answer,
        }
    })
    .await
}

/// The outer error is the connection's.
async fn answer(
    sender: SendRequest<Bytes>,
    request: Request<()>,
    framed: Bytes,
) -> Result<Result<Bytes, CallError>, h2::Error> {
    let mut sender = sender.ready().await?;
    let (response, stream) = sender.send_request(request, false)?;
    // The limit of a message is limit enough for one call.
    let protocol = |text: String| Err(CallError::Protocol(text));
    Ok(match unary::exchange(response, stream, framed, |_| true).await? {
        Answer::Message(message) => Ok(message),
        Answer::Refused(status) => Err(CallError::Refused(status)),
        Answer::Http(status) => protocol(format!("HTTP status {status}")),
        Answer::Bad(fault) => protocol(fault.status(GRPC_MESSAGE_BYTES_MAX).message),
        Answer::NoStatus => protocol("no grpc-status".to_owned()),
        Answer::TooMuch => protocol("the answer is too long".to_owned()),
    })
}
