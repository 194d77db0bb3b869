"""Drift checks of a whole built environment: what boto3 and kubectl change behind platflow's back, named and set right."""

import json
import pathlib
import time
from collections.abc import Callable

import boto3
from botocore.exceptions import ClientError
from harness import tools
from harness.polling import until
from harness.report import Report
from harness.sandbox import Sandbox
from tables import drift_aws, drift_cluster
from tables.drift_aws import CLUSTER, Mutation

ENVIRONMENT = "aws-dev"
WORKFLOW = "deploy-aws-dev"
REGION = "us-east-1"
# A check of a whole environment in which nothing drifted makes at most so many calls; 150 is where it should come to.
CALLS = 200
UNCHANGED = 20


class World:
    """The environment, the clients of others, and what it takes to change it behind platflow's back."""

    def __init__(self, sandbox: Sandbox, folder: pathlib.Path):
        self.sandbox, self.folder = sandbox, folder
        session = boto3.Session(aws_access_key_id="AKIADRIFT000000000", aws_secret_access_key="secret", region_name=REGION)  # fmt: skip
        for service in ("ec2", "iam", "eks", "kms", "logs"):
            setattr(self, service, session.client(service, endpoint_url=sandbox.environment["AWS_ENDPOINT_URL"]))
        self.config = folder / "kubeconfig.json"
        self.config.write_text(sandbox.platflow("kubeconfig", ENVIRONMENT).stdout)
        self.outputs: dict[str, dict] = {}
        self.learn()

    def learn(self) -> None:
        """Ids change when something is made again."""
        status = json.loads(self.sandbox.platflow("status", "--output", "json").stdout)
        self.outputs.update({step["name"]: step["outputs"] for step in status["steps"] if step.get("outputs")})

    def kubectl(self, *arguments: str) -> str:
        command = [str(tools.kubectl()), "--kubeconfig", str(self.config), "--request-timeout=60s", *arguments]
        return self.sandbox.other(command)

    def settled(self, what: str, state: Callable[[], str]) -> None:
        until(what, lambda: state() == "ACTIVE")

    def updated(self, _: object) -> None:
        self.settled("the cluster", lambda: self.eks.describe_cluster(name=CLUSTER)["cluster"]["status"])

    def pool(self, pool: str, **change: object) -> None:
        name = self.outputs[f"pools.{pool}.nodes"]["name"]
        self.eks.update_nodegroup_config(clusterName=CLUSTER, nodegroupName=name, **change)
        describe = lambda: self.eks.describe_nodegroup(clusterName=CLUSTER, nodegroupName=name)["nodegroup"]["status"]  # noqa: E731
        self.settled(name, describe)

    def addon(self, name: str, **change: object) -> None:
        self.eks.update_addon(clusterName=CLUSTER, addonName=name, **change)
        self.settled(name, lambda: self.eks.describe_addon(clusterName=CLUSTER, addonName=name)["addon"]["status"])

    def version(self, template: str, gib: int) -> None:
        """Another version of a launch template comes into force."""
        template_id = self.outputs[template]["launch_template_id"]
        version = self.ec2.create_launch_template_version(
            LaunchTemplateId=template_id,
            SourceVersion="$Default",
            LaunchTemplateData={"BlockDeviceMappings": [{"DeviceName": "/dev/xvda", "Ebs": {"VolumeSize": gib, "VolumeType": "gp3", "Encrypted": True}}]},
        )["LaunchTemplateVersion"]["VersionNumber"]
        self.ec2.modify_launch_template(LaunchTemplateId=template_id, DefaultVersion=str(version))

    @property
    def account(self) -> str:
        return self.outputs["lookups"]["account"]

    def stranger(self) -> str:
        document = {"Version": "2012-10-17", "Statement": []}
        role = self.iam.create_role(RoleName="by-hand", AssumeRolePolicyDocument=json.dumps(document))
        return role["Role"]["Arn"]

    def let_in(self, principal: str) -> None:
        """An access entry for somebody of whom EKS may hear a little later."""

        def done() -> bool:
            try:
                self.eks.create_access_entry(clusterName=CLUSTER, principalArn=principal)
            except self.eks.exceptions.InvalidParameterException:
                return False
            return True

        until("EKS knows the role", done)

    def gone(self, what: str, ask: Callable[[], object]) -> None:
        def absent() -> bool:
            try:
                return ask() == "deleted"
            except ClientError:
                return True

        until(f"{what} is gone", absent)

    def gone_addon(self, name: str) -> None:
        self.eks.delete_addon(clusterName=CLUSTER, addonName=name)
        self.gone(name, lambda: self.eks.describe_addon(clusterName=CLUSTER, addonName=name))

    def gone_pool(self, pool: str) -> None:
        name = self.outputs[f"pools.{pool}.nodes"]["name"]
        self.eks.delete_nodegroup(clusterName=CLUSTER, nodegroupName=name)
        self.gone(name, lambda: self.eks.describe_nodegroup(clusterName=CLUSTER, nodegroupName=name))

    def gone_nat(self, nat: str) -> None:
        self.ec2.delete_nat_gateway(NatGatewayId=nat)
        self.gone(nat, lambda: self.ec2.describe_nat_gateways(NatGatewayIds=[nat])["NatGateways"][0]["State"])

    def gone_table(self, table: str) -> None:
        shown = self.ec2.describe_route_tables(RouteTableIds=[table])["RouteTables"][0]
        for association in shown["Associations"]:
            self.ec2.disassociate_route_table(AssociationId=association["RouteTableAssociationId"])
        self.ec2.delete_route_table(RouteTableId=table)

    def restarted(self, pod: str) -> None:
        found = json.loads(self.kubectl("get", "pods", "-A", "-o", "json"))["items"]
        namespace = next(one["metadata"]["namespace"] for one in found if one["metadata"]["name"] == pod)
        before = next(one["metadata"]["uid"] for one in found if one["metadata"]["name"] == pod)
        self.kubectl("delete", "pod", pod, "-n", namespace, "--wait=false")

        def again() -> bool:
            pods = json.loads(self.kubectl("get", "pods", "-n", namespace, "-o", "json"))["items"]
            mine = [one for one in pods if one["metadata"]["name"] == pod]
            return bool(mine) and mine[0]["metadata"]["uid"] != before and mine[0]["status"].get("phase") == "Running"

        until(f"{pod} runs again", again)

    def check(self, *more: str) -> tuple[int, dict]:
        done = self.sandbox.platflow("drift", ENVIRONMENT, "--sandbox", "--output", "json", *more, check=False)
        if done.returncode not in (0, 1, 3):
            raise RuntimeError(f"drift exited {done.returncode}: {done.stderr[-3000:]}")
        return done.returncode, json.loads(done.stdout)


def named(finding: dict) -> tuple[str, str]:
    """Subject and field of a finding, as the tables name them."""
    if finding["what"] == "extra":
        return ("extra", finding["resource"])
    return (finding["step"], finding.get("field", finding["what"]))


def fits(mutation: Mutation, found: tuple[str, str]) -> bool:
    """A field may be named more exactly than the table does."""
    wanted = ((mutation.subject, mutation.field), *mutation.also)
    return any(step == found[0] and (field == found[1] or found[1].startswith(field + "/")) for step, field in wanted)


def unchanged(report: Report, world: World, when: str, times: int = 1) -> None:
    for _ in range(times):
        code, check = world.check()
        report.check(f"{when}: no drift", (0, [], []), (code, check["findings"], check["untold"]))


def counted(report: Report, world: World) -> None:
    """A check makes few calls and none that changes anything."""
    before = world.sandbox.counters()
    unchanged(report, world, "counted")
    after = world.sandbox.counters()
    calls = sum(after[kind]["total"] - before[kind]["total"] for kind in ("reads", "dry_runs"))
    report.true(f"at most {CALLS} calls", calls <= CALLS, calls)
    report.check("no mutating call", before["mutating"]["total"], after["mutating"]["total"])
    print(f"   figures   a check of a whole environment: {calls} calls")


def batch(report: Report, world: World, name: str, mutations: list[Mutation]) -> int:
    """Makes all changes, finds each by subject and field and nothing else, repairs, and finds nothing but what is left."""
    made = []
    for mutation in mutations:
        try:
            mutation.apply(world)
            made.append(mutation)
        except Exception as error:  # noqa: BLE001 - one refused change must not hide the others
            report.fail(f"{name}: {mutation.subject} {mutation.field}", f"could not be made: {error}")
    code, check = world.check()
    report.check(f"{name}: exit code", 3, code)
    found = [named(finding) for finding in check["findings"]]
    hits = 0
    for mutation in made:
        hit = any(fits(mutation._replace(also=()), one) for one in found)
        hits += report.true(f"{name}: {mutation.subject} {mutation.field} is found", hit, found[:40])
    strange = [one for one in found if not any(fits(mutation, one) for mutation in made)]
    report.check(f"{name}: nothing else is found", [], strange)
    code, _ = world.check("--fix")
    world.learn()
    left = sum(mutation.left for mutation in made)
    report.check(f"{name}: exit code of the repair", 3 if left else 0, code)
    _, check = world.check()
    rest = [named(finding) for finding in check["findings"]]
    report.check(f"{name}: what is left", sorted((one.subject, one.field) for one in made if one.left), sorted(rest))
    return hits


def run(report: Report, folder: pathlib.Path) -> None:
    with Sandbox(folder) as sandbox:
        sandbox.platflow("run", WORKFLOW, "--sandbox")
        world = World(sandbox, folder)
        unchanged(report, world, "after the first run", UNCHANGED)
        report.case("calls", lambda: counted(report, world))
        batches = {
            "network": drift_aws.network(),
            "identity": drift_aws.identity(),
            "keys and logs": drift_aws.keys_and_logs(),
            "cluster": drift_aws.cluster(),
            "pools": drift_aws.pools(),
            "objects changed": drift_cluster.changed(),
            "objects missing": drift_cluster.missing(),
            "a sealed pod": drift_cluster.sealed(),
            "missing": drift_aws.missing(),
            "extras": drift_aws.extras() + drift_cluster.extras(),
        }
        hits = total = 0
        for name, mutations in batches.items():
            started = time.monotonic()
            total += len(mutations)

            def one(name: str = name, mutations: list[Mutation] = mutations) -> None:
                nonlocal hits
                hits += batch(report, world, name, mutations)

            report.case(name, one)
            print(f"   figures   {name}: {len(mutations)} changes in {time.monotonic() - started:.1f} s", flush=True)
        report.cover("changes found and named", hits, total)
