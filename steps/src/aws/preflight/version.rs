//! Kubernetes versions: offered, supported for long enough, reachable from the present one, and with images.
//!
//! EKS is asked; the dated table beside this file answers where EKS does not tell a date.

use super::super::eks_cluster;
use super::{Looked, account::Account};
use crate::preflight::{Check, Family, Finding};
use aws_sdk_eks::types::ClusterVersionInformation;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use platflow_engine::failure::StepError;
use serde::Deserialize;
use serde_json::Value;

static OFFERED: Check =
    Check::of_request("version.supported", Family::Version, "EKS offers the Kubernetes version in standard support");
static ENDING: Check =
    Check::of_request("version.support-ends", Family::Version, "Standard support lasts for another 90 days");
static EXTENDED: Check =
    Check::of_world("version.extended-support", Family::Version, "The cluster that exists is in standard support");
static STEP: Check = Check::of_request(
    "version.one-minor-at-a-time",
    Family::Version,
    "The version is that of the cluster or the next one",
);
static IMAGES: Check =
    Check::of_request("version.images", Family::Version, "There are images of the pools' kind for the version");
static TABLE: Check =
    Check::of_world("version.table", Family::Version, "The dates that this program knows are those of EKS");

pub(super) static CHECKS: &[&Check] = &[&OFFERED, &ENDING, &EXTENDED, &STEP, &IMAGES, &TABLE];

/// So much notice an owner needs for an upgrade that is tested first.
const NOTICE_DAYS: i64 = 90;
/// Since then EKS has no images of Amazon Linux 2
/// (<https://docs.aws.amazon.com/eks/latest/userguide/eks-ami-deprecation-faqs.html>).
const LAST_WITH_AL2: u32 = 32;

#[derive(Deserialize)]
struct Table {
    date: String,
    versions: Vec<Dated>,
}

/// A version with its dates.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
struct Dated {
    version: String,
    standard_until: Date,
}

fn table() -> Result<Table, StepError> {
    serde_json::from_str(include_str!("versions.json"))
        .map_err(|error| StepError::permanent(format!("the table of Kubernetes versions cannot be read: {error}")))
}

/// `1.35` as a number that sorts; nothing for what is no version.
fn minor(version: &str) -> Option<u32> {
    version.strip_prefix("1.")?.parse().ok()
}

fn is_standard(one: &ClusterVersionInformation) -> bool {
    let by_status = one.version_status().map(|status| status.as_str() == "STANDARD_SUPPORT");
    by_status.unwrap_or_else(|| one.status().is_some_and(|status| status.as_str() == "standard-support"))
}

fn standard_until(one: &ClusterVersionInformation) -> Option<Date> {
    let seconds = one.end_of_standard_support_date()?.secs();
    Some(jiff::Timestamp::from_second(seconds).ok()?.to_zoned(TimeZone::UTC).date())
}

pub(super) async fn versions(account: &Account<'_>) -> Looked {
    if !account.subject.has("aws.eks_cluster") {
        return Ok(Vec::new());
    }
    let (offered, table) = (account.versions().await?, table()?);
    let mut found = Vec::new();
    let mut standard: Vec<&str> =
        offered.iter().filter(|one| is_standard(one)).filter_map(|one| one.cluster_version()).collect();
    standard.sort_by_key(|version| minor(version));
    let lookups = account.subject.of_kind("aws.lookups").next();
    let named = lookups.and_then(|step| step.text("/kubernetes_version"));
    let pinned = lookups.and_then(|step| step.outputs.as_ref()?.get("kubernetes_version").and_then(Value::as_str));
    let in_spec = account.subject.named("aws.eks_cluster", "/version").next().map(|(_, version)| version);
    let wanted = named.or(pinned).or(in_spec).or(standard.last().copied());
    if wanted.is_none() {
        found.push(OFFERED.blocker(
            "no Kubernetes version is in standard support",
            "the run would stop at its first step",
            "name one with kubernetes_version",
        ));
    }
    if let Some(wanted) = wanted {
        if !standard.contains(&wanted) && pinned != Some(wanted) {
            found.push(OFFERED.blocker(
                format!("Kubernetes {wanted} is not in standard support; these are: {}", standard.join(", ")),
                "CreateCluster refuses it, or it costs six times as much from the first day",
                "set kubernetes_version to one of them, or leave it out",
            ));
        }
        let entry = offered.iter().find(|one| one.cluster_version() == Some(wanted));
        let by_table = table.versions.iter().find(|one| one.version == wanted).map(|one| one.standard_until);
        found.extend(ending(account, wanted, entry.and_then(standard_until).or(by_table)));
        found.extend(images(account, wanted));
        found.extend(steps(account, wanted).await?);
    }
    let differing: Vec<String> = offered.iter().filter_map(|one| differs(one, &table)).collect();
    if !differing.is_empty() {
        found.push(TABLE.note(
            format!("{} (table of {})", differing.join(", "), table.date),
            "without an answer of EKS this program would go by the older date",
            "nothing now; a newer platflow has a newer table",
        ));
    }
    Ok(found)
}

fn differs(one: &ClusterVersionInformation, table: &Table) -> Option<String> {
    let (version, told) = (one.cluster_version()?, standard_until(one)?);
    match table.versions.iter().find(|known| known.version == version) {
        Some(known) if known.standard_until == told => None,
        Some(known) => Some(format!("{version} ends on {told}, not on {}", known.standard_until)),
        None => Some(format!("{version} is not known here")),
    }
}

fn ending(account: &Account<'_>, version: &str, until: Option<Date>) -> Option<Finding> {
    let until = until?;
    let today = account.subject.now.to_zoned(TimeZone::UTC).date();
    let left = i64::from(today.until(until).ok()?.get_days());
    if left < 0 && account.subject.of_kind("aws.eks_cluster").any(|step| step.outputs.is_some()) {
        return Some(EXTENDED.warning(
            format!("standard support of Kubernetes {version} ended on {until}"),
            "the control plane costs $0.60 instead of $0.10 an hour, and is upgraded by force when extended support ends",
            "upgrade: --refresh kubernetes_version, or set kubernetes_version",
        ));
    }
    (0..NOTICE_DAYS).contains(&left).then(|| {
        ENDING.warning(
            format!("standard support of Kubernetes {version} ends on {until}, in {left} days"),
            "after that the control plane costs $0.60 instead of $0.10 an hour, or is upgraded by force",
            "begin with the newest version in standard support, or plan the upgrade",
        )
    })
}

fn images(account: &Account<'_>, version: &str) -> Vec<Finding> {
    let too_new = minor(version).is_some_and(|minor| minor > LAST_WITH_AL2);
    let old = account.pools.iter().filter(|pool| too_new && pool.ami_type.starts_with("AL2_"));
    old.map(|pool| {
        IMAGES.blocker(
            format!("pool {} wants {} images for Kubernetes {version}", pool.name, pool.ami_type),
            format!("since 1.{} there are none of Amazon Linux 2", LAST_WITH_AL2 + 1),
            "use AL2023_x86_64_STANDARD or AL2023_ARM_64_STANDARD",
        )
    })
    .collect()
}

/// EKS upgrades one minor version at a time, and never back.
async fn steps(account: &Account<'_>, wanted: &str) -> Looked {
    let mut found = Vec::new();
    for step in account.subject.of_kind("aws.eks_cluster").filter(|step| step.outputs.is_some()) {
        let Some(name) = step.text("/name") else { continue };
        let Some(cluster) = eks_cluster::get(account.aws, name).await? else { continue };
        let present = cluster.version().unwrap_or_default();
        let (Some(from), Some(to)) = (minor(present), minor(wanted)) else { continue };
        if to < from || to > from + 1 {
            found.push(STEP.blocker(
                format!("cluster {name} runs Kubernetes {present}, {wanted} is wanted"),
                "EKS upgrades one minor version at a time, and does not go back",
                format!(
                    "set kubernetes_version to {}",
                    if to < from { present.to_owned() } else { format!("1.{}", from + 1) }
                ),
            ));
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Proves that the table can be read, newest first, each version supported after the one before it.
    #[test]
    fn the_table_is_in_order() {
        let table = table().unwrap();
        let known: Vec<_> =
            table.versions.iter().map(|one| (minor(&one.version).unwrap(), one.standard_until)).collect();
        assert!(
            known.len() > 5 && known.windows(2).all(|pair| pair[0] > pair[1] && pair[0].1 > pair[1].1),
            "{known:?}"
        );
    }
}
