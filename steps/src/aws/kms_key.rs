//! `aws.kms_key`: a customer-managed key and its alias. It holds what only it can decrypt.
//!
//! KMS deletes no key at once: undoing schedules the deletion, and a key that waits for it counts as gone. When the
//! step runs again while our key still waits, the deletion is called off and the key used again.

use super::clients::AwsClients;
use super::ec2::{SHORT, finished, required};
use super::ownership::{
    Differences, READ_LAG, STEP, Start, Tags, UID, absent, compare_tags, creation_tags, duplicates, going,
    lasting_tags, not_ours, noted, nothing_left, ownership, start, touches,
};
use super::signed::Service;
use crate::contract::{Made, Record, Seen, StepKind};
use async_trait::async_trait;
use platflow_engine::context::Context;
use platflow_engine::failure::StepError;
use platflow_engine::step::{Ownership, UndoProgress};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

/// A customer-managed key with an alias.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct KmsKeySpec {
    /// Unique in account and region, with or without `alias/`. Cannot be changed in place.
    pub alias: String,
    /// What it is for.
    pub description: String,
    /// Days between the undo and the real deletion, 7 to 30.
    #[serde(default = "week")]
    pub deletion_window_days: u32,
    /// Yearly rotation of the key material.
    #[serde(default = "yes")]
    pub rotation: bool,
    /// Further tags.
    #[serde(default)]
    pub tags: Tags,
}

fn week() -> u32 {
    7
}

fn yes() -> bool {
    true
}

/// A key that exists.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct KmsKeyOutputs {
    /// The key's id.
    pub key_id: String,
    /// Its ARN.
    pub arn: String,
    /// Its alias, with `alias/`.
    pub alias: String,
}

/// See the file.
pub(super) struct KmsKeyKind(pub(super) Arc<AwsClients>);

/// A key as `DescribeKey` shows it.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Key {
    key_id: String,
    arn: String,
    #[serde(default)]
    description: String,
    #[serde(default)]
    key_state: String,
    #[serde(default)]
    deletion_date: Option<f64>,
}

impl Key {
    fn waits_for_deletion(&self) -> bool {
        self.key_state.starts_with("PendingDeletion") || self.key_state == "PendingReplicaDeletion"
    }

    fn date(&self) -> String {
        let date = self.deletion_date.and_then(|seconds| jiff::Timestamp::from_second(seconds as i64).ok());
        date.map_or_else(|| "an unknown date".to_owned(), |date| date.to_string())
    }
}

fn full_alias(spec: &KmsKeySpec) -> String {
    if spec.alias.starts_with("alias/") { spec.alias.clone() } else { format!("alias/{}", spec.alias) }
}

fn json_tags(tags: &Tags) -> Vec<Value> {
    tags.iter().map(|(key, value)| json!({"TagKey": key, "TagValue": value})).collect()
}

impl KmsKeyKind {
    fn known(record: &Record<KmsKeyOutputs>) -> Option<String> {
        noted(record, "key_id").or_else(|| record.outputs.as_ref().map(|outputs| outputs.key_id.clone()))
    }

    async fn tell(&self, context: &Context, action: &str, body: Value) -> Result<Value, StepError> {
        let permit = context.begin(action)?;
        Ok(self.0.signed.tell_json(Service::Kms, action, &body, &permit).await?)
    }

    async fn describe(&self, id: &str) -> Result<Option<Key>, StepError> {
        match self.0.signed.ask_json(Service::Kms, "DescribeKey", &json!({"KeyId": id})).await {
            Ok(answer) => {
                let metadata = required("KeyMetadata", answer.get("KeyMetadata"))?;
                let key = Key::deserialize(metadata)
                    .map_err(|error| StepError::transient(format!("DescribeKey's answer cannot be read: {error}")))?;
                Ok(Some(key))
            }
            Err(failure) if failure.is_not_found() => Ok(None),
            Err(failure) => Err(failure.into()),
        }
    }

    async fn tags(&self, id: &str) -> Result<Tags, StepError> {
        let answer = self.0.signed.ask_json(Service::Kms, "ListResourceTags", &json!({"KeyId": id})).await?;
        let tags = answer.get("Tags").and_then(Value::as_array).cloned().unwrap_or_default();
        let text = |tag: &Value, key: &str| tag.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        Ok(tags.iter().map(|tag| (text(tag, "TagKey"), text(tag, "TagValue"))).collect())
    }

    /// The aliases of a key.
    async fn aliases(&self, id: &str) -> Result<Vec<String>, StepError> {
        let answer = self.0.signed.ask_json(Service::Kms, "ListAliases", &json!({"KeyId": id})).await?;
        let found = answer.get("Aliases").and_then(Value::as_array).cloned().unwrap_or_default();
        let name = |alias: &Value| alias.get("AliasName").and_then(Value::as_str).map(str::to_owned);
        Ok(found.iter().filter_map(name).collect())
    }

    async fn rotates(&self, id: &str) -> Result<bool, StepError> {
        let answer = self.0.signed.ask_json(Service::Kms, "GetKeyRotationStatus", &json!({"KeyId": id})).await?;
        Ok(answer.get("KeyRotationEnabled").and_then(Value::as_bool).unwrap_or(false))
    }

    /// Ids of keys with this step's tags. The tagging index lags, so the noted id and the alias come first.
    async fn tagged(&self, context: &Context) -> Result<Vec<String>, StepError> {
        let body = json!({
            "ResourceTypeFilters": ["kms:key"],
            "TagFilters": [
                {"Key": UID, "Values": [context.environment_uid.as_str()]},
                {"Key": STEP, "Values": [context.step.as_str()]},
            ],
        });
        let answer = self.0.signed.ask_json(Service::Tagging, "GetResources", &body).await?;
        let list = answer.get("ResourceTagMappingList").and_then(Value::as_array).cloned().unwrap_or_default();
        let arns = list.iter().filter_map(|one| one.get("ResourceARN").and_then(Value::as_str));
        Ok(arns.filter_map(|arn| arn.rsplit('/').next()).map(str::to_owned).collect())
    }

    /// All keys that may be this step's: on record, behind the alias, by tag; each once.
    async fn candidates(
        &self,
        spec: &KmsKeySpec,
        record: &Record<KmsKeyOutputs>,
        context: &Context,
    ) -> Result<Candidates, StepError> {
        let behind_alias = self.describe(&full_alias(spec)).await?;
        let mut ids: Vec<String> = behind_alias.iter().map(|key| key.key_id.clone()).collect();
        ids.extend(Self::known(record));
        ids.extend(self.tagged(context).await?);
        let mut ours: Vec<Key> = Vec::new();
        let mut foreign = None;
        for id in ids {
            if ours.iter().any(|key| key.key_id == id) {
                continue;
            }
            let Some(key) = self.describe(&id).await? else { continue };
            let tags = self.tags(&key.key_id).await?;
            let recorded = Self::known(record).as_deref() == Some(key.key_id.as_str());
            match ownership(&tags, context, recorded) {
                Ownership::Ours => ours.push(key),
                Ownership::Foreign(owner) => foreign = foreign.or(Some((key, owner))),
            }
        }
        let (waiting, live) = ours.into_iter().partition::<Vec<_>, _>(Key::waits_for_deletion);
        Ok(Candidates { live, waiting, foreign, alias: behind_alias.map(|key| key.key_id) })
    }

    async fn create(&self, spec: &KmsKeySpec, context: &Context) -> Result<String, StepError> {
        let token = context.token("CreateKey");
        let tags = creation_tags(context, &full_alias(spec), &spec.tags, &token);
        let body = json!({"Description": spec.description, "Tags": json_tags(&tags)});
        let answer = self.tell(context, "CreateKey", body).await?;
        let id = answer.pointer("/KeyMetadata/KeyId").and_then(Value::as_str);
        let id = required("KeyId", id)?.to_owned();
        context.note("key_id", id.clone().into()).await?;
        Ok(id)
    }

    async fn revive(&self, key: &Key, context: &Context) -> Result<String, StepError> {
        context.note("key_id", key.key_id.clone().into()).await?;
        self.tell(context, "CancelKeyDeletion", json!({"KeyId": key.key_id})).await?;
        self.tell(context, "EnableKey", json!({"KeyId": key.key_id})).await?;
        Ok(key.key_id.clone())
    }

    async fn set_rotation(&self, id: &str, on: bool, context: &Context) -> Result<(), StepError> {
        let action = if on { "EnableKeyRotation" } else { "DisableKeyRotation" };
        self.tell(context, action, json!({"KeyId": id})).await.map(drop)
    }

    async fn set_alias(&self, spec: &KmsKeySpec, id: &str, context: &Context) -> Result<(), StepError> {
        let body = json!({"AliasName": full_alias(spec), "TargetKeyId": id});
        self.tell(context, "CreateAlias", body).await.map(drop)
    }
}

struct Candidates {
    live: Vec<Key>,
    waiting: Vec<Key>,
    foreign: Option<(Key, String)>,
    /// The key behind the alias.
    alias: Option<String>,
}

#[async_trait]
impl StepKind for KmsKeyKind {
    type Spec = KmsKeySpec;
    type Outputs = KmsKeyOutputs;

    const NAME: &'static str = "aws.kms_key";
    const SUMMARY: &'static str = "A customer-managed encryption key and its alias.";
    const SETTLE: Duration = READ_LAG;
    const EXPECTED: Duration = Duration::from_secs(3);
    const HOLDS_DATA: bool = true;

    async fn observe(
        &self,
        spec: &KmsKeySpec,
        record: &Record<KmsKeyOutputs>,
        context: &Context,
    ) -> Result<Seen<KmsKeyOutputs>, StepError> {
        let Candidates { mut live, foreign, alias, waiting } = self.candidates(spec, record, context).await?;
        let outputs =
            |key: &Key| KmsKeyOutputs { key_id: key.key_id.clone(), arn: key.arn.clone(), alias: full_alias(spec) };
        if live.len() > 1 {
            let ids: Vec<String> = live.into_iter().map(|key| key.key_id).collect();
            return Err(duplicates("key", &ids));
        }
        let Some(key) = live.pop() else {
            return Ok(match foreign {
                Some((key, owner)) => Seen::Present {
                    outputs: outputs(&key),
                    ownership: Ownership::Foreign(owner),
                    differences: Vec::new(),
                },
                None if waiting.is_empty() => absent(record, Self::known(record).as_ref(), context),
                None => Seen::Absent,
            });
        };
        let mut differences = Differences::default();
        match (&alias, foreign) {
            (Some(behind), Some((_, owner))) if *behind != key.key_id => {
                let found = format!("key {behind} of {owner}");
                differences.fixed("/alias", full_alias(spec), found);
            }
            (behind, _) => {
                let found = (behind.as_ref() == Some(&key.key_id)).then(|| full_alias(spec));
                differences.field("/alias", Some(full_alias(spec)), found);
            }
        }
        differences.field("/description", &spec.description, &key.description);
        differences.field("/state", "Enabled", &key.key_state);
        differences.field("/rotation", spec.rotation, self.rotates(&key.key_id).await?);
        let tags = self.tags(&key.key_id).await?;
        compare_tags(&mut differences, &lasting_tags(context, &full_alias(spec), &spec.tags), &tags);
        Ok(Seen::Present { outputs: outputs(&key), ownership: Ownership::Ours, differences: differences.0 })
    }

    async fn apply(
        &self,
        spec: &KmsKeySpec,
        seen: &Seen<KmsKeyOutputs>,
        record: &Record<KmsKeyOutputs>,
        context: &Context,
    ) -> Result<Made<KmsKeyOutputs>, StepError> {
        match start(&full_alias(spec), seen)? {
            Start::Create => {
                let candidates = self.candidates(spec, record, context).await?;
                let id = match candidates.waiting.last() {
                    Some(key) => self.revive(key, context).await?,
                    None => self.create(spec, context).await?,
                };
                self.set_rotation(&id, spec.rotation, context).await?;
                if candidates.alias.as_deref() != Some(id.as_str()) {
                    self.set_alias(spec, &id, context).await?;
                }
            }
            Start::Change(outputs, differences) => {
                let id = &outputs.key_id;
                if touches(differences, "/state") {
                    self.tell(context, "EnableKey", json!({"KeyId": id})).await?;
                }
                if touches(differences, "/rotation") {
                    self.set_rotation(id, spec.rotation, context).await?;
                }
                if touches(differences, "/alias") {
                    self.set_alias(spec, id, context).await?;
                }
                if touches(differences, "/description") {
                    let body = json!({"KeyId": id, "Description": spec.description});
                    self.tell(context, "UpdateKeyDescription", body).await?;
                }
                if touches(differences, "/tags") {
                    let tags = json_tags(&lasting_tags(context, &full_alias(spec), &spec.tags));
                    self.tell(context, "TagResource", json!({"KeyId": id, "Tags": tags})).await?;
                }
            }
        }
        Ok(finished(self.observe(spec, record, context).await?, SHORT))
    }

    async fn undo(
        &self,
        spec: &KmsKeySpec,
        record: &Record<KmsKeyOutputs>,
        context: &Context,
    ) -> Result<UndoProgress, StepError> {
        let Candidates { live, waiting, foreign, alias } = self.candidates(spec, record, context).await?;
        let mut evidence: Vec<String> =
            waiting.iter().map(|key| format!("{} waits for its deletion on {}", key.key_id, key.date())).collect();
        let ours = |id: &String| live.iter().chain(&waiting).any(|key| key.key_id == *id);
        // A key that waits for its deletion keeps its aliases, and with them the names that the next key wants.
        let own = full_alias(spec);
        let mut aliases: Vec<String> = alias.iter().filter(|id| ours(id)).map(|_| own.clone()).collect();
        for key in live.iter().chain(&waiting) {
            aliases.extend(self.aliases(&key.key_id).await?.into_iter().filter(|name| *name != own));
        }
        for name in aliases {
            let permit = context.begin(&format!("DeleteAlias/{name}"))?;
            let body = json!({"AliasName": name});
            match self.0.signed.tell_json(Service::Kms, "DeleteAlias", &body, &permit).await {
                Err(failure) if !failure.is_not_found() => return Err(failure.into()),
                _ => evidence.push(format!("DeleteAlias {name}")),
            }
        }
        if live.is_empty() && waiting.is_empty() {
            return Ok(match foreign {
                Some((key, owner)) => not_ours(record, context, &key.key_id, &owner),
                None => nothing_left(record, context, "DescribeKey by alias and id, GetResources by tag: no key"),
            });
        }
        for key in &live {
            let body = json!({"KeyId": key.key_id, "PendingWindowInDays": spec.deletion_window_days.clamp(7, 30)});
            self.tell(context, "ScheduleKeyDeletion", body).await?;
            match self.describe(&key.key_id).await? {
                Some(now) if !now.waits_for_deletion() => {
                    return Ok(going(format!("{} is not yet scheduled for deletion", key.key_id), 2, 5));
                }
                Some(now) => evidence.push(format!("{} waits for its deletion on {}", now.key_id, now.date())),
                None => evidence.push(format!("{} is gone", key.key_id)),
            }
        }
        Ok(UndoProgress::Gone { evidence: evidence.join("; ") })
    }
}
