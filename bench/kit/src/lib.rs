//! What the benches share: the clock that processes have in common, and CPU time by thread.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    missing_docs,
    reason = "a bench fails by panicking; its figures are floats"
)]

pub mod clock;
pub mod cpu;
