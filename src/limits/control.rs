//! Limits of the control thread: etcd, Kubernetes, names, Redis, webhooks.

/// Instances of one service that are kept, in the order of their keys. More: ignored and counted.
pub const SERVICE_ENDPOINTS_MAX: usize = 1_024;
/// Bytes of an endpoint's value in etcd; OpenIM's are below 100. More: ignored and counted.
pub const ENDPOINT_VALUE_BYTES: usize = 4 * 1024;
/// Default: empty observations in a row before a service that had instances is believed to have none.
pub const ENDPOINTS_EMPTY_MAX: u32 = 3;
/// Default: milliseconds from the first of these observations to the last. The last known addresses are used meanwhile.
pub const ENDPOINTS_EMPTY_MS: u64 = 10_000;
/// To connect to etcd or Redis, login included. Later: the next address.
pub const CONTROL_CONNECT_MS: u64 = 5_000;
/// One question to etcd, and one PING of Redis. Later: the connection is given up.
pub const CONTROL_CALL_MS: u64 = 5_000;
/// After this long without a byte etcd and Redis are pinged; as long again without an answer: the connection is dead.
pub const CONTROL_PING_MS: u64 = 10_000;
/// Wait before the second attempt to reach etcd or Redis; doubles with each (the half of it is drawn by lot).
pub const CONTROL_BACKOFF_MS: u64 = 200;
/// Longest such wait. OpenIM's own retries each second (spec 11.1).
pub const CONTROL_BACKOFF_LONGEST_MS: u64 = 5_000;
/// A connection that held this long was a good one: the waits begin anew.
pub const CONTROL_STEADY_MS: u64 = 10_000;
/// Default: how long etcd keeps a node's registration without a sign of life (spec 11.1).
pub const REGISTRATION_LEASE_MS: u64 = 30_000;
/// Default: the same of the key that OpenIM's Prometheus discovery reads (spec 11.4).
pub const PROMETHEUS_LEASE_MS: u64 = 300_000;
/// Default: after this long the API server of Kubernetes is to end a watch; as long and `CONTROL_CALL_MS` without a
/// byte of it: the connection is dead.
pub const KUBERNETES_WATCH_MS: u64 = 60_000;
/// A watch that ended by itself before that: the server is not well, and the next one waits.
pub const KUBERNETES_WATCH_LEAST_MS: u64 = 1_000;
/// Bytes of one answer of the API server, and of one event of a watch. A service with a thousand instances, which is
/// the most that Kubernetes puts into one object, has about 300 KiB. More: the connection is given up.
pub const KUBERNETES_ANSWER_BYTES: usize = 4 * 1024 * 1024;
/// Bytes of a service account's token; they have one or two KiB. More: no request is made.
pub const KUBERNETES_TOKEN_BYTES: u64 = 64 * 1024;
/// Default: names of services are looked up again after this long.
pub const NAMES_ROUND_MS: u64 = 5_000;
/// Default: the gateways that answer may differ from `MY_MSGGATEWAY_REPLICACOUNT` for so long, since pods are
/// restarted. Longer: the node is not ready, and says why.
pub const GATEWAYS_DIFFER_MS: u64 = 60_000;
/// Payloads of `online_change` that wait for the rpc thread. More: all are dropped and counted, and the rpc thread is
/// told to ask anew, as after a new subscription.
pub const ONLINE_CHANGES_MAX: usize = 4_096;
/// Bytes of one such payload; a user id and at most some dozens of platforms. More: dropped and counted, or, where it
/// is read, invalid.
pub const ONLINE_CHANGE_BYTES: usize = 4 * 1024;
/// How often news that the rpc thread had no room for are offered again.
pub const NEWS_RETRY_MS: u64 = 10;
/// How often the control thread publishes its counts.
pub const CONTROL_PUBLISH_MS: u64 = 500;
/// Logins whose token state Redis is asked for (OpenIM 3.5), as many as calls may wait for a service by default; fewer
/// where `upstream.in_flight_max` is less. More: refused with 503 at once.
pub const TOKEN_CHECKS_MAX: usize = 8_192;
/// Orders about tokens that wait: all checks, and kicks. More: refused to the asker.
pub const TOKEN_ORDERS_MAX: usize = 10_240;
/// Orders about tokens that Redis works on. More: they wait.
pub const TOKEN_ORDERS_IN_FLIGHT_MAX: usize = 32;
/// Tokens of one user and platform in Redis. More: the question fails.
pub const USER_TOKENS_MAX: usize = 4_096;
/// Orders about the records of the cluster that wait. More: refused to the router, which orders again.
pub const MEMBERSHIP_ORDERS_MAX: usize = 256;
/// How often the file of `cluster.members` is looked at.
pub const MEMBERS_FILE_MS: u64 = 1_000;
/// Bytes of that file. More: it is not read.
pub const MEMBERS_FILE_BYTES: u64 = 1024 * 1024;
/// Bytes of one record of a node in etcd. More: it counts as one that cannot be read.
pub const MEMBER_RECORD_BYTES: usize = 16 * 1024;
/// Bytes of `cluster.lock_file` that are read: who holds it.
pub const LOCK_FILE_BYTES: u64 = 1024;
/// Webhooks that wait; OpenIM's queue (spec 11.6). More: the newest is dropped and counted.
pub const WEBHOOKS_MAX: usize = 100;
/// Webhooks under way; OpenIM's number of workers.
pub const WEBHOOKS_IN_FLIGHT_MAX: usize = 2;
/// Bytes of a webhook's answer. More: it counts as malformed.
pub const WEBHOOK_ANSWER_BYTES: usize = 64 * 1024;
/// Threads that look names up for etcd, Kubernetes, OpenIM 3.5's services, Redis, webhooks and links to other nodes.
/// More lookups: they wait.
pub const NAME_LOOKUPS_MAX: usize = 4;
/// Names of other nodes that wait to be looked up, one for each. More: refused, and dialled later.
pub const NAME_ORDERS_MAX: usize = super::MEMBERS_MAX;
/// Names of other nodes that are looked up at once. More: they wait.
pub const LOOKUPS_IN_FLIGHT_MAX: usize = 2;

const _: () =
    assert!(LOOKUPS_IN_FLIGHT_MAX < NAME_LOOKUPS_MAX, "a resolver that hangs leaves threads for others");
const _: () = assert!(TOKEN_CHECKS_MAX < TOKEN_ORDERS_MAX, "a kick finds room beside all checks");
const _: () = assert!(CONTROL_BACKOFF_MS < CONTROL_BACKOFF_LONGEST_MS, "the waits grow");
const _: () = assert!(
    REGISTRATION_LEASE_MS / 3 + CONTROL_CONNECT_MS + CONTROL_CALL_MS < REGISTRATION_LEASE_MS,
    "a registration outlives one late sign of life"
);
