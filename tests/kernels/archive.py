"""Writes the archive that a kernel unpacks into its first file system."""

import fnmatch
import re
import stat
from collections.abc import Callable, Iterable
from pathlib import Path


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
        """Add a folder's files; a link is the file that it leads to.

        Args:
            leave_out: Patterns of names in the folder itself.
        """
        is_left_out = _any_of(leave_out)
        for source in sorted(folder.rglob("*")):
            parts = source.relative_to(folder).parts
            if not is_left_out(parts[0]) and source.is_file():
                self._copy(source, "/".join((path, *parts)))

    def system(self, folder: Path, leave_out: Iterable[str]) -> None:
        """Add a whole root file system, with its links as they are.

        Args:
            folder: The root of it.
            leave_out: Patterns of paths below that.
        """
        is_left_out = _any_of(leave_out)
        for source in sorted(folder.rglob("*")):
            path = str(source.relative_to(folder))
            if is_left_out(path):
                continue
            if source.is_symlink():
                self.link(f"/{path}", str(source.readlink()))
            elif source.is_file():
                self._copy(source, f"/{path}")

    def _copy(self, source: Path, path: str) -> None:
        """Add a file with its time, by which compiled Python is found to be up to date."""
        found = source.stat()
        self.file(path, source.read_bytes(), 0o755 if found.st_mode & 0o100 else 0o644, int(found.st_mtime))

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


def _any_of(patterns: Iterable[str]) -> Callable[[str], object]:
    """Return what says whether one of the patterns fits; a * is any number of characters, also of /."""
    # Of no pattern at all: one that fits nothing.
    return re.compile("|".join(map(fnmatch.translate, patterns)) or r"(?!)").match
