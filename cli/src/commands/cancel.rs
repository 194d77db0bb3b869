//! `platflow cancel`: ask the process that owns a run to stop at the next safe point.

use crate::arguments::RunReference;
use crate::failure::{CommandError, ExitCode};
use crate::settings::Settings;
use crate::views::output;
use crate::wiring;
use platflow_engine::journal::Journal;

/// Sends the owner the signal that Ctrl-C would.
///
/// # Errors
/// An owner on another host, or one that may not be signalled.
pub(crate) async fn execute(arguments: RunReference, settings: &Settings) -> Result<ExitCode, CommandError> {
    let store = wiring::open_store_for_the_way_out(settings)?;
    let id = store.find(&arguments.run).await.map_err(wiring::journal_error)?;
    let summary = store.load(&id).await.map_err(wiring::journal_error)?.summary;
    if summary.status.is_final() {
        output::note(&format!("run {id} is {}: there is nothing to cancel", summary.status.as_str()));
        return Ok(ExitCode::Done);
    }
    let Some(owner) = summary.owner.filter(|_| summary.owner_live) else {
        output::note(&format!("nobody drives run {id}; it is stopped already. Go on with: platflow resume {id}"));
        return Ok(ExitCode::Done);
    };
    let here = wiring::this_process()?;
    if owner.host != here.host || owner.boot_id != here.boot_id {
        return Err(CommandError::new(
            ExitCode::Locked,
            format!("run {id} is owned by pid {} on {}; it can only be cancelled there", owner.pid, owner.host),
        ));
    }
    let pid = i32::try_from(owner.pid).ok().and_then(rustix::process::Pid::from_raw);
    let Some(pid) = pid else {
        return Err(CommandError::new(ExitCode::Internal, format!("{} is no process id", owner.pid)));
    };
    rustix::process::kill_process(pid, rustix::process::Signal::INT).map_err(|error| {
        CommandError::new(ExitCode::Locked, format!("pid {} could not be asked to stop", owner.pid)).caused_by(error)
    })?;
    output::note(&format!("asked pid {} to stop run {id} at the next safe point", owner.pid));
    Ok(ExitCode::Done)
}
