"""The rings of side-band records, in memory that no kernel writes to."""

import ctypes
import errno
import fcntl
import mmap
import os
import platform
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import builders
import pytest

from exporter.errors import SetupError
from exporter.kernel import perf_rings
from exporter.kernel.perf_rings import PerfRings, open_perf_rings

SIZE = 1 << 12
# Of x86-64 and of arm64.
PERF_EVENT_OPEN = {298, 241}
MEMBARRIER = (283, 2, 0, 0)
HEAD, TAIL, OFFSET, DATA_SIZE = 1024, 1032, 1040, 1048
EXEC = builders.perf_comm(time_ns=5, tgid=400, comm=b"make")
FORK = builders.perf_fork(time_ns=4, tgid=400, forker_tgid=100)


class Kernel:
    """One CPU's ring as the kernel has it."""

    def __init__(self, size: int = SIZE) -> None:
        self.fd = os.memfd_create("ring")
        os.ftruncate(self.fd, mmap.PAGESIZE + size)
        self._size = size
        self._put(OFFSET, mmap.PAGESIZE)
        self._put(DATA_SIZE, size)

    def _put(self, at: int, value: int) -> None:
        os.pwrite(self.fd, value.to_bytes(8, "little"), at)

    def _get(self, at: int) -> int:
        return int.from_bytes(os.pread(self.fd, 8, at), "little")

    def begin_at(self, position: int) -> None:
        """Say that so much has been written and read before."""
        self._put(HEAD, position)
        self._put(TAIL, position)

    @property
    def unread(self) -> int:
        return self._get(HEAD) - self._get(TAIL)

    def write(self, record: bytes) -> None:
        head = self._get(HEAD)
        for i, byte in enumerate(record):
            os.pwrite(self.fd, bytes([byte]), mmap.PAGESIZE + (head + i) % self._size)
        self._put(HEAD, head + len(record))


@pytest.fixture
def cpus(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[dict[int, Kernel]]:
    """The CPUs that are online. perf_event_open of one returns a descriptor of its ring; of others it fails."""
    cpus = {0: Kernel(), 1: Kernel()}
    online = tmp_path / "online"
    monkeypatch.setattr(perf_rings, "_ONLINE", online)
    monkeypatch.setattr(perf_rings, "_MOST_RING_BYTES", SIZE)
    monkeypatch.setattr(perf_rings, "_LEAST_RING_BYTES", SIZE)

    class Libc:
        def syscall(self, number: int, *words: Any) -> int:
            if number not in PERF_EVENT_OPEN:
                return 0
            cpu = words[2]
            if cpu not in cpus:
                ctypes.set_errno(errno.ENODEV)
                return -1
            return os.dup(cpus[cpu].fd)

    online.write_text("0-1\n", encoding="ascii")
    monkeypatch.setattr(perf_rings, "_libc", Libc())
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    yield cpus
    for kernel in cpus.values():
        os.close(kernel.fd)


@pytest.fixture
def rings(cpus: dict[int, Kernel]) -> Iterator[PerfRings]:
    rings = open_perf_rings()
    yield rings
    rings.close()


def test_what_the_kernel_wrote_is_read_once_and_given_back(cpus: dict[int, Kernel], rings: PerfRings) -> None:
    assert rings.read() == []
    cpus[1].write(FORK)
    cpus[1].write(EXEC)
    assert rings.read() == [FORK + EXEC]
    assert cpus[1].unread == 0
    assert rings.read() == []


def test_each_cpu_has_a_ring_of_its_own(cpus: dict[int, Kernel], rings: PerfRings) -> None:
    cpus[0].write(FORK)
    cpus[1].write(EXEC)
    assert rings.cpus == {0, 1}
    assert rings.read() == [FORK, EXEC]


@pytest.mark.parametrize("before", [1, 8, len(FORK) - 8, len(FORK)])
def test_a_record_that_is_split_by_the_end_of_the_ring_is_whole(cpus: dict[int, Kernel], before: int) -> None:
    # So far the reader has read many rounds.
    cpus[0].begin_at(7 * SIZE - before)
    rings = open_perf_rings()
    cpus[0].write(FORK)
    cpus[0].write(EXEC)
    assert rings.read() == [FORK + EXEC]
    assert cpus[0].unread == 0
    rings.close()


def test_a_ring_that_is_full_to_the_last_byte_is_read_whole(cpus: dict[int, Kernel], rings: PerfRings) -> None:
    data = bytes(range(256)) * (SIZE // 256)
    cpus[0].begin_at(40)
    cpus[0].write(data)
    assert rings.state() == (SIZE, SIZE)
    assert rings.read() == [data]
    assert rings.state() == (0, SIZE)


def test_the_fill_is_that_of_the_fullest_ring(cpus: dict[int, Kernel], rings: PerfRings) -> None:
    cpus[0].write(FORK)
    cpus[1].write(FORK)
    cpus[1].write(FORK)
    assert rings.state() == (2 * len(FORK), SIZE)


def test_what_is_written_while_it_is_read_is_read_the_next_time(
    cpus: dict[int, Kernel], rings: PerfRings, monkeypatch: pytest.MonkeyPatch
) -> None:
    cpus[0].write(FORK)
    barriers = 0

    def write_meanwhile(self: PerfRings) -> None:
        nonlocal barriers
        barriers += 1
        if barriers == 2:
            # Copied, and not given back yet.
            cpus[0].write(EXEC)

    monkeypatch.setattr(PerfRings, "_barrier", write_meanwhile)
    assert rings.read() == [FORK]
    assert cpus[0].unread == len(EXEC)
    assert rings.read() == [EXEC]
    assert barriers == 4


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_where_the_cpu_reorders_loads_barriers_stand_between_heads_records_and_tails(
    machine: str, cpus: dict[int, Kernel], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(platform, "machine", lambda: machine)
    rings = open_perf_rings()
    done: list[object] = []
    barriers = [MEMBARRIER] if machine == "aarch64" else []
    real = perf_rings._libc.syscall  # noqa: SLF001 - the kernel's system calls

    def told(number: int, *words: Any) -> int:
        done.append((number, *words))
        return int(real(number, *words))

    monkeypatch.setattr(perf_rings._libc, "syscall", told)  # noqa: SLF001

    def tell(name: str, step: Callable[[object], object]) -> Callable[[object], object]:
        def steps(ring: object) -> object:
            done.append(name)
            return step(ring)

        return steps

    for name in ("look", "copy", "advance"):
        monkeypatch.setattr(perf_rings._Ring, name, tell(name, getattr(perf_rings._Ring, name)))  # noqa: SLF001
    assert rings.read() == []
    assert done == ["look", "look"]
    cpus[0].write(FORK)
    cpus[1].write(EXEC)
    done.clear()
    assert rings.read() == [FORK, EXEC]
    assert done == ["look", "look", *barriers, "copy", "copy", *barriers, "advance", "advance"]
    rings.close()


def test_where_the_kernel_makes_no_barrier_there_are_no_rings(
    cpus: dict[int, Kernel], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A record that is read too early would be an old one."""

    def refused(number: int, *words: Any) -> int:
        assert number == MEMBARRIER[0]
        ctypes.set_errno(errno.EPERM)
        return -1

    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    monkeypatch.setattr(perf_rings._libc, "syscall", refused)  # noqa: SLF001 - the kernel's system calls
    with pytest.raises(SetupError, match=r"membarrier.*aarch64.*not permitted.*Linux 4\.16"):
        open_perf_rings()


def test_a_cpu_that_is_offline_at_the_start_has_no_ring_until_it_comes(
    cpus: dict[int, Kernel], monkeypatch: pytest.MonkeyPatch
) -> None:
    enabled: list[int] = []
    monkeypatch.setattr(fcntl, "ioctl", lambda fd, request, _: enabled.append(request))
    late = cpus.pop(1)
    rings = open_perf_rings()
    assert rings.cpus == {0}
    cpus[1] = late
    perf_rings._ONLINE.write_text("0-1\n")  # noqa: SLF001 - the kernel's file
    assert rings.cover() == frozenset()
    assert rings.cpus == {0, 1}
    # The ring that was there goes on, should its CPU have been away.
    assert enabled == [0x2400]
    late.write(EXEC)
    assert rings.read() == [EXEC]
    rings.close()


def test_a_cpu_that_comes_when_the_kernel_permits_no_more_is_named(
    cpus: dict[int, Kernel], rings: PerfRings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fcntl, "ioctl", lambda fd, request, _: None)
    perf_rings._ONLINE.write_text("0-2\n")  # noqa: SLF001 - the kernel's file
    assert rings.cover() == {2}
    assert rings.cpus == {0, 1}


def test_rings_are_halved_until_the_limit_of_locked_memory_permits_them(
    cpus: dict[int, Kernel], monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    real = mmap.mmap

    def limited(fd: int, length: int) -> mmap.mmap:
        sizes.append(length - mmap.PAGESIZE)
        if length > mmap.PAGESIZE + SIZE:
            raise OSError(errno.EPERM, os.strerror(errno.EPERM))
        return real(fd, length)

    monkeypatch.setattr(perf_rings, "_MOST_RING_BYTES", 4 * SIZE)
    monkeypatch.setattr(mmap, "mmap", limited)
    rings = open_perf_rings()
    assert sizes == [4 * SIZE, 2 * SIZE, SIZE, SIZE]
    assert rings.state().limit_bytes == SIZE
    rings.close()


def test_a_limit_below_the_smallest_rings_is_named(
    cpus: dict[int, Kernel], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(fd: int, length: int) -> mmap.mmap:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(mmap, "mmap", refused)
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(SetupError, match="RLIMIT_MEMLOCK"):
        open_perf_rings()
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize(
    ("error", "paranoid", "words"),
    [
        (errno.EACCES, "2", "kernel.perf_event_paranoid is 2.*add CAP_PERFMON"),
        (errno.EACCES, "3", "kernel.perf_event_paranoid is 3.*add CAP_SYS_ADMIN"),
        (errno.EACCES, None, "kernel.perf_event_paranoid is unknown"),
        (errno.EPERM, "2", "seccomp.*SystemCallFilter=perf_event_open"),
        (errno.ENOSYS, "2", "CONFIG_PERF_EVENTS=y"),
        (errno.EMFILE, "2", "perf_event_open failed"),
    ],
)
def test_why_the_kernel_refuses_is_said(
    cpus: dict[int, Kernel],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    *,
    error: int,
    paranoid: str | None,
    words: str,
) -> None:
    class Refusing:
        def syscall(self, number: int, *words: Any) -> int:
            ctypes.set_errno(error)
            return -1

    path = tmp_path / "paranoid"
    if paranoid is not None:
        path.write_text(f"{paranoid}\n")
    monkeypatch.setattr(perf_rings, "_PARANOID", path)
    monkeypatch.setattr(perf_rings, "_libc", Refusing())
    with pytest.raises(SetupError, match=words):
        open_perf_rings()


def test_a_machine_whose_system_calls_are_not_known_has_no_rings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "riscv64")
    with pytest.raises(SetupError, match="riscv64"):
        open_perf_rings()


@pytest.mark.parametrize(
    ("text", "cpus"), [("0", [0]), ("0-3", [0, 1, 2, 3]), ("0,2-3,7", [0, 2, 3, 7]), ("1-1", [1])]
)
def test_a_list_of_cpus_is_read_as_the_kernel_writes_it(
    text: str, cpus: list[int], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = tmp_path / "online"
    path.write_text(f"{text}\n")
    monkeypatch.setattr(perf_rings, "_ONLINE", path)
    assert perf_rings._online_cpus() == cpus  # noqa: SLF001 - every form that the kernel writes
