//! Pools as the runbook gives them: counts that make sense, nodes enough for what is highly available, labels and taints
//! that Kubernetes takes, disks that an image fits on.

use platflow_steps::preflight::{Check, Family, Finding, Pool, Subject};

static COUNTS: Check =
    Check::of_request("capacity.counts", Family::Capacity, "Pools have at least, wanted and most nodes in this order");
static AVAILABLE: Check = Check::of_request(
    "capacity.high-availability",
    Family::Capacity,
    "Three nodes at least take what is highly available",
);
static TAINTED: Check =
    Check::of_request("capacity.all-tainted", Family::Capacity, "A pool without taints takes what tolerates none");
static TAINTS: Check = Check::of_request("capacity.taints", Family::Capacity, "Taints have a key and an effect of EKS");
static LABELS: Check =
    Check::of_request("capacity.labels", Family::Capacity, "Labels of nodes are well-formed and nobody else's");
static DISK: Check =
    Check::of_request("capacity.disk", Family::Capacity, "Disks of nodes hold the image and the containers");
static SPREAD: Check = Check::of_request("capacity.spread", Family::Capacity, "Pools have a node for every zone");
static LIMITS: Check =
    Check::of_request("capacity.limits", Family::Capacity, "Namespaces may use at least what they may request");
static DESIRED_ZERO: Check = Check::of_request("capacity.empty", Family::Capacity, "No pool begins without nodes");

pub(super) static CHECKS: &[&Check] =
    &[&COUNTS, &AVAILABLE, &TAINTED, &TAINTS, &LABELS, &DISK, &SPREAD, &LIMITS, &DESIRED_ZERO];

/// Argo CD's manifest for high availability and three Vault pods each want a node of their own.
const HIGHLY_AVAILABLE: u64 = 3;
/// The disk of a node when nobody names one; the image of Amazon Linux 2023 wants so much.
const SMALLEST_DISK_GIB: i64 = 20;
const EFFECTS: [&str; 3] = ["NO_SCHEDULE", "NO_EXECUTE", "PREFER_NO_SCHEDULE"];
/// Prefixes that the kubelet may not set on its own node, and those it may
/// (<https://kubernetes.io/docs/reference/access-authn-authz/admission-controllers/#noderestriction>).
const KEPT: [&str; 2] = ["kubernetes.io", "k8s.io"];
const ALLOWED: [&str; 2] = ["kubelet.kubernetes.io", "node.kubernetes.io"];

pub(super) fn examine(subject: &Subject) -> Vec<Finding> {
    let pools = subject.pools();
    let mut found: Vec<Finding> = pools.iter().flat_map(of_pool).collect();
    let zones = subject.of_kind("aws.lookups").filter_map(|step| step.number("/zone_count")).max().unwrap_or(0);
    for pool in pools.iter().filter(|pool| pool.takes_anything() && 0 < pool.counts.1 && pool.counts.1 < zones) {
        found.push(SPREAD.note(
            format!("pool {} has {} nodes in {zones} zones", pool.name, pool.counts.1),
            "a zone that fails takes more than its share along",
            "give it as many nodes as there are zones",
        ));
    }
    if !pools.is_empty() {
        found.extend(together(subject, &pools));
    }
    found.extend(limits(subject));
    found
}

fn of_pool(pool: &Pool) -> Vec<Finding> {
    let mut found = Vec::new();
    let Pool { name, counts: (least, desired, most), .. } = pool;
    if !(0 <= *least && least <= desired && desired <= most && *most >= 1) {
        found.push(COUNTS.blocker(
            format!("pool {name} has min {least}, desired {desired}, max {most}"),
            "EKS refuses the node group",
            "set 0 ≤ min ≤ desired ≤ max, and max to 1 at least",
        ));
    } else if *desired == 0 {
        found.push(DESIRED_ZERO.warning(
            format!("pool {name} begins without nodes"),
            "what is meant for it stays pending until somebody scales it",
            "set desired to 1 at least, or leave the pool out",
        ));
    }
    for (key, effect) in &pool.taints {
        if key.is_empty() || !EFFECTS.contains(&effect.as_str()) {
            found.push(TAINTS.blocker(
                format!("pool {name}: taint {key:?} has effect {effect:?}"),
                "EKS refuses the node group",
                format!("effects are {}", EFFECTS.join(", ")),
            ));
        }
    }
    let wrong: Vec<String> = pool
        .labels
        .iter()
        .filter(|(key, value)| !is_label(key, value))
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    if !wrong.is_empty() {
        found.push(LABELS.blocker(
            format!("pool {name}: {}", wrong.join(", ")),
            "nodes with such a label are not let into the cluster (KubernetesLabelInvalid)",
            "use a prefix of your own, and letters, digits, '-', '_' and '.' up to 63",
        ));
    }
    if let Some(gib) = pool.disk_gib.filter(|gib| *gib < SMALLEST_DISK_GIB) {
        found.push(DISK.blocker(
            format!("nodes of pool {name} get disks of {gib} GiB"),
            "the image does not fit, or the first containers fill it and are evicted",
            format!("set disk_gib to {SMALLEST_DISK_GIB} at least"),
        ));
    }
    found
}

fn is_label(key: &str, value: &str) -> bool {
    let part = |text: &str, longest: usize| {
        let ends = |text: &str| {
            text.starts_with(|c: char| c.is_ascii_alphanumeric()) && text.ends_with(|c: char| c.is_ascii_alphanumeric())
        };
        text.len() <= longest && ends(text) && text.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
    };
    let (prefix, name) = key.split_once('/').map_or((None, key), |(prefix, name)| (Some(prefix), name));
    let kept = prefix.is_some_and(|prefix| {
        let of = |owner: &&str| prefix == *owner || prefix.ends_with(&format!(".{owner}"));
        KEPT.iter().any(of) && !ALLOWED.iter().any(of)
    });
    !kept && prefix.is_none_or(|prefix| part(prefix, 253)) && part(name, 63) && (value.is_empty() || part(value, 63))
}

fn together(subject: &Subject, pools: &[Pool]) -> Vec<Finding> {
    let mut found = Vec::new();
    let open: Vec<&Pool> = pools.iter().filter(|pool| pool.takes_anything()).collect();
    let nodes: u64 = open.iter().map(|pool| pool.desired()).sum();
    let vault = subject.of_kind("vault.install").any(|step| step.number("/replicas").is_none_or(|pods| pods >= 3));
    let wanting: Vec<&str> = [("Argo CD", subject.has("argocd.install")), ("Vault", vault)]
        .into_iter()
        .filter_map(|(what, wanted)| wanted.then_some(what))
        .collect();
    if open.is_empty() {
        found.push(TAINTED.blocker(
            "every pool has taints that keep pods away".to_owned(),
            "CoreDNS, the volume driver and everything of the platform stay pending",
            "leave one pool without taints",
        ));
    } else if nodes < HIGHLY_AVAILABLE && !wanting.is_empty() {
        found.push(AVAILABLE.blocker(
            format!(
                "{nodes} node(s) take pods without tolerations; {} wants {HIGHLY_AVAILABLE}",
                wanting.join(" and ")
            ),
            "its pods refuse to share a node: one stays pending, and the run waits for it in vain",
            "give a pool without taints three nodes",
        ));
    }
    found
}

/// Thousandths of a CPU or of a byte, as far as quotas of namespaces are written.
fn quantity(text: &str) -> Option<f64> {
    let digits = text.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(text.len());
    let (number, unit) = text.split_at_checked(digits)?;
    let factor = match unit {
        "m" => 0.001,
        "" => 1.0,
        "k" => 1e3,
        "M" => 1e6,
        "G" => 1e9,
        "T" => 1e12,
        "Ki" => 1_024.0,
        "Mi" => 1_048_576.0,
        "Gi" => 1_073_741_824.0,
        "Ti" => 1_099_511_627_776.0,
        _ => return None,
    };
    Some(number.parse::<f64>().ok()? * factor)
}

fn limits(subject: &Subject) -> Vec<Finding> {
    let mut found = Vec::new();
    for step in subject.of_kind("kubernetes.resource_quota") {
        let value = |key: &str| step.spec.get("hard")?.get(key)?.as_str();
        for what in ["cpu", "memory"] {
            let (Some(requests), Some(limits)) = (value(&format!("requests.{what}")), value(&format!("limits.{what}")))
            else {
                continue;
            };
            if quantity(limits).zip(quantity(requests)).is_some_and(|(limits, requests)| limits < requests) {
                found.push(LIMITS.warning(
                    format!("{}: {what} requests up to {requests}, limits up to {limits}", step.name),
                    "a limit is never below a request: what may be requested beyond the limit never can be",
                    format!("set limits_{what} to {requests} at least"),
                ));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Proves which labels a node may carry.
    #[test]
    fn labels_of_others_are_told_apart() {
        for key in ["platform/pool", "pool", "node.kubernetes.io/role", "a.b-c.d/e_f.g"] {
            assert!(is_label(key, "x-1"), "{key}");
        }
        for key in ["kubernetes.io/role", "node-role.kubernetes.io/worker", "k8s.io/x", "-a", "a/b/c", "", "ä"] {
            assert!(!is_label(key, "x"), "{key}");
        }
        assert!(is_label("a", "") && !is_label("a", "no spaces") && !is_label("a", &"x".repeat(64)));
    }
}
