//! `vault.install`: the servers, their certificate and their storage. They run sealed; nothing waits for readiness.
//!
//! Its undo is the one place that proves the storage gone, and therefore the one place that forgets the keys.

use super::objects::{Manifest, bounded, exactly, gone, labels, ownership, refuse_foreign};
use super::reach::kube_failure;
use super::{Vaults, certificates, intent, manifests, storage, survey};
use crate::contract::{Made, Record, Seen, StepKind};
use crate::kubernetes::ClusterAccess;
use async_trait::async_trait;
use k8s_openapi::api::core::v1::{Pod, Secret, ServiceAccount};
use kube::api::{ListParams, PostParams};
use kube::{Api, Client};
use platflow_engine::context::Context;
use platflow_engine::failure::{Residue, StepError};
use platflow_engine::step::{Difference, Ownership, UndoProgress};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::time::Duration;

const POLL: Duration = Duration::from_secs(2);
const START_BUDGET: Duration = Duration::from_secs(15 * 60);
const DELETE_BUDGET: Duration = Duration::from_secs(15 * 60);

/// How the root key is protected.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Seal {
    /// Split into key shares.
    #[default]
    Shamir,
}

/// Three Vault servers with Raft storage and TLS.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct InstallSpec {
    /// How to reach the cluster.
    pub cluster: ClusterAccess,
    /// The namespace to run in; it must exist.
    pub namespace: String,
    /// Name of the StatefulSet and prefix of everything else.
    #[serde(default = "default_name")]
    pub name: String,
    /// How many servers.
    #[serde(default = "default_replicas")]
    #[schemars(range(min = 1, max = 9))]
    pub replicas: u32,
    /// Container image, of Vault or of OpenBao.
    pub image: String,
    /// Size of each server's volume.
    pub storage_gib: u32,
    /// Storage class; the cluster's default if not given.
    #[serde(default)]
    pub storage_class: Option<String>,
    /// How the root key is protected.
    #[serde(default)]
    pub seal: Seal,
}

fn default_name() -> String {
    "vault".into()
}

fn default_replicas() -> u32 {
    3
}

/// The servers that run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct InstallOutputs {
    /// The namespace.
    pub namespace: String,
    /// The StatefulSet's name.
    pub name: String,
    /// Pods by ordinal.
    pub pods: Vec<String>,
    /// PEM of the CA that signed the servers' certificate.
    pub ca_certificate: String,
    /// Address of the unsealed servers inside the cluster.
    pub address: String,
}

/// The kind.
#[derive(Debug, Clone)]
pub struct Install {
    vaults: Vaults,
}

impl Install {
    /// Over the way to clusters.
    #[must_use]
    pub fn new(vaults: Vaults) -> Self {
        Self { vaults }
    }

    fn client(&self, spec: &InstallSpec) -> Result<Client, StepError> {
        self.vaults.reach.client(&spec.cluster)
    }

    async fn tls_secret(&self, client: &Client, spec: &InstallSpec) -> Result<Option<Secret>, StepError> {
        let api: Api<Secret> = Api::namespaced(client.clone(), &spec.namespace);
        let name = manifests::tls_secret_name(spec);
        api.get_opt(&name).await.map_err(|error| kube_failure("reading", &name, &error))
    }

    /// Makes the certificate unless there is one: a second one would break every server that already runs.
    async fn certificate(&self, client: &Client, spec: &InstallSpec, context: &Context) -> Result<String, StepError> {
        if let Some(found) = self.tls_secret(client, spec).await? {
            refuse_foreign("the TLS secret", &found, context)?;
            return ca_of(&found);
        }
        let made = certificates::make(&spec.name, &spec.namespace, spec.replicas)?;
        let name = manifests::tls_secret_name(spec);
        let object: Secret = serde_json::from_value(json!({
            "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls",
            "metadata": { "name": name, "namespace": spec.namespace, "labels": labels(&spec.name, context) },
            "stringData": { "ca.crt": made.ca, "tls.crt": made.certificate, "tls.key": made.key.as_str() }
        }))
        .map_err(|error| StepError::permanent(format!("the TLS secret cannot be written: {error}")))?;
        let api: Api<Secret> = Api::namespaced(client.clone(), &spec.namespace);
        let call = context.begin("create-tls-secret")?;
        let parameters =
            PostParams { field_manager: Some(super::objects::FIELD_MANAGER.into()), ..PostParams::default() };
        bounded(call.timeout, &name, api.create(&parameters, &object)).await?;
        Ok(made.ca)
    }

    /// Why the first pod that does not run does not; nothing when all run.
    async fn starting(&self, client: &Client, spec: &InstallSpec) -> Result<Option<String>, StepError> {
        let api: Api<Pod> = Api::namespaced(client.clone(), &spec.namespace);
        for name in manifests::pods(spec) {
            let pod = api.get_opt(&name).await.map_err(|error| kube_failure("reading", &name, &error))?;
            let why = match &pod {
                None => Some("it is not made yet".to_owned()),
                Some(pod) => survey::not_running(pod),
            };
            if let Some(why) = why {
                return Ok(Some(format!("{name}: {why}")));
            }
        }
        Ok(None)
    }

    fn outputs(spec: &InstallSpec, ca_certificate: String) -> InstallOutputs {
        InstallOutputs {
            namespace: spec.namespace.clone(),
            name: spec.name.clone(),
            pods: manifests::pods(spec),
            ca_certificate,
            address: format!("https://{}.{}.svc:8200", spec.name, spec.namespace),
        }
    }
}

fn ca_of(secret: &Secret) -> Result<String, StepError> {
    let bytes = secret.data.as_ref().and_then(|data| data.get("ca.crt"));
    let text = bytes.and_then(|bytes| String::from_utf8(bytes.0.clone()).ok());
    text.ok_or_else(|| StepError::needs_human("Vault's TLS secret holds no ca.crt").leaving(Residue::Present))
}

fn difference(field: &str, wanted: Value, found: Option<&Value>, replace: bool) -> Option<Difference> {
    let found = found.cloned().unwrap_or(Value::Null);
    (wanted != found).then(|| Difference { field: field.into(), wanted, found, replace })
}

fn set_differences(spec: &InstallSpec, found: &Value) -> Vec<Difference> {
    let claim = "/spec/volumeClaimTemplates/0/spec/resources/requests/storage";
    let image = "/spec/template/spec/containers/0/image";
    [
        difference("/replicas", json!(spec.replicas), found.pointer("/spec/replicas"), false),
        difference("/image", json!(spec.image), found.pointer(image), false),
        // Claim templates cannot be changed in place.
        difference("/storage_gib", json!(format!("{}Gi", spec.storage_gib)), found.pointer(claim), true),
    ]
    .into_iter()
    .flatten()
    .collect()
}

#[async_trait]
impl StepKind for Install {
    type Spec = InstallSpec;
    type Outputs = InstallOutputs;

    const NAME: &'static str = "vault.install";
    const SUMMARY: &'static str =
        "Vault servers with Raft storage and TLS, running sealed; no pod is waited for to be ready.";
    const EXPECTED: Duration = Duration::from_secs(60);

    async fn observe(
        &self,
        spec: &InstallSpec,
        _record: &Record<InstallOutputs>,
        context: &Context,
    ) -> Result<Seen<InstallOutputs>, StepError> {
        let client = self.client(spec)?;
        let wanted = manifests::all(spec, context);
        let mut differences = Vec::new();
        let mut set = None;
        for manifest in &wanted {
            let found = manifest.read(&client).await?;
            match (&found, manifest.kind) {
                (None, "StatefulSet") => return Ok(Seen::Absent),
                (None, _) => {
                    differences.extend(difference(&format!("/{}", manifest.title()), json!("there"), None, false))
                }
                (Some(object), "ConfigMap") => {
                    let text = manifest.body.pointer("/data/vault.hcl").cloned().unwrap_or(Value::Null);
                    differences.extend(difference(
                        "/configuration",
                        text,
                        object.data.pointer("/data/vault.hcl"),
                        false,
                    ));
                }
                _ => {}
            }
            if manifest.kind == "StatefulSet" {
                set = found;
            }
        }
        let Some(set) = set else { return Ok(Seen::Absent) };
        let owner = ownership(&set, context);
        if set.metadata.deletion_timestamp.is_some() {
            return Ok(Seen::Changing { reason: "the StatefulSet is being deleted".into(), poll_in: POLL });
        }
        differences.extend(set_differences(spec, &set.data));
        let secret = self.tls_secret(&client, spec).await?;
        let ca_certificate = match &secret {
            Some(secret) => ca_of(secret)?,
            None => {
                differences.extend(difference("/tls", json!("a certificate"), None, false));
                String::new()
            }
        };
        if owner == Ownership::Ours
            && differences.is_empty()
            && let Some(reason) = self.starting(&client, spec).await?
        {
            return Ok(Seen::Changing { reason, poll_in: POLL });
        }
        Ok(Seen::Present { outputs: Self::outputs(spec, ca_certificate), ownership: owner, differences })
    }

    async fn apply(
        &self,
        spec: &InstallSpec,
        seen: &Seen<InstallOutputs>,
        _record: &Record<InstallOutputs>,
        context: &Context,
    ) -> Result<Made<InstallOutputs>, StepError> {
        if let Seen::Present { ownership: Ownership::Foreign(owner), .. } = seen {
            return Err(StepError::needs_human(format!("a Vault of this name is not ours: {owner}"))
                .with_code("Foreign")
                .leaving(Residue::None));
        }
        let client = self.client(spec)?;
        if matches!(seen, Seen::Absent) {
            refuse_old_claims(&client, spec, context).await?;
        }
        let ca_certificate = self.certificate(&client, spec, context).await?;
        for manifest in manifests::all(spec, context) {
            manifest.apply(&client, &spec.name, context).await?;
        }
        match self.starting(&client, spec).await? {
            Some(reason) => Ok(Made::Waiting { reason, poll_in: POLL, budget: START_BUDGET }),
            None => Ok(Made::Done(Self::outputs(spec, ca_certificate))),
        }
    }

    async fn undo(
        &self,
        spec: &InstallSpec,
        _record: &Record<InstallOutputs>,
        context: &Context,
    ) -> Result<UndoProgress, StepError> {
        let client = self.client(spec)?;
        let all = manifests::all(spec, context);
        let (sets, others): (Vec<&Manifest>, Vec<&Manifest>) =
            all.iter().partition(|manifest| manifest.kind == "StatefulSet");
        for set in sets {
            if let Some(found) = set.read(&client).await?
                && let Ownership::Foreign(owner) = ownership(&found, context)
            {
                let remedy = "leave it, or remove it by hand and roll back again".into();
                return Ok(UndoProgress::Blocked { owner: format!("{}: {owner}", set.title()), remedy });
            }
            if !set.delete(&client, context).await? {
                return Ok(deleting(format!("{} is being deleted", set.title())));
            }
        }
        if let Some(progress) = self.remove_storage(&client, spec, context).await? {
            return Ok(progress);
        }
        for manifest in others {
            if !manifest.delete(&client, context).await? {
                return Ok(deleting(format!("{} is being deleted", manifest.title())));
            }
        }
        if !tls_manifest(spec).delete(&client, context).await? {
            return Ok(deleting("the TLS secret is being deleted".into()));
        }
        if let Some(progress) = self.remove_accounts(&client, spec, context).await? {
            return Ok(progress);
        }
        // Only now, with the volumes proven gone, are the keys of no use to anyone.
        intent::forget(&self.vaults, &client, &spec.namespace, &spec.name, context).await?;
        let evidence =
            "the StatefulSet, its claims, their volumes and every other object were looked for and not found";
        Ok(UndoProgress::Gone { evidence: evidence.into() })
    }
}

impl Install {
    /// Deletes the service accounts that `vault.own_access` made for these servers: they end with this step.
    async fn remove_accounts(
        &self,
        client: &Client,
        spec: &InstallSpec,
        context: &Context,
    ) -> Result<Option<UndoProgress>, StepError> {
        let api: Api<ServiceAccount> = Api::namespaced(client.clone(), &spec.namespace);
        let ours = ListParams::default().labels(&super::objects::selector(&spec.name, context));
        let list = |error| kube_failure("listing", "service accounts", &error);
        for account in api.list(&ours).await.map_err(list)? {
            let name = account.metadata.name.clone().unwrap_or_default();
            let call = context.begin(&format!("delete-serviceaccounts-{name}"))?;
            let parameters = exactly(account.metadata.uid.clone());
            gone(bounded(call.timeout, &name, api.delete(&name, &parameters)).await)?;
        }
        let left = api.list(&ours).await.map_err(list)?;
        Ok(left
            .items
            .first()
            .and_then(|left| left.metadata.name.clone())
            .map(|name| deleting(format!("service account {name} is being deleted"))))
    }

    /// Deletes exactly the claims that this environment's set made, and waits until their volumes are gone, too.
    async fn remove_storage(
        &self,
        client: &Client,
        spec: &InstallSpec,
        context: &Context,
    ) -> Result<Option<UndoProgress>, StepError> {
        let pods = manifests::pods(spec);
        let api: Api<Pod> = Api::namespaced(client.clone(), &spec.namespace);
        for pod in &pods {
            let found = api.get_opt(pod).await.map_err(|error| kube_failure("reading", pod, &error))?;
            if found.is_some() {
                return Ok(Some(deleting(format!("pod {pod} still stops"))));
            }
        }
        let claims = storage::claims(client, &spec.namespace, &pods, context).await?;
        if let Some((name, owner)) = claims.foreign.first_key_value() {
            return Ok(Some(UndoProgress::Blocked {
                owner: format!("claim {name}: {owner}"),
                remedy: "it holds somebody else's data: remove it by hand, then roll back again".into(),
            }));
        }
        for (pod, uid) in &claims.ours {
            storage::delete_claim(client, &spec.namespace, pod, uid, context).await?;
        }
        let left = storage::claims(client, &spec.namespace, &pods, context).await?;
        if let Some(pod) = left.ours.keys().next() {
            return Ok(Some(deleting(format!("claim {} is being deleted", storage::claim_name(pod)))));
        }
        let volumes = storage::volumes(client, &spec.namespace, &pods).await?;
        Ok(volumes.first().map(|volume| match volume.retained {
            true => UndoProgress::Blocked {
                owner: format!("volume {} (reclaim policy Retain)", volume.name),
                remedy: "delete the volume by hand if its data may go, then roll back again".into(),
            },
            false => deleting(format!("volume {} is being deleted", volume.name)),
        }))
    }
}

/// Claims that outlived an earlier set hold somebody's data: a new set would silently mount them.
async fn refuse_old_claims(client: &Client, spec: &InstallSpec, context: &Context) -> Result<(), StepError> {
    let claims = storage::claims(client, &spec.namespace, &manifests::pods(spec), context).await?;
    match claims.foreign.first_key_value() {
        None => Ok(()),
        Some((name, owner)) => Err(StepError::needs_human(format!("claim {name} exists and is not ours: {owner}"))
            .with_remedy("find out whose data it holds; remove or rename it, then resume the run")
            .leaving(Residue::None)),
    }
}

fn tls_manifest(spec: &InstallSpec) -> Manifest {
    Manifest {
        kind: "Secret",
        plural: "secrets",
        api_version: "v1",
        namespace: Some(spec.namespace.clone()),
        name: manifests::tls_secret_name(spec),
        body: json!({}),
    }
}

fn deleting(reason: String) -> UndoProgress {
    UndoProgress::Waiting { reason, poll_in: POLL, budget: DELETE_BUDGET }
}
