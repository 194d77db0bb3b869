//! Names that are taken by somebody else, with the owner: clusters, roles, aliases, log groups, launch templates, and the
//! hold on the environment.

use super::super::ec2::tag_map;
use super::super::eks_cluster::{self, eks_tags};
use super::super::failure::look;
use super::super::iam_role::{get_role, xml_tags};
use super::super::logs;
use super::super::ownership::{Tags, UID, owner_text};
use super::super::signed::Service;
use super::{Looked, account::Account};
use crate::preflight::{Check, Family, Finding, SubjectStep};
use platflow_engine::failure::StepError;
use serde_json::{Value, json};

static CLUSTER: Check =
    Check::of_world("name.cluster", Family::Name, "No cluster of somebody else has the cluster's name");
static ROLE: Check = Check::of_world("name.role", Family::Name, "No role of somebody else has the name of one of ours");
static ALIAS: Check =
    Check::of_world("name.key-alias", Family::Name, "No key of somebody else has the alias of one of ours");
static PENDING: Check = Check::of_world(
    "name.key-pending-deletion",
    Family::Name,
    "No alias of ours points to a key that waits for its deletion",
);
static LOGS: Check =
    Check::of_world("name.log-group", Family::Name, "No log group of somebody else has the name of one of ours");
static TEMPLATE: Check = Check::of_world(
    "name.launch-template",
    Family::Name,
    "No launch template of somebody else has the name of one of ours",
);
static HOLD: Check =
    Check::of_world("lock.account", Family::Lock, "No other state file holds the environment in this account");
static ADDRESS: Check = Check::of_world("name.network", Family::Name, "No VPC of somebody else has the name of ours");

pub(super) static CHECKS: &[&Check] = &[&CLUSTER, &ROLE, &ALIAS, &PENDING, &LOGS, &TEMPLATE, &HOLD, &ADDRESS];

/// The names of steps of a kind that are not on record: what is on record was found to be ours.
fn unbuilt<'a>(account: &'a Account<'_>, kind: &'a str, pointer: &'a str) -> Vec<(&'a SubjectStep, &'a str)> {
    account.subject.named(kind, pointer).filter(|(step, _)| step.outputs.is_none()).collect()
}

fn taken(account: &Account<'_>, check: &'static Check, what: &str, tags: &Tags) -> Finding {
    let owner = owner_text(tags);
    let remedy = account.ways_out(&owner);
    check.blocker(
        format!("{what} exists and is not of this environment: {owner}"),
        "nothing of somebody else is taken over: the step would stop the run",
        remedy,
    )
}

pub(super) async fn names(account: &Account<'_>) -> Looked {
    let looks =
        futures::try_join!(clusters(account), roles(account), aliases(account), groups(account), templates(account))?;
    Ok([looks.0, looks.1, looks.2, looks.3, looks.4].concat())
}

async fn clusters(account: &Account<'_>) -> Looked {
    let mut found = Vec::new();
    for (_, name) in unbuilt(account, "aws.eks_cluster", "/name") {
        if let Some(cluster) = eks_cluster::get(account.aws, name).await? {
            let tags = eks_tags(cluster.tags());
            if !account.is_ours(&tags) {
                found.push(taken(account, &CLUSTER, &format!("the cluster {name}"), &tags));
            }
        }
    }
    Ok(found)
}

async fn roles(account: &Account<'_>) -> Looked {
    let wanted = unbuilt(account, "aws.iam_role", "/name");
    let looks = wanted.iter().map(|(_, name)| get_role(account.aws, name));
    let mut found = Vec::new();
    for role in futures::future::try_join_all(looks).await?.into_iter().flatten() {
        let tags = xml_tags(role.tags);
        if !account.is_ours(&tags) {
            found.push(taken(account, &ROLE, &format!("the role {}", role.arn), &tags));
        }
    }
    Ok(found)
}

async fn aliases(account: &Account<'_>) -> Looked {
    let mut found = Vec::new();
    for (_, alias) in unbuilt(account, "aws.kms_key", "/alias") {
        let alias = if alias.starts_with("alias/") { alias.to_owned() } else { format!("alias/{alias}") };
        let answer = match account.aws.signed.ask_json(Service::Kms, "DescribeKey", &json!({"KeyId": alias})).await {
            Ok(answer) => answer,
            Err(failure) if failure.is_not_found() => continue,
            Err(failure) => return Err(failure.into()),
        };
        let text = |pointer: &str| answer.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
        let (id, state) = (text("/KeyMetadata/KeyId"), text("/KeyMetadata/KeyState"));
        let tags = key_tags(account, &id).await?;
        if !account.is_ours(&tags) && !state.starts_with("Pending") {
            found.push(taken(account, &ALIAS, &format!("the key behind {alias}"), &tags));
        } else if state.starts_with("Pending") {
            let owner = owner_text(&tags);
            found.push(PENDING.warning(
                format!("{alias} points to key {id} of {owner}, which waits for its deletion"),
                "what it encrypted is lost on that day; the step takes a key of its own back, and stops at somebody else's",
                format!("keep it with: aws kms cancel-key-deletion --key-id {id}, or free the alias: aws kms delete-alias --alias-name {alias}"),
            ));
        }
    }
    Ok(found)
}

async fn key_tags(account: &Account<'_>, id: &str) -> Result<Tags, StepError> {
    let answer = account.aws.signed.ask_json(Service::Kms, "ListResourceTags", &json!({"KeyId": id})).await?;
    let text = |tag: &Value, key: &str| tag.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let list = answer.get("Tags").and_then(Value::as_array);
    Ok(list.into_iter().flatten().map(|tag| (text(tag, "TagKey"), text(tag, "TagValue"))).collect())
}

async fn groups(account: &Account<'_>) -> Looked {
    let mut found = Vec::new();
    for (_, name) in unbuilt(account, "aws.log_group", "/name") {
        if let Some(group) = logs::get(account.aws, name).await?
            && !account.is_ours(&group.tags)
            // One without tags under the name of a cluster's is what EKS makes; the step looks closer.
            && !(group.tags.is_empty() && name.starts_with("/aws/eks/"))
        {
            found.push(taken(account, &LOGS, &format!("the log group {name}"), &group.tags));
        }
    }
    if account.subject.of_kind("aws.environment_hold").any(|step| step.outputs.is_none()) {
        let name = format!("/platflow/environments/{}", account.subject.environment);
        if let Some(group) = logs::get(account.aws, &name).await?
            && !account.is_ours(&group.tags)
        {
            let owner = owner_text(&group.tags);
            found.push(HOLD.blocker(
                format!("environment {} is held in this account by {owner}", account.subject.environment),
                "two state files that build one environment undo each other's work",
                account.ways_out(&owner),
            ));
        }
    }
    Ok(found)
}

async fn templates(account: &Account<'_>) -> Looked {
    let ec2 = &account.aws.ec2;
    let mut found = Vec::new();
    if account.subject.builds("aws.launch_template") {
        let answer = look("DescribeLaunchTemplates", ec2.describe_launch_templates().send()).await?;
        // The name is the cluster's and the pool's: known before the cluster is, where a step's own is not.
        let named = account.subject.named("aws.launch_template", "/name").map(|(_, name)| name.to_owned());
        let clusters = account.subject.named("aws.eks_cluster", "/name").map(|(_, name)| name);
        let made =
            clusters.flat_map(|cluster| account.pools.iter().map(move |pool| format!("{cluster}-{}", pool.name)));
        let names: Vec<String> = named.chain(made).collect();
        for one in answer.launch_templates() {
            let (name, tags) = (one.launch_template_name().unwrap_or_default(), tag_map(one.tags()));
            if names.iter().any(|wanted| wanted == name) && !account.is_ours(&tags) {
                found.push(taken(account, &TEMPLATE, &format!("the launch template {name}"), &tags));
            }
        }
    }
    if account.subject.builds("aws.vpc") {
        let answer = look("DescribeVpcs", ec2.describe_vpcs().send()).await?;
        for (_, name) in unbuilt(account, "aws.vpc", "/name") {
            for one in answer.vpcs() {
                let tags = tag_map(one.tags());
                if tags.get("Name").map(String::as_str) == Some(name) && !account.is_ours(&tags) {
                    let owner = if tags.contains_key(UID) { owner_text(&tags) } else { "somebody else".to_owned() };
                    found.push(ADDRESS.warning(
                        format!(
                            "VPC {} is called {name}, too, and belongs to {owner}",
                            one.vpc_id().unwrap_or_default()
                        ),
                        "nothing is confused by it but people",
                        "choose another cluster_name, or remove the other VPC",
                    ));
                }
            }
        }
    }
    Ok(found)
}
