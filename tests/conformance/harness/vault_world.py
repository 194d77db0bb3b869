"""The sandbox's Kubernetes with real OpenBao servers in its Vault pods, and the runbook that the real binary installs them by."""

import base64
import contextlib
import json
import pathlib
import re
import sqlite3
import ssl
import subprocess
import urllib.parse
from collections.abc import Callable

import pins
from harness.apiproxy import ApiFront, NameProxy
from harness.kubelet import Kubelet, encoded
from harness.openbao import openssl, wait_for
from harness.portforward import Cluster
from harness.sandbox import ROOT, Sandbox
from harness.sandbox_vault import NAMESPACE, control
from harness.vault_side import Reply, Side

ENVIRONMENT = "vault-only"
# What a certificate of an API server is good for.
NAMES = "subjectAltName=DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc,DNS:localhost,IP:127.0.0.1"

# What a rollback goes back to when only Vault is to be made anew.
BASE = """
  base:
    kind: core.exec
    needs: [namespaces, coredns, storage_class]
    spec: {protocol: plain, command: ["true"], idempotent: true, undo_command: ["true"]}
"""
MORE_STEPS = """
  configure:
    kind: vault.configure
    needs: [unseal]
    undo: {with: install}
    spec:
PLACE

  own_access:
    kind: vault.own_access
    needs: [configure]
    undo: {with: install}
    spec:
PLACE
"""


def authority(folder: pathlib.Path) -> None:
    """`front-ca.pem`, and `front.pem` with `front.key` for the front."""
    (folder / "front-names").write_text(NAMES + "\n")
    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    signs = ["-addext", "keyUsage=critical,keyCertSign,cRLSign", "-subj", "/CN=front CA", "-days", "30"]
    openssl(folder, "req", "-x509", *curve, "-keyout", "front-ca.key", "-out", "front-ca.pem", *signs)
    openssl(folder, "req", *curve, "-keyout", "front.key", "-out", "front.csr", "-subj", "/CN=kube-apiserver")
    signed = ["-CA", "front-ca.pem", "-CAkey", "front-ca.key", "-CAcreateserial", "-days", "30", "-extfile", "front-names"]
    openssl(folder, "x509", "-req", "-in", "front.csr", "-out", "front.pem", *signed)


class VaultWorld:
    """`with VaultWorld(sandbox, folder, image, extra) as world:` has run up to the gate before init, with three real servers."""

    def __init__(self, sandbox: Sandbox, folder: pathlib.Path, image: str, extra: str = "", upto: str = "own_access"):
        self.sandbox, self.folder, self.image, self.extra, self.upto = sandbox, folder, image, extra, upto
        folder.mkdir(parents=True, exist_ok=True)
        authority(folder)
        self.place: tuple[tuple[str, int], ssl.SSLContext] | None = None
        self.cached = ""
        self.run = ""
        self.side: Side | None = None
        # Servers that no other one reaches by their name, and who asked for one in vain.
        self.unreachable: set[str] = set()
        self.in_vain: list[str] = []

    def upstream(self) -> tuple[tuple[str, int], ssl.SSLContext]:
        if self.place is None:
            config = json.loads(self.sandbox.platflow("kubeconfig", ENVIRONMENT).stdout)["clusters"][0]["cluster"]
            url = urllib.parse.urlsplit(config["server"])
            (self.folder / "upstream-ca.pem").write_bytes(base64.b64decode(config["certificate-authority-data"]))
            trust = ssl.create_default_context(cafile=str(self.folder / "upstream-ca.pem"))
            self.place = (str(url.hostname), int(url.port or 443)), trust
        return self.place

    def token(self) -> str:
        if not self.cached:
            done = self.sandbox.platflow("k8s-token", "--environment", ENVIRONMENT)
            self.cached = json.loads(done.stdout)["status"]["token"]
        return self.cached

    def runbook(self) -> pathlib.Path:
        """The fixture, with the front in the place of the cluster's own endpoint for every Vault step, and more steps."""
        text = (ROOT / "tests" / "fixtures" / "vault-only.yaml").read_text()
        text = text.replace(pins.image("hashicorp/vault"), self.image)
        head, _, rest = text.partition("\n  install:\n")
        if self.upto == "init":
            rest = rest.partition("\n  unseal:\n")[0] + "\n"
        else:
            place = rest.partition("\n  unseal:\n")[2].partition("    spec:\n")[2].partition("      threshold")[0]
            rest += MORE_STEPS.replace("PLACE", place.rstrip("\n"))
        rest = rest.replace("needs: [namespaces, coredns]", "needs: [base]")
        rest = rest.replace("${steps.cluster.outputs.access}", json.dumps(self.access()))
        path = self.folder / "runbook.yaml"
        path.write_text(head + BASE + "\n  install:\n" + rest)
        return path

    def access(self) -> dict:
        return {
            "name": ENVIRONMENT,
            "endpoint": f"https://127.0.0.1:{self.front.port}",
            "certificate_authority_data": encoded(self.folder / "front-ca.pem"),
        }

    def lead(self, host_port: str) -> tuple[str, int] | None:
        if host_port.startswith("kubernetes.default.svc:"):
            return "127.0.0.1", self.front.port
        name = host_port.partition(".")[0]
        if name in self.unreachable:
            self.in_vain.append(name)
            return None
        return self.kubelet.named(host_port)

    def __enter__(self) -> "VaultWorld":
        self.front = ApiFront(
            str(self.folder / "front.pem"), str(self.folder / "front.key"), self.upstream, lambda pod: self.kubelet.address(pod)
        )
        front = self.access()
        self.cluster = Cluster(front["endpoint"], self.folder / "front-ca.pem", self.token)
        self.kubelet = Kubelet(self.cluster, self.folder / "volumes", NAMESPACE, self.folder / "front-ca.pem", self.extra)
        self.names = NameProxy(self.lead)
        self.kubelet.proxy = f"http://127.0.0.1:{self.names.port}"
        try:
            self.kubelet.__enter__()
            self.to_gate("run", str(self.runbook()), "--sandbox")
        except BaseException:
            self.__exit__()
            raise
        return self

    def to_gate(self, *command: str) -> None:
        """Runs until three servers stand uninitialised and the gate before init is shut; then lets it open."""
        gate = self.folder / "gate"
        gate.unlink(missing_ok=True)
        control(self.sandbox, "clock", {"speed": 600})
        done = self.platflow(*command, check=False)
        self.run = json.loads(self.platflow("list", "--output", "json").stdout)["runs"][0]["id"]
        if "gate" not in done.stdout + done.stderr:
            raise RuntimeError(f"not installed: {done.stderr}")
        wait_for("three real servers", self.serving)
        # From here on simulated time must leave real servers the real time they need.
        control(self.sandbox, "clock", {"speed": 5})
        gate.touch()

    def again(self) -> None:
        """Vault is undone, and installed anew up to the gate."""
        self.undo("--to", "base")
        self.to_gate("resume", self.run)

    def undo(self, *arguments: str) -> None:
        control(self.sandbox, "clock", {"speed": 600})
        self.platflow("rollback", self.run, "--confirm", ENVIRONMENT, *arguments)

    def serving(self) -> bool:
        """Three servers of three pods answer, and none is initialised."""
        if self.kubelet.failure is not None:
            raise self.kubelet.failure
        self.side = self.servers()
        return self.side is not None and [self.side.health(i) for i in range(3)] == [501] * 3

    def servers(self) -> Side | None:
        """The three servers as they are now; ports change when a pod is made anew."""
        found = [self.kubelet.address(f"vault-{i}") for i in range(3)]
        if None in found:
            return None
        authority = self.folder / "vault-ca.pem"
        authority.write_text(self.cluster.secret(NAMESPACE, "vault-tls", "ca.crt"))
        return Side("real", [address[1] for address in found], authority)

    def claims(self) -> list[str]:
        path = f"/api/v1/namespaces/{NAMESPACE}/persistentvolumeclaims/data-vault-"
        return [self.cluster.call("GET", f"{path}{i}")[1]["metadata"]["uid"] for i in range(3)]

    def secrets(self) -> list[str]:
        listed = self.platflow("secret", "list", ENVIRONMENT, "--output", "json", check=False).stdout
        # Not who took which out, which is remembered for longer than the secret.
        kept = json.dumps(json.loads(listed)["secrets"]) if listed else ""
        return sorted(set(re.findall(r"vault/[\w-]+", kept)))

    def share(self, number: int) -> str:
        return self.secret(f"vault/share-{number}")

    def secret(self, name: str) -> str:
        return self.platflow("secret", "show", ENVIRONMENT, name).stdout.strip()

    def sealed(self, name: str) -> bytes:
        """A secret as it is kept: sealed."""
        with contextlib.closing(sqlite3.connect(self.store(), timeout=30)) as store:
            return store.execute("SELECT ciphertext FROM secrets WHERE name = ?", (name,)).fetchone()[0]

    def damage(self, name: str, sealed: bytes) -> None:
        """Another sealed content under a name: a record that is well-formed, can be opened, and is wrong."""
        with contextlib.closing(sqlite3.connect(self.store(), timeout=30)) as store, store:
            changed = store.execute("UPDATE secrets SET ciphertext = ? WHERE name = ?", (sealed, name)).rowcount
            assert changed == 1, f"{changed} secrets are called {name}"

    def store(self) -> pathlib.Path:
        """The file of the command's own record."""
        return self.sandbox.folder / "state" / "state.db"

    def said(self, *words: str, server: str = "vault-0") -> Callable[[], bool]:
        """A question: whether a server's log has one more line with all of these words than it has now."""
        path = self.kubelet.log(wait_for(server, lambda: self.kubelet.pods.get(server)))

        def lines() -> int:
            return sum(all(word.encode() in line for word in words) for line in path.read_bytes().splitlines())

        before = lines()
        return lambda: lines() > before

    def login(self, side: Side, account: str = "platflow") -> Reply:
        """As platflow itself logs in: a token minted now, checked by the server with the API server."""
        path = f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts/{account}/token"
        _, minted = self.cluster.call("POST", path, {"spec": {"expirationSeconds": 600}})
        jwt = minted.get("status", {}).get("token", "none")
        return side.call(side.active() or 0, "POST", "auth/kubernetes/login", {"role": "platflow", "jwt": jwt})

    def platflow(self, *arguments: str, **options):
        return self.sandbox.platflow(*arguments, cwd=self.folder, **options)

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        """Starts the binary, a line per durable event on its standard output."""
        return self.sandbox.start(*arguments, "--output", "jsonl", cwd=self.folder)

    def killed_after(self, lines: int) -> bool:
        """Resumes, and kills it at that event; true if it was still on its way."""
        running = self.start("resume", self.run)
        assert running.stdout is not None
        for _ in range(lines):
            if not running.stdout.readline():
                break
        hit = running.poll() is None
        self.kill(running)
        return hit

    def killed_when(self, what: str, happens: Callable[[], bool], mute: bool = False) -> bool:
        """Resumes, and kills it when something has happened in a server, whose answer it never hears with `mute`."""
        running = self.start("resume", self.run)
        try:
            wait_for(f"{what}, or the command ends", lambda: happens() or running.poll() is not None, 180)
            if mute:
                self.front.mute.set()
                wait_for("nobody waits", lambda: not self.front.streams or self.front.cut() is None)
            hit = running.poll() is None
        finally:
            self.kill(running)
            self.front.mute.clear()
            self.front.lag = 0.0
        return hit

    @staticmethod
    def kill(running: subprocess.Popen[bytes]) -> None:
        running.kill()
        running.wait()
        if running.stdout is not None:
            running.stdout.close()

    def __exit__(self, *_: object) -> None:
        self.kubelet.__exit__()
        self.front.close()
        self.names.close()
