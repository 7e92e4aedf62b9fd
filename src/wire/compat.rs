//! Which OpenIM a gateway stands in for: the one switch behind every difference between versions (spec 12).
//!
//! Each difference is decided where it belongs, by asking this value; nothing else in the tree names a version.

use super::grpc::Dialect;
use serde::{Deserialize, Serialize};

/// A version of OpenIM, by what differs on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Compat {
    /// 3.5.1: packages `OpenIMServer.*`, tokens in Redis, `setUserStatus`.
    V35,
    /// 3.8.3-patch.16, the newest production tag.
    Patch16,
    /// Branch main.
    Main,
}

impl Compat {
    /// As `compat` in the configuration writes them.
    pub const NAMES: [(&'static str, Self); 3] =
        [("v3.5", Self::V35), ("patch16", Self::Patch16), ("main", Self::Main)];

    /// By which root of their packages its services go.
    pub fn dialect(self) -> Dialect {
        match self {
            Self::V35 => Dialect::Legacy,
            Self::Patch16 | Self::Main => Dialect::Openim,
        }
    }
}
