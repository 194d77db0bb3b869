//! Several living owners of one run: each is held up until its lease is over, is taken over from, and goes on unaware.
//!
//! On stores of their own on one simulated disk, and, many more times, on the journal in memory.

use platflow_engine::memory::MemoryJournal;
use platflow_engine::model::clock::SimulatedClock;
use platflow_engine::model::generate;
use platflow_engine::model::sweep::Subject;
use platflow_engine::model::trial::Trial;
use platflow_report::Sweep;
use platflow_simulation::journal::SimulatedStore;
use platflow_simulation::takeover::{self, Contested, Tally};
use platflow_simulation::{scale, shipped, workers};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Plays the cases of all seeds; says what they came to.
fn sweep<J: Contested>(
    what: &str,
    count: usize,
    wanted: u64,
    subject: impl Fn(u64) -> Subject + Sync,
    journal: fn() -> Arc<J>,
) {
    let seeds: Vec<u64> = match scale::replay() {
        Some(seed) => vec![seed],
        None => (0..count as u64).collect(),
    };
    let (tally, begun) = (Tally::default(), Sweep::begin(what));
    workers::judge(
        &seeds,
        || tokio::runtime::Builder::new_current_thread().build().expect("a runtime"),
        |runtime, seed| {
            let subject = subject(*seed);
            let played = runtime.block_on(async {
                let expected = subject.undisturbed(false).await.map_err(|broken| broken.to_string())?;
                let clock = Arc::new(SimulatedClock::default());
                let trial = Trial::on(journal(), clock, &subject.habits, false).map_err(|error| error.to_string())?;
                takeover::case(*seed, trial, &subject, &expected, &tally).await
            });
            played.map_err(|problem| format!("seed {seed}: {problem}"))
        },
    );
    begun.end(seeds.len(), platflow_report::seeds(&seeds), format_args!("{tally:?}"));
    let takeovers = tally.takeovers.load(Ordering::Relaxed);
    assert!(scale::replay().is_some() || takeovers >= wanted, "{takeovers} takeovers are too few");
}

/// Proves that of several owners on one disk only the newest adds facts, that the others end as stale, and that nothing is
/// made twice, whatever call of whose was on its way.
#[test]
fn only_the_newest_owner_goes_on() {
    let graph = shipped::fixture();
    let subject = |seed: u64| match seed % 4 {
        0 => shipped::subject(&graph, seed.is_multiple_of(8)),
        _ => generate::subject(seed, 9).expect("well-formed names"),
    };
    let runs = scale::of(1_200, 12_000);
    sweep("owners on one disk", runs, runs as u64, subject, || Arc::new(SimulatedStore::new()));
}

/// Proves the same over at least 100,000 takeovers at drawn turns of the scheduler: no fact by an owner that was taken over
/// from, no call without an intent that was journaled before, nothing made twice, nothing left behind.
#[test]
fn a_hundred_thousand_takeovers_leave_one_owner() {
    let subject = |seed: u64| generate::subject(seed, 4).expect("well-formed names");
    let journal = || Arc::new(MemoryJournal::new(Arc::new(SimulatedClock::default())));
    // Some runs end before anybody is ready to take them over.
    sweep("owners in memory", 140_000, 100_000, subject, journal);
}
