"""One of the two things that a Vault script runs against: three servers, how they are called, killed and joined, and what they say."""

import dataclasses
import http.client
import json
import pathlib
import re
import ssl
from collections.abc import Callable

# Values that no two servers share; they are compared by kind only. Everything else is compared as it is.
VOLATILE = {
    "accessor", "build_date", "commit_date", "modified", "client_token", "cluster_id", "cluster_name", "created_time", "creation_time",
    "deletion_time", "entity_id", "expire_time", "id", "index", "issue_time", "keys", "keys_base64", "last_contact",
    "last_index", "last_term", "leader_address", "leader_cluster_address", "nonce", "raft_applied_index",
    "raft_committed_index", "request_id", "root_token", "server_time_utc", "service_account_uid", "stable_since",
    "updated_time", "uuid", "address", "node_id", "active_time", "leader", "last_heartbeat", "ttl", "upgrade_version",
    "service_account_secret_name", "jwt", "token", "kubernetes_host", "kubernetes_ca_cert",
}  # fmt: skip


@dataclasses.dataclass
class Reply:
    status: int
    body: object

    def at(self, *path: object) -> object:
        """A member, or None where there is none."""
        found = self.body
        for step in path:
            try:
                found = found[step]
            except (KeyError, IndexError, TypeError):
                return None
        return found

    @property
    def errors(self) -> str:
        return "; ".join(self.at("errors") or []) if isinstance(self.body, dict) else ""


def kind(value: object) -> str:
    """What a volatile value is: its JSON type, and whether it is empty."""
    name = "number" if isinstance(value, (int, float)) and not isinstance(value, bool) else type(value).__name__
    return f"<{name}>" if value or isinstance(value, (int, float)) else f"<empty {name}>"


def shape(value: object, name: str = "") -> object:
    """The body with volatile values replaced by their kind; the command line writes some names in another case."""
    name = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()
    if name in VOLATILE and name not in ("keys", "keys_base64", "id", "token"):
        return kind(value)
    if name in ("id", "token") and not isinstance(value, dict):
        return kind(value)
    if isinstance(value, dict):
        return {member: shape(inner, member) for member, inner in value.items()}
    if isinstance(value, list):
        if name in ("keys", "keys_base64") and value and all(len(str(item)) > 40 for item in value):
            return [kind(item) for item in value]
        return [shape(item) for item in value]
    return value


class Side:
    """Three servers at `https://127.0.0.1:<port>`, by ordinal."""

    def __init__(self, name: str, ports: list[int], authority: pathlib.Path):
        self.name, self.ports, self.authority = name, ports, authority
        self.context = ssl.create_default_context(cafile=str(authority))
        self.connections: dict[int, http.client.HTTPSConnection] = {}
        self.keys: list[str] = []
        self.root = ""
        # Each side fills in how a server is called by the others, killed, started, and told whom to ask about tokens.
        self.leader_address: Callable[[int], str] = lambda ordinal: f"https://127.0.0.1:{self.ports[ordinal]}"
        self.restart: Callable[[int], None] = lambda ordinal: None
        self.kubernetes: Callable[[], dict] = dict
        self.service_account_token: Callable[[str], str] = lambda account: ""

    def url(self, node: int) -> str:
        return f"https://127.0.0.1:{self.ports[node]}"

    def call(self, node: int, method: str, path: str, body: object = None, token: str = "") -> Reply:
        """One request; a connection that the server has closed meanwhile is opened again once."""
        headers = {"X-Vault-Token": token} if token else {}
        data = body if isinstance(body, bytes) else json.dumps(body).encode() if body is not None else None
        for attempt in (1, 2):
            connection = self.connections.get(node)
            fresh = connection is None
            if connection is None:
                connection = http.client.HTTPSConnection("127.0.0.1", self.ports[node], timeout=60, context=self.context)
                self.connections[node] = connection
            try:
                connection.request(method, f"/v1/{path}", data, headers)
                answer = connection.getresponse()
                content = answer.read()
                break
            except (OSError, http.client.HTTPException):
                self.forget(node)
                if fresh or attempt == 2:
                    raise
        try:
            parsed = json.loads(content) if content else None
        except ValueError:
            parsed = "<not JSON>"
        return Reply(answer.status, parsed)

    def forget(self, node: int) -> None:
        connection = self.connections.pop(node, None)
        if connection is not None:
            connection.close()

    def close(self) -> None:
        for node in list(self.connections):
            self.forget(node)

    def health(self, node: int) -> int:
        """The code of `sys/health`; 0 while it does not answer."""
        try:
            return self.call(node, "GET", "sys/health").status
        except (OSError, http.client.HTTPException):
            return 0

    def active(self) -> int | None:
        codes = [self.health(node) for node in range(3)]
        return codes.index(200) if 200 in codes else None

    def state(self) -> dict:
        """What all three say, and what the active one holds: the same after every call, on both sides."""
        codes = sorted((self.health(node) for node in range(3)), reverse=True)
        found: dict[str, object] = {"health": codes}
        active = self.active()
        if active is None or not self.root:
            return found
        for path in ("sys/mounts", "sys/auth", "sys/policies/acl?list=true"):
            reply = self.call(active, "GET", path, token=self.root)
            data = reply.at("data")
            found[path] = sorted(data.get("keys", data)) if isinstance(data, dict) else reply.status
        mounts = self.call(active, "GET", "secret/metadata?list=true", token=self.root)
        found["secrets"] = mounts.at("data", "keys") or []
        roles = self.call(active, "GET", "auth/kubernetes/role?list=true", token=self.root)
        found["roles"] = roles.at("data", "keys") or []
        return found
