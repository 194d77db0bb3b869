//! `platflow secret`: the one way a sealed secret gets out. Who took which and when is kept in the state file's access log
//! before it is shown; `list` shows the log.

use crate::arguments::{OutputFormat, SecretArguments, SecretCommand};
use crate::failure::{CommandError, ExitCode};
use crate::settings::Settings;
use crate::views::{output, time};
use crate::wiring;
use platflow_engine::journal::{EnvironmentRow, Journal};
use platflow_engine::name::EnvironmentName;
use platflow_engine::secret::SecretStore;
use platflow_state::Store;
use secrecy::ExposeSecret;
use serde_json::json;
use std::sync::Arc;

/// Lists or shows.
///
/// # Errors
/// No such environment or secret; an identity that does not open it.
pub(crate) async fn execute(arguments: SecretArguments, settings: &Settings) -> Result<ExitCode, CommandError> {
    let store = wiring::open_store(settings)?;
    match arguments.command {
        SecretCommand::List { environment } => list(&store, &environment, settings).await,
        SecretCommand::Show { environment, name } => show(&store, &environment, &name, settings).await,
    }
}

async fn environment_row(store: &Arc<Store>, name: &str) -> Result<EnvironmentRow, CommandError> {
    let name = EnvironmentName::new(name).map_err(|error| CommandError::usage(error.to_string()))?;
    store.environment(&name).await.map_err(wiring::journal_error)?.ok_or_else(|| {
        CommandError::usage(format!("this state file knows no environment {name}"))
            .with_remedy("see what it knows with: platflow list")
    })
}

fn store_failed(error: platflow_engine::secret::SecretError) -> CommandError {
    CommandError::new(ExitCode::Internal, "the secret store could not be read").caused_by(error)
}

async fn list(store: &Arc<Store>, environment: &str, settings: &Settings) -> Result<ExitCode, CommandError> {
    let row = environment_row(store, environment).await?;
    let secrets = store.list_secrets(&row.uid).await.map_err(store_failed)?;
    let accesses = store.secret_accesses(&row.uid).await.map_err(wiring::journal_error)?;
    match settings.output {
        OutputFormat::Text => {
            for secret in &secrets {
                output::line(&format!("{:<32} sealed {}", secret.name, time::short(secret.created_at)))?;
            }
            if !accesses.is_empty() {
                output::line("\ntaken out:")?;
            }
            for access in &accesses {
                output::line(&format!("{:<32} {}  by {}", access.name, time::seconds(access.at), access.who))?;
            }
        }
        OutputFormat::Json | OutputFormat::Jsonl => {
            let secrets: Vec<_> = secrets
                .iter()
                .map(|secret| json!({"name": secret.name, "created_at": secret.created_at.to_string()}))
                .collect();
            let accesses: Vec<_> = accesses
                .iter()
                .map(|access| json!({"name": access.name, "who": access.who, "at": access.at.to_string()}))
                .collect();
            let all = json!({"schema_version": 1, "environment": row.name, "secrets": secrets, "accesses": accesses});
            output::json(&all)?;
        }
    }
    Ok(ExitCode::Done)
}

async fn show(
    store: &Arc<Store>,
    environment: &str,
    name: &str,
    settings: &Settings,
) -> Result<ExitCode, CommandError> {
    let row = environment_row(store, environment).await?;
    let secrets: Arc<dyn SecretStore> = store.clone();
    let keystore = wiring::keystore(settings, secrets).await?;
    let secret = keystore.get(&row.uid, name, None).await.map_err(|error| {
        CommandError::usage(format!("secret {name} could not be opened"))
            .caused_by(error)
            .with_remedy("PLATFLOW_IDENTITY names the identity it was sealed for")
    })?;
    let Some(secret) = secret else {
        let names: Vec<String> =
            store.list_secrets(&row.uid).await.map_err(store_failed)?.into_iter().map(|secret| secret.name).collect();
        return Err(CommandError::usage(format!("environment {} has no secret {name}", row.name))
            .with_remedy(format!("there are: {}", names.join(", "))));
    };
    let who = wiring::this_process()?;
    store.record_access(&row.uid, name, &format!("{}@{}", who.user, who.host)).await.map_err(store_failed)?;
    output::line(secret.expose_secret())?;
    Ok(ExitCode::Done)
}
