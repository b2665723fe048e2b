"""The rings in which the kernel writes perf side-band records: one for each CPU, read without system calls.

A ring is memory that the kernel and this program share. The kernel writes records and moves `data_head`; the
reader copies what is between `data_tail` and `data_head` and moves `data_tail`. Both run free: their places in the
ring are modulo its size. A full ring drops new records and counts them.

Once open, the rings go on when all privileges are given up.

Source: perf_event_open(2), include/uapi/linux/perf_event.h (struct perf_event_mmap_page), membarrier(2).
"""

import ctypes
import errno
import fcntl
import mmap
import os
import platform
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from exporter.errors import SetupError
from exporter.kernel.perf_event import encode_attr

_SYSCALLS = {"x86_64": 298, "aarch64": 241}
_SYS_MEMBARRIER = 283
_MEMBARRIER_CMD_GLOBAL_EXPEDITED = 2
_PERF_FLAG_FD_CLOEXEC = 8
_PERF_EVENT_IOC_ENABLE = 0x2400

# struct perf_event_mmap_page, in units of 8 bytes.
_DATA_HEAD, _DATA_TAIL, _DATA_OFFSET, _DATA_SIZE = 128, 129, 130, 131

_MOST_RING_BYTES = 4 << 20
_LEAST_RING_BYTES = 512 << 10

_ONLINE = Path("/sys/devices/system/cpu/online")
_PARANOID = Path("/proc/sys/kernel/perf_event_paranoid")

_libc = ctypes.CDLL(None, use_errno=True)


class RingsState(NamedTuple):
    """How full the rings are, all together."""

    used_bytes: int
    limit_bytes: int


class _Ring:
    """One CPU's ring."""

    def __init__(self, fd: int, size_bytes: int) -> None:
        self.fd = fd
        self._map = mmap.mmap(fd, mmap.PAGESIZE + size_bytes)
        # A word is read and written in one go; struct.pack_into would write 0 first, and a kernel that looks in
        # between takes all of the ring for read.
        self._words = memoryview(self._map).cast("Q")
        self._data = memoryview(self._map)[self._words[_DATA_OFFSET] :]
        self._size = self._words[_DATA_SIZE]
        self._head = self._words[_DATA_TAIL]

    def look(self) -> int:
        """Return how many bytes wait, and remember up to where."""
        self._head = self._words[_DATA_HEAD]
        return self._head - self._words[_DATA_TAIL]

    def copy(self) -> bytes:
        """Copy what waited at the last look."""
        tail = self._words[_DATA_TAIL]
        start = tail % self._size
        end = start + self._head - tail
        if end <= self._size:
            return bytes(self._data[start:end])
        return bytes(self._data[start:]) + bytes(self._data[: end - self._size])

    def advance(self) -> None:
        """Give the kernel what was copied."""
        self._words[_DATA_TAIL] = self._head

    def enable(self) -> None:
        """Let the event go on: one whose CPU went offline stays silent when it comes back."""
        fcntl.ioctl(self.fd, _PERF_EVENT_IOC_ENABLE, 0)

    def close(self) -> None:
        self._data.release()
        self._words.release()
        self._map.close()
        os.close(self.fd)


class PerfRings:
    """The rings of all CPUs that are online.

    Args:
        rings: Open, by CPU.
        size_bytes: Of each.
        attr: The event of each.
    """

    def __init__(self, rings: dict[int, _Ring], size_bytes: int, attr: bytes) -> None:
        self._attr = attr
        self._rings = rings
        self._size_bytes = size_bytes
        self._needs_barrier = _needs_barrier()

    @property
    def has_mounts(self) -> bool:
        """There are records of mount namespaces."""
        return self._attr == encode_attr(mounts=True)

    @property
    def cpus(self) -> frozenset[int]:
        """The CPUs that have a ring."""
        return frozenset(self._rings)

    def read(self) -> list[bytes]:
        """Copy what waits in each ring: whole records, end to end."""
        waiting = [ring for ring in self._rings.values() if ring.look()]
        if not waiting:
            return []
        # The records must not be read before the heads, nor the tails written before the records are read.
        self._barrier()
        copies = [ring.copy() for ring in waiting]
        self._barrier()
        for ring in waiting:
            ring.advance()
        return copies

    def state(self) -> RingsState:
        """Return how full they are: of the fullest ring, as each one can overflow alone."""
        return RingsState(max(ring.look() for ring in self._rings.values()), self._size_bytes)

    def cover(self) -> frozenset[int]:
        """Go on with CPUs that came back, and open rings for those that came new.

        Returns:
            The CPUs that are online and have no ring: the kernel does not permit it any more.
        """
        for ring in self._rings.values():
            ring.enable()
        missing = frozenset(_online_cpus()) - self._rings.keys()
        for cpu in missing:
            try:
                self._rings[cpu] = _open_ring(cpu, self._size_bytes, self._attr)
            except OSError:
                continue
        return missing - self._rings.keys()

    def close(self) -> None:
        """Close all."""
        for ring in self._rings.values():
            ring.close()
        self._rings.clear()

    def _barrier(self) -> None:
        if self._needs_barrier:
            _membarrier()


def open_perf_rings(*, mounts: bool = False) -> PerfRings:
    """Open a ring for each CPU that is online, as large as the memory limits permit.

    Args:
        mounts: With records of mount namespaces, where the kernel has such (Linux 4.12).

    Raises:
        SetupError: The kernel does not permit it, or has no perf events; says what is missing.
    """
    if platform.machine() not in _SYSCALLS:
        raise SetupError(f"side-band records are not supported on {platform.machine()}")
    # Without it records could be read before the kernel has written them: old ones, taken for new.
    if _needs_barrier() and _membarrier() < 0:
        raise SetupError(
            f"membarrier(2), which side-band records need on {platform.machine()}, failed "
            f"({os.strerror(ctypes.get_errno())}): allow that system call, or use Linux 4.16 or later with "
            "CONFIG_MEMBARRIER=y"
        )
    size_bytes = _MOST_RING_BYTES
    attr = encode_attr(mounts=mounts)
    while True:
        try:
            return PerfRings(_open_all(_online_cpus(), size_bytes, attr), size_bytes, attr)
        except _MemoryLimitError as error:
            size_bytes //= 2
            if size_bytes < _LEAST_RING_BYTES:
                raise SetupError(
                    "not permitted to lock memory for side-band records: raise RLIMIT_MEMLOCK (LimitMEMLOCK=), "
                    "or add CAP_IPC_LOCK"
                ) from error
        except OSError as error:
            if mounts and error.errno == errno.EINVAL:
                return open_perf_rings()
            raise SetupError(_why_refused(error)) from error


def _needs_barrier() -> bool:
    """Return whether the CPU may reorder loads with loads, and stores with loads before them."""
    return platform.machine() != "x86_64"


def _membarrier() -> int:
    """Let no load or store of this thread pass this point; return -1 if the kernel does not do it.

    The kernel makes a full barrier on the CPU of the caller (and on those of programs that registered for it: this
    one does not). With one CPU it makes none, and none is needed.
    """
    return int(_libc.syscall(_SYS_MEMBARRIER, _MEMBARRIER_CMD_GLOBAL_EXPEDITED, 0, 0))


class _MemoryLimitError(OSError):
    """perf_event_mlock_kb and RLIMIT_MEMLOCK do not permit so much memory."""


def _open_all(cpus: Iterable[int], size_bytes: int, attr: bytes) -> dict[int, _Ring]:
    rings: dict[int, _Ring] = {}
    try:
        for cpu in cpus:
            try:
                rings[cpu] = _open_ring(cpu, size_bytes, attr)
            except OSError as error:
                # It went offline meanwhile.
                if error.errno != errno.ENODEV:
                    raise
    except OSError:
        for ring in rings.values():
            ring.close()
        raise
    return rings


def _open_ring(cpu: int, size_bytes: int, attr: bytes) -> _Ring:
    fd = _libc.syscall(
        _SYSCALLS[platform.machine()], ctypes.create_string_buffer(attr), -1, cpu, -1, _PERF_FLAG_FD_CLOEXEC
    )
    if fd < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    try:
        return _Ring(fd, size_bytes)
    except OSError as error:
        os.close(fd)
        if error.errno == errno.EPERM:
            raise _MemoryLimitError(error.errno, error.strerror) from error
        raise


def _online_cpus() -> list[int]:
    """Read a CPU list such as "0-3,5"."""
    cpus: list[int] = []
    for part in _ONLINE.read_text(encoding="ascii").strip().split(","):
        first, _, last = part.partition("-")
        cpus += range(int(first), int(last or first) + 1)
    return cpus


def _why_refused(error: OSError) -> str:
    if error.errno == errno.EACCES:
        try:
            paranoid = _PARANOID.read_text(encoding="ascii").strip()
        except OSError:
            paranoid = "unknown"
        capability = (
            "CAP_SYS_ADMIN" if paranoid in {"3", "4"} else "CAP_PERFMON (Linux 5.8 and later) or CAP_SYS_ADMIN"
        )
        return (
            f"perf_event_open is not permitted (kernel.perf_event_paranoid is {paranoid}): "
            f"add {capability}, or lower that setting"
        )
    if error.errno == errno.EPERM:
        return (
            "perf_event_open is forbidden by a seccomp profile or security module: allow that system call "
            "(systemd: SystemCallFilter=perf_event_open)"
        )
    if error.errno in {errno.ENOSYS, errno.ENOENT, errno.EOPNOTSUPP}:
        return f"the kernel has no perf events ({error.strerror}): it needs CONFIG_PERF_EVENTS=y"
    return f"perf_event_open failed: {error.strerror}"
