"""Runs a module of the harness on the Python of a virtual environment that holds the pinned packages; made at first need."""

import hashlib
import os
import pathlib
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
REQUIREMENTS = HERE / "requirements.txt"


def cache_folder() -> pathlib.Path:
    root = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    digest = hashlib.sha256(REQUIREMENTS.read_bytes() + sys.version.encode()).hexdigest()[:12]
    return pathlib.Path(root) / "platflow-conformance" / digest


def interpreter() -> pathlib.Path:
    """The Python of the virtual environment."""
    folder = cache_folder()
    python, done = folder / "bin" / "python", folder / "installed"
    if not done.exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
        pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", str(REQUIREMENTS)]
        subprocess.run(pip, check=True)
        done.write_text("yes\n")
    return python


def start(module: str, arguments: list[str], what: str) -> int:
    """Becomes the module; where the packages cannot be had, the exit is a failure in CI and a loud skip of `what` elsewhere."""
    try:
        python = interpreter()
    except subprocess.CalledProcessError as error:
        if os.environ.get("CI"):
            print(f"the pinned packages cannot be installed: {error}", file=sys.stderr)
            return 1
        print(f"SKIPPED: {what}; the pinned packages cannot be installed: {error}")
        return 0
    environment = {**os.environ, "PYTHONPATH": str(HERE), "PYTHONDONTWRITEBYTECODE": "1"}
    sys.stdout.flush()
    # The same process: whoever ends it ends no shell around the one that has children to stop.
    os.execve(python, [str(python), "-m", module, *arguments], environment)
