"""The sandbox's Kubernetes, with its three Vault servers, in the place of a real cluster: the machines are there, and nothing runs on them.

The cluster and its node groups are made in the sandbox by the real command; the account of the run that is looked at is
another one (moto). What happens in this cluster is simulated: that real containers start shows only on kind.
"""

import base64
import json
import pathlib
import time
import urllib.parse

import yaml

from harness.eks_front import Upstream
from harness.portforward import Cluster
from harness.sandbox import Sandbox
from harness.sandbox_vault import control

HERE = pathlib.Path(__file__).resolve().parents[1]
NAME = "stand-in"
# Nodes and pods are there in moments, and tokens of a few minutes still live for as long as a step takes.
SPEED = 30


class SandboxCluster:
    """`with SandboxCluster(folder, pools) as cluster:` has its nodes ready."""

    def __init__(self, folder: pathlib.Path, pools: dict):
        self.folder, self.pools = folder, pools
        self.sandbox = Sandbox(folder)
        self.parameters: dict[str, object] = {}
        self.cached, self.stale_at = "", 0.0

    def __enter__(self) -> "SandboxCluster":
        self.sandbox.__enter__()
        try:
            pools = f"pools={json.dumps(self.pools)}"
            self.sandbox.platflow("run", str(HERE / "workflows" / "stand-in.yaml"), "--sandbox", "--set", pools)
            control(self.sandbox, "clock", {"speed": SPEED})
            place = json.loads(self.sandbox.platflow("kubeconfig", NAME).stdout)["clusters"][0]["cluster"]
        except BaseException:
            self.__exit__()
            raise
        url = urllib.parse.urlsplit(place["server"])
        authority = self.folder / "stand-in-ca.pem"
        authority.write_bytes(base64.b64decode(place["certificate-authority-data"]))
        address = (str(url.hostname), int(url.port or 443))
        self.upstream = Upstream(address, str(authority), authorization=lambda: f"Bearer {self.token()}")
        self.api = Cluster(place["server"], authority, self.token)
        return self

    def read(self, path: str) -> dict:
        return self.api.call("GET", path)[1]

    def token(self) -> str:
        if time.monotonic() > self.stale_at:
            done = self.sandbox.platflow("k8s-token", "--environment", NAME)
            self.cached = json.loads(done.stdout)["status"]["token"]
            self.stale_at = time.monotonic() + 300
        return self.cached

    def __exit__(self, *_: object) -> None:
        self.sandbox.__exit__()
