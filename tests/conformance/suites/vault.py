"""The sandbox's Vault and three real OpenBao servers: one script of 190 calls and one session of `bao`; replies, and the state after each."""

import fnmatch
import json
import pathlib
import ssl
import threading

import pins
from harness import openbao
from harness.apiproxy import ApiFront
from harness.openbao import Servers
from harness.portforward import Cluster
from harness.report import Report
from harness.sandbox import Sandbox
from harness.sandbox_vault import NAMESPACE, SandboxVault
from harness.vault_cli import session
from harness.vault_regain import OpenBao, regained
from harness.vault_script import Answer, Script
from harness.vault_side import Side
from harness.vault_world import authority

# The same audit device as in the configuration that `vault.install` writes for OpenBao.
AUDIT = 'audit "file" "stdout" {\n  options {\n    file_path = "stdout"\n  }\n}\n'

# (call, member of the reply): who is right, and why it stays. What is listed and differs no more is a failure.
DIFFERENCES = {
    ("write nonsense", "errors"): ("OpenBao", "the words of a HCL parser; both refuse with 400"),
}

# Where HashiCorp Vault answers otherwise than OpenBao, by the vendor's documents: the sandbox is it when the image says so.
HASHICORP = {
    ("audit device*", "*"): ("HashiCorp Vault", "takes audit devices by API, OpenBao from its configuration only"),
    ("*seal status*", "*_date"): ("HashiCorp Vault", "build_date; OpenBao tells commit_date"),
    ("*share*", "*_date"): ("HashiCorp Vault", "build_date; OpenBao tells commit_date"),
    ("unseal*", "*_date"): ("HashiCorp Vault", "build_date; OpenBao tells commit_date"),
    ("*", "*version"): ("HashiCorp Vault", "is of another version"),
    ("health*", "performance_standby"): ("HashiCorp Vault", "OpenBao has no performance standbys"),
    ("health*", "replication_*"): ("HashiCorp Vault", "says disabled where OpenBao says primary or unknown"),
    ("leader*", "performance_standby*"): ("HashiCorp Vault", "OpenBao has no performance standbys"),
    ("read it*", "*"): ("HashiCorp Vault", "its policies have no versions"),
    ("metadata", "*metadata*"): ("HashiCorp Vault", "its metadata has no versions of its own"),
    ("write nonsense", "errors"): ("both", "the words of a HCL parser"),
    ("generate-root without*", "*"): ("HashiCorp Vault", "answers it; OpenBao only where its listener allows it"),
    ("rekey without*", "*"): ("HashiCorp Vault", "answers it; OpenBao only where its listener allows it"),
}
# Where it answers these otherwise than an OpenBao whose listener allows them.
REGAINED = {
    ("root: begun twice", "errors"): ("HashiCorp Vault", "OpenBao has namespaces and says so"),
    ("unsealed*", "*version"): ("HashiCorp Vault", "is of another version"),
    ("unsealed*", "*_date"): ("HashiCorp Vault", "build_date; OpenBao tells commit_date"),
}


def leaves(value: object, path: str = "") -> dict[str, str]:
    """Every member of a body, by path."""
    if isinstance(value, dict) and value:
        return {k: v for name, inner in value.items() for k, v in leaves(inner, f"{path}/{name}").items()}
    if isinstance(value, list) and value:
        return {k: v for index, inner in enumerate(value) for k, v in leaves(inner, f"{path}/{index}").items()}
    return {path: json.dumps(value)}


def differing(real: object, simulated: object) -> dict[str, tuple[str | None, str | None]]:
    one, other = leaves(real), leaves(simulated)
    return {path: (one.get(path), other.get(path)) for path in {**one, **other} if one.get(path) != other.get(path)}


def listed(table: dict, label: str, path: str) -> tuple[str, str] | None:
    """The entry of the table that a difference falls under: of the call, and of any member along the path."""
    members = [part for part in path.split("/") if part]
    for entry in table:
        if fnmatch.fnmatch(label, entry[0]) and any(fnmatch.fnmatch(part, entry[1]) for part in [*members, ""]):
            return entry
    return None


def compare(report: Report, what: str, real: list[Answer], simulated: list[Answer], table: dict) -> None:
    """Three comparisons per call: status, body, and the state after it."""
    found = {answer.label: answer for answer in simulated}
    met = set()
    for answer in real:
        other = found.get(answer.label)
        if other is None:
            report.fail(f"{what}: {answer.label}", "the script did not come so far")
            continue
        for part, one, two in (("status", answer.status, other.status), ("body", answer.body, other.body), ("state", answer.state, other.state)):
            unlisted = {}
            for path, values in differing({part: one}, {part: two}).items():
                entry = listed(table, answer.label, path)
                if entry is None:
                    unlisted[path] = values
                met.add(entry)
            report.check(f"{what}: {answer.label}: {part}, OpenBao's and the sandbox's", {}, unlisted)
    for entry, (right, why) in table.items():
        if entry in met:
            report.differs(f"{what}: {' '.join(entry)}", right, why)
        else:
            report.fail(f"{what}: {' '.join(entry)}", "is listed as a difference and differs no more")


class Real:
    """Three OpenBao servers; their logins are checked by the sandbox's Kubernetes, through a front in real time."""

    def __init__(self, folder: pathlib.Path, vault: SandboxVault):
        folder.mkdir()
        authority(folder)
        trust = ssl.create_default_context(cafile=str(vault.kubernetes_authority))
        host, port = vault.cluster.endpoint.removeprefix("https://").split(":")
        certificate, key = str(folder / "front.pem"), str(folder / "front.key")
        self.front = ApiFront(certificate, key, lambda: ((host, int(port)), trust), lambda pod: None)
        self.cluster = Cluster(f"https://127.0.0.1:{self.front.port}", folder / "front-ca.pem", vault.token)
        self.authority = folder / "front-ca.pem"
        self.servers = Servers(folder / "servers", AUDIT)

    def __enter__(self) -> Side:
        self.servers.__enter__()
        side = Side("OpenBao", [server.port for server in self.servers.all], self.servers.authority)
        side.restart = lambda ordinal: self.restart(side, ordinal)
        side.service_account_token = self.token
        side.kubernetes = lambda: {
            "kubernetes_host": self.cluster.endpoint,
            "kubernetes_ca_cert": self.authority.read_text(),
            "token_reviewer_jwt": self.token("vault"),
        }
        return side

    def token(self, account: str) -> str:
        path = f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts/{account}/token"
        code, answer = self.cluster.call("POST", path, {"spec": {"expirationSeconds": 86400}})
        if code != 201:
            raise RuntimeError(f"no token for {account}: {code} {answer}")
        return answer["status"]["token"]

    def restart(self, side: Side, ordinal: int) -> None:
        self.servers.all[ordinal].kill()
        side.forget(ordinal)
        self.servers.all[ordinal].start()

    def __exit__(self, *_: object) -> None:
        self.servers.__exit__()
        self.front.close()


def regain(report: Report, folder: pathlib.Path, simulated: Side) -> None:
    """The calls that need shares and no token: a real OpenBao that allows them, and the sandbox as HashiCorp Vault."""
    with OpenBao(folder) as real:
        said = regained(real, 0)
        real.close()
    ours = regained(simulated, simulated.active() or 0)
    simulated.close()
    answers = [[Answer(label, status, body, {}) for label, (status, body) in one.items()] for one in (said, ours)]
    compare(report, "without a token", *answers, REGAINED)
    report.cover("calls without a token, held against OpenBao", len(said), len(said))


def run(report: Report, folder: pathlib.Path) -> None:
    if not openbao.binary().exists():
        report.skip("OpenBao", f"{openbao.binary()} is missing")
        return
    for name in ("openbao", "vault"):
        (folder / name).mkdir()
    as_openbao, as_vault = folder / "openbao", folder / "vault"
    answers: dict[str, list[Answer]] = {}
    said: dict[str, dict] = {"real": {}, "openbao": {}, "vault": {}}

    def script(name: str, side: Side) -> None:
        runs = Script(side, lambda one: session(one, said[name]))
        answers[name] = runs.answers
        report.case(f"the script on {name}", lambda: runs.run() and None)
        side.close()

    with (
        Sandbox(as_openbao) as first,
        Sandbox(as_vault) as second,
        SandboxVault(first, as_openbao, pins.image("quay.io/openbao/openbao")) as simulated,
        SandboxVault(second, as_vault, pins.image("hashicorp/vault")) as other,
        Real(folder / "real", simulated) as real,
    ):
        sides = {"real": real, "openbao": simulated.side, "vault": other.side}
        threads = [threading.Thread(target=script, args=item) for item in sides.items()]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        report.case("without a token, by the shares", lambda: regain(report, folder / "regain", other.side))
    compare(report, "OpenBao", answers["real"], answers["openbao"], DIFFERENCES)
    compare(report, "HashiCorp", answers["real"], answers["vault"], HASHICORP)
    for command, real_said in said["real"].items():
        report.check(f"{command}: on OpenBao and the sandbox", {}, differing(real_said, said["openbao"].get(command)))
    report.cover("calls of the script answered alike", len(answers["real"]) - len(DIFFERENCES), len(answers["real"]))
