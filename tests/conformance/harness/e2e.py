"""`python -m harness.e2e --cluster sandbox|kind [--logs FOLDER]`: see `tests/conformance/e2e`, which calls it.

It joins a cluster, an account and a journey, and says what was compared. What is looked at stands in `journey`.
"""

import argparse
import pathlib
import shutil
import signal
import sys
import tempfile
import time
from contextlib import ExitStack

import yaml

from harness import journey
from harness.e2e_kind import Absent, KindCluster
from harness.e2e_sandbox import SandboxCluster
from harness.platform import Platform
from harness.report import Report

KEPT = ("platflow.log", "moto.log", "sandbox.log")


def teller(started: float):
    return lambda what: print(f"   {time.monotonic() - started:5.0f} s  {what}", flush=True)


def repository(url: str, revision: str, path: str, password: pathlib.Path) -> dict[str, object]:
    """What a user sets for a private repository; the file is read by the command, which wants its place in full."""
    return {
        "gitops_repo": url,
        "gitops_revision": revision,
        "gitops_path": path,
        "gitops_credentials": {"username": "x-access-token", "password_file": str(password.resolve())},
    }


def simulated_repository(folder: pathlib.Path) -> dict[str, object]:
    """One that nobody serves: the sandbox's Argo CD reads none."""
    password = folder / "git-password"
    password.write_text("of-nobody")
    return repository("https://git.example.com/platform/root.git", "main", "apps", password)


def travel(
    report: Report, folder: pathlib.Path, kind: str, whole: bool, note=lambda _: None, more: dict[str, object] | None = None
) -> None:
    """One journey; `whole` ends in an empty account, else in an empty cluster. `more` are parameters of the runbook."""
    pools = yaml.safe_load(journey.PARAMETERS.read_text())["pools"]
    cluster = {"sandbox": SandboxCluster, "kind": KindCluster}[kind](folder / "cluster", pools)
    with ExitStack() as stack:
        note(f"the nodes of the cluster ({kind})")
        given = stack.enter_context(cluster)
        given.parameters.update(more or {})
        platform = stack.enter_context(Platform(folder / "platform", given.upstream, journey.CLUSTER))
        way = journey.Journey(report, platform, given, note)
        for part in (way.up, way.again, way.strangers, way.example, way.down if whole else way.down_to_logs):
            report.case(part.__name__, part)
        front = platform.front
        report.coverage.append(f"{front.served} calls to the API server, {front.upgraded} of them upgraded to port-forwards")


def keep(folder: pathlib.Path, logs: pathlib.Path) -> None:
    """What was said goes where it is asked for; keys and state do not."""
    logs.mkdir(parents=True, exist_ok=True)
    for name in KEPT:
        for number, path in enumerate(sorted(folder.rglob(name))):
            shutil.copy(path, logs / f"{number}-{name}")


def main() -> int:
    parser = argparse.ArgumentParser(prog="tests/conformance/e2e")
    parser.add_argument("--cluster", choices=("sandbox", "kind"), required=True)
    parser.add_argument("--logs", type=pathlib.Path)
    parser.add_argument("--repository", help="a git repository over https, for Argo CD's root application")
    parser.add_argument("--revision", default="HEAD")
    parser.add_argument("--path", default="tests/conformance/gitops")
    parser.add_argument("--password-file", type=pathlib.Path, help="holds the password or token for it")
    arguments = parser.parse_args()
    # Ended from outside, everything that was started is still stopped.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    started = time.monotonic()
    report = Report(f"deploy-aws-dev on moto and {arguments.cluster}")
    with tempfile.TemporaryDirectory(prefix="platflow-e2e-") as name:
        folder = pathlib.Path(name)
        try:
            more: dict[str, object] = {}
            if arguments.repository and arguments.password_file:
                place = (arguments.repository, arguments.revision, arguments.path, arguments.password_file)
                more = repository(*place)
            elif arguments.cluster == "sandbox":
                more = simulated_repository(folder)
            else:
                report.coverage.append("no repository was named: argocd.repository and argocd.root_app are skipped")
            travel(report, folder, arguments.cluster, True, teller(started), more)
        except Absent as missing:
            report.skip(arguments.cluster, str(missing))
        finally:
            if arguments.logs:
                keep(folder, arguments.logs)
    report.seconds = time.monotonic() - started
    report.tell()
    return 1 if report.failures or (report.agreed == 0 and not report.skips) else 0


if __name__ == "__main__":
    sys.exit(main())
