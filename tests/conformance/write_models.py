"""Writes `sandbox/src/aws/models.txt`: what botocore says about inputs of the operations that the sandbox knows.
`python -m write_models` in the suites' environment writes it; the suite `aws_shapes` checks that it is current.
"""

import pathlib
import re
from collections.abc import Iterator

from botocore import session
from botocore.exceptions import UnknownServiceError
from botocore.model import ListShape, OperationModel, Shape, StructureShape

from harness.operations import SIGNED, model
from harness.sandbox import ROOT

PATH = ROOT / "sandbox" / "src" / "aws" / "models.txt"
HEADER = """\
# What the service models say about inputs; written by tests/conformance/write_models.py from botocore, not by hand.
# `enum NAME VALUE...`, then one line per operation: `name!` is required wherever its parent is, `name=ENUM` holds one
# of a set, `name:LOW..HIGH` is a number in that range, `[]` stands for the items of a list, `-` says that an answer has
# no result element. `filters` are those that the reference of a call of EC2 lists. `pages SERVICE CALL` names how a list
# is asked for in pages: token asked, token answered, size, list, and what says that there is more.
"""
PAGE = ("input_token", "output_token", "limit_key", "result_key", "more_results")
# The longest sets (instance types) grow every week: what is not listed here is not refused.
LONGEST_SET = 200


def operations() -> Iterator[tuple[str, OperationModel]]:
    """Every operation that the sandbox names anywhere."""
    sources = (ROOT / "sandbox" / "src" / "aws").rglob("*.rs")
    words = {word for path in sources for word in re.findall(r'"([A-Z][A-Za-z]+)"', path.read_text())}
    for service in sorted({"ec2", "eks", *SIGNED.values()}):
        for name in sorted(words & set(model(service).operation_names)):
            yield service, model(service).operation_model(name)


def wire_name(protocol: str, name: str, shape: Shape) -> str:
    if protocol == "ec2":
        if "queryName" in shape.serialization:
            return shape.serialization["queryName"]
        given = shape.serialization.get("name", name)
        return given[0].upper() + given[1:]
    return shape.serialization.get("name", name)


def rules(protocol: str, shape: Shape, at: str, above: tuple[str, ...], sets: dict[str, list[str]]) -> Iterator[str]:
    if shape.name in above:
        return
    above = (*above, shape.name)
    if isinstance(shape, ListShape):
        yield from enumerated(shape.member, f"{at}[]", sets)
        yield from rules(protocol, shape.member, f"{at}[]", above, sets)
    if not isinstance(shape, StructureShape):
        return
    for name, member in shape.members.items():
        # Without a part of the address it is another address; that is no rule for a body.
        if member.serialization.get("location") in ("uri", "header"):
            continue
        path = f"{at}.{wire_name(protocol, name, member)}" if at else wire_name(protocol, name, member)
        if name in shape.required_members:
            yield f"{path}!"
        yield from enumerated(member, path, sets)
        yield from ranged(member, path)
        yield from rules(protocol, member, path, above, sets)


def enumerated(shape: Shape, path: str, sets: dict[str, list[str]]) -> Iterator[str]:
    allowed = getattr(shape, "enum", None) or []
    if 0 < len(allowed) <= LONGEST_SET and all(" " not in value for value in allowed):
        name = shape.name
        while sets.get(name, allowed) != allowed:
            name += "_"
        sets[name] = allowed
        yield f"{path}={name}"


def ranged(shape: Shape, path: str) -> Iterator[str]:
    low, high = shape.metadata.get("min"), shape.metadata.get("max")
    if shape.type_name in ("integer", "long") and low is not None and high is not None:
        yield f"{path}:{low}..{high}"


def pages(service: str, operation: str) -> Iterator[str]:
    """How a list comes in pages; EC2's are the same for all its calls, and the sandbox knows them."""
    try:
        rule = session.get_session().get_paginator_model(service).get_paginator(operation)
    except (ValueError, UnknownServiceError):
        return
    first = [found[0] if isinstance(found, list) else found for found in (rule.get(name) for name in PAGE)]
    if service != "ec2" and all(first[:4]) and "." not in "".join(first[:4]):
        yield " ".join(["pages", service, operation, *(one or "-" for one in first)])


def documented_filters(operation: OperationModel) -> list[str]:
    """The filters in the reference of a call, which is the only place that lists them."""
    members = operation.input_shape.members if operation.input_shape else {}
    shape = members.get("Filters") or members.get("Filter")
    found = re.findall(r"<li>\s*<p>\s*<code>([^<]+)</code>", shape.documentation) if shape is not None else []
    return [name for name in found if not name.startswith("tag")]


def written() -> str:
    """The whole file."""
    sets: dict[str, list[str]] = {}
    lines = []
    for service, operation in operations():
        protocol = operation.service_model.resolved_protocol
        found = list(rules(protocol, operation.input_shape, "", (), sets)) if operation.input_shape else []
        wrapper = operation.output_shape.serialization.get("resultWrapper") if operation.output_shape else None
        if protocol == "query" and not wrapper:
            found.append("-")
        if found:
            lines.append(" ".join([service, operation.name, *found]))
        names = documented_filters(operation) if service == "ec2" else []
        if names:
            lines.append(" ".join(["filters", operation.name, *names]))
        lines.extend(pages(service, operation.name))
    named = [" ".join(["enum", name, *values]) for name, values in sorted(sets.items())]
    return HEADER + "\n".join(named + lines) + "\n"


if __name__ == "__main__":
    pathlib.Path(PATH).write_text(written())
