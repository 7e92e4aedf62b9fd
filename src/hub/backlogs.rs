//! Who holds how much of the shard's outbox budget: outboxes in lists by size, linked through the slab, so that the
//! largest is found without a scan.
//!
//! A size class is a quarter of a power of two: the first of the highest class that is not empty is within a quarter of
//! the largest. An outbox changes its class seldom, and one below a small share of the budget is in no list, so an
//! ordinary push touches nothing here. What always holds (checked by [`super::audit`]): an outbox is in the list of its
//! class, or in none if it is below that share.

use serde::{Deserialize, Serialize};

use crate::arena::Arena;
use crate::ids::ConnId;
use crate::limits;
use crate::session::outbox::Place;
use crate::session::{NONE, Session};

/// Four classes for each power of two.
const CLASSES_MAX: usize = 4 * usize::BITS as usize;

/// See the module's documentation.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Backlogs {
    heads: Vec<u32>,
    /// Smaller outboxes are in no list.
    listed_from: usize,
}

impl Backlogs {
    /// For a budget in bytes.
    pub(super) fn new(budget: usize) -> Self {
        Self { heads: vec![NONE; CLASSES_MAX], listed_from: (budget / limits::BACKLOGS_LISTED_MAX).max(1) }
    }

    /// Puts a session where its outbox belongs. To be called after each change of an outbox, and with `bytes` = 0
    /// before one is taken away.
    pub(super) fn update(&mut self, sessions: &mut Arena<Session>, index: u32, bytes: usize) {
        let class = self.class(bytes);
        let Some(place) = place(sessions, index).copied() else {
            return;
        };
        if place.class == class {
            return;
        }
        if let Some(old) = place.class {
            self.unlink(sessions, old, place);
        }
        let mut new = Place { class, prev: NONE, next: NONE };
        if let Some(head) = class.and_then(|class| self.heads.get_mut(usize::from(class))) {
            new.next = std::mem::replace(head, index);
        }
        if let Some(neighbour) = place_mut(sessions, new.next) {
            neighbour.prev = index;
        }
        if let Some(place) = place_mut(sessions, index) {
            *place = new;
        }
    }

    /// The session with the largest outbox, to within a quarter. `None`: none is worth looking at.
    pub(super) fn largest(&self, sessions: &Arena<Session>) -> Option<ConnId> {
        let head = self.heads.iter().rev().find(|head| **head != NONE)?;
        sessions.id_at(*head).map(ConnId)
    }

    /// The list that an outbox of so many bytes belongs to.
    pub(super) fn class(&self, bytes: usize) -> Option<u8> {
        if bytes < self.listed_from {
            return None;
        }
        let power = bytes.checked_ilog2()?;
        let quarter = (bytes >> power.saturating_sub(2)) & 3;
        u8::try_from(4 * power).ok()?.checked_add(u8::try_from(quarter).ok()?)
    }

    /// Sessions in the list of a class.
    pub(super) fn listed<'a>(
        &self,
        sessions: &'a Arena<Session>,
        class: u8,
    ) -> impl Iterator<Item = u32> + 'a {
        let head = self.heads.get(usize::from(class)).copied().filter(|head| *head != NONE);
        std::iter::successors(head, |index| {
            place(sessions, *index).map(|place| place.next).filter(|next| *next != NONE)
        })
    }

    /// All classes.
    pub(super) fn classes(&self) -> impl Iterator<Item = u8> {
        (0..=u8::MAX).take(self.heads.len())
    }

    fn unlink(&mut self, sessions: &mut Arena<Session>, class: u8, place: Place) {
        if let Some(neighbour) = place_mut(sessions, place.next) {
            neighbour.prev = place.prev;
        }
        if let Some(neighbour) = place_mut(sessions, place.prev) {
            neighbour.next = place.next;
        } else if let Some(head) = self.heads.get_mut(usize::from(class)) {
            *head = place.next;
        }
    }
}

fn place(sessions: &Arena<Session>, index: u32) -> Option<&Place> {
    sessions.at(index)?.outbox.as_ref().map(|outbox| &outbox.place)
}

fn place_mut(sessions: &mut Arena<Session>, index: u32) -> Option<&mut Place> {
    sessions.at_mut(index)?.outbox.as_mut().map(|outbox| &mut outbox.place)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_rise_by_a_quarter_and_begin_at_a_share_of_the_budget() {
        let backlogs = Backlogs::new(256 << 20);
        assert_eq!((backlogs.class(0), backlogs.class(4_095)), (None, None));
        let classes = [4_096, 5_120, 6_144, 7_168, 8_192, 64 << 20, usize::MAX].map(|n| backlogs.class(n));
        assert_eq!(classes, [Some(48), Some(49), Some(50), Some(51), Some(52), Some(104), Some(255)]);
        let all = Backlogs::new(1);
        for bytes in 4..5_000 {
            let (mine, more) = (all.class(bytes), all.class(bytes + bytes / 4 + 1));
            assert!(mine < more, "{bytes}");
        }
        assert_eq!((all.class(0), all.class(1)), (None, Some(1)));
    }
}
