//! One file per scenario. Each starts what it needs, warms up, measures `runs` times, and checks that gateway, clients
//! and caller agree on how many pushes there were.

pub mod fairness;
pub mod fanout;
pub mod idle;
pub mod latency;
pub mod smoke;
pub mod stream;
pub mod unary;
