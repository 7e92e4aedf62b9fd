//! One connection to the API server of Kubernetes and the two requests over it: read an object, watch it.
//!
//! What always holds: each request carries the service account's token as its file has it now (the kubelet changes it
//! within the hour); each request, answer and event is bounded in time or bytes; nothing is sent in plain text.

use std::error::Error;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{fmt, fs};

use bytes::{Bytes, BytesMut};
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, Response, StatusCode, Uri};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::ClientConfig;
use tokio::time::timeout;

use super::object::{Event, List, Status};
use crate::control::membership::KubernetesMembers;
use crate::control::plan::{ControlFault, KubernetesPlan};
use crate::control::roots::roots;
use crate::limits::{
    CONTROL_CALL_MS, CONTROL_CONNECT_MS, CONTROL_PING_MS, KUBERNETES_ANSWER_BYTES, KUBERNETES_TOKEN_BYTES,
};

const OF: &str = "Kubernetes";

/// What an answer comes in.
type Body = UnsyncBoxBody<Bytes, Box<dyn Error + Send + Sync>>;

/// What went wrong. Every fault ends its connection.
#[derive(Debug)]
pub(in crate::control) enum Fault {
    /// The token or the certificates cannot be read.
    Account(String),
    /// Nobody answers there.
    Connect(String),
    /// The server refused.
    Refused(StatusCode, String),
    /// What was to be watched from is too old for the server: read anew.
    Expired,
    /// A request was not answered in time, or a watch not ended.
    Late(&'static str),
    /// An answer that is none.
    Malformed(String),
    /// A watch ended that should not have.
    Ended(String),
}

/// How to connect, checked.
pub(in crate::control) struct Dial {
    server: String,
    account: PathBuf,
    namespace: String,
    watch_s: u32,
}

/// A connection, made with the first request.
pub(in crate::control) struct Link<'a> {
    dial: &'a Dial,
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
}

impl Dial {
    /// Checks address and certificates.
    pub(super) fn new(plan: &KubernetesPlan) -> Result<Self, ControlFault> {
        let KubernetesPlan { server, account, namespace, watch_s, .. } = plan;
        Self::to(server, account, namespace, *watch_s)
    }

    /// The same for the members of the cluster.
    pub(in crate::control) fn members(plan: &KubernetesMembers) -> Result<Self, ControlFault> {
        Self::to(&plan.server, &plan.account, &plan.namespace, 0)
    }

    fn to(server: &str, account: &Path, namespace: &str, watch_s: u32) -> Result<Self, ControlFault> {
        let bad = |why: String| ControlFault::Address { of: OF, given: server.to_owned(), why };
        let uri: Uri = server.parse().map_err(|e: http::uri::InvalidUri| bad(e.to_string()))?;
        let has_host = uri.host().is_some_and(|host| !host.is_empty());
        if !has_host || uri.scheme_str() != Some("https") || uri.path() != "/" {
            return Err(bad("write https://host:port: the token is not shown in plain text".into()));
        }
        let dial = Self {
            server: server.trim_end_matches('/').to_owned(),
            account: account.to_owned(),
            namespace: namespace.to_owned(),
            watch_s,
        };
        dial.tls()?;
        Ok(dial)
    }

    /// A new connection, with the authorities as their file has them now.
    pub(in crate::control) fn connect(&self) -> Result<Link<'_>, Fault> {
        let tls = self.tls().map_err(|fault| Fault::Account(fault.to_string()))?;
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(Duration::from_millis(CONTROL_CONNECT_MS)));
        // A watch may be silent for long: whether the machine is still there is asked below it.
        let ping = Duration::from_millis(CONTROL_PING_MS);
        tcp.set_keepalive(Some(ping));
        tcp.set_keepalive_interval(Some(ping));
        tcp.set_keepalive_retries(Some(1));
        let connector =
            HttpsConnectorBuilder::new().with_tls_config(tls).https_only().enable_http1().wrap_connector(tcp);
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_max_idle_per_host(1)
            .build(connector);
        Ok(Link { dial: self, client })
    }

    fn tls(&self) -> Result<ClientConfig, ControlFault> {
        let path = self.account.join("ca.crt");
        let fault = |why: String| ControlFault::Tls { of: OF, why };
        let pem = fs::read(&path).map_err(|error| fault(format!("{}: {error}", path.display())))?;
        let roots = roots(OF, Some(&pem))?;
        let config = ClientConfig::builder_with_provider(rustls::crypto::ring::default_provider().into())
            .with_safe_default_protocol_versions()
            .map_err(|error| fault(error.to_string()))?;
        Ok(config.with_root_certificates(roots).with_no_client_auth())
    }

    /// The token as it is now. A small file in memory: reading it holds nobody up.
    fn bearer(&self) -> Result<HeaderValue, Fault> {
        let path = self.account.join("token");
        let fault = |why: &dyn fmt::Display| Fault::Account(format!("{}: {why}", path.display()));
        let token = read_short(&path).map_err(|error| fault(&error))?;
        let mut header =
            HeaderValue::try_from(format!("Bearer {}", token.trim())).map_err(|_| fault(&"not a token"))?;
        header.set_sensitive(true);
        Ok(header)
    }

    fn request(&self, name: &str, more: &str) -> Result<Request<Full<Bytes>>, Fault> {
        let Self { server, namespace, .. } = self;
        let uri = format!(
            "{server}/api/v1/namespaces/{namespace}/endpoints?fieldSelector=metadata.name%3D{name}{more}"
        );
        let request = Request::get(uri)
            .header(AUTHORIZATION, self.bearer()?)
            .header(ACCEPT, HeaderValue::from_static("application/json"))
            .body(Full::default());
        request.map_err(|error| Fault::Connect(format!("{name}: {error}")))
    }
}

impl<'a> Link<'a> {
    /// The object of that name, in a list of at most one: as the cluster has it now, not as a cache had it.
    pub(super) async fn list(&self, name: &str) -> Result<List, Fault> {
        let asking = async {
            let answer = self.ask(self.dial.request(name, "")?).await?;
            let body = Limited::new(answer.into_body(), KUBERNETES_ANSWER_BYTES).collect().await;
            let body = body.map_err(|error| Fault::Ended(format!("a list: {error}")))?;
            serde_json::from_slice(&body.to_bytes()).map_err(|error| Fault::Malformed(error.to_string()))
        };
        in_time("a list", asking).await
    }

    /// Asks to be told of changes after a version.
    pub(super) async fn watch(&self, name: &str, version: &str) -> Result<Watch, Fault> {
        let seconds = self.dial.watch_s;
        let more = format!(
            "&watch=true&allowWatchBookmarks=true&timeoutSeconds={seconds}&resourceVersion={version}"
        );
        let answer = in_time("a watch", async { self.ask(self.dial.request(name, &more)?).await }).await?;
        let silence = Duration::from_secs(seconds.into()) + Duration::from_millis(CONTROL_CALL_MS);
        Ok(Watch { body: answer.into_body(), lines: Lines::default(), silence })
    }

    /// Sends a request and reads the whole answer. That something is not there, or was changed by somebody else, is one.
    pub(in crate::control) async fn exchange(
        &self,
        (method, path, accept): (Method, &str, &'static str),
        body: Vec<u8>,
    ) -> Result<(StatusCode, Bytes), Fault> {
        let asking = async {
            let request = Request::builder()
                .method(method)
                .uri(format!("{}{path}", self.dial.server))
                .header(AUTHORIZATION, self.dial.bearer()?)
                .header(ACCEPT, HeaderValue::from_static(accept))
                .header(CONTENT_TYPE, HeaderValue::from_static("application/json"))
                .body(Full::from(body))
                .map_err(|error| Fault::Connect(format!("{path}: {error}")))?;
            let answer = self.client.request(request).await;
            let answer = answer.map_err(|error| Fault::Connect(with_causes(&error)))?;
            let status = answer.status();
            let body = Limited::new(answer.into_body(), KUBERNETES_ANSWER_BYTES).collect().await;
            let body = body.map_err(|error| Fault::Ended(format!("an answer: {error}")))?.to_bytes();
            if status.is_success() || matches!(status, StatusCode::NOT_FOUND | StatusCode::CONFLICT) {
                return Ok((status, body));
            }
            let said = serde_json::from_slice::<Status>(&body).unwrap_or_default();
            Err(Fault::Refused(status, format!("{path}: {}", said.message)))
        };
        in_time("a request", asking).await
    }

    async fn ask(&self, request: Request<Full<Bytes>>) -> Result<Response<Body>, Fault> {
        let answer =
            self.client.request(request).await.map_err(|error| Fault::Connect(with_causes(&error)))?;
        let answer = answer.map(|body| body.map_err(Into::into).boxed_unsync());
        let status = answer.status();
        match status {
            StatusCode::OK => Ok(answer),
            StatusCode::GONE => Err(Fault::Expired),
            status => {
                let body = Limited::new(answer.into_body(), KUBERNETES_ANSWER_BYTES).collect().await;
                let said = body.ok().and_then(|body| serde_json::from_slice::<Status>(&body.to_bytes()).ok());
                Err(Fault::Refused(status, said.unwrap_or_default().message))
            }
        }
    }
}

/// What a watch tells.
pub(super) struct Watch {
    body: Body,
    lines: Lines,
    /// No watch is silent for longer.
    silence: Duration,
}

impl Watch {
    /// The next event; `None`: the watch is over, as every watch is some time.
    ///
    /// # Cancel safety
    /// Dropped while it waits, it loses nothing.
    pub(super) async fn next(&mut self) -> Result<Option<Event>, Fault> {
        loop {
            if let Some(line) = self.lines.next()? {
                let event = serde_json::from_slice(&line);
                return event.map(Some).map_err(|error| Fault::Malformed(error.to_string()));
            }
            let frame = timeout(self.silence, self.body.frame());
            match frame.await.map_err(|_| Fault::Late("a watch"))? {
                None => return Ok(None),
                Some(Err(error)) => return Err(Fault::Ended(format!("a watch: {error}"))),
                Some(Ok(frame)) => self.lines.add(frame.data_ref().map_or(&[], |data| &data[..])),
            }
        }
    }
}

/// Lines of a stream of bytes.
#[derive(Default)]
struct Lines {
    held: BytesMut,
    /// So many bytes of it have no end of a line in them.
    seen: usize,
}

impl Lines {
    fn add(&mut self, bytes: &[u8]) {
        self.held.extend_from_slice(bytes);
    }

    /// The next line that is not empty. What follows the last end of a line waits.
    fn next(&mut self) -> Result<Option<BytesMut>, Fault> {
        while let Some(at) = self.held.get(self.seen..).and_then(|rest| memchr::memchr(b'\n', rest)) {
            let line = self.held.split_to(self.seen + at + 1);
            self.seen = 0;
            if line.len() > 1 {
                return Ok(Some(line));
            }
        }
        self.seen = self.held.len();
        if self.seen > KUBERNETES_ANSWER_BYTES {
            return Err(Fault::Malformed(format!("an event of more than {KUBERNETES_ANSWER_BYTES} bytes")));
        }
        Ok(None)
    }
}

async fn in_time<T>(what: &'static str, asking: impl Future<Output = Result<T, Fault>>) -> Result<T, Fault> {
    let answer = timeout(Duration::from_millis(CONTROL_CALL_MS), asking).await;
    answer.unwrap_or(Err(Fault::Late(what)))
}

fn read_short(path: &Path) -> std::io::Result<String> {
    let mut text = String::new();
    let read = File::open(path)?.take(KUBERNETES_TOKEN_BYTES + 1).read_to_string(&mut text)?;
    match read as u64 > KUBERNETES_TOKEN_BYTES || text.trim().is_empty() {
        true => Err(std::io::Error::other("empty or too long for a token")),
        false => Ok(text),
    }
}

/// An error and what it comes from: hyper's own text alone is `client error (Connect)`.
fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Account(why) | Self::Connect(why) | Self::Ended(why) => f.write_str(why),
            Self::Refused(StatusCode::FORBIDDEN, why) => {
                write!(
                    f,
                    "403 {why} (the service account lacks a right: tuning/kubernetes has what it needs)"
                )
            }
            Self::Refused(status, why) => write!(f, "{status} {why}"),
            Self::Expired => f.write_str("the version that was watched from is too old"),
            Self::Late(what) => write!(f, "{what} was not answered or ended in time"),
            Self::Malformed(why) => write!(f, "an answer cannot be read: {why}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_the_same_however_the_bytes_come() {
        let text = b"{\"a\":1}\n\n{}\n{\"half";
        for size in 1..text.len() {
            let mut lines = Lines::default();
            let mut found = Vec::new();
            for part in text.chunks(size) {
                lines.add(part);
                while let Some(line) = lines.next().unwrap() {
                    found.push(line);
                }
            }
            assert_eq!(found, [&b"{\"a\":1}\n"[..], b"{}\n"], "in parts of {size}");
            assert_eq!(&lines.held[..], b"{\"half");
        }
    }

    #[test]
    fn a_line_without_an_end_is_given_up_at_the_limit() {
        let mut lines = Lines::default();
        lines.add(&vec![b'x'; KUBERNETES_ANSWER_BYTES]);
        assert!(matches!(lines.next(), Ok(None)));
        lines.add(b"x");
        assert!(matches!(lines.next(), Err(Fault::Malformed(_))));
    }

    #[test]
    fn a_token_is_neither_empty_nor_long() {
        let file = tempfile::NamedTempFile::new().unwrap();
        for (length, good) in
            [(0, false), (1, true), (KUBERNETES_TOKEN_BYTES, true), (KUBERNETES_TOKEN_BYTES + 1, false)]
        {
            fs::write(file.path(), "t".repeat(usize::try_from(length).unwrap())).unwrap();
            assert_eq!(read_short(file.path()).is_ok(), good, "{length}");
        }
    }
}
