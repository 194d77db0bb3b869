"""AWS, shapes: every raw answer of every operation the steps call, against the service models of botocore.

Happy and unhappy calls on a private sandbox. An answer is held against the model as it came over the wire (members the
model lacks, wrong types, values outside an enumeration, what is required and missing, document names and namespaces);
a refusal against the errors and statuses that the model lists, or, where it lists none (EC2), against the code that the
API reference documents. Then every happy call is repeated without each required member, with a value outside each
enumeration, and beyond each range: all must be refused as the service does. Every operation is refused at least once.
"""

import json
import pathlib
from typing import Any

from harness.aws import Aws, Outcome
from harness.aws_world import Builder, Network, named, trust
from harness.broken import broken_inputs
from harness.operations import called_by_steps, model
from harness.polling import until
from harness.report import Report
from harness.sandbox import Sandbox
from harness.sandbox_vault import control
from tables.nothing_there import NOTHING_THERE
from write_models import PATH, documented_filters, written

TAGS = [{"Key": "a", "Value": "1"}]
# How each service says that its input is not what its model wants.
INVALID_INPUT = {
    "ec2": {"MissingParameter", "InvalidParameterValue", "InvalidInstanceType"},
    "eks": {"InvalidParameterException", "BadRequestException"},
    "kms": {"ValidationException"},
    "logs": {"InvalidParameterException"},
    "resourcegroupstaggingapi": {"InvalidParameterException"},
    "service-quotas": {"IllegalArgumentException"},
}
QUERY_INVALID_INPUT = {"ValidationError"}


class Shapes:
    """The calls of the suite, each with the parameters it was made with."""

    def __init__(self, report: Report, sandbox: Sandbox):
        self.report = report
        self.sandbox = sandbox
        self.aws = Aws(sandbox.environment["AWS_ENDPOINT_URL"])
        self.build = Builder(self.aws)
        self.happy: dict[tuple[str, str], dict[str, Any]] = {}

    def ok(self, service: str, operation: str, /, **parameters: Any) -> dict[str, Any]:
        outcome = self.aws.call(service, operation, **parameters)
        self.report.check(f"{service} {operation} succeeds", "", outcome.code and f"{outcome.code}: {outcome.message}")
        if outcome.ok:
            self.happy[(service, operation)] = parameters
        return outcome.answer

    def refused(self, code: str, service: str, operation: str, /, **parameters: Any) -> None:
        outcome = self.aws.call(service, operation, **parameters)
        self.report.check(f"{service} {operation} is refused ({parameters})", code, outcome.code)

    # Happy

    def network(self) -> Network:
        ok, build = self.ok, self.build
        vpc = ok("ec2", "CreateVpc", CidrBlock="10.0.0.0/16", TagSpecifications=named("vpc", "shapes"))["Vpc"]["VpcId"]
        ok("ec2", "DescribeVpcs", VpcIds=[vpc])
        ok("ec2", "DescribeVpcs", Filters=[{"Name": "tag:Name", "Values": ["shapes"]}])
        for attribute in ("EnableDnsSupport", "EnableDnsHostnames"):
            ok("ec2", "ModifyVpcAttribute", VpcId=vpc, **{attribute: {"Value": True}})
            ok("ec2", "DescribeVpcAttribute", VpcId=vpc, Attribute=attribute[0].lower() + attribute[1:])
        zones = [zone["ZoneId"] for zone in ok("ec2", "DescribeAvailabilityZones")["AvailabilityZones"]]
        subnets = []
        for index, zone in enumerate(zones[:2]):
            made = ok(
                "ec2", "CreateSubnet", VpcId=vpc, CidrBlock=f"10.0.{index}.0/24", AvailabilityZoneId=zone,
                TagSpecifications=named("subnet", f"shapes-{index}"),
            )  # fmt: skip
            subnets.append(made["Subnet"]["SubnetId"])
        ok("ec2", "ModifySubnetAttribute", SubnetId=subnets[0], MapPublicIpOnLaunch={"Value": True})
        ok("ec2", "DescribeSubnets", Filters=[{"Name": "vpc-id", "Values": [vpc]}])
        gateway = ok("ec2", "CreateInternetGateway", TagSpecifications=named("internet-gateway", "shapes"))
        gateway = gateway["InternetGateway"]["InternetGatewayId"]
        ok("ec2", "AttachInternetGateway", InternetGatewayId=gateway, VpcId=vpc)
        ok("ec2", "DescribeInternetGateways", Filters=[{"Name": "attachment.vpc-id", "Values": [vpc]}])
        ok("ec2", "CreateTags", Resources=[vpc, gateway], Tags=TAGS)
        until("the subnets are available", lambda: self._available(build, subnets))
        # The way out that machines need before they can join.
        tables = build.aws.must("ec2", "DescribeRouteTables", Filters=[{"Name": "vpc-id", "Values": [vpc]}])
        main = {"RouteTableId": tables["RouteTables"][0]["RouteTableId"], "DestinationCidrBlock": "0.0.0.0/0"}
        build.aws.must("ec2", "CreateRoute", **main, GatewayId=gateway)
        return Network(vpc, subnets, gateway)

    @staticmethod
    def _available(build: Builder, subnets: list[str]) -> bool:
        found = build.aws.must("ec2", "DescribeSubnets", SubnetIds=subnets)["Subnets"]
        return all(subnet["State"] == "available" for subnet in found)

    def ways_out(self, network: Network) -> None:
        ok = self.ok
        address = ok("ec2", "AllocateAddress", Domain="vpc", TagSpecifications=named("elastic-ip", "shapes"))
        address = address["AllocationId"]
        ok("ec2", "DescribeAddresses", AllocationIds=[address])
        nat = ok(
            "ec2", "CreateNatGateway", SubnetId=network.subnets[0], AllocationId=address, ClientToken="shapes",
            TagSpecifications=named("natgateway", "shapes"),
        )["NatGateway"]["NatGatewayId"]  # fmt: skip
        until(f"{nat} is available", lambda: self.build.nat_state(nat) == "available")
        ok("ec2", "DescribeAddresses", Filters=[{"Name": "allocation-id", "Values": [address]}])
        ok("ec2", "DescribeNatGateways", Filter=[{"Name": "nat-gateway-id", "Values": [nat]}])
        ok("ec2", "DescribeNetworkInterfaces", Filters=[{"Name": "vpc-id", "Values": [network.vpc]}])
        table = ok(
            "ec2", "CreateRouteTable", VpcId=network.vpc, ClientToken="shapes",
            TagSpecifications=named("route-table", "shapes"),
        )["RouteTable"]["RouteTableId"]  # fmt: skip
        everywhere = {"RouteTableId": table, "DestinationCidrBlock": "0.0.0.0/0"}
        ok("ec2", "CreateRoute", **everywhere, GatewayId=network.gateway)
        ok("ec2", "ReplaceRoute", **everywhere, NatGatewayId=nat)
        association = ok("ec2", "AssociateRouteTable", RouteTableId=table, SubnetId=network.subnets[1])
        ok("ec2", "DescribeRouteTables", Filters=[{"Name": "association.main", "Values": ["true"]}])
        ok("ec2", "DescribeRouteTables", RouteTableIds=[table])
        ok("ec2", "DisassociateRouteTable", AssociationId=association["AssociationId"])
        ok("ec2", "DeleteRoute", **everywhere)
        ok("ec2", "DeleteRouteTable", RouteTableId=table)
        self.refused("InvalidIPAddress.InUse", "ec2", "ReleaseAddress", AllocationId=address)
        ok("ec2", "DeleteNatGateway", NatGatewayId=nat)
        until(f"{nat} is deleted", lambda: self.build.nat_state(nat) in ("deleted", "gone"))
        ok("ec2", "ReleaseAddress", AllocationId=address)

    def groups(self, network: Network) -> None:
        ok = self.ok
        group = ok(
            "ec2", "CreateSecurityGroup", GroupName="shapes", Description="of shapes", VpcId=network.vpc,
            TagSpecifications=named("security-group", "shapes"),
        )["GroupId"]  # fmt: skip
        rules = [
            {"IpProtocol": "tcp", "FromPort": 443, "ToPort": 443, "IpRanges": [{"CidrIp": "10.0.0.0/8"}]},
            {"IpProtocol": "-1", "UserIdGroupPairs": [{"GroupId": group, "Description": "itself"}]},
        ]
        for side in ("Ingress", "Egress"):
            ok("ec2", f"AuthorizeSecurityGroup{side}", GroupId=group, IpPermissions=rules)
        ok("ec2", "DescribeSecurityGroups", GroupIds=[group])
        ok("ec2", "DescribeSecurityGroups", Filters=[{"Name": "group-name", "Values": ["default"]}])
        for side in ("Ingress", "Egress"):
            ok("ec2", f"RevokeSecurityGroup{side}", GroupId=group, IpPermissions=rules)
        ok("ec2", "DeleteSecurityGroup", GroupId=group)

    def templates(self) -> None:
        ok = self.ok
        data: dict[str, Any] = {
            "BlockDeviceMappings": [
                {"DeviceName": "/dev/xvda", "Ebs": {"VolumeSize": 100, "VolumeType": "gp3", "Encrypted": True}}
            ],
            "MetadataOptions": {"HttpTokens": "required", "HttpPutResponseHopLimit": 2},
            "TagSpecifications": named("instance", "shapes"),
        }
        template = ok(
            "ec2", "CreateLaunchTemplate", LaunchTemplateName="shapes", LaunchTemplateData=data, ClientToken="shapes",
            TagSpecifications=named("launch-template", "shapes"),
        )["LaunchTemplate"]["LaunchTemplateId"]  # fmt: skip
        ok("ec2", "DescribeLaunchTemplates", LaunchTemplateNames=["shapes"])
        ok("ec2", "DescribeLaunchTemplates", Filters=[{"Name": "tag:Name", "Values": ["shapes"]}])
        version = {"LaunchTemplateId": template, "LaunchTemplateData": data, "ClientToken": "shapes"}
        ok("ec2", "CreateLaunchTemplateVersion", **version)
        ok("ec2", "ModifyLaunchTemplate", LaunchTemplateId=template, DefaultVersion="2")
        ok("ec2", "DescribeLaunchTemplateVersions", LaunchTemplateId=template, Versions=["$Default"])
        ok("ec2", "DeleteLaunchTemplate", LaunchTemplateId=template)
        ok("ec2", "CreateLaunchTemplate", LaunchTemplateName="shapes", LaunchTemplateData=data)

    def identity(self) -> None:
        ok, role = self.ok, {"RoleName": "shapes"}
        ok("sts", "GetCallerIdentity")
        ok("iam", "CreateRole", **role, AssumeRolePolicyDocument=trust("eks.amazonaws.com"), Tags=TAGS)
        ok("iam", "GetRole", **role)
        ok("iam", "UpdateRole", **role, Description="of shapes")
        ok("iam", "UpdateAssumeRolePolicy", **role, PolicyDocument=trust("ec2.amazonaws.com"))
        ok("iam", "TagRole", **role, Tags=TAGS)
        managed = {**role, "PolicyArn": "arn:aws:iam::aws:policy/AmazonEKSClusterPolicy"}
        ok("iam", "AttachRolePolicy", **managed)
        ok("iam", "ListAttachedRolePolicies", **role)
        inline = {**role, "PolicyName": "inline"}
        statement = {"Effect": "Allow", "Action": "kms:Decrypt", "Resource": "*"}
        document = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
        ok("iam", "PutRolePolicy", **inline, PolicyDocument=document)
        ok("iam", "ListRolePolicies", **role)
        ok("iam", "GetRolePolicy", **inline)
        self.refused("DeleteConflict", "iam", "DeleteRole", **role)
        ok("iam", "DetachRolePolicy", **managed)
        ok("iam", "DeleteRolePolicy", **inline)
        ok("iam", "CreateInstanceProfile", InstanceProfileName="shapes")
        ok("iam", "AddRoleToInstanceProfile", **role, InstanceProfileName="shapes")
        ok("iam", "ListInstanceProfilesForRole", **role)
        self.refused("DeleteConflict", "iam", "DeleteRole", **role)
        ok("iam", "RemoveRoleFromInstanceProfile", **role, InstanceProfileName="shapes")
        ok("iam", "DeleteInstanceProfile", InstanceProfileName="shapes")
        ok("iam", "DeleteRole", **role)
        url = "https://oidc.example.com/id/0123456789ABCDEF"
        provider = ok(
            "iam", "CreateOpenIDConnectProvider", Url=url, ClientIDList=["sts.amazonaws.com"], Tags=TAGS
        )["OpenIDConnectProviderArn"]  # fmt: skip
        named_so = {"OpenIDConnectProviderArn": provider}
        ok("iam", "ListOpenIDConnectProviders")
        ok("iam", "AddClientIDToOpenIDConnectProvider", **named_so, ClientID="another")
        ok("iam", "TagOpenIDConnectProvider", **named_so, Tags=TAGS)
        ok("iam", "GetOpenIDConnectProvider", **named_so)
        ok("iam", "RemoveClientIDFromOpenIDConnectProvider", **named_so, ClientID="another")
        ok("iam", "DeleteOpenIDConnectProvider", **named_so)

    def keys(self) -> None:
        ok = self.ok
        made = ok("kms", "CreateKey", Description="of shapes", Tags=[{"TagKey": "a", "TagValue": "1"}])["KeyMetadata"]
        key = {"KeyId": made["KeyId"]}
        ok("kms", "CreateAlias", AliasName="alias/shapes", TargetKeyId=made["KeyId"])
        ok("kms", "ListAliases", **key, Limit=10)
        ok("kms", "DescribeKey", KeyId="alias/shapes")
        ok("kms", "UpdateKeyDescription", **key, Description="still of shapes")
        ok("kms", "TagResource", **key, Tags=[{"TagKey": "b", "TagValue": "2"}])
        ok("kms", "ListResourceTags", **key)
        ok("kms", "EnableKeyRotation", **key)
        ok("kms", "GetKeyRotationStatus", **key)
        ok("kms", "DisableKeyRotation", **key)
        tagged = {"ResourceTypeFilters": ["kms:key"], "TagFilters": [{"Key": "a", "Values": ["1"]}]}
        ok("resourcegroupstaggingapi", "GetResources", **tagged)
        ok("kms", "DeleteAlias", AliasName="alias/shapes")
        ok("kms", "ScheduleKeyDeletion", **key, PendingWindowInDays=7)
        ok("kms", "DescribeKey", **key)
        self.refused("KMSInvalidStateException", "kms", "EnableKeyRotation", **key)
        ok("kms", "CancelKeyDeletion", **key)
        ok("kms", "EnableKey", **key)
        self.refused("KMSInvalidStateException", "kms", "CancelKeyDeletion", **key)

    def logs(self) -> None:
        ok, group = self.ok, {"logGroupName": "/shapes/a"}
        ok("logs", "CreateLogGroup", **group, tags={"a": "1"})
        ok("logs", "PutRetentionPolicy", **group, retentionInDays=30)
        found = ok("logs", "DescribeLogGroups", logGroupNamePrefix="/shapes", limit=50)["logGroups"][0]
        arn = {"resourceArn": found["arn"].removesuffix(":*")}
        ok("logs", "TagResource", **arn, tags={"b": "2"})
        ok("logs", "ListTagsForResource", **arn)
        ok("logs", "DeleteLogGroup", **group)

    def account(self) -> None:
        """What a preflight asks about before there is anything."""
        ok = self.ok
        ok("ec2", "DescribeRegions")
        ok("ec2", "DescribeSpotPriceHistory", InstanceTypes=["t3.large"], ProductDescriptions=["Linux/UNIX"])
        ok("iam", "GetAccountSummary")
        ok("iam", "ListRoles")
        role = self.build.role_arn(self.build.role())
        ok("iam", "SimulatePrincipalPolicy", PolicySourceArn=role, ActionNames=["eks:CreateCluster", "iam:PassRole"])
        version = ok("eks", "DescribeAddonVersions", addonName="vpc-cni")["addons"][0]["addonVersions"][0]["addonVersion"]
        ok("eks", "DescribeAddonConfiguration", addonName="vpc-cni", addonVersion=version)

    def listed(self) -> None:
        """What a cluster shows of its parts."""
        self.ok("eks", "ListClusters")
        for operation in ("ListNodegroups", "ListAddons", "ListAccessEntries"):
            self.ok("eks", operation, clusterName="shapes")

    def cluster(self, network: Network) -> None:
        ok, build = self.ok, self.build
        ok("eks", "DescribeClusterVersions", maxResults=50)
        ok("eks", "DescribeAddonVersions", addonName="vpc-cni", kubernetesVersion="1.34", maxResults=50)
        ok("ec2", "DescribeInstanceTypeOfferings", LocationType="availability-zone-id")
        ok("ec2", "DescribeInstanceTypes", InstanceTypes=["t3.large", "r6g.large"])
        for operation in ("GetServiceQuota", "GetAWSDefaultServiceQuota"):
            ok("service-quotas", operation, ServiceCode="vpc", QuotaCode="L-F678F1CE")
        role = build.role_arn(build.role())
        parameters = {
            "name": "shapes", "version": "1.34", "roleArn": role, "clientRequestToken": "shapes",
            "resourcesVpcConfig": {"subnetIds": network.subnets, "endpointPrivateAccess": True},
            "accessConfig": {"authenticationMode": "API", "bootstrapClusterCreatorAdminPermissions": True},
            "upgradePolicy": {"supportType": "STANDARD"}, "deletionProtection": False, "tags": {"a": "1"},
            "logging": {"clusterLogging": [{"types": ["api", "audit"], "enabled": True}]},
        }  # fmt: skip
        until("the role is known", lambda: self.aws.call("eks", "CreateCluster", **parameters).ok)
        made = ok("eks", "CreateCluster", **parameters)["cluster"]
        until("the cluster is active", lambda: build.cluster_status("shapes") == "ACTIVE")
        ok("eks", "DescribeCluster", name="shapes")
        ok("eks", "TagResource", resourceArn=made["arn"], tags={"b": "2"})
        self._change_cluster(made)
        self._access(made)
        self._addons()
        self._nodes(network)
        self.listed()

    def _idle(self) -> None:
        until("the cluster is at rest", lambda: self.build.cluster_status("shapes") == "ACTIVE")

    def _change_cluster(self, made: dict[str, Any]) -> None:
        key = self.aws.must("kms", "DescribeKey", KeyId=self.build.key())["KeyMetadata"]["Arn"]
        changes: list[tuple[str, dict[str, Any]]] = [
            ("UpdateClusterConfig", {"name": "shapes", "resourcesVpcConfig": {"publicAccessCidrs": ["10.0.0.0/8"]}}),
            ("UpdateClusterConfig", {"name": "shapes", "deletionProtection": False}),
            ("UpdateClusterVersion", {"name": "shapes", "version": "1.35"}),
            (
                "AssociateEncryptionConfig",
                {
                    "clusterName": "shapes",
                    "encryptionConfig": [{"resources": ["secrets"], "provider": {"keyArn": key}}],
                },
            ),
        ]
        for operation, parameters in changes:
            self.ok("eks", operation, **parameters)
            self._idle()
        self.ok("eks", "DescribeCluster", name=made["name"])

    def _access(self, made: dict[str, Any]) -> None:
        ok, build = self.ok, self.build
        arn = build.role_arn(build.role("ec2.amazonaws.com"))
        entry = {"clusterName": made["name"], "principalArn": arn}
        until("the principal is known", lambda: self.aws.call("eks", "CreateAccessEntry", **entry).ok)
        ok("eks", "DeleteAccessEntry", **entry)
        ok("eks", "CreateAccessEntry", **entry, kubernetesGroups=["viewers"], type="STANDARD", tags={"a": "1"})
        ok("eks", "UpdateAccessEntry", **entry, kubernetesGroups=["editors"])
        policy = {**entry, "policyArn": "arn:aws:eks::aws:cluster-access-policy/AmazonEKSViewPolicy"}
        ok("eks", "AssociateAccessPolicy", **policy, accessScope={"type": "cluster"})
        ok("eks", "ListAssociatedAccessPolicies", **entry)
        ok("eks", "DescribeAccessEntry", **entry)
        creator = self.aws.must("sts", "GetCallerIdentity")["Arn"]
        ok("eks", "ListAssociatedAccessPolicies", clusterName=made["name"], principalArn=creator)
        ok("eks", "DisassociateAccessPolicy", **policy)

    def _addons(self) -> None:
        ok, addon = self.ok, {"clusterName": "shapes", "addonName": "vpc-cni"}
        ok("eks", "CreateAddon", **addon, configurationValues="{}", resolveConflicts="OVERWRITE", tags={"a": "1"})
        self._addon_active()
        ok("eks", "UpdateAddon", **addon, configurationValues="{}", resolveConflicts="PRESERVE")
        self._addon_active()
        ok("eks", "DescribeAddon", **addon)

    def _addon_active(self) -> None:
        def status() -> str:
            answer = self.aws.must("eks", "DescribeAddon", clusterName="shapes", addonName="vpc-cni")
            return answer["addon"]["status"]

        until("the add-on is active", lambda: status() == "ACTIVE")

    def _nodes(self, network: Network) -> None:
        ok, build = self.ok, self.build
        role = build.role_arn(build.role("ec2.amazonaws.com"))
        group = {"clusterName": "shapes", "nodegroupName": "system"}
        parameters = {
            **group, "nodeRole": role, "subnets": network.subnets, "instanceTypes": ["t3.large"],
            "amiType": "AL2023_x86_64_STANDARD", "capacityType": "SPOT", "clientRequestToken": "system",
            "scalingConfig": {"minSize": 1, "desiredSize": 2, "maxSize": 3}, "labels": {"pool": "system"},
            "taints": [{"key": "only", "value": "system", "effect": "NO_SCHEDULE"}],
            "updateConfig": {"maxUnavailable": 1}, "tags": {"a": "1"},
        }  # fmt: skip
        until("the role is known", lambda: self.aws.call("eks", "CreateNodegroup", **parameters).ok)
        ok("eks", "CreateNodegroup", **parameters)
        settled = ("ACTIVE", "DEGRADED", "CREATE_FAILED")
        until("the machines are settled", lambda: build.nodes_status("shapes", "system") in settled)
        found = ok("eks", "DescribeNodegroup", **group)["nodegroup"]
        ok("ec2", "DescribeInstances", Filters=[{"Name": "vpc-id", "Values": [network.vpc]}])
        ok("autoscaling", "DescribeAutoScalingGroups")
        scaling = {"AutoScalingGroupName": found["resources"]["autoScalingGroups"][0]["name"]}
        ok("autoscaling", "DescribeScalingActivities", **scaling, MaxRecords=10)
        self.report.check("the machines joined", "ACTIVE", found["status"])
        scaled = {"scalingConfig": {"minSize": 1, "desiredSize": 1, "maxSize": 2}}
        ok("eks", "UpdateNodegroupConfig", **group, **scaled, labels={"addOrUpdateLabels": {"b": "2"}})
        until("the group is at rest", lambda: build.nodes_status("shapes", "system") in settled)
        ok("eks", "UpdateNodegroupVersion", **group)
        until("the group is at rest", lambda: build.nodes_status("shapes", "system") in settled)
        ok("eks", "DescribeNodegroup", **group)

    def remains(self) -> None:
        """What controllers leave behind: put there by the sandbox, taken away by the calls of the sweep."""
        ok = self.ok
        for kind in (
            "service_load_balancer", "ingress_load_balancer", "target_group", "csi_volume", "csi_snapshot",
            "cni_interface", "node_group_remains",
        ):  # fmt: skip
            self.sandbox.platflow("sandbox", "leak", kind)
        balancers = ok("elbv2", "DescribeLoadBalancers")["LoadBalancers"]
        targets = ok("elbv2", "DescribeTargetGroups")["TargetGroups"]
        classic = ok("elb", "DescribeLoadBalancers")["LoadBalancerDescriptions"]
        ok("elbv2", "DescribeTags", ResourceArns=[one["LoadBalancerArn"] for one in balancers])
        ok("elb", "DescribeTags", LoadBalancerNames=[one["LoadBalancerName"] for one in classic])
        for one in balancers:
            ok("elbv2", "DeleteLoadBalancer", LoadBalancerArn=one["LoadBalancerArn"])
        for one in targets:
            ok("elbv2", "DeleteTargetGroup", TargetGroupArn=one["TargetGroupArn"])
        for one in classic:
            ok("elb", "DeleteLoadBalancer", LoadBalancerName=one["LoadBalancerName"])
        for one in ok("autoscaling", "DescribeAutoScalingGroups")["AutoScalingGroups"]:
            name = one["AutoScalingGroupName"]
            if not name.startswith("eks-system-"):
                ok("autoscaling", "DeleteAutoScalingGroup", AutoScalingGroupName=name, ForceDelete=True)
        ok("ec2", "DescribeVpcEndpoints")
        for one in ok("ec2", "DescribeSnapshots", OwnerIds=["self"])["Snapshots"]:
            ok("ec2", "DeleteSnapshot", SnapshotId=one["SnapshotId"])
        free = [{"Name": "status", "Values": ["available"]}]
        for one in ok("ec2", "DescribeVolumes", Filters=free)["Volumes"]:
            ok("ec2", "DeleteVolume", VolumeId=one["VolumeId"])
        for one in ok("ec2", "DescribeNetworkInterfaces", Filters=free)["NetworkInterfaces"]:
            ok("ec2", "DeleteNetworkInterface", NetworkInterfaceId=one["NetworkInterfaceId"])

    def takedown(self, network: Network) -> None:
        ok, build = self.ok, self.build
        self.refused("ResourceInUseException", "eks", "DeleteCluster", name="shapes")
        ok("eks", "DeleteAddon", clusterName="shapes", addonName="vpc-cni", preserve=True)
        ok("eks", "DeleteNodegroup", clusterName="shapes", nodegroupName="system")
        until("the group is gone", lambda: build.nodes_status("shapes", "system") == "gone")
        entries = self.aws.must("eks", "ListAccessEntries", clusterName="shapes")["accessEntries"]
        for arn in entries:
            ok("eks", "DeleteAccessEntry", clusterName="shapes", principalArn=arn)
        ok("eks", "DeleteCluster", name="shapes")
        until("the cluster is gone", lambda: build.cluster_status("shapes") == "gone")
        subnet = self.build.subnet(network.vpc, "10.0.9.0/24", self.build.zones()[0])
        ok("ec2", "DeleteSubnet", SubnetId=subnet)
        ok("ec2", "DetachInternetGateway", InternetGatewayId=network.gateway, VpcId=network.vpc)
        ok("ec2", "DeleteInternetGateway", InternetGatewayId=network.gateway)
        empty = build.vpc("10.1.0.0/16")
        ok("ec2", "DeleteVpc", VpcId=empty)

    # Unhappy: what is not there

    def nothing_there(self) -> None:
        for code, service, operation, parameters in NOTHING_THERE:
            self.refused(code, service, operation, **parameters)

    def refused_credentials(self) -> None:
        """What takes no parameter can only be refused for who asks: with a key that has run out."""
        control(self.sandbox, "credentials", {"access_key": self.aws.access_key, "refused_as": "expired"})
        try:
            for operation in ("ListOpenIDConnectProviders", "ListRoles", "GetAccountSummary"):
                self.refused("ExpiredToken", "iam", operation)
            arn = "arn:aws:iam::123456789012:role/shapes"
            self.refused("ExpiredToken", "iam", "SimulatePrincipalPolicy", PolicySourceArn=arn, ActionNames=["ec2:RunInstances"])
            self.refused("ExpiredToken", "sts", "GetCallerIdentity")
            self.refused("ExpiredTokenException", "eks", "ListClusters")
            for operation in ("ListNodegroups", "ListAddons", "ListAccessEntries"):
                self.refused("ExpiredTokenException", "eks", operation, clusterName="shapes")
            addon = {"addonName": "vpc-cni", "addonVersion": "v1.21.1-eksbuild.1"}
            self.refused("ExpiredTokenException", "eks", "DescribeAddonConfiguration", **addon)
            for operation in ("DescribeVpcs", "DescribeRegions", "DescribeSpotPriceHistory"):
                self.refused("RequestExpired", "ec2", operation)
        finally:
            control(self.sandbox, "credentials", {"access_key": self.aws.access_key})

    def filters(self) -> None:
        """Every filter that the reference of a call lists is taken; a value that nothing has selects nothing."""
        for service, operation in sorted(called_by_steps()):
            if service != "ec2":
                continue
            shape = model(service).operation_model(operation)
            name = next((one for one in ("Filters", "Filter") if one in shape.input_shape.members), "")
            for known in documented_filters(shape):
                wanted = {name: [{"Name": known, "Values": ["nothing-has-this"]}]}
                more = {"LaunchTemplateName": "shapes"} if operation == "DescribeLaunchTemplateVersions" else {}
                outcome = self.aws.call(service, operation, **wanted, **more)
                self.report.check(f"{operation} takes the filter {known}", "", outcome.code)

    # Input

    def invalid_inputs(self) -> None:
        """Each happy call again without each required member, and with values outside of enumerations and ranges."""
        lenient = Aws(self.aws.endpoint, validate_input=False)
        for (service, operation), parameters in sorted(self.happy.items()):
            shape = model(service).operation_model(operation)
            codes = INVALID_INPUT.get(service, QUERY_INVALID_INPUT)
            for what, broken in broken_inputs(shape, parameters):
                outcome = lenient.call(service, operation, **broken)
                self.report.true(
                    f"{service} {operation} {what} is refused by {' or '.join(sorted(codes))}",
                    outcome.code in codes,
                    f"{outcome.code}: {outcome.message}",
                )
        self.aws.outcomes.extend(lenient.outcomes)


# Where the models themselves are wrong: what EC2 has always answered, and its own documentation says.
MODEL_IS_WRONG = {
    "/internetGatewaySet/item/attachmentSet/item/state is 'available'": (
        "the API reference: for an internet gateway the state is 'available' while attached, which the model's set "
        "of attachment states, made for VPN gateways, lacks"
    ),
    "/networkInterfaceSet/item/interfaceType is 'nat_gateway'": (
        "DescribeNetworkInterfaces has always answered 'nat_gateway', and its filter interface-type takes that; the "
        "model writes natGateway"
    ),
}


def judge(report: Report, outcomes: list[Outcome]) -> None:
    """Holds every raw answer against the model; each kind of problem is told once per operation."""
    told: set[str] = set()
    for outcome in outcomes:
        service, operation = outcome.operation
        what = f"{service} {operation} {outcome.code or 'answer'}"
        problems = [problem for problem in outcome.raw.problems() if f"{what}: {problem}" not in told]
        for problem in problems:
            told.add(f"{what}: {problem}")
            known = next((at for at in MODEL_IS_WRONG if problem.startswith(at)), None)
            if known:
                report.differs(f"{what}: {known}", "the service, and with it the sandbox,", MODEL_IS_WRONG[known])
            else:
                report.fail(what, problem)
        if not problems:
            report.agreed += 1


def run(report: Report, folder: pathlib.Path) -> None:
    with Sandbox(folder) as sandbox:
        shapes = Shapes(report, sandbox)
        network = shapes.network()
        for part in (shapes.ways_out, shapes.groups):
            report.case(part.__name__, lambda part=part: part(network))
        for part in (shapes.account, shapes.templates, shapes.identity, shapes.keys, shapes.logs):
            report.case(part.__name__, part)
        report.case("cluster", lambda: shapes.cluster(network))
        report.case("filters", shapes.filters)
        report.case("remains", shapes.remains)
        report.case("takedown", lambda: shapes.takedown(network))
        report.case("nothing there", shapes.nothing_there)
        report.case("invalid inputs", shapes.invalid_inputs)
        report.case("refused credentials", shapes.refused_credentials)
        judge(report, shapes.aws.outcomes)
        report.true("models.txt of the sandbox is what write_models writes", PATH.read_text() == written())
        wanted = called_by_steps()
        report.check("operations of steps without a happy call", set(), wanted - set(shapes.happy))
        report.cover("operations used by steps, checked by shape", len(wanted & set(shapes.happy)), len(wanted))
        unhappy = {outcome.operation for outcome in shapes.aws.outcomes if not outcome.ok}
        report.check("operations of steps that were never refused", [], sorted(wanted - unhappy))
        report.cover("of these also refused at least once", len(wanted & unhappy), len(wanted))
