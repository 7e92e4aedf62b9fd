//! Limits of membership and placement (`cluster/view`, `cluster/placement`).

/// Bytes of a node id: a pod's name has at most so many (RFC 1123 subdomain). More: the id is refused.
pub const NODE_ID_BYTES: usize = 253;
/// Members of one list. More: the list is refused. Every node links with every other (routing-protocol.md 12.11).
pub const MEMBERS_MAX: usize = 1_024;
/// Greatest weight of a node. With it cost times weight stays below 2^53, exact in any language.
pub const WEIGHT_MAX: u16 = 10_000;
