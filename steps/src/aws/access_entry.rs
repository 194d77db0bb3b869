//! `aws.access_entry`: lets an IAM principal into a cluster, with access policies and Kubernetes groups.
//!
//! `caller` stands for whoever runs platflow: the role behind a session, with its path. A change that takes the
//! caller's own access away is refused without consent. That an entry exists does not mean that the API server knows it already.

use super::clients::AwsClients;
use super::ec2::{SHORT, finished, required};
use super::eks_cluster::{eks_tags, update_call};
use super::failure::{change, look};
use super::iam_role::get_role;
use super::ownership::{
    Differences, Start, Tags, compare_tags, creation_tags, going, lasting_tags, not_ours, nothing_left, ownership,
    proven, start, touches,
};
use crate::contract::{Made, Record, Seen, StepKind};
use async_trait::async_trait;
use aws_sdk_eks::types::{AccessEntry, AccessScope, AccessScopeType};
use platflow_engine::context::Context;
use platflow_engine::failure::{Residue, StepError};
use platflow_engine::step::{Ownership, UndoProgress};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// An access entry.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AccessEntrySpec {
    /// The cluster. Cannot be changed in place.
    pub cluster_name: String,
    /// ARN of a role or user, with its path; or `caller`. Cannot be changed in place.
    pub principal_arn: String,
    /// What it may do.
    #[serde(default)]
    pub policies: Vec<PolicySpec>,
    /// Kubernetes groups it is in.
    #[serde(default)]
    pub kubernetes_groups: BTreeSet<String>,
    /// Consent to a change that takes policies of the whole cluster from whoever runs platflow. Without it, it is refused.
    #[serde(default)]
    pub may_lose_own_access: bool,
    /// `STANDARD`, `EC2_LINUX` and others. Cannot be changed in place.
    #[serde(default = "standard", rename = "type")]
    pub kind: String,
    /// Further tags.
    #[serde(default)]
    pub tags: Tags,
}

fn standard() -> String {
    "STANDARD".to_owned()
}

/// An access policy of EKS.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PolicySpec {
    /// ARN of the access policy.
    pub arn: String,
    /// Only in these namespaces; empty: in the whole cluster.
    #[serde(default)]
    pub namespaces: BTreeSet<String>,
}

/// An access entry that exists.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct AccessEntryOutputs {
    /// Its ARN.
    pub arn: String,
    /// The principal, `caller` resolved.
    pub principal_arn: String,
}

/// See the file.
pub(super) struct AccessEntryKind(pub(super) Arc<AwsClients>);

/// Policies by ARN with their namespaces.
type Policies = BTreeMap<String, BTreeSet<String>>;

fn wanted(spec: &AccessEntrySpec) -> Policies {
    spec.policies.iter().map(|policy| (policy.arn.clone(), policy.namespaces.clone())).collect()
}

/// Policies in the shape of the spec.
fn shown(policies: &Policies) -> Vec<Value> {
    policies.iter().map(|(arn, namespaces)| json!({"arn": arn, "namespaces": namespaces})).collect()
}

/// The role name in `arn:aws:sts::1:assumed-role/<role>/<session>`.
pub(super) fn session_role(arn: &str) -> Option<&str> {
    let (_, resource) = arn.split_once(":assumed-role/")?;
    resource.split('/').next()
}

impl AccessEntryKind {
    /// The IAM principal behind the caller: a session's role with its path, or the user itself.
    async fn caller(&self) -> Result<String, StepError> {
        let arn = &self.0.identity.arn;
        let Some(role) = session_role(arn) else { return Ok(arn.clone()) };
        match get_role(&self.0, role).await? {
            Some(role) => Ok(role.arn),
            None => Err(StepError::permanent(format!("the role of {arn} is not visible to IAM"))
                .leaving(Residue::None)
                .with_remedy("name the principal's ARN instead of caller")),
        }
    }

    async fn principal(&self, spec: &AccessEntrySpec) -> Result<String, StepError> {
        if spec.principal_arn == "caller" { self.caller().await } else { Ok(spec.principal_arn.clone()) }
    }

    async fn get(&self, cluster: &str, principal: &str) -> Result<Option<AccessEntry>, StepError> {
        let request = self.0.eks.describe_access_entry().cluster_name(cluster).principal_arn(principal);
        match look("DescribeAccessEntry", request.send()).await {
            Ok(answer) => Ok(answer.access_entry),
            Err(failure) if failure.is_not_found() => Ok(None),
            Err(failure) => Err(failure.into()),
        }
    }

    async fn policies(&self, cluster: &str, principal: &str) -> Result<Policies, StepError> {
        let request = self.0.eks.list_associated_access_policies().cluster_name(cluster).principal_arn(principal);
        let answer = look("ListAssociatedAccessPolicies", request.send()).await?;
        let policies = answer.associated_access_policies().iter();
        Ok(policies
            .filter_map(|policy| {
                let namespaces = policy.access_scope().map(|scope| scope.namespaces()).unwrap_or_default();
                Some((policy.policy_arn()?.to_owned(), namespaces.iter().cloned().collect()))
            })
            .collect())
    }

    async fn create(&self, spec: &AccessEntrySpec, principal: &str, context: &Context) -> Result<(), StepError> {
        let permit = context.begin("CreateAccessEntry")?;
        let tags = creation_tags(context, principal, &spec.tags, &permit.token);
        let groups = (!spec.kubernetes_groups.is_empty()).then(|| spec.kubernetes_groups.iter().cloned().collect());
        let request = self.0.eks.create_access_entry().client_request_token(&permit.token);
        let sending = request
            .cluster_name(&spec.cluster_name)
            .principal_arn(principal)
            .set_kubernetes_groups(groups)
            .r#type(&spec.kind)
            .set_tags(Some(tags.into_iter().collect()))
            .send();
        change("CreateAccessEntry", &permit, sending).await?;
        Ok(())
    }

    async fn set_policies(
        &self,
        spec: &AccessEntrySpec,
        principal: &str,
        present: &Policies,
        context: &Context,
    ) -> Result<(), StepError> {
        let wanted = wanted(spec);
        for (arn, namespaces) in wanted.iter().filter(|(arn, namespaces)| present.get(*arn) != Some(*namespaces)) {
            let permit = context.begin(&format!("AssociateAccessPolicy/{arn}"))?;
            let scope = if namespaces.is_empty() { AccessScopeType::Cluster } else { AccessScopeType::Namespace };
            let limits = (!namespaces.is_empty()).then(|| namespaces.iter().cloned().collect());
            let scope = AccessScope::builder().r#type(scope).set_namespaces(limits).build();
            let request = self.0.eks.associate_access_policy().cluster_name(&spec.cluster_name);
            let sending = request.principal_arn(principal).policy_arn(arn).access_scope(scope).send();
            change("AssociateAccessPolicy", &permit, sending).await?;
        }
        for arn in present.keys().filter(|arn| !wanted.contains_key(*arn)) {
            let permit = context.begin(&format!("DisassociateAccessPolicy/{arn}"))?;
            let request = self.0.eks.disassociate_access_policy().cluster_name(&spec.cluster_name);
            let sending = request.principal_arn(principal).policy_arn(arn).send();
            change("DisassociateAccessPolicy", &permit, sending).await?;
        }
        Ok(())
    }

    /// Refuses a change after which the caller could do less in the whole cluster than before, unless it was agreed to.
    async fn keeps_caller(&self, spec: &AccessEntrySpec, principal: &str, present: &Policies) -> Result<(), StepError> {
        let wanted = wanted(spec);
        let lost: Vec<&String> = present
            .iter()
            .filter(|(arn, namespaces)| namespaces.is_empty() && wanted.get(*arn).is_none_or(|now| !now.is_empty()))
            .map(|(arn, _)| arn)
            .collect();
        if lost.is_empty() || spec.may_lose_own_access || self.caller().await? != principal {
            return Ok(());
        }
        let lost: Vec<&str> = lost.into_iter().map(String::as_str).collect();
        Err(StepError::needs_human(format!(
            "this change takes {} from {principal}, which runs platflow",
            lost.join(", ")
        ))
        .leaving(Residue::Present)
        .with_code("OwnAccess")
        .with_remedy("run it as another administrator, keep the policy, or agree with may_lose_own_access: true"))
    }

    async fn change_present(
        &self,
        spec: &AccessEntrySpec,
        found: &AccessEntryOutputs,
        differences: &[platflow_engine::step::Difference],
        context: &Context,
    ) -> Result<(), StepError> {
        let principal = &found.principal_arn;
        if touches(differences, "/policies") {
            let present = self.policies(&spec.cluster_name, principal).await?;
            self.keeps_caller(spec, principal, &present).await?;
            self.set_policies(spec, principal, &present, context).await?;
        }
        if touches(differences, "/kubernetes_groups") {
            let permit = context.begin(&update_call(context, "UpdateAccessEntry", &json!(differences)))?;
            let request = self.0.eks.update_access_entry().cluster_name(&spec.cluster_name).principal_arn(principal);
            let sending = request
                .set_kubernetes_groups(Some(spec.kubernetes_groups.iter().cloned().collect()))
                .client_request_token(&permit.token)
                .send();
            change("UpdateAccessEntry", &permit, sending).await?;
        }
        if touches(differences, "/tags") {
            let permit = context.begin("TagResource")?;
            let tags = lasting_tags(context, principal, &spec.tags).into_iter().collect();
            let sending = self.0.eks.tag_resource().resource_arn(&found.arn).set_tags(Some(tags)).send();
            change("TagResource", &permit, sending).await?;
        }
        Ok(())
    }
}

#[async_trait]
impl StepKind for AccessEntryKind {
    type Spec = AccessEntrySpec;
    type Outputs = AccessEntryOutputs;

    const NAME: &'static str = "aws.access_entry";
    const SUMMARY: &'static str = "Lets an IAM principal into a cluster.";
    const EXPECTED: Duration = Duration::from_secs(5);

    async fn observe(
        &self,
        spec: &AccessEntrySpec,
        record: &Record<AccessEntryOutputs>,
        context: &Context,
    ) -> Result<Seen<AccessEntryOutputs>, StepError> {
        let principal = self.principal(spec).await?;
        let Some(entry) = self.get(&spec.cluster_name, &principal).await? else { return Ok(Seen::Absent) };
        let tags = eks_tags(entry.tags());
        let arn = required("access entry ARN", entry.access_entry_arn())?.to_owned();
        let recorded = record.outputs.as_ref().is_some_and(|outputs| outputs.arn == arn);
        let mut differences = Differences::default();
        differences.fixed("/type", Some(spec.kind.as_str()), entry.r#type());
        let policies = self.policies(&spec.cluster_name, &principal).await?;
        differences.field("/policies", shown(&wanted(spec)), shown(&policies));
        let groups: BTreeSet<String> = entry.kubernetes_groups().iter().cloned().collect();
        if spec.kind == "STANDARD" {
            differences.field("/kubernetes_groups", &spec.kubernetes_groups, groups);
        }
        compare_tags(&mut differences, &lasting_tags(context, &principal, &spec.tags), &tags);
        let outputs = AccessEntryOutputs { arn, principal_arn: principal };
        Ok(Seen::Present { outputs, ownership: ownership(&tags, context, recorded), differences: differences.0 })
    }

    async fn apply(
        &self,
        spec: &AccessEntrySpec,
        seen: &Seen<AccessEntryOutputs>,
        record: &Record<AccessEntryOutputs>,
        context: &Context,
    ) -> Result<Made<AccessEntryOutputs>, StepError> {
        match start(&format!("the access entry of {}", spec.principal_arn), seen)? {
            Start::Create => {
                let principal = self.principal(spec).await?;
                self.create(spec, &principal, context).await?;
                self.set_policies(spec, &principal, &Policies::new(), context).await?;
            }
            Start::Change(found, differences) => self.change_present(spec, found, differences, context).await?,
        }
        Ok(finished(self.observe(spec, record, context).await?, SHORT))
    }

    async fn undo(
        &self,
        spec: &AccessEntrySpec,
        record: &Record<AccessEntryOutputs>,
        context: &Context,
    ) -> Result<UndoProgress, StepError> {
        // Whoever undoes may be another caller than whoever applied: the record says who was meant.
        let principal = match &record.outputs {
            Some(outputs) => outputs.principal_arn.clone(),
            None => self.principal(spec).await?,
        };
        let cluster = &spec.cluster_name;
        let Some(entry) = self.get(cluster, &principal).await? else {
            let evidence = format!("DescribeAccessEntry {cluster} {principal}: not found");
            return Ok(nothing_left(record, context, evidence));
        };
        if let Ownership::Foreign(owner) = proven(&eks_tags(entry.tags()), context) {
            return Ok(not_ours(record, context, &format!("the access entry of {principal}"), &owner));
        }
        let permit = context.begin("DeleteAccessEntry")?;
        let request = self.0.eks.delete_access_entry().cluster_name(cluster).principal_arn(&principal);
        match change("DeleteAccessEntry", &permit, request.send()).await {
            Err(failure) if !failure.is_not_found() => return Err(failure.into()),
            _ => {}
        }
        Ok(match self.get(cluster, &principal).await? {
            Some(_) => going(format!("the access entry of {principal} is being deleted"), 2, 5),
            None => UndoProgress::Gone {
                evidence: format!("DeleteAccessEntry {principal}; DescribeAccessEntry: not found"),
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Proves that a session is traced to its role, and that users and roles stand for themselves.
    #[test]
    fn sessions_name_their_role() {
        assert_eq!(session_role("arn:aws:sts::1:assumed-role/Admin/me@example.org"), Some("Admin"));
        assert_eq!(session_role("arn:aws:iam::1:user/team/me"), None);
        assert_eq!(session_role("arn:aws:iam::1:role/Admin"), None);
    }
}
