"""Runs a module of the harness on the Python of a virtual environment that holds the pinned packages; made at first need."""

import hashlib
import os
import pathlib
import subprocess
import sys

import pins

HERE = pathlib.Path(__file__).resolve().parent


def cache() -> pathlib.Path:
    """Where everything that is downloaded goes."""
    root = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    return pathlib.Path(root) / "platflow-conformance"


def is_ci() -> bool:
    """Absence is a failure where this is set, as in the Rust tests."""
    return os.environ.get("CI", "") not in ("", "false", "0")


def environment(name: str) -> pathlib.Path:
    """The folder of the environment with the packages of its section, each held against its hashes; made at first need."""
    wanted = pins.packages(name)
    digest = hashlib.sha256((wanted + sys.version).encode()).hexdigest()[:12]
    folder = cache() / f"{name}-{digest}"
    done = folder / "installed"
    if not done.exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
        requirements = folder / "requirements.txt"
        requirements.write_text(wanted)
        pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        # What is listed is everything there is: nothing is resolved, nothing without a hash comes in.
        subprocess.run([*pip, "--require-hashes", "--no-deps", "-r", str(requirements)], check=True)
        done.write_text("yes\n")
    return folder


def start(module: str, arguments: list[str], what: str) -> int:
    """Becomes the module; where the packages cannot be had, the exit is a failure in CI and a loud, counted skip of `what` elsewhere."""
    try:
        python = environment("suites") / "bin" / "python"
    except (subprocess.CalledProcessError, OSError) as error:
        if is_ci():
            print(f"FAILED: {what}; the pinned packages cannot be installed: {error}", file=sys.stderr)
            print("conformance: 0 passed, 1 failed, 0 skipped")
            return 1
        print(f"SKIPPED: {what}; the pinned packages cannot be installed: {error}")
        print("conformance: 0 passed, 0 failed, 1 skipped")
        return 0
    surroundings = {**os.environ, "PYTHONPATH": str(HERE), "PYTHONDONTWRITEBYTECODE": "1"}
    sys.stdout.flush()
    # The same process: whoever ends it ends no shell around the one that has children to stop.
    os.execve(python, [str(python), "-m", module, *arguments], surroundings)
