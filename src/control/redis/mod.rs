//! OpenIM's Redis: the subscription to `online_change` (spec 9.2), and how to connect for it and for `tokens`.
//!
//! What always holds: each connection attempt has a deadline and takes the next address, a subscription is pinged, and
//! the receiver is told of each gap. A flood of messages is read off the client's queue as fast as it comes and bounded
//! on the board of news.

use std::cell::Cell;
use std::convert::Infallible;
use std::fmt;
use std::time::Duration;

use futures_util::StreamExt as _;
use redis::aio::{MultiplexedConnection, PubSub};
use redis::cluster::ClusterClient;
use redis::cluster_async::ClusterConnection;
use redis::sentinel::{Sentinel, SentinelNodeConnectionInfo};
use redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionAddr, ConnectionInfo, IntoConnectionInfo as _,
    ProtocolVersion, RedisConnectionInfo, RedisError, Value,
};
use tokio::task::unconstrained;
use tokio::time::{Instant, sleep, timeout};

use super::backoff::Backoff;
use super::counts::Counts;
use super::news::Board;
use super::plan::{ControlFault, RedisPlan, RedisTopology, Subscription};
use crate::limits::{CONTROL_CALL_MS, CONTROL_CONNECT_MS, CONTROL_PING_MS, USER_TOKENS_MAX};
use crate::metrics::Metric;

/// The channel (spec 9.2).
const ONLINE_CHANGE: &str = "online_change";

/// Times that a question to a cluster is asked again: of the node that it was sent on to, or after a look at who has
/// which slots now.
const CLUSTER_RETRIES: u32 = 3;

/// Why a connection is given up.
#[derive(Debug)]
pub(super) enum Fault {
    /// What the client says.
    Client(RedisError),
    /// No answer in time.
    Late(&'static str),
    /// The server closed it, or it is not tried again yet.
    Closed,
    /// A hash with more tokens than anybody has.
    TooMany,
}

/// Where Redis is, checked.
pub(super) struct Servers {
    /// What they are, the topology says.
    nodes: Vec<ConnectionAddr>,
    topology: RedisTopology,
    login: RedisConnectionInfo,
    next: Cell<usize>,
}

/// A connection for questions. Cheap to clone: clones share it.
#[derive(Clone)]
pub(super) enum Connection {
    Node(MultiplexedConnection),
    Cluster(ClusterConnection),
}

impl Connection {
    /// Asks the server, or the one that has the question's key.
    pub(super) async fn ask(&mut self, question: &Cmd) -> Result<Value, RedisError> {
        match self {
            Self::Node(connection) => question.query_async(connection).await,
            Self::Cluster(connection) => question.query_async(connection).await,
        }
    }
}

impl Servers {
    pub(super) fn new(plan: &RedisPlan) -> Result<Self, ControlFault> {
        const OF: &str = "Redis";
        if plan.addresses.is_empty() {
            return Err(ControlFault::NoAddress { of: OF });
        }
        let node = |given: &String| {
            let why = || "write host:port, a port being 1..65535".to_owned();
            node(given).ok_or_else(|| ControlFault::Address { of: OF, given: given.clone(), why: why() })
        };
        let nodes = plan.addresses.iter().map(node).collect::<Result<_, _>>()?;
        // Version 2 of the protocol: every server speaks it.
        let mut login = RedisConnectionInfo::default().set_db(plan.db).set_protocol(ProtocolVersion::RESP2);
        if !plan.username.is_empty() {
            login = login.set_username(&plan.username);
        }
        if !plan.password.is_empty() {
            login = login.set_password(&plan.password);
        }
        Ok(Self { nodes, topology: plan.topology.clone(), login, next: Cell::new(0) })
    }

    /// A connection for questions.
    pub(super) async fn connect(&self) -> Result<Connection, Fault> {
        if self.topology == RedisTopology::Cluster {
            return in_time("connect", CONTROL_CONNECT_MS, self.connect_cluster()).await;
        }
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(Duration::from_millis(CONTROL_CONNECT_MS)))
            .set_response_timeout(Some(Duration::from_millis(CONTROL_CALL_MS)));
        let connecting = async {
            let client = self.client().await?;
            client.get_multiplexed_async_connection_with_config(&config).await
        };
        in_time("connect", CONTROL_CONNECT_MS, connecting).await.map(Connection::Node)
    }

    /// To all nodes, which any of ours names.
    async fn connect_cluster(&self) -> Result<Connection, RedisError> {
        let nodes: Vec<ConnectionInfo> =
            self.nodes.iter().map(|node| node.clone().into_connection_info()).collect::<Result<_, _>>()?;
        let mut client = ClusterClient::builder(nodes)
            .use_protocol(ProtocolVersion::RESP2)
            .retries(CLUSTER_RETRIES)
            .connection_timeout(Duration::from_millis(CONTROL_CONNECT_MS))
            .response_timeout(Duration::from_millis(CONTROL_CALL_MS));
        if let Some(username) = self.login.username() {
            client = client.username(username);
        }
        if let Some(password) = self.login.password() {
            client = client.password(password);
        }
        client.build()?.get_async_connection().await.map(Connection::Cluster)
    }

    async fn subscribe(&self) -> Result<PubSub, Fault> {
        let connecting = async { self.client().await?.get_async_pubsub().await };
        let mut subscription = in_time("connect", CONTROL_CONNECT_MS, connecting).await?;
        in_time("SUBSCRIBE", CONTROL_CALL_MS, subscription.subscribe(ONLINE_CHANGE)).await?;
        Ok(subscription)
    }

    /// The next server, or the master as the next sentinels know it.
    async fn client(&self) -> Result<Client, RedisError> {
        let turn = self.next.get();
        self.next.set(turn.wrapping_add(1));
        let mut nodes = self.nodes.clone();
        nodes.rotate_left(turn % self.nodes.len().max(1));
        if let RedisTopology::Sentinels { master } = &self.topology {
            let login = SentinelNodeConnectionInfo::default().set_redis_connection_info(self.login.clone());
            return Sentinel::build(nodes)?.async_master_for(master, Some(&login)).await;
        }
        let none = || RedisError::from((redis::ErrorKind::InvalidClientConfig, "no address"));
        let node: ConnectionInfo = nodes.into_iter().next().ok_or_else(none)?.into_connection_info()?;
        Client::open(node.set_redis_settings(self.login.clone()))
    }
}

/// Listens to `online_change`, subscription after subscription.
pub(super) async fn listen_always(
    servers: Option<&Servers>,
    subscription: Option<Subscription>,
    board: &Board,
    counts: &Counts,
) {
    let (Some(servers), Some(Subscription::OnlineChange)) = (servers, subscription) else {
        return;
    };
    let mut backoff = Backoff::default();
    loop {
        let began = Instant::now();
        let fault = match listen(servers, board, counts).await {
            Err(fault) => fault,
            Ok(never) => match never {},
        };
        let wait = backoff.next(began.elapsed());
        counts.count(Metric::RedisFailures);
        counts.set(Metric::Subscribed, 0);
        board.subscription_lost();
        if backoff.is_first() {
            tracing::warn!(%fault, "Redis: not subscribed to online_change; trying again until it is");
        } else {
            tracing::debug!(%fault, ?wait, "Redis: still not subscribed");
        }
        sleep(wait).await;
    }
}

async fn listen(servers: &Servers, board: &Board, counts: &Counts) -> Result<Infallible, Fault> {
    let (mut sink, mut messages) = servers.subscribe().await?.split();
    counts.count(Metric::Subscriptions);
    counts.set(Metric::Subscribed, 1);
    board.resubscribed();
    tracing::info!("Redis: subscribed to online_change");
    let take = async {
        while let Some(message) = messages.next().await {
            counts.count(Metric::OnlineChanges);
            board.online_change(message.get_payload_bytes());
        }
        Fault::Closed
    };
    let ping = async {
        loop {
            sleep(Duration::from_millis(CONTROL_PING_MS)).await;
            let pinged: Result<(), Fault> = in_time("PING", CONTROL_CALL_MS, sink.ping()).await;
            if let Err(fault) = pinged {
                return fault;
            }
        }
    };
    tokio::select! {
        // Without tokio's budget: what the client has read is taken off its queue, which has no limit of its own,
        // before it reads more.
        fault = unconstrained(take) => Err(fault),
        fault = ping => Err(fault),
    }
}

async fn in_time<T>(
    what: &'static str,
    within_ms: u64,
    asking: impl Future<Output = Result<T, RedisError>>,
) -> Result<T, Fault> {
    match timeout(Duration::from_millis(within_ms), asking).await {
        Ok(answer) => answer.map_err(Fault::Client),
        Err(_) => Err(Fault::Late(what)),
    }
}

/// `host:port`, `10.0.0.7:6379` or `[::1]:6379`.
fn node(given: &str) -> Option<ConnectionAddr> {
    let (host, port) = given.rsplit_once(':')?;
    let inner = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let host = match inner {
        Some(v6) => v6.parse::<std::net::Ipv6Addr>().ok().map(|v6| v6.to_string())?,
        None => {
            Some(host).filter(|host| !host.is_empty() && !host.contains([':', '/', '@', ' ']))?.to_owned()
        }
    };
    let port = port.parse().ok().filter(|&port| port != 0)?;
    Some(ConnectionAddr::Tcp(host, port))
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Client(error) => error.fmt(f),
            Self::Late(call) => write!(f, "{call} was not answered in time"),
            Self::Closed => f.write_str("there is no connection"),
            Self::TooMany => write!(f, "more than {USER_TOKENS_MAX} tokens of one user and platform"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_host_and_port() {
        for (given, wanted) in [
            ("localhost:6379", Some(("localhost", 6379))),
            ("10.0.0.7:1", Some(("10.0.0.7", 1))),
            ("[::1]:16379", Some(("::1", 16379))),
            ("redis-0.redis.svc:6379", Some(("redis-0.redis.svc", 6379))),
            ("::1:6379", None),
            ("[::1:6379", None),
            ("[nobody]:6379", None),
            ("localhost", None),
            (":6379", None),
            ("localhost:0", None),
            ("localhost:65536", None),
            ("localhost:", None),
            ("redis://localhost:6379", None),
            ("user@host:1", None),
            ("", None),
        ] {
            let wanted = wanted.map(|(host, port)| ConnectionAddr::Tcp(host.to_owned(), port));
            assert_eq!(node(given), wanted, "{given}");
        }
    }
}
