"""The script of about 100 calls that OpenBao and the sandbox's Vault both answer; it records every reply, and the state after it."""

import dataclasses
from collections.abc import Callable

from harness.openbao import wait_for
from harness.vault_side import Reply, Side, shape

POLICY = 'path "secret/data/app/*" {\n  capabilities = ["read"]\n}\npath "sys/audit" {\n  capabilities = ["read"]\n}\n'
JUNK = "5a" * 32 + "07"


@dataclasses.dataclass
class Answer:
    """What one call came to."""

    label: str
    status: int
    body: object
    state: dict


class Script:
    """Runs the calls against one side, in order."""

    def __init__(self, side: Side, session: Callable[[Side], None] = lambda side: None):
        self.side, self.session = side, session
        self.answers: list[Answer] = []

    def ask(self, label: str, node: int, method: str, path: str, body: object = None, token: str | None = None) -> Reply:
        """One recorded call; a token of None is the root token, where there is one."""
        reply = self.side.call(node, method, path, body, self.side.root if token is None else token)
        self.answers.append(Answer(label, reply.status, shape(reply.body), self.side.state()))
        return reply

    def until(self, what: str, condition) -> None:
        wait_for(f"{self.side.name}: {what}", condition)

    def run(self) -> list[Answer]:
        self.uninitialised()
        self.initialised()
        self.unsealing()
        self.joining()
        self.tokens()
        self.secrets()
        self.policies()
        self.audit()
        self.kubernetes_auth()
        self.raft_and_seal()
        self.session(self.side)
        self.failover()
        self.goodbye()
        return self.answers

    def uninitialised(self) -> None:
        ask = self.ask
        ask("init? before", 0, "GET", "sys/init")
        ask("seal status before init", 0, "GET", "sys/seal-status")
        ask("health before init", 0, "GET", "sys/health")
        ask("health before init, asked for 200", 0, "GET", "sys/health?uninitcode=200")
        ask("health before init, HEAD", 0, "HEAD", "sys/health")
        ask("leader before init", 0, "GET", "sys/leader")
        ask("mounts before init", 0, "GET", "sys/mounts")
        ask("unseal before init", 0, "PUT", "sys/unseal", {"key": JUNK})
        ask("init without a body", 0, "PUT", "sys/init")
        ask("init with an empty object", 0, "PUT", "sys/init", {})
        ask("init that is not JSON", 0, "PUT", "sys/init", b"{")
        ask("init, threshold above shares", 0, "PUT", "sys/init", {"secret_shares": 3, "secret_threshold": 5})
        ask("init, threshold 1 of 5", 0, "PUT", "sys/init", {"secret_shares": 5, "secret_threshold": 1})
        ask("init, no threshold", 0, "PUT", "sys/init", {"secret_shares": 5})
        ask("init, too few PGP keys", 0, "PUT", "sys/init",
            {"secret_shares": 5, "secret_threshold": 3, "pgp_keys": ["a"]})  # fmt: skip
        ask("init by DELETE", 0, "DELETE", "sys/init")
        self.join("join before the leader is initialised", 1)
        ask("join without an address", 1, "POST", "sys/storage/raft/join", {})

    def join(self, label: str, node: int) -> Reply:
        body = {"leader_api_addr": self.side.leader_address(0), "leader_ca_cert": self.side.authority.read_text()}
        return self.ask(label, node, "POST", "sys/storage/raft/join", body)

    def initialised(self) -> None:
        ask, side = self.ask, self.side
        made = ask("init", 0, "PUT", "sys/init", {"secret_shares": 5, "secret_threshold": 3})
        keys, root = made.at("keys"), str(made.at("root_token"))
        side.keys = keys if isinstance(keys, list) else []
        ask("init again", 0, "PUT", "sys/init", {"secret_shares": 5, "secret_threshold": 3})
        ask("init? after", 0, "GET", "sys/init")
        ask("init? on the second", 1, "GET", "sys/init")
        ask("seal status after init", 0, "GET", "sys/seal-status")
        ask("health sealed", 0, "GET", "sys/health")
        ask("health sealed, asked for 204", 0, "GET", "sys/health?sealedcode=204")
        ask("leader sealed", 0, "GET", "sys/leader")
        ask("mounts sealed, with the root token", 0, "GET", "sys/mounts", token=root)
        ask("mounts sealed, with no token", 0, "GET", "sys/mounts", token="")
        self.join("join while the leader is sealed", 1)
        side.root = root

    def unsealing(self) -> None:
        ask, side = self.ask, self.side
        ask("unseal, not hex", 0, "PUT", "sys/unseal", {"key": "!!"}, "")
        ask("unseal, too short", 0, "PUT", "sys/unseal", {"key": "aabb"}, "")
        ask("unseal, no key", 0, "PUT", "sys/unseal", {}, "")
        ask("unseal, first share", 0, "PUT", "sys/unseal", {"key": side.keys[0]}, "")
        ask("unseal, the same share", 0, "PUT", "sys/unseal", {"key": side.keys[0]}, "")
        ask("seal status half-way", 0, "GET", "sys/seal-status", token="")
        ask("unseal, reset", 0, "PUT", "sys/unseal", {"reset": True}, "")
        ask("unseal, junk of the right form", 0, "PUT", "sys/unseal", {"key": JUNK}, "")
        ask("unseal, second of a bad round", 0, "PUT", "sys/unseal", {"key": side.keys[0]}, "")
        ask("unseal, third of a bad round", 0, "PUT", "sys/unseal", {"key": side.keys[1]}, "")
        ask("seal status after a bad round", 0, "GET", "sys/seal-status", token="")
        for ordinal, share in enumerate((4, 0), 1):
            ask(f"unseal, share {ordinal} of 3", 0, "PUT", "sys/unseal", {"key": side.keys[share]}, "")
        # Between this share and serving there is an election: its state is looked at once that is over.
        self.side.call(0, "PUT", "sys/unseal", {"key": side.keys[2]})
        self.until("the first serves", lambda: side.health(0) == 200)
        ask("unseal, one more", 0, "PUT", "sys/unseal", {"key": side.keys[3]}, "")
        ask("health active", 0, "GET", "sys/health", token="")
        ask("leader active", 0, "GET", "sys/leader", token="")

    def joining(self) -> None:
        ask, side = self.ask, self.side
        ask("unseal before joining", 1, "PUT", "sys/unseal", {"key": side.keys[0]}, "")
        body = {"leader_api_addr": side.leader_address(0)}
        ask("join without the leader's CA", 1, "POST", "sys/storage/raft/join", body, "")
        self.join("join", 1)
        ask("seal status joined", 1, "GET", "sys/seal-status", token="")
        ask("health joined", 1, "GET", "sys/health", token="")
        self.join("join again", 1)
        ask("joiner's first share", 1, "PUT", "sys/unseal", {"key": side.keys[1]}, "")
        side.call(1, "PUT", "sys/unseal", {"key": side.keys[3]})
        last = side.call(1, "PUT", "sys/unseal", {"key": side.keys[4]})
        self.answers.append(Answer("joiner's last share", last.status, {"sealed": last.at("sealed")}, {}))
        self.until("the second stands by", lambda: side.health(1) == 429)
        ask("health standby", 1, "GET", "sys/health", token="")
        ask("health standby, taken as well", 1, "GET", "sys/health?standbyok=true", token="")
        ask("leader seen by a standby", 1, "GET", "sys/leader", token="")
        ask("configuration, one voter of two", 0, "GET", "sys/storage/raft/configuration")
        self.join("third joins", 2)
        for share in (0, 2, 4):
            side.call(2, "PUT", "sys/unseal", {"key": side.keys[share]})
        self.until("the third stands by", lambda: side.health(2) == 429)
        self.until("three voters", lambda: self.voters() == 3)
        ask("configuration, three voters", 0, "GET", "sys/storage/raft/configuration")
        self.until("a healthy cluster", lambda: self.autopilot().at("data", "healthy") is True)
        self.until("failure tolerance", lambda: self.autopilot().at("data", "failure_tolerance") == 1)
        ask("autopilot", 0, "GET", "sys/storage/raft/autopilot/state")
        ask("configuration without a token", 0, "GET", "sys/storage/raft/configuration", token="")

    def voters(self) -> int:
        reply = self.side.call(0, "GET", "sys/storage/raft/configuration", token=self.side.root)
        return sum(1 for server in reply.at("data", "config", "servers") or [] if server["voter"])

    def autopilot(self) -> Reply:
        return self.side.call(0, "GET", "sys/storage/raft/autopilot/state", token=self.side.root)

    def tokens(self) -> None:
        ask = self.ask
        ask("own token", 0, "GET", "auth/token/lookup-self")
        ask("own token, asked of a standby", 1, "GET", "auth/token/lookup-self")
        ask("no token", 0, "GET", "auth/token/lookup-self", token="")
        ask("a token that is none", 0, "GET", "auth/token/lookup-self", token="s.none")
        made = ask("child token", 0, "POST", "auth/token/create", {"policies": ["default"], "ttl": "768h"})
        child = str(made.at("auth", "client_token"))
        ask("child looked up", 0, "POST", "auth/token/lookup", {"token": child})
        ask("child looks itself up", 0, "GET", "auth/token/lookup-self", token=child)
        ask("child may not list mounts", 0, "GET", "sys/mounts", token=child)
        ask("child renews itself", 0, "POST", "auth/token/renew-self", {"increment": "100h"}, child)
        ask("capabilities of the child", 0, "POST", "sys/capabilities-self",
            {"paths": ["sys/mounts", "auth/token/lookup-self"]}, child)  # fmt: skip
        ask("capabilities of root", 0, "POST", "sys/capabilities-self", {"paths": ["sys/mounts"]})
        ask("child revoked", 0, "POST", "auth/token/revoke", {"token": child})
        ask("child after revocation", 0, "GET", "auth/token/lookup-self", token=child)
        ask("revoked child looked up", 0, "POST", "auth/token/lookup", {"token": child})
        orphan = ask("orphan token", 0, "POST", "auth/token/create-orphan", {"policies": ["default"], "ttl": "768h"})
        token = str(orphan.at("auth", "client_token"))
        ask("orphan revokes itself", 0, "POST", "auth/token/revoke-self", {}, token)
        ask("orphan after that", 0, "GET", "auth/token/lookup-self", token=token)

    def read(self, node: int, path: str) -> Reply:
        return self.side.call(node, "GET", f"secret/data/{path}", token=self.side.root)

    def secrets(self) -> None:
        ask, side = self.ask, self.side
        ask("mounts", 0, "GET", "sys/mounts")
        ask("mount kv 2", 0, "POST", "sys/mounts/secret", {"type": "kv", "options": {"version": "2"}})
        ask("mount kv 2 again", 0, "POST", "sys/mounts/secret", {"type": "kv", "options": {"version": "2"}})
        ask("mount of an unknown type", 0, "POST", "sys/mounts/other", {"type": "nonsense"})
        ask("mount without a type", 0, "POST", "sys/mounts/other", {})
        ask("mounts with kv", 0, "GET", "sys/mounts")
        ask("one mount", 0, "GET", "sys/mounts/secret")
        ask("a mount that is none", 0, "GET", "sys/mounts/none")
        # A standby refuses every path below the mount until the leader has upgraded it.
        self.until("kv is upgraded", lambda: side.call(1, "LIST", "secret/metadata", token=side.root).status == 404)
        write = {"data": {"a": "b"}}
        ask("write", 0, "POST", "secret/data/app/one", write)
        ask("write by a standby", 1, "POST", "secret/data/app/two", {"data": {"n": 1}})
        ask("write, stale cas", 0, "POST", "secret/data/app/one", {"data": {}, "options": {"cas": 0}})
        ask("write, right cas", 0, "POST", "secret/data/app/one", {"data": {"a": "c"}, "options": {"cas": 1}})
        ask("write without data", 0, "POST", "secret/data/app/one", {})
        ask("read", 0, "GET", "secret/data/app/one")
        # OpenBao's standbys answer reads from their own copy, a moment behind; HashiCorp's forward them.
        self.until("the standby has it", lambda: self.read(2, "app/one").at("data", "metadata", "version") == 2)
        ask("read by a standby", 2, "GET", "secret/data/app/one")
        ask("read an old version", 0, "GET", "secret/data/app/one?version=1")
        ask("read a version that is none", 0, "GET", "secret/data/app/one?version=9")
        ask("read what is not there", 0, "GET", "secret/data/none")
        ask("metadata", 0, "GET", "secret/metadata/app/one")
        ask("list", 0, "GET", "secret/metadata/app?list=true")
        ask("list by LIST", 0, "LIST", "secret/metadata/app")
        ask("list what is not there", 0, "LIST", "secret/metadata/none")
        ask("delete the newest", 0, "DELETE", "secret/data/app/one")
        ask("read the deleted", 0, "GET", "secret/data/app/one")
        ask("undelete", 0, "POST", "secret/undelete/app/one", {"versions": [2]})
        ask("read the undeleted", 0, "GET", "secret/data/app/one")
        ask("destroy", 0, "POST", "secret/destroy/app/one", {"versions": [1]})
        ask("read the destroyed", 0, "GET", "secret/data/app/one?version=1")
        ask("destroy no version", 0, "POST", "secret/destroy/app/one", {})
        ask("cas required from now on", 0, "POST", "secret/metadata/app/two", {"cas_required": True})
        ask("write without cas", 0, "POST", "secret/data/app/two", write)
        ask("delete all versions", 0, "DELETE", "secret/metadata/app/two")
        ask("a path of no mount", 0, "GET", "nothing/here")
        ask("write to a path of no mount", 0, "POST", "nothing/here", {"a": 1})
        ask("mount another", 0, "POST", "sys/mounts/team/kv", {"type": "kv-v2", "description": "of a team"})
        ask("unmount it", 0, "DELETE", "sys/mounts/team/kv")
        ask("unmount it again", 0, "DELETE", "sys/mounts/team/kv")

    def policies(self) -> None:
        ask = self.ask
        ask("policies", 0, "LIST", "sys/policies/acl")
        ask("policies, the old path", 0, "GET", "sys/policy")
        ask("write a policy", 0, "PUT", "sys/policies/acl/app", {"policy": POLICY})
        ask("write it again", 0, "PUT", "sys/policies/acl/app", {"policy": POLICY})
        ask("read it", 0, "GET", "sys/policies/acl/app")
        ask("read it by the old path", 0, "GET", "sys/policy/app")
        ask("write nonsense", 0, "PUT", "sys/policies/acl/bad", {"policy": "nonsense"})
        ask("write an unknown capability", 0, "PUT", "sys/policies/acl/bad",
            {"policy": 'path "a" { capabilities = ["fly"] }'})  # fmt: skip
        ask("write an empty one", 0, "PUT", "sys/policies/acl/bad", {"policy": ""})
        ask("read one that is none", 0, "GET", "sys/policies/acl/none")
        ask("write another by the old path", 0, "PUT", "sys/policy/old", {"policy": POLICY})
        ask("delete it", 0, "DELETE", "sys/policies/acl/old")
        ask("delete it again", 0, "DELETE", "sys/policies/acl/old")
        ask("delete the default policy", 0, "DELETE", "sys/policies/acl/default")
        ask("write the root policy", 0, "PUT", "sys/policies/acl/root", {"policy": POLICY})

    def audit(self) -> None:
        ask = self.ask
        device = {"type": "file", "options": {"file_path": "stdout"}}
        ask("audit devices", 0, "GET", "sys/audit")
        ask("audit device by API", 0, "PUT", "sys/audit/by-api", device)
        ask("audit device by API again", 0, "PUT", "sys/audit/by-api", device)
        ask("audit device by API, no path", 0, "PUT", "sys/audit/bad", {"type": "file", "options": {}})
        ask("audit devices after that", 0, "GET", "sys/audit")
        ask("audit device removed by API", 0, "DELETE", "sys/audit/by-api")

    def kubernetes_auth(self) -> None:
        ask, side = self.ask, self.side
        ask("auth methods", 0, "GET", "sys/auth")
        ask("enable kubernetes auth", 0, "POST", "sys/auth/kubernetes", {"type": "kubernetes"})
        ask("enable it again", 0, "POST", "sys/auth/kubernetes", {"type": "kubernetes"})
        ask("enable an unknown method", 0, "POST", "sys/auth/other", {"type": "nonsense"})
        config = "auth/kubernetes/config"
        ask("its configuration, none yet", 0, "GET", config)
        ask("login before it is configured", 0, "POST", "auth/kubernetes/login", {"role": "app", "jwt": "x"}, "")
        ask("configure without a host", 0, "POST", config, {"disable_local_ca_jwt": True})
        ask("configure", 0, "POST", config, {**side.kubernetes(), "disable_local_ca_jwt": True})
        ask("its configuration", 0, "GET", config)
        role = {
            "bound_service_account_names": ["platflow"],
            "bound_service_account_namespaces": "platform-system",
            "token_policies": ["app"],
            "token_ttl": "768h",
        }
        path = "auth/kubernetes/role/app"
        ask("roles, none yet", 0, "LIST", "auth/kubernetes/role")
        ask("role without names", 0, "POST", path, {"bound_service_account_namespaces": "platform-system"})
        ask("role without namespaces", 0, "POST", path, {"bound_service_account_names": "platflow"})
        ask("role", 0, "POST", path, role)
        ask("read the role", 0, "GET", path)
        ask("roles", 0, "LIST", "auth/kubernetes/role")
        ask("read a role that is none", 0, "GET", "auth/kubernetes/role/none")
        token, login = side.service_account_token("platflow"), "auth/kubernetes/login"
        ask("login without a role", 0, "POST", login, {"jwt": token}, "")
        ask("login without a token", 0, "POST", login, {"role": "app"}, "")
        ask("login with another role", 0, "POST", login, {"role": "none", "jwt": token}, "")
        ask("login with what is no token", 0, "POST", login, {"role": "app", "jwt": "forged"}, "")
        ask("login with a forged token", 0, "POST", login, {"role": "app", "jwt": token[:-8] + "AAAAAAAA"}, "")
        other = side.service_account_token("default")
        ask("login of another account", 0, "POST", login, {"role": "app", "jwt": other}, "")
        made = ask("login", 0, "POST", login, {"role": "app", "jwt": token}, "")
        mine = str(made.at("auth", "client_token"))
        ask("its token", 0, "GET", "auth/token/lookup-self", token=mine)
        ask("it reads what it may", 0, "GET", "secret/data/app/one", token=mine)
        ask("it may not write", 0, "POST", "secret/data/app/one", {"data": {}}, mine)
        ask("it may not read others", 0, "GET", "secret/data/other", token=mine)
        ask("it may not list audit without sudo", 0, "GET", "sys/audit", token=mine)
        ask("delete the role", 0, "DELETE", path)
        ask("disable the method", 0, "DELETE", "sys/auth/kubernetes")
        ask("its token after that", 0, "GET", "auth/token/lookup-self", token=mine)

    def raft_and_seal(self) -> None:
        ask, side = self.ask, self.side
        ask("generate-root without a token", 0, "GET", "sys/generate-root/attempt", token="")
        ask("rekey without a token", 0, "GET", "sys/rekey/init", token="")
        ask("a route that is none", 0, "GET", "sys/nonsense")
        ask("a method that is none", 0, "PATCH", "sys/seal-status")
        ask("remove a peer that is none", 0, "POST", "sys/storage/raft/remove-peer", {"server_id": "none"})
        ask("seal a standby", 2, "PUT", "sys/seal")
        ask("a sealed server, asked for mounts", 2, "GET", "sys/mounts")
        for share in (0, 1):
            ask(f"unseal it again, share {share + 1}", 2, "PUT", "sys/unseal", {"key": side.keys[share]}, "")
        side.call(2, "PUT", "sys/unseal", {"key": side.keys[2]})
        self.until("it stands by again", lambda: side.health(2) == 429)

    def failover(self) -> None:
        ask, side = self.ask, self.side
        side.restart(1)
        ask("seal status after a restart", 1, "GET", "sys/seal-status", token="")
        ask("mounts after a restart", 1, "GET", "sys/mounts")
        for share in (0, 1, 2):
            side.call(1, "PUT", "sys/unseal", {"key": side.keys[share]})
        self.until("the restarted stands by", lambda: side.health(1) == 429)
        side.restart(0)
        self.until("another leads", lambda: side.active() in (1, 2))
        leader = side.active()
        ask("health of the lost leader", 0, "GET", "sys/health", token="")
        ask("read after failover", leader, "GET", "secret/data/app/one")
        ask("write after failover", leader, "POST", "secret/data/after", {"data": {"x": 1}})
        for share in (2, 3, 4):
            side.call(0, "PUT", "sys/unseal", {"key": side.keys[share]})
        self.until("the lost leader stands by", lambda: side.health(0) == 429)
        self.until("the lost leader has it", lambda: self.read(0, "after").status == 200)
        ask("read by the lost leader", 0, "GET", "secret/data/after")
        side.call(leader, "PUT", "sys/step-down", token=side.root)
        self.until("another leads after stepping down", lambda: side.active() not in (None, leader))
        ask("read after stepping down", side.active() or 0, "GET", "secret/data/after")

    def goodbye(self) -> None:
        active = self.side.active()
        root = self.side.root
        self.ask("root revokes itself", active, "POST", "auth/token/revoke-self", {}, root)
        self.side.root = ""
        self.ask("root after that", active, "GET", "sys/mounts", token=root)
        self.ask("health at the end", active, "GET", "sys/health", token="")
