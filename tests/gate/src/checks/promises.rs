//! The contract of the journal port, as the store's own tests have it, on the file and on the journal in memory.

use super::fixture::contract::{self, Made};
use super::said;
use crate::battery::Case;
use platflow_engine::clock::ScaledClock;
use platflow_engine::memory::MemoryJournal;
use platflow_state::{Store, StoreSettings};
use std::pin::Pin;
use std::sync::Arc;

type Promise = fn(Made) -> Pin<Box<dyn Future<Output = ()> + Send>>;

fn kept(promise: Promise, in_file: bool) -> Result<(), String> {
    let folder = tempfile::tempdir().map_err(said)?;
    let journal: Made = if in_file {
        Store::open(&folder.path().join("state.db"), StoreSettings::default()).map_err(said)?
    } else {
        Arc::new(MemoryJournal::new(Arc::new(ScaledClock::real())))
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().map_err(said)?;
    runtime.block_on(promise(journal));
    Ok(())
}

macro_rules! promises {
    ($($name:ident)*) => {
        [$((stringify!($name), (|journal| Box::pin(contract::$name(journal))) as Promise)),*]
    };
}

/// The cases.
#[must_use]
pub fn cases() -> Vec<Case> {
    let promises = promises! {
        a_created_run_reads_back_whole
        appends_extend_the_journal_in_order
        a_stale_sequence_is_refused_whole
        an_unfinished_run_holds_its_environment
        an_environment_is_pinned
        a_taken_run_id_is_refused
        an_earlier_owner_is_fenced_out
        a_released_lease_appends_nothing
        of_many_who_acquire_one_wins
        a_run_is_found_by_prefix
        lists_are_newest_first
        the_record_follows_the_batches
        a_finished_run_can_be_taken_up_again
        the_unknown_is_not_found
        many_runs_append_at_once
    };
    let both = promises.into_iter().flat_map(|(name, promise)| [(name, promise, true), (name, promise, false)]);
    both.map(|(name, promise, in_file)| Case::new(name, move || kept(promise, in_file))).collect()
}
