"""Lists in pages, and lists of which a part is asked for: EKS, IAM, KMS, CloudWatch Logs."""

from typing import Any

from harness.aws import Aws
from harness.aws_world import trust
from harness.behaviour import MotoDiffers, Peer, Table
from harness.polling import until

TABLE = Table()
behaviour = TABLE.behaviour


def turned(peer: Peer, service: str, operation: str, names: tuple[str, str, str, str], **more: Any) -> list[list[Any]]:
    """All pages of a list: `names` are those of the size, the token asked, the token answered and the list."""
    size, asked, answered, listed = names
    found: list[list[Any]] = []
    token: dict[str, Any] = {}
    while len(found) < 500:
        answer = peer.aws.must(service, operation, **more, **token, **{size: 1})
        found.append(answer[listed])
        if not answer.get(answered):
            break
        token = {asked: answer[answered]}
    return found


def told(pages: list[list[Any]], mine: set[str], name: str | None = None) -> list[Any]:
    """Of the pages: whether each holds one, and whether what was made is there, once."""
    seen = [one[name] if name else one for page in pages for one in page]
    return [all(len(page) <= 1 for page in pages), sorted(seen.count(one) for one in mine)]


@behaviour("eks:ListAccessEntries eks:ListAddons eks:ListNodegroups eks:ListClusters", [[True, [1, 1]], [True, [1, 1]],
           "InvalidParameterException", "InvalidParameterException"],
           moto=MotoDiffers("could not be played", "it has no access entries to list (404)"))  # fmt: skip
def eks_pages(peer: Peer) -> list[Any]:
    """Lists of EKS come in pages of the size asked for; a token that nobody gave is refused, and so is a size of 101."""
    cluster, lenient = peer.shared_cluster, Aws(peer.aws.endpoint, validate_input=False)
    roles = {peer.role_arn(peer.role("ec2.amazonaws.com")) for _ in range(2)}
    for arn in roles:
        entry = {"clusterName": cluster, "principalArn": arn}
        # A fresh role is not known everywhere at once; what else may be wrong, the next call tells.
        unknown = lambda entry=entry: peer.code("eks", "CreateAccessEntry", **entry) == "InvalidParameterException"  # noqa: E731
        until("the role is known", lambda unknown=unknown: not unknown())
        peer.aws.must("eks", "DescribeAccessEntry", **entry)
    names = ("maxResults", "nextToken", "nextToken")
    entries = turned(peer, "eks", "ListAccessEntries", (*names, "accessEntries"), clusterName=cluster)
    for arn in roles:
        peer.aws.must("eks", "DeleteAccessEntry", clusterName=cluster, principalArn=arn)
    peer.aws.call("eks", "CreateAddon", clusterName=cluster, addonName="kube-proxy")
    addons = turned(peer, "eks", "ListAddons", (*names, "addons"), clusterName=cluster)
    peer.aws.call("eks", "DeleteAddon", clusterName=cluster, addonName="kube-proxy")
    peer.code("eks", "ListNodegroups", clusterName=cluster)
    return [
        told(entries, roles),
        told(addons, {"vpc-cni", "kube-proxy"}),
        peer.code("eks", "ListClusters", nextToken="of nobody"),
        lenient.call("eks", "ListClusters", maxResults=101).code,
    ]


@behaviour("iam:ListRoles iam:ListAttachedRolePolicies iam:ListRoleTags", [[True, [1, 1]], [True, [1, 1]], [True, [1, 1]],
           "ValidationError"],
           moto=MotoDiffers([[True, [1, 1]], [True, [1, 1]], [True, [1, 1]], "unreadable 500"],
                            "moto breaks on a marker that it did not give"))  # fmt: skip
def iam_pages(peer: Peer) -> list[Any]:
    """Lists of IAM come in pages: roles, a role's policies, its tags; a strange marker is refused."""
    first, second = peer.role(), peer.role()
    policies = {f"arn:aws:iam::aws:policy/{name}" for name in ("AmazonEKSClusterPolicy", "AmazonEKSWorkerNodePolicy")}
    for arn in policies:
        peer.aws.must("iam", "AttachRolePolicy", RoleName=first, PolicyArn=arn)
    peer.aws.must("iam", "TagRole", RoleName=first, Tags=[{"Key": key, "Value": "1"} for key in ("a", "b")])
    names = ("MaxItems", "Marker", "Marker")
    roles = turned(peer, "iam", "ListRoles", (*names, "Roles"))
    attached = turned(peer, "iam", "ListAttachedRolePolicies", (*names, "AttachedPolicies"), RoleName=first)
    tags = turned(peer, "iam", "ListRoleTags", (*names, "Tags"), RoleName=first)
    for arn in policies:
        peer.aws.must("iam", "DetachRolePolicy", RoleName=first, PolicyArn=arn)
    seen = [
        told(roles, {first, second}, "RoleName"),
        told(attached, policies, "PolicyArn"),
        told(tags, {"a", "b"}, "Key"),
        peer.code("iam", "ListRoles", Marker="of nobody"),
    ]
    for name in (first, second):
        peer.aws.must("iam", "DeleteRole", RoleName=name)
    return seen


@behaviour("kms:ListKeys kms:ListAliases", [[True, [1, 1]], [True, [1, 1]], ["b"], "InvalidMarkerException"],
           moto=MotoDiffers([[False, [1, 1]], [False, [1, 1]], ["b"], "ok"],
                            "both models have Limit, Marker and Truncated; moto answers everything at once"))  # fmt: skip
def kms_pages(peer: Peer) -> list[Any]:
    """Keys and aliases come in pages; aliases are asked for by their key; a strange marker is refused."""
    keys = [peer.key(), peer.key()]
    for key, name in zip(keys, ("a", "b"), strict=True):
        peer.aws.must("kms", "CreateAlias", AliasName=f"alias/pages-{name}", TargetKeyId=key)
    names = ("Limit", "Marker", "NextMarker")
    listed = turned(peer, "kms", "ListKeys", (*names, "Keys"))
    aliases = turned(peer, "kms", "ListAliases", (*names, "Aliases"))
    of_second = peer.aws.must("kms", "ListAliases", KeyId=keys[1])["Aliases"]
    seen = [
        told(listed, set(keys), "KeyId"),
        told(aliases, {"alias/pages-a", "alias/pages-b"}, "AliasName"),
        [one["AliasName"].removeprefix("alias/pages-") for one in of_second],
        peer.code("kms", "ListKeys", Marker="of nobody"),
    ]
    for key, name in zip(keys, ("a", "b"), strict=True):
        peer.aws.must("kms", "DeleteAlias", AliasName=f"alias/pages-{name}")
        peer.aws.must("kms", "ScheduleKeyDeletion", KeyId=key, PendingWindowInDays=7)
    return seen


@behaviour("logs:DescribeLogGroups", [[True, [1, 1, 1]], ["/pages/a", "/pages/b"], ["/pages/b"],
           "InvalidParameterException", "InvalidParameterException"],
           moto=MotoDiffers([[True, [1, 1, 1]], ["/pages/a", "/pages/b"], ["/other/pages", "/pages/a", "/pages/b"],
                             "ok", "InvalidParameterException"],
                            "the pattern is part of a name, by the reference; moto ignores it, and strange tokens"))  # fmt: skip
def log_pages(peer: Peer) -> list[Any]:
    """Log groups come in pages, by prefix and by pattern; a strange token is refused, and so is a page of 51."""
    lenient = Aws(peer.aws.endpoint, validate_input=False)
    groups = {"/pages/a", "/pages/b", "/other/pages"}
    for name in groups:
        peer.aws.must("logs", "CreateLogGroup", logGroupName=name)
    names = ("limit", "nextToken", "nextToken", "logGroups")
    all_ = turned(peer, "logs", "DescribeLogGroups", names)
    by = lambda **how: sorted(one["logGroupName"] for one in peer.aws.must("logs", "DescribeLogGroups", **how)["logGroups"])  # noqa: E731
    seen = [
        told(all_, groups, "logGroupName"),
        by(logGroupNamePrefix="/pages"),
        by(logGroupNamePattern="es/b"),
        peer.code("logs", "DescribeLogGroups", nextToken="of nobody"),
        lenient.call("logs", "DescribeLogGroups", limit=51).code,
    ]
    for name in groups:
        peer.aws.must("logs", "DeleteLogGroup", logGroupName=name)
    return seen


@behaviour("iam:ListRoles iam:CreateRole", [["ValidationError", "ok"], "role/platform/", [1, 0]],
           moto=MotoDiffers([["ok", "EntityAlreadyExists"], "role/platform", [0, 0]],
                            "a path begins and ends with a slash, by the model's pattern; moto takes any"))  # fmt: skip
def roles_by_path(peer: Peer) -> list[Any]:
    """A role under a path has it in its ARN, and is listed by it; a path that is none is refused."""
    name = peer.name("pathed")
    create: dict[str, Any] = {"RoleName": name, "AssumeRolePolicyDocument": trust("ec2.amazonaws.com")}
    codes = [peer.code("iam", "CreateRole", **create, Path=path) for path in ("/platform", "/platform/")]
    arn = peer.role_arn(name)
    counts = [len(peer.aws.must("iam", "ListRoles", PathPrefix=prefix)["Roles"]) for prefix in ("/platform/", "/other/")]
    peer.code("iam", "DeleteRole", RoleName=name)
    return [codes, arn.split(":")[5].removesuffix(name), counts]


@behaviour("eks:DescribeClusterVersions", [["1.34"], ["1.35"], True, [], "InvalidParameterException"],
           moto=MotoDiffers("could not be played", "it has no route for DescribeClusterVersions (404)"))  # fmt: skip
def versions_by_filter(peer: Peer) -> list[Any]:
    """Versions of Kubernetes: by name, the default alone, by the support they have; one that is none is none."""

    def found(**how: Any) -> list[str]:
        answer = peer.aws.must("eks", "DescribeClusterVersions", **how)["clusterVersions"]
        return [one["clusterVersion"] for one in answer]

    standard, extended = (set(found(versionStatus=f"{which}_SUPPORT")) for which in ("STANDARD", "EXTENDED"))
    lenient = Aws(peer.aws.endpoint, validate_input=False)
    return [
        found(clusterVersions=["1.34"]),
        found(defaultOnly=True),
        bool(standard) and bool(extended) and not standard & extended,
        found(clusterVersions=["1.2"]),
        lenient.call("eks", "DescribeClusterVersions", versionStatus="NONE").code,
    ]
