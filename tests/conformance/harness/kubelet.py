"""Runs a real OpenBao server for every Vault pod of the sandbox's Kubernetes, as a kubelet would: same configuration, same account, a folder per volume."""

import base64
import os
import pathlib
import shutil
import signal
import subprocess
import threading
import time

from harness.openbao import binary, free_ports, wait_for
from harness.portforward import Cluster

ACCOUNT = "/run/secrets/kubernetes.io/serviceaccount"
# In a mount namespace of its own a server finds the account of its pod where every pod finds it.
PREPARE = f'mount -t tmpfs none /run && mkdir -p {ACCOUNT} && cp "$1/ca.crt" "$1/token" {ACCOUNT}/ && shift && exec "$@"'


def unshare() -> list[str]:
    return ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--user", "--map-root-user", "--mount"]


def possible() -> bool:
    """Whether this machine lets a process have a mount namespace of its own."""
    try:
        tried = subprocess.run([*unshare(), "mount", "-t", "tmpfs", "none", "/run"], capture_output=True, check=False)
    except FileNotFoundError:
        return False
    return tried.returncode == 0


class Pod:
    """One pod that runs: its server, on the folder of its volume."""

    def __init__(self, name: str, uid: str, volume: pathlib.Path, ports: tuple[int, int]):
        self.name, self.uid, self.volume, self.ports = name, uid, volume, ports
        self.process: subprocess.Popen[bytes] | None = None


class Kubelet:
    """`with Kubelet(...) as kubelet:` follows the pods until the end. `extra` is more configuration for every server."""

    def __init__(self, cluster: Cluster, folder: pathlib.Path, namespace: str, front_authority: pathlib.Path, extra: str = ""):
        self.cluster, self.folder, self.namespace, self.extra = cluster, folder, namespace, extra
        self.folder.mkdir(parents=True, exist_ok=True)
        self.authority = front_authority
        self.proxy = ""
        self.pods: dict[str, Pod] = {}
        self.lock = threading.RLock()
        self.held: set[str] = set()
        self.ports: dict[str, list[int]] = {}
        self.ended = threading.Event()
        self.failure: Exception | None = None
        self.thread = threading.Thread(target=self.follow, daemon=True)

    def __enter__(self) -> "Kubelet":
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.ended.set()
        self.thread.join(timeout=30)
        for pod in list(self.pods.values()):
            self.stop(pod)

    def get(self, path: str) -> dict | None:
        status, found = self.cluster.call("GET", path)
        return found if status == 200 else None

    def follow(self) -> None:
        while not self.ended.wait(0.1):
            try:
                with self.lock:
                    self.reconcile()
            except (OSError, RuntimeError, KeyError):
                continue  # there is no cluster yet, or not all that a pod mounts
            except Exception as error:  # noqa: BLE001 - the suite asks for it at its next look
                self.failure = error

    def reconcile(self) -> None:
        listed = self.get(f"/api/v1/namespaces/{self.namespace}/pods") or {"items": []}
        running = {}
        for pod in listed["items"]:
            statuses = pod.get("status", {}).get("containerStatuses") or [{}]
            if pod["metadata"]["name"].startswith("vault-") and statuses[0].get("state", {}).get("running") is not None:
                running[pod["metadata"]["name"]] = pod["metadata"]["uid"]
        for name, pod in list(self.pods.items()):
            if running.get(name) != pod.uid:
                self.stop(pod)
                del self.pods[name]
        for name, uid in running.items():
            if name not in self.pods:
                claim = self.get(f"/api/v1/namespaces/{self.namespace}/persistentvolumeclaims/data-{name}")
                if claim is not None:
                    self.run(name, uid, claim["metadata"]["uid"])
            pod = self.pods.get(name)
            # A container that died is started again on the same volume, unless a suite holds it back.
            if pod is not None and pod.process is not None and pod.process.poll() is not None and name not in self.held:
                self.start(pod)

    def run(self, name: str, uid: str, claim: str) -> None:
        # Raft remembers its members by address: a volume keeps the ports it was first served on.
        ports = self.ports.setdefault(claim, free_ports(2))
        pod = Pod(name, uid, self.folder / claim, (ports[0], ports[1]))
        self.pods[name] = pod
        self.start(pod)

    def files(self, pod: Pod) -> pathlib.Path:
        """What the pod mounts: the configuration as the step wrote it, with this machine's paths and ports; its account."""
        place = pod.volume / "mounted"
        place.mkdir(parents=True, exist_ok=True)
        (pod.volume / "data").mkdir(exist_ok=True)
        for member in ("ca.crt", "tls.crt", "tls.key"):
            (place / member).write_text(self.cluster.secret(self.namespace, "vault-tls", member))
        config = self.get(f"/api/v1/namespaces/{self.namespace}/configmaps/vault-config")
        text = config["data"]["vault.hcl"]
        for old, new in {
            '"/vault/data"': f'"{pod.volume / "data"}"\n  performance_multiplier = "1"',
            "/vault/tls/tls.crt": f"{place}/tls.crt",
            "/vault/tls/tls.key": f"{place}/tls.key",
            "[::]:8200": f"127.0.0.1:{pod.ports[0]}",
            "[::]:8201": f"127.0.0.1:{pod.ports[1]}",
        }.items():
            if old not in text:
                raise RuntimeError(f"the configuration says nothing of {old}")
            text = text.replace(old, new)
        (place / "vault.hcl").write_text(text + self.extra)
        path = f"/api/v1/namespaces/{self.namespace}/serviceaccounts/vault/token"
        _, minted = self.cluster.call("POST", path, {"spec": {"expirationSeconds": 86400}})
        (place / "token").write_text(minted["status"]["token"])
        return place

    def start(self, pod: Pod) -> None:
        place = self.files(pod)
        account = pod.volume / "account"
        account.mkdir(exist_ok=True)
        shutil.copy(self.authority, account / "ca.crt")
        shutil.copy(place / "token", account / "token")
        own = f"https://{pod.name}.vault-internal.{self.namespace}.svc"
        environment = {
            "PATH": os.environ["PATH"],
            "VAULT_RAFT_NODE_ID": pod.name,
            "VAULT_API_ADDR": f"{own}:8200",
            "VAULT_CLUSTER_ADDR": f"https://127.0.0.1:{pod.ports[1]}",
            "VAULT_CACERT": f"{place}/ca.crt",
            "HTTPS_PROXY": self.proxy,
        }
        server = [str(binary()), "server", f"-config={place}/vault.hcl", "-log-level=debug"]
        command = [*unshare(), "sh", "-ec", PREPARE, "sh", str(account), *server]
        with self.log(pod).open("ab") as log:
            # unshare, sh and the server are one process after another under one PID.
            pod.process = subprocess.Popen(
                command, cwd=pod.volume, env=environment, stdout=log, stderr=log, stdin=subprocess.DEVNULL
            )

    @staticmethod
    def log(pod: Pod) -> pathlib.Path:
        return pod.volume / "server.log"

    @staticmethod
    def stop(pod: Pod) -> None:
        if pod.process is not None:
            pod.process.kill()
            pod.process.wait()
            pod.process = None

    def kill(self, name: str) -> None:
        """SIGKILL of one server; its container comes back."""
        with self.lock:
            process = self.pods[name].process
            if process is not None and process.poll() is None:
                process.send_signal(signal.SIGKILL)
                process.wait()

    def kill_at(self, name: str, line: str, limit: float = 60.0) -> None:
        """SIGKILL of one server at the moment its log says this."""
        pod = wait_for(f"pod {name}", lambda: self.pods.get(name))
        path, seen, started = self.log(pod), 0, time.monotonic()
        while time.monotonic() - started < limit:
            content = path.read_bytes() if path.exists() else b""
            if line.encode() in content[seen:]:
                self.kill(name)
                return
            time.sleep(0.001)
        raise TimeoutError(f"{name} never said {line!r}")

    def address(self, name: str) -> tuple[str, int] | None:
        pod = self.pods.get(name)
        return ("127.0.0.1", pod.ports[0]) if pod is not None and pod.process is not None else None

    def named(self, host_port: str) -> tuple[str, int] | None:
        """Where `vault-0.vault-internal.<namespace>.svc:8200` answers."""
        host = host_port.rpartition(":")[0]
        name, _, rest = host.partition(".")
        return self.address(name) if rest.startswith("vault-internal.") else None


def encoded(path: pathlib.Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()
