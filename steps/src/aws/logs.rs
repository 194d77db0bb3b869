//! CloudWatch log groups: `aws.log_group`, and `aws.environment_hold`, which is one with a fixed name.
//!
//! The hold is how a second state file learns that an environment is taken: created only if absent, with the uid in
//! its tags. A group that EKS made again for a dead cluster is adopted; any other stranger's is refused.

use super::clients::AwsClients;
use super::ec2::{SHORT, finished, required};
use super::failure::look;
use super::ownership::{
    Differences, Start, Tags, UID, compare_tags, creation_tags, going, lasting_tags, not_ours, nothing_left,
    owner_text, ownership, start, touches,
};
use super::signed::Service;
use crate::contract::{Made, Record, Seen, StepKind};
use async_trait::async_trait;
use platflow_engine::context::Context;
use platflow_engine::failure::{Residue, StepError};
use platflow_engine::foreign;
use platflow_engine::step::{Ownership, UndoProgress};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::sync::Arc;

/// A log group.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LogGroupSpec {
    /// Unique in account and region. Cannot be changed in place.
    pub name: String,
    /// How long events are kept: one of the values that CloudWatch knows (1, 3, 5, 7, 14, 30, 60, 90 …).
    pub retention_days: u32,
    /// Further tags.
    #[serde(default)]
    pub tags: Tags,
}

/// Holds the environment in the account; nothing to say.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EnvironmentHoldSpec {}

/// A log group that exists.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct LogGroupOutputs {
    /// Its name.
    pub name: String,
    /// Its ARN, without the trailing `:*`.
    pub arn: String,
}

/// See the file.
pub(super) struct LogGroupKind(pub(super) Arc<AwsClients>);
/// See the file.
pub(super) struct EnvironmentHoldKind(pub(super) Arc<AwsClients>);

pub(super) struct Group {
    arn: String,
    retention: Option<u64>,
    pub(super) tags: Tags,
}

impl Group {
    fn outputs(&self, name: &str) -> LogGroupOutputs {
        LogGroupOutputs { name: name.to_owned(), arn: self.arn.clone() }
    }
}

/// The log group of that name with its tags, if it exists.
pub(super) async fn get(aws: &AwsClients, name: &str) -> Result<Option<Group>, StepError> {
    let body = json!({"logGroupNamePrefix": name});
    let answer = aws.signed.ask_json(Service::Logs, "DescribeLogGroups", &body).await?;
    let groups = answer.get("logGroups").and_then(Value::as_array).cloned().unwrap_or_default();
    let named = |group: &&Value| group.get("logGroupName").and_then(Value::as_str) == Some(name);
    let Some(group) = groups.iter().find(named) else { return Ok(None) };
    let arn = required("log group ARN", group.get("arn").and_then(Value::as_str))?;
    let arn = arn.strip_suffix(":*").unwrap_or(arn).to_owned();
    let body = json!({"resourceArn": arn});
    let tags = match aws.signed.ask_json(Service::Logs, "ListTagsForResource", &body).await {
        Ok(answer) => answer.get("tags").cloned().and_then(|tags| Tags::deserialize(tags).ok()).unwrap_or_default(),
        Err(failure) if failure.is_not_found() => return Ok(None),
        Err(failure) => return Err(failure.into()),
    };
    Ok(Some(Group { arn, retention: group.get("retentionInDays").and_then(Value::as_u64), tags }))
}

async fn tell(aws: &AwsClients, context: &Context, action: &str, body: Value) -> Result<(), StepError> {
    let permit = context.begin(action)?;
    aws.signed.tell_json(Service::Logs, action, &body, &permit).await?;
    Ok(())
}

async fn create(aws: &AwsClients, context: &Context, name: &str, extra: &Tags) -> Result<(), StepError> {
    let tags = creation_tags(context, name, extra, &context.token("CreateLogGroup"));
    tell(aws, context, "CreateLogGroup", json!({"logGroupName": name, "tags": tags})).await
}

async fn delete<O>(
    aws: &AwsClients,
    context: &Context,
    record: &Record<O>,
    name: &str,
) -> Result<UndoProgress, StepError> {
    let Some(group) = get(aws, name).await? else {
        return Ok(nothing_left(record, context, format!("DescribeLogGroups shows no {name}")));
    };
    if let Ownership::Foreign(owner) = ownership(&group.tags, context, record.outputs.is_some()) {
        return Ok(not_ours(record, context, &format!("log group {name}"), &owner));
    }
    context.note(DELETED_AT, context.now().as_second().into()).await?;
    let permit = context.begin("DeleteLogGroup")?;
    match aws.signed.tell_json(Service::Logs, "DeleteLogGroup", &json!({"logGroupName": name}), &permit).await {
        Err(failure) if !failure.is_not_found() => return Err(failure.into()),
        _ => {}
    }
    Ok(match get(aws, name).await? {
        Some(_) => going(format!("log group {name} is being deleted"), 2, 5),
        None => UndoProgress::Gone { evidence: format!("DeleteLogGroup {name}; DescribeLogGroups shows it no more") },
    })
}

impl LogGroupKind {
    /// EKS makes the control plane's group again when the last events of a dying cluster arrive. Such a group carries no
    /// tags, and no cluster of its name exists: nobody's, so it is taken over.
    async fn is_left_by_eks(&self, name: &str, tags: &Tags) -> Result<bool, StepError> {
        let cluster = name.strip_prefix("/aws/eks/").and_then(|rest| rest.strip_suffix("/cluster"));
        let Some(cluster) = cluster.filter(|_| tags.is_empty()) else { return Ok(false) };
        match look("DescribeCluster", self.0.eks.describe_cluster().name(cluster).send()).await {
            Ok(_) => Ok(false),
            Err(failure) if failure.is_not_found() => Ok(true),
            Err(failure) => Err(failure.into()),
        }
    }
}

#[async_trait]
impl StepKind for LogGroupKind {
    type Spec = LogGroupSpec;
    type Outputs = LogGroupOutputs;

    const NAME: &'static str = "aws.log_group";
    const SUMMARY: &'static str = "A CloudWatch log group with a retention.";

    async fn observe(
        &self,
        spec: &LogGroupSpec,
        record: &Record<LogGroupOutputs>,
        context: &Context,
    ) -> Result<Seen<LogGroupOutputs>, StepError> {
        let Some(group) = get(&self.0, &spec.name).await? else { return Ok(Seen::Absent) };
        let mut whose = ownership(&group.tags, context, record.outputs.is_some());
        if matches!(whose, Ownership::Foreign(_)) && self.is_left_by_eks(&spec.name, &group.tags).await? {
            whose = Ownership::Ours;
        }
        let mut differences = Differences::default();
        differences.field("/retention_days", Some(u64::from(spec.retention_days)), group.retention);
        compare_tags(&mut differences, &lasting_tags(context, &spec.name, &spec.tags), &group.tags);
        Ok(Seen::Present { outputs: group.outputs(&spec.name), ownership: whose, differences: differences.0 })
    }

    async fn apply(
        &self,
        spec: &LogGroupSpec,
        seen: &Seen<LogGroupOutputs>,
        record: &Record<LogGroupOutputs>,
        context: &Context,
    ) -> Result<Made<LogGroupOutputs>, StepError> {
        let differences = match start(&format!("log group {}", spec.name), seen)? {
            Start::Create => {
                create(&self.0, context, &spec.name, &spec.tags).await?;
                None
            }
            Start::Change(outputs, differences) => Some((outputs, differences)),
        };
        if differences.is_none_or(|(_, differences)| touches(differences, "/retention_days")) {
            let body = json!({"logGroupName": spec.name, "retentionInDays": spec.retention_days});
            tell(&self.0, context, "PutRetentionPolicy", body).await?;
        }
        if let Some((outputs, _)) = differences.filter(|(_, differences)| touches(differences, "/tags")) {
            let tags = lasting_tags(context, &spec.name, &spec.tags);
            tell(&self.0, context, "TagResource", json!({"resourceArn": outputs.arn, "tags": tags})).await?;
        }
        Ok(finished(self.observe(spec, record, context).await?, SHORT))
    }

    async fn undo(
        &self,
        spec: &LogGroupSpec,
        record: &Record<LogGroupOutputs>,
        context: &Context,
    ) -> Result<UndoProgress, StepError> {
        let found = get(&self.0, &spec.name).await?;
        let there = found
            .as_ref()
            .is_some_and(|group| ownership(&group.tags, context, record.outputs.is_some()) == Ownership::Ours);
        let progress = match found {
            Some(group) if self.is_left_by_eks(&spec.name, &group.tags).await? => {
                let permit = context.begin("DeleteLogGroup")?;
                let body = json!({"logGroupName": spec.name});
                match self.0.signed.tell_json(Service::Logs, "DeleteLogGroup", &body, &permit).await {
                    Err(failure) if !failure.is_not_found() => return Err(failure.into()),
                    _ => {}
                }
                UndoProgress::Gone { evidence: format!("DeleteLogGroup {}, which EKS had made again", spec.name) }
            }
            _ => delete(&self.0, context, record, &spec.name).await?,
        };
        let of_cluster = spec.name.starts_with("/aws/eks/");
        Ok(match progress {
            UndoProgress::Gone { .. } if of_cluster && deleted_lately(record, context).unwrap_or(there) => {
                let reason = format!("{} is deleted; late events of its cluster may make it again", spec.name);
                going(reason, 60, 15)
            }
            progress => progress,
        })
    }
}

/// When the group was deleted last, Unix seconds.
const DELETED_AT: &str = "deleted_at";
/// So long after the end of a cluster its last events may arrive, and make its group again.
const LATE_EVENTS_SECONDS: i64 = 300;

/// Whether its deletion is so recent that the group may come again; nothing if it was not deleted yet.
fn deleted_lately<O>(record: &Record<O>, context: &Context) -> Option<bool> {
    let at = record.notes.get(DELETED_AT).and_then(Value::as_i64)?;
    Some(context.now().as_second() < at + LATE_EVENTS_SECONDS)
}

fn hold_name(context: &Context) -> String {
    format!("/platflow/environments/{}", context.environment)
}

fn held(owner: &str, context: &Context) -> StepError {
    StepError::needs_human(format!("environment {} is held in this account by {owner}", context.environment))
        .leaving(Residue::None)
        .with_code("Foreign")
        .with_remedy(foreign::ways_out(owner))
}

#[async_trait]
impl StepKind for EnvironmentHoldKind {
    type Spec = EnvironmentHoldSpec;
    type Outputs = LogGroupOutputs;

    const NAME: &'static str = "aws.environment_hold";
    const SUMMARY: &'static str =
        "Holds the environment's name in the account, so that no second state file builds it.";

    async fn observe(
        &self,
        _spec: &EnvironmentHoldSpec,
        record: &Record<LogGroupOutputs>,
        context: &Context,
    ) -> Result<Seen<LogGroupOutputs>, StepError> {
        let name = hold_name(context);
        let Some(group) = get(&self.0, &name).await? else { return Ok(Seen::Absent) };
        let ours = group.tags.get(UID).map(String::as_str) == Some(context.environment_uid.as_str());
        let whose = if ours || (record.outputs.is_some() && !group.tags.contains_key(UID)) {
            Ownership::Ours
        } else {
            Ownership::Foreign(owner_text(&group.tags))
        };
        let mut differences = Differences::default();
        compare_tags(&mut differences, &lasting_tags(context, &name, &Tags::new()), &group.tags);
        Ok(Seen::Present { outputs: group.outputs(&name), ownership: whose, differences: differences.0 })
    }

    async fn apply(
        &self,
        spec: &EnvironmentHoldSpec,
        seen: &Seen<LogGroupOutputs>,
        record: &Record<LogGroupOutputs>,
        context: &Context,
    ) -> Result<Made<LogGroupOutputs>, StepError> {
        let name = hold_name(context);
        if let Seen::Present { ownership: Ownership::Foreign(owner), .. } = seen {
            return Err(held(owner, context));
        }
        match start(&name, seen)? {
            Start::Create => create(&self.0, context, &name, &Tags::new()).await?,
            Start::Change(outputs, differences) if touches(differences, "/tags") => {
                let tags = lasting_tags(context, &name, &Tags::new());
                tell(&self.0, context, "TagResource", json!({"resourceArn": outputs.arn, "tags": tags})).await?;
            }
            Start::Change(..) => {}
        }
        Ok(finished(self.observe(spec, record, context).await?, SHORT))
    }

    async fn undo(
        &self,
        _spec: &EnvironmentHoldSpec,
        record: &Record<LogGroupOutputs>,
        context: &Context,
    ) -> Result<UndoProgress, StepError> {
        delete(&self.0, context, record, &hold_name(context)).await
    }
}
