//! `aws.lookups`: values asked of the account once and then pinned: zones, Kubernetes version, add-on versions.
//!
//! It reads only. Once recorded, the values stay while the spec is the same, so that the same command months later
//! changes nothing. What would make the build fail later, a quota that does not suffice included, is refused here.

use super::clients::AwsClients;
use super::ec2::{filter, sdk_filters};
use super::failure::look;
use super::quotas::{self, CapacitySpec};
use crate::contract::{Made, Record, Seen, StepKind};
use async_trait::async_trait;
use aws_sdk_ec2::types::{AvailabilityZoneState, LocationType};
use aws_sdk_eks::types::VersionStatus;
use platflow_engine::context::Context;
use platflow_engine::failure::{ErrorClass, Residue, StepError};
use platflow_engine::step::{Difference, Ownership, UndoProgress};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

/// What is asked.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LookupsSpec {
    /// How many availability zones are needed.
    pub zone_count: usize,
    /// Kubernetes minor version; without one, the newest in standard support.
    #[serde(default)]
    pub kubernetes_version: Option<String>,
    /// Add-ons whose default version for that Kubernetes version is wanted.
    #[serde(default)]
    pub addons: BTreeSet<String>,
    /// Instance types that must be offered.
    #[serde(default)]
    pub instance_types: BTreeSet<String>,
    /// Who will reach the API server: this machine must be among them. Empty: this machine alone.
    #[serde(default)]
    pub public_access_cidrs: BTreeSet<String>,
    /// Where this machine's public address is asked for.
    #[serde(default = "checkip")]
    pub address_url: String,
    /// What will be built: held against the quotas of the account.
    #[serde(default)]
    pub capacity: Option<CapacitySpec>,
    /// What is asked anew although it is pinned; `--refresh` on the command line writes it.
    #[serde(default)]
    pub refresh: Option<Refresh>,
}

/// Values that one run asks anew.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Refresh {
    /// Which.
    pub names: BTreeSet<Pinned>,
    /// Which run: its resumes find them answered, the next run asks again only if it is told to.
    pub run: String,
}

/// A pinned value by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Pinned {
    /// The Kubernetes version, with the add-on versions that go with it.
    KubernetesVersion,
    /// The add-on versions.
    AddonVersions,
    /// The zones.
    Zones,
    /// Who may reach the API server, when it is this machine alone.
    PublicAccessCidrs,
}

fn checkip() -> String {
    "https://checkip.amazonaws.com".to_owned()
}

/// An availability zone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Zone {
    /// Its name in this account.
    pub name: String,
    /// Its id, the same in all accounts.
    pub id: String,
}

/// What was found, pinned.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LookupsOutputs {
    /// The account.
    pub account: String,
    /// `aws`, `aws-cn` or `aws-us-gov`.
    pub partition: String,
    /// The region.
    pub region: String,
    /// The zones to build in.
    pub zones: Vec<Zone>,
    /// The Kubernetes version to build with.
    pub kubernetes_version: String,
    /// Add-on versions by name.
    pub addon_versions: BTreeMap<String, String>,
    /// Who may reach the API server: the ranges asked for, or this machine's address alone.
    #[serde(default)]
    pub public_access_cidrs: Vec<String>,
    /// What the operator should know before anything is built.
    #[serde(default)]
    pub warnings: Vec<String>,
    /// The run that last asked pinned values anew.
    #[serde(default)]
    pub refreshed_by: Option<String>,
    /// Digest of the questions these are the answers to.
    pub pinned_for: String,
}

/// See the file.
pub(super) struct LookupsKind(pub(super) Arc<AwsClients>);

/// Zones in which EKS places no control plane
/// (<https://docs.aws.amazon.com/eks/latest/userguide/network-reqs.html>).
pub(super) const ZONES_WITHOUT_EKS: [&str; 3] = ["use1-az3", "usw1-az2", "cac1-az3"];

/// The note of what was answered.
const PINNED: &str = "pinned";
/// The note of what had been answered to other questions before this run.
const BEFORE: &str = "pinned-before";

/// What the note [`BEFORE`] holds.
#[derive(Debug, Serialize, Deserialize)]
struct Before {
    run: String,
    answers: LookupsOutputs,
}

/// Of the questions; that one of them is asked anew makes it no other question.
fn digest(spec: &LookupsSpec) -> String {
    let asked = LookupsSpec { refresh: None, ..spec.clone() };
    hex::encode(Sha256::digest(json!(asked).to_string()))
}

/// The run that asks pinned values anew, while they are not answered for it yet.
fn due<'a>(refresh: Option<&'a Refresh>, outputs: &LookupsOutputs) -> Option<&'a Refresh> {
    refresh.filter(|refresh| outputs.refreshed_by.as_ref() != Some(&refresh.run))
}

fn refused(message: String, remedy: &str) -> StepError {
    StepError::permanent(message).leaving(Residue::None).with_remedy(remedy)
}

/// `1.35` as a number that sorts.
fn minor(version: &str) -> u32 {
    version.rsplit('.').next().and_then(|minor| minor.parse().ok()).unwrap_or(0)
}

/// Whether an address lies in a range, for example `10.0.0.0/8`.
pub(super) fn contains(range: &str, address: IpAddr) -> bool {
    let (network, bits) = range.split_once('/').unwrap_or((range, if address.is_ipv4() { "32" } else { "128" }));
    let (Ok(network), Ok(bits)) = (network.parse::<IpAddr>(), bits.parse::<u32>()) else { return false };
    match (network, address) {
        (IpAddr::V4(network), IpAddr::V4(address)) if bits <= 32 => {
            let mask = u32::MAX.checked_shl(32 - bits).unwrap_or(0);
            u32::from(network) & mask == u32::from(address) & mask
        }
        (IpAddr::V6(network), IpAddr::V6(address)) if bits <= 128 => {
            let mask = u128::MAX.checked_shl(128 - bits).unwrap_or(0);
            u128::from(network) & mask == u128::from(address) & mask
        }
        _ => false,
    }
}

impl LookupsKind {
    /// Answers that are on record, for these questions before any others.
    fn pinned(
        record: &Record<LookupsOutputs>,
        wanted: &str,
        refresh: Option<&Refresh>,
        run: &str,
    ) -> Option<LookupsOutputs> {
        let before = record.notes.get(BEFORE).and_then(|noted| Before::deserialize(noted).ok());
        // For the run alone that changed them: to any other one, what was answered last is what there is.
        let before = before.filter(|before| before.run == run).map(|before| before.answers);
        let noted = record.notes.get(PINNED).and_then(|noted| LookupsOutputs::deserialize(noted).ok());
        let all: Vec<LookupsOutputs> = [before, noted, record.outputs.clone()].into_iter().flatten().collect();
        all.iter().find(|one| one.pinned_for == wanted && due(refresh, one).is_none()).or(all.last()).cloned()
    }

    async fn offerings(&self, types: &BTreeSet<String>) -> Result<BTreeMap<String, BTreeSet<String>>, StepError> {
        let mut by_zone: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        if types.is_empty() {
            return Ok(by_zone);
        }
        let wanted = ("instance-type".to_owned(), types.iter().cloned().collect());
        let mut next: Option<String> = None;
        loop {
            let request = self.0.ec2.describe_instance_type_offerings();
            let sending = request
                .location_type(LocationType::AvailabilityZoneId)
                .set_filters(sdk_filters(vec![wanted.clone()]))
                .set_next_token(next.take())
                .send();
            let answer = look("DescribeInstanceTypeOfferings", sending).await?;
            for offering in answer.instance_type_offerings() {
                if let (Some(kind), Some(zone)) = (offering.instance_type(), offering.location()) {
                    by_zone.entry(zone.to_owned()).or_default().insert(kind.as_str().to_owned());
                }
            }
            next = answer.next_token.filter(|token| !token.is_empty());
            if next.is_none() {
                return Ok(by_zone);
            }
        }
    }

    async fn zones(&self, spec: &LookupsSpec) -> Result<Vec<Zone>, StepError> {
        let filters = sdk_filters(vec![filter("zone-type", "availability-zone")]);
        let sending = self.0.ec2.describe_availability_zones().set_filters(filters).send();
        let answer = look("DescribeAvailabilityZones", sending).await?;
        let mut zones: Vec<Zone> = answer
            .availability_zones()
            .iter()
            .filter(|zone| zone.state().is_none_or(|state| *state == AvailabilityZoneState::Available))
            .filter_map(|zone| Some(Zone { name: zone.zone_name()?.to_owned(), id: zone.zone_id()?.to_owned() }))
            .filter(|zone| !ZONES_WITHOUT_EKS.contains(&zone.id.as_str()))
            .collect();
        let offered = self.offerings(&spec.instance_types).await?;
        let everywhere: BTreeSet<&String> = offered.values().flatten().collect();
        let missing: Vec<&str> =
            spec.instance_types.iter().filter(|kind| !everywhere.contains(kind)).map(String::as_str).collect();
        if !missing.is_empty() {
            let message = format!("instance types not offered in {}: {}", self.0.region, missing.join(", "));
            return Err(refused(message, "choose other instance types or another region"));
        }
        let offers = |zone: &Zone| offered.get(&zone.id).map_or(0, BTreeSet::len);
        zones.sort_by(|a, b| offers(b).cmp(&offers(a)).then_with(|| a.id.cmp(&b.id)));
        zones.truncate(spec.zone_count);
        zones.sort_by(|a, b| a.id.cmp(&b.id));
        if zones.len() < spec.zone_count {
            let message = format!("{} has {} usable zones, {} are needed", self.0.region, zones.len(), spec.zone_count);
            return Err(refused(message, "ask for fewer zones or choose another region"));
        }
        Ok(zones)
    }

    async fn kubernetes_version(&self, wanted: Option<&str>) -> Result<String, StepError> {
        let answer = look("DescribeClusterVersions", self.0.eks.describe_cluster_versions().send()).await?;
        let standard = answer.cluster_versions().iter().filter(|one| {
            let by_status = one.version_status().map(|status| *status == VersionStatus::StandardSupport);
            by_status.unwrap_or_else(|| one.status().is_some_and(|status| status.as_str() == "standard-support"))
        });
        let mut standard: Vec<&str> = standard.filter_map(|one| one.cluster_version()).collect();
        standard.sort_by_key(|version| minor(version));
        match wanted {
            Some(wanted) if standard.contains(&wanted) => Ok(wanted.to_owned()),
            Some(wanted) => Err(refused(
                format!("Kubernetes {wanted} is not in standard support; these are: {}", standard.join(", ")),
                "set kubernetes_version to one of them, or leave it out",
            )),
            None => standard.last().map(|version| (*version).to_owned()).ok_or_else(|| {
                refused("no Kubernetes version is in standard support".to_owned(), "name one with kubernetes_version")
            }),
        }
    }

    async fn addon_version(&self, name: &str, version: &str) -> Result<String, StepError> {
        let request = self.0.eks.describe_addon_versions().addon_name(name).kubernetes_version(version);
        let answer = look("DescribeAddonVersions", request.send()).await?;
        let versions: Vec<_> = answer.addons().iter().flat_map(|addon| addon.addon_versions()).collect();
        let default = versions.iter().find(|one| {
            let fits = |one: &aws_sdk_eks::types::Compatibility| one.cluster_version() == Some(version);
            one.compatibilities().iter().any(|one| fits(one) && one.default_version())
        });
        let chosen = default.or(versions.first()).and_then(|one| one.addon_version());
        chosen.map(str::to_owned).ok_or_else(|| {
            refused(format!("add-on {name} has no version for Kubernetes {version}"), "check the add-on's name")
        })
    }

    /// The ranges that may reach the API server, with the proof that this machine is inside.
    async fn access(&self, spec: &LookupsSpec, before: Option<&LookupsOutputs>) -> Result<Vec<String>, StepError> {
        let asked: Vec<String> = spec.public_access_cidrs.iter().cloned().collect();
        if asked.iter().any(|range| range == "0.0.0.0/0") {
            return Ok(asked);
        }
        let url = self.0.address_url.as_deref().unwrap_or(&spec.address_url);
        let unknown = |error: &dyn std::error::Error| {
            StepError::new(ErrorClass::Transient, format!("this machine's address cannot be asked of {url}: {error}"))
                .leaving(Residue::None)
        };
        let request = self.0.http.get(url).timeout(Duration::from_secs(20)).send();
        let answer = request.await.and_then(reqwest::Response::error_for_status).map_err(|error| unknown(&error))?;
        let text = answer.text().await.map_err(|error| unknown(&error))?;
        let address: IpAddr = text.trim().parse().map_err(|error| unknown(&error))?;
        let ranges = match before {
            // What was opened for this machine stays open for it alone, wherever it is now.
            Some(before) if asked.is_empty() && !before.public_access_cidrs.is_empty() => {
                before.public_access_cidrs.clone()
            }
            _ if asked.is_empty() => vec![format!("{address}/{}", if address.is_ipv4() { 32 } else { 128 })],
            _ => asked,
        };
        if ranges.iter().any(|range| contains(range, address)) {
            return Ok(ranges);
        }
        Err(refused(
            format!("this machine ({address}) is outside public_access_cidrs ({})", ranges.join(", ")),
            "add its address: nothing inside the cluster could be built from here",
        ))
    }

    /// Asks. What was answered before stays answered, unless the question itself changed: the same platform months later
    /// must not move because a newer version exists.
    async fn ask(
        &self,
        spec: &LookupsSpec,
        before: Option<&LookupsOutputs>,
        context: &Context,
    ) -> Result<LookupsOutputs, StepError> {
        let anew = |name| spec.refresh.as_ref().is_some_and(|refresh| refresh.names.contains(&name));
        let unless = |name| before.filter(|_| !anew(name));
        let public_access_cidrs = self.access(spec, unless(Pinned::PublicAccessCidrs)).await?;
        let zones = match unless(Pinned::Zones) {
            Some(before) if before.zones.len() == spec.zone_count => before.zones.clone(),
            _ => self.zones(spec).await?,
        };
        let kubernetes_version = match (unless(Pinned::KubernetesVersion), spec.kubernetes_version.as_deref()) {
            (Some(before), None) => before.kubernetes_version.clone(),
            (Some(before), Some(wanted)) if before.kubernetes_version == wanted => wanted.to_owned(),
            (_, wanted) => self.kubernetes_version(wanted).await?,
        };
        let pinned = unless(Pinned::AddonVersions).filter(|before| before.kubernetes_version == kubernetes_version);
        let mut addon_versions = BTreeMap::new();
        for name in &spec.addons {
            let version = match pinned.and_then(|before| before.addon_versions.get(name)) {
                Some(version) => version.clone(),
                None => self.addon_version(name, &kubernetes_version).await?,
            };
            addon_versions.insert(name.clone(), version);
        }
        let warnings = match &spec.capacity {
            Some(capacity) => quotas::check(&self.0, capacity, context).await?,
            None => Vec::new(),
        };
        let earlier = before.and_then(|before| before.refreshed_by.clone());
        Ok(LookupsOutputs {
            warnings,
            refreshed_by: spec.refresh.as_ref().map(|refresh| refresh.run.clone()).or(earlier),
            account: self.0.identity.account.clone(),
            partition: self.0.identity.partition.clone(),
            region: self.0.region.clone(),
            zones,
            kubernetes_version,
            addon_versions,
            public_access_cidrs,
            pinned_for: digest(spec),
        })
    }
}

#[async_trait]
impl StepKind for LookupsKind {
    type Spec = LookupsSpec;
    type Outputs = LookupsOutputs;

    const NAME: &'static str = "aws.lookups";
    const SUMMARY: &'static str = "Zones, Kubernetes version and add-on versions, asked once and pinned.";

    async fn observe(
        &self,
        spec: &LookupsSpec,
        record: &Record<LookupsOutputs>,
        context: &Context,
    ) -> Result<Seen<LookupsOutputs>, StepError> {
        let wanted = digest(spec);
        let Some(outputs) = Self::pinned(record, &wanted, spec.refresh.as_ref(), context.run.as_str()) else {
            return Ok(Seen::Absent);
        };
        let mut differences = Vec::new();
        if outputs.pinned_for != wanted {
            differences.push(Difference {
                field: "/pinned_for".to_owned(),
                wanted: wanted.into(),
                found: outputs.pinned_for.clone().into(),
                replace: false,
            });
        }
        if let Some(refresh) = due(spec.refresh.as_ref(), &outputs) {
            differences.push(Difference {
                field: "/refresh".to_owned(),
                wanted: json!(refresh),
                found: json!(null),
                replace: false,
            });
        }
        Ok(Seen::Present { outputs, ownership: Ownership::Ours, differences })
    }

    async fn apply(
        &self,
        spec: &LookupsSpec,
        _seen: &Seen<LookupsOutputs>,
        record: &Record<LookupsOutputs>,
        context: &Context,
    ) -> Result<Made<LookupsOutputs>, StepError> {
        let outputs = self.ask(spec, record.outputs.as_ref(), context).await?;
        // Other questions than before, or the same anew: the answers until now are what a rollback has to put back, not what could be
        // asked again by then.
        let asked_anew = |before: &&LookupsOutputs| {
            before.pinned_for != outputs.pinned_for || before.refreshed_by != outputs.refreshed_by
        };
        if let Some(before) = record.outputs.as_ref().filter(asked_anew) {
            let before = Before { run: context.run.to_string(), answers: before.clone() };
            context.note(BEFORE, serde_json::to_value(before).unwrap_or(Value::Null)).await?;
        }
        let pinned = serde_json::to_value(&outputs).unwrap_or(Value::Null);
        context.note(PINNED, pinned).await?;
        Ok(Made::Done(outputs))
    }

    async fn undo(
        &self,
        _spec: &LookupsSpec,
        _record: &Record<LookupsOutputs>,
        _context: &Context,
    ) -> Result<UndoProgress, StepError> {
        Ok(UndoProgress::Gone { evidence: "it only read".to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answers(pinned_for: &str, range: &str) -> LookupsOutputs {
        LookupsOutputs {
            account: "1".into(),
            partition: "aws".into(),
            region: "r".into(),
            zones: Vec::new(),
            kubernetes_version: "1.35".into(),
            addon_versions: BTreeMap::new(),
            public_access_cidrs: vec![range.into()],
            pinned_for: pinned_for.into(),
            warnings: Vec::new(),
            refreshed_by: None,
        }
    }

    /// Proves that the answers before a change are found for the questions before it: a rollback puts them back, and does
    /// not ask the old questions anew, on top of the new answers.
    #[test]
    fn the_answers_before_a_change_are_put_back() {
        let notes = BTreeMap::from([
            (PINNED.to_owned(), json!(answers("new", "10.0.0.0/8"))),
            (BEFORE.to_owned(), json!(Before { run: "changed-it".into(), answers: answers("old", "127.0.0.1/32") })),
        ]);
        let outputs = Some(answers("new", "10.0.0.0/8"));
        let record = Record { outputs, notes, uncertain: false, intended_at: None };
        let pinned = |wanted: &str, run: &str| LookupsKind::pinned(&record, wanted, None, run);
        let (old, new) = (Some(answers("old", "127.0.0.1/32")), Some(answers("new", "10.0.0.0/8")));
        assert_eq!(pinned("old", "changed-it"), old);
        assert_eq!(pinned("new", "changed-it"), new);
        assert_eq!(pinned("old", "a-later-one"), new, "nothing goes back to older versions without a rollback");
        assert_eq!(pinned("other", "changed-it"), new, "the newest ones");
    }

    /// Proves that answers to the same questions, asked anew, stand while the run goes forward, and give way to the former
    /// ones when it is rolled back.
    #[test]
    fn a_refresh_is_taken_back() {
        let anew = LookupsOutputs { refreshed_by: Some("run".into()), ..answers("same", "10.0.0.0/8") };
        let notes = BTreeMap::from([
            (PINNED.to_owned(), json!(anew)),
            (BEFORE.to_owned(), json!(Before { run: "run".into(), answers: answers("same", "127.0.0.1/32") })),
        ]);
        let record = Record { outputs: Some(anew.clone()), notes, uncertain: false, intended_at: None };
        let refresh = Refresh { names: BTreeSet::from([Pinned::PublicAccessCidrs]), run: "run".into() };
        assert_eq!(LookupsKind::pinned(&record, "same", Some(&refresh), "run"), Some(anew));
        assert_eq!(LookupsKind::pinned(&record, "same", None, "run"), Some(answers("same", "127.0.0.1/32")));
    }

    /// Proves membership at the edges of ranges, over both families, and that nonsense contains nothing.
    #[test]
    fn ranges_contain_their_addresses() {
        let inside = |range: &str, address: &str| contains(range, address.parse().unwrap());
        assert!(inside("10.0.0.0/8", "10.255.255.255"));
        assert!(!inside("10.0.0.0/8", "11.0.0.0"));
        assert!(inside("192.0.2.7/32", "192.0.2.7"));
        assert!(inside("192.0.2.7", "192.0.2.7"));
        assert!(!inside("192.0.2.7/32", "192.0.2.6"));
        assert!(inside("0.0.0.0/0", "203.0.113.9"));
        assert!(inside("2001:db8::/32", "2001:db8:1::1"));
        assert!(!inside("2001:db8::/32", "10.0.0.1"));
        assert!(!inside("10.0.0.0/99", "10.0.0.1"));
        assert!(!inside("nonsense", "10.0.0.1"));
    }

    /// Proves that versions are compared as numbers.
    #[test]
    fn minors_sort_as_numbers() {
        assert!(minor("1.10") > minor("1.9"));
    }
}
