//! `vault.init`: exactly once, or not at all.
//!
//! Before the call: every server says it is uninitialised, no key record exists anywhere, both key stores were proven,
//! the cluster-wide intent is ours, and the claims' uids are journaled. After it: the reply is sealed, in both places,
//! read back and opened, before the step says it is done. A reply that was lost leaves servers that nobody has the
//! keys of: only storage that this very run found uninitialised, by uid, is wiped and initialised again.

use super::place::placed;
use super::survey::Survey;
use super::{VaultPlace, VaultServer, Vaults, intent, session, storage, unseal};
use crate::contract::{Made, Record, Seen, StepKind};
use crate::kubernetes::ClusterAccess;
use crate::sealing::KeystoreError;
use async_trait::async_trait;
use platflow_engine::context::Context;
use platflow_engine::failure::{ErrorClass, Residue, StepError};
use platflow_engine::step::{Difference, Ownership, UndoProgress};
use schemars::JsonSchema;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;
use zeroize::Zeroizing;

const POLL: Duration = Duration::from_secs(2);
const BUDGET: Duration = Duration::from_secs(10 * 60);
/// The note that names the claims found uninitialised.
const VIRGIN: &str = "virgin-claims";

/// Initialises the servers, once.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct InitSpec {
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
    /// How many key shares.
    #[serde(default = "default_shares")]
    #[schemars(range(min = 1, max = 255))]
    pub shares: u8,
    /// How many of them unseal.
    #[serde(default = "default_threshold")]
    #[schemars(range(min = 1, max = 255))]
    pub threshold: u8,
    /// A folder for the second copy of the keys; the configured one if not given.
    #[serde(default)]
    pub second_store: Option<PathBuf>,
}
placed!(InitSpec);

fn default_shares() -> u8 {
    5
}

fn default_threshold() -> u8 {
    3
}

/// Whose keys are kept where.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct InitOutputs {
    /// Id of the Vault cluster.
    pub cluster_id: String,
    /// Its name.
    pub cluster_name: String,
    /// How many key shares exist.
    pub shares: u8,
    /// How many of them unseal.
    pub threshold: u8,
    /// Names of the sealed shares.
    pub secret_names: Vec<String>,
}

/// The reply of init, borrowed from the text that wipes itself.
#[derive(Deserialize)]
struct InitReply<'text> {
    #[serde(borrow)]
    keys: Vec<&'text str>,
    root_token: &'text str,
}

/// The kind.
#[derive(Debug, Clone)]
pub struct Init {
    vaults: Vaults,
}

/// What the key stores hold.
enum Keys {
    None,
    /// The raw reply, not all shares yet.
    Reply,
    /// Every share.
    Shares,
}

impl Init {
    /// Over the way to clusters and the keystore.
    #[must_use]
    pub fn new(vaults: Vaults) -> Self {
        Self { vaults }
    }

    async fn keys(&self, spec: &InitSpec, context: &Context) -> Result<Keys, StepError> {
        let names = self
            .vaults
            .keystore
            .list(&context.environment_uid, spec.second_store.as_deref())
            .await
            .map_err(|error| error.into_failure(Residue::Unknown))?;
        let held = |name: &str| names.contains(name);
        let shares = secret_names(spec).iter().filter(|name| held(name)).count();
        Ok(if held(intent::INIT_REPLY) {
            Keys::Reply
        } else if shares >= usize::from(spec.threshold) {
            Keys::Shares
        } else {
            let any: BTreeSet<&String> = names.iter().filter(|name| intent::is_key_record(name)).collect();
            if any.is_empty() { Keys::None } else { return Err(torn(&any)) }
        })
    }

    fn outputs(spec: &InitSpec, identity: (String, String)) -> InitOutputs {
        let (cluster_id, cluster_name) = identity;
        let secret_names = secret_names(spec);
        InitOutputs { cluster_id, cluster_name, shares: spec.shares, threshold: spec.threshold, secret_names }
    }
}

fn secret_names(spec: &InitSpec) -> Vec<String> {
    (1..=usize::from(spec.shares)).map(intent::share_name).collect()
}

fn torn(names: &BTreeSet<&String>) -> StepError {
    let names = names.iter().map(|name| name.as_str()).collect::<Vec<_>>().join(", ");
    StepError::needs_human(format!("only some of Vault's keys are on record: {names}"))
        .with_remedy("restore the state file or the second place from a backup, then resume the run")
}

#[async_trait]
impl StepKind for Init {
    type Spec = InitSpec;
    type Outputs = InitOutputs;

    const NAME: &'static str = "vault.init";
    const SUMMARY: &'static str =
        "Initialises Vault exactly once; shares and root token are kept sealed, twice, before anything goes on.";
    const EXPECTED: Duration = Duration::from_secs(15);
    const HOLDS_DATA: bool = true;

    async fn observe(
        &self,
        spec: &InitSpec,
        record: &Record<InitOutputs>,
        context: &Context,
    ) -> Result<Seen<InitOutputs>, StepError> {
        let survey = self.vaults.survey(&spec.place()).await?;
        if survey.all_missing() {
            return Ok(Seen::Absent);
        }
        if survey.initialized().next().is_none() {
            return Ok(match survey.unanswered() {
                Some(reason) => Seen::Changing { reason, poll_in: POLL },
                None => Seen::Absent,
            });
        }
        if !matches!(self.keys(spec, context).await?, Keys::Shares) {
            // Without its keys it is as good as not initialised: apply decides what may be done about it.
            return Ok(Seen::Absent);
        }
        let known = record.outputs.as_ref().map(|outputs| (outputs.cluster_id.clone(), outputs.cluster_name.clone()));
        let identity = survey.identity().or_else(|| known.clone());
        let mut differences = Vec::new();
        if let (Some((found, _)), Some((wanted, _))) = (&identity, &known)
            && found != wanted
        {
            let owner = format!("Vault cluster {found}, where {wanted} is on record");
            let outputs = Self::outputs(spec, identity.unwrap_or_default());
            return Ok(Seen::Present { outputs, ownership: Ownership::Foreign(owner), differences });
        }
        if identity.is_none() {
            differences.push(Difference {
                field: "/cluster_id".into(),
                wanted: json!("known"),
                found: json!("sealed since its init"),
                replace: false,
            });
        }
        let outputs = Self::outputs(spec, identity.unwrap_or_default());
        Ok(Seen::Present { outputs, ownership: Ownership::Ours, differences })
    }

    async fn apply(
        &self,
        spec: &InitSpec,
        _seen: &Seen<InitOutputs>,
        record: &Record<InitOutputs>,
        context: &Context,
    ) -> Result<Made<InitOutputs>, StepError> {
        let place = spec.place();
        let survey = self.vaults.survey(&place).await?;
        let initialized: Vec<String> = survey.initialized().map(|status| status.pod.clone()).collect();
        match (self.keys(spec, context).await?, initialized.is_empty()) {
            (Keys::Shares, false) => self.finish(spec, &survey, context).await,
            (Keys::Reply, false) => {
                self.keep_shares(spec, context).await?;
                self.finish(spec, &survey, context).await
            }
            (Keys::Reply | Keys::Shares, true) => match survey.unanswered() {
                Some(reason) => Ok(waiting(reason)),
                None => Err(StepError::needs_human(
                    "keys of an earlier init are on record, but every server says it is uninitialised: its storage was lost",
                )
                .with_remedy("restore the volumes; or, if the data may go, destroy the environment's Vault first")
                .leaving(Residue::Present)),
            },
            (Keys::None, false) => self.wipe_if_virgin(spec, &survey, record, context, "its keys are on no record").await,
            (Keys::None, true) => match survey.unanswered() {
                Some(reason) => Ok(waiting(reason)),
                None => self.initialise(spec, &place, &survey, record, context).await,
            },
        }
    }

    async fn undo(
        &self,
        spec: &InitSpec,
        _record: &Record<InitOutputs>,
        context: &Context,
    ) -> Result<UndoProgress, StepError> {
        let place = spec.place();
        let client = self.vaults.reach.client(&place.cluster)?;
        let claims = storage::claims(&client, &place.namespace, &place.pods, context).await?;
        if claims.ours.is_empty() {
            intent::forget(&self.vaults, &client, &place.namespace, &place.name, context).await?;
            return Ok(UndoProgress::Gone {
                evidence: "no claim of these servers exists; keys and intent forgotten".into(),
            });
        }
        // Storage cannot be uninitialised, and its keys never go before it does: both end with the volumes.
        let evidence = "the claims of these servers exist: intent and keys stay until their volumes are proven gone";
        Ok(UndoProgress::Gone { evidence: evidence.into() })
    }
}

fn waiting(reason: String) -> Made<InitOutputs> {
    Made::Waiting { reason, poll_in: POLL, budget: BUDGET }
}

impl Init {
    /// The call itself, with everything before and after it.
    async fn initialise(
        &self,
        spec: &InitSpec,
        place: &VaultPlace,
        survey: &Survey,
        record: &Record<InitOutputs>,
        context: &Context,
    ) -> Result<Made<InitOutputs>, StepError> {
        if record.outputs.is_some() {
            return Err(StepError::needs_human(
                "this Vault was initialised before, and now neither its data nor its keys are there",
            )
            .leaving(Residue::None));
        }
        let kept = |error: KeystoreError| error.into_failure(Residue::None);
        self.vaults.keystore.probe(&context.environment_uid, spec.second_store.as_deref()).await.map_err(kept)?;
        let client = self.vaults.reach.client(&place.cluster)?;
        let claims = storage::claims(&client, &place.namespace, &place.pods, context).await?;
        if claims.ours.len() != place.pods.len() {
            return Err(StepError::needs_human("not every server runs on a volume that this environment made")
                .with_remedy("look at the persistent volume claims of the servers and at their labels")
                .leaving(Residue::None));
        }
        let second = spec.second_store.as_deref();
        let intended = intent::Kept { claims: &claims.ours, second, done: false };
        intent::write(&client, &place.namespace, &place.name, &intended, context).await?;
        context.note(VIRGIN, json!({ "run": context.run.as_str(), "claims": claims.ours })).await?;

        let Some(first) = place.pods.first() else {
            return Err(StepError::permanent("no pod is named").leaving(Residue::None));
        };
        let server = VaultServer::open(&self.vaults.reach, place, first).await?;
        let call = context.begin("init")?;
        let body = json!({ "secret_shares": spec.shares, "secret_threshold": spec.threshold });
        let (status, reply) = server.raw(reqwest::Method::POST, "sys/init", Some(&body), call.timeout).await?;
        match status {
            200 => {}
            400 => return self.init_refused(spec, survey, record, context, &reply).await,
            _ => return Err(StepError::transient(format!("{first} answered init with status {status}"))),
        }
        let text = std::str::from_utf8(&reply).map_err(|_| StepError::needs_human("the reply of init is not text"))?;
        let sealed = SecretString::from(text.to_owned());
        self.keep(spec, context, intent::INIT_REPLY, &sealed).await?;
        self.keep_shares(spec, context).await?;
        let kept = intent::Kept { done: true, ..intended };
        intent::write(&client, &place.namespace, &place.name, &kept, context).await?;
        self.finish(spec, &self.vaults.survey(place).await?, context).await
    }

    /// Keeps a secret in both places. While it fails the process still holds the only copy: it tries for a while
    /// before it gives up what cannot be made again.
    async fn keep(
        &self,
        spec: &InitSpec,
        context: &Context,
        name: &str,
        secret: &SecretString,
    ) -> Result<(), StepError> {
        const TRIES: u32 = 20;
        let second = spec.second_store.as_deref();
        let mut tries = 0;
        loop {
            tries += 1;
            match self.vaults.keystore.put_twice(&context.environment_uid, name, secret, second).await {
                Ok(()) => return Ok(()),
                Err(error) if tries < TRIES => {
                    tracing::warn!(%error, name, tries, "keeping a key of Vault failed; trying again");
                    let next = platflow_engine::clock::after(context.now(), Duration::from_millis(500));
                    context.clock.sleep_until(next).await;
                }
                Err(error) => return Err(error.into_failure(Residue::Present)),
            }
        }
    }

    /// Gives every share and the root token a record of its own, then forgets the raw reply.
    async fn keep_shares(&self, spec: &InitSpec, context: &Context) -> Result<(), StepError> {
        let second = spec.second_store.as_deref();
        let failed = |error: KeystoreError| error.into_failure(Residue::Present);
        let keystore = &self.vaults.keystore;
        let environment = &context.environment_uid;
        let Some(reply) = keystore.get(environment, intent::INIT_REPLY, second).await.map_err(failed)? else {
            return Ok(());
        };
        let parsed: InitReply<'_> = serde_json::from_str(reply.expose_secret()).map_err(|_| {
            // Never the parser's own words: they could quote a share.
            StepError::needs_human("the sealed reply of init does not have the members keys and root_token")
                .leaving(Residue::Present)
        })?;
        self.keep(spec, context, session::ROOT_TOKEN, &SecretString::from(parsed.root_token)).await?;
        for (index, share) in parsed.keys.iter().enumerate() {
            self.keep(spec, context, &intent::share_name(index + 1), &SecretString::from(*share)).await?;
        }
        keystore.remove(environment, intent::INIT_REPLY, second).await.map_err(failed)
    }

    /// A server tells who it is only unsealed: opens the one that was initialised.
    async fn finish(
        &self,
        spec: &InitSpec,
        survey: &Survey,
        context: &Context,
    ) -> Result<Made<InitOutputs>, StepError> {
        if let Some(identity) = survey.identity() {
            return Ok(Made::Done(Self::outputs(spec, identity)));
        }
        let place = spec.place();
        let Some(first) = survey.initialized().next() else {
            return Ok(waiting(survey.unanswered().unwrap_or_else(|| "no server is initialised".into())));
        };
        let server = VaultServer::open(&self.vaults.reach, &place, &first.pod).await?;
        unseal::open_one(&self.vaults, &server, spec.threshold, spec.second_store.as_deref(), context).await?;
        let again = self.vaults.survey(&place).await?;
        match again.identity() {
            Some(identity) => Ok(Made::Done(Self::outputs(spec, identity))),
            None => Ok(waiting(format!("{} does not say yet which cluster it is", first.pod))),
        }
    }

    /// 400: somebody was faster, or the storage is half made. The claims' uids decide what may be done.
    async fn init_refused(
        &self,
        spec: &InitSpec,
        survey: &Survey,
        record: &Record<InitOutputs>,
        context: &Context,
        reply: &Zeroizing<Vec<u8>>,
    ) -> Result<Made<InitOutputs>, StepError> {
        let text = String::from_utf8_lossy(reply).into_owned();
        if text.contains("already has state") {
            if noted_claims(record, context).is_empty() {
                // What this attempt noted is on record from the next one on: only then may it decide about a volume.
                return Err(StepError::transient("the first server was interrupted half-way through an earlier init")
                    .leaving(Residue::Present));
            }
            return self.wipe_if_virgin(spec, survey, record, context, "its first init was interrupted half-way").await;
        }
        if text.contains("already initialized") {
            return Err(StepError::transient("another call initialised it in between").leaving(Residue::Present));
        }
        Err(StepError::permanent("the parameters of init were refused").with_code("400").leaving(Residue::None))
    }

    /// Wipes the first server's volume if this very run found exactly it uninitialised and nothing can have been
    /// stored since; refuses with the evidence otherwise.
    async fn wipe_if_virgin(
        &self,
        spec: &InitSpec,
        survey: &Survey,
        record: &Record<InitOutputs>,
        context: &Context,
        why: &str,
    ) -> Result<Made<InitOutputs>, StepError> {
        let place = spec.place();
        let client = self.vaults.reach.client(&place.cluster)?;
        let claims = storage::claims(&client, &place.namespace, &place.pods, context).await?;
        let found = intent::read(&client, &place.namespace, &place.name, context).await?;
        let noted = noted_claims(record, context);
        let first = place.pods.first().cloned().unwrap_or_default();
        let uid = claims.ours.get(&first).cloned();
        let others = survey.initialized().any(|status| status.pod != first);
        let unsealed = survey.initialized().any(|status| !status.sealed);
        let intent_fits = found.as_ref().is_some_and(|intent| {
            intent.owner == Ownership::Ours
                && intent.run == context.run.as_str()
                && intent.generation == context.generation.to_string()
                && !intent.done
                && uid.is_some()
                && intent.claims.get(&first) == uid.as_ref()
        });
        let doubts: Vec<&str> = [
            (record.outputs.is_some(), "it was once initialised by this environment"),
            (others, "another server than the first is initialised"),
            (unsealed, "it is unsealed, so somebody has its keys"),
            (!intent_fits, "the init intent in the cluster is not this run's, or names another volume"),
            (uid.is_none() || noted.get(&first) != uid.as_ref(), "this run did not find this volume uninitialised"),
        ]
        .into_iter()
        .filter_map(|(doubt, text)| doubt.then_some(text))
        .collect();
        let (Some(uid), true) = (uid, doubts.is_empty()) else {
            return Err(StepError::new(
                ErrorClass::NeedsHuman,
                format!(
                    "Vault in {} is initialised but {why}, and it is not wiped: {}",
                    place.namespace,
                    doubts.join("; ")
                ),
            )
            .with_code("LostKeys")
            .with_remedy(
                "restore the key records from a backup; or, if its data may go, destroy this Vault with its volumes",
            )
            .leaving(Residue::Present));
        };
        context.note("wiped", json!({ "claim": uid, "why": why })).await?;
        storage::delete_claim(&client, &place.namespace, &first, &uid, context).await?;
        storage::delete_pod(&client, &place.namespace, &first, context).await?;
        Ok(waiting(format!("{first} gets new storage: {why}, and the old held nothing")))
    }
}

/// The claims this run noted as uninitialised before it called init.
fn noted_claims(record: &Record<InitOutputs>, context: &Context) -> BTreeMap<String, String> {
    let Some(note) = record.notes.get(VIRGIN) else { return BTreeMap::new() };
    if note.get("run").and_then(serde_json::Value::as_str) != Some(context.run.as_str()) {
        return BTreeMap::new();
    }
    note.get("claims").and_then(|claims| serde_json::from_value(claims.clone()).ok()).unwrap_or_default()
}
