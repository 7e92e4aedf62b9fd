//! Incident 1 as a permanent test: 100 accounts connect, send, read the reply, disconnect or are kicked at full speed,
//! and neither does a login wait longer than its deadline nor is anything left over. With the incident's structure
//! planted the same churn says so.
//!
//! The rounds are short, but on a slow machine as long as it takes to see enough. `PINION_CHURN_SECONDS=n` makes each
//! one that long; `--nocapture` shows the figures.

mod client;
mod crowd;
mod round;

use std::sync::Mutex;
use std::time::Duration;

use round::{Finding, Outcome, Plan, run};

const POLICIES: [u8; 4] = [0, 1, 4, 5];
/// Two full-speed rounds at once would measure each other, and disturb other tests.
static FULL_SPEED: Mutex<()> = Mutex::new(());

fn churn_for(default_ms: u64) -> Duration {
    let seconds = std::env::var("PINION_CHURN_SECONDS").ok();
    seconds.map_or(Duration::from_millis(default_ms), |s| Duration::from_secs(s.parse().expect("seconds")))
}

/// As many shards as the machine has CPUs, and two at least.
fn all_shards() -> usize {
    std::thread::available_parallelism().map_or(2, usize::from).max(2)
}

fn plan(policy: u8, shards: usize) -> Plan {
    Plan {
        policy,
        shards,
        upstream: None,
        fault: None,
        churn: churn_for(1_000),
        settle: Duration::from_secs(60),
    }
}

/// A round that must be without findings, and that did something.
fn assert_good(plan: &Plan, outcome: &Outcome) {
    assert_eq!(outcome.findings, Vec::new(), "{}", outcome.line);
    let seen = &outcome.seen;
    assert!(seen.logins >= 60 && seen.replies >= 8 && seen.left >= 6, "too quiet: {}", outcome.line);
    assert!(outcome.pushes > 0.0, "no pushes: {}", outcome.line);
    assert_eq!(outcome.kicks > 0.0, plan.policy != 0, "{}", outcome.line);
}

fn at_full_speed(shards: usize) {
    let _turn = FULL_SPEED.lock().unwrap_or_else(|held| held.into_inner());
    for policy in POLICIES {
        let plan = plan(policy, shards);
        assert_good(&plan, &run(&plan));
    }
}

/// Rounds of every policy, on one and on all shards, that mostly wait: all at once.
fn beside_each_other(upstream: &str, churn: Duration, check: impl Fn(&Outcome) + Sync) {
    let rounds = POLICIES.iter().flat_map(|policy| [plan(*policy, 1), plan(*policy, all_shards())]);
    let plans: Vec<Plan> =
        rounds.map(|plan| Plan { upstream: Some(upstream.into()), churn, ..plan }).collect();
    std::thread::scope(|scope| {
        for plan in &plans {
            let check = &check;
            scope.spawn(move || {
                let outcome = run(plan);
                assert_good(plan, &outcome);
                check(&outcome);
            });
        }
    });
}

#[test]
fn churn_on_one_shard_leaves_nothing() {
    at_full_speed(1);
}

#[test]
fn churn_on_all_shards_leaves_nothing() {
    at_full_speed(all_shards());
}

#[test]
fn churn_with_a_slow_upstream_leaves_nothing() {
    beside_each_other("slow:120", churn_for(1_500), |_| ());
}

/// Logins that meet the dead upstream are refused at their deadline. It is dead from half time on, and not at the end;
/// its time counts from the first call, so that a slow start takes nothing from it but the beginning.
#[test]
fn churn_with_an_upstream_that_dies_and_comes_back_leaves_nothing() {
    let churn = churn_for(10_500);
    let (from_ms, to_ms) = (churn.as_millis() / 2, churn.as_millis() - 500);
    beside_each_other(&format!("dead:{from_ms}-{to_ms}"), churn, |outcome| {
        assert!(outcome.seen.busy > 0, "nobody met the dead upstream: {}", outcome.line);
    });
}

/// Two shards: the watcher takes the frozen one out of the accept group, and what the other one accepts for it hangs.
#[test]
fn the_incident_planted_is_found_as_a_freeze_and_the_queues_are_named() {
    let settle = Duration::from_secs(1);
    let churn = Duration::from_millis(2_500);
    let outcome = run(&Plan { fault: Some("incident-1"), settle, churn, ..plan(1, 2) });
    let freezes: Vec<&String> = outcome
        .findings
        .iter()
        .filter_map(|finding| if let Finding::Freeze(text) = finding { Some(text) } else { None })
        .collect();
    println!("found: {freezes:#?}");
    let told = |part: &str| freezes.iter().any(|text| text.contains(part));
    assert!(outcome.seen.hung_logins > 0 && told("logins waited longer than their deadline"), "{freezes:?}");
    for part in ["shard 0 has not turned for", "queues: register ", " unregister 4 (oldest ", " kick "] {
        assert!(told(part), "no {part:?} in {freezes:?}");
    }
}

#[test]
fn the_half_cure_planted_is_found_as_a_zombie() {
    // The read deadline of 30 s would bury the zombie: it must be found before.
    let settle = Duration::from_secs(3);
    let swapped =
        Plan { fault: Some("swapped-queues"), upstream: Some("slow:60".into()), settle, ..plan(0, 1) };
    let outcome = run(&swapped);
    println!("found: {:#?}", outcome.findings);
    assert!(outcome.findings.iter().any(|f| matches!(f, Finding::Zombie(_))), "{:?}", outcome.findings);
    assert!(!outcome.findings.iter().any(|f| matches!(f, Finding::Freeze(_))), "{:?}", outcome.findings);
}
