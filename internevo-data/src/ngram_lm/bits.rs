//! Numbers of any number of bits in a row of bytes, least significant first.

/// `width` bits (at most 57) from bit `offset`.
///
/// # Panics
/// If fewer than 8 bytes begin at the byte of `offset`.
pub(super) fn read(bytes: &[u8], offset: u64, width: u32) -> u64 {
    let word = u64::from_le_bytes(crate::model_file::word(&bytes[(offset >> 3) as usize..]));
    (word >> (offset & 7)) & ((1 << width) - 1)
}

/// Bits that hold the numbers to `largest`.
pub(super) fn needed(largest: u64) -> u32 {
    u64::BITS - largest.leading_zeros()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_across_bytes() {
        let bytes: Vec<u8> = (0..16).map(|i| i * 17).collect();
        let all = u128::from_le_bytes(bytes.clone().try_into().expect("16 bytes"));
        for offset in 0..64 {
            for width in 1..=57 {
                let expected = (all >> offset) as u64 & ((1 << width) - 1);
                assert_eq!(read(&bytes, offset, width), expected, "{width} bits from {offset}");
            }
        }
    }

    #[test]
    fn the_bits_of_the_largest_number_suffice() {
        assert_eq!([0, 1, 2, 3, 4, 255, 256].map(needed), [0, 1, 2, 2, 3, 8, 9]);
    }
}
