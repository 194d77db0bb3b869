//! Security groups and their rules.

#![expect(
    clippy::indexing_slicing,
    reason = "reading a JSON value never panics, and every one that is written here is an object of our own making"
)]

use serde_json::{Value, json};

use super::super::wire::{Refusal, items, need, number, text, texts};
use super::super::{Answer, Call};
use super::{existing, network, specified, take_group, violation};

const NOT_FOUND: &str = "InvalidGroup.NotFound";

pub(super) fn create(call: &mut Call<'_>, input: &Value) -> Answer {
    let (name, vpc) = (need(input, "GroupName")?.to_owned(), need(input, "VpcId")?.to_owned());
    let description = need(input, "GroupDescription")?.to_owned();
    existing(call, "ec2:vpc", &vpc, "InvalidVpcID.NotFound")?;
    if call.all("ec2:security-group").any(|record| record.text("/vpcId") == vpc && record.text("/groupName") == name) {
        return Err(Refusal::bad(
            "InvalidGroup.Duplicate",
            format!("The security group '{name}' already exists for VPC '{vpc}'"),
        ));
    }
    let id = take_group(call, &vpc, &name, &description, specified(input, "security-group"));
    Ok(json!({"groupId": id, "securityGroupArn": call.arn("ec2", &format!("security-group/{id}"))}))
}

/// What uses a security group: an interface, or a rule of another group.
pub(in super::super) fn in_use(call: &Call<'_>, id: &str) -> bool {
    let interface = call
        .all("ec2:network-interface")
        .any(|record| items(&record.body, "/groupSet").iter().any(|group| text(group, "/groupId") == id));
    let referenced = call.all("ec2:security-group").filter(|record| record.id != id).any(|record| {
        ["/ipPermissions", "/ipPermissionsEgress"]
            .iter()
            .flat_map(|side| items(&record.body, side))
            .any(|rule| items(&rule, "/groups").iter().any(|group| text(group, "/groupId") == id))
    });
    interface || referenced
}

pub(super) fn delete(call: &mut Call<'_>, input: &Value) -> Answer {
    let id = need(input, "GroupId")?;
    if existing(call, "ec2:security-group", id, NOT_FOUND)?.text("/groupName") == "default" {
        return Err(Refusal::bad(
            "CannotDelete",
            format!("the specified group: \"{id}\" name: \"default\" cannot be deleted by a user"),
        ));
    }
    if in_use(call, id) {
        return Err(violation("resource", id));
    }
    call.remove("ec2:security-group", id);
    Ok(json!({"return": true, "groupId": id}))
}

/// The rules of a request, one per source, in the form of the answers.
fn rules(call: &Call<'_>, input: &Value) -> Vec<Value> {
    let account = call.account();
    let mut rules = Vec::new();
    for permission in items(input, "/IpPermissions") {
        let base = |ranges: Value, groups: Value| {
            let mut rule = json!({"ipProtocol": text(&permission, "/IpProtocol"), "groups": groups, "ipRanges": ranges, "ipv6Ranges": [], "prefixListIds": []});
            if text(&permission, "/IpProtocol") != "-1" {
                for (name, pointer) in [("fromPort", "/FromPort"), ("toPort", "/ToPort")] {
                    if let Some(port) = number(&permission, pointer) {
                        rule[name] = json!(port);
                    }
                }
            }
            rule
        };
        let described = |mut source: Value, from: &Value| {
            if let Some(words) = from.get("Description") {
                source["description"] = words.clone();
            }
            json!([source])
        };
        for range in items(&permission, "/IpRanges") {
            rules.push(base(described(json!({"cidrIp": text(&range, "/CidrIp")}), &range), json!([])));
        }
        for group in items(&permission, "/Groups").into_iter().chain(items(&permission, "/UserIdGroupPairs")) {
            rules.push(base(
                json!([]),
                described(json!({"groupId": text(&group, "/GroupId"), "userId": account}), &group),
            ));
        }
    }
    rules
}

/// A rule without its description.
fn bare(rule: &Value) -> Value {
    let mut rule = rule.clone();
    for side in ["ipRanges", "groups"] {
        for source in
            rule.get_mut(side).and_then(Value::as_array_mut).into_iter().flatten().filter_map(Value::as_object_mut)
        {
            source.remove("description");
            source.remove("userId");
        }
    }
    rule
}

pub(super) fn authorize(call: &mut Call<'_>, input: &Value, side: &str) -> Answer {
    let id = need(input, "GroupId")?;
    let new = rules(call, input);
    for rule in &new {
        let range = text(rule, "/ipRanges/0/cidrIp");
        if !range.is_empty() && network::block(range).is_none() {
            let message = format!("CIDR block {range} is malformed");
            return Err(Refusal::bad("InvalidParameterValue", message));
        }
        let source = text(rule, "/groups/0/groupId");
        if !source.is_empty() && call.get("ec2:security-group", source).is_none() {
            return Err(Refusal::bad(NOT_FOUND, format!("The security group '{source}' does not exist")));
        }
    }
    let record = existing(call, "ec2:security-group", id, NOT_FOUND)?;
    let Some(list) = record.body.get_mut(side).and_then(Value::as_array_mut) else {
        return Err(Refusal::new(500, "InternalError", "the group is damaged"));
    };
    for rule in &new {
        if list.iter().any(|old| bare(old) == bare(rule)) {
            return Err(Refusal::bad("InvalidPermission.Duplicate", "the specified rule already exists"));
        }
    }
    list.extend(new);
    Ok(json!({"return": true}))
}

pub(super) fn revoke(call: &mut Call<'_>, input: &Value, side: &str) -> Answer {
    let id = need(input, "GroupId")?;
    let gone = rules(call, input);
    let by_id = texts(input, "/SecurityGroupRuleId");
    let direction = if side == "ipPermissions" { "i" } else { "e" };
    let record = existing(call, "ec2:security-group", id, NOT_FOUND)?;
    let group = record.id.clone();
    let Some(list) = record.body.get_mut(side).and_then(Value::as_array_mut) else {
        return Err(Refusal::new(500, "InternalError", "the group is damaged"));
    };
    let before = list.len();
    list.retain(|old| {
        !gone.iter().any(|rule| bare(rule) == bare(old)) && !by_id.contains(&rule_id(&group, direction, old))
    });
    if list.len() == before {
        return Err(Refusal::bad(
            "InvalidPermission.NotFound",
            "The specified rule does not exist in this security group.",
        ));
    }
    Ok(json!({"return": true}))
}

fn rule_id(group: &str, direction: &str, rule: &Value) -> String {
    use sha2::{Digest, Sha256};
    let digest = Sha256::digest(format!("{group}{direction}{}", bare(rule)).as_bytes());
    format!("sgr-{}", hex::encode(digest).get(..17).unwrap_or_default())
}

/// `DescribeSecurityGroupRules`.
pub(super) fn describe_rules(call: &Call<'_>, input: &Value) -> Answer {
    let (mut wanted, mut rules) = (Vec::<String>::new(), texts(input, "/SecurityGroupRuleId"));
    for filter in items(input, "/Filter") {
        match text(&filter, "/Name") {
            "group-id" => wanted.extend(texts(&filter, "/Value")),
            "security-group-rule-id" => rules.extend(texts(&filter, "/Value")),
            other => return Err(super::describe::unknown_filter(other)),
        }
    }
    let account = call.account();
    let mut found = Vec::new();
    for record in call.all("ec2:security-group").filter(|record| wanted.is_empty() || wanted.contains(&record.id)) {
        for (side, direction) in [("/ipPermissions", "i"), ("/ipPermissionsEgress", "e")] {
            for rule in items(&record.body, side) {
                let mut one = json!({
                    "securityGroupRuleId": rule_id(&record.id, direction, &rule), "groupId": record.id, "groupOwnerId": account, "isEgress": direction == "e",
                    "ipProtocol": rule["ipProtocol"], "fromPort": rule.get("fromPort").cloned().unwrap_or(json!(-1)), "toPort": rule.get("toPort").cloned().unwrap_or(json!(-1)),
                });
                if let Some(range) = rule.pointer("/ipRanges/0") {
                    one["cidrIpv4"] = range["cidrIp"].clone();
                    one["description"] = range["description"].clone();
                }
                if let Some(group) = rule.pointer("/groups/0") {
                    one["referencedGroupInfo"] = json!({"groupId": group["groupId"], "userId": account});
                    one["description"] = group["description"].clone();
                }
                if rules.is_empty() || rules.iter().any(|id| id == text(&one, "/securityGroupRuleId")) {
                    found.push(one);
                }
            }
        }
    }
    Ok(json!({"securityGroupRuleSet": found}))
}
