//! Pseudo-random numbers from a state that the caller keeps: the same seed gives the same numbers.
//!
//! For jitter and spread, where tests and the simulator need to repeat a run. Not for anything that a peer must not
//! guess.

/// The next number of `SplitMix64` (Steele, Lea, Flood 2014).
pub fn draw(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_are_those_of_the_reference() {
        // The first three of Vigna's splitmix64.c for the seed 1234567.
        let mut state = 1_234_567;
        let drawn = [(); 3].map(|()| draw(&mut state));
        assert_eq!(drawn, [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]);
    }
}
