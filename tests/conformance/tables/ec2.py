"""Behaviours of EC2: the network."""

from harness.aws_world import named
from harness.behaviour import MotoDiffers, Peer, Table
from harness.polling import until

TABLE = Table()
behaviour = TABLE.behaviour
GONE = "0123456789abcdef0"


@behaviour("ec2:CreateVpc ec2:DeleteVpc", ["ok", "InvalidVpcID.NotFound"])
def delete_vpc_twice(peer: Peer) -> list[str]:
    """A VPC is deleted twice."""
    vpc = peer.vpc("10.9.0.0/16")
    return [peer.code("ec2", "DeleteVpc", VpcId=vpc) for _ in range(2)]


@behaviour(
    "ec2:CreateVpc",
    ["InvalidParameterValue", "InvalidVpc.Range", "InvalidVpc.Range"],
    moto=MotoDiffers(
        ["InvalidVpc.Range", "InvalidVpc.Range", "InvalidVpc.Range"],
        "moto takes the address alone for a range of /32; EC2 says that the text is no CIDR block",
    ),
)
def strange_vpc_ranges(peer: Peer) -> list[str]:
    """A VPC with a range that is none, too small, too large."""
    return [peer.code("ec2", "CreateVpc", CidrBlock=cidr) for cidr in ("10.0.0.0", "10.0.0.0/29", "10.0.0.0/15")]


@behaviour(
    "ec2:CreateVpc",
    "10.9.0.0/16",
    MotoDiffers("10.9.1.2/16", "API: 'we modify the specified CIDR block to its canonical form'"),
)
def canonical_range(peer: Peer) -> str:
    """The range of a VPC is made canonical."""
    vpc = peer.aws.must("ec2", "CreateVpc", CidrBlock="10.9.1.2/16")["Vpc"]
    peer.code("ec2", "DeleteVpc", VpcId=vpc["VpcId"])
    return vpc["CidrBlock"]


@behaviour("ec2:DeleteVpc ec2:DeleteSubnet", ["DependencyViolation", "ok", "InvalidSubnetID.NotFound", "ok"])
def vpc_with_subnet(peer: Peer) -> list[str]:
    """A VPC is deleted before and after its subnet, and the subnet twice."""
    vpc = peer.vpc("10.9.0.0/16")
    subnet = peer.subnet(vpc, "10.9.0.0/24", peer.zones()[0])
    codes = [peer.code("ec2", "DeleteVpc", VpcId=vpc)]
    codes += [peer.code("ec2", "DeleteSubnet", SubnetId=subnet) for _ in range(2)]
    return [*codes, peer.code("ec2", "DeleteVpc", VpcId=vpc)]


@behaviour(
    "ec2:ModifyVpcAttribute",
    ["ok", True, "InvalidParameterCombination"],
    moto=MotoDiffers(
        ["ok", True, "ok"], "ModifyVpcAttribute: 'you can only modify one attribute at a time'; moto takes the first"
    ),
)
def vpc_attributes(peer: Peer) -> list[object]:
    """Attributes of a VPC are changed one at a time."""
    vpc = peer.shared_network.vpc
    on = {"Value": True}
    first = peer.code("ec2", "ModifyVpcAttribute", VpcId=vpc, EnableDnsHostnames=on)
    seen = peer.aws.must("ec2", "DescribeVpcAttribute", VpcId=vpc, Attribute="enableDnsHostnames")
    both = peer.code("ec2", "ModifyVpcAttribute", VpcId=vpc, EnableDnsHostnames=on, EnableDnsSupport=on)
    return [first, seen["EnableDnsHostnames"]["Value"], both]


@behaviour(
    "ec2:CreateSubnet",
    ["InvalidSubnet.Conflict", "InvalidSubnet.Range", "InvalidParameterValue", "InvalidSubnet.Range"],
    moto=MotoDiffers(
        ["InvalidSubnet.Conflict", "InvalidSubnet.Range", "InvalidParameterValue", "ok"],
        "CreateSubnet: a block between /28 and /16; moto does not look",
    ),
)
def subnets_that_cannot_be(peer: Peer) -> list[str]:
    """Subnets that overlap, lie outside the VPC, in no zone, are too small."""
    vpc = peer.shared_network.vpc

    def create(cidr: str, zone: str) -> str:
        outcome = peer.aws.call("ec2", "CreateSubnet", VpcId=vpc, CidrBlock=cidr, AvailabilityZone=zone)
        if outcome.ok:
            peer.code("ec2", "DeleteSubnet", SubnetId=outcome.answer["Subnet"]["SubnetId"])
        return outcome.code or "ok"

    return [
        create("10.0.0.128/25", "us-west-2a"),
        create("10.1.0.0/24", "us-west-2a"),
        create("10.0.8.0/24", "us-west-2z"),
        create("10.0.8.0/29", "us-west-2a"),
    ]


@behaviour("ec2:ModifySubnetAttribute", ["ok", True])
def public_subnet(peer: Peer) -> list[object]:
    """A subnet gives public addresses once it was told to."""
    subnet = peer.shared_network.subnets[0]
    code = peer.code("ec2", "ModifySubnetAttribute", SubnetId=subnet, MapPublicIpOnLaunch={"Value": True})
    found = peer.aws.must("ec2", "DescribeSubnets", SubnetIds=[subnet])["Subnets"][0]
    return [code, found["MapPublicIpOnLaunch"]]


@behaviour(
    "ec2:CreateInternetGateway ec2:AttachInternetGateway ec2:DetachInternetGateway ec2:DeleteInternetGateway",
    ["Resource.AlreadyAssociated", "InvalidParameterValue", "DependencyViolation", "DependencyViolation"]
    + ["ok", "Gateway.NotAttached", "ok", "InvalidInternetGatewayID.NotFound"],
    moto=MotoDiffers(
        [
            "Resource.AlreadyAssociated",
            "ok",
            "ok",
            "DependencyViolation",
            "ok",
            "Gateway.NotAttached",
            "ok",
            "InvalidInternetGatewayID.NotFound",
        ],
        "a VPC has one internet gateway, and is not deleted while it has it; moto does not look",
    ),
)
def internet_gateway(peer: Peer) -> list[str]:
    """A gateway is attached twice, a second one too; deleted while attached, detached and deleted twice."""
    vpc = peer.vpc("10.9.0.0/16")
    gateway, second = peer.gateway(vpc), peer.gateway()
    here = {"InternetGatewayId": gateway, "VpcId": vpc}
    codes = [
        peer.code("ec2", "AttachInternetGateway", **here),
        peer.code("ec2", "AttachInternetGateway", InternetGatewayId=second, VpcId=vpc),
        peer.code("ec2", "DeleteVpc", VpcId=vpc),
        peer.code("ec2", "DeleteInternetGateway", InternetGatewayId=gateway),
        peer.code("ec2", "DetachInternetGateway", **here),
        peer.code("ec2", "DetachInternetGateway", **here),
    ]
    codes += [peer.code("ec2", "DeleteInternetGateway", InternetGatewayId=gateway) for _ in range(2)]
    peer.code("ec2", "DeleteInternetGateway", InternetGatewayId=second)
    peer.code("ec2", "DeleteVpc", VpcId=vpc)
    return codes


@behaviour(
    "ec2:CreateNatGateway ec2:DeleteNatGateway ec2:AllocateAddress ec2:ReleaseAddress ec2:DeleteSubnet "
    "ec2:DetachInternetGateway",
    ["pending", "same", "IdempotentParameterMismatch", "available", "InvalidIPAddress.InUse", "DependencyViolation"]
    + ["DependencyViolation", "ok", "ok", "deleted", "ok", "InvalidAllocationID.NotFound"],
    moto=MotoDiffers(
        [
            "available",
            "another",
            "Resource.AlreadyAssociated",
            "available",
            "ok",
            "ok",
            "ok",
            "ok",
            "ok",
            "deleted",
            "InvalidAllocationID.NotFound",
            "InvalidAllocationID.NotFound",
        ],
        "moto has no states, no client tokens and no associations of addresses, so that nothing is held",
    ),
)
def nat_gateway(peer: Peer) -> list[str]:
    """A NAT gateway by token, its states, and what it holds fast while it lives."""
    network = peer.shared_network
    subnet = peer.subnet(network.vpc, "10.0.40.0/24", peer.zones()[0])
    address = peer.address()
    token = {"AllocationId": address, "ClientToken": "nat-token"}
    first = peer.aws.must("ec2", "CreateNatGateway", SubnetId=subnet, **token)["NatGateway"]
    again = peer.aws.call("ec2", "CreateNatGateway", SubnetId=subnet, **token)
    nat = first["NatGatewayId"]
    same = again.ok and again.answer["NatGateway"]["NatGatewayId"] == nat
    seen = [first["State"], "same" if same else "another"]
    seen.append(peer.code("ec2", "CreateNatGateway", SubnetId=network.subnets[0], **token))
    until("the NAT gateway is available", lambda: peer.nat_state(nat) == "available")
    seen += [
        peer.nat_state(nat),
        peer.code("ec2", "ReleaseAddress", AllocationId=address),
        peer.code("ec2", "DeleteSubnet", SubnetId=subnet),
        peer.code("ec2", "DetachInternetGateway", InternetGatewayId=network.gateway, VpcId=network.vpc),
        peer.code("ec2", "DeleteNatGateway", NatGatewayId=nat),
        peer.code("ec2", "DeleteNatGateway", NatGatewayId=nat),
    ]
    until("the NAT gateway is gone", lambda: peer.nat_state(nat) in ("deleted", "gone"))
    seen.append(peer.nat_state(nat))
    peer.code("ec2", "DeleteSubnet", SubnetId=subnet)
    peer.code("ec2", "AttachInternetGateway", InternetGatewayId=network.gateway, VpcId=network.vpc)
    return seen + [peer.code("ec2", "ReleaseAddress", AllocationId=address) for _ in range(2)]


@behaviour("ec2:CreateNatGateway", ["InvalidSubnetID.NotFound", "InvalidAllocationID.NotFound"])
def nat_of_nothing(peer: Peer) -> list[str]:
    """A NAT gateway in a subnet, or with an address, that is not there."""
    subnet, address = peer.shared_network.subnets[0], peer.address()
    codes = [
        peer.code("ec2", "CreateNatGateway", SubnetId=f"subnet-{GONE}", AllocationId=address),
        peer.code("ec2", "CreateNatGateway", SubnetId=subnet, AllocationId=f"eipalloc-{GONE}"),
    ]
    peer.code("ec2", "ReleaseAddress", AllocationId=address)
    return codes


@behaviour(
    "ec2:CreateNatGateway",
    ["failed", "Gateway.NotAttached"],
    moto=MotoDiffers(
        ["available", ""],
        "failure code Gateway.NotAttached of the model's NatGateway; moto makes every NAT gateway available",
    ),
)
def nat_without_gateway(peer: Peer) -> list[str]:
    """A NAT gateway in a VPC without an internet gateway fails."""
    vpc = peer.vpc("10.9.0.0/16")
    subnet = peer.subnet(vpc, "10.9.0.0/24", peer.zones()[0])
    address = peer.address()
    made = peer.aws.must("ec2", "CreateNatGateway", SubnetId=subnet, AllocationId=address)["NatGateway"]
    nat = made["NatGatewayId"]
    until("the NAT gateway settles", lambda: peer.nat_state(nat) != "pending")
    found = peer.aws.must("ec2", "DescribeNatGateways", NatGatewayIds=[nat])["NatGateways"][0]
    peer.end_nat(nat)
    peer.code("ec2", "ReleaseAddress", AllocationId=address)
    peer.code("ec2", "DeleteSubnet", SubnetId=subnet)
    peer.code("ec2", "DeleteVpc", VpcId=vpc)
    return [found["State"], found.get("FailureCode", "")]


@behaviour(
    "ec2:CreateRouteTable ec2:AssociateRouteTable ec2:DisassociateRouteTable ec2:DeleteRouteTable",
    ["same", "IdempotentParameterMismatch", "same", "Resource.AlreadyAssociated", "DependencyViolation"]
    + ["ok", "InvalidAssociationID.NotFound", "ok", "InvalidRouteTableID.NotFound"],
    moto=MotoDiffers(
        [
            "another",
            "ok",
            "same",
            "ok",
            "DependencyViolation",
            "ok",
            "InvalidAssociationID.NotFound",
            "ok",
            "InvalidRouteTableID.NotFound",
        ],
        "moto ignores client tokens (so there are two tables), and moves the subnet's association",
    ),
)
def route_tables(peer: Peer) -> list[str]:
    """A route table by token, associated twice, deleted while associated, everything twice."""
    network = peer.shared_network
    token = {"ClientToken": "table-token"}
    first = peer.aws.must("ec2", "CreateRouteTable", VpcId=network.vpc, **token)["RouteTable"]["RouteTableId"]
    again = peer.aws.must("ec2", "CreateRouteTable", VpcId=network.vpc, **token)["RouteTable"]["RouteTableId"]
    tagged = named("route-table", "other")
    seen = ["same" if first == again else "another"]
    seen.append(peer.code("ec2", "CreateRouteTable", VpcId=network.vpc, TagSpecifications=tagged, **token))
    subnet = network.subnets[1]
    link = peer.aws.must("ec2", "AssociateRouteTable", RouteTableId=first, SubnetId=subnet)["AssociationId"]
    relink = peer.aws.must("ec2", "AssociateRouteTable", RouteTableId=first, SubnetId=subnet)["AssociationId"]
    other = peer.route_table(network.vpc)
    seen += [
        "same" if link == relink else "another",
        peer.code("ec2", "AssociateRouteTable", RouteTableId=other, SubnetId=subnet),
        peer.code("ec2", "DeleteRouteTable", RouteTableId=first),
    ]
    seen += [peer.code("ec2", "DisassociateRouteTable", AssociationId=link) for _ in range(2)]
    return seen + [peer.code("ec2", "DeleteRouteTable", RouteTableId=first) for _ in range(2)]


@behaviour(
    "ec2:DeleteRouteTable ec2:DisassociateRouteTable",
    ["DependencyViolation", "InvalidParameterValue"],
    moto=MotoDiffers(
        ["ok", "InvalidAssociationID.NotFound"],
        "the guide: 'you cannot delete the main route table'; moto does, and does not know its association",
    ),
)
def main_route_table(peer: Peer) -> list[str]:
    """The main route table is neither deleted nor disassociated."""
    vpc = peer.vpc("10.9.0.0/16")
    tables = peer.aws.must("ec2", "DescribeRouteTables", Filters=[{"Name": "vpc-id", "Values": [vpc]}])
    main = tables["RouteTables"][0]
    link = main["Associations"][0]["RouteTableAssociationId"]
    codes = [
        peer.code("ec2", "DeleteRouteTable", RouteTableId=main["RouteTableId"]),
        peer.code("ec2", "DisassociateRouteTable", AssociationId=link),
    ]
    peer.code("ec2", "DeleteVpc", VpcId=vpc)
    return codes


@behaviour(
    "ec2:CreateRoute ec2:ReplaceRoute ec2:DeleteRoute",
    ["ok", "RouteAlreadyExists", "InvalidParameterValue", "InvalidParameterValue", "ok", "InvalidRoute.NotFound"]
    + ["InvalidParameterValue", "InvalidGatewayID.NotFound"],
    moto=MotoDiffers(
        [
            "ok",
            "RouteAlreadyExists",
            "InvalidParameterValue",
            "InvalidParameterValue",
            "ok",
            "InvalidRoute.NotFound",
            "ok",
            "InvalidInternetGatewayID.NotFound",
        ],
        "the local route cannot be removed; and CreateRoute calls its target a gateway: InvalidGatewayID.NotFound",
    ),
)
def routes(peer: Peer) -> list[str]:
    """Routes: two to one place, replaced where none is, to no range, deleted twice, the local one, to no gateway."""
    network = peer.shared_network
    table = peer.route_table(network.vpc)
    out = {"GatewayId": network.gateway}
    subnet, address = network.subnets[0], peer.address()
    nat = peer.nat(subnet, address)

    def route(operation: str, destination: str, **target: str) -> str:
        return peer.code("ec2", operation, RouteTableId=table, DestinationCidrBlock=destination, **target)

    codes = [
        route("CreateRoute", "0.0.0.0/0", **out),
        route("CreateRoute", "0.0.0.0/0", NatGatewayId=nat),
        route("ReplaceRoute", "192.168.0.0/16", **out),
        route("CreateRoute", "everywhere", **out),
        route("DeleteRoute", "0.0.0.0/0"),
        route("DeleteRoute", "0.0.0.0/0"),
        route("DeleteRoute", "10.0.0.0/16"),
        route("CreateRoute", "192.168.0.0/16", GatewayId=f"igw-{GONE}"),
    ]
    peer.end_nat(nat)
    peer.code("ec2", "ReleaseAddress", AllocationId=address)
    peer.code("ec2", "DeleteRouteTable", RouteTableId=table)
    return codes


@behaviour(
    "ec2:CreateRoute",
    "InvalidParameterValue",
    moto=MotoDiffers("ok", "'route table and network gateway belong to different networks'; moto does not look"),
)
def foreign_gateway(peer: Peer) -> str:
    """No route leads to the gateway of another VPC."""
    vpc = peer.vpc("10.9.0.0/16")
    table = peer.route_table(vpc)
    target = {"DestinationCidrBlock": "0.0.0.0/0", "GatewayId": peer.shared_network.gateway}
    code = peer.code("ec2", "CreateRoute", RouteTableId=table, **target)
    peer.code("ec2", "DeleteRouteTable", RouteTableId=table)
    peer.code("ec2", "DeleteVpc", VpcId=vpc)
    return code


@behaviour(
    "ec2:DeleteNatGateway",
    "blackhole",
    moto=MotoDiffers(
        "active", "DeleteNatGateway: 'routes ... are not deleted', the guide: state blackhole; moto leaves them active"
    ),
)
def route_to_a_dead_nat(peer: Peer) -> str:
    """A route to a NAT gateway stays when that is gone, as a black hole."""
    network = peer.shared_network
    address = peer.address()
    nat, table = peer.nat(network.subnets[0], address), peer.route_table(network.vpc)
    peer.aws.must("ec2", "CreateRoute", RouteTableId=table, DestinationCidrBlock="0.0.0.0/0", NatGatewayId=nat)
    peer.end_nat(nat)
    routes = peer.aws.must("ec2", "DescribeRouteTables", RouteTableIds=[table])["RouteTables"][0]["Routes"]
    peer.code("ec2", "ReleaseAddress", AllocationId=address)
    peer.code("ec2", "DeleteRouteTable", RouteTableId=table)
    return next(route["State"] for route in routes if route["DestinationCidrBlock"] == "0.0.0.0/0")


HTTPS = [{"IpProtocol": "tcp", "FromPort": 443, "ToPort": 443, "IpRanges": [{"CidrIp": "10.0.0.0/8"}]}]


@behaviour(
    "ec2:CreateSecurityGroup ec2:DeleteSecurityGroup ec2:AuthorizeSecurityGroupIngress "
    "ec2:RevokeSecurityGroupIngress ec2:AuthorizeSecurityGroupEgress ec2:RevokeSecurityGroupEgress",
    ["InvalidGroup.Duplicate"]
    + ["ok", "InvalidPermission.Duplicate", "ok", "InvalidPermission.NotFound"] * 2
    + ["InvalidGroup.NotFound", "DependencyViolation", "ok", "ok", "InvalidGroup.NotFound"],
    moto=MotoDiffers(
        [
            "InvalidGroup.Duplicate",
            "ok",
            "InvalidPermission.Duplicate",
            "ok",
            "InvalidPermission.NotFound",
            "ok",
            "InvalidPermission.Duplicate",
            "ok",
            "InvalidPermission.NotFound",
            "InvalidGroup.NotFound",
            "ok",
            "InvalidGroup.NotFound",
            "InvalidGroup.NotFound",
            "InvalidGroup.NotFound",
        ],
        "DeleteSecurityGroup fails with DependencyViolation for a group that another refers to; moto deletes it",
    ),
)
def security_groups(peer: Peer) -> list[str]:
    """A group and its rules, each twice; a rule from a group that is not there; deleted while another refers to it."""
    vpc = peer.shared_network.vpc
    name = peer.name("group")
    create = {"GroupName": name, "Description": name, "VpcId": vpc}
    group = peer.aws.must("ec2", "CreateSecurityGroup", **create)["GroupId"]
    codes = [peer.code("ec2", "CreateSecurityGroup", **create)]
    for side in ("Ingress", "Egress"):
        for verb in ("Authorize", "Authorize", "Revoke", "Revoke"):
            codes.append(peer.code("ec2", f"{verb}SecurityGroup{side}", GroupId=group, IpPermissions=HTTPS))
    other = peer.group(vpc)

    def from_group(source: str) -> dict:
        return {"GroupId": other, "IpPermissions": [{"IpProtocol": "-1", "UserIdGroupPairs": [{"GroupId": source}]}]}

    codes += [
        peer.code("ec2", "AuthorizeSecurityGroupIngress", **from_group(f"sg-{GONE}")),
    ]
    peer.aws.must("ec2", "AuthorizeSecurityGroupIngress", **from_group(group))
    codes.append(peer.code("ec2", "DeleteSecurityGroup", GroupId=group))
    codes.append(peer.code("ec2", "RevokeSecurityGroupIngress", **from_group(group)))
    codes += [peer.code("ec2", "DeleteSecurityGroup", GroupId=group) for _ in range(2)]
    peer.code("ec2", "DeleteSecurityGroup", GroupId=other)
    return codes


@behaviour(
    "ec2:DeleteSecurityGroup",
    "CannotDelete",
    moto=MotoDiffers("ok", "CannotDelete: 'You cannot delete a default security group'; moto does"),
)
def default_group(peer: Peer) -> str:
    """The default group of a VPC is not deleted."""
    vpc = peer.vpc("10.9.0.0/16")
    filters = [{"Name": "vpc-id", "Values": [vpc]}, {"Name": "group-name", "Values": ["default"]}]
    group = peer.aws.must("ec2", "DescribeSecurityGroups", Filters=filters)["SecurityGroups"][0]["GroupId"]
    code = peer.code("ec2", "DeleteSecurityGroup", GroupId=group)
    peer.code("ec2", "DeleteVpc", VpcId=vpc)
    return code


@behaviour("ec2:AuthorizeSecurityGroupIngress", "InvalidParameterValue")
def rule_from_no_range(peer: Peer) -> str:
    """A rule from a range that is none."""
    group = peer.group(peer.shared_network.vpc)
    rule = [{"IpProtocol": "tcp", "FromPort": 1, "ToPort": 1, "IpRanges": [{"CidrIp": "everywhere"}]}]
    code = peer.code("ec2", "AuthorizeSecurityGroupIngress", GroupId=group, IpPermissions=rule)
    peer.code("ec2", "DeleteSecurityGroup", GroupId=group)
    return code
