//! A slab whose ids carry a generation: a stale id finds nothing, even after its slot was reused.
//!
//! The `slab` crate reuses keys at once and cannot tell the old life of a key from the new one; a completion or a
//! verdict that arrives late must not reach a stranger. Nor does it keep the order of its free list when it is read
//! back (serde): the next insert would then take another slot, and a thawed hub would give out other ids.

use serde::{Deserialize, Serialize};

use crate::ids::SlotId;

/// No position: the end of the free list.
const NONE: u32 = u32::MAX;

/// A bounded slab with generations.
#[derive(Debug, Serialize, Deserialize)]
pub struct Arena<T> {
    slots: Vec<Slot<T>>,
    /// The position that was freed last; [`NONE`] if none is free.
    free: u32,
    len: u32,
    /// Given to the next insert. One counter for the arena: two lives of one slot differ unless 2^32 inserts lie
    /// between them, which at 100 000 inserts a second is half a day for one held id.
    next_generation: u32,
    capacity: u32,
}

#[derive(Debug, Serialize, Deserialize)]
enum Slot<T> {
    Free { next: u32 },
    Used { generation: u32, value: T },
}

impl<T> Arena<T> {
    /// An empty arena that will hold at most `capacity` values. Allocates nothing yet.
    pub fn new(capacity: u32) -> Self {
        Self { slots: Vec::new(), free: NONE, len: 0, next_generation: 0, capacity }
    }

    /// Stores a value, or gives it back if the arena is full.
    pub fn insert(&mut self, value: T) -> Result<SlotId, T> {
        if self.len >= self.capacity {
            return Err(value);
        }
        let generation = self.next_generation;
        let used = Slot::Used { generation, value };
        let index = match self.slots.get_mut(self.free as usize) {
            Some(slot) => {
                let index = self.free;
                if let Slot::Free { next } = slot {
                    self.free = *next;
                }
                *slot = used;
                index
            }
            None => {
                self.slots.push(used);
                u32::try_from(self.slots.len() - 1).unwrap_or(NONE) // below the u32 capacity
            }
        };
        self.len += 1;
        self.next_generation = generation.wrapping_add(1);
        Ok(SlotId { index, generation })
    }

    /// The value, unless the id is stale.
    pub fn get(&self, id: SlotId) -> Option<&T> {
        match self.slots.get(id.index as usize) {
            Some(Slot::Used { generation, value }) if *generation == id.generation => Some(value),
            _ => None,
        }
    }

    /// The value, unless the id is stale.
    pub fn get_mut(&mut self, id: SlotId) -> Option<&mut T> {
        match self.slots.get_mut(id.index as usize) {
            Some(Slot::Used { generation, value }) if *generation == id.generation => Some(value),
            _ => None,
        }
    }

    /// Takes the value out, unless the id is stale.
    pub fn remove(&mut self, id: SlotId) -> Option<T> {
        self.get(id)?;
        let slot = self.slots.get_mut(id.index as usize)?;
        let freed = std::mem::replace(slot, Slot::Free { next: self.free });
        self.free = id.index;
        self.len -= 1;
        match freed {
            Slot::Used { value, .. } => Some(value),
            Slot::Free { .. } => None,
        }
    }

    /// The value at a position, whatever its generation: for links that are kept up to date by their owner.
    pub fn at(&self, index: u32) -> Option<&T> {
        match self.slots.get(index as usize) {
            Some(Slot::Used { value, .. }) => Some(value),
            _ => None,
        }
    }

    /// As [`Arena::at`].
    pub fn at_mut(&mut self, index: u32) -> Option<&mut T> {
        match self.slots.get_mut(index as usize) {
            Some(Slot::Used { value, .. }) => Some(value),
            _ => None,
        }
    }

    /// The full id of a position in use.
    pub fn id_at(&self, index: u32) -> Option<SlotId> {
        match self.slots.get(index as usize) {
            Some(&Slot::Used { generation, .. }) => Some(SlotId { index, generation }),
            _ => None,
        }
    }

    /// All values in order of position.
    pub fn iter(&self) -> impl Iterator<Item = (SlotId, &T)> {
        (0..).zip(&self.slots).filter_map(|(index, slot)| match slot {
            Slot::Used { generation, value } => {
                let generation = *generation;
                Some((SlotId { index, generation }, value))
            }
            Slot::Free { .. } => None,
        })
    }

    /// Takes all values out, in order of position.
    pub fn into_values(self) -> impl Iterator<Item = T> {
        self.slots.into_iter().filter_map(|slot| match slot {
            Slot::Used { value, .. } => Some(value),
            Slot::Free { .. } => None,
        })
    }

    /// The position after the last that was ever used: where a walk by [`Arena::at`] ends.
    pub fn positions(&self) -> u32 {
        u32::try_from(self.slots.len()).unwrap_or(NONE) // below the u32 capacity
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
