"""The sandbox's Kubernetes with real OpenBao servers in its Vault pods, and the runbook that the real binary installs them by."""

import base64
import json
import pathlib
import ssl
import urllib.parse

from harness.apiproxy import ApiFront, NameProxy
from harness.kubelet import Kubelet, encoded
from harness.openbao import openssl, wait_for
from harness.portforward import Cluster
from harness.sandbox import ROOT, Sandbox
from harness.sandbox_vault import NAMESPACE, control

ENVIRONMENT = "vault-only"
# What a certificate of an API server is good for.
NAMES = "subjectAltName=DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc,DNS:localhost,IP:127.0.0.1"

MORE_STEPS = """
  configure:
    kind: vault.configure
    needs: [unseal]
    undo: {with: install}
    spec: &place
      cluster: ${steps.cluster.outputs.access}
      namespace: ${steps.install.outputs.namespace}
      name: ${steps.install.outputs.name}
      pods: ${steps.install.outputs.pods}
      ca_certificate: ${steps.install.outputs.ca_certificate}

  own_access:
    kind: vault.own_access
    needs: [configure]
    undo: {with: install}
    spec: *place
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
        text = (ROOT / "tests" / "fixtures" / "vault-only.yaml").read_text()
        text = text.replace("hashicorp/vault:1.20.4", self.image)
        before, init, rest = text.partition("\n  init:\n")
        if self.upto == "own_access":
            more = MORE_STEPS.replace("&place", "").replace("spec: *place", place_of(MORE_STEPS))
            text = before + init + rest + more
        elif self.upto == "init":
            text = before + init + rest.partition("\n  unseal:\n")[0] + "\n"
        head, install, rest = text.partition("\n  install:\n")
        access = json.dumps(self.access())
        text = head + install + rest.replace("${steps.cluster.outputs.access}", access)
        path = self.folder / "runbook.yaml"
        path.write_text(text)
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
            control(self.sandbox, "clock", {"speed": 600})
            done = self.platflow("run", str(self.runbook()), "--sandbox", check=False)
            self.run = json.loads(self.platflow("list", "--output", "json").stdout)["runs"][0]["id"]
            if "gate" not in done.stdout + done.stderr:
                raise RuntimeError(f"not installed: {done.stderr}")
            # From here on simulated time must leave real servers the real time they need.
            control(self.sandbox, "clock", {"speed": 5})
            self.kubelet.__enter__()
            wait_for("three real servers", self.serving)
            (self.folder / "gate").touch()
        except BaseException:
            self.__exit__()
            raise
        return self

    def serving(self) -> bool:
        if self.kubelet.failure is not None:
            raise self.kubelet.failure
        return len(self.kubelet.pods) == 3

    def platflow(self, *arguments: str, **options):
        return self.sandbox.platflow(*arguments, cwd=self.folder, **options)

    def __exit__(self, *_: object) -> None:
        self.kubelet.__exit__()
        self.front.close()
        self.names.close()


def place_of(text: str) -> str:
    """The lines below `spec: &place`, for a language without anchors."""
    lines = text.partition("&place\n")[2].split("\n\n")[0]
    return "spec:\n" + lines
