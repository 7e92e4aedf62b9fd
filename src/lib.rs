//! Pinion: a long-connection gateway for OpenIM on io_uring, one thread per core, nothing shared between cores.
//!
//! The map of the code is ARCHITECTURE.md. Arrows between modules point down only (`tests/it/tidy.rs`):
//! `main, cli, node -> rpc -> shard -> control -> config, admission -> cluster, backend -> hub -> session -> wire ->
//! placement -> arena, limits, ids, metrics, random, time, pb`.

pub mod arena;
pub mod backend;
pub mod cluster;
pub mod hub;
pub mod ids;
pub mod limits;
pub mod metrics;
pub mod pb;
pub mod placement;
pub mod random;
pub mod session;
pub mod time;
pub mod wire;

#[cfg(feature = "gateway")]
pub mod admission;
#[cfg(feature = "gateway")]
pub mod cli;
#[cfg(feature = "gateway")]
pub mod config;
#[cfg(feature = "gateway")]
pub mod control;
#[cfg(feature = "gateway")]
pub mod node;
#[cfg(feature = "gateway")]
pub mod rpc;
#[cfg(feature = "gateway")]
pub mod shard;
