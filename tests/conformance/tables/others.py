"""Behaviours of IAM, KMS, CloudWatch Logs, load balancing and Auto Scaling."""

import json
from typing import Any

from harness.aws_world import trust
from harness.behaviour import MotoDiffers, Peer, Table

TABLE = Table()
behaviour = TABLE.behaviour
MANAGED = "arn:aws:iam::aws:policy/AmazonEKSClusterPolicy"
DOCUMENT = json.dumps(
    {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:Get*", "Resource": "*"}]}
)


@behaviour(
    "iam:CreateRole iam:UpdateRole iam:UpdateAssumeRolePolicy iam:TagRole iam:DeleteRole",
    ["EntityAlreadyExists", "MalformedPolicyDocument", "ok", "words", "ok", "ec2.amazonaws.com"]
    + ["MalformedPolicyDocument", "ok", "2", "ok", "NoSuchEntity"],
    moto=MotoDiffers(
        [
            "EntityAlreadyExists",
            "ok",
            "ok",
            "words",
            "ok",
            "ec2.amazonaws.com",
            "MalformedPolicyDocument",
            "ok",
            "2",
            "ok",
            "NoSuchEntity",
        ],
        "the model of CreateRole has MalformedPolicyDocument; moto reads the document only when it is updated",
    ),
)
def roles(peer: Peer) -> list[str]:
    """A role made twice, with a policy that is none, changed in every way, deleted twice."""
    name = peer.role()
    role = {"RoleName": name}
    create: dict[str, Any] = {**role, "AssumeRolePolicyDocument": trust("eks.amazonaws.com")}
    seen = [
        peer.code("iam", "CreateRole", **create),
        peer.code("iam", "CreateRole", RoleName=f"{name}-other", AssumeRolePolicyDocument="{no"),
        peer.code("iam", "UpdateRole", **role, Description="words"),
    ]
    seen.append(peer.aws.must("iam", "GetRole", **role)["Role"]["Description"])
    seen.append(peer.code("iam", "UpdateAssumeRolePolicy", **role, PolicyDocument=trust("ec2.amazonaws.com")))
    document = peer.aws.must("iam", "GetRole", **role)["Role"]["AssumeRolePolicyDocument"]
    seen.append(document["Statement"][0]["Principal"]["Service"])
    seen.append(peer.code("iam", "UpdateAssumeRolePolicy", **role, PolicyDocument="{no"))
    for value in ("1", "2"):
        code = peer.code("iam", "TagRole", **role, Tags=[{"Key": "a", "Value": value}])
    tags = peer.aws.must("iam", "ListRoleTags", **role)["Tags"]
    seen += [code, tags[0]["Value"]]
    return seen + [peer.code("iam", "DeleteRole", **role) for _ in range(2)]


@behaviour(
    "iam:AttachRolePolicy iam:DetachRolePolicy iam:PutRolePolicy iam:DeleteRolePolicy iam:DeleteRole",
    ["ok", "ok", 1, "DeleteConflict", "ok", "NoSuchEntity"]
    + ["ok", "ok", "MalformedPolicyDocument", "DeleteConflict", "ok", "NoSuchEntity", "ok"],
)
def policies(peer: Peer) -> list[object]:
    """Policies of a role, each put and taken away twice; while it has one it is not deleted."""
    role = {"RoleName": peer.role()}
    managed, inline = {**role, "PolicyArn": MANAGED}, {**role, "PolicyName": "inline"}
    seen: list[object] = [peer.code("iam", "AttachRolePolicy", **managed) for _ in range(2)]
    seen.append(len(peer.aws.must("iam", "ListAttachedRolePolicies", **role)["AttachedPolicies"]))
    seen.append(peer.code("iam", "DeleteRole", **role))
    seen += [peer.code("iam", "DetachRolePolicy", **managed) for _ in range(2)]
    seen += [peer.code("iam", "PutRolePolicy", **inline, PolicyDocument=DOCUMENT) for _ in range(2)]
    seen.append(peer.code("iam", "PutRolePolicy", **inline, PolicyDocument="{no"))
    seen.append(peer.code("iam", "DeleteRole", **role))
    seen += [peer.code("iam", "DeleteRolePolicy", **inline) for _ in range(2)]
    return [*seen, peer.code("iam", "DeleteRole", **role)]


@behaviour(
    "iam:RemoveRoleFromInstanceProfile iam:DeleteRole",
    [1, "LimitExceeded", "DeleteConflict", "DeleteConflict", "ok", "NoSuchEntity", "ok", "NoSuchEntity", "ok"],
    moto=MotoDiffers(
        [1, "LimitExceeded", "DeleteConflict", "DeleteConflict", "ok", "unreadable 500", "ok", "NoSuchEntity", "ok"],
        "moto fails with a server error of its own (500, HTML); the model lists NoSuchEntity",
    ),
)
def instance_profiles(peer: Peer) -> list[object]:
    """A role in an instance profile is not deleted, and is taken out twice."""
    name, other = peer.role("ec2.amazonaws.com"), peer.role("ec2.amazonaws.com")
    profile = {"InstanceProfileName": name}
    peer.aws.must("iam", "CreateInstanceProfile", **profile)
    peer.aws.must("iam", "AddRoleToInstanceProfile", **profile, RoleName=name)
    found = peer.aws.must("iam", "ListInstanceProfilesForRole", RoleName=name)["InstanceProfiles"]
    seen: list[object] = [len(found), peer.code("iam", "AddRoleToInstanceProfile", **profile, RoleName=other)]
    seen.append(peer.code("iam", "DeleteInstanceProfile", **profile))
    seen.append(peer.code("iam", "DeleteRole", RoleName=name))
    seen += [peer.code("iam", "RemoveRoleFromInstanceProfile", **profile, RoleName=name) for _ in range(2)]
    seen += [peer.code("iam", "DeleteInstanceProfile", **profile) for _ in range(2)]
    peer.code("iam", "DeleteRole", RoleName=other)
    return [*seen, peer.code("iam", "DeleteRole", RoleName=name)]


@behaviour(
    "iam:CreateOpenIDConnectProvider iam:AddClientIDToOpenIDConnectProvider iam:TagOpenIDConnectProvider "
    "iam:RemoveClientIDFromOpenIDConnectProvider iam:DeleteOpenIDConnectProvider",
    ["EntityAlreadyExists", "ok", "ok", ["a", "b"], "ok", "ok", ["a"], "ok", 1, "ok", "NoSuchEntity"],
    moto=MotoDiffers(
        [
            "EntityAlreadyExists",
            "unreadable 500",
            "unreadable 500",
            ["a"],
            "unreadable 500",
            "unreadable 500",
            ["a"],
            "ok",
            1,
            "ok",
            "NoSuchEntity",
        ],
        "moto has no such calls and answers 500 with a page of its web server",
    ),
)
def oidc_providers(peer: Peer) -> list[object]:
    """An OIDC provider made twice, clients added and removed twice, tagged, deleted, then looked for."""
    create = {"Url": f"https://oidc.example.com/id/{peer.name('provider')}", "ClientIDList": ["a"]}
    arn = peer.aws.must("iam", "CreateOpenIDConnectProvider", **create)["OpenIDConnectProviderArn"]
    provider = {"OpenIDConnectProviderArn": arn}

    def clients() -> list[str]:
        return sorted(peer.aws.must("iam", "GetOpenIDConnectProvider", **provider)["ClientIDList"])

    seen: list[object] = [peer.code("iam", "CreateOpenIDConnectProvider", **create)]
    seen += [peer.code("iam", "AddClientIDToOpenIDConnectProvider", **provider, ClientID="b") for _ in range(2)]
    seen.append(clients())
    seen += [peer.code("iam", "RemoveClientIDFromOpenIDConnectProvider", **provider, ClientID="b") for _ in range(2)]
    seen.append(clients())
    seen.append(peer.code("iam", "TagOpenIDConnectProvider", **provider, Tags=[{"Key": "a", "Value": "1"}]))
    seen.append(len(peer.aws.must("iam", "ListOpenIDConnectProviderTags", **provider)["Tags"]))
    seen.append(peer.code("iam", "DeleteOpenIDConnectProvider", **provider))
    return [*seen, peer.code("iam", "GetOpenIDConnectProvider", **provider)]


@behaviour(
    "kms:CreateKey kms:EnableKeyRotation kms:DisableKeyRotation kms:UpdateKeyDescription kms:TagResource",
    ["Enabled", False, "ok", True, "ok", False, "ok", "words", "ok", "2"],
)
def keys(peer: Peer) -> list[object]:
    """A key changed in every way."""
    key = {"KeyId": peer.key()}

    def rotates() -> bool:
        return peer.aws.must("kms", "GetKeyRotationStatus", **key)["KeyRotationEnabled"]

    seen: list[object] = [peer.aws.must("kms", "DescribeKey", **key)["KeyMetadata"]["KeyState"], rotates()]
    seen += [peer.code("kms", "EnableKeyRotation", **key), rotates()]
    seen += [peer.code("kms", "DisableKeyRotation", **key), rotates()]
    seen.append(peer.code("kms", "UpdateKeyDescription", **key, Description="words"))
    seen.append(peer.aws.must("kms", "DescribeKey", **key)["KeyMetadata"]["Description"])
    for value in ("1", "2"):
        code = peer.code("kms", "TagResource", **key, Tags=[{"TagKey": "a", "TagValue": value}])
    return [*seen, code, peer.aws.must("kms", "ListResourceTags", **key)["Tags"][0]["TagValue"]]


@behaviour(
    "kms:CreateAlias kms:DeleteAlias",
    ["AlreadyExistsException", "AlreadyExistsException", "NotFoundException", "ValidationException"]
    + ["NotAuthorizedException", "ok", "NotFoundException"],
)
def aliases(peer: Peer) -> list[str]:
    """An alias made twice, of another key, of none, under names that cannot be, deleted twice."""
    key, other = peer.key(), peer.key()
    alias = {"AliasName": f"alias/{peer.name('alias')}"}
    peer.aws.must("kms", "CreateAlias", **alias, TargetKeyId=key)
    codes = [peer.code("kms", "CreateAlias", **alias, TargetKeyId=target) for target in (key, other)]
    none = "00000000-0000-4000-8000-000000000000"
    codes.append(peer.code("kms", "CreateAlias", AliasName="alias/of-nothing", TargetKeyId=none))
    codes += [peer.code("kms", "CreateAlias", AliasName=name, TargetKeyId=key) for name in ("name", "alias/aws/ebs")]
    return codes + [peer.code("kms", "DeleteAlias", **alias) for _ in range(2)]


@behaviour(
    "kms:ScheduleKeyDeletion kms:CancelKeyDeletion kms:EnableKey",
    ["ValidationException", "PendingDeletion", "KMSInvalidStateException", "KMSInvalidStateException"]
    + ["KMSInvalidStateException", "ok", "Disabled", "KMSInvalidStateException", "ok", "Enabled"],
    moto=MotoDiffers(
        ["ok", "PendingDeletion", "ok", "ok", "ok", "ok", "Disabled", "ok", "ok", "Enabled"],
        "the key-state table of the KMS guide: KMSInvalidStateException; days from 7 to 30; moto checks neither",
    ),
)
def doomed_keys(peer: Peer) -> list[str]:
    """A key to be deleted is not changed; its end is called off and it is enabled again."""
    key = {"KeyId": peer.key()}

    def state() -> str:
        return peer.aws.must("kms", "DescribeKey", **key)["KeyMetadata"]["KeyState"]

    seen = [peer.code("kms", "ScheduleKeyDeletion", **key, PendingWindowInDays=3)]
    peer.aws.must("kms", "ScheduleKeyDeletion", **key, PendingWindowInDays=7)
    seen += [
        state(),
        peer.code("kms", "ScheduleKeyDeletion", **key, PendingWindowInDays=7),
        peer.code("kms", "EnableKey", **key),
        peer.code("kms", "EnableKeyRotation", **key),
    ]
    seen += [peer.code("kms", "CancelKeyDeletion", **key), state(), peer.code("kms", "CancelKeyDeletion", **key)]
    return [*seen, peer.code("kms", "EnableKey", **key), state()]


@behaviour(
    "logs:CreateLogGroup logs:PutRetentionPolicy logs:TagResource logs:DeleteLogGroup",
    ["ResourceAlreadyExistsException", "ok", 30, "InvalidParameterException", "ok", {"a": "1", "b": "2"}]
    + ["ok", "ResourceNotFoundException", "ResourceNotFoundException"],
    moto=MotoDiffers(
        [
            "ResourceAlreadyExistsException",
            "ok",
            30,
            "ok",
            "ok",
            {"a": "1", "b": "2"},
            "ok",
            "ResourceNotFoundException",
            "ResourceNotFoundException",
        ],
        "PutRetentionPolicy lists the days that are possible, and 31 is none; moto takes any number",
    ),
)
def log_groups(peer: Peer) -> list[object]:
    """A log group made twice, kept for days that are allowed and not, tagged, deleted twice."""
    group = {"logGroupName": f"/conformance/{peer.name('group')}"}
    peer.aws.must("logs", "CreateLogGroup", **group, tags={"a": "1"})
    seen: list[object] = [peer.code("logs", "CreateLogGroup", **group)]
    seen.append(peer.code("logs", "PutRetentionPolicy", **group, retentionInDays=30))
    found = peer.aws.must("logs", "DescribeLogGroups", logGroupNamePrefix=group["logGroupName"])["logGroups"][0]
    seen += [found["retentionInDays"], peer.code("logs", "PutRetentionPolicy", **group, retentionInDays=31)]
    arn = {"resourceArn": found["arn"].removesuffix(":*")}
    seen.append(peer.code("logs", "TagResource", **arn, tags={"b": "2"}))
    seen.append(peer.aws.must("logs", "ListTagsForResource", **arn)["tags"])
    seen += [peer.code("logs", "DeleteLogGroup", **group) for _ in range(2)]
    return [*seen, peer.code("logs", "PutRetentionPolicy", **group, retentionInDays=30)]


@behaviour("elbv2:DeleteLoadBalancer", [1, "ok", 0, "ok"])
def load_balancers(peer: Peer) -> list[object]:
    """A load balancer is deleted twice; the second time is no error."""
    arn = peer.plant("balancer")

    def count() -> int:
        outcome = peer.aws.call("elbv2", "DescribeLoadBalancers", LoadBalancerArns=[arn])
        return len(outcome.answer.get("LoadBalancers", []))

    seen: list[object] = [count(), peer.code("elbv2", "DeleteLoadBalancer", LoadBalancerArn=arn), count()]
    return [*seen, peer.code("elbv2", "DeleteLoadBalancer", LoadBalancerArn=arn)]


@behaviour(
    "elbv2:DeleteTargetGroup",
    ["ok", "ok"],
    moto=MotoDiffers(
        ["ok", "TargetGroupNotFound"],
        "the model of DeleteTargetGroup has no error for one that is not there; moto makes one up",
    ),
)
def target_groups(peer: Peer) -> list[str]:
    """A target group is deleted twice; the second time is no error."""
    arn = peer.plant("targets")
    return [peer.code("elbv2", "DeleteTargetGroup", TargetGroupArn=arn) for _ in range(2)]


@behaviour("elb:DeleteLoadBalancer", [1, "ok", "ok"])
def classic_load_balancers(peer: Peer) -> list[object]:
    """A classic load balancer is deleted twice; the second time is no error."""
    name = peer.plant("classic balancer")
    seen: list[object] = [
        len(peer.aws.must("elb", "DescribeLoadBalancers", LoadBalancerNames=[name])["LoadBalancerDescriptions"])
    ]
    return seen + [peer.code("elb", "DeleteLoadBalancer", LoadBalancerName=name) for _ in range(2)]


@behaviour("autoscaling:DeleteAutoScalingGroup", ["ok", "ValidationError"])
def scaling_groups(peer: Peer) -> list[str]:
    """An Auto Scaling group is deleted twice."""
    group = {"AutoScalingGroupName": peer.plant("scaling group"), "ForceDelete": True}
    return [peer.code("autoscaling", "DeleteAutoScalingGroup", **group) for _ in range(2)]
