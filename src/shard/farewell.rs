//! The one line that is logged for each session that is over: who, for how long, how much, why, and what the client
//! does next. A client's or this node's fault is logged at info, an end that was meant at debug.
//!
//! The log is bounded and lossy, so a storm of closes costs lines and not time.

use super::names::Names;
use crate::hub::ended::Ended;
use crate::ids::ShardId;
use crate::session::disconnect::Fault;
use crate::session::handshake::origin::address_text;

/// Says it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Farewell {
    pub(super) shard: ShardId,
    pub(super) names: Names,
}

impl Farewell {
    /// Logs one end.
    pub(super) fn say(&self, ended: &Ended) {
        let terms = ended.reason.terms();
        macro_rules! line {
            ($log:ident) => {
                tracing::$log!(
                    shard = self.shard.0,
                    conn = %ended.conn,
                    connection_id = %ended.connection_id,
                    operation_id = %ended.operation_id,
                    user = %self.names.name(&ended.user),
                    platform = ended.platform.name(),
                    peer = %address_text(ended.peer),
                    reason = terms.label,
                    fault = ?terms.fault,
                    age_ms = ended.age_ms,
                    bytes_in = ended.bytes_in,
                    bytes_out = ended.bytes_out,
                    bytes_unsent = ended.bytes_unsent,
                    last_frame = ended.last_frame.name(),
                    heard_ms = ended.heard_ms,
                    client_next = terms.client_next,
                    "session over"
                )
            };
        }
        match terms.fault {
            Fault::Client | Fault::Node => line!(info),
            Fault::None => line!(debug),
        }
    }
}
