//! The cluster-wide claim to be the one who initialises: a ConfigMap that is created only if absent, and the names of
//! the key records that go with it.

use super::Vaults;
use super::objects::{FIELD_MANAGER, Manifest, bounded, labels, ownership};
use super::reach::kube_failure;
use super::session::ROOT_TOKEN;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{PostParams, ResourceExt};
use kube::{Api, Client};
use platflow_engine::context::Context;
use platflow_engine::failure::{ErrorClass, Residue, StepError};
use platflow_engine::step::Ownership;
use serde_json::json;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The raw reply of init, kept until every share has a record of its own.
pub(super) const INIT_REPLY: &str = "vault/init-reply";

/// The record of one share, from 1.
pub(super) fn share_name(number: usize) -> String {
    format!("vault/share-{number}")
}

/// True for every record that init makes.
pub(super) fn is_key_record(name: &str) -> bool {
    name == INIT_REPLY || name == ROOT_TOKEN || name.starts_with("vault/share-")
}

/// What the intent says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Intent {
    pub(super) run: String,
    pub(super) generation: String,
    /// Uid of each pod's claim when nothing was initialised.
    pub(super) claims: BTreeMap<String, String>,
    /// The second place of the keys, where it is not the configured one.
    pub(super) second: Option<PathBuf>,
    /// True once the keys were safe.
    pub(super) done: bool,
    pub(super) owner: Ownership,
}

/// What is written into it.
pub(super) struct Kept<'a> {
    pub(super) claims: &'a BTreeMap<String, String>,
    pub(super) second: Option<&'a Path>,
    pub(super) done: bool,
}

fn name_of(name: &str) -> String {
    format!("{name}-init-intent")
}

fn read_back(found: &ConfigMap, context: &Context) -> Intent {
    let member = |name: &str| found.data.as_ref().and_then(|data| data.get(name)).cloned().unwrap_or_default();
    // The StatefulSet is one step's; whichever step of this environment initialises it holds the intent for it.
    let owner = match ownership(found, context) {
        Ownership::Ours => Ownership::Ours,
        Ownership::Foreign(owner) => Ownership::Foreign(format!("{owner}, run {}", member("run"))),
    };
    Intent {
        run: member("run"),
        generation: member("generation"),
        claims: serde_json::from_str(&member("claims")).unwrap_or_default(),
        second: Some(member("second_place")).filter(|path| !path.is_empty()).map(PathBuf::from),
        done: member("state") == "keys-kept",
        owner,
    }
}

async fn get(client: &Client, namespace: &str, name: &str) -> Result<Option<ConfigMap>, StepError> {
    let api: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
    let name = name_of(name);
    api.get_opt(&name).await.map_err(|error| kube_failure("reading", &name, &error))
}

/// The intent, if there is one.
pub(super) async fn read(
    client: &Client,
    namespace: &str,
    name: &str,
    context: &Context,
) -> Result<Option<Intent>, StepError> {
    Ok(get(client, namespace, name).await?.map(|found| read_back(&found, context)))
}

/// Writes the intent: created only if absent; over our own only where nobody changed it since we read it.
pub(super) async fn write(
    client: &Client,
    namespace: &str,
    name: &str,
    kept: &Kept<'_>,
    context: &Context,
) -> Result<(), StepError> {
    let api: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
    let found = get(client, namespace, name).await?;
    let object_name = name_of(name);
    let mut object: ConfigMap = serde_json::from_value(json!({
        "metadata": { "name": object_name, "namespace": namespace, "labels": labels(name, context) },
        "data": {
            "environment_uid": context.environment_uid.as_str(), "step": context.step.as_str(),
            "run": context.run.as_str(), "generation": context.generation.to_string(),
            "claims": serde_json::to_string(kept.claims).unwrap_or_default(),
            "second_place": kept.second.map(|path| path.display().to_string()).unwrap_or_default(),
            "state": if kept.done { "keys-kept" } else { "intended" }
        }
    }))
    .map_err(|error| StepError::permanent(format!("the init intent cannot be written: {error}")))?;
    let parameters = PostParams { field_manager: Some(FIELD_MANAGER.into()), ..PostParams::default() };
    let call = context.begin("init-intent")?;
    match found {
        None => bounded(call.timeout, &object_name, api.create(&parameters, &object)).await.map(drop),
        Some(found) => {
            if let Ownership::Foreign(owner) = read_back(&found, context).owner {
                return Err(StepError::new(
                    ErrorClass::NeedsHuman,
                    format!("another already claims to initialise this Vault: {owner}"),
                )
                .leaving(Residue::None));
            }
            object.metadata.resource_version = found.resource_version();
            bounded(call.timeout, &object_name, api.replace(&object_name, &parameters, &object)).await.map(drop)
        }
    }
}

/// Removes the intent, if it is ours. True when it is gone.
async fn remove(client: &Client, namespace: &str, name: &str, context: &Context) -> Result<bool, StepError> {
    let manifest = Manifest {
        kind: "ConfigMap",
        plural: "configmaps",
        api_version: "v1",
        namespace: Some(namespace.to_owned()),
        name: name_of(name),
        body: json!({}),
    };
    manifest.delete(client, context).await
}

/// After the storage was proven gone: the intent and every key record go, too.
pub(super) async fn forget(
    vaults: &Vaults,
    client: &Client,
    namespace: &str,
    name: &str,
    context: &Context,
) -> Result<(), StepError> {
    let failed = |error: crate::sealing::KeystoreError| error.into_failure(Residue::Present);
    let environment = &context.environment_uid;
    let intent = read(client, namespace, name, context).await?;
    if let Some(Ownership::Foreign(_)) = intent.as_ref().map(|intent| &intent.owner) {
        // Another environment's intent says nothing about our keys, and is not ours to remove.
        return Ok(());
    }
    let second = intent.and_then(|intent| intent.second);
    for place in [second.as_deref(), None] {
        let names = vaults.keystore.list(environment, place).await.map_err(failed)?;
        for record in names.iter().filter(|record| is_key_record(record)) {
            vaults.keystore.remove(environment, record, place).await.map_err(failed)?;
        }
    }
    remove(client, namespace, name, context).await.map(drop)
}
