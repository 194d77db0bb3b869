//! VPCs, subnets, network interfaces and volumes, with what keeps each of them from being deleted.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use serde_json::{Value, json};

use super::super::wire::{Refusal, iso, need, text};
use super::super::{Answer, Call, unknown};
use super::{existing, shown, specified, violation, zones};

const VPC_QUOTA: usize = 5;

/// An IPv4 block as its first and last address, whichever of its addresses is named.
pub(super) fn block(cidr: &str) -> Option<(u32, u32)> {
    let (address, prefix) = cidr.split_once('/')?;
    let (address, prefix): (Ipv4Addr, u32) = (address.parse().ok()?, prefix.parse().ok()?);
    let rest = u32::MAX.checked_shr(prefix).or((prefix == 32).then_some(0))?;
    let first = u32::from(address) & !rest;
    Some((first, first | rest))
}

pub(super) fn no_block(cidr: &str, parameter: &str) -> Refusal {
    let message = format!("Value ({cidr}) for parameter {parameter} is invalid. This is not a valid CIDR block.");
    Refusal::bad("InvalidParameterValue", message)
}

/// A block of a VPC or subnet: its canonical form with its first and last address; `/16` to `/28` are allowed.
fn sized_block(cidr: &str, code: &str) -> Result<(String, u32, u32), Refusal> {
    let (first, last) = block(cidr).ok_or_else(|| no_block(cidr, "cidrBlock"))?;
    let prefix = (last - first).leading_zeros();
    if !(16..=28).contains(&prefix) {
        return Err(Refusal::bad(code, format!("The CIDR '{cidr}' is invalid.")));
    }
    Ok((format!("{}/{prefix}", Ipv4Addr::from(first)), first, last))
}

pub(super) fn create_vpc(call: &mut Call<'_>, input: &Value) -> Answer {
    let (cidr, ..) = sized_block(need(input, "CidrBlock")?, "InvalidVpc.Range")?;
    if call.all("ec2:vpc").count() >= VPC_QUOTA {
        return Err(Refusal::bad("VpcLimitExceeded", "The maximum number of VPCs has been reached."));
    }
    let id = call.id("vpc");
    let association = call.id("vpc-cidr-assoc");
    let body = json!({
        "vpcId": id, "ownerId": call.account(), "cidrBlock": cidr, "state": "pending", "isDefault": false,
        "dhcpOptionsId": "dopt-00000000000000001", "instanceTenancy": "default",
        "cidrBlockAssociationSet": [{"associationId": association, "cidrBlock": cidr, "cidrBlockState": {"state": "associated"}}],
        "_dns": {"enableDnsSupport": true, "enableDnsHostnames": false},
    });
    let mut record = call.record("ec2:vpc", &id, body, specified(input, "vpc"));
    record.then(call.now_ms + 3_000, "available");
    let answer = json!({"vpc": shown(&record.body, &record.tags)});
    call.state.put(record);
    let group = take_group(call, &id, "default", "default VPC security group", BTreeMap::new());
    if let Some(record) = call.get_mut("ec2:security-group", &group) {
        record.system = true;
    }
    let table = call.id("rtb");
    let association = call.id("rtbassoc");
    let body = json!({
        "routeTableId": table, "vpcId": id, "ownerId": call.account(),
        "routeSet": [{"destinationCidrBlock": cidr, "gatewayId": "local", "state": "active", "origin": "CreateRouteTable"}],
        "associationSet": [{"routeTableAssociationId": association, "routeTableId": table, "main": true, "associationState": {"state": "associated"}}],
        "propagatingVgwSet": [],
    });
    let mut main = call.record("ec2:route-table", &table, body, BTreeMap::new());
    main.system = true;
    call.state.put(main);
    Ok(answer)
}

/// Makes a security group with the usual way out.
pub(in super::super) fn take_group(
    call: &mut Call<'_>,
    vpc: &str,
    name: &str,
    description: &str,
    tags: BTreeMap<String, String>,
) -> String {
    let id = call.id("sg");
    let body = json!({
        "groupId": id, "groupName": name, "groupDescription": description, "vpcId": vpc, "ownerId": call.account(),
        "ipPermissions": [],
        "ipPermissionsEgress": [{"ipProtocol": "-1", "groups": [], "ipRanges": [{"cidrIp": "0.0.0.0/0"}], "ipv6Ranges": [], "prefixListIds": []}],
    });
    let record = call.record("ec2:security-group", &id, body, tags);
    call.state.put(record);
    id
}

pub(super) fn delete_vpc(call: &mut Call<'_>, input: &Value) -> Answer {
    let id = need(input, "VpcId")?;
    existing(call, "ec2:vpc", id, "InvalidVpcID.NotFound")?;
    let inside = call.state.records().any(|record| {
        record.kind.starts_with("ec2:")
            && record.kind != "ec2:vpc"
            && !record.system
            && record.text("/vpcId") == id
            && record.text("/state") != "deleted"
    });
    let attached = call.all("ec2:internet-gateway").any(|record| record.text("/attachmentSet/0/vpcId") == id);
    if inside || attached {
        return Err(violation("vpc", id));
    }
    let system: Vec<(String, String)> = call
        .state
        .records()
        .filter(|record| record.system && record.text("/vpcId") == id)
        .map(|record| (record.kind.clone(), record.id.clone()))
        .collect();
    for (kind, inner) in system {
        call.remove(&kind, &inner);
    }
    call.remove("ec2:vpc", id);
    Ok(json!({"return": true}))
}

pub(super) fn vpc_attribute(call: &mut Call<'_>, input: &Value) -> Answer {
    let id = need(input, "VpcId")?;
    let name = need(input, "Attribute")?;
    let record = existing(call, "ec2:vpc", id, "InvalidVpcID.NotFound")?;
    let on = record.body.pointer(&format!("/_dns/{name}")).and_then(Value::as_bool).unwrap_or(false);
    Ok(json!({"vpcId": id, name: {"value": on}}))
}

pub(super) fn modify_vpc(call: &mut Call<'_>, input: &Value) -> Answer {
    let id = need(input, "VpcId")?;
    let mut changed = 0;
    let record = existing(call, "ec2:vpc", id, "InvalidVpcID.NotFound")?;
    for (parameter, name) in [("EnableDnsSupport", "enableDnsSupport"), ("EnableDnsHostnames", "enableDnsHostnames")] {
        if let Some(on) = input.pointer(&format!("/{parameter}/Value")).and_then(Value::as_str)
            && let Some(flag) = record.body.pointer_mut(&format!("/_dns/{name}"))
        {
            *flag = json!(on == "true");
            changed += 1;
        }
    }
    if changed == 1 {
        Ok(json!({"return": true}))
    } else {
        Err(Refusal::bad("InvalidParameterCombination", "Exactly one attribute has to be modified per call"))
    }
}

pub(super) fn create_subnet(call: &mut Call<'_>, input: &Value) -> Answer {
    let vpc = need(input, "VpcId")?.to_owned();
    let outer = existing(call, "ec2:vpc", &vpc, "InvalidVpcID.NotFound")?.text("/cidrBlock").to_owned();
    let (cidr, first, last) = sized_block(need(input, "CidrBlock")?, "InvalidSubnet.Range")?;
    let (low, high) = block(&outer).ok_or_else(|| no_block(&outer, "cidrBlock"))?;
    if first < low || last > high {
        return Err(Refusal::bad("InvalidSubnet.Range", format!("The CIDR '{cidr}' is invalid.")));
    }
    let overlaps = |other: &str| block(other).is_some_and(|(a, b)| first <= b && a <= last);
    if call.all("ec2:subnet").any(|record| record.text("/vpcId") == vpc && overlaps(record.text("/cidrBlock"))) {
        return Err(Refusal::bad("InvalidSubnet.Conflict", format!("The CIDR '{cidr}' conflicts with another subnet")));
    }
    let zones = zones(call.region);
    let (by_id, by_name) = (text(input, "/AvailabilityZoneId"), text(input, "/AvailabilityZone"));
    let zone = zones
        .iter()
        .find(|(name, id)| if by_id.is_empty() { by_name.is_empty() || name == by_name } else { id == by_id });
    let Some((zone, zone_id)) = zone else {
        return Err(Refusal::bad(
            "InvalidParameterValue",
            format!(
                "Value ({by_id}{by_name}) for parameter availabilityZone is invalid. Subnets can currently only be created in: {zones:?}"
            ),
        ));
    };
    let id = call.id("subnet");
    let body = json!({
        "subnetId": id, "subnetArn": call.arn("ec2", &format!("subnet/{id}")), "vpcId": vpc, "ownerId": call.account(), "cidrBlock": cidr,
        "state": "pending", "availabilityZone": zone, "availabilityZoneId": zone_id, "availableIpAddressCount": (last - first).saturating_sub(4),
        "defaultForAz": false, "mapPublicIpOnLaunch": false, "assignIpv6AddressOnCreation": false, "ipv6CidrBlockAssociationSet": [], "_next_address": first + 10,
    });
    let mut record = call.record("ec2:subnet", &id, body, specified(input, "subnet"));
    record.then(call.now_ms + 2_000, "available");
    let answer = json!({"subnet": shown(&record.body, &record.tags)});
    call.state.put(record);
    Ok(answer)
}

pub(super) fn delete_subnet(call: &mut Call<'_>, input: &Value) -> Answer {
    let id = need(input, "SubnetId")?;
    existing(call, "ec2:subnet", id, "InvalidSubnetID.NotFound")?;
    if call.all("ec2:network-interface").any(|record| record.text("/subnetId") == id) {
        return Err(violation("subnet", id));
    }
    call.remove("ec2:subnet", id);
    let tables: Vec<String> = call.all("ec2:route-table").map(|record| record.id.clone()).collect();
    for table in tables {
        if let Some(list) = call
            .get_mut("ec2:route-table", &table)
            .and_then(|record| record.body.pointer_mut("/associationSet"))
            .and_then(Value::as_array_mut)
        {
            list.retain(|one| text(one, "/subnetId") != id);
        }
    }
    Ok(json!({"return": true}))
}

pub(super) fn modify_subnet(call: &mut Call<'_>, input: &Value) -> Answer {
    let id = need(input, "SubnetId")?;
    let record = existing(call, "ec2:subnet", id, "InvalidSubnetID.NotFound")?;
    let Some(on) = input.pointer("/MapPublicIpOnLaunch/Value").and_then(Value::as_str) else { return unknown(call) };
    record.set("mapPublicIpOnLaunch", on == "true");
    Ok(json!({"return": true}))
}

/// What a new network interface is made of.
pub(in super::super) struct NewInterface<'a> {
    /// Its subnet.
    pub(in super::super) subnet: &'a str,
    /// Its description.
    pub(in super::super) description: &'a str,
    /// Its type.
    pub(in super::super) kind: &'a str,
    /// Its security groups.
    pub(in super::super) groups: &'a [String],
    /// The instance it is attached to.
    pub(in super::super) instance: Option<&'a str>,
    /// Its tags.
    pub(in super::super) tags: BTreeMap<String, String>,
}

/// Makes a network interface; answers its id and private address.
pub(in super::super) fn interface(call: &mut Call<'_>, new: NewInterface<'_>) -> (String, String) {
    let id = call.id("eni");
    let attachment = call.id("eni-attach");
    let account = call.account();
    let (mut vpc, mut zone, mut address) = (String::new(), String::new(), 0);
    if let Some(subnet) = call.get_mut("ec2:subnet", new.subnet) {
        (vpc, zone) = (subnet.text("/vpcId").to_owned(), subnet.text("/availabilityZone").to_owned());
        address = subnet.body.get("_next_address").and_then(Value::as_u64).unwrap_or(0);
        subnet.set("_next_address", address + 1);
    }
    let address = Ipv4Addr::from(u32::try_from(address).unwrap_or(0)).to_string();
    let groups: Vec<Value> = new.groups.iter().map(|group| json!({"groupId": group, "groupName": call.get("ec2:security-group", group).map_or("", |record| record.text("/groupName"))})).collect();
    let owner = if new.instance.is_some() { account.clone() } else { "amazon-aws".to_owned() };
    let mut link = json!({"attachmentId": attachment, "status": "attached", "deviceIndex": 1, "instanceOwnerId": owner, "deleteOnTermination": new.instance.is_some()});
    if let (Some(instance), Some(fields)) = (new.instance, link.as_object_mut()) {
        fields.insert("instanceId".to_owned(), json!(instance));
        fields.insert("deviceIndex".to_owned(), json!(0));
    }
    let body = json!({
        "networkInterfaceId": id, "subnetId": new.subnet, "vpcId": vpc, "availabilityZone": zone, "description": new.description, "ownerId": account,
        "requesterId": owner, "requesterManaged": new.instance.is_none(), "status": "in-use", "interfaceType": new.kind,
        "privateIpAddress": address, "groupSet": groups, "attachment": link, "sourceDestCheck": true,
        "privateIpAddressesSet": [{"privateIpAddress": address, "primary": true}],
    });
    let record = call.record("ec2:network-interface", &id, body, new.tags);
    call.state.put(record);
    (id, address)
}

pub(super) fn delete_interface(call: &mut Call<'_>, input: &Value) -> Answer {
    let id = need(input, "NetworkInterfaceId")?;
    if existing(call, "ec2:network-interface", id, "InvalidNetworkInterfaceID.NotFound")?.text("/status") == "in-use" {
        return Err(Refusal::bad(
            "InvalidNetworkInterface.InUse",
            format!("Network interface '{id}' is currently in use."),
        ));
    }
    call.remove("ec2:network-interface", id);
    Ok(json!({"return": true}))
}

pub(super) fn delete_volume(call: &mut Call<'_>, input: &Value) -> Answer {
    let id = need(input, "VolumeId")?;
    let record = existing(call, "ec2:volume", id, "InvalidVolume.NotFound")?;
    if record.text("/status") == "in-use" {
        return Err(Refusal::bad(
            "VolumeInUse",
            format!("Volume {id} is currently attached to {}", record.text("/attachmentSet/0/instanceId")),
        ));
    }
    call.remove("ec2:volume", id);
    Ok(json!({"return": true}))
}

pub(super) fn delete_snapshot(call: &mut Call<'_>, input: &Value) -> Answer {
    let id = need(input, "SnapshotId")?;
    existing(call, "ec2:snapshot", id, "InvalidSnapshot.NotFound")?;
    call.remove("ec2:snapshot", id);
    Ok(json!({"return": true}))
}

/// A volume, as controllers and machines make it.
pub(crate) fn volume_body(id: &str, gib: u64, zone: &str, created_ms: i64) -> Value {
    json!({"volumeId": id, "size": gib, "availabilityZone": zone, "status": "available", "volumeType": "gp3", "encrypted": true, "iops": 3000, "throughput": 125, "createTime": iso(created_ms), "attachmentSet": []})
}
