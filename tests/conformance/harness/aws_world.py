"""What suites build in an account before they look at it: a network, a role, a cluster. Works at any endpoint."""

import dataclasses
import itertools
import json

from harness.aws import Aws
from harness.polling import until

SERVICE_ROLES = {"eks.amazonaws.com": "AmazonEKSClusterPolicy", "ec2.amazonaws.com": "AmazonEKSWorkerNodePolicy"}


def trust(service: str) -> str:
    """A trust policy for one service."""
    statement = {"Effect": "Allow", "Principal": {"Service": service}, "Action": "sts:AssumeRole"}
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]})


def named(resource: str, name: str) -> list[dict]:
    """`TagSpecifications` that name a resource."""
    return [{"ResourceType": resource, "Tags": [{"Key": "Name", "Value": name}]}]


@dataclasses.dataclass
class Network:
    """A VPC with subnets in two zones and a way out."""

    vpc: str
    subnets: list[str]
    gateway: str


class Builder:
    """Makes things under names of their own, so that cases do not stand in each other's way."""

    def __init__(self, aws: Aws):
        self.aws = aws
        self._count = itertools.count(1)

    def name(self, what: str) -> str:
        return f"{what}-{next(self._count)}"

    def vpc(self, cidr: str = "10.0.0.0/16") -> str:
        answer = self.aws.must("ec2", "CreateVpc", CidrBlock=cidr, TagSpecifications=named("vpc", self.name("vpc")))
        return answer["Vpc"]["VpcId"]

    def zones(self) -> list[str]:
        answer = self.aws.must("ec2", "DescribeAvailabilityZones")
        return [zone["ZoneId"] for zone in answer["AvailabilityZones"]]

    def subnet(self, vpc: str, cidr: str, zone: str) -> str:
        answer = self.aws.must("ec2", "CreateSubnet", VpcId=vpc, CidrBlock=cidr, AvailabilityZoneId=zone)
        return answer["Subnet"]["SubnetId"]

    def gateway(self, vpc: str | None = None) -> str:
        answer = self.aws.must("ec2", "CreateInternetGateway")
        gateway = answer["InternetGateway"]["InternetGatewayId"]
        if vpc:
            self.aws.must("ec2", "AttachInternetGateway", InternetGatewayId=gateway, VpcId=vpc)
        return gateway

    def network(self) -> Network:
        vpc = self.vpc()
        first, second = self.zones()[:2]
        subnets = [self.subnet(vpc, "10.0.0.0/24", first), self.subnet(vpc, "10.0.1.0/24", second)]
        return Network(vpc, subnets, self.gateway(vpc))

    def route_table(self, vpc: str) -> str:
        return self.aws.must("ec2", "CreateRouteTable", VpcId=vpc)["RouteTable"]["RouteTableId"]

    def address(self) -> str:
        return self.aws.must("ec2", "AllocateAddress", Domain="vpc")["AllocationId"]

    def nat(self, subnet: str, allocation: str) -> str:
        """A NAT gateway that is available."""
        answer = self.aws.must("ec2", "CreateNatGateway", SubnetId=subnet, AllocationId=allocation)
        nat = answer["NatGateway"]["NatGatewayId"]
        until(f"{nat} is available", lambda: self.nat_state(nat) == "available")
        return nat

    def nat_state(self, nat: str) -> str:
        """Its state; `gone` for one that is no longer described."""
        outcome = self.aws.call("ec2", "DescribeNatGateways", NatGatewayIds=[nat])
        found = outcome.answer.get("NatGateways", [])
        return found[0]["State"] if found else "gone"

    def end_nat(self, nat: str) -> None:
        self.aws.must("ec2", "DeleteNatGateway", NatGatewayId=nat)
        until(f"{nat} is deleted", lambda: self.nat_state(nat) in ("deleted", "gone"))

    def group(self, vpc: str) -> str:
        name = self.name("group")
        return self.aws.must("ec2", "CreateSecurityGroup", GroupName=name, Description=name, VpcId=vpc)["GroupId"]

    def role(self, service: str = "eks.amazonaws.com") -> str:
        """A role's name."""
        name = self.name("role")
        self.aws.must("iam", "CreateRole", RoleName=name, AssumeRolePolicyDocument=trust(service))
        return name

    def role_arn(self, name: str) -> str:
        return self.aws.must("iam", "GetRole", RoleName=name)["Role"]["Arn"]

    def key(self) -> str:
        return self.aws.must("kms", "CreateKey")["KeyMetadata"]["KeyId"]

    def cluster(self, network: Network, **more: object) -> str:
        """An active cluster; asked for again while its role is not known everywhere."""
        name, role = self.name("cluster"), self.role_arn(self.role())
        parameters = {
            "name": name,
            "roleArn": role,
            "resourcesVpcConfig": {"subnetIds": network.subnets},
            "accessConfig": {"authenticationMode": "API"},
            **more,
        }
        until(f"{name} is accepted", lambda: self.aws.call("eks", "CreateCluster", **parameters).ok)
        until(f"{name} is active", lambda: self.cluster_status(name) == "ACTIVE")
        return name

    def cluster_status(self, name: str) -> str:
        outcome = self.aws.call("eks", "DescribeCluster", name=name)
        return outcome.answer["cluster"]["status"] if outcome.ok else "gone"

    def nodes(self, cluster: str, network: Network, **more: object) -> str:
        """A node group that has been asked for."""
        name, role = self.name("nodes"), self.role_arn(self.role("ec2.amazonaws.com"))
        parameters = {
            "clusterName": cluster,
            "nodegroupName": name,
            "nodeRole": role,
            "subnets": network.subnets,
            "scalingConfig": {"minSize": 1, "desiredSize": 1, "maxSize": 2},
            **more,
        }
        until(f"{name} is accepted", lambda: self.aws.call("eks", "CreateNodegroup", **parameters).ok)
        return name

    def nodes_status(self, cluster: str, name: str) -> str:
        outcome = self.aws.call("eks", "DescribeNodegroup", clusterName=cluster, nodegroupName=name)
        return outcome.answer["nodegroup"]["status"] if outcome.ok else "gone"
