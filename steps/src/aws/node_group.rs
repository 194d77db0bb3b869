//! `aws.node_group`: a managed node group, on demand or spot, x86 or ARM.
//!
//! Its nodes' look is the launch template's. A group that could not be created is never repaired: it is undone and
//! built again.

use super::clients::AwsClients;
use super::ec2::{SHORT, finished, patient, required};
use super::eks_cluster::{eks_tags, update_call};
use super::failure::{AwsFailure, change, look};
use super::joining;
use super::ownership::{
    Differences, Start, Tags, compare_tags, creation_tags, foreign, going, lasting_tags, not_ours, nothing_left,
    owner_text, ownership, proven, start, terminal, touches,
};
use super::signed::{Members, Service, parameter};
use crate::contract::{Made, Record, Seen, StepKind};
use async_trait::async_trait;
use aws_sdk_eks::types::{
    AmiTypes, CapacityTypes, LaunchTemplateSpecification, Nodegroup, NodegroupScalingConfig, NodegroupStatus,
    NodegroupUpdateConfig, Taint, TaintEffect, UpdateLabelsPayload, UpdateTaintsPayload,
};
use platflow_engine::context::Context;
use platflow_engine::failure::StepError;
use platflow_engine::step::{Difference, Ownership, UndoProgress};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// A managed node group.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NodeGroupSpec {
    /// The cluster. Cannot be changed in place.
    pub cluster_name: String,
    /// Unique in the cluster. Cannot be changed in place.
    pub name: String,
    /// The nodes' role. Cannot be changed in place.
    pub node_role_arn: String,
    /// Where nodes are launched. Cannot be changed in place.
    pub subnet_ids: BTreeSet<String>,
    /// What nodes look like. Cannot be changed in place.
    pub launch_template_id: String,
    /// Which version of the template.
    pub launch_template_version: String,
    /// Image family, for example `AL2023_x86_64_STANDARD`. Cannot be changed in place.
    pub ami_type: String,
    /// `ON_DEMAND` or `SPOT`. Cannot be changed in place.
    pub capacity: Capacity,
    /// Instance types, all of one architecture; several for spot. Cannot be changed in place.
    pub instance_types: BTreeSet<String>,
    /// Fewest nodes.
    pub min: i32,
    /// Nodes now.
    pub desired: i32,
    /// Most nodes.
    pub max: i32,
    /// An autoscaler owns the number of nodes: `desired` counts at creation only.
    #[serde(default)]
    pub autoscaled: bool,
    /// Kubernetes labels of the nodes.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Kubernetes taints of the nodes.
    #[serde(default)]
    pub taints: BTreeSet<TaintSpec>,
    /// Kubernetes minor version of the nodes.
    pub version: String,
    /// How many nodes may be replaced at a time.
    #[serde(default = "one")]
    pub max_unavailable: i32,
    /// Further tags of the group.
    #[serde(default)]
    pub tags: Tags,
}

fn one() -> i32 {
    1
}

/// How capacity is bought.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Capacity {
    /// On demand.
    #[serde(rename = "ON_DEMAND")]
    OnDemand,
    /// Spot.
    #[serde(rename = "SPOT")]
    Spot,
}

/// A taint.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TaintSpec {
    /// Its key.
    pub key: String,
    /// Its value.
    #[serde(default)]
    pub value: String,
    /// `NO_SCHEDULE`, `NO_EXECUTE` or `PREFER_NO_SCHEDULE`.
    pub effect: String,
}

/// A node group that exists.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct NodeGroupOutputs {
    /// Its ARN.
    pub arn: String,
    /// Its name.
    pub name: String,
    /// The Auto Scaling group that EKS made for it.
    pub auto_scaling_group: String,
    /// `ACTIVE`.
    pub status: String,
}

/// See the file.
pub(super) struct NodeGroupKind(pub(super) Arc<AwsClients>);

const BUDGET: Duration = Duration::from_secs(25 * 60);
/// From then on the cause of a slow creation is asked for.
const SLOW: i64 = 180;

#[derive(Deserialize)]
struct Activities {
    #[serde(rename = "DescribeScalingActivitiesResult")]
    result: ActivitiesResult,
}

#[derive(Deserialize)]
struct ActivitiesResult {
    #[serde(rename = "Activities", default)]
    activities: Members<Activity>,
}

#[derive(Deserialize)]
struct Activity {
    #[serde(rename = "StatusCode", default)]
    status: String,
    #[serde(rename = "StatusMessage", default)]
    message: String,
    #[serde(rename = "Description", default)]
    description: String,
}

/// Whether it waits for its machines, or has given up on them.
fn coming(group: &Nodegroup) -> bool {
    matches!(group.status(), Some(NodegroupStatus::Creating | NodegroupStatus::CreateFailed))
}

/// The machines that were launched, by what the activities of their group say.
fn launched(activities: &[Activity]) -> Vec<String> {
    let successful = activities.iter().filter(|activity| activity.status == "Successful");
    let machine = |activity: &Activity| {
        let machine = activity.description.strip_prefix("Launching a new EC2 instance: ")?;
        Some(machine.to_owned())
    };
    successful.filter_map(machine).collect()
}

fn scaling_group(group: &Nodegroup) -> Option<&str> {
    group.resources()?.auto_scaling_groups().iter().find_map(|group| group.name())
}

fn health(group: &Nodegroup) -> Option<String> {
    let issues = group.health().map(|health| health.issues()).unwrap_or_default();
    let texts: Vec<String> = issues
        .iter()
        .map(|issue| {
            let code = issue.code().map_or("unknown", |code| code.as_str());
            format!("{code}: {}", issue.message().unwrap_or("no message"))
        })
        .collect();
    (!texts.is_empty()).then(|| texts.join("; "))
}

fn sdk_taints(taints: &BTreeSet<TaintSpec>) -> Vec<Taint> {
    let taint = |taint: &TaintSpec| {
        let effect = TaintEffect::from(taint.effect.as_str());
        Taint::builder().key(&taint.key).value(&taint.value).effect(effect).build()
    };
    taints.iter().map(taint).collect()
}

fn found_taints(group: &Nodegroup) -> BTreeSet<TaintSpec> {
    let taint = |taint: &Taint| TaintSpec {
        key: taint.key().unwrap_or_default().to_owned(),
        value: taint.value().unwrap_or_default().to_owned(),
        effect: taint.effect().map(TaintEffect::as_str).unwrap_or_default().to_owned(),
    };
    group.taints().iter().map(taint).collect()
}

fn found_labels(group: &Nodegroup) -> BTreeMap<String, String> {
    group.labels().map(|labels| labels.clone().into_iter().collect()).unwrap_or_default()
}

fn compare(spec: &NodeGroupSpec, group: &Nodegroup) -> Differences {
    let mut differences = Differences::default();
    let set = |values: &[String]| values.iter().cloned().collect::<BTreeSet<String>>();
    differences.fixed("/node_role_arn", &spec.node_role_arn, group.node_role());
    differences.fixed("/subnet_ids", &spec.subnet_ids, set(group.subnets()));
    differences.fixed("/instance_types", &spec.instance_types, set(group.instance_types()));
    differences.fixed("/ami_type", Some(spec.ami_type.as_str()), group.ami_type().map(AmiTypes::as_str));
    differences.fixed("/capacity", spec.capacity, group.capacity_type().map(CapacityTypes::as_str));
    let template = group.launch_template();
    differences.fixed("/launch_template_id", &spec.launch_template_id, template.and_then(|template| template.id()));
    let version = template.and_then(|template| template.version());
    differences.field("/launch_template_version", &spec.launch_template_version, version);
    differences.field("/version", &spec.version, group.version());
    let scaling = group.scaling_config();
    let (min, max) = (scaling.and_then(|one| one.min_size()), scaling.and_then(|one| one.max_size()));
    differences.field("/min", Some(spec.min), min);
    differences.field("/max", Some(spec.max), max);
    if !spec.autoscaled {
        differences.field("/desired", Some(spec.desired), scaling.and_then(|one| one.desired_size()));
    }
    differences.field("/labels", &spec.labels, found_labels(group));
    differences.field("/taints", &spec.taints, found_taints(group));
    let unavailable = group.update_config().and_then(|update| update.max_unavailable());
    differences.field("/max_unavailable", Some(spec.max_unavailable), unavailable);
    differences
}

impl NodeGroupKind {
    async fn get(&self, spec: &NodeGroupSpec) -> Result<Option<Nodegroup>, AwsFailure> {
        let request = self.0.eks.describe_nodegroup().cluster_name(&spec.cluster_name);
        match look("DescribeNodegroup", request.nodegroup_name(&spec.name).send()).await {
            Ok(answer) => Ok(answer.nodegroup),
            Err(failure) if failure.is_not_found() => Ok(None),
            Err(failure) => Err(failure),
        }
    }

    /// Why a group is slow: what EKS says, and what the Auto Scaling group tried last. EKS itself shows a lack of
    /// capacity only when it gives up.
    async fn cause(
        &self,
        spec: &NodeGroupSpec,
        group: &Nodegroup,
        context: &Context,
        since: Option<jiff::Timestamp>,
    ) -> Option<String> {
        let slow = since.is_some_and(|since| context.now().duration_since(since).as_secs() >= SLOW);
        let name = scaling_group(group).filter(|_| slow);
        let Some(name) = name else { return health(group) };
        let parameters = [parameter("AutoScalingGroupName", name), parameter("MaxRecords", "10")];
        let answer: Result<Activities, _> =
            self.0.signed.ask(Service::AutoScaling, "DescribeScalingActivities", &parameters).await;
        let activities = answer.map(|answer| answer.result.activities.member).unwrap_or_default();
        let failed = activities.iter().find(|activity| activity.status == "Failed");
        let told = match (failed, launched(&activities)) {
            (Some(failed), _) => Some(format!("{name}: {}", failed.message)),
            (None, machines) if !machines.is_empty() && coming(group) => {
                Some(joining::diagnosis(&self.0, spec, &machines).await)
            }
            (None, _) => None,
        };
        let all: Vec<String> = health(group).into_iter().chain(told).collect();
        (!all.is_empty()).then(|| all.join("; "))
    }

    async fn create(&self, spec: &NodeGroupSpec, context: &Context) -> Result<(), StepError> {
        let permit = context.begin("CreateNodegroup")?;
        let tags = creation_tags(context, &spec.name, &spec.tags, &permit.token);
        let capacity = match spec.capacity {
            Capacity::OnDemand => CapacityTypes::OnDemand,
            Capacity::Spot => CapacityTypes::Spot,
        };
        let request = self
            .0
            .eks
            .create_nodegroup()
            .client_request_token(&permit.token)
            .cluster_name(&spec.cluster_name)
            .nodegroup_name(&spec.name)
            .node_role(&spec.node_role_arn)
            .set_subnets(Some(spec.subnet_ids.iter().cloned().collect()))
            .launch_template(template(spec))
            .ami_type(AmiTypes::from(spec.ami_type.as_str()))
            .capacity_type(capacity)
            .set_instance_types(Some(spec.instance_types.iter().cloned().collect()))
            .scaling_config(scaling(spec, spec.desired))
            .update_config(NodegroupUpdateConfig::builder().max_unavailable(spec.max_unavailable).build())
            .version(&spec.version)
            .set_tags(Some(tags.into_iter().collect()));
        let sending = request
            .set_labels((!spec.labels.is_empty()).then(|| spec.labels.clone().into_iter().collect()))
            .set_taints((!spec.taints.is_empty()).then(|| sdk_taints(&spec.taints)))
            .send();
        change("CreateNodegroup", &permit, sending).await?;
        Ok(())
    }

    /// The first update that is due: EKS works on one at a time.
    async fn update(
        &self,
        spec: &NodeGroupSpec,
        arn: &str,
        differences: &[Difference],
        context: &Context,
    ) -> Result<(), StepError> {
        if touches(differences, "/tags") {
            let permit = context.begin("TagResource")?;
            let tags = lasting_tags(context, &spec.name, &spec.tags).into_iter().collect();
            change("TagResource", &permit, self.0.eks.tag_resource().resource_arn(arn).set_tags(Some(tags)).send())
                .await?;
        }
        let configuration = ["/min", "/max", "/desired", "/labels", "/taints", "/max_unavailable"];
        if configuration.iter().any(|field| touches(differences, field)) {
            return self.update_configuration(spec, differences, context).await;
        }
        if touches(differences, "/version") || touches(differences, "/launch_template_version") {
            let permit = context.begin(&update_call(context, "UpdateNodegroupVersion", &json!(differences)))?;
            let request = self.0.eks.update_nodegroup_version().cluster_name(&spec.cluster_name);
            let sending = request
                .nodegroup_name(&spec.name)
                .version(&spec.version)
                .launch_template(template(spec))
                .client_request_token(&permit.token)
                .send();
            change("UpdateNodegroupVersion", &permit, sending).await?;
        }
        Ok(())
    }

    async fn update_configuration(
        &self,
        spec: &NodeGroupSpec,
        differences: &[Difference],
        context: &Context,
    ) -> Result<(), StepError> {
        let Some(group) = self.get(spec).await? else { return Ok(()) };
        let now = group.scaling_config().and_then(|scaling| scaling.desired_size()).unwrap_or(spec.desired);
        let desired = if spec.autoscaled { now.clamp(spec.min, spec.max) } else { spec.desired };
        let gone: Vec<String> =
            found_labels(&group).into_keys().filter(|label| !spec.labels.contains_key(label)).collect();
        let labels = UpdateLabelsPayload::builder()
            .set_add_or_update_labels(Some(spec.labels.clone().into_iter().collect()))
            .set_remove_labels(Some(gone))
            .build();
        let extra = found_taints(&group).difference(&spec.taints).cloned().collect();
        let taints = UpdateTaintsPayload::builder()
            .set_add_or_update_taints(Some(sdk_taints(&spec.taints)))
            .set_remove_taints(Some(sdk_taints(&extra)))
            .build();
        let permit = context.begin(&update_call(context, "UpdateNodegroupConfig", &json!(differences)))?;
        let request = self.0.eks.update_nodegroup_config().cluster_name(&spec.cluster_name);
        let sending = request
            .nodegroup_name(&spec.name)
            .scaling_config(scaling(spec, desired))
            .update_config(NodegroupUpdateConfig::builder().max_unavailable(spec.max_unavailable).build())
            .set_labels(touches(differences, "/labels").then_some(labels))
            .set_taints(touches(differences, "/taints").then_some(taints))
            .client_request_token(&permit.token)
            .send();
        change("UpdateNodegroupConfig", &permit, sending).await?;
        Ok(())
    }
}

fn template(spec: &NodeGroupSpec) -> LaunchTemplateSpecification {
    LaunchTemplateSpecification::builder().id(&spec.launch_template_id).version(&spec.launch_template_version).build()
}

fn scaling(spec: &NodeGroupSpec, desired: i32) -> NodegroupScalingConfig {
    NodegroupScalingConfig::builder().min_size(spec.min).max_size(spec.max).desired_size(desired).build()
}

fn recorded(record: &Record<NodeGroupOutputs>, group: &Nodegroup) -> bool {
    record.outputs.as_ref().is_some_and(|outputs| Some(outputs.arn.as_str()) == group.nodegroup_arn())
}

#[async_trait]
impl StepKind for NodeGroupKind {
    type Spec = NodeGroupSpec;
    type Outputs = NodeGroupOutputs;

    const NAME: &'static str = "aws.node_group";
    const SUMMARY: &'static str = "A managed node group, on demand or spot, x86 or ARM.";
    const EXPECTED: Duration = Duration::from_secs(180);

    async fn observe(
        &self,
        spec: &NodeGroupSpec,
        record: &Record<NodeGroupOutputs>,
        context: &Context,
    ) -> Result<Seen<NodeGroupOutputs>, StepError> {
        let Some(group) = self.get(spec).await? else { return Ok(Seen::Absent) };
        let what = format!("node group {}", spec.name);
        let tags = eks_tags(group.tags());
        let whose = ownership(&tags, context, recorded(record, &group));
        match group.status() {
            Some(NodegroupStatus::Active) => {}
            _ if whose != Ownership::Ours => return Err(foreign(&what, &owner_text(&tags))),
            Some(NodegroupStatus::CreateFailed) => {
                let cause = self.cause(spec, &group, context, record.intended_at).await;
                return Err(terminal(&what, "CREATE_FAILED", &cause.unwrap_or_else(|| "no cause is shown".to_owned())));
            }
            status => {
                let status = status.map_or("in no known state", NodegroupStatus::as_str);
                let cause = self.cause(spec, &group, context, record.intended_at).await;
                let cause = cause.map(|cause| format!(" ({cause})")).unwrap_or_default();
                let poll_in = patient(context, record.intended_at);
                return Ok(Seen::Changing { reason: format!("{what} is {status}{cause}"), poll_in });
            }
        }
        let mut differences = compare(spec, &group);
        compare_tags(&mut differences, &lasting_tags(context, &spec.name, &spec.tags), &tags);
        let outputs = NodeGroupOutputs {
            arn: required("node group ARN", group.nodegroup_arn())?.to_owned(),
            name: spec.name.clone(),
            auto_scaling_group: scaling_group(&group).unwrap_or_default().to_owned(),
            status: "ACTIVE".to_owned(),
        };
        Ok(Seen::Present { outputs, ownership: whose, differences: differences.0 })
    }

    async fn apply(
        &self,
        spec: &NodeGroupSpec,
        seen: &Seen<NodeGroupOutputs>,
        record: &Record<NodeGroupOutputs>,
        context: &Context,
    ) -> Result<Made<NodeGroupOutputs>, StepError> {
        let budget = match start(&format!("node group {}", spec.name), seen)? {
            Start::Create => {
                self.create(spec, context).await?;
                BUDGET
            }
            Start::Change(outputs, differences) => {
                self.update(spec, &outputs.arn, differences, context).await?;
                if differences.is_empty() { SHORT } else { BUDGET * 2 }
            }
        };
        Ok(finished(self.observe(spec, record, context).await?, budget))
    }

    async fn undo(
        &self,
        spec: &NodeGroupSpec,
        record: &Record<NodeGroupOutputs>,
        context: &Context,
    ) -> Result<UndoProgress, StepError> {
        let what = format!("node group {}", spec.name);
        let Some(group) = self.get(spec).await? else {
            return Ok(nothing_left(record, context, format!("DescribeNodegroup {}: not found", spec.name)));
        };
        if let Ownership::Foreign(owner) = proven(&eks_tags(group.tags()), context) {
            return Ok(not_ours(record, context, &what, &owner));
        }
        if group.status() == Some(&NodegroupStatus::Deleting) {
            return Ok(going(format!("{what} is being deleted"), 10, 30));
        }
        let failed = group.status() == Some(&NodegroupStatus::DeleteFailed);
        let cause = if failed { health(&group) } else { None };
        let permit = context.begin("DeleteNodegroup")?;
        let request = self.0.eks.delete_nodegroup().cluster_name(&spec.cluster_name).nodegroup_name(&spec.name);
        match change("DeleteNodegroup", &permit, request.send()).await {
            Ok(_) => {}
            Err(failure) if failure.is_not_found() => {}
            Err(failure) if failure.is(&["ResourceInUseException", "InvalidRequestException"]) => {
                return Ok(going(format!("{what} cannot be deleted yet: {}", failure.message), 15, 60));
            }
            Err(failure) => return Err(failure.into()),
        }
        let cause = cause.map(|cause| format!(" (the last deletion failed: {cause})")).unwrap_or_default();
        Ok(going(format!("{what} is being deleted{cause}"), 10, 30))
    }
}
