//! Who answers the hubs' questions: embedded (here), OpenIM's services (a later issue).
#![deny(clippy::indexing_slicing, clippy::iter_over_hash_type, clippy::expect_used)]

pub mod embedded;
