"""A cluster of kind in the place of one of EKS: the pods, Argo CD, External Secrets and Vault in it are the real ones.

What an EKS has and kind has not is made up for here, in the cluster, before the command sees it and where it cannot tell:
- machines: kind's workers get the labels, taints and zones that node groups give; they are there before their groups are;
- volumes: kind's own provisioner answers to the name of the EBS driver, and makes folders;
- the default class of kind is taken away, for EKS has had none since 1.30;
- network policies are enforced by kind's network. Its API server answers on port 6443 of a machine, that of EKS on 443 of
  an address in the VPC: one more policy in each namespace of the platform lets those two see each other.
Not shown here: EBS, the network plugin of AWS, spot machines, ARM machines (the data pool's are of this machine's kind).
"""

import base64
import hashlib
import json
import pathlib
import ssl
import subprocess
import threading
import urllib.error
import urllib.parse
import urllib.request

import bootstrap
import pins
import yaml

from harness import tools
from harness.eks_front import Upstream

ZONES = ("us-west-2a", "us-west-2b", "us-west-2c")
DRIVER = "ebs.csi.aws.com"
SYSTEM = "platform-system"


class Absent(Exception):
    """There is no such cluster here."""


def place() -> pathlib.Path:
    """Where `tests/conformance/kind create` puts the kubeconfig."""
    return bootstrap.cache() / "kind" / "kubeconfig"


def argocd() -> dict[str, str]:
    """Upstream's manifest for high availability, as a user names it."""
    pinned = pins.pinned("manifests", "argo-cd")
    place = f"https://raw.githubusercontent.com/argoproj/argo-cd/{pinned['version']}/{pinned['path']}"
    return {"url": place, "sha256": pinned["sha256"]}


class KindCluster:
    """`with KindCluster(folder, pools) as cluster:` has machines for the pools; what is added is left to whoever deletes the cluster."""

    def __init__(self, folder: pathlib.Path, pools: dict):
        self.folder, self.pools = folder, pools
        self.config = place()
        if not self.config.exists():
            raise Absent(f"there is no cluster of kind ({self.config}): tests/conformance/kind create")
        self.parameters: dict[str, object] = {}
        self.ended = threading.Event()
        self.failure: Exception | None = None

    def __enter__(self) -> "KindCluster":
        self.folder.mkdir(parents=True)
        config = yaml.safe_load(self.config.read_text())
        cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
        self.server = cluster["server"]
        files = {
            "ca.pem": cluster["certificate-authority-data"],
            "admin.pem": user["client-certificate-data"],
            "admin.key": user["client-key-data"],
        }
        for name, content in files.items():
            path = self.folder / name
            path.touch(mode=0o600)
            path.write_bytes(base64.b64decode(content))
        url = urllib.parse.urlsplit(self.server)
        certificate = (str(self.folder / "admin.pem"), str(self.folder / "admin.key"))
        self.upstream = Upstream((str(url.hostname), int(url.port or 443)), str(self.folder / "ca.pem"), certificate)
        self.context: ssl.SSLContext = self.upstream.administrator
        self.machines()
        self.volumes()
        self.parameters = {"argocd_source": argocd(), "external_secrets_source": self.operator()}
        self.control_plane = self.addresses()
        self.thread = threading.Thread(target=self.follow, daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.ended.set()
        self.thread.join(timeout=60)
        if self.failure is not None:
            raise self.failure

    def kubectl(self, *arguments: str) -> str:
        command = [str(tools.kubectl()), "--kubeconfig", str(self.config), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
        if done.returncode != 0:
            raise RuntimeError(f"kubectl {' '.join(arguments)}: {done.stderr.strip()}")
        return done.stdout

    def machines(self) -> None:
        """The workers, one after another, become nodes of the pools."""
        listed = json.loads(self.kubectl("get", "nodes", "-l", "!node-role.kubernetes.io/control-plane", "-o", "json"))
        workers = sorted(node["metadata"]["name"] for node in listed["items"])
        wanted = [name for name, pool in self.pools.items() for _ in range(pool["desired"])]
        if len(workers) < len(wanted):
            raise Absent(f"the cluster has {len(workers)} workers, the pools have {len(wanted)} nodes")
        for number, (worker, pool) in enumerate(zip(workers, wanted, strict=False)):
            labels = {
                **self.pools[pool]["labels"],
                "eks.amazonaws.com/nodegroup": pool,
                "topology.kubernetes.io/region": ZONES[0][:-1],
                "topology.kubernetes.io/zone": ZONES[number % len(ZONES)],
            }
            self.kubectl("label", "--overwrite", "node", worker, *[f"{key}={value}" for key, value in labels.items()])
            for taint in self.pools[pool]["taints"]:
                effect = taint["effect"].title().replace("_", "")
                self.kubectl("taint", "--overwrite", "node", worker, f"{taint['key']}={taint['value']}:{effect}")

    def volumes(self) -> None:
        """kind's provisioner under the name of the EBS driver, for classes that others make."""
        self.kubectl("delete", "storageclass", "--all")
        where = ("-n", "local-path-storage")
        self.kubectl(*where, "set", "env", "deployment/local-path-provisioner", f"PROVISIONER_NAME={DRIVER}")
        self.kubectl(*where, "rollout", "status", "deployment/local-path-provisioner", "--timeout=300s")

    def operator(self) -> dict[str, str]:
        """External Secrets as upstream's chart renders it, in a file: what a user does who wants it in a namespace of his own."""
        chart = "external-secrets"
        pinned = pins.pinned("charts", chart)
        version = pinned["version"]
        where = ["--repo", pinned["repository"], "--version", version, "--namespace", SYSTEM]
        command = [str(tools.helm()), "template", "external-secrets", chart, *where]
        done = subprocess.run(command, capture_output=True, check=False, timeout=300)
        if done.returncode != 0:
            raise RuntimeError(f"helm cannot render {chart} {version}: {done.stderr.decode().strip()}")
        path = self.folder / "external-secrets.yaml"
        path.write_bytes(done.stdout)
        return {"file": str(path), "sha256": hashlib.sha256(done.stdout).hexdigest()}

    def addresses(self) -> list[str]:
        listed = json.loads(self.kubectl("get", "nodes", "-l", "node-role.kubernetes.io/control-plane", "-o", "json"))
        all_ = [address for node in listed["items"] for address in node["status"]["addresses"]]
        return [address["address"] for address in all_ if address["type"] == "InternalIP"]

    # While the command runs

    def follow(self) -> None:
        """Each namespace of the platform gets the policy as soon as it is there."""
        while not self.ended.wait(0.25):
            try:
                names = [one["metadata"]["name"] for one in self.read("/api/v1/namespaces")["items"]]
                for name in names:
                    if name.startswith("platform-"):
                        self.policy(name)
            except OSError:
                continue  # asked again; a cluster that is gone fails the journey itself
            except Exception as error:  # noqa: BLE001 - told when the journey ends
                self.failure = error
                return

    def policy(self, namespace: str) -> None:
        blocks = [{"ipBlock": {"cidr": f"{address}/32"}} for address in self.control_plane]
        spec = {
            "podSelector": {},
            "policyTypes": ["Egress", "Ingress"],
            "egress": [{"to": blocks, "ports": [{"protocol": "TCP", "port": 6443}]}],
            "ingress": [{"from": blocks}],
        }
        body = {
            "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
            "metadata": {"name": "kind-control-plane"}, "spec": spec,
        }  # fmt: skip
        status, answer = self.call("POST", f"/apis/networking.k8s.io/v1/namespaces/{namespace}/networkpolicies", body)
        # There already; or the namespace has gone or is on its way.
        if status not in (201, 409, 404, 403):
            raise RuntimeError(f"no policy for {namespace}: {status} {answer}")

    def read(self, path: str) -> dict:
        status, found = self.call("GET", path)
        if status != 200:
            raise OSError(f"GET {path}: {status}")
        return found

    def call(self, method: str, path: str, body: object = None) -> tuple[int, dict]:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.server + path, data, {"Content-Type": "application/json"}, method=method)
        try:
            with urllib.request.urlopen(request, context=self.context, timeout=60) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as refused:
            return refused.code, json.loads(refused.read() or b"{}")
