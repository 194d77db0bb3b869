//! What the caller may do: EC2 is asked by dry runs, everything else by a simulation of the caller's policies.
//!
//! Only actions of kinds that the run has are asked about. A dry run that is answered by anything but a refusal of the
//! permission says nothing against it: what it names need not exist.

use super::super::access_entry::session_role;
use super::super::iam_role::get_role;
use super::super::signed::{Members, Parameters, Service, parameter};
use super::{Looked, account::Account};
use crate::preflight::{Check, Family, Finding};
use futures::stream::{self, StreamExt};
use platflow_engine::failure::StepError;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};

macro_rules! permission {
    ($name:ident, $id:literal, $title:literal) => {
        static $name: Check = Check::of_world($id, Family::Permission, $title);
    };
}

permission!(NETWORK, "permission.network", "The caller may build networks, gateways, addresses and routes");
permission!(GROUPS, "permission.security-groups", "The caller may make security groups and their rules");
permission!(TEMPLATES, "permission.launch-templates", "The caller may make launch templates, and machines from them");
permission!(CLUSTERS, "permission.clusters", "The caller may make and change EKS clusters");
permission!(NODES, "permission.node-groups", "The caller may make and change node groups");
permission!(ADDONS, "permission.addons", "The caller may install add-ons");
permission!(ENTRIES, "permission.access-entries", "The caller may let principals into clusters");
permission!(ROLES, "permission.roles", "The caller may make roles with their policies");
permission!(PASS_ROLE, "permission.pass-role", "The caller may hand roles to EKS and to machines");
permission!(PROVIDERS, "permission.oidc-providers", "The caller may make OIDC providers");
permission!(KEYS, "permission.keys", "The caller may make KMS keys and aliases");
permission!(LOGS, "permission.logs", "The caller may make log groups");
permission!(
    LINKED,
    "permission.service-linked-roles",
    "The roles that EKS acts with exist, or the caller may make them"
);
permission!(UNDO, "permission.taking-back", "The caller may take away what the run makes");
permission!(SIMULATION, "permission.simulation", "The caller's policies can be simulated");

pub(super) static DRY_RUN: &[&Check] = &[&NETWORK, &GROUPS, &TEMPLATES];
pub(super) static SIMULATED: &[&Check] =
    &[&SIMULATION, &CLUSTERS, &NODES, &ADDONS, &ENTRIES, &ROLES, &PASS_ROLE, &PROVIDERS, &KEYS, &LOGS, &LINKED, &UNDO];
pub(super) static CHECKS: &[&Check] = &[
    &NETWORK,
    &GROUPS,
    &TEMPLATES,
    &CLUSTERS,
    &NODES,
    &ADDONS,
    &ENTRIES,
    &ROLES,
    &PASS_ROLE,
    &PROVIDERS,
    &KEYS,
    &LOGS,
    &LINKED,
    &UNDO,
    &SIMULATION,
];

/// So many dry runs are under way at once: EC2 throttles mutating actions, dry ones too.
const AT_ONCE: usize = 6;

/// A kind, an action that it takes, and parameters that are well-formed and name nothing.
type Dry = (&'static str, &'static Check, &'static str, &'static [(&'static str, &'static str)]);

const VPC: (&str, &str) = ("VpcId", "vpc-00000000000000000");
const SUBNET: (&str, &str) = ("SubnetId", "subnet-00000000000000000");
const TABLE: (&str, &str) = ("RouteTableId", "rtb-00000000000000000");
const GATEWAY: (&str, &str) = ("InternetGatewayId", "igw-00000000000000000");
const NAT: (&str, &str) = ("NatGatewayId", "nat-00000000000000000");
const ADDRESS: (&str, &str) = ("AllocationId", "eipalloc-00000000000000000");
const GROUP: (&str, &str) = ("GroupId", "sg-00000000000000000");
const TEMPLATE: (&str, &str) = ("LaunchTemplateId", "lt-00000000000000000");
const EVERYWHERE: (&str, &str) = ("DestinationCidrBlock", "0.0.0.0/0");

static DRY_RUNS: &[Dry] = &[
    (
        "aws.vpc",
        &NETWORK,
        "CreateTags",
        &[("ResourceId.1", "vpc-00000000000000000"), ("Tag.1.Key", "a"), ("Tag.1.Value", "b")],
    ),
    ("aws.vpc", &UNDO, "DeleteVpc", &[VPC]),
    ("aws.subnet", &NETWORK, "CreateSubnet", &[VPC, ("CidrBlock", "10.0.0.0/24")]),
    ("aws.subnet", &UNDO, "DeleteSubnet", &[SUBNET]),
    ("aws.internet_gateway", &NETWORK, "CreateInternetGateway", &[]),
    ("aws.internet_gateway", &NETWORK, "AttachInternetGateway", &[GATEWAY, VPC]),
    ("aws.internet_gateway", &UNDO, "DetachInternetGateway", &[GATEWAY, VPC]),
    ("aws.internet_gateway", &UNDO, "DeleteInternetGateway", &[GATEWAY]),
    ("aws.elastic_ip", &NETWORK, "AllocateAddress", &[("Domain", "vpc")]),
    ("aws.elastic_ip", &UNDO, "ReleaseAddress", &[ADDRESS]),
    ("aws.nat_gateway", &NETWORK, "CreateNatGateway", &[SUBNET, ADDRESS]),
    ("aws.nat_gateway", &UNDO, "DeleteNatGateway", &[NAT]),
    ("aws.route_table", &NETWORK, "CreateRouteTable", &[VPC]),
    ("aws.route_table", &NETWORK, "CreateRoute", &[TABLE, EVERYWHERE, ("GatewayId", "igw-00000000000000000")]),
    ("aws.route_table", &NETWORK, "AssociateRouteTable", &[TABLE, SUBNET]),
    ("aws.route_table", &UNDO, "DeleteRouteTable", &[TABLE]),
    ("aws.route_table", &UNDO, "DisassociateRouteTable", &[("AssociationId", "rtbassoc-00000000000000000")]),
    (
        "aws.security_group",
        &GROUPS,
        "CreateSecurityGroup",
        &[("GroupName", "preflight"), ("GroupDescription", "preflight"), VPC],
    ),
    ("aws.security_group", &GROUPS, "AuthorizeSecurityGroupIngress", &[GROUP]),
    ("aws.security_group", &GROUPS, "AuthorizeSecurityGroupEgress", &[GROUP]),
    ("aws.security_group", &GROUPS, "RevokeSecurityGroupEgress", &[GROUP]),
    ("aws.security_group", &UNDO, "DeleteSecurityGroup", &[GROUP]),
    (
        "aws.launch_template",
        &TEMPLATES,
        "CreateLaunchTemplate",
        &[("LaunchTemplateName", "preflight"), ("LaunchTemplateData.EbsOptimized", "true")],
    ),
    (
        "aws.launch_template",
        &TEMPLATES,
        "CreateLaunchTemplateVersion",
        &[TEMPLATE, ("LaunchTemplateData.EbsOptimized", "true")],
    ),
    ("aws.launch_template", &UNDO, "DeleteLaunchTemplate", &[TEMPLATE]),
];

/// A kind and the actions that it takes, by check.
type Simulated = (&'static str, &'static Check, &'static [&'static str]);

static SIMULATIONS: &[Simulated] = &[
    // Changes of attributes take no dry run, and there are servers that make a VPC in spite of one.
    ("aws.vpc", &NETWORK, &["ec2:CreateVpc", "ec2:ModifyVpcAttribute"]),
    ("aws.subnet", &NETWORK, &["ec2:ModifySubnetAttribute"]),
    ("aws.node_group", &TEMPLATES, &["ec2:RunInstances"]),
    (
        "aws.eks_cluster",
        &CLUSTERS,
        &[
            "eks:CreateCluster",
            "eks:DescribeCluster",
            "eks:TagResource",
            "eks:UpdateClusterConfig",
            "eks:UpdateClusterVersion",
        ],
    ),
    ("aws.eks_cluster", &PASS_ROLE, &["iam:PassRole"]),
    ("aws.eks_cluster", &UNDO, &["eks:DeleteCluster"]),
    ("aws.node_group", &NODES, &["eks:CreateNodegroup", "eks:UpdateNodegroupConfig", "eks:UpdateNodegroupVersion"]),
    ("aws.node_group", &PASS_ROLE, &["iam:PassRole"]),
    ("aws.node_group", &UNDO, &["eks:DeleteNodegroup"]),
    ("aws.addon", &ADDONS, &["eks:CreateAddon", "eks:UpdateAddon"]),
    ("aws.addon", &UNDO, &["eks:DeleteAddon"]),
    ("aws.access_entry", &ENTRIES, &["eks:CreateAccessEntry", "eks:AssociateAccessPolicy"]),
    ("aws.access_entry", &UNDO, &["eks:DeleteAccessEntry"]),
    ("aws.iam_role", &ROLES, &["iam:CreateRole", "iam:TagRole", "iam:AttachRolePolicy", "iam:PutRolePolicy"]),
    ("aws.iam_role", &UNDO, &["iam:DeleteRole", "iam:DetachRolePolicy", "iam:DeleteRolePolicy"]),
    ("aws.oidc_provider", &PROVIDERS, &["iam:CreateOpenIDConnectProvider", "iam:TagOpenIDConnectProvider"]),
    ("aws.oidc_provider", &UNDO, &["iam:DeleteOpenIDConnectProvider"]),
    ("aws.kms_key", &KEYS, &["kms:CreateKey", "kms:CreateAlias", "kms:EnableKeyRotation", "kms:TagResource"]),
    ("aws.kms_key", &UNDO, &["kms:ScheduleKeyDeletion", "kms:DeleteAlias"]),
    ("aws.log_group", &LOGS, &["logs:CreateLogGroup", "logs:PutRetentionPolicy"]),
    ("aws.environment_hold", &LOGS, &["logs:CreateLogGroup"]),
    ("aws.log_group", &UNDO, &["logs:DeleteLogGroup"]),
];

/// Roles that AWS makes by itself for whoever may have them made
/// (<https://docs.aws.amazon.com/eks/latest/userguide/using-service-linked-roles.html>).
const LINKED_ROLES: [(&str, &str); 2] =
    [("aws.eks_cluster", "AWSServiceRoleForAmazonEKS"), ("aws.node_group", "AWSServiceRoleForAmazonEKSNodegroup")];
const MAKE_LINKED: &str = "iam:CreateServiceLinkedRole";

fn denied(check: &'static Check, actions: &[String]) -> Finding {
    let evidence = format!("the caller may not {}", actions.join(", "));
    let remedy = format!("allow these actions to the caller: {}", actions.join(", "));
    if check == &UNDO {
        return check.warning(
            evidence,
            "what the run makes could not be rolled back or destroyed by this caller",
            remedy,
        );
    }
    check.blocker(evidence, "the run would stop half-way, with resources left", remedy)
}

fn grouped(denied_actions: Vec<(&'static Check, String)>) -> Vec<Finding> {
    let mut by_check: BTreeMap<&str, (&'static Check, BTreeSet<String>)> = BTreeMap::new();
    for (check, action) in denied_actions {
        by_check.entry(check.id).or_insert_with(|| (check, BTreeSet::new())).1.insert(action);
    }
    by_check.into_values().map(|(check, actions)| denied(check, &actions.into_iter().collect::<Vec<_>>())).collect()
}

pub(super) async fn dry_runs(account: &Account<'_>) -> Looked {
    let wanted: Vec<&'static Dry> = DRY_RUNS.iter().filter(|(kind, ..)| account.subject.has(kind)).collect();
    let asked = wanted.into_iter().map(|(_, check, action, given)| async move {
        let parameters: Parameters = given.iter().map(|(name, value)| parameter(name, *value)).collect();
        let answer = account.aws.signed.dry_run(action, &parameters).await;
        let refused = answer.is_err_and(|failure| failure.is(&["UnauthorizedOperation", "AccessDenied"]));
        refused.then(|| (*check, format!("ec2:{action}")))
    });
    let asked: Vec<_> = asked.collect();
    let refused: Vec<Option<(&'static Check, String)>> = stream::iter(asked).buffer_unordered(AT_ONCE).collect().await;
    Ok(grouped(refused.into_iter().flatten().collect()))
}

#[derive(Deserialize)]
struct SimulateAnswer {
    #[serde(rename = "SimulatePrincipalPolicyResult")]
    result: SimulateResult,
}

#[derive(Deserialize)]
struct SimulateResult {
    #[serde(rename = "EvaluationResults", default)]
    results: Members<Evaluation>,
    #[serde(rename = "Marker", default)]
    marker: Option<String>,
}

#[derive(Deserialize)]
struct Evaluation {
    #[serde(rename = "EvalActionName")]
    action: String,
    #[serde(rename = "EvalDecision")]
    decision: String,
    #[serde(rename = "MissingContextValues", default)]
    missing: Members<String>,
}

/// Actions that the policies of a principal refuse. What hangs on a condition that only the real call fulfils is not
/// counted as refused.
async fn simulate(
    account: &Account<'_>,
    principal: &str,
    actions: &BTreeSet<&str>,
) -> Result<BTreeSet<String>, StepError> {
    let numbered =
        actions.iter().enumerate().map(|(at, action)| parameter(&format!("ActionNames.member.{}", at + 1), *action));
    let asked: Parameters = [parameter("PolicySourceArn", principal)].into_iter().chain(numbered).collect();
    let (mut refused, mut marker) = (BTreeSet::new(), None::<String>);
    // One page holds a hundred actions; a marker that never ends is no answer.
    for _ in 0..10 {
        let page = marker.take().map(|marker| parameter("Marker", marker));
        let parameters: Parameters = asked.iter().cloned().chain(page).collect();
        let answer: SimulateAnswer =
            account.aws.signed.ask(Service::Iam, "SimulatePrincipalPolicy", &parameters).await?;
        let result = answer.result;
        let of_page = result.results.member.into_iter();
        refused.extend(
            of_page
                .filter(|one| {
                    one.decision == "explicitDeny" || (one.decision == "implicitDeny" && one.missing.member.is_empty())
                })
                .map(|one| one.action),
        );
        marker = result.marker.filter(|marker| !marker.is_empty());
        if marker.is_none() {
            break;
        }
    }
    Ok(refused)
}

pub(super) async fn simulated(account: &Account<'_>) -> Looked {
    let wanted: Vec<&'static Simulated> = SIMULATIONS.iter().filter(|(kind, ..)| account.subject.has(kind)).collect();
    let mut actions: BTreeSet<&str> = wanted.iter().flat_map(|(_, _, actions)| actions.iter().copied()).collect();
    if actions.is_empty() {
        return Ok(Vec::new());
    }
    actions.insert(MAKE_LINKED);
    let arn = account.aws.identity.arn.as_str();
    let principal = match session_role(arn) {
        Some(role) => match get_role(account.aws, role).await? {
            Some(role) => role.arn,
            None => return Ok(vec![not_simulated(&format!("the role behind {arn} is not visible to IAM"))]),
        },
        None => arn.to_owned(),
    };
    let refused = match simulate(account, &principal, &actions).await {
        Ok(refused) => refused,
        Err(error) => return Ok(vec![not_simulated(&error.to_string())]),
    };
    let denied_actions = wanted.iter().flat_map(|(_, check, actions)| {
        let refused = &refused;
        actions
            .iter()
            .filter(move |action| refused.contains(**action))
            .map(move |action| (*check, (*action).to_owned()))
    });
    let mut found = grouped(denied_actions.collect());
    if refused.contains(MAKE_LINKED) {
        for (_, role) in LINKED_ROLES.iter().filter(|(kind, _)| account.subject.has(kind)) {
            if get_role(account.aws, role).await?.is_none() {
                found.push(LINKED.blocker(
                    format!("the role {role} does not exist, and the caller may not {MAKE_LINKED}"),
                    "EKS acts in the account with it, and refuses to begin without",
                    format!(
                        "allow {MAKE_LINKED}, or have an administrator make it once: aws iam create-service-linked-role"
                    ),
                ));
            }
        }
    }
    Ok(found)
}

fn not_simulated(why: &str) -> Finding {
    SIMULATION.note(
        format!("the caller's policies could not be simulated: {why}"),
        "a missing permission of EKS, IAM, KMS or Logs shows only when the run needs it",
        "allow iam:SimulatePrincipalPolicy and iam:GetRole to the caller",
    )
}
