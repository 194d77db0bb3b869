//! `vault.unseal`: every server unsealed and joined, and all of them voting. Run again after a restart, it heals.

use super::place::placed;
use super::server::VaultServer;
use super::session::{self, LoginAs};
use super::survey::{SealStatus, Survey};
use super::{VaultPlace, Vaults, intent};
use crate::contract::{Made, Record, Seen, StepKind};
use crate::kubernetes::ClusterAccess;
use async_trait::async_trait;
use platflow_engine::context::Context;
use platflow_engine::failure::{Residue, StepError};
use platflow_engine::step::{Difference, Ownership, UndoProgress};
use schemars::JsonSchema;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::path::Path;
use std::time::Duration;

const POLL: Duration = Duration::from_secs(2);
const BUDGET: Duration = Duration::from_secs(5 * 60);

/// Unseals every server and joins it to the first.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct UnsealSpec {
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
    /// How many shares unseal.
    #[schemars(range(min = 1, max = 255))]
    pub threshold: u8,
    /// A folder with the second copy of the keys; the configured one if not given.
    #[serde(default)]
    pub second_store: Option<std::path::PathBuf>,
}
placed!(UnsealSpec);

/// Who leads and how many vote.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct UnsealOutputs {
    /// The pod that leads.
    pub leader: String,
    /// Voting members.
    pub voters: usize,
}

/// The kind.
#[derive(Debug, Clone)]
pub struct Unseal {
    vaults: Vaults,
}

impl Unseal {
    /// Over the way to clusters and the keystore.
    #[must_use]
    pub fn new(vaults: Vaults) -> Self {
        Self { vaults }
    }

    async fn outputs(
        &self,
        place: &VaultPlace,
        survey: &Survey,
        context: &Context,
    ) -> Result<Option<UnsealOutputs>, StepError> {
        let Some(leader) = session::leader(&self.vaults, place, survey).await? else { return Ok(None) };
        let found = self.vaults.session(place, &context.environment_uid, &LoginAs::default()).await?;
        let Some(session) = found else { return Ok(None) };
        let voters = self.vaults.voters(&session).await;
        session.close().await;
        Ok(Some(UnsealOutputs { leader, voters: voters? }))
    }
}

fn differences(survey: &Survey) -> Vec<Difference> {
    let off = |status: &SealStatus| match (status.initialized, status.sealed) {
        (false, _) => Some("not joined"),
        (true, true) => Some("sealed"),
        (true, false) => None,
    };
    let differs = |status: &SealStatus| {
        let found = off(status)?;
        let field = format!("/pods/{}", status.pod);
        Some(Difference { field, wanted: json!("unsealed"), found: json!(found), replace: false })
    };
    survey.statuses().filter_map(differs).collect()
}

#[async_trait]
impl StepKind for Unseal {
    type Spec = UnsealSpec;
    type Outputs = UnsealOutputs;

    const NAME: &'static str = "vault.unseal";
    const SUMMARY: &'static str = "Every Vault server unsealed, joined to the leader, and voting.";
    const EXPECTED: Duration = Duration::from_secs(30);

    async fn observe(
        &self,
        spec: &UnsealSpec,
        record: &Record<UnsealOutputs>,
        context: &Context,
    ) -> Result<Seen<UnsealOutputs>, StepError> {
        let place = spec.place();
        let survey = self.vaults.survey(&place).await?;
        if survey.all_missing() {
            return Ok(Seen::Absent);
        }
        if let Some(reason) = survey.unanswered() {
            return Ok(Seen::Changing { reason, poll_in: POLL });
        }
        let differences = differences(&survey);
        if !differences.is_empty() {
            return Ok(match &record.outputs {
                Some(outputs) => Seen::Present { outputs: outputs.clone(), ownership: Ownership::Ours, differences },
                None => Seen::Absent,
            });
        }
        Ok(match self.outputs(&place, &survey, context).await? {
            Some(outputs) if outputs.voters < place.pods.len() => Seen::Changing {
                reason: format!(
                    "{} of {} servers vote; a new one is observed for 10 s first",
                    outputs.voters,
                    place.pods.len()
                ),
                poll_in: POLL,
            },
            Some(outputs) => Seen::Present { outputs, ownership: Ownership::Ours, differences },
            None => {
                Seen::Unknown { reason: "no leader serves yet, or no token can be had to ask it for its voters".into() }
            }
        })
    }

    async fn apply(
        &self,
        spec: &UnsealSpec,
        _seen: &Seen<UnsealOutputs>,
        _record: &Record<UnsealOutputs>,
        context: &Context,
    ) -> Result<Made<UnsealOutputs>, StepError> {
        let place = spec.place();
        let survey = self.vaults.survey(&place).await?;
        if let Some(reason) = survey.unanswered() {
            return Ok(waiting(reason));
        }
        // Those that hold data first: after a restart of all of them a quorum must be unsealed before any leads.
        let mut opened = false;
        for status in survey.initialized().filter(|status| status.sealed) {
            let server = VaultServer::open(&self.vaults.reach, &place, &status.pod).await?;
            open_one(&self.vaults, &server, spec.threshold, spec.second_store.as_deref(), context).await?;
            opened = true;
        }
        let survey = if opened { self.vaults.survey(&place).await? } else { survey };
        let Some(leader) = session::leader(&self.vaults, &place, &survey).await? else {
            return Ok(waiting("no server leads yet".into()));
        };
        for status in survey.statuses().filter(|status| !status.initialized) {
            let server = VaultServer::open(&self.vaults.reach, &place, &status.pod).await?;
            if let Some(reason) = join(&server, &place, &leader, context).await? {
                return Ok(waiting(reason));
            }
            open_one(&self.vaults, &server, spec.threshold, spec.second_store.as_deref(), context).await?;
        }
        let survey = self.vaults.survey(&place).await?;
        if let Some(difference) = differences(&survey).first() {
            return Ok(waiting(format!("{} is {}", difference.field, difference.found)));
        }
        match self.outputs(&place, &survey, context).await? {
            Some(outputs) if outputs.voters >= place.pods.len() => Ok(Made::Done(outputs)),
            Some(outputs) => Ok(waiting(format!("{} of {} servers vote", outputs.voters, place.pods.len()))),
            None => Ok(waiting("no token can be had to ask for the voters".into())),
        }
    }

    async fn undo(
        &self,
        spec: &UnsealSpec,
        _record: &Record<UnsealOutputs>,
        _context: &Context,
    ) -> Result<UndoProgress, StepError> {
        let survey = self.vaults.survey(&spec.place()).await?;
        let unsealed = survey.statuses().filter(|status| !status.sealed).count();
        let evidence =
            format!("{unsealed} servers are unsealed; that ends with their processes, and leaves nothing behind");
        Ok(UndoProgress::Gone { evidence })
    }
}

fn waiting(reason: String) -> Made<UnsealOutputs> {
    Made::Waiting { reason, poll_in: POLL, budget: BUDGET }
}

/// Joins one server. A reason when it has to be tried again.
async fn join(
    server: &VaultServer,
    place: &VaultPlace,
    leader: &str,
    context: &Context,
) -> Result<Option<String>, StepError> {
    let call = context.begin(&format!("join-{}", server.pod()))?;
    let body = json!({ "leader_api_addr": place.api_address(leader), "leader_ca_cert": place.ca_certificate });
    let reply = server.put("sys/storage/raft/join", &body, call.timeout).await?;
    match reply.status {
        // "failed to get raft challenge": the leader is not ready for it.
        500 => Ok(Some(format!("{} cannot join yet: {}", server.pod(), reply.errors()))),
        _ => reply.success("joining").map(|_| None),
    }
}

/// The shares on record, in order.
async fn shares(vaults: &Vaults, second: Option<&Path>, context: &Context) -> Result<Vec<SecretString>, StepError> {
    let failed = |error: crate::sealing::KeystoreError| error.into_failure(Residue::None);
    let environment = &context.environment_uid;
    let names = vaults.keystore.list(environment, second).await.map_err(failed)?;
    let mut found = Vec::new();
    for number in 1..=usize::from(u8::MAX) {
        let name = intent::share_name(number);
        if !names.contains(&name) {
            continue;
        }
        if let Some(share) = vaults.keystore.get(environment, &name, second).await.map_err(failed)? {
            found.push(share);
        }
    }
    Ok(found)
}

/// Unseals one server. One bad share spoils a round and the reply does not say which: then another set is tried.
pub(super) async fn open_one(
    vaults: &Vaults,
    server: &VaultServer,
    threshold: u8,
    second: Option<&Path>,
    context: &Context,
) -> Result<(), StepError> {
    let shares = shares(vaults, second, context).await?;
    let threshold = usize::from(threshold);
    if shares.len() < threshold {
        return Err(StepError::needs_human(format!("{} key shares are on record, {threshold} unseal", shares.len()))
            .with_remedy("restore the key records from the second place, then resume the run")
            .leaving(Residue::None));
    }
    for set in sets(shares.len(), threshold) {
        let status = vaults.seal_status(server).await?;
        if !status.sealed {
            return Ok(());
        }
        if status.progress > 0 {
            // Somebody else's, or an earlier owner's, unfinished round.
            give(server, &json!({ "reset": true }), context).await?.success("resetting an unseal round")?;
        }
        if round(server, &shares, &set, context).await? {
            return Ok(());
        }
        tracing::warn!(pod = server.pod(), "a set of key shares did not unseal; trying another");
    }
    Err(StepError::needs_human(format!(
        "no {threshold} of the {} key shares on record unseal {}",
        shares.len(),
        server.pod()
    ))
    .with_remedy("the shares are of another Vault, or damaged: restore the right ones")
    .leaving(Residue::None))
}

/// One round. False when its shares were refused together.
async fn round(
    server: &VaultServer,
    shares: &[SecretString],
    set: &[usize],
    context: &Context,
) -> Result<bool, StepError> {
    for share in set.iter().filter_map(|index| shares.get(*index)) {
        let reply = give(server, &json!({ "key": share.expose_secret() }), context).await?;
        if reply.status == 400 && !reply.errors().contains("not initialized") {
            return Ok(false);
        }
        let reply = reply.success("unsealing")?;
        if reply.body.get("sealed").and_then(serde_json::Value::as_bool) == Some(false) {
            return Ok(true);
        }
    }
    // A joiner says "sealed" to its last share and opens a second later.
    Ok(true)
}

async fn give(
    server: &VaultServer,
    body: &serde_json::Value,
    context: &Context,
) -> Result<super::server::Reply, StepError> {
    let call = context.begin(&format!("unseal-{}", server.pod()))?;
    server.put("sys/unseal", body, call.timeout).await
}

/// Every choice of `size` out of `count`, the first ones first.
fn sets(count: usize, size: usize) -> Vec<Vec<usize>> {
    fn extend(from: usize, count: usize, size: usize, chosen: &mut Vec<usize>, found: &mut Vec<Vec<usize>>) {
        const ENOUGH: usize = 64;
        if chosen.len() == size {
            found.push(chosen.clone());
            return;
        }
        for next in from..count {
            if found.len() >= ENOUGH {
                return;
            }
            chosen.push(next);
            extend(next + 1, count, size, chosen, found);
            chosen.pop();
        }
    }
    let mut found = Vec::new();
    extend(0, count, size, &mut Vec::new(), &mut found);
    found
}

#[cfg(test)]
mod tests {
    use super::sets;

    /// Proves that every choice of 3 out of 5 is tried once, so that any one or two bad shares are got around.
    #[test]
    fn every_set_of_shares_is_tried() {
        let all = sets(5, 3);
        assert_eq!(all.len(), 10);
        for bad in 0..5 {
            for other in 0..5 {
                assert!(all.iter().any(|set| !set.contains(&bad) && !set.contains(&other)), "{bad} {other}");
            }
        }
        assert_eq!(sets(1, 1), vec![vec![0]]);
    }
}
