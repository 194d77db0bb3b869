"""Which AWS operations the steps call, read from their source, so that no list of them can go stale."""

import functools
import pathlib
import re

import botocore.session
from botocore import xform_name
from botocore.model import ServiceModel

from harness.sandbox import ROOT

# How the steps' signed client names its services, and what their models are called.
SIGNED = {
    "Iam": "iam",
    "Sts": "sts",
    "Elb": "elbv2",
    "ClassicElb": "elb",
    "AutoScaling": "autoscaling",
    "Kms": "kms",
    "Logs": "logs",
    "Quotas": "service-quotas",
    "Tagging": "resourcegroupstaggingapi",
    "Ec2": "ec2",
}
# A file that names an operation and a service which has one of that name need not call it there.
NAMED_NOT_CALLED = {
    ("autoscaling", "DescribeTags"): "lists.rs asks for tags of load balancers; groups carry theirs with them",
    ("autoscaling", "DescribeLoadBalancers"): "lists.rs asks ELB, of both versions",
}
READS = ("Describe", "List", "Get", "Simulate")

Operation = tuple[str, str]


@functools.cache
def model(service: str) -> ServiceModel:
    """The service's model as botocore ships it."""
    return botocore.session.get_session().get_service_model(service)


def sources() -> list[pathlib.Path]:
    found = sorted((ROOT / "steps" / "src").rglob("*.rs"))
    if not found:
        raise FileNotFoundError("the steps have no source")
    return found


def _of_sdk(text: str) -> set[Operation]:
    """`.ec2.create_vpc(` and `.eks .create_cluster(`, also over several lines."""
    found = set()
    for service, method in re.findall(r"\.(ec2|eks)\s*\.\s*([a-z][a-z_0-9]*)\(", text):
        names = {xform_name(name): name for name in model(service).operation_names}
        if method not in names:
            raise LookupError(f"the model of {service} has no operation {method}")
        found.add((service, names[method]))
    return found


def _of_signed_client(text: str) -> set[Operation]:
    """Names of operations in quotes, in a file that names the service."""
    services = {SIGNED[name] for name in re.findall(r"Service::(\w+)\b", text) if name in SIGNED}
    quoted = set(re.findall(r'"([A-Z][A-Za-z]+)"', text))
    return {(service, name) for service in services for name in quoted if name in model(service).operation_names}


@functools.cache
def called_by_steps() -> frozenset[Operation]:
    """Every operation that a step can call."""
    found: set[Operation] = set()
    for path in sources():
        text = path.read_text()
        found |= _of_sdk(text) | _of_signed_client(text)
    stale = set(NAMED_NOT_CALLED) - found
    if stale:
        raise LookupError(f"no longer named by any step, so not an exception any more: {stale}")
    return frozenset(found - set(NAMED_NOT_CALLED))


def mutates(operation: Operation) -> bool:
    return not operation[1].startswith(READS)
