//! Limits of membership and placement (`cluster/view`, `cluster/placement`).

/// Bytes of a node id: a pod's name has at most so many (RFC 1123 subdomain). More: the id is refused.
pub const NODE_ID_BYTES: usize = 253;
/// Members of one list. More: the list is refused. Every node links with every other (routing-protocol.md 12.11).
pub const MEMBERS_MAX: usize = 1_024;
/// Greatest weight of a node. With it cost times weight stays below 2^53, exact in any language.
pub const WEIGHT_MAX: u16 = 10_000;

/// Rules of the assign API. More: a fault of the configuration. Each request is compared with all.
pub const ASSIGN_RULES_MAX: usize = 256;
/// Users and prefixes that one rule lists. More: a fault of the configuration.
pub const ASSIGN_USERS_MAX: usize = 10_000;
/// Nodes behind the first in an answer of the assign API.
pub const ASSIGN_ALTERNATIVES_MAX: usize = 2;
/// Default: a client may keep an answer so long.
pub const ASSIGN_TTL_MS: u64 = 30_000;
/// ... and an answer out of the static list, which knows nothing of the nodes, so long.
pub const ASSIGN_STATIC_TTL_MS: u64 = 5_000;
/// Default: a client waits so long before it dials again, the first time ...
pub const ASSIGN_BACKOFF_FIRST_MS: u64 = 1_000;
/// ... and so long at most.
pub const ASSIGN_BACKOFF_MS: u64 = 60_000;
/// Default: a node that is filled to so many thousandths is named after the others.
pub const ASSIGN_FULL_PERMILLE_MAX: u16 = 900;

/// Bytes of a file with members or rules. Larger: refused.
pub const ROUTE_FILE_BYTES: u64 = 16 * 1024 * 1024;
/// Bytes of a file with user ids for `pinion route`. Larger: refused.
pub const ROUTE_USERS_BYTES: u64 = 1024 * 1024 * 1024;
/// Users that `pinion route` makes up. More: refused.
pub const ROUTE_USERS_MAX: u64 = 100_000_000;
