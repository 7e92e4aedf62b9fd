//! Limits of the links between nodes (`cluster/protocol/codec`, `rpc/peers`).

use super::{GRPC_MESSAGE_BYTES_MAX, RPC_USERS_MAX};

/// A message between two nodes: the largest push, its recipients included, and the words around it. A question
/// (Route, Deliver) that is larger is not sent, counted: its asker takes the silence for what it is.
pub const LINK_MESSAGE_BYTES_MAX: usize = GRPC_MESSAGE_BYTES_MAX + 256 * 1024;
/// A message with more than one frame: it is closed when it has so many bytes. Larger ones hold one frame only, and
/// only a push or what answers one.
pub const LINK_BATCH_BYTES: usize = 64 * 1024;
/// Frames in one message. More: the message is not read, and the link ends.
pub const LINK_BATCH_FRAMES_MAX: usize = 8_192;
/// Recipients of one question. More: as [`LINK_MESSAGE_BYTES_MAX`]; in a message that came: it is not read.
pub const LINK_RECIPIENTS_MAX: usize = RPC_USERS_MAX;
/// An answer is cut into parts of about so many bytes, at a recipient.
pub const LINK_PART_BYTES: usize = 32 * 1024;
/// A part with one recipient alone (a user with thousands of connections). More: not sent, counted; in a message
/// that came: it is not read.
pub const LINK_ANSWER_BYTES_MAX: usize = 1024 * 1024;
/// Members that one Hello names. More: the rest is not named, counted; in a message that came: it is not read.
pub const LINK_KNOWS_MAX: usize = 1_024;
/// What waits for one link: half a second at 1 Gbit/s, so that no beat waits longer than that for large pushes. More:
/// the link is ended, counted; the nodes replay what must be known on the next one.
pub const LINK_QUEUE_BYTES: usize = 64 * 1024 * 1024;
/// As [`LINK_QUEUE_BYTES`]: claims of a node that holds so many connections.
pub const LINK_QUEUE_FRAMES_MAX: usize = 1024 * 1024;
/// From the first SYN to the stream's response head. Later: the next attempt.
pub const LINK_CONNECT_MS: u64 = 3_000;
/// A peer that dialled sends its Hello within so long, or its stream ends.
pub const LINK_HELLO_MS: u64 = 5_000;
/// A peer that takes nothing of what waits for so long loses the link: longer than a beat may be missing.
pub const LINK_STALL_MS: u64 = 5_000;
/// What is queued when a link ends by the node's own will goes out within so long.
pub const LINK_FLUSH_MS: u64 = 500;
/// Pause after the first failure to dial; it doubles with each further one ...
pub const LINK_BACKOFF_LEAST_MS: u64 = 50;
/// ... up to this: a peer that is back has its link within so long and a fifth.
pub const LINK_BACKOFF_MS: u64 = 2_000;
/// A peer of a lower id that does not dial for so long is asked to, again and again.
pub const LINK_KNOCK_MS: u64 = 1_500;
/// Nodes that asked to be dialled and are not among the members here. More: refused, counted, and they ask again.
pub const LINK_GUESTS_MAX: usize = super::MEMBERS_MAX;
/// A link that stood so long was good: pauses begin with the least one again.
pub const LINK_STEADY_MS: u64 = 5_000;
/// Attempts in a row that found another thread of the peer, without a pause between them.
pub const LINK_SEATS_MAX: u32 = 64;
/// Transports of one peer at once. More: the newest is refused.
pub const LINK_TRANSPORTS_MAX: usize = 4;
/// Frames of one message that are handled in a turn of the thread.
pub const LINK_TURN_FRAMES_MAX: usize = 256;
/// Peers with a transport at once. More: a peer that dials is refused.
pub const LINK_PEERS_MAX: usize = super::MEMBERS_MAX;

const _: () = assert!(LINK_PART_BYTES < LINK_BATCH_BYTES, "parts of an answer share messages");
const _: () = assert!(LINK_MESSAGE_BYTES_MAX < LINK_QUEUE_BYTES, "a push fits the queue");
const _: () = assert!(LINK_BACKOFF_LEAST_MS < LINK_BACKOFF_MS, "pauses grow");
