"""A private sandbox of the binary under test: its own state folder, free ports, stopped when the suite ends."""

import json
import os
import pathlib
import subprocess

ROOT = pathlib.Path(__file__).resolve().parents[3]


def binary() -> pathlib.Path:
    """The binary under test: `PLATFLOW_BINARY`, or the debug build."""
    named = os.environ.get("PLATFLOW_BINARY")
    path = pathlib.Path(named) if named else ROOT / "target" / "debug" / "platflow"
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing: cargo build --bin platflow")
    return path


class Sandbox:
    """`with Sandbox(folder) as sandbox:` runs one at the given speed; `sandbox.environment` points clients at it."""

    def __init__(self, folder: pathlib.Path, speed: int = 600):
        self.folder = folder
        self.speed = speed
        self.environment: dict[str, str] = {}

    def platflow(self, *arguments: str, check: bool = True, **options) -> subprocess.CompletedProcess[str]:
        """Runs the binary on this sandbox's state; its output is captured as text."""
        environment = self.surroundings(options.pop("environment", {}))
        command = [str(binary()), *arguments]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, **options)
        if check and done.returncode != 0:
            raise RuntimeError(f"{' '.join(command)} exited {done.returncode}: {done.stderr.strip()}")
        return done

    def surroundings(self, more: dict[str, str]) -> dict[str, str]:
        """The environment of every command: this sandbox's state and a home of its own."""
        return {
            **os.environ,
            "HOME": str(self.folder),
            "XDG_CONFIG_HOME": str(self.folder / "config"),
            "PLATFLOW_STATE": str(self.folder / "state"),
            **more,
        }

    def start(self, *arguments: str, **options) -> subprocess.Popen[bytes]:
        """Starts the binary and does not wait; its standard output is a pipe."""
        command = [str(binary()), *arguments]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "stdin": subprocess.DEVNULL}
        return subprocess.Popen(command, env=self.surroundings({}), **pipes, **options)

    def other(self, command: list[str]) -> str:
        """Runs somebody else's command in this sandbox's surroundings; what it prints, and it must succeed."""
        done = subprocess.run(command, env=self.surroundings({}), capture_output=True, text=True, check=False, timeout=180)
        if done.returncode != 0:
            raise RuntimeError(f"{' '.join(command)} exited {done.returncode}: {done.stderr.strip()}")
        return done.stdout

    def counters(self) -> dict:
        """How many calls were answered so far."""
        return json.loads(self.platflow("sandbox", "counters", "--output", "json").stdout)

    def world(self) -> list[dict]:
        """Every resource of the simulated world."""
        return json.loads(self.platflow("sandbox", "world", "--output", "json").stdout)["resources"]

    def __enter__(self) -> "Sandbox":
        self.platflow("sandbox", "start", "--speed", str(self.speed))
        for line in self.platflow("sandbox", "env").stdout.splitlines():
            name, _, value = line.removeprefix("export ").partition("=")
            self.environment[name] = value.strip("'\"")
        return self

    def __exit__(self, *_: object) -> None:
        self.platflow("sandbox", "stop", check=False)
