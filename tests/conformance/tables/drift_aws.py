"""What others change, remove and add in the account of a built environment, made with boto3: what a drift check must name."""

import json
from collections.abc import Callable
from typing import Any, NamedTuple

ZONES = ("0", "1", "2")
ROLES = ("cluster.cluster_role", "cluster.node_role", "cluster.ebs_csi_role", "cluster.vpc_cni_role")
POOLS = ("system", "apps", "data")
ADDONS = {"cluster.vpc_cni": "vpc-cni", "cluster.kube_proxy": "kube-proxy", "coredns": "coredns", "ebs_csi": "aws-ebs-csi-driver"}  # fmt: skip
CLUSTER = "platflow-aws-dev"


class Mutation(NamedTuple):
    """One change behind platflow's back, and the step and field (or `missing`, or an extra's kind) that must be named."""

    subject: str
    field: str
    apply: Callable[[Any], object]
    # What follows from it and is named as well.
    also: tuple[tuple[str, str], ...] = ()
    # What restores itself only by replacement, or belongs to nobody: `drift --fix` must leave it.
    left: bool = False


def ec2_id(step: str, key: str) -> Callable[[Any], str]:
    return lambda world: world.outputs[step][key]


def retag(step: str, key: str, name: str = "Name") -> Mutation:
    return Mutation(step, "/tags", lambda world: world.ec2.create_tags(
        Resources=[world.outputs[step][key]], Tags=[{"Key": name, "Value": "renamed-by-hand"}]))  # fmt: skip


def untag(step: str, key: str, tag: str) -> Mutation:
    return Mutation(step, "/tags", lambda world: world.ec2.delete_tags(
        Resources=[world.outputs[step][key]], Tags=[{"Key": tag}]))  # fmt: skip


def network() -> list[Mutation]:
    vpc = ec2_id("network.vpc", "vpc_id")
    changes = [
        Mutation("network.vpc", "/enable_dns_hostnames", lambda world: world.ec2.modify_vpc_attribute(
            VpcId=vpc(world), EnableDnsHostnames={"Value": False})),
        Mutation("network.vpc", "/enable_dns_support", lambda world: world.ec2.modify_vpc_attribute(
            VpcId=vpc(world), EnableDnsSupport={"Value": False})),
        retag("network.vpc", "vpc_id"),
        retag("network.internet_gateway", "internet_gateway_id"),
        retag("network.nat_address.0", "allocation_id"),
        retag("network.nat.0", "nat_gateway_id"),
        retag("network.public_routes", "route_table_id"),
        retag("cluster.security_group", "security_group_id"),
        Mutation("network.public_routes", "/routes", lambda world: world.ec2.delete_route(
            RouteTableId=world.outputs["network.public_routes"]["route_table_id"], DestinationCidrBlock="0.0.0.0/0")),
        Mutation("cluster.security_group", "/rules", lambda world: world.ec2.authorize_security_group_ingress(
            GroupId=world.outputs["cluster.security_group"]["security_group_id"],
            IpPermissions=[{"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}])),
    ]  # fmt: skip
    for zone in ZONES:
        for side, public in (("public", False), ("private", True)):
            step = f"network.{side}.{zone}"
            changes.append(Mutation(step, "/public", lambda world, step=step, public=public: world.ec2.modify_subnet_attribute(
                SubnetId=world.outputs[step]["subnet_id"], MapPublicIpOnLaunch={"Value": public})))  # fmt: skip
            role = "kubernetes.io/role/elb" if side == "public" else "kubernetes.io/role/internal-elb"
            changes.append(untag(step, "subnet_id", role))
        step = f"network.private_routes.{zone}"
        changes.append(retag(step, "route_table_id"))
        changes.append(Mutation(step, "/routes", lambda world, step=step: world.ec2.create_route(
            RouteTableId=world.outputs[step]["route_table_id"], DestinationCidrBlock="10.99.0.0/16",
            NatGatewayId=world.outputs["network.nat.0"]["nat_gateway_id"])))  # fmt: skip
    return changes


def identity() -> list[Mutation]:
    changes = []
    stranger = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "sts:AssumeRole", "Principal": {"AWS": "*"}}]}  # fmt: skip
    inline = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}]}
    for step in ROLES:
        name = lambda world, step=step: world.outputs[step]["name"]  # noqa: E731
        changes += [
            Mutation(step, "/trust_policy", lambda world, name=name: world.iam.update_assume_role_policy(
                RoleName=name(world), PolicyDocument=json.dumps(stranger))),
            Mutation(step, "/managed_policies", lambda world, name=name: world.iam.attach_role_policy(
                RoleName=name(world), PolicyArn="arn:aws:iam::aws:policy/AmazonS3FullAccess")),
            Mutation(step, "/inline_policies", lambda world, name=name: world.iam.put_role_policy(
                RoleName=name(world), PolicyName="by-hand", PolicyDocument=json.dumps(inline))),
            Mutation(step, "/tags", lambda world, name=name: world.iam.untag_role(
                RoleName=name(world), TagKeys=["platflow:environment"])),
        ]  # fmt: skip
    return changes


def keys_and_logs() -> list[Mutation]:
    def key(world: Any) -> str:
        return world.outputs["cluster.key"]["key_id"]

    def group(world: Any) -> str:
        return world.outputs["cluster.logs"]["name"]

    return [
        Mutation("cluster.key", "/state", lambda world: world.kms.disable_key(KeyId=key(world))),
        Mutation("cluster.key", "/rotation", lambda world: world.kms.disable_key_rotation(KeyId=key(world))),
        Mutation("cluster.key", "/description", lambda world: world.kms.update_key_description(KeyId=key(world), Description="by hand")),
        Mutation("cluster.key", "/tags", lambda world: world.kms.untag_resource(KeyId=key(world), TagKeys=["Name"])),
        Mutation("cluster.logs", "/retention_days", lambda world: world.logs.put_retention_policy(
            logGroupName=group(world), retentionInDays=1)),
        Mutation("cluster.logs", "/tags", lambda world: world.logs.untag_resource(
            resourceArn=f"arn:aws:logs:us-east-1:{world.account}:log-group:{group(world)}", tagKeys=["Name"])),
    ]  # fmt: skip


def cluster() -> list[Mutation]:
    def config(**change: Any) -> Callable[[Any], object]:
        return lambda world: world.updated(world.eks.update_cluster_config(name=CLUSTER, **change))

    changes = [
        Mutation("cluster.cluster", "/public_access_cidrs", config(resourcesVpcConfig={"publicAccessCidrs": ["127.0.0.0/8", "198.51.100.0/24"]})),
        Mutation("cluster.cluster", "/log_types", config(logging={"clusterLogging": [{"types": ["audit"], "enabled": False}]})),
        Mutation("cluster.cluster", "/deletion_protection", config(deletionProtection=True)),
        Mutation("cluster.cluster", "/tags", lambda world: world.eks.untag_resource(
            resourceArn=world.outputs["cluster.cluster"]["arn"], tagKeys=["Name"])),
        Mutation("cluster.oidc", "/audiences", lambda world: world.iam.add_client_id_to_open_id_connect_provider(
            OpenIDConnectProviderArn=world.outputs["cluster.oidc"]["arn"], ClientID="by-hand")),
        Mutation("cluster.oidc", "/tags", lambda world: world.iam.untag_open_id_connect_provider(
            OpenIDConnectProviderArn=world.outputs["cluster.oidc"]["arn"], TagKeys=["Name"])),
        Mutation("cluster.caller_access", "/tags", lambda world: world.eks.untag_resource(
            resourceArn=world.outputs["cluster.caller_access"]["arn"], tagKeys=["Name"])),
        Mutation("cluster.caller_access", "/kubernetes_groups", lambda world: world.eks.update_access_entry(
            clusterName=CLUSTER, principalArn=world.outputs["cluster.caller_access"]["principal_arn"],
            kubernetesGroups=["by-hand"])),
    ]  # fmt: skip
    for step, name in ADDONS.items():
        changes.append(Mutation(step, "/tags", lambda world, step=step: world.eks.untag_resource(
            resourceArn=world.outputs[step]["arn"], tagKeys=["Name"])))  # fmt: skip
        if name == "coredns":
            changes.append(Mutation(step, "/configuration", lambda world, name=name: world.addon(name, configurationValues='{"replicaCount": 5}')))
    return changes


def pools() -> list[Mutation]:
    changes = []
    for pool in POOLS:
        nodes, template = f"pools.{pool}.nodes", f"pools.{pool}.template"

        def config(pool: str = pool, **change: Any) -> Callable[[Any], object]:
            return lambda world: world.pool(pool, **change)

        changes += [
            Mutation(nodes, "/max", config(scalingConfig={"maxSize": 20})),
            Mutation(nodes, "/labels", config(labels={"addOrUpdateLabels": {"by": "hand"}})),
            Mutation(nodes, "/taints", config(taints={"addOrUpdateTaints": [{"key": "by", "value": "hand", "effect": "PREFER_NO_SCHEDULE"}]})),
            Mutation(nodes, "/max_unavailable", config(updateConfig={"maxUnavailable": 2})),
            Mutation(nodes, "/tags", lambda world, nodes=nodes: world.eks.untag_resource(
                resourceArn=world.outputs[nodes]["arn"], tagKeys=["Name"])),
            retag(template, "launch_template_id"),
            Mutation(template, "/disk_gib", lambda world, template=template: world.version(template, 33)),
        ]  # fmt: skip
    return changes


def extras() -> list[Mutation]:
    def vpc(world: Any) -> str:
        return world.outputs["network.vpc"]["vpc_id"]

    return [
        Mutation("extra", "ec2:subnet", lambda world: world.ec2.create_subnet(VpcId=vpc(world), CidrBlock="10.0.48.0/24"), left=True),
        Mutation("extra", "ec2:security-group", lambda world: world.ec2.create_security_group(
            VpcId=vpc(world), GroupName="by-hand", Description="by hand"), left=True),
        Mutation("extra", "ec2:route-table", lambda world: world.ec2.create_route_table(VpcId=vpc(world)), left=True),
        Mutation("extra", "eks:access-entry", lambda world: world.let_in(world.stranger()), left=True),
    ]  # fmt: skip


def missing() -> list[Mutation]:
    """Things that can be taken away by themselves; what stands on them is built again with them."""
    return [
        Mutation("cluster.logs", "missing", lambda world: world.logs.delete_log_group(logGroupName=world.outputs["cluster.logs"]["name"])),
        Mutation("coredns", "missing", lambda world: world.gone_addon("coredns")),
        Mutation("cluster.kube_proxy", "missing", lambda world: world.gone_addon("kube-proxy")),
        Mutation("network.nat.0", "missing", lambda world: world.gone_nat(world.outputs["network.nat.0"]["nat_gateway_id"]),
            also=tuple((f"network.private_routes.{zone}", "/routes") for zone in ZONES)),
        Mutation("network.private_routes.1", "missing", lambda world: world.gone_table(world.outputs["network.private_routes.1"]["route_table_id"])),
        Mutation("pools.data.nodes", "missing", lambda world: world.gone_pool("data")),
    ]  # fmt: skip
