//! What production wants, and what nobody should be without: approvals, protection, encryption, records of who did what.

use platflow_engine::plan::OnFailure;
use platflow_steps::preflight::{Check, Family, Finding, Subject, SubjectStep};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

static APPROVAL: Check =
    Check::of_request("policy.approval", Family::Policy, "Production waits for an approval before its first change");
static APPROVERS: Check = Check::of_request("policy.approvers", Family::Policy, "Who may approve production is named");
static PROTECTION: Check =
    Check::of_request("policy.deletion-protection", Family::Policy, "A production cluster is protected from deletion");
static ROLLBACK: Check =
    Check::of_request("policy.on-failure", Family::Policy, "Production is not rolled back by itself");
static NAT: Check =
    Check::of_request("policy.nat-per-zone", Family::Policy, "Each zone of production has a NAT gateway of its own");
static SPOT: Check =
    Check::of_request("policy.spot-in-production", Family::Policy, "Production does not run on spot machines alone");
static ADMINS: Check =
    Check::of_request("policy.admins", Family::Policy, "Somebody beside the caller administers a production cluster");
static RETENTION: Check =
    Check::of_request("policy.log-retention", Family::Policy, "Logs are kept for a time that CloudWatch knows");
static AUDIT: Check = Check::of_request("policy.audit-log", Family::Policy, "Clusters keep an audit log");
static ENCRYPTION: Check = Check::of_request(
    "policy.secrets-encryption",
    Family::Policy,
    "Secrets of clusters are encrypted with a key of their own",
);
static METADATA: Check =
    Check::of_request("policy.instance-metadata", Family::Policy, "Pods cannot take the role of their node");
static POD_SECURITY: Check =
    Check::of_request("policy.pod-security", Family::Policy, "Namespaces enforce a Pod Security level");
static INGRESS: Check =
    Check::of_request("policy.open-ingress", Family::Policy, "No security group lets everybody in to be administered");

pub(super) static CHECKS: &[&Check] = &[
    &APPROVAL,
    &APPROVERS,
    &PROTECTION,
    &ROLLBACK,
    &NAT,
    &SPOT,
    &ADMINS,
    &RETENTION,
    &AUDIT,
    &ENCRYPTION,
    &METADATA,
    &POD_SECURITY,
    &INGRESS,
];

/// What `PutRetentionPolicy` takes.
const RETENTIONS: [i64; 22] =
    [1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1_096, 1_827, 2_192, 2_557, 2_922, 3_288, 3_653];
/// Ports over which machines are administered.
const ADMINISTRATION: [i64; 2] = [22, 3_389];
/// Kinds that change nothing, and may come before an approval.
const HARMLESS: [&str; 3] = ["aws.lookups", "core.approval", "core.wait"];

pub(super) fn examine(subject: &Subject) -> Vec<Finding> {
    let mut found = everywhere(subject);
    if subject.production {
        found.extend(approvals(subject));
        found.extend(production(subject));
    }
    found
}

/// Whether one of `roots` comes before a step.
fn comes_after(subject: &Subject, step: &SubjectStep, roots: &BTreeSet<&str>) -> bool {
    let by_name: BTreeMap<&str, &SubjectStep> = subject.steps.iter().map(|step| (step.name.as_str(), step)).collect();
    let (mut open, mut seen) = (vec![step], BTreeSet::new());
    while let Some(at) = open.pop() {
        for need in &at.needs {
            if roots.contains(need.as_str()) {
                return true;
            }
            if seen.insert(need.as_str()) {
                open.extend(by_name.get(need.as_str()));
            }
        }
    }
    false
}

fn approvals(subject: &Subject) -> Vec<Finding> {
    let approvals: BTreeSet<&str> = subject.of_kind("core.approval").map(|step| step.name.as_str()).collect();
    let changing = subject.steps.iter().filter(|step| !HARMLESS.contains(&step.kind.as_str()));
    let unasked: Vec<&str> = changing
        .filter(|step| !comes_after(subject, step, &approvals))
        .map(|step| step.name.as_str())
        .take(5)
        .collect();
    let mut found = Vec::new();
    if !unasked.is_empty() {
        found.push(APPROVAL.blocker(
            format!("nobody is asked before {}", unasked.join(", ")),
            "production would change without anybody's consent",
            "add a step of kind core.approval that these steps need",
        ));
    }
    for step in subject.of_kind("core.approval").filter(|step| step.texts("/approvers").is_empty()) {
        found.push(APPROVERS.warning(
            format!("{} may be approved by anybody", step.name),
            "whoever starts the run can approve it as well",
            "name approvers",
        ));
    }
    found
}

fn production(subject: &Subject) -> Vec<Finding> {
    let mut found = Vec::new();
    for step in subject.of_kind("aws.eks_cluster").filter(|step| !step.is("/deletion_protection")) {
        found.push(PROTECTION.warning(
            format!("{} is not protected from deletion", step.name),
            "one wrong command takes the control plane away",
            "set deletion_protection",
        ));
    }
    if subject.on_failure == OnFailure::Rollback {
        found.push(ROLLBACK.warning(
            "a step that fails has the whole run rolled back",
            "what is used already is taken away because something else failed",
            "leave on_failure at park",
        ));
    }
    let (gateways, private) = (
        subject.of_kind("aws.nat_gateway").count(),
        subject.of_kind("aws.subnet").filter(|step| !step.is("/public")).count(),
    );
    if gateways > 0 && gateways < private {
        found.push(NAT.warning(
            format!("{private} private subnets go out through {gateways} NAT gateway(s)"),
            "the failure of one zone cuts the others off, too",
            "set nat_gateways to all zones",
        ));
    }
    let pools = subject.pools();
    let spot: Vec<&str> = pools.iter().filter(|pool| pool.spot).map(|pool| pool.name.as_str()).collect();
    if !spot.is_empty() {
        found.push(SPOT.warning(
            format!("{} on the spot market", spot.join(", ")),
            "their nodes may go with two minutes' notice, all at once",
            "buy production on demand",
        ));
    }
    let entries = subject.of_kind("aws.access_entry").filter(|step| step.text("/principal_arn") != Some("caller"));
    if subject.has("aws.eks_cluster") && entries.count() == 0 {
        found.push(ADMINS.warning(
            "nobody but the caller administers the cluster",
            "when that role is gone, nobody gets in",
            "name admins",
        ));
    }
    found
}

fn everywhere(subject: &Subject) -> Vec<Finding> {
    let mut found = Vec::new();
    for step in subject.of_kind("aws.log_group") {
        if let Some(days) = step.number("/retention_days").filter(|days| !RETENTIONS.contains(days)) {
            let nearest = RETENTIONS.iter().min_by_key(|known| (*known - days).abs()).copied().unwrap_or(30);
            found.push(RETENTION.blocker(
                format!("{}: {days} days", step.name),
                "CloudWatch refuses it",
                format!("the nearest that it takes is {nearest}"),
            ));
        }
    }
    for step in subject.of_kind("aws.eks_cluster") {
        let logs = step.texts("/log_types");
        if !logs.iter().any(|kind| kind == "audit") {
            found.push(AUDIT.note(
                format!("{} keeps no audit log", step.name),
                "afterwards nobody can tell who did what",
                "add audit to log_types",
            ));
        }
        if step.lacks("/kms_key_arn") {
            found.push(ENCRYPTION.note(
                format!("{} encrypts secrets with a key of AWS", step.name),
                "it cannot be revoked; one of its own can be given only once, and never taken back",
                "set kms_key_arn",
            ));
        }
    }
    for step in subject.of_kind("aws.launch_template") {
        let open = step.spec.get("http_tokens_required") == Some(&Value::Bool(false));
        let hops = step.number("/hop_limit").unwrap_or(1);
        if open || hops > 1 {
            found.push(METADATA.warning(
                format!("{}: tokens {}, hop limit {hops}", step.name, if open { "not required" } else { "required" }),
                "a pod can ask the metadata service for its node's role",
                "set http_tokens_required: true and hop_limit: 1",
            ));
        }
    }
    for step in subject.of_kind("kubernetes.namespace").filter(|step| step.lacks("/pod_security")) {
        found.push(POD_SECURITY.note(
            format!("{} enforces no Pod Security level", step.name),
            "any pod in it may take over its node",
            "set pod_security",
        ));
    }
    for step in subject.of_kind("aws.security_group") {
        let rules = step.spec.get("rules").and_then(Value::as_array);
        for rule in rules.into_iter().flatten().filter(|rule| lets_everybody_in(rule)) {
            found.push(INGRESS.warning(
                format!("{} lets 0.0.0.0/0 in to port {}", step.name, rule.get("from_port").unwrap_or(&Value::Null)),
                "it is found and tried within minutes",
                "name the ranges that need it, or use Session Manager",
            ));
        }
    }
    found
}

fn lets_everybody_in(rule: &Value) -> bool {
    let text = |key: &str| rule.get(key).and_then(Value::as_str).unwrap_or_default();
    let port = |key: &str, all: i64| rule.get(key).and_then(Value::as_i64).unwrap_or(all);
    let (from, to) = (port("from_port", 0), port("to_port", 65_535));
    text("direction") == "ingress"
        && text("cidr") == "0.0.0.0/0"
        && ADMINISTRATION.iter().any(|wanted| (from..=to).contains(wanted))
}
