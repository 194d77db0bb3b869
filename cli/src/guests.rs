//! Asks before a cluster is taken down with what others put into it: their namespaces would go along, unseen by any tag.
//!
//! A look at the moment of the command, before anything is turned round. A cluster that does not answer, half built as it
//! may be, does not keep anybody from taking it back: it is said that nobody could look.

use crate::connection::Connection;
use crate::failure::{CommandError, ExitCode};
use crate::views::output;
use crate::wiring;
use platflow_engine::journal::{EnvironmentRow, Journal};
use platflow_engine::name::StepName;
use platflow_engine::plan::Plan;
use platflow_state::Store;
use platflow_steps::kubernetes::{self, Clients, ClusterAccess};
use serde::Deserialize;
use std::collections::BTreeSet;
use std::sync::Arc;

/// Looks into every cluster on record whose step `goes`.
///
/// # Errors
/// Exit 6 with the namespaces that are somebody else's, but for those that are `allowed` to go along.
pub(crate) async fn spare(
    store: &Arc<Store>,
    connection: &Connection,
    row: &EnvironmentRow,
    goes: &(dyn Fn(&StepName) -> bool + Sync),
    allowed: &[String],
) -> Result<(), CommandError> {
    let record = store.record(&row.uid).await.map_err(wiring::journal_error)?;
    let clients = Clients::new(connection.aws.tokens());
    for step in record.iter().filter(|step| step.kind.as_str() == "aws.eks_cluster" && goes(&step.step)) {
        let access = step.outputs.as_ref().and_then(|outputs| outputs.get("access"));
        let Some(access) = access.and_then(|access| ClusterAccess::deserialize(access).ok()) else { continue };
        let mut guests = match kubernetes::guests(&clients, &access, &row.uid).await {
            Ok(guests) => guests,
            Err(error) => {
                output::note(&format!("nobody could look what others made in cluster {}: {error}", access.name));
                continue;
            }
        };
        guests.retain(|guest| !allowed.contains(guest));
        if !guests.is_empty() {
            return Err(refusal(&access.name, &step.step, &guests));
        }
    }
    Ok(())
}

fn refusal(cluster: &str, step: &StepName, guests: &[String]) -> CommandError {
    let each: Vec<String> = guests.iter().map(|guest| format!("--with-namespace {guest}")).collect();
    CommandError::new(
        ExitCode::Stuck,
        format!(
            "cluster {cluster} holds what platflow did not make, and it would go with it: namespace {}; nothing was touched",
            guests.join(", ")
        ),
    )
    .with_remedy(format!(
        "keep the cluster with --keep {step}, or move what is in there and delete it, or let it go along: {}",
        each.join(" ")
    ))
}

/// The steps that stay when some are kept: those and all that they need.
pub(crate) fn staying(plan: &Plan, keep: &[StepName]) -> BTreeSet<StepName> {
    let mut open = keep.to_vec();
    let mut stay = BTreeSet::new();
    while let Some(name) = open.pop() {
        let needs = plan.steps.iter().find(|step| step.name == name).map(|step| step.needs.as_slice());
        if stay.insert(name) {
            open.extend(needs.unwrap_or_default().iter().cloned());
        }
    }
    stay
}
