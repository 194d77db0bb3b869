//! What Argo CD and the External Secrets Operator have in common: a bundle from a source, put into a namespace.

use super::api::Api;
use super::bundle::{Bundle, ObjectOutput, Recorded, recorded, recorded_or_announced};
use super::clients::{Clients, ClusterAccess};
use super::objects::{items, text};
use super::sources::{Source, Sources};
use platflow_engine::context::Context;
use platflow_engine::failure::StepError;
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;

/// A project that is installed from one manifest.
pub(crate) struct Installation {
    pub(crate) clients: Arc<Clients>,
    pub(crate) sources: Arc<Sources>,
    /// The bundle that ships with the binary.
    pub(crate) embedded: &'static str,
    /// The namespace that its manifests name.
    pub(crate) upstream_namespace: &'static str,
    /// The Deployment whose image tag is the version.
    pub(crate) versioned_by: &'static str,
}

/// A bundle that is ready to be looked at or applied.
pub(crate) struct Ready<'a> {
    pub(crate) api: Api<'a>,
    pub(crate) bundle: Bundle,
    pub(crate) recorded: Recorded,
    /// The version that the manifest installs.
    pub(crate) version: String,
}

impl Installation {
    pub(crate) async fn ready<'a>(
        &'a self,
        cluster: &'a ClusterAccess,
        namespace: &str,
        source: &Source,
        objects: Option<&[ObjectOutput]>,
        context: &'a Context,
    ) -> Result<Ready<'a>, StepError> {
        let api = Api::new(&self.clients, cluster, context)?;
        let found = self.sources.objects(source, Some(self.embedded)).await?.to_vec();
        let version = version(&found, self.versioned_by);
        let replace = Some((self.upstream_namespace, namespace));
        let bundle = Bundle::prepare(&api, found, Some(namespace), replace).await?;
        Ok(Ready { api, bundle, recorded: recorded(objects), version })
    }

    /// What there may be to take away. It needs no source: by then that may be gone, or be another.
    pub(crate) async fn remains<'a>(
        &'a self,
        cluster: &'a ClusterAccess,
        namespace: &str,
        source: &Source,
        on_record: (Option<&[ObjectOutput]>, &BTreeMap<String, Value>),
        context: &'a Context,
    ) -> Result<Ready<'a>, StepError> {
        let (objects, notes) = on_record;
        let api = Api::new(&self.clients, cluster, context)?;
        let recorded = recorded_or_announced(objects, notes)?;
        let found = self.sources.for_undo(source, Some(self.embedded), !recorded.is_empty()).await;
        let replace = Some((self.upstream_namespace, namespace));
        let bundle = Bundle::prepare(&api, found, Some(namespace), replace).await?.with_recorded(&recorded);
        Ok(Ready { api, bundle, recorded, version: String::new() })
    }
}

fn version(objects: &[Value], deployment: &str) -> String {
    let named = |object: &&Value| text(object, "/kind") == "Deployment" && text(object, "/metadata/name") == deployment;
    let image = objects
        .iter()
        .find(named)
        .and_then(|object| items(object, "/spec/template/spec/containers").first())
        .map(|container| text(container, "/image"))
        .unwrap_or_default();
    let untagged = image.split_once('@').map_or(image, |(image, _)| image);
    untagged.rsplit_once(':').map(|(_, tag)| tag.to_owned()).unwrap_or_default()
}
