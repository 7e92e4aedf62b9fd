//! The one table of reasons for which the gateway ends a session (spec 1.7).
//!
//! A reason says what the client is sent, whether waiting frames are flushed first (in bounded time), whose fault it
//! was, and what the published SDKs do next. Nothing else decides any of that.

use serde::{Deserialize, Serialize};

use crate::metrics::Metric;

/// What most SDKs do after any close that is no kick and no logout (clients.md 3.5).
const RETRY: &str = "reconnects with backoff";

/// Who caused it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The client, or its network.
    Client,
    /// This node, or what it depends on.
    Node,
    /// Nobody: intended.
    None,
}

/// One row of the table.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    /// Label in logs.
    pub label: &'static str,
    /// Code and reason of the close frame; `None` = bare TCP close, as upstream does (spec 1.7).
    pub close_frame: Option<(u16, &'static str)>,
    /// Whether waiting frames are sent first, for at most `limits::FLUSH_DEADLINE_MS`.
    pub flush: bool,
    /// Who caused it.
    pub fault: Fault,
    /// Counted as.
    pub metric: Metric,
    /// What the published SDKs do next (spec 1.7, clients.md 3.5).
    pub client_next: &'static str,
}

macro_rules! reasons {
    ($(
        $name:ident $label:literal $frame:expr, $flush:literal $fault:ident $metric:ident $next:expr, $doc:literal;
    )*) => {
        /// Why a session ends.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
        pub enum Disconnect { $(#[doc = $doc] $name,)* }

        impl Disconnect {
            /// Every reason.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// The row of this reason.
            pub fn terms(self) -> Terms {
                match self {
                    $(Self::$name => Terms {
                        label: $label,
                        close_frame: $frame,
                        flush: $flush,
                        fault: Fault::$fault,
                        metric: Metric::$metric,
                        client_next: $next,
                    },)*
                }
            }
        }
    };
}

reasons! {
    PeerClosed "peer_closed" None, true None ClosePeer "as it intended",
        "The client sent a close frame; it is echoed.";
    TransportLost "transport_lost" None, false Client CloseLost RETRY,
        "The peer is gone: end of stream, reset, or the socket failed.";
    ProtocolError "protocol_error" Some((1002, "protocol error")), true Client CloseProtocol RETRY,
        "RFC 6455 violation.";
    MessageTooBig "message_too_big" Some((1009, "")), true Client CloseTooBig RETRY,
        "Inbound message above the limit.";
    TooManyFragments "too_many_fragments" Some((1008, "too many fragments")), true Client CloseFragments RETRY,
        "More fragments than the limit.";
    BadEnvelope "bad_envelope" None, false Client CloseEnvelope RETRY,
        "gzip, gob or JSON that does not decode.";
    InflatedTooBig "inflated_too_big" None, false Client CloseInflated RETRY,
        "gzip that expands above the limit.";
    BadText "bad_text_frame" None, false Client CloseText RETRY,
        "A text frame that is no ping or pong (spec 1.6).";
    UnknownRequest "unknown_request" None, false Client CloseRequest RETRY,
        "A request identifier that clients must not send (spec 3.1).";
    SenderMismatch "sender_mismatch" None, false Client CloseSender RETRY,
        "`SendID` differs from the connection's user (spec 3.2).";
    ReadDeadline "read_deadline" None, false Client CloseSilent RETRY,
        "Nothing was heard for the read deadline.";
    SlowConsumer "slow_consumer" None, false Client CloseSlow RETRY,
        "The outbox limit of the connection.";
    SendDeadline "send_deadline" None, false Client CloseStuck RETRY,
        "The socket took no byte of what waits for the send deadline.";
    ShardBudget "shard_budget" None, false Node CloseBudget RETRY,
        "A budget of the shard: it held the largest outbox, or sent what did not fit any more.";
    TooManyRequests "too_many_requests" None, false Client CloseOverload RETRY,
        "More requests waiting than the limit.";
    FrameRate "frame_rate" Some((1008, "too many frames")), true Client CloseFrameRate RETRY,
        "More frames per second than the limit.";
    ByteRate "byte_rate" Some((1008, "too many bytes")), true Client CloseByteRate RETRY,
        "More bytes per second than the limit.";
    InflatedRate "inflated_rate" Some((1008, "too many inflated bytes")), true Client CloseInflatedRate RETRY,
        "More bytes per second after gunzip than the limit.";
    Kicked "kicked" None, true None CloseKicked "stops: OnKickedOffline",
        "Login policy or RPC; the kick frame goes first.";
    Logout "logout" None, true None CloseLogout "stops",
        "Request 2003; its reply goes first.";
    Drain "drain" Some((1001, "going away")), true None CloseDrain RETRY,
        "The node leaves.";
    LoginRefused "login_refused" None, true Client CloseRefused "stops at 1501 to 1507, else retries",
        "Token or upgrade refused; the answer goes first.";
    LoginTimeout "login_timeout" None, true Node CloseLogin RETRY,
        "The token check took too long.";
    Internal "internal" Some((1011, "")), true Node CloseInternal RETRY,
        "A bug met by this session alone.";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_a_label_and_a_metric_of_its_own() {
        let labels: std::collections::BTreeSet<_> = Disconnect::ALL.iter().map(|d| d.terms().label).collect();
        let metrics: std::collections::BTreeSet<_> =
            Disconnect::ALL.iter().map(|d| d.terms().metric).collect();
        assert_eq!(labels.len(), Disconnect::ALL.len());
        assert_eq!(metrics.len(), Disconnect::ALL.len());
    }

    #[test]
    fn a_close_frame_is_never_promised_without_a_flush() {
        for reason in Disconnect::ALL.iter().copied() {
            let terms = reason.terms();
            assert!(terms.flush || terms.close_frame.is_none(), "{reason:?}");
        }
    }
}
