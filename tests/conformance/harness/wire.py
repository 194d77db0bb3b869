"""Holds a raw answer against the service's model: what no client would notice, because clients read leniently."""

import json
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from typing import Any

from botocore.model import ListShape, MapShape, OperationModel, Shape, StructureShape

CONTENT_TYPES = {
    "ec2": "text/xml",
    "query": "text/xml",
    "json": "application/x-amz-json-1.1",
    "rest-json": "application/json",
}
# What every service may answer besides the errors of its own model: the "common errors" of each API reference.
COMMON_ERRORS = {
    "AccessDenied", "AccessDeniedException", "ExpiredToken", "ExpiredTokenException", "IncompleteSignature",
    "InternalFailure", "InvalidAction", "InvalidClientTokenId", "MissingAuthenticationToken", "NotAuthorized",
    "RequestExpired", "ServiceUnavailable", "Throttling", "ThrottlingException", "UnrecognizedClientException",
    "ValidationError", "ValidationException",
}  # fmt: skip


def local(tag: str) -> str:
    """A tag without its namespace."""
    return tag.rsplit("}", 1)[-1]


class Raw:
    """One answer as it came over the wire."""

    def __init__(self, operation: OperationModel, protocol: str, response: dict[str, Any]):
        self.operation = operation
        self.protocol = protocol
        self.status: int = response["status_code"]
        self.headers = {name.lower(): value for name, value in response["headers"].items()}
        self.body: bytes = response["body"]

    def problems(self) -> list[str]:
        """Everything in it that the model does not allow."""
        found = list(self._content_type())
        if self.status >= 300:
            return found + list(self._refusal())
        return found + list(self._answer())

    def _content_type(self) -> Iterator[str]:
        wanted = CONTENT_TYPES[self.protocol]
        if self.body and not self.headers.get("content-type", "").startswith(wanted):
            yield f"content type {self.headers.get('content-type')!r} instead of {wanted}"

    # Answers

    def _answer(self) -> Iterator[str]:
        shape = self.operation.output_shape
        if self.protocol in ("ec2", "query"):
            yield from self._xml_answer(shape)
        elif self.body or (shape and shape.required_members):
            yield from json_value(shape, json.loads(self.body), "")

    def _xml_answer(self, shape: StructureShape | None) -> Iterator[str]:
        root = ElementTree.fromstring(self.body)
        if local(root.tag) != f"{self.operation.name}Response":
            yield f"the document is called {local(root.tag)}"
        namespace = self.operation.service_model.metadata.get("xmlNamespace")
        # The model of EC2 leaves out the slash that EC2 sends.
        if namespace and not root.tag.startswith(("{" + namespace + "}", "{" + namespace + "/}")):
            yield f"the namespace is not {namespace}"
        if self.protocol == "ec2":
            # The reference documents <return> for calls whose model has no answer.
            extra = {"requestId"} | ({"return"} if shape is None else set())
            yield from xml_structure(shape, root, "", extra)
            return
        wrapper = shape.serialization.get("resultWrapper") if shape else None
        for child in root:
            if local(child.tag) == wrapper:
                yield from xml_structure(shape, child, "", set())
            elif local(child.tag) != "ResponseMetadata":
                yield f"unknown element {local(child.tag)} beside the result"
        if wrapper and all(local(child.tag) != wrapper for child in root):
            yield f"{wrapper} is missing"

    # Refusals

    def code(self) -> str:
        """The error code, read strictly."""
        if self.protocol == "ec2":
            return self._xml_code(["Errors", "Error", "Code"])
        if self.protocol == "query":
            return self._xml_code(["Error", "Code"])
        body = json.loads(self.body) if self.body else {}
        code = self.headers.get("x-amzn-errortype") or body.get("__type") or ""
        return str(code).split(":")[0].rsplit("#", 1)[-1]

    def _xml_code(self, path: list[str]) -> str:
        node: ElementTree.Element | None = ElementTree.fromstring(self.body)
        for name in path:
            node = next((child for child in (node if node is not None else []) if local(child.tag) == name), None)
        return (node.text or "") if node is not None else ""

    def _refusal(self) -> Iterator[str]:
        code = self.code()
        if not code:
            yield f"status {self.status} without an error code"
            return
        shapes = {shape.error_code: shape for shape in self.operation.error_shapes}
        shape = shapes.get(code)
        if shape is None:
            # The model of EC2 lists no errors at all: there the case says which code is documented.
            if shapes and code not in COMMON_ERRORS:
                yield f"the error {code} is not among those of the operation: {', '.join(sorted(shapes))}"
            return
        status = shape.metadata.get("error", {}).get("httpStatusCode")
        if status and status != self.status:
            yield f"{code} comes with status {self.status} instead of {status}"
        if self.protocol == "rest-json":
            body = {name: value for name, value in json.loads(self.body).items() if name != "__type"}
            yield from json_value(shape, body, "")


def xml_structure(shape: Shape | None, node: ElementTree.Element, at: str, extra: set[str]) -> Iterator[str]:
    members = dict(shape.members) if isinstance(shape, StructureShape) else {}
    names = {_xml_name(member, name): (name, member) for name, member in members.items()}
    seen: dict[str, list[ElementTree.Element]] = {}
    for child in node:
        name = local(child.tag)
        if name in names:
            seen.setdefault(name, []).append(child)
        elif name not in extra:
            yield f"{at}/{name} is unknown to the model"
    for name, nodes in seen.items():
        member = names[name][1]
        if isinstance(member, ListShape) and member.serialization.get("flattened"):
            for one in nodes:
                yield from xml_value(member.member, one, f"{at}/{name}")
            continue
        if len(nodes) > 1:
            yield f"{at}/{name} is there {len(nodes)} times"
        yield from xml_value(member, nodes[0], f"{at}/{name}")
    for name, (member_name, _) in names.items():
        if isinstance(shape, StructureShape) and member_name in shape.required_members and name not in seen:
            yield f"{at}/{name} is required and missing"


def _xml_name(member: Shape, name: str) -> str:
    if isinstance(member, ListShape) and member.serialization.get("flattened"):
        return member.member.serialization.get("name") or member.serialization.get("name", name)
    return member.serialization.get("name", name)


def xml_value(shape: Shape, node: ElementTree.Element, at: str) -> Iterator[str]:
    if isinstance(shape, StructureShape):
        yield from xml_structure(shape, node, at, set())
    elif isinstance(shape, ListShape):
        wanted = shape.member.serialization.get("name", "member")
        for child in node:
            if local(child.tag) != wanted:
                yield f"{at}/{local(child.tag)} is in a list of {wanted}"
            yield from xml_value(shape.member, child, f"{at}/{wanted}")
    elif isinstance(shape, MapShape):
        for entry in node:
            for child in entry:
                yield from xml_value(shape.value if local(child.tag) == "value" else shape.key, child, f"{at}/entry")
    else:
        yield from _xml_scalar(shape, node.text or "", at)


def _xml_scalar(shape: Shape, text: str, at: str) -> Iterator[str]:
    kind = shape.type_name
    if kind == "boolean" and text not in ("true", "false"):
        yield f"{at} is no boolean: {text!r}"
    elif kind in ("integer", "long") and not re.fullmatch(r"-?\d+", text):
        yield f"{at} is no whole number: {text!r}"
    elif kind in ("double", "float") and not re.fullmatch(r"-?\d+(\.\d+)?([eE]-?\d+)?", text):
        yield f"{at} is no number: {text!r}"
    elif kind == "timestamp" and not re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", text):
        yield f"{at} is no time: {text!r}"
    elif kind == "string":
        yield from _string(shape, text, at)


def json_value(shape: Shape | None, value: Any, at: str) -> Iterator[str]:
    if shape is None:
        if value:
            yield f"{at} {value!r}, where the model has nothing"
    elif isinstance(shape, StructureShape):
        yield from _json_structure(shape, value, at)
    elif isinstance(shape, ListShape):
        if not isinstance(value, list):
            yield f"{at} is no list: {value!r}"
            return
        for one in value:
            yield from json_value(shape.member, one, f"{at}/*")
    elif isinstance(shape, MapShape):
        if not isinstance(value, dict):
            yield f"{at} is no map: {value!r}"
            return
        for key, one in value.items():
            yield from json_value(shape.key, key, f"{at}/(key)")
            yield from json_value(shape.value, one, f"{at}/{key}")
    else:
        yield from _json_scalar(shape, value, at)


def _json_structure(shape: StructureShape, value: Any, at: str) -> Iterator[str]:
    if not isinstance(value, dict):
        yield f"{at} is no structure: {value!r}"
        return
    names = {member.serialization.get("name", name): (name, member) for name, member in shape.members.items()}
    for name, one in value.items():
        if name not in names:
            yield f"{at}/{name} is unknown to the model"
        elif one is not None:
            yield from json_value(names[name][1], one, f"{at}/{name}")
    for name, (member_name, _) in names.items():
        if member_name in shape.required_members and value.get(name) is None:
            yield f"{at}/{name} is required and missing"


def _json_scalar(shape: Shape, value: Any, at: str) -> Iterator[str]:
    kind = shape.type_name
    if kind == "string":
        if isinstance(value, str):
            yield from _string(shape, value, at)
        else:
            yield f"{at} is no text: {value!r}"
    elif kind == "boolean" and not isinstance(value, bool):
        yield f"{at} is no boolean: {value!r}"
    elif kind in ("integer", "long") and (isinstance(value, bool) or not isinstance(value, int)):
        yield f"{at} is no whole number: {value!r}"
    elif kind in ("double", "float") and (isinstance(value, bool) or not isinstance(value, int | float)):
        yield f"{at} is no number: {value!r}"
    elif kind == "timestamp" and not isinstance(value, int | float):
        yield f"{at} is no time: {value!r}"


def _string(shape: Shape, text: str, at: str) -> Iterator[str]:
    allowed = getattr(shape, "enum", None)
    if allowed and text not in allowed:
        yield f"{at} is {text!r}, not one of {', '.join(allowed)}"
    pattern = shape.metadata.get("pattern")
    if pattern and not _fits(pattern, text):
        yield f"{at} is {text!r}, which does not match {pattern}"
    if len(text) < shape.metadata.get("min", 0) or len(text) > shape.metadata.get("max", len(text)):
        yield f"{at} is {text!r}, which is too short or too long"


def _fits(pattern: str, text: str) -> bool:
    try:
        return re.fullmatch(pattern, text, re.DOTALL) is not None
    except re.error:
        return True  # written in another dialect
