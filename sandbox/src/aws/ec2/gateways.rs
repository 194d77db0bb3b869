//! Internet gateways, NAT gateways and elastic addresses.

#![expect(
    clippy::indexing_slicing,
    reason = "reading a JSON value never panics, and every one that is written here is an object of our own making"
)]

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::super::wire::{Refusal, iso, need, text};
use super::super::{Answer, Call};
use super::{NewInterface, existing, interface, shown, specified, violation};
use crate::faults::Effect;

const GATEWAY_QUOTA: usize = 5;
const ADDRESS_QUOTA: usize = 5;

pub(super) fn create_internet(call: &mut Call<'_>, input: &Value) -> Answer {
    if call.all("ec2:internet-gateway").count() >= GATEWAY_QUOTA {
        return Err(Refusal::bad(
            "InternetGatewayLimitExceeded",
            "The maximum number of internet gateways has been reached.",
        ));
    }
    let id = call.id("igw");
    let record = call.record(
        "ec2:internet-gateway",
        &id,
        json!({"internetGatewayId": id, "ownerId": call.account(), "attachmentSet": []}),
        specified(input, "internet-gateway"),
    );
    let answer = json!({"internetGateway": shown(&record.body, &record.tags)});
    call.state.put(record);
    Ok(answer)
}

pub(super) fn attach(call: &mut Call<'_>, input: &Value) -> Answer {
    let (id, vpc) = (need(input, "InternetGatewayId")?, need(input, "VpcId")?);
    existing(call, "ec2:vpc", vpc, "InvalidVpcID.NotFound")?;
    let other =
        call.all("ec2:internet-gateway").any(|record| record.text("/attachmentSet/0/vpcId") == vpc && record.id != id);
    let record = existing(call, "ec2:internet-gateway", id, "InvalidInternetGatewayID.NotFound")?;
    let now = record.text("/attachmentSet/0/vpcId").to_owned();
    if !now.is_empty() {
        return Err(Refusal::bad(
            "Resource.AlreadyAssociated",
            format!("resource {id} is already attached to network {now}"),
        ));
    }
    if other {
        return Err(Refusal::bad(
            "InvalidParameterValue",
            format!("Network {vpc} already has an internet gateway attached"),
        ));
    }
    record.set("attachmentSet", json!([{"vpcId": vpc, "state": "available"}]));
    Ok(json!({"return": true}))
}

pub(super) fn detach(call: &mut Call<'_>, input: &Value) -> Answer {
    let (id, vpc) = (need(input, "InternetGatewayId")?, need(input, "VpcId")?);
    if existing(call, "ec2:internet-gateway", id, "InvalidInternetGatewayID.NotFound")?.text("/attachmentSet/0/vpcId")
        != vpc
    {
        return Err(Refusal::bad("Gateway.NotAttached", format!("resource {id} is not attached to network {vpc}")));
    }
    if call
        .all("ec2:network-interface")
        .any(|record| record.text("/vpcId") == vpc && !record.text("/association/publicIp").is_empty())
    {
        return Err(Refusal::bad(
            "DependencyViolation",
            format!(
                "Network {vpc} has some mapped public address(es). Please unmap those public address(es) before detaching the gateway."
            ),
        ));
    }
    if let Some(record) = call.get_mut("ec2:internet-gateway", id) {
        record.set("attachmentSet", json!([]));
    }
    super::routes::blackhole(call, "gatewayId", id);
    Ok(json!({"return": true}))
}

pub(super) fn delete_internet(call: &mut Call<'_>, input: &Value) -> Answer {
    let id = need(input, "InternetGatewayId")?;
    if !existing(call, "ec2:internet-gateway", id, "InvalidInternetGatewayID.NotFound")?
        .text("/attachmentSet/0/vpcId")
        .is_empty()
    {
        return Err(violation("internetGateway", id));
    }
    call.remove("ec2:internet-gateway", id);
    Ok(json!({"return": true}))
}

pub(super) fn allocate(call: &mut Call<'_>, input: &Value) -> Answer {
    if call.all("ec2:elastic-ip").count() >= ADDRESS_QUOTA {
        return Err(Refusal::bad("AddressLimitExceeded", "The maximum number of addresses has been reached."));
    }
    let id = call.id("eipalloc");
    let digits = u16::from_str_radix(&call.state.hex(4), 16).unwrap_or(0);
    // 198.18.0.0/15 is reserved for benchmarks: no such address is anybody's.
    let address = format!("198.18.{}.{}", digits >> 8, digits & 0xff);
    let region = call.region.to_owned();
    let body = json!({"allocationId": id, "publicIp": address, "domain": "vpc", "networkBorderGroup": region, "publicIpv4Pool": "amazon"});
    let record = call.record("ec2:elastic-ip", &id, body.clone(), specified(input, "elastic-ip"));
    call.state.put(record);
    Ok(body)
}

pub(super) fn release(call: &mut Call<'_>, input: &Value) -> Answer {
    let id = need(input, "AllocationId")?;
    if !existing(call, "ec2:elastic-ip", id, "InvalidAllocationID.NotFound")?.text("/associationId").is_empty() {
        return Err(Refusal::bad("InvalidIPAddress.InUse", format!("Address with allocation id [{id}] is in use.")));
    }
    call.remove("ec2:elastic-ip", id);
    Ok(json!({"return": true}))
}

pub(super) fn create_nat(call: &mut Call<'_>, input: &Value) -> Answer {
    let (subnet, allocation) = (need(input, "SubnetId")?.to_owned(), need(input, "AllocationId")?.to_owned());
    let vpc = existing(call, "ec2:subnet", &subnet, "InvalidSubnetID.NotFound")?.text("/vpcId").to_owned();
    let address = existing(call, "ec2:elastic-ip", &allocation, "InvalidAllocationID.NotFound")?;
    let (public, used) = (address.text("/publicIp").to_owned(), !address.text("/associationId").is_empty());
    let attached = call.all("ec2:internet-gateway").any(|record| record.text("/attachmentSet/0/vpcId") == vpc);
    let id = call.id("nat");
    let failure = if used {
        Some(("Resource.AlreadyAssociated", format!("Elastic IP address [{allocation}] is already associated")))
    } else if !attached {
        Some(("Gateway.NotAttached", format!("Network {vpc} has no Internet gateway attached")))
    } else if matches!(call.effect, Some(Effect::NatGatewayFails)) {
        Some(("InternalError", "An internal error has occurred. Please try again.".to_owned()))
    } else {
        None
    };
    let mut body = json!({
        "natGatewayId": id, "subnetId": subnet, "vpcId": vpc, "state": "pending", "createTime": iso(call.now_ms), "connectivityType": "public",
        "natGatewayAddressSet": [{"allocationId": allocation, "isPrimary": true, "status": "associating"}],
    });
    let due_ms = call.now_ms + if failure.is_some() { 20_000 } else { 90_000 };
    if let (Some((code, message)), Some(fields)) = (&failure, body.as_object_mut()) {
        fields.insert("_failure".to_owned(), json!({"code": code, "message": message}));
    } else {
        let new = NewInterface {
            subnet: &subnet,
            description: &format!("Interface for NAT Gateway {id}"),
            kind: "nat_gateway",
            groups: &[],
            instance: None,
            tags: BTreeMap::new(),
        };
        let (eni, private) = interface(call, new);
        let association = call.id("eipassoc");
        if let Some(record) = call.get_mut("ec2:network-interface", &eni) {
            record.set("association", json!({"publicIp": public, "allocationId": allocation, "associationId": association, "ipOwnerId": "amazon-aws"}));
        }
        if let Some(record) = call.get_mut("ec2:elastic-ip", &allocation) {
            record.set("associationId", association.clone());
            record.set("networkInterfaceId", eni.clone());
            record.set("privateIpAddress", private.clone());
        }
        body["natGatewayAddressSet"] = json!([{"allocationId": allocation, "publicIp": public, "privateIp": private, "networkInterfaceId": eni, "associationId": association, "isPrimary": true, "status": "succeeded"}]);
    }
    let mut record = call.record("ec2:nat-gateway", &id, body, specified(input, "natgateway"));
    record.then(due_ms, if failure.is_some() { "failed" } else { "available" });
    let answer = json!({"natGateway": shown(&record.body, &record.tags), "clientToken": text(input, "/ClientToken")});
    call.state.put(record);
    Ok(answer)
}

pub(super) fn delete_nat(call: &mut Call<'_>, input: &Value) -> Answer {
    let id = need(input, "NatGatewayId")?;
    let due_ms = call.now_ms + 45_000;
    let record = existing(call, "ec2:nat-gateway", id, "NatGatewayNotFound")?;
    if !matches!(record.text("/state"), "deleting" | "deleted") {
        record.set("state", "deleting");
        record.then(due_ms, "deleted");
    }
    Ok(json!({"natGatewayId": id}))
}
