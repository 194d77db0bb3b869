//! `aws.route_table`: a route table with its routes and the subnets that use it.

use super::clients::AwsClients;
use super::ec2::{
    Filters, Found, Resource, SHORT, by_id, find, finished, required, restore_tags, sdk_filters, tag_specification,
};
use super::failure::{AwsFailure, change, look};
use super::ownership::{
    Differences, Start, Tags, absent, compare_tags, creation_tags, going, lasting_tags, not_ours, noted, nothing_left,
    start,
};
use crate::contract::{Made, Record, Seen, StepKind};
use async_trait::async_trait;
use aws_sdk_ec2::types::{ResourceType, RouteOrigin, RouteState, RouteTable, Tag};
use platflow_engine::context::Context;
use platflow_engine::failure::{Residue, StepError};
use platflow_engine::step::{Ownership, UndoProgress};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// A route table.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RouteTableSpec {
    /// Its `Name` tag.
    pub name: String,
    /// The VPC it is in. Cannot be changed in place.
    pub vpc_id: String,
    /// The subnets that use it.
    #[serde(default)]
    pub subnet_ids: BTreeSet<String>,
    /// Its routes, besides the local one.
    #[serde(default)]
    pub routes: Vec<RouteSpec>,
    /// Further tags.
    #[serde(default)]
    pub tags: Tags,
}

/// A route: exactly one target.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RouteSpec {
    /// Destination range, for example `0.0.0.0/0`.
    pub destination: String,
    /// Target: an internet gateway.
    #[serde(default)]
    pub internet_gateway_id: Option<String>,
    /// Target: a NAT gateway.
    #[serde(default)]
    pub nat_gateway_id: Option<String>,
}

/// A route table that exists.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct RouteTableOutputs {
    /// `rtb-…`.
    pub route_table_id: String,
}

/// See the file.
pub(super) struct RouteTableKind(pub(super) Arc<AwsClients>);

impl Resource for RouteTable {
    const WHAT: &'static str = "route table";
    const ID_FILTER: &'static str = "route-table-id";

    fn id(&self) -> &str {
        self.route_table_id().unwrap_or_default()
    }

    fn tags(&self) -> &[Tag] {
        self.tags()
    }

    async fn describe(aws: &AwsClients, filters: Filters) -> Result<Vec<Self>, AwsFailure> {
        let sending = aws.ec2.describe_route_tables().set_filters(sdk_filters(filters)).send();
        Ok(look("DescribeRouteTables", sending).await?.route_tables.unwrap_or_default())
    }
}

impl RouteSpec {
    fn target(&self) -> Result<&str, StepError> {
        match (&self.internet_gateway_id, &self.nat_gateway_id) {
            (Some(target), None) | (None, Some(target)) => Ok(target),
            _ => Err(StepError::permanent(format!(
                "the route to {} needs exactly one of internet_gateway_id and nat_gateway_id",
                self.destination
            ))
            .leaving(Residue::None)),
        }
    }
}

fn wanted_routes(spec: &RouteTableSpec) -> Result<BTreeMap<String, String>, StepError> {
    spec.routes.iter().map(|route| Ok((route.destination.clone(), route.target()?.to_owned()))).collect()
}

/// Routes that were put there, by destination; a dead one (its target is gone) shows as such.
fn found_routes(table: &RouteTable) -> BTreeMap<String, String> {
    let placed = table.routes().iter().filter(|route| route.origin() != Some(&RouteOrigin::CreateRouteTable));
    placed
        .filter_map(|route| {
            let destination = route.destination_cidr_block().or(route.destination_ipv6_cidr_block())?;
            let target = [
                route.nat_gateway_id(),
                route.gateway_id(),
                route.transit_gateway_id(),
                route.network_interface_id(),
                route.vpc_peering_connection_id(),
            ];
            let target = target.into_iter().flatten().next().unwrap_or("unknown");
            let dead = route.state() == Some(&RouteState::Blackhole);
            let target = if dead { format!("blackhole {target}") } else { target.to_owned() };
            (target != "local").then(|| (destination.to_owned(), target))
        })
        .collect()
}

/// Routes in the shape of the spec.
fn shown(routes: &BTreeMap<String, String>) -> Vec<Value> {
    let target = |target: &String| if target.contains("nat-") { "nat_gateway_id" } else { "internet_gateway_id" };
    routes.iter().map(|(to, through)| json!({"destination": to, target(through): through})).collect()
}

/// Subnets that use the table, with the id of the association.
fn found_subnets(table: &RouteTable) -> BTreeMap<String, String> {
    let associations = table.associations().iter();
    associations
        .filter_map(|one| Some((one.subnet_id()?.to_owned(), one.route_table_association_id()?.to_owned())))
        .collect()
}

impl RouteTableKind {
    fn known(record: &Record<RouteTableOutputs>) -> Option<String> {
        noted(record, "route_table_id")
            .or_else(|| record.outputs.as_ref().map(|outputs| outputs.route_table_id.clone()))
    }

    async fn see(
        &self,
        spec: &RouteTableSpec,
        record: &Record<RouteTableOutputs>,
        context: &Context,
        known: Option<String>,
    ) -> Result<Seen<RouteTableOutputs>, StepError> {
        let Some(Found { it, ownership, tags }) = find::<RouteTable>(&self.0, context, known.as_deref()).await? else {
            return Ok(absent(record, known.as_ref(), context));
        };
        let mut differences = Differences::default();
        differences.fixed("/vpc_id", &spec.vpc_id, it.vpc_id());
        differences.field("/routes", shown(&wanted_routes(spec)?), shown(&found_routes(&it)));
        differences.field("/subnet_ids", &spec.subnet_ids, found_subnets(&it).keys().collect::<Vec<_>>());
        compare_tags(&mut differences, &lasting_tags(context, &spec.name, &spec.tags), &tags);
        let outputs = RouteTableOutputs { route_table_id: required("route table id", it.route_table_id())?.to_owned() };
        Ok(Seen::Present { outputs, ownership, differences: differences.0 })
    }

    async fn create(&self, spec: &RouteTableSpec, context: &Context) -> Result<String, StepError> {
        let permit = context.begin("CreateRouteTable")?;
        let tags = creation_tags(context, &spec.name, &spec.tags, &permit.token);
        let request = self.0.ec2.create_route_table().client_token(&permit.token).vpc_id(&spec.vpc_id);
        let sending = request.tag_specifications(tag_specification(ResourceType::RouteTable, &tags)).send();
        let answer = change("CreateRouteTable", &permit, sending).await?;
        let id = required("route table id", answer.route_table.and_then(|table| table.route_table_id))?;
        context.note("route_table_id", id.clone().into()).await?;
        Ok(id)
    }

    async fn route(
        &self,
        id: &str,
        route: &RouteSpec,
        existing: Option<&String>,
        context: &Context,
    ) -> Result<(), StepError> {
        let target = route.target()?;
        if existing.map(String::as_str) == Some(target) {
            return Ok(());
        }
        if existing.is_none() {
            let permit = context.begin(&format!("CreateRoute/{}", route.destination))?;
            let sending = self
                .0
                .ec2
                .create_route()
                .route_table_id(id)
                .destination_cidr_block(&route.destination)
                .set_gateway_id(route.internet_gateway_id.clone())
                .set_nat_gateway_id(route.nat_gateway_id.clone())
                .send();
            match change("CreateRoute", &permit, sending).await {
                Ok(_) => return Ok(()),
                // It is there after all, perhaps with another target: replacing sets what is wanted.
                Err(failure) if failure.is(&["RouteAlreadyExists"]) => {}
                Err(failure) => return Err(failure.into()),
            }
        }
        let permit = context.begin(&format!("ReplaceRoute/{}", route.destination))?;
        let sending = self
            .0
            .ec2
            .replace_route()
            .route_table_id(id)
            .destination_cidr_block(&route.destination)
            .set_gateway_id(route.internet_gateway_id.clone())
            .set_nat_gateway_id(route.nat_gateway_id.clone())
            .send();
        change("ReplaceRoute", &permit, sending).await?;
        Ok(())
    }

    async fn associate(&self, id: &str, subnet: &str, context: &Context) -> Result<(), StepError> {
        let permit = context.begin(&format!("AssociateRouteTable/{subnet}"))?;
        let sending = self.0.ec2.associate_route_table().route_table_id(id).subnet_id(subnet).send();
        match change("AssociateRouteTable", &permit, sending).await {
            Ok(_) => Ok(()),
            Err(failure) if failure.is(&["Resource.AlreadyAssociated"]) => {
                match by_id::<RouteTable>(&self.0, id).await? {
                    Some(table) if found_subnets(&table).contains_key(subnet) => Ok(()),
                    _ => Err(failure.into()),
                }
            }
            Err(failure) => Err(failure.into()),
        }
    }

    async fn disassociate(&self, association: &str, context: &Context) -> Result<(), StepError> {
        let permit = context.begin(&format!("DisassociateRouteTable/{association}"))?;
        let sending = self.0.ec2.disassociate_route_table().association_id(association).send();
        match change("DisassociateRouteTable", &permit, sending).await {
            Ok(_) => Ok(()),
            Err(failure) if failure.is_not_found() => Ok(()),
            Err(failure) => Err(failure.into()),
        }
    }

    /// Routes and associations are states to be set: each call may be repeated.
    async fn settle(
        &self,
        spec: &RouteTableSpec,
        id: &str,
        present: Option<&RouteTable>,
        context: &Context,
    ) -> Result<(), StepError> {
        let wanted = wanted_routes(spec)?;
        let routes = present.map(found_routes).unwrap_or_default();
        let subnets = present.map(found_subnets).unwrap_or_default();
        for route in &spec.routes {
            self.route(id, route, routes.get(&route.destination), context).await?;
        }
        for destination in routes.keys().filter(|destination| !wanted.contains_key(*destination)) {
            let permit = context.begin(&format!("DeleteRoute/{destination}"))?;
            let sending = self.0.ec2.delete_route().route_table_id(id).destination_cidr_block(destination).send();
            change("DeleteRoute", &permit, sending).await?;
        }
        for subnet in spec.subnet_ids.iter().filter(|subnet| !subnets.contains_key(*subnet)) {
            self.associate(id, subnet, context).await?;
        }
        for (_, association) in subnets.iter().filter(|(subnet, _)| !spec.subnet_ids.contains(*subnet)) {
            self.disassociate(association, context).await?;
        }
        Ok(())
    }
}

#[async_trait]
impl StepKind for RouteTableKind {
    type Spec = RouteTableSpec;
    type Outputs = RouteTableOutputs;

    const NAME: &'static str = "aws.route_table";
    const SUMMARY: &'static str = "A route table with its routes and the subnets that use it.";
    const EXPECTED: Duration = Duration::from_secs(4);

    async fn observe(
        &self,
        spec: &RouteTableSpec,
        record: &Record<RouteTableOutputs>,
        context: &Context,
    ) -> Result<Seen<RouteTableOutputs>, StepError> {
        self.see(spec, record, context, Self::known(record)).await
    }

    async fn apply(
        &self,
        spec: &RouteTableSpec,
        seen: &Seen<RouteTableOutputs>,
        record: &Record<RouteTableOutputs>,
        context: &Context,
    ) -> Result<Made<RouteTableOutputs>, StepError> {
        wanted_routes(spec)?;
        let id = match start("the route table", seen)? {
            Start::Create => {
                let id = self.create(spec, context).await?;
                self.settle(spec, &id, None, context).await?;
                id
            }
            Start::Change(outputs, differences) => {
                let id = outputs.route_table_id.clone();
                let present = by_id::<RouteTable>(&self.0, &id).await?;
                self.settle(spec, &id, present.as_ref(), context).await?;
                let tags = lasting_tags(context, &spec.name, &spec.tags);
                restore_tags(&self.0, context, &id, differences, &tags).await?;
                id
            }
        };
        Ok(finished(self.see(spec, record, context, Some(id)).await?, SHORT))
    }

    async fn undo(
        &self,
        _spec: &RouteTableSpec,
        record: &Record<RouteTableOutputs>,
        context: &Context,
    ) -> Result<UndoProgress, StepError> {
        let known = Self::known(record);
        let Some(found) = find::<RouteTable>(&self.0, context, known.as_deref()).await? else {
            return Ok(nothing_left(record, context, "DescribeRouteTables by tag and id shows none of this step"));
        };
        let id = found.it.id();
        if let Ownership::Foreign(owner) = &found.ownership {
            return Ok(not_ours(record, context, id, owner));
        }
        for association in found_subnets(&found.it).values() {
            self.disassociate(association, context).await?;
        }
        let permit = context.begin("DeleteRouteTable")?;
        match change("DeleteRouteTable", &permit, self.0.ec2.delete_route_table().route_table_id(id).send()).await {
            Ok(_) => {}
            Err(failure) if failure.is_not_found() => {}
            Err(failure) => return Err(failure.into()),
        }
        Ok(match by_id::<RouteTable>(&self.0, id).await? {
            Some(_) => going(format!("{id} is being deleted"), 2, 5),
            None => UndoProgress::Gone {
                evidence: format!(
                    "DisassociateRouteTable, DeleteRouteTable {id}; DescribeRouteTables shows it no more"
                ),
            },
        })
    }
}
