//! What the account allows against what others use and the run needs. Codes are those of Service Quotas, as listed in the
//! "endpoints and quotas" pages of the AWS General Reference (read 2026-11).

use super::super::ec2::{sdk_filters, tag_map};
use super::super::failure::look;
use super::super::quotas::{allowed, is_standard, machines, sizes};
use super::super::signed::Service;
use super::{Looked, account::Account};
use crate::preflight::{Check, Family, Finding, Pool};
use futures::future::try_join_all;
use platflow_engine::failure::StepError;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};

macro_rules! quota {
    ($name:ident, $id:literal, $title:literal) => {
        static $name: Check = Check::of_world($id, Family::Quota, $title);
    };
}

quota!(VPCS, "quota.vpcs", "The quota of VPCs suffices");
quota!(INTERNET, "quota.internet-gateways", "The quota of internet gateways suffices");
quota!(ADDRESSES, "quota.elastic-ips", "The quota of elastic IP addresses suffices");
quota!(NATS, "quota.nat-gateways", "The quota of NAT gateways per zone suffices");
quota!(SUBNETS, "quota.subnets-per-vpc", "The quota of subnets per VPC suffices");
quota!(TABLES, "quota.route-tables-per-vpc", "The quota of route tables per VPC suffices");
quota!(GROUPS, "quota.security-groups", "The quota of security groups suffices");
quota!(RULES, "quota.security-group-rules", "The quota of rules per security group suffices");
quota!(ON_DEMAND, "quota.on-demand-vcpus", "The quota of on-demand vCPUs suffices");
quota!(SPOT, "quota.spot-vcpus", "The quota of spot vCPUs suffices");
quota!(AT_MOST, "quota.vcpus-at-maximum", "The quotas of vCPUs suffice when every pool is at its maximum");
quota!(CLUSTERS, "quota.clusters", "The quota of EKS clusters suffices");
quota!(NODE_GROUPS, "quota.node-groups", "The quota of node groups per cluster suffices");
quota!(NODES, "quota.nodes-per-group", "The quota of nodes per node group suffices");
quota!(ACCESS_RANGES, "quota.public-access-cidrs", "The quota of ranges that may reach the API server suffices");
quota!(DISKS, "quota.gp3-storage", "The quota of gp3 storage suffices");
quota!(ROLES, "quota.roles", "The quota of IAM roles suffices");
quota!(READABLE, "quota.readable", "The caller may ask for quotas");

pub(super) static CHECKS: &[&Check] = &[
    &READABLE,
    &VPCS,
    &INTERNET,
    &ADDRESSES,
    &NATS,
    &SUBNETS,
    &TABLES,
    &GROUPS,
    &RULES,
    &ON_DEMAND,
    &SPOT,
    &AT_MOST,
    &CLUSTERS,
    &NODE_GROUPS,
    &NODES,
    &ACCESS_RANGES,
    &DISKS,
    &ROLES,
];

/// A quota, what others use of it, what the run needs now, and at most.
struct Counted {
    check: &'static Check,
    service: &'static str,
    code: &'static str,
    what: &'static str,
    used: u64,
    needed: u64,
    most: u64,
}

impl Counted {
    fn new(
        check: &'static Check,
        (service, code): (&'static str, &'static str),
        what: &'static str,
        used: u64,
        needed: u64,
    ) -> Self {
        Self { check, service, code, what, used, needed, most: needed }
    }
}

pub(super) async fn quotas(account: &Account<'_>) -> Looked {
    let mut all = machines_needed(account).await?;
    all.extend(network(account).await?);
    all.extend(clusters(account).await?);
    all.extend(disks(account).await?);
    all.retain(|one| one.most > 0);
    let mut found: Vec<Finding> = roles(account).await?.into_iter().collect();
    let answers = try_join_all(all.iter().map(|one| allowed(account.aws, one.service, one.code))).await?;
    let region = &account.aws.region;
    let mut unreadable = Vec::new();
    for (one, allowed) in all.iter().zip(answers) {
        match allowed {
            None => unreadable.push(one.code),
            // Storage is allowed in TiB and counted in GiB.
            Some(allowed) => {
                found.extend(judged(one, if one.service == "ebs" { allowed * 1_024 } else { allowed }, region))
            }
        }
    }
    if !unreadable.is_empty() {
        found.push(READABLE.warning(
            format!("the quotas {} cannot be asked for", unreadable.join(", ")),
            "whether they suffice shows only when the run needs them",
            "allow servicequotas:GetServiceQuota and servicequotas:GetAWSDefaultServiceQuota to the caller",
        ));
    }
    Ok(found)
}

fn judged(one: &Counted, allowed: u64, region: &str) -> Option<Finding> {
    let Counted { check, service, code, what, used, needed, most } = one;
    let ask = |value: u64| {
        format!(
            "ask for more: aws service-quotas request-service-quota-increase --region {region} --service-code {service} --quota-code {code} --desired-value {value}"
        )
    };
    if used + needed > allowed {
        let evidence =
            format!("the quota {code} allows {allowed} {what} in {region}, {used} are in use and {needed} are needed");
        return Some(check.blocker(evidence, "the run would stop half-way", ask(used + needed)));
    }
    (used + most > allowed).then(|| {
        let evidence = format!(
            "the quota {code} allows {allowed} {what} in {region}, {used} are in use and up to {most} would be wanted"
        );
        AT_MOST.warning(evidence, "pools stop growing before they reach their maximum", ask(used + most))
    })
}

async fn machines_needed(account: &Account<'_>) -> Result<Vec<Counted>, StepError> {
    if !account.subject.has("aws.node_group") {
        return Ok(Vec::new());
    }
    let ours = account.subject.environment_uid.as_deref().unwrap_or_default();
    let others = machines(account.aws, ours).await?;
    let kinds: BTreeSet<String> = others.iter().map(|(kind, _)| kind.clone()).collect();
    let of_others = if kinds.is_empty() { BTreeMap::new() } else { sizes(account.aws, &kinds).await? };
    let types = account.types().await?;
    let largest = |pool: &Pool| {
        let standard = pool.instance_types.iter().filter(|kind| is_standard(kind));
        standard.filter_map(|kind| types.get(kind)).map(|seen| seen.cpus).max().unwrap_or(0)
    };
    let counted = |check, code, what, spot: bool| {
        let used = others.iter().filter(|(kind, is_spot)| *is_spot == spot && is_standard(kind));
        let used = used.filter_map(|(kind, _)| of_others.get(kind)).map(|size| size.cpus).sum();
        let pools = || account.pools.iter().filter(move |pool| pool.spot == spot);
        let needed = pools().map(|pool| largest(pool) * pool.desired()).sum();
        let most = pools().map(|pool| largest(pool) * pool.most()).sum();
        Counted { most, ..Counted::new(check, ("ec2", code), what, used, needed) }
    };
    Ok(vec![
        counted(&ON_DEMAND, "L-1216C47A", "vCPUs of running on-demand standard instances", false),
        counted(&SPOT, "L-34B43A08", "vCPUs of standard spot instances", true),
    ])
}

async fn network(account: &Account<'_>) -> Result<Vec<Counted>, StepError> {
    let subject = account.subject;
    let building = |kind: &str| subject.of_kind(kind).filter(|step| step.outputs.is_none()).count() as u64;
    let wanted = |kind: &str| subject.of_kind(kind).count() as u64;
    let (vpcs, gateways, addresses, nats, groups) = (
        building("aws.vpc"),
        building("aws.internet_gateway"),
        building("aws.elastic_ip"),
        building("aws.nat_gateway"),
        building("aws.security_group"),
    );
    if vpcs + gateways + addresses + nats + groups == 0 {
        return Ok(Vec::new());
    }
    let ec2 = &account.aws.ec2;
    let live = vec![("state".to_owned(), vec!["pending".to_owned(), "available".to_owned()])];
    let (seen_vpcs, seen_gateways, seen_addresses, seen_nats, seen_groups) = futures::try_join!(
        look("DescribeVpcs", ec2.describe_vpcs().send()),
        look("DescribeInternetGateways", ec2.describe_internet_gateways().send()),
        look("DescribeAddresses", ec2.describe_addresses().send()),
        look("DescribeNatGateways", ec2.describe_nat_gateways().set_filter(sdk_filters(live)).send()),
        look("DescribeSecurityGroups", ec2.describe_security_groups().send()),
    )?;
    let others = |tags: &[aws_sdk_ec2::types::Tag]| !account.is_ours(&tag_map(tags));
    let used_vpcs = seen_vpcs.vpcs().iter().filter(|one| others(one.tags())).count() as u64;
    let used_gateways = seen_gateways.internet_gateways().iter().filter(|one| others(one.tags())).count() as u64;
    let used_addresses = seen_addresses.addresses().iter().filter(|one| others(one.tags())).count() as u64;
    let used_groups = seen_groups.security_groups().iter().filter(|one| others(one.tags())).count() as u64;
    let mut per_subnet: BTreeMap<&str, u64> = BTreeMap::new();
    for nat in seen_nats.nat_gateways().iter().filter(|one| others(one.tags())) {
        *per_subnet.entry(nat.subnet_id().unwrap_or_default()).or_default() += 1;
    }
    // Which zones will be taken is not known yet: the fullest place counts, and no more than one of ours falls on it.
    let fullest = per_subnet.values().max().copied().unwrap_or(0);
    let rules = |step: &crate::preflight::SubjectStep| {
        step.spec.get("rules").and_then(serde_json::Value::as_array).map_or(0, Vec::len)
    };
    let most_rules = subject.of_kind("aws.security_group").map(rules).max().unwrap_or(0) as u64;
    Ok(vec![
        Counted::new(&VPCS, ("vpc", "L-F678F1CE"), "VPCs", used_vpcs, vpcs),
        Counted::new(&INTERNET, ("vpc", "L-A4707A72"), "internet gateways", used_gateways, gateways),
        Counted::new(&ADDRESSES, ("ec2", "L-0263D0A3"), "elastic IP addresses", used_addresses, addresses),
        Counted::new(&NATS, ("vpc", "L-FE5A380F"), "NAT gateways in a zone", fullest, nats.min(1)),
        Counted::new(&GROUPS, ("vpc", "L-E79EC296"), "security groups", used_groups, groups),
        Counted::new(&SUBNETS, ("vpc", "L-407747CB"), "subnets in a VPC", 0, wanted("aws.subnet")),
        Counted::new(&TABLES, ("vpc", "L-589F43AA"), "route tables in a VPC", 1, wanted("aws.route_table")),
        Counted::new(&RULES, ("vpc", "L-0EA8095F"), "rules in a security group", 0, most_rules),
    ])
}

async fn clusters(account: &Account<'_>) -> Result<Vec<Counted>, StepError> {
    let subject = account.subject;
    let building = subject.of_kind("aws.eks_cluster").filter(|step| step.outputs.is_none()).count() as u64;
    let used = if building > 0 {
        look("ListClusters", account.aws.eks.list_clusters().send()).await?.clusters().len()
    } else {
        0
    };
    let largest = account.pools.iter().map(Pool::most).max().unwrap_or(0);
    let ranges = subject.of_kind("aws.lookups").map(|step| step.texts("/public_access_cidrs").len()).max().unwrap_or(0);
    Ok(vec![
        Counted::new(&CLUSTERS, ("eks", "L-1194D53C"), "EKS clusters", used as u64, building),
        Counted::new(&NODE_GROUPS, ("eks", "L-6D54EA21"), "node groups in a cluster", 0, account.pools.len() as u64),
        Counted::new(&NODES, ("eks", "L-BD136A63"), "nodes in a node group", 0, largest),
        Counted::new(&ACCESS_RANGES, ("eks", "L-93A74D60"), "ranges that may reach the API server", 0, ranges as u64),
    ])
}

/// Disks in GiB: those of nodes, and the volumes that Vault's pods ask for.
async fn disks(account: &Account<'_>) -> Result<Vec<Counted>, StepError> {
    let gib = |pool: &Pool| pool.disk_gib.and_then(|gib| u64::try_from(gib).ok()).unwrap_or(0);
    let nodes: u64 = account.pools.iter().filter(|pool| !pool.built).map(|pool| gib(pool) * pool.desired()).sum();
    let vaults = account.subject.of_kind("vault.install").filter(|step| step.outputs.is_none());
    let volumes: i64 =
        vaults.map(|step| step.number("/storage_gib").unwrap_or(0) * step.number("/replicas").unwrap_or(0)).sum();
    let needed = nodes + u64::try_from(volumes).unwrap_or(0);
    if needed == 0 {
        return Ok(Vec::new());
    }
    let (mut used, mut next) = (0, None::<String>);
    loop {
        let filters = sdk_filters(vec![("volume-type".to_owned(), vec!["gp3".to_owned()])]);
        let request = account.aws.ec2.describe_volumes().set_filters(filters).set_next_token(next.take());
        let answer = look("DescribeVolumes", request.send()).await?;
        used += answer.volumes().iter().filter_map(|one| u64::try_from(one.size()?).ok()).sum::<u64>();
        next = answer.next_token.filter(|token| !token.is_empty());
        if next.is_none() {
            return Ok(vec![Counted::new(&DISKS, ("ebs", "L-7A658B76"), "GiB of gp3 volumes", used, needed)]);
        }
    }
}

#[derive(Deserialize)]
struct SummaryAnswer {
    #[serde(rename = "GetAccountSummaryResult")]
    result: Summary,
}

#[derive(Deserialize)]
struct Summary {
    #[serde(rename = "SummaryMap", default)]
    map: Entries,
}

#[derive(Deserialize, Default)]
struct Entries {
    #[serde(rename = "entry", default)]
    entry: Vec<Entry>,
}

#[derive(Deserialize)]
struct Entry {
    key: String,
    value: u64,
}

/// IAM counts roles itself, and tells its quota with them.
async fn roles(account: &Account<'_>) -> Result<Option<Finding>, StepError> {
    let needed = account.subject.of_kind("aws.iam_role").filter(|step| step.outputs.is_none()).count() as u64;
    if needed == 0 {
        return Ok(None);
    }
    let answer: SummaryAnswer = match account.aws.signed.ask(Service::Iam, "GetAccountSummary", &[]).await {
        Ok(answer) => answer,
        Err(failure) => {
            return Ok(Some(READABLE.note(
                format!("how many roles the account has cannot be asked for: {failure}"),
                "whether its quota of roles suffices shows only when the run needs it",
                "allow iam:GetAccountSummary to the caller",
            )));
        }
    };
    let value = |name: &str| answer.result.map.entry.iter().find(|entry| entry.key == name).map(|entry| entry.value);
    let (Some(used), Some(quota)) = (value("Roles"), value("RolesQuota")) else { return Ok(None) };
    Ok((used + needed > quota).then(|| {
        ROLES.blocker(
            format!("the account may have {quota} roles, has {used}, and {needed} more are needed"),
            "the run would stop half-way",
            "remove roles that nobody uses, or ask for more: aws service-quotas request-service-quota-increase --region us-east-1 --service-code iam --quota-code L-FE177D64",
        )
    }))
}
