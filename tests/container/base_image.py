"""Makes a root file system that stands in for python:X.Y-slim where no registry can be reached.

In it are a Python of this machine with its library, pip and the shared libraries that they load, and busybox for a
shell: what the Dockerfile takes for granted, and no more.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

BUSYBOX = Path("/bin/busybox")

_PROBE = """
import json, os, pip, sys, sysconfig
print(json.dumps({
    "executable": os.path.realpath(sys.executable),
    "stdlib": sysconfig.get_path("stdlib"),
    "pip": os.path.dirname(pip.__file__),
    "version": "%d.%d" % sys.version_info[:2],
}))
"""
_NOT_IN_STDLIB = ("test", "idlelib", "tkinter", "lib2to3", "ensurepip", "site-packages", "__pycache__", "config-*")
# Wheels load them although no program of the base image does.
_LIBRARIES_OF_WHEELS = ("libgcc_s.so.1", "libstdc++.so.6")


class Python(NamedTuple):
    """An interpreter of this machine.

    Attributes:
        executable: Not a link.
        stdlib: Its library.
        pip: The package's folder.
        version: Major and minor.
    """

    executable: Path
    stdlib: Path
    pip: Path
    version: str


def find_python(version: str) -> Python:
    """Return a Python of the wanted version if one is here with pip, else the one that runs this."""
    pyenv = Path(os.environ.get("PYENV_ROOT", "~/.pyenv")).expanduser() / "versions"
    candidates = [str(path) for path in sorted(pyenv.glob(f"{version}.*/bin/python3"), reverse=True)]
    candidates += [path for path in [shutil.which(f"python{version}")] if path]
    for candidate in (*candidates, sys.executable):
        told = subprocess.run([candidate, "-c", _PROBE], capture_output=True, text=True, check=False)
        if told.returncode == 0:
            facts = json.loads(told.stdout)
            return Python(Path(facts["executable"]), Path(facts["stdlib"]), Path(facts["pip"]), facts["version"])
    raise LookupError("no Python with pip: not even the one that runs the tests")


def make_root(python: Python, root: Path) -> None:
    """Fill a folder with the root file system.

    Args:
        python: What becomes /usr/local/bin/python.
        root: Must not be there yet.
    """
    for folder in ("bin", "etc", "proc", "sys", "dev", "root", "usr/local/bin", "usr/local/lib", "tmp"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    (root / "tmp").chmod(0o1777)
    shutil.copy2(BUSYBOX, root / "bin" / "busybox")
    for applet in subprocess.run([BUSYBOX, "--list"], capture_output=True, text=True, check=True).stdout.split():
        if applet != "busybox":
            (root / "bin" / applet).symlink_to("busybox")
    (root / "etc" / "passwd").write_text(
        "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/bin/false\n"
    )
    (root / "etc" / "group").write_text("root:x:0:\nnogroup:x:65534:\n")
    _add_python(python, root / "usr" / "local")
    modules = python.stdlib.glob("lib-dynload/*.so")
    for library in {*_libraries([python.executable, *modules]), *_known_libraries(_LIBRARIES_OF_WHEELS)}:
        target = root / str(library).lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(library, target)


def _add_python(python: Python, prefix: Path) -> None:
    name = f"python{python.version}"
    shutil.copy2(python.executable, prefix / "bin" / name)
    (prefix / "bin" / "python").symlink_to(name)
    stdlib = prefix / "lib" / name
    shutil.copytree(python.stdlib, stdlib, ignore=shutil.ignore_patterns(*_NOT_IN_STDLIB), symlinks=False)
    shutil.copytree(python.pip, stdlib / "site-packages" / "pip", ignore=shutil.ignore_patterns("__pycache__"))
    # Debian's Python looks for packages elsewhere.
    (stdlib / "dist-packages").symlink_to("site-packages")
    pip = prefix / "bin" / "pip"
    pip.write_text('#!/bin/sh\nexec python -m pip "$@"\n')
    pip.chmod(0o755)


def _libraries(files: list[Path]) -> set[Path]:
    """Return all shared libraries that the programs and modules load."""
    told = subprocess.run(["ldd", *files], capture_output=True, text=True, check=False).stdout
    return {Path(path) for path in re.findall(r"^\s+(?:\S+ => )?(/\S+) \(0x", told, re.MULTILINE)}


def _known_libraries(names: tuple[str, ...]) -> set[Path]:
    """Return the paths of shared libraries as the dynamic linker knows them, for this machine's architecture."""
    told = subprocess.run(["/sbin/ldconfig", "-p"], capture_output=True, text=True, check=True).stdout
    return {
        Path(path)
        for name, path in re.findall(r"^\s(\S+) \(libc6,\S*64.*\) => (/\S+)$", told, re.MULTILINE)
        if name in names
    }
