//! Each rule is needed: with it taken out, the walks find a broken property or invariant (routing-protocol.md 10.3).
//! Rules whose loss is rare in walks are in `scripts` and `strict`.

use super::super::rules::{Rule, Rules};
use super::host::Slip;
use super::world::{Profile, World};
use super::{CHURN, FLIPS, LEASES, LEAVES, LISTS, MIXED, PAUSES, STRICT, walk};

/// Whose profile is worth choosing.
const RARE: [Rule; 10] = [
    Rule::GenerationChecked,
    Rule::TrimAfterAck,
    Rule::GreetingPerIncarnation,
    Rule::CompleteWhileLeased,
    Rule::NoPruning,
    Rule::DrainingGreeted,
    Rule::ExactNewcomer,
    Rule::ForgetAfterClose,
    Rule::ClaimsDieWithLink,
    Rule::PromisesAcked,
];

/// A mutation is found within so many walks; most need a few, none of them more than 110 when this was written.
const WALKS_MAX: u64 = 2_000;

/// The first thing that is wrong in a walk without that rule.
fn breaks(seed: u64, profile: Profile, rule: Rule) -> Option<String> {
    let mut world = World::new(seed, profile, Rules::without(rule));
    for step in 0..profile.steps {
        world.step();
        world.check();
        if let Some(violation) = world.truth.violation.take() {
            return Some(format!("step {step}: {violation}"));
        }
    }
    None
}

pub fn is_found(rule: Rule, profile: Profile) {
    for seed in 0..WALKS_MAX {
        if let Some(violation) = breaks(seed, profile, rule) {
            return println!("without {rule:?}: {} walk {seed}, {violation}", profile.name);
        }
    }
    panic!("without {rule:?} nothing is broken in {WALKS_MAX} walks of {}", profile.name);
}

macro_rules! needed {
    ($($name:ident: $rule:ident in $profile:ident;)*) => { $(
        #[test]
        fn $name() {
            is_found(Rule::$rule, $profile);
        }
    )* };
}

needed! {
    a_login_waits_for_the_ack: AckBeforeGo in FLIPS;
    a_login_waits_for_the_void: VoidWait in FLIPS;
    a_newcomer_passes_the_barrier: JoinBarrier in MIXED;
    draining_members_are_greeted: DrainingGreeted in FLIPS;
    fingerprints_are_compared: FingerprintCompared in FLIPS;
    the_algorithm_is_in_the_fingerprint: AlgorithmInFingerprint in FLIPS;
    promised_homes_are_asked: ClaimsForPromised in FLIPS;
    promises_end_by_an_ack: PromisesAcked in FLIPS;
    the_last_declaration_replaces: LastDeclarationReplaces in FLIPS;
    shards_switch_before_the_declaration: ShardsFirst in FLIPS;
    claims_die_with_the_link: ClaimsDieWithLink in FLIPS;
    coverage_is_leased: CoverLeased in FLIPS;
    lost_members_are_accounted: LostAccounted in LEASES;
    newcomers_are_accounted: NewcomersAccounted in MIXED;
    a_home_accounts_for_its_peers: HomeAccounts in FLIPS;
    silence_is_not_absence: SilenceIsNotAbsence in CHURN;
    retries_are_deduplicated: Dedupe in FLIPS;
    placements_are_kept_until_promises_are_acked: TrimAfterAck in FLIPS;
    only_empty_records_are_forgotten: ForgetOnlyEmpty in STRICT;
    isolated_nodes_fence: FencesItself in STRICT;
    newcomers_pass_the_barrier_under_lists: JoinBarrier in LISTS;
}

/// What only shows when everything has come to rest.
#[test]
fn times_of_logins_only_grow() {
    for seed in 0..WALKS_MAX {
        if let (_, Some(violation)) = walk(seed, MIXED, Rules::without(Rule::FloorKept)) {
            return println!("without FloorKept: walk {seed}, {violation}");
        }
    }
    panic!("without FloorKept nothing is broken in {WALKS_MAX} walks");
}

/// How well each profile finds each loss, to choose by: walks of so many that do. Not a test.
#[test]
#[ignore = "measures"]
fn power() {
    let walks = super::number("PINION_SIM_SEEDS").unwrap_or(300);
    for rule in RARE {
        for profile in [MIXED, CHURN, FLIPS, LEASES, LEAVES, PAUSES, STRICT] {
            let found = (0..walks).filter(|&seed| breaks(seed, profile, rule).is_some()).count();
            println!("{rule:?} {} {found} of {walks}", profile.name);
        }
    }
}

/// A shard that answers to a placement otherwise than slice by slice.
fn slip_is_found(slip: Slip) {
    for seed in 0..WALKS_MAX {
        let mut world = World::new(seed, FLIPS, Rules::default());
        let plant = |world: &mut World| {
            world.slots.iter_mut().filter_map(|slot| slot.host.as_mut()).for_each(|host| host.slip = slip);
        };
        for step in 0..FLIPS.steps {
            plant(&mut world);
            world.step();
            world.check();
            if let Some(violation) = world.truth.violation.take() {
                return println!("{slip:?}: walk {seed}, step {step}: {violation}");
            }
        }
        plant(&mut world);
        world.come_to_rest();
        if let Some(violation) = world.truth.violation.take() {
            return println!("{slip:?}: walk {seed}, at rest: {violation}");
        }
    }
    panic!("{slip:?} is not found in {WALKS_MAX} walks");
}

#[test]
fn a_shard_that_answers_before_its_last_slice_is_found() {
    slip_is_found(Slip::AnswersEarly);
}

#[test]
fn a_shard_that_tells_ends_before_the_answer_is_found() {
    slip_is_found(Slip::TellsEndsFirst);
}
