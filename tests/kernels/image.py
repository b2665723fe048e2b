"""Makes what QEMU boots: a kernel of the distribution, and one archive with everything that the tests need.

The archive is an initramfs, so that the guest needs no disk and no modules. In it are busybox, this very Python
with its library, the packages of this environment, the exporter, and the programs of the kernel tests, compiled.
"""

import os
import re
import shlex
import shutil
import stat
import subprocess
import sys
import sysconfig
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
CACHE = ROOT / "build" / "kernels"

# In the guest; tests/kernels/guest/init knows these too.
PROJECT = "/srv/project"
PACKAGES = "/srv/packages"
COMPILED = "/srv/compiled"

BUSYBOX = Path("/bin/busybox")
_TOOLS = ("gcc", "ldd", "setpriv", "qemu-system-x86_64", "apt-get", "apt-cache", "dpkg-deb")
_LINUX_6_1 = r"linux-image-6\.1\.0-[0-9]+-amd64"

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
}
_NOT_IN_PACKAGES = {
    *("mypy", "mypyc", "ruff", "pip", "setuptools", "pkg_resources", "ast_serialize", "tzdata"),
    *("cloudcoil", "helm_python", "kubernetes_validate", "pydantic", "pydantic_core"),
}


def what_is_missing() -> str | None:
    """Return why no guest can be made here, or None."""
    for tool in _TOOLS:
        if shutil.which(tool) is None:
            return f"no {tool} here"
    if not BUSYBOX.exists() or _libraries([BUSYBOX]):
        return f"{BUSYBOX} is not there, or not static (apt-get install busybox-static)"
    if os.uname().machine != "x86_64":
        return f"the guest is x86_64, this Python {os.uname().machine}"
    if not any(_known_packages(_LINUX_6_1)):
        return "no package of Linux 6.1 is known to apt, and none was downloaded before"
    return None


def linux_6_1() -> Path:
    """Return the newest kernel of that series, downloaded where it was not before."""
    package = max(_known_packages(_LINUX_6_1), key=lambda name: [int(n) for n in re.findall("[0-9]+", name)])
    kernel = CACHE / package / "vmlinuz"
    if not kernel.exists():
        folder = kernel.parent
        folder.mkdir(parents=True, exist_ok=True)
        subprocess.run(["apt-get", "-qq", "download", package], cwd=folder, check=True, capture_output=True)
        [deb] = folder.glob("*.deb")
        subprocess.run(["dpkg-deb", "-x", deb, folder / "files"], check=True)
        [found] = (folder / "files" / "boot").glob("vmlinuz-*")
        found.rename(kernel)
        shutil.rmtree(folder / "files")
        deb.unlink()
    return kernel


def _known_packages(pattern: str) -> Iterator[str]:
    search = ["apt-cache", "search", "--names-only", f"^{pattern}$"]
    known = subprocess.run(search, capture_output=True, text=True, check=False)
    for line in known.stdout.splitlines():
        yield line.split()[0]
    for kernel in CACHE.glob("*/vmlinuz"):
        if re.fullmatch(pattern, kernel.parent.name):
            yield kernel.parent.name


def initramfs(commands: Mapping[str, Sequence[str]]) -> Path:
    """Make the archive anew; it takes seconds.

    Args:
        commands: What a guest of that name runs, in the project's folder.
    """
    archive = Archive()
    archive.file("/init", (HERE / "guest" / "init").read_bytes(), 0o755)
    archive.file("/bin/busybox", BUSYBOX.read_bytes(), 0o755)
    archive.file("/usr/bin/gcc", (HERE / "guest" / "gcc").read_bytes(), 0o755)
    archive.file("/etc/passwd", b"root:x:0:0::/:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n", 0o644)
    for name, command in commands.items():
        archive.file(f"/etc/guest/{name}", f"exec {shlex.join(command)}\n".encode(), 0o644)
    archive.node("/dev/console", 5, 1)
    _add_python(archive)
    archive.tree(ROOT / "exporter", f"{PROJECT}/exporter")
    archive.tree(ROOT / "tests" / "kernel", f"{PROJECT}/tests/kernel")
    archive.tree(HERE, f"{PROJECT}/tests/kernels")
    # Beside the harness and under its conftest; here pytest would take it for a test of this kernel.
    without_masks = (HERE / "without_masks.py").read_bytes()
    archive.file(f"{PROJECT}/tests/kernel/test_without_masks.py", without_masks, 0o644)
    for name in ("pyproject.toml", "tests/conftest.py"):
        archive.file(f"{PROJECT}/{name}", (ROOT / name).read_bytes(), 0o644)
    for source in (ROOT / "tests" / "kernel").glob("*.c"):
        binary = CACHE / source.stem
        subprocess.run(["gcc", "-O2", "-static", "-pthread", "-o", binary, source], check=True)
        archive.file(f"{COMPILED}/{source.stem}", binary.read_bytes(), 0o755)
    target = CACHE / "initramfs"
    target.write_bytes(archive.data())
    return target


def _add_python(archive: "Archive") -> None:
    interpreter = Path(os.path.realpath(sys.executable))
    setpriv = Path(str(shutil.which("setpriv")))
    stdlib = Path(sysconfig.get_path("stdlib"))
    packages = {Path(sysconfig.get_path(name)) for name in ("purelib", "platlib")}
    archive.file(str(interpreter), interpreter.read_bytes(), 0o755)
    archive.link("/usr/bin/python3", str(interpreter))
    archive.file("/usr/bin/setpriv", setpriv.read_bytes(), 0o755)
    archive.tree(stdlib, str(stdlib), leave_out=_NOT_IN_STDLIB)
    for folder in packages:
        archive.tree(folder, PACKAGES, leave_out=_NOT_IN_PACKAGES)
    modules = [path for folder in (stdlib / "lib-dynload", *packages) for path in folder.rglob("*.so")]
    for library in _libraries([interpreter, setpriv, *modules]):
        archive.file(library, Path(library).read_bytes(), 0o755)


def _libraries(files: Iterable[Path]) -> set[str]:
    """Return the paths of all shared libraries that the programs and modules load."""
    told = subprocess.run(["ldd", *files], capture_output=True, text=True, check=False).stdout
    return set(re.findall(r"^\s+(?:\S+ => )?(/\S+) \(0x", told, re.MULTILINE))


class Archive:
    """A cpio archive in the form that the kernel unpacks (newc).

    Everything in it belongs to root and can be read by everybody. Source: cpio(5),
    Documentation/driver-api/early-userspace/buffer-format.rst.
    """

    def __init__(self) -> None:
        self._members: dict[str, tuple[int, int, bytes, tuple[int, int]]] = {}

    def _add(
        self, path: str, mode: int, data: bytes = b"", mtime: int = 0, device: tuple[int, int] = (0, 0)
    ) -> None:
        for parent in reversed(Path(path).parents[:-1]):
            self._members.setdefault(str(parent), (stat.S_IFDIR | 0o755, 0, b"", (0, 0)))
        self._members[path] = (mode, mtime, data, device)

    def file(self, path: str, data: bytes, permissions: int, mtime: int = 0) -> None:
        """Add a file."""
        self._add(path, stat.S_IFREG | permissions, data, mtime)

    def folder(self, path: str, permissions: int) -> None:
        """Add a folder; those that files are in are there without it."""
        self._add(path, stat.S_IFDIR | permissions)

    def link(self, path: str, target: str) -> None:
        """Add a symbolic link."""
        if path != target:
            self._add(path, stat.S_IFLNK | 0o777, target.encode())

    def node(self, path: str, major: int, minor: int) -> None:
        """Add a character device."""
        self._add(path, stat.S_IFCHR | 0o600, device=(major, minor))

    def tree(self, folder: Path, path: str, leave_out: Iterable[str] = ()) -> None:
        """Add a folder's files with their times, by which compiled Python is found to be up to date."""
        left_out = set(leave_out)
        for source in sorted(folder.rglob("*")):
            parts = source.relative_to(folder).parts
            if source.is_file() and parts[0] not in left_out:
                permissions = 0o755 if source.stat().st_mode & 0o100 else 0o644
                target = "/".join((path, *parts))
                self.file(target, source.read_bytes(), permissions, int(source.stat().st_mtime))

    def data(self) -> bytes:
        """Return the archive. Not packed: to unpack it would take the guest longer than to load it."""
        pieces = []
        members = [*self._members.items(), ("/TRAILER!!!", (0, 0, b"", (0, 0)))]
        for number, (path, (mode, mtime, data, device)) in enumerate(members, 1):
            name = path[1:].encode() + b"\0"
            fields = (number, mode, 0, 0, 1, mtime, len(data), 0, 0, *device, len(name), 0)
            head = b"070701" + b"".join(b"%08X" % field for field in fields) + name
            pieces += [head, bytes(-len(head) % 4), data, bytes(-len(data) % 4)]
        return b"".join(pieces)
