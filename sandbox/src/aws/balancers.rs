//! Load balancers as controllers make them: with target groups, security groups and interfaces of their own, which are
//! gone minutes after the load balancer or not at all.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::Call;
use super::ec2::{NewInterface, interface, take_group};
use super::state::State;
use super::wire::{iso, text, texts};

pub(crate) const BALANCER: &str = "elbv2:load-balancer";
pub(crate) const CLASSIC: &str = "elb:load-balancer";
pub(crate) const TARGETS: &str = "elbv2:target-group";
/// How long interfaces outlive their load balancer.
const DRAIN_MS: i64 = 120_000;

/// For whom a load balancer is made.
#[derive(Debug, Clone)]
pub(crate) struct NewBalancer {
    /// Region.
    pub(crate) region: String,
    /// VPC.
    pub(crate) vpc: String,
    /// `network`, `application`, `classic`.
    pub(crate) kind: &'static str,
    /// Name; empty for one that is made up.
    pub(crate) name: String,
    /// Tags.
    pub(crate) tags: BTreeMap<String, String>,
}

/// Makes a load balancer with everything that its controller makes for it; answers its DNS name and the ids of all.
pub(crate) fn raise(state: &mut State, now_ms: i64, new: &NewBalancer) -> (String, Vec<String>) {
    let region = new.region.clone();
    let mut call = Call { state, now_ms, region: &region, principal: "", operation: "", effect: None };
    let name = if new.name.is_empty() { format!("a{}", call.state.hex(31)) } else { new.name.clone() };
    let dns = format!("{name}.elb.{region}.amazonaws.com");
    let group = take_group(
        &mut call,
        &new.vpc,
        &format!("k8s-elb-{name}"),
        "Security group for a load balancer",
        new.tags.clone(),
    );
    let subnets: Vec<String> = call
        .all("ec2:subnet")
        .filter(|subnet| subnet.text("/vpcId") == new.vpc && subnet.tags.contains_key("kubernetes.io/role/elb"))
        .map(|subnet| subnet.id.clone())
        .collect();
    let (word, kind) = match new.kind {
        "application" => ("app/", BALANCER),
        "classic" => ("", CLASSIC),
        _ => ("net/", BALANCER),
    };
    let suffix = call.state.seeded_suffix(&name);
    let description = if word.is_empty() { format!("ELB {name}") } else { format!("ELB {word}{name}/{suffix}") };
    let mut interfaces = Vec::new();
    for subnet in &subnets {
        let made = NewInterface {
            subnet,
            description: &description,
            kind: "interface",
            groups: std::slice::from_ref(&group),
            instance: None,
            tags: BTreeMap::new(),
        };
        let (id, _) = interface(&mut call, made);
        if let Some(record) = call.get_mut("ec2:network-interface", &id) {
            record.set("requesterId", "amazon-elb");
        }
        interfaces.push(id);
    }
    let arn = call.arn("elasticloadbalancing", &format!("loadbalancer/{word}{name}/{suffix}"));
    let id = if kind == CLASSIC { name.clone() } else { arn.clone() };
    let mut body = json!({
        "LoadBalancerName": name, "DNSName": dns, "Scheme": "internet-facing", "CreatedTime": iso(now_ms), "SecurityGroups": [group], "_interfaces": interfaces,
    });
    // The two versions of the API name things differently.
    let own = if kind == CLASSIC {
        json!({"VPCId": new.vpc})
    } else {
        json!({"LoadBalancerArn": arn, "VpcId": new.vpc, "Type": new.kind, "State": {"Code": "active"}})
    };
    if let (Some(fields), Value::Object(own)) = (body.as_object_mut(), own) {
        fields.extend(own);
    }
    let record = call.record(kind, &id, body, new.tags.clone());
    call.state.put(record);
    let mut made = vec![id.clone(), group];
    made.extend(interfaces);
    if kind == BALANCER {
        made.push(targets(
            &mut call,
            &new.vpc,
            &format!("k8s-{}", name.get(..12).unwrap_or(&name)),
            &new.tags,
            Some(&id),
        ));
    }
    (dns, made)
}

/// Makes a target group; answers its ARN.
pub(super) fn targets(
    call: &mut Call<'_>,
    vpc: &str,
    name: &str,
    tags: &BTreeMap<String, String>,
    balancer: Option<&str>,
) -> String {
    let suffix = call.state.hex(16);
    let arn = call.arn("elasticloadbalancing", &format!("targetgroup/{name}/{suffix}"));
    let body = json!({"TargetGroupArn": arn, "TargetGroupName": name, "VpcId": vpc, "Protocol": "TCP", "Port": 80, "TargetType": "ip", "LoadBalancerArns": balancer.map(|arn| vec![arn]).unwrap_or_default()});
    let record = call.record(TARGETS, &arn, body, tags.clone());
    call.state.put(record);
    arn
}

/// A target group that no load balancer has; answers its ARN.
pub(crate) fn lone_targets(state: &mut State, now_ms: i64, new: &NewBalancer) -> String {
    let mut call = Call { state, now_ms, region: &new.region, principal: "", operation: "", effect: None };
    targets(&mut call, &new.vpc, &new.name, &new.tags, None)
}

/// Deletes a load balancer. Its interfaces drain for a while; its target groups and security groups stay.
pub(super) fn lower(call: &mut Call<'_>, kind: &str, id: &str) {
    let now_ms = call.now_ms;
    let Some(gone) = call.remove(kind, id) else { return };
    for eni in texts(&gone.body, "/_interfaces") {
        if let Some(record) = call.get_mut("ec2:network-interface", &eni) {
            record.then(now_ms + DRAIN_MS, "gone");
        }
    }
    let bound: Vec<String> = call
        .all(TARGETS)
        .filter(|one| texts(&one.body, "/LoadBalancerArns").iter().any(|arn| arn == id))
        .map(|one| one.id.clone())
        .collect();
    for arn in bound {
        if let Some(record) = call.get_mut(TARGETS, &arn) {
            record.set("LoadBalancerArns", json!([]));
        }
    }
}

/// A living controller takes the load balancer of a Service away, with what it made for it.
pub(crate) fn lower_service(state: &mut State, now_ms: i64, cluster: &str, service: &str) {
    let owner = format!("kubernetes.io/cluster/{cluster}");
    let of_service = |tags: &BTreeMap<String, String>| {
        tags.contains_key(&owner) && tags.get("kubernetes.io/service-name").map(String::as_str) == Some(service)
    };
    let mine: Vec<(String, String, String)> = state
        .records()
        .filter(|record| of_service(&record.tags))
        .map(|record| (record.kind.clone(), record.region.clone(), record.id.clone()))
        .collect();
    for (kind, region, id) in mine {
        let mut call = Call { state, now_ms, region: &region, principal: "", operation: "", effect: None };
        match kind.as_str() {
            BALANCER | CLASSIC => lower(&mut call, &kind, &id),
            TARGETS => drop(call.remove(&kind, &id)),
            // The group is free once the interfaces are.
            "ec2:security-group" => {
                if let Some(record) = call.get_mut(&kind, &id) {
                    record.then(now_ms + DRAIN_MS + 10_000, "gone");
                }
            }
            _ => {}
        }
    }
}

/// The classic API has the same actions under another version.
pub(super) fn is_classic(input: &Value) -> bool {
    text(input, "/Version") == "2012-06-01"
}
