"""What others change, remove and add in the cluster of a built environment, made with kubectl: what a drift check must name."""

import json
from collections.abc import Callable
from typing import Any

from tables.drift_aws import Mutation

NAMESPACES = ("platform-system", "platform-apps", "platform-data", "platform-monitoring")
POLICIES = {"default_deny": "default-deny", "allow_dns": "allow-dns", "allow_api_server": "allow-api-server"}


# Without the policies that let it through, Vault cannot be logged in to.
UNREACHABLE = (("vault.own_access", "/login"),)


def patch(kind: str, name: str, namespace: str, change: object, how: str = "merge") -> Callable[[Any], object]:
    return lambda world: world.kubectl("patch", kind, name, "-n", namespace, "--type", how, "-p", json.dumps(change))


def delete(kind: str, name: str, namespace: str) -> Callable[[Any], object]:
    return lambda world: world.kubectl("delete", kind, name, "-n", namespace, "--wait=true")


def changed() -> list[Mutation]:
    changes = []
    for name in NAMESPACES:
        at = f"namespaces.{{}}.{name}"
        changes += [
            Mutation(at.format("quota"), "/hard/requests.cpu", patch("resourcequota", "platform", name, {"spec": {"hard": {"requests.cpu": "1"}}})),
            Mutation(at.format("quota"), "/hard/limits.memory", patch("resourcequota", "platform", name, {"spec": {"hard": {"limits.memory": "1Gi"}}})),
            Mutation(at.format("limits"), "/limits", patch("limitrange", "platform", name, {"spec": {"limits": [
                {"type": "Container", "default": {"cpu": "7"}}]}})),
            Mutation(at.format("namespace"), "/pod_security", patch("namespace", name, name, {"metadata": {"labels": {
                "pod-security.kubernetes.io/enforce": "privileged" if name != "platform-monitoring" else "baseline"}}})),
            Mutation(at.format("default_deny"), "/spec", patch("networkpolicy", "default-deny", name, {"spec": {"policyTypes": ["Ingress"]}})),
            Mutation(at.format("allow_dns"), "/spec", patch("networkpolicy", "allow-dns", name, {"spec": {"egress": [{}]}})),
            Mutation(at.format("allow_api_server"), "/spec", patch("networkpolicy", "allow-api-server", name, {"spec": {"egress": [{}]}})),
        ]  # fmt: skip
    return changes


def missing() -> list[Mutation]:
    changes = []
    for name in NAMESPACES:
        at = f"namespaces.{{}}.{name}"
        changes += [
            Mutation(at.format("quota"), "missing", delete("resourcequota", "platform", name)),
            Mutation(at.format("limits"), "missing", delete("limitrange", "platform", name)),
        ]
        changes += [Mutation(at.format(step), "missing", delete("networkpolicy", policy, name), also=UNREACHABLE) for step, policy in POLICIES.items()]  # fmt: skip
    changes.append(Mutation("storage_class", "missing", delete("storageclass", "gp3", "default")))
    return changes


def sealed() -> list[Mutation]:
    """A pod of Vault that starts anew is sealed until somebody unseals it."""
    return [Mutation("vault.unseal", "/pods", lambda world: world.restarted("vault-1"))]


def extras() -> list[Mutation]:
    return [Mutation("extra", "kubernetes:namespace", lambda world: world.kubectl("create", "namespace", "by-hand"), left=True)]  # fmt: skip
