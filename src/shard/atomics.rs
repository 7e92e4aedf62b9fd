//! The atomics that `doorbell.rs` is written against: those of the standard library.
//!
//! `tests/loom` compiles the very same `doorbell.rs` beside a module of this name that re-exports loom's atomics, so
//! what is model-checked is what runs, and no `--cfg` is needed.

pub(super) use std::sync::atomic::{AtomicBool, Ordering, fence};
