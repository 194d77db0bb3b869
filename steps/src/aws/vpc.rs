//! `aws.vpc`: a VPC with its DNS attributes.
//!
//! Undoing it also takes away what controllers of our cluster left inside (see `leftovers`); it never touches what
//! somebody else put there.

use super::blockers;
use super::clients::AwsClients;
use super::ec2::{
    Filters, Found, Resource, SHORT, filter, find, finished, required, restore_tags, sdk_filters, soon,
    tag_specification,
};
use super::failure::{AwsFailure, change, look};
use super::leftovers;
use super::ownership::{
    Differences, Start, Tags, absent, compare_tags, creation_tags, going, lasting_tags, not_ours, noted, nothing_left,
    start, touches,
};
use crate::contract::{Made, Record, Seen, StepKind};
use async_trait::async_trait;
use aws_sdk_ec2::types::{AttributeBooleanValue, ResourceType, Tag, Vpc, VpcAttributeName, VpcState};
use platflow_engine::context::Context;
use platflow_engine::failure::StepError;
use platflow_engine::step::{Difference, Ownership, UndoProgress};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;

/// A VPC.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct VpcSpec {
    /// Its `Name` tag.
    pub name: String,
    /// IPv4 range, for example `10.0.0.0/16`. Cannot be changed in place.
    pub cidr: String,
    /// Whether the VPC's resolver answers; nodes need it.
    #[serde(default = "yes")]
    pub enable_dns_support: bool,
    /// Whether instances get DNS names; nodes need it.
    #[serde(default = "yes")]
    pub enable_dns_hostnames: bool,
    /// Further tags.
    #[serde(default)]
    pub tags: Tags,
}

fn yes() -> bool {
    true
}

/// A VPC that exists.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct VpcOutputs {
    /// `vpc-…`.
    pub vpc_id: String,
    /// Its ARN.
    pub arn: String,
    /// The security group that came with it.
    pub default_security_group_id: String,
    /// The route table that came with it.
    pub main_route_table_id: String,
}

/// See the file.
pub(super) struct VpcKind(pub(super) Arc<AwsClients>);

impl Resource for Vpc {
    const WHAT: &'static str = "VPC";
    const ID_FILTER: &'static str = "vpc-id";

    fn id(&self) -> &str {
        self.vpc_id().unwrap_or_default()
    }

    fn tags(&self) -> &[Tag] {
        self.tags()
    }

    async fn describe(aws: &AwsClients, filters: Filters) -> Result<Vec<Self>, AwsFailure> {
        let sending = aws.ec2.describe_vpcs().set_filters(sdk_filters(filters)).send();
        Ok(look("DescribeVpcs", sending).await?.vpcs.unwrap_or_default())
    }
}

impl VpcKind {
    fn known(record: &Record<VpcOutputs>) -> Option<String> {
        noted(record, "vpc_id").or_else(|| record.outputs.as_ref().map(|outputs| outputs.vpc_id.clone()))
    }

    async fn attribute(&self, id: &str, name: VpcAttributeName) -> Result<bool, StepError> {
        let hostnames = name == VpcAttributeName::EnableDnsHostnames;
        let sending = self.0.ec2.describe_vpc_attribute().vpc_id(id).attribute(name).send();
        let answer = look("DescribeVpcAttribute", sending).await?;
        let value = if hostnames { answer.enable_dns_hostnames } else { answer.enable_dns_support };
        Ok(value.and_then(|value| value.value).unwrap_or(false))
    }

    async fn default_group(&self, id: &str) -> Result<Option<String>, StepError> {
        let filters = vec![filter("vpc-id", id), filter("group-name", "default")];
        let sending = self.0.ec2.describe_security_groups().set_filters(sdk_filters(filters)).send();
        let groups = look("DescribeSecurityGroups", sending).await?.security_groups.unwrap_or_default();
        Ok(groups.into_iter().next().and_then(|group| group.group_id))
    }

    async fn main_table(&self, id: &str) -> Result<Option<String>, StepError> {
        let filters = vec![filter("vpc-id", id), filter("association.main", "true")];
        let sending = self.0.ec2.describe_route_tables().set_filters(sdk_filters(filters)).send();
        let tables = look("DescribeRouteTables", sending).await?.route_tables.unwrap_or_default();
        Ok(tables.into_iter().next().and_then(|table| table.route_table_id))
    }

    async fn see(
        &self,
        spec: &VpcSpec,
        record: &Record<VpcOutputs>,
        context: &Context,
        known: Option<String>,
    ) -> Result<Seen<VpcOutputs>, StepError> {
        let Some(Found { it, ownership, tags }) = find::<Vpc>(&self.0, context, known.as_deref()).await? else {
            return Ok(absent(record, known.as_ref(), context));
        };
        let id = required("VPC id", it.vpc_id())?;
        if it.state() == Some(&VpcState::Pending) {
            return Ok(soon(format!("{id} is pending")));
        }
        let (Some(group), Some(table)) = (self.default_group(id).await?, self.main_table(id).await?) else {
            return Ok(soon(format!("{id} has no default group or main route table yet")));
        };
        let mut differences = Differences::default();
        differences.fixed("/cidr", &spec.cidr, it.cidr_block());
        let support = self.attribute(id, VpcAttributeName::EnableDnsSupport).await?;
        let hostnames = self.attribute(id, VpcAttributeName::EnableDnsHostnames).await?;
        differences.field("/enable_dns_support", spec.enable_dns_support, support);
        differences.field("/enable_dns_hostnames", spec.enable_dns_hostnames, hostnames);
        compare_tags(&mut differences, &lasting_tags(context, &spec.name, &spec.tags), &tags);
        let outputs = VpcOutputs {
            vpc_id: id.to_owned(),
            arn: self.0.arn("ec2", &format!("vpc/{id}")),
            default_security_group_id: group,
            main_route_table_id: table,
        };
        Ok(Seen::Present { outputs, ownership, differences: differences.0 })
    }

    async fn create(&self, spec: &VpcSpec, context: &Context) -> Result<String, StepError> {
        let permit = context.begin("CreateVpc")?;
        let tags = creation_tags(context, &spec.name, &spec.tags, &permit.token);
        let sending = self
            .0
            .ec2
            .create_vpc()
            .cidr_block(&spec.cidr)
            .tag_specifications(tag_specification(ResourceType::Vpc, &tags))
            .send();
        let answer = change("CreateVpc", &permit, sending).await?;
        let id = required("VPC id", answer.vpc.and_then(|vpc| vpc.vpc_id))?;
        context.note("vpc_id", id.clone().into()).await?;
        Ok(id)
    }

    /// Two calls: EC2 accepts one attribute at a time.
    async fn set_attributes(
        &self,
        spec: &VpcSpec,
        id: &str,
        differences: Option<&[Difference]>,
        context: &Context,
    ) -> Result<(), StepError> {
        let due = |field: &str| differences.is_none_or(|differences| touches(differences, field));
        let value = |on: bool| AttributeBooleanValue::builder().value(on).build();
        if due("/enable_dns_support") {
            let permit = context.begin("ModifyVpcAttribute/support")?;
            let request = self.0.ec2.modify_vpc_attribute().vpc_id(id);
            let sending = request.enable_dns_support(value(spec.enable_dns_support)).send();
            change("ModifyVpcAttribute", &permit, sending).await?;
        }
        if due("/enable_dns_hostnames") {
            let permit = context.begin("ModifyVpcAttribute/hostnames")?;
            let request = self.0.ec2.modify_vpc_attribute().vpc_id(id);
            let sending = request.enable_dns_hostnames(value(spec.enable_dns_hostnames)).send();
            change("ModifyVpcAttribute", &permit, sending).await?;
        }
        Ok(())
    }
}

#[async_trait]
impl StepKind for VpcKind {
    type Spec = VpcSpec;
    type Outputs = VpcOutputs;

    const NAME: &'static str = "aws.vpc";
    const SUMMARY: &'static str = "A VPC with its DNS attributes.";
    const SETTLE: Duration = super::ownership::READ_LAG;
    const EXPECTED: Duration = Duration::from_secs(5);

    async fn observe(
        &self,
        spec: &VpcSpec,
        record: &Record<VpcOutputs>,
        context: &Context,
    ) -> Result<Seen<VpcOutputs>, StepError> {
        self.see(spec, record, context, Self::known(record)).await
    }

    async fn apply(
        &self,
        spec: &VpcSpec,
        seen: &Seen<VpcOutputs>,
        record: &Record<VpcOutputs>,
        context: &Context,
    ) -> Result<Made<VpcOutputs>, StepError> {
        let id = match start("the VPC", seen)? {
            Start::Create => {
                let id = self.create(spec, context).await?;
                self.set_attributes(spec, &id, None, context).await?;
                id
            }
            Start::Change(outputs, differences) => {
                let id = outputs.vpc_id.clone();
                self.set_attributes(spec, &id, Some(differences), context).await?;
                let tags = lasting_tags(context, &spec.name, &spec.tags);
                restore_tags(&self.0, context, &id, differences, &tags).await?;
                id
            }
        };
        Ok(finished(self.see(spec, record, context, Some(id)).await?, SHORT))
    }

    async fn undo(
        &self,
        _spec: &VpcSpec,
        record: &Record<VpcOutputs>,
        context: &Context,
    ) -> Result<UndoProgress, StepError> {
        let known = Self::known(record);
        let Some(found) = find::<Vpc>(&self.0, context, known.as_deref()).await? else {
            return Ok(nothing_left(record, context, "DescribeVpcs by tag and id shows no VPC of this step"));
        };
        let id = found.it.id();
        if let Ownership::Foreign(owner) = &found.ownership {
            return Ok(not_ours(record, context, id, owner));
        }
        leftovers::sweep_vpc(&self.0, context, id).await?;
        let permit = context.begin("DeleteVpc")?;
        match change("DeleteVpc", &permit, self.0.ec2.delete_vpc().vpc_id(id).send()).await {
            Ok(_) => {}
            Err(failure) if failure.is_not_found() => {}
            Err(failure) if failure.is(&["DependencyViolation"]) => {
                return blockers::obstacles(&self.0, context, filter("vpc-id", id), &format!("VPC {id}")).await;
            }
            Err(failure) => return Err(failure.into()),
        }
        Ok(match super::ec2::by_id::<Vpc>(&self.0, id).await? {
            Some(_) => going(format!("{id} is being deleted"), 2, 5),
            None => UndoProgress::Gone { evidence: format!("DeleteVpc {id}; DescribeVpcs shows it no more") },
        })
    }
}
