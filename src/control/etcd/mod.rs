//! OpenIM's registry (spec 11.1): where its services are, and that this node is one of them.
//!
//! `link` is one connection and the calls over it, `value` the form of keys and values, `watch` follows the services,
//! `registration` keeps the own keys alive. The two tasks have a connection each, so that neither failure is the
//! other's. What always holds: any fault ends the connection, and the next one reads the whole state anew: nothing is
//! resumed, so a compacted history or a restored store needs no case of its own.

pub(super) mod link;
pub(super) mod registration;
pub(super) mod value;
pub(super) mod watch;
