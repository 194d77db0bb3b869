//! `aws.internet_gateway`: an internet gateway, attached to its VPC.

use super::blockers;
use super::clients::AwsClients;
use super::ec2::{
    Filters, Found, Resource, SHORT, by_id, find, finished, required, restore_tags, sdk_filters, tag_specification,
};
use super::failure::{AwsFailure, change, look};
use super::ownership::{
    self, Differences, Start, Tags, absent, compare_tags, creation_tags, going, lasting_tags, not_ours, noted,
    nothing_left, start, touches,
};
use crate::contract::{Made, Record, Seen, StepKind};
use async_trait::async_trait;
use aws_sdk_ec2::types::{InternetGateway, ResourceType, Tag};
use platflow_engine::context::Context;
use platflow_engine::failure::StepError;
use platflow_engine::step::{Ownership, UndoProgress};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;

/// An internet gateway.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct InternetGatewaySpec {
    /// Its `Name` tag.
    pub name: String,
    /// The VPC it is attached to.
    pub vpc_id: String,
    /// Further tags.
    #[serde(default)]
    pub tags: Tags,
}

/// An internet gateway that exists.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct InternetGatewayOutputs {
    /// `igw-…`.
    pub internet_gateway_id: String,
}

/// See the file.
pub(super) struct InternetGatewayKind(pub(super) Arc<AwsClients>);

impl Resource for InternetGateway {
    const WHAT: &'static str = "internet gateway";
    const ID_FILTER: &'static str = "internet-gateway-id";

    fn id(&self) -> &str {
        self.internet_gateway_id().unwrap_or_default()
    }

    fn tags(&self) -> &[Tag] {
        self.tags()
    }

    async fn describe(aws: &AwsClients, filters: Filters) -> Result<Vec<Self>, AwsFailure> {
        let sending = aws.ec2.describe_internet_gateways().set_filters(sdk_filters(filters)).send();
        Ok(look("DescribeInternetGateways", sending).await?.internet_gateways.unwrap_or_default())
    }
}

fn attached_to(gateway: &InternetGateway) -> Option<&str> {
    gateway.attachments().iter().find_map(|attachment| attachment.vpc_id())
}

impl InternetGatewayKind {
    fn known(record: &Record<InternetGatewayOutputs>) -> Option<String> {
        noted(record, "internet_gateway_id")
            .or_else(|| record.outputs.as_ref().map(|outputs| outputs.internet_gateway_id.clone()))
    }

    async fn see(
        &self,
        spec: &InternetGatewaySpec,
        record: &Record<InternetGatewayOutputs>,
        context: &Context,
        known: Option<String>,
    ) -> Result<Seen<InternetGatewayOutputs>, StepError> {
        let found = find::<InternetGateway>(&self.0, context, known.as_deref()).await?;
        let Some(Found { it, ownership, tags }) = found else {
            return Ok(absent(record, known.as_ref(), context));
        };
        let mut differences = Differences::default();
        match attached_to(&it) {
            Some(other) if other != spec.vpc_id => differences.fixed("/vpc_id", &spec.vpc_id, other),
            attached => differences.field("/vpc_id", &spec.vpc_id, attached),
        }
        compare_tags(&mut differences, &lasting_tags(context, &spec.name, &spec.tags), &tags);
        let outputs = InternetGatewayOutputs { internet_gateway_id: it.id().to_owned() };
        Ok(Seen::Present { outputs, ownership, differences: differences.0 })
    }

    async fn create(&self, spec: &InternetGatewaySpec, context: &Context) -> Result<String, StepError> {
        let permit = context.begin("CreateInternetGateway")?;
        let tags = creation_tags(context, &spec.name, &spec.tags, &permit.token);
        let specification = tag_specification(ResourceType::InternetGateway, &tags);
        let sending = self.0.ec2.create_internet_gateway().tag_specifications(specification).send();
        let answer = change("CreateInternetGateway", &permit, sending).await?;
        let id = answer.internet_gateway.and_then(|gateway| gateway.internet_gateway_id);
        let id = required("internet gateway id", id)?;
        context.note("internet_gateway_id", id.clone().into()).await?;
        Ok(id)
    }

    async fn attach(&self, id: &str, vpc: &str, context: &Context) -> Result<(), StepError> {
        let permit = context.begin("AttachInternetGateway")?;
        let sending = self.0.ec2.attach_internet_gateway().internet_gateway_id(id).vpc_id(vpc).send();
        match change("AttachInternetGateway", &permit, sending).await {
            Ok(_) => Ok(()),
            Err(failure) if failure.is(&["Resource.AlreadyAssociated"]) => {
                match by_id::<InternetGateway>(&self.0, id).await? {
                    Some(gateway) if attached_to(&gateway) == Some(vpc) => Ok(()),
                    _ => Err(failure.into()),
                }
            }
            Err(failure) => Err(failure.into()),
        }
    }
}

#[async_trait]
impl StepKind for InternetGatewayKind {
    type Spec = InternetGatewaySpec;
    type Outputs = InternetGatewayOutputs;

    const NAME: &'static str = "aws.internet_gateway";
    const SUMMARY: &'static str = "An internet gateway, attached to its VPC.";
    const SETTLE: Duration = ownership::READ_LAG;

    async fn observe(
        &self,
        spec: &InternetGatewaySpec,
        record: &Record<InternetGatewayOutputs>,
        context: &Context,
    ) -> Result<Seen<InternetGatewayOutputs>, StepError> {
        self.see(spec, record, context, Self::known(record)).await
    }

    async fn apply(
        &self,
        spec: &InternetGatewaySpec,
        seen: &Seen<InternetGatewayOutputs>,
        record: &Record<InternetGatewayOutputs>,
        context: &Context,
    ) -> Result<Made<InternetGatewayOutputs>, StepError> {
        let id = match start("the internet gateway", seen)? {
            Start::Create => {
                let id = self.create(spec, context).await?;
                self.attach(&id, &spec.vpc_id, context).await?;
                id
            }
            Start::Change(outputs, differences) => {
                let id = outputs.internet_gateway_id.clone();
                if touches(differences, "/vpc_id") {
                    self.attach(&id, &spec.vpc_id, context).await?;
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
        _spec: &InternetGatewaySpec,
        record: &Record<InternetGatewayOutputs>,
        context: &Context,
    ) -> Result<UndoProgress, StepError> {
        let known = Self::known(record);
        let Some(found) = find::<InternetGateway>(&self.0, context, known.as_deref()).await? else {
            let evidence = "DescribeInternetGateways by tag and id shows none of this step";
            return Ok(nothing_left(record, context, evidence));
        };
        let id = found.it.id();
        if let Ownership::Foreign(owner) = &found.ownership {
            return Ok(not_ours(record, context, id, owner));
        }
        if let Some(vpc) = attached_to(&found.it) {
            let permit = context.begin("DetachInternetGateway")?;
            let sending = self.0.ec2.detach_internet_gateway().internet_gateway_id(id).vpc_id(vpc).send();
            match change("DetachInternetGateway", &permit, sending).await {
                Ok(_) => {}
                Err(failure) if failure.is(&["Gateway.NotAttached"]) || failure.is_not_found() => {}
                Err(failure) if failure.is(&["DependencyViolation"]) => {
                    let what = format!("the attachment of {id} to {vpc}");
                    return blockers::obstacles(&self.0, context, super::ec2::filter("vpc-id", vpc), &what).await;
                }
                Err(failure) => return Err(failure.into()),
            }
        }
        let permit = context.begin("DeleteInternetGateway")?;
        let sending = self.0.ec2.delete_internet_gateway().internet_gateway_id(id).send();
        match change("DeleteInternetGateway", &permit, sending).await {
            Ok(_) => {}
            Err(failure) if failure.is_not_found() => {}
            Err(failure) => return Err(failure.into()),
        }
        Ok(match by_id::<InternetGateway>(&self.0, id).await? {
            Some(_) => going(format!("{id} is being deleted"), 2, 5),
            None => UndoProgress::Gone {
                evidence: format!(
                    "DetachInternetGateway, DeleteInternetGateway {id}; DescribeInternetGateways shows it no more"
                ),
            },
        })
    }
}
