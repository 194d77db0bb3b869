//! The measured thing: the real engine on the real store, at full durability, with steps that do nothing.

use crate::Failure;
use crate::listening::Listening;
use crate::measure::{Figures, Reading, file_bytes};
use crate::nothing::{At, Nothing};
use crate::plans::{self, Shape};
use platflow_engine::clock::ScaledClock;
use platflow_engine::destroy::Literal;
use platflow_engine::drive::{DriveOutcome, Engine, Settings, StartRun, Unobserved};
use platflow_engine::event::Ending;
use platflow_engine::journal::{Batch, Journal};
use platflow_engine::name::{EnvironmentUid, RunId};
use platflow_engine::plan::OnFailure;
use platflow_engine::step::Step;
use platflow_state::{Store, StoreSettings, this_process};
use serde_json::Value;
use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

pub(crate) fn state_file(place: &Path) -> PathBuf {
    place.join("state.db")
}

pub(crate) fn effects_file(place: &Path) -> PathBuf {
    place.join("effects")
}

fn engine(journal: Arc<dyn Journal>, step: Arc<dyn Step>, in_flight: usize) -> Result<Engine, Failure> {
    Ok(Engine {
        journal,
        catalog: plans::catalog(step)?,
        clock: Arc::new(ScaledClock::real()),
        resolver: Arc::new(Literal),
        observer: Arc::new(Unobserved),
        settings: Settings { max_in_flight: in_flight, ..Settings::default() },
    })
}

fn run_id(number: usize) -> Result<RunId, Failure> {
    Ok(RunId::new(format!("bench-{number}"))?)
}

/// Starts and drives one run of its own environment.
async fn whole(engine: &Engine, shape: Shape, steps: usize, number: usize) -> Result<(), Failure> {
    let environment = format!("bench-{number}");
    let new = StartRun {
        id: run_id(number)?,
        plan: plans::plan(shape, steps, &environment)?,
        environment_uid: EnvironmentUid::new(&environment)?,
        target: Value::Null,
        owner: this_process()?,
        on_failure: OnFailure::Park,
        destroy: None,
    };
    let (lease, mut run) = engine.start(new).await?;
    match engine.drive(&lease, &mut run, CancellationToken::new()).await? {
        DriveOutcome::Finished(Ending::Done) => Ok(()),
        other => Err(Failure::Ended(format!("{other:?}"))),
    }
}

/// How much of what is driven.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Load {
    pub(crate) shape: Shape,
    /// Steps of each run.
    pub(crate) steps: usize,
    /// Runs at once.
    pub(crate) runs: usize,
    /// The most steps of a run in flight.
    pub(crate) in_flight: usize,
}

fn gaps(begun: &[Instant]) -> Vec<Duration> {
    begun.windows(2).filter_map(|pair| Some(pair.get(1)?.duration_since(*pair.first()?))).collect()
}

/// Measures a load from the creation of its runs to their end.
pub(crate) async fn measured(place: &Path, load: Load) -> Result<Figures, Failure> {
    Ok(driven(place, load, false).await?.0)
}

/// The batches that a load writes, in order.
pub(crate) async fn batches(place: &Path, load: Load) -> Result<Vec<Batch>, Failure> {
    Ok(driven(place, load, true).await?.1)
}

async fn driven(place: &Path, load: Load, keep: bool) -> Result<(Figures, Vec<Batch>), Failure> {
    let path = state_file(place);
    let journal = Arc::new(Listening::to(Store::open(&path, StoreSettings::default())?, keep));
    let total = load.steps * load.runs;
    let nothing = Arc::new(Nothing::new(total, None, At::Never));
    let engine = engine(Arc::clone(&journal) as _, Arc::clone(&nothing) as _, load.in_flight)?;
    let empty = file_bytes(&path);
    let before = Reading::now();
    let mut running = tokio::task::JoinSet::new();
    for number in 0..load.runs {
        let engine = engine.clone();
        running.spawn(async move { whole(&engine, load.shape, load.steps, number).await });
    }
    while let Some(ended) = running.join_next().await {
        ended.map_err(|error| Failure::Ended(error.to_string()))??;
    }
    let samples = if load.shape == Shape::Chain && load.runs == 1 { gaps(&nothing.begun()) } else { journal.took() };
    let grown = file_bytes(&path).saturating_sub(empty);
    Ok((before.since(total as u64, grown, samples), journal.heard()))
}

/// Drives one more run, of an environment of its own.
pub(crate) async fn another(place: &Path, shape: Shape, steps: usize, number: usize) -> Result<(), Failure> {
    let store = Store::open(&state_file(place), StoreSettings::default())?;
    let engine = engine(store, Arc::new(Nothing::new(steps, None, At::Never)), 256)?;
    whole(&engine, shape, steps, number).await
}

/// Drives a run and dies at its n-th step.
pub(crate) async fn until_death(place: &Path, load: Load, steps: u64) -> Result<(), Failure> {
    let store = Store::open(&state_file(place), StoreSettings::default())?;
    let effects = OpenOptions::new().create(true).append(true).open(effects_file(place))?;
    let nothing = Arc::new(Nothing::new(load.steps, Some(effects), At::Die(steps)));
    let engine = engine(store, nothing, load.in_flight)?;
    whole(&engine, load.shape, load.steps, 0).await
}

/// Resumes what died; when its first new step began, and when it ended.
pub(crate) async fn resumed(place: &Path, load: Load) -> Result<(Option<Instant>, Instant), Failure> {
    let store = Store::open(&state_file(place), StoreSettings::default())?;
    let effects = OpenOptions::new().create(true).append(true).open(effects_file(place))?;
    let nothing = Arc::new(Nothing::new(load.steps, Some(effects), At::Never));
    let engine = engine(store, Arc::clone(&nothing) as _, load.in_flight)?;
    let (lease, mut run) = engine.resume(&run_id(0)?, &this_process()?, None).await?;
    match engine.drive(&lease, &mut run, CancellationToken::new()).await? {
        DriveOutcome::Finished(Ending::Done) => Ok((nothing.begun().first().copied(), Instant::now())),
        other => Err(Failure::Ended(format!("{other:?}"))),
    }
}
