//! `pinion-bench`: a wrk for WebSockets, OpenIM and pushes. See `bench/README.md`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::let_underscore_must_use,
    clippy::cast_possible_truncation,
    missing_docs,
    unreachable_pub,
    reason = "a bench uses the real clock; its figures are floats"
)]
#![expect(dead_code, reason = "the contract of two halves that are being built")]

mod api;
mod calls;
mod crew;
mod dial;
mod machine;
mod marks;
mod news;
mod openim;
mod post;
mod processes;
mod push;
mod run;
mod script;
mod server;
mod settings;
mod tally;
mod thread;
mod timeline;
mod timer;
mod tokens;
mod websocket;

#[cfg(test)]
mod tests;

fn main() {}
