//! Counters and gauges: one enum names them all, each thread counts in plain memory and publishes to its own block.
//!
//! The pure layers count in a [`Tally`]; the thread that owns it copies it into its [`Block`] once a turn with relaxed
//! stores; the scraper reads all blocks with relaxed loads. No two threads ever write the same cache line. Gauges are
//! derived from the tables they describe, never kept by adding and subtracting (field-notes.md S10).
//!
//! The table below is one, however long: it makes one enum, and its order is that of the slots.

pub mod proxy;

use std::sync::atomic::{AtomicU64, Ordering};

/// Whether a value only grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows. Its name ends in `_total`.
    Counter,
    /// Only grows, under OpenIM's name and labels (spec 11.4): one sum over all threads.
    Upstream,
    /// A level.
    Gauge,
}

/// How a metric is shown.
#[derive(Clone, Copy, Debug)]
pub struct Description {
    /// Family name.
    pub name: &'static str,
    /// One sentence, unit included.
    pub help: &'static str,
    /// How it moves.
    pub kind: Kind,
    /// Labels of its own beside the thread's.
    pub labels: &'static [(&'static str, &'static str)],
}

macro_rules! metrics {
    ($($variant:ident $kind:ident $name:literal $(($($key:literal = $value:literal),+))? $help:literal;)*) => {
        /// Every metric of a thread.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u16)]
        pub enum Metric { $(#[doc = $help] $variant,)* }

        /// All metrics, in the order of their slots; members of one family stand together.
        pub const DESCRIPTIONS: &[(Metric, Description)] = &[$((
            Metric::$variant,
            Description {
                name: $name,
                help: $help,
                kind: Kind::$kind,
                labels: &[$($(($key, $value)),+)?],
            },
        ),)*];
    };
}

metrics! {
    Connections Gauge "pinion_connections" "Sessions known to the shard: registered, logging in or closing.";
    Registered Gauge "pinion_registered_connections" "Connections that pushes reach.";
    RegisteredGob Gauge "pinion_sessions" ("variant" = "gob") "Connections that pushes reach, by how they encode.";
    RegisteredGobGzip Gauge "pinion_sessions" ("variant" = "gob_gzip") "Connections that pushes reach, by how they encode.";
    RegisteredJson Gauge "pinion_sessions" ("variant" = "json") "Connections that pushes reach, by how they encode.";
    RegisteredJsonGzip Gauge "pinion_sessions" ("variant" = "json_gzip") "Connections that pushes reach, by how they encode.";
    Users Gauge "pinion_users" "Distinct users with a registered connection.";
    Sockets Gauge "pinion_sockets" "Client file descriptors held by the shard, handshakes included.";
    HandshakesOpen Gauge "pinion_handshakes_in_flight" "Connections whose request head is being read.";
    OutboxBytes Gauge "pinion_outbox_bytes" "Bytes of frames waiting for connections.";
    InboundBytes Gauge "pinion_inbound_bytes" "Bytes of incomplete messages and of waiting requests.";
    CallsInFlight Gauge "pinion_upstream_calls_in_flight" "Upstream calls that wait for their reply.";
    PushesOpen Gauge "pinion_pushes_in_flight" "Pushes taken from the lane and not finished.";
    PushesTracked Gauge "pinion_pushes_tracked" "Pushes that were served and wait for their last verdicts.";
    HeldMessages Gauge "pinion_held_messages" "Messages that wait for absent users.";
    HeldBytes Gauge "pinion_held_bytes" "Bytes of messages that wait for absent users.";
    SubscriptionTargets Gauge "pinion_subscription_targets" "Users whose presence a connection of this shard watches.";

    RegisterDepth Gauge "pinion_queue_depth" ("queue" = "register") "Entries waiting in the queue.";
    UnregisterDepth Gauge "pinion_queue_depth" ("queue" = "unregister") "Entries waiting in the queue.";
    KickDepth Gauge "pinion_queue_depth" ("queue" = "kick") "Entries waiting in the queue.";
    RegisterAge Gauge "pinion_queue_oldest_ms" ("queue" = "register") "Age of the oldest entry in milliseconds.";
    UnregisterAge Gauge "pinion_queue_oldest_ms" ("queue" = "unregister") "Age of the oldest entry in milliseconds.";
    KickAge Gauge "pinion_queue_oldest_ms" ("queue" = "kick") "Age of the oldest entry in milliseconds.";
    RegisterHigh Gauge "pinion_queue_high_water" ("queue" = "register") "Most entries that ever waited.";
    UnregisterHigh Gauge "pinion_queue_high_water" ("queue" = "unregister") "Most entries that ever waited.";
    KickHigh Gauge "pinion_queue_high_water" ("queue" = "kick") "Most entries that ever waited.";

    LaneRepliesDepth Gauge "pinion_lane_depth" ("lane" = "replies") "Mails waiting in the lane.";
    LaneControlDepth Gauge "pinion_lane_depth" ("lane" = "control") "Mails waiting in the lane.";
    LanePushDepth Gauge "pinion_lane_depth" ("lane" = "push") "Mails waiting in the lane.";
    LaneHandOverDepth Gauge "pinion_lane_depth" ("lane" = "hand_over") "Mails waiting in the lane.";
    LaneRepliesFull Counter "pinion_lane_overflows_total" ("lane" = "replies") "Mails refused because the lane was full.";
    LaneControlFull Counter "pinion_lane_overflows_total" ("lane" = "control") "Mails refused because the lane was full.";
    LanePushFull Counter "pinion_lane_overflows_total" ("lane" = "push") "Mails refused because the lane was full.";
    LaneHandOverFull Counter "pinion_lane_overflows_total" ("lane" = "hand_over") "Mails refused because the lane was full.";
    LaneRpcFull Counter "pinion_lane_overflows_total" ("lane" = "rpc") "Mails refused because the lane was full.";

    ClusterFit Gauge "pinion_cluster_fit" "1 while this node may say that a push is complete: it has a lease and has met the other members.";
    ClusterLinked Gauge "pinion_cluster_peers" ("link" = "up") "Other nodes by link. One that is down makes pushes not complete: GET /v1/cluster says which and why.";
    ClusterUnlinked Gauge "pinion_cluster_peers" ("link" = "down") "Other nodes by link. One that is down makes pushes not complete: GET /v1/cluster says which and why.";
    ClusterPushHome Counter "pinion_cluster_pushes_total" ("path" = "home") "Recipients of pushes sent to other nodes: to their home, to the home that a node with a newer view named (again), to all nodes since the home is not linked or not agreed on (all), or to all once more since its answer is missing (second).";
    ClusterPushAgain Counter "pinion_cluster_pushes_total" ("path" = "again") "Recipients of pushes sent to other nodes: to their home, to the home that a node with a newer view named (again), to all nodes since the home is not linked or not agreed on (all), or to all once more since its answer is missing (second).";
    ClusterPushAll Counter "pinion_cluster_pushes_total" ("path" = "all") "Recipients of pushes sent to other nodes: to their home, to the home that a node with a newer view named (again), to all nodes since the home is not linked or not agreed on (all), or to all once more since its answer is missing (second).";
    ClusterPushSecond Counter "pinion_cluster_pushes_total" ("path" = "second") "Recipients of pushes sent to other nodes: to their home, to the home that a node with a newer view named (again), to all nodes since the home is not linked or not agreed on (all), or to all once more since its answer is missing (second).";
    ClusterPushesOpen Gauge "pinion_cluster_pushes_in_flight" "Pushes, kicks and questions of callers of this node that wait for verdicts of other nodes.";
    ClusterNotFit Counter "pinion_cluster_not_complete_total" ("reason" = "not_fit") "Recipients whose verdict is not complete: the node that decided has no lease or has not met all members (not_fit: look at its /readyz), or a node did not answer (no_answer: GET /v1/cluster names it; pinion forget if it is dead).";
    ClusterNoAnswer Counter "pinion_cluster_not_complete_total" ("reason" = "no_answer") "Recipients whose verdict is not complete: the node that decided has no lease or has not met all members (not_fit: look at its /readyz), or a node did not answer (no_answer: GET /v1/cluster names it; pinion forget if it is dead).";
    ClusterUnclaimed Counter "pinion_cluster_unclaimed_logins_total" "Logins served though their home could not be told: pushes for them are not complete until the link to it is up.";
    ClusterOutOfOrder Counter "pinion_cluster_out_of_order_total" "Recipients whose push overtook an earlier one that had gone to all nodes and was not answered in time: mend the link to their home.";
    ClusterStaleFrames Counter "pinion_cluster_stale_total" ("what" = "frame") "Frames of ended links (harmless); links closed since frames or beats were too old (link: a host or network that pauses for seconds), or since claims stayed unanswered (lagging: an overloaded peer).";
    ClusterStaleLinks Counter "pinion_cluster_stale_total" ("what" = "link") "Frames of ended links (harmless); links closed since frames or beats were too old (link: a host or network that pauses for seconds), or since claims stayed unanswered (lagging: an overloaded peer).";
    ClusterLaggingLinks Counter "pinion_cluster_stale_total" ("what" = "lagging") "Frames of ended links (harmless); links closed since frames or beats were too old (link: a host or network that pauses for seconds), or since claims stayed unanswered (lagging: an overloaded peer).";
    ClusterLateRenewals Counter "pinion_cluster_late_renewals_total" "Renewals of the lease that came after it had ended: the source of the membership, or this host, was too slow for cluster.lease_ms.";
    ClusterSeenEvicted Counter "pinion_cluster_deliveries_forgotten_total" "Deliveries forgotten before no copy of them could come: repeated pushes are then not complete. More pushes per second than a node can remember for 15 s: add nodes.";
    ClusterSeenFull Counter "pinion_cluster_repeats_refused_total" "Recipients of repeated pushes that were not delivered to, since too many are remembered: their verdicts are not complete. Links to homes that end over and over under load: see pinion_cluster_stale_total.";
    ClusterLegsFull Counter "pinion_cluster_pushes_full_total" "Pushes of callers that were refused, and copies of pushes that were answered with not complete, since too many are in flight here. A shard or a peer that does not keep up: see pinion_loop_lag_ms, and pinion_peer_queued_bytes.";
    ClusterKnowsCut Counter "pinion_cluster_hellos_cut_total" "Greetings of other nodes that could not name every member this node counts: more than a list may have. Take members that are no more out of the lists.";
    ClusterUnknownCopies Counter "pinion_cluster_unknown_copies_total" "Copies of a kind that this version does not know: bring all nodes to one version.";
    ClusterDoubles Counter "pinion_cluster_doubled_messages_total" "Recipients of OpenIM pushes that had the message already: it came to more than one node, though cluster.push_mode is route. If the push service asks every gateway (etcd, OpenIM main), set cluster.push_mode: local; if it asks one by hash, give all its instances the same list of gateways.";
    ClusterHeardForgotten Counter "pinion_cluster_local_messages_forgotten_total" "Messages of OpenIM pushes in cluster.push_mode local that were forgotten before other nodes could ask for them: those may count this_node_only wrongly. More pushes per second than a node can remember for 15 s.";
    ClusterLocalAlone Counter "pinion_cluster_local_elsewhere_total" ("heard_by" = "this_node_only") "Recipients of OpenIM pushes in cluster.push_mode local who belong to another node and are not here, by who has the message. Of ten messages a second their homes are asked. others_too: as it should be, the push service asks every gateway. this_node_only: it asks only one, and they are not reached: set cluster.push_mode: route, or register all gateways where it looks.";
    ClusterLocalShared Counter "pinion_cluster_local_elsewhere_total" ("heard_by" = "others_too") "Recipients of OpenIM pushes in cluster.push_mode local who belong to another node and are not here, by who has the message. Of ten messages a second their homes are asked. others_too: as it should be, the push service asks every gateway. this_node_only: it asks only one, and they are not reached: set cluster.push_mode: route, or register all gateways where it looks.";
    ClusterDoublesForgotten Counter "pinion_cluster_doubled_messages_forgotten_total" "Recipients of OpenIM pushes that were forgotten before their time: should the message come to this node once more, it is sent again. More pushes per second than a node can remember for 15 s: add nodes.";
    ClusterMailWaiting Gauge "pinion_cluster_mail_waiting" "Mails of the node's router that wait for a full lane of a shard or of the control thread.";
    ClusterMailWaited Counter "pinion_cluster_mail_total" ("outcome" = "waited") "Mails of the node's router that met a full lane; lost: too many waited, and logins that they answer time out. A shard that does not keep up: see pinion_loop_lag_ms.";
    ClusterMailLost Counter "pinion_cluster_mail_total" ("outcome" = "lost") "Mails of the node's router that met a full lane; lost: too many waited, and logins that they answer time out. A shard that does not keep up: see pinion_loop_lag_ms.";

    LoopLagMs Gauge "pinion_loop_lag_ms" "How late the last tick came, in milliseconds.";
    LoopLagMaxMs Gauge "pinion_loop_lag_max_ms" "The latest tick since start, in milliseconds.";
    Turns Counter "pinion_turns_total" "Rounds of the shard's loop.";
    Stalled Gauge "pinion_shard_stalled" "1 while the shard's heartbeat is overdue.";

    Accepted Counter "pinion_accepts_total" "Connections accepted from the listener.";
    AcceptErrors Counter "pinion_accept_errors_total" "Failed accepts.";
    AcceptPauses Counter "pinion_accept_pauses_total" ("cause" = "no_resources") "Times that a listener stopped accepting for a while.";
    AcceptWaits Counter "pinion_accept_pauses_total" ("cause" = "handshake_limit") "Times that a listener stopped accepting for a while.";
    LoginsDelayed Counter "pinion_logins_delayed_total" "Logins that waited a random time before their 101, since too many came at once.";
    LoginsClaiming Gauge "pinion_cluster_logins_waiting" "Logins that wait until their user's home node has their claim.";
    ClusterEnded Counter "pinion_cluster_logins_total" ("outcome" = "ended") "What logins on other nodes did here: connections that they ended (ended), logins here of which the auth service was told since they met older ones elsewhere (told), and lists of tokens that other nodes' embedded backends have ended (marks).";
    ClusterTold Counter "pinion_cluster_logins_total" ("outcome" = "told") "What logins on other nodes did here: connections that they ended (ended), logins here of which the auth service was told since they met older ones elsewhere (told), and lists of tokens that other nodes' embedded backends have ended (marks).";
    ClusterMarks Counter "pinion_cluster_logins_total" ("outcome" = "marks") "What logins on other nodes did here: connections that they ended (ended), logins here of which the auth service was told since they met older ones elsewhere (told), and lists of tokens that other nodes' embedded backends have ended (marks).";
    ClusterPlacementsFull Counter "pinion_cluster_placements_forgotten_total" "Placements that a shard forgot since too many were in force: until its node has taken them back every login there asks. A peer that answers nothing while the members change: see pinion_cluster_stale_total.";
    ClusterNewsWaiting Gauge "pinion_cluster_news_waiting" "News of shards that their node's router has not taken.";
    HandOversOut Counter "pinion_hand_overs_total" ("direction" = "out") "Connections moved between shards before the 101.";
    HandOversIn Counter "pinion_hand_overs_total" ("direction" = "in") "Connections moved between shards before the 101.";

    HandshakeOk Counter "pinion_handshakes_total" ("outcome" = "ok") "Handshakes by outcome.";
    HandshakeArgs Counter "pinion_handshakes_total" ("outcome" = "bad_arguments") "Handshakes by outcome.";
    HandshakeToken Counter "pinion_handshakes_total" ("outcome" = "token_refused") "Handshakes by outcome.";
    HandshakeUpgrade Counter "pinion_handshakes_total" ("outcome" = "not_websocket") "Handshakes by outcome.";
    HandshakeFull Counter "pinion_handshakes_total" ("outcome" = "connection_limit") "Handshakes by outcome.";
    HandshakeBusy Counter "pinion_handshakes_total" ("outcome" = "busy") "Handshakes by outcome.";
    HandshakeTooLong Counter "pinion_handshakes_total" ("outcome" = "head_too_long") "Handshakes by outcome.";
    HandshakeTooSlow Counter "pinion_handshakes_total" ("outcome" = "head_too_slow") "Handshakes by outcome.";
    HandshakeBad Counter "pinion_handshakes_total" ("outcome" = "bad_head") "Handshakes by outcome.";
    HandshakeGone Counter "pinion_handshakes_total" ("outcome" = "client_gone") "Handshakes by outcome.";
    HandshakeShardFull Counter "pinion_handshakes_total" ("outcome" = "shard_limit") "Handshakes by outcome.";
    HandshakeUserFull Counter "pinion_handshakes_total" ("outcome" = "user_limit") "Handshakes by outcome.";
    HandshakeAddressFull Counter "pinion_handshakes_total" ("outcome" = "address_limit") "Handshakes by outcome.";
    HandshakeTooFast Counter "pinion_handshakes_total" ("outcome" = "rate_limit") "Handshakes by outcome.";
    HandshakeNoFiles Counter "pinion_handshakes_total" ("outcome" = "no_descriptors") "Handshakes by outcome.";
    HandshakeProxy Counter "pinion_handshakes_total" ("outcome" = "bad_proxy_header") "Handshakes by outcome.";
    HandshakeUpstream Counter "pinion_handshakes_total" ("outcome" = "upstream_failed") "Handshakes by outcome.";

    FramesIn Counter "pinion_frames_total" ("direction" = "in") "WebSocket frames.";
    FramesOut Counter "pinion_frames_total" ("direction" = "out") "WebSocket frames.";
    BytesIn Counter "pinion_bytes_total" ("direction" = "in") "Bytes on client sockets after the handshake.";
    BytesOut Counter "pinion_bytes_total" ("direction" = "out") "Bytes on client sockets after the handshake.";
    Sends Counter "pinion_sends_total" "Sends on client sockets: calls of sendmsg, or operations of the own ring.";
    Requests Counter "pinion_requests_total" ("outcome" = "answered") "Client requests by outcome.";
    RequestsFailed Counter "pinion_requests_total" ("outcome" = "error") "Client requests by outcome.";
    RequestsThrottled Counter "pinion_requests_throttled_total" "Client requests answered with an error because their connection made too many upstream calls.";
    UpstreamTimeouts Counter "pinion_upstream_timeouts_total" "Upstream calls that missed their deadline.";
    UpstreamLate Counter "pinion_upstream_late_total" "Upstream replies that came after their deadline.";

    PushQueued Counter "pinion_pushes_total" ("outcome" = "queued") "Pushes per connection (not_here, not_reached: per recipient).";
    PushWritten Counter "pinion_pushes_total" ("outcome" = "written") "Pushes per connection (not_here, not_reached: per recipient).";
    PushKicked Counter "pinion_pushes_total" ("outcome" = "kicked") "Pushes per connection (not_here, not_reached: per recipient).";
    PushExpired Counter "pinion_pushes_total" ("outcome" = "expired") "Pushes per connection (not_here, not_reached: per recipient).";
    PushDropped Counter "pinion_pushes_total" ("outcome" = "dropped") "Pushes per connection (not_here, not_reached: per recipient).";
    PushBackground Counter "pinion_pushes_total" ("outcome" = "background") "Pushes per connection (not_here, not_reached: per recipient).";
    PushNotHere Counter "pinion_pushes_total" ("outcome" = "not_here") "Pushes per connection (not_here, not_reached: per recipient).";
    PushNotReached Counter "pinion_pushes_total" ("outcome" = "not_reached") "Pushes per connection (not_here, not_reached: per recipient).";
    Encodes Counter "pinion_encodes_total" "Push frames encoded (at most one per variant, push and shard).";
    FramesExpired Counter "pinion_frames_expired_total" "Push frames taken out of an outbox again because they were worthless by then.";
    PushesUntracked Counter "pinion_pushes_untracked_total" "Pushes whose open verdicts were reported as queued because too many pushes waited.";
    HeldRefused Counter "pinion_held_refused_total" "Absent users that a message could not wait for because too much waited.";
    SharedEncodes Counter "pinion_shared_encodes_total" "Large push frames that rpc threads encoded for all shards.";
    FramesTooLarge Counter "pinion_frames_too_large_total" "Frames above the SDKs' read limit, not sent.";
    Kicks Counter "pinion_kicks_total" "Connections ended by login policy or by RPC.";
    PresenceForgotten Counter "pinion_presence_forgotten_total" "Presence records forgotten because too many users were dirty.";
    PresenceTips Counter "pinion_presence_tips_total" "Frames 2005 sent unasked.";

    EndedDropped Counter "pinion_end_lines_dropped_total" "Sessions whose end was not logged because too many ended at once.";

    ClosePeer Counter "pinion_closes_total" ("reason" = "peer_closed") "Sessions ended, by reason.";
    CloseLost Counter "pinion_closes_total" ("reason" = "transport_lost") "Sessions ended, by reason.";
    CloseProtocol Counter "pinion_closes_total" ("reason" = "protocol_error") "Sessions ended, by reason.";
    CloseTooBig Counter "pinion_closes_total" ("reason" = "message_too_big") "Sessions ended, by reason.";
    CloseFragments Counter "pinion_closes_total" ("reason" = "too_many_fragments") "Sessions ended, by reason.";
    CloseEnvelope Counter "pinion_closes_total" ("reason" = "bad_envelope") "Sessions ended, by reason.";
    CloseInflated Counter "pinion_closes_total" ("reason" = "inflated_too_big") "Sessions ended, by reason.";
    CloseText Counter "pinion_closes_total" ("reason" = "bad_text_frame") "Sessions ended, by reason.";
    CloseRequest Counter "pinion_closes_total" ("reason" = "unknown_request") "Sessions ended, by reason.";
    CloseSender Counter "pinion_closes_total" ("reason" = "sender_mismatch") "Sessions ended, by reason.";
    CloseSilent Counter "pinion_closes_total" ("reason" = "read_deadline") "Sessions ended, by reason.";
    CloseSlow Counter "pinion_closes_total" ("reason" = "slow_consumer") "Sessions ended, by reason.";
    CloseStuck Counter "pinion_closes_total" ("reason" = "send_deadline") "Sessions ended, by reason.";
    CloseBudget Counter "pinion_closes_total" ("reason" = "shard_budget") "Sessions ended, by reason.";
    CloseOverload Counter "pinion_closes_total" ("reason" = "too_many_requests") "Sessions ended, by reason.";
    CloseFrameRate Counter "pinion_closes_total" ("reason" = "frame_rate") "Sessions ended, by reason.";
    CloseByteRate Counter "pinion_closes_total" ("reason" = "byte_rate") "Sessions ended, by reason.";
    CloseInflatedRate Counter "pinion_closes_total" ("reason" = "inflated_rate") "Sessions ended, by reason.";
    CloseKicked Counter "pinion_closes_total" ("reason" = "kicked") "Sessions ended, by reason.";
    CloseLogout Counter "pinion_closes_total" ("reason" = "logout") "Sessions ended, by reason.";
    CloseDrain Counter "pinion_closes_total" ("reason" = "drain") "Sessions ended, by reason.";
    CloseRefused Counter "pinion_closes_total" ("reason" = "login_refused") "Sessions ended, by reason.";
    CloseLogin Counter "pinion_closes_total" ("reason" = "login_timeout") "Sessions ended, by reason.";
    CloseInternal Counter "pinion_closes_total" ("reason" = "internal") "Sessions ended, by reason.";

    RpcConnections Gauge "pinion_rpc_connections" "Open connections to the gRPC port.";
    RpcOpen Gauge "pinion_rpc_calls_in_flight" "gRPC calls that wait for shards.";
    RpcPushesInHand Gauge "pinion_rpc_pushes_in_hand" "Messages of pinion.v1.Push calls that wait for shards.";
    RpcPushOk Counter "pinion_rpc_calls_total" ("call" = "push_ok") "gRPC calls by method and outcome.";
    RpcPushError Counter "pinion_rpc_calls_total" ("call" = "push_error") "gRPC calls by method and outcome.";
    RpcKickOk Counter "pinion_rpc_calls_total" ("call" = "kick_ok") "gRPC calls by method and outcome.";
    RpcKickError Counter "pinion_rpc_calls_total" ("call" = "kick_error") "gRPC calls by method and outcome.";
    RpcStatusOk Counter "pinion_rpc_calls_total" ("call" = "status_ok") "gRPC calls by method and outcome.";
    RpcStatusError Counter "pinion_rpc_calls_total" ("call" = "status_error") "gRPC calls by method and outcome.";
    RpcLoginOk Counter "pinion_rpc_calls_total" ("call" = "remote_login_ok") "gRPC calls by method and outcome.";
    RpcLoginError Counter "pinion_rpc_calls_total" ("call" = "remote_login_error") "gRPC calls by method and outcome.";
    RpcStreamOk Counter "pinion_rpc_calls_total" ("call" = "push_stream_ok") "gRPC calls by method and outcome.";
    RpcStreamError Counter "pinion_rpc_calls_total" ("call" = "push_stream_error") "gRPC calls by method and outcome.";
    RpcSendOk Counter "pinion_rpc_calls_total" ("call" = "push_send_ok") "gRPC calls by method and outcome.";
    RpcSendError Counter "pinion_rpc_calls_total" ("call" = "push_send_error") "gRPC calls by method and outcome.";
    RpcOtherOk Counter "pinion_rpc_calls_total" ("call" = "other_ok") "gRPC calls by method and outcome.";
    RpcOtherError Counter "pinion_rpc_calls_total" ("call" = "other_error") "gRPC calls by method and outcome.";
    CountPushOk Upstream "rpc_count" ("path" = "/openim.msggateway.msgGateway/SuperGroupOnlineBatchPushOneMsg", "code" = "0") "Calls of OpenIM's own callers.";
    CountPushError Upstream "rpc_count" ("path" = "/openim.msggateway.msgGateway/SuperGroupOnlineBatchPushOneMsg", "code" = "-1") "Calls of OpenIM's own callers.";
    CountKickOk Upstream "rpc_count" ("path" = "/openim.msggateway.msgGateway/KickUserOffline", "code" = "0") "Calls of OpenIM's own callers.";
    CountKickError Upstream "rpc_count" ("path" = "/openim.msggateway.msgGateway/KickUserOffline", "code" = "-1") "Calls of OpenIM's own callers.";
    CountStatusOk Upstream "rpc_count" ("path" = "/openim.msggateway.msgGateway/GetUsersOnlineStatus", "code" = "0") "Calls of OpenIM's own callers.";
    CountStatusError Upstream "rpc_count" ("path" = "/openim.msggateway.msgGateway/GetUsersOnlineStatus", "code" = "-1") "Calls of OpenIM's own callers.";
    CountLoginOk Upstream "rpc_count" ("path" = "/openim.msggateway.msgGateway/MultiTerminalLoginCheck", "code" = "0") "Calls of OpenIM's own callers.";
    CountLoginError Upstream "rpc_count" ("path" = "/openim.msggateway.msgGateway/MultiTerminalLoginCheck", "code" = "-1") "Calls of OpenIM's own callers.";
    CountOnePushOk Upstream "rpc_count" ("path" = "/openim.msggateway.msgGateway/OnlinePushMsg", "code" = "0") "Calls of OpenIM's own callers.";
    CountOnePushError Upstream "rpc_count" ("path" = "/openim.msggateway.msgGateway/OnlinePushMsg", "code" = "-1") "Calls of OpenIM's own callers.";
    CountBatchPushOk Upstream "rpc_count" ("path" = "/openim.msggateway.msgGateway/OnlineBatchPushOneMsg", "code" = "0") "Calls of OpenIM's own callers.";
    CountBatchPushError Upstream "rpc_count" ("path" = "/openim.msggateway.msgGateway/OnlineBatchPushOneMsg", "code" = "-1") "Calls of OpenIM's own callers.";
    RpcBadRequest Counter "pinion_rpc_bad_requests_total" "gRPC bodies that could not be decoded.";
    RpcCancelled Counter "pinion_rpc_cancelled_total" "gRPC calls that their caller gave up.";
    RpcStreamWaitsHand Counter "pinion_rpc_stream_waits_total" ("cause" = "in_hand") "Times that a push stream was not read on for a while.";
    RpcStreamWaitsShard Counter "pinion_rpc_stream_waits_total" ("cause" = "shard") "Times that a push stream was not read on for a while.";
    RpcTooSlow Counter "pinion_rpc_slow_callers_total" "Streaming calls cut because their caller took nothing of the answer.";
    RpcLate Counter "pinion_rpc_late_verdicts_total" "Answers of shards that came after their call was over.";
    RpcRefused Counter "pinion_rpc_connections_refused_total" ("reason" = "preface") "gRPC connections closed before their first call.";
    RpcRefusedLate Counter "pinion_rpc_connections_refused_total" ("reason" = "preface_late") "gRPC connections closed before their first call.";
    RpcRefusedFull Counter "pinion_rpc_connections_refused_total" ("reason" = "connection_limit") "gRPC connections closed before their first call.";
    RpcRefusedAddress Counter "pinion_rpc_connections_refused_total" ("reason" = "address_limit") "gRPC connections closed before their first call.";
    RpcCutControl Counter "pinion_rpc_cut_total" ("reason" = "control_frames") "gRPC connections ended since their caller broke a rule.";
    RpcCutResets Counter "pinion_rpc_cut_total" ("reason" = "resets") "gRPC connections ended since their caller broke a rule.";
    RpcCutStuck Counter "pinion_rpc_cut_total" ("reason" = "send_deadline") "gRPC connections ended since their caller broke a rule.";
    RpcCutExcess Counter "pinion_rpc_cut_total" ("reason" = "http2_excess") "gRPC connections ended since their caller broke a rule.";
    RpcCutProtocol Counter "pinion_rpc_cut_total" ("reason" = "protocol_error") "gRPC connections ended since their caller broke a rule.";
    RpcForeign Counter "pinion_rpc_connections_foreign_total" "gRPC connections cut at once: their source is not in rpc.allow.";
    RpcTlsFailed Counter "pinion_rpc_tls_failed_total" "TLS handshakes on the gRPC port that failed or took too long.";
    RpcUnauthenticated Counter "pinion_rpc_unauthenticated_total" "gRPC calls without rpc.token or with another one.";
    EndpointsAuth Gauge "pinion_upstream_endpoints" ("service" = "auth") "Instances of an OpenIM service that are believed.";
    EndpointsUser Gauge "pinion_upstream_endpoints" ("service" = "user") "Instances of an OpenIM service that are believed.";
    EndpointsMsg Gauge "pinion_upstream_endpoints" ("service" = "msg") "Instances of an OpenIM service that are believed.";
    EndpointsPush Gauge "pinion_upstream_endpoints" ("service" = "push") "Instances of an OpenIM service that are believed.";
    EndpointsGateway Gauge "pinion_upstream_endpoints" ("service" = "gateway") "Instances of an OpenIM service that are believed.";
    EndpointsVersionAuth Gauge "pinion_upstream_endpoints_version" ("service" = "auth") "Versions of the set of instances of an OpenIM service since the start.";
    EndpointsVersionUser Gauge "pinion_upstream_endpoints_version" ("service" = "user") "Versions of the set of instances of an OpenIM service since the start.";
    EndpointsVersionMsg Gauge "pinion_upstream_endpoints_version" ("service" = "msg") "Versions of the set of instances of an OpenIM service since the start.";
    EndpointsVersionPush Gauge "pinion_upstream_endpoints_version" ("service" = "push") "Versions of the set of instances of an OpenIM service since the start.";
    EndpointsVersionGateway Gauge "pinion_upstream_endpoints_version" ("service" = "gateway") "Versions of the set of instances of an OpenIM service since the start.";
    EndpointsHeld Counter "pinion_discovery_observations_total" ("outcome" = "empty_held") "Answers of the registry that were pointed out.";
    EndpointsHalved Counter "pinion_discovery_observations_total" ("outcome" = "halved") "Answers of the registry that were pointed out.";
    EndpointsIgnored Counter "pinion_discovery_ignored_total" "Values in the registry that are not an endpoint, or too many.";
    DiscoveryCurrent Gauge "pinion_discovery_current" "1 while the registry is watched.";
    DiscoveryAge Gauge "pinion_discovery_age_ms" "Since when what is believed of the registry is not watched: 0 while it is.";
    DiscoveryLoads Counter "pinion_discovery_loads_total" "Times that services were read anew from the registry, in Kubernetes one by one.";
    DiscoveryFailures Counter "pinion_etcd_failures_total" ("task" = "watch") "Connections to etcd that failed or broke.";
    RegistrationFailures Counter "pinion_etcd_failures_total" ("task" = "registration") "Connections to etcd that failed or broke.";
    KubernetesFailures Counter "pinion_kubernetes_failures_total" "Requests to the API server of Kubernetes that failed or broke.";
    NameFailures Counter "pinion_name_failures_total" "Names of OpenIM 3.5's services and gateways that could not be looked up.";
    GatewaysExpected Gauge "pinion_gateways" ("kind" = "expected") "Gateways of OpenIM 3.5 in Kubernetes: MY_MSGGATEWAY_REPLICACOUNT, and those that answer, this one included.";
    GatewaysAnswering Gauge "pinion_gateways" ("kind" = "answering") "Gateways of OpenIM 3.5 in Kubernetes: MY_MSGGATEWAY_REPLICACOUNT, and those that answer, this one included.";
    RegistrationPresent Gauge "pinion_registration_present" "1 while this node is registered under a live lease.";
    RegistrationsLost Counter "pinion_registrations_lost_total" "Times that the own key or its lease was gone and was made anew.";
    MembersJoining Gauge "pinion_cluster_members" ("state" = "joining") "Members of the cluster in the view that is believed.";
    MembersActive Gauge "pinion_cluster_members" ("state" = "active") "Members of the cluster in the view that is believed.";
    MembersDraining Gauge "pinion_cluster_members" ("state" = "draining") "Members of the cluster in the view that is believed.";
    MembersLost Gauge "pinion_cluster_members" ("state" = "lost") "Members of the cluster in the view that is believed.";
    ViewEpoch Gauge "pinion_cluster_epoch" "Version of the membership that is believed.";
    ViewsHeld Counter "pinion_cluster_views_held_total" "Views in which the members are gone, or half of them, or of another source: not believed before they are confirmed.";
    ViewsIgnored Counter "pinion_cluster_records_ignored_total" "Records of the cluster, or lists, that cannot be read, or are too many.";
    LeaseLeft Gauge "pinion_cluster_lease_left_ms" "How long this node's lease in the cluster still holds; 0: it has none.";
    LeaseRenewals Counter "pinion_cluster_lease_renewals_total" ("outcome" = "ok") "Renewals of this node's lease in the cluster.";
    LeaseRenewalsFailed Counter "pinion_cluster_lease_renewals_total" ("outcome" = "failed") "Renewals of this node's lease in the cluster.";
    LeasesRegained Counter "pinion_cluster_leases_regained_total" "Times that this node's lease in the cluster had ended and was regained.";
    MembershipFailures Counter "pinion_cluster_source_failures_total" "Connections to the source of the members that failed or broke, and lists that could not be read.";
    RecordsLost Counter "pinion_cluster_records_written_total" ("record" = "lost") "Records of other nodes that this node changed.";
    RecordsForgotten Counter "pinion_cluster_records_written_total" ("record" = "forgotten") "Records of other nodes that this node changed.";
    SourceForeign Gauge "pinion_cluster_source_foreign" "1 while etcd is another cluster than the one this node registered in: it was restored or replaced, and nothing of it is believed. See tuning/cluster.md.";
    NameTaken Gauge "pinion_cluster_name_taken" "1 while another process runs under this node's cluster.node_id: this one waits, or is to end. The log names both.";
    NameClashes Counter "pinion_cluster_name_clashes_total" "Times that another living process was found to have this node's cluster.node_id, or that of a peer.";
    MembershipOrdersRefused Counter "pinion_cluster_orders_refused_total" "Orders about records that found their lane full; they are given again.";
    Subscribed Gauge "pinion_redis_subscribed" "1 while the subscription to online_change is in place.";
    Subscriptions Counter "pinion_redis_subscriptions_total" "Times that the subscription to online_change was made.";
    RedisFailures Counter "pinion_redis_failures_total" ("task" = "subscription") "Connections to Redis that failed or broke.";
    RedisTokenFailures Counter "pinion_redis_failures_total" ("task" = "tokens") "Connections to Redis that failed or broke.";
    OnlineChanges Counter "pinion_online_changes_total" ("outcome" = "passed_on") "Messages of online_change.";
    OnlineChangesDropped Counter "pinion_online_changes_total" ("outcome" = "dropped") "Messages of online_change.";
    TokenOrdersOk Counter "pinion_token_orders_total" ("outcome" = "ok") "Questions and changes of token states in Redis.";
    TokenOrdersFailed Counter "pinion_token_orders_total" ("outcome" = "failed") "Questions and changes of token states in Redis.";
    TokenOrdersLate Counter "pinion_token_orders_total" ("outcome" = "late") "Questions and changes of token states in Redis.";
    TokenOrdersRefused Counter "pinion_token_orders_total" ("outcome" = "queue_full") "Questions and changes of token states in Redis.";
    TokenChecks Gauge "pinion_token_checks" "Logins whose token state Redis is asked for (OpenIM 3.5).";
    TokenChecksRefused Counter "pinion_token_checks_refused_total" "Logins that found too many others asking Redis for their token's state.";
    WebhooksOk Counter "pinion_webhooks_total" ("outcome" = "ok") "Webhooks by outcome.";
    WebhooksRefused Counter "pinion_webhooks_total" ("outcome" = "refused") "Webhooks by outcome.";
    WebhooksMalformed Counter "pinion_webhooks_total" ("outcome" = "malformed") "Webhooks by outcome.";
    WebhooksFailed Counter "pinion_webhooks_total" ("outcome" = "failed") "Webhooks by outcome.";
    WebhooksLate Counter "pinion_webhooks_total" ("outcome" = "timeout") "Webhooks by outcome.";
    WebhooksDropped Counter "pinion_webhooks_total" ("outcome" = "queue_full") "Webhooks by outcome.";
    WebhooksUnwanted Counter "pinion_webhooks_total" ("outcome" = "turned_off") "Webhooks by outcome.";
    PeerLinks Gauge "pinion_peer_links" "Other nodes with a link that is up.";
    PeerQueuedBytes Gauge "pinion_peer_queued_bytes" "Bytes that wait for links to other nodes.";
    PeerDials Counter "pinion_peer_dials_total" "Attempts to dial another node.";
    PeerOpened Counter "pinion_peer_opened_total" "Links to other nodes that this node dialled; each beyond the first of a node is a reconnect.";
    PeerRefused Counter "pinion_peer_refused_total" "Links to other nodes that were not made, or ended by one side with a reason (the log has it).";
    PeerFramesIn Counter "pinion_peer_frames_total" ("direction" = "in") "Frames between nodes.";
    PeerFramesOut Counter "pinion_peer_frames_total" ("direction" = "out") "Frames between nodes.";
    PeerBytesIn Counter "pinion_peer_bytes_total" ("direction" = "in") "Bytes of messages between nodes.";
    PeerBytesOut Counter "pinion_peer_bytes_total" ("direction" = "out") "Bytes of messages between nodes.";
    PeerOverflows Counter "pinion_peer_links_ended_total" ("reason" = "overflow") "Links ended by this node for cause.";
    PeerStalls Counter "pinion_peer_links_ended_total" ("reason" = "stalled") "Links ended by this node for cause.";
    PeerFaults Counter "pinion_peer_links_ended_total" ("reason" = "unreadable") "Links ended by this node for cause.";
    PeerKnocks Counter "pinion_peer_knocks_total" "Nodes of lower ids that were asked to dial this one, since no link with them stood for a while: does their list of members have this node, and do they reach it?";
    PeerNameFailures Counter "pinion_peer_name_failures_total" "Names of other nodes that could not be looked up: see cluster.rpc_address of the node that the log names.";
    NameOrdersRefused Counter "pinion_peer_name_orders_refused_total" "Names of other nodes that found too many waiting to be looked up; they are dialled later.";
    PeerTooLarge Counter "pinion_peer_frames_too_large_total" "Questions to another node that were too large to be sent; their verdicts name it.";
    NewsDeferred Counter "pinion_control_news_deferred_total" "Times that the rpc thread had no room for news of the control thread.";
    DrainEvicted Counter "pinion_drain_evicted_total" "Sessions ended by a drain.";
    Draining Gauge "pinion_draining" "1 while the node empties itself, by an operator's order or at its end.";
    DrainRate Gauge "pinion_drain_evictions_per_second_limit" "Evictions per second that an operator's drain allows; 0 without one.";
    AdoptedAddresses Gauge "pinion_adopted_addresses" "Addresses of other nodes that clients are served on here.";
    AdoptionsFailed Counter "pinion_adoption_failures_total" ("step" = "listen") "Steps of taking over an address that failed; they are repeated.";
    AdoptionHooksFailed Counter "pinion_adoption_failures_total" ("step" = "hook") "Steps of taking over an address that failed; they are repeated.";
    ReloadsApplied Counter "pinion_reloads_total" ("outcome" = "applied") "Times that the configuration was read again.";
    ReloadsUnchanged Counter "pinion_reloads_total" ("outcome" = "unchanged") "Times that the configuration was read again.";
    ReloadsRefused Counter "pinion_reloads_total" ("outcome" = "refused") "Times that the configuration was read again.";
    SettingsPending Gauge "pinion_settings_pending_restart" "Settings whose new value counts after a restart only.";
    AssignPlaced Counter "pinion_assign_answers_total" ("outcome" = "placed") "Requests of the assign API by outcome.";
    AssignRule Counter "pinion_assign_answers_total" ("outcome" = "rule") "Requests of the assign API by outcome.";
    AssignStatic Counter "pinion_assign_answers_total" ("outcome" = "static") "Requests of the assign API by outcome.";
    AssignNobody Counter "pinion_assign_answers_total" ("outcome" = "nobody") "Requests of the assign API by outcome.";
    AssignPreflight Counter "pinion_assign_answers_total" ("outcome" = "preflight") "Requests of the assign API by outcome.";
    AssignBad Counter "pinion_assign_answers_total" ("outcome" = "bad_request") "Requests of the assign API by outcome.";
    AssignNotFound Counter "pinion_assign_answers_total" ("outcome" = "not_found") "Requests of the assign API by outcome.";
    AssignMethod Counter "pinion_assign_answers_total" ("outcome" = "wrong_method") "Requests of the assign API by outcome.";
    AssignTooLong Counter "pinion_assign_answers_total" ("outcome" = "head_too_long") "Requests of the assign API by outcome.";
    AssignTooSlow Counter "pinion_assign_answers_total" ("outcome" = "head_too_slow") "Requests of the assign API by outcome.";
    AssignAddressRate Counter "pinion_assign_answers_total" ("outcome" = "address_rate") "Requests of the assign API by outcome.";
    AssignRate Counter "pinion_assign_answers_total" ("outcome" = "rate") "Requests of the assign API by outcome.";
    AssignSharedRate Counter "pinion_assign_shared_rate_total" "Requests of the assign API whose address shares one rate with others, since rates of too many addresses are kept.";
    AssignConnections Gauge "pinion_assign_connections" "Connections to the assign listener.";
    AssignFull Counter "pinion_assign_connections_refused_total" ("cause" = "limit") "Connections closed at accept.";
    AssignAddressFull Counter "pinion_assign_connections_refused_total" ("cause" = "address_limit") "Connections closed at accept.";
    AssignCut Counter "pinion_assign_connections_cut_total" "Connections cut because the client did not take its answer.";
    AssignMembersOpen Gauge "pinion_assign_members" ("state" = "handed_out") "Members by what the assign API does with them.";
    AssignMembersUnreachable Gauge "pinion_assign_members" ("state" = "unreachable") "Members by what the assign API does with them.";
    AssignMembersClosed Gauge "pinion_assign_members" ("state" = "closed") "Members by what the assign API does with them.";
    AssignPolls Counter "pinion_assign_polls_total" ("outcome" = "answered") "Questions to members how full they are.";
    AssignPollFailures Counter "pinion_assign_polls_total" ("outcome" = "failed") "Questions to members how full they are.";

    HttpRequests Counter "pinion_http_requests_total" "Admin HTTP requests.";
    HttpRefused Counter "pinion_http_refused_total" "Admin HTTP requests refused: too long, too slow or malformed.";
    HttpDenied Counter "pinion_http_denied_total" "Admin HTTP requests of callers who may not ask (no or wrong token).";
    UpstreamReadyAuth Gauge "pinion_upstream_ready" ("service" = "auth") "Instances of an OpenIM service that can be asked now.";
    UpstreamReadyUser Gauge "pinion_upstream_ready" ("service" = "user") "Instances of an OpenIM service that can be asked now.";
    UpstreamReadyMsg Gauge "pinion_upstream_ready" ("service" = "msg") "Instances of an OpenIM service that can be asked now.";
    UpstreamReadyPush Gauge "pinion_upstream_ready" ("service" = "push") "Instances of an OpenIM service that can be asked now.";
    UpstreamReadyGateway Gauge "pinion_upstream_ready" ("service" = "gateway") "Instances of an OpenIM service that can be asked now.";
    UpstreamAnswered Counter "pinion_upstream_results_total" ("result" = "answered") "Calls to OpenIM's services that are over.";
    UpstreamStatuses Counter "pinion_upstream_results_total" ("result" = "error_status") "Calls to OpenIM's services that are over.";
    UpstreamUnavailable Counter "pinion_upstream_results_total" ("result" = "unavailable") "Calls to OpenIM's services that are over.";
    UpstreamDeadlines Counter "pinion_upstream_results_total" ("result" = "deadline") "Calls to OpenIM's services that are over.";
    UpstreamOverloaded Counter "pinion_upstream_results_total" ("result" = "overloaded") "Calls to OpenIM's services that are over.";
    UpstreamMetadata Counter "pinion_upstream_results_total" ("result" = "bad_metadata") "Calls to OpenIM's services that are over.";
    UpstreamRetries Counter "pinion_upstream_retries_total" "Second attempts of calls to OpenIM's services.";
    UpstreamBreakerOpens Counter "pinion_upstream_breaker_opens_total" "Times that an instance that answered nobody was left alone.";
    UpstreamLatencyMs Counter "pinion_upstream_milliseconds_total" "Milliseconds that calls to OpenIM's services took together.";
    BackendMessages Gauge "pinion_embedded_messages" "Messages held by the embedded backend.";
    BackendBytes Gauge "pinion_embedded_bytes" "Bytes of messages held by the embedded backend.";
    PresenceOnline Gauge "pinion_presence_users" "Users online here, as the user service is told.";
    PresenceUntold Gauge "pinion_presence_untold" "Users of whom not all is told to the user service.";
    PresenceDone Counter "pinion_presence_reports_total" ("outcome" = "done") "Requests that told the user service who is online.";
    PresenceRefused Counter "pinion_presence_reports_total" ("outcome" = "refused") "Requests that told the user service who is online.";
    PresenceUnknown Counter "pinion_presence_reports_total" ("outcome" = "unknown") "Requests that told the user service who is online.";
    PresenceLate Counter "pinion_presence_late_total" "Answers of the user service that came after their deadline.";
    PresenceRenewals Counter "pinion_presence_renewals_total" "Users told again because they stay.";
    PresenceRepairs Counter "pinion_presence_repairs_total" "Messages of others that lacked a user who is online here.";
    PresenceHandedOver Counter "pinion_presence_handed_over_total" "Leavings that were not told because the user had logged in at another gateway.";
    PresenceEchoes Counter "pinion_presence_echoes_total" "Users told once more after a request of unknown fate or a second repair.";
    PresenceDeparted Counter "pinion_presence_departed_forgotten_total" "Users whose leaving was not told because too many waited.";
    PresenceMovesForgotten Counter "pinion_presence_moves_forgotten_total" "Logins that were not told once more: too many waited (OpenIM 3.5).";
    OnlineChangeInvalid Counter "pinion_online_change_invalid_total" "Messages of online_change that are none.";
    StatusEntries Gauge "pinion_status_cache_users" "Users in the cache of statuses.";
    StatusWaiting Gauge "pinion_status_waiting" "Users in questions that wait for the user service.";
    StatusHits Counter "pinion_status_lookups_total" ("outcome" = "hit") "Users of questions for statuses.";
    StatusMisses Counter "pinion_status_lookups_total" ("outcome" = "miss") "Users of questions for statuses.";
    StatusExpired Counter "pinion_status_expired_total" "Misses that were in the cache, but too old.";
    StatusEvictions Counter "pinion_status_evictions_total" "Users taken out of the cache of statuses to make room.";
    StatusRefused Counter "pinion_status_refused_total" "Questions for statuses refused because too many waited.";
    StatusFailed Counter "pinion_status_failed_total" "Users whose status could not be had.";
    WebhooksForgotten Counter "pinion_webhooks_dropped_total" "Webhooks that were not handed to the control thread.";
}

/// How many metrics there are.
pub const METRIC_COUNT: usize = DESCRIPTIONS.len();

/// Plain counts of one thread.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tally {
    values: [u64; METRIC_COUNT],
}

impl Default for Tally {
    fn default() -> Self {
        Self { values: [0; METRIC_COUNT] }
    }
}

impl Tally {
    /// Adds to a counter.
    pub fn add(&mut self, metric: Metric, n: u64) {
        if let Some(value) = self.values.get_mut(metric as usize) {
            *value = value.wrapping_add(n);
        }
    }

    /// Adds one to a counter.
    pub fn count(&mut self, metric: Metric) {
        self.add(metric, 1);
    }

    /// Sets a gauge.
    pub fn set(&mut self, metric: Metric, value: u64) {
        if let Some(slot) = self.values.get_mut(metric as usize) {
            *slot = value;
        }
    }

    /// Raises a gauge to at least `value`.
    pub fn raise(&mut self, metric: Metric, value: u64) {
        self.set(metric, value.max(self.value(metric)));
    }

    /// Reads a value.
    pub fn value(&self, metric: Metric) -> u64 {
        self.values.get(metric as usize).copied().unwrap_or_default()
    }
}

/// What the watcher found about a thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stalled {
    /// Its heartbeat is overdue.
    Yes,
    /// It turns.
    No,
}

/// The published counts of one thread. Written by that thread only, but for [`Metric::Stalled`], which belongs to the
/// watcher; cache-line separated from other blocks.
#[derive(Debug)]
#[repr(align(128))]
pub struct Block {
    values: [AtomicU64; METRIC_COUNT],
}

impl Default for Block {
    fn default() -> Self {
        Self { values: std::array::from_fn(|_| AtomicU64::new(0)) }
    }
}

impl Block {
    /// Copies a thread's counts, except [`Metric::Stalled`]. Call it from that thread only.
    pub fn publish(&self, tally: &Tally) {
        for (slot, (value, &(metric, _))) in self.values.iter().zip(tally.values.iter().zip(DESCRIPTIONS)) {
            if metric != Metric::Stalled {
                slot.store(*value, Ordering::Relaxed);
            }
        }
    }

    /// Shows whether the thread is stalled. Called by the watcher only: a stalled thread cannot say so itself.
    pub fn set_stalled(&self, stalled: Stalled) {
        if let Some(slot) = self.values.get(Metric::Stalled as usize) {
            slot.store(u64::from(stalled == Stalled::Yes), Ordering::Relaxed);
        }
    }

    /// One value, at most one turn old.
    pub fn value(&self, metric: Metric) -> u64 {
        self.values.get(metric as usize).map(|v| v.load(Ordering::Relaxed)).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_match_the_enum_and_families_stand_together() {
        let mut seen = Vec::new();
        for (slot, (metric, description)) in DESCRIPTIONS.iter().enumerate() {
            assert_eq!(*metric as usize, slot);
            assert_eq!(
                description.kind == Kind::Counter,
                description.name.ends_with("_total"),
                "{description:?}"
            );
            let foreign = !description.name.starts_with("pinion_");
            assert_eq!(description.kind == Kind::Upstream, foreign, "{description:?}");
            if seen.last() != Some(&description.name) {
                assert!(!seen.contains(&description.name), "family {} is split", description.name);
                seen.push(description.name);
            }
        }
    }

    #[test]
    fn a_block_shows_what_was_published() {
        let (mut tally, block) = (Tally::default(), Block::default());
        tally.add(Metric::FramesIn, 3);
        tally.raise(Metric::RegisterHigh, 5);
        tally.raise(Metric::RegisterHigh, 2);
        assert_eq!(block.value(Metric::FramesIn), 0);
        block.publish(&tally);
        assert_eq!((block.value(Metric::FramesIn), block.value(Metric::RegisterHigh)), (3, 5));
    }

    #[test]
    fn what_the_watcher_says_outlives_a_publish() {
        let (tally, block) = (Tally::default(), Block::default());
        block.set_stalled(Stalled::Yes);
        block.publish(&tally);
        assert_eq!(block.value(Metric::Stalled), 1);
        block.set_stalled(Stalled::No);
        assert_eq!(block.value(Metric::Stalled), 0);
    }
}
