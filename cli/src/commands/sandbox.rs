//! `platflow sandbox`: start, stop and look into the embedded sandbox.

use crate::arguments::{OutputFormat, SandboxArguments, SandboxCommand};
use crate::execution;
use crate::failure::{CommandError, ExitCode};
use crate::sandbox_host;
use crate::settings::Settings;
use crate::target::Target;
use crate::views::output;
use crate::wiring;
use platflow_engine::drive;
use platflow_engine::journal::Journal;
use platflow_sandbox::server::{ServeOptions, serve};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::sync::Arc;

/// The seed of a world that nobody chose one for.
const DEFAULT_SEED: u64 = 1;

/// Runs one of its verbs.
///
/// # Errors
/// When the sandbox cannot be started or reached.
pub(crate) async fn execute(arguments: SandboxArguments, settings: &Settings) -> Result<ExitCode, CommandError> {
    match arguments.command {
        SandboxCommand::Serve { directory, seed } => serve_here(directory, seed, settings).await,
        SandboxCommand::Start { seed } => {
            let sandbox = sandbox_host::ensure(settings, seed).await?;
            show_endpoints(&json!(sandbox.endpoints), settings)
        }
        SandboxCommand::Stop => {
            if let Ok(sandbox) = sandbox_host::find(settings).await {
                sandbox.stop(&settings.sandbox_directory()).await.map_err(sandbox_host::failed)?;
            }
            Ok(ExitCode::Done)
        }
        SandboxCommand::Status => {
            let sandbox = sandbox_host::find(settings).await?;
            show_endpoints(&json!(sandbox.endpoints), settings)
        }
        SandboxCommand::Reset => reset(settings).await,
        SandboxCommand::World => {
            let sandbox = sandbox_host::ensure(settings, None).await?;
            let world = sandbox.world().await.map_err(sandbox_host::failed)?;
            show_world(&world, settings)
        }
        SandboxCommand::Counters => {
            let sandbox = sandbox_host::ensure(settings, None).await?;
            output::json(&sandbox.counters().await.map_err(sandbox_host::failed)?)?;
            Ok(ExitCode::Done)
        }
        SandboxCommand::Fault { rule } => {
            let sandbox = sandbox_host::ensure(settings, None).await?;
            if rule.is_empty() {
                sandbox.clear_faults().await.map_err(sandbox_host::failed)?;
                output::note("all fault rules are gone");
            }
            for rule in &rule {
                sandbox.fault(rule).await.map_err(sandbox_host::failed)?;
            }
            Ok(ExitCode::Done)
        }
        SandboxCommand::Faults { profile } => {
            let sandbox = sandbox_host::ensure(settings, None).await?;
            sandbox.follow(&profile).await.map_err(sandbox_host::failed)?;
            Ok(ExitCode::Done)
        }
        SandboxCommand::Leak { kind } => {
            let sandbox = sandbox_host::ensure(settings, None).await?;
            output::json(&sandbox.leak(&kind).await.map_err(sandbox_host::failed)?)?;
            Ok(ExitCode::Done)
        }
        SandboxCommand::Foreign { kind, name } => {
            let sandbox = sandbox_host::ensure(settings, None).await?;
            output::json(&sandbox.plant_foreign(&kind, &name).await.map_err(sandbox_host::failed)?)?;
            Ok(ExitCode::Done)
        }
        SandboxCommand::Account { fields } => account(fields.as_deref().unwrap_or("{}"), settings).await,
        SandboxCommand::Env => {
            let sandbox = sandbox_host::ensure(settings, None).await?;
            for (name, value) in sandbox_host::variables(&sandbox.endpoints) {
                output::line(&format!("export {name}={value}"))?;
            }
            Ok(ExitCode::Done)
        }
    }
}

/// Makes the account differ in the fields given, and shows all of them.
async fn account(fields: &str, settings: &Settings) -> Result<ExitCode, CommandError> {
    let fields: Value = serde_json::from_str(fields)
        .map_err(|error| CommandError::usage("the fields of the account are no JSON object").caused_by(error))?;
    let sandbox = sandbox_host::ensure(settings, None).await?;
    output::json(&sandbox.shape(fields).await.map_err(sandbox_host::failed)?)?;
    Ok(ExitCode::Done)
}

async fn serve_here(directory: PathBuf, seed: Option<u64>, settings: &Settings) -> Result<ExitCode, CommandError> {
    let options = ServeOptions {
        directory,
        seed: seed.unwrap_or(DEFAULT_SEED),
        speed: settings.speed,
        version: env!("CARGO_PKG_VERSION").to_owned(),
    };
    serve(options)
        .await
        .map_err(|error| CommandError::new(ExitCode::Internal, "the sandbox ended").caused_by(error))?;
    Ok(ExitCode::Done)
}

/// A world that is forgotten takes the record of what was built in it along: the state file would otherwise refuse every
/// later run of those environments.
async fn reset(settings: &Settings) -> Result<ExitCode, CommandError> {
    let sandbox = sandbox_host::ensure(settings, None).await?;
    let former = sandbox.endpoints.world_id.clone();
    sandbox.reset(None).await.map_err(sandbox_host::failed)?;
    let fresh = sandbox_host::ensure(settings, None).await?;
    let store = wiring::open_store(settings)?;
    let journal: Arc<dyn Journal> = store.clone();
    let mut forgotten = 0;
    for row in store.environments().await.map_err(wiring::journal_error)? {
        let Ok(Target::Sandbox { world_id, region, .. }) = Target::recorded(&row) else { continue };
        if world_id != former {
            continue;
        }
        if let Some(run) = &row.held_by {
            let at = sandbox_host::clock(&fresh).await?.now();
            drive::abandon(&journal, run, &wiring::this_process()?, at).await.map_err(execution::drive_error)?;
        }
        let endpoints = &fresh.endpoints;
        let (world_id, account) = (endpoints.world_id.clone(), endpoints.account.clone());
        let target = Target::Sandbox { world_id, account, region }
            .to_value()
            .map_err(|error| CommandError::new(ExitCode::Internal, "the target cannot be written").caused_by(error))?;
        store.forget_environment(&row.uid, &target).await.map_err(wiring::journal_error)?;
        forgotten += 1;
    }
    output::note(&format!("the world is empty again; {forgotten} environment(s) that lived in it are forgotten"));
    Ok(ExitCode::Done)
}

fn show_endpoints(endpoints: &Value, settings: &Settings) -> Result<ExitCode, CommandError> {
    match settings.output {
        OutputFormat::Text => {
            for field in ["aws_url", "control_url", "world_id", "account", "speed", "pid"] {
                let value =
                    endpoints.get(field).map(|value| value.as_str().map_or_else(|| value.to_string(), str::to_owned));
                output::line(&format!("{field:<12} {}", value.unwrap_or_default()))?;
            }
        }
        OutputFormat::Json | OutputFormat::Jsonl => {
            let mut value = endpoints.clone();
            if let Some(object) = value.as_object_mut() {
                object.insert("schema_version".to_owned(), json!(1));
                object.insert("running".to_owned(), json!(true));
            }
            output::json(&value)?;
        }
    }
    Ok(ExitCode::Done)
}

fn show_world(world: &Value, settings: &Settings) -> Result<ExitCode, CommandError> {
    if settings.output != OutputFormat::Text {
        output::json(world)?;
        return Ok(ExitCode::Done);
    }
    let text = |value: &Value, field: &str| value.get(field).and_then(Value::as_str).unwrap_or("-").to_owned();
    for resource in world.get("resources").and_then(Value::as_array).into_iter().flatten() {
        if resource.get("system") == Some(&Value::Bool(true)) {
            continue;
        }
        let step = ["platflow:step", "platflow.io/step"]
            .into_iter()
            .find_map(|tag| resource.get("tags")?.get(tag)?.as_str())
            .unwrap_or("-");
        output::line(&format!(
            "{:<28} {:<46} {:<20} {step}",
            text(resource, "type"),
            text(resource, "name"),
            text(resource, "state")
        ))?;
    }
    Ok(ExitCode::Done)
}
