//! Incident 1 in the simulator: worlds of churn ([`crate::plan::Plan::churn`]) in which every property must hold, and
//! the incident's structure and its half cure planted into them, which must be found.

use std::collections::BTreeMap;

use crate::checker::Property;
use crate::planted::Plant;
use crate::world::Options;
use crate::{first_violation_in, run, seeds};

/// Worlds unless `PINION_SIM_SEEDS` says otherwise.
const WORLDS: u64 = 150;

fn churn(plant: Option<Plant>) -> Options {
    Options { churn: true, plant, ..Options::default() }
}

#[test]
fn churn_freezes_nothing_and_leaves_nothing_in_any_world() {
    let mut sights: BTreeMap<&str, u64> = BTreeMap::new();
    let all = seeds(WORLDS);
    for seed in &all {
        let report = run("churn_freezes_nothing", *seed, churn(None));
        for (what, count) in report.sights {
            *sights.entry(what).or_default() += count;
        }
    }
    println!("{} worlds of churn: {sights:?}", all.len());
    if all.len() as u64 >= WORLDS {
        for (what, least) in [
            ("logins", 2_000),
            ("kicks", 300),
            ("replies", 1_000),
            ("half-open peers", 200),
            ("calls lost", 200),
            ("lane overflows", 20),
            ("hand-over overflows", 20),
            ("CloseSilent", 10),
            ("CloseLogin", 50),
            ("HandshakeGone", 100),
        ] {
            assert!(sights.get(what).is_some_and(|n| *n >= least), "too few {what}: {:?}", sights.get(what));
        }
    }
}

#[test]
fn the_incident_planted_is_found_as_a_freeze_and_the_queues_are_named() {
    let (_, violation) = first_violation_in(churn(Some(Plant::Incident1)));
    assert_eq!(violation.property, Property::Freeze, "{violation}");
    for part in ["queues: register ", "unregister 3 (oldest ", "kick ", "logins wait"] {
        assert!(violation.text.contains(part), "no {part:?} in {violation}");
    }
}

#[test]
fn the_half_cure_planted_is_found_as_a_zombie() {
    let (_, violation) = first_violation_in(churn(Some(Plant::UnregisterFirst)));
    assert_eq!(violation.property, Property::Zombie, "{violation}");
}
