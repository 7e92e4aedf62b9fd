//! The simulator of several nodes: the routers of production on models of shards, wire, clocks and source, in virtual
//! time, under an adversary (routing-protocol.md section 13). Property P is judged at each verdict, the invariants of
//! section 8 after each step, quiet cost and the directory at rest.
//!
//! A failing seed is named with its profile. `PINION_SIM_SEED=n` runs that seed alone, `PINION_SIM_SEEDS=n` so many
//! from `PINION_SIM_FIRST` on.
#![allow(
    unreachable_pub,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod check;
mod edges;
mod faults;
mod host;
mod lists;
mod logins;
mod mutations;
mod quiet;
mod real;
mod real_walks;
mod reroute;
mod scripts;
#[cfg(feature = "gateway")] // for the clock of its thread
mod settle;
mod source;
mod strict;
mod times;
mod truth;
mod wire;
mod world;

use std::collections::BTreeMap;

use super::Fence;
use super::io::Count;
use super::rules::Rules;
use world::{Members, Profile, Shards, World};

/// Walks of each profile unless `PINION_SIM_SEEDS` says otherwise.
const SEEDS: u64 = 400;
/// As [`SEEDS`], of profiles with long times in them.
const LONG_SEEDS: u64 = 60;

// Weights: frame shard router notice view dial time login close push break crash start cut lose flip leave nap split
// hold.
const MIXED: Profile = Profile {
    name: "mixed",
    nodes: 5,
    users: 2,
    steps: 300,
    long_jumps: 6,
    shards: Shards::Model,
    members: Members::Source,
    fence: Fence::Report,
    weights: [40, 14, 18, 4, 7, 6, 10, 5, 1, 6, 2, 1, 2, 1, 1, 1, 1, 0, 0, 0],
};
const CHURN: Profile = Profile {
    name: "churn",
    nodes: 3,
    weights: [40, 14, 18, 4, 8, 7, 12, 5, 1, 6, 1, 2, 3, 2, 3, 1, 1, 0, 0, 0],
    ..MIXED
};
const FLIPS: Profile = Profile {
    name: "flips",
    nodes: 3,
    weights: [40, 14, 18, 4, 8, 6, 8, 5, 1, 6, 2, 0, 1, 0, 0, 5, 0, 0, 0, 0],
    ..MIXED
};
/// Leases end and come back; time runs.
const LEASES: Profile = Profile {
    name: "leases",
    nodes: 3,
    users: 1,
    steps: 500,
    long_jumps: 10,
    weights: [45, 14, 18, 4, 10, 9, 12, 4, 1, 6, 1, 2, 4, 2, 4, 0, 0, 0, 0, 0],
    ..MIXED
};
/// Nodes drain, are emptied, say goodbye, and come back.
const LEAVES: Profile = Profile {
    name: "leaves",
    nodes: 4,
    weights: [40, 14, 18, 4, 9, 7, 9, 5, 1, 6, 2, 1, 5, 1, 2, 0, 14, 0, 0, 0],
    ..MIXED
};
/// Processes stop for up to a minute, links stand still in one direction or both.
const PAUSES: Profile = Profile {
    name: "pauses",
    nodes: 4,
    steps: 200,
    weights: [40, 14, 18, 4, 8, 7, 10, 5, 1, 6, 1, 1, 3, 1, 2, 1, 1, 2, 2, 2],
    ..MIXED
};
/// The same, with nodes that fence and others that forget them.
const STRICT: Profile = Profile {
    name: "strict",
    nodes: 4,
    steps: 150,
    fence: Fence::Strict,
    weights: [40, 14, 18, 4, 8, 7, 10, 5, 1, 6, 1, 1, 4, 2, 2, 1, 1, 2, 3, 4],
    ..MIXED
};
/// Each node has a list of its own, edited and reloaded while nodes come and go.
const LISTS: Profile = Profile {
    name: "lists",
    nodes: 4,
    members: Members::Lists,
    weights: [40, 14, 18, 4, 9, 8, 12, 5, 1, 6, 2, 2, 5, 0, 0, 6, 2, 0, 0, 0],
    ..MIXED
};

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect("a number"))
}

/// `PINION_SIM_FIRST`: where to begin.
fn seeds(fixed: u64) -> Vec<u64> {
    let first = number("PINION_SIM_FIRST").unwrap_or(0);
    match number("PINION_SIM_SEED") {
        Some(seed) => vec![seed],
        None => (first..first + number("PINION_SIM_SEEDS").unwrap_or(fixed)).collect(),
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

/// Walks; `deeds` must happen in them, or they show nothing.
fn nothing_is_lost(profile: Profile, walks: u64, deeds: &[&str]) {
    let (mut verdicts, mut complete) = (0, 0);
    let mut done: BTreeMap<&str, u64> = BTreeMap::new();
    let seeds = seeds(walks);
    for seed in seeds.iter().copied() {
        let (world, violation) = walk(seed, profile, Rules::default());
        assert_eq!(violation, None, "profile {}, PINION_SIM_SEED={seed}", profile.name);
        verdicts += world.truth.verdicts;
        complete += world.truth.complete;
        world.deeds.iter().for_each(|(deed, n)| *done.entry(deed).or_default() += n);
        let again = world.counts.get(&Count::PushAgain).copied().unwrap_or(0);
        *done.entry("routed again").or_default() += again;
        *done.entry("goodbye lost").or_default() += world.wire.goodbyes_lost;
    }
    println!("{}: {} walks, {complete} of {verdicts} verdicts complete, {done:?}", profile.name, seeds.len());
    for deed in deeds.iter().filter(|_| seeds.len() as u64 >= walks) {
        assert!(done.get(deed).is_some_and(|n| *n > 0), "{}: no {deed} in {done:?}", profile.name);
    }
}

#[test]
fn nothing_is_lost_in_mixed_walks() {
    nothing_is_lost(MIXED, SEEDS, &["routed again"]);
}

#[test]
fn nothing_is_lost_under_membership_churn() {
    nothing_is_lost(CHURN, SEEDS, &[]);
}

#[test]
fn nothing_is_lost_when_views_flip() {
    nothing_is_lost(FLIPS, SEEDS, &["routed again"]);
}

#[test]
fn nothing_is_lost_when_leases_end() {
    nothing_is_lost(LEASES, SEEDS, &[]);
}

#[test]
fn nothing_is_lost_when_nodes_leave() {
    nothing_is_lost(LEAVES, SEEDS, &["goodbye", "goodbye lost", "goodbye without deletion"]);
}

#[test]
fn nothing_is_lost_under_lists_of_each_node() {
    let deeds = ["edit", "reload", "taken off", "uncounted", "goodbye", "goodbye lost"];
    nothing_is_lost(LISTS, SEEDS / 4 * 3, &deeds);
}

#[test]
fn nothing_is_lost_in_pauses_and_partitions() {
    nothing_is_lost(PAUSES, LONG_SEEDS, &["nap", "split", "hold"]);
}

#[test]
fn nothing_is_lost_when_isolated_nodes_fence() {
    nothing_is_lost(STRICT, LONG_SEEDS, &["nap", "split", "fence", "forgotten"]);
}
