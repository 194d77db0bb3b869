"""Other people's servers: started on a free loopback port, ready when they answer, stopped by process id."""

import os
import pathlib
import socket
import subprocess
import sys
from collections.abc import Sequence

from harness.polling import until


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def tool(name: str) -> str:
    """A program of the suites' own environment."""
    return str(pathlib.Path(sys.executable).parent / name)


class Server:
    """A child process that listens on `port`; it ends with its block."""

    def __init__(self, command: Sequence[str], port: int, log: pathlib.Path, environment: dict[str, str] | None = None):
        self.command = list(command)
        self.port = port
        self.log = log
        self.environment = {**os.environ, **(environment or {})}
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def _listens(self) -> bool:
        if self._process is not None and self._process.poll() is not None:
            raise RuntimeError(f"{self.command[0]} ended: {self.log.read_text()[-2000:]}")
        with socket.socket() as probe:
            probe.settimeout(1)
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def __enter__(self) -> "Server":
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                self.command, stdout=log, stderr=subprocess.STDOUT, env=self.environment, cwd=self.log.parent
            )
        try:
            until(f"{self.command[0]} listens", self._listens)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def moto(folder: pathlib.Path) -> Server:
    """moto's server, which knows the managed policies of IAM only when told so."""
    port = free_port()
    command = [tool("moto_server"), "-H", "127.0.0.1", "-p", str(port)]
    return Server(command, port, folder / "moto.log", {"MOTO_IAM_LOAD_MANAGED_POLICIES": "true"})


def layered(folder: pathlib.Path, port: int, seconds: float, endpoint: str, authority: pathlib.Path) -> Server:
    """moto behind `harness.eks_layer`: its clusters have this API server."""
    command = [sys.executable, "-m", "harness.eks_layer", str(port), str(seconds), endpoint, str(authority)]
    return Server(command, port, folder / "moto.log", {"MOTO_IAM_LOAD_MANAGED_POLICIES": "true"})


def microburst(folder: pathlib.Path, upstream: str) -> Server:
    """A proxy that knows the AWS protocols and fails as told."""
    port = free_port()
    command = [tool("microburst"), "--upstream", upstream, "--port", str(port)]
    return Server(command, port, folder / "microburst.log")
