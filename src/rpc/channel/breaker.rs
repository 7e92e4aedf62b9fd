//! When an instance that answers nobody gets no calls, and when it is tried again. Pure.
//!
//! What always holds: a success of any call closes the breaker; while it is open nobody passes; after the cool-down
//! one call passes at a time, the probe.

use crate::time::Mono;

/// The breaker of one instance.
#[derive(Debug, Default)]
pub(super) struct Breaker {
    /// In a row.
    failures: u32,
    state: State,
}

#[derive(Debug, Default)]
enum State {
    #[default]
    Closed,
    /// Until then nobody passes, then the next one is the probe.
    Open(Mono),
    /// The probe has no outcome yet.
    Probing,
}

/// As what a call passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// One of many.
    Plain,
    /// The one that decides.
    Probe,
}

/// What a call says about its instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It answers, with whatever status.
    Answered,
    /// It does not.
    Failed,
    /// Nothing: it refused the call, or the caller gave up.
    Neutral,
}

impl Breaker {
    /// Whether a call may pass.
    pub(super) fn admits(&self, now: Mono) -> bool {
        match self.state {
            State::Closed => true,
            State::Open(until) => now >= until,
            State::Probing => false,
        }
    }

    /// A call that was admitted passes.
    pub(super) fn pass(&mut self) -> Role {
        if !matches!(self.state, State::Open(_)) {
            return Role::Plain;
        }
        self.state = State::Probing;
        Role::Probe
    }

    /// A call is over. Whether the breaker opens with it.
    pub(super) fn note(&mut self, now: Mono, role: Role, outcome: Outcome, rule: Rule) -> bool {
        match (outcome, &self.state) {
            (Outcome::Answered, _) => *self = Self::default(),
            (Outcome::Failed, State::Closed) => {
                self.failures += 1;
                if self.failures >= rule.failures_max {
                    self.state = State::Open(now.plus_ms(rule.cool_down_ms));
                    return true;
                }
            }
            (Outcome::Failed, State::Probing) if role == Role::Probe => {
                self.state = State::Open(now.plus_ms(rule.cool_down_ms));
                return true;
            }
            (Outcome::Neutral, State::Probing) if role == Role::Probe => self.state = State::Open(now),
            // Calls from before it opened.
            (Outcome::Failed | Outcome::Neutral, _) => {}
        }
        false
    }
}

/// When it opens, and for how long.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rule {
    pub(super) failures_max: u32,
    pub(super) cool_down_ms: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULE: Rule = Rule { failures_max: 3, cool_down_ms: 100 };
    const START: Mono = Mono(1_000);

    fn open() -> Breaker {
        let mut breaker = Breaker::default();
        let opened = [(); 3].map(|()| breaker.note(START, Role::Plain, Outcome::Failed, RULE));
        assert_eq!(opened, [false, false, true]);
        breaker
    }

    #[test]
    fn it_opens_at_the_last_failure_in_a_row_and_an_answer_begins_the_row_anew() {
        let mut breaker = Breaker::default();
        for outcome in [Outcome::Failed, Outcome::Failed, Outcome::Answered, Outcome::Failed, Outcome::Failed]
        {
            assert!(!breaker.note(START, Role::Plain, outcome, RULE) && breaker.admits(START));
        }
        assert!(!breaker.note(START, Role::Plain, Outcome::Neutral, RULE), "says nothing");
        assert!(breaker.note(START, Role::Plain, Outcome::Failed, RULE));
        assert!(!breaker.admits(START));
    }

    #[test]
    fn after_the_cool_down_one_call_at_a_time_is_the_probe_and_decides() {
        // The probe's outcome, and whether calls pass right after it.
        for (outcome, opens, admits) in [
            (Outcome::Answered, false, true),
            (Outcome::Failed, true, false),
            (Outcome::Neutral, false, true),
        ] {
            let mut breaker = open();
            assert!(!breaker.admits(START.plus_ms(99)));
            let then = START.plus_ms(100);
            assert!(breaker.admits(then) && breaker.pass() == Role::Probe);
            assert!(!breaker.admits(then.plus_ms(1_000)), "one at a time");
            assert_eq!(breaker.note(then, Role::Probe, outcome, RULE), opens, "{outcome:?}");
            assert_eq!(breaker.admits(then), admits, "{outcome:?}");
            assert!(breaker.admits(then.plus_ms(100)));
            let next = if outcome == Outcome::Answered { Role::Plain } else { Role::Probe };
            assert_eq!(breaker.pass(), next, "{outcome:?}");
        }
    }

    #[test]
    fn calls_from_before_neither_open_it_again_nor_pass_for_the_probe_but_an_answer_closes_it() {
        let mut breaker = open();
        assert!(!breaker.note(START.plus_ms(50), Role::Plain, Outcome::Failed, RULE), "is open");
        assert!(breaker.admits(START.plus_ms(100)), "the cool-down is no longer for it");
        assert_eq!(breaker.pass(), Role::Probe);
        for outcome in [Outcome::Failed, Outcome::Neutral] {
            assert!(!breaker.note(START.plus_ms(100), Role::Plain, outcome, RULE));
            assert!(!breaker.admits(START.plus_ms(500)), "{outcome:?}: the probe is still out");
        }
        breaker.note(START.plus_ms(100), Role::Plain, Outcome::Answered, RULE);
        assert!(breaker.admits(START.plus_ms(100)) && breaker.pass() == Role::Plain);
    }
}
