//! Draws from a text: the same on every machine and in every version.

/// A number below a bound.
pub(crate) fn drawn(text: &str, below: usize) -> usize {
    let seed = text
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    // The last step of SplitMix64: texts that differ in one letter draw far from each other.
    let mut mixed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^= mixed >> 31;
    usize::try_from(mixed % u64::try_from(below.max(1)).unwrap_or(u64::MAX)).unwrap_or(0)
}
