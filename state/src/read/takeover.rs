//! What a takeover reads before it takes the lease: the run's whole chain, checked, and in the same pass its rows with the
//! events that they name.
//!
//! What comes of it is handed to the load that follows, which looks whether it is still what the run is.

use super::journaled::Journaled;
use super::run_payload;
use super::steps::{self, Stored};
use crate::chain::Hash;
use platflow_engine::journal::{JournalError, LoadedStep, StoredEvent};
use platflow_engine::name::RunId;
use platflow_engine::plan::Plan;
use rusqlite::Connection;

/// A run, ready to be taken over.
pub(crate) struct Ready {
    pub(crate) chained: Chained,
    pub(crate) plan: Plan,
}

/// The rows of a run whose chain is whole.
pub(crate) struct Chained {
    run: RunId,
    number: i64,
    head: i64,
    head_hash: Hash,
    genesis: Hash,
    pub(super) run_payload: Vec<u8>,
    pub(super) steps: Vec<LoadedStep>,
}

impl Chained {
    /// True if nothing was appended since: rows change with events only, and the hash of the last event covers them all.
    pub(super) fn is_of(&self, journal: &Journaled<'_>) -> bool {
        self.run == *journal.run
            && self.genesis == journal.genesis
            && (self.number, self.head, self.head_hash) == (journal.number, journal.head, journal.head_hash)
    }

    pub(crate) fn run(&self) -> &RunId {
        &self.run
    }
}

/// An event that a row names.
struct Named {
    sequence: i64,
    row: usize,
    what: What,
}

#[derive(Clone, Copy)]
enum What {
    Intent,
    Outcome,
}

/// What is named by which rows, in the order of the journal.
fn named(rows: &[Stored]) -> Vec<Named> {
    let mut named: Vec<Named> = rows
        .iter()
        .enumerate()
        .flat_map(|(row, stored)| {
            let one = move |sequence: Option<i64>, what| Some(Named { sequence: sequence?, row, what });
            [one(stored.intent, What::Intent), one(stored.outcome, What::Outcome)]
        })
        .flatten()
        .collect();
    named.sort_unstable_by_key(|one| one.sequence);
    named
}

/// Checks the chain of a run from its beginning to its end, and reads its rows on the way.
pub(crate) fn chained(connection: &Connection, run: &RunId) -> Result<Chained, JournalError> {
    let journal = Journaled::of(connection, run)?;
    journal.check_tail(connection)?;
    let rows = steps::rows(connection, run, journal.number)?;
    let mut wanted = named(&rows).into_iter().peekable();
    let mut found: Vec<(Option<StoredEvent>, Option<StoredEvent>)> = rows.iter().map(|_| (None, None)).collect();
    journal.walk(connection, 0, usize::MAX, &mut |event| {
        while let Some(Named { sequence, row, what }) = wanted.next_if(|named| named.sequence <= event.sequence) {
            if sequence < event.sequence {
                // There is no such event: its row will miss it.
                continue;
            }
            let (Some(stored), Some(slot)) = (rows.get(row), found.get_mut(row)) else { continue };
            let slot = match what {
                What::Intent => &mut slot.0,
                What::Outcome => &mut slot.1,
            };
            *slot = Some(stored.named(run, event)?);
        }
        Ok(())
    })?;
    let steps = rows
        .into_iter()
        .zip(found)
        .map(|(stored, (intent, outcome))| stored.with(run, intent, outcome))
        .collect::<Result<_, _>>()?;
    Ok(Chained {
        run: run.clone(),
        number: journal.number,
        head: journal.head,
        head_hash: journal.head_hash,
        genesis: journal.genesis,
        run_payload: run_payload(connection, run, journal.number)?,
        steps,
    })
}
