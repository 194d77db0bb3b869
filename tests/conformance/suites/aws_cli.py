"""AWS, a stranger's client: an ordinary session of the real `aws` command against the sandbox.

The commands are typed as in any tutorial, waiters and `--query` included; what they print is what the next ones use.
"""

import json
import os
import pathlib
import re
import subprocess
import urllib.request
from typing import Any

from botocore import xform_name

from harness.operations import called_by_steps, model
from harness.polling import until
from harness.report import Report
from harness.sandbox import Sandbox
from harness.servers import tool

# States that end by themselves.
PASSING = {"pending", "CREATING", "UPDATING", "DELETING", "deleting"}


class Session:
    """A shell in which `aws` is typed."""

    def __init__(self, report: Report, sandbox: Sandbox):
        self.report = report
        self.sandbox = sandbox
        self.called: set[tuple[str, str]] = set()
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("AWS_")},
            **sandbox.environment,
            "AWS_PAGER": "",
            "AWS_MAX_ATTEMPTS": "1",
            "HOME": str(sandbox.folder),
        }

    def aws(self, command: str, *arguments: str, refused: str = "", quiet: bool = False) -> Any:
        """Runs `aws COMMAND ARGUMENTS`; answers what it printed, as JSON or as text."""
        words = [*command.split(), *arguments]
        if words[1] == "wait":
            # Its waiters look once and then sleep for half a minute of real time.
            until("nothing is on its way", self._at_rest)
        done = subprocess.run(
            [tool("aws"), *words], env=self.environment, capture_output=True, text=True, check=False, timeout=120
        )
        self._count(words)
        if quiet:
            return done.returncode == 0
        if refused:
            self.report.check(f"aws {command} is refused", refused, "".join(re.findall(r"\((\S+)\)", done.stderr)[:1]))
            return None
        if not self.report.check(f"aws {command}", 0, done.returncode):
            self.report.failures[-1] += f"; {done.stderr.strip()}"
            raise RuntimeError(f"aws {' '.join(words)}: {done.stderr.strip()}")
        text = done.stdout.strip()
        try:
            return json.loads(text) if text else None
        except ValueError:
            return text

    def _at_rest(self) -> bool:
        with urllib.request.urlopen(f"{self.environment['AWS_ENDPOINT_URL']}/_sandbox/world", timeout=30) as answer:
            return not any(one["state"] in PASSING for one in json.load(answer)["resources"])

    def _count(self, words: list[str]) -> None:
        service, command = words[0], words[1]
        if command == "wait":
            return
        names = {xform_name(name, "-"): name for name in model(service).operation_names}
        self.called.add((service, names[command]))

    def text(self, command: str, query: str, *arguments: str) -> str:
        """One value, as scripts ask for it."""
        return str(self.aws(command, *arguments, "--query", query, "--output", "text"))


def network(cli: Session) -> dict[str, str]:
    text, aws = cli.text, cli.aws
    vpc = text(
        "ec2 create-vpc --cidr-block 10.0.0.0/16", "Vpc.VpcId",
        "--tag-specifications", "ResourceType=vpc,Tags=[{Key=Name,Value=cli}]",
    )  # fmt: skip
    aws(f"ec2 wait vpc-available --vpc-ids {vpc}")
    aws(f"ec2 modify-vpc-attribute --vpc-id {vpc} --enable-dns-hostnames Value=true")
    aws(f"ec2 describe-vpc-attribute --vpc-id {vpc} --attribute enableDnsHostnames")
    aws("ec2 describe-vpcs --filters Name=tag:Name,Values=cli")
    zones = text("ec2 describe-availability-zones", "AvailabilityZones[].ZoneName").split()
    subnets = []
    for index, zone in enumerate(zones[:2]):
        made = text(
            f"ec2 create-subnet --vpc-id {vpc} --cidr-block 10.0.{index}.0/24 --availability-zone {zone}",
            "Subnet.SubnetId",
        )
        subnets.append(made)
    aws(f"ec2 wait subnet-available --subnet-ids {' '.join(subnets)}")
    aws(f"ec2 modify-subnet-attribute --subnet-id {subnets[0]} --map-public-ip-on-launch")
    found = aws(f"ec2 describe-subnets --filters Name=vpc-id,Values={vpc} --page-size 5")
    cli.report.check("subnets seen by the command", sorted(subnets), sorted(s["SubnetId"] for s in found["Subnets"]))
    gateway = text("ec2 create-internet-gateway", "InternetGateway.InternetGatewayId")
    aws(f"ec2 attach-internet-gateway --internet-gateway-id {gateway} --vpc-id {vpc}")
    aws(f"ec2 describe-internet-gateways --filters Name=attachment.vpc-id,Values={vpc}")
    address = text("ec2 allocate-address --domain vpc", "AllocationId")
    aws("ec2 describe-addresses")
    nat = text(f"ec2 create-nat-gateway --subnet-id {subnets[0]} --allocation-id {address}", "NatGateway.NatGatewayId")
    aws(f"ec2 wait nat-gateway-available --nat-gateway-ids {nat}")
    aws(f"ec2 describe-nat-gateways --filter Name=vpc-id,Values={vpc}")
    main = text(
        f"ec2 describe-route-tables --filters Name=vpc-id,Values={vpc} Name=association.main,Values=true",
        "RouteTables[0].RouteTableId",
    )
    aws(f"ec2 create-route --route-table-id {main} --destination-cidr-block 0.0.0.0/0 --gateway-id {gateway}")
    table = text(f"ec2 create-route-table --vpc-id {vpc}", "RouteTable.RouteTableId")
    everywhere = f"--route-table-id {table} --destination-cidr-block 0.0.0.0/0"
    aws(f"ec2 create-route {everywhere} --gateway-id {gateway}")
    aws(f"ec2 replace-route {everywhere} --nat-gateway-id {nat}")
    link = text(f"ec2 associate-route-table --route-table-id {table} --subnet-id {subnets[1]}", "AssociationId")
    aws(f"ec2 create-tags --resources {vpc} {table} --tags Key=from,Value=cli")
    return {
        "vpc": vpc, "first": subnets[0], "second": subnets[1], "gateway": gateway, "address": address, "nat": nat,
        "table": table, "link": link,
    }  # fmt: skip


def groups(cli: Session, made: dict[str, str]) -> None:
    text, aws = cli.text, cli.aws
    create = f"ec2 create-security-group --group-name cli --description cli --vpc-id {made['vpc']}"
    group = text(create, "GroupId")
    aws(create, refused="InvalidGroup.Duplicate")
    for side in ("ingress", "egress"):
        rule = f"--group-id {group} --protocol tcp --port 443 --cidr 10.0.0.0/8"
        if side == "egress":
            ports = "IpProtocol=tcp,FromPort=443,ToPort=443"
            rule = f"--group-id {group} --ip-permissions {ports},IpRanges=[{{CidrIp=10.0.0.0/8}}]"
        aws(f"ec2 authorize-security-group-{side} {rule}")
        aws(f"ec2 authorize-security-group-{side} {rule}", refused="InvalidPermission.Duplicate")
        aws(f"ec2 revoke-security-group-{side} {rule}")
    aws(f"ec2 describe-security-groups --group-ids {group}")
    aws(f"ec2 delete-security-group --group-id {group}")
    data = '{"MetadataOptions":{"HttpTokens":"required"}}'
    template = text(
        "ec2 create-launch-template --launch-template-name cli", "LaunchTemplate.LaunchTemplateId",
        "--launch-template-data", data,
    )  # fmt: skip
    aws(f"ec2 create-launch-template-version --launch-template-id {template}", "--launch-template-data", data)
    aws(f"ec2 modify-launch-template --launch-template-id {template} --default-version 2")
    aws(f"ec2 describe-launch-template-versions --launch-template-id {template}")
    aws("ec2 describe-launch-templates --launch-template-names cli")
    aws(f"ec2 delete-launch-template --launch-template-id {template}")
    aws("ec2 create-vpc --cidr-block 10.1.0.0/16 --dry-run", refused="DryRunOperation")
    aws("ec2 describe-instance-type-offerings --location-type availability-zone")


def trust(service: str) -> str:
    statement = {"Effect": "Allow", "Principal": {"Service": service}, "Action": "sts:AssumeRole"}
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]})


def identity(cli: Session) -> str:
    text, aws = cli.text, cli.aws
    account = text("sts get-caller-identity", "Account")
    for name, service in (("cli-cluster", "eks"), ("cli-nodes", "ec2")):
        aws(f"iam create-role --role-name {name}", "--assume-role-policy-document", trust(f"{service}.amazonaws.com"))
    role, policy = "--role-name cli-nodes", "--policy-arn arn:aws:iam::aws:policy/AmazonEKSWorkerNodePolicy"
    aws("iam create-role --role-name cli-nodes --assume-role-policy-document {}", refused="EntityAlreadyExists")
    aws(f"iam attach-role-policy {role} {policy}")
    aws(f"iam list-attached-role-policies {role}")
    statement = {"Effect": "Allow", "Action": "kms:Decrypt", "Resource": "*"}
    document = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    aws(f"iam put-role-policy {role} --policy-name inline", "--policy-document", document)
    aws(f"iam list-role-policies {role}")
    aws(f"iam get-role-policy {role} --policy-name inline")
    aws(f"iam update-role {role} --description cli")
    aws(f"iam update-assume-role-policy {role}", "--policy-document", trust("ec2.amazonaws.com"))
    aws(f"iam tag-role {role} --tags Key=from,Value=cli")
    aws(f"iam get-role {role}")
    aws(f"iam list-instance-profiles-for-role {role}")
    aws(f"iam delete-role {role}", refused="DeleteConflict")
    aws(f"iam delete-role-policy {role} --policy-name inline")
    aws(f"iam detach-role-policy {role} {policy}")
    provider = text(
        "iam create-open-id-connect-provider --url https://oidc.example.com/id/CLI --client-id-list a",
        "OpenIDConnectProviderArn",
    )
    named = f"--open-id-connect-provider-arn {provider}"
    aws(f"iam add-client-id-to-open-id-connect-provider {named} --client-id b")
    aws(f"iam remove-client-id-from-open-id-connect-provider {named} --client-id b")
    aws(f"iam tag-open-id-connect-provider {named} --tags Key=from,Value=cli")
    aws(f"iam get-open-id-connect-provider {named}")
    aws("iam list-open-id-connect-providers")
    aws(f"iam delete-open-id-connect-provider {named}")
    return account


def keys_and_logs(cli: Session) -> str:
    text, aws = cli.text, cli.aws
    key = text("kms create-key --tags TagKey=from,TagValue=cli", "KeyMetadata.KeyId")
    aws(f"kms create-alias --alias-name alias/cli --target-key-id {key}")
    aws(f"kms list-aliases --key-id {key}")
    arn = text("kms describe-key --key-id alias/cli", "KeyMetadata.Arn")
    aws(f"kms enable-key-rotation --key-id {key}")
    aws(f"kms get-key-rotation-status --key-id {key}")
    aws(f"kms disable-key-rotation --key-id {key}")
    aws(f"kms update-key-description --key-id {key} --description cli")
    aws(f"kms tag-resource --key-id {key} --tags TagKey=a,TagValue=1")
    aws(f"kms list-resource-tags --key-id {key}")
    found = aws("resourcegroupstaggingapi get-resources --tag-filters Key=from,Values=cli")
    arns = [one["ResourceARN"] for one in found["ResourceTagMappingList"]]
    cli.report.true("the tagging service finds the key", arn in arns, arns)
    aws("logs create-log-group --log-group-name /cli")
    aws("logs create-log-group --log-group-name /cli", refused="ResourceAlreadyExistsException")
    aws("logs put-retention-policy --log-group-name /cli --retention-in-days 30")
    group = text("logs describe-log-groups --log-group-name-prefix /cli", "logGroups[0].arn").removesuffix(":*")
    aws(f"logs tag-resource --resource-arn {group} --tags a=1")
    aws(f"logs list-tags-for-resource --resource-arn {group}")
    aws("logs delete-log-group --log-group-name /cli")
    return arn


def cluster(cli: Session, made: dict[str, str], account: str, key: str) -> None:
    text, aws = cli.text, cli.aws
    role = f"arn:aws:iam::{account}:role"
    aws("eks describe-cluster-versions")
    aws("eks describe-addon-versions --addon-name vpc-cni")
    places = f"subnetIds={made['first']},{made['second']}"
    aws(
        f"eks create-cluster --name cli --kubernetes-version 1.34 --role-arn {role}/cli-cluster",
        "--resources-vpc-config", places, "--access-config", "authenticationMode=API",
    )  # fmt: skip
    aws("eks wait cluster-active --name cli")
    arn = text("eks describe-cluster --name cli", "cluster.arn")
    aws(f"eks tag-resource --resource-arn {arn} --tags from=cli")
    aws("eks update-cluster-config --name cli --resources-vpc-config publicAccessCidrs=10.0.0.0/8")
    aws("eks wait cluster-active --name cli")
    aws("eks update-cluster-version --name cli --kubernetes-version 1.35")
    aws("eks wait cluster-active --name cli")
    secrets = [{"resources": ["secrets"], "provider": {"keyArn": key}}]
    aws("eks associate-encryption-config --cluster-name cli", "--encryption-config", json.dumps(secrets))
    aws("eks wait cluster-active --name cli")
    entry = f"--cluster-name cli --principal-arn {role}/cli-nodes"
    policy = "--policy-arn arn:aws:eks::aws:cluster-access-policy/AmazonEKSViewPolicy"
    aws(f"eks create-access-entry {entry}")
    aws(f"eks update-access-entry {entry} --kubernetes-groups viewers")
    aws(f"eks associate-access-policy {entry} {policy} --access-scope type=cluster")
    aws(f"eks list-associated-access-policies {entry}")
    aws(f"eks describe-access-entry {entry}")
    aws(f"eks disassociate-access-policy {entry} {policy}")
    aws(f"eks delete-access-entry {entry}")
    addon = "--cluster-name cli --addon-name vpc-cni"
    aws(f"eks create-addon {addon}")
    aws(f"eks wait addon-active {addon}")
    aws(f"eks update-addon {addon} --resolve-conflicts OVERWRITE")
    aws(f"eks wait addon-active {addon}")
    aws(f"eks describe-addon {addon}")


def nodes(cli: Session, made: dict[str, str], account: str) -> None:
    aws = cli.aws
    group = "--cluster-name cli --nodegroup-name system"
    aws(
        f"eks create-nodegroup {group} --node-role arn:aws:iam::{account}:role/cli-nodes --subnets {made['second']}"
        " --scaling-config minSize=1,maxSize=2,desiredSize=1 --instance-types t3.large"
    )
    aws(f"eks wait nodegroup-active {group}")
    aws(f"eks update-nodegroup-config {group} --labels addOrUpdateLabels={{a=1}}")
    aws(f"eks wait nodegroup-active {group}")
    aws(f"eks update-nodegroup-version {group}")
    aws(f"eks wait nodegroup-active {group}")
    aws(f"eks describe-nodegroup {group}")
    aws(f"ec2 describe-instances --filters Name=vpc-id,Values={made['vpc']}")
    scaling = cli.text("autoscaling describe-auto-scaling-groups", "AutoScalingGroups[0].AutoScalingGroupName")
    aws(f"autoscaling describe-scaling-activities --auto-scaling-group-name {scaling}")


def remains(cli: Session) -> None:
    text, aws = cli.text, cli.aws
    for kind in ("service_load_balancer", "ingress_load_balancer", "target_group", "csi_volume", "csi_snapshot"):
        cli.sandbox.platflow("sandbox", "leak", kind)
    balancers = text("elbv2 describe-load-balancers", "LoadBalancers[].LoadBalancerArn").split()
    aws(f"elbv2 describe-tags --resource-arns {' '.join(balancers)}")
    for arn in balancers:
        aws(f"elbv2 delete-load-balancer --load-balancer-arn {arn}")
    for arn in text("elbv2 describe-target-groups", "TargetGroups[].TargetGroupArn").split():
        aws(f"elbv2 delete-target-group --target-group-arn {arn}")
    for name in text("elb describe-load-balancers", "LoadBalancerDescriptions[].LoadBalancerName").split():
        aws(f"elb describe-tags --load-balancer-names {name}")
        aws(f"elb delete-load-balancer --load-balancer-name {name}")
    for snapshot in text("ec2 describe-snapshots --owner-ids self", "Snapshots[].SnapshotId").split():
        aws(f"ec2 delete-snapshot --snapshot-id {snapshot}")
    free = "--filters Name=status,Values=available"
    for volume in text(f"ec2 describe-volumes {free}", "Volumes[].VolumeId").split():
        aws(f"ec2 delete-volume --volume-id {volume}")
    aws("ec2 describe-vpc-endpoints")


def takedown(cli: Session, made: dict[str, str]) -> None:
    aws, vpc = cli.aws, made["vpc"]
    aws("eks delete-cluster --name cli", refused="ResourceInUseException")
    aws("eks delete-addon --cluster-name cli --addon-name vpc-cni")
    aws("eks delete-nodegroup --cluster-name cli --nodegroup-name system")
    aws("eks wait nodegroup-deleted --cluster-name cli --nodegroup-name system")
    aws("eks delete-cluster --name cli")
    aws("eks wait cluster-deleted --name cli")
    aws("kms delete-alias --alias-name alias/cli")
    aws(f"ec2 delete-nat-gateway --nat-gateway-id {made['nat']}")
    aws(f"ec2 wait nat-gateway-deleted --nat-gateway-ids {made['nat']}")
    aws(f"ec2 release-address --allocation-id {made['address']}")
    aws(f"ec2 delete-route --route-table-id {made['table']} --destination-cidr-block 0.0.0.0/0")
    aws(f"ec2 disassociate-route-table --association-id {made['link']}")
    aws(f"ec2 delete-route-table --route-table-id {made['table']}")
    aws(f"ec2 delete-vpc --vpc-id {vpc}", refused="DependencyViolation")
    free = f"--filters Name=vpc-id,Values={vpc} Name=status,Values=available"
    for interface in cli.text(
        f"ec2 describe-network-interfaces {free}", "NetworkInterfaces[].NetworkInterfaceId"
    ).split():
        aws(f"ec2 delete-network-interface --network-interface-id {interface}")
    query = "SecurityGroups[?GroupName!='default'].GroupId"
    described = f"ec2 describe-security-groups --filters Name=vpc-id,Values={vpc}"
    for group in cli.text(described, query).split():
        # The interfaces of a load balancer outlive it for a while.
        until(f"{group} is free", lambda group=group: aws(f"ec2 delete-security-group --group-id {group}", quiet=True))
    for subnet in (made["first"], made["second"]):
        until(f"{subnet} is free", lambda subnet=subnet: aws(f"ec2 delete-subnet --subnet-id {subnet}", quiet=True))
    aws(f"ec2 detach-internet-gateway --internet-gateway-id {made['gateway']} --vpc-id {vpc}")
    aws(f"ec2 delete-internet-gateway --internet-gateway-id {made['gateway']}")
    aws(f"ec2 delete-vpc --vpc-id {vpc}")
    for role in ("cli-cluster", "cli-nodes"):
        aws(f"iam delete-role --role-name {role}")
    left = [one for one in cli.sandbox.world() if one["type"].startswith(("ec2:", "eks:", "elb"))]
    cli.report.check("left in the world", [], [f"{one['type']} {one['id']}" for one in left])


def run(report: Report, folder: pathlib.Path) -> None:
    with Sandbox(folder) as sandbox:
        cli = Session(report, sandbox)
        made = network(cli)
        groups(cli, made)
        account = identity(cli)
        key = keys_and_logs(cli)
        cluster(cli, made, account, key)
        nodes(cli, made, account)
        remains(cli)
        takedown(cli, made)
        wanted = called_by_steps()
        report.cover("operations used by steps, called by the aws command", len(wanted & cli.called), len(wanted))
        share = len(wanted & cli.called) / len(wanted)
        report.true("at least 80 % of the steps' operations are called by a foreign client", share >= 0.8, share)
