//! Limits and times of the assign API (`rpc/assign`); those of its answers and rules are in `placement.rs`.

/// How often each member is asked how full it is.
pub const ASSIGN_POLL_MS: u64 = 2_000;
/// Between two questions to members lie so many at least: with more than a hundred members each is asked less often.
pub const ASSIGN_POLL_GAP_MS: u64 = 20;
/// A member has so long to answer. Longer: counted as missed.
pub const ASSIGN_POLL_ANSWER_MS: u64 = 1_000;
/// Answers missed in a row after which a member is not handed out any more.
pub const ASSIGN_MISSES_MAX: u32 = 3;
/// A node that is filled to so many thousandths more than the mean of all goes behind them, however empty it is.
pub const ASSIGN_UNEVEN_PERMILLE_MAX: u16 = 250;

/// Connections to the assign listener. More: closed at accept, counted.
pub const ASSIGN_CONNECTIONS_MAX: usize = 4_096;
/// ... of one address that is not one of `websocket.proxies`. More: closed at accept, counted.
pub const ASSIGN_ADDRESS_CONNECTIONS_MAX: usize = 256;
/// Bytes of a request's head, and of what operators ask a dispatcher or a proxy. More: 431 and the end of the
/// connection.
pub const ASSIGN_HEAD_BYTES: usize = 8 * 1024;
/// Header lines of a request. More: 431 and the end of the connection.
pub const ASSIGN_HEADERS_MAX: usize = 64;
/// From the first byte of a head to its last. Longer: 408 and the end of the connection.
pub const ASSIGN_HEAD_MS: u64 = 5_000;
/// A connection without a request is closed after so long.
pub const ASSIGN_IDLE_MS: u64 = 15_000;
/// A client has so long to take an answer. Longer: the connection is cut, counted.
pub const ASSIGN_WRITE_MS: u64 = 5_000;
/// Requests of one connection. The last answer says that it closes.
pub const ASSIGN_REQUESTS_MAX: usize = 1_000;
/// Send buffer of a connection: what a client that reads nothing can park in the kernel.
pub const ASSIGN_SEND_BUFFER_BYTES: usize = 32 * 1024;

/// A quiet client may ask at once what the rates allow in so long.
pub const ASSIGN_BURST_MS: u64 = 10_000;
/// Addresses whose rate is kept (24 bytes each). More: they share one record, counted, until quiet ones
/// are forgotten.
pub const ASSIGN_ADDRESSES_MAX: usize = 65_536;
/// When the table is full, quiet addresses are looked for at most so often.
pub const ASSIGN_SWEEP_MS: u64 = 1_000;
/// Default: requests of one address per second. A mobile network has thousands of clients behind one.
pub const ASSIGN_ADDRESS_PER_S_MAX: u32 = 50;
/// Default: requests per second, all together.
pub const ASSIGN_PER_S_MAX: u32 = 2_000;
/// URLs of the static list. More: a fault of the configuration.
pub const ASSIGN_FALLBACKS_MAX: usize = 64;
/// Whoever gets no node is told to come again after so long.
pub const ASSIGN_NOBODY_MS: u64 = 5_000;
/// `pinion dispatch` looks at its member list so often.
pub const DISPATCH_LOOK_MS: u64 = 1_000;
/// ... and looks names in it up so often.
pub const DISPATCH_LOOKUP_MS: u64 = 30_000;

const _: () = assert!(ASSIGN_POLL_ANSWER_MS < ASSIGN_POLL_MS, "a question is answered before the next");
