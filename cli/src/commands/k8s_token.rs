//! `platflow k8s-token`: an ExecCredential for kubectl, presigned in process; never stored.

use crate::arguments::K8sToken;
use crate::cluster;
use crate::connection::{self, Wanted};
use crate::failure::{CommandError, ExitCode};
use crate::settings::Settings;
use crate::views::output;
use crate::wiring;
use secrecy::ExposeSecret;
use serde_json::json;

/// Prints the credential.
///
/// # Errors
/// No cluster on record, another target, no credentials.
pub(crate) async fn execute(arguments: K8sToken, settings: &Settings) -> Result<ExitCode, CommandError> {
    let store = wiring::open_store(settings)?;
    let (row, access) = cluster::of(&store, &arguments.environment).await?;
    let (connection, _) = connection::connect(settings, &store, &row.name, &Wanted::default()).await?;
    let (token, expiry) =
        connection.aws.tokens().token(&access.name).await.map_err(|error| {
            CommandError::new(ExitCode::Internal, "the token could not be presigned").caused_by(error)
        })?;
    output::json_line(&json!({
        "apiVersion": "client.authentication.k8s.io/v1",
        "kind": "ExecCredential",
        "spec": {"interactive": false},
        "status": {"token": token.expose_secret(), "expirationTimestamp": expiry.to_string()},
    }))?;
    Ok(ExitCode::Done)
}
