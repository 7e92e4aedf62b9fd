//! Where a user is, and the gather of a push. Pure.
//!
//! `request` and `batch` read what a caller asks for (`fields` walks protobuf), `router` splits a request by owner and
//! gathers the answers (`parts` those of a push that come one by one), `protocol` finds a user on other nodes.
//! `acceptor` decides whether a view may be acted on at once, `members` reads a list of members, `compare` says how
//! differently two lists route, `assign` which nodes a client is told to dial.
//! `endpoints` is what is believed of OpenIM's services. No I/O is here; `rpc` posts the mail that the router hands
//! out.
#![deny(clippy::indexing_slicing, clippy::iter_over_hash_type, clippy::expect_used)]

pub mod acceptor;
pub mod adoption;
pub mod assign;
pub mod batch;
pub mod compare;
pub mod endpoints;
pub mod fields;
pub mod members;
mod parts;
pub mod protocol;
pub mod request;
pub mod router;
