//! What several families of checks look at, asked once: zones, offerings, instance types, Kubernetes versions.

use super::super::clients::AwsClients;
use super::super::ec2::{filter, sdk_filters};
use super::super::failure::look;
use super::super::ownership::{Tags, UID};
use crate::preflight::{Pool, Subject};
use aws_sdk_ec2::types::{InstanceType, LocationType};
use aws_sdk_eks::types::ClusterVersionInformation;
use platflow_engine::failure::StepError;
use platflow_engine::foreign;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use tokio::sync::OnceCell;

/// An availability zone.
#[derive(Debug, Clone)]
pub(super) struct ZoneSeen {
    /// Its id, the same in all accounts.
    pub(super) id: String,
    /// `available`, `impaired`, …
    pub(super) state: String,
}

/// An instance type.
#[derive(Debug, Clone, Default)]
pub(super) struct TypeSeen {
    /// `x86_64`, `arm64`.
    pub(super) architectures: BTreeSet<String>,
    /// Virtual processors.
    pub(super) cpus: u64,
    /// Memory in MiB.
    pub(super) mebibytes: u64,
    /// Sold on the spot market.
    pub(super) spot: bool,
    /// Superseded.
    pub(super) previous: bool,
    /// Most pods that the network plugin gives addresses to: interfaces × (addresses − 1) + 2. Nothing if unknown.
    pub(super) pods: Option<u64>,
}

/// The account as the checks see it.
pub(super) struct Account<'a> {
    pub(super) aws: &'a AwsClients,
    /// The same, for what keeps its clients.
    pub(super) shared: &'a Arc<AwsClients>,
    pub(super) subject: &'a Subject,
    pub(super) pools: Vec<Pool>,
    zones: OnceCell<Vec<ZoneSeen>>,
    offered: OnceCell<BTreeMap<String, BTreeSet<String>>>,
    types: OnceCell<BTreeMap<String, TypeSeen>>,
    versions: OnceCell<Vec<ClusterVersionInformation>>,
}

impl<'a> Account<'a> {
    pub(super) fn new(shared: &'a Arc<AwsClients>, subject: &'a Subject) -> Self {
        Self {
            aws: shared,
            shared,
            subject,
            pools: subject.pools(),
            zones: OnceCell::new(),
            offered: OnceCell::new(),
            types: OnceCell::new(),
            versions: OnceCell::new(),
        }
    }

    /// Whether something with these tags is this environment's.
    pub(super) fn is_ours(&self, tags: &Tags) -> bool {
        self.subject.environment_uid.as_deref().is_some_and(|uid| tags.get(UID).map(String::as_str) == Some(uid))
    }

    /// The ways out of somebody else's, with what a command needs that is typed before anything is on record.
    pub(super) fn ways_out(&self, owner: &str) -> String {
        match foreign::named(owner) {
            // The command that takes it over stands last.
            Some(_) => format!("{} {}", foreign::ways_out(owner), self.options()),
            None => "choose another name, or remove the other one".to_owned(),
        }
    }

    /// The options that name this account.
    pub(super) fn options(&self) -> String {
        if self.subject.sandbox {
            return "--sandbox".to_owned();
        }
        format!("--account {} --region {}", self.aws.identity.account, self.aws.region)
    }

    /// Every instance type that the run names.
    pub(super) fn type_names(&self) -> BTreeSet<String> {
        let looked_up = self.subject.of_kind("aws.lookups").flat_map(|step| step.texts("/instance_types"));
        self.pools.iter().flat_map(|pool| pool.instance_types.clone()).chain(looked_up).collect()
    }

    /// The zones of the region.
    pub(super) async fn zones(&self) -> Result<&[ZoneSeen], StepError> {
        let ask = || async {
            let filters = sdk_filters(vec![filter("zone-type", "availability-zone")]);
            let request = self.aws.ec2.describe_availability_zones().set_filters(filters);
            let answer = look("DescribeAvailabilityZones", request.send()).await?;
            let seen = answer.availability_zones().iter().filter_map(|zone| {
                let state = zone.state().map_or("available", |state| state.as_str()).to_owned();
                Some(ZoneSeen { id: zone.zone_id()?.to_owned(), state })
            });
            Ok::<_, StepError>(seen.collect())
        };
        Ok(self.zones.get_or_try_init(ask).await?.as_slice())
    }

    /// Where each type that the run names is offered: zone ids by type.
    pub(super) async fn offered(&self) -> Result<&BTreeMap<String, BTreeSet<String>>, StepError> {
        let ask = || async {
            let mut found: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
            let names = self.type_names();
            if names.is_empty() {
                return Ok::<_, StepError>(found);
            }
            let wanted = ("instance-type".to_owned(), names.into_iter().collect());
            let mut next: Option<String> = None;
            loop {
                let request = self.aws.ec2.describe_instance_type_offerings();
                let request = request.location_type(LocationType::AvailabilityZoneId);
                let request = request.set_filters(sdk_filters(vec![wanted.clone()])).set_next_token(next.take());
                let answer = look("DescribeInstanceTypeOfferings", request.send()).await?;
                for one in answer.instance_type_offerings() {
                    if let (Some(kind), Some(zone)) = (one.instance_type(), one.location()) {
                        found.entry(kind.as_str().to_owned()).or_default().insert(zone.to_owned());
                    }
                }
                next = answer.next_token.filter(|token| !token.is_empty());
                if next.is_none() {
                    return Ok(found);
                }
            }
        };
        self.offered.get_or_try_init(ask).await
    }

    /// The types that the run names and the region offers; one that is not offered is not asked about, because a single
    /// unknown name would have the whole question refused.
    pub(super) async fn types(&self) -> Result<&BTreeMap<String, TypeSeen>, StepError> {
        let ask = || async {
            let names: Vec<&String> = self.offered().await?.keys().collect();
            let mut found = BTreeMap::new();
            for some in names.chunks(100) {
                let wanted = some.iter().map(|kind| InstanceType::from(kind.as_str())).collect();
                let request = self.aws.ec2.describe_instance_types().set_instance_types(Some(wanted));
                for kind in look("DescribeInstanceTypes", request.send()).await?.instance_types() {
                    let name = kind.instance_type().map(|name| name.as_str().to_owned()).unwrap_or_default();
                    found.insert(name, seen(kind));
                }
            }
            Ok::<_, StepError>(found)
        };
        self.types.get_or_try_init(ask).await
    }

    /// What EKS says of Kubernetes versions.
    pub(super) async fn versions(&self) -> Result<&[ClusterVersionInformation], StepError> {
        let ask = || async {
            let answer = look("DescribeClusterVersions", self.aws.eks.describe_cluster_versions().send()).await?;
            Ok::<_, StepError>(answer.cluster_versions.unwrap_or_default())
        };
        Ok(self.versions.get_or_try_init(ask).await?.as_slice())
    }
}

fn seen(kind: &aws_sdk_ec2::types::InstanceTypeInfo) -> TypeSeen {
    let count = |number: Option<i64>| number.and_then(|number| u64::try_from(number).ok());
    let processor = kind.processor_info().map(|info| info.supported_architectures()).unwrap_or_default();
    let network = kind.network_info();
    let interfaces = count(network.and_then(|info| info.maximum_network_interfaces()).map(i64::from));
    let addresses = count(network.and_then(|info| info.ipv4_addresses_per_interface()).map(i64::from));
    TypeSeen {
        architectures: processor.iter().map(|one| one.as_str().to_owned()).collect(),
        cpus: count(kind.v_cpu_info().and_then(|info| info.default_v_cpus()).map(i64::from)).unwrap_or(0),
        mebibytes: count(kind.memory_info().and_then(|info| info.size_in_mib())).unwrap_or(0),
        spot: kind.supported_usage_classes().iter().any(|class| class.as_str() == "spot"),
        previous: kind.current_generation() == Some(false),
        pods: interfaces.zip(addresses).map(|(interfaces, addresses)| interfaces * addresses.saturating_sub(1) + 2),
    }
}
