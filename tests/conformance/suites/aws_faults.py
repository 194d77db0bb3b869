"""AWS, faults: a runbook with every family of AWS steps, run and taken down through a proxy that fails as networks do.

The proxy (microburst) stands before the sandbox, and before moto with a thin layer of our own. Replies are lost after
the call took effect, calls are throttled, connections are reset, answers are slow: each kind before each server. After
the run everything is there once, and after the destroy nothing is; the steps know of neither server. Every operation
that changes something, as the sandbox counts them, must have been hit by the faults that its table names.
"""

import concurrent.futures
import dataclasses
import json
import os
import pathlib
import subprocess
import time
import urllib.request
from contextlib import ExitStack
from typing import Any

from harness.aws import REGION, Aws
from harness.report import Report
from harness.sandbox import Sandbox, binary
from harness.servers import Server, free_port, layered, microburst

WORKFLOW = pathlib.Path(__file__).resolve().parents[1] / "workflows" / "foundation.yaml"
CREATES = {
    "ec2": [
        "CreateVpc", "ModifyVpcAttribute", "CreateSubnet", "ModifySubnetAttribute", "CreateInternetGateway",
        "AttachInternetGateway", "AllocateAddress", "CreateNatGateway", "CreateRouteTable", "CreateRoute",
        "AssociateRouteTable", "CreateSecurityGroup", "AuthorizeSecurityGroupIngress", "CreateLaunchTemplate",
    ],
    "eks": ["CreateCluster", "CreateAccessEntry", "AssociateAccessPolicy", "CreateAddon", "CreateNodegroup"],
    "iam": ["CreateRole", "AttachRolePolicy", "PutRolePolicy", "CreateOpenIDConnectProvider"],
    "kms": ["CreateKey", "EnableKeyRotation", "CreateAlias"],
    "logs": ["CreateLogGroup", "PutRetentionPolicy"],
}  # fmt: skip
DELETES = {
    "ec2": [
        "DeleteSubnet", "DetachInternetGateway", "DeleteInternetGateway", "ReleaseAddress", "DeleteNatGateway",
        "DisassociateRouteTable", "DeleteRouteTable", "DeleteSecurityGroup", "DeleteLaunchTemplate", "DeleteVpc",
    ],
    "eks": ["DeleteAccessEntry", "DeleteAddon", "DeleteNodegroup", "DeleteCluster"],
    "iam": ["DetachRolePolicy", "DeleteRolePolicy", "DeleteRole", "DeleteOpenIDConnectProvider"],
    "kms": ["DeleteAlias", "ScheduleKeyDeletion"],
    "logs": ["DeleteLogGroup"],
}  # fmt: skip
# Of deletions those that go side by side: each lost reply is followed by a minute in which the step makes sure.
FIRST_DELETES = {
    "ec2": ["DeleteLaunchTemplate", "DeleteNatGateway"],
    "eks": ["DeleteAccessEntry", "DeleteNodegroup"],
    "iam": ["DeleteOpenIDConnectProvider"],
    "kms": ["DeleteAlias"],
}
# Throttled deletions are made sure of as well: of the long way from the machines to the network only the ends.
THROTTLED_DELETES = {
    "ec2": ["DeleteLaunchTemplate", "DeleteNatGateway", "DeleteSubnet"], "eks": ["DeleteAccessEntry", "DeleteNodegroup"],
    "iam": ["DeleteOpenIDConnectProvider", "DeleteRole"], "kms": ["DeleteAlias", "ScheduleKeyDeletion"],
    "logs": ["DeleteLogGroup"],
}  # fmt: skip
# What is swept away at the end: there is some of it in the sandbox, whose network plugin leaves interfaces, and none in moto.
SWEPT = {"ec2": ["DeleteNetworkInterface"]}
# What the service never heard: the step cannot know, and makes sure for a minute before it asks again. So these go side
# by side too: at the beginning, and the machines at the end.
UNHEARD = {
    "ec2": ["CreateVpc", "AllocateAddress"], "eks": ["CreateNodegroup"], "iam": ["CreateRole"], "kms": ["CreateKey"],
    "logs": ["CreateLogGroup"],
}  # fmt: skip
THROTTLES = {
    "ec2": ("RequestLimitExceeded", 503),
    "eks": ("ThrottlingException", 429),
    "iam": ("Throttling", 400),
    "kms": ("ThrottlingException", 400),
    "logs": ("ThrottlingException", 400),
}
# What must be there once the runbook ran; what a fresh account has is not counted.
WORLD = {
    "VPC": 1, "subnets": 4, "internet gateways": 1, "addresses": 1, "NAT gateways": 1, "route tables": 3,
    "security groups": 1, "launch templates": 1, "clusters": 1, "node groups": 1, "access entries": 1, "add-ons": 1,
    "roles": 2, "OIDC providers": 1, "keys": 1, "aliases": 1, "log groups": 2,
}  # fmt: skip

# Where moto's clusters say that their API server is; nothing of this runbook goes there.
NOWHERE = "https://127.0.0.1:1"

Rule = dict[str, Any]


def everywhere(fault: Rule, *tables: dict[str, list[str]]) -> list[Rule]:
    calls = [(service, name) for table in tables for service, names in table.items() for name in names]
    return [{"service": service, "operation": name, **fault} for service, name in calls]


def lost() -> list[Rule]:
    """The first reply to every kind of creation, and to some deletions, is cut off; the change took effect."""
    return everywhere({"response": {"abort_bytes": 0}, "times": 1}, CREATES, FIRST_DELETES)


def throttled() -> list[Rule]:
    """Every kind of creation and some deletions of each service are throttled once, and reads now and then."""
    rules = []
    for service, (code, status) in THROTTLES.items():
        error = {"error": {"code": code, "status": status}}
        rules += everywhere({**error, "times": 1}, {service: CREATES[service] + THROTTLED_DELETES[service]})
        rules.append({"service": service, **error, "sequence": {"fail": 1, "pass": 19}, "times": 2})
    return rules


def reset() -> list[Rule]:
    """The connection of some creations and deletions of each service is reset before the call arrives."""
    return everywhere({"reset": True, "times": 1}, UNHEARD, FIRST_DELETES)


def slow() -> list[Rule]:
    """Every kind of change is answered late once, and so are the first reads of every service."""
    late = {"latency": {"dist": "uniform", "min_ms": 200, "max_ms": 700}}
    reads = [{"service": service, **late, "times": 10} for service in CREATES]
    return [*everywhere({**late, "times": 1}, CREATES, DELETES, SWEPT), *reads]


FAULTS = {"lost": lost, "throttled": throttled, "reset": reset, "slow": slow}
# Which changes each of them must have hit.
HIT = {
    "lost": (CREATES, FIRST_DELETES), "throttled": (CREATES, THROTTLED_DELETES), "reset": (UNHEARD, FIRST_DELETES),
    "slow": (CREATES, DELETES),
}  # fmt: skip
CASES = [(server, fault) for fault in FAULTS for server in ("sandbox", "moto")]


@dataclasses.dataclass
class Case:
    """One server, one kind of fault; what was compared."""

    server: str
    fault: str
    folder: pathlib.Path
    compared: list[tuple[str, Any, Any]] = dataclasses.field(default_factory=list)
    fired: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    changes: set[str] = dataclasses.field(default_factory=set)
    seconds: float = 0.0

    @property
    def name(self) -> str:
        return f"{self.fault} before {self.server}"


def control(proxy: Server, path: str, body: Any = None) -> Any:
    method = "GET" if body is None else "PATCH"
    content = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"{proxy.url}/_microburst/{path}", content, method=method)
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.loads(answer.read() or b"null")


def counted(upstream: str) -> dict[str, int]:
    """What is there, asked for without the proxy."""
    aws = Aws(upstream)
    ec2 = lambda name, member, **more: aws.must("ec2", name, **more)[member]  # noqa: E731 - one line each, below
    vpcs = [vpc for vpc in ec2("DescribeVpcs", "Vpcs") if not vpc.get("IsDefault")]
    ids = [vpc["VpcId"] for vpc in vpcs]
    inside = lambda list_: [one for one in list_ if one.get("VpcId") in ids]  # noqa: E731
    nats = [one for one in ec2("DescribeNatGateways", "NatGateways") if one["State"] not in ("deleted", "deleting")]
    tables = inside(ec2("DescribeRouteTables", "RouteTables"))
    clusters = aws.must("eks", "ListClusters")["clusters"]
    ours = lambda tags: any(tag["Key"] == "platflow:environment-uid" for tag in tags or [])  # noqa: E731
    keys = [aws.must("kms", "DescribeKey", KeyId=key["KeyId"]) for key in aws.must("kms", "ListKeys")["Keys"]]
    aliases = aws.must("kms", "ListAliases")["Aliases"]
    parts = [(aws.call("eks", "DescribeAccessEntry", clusterName=name,
                       principalArn=aws.must("sts", "GetCallerIdentity")["Arn"]).ok,
              aws.call("eks", "DescribeAddon", clusterName=name, addonName="vpc-cni").ok)
             for name in clusters]  # fmt: skip
    groups = [one for one in inside(ec2("DescribeSecurityGroups", "SecurityGroups")) if ours(one.get("Tags"))]
    return {
        "VPC": len(vpcs),
        "subnets": len(inside(ec2("DescribeSubnets", "Subnets"))),
        "internet gateways": len(ec2("DescribeInternetGateways", "InternetGateways")),
        "addresses": len(ec2("DescribeAddresses", "Addresses")),
        "NAT gateways": len(nats),
        "route tables": len([one for one in tables if ours(one.get("Tags"))]),
        "security groups": len(groups),
        "launch templates": len(ec2("DescribeLaunchTemplates", "LaunchTemplates")),
        "clusters": len(clusters),
        "node groups": sum(len(aws.must("eks", "ListNodegroups", clusterName=name)["nodegroups"]) for name in clusters),
        "access entries": sum(entry for entry, _ in parts),
        "add-ons": sum(addon for _, addon in parts),
        "roles": len(
            [one for one in aws.must("iam", "ListRoles")["Roles"] if one["RoleName"].startswith("foundation")]
        ),
        "OIDC providers": len(aws.must("iam", "ListOpenIDConnectProviders")["OpenIDConnectProviderList"]),
        "keys": len([key for key in keys if key["KeyMetadata"]["KeyState"] == "Enabled"]),
        "aliases": len([one for one in aliases if not one["AliasName"].startswith("alias/aws/")]),
        "log groups": len(aws.must("logs", "DescribeLogGroups")["logGroups"]),
    }


def named(*tables: dict[str, list[str]]) -> set[str]:
    return {f"{service} {name}" for table in tables for service, names in table.items() for name in names}


def changes(sandbox: Sandbox) -> set[str]:
    """What was called there that changes something, as the sandbox counts it."""
    url = json.loads(sandbox.platflow("sandbox", "status", "--output", "json").stdout)["control_url"]
    with urllib.request.urlopen(f"{url}/counters", timeout=30) as answer:
        called = json.load(answer)["mutating"]["by_operation"]
    return {name.replace(":", " ", 1) for name in called if name.split(":")[0] in CREATES}


def nobody(folder: pathlib.Path) -> pathlib.Path:
    """The authority of an API server that this runbook never calls."""
    path = folder / "nobody.pem"
    path.write_text("nobody")
    return path


def platflow(case: Case, endpoint: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The real command, as on the real cloud: only the endpoint is another."""
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("AWS_")},
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": "AKIACONFORMANCE00000",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_EC2_METADATA_DISABLED": "true",
        "HOME": str(case.folder),
        "XDG_CONFIG_HOME": str(case.folder / "config"),
        "PLATFLOW_STATE": str(case.folder / "runs"),
    }
    return subprocess.run(
        [str(binary()), *arguments], env=environment, capture_output=True, text=True, check=False, timeout=400
    )


def play(case: Case) -> None:
    """One run and one destroy through the proxy."""
    case.folder.mkdir()
    started = time.monotonic()
    with ExitStack() as stack:
        if case.server == "sandbox":
            sandbox = stack.enter_context(Sandbox(case.folder))
            upstream = sandbox.environment["AWS_ENDPOINT_URL"]
        else:
            upstream = stack.enter_context(layered(case.folder, free_port(), 3, NOWHERE, nobody(case.folder))).url
        before = counted(upstream)
        wanted = {name: before[name] + count for name, count in WORLD.items()}
        account = Aws(upstream).must("sts", "GetCallerIdentity")["Account"]
        proxy = stack.enter_context(microburst(case.folder, upstream))
        control(proxy, "rules", FAULTS[case.fault]())
        run = platflow(case, proxy.url, "run", str(WORKFLOW), "--account", account, "--region", REGION)
        case.compared.append((f"{case.name}: run", (0, ""), (run.returncode, run.stderr[-600:] * bool(run.returncode))))
        case.compared.append((f"{case.name}: everything is there, once", wanted, counted(upstream)))
        gone = platflow(case, proxy.url, "destroy", "foundation", "--confirm", "foundation")
        said = (gone.stdout + gone.stderr)[-900:] * bool(gone.returncode)
        case.compared.append((f"{case.name}: destroy", (0, ""), (gone.returncode, said)))
        case.compared.append((f"{case.name}: nothing is left", before, counted(upstream)))
        case.fired = control(proxy, "fired?limit=100000")
        if case.server == "sandbox":
            case.changes = changes(sandbox)
    case.seconds = time.monotonic() - started


def run(report: Report, folder: pathlib.Path) -> None:
    cases = [Case(server, fault, folder / f"{server}-{fault}") for server, fault in CASES]
    # They wait more than they work: moments of the real clock, which the engine keeps to without a sandbox of its own.
    with concurrent.futures.ThreadPoolExecutor(len(cases)) as pool:
        running = [(case, pool.submit(play, case)) for case in cases]
    for case, future in running:
        report.case(case.name, future.result)
        for what, wanted, found in case.compared:
            report.check(what, wanted, found)
        hit = {f"{one['service']} {one['operation']}" for one in case.fired}
        wanted = named(*HIT[case.fault])
        report.check(f"{case.name}: changes that it should have hit and did not", [], sorted(wanted - hit))
        missed = case.changes - named(CREATES, DELETES, SWEPT)
        report.check(f"{case.name}: changes of the runbook that no fault is planned for", [], sorted(missed))
        share = f"{len(hit & named(CREATES, DELETES))} of {len(named(CREATES, DELETES))} kinds of change hit"
        report.coverage.append(f"{case.name}: {share}, {len(case.fired)} faults fired in {case.seconds:.0f} s")
