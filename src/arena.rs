//! A slab whose ids carry a generation: a stale id finds nothing, even after its slot was reused.
//!
//! The `slab` crate reuses keys at once and cannot tell the old life of a key from the new one; a completion or a
//! verdict that arrives late must not reach a stranger. Nor does it keep the order of its free list when it is read
//! back (serde): the next insert would then take another slot, and a thawed hub would give out other ids.
//!
//! The slots stand in segments that never move: growing copies nothing and holds no second copy, and what is not
//! used is less than one segment. Inserts go to the first segment with a free slot, and a segment whose last value
//! leaves gives its memory back (all but the first), so a crowd that has left leaves nothing behind.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::ids::SlotId;

/// No position: the end of a free list.
const NONE: u32 = u32::MAX;
/// Slots of a segment.
const SEGMENT: u32 = 256;

/// A bounded slab with generations.
#[derive(Debug, Serialize, Deserialize)]
pub struct Arena<T> {
    segments: Vec<Segment<T>>,
    /// Segments with a free slot.
    roomy: BTreeSet<u32>,
    len: u32,
    /// Given to the next insert. One counter for the arena: two lives of one slot differ unless 2^32 inserts lie
    /// between them, which at 100 000 inserts a second is half a day for one held id.
    next_generation: u32,
    capacity: u32,
}

#[derive(Debug, Serialize, Deserialize)]
struct Segment<T> {
    /// Those that were used since the segment was empty; at most [`SEGMENT`].
    slots: Vec<Slot<T>>,
    /// The slot of this segment that was freed last; [`NONE`] if none is free.
    free: u32,
    used: u32,
}

#[derive(Debug, Serialize, Deserialize)]
enum Slot<T> {
    Free { next: u32 },
    Used { generation: u32, value: T },
}

impl<T> Segment<T> {
    fn new() -> Self {
        Self { slots: Vec::new(), free: NONE, used: 0 }
    }

    /// Stores a value in the slot that was freed last, else in a new one; gives its place in the segment.
    fn insert(&mut self, slot: Slot<T>) -> u32 {
        self.used += 1;
        if let Some(free) = self.slots.get_mut(self.free as usize) {
            let place = self.free;
            if let Slot::Free { next } = std::mem::replace(free, slot) {
                self.free = next;
            }
            return place;
        }
        if self.slots.capacity() == 0 {
            self.slots.reserve_exact(SEGMENT as usize);
        }
        self.slots.push(slot);
        u32::try_from(self.slots.len() - 1).unwrap_or(NONE) // at most SEGMENT
    }
}

impl<T> Arena<T> {
    /// An empty arena that will hold at most `capacity` values. Allocates nothing yet.
    pub fn new(capacity: u32) -> Self {
        Self { segments: Vec::new(), roomy: BTreeSet::new(), len: 0, next_generation: 0, capacity }
    }

    /// Stores a value, or gives it back if the arena is full.
    pub fn insert(&mut self, value: T) -> Result<SlotId, T> {
        if self.len >= self.capacity {
            return Err(value);
        }
        let number = match self.roomy.first() {
            Some(number) => *number,
            None => {
                self.segments.push(Segment::new());
                let number = u32::try_from(self.segments.len() - 1).unwrap_or(NONE); // below the u32 capacity
                self.roomy.insert(number);
                number
            }
        };
        let Some(segment) = self.segments.get_mut(number as usize) else {
            return Err(value); // cannot be: it was found or added above
        };
        let generation = self.next_generation;
        let place = segment.insert(Slot::Used { generation, value });
        if segment.used == SEGMENT {
            self.roomy.remove(&number);
        }
        self.len += 1;
        self.next_generation = generation.wrapping_add(1);
        Ok(SlotId { index: number * SEGMENT + place, generation })
    }

    /// The value, unless the id is stale.
    pub fn get(&self, id: SlotId) -> Option<&T> {
        match self.slot(id.index) {
            Some(Slot::Used { generation, value }) if *generation == id.generation => Some(value),
            _ => None,
        }
    }

    /// The value, unless the id is stale.
    pub fn get_mut(&mut self, id: SlotId) -> Option<&mut T> {
        match self.slot_mut(id.index) {
            Some(Slot::Used { generation, value }) if *generation == id.generation => Some(value),
            _ => None,
        }
    }

    /// Takes the value out, unless the id is stale.
    pub fn remove(&mut self, id: SlotId) -> Option<T> {
        self.get(id)?;
        let (number, place) = (id.index / SEGMENT, id.index % SEGMENT);
        let segment = self.segments.get_mut(number as usize)?;
        let slot = segment.slots.get_mut(place as usize)?;
        let freed = std::mem::replace(slot, Slot::Free { next: segment.free });
        segment.free = place;
        segment.used -= 1;
        if segment.used == 0 && number > 0 {
            *segment = Segment::new();
        }
        self.roomy.insert(number);
        self.len -= 1;
        match freed {
            Slot::Used { value, .. } => Some(value),
            Slot::Free { .. } => None,
        }
    }

    /// The value at a position, whatever its generation: for links that are kept up to date by their owner.
    pub fn at(&self, index: u32) -> Option<&T> {
        match self.slot(index) {
            Some(Slot::Used { value, .. }) => Some(value),
            _ => None,
        }
    }

    /// As [`Arena::at`].
    pub fn at_mut(&mut self, index: u32) -> Option<&mut T> {
        match self.slot_mut(index) {
            Some(Slot::Used { value, .. }) => Some(value),
            _ => None,
        }
    }

    /// The full id of a position in use.
    pub fn id_at(&self, index: u32) -> Option<SlotId> {
        match self.slot(index) {
            Some(&Slot::Used { generation, .. }) => Some(SlotId { index, generation }),
            _ => None,
        }
    }

    /// All values in order of position.
    pub fn iter(&self) -> impl Iterator<Item = (SlotId, &T)> {
        let firsts = (0..).step_by(SEGMENT as usize);
        let slots = firsts.zip(&self.segments).flat_map(|(first, segment)| (first..).zip(&segment.slots));
        slots.filter_map(|(index, slot)| match slot {
            Slot::Used { generation, value } => {
                let generation = *generation;
                Some((SlotId { index, generation }, value))
            }
            Slot::Free { .. } => None,
        })
    }

    /// Takes all values out, in order of position.
    pub fn into_values(self) -> impl Iterator<Item = T> {
        self.segments.into_iter().flat_map(|segment| segment.slots).filter_map(|slot| match slot {
            Slot::Used { value, .. } => Some(value),
            Slot::Free { .. } => None,
        })
    }

    /// A position after the last in use, not far: where a walk by [`Arena::at`] ends.
    pub fn positions(&self) -> u32 {
        u32::try_from(self.segments.len()).map_or(NONE, |segments| segments.saturating_mul(SEGMENT))
    }

    fn slot(&self, index: u32) -> Option<&Slot<T>> {
        self.segments.get((index / SEGMENT) as usize)?.slots.get((index % SEGMENT) as usize)
    }

    fn slot_mut(&mut self, index: u32) -> Option<&mut Slot<T>> {
        self.segments.get_mut((index / SEGMENT) as usize)?.slots.get_mut((index % SEGMENT) as usize)
    }

    /// Values held.
    pub fn len(&self) -> usize {
        self.len as usize
    }

    /// Whether nothing is held.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The most values that will be held.
    pub fn capacity(&self) -> u32 {
        self.capacity
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stale_id_finds_nothing_after_reuse() {
        let mut arena = Arena::new(4);
        let old = arena.insert("old").unwrap();
        assert_eq!(arena.remove(old), Some("old"));
        let new = arena.insert("new").unwrap();
        assert_eq!(old.index, new.index, "the slab reuses the slot at once");
        assert_eq!(arena.get(old), None);
        assert_eq!(arena.get_mut(old), None);
        assert_eq!(arena.remove(old), None);
        assert_eq!(arena.get(new), Some(&"new"));
    }

    #[test]
    fn a_full_arena_gives_the_value_back() {
        let mut arena = Arena::new(1);
        arena.insert(1).unwrap();
        assert_eq!(arena.insert(2), Err(2));
    }

    #[test]
    fn values_keep_their_place_while_it_grows_and_a_crowd_that_left_leaves_one_segment() {
        let mut arena = Arena::new(4 * SEGMENT);
        let ids: Vec<_> = (0..4 * SEGMENT).map(|n| arena.insert(n).unwrap()).collect();
        assert_eq!(arena.insert(0), Err(0));
        assert!(ids.iter().zip(0..).all(|(id, n)| id.index == n && arena.get(*id) == Some(&n)));
        assert!(arena.iter().map(|(id, n)| (id.index, *n)).eq((0..4 * SEGMENT).map(|n| (n, n))));
        let (gone, stay) = ids.split_at(3 * SEGMENT as usize);
        assert!(gone.iter().zip(0..).all(|(id, n)| arena.remove(*id) == Some(n)));
        assert!(arena.iter().map(|(id, _)| id).eq(stay.iter().copied()));
        let kept = |arena: &Arena<u32>| arena.segments.iter().filter(|s| s.slots.capacity() > 0).count();
        assert_eq!((arena.len(), kept(&arena)), (SEGMENT as usize, 2), "the first and the one in use");
        let again = arena.insert(7).unwrap();
        assert!(again.index < SEGMENT, "the first segment with room");
        assert!(
            gone.iter().all(|id| arena.get(*id).is_none()),
            "a stale id finds nothing in a segment that left"
        );
        stay.iter().chain([&again]).for_each(|id| assert!(arena.remove(*id).is_some()));
        assert_eq!((arena.is_empty(), kept(&arena)), (true, 1));
    }

    #[test]
    fn an_arena_that_was_read_back_gives_out_the_same_ids() {
        let mut arena = Arena::new(8);
        let ids: Vec<_> = (0..6).map(|n| arena.insert(n).unwrap()).collect();
        for position in [1, 5, 0, 3] {
            arena.remove(ids[position]);
        }
        let written = serde_json::to_string(&arena).unwrap();
        let mut thawed: Arena<i32> = serde_json::from_str(&written).unwrap();
        assert_eq!(thawed.len(), 2);
        for n in 0..6 {
            assert_eq!(arena.insert(n).unwrap(), thawed.insert(n).unwrap());
        }
        assert_eq!((arena.insert(9), thawed.insert(9)), (Err(9), Err(9)));
    }
}
