//! Drives a run with its view beside it, and ends with what the operator needs: one place for run, resume, rollback and
//! destroy.

use crate::arguments::OutputFormat;
use crate::failure::{CommandError, ExitCode};
use crate::report;
use crate::settings::Settings;
use crate::signals;
use crate::views::progress::{self, Committed};
use crate::views::{event_text, output};
use crate::wiring::journal_error;
use platflow_engine::clock::Clock;
use platflow_engine::drive::{DriveError, DriveOutcome, Engine, Observer};
use platflow_engine::event::{Direction, Ending, Event, ParkReason};
use platflow_engine::fold::Run;
use platflow_engine::journal::{Lease, Sequence};
use std::sync::{Arc, Mutex, PoisonError};

/// Passes committed events on to the view; holds them back until there is one.
#[derive(Debug, Default)]
pub(crate) struct Relay {
    sender: Mutex<Option<progress::Sender>>,
    early: Mutex<Vec<Committed>>,
}

impl Relay {
    fn attach(&self, sender: progress::Sender) {
        for committed in self.early.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            // The view lives until the sender is dropped.
            let _ = sender.send(committed);
        }
        *self.sender.lock().unwrap_or_else(PoisonError::into_inner) = Some(sender);
    }

    fn detach(&self) {
        *self.sender.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

impl Observer for Relay {
    fn committed(&self, sequence: Sequence, event: &Event) {
        let committed = Committed { sequence, event: event.clone() };
        match &*self.sender.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(sender) => {
                let _ = sender.send(committed);
            }
            None => self.early.lock().unwrap_or_else(PoisonError::into_inner).push(committed),
        }
    }
}

/// An engine's refusal as a command's failure.
#[must_use]
pub(crate) fn drive_error(error: DriveError) -> CommandError {
    match error {
        DriveError::Journal(error) => journal_error(error),
        DriveError::Fold(error) => CommandError::new(ExitCode::Internal, "the run's journal does not add up")
            .caused_by(error)
            .with_remedy("nothing was changed; use the platflow version that wrote it, or restore the state file"),
        DriveError::UnknownKind(kind) => {
            CommandError::usage(format!("this version of platflow has no step kind {kind}; nothing was changed"))
        }
        DriveError::Plan(error) => CommandError::new(ExitCode::Internal, "the plan cannot be written").caused_by(error),
    }
}

/// Drives to the end or to a park, shows progress, prints the closing report, and says what to exit with.
///
/// # Errors
/// When the journal refuses or fails on the way.
pub(crate) async fn drive(
    settings: &Settings,
    engine: &Engine,
    relay: &Arc<Relay>,
    lease: &Lease,
    run: Run,
) -> Result<ExitCode, CommandError> {
    let (run, outcome) = carry_out(settings, engine, relay, lease, run).await?;
    close(settings, &run, &outcome)?;
    Ok(exit_code(&run, &outcome))
}

/// The same with nothing on stdout but the events of `jsonl`: for commands that have something else to print there.
///
/// # Errors
/// When the journal refuses or fails on the way.
pub(crate) async fn carry_out(
    settings: &Settings,
    engine: &Engine,
    relay: &Arc<Relay>,
    lease: &Lease,
    mut run: Run,
) -> Result<(Run, DriveOutcome), CommandError> {
    let total = run.graph.len();
    let clock: Arc<dyn Clock> = Arc::clone(&engine.clock);
    let (sender, view) =
        progress::open(settings.output, settings.terminal.live, settings.terminal.colour, total, clock);
    relay.attach(sender);
    let shown = tokio::spawn(view.show());
    let cancel = signals::cancel_on_signal();
    let result = engine.drive(lease, &mut run, cancel).await;
    relay.detach();
    // The view ends with the last event; one that panicked has nothing more to show.
    let _ = shown.await;
    let outcome = result.map_err(|error| {
        let mut failure = drive_error(error);
        if failure.remedy.is_none() {
            failure.remedy = Some(format!("go on with: platflow resume {}", run.id));
        }
        failure
    })?;
    Ok((run, outcome))
}

/// What the documented exit code of an outcome is.
#[must_use]
pub(crate) fn exit_code(run: &Run, outcome: &DriveOutcome) -> ExitCode {
    match outcome {
        DriveOutcome::Finished(Ending::Done | Ending::Abandoned) => ExitCode::Done,
        DriveOutcome::Finished(Ending::RolledBack) => match &run.state.direction {
            Direction::Backward { cause, .. } if cause == "on-failure" => ExitCode::RolledBack,
            Direction::Backward { .. } | Direction::Forward => ExitCode::Done,
        },
        DriveOutcome::Parked(ParkReason::RolledBackTo { .. }) => ExitCode::Done,
        DriveOutcome::Parked(ParkReason::Interrupted) => ExitCode::Interrupted,
        DriveOutcome::Parked(ParkReason::NeedsHuman { .. }) => ExitCode::Stuck,
        DriveOutcome::Parked(ParkReason::StepFailed { .. } | ParkReason::Waiting { .. }) => ExitCode::Parked,
    }
}

fn close(settings: &Settings, run: &Run, outcome: &DriveOutcome) -> Result<(), CommandError> {
    match settings.output {
        OutputFormat::Json => output::json(&report::as_json(run)?),
        OutputFormat::Jsonl => Ok(()),
        OutputFormat::Text => match outcome {
            DriveOutcome::Finished(Ending::Done) => output::bytes(report::finished(run)?.as_bytes()),
            DriveOutcome::Finished(Ending::RolledBack) => output::bytes(report::rolled_back(run).as_bytes()),
            DriveOutcome::Parked(ParkReason::RolledBackTo { .. }) => output::bytes(report::rolled_back(run).as_bytes()),
            DriveOutcome::Finished(Ending::Abandoned) => output::line("the run was abandoned"),
            DriveOutcome::Parked(reason) => {
                tell_parked(run, reason);
                Ok(())
            }
        },
    }
}

/// Why a run stopped and what leads on, on stderr.
pub(crate) fn tell_parked(run: &Run, reason: &ParkReason) {
    output::note(&format!("run {} stopped: {}", run.id, event_text::park_reason(reason)));
    output::note(&report::parked(run, reason));
}
