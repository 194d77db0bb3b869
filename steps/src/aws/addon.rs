//! `aws.addon`: an EKS add-on in a version, with its configuration.
//!
//! DEGRADED is a state on the way (no nodes yet), not an end. The network plugin's software stays in the cluster when
//! its add-on is deleted: nodes that still drain need it.

use super::clients::AwsClients;
use super::ec2::{SHORT, finished, patient, required};
use super::eks_cluster::{eks_tags, update_call};
use super::failure::{change, look};
use super::ownership::{
    Differences, Start, Tags, compare_tags, creation_tags, foreign, going, lasting_tags, not_ours, nothing_left,
    owner_text, ownership, proven, start, terminal, touches,
};
use crate::contract::{Made, Record, Seen, StepKind};
use async_trait::async_trait;
use aws_sdk_eks::types::{Addon, AddonStatus, ResolveConflicts};
use platflow_engine::context::Context;
use platflow_engine::failure::StepError;
use platflow_engine::step::{Difference, Ownership, UndoProgress};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::sync::Arc;
use std::time::Duration;

/// An add-on.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AddonSpec {
    /// The cluster. Cannot be changed in place.
    pub cluster_name: String,
    /// For example `vpc-cni`. Cannot be changed in place.
    pub name: String,
    /// Its version, for example `v1.20.4-eksbuild.2`.
    pub version: String,
    /// Its configuration, as its schema has it.
    #[serde(default)]
    pub configuration: Option<Map<String, Value>>,
    /// The role of its service account.
    #[serde(default)]
    pub service_account_role_arn: Option<String>,
    /// What happens to fields that somebody else has set: `NONE`, `OVERWRITE`, `PRESERVE`.
    #[serde(default = "overwrite")]
    pub resolve_conflicts: String,
    /// Its software stays in the cluster when it is deleted; always so for `vpc-cni`.
    #[serde(default)]
    pub preserve: bool,
    /// Further tags.
    #[serde(default)]
    pub tags: Tags,
}

fn overwrite() -> String {
    "OVERWRITE".to_owned()
}

/// An add-on that exists.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct AddonOutputs {
    /// Its ARN.
    pub arn: String,
    /// Its version.
    pub version: String,
}

/// See the file.
pub(super) struct AddonKind(pub(super) Arc<AwsClients>);

const BUDGET: Duration = Duration::from_secs(20 * 60);

fn health(addon: &Addon) -> Option<String> {
    let issues = addon.health().map(|health| health.issues()).unwrap_or_default();
    let texts: Vec<String> = issues
        .iter()
        .map(|issue| {
            let code = issue.code().map_or("unknown", |code| code.as_str());
            format!("{code}: {}", issue.message().unwrap_or("no message"))
        })
        .collect();
    (!texts.is_empty()).then(|| texts.join("; "))
}

/// Configuration is text to EKS: compared as JSON, none being the same as an empty object.
fn found_configuration(addon: &Addon) -> Value {
    let text = addon.configuration_values().filter(|text| !text.trim().is_empty());
    text.map_or_else(|| json!({}), |text| serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.to_owned())))
}

fn wanted_configuration(spec: &AddonSpec) -> Value {
    Value::Object(spec.configuration.clone().unwrap_or_default())
}

fn recorded(record: &Record<AddonOutputs>, addon: &Addon) -> bool {
    record.outputs.as_ref().is_some_and(|outputs| Some(outputs.arn.as_str()) == addon.addon_arn())
}

impl AddonKind {
    async fn get(&self, spec: &AddonSpec) -> Result<Option<Addon>, StepError> {
        let request = self.0.eks.describe_addon().cluster_name(&spec.cluster_name).addon_name(&spec.name);
        match look("DescribeAddon", request.send()).await {
            Ok(answer) => Ok(answer.addon),
            Err(failure) if failure.is_not_found() => Ok(None),
            Err(failure) => Err(failure.into()),
        }
    }

    async fn create(&self, spec: &AddonSpec, context: &Context) -> Result<(), StepError> {
        let permit = context.begin("CreateAddon")?;
        let tags = creation_tags(context, &spec.name, &spec.tags, &permit.token);
        let configuration = spec.configuration.as_ref().map(|_| wanted_configuration(spec).to_string());
        // PRESERVE means something for updates only.
        let conflicts = if spec.resolve_conflicts == "NONE" { "NONE" } else { "OVERWRITE" };
        let request = self.0.eks.create_addon().client_request_token(&permit.token);
        let sending = request
            .cluster_name(&spec.cluster_name)
            .addon_name(&spec.name)
            .addon_version(&spec.version)
            .set_configuration_values(configuration)
            .set_service_account_role_arn(spec.service_account_role_arn.clone())
            .resolve_conflicts(ResolveConflicts::from(conflicts))
            .set_tags(Some(tags.into_iter().collect()))
            .send();
        change("CreateAddon", &permit, sending).await?;
        Ok(())
    }

    async fn update(
        &self,
        spec: &AddonSpec,
        arn: &str,
        differences: &[Difference],
        context: &Context,
    ) -> Result<(), StepError> {
        if touches(differences, "/tags") {
            let permit = context.begin("TagResource")?;
            let tags = lasting_tags(context, &spec.name, &spec.tags).into_iter().collect();
            let sending = self.0.eks.tag_resource().resource_arn(arn).set_tags(Some(tags)).send();
            change("TagResource", &permit, sending).await?;
        }
        let fields = ["/version", "/configuration", "/service_account_role_arn"];
        if fields.iter().any(|field| touches(differences, field)) {
            let permit = context.begin(&update_call(context, "UpdateAddon", &json!(differences)))?;
            let request = self.0.eks.update_addon().client_request_token(&permit.token);
            let sending = request
                .cluster_name(&spec.cluster_name)
                .addon_name(&spec.name)
                .addon_version(&spec.version)
                .configuration_values(wanted_configuration(spec).to_string())
                .set_service_account_role_arn(spec.service_account_role_arn.clone())
                .resolve_conflicts(ResolveConflicts::from(spec.resolve_conflicts.as_str()))
                .send();
            change("UpdateAddon", &permit, sending).await?;
        }
        Ok(())
    }
}

#[async_trait]
impl StepKind for AddonKind {
    type Spec = AddonSpec;
    type Outputs = AddonOutputs;

    const NAME: &'static str = "aws.addon";
    const SUMMARY: &'static str = "An EKS add-on in a version, with its configuration.";
    const EXPECTED: Duration = Duration::from_secs(60);

    async fn observe(
        &self,
        spec: &AddonSpec,
        record: &Record<AddonOutputs>,
        context: &Context,
    ) -> Result<Seen<AddonOutputs>, StepError> {
        let Some(addon) = self.get(spec).await? else { return Ok(Seen::Absent) };
        let what = format!("add-on {}", spec.name);
        let tags = eks_tags(addon.tags());
        let whose = ownership(&tags, context, recorded(record, &addon));
        let cause = health(&addon);
        match addon.status() {
            Some(AddonStatus::Active | AddonStatus::UpdateFailed) => {}
            _ if whose != Ownership::Ours => return Err(foreign(&what, &owner_text(&tags))),
            Some(AddonStatus::CreateFailed) => {
                return Err(terminal(&what, "CREATE_FAILED", cause.as_deref().unwrap_or("no cause is shown")));
            }
            status => {
                let status = status.map_or("in no known state", AddonStatus::as_str);
                let cause = cause.map(|cause| format!(" ({cause})")).unwrap_or_default();
                let poll_in = patient(context, record.intended_at);
                return Ok(Seen::Changing { reason: format!("{what} is {status}{cause}"), poll_in });
            }
        }
        let version = required("add-on version", addon.addon_version())?.to_owned();
        let mut differences = Differences::default();
        differences.field("/version", &spec.version, &version);
        differences.field("/configuration", wanted_configuration(spec), found_configuration(&addon));
        let role = addon.service_account_role_arn();
        differences.field("/service_account_role_arn", spec.service_account_role_arn.as_deref(), role);
        compare_tags(&mut differences, &lasting_tags(context, &spec.name, &spec.tags), &tags);
        let outputs = AddonOutputs { arn: required("add-on ARN", addon.addon_arn())?.to_owned(), version };
        Ok(Seen::Present { outputs, ownership: whose, differences: differences.0 })
    }

    async fn apply(
        &self,
        spec: &AddonSpec,
        seen: &Seen<AddonOutputs>,
        record: &Record<AddonOutputs>,
        context: &Context,
    ) -> Result<Made<AddonOutputs>, StepError> {
        let budget = match start(&format!("add-on {}", spec.name), seen)? {
            Start::Create => {
                self.create(spec, context).await?;
                BUDGET
            }
            Start::Change(outputs, differences) => {
                self.update(spec, &outputs.arn, differences, context).await?;
                if differences.is_empty() { SHORT } else { BUDGET }
            }
        };
        Ok(finished(self.observe(spec, record, context).await?, budget))
    }

    async fn undo(
        &self,
        spec: &AddonSpec,
        record: &Record<AddonOutputs>,
        context: &Context,
    ) -> Result<UndoProgress, StepError> {
        let what = format!("add-on {}", spec.name);
        let Some(addon) = self.get(spec).await? else {
            return Ok(nothing_left(record, context, format!("DescribeAddon {}: not found", spec.name)));
        };
        if let Ownership::Foreign(owner) = proven(&eks_tags(addon.tags()), context) {
            return Ok(not_ours(record, context, &what, &owner));
        }
        if addon.status() == Some(&AddonStatus::Deleting) {
            return Ok(going(format!("{what} is being deleted"), 5, 20));
        }
        let permit = context.begin("DeleteAddon")?;
        let preserve = spec.preserve || spec.name == "vpc-cni";
        let request = self.0.eks.delete_addon().cluster_name(&spec.cluster_name).addon_name(&spec.name);
        match change("DeleteAddon", &permit, request.preserve(preserve).send()).await {
            Err(failure) if failure.is(&["ResourceInUseException", "InvalidRequestException"]) => {
                return Ok(going(format!("{what} cannot be deleted yet: {}", failure.message), 10, 20));
            }
            Err(failure) if !failure.is_not_found() => return Err(failure.into()),
            _ => {}
        }
        Ok(match self.get(spec).await? {
            Some(_) => going(format!("{what} is being deleted"), 5, 20),
            None => {
                UndoProgress::Gone { evidence: format!("DeleteAddon {0}; DescribeAddon {0}: not found", spec.name) }
            }
        })
    }
}
