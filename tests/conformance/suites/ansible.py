"""AWS, another stranger: a playbook of Ansible's cloud modules builds a platform in the sandbox; twice changes nothing.

VPC, six subnets, internet gateway, NAT, route tables, security group, key, roles, cluster, three node groups. The
playbook names no endpoint; the environment does.
"""

import json
import os
import pathlib
import subprocess
from typing import Any

from bootstrap import HERE, environment
from harness.report import Report
from harness.sandbox import Sandbox

WANTED = {
    "ec2:vpc": 1,
    "ec2:subnet": 6,
    "ec2:internet-gateway": 1,
    "ec2:nat-gateway": 1,
    "kms:key": 1,
    "iam:role": 2,
    "eks:cluster": 1,
    "eks:nodegroup": 3,
    "ec2:instance": 3,
}


def play(sandbox: Sandbox, installed: pathlib.Path) -> tuple[dict[str, Any], str]:
    """Runs the playbook; what it says of the host and of each task, and what went wrong."""
    bin_folder = installed / "bin"
    surroundings = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "PYTHON"))},
        **sandbox.environment,
        "PATH": f"{bin_folder}:{os.environ.get('PATH', '')}",
        "HOME": str(sandbox.folder),
        "ANSIBLE_HOME": str(sandbox.folder / "ansible"),
        "ANSIBLE_STDOUT_CALLBACK": "ansible.posix.json",
        "ANSIBLE_PYTHON_INTERPRETER": str(bin_folder / "python"),
        "ANSIBLE_NOCOWS": "1",
        "ANSIBLE_DEPRECATION_WARNINGS": "False",
        "LC_ALL": "C.UTF-8",
    }
    command = [str(bin_folder / "ansible-playbook"), "-i", "localhost,", str(HERE / "ansible" / "platform.yml")]
    done = subprocess.run(command, env=surroundings, capture_output=True, text=True, check=False, timeout=600)
    at = done.stdout.find("{")
    try:
        return json.loads(done.stdout[at:]), done.stderr
    except ValueError as error:
        raise RuntimeError(f"ansible-playbook said no JSON: {done.stdout[-500:]} {done.stderr[-1500:]}") from error


def changed_tasks(answer: dict[str, Any]) -> list[str]:
    tasks = [task for one in answer["plays"] for task in one["tasks"]]
    return [task["task"]["name"] for task in tasks if any(host.get("changed") for host in task["hosts"].values())]


def failures(answer: dict[str, Any]) -> list[str]:
    tasks = [task for one in answer["plays"] for task in one["tasks"]]
    hosts = [(task["task"]["name"], host) for task in tasks for host in task["hosts"].values()]
    wrong = []
    for name, host in hosts:
        items = host.get("results", [host])
        wrong += [
            f"{name}: {item.get('msg')} {item.get('exception', '')[-800:]}" for item in items if item.get("failed")
        ]
    return wrong


def run(report: Report, folder: pathlib.Path) -> None:
    try:
        installed = environment("ansible")
    except subprocess.CalledProcessError as error:
        report.skip("Ansible", f"its packages cannot be installed: {error}")
        return
    with Sandbox(folder) as sandbox:
        for which in ("first", "second"):
            answer, errors = play(sandbox, installed)
            report.check(f"{which} run: failures", [], failures(answer))
            stats = answer.get("stats", {}).get("localhost", {})
            report.check(f"{which} run: tasks that ran", 12, stats.get("ok", errors))
            if which == "first":
                report.check("first run: tasks that changed something", 12, len(changed_tasks(answer)))
            else:
                report.check("second run: tasks that changed something", [], changed_tasks(answer))
        world = sandbox.world()
        for kind, count in WANTED.items():
            found = [one for one in world if one["type"] == kind]
            report.check(f"resources of type {kind}", count, len(found))
        report.check(
            "states of the node groups", {"ACTIVE"}, {one["state"] for one in world if one["type"] == "eks:nodegroup"}
        )
