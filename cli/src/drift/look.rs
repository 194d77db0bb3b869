//! One pass over an environment: every step on record is looked at with the spec it was built with, and what is in ours
//! and nobody's is listed. Reads only.

use super::{Check, Deviation, Drifted, Untold};
use crate::connection::Connection;
use crate::looking::Looker;
use futures::StreamExt;
use platflow_engine::failure::StepError;
use platflow_engine::journal::{EnvironmentRow, RecordedStep};
use platflow_engine::step::{Observation, Ownership};
use platflow_engine::survey::{Scope, ScopedStep};
use platflow_steps::aws;
use platflow_steps::kubernetes::{self, Clients, ClusterAccess};
use serde::Deserialize;

/// How many steps are looked at at once: what one account's read buckets bear.
const AT_ONCE: usize = 12;

/// What came of a look at a step.
enum Looked {
    Compared(Vec<Deviation>),
    Untold(String),
    PassedOver,
}

/// Kinds that every run does anew: there is nothing that lasts and could drift. Commands and requests of users are not
/// made for a check.
fn leaves_nothing(kind: &str) -> bool {
    kind.starts_with("smoke.") || kind.starts_with("core.")
}

fn deviations(found: Observation) -> Looked {
    match found {
        Observation::Absent => Looked::Compared(vec![Deviation::Missing]),
        Observation::Present { ownership: Ownership::Foreign(owner), .. } => {
            Looked::Compared(vec![Deviation::Foreign { owner }])
        }
        Observation::Present { differences, .. } => Looked::Compared(
            differences
                .into_iter()
                .map(|one| Deviation::Changed {
                    field: one.field,
                    recorded: one.wanted,
                    found: one.found,
                    replace: one.replace,
                })
                .collect(),
        ),
        Observation::Changing { reason, .. } => Looked::Untold(format!("it is changing: {reason}")),
        Observation::Unknown { reason } => Looked::Untold(reason),
    }
}

async fn one(looker: &Looker<'_>, row: &RecordedStep) -> Looked {
    if leaves_nothing(row.kind.as_str()) {
        return Looked::PassedOver;
    }
    if !row.settled {
        return Looked::Untold("a run stopped in the middle of it; go on with that run first".to_owned());
    }
    let Some(kind) = looker.engine.catalog.step(&row.kind) else {
        return Looked::Untold(format!("this platflow has no step kind {}", row.kind));
    };
    let known = Looker::known(Some(row));
    match kind.observe(&row.spec, &known, &looker.context(&row.step, Some(row))).await {
        Ok(found) => deviations(found),
        Err(error) => Looked::Untold(told(&error)),
    }
}

/// What went wrong with a look, and what to do about it where the step knows.
fn told(error: &StepError) -> String {
    match &error.remedy {
        Some(remedy) => format!("{error}; {remedy}"),
        None => error.to_string(),
    }
}

/// What the searches in the account are told: everything on record is meant to stay.
fn scope(looker: &Looker<'_>, environment: &EnvironmentRow, record: &[RecordedStep]) -> Scope {
    let steps = record.iter().map(|row| ScopedStep {
        name: row.step.clone(),
        kind: row.kind.clone(),
        spec: Some(row.spec.clone()),
        outputs: row.outputs.clone(),
        notes: row.notes.clone(),
        stays: Some("on record".to_owned()),
    });
    Scope {
        environment: environment.name.clone(),
        environment_uid: environment.uid.clone(),
        run: looker.run.clone(),
        since: Some(environment.created_at),
        steps: steps.collect(),
    }
}

/// Namespaces that others made in our clusters.
async fn namespaces(
    connection: &Connection,
    environment: &EnvironmentRow,
    record: &[RecordedStep],
) -> Result<Vec<Drifted>, StepError> {
    let clients = Clients::new(connection.aws.tokens());
    let mut found = Vec::new();
    for row in record.iter().filter(|row| row.kind.as_str() == "aws.eks_cluster") {
        let access = row.outputs.as_ref().and_then(|outputs| outputs.get("access"));
        let Some(access) = access.and_then(|access| ClusterAccess::deserialize(access).ok()) else { continue };
        for guest in kubernetes::guests(&clients, &access, &environment.uid).await? {
            let inside = format!("{} ({})", access.name, row.step);
            found.push(Drifted::extra("kubernetes:namespace", &guest, &inside, "not made by platflow"));
        }
    }
    Ok(found)
}

/// Looks at everything.
pub(crate) async fn check(
    looker: &Looker<'_>,
    connection: &Connection,
    environment: &EnvironmentRow,
    record: &[RecordedStep],
) -> Check {
    let mut check = Check {
        environment: environment.name.clone(),
        checked_at: looker.engine.clock.now(),
        compared: 0,
        passed_over: 0,
        findings: Vec::new(),
        untold: Vec::new(),
    };
    let mut looks =
        futures::stream::iter(record).map(|row| async move { (row, one(looker, row).await) }).buffered(AT_ONCE);
    while let Some((row, looked)) = looks.next().await {
        match looked {
            Looked::PassedOver => check.passed_over += 1,
            Looked::Untold(reason) => check.untold.push(Untold { step: row.step.to_string(), reason }),
            Looked::Compared(deviations) => {
                check.compared += 1;
                let found = deviations.into_iter();
                check.findings.extend(found.map(|one| Drifted::of_step(&row.step, row.kind.as_str(), one)));
            }
        }
    }
    drop(looks);
    let scope = scope(looker, environment, record);
    match aws::extras(&connection.aws, &scope).await {
        Ok(extras) => check
            .findings
            .extend(extras.iter().map(|extra| Drifted::extra(&extra.resource, &extra.id, &extra.inside, &extra.owner))),
        Err(error) => check.untold.push(Untold { step: "extras in the account".to_owned(), reason: told(&error) }),
    }
    match aws::complaints(&connection.aws, &scope).await {
        Ok(complaints) => check.findings.extend(complaints.into_iter().map(|complaint| {
            let deviation = Deviation::Unhealthy { code: complaint.code, message: complaint.message };
            Drifted::of_step(&complaint.step, complaint.kind, deviation)
        })),
        Err(error) => check.untold.push(Untold { step: "health".to_owned(), reason: told(&error) }),
    }
    match namespaces(connection, environment, record).await {
        Ok(found) => check.findings.extend(found),
        Err(error) => check.untold.push(Untold { step: "extras in the cluster".to_owned(), reason: told(&error) }),
    }
    check.findings.sort_by(|one, other| (one.subject(), one.line()).cmp(&(other.subject(), other.line())));
    check
}
