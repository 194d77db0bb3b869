//! Who stands in the way of a deletion: every interface and every other occupant, with requester, instance and owner.
//!
//! Reads only. What drains by itself is waited for; everything else is named, with the step or the controller it belongs
//! to and what the operator can do.

use super::clients::AwsClients;
use super::ec2::{Resource, filter, sdk_filters, tag_map};
use super::eks_cluster;
use super::failure::look;
use super::leftovers::{interfaces, left_by_cni, made_by_controller};
use super::lists;
use super::ownership::{STEP, Tags, UID, going, owner_text, ways_out};
use super::signed::Service;
use aws_sdk_ec2::types::{NatGateway, NetworkInterface, SecurityGroup, Subnet, VpcEndpoint};
use platflow_engine::context::Context;
use platflow_engine::failure::StepError;
use platflow_engine::step::UndoProgress;

const EKS: &str = "Amazon EKS ";
const NAT: &str = "Interface for NAT Gateway ";
const BALANCER: &str = "ELB ";
const ENDPOINT: &str = "VPC Endpoint Interface ";

/// AWS takes these away by itself once their owner is deleted: EKS control plane, NAT gateways, load balancers.
fn drains_by_itself(interface: &NetworkInterface) -> bool {
    let text = interface.description().unwrap_or_default();
    text.starts_with(EKS) || text.starts_with(NAT) || left_by_cni(interface)
}

fn of_balancer(interface: &NetworkInterface) -> bool {
    interface.description().is_some_and(|text| text.starts_with(BALANCER))
}

/// The step or the stranger that tags name.
fn named_by(tags: &Tags, context: &Context) -> Option<String> {
    let ours = tags.get(UID).map(String::as_str) == Some(context.environment_uid.as_str());
    match tags.get(STEP) {
        Some(step) if ours => Some(format!("of our step {step}")),
        _ if tags.contains_key(UID) => Some(format!("of {}", owner_text(tags))),
        _ => None,
    }
}

async fn gateway(aws: &AwsClients, context: &Context, id: &str) -> Result<String, StepError> {
    let found = NatGateway::describe(aws, vec![filter("nat-gateway-id", id)]).await?;
    let step = found.first().and_then(|gateway| named_by(&tag_map(Resource::tags(gateway)), context));
    Ok(format!("NAT gateway {id}, {}", step.unwrap_or_else(|| "which is not ours".to_owned())))
}

async fn machine(aws: &AwsClients, context: &Context, id: &str) -> Result<String, StepError> {
    let sending = aws.ec2.describe_instances().set_filters(sdk_filters(vec![filter("instance-id", id)])).send();
    let answer = look("DescribeInstances", sending).await?;
    let tags = answer.reservations().iter().flat_map(|one| one.instances()).next().map(|one| tag_map(one.tags()));
    let tags = tags.unwrap_or_default();
    let group = tags.get("eks:nodegroup-name").map(|group| format!("a machine of node group {group}"));
    let owner = group.or_else(|| named_by(&tags, context)).unwrap_or_else(|| owner_text(&tags));
    Ok(format!("instance {id}, {owner}"))
}

/// Whose an interface is: by its own tags, or by what its description says that it serves.
async fn owner_of(aws: &AwsClients, context: &Context, interface: &NetworkInterface) -> Result<String, StepError> {
    let tags = tag_map(interface.tag_set());
    if let Some(owner) = named_by(&tags, context) {
        return Ok(owner);
    }
    let text = interface.description().unwrap_or_default();
    if let Some(cluster) = text.strip_prefix(EKS) {
        let found = eks_cluster::get(aws, cluster).await?;
        let tags = found.and_then(|cluster| cluster.tags().cloned()).unwrap_or_default().into_iter().collect();
        let step = named_by(&tags, context).unwrap_or_else(|| "which is gone or not ours".to_owned());
        return Ok(format!("of the control plane of cluster {cluster}, {step}"));
    }
    if let Some(id) = text.strip_prefix(NAT) {
        return Ok(format!("of {}", gateway(aws, context, id).await?));
    }
    if let Some(balancer) = text.strip_prefix(BALANCER) {
        let name = balancer.split('/').nth(1).unwrap_or(balancer);
        let maker =
            if name.starts_with("k8s-") { "which a controller of the cluster made" } else { "of unknown maker" };
        return Ok(format!("of load balancer {name}, {maker}"));
    }
    if let Some(endpoint) = text.strip_prefix(ENDPOINT) {
        return Ok(format!("of VPC endpoint {endpoint}"));
    }
    if left_by_cni(interface) {
        return Ok("left by the VPC CNI".to_owned());
    }
    match interface.attachment().and_then(|attachment| attachment.instance_id()) {
        Some(instance) if tags.is_empty() => Ok(format!("of {}", machine(aws, context, instance).await?)),
        Some(instance) => Ok(format!("{}, attached to {}", owner_text(&tags), machine(aws, context, instance).await?)),
        None => Ok(format!("of nobody that we know: {}", owner_text(&tags))),
    }
}

async fn describe(aws: &AwsClients, context: &Context, interface: &NetworkInterface) -> Result<String, StepError> {
    let part = |value: Option<&str>| value.filter(|text| !text.is_empty()).unwrap_or("none").to_owned();
    let instance = interface.attachment().and_then(|attachment| attachment.instance_id());
    Ok(format!(
        "interface {} ({}, requester {}, instance {}) {}",
        part(interface.network_interface_id()),
        part(interface.description()),
        part(interface.requester_id()),
        part(instance),
        owner_of(aws, context, interface).await?
    ))
}

/// The load balancers in a VPC by what is to become of them.
#[derive(Default)]
struct Standing {
    /// Those that controllers of a cluster made: they go with the cluster's own step, whose turn may come later.
    of_clusters: Vec<String>,
    /// All others.
    of_others: Vec<String>,
}

fn of_cluster(tags: &Tags) -> bool {
    tags.keys().any(|key| key.starts_with("kubernetes.io/cluster/") || key == "elbv2.k8s.aws/cluster")
}

/// Interfaces of load balancers go some minutes after their load balancer: they are in the way for good only while one
/// still exists in the VPC.
async fn balancers(aws: &AwsClients, interfaces: &[NetworkInterface]) -> Result<Standing, StepError> {
    let mut standing = Standing::default();
    let Some(vpc) = interfaces.iter().find(|one| of_balancer(one)).and_then(|one| one.vpc_id()) else {
        return Ok(standing);
    };
    let modern = lists::balancers(aws).await?.into_iter().map(|one| (one.arn, one.name, one.vpc));
    let modern: Vec<_> = modern.collect();
    let classic = lists::classic_balancers(aws).await?.into_iter().map(|one| (one.name.clone(), one.name, one.vpc));
    let classic: Vec<_> = classic.collect();
    for (service, all) in [(Service::Elb, modern), (Service::ClassicElb, classic)] {
        let here: Vec<_> = all.into_iter().filter(|(_, _, of)| of == vpc).collect();
        let ids: Vec<String> = here.iter().map(|(id, _, _)| id.clone()).collect();
        let tags = lists::balancer_tags(aws, service, &ids).await?;
        for (id, name, _) in here {
            // Without an answer for it, it went while it was being asked about.
            let Some(tags) = tags.get(&id) else { continue };
            if of_cluster(tags) {
                standing.of_clusters.push(name);
            } else {
                standing.of_others.push(format!("load balancer {name}, {}", owner_text(tags)));
            }
        }
    }
    Ok(standing)
}

/// What else keeps a VPC: security groups, subnets and endpoints that its own steps did not take away.
async fn occupants(aws: &AwsClients, context: &Context, vpc: &str) -> Result<Vec<String>, StepError> {
    let here = || vec![filter("vpc-id", vpc)];
    let whose = |tags: &Tags| named_by(tags, context).unwrap_or_else(|| owner_text(tags));
    let mut found = Vec::new();
    for group in SecurityGroup::describe(aws, here()).await? {
        if group.group_name() != Some("default") && !made_by_controller(&group) {
            let name = group.group_name().unwrap_or("?").to_owned();
            found.push(format!("security group {} ({name}), {}", group.id(), whose(&tag_map(group.tags()))));
        }
    }
    for subnet in Subnet::describe(aws, here()).await? {
        found.push(format!("subnet {}, {}", subnet.id(), whose(&tag_map(Resource::tags(&subnet)))));
    }
    let sending = aws.ec2.describe_vpc_endpoints().set_filters(sdk_filters(here())).send();
    let endpoints: Vec<VpcEndpoint> = look("DescribeVpcEndpoints", sending).await?.vpc_endpoints.unwrap_or_default();
    for endpoint in endpoints {
        let id = endpoint.vpc_endpoint_id().unwrap_or("?");
        found.push(format!("VPC endpoint {id}, {}", whose(&tag_map(endpoint.tags()))));
    }
    Ok(found)
}

/// How an undo goes on after a `DependencyViolation`: waits for what drains by itself, or names who is in the way.
pub(super) async fn obstacles(
    aws: &AwsClients,
    context: &Context,
    selection: (String, Vec<String>),
    what: &str,
) -> Result<UndoProgress, StepError> {
    let vpc = selection.1.first().filter(|_| selection.0 == "vpc-id").cloned();
    let in_the_way = interfaces(aws, selection).await?;
    let by_itself = |interface: &NetworkInterface| drains_by_itself(interface) || of_balancer(interface);
    let mut stuck = Vec::new();
    for interface in in_the_way.iter().filter(|one| !by_itself(one)) {
        stuck.push(describe(aws, context, interface).await?);
    }
    let Standing { of_clusters, of_others } = balancers(aws, &in_the_way).await?;
    stuck.extend(of_others);
    if let Some(vpc) = vpc.filter(|_| stuck.is_empty() && in_the_way.is_empty()) {
        stuck.extend(occupants(aws, context, &vpc).await?);
    }
    if !stuck.is_empty() {
        return Ok(UndoProgress::Blocked {
            owner: format!("{what} is in use by {}", stuck.join("; ")),
            remedy: ways_out(context, "delete what stands in the way, if nobody needs it"),
        });
    }
    if in_the_way.is_empty() {
        return Ok(going(format!("{what} is still in use by something that shows no interface"), 10, 15));
    }
    if !of_clusters.is_empty() {
        let names = of_clusters.join(", ");
        let reason = format!("{what} waits for load balancers that a cluster made, and that go with it: {names}");
        return Ok(going(reason, 10, 40));
    }
    let mut draining = Vec::new();
    for interface in &in_the_way {
        draining.push(describe(aws, context, interface).await?);
    }
    Ok(going(format!("{what} waits for interfaces to drain: {}", draining.join("; ")), 10, 25))
}
