//! The heartbeat of a thread, and what it was doing.

/// Stamped by a shard each turn, read by the watcher.
#[derive(Debug, Default)]
pub struct Pulse {}
