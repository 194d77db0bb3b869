//! Fresh random identifiers: the one place that draws randomness for runs and environments.

use crate::failure::{CommandError, ExitCode};
use platflow_engine::name::{EnvironmentUid, RunId};
use rand::Rng;

/// No vowels (no accidental words), no 0/o/1/l (read aloud at 2 a.m.).
const ALPHABET: &[u8] = b"23456789bcdfghjkmnpqrstvwxz";

fn random_text(length: usize) -> String {
    let mut generator = rand::rng();
    (0..length)
        .filter_map(|_| ALPHABET.get(generator.next_u32() as usize % ALPHABET.len()))
        .map(|byte| char::from(*byte))
        .collect()
}

fn malformed(error: platflow_engine::name::InvalidName) -> CommandError {
    CommandError::new(ExitCode::Internal, "a fresh identifier is malformed").caused_by(error)
}

/// A run id: eight characters, about 38 bits; the store refuses one that is taken.
///
/// # Errors
/// Only if the alphabet breaks the rules of names.
pub(crate) fn run_id() -> Result<RunId, CommandError> {
    RunId::new(random_text(8)).map_err(malformed)
}

/// An environment uid: 26 characters, about 123 bits.
///
/// # Errors
/// Only if the alphabet breaks the rules of names.
pub(crate) fn environment_uid() -> Result<EnvironmentUid, CommandError> {
    EnvironmentUid::new(random_text(26)).map_err(malformed)
}
