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
# Where the low bytes of type and size stand in it, and the high byte of misc. Of the records that are asked for,
# none is longer than 255 bytes.
_KIND_AT, _MISC_HIGH_AT, _SIZE_AT = (0, 5, 6) if sys.byteorder == "little" else (3, 4, 7)
_COMM_EXEC_HIGH = PERF_RECORD_MISC_COMM_EXEC >> 8
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
    ):
        forks = [
            (time_ns, tgid, forker_tgid, forker_pid)
            for kind, tgid, forker_tgid, pid, forker_pid, time_ns in _TASK.iter_unpack(data)
            if kind == PERF_RECORD_FORK and tgid == pid
        ]
        return SidebandRecords([], forks, 0)
    return _walk(data)


def _walk(data: bytes) -> SidebandRecords:
    execs: list[ExecName] = []
    forks: list[Fork] = []
    mounts: list[MountSpace] = []
    lost = 0
    at, end = 0, len(data)
    unpack_fork, unpack_short, unpack_long = _FORK.unpack_from, _SHORT_COMM.unpack_from, _LONG_COMM.unpack_from
    try:
        while at < end:
            # Bytes instead of a header: most records of a storm are only skipped.
            kind, size = data[at + _KIND_AT], data[at + _SIZE_AT]
            if kind == PERF_RECORD_FORK:
                tgid, forker_tgid, pid, forker_pid, time_ns = unpack_fork(data, at)
                if tgid == pid:
                    forks.append((time_ns, tgid, forker_tgid, forker_pid))
            elif kind == PERF_RECORD_COMM:
                if data[at + _MISC_HIGH_AT] & _COMM_EXEC_HIGH:
                    tgid, comm, time_ns = (unpack_short if size == _SHORT_COMM.size else unpack_long)(data, at)
                    execs.append((time_ns, tgid, comm.rstrip(b"\0")))
            elif kind == PERF_RECORD_NAMESPACES:
                tgid, pid, inode = _NAMESPACES.unpack_from(data, at)
                # Those of other pid namespaces have pid 0.
                if tgid and tgid == pid:
                    mounts.append((_TIME.unpack_from(data, at + size - _TIME.size)[0], tgid, inode))
            elif kind == PERF_RECORD_LOST:
                lost += _LOST.unpack_from(data, at)[0]
            if size < _HEADER.size:
                raise MalformedMessage("perf_event_header.size", _HEADER.size, size)
            at += size
    except (IndexError, struct.error) as error:
        raise MalformedMessage("perf_event_header", _HEADER.size, end - at) from error
    if at > end:
        raise MalformedMessage("perf_event_header.size", at - end, 0)
    return SidebandRecords(execs, forks, lost, tuple(mounts))
