//! Finds an environment's cluster in its record: no ambient kubeconfig, no guess.

use crate::failure::CommandError;
use crate::wiring;
use platflow_engine::journal::{EnvironmentRow, Journal};
use platflow_engine::name::EnvironmentName;
use platflow_state::Store;
use platflow_steps::kubernetes::ClusterAccess;
use serde::Deserialize;
use std::sync::Arc;

/// The environment and the access to the cluster that is on record for it.
///
/// # Errors
/// No such environment, or no cluster in it yet.
pub(crate) async fn of(store: &Arc<Store>, name: &str) -> Result<(EnvironmentRow, ClusterAccess), CommandError> {
    let name = EnvironmentName::new(name).map_err(|error| CommandError::usage(error.to_string()))?;
    let row = store.environment(&name).await.map_err(wiring::journal_error)?.ok_or_else(|| {
        CommandError::usage(format!("this state file knows no environment {name}"))
            .with_remedy("see what it knows with: platflow list")
    })?;
    let record = store.record(&row.uid).await.map_err(wiring::journal_error)?;
    let access = record
        .iter()
        .filter(|step| step.kind.as_str() == "aws.eks_cluster")
        .filter_map(|step| step.outputs.as_ref()?.get("access"))
        .find_map(|access| ClusterAccess::deserialize(access).ok());
    match access {
        Some(access) => Ok((row, access)),
        None => Err(CommandError::usage(format!("environment {name} has no cluster on record")).with_remedy(
            "build it with: platflow run deploy-aws-dev, or go on with a run that stopped: platflow list",
        )),
    }
}
