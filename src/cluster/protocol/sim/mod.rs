//! The simulator of several nodes: the routers of production on models of shards, wire, clocks and source, in virtual
//! time, under an adversary (routing-protocol.md section 13). Property P is judged at each verdict, the invariants of
//! section 8 after each step, quiet cost and the directory at rest.
//!
//! A failing seed is named with its profile. `PINION_SIM_SEED=n` runs that seed alone, `PINION_SIM_SEEDS=n` so many.
#![allow(
    unreachable_pub,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod check;
mod edges;
mod host;
mod logins;
mod mutations;
mod quiet;
mod real;
mod scripts;
mod source;
mod truth;
mod wire;
mod world;

use super::rules::Rules;
use world::{Profile, Shards, World};

/// Walks of each profile unless `PINION_SIM_SEEDS` says otherwise.
const SEEDS: u64 = 60;

// Weights: frame shard router notice view dial time login close push break crash start cut lose flip leave.
const MIXED: Profile = Profile {
    name: "mixed",
    nodes: 5,
    users: 2,
    steps: 300,
    long_jumps: 6,
    shards: Shards::Model,
    weights: [40, 14, 18, 4, 7, 6, 10, 5, 1, 6, 2, 1, 2, 1, 1, 1, 1],
};
const CHURN: Profile = Profile {
    name: "churn",
    nodes: 3,
    users: 2,
    steps: 300,
    long_jumps: 6,
    shards: Shards::Model,
    weights: [40, 14, 18, 4, 8, 7, 12, 5, 1, 6, 1, 2, 3, 2, 3, 1, 1],
};
const FLIPS: Profile = Profile {
    name: "flips",
    nodes: 3,
    users: 2,
    steps: 300,
    long_jumps: 6,
    shards: Shards::Model,
    weights: [40, 14, 18, 4, 8, 6, 8, 5, 1, 6, 2, 0, 1, 0, 0, 5, 0],
};

/// Leases end and come back; time runs.
const LEASES: Profile = Profile {
    name: "leases",
    nodes: 3,
    users: 1,
    steps: 500,
    long_jumps: 10,
    shards: Shards::Model,
    weights: [45, 14, 18, 4, 10, 9, 12, 4, 1, 6, 1, 2, 4, 2, 4, 0, 0],
};

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect("a number"))
}

fn seeds(fixed: u64) -> Vec<u64> {
    match number("PINION_SIM_SEED") {
        Some(seed) => vec![seed],
        None => (0..number("PINION_SIM_SEEDS").unwrap_or(fixed)).collect(),
    }
}

/// One walk. Returns what went wrong.
fn walk(seed: u64, profile: Profile, rules: Rules) -> (World, Option<String>) {
    let mut world = World::new(seed, profile, rules);
    for step in 0..profile.steps {
        world.step();
        world.check();
        if let Some(violation) = world.truth.violation.take() {
            return (world, Some(format!("step {step}: {violation}")));
        }
    }
    world.come_to_rest();
    let violation = world.truth.violation.take();
    (world, violation.map(|violation| format!("at rest: {violation}")))
}

fn nothing_is_lost(profile: Profile) {
    let (mut verdicts, mut complete) = (0, 0);
    for seed in seeds(SEEDS) {
        let (world, violation) = walk(seed, profile, Rules::default());
        assert_eq!(violation, None, "profile {}, PINION_SIM_SEED={seed}", profile.name);
        verdicts += world.truth.verdicts;
        complete += world.truth.complete;
    }
    println!("{}: {complete} of {verdicts} verdicts complete", profile.name);
}

#[test]
fn nothing_is_lost_in_mixed_walks() {
    nothing_is_lost(MIXED);
}

#[test]
fn nothing_is_lost_under_membership_churn() {
    nothing_is_lost(CHURN);
}

#[test]
fn nothing_is_lost_when_views_flip() {
    nothing_is_lost(FLIPS);
}

#[test]
fn nothing_is_lost_when_leases_end() {
    nothing_is_lost(LEASES);
}
