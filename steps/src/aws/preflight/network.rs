//! Networks that exist: VPCs of others with the same addresses, and how many addresses our own subnets have left.

use super::super::ec2::{sdk_filters, tag_map};
use super::super::failure::look;
use super::super::ownership::owner_text;
use super::{Looked, account::Account};
use crate::preflight::{Check, Family, Range};
use std::collections::BTreeSet;

static OVERLAP: Check =
    Check::of_world("network.vpc-overlap", Family::Network, "No other VPC of the account has addresses of ours");
static FREE: Check =
    Check::of_world("network.free-addresses", Family::Network, "The subnets that exist have addresses left");

pub(super) static CHECKS: &[&Check] = &[&OVERLAP, &FREE];

/// What EKS recommends a subnet to have left for upgrades
/// (<https://docs.aws.amazon.com/eks/latest/userguide/network-reqs.html>).
const RECOMMENDED_FREE: i32 = 16;

pub(super) async fn networks(account: &Account<'_>) -> Looked {
    let mut found = Vec::new();
    let wanted: Vec<Range> =
        account.subject.named("aws.vpc", "/cidr").filter_map(|(_, cidr)| cidr.parse().ok()).collect();
    if !wanted.is_empty() {
        let own: BTreeSet<&str> = account
            .subject
            .of_kind("aws.vpc")
            .filter_map(|step| step.outputs.as_ref()?.get("vpc_id")?.as_str())
            .collect();
        let answer = look("DescribeVpcs", account.aws.ec2.describe_vpcs().send()).await?;
        for vpc in answer.vpcs() {
            let (tags, id) = (tag_map(vpc.tags()), vpc.vpc_id().unwrap_or_default());
            let range: Option<Range> = vpc.cidr_block().and_then(|cidr| cidr.parse().ok());
            let Some(range) = range.filter(|_| !account.is_ours(&tags) && !own.contains(id)) else { continue };
            if wanted.iter().any(|ours| ours.overlaps(range)) {
                found.push(OVERLAP.warning(
                    format!("VPC {id} has {range} and is {}", owner_text(&tags)),
                    "the two can never be peered or joined by a transit gateway",
                    "choose another vpc_cidr now: it cannot be changed later",
                ));
            }
        }
    }
    let subnets: Vec<String> = account
        .subject
        .of_kind("aws.subnet")
        .filter_map(|step| step.outputs.as_ref()?.get("subnet_id")?.as_str().map(str::to_owned))
        .collect();
    if subnets.is_empty() {
        return Ok(found);
    }
    let filters = sdk_filters(vec![("subnet-id".to_owned(), subnets)]);
    let answer = look("DescribeSubnets", account.aws.ec2.describe_subnets().set_filters(filters).send()).await?;
    for subnet in answer.subnets() {
        let free = subnet.available_ip_address_count().unwrap_or(i32::MAX);
        if free < RECOMMENDED_FREE {
            found.push(FREE.warning(
                format!("subnet {} has {free} free addresses", subnet.subnet_id().unwrap_or_default()),
                "an upgrade of the control plane needs up to 5 of them, each new node several",
                "free some, or add a subnet",
            ));
        }
    }
    Ok(found)
}
