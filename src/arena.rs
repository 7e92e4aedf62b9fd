//! A slab whose ids carry a generation: a stale id finds nothing, even after its slot was reused.
//!
//! The `slab` crate reuses keys at once and cannot tell the old life of a key from the new one; a completion or a
//! verdict that arrives late must not reach a stranger.

use serde::{Deserialize, Serialize};
use slab::Slab;

use crate::ids::SlotId;

/// A bounded slab with generations.
#[derive(Debug, Serialize, Deserialize)]
pub struct Arena<T> {
    slots: Slab<Entry<T>>,
    /// Given to the next insert. One counter for the arena: two lives of one slot differ unless 2^32 inserts lie
    /// between them, which at 100 000 inserts a second is half a day for one held id.
    next_generation: u32,
    capacity: u32,
}

#[derive(Debug, Serialize, Deserialize)]
struct Entry<T> {
    generation: u32,
    value: T,
}

impl<T> Arena<T> {
    /// An empty arena that will hold at most `capacity` values. Allocates nothing yet.
    pub fn new(capacity: u32) -> Self {
        Self {
            slots: Slab::new(),
            next_generation: 0,
            capacity,
        }
    }

    /// Stores a value, or gives it back if the arena is full.
    pub fn insert(&mut self, value: T) -> Result<SlotId, T> {
        if self.slots.len() >= self.capacity as usize {
            return Err(value);
        }
        let generation = self.next_generation;
        self.next_generation = generation.wrapping_add(1);
        let key = self.slots.insert(Entry { generation, value });
        let index = u32::try_from(key).unwrap_or(u32::MAX); // below the u32 capacity
        Ok(SlotId { index, generation })
    }

    /// The value, unless the id is stale.
    pub fn get(&self, id: SlotId) -> Option<&T> {
        self.slots
            .get(id.index as usize)
            .filter(|e| e.generation == id.generation)
            .map(|e| &e.value)
    }

    /// The value, unless the id is stale.
    pub fn get_mut(&mut self, id: SlotId) -> Option<&mut T> {
        self.slots
            .get_mut(id.index as usize)
            .filter(|e| e.generation == id.generation)
            .map(|e| &mut e.value)
    }

    /// Takes the value out, unless the id is stale.
    pub fn remove(&mut self, id: SlotId) -> Option<T> {
        self.get(id)?;
        Some(self.slots.remove(id.index as usize).value)
    }

    /// The value at a position, whatever its generation: for links that are kept up to date by their owner.
    pub fn at(&self, index: u32) -> Option<&T> {
        self.slots.get(index as usize).map(|e| &e.value)
    }

    /// As [`Arena::at`].
    pub fn at_mut(&mut self, index: u32) -> Option<&mut T> {
        self.slots.get_mut(index as usize).map(|e| &mut e.value)
    }

    /// The full id of a position in use.
    pub fn id_at(&self, index: u32) -> Option<SlotId> {
        self.slots.get(index as usize).map(|e| SlotId {
            index,
            generation: e.generation,
        })
    }

    /// All values in order of position.
    pub fn iter(&self) -> impl Iterator<Item = (SlotId, &T)> {
        self.slots.iter().map(|(key, e)| {
            (
                SlotId {
                    index: u32::try_from(key).unwrap_or(u32::MAX),
                    generation: e.generation,
                },
                &e.value,
            )
        })
    }

    /// Values held.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether nothing is held.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
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
}
