//! `aws.nat_gateway`: the way out for private subnets. Its address is a step of its own.

use super::clients::AwsClients;
use super::ec2::{
    Filters, Found, Resource, find, finished, patient, required, restore_tags, sdk_filters, tag_specification,
};
use super::failure::{AwsFailure, change, look};
use super::ownership::{
    Differences, Start, Tags, absent, compare_tags, creation_tags, going, lasting_tags, not_ours, noted, nothing_left,
    start, terminal,
};
use crate::contract::{Made, Record, Seen, StepKind};
use async_trait::async_trait;
use aws_sdk_ec2::types::{NatGateway, NatGatewayState, ResourceType, Tag};
use platflow_engine::context::Context;
use platflow_engine::failure::StepError;
use platflow_engine::step::{Ownership, UndoProgress};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;

/// A NAT gateway.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NatGatewaySpec {
    /// Its `Name` tag.
    pub name: String,
    /// The public subnet it stands in. Cannot be changed in place.
    pub subnet_id: String,
    /// Its elastic IP address. Cannot be changed in place.
    pub allocation_id: String,
    /// Further tags.
    #[serde(default)]
    pub tags: Tags,
}

/// A NAT gateway that exists.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct NatGatewayOutputs {
    /// `nat-…`.
    pub nat_gateway_id: String,
    /// The address that traffic leaves from.
    pub public_ip: String,
}

/// See the file.
pub(super) struct NatGatewayKind(pub(super) Arc<AwsClients>);

const BUDGET: Duration = Duration::from_secs(10 * 60);

impl Resource for NatGateway {
    const WHAT: &'static str = "NAT gateway";
    const ID_FILTER: &'static str = "nat-gateway-id";

    fn id(&self) -> &str {
        self.nat_gateway_id().unwrap_or_default()
    }

    fn tags(&self) -> &[Tag] {
        self.tags()
    }

    /// A deleted one is shown for about an hour.
    fn exists(&self) -> bool {
        self.state() != Some(&NatGatewayState::Deleted)
    }

    async fn describe(aws: &AwsClients, filters: Filters) -> Result<Vec<Self>, AwsFailure> {
        let sending = aws.ec2.describe_nat_gateways().set_filter(sdk_filters(filters)).send();
        Ok(look("DescribeNatGateways", sending).await?.nat_gateways.unwrap_or_default())
    }
}

impl NatGatewayKind {
    fn known(record: &Record<NatGatewayOutputs>) -> Option<String> {
        noted(record, "nat_gateway_id")
            .or_else(|| record.outputs.as_ref().map(|outputs| outputs.nat_gateway_id.clone()))
    }

    async fn see(
        &self,
        spec: &NatGatewaySpec,
        record: &Record<NatGatewayOutputs>,
        context: &Context,
        known: Option<String>,
    ) -> Result<Seen<NatGatewayOutputs>, StepError> {
        let Some(Found { it, ownership, tags }) = find::<NatGateway>(&self.0, context, known.as_deref()).await? else {
            return Ok(absent(record, known.as_ref(), context));
        };
        let id = required("NAT gateway id", it.nat_gateway_id())?;
        match it.state() {
            Some(NatGatewayState::Available) => {}
            Some(NatGatewayState::Failed) => {
                let code = it.failure_code().unwrap_or("no failure code");
                let cause = format!("{code}: {}", it.failure_message().unwrap_or("no message"));
                return Err(terminal(id, "failed", &cause));
            }
            state => {
                let state = state.map_or("in no known state", NatGatewayState::as_str);
                let poll_in = patient(context, record.intended_at);
                return Ok(Seen::Changing { reason: format!("{id} is {state}"), poll_in });
            }
        }
        let address = it.nat_gateway_addresses().first();
        let mut differences = Differences::default();
        differences.fixed("/subnet_id", &spec.subnet_id, it.subnet_id());
        differences.fixed("/allocation_id", &spec.allocation_id, address.and_then(|address| address.allocation_id()));
        compare_tags(&mut differences, &lasting_tags(context, &spec.name, &spec.tags), &tags);
        let outputs = NatGatewayOutputs {
            nat_gateway_id: id.to_owned(),
            public_ip: address.and_then(|address| address.public_ip()).unwrap_or_default().to_owned(),
        };
        Ok(Seen::Present { outputs, ownership, differences: differences.0 })
    }

    async fn create(&self, spec: &NatGatewaySpec, context: &Context) -> Result<String, StepError> {
        let permit = context.begin("CreateNatGateway")?;
        let tags = creation_tags(context, &spec.name, &spec.tags, &permit.token);
        let request = self.0.ec2.create_nat_gateway().client_token(&permit.token);
        let sending = request
            .subnet_id(&spec.subnet_id)
            .allocation_id(&spec.allocation_id)
            .tag_specifications(tag_specification(ResourceType::Natgateway, &tags))
            .send();
        let answer = change("CreateNatGateway", &permit, sending).await?;
        let id = required("NAT gateway id", answer.nat_gateway.and_then(|gateway| gateway.nat_gateway_id))?;
        context.note("nat_gateway_id", id.clone().into()).await?;
        Ok(id)
    }
}

#[async_trait]
impl StepKind for NatGatewayKind {
    type Spec = NatGatewaySpec;
    type Outputs = NatGatewayOutputs;

    const NAME: &'static str = "aws.nat_gateway";
    const SUMMARY: &'static str = "A NAT gateway: the way out for private subnets.";
    const EXPECTED: Duration = Duration::from_secs(100);

    async fn observe(
        &self,
        spec: &NatGatewaySpec,
        record: &Record<NatGatewayOutputs>,
        context: &Context,
    ) -> Result<Seen<NatGatewayOutputs>, StepError> {
        self.see(spec, record, context, Self::known(record)).await
    }

    async fn apply(
        &self,
        spec: &NatGatewaySpec,
        seen: &Seen<NatGatewayOutputs>,
        record: &Record<NatGatewayOutputs>,
        context: &Context,
    ) -> Result<Made<NatGatewayOutputs>, StepError> {
        let id = match start("the NAT gateway", seen)? {
            Start::Create => self.create(spec, context).await?,
            Start::Change(outputs, differences) => {
                let tags = lasting_tags(context, &spec.name, &spec.tags);
                restore_tags(&self.0, context, &outputs.nat_gateway_id, differences, &tags).await?;
                outputs.nat_gateway_id.clone()
            }
        };
        Ok(finished(self.see(spec, record, context, Some(id)).await?, BUDGET))
    }

    async fn undo(
        &self,
        _spec: &NatGatewaySpec,
        record: &Record<NatGatewayOutputs>,
        context: &Context,
    ) -> Result<UndoProgress, StepError> {
        let known = Self::known(record);
        let Some(found) = find::<NatGateway>(&self.0, context, known.as_deref()).await? else {
            let evidence = "DescribeNatGateways by tag and id shows none of this step but deleted ones";
            return Ok(nothing_left(record, context, evidence));
        };
        let id = found.it.id();
        if let Ownership::Foreign(owner) = &found.ownership {
            return Ok(not_ours(record, context, id, owner));
        }
        if found.it.state() != Some(&NatGatewayState::Deleting) {
            let permit = context.begin("DeleteNatGateway")?;
            let sending = self.0.ec2.delete_nat_gateway().nat_gateway_id(id).send();
            match change("DeleteNatGateway", &permit, sending).await {
                Ok(_) => {}
                Err(failure) if failure.is_not_found() => {}
                Err(failure) => return Err(failure.into()),
            }
        }
        Ok(match super::ec2::by_id::<NatGateway>(&self.0, id).await? {
            Some(_) => going(format!("{id} is being deleted"), 5, 10),
            None => UndoProgress::Gone { evidence: format!("DeleteNatGateway {id}; DescribeNatGateways says deleted") },
        })
    }
}
