"""Makes what QEMU boots: a kernel of the distribution, and one archive with everything that the tests need.

The archive is an initramfs, so that the guest needs no disk and no modules. In it are a userland with a Python
(userland.py), the exporter, and the programs of the kernel tests, compiled.
"""

import functools
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from kernels import apt
from kernels.archive import Archive
from kernels.machines import Kernel, Machine
from kernels.userland import Foreign, Native, Userland

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
CACHE = ROOT / "build" / "kernels"

# In the guest; tests/kernels/guest/init and gcc know these too.
PROJECT = "/srv/project"
COMPILED = "/srv/compiled"

# Tests for the guest alone; there they are tests/kernel/test_<name>.py.
IN_THE_GUEST = ("without_masks", "oom_kills")


@functools.cache
def what_is_missing(kernel: Kernel) -> str | None:
    """Return why no guest with such a kernel can be made here, or None."""
    machine = kernel.machine
    for tool in (machine.compiler, *apt.TOOLS):
        if shutil.which(tool) is None:
            return f"no {tool} here (.ci/run lists the packages)"
    if shutil.which(machine.qemu) is None:
        return f"no {machine.qemu} here (Debian: apt-get install {machine.package})"
    userland = _userland(machine)
    if missing := userland.what_is_missing():
        return missing
    if not _known(kernel):
        return f"no package of {kernel.title} is known to apt, and none was downloaded before"
    return None


@functools.cache
def _userland(machine: Machine) -> Userland:
    if machine.uname == os.uname().machine:
        return Native()
    return Foreign(machine.architecture, machine.uname, CACHE / machine.architecture)


def vmlinuz(kernel: Kernel) -> Path:
    """Return the newest kernel of the series, downloaded where it was not before."""
    package = _known(kernel)[-1]
    file = CACHE / package / "vmlinuz"
    if not file.exists():
        folder = file.parent
        folder.mkdir(parents=True, exist_ok=True)
        deb = _userland(kernel.machine).apt.download(package, folder)
        apt.unpack(deb, folder / "files")
        [found] = (folder / "files" / "boot").glob("vmlinuz-*")
        found.rename(file)
        shutil.rmtree(folder / "files")
        deb.unlink()
    return file


def _known(kernel: Kernel) -> list[str]:
    """Return the packages, the newest one last."""
    known = set(_userland(kernel.machine).apt.known(kernel.packages))
    known |= {
        file.parent.name for file in CACHE.glob("*/vmlinuz") if re.fullmatch(kernel.packages, file.parent.name)
    }
    return sorted(known, key=apt.version)


def initramfs(machine: Machine, commands: Mapping[str, Sequence[str]]) -> Path:
    """Make the archive anew; it takes seconds.

    Args:
        commands: What a guest of that name runs, in the project's folder.
    """
    folder = CACHE / f"programs-{machine.architecture}"
    folder.mkdir(parents=True, exist_ok=True)
    archive = Archive()
    archive.file("/init", (HERE / "guest" / "init").read_bytes(), 0o755)
    archive.node("/dev/console", 5, 1)
    _userland(machine).add_to(archive)
    archive.file("/usr/bin/gcc", (HERE / "guest" / "gcc").read_bytes(), 0o755)
    archive.file("/etc/passwd", b"root:x:0:0::/:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n", 0o644)
    for name, command in commands.items():
        archive.file(f"/etc/guest/{name}", f"exec {shlex.join(command)}\n".encode(), 0o644)
    _add_project(archive)
    for source in (ROOT / "tests" / "kernel").glob("*.c"):
        binary = folder / source.stem
        subprocess.run([machine.compiler, "-O2", "-static", "-pthread", "-o", binary, source], check=True)
        archive.file(f"{COMPILED}/{source.stem}", binary.read_bytes(), 0o755)
    target = CACHE / f"initramfs-{machine.architecture}"
    target.write_bytes(archive.data())
    return target


def _add_project(archive: Archive) -> None:
    # Bytecode, for which an emulated machine takes long. pytest has its own of the tests.
    subprocess.run([sys.executable, "-m", "compileall", "-qq", ROOT / "exporter"], check=True)
    collect: list[str | Path] = [
        sys.executable,
        "-m",
        "pytest",
        "--collect-only",
        "--quiet",
        ROOT / "tests" / "kernel",
    ]
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": ""}
    subprocess.run(collect, cwd=ROOT, env=environment, check=True, capture_output=True)
    archive.tree(ROOT / "exporter", f"{PROJECT}/exporter")
    archive.tree(ROOT / "tests" / "kernel", f"{PROJECT}/tests/kernel")
    archive.tree(HERE, f"{PROJECT}/tests/kernels")
    # Beside the harness and under its conftest; here pytest would take them for tests of this kernel.
    for name in IN_THE_GUEST:
        archive.file(f"{PROJECT}/tests/kernel/test_{name}.py", (HERE / f"{name}.py").read_bytes(), 0o644)
    # Without tests/conftest.py, which imports what these tests do not use.
    archive.file(f"{PROJECT}/pyproject.toml", (ROOT / "pyproject.toml").read_bytes(), 0o644)
