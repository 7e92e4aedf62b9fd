//! One connection to etcd and the calls over it: API v3, unary calls and two streams.
//!
//! tonic's channel carries it (HTTP/2, TLS, pings); the messages are `pb::etcd`. What always holds: each call has a
//! deadline, each connection is pinged, and the addresses are tried in turn.

use std::cell::Cell;
use std::fmt;
use std::time::Duration;

use futures_util::stream::{self, StreamExt as _};
use http::uri::PathAndQuery;
use prost::Message;
use tokio::time::timeout;
use tonic::client::Grpc;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Code, Request, Status, Streaming};
use tonic_prost::ProstCodec;

use super::value::prefix_end;
use crate::control::plan::{ClientTls, ControlFault, Credentials, EtcdPlan, EtcdServers};
use crate::control::roots::roots;
use crate::limits::{CONTROL_CALL_MS, CONTROL_CONNECT_MS, CONTROL_PING_MS, SERVICE_ENDPOINTS_MAX};
use crate::pb::etcd;

const OF: &str = "etcd";

/// What went wrong. Every fault ends its connection.
#[derive(Debug)]
pub(in crate::control) enum Fault {
    /// Nobody answers there, or the login failed.
    Connect(String),
    /// etcd has no such lease any more.
    NoLease,
    /// A call was answered with an error.
    Call(String),
    /// A call was not answered in time.
    Late(&'static str),
    /// A stream ended that does not end by itself.
    Ended(String),
    /// Another living process has this node's name; it was said who.
    Taken,
}

/// How to connect: checked addresses, whose turn it is, and the login.
pub(in crate::control) struct Dial {
    endpoints: Vec<Endpoint>,
    next: Cell<usize>,
    credentials: Option<Credentials>,
}

/// A connection that is logged in.
pub(in crate::control) struct Link {
    grpc: Grpc<Channel>,
    token: Option<MetadataValue<Ascii>>,
}

impl Dial {
    /// Checks addresses and certificates.
    pub(in crate::control) fn new(plan: &EtcdPlan) -> Result<Self, ControlFault> {
        let EtcdPlan { addresses, root, credentials, tls, .. } = plan;
        check_root(root)?;
        Self::to(addresses, credentials.clone(), tls.as_ref())
    }

    /// Checks the servers and the root of the cluster's records.
    pub(in crate::control) fn members(servers: &EtcdServers, root: &str) -> Result<Self, ControlFault> {
        check_root(root)?;
        Self::to(&servers.addresses, servers.credentials.clone(), servers.tls.as_ref())
    }

    fn to(
        addresses: &[String],
        credentials: Option<Credentials>,
        client: Option<&ClientTls>,
    ) -> Result<Self, ControlFault> {
        if addresses.is_empty() {
            return Err(ControlFault::NoAddress { of: OF });
        }
        let mut endpoints = Vec::new();
        for given in addresses {
            let scheme = if client.is_some() { "https" } else { "http" };
            let url = if given.contains("://") { given.clone() } else { format!("{scheme}://{given}") };
            let bad = |why: String| ControlFault::Address { of: OF, given: given.clone(), why };
            let mut endpoint = Endpoint::from_shared(url.clone()).map_err(|e| bad(e.to_string()))?;
            let uri = endpoint.uri();
            if uri.host().is_none_or(str::is_empty) || !matches!(uri.scheme_str(), Some("http" | "https")) {
                return Err(bad("write host:port, http://host:port or https://host:port".into()));
            }
            if uri.scheme_str() == Some("https") {
                endpoint = endpoint
                    .tls_config(tls(OF, client)?)
                    .map_err(|e| ControlFault::Tls { of: OF, why: with_causes(&e) })?;
            }
            let ping = Duration::from_millis(CONTROL_PING_MS);
            endpoints.push(
                endpoint
                    .connect_timeout(Duration::from_millis(CONTROL_CONNECT_MS))
                    .http2_keep_alive_interval(ping)
                    .keep_alive_timeout(ping)
                    .keep_alive_while_idle(true),
            );
        }
        Ok(Self { endpoints, next: Cell::new(0), credentials })
    }

    /// Connects to the next address and logs in.
    pub(in crate::control) async fn connect(&self) -> Result<Link, Fault> {
        let turn = self.next.get();
        self.next.set(turn.wrapping_add(1));
        let Some(endpoint) = self.endpoints.get(turn % self.endpoints.len().max(1)) else {
            return Err(Fault::Connect("no address".into()));
        };
        let at = |why: &dyn fmt::Display| Fault::Connect(format!("{}: {why}", endpoint.uri()));
        let connecting = timeout(Duration::from_millis(CONTROL_CONNECT_MS), endpoint.connect());
        let channel = match connecting.await {
            Ok(Ok(channel)) => channel,
            Ok(Err(error)) => return Err(at(&with_causes(&error))),
            Err(_) => return Err(at(&format_args!("not connected after {CONTROL_CONNECT_MS} ms"))),
        };
        let mut link = Link { grpc: Grpc::new(channel), token: None };
        if let Some(Credentials { username, password }) = self.credentials.clone() {
            let request = etcd::AuthenticateRequest { name: username, password };
            let answer: Result<etcd::AuthenticateResponse, Fault> =
                link.call("/etcdserverpb.Auth/Authenticate", request).await;
            let token = answer.map_err(|e| at(&e))?.token;
            link.token = Some(token.parse().map_err(|_| at(&"the token is no header value"))?);
        }
        Ok(link)
    }
}

impl Link {
    /// The entries whose keys begin with `prefix`, in order and at most `SERVICE_ENDPOINTS_MAX`.
    pub(in crate::control) async fn entries(&mut self, prefix: &[u8]) -> Result<etcd::RangeResponse, Fault> {
        let limit = i64::try_from(SERVICE_ENDPOINTS_MAX).unwrap_or(i64::MAX);
        let request =
            etcd::RangeRequest { key: prefix.to_vec().into(), range_end: prefix_end(prefix).into(), limit };
        self.call("/etcdserverpb.KV/Range", request).await
    }

    /// The lease that holds `key`; `None`: there is no such key. 0: it has no lease.
    pub(in crate::control) async fn lease_of(&mut self, key: &[u8]) -> Result<Option<i64>, Fault> {
        let request = etcd::RangeRequest { key: key.to_vec().into(), ..Default::default() };
        let answer: etcd::RangeResponse = self.call("/etcdserverpb.KV/Range", request).await?;
        Ok(answer.kvs.first().map(|kv| kv.lease))
    }

    /// The entry of `key` and the header of the answer; as etcd has it now, not as one of its servers remembers.
    pub(in crate::control) async fn entry(
        &mut self,
        key: &[u8],
    ) -> Result<(etcd::ResponseHeader, Option<etcd::KeyValue>), Fault> {
        let request = etcd::RangeRequest { key: key.to_vec().into(), ..Default::default() };
        let answer: etcd::RangeResponse = self.call("/etcdserverpb.KV/Range", request).await?;
        Ok((answer.header.unwrap_or_default(), answer.kvs.into_iter().next()))
    }

    /// Does all of it at one revision, or the other list if a comparison does not hold.
    pub(in crate::control) async fn transact(
        &mut self,
        request: etcd::TxnRequest,
    ) -> Result<etcd::TxnResponse, Fault> {
        self.call("/etcdserverpb.KV/Txn", request).await
    }

    /// Sets a key under a lease.
    pub(in crate::control) async fn put(
        &mut self,
        key: &[u8],
        value: &[u8],
        lease: i64,
    ) -> Result<(), Fault> {
        let request = etcd::PutRequest { key: key.to_vec().into(), value: value.to_vec().into(), lease };
        let _: etcd::PutResponse = self.call("/etcdserverpb.KV/Put", request).await?;
        Ok(())
    }

    /// Gets a lease of so many seconds.
    pub(in crate::control) async fn grant(&mut self, ttl_s: u32) -> Result<i64, Fault> {
        self.granted(ttl_s).await.map(|(id, _)| id)
    }

    /// Gets a lease of so many seconds; the seconds that it was given.
    pub(in crate::control) async fn granted(&mut self, ttl_s: u32) -> Result<(i64, u64), Fault> {
        let request = etcd::LeaseGrantRequest { ttl: ttl_s.into() };
        let answer: etcd::LeaseGrantResponse = self.call("/etcdserverpb.Lease/LeaseGrant", request).await?;
        Ok((answer.id, u64::try_from(answer.ttl).unwrap_or(0)))
    }

    /// Ends a lease and with it its keys.
    pub(in crate::control) async fn revoke(&mut self, lease: i64) -> Result<(), Fault> {
        let request = etcd::LeaseRevokeRequest { id: lease };
        let _: etcd::LeaseRevokeResponse = self.call("/etcdserverpb.Lease/LeaseRevoke", request).await?;
        Ok(())
    }

    /// Lets a lease begin anew. A stream of one request: this comes a few times a minute.
    pub(in crate::control) async fn keep_alive(&mut self, lease: i64) -> Result<(), Fault> {
        self.renew(lease).await.map(|_| ())
    }

    /// Lets a lease begin anew; its seconds.
    pub(in crate::control) async fn renew(&mut self, lease: i64) -> Result<u64, Fault> {
        const METHOD: &str = "/etcdserverpb.Lease/LeaseKeepAlive";
        let asking = async {
            let request = etcd::LeaseKeepAliveRequest { id: lease };
            // Open until the answer is there: etcd drops a renewal whose caller has gone.
            let requests = stream::iter([request]).chain(stream::pending());
            let mut answers: Streaming<etcd::LeaseKeepAliveResponse> = self.open(METHOD, requests).await?;
            answers.message().await.map_err(Fault::from)
        };
        match in_time("LeaseKeepAlive", asking).await? {
            Some(answer) => match u64::try_from(answer.ttl) {
                Ok(ttl_s @ 1..) => Ok(ttl_s),
                _ => Err(Fault::NoLease),
            },
            None => Err(Fault::Ended("LeaseKeepAlive gave no answer".into())),
        }
    }

    /// Asks to be told of changes to several prefixes, each from a revision on. Changes carry their key.
    pub(in crate::control) async fn watch(
        &mut self,
        wanted: Vec<etcd::WatchCreateRequest>,
    ) -> Result<Streaming<etcd::WatchResponse>, Fault> {
        let create = |request| etcd::WatchRequest {
            request_union: Some(etcd::watch_request::RequestUnion::CreateRequest(request)),
        };
        let requests = stream::iter(wanted).map(create).chain(stream::pending());
        in_time("Watch", self.open("/etcdserverpb.Watch/Watch", requests)).await
    }

    async fn call<Q, A>(&mut self, method: &'static str, question: Q) -> Result<A, Fault>
    where
        Q: Message + Send + Sync + 'static,
        A: Message + Default + Send + Sync + 'static,
    {
        let request = self.request(question);
        let codec = ProstCodec::<Q, A>::default();
        let asking = async {
            self.ready().await?;
            let answer = self.grpc.unary(request, PathAndQuery::from_static(method), codec).await?;
            Ok(answer.into_inner())
        };
        in_time(method, asking).await
    }

    async fn open<Q, A>(
        &mut self,
        method: &'static str,
        questions: impl stream::Stream<Item = Q> + Send + 'static,
    ) -> Result<Streaming<A>, Fault>
    where
        Q: Message + Send + Sync + 'static,
        A: Message + Default + Send + Sync + 'static,
    {
        let request = self.request(questions);
        let codec = ProstCodec::<Q, A>::default();
        self.ready().await?;
        let answers = self.grpc.streaming(request, PathAndQuery::from_static(method), codec).await?;
        Ok(answers.into_inner())
    }

    async fn ready(&mut self) -> Result<(), Fault> {
        self.grpc.ready().await.map_err(|error| Fault::Connect(with_causes(&error)))
    }

    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        if let Some(token) = &self.token {
            request.metadata_mut().insert("token", token.clone());
        }
        request
    }
}

fn check_root(root: &str) -> Result<(), ControlFault> {
    if root.is_empty() || root.starts_with('/') || root.ends_with('/') {
        let why = "write the first part of all keys, without slashes at its ends".into();
        return Err(ControlFault::Address { of: "etcd's root", given: root.to_owned(), why });
    }
    Ok(())
}

async fn in_time<T>(what: &'static str, asking: impl Future<Output = Result<T, Fault>>) -> Result<T, Fault> {
    let answer = timeout(Duration::from_millis(CONTROL_CALL_MS), asking).await;
    answer.unwrap_or(Err(Fault::Late(what)))
}

/// The authorities are read here and not left to tonic, which passes over what it cannot read.
fn tls(of: &'static str, given: Option<&ClientTls>) -> Result<ClientTlsConfig, ControlFault> {
    let given = given.cloned().unwrap_or_default();
    let authorities = roots(of, given.authorities.as_deref())?;
    let mut config = ClientTlsConfig::new().trust_anchors(authorities.roots);
    if let Some((certificates, key)) = given.identity {
        config = config.identity(Identity::from_pem(certificates, key));
    }
    Ok(match given.server_name {
        Some(name) => config.domain_name(name),
        None => config,
    })
}

/// An error and what it comes from: tonic's own text alone is `transport error`.
fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.ends_with(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        cause = error.source();
    }
    text
}

impl From<Status> for Fault {
    fn from(status: Status) -> Self {
        if status.code() == Code::NotFound {
            // Of the calls here only those about leases say so.
            return Self::NoLease;
        }
        Self::Call(format!("{:?}: {}", status.code(), status.message()))
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connect(why) | Self::Call(why) | Self::Ended(why) => f.write_str(why),
            Self::NoLease => f.write_str("the lease is gone"),
            Self::Taken => f.write_str("another process has this node's name"),
            Self::Late(call) => write!(f, "{call} was not answered within {CONTROL_CALL_MS} ms"),
        }
    }
}
