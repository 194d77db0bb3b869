//! What a command talks to: the pinned target, the clients for it, and the clock that goes with it.
//!
//! Comes before every first call: the target is compared with the environment's record here, and another one ends the
//! command with nothing called.

use crate::failure::{CommandError, ExitCode};
use crate::sandbox_host;
use crate::settings::Settings;
use crate::target::Target;
use platflow_engine::clock::{Clock, ScaledClock};
use platflow_engine::journal::{EnvironmentRow, Journal};
use platflow_engine::name::EnvironmentName;
use platflow_state::Store;
use platflow_steps::aws::{AwsClients, AwsError, AwsSettings, CredentialSource};
use std::collections::BTreeMap;
use std::sync::Arc;

/// A connected target.
#[derive(Clone)]
pub(crate) struct Connection {
    /// What it is.
    pub(crate) target: Target,
    /// Clients for it.
    pub(crate) aws: Arc<AwsClients>,
    /// Polls and budgets run on this.
    pub(crate) clock: Arc<dyn Clock>,
    /// What children of `core.exec` get beside PATH, HOME and LANG.
    pub(crate) child_environment: BTreeMap<String, String>,
}

/// Which target was asked for on the command line.
#[derive(Debug, Clone, Default)]
pub(crate) struct Wanted {
    /// `--account`.
    pub(crate) account: Option<String>,
    /// `--region`.
    pub(crate) region: Option<String>,
}

fn aws_error(error: AwsError) -> CommandError {
    let message = error.to_string();
    let code = match &error {
        AwsError::NoRegion
        | AwsError::NoCredentials(_)
        | AwsError::Refused { .. }
        | AwsError::Unreachable { .. }
        | AwsError::OtherAccount { .. }
        | AwsError::Malformed(_) => ExitCode::Usage,
        AwsError::Http(_) => ExitCode::Internal,
    };
    let remedy = match &error {
        AwsError::NoRegion => "name it: --region us-east-1",
        AwsError::NoCredentials(_) => {
            "set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or sign in with: aws sso login"
        }
        AwsError::Refused { .. } => "renew the credentials, then run the same command again; nothing was changed",
        AwsError::Unreachable { .. } => "check the network and AWS_ENDPOINT_URL; nothing was changed",
        AwsError::OtherAccount { .. } => "use credentials of that account, or correct --account; nothing was changed",
        AwsError::Malformed(_) | AwsError::Http(_) => "nothing was changed",
    };
    let mut failure = CommandError::new(code, message).with_remedy(remedy);
    failure.source = std::error::Error::source(&error).map(|source| source.to_string().into());
    failure
}

async fn to_sandbox(settings: &Settings, region: Option<&str>) -> Result<Connection, CommandError> {
    let sandbox = sandbox_host::ensure(settings, None).await?;
    let endpoints = &sandbox.endpoints;
    let region = region.unwrap_or(sandbox_host::DEFAULT_REGION);
    let target = Target::Sandbox {
        world_id: endpoints.world_id.clone(),
        account: endpoints.account.clone(),
        region: region.to_owned(),
    };
    let mut aws = AwsSettings::sandbox(&endpoints.aws_url, region);
    aws.address_url = Some(sandbox_host::address_url(endpoints));
    let clock = sandbox_host::clock(&sandbox).await?;
    let aws = AwsClients::connect(aws).await.map_err(aws_error)?;
    let mut child_environment = sandbox_host::variables(endpoints);
    for name in ["AWS_REGION", "AWS_DEFAULT_REGION"] {
        child_environment.insert(name.to_owned(), region.to_owned());
    }
    Ok(Connection { target, aws, clock, child_environment })
}

async fn to_aws(wanted: &Wanted, recorded: Option<&Target>) -> Result<Connection, CommandError> {
    let account = wanted.account.clone().or_else(|| recorded.map(|target| target.account().to_owned()));
    let region = wanted.region.clone().or_else(|| recorded.map(|target| target.region().to_owned()));
    let (Some(account), Some(region)) = (account, region) else {
        return Err(CommandError::usage("the first run of an environment in AWS names its account and its region")
            .with_remedy(
                "add --account <id> --region <region>; both are pinned with the environment.\n\
                 To try it without an account, add --sandbox.",
            ));
    };
    let settings = AwsSettings {
        region: Some(region.clone()),
        endpoint_url: None,
        credentials: CredentialSource::Chain { profile: None },
        expected_account: Some(account),
        address_url: None,
    };
    let aws = AwsClients::connect(settings).await.map_err(aws_error)?;
    let identity = aws.caller_identity();
    let target = Target::Aws { partition: identity.partition.clone(), account: identity.account.clone(), region };
    Ok(Connection { target, aws, clock: Arc::new(ScaledClock::real()), child_environment: BTreeMap::new() })
}

/// What the command line says must fit what is on record, before anything is called.
fn check_words(
    wanted: &Wanted,
    settings: &Settings,
    row: &EnvironmentRow,
    recorded: &Target,
) -> Result<(), CommandError> {
    let other = |what: &str, asked: &str| {
        CommandError::usage(format!(
            "environment {} lives in {}, not in {what} {asked}; nothing was called",
            row.name,
            recorded.describe()
        ))
        .with_remedy("leave the option out, or name another environment with --environment")
    };
    if let Some(account) = wanted.account.as_deref().filter(|account| *account != recorded.account()) {
        return Err(other("account", account));
    }
    if let Some(region) = wanted.region.as_deref().filter(|region| *region != recorded.region()) {
        return Err(other("region", region));
    }
    match recorded {
        Target::Aws { .. } if settings.sandbox => Err(CommandError::usage(format!(
            "environment {} lives in {}, not in the sandbox; nothing was called",
            row.name,
            recorded.describe()
        ))
        .with_remedy("leave out --sandbox, or name another environment with --environment")),
        Target::Aws { .. } | Target::Sandbox { .. } => Ok(()),
    }
}

/// Connects for an environment: to what is on record for it, or, for a new one, to what was asked for.
///
/// # Errors
/// Exit 2 for another target, missing or refused credentials.
pub(crate) async fn connect(
    settings: &Settings,
    store: &Arc<Store>,
    environment: &EnvironmentName,
    wanted: &Wanted,
) -> Result<(Connection, Option<EnvironmentRow>), CommandError> {
    let row = store.environment(environment).await.map_err(crate::wiring::journal_error)?;
    let Some(row) = row else {
        return Ok((to_account(settings, wanted).await?, None));
    };
    let recorded = Target::recorded(&row)?;
    check_words(wanted, settings, &row, &recorded)?;
    let connection = match &recorded {
        Target::Sandbox { region, .. } => to_sandbox(settings, Some(region)).await?,
        Target::Aws { .. } => to_aws(wanted, Some(&recorded)).await?,
    };
    recorded.must_equal(&connection.target, environment)?;
    Ok((connection, Some(row)))
}

/// Connects to the account itself, for no environment.
///
/// # Errors
/// Exit 2 for another target than the one asked for, missing or refused credentials.
pub(crate) async fn to_account(settings: &Settings, wanted: &Wanted) -> Result<Connection, CommandError> {
    let connection = if settings.sandbox {
        to_sandbox(settings, wanted.region.as_deref()).await?
    } else {
        to_aws(wanted, None).await?
    };
    check_new(wanted, &connection)?;
    Ok(connection)
}

fn check_new(wanted: &Wanted, connection: &Connection) -> Result<(), CommandError> {
    let target = &connection.target;
    for (what, asked, found) in
        [("account", &wanted.account, target.account()), ("region", &wanted.region, target.region())]
    {
        if let Some(asked) = asked.as_deref().filter(|asked| *asked != found) {
            return Err(CommandError::usage(format!(
                "this is {}, not {what} {asked}; nothing was changed",
                target.describe()
            )));
        }
    }
    Ok(())
}
