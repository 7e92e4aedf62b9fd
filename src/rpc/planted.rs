//! Calls that a planted upstream (`--plant-upstream`) answers late. Pure; without the flag no call stays here.
//!
//! What always holds: each call that is held comes out once, so each ticket is answered once.

use std::collections::BTreeMap;

use crate::config::PlantedUpstream;
use crate::hub::upstream::UpstreamCall;
use crate::time::Mono;

/// A lost call is answered so long after its deadline.
const AFTER_DEADLINE_MS: u64 = 300;

/// What becomes of a held call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// The backend answers it.
    Answered,
    /// It fails, too late for anybody.
    Lost,
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct LateCalls {
    plan: Option<PlantedUpstream>,
    first: Option<Mono>,
    /// By the time at which they are answered; the count keeps the order.
    held: BTreeMap<(Mono, u64), (UpstreamCall, Fate)>,
    count: u64,
}

impl LateCalls {
    pub(super) fn new(plan: Option<PlantedUpstream>) -> Self {
        Self { plan, ..Self::default() }
    }

    /// Holds a call back if the plan says so; `false`: it is to be answered now.
    pub(super) fn hold(&mut self, now: Mono, call: &UpstreamCall) -> bool {
        let Some(plan) = self.plan else { return false };
        let since = now.since_ms(*self.first.get_or_insert(now));
        let (due, fate) = match plan {
            PlantedUpstream::Slow(ms) => (now.plus_ms(ms), Fate::Answered),
            PlantedUpstream::Dead { from_ms, to_ms } if (from_ms..to_ms).contains(&since) => {
                (call.deadline.plus_ms(AFTER_DEADLINE_MS), Fate::Lost)
            }
            PlantedUpstream::Dead { .. } => return false,
        };
        self.count += 1;
        self.held.insert((due, self.count), (call.clone(), fate));
        true
    }

    /// Whether no call is held.
    pub(super) fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// The next call whose time has come.
    pub(super) fn next_due(&mut self, now: Mono) -> Option<(UpstreamCall, Fate)> {
        let entry = self.held.first_entry().filter(|entry| entry.key().0 <= now)?;
        Some(entry.remove())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::upstream::{CallMetadata, UpstreamRequest};
    use crate::ids::{Platform, ShardId};

    fn call(deadline: u64) -> UpstreamCall {
        UpstreamCall {
            shard: ShardId(0),
            ticket: None,
            deadline: Mono(deadline),
            metadata: CallMetadata {
                operation_id: "op".into(),
                user: "u".into(),
                platform: Platform::WEB,
                connection_id: "".into(),
            },
            request: UpstreamRequest::ParseToken { token: "".into() },
        }
    }

    #[test]
    fn nothing_is_held_without_a_plan() {
        assert!(!LateCalls::new(None).hold(Mono(5), &call(9)));
    }

    #[test]
    fn a_slow_upstream_answers_each_call_once_in_order() {
        let mut late = LateCalls::new(Some(PlantedUpstream::Slow(100)));
        assert!(late.hold(Mono(0), &call(1)) && late.hold(Mono(0), &call(2)));
        assert_eq!(late.next_due(Mono(99)), None);
        assert_eq!(late.next_due(Mono(100)), Some((call(1), Fate::Answered)));
        assert_eq!(late.next_due(Mono(100)), Some((call(2), Fate::Answered)));
        assert_eq!(late.next_due(Mono(999)), None);
    }

    #[test]
    fn a_dead_upstream_fails_the_calls_of_its_span_after_their_deadline() {
        let mut late = LateCalls::new(Some(PlantedUpstream::Dead { from_ms: 10, to_ms: 20 }));
        assert!(!late.hold(Mono(1_000), &call(11_000)), "the first call starts the count");
        assert!(late.hold(Mono(1_010), &call(11_010)));
        assert!(!late.hold(Mono(1_020), &call(11_020)));
        assert_eq!(late.next_due(Mono(11_010)), None);
        assert_eq!(late.next_due(Mono(11_310)), Some((call(11_010), Fate::Lost)));
    }
}
