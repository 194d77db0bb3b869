//! The hash chain over a run's events: a lost, altered, reordered or transplanted row is detected.
//!
//! It proves integrity against accidents and careless hands, not against somebody who rewrites the whole file.

use sha2::{Digest, Sha256};

/// A link of the chain.
pub(crate) type Hash = [u8; 32];

/// The link before the first event: binds the chain to its run and to the plan that the run is pinned to.
pub(crate) fn genesis(run: &str, plan_digest: &str, plan_sha256: &Hash) -> Hash {
    let mut hash = Sha256::new();
    field(&mut hash, b"platflow journal 1");
    field(&mut hash, run.as_bytes());
    field(&mut hash, plan_digest.as_bytes());
    field(&mut hash, plan_sha256);
    hash.finalize().into()
}

/// What one link covers.
pub(crate) struct Link<'a> {
    pub(crate) sequence: i64,
    pub(crate) kind: &'a str,
    pub(crate) step: Option<&'a str>,
    pub(crate) payload: &'a [u8],
    pub(crate) recorded_at: i64,
}

/// The link after `before`.
pub(crate) fn next(before: &Hash, link: &Link<'_>) -> Hash {
    let mut hash = Sha256::new();
    hash.update(before);
    hash.update(link.sequence.to_le_bytes());
    hash.update(link.recorded_at.to_le_bytes());
    field(&mut hash, link.kind.as_bytes());
    match link.step {
        Some(step) => field(&mut hash, step.as_bytes()),
        None => hash.update(u64::MAX.to_le_bytes()),
    }
    field(&mut hash, link.payload);
    hash.finalize().into()
}

/// SHA-256 of some bytes.
pub(crate) fn digest(bytes: &[u8]) -> Hash {
    Sha256::digest(bytes).into()
}

fn field(hash: &mut Sha256, bytes: &[u8]) {
    hash.update((bytes.len() as u64).to_le_bytes());
    hash.update(bytes);
}
