//! Who answers the hubs' questions: `embedded`, in this process, or `openim`, OpenIM's services. Neither knows the
//! other; both read OpenIM's tokens (`token`).
#![deny(clippy::indexing_slicing, clippy::iter_over_hash_type, clippy::expect_used)]

pub mod embedded;
pub mod openim;
pub mod token;
