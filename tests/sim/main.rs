//! The deterministic simulator of one node (architecture.md section 9): the very hubs and router of production, fed
//! from a seed in virtual time, and a checker that looks at everything that passes.
//!
//! A failing seed prints the line that replays it. `PINION_SIM_SEED=n` runs that seed alone, `PINION_SIM_SEEDS=n` runs
//! more of them. It does not cover completions, kernel buffers and memory ordering: see `tests/it` and loom.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::let_underscore_must_use,
    clippy::cast_possible_truncation,
    clippy::too_many_lines,
    unreachable_pub,
    missing_docs,
    reason = "a test fails by panicking and uses the real clock"
)]

mod caller;
mod checker;
mod churn;
mod claims_behaviour;
mod client;
mod connection_behaviour;
mod drain_behaviour;
mod envelope_behaviour;
mod frames;
mod freeze;
mod glue;
mod hub_behaviour;
mod invariants;
mod link;
mod login_behaviour;
mod plan;
mod planted;
mod policy_behaviour;
mod presence_behaviour;
mod push_behaviour;
mod push_together;
mod pushes;
mod reader;
mod recording;
mod request_behaviour;
mod rig;
mod rivals_behaviour;
mod sight_behaviour;
mod slow_behaviour;
mod two_users;
mod upstream;
mod world;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use checker::{Property, Violation};
use planted::Plant;
use world::{Options, Report, World};

/// Worlds of each test unless `PINION_SIM_SEEDS` says otherwise.
pub const SEEDS: u64 = 200;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect("a number"))
}

/// The fixed seeds and one that nobody has seen before, or the one that is asked for.
pub fn seeds(fixed: u64) -> Vec<u64> {
    if let Some(seed) = number("PINION_SIM_SEED") {
        return vec![seed];
    }
    let fresh = fastrand::u64(..) >> 16;
    println!("fresh seed: {fresh}");
    (0..number("PINION_SIM_SEEDS").unwrap_or(fixed)).chain([fresh]).collect()
}

/// Runs one world; a panic inside prints the way back to it.
fn try_run(test: &str, seed: u64, options: Options) -> Result<Report, Violation> {
    catch_unwind(AssertUnwindSafe(|| World::new(seed, options).run())).unwrap_or_else(|panic| {
        eprintln!("PINION_SIM_SEED={seed} cargo test --test sim {test}");
        resume_unwind(panic)
    })
}

pub fn run(test: &str, seed: u64, options: Options) -> Report {
    try_run(test, seed, options).unwrap_or_else(|violation| {
        panic!("{violation}\nPINION_SIM_SEED={seed} cargo test --test sim {test}")
    })
}

#[test]
fn every_property_holds_in_every_world() {
    let mut sights: BTreeMap<&str, u64> = BTreeMap::new();
    let all = seeds(SEEDS);
    for seed in &all {
        let report = run("every_property_holds_in_every_world", *seed, Options::default());
        for (what, count) in report.sights {
            *sights.entry(what).or_default() += count;
        }
    }
    println!("{} worlds: {sights:?}", all.len());
    if all.len() as u64 >= SEEDS {
        let unseen: Vec<_> = sights.iter().filter(|(_, count)| **count == 0).collect();
        assert!(unseen.is_empty(), "the worlds are too quiet to prove anything: {unseen:?}");
        for (what, least) in
            [("logins", 1_000), ("replies", 8_000), ("pushes followed", 3_000), ("kicks", 500)]
        {
            assert!(sights[what] >= least, "only {} {what}", sights[what]);
        }
    }
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    for seed in seeds(SEEDS / 5) {
        let (first, second) = (
            run("the_same_seed_gives_the_same_trace", seed, Options::default()),
            run("the_same_seed_gives_the_same_trace", seed, Options::default()),
        );
        assert_eq!(first, second, "PINION_SIM_SEED={seed} cargo test --test sim the_same_seed");
    }
}

#[test]
fn a_hub_that_was_written_out_and_read_back_goes_on_the_same() {
    let frozen = Options { freeze: true, ..Options::default() };
    for seed in seeds(SEEDS / 5) {
        let plain = run("a_hub_that_was_written_out", seed, Options::default());
        let thawed = run("a_hub_that_was_written_out", seed, frozen);
        // Not the counters: they are not part of a hub's state.
        let told = |report: Report| (report.trace, report.hub_traces);
        assert_eq!(
            told(plain),
            told(thawed),
            "PINION_SIM_SEED={seed} cargo test --test sim a_hub_that_was_written_out"
        );
    }
}

/// The first violation within the seeds, and after how many it was found.
fn first_violation(plant: Plant) -> (u64, Violation) {
    first_violation_in(Options { plant: Some(plant), ..Options::default() })
}

/// As [`first_violation`], in other worlds.
pub fn first_violation_in(options: Options) -> (u64, Violation) {
    let plant = options.plant.expect("a fault to be found");
    let found = (0..60).find_map(|seed| Some((seed, try_run("planted", seed, options).err()?)));
    let (seed, violation) = found.unwrap_or_else(|| panic!("{plant:?} was not found in 60 seeds"));
    println!("{plant:?} found with seed {seed}: {violation}");
    (seed, violation)
}

#[test]
fn a_planted_unregister_before_register_is_found() {
    assert_eq!(first_violation(Plant::UnregisterFirst).1.property, Property::Zombie);
}

#[test]
fn a_planted_verdict_without_write_is_found() {
    assert_eq!(first_violation(Plant::FrameLost).1.property, Property::Push);
    assert_eq!(first_violation(Plant::VerdictFlipped).1.property, Property::Push);
}

#[test]
fn a_planted_written_before_the_write_is_found() {
    assert_eq!(first_violation(Plant::WrittenEarly).1.property, Property::Push);
}

#[test]
fn a_planted_leak_of_a_connection_is_found() {
    assert_eq!(first_violation(Plant::CloseForgotten).1.property, Property::Counts);
}

#[test]
fn a_planted_stale_id_is_found() {
    let found = first_violation(Plant::GenerationIgnored).1.property;
    assert_eq!(found, Property::Stranger);
}
