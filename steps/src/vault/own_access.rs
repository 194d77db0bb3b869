//! `vault.own_access`: who may log in from now on. platflow's own policy, role and service account, and those of the
//! workloads that read secrets; platflow's login proven; and only then the root token revoked. From here on nothing
//! platflow stores opens Vault but the key shares, and nothing it can log in with gives anybody more than they have.

use super::grants::{Grant, Reader, rule};
use super::objects::Manifest;
use super::place::placed;
use super::server::VaultServer;
use super::session::{LoginAs, ROOT_TOKEN, Session};
use super::{VaultPlace, Vaults, intent};
use crate::contract::{Made, Record, Seen, StepKind};
use crate::kubernetes::ClusterAccess;
use async_trait::async_trait;
use platflow_engine::context::Context;
use platflow_engine::failure::{ErrorClass, Residue, StepError};
use platflow_engine::step::{Difference, Ownership, UndoProgress};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::time::Duration;

const POLL: Duration = Duration::from_secs(1);
const BUDGET: Duration = Duration::from_secs(2 * 60);

/// Policy, role and service account of platflow itself, and the workloads that read secrets.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OwnAccessSpec {
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
    /// The service account that logs in.
    #[serde(default = "default_name")]
    pub service_account: String,
    /// The role it logs in with.
    #[serde(default = "default_name")]
    pub role: String,
    /// The policy of that role.
    #[serde(default = "default_name")]
    pub policy: String,
    /// Mount of the KV version 2 engine.
    #[serde(default = "default_kv")]
    pub kv_mount: String,
    /// Mount of the Kubernetes auth method.
    #[serde(default = "default_auth")]
    pub kubernetes_auth_mount: String,
    /// The workloads that may read the KV engine's secrets; a later change of the list needs a human with a root token.
    #[serde(default)]
    pub readers: Vec<Reader>,
}
placed!(OwnAccessSpec);

fn default_name() -> String {
    "platflow".into()
}

fn default_kv() -> String {
    "secret".into()
}

fn default_auth() -> String {
    "kubernetes".into()
}

/// Who may do what now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct OwnAccessOutputs {
    /// The role.
    pub role: String,
    /// Its policy.
    pub policy: String,
    /// The service account bound to it.
    pub service_account: String,
    /// Always true: the step is not done before.
    pub root_token_revoked: bool,
}

/// The kind.
#[derive(Debug, Clone)]
pub struct OwnAccess {
    vaults: Vaults,
}

/// What platflow itself may do: look at what it configured and at who may log in, and write and read its own canary
/// secrets. It may change no policy, role, auth method, mount or audit device: whoever writes policies is root.
fn own_rules(spec: &OwnAccessSpec, readers: &[Grant]) -> String {
    let (kv, auth) = (&spec.kv_mount, &spec.kubernetes_auth_mount);
    let mut rules = vec![
        rule("sys/storage/raft/configuration", &["read"]),
        rule("sys/mounts", &["read"]),
        rule("sys/auth", &["read"]),
        // Vault wants sudo for a look at the list; nothing below it is granted.
        rule("sys/audit", &["read", "sudo"]),
        rule(&format!("auth/{auth}/config"), &["read"]),
        rule(&format!("auth/{auth}/role/{}", spec.role), &["read"]),
        rule(&format!("sys/policies/acl/{}", spec.policy), &["read"]),
    ];
    for reader in readers {
        rules.push(rule(&reader.role_path(auth), &["read"]));
        rules.push(rule(&reader.policy_path(), &["read"]));
    }
    rules.push(rule(&format!("{kv}/data/platflow/*"), &["create", "read", "update", "delete"]));
    rules.push(rule(&format!("{kv}/metadata/platflow/*"), &["read", "list", "delete"]));
    rules.concat()
}

/// Everybody's grants, platflow's own last: when its login works, all of them are there.
fn grants(spec: &OwnAccessSpec) -> Result<Vec<Grant>, StepError> {
    let own = [spec.role.as_str(), spec.policy.as_str()];
    let mut grants: Vec<Grant> =
        spec.readers.iter().map(|reader| reader.grant(&spec.kv_mount, own)).collect::<Result<_, _>>()?;
    let rules = own_rules(spec, &grants);
    grants.push(Grant {
        place: String::new(),
        policy: spec.policy.clone(),
        rules,
        role: spec.role.clone(),
        service_account: spec.service_account.clone(),
        namespace: spec.namespace.clone(),
    });
    Ok(grants)
}

/// The way out when the root token is gone, as it should be: the commands, to be given by whoever holds the shares.
fn by_hand(spec: &OwnAccessSpec) -> Result<String, StepError> {
    let mut text = String::from(
        "make a root token from the key shares (platflow secret show; vault operator generate-root) and give, with it:\n",
    );
    for grant in grants(spec)? {
        text.push_str(&grant.by_hand(&spec.kubernetes_auth_mount));
    }
    text.push_str("then revoke it (vault token revoke -self), and resume");
    Ok(text)
}

impl OwnAccess {
    /// Over the way to clusters and the keystore.
    #[must_use]
    pub fn new(vaults: Vaults) -> Self {
        Self { vaults }
    }

    fn outputs(spec: &OwnAccessSpec) -> OwnAccessOutputs {
        OwnAccessOutputs {
            role: spec.role.clone(),
            policy: spec.policy.clone(),
            service_account: spec.service_account.clone(),
            root_token_revoked: true,
        }
    }

    async fn root_on_record(&self, context: &Context) -> Result<bool, StepError> {
        let found = self.vaults.keystore.get(&context.environment_uid, ROOT_TOKEN, None).await;
        found.map(|found| found.is_some()).map_err(|error| error.into_failure(Residue::Unknown))
    }

    /// A login as ourselves, if everything for it is in place.
    async fn own_session(
        &self,
        place: &VaultPlace,
        server: VaultServer,
        spec: &OwnAccessSpec,
    ) -> Result<Option<Session>, StepError> {
        match self.vaults.login(place, server, &login_as(spec)).await {
            Ok(session) => Ok(Some(session)),
            Err(error) if matches!(error.class, ErrorClass::Permanent | ErrorClass::Permission) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn account(spec: &OwnAccessSpec) -> Manifest {
        Manifest {
            kind: "ServiceAccount",
            plural: "serviceaccounts",
            api_version: "v1",
            namespace: Some(spec.namespace.clone()),
            name: spec.service_account.clone(),
            body: json!({ "automountServiceAccountToken": false }),
        }
    }

    /// Revokes the root token, proves it dead, and only then forgets it.
    async fn revoke_root(&self, place: &VaultPlace, context: &Context) -> Result<(), StepError> {
        if let Some(root) = self.vaults.root_session(place, &context.environment_uid).await? {
            let call = context.begin("revoke-root-token")?;
            let reply = root.server.put("auth/token/revoke-self", &json!({}), call.timeout).await?;
            reply.success("revoking the root token")?;
            let after = root.server.get("auth/token/lookup-self").await?;
            if after.status != 403 {
                return Err(
                    StepError::transient("the root token still answers after its revocation").leaving(Residue::Present)
                );
            }
        }
        let client = self.vaults.reach.client(&place.cluster)?;
        let intent = intent::read(&client, &place.namespace, &place.name, context).await?;
        let second = intent.and_then(|intent| intent.second);
        for folder in [second.as_deref(), None] {
            let removed = self.vaults.keystore.remove(&context.environment_uid, ROOT_TOKEN, folder).await;
            removed.map_err(|error| error.into_failure(Residue::Present))?;
        }
        Ok(())
    }
}

/// Policy and role are as declared, or cannot be written: what is wrong with the login lies elsewhere, or just there.
fn refused(granted: bool, by_hand: String) -> StepError {
    let (why, remedy) = if granted {
        (
            "platflow's login to Vault is refused, though policy and role were written now",
            "see in Vault's log why: it must reach the API server to review tokens, with the role system:auth-delegator, \
             and the clocks must agree; then resume the run"
                .to_owned(),
        )
    } else {
        ("platflow's login to Vault is refused, and no valid root token is on record", by_hand)
    };
    StepError::needs_human(why).with_remedy(remedy).leaving(Residue::Present)
}

fn login_as(spec: &OwnAccessSpec) -> LoginAs {
    LoginAs {
        service_account: spec.service_account.clone(),
        role: spec.role.clone(),
        mount: spec.kubernetes_auth_mount.clone(),
    }
}

/// Differences that our own, limited token can see.
async fn differences(session: &Session, spec: &OwnAccessSpec) -> Result<Vec<Difference>, StepError> {
    let mut found = Vec::new();
    for grant in grants(spec)? {
        match grant.differences(session, &spec.kubernetes_auth_mount).await {
            Ok(more) => found.extend(more),
            // A reader that our policy does not know yet: the policy differs too, and is the root of it.
            Err(error) if error.class == ErrorClass::Permission => {
                found.push(difference(&grant.place, json!("as declared"), json!("not for us to see")));
            }
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

fn difference(field: &str, wanted: Value, found: Value) -> Difference {
    Difference { field: field.into(), wanted, found, replace: false }
}

#[async_trait]
impl StepKind for OwnAccess {
    type Spec = OwnAccessSpec;
    type Outputs = OwnAccessOutputs;

    const NAME: &'static str = "vault.own_access";
    const SUMMARY: &'static str = "Least-privilege policies and roles for the workloads that read secrets and for platflow itself, its login proven, and then the root token revoked.";
    const EXPECTED: Duration = Duration::from_secs(5);

    async fn observe(
        &self,
        spec: &OwnAccessSpec,
        record: &Record<OwnAccessOutputs>,
        context: &Context,
    ) -> Result<Seen<OwnAccessOutputs>, StepError> {
        let place = spec.place();
        if self.vaults.survey(&place).await?.initialized().next().is_none() {
            return Ok(Seen::Absent);
        }
        let root = self.root_on_record(context).await?;
        let Some(server) = self.vaults.active(&place).await? else {
            return Ok(Seen::Unknown { reason: "no Vault server leads".into() });
        };
        let Some(session) = self.own_session(&place, server, spec).await? else {
            let outputs = record.outputs.clone();
            return Ok(match outputs {
                Some(outputs) => {
                    let differences = vec![difference("/login", json!("works"), json!("refused"))];
                    Seen::Present { outputs, ownership: Ownership::Ours, differences }
                }
                None => Seen::Absent,
            });
        };
        let found = differences(&session, spec).await;
        session.close().await;
        let mut differences = found?;
        if root {
            differences.push(difference("/root_token_revoked", json!(true), json!(false)));
        }
        Ok(Seen::Present { outputs: Self::outputs(spec), ownership: Ownership::Ours, differences })
    }

    async fn apply(
        &self,
        spec: &OwnAccessSpec,
        _seen: &Seen<OwnAccessOutputs>,
        _record: &Record<OwnAccessOutputs>,
        context: &Context,
    ) -> Result<Made<OwnAccessOutputs>, StepError> {
        let place = spec.place();
        let Some(server) = self.vaults.active(&place).await? else {
            return Ok(Made::Waiting { reason: "no Vault server leads".into(), poll_in: POLL, budget: BUDGET });
        };
        let client = self.vaults.reach.client(&place.cluster)?;
        Self::account(spec).apply(&client, &spec.name, context).await?;
        let root = self.vaults.root_session(&place, &context.environment_uid).await?;
        match &root {
            Some(root) => {
                for grant in grants(spec)? {
                    grant.write(root, &spec.kubernetes_auth_mount, context).await?;
                }
            }
            None => tracing::debug!("no valid root token on record; the login alone decides"),
        }
        let Some(session) = self.own_session(&place, server, spec).await? else {
            return Err(refused(root.is_some(), by_hand(spec)?));
        };
        let found = differences(&session, spec).await;
        session.close().await;
        if let Some(difference) = found?.first() {
            return Err(StepError::needs_human(format!(
                "access to Vault differs at {} and no valid root token is on record to repair it",
                difference.field
            ))
            .with_remedy(by_hand(spec)?)
            .leaving(Residue::Present));
        }
        self.revoke_root(&place, context).await?;
        Ok(Made::Done(Self::outputs(spec)))
    }

    async fn undo(
        &self,
        spec: &OwnAccessSpec,
        _record: &Record<OwnAccessOutputs>,
        context: &Context,
    ) -> Result<UndoProgress, StepError> {
        let client = self.vaults.reach.client(&spec.cluster)?;
        if !Self::account(spec).delete(&client, context).await? {
            let reason = format!("service account {} is being deleted", spec.service_account);
            return Ok(UndoProgress::Waiting { reason, poll_in: POLL, budget: BUDGET });
        }
        let evidence =
            "the service account is gone, so nobody can log in with the role; policy and role end with the volumes";
        Ok(UndoProgress::Gone { evidence: evidence.into() })
    }
}
