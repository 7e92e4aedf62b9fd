//! Every limit that is not configurable, with its unit and what happens at its edge. Configurable limits name their
//! default here.
//!
//! A constant ends in its unit (`_BYTES`, `_MS`) or in `_MAX`; `tests/it/tidy.rs` checks it. Those of one part
//! are in a file of their own in `limits/`.

mod assign;
mod channel;
mod config;
mod control;
mod drain;
mod embedded;
mod links;
mod placement;
mod presence;
mod proxy;
mod routing;

pub use assign::*;
pub use channel::*;
pub use config::*;
pub use control::*;
pub use drain::*;
pub use embedded::*;
pub use links::*;
pub use placement::*;
pub use presence::*;
pub use proxy::*;
pub use routing::*;

// ---- handshake -----------------------------------------------------------------------------------------------

/// Largest HTTP request head. Larger: 431 and close. Upstream takes 1 MiB (spec 1.1); real heads are below 2 KiB.
pub const HEAD_BYTES_MAX: usize = 16 * 1024;
/// Headers of one request head. More: 431 and close.
pub const HEADERS_MAX: usize = 64;
/// A head must be complete this long after accept. Later: 408 and close. Upstream waits for ever (spec 1.1).
pub const HEAD_DEADLINE_MS: u64 = 10_000;
/// Default of `limits.handshakes_max`: heads being read at once per shard. More: the accept loop waits.
pub const HANDSHAKES_MAX: usize = 4096;
/// From complete head to registered, upstream token check included. Later: 503 without JSON and close.
pub const LOGIN_DEADLINE_MS: u64 = 10_000;

/// From the start of a storm's delay to the login deadline at least so much is left, for the register queue.
pub const SPREAD_MARGIN_MS: u64 = 1_000;
/// Default of `login.spread_ms`: the longest random delay before a 101 in a storm of logins.
pub const SPREAD_MS: u64 = 2_000;
/// Default of `login.spread_above_per_second`, per shard: logins per second that are not delayed.
pub const LOGINS_UNSPREAD_MAX: u32 = 2_000;
/// Default of `login.connections_per_user_max`. More: 503 without JSON, before register.
pub const USER_CONNECTIONS_MAX: u32 = 64;
/// Default of `websocket.accepts_per_second_max`, per node; as many at once after a quiet second. More: 503.
pub const ACCEPTS_PER_SECOND_MAX: u32 = 20_000;
/// Counters of the table of connections per address. Addresses that share one share its limit: stricter, never laxer.
pub const ADDRESS_SLOTS_MAX: usize = 131_072;
/// One header of the PROXY protocol, TLVs included. Longer: closed.
pub const PROXY_HEADER_BYTES: usize = 4_096;
/// Networks in `websocket.proxies`. More: a fault of the configuration.
pub const PROXY_NETWORKS_MAX: usize = 256;
/// Networks in `rpc.allow`. More: a fault of the configuration. Each new gRPC connection is compared with all.
pub const RPC_NETWORKS_MAX: usize = 256;
/// Bytes of a PEM file with certificates or a key. Larger: a fault of the configuration.
pub const TLS_FILE_BYTES: u64 = 1024 * 1024;

// ---- a connection --------------------------------------------------------------------------------------------

/// Bytes of one inbound message on the wire, over all its fragments (spec 1.5). More: close frame 1009.
pub const MESSAGE_BYTES_MAX: usize = 51_200;
/// Bytes of one inbound message after gunzip (spec 13 trap 8; upstream has no limit). More: close.
pub const INFLATED_BYTES_MAX: usize = 1024 * 1024;
/// Fragments of one message. More: close frame 1008.
pub const FRAGMENTS_MAX: u32 = 4096;
/// Gzip members in one message; clients send one. More: close. Each costs a reset of the inflater.
pub const GZIP_MEMBERS_MAX: usize = 64;
/// Type definitions in one gob message; clients send one. More: close.
pub const GOB_TYPES_MAX: usize = 64;
/// Struct fields over all type definitions of one gob message; clients send six. More: close.
pub const GOB_FIELDS_MAX: usize = 1024;
/// Nesting of an unknown gob field. Deeper: close. Bounds the stack.
pub const GOB_DEPTH_MAX: usize = 64;
/// Bytes of type definitions that are remembered from one frame to the next; the SDKs send 102. More: read each time.
pub const GOB_REMEMBERED_BYTES: usize = 1024;
/// Up to this size gzip output is a stored block: 0.9 us instead of 6.2 for a push of 200 B (`bench/micro`, `envelope
/// encode`). Such a frame lies in one TCP segment either way: deflating it would save bytes (a quarter of those of the
/// recorded frames between 256 B and this), but no packet.
pub const GZIP_STORED_BYTES: usize = 1024;
/// What an envelope codec keeps of each buffer between two calls.
pub const CODEC_SCRATCH_BYTES: usize = 64 * 1024;
/// What our own client (`pinion listen`) inflates at most. More: an error.
pub const CLIENT_INFLATED_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Without an inbound frame for this long the connection is closed (spec 1.5).
pub const READ_DEADLINE_MS: u64 = 30_000;
/// The gateway pings Web clients, which cannot ping, this often (spec 1.5).
pub const WEB_PING_INTERVAL_MS: u64 = 27_000;
/// Frames waiting for one connection. More: closed as slow consumer (upstream's number, spec 1.5).
pub const OUTBOX_FRAMES_MAX: usize = 256;
/// Bytes waiting for one connection. More: closed as slow consumer. Above the largest frame that is sent.
pub const OUTBOX_BYTES_MAX: usize = 2 * 1024 * 1024;
/// Default of the budget of queued bytes of one shard. Above it the connection with the largest outbox is closed.
pub const SHARD_OUTBOX_BYTES_MAX: usize = 256 * 1024 * 1024;
/// The parts of that budget below which an outbox is too small to be a victim: at most so many are candidates.
pub const BACKLOGS_LISTED_MAX: usize = 65_536;
/// Connections closed to make room for one frame under that budget. More: its own connection is closed instead.
pub const BUDGET_VICTIMS_MAX: usize = 8;
/// A connection whose socket takes no byte of what waits for so long is closed, whatever it sends.
pub const SEND_DEADLINE_MS: u64 = 20_000;
/// Bytes of incomplete messages and of waiting requests of one shard. More: closed, whoever sends the next one.
pub const SHARD_INBOUND_BYTES_MAX: usize = 64 * 1024 * 1024;
/// The SDKs read at most this much per frame (spec trap 9). Larger frames are not sent but reported.
pub const FRAME_SENT_BYTES_MAX: usize = 1024 * 1024;
/// From "close when flushed" to a close that does not wait for the peer.
pub const FLUSH_DEADLINE_MS: u64 = 1_000;
/// Requests of one connection that wait for upstream at once; SendMsg: one (architecture.md section 7).
pub const REQUESTS_IN_FLIGHT_MAX: u8 = 8;
/// Bytes of parsed requests that wait behind those. More: closed as overload.
pub const REQUESTS_WAITING_BYTES_MAX: usize = 256 * 1024;
/// An upstream call that took longer is answered with an error (OpenIM has no deadline; the SDKs give up at 10 s).
pub const UPSTREAM_DEADLINE_MS: u64 = 10_000;
/// Default of `requests.frames_per_s`, of one connection. More, beyond the burst: closed. SDKs send a few; the
/// burst must allow one message in the most fragments.
pub const REQUEST_FRAMES_PER_S_MAX: u32 = 2_000;
/// Default of `requests.bytes_per_s`, of one connection. More, beyond the burst: closed. 80 of the largest messages.
pub const REQUEST_BYTES_PER_S_MAX: u32 = 4 * 1024 * 1024;
/// Default of `requests.inflated_bytes_per_s`, of one connection. More, beyond the burst: closed.
pub const REQUEST_INFLATED_BYTES_PER_S_MAX: u32 = 16 * 1024 * 1024;
/// Default of `requests.calls_per_s`, of one connection. More, beyond the burst: the request gets an error at once.
pub const REQUEST_CALLS_PER_S_MAX: u32 = 500;
/// A connection that was quiet may have what it gets in so long at once.
pub const REQUEST_BURST_MS: u64 = 4_000;
/// Most that `requests.*_per_s` can be set to: a burst in tenths must fit 32 bits.
pub const REQUEST_RATE_MAX: u32 = 64 * 1024 * 1024;
/// Users one connection may subscribe to (2005). More: the subscription is refused with ArgsError.
pub const SUBSCRIPTIONS_MAX: usize = 4096;

// ---- a shard -------------------------------------------------------------------------------------------------

/// Upstream calls of one shard in flight: the capacity of its replies lane. More: the request gets an error.
pub const CALLS_IN_FLIGHT_MAX: u32 = 8192;
/// News of the control thread that wait for rpc thread 0. Full: the control thread keeps them, the newest of each kind.
pub const NEWS_LANE_MAX: usize = 256;
/// Mails waiting in the control lane of a shard. Full: the caller gets UNAVAILABLE.
pub const CONTROL_LANE_MAX: usize = 1024;
/// Answers to rpc threads that wait on a shard because their lane is full. More: lost and counted; the call says "not
/// reached" at its deadline.
pub const OUTCOMES_WAITING_MAX: usize = 16_384;
/// Mails waiting in the push lane of a shard. Full: the recipients are reported as not reached.
pub const PUSH_LANE_MAX: usize = 4096;
/// Connections waiting in the hand-over lane of a shard. Full: 503 and close.
pub const HAND_OVER_LANE_MAX: usize = 1024;
/// Pushes that a shard has taken from its lane and not finished. More: it leaves them in the lane.
pub const PUSHES_OPEN_MAX: u32 = 4096;
/// Sends that pushes cause in one turn, counted by connections; a recipient without one counts as one. A user is never
/// divided: one with more connections than that gets a turn of his own.
pub const PUSH_SLICE_MAX: usize = 64;
/// Frames that pushes queue in one turn, for each of those sends; and sources looked at for pushes that may ride along.
/// More: they leave in a later turn.
pub const PUSHES_TOGETHER_MAX: usize = 16;
/// Places in the table of users that a push to everybody looks at in one turn, empty ones included.
pub const PUSH_WALK_MAX: usize = 1024;
/// Pushes of a shard that were served and wait for their last verdicts. More: what is open is reported as queued.
pub const PUSHES_TRACKED_MAX: u32 = 4096;
/// Users and devices in one part of an answer to a push. More: the next part.
pub const PUSH_PART_MAX: usize = 256;
/// Messages that wait for absent users, per shard. More: the user is reported as not here.
pub const HELD_MAX: u32 = 16_384;
/// Their bytes, per shard; a message counts once for each user. More: as above.
pub const HELD_BYTES: usize = 32 * 1024 * 1024;
/// Messages that wait for one absent user. More: as above.
pub const HELD_USER_MAX: usize = 64;
/// Their bytes. More: as above. What was held for a user fits the outbox of a new connection.
pub const HELD_USER_BYTES: usize = 1024 * 1024;
/// Frames of a push whose `MsgData` has more bytes are built once by the rpc thread, and not by each shard.
pub const SHARED_FRAME_BYTES: usize = 16 * 1024;
/// Bytes of such a frame that are compressed before the thread gets a turn: about 300 us.
pub const SHARED_STEP_BYTES: usize = 64 * 1024;
/// Mails taken from each lane in one turn.
pub const LANE_BATCH_MAX: usize = 64;
/// Entries taken from each of the register, unregister and kick queues in one turn.
pub const QUEUE_BATCH_MAX: usize = 128;
/// Timers of sessions served in one turn. More: the next turn.
pub const TIMER_BATCH_MAX: usize = 512;
/// Effects of the hub carried out at once, closes among them, which cost a system call each. More: the next turn.
pub const EFFECT_BATCH_MAX: usize = 512;
/// Ready connections served in one turn.
pub const READY_BATCH_MAX: usize = 256;
/// Reads of one connection in one turn.
pub const READS_PER_TURN_MAX: usize = 4;
/// Size of the one scratch buffer that a shard reads into.
pub const SCRATCH_BYTES: usize = 64 * 1024;
/// Granularity of the deadlines that the hub keeps; those of heartbeats have [`REST_MS`].
pub const TICK_MS: u64 = 100;
/// The longest that a shard sleeps when nothing is due earlier: so old does the heartbeat of a healthy one become, and
/// so late may a silent client be found, a WebSocket ping be sent and a count be published.
pub const REST_MS: u64 = 3 * TICK_MS;
/// Frames handed to one `sendmsg`.
pub const SEND_BATCH_MAX: usize = 64;
/// Bytes handed to one `sendmsg`.
pub const SEND_BATCH_BYTES: usize = 256 * 1024;
/// A shard whose heartbeat has become this old is known as stalled and taken out of the accept group.
pub const STALL_REPORT_MS: u64 = 1_000;
/// The watcher looks at all heartbeats this often while one is overdue; else when the oldest one would be.
pub const STALL_WATCH_MS: u64 = 100;
/// A heartbeat older than this is what the watcher calls a stall: early enough that it knows within `STALL_REPORT_MS`.
pub const STALL_SUSPECT_MS: u64 = 800;
/// How long the watcher waits for a stalled thread to store its backtrace: on a machine with more to do than CPUs it
/// may be long until that thread runs. Later: reported without one.
pub const STALL_TRACE_MS: u64 = 2_000;
/// Return addresses in that backtrace. Deeper ones are left out.
pub const STALL_FRAMES_MAX: usize = 32;
/// Default of `stall.abort_ms`: a shard that stalled for so long ends the process, for the supervisor to restart.
pub const STALL_ABORT_MS: u64 = 15_000;

// ---- accepting and sending (shard) ---------------------------------------------------------------------------

/// Connections that may wait in the kernel's accept queue of one listener. More: the kernel drops the SYN.
pub const LISTEN_QUEUE_MAX: usize = 4096;
/// Connections accepted before the accept loop gives up its turn.
pub const ACCEPT_BATCH_MAX: usize = 64;
/// After a failed accept (no descriptors, no memory) the accept loop waits this long instead of spinning.
pub const ACCEPT_PAUSE_MS: u64 = 100;
/// A refused client may take this long to read its answer and close. Later: closed under it.
pub const LINGER_MS: u64 = 1_000;
/// Bytes that a refused client may still send meanwhile. More: closed, and the answer may be lost.
pub const LINGER_BYTES: usize = 64 * 1024;
/// Connections flushed in one turn. More: they are next in the following turn.
pub const FLUSH_BATCH_MAX: usize = 1024;
/// Sessions that are over and not logged yet, per shard. More: their line is dropped and counted.
pub const ENDED_MAX: usize = 16_384;
/// Submission queue of a thread's io_uring; monoio submits early when it is full. Completion queue: twice this.
pub const RING_ENTRIES_MAX: u32 = 4096;
/// Submission queue of the ring engine's own io_uring. Full in the middle of a turn: it is submitted early.
pub const OWN_RING_ENTRIES_MAX: u32 = 2048;
/// Completion queue of it. Overrun: the kernel keeps the rest, and multishot receives are armed again.
pub const OWN_RING_COMPLETIONS_MAX: u32 = 8192;
/// Buffers that a shard's connections are received into together, of `RECEIVE_BUFFER_BYTES`; a power of two. All in
/// use: the receive ends and is armed again in the next turn.
pub const RECEIVE_BUFFERS_MAX: u16 = 256;
/// Size of one of them. Longer input takes several.
pub const RECEIVE_BUFFER_BYTES: u32 = 4096;
/// Sends of a shard that its own ring has in flight. More: they wait for the next submission of the same turn.
pub const SENDS_IN_FLIGHT_MAX: u16 = 1024;
/// At its end a ring's operations are cancelled and waited for so long. Later: their memory is given up for good.
pub const RING_END_MS: u64 = 1_000;
/// An unanswered TCP connection is probed this often (Go's default, spec 1.1) ...
pub const KEEP_ALIVE_MS: u64 = 15_000;
/// ... and dropped by the kernel when sent data or probes stay unacknowledged for so long.
pub const TCP_USER_TIMEOUT_MS: u32 = 30_000;

// ---- the rpc side --------------------------------------------------------------------------------------------

/// Largest gRPC message, both ways (OpenIM's `rpcMaxBodySize`, spec 4.7). More: RESOURCE_EXHAUSTED.
pub const GRPC_MESSAGE_BYTES_MAX: usize = 8_388_608;
/// Bytes of a compressed gRPC message that are read, and of the plain one that are written, before its thread gets a
/// turn: about 60 us.
pub const GUNZIP_STEP_BYTES: usize = 64 * 1024;
/// A watcher of the gRPC health service hears of a change within so long.
pub const HEALTH_WATCH_MS: u64 = 250;
/// Messages in one `pinion.v1.PushBatch`. More: RESOURCE_EXHAUSTED. Users over all of them: [`RPC_USERS_MAX`].
pub const PUSH_BATCH_MAX: usize = 1_024;
/// Most that `expire_after_ms` may be. More: INVALID_ARGUMENT.
pub const PUSH_EXPIRE_MS: u64 = 60_000;
/// Messages of one `Push/Stream` whose last verdict was not sent yet. At that many the stream is not read on.
pub const PUSH_STREAM_MESSAGES_MAX: usize = 256;
/// Bytes of requests that they hold, [`PUSH_USER_BYTES`] included. At that many the stream is not read on.
pub const PUSH_STREAM_BYTES: usize = 2 * GRPC_MESSAGE_BYTES_MAX;
/// What a named user costs beside the bytes of its id, until its verdict is sent.
pub const PUSH_USER_BYTES: usize = 128;
/// Pushes of all `pinion.v1.Push` calls of one rpc thread that wait for shards. At that many these calls wait, so
/// that other calls still find a ticket.
pub const PUSH_STREAM_TICKETS_MAX: usize = RPC_CALLS_MAX as usize / 2;
/// A push lane with so many mails gets no more of them, so that other calls still find room.
pub const PUSH_STREAM_LANE_MAX: usize = PUSH_LANE_MAX / 4 * 3;
/// While a ticket or a lane is waited for, it is looked at this often.
pub const PUSH_RETRY_MS: u64 = 2;
/// Encoded verdicts in one message of a stream, about: grpc-go takes 4 MiB at most unless told otherwise.
pub const PUSH_VERDICTS_BYTES: usize = 1024 * 1024;
/// Verdicts that are put together before their thread gets a turn: about 1 ms.
pub const PUSH_VERDICTS_MAX: usize = 4_096;
/// Most that a unary `Push/Send` may take, if its caller has that much patience: every message may have expired.
pub const PUSH_SEND_MS: u64 = PUSH_EXPIRE_MS + PUSH_DEADLINE_MS;
/// So long before the deadline of a drain `pinion.v1.Push` calls get the verdicts that are known.
pub const DRAIN_VERDICTS_MS: u64 = 500;
/// A caller that takes no byte of a streamed answer for so long is cut.
pub const STREAM_SEND_DEADLINE_MS: u64 = 30_000;
/// Calls that one rpc thread has open. More: UNAVAILABLE.
pub const RPC_CALLS_MAX: u32 = 16_384;
/// Mails waiting in the control lane of an rpc thread. Full: the mail comes back to main.
pub const RPC_CONTROL_LANE_MAX: usize = 16;
/// Upstream calls without a reply slot (token invalidation) waiting for an rpc thread. Full: dropped, counted.
pub const NOTICE_LANE_MAX: usize = 1024;
/// Presence records waiting for an rpc thread. Full: the hub keeps the user dirty until there is room.
pub const PRESENCE_LANE_MAX: usize = 4096;
/// What shards tell the node's router, waiting for rpc thread 0. Full: the shard keeps it until there is room.
pub const CLUSTER_LANE_MAX: usize = 4096;
/// A connection whose client says nothing is accepted so much later than one whose head is there. Whole seconds.
pub const DEFER_ACCEPT_MS: u64 = 1_000;
/// Between two batches of presence records of a shard. What changes meanwhile leaves in the first turn after it.
pub const PRESENCE_PAUSE_MS: u64 = 10;
/// A push without a deadline of the caller gets its verdicts until then; what is missing is reported as not reached.
pub const PUSH_DEADLINE_MS: u64 = 10_000;
/// A push whose verdicts come in parts keeps its slot for so long after the shards' deadline, for their last parts.
pub const VERDICT_MARGIN_MS: u64 = 500;
/// A kick, status or remote-login call is answered until then, or with DEADLINE_EXCEEDED.
pub const CONTROL_DEADLINE_MS: u64 = 5_000;
/// Default of `rpc.streams_max`: concurrent streams of one HTTP/2 connection. More: REFUSED_STREAM. grpc-go, grpcio and
/// grpc-js keep below what we announce.
pub const H2_STREAMS_MAX: u32 = 1024;
/// Default of `rpc.connections_max`: connections to the gRPC port, per rpc thread. More: closed at accept, counted.
pub const RPC_CONNECTIONS_MAX: usize = 1024;
/// Default of `rpc.address_connections_max`: those of one source address, per rpc thread, so that one host cannot take
/// all places. A caller holds one connection, or a few. More: closed at accept, counted.
pub const RPC_ADDRESS_CONNECTIONS_MAX: usize = 512;
/// Default of `rpc.header_list_bytes` of one gRPC request, after HPACK. More: HTTP status 431; more than four times
/// that, or in more frames than that takes: GOAWAY. (grpc-go refuses above 16 MiB, grpcio above 16 KiB.)
pub const H2_HEADER_LIST_BYTES: u32 = 16 * 1024;
/// What one HTTP/2 connection may cost before it gives up its turn (platform.md rule 2). The cost of a read is its
/// bytes, and more for each frame: `H2_FRAME_COST_BYTES`, `H2_CALL_COST_BYTES`.
pub const H2_TURN_BYTES: usize = 64 * 1024;
/// What all of them may cost in one turn of the thread: above it each gets `H2_TURN_LEAST_BYTES`.
pub const H2_THREAD_TURN_BYTES: usize = 4 * H2_TURN_BYTES;
/// What each of them may cost in any turn: nobody starves, and `RPC_CONNECTIONS_MAX` floods are a few milliseconds.
pub const H2_TURN_LEAST_BYTES: usize = 256;
/// What a frame costs besides its bytes: a PING takes 2 us, most of it for its answer, so a turn of one flood is 1 ms.
pub const H2_FRAME_COST_BYTES: usize = 128;
/// What a HEADERS frame costs besides its bytes: a call is decoded, gets a task and an answer, some 10 us together.
pub const H2_CALL_COST_BYTES: usize = 1024;
/// Default of `rpc.control_frames_per_s` of one connection: frames that are no work (all but HEADERS, RST_STREAM and
/// DATA that carries something). More, beyond the burst: GOAWAY `ENHANCE_YOUR_CALM` and close. Honest callers send them
/// along with work, which pays for them (`H2_CONTROL_PER_WORK_MAX`, `H2_CONTROL_EARNED_BYTES`); what is left is a
/// keep-alive PING every 10 s (grpc-go's minimum) and acknowledged SETTINGS: below 1/s.
pub const H2_CONTROL_FRAMES_PER_S_MAX: u32 = 20_000;
/// Control frames that one frame of work pays for. Per call grpcio sends up to two WINDOW_UPDATEs and a PING (it
/// measures bandwidth), grpc-go and grpc-js fewer.
pub const H2_CONTROL_PER_WORK_MAX: u64 = 4;
/// Bytes that we sent which pay for one control frame: a caller that reads 16 KiB sends two WINDOW_UPDATEs and a PING.
pub const H2_CONTROL_EARNED_BYTES: u64 = 1_000;
/// Default of `rpc.resets_per_s` of one connection: RST_STREAM frames. More, beyond the burst: as above. Each reset
/// costs us a call (rapid reset, CVE-2023-44487): at this rate some 5 % of a core. Honest callers reset what they
/// cancel, and what their deadline ends, which our answer normally precedes.
pub const H2_RESETS_PER_S_MAX: u32 = 5_000;
/// A connection that was quiet may send what it may send in so long at once: 20 000 resets are all its streams
/// cancelled twenty times over.
pub const H2_BURST_MS: u64 = 4_000;
/// Most that `rpc.control_frames_per_s` and `rpc.resets_per_s` can be set to.
pub const H2_RATE_MAX: u32 = 100_000_000;
/// A DATA frame below this that does not end its stream is no work but control: not even a gRPC prefix.
pub const H2_DATA_LEAST_BYTES: u32 = 5;
/// Default of `rpc.send_deadline_ms`: a connection whose socket takes no byte of what waits for so long is closed.
pub const H2_SEND_DEADLINE_MS: u64 = 20_000;
/// From GOAWAY to a close that does not wait for the peer.
pub const H2_FAREWELL_MS: u64 = 250;
/// Users named in one push, kick or status request. More: RESOURCE_EXHAUSTED. 8 MiB could name millions.
pub const RPC_USERS_MAX: usize = 262_144;
/// Bytes of requests and answers that one rpc thread holds. More: the call gets RESOURCE_EXHAUSTED.
pub const RPC_HELD_BYTES: usize = 256 * 1024 * 1024;
/// Flow-control window of one HTTP/2 stream: what a caller may send before its call is read.
pub const H2_STREAM_WINDOW_BYTES: u32 = 256 * 1024;
/// Flow-control window of one HTTP/2 connection: what its calls may have unread together.
pub const H2_CONNECTION_WINDOW_BYTES: u32 = 1024 * 1024;
/// Largest HTTP/2 frame taken (the protocol's smallest allowed value). Larger: connection error.
pub const H2_FRAME_BYTES: u32 = 16_384;
/// Bytes that small DATA frames (below 256) which wait to be read may lack to that size, over all streams of one
/// connection. More: GOAWAY `too_many_data_frames`. With it frames of 64 bytes fill the connection's window; h2's own
/// value, half the window, ends honest streams of small messages under back-pressure.
pub const H2_SMALL_DATA_BYTES: usize = 4 * 1024 * 1024;
/// Calls reset by the peer before we accepted them. More: GOAWAY `too_many_resets`. A client that gives up all its
/// calls at once is honest; what comes in one turn (`H2_TURN_BYTES`) is far less.
pub const H2_PENDING_RESETS_MAX: usize = 2_048;
/// Streams that we reset and still remember, for frames in flight. More: the oldest is forgotten.
pub const H2_RESET_STREAMS_MAX: usize = 1024;
/// How long such a stream is remembered.
pub const H2_RESET_STREAM_MS: u64 = 1_000;
/// Streams of one connection, over its whole life, that we reset for an error of the peer, refused ones included. More:
/// GOAWAY `too_many_internal_resets`.
pub const H2_STREAM_ERRORS_MAX: usize = 1024;
/// From accept to a complete HTTP/2 preface. Later: closed.
pub const H2_HANDSHAKE_MS: u64 = 5_000;
/// Default of `rpc.send_buffer_bytes`: bytes of answers that h2 queues on one stream before it holds the sender back. A
/// caller that does not read parks so much on each of its streams, until `rpc.send_deadline_ms`.
pub const H2_SEND_BUFFER_BYTES: usize = 64 * 1024;
/// Bytes of TLS records read from one gRPC connection before it gives up its turn, alerts and key updates included.
/// During handshakes it is one read between two turns for the whole thread, since each may cost a signature.
/// A TLS connection holds at most about 150 KiB besides what HTTP/2 does: rustls takes handshake messages up to
/// 64 KiB and holds 64 KiB of output and one record of input.
pub const TLS_TURN_BYTES: usize = 64 * 1024;
/// Granularity of the deadlines that an rpc thread keeps while calls are open.
pub const RPC_TICK_MS: u64 = 20;
/// How often it looks at its counts, at presence and at its drain while none is.
pub const RPC_IDLE_TICK_MS: u64 = 100;
/// The same where nothing has happened since it looked last, nor is waited for: an idle node wakes seldom.
pub const RPC_REST_MS: u64 = 1_000;
/// Admin HTTP/1.1: connections at once. More: closed at accept, counted.
pub const ADMIN_CONNECTIONS_MAX: usize = 64;
/// Admin HTTP/1.1: bytes of one request, head and body.
pub const ADMIN_REQUEST_BYTES: usize = 16 * 1024;
/// Admin HTTP/1.1: time for one request to arrive.
pub const ADMIN_REQUEST_MS: u64 = 5_000;

/// Users whose events one shard notes at once (`pinion trace`). More: refused.
pub const TRACES_MAX: usize = 8;
/// Events kept of one such user. More: the oldest are lost, and the reader is told how many.
pub const TRACE_EVENTS_MAX: usize = 4_096;
/// Events in one answer. The rest comes with the next.
pub const TRACE_PAGE_MAX: usize = 256;
/// Bytes kept of a text in an event that a peer chose. The rest is cut.
pub const TRACE_TEXT_BYTES: usize = 64;
/// Longest time for which a user's events are noted. More: refused.
pub const TRACE_FOR_MS: u64 = 600_000;
/// Events can be read for so long after that time. Later: forgotten.
pub const TRACE_GRACE_MS: u64 = 10_000;
/// Connections in one answer about a user. The rest is only counted.
pub const WHO_CONNECTIONS_MAX: usize = 256;

// ---- the node ------------------------------------------------------------------------------------------------

/// Descriptors kept back from the connection limit: listeners, rings, doorbells, gRPC and HTTP connections, logs.
pub const FILES_RESERVED_MAX: u64 = 1_500;
/// Default of `websocket.connections_max` (OpenIM's `websocketMaxConnNum`, spec 11.3). More: errCode 1601.
pub const CONNECTIONS_MAX: u32 = 100_000;
/// Default of `drain.deadline_ms`.
pub const DRAIN_DEADLINE_MS: u64 = 10_000;
/// From a drain's deadline to the exit, for threads to end. Later: the process ends without them.
pub const DRAIN_GRACE_MS: u64 = 2_000;
/// All threads must report ready this long after start. Later: the start fails.
pub const START_DEADLINE_MS: u64 = 15_000;
/// News waiting for the main thread. More: dropped (each thread has few to tell).
pub const NODE_EVENTS_MAX: usize = 8_192;
/// The main thread carries an operator's order out within this time. Later: the operator is told to read the log.
pub const ORDER_MS: u64 = 5_000;
/// Lines waiting for the log writer. More: dropped and counted.
pub const LOG_LINES_MAX: usize = 16_384;
/// Default of `record.bytes_max`: a recording stops there.
pub const RECORDING_BYTES_MAX: u64 = 256 * 1024 * 1024;

// ---- the configuration and the commands -----------------------------------------------------------------------

/// Largest configuration file. Larger: a fault.
pub const CONFIG_FILE_BYTES: usize = 1024 * 1024;
/// Settings in one file. More: a fault.
pub const CONFIG_ENTRIES_MAX: usize = 1_000;
/// Levels of mappings in a configuration file. More: a fault.
pub const CONFIG_DEPTH_MAX: usize = 8;
/// `pinion listen` pings this often, as the SDKs do (spec 1.5).
pub const LISTEN_PING_INTERVAL_MS: u64 = 24_000;
/// `pinion listen` waits at most this long before it connects again; it starts at 1 s and doubles, as the SDKs do.
pub const LISTEN_BACKOFF_MS: u64 = 16_000;
/// `pinion listen` and `pinion push` give up connecting after this long.
pub const CLIENT_CONNECT_MS: u64 = 5_000;
/// `pinion push` waits this much longer than the deadline that it tells the gateway, whose verdict at that deadline
/// says more than silence. Longer: an error.
pub const CALL_GRACE_MS: u64 = 2_000;

/// `pinion who`, `trace` and `shards` wait so long for an answer. Longer: an error. Above `CONTROL_DEADLINE_MS`.
pub const ADMIN_ANSWER_MS: u64 = 10_000;
/// Bytes of an answer that they read. The rest is cut, which is an error.
pub const ADMIN_ANSWER_BYTES: u64 = 16 * 1024 * 1024;
/// `pinion trace` asks for new events this often.
pub const TRACE_POLL_MS: u64 = 200;
/// `pinion shards` draws a new screen this often.
pub const SHARDS_REFRESH_MS: u64 = 1_000;

const _: () = assert!(
    H2_TURN_BYTES / (H2_CALL_COST_BYTES + H2_FRAME_COST_BYTES) < H2_PENDING_RESETS_MAX,
    "one turn brings fewer calls than may be reset before we look at them"
);
const _: () = assert!(H2_TURN_LEAST_BYTES > H2_FRAME_COST_BYTES + 9, "each turn reads at least one frame");
const _: () = assert!(
    H2_RESETS_PER_S_MAX as u64 * H2_BURST_MS / 1000 > 10 * H2_STREAMS_MAX as u64,
    "all streams cancelled at once, ten times over, are within the burst"
);
const _: () = assert!(
    (256 - 64) * (H2_CONNECTION_WINDOW_BYTES as usize / 64) < H2_SMALL_DATA_BYTES,
    "frames of 64 bytes fill the window"
);
const _: () =
    assert!(RPC_HELD_BYTES > 2 * GRPC_MESSAGE_BYTES_MAX, "the largest request must fit beside its answer");
const _: () = assert!(HELD_USER_MAX + 8 < OUTBOX_FRAMES_MAX, "what was held fits an outbox");
const _: () =
    assert!(HELD_USER_BYTES / 3 * 4 + HELD_USER_MAX * 2 * 1024 < OUTBOX_BYTES_MAX, "also as base64 in JSON");
const _: () = assert!(OUTBOX_BYTES_MAX > FRAME_SENT_BYTES_MAX, "the largest frame must fit an empty outbox");
const _: () = assert!(
    REQUEST_RATE_MAX as u64 * (REQUEST_BURST_MS / TICK_MS) < u32::MAX as u64,
    "a burst is counted in 32 bits"
);
const _: () = assert!(
    REQUEST_FRAMES_PER_S_MAX as u64 * REQUEST_BURST_MS / 1000 > FRAGMENTS_MAX as u64,
    "a message in the most fragments is within the burst"
);
const _: () = assert!(SEND_DEADLINE_MS < READ_DEADLINE_MS, "a timer looks at a stuck outbox in time");
const _: () = assert!(SCRATCH_BYTES >= HEAD_BYTES_MAX, "a head is read into the scratch buffer");
const _: () = assert!(STALL_ABORT_MS > STALL_REPORT_MS, "report first, then abort");
const _: () = assert!(
    STALL_SUSPECT_MS + 2 * STALL_WATCH_MS <= STALL_REPORT_MS,
    "a stall is known in time even if the watcher comes one round late"
);
const _: () = assert!(STALL_SUSPECT_MS > 2 * REST_MS, "a late tick is not a stall");
const _: () = assert!(REST_MS.is_multiple_of(TICK_MS), "heartbeats are looked at in a tick");
const _: () =
    assert!(SPREAD_MS + SPREAD_MARGIN_MS < LOGIN_DEADLINE_MS, "a delayed login still meets its deadline");
const _: () = assert!(WEB_PING_INTERVAL_MS < READ_DEADLINE_MS, "a pong must be able to arrive in time");
