//! A tonic client against the real gateway: the gRPC stack that a Rust backend would use, on hyper.
//!
//! The gateway's own gRPC is on h2 because `tonic::Status` cannot carry OpenIM's codes (spec 6.4, "Rust note"); these
//! tests show what a tonic caller sees of them. The binary is named by `GATEWAY_BIN`.
//!
//! Run: `cargo build && GATEWAY_BIN=target/debug/pinion cargo test -p pinion-tonic`. CI picks them by the name of the
//! module.
#![cfg(test)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    unreachable_pub,
    missing_docs,
    reason = "a test fails by panicking and uses the real clock"
)]

mod tonic {
    mod api;
    mod calls;
    mod gateway;
    mod limits;
    mod pb;
    mod streams;
}
