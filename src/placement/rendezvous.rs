//! Weighted rendezvous hashing (Thaler and Ravishankar 1998) in whole numbers only, so that every language gets the
//! same answer. Version 1.
//!
//! All numbers are unsigned 64 bits, `+` and `*` wrap, `^` is exclusive or, `>>` shifts zeros in.
//!
//! ```text
//! mix(z):        z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9
//!                z = (z ^ (z >> 27)) * 0x94d049bb133111eb
//!                return z ^ (z >> 31)                                   (SplitMix64's end)
//! key(text):     h = 0xcbf29ce484222325
//!                for each byte b of the UTF-8 text: h = (h ^ b) * 0x100000001b3      (FNV-1a)
//!                return mix(h)
//! hash(u, n):    mix(key(user id) + key(node id))
//! cost(h):       64 * 2^32 - log, where log is 32 bits of fraction of log2(h), cut off:
//!                h = max(h, 1);  e = floor(log2(h));  x = h * 2^(63 - e);  log = e
//!                32 times: x = floor(x * x / 2^63) (128 bits);
//!                          if x >= 2^64: log = 2 * log + 1, x = floor(x / 2), else log = 2 * log
//! order:         a stands before b if cost(a) / weight(a) < cost(b) / weight(b), compared as
//!                cost(a) * weight(b) < cost(b) * weight(a), which is below 2^53;
//!                if equal, the greater hash; if equal, the smaller node id, byte by byte
//! ```
//!
//! The first is the home, the others follow in the order in which they would be. The cost is exponentially distributed,
//! so a node is first with the probability weight / sum of weights, whatever the other nodes are. Ids are hashed as
//! they are: no case is folded, nothing is trimmed, the empty text is a text. `tests/vectors/placement.json` has
//! examples, `tests/vectors/placement.py` the same in Python.

use std::cmp::Ordering;

use super::view::Weight;

/// Bits of fraction in a cost.
const FRACTION_BITS: u32 = 32;

/// A user or a node as a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key(u64);

/// How a node stands for a user. [`Score::order`] puts the home first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Score {
    hash: u64,
    weight: u16,
}

impl Key {
    /// The key of an id.
    pub fn new(text: &str) -> Self {
        let step = |h: u64, byte: u8| (h ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        Self(mix(text.bytes().fold(0xcbf2_9ce4_8422_2325, step)))
    }

    /// As a number.
    pub fn value(self) -> u64 {
        self.0
    }
}

impl Score {
    /// Of a node of that key and weight for a user.
    pub fn new(user: Key, node: Key, weight: Weight) -> Self {
        Self { hash: mix(user.0.wrapping_add(node.0)), weight: weight.value() }
    }

    /// Who stands before the other. `Equal`: the node ids decide.
    pub fn order(self, other: Self) -> Ordering {
        // Cost falls as the hash grows, so a logarithm is needed only where weight and hash disagree.
        let by_weight = other.weight.cmp(&self.weight);
        let by_hash = other.hash.cmp(&self.hash);
        if by_weight == by_hash || by_weight == Ordering::Equal {
            return by_hash;
        }
        if by_hash == Ordering::Equal {
            return by_weight;
        }
        let mine = cost(self.hash).wrapping_mul(u64::from(other.weight));
        let others = cost(other.hash).wrapping_mul(u64::from(self.weight));
        mine.cmp(&others).then(by_hash)
    }
}

fn mix(z: u64) -> u64 {
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// `-log2(hash / 2^64)` in units of 2^-32, from 1 to 2^38.
pub(super) fn cost(hash: u64) -> u64 {
    let hash = hash.max(1);
    let zeros = hash.leading_zeros();
    let mut x = hash << zeros; // from 2^63 up
    let mut log = u64::from(63 - zeros);
    for _ in 0..FRACTION_BITS {
        let square = (u128::from(x) * u128::from(x)) >> 63;
        let bit = u32::from(square >> 64 != 0);
        log = (log << 1) | u64::from(bit);
        x = u64::try_from(square >> bit).unwrap_or(u64::MAX); // below 2^64 after the shift
    }
    (64 << FRACTION_BITS) - log
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::WEIGHT_MAX;
    use proptest::prelude::*;

    #[test]
    fn costs_are_negative_logarithms_within_their_bits() {
        for (hash, want) in [(0, 64 << 32), (1, 64 << 32), (2, 63 << 32), (1 << 63, 1 << 32), (u64::MAX, 1)] {
            assert_eq!(cost(hash), want, "{hash:x}");
        }
        for hash in [3_u64, 12_345, 0x7fff_ffff_ffff_ffff, 0xdead_beef_dead_beef, 0xffff_ffff_0000_0000] {
            let exact = (64.0 - (hash as f64).log2()) * 2_f64.powi(32);
            assert!((cost(hash) as f64 - exact).abs() <= 2.0, "{hash:x}: {} {exact}", cost(hash));
        }
        assert!(u128::from(cost(0)) * u128::from(WEIGHT_MAX) < 1 << 53);
    }

    /// The order as the formula has it, without the short ways.
    fn by_formula(a: Score, b: Score) -> Ordering {
        let product = |s: Score, t: Score| u128::from(cost(s.hash)) * u128::from(t.weight);
        product(a, b).cmp(&product(b, a)).then(b.hash.cmp(&a.hash))
    }

    proptest! {
        #[test]
        fn the_short_ways_agree_with_the_formula(
            (h, near) in (any::<u64>(), -2_i64..3), (v, w) in (1_u16..=WEIGHT_MAX, 1_u16..4)
        ) {
            let a = Score { hash: h, weight: v };
            for (hash, weight) in [(h, w), (h.wrapping_add_signed(near), v), (!h, w), (h.rotate_left(7), v)] {
                let b = Score { hash, weight };
                prop_assert_eq!(a.order(b), by_formula(a, b));
                prop_assert_eq!(b.order(a), by_formula(a, b).reverse());
            }
        }

        #[test]
        fn a_greater_hash_never_costs_more(a: u64, b: u64) {
            prop_assert!(cost(a.max(b)) <= cost(a.min(b)));
        }
    }
}
