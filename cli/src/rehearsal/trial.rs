//! One case from its beginning to its verdict, and the undisturbed run that all are compared with.

use crate::execution::drive_error;
use crate::failure::{CommandError, ExitCode};
use crate::rehearsal::case::{Case, Origin, Recovery};
use crate::rehearsal::draw::drawn;
use crate::rehearsal::judge::{self, Expected, Finding, finding};
use crate::rehearsal::kinds::Trouble;
use crate::rehearsal::recorder::Film;
use crate::rehearsal::stage::{Process, Stage, owner};
use crate::views::event_text;
use platflow_engine::drive::{DriveError, DriveOutcome, StartRun};
use platflow_engine::event::{Direction, Ending, ParkReason};
use platflow_engine::fold::Run;
use platflow_engine::journal::{Journal, JournalError, Lease};
use platflow_engine::name::StepName;
use platflow_engine::plan::OnFailure;
use platflow_engine::step::UndoPlan;
use platflow_sandbox::faults::Profile;
use std::sync::PoisonError;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How long a process may take in real time; those that are simulated need milliseconds.
const PATIENCE: Duration = Duration::from_secs(120);

/// How long after a crash the operator comes back, in simulated milliseconds: at once, after a coffee, in the morning.
const ABSENCES_MS: [i64; 3] = [1_000, 300_000, 30_600_000];

/// A run that parked is taken up again so often before it counts as stuck.
const RESUMES: u32 = 3;

/// What the undisturbed run was.
#[derive(Debug, Clone)]
pub(crate) struct Undisturbed {
    pub(crate) expected: Expected,
    pub(crate) film: Film,
}

/// How a process ended.
#[derive(Debug)]
enum End {
    Outcome(DriveOutcome),
    Died,
    Stuck,
}

/// What a case came to.
#[derive(Debug, Clone, Default)]
pub(crate) struct Verdict {
    /// What is wrong.
    pub(crate) findings: Vec<Finding>,
    /// The run stopped for a human to decide, as the runbook's declarations want it.
    pub(crate) asked: Option<String>,
    /// The second crash happened.
    pub(crate) crashed_again: bool,
    /// There is no such case in this runbook.
    pub(crate) absent: bool,
    /// Where it began, for people.
    pub(crate) place: String,
}

async fn started(stage: &Stage, process: &Process) -> Result<(Lease, Run), CommandError> {
    let script = &stage.script;
    let new = StartRun {
        id: script.run.clone(),
        plan: script.plan.clone(),
        environment_uid: script.uid.clone(),
        target: stage.target.clone(),
        owner: owner(1)?,
        on_failure: OnFailure::Park,
        destroy: None,
    };
    process.engine.start(new).await.map_err(drive_error)
}

async fn driven(process: &Process, lease: &Lease, run: &mut Run) -> Result<End, DriveError> {
    let drive = process.engine.drive(lease, run, CancellationToken::new());
    let outcome = tokio::time::timeout(PATIENCE, async {
        tokio::select! {
            biased;
            () = process.journal.death.notified() => None,
            outcome = drive => Some(outcome),
        }
    })
    .await;
    match outcome {
        Err(_) => Ok(End::Stuck),
        Ok(None) => Ok(End::Died),
        Ok(Some(outcome)) => outcome.map(End::Outcome),
    }
}

/// Runs the script with nothing in its way, and keeps every moment of it.
///
/// # Errors
/// A runbook that does not even end undisturbed: exit 5.
pub(crate) async fn undisturbed(stage: &Stage) -> Result<Undisturbed, CommandError> {
    stage.empty()?;
    let empty = judge::picture(stage)?;
    stage.empty()?;
    let process = stage.open(true, None)?;
    stage.recorder.film(&stage.state_file(), &stage.files(), &stage.copies())?;
    let (lease, mut run) = started(stage, &process).await?;
    let end = driven(&process, &lease, &mut run).await.map_err(drive_error)?;
    let film = stage.recorder.cut()?;
    match end {
        End::Outcome(DriveOutcome::Finished(Ending::Done)) => {}
        End::Outcome(DriveOutcome::Parked(reason)) => {
            let steps: Vec<String> = run
                .steps()
                .filter_map(|(step, state)| state.error().map(|error| format!("{}: {error}", step.name)))
                .collect();
            return Err(CommandError::new(
                ExitCode::Parked,
                format!("the runbook does not end even undisturbed: {}", event_text::park_reason(&reason)),
            )
            .with_remedy(steps.join("\n")));
        }
        other => {
            return Err(CommandError::new(ExitCode::Parked, format!("the undisturbed run ended as {other:?}")));
        }
    }
    let expected = Expected {
        empty,
        record: judge::record(stage, &process).await?,
        made: stage.recorder.made(),
        built: judge::picture(stage)?,
    };
    process.end().await?;
    Ok(Undisturbed { expected, film })
}

/// Sets the stage for a case; false when the runbook has no such place.
async fn disturb(
    stage: &Stage,
    undisturbed: &Undisturbed,
    case: &Case,
    verdict: &mut Verdict,
) -> Result<bool, CommandError> {
    match &case.origin {
        Origin::Boundary { number, landed } => {
            let Some(boundary) = undisturbed.film.boundaries.get(number - 1) else { return Ok(false) };
            verdict.place = format!("crash after commit {number}: {}", boundary.what);
            let moment = if *landed { boundary.landed.as_ref() } else { Some(&boundary.cut) };
            let Some(moment) = moment else { return Ok(false) };
            if *landed {
                verdict.place.push_str(" (calls under way landed)");
            }
            stage.restore(moment)?;
            stage.recorder.say(|| verdict.place.clone());
            Ok(true)
        }
        Origin::Call { number, after } => {
            let Some(point) = undisturbed.film.calls.get(number - 1) else { return Ok(false) };
            verdict.place = format!("crash {} call {number}: {}", if *after { "after" } else { "before" }, point.what);
            stage.restore(if *after { &point.after } else { &point.before })?;
            stage.recorder.say(|| verdict.place.clone());
            Ok(true)
        }
        Origin::Failure { step, class, landed } => {
            if !stage.script.plan.steps.iter().any(|planned| planned.name == *step) {
                return Ok(false);
            }
            stage.empty()?;
            let trouble = Trouble { step: step.clone(), class: *class, landed: *landed };
            *stage.troubles.lock().unwrap_or_else(PoisonError::into_inner) = Some(trouble);
            verdict.place = format!("{step} fails ({class:?}{})", if *landed { ", its work done" } else { "" });
            stage.recorder.say(|| verdict.place.clone());
            run_through(stage, verdict).await?;
            Ok(true)
        }
        Origin::Profile { name, seed } => {
            stage.empty()?;
            verdict.place = format!("{name} cloud, seed {seed}");
            stage.recorder.say(|| verdict.place.clone());
            let profile: Profile = format!("{name}:{seed}").parse().map_err(|error| {
                CommandError::new(ExitCode::Internal, "a profile of the sandbox cannot be drawn").caused_by(error)
            })?;
            stage.embedded.look(|world, _| world.faults.follow(profile));
            run_through(stage, verdict).await?;
            stage.embedded.look(|world, _| world.faults.clear());
            Ok(true)
        }
    }
}

/// A whole run with something in its way: it may end or park.
async fn run_through(stage: &Stage, verdict: &mut Verdict) -> Result<(), CommandError> {
    let process = stage.open(false, None)?;
    let (lease, mut run) = started(stage, &process).await?;
    match driven(&process, &lease, &mut run).await {
        Ok(End::Outcome(_)) => {}
        Ok(end) => verdict.findings.push(finding("a run that ends or parks", format!("{end:?}"))),
        Err(error) => verdict.findings.push(finding("a run that ends or parks", describe(&error))),
    }
    process.end().await?;
    *stage.troubles.lock().unwrap_or_else(PoisonError::into_inner) = None;
    Ok(())
}

/// True when the runbook itself wants a human: a program of the user's own, or a step that says it cannot be undone.
fn declared(stage: &Stage, recovery: Recovery, steps: &[StepName]) -> bool {
    let wants = |name: &StepName| {
        let step = stage.script.plan.steps.iter().find(|step| step.name == *name);
        let impossible = step.is_some_and(|step| step.undo == UndoPlan::Impossible);
        stage.script.real.contains(name) || (recovery == Recovery::Rollback && impossible)
    };
    !steps.is_empty() && steps.iter().all(wants)
}

fn describe(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    text
}

/// Holds one case.
///
/// # Errors
/// Only what is wrong with the rehearsal itself; what is wrong with the run is in the verdict.
pub(crate) async fn hold(stage: &Stage, undisturbed: &Undisturbed, case: &Case) -> Result<Verdict, CommandError> {
    let mut verdict = Verdict::default();
    if !disturb(stage, undisturbed, case, &mut verdict).await? {
        verdict.absent = true;
        return Ok(verdict);
    }
    let absence_ms = ABSENCES_MS.get(drawn(&case.to_string(), ABSENCES_MS.len())).copied().unwrap_or(1_000);
    stage.time.advance(absence_ms);
    let mut dies_after = case.again;
    for attempt in 0..RESUMES {
        let process = stage.open(false, dies_after.take())?;
        stage.recorder.say(|| format!("the operator says {:?}", case.recovery));
        let end = recover(stage, &process, case.recovery, attempt).await;
        match end {
            Ok(End::Died) => {
                stage.recorder.say(|| "the recovery dies".to_owned());
                verdict.crashed_again = true;
                process.end().await?;
                stage.embedded.sever();
                stage.time.advance(1_000);
                continue;
            }
            Ok(End::Outcome(DriveOutcome::Parked(ParkReason::StepFailed { .. }))) if attempt + 1 < RESUMES => {
                process.end().await?;
                continue;
            }
            Ok(End::Outcome(DriveOutcome::Parked(ParkReason::NeedsHuman { steps, what }))) => {
                if declared(stage, case.recovery, &steps) {
                    verdict.asked = Some(what);
                } else {
                    verdict.findings.push(finding("a run that ends", format!("it stopped for a human: {what}")));
                }
            }
            Ok(End::Outcome(DriveOutcome::Parked(reason))) => {
                verdict
                    .findings
                    .push(finding("a run that ends", format!("it parked: {}", event_text::park_reason(&reason))));
            }
            Ok(End::Outcome(DriveOutcome::Finished(_))) => {
                let from_a_crash = matches!(case.origin, Origin::Boundary { .. } | Origin::Call { .. });
                let found = judge::judge(stage, &process, case.recovery, &undisturbed.expected, from_a_crash).await?;
                verdict.findings.extend(found);
            }
            Ok(End::Stuck) => verdict.findings.push(finding("a run that ends", "it neither ends nor goes on")),
            Err(error) => verdict.findings.push(finding("a run that can be taken up", describe(&error))),
        }
        process.end().await?;
        return Ok(verdict);
    }
    verdict.findings.push(finding("a run that ends", format!("it did not within {RESUMES} resumes")));
    Ok(verdict)
}

/// What the operator would type: `resume`, or `rollback`.
async fn recover(stage: &Stage, process: &Process, recovery: Recovery, attempt: u32) -> Result<End, DriveError> {
    let id = &stage.script.run;
    let run = match process.journal.load(id).await {
        Ok(loaded) => Run::load(loaded)?,
        Err(error) => return Err(DriveError::Journal(error)),
    };
    let direction = match (run.state.ending, recovery) {
        (Some(ending @ Ending::Done), Recovery::Resume) | (Some(ending @ Ending::RolledBack), Recovery::Rollback) => {
            return Ok(End::Outcome(DriveOutcome::Finished(ending)));
        }
        (_, Recovery::Resume) => None,
        (_, Recovery::Rollback) if run.state.is_backward() => None,
        (_, Recovery::Rollback) => Some(Direction::backward("operator", true, Vec::new())),
    };
    let owner = owner(2 + attempt).map_err(|error| DriveError::Journal(JournalError::Damaged(error.message)))?;
    let taken = tokio::select! {
        biased;
        () = process.journal.death.notified() => return Ok(End::Died),
        taken = process.engine.resume(id, &owner, direction) => taken,
    };
    let (lease, mut run) = taken?;
    driven(process, &lease, &mut run).await
}
