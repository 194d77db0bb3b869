//! The kinds that are one object each: the three verbs once, the object per kind.

use super::api::{Api, ObjectKey};
use super::clients::{Clients, ClusterAccess};
use super::objects::{self, Removal, Standing, foreign, holding, replacement, text};
use crate::contract::{Made, Record, Seen, StepKind};
use async_trait::async_trait;
use platflow_engine::context::Context;
use platflow_engine::failure::StepError;
use platflow_engine::step::{Ownership, UndoProgress};
use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

/// An object that exists.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(super) struct NamedOutputs {
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
}

/// What tells one of these kinds from another.
pub(super) trait Single: Send + Sync + 'static {
    type Spec: DeserializeOwned + JsonSchema + Send + Sync;
    const NAME: &'static str;
    const SUMMARY: &'static str;
    const EXPECTED: Duration = Duration::from_secs(1);
    /// How long its deletion may take.
    const REMOVAL: Duration = Duration::from_secs(2 * 60);
    /// Prefixes of object fields and of the spec fields that they come from.
    const FIELDS: &'static [(&'static str, &'static str)];

    fn cluster(spec: &Self::Spec) -> &ClusterAccess;
    fn key(spec: &Self::Spec) -> ObjectKey;
    fn object(spec: &Self::Spec) -> Value;
}

/// See the file.
pub(super) struct SingleKind<S> {
    clients: Arc<Clients>,
    kind: PhantomData<fn() -> S>,
}

const POLL: Duration = Duration::from_secs(2);

impl<S: Single> SingleKind<S> {
    pub(super) fn new(clients: Arc<Clients>) -> Self {
        Self { clients, kind: PhantomData }
    }

    async fn look(
        &self,
        api: &Api<'_>,
        spec: &S::Spec,
        record: &Record<NamedOutputs>,
    ) -> Result<Option<Standing>, StepError> {
        let recorded = record.outputs.as_ref().map(|outputs| outputs.uid.as_str());
        let mut standing = objects::stand(api, &S::key(spec), &S::object(spec), recorded).await?;
        for difference in standing.iter_mut().flat_map(|standing| &mut standing.differences) {
            if let Some((from, to)) = S::FIELDS.iter().find(|(from, _)| difference.field.starts_with(from)) {
                difference.field = difference.field.replacen(from, to, 1);
            }
        }
        Ok(standing)
    }
}

fn outputs(object: &Value) -> NamedOutputs {
    NamedOutputs { name: text(object, "/metadata/name").to_owned(), uid: text(object, "/metadata/uid").to_owned() }
}

#[async_trait]
impl<S: Single> StepKind for SingleKind<S> {
    type Spec = S::Spec;
    type Outputs = NamedOutputs;

    const NAME: &'static str = S::NAME;
    const SUMMARY: &'static str = S::SUMMARY;
    const EXPECTED: Duration = S::EXPECTED;

    async fn observe(
        &self,
        spec: &S::Spec,
        record: &Record<NamedOutputs>,
        context: &Context,
    ) -> Result<Seen<NamedOutputs>, StepError> {
        let api = Api::new(&self.clients, S::cluster(spec), context)?;
        Ok(match self.look(&api, spec, record).await? {
            None => Seen::Absent,
            Some(standing) if standing.is_leaving() => {
                Seen::Changing { reason: holding(&S::key(spec), &standing.stored), poll_in: POLL }
            }
            Some(standing) => Seen::Present {
                outputs: outputs(&standing.stored),
                ownership: standing.ownership,
                differences: standing.differences,
            },
        })
    }

    async fn apply(
        &self,
        spec: &S::Spec,
        _seen: &Seen<NamedOutputs>,
        record: &Record<NamedOutputs>,
        context: &Context,
    ) -> Result<Made<NamedOutputs>, StepError> {
        let api = Api::new(&self.clients, S::cluster(spec), context)?;
        let key = S::key(spec);
        let standing = self.look(&api, spec, record).await?;
        if let Some(standing) = &standing {
            if standing.is_leaving() {
                let reason = holding(&key, &standing.stored);
                return Ok(Made::Waiting { reason, poll_in: POLL, budget: S::REMOVAL });
            }
            if let Ownership::Foreign(owner) = &standing.ownership {
                return Err(foreign(&key, owner));
            }
            if let Some(fixed) = standing.differences.iter().find(|difference| difference.replace) {
                return Err(replacement(&key, fixed));
            }
            if standing.differences.is_empty() {
                return Ok(Made::Done(outputs(&standing.stored)));
            }
        }
        let stored = objects::put(&api, &key, &S::object(spec), standing.as_ref()).await?;
        Ok(Made::Done(outputs(&stored)))
    }

    async fn undo(
        &self,
        spec: &S::Spec,
        record: &Record<NamedOutputs>,
        context: &Context,
    ) -> Result<UndoProgress, StepError> {
        let api = Api::new(&self.clients, S::cluster(spec), context)?;
        let recorded = record.outputs.as_ref().map(|outputs| outputs.uid.as_str());
        Ok(match objects::remove(&api, &S::key(spec), recorded, "Background").await? {
            Removal::Gone(evidence) => UndoProgress::Gone { evidence },
            Removal::Going(reason) => UndoProgress::Waiting { reason, poll_in: POLL, budget: S::REMOVAL },
        })
    }
}
