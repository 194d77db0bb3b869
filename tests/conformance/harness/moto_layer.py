"""moto with what it lacks of EKS, in a thin WSGI layer; `eks_layer` completes and serves it.

Adds the states CREATING and DELETING for so many seconds, replies that a client token stands for, what moto leaves out
of a cluster (its VPC and own security group, access, upgrade and protection settings), access entries and add-ons,
which moto has no routes for; and takes the interface of a NAT gateway away with it. All else is moto's own.
"""

import io
import json
import re
import time
from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import parse_qs

from moto.core import DEFAULT_ACCOUNT_ID
from moto.ec2.models import ec2_backends
from werkzeug.wrappers import Request, Response

Environ = dict[str, Any]
Start = Callable[..., Any]


class Refused(Exception):
    """An answer of EKS that is no success."""

    def __init__(self, status: int, code: str, message: str):
        super().__init__(message)
        self.status, self.code, self.message = status, code, message


class Layer:
    """One account; keyed by path, as the REST protocol of EKS is."""

    def __init__(self, inner: Callable[[Environ, Start], Iterable[bytes]], seconds: float):
        self.inner = inner
        self.seconds = seconds
        self.since: dict[str, float] = {}
        self.tokens: dict[str, tuple[Any, bytes, int]] = {}
        self.things: dict[str, dict[str, Any]] = {}
        self.clusters: dict[str, dict[str, Any]] = {}

    def __call__(self, environ: Environ, start: Start) -> Iterable[bytes]:
        scope = environ.get("HTTP_AUTHORIZATION", "")
        if "/eks/" not in scope and "/ec2/" not in scope:
            return self.inner(environ, start)
        request = Request(environ)
        body = request.get_data()
        if "/ec2/" in scope:
            return self._ec2(body, environ)(environ, start)
        try:
            answer = self._eks(request, body, environ)
        except Refused as no:
            content = json.dumps({"__type": no.code, "message": no.message})
            answer = Response(content, no.status, {"x-amzn-ErrorType": no.code}, content_type="application/json")
        return answer(environ, start)

    def _eks(self, request: Request, body: bytes, environ: Environ) -> Response:
        given = json.loads(body) if body else {}
        token = given.get("clientRequestToken") if isinstance(given, dict) else None
        key = f"{request.method} {request.path} {token}"
        asked = {name: value for name, value in given.items() if name != "clientRequestToken"}
        if token and key in self.tokens:
            known, content, status = self.tokens[key]
            if known != asked:
                raise Refused(400, "InvalidParameterException", "the token was used with other parameters")
            return Response(content, status, content_type="application/json")
        own = re.fullmatch(r"/clusters/([^/]+)/(addons|access-entries)(?:/(.+))?", request.path)
        answer = self._own(request, asked, *own.groups()) if own else self._moto(request, body, environ)
        if token and answer.status_code < 300:
            self.tokens[key] = (asked, answer.get_data(), answer.status_code)
        return answer

    # What moto has

    def _passed_on(self, body: bytes, environ: Environ) -> Response:
        inner = {name: value for name, value in environ.items() if not name.startswith("werkzeug.")}
        inner["wsgi.input"] = io.BytesIO(body)
        inner["RAW_URI"] = inner["REQUEST_URI"] = Request(environ).full_path.rstrip("?")
        return Response.from_app(self.inner, inner)

    def _ec2(self, body: bytes, environ: Environ) -> Response:
        answer = self._passed_on(body, environ)
        form = parse_qs(body.decode())
        if form.get("Action") == ["DeleteNatGateway"] and answer.status_code == 200:
            backend = ec2_backends[DEFAULT_ACCOUNT_ID]["us-west-2"]
            gateway = backend.nat_gateways[form["NatGatewayId"][0]]
            # moto forgets it there, and the search that ends a destroy finds it.
            backend.enis.pop(gateway._eni.id, None)
        return answer

    def _moto(self, request: Request, body: bytes, environ: Environ) -> Response:
        answer = self._passed_on(body, environ)
        if answer.status_code >= 300:
            return answer
        content = json.loads(answer.get_data() or b"{}")
        for kind in ("cluster", "nodegroup"):
            if kind in content:
                self._dated(request, kind, content[kind])
        if "cluster" in content:
            self._complete(request, json.loads(body) if body else {}, content["cluster"])
        return Response(json.dumps(content), answer.status_code, content_type="application/json")

    def _dated(self, request: Request, kind: str, shown: dict[str, Any]) -> None:
        name = shown["arn" if kind == "cluster" else "nodegroupArn"]
        if request.method == "POST":
            self.since[name] = time.monotonic()
        if request.method == "DELETE":
            shown["status"] = "DELETING"
        elif time.monotonic() < self.since.get(name, 0) + self.seconds:
            shown["status"] = "CREATING"

    def _complete(self, request: Request, given: dict[str, Any], shown: dict[str, Any]) -> None:
        """The members of a cluster that moto does not keep; its own group lives and ends with it."""
        name = shown["name"]
        backend = ec2_backends[DEFAULT_ACCOUNT_ID]["us-west-2"]
        if request.method == "POST" and name not in self.clusters:
            vpc = backend.get_subnet(given["resourcesVpcConfig"]["subnetIds"][0]).vpc_id
            group = backend.create_security_group(f"eks-cluster-sg-{name}-1", "EKS created security group", vpc)
            self.clusters[name] = {
                "vpc": vpc,
                "group": group.id,
                "accessConfig": {"authenticationMode": given.get("accessConfig", {}).get("authenticationMode")},
                "upgradePolicy": given.get("upgradePolicy", {"supportType": "EXTENDED"}),
                "deletionProtection": given.get("deletionProtection", False),
            }
        own = self.clusters.get(name, {})
        shown["resourcesVpcConfig"].update(vpcId=own.get("vpc"), clusterSecurityGroupId=own.get("group"))
        shown.update({key: own.get(key) for key in ("accessConfig", "upgradePolicy", "deletionProtection")})
        if request.method == "DELETE" and self.clusters.pop(name, None):
            backend.delete_security_group(group_id=own["group"])

    # What it lacks

    def _own(self, request: Request, given: dict[str, Any], cluster: str, family: str, rest: str | None) -> Response:
        name = rest.replace("/access-policies", "") if rest and "/access-policies" in rest else rest
        name, _, policy = (name or "").partition("/arn:aws:eks::aws:cluster-access-policy/")
        kind, label = ("addon", "addonName") if family == "addons" else ("accessEntry", "principalArn")
        key = f"{cluster}|{family}|{name or given.get(label)}"
        now = time.time()
        if request.method == "POST" and not rest:
            if key in self.things:
                raise Refused(409, "ResourceInUseException", f"{given.get(label)} already exists")
            self.things[key] = {
                "clusterName": cluster, "createdAt": now, "modifiedAt": now, "tags": {}, "_policies": [], "_at": now,
                **self._made(kind, cluster, given), **given,
            }  # fmt: skip
        if key not in self.things:
            raise Refused(404, "ResourceNotFoundException", f"no {kind} {name} in {cluster}")
        thing = self.things[key]
        if rest and "/access-policies" in rest:
            return self._policies(request, given, thing, policy)
        if request.method == "DELETE":
            del self.things[key]
            return self._answer({} if kind == "accessEntry" else {kind: {**self._shown(thing), "status": "DELETING"}})
        if kind == "addon":
            thing["status"] = "CREATING" if time.time() < thing["_at"] + self.seconds else "ACTIVE"
        return self._answer({kind: self._shown(thing)})

    @staticmethod
    def _made(kind: str, cluster: str, given: dict[str, Any]) -> dict[str, Any]:
        arn = "arn:aws:eks:us-west-2:123456789012"
        if kind == "addon":
            named = given.get("addonName")
            return {"addonArn": f"{arn}:addon/{cluster}/{named}/1", "status": "CREATING", "health": {"issues": []}}
        principal = str(given.get("principalArn"))
        return {
            "accessEntryArn": f"{arn}:access-entry/{cluster}/{principal.rsplit(':', 1)[-1]}/1",
            "username": principal, "type": "STANDARD", "kubernetesGroups": [],
        }  # fmt: skip

    def _policies(self, request: Request, given: dict[str, Any], thing: dict[str, Any], policy: str) -> Response:
        names = {"clusterName": thing["clusterName"], "principalArn": thing["principalArn"]}
        if request.method == "GET":
            return self._answer({**names, "associatedAccessPolicies": thing["_policies"]})
        arn = given.get("policyArn") or f"arn:aws:eks::aws:cluster-access-policy/{policy}"
        thing["_policies"] = [one for one in thing["_policies"] if one["policyArn"] != arn]
        if request.method == "DELETE":
            return self._answer({})
        one = {"policyArn": arn, "accessScope": {"namespaces": [], **given.get("accessScope", {})}}
        thing["_policies"].append(one)
        return self._answer({**names, "associatedAccessPolicy": one})

    @staticmethod
    def _shown(thing: dict[str, Any]) -> dict[str, Any]:
        hidden = ("accessScope", "resolveConflicts", "clientRequestToken")
        return {name: value for name, value in thing.items() if not name.startswith("_") and name not in hidden}

    @staticmethod
    def _answer(content: dict[str, Any]) -> Response:
        return Response(json.dumps(content), 200, content_type="application/json")
