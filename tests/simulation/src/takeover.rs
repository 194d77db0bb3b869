//! One case of several living owners: each is held up, is taken over from in the middle of its work, and goes on unaware.
//!
//! The takeover falls at a drawn call of the owner and a drawn number of turns of the scheduler later; a seed names a case.
//! Any journal will do whose owners can be taken for dead while they live.

use crate::journal::SimulatedStore;
use platflow_engine::drive::{DriveError, DriveOutcome};
use platflow_engine::event::{Ending, Event};
use platflow_engine::journal::JournalError;
use platflow_engine::memory::MemoryJournal;
use platflow_engine::model::sweep::{self, Recovery, Subject, Undisturbed};
use platflow_engine::model::trial::{End, MortalJournal, Trial, TrialError};
use platflow_engine::name::RunId;
use platflow_engine::plan::OnFailure;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::task::JoinHandle;

/// The most turns of the scheduler between a call and the takeover.
const TURNS: u32 = 12;
/// The most owners of one run.
const OWNERS: u64 = 4;

/// What the cases so far came to.
#[derive(Debug, Default)]
pub struct Tally {
    /// Runs that ended right.
    pub runs: AtomicU64,
    /// Owners that were taken over from while they lived.
    pub takeovers: AtomicU64,
    /// Calls that were made while more than one owner lived.
    pub contested: AtomicU64,
}

/// A journal that can be told to take a living owner for dead.
pub trait Contested: MortalJournal + Sized {
    /// The owner of this epoch is taken for dead from now on.
    fn end_lease(&self, run: &RunId, epoch: u64);
    /// Everything is over: the journal is looked into by somebody else.
    fn close(&self) {}
    /// Acknowledged facts that are gone.
    fn lost_facts(&self) -> Vec<String> {
        Vec::new()
    }
}

impl Contested for SimulatedStore {
    fn end_lease(&self, run: &RunId, epoch: u64) {
        Self::end_lease(self, run, epoch);
    }

    fn close(&self) {
        self.revive();
    }

    fn lost_facts(&self) -> Vec<String> {
        self.lost()
    }
}

impl Contested for MemoryJournal {
    fn end_lease(&self, run: &RunId, _epoch: u64) {
        self.presume_dead(run);
    }
}

type Owned = JoinHandle<Result<End, TrialError>>;

/// Lets an owner work until it made `calls` more, and some turns longer; false if the run ended before.
async fn held_up<J: Contested>(trial: &Trial<J>, id: &RunId, owner: &Owned, calls: u64, turns: u32) -> bool {
    let until = trial.world.calls() + calls;
    while trial.world.calls() < until && !owner.is_finished() {
        tokio::task::yield_now().await;
    }
    for _ in 0..turns {
        tokio::task::yield_now().await;
    }
    !owner.is_finished() && trial.load(id).await.is_ok_and(|run| run.state.ending.is_none())
}

fn said(error: &dyn std::error::Error) -> String {
    format!("{error} ({error:?})")
}

/// Plays the case of a seed on an empty environment.
///
/// # Errors
/// What is not as it should be: a fact or a call of an owner that was taken over from, something made twice, another world.
pub async fn case<J: Contested>(
    seed: u64,
    trial: Trial<J>,
    subject: &Subject,
    expected: &Undisturbed,
    tally: &Tally,
) -> Result<(), String> {
    let mut random = StdRng::seed_from_u64(seed);
    let trial = Arc::new(subject.prepare_on(trial).await.map_err(|error| said(&error))?);
    let id: RunId = sweep::run_id().map_err(|error| said(&error))?;
    let (first, plan, run) = (Arc::clone(&trial), subject.plan.clone(), id.clone());
    let mut owner: Owned = tokio::spawn(async move { first.run(&run, &plan, OnFailure::Park).await });
    let mut fenced: Vec<Owned> = Vec::new();
    let owners = random.random_range(2..=OWNERS);
    let mut before = None;
    for epoch in 1..owners {
        let calls = random.random_range(1..=(expected.calls / (owners - 1)).max(1));
        if !held_up(&trial, &id, &owner, calls, random.random_range(0..=TURNS)).await {
            break;
        }
        trial.journal.end_lease(&id, epoch);
        before.get_or_insert(trial.world.calls());
        tally.takeovers.fetch_add(1, Ordering::Relaxed);
        let (next, run) = (Arc::clone(&trial), id.clone());
        fenced.push(std::mem::replace(&mut owner, tokio::spawn(async move { next.resume(&run, None).await })));
    }
    let end = owner.await.map_err(|error| said(&error))?.map_err(|error| said(&error))?;
    if end != End::Outcome(DriveOutcome::Finished(Ending::Done)) {
        return Err(format!("the last owner ended as {end:?}"));
    }
    tally.contested.fetch_add(trial.world.calls() - before.unwrap_or(trial.world.calls()), Ordering::Relaxed);
    stale(&trial, &id, fenced).await?;
    trial.journal.close();
    let lost = trial.journal.lost_facts();
    if !lost.is_empty() {
        return Err(lost.join("; "));
    }
    subject.check(&trial, &id, Recovery::Forward, expected).await?;
    tally.runs.fetch_add(1, Ordering::Relaxed);
    Ok(())
}

/// Each owner that was taken over from ended as stale: it added no fact.
async fn stale<J: Contested>(trial: &Trial<J>, id: &RunId, fenced: Vec<Owned>) -> Result<(), String> {
    let story = trial.journal.story(id).map_err(|error| said(&error))?;
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
    Ok(())
}
