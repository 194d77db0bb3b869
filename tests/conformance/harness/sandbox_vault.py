"""The sandbox's three Vault servers as a fresh installation leaves them: sealed, uninitialised, reached by port-forward."""

import base64
import json
import pathlib
import urllib.request

import pins
from harness.openbao import wait_for
from harness.portforward import Cluster, Forwarder
from harness.sandbox import ROOT, Sandbox
from harness.vault_side import Side

NAMESPACE = "platform-system"
FIXTURE = ROOT / "tests" / "fixtures" / "vault-only.yaml"


def control(sandbox: Sandbox, path: str, body: dict) -> dict:
    """One call of the sandbox's own control interface."""
    status = json.loads(sandbox.platflow("sandbox", "status", "--output", "json").stdout)
    url = f"{status['control_url']}/{path}"
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)


class SandboxVault:
    """`with SandboxVault(sandbox, folder, image) as vault:` installs Vault by the real command, up to the gate before its init."""

    def __init__(self, sandbox: Sandbox, folder: pathlib.Path, image: str):
        self.sandbox, self.folder, self.image = sandbox, folder, image
        self.forwarders: list[Forwarder] = []

    def __enter__(self) -> "SandboxVault":
        runbook = self.folder / "vault-only.yaml"
        runbook.write_text(FIXTURE.read_text().replace(pins.image("hashicorp/vault"), self.image))
        done = self.sandbox.platflow("run", str(runbook), "--sandbox", check=False, cwd=self.folder)
        if "gate" not in done.stdout + done.stderr:
            raise RuntimeError(f"Vault was not installed: {done.stderr}")
        # Slow from here on: tokens and elections last as long as a script takes, and stay near real time.
        control(self.sandbox, "clock", {"speed": 20})
        config = json.loads(self.sandbox.platflow("kubeconfig", "vault-only").stdout)
        place = config["clusters"][0]["cluster"]
        authority = self.folder / "kubernetes-ca.pem"
        authority.write_bytes(base64.b64decode(place["certificate-authority-data"]))
        self.kubernetes_authority = authority
        self.cluster = Cluster(place["server"], authority, self.token)
        vault_authority = self.folder / "vault-ca.pem"
        vault_authority.write_text(self.cluster.secret(NAMESPACE, "vault-tls", "ca.crt"))
        self.forwarders = [Forwarder(self.cluster, NAMESPACE, f"vault-{i}", 8200) for i in range(3)]
        self.side = Side("sandbox", [one.port for one in self.forwarders], vault_authority)
        self.side.leader_address = lambda i: f"https://vault-{i}.vault-internal.{NAMESPACE}.svc:8200"
        self.side.restart = self.restart
        self.side.kubernetes = lambda: {
            "kubernetes_host": "https://kubernetes.default.svc",
            "kubernetes_ca_cert": authority.read_text(),
            "token_reviewer_jwt": self.service_account_token("vault"),
        }
        self.side.service_account_token = self.service_account_token
        self.cluster.call("POST", f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts",
                          {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "platflow"}})  # fmt: skip
        return self

    def token(self) -> str:
        done = self.sandbox.platflow("k8s-token", "--environment", "vault-only")
        return json.loads(done.stdout)["status"]["token"]

    def service_account_token(self, account: str) -> str:
        path = f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts/{account}/token"
        request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": 86400}}
        code, answer = self.cluster.call("POST", path, request)
        if code != 201:
            raise RuntimeError(f"no token for {account}: {code} {answer}")
        return answer["status"]["token"]

    def restart(self, ordinal: int) -> None:
        """The pod is deleted; its set makes it anew on the same volume."""
        path = f"/api/v1/namespaces/{NAMESPACE}/pods/vault-{ordinal}"
        _, before = self.cluster.call("GET", path)
        self.cluster.call("DELETE", path, {"gracePeriodSeconds": 0})
        self.side.forget(ordinal)

        def again() -> bool:
            code, now = self.cluster.call("GET", path)
            return code == 200 and now["metadata"]["uid"] != before["metadata"]["uid"] and self.side.health(ordinal) == 503

        wait_for(f"vault-{ordinal} back", again)

    def __exit__(self, *_: object) -> None:
        if hasattr(self, "side"):
            self.side.close()
        for one in self.forwarders:
            one.close()
