//! Each rule is needed: with it taken out, the walks find a broken property or invariant (routing-protocol.md 10.3).
//! Rules whose loss is rare in walks are in `scripts`.

use super::super::rules::{Rule, Rules};
use super::world::{Profile, World};
use super::{CHURN, FLIPS, LEASES, MIXED};

/// A mutation is found within so many walks; most need a few, none of them more than 110 when this was written.
const WALKS_MAX: u64 = 2_000;

fn is_found(rule: Rule, profile: Profile) {
    for seed in 0..WALKS_MAX {
        let mut world = World::new(seed, profile, Rules::without(rule));
        for step in 0..profile.steps {
            world.step();
            world.check();
            if let Some(violation) = world.truth.violation.take() {
                println!("without {rule:?}: {} walk {seed}, step {step}: {violation}", profile.name);
                return;
            }
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
    generations_are_checked: GenerationChecked in MIXED;
    coverage_is_leased: CoverLeased in FLIPS;
    lost_members_are_accounted: LostAccounted in LEASES;
    newcomers_are_accounted: NewcomersAccounted in MIXED;
    a_home_accounts_for_its_peers: HomeAccounts in FLIPS;
    silence_is_not_absence: SilenceIsNotAbsence in CHURN;
    retries_are_deduplicated: Dedupe in FLIPS;
}
