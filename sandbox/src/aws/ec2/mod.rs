//! EC2: which operation is answered where, and tags. The resources themselves are in the modules beside it.

mod catalog;
mod describe;
mod gateways;
mod groups;
mod network;
mod routes;
mod templates;

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::wire::{Refusal, items, text, texts};
use super::{Answer, Call, tag_list, tags_of, unknown};

pub(crate) use catalog::INSTANCE_TYPES;
pub(super) use catalog::zones;
pub(super) use groups::in_use as group_in_use;
pub(crate) use network::volume_body;
pub(super) use network::{NewInterface, interface, take_group};
pub(super) use routes::{blackhole, has_way_out};

/// Answers one EC2 call.
pub(super) fn dispatch(call: &mut Call<'_>, input: &Value) -> Answer {
    match call.operation {
        "CreateVpc" => network::create_vpc(call, input),
        "DeleteVpc" => network::delete_vpc(call, input),
        "DescribeVpcAttribute" => network::vpc_attribute(call, input),
        "ModifyVpcAttribute" => network::modify_vpc(call, input),
        "CreateSubnet" => network::create_subnet(call, input),
        "DeleteSubnet" => network::delete_subnet(call, input),
        "ModifySubnetAttribute" => network::modify_subnet(call, input),
        "DeleteNetworkInterface" => network::delete_interface(call, input),
        "DeleteSnapshot" => network::delete_snapshot(call, input),
        "DeleteVolume" => network::delete_volume(call, input),
        "CreateInternetGateway" => gateways::create_internet(call, input),
        "AttachInternetGateway" => gateways::attach(call, input),
        "DetachInternetGateway" => gateways::detach(call, input),
        "DeleteInternetGateway" => gateways::delete_internet(call, input),
        "AllocateAddress" => gateways::allocate(call, input),
        "ReleaseAddress" => gateways::release(call, input),
        "CreateNatGateway" => call.once(text(input, "/ClientToken"), input, "IdempotentParameterMismatch", |call| {
            gateways::create_nat(call, input)
        }),
        "DeleteNatGateway" => gateways::delete_nat(call, input),
        "CreateRouteTable" => call.once(text(input, "/ClientToken"), input, "IdempotentParameterMismatch", |call| {
            routes::create_table(call, input)
        }),
        "DeleteRouteTable" => routes::delete_table(call, input),
        "CreateRoute" => routes::create_route(call, input, false),
        "ReplaceRoute" => routes::create_route(call, input, true),
        "DeleteRoute" => routes::delete_route(call, input),
        "AssociateRouteTable" => routes::associate(call, input),
        "DisassociateRouteTable" => routes::disassociate(call, input),
        "CreateSecurityGroup" => groups::create(call, input),
        "DeleteSecurityGroup" => groups::delete(call, input),
        "AuthorizeSecurityGroupIngress" => groups::authorize(call, input, "ipPermissions"),
        "AuthorizeSecurityGroupEgress" => groups::authorize(call, input, "ipPermissionsEgress"),
        "RevokeSecurityGroupIngress" => groups::revoke(call, input, "ipPermissions"),
        "RevokeSecurityGroupEgress" => groups::revoke(call, input, "ipPermissionsEgress"),
        "DescribeSecurityGroupRules" => groups::describe_rules(call, input),
        "CreateLaunchTemplate" => {
            call.once(text(input, "/ClientToken"), input, "IdempotentParameterMismatch", |call| {
                templates::create(call, input)
            })
        }
        "CreateLaunchTemplateVersion" => {
            call.once(text(input, "/ClientToken"), input, "IdempotentParameterMismatch", |call| {
                templates::create_version(call, input)
            })
        }
        "ModifyLaunchTemplate" => templates::modify(call, input),
        "DeleteLaunchTemplate" => templates::delete(call, input),
        "DescribeLaunchTemplateVersions" => templates::versions(call, input),
        "CreateTags" => change_tags(call, input, true),
        "DeleteTags" => change_tags(call, input, false),
        "DescribeTags" => describe::tags(call, input),
        "DescribeAvailabilityZones" => catalog::describe_zones(call, input),
        "DescribeInstanceTypes" => catalog::describe_types(call, input),
        "DescribeRegions" => catalog::regions(call, input),
        "DescribeSpotPriceHistory" => catalog::spot_prices(call, input),
        "DescribeInstanceTypeOfferings" => catalog::offerings(call, input),
        "DescribeInstances" => describe::instances(call, input),
        "DescribeAccountAttributes" => Ok(json!({"accountAttributeSet": []})),
        operation if operation.starts_with("Describe") => describe::resources(call, input),
        _ => unknown(call),
    }
}

/// The tags that a create carries for its own kind of resource.
fn specified(input: &Value, resource: &str) -> BTreeMap<String, String> {
    items(input, "/TagSpecification")
        .iter()
        .filter(|one| text(one, "/ResourceType") == resource)
        .flat_map(|one| tags_of(&items(one, "/Tag"), "Key", "Value"))
        .collect()
}

/// A record's body as answered: public fields and tags.
fn shown(body: &Value, tags: &BTreeMap<String, String>) -> Value {
    let mut body = body.clone();
    if let Some(fields) = body.as_object_mut() {
        fields.insert("tagSet".to_owned(), tag_list(tags, "key", "value"));
    }
    body
}

/// The kind of resource an EC2 id belongs to, and the code that says that there is none.
fn kind_of(id: &str) -> (&'static str, &'static str) {
    match id.split('-').next().unwrap_or_default() {
        "vpc" => ("ec2:vpc", "InvalidVpcID.NotFound"),
        "subnet" => ("ec2:subnet", "InvalidSubnetID.NotFound"),
        "igw" => ("ec2:internet-gateway", "InvalidInternetGatewayID.NotFound"),
        "nat" => ("ec2:nat-gateway", "NatGatewayNotFound"),
        "eipalloc" => ("ec2:elastic-ip", "InvalidAllocationID.NotFound"),
        "rtb" => ("ec2:route-table", "InvalidRouteTableID.NotFound"),
        "sg" => ("ec2:security-group", "InvalidGroup.NotFound"),
        "lt" => ("ec2:launch-template", "InvalidLaunchTemplateId.NotFound"),
        "i" => ("ec2:instance", "InvalidInstanceID.NotFound"),
        "vol" => ("ec2:volume", "InvalidVolume.NotFound"),
        "snap" => ("ec2:snapshot", "InvalidSnapshot.NotFound"),
        "eni" => ("ec2:network-interface", "InvalidNetworkInterfaceID.NotFound"),
        _ => ("", "InvalidID"),
    }
}

fn change_tags(call: &mut Call<'_>, input: &Value, add: bool) -> Answer {
    let ids = texts(input, "/ResourceId");
    for id in &ids {
        let (kind, code) = kind_of(id);
        if call.get(kind, id).is_none() {
            let what = if kind.is_empty() { "is not valid" } else { "does not exist" };
            return Err(Refusal::bad(code, format!("The ID '{id}' {what}")));
        }
    }
    let tags = tags_of(&items(input, "/Tag"), "Key", "Value");
    if tags.keys().any(|key| key.starts_with("aws:")) {
        return Err(Refusal::bad(
            "InvalidParameterValue",
            "Tag keys starting with 'aws:' are reserved for internal use",
        ));
    }
    for id in &ids {
        if let Some(record) = call.get_mut(kind_of(id).0, id) {
            for (key, value) in &tags {
                if add {
                    record.tags.insert(key.clone(), value.clone());
                } else {
                    record.tags.remove(key);
                }
            }
        }
    }
    Ok(json!({"return": true}))
}

/// The record an operation names, or the refusal that it is not there.
fn existing<'a>(call: &'a mut Call<'_>, kind: &str, id: &str, code: &str) -> Result<&'a mut super::Record, Refusal> {
    call.get_mut(kind, id).ok_or_else(|| Refusal::bad(code, format!("The ID '{id}' does not exist")))
}

fn violation(what: &str, id: &str) -> Refusal {
    Refusal::bad("DependencyViolation", format!("The {what} '{id}' has dependencies and cannot be deleted."))
}
