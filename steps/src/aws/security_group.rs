//! `aws.security_group`: a security group with exactly the rules listed, no others.

use super::blockers;
use super::clients::AwsClients;
use super::ec2::{
    Filters, Found, Resource, SHORT, by_id, filter, find, finished, required, restore_tags, sdk_filters, tag_map,
    tag_specification,
};
use super::failure::{AwsFailure, change, look};
use super::leftovers;
use super::ownership::{
    self, Differences, Start, Tags, absent, compare_tags, creation_tags, going, lasting_tags, not_ours, noted,
    nothing_left, start, touches,
};
use crate::contract::{Made, Record, Seen, StepKind};
use async_trait::async_trait;
use aws_sdk_ec2::types::{IpPermission, IpRange, Ipv6Range, ResourceType, SecurityGroup, Tag, UserIdGroupPair};
use platflow_engine::context::Context;
use platflow_engine::failure::{Residue, StepError};
use platflow_engine::step::{Ownership, UndoProgress};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

/// A security group.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SecurityGroupSpec {
    /// Unique in its VPC. Cannot be changed in place.
    pub name: String,
    /// What it is for. Cannot be changed in place.
    pub description: String,
    /// The VPC it is in. Cannot be changed in place.
    pub vpc_id: String,
    /// Its rules: exactly these, the usual "all out" only if listed.
    #[serde(default)]
    pub rules: Vec<RuleSpec>,
    /// Further tags.
    #[serde(default)]
    pub tags: Tags,
}

/// Which way a rule lets traffic through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// In.
    Ingress,
    /// Out.
    Egress,
}

/// A rule: exactly one of `cidr`, `source_group_id` and `self`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RuleSpec {
    /// In or out.
    pub direction: Direction,
    /// `tcp`, `udp`, `icmp`, or `-1` for all.
    pub protocol: String,
    /// First port; none for all protocols.
    #[serde(default)]
    pub from_port: Option<i32>,
    /// Last port; none for all protocols.
    #[serde(default)]
    pub to_port: Option<i32>,
    /// Peers by address range.
    #[serde(default)]
    pub cidr: Option<String>,
    /// Peers by security group.
    #[serde(default)]
    pub source_group_id: Option<String>,
    /// Peers: members of this very group.
    #[serde(default, rename = "self")]
    pub own: bool,
    /// What it is for; not compared.
    #[serde(default)]
    pub description: Option<String>,
}

/// A security group that exists.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct SecurityGroupOutputs {
    /// `sg-…`.
    pub security_group_id: String,
}

/// See the file.
pub(super) struct SecurityGroupKind(pub(super) Arc<AwsClients>);

impl Resource for SecurityGroup {
    const WHAT: &'static str = "security group";
    const ID_FILTER: &'static str = "group-id";

    fn id(&self) -> &str {
        self.group_id().unwrap_or_default()
    }

    fn tags(&self) -> &[Tag] {
        self.tags()
    }

    async fn describe(aws: &AwsClients, filters: Filters) -> Result<Vec<Self>, AwsFailure> {
        let sending = aws.ec2.describe_security_groups().set_filters(sdk_filters(filters)).send();
        Ok(look("DescribeSecurityGroups", sending).await?.security_groups.unwrap_or_default())
    }
}

/// One rule with one peer, in the form in which all are compared.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Rule {
    direction: Direction,
    protocol: String,
    ports: Option<(i32, i32)>,
    peer: String,
}

const SELF: &str = "self";

impl Rule {
    fn wanted(spec: &RuleSpec) -> Result<Self, StepError> {
        let peers = [spec.cidr.clone(), spec.source_group_id.clone(), spec.own.then(|| SELF.to_owned())];
        let mut peers = peers.into_iter().flatten();
        let (Some(peer), None) = (peers.next(), peers.next()) else {
            let text = "a rule needs exactly one of cidr, source_group_id and self";
            return Err(StepError::permanent(text).leaving(Residue::None));
        };
        let all = matches!(spec.protocol.as_str(), "-1" | "all");
        let ports = if all { None } else { spec.from_port.zip(spec.to_port.or(spec.from_port)) };
        let protocol = if all { "-1".to_owned() } else { spec.protocol.to_lowercase() };
        Ok(Self { direction: spec.direction, protocol, ports, peer })
    }

    fn found(direction: Direction, permission: &IpPermission, own: &str) -> Vec<Self> {
        let protocol = permission.ip_protocol().unwrap_or("-1").to_owned();
        let ports = if protocol == "-1" { None } else { permission.from_port().zip(permission.to_port()) };
        let ranges = permission.ip_ranges().iter().filter_map(IpRange::cidr_ip);
        let ranges6 = permission.ipv6_ranges().iter().filter_map(Ipv6Range::cidr_ipv6);
        let groups = permission.user_id_group_pairs().iter().filter_map(UserIdGroupPair::group_id);
        let groups = groups.map(|group| if group == own { SELF } else { group });
        let rule = |peer: &str| Self { direction, protocol: protocol.clone(), ports, peer: peer.to_owned() };
        ranges.chain(ranges6).chain(groups).map(rule).collect()
    }

    fn permission(&self, own: &str) -> IpPermission {
        let mut permission = IpPermission::builder().ip_protocol(&self.protocol);
        if let Some((from, to)) = self.ports {
            permission = permission.from_port(from).to_port(to);
        }
        let peer = if self.peer == SELF { own } else { &self.peer };
        if peer.starts_with("sg-") {
            permission.user_id_group_pairs(UserIdGroupPair::builder().group_id(peer).build()).build()
        } else if peer.contains(':') {
            permission.ipv6_ranges(Ipv6Range::builder().cidr_ipv6(peer).build()).build()
        } else {
            permission.ip_ranges(IpRange::builder().cidr_ip(peer).build()).build()
        }
    }
}

fn wanted(spec: &SecurityGroupSpec) -> Result<BTreeSet<Rule>, StepError> {
    spec.rules.iter().map(Rule::wanted).collect()
}

fn found(group: &SecurityGroup) -> BTreeSet<Rule> {
    let own = group.group_id().unwrap_or_default();
    let inward = group.ip_permissions().iter().flat_map(|one| Rule::found(Direction::Ingress, one, own));
    let outward = group.ip_permissions_egress().iter().flat_map(|one| Rule::found(Direction::Egress, one, own));
    inward.chain(outward).collect()
}

/// Rules in the shape of the spec.
fn shown(rules: &BTreeSet<Rule>) -> Vec<Value> {
    rules
        .iter()
        .map(|rule| {
            let mut shown = json!({"direction": rule.direction, "protocol": rule.protocol});
            let peer = match rule.peer.as_str() {
                SELF => ("self", json!(true)),
                group if group.starts_with("sg-") => ("source_group_id", json!(group)),
                range => ("cidr", json!(range)),
            };
            let ports = rule.ports.map(|(from, to)| [("from_port", json!(from)), ("to_port", json!(to))]);
            if let Some(shown) = shown.as_object_mut() {
                shown.extend(ports.into_iter().flatten().chain([peer]).map(|(key, value)| (key.to_owned(), value)));
            }
            shown
        })
        .collect()
}

impl SecurityGroupKind {
    fn known(record: &Record<SecurityGroupOutputs>) -> Option<String> {
        noted(record, "security_group_id")
            .or_else(|| record.outputs.as_ref().map(|outputs| outputs.security_group_id.clone()))
    }

    async fn same_name(&self, spec: &SecurityGroupSpec) -> Result<Option<Found<SecurityGroup>>, StepError> {
        let filters = vec![filter("vpc-id", &spec.vpc_id), filter("group-name", &spec.name)];
        let group = SecurityGroup::describe(&self.0, filters).await?.into_iter().next();
        Ok(group.map(|it| {
            let tags = tag_map(it.tags());
            Found { it, ownership: Ownership::Foreign(ownership::owner_text(&tags)), tags }
        }))
    }

    async fn see(
        &self,
        spec: &SecurityGroupSpec,
        record: &Record<SecurityGroupOutputs>,
        context: &Context,
        known: Option<String>,
    ) -> Result<Seen<SecurityGroupOutputs>, StepError> {
        let group = match find::<SecurityGroup>(&self.0, context, known.as_deref()).await? {
            None if known.is_none() => self.same_name(spec).await?,
            group => group,
        };
        let Some(Found { it, ownership, tags }) = group else {
            return Ok(absent(record, known.as_ref(), context));
        };
        let mut differences = Differences::default();
        differences.fixed("/name", &spec.name, it.group_name());
        differences.fixed("/description", &spec.description, it.description());
        differences.fixed("/vpc_id", &spec.vpc_id, it.vpc_id());
        differences.field("/rules", shown(&wanted(spec)?), shown(&found(&it)));
        compare_tags(&mut differences, &lasting_tags(context, &spec.name, &spec.tags), &tags);
        let outputs = SecurityGroupOutputs { security_group_id: required("group id", it.group_id())?.to_owned() };
        Ok(Seen::Present { outputs, ownership, differences: differences.0 })
    }

    async fn create(&self, spec: &SecurityGroupSpec, context: &Context) -> Result<String, StepError> {
        let permit = context.begin("CreateSecurityGroup")?;
        let tags = creation_tags(context, &spec.name, &spec.tags, &permit.token);
        let request = self.0.ec2.create_security_group().group_name(&spec.name).description(&spec.description);
        let sending = request
            .vpc_id(&spec.vpc_id)
            .tag_specifications(tag_specification(ResourceType::SecurityGroup, &tags))
            .send();
        let answer = change("CreateSecurityGroup", &permit, sending).await?;
        let id = required("security group id", answer.group_id)?;
        context.note("security_group_id", id.clone().into()).await?;
        Ok(id)
    }

    async fn authorize(&self, id: &str, rule: &Rule, context: &Context) -> Result<(), StepError> {
        let call = format!("Authorize/{}/{}/{:?}/{}", rule_name(rule.direction), rule.protocol, rule.ports, rule.peer);
        let permit = context.begin(&call)?;
        let rules = Some(vec![rule.permission(id)]);
        let answer = match rule.direction {
            Direction::Ingress => {
                let request = self.0.ec2.authorize_security_group_ingress().group_id(id).set_ip_permissions(rules);
                change("AuthorizeSecurityGroupIngress", &permit, request.send()).await.map(drop)
            }
            Direction::Egress => {
                let request = self.0.ec2.authorize_security_group_egress().group_id(id).set_ip_permissions(rules);
                change("AuthorizeSecurityGroupEgress", &permit, request.send()).await.map(drop)
            }
        };
        match answer {
            Err(failure) if !failure.is(&["InvalidPermission.Duplicate"]) => Err(failure.into()),
            _ => Ok(()),
        }
    }

    async fn revoke(
        &self,
        id: &str,
        direction: Direction,
        rules: &[&Rule],
        context: &Context,
    ) -> Result<(), StepError> {
        if rules.is_empty() {
            return Ok(());
        }
        let rules = Some(rules.iter().map(|rule| rule.permission(id)).collect());
        let permit = context.begin(&format!("Revoke/{}", rule_name(direction)))?;
        match direction {
            Direction::Ingress => {
                let request = self.0.ec2.revoke_security_group_ingress().group_id(id).set_ip_permissions(rules);
                change("RevokeSecurityGroupIngress", &permit, request.send()).await.map(drop)?;
            }
            Direction::Egress => {
                let request = self.0.ec2.revoke_security_group_egress().group_id(id).set_ip_permissions(rules);
                change("RevokeSecurityGroupEgress", &permit, request.send()).await.map(drop)?;
            }
        }
        Ok(())
    }

    /// Adds what is missing, takes away what is too much.
    async fn set_rules(&self, spec: &SecurityGroupSpec, id: &str, context: &Context) -> Result<(), StepError> {
        let wanted = wanted(spec)?;
        let group = by_id::<SecurityGroup>(&self.0, id).await?;
        let group = group.ok_or_else(|| {
            StepError::new(platflow_engine::failure::ErrorClass::Propagation, format!("{id} is not shown yet"))
        })?;
        let present = found(&group);
        for rule in wanted.difference(&present) {
            self.authorize(id, rule, context).await?;
        }
        for direction in [Direction::Ingress, Direction::Egress] {
            let extra: Vec<&Rule> = present.difference(&wanted).filter(|rule| rule.direction == direction).collect();
            self.revoke(id, direction, &extra, context).await?;
        }
        Ok(())
    }
}

fn rule_name(direction: Direction) -> &'static str {
    match direction {
        Direction::Ingress => "ingress",
        Direction::Egress => "egress",
    }
}

#[async_trait]
impl StepKind for SecurityGroupKind {
    type Spec = SecurityGroupSpec;
    type Outputs = SecurityGroupOutputs;

    const NAME: &'static str = "aws.security_group";
    const SUMMARY: &'static str = "A security group with exactly the rules listed.";
    const SETTLE: Duration = ownership::READ_LAG;
    const EXPECTED: Duration = Duration::from_secs(4);

    async fn observe(
        &self,
        spec: &SecurityGroupSpec,
        record: &Record<SecurityGroupOutputs>,
        context: &Context,
    ) -> Result<Seen<SecurityGroupOutputs>, StepError> {
        self.see(spec, record, context, Self::known(record)).await
    }

    async fn apply(
        &self,
        spec: &SecurityGroupSpec,
        seen: &Seen<SecurityGroupOutputs>,
        record: &Record<SecurityGroupOutputs>,
        context: &Context,
    ) -> Result<Made<SecurityGroupOutputs>, StepError> {
        wanted(spec)?;
        let id = match start(&format!("security group {}", spec.name), seen)? {
            Start::Create => {
                let id = self.create(spec, context).await?;
                self.set_rules(spec, &id, context).await?;
                id
            }
            Start::Change(outputs, differences) => {
                let id = outputs.security_group_id.clone();
                if touches(differences, "/rules") {
                    self.set_rules(spec, &id, context).await?;
                }
                let tags = lasting_tags(context, &spec.name, &spec.tags);
                restore_tags(&self.0, context, &id, differences, &tags).await?;
                id
            }
        };
        Ok(finished(self.see(spec, record, context, Some(id)).await?, SHORT))
    }

    async fn undo(
        &self,
        spec: &SecurityGroupSpec,
        record: &Record<SecurityGroupOutputs>,
        context: &Context,
    ) -> Result<UndoProgress, StepError> {
        let known = Self::known(record);
        let Some(group) = find::<SecurityGroup>(&self.0, context, known.as_deref()).await? else {
            return Ok(nothing_left(record, context, "DescribeSecurityGroups by tag and id shows none of this step"));
        };
        let id = group.it.id();
        if let Ownership::Foreign(owner) = &group.ownership {
            return Ok(not_ours(record, context, id, owner));
        }
        let neighbours = SecurityGroup::describe(&self.0, vec![filter("vpc-id", &spec.vpc_id)]).await?;
        for other in neighbours.iter().filter(|other| other.id() != id) {
            leftovers::revoke_references(&self.0, context, other, id).await?;
        }
        leftovers::sweep_interfaces(&self.0, context, &spec.vpc_id, filter("group-id", id)).await?;
        let permit = context.begin("DeleteSecurityGroup")?;
        match change("DeleteSecurityGroup", &permit, self.0.ec2.delete_security_group().group_id(id).send()).await {
            Ok(_) => {}
            Err(failure) if failure.is_not_found() => {}
            Err(failure) if failure.is(&["DependencyViolation"]) => {
                return blockers::obstacles(&self.0, context, filter("group-id", id), &format!("security group {id}"))
                    .await;
            }
            Err(failure) => return Err(failure.into()),
        }
        Ok(match by_id::<SecurityGroup>(&self.0, id).await? {
            Some(_) => going(format!("{id} is being deleted"), 2, 5),
            None => UndoProgress::Gone {
                evidence: format!("DeleteSecurityGroup {id}; DescribeSecurityGroups shows it no more"),
            },
        })
    }
}
