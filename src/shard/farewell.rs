//! The one line that is logged for each session that is over: who, for how long, how much, why, and what the client
//! does next. A client's or this node's fault is logged at info, an end that was meant at debug.
//!
//! The log is bounded and lossy, so a storm of closes costs lines and not time.

use sha1::{Digest, Sha1};

use crate::config::UserNames;
use crate::hub::ended::Ended;
use crate::ids::ShardId;
use crate::session::disconnect::Fault;

/// How users appear in the log.
#[derive(Clone, Copy, Debug)]
pub(super) struct Farewell {
    pub(super) shard: ShardId,
    pub(super) names: UserNames,
    /// What names are hashed with: drawn at start, so hashes of two runs cannot be compared.
    pub(super) key: [u64; 2],
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
                    user = %self.name(&ended.user),
                    platform = ended.platform.name(),
                    peer = %ended.peer,
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

    /// A user id as the log may show it.
    fn name(&self, user: &str) -> String {
        match self.names {
            UserNames::Plain => user.to_owned(),
            UserNames::Hashed => {
                let [a, b] = self.key;
                let mut hash = Sha1::new();
                hash.update(a.to_be_bytes());
                hash.update(b.to_be_bytes());
                hash.update(user);
                let sum = hash.finalize();
                sum.iter().take(8).map(|byte| format!("{byte:02x}")).collect()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashed_names_tell_users_apart_and_do_not_show_them() {
        let farewell = |names, key| Farewell { shard: ShardId(0), names, key };
        let hashed = farewell(UserNames::Hashed, [1, 2]);
        assert_eq!(farewell(UserNames::Plain, [1, 2]).name("alice"), "alice");
        assert_eq!(hashed.name("alice"), hashed.name("alice"));
        assert_eq!(hashed.name("alice").len(), 16);
        assert_ne!(hashed.name("alice"), hashed.name("bob"));
        assert_ne!(hashed.name("alice"), farewell(UserNames::Hashed, [1, 3]).name("alice"));
        assert!(!hashed.name("alice").contains("alice"));
    }
}
