//! The one file that joins the ports: store, clients, catalog, clock, resolver.
//!
//! It decides nothing about steps or runs; it turns settings and a target into an engine that can drive.

use crate::connection::Connection;
use crate::failure::{CommandError, ExitCode};
use crate::settings::{Identity, Settings};
use crate::views::output;
use async_trait::async_trait;
use platflow_engine::drive::{Engine, Observer, Unobserved};
use platflow_engine::journal::JournalError;
use platflow_engine::kind::Catalog;
use platflow_engine::name::EnvironmentUid;
use platflow_engine::secret::{SealedSecret, SecretError, SecretStore};
use platflow_state::{Store, StoreSettings};
use platflow_steps::aws::AwsClients;
use platflow_steps::core::{ApprovalFolder, CoreSettings};
use platflow_steps::guard_process::Launcher;
use platflow_steps::kubernetes::Clients;
use platflow_steps::sealing::{IdentitySource, Keystore, Sealer};
use platflow_steps::vault::Reach;
use platflow_workflows::Resolver;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Opens the state file, making it if need be.
///
/// # Errors
/// Unreadable, newer or damaged files; see [`journal_error`].
pub(crate) fn open_store(settings: &Settings) -> Result<Arc<Store>, CommandError> {
    open(settings, false)
}

/// Opens the state file for a command that stops or takes away: it may use the space that is kept back for it.
///
/// # Errors
/// As [`open_store`].
pub(crate) fn open_store_for_the_way_out(settings: &Settings) -> Result<Arc<Store>, CommandError> {
    open(settings, true)
}

fn open(settings: &Settings, spend_reserve: bool) -> Result<Arc<Store>, CommandError> {
    let file = settings.state_file();
    let lease = settings.lease_ms.map_or_else(StoreSettings::default, StoreSettings::with_lease);
    Store::open(&file, StoreSettings { spend_reserve, ..lease }).map_err(|error| {
        let mut failure = journal_error(error);
        failure.message = format!("{}: {}", file.display(), failure.message);
        failure
    })
}

/// A journal's refusal as a command's failure, with the way out.
#[must_use]
pub(crate) fn journal_error(error: JournalError) -> CommandError {
    let message = error.to_string();
    match error {
        JournalError::Owned { run, .. } => CommandError::new(ExitCode::Locked, message).with_remedy(format!(
            "wait for it, watch it with: platflow logs {run}\nor stop it with: platflow cancel {run}"
        )),
        JournalError::Stale { run, .. } => CommandError::new(ExitCode::Locked, message)
            .with_remedy(format!(
                "this process stopped and changed nothing more; see: platflow status {run}\nif nobody goes on with it: platflow resume {run}"
            )),
        JournalError::EnvironmentHeld { environment, run, .. } => CommandError::new(ExitCode::Stuck, message)
            .with_remedy(format!(
                "go on with it: platflow resume {run}\nor undo it: platflow rollback {run} --confirm {environment}"
            )),
        JournalError::OtherTarget { .. } | JournalError::NotFound { .. } | JournalError::Ambiguous { .. } => {
            let remedy = match &error {
                JournalError::Ambiguous { matches, .. } => {
                    let ids: Vec<&str> = matches.iter().map(|id| id.as_str()).collect();
                    format!("it may be one of: {}", ids.join(", "))
                }
                JournalError::NotFound { .. } => "see what there is with: platflow list".to_owned(),
                _ => "name another environment with --environment, or use the state file it was built with".to_owned(),
            };
            CommandError::usage(message).with_remedy(remedy)
        }
        JournalError::Newer { .. } => CommandError::usage(message).with_remedy("use the newer platflow that wrote it"),
        JournalError::Damaged(_) => CommandError::new(ExitCode::Internal, message)
            .with_remedy("the file was left as it is; restore it from a backup, or name another with --state"),
        JournalError::Busy => CommandError::new(ExitCode::Locked, message).with_remedy(
            "find it with: ps -o pid,stat,args -C platflow (a T in STAT is a stopped one)\nlet it go on with: kill -CONT <pid>, or end it with: kill -9 <pid>; what was acknowledged is safe either way",
        ),
        JournalError::Storage { source, .. } => {
            CommandError { source: Some(source), ..CommandError::new(ExitCode::Internal, message) }
                .with_remedy("check space and permissions of the state directory; what was acknowledged is safe\nif the disk is full: platflow cancel, rollback and destroy still work, on space that is kept back for them")
        }
    }
}

/// The approvals of a state directory.
#[must_use]
pub(crate) fn approvals(settings: &Settings) -> Arc<ApprovalFolder> {
    Arc::new(ApprovalFolder(settings.state_directory.join("approvals")))
}

pub(crate) fn core_settings(settings: &Settings, child_environment: BTreeMap<String, String>) -> CoreSettings {
    CoreSettings {
        guard: Launcher { program: settings.program.clone(), arguments: vec!["__guard".to_owned()] },
        guard_folder: settings.state_directory.join("guards"),
        inherited_environment: settings.inherited_environment.clone(),
        child_environment,
        approvals: approvals(settings),
    }
}

pub(crate) fn internal(what: &str) -> impl FnOnce(Box<dyn std::error::Error + Send + Sync>) -> CommandError + '_ {
    move |error| CommandError { source: Some(error), ..CommandError::new(ExitCode::Internal, what) }
}

/// All kinds over the given clients.
///
/// # Errors
/// Only if a kind cannot be put together.
pub(crate) fn catalog(
    aws: &Arc<AwsClients>,
    keystore: &Arc<Keystore>,
    core: CoreSettings,
) -> Result<Catalog, CommandError> {
    catalog_over(aws, Clients::new(aws.tokens()), keystore, core)
}

fn catalog_over(
    aws: &Arc<AwsClients>,
    clients: Clients,
    keystore: &Arc<Keystore>,
    core: CoreSettings,
) -> Result<Catalog, CommandError> {
    let mut catalog = Catalog::default();
    let clients = Arc::new(clients);
    let refused = "the step kinds could not be put together";
    platflow_steps::aws::register(&mut catalog, aws).map_err(|error| internal(refused)(error.into()))?;
    platflow_steps::kubernetes::register(&mut catalog, &clients).map_err(|error| internal(refused)(error.into()))?;
    platflow_steps::argocd::register(&mut catalog, &clients, keystore)
        .map_err(|error| internal(refused)(error.into()))?;
    let reach: Arc<dyn Reach> = clients.clone();
    platflow_steps::vault::register(&mut catalog, reach, Arc::clone(keystore))
        .map_err(|error| internal(refused)(error.into()))?;
    platflow_steps::external_secrets::register(&mut catalog, &clients, keystore)
        .map_err(|error| internal(refused)(error.into()))?;
    platflow_steps::smoke::register(&mut catalog, &clients, keystore)
        .map_err(|error| internal(refused)(error.into()))?;
    platflow_steps::core::register(&mut catalog, core).map_err(|error| internal(refused)(error.into()))?;
    Ok(catalog)
}

/// Kinds that can be described but reach nothing: enough to check a runbook.
///
/// # Errors
/// Only if the HTTP clients cannot be built.
pub(crate) async fn descriptions(settings: &Settings) -> Result<Catalog, CommandError> {
    let aws = AwsClients::offline().await.map_err(|error| internal("the clients could not be built")(error.into()))?;
    let sealer = Sealer::new(age::x25519::Identity::generate(), &[])
        .map_err(|error| internal("a throw-away identity could not be made")(error.into()))?;
    let keystore = Arc::new(Keystore::new(Arc::new(NoSecrets), None, sealer));
    catalog(&aws, &keystore, core_settings(settings, BTreeMap::new()))
}

/// Opens the keystore over a state file, making the identity at first need.
///
/// # Errors
/// An unusable identity: nothing secret-bearing starts then.
pub(crate) async fn keystore(settings: &Settings, store: Arc<dyn SecretStore>) -> Result<Arc<Keystore>, CommandError> {
    let source = match &settings.identity {
        Identity::File(path) => IdentitySource::File(path.clone()),
        Identity::Command(command) => IdentitySource::Command(vec!["sh".to_owned(), "-c".to_owned(), command.clone()]),
    };
    let opened = Sealer::open(&source, &settings.recipients).await.map_err(|error| {
        CommandError::usage("there is no usable age identity, and nothing that keeps secrets starts without one")
            .caused_by(error)
            .with_remedy("PLATFLOW_IDENTITY names another file, or a command when it begins with '!'")
    })?;
    if let Some(path) = &opened.created {
        output::note(&format!(
            "made an age identity at {}: it opens every secret platflow seals. Back it up now.",
            path.display()
        ));
    }
    Ok(Arc::new(Keystore::new(store, Some(settings.second_key_store.clone()), opened.sealer)))
}

/// An engine over a connection.
///
/// # Errors
/// When a client or the identity cannot be used.
pub(crate) async fn engine(
    settings: &Settings,
    store: &Arc<Store>,
    connection: &Connection,
    observer: Arc<dyn Observer>,
    max_in_flight: Option<usize>,
) -> Result<Engine, CommandError> {
    let mut engine = over(settings, store, connection, Clients::new(connection.aws.tokens()), observer).await?;
    if let Some(bound) = max_in_flight {
        engine.settings.max_in_flight = bound.max(1);
    }
    Ok(engine)
}

/// An engine for one pass over an environment that only looks: many objects of a cluster are read by one list.
///
/// # Errors
/// When a client or the identity cannot be used.
pub(crate) async fn engine_for_one_look(
    settings: &Settings,
    store: &Arc<Store>,
    connection: &Connection,
    uid: &EnvironmentUid,
) -> Result<Engine, CommandError> {
    let clients = Clients::for_one_look(connection.aws.tokens(), uid);
    over(settings, store, connection, clients, Arc::new(Unobserved)).await
}

async fn over(
    settings: &Settings,
    store: &Arc<Store>,
    connection: &Connection,
    clients: Clients,
    observer: Arc<dyn Observer>,
) -> Result<Engine, CommandError> {
    let secrets: Arc<dyn SecretStore> = store.clone();
    let keystore = keystore(settings, secrets).await?;
    let core = core_settings(settings, connection.child_environment.clone());
    Ok(Engine {
        journal: store.clone(),
        catalog: catalog_over(&connection.aws, clients, &keystore, core)?,
        clock: Arc::clone(&connection.clock),
        resolver: Arc::new(Resolver),
        observer,
        settings: platflow_engine::drive::Settings {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            ..Default::default()
        },
    })
}

/// Refuses everything: runbooks are checked without any state file.
struct NoSecrets;

fn no_store<T>() -> Result<T, SecretError> {
    Err(SecretError::Store("no state file is open".into()))
}

#[async_trait]
impl SecretStore for NoSecrets {
    async fn put_secret(&self, _: &EnvironmentUid, _: &str, _: &[u8], _: bool) -> Result<(), SecretError> {
        no_store()
    }
    async fn get_secret(&self, _: &EnvironmentUid, _: &str) -> Result<Option<SealedSecret>, SecretError> {
        no_store()
    }
    async fn list_secrets(&self, _: &EnvironmentUid) -> Result<Vec<SealedSecret>, SecretError> {
        no_store()
    }
    async fn remove_secret(&self, _: &EnvironmentUid, _: &str) -> Result<(), SecretError> {
        no_store()
    }
    async fn record_access(&self, _: &EnvironmentUid, _: &str, _: &str) -> Result<(), SecretError> {
        no_store()
    }
}

/// This process as an owner.
///
/// # Errors
/// When the system does not tell its own identity.
pub(crate) fn this_process() -> Result<platflow_engine::journal::Owner, CommandError> {
    platflow_state::this_process().map_err(|error| {
        CommandError::new(ExitCode::Internal, "the system does not say who this process is").caused_by(error)
    })
}
