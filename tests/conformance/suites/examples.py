"""The runbooks under workflows/examples, each run on the sandbox by the very commands that its first lines name."""

import http.server
import json
import pathlib
import re
import threading

from harness.report import Report
from harness.sandbox import ROOT, Sandbox

EXAMPLES = ROOT / "workflows" / "examples"
BASE = ROOT / "tests" / "fixtures" / "vault-only.yaml"
ENVIRONMENT = "vault-only"


def commands(runbook: pathlib.Path) -> list[str]:
    """The commands of its first comment."""
    head = runbook.read_text().split("\nworkflow:")[0]
    return re.findall(r"^#   platflow (.*)$", head, re.MULTILINE)


class Place:
    """A folder in which the documented commands work as they are written: a cluster's parameters, the examples."""

    def __init__(self, sandbox: Sandbox, folder: pathlib.Path):
        self.sandbox, self.folder = sandbox, folder / "place"
        self.folder.mkdir()
        (self.folder / "workflows").symlink_to(ROOT / "workflows")
        # A cluster with a pool of nodes; this runbook stops at a gate before anything else.
        sandbox.platflow("run", str(BASE), "--sandbox", check=False, cwd=self.folder)
        config = json.loads(sandbox.platflow("kubeconfig", ENVIRONMENT).stdout)["clusters"][0]
        cluster = {
            "name": config["name"],
            "endpoint": config["cluster"]["server"],
            "certificate_authority_data": config["cluster"]["certificate-authority-data"],
        }
        self.cluster = cluster
        (self.folder / "cluster.yaml").write_text(json.dumps({"cluster": cluster}))
        status = json.loads(sandbox.platflow("status", "--output", "json").stdout)
        steps = {step["name"]: step.get("outputs") or {} for step in status["steps"]}
        pool = {
            "cluster": cluster,
            "version": steps["lookups"]["kubernetes_version"],
            "node_role_arn": steps["cluster.node_role"]["arn"],
            "subnet_ids": [steps[f"network.private.{zone}"]["subnet_id"] for zone in range(3)],
        }
        (self.folder / "pool.yaml").write_text(json.dumps(pool))

    def run(self, command: str):
        if "<run>" in command:
            runs = json.loads(self.sandbox.platflow("list", "--output", "json").stdout)["runs"]
            command = command.replace("<run>", runs[0]["id"])
        return self.sandbox.platflow(*command.split(), check=False, cwd=self.folder)

    def names(self, kind: str) -> set[str]:
        return {str(resource.get("name")) for resource in self.sandbox.world() if resource["type"] == kind}


def steps_of(text: str) -> tuple[int, int, int]:
    """Created, changed, unchanged, as the run tells at its end."""
    found = re.search(r"(\d+) created, (\d+) changed, (\d+) unchanged", text)
    return tuple(int(number) for number in found.groups()) if found else (-1, -1, -1)


def ran(report: Report, place: Place, name: str) -> list[tuple[int, int, int]]:
    """Runs every command of a runbook; what each says it did."""
    did = []
    for command in commands(EXAMPLES / f"{name}.yaml"):
        finished = place.run(command)
        report.check(f"platflow {command}", 0, finished.returncode)
        if finished.returncode != 0:
            report.fail(name, finished.stderr[-1500:])
        did.append(steps_of(finished.stdout))
    return did


def tenants(report: Report, place: Place) -> None:
    did = ran(report, place, "tenant-onboarding")
    report.check("50 teams, four things each", [(200, 0, 0)], did)
    teams = {f"team-{number:02}" for number in range(1, 51)}
    report.check("50 namespaces", teams, teams & place.names("kubernetes:Namespace"))
    again = place.run(commands(EXAMPLES / "tenant-onboarding.yaml")[0])
    report.check("run again: nothing changes", (0, 0, 200), steps_of(again.stdout))


def restart(report: Report, place: Place) -> None:
    report.check("both roll, the namespace stays", [(3, 0, 0), (0, 2, 1)], ran(report, place, "rolling-restart"))


def certificate(report: Report, place: Place) -> None:
    did = ran(report, place, "certificate-rotation")
    report.check("made, then rotated", [(5, 0, 0), (0, 4, 1)], did)
    pair = [(place.folder / serial / "tls.crt").read_text() for serial in ("1", "2")]
    report.true("two certificates", pair[0] != pair[1])
    key = (place.folder / "2" / "tls.key").read_text().splitlines()[1]
    told = b"".join(path.read_bytes() for path in (place.sandbox.folder / "state").rglob("*") if path.is_file())
    report.true("the key is nowhere in the state", key.encode() not in told)


class Restored(http.server.BaseHTTPRequestHandler):
    """What answers from the restored data: so many rows."""

    rows = 0
    asked = 0

    def do_GET(self) -> None:
        type(self).asked += 1
        content = json.dumps({"rows": self.rows}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


def drill(report: Report, place: Place) -> None:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Restored) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_address[1]}/restored"
        (place.folder / "drill.yaml").write_text(json.dumps({"cluster": place.cluster, "probe": url, "least_rows": 10}))
        Restored.rows = 42
        did = ran(report, place, "restore-drill")
        report.check("restored, asked and found to be enough", (4, 0, 0), did[0])
        report.true("what was restored was asked", Restored.asked >= 1, Restored.asked)
        nothing(report, place, "a drill that went well")
        Restored.rows = 9
        failed = place.run(commands(EXAMPLES / "restore-drill.yaml")[0])
        report.check("a backup with too little in it: failed and rolled back", 4, failed.returncode)
        nothing(report, place, "a drill that failed")
        server.shutdown()
    failed = place.run(commands(EXAMPLES / "restore-drill.yaml")[0])
    report.true("nothing that answers: the drill does not pass", failed.returncode != 0, failed.returncode)


def nothing(report: Report, place: Place, what: str) -> None:
    report.true(f"{what}: nothing of it stays", "restore-drill" not in place.names("kubernetes:Namespace"))


def pool(report: Report, place: Place) -> None:
    did = ran(report, place, "node-pool-replacement")
    report.check("two generations", [(5, 0, 0)] * 2, did[:2])
    report.check("the new pool beside the cluster's own", {"system", "work-green"}, place.names("eks:nodegroup"))


def run(report: Report, folder: pathlib.Path) -> None:
    with Sandbox(folder) as sandbox:
        place = Place(sandbox, folder)
        tested = {"tenant-onboarding": tenants, "rolling-restart": restart, "certificate-rotation": certificate,
                  "restore-drill": drill, "node-pool-replacement": pool}  # fmt: skip
        shipped = {path.stem for path in EXAMPLES.glob("*.yaml")}
        report.check("every example is run here", shipped, set(tested))
        for name, body in tested.items():
            report.case(name, lambda body=body: body(report, place))
        report.cover("examples run by their commands", len(tested), len(shipped))
