//! Hubs are written out and read back at random moments. Its random numbers are its own: a world with freezes makes
//! the same choices as without.

use pinion::hub::Hub;

use crate::world::World;

/// Decides when.
#[derive(Debug)]
pub struct Freezer {
    rng: fastrand::Rng,
    /// How often it has happened.
    pub times: u64,
}

/// One moment in so many is a freeze.
const EVERY: u32 = 40;

impl Freezer {
    /// For the world of a seed.
    pub fn new(seed: u64) -> Self {
        Self { rng: fastrand::Rng::with_seed(seed ^ 0xf2ee_2e00), times: 0 }
    }
}

/// Writes a hub out and reads it back.
pub fn thaw(hub: &Hub) -> Hub {
    let written = serde_json::to_vec(hub).expect("a hub is plain data");
    let mut hub: Hub = serde_json::from_slice(&written).expect("what was written can be read");
    hub.rebuild();
    hub
}

impl World {
    /// Perhaps freezes and thaws a shard's hub.
    pub fn maybe_freeze(&mut self, shard: usize) {
        let Some(freezer) = &mut self.freezer else { return };
        if freezer.rng.u32(0..EVERY) == 0 {
            freezer.times += 1;
            let hub = &mut self.shards[shard].hub;
            *hub = thaw(hub);
        }
    }
}
