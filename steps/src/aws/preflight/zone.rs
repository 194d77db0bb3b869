//! Availability zones: enough of them, in a state to build in, and the pinned ones still there.

use super::super::ec2::filter;
use super::super::ec2::sdk_filters;
use super::super::failure::look;
use super::super::lookups::ZONES_WITHOUT_EKS;
use super::{Looked, account::Account};
use crate::preflight::{Check, Family};
use serde_json::Value;
use std::collections::BTreeSet;

static REGION: Check = Check::of_world("zone.region", Family::Zone, "The region is enabled in the account");
static COUNT: Check = Check::of_world("zone.count", Family::Zone, "The region has as many usable zones as are needed");
static STATE: Check = Check::of_world("zone.state", Family::Zone, "Every usable zone of the region is available");
static PINNED: Check =
    Check::of_world("zone.pinned", Family::Zone, "The zones that the environment was built in are usable");
static TWO: Check =
    Check::of_request("zone.two-for-clusters", Family::Zone, "A cluster gets subnets in two zones at least");
static OFFERED: Check = Check::of_world("zone.offerings", Family::Zone, "Every zone offers a type of each pool");

pub(super) static CHECKS: &[&Check] = &[&COUNT, &REGION, &STATE, &PINNED, &TWO, &OFFERED];

pub(super) async fn zones(account: &Account<'_>) -> Looked {
    let mut found = Vec::new();
    let region = account.aws.region.as_str();
    let request = account.aws.ec2.describe_regions().all_regions(true);
    let answer =
        look("DescribeRegions", request.set_filters(sdk_filters(vec![filter("region-name", region)])).send()).await?;
    let opted = answer.regions().first().and_then(|one| one.opt_in_status()).unwrap_or_default();
    if opted == "not-opted-in" {
        found.push(REGION.blocker(
            format!("{region} is not enabled in account {}", account.aws.identity.account),
            "every call there is refused",
            format!("enable it: aws account enable-region --region-name {region}, or choose another region"),
        ));
    }
    let zones = account.zones().await?;
    let apt = |id: &str| !ZONES_WITHOUT_EKS.contains(&id);
    let usable: BTreeSet<&str> =
        zones.iter().filter(|zone| zone.state == "available" && apt(&zone.id)).map(|zone| zone.id.as_str()).collect();
    let ailing: Vec<String> = zones
        .iter()
        .filter(|zone| zone.state != "available" && apt(&zone.id))
        .map(|zone| format!("{} is {}", zone.id, zone.state))
        .collect();
    if !ailing.is_empty() {
        found.push(STATE.warning(
            ailing.join(", "),
            "it is left out; what runs there already may be disturbed",
            "see the AWS Health Dashboard; wait, or choose another region",
        ));
    }
    for step in account.subject.of_kind("aws.lookups") {
        let wanted = step.number("/zone_count").and_then(|count| usize::try_from(count).ok()).unwrap_or(0);
        let pinned = step.outputs.as_ref().and_then(|outputs| outputs.get("zones")).and_then(Value::as_array);
        let gone: Vec<&str> = pinned
            .into_iter()
            .flatten()
            .filter_map(|zone| zone.get("id").and_then(Value::as_str))
            .filter(|id| !usable.contains(id))
            .collect();
        if !gone.is_empty() {
            found.push(PINNED.warning(
                format!("the environment is built in {}, not available now", gone.join(", ")),
                "nothing can be made or changed there, and its nodes may be away",
                "wait until the zone is back",
            ));
        }
        if pinned.is_none() && usable.len() < wanted {
            found.push(COUNT.blocker(
                format!("{region} has {} zones that EKS can use, {wanted} are needed", usable.len()),
                "the run would stop at its first step",
                "ask for fewer zones (private_cidrs, public_cidrs), or choose another region",
            ));
        }
        if wanted < 2 && account.subject.has("aws.eks_cluster") {
            found.push(TWO.blocker(
                format!("{wanted} zone is asked for"),
                "EKS makes no cluster with subnets in fewer than two zones",
                "give at least two private_cidrs",
            ));
        }
    }
    found.extend(offerings(account, &usable).await?);
    Ok(found)
}

/// Zones that would be chosen, and none of whose types a pool can have.
async fn offerings(account: &Account<'_>, usable: &BTreeSet<&str>) -> Looked {
    let offered = account.offered().await?;
    let mut found = Vec::new();
    for pool in account.pools.iter().filter(|pool| !pool.instance_types.is_empty()) {
        let places: BTreeSet<&str> =
            pool.instance_types.iter().filter_map(|kind| offered.get(kind)).flatten().map(String::as_str).collect();
        let without: Vec<&str> = usable.iter().filter(|zone| !places.contains(*zone)).copied().collect();
        if !without.is_empty() && without.len() < usable.len() {
            found.push(OFFERED.warning(
                format!("pool {}: none of {} is offered in {}", pool.name, pool.instance_types.join(", "), without.join(", ")),
                "the pool spreads over fewer zones, and a zone that fails takes more of it along",
                "add a type that these zones offer: aws ec2 describe-instance-type-offerings --location-type availability-zone-id",
            ));
        }
    }
    Ok(found)
}
