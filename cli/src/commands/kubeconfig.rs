//! `platflow kubeconfig`: a kubeconfig whose user is `platflow k8s-token`. It holds no secret.

use crate::arguments::Kubeconfig;
use crate::cluster;
use crate::failure::{CommandError, ExitCode};
use crate::settings::Settings;
use crate::views::output;
use crate::wiring;
use serde_json::json;

/// Prints the kubeconfig; JSON is YAML, and every client reads it.
///
/// # Errors
/// When there is no cluster on record.
pub(crate) async fn execute(arguments: Kubeconfig, settings: &Settings) -> Result<ExitCode, CommandError> {
    let store = wiring::open_store(settings)?;
    let (row, access) = cluster::of(&store, &arguments.environment).await?;
    let program = settings.program.display().to_string();
    let state = settings.state_directory.display().to_string();
    let config = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": access.name, "cluster": {
            "server": access.endpoint,
            "certificate-authority-data": access.certificate_authority_data,
        }}],
        "users": [{"name": "platflow", "user": {"exec": {
            "apiVersion": "client.authentication.k8s.io/v1",
            "command": program,
            "args": ["k8s-token", "--environment", row.name, "--state", state],
            "interactiveMode": "Never",
            "provideClusterInfo": false,
        }}}],
        "contexts": [{"name": row.name, "context": {"cluster": access.name, "user": "platflow"}}],
        "current-context": row.name,
    });
    output::json(&config)?;
    Ok(ExitCode::Done)
}
