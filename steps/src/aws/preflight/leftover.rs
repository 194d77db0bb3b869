//! What earlier runs left in the account: of this environment under another uid, of ours and not on record, of controllers
//! of a cluster that is gone, and providers of issuers that are dead.

use super::super::ec2::{filter, sdk_filters};
use super::super::failure::look;
use super::super::ownership::UID;
use super::super::signed::{Members, Service};
use super::super::survey::AccountSurvey;
use super::super::volumes::cluster_volumes;
use super::super::{eks_cluster, oidc_provider};
use super::{Looked, account::Account};
use crate::preflight::{Check, Family};
use platflow_engine::event::Notes;
use platflow_engine::failure::StepError;
use platflow_engine::name::{EnvironmentName, EnvironmentUid, KindName, RunId, StepName};
use platflow_engine::survey::{Scope, ScopedStep, Standing, Survey};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

static OTHER: Check = Check::of_world(
    "leftover.other-record",
    Family::Leftover,
    "Nothing of this environment belongs to another state file",
);
static OWN: Check =
    Check::of_world("leftover.not-on-record", Family::Leftover, "Everything that carries our tags is on record");
static VOLUMES: Check =
    Check::of_world("leftover.volumes", Family::Leftover, "No volumes are left of an earlier cluster of this name");
static CONTROLLERS: Check = Check::of_world(
    "leftover.controllers",
    Family::Leftover,
    "Nothing that controllers made is left of an earlier cluster of this name",
);
static ISSUERS: Check =
    Check::of_world("leftover.oidc-providers", Family::Leftover, "No OIDC provider is left of a cluster that is gone");

pub(super) static CHECKS: &[&Check] = &[&OTHER, &OWN, &VOLUMES, &CONTROLLERS, &ISSUERS];

pub(super) async fn leftovers(account: &Account<'_>) -> Looked {
    let looks = futures::try_join!(other_records(account), own(account), of_clusters(account), issuers(account))?;
    Ok([looks.0, looks.1, looks.2, looks.3].concat())
}

fn some(ids: &[String]) -> String {
    let shown: Vec<&str> = ids.iter().take(5).map(String::as_str).collect();
    let more = ids.len().saturating_sub(shown.len());
    if more == 0 { shown.join(", ") } else { format!("{} and {more} more", shown.join(", ")) }
}

async fn other_records(account: &Account<'_>) -> Looked {
    if !account.subject.steps.iter().any(|step| step.kind.starts_with("aws.")) {
        return Ok(Vec::new());
    }
    let name = account.subject.environment.as_str();
    let body = json!({"TagFilters": [{"Key": "platflow:environment", "Values": [name]}]});
    let answer = account.aws.signed.ask_json(Service::Tagging, "GetResources", &body).await?;
    let mut by_uid: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for one in answer.get("ResourceTagMappingList").and_then(Value::as_array).into_iter().flatten() {
        let tags = one.get("Tags").and_then(Value::as_array).into_iter().flatten();
        let uid = tags
            .filter(|tag| tag.get("Key").and_then(Value::as_str) == Some(UID))
            .find_map(|tag| tag.get("Value").and_then(Value::as_str));
        let arn = one.get("ResourceARN").and_then(Value::as_str).unwrap_or_default();
        // Whether a key still is one is told by its state, and what waits for its deletion is nobody's concern.
        if let Some(uid) =
            uid.filter(|uid| account.subject.environment_uid.as_deref() != Some(*uid) && !arn.contains(":kms:"))
        {
            by_uid.entry(uid.to_owned()).or_default().push(arn.to_owned());
        }
    }
    Ok(by_uid
        .into_iter()
        .map(|(uid, arns)| {
            // The index still shows some of what is gone: the hold on the environment is what stops a run.
            OTHER.warning(
                format!("{} resource(s) of environment {name} with uid {uid} exist: {}", arns.len(), some(&arns)),
                "this state file does not know them: it would build a second environment beside them, or stop at the first name that is taken",
                format!("use its state file (--state), choose another --environment, or take it over: platflow adopt {name} --from {uid} {}", account.options()),
            )
        })
        .collect())
}

/// The same search that ends a rollback, told that everything on record is meant to stay.
async fn own(account: &Account<'_>) -> Looked {
    let subject = account.subject;
    let Some(uid) = subject.environment_uid.as_deref().and_then(|uid| EnvironmentUid::new(uid).ok()) else {
        return Ok(Vec::new());
    };
    let malformed = |error: platflow_engine::name::InvalidName| StepError::permanent(error.to_string());
    let mut steps = Vec::new();
    for step in subject.steps.iter().filter(|step| step.outputs.is_some()) {
        steps.push(ScopedStep {
            name: StepName::new(&step.name).map_err(malformed)?,
            kind: KindName::new(&step.kind).map_err(malformed)?,
            spec: Some(step.spec.clone()),
            outputs: step.outputs.clone(),
            notes: Notes::new(),
            stays: Some("it is on record".to_owned()),
        });
    }
    if steps.is_empty() {
        return Ok(Vec::new());
    }
    let scope = Scope {
        environment: EnvironmentName::new(&subject.environment).map_err(malformed)?,
        environment_uid: uid,
        run: RunId::new("preflight").map_err(malformed)?,
        since: None,
        steps,
    };
    let findings = AccountSurvey(std::sync::Arc::clone(account.shared)).survey(&scope).await?;
    let left = findings.remnants.iter().filter(|one| one.standing == Standing::Left && !one.maker.starts_with("in "));
    let left: Vec<String> = left.map(|one| format!("{} {} ({})", one.resource, one.id, one.maker)).collect();
    Ok(if left.is_empty() {
        Vec::new()
    } else {
        vec![OWN.warning(
            format!("{} resource(s) carry this environment's tags and are not on record: {}", left.len(), some(&left)),
            "they cost, and no run takes them away but a destroy",
            "look at them, then remove them by hand, or destroy the environment",
        )]
    })
}

/// What carries the name of a cluster that does not exist.
async fn of_clusters(account: &Account<'_>) -> Looked {
    let mut found = Vec::new();
    let fresh = account.subject.named("aws.eks_cluster", "/name").filter(|(step, _)| step.outputs.is_none());
    let names: BTreeSet<&str> = fresh.map(|(_, name)| name).collect();
    for name in names {
        if eks_cluster::get(account.aws, name).await?.is_some() {
            continue;
        }
        let volumes: Vec<String> = cluster_volumes(account.aws, name)
            .await?
            .into_iter()
            .map(|one| format!("{} ({} GiB, {})", one.id, one.gib, one.claim.as_deref().unwrap_or("of no claim")))
            .collect();
        if !volumes.is_empty() {
            found.push(VOLUMES.warning(
                format!("volumes of an earlier cluster {name}: {}", some(&volumes)),
                "they cost, and may hold somebody's data; the new cluster does not know them",
                "look into them, snapshot what is wanted, delete them",
            ));
        }
        let tag = vec![filter("tag-key", format!("kubernetes.io/cluster/{name}"))];
        let ec2 = &account.aws.ec2;
        let (groups, interfaces) = futures::try_join!(
            look("DescribeSecurityGroups", ec2.describe_security_groups().set_filters(sdk_filters(tag.clone())).send()),
            look("DescribeNetworkInterfaces", ec2.describe_network_interfaces().set_filters(sdk_filters(tag)).send()),
        )?;
        let groups = groups.security_groups().iter().filter_map(|one| one.group_id()).map(str::to_owned);
        let interfaces =
            interfaces.network_interfaces().iter().filter_map(|one| one.network_interface_id()).map(str::to_owned);
        let left: Vec<String> = groups.chain(interfaces).collect();
        if !left.is_empty() {
            found.push(CONTROLLERS.warning(
                format!("{} carry the name of an earlier cluster {name}", some(&left)),
                "controllers of the new cluster may take them for theirs",
                "delete what nobody uses",
            ));
        }
    }
    Ok(found)
}

#[derive(Deserialize)]
struct ListAnswer {
    #[serde(rename = "ListOpenIDConnectProvidersResult")]
    result: ListBody,
}

#[derive(Deserialize)]
struct ListBody {
    #[serde(rename = "OpenIDConnectProviderList", default)]
    list: Members<Provider>,
}

#[derive(Deserialize)]
struct Provider {
    #[serde(rename = "Arn")]
    arn: String,
}

/// Providers of EKS issuers of this region that no cluster has, and that this environment's name is on.
async fn issuers(account: &Account<'_>) -> Looked {
    if !account.subject.has("aws.oidc_provider") {
        return Ok(Vec::new());
    }
    let answer: ListAnswer = account.aws.signed.ask(Service::Iam, "ListOpenIDConnectProviders", &[]).await?;
    let here = format!("oidc.eks.{}.", account.aws.region);
    let known: Vec<&str> = account
        .subject
        .of_kind("aws.oidc_provider")
        .filter_map(|step| step.outputs.as_ref()?.get("arn")?.as_str())
        .collect();
    let mut dead = Vec::new();
    for one in answer.result.list.member.iter().filter(|one| one.arn.contains(&here)) {
        let tags = oidc_provider::tags(account.aws, &one.arn).await?.unwrap_or_default();
        let of_environment = tags.get("platflow:environment") == Some(&account.subject.environment);
        if of_environment && !known.contains(&one.arn.as_str()) {
            dead.push(one.arn.clone());
        }
    }
    Ok(if dead.is_empty() {
        Vec::new()
    } else {
        vec![ISSUERS.warning(
            format!("OIDC providers of earlier clusters of {}: {}", account.subject.environment, some(&dead)),
            "an account may have 100 of them, and each still names an issuer that it trusts",
            format!(
                "delete them: aws iam delete-open-id-connect-provider --open-id-connect-provider-arn {}",
                dead.first().map_or("", String::as_str)
            ),
        )]
    })
}
