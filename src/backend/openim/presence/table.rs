//! Rows found by user id, each also in at most one [`List`], linked through the rows themselves: the user id is stored
//! once, a list costs no allocation, and a row moves between lists in constant time.

use ahash::RandomState;
use hashbrown::HashTable;

use crate::arena::Arena;

/// No row.
const NONE: u32 = u32::MAX;
/// Below so many places the index is not made smaller.
const INDEX_KEPT_MAX: usize = 1_024;

/// Neighbours in a list.
#[derive(Clone, Copy, Debug)]
pub(super) struct Links {
    previous: u32,
    next: u32,
}

impl Links {
    /// In no list.
    pub(super) const UNLINKED: Self = Self { previous: NONE, next: NONE };
}

/// What a [`Table`] holds.
pub(super) trait Row {
    fn user(&self) -> &str;
    fn links(&self) -> Links;
    fn links_mut(&mut self) -> &mut Links;
}

/// See the module's documentation. Rows are named by their position, which stays the same until they are removed.
#[derive(Debug)]
pub(super) struct Table<T> {
    hasher: RandomState,
    index: HashTable<u32>,
    rows: Arena<T>,
}

impl<T: Row> Table<T> {
    /// `key` makes the hash unpredictable for those who choose user ids.
    pub(super) fn new(key: [u64; 2]) -> Self {
        let hasher = RandomState::with_seeds(key[0], key[1], 0x7072_6573, 0x656e_6365);
        Self { hasher, index: HashTable::new(), rows: Arena::new(NONE - 1) }
    }

    pub(super) fn hash(&self, user: &str) -> u64 {
        self.hasher.hash_one(user)
    }

    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    pub(super) fn find(&self, user: &str) -> Option<u32> {
        let is_his = |at: &u32| self.rows.at(*at).is_some_and(|row| row.user() == user);
        self.index.find(self.hash(user), is_his).copied()
    }

    /// Adds the row of a user who has none. `None`: 2^32 - 2 rows are there.
    pub(super) fn insert(&mut self, row: T) -> Option<u32> {
        let hash = self.hash(row.user());
        let at = self.rows.insert(row).ok()?.index;
        self.index.insert_unique(hash, at, rehash(&self.hasher, &self.rows));
        Some(at)
    }

    /// Takes out a row that is in no list.
    pub(super) fn remove(&mut self, at: u32) -> Option<T> {
        let hash = self.hash(self.rows.at(at)?.user());
        if let Ok(entry) = self.index.find_entry(hash, |found| *found == at) {
            entry.remove();
        }
        let id = self.rows.id_at(at)?;
        let row = self.rows.remove(id);
        // A crowd that has left leaves nothing behind, as in the arena.
        if self.index.capacity() > (4 * self.index.len()).max(INDEX_KEPT_MAX) {
            self.index.shrink_to(2 * self.index.len(), rehash(&self.hasher, &self.rows));
        }
        row
    }

    pub(super) fn row(&self, at: u32) -> Option<&T> {
        self.rows.at(at)
    }

    pub(super) fn row_mut(&mut self, at: u32) -> Option<&mut T> {
        self.rows.at_mut(at)
    }

    /// Positions are below this.
    pub(super) fn positions(&self) -> u32 {
        self.rows.positions()
    }

    fn links_mut(&mut self, at: u32) -> Option<&mut Links> {
        self.rows.at_mut(at).map(Row::links_mut)
    }
}

fn rehash<T: Row>(hasher: &RandomState, rows: &Arena<T>) -> impl Fn(&u32) -> u64 {
    |at| rows.at(*at).map_or(0, |row| hasher.hash_one(row.user()))
}

/// Rows of a [`Table`] in the order in which they came.
#[derive(Clone, Copy, Debug)]
pub(super) struct List {
    first: u32,
    last: u32,
    len: usize,
}

impl List {
    pub(super) const EMPTY: Self = Self { first: NONE, last: NONE, len: 0 };

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn first(&self) -> Option<u32> {
        (self.first != NONE).then_some(self.first)
    }

    /// Adds a row that is in no list.
    pub(super) fn push_back<T: Row>(&mut self, table: &mut Table<T>, at: u32) {
        if let Some(links) = table.links_mut(at) {
            *links = Links { previous: self.last, next: NONE };
        }
        match table.links_mut(self.last) {
            Some(links) => links.next = at,
            None => self.first = at,
        }
        self.last = at;
        self.len += 1;
    }

    /// Adds a row that is in no list.
    pub(super) fn push_front<T: Row>(&mut self, table: &mut Table<T>, at: u32) {
        if let Some(links) = table.links_mut(at) {
            *links = Links { previous: NONE, next: self.first };
        }
        match table.links_mut(self.first) {
            Some(links) => links.previous = at,
            None => self.last = at,
        }
        self.first = at;
        self.len += 1;
    }

    /// Takes a row out that is in this list.
    pub(super) fn remove<T: Row>(&mut self, table: &mut Table<T>, at: u32) {
        let Some(links) = table.row(at).map(Row::links) else { return };
        match table.links_mut(links.previous) {
            Some(before) => before.next = links.next,
            None => self.first = links.next,
        }
        match table.links_mut(links.next) {
            Some(after) => after.previous = links.previous,
            None => self.last = links.previous,
        }
        if let Some(links) = table.links_mut(at) {
            *links = Links::UNLINKED;
        }
        self.len -= 1;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;

    #[derive(Debug)]
    struct Named(Box<str>, Links);

    impl Row for Named {
        fn user(&self) -> &str {
            &self.0
        }
        fn links(&self) -> Links {
            self.1
        }
        fn links_mut(&mut self) -> &mut Links {
            &mut self.1
        }
    }

    fn named(n: u32) -> Named {
        Named(format!("u{n}").into(), Links::UNLINKED)
    }

    #[test]
    fn lists_do_what_deques_do() {
        let mut random = fastrand::Rng::with_seed(7);
        let mut table = Table::new([1, 2]);
        let positions: Vec<u32> = (0..40).map(|n| table.insert(named(n)).unwrap()).collect();
        let mut lists = [List::EMPTY; 2];
        let mut models = [VecDeque::new(), VecDeque::new()];
        for _ in 0..10_000 {
            let at = positions[random.usize(..positions.len())];
            let to = random.usize(..2);
            for (list, model) in lists.iter_mut().zip(&mut models) {
                if let Some(place) = model.iter().position(|other| *other == at) {
                    model.remove(place);
                    list.remove(&mut table, at);
                }
            }
            match random.u8(..3) {
                0 => {
                    models[to].push_back(at);
                    lists[to].push_back(&mut table, at);
                }
                1 => {
                    models[to].push_front(at);
                    lists[to].push_front(&mut table, at);
                }
                _ => {}
            }
            for (list, model) in lists.iter().zip(&models) {
                let mut walked = VecDeque::new();
                let mut next = list.first;
                while let Some(row) = table.row(next) {
                    walked.push_back(next);
                    next = row.links().next;
                }
                assert_eq!((&walked, list.len()), (model, model.len()));
            }
        }
    }

    #[test]
    fn rows_are_found_until_they_are_removed_and_a_crowd_that_left_leaves_a_small_index() {
        let mut table = Table::new([1, 2]);
        let positions: Vec<u32> = (0..20_000).map(|n| table.insert(named(n)).unwrap()).collect();
        assert!((0..20_000).all(|n| table.find(&format!("u{n}")) == Some(positions[n as usize])));
        for at in &positions[10..] {
            table.remove(*at).unwrap();
        }
        assert_eq!((table.len(), table.find("u9"), table.find("u10")), (10, Some(positions[9]), None));
        assert!(table.index.capacity() <= INDEX_KEPT_MAX, "{}", table.index.capacity());
    }
}
