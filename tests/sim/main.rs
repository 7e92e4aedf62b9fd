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
mod client;
mod frames;
mod freeze;
mod glue;
mod hub_behaviour;
mod link;
mod login_behaviour;
mod plan;
mod planted;
mod reader;
mod rig;
mod upstream;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use checker::{Property, Violation};
use pinion::hub::record::{Mode, ReplayError, replay};
use planted::Plant;
use world::{Options, Report, World};

/// Worlds of each test unless `PINION_SIM_SEEDS` says otherwise.
const SEEDS: u64 = 200;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect("a number"))
}

/// The fixed seeds and one that nobody has seen before, or the one that is asked for.
fn seeds(fixed: u64) -> Vec<u64> {
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

fn run(test: &str, seed: u64, options: Options) -> Report {
    try_run(test, seed, options)
        .unwrap_or_else(|violation| panic!("{violation}\nPINION_SIM_SEED={seed} cargo test --test sim {test}"))
}

#[test]
fn every_property_holds_in_every_world() {
    let (mut logins, mut replies, mut followed, mut kicks) = (0, 0, 0, 0);
    let all = seeds(SEEDS);
    for seed in &all {
        let report = run("every_property_holds_in_every_world", *seed, Options::default());
        logins += report.logins;
        replies += report.replies;
        followed += report.pushes_followed;
        kicks += report.kicks;
    }
    println!("{logins} logins, {replies} replies, {followed} pushes followed, {kicks} kicks in {} worlds", all.len());
    if all.len() > 50 {
        let little = logins < 1_000 || replies < 5_000 || followed < 2_000 || kicks < 100;
        assert!(!little, "the worlds are too quiet to prove anything");
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
    let frozen = Options {
        freeze: true,
        ..Options::default()
    };
    for seed in seeds(SEEDS / 5) {
        let plain = run("a_hub_that_was_written_out", seed, Options::default());
        let thawed = run("a_hub_that_was_written_out", seed, frozen);
        assert_eq!(plain, thawed, "PINION_SIM_SEED={seed} cargo test --test sim a_hub_that_was_written_out");
    }
}

/// The first violation within the seeds, and after how many it was found.
fn first_violation(plant: Plant) -> (u64, Violation) {
    let options = Options {
        plant: Some(plant),
        ..Options::default()
    };
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
fn a_planted_stale_id_is_found() {
    let found = first_violation(Plant::GenerationIgnored).1.property;
    assert_eq!(found, Property::Stranger);
}

#[test]
fn a_recording_replays_to_the_same_trace() {
    for mode in [Mode::Shape, Mode::Full] {
        let options = Options {
            record: Some(mode),
            ..Options::default()
        };
        for seed in seeds(SEEDS / 10) {
            let report = run("a_recording_replays", seed, options);
            for (trace, recording) in report.hub_traces.iter().zip(&report.recordings) {
                let replayed = replay(recording).unwrap_or_else(|e| panic!("{e}, {mode:?}, seed {seed}"));
                assert_eq!(replayed.trace_hash, *trace, "{mode:?}, seed {seed}");
                assert!(replayed.compared > 10 && !replayed.truncated, "{mode:?}, seed {seed}");
                let told = ["secret-token", "mmmmmmmm"].map(|secret| recording.contains(secret));
                assert_eq!(told, [mode == Mode::Full && told[0], mode == Mode::Full && told[1]]);
            }
        }
    }
}

#[test]
fn a_changed_recording_diverges() {
    let options = Options {
        record: Some(Mode::Shape),
        ..Options::default()
    };
    let report = run("a_changed_recording_diverges", 3, options);
    let recording = report.recordings.iter().max_by_key(|r| r.len()).expect("a shard");
    let lines: Vec<&str> = recording.lines().collect();
    let accepted = lines.iter().position(|line| line.contains("Accepted")).expect("a login");
    let changed = [&lines[..accepted], &lines[accepted + 1..]].concat().join("\n");
    assert!(matches!(replay(&changed), Err(ReplayError::Diverged { .. })));
}
