//! When which pair is looked at, whatever its sockets do. Pure.
//!
//! A deadline that is replaced stays in the heap until it comes up, since a heap finds only its first. What always
//! holds: nobody is woken for one that does not count any more, so an idle pair costs no wake-up; each entry was set
//! once, so there are at most as many as a handshake has steps for each pair.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::pair::NEVER;
use crate::ids::SlotId;
use crate::time::Mono;

/// What a deadline is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Due {
    /// The drain is over.
    Drain,
    /// A pair: index and generation.
    Pair(u32, u32),
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct Deadlines(BinaryHeap<Reverse<(Mono, Due)>>);

impl Deadlines {
    /// From now on something is due then.
    pub(super) fn set(&mut self, at: Mono, due: Due) {
        self.0.push(Reverse((at, due)));
    }

    /// The first one that counts; those before it are forgotten. `counts` is asked of pairs.
    pub(super) fn next(&mut self, counts: impl Fn(SlotId, Mono) -> bool) -> Mono {
        while let Some(Reverse((at, due))) = self.0.peek().copied() {
            match due {
                Due::Pair(index, generation) if !counts(SlotId { index, generation }, at) => {
                    self.0.pop();
                }
                _ => return at,
            }
        }
        NEVER
    }

    /// The next one whose time has come, counting or not.
    pub(super) fn pop(&mut self, now: Mono) -> Option<(Mono, Due)> {
        self.0.peek().filter(|Reverse((at, _))| *at <= now)?;
        self.0.pop().map(|Reverse(first)| first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_woken_for_what_does_not_count_any_more() {
        let mut deadlines = Deadlines::default();
        for n in 0..1_000 {
            // Head, dial, answer; then the pair is open and has none.
            for at in [10_000, 3_000, 35_000] {
                deadlines.set(Mono(at + u64::from(n)), Due::Pair(n, 0));
            }
        }
        let half_closed = SlotId { index: 7, generation: 0 };
        let counts = |id: SlotId, at: Mono| id == half_closed && at == Mono(35_007);
        assert_eq!(deadlines.next(counts), Mono(35_007));
        assert_eq!(deadlines.0.len(), 1_000 - 7, "what stood before it is gone");
        assert_eq!(deadlines.pop(Mono(35_006)), None);
        assert_eq!(deadlines.pop(Mono(35_007)), Some((Mono(35_007), Due::Pair(7, 0))));
        deadlines.set(Mono(90_000), Due::Drain);
        assert_eq!(deadlines.next(|_, _| false), Mono(90_000), "a drain counts");
        assert_eq!(deadlines.0.len(), 1);
        assert_eq!(deadlines.pop(Mono(90_000)), Some((Mono(90_000), Due::Drain)));
        assert_eq!(deadlines.next(|_, _| true), NEVER);
    }
}
