//! Limits and times of `pinion proxy` (`rpc/proxy`). Configurable ones name their default here.

/// A member must take a connection within so long, by default. Later: the next one is tried, counted as a timeout.
pub const PROXY_CONNECT_MS: u64 = 3_000;
/// A member must say the first bytes of its answer within so long, by default. Later: 504, and the member is avoided
/// for a while. Above the gateway's own deadline of a login.
pub const PROXY_ANSWER_MS: u64 = 35_000;
/// A pair of which one side has ended, and that moves nothing, is closed after so long, by default.
pub const PROXY_HALF_CLOSED_MS: u64 = 60_000;
/// Default: a drain waits so long for the pairs that are left. Later: they are closed.
pub const PROXY_DRAIN_MS: u64 = 60_000;
/// A member that was not reached is tried after the others for so long; then one handshake tries it again.
pub const PROXY_AVOID_MS: u64 = 2_000;
/// Members that one handshake tries. All unreachable: 502.
pub const PROXY_ATTEMPTS_MAX: usize = 4;
/// Handshakes of one thread that have no answer yet. More: the next client waits in the kernel's queue, counted.
pub const PROXY_OPENINGS_MAX: usize = 2_048;
/// The buffer of a thread, through which all its pairs move their bytes. What a slow side does not take of it is held
/// for this pair, so this is also the most that one direction of a pair ever holds in memory.
pub const PROXY_BUFFER_BYTES: usize = 64 * 1024;
/// Bytes that one pair moves before the others have their turn.
pub const PROXY_TURN_BYTES: usize = 512 * 1024;
/// Bytes that one splice is asked for: the capacity of a pipe.
pub const PROXY_SPLICE_BYTES: usize = 64 * 1024;
/// Refused clients of one thread that may still read their answer. More: closed under their answer, counted.
pub const PROXY_LINGERING_MAX: usize = 256;
/// Pipes of one thread. All in use: bytes are copied, counted.
pub const PROXY_PIPES_MAX: usize = 64;
/// Pipes that a thread keeps for the next who wants one. More: closed.
pub const PROXY_SPARE_PIPES_MAX: usize = 8;
/// Descriptors of a thread beside its pairs and pipes: epoll, listener, bell, spare, and room for a refusal.
pub const PROXY_THREAD_FILES_MAX: u64 = 16;
/// Descriptors of the process beside its threads: the standard streams, log, signals, operators, names.
pub const PROXY_PROCESS_FILES_MAX: u64 = 128;
/// Bytes of a head's answer that are looked at: up to the status.
pub const PROXY_STATUS_BYTES: usize = 12;
/// Orders that wait for a thread. Full: main tries again.
pub const PROXY_ORDERS_MAX: usize = 16;
/// News of the members that wait for who looks at them. Full: the control thread tells them again, only the newest.
pub const PROXY_NEWS_MAX: usize = 8;
/// A thread publishes its counts at most so often.
pub const PROXY_PUBLISH_MS: u64 = 100;
/// The member list is looked at so often.
pub const PROXY_REREAD_MS: u64 = 1_000;
/// Names in the member list are resolved again so often.
pub const PROXY_RESOLVE_MS: u64 = 10_000;
/// Addresses of one name. More: the first ones count.
pub const PROXY_ADDRESSES_MAX: usize = 8;
/// Threads. More: refused.
pub const PROXY_THREADS_MAX: usize = 256;
/// Events that one look at the kernel gives.
pub const PROXY_EVENTS_MAX: usize = 256;
/// Operators that are served at once. More: closed at accept, counted.
pub const PROXY_ADMIN_MAX: usize = 16;

const _: () = assert!(PROXY_BUFFER_BYTES >= super::HEAD_BYTES_MAX, "a head is read into the buffer");
const _: () = assert!(PROXY_ANSWER_MS > super::LOGIN_DEADLINE_MS, "a login's own deadline comes first");

const _: () =
    assert!(super::PROXY_HEADER_BYTES < super::HEAD_BYTES_MAX, "a PROXY header fits where a head is read");
