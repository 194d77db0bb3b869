//! What EKS offers: Kubernetes versions with their dates, add-on versions, access policies.

use serde_json::{Value, json};

use super::super::wire::texts;
use super::super::{Answer, Call, wire::text};
use super::not_found;

/// The version that a cluster gets when none is named.
pub(super) const DEFAULT_VERSION: &str = "1.35";

/// Version, release, end of standard support, end of extended support (Unix seconds), status.
const VERSIONS: &[(&str, i64, i64, i64, &str)] = &[
    ("1.36", 1_780_358_400, 1_817_164_800, 1_848_700_800, "STANDARD_SUPPORT"),
    ("1.35", 1_769_558_400, 1_806_105_600, 1_837_728_000, "STANDARD_SUPPORT"),
    ("1.34", 1_759_363_200, 1_796_169_600, 1_827_705_600, "STANDARD_SUPPORT"),
    ("1.33", 1_748_476_800, 1_785_283_200, 1_816_819_200, "EXTENDED_SUPPORT"),
];

const POLICIES: &[&str] = &[
    "AmazonEKSClusterAdminPolicy",
    "AmazonEKSAdminPolicy",
    "AmazonEKSEditPolicy",
    "AmazonEKSViewPolicy",
    "AmazonEKSAdminViewPolicy",
];

const ADDONS: &[(&str, &str)] = &[
    ("vpc-cni", "v1.21.1-eksbuild.1"),
    ("kube-proxy", "v{}.0-eksbuild.2"),
    ("coredns", "v1.13.1-eksbuild.1"),
    ("aws-ebs-csi-driver", "v1.53.0-eksbuild.1"),
    ("eks-pod-identity-agent", "v1.3.10-eksbuild.1"),
    ("metrics-server", "v0.8.0-eksbuild.3"),
    ("snapshot-controller", "v8.3.0-eksbuild.1"),
];

pub(super) fn is_supported(version: &str) -> bool {
    VERSIONS.iter().any(|(known, ..)| *known == version)
}

pub(super) fn is_next(from: &str, to: &str) -> bool {
    let minor = |version: &str| version.rsplit('.').next().and_then(|part| part.parse::<u32>().ok()).unwrap_or(0);
    is_supported(to) && minor(to) == minor(from) + 1
}

pub(super) fn cluster_versions(call: &Call<'_>, input: &Value) -> Answer {
    let until = |version: &str, usual: i64| call.state.shape().standard_until.get(version).copied().unwrap_or(usual);
    let status = |version: &str, usual: i64, status: &'static str| {
        if until(version, usual) * 1_000 < call.now_ms { "EXTENDED_SUPPORT" } else { status }
    };
    let mut wanted = texts(input, "/clusterVersions");
    wanted.extend(Some(text(input, "/clusterVersions").to_owned()).filter(|one| !one.is_empty()));
    let (lower, upper) = (text(input, "/status"), text(input, "/versionStatus"));
    let fits = |(version, .., status): &(&str, i64, i64, i64, &str)| {
        (wanted.is_empty() || wanted.iter().any(|one| one == version))
            && (upper.is_empty() || upper == *status)
            && (lower.is_empty() || lower.replace('-', "_").eq_ignore_ascii_case(status))
            && (text(input, "/defaultOnly") != "true" || *version == DEFAULT_VERSION)
    };
    let shaped = VERSIONS.iter().map(|(version, release, standard, extended, usual)| {
        (*version, *release, until(version, *standard), *extended, status(version, *standard, usual))
    });
    let found: Vec<Value> = shaped.filter(fits).map(|(version, release, standard, extended, status)| json!({
        "clusterVersion": version, "clusterType": "eks", "defaultPlatformVersion": "eks.1", "defaultVersion": version == DEFAULT_VERSION, "releaseDate": release,
        "endOfStandardSupportDate": standard, "endOfExtendedSupportDate": extended, "status": if status == "STANDARD_SUPPORT" { "standard-support" } else { "extended-support" },
        "versionStatus": status, "kubernetesPatchVersion": format!("{version}.0"),
    })).collect();
    Ok(json!({"clusterVersions": found}))
}

/// The versions of an add-on for a Kubernetes version, newest first.
pub(super) fn versions_of(addon: &str, kubernetes: &str) -> Option<Vec<String>> {
    let (_, version) = ADDONS.iter().find(|(name, _)| *name == addon)?;
    Some(vec![version.replace("{}", kubernetes)])
}

pub(super) fn addon_versions(call: &Call<'_>, input: &Value) -> Answer {
    let shape = call.state.shape();
    let architectures = |name: &str| {
        shape.addon_architectures.get(name).map_or_else(|| json!(["amd64", "arm64"]), |known| json!(known))
    };
    let (wanted, kubernetes) = (text(input, "/addonName"), text(input, "/kubernetesVersion"));
    let kubernetes = if kubernetes.is_empty() { DEFAULT_VERSION } else { kubernetes };
    let found: Vec<Value> = ADDONS.iter().filter(|(name, _)| (wanted.is_empty() || *name == wanted) && !shape.no_addons.contains(*name)).map(|(name, _)| {
        let versions: Vec<Value> = versions_of(name, kubernetes).into_iter().flatten().map(|version| json!({
            "addonVersion": version, "architecture": architectures(name), "requiresConfiguration": false,
            "compatibilities": [{"clusterVersion": kubernetes, "platformVersions": ["*"], "defaultVersion": true}],
        })).collect();
        json!({"addonName": name, "type": "networking", "owner": "aws", "publisher": "eks", "addonVersions": versions})
    }).collect();
    if found.is_empty() {
        Err(not_found(format!("No addon found for name: {wanted}")))
    } else {
        Ok(json!({"addons": found}))
    }
}

pub(super) fn addon_configuration(input: &Value) -> Answer {
    let name = text(input, "/addonName");
    Ok(
        json!({"addonName": name, "addonVersion": input["addonVersion"], "configurationSchema": schema(name).to_string()}),
    )
}

/// The schema of an add-on's configuration: closed, as those of AWS are, with the fields that people set most.
fn schema(name: &str) -> Value {
    let object = json!({"type": "object"});
    let own = match name {
        "vpc-cni" => {
            json!({"enableNetworkPolicy": {"type": "string", "enum": ["true", "false"]}, "enableWindowsIpam": {"type": "string"}, "env": object, "init": object, "nodeAgent": object})
        }
        "coredns" => {
            json!({"replicaCount": {"type": "integer"}, "corefile": {"type": "string"}, "autoScaling": object})
        }
        "aws-ebs-csi-driver" => {
            json!({"controller": object, "node": object, "defaultStorageClass": {"type": "object", "additionalProperties": false, "properties": {"enabled": {"type": "boolean"}}}})
        }
        _ => json!({}),
    };
    let mut properties = json!({"affinity": object, "nodeSelector": object, "podAnnotations": object, "podLabels": object, "resources": object, "tolerations": {"type": "array"}});
    if let (Some(all), Some(own)) = (properties.as_object_mut(), own.as_object()) {
        all.extend(own.clone());
    }
    json!({"$schema": "http://json-schema.org/draft-06/schema#", "type": "object", "additionalProperties": false, "properties": properties})
}

pub(super) fn is_access_policy(arn: &str) -> bool {
    arn.strip_prefix("arn:aws:eks::aws:cluster-access-policy/").is_some_and(|name| POLICIES.contains(&name))
}

pub(super) fn access_policies() -> Value {
    json!({"accessPolicies": POLICIES.iter().map(|name| json!({"name": name, "arn": format!("arn:aws:eks::aws:cluster-access-policy/{name}")})).collect::<Vec<_>>()})
}
