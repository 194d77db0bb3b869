//! What AWS offers: availability zones and instance types. The numbers are those of the public instance type pages.

use serde_json::{Value, json};

use super::super::inputs::is_filter;
use super::super::wire::{Refusal, iso, items, text, texts};
use super::super::{Answer, Call};
use super::describe::unknown_filter;

/// An instance type: name, virtual CPUs, memory, architecture, most pods.
pub(crate) const INSTANCE_TYPES: &[(&str, u32, u64, &str, u32)] = &[
    ("t3.medium", 2, 4_096, "x86_64", 17),
    ("t3.large", 2, 8_192, "x86_64", 35),
    ("t3.xlarge", 4, 16_384, "x86_64", 58),
    ("t3.2xlarge", 8, 32_768, "x86_64", 58),
    ("t3a.large", 2, 8_192, "x86_64", 35),
    ("t3a.xlarge", 4, 16_384, "x86_64", 58),
    ("t4g.medium", 2, 4_096, "arm64", 17),
    ("t4g.large", 2, 8_192, "arm64", 35),
    ("t4g.xlarge", 4, 16_384, "arm64", 58),
    ("m5.large", 2, 8_192, "x86_64", 29),
    ("m5.xlarge", 4, 16_384, "x86_64", 58),
    ("m5a.xlarge", 4, 16_384, "x86_64", 58),
    ("m5.2xlarge", 8, 32_768, "x86_64", 58),
    ("m6i.large", 2, 8_192, "x86_64", 29),
    ("m6i.xlarge", 4, 16_384, "x86_64", 58),
    ("m6i.2xlarge", 8, 32_768, "x86_64", 58),
    ("m6a.large", 2, 8_192, "x86_64", 29),
    ("m6a.xlarge", 4, 16_384, "x86_64", 58),
    ("m6a.2xlarge", 8, 32_768, "x86_64", 58),
    ("m7i.large", 2, 8_192, "x86_64", 29),
    ("m7i.xlarge", 4, 16_384, "x86_64", 58),
    ("m6g.large", 2, 8_192, "arm64", 29),
    ("m6g.xlarge", 4, 16_384, "arm64", 58),
    ("m7g.large", 2, 8_192, "arm64", 29),
    ("m7g.xlarge", 4, 16_384, "arm64", 58),
    ("r5.large", 2, 16_384, "x86_64", 29),
    ("r5.xlarge", 4, 32_768, "x86_64", 58),
    ("r6i.large", 2, 16_384, "x86_64", 29),
    ("r6i.xlarge", 4, 32_768, "x86_64", 58),
    ("r6g.large", 2, 16_384, "arm64", 29),
    ("r6g.xlarge", 4, 32_768, "arm64", 58),
    ("r6g.2xlarge", 8, 65_536, "arm64", 58),
    ("r7g.large", 2, 16_384, "arm64", 29),
    ("r7g.xlarge", 4, 32_768, "arm64", 58),
    ("c6i.large", 2, 4_096, "x86_64", 29),
    ("c6i.xlarge", 4, 8_192, "x86_64", 58),
    ("c6g.large", 2, 4_096, "arm64", 29),
    ("c7g.xlarge", 4, 8_192, "arm64", 58),
];

/// The zones of a region: names and ids. Ids are not in the order of names, as in most accounts.
pub(in super::super) fn zones(region: &str) -> Vec<(String, String)> {
    let mut parts = region.split('-');
    let area = parts.next().unwrap_or_default();
    let direction = match parts.next().unwrap_or_default() {
        "northeast" => "ne",
        "northwest" => "nw",
        "southeast" => "se",
        "southwest" => "sw",
        other => other.get(..1).unwrap_or_default(),
    };
    let number = parts.next().unwrap_or_default();
    let order: &[(char, u8)] = if region == "us-east-1" {
        &[('a', 1), ('b', 2), ('c', 4), ('d', 6), ('e', 3), ('f', 5)]
    } else {
        &[('a', 2), ('b', 3), ('c', 1)]
    };
    order
        .iter()
        .map(|(letter, id)| (format!("{region}{letter}"), format!("{area}{direction}{number}-az{id}")))
        .collect()
}

pub(super) fn describe_zones(call: &Call<'_>, input: &Value) -> Answer {
    let state = |id: &str| call.state.shape().zones.get(id).map_or("available", String::as_str);
    let mut found: Vec<Value> = zones(call.region).into_iter().map(|(name, id)| json!({
        "zoneName": name, "zoneState": state(&id), "zoneId": id, "regionName": call.region, "groupName": call.region, "networkBorderGroup": call.region,
        "zoneType": "availability-zone", "optInStatus": "opt-in-not-required", "messageSet": [],
    })).collect();
    for (parameter, field) in [("/ZoneName", "zoneName"), ("/ZoneId", "zoneId")] {
        let wanted = texts(input, parameter);
        if let Some(strange) = wanted.iter().find(|wanted| !found.iter().any(|zone| zone[field] == json!(wanted))) {
            return Err(Refusal::bad("InvalidParameterValue", format!("Invalid availability zone: [{strange}]")));
        }
        found.retain(|zone| wanted.is_empty() || wanted.iter().any(|wanted| zone[field] == json!(wanted)));
    }
    for filter in items(input, "/Filter") {
        let field = match text(&filter, "/Name") {
            "zone-type" => "zoneType",
            "zone-id" => "zoneId",
            "zone-name" => "zoneName",
            "state" => "zoneState",
            "region-name" => "regionName",
            "opt-in-status" => "optInStatus",
            "group-name" => "groupName",
            // About what no zone of the sandbox has.
            other if is_filter("DescribeAvailabilityZones", other) => "",
            other => return Err(unknown_filter(other)),
        };
        let wanted = texts(&filter, "/Value");
        found.retain(|zone| wanted.iter().any(|wanted| zone[field] == json!(wanted)));
    }
    Ok(json!({"availabilityZoneInfo": found}))
}

/// The regions that an account may have, as far as anybody asks for them.
const REGIONS: &[&str] = &[
    "ap-northeast-1",
    "ap-southeast-1",
    "ap-southeast-2",
    "ca-central-1",
    "eu-central-1",
    "eu-west-1",
    "us-east-1",
    "us-east-2",
    "us-west-1",
    "us-west-2",
];

pub(super) fn regions(call: &Call<'_>, input: &Value) -> Answer {
    let disabled = &call.state.shape().disabled_regions;
    let names = REGIONS.iter().copied().chain(disabled.iter().map(String::as_str));
    let mut found: Vec<Value> = names
        .filter(|name| text(input, "/AllRegions") == "true" || !disabled.contains(*name))
        .map(|name| {
            let status = if disabled.contains(name) { "not-opted-in" } else { "opt-in-not-required" };
            json!({"regionName": name, "regionEndpoint": format!("ec2.{name}.amazonaws.com"), "optInStatus": status})
        })
        .collect();
    let wanted = texts(input, "/RegionName");
    // A region that was turned off is in the list of all regions as well: what stands last tells.
    found.reverse();
    found.sort_by_key(|one| text(one, "/regionName").to_owned());
    found.dedup_by_key(|one| text(one, "/regionName").to_owned());
    found.retain(|one| wanted.is_empty() || wanted.iter().any(|name| name == text(one, "/regionName")));
    for filter in items(input, "/Filter") {
        let field = match text(&filter, "/Name") {
            "region-name" => "regionName",
            "endpoint" => "regionEndpoint",
            "opt-in-status" => "optInStatus",
            other => return Err(unknown_filter(other)),
        };
        let wanted = texts(&filter, "/Value");
        found.retain(|one| wanted.iter().any(|wanted| one[field] == json!(wanted)));
    }
    Ok(json!({"regionInfo": found}))
}

/// One price for each type in each zone: what matters is whether there is one.
pub(super) fn spot_prices(call: &Call<'_>, input: &Value) -> Answer {
    let shape = call.state.shape();
    let wanted = texts(input, "/InstanceType");
    if let Some(name) = wanted.iter().find(|name| !INSTANCE_TYPES.iter().any(|(known, ..)| known == name)) {
        return Err(Refusal::bad("InvalidParameterValue", format!("Invalid value '{name}' for InstanceType.")));
    }
    let sold = |name: &str| !shape.unsold.contains(name) && !shape.unpriced.contains(name);
    let known = INSTANCE_TYPES
        .iter()
        .filter(|(name, ..)| sold(name) && (wanted.is_empty() || wanted.iter().any(|one| one == name)));
    let mut found: Vec<Value> = known
        .flat_map(|(name, cpu, ..)| {
            zones(call.region).into_iter().map(move |(zone, _)| json!({
                "instanceType": name, "productDescription": "Linux/UNIX", "spotPrice": format!("{:.6}", f64::from(*cpu) * 0.0155), "timestamp": iso(call.now_ms), "availabilityZone": zone,
            }))
        })
        .collect();
    for filter in items(input, "/Filter") {
        let field = match text(&filter, "/Name") {
            "availability-zone" => "availabilityZone",
            "instance-type" => "instanceType",
            "product-description" => "productDescription",
            "spot-price" => "spotPrice",
            other if is_filter("DescribeSpotPriceHistory", other) => "",
            other => return Err(unknown_filter(other)),
        };
        let wanted = texts(&filter, "/Value");
        found.retain(|one| wanted.iter().any(|wanted| one[field] == json!(wanted)));
    }
    Ok(json!({"spotPriceHistorySet": found, "nextToken": ""}))
}

/// Interfaces and addresses on each, from the most pods that a type holds: interfaces × (addresses − 1) + 2.
fn network(pods: u32) -> Value {
    let (interfaces, addresses) = match pods {
        17 => (3, 6),
        29 => (3, 10),
        35 => (3, 12),
        _ => (4, 15),
    };
    json!({"maximumNetworkInterfaces": interfaces, "ipv4AddressesPerInterface": addresses})
}

pub(super) fn describe_types(call: &Call<'_>, input: &Value) -> Answer {
    let shape = call.state.shape();
    let wanted = texts(input, "/InstanceType");
    for name in &wanted {
        if !INSTANCE_TYPES.iter().any(|(known, ..)| known == name) {
            return Err(Refusal::bad(
                "InvalidInstanceType",
                format!("The following supplied instance types do not exist: [{name}]"),
            ));
        }
    }
    let found: Vec<Value> = INSTANCE_TYPES.iter().filter(|(name, ..)| wanted.is_empty() || wanted.iter().any(|wanted| wanted == name))
        .map(|(name, cpu, memory, arch, pods)| json!({
            "instanceType": name, "currentGeneration": !shape.previous.contains(*name), "networkInfo": network(*pods), "processorInfo": {"supportedArchitectures": [arch]}, "vCpuInfo": {"defaultVCpus": cpu}, "memoryInfo": {"sizeInMiB": memory},
            "supportedUsageClasses": if shape.unsold.contains(*name) { json!(["on-demand"]) } else { json!(["on-demand", "spot"]) }, "supportedVirtualizationTypes": ["hvm"],
        })).collect();
    Ok(json!({"instanceTypeSet": found}))
}

pub(super) fn offerings(call: &Call<'_>, input: &Value) -> Answer {
    let location = match text(input, "/LocationType") {
        "" => "region",
        other => other,
    };
    let places: Vec<String> = match location {
        "availability-zone" => zones(call.region).into_iter().map(|(name, _)| name).collect(),
        "availability-zone-id" => zones(call.region).into_iter().map(|(_, id)| id).collect(),
        _ => vec![call.region.to_owned()],
    };
    // Whether a place, a zone by either name or the region, offers a type.
    let ids: std::collections::BTreeMap<String, String> = zones(call.region).into_iter().collect();
    let offers = |name: &str, place: &String| {
        let zone = ids.get(place).unwrap_or(place);
        call.state
            .shape()
            .offered
            .get(name)
            .is_none_or(|only| if location == "region" { !only.is_empty() } else { only.contains(zone) })
    };
    let mut found: Vec<Value> = INSTANCE_TYPES
        .iter()
        .flat_map(|(name, ..)| {
            places
                .iter()
                .filter(move |place| offers(name, place))
                .map(move |place| json!({"instanceType": name, "locationType": location, "location": place}))
        })
        .collect();
    for filter in items(input, "/Filter") {
        let field = match text(&filter, "/Name") {
            "instance-type" => "instanceType",
            "location" => "location",
            other => return Err(unknown_filter(other)),
        };
        let wanted = texts(&filter, "/Value");
        found.retain(|one| wanted.iter().any(|wanted| one[field] == json!(wanted)));
    }
    Ok(json!({"instanceTypeOfferingSet": found}))
}
