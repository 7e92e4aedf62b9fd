//! Limits of the embedded backend.

use super::FRAME_SENT_BYTES_MAX;

/// Messages kept per conversation; older ones are forgotten.
pub const EMBEDDED_HISTORY_MAX: usize = 1_000;
/// Bytes kept over all conversations; the oldest messages of the largest conversation are forgotten first.
pub const EMBEDDED_HISTORY_BYTES: usize = 256 * 1024 * 1024;
/// Conversations known. More: SendMsg is refused.
pub const EMBEDDED_CONVERSATIONS_MAX: usize = 100_000;
/// Messages in one answer to a pull.
pub const EMBEDDED_PULL_MAX: usize = 200;
/// Bytes of one answer, before encoding for the client. More: the answer is shortened.
pub const EMBEDDED_ANSWER_BYTES: usize = 512 * 1024;
/// Bytes of one message with all its fields. More: SendMsg is refused.
pub const EMBEDDED_MESSAGE_BYTES: usize = 256 * 1024;
/// Bytes of a user id that takes part in a conversation. More: SendMsg is refused.
pub const EMBEDDED_USER_ID_BYTES: usize = 64;
/// Conversations of one user, so that a list of all of them fits one answer. More: SendMsg is refused.
pub const EMBEDDED_USER_CONVERSATIONS_MAX: usize = 1_500;
/// Ranges, sequence numbers or conversation ids named by one request. More: ArgsError.
pub const EMBEDDED_ITEMS_MAX: usize = 2_000;
/// Tokens whose state a shard remembers. More: the one that expires first is forgotten, so it counts as not kicked.
pub const EMBEDDED_TOKENS_MAX: usize = 100_000;

const _: () = assert!(
    EMBEDDED_ANSWER_BYTES / 3 * 4 + 16 * 1024 < FRAME_SENT_BYTES_MAX,
    "an answer fits one frame, also as base64 in JSON"
);
const _: () =
    assert!(EMBEDDED_MESSAGE_BYTES + 4 * 1024 < EMBEDDED_ANSWER_BYTES, "the largest message fits an answer");
const _: () = assert!(
    // Both maps of a GetMaxSeq answer: key of two ids, sequence number, tags and lengths.
    EMBEDDED_USER_CONVERSATIONS_MAX * 2 * (2 * EMBEDDED_USER_ID_BYTES + 4 + 20) < EMBEDDED_ANSWER_BYTES,
    "all conversations of a user fit an answer"
);
