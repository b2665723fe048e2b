"""perf side-band records: the comm of every exec, and the task that made every fork.

A dummy software event counts nothing, but the kernel writes side-band records for it: one for each exec, fork and
exit of the host. Each CPU has a ring of them (perf_rings.py). The records of one process can lie in several rings.

A record is a header and a body; with the sample type that is asked for here, its time is its last 8 bytes:

    perf_event_header  type u32, misc u16, size u16
    COMM (3)           pid u32, tid u32, comm with NULs to a multiple of 8, time u64       32 or 40 bytes
    EXIT (4), FORK (7) pid u32, ppid u32, tid u32, ptid u32, time u64, time u64            40 bytes
    LOST (2)           id u64, lost u64, time u64                                          32 bytes
    NAMESPACES (16)    pid u32, tid u32, number u64, of each dev u64 and inode u64, time   144 bytes with 7 of them

"pid" is a thread group here, as in perf's headers: it is the connector's tgid, and "tid" is the connector's pid.

Source: perf_event_open(2), include/uapi/linux/perf_event.h. Integers are in host byte order.
"""

import struct
import sys
from typing import NamedTuple

from exporter.errors import MalformedMessage

PERF_RECORD_LOST = 2
PERF_RECORD_COMM = 3
PERF_RECORD_EXIT = 4
PERF_RECORD_FORK = 7
PERF_RECORD_NAMESPACES = 16
PERF_RECORD_MISC_COMM_EXEC = 0x2000

_PERF_TYPE_SOFTWARE = 1
_PERF_COUNT_SW_DUMMY = 9
_PERF_SAMPLE_TIME = 1 << 2
_CLOCK_MONOTONIC = 1
# struct perf_event_attr, 96 bytes (PERF_ATTR_SIZE_VER3): every kernel since 3.7 takes that size.
_ATTR = struct.Struct("=IIQQQQQIIQQQQIi")
_FLAGS = {
    "exclude_kernel": 5,
    "exclude_hv": 6,
    "comm": 9,
    "task": 13,
    "sample_id_all": 18,
    "comm_exec": 24,
    "use_clockid": 25,
}
# Linux 4.12
_NAMESPACES_FLAG = 28

_HEADER = struct.Struct("=IHH")
# Where the low bytes of type and size stand in it, and where a record of a task has nothing but zeros.
_KIND_AT, _SIZE_AT = (0, 6) if sys.byteorder == "little" else (3, 7)
_ZERO_AT = tuple({*range(_HEADER.size)} - {_KIND_AT, _SIZE_AT})
# All records consist of whole words.
_WORD = struct.Struct("=Q")
# What is needed of a whole record, by kind and size.
_FORK = struct.Struct("=8xIIIIQ8x")
_SHORT_COMM = struct.Struct("=8xI4x8sQ")
_LONG_COMM = struct.Struct("=8xI4x16sQ")
_LOST = struct.Struct("=16xQ8x")
# Of the namespaces the inode of the sixth, MNT_NS_INDEX.
_NAMESPACES = struct.Struct("=8xII96xQ")
_TIME = struct.Struct("=Q")
# A ring of tasks only, as a storm of forks makes it: kind, of which the low byte as everywhere, then as _FORK.
_TASK = struct.Struct("=B7xIIIIQ8x" if sys.byteorder == "little" else "=3xB4xIIIIQ8x")


def _head(kind: int, size: int, misc: int = 0) -> int:
    """Return a header as one word."""
    return int(_WORD.unpack(_HEADER.pack(kind, misc, size))[0])


_EXIT_HEAD = _head(PERF_RECORD_EXIT, _TASK.size)
_FORK_HEAD = _head(PERF_RECORD_FORK, _TASK.size)
_SHORT_EXEC_HEAD = _head(PERF_RECORD_COMM, _SHORT_COMM.size, PERF_RECORD_MISC_COMM_EXEC)
_LONG_EXEC_HEAD = _head(PERF_RECORD_COMM, _LONG_COMM.size, PERF_RECORD_MISC_COMM_EXEC)

ExecName = tuple[int, int, bytes]
"""(time_ns, tgid, comm): the comm that an exec gave to a process. The time is CLOCK_MONOTONIC, some microseconds
before the timestamp of the connector's EXEC."""

Fork = tuple[int, int, int, int]
"""(time_ns, tgid, forker_tgid, forker_pid): a new process, and the process and the thread that called fork. The
time is some microseconds after the timestamp of the connector's FORK."""


MountSpace = tuple[int, int, int]
"""(time_ns, tgid, inode): the mount namespace of a process that was forked, or that has entered another one."""


class SidebandRecords(NamedTuple):
    """What the rings had: of each ring in its order."""

    execs: list[ExecName]
    forks: list[Fork]
    lost: int
    """Records that the kernel dropped because a ring was full."""
    mounts: tuple[MountSpace, ...] = ()


def encode_attr(*, mounts: bool = False) -> bytes:
    """Build the struct perf_event_attr of a dummy event with side-band records, in the connector's clock.

    Args:
        mounts: With records of namespaces; a kernel before Linux 4.12 refuses that.
    """
    flags = 0
    for bit in (*_FLAGS.values(), *((_NAMESPACES_FLAG,) if mounts else ())):
        # They are bit fields: the first one is the lowest bit, or on a big-endian machine the highest.
        flags |= 1 << (bit if sys.byteorder == "little" else 63 - bit)
    return _ATTR.pack(
        _PERF_TYPE_SOFTWARE, _ATTR.size, _PERF_COUNT_SW_DUMMY, 0, _PERF_SAMPLE_TIME, 0, flags,
        0, 0, 0, 0, 0, 0, 0, _CLOCK_MONOTONIC,
    )  # fmt: skip


def decode_records(data: bytes) -> SidebandRecords:
    """Decode whole records that lie end to end, as a ring has them.

    Threads, exits and renames are left out: the connector has events of them.

    Raises:
        MalformedMessage: A record is cut short. No input raises anything else.
    """
    count, rest = divmod(len(data), _TASK.size)
    # A byte's column over all records is a slice: a few counts look at all of them, without a loop.
    kinds = data[_KIND_AT :: _TASK.size]
    if (
        not rest
        and kinds.count(PERF_RECORD_FORK) + kinds.count(PERF_RECORD_EXIT) == count
        and data[_SIZE_AT :: _TASK.size].count(_TASK.size) == count
        and all(data[at :: _TASK.size].count(0) == count for at in _ZERO_AT)
    ):
        forks = [
            (time_ns, tgid, forker_tgid, forker_pid)
            for kind, tgid, forker_tgid, pid, forker_pid, time_ns in _TASK.iter_unpack(data)
            if kind == PERF_RECORD_FORK and tgid == pid
        ]
        return SidebandRecords([], forks, 0)
    return _walk(data)


def _walk(data: bytes) -> SidebandRecords:
    found = _Found()
    at, end = 0, len(data)
    unpack_fork, unpack_short, unpack_long = _FORK.unpack_from, _SHORT_COMM.unpack_from, _LONG_COMM.unpack_from
    add_fork, add_exec = found.forks.append, found.execs.append
    # A header is one word: kind, flags and size are compared at once.
    exit_head, fork_head, short_head, long_head = _EXIT_HEAD, _FORK_HEAD, _SHORT_EXEC_HEAD, _LONG_EXEC_HEAD
    if end % _WORD.size:
        raise MalformedMessage("perf_event_header.size", _WORD.size, end % _WORD.size)
    words = memoryview(data).cast("Q")
    try:
        while at < end:
            head = words[at >> 3]
            if head == exit_head:
                at += 40
            elif head == fork_head:
                tgid, forker_tgid, pid, forker_pid, time_ns = unpack_fork(data, at)
                if tgid == pid:
                    add_fork((time_ns, tgid, forker_tgid, forker_pid))
                at += 40
            elif head == long_head:
                tgid, comm, time_ns = unpack_long(data, at)
                add_exec((time_ns, tgid, comm.rstrip(b"\0")))
                at += 40
            elif head == short_head:
                tgid, comm, time_ns = unpack_short(data, at)
                add_exec((time_ns, tgid, comm.rstrip(b"\0")))
                at += 32
            else:
                at += found.take(data, at)
    except (IndexError, struct.error) as error:
        raise MalformedMessage("perf_event_header", _HEADER.size, end - at) from error
    if at > end:
        raise MalformedMessage("perf_event_header.size", at - end, 0)
    return SidebandRecords(found.execs, found.forks, found.lost, tuple(found.mounts))


class _Found:
    """What a walk has found so far; see SidebandRecords."""

    def __init__(self) -> None:
        self.execs: list[ExecName] = []
        self.forks: list[Fork] = []
        self.mounts: list[MountSpace] = []
        self.lost = 0

    def take(self, data: bytes, at: int) -> int:
        """Take a record of any kind, with any flags.

        Returns:
            Its size.

        Raises:
            MalformedMessage: No record has such a size.
            struct.error: It is cut short.
        """
        kind, misc, size = _HEADER.unpack_from(data, at)
        if kind == PERF_RECORD_FORK:
            tgid, forker_tgid, pid, forker_pid, time_ns = _FORK.unpack_from(data, at)
            if tgid == pid:
                self.forks.append((time_ns, tgid, forker_tgid, forker_pid))
        elif kind == PERF_RECORD_COMM:
            if misc & PERF_RECORD_MISC_COMM_EXEC:
                form = _SHORT_COMM if size == _SHORT_COMM.size else _LONG_COMM
                tgid, comm, time_ns = form.unpack_from(data, at)
                self.execs.append((time_ns, tgid, comm.rstrip(b"\0")))
        elif kind == PERF_RECORD_NAMESPACES:
            tgid, pid, inode = _NAMESPACES.unpack_from(data, at)
            # Those of other pid namespaces have pid 0.
            if tgid and tgid == pid:
                self.mounts.append((_TIME.unpack_from(data, at + size - _TIME.size)[0], tgid, inode))
        elif kind == PERF_RECORD_LOST:
            self.lost += _LOST.unpack_from(data, at)[0]
        if size < _HEADER.size or size % _WORD.size:
            raise MalformedMessage("perf_event_header.size", _HEADER.size, size)
        return int(size)
