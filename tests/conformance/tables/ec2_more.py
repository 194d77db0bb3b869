"""Behaviours of EC2: launch templates, tags, leftovers, and what all describe and create calls share."""

from typing import Any

from harness.aws_world import Network, named
from harness.behaviour import MotoDiffers, Peer, Table

TABLE = Table()
behaviour = TABLE.behaviour
GONE = "0123456789abcdef0"
DATA = {"MetadataOptions": {"HttpTokens": "required"}}


@behaviour(
    "ec2:CreateLaunchTemplate ec2:CreateLaunchTemplateVersion ec2:ModifyLaunchTemplate ec2:DeleteLaunchTemplate",
    ["same", "IdempotentParameterMismatch", "InvalidLaunchTemplateName.AlreadyExistsException", 2, 1, 2]
    + ["InvalidLaunchTemplateId.VersionNotFound", "ok", "InvalidLaunchTemplateId.NotFound"],
    moto=MotoDiffers(
        [
            "InvalidLaunchTemplateName.AlreadyExistsException",
            "ok",
            "InvalidLaunchTemplateName.AlreadyExistsException",
            2,
            1,
            2,
            "InvalidLaunchTemplateId.VersionNotFound",
            "ok",
            "InvalidLaunchTemplateName.NotFoundException",
        ],
        "moto ignores client tokens, so that the name is taken; and an id is not found by id, not by name",
    ),
)
def launch_templates(peer: Peer) -> list[object]:
    """A launch template by token, under a name that is taken, its versions, and deleted twice."""
    name = peer.name("template")
    create: dict[str, Any] = {"LaunchTemplateName": name, "LaunchTemplateData": DATA, "ClientToken": name}
    first = peer.aws.must("ec2", "CreateLaunchTemplate", **create)["LaunchTemplate"]["LaunchTemplateId"]
    again = peer.aws.call("ec2", "CreateLaunchTemplate", **create)
    same = again.ok and again.answer["LaunchTemplate"]["LaunchTemplateId"] == first
    seen: list[object] = ["same" if same else again.code or "another"]
    seen.append(peer.code("ec2", "CreateLaunchTemplate", **{**create, "LaunchTemplateName": f"{name}-other"}))
    seen.append(peer.code("ec2", "CreateLaunchTemplate", LaunchTemplateName=name, LaunchTemplateData=DATA))
    version = peer.aws.must(
        "ec2", "CreateLaunchTemplateVersion", LaunchTemplateId=first, LaunchTemplateData=DATA
    )["LaunchTemplateVersion"]["VersionNumber"]  # fmt: skip
    found = peer.aws.must("ec2", "DescribeLaunchTemplates", LaunchTemplateIds=[first])["LaunchTemplates"][0]
    changed = peer.aws.must("ec2", "ModifyLaunchTemplate", LaunchTemplateId=first, DefaultVersion="2")
    seen += [version, found["DefaultVersionNumber"], changed["LaunchTemplate"]["DefaultVersionNumber"]]
    seen.append(peer.code("ec2", "ModifyLaunchTemplate", LaunchTemplateId=first, DefaultVersion="9"))
    return seen + [peer.code("ec2", "DeleteLaunchTemplate", LaunchTemplateId=first) for _ in range(2)]


@behaviour(
    "ec2:CreateTags",
    ["ok", "1", "InvalidVpcID.NotFound", "InvalidParameterValue", "ok", None],
    moto=MotoDiffers(
        ["ok", "1", "InvalidVpcID.NotFound", "ok", "ok", None],
        "the guide: keys that begin with aws: are reserved; moto sets them",
    ),
)
def tags(peer: Peer) -> list[object]:
    """Tags are set and taken away; not on what is not there, and none of AWS's own."""
    vpc = peer.shared_network.vpc

    def value() -> str | None:
        found = peer.aws.must("ec2", "DescribeVpcs", VpcIds=[vpc])["Vpcs"][0].get("Tags", [])
        return next((tag["Value"] for tag in found if tag["Key"] == "a"), None)

    seen: list[object] = [peer.code("ec2", "CreateTags", Resources=[vpc], Tags=[{"Key": "a", "Value": "1"}]), value()]
    seen += [
        peer.code("ec2", "CreateTags", Resources=[f"vpc-{GONE}"], Tags=[{"Key": "a", "Value": "1"}]),
        peer.code("ec2", "CreateTags", Resources=[vpc], Tags=[{"Key": "aws:a", "Value": "1"}]),
        peer.code("ec2", "DeleteTags", Resources=[vpc], Tags=[{"Key": "a"}]),
    ]
    return [*seen, value()]


@behaviour("ec2:DeleteVolume", ["ok", "InvalidVolume.NotFound"])
def volumes(peer: Peer) -> list[str]:
    """A volume is deleted twice."""
    volume = peer.plant("volume")
    return [peer.code("ec2", "DeleteVolume", VolumeId=volume) for _ in range(2)]


@behaviour("ec2:DeleteSnapshot", ["ok", "InvalidSnapshot.NotFound"])
def snapshots(peer: Peer) -> list[str]:
    """A snapshot is deleted twice."""
    snapshot = peer.plant("snapshot")
    return [peer.code("ec2", "DeleteSnapshot", SnapshotId=snapshot) for _ in range(2)]


@behaviour(
    "ec2:DeleteNetworkInterface ec2:DeleteSubnet",
    ["DependencyViolation", "ok", "InvalidNetworkInterfaceID.NotFound"],
    moto=MotoDiffers(
        ["ok", "ok", "InvalidNetworkInterfaceID.NotFound"],
        "DeleteSubnet: 'you must terminate all running instances', and whatever has an address; moto does not look",
    ),
)
def interfaces(peer: Peer) -> list[str]:
    """An interface keeps its subnet, and is deleted twice."""
    interface = peer.plant("interface")
    found = peer.aws.must("ec2", "DescribeNetworkInterfaces", NetworkInterfaceIds=[interface])["NetworkInterfaces"]
    codes = [peer.code("ec2", "DeleteSubnet", SubnetId=found[0]["SubnetId"])]
    return codes + [peer.code("ec2", "DeleteNetworkInterface", NetworkInterfaceId=interface) for _ in range(2)]


@behaviour(
    "ec2:DescribeSubnets",
    [5, True, 2, False],
    moto=MotoDiffers([7, False, 0, False], "DescribeSubnets has MaxResults and NextToken; moto ignores them"),
)
def pages(peer: Peer) -> list[object]:
    """Subnets come in pages."""
    network = peer.shared_network
    more = [peer.subnet(network.vpc, f"10.0.{index}.0/24", peer.zones()[0]) for index in range(60, 65)]
    here = {"Filters": [{"Name": "vpc-id", "Values": [network.vpc]}], "MaxResults": 5}
    first = peer.aws.must("ec2", "DescribeSubnets", **here)
    token = first.get("NextToken")
    rest = peer.aws.must("ec2", "DescribeSubnets", **here, NextToken=token) if token else {"Subnets": []}
    for subnet in more:
        peer.code("ec2", "DeleteSubnet", SubnetId=subnet)
    return [len(first["Subnets"]), bool(token), len(rest["Subnets"]), bool(rest.get("NextToken"))]


@behaviour("ec2:DescribeVpcs ec2:DescribeSubnets", [1, 1, 0, 2, 2, 0])
def filters(peer: Peer) -> list[int]:
    """Filters: by tag, by wildcard, all of several, any of several values, by id, none."""
    network = peer.shared_network
    name = peer.name("filtered")
    vpc = peer.aws.must("ec2", "CreateVpc", CidrBlock="10.9.0.0/16", TagSpecifications=named("vpc", name))["Vpc"]

    def vpcs(*wanted: tuple[str, list[str]]) -> int:
        filters = [{"Name": key, "Values": values} for key, values in wanted]
        return len(peer.aws.must("ec2", "DescribeVpcs", Filters=filters)["Vpcs"])

    def subnets(*wanted: tuple[str, list[str]]) -> int:
        filters = [{"Name": key, "Values": values} for key, values in wanted]
        return len(peer.aws.must("ec2", "DescribeSubnets", Filters=filters)["Subnets"])

    found = [
        vpcs(("tag:Name", [name])),
        vpcs(("tag:Name", [name.replace("filtered", "filt*")])),
        vpcs(("tag:Name", [name]), ("cidr", ["10.8.0.0/16"])),
        vpcs(("vpc-id", [network.vpc, vpc["VpcId"]])),
        subnets(("vpc-id", [network.vpc])),
        subnets(("vpc-id", [f"vpc-{GONE}"])),
    ]
    peer.code("ec2", "DeleteVpc", VpcId=vpc["VpcId"])
    return found


DESCRIBE_CALLS = (
    "DescribeVpcs DescribeSubnets DescribeInternetGateways DescribeAddresses DescribeRouteTables "
    "DescribeSecurityGroups DescribeNetworkInterfaces DescribeVolumes DescribeSnapshots DescribeInstances "
    "DescribeLaunchTemplates DescribeVpcEndpoints DescribeAvailabilityZones DescribeInstanceTypeOfferings"
).split()


@behaviour(
    " ".join(f"ec2:{name}" for name in DESCRIBE_CALLS),
    {name: "InvalidParameterValue" for name in DESCRIBE_CALLS},
    moto=MotoDiffers(
        {
            "DescribeVpcs": "unreadable 500",
            "DescribeSubnets": "unreadable 500",
            "DescribeInternetGateways": "unreadable 500",
            "DescribeAddresses": "ok",
            "DescribeRouteTables": "unreadable 500",
            "DescribeSecurityGroups": "unreadable 500",
            "DescribeNetworkInterfaces": "unreadable 500",
            "DescribeVolumes": "unreadable 500",
            "DescribeSnapshots": "unreadable 500",
            "DescribeInstances": "ok",
            "DescribeLaunchTemplates": "unreadable 500",
            "DescribeVpcEndpoints": "ok",
            "DescribeAvailabilityZones": "ok",
            "DescribeInstanceTypeOfferings": "ok",
        },
        "EC2 refuses filters it does not know; moto fails on them (500, HTML) or ignores them",
    ),
)
def unknown_filters(peer: Peer) -> dict[str, str]:
    """A filter that a call does not know."""
    strange = [{"Name": "colour", "Values": ["blue"]}]
    return {name: peer.code("ec2", name, Filters=strange) for name in DESCRIBE_CALLS}


def _dry_calls(peer: Peer, network: Network) -> dict[str, dict[str, Any]]:
    rule = [{"IpProtocol": "-1", "IpRanges": [{"CidrIp": "192.0.2.0/24"}]}]
    filters = [{"Name": "vpc-id", "Values": [network.vpc]}]
    group = peer.aws.must("ec2", "DescribeSecurityGroups", Filters=filters)["SecurityGroups"][0]["GroupId"]
    table = peer.aws.must("ec2", "DescribeRouteTables", Filters=filters)["RouteTables"][0]["RouteTableId"]
    where = {"RouteTableId": table, "DestinationCidrBlock": "192.0.2.0/24"}
    return {
        "CreateVpc": {"CidrBlock": "10.8.0.0/16"},
        "DeleteVpc": {"VpcId": network.vpc},
        "CreateSubnet": {"VpcId": network.vpc, "CidrBlock": "10.9.77.0/24"},
        "DeleteSubnet": {"SubnetId": network.subnets[0]},
        "CreateInternetGateway": {},
        "AttachInternetGateway": {"VpcId": network.vpc, "InternetGatewayId": network.gateway},
        "AllocateAddress": {"Domain": "vpc"},
        "CreateSecurityGroup": {"GroupName": "dry", "Description": "dry", "VpcId": network.vpc},
        "DeleteSecurityGroup": {"GroupId": group},
        "AuthorizeSecurityGroupIngress": {"GroupId": group, "IpPermissions": rule},
        "RevokeSecurityGroupIngress": {"GroupId": group, "IpPermissions": rule},
        "CreateRouteTable": {"VpcId": network.vpc},
        "CreateRoute": {**where, "GatewayId": network.gateway},
        "DeleteRoute": where,
        "AssociateRouteTable": {"RouteTableId": table, "SubnetId": network.subnets[0]},
        "CreateLaunchTemplate": {"LaunchTemplateName": "dry-template", "LaunchTemplateData": DATA},
        "CreateTags": {"Resources": [network.vpc], "Tags": [{"Key": "dry", "Value": "1"}]},
    }


@behaviour(
    "ec2:CreateVpc ec2:CreateSubnet ec2:AllocateAddress ec2:CreateTags",
    {"DryRunOperation"},
    moto=MotoDiffers(
        {"ok", "InvalidSubnetID.NotFound", "DryRunOperation", "DependencyViolation"},
        "most calls of EC2 have DryRun; moto honours it in some and carries the others out",
    ),
)
def dry_runs(peer: Peer) -> set[str]:
    """DryRun answers DryRunOperation and changes nothing."""
    vpc = peer.vpc("10.9.0.0/16")
    network = Network(vpc, [peer.subnet(vpc, "10.9.0.0/24", peer.zones()[0])], peer.gateway())
    calls = _dry_calls(peer, network)
    codes = {peer.code("ec2", name, DryRun=True, **parameters) for name, parameters in calls.items()}
    peer.code("ec2", "DeleteSubnet", SubnetId=network.subnets[0])
    peer.code("ec2", "DeleteInternetGateway", InternetGatewayId=network.gateway)
    peer.code("ec2", "DeleteVpc", VpcId=vpc)
    return codes
