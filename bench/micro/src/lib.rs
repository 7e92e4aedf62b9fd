//! What the micro benchmarks in `benches/` share.
