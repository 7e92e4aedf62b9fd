//! The masking of client frames (RFC 6455 section 5.3): XOR with a 4-byte key, its own inverse.
//!
//! Safe code, 8 bytes at a time: the compiler turns the loop into vector instructions.

/// Masks or unmasks `bytes` in place. `offset` is the position of the first byte in its frame's payload, so that a
/// payload may come in pieces.
pub fn apply(key: [u8; 4], offset: usize, bytes: &mut [u8]) {
    let mut key = key;
    key.rotate_left(offset % 4);
    let [a, b, c, d] = key;
    let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let (chunks, tail) = bytes.as_chunks_mut::<8>();
    for chunk in chunks {
        *chunk = (u64::from_ne_bytes(*chunk) ^ wide).to_ne_bytes();
    }
    for (byte, key) in tail.iter_mut().zip(key.iter().cycle()) {
        *byte ^= key;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_like_the_rfc_says_for_any_length_and_cut() {
        let key = [0x37, 0xfa, 0x21, 0x3d];
        for len in 0..40 {
            let plain: Vec<u8> = (0..len).collect();
            let expected: Vec<u8> = plain.iter().enumerate().map(|(i, b)| b ^ key[i % 4]).collect();
            for cut in 0..=plain.len() {
                let mut pieces = plain.clone();
                let (left, right) = pieces.split_at_mut(cut);
                apply(key, 0, left);
                apply(key, cut, right);
                assert_eq!(pieces, expected, "length {len}, cut {cut}");
            }
        }
    }
}
