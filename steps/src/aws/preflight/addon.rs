//! Add-ons: offered for the version, on every architecture, with a configuration that fits its schema, and none forgotten.
//!
//! Of the schema, types, known properties, enumerations and patterns of required fields are held against the
//! configuration; what else it says is EKS's to judge.

use super::super::failure::look;
use super::{Looked, account::Account};
use crate::preflight::{Check, Family, Finding, SubjectStep};
use aws_sdk_eks::types::AddonVersionInfo;
use futures::future::try_join_all;
use platflow_engine::failure::StepError;
use serde_json::Value;
use std::collections::BTreeSet;

static OFFERED: Check =
    Check::of_request("addon.offered", Family::Addon, "Every add-on is offered for the Kubernetes version");
static VERSION: Check =
    Check::of_request("addon.version", Family::Addon, "Every add-on version fits the Kubernetes version");
static SCHEMA: Check =
    Check::of_request("addon.configuration", Family::Addon, "Configurations of add-ons fit their schemas");
static ARCHITECTURE: Check =
    Check::of_request("addon.architecture", Family::Addon, "Add-ons run on the architecture of every pool");
static POLICIES: Check =
    Check::of_request("addon.network-policy", Family::Addon, "Network policies are enforced where there are any");
static DNS: Check = Check::of_request("addon.dns", Family::Addon, "Workloads can resolve names in the cluster");
static NETWORK: Check = Check::of_request("addon.network", Family::Addon, "Nodes get a network plugin");
static DRIVER: Check = Check::of_request("storage.driver", Family::Storage, "Volumes have a driver");
static DRIVER_ROLE: Check =
    Check::of_request("storage.driver-role", Family::Storage, "The volume driver has a role of its own");

pub(super) static CHECKS: &[&Check] =
    &[&OFFERED, &VERSION, &SCHEMA, &ARCHITECTURE, &POLICIES, &DNS, &NETWORK, &DRIVER, &DRIVER_ROLE];

/// Steps that run pods which call each other by name.
const NEED_NAMES: [&str; 4] = ["argocd.install", "vault.install", "external_secrets.install", "smoke.dns"];

pub(super) async fn addons(account: &Account<'_>) -> Looked {
    let mut found = together(account);
    let steps: Vec<&SubjectStep> = account.subject.of_kind("aws.addon").collect();
    let looked_up = account.subject.of_kind("aws.lookups").flat_map(|step| step.texts("/addons"));
    let mut names: BTreeSet<String> = looked_up.collect();
    names.extend(steps.iter().filter_map(|step| step.text("/name")).map(str::to_owned));
    let kubernetes = kubernetes(account).await?;
    let Some(kubernetes) = kubernetes.filter(|_| !names.is_empty()) else { return Ok(found) };
    let names: Vec<String> = names.into_iter().collect();
    let all = try_join_all(names.iter().map(|name| offered(account, name, &kubernetes))).await?;
    for (name, versions) in names.iter().zip(&all) {
        let of_name = steps.iter().copied().find(|step| step.text("/name") == Some(name));
        found.extend(judged(account, name, of_name, versions, &kubernetes).await?);
    }
    Ok(found)
}

/// The version that the cluster will have.
async fn kubernetes(account: &Account<'_>) -> Result<Option<String>, StepError> {
    let lookups = account.subject.of_kind("aws.lookups").next();
    let named = lookups.and_then(|step| step.text("/kubernetes_version"));
    let pinned = lookups.and_then(|step| step.outputs.as_ref()?.get("kubernetes_version").and_then(Value::as_str));
    if let Some(version) = named.or(pinned) {
        return Ok(Some(version.to_owned()));
    }
    let number = |version: &&str| version.rsplit('.').next().and_then(|minor| minor.parse::<u32>().ok());
    let all = account
        .versions()
        .await?
        .iter()
        .filter(|one| one.version_status().is_none_or(|status| status.as_str() == "STANDARD_SUPPORT"));
    Ok(all.filter_map(|one| one.cluster_version()).max_by_key(number).map(str::to_owned))
}

async fn offered(account: &Account<'_>, name: &str, kubernetes: &str) -> Result<Vec<AddonVersionInfo>, StepError> {
    let request = account.aws.eks.describe_addon_versions().addon_name(name).kubernetes_version(kubernetes);
    match look("DescribeAddonVersions", request.send()).await {
        Ok(answer) => Ok(answer.addons().iter().flat_map(|addon| addon.addon_versions()).cloned().collect()),
        Err(failure) if failure.is_not_found() || failure.code == "InvalidParameterException" => Ok(Vec::new()),
        Err(failure) => Err(failure.into()),
    }
}

fn fits(one: &AddonVersionInfo, kubernetes: &str) -> bool {
    one.compatibilities().is_empty()
        || one.compatibilities().iter().any(|fit| fit.cluster_version() == Some(kubernetes))
}

async fn judged(
    account: &Account<'_>,
    name: &str,
    step: Option<&SubjectStep>,
    versions: &[AddonVersionInfo],
    kubernetes: &str,
) -> Looked {
    let mut found = Vec::new();
    let fitting: Vec<&AddonVersionInfo> = versions.iter().filter(|one| fits(one, kubernetes)).collect();
    if fitting.is_empty() {
        found.push(OFFERED.blocker(
            format!("EKS offers no add-on {name} for Kubernetes {kubernetes}"),
            "the run would stop at its look-ups, or when the cluster is up",
            "check its name, or choose another Kubernetes version",
        ));
        return Ok(found);
    }
    let wanted = step.and_then(|step| step.text("/version"));
    let by_default = fitting.iter().find(|one| one.compatibilities().iter().any(|fit| fit.default_version()));
    let chosen = match wanted {
        Some(wanted) => fitting.iter().find(|one| one.addon_version() == Some(wanted)),
        None => by_default.or(fitting.first()),
    };
    let Some(chosen) = chosen else {
        let known: Vec<&str> = fitting.iter().filter_map(|one| one.addon_version()).take(5).collect();
        found.push(VERSION.blocker(
            format!("add-on {name} {} does not fit Kubernetes {kubernetes}", wanted.unwrap_or_default()),
            "CreateAddon refuses it when the cluster is up",
            format!("these fit: {}", known.join(", ")),
        ));
        return Ok(found);
    };
    found.extend(architectures(account, name, chosen));
    if let (Some(configuration), Some(version)) =
        (step.and_then(|step| step.spec.get("configuration")), chosen.addon_version())
        && configuration.as_object().is_some_and(|fields| !fields.is_empty())
    {
        let request = account.aws.eks.describe_addon_configuration().addon_name(name).addon_version(version);
        let answer = look("DescribeAddonConfiguration", request.send()).await?;
        let schema: Value =
            answer.configuration_schema().and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
        let mut wrong = Vec::new();
        misfits(&schema, &schema, configuration, "", &mut wrong);
        if !wrong.is_empty() {
            found.push(SCHEMA.blocker(
                format!("configuration of add-on {name} {version}: {}", wrong.join("; ")),
                "CreateAddon refuses it when the cluster is up",
                format!("see: aws eks describe-addon-configuration --addon-name {name} --addon-version {version}"),
            ));
        }
    }
    Ok(found)
}

fn architectures(account: &Account<'_>, name: &str, chosen: &AddonVersionInfo) -> Option<Finding> {
    let needed: BTreeSet<&str> =
        account.pools.iter().map(|pool| if pool.ami_type.contains("ARM_64") { "arm64" } else { "amd64" }).collect();
    let has: BTreeSet<&str> = chosen.architecture().iter().map(String::as_str).collect();
    let missing: Vec<&str> = needed.difference(&has).copied().collect();
    (!has.is_empty() && !missing.is_empty()).then(|| {
        ARCHITECTURE.blocker(
            format!("add-on {name} is not made for {}", missing.join(", ")),
            "its pods cannot start on those nodes",
            "choose pools of an architecture that it has",
        )
    })
}

/// What of a configuration does not fit a JSON schema: the part of it that add-ons use.
fn misfits(root: &Value, schema: &Value, value: &Value, at: &str, wrong: &mut Vec<String>) {
    let referred = schema.get("$ref").and_then(Value::as_str).and_then(|path| root.pointer(path.strip_prefix('#')?));
    let schema = referred.unwrap_or(schema);
    let kinds: Vec<&str> = match schema.get("type") {
        Some(Value::String(one)) => vec![one],
        Some(Value::Array(several)) => several.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    };
    let place = if at.is_empty() { "/" } else { at };
    if !kinds.is_empty() && !kinds.iter().any(|kind| is_of(value, kind)) {
        wrong.push(format!("{place} is {value}, not {}", kinds.join(" or ")));
        return;
    }
    if let Some(allowed) = schema.get("enum").and_then(Value::as_array)
        && !allowed.contains(value)
    {
        wrong.push(format!("{place} is {value}, none of {}", Value::Array(allowed.clone())));
    }
    let Some(fields) = value.as_object() else { return };
    let known = schema.get("properties").and_then(Value::as_object);
    let closed = schema.get("additionalProperties") == Some(&Value::Bool(false));
    for (name, inner) in fields {
        match known.and_then(|known| known.get(name)) {
            Some(schema) => misfits(root, schema, inner, &format!("{at}/{name}"), wrong),
            None if closed => wrong.push(format!("{at}/{name} is not known")),
            None => {}
        }
    }
    for name in schema.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str) {
        if !fields.contains_key(name) {
            wrong.push(format!("{at}/{name} is missing"));
        }
    }
}

fn is_of(value: &Value, kind: &str) -> bool {
    match kind {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "null" => value.is_null(),
        _ => true,
    }
}

/// What the add-ons come to together, with the steps that need them.
fn together(account: &Account<'_>) -> Vec<Finding> {
    let subject = account.subject;
    let mut found = Vec::new();
    if !subject.has("aws.eks_cluster") {
        return found;
    }
    let addon = |name: &str| subject.of_kind("aws.addon").find(|step| step.text("/name") == Some(name));
    let enforced = addon("vpc-cni").and_then(|step| step.spec.pointer("/configuration/enableNetworkPolicy"));
    let on = enforced.is_some_and(|value| value == "true" || value == true);
    if subject.has("kubernetes.network_policy") && !on {
        found.push(POLICIES.warning(
            "there are network policies, and the add-on vpc-cni is not told enableNetworkPolicy: \"true\"",
            "none of them is enforced: every pod reaches every other",
            "set configuration: {enableNetworkPolicy: \"true\"} of the add-on vpc-cni",
        ));
    }
    let has_nodes = subject.has("aws.node_group");
    if has_nodes && addon("vpc-cni").is_none() {
        found.push(NETWORK.blocker(
            "there are node groups and no add-on vpc-cni",
            "clusters are made without a network plugin: nodes never become ready",
            "add a step of kind aws.addon with name vpc-cni",
        ));
    }
    if NEED_NAMES.iter().any(|kind| subject.has(kind)) && has_nodes && addon("coredns").is_none() {
        found.push(DNS.blocker(
            "there are workloads and no add-on coredns",
            "they cannot resolve each other's names and never become ready",
            "add a step of kind aws.addon with name coredns",
        ));
    }
    let of_ebs = subject.named("kubernetes.storage_class", "/provisioner").any(|(_, name)| name == "ebs.csi.aws.com");
    match addon("aws-ebs-csi-driver") {
        None if of_ebs => found.push(DRIVER.blocker(
            "a storage class wants ebs.csi.aws.com, and no add-on aws-ebs-csi-driver is installed",
            "no volume is ever made: what claims one stays pending",
            "add a step of kind aws.addon with name aws-ebs-csi-driver",
        )),
        Some(step) if step.lacks("/service_account_role_arn") => found.push(DRIVER_ROLE.warning(
            "the add-on aws-ebs-csi-driver is given no role",
            "it acts with the role of its node, which here may not make volumes",
            "set service_account_role_arn",
        )),
        _ => {}
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// Proves that a wrong type, an unknown field of a closed object, a value outside a set and a missing field are told
    /// with their places, through references, and that what fits is not.
    #[test]
    fn configurations_are_held_against_schemas() {
        let schema = json!({
            "type": "object", "additionalProperties": false, "required": ["mode"],
            "properties": {"mode": {"enum": ["a", "b"]}, "resources": {"$ref": "#/definitions/resources"}},
            "definitions": {"resources": {"type": "object", "additionalProperties": false, "properties": {"cpu": {"type": ["string", "null"]}}}},
        });
        let told = |value: Value| {
            let mut wrong = Vec::new();
            misfits(&schema, &schema, &value, "", &mut wrong);
            wrong
        };
        assert_eq!(told(json!({"mode": "a", "resources": {"cpu": "1"}})), Vec::<String>::new());
        let wrong = told(json!({"resources": {"cpu": 1, "gpu": 1}, "colour": "red"}));
        for words in [
            "/resources/cpu is 1, not string or null",
            "/resources/gpu is not known",
            "/colour is not known",
            "/mode is missing",
        ] {
            assert!(wrong.iter().any(|one| one == words), "{words}: {wrong:?}");
        }
        assert_eq!(told(json!({"mode": "c"})), ["/mode is \"c\", none of [\"a\",\"b\"]"]);
    }
}
