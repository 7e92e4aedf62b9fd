//! The one table of reasons for which the gateway ends a session (spec 1.7).
//!
//! A reason says what the client is sent, whether waiting frames are flushed first (in bounded time), whose fault it
//! was, and what the published SDKs do next. Nothing else decides any of that.

use serde::{Deserialize, Serialize};

use crate::metrics::Metric;

/// Why a session ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Disconnect {
    /// The client sent a close frame; it is echoed.
    PeerClosed,
    /// The peer is gone: end of stream, reset, or the socket failed.
    TransportLost,
    /// RFC 6455 violation.
    ProtocolError,
    /// Inbound message above the limit.
    MessageTooBig,
    /// More fragments than the limit.
    TooManyFragments,
    /// gzip, gob or JSON that does not decode.
    BadEnvelope,
    /// gzip that expands above the limit.
    InflatedTooBig,
    /// A text frame that is no ping or pong (spec 1.6).
    BadText,
    /// A request identifier that clients must not send (spec 3.1).
    UnknownRequest,
    /// `SendID` differs from the connection's user (spec 3.2).
    SenderMismatch,
    /// Nothing was heard for the read deadline.
    ReadDeadline,
    /// The outbox limit of the connection.
    SlowConsumer,
    /// The outbox budget of the shard.
    ShardBudget,
    /// More requests waiting than the limit.
    TooManyRequests,
    /// Login policy or RPC; the kick frame goes first.
    Kicked,
    /// Request 2003; its reply goes first.
    Logout,
    /// The node leaves.
    Drain,
    /// Token or upgrade refused; the answer goes first.
    LoginRefused,
    /// The token check took too long.
    LoginTimeout,
    /// A bug met by this session alone.
    Internal,
}

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

impl Disconnect {
    /// Every reason.
    pub const ALL: [Self; 20] = [
        Self::PeerClosed,
        Self::TransportLost,
        Self::ProtocolError,
        Self::MessageTooBig,
        Self::TooManyFragments,
        Self::BadEnvelope,
        Self::InflatedTooBig,
        Self::BadText,
        Self::UnknownRequest,
        Self::SenderMismatch,
        Self::ReadDeadline,
        Self::SlowConsumer,
        Self::ShardBudget,
        Self::TooManyRequests,
        Self::Kicked,
        Self::Logout,
        Self::Drain,
        Self::LoginRefused,
        Self::LoginTimeout,
        Self::Internal,
    ];

    /// The row of this reason.
    pub fn terms(self) -> Terms {
        use Fault::{Client, Node};
        use Metric as M;
        const RETRY: &str = "reconnects with backoff";
        let row = |label, close_frame, flush, fault, metric, client_next| Terms {
            label,
            close_frame,
            flush,
            fault,
            metric,
            client_next,
        };
        match self {
            Self::PeerClosed => row(
                "peer_closed",
                None,
                true,
                Fault::None,
                M::ClosePeer,
                "as it intended",
            ),
            Self::TransportLost => row("transport_lost", None, false, Client, M::CloseLost, RETRY),
            Self::ProtocolError => row(
                "protocol_error",
                Some((1002, "protocol error")),
                true,
                Client,
                M::CloseProtocol,
                RETRY,
            ),
            Self::MessageTooBig => row(
                "message_too_big",
                Some((1009, "")),
                true,
                Client,
                M::CloseTooBig,
                RETRY,
            ),
            Self::TooManyFragments => row(
                "too_many_fragments",
                Some((1008, "too many fragments")),
                true,
                Client,
                M::CloseFragments,
                RETRY,
            ),
            Self::BadEnvelope => row("bad_envelope", None, false, Client, M::CloseEnvelope, RETRY),
            Self::InflatedTooBig => row("inflated_too_big", None, false, Client, M::CloseInflated, RETRY),
            Self::BadText => row("bad_text_frame", None, false, Client, M::CloseText, RETRY),
            Self::UnknownRequest => row("unknown_request", None, false, Client, M::CloseRequest, RETRY),
            Self::SenderMismatch => row("sender_mismatch", None, false, Client, M::CloseSender, RETRY),
            Self::ReadDeadline => row("read_deadline", None, false, Client, M::CloseSilent, RETRY),
            Self::SlowConsumer => row("slow_consumer", None, false, Client, M::CloseSlow, RETRY),
            Self::ShardBudget => row("shard_budget", None, false, Node, M::CloseBudget, RETRY),
            Self::TooManyRequests => row("too_many_requests", None, false, Client, M::CloseOverload, RETRY),
            Self::Kicked => row(
                "kicked",
                None,
                true,
                Fault::None,
                M::CloseKicked,
                "stops: OnKickedOffline",
            ),
            Self::Logout => row("logout", None, true, Fault::None, M::CloseLogout, "stops"),
            Self::Drain => row(
                "drain",
                Some((1001, "going away")),
                true,
                Fault::None,
                M::CloseDrain,
                RETRY,
            ),
            Self::LoginRefused => row(
                "login_refused",
                None,
                true,
                Client,
                M::CloseRefused,
                "stops at 1501 to 1507, else retries",
            ),
            Self::LoginTimeout => row("login_timeout", None, true, Node, M::CloseLogin, RETRY),
            Self::Internal => row("internal", Some((1011, "")), true, Node, M::CloseInternal, RETRY),
        }
    }
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
        for reason in Disconnect::ALL {
            let terms = reason.terms();
            assert!(terms.flush || terms.close_frame.is_none(), "{reason:?}");
        }
    }
}
