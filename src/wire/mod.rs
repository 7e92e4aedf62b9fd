//! Bytes to values and back: nothing here knows a session, a socket or a clock.
//!
//! `upgrade` reads the HTTP head and writes the 101; `proxy` reads the PROXY header before it;
//! `frame` and `mask` know RFC 6455 frames; `message` joins fragments and cuts the byte stream anywhere; `envelope`
//! knows OpenIM's requests and replies (`gob`, `json`, `gzip`); `text` the JSON heartbeats; `gojson` where Go's JSON
//! differs from serde's; `compat` names the versions of OpenIM; `grpc` the length prefix and OpenIM's status values;
//! `h2` where HTTP/2 frames begin.
//! No function panics on any input (fuzzed).
#![deny(clippy::indexing_slicing, clippy::iter_over_hash_type, clippy::expect_used)]

pub mod compat;
pub mod envelope;
pub mod frame;
pub(crate) mod gojson;
pub mod grpc;
pub mod h2;
pub mod mask;
pub mod message;
pub mod proxy;
pub mod text;
pub mod upgrade;
