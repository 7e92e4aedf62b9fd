//! Limits of the channels to upstream services (`rpc/channel`): defaults of its `ChannelLimits`.

/// Default of `upstream.in_flight_max`: calls of one channel (one service, one rpc thread) that are open or wait. More:
/// Overloaded, at once.
pub const CHANNEL_CALLS_MAX: usize = 8_192;
/// Those of them that wait for an instance to have room. More: Overloaded, at once.
pub const CHANNEL_WAITING_MAX: usize = 4_096;
/// Bytes of requests and answers that the calls of one channel hold. A call that would hold more: Overloaded.
pub const CHANNEL_HELD_BYTES: usize = 128 * 1024 * 1024;
/// Instances of one service. More: the rest is left out, with a warning.
pub const CHANNEL_INSTANCES_MAX: usize = 256;
/// Calls in flight on one connection, whatever its peer allows. More: they wait.
pub const CHANNEL_STREAMS_MAX: usize = 1_024;
/// Percent of what the peer allows: grpcio counts streams that we have reset a little longer, and refuses the rest.
pub const CHANNEL_STREAMS_PERCENT_MAX: usize = 90;
/// From the first SYN to the peer's HTTP/2 SETTINGS. Later: the instance counts as down until the next attempt.
pub const CHANNEL_CONNECT_MS: u64 = 5_000;
/// With calls open and nothing heard for so long, the peer gets an HTTP/2 PING (grpc-go's least value) ...
pub const CHANNEL_PING_AFTER_MS: u64 = 10_000;
/// ... and if nothing is heard for so long after it, the connection is closed.
pub const CHANNEL_PING_MS: u64 = 5_000;
/// Pause after the first failure to connect; it doubles with each further one ...
pub const CHANNEL_BACKOFF_LEAST_MS: u64 = 200;
/// ... up to this.
pub const CHANNEL_BACKOFF_MS: u64 = 10_000;
/// Such a pause is longer or shorter by so much at random, so that threads do not dial together.
pub const CHANNEL_JITTER_PERCENT_MAX: u64 = 20;
/// A connection that stood so long, or answered a call, was good: after its end the next one is made at once.
pub const CHANNEL_STEADY_MS: u64 = 10_000;
/// Calls in a row that failed or missed their deadline at one instance; a connection that breaks counts once. At that
/// many it gets no calls for [`CHANNEL_COOL_DOWN_MS`], then one: the probe.
pub const CHANNEL_FAILURES_MAX: u32 = 5;
/// See [`CHANNEL_FAILURES_MAX`].
pub const CHANNEL_COOL_DOWN_MS: u64 = 5_000;

const _: () =
    assert!(CHANNEL_WAITING_MAX < CHANNEL_CALLS_MAX, "calls that wait leave room for calls that do not");
const _: () =
    assert!(CHANNEL_BACKOFF_LEAST_MS <= CHANNEL_BACKOFF_MS && CHANNEL_JITTER_PERCENT_MAX < 100, "a pause is");
const _: () = assert!(
    CHANNEL_HELD_BYTES >= 4 * super::GRPC_MESSAGE_BYTES_MAX,
    "a few of the largest messages do not fill a channel"
);
