//! `platflow adopt`: take over an environment whose state file is lost.
//!
//! What carries the given uid on its tags becomes ours here, and the record is rebuilt by looking at it: a run under that
//! uid, in which everything that is there is found unchanged. What lay sealed in the lost file comes back from the second
//! place, or the operator is told that it does not.

use crate::arguments::{Adopt, WorkflowArguments};
use crate::commands::forget;
use crate::connection::{self, Connection, Wanted};
use crate::execution::{self, Relay};
use crate::failure::{CommandError, ExitCode};
use crate::settings::Settings;
use crate::views::output;
use crate::{identifiers, runbook, wiring};
use platflow_engine::drive::{self, StartRun};
use platflow_engine::event::Effect;
use platflow_engine::fold::Run;
use platflow_engine::journal::{EnvironmentRow, Journal, RecordedStep};
use platflow_engine::kind::Catalog;
use platflow_engine::name::{EnvironmentName, EnvironmentUid, RunId};
use platflow_engine::plan::{OnFailure, Plan};
use platflow_engine::secret::SecretStore;
use platflow_state::Store;
use platflow_workflows::describe;
use std::path::PathBuf;
use std::sync::Arc;

/// The most lines of a list in a message.
const SHOWN: usize = 10;
/// How many runs of the environment are looked through for the runbook.
const RUNS: usize = 100;

/// Runs the runbook under the other uid.
///
/// # Errors
/// An environment that this state file holds something of under another uid (6), no runbook for it (2).
pub(crate) async fn execute(arguments: Adopt, settings: &Settings) -> Result<ExitCode, CommandError> {
    let environment =
        EnvironmentName::new(&arguments.environment).map_err(|error| CommandError::usage(error.to_string()))?;
    let uid = EnvironmentUid::new(&arguments.from).map_err(|error| CommandError::usage(error.to_string()))?;
    let descriptions = wiring::descriptions(settings).await?;
    let store = wiring::open_store(settings)?;
    let plan = plan(&arguments, &environment, &descriptions, &store, settings).await?;
    let wanted = Wanted { account: arguments.account, region: arguments.region };
    let (connection, row) = connection::connect(settings, &store, &environment, &wanted).await?;
    match row {
        // Adopting was stopped, for want of its keys perhaps: it goes on where it was.
        Some(EnvironmentRow { uid: known, held_by: Some(holder), .. }) if known == uid => {
            let code = go_on(settings, &store, &connection, &holder).await?;
            tell_secrets(settings, &store, &holder).await?;
            return Ok(code);
        }
        Some(row) if row.uid != uid => stand_aside(settings, &store, &row, &uid).await?,
        Some(_) | None => {}
    }
    output::note(&format!(
        "what carries uid {uid} is taken over as it is; what runbook {} wants and is missing will be built",
        plan.workflow
    ));
    let id = identifiers::run_id()?;
    let code = rebuild(settings, &store, &connection, plan, &id, uid).await?;
    tell_secrets(settings, &store, &id).await?;
    Ok(code)
}

/// What the environment should be: the runbook that was named, else that of its newest run here with the parameters it
/// had (the run that was refused, most likely), else the shipped one that builds an environment of this name.
async fn plan(
    arguments: &Adopt,
    environment: &EnvironmentName,
    descriptions: &Catalog,
    store: &Arc<Store>,
    settings: &Settings,
) -> Result<Plan, CommandError> {
    let as_it_was = arguments.workflow.is_none() && arguments.set.is_empty() && arguments.parameters.is_none();
    let before = newest_plan(store, environment, settings).await?;
    if let Some(plan) = before.clone().filter(|_| as_it_was) {
        return Ok(plan);
    }
    let named = arguments.workflow.clone().or_else(|| before.map(|plan| plan.workflow.to_string()));
    let Some(workflow) = named.or_else(|| shipped(environment, settings)) else {
        return Err(CommandError::usage(format!("no runbook is known that builds environment {environment}"))
            .with_remedy(format!(
                "name it: platflow adopt {environment} --from {} --workflow <name or file>",
                arguments.from
            )));
    };
    let workflow = WorkflowArguments {
        workflow,
        set: arguments.set.clone(),
        parameters: arguments.parameters.clone(),
        environment: Some(environment.to_string()),
        account: None,
        region: None,
    };
    Ok(runbook::load(&workflow, descriptions, settings, Some(OnFailure::Park))?.plan)
}

/// The plan of the newest run of this environment that built something by a runbook which is still known.
async fn newest_plan(
    store: &Arc<Store>,
    environment: &EnvironmentName,
    settings: &Settings,
) -> Result<Option<Plan>, CommandError> {
    let known = runbook::library(settings).workflows();
    let runs = store.list(Some(environment), RUNS).await.map_err(wiring::journal_error)?;
    let Some(run) = runs.iter().find(|run| !run.destroy && known.iter().any(|name| *name == run.workflow.as_str()))
    else {
        return Ok(None);
    };
    Ok(Some(store.load(&run.id).await.map_err(wiring::journal_error)?.plan))
}

fn shipped(environment: &EnvironmentName, settings: &Settings) -> Option<String> {
    let library = runbook::library(settings);
    library.workflows().into_iter().find(|name| {
        let described = library.find(name).ok().and_then(|source| describe(&source).ok());
        described.and_then(|runbook| runbook.environment).as_deref() == Some(environment.as_str())
    })
}

/// Gives the name free that a refused run took under a uid of its own: that run is ended, its answers are struck off.
async fn stand_aside(
    settings: &Settings,
    store: &Arc<Store>,
    row: &EnvironmentRow,
    uid: &EnvironmentUid,
) -> Result<(), CommandError> {
    let record = store.record(&row.uid).await.map_err(wiring::journal_error)?;
    let refused = match &row.held_by {
        Some(holder) => Some(load(store, holder).await?),
        None => None,
    };
    // A step that looked, was refused and left nothing is on record as tried; nothing exists because of it.
    let untouched = |step: &RecordedStep| {
        let run = refused.as_ref().filter(|run| run.id == step.run);
        run.and_then(|run| run.step(&step.step)).is_some_and(|state| !state.touched())
    };
    let mut holding: Vec<String> = record
        .iter()
        .filter(|step| !platflow_steps::leaves_nothing(&step.kind) && !untouched(step))
        .map(forget::in_words)
        .collect();
    if holding.len() > SHOWN {
        let more = holding.split_off(SHOWN).len();
        holding.push(format!("… and {more} more: platflow forget {}", row.name));
    }
    if !holding.is_empty() {
        return Err(CommandError::new(
            ExitCode::Stuck,
            format!(
                "this state file already has an environment {} with uid {}, and on record for it:\n  {}\nnothing was changed",
                row.name,
                row.uid,
                holding.join("\n  ")
            ),
        )
        .with_remedy(format!(
            "take the other one over in a state file of its own: platflow --state <new directory> adopt {} --from {uid}\n\
             or take this one down first: platflow destroy {} --confirm {}",
            row.name, row.name, row.name
        )));
    }
    let at = forget::now(settings, row).await?;
    if let Some(holder) = &row.held_by {
        let journal: Arc<dyn Journal> = store.clone();
        let owner = wiring::this_process()?;
        drive::abandon(&journal, holder, &owner, at).await.map_err(execution::drive_error)?;
        output::note(&format!("run {holder}, which made nothing, is abandoned"));
    }
    forget::from_record(settings, store, row.clone(), record, at).await?;
    if store.adopt_environment(&row.name, uid).await.map_err(wiring::journal_error)? {
        return Ok(());
    }
    Err(CommandError::new(
        ExitCode::Locked,
        format!("another process took up environment {} meanwhile; nothing was changed", row.name),
    )
    .with_remedy("see what it does with: platflow list"))
}

async fn load(store: &Arc<Store>, id: &RunId) -> Result<Run, CommandError> {
    let loaded = store.load(id).await.map_err(wiring::journal_error)?;
    Run::load(loaded).map_err(|error| execution::drive_error(error.into()))
}

async fn go_on(
    settings: &Settings,
    store: &Arc<Store>,
    connection: &Connection,
    id: &RunId,
) -> Result<ExitCode, CommandError> {
    let relay = Arc::new(Relay::default());
    let engine = wiring::engine(settings, store, connection, relay.clone(), None).await?;
    let owner = wiring::this_process()?;
    let (lease, run) = engine.resume(id, &owner, None).await.map_err(execution::drive_error)?;
    execution::drive(settings, &engine, &relay, &lease, run).await
}

async fn rebuild(
    settings: &Settings,
    store: &Arc<Store>,
    connection: &Connection,
    plan: Plan,
    id: &RunId,
    environment_uid: EnvironmentUid,
) -> Result<ExitCode, CommandError> {
    let relay = Arc::new(Relay::default());
    let engine = wiring::engine(settings, store, connection, relay.clone(), None).await?;
    let target = connection
        .target
        .to_value()
        .map_err(|error| CommandError::new(ExitCode::Internal, "the target cannot be written").caused_by(error))?;
    let new = StartRun {
        id: id.clone(),
        plan,
        environment_uid,
        target,
        owner: wiring::this_process()?,
        on_failure: OnFailure::Park,
        destroy: None,
    };
    let (lease, run) = engine.start(new).await.map_err(execution::drive_error)?;
    execution::drive(settings, &engine, &relay, &lease, run).await
}

/// The outcome of the run's step of a kind, as far as it got.
fn of_kind<'a>(run: &'a Run, kind: &str) -> Option<&'a platflow_engine::state::StepState> {
    run.steps().find(|(step, _)| step.kind.as_str() == kind).map(|(_, state)| state)
}

/// Brings what only the second place holds into this state file, and says of every secret what became of it.
async fn tell_secrets(settings: &Settings, store: &Arc<Store>, id: &RunId) -> Result<(), CommandError> {
    let run = load(store, id).await?;
    let (environment, uid) = (&run.state.environment, &run.state.environment_uid);
    let secrets: Arc<dyn SecretStore> = store.clone();
    let keystore = wiring::keystore(settings, secrets).await?;
    let vault = of_kind(&run, "vault.init");
    let own_place = vault.and_then(|state| state.spec.as_ref()?.get("second_store")?.as_str()).map(PathBuf::from);
    let place = own_place.as_deref().unwrap_or(&settings.second_key_store);
    let recovered = keystore.recover(uid, own_place.as_deref()).await.map_err(|error| {
        CommandError::new(ExitCode::Stuck, format!("the keys in {} could not be taken over", place.display()))
            .caused_by(error)
            .with_remedy(format!(
                "PLATFLOW_IDENTITY names the identity that they were sealed for; then: platflow adopt {environment} --from {uid}"
            ))
    })?;
    if !recovered.is_empty() {
        output::note(&format!("recovered from {}: {}", place.display(), recovered.join(", ")));
    }
    let names = keystore.list(uid, own_place.as_deref()).await.unwrap_or_default();
    if vault.is_some() && !names.iter().any(|name| name.starts_with("vault/share-")) {
        output::note(&format!(
            "no key shares of Vault are in {}: whoever has another copy of that folder names it with PLATFLOW_SECOND_KEY_STORE and says again: platflow adopt {environment} --from {uid}",
            place.display()
        ));
    }
    if of_kind(&run, "argocd.admin_password").is_some_and(|state| state.effect == Some(Effect::Changed)) {
        output::note(&format!(
            "Argo CD's admin password lay in the lost state file alone, so a new one was set: platflow secret show {environment} argocd/admin-password"
        ));
    }
    Ok(())
}
