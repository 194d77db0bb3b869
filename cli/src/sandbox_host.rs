//! The embedded sandbox as the commands see it: started when needed, asked over its control endpoint.

use crate::failure::{CommandError, ExitCode};
use crate::settings::Settings;
use jiff::Timestamp;
use platflow_engine::clock::{Clock, ScaledClock};
use platflow_sandbox::control::{ControlError, Endpoints, Sandbox, StartOptions};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The region that an environment in the sandbox gets when none is named; the sandbox simulates every region alike.
pub(crate) const DEFAULT_REGION: &str = "us-east-1";

/// A control endpoint's failure as a command's.
#[must_use]
pub(crate) fn failed(error: ControlError) -> CommandError {
    let (code, remedy) = match &error {
        ControlError::NotRunning(_) => (ExitCode::Usage, "start it with: platflow sandbox start"),
        ControlError::Refused(_) => (ExitCode::Usage, "nothing was changed"),
        ControlError::NotStarted { .. } | ControlError::Io { .. } | ControlError::Silent(_) => (
            ExitCode::Internal,
            "see sandbox/sandbox.log beside the state file, or start over with: platflow sandbox reset",
        ),
    };
    CommandError::new(code, error.to_string()).with_remedy(remedy)
}

/// Starts the sandbox when it is not running.
///
/// # Errors
/// When it cannot be started or does not answer.
pub(crate) async fn ensure(settings: &Settings, seed: Option<u64>) -> Result<Sandbox, CommandError> {
    let options = StartOptions { seed, speed: settings.speed, version: env!("CARGO_PKG_VERSION").to_owned() };
    let sandbox =
        Sandbox::ensure_started(&settings.program, &settings.sandbox_directory(), &options).await.map_err(failed)?;
    if let Some(speed) = settings.speed.filter(|speed| (speed - sandbox.endpoints.speed).abs() > f64::EPSILON) {
        sandbox.set_clock(Some(speed), 0).await.map_err(failed)?;
    }
    Ok(sandbox)
}

/// The sandbox, if it runs.
///
/// # Errors
/// When none runs.
pub(crate) async fn find(settings: &Settings) -> Result<Sandbox, CommandError> {
    Sandbox::find(&settings.sandbox_directory()).await.map_err(failed)
}

/// A clock that runs with the sandbox's.
///
/// # Errors
/// When the sandbox does not answer.
pub(crate) async fn clock(sandbox: &Sandbox) -> Result<Arc<dyn Clock>, CommandError> {
    let (now_ms, speed) = sandbox.clock().await.map_err(failed)?;
    let now = Timestamp::from_millisecond(now_ms).map_err(|error| {
        CommandError::new(ExitCode::Internal, "the sandbox's clock is out of range").caused_by(error)
    })?;
    Ok(Arc::new(ScaledClock::scaled(now, speed)))
}

/// Where the sandbox tells a caller its address.
#[must_use]
pub(crate) fn address_url(endpoints: &Endpoints) -> String {
    format!("{}/checkip", endpoints.control_url)
}

/// The environment variables that point any other tool at the sandbox.
#[must_use]
pub(crate) fn variables(endpoints: &Endpoints) -> BTreeMap<String, String> {
    [
        ("AWS_ENDPOINT_URL", endpoints.aws_url.as_str()),
        ("AWS_ACCESS_KEY_ID", "AKIAPLATFLOWSANDBOX0"),
        ("AWS_SECRET_ACCESS_KEY", "sandbox"),
        ("AWS_REGION", DEFAULT_REGION),
        ("AWS_DEFAULT_REGION", DEFAULT_REGION),
        ("AWS_EC2_METADATA_DISABLED", "true"),
        ("AWS_CONFIG_FILE", "/dev/null"),
        ("AWS_SHARED_CREDENTIALS_FILE", "/dev/null"),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .collect()
}

/// Adds a fault rule to the running sandbox.
///
/// # Errors
/// A rule that cannot be read.
pub(crate) async fn fault(settings: &Settings, rule: &str) -> Result<(), CommandError> {
    find(settings).await?.fault(rule).await.map_err(failed)?;
    Ok(())
}

/// Draws faults from a profile, `PROFILE[:SEED]`, in the running sandbox.
///
/// # Errors
/// A profile that does not exist.
pub(crate) async fn faults(settings: &Settings, profile: &str) -> Result<(), CommandError> {
    find(settings).await?.follow(profile).await.map_err(failed)?;
    Ok(())
}
