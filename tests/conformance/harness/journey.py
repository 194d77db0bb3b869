"""The whole life of a platform of deploy-aws-dev by the real command: killed, resumed, looked at, run again, killed and taken away.

It knows two servers by their protocols alone: an account (moto) and a cluster that somebody gives. What is compared is
what a user would look at: exits, what the command says as JSON, and what both servers hold afterwards.
"""

import base64
import json
import pathlib
import subprocess
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable
from ssl import create_default_context
from typing import Any, Protocol

import boto3
from botocore.signers import RequestSigner

from harness import eks_token, inventory, tools
from harness.aws import REGION
from harness.eks_front import Upstream
from harness.platform import KEY_ID, SECRET, Platform
from harness.report import Report
from harness.sandbox import ROOT

CLUSTER, ENVIRONMENT, RUNBOOK = "platflow-aws-dev", "aws-dev", "deploy-aws-dev"
EXAMPLE, SHOP = ROOT / "workflows" / "examples" / "rolling-restart.yaml", "shop"
PARAMETERS = pathlib.Path(__file__).resolve().parents[1] / "workflows" / "e2e.yaml"
SYSTEM = "platform-system"
# What must be there once, after a run that was killed twice; what a fresh account and cluster have is not counted.
WORLD = {
    "VPC": 1, "subnets": 6, "internet gateways": 1, "addresses": 1, "NAT gateways": 1, "route tables": 5,
    "security groups": 3, "launch templates": 3, "interfaces": 1, "clusters": 1, "node groups": 3, "roles": 4,
    "OIDC providers": 1, "keys": 1, "aliases": 1, "log groups": 2,
}  # fmt: skip
INSIDE = {"namespaces": 4, "volumes": 3, "storage classes": 1}
# Two moments that no other tool comes out of whole: machines asked for, and a Vault that is being initialised.
KILLS = ("pools.system.nodes", "vault.init")


class Given(Protocol):
    """A cluster that somebody gives: its API server, what a user would set for it, and a look around without the front."""

    upstream: Upstream
    parameters: dict[str, object]

    def read(self, path: str) -> dict: ...


class Journey:
    """One platform on one account and one cluster."""

    def __init__(self, report: Report, platform: Platform, given: Given, note: Callable[[str], None] = lambda _: None):
        self.report, self.platform, self.given, self.note = report, platform, given, note
        sets = [f"--set={name}={json.dumps(value)}" for name, value in given.parameters.items()]
        place = ["--account", platform.account, "--region", REGION]
        self.arguments = [RUNBOOK, *place, "--parameters", str(PARAMETERS), *sets]
        self.before = self.held()

    def held(self) -> inventory.Inventory:
        return {**inventory.account(self.platform.aws), **inventory.cluster(self.given.read)}

    def command(self, what: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """A command that must succeed."""
        self.note(what)
        done = self.platform.command(*arguments)
        said = (done.stdout + done.stderr)[-1500:] * bool(done.returncode)
        self.report.check(f"{what}: exit", (0, ""), (done.returncode, said))
        return done

    def run_id(self) -> str:
        listed = self.platform.command("list", "--output", "json").stdout
        return json.loads(listed)["runs"][0]["id"]

    def steps(self, run: str) -> list[dict[str, Any]]:
        return json.loads(self.platform.command("status", run, "--output", "json").stdout)["steps"]

    # Up

    def up(self) -> None:
        """From nothing, killed at each of `KILLS`."""
        self.note(f"run, SIGKILL at {KILLS[0]}")
        self.report.true("the first kill hits", self.platform.killed(intended(KILLS[0]), "run", *self.arguments))
        run = self.first = self.run_id()
        for place in KILLS[1:]:
            self.note(f"resume, SIGKILL at {place}")
            self.report.true(f"the kill at {place} hits", self.platform.killed(intended(place), "resume", run))
        self.command("resume", "resume", run)
        steps = self.steps(run)
        states = Counter(step["state"] for step in steps)
        # What is not named is not said to Argo CD: how it reads a repository, and the application that is in it.
        unsaid = sum(name not in self.given.parameters for name in ("gitops_credentials", "gitops_repo"))
        wanted = {"verified": len(steps) - unsaid, **({"skipped": unsaid} if unsaid else {})}
        self.report.check("every step is verified", wanted, dict(states))
        smoke = [step for step in steps if step["name"].startswith("smoke.") and step["state"] == "verified"]
        self.report.check("six smoke tests are proven", 6, len(smoke))
        self.report.coverage.append(f"{len(steps)} steps, SIGKILL {len(KILLS)} times on the way up")
        self.after = self.held()
        counts = inventory.more(self.before, self.after)
        self.report.check("the account holds everything once", WORLD, {kind: counts.get(kind, 0) for kind in WORLD})
        self.report.check("the cluster holds everything once", INSIDE, {kind: counts.get(kind, 0) for kind in INSIDE})
        self.report.check("no volume of EC2 is made, for none was asked", 0, counts.get("EBS volumes", 0))

    def again(self) -> None:
        """The same command: only the proofs are made anew, for they remove what they made."""
        self.command("run again", "run", *self.arguments)
        effects = {step["name"]: step["effect"] for step in self.steps(self.run_id()) if step["state"] == "verified"}
        made = sorted(name for name, effect in effects.items() if effect != "unchanged")
        self.report.check("run again: nothing but the proofs", [], [name for name in made if not name.startswith("smoke.")])
        self.report.check("run again: both hold what they held", self.after, self.held())

    def example(self) -> None:
        """A runbook that a user wrote, on the same cluster: run, run with a change, and taken away."""
        config = json.loads(self.platform.command("kubeconfig", ENVIRONMENT).stdout)["clusters"][0]
        access = {
            "name": config["name"],
            "endpoint": config["cluster"]["server"],
            "certificate_authority_data": config["cluster"]["certificate-authority-data"],
        }
        place = ["--account", self.platform.account, "--region", REGION, "--set", f"cluster={json.dumps(access)}"]
        runbook = [str(EXAMPLE), *place]
        first = self.command("an example", "run", *runbook)
        self.report.true("an example: made", "3 created, 0 changed, 0 unchanged" in first.stdout, first.stdout[-300:])
        second = self.command("an example, restarted", "run", *runbook, "--set", "when=again")
        self.report.true("an example: restarted", "0 created, 2 changed, 1 unchanged" in second.stdout, second.stdout[-300:])
        pods = self.given.read(f"/api/v1/namespaces/{SHOP}/pods")["items"]
        restarted = [pod["metadata"]["annotations"].get("platform/restarted") for pod in pods
                     if "deletionTimestamp" not in pod["metadata"]]  # fmt: skip
        self.report.check("an example: every pod was restarted", ["again"] * 4, restarted)
        self.command("the example is taken away", "destroy", EXAMPLE.stem, "--confirm", EXAMPLE.stem)
        names = [one["metadata"]["name"] for one in self.given.read("/api/v1/namespaces")["items"]]
        self.report.true("an example: its namespace is gone", SHOP not in names, names)

    # What others see

    def strangers(self) -> None:
        """kubectl with the kubeconfig that the command prints, and tokens that must open nothing."""
        config = self.platform.folder / "kubeconfig.json"
        config.write_text(self.platform.command("kubeconfig", ENVIRONMENT).stdout)

        def kubectl(*arguments: str) -> subprocess.CompletedProcess[str]:
            command = [str(tools.kubectl()), "--kubeconfig", str(config), "--request-timeout=75s", *arguments]
            return subprocess.run(
                command, env=self.platform.surroundings(), capture_output=True, text=True, check=False, timeout=300
            )

        nodes = kubectl("get", "nodes", "-l", "eks.amazonaws.com/nodegroup", "--no-headers")
        ready = [line.split()[1] for line in nodes.stdout.splitlines()]
        self.report.check("kubectl sees the pools' nodes", ["Ready"] * 5, ready)
        pods = kubectl("-n", SYSTEM, "get", "pods", "-o", "json")
        phases = Counter(pod["status"]["phase"] for pod in json.loads(pods.stdout or '{"items": []}')["items"])
        waiting = {phase: count for phase, count in phases.items() if phase not in ("Running", "Succeeded")}
        self.report.true("pods run", phases["Running"] >= 10 and not waiting, dict(phases))
        watched = kubectl("-n", SYSTEM, "rollout", "status", "deployment/argocd-server", "--timeout=120s")
        self.report.check("kubectl watches", (0, ""), (watched.returncode, watched.stderr * bool(watched.returncode)))
        self.report.true("the command went through port-forwards", self.platform.front.upgraded > 0)
        self.report.check("no token of the command was refused", {}, dict(self.platform.front.refused))
        self.closed()

    def closed(self) -> None:
        """A front that lets anybody in would prove nothing of the tokens that the command makes."""
        good = self.token()
        tokens = {
            "of another cluster": self.token(cluster="another"),
            "signed with another key": self.token(secret="stolen"),
            "for an hour": self.token(expires=3600),
            "cut": good[:-2],
            "of nobody": eks_token.PREFIX,
        }
        for what, token in tokens.items():
            self.report.check(f"a token {what} is refused", 401, self.status(token))
        self.report.check("a token made by botocore is taken", 200, self.status(good))

    def token(self, cluster: str = CLUSTER, secret: str = "", expires: int = 60) -> str:
        session = boto3.Session(KEY_ID, secret or SECRET, region_name=REGION)
        service = session.client("sts").meta.service_model.service_id
        signer = RequestSigner(service, REGION, "sts", "v4", session.get_credentials(), session.events)
        url = f"{self.platform.moto.url}/?Action=GetCallerIdentity&Version=2011-06-15"
        request = {"method": "GET", "url": url, "body": {}, "headers": {eks_token.HEADER: cluster}, "context": {}}
        presigned = signer.generate_presigned_url(request, REGION, expires, "")
        return eks_token.PREFIX + base64.urlsafe_b64encode(presigned.encode()).decode().rstrip("=")

    def status(self, token: str) -> int:
        trust = create_default_context(cafile=str(self.platform.folder / "front-ca.pem"))
        request = urllib.request.Request(f"{self.platform.endpoint}/api", headers={"Authorization": f"Bearer {token}"})
        try:
            with urllib.request.urlopen(request, context=trust, timeout=30) as answer:
                return answer.status
        except urllib.error.HTTPError as refused:
            return refused.code

    # Down

    def down(self) -> None:
        """Everything, killed on the way; the command's own certificate, and then both servers themselves."""
        self.note("destroy, SIGKILL at pools.system.nodes")
        hit = self.platform.killed(undoing("pools.system.nodes"), "destroy", ENVIRONMENT, "--confirm", ENVIRONMENT)
        self.report.true("the kill on the way down hits", hit)
        done = self.command("resume the destroy", "resume", self.run_id())
        self.report.true("the command found no residue", "nothing of ours is left" in done.stdout + done.stderr, done.stderr[-600:])
        self.report.check("both hold what they held before", self.before, self.held())

    def down_to_logs(self) -> None:
        """All but the network, the key and the log group: what is left of a destroy waits five minutes for late events."""
        self.command("rollback", "rollback", self.first, "--to", "cluster.logs", "--confirm", ENVIRONMENT)
        self.gone()

    def gone(self) -> None:
        held = self.held()
        inside = inventory.cluster(self.given.read)
        self.report.check("the cluster holds what it held before", {kind: self.before[kind] for kind in inside}, inside)
        # What was made at the same time as that step may stay; this cannot have been.
        for kind in ("clusters", "node groups", "launch templates", "NAT gateways", "OIDC providers"):
            self.report.check(f"{kind} are gone", self.before[kind], held[kind])


def intended(step: str) -> Callable[[dict], bool]:
    return lambda event: event.get("event") == "step-intended" and event.get("step") == step


def undoing(step: str) -> Callable[[dict], bool]:
    return lambda event: event.get("event") == "undo-intended" and event.get("step") == step
