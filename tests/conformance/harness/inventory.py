"""What an account and a cluster hold, by what each thing is: to be compared before and after, and counted in between.

Of the account: everything that any step makes, and what controllers leave. Of the cluster: everything that has no
namespace, for what is in a namespace goes with it. It judges nothing.
"""

from collections.abc import Callable
from typing import Any

from harness.aws import Aws

Inventory = dict[str, list[str]]
# Lists of the cluster, and what its own controllers keep changing in them is not looked at.
LISTS = {
    "namespaces": "/api/v1/namespaces",
    "volumes": "/api/v1/persistentvolumes",
    "definitions": "/apis/apiextensions.k8s.io/v1/customresourcedefinitions",
    "storage classes": "/apis/storage.k8s.io/v1/storageclasses",
    "cluster roles": "/apis/rbac.authorization.k8s.io/v1/clusterroles",
    "cluster role bindings": "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings",
    "validating webhooks": "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations",
    "mutating webhooks": "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations",
}


def network(aws: Aws) -> Inventory:
    """What EC2 holds."""
    ask: Callable[..., Any] = lambda name, member: aws.must("ec2", name)[member]  # noqa: E731 - one line each, below
    nats = [one for one in ask("DescribeNatGateways", "NatGateways") if one["State"] not in ("deleted", "deleting")]
    return {
        "VPC": [one["VpcId"] for one in ask("DescribeVpcs", "Vpcs")],
        "subnets": [one["SubnetId"] for one in ask("DescribeSubnets", "Subnets")],
        "internet gateways": [one["InternetGatewayId"] for one in ask("DescribeInternetGateways", "InternetGateways")],
        "addresses": [one["AllocationId"] for one in ask("DescribeAddresses", "Addresses")],
        "NAT gateways": [one["NatGatewayId"] for one in nats],
        "route tables": [one["RouteTableId"] for one in ask("DescribeRouteTables", "RouteTables")],
        "security groups": [one["GroupId"] for one in ask("DescribeSecurityGroups", "SecurityGroups")],
        "launch templates": [one["LaunchTemplateId"] for one in ask("DescribeLaunchTemplates", "LaunchTemplates")],
        "interfaces": [one["NetworkInterfaceId"] for one in ask("DescribeNetworkInterfaces", "NetworkInterfaces")],
        "EBS volumes": [one["VolumeId"] for one in ask("DescribeVolumes", "Volumes")],
    }


def account(aws: Aws) -> Inventory:
    """What is there in all services; a key that waits for its deletion counts as gone."""
    clusters = aws.must("eks", "ListClusters")["clusters"]
    groups = [aws.must("eks", "ListNodegroups", clusterName=name)["nodegroups"] for name in clusters]
    keys = [aws.must("kms", "DescribeKey", KeyId=key["KeyId"])["KeyMetadata"] for key in aws.must("kms", "ListKeys")["Keys"]]
    providers = aws.must("iam", "ListOpenIDConnectProviders")["OpenIDConnectProviderList"]
    found = {
        **network(aws),
        "clusters": clusters,
        "node groups": [name for some in groups for name in some],
        "roles": [one["RoleName"] for one in aws.must("iam", "ListRoles")["Roles"]],
        "OIDC providers": [one["Arn"] for one in providers],
        "keys": [key["KeyId"] for key in keys if key["KeyState"] == "Enabled"],
        "aliases": [one["AliasName"] for one in aws.must("kms", "ListAliases")["Aliases"]],
        "log groups": [one["logGroupName"] for one in aws.must("logs", "DescribeLogGroups")["logGroups"]],
    }
    return {kind: sorted(names) for kind, names in found.items()}


def cluster(read: Callable[[str], dict]) -> Inventory:
    """What is there for the whole cluster; `read` gives the answer to a GET."""
    return {kind: sorted(one["metadata"]["name"] for one in read(path)["items"]) for kind, path in LISTS.items()}


def more(before: Inventory, after: Inventory) -> dict[str, int]:
    """How many more there are of each kind than before; kinds of which there are as many are left out."""
    counts = {kind: len(names) - len(before[kind]) for kind, names in after.items()}
    return {kind: count for kind, count in counts.items() if count}
