//! `aws.elastic_ip`: a public IPv4 address. It costs money from its allocation to its release.

use super::clients::AwsClients;
use super::ec2::{
    Filters, Found, Resource, SHORT, by_id, find, finished, of_step, required, restore_tags, sdk_filters,
    tag_specification,
};
use super::failure::{AwsFailure, change, look};
use super::ownership::{
    self, Differences, Start, Tags, absent, compare_tags, creation_tags, going, lasting_tags, not_ours, noted,
    nothing_left, start,
};
use crate::contract::{Made, Record, Seen, StepKind};
use async_trait::async_trait;
use aws_sdk_ec2::types::{Address, DomainType, ResourceType, Tag};
use platflow_engine::context::Context;
use platflow_engine::failure::StepError;
use platflow_engine::step::{Ownership, UndoProgress};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;

/// An elastic IP address.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ElasticIpSpec {
    /// Its `Name` tag.
    pub name: String,
    /// Further tags.
    #[serde(default)]
    pub tags: Tags,
}

/// An elastic IP address that exists.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct ElasticIpOutputs {
    /// `eipalloc-…`.
    pub allocation_id: String,
    /// The address.
    pub public_ip: String,
}

/// See the file.
pub(super) struct ElasticIpKind(pub(super) Arc<AwsClients>);

impl Resource for Address {
    const WHAT: &'static str = "elastic IP address";
    const ID_FILTER: &'static str = "allocation-id";

    fn id(&self) -> &str {
        self.allocation_id().unwrap_or_default()
    }

    fn tags(&self) -> &[Tag] {
        self.tags()
    }

    async fn describe(aws: &AwsClients, filters: Filters) -> Result<Vec<Self>, AwsFailure> {
        let sending = aws.ec2.describe_addresses().set_filters(sdk_filters(filters)).send();
        Ok(look("DescribeAddresses", sending).await?.addresses.unwrap_or_default())
    }
}

impl ElasticIpKind {
    fn known(record: &Record<ElasticIpOutputs>) -> Option<String> {
        noted(record, "allocation_id").or_else(|| record.outputs.as_ref().map(|outputs| outputs.allocation_id.clone()))
    }

    async fn see(
        &self,
        spec: &ElasticIpSpec,
        record: &Record<ElasticIpOutputs>,
        context: &Context,
        known: Option<String>,
    ) -> Result<Seen<ElasticIpOutputs>, StepError> {
        let Some(Found { it, ownership, tags }) = find::<Address>(&self.0, context, known.as_deref()).await? else {
            return Ok(absent(record, known.as_ref(), context));
        };
        let mut differences = Differences::default();
        compare_tags(&mut differences, &lasting_tags(context, &spec.name, &spec.tags), &tags);
        let outputs = ElasticIpOutputs {
            allocation_id: it.id().to_owned(),
            public_ip: required("public address", it.public_ip())?.to_owned(),
        };
        Ok(Seen::Present { outputs, ownership, differences: differences.0 })
    }

    async fn create(&self, spec: &ElasticIpSpec, context: &Context) -> Result<String, StepError> {
        let permit = context.begin("AllocateAddress")?;
        let tags = creation_tags(context, &spec.name, &spec.tags, &permit.token);
        let specification = tag_specification(ResourceType::ElasticIp, &tags);
        let sending = self.0.ec2.allocate_address().domain(DomainType::Vpc).tag_specifications(specification).send();
        let answer = change("AllocateAddress", &permit, sending).await?;
        let id = required("allocation id", answer.allocation_id)?;
        context.note("allocation_id", id.clone().into()).await?;
        Ok(id)
    }
}

#[async_trait]
impl StepKind for ElasticIpKind {
    type Spec = ElasticIpSpec;
    type Outputs = ElasticIpOutputs;

    const NAME: &'static str = "aws.elastic_ip";
    const SUMMARY: &'static str = "A public IPv4 address.";
    const SETTLE: Duration = ownership::READ_LAG;

    async fn observe(
        &self,
        spec: &ElasticIpSpec,
        record: &Record<ElasticIpOutputs>,
        context: &Context,
    ) -> Result<Seen<ElasticIpOutputs>, StepError> {
        self.see(spec, record, context, Self::known(record)).await
    }

    async fn apply(
        &self,
        spec: &ElasticIpSpec,
        seen: &Seen<ElasticIpOutputs>,
        record: &Record<ElasticIpOutputs>,
        context: &Context,
    ) -> Result<Made<ElasticIpOutputs>, StepError> {
        let id = match start("the elastic IP address", seen)? {
            Start::Create => self.create(spec, context).await?,
            Start::Change(outputs, differences) => {
                let tags = lasting_tags(context, &spec.name, &spec.tags);
                restore_tags(&self.0, context, &outputs.allocation_id, differences, &tags).await?;
                outputs.allocation_id.clone()
            }
        };
        Ok(finished(self.see(spec, record, context, Some(id)).await?, SHORT))
    }

    async fn undo(
        &self,
        _spec: &ElasticIpSpec,
        record: &Record<ElasticIpOutputs>,
        context: &Context,
    ) -> Result<UndoProgress, StepError> {
        let known = Self::known(record);
        let ours = of_step::<Address>(&self.0, context).await?;
        // An address that an attempt left behind carries the same tags, and is as much ours: all of them go.
        if let Some(spare) = ours.iter().find(|one| known.as_deref() != Some(one.id())).filter(|_| ours.len() > 1) {
            let id = spare.id();
            let permit = context.begin(&format!("ReleaseAddress/{id}"))?;
            let sending = self.0.ec2.release_address().allocation_id(id).send();
            match change("ReleaseAddress", &permit, sending).await {
                Err(failure) if !failure.is_not_found() => return Err(failure.into()),
                _ => return Ok(going(format!("{id}, which an attempt left behind, is being released"), 2, 5)),
            }
        }
        let Some(found) = find::<Address>(&self.0, context, known.as_deref()).await? else {
            return Ok(nothing_left(record, context, "DescribeAddresses by tag and id shows no address of this step"));
        };
        let id = found.it.id();
        if let Ownership::Foreign(owner) = &found.ownership {
            return Ok(not_ours(record, context, id, owner));
        }
        let permit = context.begin("ReleaseAddress")?;
        match change("ReleaseAddress", &permit, self.0.ec2.release_address().allocation_id(id).send()).await {
            Ok(_) => {}
            Err(failure) if failure.is_not_found() => {}
            Err(failure) if failure.is(&["InvalidIPAddress.InUse", "AuthFailure"]) => {
                let Some(user) = found.it.network_interface_id().or(found.it.instance_id()) else {
                    return Ok(going(format!("{id} is still being let go of"), 5, 10));
                };
                return Ok(UndoProgress::Blocked {
                    owner: format!(
                        "address {id} is in use by {user} (association {})",
                        found.it.association_id().unwrap_or("unknown")
                    ),
                    remedy: format!("take the address off {user}, then resume"),
                });
            }
            Err(failure) => return Err(failure.into()),
        }
        Ok(match by_id::<Address>(&self.0, id).await? {
            Some(_) => going(format!("{id} is being released"), 2, 5),
            None => UndoProgress::Gone { evidence: format!("ReleaseAddress {id}; DescribeAddresses shows it no more") },
        })
    }
}
