//! Asks before a cluster is taken down with what others put into it: their namespaces and the data on their volumes would
//! go along, unseen by any tag.
//!
//! A look at the moment of the command, before anything is turned round. A cluster that does not answer, half built as it
//! may be, does not keep anybody from taking it back: it is said that nobody could look.

use crate::connection::Connection;
use crate::failure::{CommandError, ExitCode};
use crate::views::output;
use crate::wiring;
use platflow_engine::journal::{EnvironmentRow, Journal, RecordedStep};
use platflow_engine::name::StepName;
use platflow_engine::plan::Plan;
use platflow_state::Store;
use platflow_steps::aws;
use platflow_steps::kubernetes::{self, Clients, ClusterAccess};
use serde::Deserialize;
use std::collections::BTreeSet;
use std::sync::Arc;

/// The clusters on record.
fn clusters(record: &[RecordedStep]) -> impl Iterator<Item = (&StepName, ClusterAccess)> {
    record.iter().filter(|step| step.kind.as_str() == "aws.eks_cluster").filter_map(|step| {
        let access = step.outputs.as_ref()?.get("access")?;
        Some((&step.step, ClusterAccess::deserialize(access).ok()?))
    })
}

/// The namespaces on record whose step `goes`: what is claimed in them goes too, though the cluster may stay.
fn namespaces<'a>(record: &'a [RecordedStep], goes: &(dyn Fn(&StepName) -> bool + Sync)) -> BTreeSet<&'a str> {
    let going = record.iter().filter(|step| step.kind.as_str() == "kubernetes.namespace" && goes(&step.step));
    going.filter_map(|step| step.outputs.as_ref()?.get("name")?.as_str()).collect()
}

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
    for (step, access) in clusters(&record).filter(|(step, _)| goes(step)) {
        let mut guests = match kubernetes::guests(&clients, &access, &row.uid).await {
            Ok(guests) => guests,
            Err(error) => {
                output::note(&format!("nobody could look what others made in cluster {}: {error}", access.name));
                continue;
            }
        };
        guests.retain(|guest| !allowed.contains(guest));
        if !guests.is_empty() {
            return Err(refusal(&access.name, step, &guests));
        }
    }
    Ok(())
}

/// The volumes with somebody's data that go with the clusters and namespaces on record whose step `goes`: claim, size and
/// id, a line each. Those that a step of the environment made are that step's to tell.
///
/// # Errors
/// Only when the record cannot be read.
pub(crate) async fn volumes(
    store: &Arc<Store>,
    connection: &Connection,
    row: &EnvironmentRow,
    goes: &(dyn Fn(&StepName) -> bool + Sync),
) -> Result<Vec<String>, CommandError> {
    let record = store.record(&row.uid).await.map_err(wiring::journal_error)?;
    let clients = Clients::new(connection.aws.tokens());
    let emptied = namespaces(&record, goes);
    let mut lines = Vec::new();
    for (step, access) in clusters(&record) {
        let whole = goes(step);
        if !whole && emptied.is_empty() {
            continue;
        }
        let known = match kubernetes::volumes(&clients, &access, &row.uid).await {
            Ok(known) => known,
            Err(error) => {
                output::note(&format!("nobody could look which volumes cluster {} holds: {error}", access.name));
                continue;
            }
        };
        let dies = |claim: Option<&str>| {
            whole || claim.and_then(|claim| claim.split_once('/')).is_some_and(|(name, _)| emptied.contains(name))
        };
        for volume in known.iter().filter(|volume| !volume.ours && dies(volume.claim.as_deref())) {
            let claim = volume.claim.as_deref().unwrap_or("no claim");
            lines.push(format!("{claim}, {}, volume {}", volume.size, volume.id));
        }
        if !whole {
            continue;
        }
        // A claim that was deleted under a class that retains leaves its bytes, and nothing in the cluster tells of them.
        match aws::cluster_volumes(&connection.aws, &access.name).await {
            Ok(disks) => {
                lines.extend(disks.iter().filter(|disk| !known.iter().any(|volume| volume.id == disk.id)).map(|disk| {
                    let claim = disk.claim.as_deref().unwrap_or("no claim");
                    format!("{claim} (no longer in the cluster), {} GiB, volume {}", disk.gib, disk.id)
                }))
            }
            Err(error) => {
                output::note(&format!("nobody could look which EBS volumes cluster {} left: {error}", access.name));
            }
        }
    }
    Ok(lines)
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
