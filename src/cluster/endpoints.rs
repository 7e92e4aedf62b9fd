//! Where a service of OpenIM can be reached, and what of a registry's answers is believed.
//!
//! Pure: who asks the registry (etcd, a list) is in `control`, who dials in `rpc`. An observation is always the whole
//! set, never a difference: a lost or doubled one does no harm. What always holds: a set that had members becomes empty
//! only after enough empty observations over enough time. A registry that was restored from nothing, or that answers
//! for another root, says "nobody" just as the end of all instances does, and to go on calling the last known
//! addresses costs no more than failed calls. A set that lost half of its members at once is believed and pointed out.

use std::net::SocketAddr;

use crate::time::Mono;

/// The instances of a service, as one immutable version.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Endpoints {
    /// Grows by one with each change that was believed; 0: nothing was ever observed.
    pub version: u64,
    /// In order, each once.
    pub addresses: Vec<SocketAddr>,
}

/// When an empty set is believed after one with members.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Confirmation {
    /// Empty observations in a row, the first included.
    pub observations: u32,
    /// Milliseconds from the first of them to the last, at least.
    pub over_ms: u64,
}

/// What an observation did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Observation {
    /// It is what was believed.
    Unchanged,
    /// There is a new version.
    Changed,
    /// There is a new version, and it has half of the members or fewer: worth a warning.
    Halved,
    /// It is empty and not believed yet: ask again.
    Held,
}

/// What is believed of one service.
#[derive(Clone, Debug)]
pub struct Believed {
    endpoints: Endpoints,
    confirmation: Confirmation,
    /// When the registry last answered, whatever it said.
    observed: Option<Mono>,
    doubt: Option<Doubt>,
}

/// Suspicious observations in a row.
#[derive(Clone, Copy, Debug)]
pub(super) struct Doubt {
    since: Mono,
    observations: u32,
}

impl Confirmation {
    /// Counts a suspicious observation; whether it was the last that was needed.
    pub(super) fn confirms(self, doubt: &mut Option<Doubt>, now: Mono) -> bool {
        let doubt = doubt.get_or_insert(Doubt { since: now, observations: 0 });
        doubt.observations = doubt.observations.saturating_add(1);
        doubt.observations >= self.observations && now.since_ms(doubt.since) >= self.over_ms
    }
}

impl Believed {
    /// Nothing observed yet.
    pub fn new(confirmation: Confirmation) -> Self {
        Self { endpoints: Endpoints::default(), confirmation, observed: None, doubt: None }
    }

    /// What to use now.
    pub fn endpoints(&self) -> &Endpoints {
        &self.endpoints
    }

    /// Whether an empty set waits for confirmation: observe again.
    pub fn is_in_doubt(&self) -> bool {
        self.doubt.is_some()
    }

    /// Milliseconds since the registry last answered; `None`: it never did.
    pub fn age_ms(&self, now: Mono) -> Option<u64> {
        self.observed.map(|at| now.since_ms(at))
    }

    /// Takes the whole set as the registry has it now, in any order.
    pub fn observe(&mut self, now: Mono, mut addresses: Vec<SocketAddr>) -> Observation {
        self.observed = Some(now);
        addresses.sort_unstable();
        addresses.dedup();
        if addresses.is_empty()
            && !self.endpoints.addresses.is_empty()
            && !self.confirmation.confirms(&mut self.doubt, now)
        {
            return Observation::Held;
        }
        self.doubt = None;
        if self.endpoints.version > 0 && addresses == self.endpoints.addresses {
            return Observation::Unchanged;
        }
        let (before, after) = (self.endpoints.addresses.len(), addresses.len());
        self.endpoints = Endpoints { version: self.endpoints.version.saturating_add(1), addresses };
        // Of two members one is half, and goes in any update of two instances.
        if before > 2 && after.saturating_mul(2) <= before {
            Observation::Halved
        } else {
            Observation::Changed
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIRMATION: Confirmation = Confirmation { observations: 3, over_ms: 1_000 };

    fn addresses(ports: &[u16]) -> Vec<SocketAddr> {
        ports.iter().map(|&port| SocketAddr::from(([10, 0, 0, 7], port))).collect()
    }

    /// When, which ports are seen, what that does, and version and ports after it.
    type Step = (u64, &'static [u16], Observation, u64, &'static [u16]);

    #[track_caller]
    fn check(steps: &[Step]) {
        let mut believed = Believed::new(CONFIRMATION);
        for (n, &(at, seen, outcome, version, ports)) in steps.iter().enumerate() {
            assert_eq!(believed.observe(Mono(at), addresses(seen)), outcome, "step {n}");
            assert_eq!(believed.is_in_doubt(), outcome == Observation::Held, "step {n}");
            let wanted = Endpoints { version, addresses: addresses(ports) };
            assert_eq!(believed.endpoints(), &wanted, "step {n}");
        }
    }

    #[test]
    fn a_set_is_a_set() {
        use Observation::*;
        check(&[
            (0, &[2, 1, 2], Changed, 1, &[1, 2]),
            (1, &[1, 2], Unchanged, 1, &[1, 2]),
            (2, &[2, 1, 1], Unchanged, 1, &[1, 2]),
            (3, &[3], Changed, 2, &[3]),
        ]);
    }

    #[test]
    fn what_was_never_there_is_empty_at_once_and_that_is_a_version() {
        use Observation::*;
        check(&[(0, &[], Changed, 1, &[]), (1, &[], Unchanged, 1, &[]), (2, &[1], Changed, 2, &[1])]);
    }

    #[test]
    fn an_empty_set_is_held_until_it_was_seen_often_and_long_enough() {
        use Observation::*;
        check(&[
            (0, &[1, 2], Changed, 1, &[1, 2]),
            (10, &[], Held, 1, &[1, 2]),
            (20, &[], Held, 1, &[1, 2]),
            (1_009, &[], Held, 1, &[1, 2]), // often, and 1 ms too early
            (1_010, &[], Changed, 2, &[]),
            (1_011, &[], Unchanged, 2, &[]),
            (1_012, &[], Unchanged, 2, &[]),
        ]);
        check(&[
            (0, &[1], Changed, 1, &[1]),
            (10, &[], Held, 1, &[1]),
            (9_000, &[], Held, 1, &[1]), // long enough, and once too few
            (9_001, &[], Changed, 2, &[]),
        ]);
    }

    #[test]
    fn members_in_between_begin_the_count_anew() {
        use Observation::*;
        check(&[
            (0, &[1], Changed, 1, &[1]),
            (10, &[], Held, 1, &[1]),
            (20, &[], Held, 1, &[1]),
            (2_000, &[1], Unchanged, 1, &[1]),
            (2_010, &[], Held, 1, &[1]),
            (3_009, &[], Held, 1, &[1]),
            (3_009, &[], Held, 1, &[1]),
            (3_010, &[], Changed, 2, &[]),
        ]);
    }

    #[test]
    fn a_halved_set_is_believed_and_pointed_out() {
        use Observation::*;
        check(&[
            (0, &[1, 2, 3, 4, 5], Changed, 1, &[1, 2, 3, 4, 5]),
            (1, &[1, 2, 3], Changed, 2, &[1, 2, 3]),
            (2, &[1], Halved, 3, &[1]),
            (3, &[1, 2], Changed, 4, &[1, 2]),
            (4, &[2], Changed, 5, &[2]), // one of two: an ordinary restart
            (5, &[3, 4, 5, 6], Changed, 6, &[3, 4, 5, 6]),
            (6, &[7, 8], Halved, 7, &[7, 8]),
        ]);
    }

    #[test]
    fn the_age_is_that_of_the_last_answer_even_of_a_held_one() {
        let mut believed = Believed::new(CONFIRMATION);
        assert_eq!(believed.age_ms(Mono(50)), None);
        believed.observe(Mono(100), addresses(&[1]));
        assert_eq!(believed.age_ms(Mono(150)), Some(50));
        believed.observe(Mono(200), Vec::new());
        assert_eq!(believed.age_ms(Mono(230)), Some(30));
    }

    proptest::proptest! {
        /// Whatever comes, members are lost only after the confirmation, and versions grow with changes only.
        #[test]
        fn members_go_only_after_confirmation(steps in proptest::collection::vec((0_u64..600, 0_u16..3), 1..60)) {
            let mut believed = Believed::new(CONFIRMATION);
            let (mut now, mut empty_since, mut empty) = (0, None, 0);
            for (pause, size) in steps {
                now += pause;
                let before = believed.endpoints().clone();
                let outcome = believed.observe(Mono(now), addresses(&(0..size).collect::<Vec<_>>()));
                if size == 0 {
                    empty += 1;
                    empty_since = empty_since.or(Some(now));
                } else {
                    (empty, empty_since) = (0, None);
                }
                let after = believed.endpoints();
                if !before.addresses.is_empty() && after.addresses.is_empty() {
                    assert!(empty >= 3 && now - empty_since.unwrap() >= 1_000);
                }
                let changed = matches!(outcome, Observation::Changed | Observation::Halved);
                assert_eq!(after.version, before.version + u64::from(changed));
                assert_eq!(changed, before.version == 0 || after.addresses != before.addresses);
            }
        }
    }
}
