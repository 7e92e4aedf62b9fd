//! One connection's protocol life: pure, no sockets, no clock.
#![deny(clippy::indexing_slicing, clippy::iter_over_hash_type, clippy::expect_used)]

pub mod handshake;
