//! The micro benchmarks: `cargo bench -p pinion-bench-micro [-- FILTER]`; `cargo test -p pinion-bench-micro --benches`
//! runs each once.
//!
//! Every group says its unit: bytes or elements per second beside the time of one iteration. What a figure holds is
//! said where it is measured. No sockets, and no threads but in `mailbox`.
#![allow(missing_docs, reason = "criterion's macros write undocumented functions")]

mod handshake;
mod hub;
mod mailbox;
mod push;
mod wire;

use criterion::{criterion_group, criterion_main};

criterion_group!(
    benches,
    wire::frames,
    wire::unmask,
    wire::decode,
    wire::encode,
    handshake::handshake,
    hub::registry,
    hub::fan_out,
    mailbox::mailbox,
    push::requests,
);
criterion_main!(benches);
