//! Describe calls: one table of kinds, identifiers and filters, with paging. Special shapes are beside it.

use serde_json::{Value, json};

use super::super::inputs::is_filter;
use super::super::wire::{Refusal, items, number, page, text, texts};
use super::super::{Answer, Call, Record, unknown};
use super::shown;

struct Table {
    operation: &'static str,
    kind: &'static str,
    set: &'static str,
    parameter: &'static str,
    missing: &'static str,
    /// Filter name and pointer; `*` in a pointer means any item.
    filters: &'static [(&'static str, &'static str)],
}

const TABLES: &[Table] = &[
    Table {
        operation: "DescribeVpcs",
        kind: "ec2:vpc",
        set: "vpcSet",
        parameter: "VpcId",
        missing: "InvalidVpcID.NotFound",
        filters: &[
            ("vpc-id", "/vpcId"),
            ("state", "/state"),
            ("cidr", "/cidrBlock"),
            ("is-default", "/isDefault"),
            ("owner-id", "/ownerId"),
            ("cidr-block", "/cidrBlock"),
            ("cidrBlock", "/cidrBlock"),
            ("isDefault", "/isDefault"),
            ("dhcp-options-id", "/dhcpOptionsId"),
            ("cidr-block-association.cidr-block", "/cidrBlockAssociationSet/*/cidrBlock"),
            ("cidr-block-association.association-id", "/cidrBlockAssociationSet/*/associationId"),
            ("cidr-block-association.state", "/cidrBlockAssociationSet/*/cidrBlockState/state"),
        ],
    },
    Table {
        operation: "DescribeSubnets",
        kind: "ec2:subnet",
        set: "subnetSet",
        parameter: "SubnetId",
        missing: "InvalidSubnetID.NotFound",
        filters: &[
            ("subnet-id", "/subnetId"),
            ("vpc-id", "/vpcId"),
            ("state", "/state"),
            ("cidr-block", "/cidrBlock"),
            ("cidr", "/cidrBlock"),
            ("cidrBlock", "/cidrBlock"),
            ("available-ip-address-count", "/availableIpAddressCount"),
            ("default-for-az", "/defaultForAz"),
            ("defaultForAz", "/defaultForAz"),
            ("map-public-ip-on-launch", "/mapPublicIpOnLaunch"),
            ("owner-id", "/ownerId"),
            ("subnet-arn", "/subnetArn"),
            ("availabilityZone", "/availabilityZone"),
            ("availabilityZoneId", "/availabilityZoneId"),
            ("availability-zone", "/availabilityZone"),
            ("availability-zone-id", "/availabilityZoneId"),
        ],
    },
    Table {
        operation: "DescribeInternetGateways",
        kind: "ec2:internet-gateway",
        set: "internetGatewaySet",
        parameter: "InternetGatewayId",
        missing: "InvalidInternetGatewayID.NotFound",
        filters: &[
            ("internet-gateway-id", "/internetGatewayId"),
            ("owner-id", "/ownerId"),
            ("attachment.vpc-id", "/attachmentSet/*/vpcId"),
            ("attachment.state", "/attachmentSet/*/state"),
        ],
    },
    Table {
        operation: "DescribeAddresses",
        kind: "ec2:elastic-ip",
        set: "addressesSet",
        parameter: "AllocationId",
        missing: "InvalidAllocationID.NotFound",
        filters: &[
            ("allocation-id", "/allocationId"),
            ("private-ip-address", "/privateIpAddress"),
            ("network-border-group", "/networkBorderGroup"),
            ("public-ip", "/publicIp"),
            ("association-id", "/associationId"),
            ("domain", "/domain"),
            ("network-interface-id", "/networkInterfaceId"),
        ],
    },
    Table {
        operation: "DescribeNatGateways",
        kind: "ec2:nat-gateway",
        set: "natGatewaySet",
        parameter: "NatGatewayId",
        missing: "NatGatewayNotFound",
        filters: &[
            ("nat-gateway-id", "/natGatewayId"),
            ("subnet-id", "/subnetId"),
            ("vpc-id", "/vpcId"),
            ("state", "/state"),
        ],
    },
    Table {
        operation: "DescribeRouteTables",
        kind: "ec2:route-table",
        set: "routeTableSet",
        parameter: "RouteTableId",
        missing: "InvalidRouteTableID.NotFound",
        filters: &[
            ("route-table-id", "/routeTableId"),
            ("owner-id", "/ownerId"),
            ("association.route-table-id", "/associationSet/*/routeTableId"),
            ("route.destination-cidr-block", "/routeSet/*/destinationCidrBlock"),
            ("route.origin", "/routeSet/*/origin"),
            ("route.state", "/routeSet/*/state"),
            ("vpc-id", "/vpcId"),
            ("association.main", "/associationSet/*/main"),
            ("association.subnet-id", "/associationSet/*/subnetId"),
            ("association.route-table-association-id", "/associationSet/*/routeTableAssociationId"),
            ("route.nat-gateway-id", "/routeSet/*/natGatewayId"),
            ("route.gateway-id", "/routeSet/*/gatewayId"),
        ],
    },
    Table {
        operation: "DescribeSecurityGroups",
        kind: "ec2:security-group",
        set: "securityGroupInfo",
        parameter: "GroupId",
        missing: "InvalidGroup.NotFound",
        filters: &[
            ("group-id", "/groupId"),
            ("group-name", "/groupName"),
            ("owner-id", "/ownerId"),
            ("ip-permission.cidr", "/ipPermissions/*/ipRanges/*/cidrIp"),
            ("ip-permission.from-port", "/ipPermissions/*/fromPort"),
            ("ip-permission.to-port", "/ipPermissions/*/toPort"),
            ("ip-permission.protocol", "/ipPermissions/*/ipProtocol"),
            ("ip-permission.user-id", "/ipPermissions/*/groups/*/userId"),
            ("egress.ip-permission.cidr", "/ipPermissionsEgress/*/ipRanges/*/cidrIp"),
            ("egress.ip-permission.from-port", "/ipPermissionsEgress/*/fromPort"),
            ("egress.ip-permission.to-port", "/ipPermissionsEgress/*/toPort"),
            ("egress.ip-permission.protocol", "/ipPermissionsEgress/*/ipProtocol"),
            ("egress.ip-permission.user-id", "/ipPermissionsEgress/*/groups/*/userId"),
            ("vpc-id", "/vpcId"),
            ("description", "/groupDescription"),
            ("ip-permission.group-id", "/ipPermissions/*/groups/*/groupId"),
            ("egress.ip-permission.group-id", "/ipPermissionsEgress/*/groups/*/groupId"),
        ],
    },
    Table {
        operation: "DescribeNetworkInterfaces",
        kind: "ec2:network-interface",
        set: "networkInterfaceSet",
        parameter: "NetworkInterfaceId",
        missing: "InvalidNetworkInterfaceID.NotFound",
        filters: &[
            ("network-interface-id", "/networkInterfaceId"),
            ("subnet-id", "/subnetId"),
            ("vpc-id", "/vpcId"),
            ("group-id", "/groupSet/*/groupId"),
            ("owner-id", "/ownerId"),
            ("requester-managed", "/requesterManaged"),
            ("private-ip-address", "/privateIpAddress"),
            ("source-dest-check", "/sourceDestCheck"),
            ("addresses.private-ip-address", "/privateIpAddressesSet/*/privateIpAddress"),
            ("addresses.primary", "/privateIpAddressesSet/*/primary"),
            ("association.allocation-id", "/association/allocationId"),
            ("association.association-id", "/association/associationId"),
            ("association.public-ip", "/association/publicIp"),
            ("association.ip-owner-id", "/association/ipOwnerId"),
            ("attachment.attachment-id", "/attachment/attachmentId"),
            ("attachment.device-index", "/attachment/deviceIndex"),
            ("attachment.instance-owner-id", "/attachment/instanceOwnerId"),
            ("attachment.status", "/attachment/status"),
            ("attachment.delete-on-termination", "/attachment/deleteOnTermination"),
            ("status", "/status"),
            ("description", "/description"),
            ("requester-id", "/requesterId"),
            ("attachment.instance-id", "/attachment/instanceId"),
            ("interface-type", "/interfaceType"),
            ("availability-zone", "/availabilityZone"),
        ],
    },
    Table {
        operation: "DescribeVolumes",
        kind: "ec2:volume",
        set: "volumeSet",
        parameter: "VolumeId",
        missing: "InvalidVolume.NotFound",
        filters: &[
            ("volume-id", "/volumeId"),
            ("create-time", "/createTime"),
            ("encrypted", "/encrypted"),
            ("size", "/size"),
            ("volume-type", "/volumeType"),
            ("attachment.device", "/attachmentSet/*/device"),
            ("attachment.status", "/attachmentSet/*/status"),
            ("attachment.delete-on-termination", "/attachmentSet/*/deleteOnTermination"),
            ("status", "/status"),
            ("availability-zone", "/availabilityZone"),
            ("attachment.instance-id", "/attachmentSet/*/instanceId"),
        ],
    },
    Table {
        operation: "DescribeLaunchTemplates",
        kind: "ec2:launch-template",
        set: "launchTemplates",
        parameter: "LaunchTemplateId",
        missing: "InvalidLaunchTemplateId.NotFound",
        filters: &[
            ("launch-template-name", "/launchTemplateName"),
            ("launch-template-id", "/launchTemplateId"),
            ("create-time", "/createTime"),
        ],
    },
    Table {
        operation: "DescribeInstances",
        kind: "ec2:instance",
        set: "instancesSet",
        parameter: "InstanceId",
        missing: "InvalidInstanceID.NotFound",
        filters: &[
            ("instance-id", "/instanceId"),
            ("vpc-id", "/vpcId"),
            ("subnet-id", "/subnetId"),
            ("instance-state-name", "/instanceState/name"),
            ("instance-type", "/instanceType"),
            ("image-id", "/imageId"),
            ("private-ip-address", "/privateIpAddress"),
            ("private-dns-name", "/privateDnsName"),
            ("instance-state-code", "/instanceState/code"),
            ("instance.group-id", "/groupSet/*/groupId"),
            ("launch-time", "/launchTime"),
            ("availability-zone", "/placement/availabilityZone"),
        ],
    },
    // What AWS offers and the sandbox never makes by itself.
    Table {
        operation: "DescribeVpcEndpoints",
        kind: "ec2:vpc-endpoint",
        set: "vpcEndpointSet",
        parameter: "VpcEndpointId",
        missing: "InvalidVpcEndpointId.NotFound",
        filters: &[
            ("vpc-id", "/vpcId"),
            ("vpc-endpoint-id", "/vpcEndpointId"),
            ("vpc-endpoint-state", "/state"),
            ("service-name", "/serviceName"),
        ],
    },
    Table {
        operation: "DescribeSnapshots",
        kind: "ec2:snapshot",
        set: "snapshotSet",
        parameter: "SnapshotId",
        missing: "InvalidSnapshot.NotFound",
        filters: &[
            ("snapshot-id", "/snapshotId"),
            ("volume-id", "/volumeId"),
            ("status", "/status"),
            ("description", "/description"),
            ("encrypted", "/encrypted"),
            ("owner-id", "/ownerId"),
            ("progress", "/progress"),
            ("start-time", "/startTime"),
            ("volume-size", "/volumeSize"),
        ],
    },
];

/// The values at a pointer with `*` for list items.
fn values(body: &Value, pointer: &str) -> Vec<String> {
    let mut at = vec![body];
    for part in pointer.split('/').skip(1) {
        at = at
            .into_iter()
            .flat_map(|value| match (part, value) {
                ("*", Value::Array(list)) => list.iter().collect(),
                (name, value) => value.get(name).into_iter().collect::<Vec<_>>(),
            })
            .collect();
    }
    at.into_iter().map(|value| value.as_str().map_or_else(|| value.to_string(), str::to_owned)).collect()
}

/// Whether a text matches a filter value, in which `*` stands for anything.
fn matches(wanted: &str, value: &str) -> bool {
    let mut parts = wanted.split('*');
    let Some(mut rest) = value.strip_prefix(parts.next().unwrap_or_default()) else { return false };
    if !wanted.contains('*') {
        return rest.is_empty();
    }
    let parts: Vec<&str> = parts.collect();
    let Some((last, middle)) = parts.split_last() else { return rest.is_empty() };
    for part in middle {
        let Some(at) = rest.find(part) else { return false };
        rest = rest.get(at + part.len()..).unwrap_or_default();
    }
    rest.ends_with(last)
}

fn passes(record: &Record, filters: &[Value], known: &[(&str, &str)]) -> bool {
    for filter in filters {
        let name = text(filter, "/Name");
        let wanted = texts(filter, "/Value");
        let found = if let Some(key) = name.strip_prefix("tag:") {
            record.tags.get(key).cloned().into_iter().collect()
        } else if name == "tag-key" {
            record.tags.keys().cloned().collect()
        } else if let Some((_, pointer)) = known.iter().find(|(known, _)| *known == name) {
            values(&record.body, pointer)
        } else {
            // Documented, and about something that nothing here has.
            Vec::new()
        };
        if !found.iter().any(|value| wanted.iter().any(|wanted| matches(wanted, value))) {
            return false;
        }
    }
    true
}

pub(super) fn unknown_filter(name: &str) -> Refusal {
    Refusal::bad("InvalidParameterValue", format!("The filter '{name}' is invalid"))
}

fn select(call: &Call<'_>, input: &Value, table: &Table) -> Result<Vec<Value>, Refusal> {
    let filters = items(input, "/Filter");
    for name in filters.iter().map(|filter| text(filter, "/Name")) {
        let known = table.filters.iter().any(|(known, _)| *known == name) || is_filter(table.operation, name);
        if !(known || name == "tag-key" || name.starts_with("tag:")) {
            return Err(unknown_filter(name));
        }
    }
    let ids = texts(input, &format!("/{}", table.parameter));
    for id in &ids {
        if call.get(table.kind, id).is_none() {
            return Err(Refusal::bad(table.missing, format!("The ID '{id}' does not exist")));
        }
    }
    let names = texts(input, "/LaunchTemplateName");
    for name in &names {
        if !call.all(table.kind).any(|record| record.text("/launchTemplateName") == name) {
            return Err(Refusal::bad(
                "InvalidLaunchTemplateName.NotFoundException",
                format!("The launch template {name} does not exist"),
            ));
        }
    }
    let mut found = Vec::new();
    for record in call.all(table.kind) {
        let named = names.is_empty() || names.iter().any(|name| record.text("/launchTemplateName") == name);
        if (ids.is_empty() || ids.contains(&record.id)) && named && passes(record, &filters, table.filters) {
            found.push(shown(&record.body, &record.tags));
        }
    }
    Ok(found)
}

/// The describe calls of the table.
pub(super) fn resources(call: &Call<'_>, input: &Value) -> Answer {
    let Some(table) = TABLES.iter().find(|table| table.operation == call.operation) else { return unknown(call) };
    paged(select(call, input, table)?, input, table.set)
}

fn paged(found: Vec<Value>, input: &Value, set: &str) -> Answer {
    let size = number(input, "/MaxResults").and_then(|size| usize::try_from(size).ok());
    let (items, next) = page(found, size, text(input, "/NextToken"));
    Ok(json!({set: items, "nextToken": next}))
}

/// `DescribeInstances`: one reservation per instance.
pub(super) fn instances(call: &Call<'_>, input: &Value) -> Answer {
    let Some(table) = TABLES.iter().find(|table| table.operation == "DescribeInstances") else { return unknown(call) };
    let account = call.account();
    let found = select(call, input, table)?.into_iter()
        .map(|instance| json!({"reservationId": text(&instance, "/_reservation"), "ownerId": account, "groupSet": [], "instancesSet": [instance]})).collect();
    paged(found, input, "reservationSet")
}

/// `DescribeTags`.
pub(super) fn tags(call: &Call<'_>, input: &Value) -> Answer {
    let filters = items(input, "/Filter");
    let mut found = Vec::new();
    for record in call.state.records().filter(|record| record.kind.starts_with("ec2:") && record.region == call.region)
    {
        let kind = record.kind.trim_start_matches("ec2:");
        for (key, value) in &record.tags {
            let one = json!({"resourceId": record.id, "resourceType": kind, "key": key, "value": value});
            let mut fits = true;
            for filter in &filters {
                let name = text(filter, "/Name");
                let have = match name {
                    "resource-id" => &record.id,
                    "resource-type" => kind,
                    "key" => key,
                    "value" => value,
                    _ if name.strip_prefix("tag:") == Some(key) => value,
                    _ if name.starts_with("tag:") => "",
                    _ => return Err(unknown_filter(name)),
                };
                fits &= texts(filter, "/Value").iter().any(|wanted| matches(wanted, have));
            }
            if fits {
                found.push(one);
            }
        }
    }
    paged(found, input, "tagSet")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Filter values match as a whole, with `*` for any part.
    #[test]
    fn wildcards() {
        assert!(matches("a*c*", "abcd") && matches("*", "") && matches("abc", "abc") && matches("*d", "abcd"));
        assert!(!matches("ab", "abc") && !matches("a*x", "abc") && !matches("b*", "abc"));
    }
}
