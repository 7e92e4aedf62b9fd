//! OpenIM 3.5: users who may have come from another gateway, which says that they are gone perhaps after this one said
//! that they came (spec 9.6). So it is said once more, a moment later.
//!
//! What always holds: the queue is in the order of its times, and bounded.

use std::collections::VecDeque;

use super::platforms::Platforms;
use crate::limits::{PRESENCE_MOVED_MAX, PRESENCE_MOVED_MS};
use crate::time::Mono;

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct Moves {
    waiting: VecDeque<(Mono, Box<str>, Platforms)>,
    /// Those that found no room.
    pub(super) forgotten: u64,
}

impl Moves {
    pub(super) fn push(&mut self, now: Mono, user: &str, platforms: Platforms) {
        if self.waiting.len() >= PRESENCE_MOVED_MAX {
            self.forgotten += 1;
            return;
        }
        self.waiting.push_back((now.plus_ms(PRESENCE_MOVED_MS), user.into(), platforms));
    }

    /// The next whose time has come.
    pub(super) fn pop(&mut self, now: Mono) -> Option<(Box<str>, Platforms)> {
        let (_, user, platforms) = self.waiting.pop_front_if(|(due, ..)| now >= *due)?;
        Some((user, platforms))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beyond_the_limit_the_newest_is_forgotten() {
        let mut moves = Moves::default();
        (0..PRESENCE_MOVED_MAX).for_each(|_| moves.push(Mono(0), "first", Platforms::NONE));
        assert_eq!(moves.forgotten, 0);
        moves.push(Mono(0), "late", Platforms::NONE);
        assert_eq!(moves.forgotten, 1);
        let due = Mono(PRESENCE_MOVED_MS);
        assert!(std::iter::from_fn(|| moves.pop(due)).all(|(user, _)| *user == *"first"));
    }
}
