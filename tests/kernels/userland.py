"""What runs in a guest beside the project: a Python with the packages of the tests, a shell, and a few programs.

A guest of this machine's architecture has them from this machine. One of another has them from the distribution's
packages for it, which are unpacked into a folder; nothing of them is installed.
"""

import hashlib
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

from kernels.apt import Apt, foreign_apt, unpack
from kernels.archive import Archive

PACKAGES = "/srv/packages"  # tests/kernels/guest/init knows it too

BUSYBOX = Path("/bin/busybox")
# A shell that execs what it is told to: busybox has programs in itself that it prefers, and their comm is its own.
_SHELL = "dash"
_PROGRAMS = (_SHELL, "bash", "env", "nice", "setpriv")
_FOREIGN_PROGRAMS = ("busybox-static", "util-linux", "coreutils", "bash", "dash")

# What no test imports, and what is large.
_NOT_IN_STDLIB = {
    "test",
    "idlelib",
    "tkinter",
    "lib2to3",
    "ensurepip",
    "pydoc_data",
    "turtledemo",
    "dist-packages",
    "config-*",
}
_NOT_IN_PACKAGES = {
    *("mypy", "mypyc", "ruff", "pip", "setuptools", "pkg_resources", "ast_serialize", "tzdata"),
    *("cloudcoil", "helm_python", "kubernetes_validate*", "pydantic", "pydantic_core"),
    *("*__mypyc.*", "grafana_foundation_sdk", "promql_parser", "cryptography", "hypothesis", "google"),
}
# Of a root file system.
_NOT_IN_SYSTEM = tuple(f"{name}/*" for name in ("usr/share", "usr/include", "usr/lib/python3", "var", "etc"))

# What the tests in a guest import, and the plugin of pytest that pyproject.toml configures.
_IMPORTED = ("aiohttp", "bcrypt", "prometheus-client", "PyYAML", "pytest", "pytest-asyncio")
_WHEELS_FOR = ("2014", "_2_17", "_2_28", "_2_31", "_2_34")


class Userland(Protocol):
    """What a guest runs."""

    apt: Apt
    """Which has packages for it."""

    def what_is_missing(self) -> str | None:
        """Return why there is none, or None."""

    def add_to(self, archive: Archive) -> None:
        """Add it; Python is then /usr/bin/python3, and its packages are in PACKAGES."""


class Native:
    """This machine's."""

    def __init__(self) -> None:
        self.apt = Apt()

    def what_is_missing(self) -> str | None:
        """Return which program is not here, or None."""
        for tool in ("ldd", *_PROGRAMS):
            if shutil.which(tool) is None:
                return f"no {tool} here"
        if not BUSYBOX.exists() or _libraries([BUSYBOX]):
            return f"{BUSYBOX} is not there, or not static (apt-get install busybox-static)"
        return None

    def add_to(self, archive: Archive) -> None:
        """Add this very Python, the packages of its environment, and this machine's programs."""
        archive.file("/bin/busybox", BUSYBOX.read_bytes(), 0o755)
        interpreter = Path(os.path.realpath(sys.executable))
        archive.file(str(interpreter), interpreter.read_bytes(), 0o755)
        archive.link("/usr/bin/python3", str(interpreter))
        programs = [Path(str(shutil.which(name))) for name in _PROGRAMS]
        for program in programs:
            archive.file(f"/usr/bin/{program.name}", program.read_bytes(), 0o755)
        archive.link("/bin/sh", f"/usr/bin/{_SHELL}")
        stdlib = Path(sysconfig.get_path("stdlib"))
        packages = {Path(sysconfig.get_path(name)) for name in ("purelib", "platlib")}
        archive.tree(stdlib, str(stdlib), leave_out=_NOT_IN_STDLIB)
        for folder in packages:
            archive.tree(folder, PACKAGES, leave_out=_NOT_IN_PACKAGES)
        modules = [path for folder in (stdlib / "lib-dynload", *packages) for path in folder.rglob("*.so")]
        for library in _libraries([interpreter, *programs, *modules]):
            archive.file(library, Path(library).read_bytes(), 0o755)


def _libraries(files: Iterable[Path]) -> set[str]:
    """Return the paths of all shared libraries that the programs and modules load."""
    told = subprocess.run(["ldd", *files], capture_output=True, text=True, check=False).stdout
    return set(re.findall(r"^\s+(?:\S+ => )?(/\S+) \(0x", told, re.MULTILINE))


class Foreign:
    """That of another architecture, of the distribution's packages and of wheels.

    Args:
        architecture: As Debian calls it.
        uname: As Python's wheels call it.
        folder: Where all that is downloaded stays.
    """

    def __init__(self, architecture: str, uname: str, folder: Path) -> None:
        self.apt = foreign_apt(architecture, folder / "apt")
        self._architecture = architecture
        self._uname = uname
        self._folder = folder
        # The same version as this one: it compiles the modules, and the wheels are of the versions that are here.
        self._python = f"python{sys.version_info.major}.{sys.version_info.minor}"
        self._missing: str | None = None

    def what_is_missing(self) -> str | None:
        """Return why there are no packages, or None."""
        if self._root.exists():
            return None
        try:
            self.apt.update()
            known = self.apt.known(re.escape(self._python))
        except RuntimeError as error:
            return str(error)
        return None if known else f"apt knows no {self._python} for {self._architecture}"

    @property
    def _root(self) -> Path:
        return self._folder / self._python

    def add_to(self, archive: Archive) -> None:
        """Add the same Python of the distribution, what it and the programs need, and wheels."""
        if not self._root.exists():
            self._make_root()
        left_out = (*_NOT_IN_SYSTEM, *(f"usr/lib/{self._python}/{name}/*" for name in _NOT_IN_STDLIB))
        archive.system(self._root, left_out)
        archive.link("/usr/bin/python3", self._python)
        archive.tree(self._wheels(), PACKAGES)

    def _make_root(self) -> None:
        self.apt.download_with_all_that_it_needs(self._python, *_FOREIGN_PROGRAMS)
        begun = self._folder / "begun"
        shutil.rmtree(begun, ignore_errors=True)
        for deb in sorted((self._folder / "apt" / "cache" / "archives").glob("*.deb")):
            unpack(deb, begun)
        # Of the modules of Debian's own packages scripts make bytecode at their installation; here none runs.
        _compile(begun / "usr" / "lib" / self._python, f"/usr/lib/{self._python}")
        begun.rename(self._root)

    def _wheels(self) -> Path:
        wanted = [f"{name}=={importlib.metadata.version(name)}" for name in _IMPORTED]
        key = hashlib.sha256(" ".join((self._python, *wanted)).encode()).hexdigest()[:12]
        folder = self._folder / f"packages-{key}"
        if not folder.exists():
            begun = self._folder / "begun"
            shutil.rmtree(begun, ignore_errors=True)
            wheels = begun / "wheels"
            # pip does not know which are older.
            platforms = [f"--platform=manylinux{libc}_{self._uname}" for libc in _WHEELS_FOR]
            version = f"--python-version={self._python.removeprefix('python')}"
            command = [
                *(sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "download"),
                *("--only-binary=:all:", version, *platforms, f"--dest={wheels}", *wanted),
            ]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr[-3000:]
            for wheel in wheels.glob("*.whl"):
                with zipfile.ZipFile(wheel) as packed:
                    packed.extractall(begun / "packages")
            _compile(begun / "packages", PACKAGES)
            (begun / "packages").rename(folder)
        return folder


def _compile(folder: Path, path: str) -> None:
    """Make bytecode, for which an emulated machine would take minutes; what is no Python 3 is left out.

    Args:
        path: Where the folder will be in the guest.
    """
    command = [sys.executable, "-m", "compileall", "-qq", "-j0", "-s", str(folder), "-p", path, str(folder)]
    subprocess.run(command, check=False, capture_output=True)
