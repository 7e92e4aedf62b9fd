//! Where a user is, and the gather of a push. Pure.
#![deny(clippy::indexing_slicing, clippy::iter_over_hash_type, clippy::expect_used)]
