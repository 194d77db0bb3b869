"""Parameters of a call with one thing wrong: a required member missing, a value outside its enumeration or its range."""

import copy
from collections.abc import Iterator
from typing import Any

from botocore.model import ListShape, OperationModel, Shape, StructureShape


def broken_inputs(operation: OperationModel, parameters: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The parameters with one thing wrong."""
    shape = operation.input_shape
    if shape is None:
        return
    for path in _required(shape, parameters):
        yield f"without {'.'.join(map(str, path))}", _without(parameters, path)
    for path in _enumerated(shape, parameters):
        yield f"with a wrong {'.'.join(map(str, path))}", _with(parameters, path, "no-such-value")
    for path, beyond in _ranged(shape, parameters):
        yield f"with {beyond} for {'.'.join(map(str, path))}", _with(parameters, path, beyond)


Path = tuple[str | int, ...]


def _required(shape: Shape, value: Any, at: Path = ()) -> Iterator[Path]:
    """Required members that are there, except those of the address: without them it is another address."""
    for name, member, inner in _members(shape, value, at):
        if isinstance(name, str) and isinstance(shape, StructureShape):
            if name in shape.required_members and member.serialization.get("location") not in ("uri", "header"):
                yield (*at, name)
        yield from _required(member, inner, (*at, name))


def _enumerated(shape: Shape, value: Any, at: Path = ()) -> Iterator[Path]:
    for name, member, inner in _members(shape, value, at):
        if isinstance(inner, str) and getattr(member, "enum", None):
            yield (*at, name)
        yield from _enumerated(member, inner, (*at, name))


def _ranged(shape: Shape, value: Any, at: Path = ()) -> Iterator[tuple[Path, int]]:
    for name, member, inner in _members(shape, value, at):
        high = member.metadata.get("max")
        if isinstance(inner, int) and member.type_name in ("integer", "long") and {"min", "max"} <= set(member.metadata):
            yield (*at, name), high + 1
        yield from _ranged(member, inner, (*at, name))


def _members(shape: Shape, value: Any, at: Path) -> Iterator[tuple[str | int, Shape, Any]]:
    if isinstance(shape, StructureShape) and isinstance(value, dict):
        for name, inner in value.items():
            yield name, shape.members[name], inner
    elif isinstance(shape, ListShape) and isinstance(value, list):
        for index, inner in enumerate(value):
            yield index, shape.member, inner


def _without(parameters: dict[str, Any], path: Path) -> dict[str, Any]:
    changed = copy.deepcopy(parameters)
    at: Any = changed
    for part in path[:-1]:
        at = at[part]
    del at[path[-1]]
    return changed


def _with(parameters: dict[str, Any], path: Path, value: Any) -> dict[str, Any]:
    changed = copy.deepcopy(parameters)
    at: Any = changed
    for part in path[:-1]:
        at = at[part]
    at[path[-1]] = value
    return changed
