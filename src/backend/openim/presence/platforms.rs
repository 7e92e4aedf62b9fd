//! A set of platform ids in two bytes.
//!
//! It holds the ids 0 to 15; OpenIM has 1 to 11 (spec 8.1). Other numbers are nobody's platform: they are left out.

use serde::{Deserialize, Serialize};

/// See the module's documentation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Platforms(u16);

impl Platforms {
    /// No platform: offline.
    pub const NONE: Self = Self(0);

    /// The set of one id; `None` outside 0..=15.
    pub fn one(id: i32) -> Option<Self> {
        u32::try_from(id).ok().and_then(|id| 1_u16.checked_shl(id)).map(Self)
    }

    /// The set of these ids; those outside 0..=15 are left out.
    pub fn of(ids: &[i32]) -> Self {
        ids.iter().filter_map(|id| Self::one(*id)).fold(Self::NONE, Self::or)
    }

    /// Whether it is empty.
    pub fn is_empty(self) -> bool {
        self == Self::NONE
    }

    /// What is in either.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// What is in both.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// What is in `self` and not in `other`.
    #[must_use]
    pub fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Its smallest id, as a set; empty if it is empty.
    #[must_use]
    pub fn first(self) -> Self {
        Self(self.0 & self.0.wrapping_neg())
    }

    /// Its ids, ascending.
    pub fn ids(self) -> impl Iterator<Item = i32> {
        (0..16).filter(move |id| self.0 & (1 << id) != 0)
    }

    /// As the messages hold them.
    pub fn to_vec(self) -> Vec<i32> {
        self.ids().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_holds_0_to_15_once_and_ascending() {
        let set = Platforms::of(&[11, 5, 5, 0, 15, 16, 17, 32, 33, -1, i32::MAX, i32::MIN]);
        assert_eq!(set.to_vec(), [0, 5, 11, 15]);
        assert_eq!(set.first().to_vec(), [0]);
        assert_eq!(set.without(Platforms::of(&[0, 7])).to_vec(), [5, 11, 15]);
        assert_eq!(Platforms::NONE.or(Platforms::of(&[7])).to_vec(), [7]);
        assert!(Platforms::NONE.first().is_empty() && Platforms::of(&[99]).is_empty());
    }
}
