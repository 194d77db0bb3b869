//! Why machines of a node group that run have not joined their cluster: what can be read from outside of them. EKS itself
//! says for a quarter of an hour that it is creating the group, and then that it failed.

use super::clients::AwsClients;
use super::ec2::{Resource, filter};
use super::failure::look;
use super::node_group::NodeGroupSpec;
use aws_sdk_ec2::types::RouteTable;

/// The add-on without which no node becomes ready.
const NETWORK: &str = "vpc-cni";

/// What is known of machines that were launched and have not joined. Reads only; what cannot be read is left out.
pub(super) async fn diagnosis(aws: &AwsClients, spec: &NodeGroupSpec, machines: &[String]) -> String {
    let mut found = Vec::new();
    for subnet in &spec.subnet_ids {
        if let Some(false) = has_way_out(aws, subnet).await {
            found.push(format!("subnet {subnet} has no route to anywhere outside of its VPC"));
        }
    }
    found.extend(network_add_on(aws, &spec.cluster_name).await);
    let what = format!("{} machine(s) run and have not joined the cluster ({})", machines.len(), machines.join(", "));
    match (found.is_empty(), machines.first()) {
        (false, _) => format!("{what}: {}", found.join("; ")),
        (true, Some(machine)) => format!(
            "{what}; routes and network add-on are in order: see what a machine says by aws ec2 get-console-output --latest --instance-id {machine}"
        ),
        (true, None) => what,
    }
}

/// None when it cannot be told: a subnet without a table of its own follows the main one.
async fn has_way_out(aws: &AwsClients, subnet: &str) -> Option<bool> {
    let tables = RouteTable::describe(aws, vec![filter("association.subnet-id", subnet)]).await.ok()?;
    let everywhere = |table: &RouteTable| {
        table.routes().iter().any(|route| {
            route.destination_cidr_block() == Some("0.0.0.0/0")
                && route.state() == Some(&aws_sdk_ec2::types::RouteState::Active)
        })
    };
    tables.first().map(everywhere)
}

async fn network_add_on(aws: &AwsClients, cluster: &str) -> Option<String> {
    let sending = aws.eks.describe_addon().cluster_name(cluster).addon_name(NETWORK).send();
    match look("DescribeAddon", sending).await {
        Ok(answer) => {
            let status = answer.addon?.status?;
            let fine = status.as_str() == "ACTIVE";
            (!fine).then(|| format!("the network add-on {NETWORK} is {}", status.as_str()))
        }
        Err(failure) if failure.is_not_found() => Some(format!("the network add-on {NETWORK} is not installed")),
        Err(_) => None,
    }
}
