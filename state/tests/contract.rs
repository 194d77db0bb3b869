//! The contract of the journal port, proven on every implementation: whatever holds for one must hold for the others.
//!
//! What only the SQLite file can do (damage, several processes, death) has test files of its own.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

mod fixture;

use fixture::contract::{self, Made};
use std::sync::Arc;

macro_rules! contract {
    ($($name:ident)*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                let (_kept, journal) = make();
                contract::$name(journal).await;
            }
        )*
    };
}

macro_rules! on {
    ($implementation:ident, $make:item) => {
        mod $implementation {
            use super::*;
            $make
            contract! {
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
            }
        }
    };
}

on!(
    sqlite,
    fn make() -> (tempfile::TempDir, Made) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.db");
        let store = platflow_state::Store::open(&path, platflow_state::StoreSettings::default()).unwrap();
        (folder, store)
    }
);

on!(
    memory,
    fn make() -> ((), Made) {
        let clock = Arc::new(platflow_engine::clock::ScaledClock::real());
        ((), Arc::new(platflow_engine::memory::MemoryJournal::new(clock)))
    }
);
