//! Limits of the configuration of `backend: openim` and defaults of its settings.

/// Addresses in one list of the configuration (etcd, Redis, static services). More: a fault.
pub const ENDPOINTS_MAX: usize = 256;
/// Gateways of OpenIM 3.5 on Kubernetes (`MY_MSGGATEWAY_REPLICACOUNT`). More: a fault.
pub const REPLICAS_MAX: u32 = 1_024;
/// Elements of OpenIM's port lists that `openim.index` can name. More: a fault.
pub const OPENIM_INDEX_MAX: u16 = 1_024;
/// Keys of one of OpenIM's files that a note names. The rest is only counted.
pub const NOTE_KEYS_MAX: usize = 6;
/// Default of `webhooks.*_timeout_ms` (spec 11.3). Later: the webhook counts as failed.
pub const WEBHOOK_TIMEOUT_MS: u64 = 5_000;
/// Most that `webhooks.*_timeout_ms` can be, and longest that a webhook may take: OpenIM's client gives up then,
/// whatever is configured (spec 11.6). A larger number in OpenIM's folder counts as this.
pub const WEBHOOK_TIMEOUT_MS_MAX: u64 = 15_000;
/// Most that `presence.renewal_ms` can be: records live 1800 s in Redis, and the gap between two is below twice this.
pub const PRESENCE_RENEWAL_MS_MAX: u64 = 840_000;
