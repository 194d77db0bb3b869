//! Several living owners of one run: each is held up until its lease is over, is taken over from, and goes on unaware,
//! on a store of its own on the same simulated disk.
//!
//! The takeover falls at a drawn call of the owner and a drawn number of turns of the scheduler later; a seed names a case.

use platflow_engine::drive::{DriveError, DriveOutcome};
use platflow_engine::event::{Ending, Event};
use platflow_engine::journal::JournalError;
use platflow_engine::model::clock::SimulatedClock;
use platflow_engine::model::generate;
use platflow_engine::model::sweep::{self, Recovery, Subject, Undisturbed};
use platflow_engine::model::trial::{End, MortalJournal, Trial, TrialError};
use platflow_engine::name::RunId;
use platflow_engine::plan::OnFailure;
use platflow_report::Sweep;
use platflow_simulation::journal::SimulatedStore;
use platflow_simulation::{scale, shipped, workers};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::task::JoinHandle;

/// The most turns of the scheduler between a call and the takeover.
const TURNS: u32 = 12;
/// The most owners of one run.
const OWNERS: u64 = 4;

type Owned = JoinHandle<Result<End, TrialError>>;

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().expect("a runtime").block_on(future)
}

#[derive(Debug, Default)]
struct Tally {
    runs: AtomicU64,
    takeovers: AtomicU64,
}

/// Lets an owner work until it made `calls` more, and some turns longer; false if the run ended before.
async fn held_up(trial: &Trial<SimulatedStore>, id: &RunId, owner: &Owned, calls: u64, turns: u32) -> bool {
    let until = trial.world.calls() + calls;
    while trial.world.calls() < until && !owner.is_finished() {
        tokio::task::yield_now().await;
    }
    for _ in 0..turns {
        tokio::task::yield_now().await;
    }
    !owner.is_finished() && trial.load(id).await.is_ok_and(|run| run.state.ending.is_none())
}

async fn case(seed: u64, subject: &Subject, expected: &Undisturbed, tally: &Tally) -> Result<(), String> {
    let mut random = StdRng::seed_from_u64(seed);
    let said = |error: &dyn std::error::Error| format!("{error} ({error:?})");
    let clock = Arc::new(SimulatedClock::default());
    let trial = Trial::on(Arc::new(SimulatedStore::new()), clock, &subject.habits, false).map_err(|e| said(&e))?;
    let trial = Arc::new(subject.prepare_on(trial).await.map_err(|error| said(&error))?);
    let id: RunId = sweep::run_id().map_err(|error| said(&error))?;
    let (first, plan, run) = (Arc::clone(&trial), subject.plan.clone(), id.clone());
    let mut owner: Owned = tokio::spawn(async move { first.run(&run, &plan, OnFailure::Park).await });
    let mut fenced: Vec<Owned> = Vec::new();
    let owners = random.random_range(2..=OWNERS);
    for epoch in 1..owners {
        let calls = random.random_range(1..=(expected.calls / (owners - 1)).max(1));
        if !held_up(&trial, &id, &owner, calls, random.random_range(0..=TURNS)).await {
            break;
        }
        trial.journal.end_lease(&id, epoch);
        tally.takeovers.fetch_add(1, Ordering::Relaxed);
        let (next, run) = (Arc::clone(&trial), id.clone());
        fenced.push(std::mem::replace(&mut owner, tokio::spawn(async move { next.resume(&run, None).await })));
    }
    let end = owner.await.map_err(|error| said(&error))?.map_err(|error| said(&error))?;
    if end != End::Outcome(DriveOutcome::Finished(Ending::Done)) {
        return Err(format!("the last owner ended as {end:?}"));
    }
    let story = trial.journal.story(&id).map_err(|error| said(&error))?;
    for (epoch, stale) in (1..).zip(fenced) {
        let until_the_end = story.iter().take_while(|event| !matches!(event, Event::RunFinished { .. }));
        let newer = |event: &Event| matches!(event, Event::OwnerChanged { epoch: new, .. } if *new > epoch);
        let followed = until_the_end.filter(|event| newer(event)).count() > 0;
        match stale.await.map_err(|error| said(&error))? {
            Err(TrialError::Drive(DriveError::Journal(JournalError::Stale { .. }))) => {}
            // It wrote its last word in the moment between the end of its lease and the takeover.
            Ok(_) if !followed => {}
            other => return Err(format!("owner {epoch} was taken over from and ended as {other:?}")),
        }
    }
    trial.journal.revive();
    if !trial.journal.lost().is_empty() {
        return Err(trial.journal.lost().join("; "));
    }
    subject.check(&trial, &id, Recovery::Forward, expected).await?;
    tally.runs.fetch_add(1, Ordering::Relaxed);
    Ok(())
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
    let seeds: Vec<u64> = match scale::replay() {
        Some(seed) => vec![seed],
        None => (0..scale::of(1_200, 12_000) as u64).collect(),
    };
    let sweep = Sweep::begin("living owners that are taken over from");
    let tally = Tally::default();
    workers::judge(
        &seeds,
        || (),
        |(), seed| {
            let subject = subject(*seed);
            block_on(async {
                let expected = subject.undisturbed(false).await.map_err(|broken| broken.to_string())?;
                case(*seed, &subject, &expected, &tally).await
            })
            .map_err(|problem| format!("seed {seed}: {problem}"))
        },
    );
    sweep.end(seeds.len(), platflow_report::seeds(&seeds), format_args!("{tally:?}"));
    let takeovers = tally.takeovers.load(Ordering::Relaxed);
    assert!(scale::replay().is_some() || takeovers > seeds.len() as u64, "{takeovers} takeovers are too few");
}
