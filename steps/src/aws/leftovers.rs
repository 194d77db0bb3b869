//! What controllers leave in our VPC. Who else stands in the way of a deletion is `blockers`.
//!
//! Deleted here are only: available interfaces of the VPC CNI, and security groups that EKS or a load balancer
//! controller made, both in a VPC that carries our environment's tag. Everything else is named and left alone.

use super::clients::AwsClients;
use super::ec2::{Resource, by_id, filter, sdk_filters, tag_map};
use super::failure::{change, look};
use super::ownership::{Tags, UID};
use aws_sdk_ec2::types::{IpPermission, NetworkInterface, NetworkInterfaceStatus, SecurityGroup, Vpc};
use platflow_engine::context::Context;
use platflow_engine::failure::StepError;

/// The tag that the VPC CNI puts on the interfaces it makes.
const CNI_TAG: &str = "node.k8s.amazonaws.com/instance_id";

pub(super) async fn interfaces(
    aws: &AwsClients,
    selection: (String, Vec<String>),
) -> Result<Vec<NetworkInterface>, StepError> {
    let sending = aws.ec2.describe_network_interfaces().set_filters(sdk_filters(vec![selection])).send();
    Ok(look("DescribeNetworkInterfaces", sending).await?.network_interfaces.unwrap_or_default())
}

pub(super) fn left_by_cni(interface: &NetworkInterface) -> bool {
    interface.status() == Some(&NetworkInterfaceStatus::Available)
        && (interface.tag_set().iter().any(|tag| tag.key() == Some(CNI_TAG))
            || interface.description().is_some_and(|text| text.starts_with("aws-K8S-")))
}

pub(super) async fn is_our_vpc(aws: &AwsClients, context: &Context, vpc: &str) -> Result<bool, StepError> {
    let found = by_id::<Vpc>(aws, vpc).await?;
    let uid = context.environment_uid.as_str();
    Ok(found.is_some_and(|vpc| tag_map(Resource::tags(&vpc)).get(UID).map(String::as_str) == Some(uid)))
}

/// Deletes available interfaces of the VPC CNI among those selected, if the VPC is ours.
pub(super) async fn sweep_interfaces(
    aws: &AwsClients,
    context: &Context,
    vpc: &str,
    selection: (String, Vec<String>),
) -> Result<(), StepError> {
    let left: Vec<NetworkInterface> = interfaces(aws, selection).await?.into_iter().filter(left_by_cni).collect();
    if left.is_empty() || !is_our_vpc(aws, context, vpc).await? {
        return Ok(());
    }
    for interface in left {
        let Some(id) = interface.network_interface_id() else { continue };
        let permit = context.begin(&format!("DeleteNetworkInterface/{id}"))?;
        let sending = aws.ec2.delete_network_interface().network_interface_id(id).send();
        match change("DeleteNetworkInterface", &permit, sending).await {
            Ok(_) => {}
            Err(failure) if failure.is_not_found() => {}
            Err(failure) => return Err(failure.into()),
        }
    }
    Ok(())
}

/// Deletes what controllers left in our VPC: interfaces of the CNI, and security groups of EKS and load balancers.
pub(super) async fn sweep_vpc(aws: &AwsClients, context: &Context, vpc: &str) -> Result<(), StepError> {
    sweep_interfaces(aws, context, vpc, filter("vpc-id", vpc)).await?;
    let sending = aws.ec2.describe_security_groups().set_filters(sdk_filters(vec![filter("vpc-id", vpc)])).send();
    let groups = look("DescribeSecurityGroups", sending).await?.security_groups.unwrap_or_default();
    let left: Vec<&SecurityGroup> = groups.iter().filter(|group| made_by_controller(group)).collect();
    if left.is_empty() || !is_our_vpc(aws, context, vpc).await? {
        return Ok(());
    }
    for group in left {
        delete_group(aws, context, group.group_id().unwrap_or_default(), &groups).await?;
    }
    Ok(())
}

pub(super) fn made_by_controller(group: &SecurityGroup) -> bool {
    let name = group.group_name().unwrap_or_default();
    let tags: Tags = tag_map(group.tags());
    let named = ["eks-cluster-sg-", "k8s-elb-", "k8s-traffic-", "eks-remoteAccess-"]
        .iter()
        .any(|prefix| name.starts_with(prefix));
    let tagged = tags.contains_key("elbv2.k8s.aws/cluster") || tags.contains_key("aws:eks:cluster-name");
    (named || tagged) && name != "default" && !tags.contains_key(UID)
}

/// Deletes a security group after revoking the rules of other groups that refer to it. In use or gone is no error:
/// what follows finds out.
pub(super) async fn delete_group(
    aws: &AwsClients,
    context: &Context,
    id: &str,
    groups: &[SecurityGroup],
) -> Result<(), StepError> {
    for other in groups.iter().filter(|other| other.group_id() != Some(id)) {
        revoke_references(aws, context, other, id).await?;
    }
    let permit = context.begin(&format!("DeleteSecurityGroup/{id}"))?;
    match change("DeleteSecurityGroup", &permit, aws.ec2.delete_security_group().group_id(id).send()).await {
        Ok(_) => Ok(()),
        Err(failure) if failure.is_not_found() || failure.is(&["DependencyViolation"]) => Ok(()),
        Err(failure) => Err(failure.into()),
    }
}

fn references(permissions: &[IpPermission], id: &str) -> Vec<IpPermission> {
    permissions
        .iter()
        .filter_map(|permission| {
            let pairs: Vec<_> =
                permission.user_id_group_pairs().iter().filter(|pair| pair.group_id() == Some(id)).cloned().collect();
            let with = |permission: &IpPermission| {
                IpPermission::builder()
                    .set_ip_protocol(permission.ip_protocol.clone())
                    .set_from_port(permission.from_port)
                    .set_to_port(permission.to_port)
                    .set_user_id_group_pairs(Some(pairs.clone()))
                    .build()
            };
            (!pairs.is_empty()).then(|| with(permission))
        })
        .collect()
}

/// Revokes the rules of `group` that refer to the group `id`.
pub(super) async fn revoke_references(
    aws: &AwsClients,
    context: &Context,
    group: &SecurityGroup,
    id: &str,
) -> Result<(), StepError> {
    let holder = group.group_id().unwrap_or_default();
    let inward = references(group.ip_permissions(), id);
    if !inward.is_empty() {
        let permit = context.begin(&format!("RevokeSecurityGroupIngress/{holder}"))?;
        let request = aws.ec2.revoke_security_group_ingress().group_id(holder);
        change("RevokeSecurityGroupIngress", &permit, request.set_ip_permissions(Some(inward)).send()).await?;
    }
    let outward = references(group.ip_permissions_egress(), id);
    if !outward.is_empty() {
        let permit = context.begin(&format!("RevokeSecurityGroupEgress/{holder}"))?;
        let request = aws.ec2.revoke_security_group_egress().group_id(holder);
        change("RevokeSecurityGroupEgress", &permit, request.set_ip_permissions(Some(outward)).send()).await?;
    }
    Ok(())
}
