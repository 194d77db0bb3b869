//! The key of an event: the number of its run and its sequence in one integer, so that the table needs no second index.

use crate::failure::storage;
use platflow_engine::journal::JournalError;

/// Bits of the sequence.
const BITS: u32 = 32;

#[derive(Debug, thiserror::Error)]
#[error("event {sequence} of run number {run} is more than a state file can hold")]
struct TooMany {
    run: i64,
    sequence: i64,
}

/// The key of an event of a run; of sequence 0, the place before its first one.
pub(crate) fn of(run: i64, sequence: i64) -> Result<i64, JournalError> {
    let fits = (1..1 << (63 - BITS)).contains(&run) && (0..1 << BITS).contains(&sequence);
    if fits { Ok((run << BITS) | sequence) } else { Err(storage("written", TooMany { run, sequence })) }
}

/// The sequence that a key stands for.
pub(crate) fn sequence(key: i64) -> i64 {
    key & ((1 << BITS) - 1)
}

/// The first and the last key that events of a run can have.
pub(crate) fn range(run: i64) -> Result<(i64, i64), JournalError> {
    let before = of(run, 0)?;
    Ok((before + 1, before + (1 << BITS) - 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Proves that keys of one run lie together in the order of their sequences, that those of another are elsewhere, and
    /// that what does not fit is refused and not folded onto somebody else's place.
    #[test]
    fn keys_do_not_meet() {
        let last = (1 << BITS) - 1;
        assert!(of(1, last).unwrap() < of(2, 0).unwrap());
        assert_eq!(sequence(of(7, 42).unwrap()), 42);
        assert_eq!(range(3).unwrap(), (of(3, 1).unwrap(), of(3, last).unwrap()));
        for (run, sequence) in [(0, 1), (-1, 1), (1, -1), (1, 1 << BITS), (1 << 31, 1)] {
            assert!(of(run, sequence).is_err(), "{run} {sequence}");
        }
    }
}
