//! `vault.configure`: audit before the first secret, then the KV version 2 mount and the Kubernetes auth method.

use super::place::placed;
use super::server::{Reply, client_failure, in_use};
use super::session::{LoginAs, Session};
use super::{VaultPlace, Vaults};
use crate::contract::{Made, Record, Seen, StepKind};
use crate::kubernetes::ClusterAccess;
use async_trait::async_trait;
use platflow_engine::context::Context;
use platflow_engine::failure::{ErrorClass, Residue, StepError};
use platflow_engine::step::{Difference, Ownership, UndoProgress};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::time::Duration;

const POLL: Duration = Duration::from_secs(1);
const BUDGET: Duration = Duration::from_secs(2 * 60);
/// What a pod calls its own API server.
const KUBERNETES_HOST: &str = "https://kubernetes.default.svc";

/// Audit device, KV mount and Kubernetes auth method.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ConfigureSpec {
    /// How to reach the cluster.
    pub cluster: ClusterAccess,
    /// The namespace it runs in.
    pub namespace: String,
    /// The StatefulSet's name.
    pub name: String,
    /// Its pods, by ordinal.
    pub pods: Vec<String>,
    /// PEM of the CA that signed the servers' certificate.
    pub ca_certificate: String,
    /// Where the audit log goes: `stdout`, or a file's path.
    #[serde(default = "default_audit")]
    pub audit: String,
    /// Mount of the KV version 2 engine.
    #[serde(default = "default_kv")]
    pub kv_mount: String,
    /// Mount of the Kubernetes auth method.
    #[serde(default = "default_auth")]
    pub kubernetes_auth_mount: String,
}
placed!(ConfigureSpec);

fn default_audit() -> String {
    "stdout".into()
}

fn default_kv() -> String {
    "secret".into()
}

fn default_auth() -> String {
    "kubernetes".into()
}

/// What is mounted where.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ConfigureOutputs {
    /// Where the audit log goes.
    pub audit: String,
    /// Mount of the KV engine.
    pub kv_mount: String,
    /// Mount of the auth method.
    pub auth_mount: String,
}

/// The kind.
#[derive(Debug, Clone)]
pub struct Configure {
    vaults: Vaults,
}

/// What is there already.
#[derive(Debug, Default, PartialEq, Eq)]
struct Found {
    audit: bool,
    kv: bool,
    auth: bool,
    configured: bool,
}

impl Configure {
    /// Over the way to clusters and the keystore.
    #[must_use]
    pub fn new(vaults: Vaults) -> Self {
        Self { vaults }
    }

    fn outputs(spec: &ConfigureSpec) -> ConfigureOutputs {
        ConfigureOutputs {
            audit: spec.audit.clone(),
            kv_mount: spec.kv_mount.clone(),
            auth_mount: spec.kubernetes_auth_mount.clone(),
        }
    }

    async fn session(&self, spec: &ConfigureSpec, context: &Context) -> Result<Option<Session>, StepError> {
        let place: VaultPlace = spec.place();
        let login = LoginAs { mount: spec.kubernetes_auth_mount.clone(), ..LoginAs::default() };
        self.vaults.session(&place, &context.environment_uid, &login).await
    }
}

fn foreign(what: &str, found: &str) -> StepError {
    StepError::new(ErrorClass::NeedsHuman, format!("{what} is already mounted as {found}"))
        .with_code("Foreign")
        .leaving(Residue::None)
}

/// An entry of a listing such as `sys/mounts`.
fn entry<'a>(reply: &'a Reply, mount: &str) -> Option<&'a Value> {
    reply.body.get("data").and_then(|data| data.get(format!("{mount}/")))
}

async fn look(session: &Session, spec: &ConfigureSpec) -> Result<Found, StepError> {
    let server = &session.server;
    let audits = server.get("sys/audit").await?.success("listing audit devices")?;
    let writes_there = |device: &Value| {
        let options = device.get("options");
        let path = |name: &str| options.and_then(|options| options.get(name)).and_then(Value::as_str);
        path("file_path").or_else(|| path("path")) == Some(spec.audit.as_str())
    };
    let devices = audits.body.get("data").and_then(Value::as_object);
    let audit = devices.is_some_and(|devices| devices.values().any(writes_there));

    let mounts = server.get("sys/mounts").await?.success("listing mounts")?;
    let kv = match entry(&mounts, &spec.kv_mount) {
        None => false,
        Some(mount) => {
            let kind = mount.get("type").and_then(Value::as_str).unwrap_or_default();
            let version = mount.pointer("/options/version").and_then(Value::as_str).unwrap_or("1");
            if (kind, version) != ("kv", "2") {
                return Err(foreign(&spec.kv_mount, &format!("{kind} version {version}")));
            }
            true
        }
    };
    let auths = server.get("sys/auth").await?.success("listing auth methods")?;
    let auth = match entry(&auths, &spec.kubernetes_auth_mount).map(|mount| mount.get("type").and_then(Value::as_str)) {
        None => false,
        Some(Some("kubernetes")) => true,
        Some(kind) => return Err(foreign(&spec.kubernetes_auth_mount, kind.unwrap_or("unknown"))),
    };
    let mut configured = false;
    if auth {
        let config = server.get(&format!("auth/{}/config", spec.kubernetes_auth_mount)).await?;
        configured = config.status == 200 && config.text("/data/kubernetes_host") == Some(KUBERNETES_HOST);
        if config.status != 200 && config.status != 404 {
            return Err(config.failure("reading the auth method's configuration"));
        }
    }
    Ok(Found { audit, kv, auth, configured })
}

fn differences(found: &Found) -> Vec<Difference> {
    let missing = |there: bool, field: &str| {
        (!there).then(|| Difference { field: field.into(), wanted: json!(true), found: json!(false), replace: false })
    };
    [
        missing(found.audit, "/audit"),
        missing(found.kv, "/kv_mount"),
        missing(found.auth, "/kubernetes_auth_mount"),
        missing(found.configured, "/kubernetes_auth_mount/config"),
    ]
    .into_iter()
    .flatten()
    .collect()
}

#[async_trait]
impl StepKind for Configure {
    type Spec = ConfigureSpec;
    type Outputs = ConfigureOutputs;

    const NAME: &'static str = "vault.configure";
    const SUMMARY: &'static str = "Audit device before the first secret, KV version 2, Kubernetes auth method.";
    const EXPECTED: Duration = Duration::from_secs(5);

    async fn observe(
        &self,
        spec: &ConfigureSpec,
        record: &Record<ConfigureOutputs>,
        context: &Context,
    ) -> Result<Seen<ConfigureOutputs>, StepError> {
        if self.vaults.survey(&spec.place()).await?.initialized().next().is_none() {
            return Ok(Seen::Absent);
        }
        let Some(session) = self.session(spec, context).await? else {
            return Ok(Seen::Unknown {
                reason: "Vault is sealed, or neither its root token nor platflow's login works".into(),
            });
        };
        let found = look(&session, spec).await;
        session.close().await;
        let found = found?;
        if record.outputs.is_none() && found == Found::default() {
            return Ok(Seen::Absent);
        }
        Ok(Seen::Present { outputs: Self::outputs(spec), ownership: Ownership::Ours, differences: differences(&found) })
    }

    async fn apply(
        &self,
        spec: &ConfigureSpec,
        _seen: &Seen<ConfigureOutputs>,
        _record: &Record<ConfigureOutputs>,
        context: &Context,
    ) -> Result<Made<ConfigureOutputs>, StepError> {
        let Some(session) = self.session(spec, context).await? else {
            let reason = "no server leads yet, or neither root token nor login works".into();
            return Ok(Made::Waiting { reason, poll_in: POLL, budget: BUDGET });
        };
        let done = make(&session, spec, context).await;
        session.close().await;
        done.map(|()| Made::Done(Self::outputs(spec)))
    }

    async fn undo(
        &self,
        _spec: &ConfigureSpec,
        _record: &Record<ConfigureOutputs>,
        _context: &Context,
    ) -> Result<UndoProgress, StepError> {
        // A mount holds data and disabling it destroys that at once; what is inside Vault ends with its volumes.
        let evidence = "mounts, auth method and audit device live inside Vault's storage and end with its volumes";
        Ok(UndoProgress::Gone { evidence: evidence.into() })
    }
}

async fn make(session: &Session, spec: &ConfigureSpec, context: &Context) -> Result<(), StepError> {
    let found = look(session, spec).await?;
    // platflow's own login may look at all of this and change none of it: who changes auth methods is root.
    if !session.root
        && let Some(difference) = differences(&found).first()
    {
        return Err(StepError::needs_human(format!(
            "Vault's configuration differs at {}, and the root token that could repair it is revoked",
            difference.field
        ))
        .with_remedy(format!(
            "make a root token from the key shares (platflow secret show; vault operator generate-root), put back the \
             audit device ({}), the KV version 2 engine at {}/ and the Kubernetes auth method at {}/ with \
             kubernetes_host={KUBERNETES_HOST}, revoke it (vault token revoke -self), and resume",
            spec.audit, spec.kv_mount, spec.kubernetes_auth_mount
        ))
        .leaving(Residue::Present));
    }
    if !found.audit {
        audit(session, spec, context).await?;
    }
    if !found.kv {
        let call = context.begin("mount-kv")?;
        let client = session.server.client(call.timeout)?;
        let mut options = vaultrs::api::sys::requests::EnableEngineRequestBuilder::default();
        options.options(HashMap::from([("version".to_owned(), "2".to_owned())]));
        let made = vaultrs::sys::mount::enable(&client, &spec.kv_mount, "kv", Some(&mut options)).await;
        accept_in_use(made.map_err(|error| client_failure("mounting the KV engine", &error)))?;
    }
    if !found.auth {
        let call = context.begin("enable-kubernetes-auth")?;
        let client = session.server.client(call.timeout)?;
        let made = vaultrs::sys::auth::enable(&client, &spec.kubernetes_auth_mount, "kubernetes", None).await;
        accept_in_use(made.map_err(|error| client_failure("enabling Kubernetes auth", &error)))?;
    }
    if !found.configured {
        let call = context.begin("configure-kubernetes-auth")?;
        // Vault runs in a pod: it uses its own mounted CA and account to review tokens.
        let body = json!({ "kubernetes_host": KUBERNETES_HOST });
        let path = format!("auth/{}/config", spec.kubernetes_auth_mount);
        session.server.put(&path, &body, call.timeout).await?.success("configuring Kubernetes auth")?;
    }
    Ok(())
}

/// Another attempt of ours was faster: the next look compares what is there.
fn accept_in_use(made: Result<(), StepError>) -> Result<(), StepError> {
    match made {
        Err(error) if in_use(&error) => Ok(()),
        other => other,
    }
}

async fn audit(session: &Session, spec: &ConfigureSpec, context: &Context) -> Result<(), StepError> {
    let call = context.begin("enable-audit")?;
    let body = json!({ "type": "file", "options": { "file_path": spec.audit } });
    let reply = session.server.put("sys/audit/platflow", &body, call.timeout).await?;
    if reply.ok() || reply.errors().contains("already in use") {
        return Ok(());
    }
    let error = reply.failure("enabling the audit device");
    Err(match reply.status {
        // OpenBao takes audit devices from its configuration only.
        400 => error.with_remedy("declare the audit device in the servers' configuration, alike on all of them"),
        _ => error,
    })
}
