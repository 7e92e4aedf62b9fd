//! The bound of un-coalesced fan-out: one `send` per connection and frame.
fn main() {}
