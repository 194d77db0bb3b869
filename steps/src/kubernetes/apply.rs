//! `kubernetes.apply`: any manifests, by server-side apply, with the waits that make "done" mean done.

use super::api::Api;
use super::bundle::{Bundle, ObjectOutput, recorded, recorded_or_announced};
use super::clients::{Clients, ClusterAccess};
use super::documents;
use super::sources::{Source, Sources};
use crate::contract::{Made, Record, Seen, StepKind};
use async_trait::async_trait;
use platflow_engine::context::Context;
use platflow_engine::failure::{Residue, StepError};
use platflow_engine::step::UndoProgress;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::sync::Arc;
use std::time::Duration;

/// Manifests: exactly one of `manifests`, `yaml` and `source`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ApplySpec {
    /// The cluster.
    pub cluster: ClusterAccess,
    /// Objects.
    #[serde(default)]
    pub manifests: Option<Vec<Map<String, Value>>>,
    /// YAML text, several documents allowed.
    #[serde(default)]
    pub yaml: Option<String>,
    /// A file, or a URL pinned by digest.
    #[serde(default)]
    pub source: Option<Source>,
    /// The namespace of objects that name none and live in one.
    #[serde(default)]
    pub namespace: Option<String>,
    /// Whether the step is done only when workloads and jobs have rolled out.
    #[serde(default = "yes")]
    pub wait: bool,
    /// A namespace that the manifests name and another that is meant.
    #[serde(default)]
    pub replace_namespace: Option<ReplaceNamespace>,
}

fn yes() -> bool {
    true
}

/// A namespace in place of another: on objects, in binding subjects and webhook services.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ReplaceNamespace {
    /// As the manifests name it.
    pub from: String,
    /// As it is meant.
    pub to: String,
}

/// What was applied.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub(super) struct ApplyOutputs {
    /// Every object, in the order of application.
    pub objects: Vec<ObjectOutput>,
}

/// See the file.
pub(super) struct ApplyKind {
    pub(super) clients: Arc<Clients>,
    pub(super) sources: Arc<Sources>,
}

impl ApplyKind {
    async fn bundle(&self, api: &Api<'_>, spec: &ApplySpec) -> Result<Bundle, StepError> {
        Self::prepared(api, spec, self.objects(spec).await?).await
    }

    async fn prepared(api: &Api<'_>, spec: &ApplySpec, found: Vec<Value>) -> Result<Bundle, StepError> {
        let replace = spec.replace_namespace.as_ref().map(|replace| (replace.from.as_str(), replace.to.as_str()));
        Bundle::prepare(api, found, spec.namespace.as_deref(), replace).await
    }

    async fn objects(&self, spec: &ApplySpec) -> Result<Vec<Value>, StepError> {
        Ok(match (&spec.manifests, &spec.yaml, &spec.source) {
            (Some(objects), None, None) => {
                let mut found = Vec::new();
                for (index, object) in objects.iter().enumerate() {
                    documents::flatten(Value::Object(object.clone()), index + 1, &mut found)?;
                }
                found
            }
            (None, Some(yaml), None) => documents::objects(yaml)?,
            (None, None, Some(source)) => self.sources.objects(source, None).await?.to_vec(),
            _ => {
                let text = "exactly one of manifests, yaml and source is wanted";
                return Err(StepError::permanent(text).leaving(Residue::None));
            }
        })
    }
}

#[async_trait]
impl StepKind for ApplyKind {
    type Spec = ApplySpec;
    type Outputs = ApplyOutputs;

    /// Servers make some of these objects again while they are being taken away.
    const SPARES_STRANGERS: bool = true;
    const NAME: &'static str = "kubernetes.apply";
    const SUMMARY: &'static str = "Manifests, by server-side apply.";
    const EXPECTED: Duration = Duration::from_secs(30);

    async fn observe(
        &self,
        spec: &ApplySpec,
        record: &Record<ApplyOutputs>,
        context: &Context,
    ) -> Result<Seen<ApplyOutputs>, StepError> {
        let api = Api::new(&self.clients, &spec.cluster, context)?;
        let bundle = self.bundle(&api, spec).await?;
        let known = recorded(record.outputs.as_ref().map(|outputs| outputs.objects.as_slice()));
        let survey = bundle.survey(&api, &known).await?;
        Ok(bundle.seen(&survey, spec.wait).map(|objects| ApplyOutputs { objects }))
    }

    async fn apply(
        &self,
        spec: &ApplySpec,
        _seen: &Seen<ApplyOutputs>,
        record: &Record<ApplyOutputs>,
        context: &Context,
    ) -> Result<Made<ApplyOutputs>, StepError> {
        let api = Api::new(&self.clients, &spec.cluster, context)?;
        let bundle = self.bundle(&api, spec).await?;
        let known = recorded(record.outputs.as_ref().map(|outputs| outputs.objects.as_slice()));
        if spec.source.is_some() {
            bundle.announce(&record.notes, context).await?;
        }
        Ok(bundle.apply(&api, &known, spec.wait).await?.map(|objects| ApplyOutputs { objects }))
    }

    async fn undo(
        &self,
        spec: &ApplySpec,
        record: &Record<ApplyOutputs>,
        context: &Context,
    ) -> Result<UndoProgress, StepError> {
        let api = Api::new(&self.clients, &spec.cluster, context)?;
        let objects = record.outputs.as_ref().map(|outputs| outputs.objects.as_slice());
        let known = recorded_or_announced(objects, &record.notes)?;
        let found = match &spec.source {
            Some(source) => self.sources.for_undo(source, None, !known.is_empty()).await,
            None => self.objects(spec).await?,
        };
        Self::prepared(&api, spec, found).await?.with_recorded(&known).remove(&api, &known).await
    }
}
