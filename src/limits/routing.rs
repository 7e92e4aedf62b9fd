//! Limits and times of routing between nodes (`cluster/protocol`; the proofs: routing-protocol.md section 6).
//!
//! Clock rates of two nodes differ by at most 1 % (assumption A1): `* 101 / 99` turns a time of one clock into the
//! longest that another may show for it.

/// How long a node's record stands without a renewal: default, least, most.
pub const LEASE_MS: u64 = 10_000;
/// See [`LEASE_MS`].
pub const LEASE_LEAST_MS: u64 = 3_000;
/// See [`LEASE_MS`].
pub const LEASE_LONGEST_MS: u64 = 300_000;
/// Each side of a link sends a beat so often: three beats per [`COVER_MS`].
pub const BEAT_MS: u64 = 1_000;
/// A home believes a promise so long after it sent the newest beat that the promising node has echoed; no frame older
/// than this is acted on. How long a dead link goes unnoticed.
pub const COVER_MS: u64 = 3_000;
/// A promise can no longer be in use so long after the last sign of the home: outlasts [`COVER_MS`] on any clock. The
/// longest extra wait of a login.
pub const VOID_MS: u64 = COVER_MS * 101 / 99 + 40;
/// A node of a static list waits so long for links to the others before it serves clients without them.
pub const LIST_BARRIER_MS: u64 = 6_000;
/// Under `fence = strict`: without a lease and with a peer silent for so long, a node closes its connections.
pub const FENCE_MS: u64 = 30_000;
/// A node that fences has closed every connection after so long.
pub const FENCE_CLOSE_MS: u64 = 2_000;
/// Under `fence = strict`: a lost node is forgotten so long after its link went down.
pub const GONE_MS: u64 = 40_000;
/// And so long after it was seen to be lost: a node whose link broke long before its lease ended fences only then.
pub const GONE_LOST_MS: u64 = 5_000;
/// Under `fence = strict`: a node that had no lease for so long closes its connections, whatever its links.
pub const LAST_MS: u64 = 3_600_000;
/// Under `fence = strict`: a record that has been lost for so long is deleted, even if nobody had a link with its node.
pub const LAST_GONE_MS: u64 = LAST_MS / 100 * 105;
/// A home waits so long for the answers to a push.
pub const HOLD_MS: u64 = 2_000;
/// An entry node waits so long for the home's answer, then its outcome is unknown.
pub const ROUTE_MS: u64 = 2_500;
/// An entry node composes no copy of a push later than this after it accepted it.
pub const PUSH_COMPOSE_MS: u64 = 5_000;
/// A holder remembers so long what it delivered: the latest moment at which another copy can be acted on.
pub const SEEN_MS: u64 = 15_000;
/// A later push to a user waits at most so long for an earlier one that goes to all nodes. Longer: it goes, counted.
pub const ORDER_WAIT_MS: u64 = 2_200;

/// Beats whose sending is remembered, per link. An echo of an older one is stale: the link is closed.
pub const BEATS_MAX: usize = 8;
/// Placements that one peer may still rely on. More: the link to that laggard is closed.
pub const PROMISES_MAX: usize = 8;
/// Legs of pushes in flight at a node, each role counted apart. More: the push is refused, or not complete; counted.
pub const LEGS_MAX: usize = 65_536;
/// Deliveries that are remembered (about 40 bytes each). More: the oldest is forgotten, and until it would have
/// expired a repeated push that is not found is answered "unknown".
pub const SEEN_MAX: usize = 524_288;
/// Those of them made by a repeated push; they are never forgotten early. More: answered "unknown", counted.
pub const SEEN_PINNED_MAX: usize = 65_536;
/// Recipients that wait at an entry node for order's sake. More: they go at once, counted.
pub const ORDER_WAITING_MAX: usize = 65_536;
/// Mail of the node's router to shards whose control lane was full. More: it is lost and counted; a login that is not
/// answered ends at its deadline. Placements always have room.
pub const CLUSTER_MAIL_WAITING_MAX: usize = 65_536;
/// Mail and orders whose lane was full are tried again so often.
pub const CLUSTER_RETRY_MS: u64 = 5;
/// The shards answer a copy of a push within this; what is not written by then is reported as queued.
pub const COPY_ANSWER_MS: u64 = 1_300;
/// A message of OpenIM's push service in mode `route` is not sent again to whoever had it within this time.
pub const DOUBLE_MS: u64 = 15_000;
/// Messages, by recipient, that are remembered for that (about 200 bytes each). More: the oldest is forgotten, and
/// would be sent again; counted.
pub const DOUBLES_MAX: usize = 262_144;
/// Whoever has a message on its way to him is looked at again so often, until it is known what became of it.
pub const DOUBLE_LOOK_MS: u64 = 5;
/// A message of OpenIM's push service in mode `local` is remembered so long, for nodes that ask whether it came here.
pub const HEARD_MS: u64 = 15_000;
/// Messages that are remembered for that (about 150 bytes each). More: the oldest is forgotten, and another node may
/// count it as one that came to itself alone.
pub const HEARD_MAX: usize = 65_536;
/// ... and is asked for after so long: by then the push service has called every gateway.
pub const HEARD_WAIT_MS: u64 = 3_000;
/// One question in this time; messages in between are not looked at.
pub const HEARD_LOOK_MS: u64 = 100;
/// Users of a message that are asked for. More: the rest is not counted.
pub const HEARD_USERS_MAX: usize = 64;
const _: () = assert!(HEARD_WAIT_MS * 2 < HEARD_MS, "who asks is late by a call and a link");
/// Two processes of one name that were seen so long ago are not spoken of in `/readyz` any more.
pub const CLUSTER_CLASH_MS: u64 = 30_000;
/// A node that waits for others before it accepts clients says so in the log so often.
pub const CLUSTER_SAY_MS: u64 = 5_000;

/// News for the node's router that wait in a shard. More: new logins are refused until they left.
pub const CLUSTER_NEWS_MAX: usize = 65_536;
/// Placements by which one shard acts at a time. More: the oldest is forgotten, counted, and every login asks the
/// router.
pub const PLACEMENTS_MAX: usize = 16;
/// Users that a shard looks at in one turn for the answer to a new placement. Unit tests have few users, and slices.
pub const SWITCH_SLICE_MAX: u32 = if cfg!(test) { 1 } else { 1024 };

const _: () = assert!(
    COPY_ANSWER_MS + super::VERDICT_MARGIN_MS < HOLD_MS,
    "what the shards say of a copy comes while the home waits for it"
);
const _: () = assert!(3 * BEAT_MS <= COVER_MS, "three beats per cover");
const _: () = assert!(BEATS_MAX as u64 * BEAT_MS > COVER_MS * 2, "a beat that is not stale is remembered");
const _: () = assert!(VOID_MS * 99 >= COVER_MS * 101, "a void promise is void on every clock");
const _: () = assert!(
    GONE_MS * 99 >= (COVER_MS + FENCE_MS + FENCE_CLOSE_MS) * 101,
    "what is forgotten has closed its connections"
);
const _: () = assert!(
    GONE_LOST_MS * 99 >= (2 * BEAT_MS + FENCE_CLOSE_MS) * 101,
    "who has lost its lease notices within a beat, and closes its connections"
);
const _: () = assert!(
    LAST_GONE_MS * 99 >= (LAST_MS + FENCE_CLOSE_MS) * 101,
    "a record goes after its node has closed its connections"
);
const _: () = assert!(
    SEEN_MS * 100 >= (PUSH_COMPOSE_MS + COVER_MS + HOLD_MS + COVER_MS) * 101,
    "what is forgotten cannot come again"
);
const _: () =
    assert!(HOLD_MS < ROUTE_MS && ROUTE_MS < PUSH_COMPOSE_MS, "a home answers before it is given up");
const _: () = assert!(ORDER_WAIT_MS + ROUTE_MS < PUSH_COMPOSE_MS, "who waited can still be sent to all");
