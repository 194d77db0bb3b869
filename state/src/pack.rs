//! How the file keeps the JSON of a plan: as it is, to be read with any SQLite by any eye, unless it is so large that
//! nobody would; then packed, as one LZ4 block.
//!
//! A plan is written once, and read whole: what takes long with it is its bytes. It has its hash over the JSON.

use lz4_flex::block::{compress, decompress};

/// A runbook of hundreds of steps has less.
const READABLE: usize = 64 * 1_024;
/// No LZ4 block holds more than so many times its own length.
const AT_MOST: usize = 255;

/// The bytes to be kept, and how long the JSON is if it is packed in them.
pub(crate) fn pack(json: Vec<u8>) -> (Vec<u8>, Option<i64>) {
    if json.len() < READABLE {
        return (json, None);
    }
    let packed = compress(&json);
    match i64::try_from(json.len()) {
        Ok(length) if packed.len() < json.len() => (packed, Some(length)),
        _ => (json, None),
    }
}

/// The JSON again; nothing where the bytes cannot be what [`pack`] made.
pub(crate) fn unpack(kept: Vec<u8>, unpacked: Option<i64>) -> Option<Vec<u8>> {
    let Some(length) = unpacked else { return Some(kept) };
    // A length that was altered must not ask for more memory than there is.
    let length = usize::try_from(length).ok().filter(|length| *length <= kept.len().saturating_mul(AT_MOST))?;
    decompress(&kept, length).ok().filter(|json| json.len() == length)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Proves that what is small stays as it is, that what is large comes back from less, and that a wrong length or altered
    /// bytes give nothing or something else, never a panic.
    #[test]
    fn what_is_packed_comes_back() {
        let small = br#"{"steps":[]}"#.to_vec();
        assert_eq!(pack(small.clone()), (small.clone(), None));
        assert_eq!(unpack(small.clone(), None), Some(small));
        let large: Vec<u8> =
            (0..4_000).flat_map(|step| format!("{{\"name\":\"step-{step}\"}},").into_bytes()).collect();
        let (packed, length) = pack(large.clone());
        assert!(packed.len() * 2 < large.len() && length == i64::try_from(large.len()).ok());
        assert_eq!(unpack(packed.clone(), length).as_ref(), Some(&large));
        for wrong in [0, 1, -1, 64, i64::MAX, length.unwrap() - 1, length.unwrap() + 1] {
            assert_eq!(unpack(packed.clone(), Some(wrong)), None, "{wrong}");
        }
        for at in (0..packed.len()).step_by(7) {
            let mut altered = packed.clone();
            altered[at] ^= 0x55;
            assert_ne!(unpack(altered, length).as_ref(), Some(&large), "{at}");
        }
    }
}
