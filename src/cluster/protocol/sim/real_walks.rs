//! Walks with the shards of production in place of the models (`real`), by every kind of adversary.

use super::super::rules::{Rule, Rules};
use super::mutations::is_found as is_needed;
use super::real::Fault;
use super::world::{Profile, Shards, World};
use super::{FLIPS, MIXED, PAUSES, STRICT, nothing_is_lost};

/// Walks of each profile unless `PINION_SIM_SEEDS` says otherwise.
const WALKS: u64 = 60;
/// As [`WALKS`], of profiles with long times in them.
const LONG_WALKS: u64 = 20;
/// Within which a fault is found.
const WALKS_WITH_FAULT: u64 = 100;

const REAL: Profile = Profile { name: "real mixed", nodes: 3, steps: 120, shards: Shards::Hubs, ..MIXED };
const REAL_FLIPS: Profile =
    Profile { name: "real flips", users: 4, steps: 120, shards: Shards::Hubs, ..FLIPS };
/// Shards of processes that stop for up to a minute, nodes that hear each other in one direction only.
const REAL_PAUSES: Profile =
    Profile { name: "real pauses", nodes: 3, users: 3, steps: 120, shards: Shards::Hubs, ..PAUSES };
/// The same, with nodes that fence and others that forget them.
const REAL_STRICT: Profile =
    Profile { name: "real strict", nodes: 3, users: 3, steps: 100, shards: Shards::Hubs, ..STRICT };

#[test]
fn nothing_is_lost_with_real_hubs() {
    nothing_is_lost(REAL, WALKS, &[]);
}

#[test]
fn nothing_is_lost_with_real_hubs_when_views_flip() {
    nothing_is_lost(REAL_FLIPS, WALKS, &[]);
}

#[test]
fn nothing_is_lost_with_real_hubs_in_pauses_and_partitions() {
    nothing_is_lost(REAL_PAUSES, LONG_WALKS, &["nap", "split", "one way", "hold"]);
}

#[test]
fn nothing_is_lost_with_real_hubs_when_isolated_nodes_fence() {
    nothing_is_lost(REAL_STRICT, LONG_WALKS, &["nap", "split", "one way", "fence", "forgotten"]);
}

/// A planted fault is found within so many walks.
fn is_found(fault: Fault, profile: Profile) {
    for seed in 0..WALKS_WITH_FAULT {
        let mut world = World::new(seed, profile, Rules::default());
        for step in 0..profile.steps {
            world.plant(fault);
            world.step();
            world.check();
            if let Some(violation) = world.truth.violation.take() {
                return println!("{fault:?}: walk {seed}, step {step}: {violation}");
            }
        }
        world.plant(fault);
        world.come_to_rest();
        if let Some(violation) = world.truth.violation.take() {
            return println!("{fault:?}: walk {seed}, at rest: {violation}");
        }
    }
    panic!("{fault:?} is not found in {WALKS_WITH_FAULT} walks of {}", profile.name);
}

#[test]
fn a_shard_that_does_not_ask_is_found() {
    is_found(Fault::RegistersWithoutAsking, REAL_FLIPS);
}

#[test]
fn a_shard_that_forgets_who_has_gone_is_found() {
    is_found(Fault::ForgetsGone, REAL_FLIPS);
}

#[test]
fn a_shard_that_ends_nobody_is_found() {
    is_found(Fault::IgnoresKicks, REAL_FLIPS);
}

/// Nobody tells of those who left while the process stood still.
#[test]
fn a_shard_that_forgets_who_has_gone_is_found_in_pauses() {
    is_found(Fault::ForgetsGone, REAL_PAUSES);
}

#[test]
fn coverage_is_leased_before_real_hubs() {
    is_needed(Rule::CoverLeased, REAL_PAUSES);
}
