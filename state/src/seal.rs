//! A sum under what is folded and cached: what is acted on after a crash is read from these rows and not from the events,
//! so a page that went bad must not read as another state. (Events have their chain, plans their hash.)
//!
//! The sum stands at the end of the row's content: a line break and sixteen digits, which no folded state ends in. It
//! covers whose row it is as well, so that a row in the place of another is noticed. Rows of files that are older than
//! the sum have none, and are taken as they are.

use platflow_engine::journal::JournalError;
use sha2::{Digest, Sha256};

/// A line break and the first eight bytes of the sum.
const LENGTH: usize = 17;

fn sum(of: &[&str], content: &[u8]) -> String {
    let mut hash = Sha256::new();
    for part in of {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part.as_bytes());
    }
    hash.update(content);
    let mut digits = hex::encode(hash.finalize());
    digits.truncate(LENGTH - 1);
    digits
}

/// The content of a row with its sum.
pub(crate) fn seal(of: &[&str], content: &[u8]) -> Vec<u8> {
    let mut sealed = Vec::with_capacity(content.len() + LENGTH);
    sealed.extend_from_slice(content);
    sealed.push(b'\n');
    sealed.extend_from_slice(sum(of, content).as_bytes());
    sealed
}

/// The content of a row whose sum is right, or that has none.
pub(crate) fn open(of: &[&str], mut stored: Vec<u8>) -> Result<Vec<u8>, JournalError> {
    let Some(at) = stored.len().checked_sub(LENGTH) else { return Ok(stored) };
    let (content, tail) = stored.split_at(at);
    let Some(found) = tail.strip_prefix(b"\n").filter(|found| found.iter().all(u8::is_ascii_hexdigit)) else {
        return Ok(stored);
    };
    if sum(of, content).as_bytes() != found {
        return Err(JournalError::Damaged(format!("what is on record of {} was altered", of.join(" "))));
    }
    stored.truncate(at);
    Ok(stored)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Proves that content comes back, that any single altered byte is refused or reads as no JSON, that the row of another
    /// is refused, and that a row without a sum is taken as it is.
    #[test]
    fn an_altered_row_is_noticed() {
        let content = br#"{"phase":"verified","outputs":{"id":7}}"#;
        let sealed = seal(&["run", "step"], content);
        assert_eq!(open(&["run", "step"], sealed.clone()).unwrap(), content);
        assert_eq!(open(&["run", "step"], content.to_vec()).unwrap(), content);
        assert!(open(&["run", "other"], sealed.clone()).is_err());
        for at in 0..sealed.len() {
            for bit in 0..8 {
                let mut altered = sealed.clone();
                altered[at] ^= 1 << bit;
                let read = open(&["run", "step"], altered);
                assert!(read.is_err() || serde_json::from_slice::<serde_json::Value>(&read.unwrap()).is_err(), "{at}");
            }
        }
    }
}
