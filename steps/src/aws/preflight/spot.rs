//! Pools on the spot market: enough kinds of machines to choose from, sold there at all, and for less than on demand.

use super::super::failure::look;
use super::{Looked, account::Account};
use crate::preflight::{Check, Family};
use aws_sdk_ec2::types::InstanceType;
use std::collections::BTreeSet;

static DIVERSITY: Check = Check::of_request(
    "instance.spot-diversity",
    Family::Instance,
    "A spot pool has at least four types to choose from",
);
static SOLD: Check =
    Check::of_request("instance.spot-sold", Family::Instance, "Types of spot pools are sold on the spot market");
static DEPTH: Check = Check::of_world(
    "instance.spot-market",
    Family::Instance,
    "The spot market knows a price for every type of a spot pool",
);

pub(super) static CHECKS: &[&Check] = &[&DEPTH, &DIVERSITY, &SOLD];

/// Fewer similar types than this are out of stock together.
const FEWEST_TYPES: usize = 4;

pub(super) async fn market(account: &Account<'_>) -> Looked {
    let mut found = Vec::new();
    let pools: Vec<_> = account.pools.iter().filter(|pool| pool.spot).collect();
    let kinds: BTreeSet<&str> = pools.iter().flat_map(|pool| &pool.instance_types).map(String::as_str).collect();
    for pool in &pools {
        if pool.instance_types.len() < FEWEST_TYPES {
            found.push(DIVERSITY.warning(
                format!("spot pool {} names {} type(s)", pool.name, pool.instance_types.len()),
                "when the market runs out of them the pool has no nodes",
                "name at least four types of the same size and architecture",
            ));
        }
    }
    if kinds.is_empty() {
        return Ok(found);
    }
    let types = account.types().await?;
    let unsold: Vec<&str> =
        kinds.iter().filter(|kind| types.get(**kind).is_some_and(|seen| !seen.spot)).copied().collect();
    if !unsold.is_empty() {
        found.push(SOLD.blocker(
            format!("{} is not sold on the spot market", unsold.join(", ")),
            "EKS refuses the node group",
            "take it out of the spot pool, or buy the pool on demand",
        ));
    }
    let known = types.keys().filter(|kind| kinds.contains(kind.as_str()));
    let wanted: Vec<InstanceType> = known.map(|kind| InstanceType::from(kind.as_str())).collect();
    if wanted.is_empty() {
        return Ok(found);
    }
    let request = account.aws.ec2.describe_spot_price_history().set_instance_types(Some(wanted));
    let now = aws_sdk_ec2::primitives::DateTime::from_secs(account.subject.now.as_second());
    let request = request.product_descriptions("Linux/UNIX").start_time(now);
    let answer = look("DescribeSpotPriceHistory", request.send()).await?;
    let priced: BTreeSet<&str> =
        answer.spot_price_history().iter().filter_map(|one| one.instance_type()).map(|kind| kind.as_str()).collect();
    let unpriced: Vec<&str> =
        kinds.iter().filter(|kind| types.contains_key(**kind) && !priced.contains(*kind)).copied().collect();
    if !unpriced.is_empty() {
        found.push(DEPTH.warning(
            format!("the spot market of {} has no price for {}", account.aws.region, unpriced.join(", ")),
            "these types cannot be had there now",
            "name more types, or buy the pool on demand",
        ));
    }
    Ok(found)
}
