//! The services of which a few calls are enough: STS, CloudWatch Logs, ELBv2, Auto Scaling, Service Quotas, Tagging.

#![expect(
    clippy::indexing_slicing,
    reason = "reading a JSON value never panics, and every one that is written here is an object of our own making"
)]

use serde_json::{Value, json};

use super::balancers::{BALANCER, CLASSIC, TARGETS, is_classic, lower};
use super::wire::{Refusal, items, need, number, text, texts};
use super::{Answer, Call, Record, tag_list, unknown};

const LOG_GROUP: &str = "logs:log-group";

pub(super) fn sts(call: &mut Call<'_>, _input: &Value) -> Answer {
    if call.operation != "GetCallerIdentity" {
        return unknown(call);
    }
    Ok(json!({"Arn": call.principal, "UserId": "AIDAPLATFLOW", "Account": call.account()}))
}

/// The numbers of days that PutRetentionPolicy takes.
const RETENTION_DAYS: [i64; 22] =
    [1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288, 3653];

fn no_group() -> Refusal {
    Refusal::bad("ResourceNotFoundException", "The specified log group does not exist.")
}

pub(super) fn logs(call: &mut Call<'_>, input: &Value) -> Answer {
    if call.operation == "DescribeLogGroups" {
        let prefix = text(input, "/logGroupNamePrefix");
        let pattern = text(input, "/logGroupNamePattern");
        if !prefix.is_empty() && !pattern.is_empty() {
            let message = "LogGroup name prefix and LogGroup name pattern are mutually exclusive parameters.";
            return Err(Refusal::bad("InvalidParameterException", message));
        }
        let named = |group: &&Record| group.id.starts_with(prefix) && group.id.contains(pattern);
        let found: Vec<Value> = call.all(LOG_GROUP).filter(named).map(|group| group.body.clone()).collect();
        return Ok(json!({"logGroups": found}));
    }
    let arn = text(input, "/resourceArn").trim_end_matches(":*");
    let name = if arn.is_empty() {
        need(input, "logGroupName")?.to_owned()
    } else {
        arn.split(":log-group:").nth(1).unwrap_or_default().to_owned()
    };
    let given: std::collections::BTreeMap<String, String> = input
        .get("tags")
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
        .map(|(key, value)| (key.clone(), value.as_str().unwrap_or_default().to_owned()))
        .collect();
    if call.operation == "CreateLogGroup" {
        if call.get(LOG_GROUP, &name).is_some() {
            return Err(Refusal::bad("ResourceAlreadyExistsException", "The specified log group already exists"));
        }
        let arn = call.arn("logs", &format!("log-group:{name}"));
        let body = json!({"logGroupName": name, "creationTime": call.now_ms, "arn": format!("{arn}:*"), "logGroupArn": arn, "storedBytes": 0, "metricFilterCount": 0});
        let record = call.record(LOG_GROUP, &name, body, given);
        call.state.put(record);
        return Ok(Value::Null);
    }
    let operation = call.operation.to_owned();
    let group = call.get_mut(LOG_GROUP, &name).ok_or_else(no_group)?;
    match operation.as_str() {
        "DeleteLogGroup" => {
            call.remove(LOG_GROUP, &name);
            super::remains::late_events(call, &name);
        }
        "PutRetentionPolicy" if !RETENTION_DAYS.contains(&number(input, "/retentionInDays").unwrap_or(0)) => {
            return Err(Refusal::bad(
                "InvalidParameterException",
                format!("retentionInDays must be one of {RETENTION_DAYS:?}"),
            ));
        }
        "PutRetentionPolicy" => group.set("retentionInDays", input["retentionInDays"].clone()),
        "DeleteRetentionPolicy" => group.set("retentionInDays", Value::Null),
        "TagResource" => group.tags.extend(given),
        "UntagResource" => {
            for key in texts(input, "/tagKeys") {
                group.tags.remove(&key);
            }
        }
        "ListTagsForResource" => return Ok(json!({"tags": group.tags})),
        _ => return unknown(call),
    }
    Ok(Value::Null)
}

pub(super) fn load_balancing(call: &mut Call<'_>, input: &Value) -> Answer {
    if is_classic(input) {
        return classic_load_balancing(call, input);
    }
    match call.operation {
        "DescribeLoadBalancers" => {
            let found = chosen(
                call,
                BALANCER,
                input,
                [("LoadBalancerArns", "/LoadBalancerArn"), ("Names", "/LoadBalancerName")],
            )?;
            Ok(json!({"LoadBalancers": found}))
        }
        "DescribeTargetGroups" => {
            let found =
                chosen(call, TARGETS, input, [("TargetGroupArns", "/TargetGroupArn"), ("Names", "/TargetGroupName")])?;
            Ok(json!({"TargetGroups": found}))
        }
        "DescribeTags" => {
            let wanted = texts(input, "/ResourceArns");
            for arn in &wanted {
                let kind = if arn.contains(":targetgroup/") { TARGETS } else { BALANCER };
                call.get(kind, arn).ok_or_else(|| not_there(kind, arn))?;
            }
            let found: Vec<Value> = call
                .all(BALANCER)
                .chain(call.all(TARGETS))
                .filter(|one| wanted.contains(&one.id))
                .map(|one| json!({"ResourceArn": one.id, "Tags": tag_list(&one.tags, "Key", "Value")}))
                .collect();
            Ok(json!({"TagDescriptions": found}))
        }
        "DeleteLoadBalancer" => {
            lower(call, BALANCER, need(input, "LoadBalancerArn")?);
            Ok(json!({}))
        }
        "DeleteTargetGroup" => {
            let arn = need(input, "TargetGroupArn")?;
            if call.get(TARGETS, arn).is_some_and(|one| !texts(&one.body, "/LoadBalancerArns").is_empty()) {
                return Err(Refusal::bad(
                    "ResourceInUse",
                    format!("Target group '{arn}' is currently in use by a listener or a rule"),
                ));
            }
            call.remove(TARGETS, arn);
            Ok(json!({}))
        }
        _ => unknown(call),
    }
}

/// Those of a kind that a request names, or all.
fn chosen(call: &Call<'_>, kind: &str, input: &Value, by: [(&str, &str); 2]) -> Result<Vec<Value>, Refusal> {
    let mut found: Vec<&Record> = call.all(kind).collect();
    for (parameter, field) in by {
        let wanted = texts(input, &format!("/{parameter}"));
        if let Some(gone) = wanted.iter().find(|name| !found.iter().any(|one| one.text(field) == name.as_str())) {
            return Err(not_there(kind, gone));
        }
        found.retain(|one| wanted.is_empty() || wanted.iter().any(|name| name == one.text(field)));
    }
    Ok(found.into_iter().map(public).collect())
}

fn not_there(kind: &str, name: &str) -> Refusal {
    if kind == TARGETS {
        return Refusal::bad("TargetGroupNotFound", format!("Target groups '[{name}]' not found"));
    }
    Refusal::bad("LoadBalancerNotFound", format!("Load balancers '[{name}]' not found"))
}

/// Classic load balancers, known by name.
fn classic_load_balancing(call: &mut Call<'_>, input: &Value) -> Answer {
    match call.operation {
        "DescribeLoadBalancers" => {
            let names = ("LoadBalancerNames", "/LoadBalancerName");
            Ok(json!({"LoadBalancerDescriptions": chosen(call, CLASSIC, input, [names, names])?}))
        }
        "DescribeTags" => {
            let wanted = texts(input, "/LoadBalancerNames");
            if let Some(gone) = wanted.iter().find(|name| call.get(CLASSIC, name).is_none()) {
                return Err(not_there(CLASSIC, gone));
            }
            let found: Vec<Value> = call
                .all(CLASSIC)
                .filter(|one| wanted.contains(&one.id))
                .map(|one| json!({"LoadBalancerName": one.id, "Tags": tag_list(&one.tags, "Key", "Value")}))
                .collect();
            Ok(json!({"TagDescriptions": found}))
        }
        "DeleteLoadBalancer" => {
            lower(call, CLASSIC, need(input, "LoadBalancerName")?);
            Ok(json!({}))
        }
        _ => unknown(call),
    }
}

fn public(record: &Record) -> Value {
    let mut body = record.body.clone();
    if let Some(fields) = body.as_object_mut() {
        fields.retain(|name, _| !name.starts_with('_'));
    }
    body
}

pub(super) fn auto_scaling(call: &mut Call<'_>, input: &Value) -> Answer {
    match call.operation {
        "DescribeAutoScalingGroups" => {
            let wanted = texts(input, "/AutoScalingGroupNames");
            Ok(
                json!({"AutoScalingGroups": call.all("autoscaling:group").filter(|one| wanted.is_empty() || wanted.contains(&one.id)).map(scaling_group).collect::<Vec<_>>()}),
            )
        }
        "DeleteAutoScalingGroup" => {
            let name = need(input, "AutoScalingGroupName")?.to_owned();
            let group = call.get("autoscaling:group", &name).ok_or_else(|| {
                Refusal::bad("ValidationError", "AutoScalingGroup name not found - AutoScalingGroup not found")
            })?;
            if !items(&group.body, "/Instances").is_empty() && text(input, "/ForceDelete") != "true" {
                return Err(Refusal::bad(
                    "ResourceInUse",
                    "You cannot delete an AutoScalingGroup while there are instances or pending Spot instance request(s) still in the group.",
                ));
            }
            super::remains::end_scaling_group(call, &name);
            Ok(json!({}))
        }
        "DescribeScalingActivities" => {
            let name = text(input, "/AutoScalingGroupName");
            let failed =
                call.all("autoscaling:group").find(|one| one.id == name).map(|one| items(&one.body, "/_failed"));
            if let Some(mut failed) = failed.filter(|failed| !failed.is_empty()) {
                for one in &mut failed {
                    one["AutoScalingGroupName"] = json!(name);
                }
                return Ok(json!({"Activities": failed}));
            }
            let found: Vec<Value> = call.all("autoscaling:group").filter(|one| one.id == name).flat_map(|one| items(&one.body, "/Instances").into_iter().enumerate().map(|(index, instance)| json!({
                "ActivityId": format!("{}-{index}", one.id), "AutoScalingGroupName": one.id, "StatusCode": "Successful", "Progress": 100, "StartTime": one.body["CreatedTime"],
                "Description": format!("Launching a new EC2 instance: {}", text(&instance, "/InstanceId")), "Cause": "desired capacity changed",
            })).collect::<Vec<_>>()).collect();
            Ok(json!({"Activities": found}))
        }
        _ => unknown(call),
    }
}

/// A group with its tags.
fn scaling_group(record: &Record) -> Value {
    let mut body = public(record);
    let mut zones: Vec<Value> = items(&body, "/Instances").iter().map(|one| one["AvailabilityZone"].clone()).collect();
    zones.dedup();
    body["AvailabilityZones"] = if zones.is_empty() { json!([format!("{}a", record.region)]) } else { json!(zones) };
    body["DefaultCooldown"] = json!(300);
    body["HealthCheckType"] = json!("EC2");
    body["Tags"] = record
        .tags
        .iter()
        .map(|(key, value)| json!({"ResourceId": record.id, "ResourceType": "auto-scaling-group", "Key": key, "Value": value, "PropagateAtLaunch": true}))
        .collect();
    body
}

/// Nobody here ever asked for more: what applies is the default.
pub(super) fn quotas(call: &mut Call<'_>, input: &Value) -> Answer {
    if !matches!(call.operation, "GetServiceQuota" | "GetAWSDefaultServiceQuota") {
        return unknown(call);
    }
    let code = need(input, "QuotaCode")?;
    let usual = match code {
        "L-F678F1CE" | "L-0263D0A3" | "L-FE5A380F" | "L-A4707A72" => 5.0,
        "L-1216C47A" | "L-34B43A08" => 64.0,
        "L-1194D53C" => 100.0,
        "L-407747CB" | "L-589F43AA" => 200.0,
        "L-E79EC296" => 2_500.0,
        "L-0EA8095F" => 60.0,
        "L-6D54EA21" => 30.0,
        "L-BD136A63" => 450.0,
        "L-93A74D60" => 40.0,
        "L-7A658B76" => 50.0,
        _ => {
            return Err(Refusal::bad(
                "NoSuchResourceException",
                format!("The request failed because the specified quota {code} does not exist."),
            ));
        }
    };
    let value = call.state.shape().quotas.get(code).copied().unwrap_or(usual);
    Ok(json!({"Quota": {"ServiceCode": input["ServiceCode"], "QuotaCode": code, "Value": value, "Adjustable": true}}))
}

/// `GetResources`: by tag, over all services of the region.
pub(super) fn tagging(call: &mut Call<'_>, input: &Value) -> Answer {
    if call.operation != "GetResources" {
        return unknown(call);
    }
    let (kinds, filters) = (texts(input, "/ResourceTypeFilters"), items(input, "/TagFilters"));
    let named = texts(input, "/ResourceARNList");
    let filtered = !kinds.is_empty() || !filters.is_empty();
    if filtered && !named.is_empty() {
        let message = "ResourceARNList cannot be combined with TagFilters or ResourceTypeFilters.";
        return Err(Refusal::bad("InvalidParameterException", message));
    }
    let account = call.account();
    let mut found = Vec::new();
    for record in call.state.records().filter(|record| record.region == call.region && !record.tags.is_empty()) {
        let (service, rest) = record.kind.split_once(':').unwrap_or_default();
        let kind = match record.kind.as_str() {
            "ec2:nat-gateway" => "ec2:natgateway",
            "logs:log-group" => "logs:log-group",
            other => other,
        };
        let wanted_kind = kinds.is_empty() || kinds.iter().any(|wanted| wanted == kind || wanted == service);
        let wanted_tags = filters.iter().all(|filter| {
            let values = texts(filter, "/Values");
            record.tags.get(text(filter, "/Key")).is_some_and(|value| values.is_empty() || values.contains(value))
        });
        let arn = ["/arn", "/Arn", "/nodegroupArn", "/addonArn", "/accessEntryArn", "/LoadBalancerArn"]
            .iter()
            .map(|field| record.text(field))
            .find(|arn| !arn.is_empty())
            .map_or_else(
                || format!("arn:aws:ec2:{}:{account}:{rest}/{}", record.region, record.id),
                |arn| arn.trim_end_matches(":*").to_owned(),
            );
        if wanted_kind && wanted_tags && (named.is_empty() || named.contains(&arn)) {
            found.push(json!({"ResourceARN": arn, "Tags": tag_list(&record.tags, "Key", "Value")}));
        }
    }
    Ok(json!({"ResourceTagMappingList": found}))
}
