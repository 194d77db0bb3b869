//! Power cuts in the middle of runs on the real store: nothing that was acknowledged is lost, rows fit events, and the run
//! goes on to its end.

use super::{block_on, ensure, said};
use crate::battery::Case;
use platflow_engine::drive::DriveOutcome;
use platflow_engine::event::Ending;
use platflow_engine::model::clock::SimulatedClock;
use platflow_engine::model::generate;
use platflow_engine::model::sweep::{self, Recovery, Subject, Undisturbed};
use platflow_engine::model::trial::{End, MortalJournal, Trial};
use platflow_engine::plan::OnFailure;
use platflow_simulation::disk::Trouble;
use platflow_simulation::journal::{Restart, SimulatedStore};
use std::sync::Arc;

const CASES: u64 = 160;

async fn cut(subject: &Subject, expected: &Undisturbed, number: u64) -> Result<(), String> {
    let clock = Arc::new(SimulatedClock::default());
    let trial = Trial::on(Arc::new(SimulatedStore::new()), clock, &subject.habits, false).map_err(said)?;
    let trial = subject.prepare_on(trial).await.map_err(said)?;
    let id = sweep::run_id().map_err(said)?;
    let disk = trial.journal.disk();
    // About seven operations of the disk make one event durable.
    disk.trouble(disk.operations() + 1 + number * expected.events * 8 / CASES, Trouble::PowerCut);
    let end = trial.run(&id, &subject.plan, OnFailure::Park).await.map_err(said)?;
    trial.journal.restart(Restart::PowerCut(number));
    trial.journal.revive();
    let lost = trial.journal.lost();
    ensure(lost.is_empty(), || lost.join("; "))?;
    ensure(sweep::consistent(&trial, &id).await?, || "the rows are not the fold of the events".to_owned())?;
    let end = match trial.load(&id).await {
        Ok(_) => sweep::recover(&trial, &id, Recovery::Forward).await?,
        Err(_) if end == End::Died => trial.run(&id, &subject.plan, OnFailure::Park).await.map_err(said)?,
        Err(error) => return Err(said(error)),
    };
    let done = end == End::Outcome(DriveOutcome::Finished(Ending::Done));
    ensure(done, || format!("it ended as {end:?}"))?;
    subject.check(&trial, &id, Recovery::Forward, expected).await
}

/// The cases.
///
/// # Errors
/// When an undisturbed run does not end well.
pub fn cases() -> Result<Vec<Case>, String> {
    let subject = generate::subject(3, 7).map_err(said)?;
    let expected = block_on(async { subject.undisturbed(false).await.map_err(said) })?;
    let swept = Arc::new((subject, expected));
    let case = |number| {
        let swept = Arc::clone(&swept);
        Case::new("power cuts", move || block_on(cut(&swept.0, &swept.1, number)))
    };
    Ok((0..CASES).map(case).collect())
}
