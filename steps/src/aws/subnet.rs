//! `aws.subnet`: one subnet in one zone, tagged so that load balancer controllers find it.

use super::blockers;
use super::clients::AwsClients;
use super::ec2::{
    Filters, Found, Resource, SHORT, by_id, filter, find, finished, required, restore_tags, sdk_filters, soon, tag_map,
    tag_specification,
};
use super::failure::{AwsFailure, change, look};
use super::leftovers;
use super::ownership::{
    self, Differences, Start, Tags, absent, compare_tags, creation_tags, going, lasting_tags, not_ours, noted,
    nothing_left, start, terminal, touches,
};
use crate::contract::{Made, Record, Seen, StepKind};
use async_trait::async_trait;
use aws_sdk_ec2::types::{AttributeBooleanValue, ResourceType, Subnet, SubnetState, Tag};
use platflow_engine::context::Context;
use platflow_engine::failure::StepError;
use platflow_engine::step::{Ownership, UndoProgress};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;

/// A subnet.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SubnetSpec {
    /// Its `Name` tag.
    pub name: String,
    /// The VPC it is in. Cannot be changed in place.
    pub vpc_id: String,
    /// IPv4 range inside the VPC's. Cannot be changed in place.
    pub cidr: String,
    /// Availability zone by id (`use1-az1`): names differ between accounts. Cannot be changed in place.
    pub zone_id: String,
    /// Instances get public addresses, and public load balancers may use it.
    #[serde(default)]
    pub public: bool,
    /// The EKS cluster that shares it.
    #[serde(default)]
    pub cluster_name: Option<String>,
    /// Further tags.
    #[serde(default)]
    pub tags: Tags,
}

/// A subnet that exists.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct SubnetOutputs {
    /// `subnet-…`.
    pub subnet_id: String,
    /// Name of its zone in this account.
    pub zone_name: String,
    /// Id of its zone.
    pub zone_id: String,
}

/// See the file.
pub(super) struct SubnetKind(pub(super) Arc<AwsClients>);

impl Resource for Subnet {
    const WHAT: &'static str = "subnet";
    const ID_FILTER: &'static str = "subnet-id";

    fn id(&self) -> &str {
        self.subnet_id().unwrap_or_default()
    }

    fn tags(&self) -> &[Tag] {
        self.tags()
    }

    async fn describe(aws: &AwsClients, filters: Filters) -> Result<Vec<Self>, AwsFailure> {
        let sending = aws.ec2.describe_subnets().set_filters(sdk_filters(filters)).send();
        Ok(look("DescribeSubnets", sending).await?.subnets.unwrap_or_default())
    }
}

/// Tags with the roles that load balancer controllers look for.
fn role_tags(spec: &SubnetSpec) -> Tags {
    let mut tags = spec.tags.clone();
    let role = if spec.public { "kubernetes.io/role/elb" } else { "kubernetes.io/role/internal-elb" };
    tags.insert(role.to_owned(), "1".to_owned());
    if let Some(cluster) = &spec.cluster_name {
        tags.insert(format!("kubernetes.io/cluster/{cluster}"), "shared".to_owned());
    }
    tags
}

impl SubnetKind {
    fn known(record: &Record<SubnetOutputs>) -> Option<String> {
        noted(record, "subnet_id").or_else(|| record.outputs.as_ref().map(|outputs| outputs.subnet_id.clone()))
    }

    /// Somebody else's subnet of the same range keeps ours from being made: show whose it is.
    async fn same_range(&self, spec: &SubnetSpec) -> Result<Option<Found<Subnet>>, StepError> {
        let filters = vec![filter("vpc-id", &spec.vpc_id), filter("cidr-block", &spec.cidr)];
        let found = Subnet::describe(&self.0, filters).await?.into_iter().next();
        Ok(found.map(|it| {
            let tags = tag_map(it.tags());
            Found { it, ownership: Ownership::Foreign(ownership::owner_text(&tags)), tags }
        }))
    }

    async fn see(
        &self,
        spec: &SubnetSpec,
        record: &Record<SubnetOutputs>,
        context: &Context,
        known: Option<String>,
    ) -> Result<Seen<SubnetOutputs>, StepError> {
        let found = match find::<Subnet>(&self.0, context, known.as_deref()).await? {
            None if known.is_none() => self.same_range(spec).await?,
            found => found,
        };
        let Some(Found { it, ownership, tags }) = found else {
            return Ok(absent(record, known.as_ref(), context));
        };
        let id = required("subnet id", it.subnet_id())?;
        match it.state() {
            Some(SubnetState::Pending) => return Ok(soon(format!("{id} is pending"))),
            Some(state) if state.as_str().starts_with("failed") => {
                return Err(terminal(id, state.as_str(), "EC2 could not make the subnet"));
            }
            _ => {}
        }
        let mut differences = Differences::default();
        differences.fixed("/vpc_id", &spec.vpc_id, it.vpc_id());
        differences.fixed("/cidr", &spec.cidr, it.cidr_block());
        differences.fixed("/zone_id", &spec.zone_id, it.availability_zone_id());
        differences.field("/public", spec.public, it.map_public_ip_on_launch().unwrap_or(false));
        compare_tags(&mut differences, &lasting_tags(context, &spec.name, &role_tags(spec)), &tags);
        let outputs = SubnetOutputs {
            subnet_id: id.to_owned(),
            zone_name: it.availability_zone().unwrap_or_default().to_owned(),
            zone_id: it.availability_zone_id().unwrap_or_default().to_owned(),
        };
        Ok(Seen::Present { outputs, ownership, differences: differences.0 })
    }

    async fn create(&self, spec: &SubnetSpec, context: &Context) -> Result<String, StepError> {
        let permit = context.begin("CreateSubnet")?;
        let tags = creation_tags(context, &spec.name, &role_tags(spec), &permit.token);
        let request = self.0.ec2.create_subnet().vpc_id(&spec.vpc_id).cidr_block(&spec.cidr);
        let sending = request
            .availability_zone_id(&spec.zone_id)
            .tag_specifications(tag_specification(ResourceType::Subnet, &tags))
            .send();
        let answer = change("CreateSubnet", &permit, sending).await?;
        let id = required("subnet id", answer.subnet.and_then(|subnet| subnet.subnet_id))?;
        context.note("subnet_id", id.clone().into()).await?;
        Ok(id)
    }

    async fn set_public(&self, id: &str, public: bool, context: &Context) -> Result<(), StepError> {
        let permit = context.begin("ModifySubnetAttribute")?;
        let value = AttributeBooleanValue::builder().value(public).build();
        let sending = self.0.ec2.modify_subnet_attribute().subnet_id(id).map_public_ip_on_launch(value).send();
        change("ModifySubnetAttribute", &permit, sending).await?;
        Ok(())
    }
}

#[async_trait]
impl StepKind for SubnetKind {
    type Spec = SubnetSpec;
    type Outputs = SubnetOutputs;

    const NAME: &'static str = "aws.subnet";
    const SUMMARY: &'static str = "A subnet in one availability zone, public or private.";
    const SETTLE: Duration = ownership::READ_LAG;
    const EXPECTED: Duration = Duration::from_secs(3);

    async fn observe(
        &self,
        spec: &SubnetSpec,
        record: &Record<SubnetOutputs>,
        context: &Context,
    ) -> Result<Seen<SubnetOutputs>, StepError> {
        self.see(spec, record, context, Self::known(record)).await
    }

    async fn apply(
        &self,
        spec: &SubnetSpec,
        seen: &Seen<SubnetOutputs>,
        record: &Record<SubnetOutputs>,
        context: &Context,
    ) -> Result<Made<SubnetOutputs>, StepError> {
        let id = match start(&format!("subnet {}", spec.cidr), seen)? {
            Start::Create => {
                let id = self.create(spec, context).await?;
                if spec.public {
                    self.set_public(&id, true, context).await?;
                }
                id
            }
            Start::Change(outputs, differences) => {
                let id = outputs.subnet_id.clone();
                if touches(differences, "/public") {
                    self.set_public(&id, spec.public, context).await?;
                }
                let tags = lasting_tags(context, &spec.name, &role_tags(spec));
                restore_tags(&self.0, context, &id, differences, &tags).await?;
                id
            }
        };
        Ok(finished(self.see(spec, record, context, Some(id)).await?, SHORT))
    }

    async fn undo(
        &self,
        spec: &SubnetSpec,
        record: &Record<SubnetOutputs>,
        context: &Context,
    ) -> Result<UndoProgress, StepError> {
        let known = Self::known(record);
        let Some(found) = find::<Subnet>(&self.0, context, known.as_deref()).await? else {
            return Ok(nothing_left(record, context, "DescribeSubnets by tag and id shows no subnet of this step"));
        };
        let id = found.it.id();
        if let Ownership::Foreign(owner) = &found.ownership {
            return Ok(not_ours(record, context, id, owner));
        }
        leftovers::sweep_interfaces(&self.0, context, &spec.vpc_id, filter("subnet-id", id)).await?;
        let permit = context.begin("DeleteSubnet")?;
        match change("DeleteSubnet", &permit, self.0.ec2.delete_subnet().subnet_id(id).send()).await {
            Ok(_) => {}
            Err(failure) if failure.is_not_found() => {}
            Err(failure) if failure.is(&["DependencyViolation"]) => {
                return blockers::obstacles(&self.0, context, filter("subnet-id", id), &format!("subnet {id}")).await;
            }
            Err(failure) => return Err(failure.into()),
        }
        Ok(match by_id::<Subnet>(&self.0, id).await? {
            Some(_) => going(format!("{id} is being deleted"), 2, 5),
            None => UndoProgress::Gone { evidence: format!("DeleteSubnet {id}; DescribeSubnets shows it no more") },
        })
    }
}
