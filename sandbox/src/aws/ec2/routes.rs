//! Route tables, routes and their associations.

#![expect(
    clippy::indexing_slicing,
    reason = "reading a JSON value never panics, and every one that is written here is an object of our own making"
)]

use serde_json::{Value, json};

use super::super::wire::{Refusal, need, text};
use super::super::{Answer, Call};
use super::{existing, network, shown, specified};

const NOT_FOUND: &str = "InvalidRouteTableID.NotFound";

pub(super) fn create_table(call: &mut Call<'_>, input: &Value) -> Answer {
    let vpc = need(input, "VpcId")?.to_owned();
    let cidr = existing(call, "ec2:vpc", &vpc, "InvalidVpcID.NotFound")?.text("/cidrBlock").to_owned();
    let id = call.id("rtb");
    let body = json!({
        "routeTableId": id, "vpcId": vpc, "ownerId": call.account(), "associationSet": [], "propagatingVgwSet": [],
        "routeSet": [{"destinationCidrBlock": cidr, "gatewayId": "local", "state": "active", "origin": "CreateRouteTable"}],
    });
    let record = call.record("ec2:route-table", &id, body, specified(input, "route-table"));
    let answer = json!({"routeTable": shown(&record.body, &record.tags), "clientToken": text(input, "/ClientToken")});
    call.state.put(record);
    Ok(answer)
}

fn list<'a>(call: &'a mut Call<'_>, id: &str, name: &str) -> Result<&'a mut Vec<Value>, Refusal> {
    existing(call, "ec2:route-table", id, NOT_FOUND)?
        .body
        .get_mut(name)
        .and_then(Value::as_array_mut)
        .ok_or_else(|| Refusal::new(500, "InternalError", "the route table is damaged"))
}

pub(super) fn create_route(call: &mut Call<'_>, input: &Value, replace: bool) -> Answer {
    let (id, destination) = (need(input, "RouteTableId")?, need(input, "DestinationCidrBlock")?);
    let vpc = existing(call, "ec2:route-table", id, NOT_FOUND)?.text("/vpcId").to_owned();
    network::block(destination).ok_or_else(|| network::no_block(destination, "destinationCidrBlock"))?;
    let (gateway, nat) = (text(input, "/GatewayId"), text(input, "/NatGatewayId"));
    let mut route = json!({"destinationCidrBlock": destination, "state": "active", "origin": "CreateRoute"});
    if !gateway.is_empty() {
        let found = existing(call, "ec2:internet-gateway", gateway, "InvalidGatewayID.NotFound")?;
        if found.text("/attachmentSet/0/vpcId") != vpc {
            return Err(Refusal::bad(
                "InvalidParameterValue",
                format!("route table {id} and network gateway {gateway} belong to different networks"),
            ));
        }
        route["gatewayId"] = json!(gateway);
    } else if !nat.is_empty() {
        if !matches!(
            existing(call, "ec2:nat-gateway", nat, "InvalidNatGatewayID.NotFound")?.text("/state"),
            "pending" | "available"
        ) {
            return Err(Refusal::bad(
                "InvalidNatGatewayID.NotFound",
                format!("The natGateway ID '{nat}' does not exist"),
            ));
        }
        route["natGatewayId"] = json!(nat);
    } else {
        return Err(Refusal::bad(
            "MissingParameter",
            "The request must contain exactly one of gatewayId, natGatewayId",
        ));
    }
    let routes = list(call, id, "routeSet")?;
    match (routes.iter_mut().find(|one| text(one, "/destinationCidrBlock") == destination), replace) {
        (Some(old), true) => *old = route,
        (Some(old), false) if *old == route => {}
        (Some(_), false) => {
            return Err(Refusal::bad(
                "RouteAlreadyExists",
                format!("The route identified by {destination} already exists."),
            ));
        }
        (None, true) => {
            return Err(Refusal::bad(
                "InvalidParameterValue",
                format!("There is no route defined for '{destination}' in the route table."),
            ));
        }
        (None, false) => routes.push(route),
    }
    Ok(json!({"return": true}))
}

pub(super) fn delete_route(call: &mut Call<'_>, input: &Value) -> Answer {
    let (id, destination) = (need(input, "RouteTableId")?, need(input, "DestinationCidrBlock")?);
    let routes = list(call, id, "routeSet")?;
    let is_it = |one: &Value| text(one, "/destinationCidrBlock") == destination;
    if routes.iter().any(|one| is_it(one) && text(one, "/gatewayId") == "local") {
        let message = format!("cannot remove local route {destination} in route table {id}");
        return Err(Refusal::bad("InvalidParameterValue", message));
    }
    let before = routes.len();
    routes.retain(|one| !is_it(one));
    if routes.len() == before {
        return Err(Refusal::bad(
            "InvalidRoute.NotFound",
            format!("no route with destination-cidr-block {destination} in route table {id}"),
        ));
    }
    Ok(json!({"return": true}))
}

pub(super) fn associate(call: &mut Call<'_>, input: &Value) -> Answer {
    let (id, subnet) = (need(input, "RouteTableId")?.to_owned(), need(input, "SubnetId")?.to_owned());
    let vpc = existing(call, "ec2:subnet", &subnet, "InvalidSubnetID.NotFound")?.text("/vpcId").to_owned();
    if existing(call, "ec2:route-table", &id, NOT_FOUND)?.text("/vpcId") != vpc {
        return Err(Refusal::bad(
            "InvalidParameterValue",
            format!("Route table {id} and subnet {subnet} belong to different networks"),
        ));
    }
    let known = call
        .all("ec2:route-table")
        .find_map(|record| association(&record.body, "subnetId", &subnet).map(|found| (record.id.clone(), found)));
    if let Some((table, found)) = known {
        if table == id {
            return Ok(json!({"associationId": found, "associationState": {"state": "associated"}}));
        }
        return Err(Refusal::bad(
            "Resource.AlreadyAssociated",
            format!("the specified association for route table {id} conflicts with an existing association"),
        ));
    }
    let association = call.id("rtbassoc");
    list(call, &id, "associationSet")?.push(json!({"routeTableAssociationId": association, "routeTableId": id, "subnetId": subnet, "main": false, "associationState": {"state": "associated"}}));
    Ok(json!({"associationId": association, "associationState": {"state": "associated"}}))
}

fn association(body: &Value, field: &str, value: &str) -> Option<String> {
    let list = body.get("associationSet")?.as_array()?;
    let found = list.iter().find(|one| one.get(field).and_then(Value::as_str) == Some(value))?;
    Some(text(found, "/routeTableAssociationId").to_owned())
}

pub(super) fn disassociate(call: &mut Call<'_>, input: &Value) -> Answer {
    let wanted = need(input, "AssociationId")?;
    let table = call
        .all("ec2:route-table")
        .find(|record| association(&record.body, "routeTableAssociationId", wanted).is_some())
        .map(|record| record.id.clone());
    let Some(table) = table else {
        return Err(Refusal::bad(
            "InvalidAssociationID.NotFound",
            format!("The association ID '{wanted}' does not exist"),
        ));
    };
    let links = list(call, &table, "associationSet")?;
    if links.iter().any(|one| text(one, "/routeTableAssociationId") == wanted && one["main"] == json!(true)) {
        let message = format!("cannot disassociate the main route table association {wanted}");
        return Err(Refusal::bad("InvalidParameterValue", message));
    }
    links.retain(|one| text(one, "/routeTableAssociationId") != wanted);
    Ok(json!({"return": true}))
}

pub(super) fn delete_table(call: &mut Call<'_>, input: &Value) -> Answer {
    let id = need(input, "RouteTableId")?;
    if !list(call, id, "associationSet")?.is_empty() {
        return Err(Refusal::bad(
            "DependencyViolation",
            format!("The routeTable '{id}' has dependencies and cannot be deleted."),
        ));
    }
    call.remove("ec2:route-table", id);
    Ok(json!({"return": true}))
}

/// Routes to a gateway that is gone stay, and lead nowhere.
pub(in super::super) fn blackhole(call: &mut Call<'_>, field: &str, id: &str) {
    let tables: Vec<String> = call.all("ec2:route-table").map(|record| record.id.clone()).collect();
    for table in tables {
        for route in list(call, &table, "routeSet").into_iter().flatten() {
            if route.get(field).and_then(Value::as_str) == Some(id) {
                route["state"] = json!("blackhole");
            }
        }
    }
}

/// Whether machines in a subnet reach the internet: its table (or the main one) leads to a NAT or internet gateway that is there.
pub(in super::super) fn has_way_out(call: &Call<'_>, subnet: &str) -> bool {
    let vpc = call.get("ec2:subnet", subnet).map(|record| record.text("/vpcId").to_owned()).unwrap_or_default();
    let explicit = call.all("ec2:route-table").find(|record| association(&record.body, "subnetId", subnet).is_some());
    let main = || call.all("ec2:route-table").find(|record| record.system && record.text("/vpcId") == vpc);
    let routes = explicit
        .or_else(main)
        .and_then(|record| record.body.get("routeSet"))
        .and_then(Value::as_array)
        .cloned()
        .unwrap_or_default();
    routes.iter().any(|route| {
        let nat = call
            .get("ec2:nat-gateway", text(route, "/natGatewayId"))
            .is_some_and(|record| record.text("/state") == "available");
        text(route, "/destinationCidrBlock") == "0.0.0.0/0"
            && text(route, "/state") == "active"
            && (nat || text(route, "/gatewayId").starts_with("igw-"))
    })
}
