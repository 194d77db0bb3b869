//! Instance types and images of pools: that they exist, fit each other, and hold what is asked of them.

use super::super::quotas::milli;
use super::{Looked, account::Account};
use crate::preflight::{Check, Family, Finding, Pool};
use serde_json::Value;
use std::collections::BTreeSet;

static EXISTS: Check = Check::of_request("instance.offered", Family::Instance, "The region offers every instance type");
static ARCHITECTURE: Check = Check::of_request(
    "instance.architecture",
    Family::Instance,
    "Images are of the architecture of their instance types",
);
static MIXED: Check =
    Check::of_request("instance.mixed-architectures", Family::Instance, "No pool mixes processor architectures");
static PREVIOUS: Check = Check::of_request(
    "instance.previous-generation",
    Family::Instance,
    "No instance type is of a superseded generation",
);
static COUNT: Check =
    Check::of_request("instance.count", Family::Instance, "A pool names between 1 and 20 instance types");
static SIZES: Check = Check::of_request("instance.sizes", Family::Instance, "The types of a pool are of one size");
static BURST: Check =
    Check::of_request("instance.burst-credits", Family::Instance, "Machines with burst credits carry no steady load");
static REQUESTS: Check = Check::of_request(
    "capacity.requests",
    Family::Capacity,
    "Namespaces may not ask for more than the nodes have at their maximum",
);
static NOW: Check =
    Check::of_request("capacity.requests-now", Family::Capacity, "Namespaces may not ask for more than the nodes have");
static PODS: Check =
    Check::of_request("capacity.pods", Family::Capacity, "The nodes hold as many pods as the platform has");

pub(super) static CHECKS: &[&Check] =
    &[&EXISTS, &ARCHITECTURE, &MIXED, &PREVIOUS, &COUNT, &SIZES, &BURST, &REQUESTS, &NOW, &PODS];

/// A node group takes no more (CreateNodegroup, `instanceTypes`).
const MOST_TYPES: usize = 20;

pub(super) async fn instances(account: &Account<'_>) -> Looked {
    let mut found = Vec::new();
    let (offered, types) = (account.offered().await?, account.types().await?);
    let missing: Vec<String> = account.type_names().into_iter().filter(|kind| !offered.contains_key(kind)).collect();
    if !missing.is_empty() {
        found.push(EXISTS.blocker(
            format!("{} offers no {}", account.aws.region, missing.join(", ")),
            "the pool could not be made",
            "choose other instance types, or another region",
        ));
    }
    for pool in &account.pools {
        let seen: Vec<(&String, &super::account::TypeSeen)> =
            pool.instance_types.iter().filter_map(|kind| Some((kind, types.get(kind)?))).collect();
        found.extend(fits(pool, &seen));
    }
    found.extend(requests(account, types));
    Ok(found)
}

fn fits(pool: &Pool, seen: &[(&String, &super::account::TypeSeen)]) -> Vec<Finding> {
    let mut found = Vec::new();
    let Pool { name, instance_types, ami_type, .. } = pool;
    if instance_types.is_empty() || instance_types.len() > MOST_TYPES {
        found.push(COUNT.blocker(
            format!("pool {name} names {} instance types", instance_types.len()),
            "EKS takes between 1 and 20",
            "correct its instance_types",
        ));
    }
    let architectures: BTreeSet<&str> =
        seen.iter().flat_map(|(_, one)| &one.architectures).map(String::as_str).filter(|one| *one != "i386").collect();
    if architectures.len() > 1 {
        let list: Vec<&str> = architectures.iter().copied().collect();
        found.push(MIXED.blocker(
            format!("the types of pool {name} are of {}", list.join(" and ")),
            "EKS refuses a node group of more than one architecture",
            "make one pool for each",
        ));
    }
    let wanted = if ami_type.contains("ARM_64") { "arm64" } else { "x86_64" };
    let strange: Vec<&str> = seen
        .iter()
        .filter(|(_, one)| !one.architectures.is_empty() && !one.architectures.contains(wanted))
        .map(|(kind, _)| kind.as_str())
        .collect();
    if !strange.is_empty() && !ami_type.is_empty() && ami_type != "CUSTOM" {
        found.push(ARCHITECTURE.blocker(
            format!("pool {name} boots {ami_type}, an image for {wanted}, on {}", strange.join(", ")),
            "EKS refuses the node group",
            "correct the pool's architecture or its instance_types",
        ));
    }
    let old: Vec<&str> = seen.iter().filter(|(_, one)| one.previous).map(|(kind, _)| kind.as_str()).collect();
    if !old.is_empty() {
        found.push(PREVIOUS.warning(
            format!("pool {name}: {} is of a previous generation", old.join(", ")),
            "fewer of them are left each year, at a higher price for the same work",
            "choose the successor",
        ));
    }
    let sizes: BTreeSet<(u64, u64)> = seen.iter().map(|(_, one)| (one.cpus, one.mebibytes)).collect();
    if sizes.len() > 1 {
        found.push(SIZES.warning(
            format!("pool {name} has types of {} sizes", sizes.len()),
            "an autoscaler takes all nodes of a pool to be alike: it adds too few or too many",
            "give it types with the same vCPUs and memory",
        ));
    }
    let bursting: Vec<&str> = instance_types.iter().filter(|kind| kind.starts_with('t')).map(String::as_str).collect();
    if !bursting.is_empty() {
        found.push(BURST.note(
            format!("pool {name} runs on {}", bursting.join(", ")),
            "above their baseline they use credits, and surplus credits are billed",
            "for steady load choose m or c types",
        ));
    }
    found
}

/// What the namespaces' quotas allow in all: thousandths of a CPU and of a byte.
fn asked(account: &Account<'_>) -> (u128, u128) {
    let sum = |key: &str| -> u128 {
        let quotas = account.subject.of_kind("kubernetes.resource_quota");
        quotas.filter_map(|step| step.spec.get("hard")?.get(key).and_then(Value::as_str).and_then(milli)).sum()
    };
    (sum("requests.cpu"), sum("requests.memory"))
}

fn requests(
    account: &Account<'_>,
    types: &std::collections::BTreeMap<String, super::account::TypeSeen>,
) -> Vec<Finding> {
    let (cpu, memory) = asked(account);
    let smallest = |pool: &Pool, of: fn(&super::account::TypeSeen) -> u64| {
        pool.instance_types.iter().filter_map(|kind| types.get(kind)).map(of).min().unwrap_or(0)
    };
    let total = |count: fn(&Pool) -> u64| {
        let pools = || account.pools.iter();
        let cpus: u64 = pools().map(|pool| count(pool) * smallest(pool, |one| one.cpus)).sum();
        let mebibytes: u64 = pools().map(|pool| count(pool) * smallest(pool, |one| one.mebibytes)).sum();
        (cpus, mebibytes)
    };
    let (now, most) = (total(Pool::desired), total(Pool::most));
    let exceeds = |(cpus, mebibytes): (u64, u64)| {
        cpu > u128::from(cpus) * 1_000 || memory > (u128::from(mebibytes) << 20) * 1_000
    };
    if account.pools.is_empty() || now.0 == 0 {
        return Vec::new();
    }
    let evidence = |(cpus, mebibytes): (u64, u64), when: &str| {
        let (cpu, gib) = (cpu.div_ceil(1_000), (memory / 1_000) >> 30);
        format!(
            "the namespaces may request {cpu} CPU and {gib} Gi, the nodes have {cpus} CPU and {} Gi{when}",
            mebibytes / 1_024
        )
    };
    let mut found = Vec::new();
    let remedy = "lower the quotas (namespaces), or give the pools more or larger nodes";
    if exceeds(most) {
        found.push(REQUESTS.warning(
            evidence(most, " when every pool is at its maximum"),
            "pods beyond that stay pending whatever an autoscaler does",
            remedy,
        ));
    } else if exceeds(now) {
        found.push(NOW.note(evidence(now, " at first"), "pods beyond that wait for the pools to grow", remedy));
    }
    let open = |pool: &&Pool| pool.takes_anything();
    let each = |pool: &Pool| {
        let known = pool.instance_types.iter().filter_map(|kind| types.get(kind)?.pods);
        // Without prefix delegation a node of any size holds at most 110 pods by EKS's recommendation.
        known.min().map(|pods| pods.min(110) * pool.desired())
    };
    let room: Option<u64> = account.pools.iter().filter(open).map(each).sum();
    let wanted = platform_pods(account);
    if let Some(room) = room.filter(|room| *room < wanted) {
        found.push(PODS.blocker(
            format!("the platform has about {wanted} pods, and the pools that take them have addresses for {room}"),
            "some of its pods stay pending, and the run waits for them in vain",
            "more or larger nodes in a pool without taints",
        ));
    }
    found
}

/// About how many pods the run itself installs beside its agents on every node: Argo CD's manifest for high availability
/// 14, Vault as many as its replicas, External Secrets 3, CoreDNS 2, the volume driver's controllers 2.
fn platform_pods(account: &Account<'_>) -> u64 {
    let subject = account.subject;
    let count = |kind: &str, pods: u64| if subject.has(kind) { pods } else { 0 };
    let replicas: i64 = subject.of_kind("vault.install").filter_map(|step| step.number("/replicas")).sum();
    let addons = subject
        .named("aws.addon", "/name")
        .filter(|(_, name)| ["coredns", "aws-ebs-csi-driver"].contains(name))
        .count();
    // vpc-cni, kube-proxy and the volume driver's agent run on every node.
    let open: u64 = account.pools.iter().filter(|pool| pool.takes_anything()).map(Pool::desired).sum();
    count("argocd.install", 14)
        + count("external_secrets.install", 3)
        + u64::try_from(replicas).unwrap_or(0)
        + 2 * addons as u64
        + 3 * open
}
