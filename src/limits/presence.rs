//! Limits of presence towards OpenIM's user service (`backend/openim/presence`).

/// Users in one setUserOnlineStatus (upstream's number, spec 9.1). More: the next request.
pub const PRESENCE_BATCH_MAX: usize = 100;
/// Default of `presence.batch_wait_ms`: a user's change is told at the latest so long after it came, if the requests
/// before it are answered (spec 9.1).
pub const PRESENCE_FLUSH_MS: u64 = 1_000;
/// Lanes: setUserOnlineStatus requests in flight at once (upstream's number, spec 9.1). More: they wait.
pub const PRESENCE_LANES_MAX: u8 = 4;
/// Lanes of OpenIM 3.5, whose setUserStatus tells one change. More: they wait.
pub const PRESENCE_LEGACY_LANES_MAX: u8 = 16;
/// A request without an answer has failed after so long (spec 9.1). Told again, merged with what came meanwhile.
pub const PRESENCE_DEADLINE_MS: u64 = 5_000;
/// After the first failure in a row a lane waits at most so long, after each further one twice as long.
pub const PRESENCE_BACKOFF_FIRST_MS: u64 = 250;
/// The longest such wait.
pub const PRESENCE_BACKOFF_MS: u64 = 15_000;
/// What followed a request of unknown fate is told once more after so long, and a user is repaired so often at most.
pub const PRESENCE_SETTLE_MS: u64 = 10_000;
/// OpenIM 3.5 only: where other gateways are, a login here is told once more after so long. The gateway that he left
/// says that he is gone perhaps after this one said that he came, and 3.5 has no channel to hear of it.
pub const PRESENCE_MOVED_MS: u64 = 3_000;
/// Logins that wait for it. More: the newest is not told again, and counted.
pub const PRESENCE_MOVED_MAX: usize = 100_000;
/// Default of `presence.renewal_ms`: a user who is online is told again so long after he was told last (spec 9.1) ...
pub const PRESENCE_RENEW_MS: u64 = 600_000;
/// ... and at the latest after so long: the renewals of users who came together are spread over the time between.
pub const PRESENCE_RENEW_LATEST_MS: u64 = 900_000;
/// What the user service forgets by itself (spec 9.2).
pub const PRESENCE_EXPIRY_MS: u64 = 1_800_000;
/// Whose last record is older than this may be handed over: nothing that was said of him here can come after what the
/// gateway says at which he is now. Longer than the news of his login there can be on the way.
pub const PRESENCE_STEADY_MS: u64 = 12_000;
/// After a gap in `online_change` everybody here is told again, spread over so long.
pub const PRESENCE_HEAL_MS: u64 = 60_000;
/// Users without a connection here whose leaving is still to be told. More: the one who leaves is forgotten and
/// counted; the user service forgets him after `PRESENCE_EXPIRY_MS`.
pub const PRESENCE_DEPARTED_MAX: usize = 131_072;
/// Kicks of one user that a record names for webhooks, of which one is told per kick. More: not told, and counted.
pub const KICKS_PER_RECORD_MAX: usize = 64;
/// Webhooks that wait to be posted. More: the new one is dropped and counted (upstream: 100, spec 11.6).
pub const WEBHOOKS_WAITING_MAX: usize = 16_384;
/// Users in the cache of statuses. More: the one asked for longest ago is forgotten (upstream: 2 097 152, spec 9.3).
pub const STATUS_ENTRIES_MAX: u32 = 262_144;
/// A status is believed so long (spec 9.3).
pub const STATUS_FRESH_MS: u64 = 900_000;
/// A user whose status could not be had is not asked for again so long: questions fail at once (spec 9.3).
pub const STATUS_FAILED_MS: u64 = 3_000;
/// Users in one getUserStatus. More: the next request.
pub const STATUS_BATCH_MAX: usize = 100;
/// getUserStatus requests in flight. More: they wait.
pub const STATUS_CALLS_MAX: usize = 4;
/// A getUserStatus without an answer has failed after so long.
pub const STATUS_DEADLINE_MS: u64 = 5_000;
/// Users in questions that wait for an answer. More: the question gets an error at once.
pub const STATUS_WAITING_MAX: usize = 262_144;
/// After a gap in `online_change` a batch of cached users is asked for so often.
pub const STATUS_RESYNC_MS: u64 = 100;

const _: () = assert!(
    // Twice the deadline: a renewal may have to be told twice, by a lane that has waited its longest before.
    PRESENCE_RENEW_LATEST_MS + 2 * PRESENCE_DEADLINE_MS + PRESENCE_BACKOFF_MS + PRESENCE_FLUSH_MS < 1_200_000,
    "two records of a user are less than 20 minutes apart, as upstream's"
);
const _: () =
    assert!(PRESENCE_STEADY_MS > super::UPSTREAM_DEADLINE_MS && PRESENCE_STEADY_MS > PRESENCE_SETTLE_MS);
const _: () =
    assert!(PRESENCE_RENEW_MS / 2 * 3 == PRESENCE_RENEW_LATEST_MS && 1_200_000 < PRESENCE_EXPIRY_MS);
