//! Build facts, recorded by `build.rs`.

/// The short form, for the banner.
pub(super) const SHORT: &str = concat!(env!("CARGO_PKG_VERSION"), " (", env!("PINION_COMMIT"), ")");

/// What `pinion --version` prints after the name.
pub(super) const LONG: &str = concat!(
    env!("CARGO_PKG_VERSION"),
    "\ncommit:  ",
    env!("PINION_COMMIT"),
    "\nprofile: ",
    env!("PINION_PROFILE"),
    "\ntarget:  ",
    env!("PINION_TARGET"),
    "\nrustc:   ",
    env!("PINION_RUSTC"),
);
