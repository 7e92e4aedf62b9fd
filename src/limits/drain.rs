//! The drain of a node, and the addresses of dead nodes that it takes over.

use super::TICK_MS;

/// From an operator's drain to its first eviction: readiness, placement and assign are withdrawn at once, and whoever
/// asks them shall have heard of it before the first client looks for another node.
pub const DRAIN_LEAD_MS: u64 = 1_000;
/// Evictions per second where `drain.evict_per_s` is auto and no other active member is known.
pub const DRAIN_EVICTIONS_MAX: u32 = 500;
/// Largest `drain.evict_per_s`; what the other members accept is cut to it, too.
pub const DRAIN_EVICT_PER_S_MAX: u32 = 100_000;
/// Positions of the table of sessions that a step of an operator's drain looks at. More: the next step goes on.
pub const DRAIN_LOOKS_MAX: u32 = 16_384;
/// For so long an operator's drain finds only sessions with requests in flight. Then they are evicted, too.
pub const DRAIN_BUSY_MS: u64 = 30_000;
/// How often the log says how far a drain is.
pub const DRAIN_LOG_MS: u64 = 5_000;
/// Addresses that `cluster.adopt` lists. More: a fault of the configuration.
pub const ADOPT_ADDRESSES_MAX: usize = 64;
/// How often `pinion drain --wait` asks how far it is.
pub const DRAIN_ASK_MS: u64 = 1_000;
/// A listed node that no view has had for so long is gone, and its addresses are taken over. (A lost one at once.)
pub const ADOPT_ABSENT_MS: u64 = 30_000;
/// A node that starts in a cluster with `cluster.adopt` waits so long for a neighbour on its host to give its address
/// back. Longer: the start fails, since another program listens there.
pub const ADOPT_RETURN_MS: u64 = 10_000;
/// A step of taking an address over that failed is repeated after this.
pub const ADOPT_RETRY_MS: u64 = 5_000;
/// Default of `cluster.adopt_hook_ms`. The hook takes longer: it is killed, which counts as failed.
pub const ADOPT_HOOK_MS: u64 = 10_000;
/// How often main looks whether the hook has ended.
pub const ADOPT_HOOK_POLL_MS: u64 = 20;

const _: () = assert!(DRAIN_LEAD_MS >= TICK_MS, "every shard hears of a drain before its first eviction");
