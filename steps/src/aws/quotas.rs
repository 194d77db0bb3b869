//! What a build will need, held against the quotas of the account before anything is made, and against its own nodes.
//!
//! A quota that does not suffice fails the look-ups, which come before the first mutation. Reads only.

use super::clients::AwsClients;
use super::ec2::{sdk_filters, tag_map};
use super::failure::look;
use super::ownership::UID;
use super::signed::Service;
use aws_sdk_ec2::types::{InstanceLifecycleType, InstanceType};
use platflow_engine::context::Context;
use platflow_engine::failure::{ErrorClass, Residue, StepError};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// What will be built, as far as it is counted.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CapacitySpec {
    /// The node pools.
    #[serde(default)]
    pub pools: Vec<PoolCapacity>,
    /// What each namespace may ask for.
    #[serde(default)]
    pub namespaces: BTreeMap<String, NamespaceCapacity>,
    /// How many elastic IPs.
    #[serde(default)]
    pub elastic_ips: u32,
    /// How many VPCs.
    #[serde(default)]
    pub vpcs: u32,
}

/// A pool of nodes.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PoolCapacity {
    /// Instance types it may run on.
    pub instance_types: Vec<String>,
    /// `ON_DEMAND` or `SPOT`.
    pub capacity: String,
    /// How many nodes run.
    pub desired: u32,
    /// How many may run.
    pub max: u32,
}

/// The quota of a namespace; its limits and its Pod Security level are not counted.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NamespaceCapacity {
    /// Pod Security level.
    #[serde(default)]
    pub pod_security: Option<String>,
    /// Requests of CPU, e.g. `16`.
    pub requests_cpu: String,
    /// Requests of memory, e.g. `32Gi`.
    pub requests_memory: String,
    /// Limits of CPU.
    #[serde(default)]
    pub limits_cpu: Option<String>,
    /// Limits of memory.
    #[serde(default)]
    pub limits_memory: Option<String>,
}

/// A size of machine.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Size {
    pub(super) cpus: u64,
    pub(super) mebibytes: u64,
}

/// A quota of the account and what counts towards it.
struct Counted {
    service: &'static str,
    code: &'static str,
    name: &'static str,
    unit: &'static str,
    needed: u64,
    /// Used already, by anybody but this environment.
    used: u64,
}

/// The families that the quotas for standard instances count.
pub(super) fn is_standard(kind: &str) -> bool {
    kind.starts_with(['a', 'c', 'd', 'h', 'i', 'm', 'r', 't', 'z'])
        && !["inf", "trn", "hpc", "dl", "mac"].iter().any(|other| kind.starts_with(other))
}

pub(super) async fn sizes(aws: &AwsClients, kinds: &BTreeSet<String>) -> Result<BTreeMap<String, Size>, StepError> {
    let mut found = BTreeMap::new();
    let kinds: Vec<&String> = kinds.iter().collect();
    for some in kinds.chunks(100) {
        let wanted = some.iter().map(|kind| InstanceType::from(kind.as_str())).collect();
        let sending = aws.ec2.describe_instance_types().set_instance_types(Some(wanted)).send();
        let answer = look("DescribeInstanceTypes", sending).await?;
        for kind in answer.instance_types() {
            let cpus = kind.v_cpu_info().and_then(|info| info.default_v_cpus()).unwrap_or_default();
            let memory = kind.memory_info().and_then(|info| info.size_in_mib()).unwrap_or_default();
            let size = Size { cpus: u64::try_from(cpus).unwrap_or(0), mebibytes: u64::try_from(memory).unwrap_or(0) };
            found.insert(kind.instance_type().map(|kind| kind.as_str().to_owned()).unwrap_or_default(), size);
        }
    }
    Ok(found)
}

/// Running machines of others: their types, and whether they are spot.
pub(super) async fn machines(aws: &AwsClients, ours: &str) -> Result<Vec<(String, bool)>, StepError> {
    let states = ("instance-state-name".to_owned(), vec!["pending".to_owned(), "running".to_owned()]);
    let mut pages = aws.ec2.describe_instances().set_filters(sdk_filters(vec![states])).into_paginator().send();
    let mut found = Vec::new();
    while let Some(page) = pages.next().await {
        let page = page.map_err(|error| super::failure::AwsFailure::from_sdk("DescribeInstances", &error))?;
        for instance in page.reservations().iter().flat_map(|reservation| reservation.instances()) {
            if tag_map(instance.tags()).get(UID).map(String::as_str) == Some(ours) {
                continue;
            }
            let spot = instance.instance_lifecycle() == Some(&InstanceLifecycleType::Spot);
            found.extend(instance.instance_type().map(|kind| (kind.as_str().to_owned(), spot)));
        }
    }
    Ok(found)
}

/// What the quota allows; nothing if this account may not ask.
pub(super) async fn allowed(aws: &AwsClients, service: &str, code: &str) -> Result<Option<u64>, StepError> {
    let body = json!({"ServiceCode": service, "QuotaCode": code});
    let mut answer = aws.signed.ask_json(Service::Quotas, "GetServiceQuota", &body).await;
    // A quota that was never changed may be known by its default alone.
    if answer.as_ref().is_err_and(|failure| failure.is(&["NoSuchResourceException"])) {
        answer = aws.signed.ask_json(Service::Quotas, "GetAWSDefaultServiceQuota", &body).await;
    }
    match answer {
        Ok(answer) => {
            let value = answer.pointer("/Quota/Value").and_then(Value::as_f64);
            Ok(value.filter(|value| *value >= 0.0).map(|value| value as u64))
        }
        Err(failure) => match failure.classify().0 {
            ErrorClass::Permission | ErrorClass::Permanent => Ok(None),
            _ => Err(failure.into()),
        },
    }
}

fn refused(counted: &Counted, allowed: u64, context: &Context, region: &str) -> StepError {
    let Counted { service, code, name, unit, needed, used } = counted;
    let message = format!(
        "the quota for {name} in {region} allows {allowed} {unit}, {used} are in use and {needed} are needed; nothing was changed"
    );
    StepError::new(ErrorClass::Quota, message).leaving(Residue::None).with_code(*code).with_remedy(format!(
        "ask for more: aws service-quotas request-service-quota-increase --region {region} --service-code {service} --quota-code {code} --desired-value {}\n\
         then: platflow resume {}",
        used + needed, context.run
    ))
}

/// Holds what is needed against what the account allows and others use. Gives what could not be checked, and what the
/// namespaces may ask for beyond what the nodes have.
///
/// # Errors
/// A quota that does not suffice; a look that failed.
pub(super) async fn check(aws: &AwsClients, spec: &CapacitySpec, context: &Context) -> Result<Vec<String>, StepError> {
    let others = machines(aws, context.environment_uid.as_str()).await?;
    let mut kinds: BTreeSet<String> = spec.pools.iter().flat_map(|pool| pool.instance_types.clone()).collect();
    kinds.extend(others.iter().map(|(kind, _)| kind.clone()));
    let sizes = if kinds.is_empty() { BTreeMap::new() } else { sizes(aws, &kinds).await? };
    let mut warnings = Vec::new();
    for counted in counted(aws, spec, &others, &sizes, context).await? {
        if counted.needed == 0 {
            continue;
        }
        match allowed(aws, counted.service, counted.code).await? {
            Some(allowed) if counted.used + counted.needed > allowed => {
                return Err(refused(&counted, allowed, context, &aws.region));
            }
            Some(_) => {}
            None => warnings.push(format!(
                "this account may not ask for the quota for {} ({}); {} {} are needed",
                counted.name, counted.code, counted.needed, counted.unit
            )),
        }
    }
    warnings.extend(overcommitted(spec, &sizes));
    Ok(warnings)
}

async fn counted(
    aws: &AwsClients,
    spec: &CapacitySpec,
    others: &[(String, bool)],
    sizes: &BTreeMap<String, Size>,
    context: &Context,
) -> Result<Vec<Counted>, StepError> {
    let cpus = |kind: &String| if is_standard(kind) { sizes.get(kind).map_or(0, |size| size.cpus) } else { 0 };
    let needed = |spot: bool| -> u64 {
        let pools = spec.pools.iter().filter(|pool| (pool.capacity == "SPOT") == spot);
        pools.map(|pool| pool.instance_types.iter().map(cpus).max().unwrap_or(0) * u64::from(pool.desired)).sum()
    };
    let used = |spot: bool| others.iter().filter(|(_, is_spot)| *is_spot == spot).map(|(kind, _)| cpus(kind)).sum();
    let ours = context.environment_uid.as_str();
    let not_ours = |tags: &[aws_sdk_ec2::types::Tag]| tag_map(tags).get(UID).map(String::as_str) != Some(ours);
    let addresses = look("DescribeAddresses", aws.ec2.describe_addresses().send()).await?;
    let addresses = addresses.addresses().iter().filter(|one| not_ours(one.tags())).count();
    let vpcs = look("DescribeVpcs", aws.ec2.describe_vpcs().send()).await?;
    let vpcs = vpcs.vpcs().iter().filter(|one| not_ours(one.tags())).count();
    let of = |service, code, name, unit, needed, used| Counted { service, code, name, unit, needed, used };
    Ok(vec![
        of("vpc", "L-F678F1CE", "VPCs", "VPC(s)", spec.vpcs.into(), vpcs as u64),
        of("ec2", "L-0263D0A3", "elastic IPs", "address(es)", spec.elastic_ips.into(), addresses as u64),
        of("ec2", "L-1216C47A", "running on-demand standard instances", "vCPU", needed(false), used(false)),
        of("ec2", "L-34B43A08", "standard spot instances", "vCPU", needed(true), used(true)),
    ])
}

/// A quantity of Kubernetes in thousandths.
pub(super) fn milli(text: &str) -> Option<u128> {
    let digits = text.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(text.len());
    let (number, unit) = text.split_at_checked(digits)?;
    let factor: u128 = match unit {
        "m" => 1,
        "" => 1_000,
        "k" => 1_000_000,
        "M" => 1_000_000_000,
        "G" => 1_000_000_000_000,
        "T" => 1_000_000_000_000_000,
        "Ki" => 1_000 << 10,
        "Mi" => 1_000 << 20,
        "Gi" => 1_000 << 30,
        "Ti" => 1_000 << 40,
        _ => return None,
    };
    let (whole, part) = number.split_once('.').unwrap_or((number, ""));
    let whole: u128 = whole.parse().ok()?;
    let part: String = part.chars().chain("000".chars()).take(3).collect();
    whole.checked_mul(factor)?.checked_add(part.parse::<u128>().ok()?.checked_mul(factor)? / 1_000)
}

/// The warning that the namespaces may ask for more than the nodes have. Each counts on the smallest of its pool's types.
fn overcommitted(spec: &CapacitySpec, sizes: &BTreeMap<String, Size>) -> Option<String> {
    let asked = |of: fn(&NamespaceCapacity) -> &str| -> u128 {
        spec.namespaces.values().filter_map(|one| milli(of(one))).sum()
    };
    let cpu = asked(|one| &one.requests_cpu);
    let memory = asked(|one| &one.requests_memory);
    let nodes = |count: fn(&PoolCapacity) -> u32| -> Size {
        let mut all = Size::default();
        for pool in &spec.pools {
            let known: Vec<&Size> = pool.instance_types.iter().filter_map(|kind| sizes.get(kind)).collect();
            let nodes = u64::from(count(pool));
            all.cpus += nodes * known.iter().map(|size| size.cpus).min().unwrap_or(0);
            all.mebibytes += nodes * known.iter().map(|size| size.mebibytes).min().unwrap_or(0);
        }
        all
    };
    let (now, most) = (nodes(|pool| pool.desired), nodes(|pool| pool.max));
    let exceeds = cpu > u128::from(now.cpus) * 1_000 || memory > (u128::from(now.mebibytes) << 20) * 1_000;
    (exceeds && !spec.pools.is_empty()).then(|| {
        format!(
            "the namespaces may request {} CPU and {} Gi in all, the nodes have {} CPU and {} Gi ({} CPU and {} Gi when every pool is at its maximum): pods beyond that stay pending",
            cpu.div_ceil(1_000),
            (memory / 1_000) >> 30,
            now.cpus,
            now.mebibytes / 1_024,
            most.cpus,
            most.mebibytes / 1_024
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Proves that quantities are read in every unit that quotas are written in, and that nonsense is none.
    #[test]
    fn quantities_are_read() {
        let gibi = 1_000_u128 << 30;
        for (text, wanted) in [
            ("16", 16_000),
            ("500m", 500),
            ("1.5", 1_500),
            ("32Gi", 32 * gibi),
            ("0.5Gi", gibi / 2),
            ("1M", 1_000_000_000),
        ] {
            assert_eq!(milli(text), Some(wanted), "{text}");
        }
        for text in ["", "Gi", "12x", "-1", "ä"] {
            assert_eq!(milli(text), None, "{text}");
        }
    }

    /// Proves that the platform's own quotas are found to be more than its nodes have, and smaller ones are not.
    #[test]
    fn quotas_beyond_the_nodes_are_told() {
        let pool = PoolCapacity {
            instance_types: vec!["t3.large".to_owned()],
            capacity: "ON_DEMAND".to_owned(),
            desired: 3,
            max: 6,
        };
        let sizes = BTreeMap::from([("t3.large".to_owned(), Size { cpus: 2, mebibytes: 8_192 })]);
        let with = |requests_cpu: &str| CapacitySpec {
            pools: vec![pool.clone()],
            namespaces: BTreeMap::from([(
                "apps".to_owned(),
                NamespaceCapacity {
                    pod_security: None,
                    requests_cpu: requests_cpu.to_owned(),
                    requests_memory: "8Gi".to_owned(),
                    limits_cpu: None,
                    limits_memory: None,
                },
            )]),
            ..CapacitySpec::default()
        };
        let told = overcommitted(&with("7"), &sizes).expect("7 CPU on 6");
        assert!(told.contains("7 CPU and 8 Gi") && told.contains("6 CPU and 24 Gi (12 CPU and 48 Gi"), "{told}");
        assert_eq!(overcommitted(&with("6"), &sizes), None);
    }

    /// Proves that machines of other families are not counted against the quota for standard ones.
    #[test]
    fn families_are_told_apart() {
        assert!(["t3.large", "m6i.xlarge", "r6g.large", "c7g.2xlarge"].iter().all(|kind| is_standard(kind)));
        assert!(
            !["g5.xlarge", "p4d.24xlarge", "inf2.xlarge", "x2gd.large", "mac2.metal"]
                .iter()
                .any(|kind| is_standard(kind))
        );
    }
}
