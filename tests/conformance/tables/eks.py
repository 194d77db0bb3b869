"""Behaviours of EKS."""

from typing import Any

from harness.behaviour import MotoDiffers, Peer, Table
from harness.polling import until

TABLE = Table()
behaviour = TABLE.behaviour
LACKS = MotoDiffers("could not be played", "moto has no such route and answers 404 with a page of its web server")
IN_USE, INVALID, GONE = "ResourceInUseException", "InvalidParameterException", "ResourceNotFoundException"


def request(peer: Peer, **more: Any) -> dict[str, Any]:
    """The parameters of a cluster that is accepted at once."""
    role = peer.role_arn(peer.role())
    return {
        "name": peer.name("cluster"),
        "roleArn": role,
        "resourcesVpcConfig": {"subnetIds": peer.shared_network.subnets},
        "accessConfig": {"authenticationMode": "API"},
        **more,
    }


@behaviour(
    "eks:CreateCluster eks:DeleteCluster",
    ["CREATING", "same", INVALID, IN_USE, "ACTIVE", "DELETING", "DELETING", GONE],
    moto=MotoDiffers(
        [
            "ACTIVE",
            "ResourceInUseException",
            "ResourceInUseException",
            "ResourceInUseException",
            "ACTIVE",
            "ACTIVE",
            "gone",
            "ResourceNotFoundException",
        ],
        "moto has no states and no tokens of EKS",
    ),
)
def clusters(peer: Peer) -> list[str]:
    """A cluster by token, under a name that is taken, its states from asked for to gone."""
    create = request(peer, clientRequestToken=peer.name("token"))
    until("the role is known", lambda: peer.aws.call("eks", "CreateCluster", **create).ok)
    name = create["name"]
    again = peer.aws.call("eks", "CreateCluster", **create)
    seen = [peer.cluster_status(name), "same" if again.ok else again.code]
    seen.append(peer.code("eks", "CreateCluster", **{**create, "version": "1.34"}))
    seen.append(peer.code("eks", "CreateCluster", **{**create, "clientRequestToken": peer.name("token")}))
    until("the cluster is active", lambda: peer.cluster_status(name) == "ACTIVE")
    seen.append(peer.cluster_status(name))
    answer = peer.aws.must("eks", "DeleteCluster", name=name)
    seen += [answer["cluster"]["status"], peer.cluster_status(name)]
    until("the cluster is gone", lambda: peer.cluster_status(name) == "gone")
    return [*seen, peer.code("eks", "DeleteCluster", name=name)]


@behaviour(
    "eks:CreateCluster",
    [INVALID] * 4,
    moto=MotoDiffers(
        ["ok", "ResourceInUseException", "ResourceInUseException", "ResourceInUseException"],
        "moto looks at neither role nor subnets nor version, so that the first is made, and in the way",
    ),
)
def clusters_that_cannot_be(peer: Peer) -> list[str]:
    """Clusters without a role, without a subnet that exists, in one zone, of no version."""
    subnets = peer.shared_network.subnets
    role = peer.role_arn(peer.role())
    elsewhere = role.rsplit("/", 1)[0] + "/nobody"
    wrong: list[dict[str, Any]] = [
        {"roleArn": elsewhere},
        {"resourcesVpcConfig": {"subnetIds": [subnets[0], "subnet-0123456789abcdef0"]}},
        {"resourcesVpcConfig": {"subnetIds": subnets[:1]}},
        {"version": "9.99"},
    ]
    create = {**request(peer), "roleArn": role}
    return [peer.code("eks", "CreateCluster", **{**create, **one}) for one in wrong]


@behaviour(
    "eks:UpdateClusterConfig eks:UpdateClusterVersion eks:AssociateEncryptionConfig eks:DeleteCluster",
    ["ok", IN_USE, "same", INVALID, INVALID, INVALID, "ok", "InvalidRequestException", "ok", "ok", INVALID],
    moto=MotoDiffers(
        "could not be played: KeyError: 'update'",
        "moto's UpdateClusterConfig answers the cluster instead of an update; it has no other update",
    ),
)
def cluster_changes(peer: Peer) -> list[str]:
    """A cluster is changed one thing at a time, to something else, by token, and not deleted while protected."""
    name = peer.cluster(peer.shared_network, version="1.33")
    token = peer.name("token")

    def change(**what: Any) -> str:
        return peer.code("eks", "UpdateClusterConfig", name=name, **what)

    narrow = {"resourcesVpcConfig": {"publicAccessCidrs": ["10.0.0.0/8"]}}
    logs = {"logging": {"clusterLogging": [{"types": ["api"], "enabled": True}]}}
    first = peer.aws.must("eks", "UpdateClusterConfig", name=name, clientRequestToken=token, **narrow)
    seen = ["ok", change(**logs)]
    again = peer.aws.must("eks", "UpdateClusterConfig", name=name, clientRequestToken=token, **narrow)
    seen.append("same" if again["update"]["id"] == first["update"]["id"] else "another")
    peer.at_rest(name)
    seen += [change(**narrow), change(**logs, **{"resourcesVpcConfig": {"publicAccessCidrs": ["0.0.0.0/0"]}})]
    seen.append(peer.code("eks", "UpdateClusterVersion", name=name, version="1.36"))
    seen.append(change(deletionProtection=True))
    peer.at_rest(name)
    seen.append(peer.code("eks", "DeleteCluster", name=name))
    change(deletionProtection=False)
    peer.at_rest(name)
    arn = peer.aws.must("kms", "DescribeKey", KeyId=peer.key())["KeyMetadata"]["Arn"]
    secrets = {"clusterName": name, "encryptionConfig": [{"resources": ["secrets"], "provider": {"keyArn": arn}}]}
    seen.append(peer.code("eks", "AssociateEncryptionConfig", **secrets))
    peer.at_rest(name)
    seen.append(peer.code("eks", "UpdateClusterVersion", name=name, version="1.34"))
    peer.at_rest(name)
    seen.append(peer.code("eks", "AssociateEncryptionConfig", **secrets))
    peer.code("eks", "DeleteCluster", name=name)
    return seen


@behaviour(
    "eks:CreateNodegroup eks:DeleteNodegroup eks:DeleteCluster",
    ["CREATING", "same", INVALID, IN_USE, IN_USE, "DELETING", "ok", GONE],
    moto=MotoDiffers(
        [
            "ACTIVE",
            "ResourceInUseException",
            "ResourceInUseException",
            "ResourceInUseException",
            "ResourceInUseException",
            "ACTIVE",
            "ResourceNotFoundException",
            "ResourceNotFoundException",
        ],
        "moto has no states and no tokens of EKS; a deleted group is gone at once",
    ),
)
def node_groups(peer: Peer) -> list[str]:
    """A node group by token, under a name that is taken; it keeps its cluster; deleted until it is gone."""
    cluster, role = peer.shared_cluster, peer.role_arn(peer.role("ec2.amazonaws.com"))
    create: dict[str, Any] = {
        "clusterName": cluster, "nodegroupName": peer.name("nodes"), "nodeRole": role,
        "subnets": peer.shared_network.subnets, "clientRequestToken": peer.name("token"),
        "scalingConfig": {"minSize": 1, "desiredSize": 1, "maxSize": 2},
    }  # fmt: skip
    until("the role is known", lambda: peer.aws.call("eks", "CreateNodegroup", **create).ok)
    name = {"clusterName": cluster, "nodegroupName": create["nodegroupName"]}
    again = peer.aws.call("eks", "CreateNodegroup", **create)
    seen = [peer.nodes_status(*name.values()), "same" if again.ok else again.code]
    seen.append(peer.code("eks", "CreateNodegroup", **{**create, "capacityType": "SPOT"}))
    seen.append(peer.code("eks", "CreateNodegroup", **{**create, "clientRequestToken": peer.name("token")}))
    seen.append(peer.code("eks", "DeleteCluster", name=cluster))
    answer = peer.aws.must("eks", "DeleteNodegroup", **name)
    seen += [answer["nodegroup"]["status"], peer.code("eks", "DeleteNodegroup", **name)]
    until("the group is gone", lambda: peer.nodes_status(*name.values()) == "gone")
    return [*seen, peer.code("eks", "DeleteNodegroup", **name)]


@behaviour(
    "eks:CreateNodegroup",
    [INVALID] * 4,
    moto=MotoDiffers(
        ["ok", "ResourceInUseException", "ResourceInUseException", "ResourceInUseException"],
        "moto looks at neither types nor sizes nor role, so that the first is made, and in the way",
    ),
)
def node_groups_that_cannot_be(peer: Peer) -> list[str]:
    """Node groups of no known type, of the wrong architecture, of an impossible size, without a role."""
    role = peer.role_arn(peer.role("ec2.amazonaws.com"))
    create: dict[str, Any] = {
        "clusterName": peer.shared_cluster, "nodegroupName": peer.name("nodes"), "nodeRole": role,
        "subnets": peer.shared_network.subnets, "scalingConfig": {"minSize": 1, "desiredSize": 1, "maxSize": 2},
    }  # fmt: skip
    wrong: list[dict[str, Any]] = [
        {"instanceTypes": ["t9.huge"]},
        {"instanceTypes": ["r6g.large"], "amiType": "AL2023_x86_64_STANDARD"},
        {"scalingConfig": {"minSize": 3, "desiredSize": 1, "maxSize": 2}},
        {"nodeRole": role.rsplit("/", 1)[0] + "/nobody"},
    ]
    codes = [peer.code("eks", "CreateNodegroup", **{**create, **one}) for one in wrong]
    peer.code("eks", "DeleteNodegroup", clusterName=create["clusterName"], nodegroupName=create["nodegroupName"])
    return codes


@behaviour(
    "eks:UpdateNodegroupConfig eks:UpdateNodegroupVersion",
    ["ACTIVE", "ok", "UPDATING", IN_USE, "ACTIVE", {"a": "1"}, "ok", GONE],
    moto=MotoDiffers(
        ["ACTIVE", "ok", "ACTIVE", "404", "ACTIVE", {"a": "1"}, "404", "ResourceNotFoundException"],
        "moto has no states of EKS, and no route for UpdateNodegroupVersion",
    ),
)
def node_group_changes(peer: Peer) -> list[object]:
    """A node group is changed one thing at a time."""
    cluster = peer.shared_cluster
    nodes = {"clusterName": cluster, "nodegroupName": peer.nodes(cluster, peer.shared_network)}
    group = tuple(nodes.values())
    until("the group settles", lambda: peer.nodes_status(*group) not in ("CREATING", "UPDATING"))
    seen: list[object] = [peer.nodes_status(*group)]
    relabelled = {**nodes, "labels": {"addOrUpdateLabels": {"a": "1"}}}
    seen += [peer.code("eks", "UpdateNodegroupConfig", **relabelled), peer.nodes_status(*group)]
    seen.append(peer.code("eks", "UpdateNodegroupVersion", **nodes))
    until("the group settles", lambda: peer.nodes_status(*group) != "UPDATING")
    found = peer.aws.must("eks", "DescribeNodegroup", **nodes)["nodegroup"]
    seen += [found["status"], found["labels"], peer.code("eks", "UpdateNodegroupVersion", **nodes)]
    until("the group settles", lambda: peer.nodes_status(*group) != "UPDATING")
    peer.code("eks", "DeleteNodegroup", **nodes)
    until("the group is gone", lambda: peer.nodes_status(*group) == "gone")
    return [*seen, peer.code("eks", "UpdateNodegroupConfig", **nodes)]


@behaviour(
    "eks:CreateAddon eks:UpdateAddon eks:DeleteAddon",
    ["CREATING", IN_USE, INVALID, INVALID, "ACTIVE", "ok", "UPDATING", "DELETING", GONE, GONE],
    LACKS,
)
def addons(peer: Peer) -> list[str]:
    """An add-on from asked for to gone; one of no name, one of no version."""
    cluster = peer.shared_cluster
    addon = {"clusterName": cluster, "addonName": "kube-proxy"}

    def status() -> str:
        outcome = peer.aws.call("eks", "DescribeAddon", **addon)
        return outcome.answer["addon"]["status"] if outcome.ok else outcome.code

    seen = [peer.aws.must("eks", "CreateAddon", **addon)["addon"]["status"], peer.code("eks", "CreateAddon", **addon)]
    seen.append(peer.code("eks", "CreateAddon", clusterName=cluster, addonName="no-such-addon"))
    seen.append(peer.code("eks", "CreateAddon", clusterName=cluster, addonName="coredns", addonVersion="v0.0.1"))
    until("the add-on settles", lambda: status() != "CREATING")
    seen += [status(), peer.code("eks", "UpdateAddon", **addon, resolveConflicts="OVERWRITE"), status()]
    until("the add-on settles", lambda: status() != "UPDATING")
    seen.append(peer.aws.must("eks", "DeleteAddon", **addon)["addon"]["status"])
    until("the add-on is gone", lambda: status() == GONE)
    return [*seen, status(), peer.code("eks", "DeleteAddon", **addon)]


@behaviour(
    "eks:CreateAccessEntry eks:UpdateAccessEntry eks:DeleteAccessEntry eks:AssociateAccessPolicy "
    "eks:DisassociateAccessPolicy",
    [IN_USE, "ok", ["b"], "ok", "ok", 1, INVALID, "ok", "ok", GONE],
    LACKS,
)
def access_entries(peer: Peer) -> list[object]:
    """An access entry made twice, changed, with a policy twice and one that is none, taken away twice."""
    arn = peer.role_arn(peer.role("ec2.amazonaws.com"))
    entry = {"clusterName": peer.shared_cluster, "principalArn": arn}
    peer.aws.must("sts", "GetCallerIdentity")

    def accepted() -> bool:
        outcome = peer.aws.call("eks", "CreateAccessEntry", **entry, kubernetesGroups=["a"])
        if outcome.code not in ("", INVALID):
            raise AssertionError(outcome.code)
        return outcome.ok

    until("the principal is known", accepted)
    policies = "arn:aws:eks::aws:cluster-access-policy"
    view = {**entry, "policyArn": f"{policies}/AmazonEKSViewPolicy"}
    seen: list[object] = [peer.code("eks", "CreateAccessEntry", **entry)]
    seen.append(peer.code("eks", "UpdateAccessEntry", **entry, kubernetesGroups=["b"]))
    seen.append(peer.aws.must("eks", "DescribeAccessEntry", **entry)["accessEntry"]["kubernetesGroups"])
    everywhere = {"accessScope": {"type": "cluster"}}
    seen += [peer.code("eks", "AssociateAccessPolicy", **view, **everywhere) for _ in range(2)]
    seen.append(len(peer.aws.must("eks", "ListAssociatedAccessPolicies", **entry)["associatedAccessPolicies"]))
    seen.append(peer.code("eks", "AssociateAccessPolicy", **{**view, "policyArn": f"{policies}/None"}, **everywhere))
    seen.append(peer.code("eks", "DisassociateAccessPolicy", **view))
    return seen + [peer.code("eks", "DeleteAccessEntry", **entry) for _ in range(2)]


@behaviour(
    "eks:TagResource",
    ["ok", "1", "NotFoundException", "BadRequestException"],
    moto=MotoDiffers(
        ["ok", "1", "ResourceNotFoundException", "ok"],
        "the model of TagResource has NotFoundException and BadRequestException and nothing else",
    ),
)
def cluster_tags(peer: Peer) -> list[str]:
    """A cluster is tagged; what is not there is not, nor with a key of AWS's own."""
    cluster = peer.aws.must("eks", "DescribeCluster", name=peer.shared_cluster)["cluster"]
    code = peer.code("eks", "TagResource", resourceArn=cluster["arn"], tags={"a": "1"})
    found = peer.aws.must("eks", "DescribeCluster", name=peer.shared_cluster)["cluster"]
    return [
        code,
        found.get("tags", {}).get("a", ""),
        peer.code("eks", "TagResource", resourceArn=cluster["arn"] + "-none", tags={"a": "1"}),
        peer.code("eks", "TagResource", resourceArn=cluster["arn"], tags={"aws:a": "1"}),
    ]


@behaviour(
    "ec2:DeleteSecurityGroup ec2:DeleteSubnet",
    ["DependencyViolation", "DependencyViolation"],
    moto=MotoDiffers(
        ["InvalidGroup.NotFound", "ok"],
        "a cluster has interfaces in its subnets and a group of its own; moto makes neither",
    ),
)
def what_a_cluster_holds(peer: Peer) -> list[str]:
    """A cluster's own group and its subnets are held by its interfaces."""
    config = peer.aws.must("eks", "DescribeCluster", name=peer.shared_cluster)["cluster"]["resourcesVpcConfig"]
    group = config.get("clusterSecurityGroupId", "none")
    return [
        peer.code("ec2", "DeleteSecurityGroup", GroupId=group),
        peer.code("ec2", "DeleteSubnet", SubnetId=config["subnetIds"][0]),
    ]
