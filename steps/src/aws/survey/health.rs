//! What EKS itself complains about: the health of the cluster, its node groups and its add-ons. Reads only.
//!
//! <https://docs.aws.amazon.com/eks/latest/APIReference/API_ClusterIssue.html>, `API_Issue.html`, `API_AddonIssue.html`.

use super::super::clients::AwsClients;
use super::super::eks_cluster;
use super::super::failure::look;
use super::text_of;
use platflow_engine::failure::StepError;
use platflow_engine::name::StepName;
use platflow_engine::survey::{Scope, ScopedStep};

/// A health issue of something on record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Complaint {
    /// The step that made it.
    pub step: StepName,
    /// The step's kind.
    pub kind: &'static str,
    /// E.g. `NodeCreationFailure`.
    pub code: String,
    /// What EKS says about it.
    pub message: String,
}

/// What a service calls a missing thing: its step tells that.
fn unless_gone<T>(answer: Result<T, super::super::failure::AwsFailure>) -> Result<Option<T>, StepError> {
    match answer {
        Ok(answer) => Ok(Some(answer)),
        Err(failure) if failure.is_not_found() => Ok(None),
        Err(failure) => Err(failure.into()),
    }
}

fn complaint(step: &ScopedStep, kind: &'static str, code: Option<&str>, message: Option<&str>) -> Complaint {
    Complaint {
        step: step.name.clone(),
        kind,
        code: code.unwrap_or("Unknown").to_owned(),
        message: message.unwrap_or_default().to_owned(),
    }
}

/// Asks about every cluster, node group and add-on on record.
///
/// # Errors
/// When EKS does not answer, or does not let us look.
pub async fn complaints(aws: &AwsClients, scope: &Scope) -> Result<Vec<Complaint>, StepError> {
    let mut found = Vec::new();
    for step in scope.of_kind("aws.eks_cluster") {
        let Some(name) = text_of(step, "name") else { continue };
        let cluster = eks_cluster::get(aws, name).await?;
        let issues = cluster.as_ref().and_then(|cluster| cluster.health()).map(|health| health.issues());
        found.extend(
            issues.unwrap_or_default().iter().map(|issue| {
                complaint(step, "aws.eks_cluster", issue.code().map(|code| code.as_str()), issue.message())
            }),
        );
    }
    for step in scope.of_kind("aws.node_group") {
        let (Some(cluster), Some(name)) = (text_of(step, "cluster_name"), text_of(step, "name")) else { continue };
        let asking = aws.eks.describe_nodegroup().cluster_name(cluster).nodegroup_name(name).send();
        let Some(answer) = unless_gone(look("DescribeNodegroup", asking).await)? else { continue };
        let issues = answer.nodegroup().and_then(|group| group.health()).map(|health| health.issues());
        found.extend(
            issues.unwrap_or_default().iter().map(|issue| {
                complaint(step, "aws.node_group", issue.code().map(|code| code.as_str()), issue.message())
            }),
        );
    }
    for step in scope.of_kind("aws.addon") {
        let (Some(cluster), Some(name)) = (text_of(step, "cluster_name"), text_of(step, "name")) else { continue };
        let asking = aws.eks.describe_addon().cluster_name(cluster).addon_name(name).send();
        let Some(answer) = unless_gone(look("DescribeAddon", asking).await)? else { continue };
        let issues = answer.addon().and_then(|addon| addon.health()).map(|health| health.issues());
        found.extend(
            issues
                .unwrap_or_default()
                .iter()
                .map(|issue| complaint(step, "aws.addon", issue.code().map(|code| code.as_str()), issue.message())),
        );
    }
    Ok(found)
}
