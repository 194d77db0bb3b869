//! A sum under what is folded and cached: what is acted on after a crash is read from these rows and not from the events,
//! so a page that went bad must not read as another state. (Events have their chain, plans their hash.)
//!
//! It covers whose row it is as well, so that a row in the place of another is noticed. Rows of steps and of the record
//! have it in a column; what has no column for it ends in it: a line break and sixteen digits, which no folded state ends
//! in. Rows of files that are older than the sum have none, and are taken as they are.

use platflow_engine::journal::JournalError;
use sha2::{Digest, Sha256};

/// A line break and the first eight bytes of the sum.
const LENGTH: usize = 17;

/// A sum in a column.
pub(crate) type Sum = [u8; 8];

fn field(hash: &mut Sha256, bytes: Option<&[u8]>) {
    match bytes {
        Some(bytes) => {
            hash.update((bytes.len() as u64).to_le_bytes());
            hash.update(bytes);
        }
        None => hash.update(u64::MAX.to_le_bytes()),
    }
}

fn finish(hash: Sha256) -> Sum {
    let mut sum = Sum::default();
    for (to, from) in sum.iter_mut().zip(hash.finalize()) {
        *to = from;
    }
    sum
}

/// What the sum of a step's row covers beside its payload.
pub(crate) struct StateSum<'a> {
    pub(crate) run: &'a str,
    pub(crate) step: &'a str,
    pub(crate) state: &'a str,
    pub(crate) intent: Option<i64>,
    pub(crate) outcome: Option<i64>,
}

impl StateSum<'_> {
    pub(crate) fn over(&self, payload: Option<&[u8]>) -> Sum {
        let mut hash = Sha256::new();
        for part in [self.run, self.step, self.state] {
            field(&mut hash, Some(part.as_bytes()));
        }
        for place in [self.intent, self.outcome] {
            hash.update(place.unwrap_or(-1).to_le_bytes());
        }
        field(&mut hash, payload);
        finish(hash)
    }
}

/// The sum of a row of the record.
pub(crate) fn record(environment: &str, step: &str, run: &str, body: Option<&[u8]>) -> Sum {
    let mut hash = Sha256::new();
    for part in [environment, step, run] {
        field(&mut hash, Some(part.as_bytes()));
    }
    field(&mut hash, body);
    finish(hash)
}

/// What is told of a row whose sum is wrong.
pub(crate) fn altered(of: &[&str]) -> JournalError {
    JournalError::Damaged(format!("what is on record of {} was altered", of.join(" ")))
}

fn sum(of: &[&str], content: &[u8]) -> String {
    let mut hash = Sha256::new();
    for part in of {
        field(&mut hash, Some(part.as_bytes()));
    }
    hash.update(content);
    hex::encode(finish(hash))
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
        return Err(altered(of));
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
