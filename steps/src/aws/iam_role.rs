//! `aws.iam_role`: a role with its trust policy, attached policies and inline policies.
//!
//! That a role exists does not mean that all of AWS has heard of it: who uses it retries by class propagation.

use super::clients::AwsClients;
use super::documents::{decode, normalise};
use super::ec2::{SHORT, finished};
use super::failure::AwsFailure;
use super::ownership::{
    Differences, Start, Tags, compare_tags, creation_tags, going, lasting_tags, not_ours, nothing_left, ownership,
    proven, start, touches,
};
use super::signed::{Members, Parameters, Service, XmlTag, parameter};
use crate::contract::{Made, Record, Seen, StepKind};
use async_trait::async_trait;
use platflow_engine::context::Context;
use platflow_engine::failure::StepError;
use platflow_engine::step::{Ownership, UndoProgress};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// An IAM role.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct IamRoleSpec {
    /// Unique in the account. Cannot be changed in place.
    pub name: String,
    /// What it is for.
    #[serde(default)]
    pub description: Option<String>,
    /// Who may assume it.
    pub trust_policy: serde_json::Map<String, Value>,
    /// ARNs of attached policies.
    #[serde(default)]
    pub managed_policies: BTreeSet<String>,
    /// Inline policies by name.
    #[serde(default)]
    pub inline_policies: BTreeMap<String, Value>,
    /// Further tags.
    #[serde(default)]
    pub tags: Tags,
}

/// An IAM role that exists.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct IamRoleOutputs {
    /// Its name.
    pub name: String,
    /// Its ARN.
    pub arn: String,
}

/// See the file.
pub(super) struct IamRoleKind(pub(super) Arc<AwsClients>);

#[derive(Deserialize)]
struct GetRole {
    #[serde(rename = "GetRoleResult")]
    result: RoleResult,
}

#[derive(Deserialize)]
struct RoleResult {
    #[serde(rename = "Role")]
    role: Role,
}

/// A role as IAM describes it.
#[derive(Deserialize)]
pub(super) struct Role {
    #[serde(rename = "Arn")]
    pub(super) arn: String,
    #[serde(rename = "AssumeRolePolicyDocument", default)]
    trust: String,
    #[serde(rename = "Description", default)]
    description: Option<String>,
    #[serde(rename = "Tags", default)]
    pub(super) tags: Members<XmlTag>,
}

#[derive(Deserialize)]
struct ListAttached {
    #[serde(rename = "ListAttachedRolePoliciesResult")]
    result: Attached,
}

#[derive(Deserialize)]
struct Attached {
    #[serde(rename = "AttachedPolicies", default)]
    policies: Members<AttachedPolicy>,
}

#[derive(Deserialize)]
struct AttachedPolicy {
    #[serde(rename = "PolicyArn")]
    arn: String,
}

#[derive(Deserialize)]
struct ListInline {
    #[serde(rename = "ListRolePoliciesResult")]
    result: Inline,
}

#[derive(Deserialize)]
struct Inline {
    #[serde(rename = "PolicyNames", default)]
    names: Members<String>,
}

#[derive(Deserialize)]
struct GetInline {
    #[serde(rename = "GetRolePolicyResult")]
    result: InlinePolicy,
}

#[derive(Deserialize)]
struct InlinePolicy {
    #[serde(rename = "PolicyDocument")]
    document: String,
}

#[derive(Deserialize)]
struct ListProfiles {
    #[serde(rename = "ListInstanceProfilesForRoleResult")]
    result: Profiles,
}

#[derive(Deserialize)]
struct Profiles {
    #[serde(rename = "InstanceProfiles", default)]
    profiles: Members<InstanceProfile>,
}

#[derive(Deserialize)]
struct InstanceProfile {
    #[serde(rename = "InstanceProfileName")]
    name: String,
}

/// Tags in the form of the Query protocol.
pub(super) fn tag_parameters(tags: &Tags) -> Parameters {
    let numbered = tags.iter().enumerate();
    numbered
        .flat_map(|(index, (key, value))| {
            let prefix = format!("Tags.member.{}", index + 1);
            [parameter(&format!("{prefix}.Key"), key), parameter(&format!("{prefix}.Value"), value)]
        })
        .collect()
}

/// Query tags by key.
pub(super) fn xml_tags(tags: Members<XmlTag>) -> Tags {
    tags.member.into_iter().map(|tag| (tag.key, tag.value)).collect()
}

/// The role of that name, if it exists.
pub(super) async fn get_role(aws: &AwsClients, name: &str) -> Result<Option<Role>, AwsFailure> {
    match aws.signed.ask::<GetRole>(Service::Iam, "GetRole", &[parameter("RoleName", name)]).await {
        Ok(answer) => Ok(Some(answer.result.role)),
        Err(failure) if failure.is_not_found() => Ok(None),
        Err(failure) => Err(failure),
    }
}

impl IamRoleKind {
    async fn tell(&self, context: &Context, call: &str, action: &str, parameters: Parameters) -> Result<(), StepError> {
        let permit = context.begin(call)?;
        Ok(self.0.signed.tell(Service::Iam, action, &parameters, &permit).await?)
    }

    /// As [`Self::tell`], but what is gone already needs no taking away.
    async fn untell(
        &self,
        context: &Context,
        call: &str,
        action: &str,
        parameters: Parameters,
    ) -> Result<(), StepError> {
        let permit = context.begin(call)?;
        match self.0.signed.tell(Service::Iam, action, &parameters, &permit).await {
            Err(failure) if !failure.is_not_found() => Err(failure.into()),
            _ => Ok(()),
        }
    }

    async fn attached(&self, name: &str) -> Result<BTreeSet<String>, StepError> {
        let parameters = [parameter("RoleName", name)];
        let answer: ListAttached = self.0.signed.ask(Service::Iam, "ListAttachedRolePolicies", &parameters).await?;
        Ok(answer.result.policies.member.into_iter().map(|policy| policy.arn).collect())
    }

    async fn inline_names(&self, name: &str) -> Result<BTreeSet<String>, StepError> {
        let parameters = [parameter("RoleName", name)];
        let answer: ListInline = self.0.signed.ask(Service::Iam, "ListRolePolicies", &parameters).await?;
        Ok(answer.result.names.member.into_iter().collect())
    }

    async fn inline(&self, name: &str) -> Result<BTreeMap<String, Value>, StepError> {
        let mut found = BTreeMap::new();
        for policy in self.inline_names(name).await? {
            let parameters = [parameter("RoleName", name), parameter("PolicyName", &policy)];
            let answer: GetInline = self.0.signed.ask(Service::Iam, "GetRolePolicy", &parameters).await?;
            found.insert(policy, normalise(&decode(&answer.result.document)));
        }
        Ok(found)
    }

    async fn create(&self, spec: &IamRoleSpec, context: &Context) -> Result<(), StepError> {
        let tags = creation_tags(context, &spec.name, &spec.tags, &context.token("CreateRole"));
        let trust = Value::Object(spec.trust_policy.clone()).to_string();
        let mut parameters = vec![parameter("RoleName", &spec.name), parameter("AssumeRolePolicyDocument", trust)];
        parameters.extend(spec.description.as_ref().map(|text| parameter("Description", text)));
        parameters.extend(tag_parameters(&tags));
        self.tell(context, "CreateRole", "CreateRole", parameters).await
    }

    async fn set_policies(&self, spec: &IamRoleSpec, fresh: bool, context: &Context) -> Result<(), StepError> {
        let name = || parameter("RoleName", &spec.name);
        let attached = if fresh { BTreeSet::new() } else { self.attached(&spec.name).await? };
        for arn in spec.managed_policies.difference(&attached) {
            let call = format!("AttachRolePolicy/{arn}");
            self.tell(context, &call, "AttachRolePolicy", vec![name(), parameter("PolicyArn", arn)]).await?;
        }
        for arn in attached.difference(&spec.managed_policies) {
            let call = format!("DetachRolePolicy/{arn}");
            self.untell(context, &call, "DetachRolePolicy", vec![name(), parameter("PolicyArn", arn)]).await?;
        }
        let inline = if fresh { BTreeMap::new() } else { self.inline(&spec.name).await? };
        for (policy, document) in &spec.inline_policies {
            if inline.get(policy) != Some(&normalise(document)) {
                let parameters =
                    vec![name(), parameter("PolicyName", policy), parameter("PolicyDocument", document.to_string())];
                self.tell(context, &format!("PutRolePolicy/{policy}"), "PutRolePolicy", parameters).await?;
            }
        }
        for policy in inline.keys().filter(|policy| !spec.inline_policies.contains_key(*policy)) {
            let parameters = vec![name(), parameter("PolicyName", policy)];
            self.untell(context, &format!("DeleteRolePolicy/{policy}"), "DeleteRolePolicy", parameters).await?;
        }
        Ok(())
    }

    async fn strip(&self, role: &str, context: &Context) -> Result<(), StepError> {
        let name = || parameter("RoleName", role);
        let answer: ListProfiles = self.0.signed.ask(Service::Iam, "ListInstanceProfilesForRole", &[name()]).await?;
        for profile in answer.result.profiles.member {
            let parameters = vec![name(), parameter("InstanceProfileName", &profile.name)];
            let call = format!("RemoveRoleFromInstanceProfile/{}", profile.name);
            self.untell(context, &call, "RemoveRoleFromInstanceProfile", parameters).await?;
        }
        for arn in self.attached(role).await? {
            let parameters = vec![name(), parameter("PolicyArn", &arn)];
            self.untell(context, &format!("DetachRolePolicy/{arn}"), "DetachRolePolicy", parameters).await?;
        }
        for policy in self.inline_names(role).await? {
            let parameters = vec![name(), parameter("PolicyName", &policy)];
            self.untell(context, &format!("DeleteRolePolicy/{policy}"), "DeleteRolePolicy", parameters).await?;
        }
        Ok(())
    }
}

#[async_trait]
impl StepKind for IamRoleKind {
    type Spec = IamRoleSpec;
    type Outputs = IamRoleOutputs;

    const NAME: &'static str = "aws.iam_role";
    const SUMMARY: &'static str = "An IAM role with its trust policy and permissions.";
    const SETTLE: Duration = Duration::from_secs(15);
    const EXPECTED: Duration = Duration::from_secs(3);

    async fn observe(
        &self,
        spec: &IamRoleSpec,
        record: &Record<IamRoleOutputs>,
        context: &Context,
    ) -> Result<Seen<IamRoleOutputs>, StepError> {
        let Some(role) = get_role(&self.0, &spec.name).await? else { return Ok(Seen::Absent) };
        let tags = xml_tags(role.tags);
        let recorded = record.outputs.as_ref().is_some_and(|outputs| outputs.arn == role.arn);
        let mut differences = Differences::default();
        let wanted = normalise(&Value::Object(spec.trust_policy.clone()));
        differences.field("/trust_policy", wanted, normalise(&decode(&role.trust)));
        if spec.description.is_some() {
            differences.field("/description", &spec.description, &role.description);
        }
        differences.field("/managed_policies", &spec.managed_policies, self.attached(&spec.name).await?);
        let wanted: BTreeMap<_, _> =
            spec.inline_policies.iter().map(|(name, document)| (name.clone(), normalise(document))).collect();
        differences.field("/inline_policies", wanted, self.inline(&spec.name).await?);
        compare_tags(&mut differences, &lasting_tags(context, &spec.name, &spec.tags), &tags);
        let outputs = IamRoleOutputs { name: spec.name.clone(), arn: role.arn };
        Ok(Seen::Present { outputs, ownership: ownership(&tags, context, recorded), differences: differences.0 })
    }

    async fn apply(
        &self,
        spec: &IamRoleSpec,
        seen: &Seen<IamRoleOutputs>,
        record: &Record<IamRoleOutputs>,
        context: &Context,
    ) -> Result<Made<IamRoleOutputs>, StepError> {
        match start(&format!("role {}", spec.name), seen)? {
            Start::Create => {
                self.create(spec, context).await?;
                self.set_policies(spec, true, context).await?;
            }
            Start::Change(_, differences) => {
                let name = || parameter("RoleName", &spec.name);
                if touches(differences, "/trust_policy") {
                    let trust = Value::Object(spec.trust_policy.clone()).to_string();
                    let parameters = vec![name(), parameter("PolicyDocument", trust)];
                    self.tell(context, "UpdateAssumeRolePolicy", "UpdateAssumeRolePolicy", parameters).await?;
                }
                if touches(differences, "/description") {
                    let text = spec.description.clone().unwrap_or_default();
                    self.tell(context, "UpdateRole", "UpdateRole", vec![name(), parameter("Description", text)])
                        .await?;
                }
                if touches(differences, "/managed_policies") || touches(differences, "/inline_policies") {
                    self.set_policies(spec, false, context).await?;
                }
                if touches(differences, "/tags") {
                    let mut parameters = vec![name()];
                    parameters.extend(tag_parameters(&lasting_tags(context, &spec.name, &spec.tags)));
                    self.tell(context, "TagRole", "TagRole", parameters).await?;
                }
            }
        }
        Ok(finished(self.observe(spec, record, context).await?, SHORT))
    }

    async fn undo(
        &self,
        spec: &IamRoleSpec,
        record: &Record<IamRoleOutputs>,
        context: &Context,
    ) -> Result<UndoProgress, StepError> {
        let Some(role) = get_role(&self.0, &spec.name).await? else {
            return Ok(nothing_left(record, context, format!("GetRole {}: NoSuchEntity", spec.name)));
        };
        if let Ownership::Foreign(owner) = proven(&xml_tags(role.tags), context) {
            return Ok(not_ours(record, context, &format!("role {}", spec.name), &owner));
        }
        self.strip(&spec.name, context).await?;
        self.untell(context, "DeleteRole", "DeleteRole", vec![parameter("RoleName", &spec.name)]).await?;
        Ok(match get_role(&self.0, &spec.name).await? {
            Some(_) => going(format!("role {} is being deleted", spec.name), 2, 5),
            None => UndoProgress::Gone { evidence: format!("DeleteRole {0}; GetRole {0}: NoSuchEntity", spec.name) },
        })
    }
}
