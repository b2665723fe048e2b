"""A memory cgroup with a limit, as a container or a systemd unit has one: the kernel kills what exceeds it."""

import contextlib
from collections.abc import Iterator, Sequence

from attack.cgroup_folder import CgroupFolder, cgroup_folder

_MIB = 1 << 20


class MemoryCgroup:
    """A memory cgroup.

    Args:
        folder: Its folder.
        limit_bytes: What its processes may use, with the kernel's memory for their sockets.
    """

    def __init__(self, folder: CgroupFolder, limit_bytes: int) -> None:
        self._folder = folder
        self._path = folder.path
        self._is_v2 = folder.is_v2
        self._write("memory.max" if self._is_v2 else "memory.limit_in_bytes", limit_bytes)
        # Swapping out would hide what is too much; a kernel without swap has no such file.
        with contextlib.suppress(OSError):
            self._write(*(("memory.swap.max", 0) if self._is_v2 else ("memory.memsw.limit_in_bytes", limit_bytes)))
        if not self._is_v2:
            # Version 1 counts the buffers of TCP only if they have a limit, and apart.
            self._write("memory.kmem.tcp.limit_in_bytes", limit_bytes)

    def _write(self, name: str, number: int) -> None:
        (self._path / name).write_text(str(number))

    def _number(self, name: str) -> int:
        return int((self._path / name).read_text())

    def command(self, words: Sequence[str]) -> list[str]:
        """Return a command that runs another in the cgroup from its first instruction on."""
        return self._folder.command(words)

    @property
    def kills(self) -> int:
        """How many processes the kernel has killed because memory was at its limit."""
        text = (self._path / ("memory.events" if self._is_v2 else "memory.oom_control")).read_text()
        return int(dict(line.split() for line in text.splitlines())["oom_kill"])

    @property
    def peak_mib(self) -> float:
        """The most that was used, with pages of files that could have been given back, and with buffers of TCP."""
        if self._is_v2:
            return self._number("memory.peak") / _MIB
        used = self._number("memory.max_usage_in_bytes") + self._number("memory.kmem.tcp.max_usage_in_bytes")
        return used / _MIB


@contextlib.contextmanager
def memory_cgroup(limit_bytes: int) -> Iterator[MemoryCgroup | None]:
    """Make a memory cgroup for the block, whose processes end before it; None where that is not permitted."""
    with cgroup_folder("memory", "memory") as folder:
        yield None if folder is None else MemoryCgroup(folder, limit_bytes)
